r"""The local picture at the minima of the loss (paper 4.5, equations (17), (60), (61)).

Near a minimum x_i the process is to leading order linear, ``dX = -C(X - x_i) dt + sqrt(2a_i) dW`` with
``C = D²L(x_i)`` (-Df(x_i) for a general drift) and ``a_i = a(x_i) = ε²Q(x_i)``. Its stationary law is N(x_i, ε²K_i),
``C K_i + K_i Cᵀ = 2Q(x_i)``. The paper conjectures that the whole density is the mixture ``Σ m_i(t) N(x_i, ε²K_i)``.

Terms the linearisation drops are of relative size ε where x - x_i is of size ε: ``D³L[z, z]`` and the slope of Q. (The
paper expands Q from ``∇L_i(x) = O(ε)``, so that (59) has errors of order ε² in the noise; as the sample gradients need
not vanish at x_i, Q(x_i + εz) - Q(x_i) is of order ε.) They change the density by O(ε) in L¹ but move mass only by
O(ε²), the size ε of the well times ε, so W₂ = O(ε²). In one dimension with Q = 1, K = 1/L'':

    ``L¹ = ε |L'''| K^{3/2} √(2/π)/3``,  ``W₂ = ε² |L'''| K² √11/6``,

since ``ρ = N (1 - ε L''' z³/6)`` to leading order. Nine tenths of this W₂ are a shift of the mean: d/dt E X is E f(X),
so the mean of a relaxed well is ``x_i + ½C⁻¹ D²f(x_i):ε²K_i + O(ε⁴)`` in any dimension, for any drift and whatever the
slope of Q. With the centres moved there, W₂ has √2/6 in place of √11/6, and L¹ nineteen twentieths of the above.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr, ndtri

from fpsolve.errors import InputError
from fpsolve.model.expressions import Formula
from fpsolve.model.process import Process
from fpsolve.theory.gaussian import LinearDiffusion, log_density
from fpsolve.theory.transport import Quantised

#: |f| at a minimum may be this part of ‖Df‖ times the size of the point.
AT_REST = 1e-6
#: A standard deviation below this part of the largest one counts as none.
FLAT = 1e-7
#: Step of the differences for second derivatives of a drift that is no formula, relative.
DIFFERENCE = 1e-3
#: How far a one-dimensional table of the distribution function reaches, in standard deviations, and its points.
REACH, TABLE = 8.3, 2001


@dataclass(frozen=True, eq=False)
class LocalGaussian:
    """The linearised process at a minimum, (60) in the original variables; time as in the process.

    Attributes
    ----------
    x : ndarray, shape (d,)
        The minimum.
    law : LinearDiffusion
        With C = -Df(x), a = a(x): all of the paper's section 4 in closed form.
    covariance : ndarray, shape (d, d)
        ε²K of the stationary law; singular where noise does not reach all directions.
    shift : ndarray, shape (d,)
        ``½C⁻¹ D²f:ε²K``, by how much the mean of the well is off the minimum, up to O(ε⁴).
    """

    x: np.ndarray
    law: LinearDiffusion
    covariance: np.ndarray
    shift: np.ndarray

    @property
    def corrected(self) -> LocalGaussian:
        """The same with its centre at x + shift."""
        centre = self.x + self.shift
        return LocalGaussian(centre, replace(self.law, x0=centre, rational=None), self.covariance, 0.0 * self.shift)

    @property
    def regular(self) -> bool:
        """Whether the stationary law has a density."""
        return _has_density(self.covariance)

    def at(self, t: float, mean: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and covariance at time t from those of any initial law: ``x + e^{-Ct}(m - x)``, and so on."""
        return self.law.mean(t, mean), self.law.covariance(t, covariance)


def local_gaussians(process: Process, minima: np.ndarray | Sequence[Sequence[float]]) -> tuple[LocalGaussian, ...]:
    """Return the linearised process at each of these points. Not collective.

    Parameters
    ----------
    process : Process
        With a loss, or with its drift given by formulas (f = 0 at the points then).
    minima : array, shape (k, d)
        From `find_minima`, an `EvolveResult` or a `SteadyResult`.

    Raises
    ------
    InputError
        Where the process is at no rest point, C is not positive stable (a saddle, or a degenerate minimum: there is
        no stationary Gaussian), or the derivative of the drift is not known.
    """
    points = np.array(minima, dtype=float)
    if points.ndim != 2 or points.shape[1] != process.dimension or not np.isfinite(points).all():
        raise InputError("minima", points.tolist(), f"a list of points with {process.dimension} finite coordinates")
    if not len(points):
        return ()
    jacobian, noise, drift = _slope(process, points), process.diffusion(points), process.drift(points)
    result = []
    for k, x in enumerate(points):
        C, size = -jacobian[k], float(np.linalg.norm(jacobian[k], 2))
        if not np.linalg.norm(drift[k]) <= AT_REST * size * (1.0 + float(np.linalg.norm(x))):
            remedy = f"The drift is {drift[k].tolist()} there."
            raise InputError(f"minima[{k}]", x.tolist(), "a point where the drift vanishes", remedy)
        law = LinearDiffusion(C, noise[k], x)
        stationary = law.stationary
        if stationary is None or law.rate <= 1e-9 * size:
            remedy = (
                f"D²L (in general -Df) has an eigenvalue with real part {law.rate:.3g} there: no stationary Gaussian."
            )
            raise InputError(f"minima[{k}]", x.tolist(), "a nondegenerate minimum", remedy)
        bend = _curvature(process, x, stationary[1])
        result.append(LocalGaussian(x, law, stationary[1], np.linalg.solve(C, 0.5 * bend)))
    return tuple(result)


def _slope(process: Process, x: np.ndarray) -> np.ndarray:
    """Return Df at points, shape (n, d, d)."""
    if isinstance(process.drift, Formula):
        return process.drift.derivative()(x)
    if process.landscape is not None:
        return -process.landscape.hessian(x)
    raise InputError("process.drift", process.drift, "a process with a loss, or a drift given by formulas")


def _curvature(process: Process, x: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Return ``D²f(x):S``, shape (d,): exact for formulas, otherwise from differences of Df of fourth order."""
    if isinstance(process.drift, Formula):
        second = process.drift.derivative().derivative()(x[None, :])[0]
        return np.asarray(np.einsum("ijk,jk->i", second, covariance))
    values, vectors = np.linalg.eigh(covariance)
    h = DIFFERENCE * (1.0 + float(np.abs(x).max()))
    places = x + h * np.array([-2.0, -1.0, 1.0, 2.0])[:, None, None] * vectors.T
    slopes = _slope(process, places.reshape(-1, len(x))).reshape(4, len(x), len(x), len(x))
    change = np.tensordot(np.array([1.0, -8.0, 8.0, -1.0]) / (12 * h), slopes, axes=1)  # along each axis k
    return np.asarray(np.einsum("k,kij,jk->i", values, change, vectors))


def _has_density(covariance: np.ndarray) -> bool:
    try:
        log_density(np.zeros((1, len(covariance))), np.zeros(len(covariance)), covariance)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """``Σ w_i N(x_i, S_i)``, with singular S_i allowed.

    Attributes
    ----------
    weights : ndarray, shape (M,)
        Nonnegative; their sum is the mass, 1 or less where some mass belongs to no well.
    means : ndarray, shape (M, d)
    covariances : ndarray, shape (M, d, d)

    Raises
    ------
    ValueError
        If shapes do not fit, or a weight is negative beyond rounding.
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    def __post_init__(self) -> None:
        weights, means, covariances = (np.array(v, dtype=float) for v in (self.weights, self.means, self.covariances))
        if means.ndim != 2 or weights.shape != means.shape[:1] or covariances.shape != (*means.shape, means.shape[1]):
            raise ValueError("M weights, M means (M, d) and M covariances (M, d, d)")
        if not (weights >= -1e-6).all() or not weights.sum() > 0:
            raise ValueError("weights must be nonnegative with a positive sum")
        for name, value in (("weights", np.maximum(weights, 0.0)), ("means", means), ("covariances", covariances)):
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    @property
    def mass(self) -> float:
        """The sum of the weights."""
        return float(self.weights.sum())

    @property
    def regular(self) -> bool:
        """Whether all parts with mass have a density."""
        return all(_has_density(S) for w, S in zip(self.weights, self.covariances, strict=True) if w > 0)

    def density(self, x: np.ndarray) -> np.ndarray:
        """Return the density at points (n, d), shape (n,). Raises ValueError where a part with mass has none."""
        x = np.atleast_2d(x)
        result = np.zeros(len(x))
        for w, m, S in zip(self.weights, self.means, self.covariances, strict=True):
            if w > 0:
                result += w * np.exp(log_density(x, m, S))
        return result

    @property
    def mean(self) -> np.ndarray:
        """The mean of the mixture divided by its mass, shape (d,)."""
        return np.asarray(self.weights @ self.means / self.mass)

    @property
    def covariance(self) -> np.ndarray:
        """Its covariance, within and between the parts, shape (d, d)."""
        offset = self.means - self.mean
        between = np.einsum("k,ki,kj->ij", self.weights, offset, offset)
        return np.asarray((np.einsum("k,kij->ij", self.weights, self.covariances) + between) / self.mass)

    def distances(self, x: np.ndarray) -> np.ndarray:
        """Return the Mahalanobis distance of points (n, d) to the nearest part, shape (n,).

        Counted in standard deviations; infinite off the range of a singular covariance.
        """
        x = np.atleast_2d(x)
        result = np.full(len(x), np.inf)
        for m, S in zip(self.means, self.covariances, strict=True):
            values, vectors = np.linalg.eigh(S)
            z = (x - m) @ vectors
            kept = values > FLAT**2 * max(values[-1], 0.0)
            distance = np.sum(z[:, kept] ** 2 / values[kept], axis=1)
            off = np.abs(z[:, ~kept]).max(axis=1, initial=0.0) > FLAT * np.sqrt(max(values[-1], 1e-300))
            result = np.minimum(result, np.where(off, np.inf, np.sqrt(distance)))
        return result

    def sample(self, count: int, seed: int) -> np.ndarray:
        """Return independent points of the law (divided by its mass), shape (count, d)."""
        rng = np.random.default_rng(seed)
        part = rng.choice(len(self.weights), size=count, p=self.weights / self.mass)
        values, vectors = np.linalg.eigh(self.covariances)
        roots = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
        z = rng.standard_normal((count, self.means.shape[1]))
        return self.means[part] + np.einsum("nij,nj->ni", roots[part], z)

    def quantised(self, count: int) -> Quantised:
        """Return about `count` points for the law divided by its mass: barycentres of boxes along principal axes.

        The boxes are asymptotically optimal in each direction (Panter and Dite) and shared out between parts and
        directions so that the spread is smallest. The spread, W₂ to the law itself or a little more, is exact.
        """
        d, used = self.means.shape[1], np.flatnonzero(self.weights > 0)
        variances = np.array([max(float(np.trace(self.covariances[k])), 0.0) for k in used])
        share = (self.weights[used] * variances) ** (d / (d + 2)) + 1e-300
        points, weights, lost = [], [], 0.0
        for k, part in zip(used, share / share.sum(), strict=True):
            x, w, spread2 = _product(self.means[k], self.covariances[k], max(1, round(count * part)))
            points.append(x)
            weights.append(self.weights[k] / self.mass * w)
            lost += self.weights[k] / self.mass * spread2
        return Quantised(np.concatenate(points), np.concatenate(weights), math.sqrt(lost))

    def masses(self, labels: Callable[[np.ndarray], np.ndarray], count: int = 4000) -> np.ndarray:
        """Return the mass of the mixture in M regions, by quantisation.

        Parameters
        ----------
        labels : callable, (n, d) -> (n,) of int
            The region of a point, e.g. ``lambda x: basin_labels(process, minima, x)``; others than 0 … M - 1 count
            for none.
        count : int
        """
        law = self.quantised(count)
        found, M = labels(law.points), len(self.weights)
        inside = (found >= 0) & (found < M)
        return self.mass * np.bincount(found[inside], law.weights[inside], minlength=M)

    def distribution(self) -> tuple[np.ndarray, np.ndarray]:
        """Return points x and P(X <= x) of a one-dimensional mixture divided by its mass, a table from 0 to 1."""
        if self.means.shape[1] != 1:
            raise ValueError("only in one dimension")
        used = self.weights > 0
        w, m = self.weights[used] / self.mass, self.means[used, 0]
        s = np.maximum(np.sqrt(np.maximum(self.covariances[used, 0, 0], 0.0)), 1e-12 * (1.0 + np.abs(m)))
        x = np.unique(m[:, None] + s[:, None] * np.linspace(-REACH, REACH, TABLE))
        F = ndtr((x[:, None] - m) / s) @ w
        F[0], F[-1] = 0.0, 1.0
        return x, F


def gaussian_mixture(wells: Sequence[LocalGaussian], masses: np.ndarray | Sequence[float]) -> GaussianMixture:
    """Return ``Σ m_i N(x_i, ε²K_i)``, (61) with the stationary local laws.

    Raises
    ------
    InputError
        Unless there is one nonnegative mass for each well, not all zero.
    """
    masses = np.asarray(masses, dtype=float)
    if masses.shape != (len(wells),) or not len(wells) or not (masses >= -1e-6).all() or not masses.sum() > 0:
        raise InputError("masses", masses.tolist(), f"{len(wells)} nonnegative numbers, one for each well, not all 0")
    return GaussianMixture(masses, np.array([w.x for w in wells]), np.array([w.covariance for w in wells]))


def _product(mean: np.ndarray, covariance: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return points, weights and ∫|x - barycentre|² of a product quantisation of a Gaussian along its axes."""
    values, vectors = np.linalg.eigh(covariance)
    deviations = np.sqrt(np.maximum(values, 0.0))
    deviations[deviations <= FLAT * deviations[-1]] = 0.0
    numbers = _shared(deviations, count)
    axes = [_standard(n) for n in numbers]
    grids = np.meshgrid(*[x for x, _ in axes], indexing="ij")
    weights = np.ones(1)
    for _, w in axes:
        weights = np.multiply.outer(weights, w).ravel()
    z = np.stack([g.ravel() for g in grids], axis=1)
    kept = np.array([float(w @ x**2) for x, w in axes])
    lost = float(np.sum(np.maximum(values, 0.0)) - np.sum(deviations**2 * kept))
    return mean + (z * deviations) @ vectors.T, weights, max(lost, 0.0)


def _shared(deviations: np.ndarray, count: int) -> list[int]:
    """Return numbers of intervals in proportion to the deviations, with a product of about `count`."""
    numbers = np.ones(len(deviations))
    open_ = deviations > 0
    while open_.any():
        scale = (count / np.prod(deviations[open_])) ** (1 / np.count_nonzero(open_))
        small = open_ & (scale * deviations < 1)
        if not small.any():
            numbers[open_] = np.maximum(np.round(scale * deviations[open_]), 1)
            break
        open_ &= ~small
    return [int(n) for n in numbers]


def _standard(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return barycentres and masses of n intervals for N(0, 1), with point density proportional to its cube root."""
    half = math.sqrt(3.0) * ndtri(np.arange(n + 1) / n)
    edges = 0.5 * (half - half[::-1])  # exactly symmetric
    F = np.where(edges < 0, ndtr(edges), 0.5)
    upper = np.where(edges > 0, ndtr(-edges), 0.5)
    mass = np.diff(F) - np.diff(upper)
    phi = np.exp(-0.5 * edges**2) / math.sqrt(2 * math.pi)
    return -np.diff(phi) / mass, mass / mass.sum()
