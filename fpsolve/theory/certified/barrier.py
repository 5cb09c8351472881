"""Sub- and supersolutions of the exit-time problem: polynomials whose inequalities are proved.

Theorem. Let S be a closed part of ∂Ω with X_τ ∈ S almost surely, w ∈ C² on the closure of Ω, and let the process be
reflected along the conormal a n on the reflecting sides, where ``(a n)·∇w >= 0`` (upper) or ``<= 0`` (lower).

- ``-A w >= m > 0`` in Ω and ``w >= -b`` on S imply ``E_x τ <= (w(x) + b)/m``.
- ``-A w <= M`` in Ω and ``w <= b`` on S imply ``E_x τ >= (w(x) - b)/M``, M > 0.

Proof. By Itô's formula ``E w(X_{τ∧t}) - w(x)`` is ``E ∫ A w ds`` minus the local time on the reflecting sides times
``(a n)·∇w``; w is bounded, so let t → ∞ (monotone convergence of E(τ∧t), dominated convergence of w). No ellipticity
is used.

The condition on reflecting sides is proved too; see `fpsolve.theory.certified.reflection`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from flint import arb, ctx

from fpsolve.theory.balls import Ball, above, below
from fpsolve.theory.certified.polynomial import Polynomial, exact_points

UNIT = 2.0**-53
BITS = 600  # for values at points: more than the coefficients of 1D polynomials have
BITS_OF_MANY = 192
CHUNK = 4096
COARSE = 1e-7  # error of floats relative to the value that is not worth improving


def total(terms: Sequence[float]) -> Ball:
    """Return the exact sum of floats."""
    return sum((arb(term) for term in terms), arb(0))


def terms(value: Ball, up: bool, count: int = 4) -> tuple[float, ...]:
    """Return floats whose exact sum is >= (up) or <= every number in the ball, and close to it."""
    found: list[float] = []
    rest = value
    for _ in range(count - 1):
        found.append(float(rest.mid()))
        rest = rest - arb(found[-1])
    return (*found, above(rest) if up else below(rest))


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
    factor : tuple of float
        m or M, as an exact sum.
    offset : float
        b.
    """

    kind: Literal["lower", "upper"]
    lower_corner: tuple[float, ...]
    upper_corner: tuple[float, ...]
    coefficients: tuple[np.ndarray, ...]
    factor: tuple[float, ...]
    offset: float

    def at(self, x: Sequence[float]) -> Ball:
        """Return the bound at a point of Ω as an exact ball, rounded to the safe side; in the process' unit of time."""
        with ctx.workprec(BITS):
            w = Polynomial.of_floats(self.lower_corner, self.upper_corner, self.coefficients)
            value = w.at(exact_points(np.array([x])))[0]
            if self.kind == "upper":
                return ((value + arb(self.offset)) / total(self.factor)).upper()
            return ((value - arb(self.offset)) / total(self.factor)).lower().max(arb(0))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the bound at points of Ω (n, d), shape (n,), in floating point, rounded to the safe side.

        The rounding of s is at most 4 units; ``|T_k'| <= k²``; sums of N terms err by N units of Σ|c|.
        """
        lower, upper = np.array(self.lower_corner), np.array(self.upper_corner)
        # both differences are small where x is: 2x - lower - upper would lose digits far from the origin
        s = ((x - lower) - (upper - x)) / (upper - lower)
        beyond = np.any(np.abs(s) > 1 + 8 * UNIT, axis=1)  # the box of w need not hold all of Ω
        s = np.clip(s, -1.0, 1.0)
        values: np.ndarray = np.zeros(len(x))
        error = 0.0
        for part in self.coefficients:
            values += _series(part, s)
            degrees = sum(k**2 for k in np.indices(part.shape))
            error += float(np.sum(np.abs(part) * (8 * degrees + 4 * sum(part.shape) + 64))) * 2 * UNIT
        if self.kind == "upper":
            values = (values + error + self.offset) / below(total(self.factor)) * (1 + 8 * UNIT)
        else:
            values = np.maximum((values - error - self.offset) / above(total(self.factor)) * (1 - 8 * UNIT), 0.0)
        # on discs the coefficients can be 1e14 times larger than w: floats lose everything then
        exact = beyond | (error > COARSE * np.abs(values - error)) if len(x) else beyond
        if np.any(exact):
            values[exact] = self._in_arb(x[exact])
        return values

    def _in_arb(self, x: np.ndarray) -> np.ndarray:
        """Return the bound at points (n, d), many at once: about 1e4 points a second."""
        outward = above if self.kind == "upper" else below
        found: list[float] = []
        with ctx.workprec(BITS_OF_MANY):
            w = Polynomial.of_floats(self.lower_corner, self.upper_corner, self.coefficients)
            factor, offset = total(self.factor), arb(self.offset)
            for k in range(0, len(x), CHUNK):
                values = w.at(exact_points(x[k : k + CHUNK]))
                values = (values + offset if self.kind == "upper" else values - offset) / factor
                found += [outward(v) for v in values]
        return np.array(found) if self.kind == "upper" else np.maximum(np.array(found), 0.0)


def _series(coefficients: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Evaluate a tensor Chebyshev series at scattered points."""
    vectors = [np.polynomial.chebyshev.chebvander(s[:, i], n - 1) for i, n in enumerate(coefficients.shape)]
    values = np.tensordot(vectors[0], coefficients, axes=1)
    for vector in vectors[1:]:
        values = np.einsum("nk...,nk->n...", values, vector)
    return np.asarray(values)
