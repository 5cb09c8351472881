"""Where the process can leave: the boundary parts of a degenerate equation (Fichera, Oleinik-Radkevich).

With n outward, Dirichlet data belong to ``{n·a n > 0}`` and to ``{n·a n = 0, β·n < 0}`` only
(mathematics.md section 1). Elsewhere the process never leaves and nothing is imposed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mpi4py import MPI

import basix
import numpy as np
import ufl
from dolfinx import fem, mesh

from fpsolve.model.process import Process

EXIT, REFLECTING, CHARACTERISTIC = 1, 2, 3
#: n·a n below this part of tr a counts as zero; curved elements know n only approximately.
TANGENTIAL = 1e-6


@dataclass(frozen=True)
class Boundary:
    """The exterior facets by what happens there.

    Attributes
    ----------
    tags : dolfinx.mesh.MeshTags
        `EXIT`, `REFLECTING` or `CHARACTERISTIC` for each exterior facet.
    measures : dict
        Length (area, number of points) of ``absorbing``, ``reflecting`` and ``characteristic`` parts.
    ends : ndarray, shape (k, 2)
        In two dimensions the points where an exit by drift alone ends (a facet's middle if that is inside of it), on
        every rank: the mean exit time of a kinetic process grows like the root of the distance from there.
    """

    tags: mesh.MeshTags
    measures: dict[str, float]
    ends: np.ndarray

    @property
    def exit_facets(self) -> np.ndarray:
        """The facets (local numbers) through which the process can leave."""
        return self.tags.find(EXIT)


def classify(
    process: Process, facet_tags: mesh.MeshTags, domain: mesh.Mesh, reflecting: Sequence[int], degree: int
) -> Boundary:
    """Classify all exterior facets. Collective.

    Parameters
    ----------
    process : Process
        The criterion is evaluated with its own coefficients, not with interpolated ones.
    facet_tags : MeshTags
        All exterior facets, tagged by boundary part.
    reflecting : sequence of int
        The tags declared reflecting by the user.
    degree : int
        The criterion is looked at in the points of a facet quadrature of this degree.
    """
    facets = facet_tags.indices
    x, n = facet_points(domain, facets, degree)
    d = domain.geometry.dim
    flat, normal = x.reshape(-1, d), n.reshape(-1, d)
    a, beta = process.diffusion(flat), process.beta(flat)
    normal_diffusion = np.einsum("ki,kij,kj->k", normal, a, normal)
    speed = np.linalg.norm(beta, axis=1)
    diffusive = normal_diffusion > TANGENTIAL * np.trace(a, axis1=1, axis2=2)
    led_out = ~diffusive & (np.sum(beta * normal, axis=1) < -1e-10 * speed) & (speed > 0)
    leaves = (diffusive | led_out).reshape(x.shape[:2]).any(axis=1)
    kinds = np.where(leaves, EXIT, CHARACTERISTIC).astype(np.int32)
    kinds[np.isin(facet_tags.values, list(reflecting))] = REFLECTING
    tags = mesh.meshtags(domain, domain.topology.dim - 1, facets, kinds)
    names = {"absorbing": EXIT, "reflecting": REFLECTING, "characteristic": CHARACTERISTIC}
    by_drift = ~diffusive.reshape(x.shape[:2]).any(axis=1) & (kinds == EXIT)
    partly = by_drift & ~led_out.reshape(x.shape[:2]).all(axis=1)
    ends = _ends(domain, facets[by_drift], facets[kinds == CHARACTERISTIC], x[partly].mean(axis=1))
    return Boundary(tags, {name: _measure(domain, tags, kind) for name, kind in names.items()}, ends)


def _ends(domain: mesh.Mesh, exits: np.ndarray, others: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the corners that facets of both kinds share, and the points `inside`, of all ranks. Collective."""
    if domain.topology.dim != 2:
        return np.empty((0, domain.topology.dim))
    corners = [_corners_of(domain, part) for part in (exits, others)]
    parts = domain.comm.allgather((*corners, inside))
    left, right, within = (np.concatenate([part[k] for part in parts]) for k in range(3))
    if not len(left):
        return within
    # a corner has the same coordinates, bit by bit, on every rank
    met = np.unique(left, axis=0)
    return np.concatenate([met[(met[:, None] == right[None]).all(axis=2).any(axis=1)], within])


def _corners_of(domain: mesh.Mesh, facets: np.ndarray) -> np.ndarray:
    """Return the corners (n, 2) of edges, repeated. dolfinx divides by zero where there are none."""
    if not len(facets):
        return np.empty((0, 2))
    nodes = mesh.entities_to_geometry(domain, 1, facets.astype(np.int32))[:, :2]
    return np.asarray(domain.geometry.x[nodes.ravel(), :2])


def facet_points(domain: mesh.Mesh, facets: np.ndarray, degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Return quadrature points and outward unit normals of exterior facets, each (facets, points, d).

    Computed from the mesh map, so that curved facets have their own normal in each point.
    """
    d = domain.topology.dim
    cell_type = (basix.CellType.interval, basix.CellType.triangle, basix.CellType.tetrahedron)[d - 1]
    cmap = domain.geometry.cmap
    element = basix.create_element(basix.ElementFamily.P, cell_type, cmap.degree, basix.LagrangeVariant(cmap.variant))
    vertices, faces = np.asarray(basix.geometry(cell_type)), basix.topology(cell_type)[d - 1]
    normals = np.asarray(basix.cell.facet_outward_normals(cell_type))
    points = _facet_quadrature(d, degree)
    cells, local = _cells_and_local_facets(domain, facets)
    x = np.zeros((len(facets), len(points), d))
    n = np.zeros_like(x)
    for k, face in enumerate(faces):
        corners = vertices[face]
        reference = corners[0] + points @ (corners[1:] - corners[0])
        table = np.asarray(element.tabulate(1, reference))[..., 0]  # (1 + d, points, nodes)
        here = np.flatnonzero(local == k)
        nodes = domain.geometry.x[domain.geometry.dofmap[cells[here]]][:, :, :d]
        x[here] = np.einsum("pn,cni->cpi", table[0], nodes)
        jacobian = np.einsum("jpn,cni->cpij", table[1:], nodes)
        # the cofactor of the map turns normals; its sign is that of the determinant
        turned = np.einsum("cpji,j->cpi", np.linalg.inv(jacobian), normals[k])
        n[here] = turned / np.linalg.norm(turned, axis=2, keepdims=True)
    return x, n


def _facet_quadrature(d: int, degree: int) -> np.ndarray:
    if d == 1:
        return np.zeros((1, 0))
    facet_type = basix.CellType.interval if d == 2 else basix.CellType.triangle
    return np.asarray(basix.make_quadrature(facet_type, degree)[0])


def _cells_and_local_facets(domain: mesh.Mesh, facets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    tdim = domain.topology.dim
    domain.topology.create_connectivity(tdim - 1, tdim)
    domain.topology.create_connectivity(tdim, tdim - 1)
    to_cell = domain.topology.connectivity(tdim - 1, tdim)
    to_facet = domain.topology.connectivity(tdim, tdim - 1)
    cells = to_cell.array[to_cell.offsets[facets]]
    all_local = to_facet.array.reshape(-1, tdim + 1)[cells]
    return cells, np.argmax(all_local == facets[:, None], axis=1)


def _measure(domain: mesh.Mesh, tags: mesh.MeshTags, kind: int) -> float:
    one = fem.Constant(domain, np.float64(1.0))
    form = fem.form(one * ufl.Measure("ds", domain=domain, subdomain_data=tags)(kind))
    return float(domain.comm.allreduce(fem.assemble_scalar(form), op=MPI.SUM))
