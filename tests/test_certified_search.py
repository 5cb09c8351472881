"""Searches for sub- and supersolutions: candidates against exact exit times, and how fast they converge."""

from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.polynomial import chebyshev
from reference import ball_ou_met, interval_met, interval_met_one_sided, product_survival, variable_interval_met

from fpsolve.model.domains import Ball, Box, Interval, Sublevel
from fpsolve.model.process import SGD, diffusion_process
from fpsolve.theory.certified.interval_solve import solve_interval
from fpsolve.theory.certified.least_squares import _by_modes, _by_total_degree, fits, least_squares, search
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


WELL = "(x**2-1)**2 + y**2"


def well(epsilon2, covariance="identity"):
    return SGD(WELL, covariance, ("x", "y"), epsilon2=epsilon2)


def rotated(angle, epsilon2=1.0):
    """A loss without symmetry and a full Q, turned by an angle."""
    c, s = float(np.cos(angle)), float(np.sin(angle))
    u, v = f"({c!r}*x + {s!r}*y)", f"({c!r}*y - {s!r}*x)"
    turn = np.array([[c, -s], [s, c]])
    q = turn @ np.array([[1.0, 0.3], [0.3, 0.5]]) @ turn.T
    q = (q + q.T) / 2
    return SGD(f"{u}**2/2 + {v}**2 + {u}**3/5 + {u}*{v}**2/3", q.tolist(), ("x", "y"), epsilon2=epsilon2)


def test_disc_converges_geometrically():
    """The error at the centre falls at least by 10 for every 4 degrees until 1e-12."""
    degrees = np.arange(8, 25, 4)
    errors = []
    for n in degrees:
        candidate = least_squares(task(ou(0.3), Ball((0.0, 0.0), 1.0)), int(n)).candidate
        errors.append(abs(values(candidate, np.zeros((1, 2)))[0] / ball_ou_met(0.0, 2, 1.0, 0.3, 1.0) - 1))
    rate = np.polyfit(degrees[:4], np.log10(np.maximum(errors[:4], 1e-15)), 1)[0]
    assert rate < -1 / 4
    assert errors[-1] < 1e-12


@pytest.mark.parametrize("method", [_by_modes, lambda t, n: _by_total_degree(t, n, None)], ids=["modes", "products"])
def test_disc_does_not_depend_on_rotation(method):
    """Two solvers, problem turned by 0, 90° and 0.7: the same values at turned points."""
    reference = None
    point = np.array([0.3, -0.5])
    for angle in (0.0, np.pi / 2, 0.7):
        c, s = np.cos(angle), np.sin(angle)
        fit = method(task(rotated(angle), Ball((0.0, 0.0), 1.0)), 22)
        x = np.array([[0.0, 0.0], [c * point[0] - s * point[1], s * point[0] + c * point[1]]])
        found = values(fit.candidate, x)
        assert fit.estimate.width < 1e-6
        reference = found if reference is None else reference
        np.testing.assert_allclose(found, reference, rtol=1e-7)


def test_the_disc_solvers_agree():
    """Zernike modes and least squares; even in y, boundary layers."""
    problem = task(well(0.5), Ball((-1.0, 0.0), 0.8))
    modes, products = _by_modes(problem, 40), _by_total_degree(problem, 30, None)
    x = np.array([[-1.0, 0.0], [-0.6, 0.3], [-1.4, -0.5]])
    np.testing.assert_allclose(values(modes.candidate, x), values(products.candidate, x), rtol=1e-2)
    assert modes.estimate.width < 1e-5
    assert products.estimate.width < 1e-1


@pytest.mark.parametrize("epsilon2", [0.5, 0.3])
def test_box_with_corners(epsilon2):
    """Double well, all sides absorb."""
    lower, upper = (-1.8, -0.8), (-0.2, 0.8)
    fit = least_squares(task(well(epsilon2), Box(lower, upper)), 32)
    x = np.random.default_rng(5).uniform((-1.3, -0.5), (-0.5, 0.5), (20, 2))
    parts = (lambda t: (t**2 - 1) ** 2, lambda t: t**2)
    exact = product_survival(parts, (epsilon2, epsilon2), ((-1.8, -0.2), (-0.8, 0.8)), x[:, 0], x[:, 1])
    np.testing.assert_allclose(values(fit.candidate, x), exact, rtol=2 * fit.estimate.width)
    assert fit.estimate.width < 0.1


def test_box_solution_of_one_coordinate_is_found_in_arb():
    """Q = diag(.5 + .5 x², 0), y = ±.8 unreachable: degree 0 in y, far below a float's accuracy."""
    problem = task(well(0.2, [["0.5+0.5*x**2", "0"], ["0", "0"]]), Box((-1.8, -0.8), (-0.2, 0.8)), ("bottom", "top"))
    fit = least_squares(problem, 70)
    x = np.array([[-1.0, 0.0], [-1.5, 0.7], [-0.4, -0.3]])
    exact = variable_interval_met(
        lambda t: -4 * t * (t**2 - 1), lambda t: 0.2 * (0.5 + 0.5 * t**2), -1.8, -0.2, x[:, 0]
    )
    np.testing.assert_allclose(values(fit.candidate, x), exact, rtol=1e-10)
    assert fit.candidate.coefficients[0].shape[1] == 1
    assert fit.estimate.residual < 1e-16


def test_box_with_reflecting_sides():
    """x reflects at 0, y is a free factor that reflects at both sides: the one-dimensional answer."""
    problem = task(ou(0.2), Box((0, -1), (1, 1), ("left", "bottom", "top")))
    x = np.array([[0.0, 0.0], [0.5, 0.7]])
    exact = interval_met_one_sided(lambda t: t**2 / 2, 0.2, 0, 1, x[:, 0])
    np.testing.assert_allclose(values(least_squares(problem, 24).candidate, x), exact, rtol=1e-10)
    np.testing.assert_allclose(values(least_squares(problem, (24, 2)).candidate, x), exact, rtol=1e-6)


def test_sublevel_set_of_a_quadratic_is_a_ball():
    """{x²/2 + y²/2 < 1/2}, also in three dimensions."""
    for d, degree in ((2, 16), (3, 8)):
        process = ou(0.5, d)
        domain = Sublevel(process.landscape, 0.5, (0.1,) * d, (-1.5,) * d, (1.5,) * d)
        fit = least_squares(task(process, domain, starts=[[0.0] * d]), degree)
        assert fit.estimate.width < 5e-3
        exact = ball_ou_met(0.0, d, 1.0, 0.5, 1.0)
        np.testing.assert_allclose(values(fit.candidate, np.zeros((1, d))), exact, rtol=2 * fit.estimate.width)


def test_ball_in_one_dimension_is_an_interval():
    """Its single boundary part is both ends."""
    candidate = solve_interval(task(ou(0.1, 1), Ball((0.0,), 1.0)), 60, 256)
    np.testing.assert_allclose(values(candidate, np.zeros((1, 1))), interval_met(lambda t: t**2 / 2, 0.1, -1, 1, 0.0))


@pytest.mark.parametrize("seed", range(6))
def test_rough_problems_do_not_crash(seed):
    """Q of rank one that depends on x, drifts of degree four; the estimate is a number, perhaps infinite."""
    rng = np.random.default_rng(seed)
    a = rng.uniform(-1, 1, 6).tolist()
    v = (f"({a[0]!r} + {a[1]!r}*x)", f"({a[2]!r} + {a[3]!r}*y)")
    q = [[f"{v[0]}**2", f"{v[0]}*{v[1]}"], [f"{v[0]}*{v[1]}", f"{v[1]}**2"]]
    process = SGD(f"{a[4]!r}*x**3*y + x**2 + {a[5]!r}*y**4", q, ("x", "y"), epsilon2=0.5)
    domain = Ball((0.1, 0.0), 1.0) if seed % 2 else Box((-1, -0.5), (1, 1))
    fit = least_squares(task(process, domain), 10)
    assert fit.estimate.width > 0
    assert all(np.all(np.isfinite(c)) for c in fit.candidate.coefficients)


def test_nothing_leaves_or_nothing_moves():
    """No absorbing part; a = 0: no solution, no crash."""
    still = least_squares(task(ou(0.5), Ball((0.0, 0.0), 1.0, ("boundary",))), 8)
    assert still.estimate.width > 0
    frozen = diffusion_process(["0", "0"], [["0", "0"], ["0", "0"]], ("x", "y"))
    for domain in (Ball((0.0, 0.0), 1.0), Box((-1, -1), (1, 1))):
        assert least_squares(task(frozen, domain), 8).estimate.width == np.inf


def test_search_stops_at_the_width():
    """The first fit that is narrow enough is returned; those before are wider."""
    problem = task(ou(0.2), Ball((0.0, 0.0), 1.0))
    found = search(problem, 1e-4, time.monotonic() + 60)
    assert found.estimate.width <= 5e-5
    widths = []
    for fit in fits(problem, time.monotonic() + 60):
        widths.append(fit.estimate.width)
        if fit.estimate.width == found.estimate.width:
            break
    assert len(widths) > 1
    assert all(w > 5e-5 for w in widths[:-1])
    assert widths == sorted(widths, reverse=True)
