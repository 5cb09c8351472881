"""What the difference between mesh and domain does to a value: Hadamard's first-order correction.

Curved cells follow a smooth boundary to a high order only. If the true boundary lies the distance δ outside
the mesh's, then ``u_true(x) - u_mesh(x) = ∫ j δ (-∂_n u) ds`` to first order, where j is the density of the exit
place of a process started at x: the outflow of ρ with ``Bᵀ ρ = e_x``. Where u is a polynomial that the elements
hold exactly, this is the whole error.
"""

from __future__ import annotations

from typing import Any

from mpi4py import MPI

import numpy as np
import ufl
from dolfinx import fem, mesh

from fpsolve.errors import InputError
from fpsolve.fem.forms import exit_strength, measures
from fpsolve.fem.generator import Generator
from fpsolve.fem.parallel import agree
from fpsolve.model.domains import Ball, Domain, Sublevel
from fpsolve.model.moved import Moved


def gap(domain: Domain, triangulated: mesh.Mesh, degree: int) -> Any | None:
    """Return δ as a UFL expression on the boundary, or None where the mesh is exact. Collective.

    Parameters
    ----------
    degree : int
        Of the interpolation of a loss whose level set is the boundary.
    """
    x = ufl.SpatialCoordinate(triangulated)
    if isinstance(domain, Ball) and domain.dimension > 1:
        center = fem.Constant(triangulated, np.array(domain.center, dtype=float))
        radius = fem.Constant(triangulated, np.float64(domain.radius))
        return radius - ufl.sqrt(ufl.dot(x - center, x - center))
    if isinstance(domain, Moved) and isinstance(domain.base, (Ball, Sublevel)) and domain.dimension > 1:
        return _moved_gap(domain, triangulated, degree)
    if isinstance(domain, Sublevel) and domain.dimension > 1:
        loss = fem.Function(fem.functionspace(triangulated, ("Lagrange", degree)))
        nodes = loss.function_space.tabulate_dof_coordinates()[:, : domain.dimension]
        loss.x.array[:] = domain.landscape.loss(nodes) - domain.below
        return -loss / ufl.sqrt(ufl.dot(ufl.grad(loss), ufl.grad(loss)))
    return None


def _moved_gap(domain: Moved, triangulated: mesh.Mesh, degree: int) -> fem.Function:
    """Return the distance to the moved boundary along the base's normal, which is δ up to its relative square.

    It is known at the boundary's nodes only; no others count in an integral over the boundary. Collective.
    """
    result = fem.Function(fem.functionspace(triangulated, ("Lagrange", degree)))
    d = domain.dimension
    triangulated.topology.create_connectivity(d - 1, d)
    facets = mesh.exterior_facet_indices(triangulated.topology)
    nodes = fem.locate_dofs_topological(result.function_space, d - 1, facets)
    points = result.function_space.tabulate_dof_coordinates()[nodes, :d]
    failure: InputError | None = None
    try:
        result.x.array[nodes] = domain.distance(points) if len(nodes) else 0.0
    except InputError as error:
        failure = error
    agree(triangulated.comm, failure)
    result.x.scatter_forward()
    return result


def correction(generator: Generator, distance: Any, occupation: fem.Function, u: fem.Function) -> float:
    """Return ∫ j δ (-∂_n u) ds for one start. Collective.

    Parameters
    ----------
    distance : UFL expression
        δ from `gap`.
    occupation : Function
        ρ with Bᵀρ = e_x.
    u : Function
        The solution whose value at x is to be corrected.
    """
    c = generator.coefficients
    assert c is not None
    exits = measures(generator.space.mesh, generator.boundary, generator.degree)[2]
    n = ufl.FacetNormal(generator.space.mesh)
    outflow = -ufl.dot(c.a * n, ufl.grad(occupation))
    if generator.scheme == "dg":
        outflow += exit_strength(c, generator.space.mesh, generator.degree) * occupation
    form = fem.form(-outflow * distance * ufl.dot(ufl.grad(u), n) * exits)
    return float(generator.space.mesh.comm.allreduce(fem.assemble_scalar(form), op=MPI.SUM))
