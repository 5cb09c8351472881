"""Coefficients in complex balls, and polynomials near them with proved errors."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
from flint import acb, arb, ctx

import fpsolve as fp
from fpsolve.model.expressions import Formula
from fpsolve.model.process import Process, diffusion_process
from fpsolve.theory.certified.coefficients import Coefficients, coefficients_of
from fpsolve.theory.certified.surrogate import Surrogate, Surrogates, sup, surrogates
from fpsolve.theory.certified.surrogate_arithmetic import softplus
from fpsolve.theory.certified.surrogate_cover import Region, ellipse_bounds

FUNCTIONS = (
    "exp(x)", "log(x)", "sqrt(x)", "sin(x)", "cos(x)", "tan(x)", "asin(x)", "acos(x)", "atan(x)", "sinh(x)", "cosh(x)",
    "tanh(x)", "erf(x)", "abs(x)", "x**(1/3)", "x**0.3", "2**x", "1/x", "x**(-3/2)", "abs(x - 2)*x**3 + pi",
)  # fmt: skip


@pytest.fixture(autouse=True)
def precision() -> Iterator[None]:
    before = ctx.prec
    ctx.prec = 128
    yield
    ctx.prec = before


def line(drift: str, diffusion: str = "1") -> Coefficients:
    """Return the coefficients of a process in x."""
    return coefficients_of(diffusion_process([drift], [[diffusion]], ["x"]))


def plane(drift: str, other: str = "0") -> Coefficients:
    """Return the coefficients of a process in x and y."""
    return coefficients_of(diffusion_process([drift, other], [["1", "0"], ["0", "1"]], ["x", "y"]))


def thesis(model: str = "a**2 + x*(1 + b/(1 + exp(-a*x)))", loss: str = "(model - y)**2/2") -> Process:
    """Return a two-parameter model with 90 samples at 30 inputs."""
    rng = np.random.default_rng(3)
    x = np.repeat(np.linspace(-15, 15, 30), 3)
    data = {"x": x, "y": 1 + x * (1 + 5 / (1 + np.exp(-x))) + rng.normal(size=90)}
    return fp.sgd_process(
        fp.sample_landscape(model, ["a", "b"], ["x"], "y", loss, data),
        fp.noise_level(learning_rate=0.001, batch_size=2, replacement=False, samples=90, extra_noise=0.25),
    )


def check(c: Coefficients, s: Surrogates, seed: int = 1, points: int = 60) -> dict[int, float]:
    """Check every error at random points; return for each entry proved error / largest difference that was seen."""
    rng, d = random.Random(seed), c.dimension
    seen = [arb(0)] * (d + d * d)
    every: list[Surrogate] = [*s.drift, *s.diffusion]
    for _ in range(points):
        t = [rng.choice([-1.0, 1.0, rng.uniform(-1, 1), rng.uniform(-1, 1), rng.uniform(-1, 1)]) for _ in range(d)]
        x = [
            (arb(a) + arb(b)) / 2 + (arb(b) - arb(a)) / 2 * arb(u) for a, b, u in zip(s.lower, s.upper, t, strict=True)
        ]
        for k, (value, polynomial) in enumerate(zip([*c.drift(x), *c.diffusion(x)], every, strict=True)):
            difference = abs(value - polynomial([arb(u) for u in t]))
            assert difference.is_finite() and difference.lower() <= polynomial.error
            assert not abs(value) > sup(polynomial)
            seen[k] = max(seen[k], difference.lower(), key=float)
    return {k: float(p.error) / float(e) for k, (p, e) in enumerate(zip(every, seen, strict=True)) if p.error > 0}


# --- coefficients ------------------------------------------------------------------------------------------


def test_coefficients_of_formulas_are_those_of_the_process() -> None:
    process = fp.SGD("log(cosh(x)) + x*y**2", [["1 + x**2", "x"], ["x", "exp(y)"]], epsilon2=0.3, variables=("x", "y"))
    noisy = fp.SGD("x**2 + y**4", epsilon2=None, learning_rate=0.1, batch_size=5, extra_noise=0.5)
    general = diffusion_process(["y - x**3", "-y"], [["1", "x/2"], ["x/2", "1 + x**2"]], ["x", "y"])
    for p, point in product((process, noisy, general), ([0.25, -1.5], [2.0, 0.125])):
        c, x = coefficients_of(p), [arb(v) for v in point]
        f, a = p.drift(np.array([point]))[0], p.diffusion(np.array([point]))[0]
        assert [float(v) for v in c.drift(x)] == pytest.approx(list(f), rel=1e-13)
        assert [float(v) for v in c.diffusion(x)] == pytest.approx(list(a.ravel()), rel=1e-13)
    # floats of the noise are exact numbers: 0.3 is not 3/10
    assert not coefficients_of(process).diffusion([arb(0), arb(0)])[0].contains(arb(3) / 10)


def test_degrees() -> None:
    assert line("(x + 1)**3 - x**3", "1 + x**2").degrees == ((2,), (2,))
    assert line("0", "1").degree == (0,)
    c = plane("x*(y**2 + x)**2", "exp(y)*x**2")
    assert c.degrees[:2] == ((3, 4), (2, None)) and c.degree is None
    assert coefficients_of(fp.SGD("(x**2 - 1)**2/4 + y**2/2", epsilon2=1.0)).degree == (3, 1)
    assert coefficients_of(thesis()).degrees == ((None, 2), (None, 1), (None, 4), (None, 3), (None, 2))


def test_python_functions_are_refused() -> None:
    plain = Process(("x",), lambda x: -x, lambda x: np.ones((len(x), 1, 1)), lambda x: 0 * x)
    with pytest.raises(ValueError, match="Python functions"):
        coefficients_of(plain)


@pytest.mark.parametrize("text", FUNCTIONS)
def test_complex_values_continue_the_real_ones(text: str) -> None:
    """At real points they are equal, and the complex derivative (a difference) is the real one."""
    c, slope = line(text), Formula.parse(text, ("x",)).derivative()
    for point in (arb(0.375), arb(0.8125)):
        (real,), (continued,) = c.drift([point]), c.drift([acb(point)])
        assert continued.is_finite() and continued.imag.contains(0) and continued.real.overlaps(real)
        assert continued.real.rad() < 1e-30
        step = arb(2) ** -40
        (upward,) = c.drift([acb(point, step)])
        assert abs((upward - continued) / acb(0, step) - slope.balls([point])[0]).abs_upper() < 1e-10


@pytest.mark.parametrize(
    ("text", "center", "radius"),
    [
        ("log(x)", (-1, 0), 0.1), ("sqrt(x)", (-1, 0), 0.1), ("x**0.3", (-1, 0), 0.1), ("x**(1/3)", (0, 0), 0.1),
        ("asin(x)", (2, 0), 0.1), ("acos(x)", (-2, 0), 0.1), ("atan(x)", (0, 2), 0.1), ("1/x", (0, 0), 0.1),
        ("tan(x)", (math.pi / 2, 0), 0.1), ("tanh(x)", (0, math.pi / 2), 0.1), ("abs(x)", (0, 1), 0.1),
        ("sqrt(x**2 + 1)", (0, 1), 0.1), ("log(x)", (0, 0), 0.5),
    ],
)  # fmt: skip
def test_balls_that_meet_a_singularity_or_a_cut_are_not_finite(text: str, center: tuple, radius: float) -> None:
    (value,) = line(text).drift([acb(arb(center[0], radius), arb(center[1], radius))])
    assert not value.is_finite()


def test_a_softplus_is_continued_round_its_branch_point_from_neither_side() -> None:
    """Beyond the branch point iπ of log(1 + exp(u)) the continuations from left and right differ by 2πi."""
    tiny = arb(0, 0.01)
    assert not softplus(acb(tiny, 6.28 + tiny)).is_finite() and not softplus(acb(tiny, arb.pi())).is_finite()
    right, left = softplus(acb(0.25, 6.25)), softplus(acb(-0.25, 6.25))
    assert right.imag > 6 and abs(left.imag) < 1 and abs(softplus(acb(tiny, 3)).imag) < 3.2


@pytest.mark.parametrize(
    ("model", "loss"),
    [
        ("a**2 + x*(1 + b/(1 + exp(-a*x)))", "(model - y)**2/2"),  # grouped by input
        ("a**2/40 + b*x/20", "log(cosh(model - y))"),  # not affine in the target
        ("a*x + b", "(model - y)**2/2"),
    ],
)
def test_data_agree_with_the_enclosure_of_the_landscape(model: str, loss: str) -> None:
    process = thesis(model, loss)
    c = coefficients_of(process)
    strength, extra = arb(process.epsilon2) * arb(process.covariance_scale), arb(process.extra_diffusion)
    enclosure = process.landscape.enclosure()
    for point in ([-5.5, 3.0], [0.25, -1.0]):
        x = [arb(v) for v in point]
        gradient, covariance = enclosure.gradient(x), enclosure.covariance(x)
        wanted = [-g for g in gradient]
        wanted += [strength * q + (extra if k % 3 == 0 else 0) for k, q in enumerate(covariance)]
        real, continued = c.drift(x) + c.diffusion(x), c.drift([acb(v) for v in x]) + c.diffusion([acb(v) for v in x])
        for u, v, w in zip(wanted, real, continued, strict=True):
            assert u.overlaps(v) and w.real.overlaps(u) and w.imag.contains(0)
            assert v.rad() < 1e-28 * (1 + abs(v)) and w.rad() < 1e-28 * (1 + abs(v))


def test_complex_values_of_data_are_analytic() -> None:
    """∂Q is the real one: squares, not squared moduli, are continued."""
    process = thesis()
    c, x, step = coefficients_of(process), [arb(-0.5), arb(3)], arb(2) ** -40
    third = process.landscape.enclosure().covariance_derivative(x)
    strength = arb(process.epsilon2) * arb(process.covariance_scale)
    at = c.diffusion([acb(v) for v in x])
    for k in range(2):
        moved = c.diffusion([acb(v, step if i == k else 0) for i, v in enumerate(x)])
        for entry in range(4):
            slope = (moved[entry] - at[entry]) / acb(0, step)
            wanted = strength * third[2 * entry + k]
            assert abs(slope - wanted).abs_upper() < 1e-8 * (1 + abs(wanted))


# --- ellipses ----------------------------------------------------------------------------------------------


def joukowski(distance: float) -> float:
    """Return the ρ of the ellipse with foci ±1 through i·distance."""
    return distance + math.sqrt(1 + distance**2)


def test_a_pole_inside_the_ellipse_is_seen() -> None:
    """tanh(2x + y) has poles at 2x + y = ±iπ/2, the next one above [-1, 1]² at x = iπ/4, y = 0."""
    c, box = plane("tanh(2*x + y)"), ((-1.0, -1.0), (1.0, 1.0))
    limit = joukowski(math.pi / 4)
    for rho in (1.01 * limit, 1.2 * limit, 3.0, 10.0, 64.0):
        found = ellipse_bounds(c, Region(*box, 0, rho), [0])
        assert found.bounds[0] == math.inf and "not analytic" in found.places[0]
    for rho in (1.2, 0.8 * limit, 0.95 * limit):
        bound = ellipse_bounds(c, Region(*box, 0, rho), [0]).bounds[0]
        height = (rho - 1 / rho) / 2
        assert math.tan(2 * height) <= bound <= 10 * max(1.0, math.tan(2 * height))  # 1 far from the poles
    proved = surrogates(c, *box)
    check(c, proved)
    assert proved.drift[0].error < 1e-13


def test_a_pole_between_the_nodes_is_seen() -> None:
    """Values at the nodes and on the boundary of ellipses show nothing of it."""
    pole = "x/3 + 1e-30/((x - 0.3)**2 + 1e-6)"
    with pytest.raises(ValueError, match=r"drift\[x\] is not proved to be analytic.*near x = 0\.3"):
        surrogates(line(pole), [-1], [1])
    with pytest.raises(ValueError, match="not proved to be analytic"):
        surrogates(plane("x/3 + 1e-30/((x - 0.3)**2 + (y - 0.1)**2 + 1e-6)"), [-1, -1], [1, 1])
    with pytest.raises(ValueError, match=r"diffusion\[x, x\]"):
        surrogates(line("-x", "1 + 1e-9*tan(1.6*x)"), [-1], [1])


@pytest.mark.parametrize("text", ["abs(x)", "abs(x - 0.123)**3", "sqrt(x**2 + 1e-9)", "sqrt(x + 1)", "asin(x)"])
def test_functions_that_are_not_analytic_on_the_box_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not proved to be analytic|not finite"):
        surrogates(line(text), [-1], [1])


@pytest.mark.parametrize("text", ["1/x", "log(x)", "sqrt(x - 2)", "exp(exp(10*x))"])
def test_values_that_are_not_finite_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"drift\[x\] is not"):
        surrogates(line(text), [-1], [1])


@pytest.mark.parametrize("box", [([0], [0]), ([1], [0]), ([math.nan], [1]), ([0], [math.inf]), ([0, 0], [1, 1])])
def test_bad_boxes_are_refused(box: tuple[list[float], list[float]]) -> None:
    with pytest.raises(ValueError, match="bounded box"):
        surrogates(line("sin(x)"), *box)


def test_without_time_nothing_is_proved() -> None:
    with pytest.raises(ValueError, match="not decided within the limits"):
        surrogates(line("sin(x)"), [-1], [1], budget_seconds=-1)


# --- polynomials -------------------------------------------------------------------------------------------


def test_polynomials_are_exact() -> None:
    """Also on boxes whose ends are no short decimals; the error is 0 and the coefficients are sharp."""
    loss, q = "(x**2 - 1)**2/4 + x*y**3/3 + pi*y", [["1 + x**2*y**2", "x*y/2"], ["x*y/2", "1"]]
    process = fp.SGD(loss, q, epsilon2=0.1)
    c, lower, upper = coefficients_of(process), (-1.7, 0.1), (0.3, 0.7)
    found = surrogates(c, lower, upper)
    assert [s.shape for s in found.drift] == [(4, 4), (2, 3)]
    assert [s.shape for s in found.diffusion] == [(3, 3), (2, 2), (2, 2), (1, 1)]
    assert found.diffusion[1] is found.diffusion[2]
    gradient = Formula.parse(loss, ("x", "y")).derivative()
    rng = random.Random(5)
    for _ in range(20):
        t = [arb(rng.uniform(-1, 1)) for _ in range(2)]
        x = [(arb(a) + arb(b)) / 2 + (arb(b) - arb(a)) / 2 * u for a, b, u in zip(lower, upper, t, strict=True)]
        values = [*(-g for g in gradient.balls(x)), *c.diffusion(x)]
        for value, s in zip(values, [*found.drift, *found.diffusion], strict=True):
            assert s.error == 0 and s(t).overlaps(value) and s(t).rad() < 1e-33 * (1 + abs(value))


@pytest.mark.parametrize(
    ("drift", "box"),
    [
        ("-tanh(x)", (-1, 1)), ("sin(x)/2 + 1", (-2, 3)), ("exp(x)", (-1, 2)), ("1/(1 + 4*x**2)", (-1, 1)),
        ("log(x + 2)", (-1, 1)), ("x**0.3", (0.5, 2)), ("erf(2*x)", (-1, 1)), ("atan(2*x)", (-1, 1)),
        ("x**(5/2)", (1, 2)), ("abs(x - 3)*cos(x)", (-1, 1)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("relative", [1e-14, 1e-6])
def test_errors_in_one_dimension_hold_and_are_not_far_off(
    drift: str, box: tuple[float, float], relative: float
) -> None:
    c = line(drift)
    found = surrogates(c, [box[0]], [box[1]], relative=relative)
    ratio = check(c, found, points=150)
    assert found.drift[0].error < relative * sup(found.drift[0])
    assert ratio[0] < 1e3 and found.diffusion[0].error == 0


def test_errors_without_leaving_out_small_coefficients_are_not_far_off() -> None:
    """The bound of the interpolation itself: degree 20 at most, no room to leave out coefficients."""
    for text in ("log(cosh(x))", "sqrt(1 + x**2)", "1/(3 + x)", "exp(3*x)"):
        c = coefficients_of(fp.SGD(text, variables=("x",), epsilon2=1.0))
        assert check(c, surrogates(c, [-1], [1], relative=1e-30, limit=20), points=100)[0] < 1e3


def test_errors_in_two_dimensions_hold_and_are_not_far_off() -> None:
    process = fp.SGD("log(cosh(x)) + log(cosh(x + y/2))", [["1", "0"], ["0", "1 + sin(x)/2"]], epsilon2=0.5)
    c = coefficients_of(process)
    found = surrogates(c, [-1, -0.5], [1, 1.5])
    assert all(ratio < 1e3 for ratio in check(c, found).values())
    assert all(s.error < 2e-14 for s in found.drift) and found.diffusion[3].shape[1] == 1
    c = coefficients_of(fp.SGD("sqrt(1 + x**2 + y**2) + exp(x)*y", epsilon2=0.5))
    found = surrogates(c, [-1, -1], [1, 1])
    assert all(ratio < 1e3 for ratio in check(c, found).values())
    assert all(s.error < 5e-14 for s in found.drift)


def test_three_dimensions() -> None:
    process = fp.SGD("sqrt(2 + x**2 + y*z) + z**2", variables=("x", "y", "z"), epsilon2=0.5)
    c = coefficients_of(process)
    found = surrogates(c, [-0.5] * 3, [0.5] * 3, relative=1e-8)
    assert all(ratio < 1e4 for ratio in check(c, found, points=20).values())
    assert all(0 < s.error < 2e-8 for s in found.drift)


def test_data_near_a_minimum() -> None:
    c = coefficients_of(thesis())
    found = surrogates(c, [-7.137, 1.463], [-4.137, 4.463], relative=1e-12)
    assert all(ratio < 1e3 for ratio in check(c, found, points=20).values())
    assert all(s.error < 1e-12 * sup(s) * 100 for s in [*found.drift, *found.diffusion])
    assert [s.shape[1] for s in found.diffusion] == [5, 4, 4, 3]  # polynomials in b


def test_a_surrogate_with_a_changed_coefficient_fails_the_check() -> None:
    """The checks above can fail."""
    c = line("-tanh(x)")
    found = surrogates(c, [-1], [1])
    good = found.drift[0]
    spoilt = Surrogate(good.shape, [*good.coefficients[:-1], good.coefficients[-1] + 1e-13], good.error)
    with pytest.raises(AssertionError):
        check(c, Surrogates(found.lower, found.upper, [spoilt], found.diffusion))
