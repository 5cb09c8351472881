"""Initial data on the mesh: the load ``b_i = ∫ρ₀ φ_i`` and the vector that starts the Fokker-Planck equation.

The load is what the equation needs of ρ₀: with ``M ρ(0) = b`` the discrete density has the integrals of ρ₀ against
all elements, exactly, also for a point or a Gaussian far narrower than the cells.
"""

from __future__ import annotations

import logging
from pathlib import Path

from petsc4py import PETSc

import basix.ufl
import numpy as np
import ufl
from dolfinx import fem, la

from fpsolve.errors import InputError
from fpsolve.fem.adaptive import Density, adaptive_load, resolving_parts, whole_cells
from fpsolve.fem.forms import measures
from fpsolve.fem.generator import Generator
from fpsolve.fem.parallel import agree
from fpsolve.fem.points import Location, basis_values, locate
from fpsolve.fem.projection import start_vector
from fpsolve.fem.states import load_state, matches, read_metadata, rebuild_state
from fpsolve.model.domains import Domain
from fpsolve.model.initial import DensityStart, GaussianStart, Initial, PointStart, StateStart
from fpsolve.model.process import Process

__all__ = ["start_load", "start_vector"]

log = logging.getLogger("fpsolve")

KEY = "evolve.initial"
#: Mass outside the domain that is worth a warning, and that is a mistake.
SOME, MOST = 1e-6, 0.5
#: Relative error of the mass of a state that is integrated on another mesh.
TRANSFER = 1e-3
#: In standard deviations: parts of cells that resolve a Gaussian, and where it has no mass any more (1e-18).
WIDTH, REACH = 3.0, 9.0
#: A standard deviation below this part of the domain is lost in the rounding of coordinates.
NARROWEST = 1e-8
#: Highest degree of quadrature for a state of another mesh, by dimension.
STATE_DEGREE = {1: 30, 2: 20, 3: 10}


def start_load(
    initial: Initial,
    generator: Generator,
    process: Process,
    domain: Domain | None = None,
    nonnegative: bool = False,
) -> tuple[PETSc.Vec, tuple[str, ...]]:
    """Return ``b_i = ∫ρ₀ φ_i`` on the free unknowns. Collective.

    ρ₀ is normalised: its mass in the domain is 1, so that the sum of b_i over all unknowns is 1 to rounding (over
    the free ones it is less by what lies in cells at an absorbing boundary of continuous elements).

    Parameters
    ----------
    initial : GaussianStart, DensityStart, PointStart or StateStart
    domain : Domain, optional
        A point is also checked against it, and not only against the mesh.
    nonnegative : bool
        For linear elements: make b_i >= 0 also for a state with negative values.

    Returns
    -------
    PETSc.Vec
        To be destroyed by the caller. With linear elements b_i >= 0 for all but a `StateStart`.
    tuple of str
        Warnings.

    Raises
    ------
    InputError
        On every rank, with key ``evolve.initial...``.
    """
    if isinstance(initial, GaussianStart):
        function, messages = _gaussian(initial, generator, process)
    elif isinstance(initial, DensityStart):
        function, messages = _density(initial, generator, process)
    elif isinstance(initial, PointStart):
        function, messages = _point(initial, generator, process, domain)
    else:
        function, messages = _state(initial, generator, process, nonnegative)
    load = generator.restrict(function.x.petsc_vec)
    dropped = 1.0 - load.sum()
    if dropped > SOME:
        messages.append(
            f"initial density: {dropped:.3g} of its mass lies at the absorbing boundary, within less than a cell, "
            "and counts as having left"
        )
    return load, tuple(messages)


def _gaussian(initial: GaussianStart, generator: Generator, process: Process) -> tuple[fem.Function, list[str]]:
    space = generator.space
    mean, covariance = np.array(initial.mean), np.array(initial.covariance)
    _check_length(f"{KEY}.mean", initial.mean, process)
    whitening = np.linalg.inv(np.linalg.cholesky(covariance))
    narrowest = float(np.sqrt(np.linalg.eigvalsh(covariance)[0]))
    scale = float(np.abs(space.mesh.geometry.x).max(initial=0.0))
    scale = max(space.mesh.comm.allgather(scale))
    if narrowest < NARROWEST * scale:
        raise InputError(
            f"{KEY}.covariance", initial.covariance, f"a standard deviation of at least {NARROWEST * scale:.3g}",
            "Use point = [...] for a start without spread.",
        )  # fmt: skip
    height = 1 / np.sqrt(np.linalg.det(2 * np.pi * covariance))

    def density(x: np.ndarray) -> np.ndarray:
        return height * np.exp(-0.5 * np.sum(((x - mean) @ whitening.T) ** 2, axis=1))

    parts = resolving_parts(space.mesh, mean, whitening, WIDTH, REACH)
    load = adaptive_load(space, density, parts)
    log.info("initial density: %d parts of cells, quadrature error %.1e", load.parts, load.error)
    outside = max(0.0, 1.0 - load.total)
    if outside > MOST:
        remedy = f"{outside:.3g} of the Gaussian's mass is outside."
        raise InputError(f"{KEY}.mean", initial.mean, "most of the initial density in the domain", remedy)
    messages = []
    if outside > max(SOME, 10 * load.error):
        messages.append(f"initial density: {outside:.3g} of its mass lies outside the domain; the rest was scaled to 1")
    return _scaled(load.function, load.total), messages


class _Watched:
    """A formula that must be a density; remembers where it is not."""

    def __init__(self, density: Density) -> None:
        self.density = density
        self.largest = 0.0
        self.lowest: tuple[float, np.ndarray] | None = None
        self.undefined: np.ndarray | None = None

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the values at points (n, d), zero where they cannot be used."""
        values = self.density(x)
        finite = np.isfinite(values)
        if not finite.all() and self.undefined is None:
            self.undefined = x[~finite][0]
        values = np.where(finite, values, 0.0)
        if len(values):
            worst = int(values.argmin())
            if values[worst] < 0 and (self.lowest is None or values[worst] < self.lowest[0]):
                self.lowest = float(values[worst]), x[worst]
            self.largest = max(self.largest, float(values.max()))
        return np.maximum(values, 0.0)

    def defect(self, largest: float, process: Process) -> InputError | None:
        """Return what is wrong; `largest` is the maximum over all ranks."""
        key, expected = f"{KEY}.density", "a formula that is finite and nonnegative in the whole domain"
        if self.undefined is not None:
            return InputError(key, f"not finite at {_show(process, self.undefined)}", expected)
        if self.lowest is not None and self.lowest[0] < -1e-12 * largest:
            value, x = self.lowest
            return InputError(key, f"{value:.6g} at {_show(process, x)}", expected)
        return None


def _density(initial: DensityStart, generator: Generator, process: Process) -> tuple[fem.Function, list[str]]:
    comm = generator.space.mesh.comm
    if initial.formula.variables != process.variables or initial.formula.shape:
        raise InputError(f"{KEY}.density", initial.formula.variables, f"one formula in {', '.join(process.variables)}")
    watched = _Watched(initial.density)
    load = adaptive_load(generator.space, watched, whole_cells(generator.space.mesh))
    log.info("initial density: %d parts of cells, quadrature error %.1e", load.parts, load.error)
    agree(comm, watched.defect(max(comm.allgather(watched.largest)), process))
    if not 0 < load.total < np.inf:
        remedy = "It is zero in all quadrature points; a narrow Gaussian is better given by mean and covariance."
        raise InputError(f"{KEY}.density", str(initial.formula.entries[0]), "a density with mass in the domain", remedy)
    messages = []
    if load.error > SOME:
        messages.append(f"initial density: integrated to a relative error of about {load.error:.1e} only")
    return _scaled(load.function, load.total), messages


def _point(
    initial: PointStart, generator: Generator, process: Process, domain: Domain | None
) -> tuple[fem.Function, list[str]]:
    _check_length(f"{KEY}.point", initial.point, process)
    space = generator.space
    point = np.array([initial.point], dtype=float)
    location = locate(space.mesh, point)
    inside = bool(location.found[0]) if domain is None else bool(domain.contains(point)[0])
    if not inside or not location.found[0]:
        remedy = "The straight cells at the curved boundary leave it out: use a smaller mesh.size." if inside else ""
        raise InputError(f"{KEY}.point", initial.point, "a point of the domain", remedy)
    function = fem.Function(space)
    unknowns, table = basis_values(space, location)
    if generator.degree == 1:
        # the point may lie outside its cell by rounding
        table = np.maximum(table, 0.0)
        table /= table.sum(axis=1, keepdims=True)
    function.x.array[unknowns.ravel()] = table.ravel()
    function.x.scatter_reverse(la.InsertMode.add)
    function.x.scatter_forward()
    if _on_exit(generator, location):
        remedy = "There the process has left at once."
        raise InputError(f"{KEY}.point", initial.point, "a point that is not on the absorbing boundary", remedy)
    if generator.free is not None and abs(_sum(generator, function)) < 1e-9:
        remedy = "All unknowns of its cell lie on the absorbing boundary: use a smaller mesh.size."
        raise InputError(f"{KEY}.point", initial.point, "a point farther from the absorbing boundary", remedy)
    return function, []


def _on_exit(generator: Generator, location: Location) -> bool:
    """Tell whether the point lies on the absorbing boundary: all elements that are free there vanish. Collective."""
    domain = generator.space.mesh
    d = domain.topology.dim
    facets = generator.boundary.exit_facets
    if not domain.comm.allreduce(len(facets)):
        return False
    # of this degree an element has a node inside each facet, so cells with d exit facets keep a free node
    nodes = fem.functionspace(domain, ("Lagrange", max(2, d)))
    free = fem.Function(nodes)
    free.x.array[:] = 1.0
    free.x.array[fem.locate_dofs_topological(nodes, d - 1, facets)] = 0.0
    free.x.scatter_forward()
    unknowns, table = basis_values(nodes, location)
    return bool(domain.comm.allreduce(float(np.sum(np.abs(table) * free.x.array[unknowns]))) < 1e-9)


def _sum(generator: Generator, function: fem.Function) -> float:
    part = generator.restrict(function.x.petsc_vec)
    result = float(part.norm(PETSc.NormType.NORM_1))
    part.destroy()
    return result


def _state(
    initial: StateStart, generator: Generator, process: Process, nonnegative: bool
) -> tuple[fem.Function, list[str]]:
    space, comm, key = generator.space, generator.space.mesh.comm, f"{KEY}.state"
    path = Path(initial.path)
    _check_variables(read_metadata(path, comm, key), process, key, path)
    messages: list[str] = []
    if matches(path, space, comm, key):
        density, _ = load_state(path, space, comm, key)
        function = _load_of(density, generator, lumped=generator.scheme == "sg" and not nonnegative)
        before = _total(function)
    else:
        old, _ = rebuild_state(path, comm, key)
        if old.function_space.mesh.geometry.dim != process.dimension:
            found = f"{old.function_space.mesh.geometry.dim} variables in {path}"
            raise InputError(key, found, f"{process.dimension} variables")
        before = comm.allreduce(fem.assemble_scalar(fem.form(old * ufl.dx)))
        function = _load_from_other_mesh(old, generator)
    total = _total(function)
    if not before > 0 or not total > 0:
        raise InputError(key, str(path), "a density with mass in the domain")
    lost = 1.0 - total / before  # but for the quadrature of a function with kinks
    if lost > MOST:
        raise InputError(key, str(path), "most of the density in the domain", f"{lost:.3g} of its mass is outside.")
    if lost > TRANSFER:
        messages.append(f"initial density: {lost:.3g} of the saved state's mass lies outside the mesh and was dropped")
    if nonnegative:
        total, message = _clip(function, total)
        messages += message
    return _scaled(function, total), messages


def _check_variables(metadata: object, process: Process, key: str, path: Path) -> None:
    """Compare the names of the variables, where the file has them."""
    holders = [metadata, metadata.get("settings")] if isinstance(metadata, dict) else []
    for holder in holders:
        names = holder.get("variables") if isinstance(holder, dict) else None
        if names is not None and tuple(names) != process.variables:
            raise InputError(key, f"{path} with variables {', '.join(names)}", ", ".join(process.variables))


def _load_of(density: fem.Function, generator: Generator, lumped: bool) -> fem.Function:
    """Return the load that `start_vector` turns back into the same density. Collective."""
    space = generator.space
    function = fem.Function(space)
    dx = measures(space.mesh, generator.boundary, generator.degree)[0]
    test = ufl.TestFunction(space)
    fem.assemble_vector(function.x.array, fem.form((test if lumped else density * test) * dx))
    function.x.scatter_reverse(la.InsertMode.add)
    function.x.scatter_forward()
    if lumped:
        function.x.array[:] *= density.x.array
    return function


def _load_from_other_mesh(old: fem.Function, generator: Generator) -> fem.Function:
    """Integrate a density given on another mesh, in the quadrature points of this one; zero outside. Collective."""
    space = generator.space
    domain = space.mesh
    d = domain.topology.dim
    ratio = _mean_size(domain) / _mean_size(old.function_space.mesh)
    # enough points for the kinks of the old density at the facets of smaller cells
    degree = int(min(STATE_DEGREE[d], 2 * generator.degree + 2 + 8 * ratio))
    kind = domain.basix_cell().name
    points = fem.functionspace(domain, basix.ufl.quadrature_element(kind, degree=degree))
    values = fem.Function(points)
    index_map = domain.topology.index_map(d)
    cells = np.arange(index_map.size_local + index_map.num_ghosts, dtype=np.int32)
    padding = 1e-10 * float(np.abs(domain.geometry.x).max(initial=1.0))
    padding = max(domain.comm.allgather(padding))
    data = fem.create_interpolation_data(points, old.function_space, cells, padding=padding)
    values.interpolate_nonmatching(old, cells, data)
    values.x.scatter_forward()
    function = fem.Function(space)
    dx = ufl.Measure("dx", domain=domain, metadata={"quadrature_degree": degree})
    fem.assemble_vector(function.x.array, fem.form(values * ufl.TestFunction(space) * dx))
    function.x.scatter_reverse(la.InsertMode.add)
    function.x.scatter_forward()
    return function


def _mean_size(domain: object) -> float:
    """Return the mean cell diameter. Collective."""
    d = domain.topology.dim  # type: ignore[attr-defined]
    cells = np.arange(domain.topology.index_map(d).size_local, dtype=np.int32)  # type: ignore[attr-defined]
    sums = domain.comm.allreduce(np.array([domain.h(d, cells).sum(), len(cells)]))  # type: ignore[attr-defined]
    return float(sums[0] / sums[1])


def _clip(function: fem.Function, total: float) -> tuple[float, list[str]]:
    """Set negative entries of the load to zero; return the new sum and what was done. Collective."""
    function.x.array[:] = np.maximum(function.x.array, 0.0)
    after = _total(function)
    added = after / total - 1.0
    if added <= 1e-12:
        return after, []
    return after, [f"initial density: negative values with {added:.1e} of the mass were set to zero"]


def _total(function: fem.Function) -> float:
    owned = function.function_space.dofmap.index_map.size_local
    return float(function.function_space.mesh.comm.allreduce(float(function.x.array[:owned].sum())))


def _scaled(function: fem.Function, total: float) -> fem.Function:
    function.x.array[:] /= total
    return function


def _check_length(key: str, value: tuple[float, ...], process: Process) -> None:
    if len(value) != process.dimension or not np.isfinite(value).all():
        raise InputError(key, value, f"{process.dimension} finite numbers, for {', '.join(process.variables)}")


def _show(process: Process, point: np.ndarray) -> str:
    return ", ".join(f"{name} = {value:.6g}" for name, value in zip(process.variables, point, strict=True))
