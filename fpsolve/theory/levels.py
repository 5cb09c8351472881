"""Which points a sublevel set {L < c} does not join, proved by boxes that cover it."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from fpsolve.theory.cover import Box
from fpsolve.theory.derivatives import Derivatives, loss_range
from fpsolve.theory.search import Budget

#: How much a box that surely lies in {L < c} counts on the way, against one that may not.
SOLID = 1e-4


def separates(
    derivatives: Derivatives, box: Box, level: float, sources: np.ndarray, targets: np.ndarray, budget: Budget
) -> bool:
    """Prove that every path from the sources to the targets, inside the box or not, reaches a level of L.

    Boxes with L >= level are dropped. The rest covers {L < level} in the box. As long as a chain of touching boxes
    leads from a source to a target or to the boundary of the box, those on the shortest chains are divided. Without a
    chain a path from a source that stays below the level never leaves the box nor comes to a target.

    Parameters
    ----------
    box : Box
    level : float
    sources, targets : ndarray, shape (k, d) and (m, d)
    budget : Budget

    Returns
    -------
    bool
        False where it is not true or the budget was not enough.
    """
    scale = np.maximum(box[1] - box[0], 1e-300)
    lows, highs, solid = np.array([box[0]]), np.array([box[1]]), np.array([False])
    spent = 0
    while len(lows):
        first = _holds(lows, highs, sources)
        last = _holds(lows, highs, targets) | np.any((lows <= box[0]) | (highs >= box[1]), axis=1)
        chain = _shortest(lows, highs, np.where(solid, SOLID, 1.0), first, last)
        if not chain.any():
            return True
        divide = np.flatnonzero(chain & ~solid)
        if not len(divide) or budget.spent(spent + 2 * len(divide)):
            return False
        spent += 2 * len(divide)
        new_lows, new_highs = _halves(lows[divide], highs[divide], scale)
        ranges = [loss_range(derivatives, a, b) for a, b in zip(new_lows, new_highs, strict=True)]
        least, most = (np.array(values) for values in zip(*ranges, strict=True))
        kept, rest = ~(least >= level), ~(chain & ~solid)
        lows = np.concatenate([lows[rest], new_lows[kept]])
        highs = np.concatenate([highs[rest], new_highs[kept]])
        solid = np.concatenate([solid[rest], most[kept] < level])
    return True


def _holds(lows: np.ndarray, highs: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Tell which boxes hold one of the points."""
    inside = np.all((lows[:, None] <= points) & (points <= highs[:, None]), axis=2)
    return np.asarray(np.any(inside, axis=1))


def _halves(lows: np.ndarray, highs: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the two halves of each box, cut across its longest side."""
    side, row = np.argmax((highs - lows) / scale, axis=1), np.arange(len(lows))
    cut = 0.5 * (lows[row, side] + highs[row, side])
    middle_high, middle_low = highs.copy(), lows.copy()
    middle_high[row, side] = middle_low[row, side] = cut
    return np.concatenate([lows, middle_low]), np.concatenate([middle_high, highs])


def _shortest(
    lows: np.ndarray, highs: np.ndarray, weight: np.ndarray, first: np.ndarray, last: np.ndarray
) -> np.ndarray:
    """Tell which boxes lie on a shortest chain of touching boxes from one of the first to one of the last."""
    nothing = np.zeros(len(lows), dtype=bool)
    if not first.any() or not last.any():
        return nothing
    graph = _touching(lows, highs, weight)
    there = dijkstra(graph, indices=np.flatnonzero(first), min_only=True)
    back = dijkstra(graph, indices=np.flatnonzero(last), min_only=True)
    # an edge costs half of both its ends
    total = there + back
    least = float(total.min())
    return nothing if np.isinf(least) else total <= least + 0.5


def _touching(lows: np.ndarray, highs: np.ndarray, weight: np.ndarray) -> csr_array:
    """Return the graph of touching boxes."""
    rows, columns = [], []
    for start in range(0, len(lows), 500):
        chunk = slice(start, start + 500)
        i, j = np.nonzero(np.all((lows[chunk, None] <= highs) & (lows <= highs[chunk, None]), axis=2))
        rows.append(i + start)
        columns.append(j)
    i, j = np.concatenate(rows), np.concatenate(columns)
    return csr_array((0.5 * (weight[i] + weight[j]), (i, j)), shape=(len(lows), len(lows)))
