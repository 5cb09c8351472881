"""Polynomials in products of Chebyshev polynomials on a box, with Arb balls as coefficients.

Tensors of balls are NumPy arrays of objects. Everything that grows with the degree is a product of Arb matrices, which
costs a few nanoseconds per multiplication; single balls in Python cost a hundred.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from flint import acb, arb, arb_mat, ctx

from fpsolve.theory.balls import Ball

Tensor = Any  # ndarray of dtype object, entries are flint.arb


def tensor(balls: Sequence[Ball], shape: tuple[int, ...]) -> Tensor:
    """Return the balls (row-major) as an array of that shape."""
    result = np.empty(len(balls), dtype=object)
    result[:] = balls
    return result.reshape(shape)


def contract(matrix: arb_mat, values: Tensor, axis: int) -> Tensor:
    """Multiply a tensor by a matrix (r × n) along an axis of length n."""
    moved = np.moveaxis(values, axis, 0)
    flat = arb_mat(moved.shape[0], int(np.prod(moved.shape[1:], dtype=int)), list(moved.ravel()))
    product = (matrix * flat).entries()
    return np.moveaxis(tensor(product, (matrix.nrows(), *moved.shape[1:])), 0, axis)


def powers(angles: Sequence[Ball], degree: int) -> Tensor:
    """Return e^{ikφ} for k = 0 … degree as complex balls, shape (len(angles), degree+1)."""
    first = np.empty(len(angles), dtype=object)
    first[:] = [acb(angle.cos(), angle.sin()) for angle in angles]
    rows = np.empty((len(angles), degree + 1), dtype=object)
    rows[:, 0] = acb(1)
    for k in range(1, degree + 1):
        # products of halves: radii grow like k^1.5, with one factor at a time like 2^(k/2)
        rows[:, k] = first if k == 1 else rows[:, k // 2] * rows[:, k - k // 2]
    return rows


def cosines(angles: Sequence[Ball], degree: int) -> Tensor:
    """Return cos(kφ) = T_k(cos φ) for k = 0 … degree, shape (len(angles), degree+1)."""
    return _real(powers(angles, degree))


def _real(values: Tensor) -> Tensor:
    return tensor([z.real for z in values.ravel()], values.shape)


def matrix_of(values: Tensor) -> arb_mat:
    """Return a tensor of two axes as a matrix."""
    return arb_mat(values.shape[0], values.shape[1], list(values.ravel()))


def chebyshev_angles(count: int) -> list[Ball]:
    """Return (2j+1)π/(2 count): the cosines are the zeros of T_count."""
    return [arb.pi() * (2 * j + 1) / (2 * count) for j in range(count)]


def to_values(count: int, size: int) -> arb_mat:
    """Return the matrix from `size` Chebyshev coefficients to values at the zeros of T_count."""
    return _to_values(count, size, ctx.prec)


@lru_cache(maxsize=12)
def _to_values(count: int, size: int, bits: int) -> arb_mat:
    return matrix_of(cosines(chebyshev_angles(count), size - 1))


def to_coefficients(count: int) -> arb_mat:
    """Return the matrix from values at the zeros of T_count to Chebyshev coefficients."""
    return _to_coefficients(count, ctx.prec)


@lru_cache(maxsize=12)
def _to_coefficients(count: int, bits: int) -> arb_mat:
    rows = cosines(chebyshev_angles(count), count - 1).T
    weights = np.array([arb(1 if k == 0 else 2) / count for k in range(count)], dtype=object)
    return matrix_of(rows * weights[:, None])


def chebyshev_vectors(points: Tensor, degree: int) -> Tensor:
    """Return T_0 … T_degree at numbers of [-1, 1], shape (len(points), degree+1).

    By ``T_{a+b} = 2 T_a T_b - T_{b-a}`` with a, b about half: radii grow like k², by the three-term recurrence they
    would like ``(1 + sqrt 2)^k``.
    """
    rows = np.empty((len(points), degree + 1), dtype=object)
    rows[:, 0] = arb(1)
    if degree > 0:
        rows[:, 1] = points
    for k in range(2, degree + 1):
        a, b = k // 2, k - k // 2
        rows[:, k] = 2 * rows[:, a] * rows[:, b] - rows[:, b - a]
    return rows


@dataclass(frozen=True, eq=False)
class Polynomial:
    """``p(x) = Σ c_k Π T_{k_i}(s_i)``, ``s_i = (2x_i - lower_i - upper_i) / (upper_i - lower_i)``.

    Attributes
    ----------
    lower, upper : tuple of float
        The box; floats are exact numbers.
    coefficients : ndarray of arb, shape (n_1+1, ..., n_d+1)
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    coefficients: Tensor

    @classmethod
    def of_floats(cls, lower: Sequence[float], upper: Sequence[float], parts: Sequence[np.ndarray]) -> Polynomial:
        """Return the polynomial whose coefficients are the exact sum of the arrays."""
        shape = np.shape(parts[0])
        total = tensor([arb(value) for value in np.ravel(parts[0]).tolist()], shape)
        for part in parts[1:]:
            total = total + tensor([arb(value) for value in np.ravel(part).tolist()], shape)
        return cls(tuple(map(float, lower)), tuple(map(float, upper)), total)

    @property
    def dimension(self) -> int:
        """The number of variables d."""
        return len(self.lower)

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of coefficients in each direction."""
        return tuple(self.coefficients.shape)

    def half(self, axis: int) -> Ball:
        """Return half the length of the box."""
        return (arb(self.upper[axis]) - arb(self.lower[axis])) / 2

    def reduced(self, x: Tensor, axis: int) -> Tensor:
        """Return s for coordinates x of that axis."""
        middle = (arb(self.upper[axis]) + arb(self.lower[axis])) / 2
        return (x - middle) / self.half(axis)

    def derivative(self, axis: int) -> Polynomial:
        """Return ∂p/∂x_axis."""
        size = self.shape[axis]
        if size == 1:
            return Polynomial(self.lower, self.upper, self.coefficients * arb(0))
        # T_n' = 2n Σ T_k over k = n-1, n-3, ..., with T_0 halved
        rows = [[0] * size for _ in range(size - 1)]
        for n in range(1, size):
            for k in range(n - 1, -1, -2):
                rows[k][n] = n if k == 0 else 2 * n
        values = contract(arb_mat(rows), self.coefficients, axis)
        return Polynomial(self.lower, self.upper, values / self.half(axis))

    def on_grid(self, sizes: Sequence[int]) -> Tensor:
        """Return the values at the tensor grid of Chebyshev zeros of those sizes."""
        values = self.coefficients
        for axis, count in enumerate(sizes):
            values = contract(to_values(count, self.shape[axis]), values, axis)
        return values

    def size(self) -> Ball:
        """Return a bound of |p| on the box: the sum of the absolute coefficients."""
        return abs(self.coefficients).sum()

    def at(self, x: Sequence[Tensor]) -> Tensor:
        """Return the values at scattered points, shape (n,).

        Parameters
        ----------
        x : d arrays of n balls
        """
        count = len(x[0])
        vectors = [chebyshev_vectors(self.reduced(x[i], i), self.shape[i] - 1) for i in range(self.dimension)]
        flat = self.coefficients.reshape(self.shape[0], -1)
        values = tensor((matrix_of(vectors[0]) * matrix_of(flat)).entries(), (count, *self.shape[1:]))
        for vector in vectors[1:]:
            values = (values * vector.reshape(vector.shape + (1,) * (values.ndim - 2))).sum(axis=1)
        return values

    def moved(self, lower: tuple[float, ...], upper: tuple[float, ...]) -> Polynomial:
        """Return the same polynomial in the variables of another box."""
        if (lower, upper) == (self.lower, self.upper):
            return self
        values = self.coefficients
        for axis, count in enumerate(self.shape):
            middle, half = (arb(upper[axis]) + arb(lower[axis])) / 2, (arb(upper[axis]) - arb(lower[axis])) / 2
            x = middle + half * tensor([angle.cos() for angle in chebyshev_angles(count)], (count,))
            vectors = matrix_of(chebyshev_vectors(self.reduced(x, axis), count - 1))
            values = contract(to_coefficients(count) * vectors, values, axis)
        return Polynomial(lower, upper, values)

    def face(self, axis: int, sign: int) -> Polynomial:
        """Return the polynomial on the face x_axis = upper (sign 1) or lower (-1), in the other variables."""
        row = arb_mat(1, self.shape[axis], [1 if sign > 0 or k % 2 == 0 else -1 for k in range(self.shape[axis])])
        values = np.take(contract(row, self.coefficients, axis), 0, axis=axis)
        others = [i for i in range(self.dimension) if i != axis]
        lower, upper = tuple(self.lower[i] for i in others), tuple(self.upper[i] for i in others)
        return Polynomial(lower, upper, values)


def exact_points(x: np.ndarray) -> list[Tensor]:
    """Return the coordinates of points (n, d) as d arrays of exact balls."""
    return [tensor([arb(value) for value in column.tolist()], (len(x),)) for column in np.asarray(x, dtype=float).T]


def from_grid(lower: Sequence[float], upper: Sequence[float], values: Tensor) -> Polynomial:
    """Return the polynomial with these values at the tensor grid of Chebyshev zeros."""
    for axis, count in enumerate(values.shape):
        values = contract(to_coefficients(count), values, axis)
    return Polynomial(tuple(lower), tuple(upper), values)
