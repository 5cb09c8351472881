"""What is asked of the transfer operator of a chain: defaults and checks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fpsolve.errors import InputError
from fpsolve.fem.spacing import check_count
from fpsolve.model.chain import Chain
from fpsolve.model.domains import Domain
from fpsolve.problems.request import _check_numbers, as_points

#: Degree of the elements by dimension, measured in benchmarks/README.md.
DEGREE = {1: 3, 2: 2, 3: 2}
#: With Gaussian steps u is smooth inside the domain.
SMOOTH_DEGREE = {1: 4, 2: 4, 3: 3}
#: The domain's extent divided by these: the size where nothing is said, and where refinement begins.
CELLS = {1: 64, 2: 16, 3: 8}
FIRST_CELLS = {1: 16, 2: 8, 3: 4}
MAX_UNKNOWNS = {1: 40_000, 2: 40_000, 3: 40_000}
HIGHEST = 4


@dataclass(frozen=True)
class ChainRequest:
    """A checked question; see `fpsolve.problems.chain_exit.chain_exit_time` for the options."""

    starts: np.ndarray
    tolerance: float | None
    size: float
    degree: int
    moments: int
    max_unknowns: int


def checked_chain_request(
    chain: Chain,
    domain: Domain,
    starts: object,
    tolerance: float | None,
    size: float | None,
    degree: int | None,
    moments: int,
    max_unknowns: int | None,
) -> ChainRequest:
    """Check what was asked and fill in the defaults. Raises InputError."""
    start_size = check_chain_mesh(chain, domain, size, refined=tolerance is not None)
    _check_numbers(tolerance, None, degree, moments)
    if degree is not None and degree > HIGHEST:
        raise InputError("mesh.degree", degree, f"an integer from 1 to {HIGHEST}")
    if domain.reflecting:
        remedy = "A step of the chain is not reflected; use a domain that the chain can leave everywhere."
        raise InputError("domain.reflecting", domain.reflecting, "no reflecting part for a chain", remedy)
    d = chain.dimension
    lower, upper = domain.bounding_box()
    x = as_points([(lower + upper) / 2] if starts is None else starts, d, "exit.starts")
    inside = domain.contains(x)
    if not inside.all():
        point = x[~inside][0].tolist()
        raise InputError("exit.starts", point, "a point inside the domain", "A start outside has left.")
    default = SMOOTH_DEGREE if chain.law == "gaussian" else DEGREE
    return ChainRequest(x, tolerance, start_size, degree or default[d], moments, max_unknowns or MAX_UNKNOWNS[d])


def check_chain_mesh(chain: Chain, domain: Domain, size: float | None, refined: bool = False) -> float:
    """Check that chain, domain and size fit together; return the size. Raises InputError."""
    d = chain.dimension
    if chain.momentum:
        remedy = "The transfer operator in position and velocity is not offered; simulate the chain."
        raise InputError("process.momentum", chain.momentum, "no momentum", remedy)
    if domain.dimension != d:
        names = ", ".join(chain.landscape.variables)
        raise InputError("domain", f"dimension {domain.dimension}", f"dimension {d}, that of {names}")
    _check_numbers(None, size, None, None)
    lower, upper = domain.bounding_box()
    extent = float(np.max(upper - lower))
    if size is not None and size > extent:
        raise InputError("mesh.size", size, f"less than the domain's extent {extent:.6g}")
    start = float(size) if size is not None else extent / (FIRST_CELLS if refined else CELLS)[d]
    check_count(start, float(np.prod(upper - lower)) / 2, d)
    return start
