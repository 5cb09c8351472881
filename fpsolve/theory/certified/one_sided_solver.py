"""A dense linear programme with many inequalities by Mehrotra's predictor-corrector interior point method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

SHRINK = 0.99  # of the step to the boundary


@dataclass(frozen=True)
class Optimum:
    """An approximate solution of min g·z subject to G z >= h.

    Attributes
    ----------
    z : ndarray, shape (n,)
    duals : ndarray, shape (m,)
        Multipliers, nonnegative.
    gap : float
        |g·z - h·duals| relative to |g·z|.
    infeasibility : float
        Largest violation of G z >= h.
    iterations : int
    """

    z: np.ndarray
    duals: np.ndarray
    gap: float
    infeasibility: float
    iterations: int


def minimise(
    matrix: np.ndarray,
    bound: np.ndarray,
    cost: np.ndarray,
    start: np.ndarray,
    tolerance: float = 1e-6,
    iterations: int = 60,
    stop: Callable[[], bool] = lambda: False,
    limit: float = np.inf,
) -> Optimum:
    """Minimise cost·z subject to matrix z >= bound, z free.

    Mehrotra, SIAM J. Optim. 2 (1992); Nocedal and Wright, *Numerical Optimization* (2006), algorithm 14.3. With
    slacks s = G z - h and multipliers y the step solves (Gᵀ diag(y/s) G) dz = r, by Cholesky's factors.

    Parameters
    ----------
    matrix, bound : ndarray, shapes (m, n) and (m,)
        G and h. The columns should be nearly orthonormal up to a common factor.
    cost, start : ndarray, shape (n,)
    tolerance : float
        Of the relative duality gap and the infeasibility.
    iterations : int
    stop : callable
        Asked before each iteration: no time left.
    limit : float
        Give up when the objective's magnitude exceeds it: the programme is unbounded.
    """
    z = start.copy()
    slack, y = _interior(matrix, bound, cost, z)
    gap = infeasibility = np.inf
    used = 0
    for used in range(iterations):  # noqa: B007
        value = float(cost @ z)
        primal = bound + slack - matrix @ z  # to become 0
        dual = cost - matrix.T @ y
        gap = abs(value - float(bound @ y)) / max(abs(value), 1e-300)
        infeasibility = float(np.abs(primal).max())
        product = float(slack @ y) / max(abs(value), 1e-300)
        # the gap is product - dual·z: either alone may vanish by chance
        done = infeasibility < tolerance and (max(gap, product) < tolerance or product < 0.03 * tolerance)
        if done or stop() or not abs(value) < limit:
            break
        step = _step(matrix, slack, y, primal, dual)
        if step is None:
            break
        dz, ds, dy, primal_length, dual_length = step
        z, slack, y = z + primal_length * dz, slack + primal_length * ds, y + dual_length * dy
    return Optimum(z, y, gap, infeasibility, used)


def _interior(matrix: np.ndarray, bound: np.ndarray, cost: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return positive slacks and multipliers by Mehrotra's heuristic."""
    slack = matrix @ z - bound
    y = matrix @ (cost / np.maximum(np.einsum("ij,ij->j", matrix, matrix), 1e-300))
    slack += max(0.0, -1.5 * float(slack.min()))
    y += max(0.0, -1.5 * float(y.min()))
    # off the boundary also where the start is the solution already
    slack += 1e-3 * float(np.abs(bound).max()) + 1e-300
    y += 1e-3 * float(np.abs(y).mean()) + 1e-300
    product = 0.5 * float(slack @ y)
    by_slack, by_y = product / float(slack.sum()), product / float(y.sum())
    return slack + by_y, y + by_slack


def _step(
    matrix: np.ndarray, slack: np.ndarray, y: np.ndarray, primal: np.ndarray, dual: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float, float] | None:
    """Return the predictor-corrector step and its lengths; None when the factorisation fails."""
    weighted = np.sqrt(y / slack)[:, None] * matrix
    normal = weighted.T @ weighted
    normal[np.diag_indices_from(normal)] *= 1 + 1e-13
    try:
        factor = cho_factor(normal, overwrite_a=False, check_finite=True)
    except (LinAlgError, ValueError):
        return None

    def direction(complementarity: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        right = matrix.T @ ((complementarity + y * primal) / slack) - dual
        dz = cho_solve(factor, right)
        dz += cho_solve(factor, right - normal @ dz)
        ds = matrix @ dz - primal
        return dz, ds, (complementarity - y * ds) / slack

    mu = float(slack @ y) / len(y)
    _, ds, dy = direction(-slack * y)
    alpha, beta = _length(slack, ds), _length(y, dy)
    after = float((slack + alpha * ds) @ (y + beta * dy)) / len(y)
    sigma = min(1.0, (after / mu) ** 3)
    dz, ds, dy = direction(sigma * mu - slack * y - ds * dy)
    return dz, ds, dy, min(1.0, SHRINK * _length(slack, ds)), min(1.0, SHRINK * _length(y, dy))


def _length(v: np.ndarray, dv: np.ndarray) -> float:
    """Return the largest step in [0, 1e3] that keeps v nonnegative."""
    falling = dv < 0
    return float(min(1e3, np.min(-v[falling] / dv[falling]))) if falling.any() else 1e3
