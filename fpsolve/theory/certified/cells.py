"""Polynomials on many cells in floating point with bounds of all rounding, so that minima are proved fast.

On each cell F is a Chebyshev series in local variables plus something of at most `error`. The first coefficients come
from Arb; cutting cells in two is a product with a fixed matrix in floating point, whose rounding is added to `error`
by the standard bound ``|fl(Hc) - Hc| <= γ_n |H||c|``, ``γ_n = n u/(1 - n u)``, which holds for every order of summation
(Higham, Accuracy and Stability of Numerical Algorithms, section 3.5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from flint import arb

from fpsolve.theory.balls import above

UNIT = 2.0**-53
UNDERFLOW = 2.0**-1000  # far above the sum of what products below 2^-1022 lose
SAMPLES = 9  # points along each axis of a cell, to know how good the bound may become


@dataclass(frozen=True)
class Cells:
    """Local series on cells.

    Attributes
    ----------
    coefficients : ndarray, shape (cells, K, ..., K)
    error : ndarray, shape (cells,)
        A bound of ``|F - series|`` on each cell.
    """

    coefficients: np.ndarray
    error: np.ndarray

    def sizes(self) -> np.ndarray:
        """Return upper bounds of the sums of the absolute coefficients, shape (cells,)."""
        flat = np.abs(self.coefficients.reshape(len(self.error), -1))
        return np.asarray(flat.sum(axis=1) * (1 + (flat.shape[1] + 4) * UNIT))

    def bounds(self) -> np.ndarray:
        """Return a lower bound of F on each cell, shape (cells,); -inf where a number is not finite."""
        first = self.coefficients.reshape(len(self.error), -1)[:, 0]
        sizes = self.sizes()
        # c_0 - Σ' |c| - error; the four roundings are below eight units of the largest term
        lows = first - (sizes - np.abs(first)) - self.error - 8 * UNIT * (sizes + self.error)
        return np.where(np.isfinite(lows), lows, -math.inf)

    def smallest(self) -> float:
        """Return the smallest value seen; nothing is proved by it."""
        values = self.coefficients
        for axis in range(1, values.ndim):
            grid = np.polynomial.chebyshev.chebvander(np.linspace(-1, 1, SAMPLES), values.shape[axis] - 1)
            values = np.moveaxis(np.tensordot(grid, values, axes=(1, axis)), 0, axis)
        return float(values.min())

    def halved(self) -> Cells:
        """Return the cells cut in two along every axis."""
        values, error = self.coefficients, self.error
        for axis in range(1, values.ndim):
            size = values.shape[axis]
            matrix, norm = _halves(size)
            error = error + (size + 8) * UNIT * norm * Cells(values, error).sizes() + UNDERFLOW
            both = np.moveaxis(np.tensordot(matrix, values, axes=(1, axis)), 0, axis)
            both = both.reshape(*values.shape[:axis], 2, size, *values.shape[axis + 1 :])
            values = np.moveaxis(both, axis, 1).reshape(-1, *values.shape[1:])
            error = np.repeat(error, 2) * (1 + 4 * UNIT)
        return Cells(values, error)

    def trimmed(self, allowed: float) -> Cells:
        """Return shorter series: trailing coefficients with sums of at most `allowed` go into the errors."""
        values, error = self.coefficients, self.error
        for axis in range(1, values.ndim):
            others = tuple(k for k in range(1, values.ndim) if k != axis)
            sizes = np.abs(values).sum(axis=others) if others else np.abs(values)
            tails = np.cumsum(sizes[:, ::-1], axis=1)[:, ::-1]
            keep = max(2, int(np.count_nonzero(~(tails.max(axis=0) <= allowed))))
            if keep < values.shape[axis]:
                error = (error + tails[:, keep] * (1 + (values[0].size + 8) * UNIT)) * (1 + 4 * UNIT)
                values = np.take(values, range(keep), axis=axis)
        return Cells(values, error)

    def chosen(self, which: np.ndarray) -> Cells:
        """Return some of the cells."""
        return Cells(self.coefficients[which], self.error[which])


def floats_of(balls: Any) -> tuple[np.ndarray, float]:
    """Return the midpoints of balls as floats, and a bound of the sum of all distances to them."""
    values = np.array([float(b.mid()) for b in balls.ravel()])
    exact = np.empty(len(values), dtype=object)
    exact[:] = [arb(float(v)) for v in values]
    return values.reshape(balls.shape), above(abs(balls.ravel() - exact).sum())


@lru_cache(maxsize=64)
def _halves(size: int) -> tuple[np.ndarray, float]:
    """Return the matrix (2K × K) from series on [-1, 1] to those on [-1, 0] and [0, 1], and its largest column sum.

    The entries are dyadic rationals; T_{k+1}(y) = 2y T_k(y) - T_{k-1}(y) with y = (s ± 1)/2 gives them by additions.
    """
    blocks = []
    for shift in (-1.0, 1.0):
        columns = np.zeros((size, size))
        columns[0, 0] = 1.0
        if size > 1:
            columns[:, 1] = _times(columns[:, 0], shift) / 2
        for k in range(2, size):
            columns[:, k] = _times(columns[:, k - 1], shift) - columns[:, k - 2]
        blocks.append(columns)
    matrix = np.concatenate(blocks)
    return matrix, float(np.abs(matrix).sum(axis=0).max()) * (1 + 100 * UNIT)


def _times(series: np.ndarray, shift: float) -> np.ndarray:
    """Return the series of (s + shift) p(s): s T_0 = T_1, s T_k = (T_{k+1} + T_{k-1})/2."""
    result = shift * series
    result[1] += series[0]
    result[2:] += series[1:-1] / 2
    result[:-1] += series[1:] / 2
    return result
