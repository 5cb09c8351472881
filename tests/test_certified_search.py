"""Searches for sub- and supersolutions: candidates against exact exit times, and how fast they converge."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.polynomial import chebyshev
from reference import ball_ou_met, interval_met

from fpsolve.model.domains import Ball, Box
from fpsolve.model.process import SGD
from fpsolve.theory.certified.least_squares import least_squares
from fpsolve.theory.certified.task import Candidate, Task


def task(process, domain, unreachable=(), starts=None):
    lower, upper = domain.bounding_box()
    return Task(process, domain, unreachable, np.array([(lower + upper) / 2]) if starts is None else np.array(starts))


def values(candidate: Candidate, x: np.ndarray) -> np.ndarray:
    """Evaluate the sum of all arrays at points (n, d)."""
    lower, upper = np.array(candidate.lower), np.array(candidate.upper)
    z = (2 * x - lower - upper) / (upper - lower)
    evaluate = (chebyshev.chebval, chebyshev.chebval2d, chebyshev.chebval3d)[z.shape[1] - 1]
    return sum(evaluate(*z.T, c) for c in candidate.coefficients)


def ou(epsilon2, d=2, covariance="identity"):
    names = ("x", "y", "z")[:d]
    return SGD(" + ".join(f"{v}**2/2" for v in names), covariance, names, epsilon2=epsilon2)


@pytest.mark.parametrize(("epsilon2", "degree", "d"), [(1.0, 18, 2), (0.2, 22, 2), (0.1, 26, 2), (0.5, 12, 3)])
def test_ball_matches_the_exact_exit_time(epsilon2, degree, d):
    """Inside and at the centre, to within the promised width."""
    fit = least_squares(task(ou(epsilon2, d), Ball((0.0,) * d, 1.0)), degree)
    x = np.random.default_rng(3).uniform(-1, 1, (50, d)) / np.sqrt(d)
    exact = ball_ou_met(np.linalg.norm(x, axis=1), d, 1.0, epsilon2, 1.0)
    np.testing.assert_allclose(values(fit.candidate, x), exact, rtol=10 * fit.estimate.width + 1e-13)
    assert fit.estimate.width < 2e-6


def test_degenerate_square_is_the_interval():
    """Q = diag(1, 0): nothing leaves through y = ±1, and x is an Ornstein-Uhlenbeck process of its own."""
    process = ou(0.2, 2, [["1", "0"], ["0", "0"]])
    fit = least_squares(task(process, Box((-1, -1), (1, 1)), ("bottom", "top")), 18)
    x = np.random.default_rng(3).uniform(-1, 1, (50, 2))
    np.testing.assert_allclose(
        values(fit.candidate, x), interval_met(lambda t: t**2 / 2, 0.2, -1, 1, x[:, 0]), rtol=1e-5
    )
