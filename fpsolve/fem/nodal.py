"""Continuous Lagrange elements on straight simplices as plain arrays, the same on every rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mpi4py import MPI

import numba
import numpy as np

from fpsolve.fem.curved import lattice, straight
from fpsolve.fem.gmsh_geometry import Simplices
from fpsolve.fem.locator import ROUNDING, Locator, make_locator
from fpsolve.fem.parallel import on_root
from fpsolve.fem.shapes import mesh_of
from fpsolve.fem.spacing import Size, checked_size
from fpsolve.model.domains import Domain

#: Order of the curved cells of balls and sublevel sets, by dimension.
GEOMETRY = {1: 1, 2: 4, 3: 2}


@dataclass(frozen=True)
class Geometry:
    """The mesh with its curved cells: nodes (g, d) and cells (m, k) of the equispaced Lagrange element of an order."""

    nodes: np.ndarray
    cells: np.ndarray
    order: int


@dataclass(frozen=True)
class NodalSpace:
    """Nodes and cells of continuous elements of one degree; made by `nodal_space`.

    Attributes
    ----------
    points, corners : ndarray, shape (v, d), (m, d+1)
        Vertices and cells of the mesh.
    degree : int
    nodes : ndarray, shape (n, d)
        The equispaced Lagrange nodes; the vertices come first.
    cells : ndarray of int, shape (m, k)
    lattice : ndarray of int, shape (k, d+1)
        Barycentric coordinates of a cell's nodes times the degree.
    locator : Locator
    geometry : Geometry
        The curved cells, for integrals.
    """

    points: np.ndarray
    corners: np.ndarray
    degree: int
    nodes: np.ndarray
    cells: np.ndarray
    lattice: np.ndarray
    locator: Locator
    geometry: Geometry

    @property
    def unknowns(self) -> int:
        """The number of nodes."""
        return len(self.nodes)

    def holding(self, x: np.ndarray, domain: Domain) -> np.ndarray:
        """Return for points (n, d) the cell whose polynomial counts there, -1 outside of the domain.

        The domain's own geometry decides near its boundary: a point of it in no cell gets the next one.
        """
        cells, smallest = self.locator.locate(x)
        near = np.where(cells >= 0, self.locator.at_boundary[cells], True)
        doubtful = np.flatnonzero(near | (smallest < -ROUNDING))
        inside = domain.contains(x[doubtful])
        cells[doubtful[~inside]] = -1
        lost = doubtful[inside & (cells[doubtful] < 0)]
        if len(lost):
            cells[lost] = self.locator.nearest(x[lost])
        return cells

    def nearest(self, x: np.ndarray) -> np.ndarray:
        """Return for points (n, d) the cell that holds each, or the next one for points outside of the mesh."""
        cells, smallest = self.locator.locate(x)
        lost = np.flatnonzero((cells < 0) | (smallest < -0.5))
        if len(lost):
            cells[lost] = self.locator.nearest(x[lost])
        return cells

    def interpolate(self, values: np.ndarray, x: np.ndarray, domain: Domain) -> np.ndarray:
        """Return the piecewise polynomial with these nodal values at points (n, d), 0 outside of the domain."""
        cells = self.holding(x, domain)
        result = np.zeros(len(x))
        inside = np.flatnonzero(cells >= 0)
        table = basis(self, x[inside], cells[inside])
        result[inside] = np.sum(values[self.cells[cells[inside]]] * table, axis=1)
        return result


@dataclass(frozen=True)
class NodalField:
    """A function that is 0 outside of the domain and a piecewise polynomial inside; the same on every rank.

    Attributes
    ----------
    space : NodalSpace
        Its nodes, cells and, in ``points`` and ``corners``, the mesh.
    values : ndarray, shape (unknowns,)
        At the nodes; on the boundary the limit from inside.
    domain : Domain
    """

    space: NodalSpace
    values: np.ndarray
    domain: Domain

    def at(self, points: np.ndarray) -> np.ndarray:
        """Return the values at points (n, d). Not collective."""
        return self.space.interpolate(self.values, np.asarray(points, dtype=float), self.domain)


def nodal_space(domain: Domain, size: Size, degree: int, comm: MPI.Comm) -> NodalSpace:
    """Mesh a domain as for the diffusion, with straight cells, and return its elements. Collective.

    Raises
    ------
    InputError, MeshingError, MissingPackage
        See `fpsolve.fem.meshing.make_mesh`.
    """

    geometry = on_root(comm, lambda: _mesh(domain, size))
    corners = geometry.cells[:, : domain.dimension + 1]
    used, local = np.unique(corners, return_inverse=True)
    return space_on(geometry.nodes[used], local.reshape(corners.shape), degree, geometry)


def _mesh(domain: Domain, size: Size) -> Geometry:
    made = mesh_of(domain, checked_size(size, domain.dimension), GEOMETRY[domain.dimension])
    return Geometry(made.nodes, made.cells, made.order)


def space_on(points: np.ndarray, corners: np.ndarray, degree: int, geometry: Geometry | None = None) -> NodalSpace:
    """Return elements of a degree on a mesh."""
    d = points.shape[1]
    empty = np.empty((0, d), dtype=np.int64)
    nodes, cells = straight(Simplices(points, corners, empty, np.empty(0, dtype=np.int64)), degree)
    grid = np.ascontiguousarray(lattice(d, degree), dtype=np.int64)
    located = make_locator(points, corners)
    return NodalSpace(points, corners, degree, nodes, cells, grid, located, geometry or Geometry(points, corners, 1))


def basis(space: NodalSpace, x: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Return the basis functions of the given cells at points (n, d), shape (n, k); beyond a cell they continue."""
    result = np.empty((len(x), len(space.lattice)))
    locator = space.locator
    _basis(x, cells, locator.origin, locator.inverse, space.lattice, space.degree, result)
    return result


@numba.njit(cache=True, nogil=True)
def shape_functions(
    x: Any, origin: Any, inverse: Any, lattice: Any, degree: int, clamp: bool, local: Any, factors: Any, out: Any
) -> None:
    """Write the Lagrange basis at x into `out` (k,), the barycentric coordinates into `local` (d+1,).

    ``φ_α = Π_i Π_{m<α_i} (pλ_i - m)/(m + 1)``. With `clamp` the coordinates are first made nonnegative and scaled
    to sum 1. `factors` (d+1, p+1) is scratch.
    """
    d = x.size
    local[0] = 1.0
    for i in range(d):
        value = 0.0
        for j in range(d):
            value += inverse[i, j] * (x[j] - origin[j])
        local[i + 1] = value
        local[0] -= value
    if clamp:
        total = 0.0
        for i in range(d + 1):
            local[i] = max(local[i], 0.0)
            total += local[i]
        for i in range(d + 1):
            local[i] /= total
    for i in range(d + 1):
        factors[i, 0] = 1.0
        for m in range(degree):
            factors[i, m + 1] = factors[i, m] * (degree * local[i] - m) / (m + 1)
    for a in range(lattice.shape[0]):
        value = 1.0
        for i in range(d + 1):
            value *= factors[i, lattice[a, i]]
        out[a] = value


@numba.njit(cache=True, nogil=True)
def _basis(x: Any, cells: Any, origin: Any, inverse: Any, lattice: Any, degree: int, result: Any) -> None:
    d = x.shape[1]
    local, factors = np.empty(d + 1), np.empty((d + 1, degree + 1))
    for p in range(x.shape[0]):
        c = cells[p]
        shape_functions(x[p], origin[c], inverse[c], lattice, degree, False, local, factors, result[p])
