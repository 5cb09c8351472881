"""Which boundary parts are proved unreachable, and attacks that must not be believed."""

from __future__ import annotations

import numpy as np
import pytest
import sympy

from fpsolve.model.domains import Ball, Box, Interval, Sublevel
from fpsolve.model.process import SGD, Process, diffusion_process
from fpsolve.theory.certified.reachability import unreachable_parts
from fpsolve.theory.certified.signs import everywhere, not_positive, vanishes

SQUARE = Box((-1, -1), (1, 1))
XY = ("x", "y")
TANGENTIAL = [["y**2", "-x*y"], ["-x*y", "x**2"]]


def proved(process: Process, domain: object, seconds: float = 2.0) -> set[str]:
    return {part.name for part in unreachable_parts(process, domain, seconds) if part.proved}


def sublevel(process: Process, level: float, point: tuple[float, float], upper: tuple[float, float]) -> Sublevel:
    assert process.landscape is not None
    return Sublevel(process.landscape, level, point, (-2, -2), upper)


def test_degenerate_square_is_left_through_two_sides_only() -> None:
    process = SGD("(x**2+y**2)/2", [["1", "0"], ["0", "0"]], epsilon2=0.2)
    parts = unreachable_parts(process, SQUARE)
    assert [part.name for part in parts] == ["left", "right", "bottom", "top"]
    assert [part.proved for part in parts] == [False, False, True, True]
    assert all(part.reason for part in parts)


def test_state_dependent_degenerate_noise_in_a_double_well() -> None:
    process = SGD("(x**2-1)**2+y**2", [["0.5+0.5*x**2", "0"], ["0", "0"]], epsilon2=0.2)
    assert proved(process, Box((-1.6, -0.6), (-0.4, 0.6))) == {"bottom", "top"}


def test_noise_that_vanishes_only_on_the_side_needs_a_strong_drift() -> None:
    def make(pull: str) -> Process:
        return diffusion_process(["-x", f"-{pull}*y"], [["1", "0"], ["0", "1-y**2"]], XY)

    # on y = 1: a_nn = (2 - d) d, so q = 2
    assert proved(make("3"), SQUARE) == {"bottom", "top"}
    assert proved(make("2"), SQUARE) == {"bottom", "top"}
    assert proved(make("1.99"), SQUARE) == set()


@pytest.mark.parametrize(
    ("drift", "diffusion", "expected"),
    [
        ("2-x", "x", True),
        ("1-x", "x", True),  # Feller's threshold itself
        ("0.999999999-x", "x", False),
        ("0.5-x", "x", False),
        ("0.1-x", "0.1*x", True),  # exact decimals
        ("x", "x**2", True),  # geometric Brownian motion
        ("x-x**2+2*sin(x)", "x**2*(2-x)**2", True),
        ("x-4", "x**2", False),  # outwards
        ("x+1", "x**2+1e-9", False),
    ],
)
def test_left_end_of_an_interval(drift: str, diffusion: str, expected: bool) -> None:
    found = proved(diffusion_process([drift], [[diffusion]], ("x",)), Interval(0, 2))
    assert ("left" in found) == expected


def test_both_ends() -> None:
    jacobi = diffusion_process(["2-4*x"], [["x*(1-x)"]], ("x",))
    assert proved(jacobi, Interval(0, 1)) == {"left", "right"}
    assert proved(jacobi, Interval(0, 0.9)) == {"left"}
    assert proved(diffusion_process(["-2*x"], [["1-x**2"]], ("x",)), Ball((0,), 1)) == {"boundary"}
    assert proved(diffusion_process(["1-2*x"], [["1-x**2"]], ("x",)), Ball((0,), 1)) == set()


def test_a_float_is_not_a_decimal() -> None:
    process = diffusion_process(["1"], [["x-0.1"]], ("x",))
    assert proved(process, Interval(0.1, 1)) == set()  # the float 0.1 is above 1/10
    exact = diffusion_process(["1"], [["x-0.125"]], ("x",))
    assert proved(exact, Interval(0.125, 1)) == {"left"}


def test_tangential_noise_on_a_disc() -> None:
    disc = Ball((0, 0), 1.3)
    assert proved(SGD("(x**2+y**2)/2", TANGENTIAL, epsilon2=0.5), disc) == {"boundary"}
    # Itô: noise along the circle drives outwards, d(|x|²/2) = (tr a - |x|²) dt
    assert proved(diffusion_process(["-x", "-y"], TANGENTIAL, XY), disc) == {"boundary"}  # exactly balanced
    assert proved(diffusion_process(["-0.999*x", "-0.999*y"], TANGENTIAL, XY), disc) == set()
    assert proved(diffusion_process(["x", "y"], TANGENTIAL, XY), disc) == set()
    assert proved(diffusion_process(["-3*x", "-3*y"], TANGENTIAL, XY), Ball((0.1, 0), 1.3)) == set()


def test_other_noises_on_balls() -> None:
    shifted = [["(y-0.5)**2", "-(x-1)*(y-0.5)"], ["-(x-1)*(y-0.5)", "(x-1)**2"]]
    assert proved(diffusion_process(["-3*(x-1)", "0.5-y"], shifted, XY), Ball((1, 0.5), 0.7)) == {"boundary"}
    radial = [["1-sqrt(x**2+y**2)", "0"], ["0", "1-sqrt(x**2+y**2)"]]
    assert proved(diffusion_process(["-3*x", "-3*y"], radial, XY), Ball((0, 0), 1)) == {"boundary"}  # polar coordinates
    assert proved(diffusion_process(["-x/2", "-y/2"], radial, XY), Ball((0, 0), 1)) == set()
    weighted = [[f"exp(x)*({entry})" for entry in row] for row in TANGENTIAL]
    assert proved(diffusion_process(["-5*x", "-5*y"], weighted, XY), Ball((0, 0), 1)) == {"boundary"}
    around = [["y**2", "-x*y", "0"], ["-x*y", "x**2", "0"], ["0", "0", "0"]]
    drift = ["-x", "-y", "-z"]  # A d = z², zero on the equator
    assert proved(diffusion_process(drift, around, ("x", "y", "z")), Ball((0, 0, 0), 1)) == {"boundary"}


def test_full_noise_is_never_believed_to_stay() -> None:
    for domain in (Ball((0, 0), 1), SQUARE, Ball((0.3, 0), 1)):
        assert proved(SGD("50*(x**2+y**2)", epsilon2=0.01), domain) == set()
        assert proved(SGD("50*(x**2+y**2)", [["1", "0"], ["0", "1e-300"]], epsilon2=0.01), domain) == set()


def test_level_sets() -> None:
    along = [["4*y**2", "-2*y*(4*x**3-4*x)"], ["-2*y*(4*x**3-4*x)", "(4*x**3-4*x)**2"]]
    for epsilon2, expected in ((0.02, {"boundary"}), (2.0, set())):
        process = SGD("(x**2-1)**2+y**2", along, epsilon2=epsilon2)
        domain = sublevel(process, 0.5, (-1, 0), (0, 2))
        assert proved(process, domain) == expected
    full = SGD("(x**2-1)**2+y**2", epsilon2=0.02)
    assert proved(full, sublevel(full, 0.5, (-1, 0), (0, 2))) == set()
    cosh = SGD("log(cosh(x))+y**2", [["4*y**2", "-2*y*tanh(x)"], ["-2*y*tanh(x)", "tanh(x)**2"]], epsilon2=0.02)
    assert proved(cosh, sublevel(cosh, 0.5, (0, 0), (2, 2))) == {"boundary"}


def test_attacks_on_sides() -> None:
    def make(drift_y: str, noise_y: str) -> Process:
        return diffusion_process(["-x", drift_y], [["1", "0"], ["0", noise_y]], XY)

    assert proved(make("y", "0"), SQUARE) == set()  # outwards
    assert proved(make("0.5-x-y", "0"), SQUARE) == {"bottom"}  # at the top inwards for x > -1/2 only
    assert proved(make("-y*(x-0.3)**2", "0"), SQUARE) == {"bottom", "top"}  # zero at one point, never outwards
    assert proved(make("-y*((x-0.3)**2-1e-6)", "0"), SQUARE) == set()  # outwards on a small piece
    assert proved(make("-y", "(x-0.3)**2"), SQUARE) == set()  # no noise at one point only
    assert proved(make("-y", "1e-30"), SQUARE) == set()
    assert proved(make("-y", "sqrt(1-y)"), SQUARE) == set()  # not smooth
    assert proved(make("-y", "abs(1-y)"), SQUARE) == set()  # a kink
    assert proved(make("-y/(x-0.3)", "0"), SQUARE) == set()  # a pole of the drift on the side
    assert proved(make("-y", "0"), Ball((0, 0), 1)) == set()
    assert proved(make("-y", "(1-y**2)**2/(x-0.3)"), SQUARE) == set()  # the second derivative has a pole


def test_reflecting_sides_are_not_listed_and_must_not_push() -> None:
    plain = diffusion_process(["-x", "-y"], [["1", "0"], ["0", "0"]], XY)
    parts = unreachable_parts(plain, Box((-1, -1), (1, 1), ("left", "top")))
    assert [(part.name, part.proved) for part in parts] == [("right", False), ("bottom", True)]
    cross = "0.5*(1-y**2)"  # the conormal at left and right has a component along y
    oblique = diffusion_process(["-x", "-3*y"], [["1", cross], [cross, "(1-y**2)**2"]], XY)
    assert proved(oblique, SQUARE) == {"bottom", "top"}
    assert proved(oblique, Box((-1, -1), (1, 1), ("right",))) == {"top"}
    assert proved(oblique, Box((-1, -1), (1, 1), ("left",))) == {"bottom"}
    assert unreachable_parts(plain, Ball((0, 0), 1, ("boundary",))) == []


def test_without_formulas_nothing_is_proved() -> None:
    def zero(x: np.ndarray) -> np.ndarray:
        return np.zeros((len(x), 1))

    process = Process(("x",), zero, lambda x: np.zeros((len(x), 1, 1)), zero)
    parts = unreachable_parts(process, Interval(0, 1))
    assert [part.proved for part in parts] == [False, False]
    assert "formula" in parts[0].reason


def test_no_time_means_no_proof() -> None:
    process = SGD("(x**2+y**2)/2", [["1", "0"], ["0", "1-y**2+x*(1-y**2)**3"]], epsilon2=0.2)
    assert proved(process, SQUARE) == {"bottom", "top"}
    needs_cutting = diffusion_process(["-x", "-y*(0.26+x*(x-1))"], [["1", "0"], ["0", "0"]], XY)
    assert proved(needs_cutting, SQUARE) == {"bottom", "top"}
    assert proved(needs_cutting, SQUARE, seconds=0.0) == set()


def test_signs() -> None:
    x = sympy.Symbol("x", real=True)
    low, high = np.array([-1.0]), np.array([1.0])
    assert vanishes(sympy.sin(x) ** 2 + sympy.cos(x) ** 2 - 1, ("x",), low, high)
    assert not vanishes(sympy.sin(x) ** 2 + sympy.cos(x) ** 2 - 1 + sympy.Rational(1, 10**30) * x, ("x",), low, high)
    assert everywhere(low, high, not_positive(-(x**2), ("x",)), np.inf)
    assert everywhere(low, high, not_positive(x**2 - sympy.Rational(101, 100), ("x",)), np.inf)
    assert not everywhere(low, high, not_positive(x**2 - sympy.Rational(99, 100), ("x",)), np.inf)
    assert not everywhere(low, high, not_positive(-1 / x**2, ("x",)), np.inf)  # no finite enclosure at the pole
