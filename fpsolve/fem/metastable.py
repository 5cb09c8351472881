"""The slow modes of a metastable process from a k × k rate matrix without cancellation.

Let Y span the k slow left eigenvectors, ``BᵀY = M Y Λ``. For any functions χ₁..χ_k with sum 1,
``(Bχ)ᵀY = (χᵀMY) Λ`` exactly. With χ equal to 1 in one well and 0 in the others, Bχ vanishes except where χ
passes from 1 to 0; there Y is small, but known to high relative accuracy. ``Bχ`` is computed from differences,
``(Bχ)ᵢ = Σⱼ Bᵢⱼ(χⱼ - χᵢ)`` since B 1 = 0, so it is exactly 0 where χ is constant: rates far below the rounding
of B come out right, as in the flux renormalisation of long exit times.

χ are the memberships of the slow right eigenvectors (PCCA+: Deuflhard and Weber 2005; vertices by the inner
simplex algorithm), sharpened so that they are constant in the wells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpi4py import MPI
from petsc4py import PETSc

import numpy as np

if TYPE_CHECKING:
    from fpsolve.fem.spectrum import Pencil

#: Memberships below this part of the largest one become 0; the second choice checks the first.
SHARPEN = (0.5, 0.2)


@dataclass(frozen=True)
class SlowModes:
    """The k slowest modes; k = 1 is the invariant density alone.

    Attributes
    ----------
    values : ndarray of complex, shape (k,)
        values[0] = 0.
    errors : ndarray, shape (k,)
        Change of the values by another choice of χ: the error of the linear algebra.
    right, left : ndarray of complex, shape (local, k)
    rates : ndarray, shape (k, k)
        ``c' = -rates c`` for the masses c of the wells; columns sum to zero.
    densities : ndarray, shape (local, k)
        The wells' own densities, ``∫χᵢ densityⱼ = δᵢⱼ``; slow densities are their combinations.
    start : ndarray, shape (k,)
        The masses ∫χᵢ/|Ω| that a uniform start puts into the wells.
    """

    values: np.ndarray
    errors: np.ndarray
    right: np.ndarray
    left: np.ndarray
    rates: np.ndarray
    densities: np.ndarray
    start: np.ndarray

    def invariant(self, count: int) -> np.ndarray:
        """Return the density that the uniform start tends to if `count` eigenvalues are 0, shape (local,)."""
        return self.densities @ limit_masses(self.rates, self.start, min(count, len(self.start)))


def slow_modes(pencil: Pencil, right: np.ndarray, left: np.ndarray, mass: np.ndarray) -> SlowModes:
    """Return the slow modes from real bases of their subspaces. Collective.

    Parameters
    ----------
    right, left : ndarray, shape (local, k)
        X, with constant first column, and Y.
    mass : ndarray, shape (local,)
        m_i = ∫φ_i.
    """
    comm = pencil.comm
    if right.shape[1] == 1:
        return _only_one(comm, left, mass)
    memberships = _memberships(comm, right)
    difference = Differences(pencil.matrix)
    answers = []
    for threshold in SHARPEN:
        chi = _sharpened(memberships, threshold)
        slope = difference(chi)
        normalise = np.linalg.inv(pencil.product(pencil.apply(pencil.mass, chi), left))
        rates = pencil.product(slope, left) @ normalise
        rates -= np.diag(rates.sum(axis=0))  # exactly conservative
        answers.append((rates, normalise, pencil.product(mass[:, None], chi)[0]))
    rates, normalise, start = answers[0]
    values, vectors = _sorted_eig(rates)
    control, _ = _sorted_eig(answers[1][0])
    densities = left @ normalise
    vectors[:, 0] = stationary_masses(rates)
    slow_left = densities @ vectors
    slow_left[:, 0] /= comm.allreduce(mass @ slow_left[:, 0])
    mixing = np.linalg.inv(pencil.product(slow_left, pencil.apply(pencil.mass, right)))
    slow_right = right @ mixing
    slow_right[:, 0] = 1.0
    return SlowModes(
        values, np.abs(values - control), slow_right, slow_left, rates, densities, start / start.sum()
    )  # fmt: skip


def _only_one(comm: MPI.Comm, left: np.ndarray, mass: np.ndarray) -> SlowModes:
    """Return the invariant density alone. Collective."""
    density = left / comm.allreduce(mass @ left)
    one = np.ones((len(left), 1), dtype=complex)
    zero = np.zeros(1)
    return SlowModes(zero.astype(complex), zero, one, density.astype(complex), np.zeros((1, 1)), density, np.ones(1))


def _sorted_eig(rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues by real part, the one at 0 first and set to 0, and vectors."""
    values, vectors = np.linalg.eig(rates)
    zero = int(np.argmin(np.abs(values)))
    rest = np.delete(np.arange(len(values)), zero)
    order = np.concatenate([[zero], rest[np.lexsort((-values[rest].imag, values[rest].real))]])
    values, vectors = values[order].astype(complex), vectors[:, order].astype(complex)
    values[0] = 0.0
    if len(values) == 2:  # without the rounding of eig
        values[1] = rates[0, 0] + rates[1, 1]
    return values, vectors


def stationary_masses(rates: np.ndarray) -> np.ndarray:
    """Return c with ``rates c = 0``, sum 1, to high relative accuracy where rates have the right signs.

    Elimination without subtractions (Grassmann, Taksar and Heyman 1985).
    """
    k = len(rates)
    flow = -rates.T.copy()  # flow[i, j]: from i to j
    np.fill_diagonal(flow, 0.0)
    leaving = np.ones(k)
    for n in range(k - 1, 0, -1):
        leaving[n] = flow[n, :n].sum()
        if (flow < 0).any() or leaving[n] <= 0:  # rates lost in rounding, or a closed well
            return _projected(rates, np.full(k, 1.0 / k), 1)
        flow[:n, :n] += np.outer(flow[:n, n], flow[n, :n]) / leaving[n]
    c = np.ones(k)
    for n in range(1, k):
        c[n] = c[:n] @ flow[:n, n] / leaving[n]
    return c / c.sum()


def limit_masses(rates: np.ndarray, start: np.ndarray, count: int) -> np.ndarray:
    """Return the limit of ``c' = -rates c`` from `start`, the `count` smallest eigenvalues taken as 0."""
    return stationary_masses(rates) if count == 1 else _projected(rates, start, count)


def _projected(rates: np.ndarray, start: np.ndarray, count: int) -> np.ndarray:
    """Apply the spectral projector onto the `count` smallest eigenvalues."""
    if count >= len(start):
        return start
    values, vectors = np.linalg.eig(rates)
    keep = np.argsort(np.abs(values))[:count]
    c = (vectors[:, keep] @ np.linalg.inv(vectors)[keep] @ start).real
    return np.asarray(c / c.sum())


def _memberships(comm: MPI.Comm, right: np.ndarray) -> np.ndarray:
    """Return memberships (local, k) with row sums 1: barycentric coordinates of the rows of X. Collective."""
    k = right.shape[1]
    scale = np.max(comm.allgather(np.abs(right).max(axis=0, initial=0.0)), axis=0)
    rows = right / scale
    corners = [_farthest(comm, np.linalg.norm(rows[:, 1:], axis=1), rows)]
    rest = rows - corners[0]
    for _ in range(1, k):
        corner = _farthest(comm, np.linalg.norm(rest, axis=1), rows)
        direction = _farthest(comm, np.linalg.norm(rest, axis=1), rest)
        direction = direction / np.linalg.norm(direction)
        corners.append(corner)
        rest = rest - np.outer(rest @ direction, direction)
    return np.asarray(rows @ np.linalg.inv(np.array(corners)))


def _farthest(comm: MPI.Comm, size: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the row with the largest size over all ranks. Collective."""
    best = (-1.0, rows[0] if len(rows) else None)
    if len(size):
        index = int(np.argmax(size))
        best = (float(size[index]), rows[index])
    every = comm.allgather(best)
    return np.asarray(every[int(np.argmax([value for value, _ in every]))][1])


def _sharpened(memberships: np.ndarray, threshold: float) -> np.ndarray:
    """Return memberships that are exactly 0 or 1 where they nearly were."""
    if not len(memberships):
        return memberships
    clear = np.maximum(memberships - threshold * memberships.max(axis=1, keepdims=True), 0.0)
    return np.asarray(clear / clear.sum(axis=1, keepdims=True))


class Differences:
    """``Σⱼ Bᵢⱼ(vⱼ - vᵢ)`` for this rank's rows: Bv without the rounding of B 1 = 0. Collective."""

    def __init__(self, matrix: PETSc.Mat) -> None:
        self.matrix = matrix
        offsets, columns, self._entries = matrix.getValuesCSR()
        self._rows = len(offsets) - 1
        self._row = np.repeat(np.arange(self._rows), np.diff(offsets))
        used = np.zeros(matrix.getSize()[1], dtype=bool)
        used[columns] = True
        self._needed = np.flatnonzero(used).astype(PETSc.IntType)
        position = np.empty(len(used), dtype=PETSc.IntType)
        position[self._needed] = np.arange(len(self._needed))
        self._column = position[columns]

    def __call__(self, columns: np.ndarray) -> np.ndarray:
        """Return the differences of real or complex columns (local, k). Collective."""
        if np.iscomplexobj(columns):
            return np.asarray(self(columns.real) + 1j * self(columns.imag))
        result = np.empty_like(columns)
        for k, values in enumerate(columns.T):
            change = self._everywhere(values)[self._column] - values[self._row]
            result[:, k] = np.bincount(self._row, weights=self._entries * change, minlength=self._rows)
        return result

    def _everywhere(self, values: np.ndarray) -> np.ndarray:
        """Return the entries that this rank's rows name, wherever they live."""
        whole = self.matrix.createVecRight()
        whole.setArray(values)
        where = PETSc.IS().createGeneral(self._needed, comm=PETSc.COMM_SELF)
        there = PETSc.Vec().createSeq(len(self._needed))
        scatter = PETSc.Scatter().create(whole, where, there, None)
        scatter.scatter(whole, there)
        result = there.getArray().copy()
        for thing in (whole, where, there, scatter):
            thing.destroy()
        return np.asarray(result)
