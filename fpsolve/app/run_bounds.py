"""The bounds command: from a case file to certified enclosures of the mean exit time and more, without a mesh."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mpi4py import MPI

import numpy as np

from fpsolve.app.bounds_questions import MEAN_SHARE, FurtherBounds, check_parts, count_questions, further_bounds
from fpsolve.app.build import build
from fpsolve.app.case import Case
from fpsolve.app.model_messages import model_messages
from fpsolve.app.report import bound_messages
from fpsolve.app.report_bounds import CERTIFICATE, bounds_summary, bounds_table, width_messages
from fpsolve.app.report_questions import question_messages
from fpsolve.app.run import Command, Extra, Settings, run, without_schedule
from fpsolve.errors import InputError
from fpsolve.fem.parallel import on_root
from fpsolve.model.domains import Domain
from fpsolve.model.process import Process
from fpsolve.theory.bounds import Bound, all_bounds
from fpsolve.theory.certified.certify import certify

if TYPE_CHECKING:
    from fpsolve.theory.certified.certify import CertifiedEnclosure

log = logging.getLogger("fpsolve")


@dataclass(frozen=True)
class BoundsAnswer:
    """All that the bounds command found; the same on every rank.

    Attributes
    ----------
    starts : ndarray, shape (k, d)
    bounds : list of Bound
        The paper's, the sharp and the certified ones, lower before upper; also those that do not apply.
    enclosure : CertifiedEnclosure
        The best of them at the starts.
    further : FurtherBounds
        What else was asked.
    """

    case: Case
    process: Process
    domain: Domain
    comm: MPI.Comm
    starts: np.ndarray
    bounds: list[Bound]
    enclosure: CertifiedEnclosure
    seconds: float
    messages: list[str] = field(default_factory=list)
    further: FurtherBounds = field(default_factory=FurtherBounds)

    unknowns: int = 0
    cells: int = 0
    scheme: str = "none"
    degree: int = 0
    solver: str = "polynomials, inequalities proved in Arb balls"

    @property
    def converged(self) -> bool:
        """Whether the width asked for was reached."""
        return self.enclosure.reached

    @property
    def finite(self) -> bool:
        """Whether there is an upper bound at some start."""
        return any(math.isfinite(start.upper) for start in self.enclosure.starts)

    @property
    def exit_code(self) -> int:
        """0; 3 when the enclosure is wider than asked; 4 when there is no upper bound at any start."""
        if not self.finite:
            return 4
        return 0 if self.enclosure.reached else 3


def answer_bounds(case: Case, comm: MPI.Comm, directory: Path | None = None) -> BoundsAnswer:
    """Answer the questions of a case. Collective.

    Where more than the mean exit time is asked, its search ends after half of the budget; the other questions share
    what is left of it (`further_bounds`).

    Parameters
    ----------
    directory : Path, optional
        Of the results; an older certificate there is removed.

    Raises
    ------
    InputError
        On every rank.
    """
    began = time.perf_counter()
    if directory is not None:
        on_root(comm, lambda: (directory / CERTIFICATE).unlink(missing_ok=True))
    _refuse(case)
    process, domain, starts = build(case, comm)
    x = np.array(starts, dtype=float).reshape(-1, process.dimension)
    asked = case.bounds
    check_parts(asked, domain)
    log.info("paper's and sharp bounds")
    # their searches have time budgets, so ranks could find different ones
    bounds = on_root(comm, lambda: all_bounds(process, domain, ("paper", "sharp")))
    started = time.monotonic()
    effort = asked.budget * (MEAN_SHARE if count_questions(asked) else 1.0)
    log.info("certified bounds: relative width %g asked, at most %g s", asked.width, effort)
    enclosure = on_root(comm, lambda: certify(process, domain, asked.width, effort, x))
    enclosure = intersected(enclosure, bounds, asked.width)
    bounds += [enclosure.lower, enclosure.upper]
    means, left = [(start.lower, start.upper) for start in enclosure.starts], asked.budget - time.monotonic() + started
    further = on_root(comm, lambda: further_bounds(process, domain, x, asked, means, left))
    messages = [*without_schedule(case), *model_messages(process.landscape, domain)]
    # the other reasons are those of the whole enclosure, said once
    messages += bound_messages([b for b in bounds if b.name != "certified" or b.reason != enclosure.limited_by])
    seconds = time.perf_counter() - began
    answer = BoundsAnswer(case, process, domain, comm, x, bounds, enclosure, seconds, messages, further)
    messages += [*width_messages(answer), *question_messages(answer)]
    return answer


def intersected(enclosure: CertifiedEnclosure, bounds: Sequence[Bound], asked: float) -> CertifiedEnclosure:
    """Return the enclosure with better bounds at the starts taken over from others."""
    starts = list(enclosure.starts)
    for bound in bounds:
        values = bound.evaluate(np.array([start.x for start in starts])) if bound.verified else ()
        for i, value in enumerate(values):
            if bound.kind == "lower" and value > starts[i].lower:
                starts[i] = replace(starts[i], lower=float(value), lower_from=bound.name)
            if bound.kind == "upper" and value < starts[i].upper:
                starts[i] = replace(starts[i], upper=float(value), upper_from=bound.name)
    width = max(start.width for start in starts)
    reached = width <= asked
    reason = "" if reached else enclosure.limited_by
    return replace(enclosure, starts=tuple(starts), width=width, reached=reached, limited_by=reason)


def _refuse(case: Case) -> None:
    """Raise InputError for what no certified bound is about."""
    if case.domain.shape == "mesh":
        expected = "interval, box, ball or sublevel"
        remedy = "A mesh file has no formula for its boundary; 'fpsolve exit' answers with an error estimate."
        raise InputError("domain.shape", "mesh", expected, remedy)
    if case.process.momentum is not None:
        remedy = "Bounds are about the first-order diffusion; 'fpsolve exit' answers with an error estimate."
        raise InputError("process.momentum", case.process.momentum, "no momentum", remedy)


def run_bounds(case: Case, comm: MPI.Comm, settings: Settings) -> int:
    """Run the bounds command and return its exit code; see `fpsolve.app.run.run`. Collective."""
    command = Command(lambda place: answer_bounds(case, comm, place), bounds_summary, bounds_table, _extras)
    return run(command, case, comm, settings)


def _extras(answer: BoundsAnswer, directory: Path) -> list[Extra]:
    figure = Extra("figures", "fpsolve.app.figure_bounds", "bounds_figure", (answer, directory))
    if answer.enclosure.certificate is None:
        return [figure]
    return [Extra("certificate", "fpsolve.app.report_bounds", "write_certificate", (answer, directory)), figure]
