"""One component of {L < level}: its extent and what it contains.

One dimension: between two roots. Two dimensions: inside closed curves. Three dimensions: a region that every
ray from the given point leaves once and for all (star-shaped).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from scipy.optimize import brentq
from scipy.spatial import cKDTree

from fpsolve.errors import InputError
from fpsolve.model.levelset import LARGER, Planar, is_below, pole_free_loss, trace_plane
from fpsolve.model.process import Landscape

SCAN = 2000  # samples in one dimension
RAY_SAMPLES = 256


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
        return trace_plane(landscape, level, center, low, high)
    return _star(landscape, level, center, low, high)


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
        return float(pole_free_loss(landscape, np.array([[x]]))[0]) - level

    ends = []
    for end in (low[0], high[0]):
        # sampled more densely near the point: narrow wells in wide boxes are found too
        t = np.concatenate([[0.0], np.geomspace(1e-6, 1.0, SCAN // 2), np.linspace(0, 1, SCAN)[1:]])
        x = center[0] + np.unique(t) * (end - center[0])
        outside = np.flatnonzero(pole_free_loss(landscape, x[:, None]) >= level)
        if len(outside) == 0:
            raise InputError(
                "domain.box", (float(low[0]), float(high[0])), "an interval with the component inside", LARGER
            )
        k = outside[0]
        ends.append(float(brentq(excess, x[k - 1], x[k], xtol=1e-300, rtol=1e-15)))
    return Segment(*ends)


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
        return pole_free_loss(self.landscape, x.reshape(-1, 3)).reshape(distances.shape) - self.level

    def bounding_box(self) -> tuple[np.ndarray, np.ndarray]:
        """Return a box around the region, 2 % wider than its traced points, within the given box."""
        x = self.center + self.directions * self.radii[:, None]
        extra = 0.02 * np.ptp(x, axis=0)
        return np.maximum(x.min(axis=0) - extra, self.lower), np.minimum(x.max(axis=0) + extra, self.upper)

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Tell which of the points x (n, 3) can be reached from the centre along a ray in {L < level}."""
        offset = x - self.center
        distance = np.linalg.norm(offset, axis=1)
        inside = is_below(self.landscape, self.level, x)
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
