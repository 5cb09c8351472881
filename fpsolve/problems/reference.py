"""The stationary density ρ∞ that entropies refer to: known in closed form or computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from mpi4py import MPI

import numpy as np
from dolfinx import fem
from scipy.linalg import solve_continuous_lyapunov

from fpsolve.errors import InputError
from fpsolve.fem.functionals import Scalar, at_points, whole_cells
from fpsolve.fem.generator import Generator
from fpsolve.fem.parallel import agree
from fpsolve.model.domains import Domain
from fpsolve.model.momentum import stationary_log_density
from fpsolve.model.process import Process

#: Points at which a drift is compared with an affine function.
PROBES = 200


@dataclass(frozen=True)
class Reference:
    """ρ∞ on a domain, with mass 1 there.

    Attributes
    ----------
    origin : str
        ``"Gibbs (exact)"``, ``"Gaussian (exact)"``, ``"given"`` or ``"computed"``.
    log_density : callable, (n, d) -> (n,), or None
        log ρ∞, normalised on the mesh by quadrature.
    function : dolfinx Function or None
        ρ∞, where it was computed.
    at_noise : callable or None
        θ -> the reference for ε²θ; None where that is not known.
    """

    origin: str
    log_density: Scalar | None = None
    function: fem.Function | None = None
    at_noise: Callable[[float], Reference] | None = field(default=None, repr=False)

    def at(self, theta: float) -> Reference | None:
        """Return ρ∞ for the noise ε²θ, None where it is not known. Collective."""
        if theta == 1.0:
            return self
        return None if self.at_noise is None else self.at_noise(theta)

    @classmethod
    def given(cls, exponent: Scalar, generator: Generator, origin: str = "given", tempered: bool = False) -> Reference:
        """Return the density proportional to ``exp(exponent)``. Collective.

        Parameters
        ----------
        exponent : callable, (n, d) -> (n,)
            log ρ∞ up to a constant; -inf is allowed.
        generator : Generator
            Its mesh carries the normalisation.
        tempered : bool
            Whether the density for ε²θ is proportional to ``exp(exponent/θ)``.

        Raises
        ------
        InputError
            On every rank, if the exponent is nan or +inf somewhere, or -inf everywhere.
        """
        shift = _log_mass(exponent, generator)

        def scaled(theta: float) -> Reference:
            return cls.given(lambda x: exponent(x) / theta, generator, origin)

        return cls(origin, lambda x: exponent(x) - shift, None, scaled if tempered else None)

    @classmethod
    def gibbs(cls, process: Process, generator: Generator) -> Reference | None:
        """Return ``∝ exp(-L/s)`` for a = s I constant, f = -∇L (mathematics.md section 4); else None. Collective."""
        if process.landscape is None or not (process.isotropic and process.constant_diffusion):
            return None
        landscape = process.landscape
        strength = float(process.diffusion(np.zeros((1, process.dimension)))[0, 0, 0])
        if not strength > 0:
            return None
        return cls.given(lambda x: -landscape.loss(x) / strength, generator, "Gibbs (exact)", tempered=True)

    @classmethod
    def gaussian(cls, mean: np.ndarray, covariance: np.ndarray, generator: Generator) -> Reference:
        """Return N(mean, covariance), restricted to the domain; the covariance scales with ε². Collective."""
        mean, inverse = np.asarray(mean, dtype=float), np.linalg.inv(covariance)

        def exponent(x: np.ndarray) -> np.ndarray:
            return -0.5 * np.einsum("ni,ij,nj->n", x - mean, inverse, x - mean)

        return cls.given(exponent, generator, "Gaussian (exact)", tempered=True)

    @classmethod
    def computed(cls, function: fem.Function) -> Reference:
        """Return a steady state that was computed, with mass 1."""
        return cls("computed", None, function)


def known_reference(process: Process, domain: Domain, generator: Generator) -> Reference | None:
    """Return ρ∞ where it has a closed form, else None. Collective.

    Gibbs for a = s I and f = -∇L; ``∝ exp(-(g/D)(L(w) + |v|²/2))`` for momentum (Dai-Zhu Theorem 3); Gaussian for
    linear drift and constant a.
    """
    reference = Reference.gibbs(process, generator)
    if reference is not None:
        return reference
    exponent = stationary_log_density(process)
    if exponent is not None:
        return Reference.given(exponent, generator, "Gibbs (exact)", tempered=True)
    law = stationary_gaussian(process, domain)
    return None if law is None else Reference.gaussian(*law, generator)


def stationary_gaussian(process: Process, domain: Domain) -> tuple[np.ndarray, np.ndarray] | None:
    """Return mean and covariance of the stationary Gaussian of ``f = -C(x - m)``, constant a. Not collective.

    ``CK + KCᵀ = 2a`` (mathematics.md section 4). The drift is compared with an affine function at points of the
    bounding box.

    Returns
    -------
    mean (d,), covariance (d, d), or None
        None where the drift is not linear, C not positive stable or K singular (Kalman's rank condition fails).
    """
    if not process.constant_diffusion:
        return None
    d = process.dimension
    lower, upper = domain.bounding_box()
    x = lower + (upper - lower) * np.random.default_rng(0).random((PROBES, d))
    drift = process.drift(x)
    design = np.column_stack([np.ones(PROBES), (x - lower) / (upper - lower)])
    fit, *_ = np.linalg.lstsq(design, drift, rcond=None)
    if not np.abs(design @ fit - drift).max() <= 1e-10 * np.abs(drift).max():
        return None
    matrix = -(fit[1:].T / (upper - lower))
    matrix = np.where(np.abs(matrix) <= 1e-12 * np.abs(matrix).max(), 0.0, matrix)
    if not np.linalg.eigvals(matrix).real.min() > 1e-10 * np.abs(matrix).max():
        return None
    a = process.diffusion(lower[None, :])[0]
    covariance = solve_continuous_lyapunov(matrix, 2 * a)
    covariance = 0.5 * (covariance + covariance.T)
    values = np.linalg.eigvalsh(covariance)
    if not values[0] > 1e-10 * values[-1]:
        return None
    mean = lower + np.linalg.solve(matrix, process.drift(lower[None, :])[0])
    return np.where(np.abs(mean) <= 1e-12 * (upper - lower), 0.0, mean), covariance


def _log_mass(exponent: Scalar, generator: Generator) -> float:
    """Return log ∫ exp(exponent) over the mesh. Collective."""
    comm = generator.space.mesh.comm
    degree = 2 * generator.degree + 4
    values = [(points.weights, at_points(exponent, points.x)) for points in whole_cells(generator.space.mesh, degree)]
    top = float(np.max([np.max(value) for _, value in values], initial=-np.inf))
    bad = np.isnan(top) or top == np.inf
    agree(comm, InputError("reference", "not finite", "a log-density that is finite or -inf") if bad else None)
    top = comm.allreduce(top, op=MPI.MAX)
    if top == -np.inf:
        raise InputError("reference", "-inf", "a density that is positive somewhere in the domain")
    mass = comm.allreduce(float(sum(np.sum(weights * np.exp(value - top)) for weights, value in values)))
    return top + float(np.log(mass))
