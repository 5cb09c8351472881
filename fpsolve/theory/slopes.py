"""Rigorous bounds of Λ, the strength of the drift towards a hyperplane, in the upper bounds' hypotheses.

With a direction v, a centre c, ``y = v·(x-c)`` and ``G = v·∇L(x)`` the two hypotheses are

- paper (7): ``G y <= Λ y² + b/2`` with b = ε²β,
- sharp: ``sign(y) G <= Λ|y| + κ`` with an offset κ >= 0 (0 where G vanishes on the hyperplane y = 0).

Λ is the supremum of a quotient that is singular at y = 0; the functions below bound it on boxes on either side of the
hyperplane in mean-value form, and on boxes that meet it without dividing.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from flint import arb

from fpsolve.theory.balls import Ball, above, below, box_balls, dot, intersect, interval, norm2, times
from fpsolve.theory.constants import Constant, Field, as_constant, middle_of, search, side_weights
from fpsolve.theory.cover import Cover
from fpsolve.theory.search import Budget


def _clipped(constant: Constant) -> Constant:
    """Λ may always be taken larger: negative values become 0."""
    if constant.value == -math.inf or constant.value < 0:
        return replace(constant, value=0.0, verified=True, reason="")
    return constant


def paper_slope(
    field: Field, v: np.ndarray, center: np.ndarray, b: float, reach: float, cover: Cover, budget: Budget
) -> Constant:
    """Bound the smallest Λ >= 0 with (v·∇L) y <= Λy² + b/2 on the cover from above.

    Notes
    -----
    For ``±G <= g`` on a box and |y| in [y₁, y₂] the quotient is at most the maximum of ``φ(t) = g/t - b/(2t²)`` there,
    which rises up to ``t = b/g`` and falls after it, with maximum g²/(2b): finite also where the box meets y = 0.
    """
    w, c, half = [arb(float(t)) for t in v], [arb(float(t)) for t in center], arb(b) / 2

    def bound(lo: np.ndarray, hi: np.ndarray) -> tuple[float, np.ndarray | None]:
        y = dot(w, [x - t for x, t in zip(box_balls(lo, hi), c, strict=True)])
        gradient, hessian, at_middle = field.gradient_and_hessian(lo, hi)
        slope = dot(w, gradient)
        if not slope.is_finite():
            return math.inf, None
        best = -math.inf
        if above(y) > 0:
            best = _peak(above(slope), max(below(y), 0.0), above(y), b)
        if below(y) < 0:
            best = max(best, _peak(above(-slope), max(below(-y), 0.0), above(-y), b))
        hv = times(hessian, w)
        if y.contains(0):
            return best, side_weights(hv, lo, hi)
        middle = middle_of(lo, hi)
        ym = dot(w, [m - t for m, t in zip(middle, c, strict=True)])
        at = (dot(w, at_middle) * ym - half) / (ym * ym)
        change = [h / y - slope * t / (y * y) + 2 * half * t / (y * y * y) for h, t in zip(hv, w, strict=True)]
        return min(best, above(at + cover.rise(change, lo, hi))), side_weights(change, lo, hi)

    def value(x: np.ndarray) -> np.ndarray:
        y = (x - center) @ v
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return ((field.process.landscape.gradient(x) @ v) * y - b / 2) / y**2  # type: ignore[union-attr]

    outcome = search(bound, value, cover, budget, absolute=1e-3 * b / reach**2, enough=0.0)
    return _clipped(as_constant("Lambda", "upper", outcome))


def _peak(g: float, y1: float, y2: float, b: float) -> float:
    """Return an upper bound of max over t in [y1, y2] of g/t - b/(2t²)."""
    G, B = arb(g), arb(b)

    def at(t: float) -> float:
        return above(G / arb(t) - B / (2 * arb(t) ** 2))

    if g <= 0 or G * arb(y2) <= B:
        return at(y2)
    if y1 > 0 and G * arb(y1) >= B:
        return at(y1)
    return above(G * G / (2 * B))


def on_the_plane(
    field: Field, v: np.ndarray, center: np.ndarray, lo: np.ndarray, hi: np.ndarray
) -> tuple[Ball, list[Ball]]:
    """Enclose G = v·∇L over the projection of a box to the hyperplane v·(x - center) = 0; and its slope along it.

    With p and p_m the projections of x and of the midpoint, ``G(p) = G(p_m) + ∫(D²L v)·(p - p_m)``; only the part of
    D²L v along the hyperplane counts, which is (nearly) zero when L is a sum of functions along and across v.
    """
    w, c = [arb(float(t)) for t in v], [arb(float(t)) for t in center]
    box, middle, length = box_balls(lo, hi), middle_of(lo, hi), norm2(w)
    plane, foot = _project(box, w, c, length), _project(middle, w, c, length)
    hv = times(field.hessian(plane), w)
    along = dot(hv, w) / length
    across = [h - along * t for h, t in zip(hv, w, strict=True)]
    steps = [p - f for p, f in zip(plane, foot, strict=True)]
    value = intersect(dot(w, field.gradient(plane)), dot(w, field.gradient(foot)) + dot(across, steps))
    return value, [arb(0) if s.is_exact() and s == 0 else t for t, s in zip(across, steps, strict=True)]


def _project(box: list[Ball], w: list[Ball], c: list[Ball], length: Ball) -> list[Ball]:
    """Enclose x - y v/|v|²; a coordinate along which v points alone is exactly the centre's."""
    active = [i for i, t in enumerate(w) if t != 0]
    if len(active) == 1:
        return [c[i] if i == active[0] else x for i, x in enumerate(box)]
    y = dot(w, [x - t for x, t in zip(box, c, strict=True)])
    return [x - y * t / length for x, t in zip(box, w, strict=True)]


def plane_sup(field: Field, v: np.ndarray, center: np.ndarray, cover: Cover, budget: Budget) -> Constant:
    """Bound |v·∇L| from above on the projection of the cover to the hyperplane v·(x - center) = 0."""

    def bound(lo: np.ndarray, hi: np.ndarray) -> tuple[float, np.ndarray]:
        value, across = on_the_plane(field, v, center, lo, hi)
        return above(abs(value)), side_weights(across, lo, hi)

    def value(x: np.ndarray) -> np.ndarray:
        foot = x - ((x - center) @ v)[:, None] * v / (v @ v)
        return np.abs(field.process.landscape.gradient(foot) @ v)  # type: ignore[union-attr]

    return as_constant("v·∇L on the hyperplane", "upper", search(bound, value, cover, budget))


def sharp_slope(
    field: Field, v: np.ndarray, center: np.ndarray, kappa: float, b: float, reach: float, cover: Cover, budget: Budget
) -> Constant:
    """Bound the smallest Λ >= 0 with sign(y) (v·∇L) <= Λ|y| + κ on the cover from above.

    Parameters
    ----------
    kappa : float
        κ, at least `plane_sup`; that must have been proven before.

    Notes
    -----
    Near y = 0: ``G(x) = G(p) + y ∫ vᵀD²L v/|v|²`` along the segment from the projection p, where |G(p)| <= κ; so
    sup vᵀD²L v/|v|² over the box and its projection bounds the quotient (for κ = 0 the quotient is that average).
    """
    w, c, offset = [arb(float(t)) for t in v], [arb(float(t)) for t in center], arb(kappa)
    length = norm2(w)

    def bound(lo: np.ndarray, hi: np.ndarray) -> tuple[float, np.ndarray | None]:
        box = box_balls(lo, hi)
        y = dot(w, [x - t for x, t in zip(box, c, strict=True)])
        gradient, hessian, at_middle = field.gradient_and_hessian(lo, hi)
        slope, hv = dot(w, gradient), times(hessian, w)
        if not slope.is_finite():
            return math.inf, None
        if above(abs(slope)) <= kappa:
            return 0.0, None
        best, curvature = math.inf, arb("nan")
        if y.contains(0) or below(abs(y)) <= above(abs(y)) / 2:
            plane = _project(box, w, c, length)
            hull = [interval(min(p, below(q)), max(r, above(q))) for p, r, q in zip(lo, hi, plane, strict=True)]
            curvature = dot(times(field.hessian(hull), w), w) / length
            best = above(curvature)
        if y.contains(0):
            return best, side_weights(hv, lo, hi)
        middle, signed = middle_of(lo, hi), offset if y > 0 else -offset
        ym = dot(w, [m - t for m, t in zip(middle, c, strict=True)])
        plain = (slope - signed) / y
        if kappa == 0:
            plain = intersect(plain, curvature)
        change = [(h - plain * t) / y for h, t in zip(hv, w, strict=True)]
        at = (dot(w, at_middle) - signed) / ym
        mean = above(at + cover.rise(change, lo, hi))
        return min(best, above(plain), mean), side_weights(change, lo, hi)

    def value(x: np.ndarray) -> np.ndarray:
        y = (x - center) @ v
        G = field.process.landscape.gradient(x) @ v  # type: ignore[union-attr]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            quotient = (np.sign(y) * G - kappa) / np.abs(y)
        return np.where(np.abs(y) > 1e-6 * reach, quotient, -np.inf)

    outcome = search(bound, value, cover, budget, absolute=1e-3 * b / reach**2, enough=0.0)
    return _clipped(as_constant("Lambda", "upper", outcome))
