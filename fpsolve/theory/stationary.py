"""Points where ∇L vanishes, of every index, found by Newton's method from a grid of starts. Nothing is proved here."""

from __future__ import annotations

import numpy as np

from fpsolve.model.process import Landscape

#: Starts of the search, by dimension: where proofs find what it misses, and where nothing else does.
STARTS = {1: (200, 2000), 2: (144, 2500), 3: (216, 8000)}
#: Starts times samples at most.
WORK = 10_000_000
#: A point counts as a zero of ∇L where it is this part of its typical size.
ZERO = 1e-7
#: Distance, relative to the size of the region, within which points are the same.
SAME = 1e-6
#: Eigenvalues of D²L of this part of the largest one are left out of a Newton step: they are rounding.
NOTHING = 1e-13
#: Longest step of Newton's method, relative to the size of the region.
STRIDE = 0.1
#: Newton steps, and halvings of a step.
STEPS, HALVINGS = 60, 6


@np.errstate(all="ignore")  # values that are not finite are looked for
def newton(landscape: Landscape, x: np.ndarray, size: float) -> np.ndarray:
    """Follow Newton's method for ∇L = 0 with step control, from all points at once. Deterministic.

    Steps are halved until |∇L| gets smaller; directions in which D²L vanishes are left out.

    Parameters
    ----------
    x : ndarray, shape (n, d)
    size : float
        Diameter of the region of interest.

    Returns
    -------
    ndarray, shape (n, d)
        Where the paths ended; not all ends are zeros, and not finite where L is not.
    """
    x = np.array(x, dtype=float)
    active = np.arange(len(x))
    gradient = landscape.gradient(x)
    for _ in range(STEPS):
        norm = np.linalg.norm(gradient[active], axis=1)
        active = active[np.isfinite(norm) & (norm > 0)]
        if not len(active):
            break
        y, g = x[active], gradient[active]
        step = _newton_step(landscape.hessian(y), g)
        length = np.linalg.norm(step, axis=1, keepdims=True)
        step *= np.minimum(1.0, STRIDE * size / np.maximum(length, 1e-300))
        moved = np.zeros(len(active), dtype=bool)
        for k in range(HALVINGS + 1):
            rest = np.flatnonzero(~moved)
            trial = y[rest] + step[rest] * 0.5**k
            new = landscape.gradient(trial)
            good = np.linalg.norm(new, axis=1) < np.linalg.norm(g[rest], axis=1)
            x[active[rest[good]]], gradient[active[rest[good]]] = trial[good], new[good]
            moved[rest[good]] = True
            if moved.all():
                break
        active = active[moved]
    return np.where(np.abs(x) < 1e-15 * size, 0.0, x)


def _newton_step(hessian: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Return -H⁺g with eigenvalues that are next to nothing left out."""
    hessian = np.where(np.isfinite(hessian).all(axis=(1, 2), keepdims=True), hessian, 0.0)
    values, vectors = np.linalg.eigh(0.5 * (hessian + hessian.transpose(0, 2, 1)))
    top = np.abs(values).max(axis=1, keepdims=True)
    something = np.abs(values) > NOTHING * np.maximum(top, 1e-300)
    inverse = np.divide(1.0, values, out=np.zeros_like(values), where=something)
    return -np.einsum("nij,nj,nkj,nk->ni", vectors, inverse, vectors, gradient)


def starts_in(lower: np.ndarray, upper: np.ndarray, count: int) -> np.ndarray:
    """Return about `count` points (n, d) of a grid in a box, none on a plane of symmetry."""
    d = len(lower)
    per_axis = max(2, round(count ** (1 / d)))
    axes = [
        lower[k] + (upper[k] - lower[k]) * (np.arange(per_axis) + 0.5 + 0.0618 * (k + 1)) / per_axis for k in range(d)
    ]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, d)


def typical_gradient(landscape: Landscape, lower: np.ndarray, upper: np.ndarray) -> float:
    """Return the median of |∇L| over a grid in a box; 0 if it is nowhere finite."""
    with np.errstate(all="ignore"):
        size = np.linalg.norm(landscape.gradient(starts_in(lower, upper, 4 ** len(lower))), axis=1)
    size = size[np.isfinite(size)]
    return float(np.median(size)) if len(size) else 0.0


def stationary_points(landscape: Landscape, lower: np.ndarray, upper: np.ndarray, thorough: bool = False) -> np.ndarray:
    """Return zeros of ∇L in a box that a search finds, of every index. Deterministic; may be incomplete.

    Parameters
    ----------
    lower, upper : ndarray, shape (d,)
    thorough : bool
        Whether to use many starts, as no proof comes after the search.

    Returns
    -------
    ndarray, shape (k, d)
        Of zeros that are not isolated (equal loss, singular Hessian) only one.
    """
    d = len(lower)
    size = float(np.linalg.norm(upper - lower))
    count = min(STARTS[d][thorough], max(4**d, WORK // getattr(landscape, "samples", 1)))
    ends = newton(landscape, starts_in(lower, upper, count), size)
    scale = typical_gradient(landscape, lower, upper)
    margin = SAME * size
    with np.errstate(all="ignore"):
        good = np.isfinite(ends).all(axis=1) & np.all((ends >= lower - margin) & (ends <= upper + margin), axis=1)
        good &= np.linalg.norm(landscape.gradient(ends), axis=1) <= ZERO * scale
    return _distinct(landscape, ends[good], size)


def _distinct(landscape: Landscape, x: np.ndarray, size: float) -> np.ndarray:
    """Return one of each group of equal points, and one of each set of flat points with equal loss."""
    if not len(x):
        return x
    level, hessian = landscape.loss(x), landscape.hessian(x)
    values = np.abs(np.linalg.eigvalsh(np.where(np.isfinite(hessian), hessian, 0.0)))
    flat = values.min(axis=1) <= 1e-4 * np.maximum(values.max(axis=1), 1e-300)
    equal = 1e-7 * max(float(np.ptp(level)), 1e-300)
    order = np.lexsort((*np.round(x / (SAME * size)).T[::-1], values.min(axis=1) < 1e-12, np.round(level / equal)))
    keep: list[int] = []
    for k in order:
        near = np.linalg.norm(x[keep] - x[k], axis=1) <= np.where(flat[k], 1e-2, SAME) * size
        same = flat[keep] & flat[k] & (np.abs(level[keep] - level[k]) <= equal)
        if not (near | same).any():
            keep.append(int(k))
    return x[keep]
