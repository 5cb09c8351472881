"""Rigorous bounds of the constants in the theorems' hypotheses, by branch and bound in Arb balls.

On a box the coefficients are enclosed by the better of their plain evaluation and the mean-value form
``q(x) ∈ q(m) + ∇q(box)·(box - m)``. All constants refer to ``a = ε²(scale·Q) + extra·I = ε² Q_eff``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from flint import arb

from fpsolve.model.process import Enclosure, Process
from fpsolve.theory.balls import (
    Ball,
    above,
    below,
    box_balls,
    dot,
    finite,
    intersect,
    interval,
    largest_eigenvalue,
    norm,
    norm2,
    smallest_eigenvalue,
    times,
)
from fpsolve.theory.cover import BallCover, Box, BoxCover, Cover, sample
from fpsolve.theory.search import BoxBound, Budget, Outcome, PointValue, maximise

RELATIVE = 1e-3
METHOD = "best-first branch and bound in Arb balls, mean-value form"


@dataclass(frozen=True)
class Constant:
    """A number in a hypothesis of a theorem.

    Attributes
    ----------
    name : str
    value : float
        Rounded in the safe direction.
    kind : "lower" or "upper"
        Whether `value` is a lower or an upper bound of the constant.
    method : str
    boxes : int
        Number of boxes evaluated.
    verified : bool
        True when `value` is proven.
    reason : str
        If not verified: what failed and where.
    """

    name: str
    value: float
    kind: Literal["lower", "upper"]
    method: str = METHOD
    boxes: int = 0
    verified: bool = True
    reason: str = ""


@dataclass(frozen=True)
class Field:
    """The rigorous coefficients of a process: ∇L, D²L and a over boxes.

    Raises
    ------
    ValueError
        By `Field.of` if the process has no landscape with an enclosure.
    """

    process: Process
    enclosure: Enclosure
    strength: Ball
    extra: Ball

    @classmethod
    def of(cls, process: Process) -> Field:
        """Return the coefficients of a process made by SGD."""
        enclosure = process.landscape.enclosure() if process.landscape is not None else None
        if enclosure is None or process.epsilon2 is None:
            raise ValueError("no rigorous enclosure of loss and covariance")
        strength = arb(process.epsilon2) * arb(process.covariance_scale)
        return cls(process, enclosure, strength, arb(process.extra_diffusion))

    @property
    def dimension(self) -> int:
        """The number of variables d."""
        return self.process.dimension

    def gradient(self, box: Sequence[Ball]) -> list[Ball]:
        """Enclose ∇L."""
        return self.enclosure.gradient(list(box))

    def hessian(self, box: Sequence[Ball]) -> list[Ball]:
        """Enclose D²L, row-major."""
        return self.enclosure.hessian(list(box))

    def gradient_and_hessian(self, lo: np.ndarray, hi: np.ndarray) -> tuple[list[Ball], list[Ball], list[Ball]]:
        """Enclose ∇L (plain and mean-value form) and D²L over a box, and ∇L at its midpoint."""
        box, middle = box_balls(lo, hi), middle_of(lo, hi)
        hessian, at_middle = self.hessian(box), self.gradient(middle)
        steps = [x - m for x, m in zip(box, middle, strict=True)]
        mean = [g + s for g, s in zip(at_middle, times(hessian, steps), strict=True)]
        if finite(hessian) and max(h.rad() for h in hessian) <= max(abs(h.mid()) for h in hessian) / 4:
            return mean, hessian, at_middle  # close to the range already: save an evaluation
        return [intersect(x, y) for x, y in zip(self.gradient(box), mean, strict=True)], hessian, at_middle

    def diffusion(self, lo: np.ndarray, hi: np.ndarray) -> tuple[list[Ball], np.ndarray | None]:
        """Enclose a over a box, row-major (mean-value form where derivatives of Q are available); and side weights."""
        box, d = box_balls(lo, hi), self.dimension
        matrix = self.enclosure.covariance(box)
        slope, weights = self.enclosure.covariance_derivative(box), None
        if slope is not None:
            weights = np.array([sum(above(abs(s)) for s in slope[k::d]) for k in range(d)]) * (hi - lo)
            middle = middle_of(lo, hi)
            steps = [x - m for x, m in zip(box, middle, strict=True)]
            at_middle = self.enclosure.covariance(middle)
            mean = [at_middle[k] + dot(slope[k * d : (k + 1) * d], steps) for k in range(d * d)]
            matrix = [intersect(x, y) for x, y in zip(matrix, mean, strict=True)]
        return [self.strength * q + (self.extra if k % (d + 1) == 0 else 0) for k, q in enumerate(matrix)], weights


def middle_of(lo: np.ndarray, hi: np.ndarray) -> list[Ball]:
    """Return the midpoint of a box as exact balls; any point of the box serves a mean-value form."""
    return [arb(float(m)) for m in 0.5 * (lo + hi)]


def as_constant(name: str, kind: Literal["lower", "upper"], outcome: Outcome) -> Constant:
    """Turn the outcome of a search (for a lower bound: of the negative function) into a constant."""
    value = outcome.bound if kind == "upper" else -outcome.bound
    if math.isfinite(value):
        return Constant(name, value, kind, boxes=outcome.boxes)
    where = "" if outcome.worst is None else " on the box " + _show(*outcome.worst)
    reason = f"{name} could not be bounded{where}"
    return Constant(name, value, kind, boxes=outcome.boxes, verified=False, reason=reason)


def _show(lo: np.ndarray, hi: np.ndarray) -> str:
    return " × ".join(f"[{a:.4g}, {b:.4g}]" for a, b in zip(lo, hi, strict=True))


def search(
    bound: BoxBound, value: PointValue, cover: Cover, budget: Budget, absolute: float = 0.0, enough: float = -math.inf
) -> Outcome:
    """Bound the supremum of `value` over the cover from above, starting from a sampled value to aim at."""
    x = sample(cover, 400)
    seen = value(x) if len(x) else np.array([])
    seen = seen[np.isfinite(seen)]
    first = float(seen.max()) if len(seen) else -math.inf
    return maximise(bound, value, cover, budget, RELATIVE, absolute, enough, first)


def diffusion_sup(field: Field, cover: Cover, budget: Budget) -> Constant:
    """Bound s = sup λ_max(a) = ε²σ over the cover from above."""
    d = field.dimension

    def bound(lo: np.ndarray, hi: np.ndarray) -> tuple[float, np.ndarray | None]:
        matrix, weights = field.diffusion(lo, hi)
        return largest_eigenvalue(matrix, d), weights

    outcome = search(bound, lambda x: np.linalg.eigvalsh(field.process.diffusion(x))[:, -1], cover, budget)
    return as_constant("epsilon2*sigma", "upper", outcome)


def _functional(field: Field, form: Sequence[Ball], cover: Cover, box: Box) -> tuple[Ball, np.ndarray | None]:
    """Return a ball whose upper end bounds ``Σ form_ij a_ij`` over the domain's part of a box, and side weights."""
    lo, hi = box
    value, d = dot(form, field.diffusion(lo, hi)[0]), field.dimension
    slope = field.enclosure.covariance_derivative(box_balls(lo, hi))
    if slope is None:
        return value, None
    change = [field.strength * dot(form, slope[k::d]) for k in range(d)]
    at = dot(form, [field.strength * q for q in field.enclosure.covariance(middle_of(lo, hi))])
    at = at + field.extra * sum(form[:: d + 1], arb(0)) + cover.rise(change, lo, hi)
    return (value if above(value) <= above(at) else at), side_weights(change, lo, hi)


def trace_sup(field: Field, cover: Cover, budget: Budget) -> Constant:
    """Bound sup tr a over the cover from above."""
    d = field.dimension
    form = [arb(int(k % (d + 1) == 0)) for k in range(d * d)]

    def bound(lo: np.ndarray, hi: np.ndarray) -> tuple[float, np.ndarray | None]:
        value, weights = _functional(field, form, cover, (lo, hi))
        return above(value), weights

    outcome = search(bound, lambda x: np.trace(field.process.diffusion(x), axis1=1, axis2=2), cover, budget)
    return as_constant("epsilon2*trace", "upper", outcome)


def directional_diffusion_inf(field: Field, v: np.ndarray, cover: Cover, budget: Budget) -> Constant:
    """Bound b = inf vᵀav = ε²β over the cover from below; not verified unless it is positive."""
    form = [-arb(float(p)) * arb(float(q)) for p in v for q in v]

    def bound(lo: np.ndarray, hi: np.ndarray) -> tuple[float, np.ndarray | None]:
        value, weights = _functional(field, form, cover, (lo, hi))
        return above(value), weights

    outcome = search(bound, lambda x: -np.einsum("i,nij,j->n", v, field.process.diffusion(x), v), cover, budget)
    constant = as_constant("epsilon2*beta", "lower", outcome)
    if constant.verified and constant.value <= 0:
        where = "" if outcome.worst is None else " near " + _show(*outcome.worst)
        reason = f"no positive lower bound of vᵀQv for v = {_vector(v)}: it is at least {constant.value:.3g}{where}"
        return replace(constant, verified=False, reason=reason)
    return constant


def _vector(v: np.ndarray) -> str:
    return "(" + ", ".join(f"{c:.4g}" for c in v) + ")"


def convexity_inf(
    field: Field, center: Sequence[Ball], base: Sequence[Ball], cover: Cover, budget: Budget, absolute: float = 0.0
) -> Constant:
    """Bound λ = inf (x-c)·(∇L(x) - g)/|x-c|² over the cover from below, g = ∇L(c).

    Parameters
    ----------
    center : d balls
        Encloses c.
    base : d balls
        Encloses g; exact zeros when c is proven to be stationary.
    absolute : float
        Accuracy that is enough where λ is near zero.

    Notes
    -----
    Away from c the quotient is bounded in mean-value form. Near c, ``∇L(x) - g = ∫₀¹ D²L(c + t(x-c)) (x-c) dt``,
    so the smallest eigenvalue of D²L over the box that holds x and c is a lower bound.
    """
    d = field.dimension

    def bound(lo: np.ndarray, hi: np.ndarray) -> tuple[float, np.ndarray | None]:
        box = box_balls(lo, hi)
        y = [x - c for x, c in zip(box, center, strict=True)]
        gap, best, weights, range_ = norm2(y), -math.inf, None, arb("nan")
        if below(gap) <= 64 * float(np.sum((hi - lo) ** 2)):
            hull = [interval(min(below(c), a), max(above(c), b)) for c, a, b in zip(center, lo, hi, strict=True)]
            hessian = field.hessian(hull)
            best = smallest_eigenvalue(hessian, d)
            most = largest_eigenvalue(hessian, d)
            range_ = interval(best, most) if math.isfinite(best + most) else range_
        if below(gap) > 0:
            quotient, weights = _star_quotient(field, center, base, cover, (lo, hi), range_)
            best = max(best, quotient)
        return -best, weights

    c = np.array([float(b.mid()) for b in center])
    g = np.array([float(b.mid()) for b in base])
    gradient = field.process.landscape.gradient  # type: ignore[union-attr]

    def value(x: np.ndarray) -> np.ndarray:
        distance = np.sum((x - c) ** 2, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            # too near to c the quotient is all rounding
            ratio = -np.sum((x - c) * (gradient(x) - g), axis=1) / distance
        return np.where(distance > 1e-12 * np.sum((cover.upper - cover.lower) ** 2), ratio, -np.inf)

    return as_constant("lambda", "lower", search(bound, value, cover, budget, absolute))


def _star_quotient(
    field: Field, center: Sequence[Ball], base: Sequence[Ball], cover: Cover, box: Box, known: Ball
) -> tuple[float, np.ndarray]:
    """Bound the quotient of `convexity_inf` on a box off the centre from below; `known` encloses it, or is nan.

    The slope of the quotient q holds q itself, ``∇q = (∇L - g + D²L y - 2qy)/|y|²``, so each enclosure of q improves
    the slope and with it the next mean-value form.
    """
    lo, hi = box
    middle = middle_of(lo, hi)
    y = [x - c for x, c in zip(box_balls(lo, hi), center, strict=True)]
    ym = [m - c for m, c in zip(middle, center, strict=True)]
    gradient, hessian, at_middle = field.gradient_and_hessian(lo, hi)
    gap, rise = norm2(y), [g - b for g, b in zip(gradient, base, strict=True)]
    qm = dot(ym, [g - b for g, b in zip(at_middle, base, strict=True)]) / norm2(ym)
    fixed = [r + h for r, h in zip(rise, times(hessian, y), strict=True)]
    quotient = intersect(known, dot(y, rise) / gap)
    least = below(quotient)
    for _ in range(3):
        slope = [(f - 2 * quotient * z) / gap for f, z in zip(fixed, y, strict=True)]
        down, up = cover.rise([-s for s in slope], lo, hi), cover.rise(slope, lo, hi)
        mean = (qm - down).union(qm + up)
        least = max(least, below(qm - down))
        if not mean.is_finite() or mean.rad() >= 0.9 * quotient.rad():
            break
        quotient = mean
    return least, side_weights(slope, lo, hi)


def side_weights(slope: Sequence[Ball], lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
    """Return how much each side of the box adds to a quantity's width: the longest in this sense is split."""
    return np.array([above(abs(s)) for s in slope]) * (hi - lo)


def reach_sup(v: np.ndarray, center: np.ndarray, cover: Cover, budget: Budget) -> Constant:
    """Bound R_v = sup |v·(x - center)| over the cover from above."""
    w, c = [arb(float(t)) for t in v], [arb(float(t)) for t in center]
    if isinstance(cover, BallCover):
        offset = dot(w, [arb(float(m)) - t for m, t in zip(cover.center, c, strict=True)])
        value = above(abs(offset) + norm(w) * arb(cover.radius))
        return Constant("R_v", value, "upper", "closed form for a ball, in Arb")
    if isinstance(cover, BoxCover):
        widest = arb(0)
        for sign in (1, -1):
            corner = np.where(sign * v > 0, cover.upper, cover.lower)
            widest = widest.max(sign * dot(w, [arb(float(x)) - t for x, t in zip(corner, c, strict=True)]))
        return Constant("R_v", above(widest), "upper", "largest over the corners of a box, in Arb")

    def bound(lo: np.ndarray, hi: np.ndarray) -> tuple[float, np.ndarray]:
        y = dot(w, [x - t for x, t in zip(box_balls(lo, hi), c, strict=True)])
        return above(abs(y)), np.abs(v) * (hi - lo)

    return as_constant("R_v", "upper", search(bound, lambda x: np.abs((x - center) @ v), cover, budget))


def gradient_at(field: Field, center: np.ndarray) -> Constant:
    """Bound |∇L(center)| from above."""
    value = above(norm(field.gradient([arb(float(c)) for c in center])))
    return Constant("gradient at the centre", value, "upper", "one evaluation in Arb", 1, math.isfinite(value))


def stationary_point(field: Field, center: np.ndarray) -> tuple[list[Ball], bool]:
    """Enclose the stationary point of L near `center`, if its existence can be proven.

    Either ∇L(center) is exactly zero, or Krawczyk's operator maps a small box around the centre into itself, which
    proves that the box holds exactly one zero of ∇L.

    Returns
    -------
    list of d balls, bool
        The enclosure and True; or the centre itself and False.
    """
    point = [arb(float(c)) for c in center]
    gradient, hessian = field.gradient(point), field.hessian(point)
    if all(g == 0 and g.is_exact() for g in gradient):
        return point, True
    d = field.dimension
    if not (finite(gradient) and finite(hessian)):
        return point, False
    mid = np.array([float(h.mid()) for h in hessian]).reshape(d, d)
    if not np.linalg.cond(mid) < 1e12:
        return point, False
    inverse = [arb(float(t)) for t in np.linalg.inv(mid).ravel()]
    shift = times(inverse, gradient)
    width = 4 * max(above(abs(s)) for s in shift) + 1e-300
    box = [c + arb(0, width) for c in point]
    residual = [arb(int(k % (d + 1) == 0)) - m for k, m in enumerate(_product(inverse, field.hessian(box), d))]
    image = [c - s + t for c, s, t in zip(point, shift, times(residual, [arb(0, width)] * d), strict=True)]
    if finite(image) and all(x.contains_interior(k) for x, k in zip(box, image, strict=True)):
        return image, True
    return point, False


def _product(a: Sequence[Ball], b: Sequence[Ball], d: int) -> list[Ball]:
    return [dot(a[i * d : (i + 1) * d], b[j::d]) for i in range(d) for j in range(d)]
