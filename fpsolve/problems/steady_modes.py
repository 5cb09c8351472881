"""Eigenfunctions as they are shown: normalised, with a fixed sign, and a fixed basis where eigenvalues coincide."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations_with_replacement

from mpi4py import MPI

import numpy as np
from dolfinx import fem

from fpsolve.fem.cell_quadrature import CellQuadrature
from fpsolve.fem.generator import Generator
from fpsolve.fem.spectrum import Spectrum

#: Eigenvalues closer than this relative to the largest one, or than their errors, are one cluster.
CLUSTER = 1e-5
#: Moments of y up to this degree are looked at for a sign ...
MOMENTS = 5
#: ... and count as zero below this part of what they would be without cancellation.
VANISHING = 1e-3

Pair = tuple[fem.Function, fem.Function]


def eigenfunctions(
    generator: Generator, spectrum: Spectrum, density: np.ndarray, errors: np.ndarray, quadrature: CellQuadrature
) -> tuple[np.ndarray, tuple[Pair, ...], tuple[Pair, ...]]:
    """Return eigenvalues and pairs (real, imaginary part) of eigenfunctions of A and of A*. Collective.

    ``∫|x_j|²ρ = 1``, ``∫y_i x_j = δ_ij`` (no conjugation), and the first moment ``∫q y_j`` that does not vanish is
    positive, q = the coordinates, then their products. Within a cluster of eigenvalues each further function has one
    more vanishing moment. So pictures do not depend on the number of ranks.

    Parameters
    ----------
    density : ndarray, shape (cells, q)
        ρ at the quadrature points.
    errors : ndarray
        Of as many eigenvalues as are wanted.
    """
    count, comm = len(errors), generator.space.mesh.comm
    values = spectrum.values[:count].copy()
    right, left = spectrum.right.copy(), spectrum.left.copy()
    weights = np.maximum(density, 0.0)
    every = np.concatenate([errors, np.zeros(len(spectrum.values) - count)])
    for group in _clusters(spectrum.values, every):
        if group[0] == 0 or group[0] >= count:
            continue
        x, y = right[:, group], left[:, group]
        if np.abs(spectrum.values[group].imag).max() <= _closeness(spectrum.values, every)[group[0]]:
            x, y = _made_real(comm, x, y)
            inside = group[group < count]
            values[inside] = values[inside].real
        x, y = _orthonormal(generator, quadrature, weights, x, y)
        right[:, group], left[:, group] = _echelon(generator, quadrature, x, y)
    for j in range(1, count):
        phase = _phase(generator, quadrature, left[:, j])
        left[:, j], right[:, j] = left[:, j] / phase, right[:, j] * phase
    pairs = [_pair(generator, right[:, j], f"right {j}") for j in range(count)]
    duals = [_pair(generator, left[:, j], f"left {j}") for j in range(count)]
    return values, tuple(pairs), tuple(duals)


def _closeness(values: np.ndarray, errors: np.ndarray) -> np.ndarray:
    return np.maximum(np.minimum(CLUSTER * np.abs(values).max(), 0.1 * np.abs(values)), errors)


def _clusters(values: np.ndarray, errors: np.ndarray) -> list[np.ndarray]:
    """Return groups of indices whose values coincide."""
    close = _closeness(values, errors)
    linked = np.abs(values[:, None] - values[None, :]) <= close[:, None] + close[None, :]
    linked[0, 1:] = linked[1:, 0] = False
    label = np.arange(len(values))
    for j in range(len(values)):
        label[np.isin(label, label[linked[j]])] = label[linked[j]].min()
    return [np.flatnonzero(label == k) for k in np.unique(label)]


def _made_real(comm: MPI.Comm, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return real bases of the spaces of x and y, biorthogonal as those are. Collective."""
    k = x.shape[1]
    both = np.concatenate([x.real, x.imag], axis=1)
    gram = comm.allreduce(both.T @ both)
    _, vectors = np.linalg.eigh(gram)
    basis = both @ vectors[:, -k:]
    # basis = x T, hence the dual basis is y T^-T
    mixing = np.linalg.solve(comm.allreduce(x.conj().T @ x), comm.allreduce(x.conj().T @ basis))
    return basis.astype(complex), (y @ np.linalg.inv(mixing).T).real.astype(complex)


def _orthonormal(
    generator: Generator, quadrature: CellQuadrature, weights: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Make x orthonormal in L²(ρ), y dual to it. Collective."""
    columns = [_values(generator, quadrature, column) for column in x.T]
    gram = np.array([[complex(quadrature.integral(u.conj() * v * weights)) for v in columns] for u in columns])
    size, vectors = np.linalg.eigh(gram)
    if not size[0] > 1e-12 * max(size[-1], 1e-300):  # ρ does not see the functions: leave them
        return x, y
    factor = vectors / np.sqrt(size)
    return x @ factor, y @ np.linalg.inv(factor).T


def _echelon(
    generator: Generator, quadrature: CellQuadrature, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rotate a basis so that moments of y vanish one after the other. Collective."""
    k = x.shape[1]
    if k == 1:
        return x, y
    columns = [_values(generator, quadrature, column) for column in y.T]
    moments = np.array([[complex(quadrature.integral(q * v)) for v in columns] for q in _monomials(quadrature, 2)])
    size = np.abs(moments).max() or 1.0
    directions: list[np.ndarray] = []
    for row in moments:  # the direction in which this moment changes, less the earlier ones
        row = row.conj()
        for other in directions:
            row = row - other * (other.conj() @ row)
        if len(directions) < k and np.linalg.norm(row) > 1e-4 * size:
            directions.append(row / np.linalg.norm(row))
    q, _ = np.linalg.qr(np.column_stack([*directions, np.eye(k)]))
    for i, direction in enumerate(directions):
        q[:, i] = direction
    return x @ q.conj(), y @ q


def _values(generator: Generator, quadrature: CellQuadrature, column: np.ndarray) -> np.ndarray:
    real, imaginary = _pair(generator, column, "mode")
    return quadrature.values(real) + 1j * quadrature.values(imaginary)


def _phase(generator: Generator, quadrature: CellQuadrature, column: np.ndarray) -> complex:
    """Return the phase of the first moment that does not vanish, else 1. Collective."""
    values = _values(generator, quadrature, column)
    for q in _monomials(quadrature, MOMENTS):
        moment = complex(quadrature.integral(q * values))
        if abs(moment) > VANISHING * float(quadrature.integral(np.abs(q * values))):
            return moment / abs(moment)
    return 1.0 + 0.0j


def _monomials(quadrature: CellQuadrature, degree: int) -> Iterator[np.ndarray]:
    """Yield the products of coordinates of degree 1, 2, ... at the points."""
    for k in range(1, degree + 1):
        for axes in combinations_with_replacement(range(quadrature.points.shape[2]), k):
            yield np.prod(quadrature.points[..., axes], axis=2)


def _pair(generator: Generator, column: np.ndarray, name: str) -> Pair:
    vector = generator.matrix.createVecRight()
    result = []
    for part, array in (("real", column.real), ("imaginary", column.imag)):
        vector.setArray(array)
        result.append(generator.to_function(vector, f"{name} {part}"))
    vector.destroy()
    return result[0], result[1]
