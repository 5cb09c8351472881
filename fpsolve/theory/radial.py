r"""Comparison functions of the theorems, evaluated at arrays of points with outward rounding.

`ornstein_uhlenbeck` is the mean exit time m(r; d, λ, s) of ``dX = -λX dt + sqrt(2s) dW`` in dimension d from the
ball of radius R (mathematics.md section 3),

.. math:: m'(r) = -\frac1s r^{1-d} e^{λr²/2s} \int_0^r t^{d-1} e^{-λt²/2s} dt
                = -\frac{r}{sd}\, {}_1F_1(1; d/2+1; λr²/2s), \qquad m(R) = 0.

With ``z(r) = λr²/2s`` and ``b = d/2 + 1``, integrating Kummer's series term by term gives a series in which every term
is positive for λ >= 0, so that nothing cancels, neither for small λ nor for r near R:

.. math:: m(r) = \frac{R² - r²}{2sd} \sum_{k\ge0} \frac{D_{k+1}}{(k+1)(b)_k}, \quad
          D_1 = 1,\; D_{k+1} = z_R D_k + z_r^k .

m is also the comparison function for real d >= 1 (d = tr a / λ_max(a) in `fpsolve.theory.bounds`).

Rounding. u = 2^-53. Everything is positive, so relative errors only add: one step of the two recursions makes at most
6 roundings, the sum and the division by k+1 two more. After K steps the relative error is at most γ(8K + 64) with
γ(n) = nu/(1 - nu), which the result is multiplied by, outwards; z_R and z_r are rounded outwards first, the sum is
increasing in both. Stopping early makes the sum too small; as ``a_{k+1}/a_k <= z_R/(b+k) = q``, the rest is at most
``a_K q/(1-q)``, which is added for upper bounds. A common power of two keeps the numbers in range.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from flint import arb

from fpsolve.theory.balls import above

Side = Literal["lower", "upper"]
UNIT = 2.0**-53
_LARGEST = float(np.finfo(float).max)
# m exceeds every float long before z_R gets here
_LARGEST_EXPONENT = 3000.0


def outward(side: Side, roundings: int) -> float:
    """Return the factor by which a positive number with that many relative roundings is moved to the safe side."""
    gamma = roundings * UNIT / (1 - roundings * UNIT)
    return 1 - 2 * gamma if side == "lower" else 1 + 2 * gamma


def ornstein_uhlenbeck(
    r: np.ndarray, radius: float, dimension: float, rate: float, diffusion: float, side: Side
) -> np.ndarray:
    """Return m(r; dimension, rate, diffusion) on the ball of that radius, rounded to the given side.

    Parameters
    ----------
    r : ndarray, shape (n,)
        Distances; values of at least `radius` give 0.
    radius, dimension, rate, diffusion : float
        R > 0, d >= 1, λ >= 0, s > 0, taken as exact numbers.
    side : "lower" or "upper"
        Which way to round. Values beyond the floating range are inf above, the largest float below.

    Returns
    -------
    ndarray, shape (n,)
    """
    r = np.minimum(np.abs(np.asarray(r, dtype=float)), radius)
    spread = outward(side, 8)
    limit = 0.5 * rate * radius * radius / diffusion * spread
    if not math.isfinite(limit) or limit > _LARGEST_EXPONENT:
        if side == "upper":
            return np.where(r < radius, np.inf, 0.0)
        rate, limit = rate * (_LARGEST_EXPONENT / limit), _LARGEST_EXPONENT  # m grows with λ
    z = np.minimum(0.5 * rate * r * r / diffusion * spread, limit)
    total, exponent, steps = _series(z, limit, 0.5 * dimension + 1.0, side)
    front = (radius - r) * (radius + r) / (2.0 * diffusion * dimension)
    with np.errstate(over="ignore", under="ignore"):
        value = np.ldexp(front * total * outward(side, 8 * steps + 64), exponent)
    return np.minimum(value, _LARGEST) if side == "lower" else np.where(front > 0, value, 0.0)


def _series(z: np.ndarray, limit: float, b: float, side: Side) -> tuple[np.ndarray, int, int]:
    """Sum D_{k+1}/((k+1)(b)_k); returns the sum, a power of two it is to be multiplied with, and the steps."""
    t, p = np.ones_like(z), np.ones_like(z)  # D_{k+1}/(b)_k and z_r^k/(b)_k
    total, exponent, k = np.ones_like(z), 0, 0
    with np.errstate(under="ignore"):
        while True:
            p = p * z / (b + k)
            t = limit * t / (b + k) + p
            k += 1
            term = t / (k + 1)
            total = total + term
            ratio = limit / (b + k)
            if ratio <= 0.5 and (not len(z) or np.max(term / total) <= UNIT / 8):
                break
            if len(z) and np.max(total) > 2.0**500:
                t, p, total, exponent = t * 2.0**-500, p * 2.0**-500, total * 2.0**-500, exponent + 500
        if side == "upper":
            total = total + 2 * term * ratio / (1 - ratio)
    return total, exponent, k


def steepest_slope(radius: float, dimension: float, rate: float, diffusion: float) -> float:
    """Return an upper bound of |m'(R)|, the largest slope of m on the ball, for λ >= 0."""
    z = arb(rate) * arb(radius) ** 2 / (2 * arb(diffusion))
    kummer = z.hypgeom_1f1(arb(1), 1 + arb(dimension) / 2)
    return above(arb(radius) / (arb(diffusion) * arb(dimension)) * kummer)


def paper_exponential(y: np.ndarray, radius: float, rate: float, diffusion: float) -> np.ndarray:
    """Return an upper bound of (2/Λ)(exp(ΛR²/2b) - exp(Λy²/2b)), paper Theorems 3.2 and 3.3, with b = ε²β.

    Written as ``(R²-y²)/b · exp(p) · expm1(q)/q`` with ``p = Λy²/2b``, ``q = Λ(R²-y²)/2b``, which has no cancellation
    and is ``(R²-y²)/b`` for Λ = 0. p and q carry at most 8 roundings each, which the exponential turns into
    8(p+q)u; exp and expm1 of the C library are taken to be right within 8 units in the last place.

    Parameters
    ----------
    y : ndarray, shape (n,)
        v·(x - x_c); values beyond `radius` give 0.
    radius, rate, diffusion : float
        R_v, Λ >= 0 and b > 0.
    """
    y = np.minimum(np.abs(np.asarray(y, dtype=float)), radius)
    gap = (radius - y) * (radius + y)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
        p, q = 0.5 * rate * y * y / diffusion, 0.5 * rate * gap / diffusion
        growth = np.where(q > 1e-300, np.expm1(q) / np.where(q > 0, q, 1.0), 1.0)
        value = gap / diffusion * np.exp(p) * growth * (1 + (16 * (p + q) + 64) * UNIT)
    return np.where(gap > 0, np.where(np.isnan(value), np.inf, value), 0.0)


def paraboloid(r: np.ndarray, radius: float, denominator: float) -> np.ndarray:
    """Return a lower bound of (R² - r²)/denominator, paper Theorem 3.1 (denominator 2ε²σd); 0 for r >= R."""
    r = np.minimum(np.abs(np.asarray(r, dtype=float)), radius)
    return np.asarray((radius - r) * (radius + r) / denominator * outward("lower", 16))
