"""What the figures draw, collected on rank 0: pieces of cells, of boundary facets, of plane cuts; values along a line.

Cells of high order are cut into small straight pieces, so that curved boundaries look curved and a discontinuous
piecewise polynomial is shown as what it is. Nothing here knows about drawing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mpi4py import MPI

import basix
import numpy as np
from dolfinx import fem, mesh

from fpsolve.fem.boundary import Boundary
from fpsolve.fem.points import basis_values, locate

#: Pieces are about this part of the domain's extent: a few pixels, or a few times that in a cut through 3D.
FINENESS = {1: 1 / 1500, 2: 1 / 200, 3: 1 / 60}
#: The most pieces in which an edge is cut.
MAX_CUTS = {1: 64, 2: 16, 3: 6}
#: More pieces than this are merged before they are drawn.
MAX_PIECES = 300_000
CELL_TYPES = (basix.CellType.point, basix.CellType.interval, basix.CellType.triangle, basix.CellType.tetrahedron)


@dataclass(frozen=True)
class Pieces:
    """Straight simplices with values at their corners; neighbours share no corners.

    Attributes
    ----------
    corners : ndarray, shape (n, k + 1, d)
        n simplices of dimension k.
    values : ndarray, shape (n, k + 1)
    """

    corners: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Line:
    """Values along a straight line through the domain.

    Attributes
    ----------
    axis : int
        The line is parallel to this coordinate axis.
    points : ndarray, shape (n, d)
    u, difference : ndarray, shape (n,)
        The mean exit time and its signed estimated error; nan outside the domain.
    """

    axis: int
    points: np.ndarray
    u: np.ndarray
    difference: np.ndarray


@lru_cache
def subdivide(dimension: int, cuts: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut the reference simplex into cuts**dimension simplices (Kuhn's triangulation).

    Returns
    -------
    points : ndarray, shape (m, dimension)
        Reference coordinates.
    simplices : ndarray of int, shape (cuts**dimension, dimension + 1)
    """
    if dimension == 0:
        return np.zeros((1, 0)), np.zeros((1, 1), dtype=np.int64)
    # in y with cuts >= y_1 >= ... >= y_d >= 0 the simplices of the cubes' triangulation fit exactly
    numbers: dict[tuple[int, ...], int] = {}
    simplices = []
    for cube in itertools.product(range(cuts), repeat=dimension):
        for order in itertools.permutations(range(dimension)):
            walk = [list(cube)]
            for axis in order:
                walk.append([y + (i == axis) for i, y in enumerate(walk[-1])])
            if all(a >= b for corner in walk for a, b in itertools.pairwise(corner)):
                simplices.append([numbers.setdefault(tuple(corner), len(numbers)) for corner in walk])
    y = np.array(list(numbers), dtype=float) / cuts
    shifted = np.hstack([y[:, 1:], np.zeros((len(y), 1))])
    return y - shifted, np.array(simplices)


def _geometry_element(domain: mesh.Mesh) -> Any:
    cmap = domain.geometry.cmap
    return basix.create_element(
        basix.ElementFamily.P, CELL_TYPES[domain.topology.dim], cmap.degree, basix.LagrangeVariant(cmap.variant)
    )


def _tabulate(element: Any, reference: np.ndarray) -> np.ndarray:
    """Return the values of a scalar element's basis, shape (points, basis)."""
    return np.asarray(element.tabulate(0, reference))[0, :, :, 0]


def _nodes(domain: mesh.Mesh, cells: np.ndarray) -> np.ndarray:
    """Return the nodes of these cells, shape (cells, nodes, d)."""
    return domain.geometry.x[domain.geometry.dofmap[cells]][:, :, : domain.geometry.dim]


def extent(domain: mesh.Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of the box around all nodes, each of shape (d,). Collective."""
    x = domain.geometry.x[:, : domain.geometry.dim]
    d = domain.geometry.dim
    lower = x.min(axis=0) if len(x) else np.full(d, np.inf)
    upper = x.max(axis=0) if len(x) else np.full(d, -np.inf)
    return domain.comm.allreduce(lower, op=_minimum), domain.comm.allreduce(upper, op=_maximum)


def _minimum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.minimum(a, b)


def _maximum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.maximum(a, b)


def _cut_cells(function: fem.Function, cells: np.ndarray, length: float) -> Iterator[Pieces]:
    """Yield the pieces of these cells, those of equally many cuts together."""
    space = function.function_space
    domain = space.mesh
    d = domain.topology.dim
    nodes = _nodes(domain, cells)
    if not len(cells):
        return
    diameters = np.linalg.norm(np.ptp(nodes, axis=1), axis=1)
    cuts = 2 ** np.ceil(np.log2(np.clip(diameters / length, 1, MAX_CUTS[d]))).astype(int)
    shapes, basis = _geometry_element(domain), space.element.basix_element
    for n in np.unique(np.minimum(cuts, MAX_CUTS[d])):
        reference, simplices = subdivide(d, int(n))
        here = np.flatnonzero(np.minimum(cuts, MAX_CUTS[d]) == n)
        x = np.einsum("pn,cnd->cpd", _tabulate(shapes, reference), nodes[here])
        u = function.x.array[space.dofmap.list[cells[here]]] @ _tabulate(basis, reference).T
        yield Pieces(x[:, simplices].reshape(-1, d + 1, x.shape[2]), u[:, simplices].reshape(-1, d + 1))


def cell_pieces(function: fem.Function, limit: int = MAX_PIECES, coarser: float = 1.0) -> Pieces | None:
    """Return all cells of a scalar Lagrange function in small pieces, on rank 0; None elsewhere. Collective.

    The pieces are `coarser` times as long as those of a picture that fills a page. Where there are more than about
    `limit` of them they are merged to that many: a picture has no more pixels.
    """
    domain = function.function_space.mesh
    d = domain.topology.dim
    lower, upper = extent(domain)
    owned = np.arange(domain.topology.index_map(d).size_local, dtype=np.int32)
    parts = list(_cut_cells(function, owned, coarser * FINENESS[d] * float(np.max(upper - lower))))
    return _gather(domain.comm, parts, d, d, limit)


def centroids(function: fem.Function) -> tuple[np.ndarray, np.ndarray]:
    """Return centroids (n, d) of small pieces of this rank's own cells, and the integrals over them, (n,)."""
    domain = function.function_space.mesh
    d = domain.topology.dim
    lower, upper = extent(domain)
    owned = np.arange(domain.topology.index_map(d).size_local, dtype=np.int32)
    x, integrals = [np.zeros((0, d))], [np.zeros(0)]
    for pieces in _cut_cells(function, owned, FINENESS[d] * float(np.max(upper - lower))):
        volumes = np.abs(np.linalg.det(pieces.corners[:, 1:] - pieces.corners[:, :1])) / math.factorial(d)
        x.append(pieces.corners.mean(axis=1))
        integrals.append(volumes * pieces.values.mean(axis=1))
    return np.concatenate(x), np.concatenate(integrals)


def plane_pieces(function: fem.Function, axis: int, level: float, limit: int = MAX_PIECES) -> Pieces | None:
    """Return the cut of a function in 3D with the plane x_axis = level as triangles in the other two coordinates.

    On rank 0; None elsewhere. Collective.
    """
    domain = function.function_space.mesh
    lower, upper = extent(domain)
    owned = np.arange(domain.topology.index_map(3).size_local, dtype=np.int32)
    heights = _nodes(domain, owned)[:, :, axis] - level
    # a curved cell may bulge beyond its nodes
    bulge = 0.1 * np.ptp(heights, axis=1)
    near = (heights.min(axis=1) - bulge <= 0) & (heights.max(axis=1) + bulge >= 0)
    small = FINENESS[3] * float(np.max(upper - lower))
    parts = [_slice_tetrahedra(p, axis, level) for p in _cut_cells(function, owned[near], small)]
    return _gather(domain.comm, parts, 2, 2, limit)


def _slice_tetrahedra(pieces: Pieces, axis: int, level: float) -> Pieces:
    """Cut straight tetrahedra with a plane; the coordinate `axis` is dropped."""
    heights = pieces.corners[:, :, axis] - level
    order = np.argsort(heights, axis=1)
    h = np.take_along_axis(heights, order, axis=1)
    x = np.take_along_axis(pieces.corners, order[:, :, None], axis=1)
    u = np.take_along_axis(pieces.values, order, axis=1)
    # by the number of corners below the plane: the edges that cross it, in triangles
    crossings = {
        1: [((0, 1), (0, 2), (0, 3))],
        2: [((0, 2), (0, 3), (1, 3)), ((0, 2), (1, 3), (1, 2))],
        3: [((0, 3), (1, 3), (2, 3))],
    }
    corners, values = [np.zeros((0, 3, 3))], [np.zeros((0, 3))]
    below = np.sum(h < 0, axis=1)
    for count, triangles in crossings.items():
        k = below == count
        for triangle in triangles:
            weights = [h[k, a] / (h[k, a] - h[k, b]) for a, b in triangle]
            edges = list(zip(triangle, weights, strict=True))
            corners.append(np.stack([x[k, a] + t[:, None] * (x[k, b] - x[k, a]) for (a, b), t in edges], axis=1))
            values.append(np.stack([u[k, a] + t * (u[k, b] - u[k, a]) for (a, b), t in edges], axis=1))
    return Pieces(np.delete(np.concatenate(corners), axis, axis=2), np.concatenate(values))


def boundary_pieces(domain: mesh.Mesh, boundary: Boundary, limit: int = MAX_PIECES) -> Pieces | None:
    """Return all exterior facets in small pieces on rank 0, valued by kind (`EXIT` ...); None elsewhere. Collective.

    Where there are more than about `limit` pieces they are merged, each kind by itself.
    """
    d = domain.topology.dim
    owned = boundary.tags.indices < domain.topology.index_map(d - 1).size_local
    facets, kinds = boundary.tags.indices[owned], boundary.tags.values[owned]
    cells, local = _cells_of(domain, facets)
    degree = domain.geometry.cmap.degree
    reference, simplices = subdivide(d - 1, 1 if degree == 1 else (1, 16, 3)[d - 1])
    vertices, faces = np.asarray(basix.geometry(CELL_TYPES[d])), basix.topology(CELL_TYPES[d])[d - 1]
    shapes = _geometry_element(domain)
    parts = []
    for k, face in enumerate(faces):
        here = np.flatnonzero(local == k)
        corners = vertices[face]
        table = _tabulate(shapes, corners[0] + reference @ (corners[1:] - corners[0]))
        x = np.einsum("pn,cnd->cpd", table, _nodes(domain, cells[here]))
        values = np.repeat(kinds[here].astype(float), len(simplices))
        parts.append(Pieces(x[:, simplices].reshape(-1, d, d), np.tile(values[:, None], (1, d))))
    return _gather(domain.comm, parts, d - 1, d, limit, kinds=True)


def _cells_of(domain: mesh.Mesh, facets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each exterior facet its cell and its number in that cell."""
    d = domain.topology.dim
    domain.topology.create_connectivity(d - 1, d)
    domain.topology.create_connectivity(d, d - 1)
    to_cell, to_facet = domain.topology.connectivity(d - 1, d), domain.topology.connectivity(d, d - 1)
    cells = to_cell.array[to_cell.offsets[facets]]
    return cells, np.argmax(to_facet.array.reshape(-1, d + 1)[cells] == facets[:, None], axis=1)


def _gather(
    comm: MPI.Comm, parts: list[Pieces], dimension: int, space: int, limit: int, kinds: bool = False
) -> Pieces | None:
    """Return everybody's pieces on rank 0, merged if they are too many. Collective."""
    empty = Pieces(np.zeros((0, dimension + 1, space)), np.zeros((0, dimension + 1)))
    mine = _joined([empty, *parts])
    count = comm.allreduce(len(mine.values))
    box = 0.0
    if count > limit:
        lower, upper = np.full(space, np.inf), np.full(space, -np.inf)
        if len(mine.values):
            lower, upper = mine.corners.min(axis=(0, 1)), mine.corners.max(axis=(0, 1))
        lower, upper = comm.allreduce(lower, op=_minimum), comm.allreduce(upper, op=_maximum)
        box = float(np.max(upper - lower)) * (2.0 / limit) ** (1.0 / max(dimension, 1))
        mine = merge(mine, lower, box, kinds)
    everything = comm.gather(mine, root=0)
    if everything is None:
        return None
    result = _joined(everything)
    return merge(result, lower, box, kinds) if box and comm.size > 1 else result


def _joined(parts: list[Pieces]) -> Pieces:
    return Pieces(np.concatenate([p.corners for p in parts]), np.concatenate([p.values for p in parts]))


def merge(pieces: Pieces, origin: np.ndarray, size: float, kinds: bool = False) -> Pieces:
    """Replace all corners within a grid box of this size by their mean, and drop the pieces that collapse.

    Pieces larger than the box are kept; what is lost is smaller than the box. With `kinds`, only corners of the same
    value are merged.
    """
    n, k, d = pieces.corners.shape
    if not n:
        return pieces
    boxes = np.floor((pieces.corners.reshape(-1, d) - origin) / size).astype(np.int64)
    if kinds:
        boxes = np.hstack([boxes, np.round(pieces.values).astype(np.int64).reshape(-1, 1)])
    _, member, count = np.unique(boxes, axis=0, return_inverse=True, return_counts=True)
    member = member.reshape(-1)
    columns = [*pieces.corners.reshape(-1, d).T, pieces.values.ravel()]
    means = np.stack([np.bincount(member, weights=c) / count for c in columns], axis=1)
    simplices = np.sort(member.reshape(n, k), axis=1)
    alive = np.unique(simplices[np.all(np.diff(simplices, axis=1) > 0, axis=1)], axis=0)
    return Pieces(means[alive][:, :, :d], means[alive][:, :, d])


def line_values(u: fem.Function, difference: fem.Function, start: np.ndarray, axis: int, count: int = 1201) -> Line:
    """Return u and its estimated error along the line through `start` parallel to an axis. Collective.

    The ends of each piece of the line inside the mesh are found by bisection. The functions share one space.
    """
    domain = u.function_space.mesh
    lower, upper = extent(domain)
    margin = 1e-9 * (upper[axis] - lower[axis])
    t = np.union1d(np.linspace(lower[axis] + margin, upper[axis] - margin, count), start[axis])
    inside = locate(domain, _on_line(start, axis, t)).found
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    into = np.where(inside[edges], t[edges], t[edges + 1])
    out = np.where(inside[edges], t[edges + 1], t[edges])
    for _ in range(24 if len(edges) else 0):
        middle = (into + out) / 2
        found = locate(domain, _on_line(start, axis, middle)).found
        into, out = np.where(found, middle, into), np.where(found, out, middle)
    # one point just outside each end keeps separate parts of the line apart
    t = np.unique(np.concatenate([t, into, out]))
    where = locate(domain, _on_line(start, axis, t))
    values = []
    for function in (u, difference):
        unknowns, table = basis_values(function.function_space, where)
        own = np.zeros(len(t))
        own[where.mine] = np.sum(function.x.array[unknowns] * table, axis=1)
        values.append(np.where(where.found, domain.comm.allreduce(own), np.nan))
    return Line(axis, _on_line(start, axis, t), values[0], values[1])


def _on_line(start: np.ndarray, axis: int, t: np.ndarray) -> np.ndarray:
    points = np.tile(np.asarray(start, dtype=float), (len(t), 1))
    points[:, axis] = t
    return points
