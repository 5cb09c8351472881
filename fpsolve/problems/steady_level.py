"""The invariant density and the first eigenvalues on one mesh, each with an error estimate.

Solved with elements of degree p + 1 and, by Galerkin projection, of degree p. The answer is that of degree p;
the difference is its error estimate.
"""

from __future__ import annotations

from dataclasses import dataclass

from petsc4py import PETSc

import numpy as np
from dolfinx import fem
from scipy.optimize import linear_sum_assignment

from fpsolve.fem.boundary import Boundary
from fpsolve.fem.cell_quadrature import CellQuadrature
from fpsolve.fem.generator import Generator, assemble, coarsen, discretise
from fpsolve.fem.meshing import Triangulation
from fpsolve.fem.metastable import Differences
from fpsolve.fem.spectrum import Pencil, Spectrum, magnitude, spectrum
from fpsolve.model.expressions import Formula
from fpsolve.model.process import Process
from fpsolve.problems.level import SAFETY, cell_volumes

#: Relative error below which nothing is claimed.
ROUNDING = 1e-12
#: Eigenvalues whose relative distance is below this are one cluster.
SAME = 0.02
#: A mesh whose estimate was this much too small leaves the next one's in doubt.
UNTRUSTED = 10.0


@dataclass(frozen=True)
class Moments:
    """Integrals of the invariant density."""

    mean: np.ndarray
    covariance: np.ndarray
    observables: np.ndarray


@dataclass(frozen=True)
class Known:
    """All computed eigenvalues of a mesh, their errors, and by what factor the last mesh's errors were too small."""

    values: np.ndarray
    errors: np.ndarray
    ratio: np.ndarray


@dataclass(frozen=True)
class SteadyLevel:
    """The answer on one mesh.

    Attributes
    ----------
    generator : Generator
        Of degree p; to be destroyed with `destroy`.
    spectrum : Spectrum
        Of degree p.
    values : ndarray of complex, shape (count,)
    errors : ndarray, shape (count,)
        Estimated absolute errors of the eigenvalues.
    zero_count : int
        How many of all eigenvalues cannot be told from 0.
    certain : bool
        Whether those are 0 to the accuracy of the linear algebra, whatever the mesh.
    known : Known
        All eigenvalues, for the next mesh.
    density, control : Function
        ρ of degree p, and of degree p + 1 (the exact Gibbs density, interpolated, for Scharfetter-Gummel).
    density_error : float
        Estimated ``‖ρ - exact‖₁``.
    indicators, mode_indicators : ndarray
        For this rank's own cells: shares in the density's error and in the relative errors of the eigenvalues.
    """

    triangulation: Triangulation
    boundary: Boundary
    generator: Generator
    spectrum: Spectrum
    values: np.ndarray
    errors: np.ndarray
    zero_count: int
    certain: bool
    known: Known
    density: fem.Function
    control: fem.Function
    density_error: float
    residual: float
    moments: Moments
    moment_errors: Moments
    indicators: np.ndarray
    mode_indicators: np.ndarray
    volumes: np.ndarray
    quadrature: CellQuadrature
    unknowns: int
    cells: int

    @property
    def fast(self) -> float:
        """The size of the first eigenvalue that is not slow."""
        values, k = self.spectrum.values, len(self.spectrum.slow.values)
        return float(np.abs(values[min(k, len(values) - 1)]))

    def destroy(self) -> None:
        """Free the PETSc objects. Collective."""
        self.generator.destroy()


@dataclass(frozen=True)
class Solved:
    """One generator with its spectrum."""

    generator: Generator
    mass: PETSc.Mat
    weights: np.ndarray
    spectrum: Spectrum

    def function(self, array: np.ndarray, name: str) -> fem.Function:
        """Return a column of unknowns as a function. Collective."""
        vector = self.generator.matrix.createVecRight()
        vector.setArray(array)
        result = self.generator.to_function(vector, name)
        vector.destroy()
        return result


def solved(generator: Generator, mass: PETSc.Mat, count: int, shift: float) -> Solved:
    """Return a generator with at least `count` eigenvalues and their vectors. Collective. Raises NotConverged."""
    weights = generator.mass.getArray(readonly=True).copy()
    pencil = Pencil(generator.matrix, mass, generator.space.mesh.topology.dim, shift)
    try:
        return Solved(generator, mass, weights, spectrum(pencil, weights, count))
    finally:
        pencil.destroy()


def solve_steady_level(
    process: Process,
    triangulation: Triangulation,
    scheme: str,
    degree: int,
    count: int,
    observables: tuple[Formula, ...],
    shift: float,
    last: Known | None,
) -> SteadyLevel:
    """Solve with degrees p + 1 and p on one mesh; `last` is what the mesh before said. Collective.

    Raises
    ------
    NotConverged
    """
    problem = discretise(process, triangulation, tuple(triangulation.parts), degree + 1)
    upper = assemble(problem, scheme, degree + 1)
    lower, embedding = coarsen(upper)
    mass = upper.mass_matrix()
    fine = solved(upper, mass, count, shift)
    coarse = solved(lower, mass.PtAP(embedding), count, shift)
    known = calibrated(coarse.spectrum, eigenvalue_errors(coarse.spectrum, fine.spectrum), last)
    errors = known.errors
    zeros, certain = _zeros(coarse.spectrum, errors)
    rho, rho_fine = coarse.spectrum.slow.invariant(zeros), fine.spectrum.slow.invariant(zeros)
    density, control = coarse.function(rho, "density"), fine.function(rho_fine, "density")
    quadrature = CellQuadrature(triangulation.mesh, 2 * degree + 4)
    values, better = quadrature.values(density), quadrature.values(control)
    indicators = quadrature.per_cell(np.abs(better - _matched(coarse, fine, quadrature, better)))
    modes = _mode_indicators(fine, coarse, embedding, zeros, count)
    moments, check = (expectations(quadrature, v, observables) for v in (values, better))
    level = SteadyLevel(
        triangulation=triangulation, boundary=problem.boundary, generator=lower, spectrum=coarse.spectrum,
        values=coarse.spectrum.values[:count], errors=errors[:count], zero_count=zeros, certain=certain,
        known=known, density=density, control=control,
        density_error=max(SAFETY * float(quadrature.integral(np.abs(better - values))), ROUNDING),
        residual=invariance(lower.matrix, rho), moments=moments, moment_errors=differences_of(moments, check),
        indicators=indicators, mode_indicators=modes, volumes=cell_volumes(triangulation.mesh),
        quadrature=quadrature, unknowns=lower.unknowns, cells=cell_count(triangulation),
    )  # fmt: skip
    for thing in (upper, mass, coarse.mass, embedding):
        thing.destroy()
    return level


def cell_count(triangulation: Triangulation) -> int:
    """Return the global number of cells."""
    topology = triangulation.mesh.topology
    return int(topology.index_map(topology.dim).size_global)


def eigenvalue_errors(answer: Spectrum, control: Spectrum) -> np.ndarray:
    """Return the distance to the matching eigenvalues of the other spectrum, with a factor for safety."""
    distance = np.abs(answer.values[:, None] - control.values[None, :])
    # relative, so that a metastable eigenvalue is not swapped for another to please a fast one
    size = np.abs(answer.values[:, None]) + np.abs(control.values[None, :]) + 1e-300
    own, other = linear_sum_assignment(distance / size)
    errors = np.abs(answer.values)
    errors[own] = SAFETY * distance[own, other]
    k = min(len(answer.slow.errors), len(control.slow.errors))
    errors[:k] = np.maximum(errors[:k], np.maximum(answer.slow.errors[:k], control.slow.errors[:k]))
    errors = np.maximum(errors, ROUNDING * np.abs(answer.values))
    errors[0] = 0.0
    return np.asarray(errors)


def calibrated(answer: Spectrum, errors: np.ndarray, last: Known | None) -> Known:
    """Return the errors, raised where the last mesh's proved too small, and whether to trust them.

    The change since the last mesh is what its estimate should have been. Where that was wide of the mark, the error
    is what is known to have moved: so an eigenvalue that only the discretisation keeps from 0 is found out, as it
    is by a negative real part.
    """
    values = answer.values
    errors = np.where(values.real < 0, np.maximum(errors, np.abs(values)), errors)
    errors[0] = 0.0
    if last is None:
        return Known(values, errors, np.zeros(len(values)))
    n = min(len(values), len(last.values))
    change = np.zeros(len(values))
    change[:n] = np.abs(values[:n] - last.values[:n])
    estimate = np.full(len(values), np.inf)
    estimate[:n] = np.maximum(last.errors[:n], 1e-11 * np.abs(values[:n]) + 1e-300)
    ratio = change / estimate
    errors = errors * np.sqrt(np.maximum(ratio, 1.0))
    errors = np.where(ratio > UNTRUSTED, np.maximum(errors, change), errors)
    errors[0] = 0.0
    return Known(values, errors, ratio)


def _zeros(answer: Spectrum, errors: np.ndarray) -> tuple[int, bool]:
    """Return how many slow eigenvalues cannot be told from 0, and whether that is beyond doubt."""
    slow = answer.slow
    small = np.abs(slow.values) <= errors[: len(slow.values)]
    count = len(small) if small.all() else int(np.argmin(small))
    certain = bool(np.all(np.abs(slow.values[1:count]) <= 3 * slow.errors[1:count] + 1e-300))
    return max(count, 1), certain


def _matched(coarse: Solved, fine: Solved, quadrature: CellQuadrature, better: np.ndarray) -> np.ndarray:
    """Return the coarse density with the fine one's masses of the wells: how the wells share is no local error."""
    slow = coarse.spectrum.slow
    if slow.densities.shape[1] != fine.spectrum.slow.densities.shape[1] or slow.densities.shape[1] == 1:
        return quadrature.values(coarse.function(slow.invariant(1), "density"))
    wells = [quadrature.values(coarse.function(column, "well")) for column in slow.densities.T]
    gram = np.array([[float(quadrature.integral(u * v)) for v in wells] for u in wells])
    loads = np.array([float(quadrature.integral(u * better)) for u in wells])
    return np.tensordot(np.linalg.lstsq(gram, loads, rcond=None)[0], np.array(wells), axes=1)


def _mode_indicators(fine: Solved, coarse: Solved, embedding: PETSc.Mat, zeros: int, count: int) -> np.ndarray:
    """Split the relative errors of the asked and of the slow eigenvalues over this rank's own cells. Collective.

    With y, λ' of degree p + 1 and x, λ of degree p: ``(λ' - λ) yᵀMx = (y - y_p)ᵀ(Bx - λMx)`` exactly, for any
    y_p of degree p. In the wells a slow x is constant to all digits and its residual rounding: counted as 0.
    """
    values = coarse.spectrum.values
    slow = len(coarse.spectrum.slow.values)
    asked = [j for j in range(1, len(values)) if (j < count or j < slow) and j >= zeros and values[j].imag >= 0]
    domain = fine.generator.space.mesh
    total = np.zeros(domain.topology.index_map(domain.topology.dim).size_local)
    if not asked:
        return total
    comm = domain.comm
    difference = Differences(fine.generator.matrix)
    diagonal = fine.generator.matrix.getDiagonal()
    row_size = np.abs(diagonal.getArray())
    for j in asked:
        x, y = (_embedded(embedding, vectors[:, j]) for vectors in (coarse.spectrum.right, coarse.spectrum.left))
        near = np.abs(fine.spectrum.values - values[j]) <= SAME * np.abs(values[j])
        if not near.any():
            near[int(np.argmin(np.abs(fine.spectrum.values - values[j])))] = True
        mass_y, mass_x = _times(fine.mass, y), _times(fine.mass, x)
        mixing = comm.allreduce(fine.spectrum.right[:, near].T @ mass_y)
        better = fine.spectrum.left[:, near] @ mixing
        top = max(comm.allgather(float(np.abs(x).max(initial=0.0))))
        residual = difference(x[:, None])[:, 0] - values[j] * mass_x
        residual = np.where(np.abs(residual) > 4e-16 * top * row_size, residual, 0.0)
        scale = abs(comm.allreduce(better @ mass_x)) * abs(values[j])
        total += _per_cell(fine, np.abs((better - y) * residual)) / max(scale, 1e-300)
    diagonal.destroy()
    return total


def _embedded(embedding: PETSc.Mat, array: np.ndarray) -> np.ndarray:
    """Return the coefficients of degree p + 1. Collective."""
    return _times(embedding, array)


def _times(matrix: PETSc.Mat, array: np.ndarray) -> np.ndarray:
    """Return the matrix times a complex distributed vector. Collective."""
    x, y = matrix.createVecs()
    parts = []
    for part in (array.real, array.imag):
        x.setArray(part)
        matrix.mult(x, y)
        parts.append(y.getArray(readonly=True).copy())
    x.destroy()
    y.destroy()
    return np.asarray(parts[0] + 1j * parts[1])


def _per_cell(solution: Solved, array: np.ndarray) -> np.ndarray:
    """Sum unknowns over this rank's own cells, shared ones divided evenly. Collective."""
    from fpsolve.problems.level import _per_cell as sums

    return np.asarray(sums(solution.function(array, "indicator")))


def expectations(quadrature: CellQuadrature, density: np.ndarray, observables: tuple[Formula, ...]) -> Moments:
    """Return mean, covariance and expectations of a density given at the points (cells, q). Collective."""
    mass = quadrature.integral(density)
    x = quadrature.points
    mean = quadrature.integral(x * density[..., None]) / mass
    centred = x - mean
    covariance = quadrature.integral(np.einsum("cqi,cqj,cq->cqij", centred, centred, density)) / mass
    expected = [quadrature.integral(quadrature.at(g) * density) / mass for g in observables]
    return Moments(mean, covariance, np.array(expected, dtype=float))


def differences_of(a: Moments, b: Moments) -> Moments:
    """Return the estimated errors of a, b being the better ones."""
    return Moments(
        *(
            SAFETY * np.abs(x - y)
            for x, y in ((a.mean, b.mean), (a.covariance, b.covariance), (a.observables, b.observables))
        )
    )


def invariance(matrix: PETSc.Mat, rho: np.ndarray) -> float:
    """Return ``‖Bᵀρ‖₁ / ‖|B|ᵀ|ρ|‖₁``. Collective."""
    x, y = matrix.createVecs()
    x.setArray(rho)
    matrix.multTranspose(x, y)
    top = y.norm(PETSc.NormType.NORM_1)
    absolute = magnitude(matrix)
    x.abs()
    absolute.multTranspose(x, y)
    size = y.norm(PETSc.NormType.NORM_1)
    for thing in (x, y, absolute):
        thing.destroy()
    return float(top / size)
