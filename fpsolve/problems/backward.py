"""The backward Kolmogorov equation ``∂_t u = A u``, ``u(0) = φ``: ``u(t, x) = E_x φ(X_t)`` (mathematics.md 1)."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mpi4py import MPI
from petsc4py import PETSc

import numpy as np
from dolfinx import fem

from fpsolve.errors import InputError
from fpsolve.fem.functionals import expectation_loads
from fpsolve.fem.points import evaluate, locate
from fpsolve.fem.start import start_load, start_vector
from fpsolve.fem.stepping import LinearStepper, System
from fpsolve.model.domains import Domain
from fpsolve.model.expressions import Formula
from fpsolve.model.initial import DensityStart, Initial
from fpsolve.model.process import Process
from fpsolve.model.schedule import Schedule
from fpsolve.problems.evolution import BackwardResult, Cost, Step
from fpsolve.problems.evolve import ACROSS, CONTROL
from fpsolve.problems.evolve_level import cost, discretise_evolution, first_step
from fpsolve.problems.march import Plan, Progress, march, replay, starting, with_methods
from fpsolve.problems.request import as_points
from fpsolve.problems.timed_request import TimedRequest, timed_request

log = logging.getLogger("fpsolve")


def backward(
    process: Process,
    domain: Domain,
    terminal: str,
    times: Sequence[float],
    *,
    comm: MPI.Comm,
    points: Sequence[Sequence[float]] | None = None,
    initial: Initial | None = None,
    boundary: str = "no-flux",
    schedule: Schedule | None = None,
    scheme: str | None = None,
    degree: int | None = None,
    size: float | None = None,
    tolerance: float | None = None,
    step: float | None = None,
    order: int | None = None,
    max_unknowns: int | None = None,
) -> BackwardResult:
    """Return u(t, x) = E_x φ(X_t), with absorbing boundary of φ(X_t) for paths still inside. Collective.

    Parameters
    ----------
    terminal : formula
        φ.
    times : sequence of float
        When u is wanted; one SGD step lasts η.
    points : (n, d), optional
        Where; the middle of the domain by default.
    initial : Initial, optional
        ρ₀ for the test of duality, ``∫ρ(t)φ = ∫ρ₀u(t)``; the uniform density by default. The Fokker-Planck
        equation is then solved with the same steps, which costs as much again.
    boundary, schedule, scheme, degree, size, tolerance, step, order, max_unknowns
        As in `fpsolve.problems.evolve.evolve`; the tolerance is relative to the largest |u| at the points. With a
        schedule u(t, ·) starts at the time 0 of the schedule, and every stored time is a run of its own.

    Raises
    ------
    InputError, NotConverged
        On every rank.
    """
    request = timed_request(
        process, domain, "backward", times, boundary=boundary, schedule=schedule, scheme=scheme, degree=degree,
        size=size, tolerance=tolerance, step=step, order=order, max_unknowns=max_unknowns,
    )  # fmt: skip
    lower, upper = domain.bounding_box()
    x = as_points([(lower + upper) / 2] if points is None else points, process.dimension, "backward.points")
    if not domain.contains(x).all():
        outside = x[~domain.contains(x)][0].tolist()
        raise InputError("backward.points", outside, "points inside the domain")
    phi = Formula.parse(terminal, process.variables, "backward.terminal")
    start = initial or DensityStart(Formula.parse("1", process.variables, "backward.initial"))
    question = _Question(process, domain, phi, start, x, request, comm)
    level, errors, converged = _levels(question)
    return _result(question, str(terminal), level, errors, converged)


@dataclass(frozen=True)
class _Question:
    process: Process
    domain: Domain
    terminal: Formula
    initial: Initial
    points: np.ndarray
    request: TimedRequest
    comm: MPI.Comm


@dataclass(frozen=True)
class _Level:
    result: dict[str, object]
    values: np.ndarray
    fields: tuple[fem.Function, ...]
    defect: float
    steps: tuple[Step, ...]
    cost: Cost
    unknowns: int


def _levels(question: _Question) -> tuple[_Level, np.ndarray | None, bool]:
    """Solve on meshes halved until the change at the points meets the tolerance. Collective."""
    request, d = question.request, question.process.dimension
    lower, upper = question.domain.bounding_box()
    size = float(np.max(upper - lower)) / ACROSS[d] if request.size is None else request.size
    if request.size is not None and request.tolerance is not None:
        size *= 2
    previous: np.ndarray | None = None
    while True:
        control = request.tolerance is not None and previous is None
        log.info("mesh size %.4g, %s of degree %d", size, request.scheme, request.degree)
        level = _solve(question, size, control)
        if request.tolerance is None:
            return level, None, True
        if previous is not None:
            errors = CONTROL * np.abs(level.values - previous)
            worst = float(errors.max() / max(np.abs(level.values).max(), 1e-300))
            log.info("%d unknowns, %d steps, error %.2e", level.unknowns, len(level.steps), worst)
            if worst <= request.tolerance or level.unknowns * 2**d > request.max_unknowns:
                return level, errors, worst <= request.tolerance
        previous = level.values
        size /= 2


def _solve(question: _Question, size: float, control: bool) -> _Level:
    """Solve on one mesh and test duality. Collective."""
    began = time.perf_counter()
    request, comm = question.request, question.comm
    discrete = discretise_evolution(question.process, question.domain, size, request, comm)
    system, generator = discrete.system, discrete.system.generator
    assembly = time.perf_counter() - began
    whole = expectation_loads(generator, [lambda x: question.terminal(x).reshape(-1)])[0]
    phi = generator.restrict(whole)
    whole.destroy()
    load, _ = start_load(question.initial, generator, question.process, question.domain)
    location = locate(discrete.triangulation.mesh, question.points)
    u0 = start_vector(phi, generator, lumped=False)
    fields = [generator.to_function(u0, "u")]
    defects: list[float] = [0.0]
    steps: tuple[Step, ...] = ()
    runs = [request.times] if request.schedule.constant else [(t,) for t in request.times]
    for times in runs:
        dual = _Dual(system, request, load, phi)
        taken, reached = _march(system, u0, replace(request, times=times), control, dual)
        steps = tuple(taken) if len(taken) >= len(steps) else steps
        fields += [generator.to_function(u, "u") for u in reached]
        defects += dual.finish(taken, reached[-1])
        for u in reached:
            u.destroy()
    values = np.array([evaluate(field, location) for field in fields])
    result = {
        "triangulation": discrete.triangulation,
        "boundary": discrete.boundary,
        "unknowns": generator.unknowns,
        "solver": f"{system.describe()}; {request.method.name}",
    }
    spent = cost(system, comm, began, 0.0, assembly)
    unknowns = generator.unknowns
    for vector in (phi, load, u0):
        vector.destroy()
    discrete.destroy()
    return _Level(result, values, tuple(fields), max(defects), steps, spent, unknowns)


def _march(
    system: System, u0: PETSc.Vec, request: TimedRequest, control: bool, dual: _Dual
) -> tuple[list[Step], list[PETSc.Vec]]:
    """Solve from u0, backwards through the schedule; return the steps and u at the stored times. Collective."""
    reached: list[PETSc.Vec] = []
    final = request.times[-1]
    jumps = tuple(sorted(final - t for t in request.schedule.breaks if t < final))
    schedule = request.schedule if request.schedule.constant else _Reversed(origin=request.schedule, end=final)
    stops = tuple(sorted({*request.times, *jumps}))
    plan = Plan(stops, request.method, request.cap, request.step, schedule, control)
    first = first_step(system, u0, plan)
    progress = Progress()

    def at_stop(number: int, u: PETSc.Vec) -> None:
        if stops[number] in request.times:
            reached.append(u.copy())

    def after_step(u: PETSc.Vec) -> None:
        dual.follow(progress.steps, progress.t in request.times, u)

    stepper = LinearStepper(system, request.method, forward=False)
    last = march(stepper, u0.copy(), plan, first, progress, at_stop, after_step)
    last.destroy()
    return progress.steps, reached


@dataclass(frozen=True)
class _Reversed(Schedule):
    """The schedule seen from a final time: θ at T - t."""

    origin: Schedule = field(default_factory=Schedule)
    end: float = 0.0

    def theta(self, t: float, dt: float) -> float:
        """Return θ at the midpoint of the step from T - t - dt to T - t."""
        return self.origin.theta(self.end - t - dt, dt)

    def variation(self, t: float, dt: float) -> float:
        """Return the variation of θ over that step."""
        return self.origin.variation(self.end - t - dt, dt)


class _Dual:
    """The forward equation solved with the same steps: ``|∫ρ(t)φ - ∫ρ₀u(t)|`` relative to ``∫|ρ(t)φ|``.

    Without a schedule all steps commute and ρ advances along with u, sharing every factorisation. With one the
    forward equation takes the steps in reverse order afterwards, and only the final time is compared.
    """

    def __init__(self, system: System, request: TimedRequest, load: PETSc.Vec, phi: PETSc.Vec) -> None:
        self.method, self.together = request.method, request.schedule.constant
        self.load, self.phi = load, phi
        self.forward = LinearStepper(system, request.method, forward=True)
        self.rho = start_vector(load, system.generator, lumped=False)
        self.defects: list[float] = []

    def follow(self, steps: Sequence[Step], stored: bool, u: PETSc.Vec) -> None:
        """Take the step that u has just taken; compare at stored times. Collective."""
        if not self.together:
            return
        self.rho = replay(self.forward, self.rho, [(steps[-1], starting(self.method, len(steps) - 1))])
        if stored:
            self._compare(u)

    def finish(self, steps: Sequence[Step], u: PETSc.Vec) -> list[float]:
        """Return the defects found. Collective."""
        if not self.together:
            self.rho = replay(self.forward, self.rho, list(reversed(with_methods(steps, self.method))))
            self._compare(u)
        self.rho.destroy()
        return self.defects

    def _compare(self, u: PETSc.Vec) -> None:
        self.defects.append(abs(self.phi.dot(self.rho) - self.load.dot(u)) / _scale(self.phi, self.rho))


def _scale(phi: PETSc.Vec, rho: PETSc.Vec) -> float:
    """Return Σ|φ_i ρ_i|: what the two sides are rounded against."""
    product = phi.duplicate()
    product.pointwiseMult(phi, rho)
    scale = float(product.norm(PETSc.NormType.NORM_1))
    product.destroy()
    return max(scale, 1e-300)


def _result(
    question: _Question, terminal: str, level: _Level, errors: np.ndarray | None, converged: bool
) -> BackwardResult:
    request = question.request
    messages = []
    if not converged:
        messages.append(
            f"warning: the estimated error exceeds the tolerance {request.tolerance:g} at {level.unknowns} unknowns; "
            "raise mesh.max_unknowns or mesh.tolerance"
        )
    triangulation = level.result["triangulation"]
    topology = triangulation.mesh.topology  # type: ignore[attr-defined]
    return BackwardResult(
        process=question.process,
        domain=question.domain,
        comm=question.comm,
        boundary_condition=request.boundary,
        terminal=terminal,
        points=question.points,
        times=np.array([0.0, *request.times]),
        values=level.values,
        errors=errors,
        fields=level.fields,
        duality_defect=level.defect,
        scheme=request.scheme,
        degree=request.degree,
        order=request.method.order,
        cells=int(topology.index_map(topology.dim).size_global),
        steps=level.steps,
        tolerance=request.tolerance,
        converged=converged,
        cost=level.cost,
        messages=tuple(messages),
        **level.result,  # type: ignore[arg-type]
    )
