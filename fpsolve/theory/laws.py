r"""Asymptotic laws of escape times and invariant densities, to compare answers with: never bounds, never answers.

Each holds in a limit (ε² → 0 or η/b → 0) and for a noise of a special shape; what it assumes is in its docstring. How
far a law is from the answer at a given η is for `mean_exit_time`, `steady_state` and the chain to say.

* Q = σI: Eyring and Kramers (paper (66), (67); mathematics.md section 5).
* Q = 2L(x)H* (Mori et al., the thesis' chapter 4): `loss_proportional_rate` and its companions. With a = (η/b)L H* the
  time change dτ = L dt turns ``dX = -∇L dt + sqrt(2(η/b)L H*) dW`` into ``dX = -∇log L dτ + sqrt(2(η/b)H*) dW`` (the
  thesis' (4.24), (4.25) print H* where its root belongs), and in directions in which H* is h*I this is a gradient
  system with potential log L and temperature ηh*/b. For other H* no invariant density is a function of L alone: zero
  current needs ``(1/h_i - 1/h_j) ∂_i∂_j log L = 0`` in the eigenvectors of H*.
* Power-law noise ``dX_i = -h_iX_i dt + sqrt(η(s_i + r_iX_i²)) dB_i`` (Chen, Du, Ma, Meng).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fpsolve.errors import InputError


class LogTimeLine(NamedTuple):
    """``log τ = intercept + slope/η``."""

    intercept: float
    slope: float


def eyring_kramers_time(
    barrier: float,
    minimum_hessian: np.ndarray,
    saddle_hessian: np.ndarray,
    epsilon2: float,
    sigma: float = 1.0,
    until: str = "minimum",
) -> float:
    """Return the mean time to cross a saddle for ``dX = -∇L dt + sqrt(2ε²σ) dW``, as ε² → 0.

    ``E τ ≈ (2π/|λ₁(z)|) sqrt(|det D²L(z)| / det D²L(x₁)) exp((L(z) - L(x₁))/(ε²σ))`` until the minimum behind the
    saddle z; half of it until the basin's boundary, from where the process falls back with probability one half.

    Parameters
    ----------
    barrier : float
        L(z) - L(x₁) > 0 at the lowest saddle z round the minimum x₁.
    minimum_hessian, saddle_hessian : array_like, shape (d, d)
        D²L at x₁ (positive definite) and at z (one negative eigenvalue λ₁).
    until : "minimum" or "boundary"

    Raises
    ------
    InputError
        If a Hessian has the wrong signature or a number is not positive.
    """
    _positive("barrier", barrier)
    temperature = _positive("epsilon2", epsilon2) * _positive("sigma", sigma)
    if until not in ("minimum", "boundary"):
        raise InputError("until", until, '"minimum" or "boundary"')
    well, top = (np.linalg.eigvalsh(np.atleast_2d(h)) for h in (minimum_hessian, saddle_hessian))
    if well[0] <= 0:
        raise InputError("minimum_hessian", well.tolist(), "positive eigenvalues")
    if len(top) != len(well) or top[0] >= 0 or (top[1:] <= 0).any():
        raise InputError("saddle_hessian", top.tolist(), f"{len(well)} eigenvalues, exactly one of them negative")
    full = 2 * np.pi / -top[0] * np.sqrt(np.prod(np.abs(top)) / np.prod(well)) * np.exp(barrier / temperature)
    return float(full if until == "minimum" else full / 2)


def loss_proportional_exponent(curvature: float, learning_rate: float, batch_size: int = 1) -> float:
    """Return the power -(1 + b/(ηh*)) of L in the invariant density under noise Q = 2L h* (thesis (5.5)).

    Exact in one dimension, and in any dimension when H* = h*I. The thesis writes -(1 + 1/T): T is ηh*/b, no free
    parameter.
    """
    return -(1 + batch_size / (_positive("learning_rate", learning_rate) * _positive("curvature", curvature)))


def loss_proportional_rate(
    minimum_loss: float,
    saddle_loss: float,
    curvature: float,
    saddle_curvature: float,
    learning_rate: float,
    batch_size: int = 1,
    dimension: int = 1,
) -> float:
    r"""Return the escape rate κ per unit of time (one step lasts η) under noise Q = 2L H*, as η/b → 0 (thesis (4.26)).

    ``κ ≈ sqrt(h*|h_s|)/(2π) (L(s)/L*)^{-(b/(ηh*) + 1 - n/2)}``: Eyring-Kramers for the potential log L at temperature
    ηh*/b, and dτ ≈ L* dt since the process is near the minimum nearly all the time. 1/κ is the mean time to the minimum
    behind the saddle; the time to the saddle itself is half of it.

    Assumed: n directions with Hessian eigenvalue h* in H*, the same n - 1 transverse eigenvalues at the saddle as at
    the minimum, no noise and no motion in the others, and a path over the saddle along an eigenvector.

    Parameters
    ----------
    minimum_loss, saddle_loss : float
        L* > 0 and L(s) > L*.
    curvature, saddle_curvature : float
        h* > 0 and h_s < 0 along the path.
    dimension : int
        The effective dimension n.

    Raises
    ------
    InputError
        If a number has the wrong sign.
    """
    line = loss_proportional_line(minimum_loss, saddle_loss, curvature, saddle_curvature, batch_size, dimension)
    return float(np.exp(-line.intercept - line.slope / _positive("learning_rate", learning_rate)))


def loss_proportional_line(
    minimum_loss: float,
    saddle_loss: float,
    curvature: float,
    saddle_curvature: float,
    batch_size: int = 1,
    dimension: int = 1,
) -> LogTimeLine:
    """Return intercept and slope of ``log(1/κ)`` against 1/η for `loss_proportional_rate` (thesis (5.4), where n = 2).

    The slope is ``(b/h*) log(L(s)/L*)``. The thesis' prediction 0.007 is 1/h* alone, without the logarithm.
    """
    ratio = np.log(_positive("saddle_loss", saddle_loss) / _positive("minimum_loss", minimum_loss))
    if not ratio > 0:
        raise InputError("saddle_loss", saddle_loss, f"more than the minimum's {minimum_loss:g}")
    if not saddle_curvature < 0:
        raise InputError("saddle_curvature", saddle_curvature, "a negative number")
    if dimension < 1:
        raise InputError("dimension", dimension, "at least 1")
    prefactor = np.sqrt(_positive("curvature", curvature) * -saddle_curvature) / (2 * np.pi)
    return LogTimeLine(float(-np.log(prefactor) + (1 - dimension / 2) * ratio), float(batch_size / curvature * ratio))


def largest_effective_dimension(curvature: float, learning_rate: float, batch_size: int = 1) -> float:
    """Return n_c = 2(b/(ηh_max) + 1); the law (4.26) makes sense for n < n_c (thesis (4.29)).

    There its exponent is negative (κ itself is positive for every n). It is also the condition for
    ``L^{-(1 + b/(ηh*))}`` to be integrable at infinity over n directions in which L grows like a square.
    """
    return -2 * loss_proportional_exponent(curvature, learning_rate, batch_size)


def power_law_exponent(curvature: float, growth: float, learning_rate: float) -> float:
    """Return κ = -(1 + h/(ηr)) of the invariant density ``(1 + rx²/s)^κ`` of dX = -hX dt + sqrt(η(s + rX²)) dB.

    Exact in one dimension. The variance is finite iff κ < -3/2.
    """
    _positive("learning_rate", learning_rate)
    return -(1 + _positive("curvature", curvature) / (learning_rate * _positive("growth", growth)))


def power_law_action(
    curvature: Sequence[float], noise: Sequence[float], growth: Sequence[float], radius: float
) -> float:
    """Return the limit of η log E τ as η → 0, τ the exit time from |x| < radius under power-law noise.

    ``min over |ζ| = radius of Σ_i (h_i/r_i) log(1 + r_iζ_i²/s_i)``. The sum is concave in the ζ_i², so the minimum is
    at an axis. (The paper's (5.1) prints a minus sign.)

    Parameters
    ----------
    curvature, noise, growth : sequence of d positive numbers
        h_i, s_i, r_i of ``dX_i = -h_iX_i dt + sqrt(η(s_i + r_iX_i²)) dB_i``.
    radius : float
    """
    h, s, r = (np.array([_positive(n, v) for v in values]) for n, values in
               (("curvature", curvature), ("noise", noise), ("growth", growth)))  # fmt: skip
    if not len(h) == len(s) == len(r) >= 1:
        raise InputError("curvature", list(curvature), "as many numbers as in noise and growth")
    return float(np.min(h / r * np.log1p(r * _positive("radius", radius) ** 2 / s)))


def _positive(key: str, value: float) -> float:
    if not 0 < value < np.inf:
        raise InputError(key, value, "a positive number")
    return value
