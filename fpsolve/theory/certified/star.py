r"""A rigorous bracket of a star-shaped component Ω of {L < below} between two scalings of one explicit curve.

γ is a closed curve of Bézier arcs about c, a point of Ω. Two numbers ``inner < 1 < outer`` are found and proved with

    {c + s(γ - c): 0 <= s <= inner}  ⊂  Ω  ⊂  {c + s(γ - c): 0 <= s < outer}.

Proof of the first: the set is connected, holds c, and L < below on it. Near γ this is shown by L < below at s = inner
and ``∂_s L(c + s(γ-c)) > 0`` for s in [s_0, inner]; for s <= s_0 directly; both by cutting (s, t)-cells, in mean-value
form. Proof of the second: L >= below on ``Γ = c + outer(γ - c)``, by Taylor series, and Γ winds once around c. Ω is
connected, holds c and does not meet Γ, so Γ winds around each of its points; it would not wind around a point x outside
of the union of the segments from c to Γ, because along these Γ shrinks to c without meeting x. □

Also proved: ``(γ-c) × γ' > 0``, so (s, t) are coordinates of both sets. By monotonicity of the mean exit time in the
domain, lower bounds for the inner set and upper bounds for the outer one hold for Ω; with the conditions on ∂Ω also
between the curves, they hold at all of its points (`fpsolve.theory.certified.setting`).

In one dimension γ is the two ends. Three dimensions, and losses without formulas, are not covered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flint import arb, arb_poly

from fpsolve.model.domains import Sublevel
from fpsolve.model.expressions import Formula
from fpsolve.model.process import Enclosure, FormulaLandscape
from fpsolve.theory.balls import Ball, above, below, dot, finite, intersect, interval, times
from fpsolve.theory.certified.arcs import StarBracket, misfit, sector_points, trace_curve
from fpsolve.theory.certified.series import precision, range_along
from fpsolve.theory.certified.signs import everywhere, singular

__all__ = ["StarBracket", "sector_points", "star_bracket", "star_failure"]

TERMS = 12  # of Taylor series along an arc
BITS = 96
CORES = (0.8, 0.5, 0.95, 0.99)  # where the search for ∂_s L > 0 may begin
WIDEST = 0.05  # widest bracket that is tried, relative
ON_OUTER = "L >= below is not proved on the outer curve"
ON_INNER = "L < below is not proved on the inner curve"
NOT_AROUND = "the curve is not proved to wind once around the point: the component may not be star-shaped about it"
NOT_FILLED = "L < below is not proved inside of the inner curve: the component may not be star-shaped about the point"


def star_bracket(domain: Sublevel, sectors: int = 24) -> StarBracket | str:
    """Return a proved bracket of a component that is star-shaped about ``domain.containing``, or why there is none.

    Parameters
    ----------
    domain : Sublevel
        In one or two dimensions, with a `FormulaLandscape`.
    sectors : int
        Largest number of arcs of degree 8, at least 4. More of them give a narrower bracket; shorter ones are put
        where the boundary needs them.

    Returns
    -------
    StarBracket or str
        Everything in the module's docstring is proved about the bracket. Otherwise a sentence.
    """
    landscape = domain.landscape
    if not isinstance(landscape, FormulaLandscape):
        return "the level set is not given by a formula"
    if domain.dimension == 3:
        return "brackets of level sets are not covered in three dimensions"
    curve = trace_curve(domain, max(sectors, 4))
    if isinstance(curve, str):
        return curve
    trial = StarBracket(domain.containing, curve, 1.0, 1.0)
    low, high = misfit(domain, trial)
    slack, reason = 0.25 * (high - low) + 4e-15, ON_OUTER
    while slack < WIDEST and reason in (ON_OUTER, ON_INNER):  # nothing else depends on the width
        trial = StarBracket(domain.containing, curve, min(low, 1.0) - slack, max(high, 1.0) + slack)
        reason = star_failure(domain, trial)
        if not reason:
            return trial
        slack *= 8
    return reason


def star_failure(domain: Sublevel, bracket: StarBracket) -> str:
    """Return "" if everything in the module's docstring is proved about a bracket, else what is not.

    Parameters
    ----------
    domain : Sublevel
    bracket : StarBracket
        From anywhere: nothing about it is believed.
    """
    d = domain.dimension
    if not isinstance(domain.landscape, FormulaLandscape) or d > 2 or bracket.center != domain.containing:
        return "the bracket is not about the point of a domain in one or two dimensions, given by a formula"
    points = [p for arc in bracket.sectors for p in arc]
    numbers = [bracket.inner, bracket.outer, *(x for p in points for x in p)]
    usable = all(len(p) == d for p in points) and all(math.isfinite(x) for x in numbers)
    if not usable or not 0 < bracket.inner < 1 < bracket.outer:
        return "the bracket has unusable numbers"
    if not _joined(bracket):
        return "the arcs do not make a closed curve around the point"
    with precision(BITS, TERMS + 1):
        arcs = [_Arc.of(domain, arc) for arc in bracket.sectors]
        if d == 2 and not _winds_once(arcs):
            return NOT_AROUND
        for arc in arcs:
            if not arc.within(bracket.outer):
                return "the outer curve is not proved to lie in the box in which the component is looked for"
            if not arc.side(bracket.outer, 1):
                return ON_OUTER
            if not arc.side(bracket.inner, -1):
                return ON_INNER
        return "" if all(arc.filled(bracket.inner) for arc in arcs) else NOT_FILLED


def _joined(bracket: StarBracket) -> bool:
    """Tell whether the arcs are an end on each side (1D), or each ends exactly where the next one begins (2D)."""
    arcs, center = bracket.sectors, bracket.center
    if len(center) == 1:
        return [len(arc) for arc in arcs] == [1, 1] and arcs[0][0][0] < center[0] < arcs[1][0][0]
    return len(arcs) > 0 and all(len(arc) > 1 and arc[0] == arcs[k - 1][-1] for k, arc in enumerate(arcs))


@dataclass(frozen=True)
class _Arc:
    """One arc v = γ_k - c as polynomials of t in [-1, 1], with exact control points."""

    domain: Sublevel
    enclosure: Enclosure
    formula: Formula
    center: tuple[Ball, ...]
    control: tuple[tuple[Ball, ...], ...]
    coordinates: tuple[Any, ...]
    smooth: bool  # no kinks, so D²L may be evaluated

    @classmethod
    def of(cls, domain: Sublevel, points: Sequence[Sequence[float]]) -> _Arc:
        landscape = domain.landscape
        assert isinstance(landscape, FormulaLandscape)
        center = tuple(arb(c) for c in domain.containing)
        control = tuple(tuple(arb(x) - c for x, c in zip(point, center, strict=True)) for point in points)
        n = len(points) - 1
        up, down = arb_poly([arb(1) / 2, arb(1) / 2]), arb_poly([arb(1) / 2, -arb(1) / 2])
        basis = [arb_poly([math.comb(n, j)]) * _product(up, j) * _product(down, n - j) for j in range(n + 1)]
        coordinates = tuple(
            sum((b * arb_poly([p[i]]) for b, p in zip(basis, control, strict=True)), arb_poly([0]))
            for i in range(len(center))
        )
        smooth = not any(singular(entry) for entry in landscape.loss_formula.derivative().derivative().entries)
        return cls(domain, landscape.enclosure(), landscape.loss_formula, center, control, coordinates, smooth)

    def scaled(self, s: float) -> list[Any]:
        """Return c + s v as polynomials."""
        return [arb_poly([c]) + v * arb_poly([arb(s)]) for c, v in zip(self.center, self.coordinates, strict=True)]

    def within(self, s: float) -> bool:
        """Tell whether c + s v lies strictly inside the box of the domain; an arc lies in its points' convex hull."""
        for point in self.control:
            place = [c + arb(s) * x for c, x in zip(self.center, point, strict=True)]
            corners = zip(place, self.domain.lower, self.domain.upper, strict=True)
            if not all(x > arb(a) and x < arb(b) for x, a, b in corners):
                return False
        return True

    def side(self, s: float, sign: int) -> bool:
        """Tell whether L >= below (sign 1) or L < below (sign -1) is proved on c + s v."""
        curve, level = self.scaled(s), arb(self.domain.below)

        def test(lo: np.ndarray, hi: np.ndarray) -> bool:
            middle, half = 0.5 * (lo[0] + hi[0]), 0.5 * (hi[0] - lo[0])
            value = range_along(self.formula, curve, float(middle), float(half), TERMS)
            return bool(value >= level if sign > 0 else value < level)

        return everywhere(np.array([-1.0]), np.array([1.0]), test, math.inf, aim=1e-4)

    def filled(self, inner: float) -> bool:
        """Tell whether L < below is proved on {c + s v: 0 <= s <= inner}, if it is for s = inner."""
        last = [-1.0, 1.0] if len(self.control) > 1 else [0.0, 0.0]
        for core in CORES:
            start = core * inner
            lower, upper = np.array([start, last[0]]), np.array([inner, last[1]])
            if not everywhere(lower, upper, self._rises, math.inf, aim=0.003):
                continue
            if everywhere(np.array([0.0, last[0]]), np.array([start, last[1]]), self._below, math.inf, aim=0.003):
                return True
        return False

    def _cell(self, lo: np.ndarray, hi: np.ndarray) -> tuple[list[Ball], list[Ball], list[Ball]]:
        """Enclose (s, t), v and v' over a cell; halving [-1, 1] keeps middles and half-widths in t exact."""
        box = [interval(float(a), float(b)) for a, b in zip(lo, hi, strict=True)]
        middle, half = arb(float(0.5 * (lo[1] + hi[1]))), arb(0, float(0.5 * (hi[1] - lo[1])))
        v, slope = [], []
        for p in self.coordinates:
            moved = p(arb_poly([middle, 1]))
            v.append(moved(half))
            slope.append(moved.derivative()(half))
        return box, v, slope

    def _parts(self, lo: np.ndarray, hi: np.ndarray) -> tuple[Ball, list[Ball], list[Ball], list[Ball], Ball]:
        """Enclose L, v, v', ∇L over a cell of (s, t), and s."""
        box, v, slope = self._cell(lo, hi)
        x = [c + box[0] * y for c, y in zip(self.center, v, strict=True)]
        return self.enclosure.loss(x), v, slope, self.enclosure.gradient(x), box[0]

    def _steps(self, lo: np.ndarray, hi: np.ndarray) -> tuple[np.ndarray, list[Ball]]:
        middle = 0.5 * (lo + hi)
        balls = [interval(float(a), float(b)) for a, b in zip(lo, hi, strict=True)]
        return middle, [x - arb(float(m)) for x, m in zip(balls, middle, strict=True)]

    def _below(self, lo: np.ndarray, hi: np.ndarray) -> bool:
        """Tell whether L < below on a cell: plainly or by F(m) + F_s (s - s_m) + F_t (t - t_m)."""
        plain, v, slope, gradient, s = self._parts(lo, hi)
        if above(plain) < self.domain.below:
            return True
        if not finite(gradient):
            return False
        middle, steps = self._steps(lo, hi)
        value = self._parts(middle, middle)[0]
        value += dot(gradient, v) * steps[0] + s * dot(gradient, slope) * steps[1]
        return above(value) < self.domain.below

    def _rises(self, lo: np.ndarray, hi: np.ndarray) -> bool:
        """Tell whether G = ∂_s L = ∇L·v > 0 on a cell: plainly or in mean-value form."""
        box, v, slope = self._cell(lo, hi)
        x = [c + box[0] * y for c, y in zip(self.center, v, strict=True)]
        gradient = self.enclosure.gradient(x)
        if below(dot(gradient, v)) > 0:
            return True
        hessian = self.enclosure.hessian(x) if self.smooth else [arb("nan")]
        if not finite(hessian):
            return False
        middle, steps = self._steps(lo, hi)
        _, v_m, _, gradient_m, s_m = self._parts(middle, middle)
        x_m = [c + s_m * y for c, y in zip(self.center, v_m, strict=True)]
        change = times(hessian, [a - b for a, b in zip(x, x_m, strict=True)])
        gradient = [intersect(g, h + k) for g, h, k in zip(gradient, gradient_m, change, strict=True)]
        bent = times(hessian, v)
        value = dot(gradient_m, v_m) + dot(v, bent) * steps[0]
        value += (dot(gradient, slope) + box[0] * dot(slope, bent)) * steps[1]
        return below(value) > 0


def _product(p: Any, n: int) -> Any:
    result = arb_poly([1])
    for _ in range(n):
        result = result * p
    return result


def _winds_once(arcs: Sequence[_Arc]) -> bool:
    """Tell whether the closed curve turns anticlockwise everywhere, and once in all.

    Each arc lies in an open half-plane through c, so its angle changes by the argument of its ends' quotient.
    """
    total = arb(0)
    for arc in arcs:
        (ax, ay), (bx, by) = arc.control[0], arc.control[-1]
        direction = (ax + bx, ay + by)
        if not all(dot(direction, point) > 0 for point in arc.control):
            return False
        total += arb.atan2(ax * by - ay * bx, ax * bx + ay * by)
        x, y = arc.coordinates
        cross = x * y.derivative() - y * x.derivative()

        def turns(lo: np.ndarray, hi: np.ndarray, cross: Any = cross) -> bool:
            moved = cross(arb_poly([arb(float(0.5 * (lo[0] + hi[0]))), 1]))
            return bool(moved(arb(0, float(0.5 * (hi[0] - lo[0])))) > 0)

        if not everywhere(np.array([-1.0]), np.array([1.0]), turns, math.inf, aim=1e-3):
            return False
    return bool(abs(total / arb.pi() - 2) < 1)
