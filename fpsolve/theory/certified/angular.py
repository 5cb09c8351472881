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
NODES = (20, 20, 10)
REACH = (2.0, 2.0, 1.0)
DEPTH = 12
MOST = 4_000_000  # local coefficients; beyond that the two-sided proof is used
CELLS = 60_000


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


@lru_cache(maxsize=64)
def _samples(kind: Kind, degree: int, count: int, bits: int) -> tuple[arb_mat, Ball]:
    """Return the matrix to values at points of spacing π/count and cos(πm/(2 count))."""
    angles = chebyshev_angles(count) if kind == "cos" else equispaced(2 * count)
    return matrix_of(basis(kind, degree, angles)), (arb.pi() * degree / (2 * count)).cos()


@dataclass(frozen=True, eq=False)
class Cells:
    """Local Chebyshev coefficients on cells, shape (cells, K, ..., K), and a bound of what they leave out."""

    coefficients: Tensor
    remainder: Ball

    def bounds(self) -> np.ndarray:
        """Return a lower bound on each cell, rounded down."""
        count = self.coefficients.shape[0]
        flat = self.coefficients.reshape(count, -1)
        lows = 2 * flat[:, 0] - flat[:, 0] - abs(flat[:, 1:]).sum(axis=1) - self.remainder
        return np.array([below(b) for b in lows])

    def samples(self) -> np.ndarray:
        """Return the smallest value seen on each cell; floating point."""
        values = self.coefficients.astype(float)
        size = values.shape[1]
        grid = np.polynomial.chebyshev.chebvander(np.linspace(-1, 1, 9), size - 1)
        for axis in range(1, values.ndim):
            values = np.moveaxis(np.tensordot(grid, values, axes=(1, axis)), 0, axis)
        return values.reshape(len(values), -1).min(axis=1)

    def halved(self) -> Cells:
        """Return the cells cut in two along every axis."""
        values = self.coefficients
        for axis in range(1, values.ndim):
            both = contract(_halves(values.shape[axis], ctx.prec), values, axis)
            both = both.reshape(*values.shape[:axis], 2, values.shape[axis], *values.shape[axis + 1 :])
            values = np.moveaxis(both, axis, 1)
            values = values.reshape(-1, *values.shape[2:])
        return Cells(values, self.remainder)

    def chosen(self, which: np.ndarray) -> Cells:
        """Return some of the cells."""
        return Cells(self.coefficients[which], self.remainder)


@lru_cache(maxsize=8)
def _halves(size: int, bits: int) -> arb_mat:
    """Return the matrix (2K × K) from Chebyshev coefficients on [-1, 1] to those on [-1, 0] and [0, 1]."""
    nodes = np.array([angle.cos() for angle in chebyshev_angles(size)], dtype=object)
    rows = []
    for shift in (-1, 1):
        s = (nodes + shift) / 2
        values = np.empty((size, size), dtype=object)
        values[:, 0], values[:, 1] = arb(1), s
        for k in range(2, size):
            values[:, k] = 2 * s * values[:, k - 1] - values[:, k - 2]
        rows.append(tensor((to_coefficients(size) * matrix_of(values)).entries(), (size, size)))
    return matrix_of(np.concatenate(rows))


def cells_of(function: Angular) -> Cells:
    """Return the first cells: of equal angles, with m h about `REACH`."""
    values = function.coefficients
    total = abs(values).sum()
    remainder, growth = arb(0), arb(1)
    counts, d = _counts(function), values.ndim
    nodes = NODES[d - 1]
    for axis, kind in enumerate(function.kinds):
        m, (first, last), count = function.degree(axis), function.spans[axis], counts[axis]
        half = arb.pi() * (arb(last) - arb(first)) / (2 * count)
        values = contract(_local(kind, m, first, last, count, nodes, ctx.prec), values, axis)
        remainder += growth * total * (m * half) ** nodes / (arb(2) ** (nodes - 1) * arb(math.factorial(nodes)))
        growth = growth * (2 / arb.pi() * arb(nodes + 1).log() + 1)  # the Lebesgue constant
    values = values.reshape([n for count in counts for n in (count, nodes)])
    values = values.transpose([2 * i for i in range(d)] + [2 * i + 1 for i in range(d)])
    return Cells(values.reshape(-1, *([nodes] * d)), remainder.upper())


def _counts(function: Angular) -> list[int]:
    """Return the number of first cells along each angle."""
    reach = REACH[function.coefficients.ndim - 1]
    lengths = [math.pi * (last - first) for first, last in function.spans]
    return [max(1, math.ceil(function.degree(k) * length / (2 * reach))) for k, length in enumerate(lengths)]


@lru_cache(maxsize=64)
def _local(kind: Kind, degree: int, first: float, last: float, count: int, size: int, bits: int) -> arb_mat:
    """Return the matrix (count·K × n) from coefficients to K = `size` local Chebyshev coefficients on the cells."""
    half = arb.pi() * (arb(last) - arb(first)) / (2 * count)
    nodes = [angle.cos() for angle in chebyshev_angles(size)]
    angles = [arb.pi() * first + half * (2 * c + 1 + s) for c in range(count) for s in nodes]
    values = basis(kind, degree, angles)
    local = contract(to_coefficients(size), values.reshape(count, size, -1), 1)
    return matrix_of(local.reshape(count * size, -1))


def least(function: Angular, tolerance: float, enough: float, deadline: float) -> tuple[float, float]:
    """Return a proved lower bound of F and the smallest value seen.

    Parameters
    ----------
    tolerance : float
        The search ends when the bound is that close to the smallest value seen,
    enough : float
        or when it is at least this,
    deadline : float
        or at this moment of `time.monotonic`.
    """
    d = function.coefficients.ndim
    if math.prod(_counts(function)) * NODES[d - 1] ** d > MOST:
        found = two_sided(function)
        return found.lower, found.lower
    cells = cells_of(function)
    bound, seen = math.inf, math.inf
    for _ in range(DEPTH):
        bounds = cells.bounds()
        seen = min(seen, float(cells.samples().min()))
        bad = ~(bounds >= min(seen - tolerance, enough))
        bound = min(bound, float(bounds[~bad].min(initial=math.inf)))
        if not bad.any():
            return bound, seen
        if time.monotonic() > deadline or np.count_nonzero(bad) * 2 ** (cells.coefficients.ndim - 1) > CELLS:
            return min(bound, float(bounds[bad].min())), seen
        cells = cells.chosen(bad).halved()
    return min(bound, float(cells.bounds().min())), seen
