"""Eigenvalues of -A next to 0 with eigenfunctions of A and A*: ``B x = λ M x`` and ``Bᵀ y = λ M y``.

Shift and invert: with ``K = B + σM``, σ > 0, the eigenvalues of ``K⁻¹M`` are ``1/(λ + σ)``. Left and right
vectors come from two Krylov-Schur iterations with the same factorisation of K. (SLEPc 3.22's two-sided
iteration fails in LAPACK for small σ, as measured.) What is found is a disc ``|λ + σ| <= r``: eigenvalues with
a smaller real part but an imaginary part beyond the disc are not seen.

Slow modes. A metastable process has k eigenvalues far below the others, and far below the rounding of B.
Their common invariant subspaces Y (densities) and X are well conditioned all the same, and inverse iteration
with a shift between the slow and the fast eigenvalues gives them to high relative accuracy even where they
are small. The eigenvalues within follow from a k × k matrix without cancellation (`fpsolve.fem.metastable`).
"""

from __future__ import annotations

from dataclasses import dataclass

from petsc4py import PETSc
from slepc4py import SLEPc

import numpy as np

from fpsolve.errors import NotConverged
from fpsolve.fem.linear import Solver
from fpsolve.fem.metastable import SlowModes, slow_modes

#: An eigenvalue and all below it are slow if the next one is larger by this factor.
SEPARATION = 100.0
#: Further eigenvalues computed besides those asked for, so that no cluster is cut.
SPARE = 4
#: Eigenvalues closer than this relative to their size are treated as one cluster.
CLUSTER = 1e-3
TOLERANCE = 1e-10
#: Dimension of the Krylov spaces: restarts of smaller ones cost more applications (measured).
KRYLOV = 42
MAX_ITERATIONS = 300
#: Inverse iterations for the slow subspaces; each reduces fast modes by σ/(λ + σ).
POLISH = 3


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues and biorthonormal eigenvectors; columns are distributed like the vectors of B.

    Attributes
    ----------
    values : ndarray of complex, shape (m,)
        By increasing real part, conjugate pairs together (positive imaginary part first).
    right, left : ndarray of complex, shape (local, m)
        ``yᵢᵀ M xⱼ = δᵢⱼ`` (bilinear, no conjugation); values[0] = 0, x₀ = 1, y₀ = the invariant density.
    residuals : ndarray, shape (m,)
        ``‖Bx - λMx‖₁ / (‖|B||x|‖₁ + |λ|‖M|x|‖₁)``.
    slow : SlowModes
    reach : float
        All eigenvalues with ``|λ + shift| < reach`` are among the values.
    shift : float
    iterations : int
        Operator applications of the eigenvalue solver.
    solver : str
    """

    values: np.ndarray
    right: np.ndarray
    left: np.ndarray
    residuals: np.ndarray
    slow: SlowModes
    reach: float
    shift: float
    iterations: int
    solver: str


class _Inverse:
    """The shell matrix K⁻¹M, or K⁻ᵀM."""

    def __init__(self, solver: Solver, mass: PETSc.Mat, transpose: bool) -> None:
        self.solver, self.mass, self.transpose = solver, mass, transpose
        self.applications = 0

    def mult(self, _: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """Apply. Collective."""
        product = x.duplicate()
        self.mass.mult(x, product)
        solution = self.solver.solve_transpose(product) if self.transpose else self.solver.solve(product)
        solution.copy(y)
        product.destroy()
        solution.destroy()
        self.applications += 1


class Pencil:
    """B and M with the factorisation of K = B + σM. Collective.

    Parameters
    ----------
    matrix, mass : PETSc.Mat
        B and M, with ``B 1 = 0`` up to rounding and nodal elements (the constant 1 has coefficients 1).
    dimension : int
        Of the domain.
    shift : float
        σ > 0.
    """

    def __init__(self, matrix: PETSc.Mat, mass: PETSc.Mat, dimension: int, shift: float) -> None:
        self.matrix, self.mass, self.shift = matrix, mass, shift
        self.comm = matrix.getComm().tompi4py()
        self._shifted = matrix.copy()
        self._shifted.axpy(shift, mass, structure=PETSc.Mat.Structure.DIFFERENT_NONZERO_PATTERN)
        self.solver = Solver(self._shifted, dimension)
        self._work = matrix.createVecRight()

    def inverse(self, columns: np.ndarray, transpose: bool) -> np.ndarray:
        """Return K⁻¹M (or K⁻ᵀM) times real columns (local, k). Collective."""
        operator = _Inverse(self.solver, self.mass, transpose)
        result = np.empty_like(columns)
        y = self._work.duplicate()
        for k in range(columns.shape[1]):
            self._work.setArray(columns[:, k])
            operator.mult(self.matrix, self._work, y)
            result[:, k] = y.getArray(readonly=True)
        y.destroy()
        return result

    def apply(self, matrix: PETSc.Mat, columns: np.ndarray, transpose: bool = False) -> np.ndarray:
        """Return the matrix (or its transpose) times real or complex columns (local, k). Collective."""
        if np.iscomplexobj(columns):
            real, imaginary = np.ascontiguousarray(columns.real), np.ascontiguousarray(columns.imag)
            return self.apply(matrix, real, transpose) + 1j * self.apply(matrix, imaginary, transpose)
        result = np.empty_like(columns)
        y = self._work.duplicate()
        for k in range(columns.shape[1]):
            self._work.setArray(columns[:, k])
            matrix.multTranspose(self._work, y) if transpose else matrix.mult(self._work, y)
            result[:, k] = y.getArray(readonly=True)
        y.destroy()
        return result

    def product(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Return leftᵀ right over all ranks, the same on every rank. Collective."""
        return np.asarray(self.comm.allreduce(left.T @ right))

    def eigenvectors(self, count: int, start: np.ndarray, transpose: bool) -> tuple[np.ndarray, np.ndarray, int]:
        """Return at least `count` eigenvalues next to -σ by increasing distance, vectors, and the applications.

        Collective. Raises NotConverged.
        """
        operator = _Inverse(self.solver, self.mass, transpose)
        shell = PETSc.Mat().createPython(self.matrix.getSizes(), operator, comm=self.matrix.getComm())
        shell.setUp()
        eps = SLEPc.EPS().create(self.matrix.getComm())
        eps.setOperators(shell)
        eps.setProblemType(SLEPc.EPS.ProblemType.NHEP)
        eps.setType(SLEPc.EPS.Type.KRYLOVSCHUR)
        eps.setWhichEigenpairs(SLEPc.EPS.Which.LARGEST_MAGNITUDE)
        size = self.matrix.getSize()[0]
        eps.setDimensions(min(count, size), min(max(KRYLOV, 2 * count + 10), size))
        eps.setTolerances(TOLERANCE, MAX_ITERATIONS)
        self._work.setArray(start)
        eps.setInitialSpace(self._work)
        eps.setFromOptions()
        eps.solve()
        found = eps.getConverged()
        reason = eps.getConvergedReason()
        result = _eigenpairs(eps, found, self._work)
        eps.destroy()
        shell.destroy()
        if found < min(count, size):
            raise NotConverged(
                f"the eigenvalue solver found {found} of {count} eigenvalues (SLEPc reason {reason}); "
                "ask for fewer, or try other options after '--', e.g. -- -eps_ncv 100"
            )
        values = 1.0 / result[0] - self.shift
        return values, result[1], operator.applications

    def destroy(self) -> None:
        """Free the factorisation. Collective."""
        self.solver.destroy()
        self._shifted.destroy()
        self._work.destroy()


def _eigenpairs(eps: SLEPc.EPS, count: int, like: PETSc.Vec) -> tuple[np.ndarray, np.ndarray]:
    real, imaginary = like.duplicate(), like.duplicate()
    values = np.empty(count, dtype=complex)
    vectors = np.empty((like.getLocalSize(), count), dtype=complex)
    for k in range(count):
        values[k] = eps.getEigenpair(k, real, imaginary)
        vectors[:, k] = real.getArray(readonly=True) + 1j * imaginary.getArray(readonly=True)
    real.destroy()
    imaginary.destroy()
    return values, vectors


def spectrum(pencil: Pencil, mass: np.ndarray, count: int) -> Spectrum:
    """Return at least `count` eigenvalues and their vectors, the slow ones free of cancellation. Collective.

    Parameters
    ----------
    mass : ndarray, shape (local,)
        m_i = ∫φ_i.

    Raises
    ------
    NotConverged
    """
    wanted = count + SPARE
    values, right, done = pencil.eigenvectors(wanted, np.ones(len(mass)), transpose=False)
    dual_values, left, also_done = pencil.eigenvectors(wanted, mass, transpose=True)
    m = _cut(values, dual_values, count, pencil.shift)
    reach = float(np.abs(values[m - 1] + pencil.shift))
    values, right, left = values[:m], right[:, :m], left[:, :m]
    order = _order(values)
    values, right = values[order], right[:, order]
    k = slow_count(values)
    slow = slow_modes(pencil, *_slow_spaces(pencil, right[:, :k], left, values), mass)
    values[:k] = slow.values
    right[:, :k] = slow.right
    left = _dual(pencil, right, left)
    left[:, :k] = slow.left
    return Spectrum(
        values, right, left, _residuals(pencil, values, right), slow, reach, pencil.shift, done + also_done,
        f"SLEPc krylovschur, shift {-pencil.shift:.3g}, {pencil.solver.describe()}",
    )  # fmt: skip


def slow_count(values: np.ndarray) -> int:
    """Return how many eigenvalues, sorted, lie far below all others; at least one, the eigenvalue 0."""
    size = np.abs(values)
    ratios = size[1:] / np.maximum(np.maximum.accumulate(size)[:-1], 1e-300)
    far = np.flatnonzero(ratios[1:] > SEPARATION) + 2  # the first is 0 up to rounding whatever follows
    return int(far[-1]) if len(far) else 1


def _cut(right: np.ndarray, left: np.ndarray, count: int, shift: float) -> int:
    """Return how many of both lists (by distance from -σ) to keep so that no cluster or pair is cut."""
    n = min(len(right), len(left))
    a, b = np.abs(right[:n] + shift), np.abs(left[:n] + shift)
    gap = np.minimum(a[1:], b[1:]) > (1 + CLUSTER) * np.maximum(a[:-1], b[:-1])
    places = np.flatnonzero(gap) + 1
    enough = places[places >= min(count, n)]
    if len(enough):
        return int(enough[-1])
    return n


def _order(values: np.ndarray) -> np.ndarray:
    """Sort by real part; values equal up to `CLUSTER` by imaginary part, so that pairs stay together."""
    scale = np.abs(values).max() or 1.0
    real = np.round(values.real / scale, 6)
    return np.lexsort((-np.sign(np.round(values.imag / scale, 9)), np.abs(np.round(values.imag / scale, 6)), real))


def _slow_spaces(
    pencil: Pencil, right: np.ndarray, left: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return real bases (X, Y) of the slow subspaces, polished by inverse iteration. Collective."""
    k = right.shape[1]
    x = _real_basis(pencil, right, k)
    y = _real_basis(pencil, _dual(pencil, right, left), k)
    for _ in range(POLISH):
        y = pencil.inverse(y, transpose=True)
        x = pencil.inverse(x, transpose=False)
        y, x = y / _largest(pencil, y), x / _largest(pencil, x)
    return _with_constant(pencil, x), y


def _with_constant(pencil: Pencil, x: np.ndarray) -> np.ndarray:
    """Return a basis of the same space whose first vector is the constant 1. Collective."""
    total = pencil.comm.allreduce(np.array([len(x), *x.sum(axis=0)]))
    centred = x - total[1:] / total[0]
    _, vectors = np.linalg.eigh(pencil.product(centred, centred))
    return np.column_stack([np.ones(len(x)), centred @ vectors[:, 1:]])


def _largest(pencil: Pencil, columns: np.ndarray) -> np.ndarray:
    local = np.abs(columns).max(axis=0) if len(columns) else np.zeros(columns.shape[1])
    return np.asarray(np.max(pencil.comm.allgather(local), axis=0))


def _real_basis(pencil: Pencil, vectors: np.ndarray, k: int) -> np.ndarray:
    """Return k real vectors that span the same space as k vectors closed under conjugation. Collective."""
    both = np.concatenate([vectors.real, vectors.imag], axis=1)
    gram = pencil.product(both, both)
    scale = np.sqrt(np.maximum(np.diag(gram), 1e-300))
    _, vectors_ = np.linalg.eigh(gram / np.outer(scale, scale))
    return (both / scale) @ vectors_[:, -k:]


def _dual(pencil: Pencil, right: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Return combinations Z of the left vectors with ZᵀM right = I. Collective."""
    moved = pencil.apply(pencil.mass, right)
    gram = pencil.product(left, moved)
    return left @ np.linalg.pinv(gram, rcond=1e-13).T


def _residuals(pencil: Pencil, values: np.ndarray, right: np.ndarray) -> np.ndarray:
    residual = pencil.apply(pencil.matrix, right) - pencil.apply(pencil.mass, right) * values
    absolute = magnitude(pencil.matrix)
    size = np.abs(pencil.apply(pencil.mass, np.abs(right))) * np.abs(values)
    size = size + pencil.apply(absolute, np.abs(right))
    absolute.destroy()
    total = pencil.comm.allreduce(np.array([np.abs(residual).sum(axis=0), size.sum(axis=0)]))
    return np.asarray(total[0] / np.maximum(total[1], 1e-300))


def magnitude(matrix: PETSc.Mat) -> PETSc.Mat:
    """Return |B|, entry by entry, as a new matrix: the scale of rounding. Collective."""
    absolute = matrix.copy()
    rows, indices, entries = absolute.getValuesCSR()
    absolute.setValuesCSR(rows, indices, np.abs(entries))
    absolute.assemble()
    return absolute
