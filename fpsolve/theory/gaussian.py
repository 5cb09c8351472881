r"""Linear drift and constant diffusion: everything about the solution in closed form (paper (14), section 4).

``dX = -C(X - x₀) dt + sqrt(2a) dW`` with constant a >= 0; in the paper's notation a = ε²Q₀. A Gaussian stays Gaussian,

    mean ``m(t) = x₀ + e^{-Ct}(m₀ - x₀)``,  covariance ``S(t) = e^{-Ct} S₀ e^{-Cᵀt} + W(t)``,
    ``W(t) = 2 ∫₀ᵗ e^{-Cs} a e^{-Cᵀs} ds``,

and mean and covariance of any other initial law obey the same formulas.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from scipy.linalg import cholesky, expm, solve_continuous_lyapunov, solve_triangular

#: The Taylor series of W is used where ‖C‖h is at most this; larger times are reached by doubling.
SMALL = 0.125
#: Eigenvalues of C nearer to each other than this, relative to ‖C‖, count as one (a defective double eigenvalue
#: splits by the root of the rounding error).
CLUSTER = 1e-6
#: A covariance is singular when its smallest eigenvalue is below this part of the largest one.
SINGULAR = 1e-13


@dataclass(frozen=True, eq=False)
class LinearDiffusion:
    """The process ``dX = (shift - C(X - x₀)) dt + sqrt(2a) dW`` on ℝ^d; not collective.

    Attributes
    ----------
    C : ndarray, shape (d, d)
        Any real matrix; time is in units in which one SGD step lasts η.
    a : ndarray, shape (d, d)
        Symmetric, nonnegative, may be singular (ε²Q₀ in the paper).
    x0 : ndarray, shape (d,)
    shift : ndarray, shape (d,)
        The part of the drift that no x₀ takes away; zero unless C is singular.
    rational : tuple of two tuples of Fraction, or None
        C and a positive multiple of a, row-major, where the formulas are rational: for exact decisions on ranks.

    Raises
    ------
    ValueError
        If shapes do not fit or a is not symmetric and nonnegative.
    """

    C: np.ndarray
    a: np.ndarray
    x0: np.ndarray
    shift: np.ndarray = None  # type: ignore[assignment]
    rational: tuple[tuple[Fraction, ...], tuple[Fraction, ...]] | None = None

    def __post_init__(self) -> None:
        d = len(np.atleast_1d(self.x0))
        for name, shape in (("C", (d, d)), ("a", (d, d)), ("x0", (d,)), ("shift", (d,))):
            value = np.zeros(d) if name == "shift" and self.shift is None else getattr(self, name)
            array: np.ndarray = np.array(value, dtype=float)
            if array.shape != shape or not np.isfinite(array).all():
                raise ValueError(f"{name} must be a finite array of shape {shape}")
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        scale = np.abs(self.a).max(initial=0.0)
        if np.abs(self.a - self.a.T).max() > 1e-12 * scale or np.linalg.eigvalsh(self.a)[0] < -1e-10 * scale:
            raise ValueError("a must be symmetric and nonnegative")

    @property
    def dimension(self) -> int:
        """The number of variables d."""
        return len(self.x0)

    @cached_property
    def eigenvalues(self) -> np.ndarray:
        """The eigenvalues of C (complex), smallest real part first."""
        values = np.linalg.eigvals(self.C).astype(complex)
        return values[np.lexsort((values.imag, values.real))]

    @property
    def rate(self) -> float:
        """γ = min Re eig C."""
        return float(self.eigenvalues[0].real)

    @cached_property
    def defective(self) -> bool:
        """Whether an eigenvalue with real part γ has too few eigenvectors: then e^{-Ct} is like t^k e^{-γt}, k > 0."""
        size = max(float(np.linalg.norm(self.C, 2)), 1e-300)
        lowest = self.eigenvalues[self.eigenvalues.real <= self.rate + CLUSTER * size]
        for value in lowest:
            near = self.eigenvalues[np.abs(self.eigenvalues - value) <= CLUSTER * size]
            singular = np.linalg.svd(self.C - near.mean() * np.eye(self.dimension), compute_uv=False)
            if len(near) > np.count_nonzero(singular <= CLUSTER * size):
                return True
        return False

    def spectrum(self, count: int) -> np.ndarray:
        """Return the first eigenvalues of -A, the sums ``Σ n_j λ_j`` with n_j = 0, 1, …, smallest real part first.

        Raises
        ------
        ValueError
            Unless C is positive stable: otherwise there is no stationary Gaussian.
        """
        if not self.rate > 0:
            raise ValueError("C has eigenvalues with real part <= 0: no stationary density")
        lam = self.eigenvalues
        queue: list[tuple[float, float, int, int, complex]] = [(0.0, 0.0, 0, 0, 0j)]
        found: list[complex] = []
        number = 0
        while len(found) < count:
            *_, first, value = heapq.heappop(queue)
            found.append(value)
            for j in range(first, len(lam)):  # each multi-index once: only add λ_j from the last one used on
                number += 1
                new = value + complex(lam[j])
                heapq.heappush(queue, (new.real, new.imag, number, j, new))
        return np.array(found)

    def flow(self, t: float) -> np.ndarray:
        """Return e^{-Ct}."""
        return self._flow_and_noise(t)[0]

    def noise(self, t: float) -> np.ndarray:
        """Return W(t), the covariance of X_t started in a point, to rounding for all t >= 0; inf for t → ∞ is allowed.

        For small t every entry is accurate by itself (t³ in kinetic equations), otherwise relative to the largest one.
        """
        return self._flow_and_noise(t)[1]

    def _flow_and_noise(self, t: float) -> tuple[np.ndarray, np.ndarray]:
        """Return e^{-Ct} and W(t): Taylor series at h = t/2^k, then ``W(2h) = W(h) + e^{-Ch} W(h) e^{-Cᵀh}``.

        Van Loan's block exponential holds e^{+Cᵀt} beside W and loses everything for large t, and for small t all
        entries that are small against t (t³ in kinetic equations). Here nothing is subtracted.
        """
        if not t >= 0:
            raise ValueError(f"a time >= 0, not {t}")
        d, size = self.dimension, float(np.linalg.norm(self.C, 2))
        if t == math.inf:
            law = self.stationary
            if law is None:
                raise ValueError("no stationary law")
            return np.zeros((d, d)), law[1]
        doublings = 0 if size * t <= SMALL else max(0, math.ceil(math.log2(size * t / SMALL)))
        h = t / 2.0**doublings
        term = 2 * h * self.a
        noise = term.copy()
        for k in range(2 * d + 12):
            term = -(self.C @ term + term @ self.C.T) * (h / (k + 2))
            noise += term
        flow = expm(-h * self.C)
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(doublings):
                noise = noise + flow @ noise @ flow.T
                flow = flow @ flow
        return flow, 0.5 * (noise + noise.T)

    def mean(self, t: float, m0: np.ndarray) -> np.ndarray:
        """Return the mean at time t from the mean m0 (d,), for any initial law."""
        result = self.x0 + self.flow(t) @ (np.asarray(m0, dtype=float) - self.x0)
        if not self.shift.any():
            return result
        d = self.dimension
        block = np.zeros((d + 1, d + 1))
        block[:d, :d], block[:d, d] = -t * self.C, t * self.shift
        return result + expm(block)[:d, d]

    def covariance(self, t: float, S0: np.ndarray) -> np.ndarray:
        """Return the covariance at time t from the covariance S0 (d, d), for any initial law."""
        flow, noise = self._flow_and_noise(t)
        result = flow @ np.asarray(S0, dtype=float) @ flow.T
        return 0.5 * (result + result.T) + noise

    def second_moments(self, t: float, M0: np.ndarray) -> np.ndarray:
        """Return E (X-x₀)(X-x₀)ᵀ at time t from the one at time 0, for any initial law; needs shift = 0."""
        if self.shift.any():
            raise ValueError("second moments about x0 are closed only when the drift vanishes at x0")
        return self.covariance(t, M0)

    def density(self, t: float, x: np.ndarray, m0: np.ndarray, S0: np.ndarray | None = None) -> np.ndarray:
        """Return the density at points x (n, d) at time t from N(m0, S0), or from the point m0.

        Raises
        ------
        ValueError
            Where the covariance is singular: there is no density.
        """
        S0 = np.zeros((self.dimension, self.dimension)) if S0 is None else S0
        return np.exp(log_density(x, self.mean(t, m0), self.covariance(t, S0)))

    @cached_property
    def stationary(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Mean and covariance K of the stationary law, ``CK + KCᵀ = 2a``; None unless C is positive stable.

        K may be singular: then the law is a Gaussian on a subspace times a Dirac mass (Example 8).
        """
        size = float(np.linalg.norm(self.C, 2))
        if not self.rate > 1e-14 * size:
            return None
        K = solve_continuous_lyapunov(self.C, 2 * self.a)
        return self.x0 + np.linalg.solve(self.C, self.shift), 0.5 * (K + K.T)


def _factor(covariance: np.ndarray) -> np.ndarray:
    """Return the Cholesky factor. Raises ValueError for singular matrices."""
    matrix = np.asarray(covariance, dtype=float)
    scale = np.sqrt(np.maximum(np.diag(matrix), 1e-300))
    values = np.linalg.eigvalsh(matrix / np.outer(scale, scale))
    if not values[0] > SINGULAR * values[-1]:
        raise ValueError("the covariance is singular: the law has no density")
    return cholesky(matrix, lower=True)


def log_density(x: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Return log N(mean, covariance) at points x (n, d), shape (n,). Raises ValueError for singular covariances."""
    L = _factor(covariance)
    z = solve_triangular(L, (np.atleast_2d(x) - mean).T, lower=True)
    return -0.5 * np.sum(z * z, axis=0) - float(np.sum(np.log(np.diag(L)))) - 0.5 * len(L) * math.log(2 * math.pi)


def wasserstein(m1: np.ndarray, S1: np.ndarray, m2: np.ndarray, S2: np.ndarray) -> float:
    """Return the W₂ distance of two Gaussians; for other laws with these moments it is a lower bound (Gelbrich).

    Notes
    -----
    ``W₂² = |m₁-m₂|² + min over orthogonal U of ‖S₁^{1/2} - S₂^{1/2} U‖_F²``: without the cancellation of the trace
    formula, and for singular covariances too.
    """
    return float(np.sqrt(np.sum((np.asarray(m1) - np.asarray(m2)) ** 2) + np.sum(_root_difference(S1, S2) ** 2)))


def _root_difference(S1: np.ndarray, S2: np.ndarray) -> np.ndarray:
    """Return ``S₁^{1/2} - S₂^{1/2} U`` with the orthogonal U that makes it smallest."""
    roots = []
    for matrix in (S1, S2):
        values, vectors = np.linalg.eigh(np.asarray(matrix, dtype=float))
        roots.append(vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T)
    left, _, right = np.linalg.svd(roots[1] @ roots[0])
    return roots[0] - roots[1] @ (left @ right)


def optimal_difference(S1: np.ndarray, S2: np.ndarray) -> np.ndarray:
    """Return the covariance of X - Y under the W₂-optimal coupling of N(0, S1) and N(0, S2)."""
    gap = _root_difference(S1, S2)
    return gap @ gap.T


def _whitened(
    mean: np.ndarray, covariance: np.ndarray, mean2: np.ndarray, covariance2: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return μ - 1 and the offsets along the eigenvectors, where the second law is whitened to N(0, I)."""
    L = _factor(covariance2)
    excess = solve_triangular(L, np.asarray(covariance) - covariance2, lower=True)
    excess = solve_triangular(L, excess.T, lower=True)
    values, vectors = np.linalg.eigh(0.5 * (excess + excess.T))
    offset = solve_triangular(L, np.asarray(mean) - mean2, lower=True)
    return values, vectors.T @ offset


def kullback_leibler(m1: np.ndarray, S1: np.ndarray, m2: np.ndarray, S2: np.ndarray) -> float:
    """Return ``∫ρ log(ρ/ρ₂)`` of N(m1, S1) relative to N(m2, S2); inf for singular S1, ValueError for singular S2."""
    nu, delta = _whitened(m1, S1, m2, S2)
    if np.any(nu <= -1 + SINGULAR):
        return math.inf
    return float(0.5 * np.sum(nu - np.log1p(nu) + delta**2))


def chi_square_entropy(m1: np.ndarray, S1: np.ndarray, m2: np.ndarray, S2: np.ndarray) -> float:
    """Return ``E = ½∫(ρ/ρ₂ - 1)²ρ₂`` of N(m1, S1) relative to N(m2, S2); inf unless S1 < 2 S2 and S1 > 0.

    Notes
    -----
    With ρ₂ whitened to N(0, I), μ_i = 1 + ν_i the eigenvalues of the whitened S1 and δ the offset,
    ``∫ρ²/ρ₂ = Π (1 - ν_i²)^{-1/2} exp(δ_i²/(1 - ν_i))``.
    """
    nu, delta = _whitened(m1, S1, m2, S2)
    if np.any(np.abs(nu) >= 1 - SINGULAR):
        return math.inf
    with np.errstate(over="ignore"):
        return float(0.5 * np.expm1(np.sum(delta**2 / (1 - nu) - 0.5 * np.log1p(-(nu**2)))))
