"""What is asked of an evolution, forward or backward: defaults and checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fpsolve.errors import InputError
from fpsolve.fem.rational import CRANK_NICOLSON, Rational, l_stable
from fpsolve.model.domains import Domain
from fpsolve.model.process import Process
from fpsolve.model.schedule import Schedule

SCHEMES = ("dg", "cg", "sg")
#: Degrees by dimension.
DEGREE = {"dg": {1: 4, 2: 3, 3: 1}, "cg": {1: 4, 2: 3, 3: 2}, "sg": {1: 1, 2: 1, 3: 1}}
MAX_UNKNOWNS = {1: 100_000, 2: 250_000, 3: 150_000}
BOUNDARY = ("no-flux", "absorbing")
TOLERANCE = 1e-4
#: Cap on the local time error of a step, relative to the tolerance of the answer. The estimate belongs to the method of
#: one order less: the errors of mean and covariance were 1e-2 to 1e-4 of it in linear problems.
TIME_SHARE = 1.0


@dataclass(frozen=True)
class TimedRequest:
    """A checked question about the evolution; see `fpsolve.problems.evolve.evolve` for the options."""

    times: tuple[float, ...]
    boundary: str
    reflecting: tuple[str, ...] | None
    schedule: Schedule
    scheme: str
    degree: int
    nonnegative: bool
    size: float | None
    tolerance: float | None
    step: float | None
    method: Rational
    max_unknowns: int

    @property
    def stops(self) -> tuple[float, ...]:
        """Stored times and jumps of ε² before the last of them."""
        jumps = [t for t in self.schedule.breaks if t < self.times[-1]]
        return tuple(sorted({*self.times, *jumps}))

    @property
    def cap(self) -> float | None:
        """The cap on the local error in time; None for fixed steps."""
        return None if self.step is not None else TIME_SHARE * (self.tolerance or TOLERANCE)


def timed_request(
    process: Process,
    domain: Domain,
    section: str,
    times: Sequence[float],
    *,
    boundary: str = "no-flux",
    schedule: Schedule | None = None,
    scheme: str | None = None,
    degree: int | None = None,
    nonnegative: bool = False,
    size: float | None = None,
    tolerance: float | None = None,
    step: float | None = None,
    order: int | None = None,
    max_unknowns: int | None = None,
) -> TimedRequest:
    """Check what was asked and fill in the defaults; `section` names the keys in messages. Raises InputError."""
    d = process.dimension
    if domain.dimension != d:
        raise InputError("domain", f"dimension {domain.dimension}", f"dimension {d}, that of {process.variables}")
    when = _times(times, f"{section}.times")
    if boundary not in BOUNDARY:
        raise InputError(f"{section}.boundary", boundary, f"one of {', '.join(BOUNDARY)}")
    for key, value in (("mesh.size", size), ("mesh.tolerance", tolerance), (f"{section}.step", step)):
        _positive(key, value)
    lower, upper = domain.bounding_box()
    extent = float(np.max(upper - lower))
    if size is not None and size > extent:
        raise InputError("mesh.size", size, f"less than the domain's extent {extent:.6g}")
    gibbs = process.landscape is not None and process.isotropic and process.constant_diffusion
    chosen = _scheme(scheme, nonnegative, gibbs, d)
    if degree is not None and (isinstance(degree, bool) or not isinstance(degree, int) or not 1 <= degree <= 6):
        raise InputError("mesh.degree", degree, "an integer from 1 to 6")
    if (nonnegative or chosen == "sg") and degree not in (None, 1):
        raise InputError("mesh.degree", degree, 'degree 1 with nonnegative = true or scheme = "sg"')
    asked = schedule or Schedule()
    if not asked.constant and (process.epsilon2 is None or process.extra_diffusion):
        raise InputError(
            "process.schedule", "given", "a process with a loss, a covariance and no extra_noise",
            "Only ε² = η/(2b) can change in time.",
        )  # fmt: skip
    return TimedRequest(
        times=when,
        boundary=boundary,
        reflecting=domain.reflecting if boundary == "absorbing" else None,
        schedule=asked,
        scheme=chosen,
        degree=1 if nonnegative or chosen == "sg" else degree or DEGREE[chosen][d],
        nonnegative=nonnegative,
        size=None if size is None else float(size),
        tolerance=tolerance if tolerance is not None or size is not None else TOLERANCE,
        step=step,
        method=_method(order, step, nonnegative, section),
        max_unknowns=max_unknowns or MAX_UNKNOWNS[d],
    )


def _times(times: Sequence[float], key: str) -> tuple[float, ...]:
    try:
        array = np.atleast_1d(np.asarray(times, dtype=float))
    except (TypeError, ValueError):
        raise InputError(key, times, "a list of times") from None
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all() or not (array >= 0).all():
        raise InputError(key, times, "a list of times > 0")
    array = array[array > 0]  # time 0 is stored in any case
    if not len(array) or (np.diff(array) <= 0).any():
        raise InputError(key, times, "increasing times > 0")
    return tuple(float(t) for t in array)


def _positive(key: str, value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < np.inf):
        raise InputError(key, value, "a positive number")


def _scheme(scheme: str | None, nonnegative: bool, gibbs: bool, d: int) -> str:
    """Return the scheme: linear elements where ρ must stay nonnegative, with Gibbs weights where there are any."""
    if scheme is None:
        return ("sg" if gibbs else "cg") if nonnegative else {1: "dg", 2: "dg", 3: "cg"}[d]
    if scheme not in SCHEMES:
        raise InputError("mesh.scheme", scheme, f"one of {', '.join(SCHEMES)}")
    if nonnegative and scheme == "dg":
        raise InputError("mesh.scheme", scheme, '"cg" or "sg" with nonnegative = true', "Remove one of the two keys.")
    if scheme == "sg" and not gibbs:
        raise InputError(
            "mesh.scheme", "sg", "a loss and a covariance that is a constant multiple of the identity",
            'Use scheme = "dg" or "cg".',
        )  # fmt: skip
    return scheme


def _method(order: int | None, step: float | None, nonnegative: bool, section: str) -> Rational:
    if order is not None and (isinstance(order, bool) or order not in (1, 2, 3, 4)):
        raise InputError(f"{section}.order", order, "1, 2, 3 or 4")
    if step is not None and order in (None, 2) and not nonnegative:
        return CRANK_NICOLSON
    return l_stable(order or (2 if nonnegative else 4))
