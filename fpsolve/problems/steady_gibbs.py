"""The invariant density and the first eigenvalues by Scharfetter-Gummel weights.

The density at the nodes is exact; its interpolation error is integrated, and a mesh of twice the size controls the
eigenvalues.
"""

from __future__ import annotations

from collections.abc import Callable

from petsc4py import PETSc

import numpy as np

from fpsolve.fem.cell_quadrature import CellQuadrature
from fpsolve.fem.generator import Generator
from fpsolve.fem.meshing import Triangulation, make_mesh
from fpsolve.fem.scharfetter_gummel import assemble_gibbs
from fpsolve.model.domains import Domain
from fpsolve.model.expressions import Formula
from fpsolve.model.process import Process
from fpsolve.problems.level import cell_volumes
from fpsolve.problems.steady_level import (
    ROUNDING,
    Known,
    SteadyLevel,
    calibrated,
    cell_count,
    differences_of,
    eigenvalue_errors,
    expectations,
    invariance,
    solved,
)


def solve_gibbs_steady(
    process: Process,
    domain: Domain,
    triangulation: Triangulation,
    size: float,
    count: int,
    observables: tuple[Formula, ...],
    shift: float,
    last: Known | None,
) -> SteadyLevel:
    """Solve with Scharfetter-Gummel weights on a mesh and one of twice its size. Collective."""
    comm = triangulation.mesh.comm
    parts = tuple(triangulation.parts)
    both = []
    for mesh in (triangulation, make_mesh(domain, 2 * size, 1, comm)):
        generator, _ = assemble_gibbs(process, mesh, parts)
        both.append(solved(generator, _lumped_mass(generator), count, shift))
    this, wide = both
    # order two: the error is a third of the distance to the mesh of twice the size
    errors = np.maximum(eigenvalue_errors(this.spectrum, wide.spectrum) / 3, this.spectrum.slow.errors.max())
    errors[0] = 0.0
    known = calibrated(this.spectrum, errors, last)
    errors = known.errors
    quadrature = CellQuadrature(triangulation.mesh, 8)
    log_weight = _log_gibbs(process)
    space = this.generator.space
    nodes = space.tabulate_dof_coordinates()[: len(this.weights), : process.dimension]
    exponent = log_weight(nodes)
    top = max(comm.allgather(float(exponent.max(initial=-np.inf))))
    rho = np.exp(exponent - top)
    rho /= comm.allreduce(float(rho @ this.weights))
    exact = np.exp(quadrature.at(log_weight) - top)
    exact /= quadrature.integral(exact)
    density = this.function(rho, "density")
    values = quadrature.values(density)
    difference = np.abs(values - exact)
    moments, check = (expectations(quadrature, v, observables) for v in (values, exact))
    level = SteadyLevel(
        triangulation=triangulation, boundary=this.generator.boundary, generator=this.generator,
        spectrum=this.spectrum, values=this.spectrum.values[:count], errors=errors[:count], zero_count=1,
        certain=True, known=known, density=density, control=density,
        density_error=max(float(quadrature.integral(difference)), ROUNDING),
        residual=invariance(this.generator.matrix, rho), moments=moments, moment_errors=differences_of(moments, check),
        indicators=quadrature.per_cell(difference), mode_indicators=np.zeros(len(values)),
        volumes=cell_volumes(triangulation.mesh), quadrature=quadrature, unknowns=this.generator.unknowns,
        cells=cell_count(triangulation),
    )  # fmt: skip
    for thing in (wide.generator, wide.mass, this.mass):
        thing.destroy()
    return level


def _lumped_mass(generator: Generator) -> PETSc.Mat:
    """Return diag(m). Collective.

    Not `Generator.mass_matrix`: PETSc 3.22 converts a diagonal matrix to a wrong one on several ranks.
    """
    matrix = PETSc.Mat().createAIJ(generator.matrix.getSizes(), nnz=1, comm=generator.matrix.getComm())
    matrix.setDiagonal(generator.mass)
    matrix.assemble()
    return matrix


def _log_gibbs(process: Process) -> Callable[[np.ndarray], np.ndarray]:
    """Return x -> -L/(ε²σ), the logarithm of the Gibbs weight."""
    landscape = process.landscape
    assert landscape is not None  # checked by the caller with a message

    def log_weight(x: np.ndarray) -> np.ndarray:
        return -landscape.loss(x) / process.diffusion(x)[:, 0, 0] if len(x) else np.zeros(0)

    return log_weight
