"""The weak form of -A in divergence form, ``B(u, v) ~ ∫ (-A u) v`` with ``-A u = -div(a∇u) + β·∇u``.

Discontinuous elements: symmetric interior penalty with upwinding for degenerate diffusion (Houston,
Schwab, Süli 2002), exit conditions weakly. Continuous elements: plain Galerkin. In both, ``B(1, v)``
is the exit terms alone, so the transpose without them conserves mass exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import ufl
from dolfinx import fem, la, mesh

from fpsolve.fem.boundary import EXIT, Boundary
from fpsolve.fem.coefficients import Coefficients

#: Interior penalty C_p; 0.5 is unstable and 2 to 4 best in the measurements of numerics.md section 1.2.
PENALTY = 4.0


def cell_sizes(domain: mesh.Mesh) -> fem.Function:
    """Return h_K = 0.6 (|K|)^(1/d), cellwise constant. Collective.

    Assembled from the mesh map, since FFCx has no cell volume on curved meshes.
    """
    d = domain.topology.dim
    h = fem.Function(fem.functionspace(domain, ("Discontinuous Lagrange", 0)))
    volume = fem.assemble_vector(fem.form(ufl.TestFunction(h.function_space) * ufl.dx))
    h.x.array[:] = volume.array
    h.x.scatter_reverse(la.InsertMode.add)
    h.x.scatter_forward()
    h.x.array[:] = 0.6 * np.abs(h.x.array) ** (1.0 / d)
    return h


def measures(domain: mesh.Mesh, boundary: Boundary, degree: int) -> tuple[Any, Any, Any]:
    """Return (dx, dS, ds over the exit) with the quadrature used for elements of `degree`."""
    metadata = {"quadrature_degree": 2 * degree + 2}
    dx = ufl.Measure("dx", domain=domain, metadata=metadata)
    dS = ufl.Measure("dS", domain=domain, metadata=metadata)
    ds = ufl.Measure("ds", domain=domain, subdomain_data=boundary.tags, metadata=metadata)
    return dx, dS, ds(EXIT)


def _negative_part(x: Any) -> Any:
    return (x - abs(x)) / 2


def dg_form(space: fem.FunctionSpace, c: Coefficients, boundary: Boundary, degree: int) -> Any:
    """Return the bilinear form on discontinuous elements of `degree`."""
    domain = space.mesh
    dx, dS, exits = measures(domain, boundary, degree)
    u, v = ufl.TrialFunction(space), ufl.TestFunction(space)
    n, h = ufl.FacetNormal(domain), cell_sizes(domain)
    a, b = c.a, c.beta
    inside = ufl.dot(a * ufl.grad(u), ufl.grad(v)) * dx + ufl.dot(b, ufl.grad(u)) * v * dx
    np_, ap = n("+"), a("+")  # a and β are continuous
    jump_u, jump_v = u("+") - u("-"), v("+") - v("-")
    flux_u = ufl.dot(ap * ufl.avg(ufl.grad(u)), np_)
    flux_v = ufl.dot(ap * ufl.avg(ufl.grad(v)), np_)
    width = ufl.min_value(h("+"), h("-"))
    penalty = PENALTY * degree**2 * ufl.dot(np_, ap * np_) / width
    bn = ufl.dot(b("+"), np_)
    between = (penalty * jump_u * jump_v - flux_u * jump_v - flux_v * jump_u) * dS
    upwind = -(_negative_part(bn) * v("+") - _negative_part(-bn) * v("-")) * jump_u * dS
    an = a * n
    leaving = exit_strength(c, domain, degree) * u * v - ufl.dot(an, ufl.grad(u)) * v - ufl.dot(an, ufl.grad(v)) * u
    return inside + between + upwind + leaving * exits


def exit_strength(c: Coefficients, domain: mesh.Mesh, degree: int) -> Any:
    """Return the weight of u v on the exit: penalty of n·a n and, where the drift leads out, its flux."""
    n, h = ufl.FacetNormal(domain), cell_sizes(domain)
    return PENALTY * degree**2 * ufl.dot(n, c.a * n) / h - _negative_part(ufl.dot(c.beta, n))


def dg_outflow(space: fem.FunctionSpace, c: Coefficients, boundary: Boundary, degree: int) -> Any:
    """Return the linear form v -> B(1, v): the exit terms with u = 1, without any cancellation."""
    domain = space.mesh
    exits = measures(domain, boundary, degree)[2]
    v, n = ufl.TestFunction(space), ufl.FacetNormal(domain)
    return (exit_strength(c, domain, degree) * v - ufl.dot(c.a * n, ufl.grad(v))) * exits


def cg_form(space: fem.FunctionSpace, c: Coefficients, boundary: Boundary, degree: int) -> Any:
    """Return the bilinear form on continuous elements, without any boundary condition."""
    dx = measures(space.mesh, boundary, degree)[0]
    u, v = ufl.TrialFunction(space), ufl.TestFunction(space)
    return ufl.dot(c.a * ufl.grad(u), ufl.grad(v)) * dx + ufl.dot(c.beta, ufl.grad(u)) * v * dx
