"""Communication heights: how high a path from one minimum to another must climb at least.

``Φ(x, y)`` is the infimum over paths from x to y of the largest L on the path. From above: the gradient flow from a
saddle of index 1, both ways along its unstable direction, joins two minima by a path whose highest point is the
saddle; over the graph of these paths Φ is at most the lowest highest saddle. From below, a theorem that needs no list
of critical points: if boxes that cover {L < c} fall into clusters and the cluster of x neither holds y nor touches the
boundary of the box that is looked at, every path from x to y reaches c.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fpsolve.model.basins import flow
from fpsolve.model.condense import condensed
from fpsolve.model.domains import Ball, Interval, Sublevel
from fpsolve.model.domains import Box as BoxDomain
from fpsolve.model.process import Process
from fpsolve.theory.cover import Box, BoxCover, Cover, SphereCover
from fpsolve.theory.critical import CriticalPoint, CriticalPoints
from fpsolve.theory.derivatives import Derivatives, derivatives_of, loss_range
from fpsolve.theory.laws import eyring_kramers_time
from fpsolve.theory.levels import separates
from fpsolve.theory.search import Budget, maximise

#: How far from a saddle the flow starts, and how near to a minimum it has arrived, relative to the region's size.
START, ARRIVED = 1e-4, 1e-3
#: How far below the saddle a bound from below is looked for, relative to its height over the shallower group.
GAPS = (0.1, 0.01, 0.001)
#: Boxes for one bound from below, and for the loss on the boundary.
BOXES, FACE_BOXES = 2000, 500


@dataclass(frozen=True)
class Descent:
    """The two paths of steepest descent from a saddle.

    Attributes
    ----------
    saddle : int
        Its place in `CriticalPoints.saddles`.
    ends : tuple of two int
        The places in `CriticalPoints.minima` of the minima that are reached; -1: none of them.
    paths : tuple of two ndarray, shape (n, d)
        From the saddle to the end.
    """

    saddle: int
    ends: tuple[int, int]
    paths: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Height:
    """The communication height between two minima.

    Attributes
    ----------
    first, second : int
        Places in `CriticalPoints.minima`.
    saddle : int or None
        The place in `CriticalPoints.saddles` of the saddle that is the highest point of the lowest path found; None
        where no path was found.
    level : float
        L there: an upper bound of the height, as far as the flow was followed rightly; inf without a path.
    lower : float or None
        Proved: every path, wherever it goes, reaches this loss. None where nothing was proved.
    barriers : tuple of two float
        `level` minus the loss at either minimum.
    direct : bool
        Whether one path of descent joins the two by the saddle itself.
    exact : bool
        Whether `level` is the height: no critical points are missing and L is larger on the boundary of the domain.
    reason : str
        If not exact: why `level` is an upper bound only.
    times : tuple of two float, or None
        Eyring-Kramers times from the first minimum to the second and back; see `communication_heights`.
    """

    first: int
    second: int
    saddle: int | None
    level: float
    lower: float | None
    barriers: tuple[float, float]
    direct: bool
    exact: bool
    reason: str
    times: tuple[float, float] | None


@dataclass(frozen=True)
class Heights:
    """The heights between all minima.

    Attributes
    ----------
    pairs : tuple of Height
        For all pairs of minima (i, j), i < j.
    descents : tuple of Descent
        One for each saddle of index 1.
    """

    pairs: tuple[Height, ...]
    descents: tuple[Descent, ...]

    def between(self, i: int, j: int) -> Height:
        """Return the height between two minima, given by their places."""
        return next(h for h in self.pairs if {h.first, h.second} == {i, j})


def communication_heights(
    critical: CriticalPoints, process: Process | None = None, *, certify: bool = True, budget: float = 20.0
) -> Heights:
    """Return the communication heights between all minima. Not collective; deterministic.

    Parameters
    ----------
    critical : CriticalPoints
        From `critical_points`.
    process : Process, optional
        With Q = qI, constant, the Eyring-Kramers times of pairs that one saddle joins are given besides: laws for
        ε² → 0, no answers (mathematics.md section 5), in units in which one SGD step lasts η.
    certify : bool
        Whether lower bounds are proved.
    budget : float
        Seconds for that, a safety net: the number of boxes is limited too.
    """
    deadline = time.monotonic() + budget
    box = _box(critical)
    descents = tuple(descent(critical, k) for k in range(len(critical.saddles)))
    merges = _merges(critical, descents)
    passes = {pair: merge.saddle for merge in merges for pair in merge.pairs}
    derivatives = derivatives_of(critical.landscape) if certify and critical.boxes else None
    enclosed = _enclosed(derivatives, critical, deadline)
    lower = _lower_bounds(derivatives, critical, merges, box, deadline)
    pairs = []
    minima, saddles = critical.minima, critical.saddles
    for i in range(len(minima)):
        for j in range(i + 1, len(minima)):
            s = passes.get((i, j))
            level = np.inf if s is None else saddles[s].loss
            reason = _reason(critical, s, level, enclosed)
            direct = s is not None and set(descents[s].ends) == {i, j}
            times = _times(process, minima[i], minima[j], saddles[s]) if direct and s is not None else None
            barriers = (level - minima[i].loss, level - minima[j].loss)
            pairs.append(
                Height(i, j, s, level, None if s is None else lower.get(s), barriers, direct, not reason, reason, times)
            )
    return Heights(tuple(pairs), descents)


def descent(critical: CriticalPoints, saddle: int) -> Descent:
    """Follow ``x' = -∇L`` from a saddle of index 1 both ways. Not collective.

    Returns
    -------
    Descent
        An end is -1 where the flow leaves for twice the size of the domain, or comes to rest somewhere else.
    """
    landscape = condensed(critical.landscape)
    lower, upper = _box(critical)
    size = float(np.linalg.norm(upper - lower))
    minima = np.array([p.x for p in critical.minima]).reshape(-1, len(lower))
    point = critical.saddles[saddle]
    radii = _radii(critical, size)
    ends, paths = [], []
    for sign in (1.0, -1.0):
        start = point.x + sign * _step(critical, point, size) * point.eigenvectors[:, 0]
        visited = [point.x, start]

        def arrived(x: np.ndarray, visited: list[np.ndarray] = visited) -> np.ndarray:
            visited.append(x[0].copy())
            distance = np.linalg.norm(minima - x[0], axis=1) / radii
            at = int(np.argmin(distance)) if len(distance) else -1
            return np.array([at if at >= 0 and distance[at] <= 1 else -1])

        end = int(flow(landscape, start[None, :], size, arrived, 2 * size).arrived[0])
        ends.append(end)
        paths.append(np.array([*visited, minima[end]] if end >= 0 else visited))
    return Descent(saddle, (ends[0], ends[1]), (paths[0], paths[1]))


def _box(critical: CriticalPoints) -> Box:
    lower, upper = critical.domain.bounding_box()
    return np.atleast_1d(np.asarray(lower, dtype=float)), np.atleast_1d(np.asarray(upper, dtype=float))


def _nearest(critical: CriticalPoints, point: CriticalPoint) -> float:
    """Return the distance to the next critical point."""
    return min((float(np.linalg.norm(p.x - point.x)) for p in critical.points if p is not point), default=np.inf)


def _radii(critical: CriticalPoints, size: float) -> np.ndarray:
    """Return for each minimum how near a path must come to have arrived."""
    return np.array([min(ARRIVED * size, 0.1 * _nearest(critical, p)) for p in critical.minima])


def _step(critical: CriticalPoints, point: CriticalPoint, size: float) -> float:
    return min(START * size, 1e-2 * _nearest(critical, point))


@dataclass(frozen=True)
class Merge:
    """A saddle, and the two groups of minima that lower saddles join and that it is the first to join."""

    saddle: int
    left: tuple[int, ...]
    right: tuple[int, ...]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """All pairs (i, j), i < j, of a minimum on either side."""
        return [(min(i, j), max(i, j)) for i in self.left for j in self.right]


def _merges(critical: CriticalPoints, descents: Sequence[Descent]) -> list[Merge]:
    """Join the minima by their lowest saddles first (Kruskal's algorithm)."""
    group = np.arange(len(critical.minima))
    result = []
    for step in descents:  # by increasing loss
        a, b = step.ends
        if a < 0 or b < 0 or group[a] == group[b]:
            continue
        left, right = np.flatnonzero(group == group[a]), np.flatnonzero(group == group[b])
        result.append(Merge(step.saddle, tuple(map(int, left)), tuple(map(int, right))))
        group[right] = group[a]
    return result


def _reason(critical: CriticalPoints, saddle: int | None, level: float, enclosed: float) -> str:
    if saddle is None:
        return "no path was found"
    if not critical.complete:
        return f"critical points may be missing: {critical.reason}"
    if not level < enclosed:
        known = "" if not np.isfinite(enclosed) else f", only that it is at least {enclosed:.6g}"
        return f"a lower path may leave the domain: on its boundary the loss is not proved to be larger{known}"
    return ""


def _enclosed(derivatives: Derivatives | None, critical: CriticalPoints, deadline: float) -> float:
    """Return a proved lower bound of L on the domain's boundary; no better than needed to exceed all saddles."""
    if derivatives is None or not critical.saddles:
        return -np.inf
    wanted = max(p.loss for p in critical.saddles)
    known = derivatives

    def bound(lo: np.ndarray, hi: np.ndarray) -> tuple[float, None]:
        return -loss_range(known, lo, hi)[0], None

    least = np.inf
    for cover in _boundary(critical):
        outcome = maximise(
            bound,
            lambda x: -critical.landscape.loss(x),
            cover,
            Budget(deadline, FACE_BOXES),
            enough=float(np.nextafter(-wanted, -np.inf)),
        )
        least = min(least, -outcome.bound)
    return least


def _boundary(critical: CriticalPoints) -> list[Cover]:
    """Return covers of a boundary that encloses minima and saddles, and nothing that is not searched.

    For a sublevel set the box round it: what lies between is no lower than the level. For a mesh file its cells are
    not known here, so the whole bounding box: nothing is proved then.
    """
    domain, box = critical.domain, _box(critical)
    if isinstance(domain, Ball):
        return [SphereCover(np.asarray(domain.center, dtype=float), float(domain.radius))]
    if not isinstance(domain, (Interval, BoxDomain, Sublevel)):
        return [BoxCover(*box)]
    faces: list[Cover] = []
    for k in range(len(box[0])):
        for side in box:
            lo, hi = box[0].copy(), box[1].copy()
            lo[k] = hi[k] = side[k]
            faces.append(BoxCover(lo, hi))
    return faces


def _lower_bounds(
    derivatives: Derivatives | None,
    critical: CriticalPoints,
    merges: Sequence[Merge],
    box: Box,
    deadline: float,
) -> dict[int, float]:
    """Return for the saddles that join groups of minima a proved lower bound of all heights between the groups."""
    result: dict[int, float] = {}
    if derivatives is None:
        return result
    x, loss = np.array([p.x for p in critical.minima]), np.array([p.loss for p in critical.minima])
    for merge in merges:
        left, right = list(merge.left), list(merge.right)
        level = critical.saddles[merge.saddle].loss
        barrier = level - max(loss[left].min(), loss[right].min())
        # one of the two valleys may reach the boundary of the box
        sides = [(x[left], x[right]), (x[right], x[left])]
        for gap in GAPS:
            bound = float(level - gap * barrier)
            sides = next(
                ([side] for side in sides if separates(derivatives, box, bound, *side, Budget(deadline, BOXES))), []
            )
            if not sides:
                break
            result[merge.saddle] = bound
    return result


def _times(
    process: Process | None, first: CriticalPoint, second: CriticalPoint, saddle: CriticalPoint
) -> tuple[float, float] | None:
    """Return the Eyring-Kramers times there and back; None where the law does not apply."""
    if process is None or not process.isotropic or not process.constant_diffusion or saddle.kind == "degenerate":
        return None
    a = float(process.diffusion(saddle.x[None, :])[0, 0, 0])
    if not a > 0:
        return None
    with np.errstate(over="ignore"):
        there, back = (eyring_kramers_time(saddle.loss - p.loss, p.hessian, saddle.hessian, a) for p in (first, second))
    return there, back
