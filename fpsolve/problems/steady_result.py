"""What a steady-state computation answers: the invariant density, the spectrum, the current."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mpi4py import MPI

import numpy as np
from dolfinx import fem

from fpsolve.fem.boundary import Boundary
from fpsolve.fem.meshing import Triangulation
from fpsolve.fem.points import evaluate, locate
from fpsolve.model.domains import Domain
from fpsolve.model.process import Process
from fpsolve.problems.request import as_points


@dataclass(frozen=True)
class SteadyHistory:
    """One line of the refinement history."""

    cells: int
    unknowns: int
    eigenvalues: np.ndarray
    eigenvalue_errors: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    density_error: float
    zero_count: int
    seconds: float


@dataclass(frozen=True)
class SteadyResult:
    """The long-time limit of ``∂_t ρ = A*ρ`` without flux through the boundary; numbers are the same on every rank.

    Rates are per unit of time, in which one SGD step lasts η.

    Attributes
    ----------
    observables : tuple of str
    density : dolfinx Function
        ρ with A*ρ = 0 and mass 1; where there are several invariant measures, the limit of a uniform start.
    mass : float
        ∫ρ.
    minimum, maximum : float
        Over the nodes; high-order schemes may be slightly negative where ρ is tiny.
    mean : ndarray, shape (d,)
    covariance : ndarray, shape (d, d)
    expectations : ndarray
        ∫gρ for each observable.
    mean_error, covariance_error, expectation_errors : ndarray
        Estimated errors of these.
    residual : float
        ``‖Bᵀρ‖₁ / ‖|B|ᵀ|ρ|‖₁``.
    density_error : float
        Estimated ``‖ρ - exact‖₁`` on the domain.
    eigenvalues : ndarray of complex
        Of -A: 0 first, then by increasing real part.
    eigenvalue_errors : ndarray
        Estimated absolute errors.
    reach : tuple of float
        (σ, r): all eigenvalues with ``|λ + σ| < r`` were looked at; a smaller real part outside is not seen.
    zero_count : int
        Eigenvalues that cannot be told from 0: the number of invariant measures with a density.
    unique : bool
    right, left : tuple of (Function, Function)
        Real and imaginary parts of eigenfunctions of A and A*: ``∫|x_j|²ρ = 1``, ``∫y_i x_j = δ_ij``, the first moment
        of y_j (coordinates, then their products) that does not vanish is positive; x₀ = 1, y₀ = ρ.
    spectral_gap : float
        The smallest real part of the other eigenvalues.
    poincare : float or None
        The constant of (50), its estimated error `poincare_error`; how it was found, or why not, is in
        `poincare_reason`.
    current : dolfinx Function
        ``J = -(a∇ρ + βρ)``, vector.
    current_norm, current_error : float
        ``‖J‖₁/(‖a∇ρ‖₁ + ‖βρ‖₁)`` and the part of it that is discretisation error.
    detailed_balance : bool
        Whether J cannot be told from 0.
    minima : ndarray, shape (k, d)
        Of the loss; none without a loss.
    basin_masses : ndarray, shape (k,)
        ∫ρ over their basins of attraction.
    converged : bool
        Whether the tolerance is met (an error of 10 % where none was asked).
    cost : float
        Seconds.
    """

    process: Process
    domain: Domain
    comm: MPI.Comm
    triangulation: Triangulation
    boundary: Boundary
    scheme: str
    degree: int
    observables: tuple[str, ...]
    density: fem.Function
    mass: float
    minimum: float
    maximum: float
    mean: np.ndarray
    covariance: np.ndarray
    expectations: np.ndarray
    mean_error: np.ndarray
    covariance_error: np.ndarray
    expectation_errors: np.ndarray
    residual: float
    density_error: float
    eigenvalues: np.ndarray
    eigenvalue_errors: np.ndarray
    reach: tuple[float, float]
    zero_count: int
    unique: bool
    right: tuple[tuple[fem.Function, fem.Function], ...]
    left: tuple[tuple[fem.Function, fem.Function], ...]
    spectral_gap: float
    poincare: float | None
    poincare_error: float
    poincare_reason: str
    current: fem.Function
    current_norm: float
    current_error: float
    detailed_balance: bool
    minima: np.ndarray
    basin_masses: np.ndarray
    unknowns: int
    cells: int
    solver: str
    tolerance: float | None
    converged: bool
    cost: float
    levels: tuple[SteadyHistory, ...] = field(default_factory=tuple)
    messages: tuple[str, ...] = ()

    def at(self, points: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
        """Return ρ at points (n, d), nan outside the mesh. Collective."""
        where = locate(self.density.function_space.mesh, as_points(points, self.process.dimension, "points"))
        return evaluate(self.density, where)
