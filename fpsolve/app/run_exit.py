"""The exit command: from a case file to the mean exit time, its bounds, their comparison and the written results."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mpi4py import MPI

from fpsolve.app.build import build
from fpsolve.app.case import Case
from fpsolve.app.model_messages import model_messages
from fpsolve.app.report_exit import exit_summary, exit_table
from fpsolve.app.run import Command, Extra, Settings, run, without_schedule
from fpsolve.fem.parallel import on_root
from fpsolve.problems.compare import Comparison, compare
from fpsolve.problems.exit import ExitResult, mean_exit_time
from fpsolve.theory.bounds import Bound, all_bounds

log = logging.getLogger("fpsolve")

#: Where the case file names none.
SCHEME = "dg"


@dataclass(frozen=True)
class ExitAnswer:
    """All that the exit command found; the same on every rank.

    Attributes
    ----------
    bounds : list of Bound
        Also those that do not apply.
    messages : list of str
        What the user should know; errors begin with "error:".
    """

    case: Case
    result: ExitResult
    bounds: list[Bound]
    comparison: Comparison
    seconds: float
    messages: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0, or 3 when the tolerance is not met or a bound is violated."""
        return 0 if self.result.converged and self.comparison.violated == 0 else 3


def answer_exit(case: Case, comm: MPI.Comm) -> ExitAnswer:
    """Answer the question of a case: solve, bound, compare. Collective.

    Raises
    ------
    InputError, NoFiniteAnswer, NotConverged
        On every rank.
    """
    began = time.perf_counter()
    process, domain, starts = build(case, comm)
    mesh = case.mesh
    result = mean_exit_time(
        process, domain, comm=comm, starts=starts, tolerance=mesh.tolerance, size=mesh.size,
        scheme=mesh.scheme or SCHEME, degree=mesh.degree, moments=case.exit.moments, max_unknowns=mesh.max_unknowns,
    )  # fmt: skip
    if case.exit.bounds:
        log.info("bounds: %s", ", ".join(case.exit.bounds))
    # their search has a time budget, so ranks could find different ones
    bounds = on_root(comm, lambda: all_bounds(process, domain, case.exit.bounds))
    comparison = compare(result, bounds)
    messages = [*result.messages, *_bound_messages(bounds), *_violations(comparison), *without_schedule(case)]
    messages += model_messages(process.landscape, domain)
    return ExitAnswer(case, result, bounds, comparison, time.perf_counter() - began, messages)


def _bound_messages(bounds: Sequence[Bound]) -> list[str]:
    return [f"{b.name} {b.kind} bound ({b.theorem}): {b.reason}" for b in bounds if not b.verified]


def _violations(comparison: Comparison) -> list[str]:
    found = [
        f"error: the {m.name} {m.kind} bound is violated at {m.violations} of {comparison.points} mesh points beyond "
        f"the error estimate (smallest margin {m.smallest:.3e} of max u, at {m.where}); "
        "the solution, its error estimate or the bound is wrong"
        for m in comparison.margins
        if m.violations
    ]
    if not comparison.positive:
        found.append(
            f"error: the mean exit time is negative beyond the error estimate (smallest value "
            f"{comparison.smallest_value:.6g}); use a smaller mesh.size or mesh.tolerance"
        )
    return found


def run_exit(case: Case, comm: MPI.Comm, settings: Settings) -> int:
    """Run the exit command and return its exit code; see `fpsolve.app.run.run`. Collective."""
    command = Command(lambda _: answer_exit(case, comm), exit_summary, exit_table, _extras)
    return run(command, case, comm, settings)


def _extras(answer: ExitAnswer, directory: Path) -> list[Extra]:
    result = answer.result
    return [
        Extra("fields", "fpsolve.app.fields", "write_fields", (result, directory)),
        Extra("figures", "fpsolve.app.figures", "exit_figures", (result, answer.bounds, directory)),
    ]
