"""How long until the process leaves a domain: mean exit time, its moments and their errors.

``-A u = 1`` in Ω, ``u = 0`` where the process can leave (mathematics.md section 1 and 3; paper (5)).
Higher moments: ``-A u_k = k u_{k-1}``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from mpi4py import MPI

import numpy as np
from dolfinx import fem, mesh

from fpsolve.errors import InputError
from fpsolve.fem.boundary import Boundary
from fpsolve.fem.coefficients import largest_peclet
from fpsolve.fem.generator import discretise
from fpsolve.fem.meshing import SizeField, Triangulation, make_mesh
from fpsolve.fem.points import Location, evaluate, locate
from fpsolve.fem.refine import edge_lengths, field_caps, next_sizes
from fpsolve.model.domains import Domain
from fpsolve.model.process import Process
from fpsolve.problems.gibbs import solve_gibbs_level
from fpsolve.problems.level import SAFETY, LevelAnswer, require_exit, solve_level
from fpsolve.problems.request import Request, as_points, checked_request
from fpsolve.problems.traps import require_motion, require_no_trap

log = logging.getLogger("fpsolve")

#: The last mesh may have this many times the unknowns at which refinement stops.
OVERSHOOT = 1.5
MAX_LEVELS = 20
#: Relative error up to which a level counts as near the answer.
RESOLVED = 0.5
#: Factor of all sizes after a level that brought nothing.
STAGNATION = 0.6
#: A level whose estimate was this much too small leaves the next level's in doubt.
UNTRUSTED = 10.0
#: Factor of the sizes at each level where an exit by drift ends: both degrees err alike there, unseen by the estimate.
SINGULAR = 0.3
#: Layers away from the asked points are resolved down to this part of the domain's extent.
SMALLEST_PICTURED = 50.0
#: Curved cells are made up to this order (fem/curved.py).
MAX_GEOMETRY = {1: 1, 2: 5, 3: 3}


@dataclass(frozen=True)
class Level:
    """One line of the refinement history: moments at the starts and their estimated errors, (starts, K)."""

    cells: int
    unknowns: int
    mean: np.ndarray
    error: np.ndarray
    seconds: float


@dataclass(frozen=True)
class ExitResult:
    """Answer to an exit-time question; every number is the same on every rank.

    Attributes
    ----------
    process, domain
        What was asked.
    starts : ndarray, shape (n, d)
    moments, error : ndarray, shape (n, K)
        E τ^k (k = 1..K) in units in which one SGD step lasts η, and their estimated errors.
    flux : ndarray, shape (n,)
        Computed total outflow probability before renormalisation: 1 unless rounding would have spoilt
        the plain solution.
    converged : bool
        Whether the asked tolerance is met, or an error of 10 % where none was asked.
    u, difference : Function
        The mean exit time as a field, and its estimated error (signed).
    levels : list of Level
    messages : list of str
    """

    process: Process
    domain: Domain
    comm: MPI.Comm
    scheme: str
    degree: int
    starts: np.ndarray
    moments: np.ndarray
    error: np.ndarray
    flux: np.ndarray
    converged: bool
    u: fem.Function
    difference: fem.Function
    boundary: Boundary
    triangulation: Triangulation
    solver: str
    unknowns: int
    cells: int
    levels: list[Level] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    @property
    def mean(self) -> np.ndarray:
        """E τ at the starts."""
        return self.moments[:, 0]

    @property
    def standard_deviation(self) -> np.ndarray:
        """The standard deviation of τ at the starts; needs two moments."""
        if self.moments.shape[1] < 2:
            raise InputError("exit.moments", self.moments.shape[1], "at least 2 for a variance")
        return np.sqrt(np.maximum(self.moments[:, 1] - self.moments[:, 0] ** 2, 0.0))

    def at(self, points: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
        """Return the mean exit time at points (n, d), nan outside the mesh. Collective."""
        where = locate(self.u.function_space.mesh, as_points(points, self.process.dimension, "points"))
        return evaluate(self.u, where)


def mean_exit_time(
    process: Process,
    domain: Domain,
    *,
    comm: MPI.Comm,
    starts: Sequence[Sequence[float]] | None = None,
    tolerance: float | None = None,
    size: float | None = None,
    scheme: str | None = None,
    degree: int | None = None,
    moments: int = 1,
    max_unknowns: int | None = None,
) -> ExitResult:
    """Compute the mean exit time of `process` from `domain`. Collective.

    Parameters
    ----------
    process, domain
        Dimension 1, 2 or 3.
    comm : MPI.Comm
    starts : list of points
        Where values are asked; the centre of the domain when not given.
    tolerance : float, optional
        Relative error asked at the starts; the mesh is refined where it helps until it is met.
    size : float, optional
        Mesh size; the start of the refinement when a tolerance is given too.
    scheme : "dg", "cg" or "sg", optional
        Discontinuous elements (default in 1D and 2D), continuous elements (default in 3D), or
        Scharfetter-Gummel weights (linear elements, Q a multiple of the identity).
    degree : int, optional
        Element degree p.
    moments : int
        How many moments of τ.
    max_unknowns : int, optional
        Where refinement stops.

    Raises
    ------
    InputError
        What was asked does not fit together.
    NoFiniteAnswer
        The process cannot leave, or never moves from a start.
    NotConverged
        A linear solver failed.
    """
    settings = checked_request(process, domain, starts, tolerance, size, scheme, degree, moments, max_unknowns)
    require_motion(process, domain, settings.starts)
    history: list[Level] = []
    # the estimate of any level is checked by the level before it; for a given mesh that is one twice as coarse
    sizes: float | SizeField = settings.size if tolerance is not None else _coarser(domain, settings.size)
    while True:
        began = time.perf_counter()
        problem = discretise_level(process, domain, sizes, settings, comm)
        answer = problem.answer
        error, trusted = _calibrated(answer, history, _blindness(problem.boundary, settings))
        history.append(Level(answer.cells, answer.unknowns, answer.moments, error, time.perf_counter() - began))
        worst = float(np.max(error / np.abs(answer.moments)))
        log.info(
            "level %d: %d cells, %d unknowns, mean exit time %.10g, relative error %.1e (%.1f s)",
            len(history), answer.cells, answer.unknowns, answer.moments[0, 0], worst, history[-1].seconds,
        )  # fmt: skip
        done = trusted and worst <= tolerance if tolerance is not None else len(history) == 2
        if done or (tolerance is not None and _exhausted(history, settings.max_unknowns)):
            break
        sizes = settings.size if tolerance is None else problem.refined(worst, tolerance, settings, history)
    if worst > 1:
        require_no_trap(process, domain, settings.starts)
    return _result(process, domain, comm, settings, problem, history, error, bool(done))


@dataclass(frozen=True)
class _Problem:
    """One level: its mesh, boundary and answer."""

    triangulation: Triangulation
    boundary: Boundary
    location: Location
    answer: LevelAnswer

    def refined(self, worst: float, tolerance: float, settings: Request, history: list[Level]) -> float | SizeField:
        """Return the sizes of the next level."""
        if settings.scheme == "sg":
            return settings.size * 0.5 ** len(history)
        # indicators overestimate by cancellation: aim by their ratio to the error, a decade or so a level
        answer, domain = self.answer, self.triangulation.mesh
        total = float(domain.comm.allreduce(answer.indicators.sum()))
        factor = float(np.clip(0.25 * tolerance / worst, 0.02, 0.5))  # never coarser: the next level confirms
        extents = np.ptp(np.array(domain.comm.allgather(_extremes(domain))), axis=(0, 1))[: domain.geometry.dim]
        # u rises steeply from an exit by drift, across the shorter side as a rule
        extent = float(extents.min() if len(self.boundary.ends) else extents.max())
        scale = float(np.abs(answer.moments[:, 0]).max())
        # where rounding has eaten the indicators, refinement by them gets nowhere: refine everywhere
        factors = answer.growth if _progress(history) else np.full_like(answer.growth, STAGNATION)
        growth = factors * edge_lengths(domain, answer.volumes)
        caps = np.full_like(growth, np.inf)
        if worst <= RESOLVED:  # before, the field's estimate says nothing about where it will be rough
            caps = field_caps(answer.difference, answer.volumes, scale, settings.degree, extent / SMALLEST_PICTURED)
        at_ends = _near(domain, self.boundary.ends)
        caps[at_ends] = np.minimum(caps[at_ends], SINGULAR * edge_lengths(domain, answer.volumes)[at_ends])
        most = OVERSHOOT * settings.max_unknowns * answer.cells / answer.unknowns
        sizes = np.minimum(caps, growth)
        order = 2.0 * settings.degree
        return next_sizes(domain, answer.volumes, answer.indicators, factor * total, order, sizes, most)


def _near(domain: mesh.Mesh, points: np.ndarray) -> np.ndarray:
    """Return the own cells that are no further from one of the points (k, d) than their own diameter, as a mask."""
    d = domain.topology.dim
    owned = domain.topology.index_map(d).size_local
    corners = domain.geometry.x[domain.geometry.dofmap[:owned, : d + 1]][:, :, :d]
    diameter = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)
    near = np.zeros(owned, dtype=bool)
    for point in points:  # two, as a rule
        near |= np.linalg.norm(corners - point, axis=2).min(axis=1) <= 0.5 * diameter
    return near


def _progress(history: list[Level]) -> bool:
    """Return whether the last level was better than all before it, or too early to tell."""
    errors = [float(np.max(level.error / np.abs(level.mean))) for level in history]
    return len(errors) < 4 or errors[-1] < 0.8 * min(errors[1:-1])


def _extremes(domain: mesh.Mesh) -> tuple[np.ndarray, np.ndarray]:
    x = domain.geometry.x
    return x.min(axis=0), x.max(axis=0)


def discretise_level(
    process: Process, domain: Domain, sizes: float | SizeField, settings: Request, comm: MPI.Comm
) -> _Problem:
    """Mesh, assemble and solve one level. Collective."""
    d = process.dimension
    order = 1 if settings.scheme == "sg" else min(settings.degree + 2, MAX_GEOMETRY[d])
    triangulation = make_mesh(domain, sizes, order, comm)
    location = locate(triangulation.mesh, settings.starts)
    if not location.found.all():
        point = settings.starts[~location.found][0].tolist()
        raise InputError("exit.starts", point, "a point inside the mesh", "Use a smaller mesh.size or move the start.")
    if settings.scheme == "sg":
        boundary, answer = solve_gibbs_level(process, domain, triangulation, sizes, location, settings.moments, comm)
    else:
        problem = discretise(process, triangulation, domain.reflecting, settings.degree + 1)
        boundary = problem.boundary
        require_exit(boundary)
        answer = solve_level(problem, domain, settings.scheme, settings.degree, location, settings.moments)
    return _Problem(triangulation, boundary, location, answer)


def _coarser(domain: Domain, size: float) -> float:
    lower, upper = domain.bounding_box()
    return min(2 * size, float(np.max(upper - lower)))


def _blindness(boundary: Boundary, settings: Request) -> float:
    """Return by what factor the difference of degrees p + 1 and p is too small an estimate: 1 where u is smooth.

    Where an exit by drift ends, both have errors of the same order in h, measured to be in the ratio of 1/p²: the
    difference is then 1 - (p/(p + 1))² of the error; half as much again is for safety, in place of `SAFETY`.
    """
    if not len(boundary.ends):
        return 1.0
    p = settings.degree
    return max(1.0, 1.5 / (1 - (p / (p + 1)) ** 2) / SAFETY)


def _calibrated(answer: LevelAnswer, history: list[Level], blindness: float) -> tuple[np.ndarray, bool]:
    """Return the error estimate, raised if the last level's proved too small, and whether to trust it.

    This level's value is the better one, so its distance to the last one is what the last estimate
    should have been. Before the mesh resolves the problem at all, two degrees may agree by chance: an
    estimate is trusted only when the last level was within a factor two of the answer and its own
    estimate within a factor ten of the truth.
    """
    size, estimate = np.abs(answer.moments), blindness * answer.error
    if not history:
        return estimate, False
    last = history[-1]
    change = np.abs(answer.moments - last.mean)
    ratio = change / np.maximum(last.error, 1e-11 * size)
    error = np.minimum(estimate * np.sqrt(np.clip(ratio, 1.0, None)), 1e3 * size)
    # an estimate wide of the mark says nothing about this one either: report what is known to have moved
    error = np.where(ratio > UNTRUSTED, np.maximum(error, change), error)
    return error, bool(np.all(last.error <= RESOLVED * np.abs(last.mean)) and np.all(ratio <= UNTRUSTED))


def _exhausted(history: list[Level], limit: int) -> bool:
    """Return whether refinement should stop without having met the tolerance."""
    return len(history) >= MAX_LEVELS or history[-1].unknowns > limit


def _result(
    process: Process,
    domain: Domain,
    comm: MPI.Comm,
    settings: Request,
    problem: _Problem,
    history: list[Level],
    error: np.ndarray,
    converged: bool,
) -> ExitResult:
    answer = problem.answer
    messages = []
    worst = float(np.max(error / np.abs(answer.moments)))
    if not converged and settings.tolerance is not None:
        messages.append(
            f"tolerance {settings.tolerance:.1e} not met: estimated relative error {worst:.1e} with "
            f"{answer.unknowns} unknowns; raise mesh.max_unknowns or relax mesh.tolerance"
        )
    elif worst > 0.1:
        converged = False
        messages.append(
            f"estimated relative error {worst:.1e}: the mesh does not resolve the problem; set mesh.tolerance"
        )
    lost = float(np.max(np.abs(answer.flux - 1)))
    if lost > 1e-6:
        messages.append(
            f"rounding would have changed the plain solution by a factor {float(answer.flux[0]):.3g}; "
            "the values are renormalised by the outflow"
        )
    peclet = largest_peclet(process, problem.triangulation.mesh)
    if peclet > 50 and worst > 1e-2:
        messages.append(f"largest cell Péclet number {peclet:.3g}: layers may not be resolved")
    return ExitResult(
        process=process, domain=domain, comm=comm, scheme=settings.scheme, degree=settings.degree,
        starts=settings.starts, moments=answer.moments, error=error, flux=answer.flux, converged=converged,
        u=answer.u, difference=answer.difference, boundary=problem.boundary, triangulation=problem.triangulation,
        solver=answer.solver, unknowns=answer.unknowns, cells=answer.cells, levels=history, messages=messages,
    )  # fmt: skip
