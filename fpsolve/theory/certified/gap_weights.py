"""Weights for the spectral gap: ``D²L - diag(Aψ_i + s|∇ψ_i|²) >= κ I``; theorem in `certified.gap`.

On boxes the weights are ``g_i = h_i(x_i) e^{ψ_i}`` with fixed polynomials h_i > 0 (`gap_search.factors`): with
ψ_i + log h_i in place of ψ_i the diagonal loses ``(Ah_i + 2s h_i' ∂_iψ_i)/h_i`` more. Row i times h_i keeps
the determinant's sign.

The condition is concave in ψ. A barrier method maximises κ at points, in floating point. The proof for the ψ found:
all entries are polynomials, and a symmetric matrix that is positive definite at one point of a connected set stays so
where its determinant is positive. So one scalar polynomial, the determinant, is bounded from below in Arb.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import numpy as np
from flint import arb

from fpsolve.model.domains import Ball as BallDomain
from fpsolve.model.domains import Box as BoxDomain
from fpsolve.model.process import Process
from fpsolve.theory.balls import Ball, above
from fpsolve.theory.certified.angular import least
from fpsolve.theory.certified.gap_search import Search, factors, maximise
from fpsolve.theory.certified.generator import Coefficient
from fpsolve.theory.certified.polynomial import Polynomial, Tensor, exact_points, from_grid
from fpsolve.theory.certified.shapes import on_ball, on_box, on_sphere

BALL_DEGREES = {2: (2, 4, 6, 8, 10), 3: (2, 4)}
BOX_DEGREES = {2: ((3, 3), (6, 4), (8, 8), (12, 8)), 3: ((2, 2, 2), (3, 3, 3))}
#: κ is tried below its value on a fine grid by these parts.
BELOW = (1e-3, 3e-2)
TINY = 1e-300


@dataclass(frozen=True, eq=False)
class Curvature:
    """What the condition is about: s, ∇L and D²L as polynomials with proved errors on a box around Ω.

    Attributes
    ----------
    domain : Box or Ball
    diffusion : arb
        s.
    slope : d coefficients
        ∇L.
    hessian : d*d coefficients
        D²L, row-major.
    """

    domain: BoxDomain | BallDomain
    diffusion: Ball
    slope: Sequence[Coefficient]
    hessian: Sequence[Coefficient]

    @property
    def dimension(self) -> int:
        """The number of variables d."""
        return len(self.slope)


@dataclass(frozen=True)
class WeightBound:
    """What was found: the gap is >= `value` if `verified`.

    Attributes
    ----------
    value, computed : float
        κ, and what the search found for it at points (not proved).
    verified : bool
    reason : str
    degree : int
        Of the ψ_i in each variable (boxes) or in total (balls).
    weights : tuple of ndarray
        Chebyshev coefficients of ψ_1 … ψ_d, or of one ψ for all i.
    factors : tuple of ndarray
        Chebyshev coefficients of h_1(x_1) … h_d(x_d); empty for 1.
    """

    value: float
    computed: float
    verified: bool
    reason: str = ""
    degree: int = 0
    weights: tuple[np.ndarray, ...] = ()
    factors: tuple[np.ndarray, ...] = ()


def weight_bound(process: Process, curvature: Curvature, deadline: float) -> WeightBound:
    """Find and prove a lower bound of the gap; degrees are raised as long as time lasts.

    Parameters
    ----------
    process : Process
        For floating-point values.
    curvature : Curvature
    deadline : float
        A moment of `time.monotonic`.
    """
    best = WeightBound(0.0, -math.inf, False, "no time")
    domain, s, d = curvature.domain, float(curvature.diffusion), curvature.dimension
    ball = isinstance(domain, BallDomain)
    fixed = [] if isinstance(domain, BallDomain) else factors(process, domain, s)
    trials = [(n,) * d for n in BALL_DEGREES[d]] if ball else list(BOX_DEGREES[d])
    for degrees in trials:
        if time.monotonic() >= deadline:
            break
        search = Search.of(process, domain, s, degrees, fixed)
        found = maximise(search, min(deadline, time.monotonic() + (deadline - time.monotonic()) / 2))
        computed = search.smallest(found)
        if not computed > best.computed:
            continue
        best = replace(best, computed=computed)
        if computed <= 0:
            best = replace(best, reason=f"no positive κ: {computed:.4g} at best")
            continue
        for value in (computed * (1 - part) for part in BELOW):
            if value > best.value and condition_holds(curvature, value, found, fixed, deadline):
                best = WeightBound(value, computed, True, "", max(degrees), found, tuple(fixed))
                break
        if not best.verified:
            best = replace(best, reason="κ > 0 was found at points but not proved")
    return best


def condition_holds(
    curvature: Curvature, value: float, weights: Sequence[np.ndarray], fixed: Sequence[np.ndarray], deadline: float
) -> bool:
    """Prove both conditions of the theorem for κ = `value`; False if that fails.

    Parameters
    ----------
    curvature : Curvature
    value : float
        κ; an exact number.
    weights : d arrays, or one
        Chebyshev coefficients of ψ_i on the box of the coefficients; one ψ serves all i.
    fixed : d arrays of shape (n+1,), or none
        Chebyshev coefficients of h_i(x_i).
    """
    box, d = curvature.slope[0].polynomial, curvature.dimension
    psi = [Polynomial.of_floats(box.lower, box.upper, [w]) for w in weights]
    if not _boundary_holds(curvature, psi, deadline):
        return False
    parts = [_energy(curvature, p) for p in psi]
    h = [_along(box, i, f) for i, f in enumerate(fixed)]
    ratios = [_factor_ratio(curvature, p, i, deadline) for i, p in enumerate(h)]
    lost = max(sum((above(c.error) for c in curvature.hessian[i * d : (i + 1) * d]), 0.0) for i in range(d))
    shift = arb(value) + arb(lost) * (1 + arb(2) ** -40) + arb(max(above(e) for _, e in parts))
    shift += arb(max(ratios, default=0.0))
    if not shift.is_finite():
        return False
    matrix = _Matrix(curvature, psi, [p for p, _ in parts], h, shift)
    if not matrix.positive_at_centre():
        return False
    domain, determinant = curvature.domain, matrix.determinant()
    ball = isinstance(domain, BallDomain)
    inside = on_ball(determinant, domain.center, domain.radius) if ball else on_box(determinant)  # type: ignore[union-attr]
    return least(inside, 0.0, TINY, 0.0, deadline)[0] > 0


def _along(box: Polynomial, axis: int, coefficients: np.ndarray) -> Polynomial:
    """Return a polynomial of one variable as one of all."""
    shape = tuple(len(coefficients) if k == axis else 1 for k in range(box.dimension))
    return Polynomial.of_floats(box.lower, box.upper, [np.reshape(coefficients, shape)])


def _factor_ratio(curvature: Curvature, h: Polynomial, axis: int, deadline: float) -> float:
    """Prove h > 0 and return a bound of ``|δL_i h'/h|``, δL_i the error of the slope; inf if h > 0 is not proved."""
    low = least(on_box(h), 0.0, TINY, 0.0, deadline)[0]
    if not low > 0:
        return math.inf
    error = curvature.slope[axis].error
    return 0.0 if error == 0 else above(error * h.derivative(axis).size() / arb(low))


@dataclass(frozen=True, eq=False)
class _Matrix:
    """``D²L - diag(energy_i + shift)``, and for each i ``(Ah_i + 2s h_i' ∂_iψ_i)/h_i`` less; row i times h_i."""

    curvature: Curvature
    psi: Sequence[Polynomial]
    energy: Sequence[Polynomial]
    h: Sequence[Polynomial]
    shift: Ball

    def entries(self, at: Callable[[Polynomial], Any]) -> list[Any]:
        """Return the entries, row-major, where `at` evaluates polynomials."""
        c, d = self.curvature, self.curvature.dimension
        values = [at(p.polynomial) for p in c.hessian]
        for i in range(d):
            k = i % len(self.psi)
            values[i * d + i] = values[i * d + i] - at(self.energy[k]) - self.shift
            if self.h:
                first = self.h[i].derivative(i)
                apply = c.diffusion * at(first.derivative(i)) - at(c.slope[i].polynomial) * at(first)
                apply = apply + 2 * c.diffusion * at(first) * at(self.psi[k].derivative(i))
                factor = at(self.h[i])
                for j in range(d):
                    values[i * d + j] = values[i * d + j] * factor
                values[i * d + i] = values[i * d + i] - apply
        return values

    def determinant(self) -> Polynomial:
        """Return the determinant, from its values on a grid fine enough for its degree."""
        c, d = self.curvature, self.curvature.dimension
        box = c.slope[0].polynomial
        plain = [*(p.polynomial for p in c.hessian), *self.energy]
        sizes = []
        for k in range(d):
            top = max(p.shape[k] for p in plain) - 1
            slope = max(p.polynomial.shape[k] for p in c.slope) - 1
            extra = max((p.shape[k] for p in self.h), default=1) - 1
            sizes.append(d * (max(top, slope, max(p.shape[k] for p in self.psi)) + extra) + 1)
        return from_grid(box.lower, box.upper, _determinant(self.entries(lambda p: p.on_grid(sizes)), d))

    def positive_at_centre(self) -> bool:
        """Prove that the matrix (without the factors h_i) is positive definite at one point of Ω, by Sylvester."""
        d, domain = self.curvature.dimension, self.curvature.domain
        lower, upper = domain.bounding_box()
        point = np.array(domain.center) if isinstance(domain, BallDomain) else 0.5 * (lower + upper)
        x = exact_points(np.asarray(point, dtype=float)[None, :])
        matrix = self.entries(lambda p: p.at(x)[0])
        minors = [_determinant([matrix[i * d + j] for i in range(k) for j in range(k)], k) for k in range(1, d + 1)]
        return all(m > 0 for m in minors)  # leading minors get the positive factor h_1 … h_k


def _energy(curvature: Curvature, psi: Polynomial) -> tuple[Polynomial, Ball]:
    """Return ``sΔψ - ∇L·∇ψ + s|∇ψ|²`` as a polynomial and a bound of what it leaves out."""
    d = curvature.dimension
    firsts = [psi.derivative(k) for k in range(d)]
    seconds = [firsts[k].derivative(k) for k in range(d)]
    error = sum((c.error * p.size() for c, p in zip(curvature.slope, firsts, strict=True)), arb(0))
    slopes = [c.polynomial for c in curvature.slope]
    sizes = [
        max(max(p.shape[k] for p in firsts) + max(max(p.shape[k] for p in slopes), max(p.shape[k] for p in firsts)), 2)
        for k in range(d)
    ]
    total: Tensor = arb(0)
    for k in range(d):
        first = firsts[k].on_grid(sizes)
        total = total + curvature.diffusion * (seconds[k].on_grid(sizes) + first * first)
        total = total - slopes[k].on_grid(sizes) * first
    return from_grid(psi.lower, psi.upper, total), error


def _determinant(matrix: Sequence[Tensor], d: int) -> Tensor:
    total: Tensor = arb(0)
    for order in permutations(range(d)):
        inversions = sum(order[i] > order[j] for i in range(d) for j in range(i + 1, d))
        term: Tensor = arb(1 if inversions % 2 == 0 else -1)
        for i, j in enumerate(order):
            term = term * matrix[i * d + j]
        total = total + term
    return total


def _boundary_holds(curvature: Curvature, psi: Sequence[Polynomial], deadline: float) -> bool:
    """Prove ∂_nψ_i >= 0 on the sides across x_j, j ≠ i; on a sphere (x-c)·∇ψ >= -1."""
    domain, d = curvature.domain, curvature.dimension
    if isinstance(domain, BallDomain):
        if len(psi) != 1:
            return False
        return _radial(domain, psi[0], deadline)
    if len(psi) == 1:
        psi = [psi[0]] * d
    for i in range(d):
        for axis in range(d):
            slope = psi[i].derivative(axis)
            for sign in (-1, 1) if axis != i else ():
                face = slope.face(axis, sign)
                outward = Polynomial(face.lower, face.upper, face.coefficients * arb(sign))
                if all(c == 0 for c in outward.coefficients.ravel()):
                    continue
                if not least(on_box(outward), 0.0, 0.0, 0.0, deadline)[0] >= 0:
                    return False
    return True


def _radial(domain: BallDomain, psi: Polynomial, deadline: float) -> bool:
    d = psi.dimension
    sizes = [n + 1 for n in psi.shape]
    total: Tensor = arb(1)
    for k in range(d):
        coordinate = np.zeros((1,) * k + (2,) + (1,) * (d - k - 1))
        arm = Polynomial.of_floats(psi.lower, psi.upper, [coordinate])
        values = arm.coefficients.ravel()
        # x_k - c_k = (middle - c_k) + half s
        values[0] = (arb(psi.lower[k]) + arb(psi.upper[k])) / 2 - arb(domain.center[k])
        values[1] = arm.half(k)
        arm = Polynomial(psi.lower, psi.upper, values.reshape(coordinate.shape))
        total = total + arm.on_grid(sizes) * psi.derivative(k).on_grid(sizes)
    radial = from_grid(psi.lower, psi.upper, total)
    return least(on_sphere(radial, domain.center, domain.radius), 0.0, 0.0, 0.0, deadline)[0] >= 0
