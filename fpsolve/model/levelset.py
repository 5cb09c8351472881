"""Points on a level set {L = level} by Newton's method, and level curves in the plane.

The curves around one component of {L < level} are found by marching squares, on finer and finer grids until
their shape stands still, and then put onto the level set exactly; holes are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.path import Path
from scipy.spatial import cKDTree

from fpsolve.errors import InputError
from fpsolve.model.process import Landscape

GRIDS = (200, 400, 800, 1600)  # cells of the tracing grid along each side, until the shape stands still
LARGER = "Enlarge domain.box or lower domain.below."


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


def pole_free_loss(landscape: Landscape, x: np.ndarray) -> np.ndarray:
    """Return L with poles replaced by huge values of the same sign; undefined counts as outside."""
    return np.nan_to_num(landscape.loss(x), nan=1e300, posinf=1e300, neginf=-1e300)


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
        below = is_below(self.landscape, self.level, x)
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


def is_below(landscape: Landscape, level: float, x: np.ndarray) -> np.ndarray:
    """Tell where L < level, undefined values counting as not."""
    return pole_free_loss(landscape, x) < level


def trace_plane(landscape: Landscape, level: float, center: np.ndarray, low: np.ndarray, high: np.ndarray) -> Planar:
    """Trace the component of {L < level} around `center` on grids refined until two of them agree.

    Raises
    ------
    InputError
        If the boundary has too fine a structure or reaches the window.
    """
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
    excess = pole_free_loss(landscape, np.column_stack([x.ravel(), y.ravel()])) - level
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
    """Add points where the curve turns by more than 0.25 from one edge to the next, or was cut short.

    An edge along the gradient cuts off the tip of a valley that is thinner than the grid: the tip is looked for
    beyond it. Corners are refined a few times only.
    """
    for _ in range(12):
        ahead = np.roll(loop, -1, axis=0) - loop
        length = np.linalg.norm(ahead, axis=1)
        behind = np.roll(ahead, 1, axis=0)
        cross = behind[:, 0] * ahead[:, 1] - behind[:, 1] * ahead[:, 0]
        sharp = np.abs(np.arctan2(cross, np.sum(behind * ahead, axis=1))) > 0.25
        gradient = landscape.gradient(loop)
        gradient /= np.linalg.norm(gradient, axis=1)[:, None]
        along = np.minimum(*(np.abs(np.sum(g * ahead, axis=1)) for g in (gradient, np.roll(gradient, -1, axis=0))))
        tip = along > 0.7 * length
        split = np.flatnonzero(sharp | np.roll(sharp, -1) | tip)
        if len(split) == 0:
            break
        start = loop[split] + 0.5 * ahead[split]
        beyond = np.flatnonzero(tip[split])
        if len(beyond):
            outward = np.column_stack([ahead[split, 1], -ahead[split, 0]])  # the inside is on the left
            start[beyond] = _beyond(landscape, level, start[beyond], outward[beyond])
        loop = np.insert(loop, split + 1, project(landscape, level, start, length[split]), axis=0)
    return loop


def _beyond(landscape: Landscape, level: float, x: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Return the first points found on rays from x where L reaches the level; x itself where none is."""
    t = np.concatenate([[0.0], np.geomspace(0.01, 100.0, 400)])
    rays = x[:, None] + t[:, None] * direction[:, None]
    outside = ~is_below(landscape, level, rays.reshape(-1, 2)).reshape(rays.shape[:2])
    k = outside.argmax(axis=1)
    found = outside.any(axis=1) & (k > 0)
    a, b = t[np.maximum(k - 1, 0)], t[k]
    for _ in range(50):
        middle = 0.5 * (a + b)
        out = ~is_below(landscape, level, x + middle[:, None] * direction)
        a, b = np.where(out, a, middle), np.where(out, middle, b)
    return np.where(found[:, None], x + b[:, None] * direction, x)
