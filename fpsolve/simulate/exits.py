"""Exit times of simulated paths, with confidence intervals."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from mpi4py import MPI

import numpy as np
from scipy.stats import chi2

from fpsolve.errors import InputError, NoFiniteAnswer
from fpsolve.model.chain import Chain
from fpsolve.model.domains import Domain
from fpsolve.simulate.blocks import Block, Progress, Share, deal, generator, prepare, shares
from fpsolve.simulate.motion import EulerMaruyama

#: Half the width of a 95 % interval in standard errors.
NORMAL = 1.959963984540054
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, eq=False)
class ExitSample:
    """Simulated exit times; all but `seconds` and `rate` are the same on every rank and on any number of ranks.

    Attributes
    ----------
    source : Chain or EulerMaruyama
    domain : Domain
    comm : MPI.Comm
    names : tuple of str
        The coordinates of the state.
    starts : ndarray, shape (s, width)
        With momentum positions and velocities.
    times : ndarray, shape (s, paths)
        Exit times, in units in which one step lasts `step_time`; inf for paths that were still inside at the end.
    places : ndarray, shape (s, paths, width)
        Where each path was after its last step.
    step_time : float
    max_time : float or None
        When the simulation was ended, None if all paths have left.
    steps : int
        Taken by all paths together.
    seconds, rate : float
        Of the slowest rank, compilation included; steps per second and rank in the loops alone.
    """

    source: Chain | EulerMaruyama
    domain: Domain
    comm: MPI.Comm
    names: tuple[str, ...]
    starts: np.ndarray
    times: np.ndarray
    places: np.ndarray
    step_time: float
    max_time: float | None
    steps: int
    seconds: float
    rate: float
    messages: tuple[str, ...] = field(default=())

    @property
    def paths(self) -> int:
        """Of each start."""
        return self.times.shape[1]

    @property
    def inside(self) -> np.ndarray:
        """How many paths of each start were still inside at the end, shape (s,)."""
        return np.isinf(self.times).sum(axis=1)

    @property
    def mean(self) -> np.ndarray:
        """The mean exit time of each start, shape (s,); nan where paths were still inside."""
        return self._complete(self.times.mean(axis=1))

    @property
    def standard_deviation(self) -> np.ndarray:
        """Of one exit time, shape (s,); nan where paths were still inside or there is one path."""
        if self.paths < 2:
            return np.full(len(self.times), np.nan)
        with np.errstate(invalid="ignore"):
            return self._complete(self.times.std(axis=1, ddof=1))

    @property
    def standard_error(self) -> np.ndarray:
        """Of the mean, shape (s,)."""
        return self.standard_deviation / math.sqrt(self.paths)

    @property
    def interval(self) -> np.ndarray:
        """95 % confidence interval of the mean, shape (s, 2): the mean ± 1.96 standard errors (many paths)."""
        return self.mean[:, None] + NORMAL * self.standard_error[:, None] * np.array([-1.0, 1.0])

    @property
    def quantiles(self) -> np.ndarray:
        """At the levels `QUANTILES`, shape (s, 5); nan beyond the end of the simulation."""
        ordered = np.sort(self.times, axis=1)
        found = ordered[:, [math.ceil(q * self.paths) - 1 for q in QUANTILES]]
        return np.where(np.isfinite(found), found, np.nan)

    @property
    def exponential_mean(self) -> np.ndarray:
        """The mean if exit times are exponential: all time spent inside over the number of exits, shape (s,)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._spent / (self.paths - self.inside)

    @property
    def exponential_interval(self) -> np.ndarray:
        """95 % interval of `exponential_mean` under that law, shape (s, 2)."""
        exits = self.paths - self.inside
        low = 2 * self._spent / chi2.ppf(0.975, 2 * exits + 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            high = np.where(exits > 0, 2 * self._spent / chi2.ppf(0.025, 2 * np.maximum(exits, 1)), np.inf)
        return np.column_stack([low, high])

    @property
    def _spent(self) -> np.ndarray:
        return np.where(np.isinf(self.times), self.max_time or 0.0, self.times).sum(axis=1)

    def _complete(self, values: np.ndarray) -> np.ndarray:
        return np.where(self.inside == 0, values, np.nan)


def simulate_exit(
    source: Chain | EulerMaruyama,
    domain: Domain,
    starts: Sequence[Sequence[float]] | np.ndarray,
    *,
    comm: MPI.Comm,
    paths: int = 10_000,
    seed: int = 0,
    max_time: float | None = None,
    shuffle: bool = False,
) -> ExitSample:
    """Simulate paths until they leave a domain. Collective.

    Parameters
    ----------
    source : Chain or EulerMaruyama
        A chain leaves when it is outside after a step; Euler-Maruyama, by default, also in between.
    domain : Domain
        Of the dimension of the positions or, with momentum, of positions and velocities v = z/√η. Flat sides may
        reflect: at the side's normal for a chain, along the conormal a n for a diffusion.
    starts : points
        With momentum positions (then at rest) or positions and velocities.
    paths : int
        Of each start.
    seed : int
        The sample depends on it and not on the number of ranks.
    max_time : float, optional
        When the simulation is ended; by default when all paths have left.
    shuffle : bool
        Draw batches from a new permutation of the samples in each epoch.

    Raises
    ------
    InputError
        On every rank, if a value cannot be used.
    NoFiniteAnswer
        On every rank, if the whole boundary reflects and there is no `max_time`.
    """
    began = time.perf_counter()
    if max_time is not None and not 0 < max_time < math.inf:
        raise InputError("max_time", max_time, "a positive number")
    rows, motion, region = prepare(source, starts, domain, paths, seed, shuffle)
    if max_time is None and domain.reflecting and set(domain.names) <= set(domain.reflecting):
        raise NoFiniteAnswer(
            "the whole boundary reflects: no path leaves the domain. Give max_time, or let a side absorb."
        )
    most = None if max_time is None else math.ceil(max_time / motion.step_time * (1 - 1e-12))

    def work(share: Share, progress: Progress) -> tuple[np.ndarray, np.ndarray, int, float]:
        block = Block(motion, region, domain, rows[share.start], share.paths, generator(seed, share))
        if not progress.done:
            next(block.advance(1))  # compiles, which is no part of the rate
        clock = time.perf_counter()
        for _ in block.advance(most):
            progress.report(block, "; none has left: max_time would end them" if most is None else "")
        progress.finish(block)
        return block.when * motion.step_time, block.x, block.taken, time.perf_counter() - clock

    found = deal(comm, shares(len(rows), paths, motion.block), work)
    times = np.concatenate([entry[0] for entry in found]).reshape(len(rows), paths)
    places = np.concatenate([entry[1] for entry in found]).reshape(len(rows), paths, motion.width)
    steps, busy = sum(entry[2] for entry in found), sum(entry[3] for entry in found)
    seconds = comm.allreduce(time.perf_counter() - began, op=MPI.MAX)
    end = None if np.isfinite(times).all() or most is None else most * motion.step_time
    return ExitSample(
        source, domain, comm, motion.names, rows, times, places, motion.step_time, end, steps, seconds,
        steps / max(busy, 1e-9), tuple(_messages(times, rows, end)),
    )  # fmt: skip


def _messages(times: np.ndarray, starts: np.ndarray, end: float | None) -> list[str]:
    inside = np.isinf(times).sum(axis=1)
    return [
        f"warning: from ({', '.join(f'{c:g}' for c in start)}) {count} of {times.shape[1]} paths were still inside at "
        f"time {end:g}: their mean exit time is unknown. The estimate for exponential exit times counts them."
        for start, count in zip(starts, inside, strict=True)
        if count
    ]
