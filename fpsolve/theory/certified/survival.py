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
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from flint import arb
from scipy.optimize import linprog

from fpsolve.errors import InputError
from fpsolve.model.process import Process
from fpsolve.theory.balls import Ball, above, below
from fpsolve.theory.certified.polynomial import Polynomial, precision
from fpsolve.theory.certified.questions import (
    BITS,
    DEGREES,
    Problem,
    Solver,
    at_point,
    checked_starts,
    combination,
    size,
)

#: Rates of the h_j, in units of the eigenvalue.
RATES = (0.0, 0.3, 0.6, 0.85, 0.95, 1.05, 1.2, 1.5, 2.0, 2.7, 3.5, 4.5, 6.0, 8.0, 11.0, 15.0, 21.0, 30.0)
#: Distances of λ and Λ to the computed eigenvalue that are tried, relative.
CLOSE = (1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
#: An h_j whose residual is larger than this part of μ max|h| is not used.
USELESS = 0.1
#: Cells of [0, t] and the order of Taylor's formula on them.
CELLS, ORDER = 400, 10
#: Cost of the size of β_j (rounding), its limit, and the rows and rounds of the linear programmes.
SMALL, MOST, FIRST_ROWS, ROUNDS = 1e-7, 1e6, 300, 6


@dataclass(frozen=True)
class RateFunction:
    """h with ``|(-A - rate)h| <= residual`` in Ω and ``|h - 1| <= edge`` on S, proved.

    Attributes
    ----------
    rate : float
        μ, per unit of SGD time.
    polynomial : Polynomial
    coefficients : ndarray
        Chebyshev products on the box (lower, upper) of the polynomial.
    residual, edge : float
    """

    rate: float
    polynomial: Polynomial
    coefficients: np.ndarray
    residual: float
    edge: float


@dataclass(frozen=True)
class SurvivalValue:
    """``lower <= P_x(τ > t) <= upper``, proved."""

    x: tuple[float, ...]
    time: float
    lower: float
    upper: float

    @property
    def width(self) -> float:
        """upper - lower."""
        return self.upper - self.lower


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
    with precision(BITS):
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


def shifted(p: Polynomial, value: float) -> Polynomial:
    """Return p + value."""
    coefficients = p.coefficients.copy()
    coefficients.flat[0] = coefficients.flat[0] + arb(value)
    return Polynomial(p.lower, p.upper, coefficients)


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


# --- values ----------------------------------------------------------------------------------------------------------


def programme(
    problem: Problem,
    solver: Solver,
    functions: Sequence[RateFunction],
    value: SurvivalValue,
    kind: Literal["lower", "upper"],
    deadline: float,
) -> float:
    """Return a proved bound of P_x(τ > t) from the best combination of the functions found; 0 or 1 where none is."""
    nothing = 1.0 if kind == "upper" else 0.0
    if not functions:
        return nothing
    beta = _coefficients(solver, functions, value, 1.0 if kind == "upper" else -1.0, deadline)
    if beta is None:
        return nothing
    bound = proved_value(problem, functions, beta, value.x, value.time, kind, deadline)
    return bound if math.isfinite(bound) else nothing


def _coefficients(
    solver: Solver, functions: Sequence[RateFunction], value: SurvivalValue, sign: float, deadline: float
) -> np.ndarray | None:
    """Return the β_j that minimise sign·v(x, t) plus the errors, by cutting planes on a fine grid; floating point."""
    t, rates = value.time, np.array([h.rate for h in functions])
    c = np.array([h.coefficients[tuple(solver.space.orders.T)] for h in functions])
    scale = np.abs(c @ solver.values.T).max(axis=1) + 1e-300
    s = t * np.concatenate([[0.0], np.geomspace(1e-5, 1.0, 600)])
    rows = np.concatenate([(c @ solver.fine().T).T, np.exp(-np.outer(s, rates))]) / scale
    right = np.concatenate([np.ones(len(rows) - len(s)), np.zeros(len(s))])
    spent = np.where(rates > 0, -np.expm1(-rates * t) / np.where(rates > 0, rates, 1.0), t)
    errors = np.array([h.edge for h in functions]) + np.array([h.residual for h in functions]) * spent
    here = np.exp(-rates * t) * (c @ solver.space.values(np.array([value.x]))[0])
    cost = np.concatenate([(sign * here + errors) / scale, (-sign * here + errors) / scale]) + SMALL
    chosen = np.zeros(len(rows), dtype=bool)
    chosen[:: max(1, len(rows) // FIRST_ROWS)] = True
    chosen[-len(s) :: 4] = True
    beta = None
    for _ in range(ROUNDS):
        part = rows[chosen]
        x = _minimum(cost, sign * np.hstack([part, -part]), sign * right[chosen])
        if x is None:
            return beta
        z = x[: len(functions)] - x[len(functions) :]
        beta = z / scale
        violated = sign * (rows @ z - right) < -1e-6
        if not np.any(violated & ~chosen) or time.monotonic() > deadline:
            break
        chosen |= violated
    return beta


def _minimum(cost: np.ndarray, matrix: np.ndarray, right: np.ndarray) -> np.ndarray | None:
    """Minimise cost·x subject to matrix x >= right, 0 <= x <= MOST; one method may fail where another does not."""
    for method in ("highs-ds", "highs-ipm"):
        found = linprog(cost, A_ub=-matrix, b_ub=-right, bounds=(0, MOST), method=method)
        if found.x is not None:
            return np.asarray(found.x)
    return None


def proved_value(
    problem: Problem,
    functions: Sequence[RateFunction],
    beta: np.ndarray,
    x: Sequence[float],
    t: float,
    kind: Literal["lower", "upper"],
    deadline: float,
) -> float:
    """Return the bound of the theorem for these β_j, proved in Arb and rounded to the safe side.

    Parameters
    ----------
    functions : list of RateFunction
    beta : ndarray, shape (J,)
        Exact numbers.
    x : point
    t : float
    kind : "lower" or "upper"
    """
    sign = 1 if kind == "upper" else -1
    b = [arb(float(v)) for v in beta]
    start = combination([sign * v for v in b], [h.polynomial for h in functions])
    delta = max(-problem.least(shifted(start, -sign), 1e-5, deadline, 0.0), 0.0)
    gamma = max(-_least_sum([sign * v for v in b], [h.rate for h in functions], t), 0.0)
    error, total = arb(delta) + arb(gamma), arb(0)
    for v, h in zip(b, functions, strict=True):
        rate = arb(h.rate)
        decay = (-rate * arb(t)).exp()
        total += v * decay * at_point(h.polynomial, x)
        spent = (1 - decay) / rate if h.rate > 0 else arb(t)
        error += abs(v) * (arb(h.edge) + arb(h.residual) * spent)
    return above(total + error) if kind == "upper" else below(total - error)


def _least_sum(beta: Sequence[Ball], rates: Sequence[float], t: float) -> float:
    """Return a lower bound of ``G(s) = Σβ_j e^{-μ_j s}`` on [0, t] by Taylor's formula on cells.

    On a cell of half-length r about m, ``G >= g_0 - Σ_{0<k<K} |g_k| r^k - Σ|β_j| e^{-μ_j (m - r)} (μ_j r)^K / K!``.
    """
    largest = max(rates) * t + 1
    edges = t * np.concatenate([[0.0], np.geomspace(min(1e-3, 0.1 / largest), 1.0, CELLS)])
    mus = [arb(rate) for rate in rates]
    worst = math.inf
    for a, b in pairwise(edges):
        left, radius = arb(float(a)), (arb(float(b)) - arb(float(a))) / 2
        terms = [v * (-mu * (left + radius)).exp() for v, mu in zip(beta, mus, strict=True)]
        steps = [mu * radius for mu in mus]
        low = sum(terms, arb(0))
        for k in range(1, ORDER):
            terms = [-term * step / k for term, step in zip(terms, steps, strict=True)]
            low -= abs(sum(terms, arb(0)))
        rest = [abs(x) * step * step.exp() / ORDER for x, step in zip(terms, steps, strict=True)]
        worst = min(worst, below(low - sum(rest, arb(0))))
    return worst
