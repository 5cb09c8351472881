"""The invariant measure and the slowest rates of SGD as a chain: leading eigenvalues of the transfer operator.

Linear elements and steps shortened to the domain's edge ("no-flux"): P is a stochastic matrix. Its eigenvalues λ give
rates ``-ln|λ|/η`` per time in which one step lasts η. Eigenvalues come with an absolute error near rounding: rates
below about 1e-12/η cannot be told from 0.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from mpi4py import MPI
from petsc4py import PETSc
from slepc4py import SLEPc

import numpy as np

from fpsolve.errors import InputError, NotConverged
from fpsolve.fem.nodal import NodalField, NodalSpace, nodal_space
from fpsolve.fem.transfer import TransferOperator
from fpsolve.model.batches import make_batches
from fpsolve.model.chain import Chain
from fpsolve.model.domains import Domain
from fpsolve.problems.chain_evolve import lumped, moments_of
from fpsolve.problems.chain_request import check_chain_mesh

#: Steps of the chain after the eigenvalue solver: they keep masses nonnegative and take the small eigenvalues' share.
POLISH = 20
#: An eigenvalue of modulus above 1 - CLOSED belongs to a further invariant measure, as far as rounding tells.
CLOSED = 1e-11


@dataclass(frozen=True)
class ChainSteadyResult:
    """The long-time limit of a chain; every number is the same on every rank.

    Attributes
    ----------
    masses : ndarray, shape (unknowns,)
        The invariant measure at the nodes of `space`: nonnegative, of sum 1. Where it is not unique, one of them.
    mean, covariance : ndarray, shape (d,), (d, d)
    residual : float
        ``‖Pᵀm - m‖₁``.
    eigenvalues : ndarray of complex
        Of P, by falling modulus; the first is 1.
    rates : ndarray
        ``-ln|λ|/η``, per time in which one step lasts η.
    spectral_gap : float
        The smallest rate but the first: 0 where a second invariant measure cannot be excluded.
    unique : bool
        Whether the gap is above rounding.
    excess : float
        As in `fpsolve.problems.chain_evolve.ChainEvolveResult`.
    """

    chain: Chain
    domain: Domain
    comm: MPI.Comm
    space: NodalSpace
    masses: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    residual: float
    eigenvalues: np.ndarray
    rates: np.ndarray
    spectral_gap: float
    unique: bool
    batches: str
    excess: float
    seconds: float
    messages: tuple[str, ...] = ()

    @property
    def density(self) -> NodalField:
        """The density: masses over ∫φ_i, continuous and piecewise linear."""
        return NodalField(self.space, self.masses / lumped(self.space), self.domain)


def chain_steady(
    chain: Chain,
    domain: Domain,
    *,
    comm: MPI.Comm,
    size: float | None = None,
    eigenvalues: int = 3,
    batches: int | None = None,
) -> ChainSteadyResult:
    """Compute the invariant measure of a chain in `domain` and its slowest rates. Collective.

    Parameters
    ----------
    chain : Chain
        Without momentum.
    domain : Domain
        Large enough for the chain to stay in it; a step out of it ends at its edge.
    size : float, optional
        Mesh size; should be below the standard deviation of a step.
    eigenvalues : int
        How many.
    batches : int, optional
        As in `fpsolve.chain_exit_time`.

    Raises
    ------
    InputError
    NotConverged
        The eigenvalue solver failed.
    """
    began = time.perf_counter()
    size = check_chain_mesh(chain, domain, size)
    if isinstance(eigenvalues, bool) or not isinstance(eigenvalues, int) or not 2 <= eigenvalues <= 50:
        raise InputError("steady.eigenvalues", eigenvalues, "an integer from 2 to 50")
    space = nodal_space(domain, size, 1, comm)
    chosen = make_batches(chain, space.nodes.mean(axis=0), batches)
    operator = TransferOperator(space, domain, chosen, comm, "no-flux", compensate=True)
    values, masses = _leading(operator, eigenvalues)
    masses = np.maximum(masses / masses.sum(), 0.0)
    for _ in range(POLISH):
        masses = operator.apply_transpose(masses / masses.sum())
    residual = float(np.abs(operator.apply_transpose(masses) - masses).sum())
    mean, covariance = moments_of(space, masses)
    excess = float(np.max(operator.excess))
    operator.destroy()
    rates = np.maximum(-np.log(np.abs(values)), 0.0) / chain.step_time
    unique = bool(abs(values[1]) < 1 - CLOSED)
    messages = []
    if not unique:
        messages.append("a second eigenvalue cannot be told from 1: the invariant measure need not be the only one")
    if excess > 0.01:
        messages.append(f"interpolation adds up to {excess:.1%} to the variance of a step: use a smaller size")
    return ChainSteadyResult(
        chain, domain, comm, space, masses, mean, covariance, residual, values, rates,
        float(rates[1]) if unique else 0.0, unique, chosen.description, excess, time.perf_counter() - began,
        tuple(messages),
    )  # fmt: skip


def _leading(operator: TransferOperator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues of Pᵀ by falling modulus and the real vector of the first, on every rank. Collective."""
    n = operator.space.unknowns
    transpose = operator.matrix.transpose(PETSc.Mat())
    eps = SLEPc.EPS().create(operator.comm)
    eps.setOptionsPrefix("transfer_")
    eps.setOperators(transpose)
    eps.setProblemType(SLEPc.EPS.ProblemType.NHEP)
    eps.setWhichEigenpairs(SLEPc.EPS.Which.LARGEST_MAGNITUDE)
    wanted = min(count, n)
    eps.setDimensions(wanted, min(n, max(2 * wanted + 10, 24)))
    eps.setTolerances(1e-12, 2000)
    start = operator.vector(1 / n)
    eps.setInitialSpace([start])
    eps.setFromOptions()
    eps.solve()
    found = eps.getConverged()
    if found < wanted:
        raise NotConverged(f"only {found} of {wanted} eigenvalues of the transfer operator converged")
    values = np.array([eps.getEigenvalue(k) for k in range(wanted)], dtype=complex)
    order = np.argsort(-np.abs(values), kind="stable")
    vector = transpose.createVecRight()
    eps.getEigenvector(int(np.argmin(np.abs(values - 1))), vector)
    masses = operator.everywhere(vector)
    for item in (vector, start, eps, transpose):
        item.destroy()
    return values[order], masses
