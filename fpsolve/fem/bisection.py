"""Refinement of given meshes by longest-edge bisection (Rivara 1984), in plain arrays of one process.

A cell is only cut together with all cells around its longest edge, so the mesh stays conforming; a cell
that shall be cut but has a neighbour with a longer edge waits until that one is cut. Equal lengths are
ordered by vertex number. Curved cells are cut in their reference cell: the domain stays that of the file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from fpsolve.errors import InputError
from fpsolve.fem.curved import element, lattice, straight
from fpsolve.fem.gmsh_geometry import Simplices
from fpsolve.fem.spacing import MAX_CELLS, Size, SizeField, check_count, sizes_at
from fpsolve.model.meshfile import FileMesh
from fpsolve.model.simplices import match_rows, regular_edge, volumes


@dataclass(frozen=True)
class _Bisected:
    """A mesh, and where its cells lie in those of the file.

    ``root`` (m,) is the number of the file's cell, ``inside`` (m, d+1, d+1) holds the barycentric coordinates
    of the corners in it.
    """

    points: np.ndarray
    cells: np.ndarray
    facets: np.ndarray
    tags: np.ndarray
    root: np.ndarray
    inside: np.ndarray


def refine_file(contents: FileMesh, size: Size) -> FileMesh:
    """Return the mesh with all cells bisected until they have the wanted size.

    A cell of d dimensions is small enough if a regular simplex of its volume has an edge of at most
    ``2**(1/(2 d))`` times the size at its centre; then sizes scatter evenly around the wanted one.

    Raises
    ------
    InputError
        If the result would be too large.
    """
    if not isinstance(size, SizeField) and np.isinf(size):
        return contents
    d = contents.points.shape[1]
    corners = contents.cells[:, : d + 1]
    check_count(size, float(np.abs(volumes(contents.points, corners)).sum()), d)
    m = len(corners)
    now = _Bisected(
        contents.points, corners, contents.facets, contents.tags, np.arange(m), np.tile(np.eye(d + 1), (m, 1, 1))
    )
    while True:
        wanted = sizes_at(size, now.points[now.cells].mean(axis=1)) * 2 ** (0.5 / d)
        marked = regular_edge(np.abs(volumes(now.points, now.cells)), d) > wanted
        if not marked.any():
            break
        now = _bisect(now, marked, contents)
        if len(now.cells) > MAX_CELLS:
            raise InputError("mesh.size", float(np.min(wanted)), f"a size that gives at most {MAX_CELLS:,} cells")
    if len(now.cells) == m:
        return contents
    return _with_nodes(now, contents)


def _bisect(now: _Bisected, marked: np.ndarray, contents: FileMesh) -> _Bisected:
    """Cut the longest edges that marked cells wait for."""
    points, cells = now.points, now.cells
    local = np.array(list(combinations(range(cells.shape[1]), 2)))
    pairs = np.sort(cells[:, local], axis=2)
    edges, inverse = np.unique(pairs.reshape(-1, 2), axis=0, return_inverse=True)
    of_cell = inverse.reshape(pairs.shape[:2])
    length = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)
    rank = np.empty(len(edges), dtype=np.int64)
    # rounded, so that edges of one length in exact arithmetic are ordered by their vertices
    rank[np.lexsort((edges[:, 1], edges[:, 0], np.round(length / length.max(), 12)))] = np.arange(len(edges))
    best = np.argmax(rank[of_cell], axis=1)
    longest = of_cell[np.arange(len(cells)), best]
    cut = _edges_to_cut(of_cell, longest, marked, len(edges))
    middle = np.full(len(edges), -1)
    middle[cut] = len(points) + np.arange(cut.sum())
    halves = cut[longest]
    i, j = local[best[halves]].T
    inside, row = now.inside[halves], np.arange(halves.sum())
    between = 0.5 * (inside[row, i] + inside[row, j])
    new = middle[longest[halves]]
    added = np.empty((int(cut.sum()), points.shape[1]))
    added[new - len(points)] = _evaluate(contents, now.root[halves], between)
    facet_pair, facet_middle = _edge_in_facets(now.facets, edges, middle)
    facet_cut = facet_middle >= 0
    k, el = facet_pair[facet_cut].T
    return _Bisected(
        np.concatenate([points, added]),
        np.concatenate([cells[~halves], *_halves(cells[halves], i, j, new)]),
        np.concatenate([now.facets[~facet_cut], *_halves(now.facets[facet_cut], k, el, facet_middle[facet_cut])]),
        np.concatenate([now.tags[~facet_cut], now.tags[facet_cut], now.tags[facet_cut]]),
        np.concatenate([now.root[~halves], now.root[halves], now.root[halves]]),
        np.concatenate([now.inside[~halves], *_halves(inside, i, j, between)]),
    )


def _edges_to_cut(of_cell: np.ndarray, longest: np.ndarray, marked: np.ndarray, count: int) -> np.ndarray:
    """Return the edges that marked cells wait for and that are the longest one of every cell around them."""
    wanted = np.zeros(count, dtype=bool)
    while True:  # cells around the longest edge of a marked cell must be cut as well
        wanted[longest[marked]] = True
        more = wanted[of_cell].any(axis=1) & ~marked
        if not more.any():
            break
        marked = marked | more
    longer_neighbour = np.zeros(count, dtype=bool)
    longer_neighbour[of_cell[of_cell != longest[:, None]]] = True
    return wanted & ~longer_neighbour


def _halves(corners: np.ndarray, i: np.ndarray, j: np.ndarray, middle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return copies of rows of corners with corner j, and with corner i, replaced by the middle."""
    first, second, row = corners.copy(), corners.copy(), np.arange(len(corners))
    first[row, j] = middle
    second[row, i] = middle
    return first, second


def _edge_in_facets(facets: np.ndarray, edges: np.ndarray, middle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each facet the local pair of its edge that is cut, and the new point; -1 where none is."""
    pairs, found = np.zeros((len(facets), 2), dtype=np.int64), np.full(len(facets), -1)
    base = np.int64(edges.max() + 1)
    code = edges[:, 0] * base + edges[:, 1]  # edges come sorted, so this is too
    for pair in combinations(range(facets.shape[1]), 2):
        ends = np.sort(facets[:, pair], axis=1)
        new = middle[np.searchsorted(code, ends[:, 0] * base + ends[:, 1])]
        pairs[new >= 0], found[new >= 0] = pair, new[new >= 0]
    return pairs, found


def _evaluate(contents: FileMesh, root: np.ndarray, barycentric: np.ndarray) -> np.ndarray:
    """Return the points with these barycentric coordinates (n, d+1) in the file's cells `root` (n,)."""
    d = contents.points.shape[1]
    nodes = contents.points[contents.cells[root]]
    if contents.order == 1:
        return np.einsum("ni,nij->nj", barycentric[:, np.argmax(contents.lattice, axis=1)], nodes)
    sequence = match_rows(lattice(d, contents.order), contents.lattice)
    shape = np.asarray(element(d, contents.order).tabulate(0, barycentric[:, 1:]))[0, :, :, 0]
    return np.einsum("ni,nij->nj", shape, nodes[:, sequence])


def _with_nodes(now: _Bisected, contents: FileMesh) -> FileMesh:
    """Return the bisected mesh with all nodes of its order."""
    order, d = contents.order, contents.points.shape[1]
    # drop nodes of the file that were no corners: they are set anew
    used, cells = np.unique(now.cells, return_inverse=True)
    facets = np.sort(np.searchsorted(used, now.facets), axis=1)
    mesh = Simplices(now.points[used], cells.reshape(now.cells.shape), facets, now.tags)
    nodes, numbers = straight(mesh, order)
    grid = lattice(d, order) / order
    if order > 1:
        for k, weights in enumerate(grid):
            nodes[numbers[:, k]] = _evaluate(contents, now.root, weights @ now.inside)
    return replace(contents, points=nodes, cells=numbers, lattice=lattice(d, order), facets=facets, tags=now.tags)
