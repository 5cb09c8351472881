r"""How far the density is from the Gaussian mixture of the local picture (paper 4.5, (61)), measured on the mesh.

``ρ(t) ≈ Σ m_i(t) N(x_i, ε²K_i)`` with the measured masses m_i of the basins of attraction. The paper leaves the error
open (4.5 ii-iii); here it is measured in L¹ and in W₂ at every stored time, for the stationary local laws and for
relaxing ones, which begin with the mean and covariance that the initial density has in each basin and follow the
linearised equation (60) in closed form. What remains then is

* relaxation: N_i(t) is not yet N(x_i, ε²K_i); in closed form, gone for the relaxing mixture;
* anharmonicity: third derivatives of L and the slope of Q, O(ε) in L¹ and O(ε²) in W₂; what stays for t → ∞;
* the mass that belongs to no well: on its way, or at the separatrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mpi4py import MPI

import numpy as np
from dolfinx import fem

from fpsolve.errors import InputError
from fpsolve.fem.cell_quadrature import CellQuadrature
from fpsolve.fem.parallel import on_root
from fpsolve.model.basins import basin_labels
from fpsolve.model.domains import Domain
from fpsolve.model.process import Process
from fpsolve.problems.evolution import EvolveResult
from fpsolve.problems.steady_result import SteadyResult
from fpsolve.theory.gaussian import wasserstein
from fpsolve.theory.mixture import GaussianMixture, LocalGaussian, gaussian_mixture, local_gaussians
from fpsolve.theory.transport import Transport, quantise, wasserstein_bounds, wasserstein_tables

#: Basins with less than this part of the mass have no conditional moments worth using.
EMPTY = 1e-9
#: Pieces of a cell in one dimension, in which masses are counted for W₂.
PIECES = 8
#: A mixture without a density is put on this many times the points first, in place of the mesh's quadrature points.
TWIN = 20


@dataclass(frozen=True)
class MixtureDistance:
    """The distance of a density to a mixture of the same masses.

    Attributes
    ----------
    l1, l1_error : float
        ``∫|ρ - mixture|`` over ℝ^d (ρ = 0 outside of the domain), between 0 and 2, and its quadrature error. The masses
        together where the mixture is singular: no density is close to it in L¹.
    w2 : Transport
        W₂ of both divided by their masses: with bounds in 2D and 3D; in 1D value ± an estimate from pieces twice as
        large. Negative values of ρ count as 0.
    far : float
        Part of the mass further from every well than the asked number of standard deviations.
    """

    l1: float
    l1_error: float
    w2: Transport
    far: float


@dataclass(frozen=True)
class MassSplitting:
    """The density compared with the mixture at all k stored times; numbers are the same on every rank.

    Attributes
    ----------
    times : ndarray, shape (k,)
        One SGD step lasts η.
    wells : tuple of LocalGaussian
        At the M minima, in the order of the run's.
    masses : ndarray, shape (k, M)
        m_i(t), measured; their sum is less than 1 where gradient flow leads to none of the minima.
    stationary, relaxing : tuple of MixtureDistance
        To ``Σ m_i(t) N(x_i, ε²K_i)`` and to ``Σ m_i(t) N(μ_i(t), S_i(t))``, μ and S from (60).
    relaxation : ndarray, shape (k,)
        ``(Σ m_i W₂(N(μ_i(t), S_i(t)), N(x_i, ε²K_i))²)^{1/2}``, an upper bound of W₂ between the two mixtures.
    means, covariances : ndarray, shapes (k, M, d), (k, M, d, d)
        Of the density restricted to each basin; nan where it has no mass.
    predicted_means, predicted_covariances : ndarray
        μ_i(t), S_i(t).
    deviations : float
        What counts as far.
    """

    times: np.ndarray
    wells: tuple[LocalGaussian, ...]
    masses: np.ndarray
    stationary: tuple[MixtureDistance, ...]
    relaxing: tuple[MixtureDistance, ...]
    relaxation: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    predicted_means: np.ndarray
    predicted_covariances: np.ndarray
    deviations: float

    def l1(self, relaxing: bool = False) -> np.ndarray:
        """Return the L¹ distances, shape (k,)."""
        return np.array([d.l1 for d in (self.relaxing if relaxing else self.stationary)])

    def w2(self, relaxing: bool = False) -> np.ndarray:
        """Return value, lower and upper bound of W₂, shape (k, 3)."""
        found = self.relaxing if relaxing else self.stationary
        return np.array([(d.w2.value, d.w2.lower, d.w2.upper) for d in found])

    @property
    def far(self) -> np.ndarray:
        """The part of the mass that is far from every well, shape (k,)."""
        return np.array([d.far for d in self.stationary])

    def mixture(self, k: int, relaxing: bool = False) -> GaussianMixture:
        """Return the mixture at the k-th stored time."""
        if relaxing:
            return GaussianMixture(self.masses[k], self.predicted_means[k], self.predicted_covariances[k])
        return gaussian_mixture(self.wells, self.masses[k])

    def valid(self, level: float, measure: str = "l1", relaxing: bool = False) -> tuple[tuple[float, float], ...]:
        """Return the intervals of stored times in which the distance is at most `level`.

        Parameters
        ----------
        level : float
        measure : "l1" or "w2"
        relaxing : bool
            Of the relaxing mixture.
        """
        if measure not in ("l1", "w2"):
            raise InputError("measure", measure, '"l1" or "w2"')
        good = (self.l1(relaxing) if measure == "l1" else self.w2(relaxing)[:, 0]) <= level
        edges = np.flatnonzero(np.diff(np.concatenate([[False], good, [False]]).astype(int)))
        return tuple(
            (float(self.times[a]), float(self.times[b - 1])) for a, b in zip(edges[::2], edges[1::2], strict=True)
        )


def mass_splitting(
    run: EvolveResult, *, points: int = 800, deviations: float = 4.0, corrected: bool = False
) -> MassSplitting:
    """Compare an evolution with the Gaussian mixture of the local picture at all stored times. Collective.

    Parameters
    ----------
    run : EvolveResult
        Of SGD with constant ε², without flux through the boundary.
    points : int
        On which measures are put for W₂ in 2D and 3D: the bounds' width falls like points^{-1/d}, the time grows
        like its square.
    deviations : float
        Mass further from all wells than this many standard deviations of the local Gaussians is `far`.
    corrected : bool
        Centres of the Gaussians at ``x_i + shift`` (`LocalGaussian.shift`), where the means of relaxed wells are.

    Raises
    ------
    InputError
        If the boundary absorbs, ε² changes in time, there is no minimum, or one is degenerate.
    NotConverged
        If a transport problem is not solved.
    """
    if run.boundary_condition != "no-flux":
        raise InputError("boundary", run.boundary_condition, '"no-flux"', "Mass that has left is in no well.")
    if not run.schedule.constant:
        raise InputError("schedule", run.schedule, "a constant ε²", "The width of the local Gaussians follows from it.")
    wells = _wells(run.process, run.minima, corrected)
    frame = _Frame(run.densities[0], run.process, run.domain, run.minima, points, deviations)
    masses = np.array([np.maximum(record.basins / record.mass, 0.0) for record in run.records])  # undershoots are none
    moments = [frame.moments(density) for density in run.densities]
    start = _conditional(wells, *moments[0])
    predicted = [[well.at(t, *law) for well, law in zip(wells, start, strict=True)] for t in run.times]
    means, covariances = (np.array([[law[i] for law in row] for row in predicted]) for i in (0, 1))
    stationary: list[MixtureDistance] = []
    relaxing: list[MixtureDistance] = []
    for k, density in enumerate(run.densities):
        pair = gaussian_mixture(wells, masses[k]), GaussianMixture(masses[k], means[k], covariances[k])
        for found, distance in zip((stationary, relaxing), frame.distances(density, pair), strict=True):
            found.append(distance)
    return MassSplitting(
        times=run.times, wells=wells, masses=masses, stationary=tuple(stationary), relaxing=tuple(relaxing),
        relaxation=_relaxation(wells, masses, means, covariances),
        means=np.array([m[1] for m in moments]), covariances=np.array([m[2] for m in moments]),
        predicted_means=means, predicted_covariances=covariances, deviations=deviations,
    )  # fmt: skip


def steady_mixture(
    steady: SteadyResult, *, points: int = 800, deviations: float = 4.0, corrected: bool = False
) -> tuple[GaussianMixture, MixtureDistance]:
    """Return the mixture (18) with the masses of a steady state's basins, and its distance to it. Collective.

    See `mass_splitting` for the parameters and errors.
    """
    wells = _wells(steady.process, steady.minima, corrected)
    mixture = gaussian_mixture(wells, steady.basin_masses / steady.mass)
    frame = _Frame(steady.density, steady.process, steady.domain, steady.minima, points, deviations)
    return mixture, frame.distances(steady.density, [mixture])[0]


def _wells(process: Process, minima: np.ndarray, corrected: bool) -> tuple[LocalGaussian, ...]:
    if not len(minima):
        raise InputError("process", process.variables, "a loss with a minimum in the domain", "None was found.")
    wells = local_gaussians(process, minima)
    return tuple(well.corrected for well in wells) if corrected else wells


def _conditional(
    wells: Sequence[LocalGaussian], masses: np.ndarray, means: np.ndarray, covariances: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return mean and covariance with which each local law starts; the stationary ones where there is no mass."""
    return [
        (means[i], covariances[i]) if masses[i] > EMPTY else (well.x, well.covariance) for i, well in enumerate(wells)
    ]


def _relaxation(
    wells: Sequence[LocalGaussian], masses: np.ndarray, means: np.ndarray, covariances: np.ndarray
) -> np.ndarray:
    squares = [
        [wasserstein(m, S, well.x, well.covariance) ** 2 for well, m, S in zip(wells, row, matrices, strict=True)]
        for row, matrices in zip(means, covariances, strict=True)
    ]
    return np.sqrt(np.sum(masses * np.array(squares), axis=1))


class _Frame:
    """What is needed of a mesh to compare densities on it with mixtures. All methods are collective."""

    def __init__(
        self,
        density: fem.Function,
        process: Process,
        domain: Domain,
        minima: np.ndarray,
        points: int,
        deviations: float,
    ) -> None:
        if points < 8 or not deviations > 0:
            raise InputError("points, deviations", (points, deviations), "at least 8 points and a positive number")
        self.mesh = density.function_space.mesh
        self.comm: MPI.Comm = self.mesh.comm
        self.d = self.mesh.topology.dim
        degree = density.function_space.element.basix_element.degree
        self.quadrature = CellQuadrature(self.mesh, 2 * degree + 4)
        self._finer = CellQuadrature(self.mesh, 2 * degree + 8)
        self.points, self.deviations = points, deviations
        size = float(np.linalg.norm(np.subtract(*domain.bounding_box())))
        shape = self.quadrature.weights.shape
        self._label = basin_labels(process, minima, self.quadrature.flat, size).reshape(shape)
        self._count = len(minima)

    def moments(self, density: fem.Function) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return mass (M,), mean (M, d) and covariance (M, d, d) of the density in each basin."""
        x, w = self.quadrature.points, self.quadrature.weights * self.quadrature.values(density)
        rows = [w * (self._label == i) for i in range(self._count)]
        masses = self.comm.allreduce(np.array([row.sum() for row in rows]))
        safe = np.where(masses > EMPTY, masses, np.nan)
        means = self.comm.allreduce(np.array([np.einsum("cq,cqi->i", row, x) for row in rows])) / safe[:, None]
        centred = [x - np.where(np.isfinite(mean), mean, 0.0) for mean in means]
        seconds = [np.einsum("cq,cqi,cqj->ij", row, y, y) for row, y in zip(rows, centred, strict=True)]
        return masses, means, self.comm.allreduce(np.array(seconds)) / safe[:, None, None]

    def distances(self, density: fem.Function, mixtures: Sequence[GaussianMixture]) -> list[MixtureDistance]:
        """Return all distances of a density to some mixtures."""
        values = self.quadrature.values(density)
        w2 = (self._on_line if self.d == 1 else self._by_program)(density, mixtures)
        result = []
        for mixture, transport in zip(mixtures, w2, strict=True):
            far = self.quadrature.at(mixture.distances) > self.deviations
            mass, away = self.quadrature.integral(np.stack([values, values * far], axis=2))
            l1, error = float(mass) + mixture.mass, 0.0
            if mixture.regular:
                l1 = self._l1(self._finer, density, mixture)
                error = abs(l1 - self._l1(self.quadrature, density, mixture))
            result.append(MixtureDistance(l1, error, transport, float(away / mass)))
        return result

    @staticmethod
    def _l1(quadrature: CellQuadrature, density: fem.Function, mixture: GaussianMixture) -> float:
        other = quadrature.at(mixture.density)
        difference = np.abs(quadrature.values(density) - other)
        inside, total = quadrature.integral(np.stack([other, difference], axis=2))
        return float(total) + max(mixture.mass - float(inside), 0.0)

    def _on_line(self, density: fem.Function, mixtures: Sequence[GaussianMixture]) -> list[Transport]:
        place, mass = self._pieces(density)

        def one(mixture: GaussianMixture) -> Transport:
            x, F = mixture.distribution()
            found = []
            for step in (1, 2):
                part = mass.reshape(-1, step).sum(axis=1)
                P = np.concatenate([[0.0], np.cumsum(part)]) / part.sum()
                P[-1] = 1.0
                found.append(wasserstein_tables(place[::step], P, x, F))
            error = abs(found[0] - found[1])
            return Transport(found[0], max(found[0] - error, 0.0), found[0] + error)

        return on_root(self.comm, lambda: [one(mixture) for mixture in mixtures])

    def _pieces(self, density: fem.Function) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends of the pieces of all cells on the line, and ∫ρ⁺ over each, on rank 0."""
        x, w = np.polynomial.legendre.leggauss(density.function_space.element.basix_element.degree + 1)
        inner = (np.arange(PIECES)[:, None] + 0.5 * (x + 1)).reshape(-1, 1) / PIECES
        values = CellQuadrature(self.mesh, 1, inner).values(density)
        ends = CellQuadrature(self.mesh, 1, np.linspace(0, 1, PIECES + 1)[:, None]).points[:, :, 0]
        length = np.abs(ends[:, -1:] - ends[:, :1]) / PIECES
        mass = length * (values.reshape(-1, PIECES, len(x)) @ (0.5 * w))
        turned = ends[:, 0] > ends[:, -1]
        ends[turned], mass[turned] = ends[turned, ::-1], mass[turned, ::-1]
        parts = self.comm.gather((ends, np.maximum(mass, 0.0)))
        if parts is None:
            return np.empty(0), np.empty(0)
        ends, mass = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        order = np.argsort(ends[:, 0])
        return np.append(ends[order, :-1].ravel(), ends[order[-1], -1]), mass[order].ravel()

    def _by_program(self, density: fem.Function, mixtures: Sequence[GaussianMixture]) -> list[Transport]:
        volumes = self.quadrature.weights
        columns = [volumes * self.quadrature.values(density)]
        columns += [volumes * self.quadrature.at(m.density) if m.regular else 0 * volumes for m in mixtures]
        local = np.concatenate(
            [self.quadrature.flat, volumes.reshape(-1, 1), *(c.reshape(-1, 1) for c in columns)], axis=1
        )
        parts = self.comm.gather(local)

        def work() -> list[Transport]:
            assert parts is not None
            table = np.concatenate(parts)
            x, volume, weights = table[:, : self.d], table[:, self.d], np.maximum(table[:, self.d + 1 :], 0.0).T
            mean = weights[0] @ x / weights[0].sum()
            covariance = np.einsum("n,ni,nj->ij", weights[0] / weights[0].sum(), x - mean, x - mean)
            mine = quantise(x, weights[0], self.points, volume)
            result = []
            for mixture, own in zip(mixtures, weights[1:], strict=True):
                other = mixture.quantised(self.points)
                fine = mixture.quantised(TWIN * self.points)
                cloud = (x, own, self.points, volume) if own.any() else (fine.points, fine.weights, self.points)
                least = wasserstein(mean, covariance, mixture.mean, mixture.covariance)
                result.append(wasserstein_bounds(mine, other, quantise(*cloud), least))
            return result

        return on_root(self.comm, work)
