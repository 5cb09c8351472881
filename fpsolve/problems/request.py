"""What is asked of an exit-time computation: defaults and checks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fpsolve.errors import InputError
from fpsolve.fem.spacing import check_count
from fpsolve.model.domains import Domain
from fpsolve.model.process import Process

SCHEMES = ("dg", "cg", "sg")
#: Defaults by dimension, measured in benchmarks/README.md: in 3D discontinuous elements did not meet
#: 1e-5 in many times the seconds that continuous ones of degree 4 need.
SCHEME = {1: "dg", 2: "dg", 3: "cg"}
#: Degree p of the answer; p + 1 controls it.
DEGREE = {"dg": {1: 4, 2: 3, 3: 2}, "cg": {1: 4, 2: 3, 3: 4}, "sg": {1: 1, 2: 1, 3: 1}}
MAX_UNKNOWNS = {1: 200_000, 2: 400_000, 3: 150_000}


@dataclass(frozen=True)
class Request:
    """A checked exit-time question; see `fpsolve.problems.exit.mean_exit_time` for the options."""

    starts: np.ndarray
    tolerance: float | None
    size: float
    scheme: str
    degree: int
    moments: int
    max_unknowns: int


def checked_request(
    process: Process,
    domain: Domain,
    starts: object,
    tolerance: float | None,
    size: float | None,
    scheme: str | None,
    degree: int | None,
    moments: int,
    max_unknowns: int | None,
) -> Request:
    """Check what was asked and fill in the defaults. Raises InputError."""
    d = process.dimension
    scheme = SCHEME[d] if scheme is None else scheme
    if domain.dimension != d:
        raise InputError("domain", f"dimension {domain.dimension}", f"dimension {d}, that of {process.variables}")
    lower, upper = domain.bounding_box()
    extent = float(np.max(upper - lower))
    x = as_points([(lower + upper) / 2] if starts is None else starts, d, "exit.starts")
    inside = domain.contains(x)
    if not inside.all():
        point = x[~inside][0].tolist()
        raise InputError(
            "exit.starts", point, "a point inside the domain", "A start on or outside the boundary has left."
        )
    _check_numbers(tolerance, size, degree, moments)
    if scheme not in SCHEMES:
        raise InputError("mesh.scheme", scheme, f"one of {', '.join(SCHEMES)}")
    if size is not None and size > extent:
        raise InputError("mesh.size", size, f"less than the domain's extent {extent:.6g}")
    if scheme == "sg":
        _check_gibbs(process, degree)
    start_size = float(size) if size is not None else extent / {1: 16, 2: 8, 3: 4}[d]
    # of the size as given; the first mesh may be coarser. A disc fills at least half of its box.
    check_count(start_size, float(np.prod(upper - lower)) / 2, d)
    return Request(
        x, tolerance, start_size, scheme, degree or DEGREE[scheme][d], moments, max_unknowns or MAX_UNKNOWNS[d]
    )


def _check_gibbs(process: Process, degree: int | None) -> None:
    if process.landscape is None or not (process.isotropic and process.constant_diffusion):
        raise InputError(
            "mesh.scheme", "sg", "a loss and a covariance that is a constant multiple of the identity",
            'Use scheme = "dg".',
        )  # fmt: skip
    if degree not in (None, 1):
        raise InputError("mesh.degree", degree, 'degree 1 with scheme = "sg"')


def _check_numbers(tolerance: object, size: object, degree: object, moments: object) -> None:
    for key, value in (("mesh.tolerance", tolerance), ("mesh.size", size)):
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < np.inf
        ):
            raise InputError(key, value, "a positive number")
    if isinstance(tolerance, (int, float)) and tolerance < 1e-12:
        raise InputError("mesh.tolerance", tolerance, "at least 1e-12, the reach of double precision")
    for key, count, low, high in (("exit.moments", moments, 1, 10), ("mesh.degree", degree, 1, 6)):
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or not low <= count <= high):
            raise InputError(key, count, f"an integer from {low} to {high}")


def as_points(points: object, dimension: int, key: str) -> np.ndarray:
    """Return `points` as an array (n, d). Raises InputError."""
    try:
        x = np.atleast_2d(np.asarray(points, dtype=float))
    except (TypeError, ValueError):
        raise InputError(key, points, f"a list of points with {dimension} numbers each") from None
    if x.ndim != 2 or x.shape[1] != dimension or not np.isfinite(x).all() or not len(x):
        raise InputError(key, points, f"a list of points with {dimension} numbers each")
    return x
