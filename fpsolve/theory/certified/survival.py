r"""The probability P_x(τ > t) of not having left until t, and its exponential rate, enclosed with a proof.

S is a closed part of ∂Ω with X_τ ∈ S almost surely; functions are C² near the closure of Ω. No ellipticity is used.

**Rate.** (a) ``-AΦ >= λΦ``, ``Φ >= m > 0`` on the closure: ``e^{λ(t∧τ)}Φ(X_{t∧τ})`` is a supermartingale (bounded on
[0, t]), so ``P_x(τ>t) <= Φ(x)/m e^{-λt}``. (b) ``-Aφ <= Λφ`` in Ω, ``φ <= 0`` on S, ``φ <= P``: ``e^{Λs}φ(X_s)`` is a
submartingale up to τ, ``φ(x) <= E[e^{Λt}φ(X_t); τ>t] + E[e^{Λτ}φ(X_τ); τ<=t] <= e^{Λt} P P_x(τ>t)``. So the rate of
decay lies in [λ, Λ] (from a start with φ > 0): an enclosure of the principal eigenvalue where there is one. Both
functions come from h_μ, near the solution of ``-Ah = μh``, h = 1 on S (which is E_x e^{μτ} below the eigenvalue), with
``|(-A - μ)h| <= r`` in Ω and ``|h - 1| <= b`` on S:

- if ``h >= m > 0`` on the closure, then ``-Ah >= (μ - r/m)h``: λ = μ - r/m;
- φ = 1 - b - h satisfies φ <= 0 on S and ``-Aφ <= μφ`` if ``r <= μ(1 - b)``: Λ = μ, where h(x) < 1 - b.

**Values.** ``v(x, s) = Σ_j β_j e^{-μ_j s} h_j(x)`` with errors r_j, b_j satisfies
``|∂_s v - Av| <= Σ|β_j| r_j e^{-μ_j s}`` and on S ``|v - Σβ_j e^{-μ_j s}| <= Σ|β_j| b_j e^{-μ_j s}``. By Itô's formula
for v(X_s, t - s),

- if ``v(·, 0) >= 1 - δ`` on the closure and ``Σβ_j e^{-μ_j s} >= -γ`` for s in [0, t]:
  ``P_x(τ>t) <= v(x, t) + δ + γ + Σ|β_j|(b_j + r_j (1 - e^{-μ_j t})/μ_j)``;
- if ``v(·, 0) <= 1 + δ`` and ``Σβ_j e^{-μ_j s} <= γ``: ``P_x(τ>t) >= v(x, t) - (the same)``.

(μ_j >= 0; for μ = 0 the factor is t.) The β_j are found by a linear programme for each start and time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flint import arb, ctx

from fpsolve.errors import InputError
from fpsolve.model.process import Process
from fpsolve.theory.balls import above, below
from fpsolve.theory.certified.polynomial import Polynomial
from fpsolve.theory.certified.questions import BITS, DEGREES, Problem, Solver, at_point, checked_starts, shifted, size
from fpsolve.theory.certified.survival_values import RateFunction, SurvivalValue, programme

#: Rates of the h_j, in units of the eigenvalue.
RATES = (0.0, 0.3, 0.6, 0.85, 0.95, 1.05, 1.2, 1.5, 2.0, 2.7, 3.5, 4.5, 6.0, 8.0, 11.0, 15.0, 21.0, 30.0)
#: Distances of λ and Λ to the computed eigenvalue that are tried, relative.
CLOSE = (1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
#: An h_j whose residual is larger than this part of μ max|h| is not used.
USELESS = 0.1


@dataclass(frozen=True)
class SurvivalEnclosure:
    """What `certified_survival` returns.

    Attributes
    ----------
    rate_lower, rate_upper : float
        λ and Λ: ``-log P_x(τ>t)/t`` tends into [λ, Λ] (from below for all starts, Λ for those where φ > 0); 0 and inf
        where nothing is proved. Per unit of SGD time.
    values : tuple of SurvivalValue
        For every start and time.
    verified : bool
        Whether anything beyond 0 <= P <= 1 is proved.
    reason : str
        Why not, or what limited it.
    degree : int
        Of the polynomials.
    functions : tuple of RateFunction
    seconds : float
    """

    rate_lower: float
    rate_upper: float
    values: tuple[SurvivalValue, ...]
    verified: bool
    reason: str = ""
    degree: int = 0
    functions: tuple[RateFunction, ...] = ()
    seconds: float = 0.0


def certified_survival(
    process: Process,
    domain: Any,
    starts: Sequence[Sequence[float]] | np.ndarray | None = None,
    times: Sequence[float] = (),
    budget: float = 30.0,
) -> SurvivalEnclosure:
    """Enclose P_x(τ > t) and its exponential rate, with a proof; theorems above. Not collective.

    Parameters
    ----------
    process : Process
        With formulas or data.
    domain : Interval, Box or Ball
        Without reflecting parts. Parts that are proved unreachable carry no condition.
    starts : points (k, d), optional
        The centre by default.
    times : floats > 0
        In units in which one SGD step lasts η.
    budget : float
        Seconds, about.

    Raises
    ------
    InputError
        For starts outside of the domain or times that are not positive.
    """
    began = time.monotonic()
    deadline = began + budget
    x = checked_starts(domain, starts)
    if not all(isinstance(t, (int, float)) and 0 < t < math.inf for t in times):
        raise InputError("survival.times", list(times), "positive numbers")
    trivial = tuple(SurvivalValue(tuple(map(float, p)), float(t), 0.0, 1.0) for p in x for t in times)
    with ctx.workprec(BITS):
        problem = Problem.of(process, domain, x, deadline)
        if isinstance(problem, str):
            return SurvivalEnclosure(0.0, math.inf, trivial, False, problem, seconds=time.monotonic() - began)
        best = SurvivalEnclosure(0.0, math.inf, trivial, False, "no time")
        for degree in DEGREES[domain.dimension]:
            start = time.monotonic()
            found = _with_degree(problem, x, times, degree, deadline)
            best = found if best.degree == 0 else _intersection(best, found)
            used = time.monotonic() - start
            if time.monotonic() + 3 * used > deadline or _tight(best):
                break
    return SurvivalEnclosure(
        best.rate_lower, best.rate_upper, best.values, best.verified, best.reason, best.degree, best.functions,
        time.monotonic() - began,
    )  # fmt: skip


def _tight(found: SurvivalEnclosure) -> bool:
    rates = found.rate_upper - found.rate_lower <= 3e-7 * found.rate_upper < math.inf
    return rates and all(v.width <= 1e-4 for v in found.values)


def _intersection(a: SurvivalEnclosure, b: SurvivalEnclosure) -> SurvivalEnclosure:
    values = tuple(
        SurvivalValue(v.x, v.time, max(v.lower, w.lower), min(v.upper, w.upper))
        for v, w in zip(a.values, b.values, strict=True)
    )
    low, high = max(a.rate_lower, b.rate_lower), min(a.rate_upper, b.rate_upper)
    return SurvivalEnclosure(
        low, high, values, a.verified or b.verified, b.reason, b.degree, (*a.functions, *b.functions)
    )


def rate_function(problem: Problem, solver: Solver, rate: float) -> RateFunction:
    """Return h_μ with its proved errors; they may be infinite."""
    c = solver.solve(rate, 0.0, 1.0)
    if rate == 0:
        c = np.where(np.all(solver.space.orders == 0, axis=1), 1.0, 0.0)
    h = solver.polynomial(c)
    return checked_rate_function(problem, rate, h, solver.tensor(c))


def checked_rate_function(problem: Problem, rate: float, h: Polynomial, coefficients: np.ndarray) -> RateFunction:
    """Prove bounds of the residual in Ω and of |h - 1| on S."""
    excess, error = problem.minus_generator(h, rate)
    residual = above(arb(size(problem.range(excess))) + error)
    edge = size(problem.edge(shifted(h, -1)))
    return RateFunction(rate, h, coefficients, residual, edge)


def _with_degree(
    problem: Problem, x: np.ndarray, times: Sequence[float], degree: int, deadline: float
) -> SurvivalEnclosure:
    solver = Solver(problem.task, degree)
    computed, _ = solver.principal()
    trivial = tuple(SurvivalValue(tuple(map(float, p)), float(t), 0.0, 1.0) for p in x for t in times)
    if not 0 < computed < math.inf:
        reason = f"no positive eigenvalue was found with degree {degree}"
        return SurvivalEnclosure(0.0, math.inf, trivial, False, reason, degree)
    low, slow = _lower_rate(problem, solver, computed, deadline)
    high, fast = _upper_rate(problem, solver, computed, x)
    near = [f for f in (slow, fast) if f is not None]
    functions: list[RateFunction] = []
    if times and low > 0:
        for part in RATES:
            if time.monotonic() > deadline:
                break
            h = rate_function(problem, solver, computed * part)
            top = float(np.max(np.abs(h.polynomial.coefficients.astype(float))))
            if h.residual <= USELESS * max(h.rate, 1e-3 * computed) * top and h.edge < 1:
                functions.append(h)
    values = []
    for value in trivial:
        lower = programme(problem, solver, functions, value, "lower", deadline)
        upper = programme(problem, solver, functions, value, "upper", deadline)
        values.append(SurvivalValue(value.x, value.time, max(lower, 0.0), min(upper, 1.0)))
    verified = low > 0 or high < math.inf or any(v.width < 1 for v in values)
    reason = "" if verified else f"nothing was proved with degree {degree}"
    return SurvivalEnclosure(low, high, tuple(values), verified, reason, degree, (*near, *functions))


def _lower_rate(
    problem: Problem, solver: Solver, computed: float, deadline: float
) -> tuple[float, RateFunction | None]:
    """Return λ and its function: the nearest distance below the eigenvalue at which it is proved."""
    best: tuple[float, RateFunction | None] = (0.0, None)
    for part in CLOSE:
        h = rate_function(problem, solver, computed * (1 - part))
        rate = proved_lower_rate(problem, h, deadline)
        if rate > best[0]:
            best = rate, h
        if best[0] >= computed * (1 - 2 * part) or time.monotonic() > deadline:
            break
    return best


def proved_lower_rate(problem: Problem, h: RateFunction, deadline: float) -> float:
    """Return λ = μ - r/m of the theorem; 0 where h > 0 is not proved."""
    if not (math.isfinite(h.residual) and h.edge < 1):
        return 0.0
    m = problem.least(h.polynomial, 0.1, deadline, 0.5)
    return max(below(arb(h.rate) - arb(h.residual) / arb(m)), 0.0) if m > 0 else 0.0


def _upper_rate(problem: Problem, solver: Solver, computed: float, x: np.ndarray) -> tuple[float, RateFunction | None]:
    for part in CLOSE:
        h = rate_function(problem, solver, computed * (1 + part))
        rate = proved_upper_rate(h, x)
        if rate < math.inf:
            return rate, h
    return math.inf, None


def proved_upper_rate(h: RateFunction, starts: np.ndarray) -> float:
    """Return Λ = μ of the theorem, valid at all starts; inf where the hypotheses are not proved."""
    if not (math.isfinite(h.residual) and h.edge < 1 and arb(h.residual) <= arb(h.rate) * (1 - arb(h.edge))):
        return math.inf
    positive = all(at_point(h.polynomial, x) < 1 - arb(h.edge) for x in starts)
    return h.rate if positive else math.inf
