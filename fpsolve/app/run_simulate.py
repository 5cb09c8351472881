"""The simulate command: from a case file to paths, their exit times and where they are at given times."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np

from fpsolve.app.build import build_chain, build_domain, build_process, default_start
from fpsolve.app.case import Case
from fpsolve.app.case_simulate import SIMULATE, chosen_chain
from fpsolve.app.model_messages import model_messages
from fpsolve.app.report_simulate import simulate_summary, simulate_table
from fpsolve.app.run import Command, Extra, Settings, run, without_schedule
from fpsolve.errors import InputError
from fpsolve.model.chain import Chain, sgd_chain
from fpsolve.model.domains import Domain, Interval
from fpsolve.model.process import Process
from fpsolve.simulate.exits import ExitSample, simulate_exit
from fpsolve.simulate.motion import EulerMaruyama
from fpsolve.simulate.paths import PathSample, simulate_paths

log = logging.getLogger("fpsolve")


@dataclass(frozen=True)
class SimulateAnswer:
    """All that the simulate command found; the same on every rank.

    Attributes
    ----------
    chain : str
        ``"sgd"``, ``"noisy"``, ``"momentum"`` or ``"sde"``.
    process : Process
        The diffusion beside the chain, for the pictures.
    exits : ExitSample or None
        None when paths are free to go anywhere.
    paths : PathSample or None
        None when no times are given.
    messages : list of str
        What the user should know; errors begin with "error:".
    """

    case: Case
    chain: str
    source: Chain | EulerMaruyama
    process: Process
    domain: Domain
    comm: MPI.Comm
    exits: ExitSample | None
    paths: PathSample | None
    seconds: float
    messages: list[str] = field(default_factory=list)

    # what the summaries of all commands tell of a mesh
    unknowns: int = 0
    cells: int = 0
    degree: int = 0
    scheme: str = "paths"

    @property
    def solver(self) -> str:
        """How the paths were made."""
        if isinstance(self.source, EulerMaruyama):
            bridge = "with" if self.source.bridge else "without"
            return f"Euler-Maruyama, step {self.source.step:g}, {bridge} Brownian bridge"
        noise = "Gaussian noise" if self.source.law == "gaussian" else "mini-batches of samples"
        return f"Markov chain, {noise}"

    @property
    def steps(self) -> int:
        """Of all paths together."""
        return sum(part.steps for part in (self.exits, self.paths) if part is not None)

    @property
    def converged(self) -> bool:
        """Whether all paths have left, so that the mean exit time is known."""
        return self.exits is None or not self.exits.inside.any()

    @property
    def exit_code(self) -> int:
        """0, or 3 when paths were still inside at the end."""
        return 0 if self.converged else 3


def answer_simulate(case: Case, comm: MPI.Comm) -> SimulateAnswer:
    """Answer the question of a case: simulate. Collective.

    Raises
    ------
    InputError
        On every rank.
    """
    began = time.perf_counter()
    section = case.simulate
    chain = chosen_chain(section, case.process)
    source, process = _source(case, chain, comm)
    if case.domain.shape == "interval":  # of positions; with momentum the velocities are free
        domain: Domain = Interval(**case.domain.values, reflecting=case.domain.reflecting)
    else:
        domain = build_domain(case.domain, process, comm)
    starts = _starts(case, domain)
    common: dict[str, Any] = {"comm": comm, "paths": section.paths, "seed": section.seed, "shuffle": section.shuffle}
    absorbing = section.boundary == "absorbing"
    exits = paths = None
    with _keys_of_the_file():
        if section.times is not None:
            log.info("simulate: positions at %d times", len(section.times))
            paths = simulate_paths(
                source, starts, section.times, domain=domain if absorbing else None, observables=section.observables,
                trajectories=section.trajectories, **common,
            )  # fmt: skip
        if absorbing:  # last, since it may take long
            log.info("simulate: exits, %d paths from each of %d start(s)", section.paths, len(starts))
            exits = simulate_exit(source, domain, starts, max_time=section.max_time, **common)
    messages = [*without_schedule(case), *(exits.messages if exits is not None else ()), *_diverged(exits, paths)]
    if paths is not None and not np.allclose(paths.times, section.times or (), rtol=1e-9):
        moved = ", ".join(f"{t:g}" for t in paths.times)
        messages.append(f"simulate.times are moved to the nearest whole number of steps: {moved}")
    messages += model_messages(process.landscape, domain)
    if section.observables and paths is None:
        messages.append("warning: simulate.observables are evaluated at simulate.times, which are not given")
    seconds = time.perf_counter() - began
    return SimulateAnswer(case, chain, source, process, domain, comm, exits, paths, seconds, messages)


def _source(case: Case, chain: str, comm: MPI.Comm) -> tuple[Chain | EulerMaruyama, Process]:
    """Return what is simulated and the diffusion beside it; data are read once. Collective."""
    section = case.simulate
    if chain == "sde":
        process = build_process(case.process, comm)
        assert section.step is not None  # `chosen_chain` has looked
        return EulerMaruyama(process, section.step, section.bridge is not False), process
    own = build_chain(case.process, comm)
    settings = (own.learning_rate, own.batch_size, own.replacement, own.extra_noise, own.momentum)
    own = sgd_chain(own.landscape, *settings, section.law or own.law, "simulate")
    if own.momentum and case.process.data is None:
        return own, build_process(case.process, comm)
    return own, replace(own, momentum=0.0).diffusion()


@contextmanager
def _keys_of_the_file() -> Iterator[None]:
    """Name the simulation's arguments in its errors as the case file does."""
    try:
        yield
    except InputError as error:
        name = error.key.partition("[")[0]
        section = "simulate" if name in SIMULATE else "process" if name in ("batch_size", "replacement") else ""
        if not section:
            raise
        raise InputError(f"{section}.{error.key}", error.value, error.expected, error.remedy) from None


def _diverged(exits: ExitSample | None, paths: PathSample | None) -> list[str]:
    """Return warnings on paths that came where numbers end: too large a step, or a loss that is not defined there."""
    remedy = "Is the learning rate too large, or the loss not defined everywhere?"
    lost = 0 if exits is None else int((~np.isfinite(exits.places).all(axis=2)).sum())
    if lost:
        return [f"warning: {lost} paths reached places that are not finite, which counts as an exit. {remedy}"]
    if paths is not None and paths.domain is None and paths.inside.min() < 1:
        share = 1 - paths.inside.min()
        return [f"warning: {100 * share:.3g} % of the paths from a start are no longer at finite places. {remedy}"]
    return []


def _starts(case: Case, domain: Domain) -> np.ndarray:
    """Return the given starts, those of [exit] by default; they must be inside."""
    section, key = case.simulate, "simulate.starts"
    starts = section.starts
    if starts is None:
        starts, key = case.exit.starts or (default_start(domain),), "exit.starts"
    for i, start in enumerate(starts):
        point = np.array([start[: domain.dimension] + (0.0,) * (domain.dimension - len(start))])
        if not domain.contains(point)[0]:
            raise InputError(f"{key}[{i}]", list(start), "a point inside the domain")
    return np.array([start + (0.0,) * (max(map(len, starts)) - len(start)) for start in starts])


def run_simulate(case: Case, comm: MPI.Comm, settings: Settings) -> int:
    """Run the simulate command and return its exit code; see `fpsolve.app.run.run`. Collective."""
    command = Command(lambda directory: answer_simulate(case, comm), simulate_summary, simulate_table, _extras)
    return run(command, case, comm, settings)


def _extras(answer: SimulateAnswer, directory: Path) -> list[Extra]:
    return [Extra("figures", "fpsolve.app.figure_simulate", "simulate_figures", (answer, directory))]
