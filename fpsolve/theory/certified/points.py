"""Points where a search for sub- and supersolutions samples a domain, and the symmetries it may use.

Floating point, nothing proved. Points cluster towards the boundary like Chebyshev nodes, so that a polynomial of
degree n that is small at them is small everywhere.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fpsolve.model.component import Star
from fpsolve.model.domains import SIDES, Ball, Box, Interval, Sublevel
from fpsolve.model.levelset import Planar, pole_free_loss
from fpsolve.theory.certified.task import Task

Radius = Callable[[np.ndarray], np.ndarray]

SYMMETRY_SEED = 20
SYMMETRY_TOLERANCE = 1e-13
RAY_BISECTIONS = 60


@dataclass(frozen=True)
class Facet:
    """Points of one boundary part.

    Attributes
    ----------
    name : str
        The part; a ball in one dimension has both its ends in ``boundary``.
    points : ndarray, shape (n, d)
    normals : ndarray, shape (n, d)
        Outward unit normals.
    """

    name: str
    points: np.ndarray
    normals: np.ndarray


@dataclass(frozen=True)
class Sample:
    """Points of a domain.

    Attributes
    ----------
    interior : ndarray, shape (n, d)
    facets : tuple of Facet
        All boundary parts.
    """

    interior: np.ndarray
    facets: tuple[Facet, ...]

    def folded(self, even: tuple[bool, ...], center: np.ndarray) -> Sample:
        """Return the points with ``x_k >= center_k`` for all k with even[k]: the others are their mirror images."""
        axes = np.flatnonzero(even)

        def kept(x: np.ndarray) -> np.ndarray:
            return np.all(x[:, axes] >= center[axes] - 1e-12 * (1 + np.abs(center[axes])), axis=1)

        facets = []
        for facet in self.facets:
            keep = kept(facet.points)
            if keep.any():
                facets.append(Facet(facet.name, facet.points[keep], facet.normals[keep]))
        return Sample(self.interior[kept(self.interior)], tuple(facets))


def sample(domain: Interval | Box | Ball | Sublevel, counts: tuple[int, ...]) -> Sample:
    """Return points of the domain that resolve polynomials of degree about two thirds of `counts`.

    Parameters
    ----------
    domain : Interval, Box, Ball or Sublevel
    counts : d even numbers
        Points along each axis (box), along a diameter and half of those round the circle (ball, sublevel set).
    """
    if isinstance(domain, (Interval, Box)) or domain.dimension == 1:
        return _box_sample(domain, counts)
    count = max(counts)
    if isinstance(domain, Ball):
        center = np.array(domain.center)
        return _star_sample(domain.dimension, center, count, lambda e: np.full(len(e), domain.radius), None)
    component = domain.component
    center = np.array(domain.containing)
    if isinstance(component, Planar):
        center = _star_center(component, center)
    elif isinstance(component, Star):
        center = component.center
    return _star_sample(domain.dimension, center, count, lambda e: _radius(domain, center, e), domain)


def even_axes(task: Task) -> tuple[bool, ...]:
    """Tell for which axes the problem, and so its solution, is even about the middle of the bounding box.

    Tested at random points, so it is a guess (good enough for a search). Sublevel sets count as not even.
    """
    domain = task.domain
    lower, upper = domain.bounding_box()
    center, half, d = (lower + upper) / 2, (upper - lower) / 2, len(lower)
    if isinstance(domain, Sublevel):
        return (False,) * d
    z = np.random.default_rng(SYMMETRY_SEED).uniform(-1, 1, (40, d)) / (math.sqrt(d) if isinstance(domain, Ball) else 1)
    return tuple(_mirrored_sides(task, k) and _mirrored_coefficients(task, k, center, half * z) for k in range(d))


def free_axes(task: Task) -> tuple[bool, ...]:
    """Tell for which axes of a box the solution does not depend on the coordinate: none of its sides absorbs, and the
    other coordinates' drift and diffusion do not depend on it. A guess from random points, like `even_axes`.
    """
    lower, upper = task.domain.bounding_box()
    d = len(lower)
    result = []
    for axis in range(d):
        x = np.random.default_rng(SYMMETRY_SEED).uniform(lower, upper, (40, d))
        moved = x.copy()
        moved[:, axis] = (lower[axis] + upper[axis]) / 2
        rest = np.arange(d) != axis
        with np.errstate(all="ignore"):
            f, g = task.process.drift(x)[:, rest], task.process.drift(moved)[:, rest]
            a, b = (task.process.diffusion(p)[:, rest] for p in (x, moved))
        kinds = [_kind(task, name) for name in task.domain.names[2 * axis : 2 * axis + 2]]
        # where the conormal mixes coordinates, w that is constant along the axis need not meet a reflecting side's rule
        mixed = "reflecting" in kinds and np.any(a[:, :, axis] != 0)
        same = _near(f, g) and _near(a[:, :, rest], b[:, :, rest])
        result.append(len(kinds) == 2 and "absorbing" not in kinds and not mixed and same)
    return tuple(result)


def _near(p: np.ndarray, q: np.ndarray) -> bool:
    return bool(np.all(np.abs(p - q) <= SYMMETRY_TOLERANCE * (1 + np.nanmax(np.abs(p), initial=0.0))))


def _mirrored_sides(task: Task, axis: int) -> bool:
    if task.domain.names == ("boundary",):
        return True
    kinds = [_kind(task, name) for name in SIDES[2 * axis : 2 * axis + 2]]
    return kinds[0] == kinds[1]


def _kind(task: Task, name: str) -> str:
    if name in task.unreachable:
        return "unreachable"
    return "reflecting" if name in task.domain.reflecting else "absorbing"


def _mirrored_coefficients(task: Task, axis: int, center: np.ndarray, offset: np.ndarray) -> bool:
    sign = np.ones(len(center))
    sign[axis] = -1
    with np.errstate(all="ignore"):
        f, g = task.process.drift(center + offset), task.process.drift(center + sign * offset) * sign
        a = task.process.diffusion(center + offset)
        b = task.process.diffusion(center + sign * offset) * sign[:, None] * sign
    return _near(f, g) and _near(a, b)


# --- boxes -----------------------------------------------------------------------------------------------------------


def chebyshev_nodes(n: int) -> np.ndarray:
    """Return the n zeros of T_n, increasing; exactly symmetric about zero."""
    return np.sin(np.pi * (2 * np.arange(n) + 1 - n) / (2 * n))


def chebyshev_extrema(n: int) -> np.ndarray:
    """Return the n >= 2 points cos(π k/(n-1)), increasing; exactly symmetric about zero."""
    return np.sin(np.pi * (2 * np.arange(n) + 1 - n) / (2 * (n - 1)))


def _product(axes: list[np.ndarray]) -> np.ndarray:
    return np.stack([g.ravel() for g in np.meshgrid(*axes, indexing="ij")], axis=1)


def _box_sample(domain: Interval | Box | Ball | Sublevel, counts: tuple[int, ...]) -> Sample:
    lower, upper = domain.bounding_box()
    center, half, d = (lower + upper) / 2, (upper - lower) / 2, len(lower)
    interior = center + half * _product([chebyshev_extrema(n) for n in counts])
    facets: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for axis, end in itertools.product(range(d), (0, 1)):
        name = domain.names[0] if len(domain.names) == 1 else SIDES[2 * axis + end]
        rest = _product(
            [chebyshev_extrema(n) if k != axis else np.array([2.0 * end - 1]) for k, n in enumerate(counts)]
        )
        points = center + half * rest
        points[:, axis] = (lower, upper)[end][axis]
        normals = np.zeros_like(points)
        normals[:, axis] = 2 * end - 1
        facets.setdefault(name, []).append((points, normals))
    parts = (Facet(n, np.vstack([p for p, _ in v]), np.vstack([q for _, q in v])) for n, v in facets.items())
    return Sample(interior, tuple(parts))


# --- balls and star-shaped sets --------------------------------------------------------------------------------------


def _directions(d: int, count: int) -> np.ndarray:
    """Return unit vectors symmetric about the axes: equispaced angles, or Chebyshev heights times such angles."""
    turn = 4 * max(1, math.ceil(count / 2))
    if d == 2:
        angle = (np.arange(turn) + 0.5) * (2 * np.pi / turn)
        return np.column_stack([np.cos(angle), np.sin(angle)])
    rows = []
    heights = np.polynomial.legendre.leggauss(2 * math.ceil(count / 2))[0]
    for z in heights:
        rho = math.sqrt(1 - z * z)
        circle = _directions(2, max(2, math.ceil(count * min(1.0, 0.15 + rho))))
        rows.append(np.column_stack([rho * circle, np.full(len(circle), z)]))
    return np.vstack(rows)


def _star_sample(d: int, center: np.ndarray, count: int, radius: Radius, domain: Sublevel | None) -> Sample:
    """Return points on spheres (or scaled copies of the boundary): fewer near the centre, where fewer are needed."""
    shells = [s for s in chebyshev_nodes(2 * math.ceil(count / 2)) if s > 0]
    interior = []
    rays: dict[int, np.ndarray] = {}
    for s in shells:
        # four sizes are enough of a choice, and each needs the boundary only once
        fewer = max(2, math.ceil(count * min(4, math.ceil(4 * (0.2 + s))) / 4))
        if fewer not in rays:
            e = _directions(d, fewer)
            rays[fewer] = radius(e)[:, None] * e
        interior.append(center + s * rays[fewer])
    e = _directions(d, math.ceil(1.25 * count))
    boundary = center + radius(e)[:, None] * e
    normals = e
    if domain is not None:
        gradient = domain.landscape.gradient(boundary)
        normals = gradient / np.linalg.norm(gradient, axis=1)[:, None]
    return Sample(np.vstack(interior), (Facet("boundary", boundary, normals),))


def _star_center(component: Planar, start: np.ndarray) -> np.ndarray:
    """Return a point from which the outer curve looks star-shaped, else the given one."""
    loop = component.loops[0]
    edge = np.roll(loop, -1, axis=0) - loop

    def worst(c: np.ndarray) -> float:
        arm = loop - c
        cross = arm[:, 0] * edge[:, 1] - arm[:, 1] * edge[:, 0]
        return float(np.min(cross * np.sign(np.sum(cross)) / np.linalg.norm(edge, axis=1)))

    cross = loop[:, 0] * np.roll(loop[:, 1], -1) - np.roll(loop[:, 0], -1) * loop[:, 1]
    centroid = np.sum((loop + np.roll(loop, -1, axis=0)) * cross[:, None], axis=0) / (3 * np.sum(cross))
    middle = (loop.min(axis=0) + loop.max(axis=0)) / 2
    return max((start, centroid, middle), key=worst)


def _radius(domain: Sublevel, center: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return the distance along each direction to where the component is first left."""
    lower, upper = np.array(domain.lower), np.array(domain.upper)
    with np.errstate(divide="ignore"):
        reach = np.where(directions > 0, upper - center, lower - center) / directions
    length = np.min(np.where(directions == 0, np.inf, reach), axis=1)
    t = np.linspace(0.0, 1.0, 257)

    def outside(s: np.ndarray) -> np.ndarray:
        x = center + directions[:, None, :] * s[:, :, None]
        return (pole_free_loss(domain.landscape, x.reshape(-1, len(center))) >= domain.below).reshape(s.shape)

    out = outside(length[:, None] * t)
    out[:, -1] = True
    k = np.maximum(out.argmax(axis=1), 1)
    a, b = length * t[k - 1], length * t[k]
    for _ in range(RAY_BISECTIONS):
        middle = 0.5 * (a + b)
        beyond = outside(middle[:, None])[:, 0]
        a, b = np.where(beyond, a, middle), np.where(beyond, middle, b)
    return 0.5 * (a + b)
