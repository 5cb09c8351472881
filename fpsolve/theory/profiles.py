"""The functions w of the theorems as plain data: picklable, evaluated at arrays of points, rounded to the safe side.

Lower profiles are 0 where they say nothing, upper ones inf.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fpsolve.theory.radial import UNIT, ornstein_uhlenbeck, outward, paper_exponential, paraboloid


class Profile(Protocol):
    """A function of points x (n, d)."""

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the values, shape (n,)."""


def _distance_up(x: np.ndarray, center: tuple[float, ...], slack: float) -> np.ndarray:
    """Return |x - c| + slack, rounded up."""
    d = len(center)
    return np.sqrt(np.sum((x - np.array(center)) ** 2, axis=1)) * (1 + (2 * d + 8) * UNIT) + slack * (1 + 4 * UNIT)


def _height_down(x: np.ndarray, direction: tuple[float, ...], center: tuple[float, ...]) -> np.ndarray:
    """Return |v·(x - c)|, rounded down."""
    steps = (x - np.array(center)) * np.array(direction)
    error = (len(center) + 4) * UNIT * np.sum(np.abs(steps), axis=1)
    return np.maximum(np.abs(np.sum(steps, axis=1)) - 2 * error, 0.0)


@dataclass(frozen=True)
class RadialLower:
    """``m(|x - c| + ρ; d', λ, s) / correction`` on the ball of radius R, 0 outside.

    Attributes
    ----------
    center : tuple of float
    center_radius : float
        ρ, the distance within which the true centre lies.
    radius, dimension, rate, diffusion : float
        R, d', λ, s.
    correction : float
        ``1 + |∇L(c)| |m'(R)|``, at least 1.
    """

    center: tuple[float, ...]
    center_radius: float
    radius: float
    dimension: float
    rate: float
    diffusion: float
    correction: float = 1.0

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the lower bound at x (n, d)."""
        r = _distance_up(x, self.center, self.center_radius)
        m = ornstein_uhlenbeck(r, self.radius, self.dimension, self.rate, self.diffusion, "lower")
        return m / self.correction * outward("lower", 2)


@dataclass(frozen=True)
class ParaboloidLower:
    """``(R² - (|x - c| + ρ)²)/denominator`` on the ball of radius R, 0 outside (paper Theorem 3.1)."""

    center: tuple[float, ...]
    center_radius: float
    radius: float
    denominator: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the lower bound at x (n, d)."""
        return paraboloid(_distance_up(x, self.center, self.center_radius), self.radius, self.denominator)


@dataclass(frozen=True)
class StripUpper:
    """An upper bound that depends on y = v·(x - c) only, on |y| <= R.

    Attributes
    ----------
    direction, center : tuple of float
    radius, rate, diffusion : float
        R_v, Λ, b = ε²β.
    offset : float
        κ of the sharp form, which contributes the factor exp(κR/b).
    paper : bool
        Paper Theorem 3.3 instead of the sharp comparison.
    """

    direction: tuple[float, ...]
    center: tuple[float, ...]
    radius: float
    rate: float
    diffusion: float
    offset: float = 0.0
    paper: bool = False

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the upper bound at x (n, d)."""
        y = _height_down(x, self.direction, self.center)
        if self.paper:
            values = paper_exponential(y, self.radius, self.rate, self.diffusion)
        else:
            values = ornstein_uhlenbeck(y, self.radius, 1.0, self.rate, self.diffusion, "upper")
            with np.errstate(over="ignore", invalid="ignore"):
                exponent = self.offset * self.radius / self.diffusion
                values = values * (np.exp(exponent) * (1 + (8 * exponent + 32) * UNIT))
        values = np.where(np.isnan(values), np.inf, values)
        return np.where(y <= self.radius, values, np.inf)


@dataclass(frozen=True)
class PrintedUpper:
    """Equation (8) as printed, ``(2/Λ)(exp(ΛR²/2b) - exp(Λr²/2b))``: one number for all of B_r(c); not a bound."""

    center: tuple[float, ...]
    ball_radius: float
    radius: float
    rate: float
    diffusion: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the printed value for |x - c| <= r, inf elsewhere."""
        value = paper_exponential(np.array([self.ball_radius]), self.radius, self.rate, self.diffusion)[0]
        inside = np.sqrt(np.sum((x - np.array(self.center)) ** 2, axis=1)) <= self.ball_radius
        return np.where(inside, value, np.inf)
