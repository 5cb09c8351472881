"""The exit command: from a case file to the mean exit time, its bounds, their comparison and the written results."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mpi4py import MPI

import numpy as np

from fpsolve.app.build import build
from fpsolve.app.case import CHAIN_MODELS, Case
from fpsolve.app.exit_models import ChainAnswer, ModelAnswer, compare_models, failed, solve_model
from fpsolve.app.model_messages import model_messages
from fpsolve.app.report import bound_messages, point_text
from fpsolve.app.report_exit import exit_summary, exit_table
from fpsolve.app.report_models import chain_summary, chain_table
from fpsolve.app.report_numbers import width_text
from fpsolve.app.run import Command, Extra, Settings, run, without_schedule
from fpsolve.fem.parallel import on_root
from fpsolve.model.process import Process
from fpsolve.problems.compare import Comparison, compare
from fpsolve.problems.exit import ExitResult
from fpsolve.theory.bounds import Bound, all_bounds

log = logging.getLogger("fpsolve")


@dataclass(frozen=True)
class ExitAnswer:
    """All that the exit command found; the same on every rank.

    Attributes
    ----------
    process : Process
        The first-order diffusion of the case; that of `result` is the model's.
    bounds : list of Bound
        Also those that do not apply; none for other models than the first-order diffusion, which they are about.
    models : list of ModelAnswer
        The model asked for and those it is compared with.
    messages : list of str
        What the user should know; errors begin with "error:".
    """

    case: Case
    process: Process
    result: ExitResult
    bounds: list[Bound]
    comparison: Comparison
    seconds: float
    models: list[ModelAnswer] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0, or 3 when the tolerance is not met, a bound is violated or a model to compare with has no answer."""
        fine = self.result.converged and self.comparison.violated == 0 and not failed(self.messages)
        return 0 if fine else 3


def answer_exit(case: Case, comm: MPI.Comm) -> ExitAnswer | ChainAnswer:
    """Answer the question of a case: solve, bound, compare. Collective.

    Raises
    ------
    InputError, NoFiniteAnswer, NotConverged
        On every rank.
    """
    began = time.perf_counter()
    process, domain, starts = build(case, comm)
    first = solve_model(case.exit.model, case, process, domain, starts, comm)
    models = compare_models(case, first, process, domain, starts, comm)
    messages = [*first.result.messages, *_of_others(models), *without_schedule(case)]
    messages += model_messages(process.landscape, domain)
    if case.exit.model != "diffusion" and case.exit.bounds:
        messages.append(f'bounds {", ".join(case.exit.bounds)}: they are theorems about model "diffusion"')
    if not isinstance(first.result, ExitResult):
        return ChainAnswer(case, process, first, models, time.perf_counter() - began, messages)
    bounds: list[Bound] = []
    if case.exit.bounds and case.exit.model == "diffusion":
        log.info("bounds: %s", ", ".join(case.exit.bounds))
        # their search has a time budget, so ranks could find different ones
        kinds, asked, x = case.exit.bounds, case.bounds, first.result.starts
        bounds = on_root(
            comm, lambda: all_bounds(process, domain, kinds, width=asked.width, effort=asked.budget, starts=x)
        )
    comparison = compare(first.result, bounds)
    messages += [*bound_messages(bounds), *_violations(comparison)]
    messages += _wide(bounds, first.result.starts, case.bounds.width)
    return ExitAnswer(case, process, first.result, bounds, comparison, time.perf_counter() - began, models, messages)


def _of_others(models: Sequence[ModelAnswer]) -> list[str]:
    """Return the messages of the models beside the first, each once and with the names of its models."""
    names: dict[str, list[str]] = {}
    for other in models[1:]:
        for text in other.result.messages:
            names.setdefault(text, []).append(other.name)
    found = []
    for text, who in names.items():
        kind, colon, rest = text.partition(": ")
        known = colon and kind in ("warning", "error")
        model = f"model {', '.join(who)}"
        found.append(f"{kind}: {model}: {rest}" if known else f"{model}: {text}")
    return found


def _wide(bounds: Sequence[Bound], starts: np.ndarray, asked: float) -> list[str]:
    """Say where certified bounds are wider than asked."""
    sides = {b.kind: b.evaluate(starts) for b in bounds if b.name == "certified" and b.verified}
    if len(sides) < 2:
        return []
    widths = 2 * (sides["upper"] - sides["lower"]) / (sides["upper"] + sides["lower"])
    worst = int(np.argmax(widths))
    if widths[worst] <= asked:
        return []
    return [
        f"certified bounds: the relative width at {point_text(starts[worst])} is {width_text(widths[worst])}, "
        f"{asked:g} was asked for; 'fpsolve bounds' tells what limits it"
    ]


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
    if case.exit.model in CHAIN_MODELS:
        command = Command(lambda _: answer_exit(case, comm), chain_summary, chain_table, _chain_extras)
    else:
        command = Command(lambda _: answer_exit(case, comm), exit_summary, exit_table, _extras)
    return run(command, case, comm, settings)


def _extras(answer: ExitAnswer, directory: Path) -> list[Extra]:
    result = answer.result
    return [
        Extra("fields", "fpsolve.app.fields", "write_fields", (result, directory)),
        Extra("figures", "fpsolve.app.figures", "exit_figures", (result, answer.bounds, directory)),
        Extra("figures", "fpsolve.app.figure_models", "models_figure", (answer.models, directory, result.comm)),
    ]


def _chain_extras(answer: ChainAnswer, directory: Path) -> list[Extra]:
    result = answer.answer.result
    return [
        Extra("figures", "fpsolve.app.figure_chain", "chain_figures", (answer.process, answer.answer, directory)),
        Extra("figures", "fpsolve.app.figure_models", "models_figure", (answer.models, directory, result.comm)),
    ]
