"""Krawczyk's operator: which boxes hold no zero of ∇L, which exactly one, and how many eigenvalues are negative there.

With m the middle of a box B and Y about D²L(m)⁻¹, every zero of ∇L in B lies in
``K(B) = m - Y∇L(m) + (I - Y D²L(B))(B - m)``. If K(B) and B are disjoint there is none; if K(B) lies in the interior of
B there is exactly one (Krawczyk 1969; Neumaier, Interval methods for systems of equations, 1990, section 5.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flint import arb

from fpsolve.theory.balls import Ball, above, below, box_balls, dot, finite, times
from fpsolve.theory.cover import Box
from fpsolve.theory.derivatives import Derivatives

EMPTY, UNIQUE, UNDECIDED = "empty", "unique", "undecided"
#: Steps that make a box round a zero smaller.
CONTRACTIONS = 60
#: A condition number of D²L beyond which it counts as singular.
SINGULAR = 1e13


@dataclass(frozen=True)
class Verdict:
    """What is proved of a box.

    Attributes
    ----------
    kind : "empty", "unique" or "undecided"
        No zero of ∇L in the box; exactly one; neither is proved.
    box : Box
        All zeros of the box lie in it; never larger than the box.
    regular : bool
        Whether I - Y D²L(B) contracts, so that the box holds at most one zero.
    weights : ndarray, shape (d,)
        How much each side adds to what is undecided.
    """

    kind: str
    box: Box
    regular: bool = False
    weights: np.ndarray | None = None


def examine(derivatives: Derivatives, lo: np.ndarray, hi: np.ndarray) -> Verdict:
    """Decide whether a box holds a zero of ∇L: by its range, in mean-value form, by Krawczyk's operator."""
    box = box_balls(lo, hi)
    gradient, hessian = derivatives.gradient_and_hessian(box)
    if any(g.is_finite() and not g.contains(0) for g in gradient):
        return Verdict(EMPTY, (lo, hi))
    middle = [arb(float(m)) for m in 0.5 * (lo + hi)]
    at_middle = derivatives.gradient(middle)
    if not finite(hessian) or not finite(at_middle):
        return Verdict(UNDECIDED, (lo, hi))
    return _by_slope(box, middle, at_middle, hessian, lo, hi)


def _by_slope(
    box: list[Ball], middle: list[Ball], at_middle: list[Ball], hessian: list[Ball], lo: np.ndarray, hi: np.ndarray
) -> Verdict:
    """Decide in mean-value form, plain, in the direction of the gradient, and preconditioned."""
    d = len(lo)
    steps = [x - m for x, m in zip(box, middle, strict=True)]
    mean = [g + s for g, s in zip(at_middle, times(hessian, steps), strict=True)]
    if any(not g.contains(0) for g in mean):
        return Verdict(EMPTY, (lo, hi))
    direction = [g.mid() for g in at_middle]
    slopes = [dot(direction, hessian[k::d]) for k in range(d)]
    if not (dot(direction, at_middle) + dot(slopes, steps)).contains(0):
        return Verdict(EMPTY, (lo, hi))
    widths = np.array([[float(hessian[i * d + j].rad()) for j in range(d)] for i in range(d)])
    inverse = _inverse(hessian, d)
    if inverse is None:
        return Verdict(UNDECIDED, (lo, hi), weights=widths.sum(axis=0) * (hi - lo))
    residual = [arb(int(k % (d + 1) == 0)) - p for k, p in enumerate(_product(inverse, hessian, d))]
    shift = times(inverse, at_middle)
    image = [m - s + t for m, s, t in zip(middle, shift, times(residual, steps), strict=True)]
    size = np.array([[above(abs(residual[i * d + j])) for j in range(d)] for i in range(d)])
    weights = np.max(size / np.maximum(hi - lo, 1e-300)[:, None], axis=0) * (hi - lo)
    if any(not k.overlaps(x) for k, x in zip(image, box, strict=True)):
        return Verdict(EMPTY, (lo, hi), True, weights)
    least = np.array([below(k) for k in image])
    most = np.array([above(k) for k in image])
    regular = bool(np.all(size @ (hi - lo) < hi - lo))
    inner = np.maximum(least, lo), np.minimum(most, hi)
    if np.any(inner[0] > inner[1]):
        return Verdict(EMPTY, (lo, hi), True, weights)
    if np.all(least > lo) and np.all(most < hi):
        return Verdict(UNIQUE, inner, True, weights)
    return Verdict(UNDECIDED, inner, regular, weights)


def _inverse(hessian: Sequence[Ball], d: int) -> list[Ball] | None:
    """Return about the inverse of the middle of an enclosure, as exact balls."""
    mid = np.array([float(h.mid()) for h in hessian]).reshape(d, d)
    if not np.isfinite(mid).all() or not np.linalg.cond(mid) < SINGULAR:
        return None
    return [arb(float(t)) for t in np.linalg.inv(mid).ravel()]


def _product(a: Sequence[Ball], b: Sequence[Ball], d: int) -> list[Ball]:
    return [dot(a[i * d : (i + 1) * d], b[j::d]) for i in range(d) for j in range(d)]


def isolate(derivatives: Derivatives, x: np.ndarray, scale: np.ndarray) -> tuple[Box, Box] | None:
    """Prove that a zero of ∇L lies near x, and that it is the only one of a box.

    Parameters
    ----------
    x : ndarray, shape (d,)
        An approximate zero.
    scale : ndarray, shape (d,)
        The largest half sides of the box that are tried, to be halved.

    Returns
    -------
    Two boxes, the first in the second, or None
        The zero lies in the first, which is as small as rounding allows; the second holds no other zero.
    """
    for k in range(52):
        half = scale * 2.0**-k
        lo, hi = x - half, x + half
        if not np.all((lo < x) & (x < hi)):
            return None
        verdict = examine(derivatives, lo, hi)
        if verdict.kind == EMPTY:
            return None
        if verdict.kind == UNIQUE:
            return contract(derivatives, verdict.box), (lo, hi)
    return None


def contract(derivatives: Derivatives, box: Box) -> Box:
    """Return a smaller box that holds all zeros of ∇L of the given one."""
    for _ in range(CONTRACTIONS):
        verdict = examine(derivatives, *box)
        if verdict.kind == EMPTY:  # impossible for a box with a zero
            return box
        smaller = verdict.box
        if np.all(smaller[1] == smaller[0]):
            return smaller
        if np.all(smaller[1] - smaller[0] > 0.99 * (box[1] - box[0])):
            return smaller
        box = smaller
    return box


def inertia(derivatives: Derivatives, box: Box) -> tuple[int, int] | None:
    """Return how many eigenvalues of D²L are negative and positive, the same on all of a box; None if not proved.

    By Sylvester's law of inertia: VᵀD²L V, V the approximate eigenvectors, is strictly diagonally dominant, hence
    regular as V is, and its eigenvalues have the signs of the diagonal.
    """
    hessian = derivatives.gradient_and_hessian(box_balls(*box))[1]
    d = len(box[0])
    mid = np.array([float(h.mid()) for h in hessian]).reshape(d, d)
    if not finite(hessian) or not np.isfinite(mid).all():
        return None
    vectors = [arb(float(v)) for v in np.linalg.eigh(0.5 * (mid + mid.T))[1].ravel()]
    transposed = [vectors[j * d + i] for i in range(d) for j in range(d)]
    matrix = _product(_product(transposed, hessian, d), vectors, d)
    negative = positive = 0
    for i in range(d):
        diagonal = matrix[i * d + i]
        others = sum((abs(matrix[i * d + j]) for j in range(d) if j != i), arb(0))
        if diagonal > others:
            positive += 1
        elif -diagonal > others:
            negative += 1
        else:
            return None
    return negative, positive
