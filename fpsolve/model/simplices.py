"""Lists of simplices in plain arrays: their facets, sizes, and which of them hold a point."""

from __future__ import annotations

import math

import numpy as np
from scipy.spatial import cKDTree

#: How far outside (in barycentric coordinates) a point on a facet may seem to lie.
ROUNDING = 1e-10


def facets_of(cells: np.ndarray) -> np.ndarray:
    """Return all facets of cells (m, d+1) as sorted vertex numbers (m, d+1, d); facet i is opposite to corner i."""
    k = cells.shape[1]
    others = np.array([[j for j in range(k) if j != i] for i in range(k)])
    return np.sort(cells[:, others], axis=2)


def boundary_facets(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the facets that belong to exactly one cell (n, d) with sorted vertices, and that cell (n,).

    Facets come in the order of their cells.
    """
    every = facets_of(cells)
    k, d = every.shape[1:]
    _, first, count = np.unique(every.reshape(-1, d), axis=0, return_index=True, return_counts=True)
    single = np.sort(first[count == 1])
    return every.reshape(-1, d)[single], single // k


def volumes(points: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Return the signed volumes of cells (m, d+1), shape (m,)."""
    corners = points[cells]
    d = points.shape[1]
    return np.linalg.det(corners[:, 1:] - corners[:, :1]) / math.factorial(d)


def regular_edge(volume: np.ndarray | float, d: int) -> np.ndarray:
    """Return the edge length of the regular d-simplex with these volumes."""
    return (np.asarray(volume) * math.factorial(d) * math.sqrt(2.0**d / (d + 1))) ** (1.0 / d)


def match_rows(rows: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return for each row its position in `table` (distinct rows), or -1; both integer with k columns."""
    if len(rows) == 0 or len(table) == 0:
        return np.full(len(rows), -1)
    _, inverse = np.unique(np.concatenate([table, rows]), axis=0, return_inverse=True)
    inverse = inverse.ravel()
    position = np.full(inverse.max() + 1, -1)
    position[inverse[: len(table)]] = np.arange(len(table))
    return position[inverse[len(table) :]]


def inside_simplices(points: np.ndarray, cells: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Tell which of the points x (n, d) lie in one of the closed cells (m, d+1), shape (n,)."""
    origin = points[cells[:, 0]]
    inverse = np.linalg.inv((points[cells[:, 1:]] - origin[:, None]).transpose(0, 2, 1))
    inside = np.zeros(len(x), dtype=bool)
    todo = np.flatnonzero(np.all((x >= points.min(axis=0)) & (x <= points.max(axis=0)), axis=1))
    if len(todo) == 0:
        return inside
    # nearly all points are in one of the cells with the nearest centres; the rest are compared with all cells
    near = cKDTree(points[cells].mean(axis=1)).query(x[todo], k=min(24, len(cells)))[1].reshape(len(todo), -1)
    inside[todo] = _any_holds(origin[near], inverse[near], x[todo][:, None])
    todo = todo[~inside[todo]]
    chunk = max(1, 4_000_000 // len(cells))
    for start in range(0, len(todo), chunk):
        part = todo[start : start + chunk]
        inside[part] = _any_holds(origin[None], inverse[None], x[part][:, None])
    return inside


def _any_holds(origin: np.ndarray, inverse: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Tell whether any simplex along axis 1 holds the point."""
    coordinates = np.einsum("...ij,...j->...i", inverse, x - origin)
    return ((coordinates.min(axis=2) >= -ROUNDING) & (coordinates.sum(axis=2) <= 1 + ROUNDING)).any(axis=1)
