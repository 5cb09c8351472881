"""Bounds of P_x(τ > t) from functions of one rate each: a linear programme, then a proof; see `certified.survival`."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from flint import arb
from scipy.optimize import linprog

from fpsolve.theory.balls import Ball, above, below
from fpsolve.theory.certified.polynomial import Polynomial
from fpsolve.theory.certified.questions import Problem, Solver, at_point, combination, shifted

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
