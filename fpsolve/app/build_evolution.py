"""From a checked case file to the question of an evolution: process, domain, initial datum, schedule, options."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from mpi4py import MPI

import numpy as np

from fpsolve.app.build import build_domain, build_process
from fpsolve.app.case import Case, ProcessCase
from fpsolve.app.case_evolution import BackwardCase, EvolveCase, InitialCase, needed
from fpsolve.errors import InputError
from fpsolve.fem.parallel import on_root
from fpsolve.model.domains import Domain
from fpsolve.model.expressions import Formula
from fpsolve.model.initial import DensityStart, GaussianStart, Initial, PointStart, StateStart
from fpsolve.model.process import Process
from fpsolve.model.schedule import Schedule, schedule_from


@dataclass(frozen=True)
class Timed:
    """What the evolve and backward commands ask.

    Attributes
    ----------
    initial : Initial or None
    times : tuple of float
    options : dict
        Keyword arguments that `evolve` and `backward` share.
    """

    process: Process
    domain: Domain
    initial: Initial | None
    times: tuple[float, ...]
    options: dict[str, Any]


def build_timed(case: Case, name: str, comm: MPI.Comm, *required: str) -> Timed:
    """Return the question of the section [evolve] or [backward], which must have the required keys. Collective.

    Raises
    ------
    InputError
        On every rank, if a formula, file, shape or value cannot be used.
    """
    section: EvolveCase | BackwardCase = getattr(case, name)
    needed(name, section, *required)
    assert section.times is not None  # always needed
    process = build_process(case.process, comm)
    domain = build_domain(case.domain, process, comm)
    initial = None
    if section.initial is not None:
        initial = on_root(comm, partial(build_initial, section.initial, process, name))
    options = {
        "boundary": section.boundary,
        "schedule": build_schedule(case.process, process, section.times[-1]),
        "step": section.step,
        "order": section.order,
        **vars(case.mesh),
    }
    return Timed(process, domain, initial, section.times, options)


def build_initial(case: InitialCase, process: Process, section: str) -> Initial:
    """Return the initial datum. Not collective. Raises InputError."""
    key = f"{section}.initial"
    if case.state is not None:
        if not case.state.is_file():
            raise InputError(f"{key}.state", str(case.state), "the state.npz of an earlier run")
        return StateStart(case.state)
    if case.density is not None:
        return DensityStart(Formula.parse(case.density, process.variables, f"{key}.density"))
    if case.point is not None:
        return PointStart(case.point)
    assert case.mean is not None and case.covariance is not None  # read together
    spread = np.array(case.covariance, dtype=float)
    matrix = np.diag(np.broadcast_to(spread, len(case.mean))) if spread.ndim < 2 else spread
    try:
        return GaussianStart(case.mean, tuple(tuple(float(c) for c in row) for row in matrix))
    except InputError as error:
        raise InputError(f"{key}.covariance", case.covariance, error.expected, error.remedy) from None


def build_schedule(case: ProcessCase, process: Process, until: float) -> Schedule:
    """Return ε² in time, checked up to the last time. Not collective. Raises InputError."""
    if case.schedule is None:
        return Schedule()
    rate, batch = case.schedule.learning_rate, case.schedule.batch_size
    if process.epsilon2 is None or not process.epsilon2 > 0 or case.learning_rate is None:
        remedy = "Only ε² = η/(2b) of plain SGD can change in time."
        raise InputError("process.schedule", _given(case), "a process with a loss and a learning_rate", remedy)
    return schedule_from(
        case.learning_rate if rate is None else rate,
        (case.batch_size or 1) if batch is None else batch,
        process.epsilon2,
        until=until,
    )


def _given(case: ProcessCase) -> dict[str, Any]:
    schedule = case.schedule
    assert schedule is not None
    return {key: value for key, value in vars(schedule).items() if value is not None}
