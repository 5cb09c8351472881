"""How long SGD itself stays in a domain: the mean exit time of the chain by its transfer operator, without noise.

From θ in Ω the chain makes a step, which takes the time h = η: ``u(θ) = h + E u(θ')``, u = 0 outside of Ω. u jumps at
the boundary, and within a step of it has one small jump for each batch. Higher moments come from the same recursion,
``τ = h + τ'``: ``E τ^k = h^k + Σ_{l=1}^k C(k,l) h^(k-l) E τ'^l``.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mpi4py import MPI

import numpy as np
from scipy.sparse import csr_array

from fpsolve.errors import InputError, NoFiniteAnswer, NotConverged
from fpsolve.fem.gaussian_steps import CellQuadrature, resolving_quadrature
from fpsolve.fem.nodal import NodalField, NodalSpace, nodal_space
from fpsolve.fem.resolvent import Resolvent
from fpsolve.fem.transfer import TransferOperator, transfer_rows
from fpsolve.model.batches import Batches, make_batches
from fpsolve.model.chain import Chain
from fpsolve.model.domains import Domain
from fpsolve.problems.chain_levels import ChainLevel, discretisation_error, levels_needed
from fpsolve.problems.chain_request import ChainRequest, checked_chain_request
from fpsolve.problems.request import as_points

log = logging.getLogger("fpsolve")

#: Ratio of the sizes of successive meshes.
RATIO = math.sqrt(2)
MAX_LEVELS = 24
#: Student's quantile for 95 % with 8 sequences.
STUDENT = 2.37
MAX_POINTS = 4096


@dataclass(frozen=True)
class ChainExitResult:
    """The exit time of a chain; every number is the same on every rank.

    Attributes
    ----------
    chain, domain
        What was asked.
    starts : ndarray, shape (n, d)
    moments, error : ndarray, shape (n, K)
        E τ^k (k = 1..K), in units in which one SGD step lasts η, and their estimated errors.
    discretisation_error, batch_error : ndarray, shape (n, K)
        The two parts of `error`: of the mesh, and of the choice of batches (0 when all are taken).
    u : NodalField
        The mean exit time as a field; ``u.at(points)`` interpolates.
    batches : str
        Which batches were used.
    levels : list of ChainLevel
        The meshes used; the last one is the answer's.
    residual : float
        Of the linear systems, relative.
    converged : bool
        Whether the asked tolerance is met, or an error of 10 % where none was asked.
    """

    chain: Chain
    domain: Domain
    comm: MPI.Comm
    degree: int
    starts: np.ndarray
    moments: np.ndarray
    error: np.ndarray
    discretisation_error: np.ndarray
    batch_error: np.ndarray
    u: NodalField
    batches: str
    unknowns: int
    cells: int
    residual: float
    converged: bool
    seconds: float
    operator: _Discretisation
    levels: list[ChainLevel] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    @property
    def mean(self) -> np.ndarray:
        """E τ at the starts, in units in which one step lasts η."""
        return self.moments[:, 0]

    @property
    def mean_steps(self) -> np.ndarray:
        """The mean number of steps from the starts."""
        return self.mean / self.chain.step_time

    @property
    def standard_deviation(self) -> np.ndarray:
        """The standard deviation of τ at the starts; needs two moments."""
        if self.moments.shape[1] < 2:
            raise InputError("exit.moments", self.moments.shape[1], "at least 2 for a variance")
        return np.sqrt(np.maximum(self.moments[:, 1] - self.moments[:, 0] ** 2, 0.0))

    def at(self, points: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
        """Return the mean exit time at points (n, d) by one more step of the chain, 0 outside. Not collective."""
        x = as_points(points, self.chain.dimension, "points")
        values = self.operator.moments_at(x, (self.u,))[:, 0]
        return np.where(self.domain.contains(x), values, 0.0)


@dataclass(frozen=True)
class _Discretisation:
    """A chain, its batches and its elements: what makes a level."""

    chain: Chain
    domain: Domain
    batches: Batches | CellQuadrature
    space: NodalSpace

    @property
    def compensate(self) -> bool:
        """Linear elements would add diffusion."""
        return self.space.degree == 1

    def operator(self, comm: MPI.Comm) -> TransferOperator:
        """Assemble. Collective."""
        return TransferOperator(self.space, self.domain, self.batches, comm, compensate=self.compensate)

    def solve(self, operator: TransferOperator, moments: int) -> tuple[tuple[NodalField, ...], float, int]:
        """Return the moments as fields, the largest residual and the iterations. Collective."""
        if not operator.killed.max() > 0:
            raise NoFiniteAnswer(
                "no step leads from the domain's interior out of it (of Gaussian ones none that double precision "
                "can tell from impossible): the chain cannot leave and its mean exit time "
                "is infinite. Choose another domain or a larger learning rate."
            )
        resolvent = Resolvent(operator)
        h = self.chain.step_time
        fields: list[NodalField] = []
        residual, iterations = 0.0, 0
        for k in range(1, moments + 1):
            f = np.full(self.space.unknowns, h**k)
            for low, known in enumerate(fields, start=1):
                f += math.comb(k, low) * h ** (k - low) * operator.apply(known.values)
            solution = resolvent.solve(f)
            residual, iterations = max(residual, solution.residual), iterations + solution.iterations
            fields.append(NodalField(self.space, solution.values, self.domain))
        resolvent.destroy()
        return tuple(fields), residual, iterations

    def rows(self, x: np.ndarray) -> csr_array:
        """Return the rows of P at points (n, d). Not collective."""
        return transfer_rows(self.space, self.domain, self.batches, x, compensate=self.compensate).matrix

    def moments_at(self, x: np.ndarray, fields: tuple[NodalField, ...]) -> np.ndarray:
        """Return the moments at points (n, d) by one more step of the chain, shape (n, K). Not collective."""
        rows = self.rows(x)
        h = self.chain.step_time
        after = np.column_stack([rows @ known.values for known in fields])
        result = np.empty_like(after)
        for k in range(1, len(fields) + 1):
            terms = [math.comb(k, low) * h ** (k - low) * after[:, low - 1] for low in range(1, k + 1)]
            result[:, k - 1] = h**k + np.sum(terms, axis=0)
        return result


def chain_exit_time(
    chain: Chain,
    domain: Domain,
    *,
    comm: MPI.Comm,
    starts: Sequence[Sequence[float]] | None = None,
    tolerance: float | None = None,
    size: float | None = None,
    degree: int | None = None,
    moments: int = 1,
    max_unknowns: int | None = None,
    batches: int | None = None,
) -> ChainExitResult:
    """Compute the mean exit time of a chain from `domain`. Collective.

    Parameters
    ----------
    chain : Chain
        Without momentum.
    domain : Interval, Box, Ball, Sublevel or MeshFile
        Its ``contains`` decides whether a step has left; no reflecting parts.
    comm : MPI.Comm
    starts : list of points
        Where values are asked; the centre of the domain when not given.
    tolerance : float, optional
        Relative error asked at the starts: meshes, and where not all batches are taken also these, are refined.
    size : float, optional
        Mesh size; the start of the refinement when a tolerance is given too. Cells need not be smaller than a step.
    degree : int, optional
        1: a nonnegative scheme with the chain's own mean and covariance per step. 2 to 4: more accurate.
    moments : int
        How many moments of τ.
    max_unknowns : int, optional
        Where refinement stops.
    batches : int, optional
        Length (a power of 2) of each of the 8 quasi-random sequences of batches, instead of all batches.

    Raises
    ------
    InputError
        What was asked does not fit together.
    NoFiniteAnswer
        No step leads out of the domain.
    NotConverged
        The linear solver failed.
    """
    began = time.perf_counter()
    request = checked_chain_request(chain, domain, starts, tolerance, size, degree, moments, max_unknowns)
    reference = request.starts.mean(axis=0)
    chosen = make_batches(chain, reference, batches)
    problem, levels, error = _refined(chain, domain, chosen, request, batches is not None, comm)
    level = levels[-1]
    batch_error = np.zeros_like(error)
    while not problem.batches.exact:
        batch_error = _batch_error(problem, levels, request, comm)
        enough = tolerance is None or np.max(batch_error / np.abs(level.moments)) <= tolerance / 2
        longer = 4 * chosen.count // chosen.sequences
        if enough or batches is not None or longer > MAX_POINTS or isinstance(problem.batches, CellQuadrature):
            break
        chosen = make_batches(chain, reference, longer)
        problem, level = _level(chain, domain, chosen, level.size, request, True, comm)
        levels.append(level)
    return _result(problem, request, levels, error, batch_error, comm, time.perf_counter() - began)


def _refined(
    chain: Chain, domain: Domain, chosen: Batches, request: ChainRequest, asked: bool, comm: MPI.Comm
) -> tuple[_Discretisation, list[ChainLevel], np.ndarray]:
    """Refine the mesh; return the last discretisation, all levels and the mesh's error. Collective."""
    tolerance = request.tolerance
    levels: list[ChainLevel] = []
    current = request.size if tolerance is not None else RATIO ** (levels_needed(chosen) - 1) * request.size
    while True:
        last = tolerance is None and current <= request.size * (1 + 1e-9)
        try:
            problem, level = _level(chain, domain, chosen, current, request, asked, comm)
        except NotConverged:
            # high degrees on far too large cells; finer meshes may do
            if last or current < request.size / RATIO**6:
                raise
            current /= RATIO
            continue
        levels.append(level)
        error = discretisation_error(levels, problem.batches)
        worst = float(np.max(error / np.abs(level.moments)))
        log.info(
            "chain, level %d: %d cells, %d unknowns, mean exit time %.8g, relative error %.1e (%.1f s)",
            len(levels), level.cells, level.unknowns, level.moments[0, 0], worst, level.seconds,
        )  # fmt: skip
        # half of the tolerance is for the batches
        target = None if tolerance is None else tolerance if problem.batches.exact else tolerance / 2
        if last or (target is not None and len(levels) >= levels_needed(problem.batches) and worst <= target):
            break
        if tolerance is not None and _exhausted(levels, request.max_unknowns, chain.dimension):
            break
        current /= RATIO
    return problem, levels, error


def _level(
    chain: Chain,
    domain: Domain,
    batches: Batches,
    size: float,
    request: ChainRequest,
    asked: bool,
    comm: MPI.Comm,
) -> tuple[_Discretisation, ChainLevel]:
    began = time.perf_counter()
    size = min(size, float(np.max(np.ptp(np.array(domain.bounding_box()), axis=0))))
    space = nodal_space(domain, size, request.degree, comm)
    problem = _Discretisation(chain, domain, batches, space)
    if chain.law == "gaussian" and request.degree > 1 and not asked:
        problem = replace(problem, batches=resolving_quadrature(chain, space, request.starts) or batches)
    operator = problem.operator(comm)
    fields, residual, iterations = problem.solve(operator, request.moments)
    excess = float(np.max(operator.excess)) if problem.compensate else 0.0
    level = ChainLevel(
        size, len(problem.space.cells), problem.space.unknowns, operator.entries,
        problem.moments_at(request.starts, fields), fields, residual, iterations, excess, time.perf_counter() - began,
    )  # fmt: skip
    operator.destroy()
    return problem, level


def _batch_error(
    problem: _Discretisation, levels: list[ChainLevel], request: ChainRequest, comm: MPI.Comm
) -> np.ndarray:
    """Estimate the error of the choice of batches, on a mesh coarser by √2. Collective.

    To first order another choice P' moves the answer by ``(I - P)⁻¹(P' - P)u``. The sequences are independent: the
    scatter of what each would give alone is the random part, with 95 % confidence. Moment matching is not linear, its
    bias falls at least with the first power of the length: halves of the sequences show at least as much. A quadrature
    is compared with one of lower degree. The k-th moment of nearly exponential times moves k times as much.
    """
    x, batches = request.starts, problem.batches
    space = nodal_space(problem.domain, RATIO * levels[-1].size, request.degree, comm)
    if isinstance(batches, CellQuadrature) and resolving_quadrature(problem.chain, space, x) is None:
        space = problem.space
    mean = replace(problem, space=space)
    operator = mean.operator(comm)
    u = mean.solve(operator, 1)[0][0].values
    stepped, row, resolvent = operator.apply(u), mean.rows(x), Resolvent(operator)

    def change(part: Batches | CellQuadrature) -> np.ndarray:
        own = replace(mean, batches=part)
        other = own.operator(comm)
        moved = other.apply(u) - stepped
        other.destroy()
        return np.asarray(own.rows(x) @ u - row @ u + row @ resolvent.solve(moved).values)

    error = np.abs(change(batches.halved()))
    if isinstance(batches, Batches):
        each = np.array([change(batches.sequence(k)) for k in range(batches.sequences)])
        error = np.maximum(error, STUDENT * each.std(axis=0, ddof=1) / math.sqrt(batches.sequences))
    resolvent.destroy()
    operator.destroy()
    first = problem.chain.step_time + row @ u
    return (error / first)[:, None] * np.arange(1, request.moments + 1) * levels[-1].moments


def _exhausted(levels: list[ChainLevel], limit: int, d: int) -> bool:
    return len(levels) >= MAX_LEVELS or levels[-1].unknowns * RATIO**d > limit


def _result(
    problem: _Discretisation, request: ChainRequest, levels: list[ChainLevel], discretisation: np.ndarray,
    batch: np.ndarray, comm: MPI.Comm, seconds: float,
) -> ChainExitResult:  # fmt: skip
    level = levels[-1]
    error = discretisation + batch
    worst = float(np.max(error / np.abs(level.moments)))
    messages = []
    converged = worst <= (0.1 if request.tolerance is None else request.tolerance)
    if not converged:
        asked = "" if request.tolerance is None else f"tolerance {request.tolerance:.1e} not met: "
        messages.append(
            f"{asked}estimated relative error {worst:.1e} with {level.unknowns} unknowns "
            f"({problem.batches.description}); use a smaller mesh.size, more unknowns or more batches"
        )
    if level.excess > 0.01:
        messages.append(
            f"linear elements add up to {level.excess:.1%} to the variance of a step: use a smaller mesh.size or a "
            "higher degree"
        )
    if float(level.fields[0].values.min()) < 0:
        messages.append("the mean exit time is negative somewhere: use a smaller mesh.size or degree 1")
    return ChainExitResult(
        chain=problem.chain, domain=problem.domain, comm=comm, degree=request.degree, starts=request.starts,
        moments=level.moments, error=error, discretisation_error=discretisation, batch_error=batch,
        u=level.fields[0], batches=problem.batches.description, unknowns=level.unknowns, cells=level.cells,
        residual=level.residual, converged=converged, seconds=seconds, operator=problem, levels=levels,
        messages=messages,
    )  # fmt: skip
