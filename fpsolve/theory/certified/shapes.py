"""Polynomials on boxes, balls and spheres as trigonometric polynomials in angles; see `certified.angular`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from flint import arb

from fpsolve.theory.certified.angular import Angular, Kind, equispaced, trigonometric_coefficients
from fpsolve.theory.certified.polynomial import Polynomial, Tensor, chebyshev_angles, contract, tensor, to_coefficients


def on_box(polynomial: Polynomial) -> Angular:
    """Return p on its own box, ``x_i = middle_i + half_i cos φ_i``."""
    d = polynomial.dimension
    return Angular(_kinds("cos", d), polynomial.coefficients, ((0.0, 1.0),) * d)


def on_ball(polynomial: Polynomial, center: Sequence[float], radius: float) -> Angular:
    """Return p on a ball, ``x = c + R cos φ n``, in φ and the angles of the unit vector n (d = 1, 2, 3).

    The angles θ of n: (cos θ, sin θ) in the plane, (sin α cos β, sin α sin β, cos α) in space.
    """
    m = _total_degree(polynomial)
    even = m + 1 + (m + 1) % 2
    half = even // 2
    angles = chebyshev_angles(even)
    radii = np.array([arb(radius) * a.cos() for a in angles[:half]], dtype=object)
    if polynomial.dimension == 1:
        values = polynomial.at([arb(center[0]) + np.concatenate([radii, -radii[::-1]])])
        return Angular(("cos",), contract(to_coefficients(even), values, 0), ((0.0, 1.0),))
    count = 2 * m + 2
    directions = _directions(polynomial.dimension, count)
    shape = (half, *directions[0].shape)
    points = [
        (arb(c) + radii.reshape(-1, *([1] * n.ndim)) * n[None]).ravel() for c, n in zip(center, directions, strict=True)
    ]
    near = polynomial.at(points).reshape(shape)
    far = _antipodes(near)[::-1]  # cos(π - φ) = -cos φ: the same points seen from the other side
    values = contract(to_coefficients(even), np.concatenate([near, far]), 0)
    matrix = trigonometric_coefficients(count, m)
    for axis in range(1, values.ndim):
        values = contract(matrix, values, axis)
    kinds = _kinds("cos", 1) + _kinds("trig", polynomial.dimension - 1)
    spans = ((0.0, 0.5), (0.0, 2.0)) if polynomial.dimension == 2 else ((0.0, 0.5), (0.0, 1.0), (0.0, 2.0))
    return Angular(kinds, values, spans)


def on_sphere(polynomial: Polynomial, center: Sequence[float], radius: float) -> Angular:
    """Return p on the sphere (d = 2, 3) in the angles of the unit vector."""
    m = _total_degree(polynomial)
    count = 2 * m + 2
    directions = _directions(polynomial.dimension, count)
    points = [(arb(c) + arb(radius) * n).ravel() for c, n in zip(center, directions, strict=True)]
    values = polynomial.at(points).reshape(directions[0].shape)
    matrix = trigonometric_coefficients(count, m)
    for axis in range(values.ndim):
        values = contract(matrix, values, axis)
    spans = ((0.0, 2.0),) if polynomial.dimension == 2 else ((0.0, 1.0), (0.0, 2.0))
    return Angular(_kinds("trig", polynomial.dimension - 1), values, spans)


def on_sector(polynomial: Polynomial, center: Sequence[float], arc: Sequence[Sequence[float]], scale: float) -> Angular:
    """Return p on ``c + scale ρ (γ(t) - c)``, 0 <= ρ <= 1, t in [-1, 1], γ a Bézier arc: a polynomial in ρ and t.

    The angles are those of ``2ρ - 1 = cos φ`` and ``t = cos ψ``.
    """
    m = _total_degree(polynomial)
    along = m * (len(arc) - 1)
    rho = np.array([(1 + a.cos()) / 2 for a in chebyshev_angles(m + 1)], dtype=object)
    offsets = _arc_offsets(center, arc, scale, along + 1)
    points = [(arb(c) + rho[:, None] * g[None]).ravel() for c, g in zip(center, offsets, strict=True)]
    values = polynomial.at(points).reshape(m + 1, along + 1)
    values = contract(to_coefficients(along + 1), contract(to_coefficients(m + 1), values, 0), 1)
    return Angular(_kinds("cos", 2), values, ((0.0, 1.0), (0.0, 1.0)))


def on_arc(polynomial: Polynomial, center: Sequence[float], arc: Sequence[Sequence[float]], scale: float) -> Angular:
    """Return p on ``c + scale (γ(t) - c)``, t = cos ψ in [-1, 1], γ a Bézier arc."""
    count = _total_degree(polynomial) * (len(arc) - 1) + 1
    points = [arb(c) + g for c, g in zip(center, _arc_offsets(center, arc, scale, count), strict=True)]
    return Angular(_kinds("cos", 1), contract(to_coefficients(count), polynomial.at(points), 0), ((0.0, 1.0),))


def _arc_offsets(center: Sequence[float], arc: Sequence[Sequence[float]], scale: float, count: int) -> list[Tensor]:
    """Return the components of scale (γ(t) - c) at Chebyshev nodes t."""
    n = len(arc) - 1
    right = np.array([(1 + a.cos()) / 2 for a in chebyshev_angles(count)], dtype=object)
    left = 1 - right
    result = []
    for k, c in enumerate(center):
        total = arb(0)
        for j, point in enumerate(arc):
            total = total + math.comb(n, j) * (arb(point[k]) - arb(c)) * right**j * left ** (n - j)
        result.append(arb(scale) * total)
    return result


def _kinds(kind: Kind, count: int) -> tuple[Kind, ...]:
    return (kind,) * count


def _total_degree(polynomial: Polynomial) -> int:
    """Return the largest total degree with a coefficient other than the exact number 0."""
    degrees = np.indices(polynomial.shape).sum(axis=0).ravel()
    return max((int(k) for k, c in zip(degrees, polynomial.coefficients.ravel(), strict=True) if c != 0), default=0)


def _directions(dimension: int, count: int) -> list[Tensor]:
    """Return the components of n on the grid of angles."""
    angles = equispaced(count)
    cos, sin = tensor([a.cos() for a in angles], (count,)), tensor([a.sin() for a in angles], (count,))
    if dimension == 2:
        return [cos, sin]
    ones = tensor([arb(1)] * count, (count,))
    return [sin[:, None] * cos[None], sin[:, None] * sin[None], cos[:, None] * ones[None]]


def _antipodes(values: Tensor) -> Tensor:
    """Return the values at -n: θ + π, or (π - α, β + π)."""
    count = values.shape[-1]
    turned = np.roll(values, -(count // 2), axis=-1)
    if values.ndim == 2:
        return turned
    alpha = (count // 2 - np.arange(count)) % count
    return turned[:, alpha]
