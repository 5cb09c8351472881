"""Best-first branch and bound: a rigorous upper bound of a function over a covered domain.

The result is the largest bound among the boxes that were not split, hence valid whenever the search stops; more
boxes only make it tighter. A box without a finite bound counts as +inf, is split first and, if it stays, makes the
result inf.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fpsolve.theory.cover import Box, Cover

# an upper bound over the box, and weights of the sides for the choice of the cut (None: by length)
BoxBound = Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray | None]]
PointValue = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Budget:
    """When to stop: a moment of `time.monotonic` and a number of boxes."""

    deadline: float
    boxes: int = 20_000

    @classmethod
    def seconds(cls, seconds: float, boxes: int = 20_000) -> Budget:
        """Return the budget that ends `seconds` from now."""
        return cls(time.monotonic() + seconds, boxes)

    def share(self, parts: float) -> Budget:
        """Return the time that is left divided by `parts`."""
        now = time.monotonic()
        return Budget(now + max(self.deadline - now, 0.0) / parts, self.boxes)

    def spent(self, boxes: int) -> bool:
        """Tell whether the search must stop."""
        return boxes >= self.boxes or time.monotonic() >= self.deadline


@dataclass(frozen=True)
class Outcome:
    """What a search found: ``sample <= sup <= bound``.

    Attributes
    ----------
    bound : float
        Upper bound; inf if some box could not be bounded.
    sample : float
        Largest value seen at a point (floating point, not rigorous; only used to know when to stop).
    boxes : int
        Number of boxes evaluated.
    worst : Box or None
        The box the bound comes from.
    complete : bool
        Whether the asked accuracy was reached.
    """

    bound: float
    sample: float
    boxes: int
    worst: Box | None
    complete: bool


def maximise(
    bound_on: BoxBound,
    value_at: PointValue,
    cover: Cover,
    budget: Budget,
    relative: float = 1e-3,
    absolute: float = 0.0,
    enough: float = -math.inf,
    first: float = -math.inf,
) -> Outcome:
    """Bound sup of a function over `cover` from above.

    Parameters
    ----------
    bound_on : callable
        Rigorous upper bound over a box and the weights of its sides.
    value_at : callable, (n, d) -> (n,)
        The function in floating point, to know how far the bound may still fall.
    cover : Cover
        Boxes that cover the domain.
    budget : Budget
    relative, absolute : float
        The search ends when ``bound - sample <= absolute + relative*|bound|``.
    enough : float
        The search also ends when the bound is at most this.
    first : float
        A value known to be attained, from samples.
    """
    queue: list[tuple[float, int, Box]] = []
    weights: dict[int, np.ndarray | None] = {}
    best, count = first, 0
    scale = np.ptp(np.array([cover.lower, cover.upper]), axis=0) + 1e-300

    def push(box: Box) -> None:
        nonlocal best, count
        reduced = cover.reduce(*box)
        if reduced is None:
            return
        count += 1
        bound, weight = bound_on(*reduced)
        if math.isnan(bound):
            bound = math.inf
        middle = 0.5 * (reduced[0] + reduced[1])[None, :]
        if bound > best and cover.contains(middle)[0]:
            value = float(value_at(middle)[0])
            best = max(best, value) if math.isfinite(value) else best
        weights[count] = weight
        heapq.heappush(queue, (-bound, count, reduced))

    for box in cover.roots:
        push(box)
    while queue:
        top, number, (lo, hi) = queue[0]
        bound = -top
        done = bound <= max(enough, best + absolute + relative * abs(bound)) if math.isfinite(bound) else False
        if done or budget.spent(count):
            return Outcome(bound, best, count, (lo, hi), done)
        weight = weights.pop(number)
        side = _side(lo, hi, scale, weight)
        if hi[side] - lo[side] <= 1e-12 * scale[side]:
            return Outcome(bound, best, count, (lo, hi), False)
        heapq.heappop(queue)
        middle = 0.5 * (lo[side] + hi[side])
        left, right = hi.copy(), lo.copy()
        left[side] = right[side] = middle
        push((lo, left))
        push((right, hi))
    return Outcome(-math.inf, best, count, None, True)


def _side(lo: np.ndarray, hi: np.ndarray, scale: np.ndarray, weight: np.ndarray | None) -> int:
    """Choose the side to cut: where the function varies most, but never let a box get thinner than 1:50."""
    lengths = (hi - lo) / scale
    if weight is None or not np.all(np.isfinite(weight)) or not np.any(weight > 0):
        return int(np.argmax(lengths))
    if lengths.max() <= 0:
        return 0
    return int(np.argmax(np.where(lengths >= lengths.max() / 50, weight, -1.0)))
