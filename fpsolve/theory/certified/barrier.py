"""Sub- and supersolutions of the exit-time problem: polynomials whose inequalities are proved.

Theorem. Let S be a closed part of ∂Ω with X_τ ∈ S almost surely, w ∈ C² on the closure of Ω, and let the process be
reflected along the conormal a n on the reflecting sides, where ``(a n)·∇w >= 0`` (upper) or ``<= 0`` (lower).

- ``-A w >= m > 0`` in Ω and ``w >= -b`` on S imply ``E_x τ <= (w(x) + b)/m``.
- ``-A w <= M`` in Ω and ``w <= b`` on S imply ``E_x τ >= (w(x) - b)/M``, M > 0.

Proof. By Itô's formula ``E w(X_{τ∧t}) - w(x)`` is ``E ∫ A w ds`` minus the local time on the reflecting sides times
``(a n)·∇w``; w is bounded, so let t → ∞ (monotone convergence of E(τ∧t), dominated convergence of w). No ellipticity
is used.

Reflecting sides are satisfied in floating point only: ``(a n)·∇w >= -c``. With ``z = Σ ½ζ_i (x_i - middle_i)²`` over
their directions and ``(a n)·∇z >= 1`` there, ``A z <= Z``, ``0 <= z <= z₁`` the theorem for ``w + c z`` (``w - c z``)
gives the same statements with m - cZ (M + cZ) and b + c z₁ in place of m (M) and b.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from flint import arb

from fpsolve.model.domains import Ball as BallDomain
from fpsolve.model.domains import Box, Interval
from fpsolve.theory.balls import Ball, above, below
from fpsolve.theory.certified.angular import Angular, Range, least, two_sided
from fpsolve.theory.certified.generator import Coefficient, Generator
from fpsolve.theory.certified.polynomial import Polynomial, exact_points, from_grid
from fpsolve.theory.certified.shapes import on_ball, on_box, on_sphere
from fpsolve.theory.certified.task import Candidate

UNIT = 2.0**-53


@dataclass(frozen=True)
class Barrier:
    """A function ``(w + b)/m`` (upper) or ``(w - b)/M`` (lower) that is proved to bound the mean exit time.

    Attributes
    ----------
    kind : "lower" or "upper"
    lower_corner, upper_corner : tuple of float
        The box of the Chebyshev polynomials.
    coefficients : tuple of ndarray
        Their exact sum is meant.
    factor : float
        m or M.
    offset : float
        b.
    """

    kind: Literal["lower", "upper"]
    lower_corner: tuple[float, ...]
    upper_corner: tuple[float, ...]
    coefficients: tuple[np.ndarray, ...]
    factor: float
    offset: float

    def at(self, x: Sequence[float]) -> float:
        """Return the bound at a point of Ω, in Arb, rounded to the safe side; in the process' unit of time."""
        w = Polynomial.of_floats(self.lower_corner, self.upper_corner, self.coefficients)
        value = w.at(exact_points(np.array([x])))[0]
        if self.kind == "upper":
            return above((value + arb(self.offset)) / arb(self.factor))
        return max(below((value - arb(self.offset)) / arb(self.factor)), 0.0)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the bound at points of Ω (n, d), shape (n,), in floating point, rounded to the safe side.

        The rounding of s is at most 4 units; ``|T_k'| <= k²``; sums of N terms err by N units of Σ|c|.
        """
        lower, upper = np.array(self.lower_corner), np.array(self.upper_corner)
        s = np.clip((2 * x - lower - upper) / (upper - lower), -1.0, 1.0)
        total = np.zeros(len(x))
        error = 0.0
        for part in self.coefficients:
            total += _series(part, s)
            degrees = sum(k**2 for k in np.indices(part.shape))
            error += float(np.sum(np.abs(part) * (8 * degrees + 4 * part.size**0.5 + 64))) * 2 * UNIT
        if self.kind == "upper":
            return (total + error + self.offset) / self.factor * (1 + 8 * UNIT)
        return np.maximum((total - error - self.offset) / self.factor * (1 - 8 * UNIT), 0.0)


def _series(coefficients: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Evaluate a tensor Chebyshev series at scattered points."""
    vectors = [np.polynomial.chebyshev.chebvander(s[:, i], n - 1) for i, n in enumerate(coefficients.shape)]
    values = np.tensordot(vectors[0], coefficients, axes=1)
    for vector in vectors[1:]:
        values = np.einsum("nk...,nk->n...", values, vector)
    return values


@dataclass(frozen=True, eq=False)
class Setting:
    """What the proofs need: Ω, its parts, and the generator with rigorous coefficients on the bounding box.

    Attributes
    ----------
    domain : Interval, Box or Ball
    absorbing : tuple of str
        S.
    generator : Generator
    """

    domain: Any
    absorbing: tuple[str, ...]
    generator: Generator

    @property
    def reflecting(self) -> tuple[str, ...]:
        """The reflecting sides."""
        return tuple(self.domain.reflecting)

    def interior(self, p: Polynomial) -> Angular:
        """Return p on Ω."""
        if isinstance(self.domain, BallDomain):
            return on_ball(p, self.domain.center, self.domain.radius)
        return on_box(p)

    def parts(self, p: Polynomial) -> list[Angular | Ball]:
        """Return p on each part of S; a number at an end of an interval."""
        if isinstance(self.domain, BallDomain):
            if not self.absorbing:
                return []
            if p.dimension == 1:
                c, r = arb(self.domain.center[0]), arb(self.domain.radius)
                return list(p.at([np.array([c - r, c + r], dtype=object)]))
            return [on_sphere(p, self.domain.center, self.domain.radius)]
        return [_on_face(p, *side(self.domain, name)) for name in self.absorbing]


def side(domain: Interval | Box, name: str) -> tuple[int, int]:
    """Return the axis and the sign of the outward normal of a side."""
    position = domain.names.index(name)
    return position // 2, 1 if position % 2 else -1


def _on_face(p: Polynomial, axis: int, sign: int) -> Angular | Ball:
    face = p.face(axis, sign)
    return face.coefficients if p.dimension == 1 else on_box(face)


def prove(setting: Setting, candidate: Candidate, width: float, deadline: float) -> dict[str, Barrier]:
    """Return the barriers, by kind, that the candidate gives; {} where m <= 0 or a range is not finite.

    Parameters
    ----------
    width : float
        The relative accuracy with which the inequalities are worth knowing.
    """
    w = Polynomial.of_floats(candidate.lower, candidate.upper, candidate.coefficients)
    image, error = setting.generator(w)
    slack = above(error)
    if not math.isfinite(slack):
        return {}
    minus = Polynomial(image.lower, image.upper, -image.coefficients)
    inside = setting.interior(minus)
    found = {}
    scale = max((_size(part) for part in setting.parts(w)), default=0.0)
    if candidate.kind == "both":
        rough = two_sided(inside)
        m, top = rough.lower, rough.upper
        edge = [_range(part, scale, deadline) for part in setting.parts(w)]
    else:
        m = least(inside, 0.1 * width, math.inf, deadline)[0] if candidate.kind == "upper" else -math.inf
        top = -least(negative(inside), 0.1 * width, math.inf, deadline)[0] if candidate.kind == "lower" else math.inf
        edge = [_range(part, scale, deadline) for part in setting.parts(w)]
    low = min((r.lower for r in edge), default=math.inf)
    high = max((r.upper for r in edge), default=-math.inf)
    shifts = _reflection(setting, w) if setting.reflecting else {"upper": (0.0, 0.0), "lower": (0.0, 0.0)}
    if candidate.kind != "lower" and "upper" in shifts:
        cz, cz1 = shifts["upper"]
        factor, offset = below(arb(m) - arb(slack) - arb(cz)), above(arb(max(-low, 0.0)) + arb(cz1))
        if factor > 0 and math.isfinite(offset):
            found["upper"] = Barrier("upper", w.lower, w.upper, candidate.coefficients, factor, offset)
    if candidate.kind != "upper" and "lower" in shifts:
        cz, cz1 = shifts["lower"]
        factor, offset = above(arb(top) + arb(slack) + arb(cz)), above(arb(max(high, 0.0)) + arb(cz1))
        if 0 < factor < math.inf and math.isfinite(offset):
            found["lower"] = Barrier("lower", w.lower, w.upper, candidate.coefficients, factor, offset)
    return found


def negative(function: Angular) -> Angular:
    """Return -F."""
    return Angular(function.kinds, -function.coefficients, function.spans)


def _size(part: Angular | Ball) -> float:
    return above(abs(part.coefficients).max()) if isinstance(part, Angular) else above(abs(part))


def _range(part: Angular | Ball, scale: float, deadline: float) -> Range:
    """Return the range on a part of the boundary: two-sided first, one-sided where that is coarse."""
    if not isinstance(part, Angular):
        return Range(below(part), above(part))
    if part.coefficients.ndim > 1:
        return two_sided(part)
    tolerance = 1e-3 * scale
    lower = least(part, tolerance, math.inf, deadline)[0]
    return Range(lower, -least(negative(part), tolerance, math.inf, deadline)[0])


def _reflection(setting: Setting, w: Polynomial) -> dict[str, tuple[float, float]]:
    """Return (c Z, c z₁) by kind; {} where no correction z is found."""
    domain, d = setting.domain, w.dimension
    sides = [side(domain, name) for name in setting.reflecting]
    axes = sorted({axis for axis, _ in sides})
    diffusion = setting.generator.on(w.lower, w.upper)[1]
    weights = {}
    for axis in axes:
        a = [_bounds(diffusion[axis * d + axis], *s)[0] for s in sides if s[0] == axis]
        if not min(a) > 0:
            return {}
        weights[axis] = 2.0 / (min(a) * float(w.half(axis).mid()))
    z = _paraboloid(w, weights)
    least_slope = min(_conormal(diffusion, z, *s)[0] for s in sides)
    rise, error = setting.generator(z)
    top = above(arb(two_sided(on_box(rise)).upper) + error)
    slopes = [_conormal(diffusion, w, *s) for s in sides]
    if not (least_slope >= 1 and math.isfinite(top)):
        return {}
    height = above(z.size() * 2)
    result = {}
    for kind, c in (("upper", max(-min(s[0] for s in slopes), 0.0)), ("lower", max(max(s[1] for s in slopes), 0.0))):
        if math.isfinite(c):
            result[kind] = (above(arb(c) * arb(max(top, 0.0))), above(arb(c) * arb(height)))
    return result


def _paraboloid(w: Polynomial, weights: dict[int, float]) -> Polynomial:
    """Return z = Σ ½ζ_i (x_i - middle_i)²."""
    d = w.dimension
    values = np.zeros((3,) * d)
    for axis, weight in weights.items():
        half = float(w.half(axis).mid())
        share = 0.25 * weight * half**2  # ½ζ h² s² = ¼ζ h² (T_0 + T_2)
        index = [0] * d
        values[tuple(index)] += share
        index[axis] = 2
        values[tuple(index)] += share
    return Polynomial.of_floats(w.lower, w.upper, [values])


def _conormal(diffusion: Sequence[Coefficient], w: Polynomial, axis: int, sign: int) -> tuple[float, float]:
    """Return bounds of (a n)·∇w on a side."""
    d = w.dimension
    low, high = arb(0), arb(0)
    total: Polynomial | None = None
    for j in range(d):
        c, slope = diffusion[axis * d + j], w.derivative(j)
        product = product_of(c.polynomial, slope)
        total = product if total is None else _sum(total, product)
        low, high = low - c.error * slope.size(), high + c.error * slope.size()
    assert total is not None
    bounds = _bounds(Coefficient(total, arb(0)), axis, sign)
    if sign < 0:
        bounds = (-bounds[1], -bounds[0])
    return below(arb(bounds[0]) + low), above(arb(bounds[1]) + high)


def product_of(p: Polynomial, q: Polynomial) -> Polynomial:
    """Return the product of two polynomials on one box."""
    sizes = [a + b - 1 for a, b in zip(p.shape, q.shape, strict=True)]
    return from_grid(p.lower, p.upper, p.on_grid(sizes) * q.on_grid(sizes))


def _sum(p: Polynomial, q: Polynomial) -> Polynomial:
    shape = tuple(max(a, b) for a, b in zip(p.shape, q.shape, strict=True))
    return Polynomial(p.lower, p.upper, _padded(p, shape) + _padded(q, shape))


def _padded(p: Polynomial, shape: tuple[int, ...]) -> Any:
    values = np.empty(shape, dtype=object)
    values[...] = arb(0)
    values[tuple(slice(0, n) for n in p.shape)] = p.coefficients
    return values


def _bounds(c: Coefficient, axis: int, sign: int) -> tuple[float, float]:
    """Return bounds of a coefficient on a side."""
    face = _on_face(c.polynomial, axis, sign)
    if isinstance(face, Angular):
        found = two_sided(face)
        low, high = found.lower, found.upper
    else:
        low, high = below(face), above(face)
    return below(arb(low) - c.error), above(arb(high) + c.error)
