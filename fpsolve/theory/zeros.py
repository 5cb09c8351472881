"""All zeros of ∇L in a domain: boxes are proved to hold none or exactly one, or stay undecided.

Branch and bound, the largest box first, so that the undecided part is small whenever the search stops. A box counts
as decided if it lies in a region that was proved to hold exactly one zero before.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from fpsolve.theory.cover import Box, Cover
from fpsolve.theory.derivatives import Derivatives
from fpsolve.theory.newton import EMPTY, UNIQUE, contract, examine, isolate
from fpsolve.theory.search import Budget

#: Half a side of the first box tried round a zero, relative to the domain's.
LARGEST = 0.25
#: Sides, relative to the domain's, of which a box is not divided again.
SMALLEST = 1e-7
#: A box never gets thinner than this.
SLENDER = 1 / 20
#: The part of a side that is kept at least: a box without extent could hold no zero in its interior.
KEPT = 1 / 16
#: The part of its longest side up to which a box that has shrunk is looked at again without division.
SHRUNK = 0.6


@dataclass(frozen=True)
class Isolated:
    """A zero of ∇L that is proved to exist.

    Attributes
    ----------
    x : ndarray, shape (d,)
        Its approximate place, the middle of `enclosure`.
    enclosure : Box
        Holds it.
    region : Box
        Holds no other zero; contains `enclosure`.
    """

    x: np.ndarray
    enclosure: Box
    region: Box


@dataclass
class Search:
    """The outcome of `isolate_all`.

    Attributes
    ----------
    zeros : list of Isolated
    undecided : list of Box
        Nothing is known of these; all other points of the domain are no zeros, except for `zeros`.
    boxes : int
        Boxes evaluated.
    exhausted : bool
        Whether the budget ended the search.
    """

    zeros: list[Isolated] = field(default_factory=list)
    undecided: list[Box] = field(default_factory=list)
    boxes: int = 0
    exhausted: bool = False


def isolate_all(
    derivatives: Derivatives,
    cover: Cover,
    known: Sequence[Isolated],
    budget: Budget,
    polish: Callable[[np.ndarray], np.ndarray],
) -> Search:
    """Prove that a domain holds the known zeros of ∇L and find the others, with proof.

    Parameters
    ----------
    cover : Cover
        Of the domain.
    known : sequence of Isolated
        Zeros found before.
    budget : Budget
        Its number of boxes makes the outcome reproducible.
    polish : callable, (n, d) -> (n, d)
        Newton's method in floating point; proposes new zeros, proves nothing.

    Returns
    -------
    Search
        With all known zeros and the new ones, which may lie (a little) outside of the domain.
    """
    search = Search(list(known))
    scale = np.maximum(cover.upper - cover.lower, 1e-300)
    queue: list[tuple[float, int, Box]] = []
    number = 0

    def push(lo: np.ndarray, hi: np.ndarray) -> None:
        nonlocal number
        reduced = cover.reduce(lo, hi)
        if reduced is None or any(_inside(reduced, zero.region) for zero in search.zeros):
            return
        number += 1
        heapq.heappush(queue, (-float(np.prod((reduced[1] - reduced[0]) / scale)), number, reduced))

    for box in cover.roots:
        push(*box)
    while queue:
        _, _, (lo, hi) = queue[0]
        if any(_inside((lo, hi), zero.region) for zero in search.zeros):  # a region that is new
            heapq.heappop(queue)
            continue
        if budget.spent(search.boxes):
            search.exhausted = True
            break
        heapq.heappop(queue)
        search.boxes += 1
        verdict = examine(derivatives, lo, hi)
        if verdict.kind == EMPTY:
            continue
        if verdict.kind == UNIQUE:
            if not record(search.zeros, (lo, hi), contract(derivatives, verdict.box)):
                search.undecided.append((lo, hi))
            continue
        inner_lo, inner_hi = _thickened(verdict.box, (lo, hi), SMALLEST * scale)
        if verdict.regular and _propose(derivatives, search.zeros, (inner_lo, inner_hi), scale, polish):
            push(inner_lo, inner_hi)
            continue
        if np.all((inner_hi - inner_lo) <= SMALLEST * scale):
            search.undecided.append((inner_lo, inner_hi))
            continue
        if np.max((inner_hi - inner_lo) / scale) <= SHRUNK * np.max((hi - lo) / scale):
            push(inner_lo, inner_hi)
            continue
        side = _side(inner_hi - inner_lo, scale, verdict.weights)
        middle = 0.5 * (inner_lo[side] + inner_hi[side])
        left, right = inner_hi.copy(), inner_lo.copy()
        left[side] = right[side] = middle
        push(inner_lo, left)
        push(right, inner_hi)
    rest = [box for _, _, box in sorted(queue, key=lambda entry: entry[:2])]
    search.undecided += [box for box in rest if not any(_inside(box, zero.region) for zero in search.zeros)]
    return search


def _inside(box: Box, other: Box) -> bool:
    return bool(np.all(box[0] >= other[0]) and np.all(box[1] <= other[1]))


def _thickened(inner: Box, outer: Box, least: np.ndarray) -> Box:
    """Return a box between two nested ones whose sides are no tiny part of the outer one's, and at least `least`."""
    sides = outer[1] - outer[0]
    room = np.maximum(0.5 * (np.maximum(KEPT * sides, np.minimum(sides, least)) - (inner[1] - inner[0])), 0.0)
    return np.maximum(inner[0] - room, outer[0]), np.minimum(inner[1] + room, outer[1])


def record(zeros: list[Isolated], region: Box, enclosure: Box) -> bool:
    """Add the only zero of a region to a list, unless it is proved to be one of them.

    Returns
    -------
    bool
        False if it can be told neither from another one nor to be the same; it is not added then.
    """
    for k, zero in enumerate(zeros):
        if _inside(zero.enclosure, region):
            if np.prod(region[1] - region[0]) > np.prod(zero.region[1] - zero.region[0]):
                zeros[k] = Isolated(zero.x, zero.enclosure, region)
            return True
        if _inside(enclosure, zero.region):
            return True
        if np.all(enclosure[0] <= zero.enclosure[1]) and np.all(zero.enclosure[0] <= enclosure[1]):
            return False
    zeros.append(Isolated(0.5 * (enclosure[0] + enclosure[1]), enclosure, region))
    return True


def _propose(
    derivatives: Derivatives,
    zeros: list[Isolated],
    box: Box,
    scale: np.ndarray,
    polish: Callable[[np.ndarray], np.ndarray],
) -> bool:
    """Look for a zero near a box that holds at most one; tell whether anything new was proved."""
    x = polish(0.5 * (box[0] + box[1])[None, :])[0]
    size = box[1] - box[0]
    if not np.all(np.isfinite(x)) or np.any(x < box[0] - size) or np.any(x > box[1] + size):
        return False
    if any(_inside((x, x), zero.region) for zero in zeros):
        return False
    found = isolate(derivatives, x, LARGEST * scale)
    before = [zero.region for zero in zeros]
    if found is None or not record(zeros, found[1], found[0]):
        return False
    return len(zeros) > len(before) or any(zero.region is not old for zero, old in zip(zeros, before, strict=True))


def _side(lengths: np.ndarray, scale: np.ndarray, weights: np.ndarray | None) -> int:
    """Choose the side to cut: where most stays undecided, unless the box would get too thin."""
    relative = lengths / scale
    if weights is None or not np.all(np.isfinite(weights)) or not np.any(weights > 0):
        return int(np.argmax(relative))
    return int(np.argmax(np.where(relative >= SLENDER * relative.max(), weights, -1.0)))
