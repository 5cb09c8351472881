"""The landscape command: critical points of the loss, heights between minima, basins; and what is written."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np

from fpsolve.app.build import build_domain, build_process
from fpsolve.app.case import Case
from fpsolve.app.model_messages import model_messages
from fpsolve.app.report_landscape import landscape_summary, landscape_table
from fpsolve.app.run import Command, Extra, Settings, run, without_schedule
from fpsolve.errors import InputError
from fpsolve.fem.parallel import on_root
from fpsolve.model.basins import find_minima
from fpsolve.model.condense import condensed
from fpsolve.model.covariance_rank import CovarianceSpectrum, covariance_spectrum
from fpsolve.model.domains import Box, Domain
from fpsolve.model.process import Process
from fpsolve.problems.basin_volumes import BasinVolumes, basin_volumes
from fpsolve.theory.critical import CriticalPoints, critical_points
from fpsolve.theory.heights import Heights, communication_heights

log = logging.getLogger("fpsolve")


@dataclass(frozen=True)
class LandscapeAnswer:
    """All that the landscape command found; the same on every rank.

    Attributes
    ----------
    spectrum : CovarianceSpectrum
        Of Q at the critical points.
    basins : BasinVolumes or None
        None where not asked, or there are no minima.
    """

    case: Case
    process: Process
    comm: MPI.Comm
    critical: CriticalPoints
    heights: Heights
    spectrum: CovarianceSpectrum
    basins: BasinVolumes | None
    seconds: float
    messages: list[str] = field(default_factory=list)

    unknowns: int = 0
    scheme: str = "none"
    degree: int = 0
    solver: str = "Krawczyk's operator and branch and bound in Arb balls"

    @property
    def cells(self) -> int:
        """Of the mesh for the basins."""
        return 0 if self.basins is None else self.basins.cells

    @property
    def converged(self) -> bool:
        """Whether the list of critical points is proved to be complete."""
        return self.critical.complete

    @property
    def exit_code(self) -> int:
        """0: a list that may be incomplete is an answer too, and says so."""
        return 0


def answer_landscape(case: Case, comm: MPI.Comm) -> LandscapeAnswer:
    """Answer the question of a case. Collective.

    Raises
    ------
    InputError
        On every rank.
    """
    began = time.perf_counter()
    section = case.landscape
    process = build_process(case.process, comm)
    if process.landscape is None:
        remedy = "The landscape is that of the parameters: leave momentum out, or give a loss instead of a drift."
        raise InputError("process", list(process.variables), "a process with a loss", remedy)
    domain = build_domain(case.domain, process, comm) if section.box is None else Box(*section.box)
    given: dict[str, Any] = {key: getattr(section, key) for key in ("boxes", "budget")}
    given = {key: value for key, value in given.items() if value is not None}
    log.info("critical points")

    def prove() -> tuple[CriticalPoints, Heights]:
        points = critical_points(process, domain, certify=section.certify, **given)
        log.info("heights between %d minima", len(points.minima))
        between = communication_heights(points, process, certify=section.certify, budget=given.get("budget", 20.0))
        return replace(points, landscape=None, domain=None), between  # type: ignore[arg-type]  # all ranks have them

    critical, between = on_root(comm, prove)
    critical = replace(critical, landscape=process.landscape, domain=domain)
    x = np.array([p.x for p in critical.points]).reshape(-1, process.dimension)
    spectrum = covariance_spectrum(process.landscape, x)
    basins = None
    if section.basins:
        minima = on_root(comm, lambda: attractors(critical, process, domain))
        log.info("basins of %d minima", len(minima))
        basins = basin_volumes(process, domain, minima, comm=comm, size=case.mesh.size) if len(minima) else None
    messages = [*without_schedule(case), *model_messages(process.landscape, domain), *_messages(critical, between)]
    return LandscapeAnswer(
        case, process, comm, critical, between, spectrum, basins, time.perf_counter() - began, messages
    )


def attractors(critical: CriticalPoints, process: Process, domain: Domain) -> np.ndarray:
    """Return the minima that have basins, (k, d); where some points are degenerate, those of a search. Not collective.

    The minima of a continuum are represented by one point, as in `fpsolve.model.basins`.
    """
    if any(p.kind == "degenerate" for p in critical.points):
        assert process.landscape is not None  # the caller has looked
        return find_minima(replace(process, landscape=condensed(process.landscape)), domain)
    return np.array([p.x for p in critical.minima]).reshape(-1, process.dimension)


def _messages(critical: CriticalPoints, between: Heights) -> list[str]:
    messages = []
    if not critical.complete:
        undecided = critical.undecided
        where = ""
        if undecided.count > 0:
            corners = zip(undecided.lower.min(axis=0), undecided.upper.max(axis=0), strict=True)
            box = " × ".join(f"[{a:.4g}, {b:.4g}]" for a, b in corners)
            where = f"; undecided: {undecided.count} box(es), {undecided.share:.2g} of the volume, within {box}"
        messages.append(f"warning: the list of critical points may be incomplete: {critical.reason}{where}")
    if any(p.kind == "degenerate" for p in critical.points):
        messages.append("degenerate points: D²L is singular there; where they are not isolated, one of them is listed")
    inexact = sorted({h.reason for h in between.pairs if h.reason})
    messages += [f"heights are upper bounds: {reason}" for reason in inexact]
    if any(h.times is not None for h in between.pairs):
        messages.append("Eyring-Kramers times are a law for ε² → 0, to compare with, not an answer: see 'fpsolve exit'")
    return messages


def run_landscape(case: Case, comm: MPI.Comm, settings: Settings) -> int:
    """Run the landscape command and return its exit code; see `fpsolve.app.run.run`. Collective."""
    command = Command(lambda _: answer_landscape(case, comm), landscape_summary, landscape_table, _extras)
    return run(command, case, comm, settings)


def _extras(answer: LandscapeAnswer, directory: Path) -> list[Extra]:
    return [Extra("figures", "fpsolve.app.figure_landscape", "landscape_figures", (answer, directory))]
