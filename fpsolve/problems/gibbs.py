"""The mean exit time on one mesh by Scharfetter-Gummel weights, with an error estimate from two meshes."""

from __future__ import annotations

from mpi4py import MPI

import numpy as np
from dolfinx import fem

from fpsolve.errors import InputError
from fpsolve.fem.boundary import Boundary
from fpsolve.fem.generator import Generator
from fpsolve.fem.meshing import SizeField, Triangulation, make_mesh
from fpsolve.fem.points import Location, locate
from fpsolve.fem.scharfetter_gummel import assemble_gibbs
from fpsolve.model.domains import Domain
from fpsolve.model.process import Process
from fpsolve.problems.level import (
    ExitSolution,
    LevelAnswer,
    cell_volumes,
    require_exit,
    solve_exit,
    start_functionals,
)


def solve_gibbs_level(
    process: Process,
    domain: Domain,
    triangulation: Triangulation,
    size: float | SizeField,
    location: Location,
    moments: int,
    comm: MPI.Comm,
) -> tuple[Boundary, LevelAnswer]:
    """Solve on the given mesh and one of twice its size; the error is a third of the difference. Collective.

    The scheme has order two, so ``u_h - u ≈ (u_2h - u_h)/3`` where the mesh resolves the solution.
    """
    if not isinstance(size, float):
        raise InputError("mesh.size", type(size).__name__, "a uniform mesh size with the Scharfetter-Gummel scheme")
    generator, solution, u = _solve(process, triangulation, domain.reflecting, location, moments)
    wide = make_mesh(domain, 2 * size, 1, comm)
    there = locate(wide.mesh, location.points)
    other, control, u_wide = _solve(process, wide, domain.reflecting, there, moments)
    difference = fem.Function(u.function_space, name="error")
    difference.x.array[:] = (u.x.array - _on_mesh(u_wide, u.function_space).x.array) / 3
    mesh = triangulation.mesh
    volumes = cell_volumes(mesh)
    answer = LevelAnswer(
        moments=solution.moments,
        check=solution.moments + (solution.moments - control.moments) / 3,
        flux=solution.flux,
        u=u,
        difference=difference,
        indicators=np.zeros_like(volumes),
        growth=np.ones_like(volumes),
        volumes=volumes,
        unknowns=generator.unknowns,
        cells=int(mesh.topology.index_map(mesh.topology.dim).size_global),
        solver=solution.solver,
    )
    boundary = generator.boundary
    for thing in (solution, control, generator, other):
        thing.destroy()
    return boundary, answer


def _solve(
    process: Process, triangulation: Triangulation, reflecting: tuple[str, ...], location: Location, moments: int
) -> tuple[Generator, ExitSolution, fem.Function]:
    generator, _ = assemble_gibbs(process, triangulation, reflecting)
    require_exit(generator.boundary)
    functionals = start_functionals(generator, location)
    mass = generator.mass_matrix()
    solution = solve_exit(generator, functionals, mass, moments)
    for thing in (mass, *functionals):
        thing.destroy()
    return generator, solution, generator.to_function(solution.fields[0])


def _on_mesh(function: fem.Function, space: fem.FunctionSpace) -> fem.Function:
    """Interpolate to the nodes of another mesh; 0 outside the first one. Collective."""
    index_map = space.mesh.topology.index_map(space.mesh.topology.dim)
    cells = np.arange(index_map.size_local + index_map.num_ghosts, dtype=np.int32)
    data = fem.create_interpolation_data(space, function.function_space, cells, padding=1e-6)
    result = fem.Function(space)
    result.interpolate_nonmatching(function, cells, data)
    result.x.scatter_forward()
    return result
