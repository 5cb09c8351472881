r"""Lower bounds of the mean exit time u from balls on which the drift points inwards.

Paper Theorems 1.3 and 3.1. ``dX = -∇L dt + sqrt(2a) dW``, ``a = ε²Q_eff``; only Itô's formula is used.
Let B = B_R(c) ⊂ Ω, ``s >= λ_max(a)``, ``T >= tr a`` on B and ``(x-c)·(∇L(x)-g) >= λ|x-c|²`` there with g = ∇L(c) and
λ >= 0; this is less than λ-convexity. Let w(x) = W(|x-c|) with ``W'(0) = 0``, ``W'' <= W'/r <= 0`` and W(R) = 0. The
Hessian of w has the eigenvalues W'' (radial) and W'/r, so with ``q = n·a n <= s`` (n radial)

    tr(a D²w) = (W'/r) tr a + (W'' - W'/r) q >= (W'/r)(T - s) + s W'',

as both factors are <= 0. Moreover ``-∇L·∇w = -(W'/r) (x-c)·∇L >= -λ r W' - |g||W'|``.

- *paper*: ``W = (R²-r²)/(2sd)``, so ``-A w <= tr a/(sd) + |g|R/(sd) <= 1 + |g|R/(sd) = C``; only λ >= 0 enters.
  (The paper asks for λ > 0; a λ that is only known to exceed a tiny -δ is used as below, with C at most 1.01.)
- *sharp*: ``W = m(r; d', λ, s)`` of `fpsolve.theory.radial` with ``d' = T/s``, ``1 <= d' <= d``, which solves
  ``sW'' + (T-s)W'/r - λrW' = -1``. As ``W' = -r h(r)`` with h > 0 increasing for λ >= 0, ``W'' <= W'/r <= 0``.
  So ``-A w <= 1 + |g||W'(R)| = C``.

Where the best λ is negative m need not be concave. Then λ = 0 is used and ``-λR`` is added to |g|, as
``-(x-c)·∇L <= |g|r - λr² <= (|g| - λR) r``.

For t > 0 Itô gives ``E w(X_{τ_B∧t}) >= w(x) - C E(τ_B∧t)``. If τ_B is infinite with positive probability, u = ∞ and
nothing is to show; otherwise t → ∞ and w = 0 on ∂B give ``E τ_B >= w(x)/C``. As B ⊂ Ω, τ >= τ_B. Until τ_B the process
has not met ∂Ω, so this holds for absorbing, characteristic and reflecting boundary parts alike.

c is a stationary point (g = 0), known up to an enclosure of radius ρ: then R is the radius of a ball about every point
of the enclosure and ``W(|x - c̃| + ρ)`` is reported, c̃ being the enclosure's midpoint; or c is any point and |g| is
bounded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from flint import arb

from fpsolve.model.domains import MeshFile, Sublevel
from fpsolve.model.process import Process
from fpsolve.theory import candidates
from fpsolve.theory.balls import Ball, above, norm
from fpsolve.theory.constants import (
    Constant,
    Field,
    convexity_inf,
    diffusion_sup,
    gradient_at,
    stationary_point,
    trace_sup,
)
from fpsolve.theory.cover import BallCover, Cover, inscribed_radius, loss_range, sample, segment_below
from fpsolve.theory.profiles import ParaboloidLower, Profile, RadialLower
from fpsolve.theory.radial import steepest_slope
from fpsolve.theory.search import Budget, maximise
from fpsolve.theory.theorem import ATTEMPTS, THEOREMS, Bound, missing, numbers, per_epsilon2, prepare, search_points


@dataclass(frozen=True)
class _Center:
    """A centre for balls: a point, an enclosure of the true centre, and whether that is stationary."""

    point: np.ndarray
    balls: list[Ball]
    stationary: bool
    slack: float


def lower_bound(name: Literal["paper", "sharp"], process: Process, domain: Any, budget: Budget) -> Bound:
    """Return the lower bound of that name on the ball where it is largest at its centre; see the module's docstring."""
    prepared = prepare(process, domain)
    if isinstance(prepared, str):
        return missing(name, "lower", prepared)
    if isinstance(domain, MeshFile):
        return missing(name, "lower", "does not apply: no ball inside a mesh file's domain is known to the theory")
    rigorous, cover = prepared
    centers = [_center(rigorous, point) for point in search_points(process, domain, cover)]
    sizes = [_largest_ball(domain, c, cover) for c in centers]
    best = list(zip([c.point for c in centers], sizes, strict=True))
    reason, tried = "does not apply: no ball in Ω with (x-c)·∇L >= 0 was found", 0
    limits = [math.inf] * len(centers)
    hypotheses: dict[str, Constant] = {}
    for choice in candidates.balls(process, best, name == "sharp"):
        index = next(k for k, c in enumerate(centers) if c.point is choice.center)
        if choice.radius > limits[index]:
            continue
        result = _verified_ball(name, rigorous, domain, centers[index], choice.radius, budget.share(1.4))
        if isinstance(result, Bound):
            return result
        (reason, hypotheses), limits[index], tried = result, 0.9 * choice.radius, tried + 1
        if tried >= ATTEMPTS:
            break
    return missing(name, "lower", reason, hypotheses)


def _center(rigorous: Field, point: np.ndarray) -> _Center:
    enclosure, stationary = stationary_point(rigorous, point)
    slack = above(norm([b - arb(float(c)) for b, c in zip(enclosure, point, strict=True)]))
    return _Center(point, enclosure, stationary, slack)


def _largest_ball(domain: Any, center: _Center, cover: Cover) -> float:
    """Return the radius of the largest ball to try; for sublevel sets an estimate, else rigorous."""
    if not isinstance(domain, Sublevel):
        return inscribed_radius(domain, center.point, center.slack)
    radius = float(np.max(cover.upper - cover.lower))
    for _ in range(400):
        if np.max(domain.landscape.loss(sample(BallCover(center.point, radius), 600))) < domain.below:
            return 0.99 * radius
        radius *= 0.98
    return 0.0


def _inside_sublevel(rigorous: Field, domain: Sublevel, cover: BallCover, budget: Budget) -> bool:
    """Prove that the ball lies in the component of {L < below} that holds the given point, and in the search box."""
    lo, hi = np.asarray(domain.lower, dtype=float), np.asarray(domain.upper, dtype=float)
    if np.any(cover.lower < lo) or np.any(cover.upper > hi):
        return False
    enclosure = domain.landscape.enclosure()
    if enclosure is None or not segment_below(domain, enclosure, domain.containing, cover.center):
        return False
    aim = math.nextafter(domain.below, -math.inf)
    outcome = maximise(
        lambda a, b: (loss_range(enclosure, a, b)[1], None), domain.landscape.loss, cover, budget, 0.0, enough=aim
    )
    return outcome.bound < domain.below


def _verified_ball(
    name: Literal["paper", "sharp"], rigorous: Field, domain: Any, center: _Center, radius: float, budget: Budget
) -> Bound | tuple[str, dict[str, Constant]]:
    """Check the hypotheses on one ball and return the bound, or the reason why not."""
    cover = BallCover(center.point, above(arb(radius) + arb(center.slack)))
    if isinstance(domain, Sublevel) and not _inside_sublevel(rigorous, domain, cover, budget.share(3)):
        return f"the ball of radius {radius:.4g} about {numbers(center.point)} is not proven to lie in Ω", {}
    epsilon2 = rigorous.process.epsilon2 or 1.0
    s = diffusion_sup(rigorous, cover, budget.share(3))
    found = {"sigma": per_epsilon2("sigma", s, epsilon2)}
    if not s.verified or not s.value > 0:
        return s.reason or "does not apply: there is no noise on the ball", found
    d, dimension = rigorous.dimension, float(rigorous.dimension)
    if name == "sharp":
        trace = trace_sup(rigorous, cover, budget.share(3))
        found["trace"] = per_epsilon2("trace", trace, epsilon2)
        if trace.verified:
            dimension = min(max(above(arb(trace.value) / arb(s.value)), 1.0), dimension)
    base = [arb(0)] * d if center.stationary else rigorous.gradient(center.balls)
    absolute = 1e-4 * s.value / radius**2
    rate = found["lambda"] = convexity_inf(rigorous, center.balls, base, cover, budget, absolute)
    if not rate.verified:
        return rate.reason, found
    g = found["gradient"] = (
        Constant("gradient at the centre", 0.0, "upper", "stationary: exactly zero, or Krawczyk's operator", 1)
        if center.stationary
        else gradient_at(rigorous, center.point)
    )
    pull = above(arb(g.value) + arb(max(-rate.value, 0.0)) * arb(radius))
    profile: Profile
    if name == "paper":
        correction = above(1 + arb(pull) * arb(radius) / (arb(s.value) * d))
        if correction > 1 + candidates.PAPER_DEFECT:
            where = f"on the ball of radius {radius:.4g} about {numbers(center.point)}"
            return f"does not apply: (x-c)·∇L >= λ|x-c|² is known only with λ = {rate.value:.4g} {where}", found
        denominator = above(2 * arb(s.value) * d * arb(correction))
        profile = ParaboloidLower(numbers(center.point), center.slack, radius, denominator)
    else:
        growth = max(rate.value, 0.0)
        slope = steepest_slope(radius, dimension, growth, s.value) if pull > 0 else 0.0
        correction = above(1 + arb(pull) * arb(slope)) if pull > 0 else 1.0
        profile = RadialLower(numbers(center.point), center.slack, radius, dimension, growth, s.value, correction)
    if not math.isfinite(correction):
        return f"the gradient at the centre {numbers(center.point)} is not small enough", found
    parameters = {"center": numbers(center.point), "radius": radius, "center_radius": center.slack}
    parameters |= {"dimension": dimension, "correction": correction}
    return Bound(name, "lower", THEOREMS[name, "lower"], True, "", found, parameters, profile)
