"""Loss and covariance of a model fitted to data: values, derivatives, enclosures and data files."""

from __future__ import annotations

import importlib.util
import math
import time
from pathlib import Path

import flint
import mpmath
import numpy as np
import pytest
import sympy

from fpsolve.model.expressions import Formula
from fpsolve.model.logistic import Logistic, Softplus, stable_form
from fpsolve.model.process import noise_level, sgd_process
from fpsolve.model.sample_data import read_csv
from fpsolve.model.sample_moments import BLOCK
from fpsolve.model.samples import SampleLandscape, sample_landscape

DEMO = Path(__file__).parents[1] / "demos" / "two_parameter_model"
MODEL = "a**2 + x*(1 + b/(1 + exp(-a*x)))"


@pytest.fixture(scope="module")
def thesis() -> SampleLandscape:
    data = read_csv(DEMO / "data.csv", ["x", "y"])
    return sample_landscape(MODEL, ["a", "b"], ["x"], "y", "(model - y)**2/2", data)


def small(model: str, loss: str | None = None, parameters: tuple[str, ...] = ("a", "b"), scale: float = 2.0):
    """Return a landscape of seven samples with targets 0 and 1, and its data."""
    count = 7
    rng = np.random.default_rng(3)
    data = {"x": np.round(rng.uniform(-scale, scale, count), 3), "y": (rng.uniform(size=count) > 0.5) * 1.0}
    return sample_landscape(model, parameters, ["x"], "y", loss, data), data


def critical_point(landscape: SampleLandscape, start: tuple[float, float]) -> np.ndarray:
    point = np.array([start])
    for _ in range(20):
        point = point - np.linalg.solve(landscape.hessian(point)[0], landscape.gradient(point)[0])
    return point


def test_the_demo_data_are_what_its_script_writes():
    spec = importlib.util.spec_from_file_location("make_data", DEMO / "make_data.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert (DEMO / "data.csv").read_text(encoding="ascii") == script.csv_text()
    x, y = script.noisy_data()
    data = read_csv(DEMO / "data.csv", ["y", "x"])
    assert np.array_equal(data["x"], x) and np.array_equal(data["y"], y) and len(x) == 600
    noise = np.random.default_rng(0).uniform(-3, 3, (30, 20))
    row = np.linspace(-15, 15, 30)[4]
    assert y[83] == pytest.approx(1 + row * (1 + 5 / (1 + np.exp(-row))) + noise[4, 3], rel=1e-15)


@pytest.mark.parametrize(
    ("start", "place", "loss", "hessian", "covariance"),
    [
        ((1.07, 4.99), ("1.0706", "4.9884"), "1.4754", None, None),
        ((-5.6, 2.9), ("-5.63687", "2.96346"), "206.250", ("21.898", "145.28"), ("3299.7", "52960")),
        ((-0.29, 0.15), ("-0.29433", "0.15420"), "519.546", None, None),
    ],
)
def test_critical_points_of_the_thesis_model(thesis, start, place, loss, hessian, covariance):
    """All printed digits of mathematics.md section 6."""

    def agrees(value: float, printed: str) -> bool:
        digits = len(printed.partition(".")[2])
        return f"{value:.{digits}f}" == printed

    point = critical_point(thesis, start)
    assert all(agrees(value, printed) for value, printed in zip(point[0], place, strict=True))
    assert agrees(thesis.loss(point)[0], loss)
    for matrix, printed in [(thesis.hessian(point)[0], hessian), (thesis.covariance(point)[0], covariance)]:
        if printed:
            assert all(agrees(v, p) for v, p in zip(np.linalg.eigvalsh(matrix), printed, strict=True))


def plain_loop(data: dict[str, np.ndarray], a: float, b: float) -> dict[str, np.ndarray]:
    """Return what is averaged, samples last, for the thesis model by a loop, with derivatives typed by hand."""
    losses, gradients, hessians = [], [], []
    for x, y in zip(data["x"].tolist(), data["y"].tolist(), strict=True):
        s, rest = 1 / (1 + math.exp(-a * x)), 1 / (1 + math.exp(a * x))  # 1 - s would lose digits
        residual = a**2 + x * (1 + b * s) - y
        ma, mb = 2 * a + b * x**2 * s * rest, x * s
        maa, mab = 2 + b * x**3 * s * rest * (rest - s), x**2 * s * rest
        losses.append(residual**2 / 2)
        gradients.append([residual * ma, residual * mb])
        hessians.append([[ma * ma + residual * maa, ma * mb + residual * mab], [ma * mb + residual * mab, mb * mb]])
    g, h = np.array(gradients), np.array(hessians)
    centred, change = g - [mean(c) for c in g.T], h - [[mean(h[:, i, j]) for j in range(2)] for i in range(2)]
    terms = {
        "loss": np.array(losses),
        "gradient": g,
        "hessian": h,
        "covariance": np.array([np.outer(v, v) for v in centred]),
        "covariance_divergence": np.array([m @ v + v * np.trace(m) for m, v in zip(change, centred, strict=True)]),
    }
    return {name: np.moveaxis(values, 0, -1) for name, values in terms.items()}


def mean(values: np.ndarray) -> float:
    return math.fsum(values) / len(values)


@pytest.mark.parametrize("point", [(0.7, -1.3), (1.0706, 4.9884), (-5.63687, 2.96346), (-0.2, 0.4)])
def test_all_means_equal_a_plain_loop(thesis, point):
    """To 1e-14 of what is added: where samples cancel, the mean of the absolute values."""
    at = np.array([point])
    every = thesis.statistics(at)
    for name, terms in plain_loop(read_csv(DEMO / "data.csv", ["x", "y"]), *point).items():
        expected = np.apply_along_axis(mean, -1, terms)
        size = np.apply_along_axis(mean, -1, np.abs(terms)).max()
        assert np.abs(getattr(thesis, name)(at)[0] - expected).max() <= 1e-14 * size
        if name != "loss":
            assert np.abs(getattr(every, name)[0] - expected).max() <= 1e-14 * size


@pytest.mark.parametrize("point", [(0.7, -1.3), (-5.5, 3.0), (2.0, 4.0)])
def test_all_derivatives_equal_differences_in_arb(thesis, point):
    """∇L, D²L, div Q and all of ∂Q against central differences, with 100 digits, of L, ∇L and Q; to 1e-10."""
    enclosure, x = thesis.enclosure(), np.array([point])
    before = flint.ctx.prec
    flint.ctx.prec = 333
    try:
        step = flint.arb(2) ** -100

        def differences(function):
            """Return the derivatives of a list of balls, the new index last."""
            columns = []
            for i in range(2):
                up, down = ([flint.arb(c) + (s * step if j == i else 0) for j, c in enumerate(point)] for s in (1, -1))
                columns.append([(p - m) / (2 * step) for p, m in zip(function(up), function(down), strict=True)])
            balls = [ball for row in zip(*columns, strict=True) for ball in row]
            assert all(ball.rad() < 1e-15 * (1 + abs(ball.mid())) for ball in balls)
            return np.array([float(ball.mid()) for ball in balls])

        third = differences(enclosure.covariance).reshape(2, 2, 2)
        for got, expected in [
            (thesis.gradient(x), differences(lambda box: [enclosure.loss(box)])),
            (thesis.hessian(x), differences(enclosure.gradient)),
            (thesis.covariance_divergence(x), third[:, 0, 0] + third[:, 1, 1]),
        ]:
            np.testing.assert_allclose(got.reshape(-1), expected, rtol=1e-10)
        np.testing.assert_allclose(
            thesis.loss(x)[0], float(enclosure.loss([flint.arb(c) for c in point]).mid()), rtol=1e-14
        )
    finally:
        flint.ctx.prec = before


@pytest.mark.parametrize("point", [(0.7, -1.3), (-5.5, 3.0), (2.0, 4.0)])
def test_gradient_and_covariance_equal_those_of_complex_steps(thesis, point):
    """g_k by the imaginary part of the loss of one sample at θ + ih e_i, h = 1e-30: no cancellation at all."""
    x, y = thesis.table
    step = 1e-30
    columns = []
    for i in range(2):
        a, b = (c + (1j * step if j == i else 0) for j, c in enumerate(point))
        columns.append(((a**2 + x * (1 + b / (1 + np.exp(-a * x))) - y) ** 2 / 2).imag / step)
    at = np.array([point])
    np.testing.assert_allclose(thesis.sample_gradients(at)[0].T, columns, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(thesis.gradient(at)[0], np.mean(columns, axis=1), rtol=1e-10)
    np.testing.assert_allclose(thesis.covariance(at)[0], np.cov(columns, bias=True), rtol=1e-10)


CASES = [
    ("b/(1 + exp(-a*x))", None),
    ("1/(1 + exp(-a - b*x))", "-y*log(model) - (1 - y)*log(1 - model)"),
    ("a + b*x", "log(1 + exp(model)) - y*model"),
    ("a*tanh(b*x)", "log(cosh(model - y))"),
    ("b*x/(exp(a*x) + 2*exp(-a*x))", "(model - y)**2 + 0.1*sin(x*model)"),
    ("(2 + exp(a*x))**(-0.5)*cosh(b)**(-2)", "(model - y)**4"),
    ("exp(a)/(exp(a) + exp(b*x) + 3*exp(a*b))", "-log(model)"),
    ("a*sinh(b*x)/cosh(b*x) + erf(a*x)", None),
    ("sqrt(1 + a**2)*atan(b*x) + x**a*0 + cos(b)", "sqrt(1 + (model - y)**2)"),
]


@pytest.mark.parametrize(("model", "loss"), CASES)
def test_derivatives_equal_differences_of_high_precision(model, loss):
    """Against mpmath differences with 60 digits of the formula as it was typed."""
    landscape, data = small(model, loss)
    formula = Formula.parse(loss or "(model - y)**2/2", ("model", "y", "x")).entries[0]
    typed = formula.subs(sympy.Symbol("model", real=True), Formula.parse(model, ("a", "b", "x")).entries[0])
    one = sympy.lambdify([sympy.Symbol(n, real=True) for n in ("a", "b", "x", "y")], typed, "mpmath")
    point = (0.73, -1.21)
    with mpmath.workdps(60):
        samples = [(mpmath.mpf(x), mpmath.mpf(y)) for x, y in zip(data["x"], data["y"], strict=True)]
        start = tuple(mpmath.mpf(v) for v in point)

        def derivative(x, y, order):
            return mpmath.diff(lambda a, b: one(a, b, x, y), start, order)

        g = np.array([[derivative(x, y, n) for n in ((1, 0), (0, 1))] for x, y in samples])
        second = (((2, 0), (1, 1)), ((1, 1), (0, 2)))
        h = np.array([[[derivative(x, y, n) for n in row] for row in second] for x, y in samples])
        mean_g, mean_h = g.mean(0), h.mean(0)
        centred = g - mean_g
        covariance = centred.T @ centred / len(g)
        h = h - mean_h
        divergence = sum(hk @ gk + gk * np.trace(hk) for hk, gk in zip(h, centred, strict=True)) / len(g)
        value = sum(one(*start, x, y) for x, y in samples) / len(g)
    x = np.array([point])
    for got, expected in [
        (landscape.loss(x)[0], value),
        (landscape.gradient(x)[0], mean_g),
        (landscape.hessian(x)[0], mean_h),
        (landscape.covariance(x)[0], covariance),
        (landscape.covariance_divergence(x)[0], divergence),
    ]:
        np.testing.assert_allclose(got, np.array(expected, dtype=float), rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize(("model", "loss"), CASES)
@pytest.mark.parametrize("point", [(-60.0, 3.0), (60.0, -3.0), (40.0, 70.0), (-2.0, -66.0)])
def test_extreme_parameters_give_the_values_of_high_precision_arithmetic(model, loss, point):
    """|a x| up to 1000, where the derivatives of the formula as typed are inf/inf."""
    landscape, data = small(model, loss, scale=15.0)
    names = ("a", "b", "x", "y")
    formula = Formula.parse(loss or "(model - y)**2/2", ("model", "y", "x")).entries[0]
    typed = formula.subs(sympy.Symbol("model", real=True), Formula.parse(model, names[:3]).entries[0])
    parts = [sympy.diff(typed, sympy.Symbol(n, real=True)) for n in "ab"]
    parts += [sympy.diff(parts[0], sympy.Symbol(n, real=True)) for n in "ab"]
    function = sympy.lambdify([sympy.Symbol(n, real=True) for n in names], parts, "mpmath", cse=True)
    with mpmath.workdps(1200):
        samples = [(*point, x, y) for x, y in zip(data["x"], data["y"], strict=True)]
        rows = [[mpmath.mpf(v) for v in function(*map(mpmath.mpf, sample))] for sample in samples]
        expected = np.array([float(sum(row[i] for row in rows) / len(rows)) for i in range(4)])
    x = np.array([point])
    got = np.concatenate([landscape.gradient(x)[0], landscape.hessian(x)[0, 0]])
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-13)
    if np.isfinite(expected).all() and np.abs(expected).max() < 1e100:
        assert np.isfinite(landscape.covariance(x)).all() and np.isfinite(landscape.covariance_divergence(x)).all()


def test_the_example_of_overflow(thesis):
    landscape, _ = small("b/(1 + exp(-a*x))", scale=15.0)
    for each in (landscape, thesis):
        every = each.statistics(np.array([[-60.0, 3.0], [60.0, 3.0], [-6000.0, 1.0]]))
        assert all(np.isfinite(part).all() for part in vars(every).values())


def test_an_overflow_without_a_stable_form_is_evaluated_in_arb():
    """c has no sign, so 1 + c exp(-a x) has no logistic form."""
    data = {"x": np.array([-15.0, 3.0, 15.0]), "y": np.array([0.5, 0.1, 1.0])}
    landscape = sample_landscape("1/(1 + c*exp(-a*x))", ["a", "c"], ["x"], "y", None, data)
    value = landscape.gradient(np.array([[60.0, 2.0], [0.5, 2.0]]))
    assert np.isfinite(value).all()
    s = 1 / (1 + 2 * np.exp(-0.5 * data["x"]))
    expected = np.mean((s - data["y"]) * -(s**2) * np.exp(-0.5 * data["x"]))
    assert value[1, 1] == pytest.approx(expected, rel=1e-13)
    assert np.isfinite(landscape.statistics(np.array([[60.0, 2.0]])).covariance_divergence).all()


def test_stable_form_keeps_the_value_and_is_logistic():
    u, v = sympy.symbols("u v", real=True)
    s = Logistic
    assert stable_form(1 / (1 + sympy.exp(-u))) == s(u)
    assert stable_form(sympy.exp(-u) / (1 + sympy.exp(-u)) ** 2) == s(u) * s(-u)
    assert stable_form(1 - 1 / (1 + sympy.exp(-u))) == s(-u)
    assert stable_form(sympy.log(1 + sympy.exp(u))) == Softplus(u)
    assert stable_form(-sympy.log(1 / (1 + sympy.exp(-u)))) == Softplus(-u)
    assert sympy.diff(s(u) ** 2 * s(-u), u) == 2 * s(u) ** 2 * s(-u) ** 2 - s(u) ** 3 * s(-u)
    for expression in [
        (3 + 2 * sympy.exp(u - v)) ** sympy.Rational(-3, 2),
        sympy.exp(v) / (sympy.exp(u) + sympy.exp(v) + 5),
        sympy.exp(3 * u) / (1 + sympy.exp(u)) ** 2,
        sympy.exp(-u) * sympy.cosh(u) ** -3 * v,
        sympy.log(sympy.cosh(u)) + sympy.log(2 * sympy.exp(v) / (1 + sympy.exp(u))),
        2 * v - 2 * v / (1 + sympy.exp(u)),
    ]:
        plain = stable_form(expression)
        assert plain.has(Logistic, Softplus)
        back = plain.replace(Logistic, lambda t: 1 / (1 + sympy.exp(-t)))
        back = back.replace(Softplus, lambda t: sympy.log(1 + sympy.exp(t)))
        at = {u: sympy.Rational(3, 7), v: sympy.Rational(-5, 3)}
        assert abs(sympy.N((back - expression).subs(at), 40)) < 1e-35


def test_covariance_is_symmetric_and_nonnegative_without_cancellation():
    """Gradients y with mean 1e6 and spread 1: of 16 digits the difference of second moments loses 12."""
    rng = np.random.default_rng(0)
    y = rng.uniform(size=500)
    landscape = sample_landscape("1e8*a + b", ["a", "b"], [], "y", "model*y", {"y": y + 1e6})
    q = landscape.covariance(np.zeros((3, 2)))
    assert np.array_equal(q, q.transpose(0, 2, 1))
    assert q[0, 1, 1] == pytest.approx(np.var(y), rel=1e-6)
    assert q[0, 0, 0] == pytest.approx(1e16 * np.var(y), rel=1e-6)
    assert np.linalg.eigvalsh(q).min() >= -1e-9 * q.max()


def test_many_samples_run_in_blocks_that_merge_to_the_same_moments():
    rng = np.random.default_rng(1)
    count = 2 * BLOCK + 17
    x, y = rng.uniform(-3, 3, count), rng.uniform(size=count)
    for inputs in (x, np.round(x, 1)):
        landscape = sample_landscape("a*sin(b*x)", ["a", "b"], ["x"], "y", None, {"x": inputs, "y": y})
        assert (landscape.index is None) == (inputs is x)
        point = np.array([[0.4, 0.9], [1.0, -2.0]])
        a, b = point[0]
        r = a * np.sin(b * inputs) - y
        g = np.array([r * np.sin(b * inputs), r * a * inputs * np.cos(b * inputs)])
        np.testing.assert_allclose(landscape.gradient(point)[0], g.mean(1), rtol=1e-12)
        np.testing.assert_allclose(landscape.covariance(point)[0], np.cov(g, bias=True), rtol=1e-12)
        c, n = np.cos(b * inputs), np.sin(b * inputs)
        mixed = a * inputs * n * c + r * inputs * c
        h = np.array([[n * n, mixed], [mixed, (a * inputs * c) ** 2 - r * a * inputs**2 * n]])
        centred, change = g - g.mean(1)[:, None], h - h.mean(2)[:, :, None]
        divergence = np.einsum("ijk,jk->i", change, centred) + np.einsum("jjk,ik->i", change, centred)
        np.testing.assert_allclose(landscape.covariance_divergence(point)[0], divergence / count, rtol=1e-11)


def test_no_points_and_three_parameters():
    landscape, _ = small("a*tanh(b*x + c)", parameters=("a", "b", "c"))
    assert landscape.variables == ("a", "b", "c") and landscape.samples == 7
    every = landscape.statistics(np.empty((0, 3)))
    assert every.hessian.shape == (0, 3, 3) and every.covariance_divergence.shape == (0, 3)
    assert landscape.loss(np.empty((0, 3))).shape == (0,)
    point, step = np.array([[0.4, 0.9, -0.3]]), 1e-5
    for i, e in enumerate(np.eye(3)):
        change = landscape.gradient(point + step * e) - landscape.gradient(point - step * e)
        np.testing.assert_allclose(landscape.hessian(point)[0, :, i], change[0] / (2 * step), rtol=1e-8, atol=1e-12)


def entries(ball) -> tuple[float, float]:
    return float(ball.lower()), float(ball.upper())


@pytest.mark.parametrize(("model", "loss"), [(MODEL, None), *CASES])
def test_enclosures_contain_the_values_in_the_box(model, loss):
    rng = np.random.default_rng(2)
    landscape, _ = small(model, loss, scale=4.0)
    enclosure = landscape.enclosure()
    finite = 0
    for width in (1e-6, 1e-3, 0.05, 1.0):
        for _ in range(4):
            middle = rng.uniform(-2, 2, 2)
            box = [flint.arb(float(m), width) for m in middle]
            inside = middle + width * rng.uniform(-1, 1, (30, 2))
            third = np.array([entries(ball) for ball in enclosure.covariance_derivative(box)]).reshape(2, 2, 2, 2)
            for balls, values in [
                ([enclosure.loss(box)], landscape.loss(inside)[:, None]),
                (enclosure.gradient(box), landscape.gradient(inside)),
                (enclosure.hessian(box), landscape.hessian(inside).reshape(-1, 4)),
                (enclosure.covariance(box), landscape.covariance(inside).reshape(-1, 4)),
            ]:
                for ball, column in zip(balls, values.T, strict=True):
                    lower, upper = entries(ball)
                    slack = 1e-13 * (1 + np.abs(column).max())
                    finite += width < 1 and bool(np.isfinite([lower, upper]).all())
                    assert lower - slack <= column.min() and column.max() <= upper + slack
            divergence = landscape.covariance_divergence(inside)
            for i in range(2):
                lower, upper = third[i, 0, 0] + third[i, 1, 1]
                assert (lower - 1e-12 <= divergence[:, i]).all() and (divergence[:, i] <= upper + 1e-12).all()
    assert finite == 3 * 4 * 11


def test_enclosures_shrink_quadratically_onto_the_range(thesis):
    """The mean-value form: the excess over the range of Q falls fourfold when the box is halved."""
    enclosure = thesis.enclosure()
    grid = np.linspace(-1, 1, 41)
    excess = []
    for width in (0.04, 0.02, 0.01):
        lower, upper = entries(enclosure.covariance([flint.arb(0.5, width), flint.arb(2, width)])[0])
        points = np.array([[0.5 + width * s, 2 + width * t] for s in grid for t in grid])
        values = thesis.covariance(points)[:, 0, 0]
        excess.append((upper - lower) - np.ptp(values))
    assert excess[0] > 3.5 * excess[1] > 3.5**2 * excess[2] > 0


def test_enclosures_of_wide_and_unbounded_boxes(thesis):
    enclosure = thesis.enclosure()
    box = [flint.arb(0, 60), flint.arb(0, 10)]
    for quantity in (enclosure.gradient, enclosure.hessian, enclosure.covariance):
        assert all(ball.is_finite() for ball in quantity(box))
    assert entries(enclosure.covariance(box)[0])[0] >= 0
    unbounded = [flint.arb(0, float("inf")), flint.arb(0, 1)]
    assert not all(ball.is_finite() for ball in enclosure.covariance(unbounded))
    assert not enclosure.loss(unbounded).is_finite()


def test_a_pole_or_an_end_of_definition_in_the_box_is_not_hidden():
    landscape, _ = small("1/(1 + exp(-b/a))")
    box = [flint.arb(0, 0.5), flint.arb(1, 0.5)]
    assert not landscape.enclosure().loss(box).is_finite()
    landscape, _ = small("a**1.5*x + b", "model*x")
    corner = [flint.arb(0.25, 0.3), flint.arb(1, 0.5)]
    assert not any(ball.is_finite() for ball in landscape.enclosure().covariance(corner))


def test_enclosures_at_points_use_the_exact_data_at_any_precision(thesis):
    point = [flint.arb(-5.63), flint.arb(2.96)]
    enclosure = thesis.enclosure()
    before = flint.ctx.prec
    results = {}
    try:
        for precision in (20, 53, 200):
            flint.ctx.prec = precision
            results[precision] = [enclosure.loss(point), *enclosure.gradient(point), *enclosure.covariance(point)]
    finally:
        flint.ctx.prec = before
    for precision in (20, 53):
        assert all(wide.contains(sharp) for wide, sharp in zip(results[precision], results[200], strict=True))
    x = np.array([[-5.63, 2.96]])
    sharp = [float(ball.mid()) for ball in results[200]]
    floats = [thesis.loss(x)[0], *thesis.gradient(x)[0], *thesis.covariance(x)[0].ravel()]
    np.testing.assert_allclose(floats, sharp, rtol=1e-12)


def test_speed(thesis):
    x = np.random.default_rng(0).uniform(-10, 10, (10_000, 2))
    start = time.process_time()
    thesis.statistics(x)
    assert time.process_time() - start < 3
    enclosure = thesis.enclosure()
    start = time.process_time()
    for k in range(20):
        box = [flint.arb(-5 + 0.01 * k, 1e-3), flint.arb(3, 1e-3)]
        enclosure.gradient(box), enclosure.covariance(box), enclosure.hessian(box)
    assert (time.process_time() - start) / 20 < 0.04


def test_it_serves_as_the_landscape_of_sgd(thesis):
    level = noise_level(0.1, 20, replacement=False, samples=thesis.samples)
    process = sgd_process(thesis, level)
    x = np.array([[0.3, -2.0], [1.0, 5.0]])
    scale = 0.1 / 40 * (600 - 20) / 599
    np.testing.assert_allclose(process.drift(x), -thesis.gradient(x))
    np.testing.assert_allclose(process.diffusion(x), scale * thesis.covariance(x))
    np.testing.assert_allclose(process.divergence(x), scale * thesis.covariance_divergence(x))
