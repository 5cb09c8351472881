"""Attacks on certified enclosures: each of these once gave, or nearly gave, a statement that is not a theorem."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from flint import arb, ctx

from fpsolve.errors import InputError
from fpsolve.model.domains import Ball, Sublevel
from fpsolve.model.process import SGD
from fpsolve.theory.certified.angular import Angular, least, two_sided
from fpsolve.theory.certified.arcs import StarBracket, trace_curve
from fpsolve.theory.certified.certify import certify
from fpsolve.theory.certified.polynomial import Polynomial, tensor
from fpsolve.theory.certified.setting import Setting
from fpsolve.theory.certified.state import State


def squared_ring(size: float) -> Polynomial:
    """Return size·(1 - (r² - 1)²) on [-2, 2]², largest for r = 1, in the middle of a bracket of the unit disc."""
    square = np.zeros((5, 5))  # r² = 4 s² + 4 t² = 4 + 2 T_2(s) + 2 T_2(t)
    square[0, 0], square[2, 0], square[0, 2] = 3.0, 2.0, 2.0  # r² - 1
    s = np.polynomial.chebyshev.chebvander2d(*np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9)), [4, 4])
    rows = s.reshape(-1, 25)
    c = np.linalg.lstsq(rows, 1 - (rows @ square.ravel()) ** 2, rcond=None)[0].reshape(5, 5)
    c = np.round(c * 2**20) / 2**20  # exact: the coefficients are dyadic
    return Polynomial.of_floats((-2.0, -2.0), (2.0, 2.0), [size * c])


@pytest.mark.parametrize("half", [4e-7, 0.02])
def test_a_function_may_not_rise_between_the_curves_around_a_level_set(half: float) -> None:
    # lower bounds are claimed at all points of Ω, also between the curves, and Ω's boundary lies there
    process = SGD("x**2 + y**2", epsilon2=1.0)
    domain = Sublevel(process.landscape, 1.0, (0.0, 0.0), (-2.0, -2.0), (2.0, 2.0))
    curve = trace_curve(domain, 8)
    assert not isinstance(curve, str)
    nothing: Any = None
    star = StarBracket((0.0, 0.0), curve, 1.0 - half, 1.0 + half)
    setting = Setting(domain, ("boundary",), nothing, star)
    p = squared_ring(1.0 / half**2)
    with ctx.workprec(256):
        for piece in setting.boundary(p, "lower"):
            highest = -least(piece.negative(), 1e-9, math.inf, -math.inf, time.monotonic() + 5)[0]
            assert max(highest, two_sided(piece).upper) >= 1.0 / half**2 * (1 - 1e-14)
            assert two_sided(piece).upper - two_sided(piece).lower < 4e3  # from one curve alone it is 4


def test_the_box_of_a_disc_far_from_the_origin_is_rounded() -> None:
    # one unit in the last place of its corners is not small beside its radius
    found = certify(SGD("0*x", epsilon2=0.25), Ball((1e8, -1e8), 1.0), width=1e-6, budget=10.0)
    assert found.reached and found.lower.verified and found.upper.verified
    assert found.starts[0].lower <= 1.0 <= found.starts[0].upper


def test_the_larger_interval_of_a_level_set_lies_in_the_box_of_the_polynomials() -> None:
    process = SGD("0*x", variables=("x",), epsilon2=0.5)
    domain = Sublevel(SGD("x**2", variables=("x",), epsilon2=1.0).landscape, 1.0, (0.0,), (-3.0,), (3.0,))
    found = certify(process, domain, width=1e-12, budget=10.0, starts=[[0.0], [0.5]])
    assert found.reached and found.sources == (("certified", "certified"),) * 2
    assert all(s.lower <= 1 - s.x[0] ** 2 <= s.upper for s in found.starts)


@pytest.mark.parametrize("covariance", [[["1", "2"], ["2", "1"]], [["-1", "0"], ["0", "1"]], [["x", "0"], ["0", "1"]]])
def test_there_is_no_process_with_negative_noise(covariance: list[list[str]]) -> None:
    # the polynomials exist all the same: with Q = [[1, 2], [2, 1]] on a disc the "enclosure" is (R² - r²)/(4ε²)
    with pytest.raises(InputError, match="not negative"):
        certify(SGD("0*x", covariance, epsilon2=1.0), Ball((0.1, 0.2), 0.7), budget=2.0)


@pytest.mark.parametrize("entry", ["1 - x**2 - y**2", "x**2", "0"])
def test_noise_may_vanish(entry: str) -> None:
    process = SGD("0*x", [[entry, "0"], ["0", "1"]], epsilon2=1.0)
    found = certify(process, Ball((0.0, 0.0), 1.0), width=1.9, budget=5.0)
    assert found.starts[0].lower < found.starts[0].upper


def test_a_start_that_lies_outside_by_rounding_only_is_outside() -> None:
    # as floats are exact numbers, (0.6, 0.8) is not in the unit disc; what is proved holds in the disc
    with pytest.raises(InputError, match="a point of the domain"):
        certify(SGD("0*x", epsilon2=1.0), Ball((0.0, 0.0), 1.0), starts=[[0.6, 0.8]])


def test_contradicting_bounds_are_no_enclosure() -> None:
    state = State([(0.0,)])
    state.starts[0].improve("upper", arb(1), "certified")
    state.starts[0].improve("lower", arb(2), "certified")
    assert state.width < 0
    with pytest.raises(InputError, match="contradict"):
        state.enclosures()
    nothing = State([(0.0,)]).enclosures()[0]
    assert (nothing.lower, nothing.upper) == (0.0, math.inf) and math.copysign(1.0, nothing.lower) == 1.0


def test_products_of_tiny_numbers_are_lost() -> None:
    # below 2^-1022 the relative rounding errors of floats are unbounded
    tiny = 2.0**-1074
    function = Angular(("cos",), tensor([arb(-tiny)] * 9, (9,)), ((0.0, 1.0),))
    with ctx.workprec(256):
        assert least(function, 0.0, math.inf, -math.inf, time.monotonic() + 5)[0] <= -1e3 * 9 * tiny
