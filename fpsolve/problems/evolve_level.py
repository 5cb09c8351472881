"""The Fokker-Planck equation on one mesh: from the initial datum through all stored times."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from mpi4py import MPI
from petsc4py import PETSc

import numpy as np
from dolfinx import fem

from fpsolve.fem.boundary import Boundary
from fpsolve.fem.family import make_family
from fpsolve.fem.limited import LimitedStepper
from fpsolve.fem.meshing import Triangulation, make_mesh
from fpsolve.fem.start import start_load, start_vector
from fpsolve.fem.stepping import LinearStepper, System
from fpsolve.model.domains import Domain
from fpsolve.model.initial import Initial
from fpsolve.model.process import Process
from fpsolve.problems.checkpoint import Checkpointer
from fpsolve.problems.evolution import Cost, Record
from fpsolve.problems.march import Plan, Progress, march
from fpsolve.problems.monitors import Monitors
from fpsolve.problems.timed_request import TimedRequest

#: Degrees of the geometry of curved domains that the mesher offers.
MAX_GEOMETRY = {1: 1, 2: 5, 3: 3}


@dataclass(frozen=True)
class Discrete:
    """A mesh with the semi-discrete equations on it."""

    triangulation: Triangulation
    system: System

    @property
    def boundary(self) -> Boundary:
        """The classified boundary."""
        return self.system.generator.boundary

    def destroy(self) -> None:
        """Free the PETSc objects. Collective."""
        self.system.destroy()


def discretise_evolution(
    process: Process, domain: Domain, size: float, request: TimedRequest, comm: MPI.Comm
) -> Discrete:
    """Mesh the domain and assemble. Collective."""
    order = 1 if request.degree == 1 else min(request.degree + 1, MAX_GEOMETRY[process.dimension])
    triangulation = make_mesh(domain, size, order, comm)
    reflecting = tuple(triangulation.parts) if request.reflecting is None else request.reflecting
    largest = None if request.schedule.constant else request.schedule.largest(request.times[-1])
    family = make_family(process, triangulation, reflecting, request.scheme, request.degree, largest)
    return Discrete(triangulation, System(family))


def cost(system: System, comm: MPI.Comm, began: float, monitoring: float, assembly: float) -> Cost:
    """Return where the time went, maxima over the ranks. Collective."""
    seconds, counts = system.meter.seconds, system.meter.counts
    mine = [seconds.get("factorisation", 0.0), seconds.get("solve", 0.0), monitoring, assembly]
    longest = np.max(comm.allgather([*mine, time.perf_counter() - began]), axis=0)
    return Cost(
        assembly=float(longest[3]),
        factorisations=counts.get("factorisation", 0),
        factorisation=float(longest[0]),
        solves=counts.get("solve", 0),
        solving=float(longest[1]),
        monitoring=float(longest[2]),
        total=float(longest[4]),
    )


@dataclass(frozen=True)
class LevelRun:
    """What one mesh gave.

    Attributes
    ----------
    records, densities
        At t = 0 and the stored times.
    """

    triangulation: Triangulation
    boundary: Boundary
    size: float
    records: tuple[Record, ...]
    densities: tuple[fem.Function, ...]
    progress: Progress
    unknowns: int
    solver: str
    minima: np.ndarray
    cost: Cost
    messages: tuple[str, ...]


class Recorder:
    """Records and densities at the stored times, with the time that took."""

    def __init__(
        self, monitors: Monitors, times: tuple[float, ...], theta: Callable[[float], float], system: System
    ) -> None:
        self.monitors = monitors
        self.system = system
        self.times = times
        self.theta = theta
        self.records: list[Record] = []
        self.densities: list[fem.Function] = []
        self.seconds = 0.0

    def __call__(self, t: float, y: PETSc.Vec) -> None:
        """Record the density y at time t, if it is to be stored. Collective."""
        if t != 0.0 and t not in self.times:
            return
        began = time.perf_counter()
        theta = self.theta(t)
        self.records.append(self.monitors.record(t, y, theta, self.system.family.at(theta)))
        self.densities.append(self.monitors.generator.to_function(y, "density"))
        self.seconds += time.perf_counter() - began


def run_level(
    process: Process,
    domain: Domain,
    initial: Initial,
    observables: tuple[str, ...],
    request: TimedRequest,
    size: float,
    control: bool,
    comm: MPI.Comm,
    make_monitors: Callable[..., Monitors],
    checkpoint: Checkpointer | None = None,
) -> LevelRun:
    """Solve on one mesh, with longer steps for a control run. Collective. Raises InputError, NotConverged."""
    began = time.perf_counter()
    discrete = discretise_evolution(process, domain, size, request, comm)
    system = discrete.system
    assembly = time.perf_counter() - began
    load, messages = start_load(initial, system.generator, process, domain, request.nonnegative)
    before = time.perf_counter()
    monitors = make_monitors(discrete.triangulation, system.generator)
    recorder = Recorder(monitors, request.times, request.schedule.final, system)
    recorder.seconds = time.perf_counter() - before
    linear = LinearStepper(system, request.method)
    stepper = LimitedStepper(system, linear) if request.nonnegative else linear
    plan = Plan(request.stops, request.method, request.cap, request.step, request.schedule, control)
    progress = Progress()
    resumed = checkpoint.resume(system.generator) if checkpoint is not None else None
    if resumed is not None:
        progress, y, recorder.records, recorder.densities = resumed
    else:
        y = start_vector(load, system.generator, lumped=request.nonnegative)
        recorder(0.0, y)
    first = first_step(system, y, plan) if progress.size is None else 1.0

    def at_stop(number: int, vector: PETSc.Vec) -> None:
        recorder(plan.stops[number], vector)

    def after_step(vector: PETSc.Vec) -> None:
        if checkpoint is not None:
            checkpoint.after_step(progress, vector, recorder.records, recorder.densities, system.generator)

    y = march(stepper, y, plan, first, progress, at_stop, after_step)
    result = LevelRun(
        triangulation=discrete.triangulation,
        boundary=discrete.boundary,
        size=size,
        records=tuple(recorder.records),
        densities=tuple(recorder.densities),
        progress=progress,
        unknowns=system.generator.unknowns,
        solver=system.describe(),
        minima=monitors.minima,
        cost=cost(system, comm, began, recorder.seconds, assembly),
        messages=(*messages, *monitors.messages),
    )
    for thing in (y, load):
        thing.destroy()
    monitors.destroy()
    if stepper is not linear:
        stepper.destroy()
    discrete.destroy()
    return result


def first_step(system: System, y: PETSc.Vec, plan: Plan) -> float:
    """Return a first step to try, from the speed ‖M⁻¹Bᵀρ‖/‖ρ‖ at which the density begins to change. Collective.

    The speed of a rough datum is that of the mesh. The estimate errs on the short side: a step that proves
    too short is lengthened without being repeated.
    """
    if plan.tolerance is None:
        return plan.stops[-1]  # fixed steps are not tried
    rate, mass_inverse = y.duplicate(), y.duplicate()
    system.matrix(plan.schedule.theta(0.0, 0.0)).multTranspose(y, rate)
    # the diagonal of M is enough for a guess
    system.mass.getDiagonal(mass_inverse)
    mass_inverse.reciprocal()
    rate.pointwiseMult(rate, mass_inverse)
    speed = rate.norm() / max(y.norm(), 1e-300)
    for vector in (rate, mass_inverse):
        vector.destroy()
    order = plan.method.order
    return float((order * plan.tolerance) ** (1.0 / order) / speed) if speed > 0 else plan.stops[-1]
