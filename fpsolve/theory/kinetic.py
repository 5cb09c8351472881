r"""The kinetic equation of momentum SGD: Dai and Zhu's Theorem 3, printed and corrected.

``dV = -∇L(W)dt - gV dt + sqrt(2D)dB``, ``dW = V dt``, g the friction (``(1-ξ)/√η``), ψ∞ ∝ exp(-κ(L(w) + |v|²/2)),
κ = g/D, h = ψ/ψ∞ - 1. With ``H = ∫(|∇_w h|² + 2Ĉ∇_w h·∇_v h + C|∇_v h|²)ψ∞``, Lemma 6 of the paper gives
``½H' + ½∫∇hᵀK∇h ψ∞ <= (perturbation)`` with ``K = [[2Ĉ, C-C_L²+gĈ], [., 2gC-2C_L²Ĉ]]``, and Lemma 7 claims K >= 2μP,
P = [[1, Ĉ], [Ĉ, C]], for

- g < 2C_L:  μ = g, C = C_L², Ĉ = g/2. Then K = gP exactly: **2μ should be g**, not 2g.
- g >= 2C_L: μ = g - sqrt(g²-4C_L²), C = g²/2-C_L², Ĉ = g/2. Then det(K - μP) = 0 and K >= μP: **2μ should be μ**.

So the printed rate 2(μ-μ̂) of ``∫h²ψ∞ <= κ^{-1}/(min{C_P, d}λ_min) e^{-2(μ-μ̂)t}H(0)`` is twice too large: for
L = C_L²|w|²/2 the true rate is 2γ = μ. And min{C_P, d} should be min{C_P, 1}, the Poincaré constants of the two factors
of ψ∞ over κ. Where D²L is not C_L²I, K_ℓ, with an eigenvalue ℓ of D²L in place of C_L² but the same P, is affine in ℓ:
the largest r with K_ℓ >= rP for the extreme eigenvalues is a rate, used here in place of the printed perturbation μ̂
(which is printed without the factor Ĉ of its second term).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import eigh

from fpsolve.theory.decay import ENTROPY, TRUNCATED
from fpsolve.theory.gaussian import LinearDiffusion, chi_square_entropy
from fpsolve.theory.timebounds import TimeBound, vectorised

#: Relative size of entries that count as zero when the blocks are recognised.
ZERO = 1e-12


@dataclass(frozen=True, eq=False)
class Kinetic:
    """A linear kinetic process with variables (w, v): the Hessian of L, friction g and noise D."""

    hessian: np.ndarray
    friction: float
    noise: float


def kinetic(law: LinearDiffusion) -> Kinetic | None:
    """Return the blocks of ``C = [[0, -I], [D²L, gI]]``, a = diag(0, DI), variables (w, v); None for others."""
    d = law.dimension
    n = d // 2
    if d % 2 or law.shift.any():
        return None
    H, g, D = law.C[n:, :n], float(law.C[n, n]), float(law.a[n, n])
    C, a = np.zeros((d, d)), np.zeros((d, d))
    C[:n, n:], C[n:, :n], C[n:, n:], a[n:, n:] = -np.eye(n), 0.5 * (H + H.T), g * np.eye(n), D * np.eye(n)
    same = np.abs(C - law.C).max() <= ZERO * np.abs(law.C).max() and np.abs(a - law.a).max() <= ZERO * abs(D)
    return Kinetic(0.5 * (H + H.T), g, D) if same and g > 0 and D > 0 else None


@dataclass(frozen=True)
class DaiZhu:
    """The parameters of Dai and Zhu's Theorem 3.

    Attributes
    ----------
    curvature : float
        C_L.
    mu, C, C_hat : float
        As printed.
    least : float
        λ_min, the smallest eigenvalue of P.
    perturbation : float
        b of Assumption (A.4): the largest eigenvalue of the entrywise bounds of ``D²L - C_L² I``.
    friction : float
        g.
    """

    curvature: float
    mu: float
    C: float
    C_hat: float
    least: float
    perturbation: float
    friction: float

    @property
    def mu_hat(self) -> float:
        """``μ̂ = (1+√2)b/(2λ_min)`` as printed."""
        return (1 + math.sqrt(2)) * self.perturbation / (2 * self.least) if self.perturbation else 0.0

    @property
    def printed_rate(self) -> float:
        """The rate of decay of ‖h‖² as printed."""
        return 2 * (self.mu - self.mu_hat)

    def rate(self, curvature: float) -> float:
        """Return the largest r with K_ℓ >= rP, ℓ = `curvature` an eigenvalue of D²L; μ for ℓ = C_L²."""
        g, C, C_hat = self.friction, self.C, self.C_hat
        off = C - curvature + g * C_hat
        K = np.array([[2 * C_hat, off], [off, 2 * g * C - 2 * curvature * C_hat]])
        return float(eigh(K, self.form, eigvals_only=True)[0])

    @property
    def form(self) -> np.ndarray:
        """P for one pair (w, v)."""
        return np.array([[1.0, self.C_hat], [self.C_hat, self.C]])


def dai_zhu(friction: float, curvature: float, perturbation: float = 0.0) -> DaiZhu:
    """Return the parameters of Theorem 3 for friction g, C_L and b.

    Raises
    ------
    ValueError
        Unless g and C_L are positive.
    """
    if not (friction > 0 and curvature > 0):
        raise ValueError("friction and C_L must be positive")
    if friction < 2 * curvature:
        mu, C = friction, curvature**2
    else:
        mu, C = friction - math.sqrt(friction**2 - 4 * curvature**2), friction**2 / 2 - curvature**2
    least = float(np.linalg.eigvalsh(np.array([[1.0, friction / 2], [friction / 2, C]]))[0])
    return DaiZhu(curvature, mu, C, friction / 2, least, perturbation, friction)


def dai_zhu_bounds(
    law: LinearDiffusion, start: tuple[np.ndarray, np.ndarray] | None, domain: Any = None,
    names: tuple[str, ...] = ("paper", "sharp", "printed"),
) -> list[TimeBound]:  # fmt: skip
    """Return Theorem 3 of Dai and Zhu for a Gaussian start (mean, covariance): corrected ("paper") and as printed.

    E is half of ‖h‖². Empty unless the process is kinetic and H(0) is finite.
    """
    blocks = kinetic(law)
    if blocks is None or start is None or law.stationary is None:
        return []
    values = np.linalg.eigvalsh(blocks.hessian)
    if not values[0] > 0:
        return []
    n, kappa = len(values), blocks.friction / blocks.noise
    mid = 0.5 * float(values[0] + values[-1])
    spread = float(np.linalg.eigvalsh(np.abs(blocks.hessian - mid * np.eye(n)))[-1])
    found = dai_zhu(blocks.friction, math.sqrt(mid), 0.0 if spread <= ZERO * mid else spread)
    H0 = gaussian_form(law, *start, np.kron(found.form, np.eye(n)))
    if not math.isfinite(H0):
        return []
    poincare = float(values[0])
    parameters = {"mu": found.mu, "C": found.C, "C_hat": found.C_hat, "lambda_min": found.least, "H0": H0}
    parameters |= {"C_L": found.curvature, "b": found.perturbation, "mu_hat": found.mu_hat}
    result = []
    rate = min(found.rate(float(value)) for value in values)
    choices = (("paper", rate, min(poincare, 1.0)), ("printed", found.printed_rate, min(poincare, float(n))))
    for name, rate, least in choices:
        if name not in names:
            continue
        reason = "not a bound: the printed rate is twice too large" if name == "printed" else ""
        label = "as printed" if name == "printed" else "corrected rate"
        size = H0 / (2 * kappa * least * found.least)
        reason = reason or ("" if domain is None else TRUNCATED)
        result.append(
            TimeBound(
                name, f"Dai-Zhu Theorem 3, {label}", ENTROPY, "upper", not reason, reason, {},  # type: ignore[arg-type]
                parameters | {"rate": rate}, _decaying(size, rate), None, "entropy",
            )
        )  # fmt: skip
    return result


def _decaying(size: float, rate: float) -> Any:
    return vectorised(lambda t: size * math.exp(-rate * t))


def gaussian_form(law: LinearDiffusion, mean: np.ndarray, covariance: np.ndarray, form: np.ndarray) -> float:
    """Return ``∫∇hᵀ P ∇h ρ∞`` for h = N(mean, covariance)/ρ∞ - 1; inf where it diverges.

    Notes
    -----
    ``∇h = (h+1)(Gz + c)`` with ``G = K^{-1} - S^{-1}``, ``c = S^{-1}m``, and (h+1)²ρ∞ is (1 + 2E) times the Gaussian
    with precision 2S^{-1} - K^{-1} about 2(2S^{-1}-K^{-1})^{-1}S^{-1}m.
    """
    assert law.stationary is not None
    center, K = law.stationary
    entropy = chi_square_entropy(mean, covariance, center, K)
    if not math.isfinite(entropy):
        return math.inf
    inverse, stationary = np.linalg.inv(covariance), np.linalg.inv(K)
    tilted = np.linalg.inv(2 * inverse - stationary)
    pull = inverse @ (np.asarray(mean) - center)
    G = stationary - inverse
    vector = G @ (2 * tilted @ pull) + pull
    return (1 + 2 * entropy) * float(np.trace(G @ tilted @ G.T @ form) + vector @ form @ vector)
