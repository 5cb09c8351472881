"""Formulas: what is accepted, exact derivatives, and three renderings that agree."""

from mpi4py import MPI

import flint
import numpy as np
import pytest
import ufl
from dolfinx import fem, mesh

from fpsolve.errors import InputError
from fpsolve.model.expressions import FUNCTIONS, Formula, parse

TEXTS = [
    "(x**2 - 1)**2 + y**2",
    "exp(-x/2)*sin(3*y) + cos(x*y)/(2 + x**2)",
    "sqrt(1 + x**2) + log(2 + y) + tanh(x + y) + pi",
    "atan(x) + asin(x/3) + acos(y/3) + erf(y) + sinh(x) + cosh(y) + tan(x/2)",
    "abs(x + 3) + 2**x + x**3/7 - 0.1",
    "(2 + x)**0.5 + (2 + y)**(-1.5) + (3 + x)**y",
]


@pytest.mark.parametrize("text", TEXTS)
def test_derivatives_by_complex_step_and_balls(text):
    formula = Formula.parse(text, ["x", "y"])
    x = np.random.default_rng(1).uniform(-0.9, 0.9, (20, 2))
    gradient = formula.derivative()(x)
    for point, exact in zip(x, gradient, strict=True):
        for i in range(2):
            # 60-digit difference quotient in Arb: truncation below 1e-15, no cancellation
            with flint.ctx.workprec(300):
                h = flint.arb(10) ** -20
                ends = [[flint.arb(v) + (s * h if j == i else 0) for j, v in enumerate(point)] for s in (1, -1)]
                up, down = (formula.balls(end)[0] for end in ends)
                quotient = float(((up - down) / (2 * h)).mid())
            assert exact[i] == pytest.approx(quotient, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("text", TEXTS)
def test_balls_contain_the_values(text):
    formula = Formula.parse(text, ["x", "y"])
    box = [flint.arb(0.2, 0.1), flint.arb(-0.3, 0.2)]
    points = np.random.default_rng(2).uniform([0.1, -0.5], [0.3, -0.1], (200, 2))
    ball = formula.balls(box)[0]
    assert ball.is_finite()
    assert all(
        ball.contains(flint.arb(float(v), 1e-13)) or ball.overlaps(flint.arb(float(v), 1e-13)) for v in formula(points)
    )


@pytest.mark.parametrize("text", TEXTS)
def test_ufl_equals_numpy(comm, text):
    formula = Formula.parse(text, ["x", "y"])
    square = mesh.create_rectangle(comm, [[-0.9, -0.9], [0.9, 0.9]], [2, 2])
    space = fem.functionspace(square, ("DG", 2))
    values = fem.Function(space)
    points = space.element.interpolation_points
    points = points() if callable(points) else points
    values.interpolate(fem.Expression(formula.ufl(ufl.SpatialCoordinate(square)), points))
    np.testing.assert_allclose(values.x.array, formula(space.tabulate_dof_coordinates()[:, :2]), rtol=1e-12, atol=1e-13)


def test_even_powers_of_balls_around_zero():
    """Arb's own power is not finite there, and plain products lose the sign."""
    square, cube = Formula.parse(["x**2", "x**3"], ["x"]).balls([flint.arb(0, 1)])
    assert square.is_finite() and square.lower() > -1e-8 and square.contains(1)
    assert cube.is_finite() and cube.contains(-1) and cube.contains(1)


def test_a_pole_in_the_box_is_not_finite():
    assert not Formula.parse("1/x", ["x"]).balls([flint.arb(0, 1)])[0].is_finite()
    assert not Formula.parse("log(x)", ["x"]).balls([flint.arb(0, 1)])[0].is_finite()


def test_divergence_of_a_matrix():
    q = Formula.parse([["x**2", "x*y"], ["x*y", "sin(y)"]], ["x", "y"])
    x = np.array([[0.3, 0.7]])
    np.testing.assert_allclose(q.divergence()(x), [[2 * 0.3 + 0.3, 0.7 + np.cos(0.7)]], rtol=1e-14)


def test_decimals_are_exact():
    assert parse("0.1", []) * 10 == 1


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')", "x.__class__", "[x]", "lambda: x", "x if x else y", "x and y", "x < y",
        "x^2", "x + q", "exp", "exp(x, y)", "9**9**9", "1/0", "'x'", "x = 1", "sin(x", "", "   ", "x" * 30_000,
        "(" * 500 + "x" + ")" * 500, "1e999", "True", "x**exp(exp(exp(100)))", "((2**1000)**1000)**1000", "sqrt(-1)*x",
        "log(-1)*x", "x**sqrt(-1)", None, True, ["x"], "f'{x}'", "x@y", "x//y", "x%y", "~x", "print(x)", "eval('x')",
    ],
)  # fmt: skip
def test_anything_else_is_refused(text):
    with pytest.raises(InputError) as error:
        parse(text, ["x", "y"], "process.loss")
    assert "process.loss" in str(error.value)


def test_unknown_names_get_a_suggestion():
    with pytest.raises(InputError, match="Did you mean 'alpha'"):
        parse("alhpa**2", ["alpha"])
    assert set(FUNCTIONS) >= {"exp", "log", "tanh"}


def test_error_travels_between_ranks():
    error = MPI.COMM_SELF.bcast(InputError("a.b", 3, "four", "Try 4."), root=0)
    assert error.key == "a.b" and "Try 4." in str(error)
