"""Certified survival probabilities and decay rates: they hold the exact values, and false statements are refused."""

import math
import time

import numpy as np
import pytest
from flint import ctx

import fpsolve as fp
from fpsolve.errors import InputError
from fpsolve.theory.certified.questions import Problem, Solver, shifted
from fpsolve.theory.certified.survival import (
    certified_survival,
    checked_rate_function,
    proved_lower_rate,
    proved_upper_rate,
    rate_function,
)
from fpsolve.theory.certified.survival_values import proved_value

FLAT = fp.SGD("0*x", variables=["x"], epsilon2=0.5)
LINE = fp.Interval(-1.0, 1.0)
RATE = 0.5 * np.pi**2 / 4


def brownian(t: float) -> float:
    """P_0(τ > t) for ½∂² on (-1, 1), a classical series."""
    k = np.arange(60)
    return float(np.sum(4 / np.pi * (-1.0) ** k / (2 * k + 1) * np.exp(-RATE * (2 * k + 1) ** 2 * t)))


def test_brownian_motion():
    times = [0.2, 1.0, 5.0]
    found = certified_survival(FLAT, LINE, times=times, budget=2.0)
    assert found.verified
    assert found.rate_lower <= RATE <= found.rate_upper
    assert found.rate_upper - found.rate_lower < 1e-5 * RATE
    for value in found.values:
        exact = brownian(value.time)
        assert value.lower <= exact <= value.upper
        assert value.width < 0.15 * exact


def test_ornstein_uhlenbeck_disc():
    """``A(1 - r²) = -2(1 - r²)`` for ε² = ½: the rate is 2, and P_0 decays like it."""
    process, disc = fp.SGD("x**2/2 + y**2/2", epsilon2=0.5), fp.Ball((0.0, 0.0), 1.0)
    found = certified_survival(process, disc, times=[0.5, 2.0], budget=8.0)
    assert found.rate_lower <= 2 <= found.rate_upper < 2 * (1 + 1e-4)
    early, late = found.values
    assert 0.4 < early.lower < early.upper < 0.6
    assert late.lower <= math.exp(-2 * 2.0) * 1.5 and late.upper < 0.05
    assert late.lower * math.exp(2 * 1.5) <= early.upper * 1.2


def test_coupled_wells_rate():
    """Escape from the left well of a double well: the rate is between 1/u(1 + 2 %) and 1/u; u by quadrature."""
    import reference

    process = fp.SGD("(x**2 - 1)**2", variables=["x"], epsilon2=0.2)
    found = certified_survival(process, fp.Interval(-1.8, 0.5), [[-1.0]], budget=6.0)
    u = float(reference.interval_met(lambda x: (x * x - 1) ** 2, 0.2, -1.8, 0.5, -1.0))
    assert found.rate_lower <= found.rate_upper <= found.rate_lower * (1 + 1e-3)
    assert 1 / u < found.rate_upper and found.rate_lower < 1.05 / u


def test_degenerate_noise():
    """Noise in x only: y falls to 0 and the rate is that of the interval; top and bottom are out of reach."""
    process = fp.SGD("x**2/2 + y**2/2", [["1", "0"], ["0", "0"]], epsilon2=0.5)
    found = certified_survival(process, fp.Box((-1.0, -1.0), (1.0, 1.0)), times=[0.5], budget=4.0)
    line = certified_survival(fp.SGD("x**2/2", variables=["x"], epsilon2=0.5), LINE, times=[0.5], budget=4.0)
    assert max(found.rate_lower, line.rate_lower) <= min(found.rate_upper, line.rate_upper)
    assert found.values[0].lower <= line.values[0].upper and line.values[0].lower <= found.values[0].upper


def test_false_statements():
    later = time.monotonic() + 10
    with ctx.workprec(192):
        problem = Problem.of(FLAT, LINE, np.zeros((1, 1)), later)
        solver = Solver(problem.task, 24)
        below, above = (rate_function(problem, solver, RATE * f) for f in (0.99, 1.01))
        assert 0.98 * RATE < proved_lower_rate(problem, below, later) < RATE
        assert proved_upper_rate(above, np.zeros((1, 1))) < 1.02 * RATE
        assert proved_lower_rate(problem, above, later) == 0  # h changes sign
        assert proved_upper_rate(below, np.zeros((1, 1))) == math.inf
        moved = checked_rate_function(problem, below.rate, shifted(below.polynomial, 0.1), below.coefficients)
        assert moved.edge > 0.09 and moved.residual > 0.1
        wrong = checked_rate_function(problem, above.rate * 1.1, above.polynomial, above.coefficients)
        assert wrong.residual > 0.1
        nan = checked_rate_function(problem, below.rate, shifted(below.polynomial, math.nan), below.coefficients)
        assert proved_lower_rate(problem, nan, later) == 0
        one = rate_function(problem, solver, 0.0)
        assert proved_value(problem, [one], np.array([1.0]), (0.0,), 1.0, "upper", later) == pytest.approx(1.0)
        # ½ is no bound: what is missing of 1 at the start is added
        assert proved_value(problem, [one], np.array([0.5]), (0.0,), 1.0, "upper", later) == pytest.approx(1.0)
        assert proved_value(problem, [one], np.array([0.5]), (0.0,), 1.0, "lower", later) <= 1e-12
        exact = brownian(1.0)
        for beta in ([0.1, 1.0, 0.3], [-1.0, 2.0, -0.5], [1.0, -0.2, 0.1]):  # whatever β, the bound is true
            for kind, good in (("upper", lambda v: v >= exact), ("lower", lambda v: v <= exact)):
                assert good(proved_value(problem, [one, below, above], np.array(beta), (0.0,), 1.0, kind, later))


def test_wrong_input():
    with pytest.raises(InputError):
        certified_survival(FLAT, LINE, [[2.0]], [1.0])
    with pytest.raises(InputError):
        certified_survival(FLAT, LINE, None, [0.0])
    found = certified_survival(FLAT, fp.Interval(-1.0, 1.0, ("left",)), None, [1.0])
    assert not found.verified and "reflecting" in found.reason
    assert (found.values[0].lower, found.values[0].upper) == (0.0, 1.0)
