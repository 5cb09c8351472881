"""The mean exit time on one mesh, with an error estimate from two degrees.

The problem is solved with elements of degree p + 1 and, by Galerkin projection, of degree p. The answer
is that of degree p; the difference is its error estimate, with an exact splitting over the cells.

Long exit times: rounding makes the solution of ``B u = 1`` wrong by a factor long before its shape
suffers. With ``Bᵀ ρ = e_x`` the total outflow ``ρ·κ`` must be 1, and ``E τ = (ρ·m)/(ρ·κ)`` has only
positive terms, so the value is right as long as the shape is (flux renormalisation, numerics.md 1.6).
"""

from __future__ import annotations

from dataclasses import dataclass

from petsc4py import PETSc

import numpy as np
from dolfinx import fem, la, mesh

from fpsolve.errors import NoFiniteAnswer, NotConverged
from fpsolve.fem.boundary import Boundary
from fpsolve.fem.forms import cell_sizes
from fpsolve.fem.generator import Discretisation, Generator, assemble, coarsen
from fpsolve.fem.points import Location, functional
from fpsolve.fem.shape import correction, gap
from fpsolve.model.domains import Domain

#: The difference of two degrees times this is reported; alone it was exceeded by up to 7 % (benchmarks, rotation).
SAFETY = 2.0
#: How much a cell may grow in one level of refinement.
GROW = 1.5
#: Relative local error above which a density counts as not resolved.
UNRESOLVED = 0.05


@dataclass(frozen=True)
class ExitSolution:
    """Exit-time moments for one generator.

    Attributes
    ----------
    moments : ndarray, shape (starts, K)
        E τ, E τ², …; time in units in which one SGD step lasts η.
    flux : ndarray, shape (starts,)
        ρ·κ before renormalisation; 1 without rounding.
    fields : list of PETSc.Vec
        u_k on the free unknowns, renormalised.
    densities : list of PETSc.Vec
        For each start the expected occupation density's coefficients, scaled to sum ρ·m = 1.
    """

    moments: np.ndarray
    flux: np.ndarray
    fields: list[PETSc.Vec]
    densities: list[PETSc.Vec]
    solver: str
    iterations: int

    def destroy(self) -> None:
        """Free the vectors. Collective."""
        for vector in (*self.fields, *self.densities):
            vector.destroy()


def solve_exit(
    generator: Generator, functionals: list[PETSc.Vec], mass_matrix: PETSc.Mat | None, moments: int
) -> ExitSolution:
    """Solve -A u_k = k u_{k-1} and evaluate at the starts. Collective.

    Raises
    ------
    NoFiniteAnswer
        When the matrix is singular to working precision: from some start the process cannot leave.
    """
    solver = generator.solver()
    try:
        occupations = [solver.solve_transpose(e) for e in functionals]
        flux = np.array([rho.dot(generator.outflow) for rho in occupations])
        _check_leaves(flux, [rho.dot(generator.mass) for rho in occupations])
        values = np.empty((len(functionals), moments))
        fields: list[PETSc.Vec] = []
        load = generator.mass.copy()
        for k in range(moments):
            values[:, k] = [rho.dot(load) / f for rho, f in zip(occupations, flux, strict=True)]
            u = solver.solve(load)
            raw = np.array([e.dot(u) for e in functionals])
            largest = int(np.argmax(np.abs(values[:, k])))
            u.scale(values[largest, k] / raw[largest])
            fields.append(u)
            if k + 1 < moments and mass_matrix is not None:
                mass_matrix.mult(u, load)
                load.scale(float(k + 2))
        load.destroy()
        for rho in occupations:
            rho.scale(1.0 / rho.dot(generator.mass))  # times E τ: the occupation, of total outflow 1
        return ExitSolution(values, flux, fields, occupations, solver.describe(), solver.iterations)
    finally:
        solver.destroy()


def _check_leaves(flux: np.ndarray, occupation: list[float]) -> None:
    bad = ~np.isfinite(flux) | (np.abs(flux) < 1e-280) | ~np.isfinite(occupation)
    if bad.any():
        raise NoFiniteAnswer(
            f"the exit time from start number {int(np.flatnonzero(bad)[0]) + 1} is not finite: no probability "
            "flows from it to any absorbing part of the boundary. Check that noise or drift leads out of the "
            "domain (summary key boundary), or add noise (process.extra_noise)."
        )


@dataclass(frozen=True)
class LevelAnswer:
    """The answer on one mesh.

    Attributes
    ----------
    moments, check : ndarray, shape (starts, K)
        With degree p (the answer) and p + 1 (its control).
    flux : ndarray, shape (starts,)
    u, difference : Function
        u_1 of degree p, and (degree p + 1) minus it, on the same nodes.
    indicators, growth, volumes : ndarray
        For this rank's own cells: relative error contributions, summed over starts; the factor by which
        their size may change; cell volumes.
    unknowns, cells : int
    """

    moments: np.ndarray
    check: np.ndarray
    flux: np.ndarray
    u: fem.Function
    difference: fem.Function
    indicators: np.ndarray
    growth: np.ndarray
    volumes: np.ndarray
    unknowns: int
    cells: int
    solver: str

    @property
    def error(self) -> np.ndarray:
        """The estimated error of `moments`, with a factor for safety and a floor for rounding."""
        return np.maximum(SAFETY * np.abs(self.check - self.moments), 1e-13 * np.abs(self.moments))


def solve_level(
    problem: Discretisation, domain: Domain, scheme: str, degree: int, location: Location, moments: int
) -> LevelAnswer:
    """Solve with degrees p + 1 and p on one mesh, and correct for its curved boundary. Collective.

    Raises
    ------
    NoFiniteAnswer, NotConverged
    """
    fine = assemble(problem, scheme, degree + 1)
    coarse, embedding = coarsen(fine)
    fine_mass = fine.mass_matrix() if moments > 1 else None
    coarse_mass = fine_mass.PtAP(embedding) if fine_mass is not None else None
    e_fine = start_functionals(fine, location)
    e_coarse = []
    for e in e_fine:
        projected = embedding.createVecRight()
        embedding.multTranspose(e, projected)
        e_coarse.append(projected)
    upper = solve_exit(fine, e_fine, fine_mass, moments)
    lower = solve_exit(coarse, e_coarse, coarse_mass, moments)
    if not (np.isfinite(upper.moments).all() and np.isfinite(lower.moments).all()):
        raise NotConverged("the linear solver returned values that are not finite; try a finer or coarser mesh")
    triangulated = fine.space.mesh
    cells = triangulated.topology.index_map(triangulated.topology.dim).size_global
    shape = _shape_corrections(fine, domain, upper)
    contributions, growth = _contributions(fine, embedding, upper, lower, e_coarse)
    answer = LevelAnswer(
        moments=lower.moments + shape,
        check=upper.moments + shape,
        flux=lower.flux,
        u=coarse.to_function(lower.fields[0]),
        difference=_difference(fine, coarse, embedding, upper, lower),
        indicators=contributions.sum(axis=0),
        growth=growth,
        volumes=cell_volumes(triangulated),
        unknowns=coarse.unknowns,
        cells=int(cells),
        solver=lower.solver,
    )
    for thing in (upper, lower, fine, coarse, embedding, fine_mass, coarse_mass, *e_fine, *e_coarse):
        if thing is not None:
            thing.destroy()
    return answer


def _shape_corrections(fine: Generator, domain: Domain, solution: ExitSolution) -> np.ndarray:
    """Return Hadamard's correction of each start and moment, shape (starts, K); 0 where cells are straight."""
    result = np.zeros_like(solution.moments)
    distance = gap(domain, fine.space.mesh, fine.degree + 2)
    if distance is None:
        return result
    fields = [fine.to_function(vector) for vector in solution.fields]
    for k, density in enumerate(solution.densities):
        occupation = fine.to_function(density)
        occupation.x.array[:] *= solution.moments[k, 0]
        result[k] = [correction(fine, distance, occupation, u) for u in fields]
    return result


def start_functionals(generator: Generator, location: Location) -> list[PETSc.Vec]:
    """Return the vectors e with e·u = u(start), on the free unknowns. Collective."""
    holder = fem.Function(generator.space)  # owns the memory of the vector
    like = holder.x.petsc_vec
    result = []
    for k in range(len(location.points)):
        whole = functional(generator.space, location, k, like)
        result.append(generator.restrict(whole))
        whole.destroy()
    return result


def _contributions(
    fine: Generator, embedding: PETSc.Mat, upper: ExitSolution, lower: ExitSolution, e_coarse: list[PETSc.Vec]
) -> tuple[np.ndarray, np.ndarray]:
    """Split the relative difference of the two exit rates over the cells.

    With densities q (∫q = 1), shapes h = u/u(x) and rates k = 1/Eτ: ``k_{p+1} - k_p =
    (q_{p+1} - q_p)·(B h_p - k_p m)``, exactly. In the bottom of a well h is flat to all digits and its
    residual lost in rounding, although these cells count as much as any (q is large where 1 - h is
    small): they must not get coarser, and finer where q itself is not resolved.

    Returns
    -------
    contributions : ndarray, shape (starts, own cells)
    growth : ndarray, shape (own cells,)
        By what factor a cell's size may change.
    """
    h = embedding.createVecLeft()
    embedding.mult(lower.fields[0], h)
    scale = h.norm(PETSc.NormType.INFINITY)
    row_size = fine.matrix.getDiagonal()
    row_size.abs()
    residual, q, work = h.duplicate(), h.duplicate(), h.duplicate()
    fine.matrix.mult(h, residual)
    result, growth = [], np.full(len(_own_cells(fine.space)), GROW)
    for k, (q_fine, q_coarse) in enumerate(zip(upper.densities, lower.densities, strict=True)):
        at_start = e_coarse[k].dot(lower.fields[0])
        rate = 1.0 / lower.moments[k, 0]
        embedding.mult(q_coarse, q)
        r = residual.getArray() / at_start - rate * fine.mass.getArray()
        known = np.abs(r) > 4e-16 * scale / abs(at_start) * row_size.getArray()
        work.setArray((q_fine.getArray() - q.getArray()) * np.where(known, r, 0.0) / rate)
        result.append(np.abs(_per_cell(fine.to_function(work))))
        work.setArray(known.astype(float))
        lost = fine.to_function(work).x.array[_own_cells(fine.space)].max(axis=1) == 0
        rough = _local_error(fine.to_function(q_fine), fine.to_function(q)) > UNRESOLVED
        growth = np.minimum(growth, np.where(lost, np.where(rough, 0.5, 1.0), GROW))
    for thing in (h, residual, q, row_size, work):
        thing.destroy()
    return np.array(result), growth


def _own_cells(space: fem.FunctionSpace) -> np.ndarray:
    """Return the unknowns of this rank's own cells, shape (cells, basis functions)."""
    return space.dofmap.list[: space.mesh.topology.index_map(space.mesh.topology.dim).size_local]


def _local_error(fine: fem.Function, coarse: fem.Function) -> np.ndarray:
    """Return for each own cell the largest difference relative to the cell's largest value, at most 1.

    A constant factor between the two is not counted: it comes from elsewhere.
    """
    unknowns = _own_cells(fine.function_space)
    x, y = fine.x.array[unknowns], coarse.x.array[unknowns]
    factor = np.sum(x * y, axis=1) / np.maximum(np.sum(y * y, axis=1), 1e-300)
    top = np.maximum(np.abs(x).max(axis=1), 1e-300)
    return np.minimum(np.abs(x - factor[:, None] * y).max(axis=1) / top, 1.0)


def _per_cell(function: fem.Function) -> np.ndarray:
    """Sum unknowns over this rank's own cells, shared ones divided evenly."""
    space = function.function_space
    unknowns = _own_cells(space)
    shares = fem.Function(space)
    np.add.at(shares.x.array, unknowns.ravel(), 1.0)
    shares.x.scatter_reverse(la.InsertMode.add)
    shares.x.scatter_forward()
    return (function.x.array[unknowns] / shares.x.array[unknowns]).sum(axis=1)


def _difference(
    fine: Generator, coarse: Generator, embedding: PETSc.Mat, upper: ExitSolution, lower: ExitSolution
) -> fem.Function:
    """Return u_{p+1} - u_p at the nodes of degree p."""
    vector = embedding.createVecLeft()
    embedding.mult(lower.fields[0], vector)
    vector.aypx(-1.0, upper.fields[0])
    on_fine = fine.to_function(vector)
    on_coarse = fem.Function(coarse.space, name="error")
    on_coarse.interpolate(on_fine)
    on_coarse.x.scatter_forward()
    vector.destroy()
    return on_coarse


def cell_volumes(domain: mesh.Mesh) -> np.ndarray:
    """Return the volumes of this rank's own cells. Collective."""
    d = domain.topology.dim
    owned = domain.topology.index_map(d).size_local
    return (cell_sizes(domain).x.array[:owned] / 0.6) ** d


def require_exit(boundary: Boundary) -> None:
    """Raise NoFiniteAnswer if the process can leave nowhere."""
    if boundary.measures["absorbing"] > 0:
        return
    raise NoFiniteAnswer(
        "the process cannot leave the domain: "
        f"{boundary.measures['reflecting']:.6g} of the boundary is reflecting, "
        f"{boundary.measures['characteristic']:.6g} has neither noise across it nor drift leading out. "
        "The mean exit time is infinite. Remove a name from "
        "domain.reflecting, add noise (process.extra_noise), or choose another domain."
    )
