"""The boundary of one component of {L < level}: traced once, then exact points by Newton's method.

One dimension: two roots. Two dimensions: closed curves (holes are kept). Three dimensions: a surface that
every ray from the given point meets once (star-shaped).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Protocol

import numpy as np
from matplotlib.path import Path
from scipy.optimize import brentq
from scipy.spatial import cKDTree

from fpsolve.errors import InputError
from fpsolve.model.process import Landscape

GRIDS = (200, 400, 800, 1600)  # cells of the tracing grid along each side, until the shape stands still
SCAN = 2000  # samples in one dimension
RAY_SAMPLES = 256
LARGER = "Enlarge domain.box or lower domain.below."


class Component(Protocol):
    """A traced component."""

    def bounding_box(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the corners of a box around it."""

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Tell which of the points x (n, d) lie in it."""


def trace_component(
    landscape: Landscape, level: float, point: tuple[float, ...], lower: tuple[float, ...], upper: tuple[float, ...]
) -> Segment | Planar | Star:
    """Trace the component of {L < level} that holds `point`, within a box. Not collective.

    Raises
    ------
    InputError
        ``domain.box`` if the component reaches the box; ``domain.below`` if its boundary cannot be followed
        (the gradient vanishes there); ``domain.containing`` if, in 3D, it is not star-shaped about the point.
    """
    center, low, high = np.array(point), np.array(lower), np.array(upper)
    if len(center) == 1:
        return _segment(landscape, level, center, low, high)
    if len(center) == 2:
        return _planar(landscape, level, center, low, high)
    return _star(landscape, level, center, low, high)


def project(landscape: Landscape, level: float, points: np.ndarray, reach: np.ndarray | float) -> np.ndarray:
    """Move points along the gradient onto {L = level} by Newton's method, to rounding.

    Parameters
    ----------
    points : ndarray, shape (n, d)
    reach : float or ndarray of shape (n,)
        The largest distance a point may move.

    Raises
    ------
    InputError
        If a point does not arrive; the gradient vanishes on the level set, or the mesh is too coarse there.
    """
    x = np.array(points, dtype=float)
    reach = np.broadcast_to(np.asarray(reach, dtype=float), (len(x),))
    best, best_step, idle = x.copy(), np.full(len(x), np.inf), 0
    for _ in range(60):
        value = landscape.loss(x) - level
        gradient = landscape.gradient(x)
        with np.errstate(all="ignore"):
            step = -value[:, None] * gradient / np.sum(gradient**2, axis=1)[:, None]
        step = np.where(np.isfinite(step).all(axis=1)[:, None], step, np.inf)
        length = np.linalg.norm(step, axis=1)
        better = length < best_step
        best[better], best_step[better] = x[better], length[better]
        idle = 0 if better.any() else idle + 1
        # steps shrink until rounding; before that they may grow for a while
        if idle == 3 or np.all(best_step <= 4e-16 * (np.abs(best).max(axis=1) + reach)):
            break
        with np.errstate(all="ignore"):
            factor = np.minimum(1.0, 0.5 * reach / length)
        x = x + np.where(np.isfinite(length)[:, None], step, 0.0) * np.nan_to_num(factor)[:, None]
    moved = np.linalg.norm(best - points, axis=1)
    bad = (best_step > 1e-9 * reach + 1e-14 * np.abs(best).max(axis=1)) | (moved > reach)
    if bad.any():
        where = tuple(float(c) for c in points[np.argmax(bad)])
        raise InputError(
            "domain.below",
            level,
            "a level that is no critical value of the loss",
            f"The boundary cannot be followed near {where}.",
        )
    return best


def _loss(landscape: Landscape, x: np.ndarray) -> np.ndarray:
    """Return L with poles replaced by huge values of the same sign; undefined counts as outside."""
    return np.nan_to_num(landscape.loss(x), nan=1e300, posinf=1e300, neginf=-1e300)


# --- one dimension ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Segment:
    """The interval (lower, upper)."""

    lower: float
    upper: float

    def bounding_box(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the two ends, each of shape (1,)."""
        return np.array([self.lower]), np.array([self.upper])

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Tell which of the points x (n, 1) lie strictly between the ends."""
        return (x[:, 0] > self.lower) & (x[:, 0] < self.upper)


def _segment(landscape: Landscape, level: float, center: np.ndarray, low: np.ndarray, high: np.ndarray) -> Segment:
    def excess(x: float) -> float:
        return float(_loss(landscape, np.array([[x]]))[0]) - level

    ends = []
    for end in (low[0], high[0]):
        # sampled more densely near the point: narrow wells in wide boxes are found too
        t = np.concatenate([[0.0], np.geomspace(1e-6, 1.0, SCAN // 2), np.linspace(0, 1, SCAN)[1:]])
        x = center[0] + np.unique(t) * (end - center[0])
        outside = np.flatnonzero(_loss(landscape, x[:, None]) >= level)
        if len(outside) == 0:
            raise InputError(
                "domain.box", (float(low[0]), float(high[0])), "an interval with the component inside", LARGER
            )
        k = outside[0]
        ends.append(float(brentq(excess, x[k - 1], x[k], xtol=1e-300, rtol=1e-15)))
    return Segment(*ends)


# --- two dimensions --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Planar:
    """A plane region bounded by closed curves.

    Attributes
    ----------
    loops : tuple of ndarray, shape (n, 2)
        Points on the level set, without repetition of the first; the outer curve is the first.
    spacing : float
        Distance between neighbours, at most.
    """

    landscape: Landscape
    level: float
    loops: tuple[np.ndarray, ...]
    spacing: float

    def bounding_box(self) -> tuple[np.ndarray, np.ndarray]:
        """Return a box around the outer curve, a little wider than its traced points."""
        low, high = self.loops[0].min(axis=0), self.loops[0].max(axis=0)
        return low - 0.1 * self.spacing, high + 0.1 * self.spacing

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Tell which of the points x (n, 2) lie inside; near the curves L itself decides."""
        below = landscape_below(self.landscape, self.level, x)
        inside = Path(self.loops[0]).contains_points(x)
        for hole in self.loops[1:]:
            inside &= ~Path(hole).contains_points(x)
        inside &= below
        unclear = np.flatnonzero(below & ~inside)
        if len(unclear):  # between a chord and the curve
            inside[unclear] = self._distance(x[unclear]) <= 0.1 * self.spacing
        return inside

    def _distance(self, x: np.ndarray) -> np.ndarray:
        """Return the distance to the polygons, inf beyond twice the spacing."""
        result = np.full(len(x), np.inf)
        for loop in self.loops:
            distance, nearest = cKDTree(loop).query(x, distance_upper_bound=2 * self.spacing)
            near = np.flatnonzero(np.isfinite(distance))
            for step in (-1, 1):
                a, b = loop[nearest[near]], loop[(nearest[near] + step) % len(loop)]
                t = np.clip(np.sum((x[near] - a) * (b - a), axis=1) / np.sum((b - a) ** 2, axis=1), 0, 1)
                foot = a + t[:, None] * (b - a)
                result[near] = np.minimum(result[near], np.linalg.norm(x[near] - foot, axis=1))
        return result


def landscape_below(landscape: Landscape, level: float, x: np.ndarray) -> np.ndarray:
    """Tell where L < level, undefined values counting as not."""
    return _loss(landscape, x) < level


def _planar(landscape: Landscape, level: float, center: np.ndarray, low: np.ndarray, high: np.ndarray) -> Planar:
    before: list[np.ndarray] | None
    window, before = _window(landscape, level, center, low, high)
    error = InputError("domain.below", level, "a level whose boundary can be traced", "It has too fine a structure.")
    for cells in GRIDS[1:]:
        polygon = _polygon(landscape, level, center, *window, cells)
        settled = _alike(before, polygon)
        before = polygon
        if polygon is None or not settled or _touches(polygon[0], *window):
            continue
        spacing = float(np.linalg.norm((window[1] - window[0]) / cells))
        try:
            loops = tuple(_thin(project(landscape, level, loop, 2 * spacing), 0.05 * spacing) for loop in polygon)
            loops = tuple(_densified(landscape, level, loop) for loop in loops)
        except InputError as problem:
            error = problem
            continue
        if crosses_itself(loops):  # points of a thin tip have changed places
            continue
        return Planar(landscape, level, loops, spacing)
    raise error


Window = tuple[np.ndarray, np.ndarray]


def _window(
    landscape: Landscape, level: float, center: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[Window, list[np.ndarray]]:
    """Return a box that the component fills by about two thirds in its smaller direction, and its rough polygon."""
    window = (low, high)
    for _ in range(100):
        polygon = _polygon(landscape, level, center, *window, GRIDS[0])
        if polygon is None:  # smaller than a cell: zoom in
            half = (window[1] - window[0]) / 16
            window = (np.maximum(center - half, low), np.minimum(center + half, high))
            continue
        extent = np.ptp(polygon[0], axis=0)
        if _touches(polygon[0], *window):
            if np.all(window[0] <= low) and np.all(window[1] >= high):
                raise InputError("domain.box", (low.tolist(), high.tolist()), "a box with the component inside", LARGER)
            margin = 0.6 * extent
        elif np.all(extent >= 0.3 * (window[1] - window[0])):
            return window, polygon
        else:
            margin = 0.25 * extent
        window = (np.maximum(polygon[0].min(axis=0) - margin, low), np.minimum(polygon[0].max(axis=0) + margin, high))
    raise InputError(
        "domain.containing",
        center.tolist(),
        "a point well inside of {L < below}",
        "The component is too small to be traced.",
    )


def _alike(first: list[np.ndarray] | None, second: list[np.ndarray] | None) -> bool:
    """Tell whether two polygons have as many holes and nearly the same area."""
    if first is None or second is None or len(first) != len(second):
        return False
    areas = [sum(polygon_area(loop) for loop in polygon) for polygon in (first, second)]
    return abs(areas[0] - areas[1]) < 0.02 * abs(areas[1])


def crosses_itself(loops: Sequence[np.ndarray]) -> bool:
    """Tell whether closed polygons (n, 2) cross themselves or each other."""
    start = np.concatenate(list(loops))
    end = np.concatenate([np.roll(loop, -1, axis=0) for loop in loops])
    longest = float(np.linalg.norm(end - start, axis=1).max())
    i, j = cKDTree(0.5 * (start + end)).query_pairs(longest * (1 + 1e-9), output_type="ndarray").T

    def side(k: np.ndarray, x: np.ndarray) -> np.ndarray:
        along, to = end[k] - start[k], x - start[k]
        return along[:, 0] * to[:, 1] - along[:, 1] * to[:, 0]

    apart = (side(i, start[j]) * side(i, end[j]) >= 0) | (side(j, start[i]) * side(j, end[i]) >= 0)
    return not bool(apart.all())


def polygon_area(loop: np.ndarray) -> float:
    """Return the signed area of a polygon (n, 2), positive if it runs counterclockwise."""
    x, y = (loop - loop[0]).T
    return 0.5 * float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))


def _polygon(
    landscape: Landscape, level: float, center: np.ndarray, low: np.ndarray, high: np.ndarray, cells: int
) -> list[np.ndarray] | None:
    """Return the polygons (outer one, holes) around `center` by marching squares, or None."""
    from contourpy import FillType, contour_generator

    axes = [np.linspace(a, b, cells + 1) for a, b in zip(low, high, strict=True)]
    x, y = np.meshgrid(*axes)
    excess = _loss(landscape, np.column_stack([x.ravel(), y.ravel()])) - level
    # interpolation between a pole and a neighbour would lose all digits; the sign is what counts
    typical = np.median(np.abs(excess)) + np.abs(excess).min() + 1e-300
    excess = np.clip(excess, -1e6 * typical, 1e6 * typical).reshape(x.shape)
    lines = contour_generator(x, y, excess, fill_type=FillType.OuterOffset).filled(-np.inf, 0.0)
    for points, offsets in zip(*lines, strict=True):
        loops = [points[a:b][:-1] for a, b in pairwise(offsets)]
        around = [bool(Path(loop).contains_points(center[None])[0]) for loop in loops]
        if around[0] and not any(around[1:]):
            return loops
    return None


def _touches(loop: np.ndarray, low: np.ndarray, high: np.ndarray) -> bool:
    margin = 1e-9 * (high - low)
    return bool(np.any((loop <= low + margin) | (loop >= high - margin)))


def _thin(loop: np.ndarray, distance: float) -> np.ndarray:
    """Drop points that lie almost on top of their predecessor."""
    keep = [0]
    for k in range(1, len(loop)):
        if np.linalg.norm(loop[k] - loop[keep[-1]]) > distance:
            keep.append(k)
    while len(keep) > 3 and np.linalg.norm(loop[keep[-1]] - loop[0]) <= distance:
        keep.pop()
    return loop[keep]


def _densified(landscape: Landscape, level: float, loop: np.ndarray) -> np.ndarray:
    """Add points where the curve turns by more than 0.25 from one edge to the next (not for ever at corners)."""
    for _ in range(8):
        ahead = np.roll(loop, -1, axis=0) - loop
        behind = np.roll(ahead, 1, axis=0)
        cross = behind[:, 0] * ahead[:, 1] - behind[:, 1] * ahead[:, 0]
        sharp = np.abs(np.arctan2(cross, np.sum(behind * ahead, axis=1))) > 0.25
        split = np.flatnonzero(sharp | np.roll(sharp, -1))
        if len(split) == 0:
            break
        middle = loop[split] + 0.5 * ahead[split]
        middle = project(landscape, level, middle, np.linalg.norm(ahead[split], axis=1))
        loop = np.insert(loop, split + 1, middle, axis=0)
    return loop


# --- three dimensions ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Star:
    """A star-shaped region: the points x with |x - center| < radius((x - center)/|x - center|)."""

    landscape: Landscape
    level: float
    center: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    @cached_property
    def directions(self) -> np.ndarray:
        """4000 unit vectors, nearly uniform, shape (4000, 3)."""
        return sphere_points(4000)

    @cached_property
    def radii(self) -> np.ndarray:
        """The radius along `directions`."""
        return self.radius(self.directions)

    def radius(self, directions: np.ndarray) -> np.ndarray:
        """Return the distance from the centre to the boundary along unit vectors (n, 3), shape (n,).

        Raises
        ------
        InputError
            If a ray reaches the box first.
        """
        parts = np.array_split(directions, max(1, len(directions) // 2000))
        return np.concatenate([self._radius(part) for part in parts])

    def _radius(self, directions: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            reach = np.where(directions > 0, self.upper - self.center, self.lower - self.center) / directions
        length = np.min(np.where(directions == 0, np.inf, reach), axis=1)
        t = np.concatenate([[0.0], np.geomspace(1e-4, 0.02, 24), np.linspace(0.02, 1.0, RAY_SAMPLES)[1:]])
        outside = self._excess(directions, length[:, None] * t) >= 0
        if not outside.any(axis=1).all():
            raise InputError(
                "domain.box", (self.lower.tolist(), self.upper.tolist()), "a box with the component inside", LARGER
            )
        k = outside.argmax(axis=1)
        a, b = length * t[k - 1], length * t[k]
        for _ in range(60):
            middle = 0.5 * (a + b)
            out = self._excess(directions, middle[:, None])[:, 0] >= 0
            a, b = np.where(out, a, middle), np.where(out, middle, b)
        return 0.5 * (a + b)

    def _excess(self, directions: np.ndarray, distances: np.ndarray) -> np.ndarray:
        x = self.center + directions[:, None, :] * distances[:, :, None]
        return _loss(self.landscape, x.reshape(-1, 3)).reshape(distances.shape) - self.level

    def bounding_box(self) -> tuple[np.ndarray, np.ndarray]:
        """Return a box around the region, 2 % wider than its traced points, within the given box."""
        x = self.center + self.directions * self.radii[:, None]
        extra = 0.02 * np.ptp(x, axis=0)
        return np.maximum(x.min(axis=0) - extra, self.lower), np.minimum(x.max(axis=0) + extra, self.upper)

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Tell which of the points x (n, 3) can be reached from the centre along a ray in {L < level}."""
        offset = x - self.center
        distance = np.linalg.norm(offset, axis=1)
        inside = landscape_below(self.landscape, self.level, x)
        inside &= np.all((x > self.lower) & (x < self.upper), axis=1)
        far = np.flatnonzero(inside & (distance > 0))
        if len(far):
            radius = self.radius(offset[far] / distance[far][:, None])
            inside[far] = distance[far] <= radius * (1 + 1e-12)
        return inside


def sphere_points(n: int) -> np.ndarray:
    """Return n nearly uniform unit vectors (a Fibonacci lattice), shape (n, 3)."""
    k = np.arange(n) + 0.5
    z, angle = 1 - 2 * k / n, k * np.pi * (1 + np.sqrt(5.0))
    rho = np.sqrt(1 - z**2)
    return np.column_stack([rho * np.cos(angle), rho * np.sin(angle), z])


def _star(landscape: Landscape, level: float, center: np.ndarray, low: np.ndarray, high: np.ndarray) -> Star:
    star = Star(landscape, level, center, low, high)
    directions, radius = star.directions, star.radii
    surface = center + directions * radius[:, None]
    gradient = landscape.gradient(surface)
    slope = np.sum(gradient * directions, axis=1) / np.linalg.norm(gradient, axis=1)
    neighbours = cKDTree(directions).query(directions, k=7)[1][:, 1:]
    start, end = np.repeat(np.arange(len(directions)), 6), neighbours.ravel()
    steep = np.abs(radius[start] - radius[end]) > 0.25 * np.minimum(radius[start], radius[end])
    jump = _jumps(star, directions[start[steep]], directions[end[steep]], radius[start[steep]], radius[end[steep]])
    if not (slope > 0.02).all() or jump:
        raise InputError(
            "domain.containing",
            center.tolist(),
            "a point from which every ray meets the boundary once",
            "In three dimensions the component must be star-shaped about it.",
        )
    return star


def _jumps(star: Star, a: np.ndarray, b: np.ndarray, ra: np.ndarray, rb: np.ndarray) -> bool:
    """Tell whether the radius jumps between neighbouring directions: halving the angle does not close the gap."""
    if len(a) == 0:
        return False
    gap = np.abs(ra - rb)
    for _ in range(12):
        middle = a + b
        middle /= np.linalg.norm(middle, axis=1)[:, None]
        rm = star.radius(middle)
        left = np.abs(ra - rm) > np.abs(rm - rb)
        a, ra = np.where(left[:, None], a, middle), np.where(left, ra, rm)
        b, rb = np.where(left[:, None], middle, b), np.where(left, rm, rb)
    return bool(np.any(np.abs(ra - rb) > 0.2 * gap))
