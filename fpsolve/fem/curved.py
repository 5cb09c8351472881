"""Curved elements: nodes of order g whose boundary ones lie exactly on a smooth boundary.

The displacement of a boundary edge, ``d(s) = (1 - s²)/4 q(s)`` with a polynomial q, is continued into the
cells as ``λ_i λ_j q(λ_j - λ_i)``: its part of degree k stays a polynomial of degree k, so the derivatives of
the element maps have the sizes that isoparametric elements need for full order (Lenoir 1986, SIAM J. Numer.
Anal. 23, section 3; Szabó and Babuška, Finite Element Analysis, 1991, section 6.1).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import basix
import numpy as np

from fpsolve.fem.gmsh_geometry import Simplices
from fpsolve.model.simplices import boundary_facets, facets_of, match_rows, volumes

#: Highest order of the geometry in each dimension.
MAX_ORDER = {1: 5, 2: 5, 3: 3}
#: The smallest Jacobian of a curved cell may be this much smaller than that of the straight one.
MIN_JACOBIAN = 0.1

Projection = Callable[[np.ndarray, np.ndarray], np.ndarray]
CELLS = (basix.CellType.interval, basix.CellType.triangle, basix.CellType.tetrahedron)


def element(d: int, order: int) -> basix.finite_element.FiniteElement:
    """Return the Lagrange element with equispaced nodes that all our geometries use."""
    return basix.create_element(basix.ElementFamily.P, CELLS[d - 1], order, basix.LagrangeVariant.equispaced)


def lattice(d: int, order: int) -> np.ndarray:
    """Return the barycentric coordinates of the nodes of `element` times the order, integers of shape (k, d+1)."""
    x = np.asarray(element(d, order).points)
    return np.rint(np.column_stack([1 - x.sum(axis=1), x]) * order).astype(int)


def straight(mesh: Simplices, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes (n, d) and cells (m, k) of the given order; the vertices keep their numbers."""
    m, k = mesh.cells.shape
    grid = lattice(k - 1, order)
    numbers = np.empty((m, len(grid)), dtype=np.int64)
    nodes, count = [mesh.points], len(mesh.points)
    for size in range(1, k + 1):  # nodes on vertices, inside edges, faces, cells
        local = np.flatnonzero((grid > 0).sum(axis=1) == size)
        if len(local) == 0:
            continue
        where = np.array([np.flatnonzero(grid[i]) for i in local])
        weight = np.array([grid[i, w] for i, w in zip(local, where, strict=True)])
        vertices = mesh.cells[:, where]  # (m, nodes, size)
        if size == 1:
            numbers[:, local] = vertices[:, :, 0]
            continue
        sequence = np.argsort(vertices, axis=2)
        keys = np.concatenate(
            [
                np.take_along_axis(vertices, sequence, axis=2),
                np.take_along_axis(np.broadcast_to(weight, vertices.shape), sequence, axis=2)[:, :, :-1],
            ],
            axis=2,
        ).reshape(m * len(local), -1)
        first, inverse = _distinct(keys)
        numbers[:, local] = count + inverse.reshape(m, len(local))
        corners = mesh.points[keys[first, :size]]
        w = np.column_stack([keys[first, size:], order - keys[first, size:].sum(axis=1)]) / order
        nodes.append(np.einsum("ni,nij->nj", w, corners))
        count += len(first)
    return np.concatenate(nodes), numbers


def _distinct(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first row of each distinct kind and for each row the number of its kind."""
    packed, base = keys[:, 0].astype(np.int64), int(keys.max()) + 1
    for column in keys.T[1:]:
        packed = packed * base + column
        # renumber before the product can overflow
        packed = np.unique(packed, return_inverse=True)[1].ravel()
    _, first, inverse = np.unique(packed, return_index=True, return_inverse=True)
    return first, inverse.ravel()


def split_corner_cells(mesh: Simplices) -> Simplices:
    """Return the mesh with a point added in every cell that a smooth boundary would flatten.

    A triangle with two edges on a smooth curve has a straight angle between them; a tetrahedron with three
    boundary edges at one vertex has them in one plane. Their Jacobian vanishes at that vertex.
    """
    d = mesh.points.shape[1]
    edges, local = _boundary_edges(mesh)
    on_boundary = (match_rows(np.sort(mesh.cells[:, local], axis=2).reshape(-1, 2), edges) >= 0).reshape(
        len(mesh.cells), -1
    )
    touching = np.array([[i in pair for pair in local] for i in range(d + 1)])  # (corner, edge)
    flat = ((on_boundary[:, None, :] & touching).sum(axis=2) >= d).any(axis=1)
    bad = mesh.cells[flat]
    if len(bad) == 0:
        return mesh
    new = len(mesh.points) + np.arange(len(bad))
    parts = [np.where(np.arange(d + 1) == i, new[:, None], bad) for i in range(d + 1)]
    points = np.concatenate([mesh.points, mesh.points[bad].mean(axis=1)])
    return Simplices(points, np.concatenate([mesh.cells[~flat], *parts]), mesh.facets, mesh.labels)


def remove_flat_cells(mesh: Simplices) -> Simplices:
    """Return a 3D mesh without tetrahedra that have two faces on the boundary.

    Taking such a cell away replaces one diagonal of a nearly flat quadrilateral of the surface by the other; all
    surface vertices stay. All boundary facets must belong to one part.
    """
    cells, facets = mesh.cells, mesh.facets
    for _ in range(10):
        owner = boundary_facets(cells)[1]
        doubled = np.bincount(owner, minlength=len(cells)) == 2
        faces = facets_of(cells[doubled]).reshape(-1, 3)
        first = np.zeros(len(faces), dtype=bool)
        first[np.unique(faces, axis=0, return_index=True)[1]] = True
        # of two neighbours only one goes
        gone = np.flatnonzero(doubled)[first.reshape(-1, 4).all(axis=1)]
        if len(gone) == 0:
            break
        cells = np.delete(cells, gone, axis=0)
        facets = boundary_facets(cells)[0]
    return Simplices(mesh.points, cells, facets, np.full(len(facets), mesh.labels[0]))


def _boundary_edges(mesh: Simplices) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges in boundary facets (n, 2), sorted, and the local edges of a cell."""
    d = mesh.points.shape[1]
    local = np.array(list(combinations(range(d + 1), 2)))
    edges = mesh.facets if d == 2 else mesh.facets[:, [[0, 1], [0, 2], [1, 2]]].reshape(-1, 2)
    return np.unique(np.sort(edges, axis=1), axis=0), local


def curve(mesh: Simplices, order: int, onto: Projection) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return nodes, cells, and whether all cells are valid.

    Parameters
    ----------
    mesh : Simplices
        Boundary vertices lie on the boundary.
    order : int
    onto : callable
        Moves points (n, d) to the nearest boundary points, within distances (n,).
    """
    nodes, cells = straight(mesh, order)
    if order == 1:
        return nodes, cells, True
    d = mesh.points.shape[1]
    grid = lattice(d, order)
    edges, local = _boundary_edges(mesh)
    a, b = mesh.points[edges[:, 0]], mesh.points[edges[:, 1]]
    length = np.linalg.norm(b - a, axis=1)
    s = 2 * np.arange(1, order) / order - 1
    targets = np.empty((len(edges), order - 1, d))
    q = np.empty_like(targets)
    for k, t in enumerate((s + 1) / 2):
        x = (1 - t) * a + t * b
        targets[:, k] = onto(x, 0.5 * length)
        q[:, k] = (targets[:, k] - x) * 4 / (1 - s[k] ** 2)
    at = match_rows(np.sort(mesh.cells[:, local], axis=2).reshape(-1, 2), edges).reshape(len(cells), -1)
    moved = np.zeros_like(nodes)
    own = nodes[cells]
    for number, (i, j) in enumerate(local):
        rows = np.flatnonzero(at[:, number] >= 0)
        inside = np.flatnonzero((grid[:, i] > 0) & (grid[:, j] > 0))
        difference = (grid[inside, j] - grid[inside, i]) / order
        weight = (grid[inside, i] * grid[inside, j]) / order**2
        forward = _interpolation(s, difference) * weight[:, None]
        backward = _interpolation(s, -difference) * weight[:, None]
        turned = mesh.cells[rows, i] > mesh.cells[rows, j]
        for part, matrix in ((rows[~turned], forward), (rows[turned], backward)):
            own[part[:, None], inside] += np.einsum("nk,ckj->cnj", matrix, q[at[part, number]])
    moved[cells.ravel()] = own.reshape(-1, d)
    _set_edge_nodes(moved, mesh, cells, grid, at, local, targets)
    if d == 3 and order == 3:
        _set_face_nodes(moved, mesh, cells, grid, onto)
    return moved, cells, _valid(moved, cells[(at >= 0).any(axis=1)], d, order)


def _interpolation(nodes: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the matrix from values at nodes to values at x of the interpolating polynomial."""
    return np.array([[np.prod([(y - m) / (n - m) for m in nodes if m != n]) for n in nodes] for y in x]).reshape(
        len(x), len(nodes)
    )


def _set_edge_nodes(
    nodes: np.ndarray,
    mesh: Simplices,
    cells: np.ndarray,
    grid: np.ndarray,
    at: np.ndarray,
    local: np.ndarray,
    targets: np.ndarray,
) -> None:
    """Put the nodes of boundary edges exactly where they belong (the sum above has rounding errors)."""
    order = grid[0].max()
    for number, (i, j) in enumerate(local):
        rows = np.flatnonzero(at[:, number] >= 0)
        turned = mesh.cells[rows, i] > mesh.cells[rows, j]
        for node in np.flatnonzero((grid[:, i] > 0) & (grid[:, j] > 0) & (grid[:, i] + grid[:, j] == order)):
            step = np.where(turned, grid[node, i], grid[node, j])
            nodes[cells[rows, node]] = targets[at[rows, number], step - 1]


def _set_face_nodes(nodes: np.ndarray, mesh: Simplices, cells: np.ndarray, grid: np.ndarray, onto: Projection) -> None:
    """Put the middle nodes of boundary triangles of order 3 onto the boundary."""
    boundary = (
        match_rows(facets_of(mesh.cells).reshape(-1, 3), np.sort(mesh.facets, axis=1)).reshape(len(cells), 4) >= 0
    )
    for opposite in range(4):
        middle = int(np.flatnonzero((grid > 0).sum(axis=1) == 3)[0])
        middle = int(np.flatnonzero((grid[:, opposite] == 0) & ((grid > 0).sum(axis=1) == 3))[0])
        rows = np.flatnonzero(boundary[:, opposite])
        face = mesh.points[np.delete(mesh.cells[rows], opposite, axis=1)]
        reach = 0.5 * np.linalg.norm(face[:, 1] - face[:, 0], axis=1)
        nodes[cells[rows, middle]] = onto(nodes[cells[rows, middle]], reach)


def jacobians(nodes: np.ndarray, cells: np.ndarray, d: int, order: int) -> np.ndarray:
    """Return the smallest Jacobian of each cell over that of the straight cell, at the points of a fine lattice."""
    x = np.asarray(basix.create_lattice(CELLS[d - 1], max(1, 2 * d * (order - 1)), basix.LatticeType.equispaced, True))
    table = np.asarray(element(d, order).tabulate(1, x))[1:, :, :, 0]
    smallest = np.empty(len(cells))
    for start in range(0, len(cells), 20_000):
        part = cells[start : start + 20_000]
        determinant = np.linalg.det(np.einsum("jpn,cni->cpij", table, nodes[part]))
        flat = volumes(nodes, part[:, : d + 1]) * (1, 2, 6)[d - 1]
        smallest[start : start + 20_000] = (determinant / flat[:, None]).min(axis=1)
    return smallest


def _valid(nodes: np.ndarray, cells: np.ndarray, d: int, order: int) -> bool:
    return bool((jacobians(nodes, cells, d, order) > MIN_JACOBIAN).all())
