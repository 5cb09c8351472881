"""What it costs that a polynomial satisfies the condition on reflecting sides in floating point only.

See the theorem in `fpsolve.theory.certified.barrier`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from flint import arb

from fpsolve.theory.balls import above, below
from fpsolve.theory.certified.angular import Angular, two_sided
from fpsolve.theory.certified.cells import UNIT
from fpsolve.theory.certified.generator import Coefficient
from fpsolve.theory.certified.polynomial import Polynomial, from_grid
from fpsolve.theory.certified.setting import Setting, Side, on_face, side
from fpsolve.theory.certified.shapes import on_box


def correction(setting: Setting, w: Polynomial, kind: Side) -> tuple[float, float] | None:
    """Return (c Z, c z₁) for upper or lower bounds; None where no z is found, e.g. where a n vanishes."""
    w = setting.own(w)
    domain, d = setting.domain, w.dimension
    sides = [side(domain, name) for name in setting.reflecting]
    axes = sorted({axis for axis, _ in sides})
    diffusion = setting.generator.on(w.lower, w.upper)[1]
    weights = {}
    for axis in axes:
        a = [_bounds(diffusion[axis * d + axis], *s)[0] for s in sides if s[0] == axis]
        if not min(a) > 0:
            return None
        weights[axis] = 2.0 / (min(a) * float(w.half(axis).mid()))
    z = _paraboloid(w, weights)
    least_slope = min(_conormal(diffusion, z, *s)[0] for s in sides)
    rise, error = setting.generator(z)
    top = above(arb(two_sided(on_box(rise)).upper) + error)
    slopes = [_conormal(diffusion, w, *s) for s in sides]
    if not (least_slope >= 1 and math.isfinite(top)):
        return None
    c = max(-min(s[0] for s in slopes), 0.0) if kind == "upper" else max(max(s[1] for s in slopes), 0.0)
    if not math.isfinite(c):
        return None
    return above(arb(c) * arb(max(top, 0.0))), above(arb(c) * z.size())


def _paraboloid(w: Polynomial, weights: dict[int, float]) -> Polynomial:
    """Return z = Σ ½ζ_i (x_i - middle_i)²."""
    d = w.dimension
    values = np.zeros((3,) * d)
    for axis, weight in weights.items():
        half = float(w.half(axis).mid())
        share = 0.25 * weight * half**2  # ½ζ h² s² = ¼ζ h² (T_0 + T_2)
        index = [0] * d
        values[tuple(index)] += share
        index[axis] = 2
        values[tuple(index)] += share
    values.flat[0] *= 1 + 8 * UNIT  # z >= 0 although sums are rounded
    return Polynomial.of_floats(w.lower, w.upper, [values])


def _conormal(diffusion: Sequence[Coefficient], w: Polynomial, axis: int, sign: int) -> tuple[float, float]:
    """Return bounds of (a n)·∇w on a side."""
    d = w.dimension
    low, high = arb(0), arb(0)
    total: Polynomial | None = None
    for j in range(d):
        c, slope = diffusion[axis * d + j], w.derivative(j)
        product = product_of(c.polynomial, slope)
        total = product if total is None else _sum(total, product)
        low, high = low - c.error * slope.size(), high + c.error * slope.size()
    assert total is not None
    bounds = _bounds(Coefficient(total, arb(0)), axis, sign)
    if sign < 0:
        bounds = (-bounds[1], -bounds[0])
    return below(arb(bounds[0]) + low), above(arb(bounds[1]) + high)


def product_of(p: Polynomial, q: Polynomial) -> Polynomial:
    """Return the product of two polynomials on one box."""
    sizes = [a + b - 1 for a, b in zip(p.shape, q.shape, strict=True)]
    return from_grid(p.lower, p.upper, p.on_grid(sizes) * q.on_grid(sizes))


def _sum(p: Polynomial, q: Polynomial) -> Polynomial:
    shape = tuple(max(a, b) for a, b in zip(p.shape, q.shape, strict=True))
    return Polynomial(p.lower, p.upper, _padded(p, shape) + _padded(q, shape))


def _padded(p: Polynomial, shape: tuple[int, ...]) -> Any:
    values = np.empty(shape, dtype=object)
    values[...] = arb(0)
    values[tuple(slice(0, n) for n in p.shape)] = p.coefficients
    return values


def _bounds(c: Coefficient, axis: int, sign: int) -> tuple[float, float]:
    """Return bounds of a coefficient on a side."""
    face = on_face(c.polynomial, axis, sign)
    if isinstance(face, Angular):
        found = two_sided(face)
        low, high = found.lower, found.upper
    else:
        low, high = below(face), above(face)
    return below(arb(low) - c.error), above(arb(high) + c.error)
