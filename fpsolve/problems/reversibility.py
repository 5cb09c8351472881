"""The probability current of the invariant density, detailed balance, and the Poincaré constant."""

from __future__ import annotations

from dataclasses import dataclass

from petsc4py import PETSc

import numpy as np
import ufl
from dolfinx import fem, la
from dolfinx.fem.petsc import assemble_matrix

from fpsolve.fem.boundary import Boundary
from fpsolve.fem.cell_quadrature import CellQuadrature
from fpsolve.fem.coefficients import interpolate
from fpsolve.fem.forms import measures
from fpsolve.fem.spectrum import Pencil
from fpsolve.model.process import Process

#: The current counts as zero if it is at most this multiple of its own change from degree p to p + 1 ...
INDISTINCT = 2.0
#: ... or so small relative to its two parts.
NEGLIGIBLE = 1e-9
#: Cells in which ρ stays below this part of its maximum are left out of the Poincaré problem in any case ...
FLOOR = 1e-8
#: ... and all below the highest cell in which the two degrees differ by more than this part.
RELIABLE = 0.1
#: Factor of the level that tells how much the truncation matters.
WIDER = 4.0
#: a counts as degenerate where its smallest eigenvalue is below this part of its largest one anywhere.
DEGENERATE = 1e-10


@dataclass(frozen=True)
class Current:
    """J = -(a∇ρ + βρ).

    Attributes
    ----------
    field : dolfinx Function
        Vector, discontinuous elements of the density's degree.
    relative : float
        ``‖J‖₁ / (‖a∇ρ‖₁ + ‖βρ‖₁)``.
    error : float
        The same of its change from degree p to p + 1: its discretisation error.
    """

    field: fem.Function
    relative: float
    error: float

    @property
    def vanishes(self) -> bool:
        """Whether J is 0 as far as the discretisation can tell."""
        return self.relative <= max(INDISTINCT * self.error, NEGLIGIBLE)


def current(process: Process, density: fem.Function, control: fem.Function, quadrature: CellQuadrature) -> Current:
    """Return the current of `density` and its size, with `control` as the better density. Collective."""
    a, beta = quadrature.at(process.diffusion), quadrature.at(process.beta)
    flux, parts = _flux(quadrature, density, a, beta)
    better, _ = _flux(quadrature, control, a, beta)
    scale = float(quadrature.integral(parts))
    size = float(quadrature.integral(np.linalg.norm(flux, axis=2))) / scale
    error = float(quadrature.integral(np.linalg.norm(flux - better, axis=2))) / scale
    return Current(_field(process, density), size, error)


def no_current(density: fem.Function) -> Current:
    """Return the current 0 of a scheme that is reversible by construction."""
    domain = density.function_space.mesh
    space = fem.functionspace(domain, ("Discontinuous Lagrange", 1, (domain.geometry.dim,)))
    return Current(fem.Function(space, name="current"), 0.0, 0.0)


def _flux(
    quadrature: CellQuadrature, density: fem.Function, a: np.ndarray, beta: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return J and ``|a∇ρ| + |βρ|`` at the points."""
    diffusive = np.einsum("cqij,cqj->cqi", a, quadrature.gradients(density))
    drifting = beta * quadrature.values(density)[..., None]
    return -(diffusive + drifting), np.linalg.norm(diffusive, axis=2) + np.linalg.norm(drifting, axis=2)


def _field(process: Process, density: fem.Function) -> fem.Function:
    domain, degree = density.function_space.mesh, density.function_space.element.basix_element.degree
    d = domain.geometry.dim
    space = fem.functionspace(domain, ("Discontinuous Lagrange", degree, (d,)))
    nodes = CellQuadrature(domain, 1, reference=np.asarray(space.element.basix_element.points))
    flux, _ = _flux(nodes, density, nodes.at(process.diffusion), nodes.at(process.beta))
    result = fem.Function(space, name="current")
    result.x.array.reshape(-1, d)[space.dofmap.list[: nodes.owned]] = flux
    result.x.scatter_forward()
    return result


def nondegenerate(process: Process, quadrature: CellQuadrature) -> bool:
    """Return whether a is positive definite at all quadrature points. Collective."""
    eigenvalues = np.linalg.eigvalsh(quadrature.at(process.diffusion))
    ends = (float(eigenvalues[..., 0].min(initial=np.inf)), float(eigenvalues[..., -1].max(initial=0.0)))
    every = quadrature.comm.allgather(ends)
    return min(low for low, _ in every) > DEGENERATE * max(high for _, high in every)


@dataclass(frozen=True)
class Poincare:
    """The constant of (50) on the set where ρ is known.

    Attributes
    ----------
    value : float or None
        None where that set falls apart.
    error : float
        Estimated: change with the density of lower degree, and with a smaller set.
    floor : float
        The set is that of the cells in which ρ exceeds this part of its maximum.
    """

    value: float | None
    error: float
    floor: float


def poincare(
    process: Process, density: fem.Function, control: fem.Function, boundary: Boundary, quadrature: CellQuadrature
) -> Poincare:
    """Return the smallest λ > 0 of ``∫∇fᵀa∇g ρ = λ∫f g ρ`` (50). Collective.

    Far out ρ is below its discretisation error, and a wrong weight there would give small spurious eigenvalues. The
    problem is restricted to the cells above a level of ρ above which the two degrees agree within `RELIABLE`.

    Raises
    ------
    NotConverged
    """
    values = quadrature.values(control)
    comm = quadrature.comm
    tops = values.max(axis=1)
    top = max(comm.allgather(float(tops.max(initial=0.0))))
    wrong = np.abs(values - quadrature.values(density)).max(axis=1) > RELIABLE * tops
    floor = max(FLOOR, *comm.allgather(float(tops[wrong].max(initial=0.0)) / top))
    answer, smaller = (
        _weighted_gap(process, control, boundary, quadrature, tops > level * top) for level in (floor, WIDER * floor)
    )
    other = _weighted_gap(process, density, boundary, quadrature, tops > floor * top)
    if answer is None or smaller is None or other is None:
        return Poincare(None, np.inf, floor)
    return Poincare(answer, abs(answer - smaller) + abs(answer - other), floor)


def _weighted_gap(
    process: Process, weight: fem.Function, boundary: Boundary, quadrature: CellQuadrature, cells: np.ndarray
) -> float | None:
    """Return the first positive eigenvalue on some of this rank's own cells; None if they fall apart. Collective."""
    domain, degree = weight.function_space.mesh, weight.function_space.element.basix_element.degree
    inside = fem.Function(fem.functionspace(domain, ("Discontinuous Lagrange", 0)))
    inside.x.array[: quadrature.owned] = cells
    inside.x.scatter_forward()
    values = quadrature.values(weight) * cells[:, None]
    tiny = fem.Constant(domain, 1e-3 * FLOOR * max(quadrature.comm.allgather(float(values.max(initial=0.0)))))
    space = fem.functionspace(domain, ("Lagrange", degree))
    c = interpolate(process, domain, degree + 2)
    u, v = ufl.TrialFunction(space), ufl.TestFunction(space)
    dx = measures(domain, boundary, degree)[0]
    rho = inside * ufl.max_value(weight, tiny)
    stiffness = assemble_matrix(fem.form(rho * ufl.dot(c.a * ufl.grad(u), ufl.grad(v)) * dx))
    mass = assemble_matrix(fem.form(rho * u * v * dx))
    stiffness.assemble()
    mass.assemble()
    rows = _active(space, inside)
    matrices = [matrix.createSubMatrix(rows, rows) for matrix in (stiffness, mass)]
    whole = float(quadrature.integral(values))
    typical = float(quadrature.integral(np.trace(quadrature.at(process.diffusion), axis1=2, axis2=3) * values)) / whole
    centred = quadrature.points - quadrature.integral(quadrature.points * values[..., None]) / whole
    bound = typical * whole / float(quadrature.integral(np.sum(centred**2, axis=2) * values))  # Rayleigh: f = x_i
    pencil = Pencil(matrices[0], matrices[1], domain.topology.dim, 0.3 * bound)
    try:
        found, _, _ = pencil.eigenvectors(2, np.ones(matrices[0].getLocalSize()[0]), transpose=False)
    finally:
        pencil.destroy()
        for thing in (stiffness, mass, rows, *matrices):
            thing.destroy()
    first = float(np.sort(found.real)[1])
    return first if first > 1e-9 * bound else None


def _active(space: fem.FunctionSpace, inside: fem.Function) -> PETSc.IS:
    """Return this rank's unknowns of the cells inside. Collective."""
    indicator = fem.Function(space)
    cells = np.flatnonzero(inside.x.array[: len(space.dofmap.list)] > 0)
    indicator.x.array[np.unique(space.dofmap.list[cells])] = 1.0
    index_map = space.dofmap.index_map
    # ghost cells are complete only across facets: ask the owner of an unknown through a sum
    indicator.x.scatter_reverse(la.InsertMode.add)
    own = np.flatnonzero(indicator.x.array[: index_map.size_local] > 0) + index_map.local_range[0]
    return PETSc.IS().createGeneral(own.astype(PETSc.IntType), comm=space.mesh.comm)
