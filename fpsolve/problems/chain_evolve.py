"""The law of SGD's parameters after given steps: nodal masses under the transpose of the transfer operator.

Linear elements: P is (sub-)stochastic, so masses stay nonnegative exactly and, with "no-flux", their sum stays 1; with
"absorbing" it is the probability not to have left yet. Each step has the chain's own mean and covariance
(`fpsolve.fem.transfer`), as long as cells are small beside a step.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from mpi4py import MPI

import numpy as np

from fpsolve.errors import InputError
from fpsolve.fem.cell_points import cell_points
from fpsolve.fem.nodal import NodalField, NodalSpace, basis, nodal_space
from fpsolve.fem.transfer import TransferOperator, transfer_rows
from fpsolve.model.batches import make_batches
from fpsolve.model.chain import Chain
from fpsolve.model.domains import Domain
from fpsolve.model.expressions import Formula
from fpsolve.model.initial import PointStart
from fpsolve.problems.chain_request import check_chain_mesh
from fpsolve.problems.chain_start import Start, start_masses

BOUNDARIES = ("no-flux", "absorbing")


@dataclass(frozen=True)
class ChainRecord:
    """The law after a number of steps.

    Attributes
    ----------
    steps : int
    t : float
        In units in which one step lasts η.
    mass, killed : float
        The mass left, and what has left the domain, added up separately: their sum is 1 to rounding.
    minimum : float
        The smallest nodal mass; never negative.
    mean, covariance : ndarray, shape (d,), (d, d)
        Of the law divided by its mass.
    observables : ndarray
        Its integrals of the observables.
    """

    steps: int
    t: float
    mass: float
    killed: float
    minimum: float
    mean: np.ndarray
    covariance: np.ndarray
    observables: np.ndarray


@dataclass(frozen=True)
class ChainEvolveResult:
    """The laws of a chain; every number is the same on every rank.

    Attributes
    ----------
    records : tuple of ChainRecord
        At the start and at the stored steps.
    masses : ndarray, shape (records, unknowns)
        At the nodes of `space`.
    batches : str
        Which batches were used.
    excess : float
        The largest relative excess of the variance of a step, by interpolation.
    """

    chain: Chain
    domain: Domain
    comm: MPI.Comm
    boundary_condition: str
    space: NodalSpace
    records: tuple[ChainRecord, ...]
    masses: np.ndarray
    observables: tuple[str, ...]
    batches: str
    excess: float
    seconds: float
    messages: tuple[str, ...] = ()

    @property
    def times(self) -> np.ndarray:
        """The times of the records."""
        return np.array([record.t for record in self.records])

    def density(self, record: int) -> NodalField:
        """Return the density of a record (its number): masses over ∫φ_i, continuous and piecewise linear."""
        return NodalField(self.space, self.masses[record] / lumped(self.space), self.domain)


def chain_evolve(
    chain: Chain,
    domain: Domain,
    initial: Start,
    times: Sequence[float] | None = None,
    *,
    comm: MPI.Comm,
    steps: Sequence[int] | None = None,
    boundary: str = "no-flux",
    size: float | None = None,
    observables: Sequence[str] = (),
    batches: int | None = None,
) -> ChainEvolveResult:
    """Compute the law of a chain in `domain` after given times. Collective.

    Parameters
    ----------
    chain : Chain
        Without momentum.
    initial : GaussianStart, PointStart or DensityStart
    times : sequence of float, or `steps` : sequence of int
        When the law is stored; times are rounded to whole steps.
    boundary : "no-flux" or "absorbing"
        A step out of the domain ends at its edge, or the chain has left.
    size : float, optional
        Mesh size; should be below the standard deviation of a step.
    observables : sequence of str
        Formulas in the variables.
    batches : int, optional
        As in `fpsolve.chain_exit_time`.

    Raises
    ------
    InputError
    """
    began = time.perf_counter()
    size = check_chain_mesh(chain, domain, size)
    if boundary not in BOUNDARIES:
        raise InputError("evolve.boundary", boundary, f"one of {', '.join(BOUNDARIES)}")
    stops = _stops(times, steps, chain.step_time)
    formulas = [Formula.parse(text, chain.landscape.variables, "evolve.observables") for text in observables]
    space = nodal_space(domain, size, 1, comm)
    masses, messages = start_masses(initial, space, domain)
    chosen = make_batches(chain, np.average(space.nodes, axis=0, weights=masses), batches)
    operator = TransferOperator(space, domain, chosen, comm, boundary, compensate=True)
    watched = np.array([formula(space.nodes) for formula in formulas]).reshape(len(formulas), space.unknowns)
    first = None
    if isinstance(initial, PointStart):  # its first step needs no mesh
        point = np.array([initial.point], dtype=float)
        row = transfer_rows(space, domain, chosen, point, boundary, compensate=True)
        first = row.matrix.toarray()[0], float(row.killed[0])
    history = _march(operator, masses, first, stops)
    records = tuple(_record(chain, space, k, m, killed, watched) for k, m, killed in history)
    excess = float(np.max(operator.excess))
    operator.destroy()
    if excess > 0.01:
        messages = (*messages, f"interpolation adds up to {excess:.1%} to the variance of a step: use a smaller size")
    return ChainEvolveResult(
        chain, domain, comm, boundary, space, records, np.array([m for _, m, _ in history]), tuple(observables),
        chosen.description, excess, time.perf_counter() - began, messages,
    )  # fmt: skip


def _stops(times: Sequence[float] | None, steps: Sequence[int] | None, step_time: float) -> list[int]:
    if (times is None) == (steps is None):
        raise InputError("evolve.times", times, "times or steps, one of the two")
    given = np.asarray(times if times is not None else steps, dtype=float).reshape(-1)
    if not len(given) or not np.isfinite(given).all() or (given < 0).any() or (np.diff(given) <= 0).any():
        raise InputError("evolve.times", given.tolist(), "increasing numbers from 0 on")
    counts = np.rint(given / step_time if times is not None else given).astype(int)
    if (np.diff(counts) <= 0).any():
        raise InputError("evolve.times", given.tolist(), f"times that are at least one step, {step_time:g}, apart")
    return [0, *(int(count) for count in counts if count > 0)]


def _march(
    operator: TransferOperator, masses: np.ndarray, first: tuple[np.ndarray, float] | None, stops: list[int]
) -> list[tuple[int, np.ndarray, float]]:
    """Return steps, masses and killed mass at the stops. Collective."""
    history = [(0, masses, 0.0)]
    m, after, killing = operator.vector(masses), operator.vector(0.0), operator.vector(operator.killed)
    killed, done = 0.0, 0
    for stop in stops[1:]:
        while done < stop:
            if done == 0 and first is not None:
                after.setArray(first[0][operator.own])
                killed += first[1]
            else:
                killed += m.dot(killing)
                operator.matrix.multTranspose(m, after)
            m, after = after, m
            done += 1
        history.append((stop, operator.everywhere(m), killed))
    for vector in (m, after, killing):
        vector.destroy()
    return history


def _record(
    chain: Chain, space: NodalSpace, steps: int, masses: np.ndarray, killed: float, watched: np.ndarray
) -> ChainRecord:
    mass = float(masses.sum())
    mean, covariance = moments_of(space, masses)
    t = steps * chain.step_time
    return ChainRecord(steps, t, mass, killed, float(masses.min()), mean, covariance, watched @ masses)


def moments_of(space: NodalSpace, masses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean (d,) and covariance (d, d) of nodal masses divided by their sum; nan where no mass is left."""
    total = masses.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        weights = masses / total
    mean = weights @ space.nodes
    centred = space.nodes - mean
    return mean, (centred * weights[:, None]).T @ centred


def lumped(space: NodalSpace) -> np.ndarray:
    """Return ∫φ_i over the straight cells, shape (unknowns,)."""
    at, weights, cells = cell_points(space, space.degree)
    result = np.zeros(space.unknowns)
    np.add.at(result, space.cells[cells], weights[:, None] * basis(space, at, cells))
    return result
