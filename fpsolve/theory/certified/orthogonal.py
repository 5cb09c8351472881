"""Polynomials orthogonal on a set of points (Vandermonde with Arnoldi), of any dimension, and their Chebyshev form.

On a ball the Chebyshev products of its bounding box are nearly dependent: their condition number grows like
``(1+√2)^n``. Polynomials made orthogonal degree by degree do not have this defect. Each new one is a coordinate times
an older one, made orthogonal to those of the last degrees; lower ones are orthogonal already, as for the three-term
recurrence in one variable. The recurrence's floats define the polynomials exactly, so that their Chebyshev coefficients
follow in Arb to any accuracy.

Source: Brubeck, Nakatsukasa & Trefethen, *Vandermonde with Arnoldi*, SIAM Review 63 (2021).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import flint
import numpy as np

Consumer = Callable[[slice, np.ndarray, np.ndarray, np.ndarray], None]


@dataclass(frozen=True)
class Block:
    """The polynomials of one degree.

    Attributes
    ----------
    start, stop : int
        Their numbers.
    parents, axes : int arrays
        Polynomial i comes from ``ξ_axis · q_parent``; ξ is z or z².
    first : int
        They are made orthogonal to the polynomials first ... start-1.
    mix : ndarray, shape (start - first, stop - start)
    triangle : ndarray, shape (stop - start, stop - start)
        ``q_new triangle = ξ q_parent - q_old mix``.
    """

    start: int
    stop: int
    parents: np.ndarray
    axes: np.ndarray
    first: int
    mix: np.ndarray
    triangle: np.ndarray


@dataclass(frozen=True)
class Recurrence:
    """Orthogonal polynomials in coordinates z of [-1, 1]^d.

    Attributes
    ----------
    even : tuple of bool
        Axes in which all polynomials are even.
    degree : int
        Highest total degree.
    constant : float
        The first polynomial.
    blocks : tuple of Block
    """

    even: tuple[bool, ...]
    degree: int
    constant: float
    blocks: tuple[Block, ...]

    @property
    def size(self) -> int:
        """The number of polynomials."""
        return self.blocks[-1].stop if self.blocks else 1

    def chebyshev(self, c: np.ndarray, precision: int) -> np.ndarray:
        """Return the Chebyshev coefficients of ``Σ c_i q_i`` as flint.arb, an object array of shape (degree+1,)*d."""
        before = flint.ctx.prec
        flint.ctx.prec = precision
        try:
            return self._chebyshev(c)
        finally:
            flint.ctx.prec = before

    def _chebyshev(self, c: np.ndarray) -> np.ndarray:
        # only the coefficients that can differ from zero are kept, along the even axes every second one
        steps = [2 if e else 1 for e in self.even]
        index = [a for a in itertools.product(*(range(0, self.degree + 1, s) for s in steps)) if sum(a) <= self.degree]
        place = {a: i for i, a in enumerate(index)}
        shifts = [_Shift.of(index, place, k, s) for k, s in enumerate(steps)]
        one = np.full((len(index), 1), flint.arb(0), dtype=object)
        one[place[(0,) * len(steps)], 0] = flint.arb(self.constant)
        window: np.ndarray = one
        total: np.ndarray = one[:, 0] * flint.arb(float(c[0]))
        base = 0  # the number of the window's first polynomial
        for block in self.blocks:
            new = np.empty((len(index), block.stop - block.start), dtype=object)
            for axis in np.unique(block.axes):
                columns = np.flatnonzero(block.axes == axis)
                new[:, columns] = shifts[axis].apply(window[:, block.parents[columns] - base])
            window, base = window[:, block.first - base :], block.first
            inverse = _matrix(block.triangle).inv()
            mixed = _matrix(window) * _matrix(block.mix)
            q = ((flint.arb_mat(new.tolist()) - mixed) * inverse).mid()
            part = q * _matrix(c[block.start : block.stop, None])
            total = total + np.array(part.entries(), dtype=object)
            window = np.hstack([window, np.array(q.entries(), dtype=object).reshape(new.shape)])
        result = np.full((self.degree + 1,) * len(steps), flint.arb(0), dtype=object)
        for a, value in zip(index, total, strict=True):
            result[a] = value.mid()
        return result


@dataclass(frozen=True)
class _Shift:
    """Multiplication of Chebyshev coefficients by z or z² along one axis: a gather with two or three terms."""

    sources: tuple[np.ndarray, ...]
    weights: tuple[float, ...]
    extra: np.ndarray  # rows whose target is reached by reflection at index 0
    targets: np.ndarray

    @classmethod
    def of(cls, index: list[tuple[int, ...]], place: dict[tuple[int, ...], int], axis: int, step: int) -> _Shift:
        # z^s T_j with s = step: (T_{j+1} + T_{|j-1|})/2, or (T_{j+2} + 2 T_j + T_{|j-2|})/4
        last = len(index)  # a zero row
        sources = []
        for move in (-step, step):
            moved = [(*a[:axis], a[axis] + move, *a[axis + 1 :]) for a in index]
            sources.append(np.array([place.get(a, last) for a in moved]))
        # T_0 goes to T_step twice (once reflected)
        targets = np.array([i for i, a in enumerate(index) if a[axis] == step], dtype=int)
        extra = np.array([place[(*a[:axis], 0, *a[axis + 1 :])] for a in index if a[axis] == step], dtype=int)
        weights: tuple[float, ...] = (0.5, 0.5)
        if step == 2:
            sources.append(np.arange(last))
            weights = (0.25, 0.25, 0.5)
        return cls(tuple(sources), weights, extra, targets)

    def apply(self, columns: np.ndarray) -> np.ndarray:
        padded = np.vstack([columns, np.full((1, columns.shape[1]), flint.arb(0), dtype=object)])
        result = padded[self.sources[0]] * self.weights[0]
        for source, weight in zip(self.sources[1:], self.weights[1:], strict=True):
            result = result + padded[source] * weight
        if len(self.targets):
            result[self.targets] = result[self.targets] + padded[self.extra] * self.weights[0]
        return result


def triangle_of(matrix: np.ndarray) -> np.ndarray:
    """Return the upper triangular factor R of matrix = Q R."""
    result: np.ndarray = np.asarray(np.linalg.qr(matrix, mode="r"))
    return result


def _matrix(values: np.ndarray) -> flint.arb_mat:
    return flint.arb_mat(values.tolist())


def orthogonal(
    z: np.ndarray, counted: np.ndarray, even: tuple[bool, ...], degree: int, consume: Consumer
) -> Recurrence:
    """Make polynomials of total degree up to `degree`, orthogonal on points, and hand over their derivatives.

    Parameters
    ----------
    z : ndarray, shape (n, d)
        Points of [-1, 1]^d.
    counted : bool ndarray, shape (n,)
        The points that make the scalar product; the polynomials are evaluated at the others too.
    even : d bools
        Axes in which the polynomials are even.
    degree : int
    consume : callable
        Gets for each block its numbers (a slice), values (n, k), gradients (d, n, k) and second derivatives
        (d(d+1)/2, n, k; pairs i <= j in row order), which are not kept.

    Returns
    -------
    Recurrence
    """
    d = z.shape[1]
    steps = np.array([2 if e else 1 for e in even])
    window = _first(z, counted)
    constant = float(window.values[0, 0])
    consume(slice(0, 1), window.values, window.gradients, window.seconds)
    place = {(0,) * d: 0}
    starts = {0: 0}
    blocks: list[Block] = []
    base, size = 0, 1
    for s in range(1, degree + 1):
        parents, axes, exponents = _parents(s, steps, place)
        if not exponents:
            continue
        starts[s] = size
        new = window.multiplied(z, parents - base, axes, steps)
        lowest = s - 2 * int(steps.max())
        first = min((v for k, v in starts.items() if k >= lowest), default=0)
        old = window.columns(first - base)
        new, mix, triangle = _orthogonalised(new, old, counted)
        for i, a in enumerate(exponents):
            place[a] = size + i
        stop = size + len(exponents)
        blocks.append(Block(size, stop, parents, axes, first, mix, triangle))
        consume(slice(size, stop), new.values, new.gradients, new.seconds)
        window, base, size = old.joined(new), first, stop
    return Recurrence(even, degree, constant, tuple(blocks))


@dataclass(frozen=True)
class _Fields:
    """Values and derivatives of some polynomials at all points."""

    values: np.ndarray
    gradients: np.ndarray
    seconds: np.ndarray

    def columns(self, start: int) -> _Fields:
        return _Fields(self.values[:, start:], self.gradients[:, :, start:], self.seconds[:, :, start:])

    def joined(self, other: _Fields) -> _Fields:
        return _Fields(
            np.concatenate([self.values, other.values], axis=-1),
            np.concatenate([self.gradients, other.gradients], axis=-1),
            np.concatenate([self.seconds, other.seconds], axis=-1),
        )

    def multiplied(self, z: np.ndarray, columns: np.ndarray, axes: np.ndarray, steps: np.ndarray) -> _Fields:
        """Return the fields of ``ξ_axis q`` for the given columns."""
        d = z.shape[1]
        q, g, h = self.values[:, columns], self.gradients[:, :, columns], self.seconds[:, :, columns]
        xi = (z**steps)[:, axes]
        slope = np.where(steps == 2, 2 * z, 1.0)[:, axes]
        bend = np.where(steps == 2, 2.0, 0.0)[axes]
        values, gradients, seconds = xi * q, xi * g, xi * h
        for axis in range(d):
            mine = axes == axis
            if not mine.any():
                continue
            gradients[axis][:, mine] += slope[:, mine] * q[:, mine]
            for k, (i, j) in enumerate(itertools.combinations_with_replacement(range(d), 2)):
                if i == axis:
                    seconds[k][:, mine] += slope[:, mine] * g[j][:, mine]
                if j == axis:
                    seconds[k][:, mine] += slope[:, mine] * g[i][:, mine]
                if i == j == axis:
                    seconds[k][:, mine] += bend[mine] * q[:, mine]
        return _Fields(values, gradients, seconds)


def _first(z: np.ndarray, counted: np.ndarray) -> _Fields:
    n, d = z.shape
    value = 1 / np.sqrt(np.count_nonzero(counted))
    return _Fields(np.full((n, 1), value), np.zeros((d, n, 1)), np.zeros((d * (d + 1) // 2, n, 1)))


def _parents(
    degree: int, steps: np.ndarray, place: dict[tuple[int, ...], int]
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, ...]]]:
    """Return, for every monomial of the degree, the number of the polynomial it comes from and the axis."""
    ranges = [range(degree // int(s) + 1) for s in steps]
    exponents = [a for a in itertools.product(*ranges) if int(np.dot(a, steps)) == degree]
    parents, axes = [], []
    for a in exponents:
        axis = max(range(len(a)), key=lambda k: a[k])  # the largest exponent: the new one is least like the others
        parents.append(place[(*a[:axis], a[axis] - 1, *a[axis + 1 :])])
        axes.append(axis)
    return np.array(parents, dtype=int), np.array(axes, dtype=int), exponents


def _orthogonalised(new: _Fields, old: _Fields, counted: np.ndarray) -> tuple[_Fields, np.ndarray, np.ndarray]:
    basis, c = old.values[counted], new.values[counted]
    mix = np.zeros((basis.shape[1], c.shape[1]))
    for _ in range(2):
        part = basis.T @ c
        c = c - basis @ part
        mix += part
    triangle = triangle_of(c)
    inverse = np.linalg.inv(triangle)
    fields = [(x - y @ mix) @ inverse for x, y in zip(_list(new), _list(old), strict=True)]
    d = new.gradients.shape[0]
    return _Fields(fields[0], np.array(fields[1 : d + 1]), np.array(fields[d + 1 :])), mix, triangle


def _list(fields: _Fields) -> list[np.ndarray]:
    return [fields.values, *fields.gradients, *fields.seconds]
