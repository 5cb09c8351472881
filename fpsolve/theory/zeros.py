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
    boxes = _Boxes(cover, search.zeros)
    scale = boxes.scale
    for root in cover.roots:
        boxes.push(*root)
    while (box := boxes.first()) is not None:
        if budget.spent(search.boxes):
            search.exhausted = True
            break
        boxes.pop()
        search.boxes += 1
        lo, hi = box
        verdict = examine(derivatives, lo, hi)
        if verdict.kind == EMPTY:
            continue
        if verdict.kind == UNIQUE:
            if not record(search.zeros, box, contract(derivatives, verdict.box)):
                search.undecided.append(box)
            continue
        inner = _thickened(verdict.box, box, SMALLEST * scale)
        sides = inner[1] - inner[0]
        if verdict.regular and _propose(derivatives, search.zeros, inner, scale, polish):
            boxes.push(*inner)
        elif np.all(sides <= SMALLEST * scale):
            search.undecided.append(inner)
        elif np.max(sides / scale) <= SHRUNK * np.max((hi - lo) / scale):
            boxes.push(*inner)
        else:
            boxes.push_halves(inner, verdict.weights)
    search.undecided += boxes.rest()
    return search


class _Boxes:
    """Boxes that wait, the largest first; those in regions of known zeros, and outside of the domain, are left out."""

    def __init__(self, cover: Cover, zeros: list[Isolated]) -> None:
        self.cover, self.zeros = cover, zeros
        self.scale = np.maximum(cover.upper - cover.lower, 1e-300)
        self._heap: list[tuple[float, int, Box]] = []
        self._number = 0

    def push(self, lo: np.ndarray, hi: np.ndarray) -> None:
        reduced = self.cover.reduce(lo, hi)
        if reduced is None or self._known(reduced):
            return
        self._number += 1
        volume = float(np.prod((reduced[1] - reduced[0]) / self.scale))
        heapq.heappush(self._heap, (-volume, self._number, reduced))

    def push_halves(self, box: Box, weights: np.ndarray | None) -> None:
        lo, hi = box
        side = _side(hi - lo, self.scale, weights)
        left, right = hi.copy(), lo.copy()
        left[side] = right[side] = 0.5 * (lo[side] + hi[side])
        self.push(lo, left)
        self.push(right, hi)

    def first(self) -> Box | None:
        """Return the largest box that is not known by now."""
        while self._heap and self._known(self._heap[0][2]):
            heapq.heappop(self._heap)
        return self._heap[0][2] if self._heap else None

    def pop(self) -> None:
        heapq.heappop(self._heap)

    def rest(self) -> list[Box]:
        """Return all boxes that are left."""
        return [box for _, _, box in sorted(self._heap, key=lambda entry: entry[:2]) if not self._known(box)]

    def _known(self, box: Box) -> bool:
        return any(_inside(box, zero.region) for zero in self.zeros)


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
