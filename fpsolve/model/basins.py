"""Minima of the loss and their basins of attraction under the gradient flow ``x' = -∇L``.

The flow is integrated for all points at once by a linearly implicit method with its own step size for each
point: near minima the steps grow to Newton's, in narrow valleys nothing zigzags, and the error control keeps
a path from jumping over a ridge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fpsolve.model.domains import Domain
from fpsolve.model.process import Landscape, Process

#: Starting points of the search for minima, by dimension.
STARTS = {1: 400, 2: 900, 3: 3000}
#: Error allowed in one step of the flow, relative to the size of the region of interest.
STEP_ERROR = 1e-6
#: A path that has not arrived after so many steps does not arrive.
MAX_STEPS = 2000
#: Distance, relative to the size of the domain, within which minima are the same.
SAME = 1e-6
#: Eigenvalues of D²L of this part of the largest one count as zero.
FLAT = 1e-6
#: A path has come to rest where |∇L| is this part of its typical size.
REST = 1e-9

Arrived = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Paths:
    """Where the gradient flow went.

    Attributes
    ----------
    x : ndarray, shape (n, d)
        Last points.
    arrived : ndarray of int, shape (n,)
        What stopped each path: the value >= 0 of `arrived`, or -1.
    """

    x: np.ndarray
    arrived: np.ndarray


def flow(landscape: Landscape, x: np.ndarray, size: float, arrived: Arrived, reach: float) -> Paths:
    """Follow ``x' = -∇L`` from all points until each path has arrived. Not collective.

    The Rosenbrock pair ode23s of Shampine and Reichelt (1997, SIAM J. Sci. Comput. 18): L-stable, order 2, with
    the exact Hessian.

    Parameters
    ----------
    x : ndarray, shape (n, d)
    size : float
        Length to which errors are relative.
    arrived : callable, (n, d) -> (n,) of int
        A number >= 0 where a path ends, -1 where it goes on.
    reach : float
        Paths that get further than this from their start, or where L is not finite, end with -1.
    """
    start, last, result = x, np.array(x, dtype=float), np.full(len(x), -1)
    index = np.arange(len(x))
    x = last.copy()
    force = -landscape.gradient(x)
    speed = np.linalg.norm(force, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        step = np.minimum(1e-2 * size / speed, 1e300)
    for _ in range(MAX_STEPS):
        number = arrived(x)
        still = (number < 0) & np.isfinite(force).all(axis=1) & (np.linalg.norm(force, axis=1) > 0)
        still &= np.linalg.norm(x - start[index], axis=1) <= reach
        result[index[~still]], last[index[~still]] = number[~still], x[~still]
        index, x, force, step = index[still], x[still], force[still], step[still]
        if not len(index):
            break
        new, new_force, error, step = _rosenbrock(landscape, x, force, step)
        ratio = error / (STEP_ERROR * size)
        accept = (ratio <= 1.0) & np.isfinite(new_force).all(axis=1)
        x, force = np.where(accept[:, None], new, x), np.where(accept[:, None], new_force, force)
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = np.nan_to_num(0.8 * ratio ** (-1 / 3), nan=0.1, posinf=5.0)
        step = np.minimum(step * np.clip(factor, 0.1, np.where(accept, 5.0, 0.5)), 1e300)
    last[index] = x
    return Paths(last, result)


def _rosenbrock(
    landscape: Landscape, x: np.ndarray, force: np.ndarray, step: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return new points, -∇L there, error estimates and the steps really taken."""
    d, e32 = 1 / (2 + np.sqrt(2)), 6 + np.sqrt(2)
    hessian = landscape.hessian(x)
    hessian = np.where(np.isfinite(hessian).all(axis=(1, 2), keepdims=True), hessian, 0.0)
    # where paths diverge the matrix must stay far from singular
    bend = np.maximum(-_smallest_eigenvalue(hessian), 0.0)
    step = np.where(step * bend > 1.0, 1.0 / np.maximum(bend, 1e-300), step)
    # nor may the identity drown in it
    step = np.minimum(step, 1e12 / np.maximum(np.abs(hessian).max(axis=(1, 2)), 1e-280))
    h = step[:, None]
    inverse = np.linalg.inv(np.eye(x.shape[1]) + d * h[:, :, None] * hessian)

    def solve(v: np.ndarray) -> np.ndarray:
        return (inverse @ v[:, :, None])[:, :, 0]

    with np.errstate(all="ignore"):
        k1 = solve(force)
        middle = -landscape.gradient(x + 0.5 * h * k1)
        k2 = solve(middle - k1) + k1
        new = x + h * k2
        new_force = -landscape.gradient(new)
        k3 = solve(new_force - e32 * (k2 - middle) - 2 * (k1 - force))
        error = step / 6 * np.linalg.norm(k1 - 2 * k2 + k3, axis=1)
    return new, new_force, np.where(np.isfinite(error), error, np.inf), step


def _smallest_eigenvalue(matrix: np.ndarray) -> np.ndarray:
    """Return the smallest eigenvalues of symmetric matrices (n, d, d)."""
    if matrix.shape[1] != 2:
        return np.linalg.eigvalsh(matrix)[:, 0]
    p, q, r = matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, 0, 1]
    return 0.5 * (p + q) - np.hypot(0.5 * (p - q), r)


def find_minima(process: Process, domain: Domain, samples: int | None = None) -> np.ndarray:
    """Return the local minima of L in the domain that a search finds. Not collective; deterministic.

    The flow is followed from a grid of points and ends polished by Newton's method. The list may be incomplete:
    a minimum whose basin holds no starting point is missed. Minima that form a curve or surface (D²L singular,
    equal loss) are represented by one point.

    Parameters
    ----------
    samples : int, optional
        The number of starting points in the bounding box; `STARTS` by default.

    Returns
    -------
    ndarray, shape (k, d)
        By increasing loss. Empty for processes without a loss.
    """
    d = process.dimension
    if process.landscape is None:
        return np.empty((0, d))
    landscape = process.landscape
    lower, upper = (np.asarray(corner, dtype=float) for corner in domain.bounding_box())
    size = float(np.linalg.norm(upper - lower))
    x = _grid(lower, upper, STARTS[d] if samples is None else samples)
    x = x[domain.contains(x)]
    x = x[np.isfinite(landscape.loss(x)) & np.isfinite(landscape.gradient(x)).all(axis=1)]
    scale = float(np.median(np.linalg.norm(landscape.gradient(x), axis=1))) if len(x) else 1.0

    def at_rest(y: np.ndarray) -> np.ndarray:
        return np.where(np.linalg.norm(landscape.gradient(y), axis=1) <= REST * scale, 0, -1)

    ends = flow(landscape, x, size, at_rest, 2 * size).x
    ends = _polish(landscape, ends, size)
    ends = ends[np.isfinite(ends).all(axis=1)]
    ends = ends[_inside(domain, ends, SAME * size) & _is_minimum(landscape, ends, size, scale)]
    spread = float(np.ptp(landscape.loss(x))) if len(x) else 0.0
    return _distinct(landscape, ends, size, 1e-9 * spread)


def _grid(lower: np.ndarray, upper: np.ndarray, count: int) -> np.ndarray:
    """Return about `count` points, none on a plane of symmetry, where the flow may run into a saddle."""
    d = len(lower)
    per_axis = max(2, round(count ** (1 / d)))
    place = (np.arange(per_axis) + 0.5) / per_axis
    axes = [lower[k] + (upper[k] - lower[k]) * (place + 0.0618 * (k + 1) / per_axis) for k in range(d)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, d)


def _inside(domain: Domain, x: np.ndarray, margin: float) -> np.ndarray:
    """Tell which points lie in the domain, or within rounding of it."""
    inside = domain.contains(x) if len(x) else np.zeros(0, dtype=bool)
    for shift in np.concatenate([np.eye(x.shape[1]), -np.eye(x.shape[1])]):
        inside = inside | (domain.contains(x + margin * shift) if len(x) else inside)
    return inside


def _polish(landscape: Landscape, x: np.ndarray, size: float) -> np.ndarray:
    """Take Newton steps as long as they make the gradient smaller."""
    x = x.copy()
    for _ in range(60):
        gradient, hessian = landscape.gradient(x), landscape.hessian(x)
        hessian = np.where(np.isfinite(hessian).all(axis=(1, 2), keepdims=True), hessian, 0.0)
        values, vectors = np.linalg.eigh(0.5 * (hessian + hessian.transpose(0, 2, 1)))
        top = np.abs(values).max(axis=1, keepdims=True, initial=0.0)
        safe = np.where(np.abs(values) > FLAT * top, values, np.inf)
        along = np.einsum("nji,nj->ni", vectors, gradient) / np.where(safe == 0, np.inf, safe)
        new = x - np.einsum("nij,nj->ni", vectors, along)
        with np.errstate(invalid="ignore"):
            better = np.linalg.norm(landscape.gradient(new), axis=1) < np.linalg.norm(gradient, axis=1)
            better &= np.linalg.norm(new - x, axis=1) <= 1e-2 * size
        if not better.any():
            break
        x = np.where(better[:, None], new, x)
    return np.where(np.abs(x) < 1e-14 * size, 0.0, x)


def _curvature(landscape: Landscape, x: np.ndarray) -> np.ndarray:
    """Return the eigenvalues of D²L over the largest absolute one, shape (n, d), increasing."""
    values = np.linalg.eigvalsh(landscape.hessian(x)) if len(x) else np.empty(x.shape)
    return values / np.maximum(np.abs(values).max(axis=1, keepdims=True, initial=0.0), 1e-300)


def _is_minimum(landscape: Landscape, x: np.ndarray, size: float, scale: float) -> np.ndarray:
    """Tell where the gradient vanishes, D²L is nonnegative and no point close by is lower."""
    if not len(x):
        return np.zeros(0, dtype=bool)
    curvature, level = _curvature(landscape, x)[:, 0], landscape.loss(x)
    result = (np.linalg.norm(landscape.gradient(x), axis=1) <= 1e-5 * scale) & (curvature >= -FLAT)
    # a singular Hessian decides nothing (x³)
    radius = 1e-3 * size
    around = np.min([landscape.loss(x + radius * direction) for direction in _directions(x.shape[1])], axis=0)
    lower = around < level - 1e-9 * (np.abs(level) + np.abs(around)) - 1e-6 * scale * radius
    return result & ~((curvature <= FLAT) & lower)


def _directions(d: int, count: int = 32) -> np.ndarray:
    """Return unit vectors spread over the sphere."""
    if d == 1:
        return np.array([[1.0], [-1.0]])
    if d == 2:
        angle = 2 * np.pi * (np.arange(count) + 0.25) / count
        return np.column_stack([np.cos(angle), np.sin(angle)])
    z = 1 - (2 * np.arange(2 * count) + 1) / (2 * count)
    angle = np.pi * (1 + np.sqrt(5)) * np.arange(2 * count)
    r = np.sqrt(1 - z * z)
    return np.column_stack([r * np.cos(angle), r * np.sin(angle), z])


def _distinct(landscape: Landscape, x: np.ndarray, size: float, equal: float) -> np.ndarray:
    """Return one of each group of equal points and of each continuum, by increasing loss.

    Losses that differ by less than `equal` are the same.
    """
    if not len(x):
        return x
    level = landscape.loss(x)
    flat = _curvature(landscape, x)[:, 0] <= FLAT
    keep: list[int] = []
    # within equal losses the order must not depend on rounding
    order = np.lexsort((*np.round(x / (SAME * size)).T[::-1], np.round(level / max(equal, 1e-300))))
    for k in order:
        near = np.linalg.norm(x[keep] - x[k], axis=1) <= (1e-2 if flat[k] else SAME) * size
        same = flat[keep] & flat[k] & (np.abs(level[keep] - level[k]) <= equal)
        if not (near | same).any():
            keep.append(int(k))
    return x[keep]


def basin_labels(process: Process, minima: np.ndarray, x: np.ndarray, size: float | None = None) -> np.ndarray:
    """Return for each point which minimum the gradient flow from it reaches. Not collective; deterministic.

    Parameters
    ----------
    minima : ndarray, shape (k, d)
        From `find_minima`.
    x : ndarray, shape (n, d)
    size : float, optional
        Diameter of the region of interest, to which `STEP_ERROR` is relative; that of all points by default. With
        it given, the label of a point does not depend on which others are asked for.

    Returns
    -------
    ndarray of int, shape (n,)
        The row of `minima`; -1 where the path runs to infinity, to no known minimum, or has not arrived after
        `MAX_STEPS` steps. Right up to about `STEP_ERROR` times the size from the separatrix.
    """
    x = np.asarray(x, dtype=float)
    if process.landscape is None or not len(minima) or not len(x):
        return np.full(len(x), -1)
    landscape = process.landscape
    if size is None:
        size = max(float(np.linalg.norm(np.ptp(np.concatenate([x, minima]), axis=0))), 1e-12)
    radii = _catchments(landscape, minima, size)
    around = (minima[:, None] + 0.1 * size * _directions(minima.shape[1])).reshape(-1, minima.shape[1])
    rest = REST * float(np.nanmedian(np.linalg.norm(landscape.gradient(around), axis=1)))

    def arrived(y: np.ndarray) -> np.ndarray:
        result = np.where(np.linalg.norm(landscape.gradient(y), axis=1) <= rest, len(minima), -1)
        for k, (point, radius) in enumerate(zip(minima, radii, strict=True)):
            result[np.linalg.norm(y - point, axis=1) <= radius] = k
        return result

    paths = flow(landscape, x, size, arrived, 10 * size)
    elsewhere = paths.arrived == len(minima)
    result = np.where(elsewhere, -1, paths.arrived)
    loss = landscape.loss(np.concatenate([around, minima]))
    allowed = 1e-6 * float(np.ptp(loss[np.isfinite(loss)]))
    result[elsewhere] = _on_continua(landscape, minima, paths.x[elsewhere], allowed)
    return result


def _catchments(landscape: Landscape, minima: np.ndarray, size: float) -> np.ndarray:
    """Return for each minimum a radius within which ``(x - x_i)·∇L > 0`` at sampled points, hence all paths end there.

    Half the first radius that fails, at least 1e-5 of the size.
    """
    directions = _directions(minima.shape[1], 64)
    radii = size * np.geomspace(1e-4, 0.5, 40)
    result = np.empty(len(minima))
    for k, point in enumerate(minima):
        y = point + radii[:, None, None] * directions
        gradient = landscape.gradient(y.reshape(-1, y.shape[2])).reshape(y.shape)
        with np.errstate(invalid="ignore"):
            fails = ~(np.sum(gradient * directions, axis=2) > 0).all(axis=1)
        first = int(np.argmax(fails)) if fails.any() else len(radii) - 1
        result[k] = max(0.5 * radii[first], 1e-5 * size) if first else 1e-5 * size
    return result


def _on_continua(landscape: Landscape, minima: np.ndarray, x: np.ndarray, allowed: float) -> np.ndarray:
    """Return for points at rest the first flat minimum with the same loss, -1 if there is none."""
    flat = np.flatnonzero(_curvature(landscape, minima)[:, 0] <= FLAT)
    if not len(flat) or not len(x):
        return np.full(len(x), -1)
    close = np.abs(landscape.loss(x)[:, None] - landscape.loss(minima[flat])) <= allowed
    return np.where(close.any(axis=1), flat[np.argmax(close, axis=1)], -1)
