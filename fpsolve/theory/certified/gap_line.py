"""The spectral gap on an interval: a function g > 0 with ``-s g'' + L' g' + L'' g > κ g``, found and proved in Arb.

v = u' of an eigenfunction u vanishes at the ends and solves ``H v = γ v``, ``H = -s ∂² + L' ∂ + L''``: the gap is the
principal Dirichlet eigenvalue of H, and ``(H - κ) g = 1``, g = 1 at the ends has a positive solution for every κ < γ.
That solution is g: the bound is as sharp as the equation is solved. It ranges over e^{ΔL/s}, hence the many bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flint import arb, arb_mat, arb_poly, ctx

from fpsolve.theory.balls import Ball

#: κ is aimed at below the computed gap by this part.
BELOW = 1e-5
DEGREES = (24, 36, 54, 80, 120, 180, 260, 380)
ITERATIONS = 200
#: A proof is tried when the computed gap changes by less than this part from one degree to the next.
SETTLED = 1e-4
SAMPLES = 256
#: A piece of the interval is halved at most so often.
DEEPEST = 60


@dataclass(frozen=True)
class Line:
    """H on x = middle + half t, t in [-1, 1].

    Attributes
    ----------
    middle, half : arb
    diffusion : arb
        s, the constant of a = s.
    slope, curvature : arb_poly
        L' and L'' as functions of t.
    slope_error, curvature_error : arb
        Bounds of what the polynomials leave out.
    """

    middle: Ball
    half: Ball
    diffusion: Ball
    slope: arb_poly
    curvature: arb_poly
    slope_error: Ball
    curvature_error: Ball


@dataclass(frozen=True)
class LineBound:
    """What was found: the gap is >= `value` if `verified`.

    Attributes
    ----------
    value, computed : float
        κ, and the gap in floating point (not proved).
    verified : bool
    reason : str
    degree : int
        Of g.
    coefficients : tuple of ndarray, each of shape (degree+1,)
        Chebyshev coefficients of g on the interval; their exact sum is meant.
    """

    value: float
    computed: float
    verified: bool
    reason: str = ""
    degree: int = 0
    coefficients: tuple[np.ndarray, ...] = ()


def line_bound(line: Line, deadline: float, bits: int) -> LineBound:
    """Find and prove a lower bound of the gap; degrees are raised until the proof succeeds or time is up.

    Parameters
    ----------
    line : Line
    deadline : float
        A moment of `time.monotonic`; a degree is not begun after it.
    bits : int
        Precision that the range of g needs; more is added for the degree.
    """
    before, reason = math.nan, "no time"
    for degree in DEGREES:
        if time.monotonic() >= deadline:
            break
        with ctx.workprec(bits + degree):
            found = _Collocation(line, degree)
            computed = found.gap()
            settled = abs(computed - before) <= SETTLED * abs(computed)
            before, reason = computed, f"the inequality of g could not be proved up to degree {degree}"
            if not (0 < computed < math.inf):
                continue
            target = computed * (1 - BELOW)
            balls = found.solution(target) if settled or degree == DEGREES[0] else None
        if balls is None:
            continue
        with ctx.workprec(bits + 2 * degree):  # powers of t have large coefficients
            parts = _floats(balls, (bits + degree) // 53 + 1)
            if positive_everywhere(line, target, parts):
                return LineBound(target, computed, True, "", degree, parts)
    return LineBound(0.0, before, False, reason)


def _chebyshev(t: list[Ball], degree: int) -> list[np.ndarray]:
    """Return T_k, T_k', T_k'' at points of [-1, 1], each of shape (len(t), degree+1)."""
    x = np.array(t, dtype=object)
    value, first, second = (np.full((len(t), degree + 1), arb(0), dtype=object) for _ in range(3))
    value[:, 0], value[:, 1], first[:, 1] = arb(1), x, arb(1)
    for k in range(2, degree + 1):
        value[:, k] = 2 * x * value[:, k - 1] - value[:, k - 2]
        first[:, k] = 2 * value[:, k - 1] + 2 * x * first[:, k - 1] - first[:, k - 2]
        second[:, k] = 4 * first[:, k - 1] + 2 * x * second[:, k - 1] - second[:, k - 2]
    return [value, first, second]


class _Collocation:
    """H at Chebyshev nodes, with values at the ends in the first and the last row; nothing is proved here."""

    def __init__(self, line: Line, degree: int) -> None:
        nodes = [arb(float(x)) for x in np.cos(np.pi * np.arange(degree + 1) / degree)]
        value, first, second = _chebyshev(nodes, degree)
        slope = np.array([line.slope(t) for t in nodes], dtype=object)[:, None]
        curvature = np.array([line.curvature(t) for t in nodes], dtype=object)[:, None]
        self.rows = -line.diffusion / line.half**2 * second + slope / line.half * first + curvature * value
        self.ends = [0, degree]
        self.rows[self.ends] = value[self.ends]
        self.value = value

    def gap(self) -> float:
        """Return 1 / the largest eigenvalue of the Green operator, by the power method; nan where there is none."""
        size = len(self.rows)
        values = _matrix(self.value)
        try:
            inverse = _matrix(self.rows).inv().mid()
        except ZeroDivisionError:  # flint's word for a matrix it cannot invert
            return math.nan
        vector, eigenvalue = arb_mat(size, 1, [0] + [1] * (size - 2) + [0]), arb(0)
        for _ in range(ITERATIONS):
            image = (values * (inverse * vector).mid()).mid().entries()
            image[0] = image[-1] = arb(0)
            if not all(x.is_finite() for x in image):
                return math.nan
            largest = max(image, key=lambda x: float(abs(x).log()) if x != 0 else -math.inf)
            if not largest > 0:
                return math.nan
            before, eigenvalue = eigenvalue, largest
            vector = arb_mat(size, 1, [x / largest for x in image]).mid()
            if abs(eigenvalue - before) <= eigenvalue * arb(1e-12):
                break
        return float(1 / eigenvalue)

    def solution(self, target: float) -> list[Ball] | None:
        """Return the Chebyshev coefficients of g with ``(H - target) g = 1``, g = 1 at the ends."""
        shifted = self.rows - arb(target) * self.value
        shifted[self.ends] = self.rows[self.ends]
        try:
            solved = _matrix(shifted).solve(arb_mat(len(shifted), 1, [1] * len(shifted)), algorithm="approx")
        except ZeroDivisionError:
            return None
        return [x.mid() for x in solved.entries()]


def _matrix(values: np.ndarray) -> arb_mat:
    return arb_mat(values.shape[0], values.shape[1], list(values.ravel())).mid()


def _floats(balls: list[Ball], parts: int) -> tuple[np.ndarray, ...]:
    """Return arrays of floats whose sum is near the midpoints."""
    rest, result = list(balls), []
    for _ in range(parts):
        part = [float(x.mid()) for x in rest]
        rest = [x - arb(p) for x, p in zip(rest, part, strict=True)]
        result.append(np.array(part))
        if all(x == 0 for x in rest):
            break
    return tuple(result)


def positive_everywhere(line: Line, value: float, coefficients: tuple[np.ndarray, ...]) -> bool:
    """Prove g > 0 and ``-s g'' + L' g' + L'' g > value g`` on the closed interval; False if that fails.

    Parameters
    ----------
    line : Line
    value : float
        κ; an exact number.
    coefficients : tuple of ndarray, each of shape (n+1,)
        Chebyshev coefficients of g; their exact sum is meant.
    """
    g = polynomial(coefficients)
    per_length = 1 / line.half
    first = g.derivative() * per_length
    second = first.derivative() * per_length
    excess = -line.diffusion * second + line.slope * first + (line.curvature - arb(value) - line.curvature_error) * g
    if line.slope_error == 0:
        return positive(g) and positive(excess)
    change = line.slope_error * first  # |δL' g'| <= |change|
    return positive(g) and positive(excess - change) and positive(excess + change)


def polynomial(coefficients: tuple[np.ndarray, ...]) -> arb_poly:
    """Return ``Σ c_k T_k(t)`` in powers of t for the exact sum of float arrays."""
    total: list[Ball] = [arb(0)] * len(coefficients[0])
    for part in coefficients:
        total = [t + arb(float(c)) for t, c in zip(total, part, strict=True)]
    return in_powers(total)


def in_powers(coefficients: Sequence[Ball]) -> arb_poly:
    """Return ``Σ c_k T_k(t)`` in powers of t, by Clenshaw's recurrence."""
    t = arb_poly([0, 1])
    one, two = arb_poly([0]), arb_poly([0])
    for c in reversed(coefficients[1:]):
        one, two = 2 * t * one - two + c, one
    return t * one - two + coefficients[0]


def positive(p: arb_poly) -> bool:
    """Prove p > 0 on [-1, 1] by halving; on a piece of length 2r at c, ``p(c + rt) >= p_0 - Σ|p_k|``."""
    if not all(p(arb(x)) > 0 for x in (2.0 * k / SAMPLES - 1.0 for k in range(SAMPLES + 1))):
        return False  # cheap
    stack = [(p, 0)]
    left, right = arb_poly([-0.5, 0.5]), arb_poly([0.5, 0.5])
    while stack:
        q, depth = stack.pop()
        coefficients = q.coeffs() or [arb(0)]
        rest = sum((abs(c) for c in coefficients[1:]), arb(0))
        if coefficients[0] > rest:
            continue
        if depth >= DEEPEST or not coefficients[0] > 0:
            return False
        stack += [(q(left), depth + 1), (q(right), depth + 1)]
    return True
