"""The backward command: from a case file to expectations at given times, and what is written."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from mpi4py import MPI

from fpsolve.app.build_evolution import build_timed
from fpsolve.app.case import Case
from fpsolve.app.model_messages import model_messages
from fpsolve.app.report_evolution import backward_summary, backward_table
from fpsolve.app.run import Command, Extra, Settings, run
from fpsolve.problems.backward import backward
from fpsolve.problems.evolution import BackwardResult

#: Relative difference of the two sides of duality that rounding explains.
DUALITY = 1e-9


@dataclass(frozen=True)
class BackwardAnswer:
    """All that the backward command found; the same on every rank."""

    case: Case
    result: BackwardResult
    seconds: float
    messages: list[str] = field(default_factory=list)

    @property
    def dual(self) -> bool:
        """Whether both sides of the duality agree, where the scheme claims it."""
        return self.result.duality_defect is None or self.result.duality_defect <= DUALITY

    @property
    def exit_code(self) -> int:
        """0, or 3 when the tolerance is not met or duality is violated."""
        return 0 if self.result.converged and self.dual else 3


def answer_backward(case: Case, comm: MPI.Comm) -> BackwardAnswer:
    """Answer the question of a case. Collective.

    Raises
    ------
    InputError, NotConverged
        On every rank.
    """
    began = time.perf_counter()
    section = case.backward
    question = build_timed(case, "backward", comm, "terminal", "times")
    assert section.terminal is not None  # needed
    result = backward(
        question.process,
        question.domain,
        section.terminal,
        question.times,
        comm=comm,
        points=section.points or case.exit.starts,
        initial=question.initial,
        **question.options,
    )
    answer = BackwardAnswer(case, result, time.perf_counter() - began, [*result.messages])
    answer.messages.extend(model_messages(question.process.landscape, question.domain))
    if not answer.dual:
        answer.messages.append(
            f"error: the two sides of the duality differ by {result.duality_defect:.1e}: "
            "a linear solver is not accurate enough"
        )
    return answer


def run_backward(case: Case, comm: MPI.Comm, settings: Settings) -> int:
    """Run the backward command and return its exit code; see `fpsolve.app.run.run`. Collective."""
    command = Command(lambda _: answer_backward(case, comm), backward_summary, backward_table, _extras)
    return run(command, case, comm, settings)


def _extras(answer: BackwardAnswer, directory: Path) -> list[Extra]:
    return [
        Extra("fields", "fpsolve.app.fields", "write_backward", (answer.result, directory)),
        Extra("figures", "fpsolve.app.figures_evolution", "backward_figures", (answer.result, directory)),
    ]
