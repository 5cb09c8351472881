"""Paths in blocks: each with its own random numbers, dealt to the ranks, the same on any number of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mpi4py import MPI

import numpy as np

from fpsolve.errors import InputError
from fpsolve.model.chain import Chain
from fpsolve.model.domains import Domain
from fpsolve.simulate import kernels
from fpsolve.simulate.motion import EulerMaruyama, Motion, motion_of, state_of
from fpsolve.simulate.region import Region, region_of, state_starts
from fpsolve.simulate.vectorised import leave_domain

log = logging.getLogger("fpsolve")

T = TypeVar("T")
#: Seconds between two reports, and the length of a call of the kernel that is aimed at.
REPORT, CALL = 10.0, 0.5


class Block:
    """Paths from one start that advance together."""

    def __init__(
        self, motion: Motion, region: Region | None, domain: Domain | None, start: np.ndarray, paths: int,
        rng: np.random.Generator, observe: Any = None, observables: int = 0,
    ) -> None:  # fmt: skip
        d = motion.matrices
        self.motion, self.rng = motion, rng
        self.x = np.zeros((paths, motion.width))
        self.x[:, : len(start)] = start  # at rest where velocities are not given
        self.before = np.empty((paths if d else 0, motion.width))
        self.a = np.zeros((paths if d else 0, d, d))
        self.active, self.inside = np.arange(paths), paths
        self.tick, self.taken = 0, 0
        self.steps, self.when = np.zeros(paths, dtype=np.int64), np.full(paths, np.inf)
        self.sums = np.zeros((paths, observables))
        self._parameters = motion.parameters(paths)
        self._observe, self._ticks = observe, 64
        everywhere = region_of(None, False, False, False)
        self._region = everywhere if region is None else region
        self._leave: Callable[..., int] = kernels.leave_between if motion.bridge else kernels.leave
        self._compiled = motion.kernel is not None
        if domain is not None and region is None:
            self._leave, self._compiled = leave_domain(domain, motion.bridge), False

    def advance(self, until: int | None = None) -> Iterator[None]:
        """Take steps until that many have been taken or no path is inside; hands over control now and then."""
        while self.inside and (until is None or self.tick < until):
            ticks = self._ticks if until is None else min(self._ticks, until - self.tick)
            began = time.perf_counter()
            self._run(ticks)
            if ticks == self._ticks:
                seconds = time.perf_counter() - began
                self._ticks = max(1, min(4 * ticks, int(ticks * CALL / max(seconds, 1e-6))))
            yield

    def _run(self, ticks: int) -> None:
        m = self.motion
        state = (self.rng, self.x, self.before, self.a, self.active)
        ends = (self._region, m.step_time, self.steps, self.when)
        if self._compiled:
            run = kernels.run_kernel(m.kernel, m.bridge, self._observe)
            arguments = (self.inside, self.tick, ticks, self._parameters, *ends, self.sums)
            self.inside, taken = run(*state, *arguments)
            self.taken += taken
        else:
            step = m.kernel or m.vectorised
            for tick in range(self.tick, self.tick + ticks):
                if self.inside == 0:
                    break
                step(*state, self.inside, tick, self._parameters)
                self.taken += self.inside
                self.inside = self._leave(*state, self.inside, tick, *ends)
                if self._observe is not None:
                    self._observe(self.x, self.active, self.inside, self.sums)
        self.tick += ticks


@dataclass(frozen=True)
class Share:
    """A block's place: the number of the start, of the block, and how many paths it has."""

    start: int
    number: int
    paths: int


def shares(starts: int, paths: int, block: int) -> list[Share]:
    """Return the blocks of all starts, in order."""
    sizes = [min(block, paths - first) for first in range(0, paths, block)]
    return [Share(start, number, size) for start in range(starts) for number, size in enumerate(sizes)]


def generator(seed: int, share: Share) -> np.random.Generator:
    """Return the random numbers of a block."""
    sequence = np.random.SeedSequence(seed, spawn_key=(share.start, share.number))
    return np.random.Generator(np.random.PCG64DXSM(sequence))


def deal(comm: MPI.Comm, every: Sequence[Share], work: Callable[[Share, Progress], T]) -> list[T]:
    """Return the results of all blocks, in order, on every rank; each rank works on its own. Collective.

    An error on one rank is raised on all.
    """
    mine: list[T] = []
    error: BaseException | None = None
    progress = Progress(comm.rank == 0, sum(share.paths for share in every[comm.rank :: comm.size]), comm.size)
    try:
        for share in every[comm.rank :: comm.size]:
            mine.append(work(share, progress))
    except Exception as problem:
        error = problem
    outcomes = comm.allgather((mine, error))
    first = next((failure for _, failure in outcomes if failure is not None), None)
    if first is not None:
        raise first
    return [outcomes[k % comm.size][0][k // comm.size] for k in range(len(every))]


class Progress:
    """Reports on long runs, on one rank."""

    def __init__(self, loud: bool, paths: int, ranks: int) -> None:
        self.loud, self.paths, self.ranks = loud, paths, ranks
        self.done, self.steps, self.last = 0, 0, time.monotonic()

    def report(self, block: Block, hint: str = "") -> None:
        """Say how far the run is, if the last word was long ago; the hint, if no path has ended yet."""
        if not self.loud or time.monotonic() - self.last < REPORT:
            return
        self.last = time.monotonic()
        finished = self.done + len(block.x) - block.inside
        where = " of this rank" if self.ranks > 1 else ""
        steps, hint = self.steps + block.taken, "" if finished else hint
        log.info("simulate: %d of %d paths%s are done, %.3g steps%s", finished, self.paths, where, steps, hint)

    def finish(self, block: Block) -> None:
        """Count a block that is done."""
        self.done += len(block.x)
        self.steps += block.taken


def prepare(
    source: Chain | EulerMaruyama, starts: Any, domain: Domain | None, paths: object, seed: object, shuffle: bool
) -> tuple[np.ndarray, Motion, Region | None]:
    """Return the starts as rows of the state, the step and the exit test of a simulation. Raises InputError."""
    for key, value, least in (("paths", paths, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise InputError(key, value, f"an integer of at least {least}")
    names, positions = state_of(source)
    rows = state_starts(starts, positions, len(names), domain)
    motion = motion_of(source, shuffle, rows)
    return rows, motion, region_of(domain, motion.bridge, motion.velocities, isinstance(source, EulerMaruyama))
