"""Where simulated paths are at given times: densities, means of observables, whole trajectories."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mpi4py import MPI

import numpy as np

from fpsolve.errors import InputError
from fpsolve.model.chain import Chain
from fpsolve.model.domains import Domain
from fpsolve.model.expressions import Formula
from fpsolve.model.initial import GaussianStart
from fpsolve.simulate.blocks import Block, Progress, Share, deal, generator, prepare, shares
from fpsolve.simulate.compiled import entries_of, observer
from fpsolve.simulate.motion import EulerMaruyama
from fpsolve.simulate.vectorised import coloured

#: Points of a stored trajectory.
TRAJECTORY = 1000


@dataclass(frozen=True, eq=False)
class PathSample:
    """Positions of simulated paths; all but `seconds` is the same on every rank and on any number of ranks.

    Attributes
    ----------
    source : Chain or EulerMaruyama
    domain : Domain or None
    comm : MPI.Comm
    names : tuple of str
        The coordinates of the state.
    starts : ndarray, shape (s, width)
        For a Gaussian start its mean.
    times : ndarray, shape (k,)
        The asked times, each moved to the nearest step.
    positions : ndarray, shape (s, k, paths, width)
        nan for paths that have left the domain.
    observables : tuple of str
    running : ndarray, shape (s, k, paths, m)
        The mean of each observable over the steps of a path until then; nan at time 0 and after it has left.
    trajectory_times : ndarray, shape (j,)
    trajectories : ndarray, shape (t, j, width)
        Of the first paths from the first start.
    steps : int
        Taken by all paths together.
    """

    source: Chain | EulerMaruyama
    domain: Domain | None
    comm: MPI.Comm
    names: tuple[str, ...]
    starts: np.ndarray
    times: np.ndarray
    positions: np.ndarray
    observables: tuple[str, ...]
    running: np.ndarray
    trajectory_times: np.ndarray
    trajectories: np.ndarray
    steps: int
    seconds: float

    @property
    def inside(self) -> np.ndarray:
        """The share of paths that have not left, shape (s, k)."""
        return np.isfinite(self.positions[..., 0]).mean(axis=2)

    @property
    def mean(self) -> np.ndarray:
        """The mean of the paths that have not left, shape (s, k, width)."""
        return _mean(self.positions)

    @property
    def covariance(self) -> np.ndarray:
        """Their covariance, shape (s, k, width, width); nan for fewer than two paths."""
        centred = self.positions - self.mean[:, :, None]
        count = np.isfinite(centred[..., 0]).sum(axis=2)[..., None, None]
        products = np.einsum("skpi,skpj->skij", np.nan_to_num(centred), np.nan_to_num(centred))
        return np.where(count > 1, products / np.maximum(count - 1, 1), np.nan)

    @property
    def values(self) -> tuple[np.ndarray, np.ndarray]:
        """The means of the observables at the stored times and their standard errors, each (s, k, m)."""
        s, k, paths, width = self.positions.shape
        formulas = [Formula.parse(text, self.names, "observables") for text in self.observables]
        flat = self.positions.reshape(-1, width)
        found = np.stack([f(flat) for f in formulas], axis=1) if formulas else np.empty((len(flat), 0))
        return _mean_and_error(found.reshape(s, k, paths, len(formulas)))

    @property
    def running_means(self) -> tuple[np.ndarray, np.ndarray]:
        """The means over paths of `running` and their standard errors, each (s, k, m)."""
        return _mean_and_error(self.running)

    def histogram(
        self, time: int, bins: int | Sequence[int] = 50, start: int = 0, weights: np.ndarray | None = None,
        limits: Sequence[tuple[float, float]] | None = None, axes: Sequence[int] | None = None,
    ) -> tuple[np.ndarray, list[np.ndarray]]:  # fmt: skip
        """Return the density at a stored time and the edges of its bins.

        Parameters
        ----------
        time, start : int
            Their numbers.
        bins : int or one for each axis
        weights : ndarray, shape (paths,), optional
            Of the paths; 1/paths each by default, so that the density has the mass that has not left (and lies
            within the limits).
        limits : pairs, optional
            The range of each axis.
        axes : coordinates, optional
            All by default; the others are integrated out.
        """
        x = self.positions[start, time]
        alive = np.isfinite(x[:, 0])
        own = np.full(len(x), 1.0 / len(x)) if weights is None else np.asarray(weights, dtype=float)
        chosen = x[alive][:, list(axes)] if axes is not None else x[alive]
        places: Any = limits
        counts, edges = np.histogramdd(chosen, bins=bins, range=places, weights=own[alive])
        volume = np.ones(())
        for edge in edges:
            volume = np.multiply.outer(volume, np.diff(edge))
        return counts / volume, list(edges)


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over axis 2 of what is not nan; nan where there is nothing."""
    alive = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(alive, values, 0.0).sum(axis=2) / np.where(alive.any(axis=2), alive.sum(axis=2), np.nan)


def _mean_and_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = _mean(values)
    count = (~np.isnan(values)).sum(axis=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = _mean((values - mean[:, :, None]) ** 2) * count / (count - 1.0)
        return mean, np.sqrt(variance / count)


def simulate_paths(
    source: Chain | EulerMaruyama,
    starts: Sequence[Sequence[float]] | np.ndarray | GaussianStart,
    times: Sequence[float],
    *,
    comm: MPI.Comm,
    domain: Domain | None = None,
    paths: int = 10_000,
    seed: int = 0,
    observables: Sequence[str] = (),
    trajectories: int = 0,
    shuffle: bool = False,
) -> PathSample:
    """Simulate paths and keep where they are at given times. Collective.

    Parameters
    ----------
    source : Chain or EulerMaruyama
    starts : points, or GaussianStart
        With momentum positions (then at rest) or positions and velocities v = z/√η.
    times : increasing numbers >= 0
        In units in which a step lasts `step_time` (η; √η with momentum; Euler-Maruyama's step).
    domain : Domain, optional
        Paths end when they leave it; by default they go on anywhere.
    paths : int
        Of each start.
    seed : int
        The sample depends on it and not on the number of ranks.
    observables : formulas
        In the coordinates of the state: their values at the times and their means along the paths.
    trajectories : int
        How many paths from the first start are stored whole, at up to 1000 steps; at most one block (500).
    shuffle : bool
        Draw batches from a new permutation of the samples in each epoch.

    Raises
    ------
    InputError
        On every rank, if a value cannot be used.
    """
    began = time.perf_counter()
    gaussian = starts if isinstance(starts, GaussianStart) else None
    rows, motion, region = prepare(
        source, starts if gaussian is None else [gaussian.mean], domain, paths, seed, shuffle
    )
    formulas = [Formula.parse(text, motion.names, f"observables[{i}]") for i, text in enumerate(observables)]
    observe = observer(entries_of(formulas), motion.names) if formulas else None
    stops = _stops(times, motion.step_time)
    grid = np.unique(np.linspace(0, stops[-1], min(TRAJECTORY, stops[-1]) + 1).round().astype(np.int64))

    def work(share: Share, progress: Progress) -> tuple[Any, ...]:
        rng = generator(seed, share)
        block = Block(motion, region, domain, rows[share.start], share.paths, rng, observe, len(formulas))
        if gaussian is not None:
            _scatter(block, gaussian, domain)
        follow = min(trajectories, share.paths) if (share.start, share.number) == (0, 0) else 0
        return _record(block, stops, grid, follow, progress)

    found = deal(comm, shares(len(rows), paths, motion.block), work)
    s, k = len(rows), len(stops)
    seconds = comm.allreduce(time.perf_counter() - began, op=MPI.MAX)
    return PathSample(
        source, domain, comm, motion.names, rows, stops * motion.step_time,
        _joined(found, 0, (s, k, paths, motion.width)), tuple(observables),
        _joined(found, 1, (s, k, paths, len(formulas))), grid * motion.step_time, found[0][2],
        sum(f[3] for f in found), seconds,
    )  # fmt: skip


def _joined(found: list[tuple[Any, ...]], entry: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return one entry of the blocks' results, the blocks of a start one after the other."""
    each = len(found) // shape[0]
    parts = [[block[entry] for block in found[i : i + each]] for i in range(0, len(found), each)]
    return np.stack([np.concatenate(part, axis=1) for part in parts]).reshape(shape)


def _stops(times: Sequence[float], step: float) -> np.ndarray:
    asked = np.atleast_1d(np.asarray(times, dtype=float))
    if asked.ndim != 1 or not len(asked) or not np.isfinite(asked).all() or asked[0] < 0 or (np.diff(asked) <= 0).any():
        raise InputError("times", list(np.ravel(times)), "increasing times >= 0 such as [0.1, 1.0]")
    stops = np.round(asked / step).astype(np.int64)
    if stops[-1] < 1 or (np.diff(stops) <= 0).any():
        raise InputError("times", asked.tolist(), f"times that are at least one step, {step:g}, apart")
    return stops


def _scatter(block: Block, start: GaussianStart, domain: Domain | None) -> None:
    """Draw the starts of a block; those outside of the domain have left."""
    mean, covariance = np.array(start.mean, dtype=float), np.atleast_2d(np.array(start.covariance, dtype=float))
    paths, d = len(block.x), len(mean)
    block.x[:, :d] = mean + coloured(np.tile(covariance, (paths, 1, 1)), block.rng.standard_normal((paths, d)))
    if domain is not None:
        inside = np.flatnonzero(domain.contains(block.x[:, : domain.dimension]))
        block.active[: len(inside)], block.inside = inside, len(inside)


def _record(
    block: Block, stops: np.ndarray, grid: np.ndarray, follow: int, progress: Progress
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Run a block and return its positions (k, paths, width), running means, trajectories and steps."""
    paths, width = block.x.shape
    positions = np.full((len(stops), paths, width), np.nan)
    running = np.full((len(stops), paths, block.sums.shape[1]), np.nan)
    whole = np.full((follow, len(grid), width), np.nan)
    for tick in np.union1d(stops, grid) if follow else stops:
        for _ in block.advance(int(tick)):
            progress.report(block)
        now = block.active[: block.inside]
        k, j = np.searchsorted(stops, tick), np.searchsorted(grid, tick)
        if k < len(stops) and stops[k] == tick:
            positions[k, now] = block.x[now]
            if tick > 0:
                running[k, now] = block.sums[now] / tick
        if follow and grid[j] == tick:
            seen = now[now < follow]
            whole[seen, j] = block.x[seen]
    progress.finish(block)
    return positions, running, whole, block.taken
