"""Candidates that satisfy the condition on reflecting sides exactly, not in floating point only.

``(a n)·∇w`` is nearly zero there. With ``z = Σ ½ζ_i (x_i - middle_i)²`` over the directions of the reflecting sides, so
that ``(a n)·∇z >= 1`` on them, w + c z (upper bounds) or w - c z (lower) with a small c satisfy it with the right sign.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from flint import arb

from fpsolve.theory.balls import above, below
from fpsolve.theory.certified.angular import Angular, two_sided
from fpsolve.theory.certified.generator import Coefficient
from fpsolve.theory.certified.polynomial import Polynomial, from_grid
from fpsolve.theory.certified.setting import Setting, Side, on_face, side
from fpsolve.theory.certified.task import Candidate, corners

# c is larger than what is needed by that factor, and that number where coefficients are known approximately only, so
# that other proofs need not be as sharp
SPARE, LEAST = 1.5, 1e-13


def corrected(setting: Setting, candidate: Candidate, kind: Side) -> Candidate | None:
    """Return w ± c z with ``(a n)·∇w >= 0`` (upper) or ``<= 0`` (lower) proved on all reflecting sides.

    None where no z is found, e.g. where a n vanishes somewhere on a side, or on domains that are no boxes.
    """
    if (candidate.lower, candidate.upper) != corners(setting.domain) or setting.domain.names == ("boundary",):
        return None
    w = Polynomial.of_floats(candidate.lower, candidate.upper, candidate.coefficients)
    d = w.dimension
    sides = [side(setting.domain, name) for name in setting.reflecting]
    diffusion = setting.generator.on(w.lower, w.upper)[1]
    weights = {}
    for axis in sorted({axis for axis, _ in sides}):
        a = [_bounds(diffusion[axis * d + axis], *s)[0] for s in sides if s[0] == axis]
        if not min(a) > 0:
            return None
        weights[axis] = 2.0 / (min(a) * float(w.half(axis).mid()))
    z = _paraboloid(w, weights)
    if not min(_conormal(diffusion, Polynomial.of_floats(w.lower, w.upper, [z]), *s)[0] for s in sides) >= 1:
        return None
    slopes = [_conormal(diffusion, w, *s) for s in sides]
    wrong = max(-low for low, _ in slopes) if kind == "upper" else max(high for _, high in slopes)
    c = SPARE * max(wrong, 0.0) + (LEAST if any(a.error != 0 for a in diffusion) else 0.0)
    if not math.isfinite(c):
        return None
    shape = tuple(max(3, n) for n in w.shape)
    parts = [np.zeros(shape) for _ in range(len(candidate.coefficients) + 1)]
    for part, old in zip(parts, (*candidate.coefficients, (c if kind == "upper" else -c) * z), strict=True):
        part[tuple(slice(0, n) for n in old.shape)] = old
    slopes = [_conormal(diffusion, Polynomial.of_floats(w.lower, w.upper, parts), *s) for s in sides]
    proved = all(low >= 0 for low, _ in slopes) if kind == "upper" else all(high <= 0 for _, high in slopes)
    return replace(candidate, coefficients=tuple(parts), kind=kind) if proved else None


def _paraboloid(w: Polynomial, weights: dict[int, float]) -> np.ndarray:
    """Return the coefficients of z = Σ ½ζ_i (x_i - middle_i)²."""
    d = w.dimension
    values = np.zeros((3,) * d)
    for axis, weight in weights.items():
        half = float(w.half(axis).mid())
        share = 0.25 * weight * half**2  # ½ζ h² s² = ¼ζ h² (T_0 + T_2)
        index = [0] * d
        values[tuple(index)] += share
        index[axis] = 2
        values[tuple(index)] += share
    return values


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
