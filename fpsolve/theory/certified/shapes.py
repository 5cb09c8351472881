"""Polynomials on boxes, balls and spheres as trigonometric polynomials in angles; see `certified.angular`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from flint import arb

from fpsolve.theory.balls import Ball
from fpsolve.theory.certified.angular import Angular, Kind, equispaced, trigonometric_coefficients
from fpsolve.theory.certified.polynomial import (
    Polynomial,
    Tensor,
    chebyshev_angles,
    contract,
    tensor,
    to_coefficients,
)
from fpsolve.theory.certified.rays import along_rays, truncated

TINY = 1e-24  # frequencies of that relative size along arcs are left out, and accounted for


def on_box(polynomial: Polynomial) -> Angular:
    """Return p on its own box, ``x_i = middle_i + half_i cos φ_i``."""
    d = polynomial.dimension
    return Angular(_kinds("cos", d), polynomial.coefficients, ((0.0, 1.0),) * d)


def on_ball(polynomial: Polynomial, center: Sequence[float], radius: float) -> Angular:
    """Return p on a ball, ``x = c + R cos φ n``, in φ and the angles of the unit vector n (d = 1, 2, 3).

    The angles θ of n: (cos θ, sin θ) in the plane, (sin α cos β, sin α sin β, cos α) in space.
    """
    d = polynomial.dimension
    if d == 1:
        # rounded outwards: slightly more than the ball
        low, high = math.nextafter(center[0] - radius, -math.inf), math.nextafter(center[0] + radius, math.inf)
        interval = polynomial.moved((low,), (high,))
        return Angular(_kinds("cos", 1), interval.coefficients, ((0.0, 1.0),))
    polynomial, m = truncated(polynomial)
    count = 2 * m + 2
    directions = _directions(d, count)
    values = along_rays(polynomial, m, center, [arb(radius) * n.ravel() for n in directions], lambda s: s)
    values = values.reshape(m + 1, *directions[0].shape)
    matrix = trigonometric_coefficients(count, m)
    for axis in range(1, d):
        values = contract(matrix, values, axis)
    spans = ((0.0, 0.5), (0.0, 2.0)) if d == 2 else ((0.0, 0.5), (0.0, 1.0), (0.0, 2.0))
    return Angular(_kinds("cos", 1) + _kinds("trig", d - 1), values, spans)


def on_sphere(polynomial: Polynomial, center: Sequence[float], radius: float) -> Angular:
    """Return p on the sphere (d = 2, 3) in the angles of the unit vector."""
    polynomial, m = truncated(polynomial)
    count = 2 * m + 2
    directions = _directions(polynomial.dimension, count)
    points = [(arb(c) + arb(radius) * n).ravel() for c, n in zip(center, directions, strict=True)]
    values = polynomial.at(points).reshape(directions[0].shape)
    matrix = trigonometric_coefficients(count, m)
    for axis in range(values.ndim):
        values = contract(matrix, values, axis)
    spans = ((0.0, 2.0),) if polynomial.dimension == 2 else ((0.0, 1.0), (0.0, 2.0))
    return Angular(_kinds("trig", polynomial.dimension - 1), values, spans)


def on_sector(
    polynomial: Polynomial, center: Sequence[float], arc: Sequence[Sequence[float]], scale: float, first: Ball = 0
) -> Angular:
    """Return p on ``c + scale ρ (γ(t) - c)``, first <= ρ <= 1, t in [-1, 1], γ a Bézier arc: a polynomial in ρ and t.

    The angles are those of ``ρ = first + (1 - first)(1 + cos φ)/2`` and ``t = cos ψ``.
    """
    polynomial, m = truncated(polynomial)
    along = m * (len(arc) - 1)
    offsets = _arc_offsets(center, arc, scale, along + 1)
    values = along_rays(polynomial, m, center, offsets, lambda s: first + (1 - first) * (1 + s) / 2)
    values = contract(to_coefficients(along + 1), values, 1)
    return Angular(_kinds("cos", 2), values, ((0.0, 1.0), (0.0, 1.0))).trimmed(TINY)


def on_arc(polynomial: Polynomial, center: Sequence[float], arc: Sequence[Sequence[float]], scale: float) -> Angular:
    """Return p on ``c + scale (γ(t) - c)``, t = cos ψ in [-1, 1], γ a Bézier arc."""
    polynomial, m = truncated(polynomial)
    count = m * (len(arc) - 1) + 1
    points = [arb(c) + g for c, g in zip(center, _arc_offsets(center, arc, scale, count), strict=True)]
    values = contract(to_coefficients(count), polynomial.at(points), 0)
    return Angular(_kinds("cos", 1), values, ((0.0, 1.0),)).trimmed(TINY)


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


def _directions(dimension: int, count: int) -> list[Tensor]:
    """Return the components of n on the grid of angles."""
    angles = equispaced(count)
    cos, sin = tensor([a.cos() for a in angles], (count,)), tensor([a.sin() for a in angles], (count,))
    if dimension == 2:
        return [cos, sin]
    ones = tensor([arb(1)] * count, (count,))
    return [sin[:, None] * cos[None], sin[:, None] * sin[None], cos[:, None] * ones[None]]
