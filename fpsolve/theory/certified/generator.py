"""The generator applied to a polynomial, as a polynomial with a bound of what it leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flint import arb

from fpsolve.theory.balls import Ball
from fpsolve.theory.certified.polynomial import Polynomial, Tensor, from_grid

# |T_k(s)| for |s| <= 1 + 1e-12 and k <= 10 000
BEYOND = 1.001


@dataclass(frozen=True, eq=False)
class Coefficient:
    """A function on the box: a polynomial and a bound of its distance to the function.

    Attributes
    ----------
    polynomial : Polynomial
    error : arb
        ``>= sup |function - polynomial|`` over the box.
    """

    polynomial: Polynomial
    error: Ball


@dataclass(frozen=True, eq=False)
class Generator:
    """``A u = tr(a D²u) + f·∇u`` with coefficients as polynomials on a box.

    Attributes
    ----------
    drift : d coefficients
    diffusion : d*d coefficients, row-major
    """

    drift: Sequence[Coefficient]
    diffusion: Sequence[Coefficient]

    def __call__(self, w: Polynomial) -> tuple[Polynomial, Ball]:
        """Return a polynomial p and e with ``|A w - p| <= e`` on the box of the coefficients.

        Raises
        ------
        ValueError
            If that box reaches out of the box of w by more than rounding.
        """
        drift, diffusion = self.on(w.lower, w.upper)
        pairs = [(c, p) for c, p in _pairs(drift, diffusion, w) if not (_is_zero(c.polynomial) and _is_exact(c))]
        if not pairs:
            return _scaled(w, 0), arb(0)
        sizes = [max(c.polynomial.shape[k] + p.shape[k] - 1 for c, p in pairs) for k in range(w.dimension)]
        values: Tensor = arb(0)
        for c, p in pairs:
            values = values + c.polynomial.on_grid(sizes) * p.on_grid(sizes)
        return from_grid(w.lower, w.upper, values), _error(pairs)

    def error(self, w: Polynomial) -> Ball:
        """Return what errors of the coefficients may do to A w: the e of a call."""
        return _error(_pairs(self.drift, self.diffusion, w))

    def holding(self, w: Polynomial) -> Polynomial:
        """Return w in the variables of a box that holds the box of the coefficients, if its own box nearly does."""
        own = self.drift[0].polynomial
        if _holds(w.lower, w.upper, own) or not _holds(w.lower, w.upper, own, 1e-2):
            return w
        return w.moved(tuple(map(min, w.lower, own.lower)), tuple(map(max, w.upper, own.upper)))

    def on(self, lower: tuple[float, ...], upper: tuple[float, ...]) -> tuple[list[Coefficient], list[Coefficient]]:
        """Return drift and diffusion as polynomials in the variables of another box; their errors are the same."""
        own = self.drift[0].polynomial
        if (own.lower, own.upper) == (lower, upper):
            return list(self.drift), list(self.diffusion)
        if not _holds(lower, upper, own):
            raise ValueError(f"the function's box {lower} to {upper} does not hold {own.lower} to {own.upper}")
        moved = [Coefficient(c.polynomial.moved(lower, upper), c.error) for c in (*self.drift, *self.diffusion)]
        return moved[: len(self.drift)], moved[len(self.drift) :]


def _holds(lower: tuple[float, ...], upper: tuple[float, ...], p: Polynomial, part: float = 1e-13) -> bool:
    """Tell whether a box holds that of p, up to a part of its lengths."""
    for a, b, low, high in zip(p.lower, p.upper, lower, upper, strict=True):
        slack = (arb(high) - arb(low)) * arb(part)
        if not (arb(a) >= arb(low) - slack and arb(b) <= arb(high) + slack):
            return False
    return True


def _pairs(
    drift: Sequence[Coefficient], diffusion: Sequence[Coefficient], w: Polynomial
) -> list[tuple[Coefficient, Polynomial]]:
    """Return the coefficients of A and the derivatives of w that they multiply."""
    d = w.dimension
    firsts = [w.derivative(i) for i in range(d)]
    pairs = [(drift[i], firsts[i]) for i in range(d)]
    for i in range(d):
        pairs.append((diffusion[i * d + i], firsts[i].derivative(i)))
        for j in range(i):
            mixed = diffusion[i * d + j]
            twice = Coefficient(_scaled(mixed.polynomial, 2), 2 * mixed.error)
            pairs.append((twice, firsts[i].derivative(j)))
    return pairs


def _error(pairs: Sequence[tuple[Coefficient, Polynomial]]) -> Ball:
    return sum((c.error * p.size() * BEYOND for c, p in pairs if not _is_exact(c)), arb(0))


def _scaled(p: Polynomial, factor: int) -> Polynomial:
    return Polynomial(p.lower, p.upper, p.coefficients * arb(factor))


def _is_zero(p: Polynomial) -> bool:
    return all(c == 0 for c in np.ravel(p.coefficients))


def _is_exact(c: Coefficient) -> bool:
    """Tell whether the error is zero; ``c.error != 0`` would be false for nan, and for balls that may be zero."""
    return bool(c.error == 0)
