r"""Second moment E_x τ² and exit probability P_x(X_τ ∈ Γ), enclosed with a proof.

S is a closed part of ∂Ω with X_τ ∈ S almost surely, Γ a union of closed parts of S, u = E τ; functions are C² near the
closure of Ω. No ellipticity is used.

**Comparison.** Let q(x) = E_x[g(X_τ) + ∫_0^τ r(X_s) ds] with bounded g on S and r on Ω, E τ finite. By Itô's formula,
``q - w = E[(g - w)(X_τ) + ∫_0^τ (r + A w)(X_s) ds]`` for every w ∈ C². Hence

- ``-A w >= r - ρ`` in Ω and ``w >= g - β`` on S  =>  ``q <= w + β + ρ u``,
- ``-A w <= r + ρ`` in Ω and ``w <= g + β`` on S  =>  ``q >= w - β - ρ u``   (β, ρ >= 0).

*Second moment*: ``E τ² = 2E∫_0^τ u(X_s) ds``, so g = 0 and r = 2u; r is replaced by twice a proved upper (lower)
bound of u, ``(w₁ + b)/m`` (``(w₁ - b)/M``), a polynomial. Also ``(E τ)² <= E τ² <= 2 sup u · u``.

*Exit probability*: r = 0; g is the indicator of Γ. Parts are closed: where Γ meets another part of S, in an edge or a
corner, both values are asked for (w >= 1 - β for upper, w <= β for lower bounds), so it does not matter whether
X_τ may be there. Two candidates are used since none is near both.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flint import arb, ctx

from fpsolve.errors import InputError
from fpsolve.model.process import Process
from fpsolve.theory.balls import above, below
from fpsolve.theory.certified.barrier import Barrier
from fpsolve.theory.certified.barrier import total as total_of
from fpsolve.theory.certified.effort import candidates
from fpsolve.theory.certified.polynomial import Polynomial
from fpsolve.theory.certified.proof import Effort, prove
from fpsolve.theory.certified.questions import (
    BITS,
    Problem,
    Solver,
    at_point,
    checked_starts,
    combination,
    one_sided_solution,
)
from fpsolve.theory.certified.setting import Side
from fpsolve.theory.certified.task import Candidate

#: Degrees of least squares and of linear programmes, by dimension.
SMOOTH = {1: (24, 48, 96, 160), 2: (14, 20, 28, 38), 3: (6, 9, 12)}
PROGRAMMES = {1: (12, 20), 2: (8, 12, 16, 20), 3: (4, 6)}
#: Least squares are tried again with a higher degree while they gain this factor.
#: A degree costs so many times the one before; the other half of the time is for linear programmes.
GAIN, CONVERGED, DEARER = 0.3, 0.05, 4.0
NARROW = 1e-6
#: ρ u is worth knowing to this part of the result.
ACCURACY = 1e-4


@dataclass(frozen=True)
class PointEnclosure:
    """``lower <= q(x) <= upper``, proved."""

    x: tuple[float, ...]
    lower: float
    upper: float

    @property
    def width(self) -> float:
        """upper - lower."""
        return self.upper - self.lower


@dataclass(frozen=True)
class Comparison:
    """A polynomial w with what is proved of it: q <= w + β + ρ ū (upper) or q >= w - β - ρ ū (lower).

    Attributes
    ----------
    kind : "lower" or "upper"
    w : Polynomial
    edge, defect : float
        β and ρ.
    """

    kind: Side
    w: Polynomial
    edge: float
    defect: float

    def at(self, x: Sequence[float], mean: float) -> float:
        """Return the bound at a point, rounded to the safe side; `mean` is an upper bound of E_x τ."""
        lost = arb(self.edge) + (arb(self.defect) * arb(mean) if self.defect > 0 else arb(0))
        value = at_point(self.w, x)
        return above(value + lost) if self.kind == "upper" else below(value - lost)


@dataclass(frozen=True)
class Enclosure:
    """What `certified_second_moment` and `certified_exit_probability` return.

    Attributes
    ----------
    values : tuple of PointEnclosure
        Second moments in squared units of SGD time, or probabilities.
    verified : bool
        Whether more is proved than 0 <= q (<= 1).
    reason : str
        Why not.
    means : tuple of PointEnclosure
        What is proved of E τ at the starts, in the process' unit of time.
    barriers : tuple of Barrier
        For the mean exit time, used above.
    comparisons : tuple of Comparison
        The best of each kind at the first start.
    seconds : float
    """

    values: tuple[PointEnclosure, ...]
    verified: bool
    reason: str = ""
    means: tuple[PointEnclosure, ...] = ()
    barriers: tuple[Barrier, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    seconds: float = 0.0


class _Best:
    """The best bounds at the starts so far."""

    def __init__(self, x: np.ndarray, low: float, high: float) -> None:
        self.x = [tuple(map(float, p)) for p in x]
        self.low, self.high = [low] * len(x), [high] * len(x)
        self.used: dict[Side, Any] = {}

    def add(self, kind: Side, values: Sequence[float], source: Any) -> None:
        """Take over better values; the source is kept where it is best at the first start."""
        for k, value in enumerate(values):
            if kind == "upper" and value < self.high[k]:
                self.high[k] = value
            elif kind == "lower" and value > self.low[k]:
                self.low[k] = value
            else:
                continue
            if k == 0:
                self.used[kind] = source

    def width(self) -> float:
        """Return the largest width, relative to the upper bound."""
        return max((b - a) / b if b > 0 and math.isfinite(b) else 1.0 for a, b in zip(self.low, self.high, strict=True))

    def values(self) -> tuple[PointEnclosure, ...]:
        """Return the enclosures."""
        return tuple(PointEnclosure(x, a, b) for x, a, b in zip(self.x, self.low, self.high, strict=True))


def certified_second_moment(
    process: Process,
    domain: Any,
    starts: Sequence[Sequence[float]] | np.ndarray | None = None,
    budget: float = 30.0,
) -> Enclosure:
    """Enclose E_x τ², with a proof; theorem above. Not collective.

    Parameters
    ----------
    process : Process
        With formulas or data.
    domain : Interval, Box or Ball
        Without reflecting parts.
    starts : points (k, d), optional
        The centre by default.
    budget : float
        Seconds.
    """
    began = time.monotonic()
    x = checked_starts(domain, starts)
    with ctx.workprec(BITS):
        best = _Best(x, 0.0, math.inf)
        problem = Problem.of(process, domain, x, began + budget)
        if isinstance(problem, str):
            return Enclosure(best.values(), False, problem, seconds=time.monotonic() - began)
        means, barriers = mean_bounds(problem, began + 0.4 * budget)
        if "upper" in barriers:
            _second_moment(problem, best, means, barriers, began + budget)
    return _result(best, means, barriers, began)


def certified_exit_probability(
    process: Process,
    domain: Any,
    part: str | Sequence[str],
    starts: Sequence[Sequence[float]] | np.ndarray | None = None,
    budget: float = 30.0,
) -> Enclosure:
    """Enclose the probability to leave through the named part(s) of the boundary, with a proof. Not collective.

    Parameters
    ----------
    process, domain
        As above.
    part : name, or names
        Out of ``domain.names``. Parts that are proved unreachable have probability 0.
    starts, budget
        As above.

    Raises
    ------
    InputError
        For an unknown part.
    """
    began = time.monotonic()
    x = checked_starts(domain, starts)
    chosen = (part,) if isinstance(part, str) else tuple(part)
    for name in chosen:
        if name not in domain.names:
            raise InputError("exit.part", name, f"a name out of {', '.join(domain.names)}")
    with ctx.workprec(BITS):
        best = _Best(x, 0.0, 1.0)
        problem = Problem.of(process, domain, x, began + budget)
        if isinstance(problem, str):
            return Enclosure(best.values(), False, problem, seconds=time.monotonic() - began)
        reachable = tuple(name for name in problem.task.absorbing if name in chosen)
        means, barriers = mean_bounds(problem, began + 0.3 * budget)
        if not reachable:
            best.add("upper", [0.0] * len(x), None)
        elif len(reachable) == len(problem.task.absorbing) and "upper" in barriers:
            best.add("lower", [1.0] * len(x), None)  # it leaves, as the mean exit time is finite
        elif "upper" in barriers:
            values = {name: float(name in reachable) for name in problem.task.absorbing}
            nothing = Polynomial.of_floats(*_corners(problem), [np.zeros((1,) * x.shape[1])])
            _compare(problem, best, {"lower": nothing, "upper": nothing}, values, means, began + budget)
    return _result(best, means, barriers, began)


def _corners(problem: Problem) -> tuple[list[float], list[float]]:
    low, high = problem.task.domain.bounding_box()
    return [float(v) for v in low], [float(v) for v in high]


def _result(best: _Best, means: _Best, barriers: Mapping[Side, Barrier], began: float) -> Enclosure:
    verified = bool(best.used)
    reason = "" if verified else "nothing was proved: the solution is too rough or too steep for these polynomials"
    if "upper" not in barriers:
        reason = "no upper bound of the mean exit time was proved"
    comparisons = tuple(c for c in best.used.values() if isinstance(c, Comparison))
    return Enclosure(
        best.values(), verified, reason, means.values(), tuple(barriers.values()), comparisons,
        time.monotonic() - began,
    )  # fmt: skip


# --- the mean exit time ----------------------------------------------------------------------------------------------


def mean_bounds(problem: Problem, deadline: float) -> tuple[_Best, dict[Side, Barrier]]:
    """Return bounds of E τ at the starts and the barriers that are best there."""
    task = problem.task
    means = _Best(task.starts, 0.0, math.inf)
    for _, _, candidate in candidates(task, deadline):
        if candidate is not None:
            _proved(problem, means, candidate, deadline)
        if means.width() < NARROW or time.monotonic() > deadline:
            break
    return means, dict(means.used)


def _proved(problem: Problem, means: _Best, candidate: Candidate, deadline: float) -> None:
    proved = prove(problem.setting, candidate, Effort(1e-3, max(deadline, time.monotonic() + 1)))
    for kind, barrier in proved.items():
        values = [barrier.at(x) for x in means.x]
        means.add(kind, [above(v) if kind == "upper" else below(v) for v in values], barrier)


def function_of(barrier: Barrier) -> Polynomial:
    """Return (w ± b)/m as a polynomial with balls as coefficients."""
    w = Polynomial.of_floats(barrier.lower_corner, barrier.upper_corner, barrier.coefficients)
    coefficients = w.coefficients.copy()
    coefficients.flat[0] = coefficients.flat[0] + arb(barrier.offset) * (1 if barrier.kind == "upper" else -1)
    return Polynomial(w.lower, w.upper, coefficients / total_of(barrier.factor))


# --- comparison ------------------------------------------------------------------------------------------------------


def _second_moment(
    problem: Problem, best: _Best, means: _Best, barriers: Mapping[Side, Barrier], deadline: float
) -> None:
    bounds = {kind: function_of(barrier) for kind, barrier in barriers.items()}
    right: dict[Side, Polynomial] = {
        kind: Polynomial(p.lower, p.upper, 2 * p.coefficients) for kind, p in bounds.items()
    }
    best.add("lower", [max(below(arb(a) ** 2), 0.0) for a in means.low], None)  # (E τ)² <= E τ²
    upper = bounds["upper"]
    top = arb(-problem.least(Polynomial(upper.lower, upper.upper, -upper.coefficients), 1e-3, deadline))
    best.add("upper", [above(2 * top * arb(b)) for b in means.high], None)
    values = dict.fromkeys(problem.task.absorbing, 0.0)
    _compare(problem, best, right, values, means, deadline)


def _compare(
    problem: Problem,
    best: _Best,
    right: Mapping[Side, Polynomial],
    values: Mapping[str, float],
    means: _Best,
    deadline: float,
) -> None:
    """Improve the bounds: least squares first, then one-sided linear programmes.

    Parameters
    ----------
    right : polynomial for each kind
        A proved upper (lower) bound of r.
    values : dict
        g on each part of S.
    """
    d = problem.task.starts.shape[1]
    symmetric = len(set(values.values())) == 1
    before, half = math.inf, 0.5 * (time.monotonic() + deadline)
    for degree in () if _jumps(problem.task.domain.names, values) else SMOOTH[d]:
        began = time.monotonic()
        solver = Solver(problem.task, degree, symmetric)
        for kind, r in right.items():
            c = solver.solve(0.0, solver.at(r), solver.edge_values(values))
            _take(problem, best, solver.polynomial(c), r, values, kind, means)
        width, now = best.width(), time.monotonic()
        stalled = width < CONVERGED and not width < GAIN * before
        if width < NARROW or stalled or now + DEARER * (now - began) > half:
            break
        before = width
    for degree in PROGRAMMES[d] if best.width() > 1e-2 else ():
        solver = Solver(problem.task, degree, symmetric)
        for kind, r in right.items():
            if time.monotonic() < deadline:
                c = one_sided_solution(solver, r, values, kind, np.array(best.x), deadline)
                _take(problem, best, solver.polynomial(c), r, values, kind, means)


def _jumps(names: Sequence[str], values: Mapping[str, float]) -> bool:
    """Tell whether sides that meet have different values: no polynomial is near such data."""
    axes: dict[int, set[float]] = {}
    for name, value in values.items():
        axes.setdefault(names.index(name) // 2, set()).add(value)
    return len(axes) > 1 and len(set().union(*axes.values())) > 1


def _take(
    problem: Problem,
    best: _Best,
    w: Polynomial,
    right: Polynomial,
    values: Mapping[str, float],
    kind: Side,
    means: _Best,
) -> None:
    value = abs(float(at_point(w, best.x[0])))
    tolerance = ACCURACY * value / means.high[0] if math.isfinite(value) else 0.0
    found = compared(problem, w, right, values, kind, tolerance)
    if math.isfinite(found.edge) and math.isfinite(found.defect):
        best.add(kind, [found.at(x, mean) for x, mean in zip(best.x, means.high, strict=True)], found)


def compared(
    problem: Problem,
    w: Polynomial,
    right: Polynomial,
    values: Mapping[str, float],
    kind: Side,
    tolerance: float = 0.0,
) -> Comparison:
    """Prove β and ρ of the theorem for w.

    Parameters
    ----------
    right : Polynomial
        At least r (upper) or at most r (lower) on Ω.
    values : dict
        g on each part of S.
    tolerance : float
        How accurately ρ is worth knowing.
    """
    excess, error = problem.minus_generator(w)
    other = right.moved(excess.lower, excess.upper)
    signed = combination([arb(1), arb(-1)], [excess, other])  # -A w - r
    if kind == "lower":
        signed = Polynomial(signed.lower, signed.upper, -signed.coefficients)
    low = problem.range(signed).lower
    if low < -tolerance:
        low = max(low, problem.least(signed, tolerance, time.monotonic() + 3.0, 0.0))
    edge = arb(0)
    for name, value in values.items():
        found = problem.edge(w, [name])
        edge = edge.max(arb(value) - arb(found.lower) if kind == "upper" else arb(found.upper) - arb(value))
    return Comparison(kind, w, max(above(edge), 0.0), max(above(error - arb(low)), 0.0))
