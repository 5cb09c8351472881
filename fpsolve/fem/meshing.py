"""Meshes of domains: made on rank 0, distributed, with every boundary facet tagged.

The mesh is a function of domain, size and order alone: it does not depend on the number of ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mpi4py import MPI

import basix.ufl
import numpy as np
import ufl
from dolfinx.mesh import (
    Mesh,
    MeshTags,
    create_mesh,
    exterior_facet_indices,
    meshtags,
)

from fpsolve.errors import InputError
from fpsolve.fem.curved import CELLS, MAX_ORDER, lattice
from fpsolve.fem.gmsh_geometry import MeshingError
from fpsolve.fem.parallel import on_root
from fpsolve.fem.partition import cell_partitioner
from fpsolve.fem.shapes import NodalMesh, mesh_of
from fpsolve.fem.spacing import SizeField, checked_size
from fpsolve.model.domains import Domain, MeshFile
from fpsolve.model.simplices import match_rows

__all__ = ["MeshingError", "SizeField", "Triangulation", "make_mesh"]


@dataclass(frozen=True)
class Triangulation:
    """A distributed simplex mesh with named boundary parts.

    Attributes
    ----------
    mesh : dolfinx.mesh.Mesh
        Ghost mode shared_facet.
    facet_tags : dolfinx.mesh.MeshTags
        All exterior facets that this rank owns.
    parts : dict
        Name of each boundary part -> its tag; the same on every rank.
    """

    mesh: Mesh
    facet_tags: MeshTags
    parts: dict[str, int]


def make_mesh(domain: Domain, size: float | SizeField, order: int, comm: MPI.Comm) -> Triangulation:
    """Mesh a domain with simplices. Collective.

    Parameters
    ----------
    domain : Interval, Box, Ball, Sublevel, MeshFile or Moved
    size : float or SizeField
        Target edge length. Curved boundaries get at least 8 edges per full turn, whatever the size. The cells of
        a mesh file are bisected until they are small enough, never made larger (``inf``: the file as it is).
    order : int
        Degree of the geometry of `Ball`, `Sublevel` and `Moved` (dimension 2: up to 5, dimension 3: up to 3), whose
        boundary nodes lie on the boundary to rounding. The others have straight cells; mesh files keep their order.
    comm : MPI.Comm

    Raises
    ------
    InputError
        If the size or order cannot be used, the mesh would be too large, or the domain has no usable boundary.
    MeshingError
        If gmsh fails.
    MissingPackage
        If gmsh cannot be imported.
    """
    made: list[NodalMesh] = []

    def work() -> tuple[Any, ...]:
        result = mesh_of(domain, checked_size(size, domain.dimension), _checked_order(order, domain))
        made.append(result)
        return result.order, result.facets, result.labels, result.parts

    degree, facets, labels, parts = on_root(comm, work)
    d = domain.dimension
    if made:
        cells, nodes = made[0].cells, made[0].nodes
    else:
        cells, nodes = np.empty((0, len(lattice(d, degree))), dtype=np.int64), np.empty((0, d))
    owners = cell_partitioner(cells, nodes)
    distributed = create_mesh(comm, cells=cells, x=nodes, e=_coordinate_element(d, degree), partitioner=owners)
    return Triangulation(distributed, _tag(distributed, facets, labels), parts)


def _checked_order(order: object, domain: Domain) -> int:
    highest = MAX_ORDER[domain.dimension]
    if isinstance(order, bool) or not isinstance(order, (int, np.integer)) or not order >= 1:
        raise InputError("mesh.order", order, f"an integer from 1 to {highest}")
    if order > highest and not isinstance(domain, MeshFile):
        raise InputError("mesh.order", order, f"an integer from 1 to {highest}")
    return int(order)


def _coordinate_element(d: int, order: int) -> ufl.Mesh:
    name = ("interval", "triangle", "tetrahedron")[d - 1]
    return ufl.Mesh(basix.ufl.element("Lagrange", name, order, basix.LagrangeVariant.equispaced, shape=(d,)))


def _tag(distributed: Mesh, facets: np.ndarray, labels: np.ndarray) -> MeshTags:
    """Tag this rank's exterior facets by looking them up among `facets`, given by input node numbers."""
    topology = distributed.topology
    d = topology.dim
    for pair in ((d - 1, d), (d, d - 1), (d - 1, 0), (d, 0)):
        topology.create_connectivity(*pair)
    own = np.sort(exterior_facet_indices(topology))
    to_cell, to_facet = topology.connectivity(d - 1, d), topology.connectivity(d, d - 1)
    cells = to_cell.array[to_cell.offsets[own]]
    local = np.argmax(to_facet.array.reshape(-1, d + 1)[cells] == own[:, None], axis=1)
    corners = np.array(basix.topology(CELLS[d - 1])[d - 1])[local]
    geometry = distributed.geometry
    dofmap = geometry.dofmaps[0] if hasattr(geometry, "dofmaps") and not callable(geometry.dofmaps) else geometry.dofmap
    vertices = np.asarray(geometry.input_global_indices)[np.take_along_axis(dofmap[cells], corners, axis=1)]
    at = match_rows(np.sort(vertices, axis=1), np.sort(facets, axis=1))
    tags = np.where(at >= 0, labels[at], 0).astype(np.int32)
    result = meshtags(distributed, d - 1, own.astype(np.int32), tags)
    result.name = "boundary parts"
    return result
