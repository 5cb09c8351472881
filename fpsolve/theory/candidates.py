"""Choice of centres, radii and directions from samples in floating point.

Nothing here is trusted: `fpsolve.theory.bounds` verifies the hypotheses for what is chosen. A bad choice gives a poor
bound or none, never a wrong one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fpsolve.model.process import Landscape, Process
from fpsolve.theory.cover import BallCover, Cover, sample

POINTS = 1500
# how far -A w may exceed 1 in the paper's lower bound, where ∇L(c) or λ >= 0 is not exact
PAPER_DEFECT = 0.01


@dataclass(frozen=True)
class BallChoice:
    """A ball for the lower bounds and the estimated logarithm of the bound at its centre."""

    center: np.ndarray
    radius: float
    score: float


@dataclass(frozen=True)
class StripChoice:
    """Direction, centre and offset κ for the upper bounds and the estimated logarithm of the bound."""

    direction: np.ndarray
    center: np.ndarray
    offset: float
    score: float


def domain_center(domain: Any) -> np.ndarray:
    """Return the centre of a ball or of the bounding box."""
    center = getattr(domain, "center", None)
    if center is not None:
        return np.atleast_1d(np.asarray(center, dtype=float))
    lo, hi = (np.atleast_1d(np.asarray(corner, dtype=float)) for corner in domain.bounding_box())
    return 0.5 * (lo + hi)


def minima(landscape: Landscape, cover: Cover, starts: list[np.ndarray], count: int = 3) -> list[np.ndarray]:
    """Return local minima of L in the domain, found by Newton's method from the given and the lowest sampled points."""
    x = sample(cover, 400)
    if len(x):
        x = x[np.argsort(np.nan_to_num(landscape.loss(x), nan=np.inf), kind="stable")]
        starts = [*starts, *x[:1], *x[len(x) // 8 :: max(len(x) // 8, 1)]]
    size = float(np.linalg.norm(cover.upper - cover.lower))
    found: list[np.ndarray] = []
    for start in starts:
        point = _newton(landscape, np.array(start, dtype=float), size)
        if point is None or not cover.contains(point[None, :])[0]:
            continue
        if all(np.linalg.norm(point - other) > 1e-6 * size for other in found):
            found.append(point)
    found.sort(key=lambda p: float(landscape.loss(p[None, :])[0]))
    return found[:count]


def _newton(landscape: Landscape, x: np.ndarray, size: float) -> np.ndarray | None:
    """Minimise L by Newton steps with absolute eigenvalues, cut to a tenth of the domain."""
    for _ in range(60):
        g, H = landscape.gradient(x[None, :])[0], landscape.hessian(x[None, :])[0]
        if not (np.all(np.isfinite(g)) and np.all(np.isfinite(H))):
            return None
        values, vectors = np.linalg.eigh(0.5 * (H + H.T))
        step = -vectors @ ((vectors.T @ g) / np.maximum(np.abs(values), 1e-10 * (1e-300 + np.abs(values).max())))
        length = float(np.linalg.norm(step))
        if length > 0.1 * size:
            step *= 0.1 * size / length
        x = x + step
        if length < 1e-15 * size:
            break
    g, H = landscape.gradient(x[None, :])[0], landscape.hessian(x[None, :])[0]
    tiny = np.where(np.abs(x) < 1e-14 * size, 0.0, x)
    rounded = np.round(tiny, 12)
    for candidate in (rounded, tiny):
        # an exactly stationary point nearby needs no enclosure
        if not np.any(landscape.gradient(candidate[None, :])[0]):
            x = candidate
            break
    values = np.linalg.eigvalsh(0.5 * (H + H.T))
    bottom = values[0] >= -1e-8 * (1e-300 + np.abs(values).max())
    return x if bottom and length <= 1e-3 * size else None


def log_growth(z: np.ndarray | float, dimension: float) -> np.ndarray:
    """Return roughly log of ``m(0)·2sd/R²`` as a function of z = λR²/2s (right for small and large z)."""
    z = np.maximum(np.asarray(z, dtype=float), 0.0)
    return z - (1 + 0.5 * dimension) * np.log1p(z / (1 + 0.5 * dimension))


def balls(process: Process, centers: list[tuple[np.ndarray, float]], sharp: bool) -> Iterator[BallChoice]:
    """Yield balls about the centres, best estimated bound first.

    Parameters
    ----------
    centers : list of (centre, largest radius)
    sharp : bool
        Rank by the sharp bound instead of the paper's.
    """
    landscape, choices = process.landscape, []
    assert landscape is not None
    for center, largest in centers:
        if not largest > 0:
            continue
        x = sample(BallCover(center, largest), POINTS)
        r = np.linalg.norm(x - center, axis=1)
        order = np.argsort(r)
        x, r = x[order], np.maximum(r[order], 1e-9 * largest)
        g0 = landscape.gradient(center[None, :])[0]
        quotient = np.sum((x - center) * (landscape.gradient(x) - g0), axis=1) / r**2
        a = process.diffusion(x)
        with np.errstate(all="ignore"):
            rate = np.minimum.accumulate(np.where(r > 1e-6 * largest, quotient, np.inf))
            s = np.maximum.accumulate(np.linalg.eigvalsh(np.nan_to_num(a))[:, -1])
            d = np.maximum.accumulate(np.trace(a, axis1=1, axis2=2)) / s if sharp else np.full(len(s), len(center))
        for fraction in np.concatenate([[1.0], np.linspace(0.97, 0.1, 30)]):
            k = int(np.searchsorted(r, fraction * largest, side="right")) - 1
            if k < 0 or not np.isfinite(rate[k]) or not s[k] > 0:
                continue
            radius = float(fraction * largest)
            z = 0.5 * max(rate[k], 0.0) * radius**2 / s[k] if sharp else 0.0
            score = np.log(radius**2 / (2 * s[k] * d[k])) + float(log_growth(z, d[k]))
            slope = 2 * np.exp(min(score, 600.0)) / radius * (1 + z)
            defect = (np.linalg.norm(g0) + max(-rate[k] - 1e-9 * abs(rate[0]), 0.0) * radius) * slope
            if sharp or defect <= PAPER_DEFECT:
                choices.append(BallChoice(center, radius, float(score - np.log1p(defect))))
    yield from sorted(choices, key=lambda c: -c.score)


def directions(process: Process, points: list[np.ndarray]) -> list[np.ndarray]:
    """Return unit vectors to try: axes, eigenvectors of a and D²L at the points, and a coarse grid of angles."""
    d = process.dimension
    found = list(np.eye(d))
    for point in points:
        for matrix in (process.diffusion(point[None, :])[0], process.landscape.hessian(point[None, :])[0]):  # type: ignore[union-attr]
            if np.all(np.isfinite(matrix)):
                found += list(np.linalg.eigh(0.5 * (matrix + matrix.T))[1].T)
    if d == 2:
        found += [np.array([np.cos(t), np.sin(t)]) for t in np.pi * np.arange(1, 16) / 16]
    if d == 3:
        found += [np.array(v) / np.linalg.norm(v) for v in np.ndindex(3, 3, 3) if any(v)]
        found += [np.array([1.0, -1.0, 0.0]), np.array([1.0, 0.0, -1.0]), np.array([0.0, 1.0, -1.0])]
    unique: list[np.ndarray] = []
    for v in found:
        v = v / np.linalg.norm(v)
        v = np.where(np.abs(v) < 1e-15, 0.0, v)
        if all(abs(abs(float(v @ w)) - 1) > 1e-12 for w in unique):
            unique.append(v)
    return unique


def strips(process: Process, cover: Cover, points: list[np.ndarray], sharp: bool) -> list[StripChoice]:
    """Return directions, centres and offsets κ, best estimated upper bound first, one for each direction and centre."""
    landscape, choices = process.landscape, []
    assert landscape is not None
    x = sample(cover, POINTS)
    corners = np.array(np.meshgrid(*np.stack([cover.lower, cover.upper], axis=1))).reshape(len(cover.lower), -1).T
    x = np.concatenate([x, corners[cover.contains(corners)]])
    if not len(x):
        return []
    gradient, a = landscape.gradient(x), process.diffusion(x)
    for v in directions(process, points):
        b = float(np.min(np.einsum("i,nij,j->n", v, a, v)))
        if not b > 1e-14 * float(np.max(np.abs(a))):
            continue
        for center in points:
            y, G = (x - center) @ v, gradient @ v
            reach = float(np.max(np.abs(y)))
            foot = (x - y[:, None] * v)[::5]
            on_plane = float(np.max(np.abs(landscape.gradient(foot) @ v)))
            options = [_strip(v, center, y, G, b, reach, k) for k in _offsets(on_plane, b / reach)] if sharp else []
            if not sharp:
                with np.errstate(all="ignore"):
                    rate = max(float(np.nanmax((G * y - b / 2) / y**2)), 0.0)
                z = 0.5 * rate * reach**2 / b
                score = np.log(2 * reach**2 / (2 * b)) + z - np.log1p(z)
                options = [StripChoice(v, center, 0.0, float(score))]
            choices.append(min(options, key=lambda c: c.score))
    # where it costs little prefer axes and κ = 0: hypotheses along an axis are often exact, hence quicker to prove
    return sorted(
        (c for c in choices if np.isfinite(c.score)),
        key=lambda c: c.score + 0.01 * (np.count_nonzero(c.direction) > 1) + 0.01 * (c.offset > 0),
    )


def _offsets(on_plane: float, unit: float) -> list[float]:
    """Return values of κ to try: just enough for |v·∇L| on the hyperplane, and more."""
    if not np.isfinite(on_plane):
        return []
    least = on_plane * 1.002
    return [least] + [least + t * unit for t in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)]


def _strip(
    v: np.ndarray, center: np.ndarray, y: np.ndarray, G: np.ndarray, b: float, reach: float, kappa: float
) -> StripChoice:
    near = np.abs(y) > 1e-6 * reach
    with np.errstate(all="ignore"):
        rate = float(np.max(((np.sign(y) * G - kappa) / np.abs(y))[near], initial=0.0))
    z = 0.5 * rate * reach**2 / b
    score = np.log(reach**2 / (2 * b)) + float(log_growth(z, 1.0)) + kappa * reach / b
    return StripChoice(v, center, kappa, score)
