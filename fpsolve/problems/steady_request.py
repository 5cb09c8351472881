"""What is asked of a steady state: defaults and checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fpsolve.errors import InputError
from fpsolve.model.domains import Domain
from fpsolve.model.expressions import Formula
from fpsolve.model.process import Process
from fpsolve.problems.request import SCHEME, SCHEMES, _check_gibbs, _check_numbers

#: Degree p by scheme and dimension. In 2D degree 4 met 1e-4 with half the unknowns of degree 3 (double well, kinetic).
#: Unknowns at which refinement stops: two factorisations and four Krylov spaces a level cost more than exit times.
DEGREE = {"dg": {1: 4, 2: 4, 3: 2}, "cg": {1: 4, 2: 4, 3: 3}, "sg": {1: 1, 2: 1, 3: 1}}
MAX_UNKNOWNS = {1: 100_000, 2: 200_000, 3: 60_000}
TOLERANCE = 1e-4


@dataclass(frozen=True)
class SteadyRequest:
    """A checked question; see `fpsolve.problems.steady.steady_state` for the options."""

    count: int
    observables: tuple[Formula, ...]
    names: tuple[str, ...]
    scheme: str
    degree: int
    size: float
    tolerance: float | None
    max_unknowns: int


def checked_steady(
    process: Process,
    domain: Domain,
    eigenvalues: int,
    observables: Sequence[str],
    scheme: str | None,
    degree: int | None,
    size: float | None,
    tolerance: float | None,
    max_unknowns: int | None,
) -> SteadyRequest:
    """Check what was asked and fill in the defaults. Raises InputError."""
    d = process.dimension
    if domain.dimension != d:
        raise InputError("domain", f"dimension {domain.dimension}", f"dimension {d}, that of {process.variables}")
    _check_numbers(tolerance, size, degree, 1)
    if isinstance(eigenvalues, bool) or not isinstance(eigenvalues, int) or not 1 <= eigenvalues <= 50:
        raise InputError("steady.eigenvalues", eigenvalues, "an integer from 1 to 50")
    scheme = SCHEME[d] if scheme is None else scheme
    if scheme not in SCHEMES:
        raise InputError("mesh.scheme", scheme, f"one of {', '.join(SCHEMES)}")
    if scheme == "sg":
        _check_gibbs(process, degree)
    lower, upper = domain.bounding_box()
    extent = float(np.max(upper - lower))
    if size is not None and size > extent:
        raise InputError("mesh.size", size, f"less than the domain's extent {extent:.6g}")
    if isinstance(observables, str):
        raise InputError("steady.observables", observables, "a list of formulas")
    formulas = tuple(
        Formula.parse(text, process.variables, f"steady.observables[{i}]") for i, text in enumerate(observables)
    )
    for i, formula in enumerate(formulas):
        if formula.shape:
            raise InputError(f"steady.observables[{i}]", observables[i], "one formula")
    return SteadyRequest(
        count=eigenvalues, observables=formulas, names=tuple(str(text) for text in observables), scheme=scheme,
        degree=degree or DEGREE[scheme][d], size=float(size or extent / {1: 16, 2: 10, 3: 4}[d]),
        tolerance=tolerance if tolerance is not None or size is not None else TOLERANCE,
        max_unknowns=max_unknowns or MAX_UNKNOWNS[d],
    )  # fmt: skip
