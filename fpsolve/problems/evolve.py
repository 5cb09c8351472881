"""The Fokker-Planck equation ``∂_t ρ = A*ρ = div(a∇ρ + βρ)`` (paper (3); mathematics.md section 1)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np

from fpsolve.errors import InputError
from fpsolve.fem.generator import Generator
from fpsolve.fem.meshing import Triangulation
from fpsolve.model.domains import Domain
from fpsolve.model.initial import GaussianStart, Initial
from fpsolve.model.process import Process
from fpsolve.model.schedule import Schedule
from fpsolve.problems.checkpoint import Checkpointer, record_from_json, record_to_json
from fpsolve.problems.evolution import EvolveResult, Record
from fpsolve.problems.evolve_level import LevelRun, run_level
from fpsolve.problems.monitors import Monitors, truncation_warning
from fpsolve.problems.reference import Reference, known_reference
from fpsolve.problems.timed_request import TimedRequest, timed_request

log = logging.getLogger("fpsolve")

#: Halving the mesh divides the error of schemes of second order by 4: the change is 3 times the new error.
#: Smoother solutions converge faster, so that the estimate is then on the safe side.
CONTROL = 1.0 / 3.0
#: Cells across the domain on the coarsest mesh, by dimension.
ACROSS = {1: 24, 2: 14, 3: 8}


def evolve(
    process: Process,
    domain: Domain,
    initial: Initial,
    times: Sequence[float],
    *,
    comm: MPI.Comm,
    observables: Sequence[str] = (),
    boundary: str = "no-flux",
    schedule: Schedule | None = None,
    scheme: str | None = None,
    degree: int | None = None,
    nonnegative: bool | None = None,
    size: float | None = None,
    tolerance: float | None = None,
    step: float | None = None,
    order: int | None = None,
    reference: Reference | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 60.0,
    restart: bool = False,
    max_unknowns: int | None = None,
) -> EvolveResult:
    """Return the density of the parameters at given times. Collective.

    Parameters
    ----------
    process, domain
        The diffusion and the domain on which it is looked at (truncated, or left through its boundary).
    initial : GaussianStart, DensityStart, PointStart or StateStart
    times : sequence of float
        When the density is stored; in units in which one SGD step lasts η (√η with momentum).
    observables : formulas g
        ∫gρ is recorded.
    boundary : "no-flux" or "absorbing"
        Absorbing: through the parts of the boundary that are not in ``domain.reflecting`` and where the process
        can leave; the mass is then the probability P(τ > t).
    schedule : Schedule, optional
        ε² in time.
    scheme : "dg", "cg" or "sg", optional
        High-order discontinuous or continuous elements, or Scharfetter-Gummel weights (Q = qI). All are exactly
        conservative and dual to the backward equation; none keeps ρ >= 0.
    nonnegative : bool, optional
        Flux-corrected linear elements: ρ >= 0 and mass to rounding, of second order where ρ is smooth; not dual.
        The default is True for a `PointStart` (no oscillations) and False otherwise.
    size, tolerance : float, optional
        Mesh size, or error asked of mean (relative to the standard deviation), covariance (to its largest entry),
        observables and mass (absolute), reached by halving the mesh and estimated from the last halving. Both:
        `size` is that of the first mesh. Neither: tolerance 1e-4.
    step : float, optional
        Fixed time step (order 2: Crank-Nicolson with Rannacher's start, one solve per step). Otherwise steps are
        chosen such that each one's estimated local error stays below a tenth of the tolerance.
    order : 1 to 4, optional
        Of the L-stable method; default 4, and 2 for the nonnegative scheme.
    reference : Reference, optional
        ρ∞ for entropies; known for Q = qI with a loss, for momentum with Q = qI and for linear drift.
    checkpoint : Path, optional
        Directory for checkpoints, written every `checkpoint_seconds` and at each stored time.
    restart : bool
        Go on from the checkpoint there.

    Raises
    ------
    InputError, NotConverged
        On every rank.
    """
    positive = _positivity(initial, scheme, degree) if nonnegative is None else nonnegative
    request = timed_request(
        process, domain, "evolve", times, boundary=boundary, schedule=schedule, scheme=scheme, degree=degree,
        nonnegative=positive, size=size, tolerance=tolerance, step=step, order=order, max_unknowns=max_unknowns,
    )  # fmt: skip
    question = _Question(process, domain, initial, tuple(observables), request, reference, comm)
    files = None
    if checkpoint is not None:
        files = Checkpointer(Path(checkpoint), checkpoint_seconds, question.settings(), comm, restart)
    elif restart:
        raise InputError("restart", restart, "a checkpoint directory with it")
    last, errors, converged = _levels(question, files)
    return _result(question, last, errors, converged)


def _positivity(initial: Initial, scheme: str | None, degree: int | None) -> bool:
    """A point without oscillations needs the nonnegative scheme, unless another one is asked for."""
    from fpsolve.model.initial import PointStart

    return isinstance(initial, PointStart) and scheme in (None, "sg") and degree in (None, 1)


@dataclass(frozen=True)
class _Question:
    process: Process
    domain: Domain
    initial: Initial
    observables: tuple[str, ...]
    request: TimedRequest
    reference: Reference | None
    comm: MPI.Comm

    def settings(self) -> dict[str, Any]:
        """Return what decides the result, as plain data."""
        r = self.request
        return {
            "variables": list(self.process.variables),
            "epsilon2": self.process.epsilon2,
            "domain": repr(self.domain),
            "initial": repr(self.initial),
            "observables": list(self.observables),
            "times": list(r.times),
            "boundary": r.boundary,
            "schedule": repr(r.schedule),
            "scheme": r.scheme,
            "degree": r.degree,
            "nonnegative": r.nonnegative,
            "size": r.size,
            "tolerance": r.tolerance,
            "step": r.step,
            "method": r.method.name,
        }

    def monitors(self, triangulation: Triangulation, generator: Generator) -> Monitors:
        """Return what observes the density on a mesh. Collective."""
        reference = self.reference or known_reference(self.process, self.domain, generator)
        return Monitors(self.process, self.domain, triangulation, generator, self.observables, reference)


def _levels(question: _Question, files: Checkpointer | None) -> tuple[LevelRun, dict[str, np.ndarray], bool]:
    """Solve on meshes halved until the change meets the tolerance. Collective."""
    request = question.request
    size = _first_size(question)
    previous: tuple[Record, ...] | None = None
    if files is not None:
        for entry in files.previous():
            previous = tuple(record_from_json(record) for record in entry["records"])
            size = entry["size"] / 2
            files.finished(entry)
    while True:
        control = request.tolerance is not None and previous is None
        log.info("mesh size %.4g, %s of degree %d", size, request.scheme, request.degree)
        run = run_level(
            question.process, question.domain, question.initial, question.observables, request, size, control,
            question.comm, question.monitors, files,
        )  # fmt: skip
        if request.tolerance is None:
            return run, {}, True
        if previous is not None:
            errors = _changes(previous, run.records)
            worst = _worst(errors, run.records)
            log.info("%d unknowns, %d steps, error %.2e", run.unknowns, len(run.progress.steps), worst)
            if worst <= request.tolerance:
                return run, errors, True
            if run.unknowns * 2**question.process.dimension > request.max_unknowns:
                return run, errors, False
        previous = run.records
        if files is not None:
            files.finished({"size": size, "records": [record_to_json(record) for record in run.records]})
        size /= 2


def _first_size(question: _Question) -> float:
    request, d = question.request, question.process.dimension
    if request.size is not None:
        return request.size * (2.0 if request.tolerance is not None else 1.0)
    lower, upper = question.domain.bounding_box()
    size = float(np.max(upper - lower)) / ACROSS[d]
    if isinstance(question.initial, GaussianStart):
        width = float(np.sqrt(np.linalg.eigvalsh(np.array(question.initial.covariance))[0]))
        volume = float(np.prod(upper - lower))
        affordable = (8 * volume / request.max_unknowns) ** (1 / d) * 4
        size = min(size, max(2 * width, affordable))
    return size


def _changes(coarse: Sequence[Record], fine: Sequence[Record]) -> dict[str, np.ndarray]:
    """Return the estimated errors of the finer records."""
    names = ("mean", "covariance", "observables", "mass")
    return {
        name: CONTROL
        * np.array([np.abs(getattr(f, name) - getattr(c, name)) for c, f in zip(coarse, fine, strict=True)])
        for name in names
    }


def _worst(errors: dict[str, np.ndarray], records: Sequence[Record]) -> float:
    """Return the largest error in the measures of the tolerance."""
    largest = np.array([np.abs(record.covariance).max() for record in records])
    measured = [
        (errors["mean"].max(axis=1) / np.sqrt(np.maximum(largest, 1e-300))).max(),
        (errors["covariance"].max(axis=(1, 2)) / np.maximum(largest, 1e-300)).max(),
        errors["mass"].max(),
    ]
    if errors["observables"].size:
        values = np.abs([record.observables for record in records]).max(axis=0)
        measured.append((errors["observables"].max(axis=0) / np.maximum(values, 1e-300)).max())
    return float(max(measured))


def _result(question: _Question, run: LevelRun, errors: dict[str, np.ndarray], converged: bool) -> EvolveResult:
    request = question.request
    messages = list(run.messages)
    if request.boundary == "no-flux":
        warning = truncation_warning(run.records, question.domain, question.process)
        messages += [warning] if warning else []
    if not converged:
        messages.append(
            f"warning: the estimated error exceeds the tolerance {request.tolerance:g} at {run.unknowns} unknowns; "
            "raise mesh.max_unknowns or mesh.tolerance"
        )
    return EvolveResult(
        process=question.process,
        domain=question.domain,
        comm=question.comm,
        triangulation=run.triangulation,
        boundary=run.boundary,
        initial=question.initial,
        boundary_condition=request.boundary,
        schedule=request.schedule,
        scheme=request.scheme,
        degree=request.degree,
        order=request.method.order,
        nonnegative=request.nonnegative,
        unknowns=run.unknowns,
        cells=_cells(run.triangulation),
        solver=f"{run.solver}; {request.method.name}",
        observables=question.observables,
        records=run.records,
        densities=run.densities,
        errors=errors,
        steps=tuple(run.progress.steps),
        rejected=run.progress.rejected,
        tolerance=request.tolerance,
        converged=converged,
        cost=run.cost,
        minima=run.minima,
        reference=question.reference,
        messages=tuple(messages),
    )


def _cells(triangulation: Triangulation) -> int:
    topology = triangulation.mesh.topology
    return int(topology.index_map(topology.dim).size_global)
