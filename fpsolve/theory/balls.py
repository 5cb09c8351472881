"""Small interval linear algebra with Arb balls (python-flint), every result rounded outwards.

A box is a pair of float arrays ``lo <= hi``. Floats are exact numbers here; only operations on balls round, and
they round outwards. Non-finite balls mean "no enclosure found" and never support a claim.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from flint import arb

Ball = Any  # flint.arb, which has no type stubs


def interval(lo: float, hi: float) -> Ball:
    """Return a ball that holds every real in [lo, hi]."""
    return arb(float(lo)) if lo == hi else arb(float(lo)).union(arb(float(hi)))


def box_balls(lo: np.ndarray, hi: np.ndarray) -> list[Ball]:
    """Return one ball for each coordinate of the box."""
    return [interval(a, b) for a, b in zip(lo, hi, strict=True)]


def above(x: Ball) -> float:
    """Return the smallest convenient float that is >= every number in the ball; inf if there is none."""
    if not x.is_finite():
        return math.inf
    value = float(x.upper())
    while not arb(value) >= x and value < math.inf:
        value = math.nextafter(value, math.inf)
    return value


def below(x: Ball) -> float:
    """Return a float that is <= every number in the ball; -inf if there is none."""
    return -above(-x)


def finite(balls: Sequence[Ball]) -> bool:
    """Tell whether all balls are finite."""
    return all(x.is_finite() for x in balls)


def dot(a: Sequence[Ball], b: Sequence[Ball]) -> Ball:
    """Return the enclosure of the scalar product."""
    total = arb(0)
    for x, y in zip(a, b, strict=True):
        total += x * y
    return total


def square(x: Ball) -> Ball:
    """Return the enclosure of x², cut at zero."""
    return interval(0.0, above(abs(x) * abs(x))) if x.contains(0) and not x.is_exact() else x * x


def norm2(a: Sequence[Ball]) -> Ball:
    """Return the enclosure of |a|²; its lower end is never negative."""
    total = arb(0)
    for x in a:
        total += square(x)
    return total


def norm(a: Sequence[Ball]) -> Ball:
    """Return an upper bound of |a| over the enclosure, as an exact ball."""
    total = above(norm2(a))  # a root of the ball itself would fail where its lower end is just below zero
    return arb(total).sqrt().upper() if math.isfinite(total) else arb(math.inf)


def times(matrix: Sequence[Ball], vector: Sequence[Ball]) -> list[Ball]:
    """Return matrix @ vector for a row-major d × d matrix."""
    d = len(vector)
    return [dot(matrix[i * d : (i + 1) * d], vector) for i in range(d)]


def intersect(x: Ball, y: Ball) -> Ball:
    """Return a ball that holds every number in both; both must enclose the same quantity."""
    if not x.is_finite():
        return y
    if not y.is_finite():
        return x
    return x if x.rad() <= y.rad() else y


def largest_eigenvalue(matrix: Sequence[Ball], d: int) -> float:
    """Return an upper bound of the largest eigenvalue over all symmetric matrices in the enclosure.

    The better of three: Gershgorin's circles; the same after the congruence with approximate eigenvectors V of the
    midpoint, where ``λ_max(M) <= λ_max(VᵀMV) / λ(VᵀV)``; midpoint plus the row-sum norm of the radii.

    Parameters
    ----------
    matrix : d*d balls, row-major
        Encloses symmetric matrices; entries (i, j) and (j, i) may differ by rounding.

    Returns
    -------
    float
        inf where an entry is not finite.
    """
    if not finite(matrix):
        return math.inf
    if d == 1:
        return above(matrix[0])
    entries = [[matrix[i * d + j] for j in range(d)] for i in range(d)]
    best = _gershgorin(entries)
    mid = np.array([[float(x.mid()) for x in row] for row in entries])
    if not np.all(np.isfinite(mid)):
        return best
    vectors = np.linalg.eigh(0.5 * (mid + mid.T))[1]
    v = [[arb(float(x)) for x in row] for row in vectors]
    exact = [[x.mid() for x in row] for row in entries]
    radius = max(above(sum((x - x.mid() for x in row), arb(0))) for row in entries)
    gram = _congruence([[arb(int(i == j)) for j in range(d)] for i in range(d)], v)
    least, most = -_gershgorin([[-x for x in row] for row in gram]), _gershgorin(gram)
    if least <= 0:
        return best
    best = min(best, _divided(_gershgorin(_congruence(entries, v)), least, most))
    return min(best, above(arb(_divided(_gershgorin(_congruence(exact, v)), least, most)) + arb(radius)))


def smallest_eigenvalue(matrix: Sequence[Ball], d: int) -> float:
    """Return a lower bound of the smallest eigenvalue over all symmetric matrices in the enclosure."""
    return -largest_eigenvalue([-x for x in matrix], d)


def _gershgorin(rows: list[list[Ball]]) -> float:
    worst = -math.inf
    for i, row in enumerate(rows):
        total = row[i]
        for j, x in enumerate(row):
            if j != i:
                total = total + abs(x)
        worst = max(worst, above(total))
    return worst


def _congruence(rows: list[list[Ball]], v: list[list[Ball]]) -> list[list[Ball]]:
    """Return VᵀMV."""
    d = len(rows)
    right = [[dot(row, [v[k][j] for k in range(d)]) for j in range(d)] for row in rows]
    return [[dot([v[k][i] for k in range(d)], [right[k][j] for k in range(d)]) for j in range(d)] for i in range(d)]


def _divided(value: float, least: float, most: float) -> float:
    """Return value divided by the number of [least, most] that makes it largest."""
    return above(arb(value) / arb(least if value >= 0 else most)) if math.isfinite(value) else value
