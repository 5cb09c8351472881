"""Distances of a density from the stationary one: χ² and its production, Kullback-Leibler.

``E = ½∫(ρ/ρ∞ - 1)²ρ∞``, ``∫∇(ρ/ρ∞)ᵀ a ∇(ρ/ρ∞) ρ∞ = -dE/dt`` (mathematics.md section 4) and ``∫ρ log(ρ/ρ∞)``.

In the tails a rounding error of ρ, divided by ρ∞, would outweigh everything. All points with
``ρ∞ < FLOOR max ρ∞`` are therefore lumped into one state, which counts with the mass of ρ and of ρ∞ on it. By
Jensen's inequality both distances can only become smaller by that; what is lost is the variation of ρ/ρ∞ within
the tail, which matters only while ρ has mass there.
"""

from __future__ import annotations

from dataclasses import dataclass

from mpi4py import MPI
from petsc4py import PETSc

import numpy as np
from dolfinx import fem

from fpsolve.fem.functionals import Patch, at_points, cell_map, whole_cells
from fpsolve.fem.generator import Generator
from fpsolve.model.process import Process
from fpsolve.problems.reference import Reference

#: Points with ρ∞ below this part of its maximum are lumped together.
FLOOR = 1e-10


@dataclass(frozen=True)
class Entropies:
    """The three distances; `tail` is the mass of ρ in the lumped state."""

    chi2: float
    production: float | None
    relative: float
    tail: float


@dataclass(frozen=True)
class _Weights:
    """ρ∞ where the integrals need it, for one noise level.

    Attributes
    ----------
    density : list of ndarray
        ρ∞ at the points of each patch; a single array, at the nodes, for lumped schemes.
    nodal : ndarray
        At this rank's unknowns, ghosts included.
    floor : float
        `FLOOR` times the maximum, the same on all ranks.
    """

    density: list[np.ndarray]
    nodal: np.ndarray
    floor: float


class EntropyMonitor:
    """Evaluates the entropies of densities on one mesh. Collective.

    For the Scharfetter-Gummel scheme, whose chain is reversible with respect to the weights m_i π_i, the
    integrals are sums over its states, ``E = ½Σ m_i (ρ_i/π_i - 1)² π_i``, and the production is exactly -dE/dt: this
    E never increases. For the others they are integrals of the finite-element function, so that E stagnates at the
    square of the discretisation error, unless ρ∞ is the computed one; the production has nodal values of ρ/ρ∞,
    interpolated.

    Parameters
    ----------
    process : Process
    generator : Generator
    reference : Reference
    """

    def __init__(self, process: Process, generator: Generator, reference: Reference) -> None:
        self.process, self.generator, self.reference = process, generator, reference
        self.domain = generator.space.mesh
        self.lumped = generator.scheme == "sg"
        self.patches = list(whole_cells(self.domain, 2 * generator.degree + 4))
        self._diffusion = [self._diffusion_at(points.x) for points in self.patches]
        self._known: tuple[float, _Weights | None] | None = None

    def evaluate(self, vector: PETSc.Vec, theta: float = 1.0, matrix: PETSc.Mat | None = None) -> Entropies | None:
        """Return the entropies of a density relative to ρ∞ for the noise ε²θ; None where that is not known. Collective.

        Negative values of ρ count as 0 in the relative entropy.

        Parameters
        ----------
        vector : PETSc.Vec
            The free unknowns of ρ, all those of the space.
        theta : float
            ε²(t)/ε².
        matrix : PETSc.Mat, optional
            B(θ), for the production with the Scharfetter-Gummel scheme; the generator's own serves θ = 1.
        """
        weights = self._weights(theta)
        if weights is None:
            return None
        if self.lumped:
            sums = _sums(self._lumped_mass(), vector.getArray(readonly=True), weights.density[0], weights.floor)
        else:
            density = self.generator.to_function(vector)
            sums = np.zeros(4)
            for points, pi in zip(self.patches, weights.density, strict=True):
                sums += _sums(points.weights, points.values(density), pi, weights.floor)
        chi2, relative, tail, tail_reference = self.domain.comm.allreduce(sums)
        production: float | None
        if self.lumped:
            excess = tail / tail_reference - 1.0 if tail_reference > 0 else 0.0
            matrix = self.generator.matrix if matrix is None and theta == 1.0 else matrix
            production = None if matrix is None else self._chain_production(vector, matrix, weights, excess)
        else:
            production = theta * self.domain.comm.allreduce(self._production(density, weights))
        lump = _lump(tail, tail_reference)
        return Entropies(float(chi2 + lump[0]), production, float(relative + lump[1]), float(tail))

    def _chain_production(self, vector: PETSc.Vec, matrix: PETSc.Mat, weights: _Weights, excess: float) -> float:
        """Return ``-dE/dt = (ρ/ρ∞ - 1)·Bᵀρ``, since ``m ρ' = -Bᵀρ``. Collective."""
        pi = weights.density[0]
        inside = pi >= weights.floor
        ratio, rate = vector.duplicate(), vector.duplicate()
        rho = vector.getArray(readonly=True)
        ratio.setArray(np.where(inside, (rho - pi) / np.where(inside, pi, 1.0), excess))
        matrix.multTranspose(vector, rate)
        result = float(rate.dot(ratio))
        for thing in (ratio, rate):
            thing.destroy()
        return result

    def _diffusion_at(self, x: np.ndarray) -> np.ndarray:
        """Return a at points (n, q, d), shape (n, q, d, d), or (1, 1, d, d) where it is constant."""
        d = self.process.dimension
        some = x[:1, :1] if self.process.constant_diffusion else x
        return self.process.diffusion(some.reshape(-1, d)).reshape(*some.shape, d)

    def _lumped_mass(self) -> np.ndarray:
        return self.generator.mass.getArray(readonly=True)

    def _weights(self, theta: float) -> _Weights | None:
        if self._known is None or self._known[0] != theta:
            self._known = (theta, self._evaluate_reference(theta))
        return self._known[1]

    def _evaluate_reference(self, theta: float) -> _Weights | None:
        reference = self.reference.at(theta)
        if reference is None:
            return None
        space, comm = self.generator.space, self.domain.comm
        if reference.function is not None:
            function = onto(reference.function, space)
            nodal = function.x.array.copy()
            density = [points.values(function) for points in self.patches]
        else:
            assert reference.log_density is not None
            log_density = reference.log_density
            x = space.tabulate_dof_coordinates()[:, : self.process.dimension]
            nodal = np.exp(log_density(x))
            density = [] if self.lumped else [np.exp(at_points(log_density, p.x)) for p in self.patches]
        if self.lumped:
            local = space.dofmap.index_map.size_local
            nodal = nodal / comm.allreduce(float(self._lumped_mass() @ nodal[:local]))
            density = [nodal[:local]]
        top = max((float(values.max(initial=0.0)) for values in density), default=0.0)
        return _Weights(density, nodal, FLOOR * comm.allreduce(top, op=MPI.MAX))

    def _production(self, density: fem.Function, weights: _Weights) -> float:
        """Return this rank's part of ∫∇(ρ/ρ∞)ᵀ a ∇(ρ/ρ∞) ρ∞, over cells outside of the tails."""
        space = self.generator.space
        safe = np.maximum(weights.nodal, weights.floor)
        ratio = density.x.array / safe - 1.0
        total = 0.0
        for k, points in enumerate(self.patches):
            unknowns = space.dofmap.list[points.cells]
            inside = (weights.nodal[unknowns] >= weights.floor).all(axis=1)
            if not inside.any():
                continue
            part = points.part(inside)
            slope = gradients(part, ratio[unknowns[inside]], space)
            pi = weights.density[k][inside]
            a = self._diffusion[k] if len(self._diffusion[k]) == 1 else self._diffusion[k][inside]
            flux = np.einsum("nqij,nqj->nqi", np.broadcast_to(a, (*slope.shape, slope.shape[2])), slope)
            total += float(np.sum(np.sum(slope * flux, axis=2) * part.weights * pi))
        return total


def _sums(weights: np.ndarray, rho: np.ndarray, pi: np.ndarray, floor: float) -> np.ndarray:
    """Return χ² and Kullback-Leibler outside of the tail, and the masses of ρ and ρ∞ in the tail."""
    inside = pi >= floor
    w, p = weights[inside], pi[inside]
    excess = (rho[inside] - p) / p
    chi2 = 0.5 * np.sum(w * p * excess**2)
    # ρ log(ρ/ρ∞) - ρ + ρ∞ >= 0: the masses are equal, and nothing cancels in the sum
    relative = np.sum(w * p * _divergence(excess))
    rest = weights[~inside]
    return np.array([chi2, relative, np.sum(rest * rho[~inside]), np.sum(rest * pi[~inside])])


def _divergence(excess: np.ndarray) -> np.ndarray:
    """Return r log r - r + 1 for r = 1 + excess, accurate near r = 1; r < 0 counts as 0."""
    y = np.maximum(excess, -1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.where(y > -1.0, (1.0 + y) * np.log1p(y) - y, 1.0)
    return np.where(np.abs(y) < 1e-3, y * y * (0.5 - y / 6 + y * y / 12 - y**3 / 20), value)


def _lump(rho: float, pi: float) -> tuple[float, float]:
    """Return what one state of masses ρ and ρ∞ contributes to χ² and to Kullback-Leibler."""
    if not pi > 0:
        return 0.0, 0.0
    excess = rho / pi - 1.0
    return 0.5 * pi * excess**2, pi * float(_divergence(np.array(excess)))


def stagnation(reference: Reference, space: fem.FunctionSpace) -> float:
    """Return the χ² of ρ∞'s own interpolation by these elements, about where computed densities stagnate. Collective.

    Measured: discrete steady states of Ornstein-Uhlenbeck and the double well have 0.7 to 1.3 times this value
    where the mesh resolves ρ∞ (2.4 times where it does not quite). Zero where ρ∞ is itself a function on a mesh.
    """
    if reference.log_density is None:
        return 0.0
    log_density, d = reference.log_density, space.mesh.topology.dim
    nodal = fem.Function(space)
    nodal.x.array[:] = np.exp(log_density(space.tabulate_dof_coordinates()[:, :d]))
    patches = list(whole_cells(space.mesh, 2 * space.element.basix_element.degree + 4))
    density = [np.exp(at_points(log_density, points.x)) for points in patches]
    top = max((float(values.max(initial=0.0)) for values in density), default=0.0)
    floor = FLOOR * space.mesh.comm.allreduce(top, op=MPI.MAX)
    sums = np.zeros(4)
    for points, pi in zip(patches, density, strict=True):
        sums += _sums(points.weights, points.values(nodal), pi, floor)
    chi2, _, tail, tail_reference = space.mesh.comm.allreduce(sums)
    return float(chi2 + _lump(tail, tail_reference)[0])


def gradients(points: Patch, coefficients: np.ndarray, space: fem.FunctionSpace) -> np.ndarray:
    """Return the gradients (n, q, d) at common reference points of functions with coefficients (n, k)."""
    table = np.asarray(space.element.basix_element.tabulate(1, points.reference))[1:, :, :, 0]
    reference = np.einsum("kqb,nb->nqk", table, coefficients)
    jacobian = cell_map(space.mesh, points.cells, points.reference)[1]
    return np.einsum(
        "nqjk,nqk->nqj", np.broadcast_to(np.linalg.inv(jacobian), (*reference.shape, reference.shape[2])), reference
    )


def onto(function: fem.Function, space: fem.FunctionSpace) -> fem.Function:
    """Return the function itself or its interpolation into a space, on the same or another mesh. Collective."""
    if function.function_space is space:
        return function
    result = fem.Function(space)
    if function.function_space.mesh is space.mesh:
        result.interpolate(function)
    else:
        index_map = space.mesh.topology.index_map(space.mesh.topology.dim)
        cells = np.arange(index_map.size_local + index_map.num_ghosts, dtype=np.int32)
        data = fem.create_interpolation_data(space, function.function_space, cells, padding=1e-6)
        result.interpolate_nonmatching(function, cells, data)
    result.x.scatter_forward()
    return result
