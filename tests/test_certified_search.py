"""Searches for sub- and supersolutions: candidates against exact exit times, and how fast they converge."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.polynomial import chebyshev
from reference import ball_ou_met, interval_met, interval_met_one_sided, variable_interval_met

from fpsolve.model.domains import Ball, Box, Interval
from fpsolve.model.process import SGD, diffusion_process
from fpsolve.theory.certified.interval_solve import solve_interval
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


@pytest.mark.parametrize(("epsilon2", "degree"), [(1.0, 30), (0.1, 60), (0.02, 110)])
def test_interval_matches_the_exact_exit_time(epsilon2, degree):
    """Also where u is 1.3e10."""
    candidate = solve_interval(task(ou(epsilon2, 1), Interval(-1, 1)), degree, 256)
    x = np.linspace(-0.9, 0.9, 19)
    exact = interval_met(lambda t: t**2 / 2, epsilon2, -1, 1, x)
    np.testing.assert_allclose(values(candidate, x[:, None]), exact, rtol=1e-11)


def test_interval_with_formulas_that_are_no_polynomials():
    """L = log cosh x, Q = 1 + sin(x)/2."""
    process = SGD("log(cosh(x))", [["1+sin(x)/2"]], ("x",), epsilon2=0.1)
    candidate = solve_interval(task(process, Interval(-1, 0.8)), 60, 256)
    x = np.linspace(-0.9, 0.7, 9)
    exact = variable_interval_met(lambda t: -np.tanh(t), lambda t: 0.1 * (1 + np.sin(t) / 2), -1, 0.8, x)
    np.testing.assert_allclose(values(candidate, x[:, None]), exact, rtol=1e-11)


def test_interval_with_a_reflecting_end():
    """w' = 0 at the left end."""
    candidate = solve_interval(task(ou(0.1, 1), Interval(0.2, 1, ("left",))), 60, 256)
    x = np.linspace(0.2, 0.9, 8)
    exact = interval_met_one_sided(lambda t: t**2 / 2, 0.1, 0.2, 1, x)
    np.testing.assert_allclose(values(candidate, x[:, None]), exact, rtol=1e-11)


def test_interval_with_an_unreachable_end():
    """dX = dt + sqrt(2X) dW on (0, 1) leaves at 1 only: u = 1 - x."""
    process = diffusion_process(["1"], [["x"]], ("x",))
    candidate = solve_interval(task(process, Interval(0, 1), ("left",)), 20, 256)
    x = np.linspace(0, 1, 11)
    np.testing.assert_allclose(values(candidate, x[:, None]), 1 - x, atol=1e-14)


def test_interval_that_nothing_leaves_has_no_candidate():
    """Both ends reflect."""
    assert solve_interval(task(ou(0.1, 1), Interval(-1, 1, ("left", "right"))), 20, 256) is None
