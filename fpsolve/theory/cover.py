"""Boxes that cover a domain, and rigorous tests of what lies outside and inside of it.

A supremum over a superset of the domain is an upper bound of the supremum over the domain, so a cover may always be too
large. Boxes are dropped only when floating point with a margin, or Arb, proves that they miss the domain.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from flint import arb

from fpsolve.model.domains import Ball as BallDomain
from fpsolve.model.domains import Box as BoxDomain
from fpsolve.model.domains import Interval, Sublevel
from fpsolve.model.process import Enclosure
from fpsolve.theory.balls import Ball, above, below, box_balls, dot, finite, norm

Box = tuple[np.ndarray, np.ndarray]
# relative margin for the few floating-point operations of the geometric tests
MARGIN = 1e-13


class Cover(Protocol):
    """A finite union of boxes that holds the domain."""

    @property
    def lower(self) -> np.ndarray:
        """Lower corner of a box around everything, shape (d,)."""

    @property
    def upper(self) -> np.ndarray:
        """Upper corner, shape (d,)."""

    @property
    def roots(self) -> tuple[Box, ...]:
        """The boxes to start from."""

    def reduce(self, lo: np.ndarray, hi: np.ndarray) -> Box | None:
        """Return a box that holds the domain's part of the given one; None if that part is empty, rigorously."""

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Tell (in floating point) which points x (n, d) lie in the domain."""

    def rise(self, slope: Sequence[Ball], lo: np.ndarray, hi: np.ndarray) -> Ball:
        """Return the largest of slope·(x - m), m = (lo + hi)/2, for x in the domain's part of the box, or more."""


@dataclass(frozen=True)
class BoxCover:
    """A box; also stands for a mesh file, by its bounding box."""

    lower: np.ndarray
    upper: np.ndarray

    @property
    def roots(self) -> tuple[Box, ...]:
        """The box itself."""
        return ((self.lower, self.upper),)

    def reduce(self, lo: np.ndarray, hi: np.ndarray) -> Box | None:
        """Return the box unchanged."""
        return lo, hi

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Tell which points lie in the box."""
        return np.all((x >= self.lower) & (x <= self.upper), axis=1)

    def rise(self, slope: Sequence[Ball], lo: np.ndarray, hi: np.ndarray) -> Ball:
        """Return the largest of slope·(x - m) on the box."""
        return _box_rise(slope, lo, hi)


@dataclass(frozen=True)
class BallCover:
    """The closed ball of that centre and radius."""

    center: np.ndarray
    radius: float

    @property
    def lower(self) -> np.ndarray:
        """Lower corner of the bounding box, rounded down."""
        return self.center - self.radius - MARGIN * (np.abs(self.center) + self.radius)

    @property
    def upper(self) -> np.ndarray:
        """Upper corner of the bounding box, rounded up."""
        return self.center + self.radius + MARGIN * (np.abs(self.center) + self.radius)

    @property
    def roots(self) -> tuple[Box, ...]:
        """The bounding box."""
        return ((self.lower, self.upper),)

    def reduce(self, lo: np.ndarray, hi: np.ndarray) -> Box | None:
        """Cut the box back to the ball: |x_i - c_i|² <= R² - Σ_{j≠i} dist_j²."""
        distance = np.maximum(np.maximum(lo - self.center, self.center - hi), 0.0) * (1 - MARGIN)
        room = (self.radius * (1 + MARGIN)) ** 2 - (np.sum(distance**2) - distance**2) * (1 - MARGIN)
        if np.any(room < 0) or np.sum(distance**2) * (1 - MARGIN) > (self.radius * (1 + MARGIN)) ** 2:
            return None
        reach = np.sqrt(room) * (1 + MARGIN) + MARGIN * (np.abs(self.center) + self.radius)
        lo, hi = np.maximum(lo, self.center - reach), np.minimum(hi, self.center + reach)
        return (lo, hi) if np.all(lo <= hi) else None

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Tell which points lie in the ball."""
        return np.sum((x - self.center) ** 2, axis=1) <= self.radius**2

    def rise(self, slope: Sequence[Ball], lo: np.ndarray, hi: np.ndarray) -> Ball:
        """Return the lesser of the largest of slope·(x - m) on the box and on the ball, ``g·(c - m) + |g|R``.

        The second makes the mean-value form of second order at the sphere, where suprema often lie.
        """
        on_box = _box_rise(slope, lo, hi)
        if not finite(slope):
            return on_box
        fixed = [g.mid() for g in slope]
        rest = _box_rise([g - f for g, f in zip(slope, fixed, strict=True)], lo, hi)
        offset = [arb(float(c)) - arb(float(m)) for c, m in zip(self.center, 0.5 * (lo + hi), strict=True)]
        return on_box.min(dot(fixed, offset) + norm(fixed) * arb(self.radius) + rest)


@dataclass(frozen=True)
class SphereCover(BallCover):
    """The sphere of that centre and radius."""

    def reduce(self, lo: np.ndarray, hi: np.ndarray) -> Box | None:
        """Cut the box back to the ball; None if it lies inside of the sphere or outside."""
        furthest = np.maximum(hi - self.center, self.center - lo)
        if np.sum(furthest**2) * (1 + MARGIN) < (self.radius * (1 - MARGIN)) ** 2:
            return None
        return super().reduce(lo, hi)

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Return False for all points: in floating point none is sure to lie on the sphere."""
        return np.zeros(len(x), dtype=bool)


@dataclass(frozen=True)
class SublevelCover:
    """Boxes around one component of {L < below}, found by `_component`.

    `separated` is True when they do not reach the box in which the component is looked for, which proves that they
    hold all of it.
    """

    domain: Any
    enclosure: Enclosure
    roots: tuple[Box, ...]
    separated: bool

    @property
    def lower(self) -> np.ndarray:
        """Lower corner of all boxes."""
        return np.min([lo for lo, _ in self.roots], axis=0)

    @property
    def upper(self) -> np.ndarray:
        """Upper corner of all boxes."""
        return np.max([hi for _, hi in self.roots], axis=0)

    def reduce(self, lo: np.ndarray, hi: np.ndarray) -> Box | None:
        """Drop the box if L >= below on all of it."""
        return None if loss_range(self.enclosure, lo, hi)[0] >= self.domain.below else (lo, hi)

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Tell which points lie in the component."""
        return self.domain.contains(x)

    def rise(self, slope: Sequence[Ball], lo: np.ndarray, hi: np.ndarray) -> Ball:
        """Return the largest of slope·(x - m) on the box."""
        return _box_rise(slope, lo, hi)


def cover_of(domain: Any, boxes: int = 400) -> Cover:
    """Return a cover of the domain; a mesh file (or anything unknown) is covered by its bounding box.

    Parameters
    ----------
    domain : Interval, Box, Ball, Sublevel or any object with ``bounding_box()``
    boxes : int
        How many boxes may be spent on separating the component of a sublevel set from the others.
    """
    if isinstance(domain, BallDomain):
        return BallCover(np.asarray(domain.center, dtype=float), float(domain.radius))
    if isinstance(domain, Sublevel):
        enclosure = domain.landscape.enclosure()
        if enclosure is not None:
            # the search box and not bounding_box(), which comes from a boundary traced in floating point
            box = np.asarray(domain.lower, dtype=float), np.asarray(domain.upper, dtype=float)
            roots = _component(domain, enclosure, *box, boxes)
            inside = all(np.all(lo > box[0]) and np.all(hi < box[1]) for lo, hi in roots)
            return SublevelCover(domain, enclosure, roots, inside)
    lo, hi = (np.atleast_1d(np.asarray(corner, dtype=float)) for corner in domain.bounding_box())
    if not isinstance(domain, (BoxDomain, Interval)):
        slack = MARGIN * (np.abs(lo) + np.abs(hi))
        lo, hi = lo - slack, hi + slack
    return BoxCover(lo, hi)


def _box_rise(slope: Sequence[Ball], lo: np.ndarray, hi: np.ndarray) -> Ball:
    total = arb(0)
    for g, a, b in zip(slope, lo, hi, strict=True):
        middle = arb(float(0.5 * (a + b)))
        total += abs(g) * (arb(float(b)) - middle).max(middle - arb(float(a)))
    return total.upper() if total.is_finite() else total


def loss_range(enclosure: Enclosure, lo: np.ndarray, hi: np.ndarray) -> tuple[float, float]:
    """Return rigorous lower and upper bounds of L over the box (plain and mean-value form)."""
    box = box_balls(lo, hi)
    plain = enclosure.loss(box)
    least, most = below(plain), above(plain)
    gradient = enclosure.gradient(box)
    if finite(gradient):
        middle = [arb(float(m)) for m in 0.5 * (lo + hi)]
        mean = enclosure.loss(middle) + dot(gradient, [x - m for x, m in zip(box, middle, strict=True)])
        least, most = max(least, below(mean)), min(most, above(mean))
    return least, most


def _component(domain: Any, enclosure: Enclosure, lo: np.ndarray, hi: np.ndarray, boxes: int) -> tuple[Box, ...]:
    """Return boxes around the component that holds the given point.

    Boxes that surely have L >= below are dropped. What is left falls into clusters of touching boxes; different
    clusters have a positive distance, so a connected set lies in one of them: the one with the point.
    """
    scale = np.maximum(hi - lo, 1e-300)
    queue: deque[Box] = deque([(lo, hi)])
    spent = 0
    while queue and spent < boxes:
        a, b = queue.popleft()
        side = int(np.argmax((b - a) / scale))
        middle = 0.5 * (a[side] + b[side])
        left, right = b.copy(), a.copy()
        left[side] = right[side] = middle
        for box in ((a, left), (right, b)):
            spent += 1
            if loss_range(enclosure, *box)[0] < domain.below:
                queue.append(box)
    if not queue:
        return ((lo, hi),)
    lows, highs = np.array([a for a, _ in queue]), np.array([b for _, b in queue])
    point = np.asarray(domain.containing, dtype=float)
    inside = np.all((lows <= point) & (point <= highs), axis=1)
    front = list(np.flatnonzero(inside))
    while front:
        k = front.pop()
        touching = np.all((lows <= highs[k]) & (lows[k] <= highs), axis=1) & ~inside
        inside |= touching
        front.extend(np.flatnonzero(touching))
    return tuple((lows[k], highs[k]) for k in np.flatnonzero(inside)) or ((lo, hi),)


def sample(cover: Cover, count: int) -> np.ndarray:
    """Return up to `count` evenly spread points of the domain and of a ball's boundary, always the same ones.

    Returns
    -------
    ndarray, shape (m, d), m >= 0
    """
    lo, hi = cover.lower, cover.upper
    d = len(lo)
    if d == 1:
        unit = np.linspace(0.0, 1.0, count)[:, None]
    else:
        root = 2.0
        for _ in range(40):  # the positive root of t^(d+1) = t + 1 (Kronecker sequence of Roberts)
            root = (1 + root) ** (1 / (d + 1))
        unit = (0.5 + np.arange(1, count + 1)[:, None] * root ** -np.arange(1.0, d + 1)) % 1.0
    x = lo + unit * (hi - lo)
    x = x[cover.contains(x)]
    if isinstance(cover, BallCover):
        directions = unit[: count // 4] - 0.5
        lengths = np.linalg.norm(directions, axis=1, keepdims=True)
        rim = cover.center + cover.radius * (1 - 1e-12) * directions / np.where(lengths > 0, lengths, 1.0)
        x = np.concatenate([x, rim[cover.contains(rim)]])
    return x


def inscribed_radius(domain: Any, center: np.ndarray, slack: float = 0.0) -> float:
    """Return the radius of a ball about any point within `slack` of `center` that surely lies in the domain.

    Parameters
    ----------
    domain : Interval, Box or Ball
        0 is returned for others; for sublevel sets see `ball_in_sublevel`.
    """
    if isinstance(domain, BallDomain):
        offset = [arb(float(a)) - arb(float(b)) for a, b in zip(center, domain.center, strict=True)]
        return max(below(arb(float(domain.radius)) - norm(offset) - arb(slack)), 0.0)
    if isinstance(domain, (BoxDomain, Interval)):
        lo, hi = (np.atleast_1d(np.asarray(corner, dtype=float)) for corner in domain.bounding_box())
        gaps = [below(arb(float(c)) - arb(float(a)) - arb(slack)) for a, c in zip(lo, center, strict=True)]
        gaps += [below(arb(float(b)) - arb(float(c)) - arb(slack)) for b, c in zip(hi, center, strict=True)]
        return max(min(gaps), 0.0)
    return 0.0


def segment_below(domain: Any, enclosure: Enclosure, start: Sequence[float], end: np.ndarray, pieces: int = 64) -> bool:
    """Tell whether L < below is proven on the segment from `start` to `end`.

    With the ball about `end` inside {L < below} this shows that the ball lies in the component of `start`.
    """
    a, b = np.asarray(start, dtype=float), np.asarray(end, dtype=float)
    if math.isclose(float(np.max(np.abs(b - a))), 0.0):
        pieces = 1
    nodes = a + np.linspace(0.0, 1.0, pieces + 1)[:, None] * (b - a)
    # consecutive boxes share a node, so the union of them is connected whatever the rounding of the nodes
    return all(loss_range(enclosure, np.minimum(p, q), np.maximum(p, q))[1] < domain.below for p, q in pairwise(nodes))
