"""A domain whose boundary is moved outwards by a distance that varies along it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from scipy.spatial import cKDTree

from fpsolve.errors import InputError
from fpsolve.model.component import Planar, Star, sphere_points
from fpsolve.model.domains import SIDES, Ball, Box, Interval, Sublevel
from fpsolve.model.levelset import project

#: (boundary points (n, d), outward unit normals (n, d)) -> distances >= 0, shape (n,).
Shift = Callable[[np.ndarray, np.ndarray], np.ndarray]
#: Boundary points of a ball or side of a box at which the largest shift is looked for.
SAMPLES = 720
#: The bounding box leaves room for this multiple of the largest shift found.
ROOM = 1.02
#: Steps of fixed-point iterations; they contract by about s over the radius of curvature.
ITERATIONS = 60


@dataclass(frozen=True)
class Moved:
    """The domain inside the boundary of `base`, moved outwards by ``s(x, n)`` along its unit normal n.

    A ball becomes star-shaped: ``{c + r n: r < R + s(c + Rn, n)}``. A sublevel set gets the boundary
    ``{y + s(y, n) n}``. A box keeps its corners as corners: with ``t = (x_i - lower_i)/(upper_i - lower_i)`` its point
    x goes to ``x_i - s_lower (1 - t) + s_upper t``, where s_lower is the shift of the foot of x on that side.
    Reflecting parts stay.

    Attributes
    ----------
    base : Interval, Box, Ball or Sublevel
    shift : callable
        s; smooth along the boundary and small against its radii of curvature.

    Raises
    ------
    InputError
        By methods other than the constructor, if a shift is negative or not finite.
    """

    base: Interval | Box | Ball | Sublevel
    shift: Shift

    @property
    def dimension(self) -> int:
        """The number of coordinates."""
        return self.base.dimension

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the boundary parts, those of the base."""
        return self.base.names

    @property
    def reflecting(self) -> tuple[str, ...]:
        """The reflecting parts, those of the base."""
        return self.base.reflecting

    @cached_property
    def largest_shift(self) -> float:
        """The largest s over `SAMPLES` boundary points, or all traced ones of a sublevel set."""
        base = self.base
        if isinstance(base, (Interval, Box)):
            return max(float(self._on_side(_side_points(base, *side), *side).max()) for side in _sides(base))
        return float(np.linalg.norm(self._push(_boundary_points(base)), axis=1).max())

    def bounding_box(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the corners of a box around the domain, each of shape (d,); in one dimension its ends."""
        low, high = self._box
        return low.copy(), high.copy()

    @cached_property
    def _box(self) -> tuple[np.ndarray, np.ndarray]:
        low, high = self.base.bounding_box()
        if self.dimension == 1:
            ends = np.array([low, high])
            moved = self.image(ends) if isinstance(self.base, (Interval, Box)) else self.pushed(ends)
            return moved[0], moved[1]
        return low - ROOM * self.largest_shift, high + ROOM * self.largest_shift

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Tell which of the points x (n, d) lie in the closed domain, shape (n,)."""
        inside = self.base.contains(x)
        points = np.asarray(x, dtype=float).reshape(len(inside), self.dimension)
        low, high = self.bounding_box()
        boxed = np.all((points >= low) & (points <= high), axis=1)
        if self.dimension == 1:
            return boxed
        near = np.flatnonzero(boxed & ~inside)
        if len(near):
            inside[near] = self._shell_contains(points[near])
        return inside

    def _shell_contains(self, x: np.ndarray) -> np.ndarray:
        if isinstance(self.base, Box):
            return self.base.contains(self.preimage(x))
        if isinstance(self.base, Sublevel):
            traced = cKDTree(_boundary_points(self.base))
            spacing = float(traced.query(traced.data, k=2)[0][:, 1].max())
            close = traced.query(x)[0] <= self.largest_shift + 2 * spacing
            result = np.zeros(len(x), dtype=bool)
            result[close] = self.distance(x[close]) >= 0
            return result
        return self.distance(x) >= 0

    # --- smooth boundaries -------------------------------------------------------------------------------

    def onto(self, x: np.ndarray, reach: np.ndarray | float = 0.0) -> np.ndarray:
        """Move points near the moved boundary of a ball or sublevel set onto it, to rounding.

        Parameters
        ----------
        x : ndarray, shape (n, d)
        reach : float or ndarray (n,)
            How far they are from it at most; only sublevel sets need it.
        """
        foot, push = self._foot(x, reach)
        return foot + push

    def distance(self, x: np.ndarray, reach: np.ndarray | float = 0.0) -> np.ndarray:
        """Return how far the moved boundary is along the base's outward normal, shape (n,); see `onto`."""
        foot, push = self._foot(x, reach)
        return np.einsum("ni,ni->n", foot + push - x, self._normals(foot))

    def pushed(self, y: np.ndarray) -> np.ndarray:
        """Return where boundary points y (n, d) of a ball or sublevel set go."""
        return y + self._push(y)

    def _foot(self, x: np.ndarray, reach: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """Return points y of the base's boundary and their displacements, so that x lies across y + push."""
        if isinstance(self.base, Ball):
            foot = np.array(self.base.center) + self.base.radius * self._normals(x)
            return foot, self._push(foot)
        assert isinstance(self.base, Sublevel)
        push, scale = np.zeros_like(x), np.abs(x).max(initial=1e-300)
        for _ in range(ITERATIONS):
            foot = project(self.base.landscape, self.base.below, x - push, reach + 3 * self.largest_shift)
            before, push = push, self._push(foot)
            if np.abs(push - before).max(initial=0.0) <= 4e-16 * scale:
                break
        return foot, push

    def _normals(self, y: np.ndarray) -> np.ndarray:
        if isinstance(self.base, Ball):
            outward = y - np.array(self.base.center)
        else:
            assert isinstance(self.base, Sublevel)
            outward = self.base.landscape.gradient(y)
        return outward / np.linalg.norm(outward, axis=1)[:, None]

    def _push(self, y: np.ndarray) -> np.ndarray:
        if self.reflecting:
            return np.zeros_like(y)
        normals = self._normals(y)
        return self._distances(y, normals)[:, None] * normals

    def _distances(self, y: np.ndarray, normals: np.ndarray) -> np.ndarray:
        s = np.asarray(self.shift(y, normals), dtype=float)
        bad = ~(np.isfinite(s) & (s >= 0))
        if bad.any():
            raise InputError(
                "exit.model",
                float(s[bad][0]),
                "a finite, nonnegative shift of the boundary",
                f"At {y[bad][0].tolist()}.",
            )
        return s

    # --- boxes -------------------------------------------------------------------------------------------

    def image(self, x: np.ndarray) -> np.ndarray:
        """Return where the points x (n, d) of a box go, shape (n, d)."""
        assert isinstance(self.base, (Interval, Box))
        low, high = self.base.bounding_box()
        t = (x - low) / (high - low)
        result = np.array(x, dtype=float)
        for axis, side in _sides(self.base):
            weight = t[:, axis] if side else t[:, axis] - 1
            result[:, axis] += weight * self._on_side(x, axis, side)
        return result

    def preimage(self, x: np.ndarray) -> np.ndarray:
        """Return the inverse of `image`."""
        y, scale = np.array(x, dtype=float), np.abs(x).max(initial=1e-300)
        for _ in range(ITERATIONS):
            change = x - self.image(y)
            y = y + change
            if np.abs(change).max(initial=0.0) <= 4e-16 * scale:
                break
        return y

    def _on_side(self, x: np.ndarray, axis: int, side: int) -> np.ndarray:
        """Return the shift at the feet of x on a side."""
        if SIDES[2 * axis + side] in self.reflecting:
            return np.zeros(len(x))
        foot, normals = np.array(x, dtype=float), np.zeros_like(x, dtype=float)
        foot[:, axis] = self.base.bounding_box()[side][axis]
        normals[:, axis] = 2 * side - 1
        return self._distances(foot, normals)


def _sides(box: Interval | Box) -> list[tuple[int, int]]:
    """Return (axis, 0 for lower or 1 for upper) of all sides."""
    return list(product(range(box.dimension), (0, 1)))


def _side_points(box: Interval | Box, axis: int, side: int) -> np.ndarray:
    """Return a lattice of about `SAMPLES` points of a side."""
    corners = box.bounding_box()
    count = round(SAMPLES ** (1 / max(1, box.dimension - 1)))
    lines = [np.linspace(a, b, count) for a, b in zip(*corners, strict=True)]
    lines[axis] = corners[side][axis : axis + 1]
    return np.stack([line.ravel() for line in np.meshgrid(*lines)], axis=1)


def _boundary_points(base: Ball | Sublevel) -> np.ndarray:
    """Return many boundary points, shape (n, d)."""
    if base.dimension == 1:
        return np.array(base.bounding_box())
    if isinstance(base, Ball):
        angle = 2 * np.pi * np.arange(SAMPLES) / SAMPLES
        circle = np.column_stack([np.cos(angle), np.sin(angle)])
        return np.array(base.center) + base.radius * (circle if base.dimension == 2 else sphere_points(SAMPLES))
    component = base.component
    if isinstance(component, Planar):
        return np.concatenate(component.loops)
    assert isinstance(component, Star)
    return component.center + component.directions * component.radii[:, None]
