"""Mesh sizes: fields of them, and points spaced by them along a line."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from fpsolve.errors import InputError
from fpsolve.model.simplices import regular_edge, volumes

#: Larger meshes are refused before memory runs out.
MAX_CELLS = 20_000_000
#: Sizes are rounded to powers of 2**(1/STEPS): rounding errors that depend on the number of ranks vanish.
STEPS = 8


@dataclass(frozen=True)
class SizeField:
    """A wanted edge length, piecewise linear on the simplices of an earlier mesh.

    Attributes
    ----------
    corners : ndarray, shape (n, d+1, d)
    sizes : ndarray, shape (n, d+1)
        Positive; the same on every rank.
    """

    corners: np.ndarray
    sizes: np.ndarray

    def moved(self, shift: np.ndarray, factor: float) -> SizeField:
        """Return the field of the domain mapped by x -> (x - shift) factor."""
        return SizeField((self.corners - shift) * factor, self.sizes * factor)

    def capped(self, largest: float) -> SizeField:
        """Return the field with sizes of at most `largest`."""
        return SizeField(self.corners, np.minimum(self.sizes, largest))


Size = float | SizeField


def checked_size(size: object, dimension: int) -> Size:
    """Return a usable size; the sizes of a field are rounded to powers of 2**(1/8).

    Raises
    ------
    InputError
        If it is neither a positive number nor a size field of that dimension.
    """
    if isinstance(size, SizeField):
        corners, sizes = np.asarray(size.corners, dtype=float), np.asarray(size.sizes, dtype=float)
        n = len(sizes)
        if n == 0 or corners.shape != (n, dimension + 1, dimension) or sizes.shape != (n, dimension + 1):
            raise InputError("mesh.size", corners.shape, f"a size field on simplices of dimension {dimension}")
        if not np.isfinite(corners).all() or not np.isfinite(sizes).all() or not (sizes > 0).all():
            raise InputError("mesh.size", float(sizes.min()), "a size field of positive, finite numbers")
        return SizeField(corners, np.exp2(np.rint(STEPS * np.log2(sizes)) / STEPS))
    if (
        isinstance(size, (bool, np.bool_))
        or not isinstance(size, (int, float, np.integer, np.floating))
        or not size > 0
    ):
        raise InputError("mesh.size", size, "a positive number")
    return float(size)


def check_count(size: Size, volume: float, dimension: int) -> None:
    """Raise if meshing that volume with that size would take more than `MAX_CELLS` cells.

    Raises
    ------
    InputError
        With key ``mesh.size``.
    """
    if isinstance(size, SizeField):
        n = len(size.sizes)
        cells = np.arange(n * (dimension + 1)).reshape(n, dimension + 1)
        measure = np.abs(volumes(size.corners.reshape(-1, dimension), cells))
        # regular_edge is proportional to volume^(1/d): the number of regular simplices that fit
        count = float(np.sum((regular_edge(measure, dimension) / size.sizes.mean(axis=1)) ** dimension))
        shown = float(size.sizes.min())
    else:
        count, shown = (float(regular_edge(volume, dimension)) / size) ** dimension, size
    if count > MAX_CELLS:
        raise InputError(
            "mesh.size", shown, f"a size that gives at most {MAX_CELLS:,} cells", f"It would give about {count:.2g}."
        )


def sizes_at(size: Size, points: np.ndarray) -> np.ndarray:
    """Return the wanted edge length at points (n, d); between corners of a field by inverse distances."""
    if not isinstance(size, SizeField):
        return np.full(len(points), size)
    d = points.shape[1]
    corners, first = np.unique(size.corners.reshape(-1, d), axis=0, return_index=True)
    values = size.sizes.ravel()[first]
    distance, nearest = cKDTree(corners).query(points, k=min(d + 1, len(corners)))
    distance, nearest = distance.reshape(len(points), -1), nearest.reshape(len(points), -1)
    weights = 1.0 / (distance + 1e-9 * values[nearest])
    return np.sum(weights * values[nearest], axis=1) / weights.sum(axis=1)


def graded(t: np.ndarray, sizes: np.ndarray, rate: float, period: float | None = None) -> np.ndarray:
    """Return the largest sizes below the given ones that change at most by `rate` per unit of t (increasing)."""
    n = len(t)
    if period is not None:
        t, sizes = np.concatenate([t - period, t, t + period]), np.tile(sizes, 3)
    upward = np.minimum.accumulate(sizes - rate * t) + rate * t
    downward = np.minimum.accumulate((sizes + rate * t)[::-1])[::-1] - rate * t
    result = np.minimum(upward, downward)
    return result if period is None else result[n : 2 * n]


def equidistribute(t: np.ndarray, sizes: np.ndarray, least: int) -> np.ndarray:
    """Return positions from t[0] to t[-1] whose gaps follow the sizes given at t (increasing).

    The integral of 1/size between neighbours is constant, at most 1; there are at least `least` gaps.
    """
    steps = np.diff(t) * 0.5 * (1 / sizes[1:] + 1 / sizes[:-1])
    total = np.concatenate([[0.0], np.cumsum(steps)])
    gaps = max(least, math.ceil(total[-1] * (1 - 1e-9) - 1e-9))
    positions = np.interp(np.linspace(0, total[-1], gaps + 1), total, t)
    positions[0], positions[-1] = t[0], t[-1]
    return positions


def line_points(a: float, b: float, size: Size, least: int = 2) -> np.ndarray:
    """Return mesh points of the interval [a, b], shape (n,)."""
    if not isinstance(size, SizeField):
        gaps = max(least, math.ceil((b - a) / size * (1 - 1e-9)))
        return np.linspace(a, b, gaps + 1)
    # a piecewise linear size is followed exactly at its own corners and sampled in between
    order = np.argsort(size.corners.mean(axis=(1, 2)), kind="stable")
    ends, values = size.corners[order, :, 0], size.sizes[order]
    swap = np.argsort(ends, axis=1)
    ends, values = np.take_along_axis(ends, swap, axis=1), np.take_along_axis(values, swap, axis=1)
    s = np.linspace(0.0, 1.0, 9)
    t = (ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * s).ravel()
    h = (values[:, :1] + (values[:, 1:] - values[:, :1]) * s).ravel()
    grid = np.unique(np.clip(np.concatenate([[a], t, [b]]), a, b))
    return equidistribute(grid, np.interp(grid, *_increasing(t, h)), least)


def _increasing(t: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return t without repetitions, and h."""
    t, first = np.unique(t, return_index=True)
    return t, h[first]
