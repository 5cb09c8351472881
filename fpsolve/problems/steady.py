"""Where the density ends: invariant density, uniqueness, eigenvalues, Poincaré constant and current.

``A*ρ = 0`` without flux through the boundary of the (truncated) domain, mass 1, and ``-A x = λx``, ``-A*y = λy``
(mathematics.md section 4). The matrices are those of the evolution, so their long-time limits agree.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from mpi4py import MPI

import numpy as np

from fpsolve.errors import InputError, NotConverged
from fpsolve.fem.functionals import region_loads
from fpsolve.fem.meshing import SizeField, make_mesh
from fpsolve.fem.parallel import on_root
from fpsolve.fem.refine import edge_lengths, next_sizes
from fpsolve.model.domains import Domain
from fpsolve.model.process import Process
from fpsolve.problems.level import GROW
from fpsolve.problems.reversibility import current, no_current, nondegenerate, poincare
from fpsolve.problems.steady_gibbs import solve_gibbs_steady
from fpsolve.problems.steady_level import UNTRUSTED, Known, SteadyLevel, solve_steady_level
from fpsolve.problems.steady_modes import eigenfunctions
from fpsolve.problems.steady_request import SteadyRequest, checked_steady
from fpsolve.problems.steady_result import SteadyHistory, SteadyResult

log = logging.getLogger("fpsolve")

MAX_LEVELS = 12
#: The last mesh may have this many times the unknowns at which refinement stops.
OVERSHOOT = 1.5
#: Degrees of the geometry of curved domains that the mesher offers.
MAX_GEOMETRY = {1: 1, 2: 5, 3: 3}
#: Levels in a row that must see several eigenvalues at 0 before a discretisation is believed.
INSISTENT = 3
#: Share of the tolerance that refinement aims at.
AIM = 0.5
#: σ relative to the first fast eigenvalue: far below it, slow modes are right to rounding (measured).
SHIFT = 0.05
#: Halvings of the cells that a separatrix cuts; ρ is small there.
BASIN_DEPTH = 3


def steady_state(
    process: Process,
    domain: Domain,
    *,
    comm: MPI.Comm,
    eigenvalues: int = 3,
    observables: Sequence[str] = (),
    scheme: str | None = None,
    degree: int | None = None,
    size: float | None = None,
    tolerance: float | None = None,
    max_unknowns: int | None = None,
) -> SteadyResult:
    """Compute the invariant density and the first eigenpairs without flux through the boundary. Collective.

    Parameters
    ----------
    process, domain
        Dimension 1, 2 or 3. Reflecting parts of the domain play no role: nothing leaves.
    comm : MPI.Comm
    eigenvalues : int
        How many eigenvalues are asked for, 0 included; their errors are controlled too.
    observables : list of formulas
        g in the variables, for ∫gρ.
    scheme : "dg", "cg" or "sg", optional
        Discontinuous (default in 1D and 2D) or continuous elements, or Scharfetter-Gummel weights (linear elements, a
        multiple of the identity: the density at the nodes is exact).
    degree : int, optional
        Element degree p; p + 1 controls the error.
    size : float, optional
        Mesh size; without a tolerance one mesh is used.
    tolerance : float, optional
        Error of ρ in L¹ and relative error of the eigenvalues; 1e-4 when neither it nor a size is given.
    max_unknowns : int, optional
        Where refinement stops.

    Raises
    ------
    InputError
        What was asked does not fit together.
    NotConverged
        A linear or eigenvalue solver failed.
    """
    began = time.perf_counter()
    request = checked_steady(process, domain, eigenvalues, observables, scheme, degree, size, tolerance, max_unknowns)
    history: list[SteadyHistory] = []
    sizes: float | SizeField = request.size
    shift, last = 0.0, None
    while True:
        start = time.perf_counter()
        level = _solve(process, domain, sizes, request, shift, last, comm)
        density_error, trusted = _calibrated(level, history, domain)
        errors = level.errors
        history.append(_history(level, density_error, errors, time.perf_counter() - start))
        worst = _worst(level, density_error, errors, history)
        log.info(
            "level %d: %d cells, %d unknowns, density error %.1e, eigenvalues %s, worst relative error %.1e (%.1f s)",
            len(history), level.cells, level.unknowns, density_error,
            " ".join(f"{v:.6g}" for v in level.values[1:]), worst, history[-1].seconds,
        )  # fmt: skip
        done = request.tolerance is None or (trusted and worst <= request.tolerance)
        if done or len(history) >= MAX_LEVELS or level.unknowns > request.max_unknowns:
            break
        sizes = _refined(level, density_error, errors, request, len(history))
        shift, last = SHIFT * level.fast, level.known
        level.destroy()
    converged = bool(done and (request.tolerance is not None or worst <= 0.1))
    return _result(process, domain, comm, request, level, tuple(history), converged, worst, began)


def _solve(
    process: Process,
    domain: Domain,
    sizes: float | SizeField,
    request: SteadyRequest,
    shift: float,
    last: Known | None,
    comm: MPI.Comm,
) -> SteadyLevel:
    d = process.dimension
    order = 1 if request.scheme == "sg" else min(request.degree + 2, MAX_GEOMETRY[d])
    triangulation = make_mesh(domain, sizes, order, comm)
    shift = shift or typical_rate(process, domain)
    if request.scheme != "sg":
        return solve_steady_level(
            process, triangulation, request.scheme, request.degree, request.count, request.observables, shift, last
        )
    if not isinstance(sizes, float):
        raise InputError("mesh.size", type(sizes).__name__, "a uniform mesh size with the Scharfetter-Gummel scheme")
    return solve_gibbs_steady(process, domain, triangulation, sizes, request.count, request.observables, shift, last)


def typical_rate(process: Process, domain: Domain) -> float:
    """Return a rate of the size of the fast eigenvalues: drift over extent plus diffusion over its square."""
    lower, upper = domain.bounding_box()
    extent = float(np.max(upper - lower))
    x = lower + (upper - lower) * np.random.default_rng(0).random((500, len(lower)))
    x = x[domain.contains(x)] if domain.contains(x).any() else x
    speed = float(np.nan_to_num(np.linalg.norm(process.drift(x), axis=1)).mean())
    spread = float(np.nan_to_num(np.trace(process.diffusion(x), axis1=1, axis2=2)).mean())
    return (speed / extent + spread / extent**2) or 1.0


def _history(level: SteadyLevel, density_error: float, errors: np.ndarray, seconds: float) -> SteadyHistory:
    return SteadyHistory(
        level.cells, level.unknowns, level.values, errors, level.moments.mean, level.moments.covariance,
        density_error, level.zero_count, seconds,
    )  # fmt: skip


def _calibrated(level: SteadyLevel, history: list[SteadyHistory], domain: Domain) -> tuple[float, bool]:
    """Return the density's error, raised where the last level's proved too small, and whether to trust all errors.

    The density of another mesh is compared by its first two moments, which an error e in L¹ changes by at most
    ``extent² e``.
    """
    density_error = level.density_error
    if not history:
        return density_error, False
    last = history[-1]
    lower, upper = domain.bounding_box()
    extent = float(np.max(upper - lower))
    moved = max(
        float(np.abs(level.moments.mean - last.mean).max()) / extent,
        float(np.abs(level.moments.covariance - last.covariance).max()) / extent**2,
    )
    ratio = moved / max(last.density_error, 1e-11)
    density_error *= float(np.sqrt(max(ratio, 1.0)))
    wanted = slice(level.zero_count, len(level.values))
    asked = bool(np.all(level.known.ratio[wanted] <= UNTRUSTED))
    return density_error, asked and ratio <= UNTRUSTED and last.density_error <= 0.5


def _worst(level: SteadyLevel, density_error: float, errors: np.ndarray, history: list[SteadyHistory]) -> float:
    """Return the largest relative error of what was asked."""
    zeros = level.zero_count
    rest = np.abs(level.values[zeros:])
    worst = max([density_error, *(errors[zeros : len(level.values)] / np.maximum(rest, 1e-300))])
    if zeros > 1 and not level.certain:  # 0 or not resolved? insist, and let the leak be negligible
        leak = float(np.abs(level.spectrum.slow.values[1:zeros]).max()) / level.fast
        seen = len(history) >= INSISTENT and all(h.zero_count == zeros for h in history[-INSISTENT:])
        worst = max(worst, leak, 0.0 if seen else 1.0)
    return float(worst)


def _refined(
    level: SteadyLevel, density_error: float, errors: np.ndarray, request: SteadyRequest, levels: int
) -> float | SizeField:
    """Return the sizes of the next level: the smaller of what the density and what the eigenvalues need."""
    assert request.tolerance is not None
    if request.scheme == "sg":
        return request.size * 0.5**levels
    domain = level.triangulation.mesh
    comm = domain.comm
    zeros, p = level.zero_count, request.degree
    relative = float(np.max(errors[zeros:] / np.maximum(np.abs(level.values[zeros:]), 1e-300), initial=0.0))
    most = OVERSHOOT * request.max_unknowns * level.cells / level.unknowns
    caps = GROW * edge_lengths(domain, level.volumes)
    fields = []
    aims = [AIM * request.tolerance / max(density_error, 1e-300), AIM * request.tolerance / max(relative, 1e-300)]
    least = 0.5 if min(aims) > 0.5 else 1.0  # something must become finer
    for indicators, aim, order in ((level.indicators, aims[0], p + 1.0), (level.mode_indicators, aims[1], 2.0 * p)):
        total = float(comm.allreduce(indicators.sum()))
        if total > 0:
            factor = float(np.clip(aim, 0.02, least))
            fields.append(next_sizes(domain, level.volumes, indicators, factor * total, order, caps, most))
    sizes = fields[0].sizes
    for other in fields[1:]:
        sizes = np.minimum(sizes, other.sizes)
    corners = fields[0].corners
    return _capped(SizeField(corners, sizes), most)


def _capped(field: SizeField, most_cells: float) -> SizeField:
    """Raise all sizes by a common factor where more cells would result."""
    d = field.corners.shape[2]
    edges = field.corners[:, 1:] - field.corners[:, :1]
    volumes = np.abs(np.linalg.det(edges)) / {1: 1, 2: 2, 3: 6}[d]
    factor = {1: 1.0, 2: 4 / np.sqrt(3.0), 3: 6 * np.sqrt(2.0)}[d]
    cells = float(np.sum(factor * volumes / field.sizes.mean(axis=1) ** d))
    return SizeField(field.corners, field.sizes * max(cells / most_cells, 1.0) ** (1.0 / d))


def _result(
    process: Process,
    domain: Domain,
    comm: MPI.Comm,
    request: SteadyRequest,
    level: SteadyLevel,
    history: tuple[SteadyHistory, ...],
    converged: bool,
    worst: float,
    began: float,
) -> SteadyResult:
    density_error, errors = history[-1].density_error, history[-1].eigenvalue_errors
    quadrature, density = level.quadrature, level.density
    values = quadrature.values(density)
    sg = request.scheme == "sg"
    flow = no_current(density) if sg else current(process, density, level.control, quadrature)
    eigenvalues, right, left = eigenfunctions(level.generator, level.spectrum, values, errors, quadrature)
    gap = float(level.spectrum.values[min(level.zero_count, len(level.spectrum.values) - 1)].real)
    constant, constant_error, reason = _poincare(process, level, flow.vanishes, gap)
    minima, masses = _wells(process, domain, level, comm)
    owned = density.x.array[: density.function_space.dofmap.index_map.size_local]
    ends = comm.allgather((float(owned.min(initial=np.inf)), float(owned.max(initial=-np.inf))))
    result = SteadyResult(
        process=process, domain=domain, comm=comm, triangulation=level.triangulation, boundary=level.boundary,
        scheme=request.scheme, degree=request.degree, observables=request.names, density=density,
        mass=float(quadrature.integral(values)), minimum=min(e[0] for e in ends), maximum=max(e[1] for e in ends),
        mean=level.moments.mean, covariance=level.moments.covariance, expectations=level.moments.observables,
        mean_error=level.moment_errors.mean, covariance_error=level.moment_errors.covariance,
        expectation_errors=level.moment_errors.observables, residual=level.residual, density_error=density_error,
        eigenvalues=eigenvalues, eigenvalue_errors=errors, reach=(level.spectrum.shift, level.spectrum.reach),
        zero_count=level.zero_count, unique=level.zero_count == 1, right=right, left=left, spectral_gap=gap,
        poincare=constant, poincare_error=constant_error, poincare_reason=reason,
        current=flow.field, current_norm=flow.relative, current_error=flow.error,
        detailed_balance=flow.vanishes, minima=minima, basin_masses=masses,
        unknowns=level.unknowns, cells=level.cells, solver=level.spectrum.solver, tolerance=request.tolerance,
        converged=converged, cost=time.perf_counter() - began, levels=history,
        messages=_messages(request, level, flow.relative, flow.error, worst, converged, sg),
    )  # fmt: skip
    level.destroy()
    return result


def _poincare(process: Process, level: SteadyLevel, reversible: bool, gap: float) -> tuple[float | None, float, str]:
    """Return the Poincaré constant, its error, and where it comes from or why there is none. Collective."""
    if level.zero_count > 1:
        return None, np.inf, "there are several invariant measures"
    if reversible:
        return gap, float(level.known.errors[1]), "the spectral gap: the process is reversible"
    if not nondegenerate(process, level.quadrature):
        return None, np.inf, "a is degenerate: ∫∇fᵀa∇f ρ may vanish for functions that are constant along the noise"
    try:
        answer = poincare(process, level.density, level.control, level.boundary, level.quadrature)
    except NotConverged as error:
        return None, np.inf, str(error)
    where = f"where ρ exceeds {answer.floor:.1e} of its maximum"
    if answer.value is None:
        return None, np.inf, f"the set {where} is not connected, and below ρ is not known well enough"
    return answer.value, answer.error, f"the first eigenvalue of ∫∇fᵀa∇g ρ = λ∫f g ρ {where}"


def _wells(process: Process, domain: Domain, level: SteadyLevel, comm: MPI.Comm) -> tuple[np.ndarray, np.ndarray]:
    """Return the minima of the loss and ∫ρ over their basins of attraction. Collective."""
    if process.landscape is None:
        return np.empty((0, process.dimension)), np.empty(0)
    from fpsolve.model.basins import basin_labels, find_minima

    minima = on_root(comm, lambda: find_minima(process, domain))
    if len(minima) == 0:
        return minima, np.empty(0)
    space = level.density.function_space
    degree = space.element.basix_element.degree
    parts = region_loads(space, degree, lambda x: basin_labels(process, minima, x), len(minima), BASIN_DEPTH)
    owned = level.density.x.array[: space.dofmap.index_map.size_local]
    masses = [comm.allreduce(float(part.getArray(readonly=True) @ owned)) for part in parts]
    for part in parts:
        part.destroy()
    return minima, np.array(masses)


def _messages(
    request: SteadyRequest,
    level: SteadyLevel,
    size: float,
    error: float,
    worst: float,
    converged: bool,
    sg: bool,
) -> tuple[str, ...]:
    messages = []
    if level.zero_count > 1:
        sure = "" if level.certain else " (as far as this mesh can tell)"
        messages.append(
            f"the process has {level.zero_count} invariant measures{sure}: {level.zero_count} eigenvalues cannot be "
            "told from 0; the density is the limit of a uniform start"
        )
    if not converged and request.tolerance is not None:
        messages.append(
            f"tolerance {request.tolerance:.1e} not met: estimated error {worst:.1e} with {level.unknowns} unknowns; "
            "raise mesh.max_unknowns or relax mesh.tolerance"
        )
    elif not converged:
        messages.append(f"estimated error {worst:.1e}: the mesh does not resolve the problem; set mesh.tolerance")
    if sg:
        messages.append("the Scharfetter-Gummel scheme is reversible by construction: the current is 0")
    elif size <= 2 * error and error > 0.01:
        messages.append(f"a current below {error:.1e} of its parts could not be seen on this mesh")
    if np.abs(level.values.imag).max() > 1e-6 * np.abs(level.values).max():
        sigma, reach = level.spectrum.shift, level.spectrum.reach
        messages.append(
            f"complex eigenvalues: those with |λ + {sigma:.3g}| < {reach:.4g} were looked at; "
            "a smaller real part beyond is not seen"
        )
    return tuple(messages)
