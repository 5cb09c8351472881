"""Proven constants of how strongly the drift points to a centre and how strong the noise is, on a set of points.

They come from the rigorous enclosures of a landscape, or, for linear drift and constant diffusion given by formulas,
from the formulas themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from flint import arb

from fpsolve.model.domains import Ball as BallDomain
from fpsolve.model.domains import Box as BoxDomain
from fpsolve.model.domains import Interval, MeshFile, Sublevel
from fpsolve.model.expressions import Formula
from fpsolve.model.process import Process
from fpsolve.theory.balls import Ball, above, box_balls, dot, largest_eigenvalue, norm, smallest_eigenvalue
from fpsolve.theory.constants import (
    Constant,
    Field,
    as_constant,
    convexity_inf,
    diffusion_sup,
    gradient_at,
    search,
    trace_sup,
)
from fpsolve.theory.cover import BoxCover, Cover, SublevelCover, loss_range, sample
from fpsolve.theory.linear import linear_diffusion
from fpsolve.theory.search import Budget
from fpsolve.theory.theorem import numbers, per_epsilon2, prepare, search_points

#: |f(c)| counts as zero for the paper's theorems (which ask for a minimum) up to this part of the noise.
STATIONARY = 1e-6


@dataclass(frozen=True)
class Inward:
    """Constants on a set: ``(x-c)·(f(c)-f(x)) >= λ|x-c|²``, ``|f(c)| <= g``, ``λ_max(a) <= s``, ``tr a <= T``.

    Attributes
    ----------
    rate, pull, largest, trace : Constant
        λ, g, s and T.
    where : str
        A point where the quotient is smallest, for messages.
    """

    rate: Constant
    pull: Constant
    largest: Constant
    trace: Constant
    where: str

    @property
    def failure(self) -> str:
        """Why the constants support nothing; empty if all are proven and λ > 0."""
        for constant in (self.rate, self.pull, self.largest, self.trace):
            if not constant.verified:
                return constant.reason or f"{constant.name} could not be bounded"
        if not self.rate.value > 0:
            return f"does not apply: (x-c)·(-f) >= λ|x-c|² is proven with λ = {self.rate.value:.4g} only, {self.where}"
        return ""

    @property
    def size(self) -> float:
        """min(T, d s), an upper bound of tr a."""
        return self.trace.value

    def hypotheses(self, epsilon2: float | None) -> dict[str, Constant]:
        """Return the constants by name; σ and the trace without ε² where the process has one."""
        unit = epsilon2 or 1.0
        return {
            "lambda": self.rate,
            "gradient": self.pull,
            "sigma": per_epsilon2("sigma", self.largest, unit),
            "trace": per_epsilon2("trace", self.trace, unit),
        }


@dataclass(frozen=True)
class Coefficients:
    """Rigorous coefficients: of a landscape, or of linear formulas."""

    process: Process
    cover: Cover
    field: Field | None

    def diffusion(self, lo: np.ndarray, hi: np.ndarray) -> list[Ball]:
        """Enclose a over a box, row-major."""
        if self.field is not None:
            return self.field.diffusion(lo, hi)[0]
        return self.process.diffusion.balls(box_balls(lo, hi))  # type: ignore[attr-defined]

    def inward(self, center: np.ndarray, cover: Cover, budget: Budget) -> Inward:
        """Return the constants on a cover, for a centre given by floating-point numbers (exact ones)."""
        balls = [arb(float(c)) for c in center]
        if self.field is None:
            return self._linear(balls)
        base = self.field.gradient(balls)
        largest = diffusion_sup(self.field, cover, budget.share(4))
        trace = trace_sup(self.field, cover, budget.share(3))
        rate = convexity_inf(self.field, balls, base, cover, budget)
        return Inward(rate, gradient_at(self.field, center), largest, trace, self._worst(center, cover))

    def _worst(self, center: np.ndarray, cover: Cover) -> str:
        x = sample(cover, 2000)
        y = x - center
        away = np.sum(y * y, axis=1) > 1e-12 * np.sum((cover.upper - cover.lower) ** 2)
        x, y = x[away], y[away]
        if not len(x):
            return "on the set"
        quotient = np.sum(y * (self.process.drift(center[None, :]) - self.process.drift(x)), axis=1) / np.sum(
            y * y, axis=1
        )
        k = int(np.nanargmin(quotient)) if np.isfinite(quotient).any() else 0
        return f"e.g. {quotient[k]:.4g} at ({', '.join(f'{t:.4g}' for t in x[k])})"

    def _linear(self, center: list[Ball]) -> Inward:
        d, method = self.process.dimension, "linear drift and constant diffusion, in Arb"
        drift: Any = self.process.drift
        slope = drift.derivative().balls(center)
        symmetric = [-(slope[i * d + j] + slope[j * d + i]) / 2 for i in range(d) for j in range(d)]
        a = self.process.diffusion.balls(center)  # type: ignore[attr-defined]
        rate = Constant("lambda", smallest_eigenvalue(symmetric, d), "lower", method, 1)
        pull = Constant("drift at the centre", above(norm(drift.balls(center))), "upper", method, 1)
        largest = Constant("epsilon2*sigma", largest_eigenvalue(a, d), "upper", method, 1)
        trace = Constant("epsilon2*trace", above(sum(a[:: d + 1], arb(0))), "upper", method, 1)
        where = "the smallest eigenvalue of the symmetric part of C"
        return Inward(rate, pull, largest, trace, where)


def coefficients(process: Process, domain: Any) -> Coefficients | str:
    """Return rigorous coefficients and a cover of Ω, or the reason why there are none."""
    if process.landscape is not None and process.landscape.variables == process.variables:
        prepared = prepare(process, domain)
        return prepared if isinstance(prepared, str) else Coefficients(process, prepared[1], prepared[0])
    if isinstance(process.drift, Formula) and linear_diffusion(process) is not None:
        lo, hi = domain.bounding_box()
        return Coefficients(process, BoxCover(np.asarray(lo, dtype=float), np.asarray(hi, dtype=float)), None)
    return "no rigorous enclosure of drift and diffusion (needs a landscape, or linear formulas)"


def default_center(known: Coefficients, domain: Any, near: np.ndarray | None = None) -> np.ndarray:
    """Return the minimum of L in Ω nearest to a point, or with the lowest loss; for linear formulas f's zero."""
    if known.field is None:
        law = linear_diffusion(known.process)
        assert law is not None
        return law.x0
    landscape: Any = known.process.landscape
    points = np.array(search_points(known.process, domain, known.cover))
    losses, slopes = landscape.loss(points), np.linalg.norm(landscape.gradient(points), axis=1)
    if near is None:
        return points[int(np.nanargmin(losses))]
    curvature = np.linalg.eigvalsh(landscape.hessian(points))
    size = 1e-8 * np.abs(curvature).max(axis=1) * np.max(known.cover.upper - known.cover.lower)
    minima = points[(slopes <= size) & (curvature[:, 0] >= 0)]
    if not len(minima):
        return points[int(np.nanargmin(losses))]
    return minima[int(np.argmin(np.linalg.norm(minima - near, axis=1)))]


def reflection_failure(
    known: Coefficients, domain: Any, parts: tuple[str, ...], center: np.ndarray, inward: Inward, budget: Budget
) -> str:
    """Return why ``n·a(x-c) >= 0`` is not proven on the reflecting parts; empty if it is.

    Proven for a = q(x) I where Ω is star-shaped about c, for balls about c (n is parallel to x - c and a >= 0), and by
    branch and bound on the sides of boxes.
    """
    if not parts:
        return ""
    what = "n·a(x-c) >= 0 on the reflecting boundary is not proven"
    if isinstance(domain, MeshFile):
        return f"{what}: the normals of a mesh file are not known to the theory"
    if isinstance(domain, BallDomain) and np.array_equal(center, np.asarray(domain.center, dtype=float)):
        return ""
    if isinstance(domain, Sublevel):
        return _sublevel_failure(known, domain, center, inward, what)
    if not domain.contains(center[None, :])[0]:
        return f"{what}: the centre is not in the domain"
    if known.process.isotropic:
        return ""
    if isinstance(domain, (BoxDomain, Interval)):
        sides = [k for k, name in enumerate(domain.names) if name in parts]
        failing = [
            domain.names[k] for k in sides if not _side_proven(known, domain, k, center, budget.share(len(sides)))
        ]
        return f"{what} ({', '.join(failing)})" if failing else ""
    return what


def _sublevel_failure(known: Coefficients, domain: Sublevel, center: np.ndarray, inward: Inward, what: str) -> str:
    """∇L·(x-c) >= |x-c|(λ|x-c| - g) is positive outside of a ball that must lie in {L < below}."""
    if not known.process.isotropic or not isinstance(known.cover, SublevelCover) or not inward.rate.value > 0:
        return what
    near = above(2 * arb(inward.pull.value) / arb(inward.rate.value)) + 1e-300
    inside = loss_range(known.cover.enclosure, center - near, center + near)[1] < domain.below
    return "" if inside else what


def _side_proven(known: Coefficients, domain: Any, side: int, center: np.ndarray, budget: Budget) -> bool:
    """Prove ``±Σ_j a_ij (x_j - c_j) >= 0`` on one side of a box."""
    lo, hi = (np.array(corner, dtype=float) for corner in domain.bounding_box())
    d, (i, up) = len(lo), divmod(side, 2)
    lo[i] = hi[i] = hi[i] if up else lo[i]
    sign = 1.0 if up else -1.0
    balls = [arb(float(c)) for c in center]

    def bound(low: np.ndarray, high: np.ndarray) -> tuple[float, None]:
        y = [x - c for x, c in zip(box_balls(low, high), balls, strict=True)]
        row = known.diffusion(low, high)[i * d : (i + 1) * d]
        return above(-sign * dot(row, y)), None

    def value(x: np.ndarray) -> np.ndarray:
        return -sign * np.einsum("nj,nj->n", known.process.diffusion(x)[:, i], x - center)

    found = as_constant("n·a(x-c)", "lower", search(bound, value, BoxCover(lo, hi), budget, enough=0.0))
    return found.verified and found.value >= 0


def describe(center: np.ndarray) -> str:
    """Return a point for messages."""
    return "(" + ", ".join(f"{t:.4g}" for t in numbers(center)) + ")"
