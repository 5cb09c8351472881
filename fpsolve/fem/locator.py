"""Which cell of a simplex mesh holds each of millions of points: uniform bins, then barycentric coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from scipy.spatial import cKDTree

from fpsolve.model.simplices import boundary_facets

#: Bins per cell: more bins, fewer cells to try and more memory.
BINS = 4.0
#: A boundary cell is also entered in the bins within this part of its extent, for points next to a curved boundary.
REACH = 0.5
#: A barycentric coordinate above -ROUNDING counts as nonnegative.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Locator:
    """A mesh of straight simplices prepared for point location; make it with `make_locator`.

    Attributes
    ----------
    low, width : ndarray, shape (d,)
        The corner of the bins and their widths.
    shape : ndarray of int, shape (d,)
        Their numbers.
    offsets, entries : ndarray of int
        The cells entered in bin k are ``entries[offsets[k]:offsets[k + 1]]``.
    origin, inverse : ndarray, shape (m, d), (m, d, d)
        Barycentric coordinates 1..d of x in cell c are ``inverse[c] @ (x - origin[c])``.
    at_boundary : ndarray of bool, shape (m,)
        Cells with a vertex on the boundary of the mesh; the others lie in its interior.
    facet_cells : ndarray of int, shape (b,)
        The cell of each boundary facet.
    facet_tree : cKDTree
        Of the centres of the boundary facets.
    """

    low: np.ndarray
    width: np.ndarray
    shape: np.ndarray
    offsets: np.ndarray
    entries: np.ndarray
    origin: np.ndarray
    inverse: np.ndarray
    at_boundary: np.ndarray
    facet_cells: np.ndarray
    facet_tree: Any

    def locate(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return for points (n, d) a cell each, -1 where none is near, and its smallest barycentric coordinate.

        Where no cell holds the point, the one whose smallest coordinate is largest is returned if one is near.
        """
        cells = np.empty(len(x), dtype=np.int64)
        smallest = np.empty(len(x))
        _locate(
            np.ascontiguousarray(x, dtype=float), self.low, self.width, self.shape, self.offsets, self.entries,
            self.origin, self.inverse, cells, smallest,
        )  # fmt: skip
        return cells, smallest

    def nearest(self, x: np.ndarray) -> np.ndarray:
        """Return for points (n, d) outside of the mesh the cell of a boundary facet next to each, shape (n,)."""
        count = min(4, len(self.facet_cells))
        near = self.facet_tree.query(x, k=count)[1].reshape(len(x), count)
        candidates = self.facet_cells[near]
        local = np.einsum("nkij,nkj->nki", self.inverse[candidates], x[:, None] - self.origin[candidates])
        smallest = np.minimum(local.min(axis=2), 1 - local.sum(axis=2))
        # far away the nearest facet matters, not the barycentric coordinate: ties go to the first
        best = np.where(smallest[:, 0] > -1, np.argmax(smallest, axis=1), 0)
        return np.asarray(np.take_along_axis(candidates, best[:, None], axis=1)[:, 0])


def make_locator(points: np.ndarray, cells: np.ndarray) -> Locator:
    """Prepare a mesh of vertices `points` (n, d) and `cells` (m, d+1) for point location."""
    m, d = len(cells), points.shape[1]
    facets, owner = boundary_facets(cells)
    touching = np.zeros(len(points), dtype=bool)
    touching[facets.ravel()] = True
    at_boundary = touching[cells].any(axis=1)
    corners = points[cells]
    low, high = corners.min(axis=1), corners.max(axis=1)
    pad = np.where(at_boundary, REACH, 1e-9) * (high - low).max(axis=1)
    low, high = low - pad[:, None], high + pad[:, None]
    base, extent = low.min(axis=0), high.max(axis=0) - low.min(axis=0)
    side = (np.prod(extent) / (BINS * m)) ** (1 / d)
    shape = np.maximum(1, np.ceil(extent / side)).astype(np.int64)
    width = extent / shape
    first = np.clip(((low - base) / width).astype(np.int64), 0, shape - 1)
    last = np.clip(((high - base) / width).astype(np.int64), 0, shape - 1)
    counts = np.zeros(int(np.prod(shape)) + 1, dtype=np.int64)
    _count(first, last, shape, counts)
    offsets = np.cumsum(counts)
    entries = np.empty(offsets[-1], dtype=np.int64)
    _enter(first, last, shape, offsets[:-1].copy(), entries)
    origin = np.ascontiguousarray(corners[:, 0])
    inverse = np.ascontiguousarray(np.linalg.inv((corners[:, 1:] - corners[:, :1]).transpose(0, 2, 1)))
    tree = cKDTree(points[facets].mean(axis=1))
    return Locator(base, width, shape, offsets, entries, origin, inverse, at_boundary, owner, tree)


@numba.njit(cache=True)
def _count(first: Any, last: Any, shape: Any, counts: Any) -> None:
    """Add the number of cells entered in bin k to counts[k + 1]."""
    for c in range(first.shape[0]):
        position = first[c].copy()
        while True:
            k = position[0]
            for i in range(1, shape.size):
                k = k * shape[i] + position[i]
            counts[k + 1] += 1
            if not _advance(position, first[c], last[c]):
                break


@numba.njit(cache=True)
def _enter(first: Any, last: Any, shape: Any, free: Any, entries: Any) -> None:
    for c in range(first.shape[0]):
        position = first[c].copy()
        while True:
            k = position[0]
            for i in range(1, shape.size):
                k = k * shape[i] + position[i]
            entries[free[k]] = c
            free[k] += 1
            if not _advance(position, first[c], last[c]):
                break


@numba.njit(cache=True)
def _advance(position: Any, first: Any, last: Any) -> bool:
    """Go to the next bin of a box of bins; False after the last one."""
    for i in range(position.size):
        if position[i] < last[i]:
            position[i] += 1
            return True
        position[i] = first[i]
    return False


@numba.njit(cache=True, nogil=True)
def _locate(
    x: Any, low: Any, width: Any, shape: Any, offsets: Any, entries: Any, origin: Any, inverse: Any,
    cells: Any, smallest: Any,
) -> None:  # fmt: skip
    d = x.shape[1]
    for p in range(x.shape[0]):
        k, inside = 0, True
        for i in range(d):
            t = (x[p, i] - low[i]) / width[i]
            if not (t >= 0.0 and t <= shape[i]):
                inside = False
                break
            k = k * shape[i] + min(int(t), shape[i] - 1)
        cells[p], smallest[p] = -1, -np.inf
        if not inside:
            continue
        for e in range(offsets[k], offsets[k + 1]):
            c = entries[e]
            rest, least = 1.0, 1.0
            for i in range(d):
                value = 0.0
                for j in range(d):
                    value += inverse[c, i, j] * (x[p, j] - origin[c, j])
                rest -= value
                least = min(least, value)
            least = min(least, rest)
            if least > smallest[p]:
                cells[p], smallest[p] = c, least
                if least >= 0.0:
                    break
