"""Certified second moments and exit probabilities: they hold independent values, and false statements are refused."""

import math
import time

import numpy as np
import pytest
import reference
from flint import arb, ctx
from scipy.integrate import quad
from scipy.interpolate import BarycentricInterpolator

import fpsolve as fp
from fpsolve.errors import InputError
from fpsolve.theory.certified.moments import (
    certified_exit_probability,
    certified_second_moment,
    compared,
    function_of,
    mean_bounds,
)
from fpsolve.theory.certified.polynomial import Polynomial
from fpsolve.theory.certified.questions import Problem, Solver, one_sided_solution

FLAT = fp.SGD("0*x", variables=["x"], epsilon2=0.5)
LINE = fp.Interval(-1.0, 1.0)


def moments_by_quadrature(loss, s, a, b, x):
    """E τ and E τ² of ``s∂² - L'∂`` on (a, b) at x: ``s e^{-L/s} v' = c - ∫_a^x r e^{-L/s}``, r = 1 and 2u."""
    breaks = np.linspace(a, b, 201)
    y = reference._nodes(breaks)
    w = np.exp(-loss(y) / s)
    r, result = np.ones_like(y), []
    for _ in range(2):
        inner = reference._from_left(breaks, r * w)[0]
        ones, pushed = reference._from_left(breaks, 1 / (s * w)), reference._from_left(breaks, inner / (s * w))
        c = pushed[1][-1] / ones[1][-1]
        v = c * ones[0] - pushed[0]
        result.append(float(BarycentricInterpolator(y[k := np.searchsorted(breaks, x) - 1], v[k])(x)))
        r = 2 * v
    return result


def test_second_moment_of_brownian_motion():
    """E τ² = 5/3 from the middle, for ½∂² on (-1, 1)."""
    found = certified_second_moment(FLAT, LINE)
    assert found.verified
    assert found.values[0].lower <= 5 / 3 <= found.values[0].upper
    assert found.values[0].width < 1e-9


def test_second_moment_of_a_well():
    process = fp.SGD("(x**2 - 1)**2", variables=["x"], epsilon2=0.3)
    found = certified_second_moment(process, fp.Interval(-1.8, 0.3), [[-1.0], [-0.3]], budget=6.0)
    for point, mean in zip(found.values, found.means, strict=True):
        first, second = moments_by_quadrature(lambda x: (x**2 - 1) ** 2, 0.3, -1.8, 0.3, point.x[0])
        assert mean.lower - 1e-8 * first <= first <= mean.upper + 1e-8 * first  # the reference's error
        assert point.lower - 1e-7 * second <= second <= point.upper + 1e-7 * second
        assert point.width < 1e-4 * second


def test_second_moment_disc():
    """Against the radial equation ``½(v'' + v'/r) - r v' = -2u``."""
    process, disc = fp.SGD("x**2/2 + y**2/2", epsilon2=0.5), fp.Ball((0.0, 0.0), 1.0)
    found = certified_second_moment(process, disc, budget=6.0).values[0]
    # u' = -e^{r²}(1 - e^{-r²})/r by the integrating factor r e^{-r²}, and the same for the second moment

    def u(r):
        return quad(lambda t: math.expm1(t * t) / t, r, 1.0, epsabs=1e-13)[0]

    def flux(r):
        return quad(lambda t: 4 * u(t) * t * math.exp(r * r - t * t), 0.0, r, epsabs=1e-11)[0] / r

    exact = quad(flux, 0.0, 1.0, epsabs=1e-9)[0]
    assert found.lower <= exact * (1 + 1e-8) and exact * (1 - 1e-8) <= found.upper
    assert found.width < 1e-4 * exact


def test_exit_probability_interval():
    """``P(right) = ∫_a^x e^{L/s} / ∫_a^b e^{L/s}``."""
    process, s = fp.SGD("x**4/4 - x**2/2 + x/5", variables=["x"], epsilon2=0.4), 0.4
    starts = [[-1.0], [0.2], [1.1]]
    found = certified_exit_probability(process, fp.Interval(-1.5, 1.5), "right", starts)
    other = certified_exit_probability(process, fp.Interval(-1.5, 1.5), ["left"], starts)

    def mass(x):
        return quad(lambda t: math.exp((t**4 / 4 - t**2 / 2 + t / 5) / s), -1.5, x, epsabs=1e-13)[0]

    for right, left, (x,) in zip(found.values, other.values, starts, strict=True):
        exact = mass(x) / mass(1.5)
        assert right.lower - 1e-11 <= exact <= right.upper + 1e-11 and right.width < 1e-6
        assert left.lower - 1e-11 <= 1 - exact <= left.upper + 1e-11


def test_exit_probability_square():
    """A quarter for each side from the middle; the data jump in the corners."""
    process, box = fp.SGD("x**2/2 + y**2/2", epsilon2=0.5), fp.Box((-1.0, -1.0), (1.0, 1.0))
    found = certified_exit_probability(process, box, "left", budget=3.0).values[0]
    assert found.lower <= 0.25 <= found.upper and found.width < 0.1
    whole = certified_exit_probability(process, box, box.names, budget=2.0).values[0]
    assert whole.lower == whole.upper == 1.0


def test_unreachable_part():
    """Noise in x only: top and bottom are never reached, left and right equally often."""
    process = fp.SGD("x**2/2 + y**2/2", [["1", "0"], ["0", "0"]], epsilon2=0.5)
    box = fp.Box((-1.0, -1.0), (1.0, 1.0))
    assert certified_exit_probability(process, box, "top", budget=3.0).values[0].upper == 0.0
    left = certified_exit_probability(process, box, "left", budget=3.0).values[0]
    assert left.lower <= 0.5 <= left.upper and left.width < 1e-6


def test_false_statements():
    """β and ρ pay for whatever a function lacks, so every bound is true; a NaN gives none."""
    with ctx.workprec(192):
        problem = Problem.of(FLAT, LINE, np.array([[0.5]]), time.monotonic() + 10)
        means, barriers = mean_bounds(problem, time.monotonic() + 5)
        values = {"left": 1.0, "right": 0.0}
        zero = Polynomial.of_floats([-1.0], [1.0], [np.zeros(1)])
        mean = means.high[0]
        for kind, good in (("upper", lambda v: v >= 0.25), ("lower", lambda v: v <= 0.25)):
            for c in ([0.5, -0.5], [0.0, 0.0], [0.3, -0.5], [0.5, -0.5, 0.2], [0.5, 0.5, -1.0, 0.3]):
                w = Polynomial.of_floats([-1.0], [1.0], [np.array(c)])
                assert good(compared(problem, w, zero, values, kind).at((0.5,), mean))
        exact = compared(problem, Polynomial.of_floats([-1.0], [1.0], [np.array([0.5, -0.5])]), zero, values, "upper")
        assert exact.edge == 0 and exact.defect <= 1e-300
        turned = compared(problem, exact.w, zero, {"left": 0.0, "right": 1.0}, "upper")
        assert turned.edge >= 1  # the wrong end
        nan = Polynomial.of_floats([-1.0], [1.0], [np.array([0.5, math.nan])])
        assert not math.isfinite(compared(problem, nan, zero, values, "upper").edge)
        # the barriers as polynomials are what the barriers say
        for kind, barrier in barriers.items():
            assert float(function_of(barrier).at([np.array([arb(0.5)], dtype=object)])[0]) == pytest.approx(0.75)
            assert kind == barrier.kind


def test_programme_is_one_sided():
    """The linear programme's solution satisfies its inequalities up to a little."""
    process, box = fp.SGD("x**2/2 + y**2/2", epsilon2=0.5), fp.Box((-1.0, -1.0), (1.0, 1.0))
    with ctx.workprec(192):
        problem = Problem.of(process, box, np.zeros((1, 2)), time.monotonic() + 10)
        values = {"left": 1.0, "right": 0.0, "bottom": 0.0, "top": 0.0}
        zero = Polynomial.of_floats([-1.0, -1.0], [1.0, 1.0], [np.zeros((1, 1))])
        solver = Solver(problem.task, 8, symmetric=False)
        c = one_sided_solution(solver, zero, values, "upper", np.zeros((1, 2)), time.monotonic() + 10)
        found = compared(problem, solver.polynomial(c), zero, values, "upper", 1e-4)
        assert found.edge < 1e-3 and found.defect < 1e-2
        assert not compared(problem, solver.polynomial(c), zero, values, "lower", 1e-4).edge < 0.5


def test_wrong_input():
    with pytest.raises(InputError):
        certified_exit_probability(FLAT, LINE, "top")
    with pytest.raises(InputError):
        certified_second_moment(FLAT, LINE, [[1.5]])
    found = certified_second_moment(FLAT, fp.Interval(-1.0, 1.0, ("left",)))
    assert not found.verified and "reflecting" in found.reason and found.values[0].upper == math.inf
