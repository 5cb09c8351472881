"""Which rank owns which cell: recursive coordinate bisection, the same on every run.

The parallel graph partitioner gives another partition each time, so that two runs of the same problem would differ
in the last bits, and a run could not be repeated from a checkpoint bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
from dolfinx import graph


def coordinate_bisection(points: np.ndarray, parts: int) -> np.ndarray:
    """Return the part of each point (n, d): halves across the longest extent, again and again. Not collective."""
    owner = np.zeros(len(points), dtype=np.int32)
    pending: list[tuple[np.ndarray, int, int]] = [(np.arange(len(points)), 0, parts)]
    while pending:
        here, first, count = pending.pop()
        if count == 1 or not len(here):
            owner[here] = first
            continue
        axis = int(np.argmax(np.ptp(points[here], axis=0)))
        order = here[np.argsort(points[here, axis], kind="stable")]
        less = count // 2
        cut = len(order) * less // count
        pending += [(order[:cut], first, less), (order[cut:], first + less, count - less)]
    return owner


def neighbours(corners: np.ndarray) -> np.ndarray:
    """Return pairs of simplices that share a facet, shape (m, 2), from their corners (n, d + 1). Not collective."""
    size = corners.shape[1]
    facets = np.concatenate([corners[:, list(face)] for face in combinations(range(size), size - 1)])
    cells = np.tile(np.arange(len(corners)), size)
    facets = np.sort(facets, axis=1)
    order = np.lexsort(facets.T)
    same = np.all(facets[order[1:]] == facets[order[:-1]], axis=1)
    return np.column_stack([cells[order[:-1]][same], cells[order[1:]][same]])


def cell_partitioner(cells: np.ndarray, nodes: np.ndarray) -> Callable[..., Any]:
    """Return a partitioner for `dolfinx.mesh.create_mesh` with ghosts across shared facets.

    Parameters
    ----------
    cells : ndarray, shape (n, k)
        This rank's cells, the corners first.
    nodes : ndarray, shape (m, d)
        All nodes they name: in practice everything is on rank 0 and the others have nothing.
    """
    corners = cells[:, : nodes.shape[1] + 1]

    def partition(_comm: Any, parts: int, *_graph: Any) -> Any:
        if not len(corners):
            return _lists(np.empty(0, dtype=np.int32), np.zeros(1, dtype=np.int32))
        owner = coordinate_bisection(nodes[corners].mean(axis=1), parts)
        pairs = neighbours(corners)
        pairs = np.concatenate([pairs, pairs[:, ::-1]])
        ghosts = np.column_stack([pairs[:, 0], owner[pairs[:, 1]]])[owner[pairs[:, 0]] != owner[pairs[:, 1]]]
        ghosts = np.unique(ghosts, axis=0)
        counts = 1 + np.bincount(ghosts[:, 0], minlength=len(owner))
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        data = np.empty(offsets[-1], dtype=np.int32)
        data[offsets[:-1]] = owner  # the owner comes first
        number = np.arange(len(ghosts)) - np.searchsorted(ghosts[:, 0], ghosts[:, 0])
        data[offsets[ghosts[:, 0]] + 1 + number] = ghosts[:, 1]
        return _lists(data, offsets)

    return partition


def _lists(data: np.ndarray, offsets: np.ndarray) -> Any:
    """Return what dolfinx's C++ takes; from version 0.10 on the Python object wraps it."""
    lists = graph.adjacencylist(data, offsets)
    return getattr(lists, "_cpp_object", lists)
