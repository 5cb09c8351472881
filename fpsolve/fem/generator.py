"""The discrete generator: one matrix B ~ -A with the exit condition, for every scheme.

All questions use the same matrix: exit times solve ``B u = m``, densities evolve with Bᵀ, so duality
and mass balance hold by construction. Constants satisfy ``B 1 = κ`` with κ, the outflow, read from the
exit terms themselves and not from row sums: for long exit times κ is far below the rounding of B.
"""

from __future__ import annotations

from dataclasses import dataclass

from petsc4py import PETSc

import numpy as np
import ufl
from dolfinx import fem
from dolfinx.fem.petsc import assemble_matrix, assemble_vector, interpolation_matrix

from fpsolve.fem.boundary import Boundary, classify
from fpsolve.fem.coefficients import Coefficients, interpolate
from fpsolve.fem.forms import cg_form, dg_form, dg_outflow, measures
from fpsolve.fem.linear import DIRECT_LIMIT, Solver
from fpsolve.fem.meshing import Triangulation
from fpsolve.model.process import Process

ELEMENTS = {"dg": "Discontinuous Lagrange", "cg": "Lagrange", "sg": "Lagrange"}


@dataclass(frozen=True)
class Generator:
    """-A on a mesh, killed where the process can leave.

    Attributes
    ----------
    scheme : "dg", "cg" or "sg"
    degree : int
        Of the elements.
    space : FunctionSpace
    matrix : PETSc.Mat
        B on the free unknowns.
    mass : PETSc.Vec
        m_i = ∫ φ_i on the free unknowns.
    outflow : PETSc.Vec
        κ = B 1, from the exit terms alone.
    free : PETSc.IS or None
        The unknowns not fixed to zero; None when all are free (exit condition imposed weakly).
    boundary : Boundary
    coefficients : Coefficients or None
        None for "sg", which needs nodal values of the loss only.
    """

    scheme: str
    degree: int
    space: fem.FunctionSpace
    matrix: PETSc.Mat
    mass: PETSc.Vec
    outflow: PETSc.Vec
    free: PETSc.IS | None
    boundary: Boundary
    coefficients: Coefficients | None

    @property
    def unknowns(self) -> int:
        """The global number of free unknowns."""
        return int(self.matrix.getSize()[0])

    def restrict(self, vector: PETSc.Vec) -> PETSc.Vec:
        """Return the free part of a vector over the whole space (a new vector). Collective."""
        return vector.copy() if self.free is None else _part(vector, self.free)

    def to_function(self, vector: PETSc.Vec, name: str = "u") -> fem.Function:
        """Return the finite-element function with these free unknowns, zero at fixed ones. Collective."""
        function = fem.Function(self.space, name=name)
        owned = function.x.petsc_vec
        if self.free is None:
            vector.copy(owned)
        else:
            owned.set(0.0)
            owned.setValues(self.free.getIndices(), vector.getArray(readonly=True))
            owned.assemble()
        function.x.scatter_forward()
        return function

    def mass_matrix(self) -> PETSc.Mat:
        """Return ∫ φ_i φ_j on the free unknowns; its row sums where the scheme lumps. Collective."""
        if self.scheme == "sg":
            # not createDiagonal().convert("aij"), which gives a wrong matrix on several ranks (PETSc 3.22)
            lumped = PETSc.Mat().createAIJ(self.matrix.getSizes(), nnz=(1, 0), comm=self.space.mesh.comm)
            lumped.setDiagonal(self.mass)
            lumped.assemble()
            return lumped
        u, v = ufl.TrialFunction(self.space), ufl.TestFunction(self.space)
        dx = measures(self.space.mesh, self.boundary, self.degree)[0]
        whole = assemble_matrix(fem.form(u * v * dx))
        whole.assemble()
        if self.free is None:
            return whole
        part = whole.createSubMatrix(self.free, self.free)
        whole.destroy()
        return part

    def solver(self) -> Solver:
        """Return a solver of B and Bᵀ: direct below a size, else two-level Krylov. Collective."""
        return self.solver_of(self.matrix)

    def solver_of(self, matrix: PETSc.Mat, reproducible: bool = False) -> Solver:
        """Return a solver of another matrix on the same unknowns, such as M + s B. Collective."""
        dimension = self.space.mesh.topology.dim
        direct = self.unknowns <= DIRECT_LIMIT[dimension]
        return Solver(matrix, dimension, None if direct else self._from_linear(), reproducible=reproducible)

    def _from_linear(self) -> PETSc.Mat | None:
        """Return the embedding of continuous linear elements, the coarse level of Krylov solves. Collective."""
        if self.scheme != "dg" and self.degree == 1:
            return None
        linear = fem.functionspace(self.space.mesh, ("Lagrange", 1))
        embedding = interpolation_matrix(linear, self.space)
        embedding.assemble()
        if self.free is None:
            return embedding
        inside, _ = free_unknowns(linear, self.boundary)
        part = embedding.createSubMatrix(self.free, inside)
        embedding.destroy()
        return part

    def destroy(self) -> None:
        """Free the PETSc objects. Collective."""
        for thing in (self.matrix, self.mass, self.outflow, self.free):
            if thing is not None:
                thing.destroy()


@dataclass(frozen=True)
class Discretisation:
    """What one mesh has in common for all degrees: coefficients and boundary classification."""

    triangulation: Triangulation
    coefficients: Coefficients
    boundary: Boundary


def discretise(
    process: Process, triangulation: Triangulation, reflecting: tuple[str, ...], degree: int
) -> Discretisation:
    """Interpolate the coefficients and classify the boundary. Collective.

    Parameters
    ----------
    degree : int
        The highest element degree that will be used on this mesh.
    """
    coefficients = interpolate(process, triangulation.mesh, max(degree + 1, 2))
    tags = [triangulation.parts[name] for name in reflecting]
    boundary = classify(process, triangulation.facet_tags, triangulation.mesh, tags, 2 * degree + 2)
    return Discretisation(triangulation, coefficients, boundary)


def assemble(problem: Discretisation, scheme: str, degree: int) -> Generator:
    """Assemble the generator with elements of one degree. Collective."""
    domain, c, boundary = problem.triangulation.mesh, problem.coefficients, problem.boundary
    space = fem.functionspace(domain, (ELEMENTS[scheme], degree))
    form = dg_form if scheme == "dg" else cg_form
    full = assemble_matrix(fem.form(form(space, c, boundary, degree)))
    full.assemble()
    mass = load(space, degree, boundary)
    if scheme == "dg":
        outflow = _vector(dg_outflow(space, c, boundary, degree))
        return Generator(scheme, degree, space, full, mass, outflow, None, boundary, c)
    return kill(scheme, degree, space, full, mass, boundary, c)


def kill(
    scheme: str,
    degree: int,
    space: fem.FunctionSpace,
    full: PETSc.Mat,
    mass: PETSc.Vec,
    boundary: Boundary,
    coefficients: Coefficients | None,
) -> Generator:
    """Drop the unknowns on the exit boundary from B and keep κ, their couplings. Collective."""
    free, on_exit = free_unknowns(space, boundary)
    indicator = full.createVecRight()
    indicator.setValues(on_exit, np.ones(len(on_exit)))
    indicator.assemble()
    coupling = full.createVecLeft()
    full.mult(indicator, coupling)
    coupling.scale(-1.0)
    matrix = full.createSubMatrix(free, free)
    m, kappa = _part(mass, free), _part(coupling, free)
    killed = Generator(scheme, degree, space, matrix, m, kappa, free, boundary, coefficients)
    for thing in (full, mass, coupling, indicator):
        thing.destroy()
    return killed


def _part(vector: PETSc.Vec, rows: PETSc.IS) -> PETSc.Vec:
    part = vector.getSubVector(rows)
    result = part.copy()
    vector.restoreSubVector(rows, part)
    return result


def load(space: fem.FunctionSpace, degree: int, boundary: Boundary) -> PETSc.Vec:
    """Return m_i = ∫ φ_i over the whole space. Collective."""
    dx = measures(space.mesh, boundary, degree)[0]
    return _vector(ufl.TestFunction(space) * dx)


def _vector(form: object) -> PETSc.Vec:
    vector = assemble_vector(fem.form(form))
    vector.ghostUpdate(addv=PETSc.InsertMode.ADD, mode=PETSc.ScatterMode.REVERSE)
    return vector


def coarsen(fine: Generator) -> tuple[Generator, PETSc.Mat]:
    """Return the Galerkin projection of `fine` to the next lower degree, and the embedding. Collective.

    The lower space is a subspace, so B, m and κ of the lower degree follow from the fine ones without
    assembling again, and the difference of the two solutions is an error estimate with an exact
    dual-weighted representation.
    """
    degree = fine.degree - 1
    space = fem.functionspace(fine.space.mesh, (ELEMENTS[fine.scheme], degree))
    embedding = interpolation_matrix(space, fine.space)
    embedding.assemble()
    free, exit_flux = None, fine.outflow.copy()
    if fine.free is not None:
        free, fixed = free_unknowns(space, fine.boundary)
        # κ = -B (sum of the fixed lower-degree functions), part of which are free fine functions
        whole_ones = embedding.createVecRight()
        whole_ones.setValues(fixed, np.ones(len(fixed)))
        whole_ones.assemble()
        whole = embedding.createVecLeft()
        embedding.mult(whole_ones, whole)
        lifted = fine.restrict(whole)
        correction = lifted.duplicate()
        fine.matrix.mult(lifted, correction)
        exit_flux.axpy(-1.0, correction)
        full = embedding
        embedding = full.createSubMatrix(fine.free, free)
        for thing in (whole_ones, whole, lifted, correction, full):
            thing.destroy()
    matrix = fine.matrix.PtAP(embedding)
    mass, outflow = embedding.createVecRight(), embedding.createVecRight()
    embedding.multTranspose(fine.mass, mass)
    embedding.multTranspose(exit_flux, outflow)
    exit_flux.destroy()
    coarse = Generator(fine.scheme, degree, space, matrix, mass, outflow, free, fine.boundary, fine.coefficients)
    return coarse, embedding


def free_unknowns(space: fem.FunctionSpace, boundary: Boundary) -> tuple[PETSc.IS, np.ndarray]:
    """Return the unknowns inside and, as global numbers, this rank's own ones on the exit boundary. Collective."""
    fixed = fem.locate_dofs_topological(space, space.mesh.topology.dim - 1, boundary.exit_facets)
    index_map = space.dofmap.index_map
    every = np.arange(index_map.size_local, dtype=np.int32)
    start = index_map.local_range[0]
    owned = (np.setdiff1d(every, fixed) + start).astype(PETSc.IntType)
    on_exit = (np.intersect1d(every, fixed) + start).astype(PETSc.IntType)
    return PETSc.IS().createGeneral(owned, comm=space.mesh.comm), on_exit
