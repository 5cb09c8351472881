"""Where a one-sided candidate violates its inequalities most, and what it is worth after scaling these away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np

from fpsolve.model.domains import Ball, Sublevel
from fpsolve.theory.certified.one_sided_rows import Basis, Points, Polynomial
from fpsolve.theory.certified.task import Task

NEIGHBOURS = 50_000  # points at most of a closer search
STEPS = (-0.8, -0.4, 0.0, 0.4, 0.8)  # of the spacing


@dataclass(frozen=True)
class Verdict:
    """What the check says.

    Attributes
    ----------
    value : float
        Mean over the starts of the candidate after scaling, nan where no scaling helps.
    loss : float
        What scaling costs, relative to the value before.
    tensor : ndarray
        Chebyshev coefficients after scaling.
    violated : Points
        Points where the inequalities fail by more than is tolerated, one in each neighbourhood.
    """

    value: float
    loss: float
    tensor: np.ndarray
    violated: Points


def judge(task: Task, w: Polynomial, fine: Points, spacing: float, sign: float, tolerance: float) -> Verdict:
    """Find the worst points and scale the candidate: (w + b)/m for upper (sign 1), (w - b)/M for lower (sign -1).

    Parameters
    ----------
    task : Task
    w : Polynomial
    fine : Points
        Where to look first.
    spacing : float
        Their spacing in the angles arccos(t), t in [-1, 1] the coordinates of the bounding box.
    sign : float
    tolerance : float
        Violations up to a tenth of it (relative) are left.
    """

    def rate(x: np.ndarray) -> np.ndarray:
        excess = sign * (w.minus_generator(task.process, x) - 1)
        return np.where(np.isfinite(excess), excess, np.inf)

    def edge(x: np.ndarray) -> np.ndarray:
        return sign * w.values(x)

    value = float(w.values(task.starts).mean())
    small, size = 0.1 * tolerance, abs(value) + 1e-300
    inside, rates = _closer(task, w.basis, fine.inside, rate, spacing, False)
    absorbing, edges = _closer(task, w.basis, fine.absorbing, edge, spacing, True)
    mirror = sign * w.gradient(fine.reflecting, fine.conormal)
    bad = worst(w.basis, fine.reflecting, mirror, 0.0)
    violated = Points(
        inside[worst(w.basis, inside, rates, -small)],
        absorbing[worst(w.basis, absorbing, edges, -small * size)],
        fine.reflecting[bad],
        fine.conormal[bad],
    )
    level, floor = 1 + sign * float(rates.min()), max(0.0, -float(edges.min(initial=0.0)))
    full = w.basis.tensor(w.coefficients)
    if not (level > 0 and np.isfinite(value)) or float(mirror.min(initial=0.0)) < 0:
        return Verdict(np.nan, np.inf, full, violated)
    scaled = (value + sign * floor) / level
    full = full / level
    full[(0,) * full.ndim] += sign * floor / level
    return Verdict(scaled, abs(scaled - value) / size, full, violated)


def _closer(
    task: Task, space: Basis, x: np.ndarray, excess: Callable[[np.ndarray], np.ndarray], spacing: float, edge: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the points and others round the lowest of them, twice closer each time, with the excess there."""
    values = excess(x)
    if len(x) == 0 or isinstance(task.domain, Sublevel):
        return x, values
    steps = np.array(list(product(STEPS, repeat=x.shape[1])))
    lowest = worst(space, x, values, np.inf)
    lowest = lowest[np.argsort(values[lowest])[: NEIGHBOURS // len(steps)]]
    around, found, lows = x[lowest], [x], [values]
    for scale in (spacing, 0.3 * spacing):
        near = _neighbours(task, space, around, scale * steps, edge)
        excesses = excess(near.reshape(-1, x.shape[1])).reshape(len(around), len(steps))
        chosen = np.arange(len(around)), excesses.argmin(axis=1)
        around = near[chosen]
        found.append(around)
        lows.append(excesses[chosen])
    return np.concatenate(found), np.concatenate(lows)


def _neighbours(task: Task, space: Basis, x: np.ndarray, steps: np.ndarray, edge: bool) -> np.ndarray:
    """Return points of the closed domain (or of its boundary) shifted by steps in the angles, shape (p, s, d)."""
    t = np.clip(2 * (x - space.lower) / (space.upper - space.lower) - 1, -1, 1)
    angle = np.clip(np.arccos(t)[:, None] + steps, 0, np.pi)
    ball = isinstance(task.domain, Ball)
    if edge and not ball:  # stay on the side
        angle = np.where(np.abs(t[:, None]) == 1, np.arccos(t)[:, None], angle)
    near = np.cos(angle)
    if ball:
        radius = np.linalg.norm(near, axis=2, keepdims=True)
        near = near / (np.maximum(radius, 1e-300) if edge else np.maximum(radius, 1))
    return np.asarray(space.lower + (near + 1) / 2 * (space.upper - space.lower))


def worst(space: Basis, x: np.ndarray, excess: np.ndarray, limit: float) -> np.ndarray:
    """Return indices: of the points whose excess is below the limit, the lowest in each cell of a Chebyshev grid."""
    low = np.flatnonzero(excess < limit)
    if len(low) == 0:
        return low
    t = np.clip(2 * (x[low] - space.lower) / (space.upper - space.lower) - 1, -1, 1)
    cells = np.floor(np.arccos(t) * 2 * space.degree / np.pi).astype(int)
    order = np.lexsort((excess[low], *cells.T))
    first = np.ones(len(order), dtype=bool)
    first[1:] = np.any(np.diff(cells[order], axis=0) != 0, axis=1)
    return np.asarray(low[order[first]])
