"""The evolve command: from a case file to the density at given times, the theorems about it, and what is written."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpi4py import MPI

from fpsolve.app.build_evolution import build_timed
from fpsolve.app.case import Case
from fpsolve.app.case_evolution import EvolveCase
from fpsolve.app.model_messages import model_messages
from fpsolve.app.report import theorem_name
from fpsolve.app.report_evolution import evolve_summary, evolve_table
from fpsolve.app.run import Command, Extra, Settings, run
from fpsolve.app.theorems import theorems
from fpsolve.errors import FpsolveError, InputError
from fpsolve.fem.states import save_state
from fpsolve.problems.compare_evolution import TimeMargin
from fpsolve.problems.evolution import EvolveResult
from fpsolve.problems.evolve import evolve
from fpsolve.problems.steady import steady_state
from fpsolve.theory.evolution import TimeBound

log = logging.getLogger("fpsolve")

#: The final state, from which another run can start, and where checkpoints are kept during the run.
STATE = "state.npz"
CHECKPOINT = "checkpoint"
#: For the gap that predicts the decay of the entropy: its relative error, and the least unknowns allowed.
GAP_TOLERANCE = 1e-3
GAP_UNKNOWNS = 5_000


@dataclass(frozen=True)
class EvolveAnswer:
    """All that the evolve command found; the same on every rank.

    Attributes
    ----------
    bounds : list of TimeBound
        Also those that do not apply.
    margins : list of TimeMargin
        Of the same bounds, in the same order.
    messages : list of str
        What the user should know; errors begin with "error:".
    state : Path or None
        Where the final state was saved.
    """

    case: Case
    result: EvolveResult
    bounds: list[TimeBound]
    margins: list[TimeMargin]
    seconds: float
    messages: list[str] = field(default_factory=list)
    state: Path | None = None

    @property
    def violated(self) -> int:
        """How many proven bounds are violated."""
        return sum(margin.verified and margin.violations > 0 for margin in self.margins)

    @property
    def exit_code(self) -> int:
        """0, or 3 when the tolerance is not met or a proven bound is violated."""
        return 0 if self.result.converged and not self.violated else 3


def answer_evolve(case: Case, comm: MPI.Comm, directory: Path | None = None, restart: bool = False) -> EvolveAnswer:
    """Answer the question of a case: solve, bound, compare. Collective.

    Parameters
    ----------
    directory : Path, optional
        For the checkpoints of the run and its final state; neither is written when it is not given.
    restart : bool
        Go on from the checkpoint there, if there is one.

    Raises
    ------
    InputError, NotConverged
        On every rank.
    """
    began = time.perf_counter()
    section = case.evolve
    question = build_timed(case, "evolve", comm, "initial", "times")
    assert question.initial is not None  # needed
    result = evolve(
        question.process,
        question.domain,
        question.initial,
        question.times,
        comm=comm,
        observables=section.observables,
        nonnegative=section.nonnegative,
        checkpoint=None if directory is None else directory / CHECKPOINT,
        checkpoint_seconds=section.checkpoint_seconds,
        restart=restart,
        **question.options,
    )
    state, trouble = (None, []) if directory is None else _finished(result, directory)
    bounds, margins = _theorems(section, result)
    messages = [*result.messages, *_reasons(bounds), *_violations(margins), *trouble]
    messages += model_messages(question.process.landscape, question.domain)
    return EvolveAnswer(case, result, bounds, margins, time.perf_counter() - began, messages, state)


def _finished(result: EvolveResult, directory: Path) -> tuple[Path | None, list[str]]:
    """Save the final state and return its file, or why there is none. Collective.

    The checkpoint has then served, unless the run may be repeated with more unknowns.
    """
    path = directory / STATE
    metadata = {"t": float(result.times[-1]), "variables": list(result.process.variables)}
    try:
        save_state(path, result.densities[-1], metadata, result.comm)
    except InputError as error:  # on every rank; the answer is worth more than its file
        return None, [f"warning: no {STATE}: {error}"]
    if result.converged and result.comm.rank == 0:
        with suppress(OSError):
            shutil.rmtree(directory / CHECKPOINT)
    return path, []


def _theorems(section: EvolveCase, result: EvolveResult) -> tuple[list[TimeBound], list[TimeMargin]]:
    """Return what is known of the solution, compared with it. Collective."""
    if not section.bounds:
        return [], []
    gap = _gap(result) if section.gap else None
    log.info("theorems: %s", ", ".join(section.bounds))
    return theorems(result, section.bounds, section.center, section.radius, section.delta, gap)


def _gap(result: EvolveResult) -> float | None:
    """Return the spectral gap, which predicts the decay of the entropy; None where it says nothing. Collective."""
    known = any(record.entropy is not None for record in result.records)
    if not known or result.boundary_condition != "no-flux" or not result.schedule.constant:
        return None
    log.info("spectral gap")
    try:
        steady = steady_state(
            result.process, result.domain, comm=result.comm, eigenvalues=2, tolerance=GAP_TOLERANCE,
            max_unknowns=max(result.unknowns, GAP_UNKNOWNS),
        )  # fmt: skip
    except FpsolveError as error:  # the same on every rank
        log.info("no spectral gap: %s", error)
        return None
    return steady.spectral_gap if steady.converged and steady.unique else None


def _reasons(bounds: Sequence[TimeBound]) -> list[str]:
    """Return why theorems do not apply or are not proven here, those with the same reason together."""
    groups: dict[str, list[str]] = {}
    for bound in bounds:
        if not bound.verified:
            groups.setdefault(bound.reason, []).append(theorem_name(bound))
    return [f"{', '.join(dict.fromkeys(names))}: {reason}" for reason, names in groups.items()]


def _violations(margins: Sequence[TimeMargin]) -> list[str]:
    found = []
    for margin in margins:
        if not margin.violations:
            continue
        where = f"{theorem_name(margin)}, {margin.kind}, on {margin.quantity}"
        what = f"violated at {margin.violations} of {len(margin.times)} stored times"
        what += f" (smallest margin {margin.smallest:.3e})"
        if margin.verified:
            found.append(f"error: {where} is {what}; the solution, its error estimate or the bound is wrong")
        else:
            found.append(f"{where}, not proven here, is {what}")
    return found


def run_evolve(case: Case, comm: MPI.Comm, settings: Settings) -> int:
    """Run the evolve command and return its exit code; see `fpsolve.app.run.run`. Collective."""
    command = Command(
        lambda directory: answer_evolve(case, comm, directory, settings.restart), evolve_summary, evolve_table, _extras
    )
    return run(command, case, comm, settings)


def _extras(answer: EvolveAnswer, directory: Path) -> list[Extra]:
    result: Any = answer.result
    pictures = (result, answer.bounds, answer.margins, directory)
    return [
        Extra("fields", "fpsolve.app.fields", "write_evolution", (result, directory)),
        Extra("figures", "fpsolve.app.figures_evolution", "evolve_figures", pictures),
    ]
