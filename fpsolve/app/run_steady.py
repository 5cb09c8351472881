"""The steady command: from a case file to the invariant density and the spectrum, and what is written."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

from mpi4py import MPI

from fpsolve.app.build import build_domain, build_process
from fpsolve.app.case import Case
from fpsolve.app.model_messages import model_messages
from fpsolve.app.report_steady import gap_messages, gap_violated, steady_summary, steady_table
from fpsolve.app.run import Command, Extra, Settings, run, without_schedule
from fpsolve.errors import InputError
from fpsolve.fem.parallel import on_root
from fpsolve.problems.noisy_limit import NoisyLimit, noisy_limit
from fpsolve.problems.steady import steady_state
from fpsolve.problems.steady_result import SteadyResult
from fpsolve.theory.certified.gap import GapBound, spectral_gap_bound

log = logging.getLogger("fpsolve")


@dataclass(frozen=True)
class SteadyAnswer:
    """All that the steady command found; the same on every rank.

    Attributes
    ----------
    result : SteadyResult
        With strengths δ that of the smallest.
    limit : NoisyLimit or None
        Where strengths δ were given.
    gap_bound : GapBound or None
        The proved lower bound of the spectral gap of `result`, where it was asked for.
    """

    case: Case
    result: SteadyResult
    limit: NoisyLimit | None
    seconds: float
    messages: list[str] = field(default_factory=list)
    gap_bound: GapBound | None = None

    @property
    def exit_code(self) -> int:
        """0, or 3 when the tolerance is not met or the spectral gap lies below its proved bound."""
        fine = self.result.converged and (self.limit is None or self.limit.converged)
        return 0 if fine and not gap_violated(self.result, self.gap_bound) else 3


def answer_steady(case: Case, comm: MPI.Comm) -> SteadyAnswer:
    """Answer the question of a case. Collective.

    Raises
    ------
    InputError, NotConverged
        On every rank.
    """
    began = time.perf_counter()
    section, mesh = case.steady, case.mesh
    process = build_process(case.process, comm)
    domain = build_domain(case.domain, process, comm)
    if section.deltas and case.process.extra_noise:
        remedy = "The deltas take its place."
        raise InputError("process.extra_noise", case.process.extra_noise, "none besides steady.deltas", remedy)
    messages = without_schedule(case)
    limit = None
    if section.deltas:
        log.info("noisy SGD: δ = %s", ", ".join(f"{delta:g}" for delta in section.deltas))
        limit = noisy_limit(
            process, domain, comm=comm, deltas=section.deltas, learning_rate=case.process.learning_rate,
            observables=section.observables, scheme=mesh.scheme, degree=mesh.degree, tolerance=mesh.tolerance,
            max_unknowns=mesh.max_unknowns,
        )  # fmt: skip
        # without noise in all directions there may be no invariant density at all
        result = limit.results[-1]
        messages += [f"density, eigenvalues and wells are those of δ = {limit.deltas[-1]:g}", *limit.messages]
    else:
        result = steady_state(
            process, domain, comm=comm, eigenvalues=section.eigenvalues, observables=section.observables, **vars(mesh)
        )
    bound = None
    if section.bounds:
        log.info("certified lower bound of the spectral gap, at most %g s", case.bounds.budget)
        # its search has a time budget, so ranks could find different ones
        bound = on_root(comm, lambda: spectral_gap_bound(result.process, domain, case.bounds.budget))
    messages += [*result.messages, *model_messages(process.landscape, domain), *gap_messages(result, bound)]
    return SteadyAnswer(case, result, limit, time.perf_counter() - began, messages, bound)


def run_steady(case: Case, comm: MPI.Comm, settings: Settings) -> int:
    """Run the steady command and return its exit code; see `fpsolve.app.run.run`. Collective."""
    command = Command(lambda _: answer_steady(case, comm), steady_summary, steady_table, _extras)
    return run(command, case, comm, settings)


def _extras(answer: SteadyAnswer, directory: Path) -> list[Extra]:
    return [
        Extra("fields", "fpsolve.app.fields", "write_steady", (answer.result, directory)),
        Extra("figures", "fpsolve.app.figures_steady", "steady_figures", (answer.result, directory)),
    ]
