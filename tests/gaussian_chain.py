"""Mean exit times of chains with Gaussian steps, computed without fpsolve's operators, meshes or corrections.

``θ' ~ N(m(θ), S(θ))``, every step lasts η: ``u(x) = η + ∫_Ω u(y) p(x, y) dy``, p the density of θ' (Nyström's method).
Inside Ω the integrand is smooth, with the width of a step. Gauss points across Ω and equispaced ones round it are
exponentially accurate once their spacing is below the smallest standard deviation; callers show that by two spacings.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, gmres

Array = NDArray[np.float64]
Field = Callable[[Array], Array]


def interval_met(mean: Field, variance: Field, step: float, lower: float, upper: float, x: float, n: int) -> float:
    """Return u(x) on (lower, upper) with n Gauss points; mean and variance map (n,) to (n,)."""
    t, w = np.polynomial.legendre.leggauss(n)
    y, w = (lower + upper + (upper - lower) * t) / 2, w * (upper - lower) / 2

    def density(points: Array) -> Array:
        s2 = variance(points)[:, None]
        return np.exp(-((y - mean(points)[:, None]) ** 2) / (2 * s2)) / np.sqrt(2 * np.pi * s2) * w

    u = np.linalg.solve(np.eye(n) - density(y), np.full(n, step))
    return float(step + (density(np.array([x])) @ u)[0])


def disc_met(mean: Field, covariance: Field, step: float, center: Array, radius: float, spacing: float) -> float:
    """Return u(center) on a disc; mean maps (n, 2) to (n, 2), covariance to (n, 2, 2)."""
    y, w = _rings(np.asarray(center, dtype=float), radius, spacing)
    m, s = mean(y), covariance(y)
    kernel = np.empty((len(y), len(y)))
    for start in range(0, len(y), 400):
        part = slice(start, start + 400)
        kernel[part] = _density(m[part], s[part], y) * w
    operator = LinearOperator(kernel.shape, matvec=lambda v: v - kernel @ v)
    u, failed = gmres(operator, np.full(len(y), step), rtol=1e-9, restart=100, maxiter=5)
    assert failed == 0
    at = np.asarray(center, dtype=float)[None]
    return float(step + (_density(mean(at), covariance(at), y) * w @ u)[0])


def _density(m: Array, s: Array, y: Array) -> Array:
    """Density of N(m, s) at all y, shape (n, len(y)), by the Cholesky factor of s."""
    l11 = np.sqrt(s[:, 0, 0])[:, None]
    l21 = s[:, 1, 0][:, None] / l11
    l22 = np.sqrt(s[:, 1, 1][:, None] - l21**2)
    first = (y[:, 0] - m[:, :1]) / l11
    second = (y[:, 1] - m[:, 1:] - l21 * first) / l22
    return np.exp(-0.5 * (first**2 + second**2)) / (2 * np.pi * l11 * l22)


def _rings(center: Array, radius: float, spacing: float) -> tuple[Array, Array]:
    count = int(np.ceil(np.pi / 2 * radius / spacing))  # Gauss points are π/2 further apart in the middle
    t, w = np.polynomial.legendre.leggauss(count)
    points, weights = [], []
    for k, (r, wr) in enumerate(zip(radius * (t + 1) / 2, radius * w / 2, strict=True)):
        n = max(8, int(np.ceil(2 * np.pi * r / spacing)))
        angle = 2 * np.pi * np.arange(n) / n + 0.4 * k
        points.append(center + r * np.column_stack([np.cos(angle), np.sin(angle)]))
        weights.append(np.full(n, wr * r * 2 * np.pi / n))
    return np.concatenate(points), np.concatenate(weights)
