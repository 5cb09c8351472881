r"""Decay of the entropy ``E = ½∫(ρ/ρ∞ - 1)²ρ∞`` (paper Proposition 4.8, Corollary 4.10, Theorem 4.12).

**Proposition 4.8, Corollary 4.10** on a domain Ω without flux. With h = ρ/ρ∞ and the stationary flux J∞ (div J∞ = 0 in
Ω, J∞·n = 0 on ∂Ω, zero in the reversible case) ``J = -ρ∞ a∇h + h J∞``, so that

    ``dE/dt = ∫h ∂_tρ = ∫∇h·J = -∫∇hᵀa∇h ρ∞ + ½∫∇(h²)·J∞ = -∫∇hᵀa∇h ρ∞``.

Poincaré's inequality (50), ``λ∫(h-1)²ρ∞ <= ∫∇hᵀa∇h ρ∞``, says ``2λE <= -dE/dt``: ``E(t) <= e^{-2λt}E(0)``. (51)-(53)
are printed with λ in place of 2λ, which is weaker and true too. The best λ is the spectral gap of -A for reversible A.

**Proven Poincaré constants.** f = -∇L, a = sI constant, Ω convex, ρ∞ ∝ e^{-L/s} on Ω:

- D²L >= λ > 0 on Ω: (50) holds with λ (Bakry and Émery; on convex domains without flux the boundary adds a term of the
  good sign, the second fundamental form).
- D²L >= 0 on Ω: (50) holds with ``s π²/diam(Ω)²`` (Payne and Weinberger, for log-concave densities).
- D²L >= -δ: L + δ|x-c|²/2 is convex, c the centre of Ω, and the bounded perturbation costs at most the factor
  ``e^{-δ diam²/8s}`` (Holley and Stroock); used where δ is so small that this hardly matters.

**Theorem 4.12** (linear drift, (I) and (II), on ℝ^d). In coordinates in which K = I, ``C' = K^{-1/2}CK^{1/2}``
satisfies ``C' + C'ᵀ = 2a' >= 0``, and F = e^{-C't} is a contraction. The semigroup of the OU process is the second
quantisation of F: it maps the Hermite polynomials of degree n to themselves and acts there as the n-th symmetric tensor
power of F, of norm <= ‖F‖ⁿ. So its norm on the functions of mean zero in L²(ρ∞) is exactly ‖F‖ (n = 1; Arnold,
Schmeiser and Signorello 2022 call it equality of the propagator norms). h - 1 evolves by the adjoint, of the same norm:

- *sharp*: ``E(t) <= ‖K^{-1/2}e^{-Ct}K^{1/2}‖² E(0)``; an equality in the limit of small shifts of ρ∞ in the direction
  of the largest singular vector.
- *paper*: ``E(t) <= c e^{-2γt}E(0)``, with c = cond(P) for a matrix P with ``C'P + PC'ᵀ >= 2γP``, which bounds ‖F‖².
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from flint import arb
from scipy.linalg import solve_continuous_lyapunov

from fpsolve.model.domains import Ball as BallDomain
from fpsolve.model.domains import Box as BoxDomain
from fpsolve.model.domains import Interval
from fpsolve.model.process import Process
from fpsolve.model.schedule import Schedule
from fpsolve.theory.balls import below, box_balls, largest_eigenvalue
from fpsolve.theory.constants import Constant, Field, as_constant, search
from fpsolve.theory.cover import Cover
from fpsolve.theory.gaussian import LinearDiffusion
from fpsolve.theory.linear import MARGINS, contracts, kalman_rank, positive, proven_rate, structure
from fpsolve.theory.search import Budget
from fpsolve.theory.theorem import prepare
from fpsolve.theory.timebounds import Name, TimeBound, inapplicable, vectorised

#: Relative outward rounding of curves, which are evaluated in double precision.
OUTWARD = 1e-12
ENTROPY = "entropy E"
TRUNCATED = "the theorem holds on ℝ^d; the process was solved in a bounded domain"
#: Defective rates are lowered by this part.
DEFECT = 0.02
#: Accuracy of inf D²L in units of s/diam², and the largest exponent by which a lack of convexity may cost.
FLAT, LARGEST_DEFECT = 1e-3, 2.0
#: Eigenvectors of C with a larger condition number are not used.
LARGEST_CONDITION = 1e6


def is_reversible(process: Process) -> bool:
    """Tell whether f = -∇L and a = sI constant, so that ρ∞ ∝ e^{-L/s} without flux."""
    landscape = process.landscape
    if landscape is None or landscape.variables != process.variables:
        return False
    if not (process.isotropic and process.constant_diffusion):
        return False
    x = np.linspace(-0.7, 0.9, 3 * process.dimension).reshape(3, process.dimension)
    return bool(np.array_equal(process.drift(x), -landscape.gradient(x)))


def convexity(field: Field, cover: Cover, budget: Budget, absolute: float = 0.0) -> Constant:
    """Bound inf λ_min(D²L) over a cover from below; `absolute` is an accuracy that is enough near zero."""
    d = field.dimension

    def bound(lo: np.ndarray, hi: np.ndarray) -> tuple[float, None]:
        return largest_eigenvalue([-h for h in field.hessian(box_balls(lo, hi))], d), None

    def value(x: np.ndarray) -> np.ndarray:
        return -np.linalg.eigvalsh(field.process.landscape.hessian(x))[:, 0]  # type: ignore[union-attr]

    return as_constant("convexity of L", "lower", search(bound, value, cover, budget, absolute))


def poincare_constant(process: Process, domain: Any, seconds: float = 5.0) -> Constant:
    """Return a proven λ of (50) on Ω without flux, or an unverified constant with the reason. Not collective."""
    method = "Bakry-Émery or Payne-Weinberger on a convex domain"

    def failed(reason: str) -> Constant:
        return Constant("Poincaré constant", 0.0, "lower", method, 0, False, reason)

    if not is_reversible(process):
        return failed("needs f = -∇L and a = sI constant")
    if not isinstance(domain, (Interval, BoxDomain, BallDomain)):
        return failed("the domain is not known to be convex")
    prepared = prepare(process, domain)
    if isinstance(prepared, str):
        return failed(prepared)
    field, cover = prepared
    lo, hi = (np.asarray(corner, dtype=float) for corner in domain.bounding_box())
    if isinstance(domain, BallDomain):
        diameter2 = (2 * arb(float(domain.radius))) ** 2
    else:
        diameter2 = sum(((arb(float(b)) - arb(float(a))) ** 2 for a, b in zip(lo, hi, strict=True)), arb(0))
    s = field.diffusion(lo, hi)[0][0]
    found = convexity(field, cover, Budget.seconds(seconds), FLAT * below(s / diameter2))
    defect = max(-found.value, 0.0) * diameter2 / (8 * s)
    if not found.verified or not defect < LARGEST_DEFECT:
        return failed(found.reason or f"L is not convex on Ω: D²L >= {found.value:.4g} only")
    value = max(found.value, below((-defect).exp() * s * arb.pi() ** 2 / diameter2))
    return Constant("Poincaré constant", value, "lower", method, found.boxes)


@dataclass(frozen=True)
class Start:
    """Where an entropy bound starts: E(time) = entropy; None where it is not known or infinite."""

    entropy: float | None
    time: float = 0.0

    @property
    def failure(self) -> str:
        """Why nothing follows."""
        if self.entropy is None or not math.isfinite(self.entropy):
            return "the entropy at the start is infinite or not known"
        return ""

    def curve(self, factor: Callable[[float], float]) -> Callable[[np.ndarray], np.ndarray]:
        """Return ``E(time) factor(t - time)`` for t >= time, inf before."""
        entropy = self.entropy or 0.0
        return vectorised(lambda t: entropy * factor(t - self.time) * (1 + OUTWARD) if t >= self.time else math.inf)


def entropy_bounds(
    process: Process,
    proven: Constant,
    start: Start,
    gap: float | None = None,
    boundary: str = "no-flux",
    names: tuple[str, ...] = ("paper", "sharp"),
    schedule: Schedule | None = None,
    reversible: bool | None = None,
) -> list[TimeBound]:
    """Return Proposition 4.8 / Corollary 4.10 with the proven Poincaré constant and with a computed gap.

    Parameters
    ----------
    proven : Constant
        From `poincare_constant`.
    gap : float, optional
        Spectral gap of -A on Ω as computed: the bound is then a prediction.
    reversible : bool, optional
        Whether J∞ = 0, so that the gap is the Poincaré constant; found out from the process by default.
    """
    found: list[TimeBound] = []
    reason = start.failure
    if boundary != "no-flux":
        reason = "does not apply: mass is lost through the absorbing boundary"
    elif schedule is not None and not schedule.constant:
        reason = "does not apply: ρ∞ changes with the noise"
    reversible = is_reversible(process) if reversible is None else reversible
    for name in [n for n in ("paper", "sharp") if n in names]:
        factor, label = (1.0, "rate λ as printed") if name == "paper" else (2.0, "rate 2λ")
        choices = [("Corollary 4.10", proven, proven.reason)]
        if gap is not None:
            why = "gap computed, not proven"
            if not reversible:
                why, gap = "does not apply: the spectral gap is Poincaré's constant in the reversible case only", 0.0
            computed = Constant("spectral gap", gap, "lower", "computed eigenvalue", 0, False, why)
            choices.append(("Proposition 4.8 with the computed gap", computed, why))
        for theorem, constant, why in choices:
            hypotheses, parameters = {"poincare": constant}, {"rate": factor * constant.value}
            full = f"{theorem}, {label}"
            failure = reason if constant.value > 0 else why
            if failure:
                found.append(inapplicable(name, full, ENTROPY, "upper", failure, hypotheses, parameters))  # type: ignore[arg-type]
                continue
            curve = start.curve(_exponential(factor * constant.value))
            found.append(
                TimeBound(
                    name, full, ENTROPY, "upper", constant.verified, why, hypotheses, parameters, curve, None, "entropy"
                )  # type: ignore[arg-type]
            )  # fmt: skip
    return found


def _exponential(rate: float) -> Callable[[float], float]:
    return lambda t: math.exp(-rate * t)


@dataclass(frozen=True)
class Contraction:
    """P and g with ``CP + PCᵀ >= 2gP``, so that ``|e^{-Ct}v|_P <= e^{-gt}|v|_P``, ``|v|_P² = vᵀP^{-1}v``."""

    P: np.ndarray
    rate: float
    verified: bool

    @property
    def condition(self) -> float:
        """cond(P): ``‖e^{-Ct}‖² <= cond(P) e^{-2gt}``."""
        values = np.linalg.eigvalsh(self.P)
        return float(values[-1] / values[0])


def contraction(C: np.ndarray, defective: bool) -> Contraction:
    """Return a norm in which e^{-Ct} decays at the rate γ (less a little where that is defective), proven in Arb."""
    d, size = len(C), max(float(np.linalg.norm(C, 2)), 1e-300)
    values, vectors = np.linalg.eig(C)
    gamma = float(values.real.min())
    if not defective and np.linalg.cond(vectors) < LARGEST_CONDITION:
        P = np.eye(d) if np.array_equal(C, C.T) else (vectors @ vectors.conj().T).real
        P = 0.5 * (P + P.T)
    else:
        gamma = gamma - DEFECT * abs(gamma)
        P = solve_continuous_lyapunov(C - gamma * np.eye(d), np.eye(d))
        P = 0.5 * (P + P.T) / np.trace(P) * d
    for margin in MARGINS:
        if positive(P) and contracts(C, gamma - margin * size, P):
            return Contraction(P, gamma - margin * size, True)
    return Contraction(P, gamma, False)


def conditions(law: LinearDiffusion) -> tuple[dict[str, Constant], str]:
    """Return γ of (I) and the rank of (II) as constants, and why they fail (empty if both hold)."""
    rate, rank = proven_rate(law.C), kalman_rank(law)
    found = {"gamma": rate, "kalman_rank": rank}
    if not rate.value > 0:
        values = ", ".join(f"{v:.4g}" for v in law.eigenvalues)
        return found, f"(I) fails: C is not positive stable, its eigenvalues are {values}"
    if rank.value < law.dimension:
        blocks = structure(law).deterministic.T
        names = "; ".join("(" + ", ".join(f"{t:.4g}" for t in row) + ")" for row in blocks)
        return found, f"(II) fails: rank {rank.value:.0f} < {law.dimension}, no noise along {names}"
    return found, next((c.reason for c in found.values() if not c.verified), "")


def linear_entropy_bounds(
    law: LinearDiffusion, start: Start, domain: Any = None, names: tuple[str, ...] = ("paper", "sharp")
) -> list[TimeBound]:
    """Return Theorem 4.12: with an explicit constant (paper) and with the exact propagator norm (sharp).

    Parameters
    ----------
    domain : Domain or None
        None: on ℝ^d. Otherwise the bounds are predictions, there is no bound of what truncation does to E.
    """
    hypotheses, reason = conditions(law)
    kinds: list[Name] = [n for n in ("paper", "sharp") if n in names]  # type: ignore[misc]
    labels = {"paper": "Theorem 4.12, explicit c", "sharp": "Theorem 4.12, propagator norm"}
    failure = reason or start.failure
    if law.shift.any():
        failure = failure or "the drift vanishes nowhere"
    if failure:
        return [inapplicable(n, labels[n], ENTROPY, "upper", failure, hypotheses) for n in kinds]
    verified, why = domain is None, "" if domain is None else TRUNCATED
    whitened, flow = whitening(law)
    found = []
    for name in kinds:
        parameters: dict[str, Any] = {"rate": 2 * law.rate, "defective": law.defective}
        if name == "paper":
            norm = contraction(whitened.C, law.defective)
            parameters |= {"rate": 2 * norm.rate, "c": norm.condition}
            factor = _bounded(norm.condition, 2 * norm.rate)
            proven = verified and norm.verified
        else:
            factor, proven = (lambda t: float(np.linalg.norm(flow(t), 2)) ** 2), verified
        found.append(
            TimeBound(
                name, labels[name], ENTROPY, "upper", proven, why, hypotheses, parameters, start.curve(factor), None,
                "entropy",
            )
        )  # fmt: skip
    return found


def _bounded(c: float, rate: float) -> Callable[[float], float]:
    return lambda t: min(c * math.exp(-rate * t), 1.0)  # E never increases


def whitening(law: LinearDiffusion) -> tuple[LinearDiffusion, Callable[[float], np.ndarray]]:
    """Return the process in coordinates in which K = I, and ``t -> K^{-1/2} e^{-Ct} K^{1/2}``. Needs (I) and (II)."""
    assert law.stationary is not None
    values, vectors = np.linalg.eigh(law.stationary[1])
    root, inverse = vectors * np.sqrt(values) @ vectors.T, vectors / np.sqrt(values) @ vectors.T
    a = inverse @ law.a @ inverse
    result = LinearDiffusion(inverse @ law.C @ root, 0.5 * (a + a.T), inverse @ law.x0)
    return result, lambda t: inverse @ law.flow(t) @ root
