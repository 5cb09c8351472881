"""What an evolution computes: records at the stored times, the steps taken, and the fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mpi4py import MPI

import numpy as np
from dolfinx import fem

from fpsolve.fem.boundary import Boundary
from fpsolve.fem.meshing import Triangulation
from fpsolve.model.domains import Domain
from fpsolve.model.process import Process
from fpsolve.model.schedule import Schedule

if TYPE_CHECKING:
    from fpsolve.problems.monitors import Reference


@dataclass(frozen=True)
class Record:
    """What is observed of the density at a stored time (time in units in which one SGD step lasts η).

    Attributes
    ----------
    t : float
    mass : float
        ∫ρ; with absorbing boundary the survival probability P(τ > t).
    outflow : float
        -d/dt mass, the density of the exit time at t; 0 without absorbing boundary.
    minimum, maximum : float
        Over the nodes of the elements.
    mean : ndarray, shape (d,)
    covariance : ndarray, shape (d, d)
        Both of the density divided by its mass.
    observables : ndarray
        ∫ g ρ for each observable g that was asked for.
    entropy, entropy_production : float or None
        ``E = ½∫(ρ/ρ∞ - 1)²ρ∞`` and ``∫∇(ρ/ρ∞)ᵀa∇(ρ/ρ∞)ρ∞ = ε² I`` (mathematics.md section 4), where ρ∞ is known.
    relative_entropy : float or None
        Kullback-Leibler, ``∫ρ log(ρ/ρ∞)``.
    basins : ndarray
        ∫ρ over the basin of attraction of each minimum of L; empty without a loss.
    near_boundary : float
        The part of the mass within the boundary layer of the truncated domain.
    """

    t: float
    mass: float
    outflow: float
    minimum: float
    maximum: float
    mean: np.ndarray
    covariance: np.ndarray
    observables: np.ndarray
    entropy: float | None = None
    entropy_production: float | None = None
    relative_entropy: float | None = None
    basins: np.ndarray = field(default_factory=lambda: np.empty(0))
    near_boundary: float = 0.0


@dataclass(frozen=True)
class Step:
    """One accepted time step.

    Attributes
    ----------
    t : float
        At its end.
    dt : float
    theta : float
        ε² during the step divided by the process' own one.
    error : float
        Estimated local error relative to the solution.
    """

    t: float
    dt: float
    theta: float
    error: float


@dataclass(frozen=True)
class Cost:
    """Where the time went, in seconds on the slowest rank, and how often."""

    assembly: float = 0.0
    factorisations: int = 0
    factorisation: float = 0.0
    solves: int = 0
    solving: float = 0.0
    monitoring: float = 0.0
    total: float = 0.0


@dataclass(frozen=True)
class EvolveResult:
    """The Fokker-Planck equation ``∂_t ρ = A*ρ`` solved; global numbers are the same on every rank.

    Attributes
    ----------
    initial : object
        One of `fpsolve.model.initial`.
    boundary_condition : "no-flux" or "absorbing"
    records : tuple of Record
        At t = 0 and at the stored times.
    densities : tuple of dolfinx Function
        ρ at the same times.
    errors : Mapping of str to ndarray
        Estimated errors at the same times from the control run: ``mean`` (n, d), ``covariance`` (n, d, d),
        ``observables`` (n, k), ``mass`` (n,). Empty without a control run.
    steps : tuple of Step
    rejected : int
    nonnegative : bool
        Whether the scheme keeps ρ >= 0.
    reference : Reference or None
        ρ∞, where known or computed.
    minima : ndarray, shape (k, d)
        Of L; the basins in the records are theirs.
    converged : bool
        Whether the estimated errors meet the tolerance (True when none was asked for).
    """

    process: Process
    domain: Domain
    comm: MPI.Comm
    triangulation: Triangulation
    boundary: Boundary
    initial: object
    boundary_condition: str
    schedule: Schedule
    scheme: str
    degree: int
    order: int
    nonnegative: bool
    unknowns: int
    cells: int
    solver: str
    observables: tuple[str, ...]
    records: tuple[Record, ...]
    densities: tuple[fem.Function, ...]
    errors: Mapping[str, np.ndarray]
    steps: tuple[Step, ...]
    rejected: int
    tolerance: float | None
    converged: bool
    cost: Cost
    minima: np.ndarray
    reference: Reference | None = None
    messages: tuple[str, ...] = ()

    @property
    def times(self) -> np.ndarray:
        """The times of the records."""
        return np.array([record.t for record in self.records])


@dataclass(frozen=True)
class BackwardResult:
    """The backward Kolmogorov equation ``∂_t u = A u`` solved: ``u(t, x) = E_x φ(X_t)``.

    Attributes
    ----------
    terminal : str
        φ.
    points : ndarray, shape (n, d)
    times : ndarray, shape (k,)
        Including 0.
    values : ndarray, shape (k, n)
        u(t, points).
    errors : ndarray or None, shape (k, n)
        Estimated, from the control run.
    fields : tuple of dolfinx Function
    duality_defect : float or None
        The largest ``|∫ρ(t)φ - ∫ρ₀u(t)|`` over the stored times, relative to the largest of ``∫|ρ(t)φ|`` ;
        None for schemes that do not claim duality.
    """

    process: Process
    domain: Domain
    comm: MPI.Comm
    triangulation: Triangulation
    boundary: Boundary
    boundary_condition: str
    terminal: str
    points: np.ndarray
    times: np.ndarray
    values: np.ndarray
    errors: np.ndarray | None
    fields: tuple[fem.Function, ...]
    duality_defect: float | None
    scheme: str
    degree: int
    order: int
    unknowns: int
    cells: int
    solver: str
    steps: tuple[Step, ...]
    tolerance: float | None
    converged: bool
    cost: Cost
    messages: tuple[str, ...] = ()
