"""The invariant measure of a degenerate process as the limit of noisy SGD, δ → 0 (paper Theorem 1.5).

For δ > 0 the matrix ``a + (η/2)δ I`` is positive definite and there is one invariant density. As δ → 0 it may
concentrate on a curve or a point in some directions: then it converges weakly, not in L¹, its maximum grows like
δ^(-1/2) for each such direction, and only expectations have limits. They are extrapolated to δ = 0 by the polynomial
in δ through all computed values (Richardson); for linear drift they are analytic in δ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mpi4py import MPI

import numpy as np

from fpsolve.errors import InputError
from fpsolve.model.domains import Domain
from fpsolve.model.process import Process
from fpsolve.problems.steady import steady_state
from fpsolve.problems.steady_request import TOLERANCE
from fpsolve.problems.steady_result import SteadyResult

#: Strengths of the default sequence relative to the largest eigenvalue of a.
DEFAULT = (0.1, 0.05, 0.025, 0.0125)
#: A direction concentrates if its extrapolated variance is below this part of the variance at the smallest δ.
VANISHING = 0.1


@dataclass(frozen=True)
class NoisyLimit:
    """Expectations of noisy SGD for a sequence of δ and their limits.

    Attributes
    ----------
    deltas, strengths : ndarray, shape (n,)
        δ decreasing, and s of ``a + s I``: ``s = (η/2)δ``, or δ itself where no learning rate was given.
    results : tuple of SteadyResult
        For each δ.
    mean, covariance, expectations : ndarray
        Limits, shapes (d,), (d, d), (k,).
    mean_error, covariance_error, expectation_errors : ndarray
        Estimated: change by the last extrapolation plus the amplified errors of the single solutions.
    directions : ndarray, shape (m, d)
        Unit vectors in which the variance tends to 0.
    variances : ndarray, shape (m, n)
        Variances in these directions for each δ.
    exponents : ndarray, shape (n - 1,)
        Of ``max ρ_δ ~ δ^exponent`` between neighbouring δ; they tend to -m/2 where m directions concentrate, to 0 where
        the density converges.
    density_converges : bool
        False if some direction concentrates, or if the maximum grows faster and faster: then ρ_δ has no limit in L¹.
    converged : bool
        Whether every single solution met its tolerance.
    """

    process: Process
    domain: Domain
    comm: MPI.Comm
    deltas: np.ndarray
    strengths: np.ndarray
    observables: tuple[str, ...]
    results: tuple[SteadyResult, ...]
    mean: np.ndarray
    mean_error: np.ndarray
    covariance: np.ndarray
    covariance_error: np.ndarray
    expectations: np.ndarray
    expectation_errors: np.ndarray
    directions: np.ndarray
    variances: np.ndarray
    exponents: np.ndarray
    density_converges: bool
    converged: bool
    messages: tuple[str, ...] = ()


def noisy_limit(
    process: Process,
    domain: Domain,
    *,
    comm: MPI.Comm,
    deltas: Sequence[float] | None = None,
    learning_rate: float | None = None,
    observables: Sequence[str] = (),
    scheme: str | None = None,
    degree: int | None = None,
    tolerance: float | None = None,
    max_unknowns: int | None = None,
) -> NoisyLimit:
    """Compute expectations for a sequence of δ and extrapolate them to δ = 0. Collective.

    The mesh must resolve layers of width sqrt(δ): halving the smallest δ costs about sqrt(2) times the unknowns where
    the measure concentrates on a line; what bounds the accuracy is the extrapolation, whose error is reported.

    Parameters
    ----------
    process, domain
        As for `fpsolve.problems.steady.steady_state`.
    deltas : list of float, optional
        At least three positive numbers; a geometric sequence relative to the size of a when not given.
    learning_rate : float, optional
        η: the added noise is ``(η/2)δ I``; without it ``δ I``.
    observables : list of formulas
        g in the variables.
    scheme, degree, tolerance, max_unknowns
        Of the single problems.

    Raises
    ------
    InputError
        The sequence cannot be used.
    NotConverged
        A solver failed.
    """
    if learning_rate is not None and not (isinstance(learning_rate, (int, float)) and 0 < learning_rate < np.inf):
        raise InputError("process.learning_rate", learning_rate, "a positive number")
    factor = 1.0 if learning_rate is None else learning_rate / 2
    sequence = _checked_deltas(deltas, process, domain, factor)
    results = tuple(
        steady_state(
            with_isotropic_noise(process, factor * delta), domain, comm=comm, eigenvalues=2, observables=observables,
            scheme=scheme, degree=degree, tolerance=tolerance or TOLERANCE, max_unknowns=max_unknowns,
        )
        for delta in sequence
    )  # fmt: skip
    strengths = factor * sequence
    mean, mean_error = extrapolated(strengths, [r.mean for r in results], [r.mean_error for r in results])
    covariance, covariance_error = extrapolated(
        strengths, [r.covariance for r in results], [r.covariance_error for r in results]
    )
    expectations, expectation_errors = extrapolated(
        strengths, [r.expectations for r in results], [r.expectation_errors for r in results]
    )
    directions, variances = _concentrating(covariance, results)
    exponents = np.diff(np.log([r.maximum for r in results])) / np.diff(np.log(strengths))
    spread = len(directions) == 0 and _levels_off(exponents)
    converged = all(r.converged for r in results)
    return NoisyLimit(
        process=process, domain=domain, comm=comm, deltas=sequence, strengths=strengths,
        observables=results[0].observables, results=results, mean=mean, mean_error=mean_error, covariance=covariance,
        covariance_error=covariance_error, expectations=expectations, expectation_errors=expectation_errors,
        directions=directions, variances=variances, exponents=exponents, density_converges=spread,
        converged=converged, messages=_messages(process, directions, exponents, spread, converged, sequence),
    )  # fmt: skip


def with_isotropic_noise(process: Process, strength: float) -> Process:
    """Return the process with ``a + strength I`` in place of a (noisy SGD, paper 4.1)."""
    identity = strength * np.eye(process.dimension)
    diffusion = process.diffusion
    return replace(
        process, diffusion=lambda x: diffusion(x) + identity, extra_diffusion=process.extra_diffusion + strength
    )


def extrapolated(
    strengths: np.ndarray, values: Sequence[np.ndarray], errors: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the value at 0 of the polynomial through (strengths, values), and its error.

    The error is the change against the polynomial without the largest strength, plus the values' own errors times
    the weights that they get.
    """
    weights, fewer = _weights_at_zero(strengths), _weights_at_zero(strengths[1:])
    stacked, wrong = np.array(values), np.array(errors)
    limit = np.tensordot(weights, stacked, axes=1)
    change = np.abs(limit - np.tensordot(fewer, stacked[1:], axes=1))
    return limit, change + np.tensordot(np.abs(weights), wrong, axes=1)


def _weights_at_zero(nodes: np.ndarray) -> np.ndarray:
    """Return w with ``Σ w_k p(nodes_k) = p(0)`` for polynomials of degree below the number of nodes."""
    others = nodes[None, :] - nodes[:, None]
    np.fill_diagonal(others, 1.0)
    factors = np.broadcast_to(nodes, others.shape).copy()
    np.fill_diagonal(factors, 1.0)
    return np.asarray(np.prod(factors / others, axis=1))


def _checked_deltas(deltas: Sequence[float] | None, process: Process, domain: Domain, factor: float) -> np.ndarray:
    """Return δ in decreasing order. Raises InputError."""
    if deltas is None:
        lower, upper = domain.bounding_box()
        x = lower + (upper - lower) * np.random.default_rng(0).random((500, len(lower)))
        top = float(np.nan_to_num(np.linalg.eigvalsh(process.diffusion(x))[:, -1]).mean())
        return np.array(DEFAULT) * (top or 1.0) / factor
    try:
        sequence = np.array(deltas, dtype=float)
    except (TypeError, ValueError):
        raise InputError("steady.deltas", deltas, "a list of positive numbers") from None
    good = sequence.ndim == 1 and len(sequence) >= 3 and np.isfinite(sequence).all() and (sequence > 0).all()
    if not good or len(np.unique(sequence)) < len(sequence):
        raise InputError("steady.deltas", deltas, "at least three different positive numbers")
    return np.sort(sequence)[::-1]


def _concentrating(covariance: np.ndarray, results: tuple[SteadyResult, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the directions whose variance tends to 0 with δ, and the variances (m, n)."""
    _, vectors = np.linalg.eigh(covariance)
    candidates = vectors.T
    variances = np.array([[v @ r.covariance @ v for r in results] for v in candidates])
    limits = np.einsum("ki,ij,kj->k", candidates, covariance, candidates)
    keep = limits <= VANISHING * variances[:, -1]
    directions = candidates[keep]
    if not len(directions):
        return directions, variances[keep]
    signs = np.sign(directions[np.arange(len(directions)), np.abs(directions).argmax(axis=1)])
    return directions * signs[:, None], variances[keep]


def _levels_off(exponents: np.ndarray) -> bool:
    """Return whether the growth of the maximum stops: a law (c + δ)^(-1/2) has exponents that tend to 0."""
    last = abs(float(exponents[-1]))
    return last < 0.05 or last < 0.98 * abs(float(exponents[-2]))


def _messages(
    process: Process, directions: np.ndarray, exponents: np.ndarray, spread: bool, converged: bool, deltas: np.ndarray
) -> tuple[str, ...]:
    messages = []
    if len(directions):
        names = "; ".join("(" + ", ".join(f"{round(c, 4) + 0.0:.4f}" for c in v) + ")" for v in directions)
        messages.append(
            f"the invariant measure concentrates in the direction(s) {names} of ({', '.join(process.variables)}): the "
            f"density itself does not converge, its maximum grows like δ^{exponents[-1]:.2f} (δ^-0.5 a direction)"
        )
    elif not spread:
        messages.append(
            f"the density does not converge: its maximum grows like δ^{exponents[-1]:.2f}, and no straight direction "
            "concentrates: the limit lives on a curved set"
        )
    else:
        messages.append(
            "no direction concentrates: the density converges too "
            f"(its maximum grows like δ^{exponents[-1]:.2f} here, more slowly the smaller δ)"
        )
    if not converged:
        messages.append(
            "not every steady state met its tolerance; the layers of width sqrt(δ) need larger δ than "
            f"{deltas[-1]:.3g} or more unknowns (mesh.max_unknowns)"
        )
    return tuple(messages)
