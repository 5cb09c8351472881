"""Rigorous ranges of functions that are trigonometric polynomials in angles.

With ``x_i = middle_i + half_i cos φ_i`` on a box and ``x = c + R cos φ n(θ)`` on a ball, a polynomial of degree m
becomes a trigonometric polynomial of degree m in every angle. Two proofs of its range:

- `two_sided` (Ehlich and Zeller): on N equispaced points a trigonometric polynomial of degree m < N/2 satisfies
  ``sup|F| <= max|F(θ_j)| / cos(πm/N)``, one factor for each angle. Cheap; good where F is nearly constant.
- `least`: on cells of half-width h the interpolant in K Chebyshev points has the error ``Σ|c| (mh)^K / (2^(K-1) K!)``
  for each angle; its local Chebyshev coefficients bound it on the cell; cells that are not good enough are halved.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from flint import arb, arb_mat, ctx

from fpsolve.theory.balls import Ball, above, below
from fpsolve.theory.certified.cells import UNDERFLOW, UNIT, Cells, floats_of
from fpsolve.theory.certified.polynomial import (
    Tensor,
    chebyshev_angles,
    contract,
    cosines,
    matrix_of,
    powers,
    tensor,
    to_coefficients,
)

Kind = Literal["cos", "trig"]
# K and m h of the first cells, for one, two and three angles
NODES = (20, 22, 14)
REACH = (2.0, 4.0, 2.5)
CELLS = 300_000
PART = 6_000_000  # coefficients of cells that are cut at once
MOST = 12_000_000  # local coefficients; beyond that the two-sided proof is used


@dataclass(frozen=True)
class Range:
    """``lower <= F <= upper``, proved; infinite where nothing is."""

    lower: float
    upper: float


@dataclass(frozen=True, eq=False)
class Angular:
    """A function of angles: products of 1, cos kφ (and sin kφ) with balls as coefficients.

    Attributes
    ----------
    kinds : tuple of "cos" or "trig"
        "cos": coefficients of cos kφ, k = 0 … m; "trig": of 1, cos θ … cos mθ, sin θ … sin mθ.
    coefficients : ndarray of arb
    spans : tuple of (float, float)
        The angles that are needed, in units of π.
    """

    kinds: tuple[Kind, ...]
    coefficients: Tensor
    spans: tuple[tuple[float, float], ...]

    def negative(self) -> Angular:
        """Return -F."""
        return Angular(self.kinds, -self.coefficients, self.spans)

    def trimmed(self, relative: float) -> Angular:
        """Return F without high frequencies ("cos" only) of that relative size; their sum widens the constant term."""
        values = self.coefficients
        sizes = np.array([float(abs(c).upper()) for c in values.ravel()]).reshape(values.shape)
        allowed = relative * float(sizes.sum())
        keep = []
        for axis, kind in enumerate(self.kinds):
            others = tuple(k for k in range(values.ndim) if k != axis)
            tails = np.cumsum(sizes.sum(axis=others)[::-1])[::-1]
            keep.append(max(1, int(np.count_nonzero(tails > allowed))) if kind == "cos" else values.shape[axis])
        kept = values[tuple(slice(0, n) for n in keep)].copy()
        lost = abs(values).sum() - abs(kept).sum()
        kept.flat[0] = kept.flat[0] + arb(0, 1) * arb(lost).max(arb(0)).upper()
        return Angular(self.kinds, kept, self.spans)

    def degree(self, axis: int) -> int:
        """Return m of that angle."""
        size = int(self.coefficients.shape[axis])
        return size - 1 if self.kinds[axis] == "cos" else (size - 1) // 2


def basis(kind: Kind, degree: int, angles: Sequence[Ball]) -> Tensor:
    """Return the basis functions at angles, shape (len(angles), size)."""
    if kind == "cos":
        return cosines(angles, degree)
    waves = powers(angles, degree)
    columns = [*waves.T, *waves.T[1:]]
    rows = [[z.real for z in column] for column in columns[: degree + 1]]
    rows += [[z.imag for z in column] for column in columns[degree + 1 :]]
    return tensor([value for row in rows for value in row], (2 * degree + 1, len(angles))).T


def equispaced(count: int) -> list[Ball]:
    """Return 2πj/count."""
    return [arb.pi() * (2 * j) / count for j in range(count)]


def trigonometric_coefficients(count: int, degree: int) -> arb_mat:
    """Return the matrix from values at `count` equispaced angles (> 2 degree) to trigonometric coefficients."""
    rows = basis("trig", degree, equispaced(count)).T
    weights = np.array([arb(1 if k == 0 else 2) / count for k in range(2 * degree + 1)], dtype=object)
    return matrix_of(rows * weights[:, None])


def largest(balls: Tensor) -> float:
    """Return a float that is >= all balls; inf if one is not finite."""
    tops = [float(b.upper()) if b.is_finite() else math.inf for b in balls.ravel()]
    # the conversion to float is off by less than one unit in the last place
    return math.nextafter(math.nextafter(max(tops), math.inf), math.inf)


def two_sided(function: Angular, oversampling: int = 3) -> Range:
    """Return the range of F by Ehlich and Zeller; the interval is wider than the range by a factor below 2 in 2D."""
    values, factor = function.coefficients, arb(1)
    for axis, kind in enumerate(function.kinds):
        m = max(function.degree(axis), 1)
        matrix, share = _samples(kind, function.degree(axis), oversampling * m, ctx.prec)
        values, factor = contract(matrix, values, axis), factor / share
    high, low = largest(values), -largest(-values)
    if not (math.isfinite(high) and math.isfinite(low)):
        return Range(-math.inf, math.inf)
    center = 0.5 * (high + low)
    reach = factor * (arb(high) - arb(center)).max(arb(center) - arb(low))
    return Range(below(arb(center) - reach), above(arb(center) + reach))


@lru_cache(maxsize=12)
def _samples(kind: Kind, degree: int, count: int, bits: int) -> tuple[arb_mat, Ball]:
    """Return the matrix to values at points of spacing π/count and cos(πm/(2 count))."""
    angles = chebyshev_angles(count) if kind == "cos" else equispaced(2 * count)
    return matrix_of(basis(kind, degree, angles)), (arb.pi() * degree / (2 * count)).cos()


def local_polynomials(function: Angular) -> Cells:
    """Return the first cells: of equal angles, with m h about `REACH`."""
    counts, d = _counts(function), function.coefficients.ndim
    nodes = NODES[d - 1]
    values, away = floats_of(function.coefficients)
    total = above(abs(function.coefficients).sum())
    remainder, growth, norms, exact, sizes = arb(away) + arb(UNDERFLOW), arb(1), 1.0, arb(1), 0
    for axis, kind in enumerate(function.kinds):
        m, (first, last), count = function.degree(axis), function.spans[axis], counts[axis]
        half = arb.pi() * (arb(last) - arb(first)) / (2 * count)
        matrix, norm, lost = _local(kind, m, first, last, count, nodes, ctx.prec)
        sizes, norms, exact = sizes + matrix.shape[1] + 4, norms * norm, exact * (arb(norm) + arb(lost))
        values = np.moveaxis(np.tensordot(matrix, values, axes=(1, axis)), 0, axis)
        remainder += growth * total * (m * half) ** nodes / (arb(2) ** (nodes - 1) * arb(math.factorial(nodes)))
        growth = growth * (2 / arb.pi() * arb(nodes + 1).log() + 1)  # the Lebesgue constant
    # rounding of the products: see `fpsolve.theory.certified.cells`; the matrices are rounded to floats as well
    remainder += arb(total) * arb(norms) * (2 * sizes * UNIT)
    remainder += arb(total) * (exact - arb(norms) * (1 - 8 * UNIT))  # the radii of the matrices' entries
    values = values.reshape([n for count in counts for n in (count, nodes)])
    values = values.transpose([2 * i for i in range(d)] + [2 * i + 1 for i in range(d)])
    values = np.ascontiguousarray(values.reshape(-1, *([nodes] * d)))
    return Cells(values, np.full(len(values), above(remainder)))


def _counts(function: Angular) -> list[int]:
    """Return the number of first cells along each angle."""
    reach = REACH[function.coefficients.ndim - 1]
    lengths = [math.pi * (last - first) for first, last in function.spans]
    return [max(1, math.ceil(function.degree(k) * length / (2 * reach))) for k, length in enumerate(lengths)]


@lru_cache(maxsize=12)
def _local(
    kind: Kind, degree: int, first: float, last: float, count: int, size: int, bits: int
) -> tuple[np.ndarray, float, float]:
    """Return the matrix (count·K × n) from coefficients to K = `size` local Chebyshev coefficients on the cells.

    Besides the largest sum of absolute local coefficients of one basis function on one cell, and of their radii.
    """
    half = arb.pi() * (arb(last) - arb(first)) / (2 * count)
    nodes = [angle.cos() for angle in chebyshev_angles(size)]
    angles = [arb.pi() * first + half * (2 * c + 1 + s) for c in range(count) for s in nodes]
    values = basis(kind, degree, angles)
    local = contract(to_coefficients(size), values.reshape(count, size, -1), 1)
    matrix = np.array([float(b.mid()) for b in local.ravel()]).reshape(local.shape)
    norm = float(np.abs(matrix).sum(axis=1).max()) * (1 + 1e-9)
    lost = size * max(float(b.rad()) for b in local.ravel()) * (1 + 1e-9)
    return matrix.reshape(count * size, -1), norm, lost


def least(function: Angular, tolerance: float, enough: float, hopeless: float, deadline: float) -> tuple[float, float]:
    """Return a proved lower bound of F and the smallest value seen.

    Parameters
    ----------
    tolerance : float
        The search ends when the bound is that close to the smallest value seen,
    enough : float
        or when it is at least this,
    hopeless : float
        or when a value below this is seen,
    deadline : float
        or at this moment of `time.monotonic`.
    """
    d = function.coefficients.ndim
    if math.prod(_counts(function)) * NODES[d - 1] ** d > MOST:
        found = two_sided(function)
        return found.lower, found.lower
    cells = local_polynomials(function)
    if not np.all(np.isfinite(cells.error)):
        return -math.inf, math.inf  # halving does not help
    waiting: list[Cells] = []  # not good enough; to be halved
    size = max(1, PART // (2 * NODES[d - 1]) ** d)  # what fits into memory
    bound, seen, done = math.inf, math.inf, 0
    while True:
        bounds = cells.bounds()
        seen = min(seen, cells.smallest())
        bad = ~(bounds >= min(seen - tolerance, enough))
        bound = min(bound, float(bounds[~bad].min(initial=math.inf)))
        order = np.flatnonzero(bad)[np.argsort(-bounds[bad])]  # the worst cells come last and are taken first
        waiting += [cells.chosen(order[k : k + size]) for k in range(0, len(order), size)]
        done += len(bounds)
        if not waiting:
            return bound, seen
        if done > CELLS or not seen >= hopeless or time.monotonic() > deadline:
            return min(bound, *(float(rest.bounds().min()) for rest in waiting)), seen
        cells = waiting.pop().halved().trimmed(0.01 * tolerance)
