r"""Linear drift and long times: exact moments, Theorems 4.11 and 4.13, W₂ distances; and what truncation does to them.

z = x - x₀, F = e^{-Ct}, K from ``CK + KCᵀ = 2a``, Γ₀ = E zzᵀ at time 0, ρ∞ = N(x₀, K), which may be singular.

**Exact.** ``E z = F E z₀`` and ``E zzᵀ = K + F(Γ₀ - K)Fᵀ`` for every initial law.

**Theorem 4.13.** Two solutions of the stochastic differential equation with the same noise differ by F(X₀ - X₀').
With X₀' ~ ρ∞ and any coupling of the two starts, Γ = E(X₀-X₀')(X₀-X₀')ᵀ,

    ``W₁(ρ(t), ρ∞)² <= W₂(ρ(t), ρ∞)² <= tr(FΓFᵀ)``.                                         (C)

W₁ is the largest ``∫φ(ρ - ρ∞)`` over φ of Lipschitz constant 1, the left-hand side of (56). No density is needed, C₁
may be nonzero, and any start with second moments will do. With ``CP + PCᵀ >= 2gP`` (`decay.contraction`),
``FᵀP^{-1}F <= e^{-2gt}P^{-1}``:

- (56): ``W₁ <= κ₁e^{-gt}``, ``κ₁² = λ_max(P) tr(P^{-1}Γ)``, g = min Re eig C, the smaller one of γ(C₀) and λ_min(C₃);
- (57): ``|∫|z|²(ρ - ρ∞)| = |tr F(Γ₀-K)Fᵀ| <= κ₂e^{-2gt}``, κ₂ = λ_max(P) times the sum of the absolute eigenvalues of
  Γ₀ - K relative to P.

*Printed* is the rate min{2γ(C₀), 2λ_max(C₃)} for both. In (57) it fails where λ_min(C₃) < min{γ(C₀), λ_max(C₃)}; in
(56) it fails whenever the means differ, by the factor 2.

**Truncation.** Processes that solve the same equation inside Ω agree until they leave Ω. Let P with ``CP + PCᵀ >= 2a``,
``q = zᵀP^{-1}z``, 0 < θ < 1 and V = e^{θq/2}. As ``zᵀP^{-1}Cz = ½wᵀ(CP+PCᵀ)w >= wᵀaw`` for w = P^{-1}z,

    ``AV = θV [tr(aP^{-1}) + θ wᵀaw - zᵀP^{-1}Cz] <= θ tr(aP^{-1}) V``,

and given X₀, W(t) <= P - FPFᵀ gives ``E V(X_t) <= (1-θ)^{-d/2} V(X₀)``. With q >= r² on ∂Ω, Dynkin's formula up to the
first exit τ from Ω yields

    ``p(t) = P(τ <= t) <= e^{-θr²/2} E V(X₀) (1 + θ tr(aP^{-1}) t (1-θ)^{-d/2})``.

After τ the free process starts at most sup_Ω|z| away and ``‖e^{-Cs}‖² <= cond(P)``, so that

    ``E[|z_t|²; τ <= t] <= p(t) (cond(P) sup_Ω|z|² + tr K)``,

and that plus ``p sup_Ω|z|²`` bounds the difference of ∫|z|²ρ between Ω and ℝ^d; similarly for the mean and W₂.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import solve_continuous_lyapunov

from fpsolve.model.domains import Ball as BallDomain
from fpsolve.model.domains import Box as BoxDomain
from fpsolve.model.domains import Interval
from fpsolve.theory.constants import Constant
from fpsolve.theory.decay import OUTWARD, Contraction, conditions, contraction
from fpsolve.theory.gaussian import LinearDiffusion, optimal_difference, wasserstein
from fpsolve.theory.linear import structure
from fpsolve.theory.theorem import numbers
from fpsolve.theory.timebounds import TimeBound, inapplicable, vectorised

Initial = Callable[[Callable[[np.ndarray], np.ndarray]], float]
#: θ to try, and sizes of the added noise η relative to the start's variance.
THETAS = (0.5, 0.7, 0.85, 0.95)
SPREADS = (0.5, 1.0, 2.0, 4.0, 8.0)
#: An equality counts as proven when truncation changes it by less than this part.
EXACT = 1e-8
#: Floating-point evaluation of p(t) is trusted within this factor.
SLACK = 1.01
SECOND = "second moment about the centre"


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments of the start about x₀: ``mean`` of z, ``second`` of zzᵀ."""

    mean: np.ndarray
    second: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """The covariance."""
        return self.second - np.outer(self.mean, self.mean)


def initial_moments(law: LinearDiffusion, initial: Initial) -> Moments:
    """Return the moments of the initial datum. Collective if `initial` is."""
    d, x0 = law.dimension, law.x0
    mean = np.array([initial(lambda x, i=i: x[:, i] - x0[i]) for i in range(d)])  # type: ignore[misc]
    second = np.zeros((d, d))
    for i in range(d):
        for j in range(i + 1):
            second[i, j] = second[j, i] = initial(lambda x, i=i, j=j: (x[:, i] - x0[i]) * (x[:, j] - x0[j]))  # type: ignore[misc]
    return Moments(mean, second)


@dataclass(frozen=True, eq=False)
class Truncation:
    """How far the process in Ω can be from the one on ℝ^d; see the module's docstring.

    Attributes
    ----------
    head : float
        ``e^{-θr²/2} E V(X₀)``.
    growth : float
        ``θ tr(aP^{-1}) (1-θ)^{-d/2}``.
    inside, outside : float
        ``sup_Ω|z|²`` and ``cond(P) sup_Ω|z|² + tr K``.
    """

    head: float
    growth: float
    inside: float
    outside: float

    def probability(self, t: float) -> float:
        """Return an upper bound of P(τ <= t)."""
        return min(SLACK * self.head * (1 + self.growth * t), 1.0)

    def mean_error(self, t: float) -> float:
        """Return how much any entry of the mean may differ."""
        # twice: an absorbed process' moments are divided by its mass, which is at least 1 - p
        return 2 * self.probability(t) * (math.sqrt(self.inside) + math.sqrt(self.outside))

    def second_error(self, t: float) -> float:
        """Return how much ∫|z|²ρ, or an entry of the second moments, may differ."""
        return 2 * self.probability(t) * (self.inside + self.outside)

    def distance_error(self, t: float) -> float:
        """Return a bound of the W₂ distance between the two laws."""
        return math.sqrt(2 * self.probability(t) * (self.inside + self.outside))


def truncation(law: LinearDiffusion, domain: Any, initial: Initial, start: Moments) -> Truncation | None:
    """Return what truncation to an interval, box or ball may change; None for others. Collective if `initial` is."""
    levels = _levels(law, domain)
    if levels is None or law.shift.any() or not law.rate > 0:
        return None
    level, radius = levels
    best: tuple[float, np.ndarray, float] | None = None
    for P in _comparisons(law, start):
        if not np.linalg.eigvalsh(P)[0] > 1e-12 * np.trace(P):
            continue
        for theta in THETAS:
            score = _log_gaussian(P, theta, start) - theta * level(P) / 2
            if best is None or score < best[0]:
                best = score, P, theta
    if best is None or not math.isfinite(best[0]):
        return None
    _, P, theta = best
    inverse, height = np.linalg.inv(P), level(P)

    def scaled(x: np.ndarray) -> np.ndarray:
        z = x - law.x0
        return np.exp(np.minimum(0.5 * theta * (np.einsum("ni,ij,nj->n", z, inverse, z) - height), 600.0))

    growth = theta * float(np.trace(law.a @ inverse)) * (1 - theta) ** (-law.dimension / 2)
    assert law.stationary is not None
    outside = float(np.linalg.cond(P)) * radius**2 + float(np.trace(law.stationary[1]))
    # a density that oscillates about 0 far out may make the integral of a tiny V negative
    return Truncation(max(initial(scaled), 0.0), growth, radius**2, outside)


def _levels(law: LinearDiffusion, domain: Any) -> tuple[Callable[[np.ndarray], float], float] | None:
    """Return ``P -> inf over ∂Ω of zᵀP^{-1}z`` and sup |z|."""
    if isinstance(domain, BallDomain):
        offset = float(np.linalg.norm(np.array(domain.center) - law.x0))
        gap = max(domain.radius - offset, 0.0)
        return lambda P: gap**2 / float(np.linalg.eigvalsh(P)[-1]), domain.radius + offset
    if isinstance(domain, (BoxDomain, Interval)):
        lo, hi = domain.bounding_box()
        gaps = np.maximum(np.minimum(law.x0 - lo, hi - law.x0), 0.0)
        far = float(np.linalg.norm(np.maximum(np.abs(law.x0 - lo), np.abs(hi - law.x0))))
        return lambda P: float(np.min(gaps**2 / np.diag(P))), far
    return None


def _comparisons(law: LinearDiffusion, start: Moments) -> list[np.ndarray]:
    """Return matrices P with CP + PCᵀ >= 2a: K and others with more noise, for singular K and wide starts."""
    d = law.dimension
    base = solve_continuous_lyapunov(law.C, 2 * law.a)
    unit = solve_continuous_lyapunov(law.C, 2 * np.eye(d))
    size = max(float(np.linalg.norm(start.covariance, 2)), 1e-3 * float(np.trace(start.second)), 1e-300)
    scale = size / float(np.linalg.norm(unit, 2))
    return [0.5 * (P + P.T) for P in [base, *(base + s * scale * unit for s in SPREADS)]]


def _log_gaussian(P: np.ndarray, theta: float, start: Moments) -> float:
    """Return log E e^{θq/2} for a Gaussian start with these moments; inf where it diverges."""
    room = P - theta * start.covariance
    if not np.linalg.eigvalsh(room)[0] > 0:
        return math.inf
    exponent = 0.5 * theta * float(start.mean @ np.linalg.solve(room, start.mean))
    return exponent - 0.5 * float(np.linalg.slogdet(np.linalg.solve(P, room))[1])


@dataclass(frozen=True, eq=False)
class Setting:
    """What all statements about one linear problem share."""

    law: LinearDiffusion
    start: Moments
    gaussian: bool
    cut: Truncation | None
    whole_space: bool
    horizon: float
    hypotheses: dict[str, Constant]

    def error(self, kind: str, t: float) -> float:
        """Return the truncation error of that kind at time t; 0 on ℝ^d."""
        return 0.0 if self.cut is None else float(getattr(self.cut, f"{kind}_error")(t))

    def doubt(self, kind: str | None = None, scale: float = 0.0) -> str:
        """Return why a statement about the problem in Ω is not proven; for equalities with the size of the quantity."""
        if self.whole_space:
            return ""
        if self.cut is None:
            return "the theorem holds on ℝ^d; no bound of what truncating the domain changes"
        if kind is not None:
            error = self.error(kind, self.horizon)
            if error > EXACT * scale:
                return f"the theorem holds on ℝ^d; truncation may change this by up to {error:.2g}"
        return ""


def linear_bounds(
    law: LinearDiffusion,
    initial: Initial,
    domain: Any = None,
    names: tuple[str, ...] = ("paper", "sharp", "printed"),
    gaussian: bool = False,
    horizon: float | None = None,
) -> list[TimeBound]:
    """Return the exact moments and Theorems 4.11 and 4.13. Collective if `initial` is.

    Parameters
    ----------
    domain : Domain or None
        Where the problem is solved; None for ℝ^d.
    gaussian : bool
        Whether the start is a Gaussian (or a point).
    horizon : float, optional
        Last time of interest; 20/γ by default.
    """
    hypotheses, reason = conditions(law)
    if law.shift.any() or not hypotheses["gamma"].value > 0 or not hypotheses["gamma"].verified:
        why = "the drift vanishes nowhere" if law.shift.any() else reason
        statements = (("Theorem 4.11", "stationary law", "equal"), ("Theorem 4.13 (57)", SECOND, "upper"))
        return [inapplicable("paper", t, q, k, why, hypotheses) for t, q, k in statements if "paper" in names]  # type: ignore[arg-type]
    start = initial_moments(law, initial)
    cut = None if domain is None else truncation(law, domain, initial, start)
    horizon = 20 / law.rate if horizon is None else horizon
    setting = Setting(law, start, gaussian, cut, domain is None, horizon, hypotheses)
    norm = contraction(law.C, law.defective)
    found: list[TimeBound] = []
    if "sharp" in names:
        found += _exact(setting)
    if "paper" in names:
        found += [_stationary(setting, reason), *_rates(setting, norm)]
    if "sharp" in names:
        found.append(_coupling(setting))
    if "printed" in names:
        found += _printed(setting)
    return found


def _exact(setting: Setting) -> list[TimeBound]:
    """Mean, covariance, second moment and Gelbrich's distance: equalities."""
    law, start = setting.law, setting.start
    m0, S0 = law.x0 + start.mean, start.covariance
    scale = float(np.trace(start.second + law.stationary[1]))  # type: ignore[index]
    x0 = law.x0

    def make(theorem: str, quantity: str, kind: str, size: float, **more: Any) -> TimeBound:
        doubt = setting.doubt(kind, size)
        return TimeBound(
            "sharp", theorem, quantity, "equal", not doubt, doubt, setting.hypotheses, {"rate": law.rate}, **more
        )

    def second(t: float) -> float:
        return float(np.trace(law.second_moments(t, start.second)))

    return [
        make("Equation (14), exact mean", "mean", "mean", math.sqrt(scale), record_key="mean",
             curve=vectorised(lambda t: law.mean(t, m0))),
        make("Equation (14), exact covariance", "covariance", "second", scale, record_key="covariance",
             curve=vectorised(lambda t: law.covariance(t, S0))),
        make("Theorem 4.13 (57), exact second moment", SECOND, "second", scale, curve=vectorised(second),
             integrand=lambda t, x: np.sum((x - x0) ** 2, axis=1)),
    ]  # fmt: skip


def _stationary(setting: Setting, reason: str) -> TimeBound:
    law = setting.law
    assert law.stationary is not None
    quantity = "second moment of the stationary Gaussian about its mean"
    if reason:
        return inapplicable("paper", "Theorem 4.11", quantity, "equal", reason, setting.hypotheses)
    mean, K = law.stationary
    parameters = {"mean": numbers(mean), "covariance": tuple(numbers(row) for row in K)}
    doubt = setting.doubt("second", float(np.trace(K)))
    value = float(np.trace(K))
    return TimeBound(
        "paper", "Theorem 4.11", quantity, "equal", not doubt, doubt, setting.hypotheses, parameters,
        vectorised(lambda t: value),
    )  # fmt: skip


def _rates(setting: Setting, norm: Contraction) -> list[TimeBound]:
    """Theorem 4.13 with explicit constants; (57) as an upper and a lower bound of the second moment."""
    law, start = setting.law, setting.start
    assert law.stationary is not None
    x0, K = law.x0, law.stationary[1]
    inverse, most = np.linalg.inv(norm.P), float(np.linalg.eigvalsh(norm.P)[-1])
    doubt = setting.doubt() or ("" if norm.verified else "the decay rate in the norm could not be proven")
    first = math.sqrt(most * float(np.trace(inverse @ (start.second + K))))
    root = np.linalg.cholesky(inverse)
    second = most * float(np.sum(np.abs(np.linalg.eigvalsh(root.T @ (start.second - K) @ root))))
    limit = float(np.trace(K))
    shared: dict[str, Any] = {"defective": law.defective}

    def moment(sign: int) -> Callable[[float], float]:
        return lambda t: (
            limit
            + sign * (second * math.exp(-2 * norm.rate * t) + setting.error("second", t) + OUTWARD * (limit + second))
        )

    result = [
        TimeBound(
            "paper", "Theorem 4.13 (56)", "W₁ distance to the limit (by the means)", "upper", not doubt, doubt,
            setting.hypotheses, shared | {"rate": norm.rate, "kappa1": first},
            vectorised(lambda t: first * math.exp(-norm.rate * t) * (1 + OUTWARD) + setting.error("mean", t)),
            statistic=lambda mean, covariance: float(np.linalg.norm(mean - x0)),
        )
    ]  # fmt: skip
    for kind, sign in (("upper", 1), ("lower", -1)):
        result.append(
            TimeBound(
                "paper", "Theorem 4.13 (57)", SECOND, kind, not doubt, doubt, setting.hypotheses,  # type: ignore[arg-type]
                shared | {"rate": 2 * norm.rate, "kappa2": second, "limit": limit}, vectorised(moment(sign)),
                lambda t, x: np.sum((x - x0) ** 2, axis=1),
            )
        )  # fmt: skip
    return result


def _coupling(setting: Setting) -> TimeBound:
    """W₂ to the limit, with the best coupling for Gaussian starts and the independent one otherwise."""
    law, start = setting.law, setting.start
    assert law.stationary is not None
    mean, K = law.stationary
    gamma = optimal_difference(start.covariance, K) + np.outer(start.mean, start.mean)
    if not setting.gaussian:
        gamma = start.second + K
    doubt = setting.doubt()

    def value(t: float) -> float:
        flow = law.flow(t)
        return math.sqrt(max(float(np.trace(flow @ gamma @ flow.T)), 0.0)) * (1 + OUTWARD) + setting.error(
            "distance", t
        )

    return TimeBound(
        "sharp", "Theorem 4.13, W₂ by coupling", "W₂ distance to the limit (Gelbrich)", "upper", not doubt, doubt,
        setting.hypotheses, {"rate": law.rate, "gaussian": setting.gaussian}, vectorised(value),
        statistic=lambda m, S: wasserstein(m, S, mean, K),
    )  # fmt: skip


def _printed(setting: Setting) -> list[TimeBound]:
    """(57) with the printed rate min{2γ(C₀), 2λ_max(C₃)}: not a bound."""
    law, blocks = setting.law, structure(setting.law)
    if not blocks.deterministic.shape[1] or not blocks.diffusive.shape[1]:
        return []
    assert law.stationary is not None
    x0, limit = law.x0, float(np.trace(law.stationary[1]))
    fast = float(np.max(np.linalg.eigvals(blocks.C3).real))
    rate = 2 * min(float(np.min(np.linalg.eigvals(blocks.C0).real)), fast)
    size = abs(float(np.trace(setting.start.second)) - limit)
    reason = "not a bound: printed with λ_max(C₃); the rate is λ_min(C₃)"
    return [
        TimeBound(
            "printed", "Theorem 4.13 (57) as printed", SECOND, "upper", False, reason, setting.hypotheses,
            {"rate": rate, "kappa2": size}, vectorised(lambda t: limit + size * math.exp(-rate * t)),
            lambda t, x: np.sum((x - x0) ** 2, axis=1),
        )
    ]  # fmt: skip
