"""One-sided candidates by linear programming: inequalities on independent points, brackets of exact values, widths."""

import time

import numpy as np
import pytest
from reference import interval_met, interval_met_one_sided, product_survival

from fpsolve.model.domains import Ball, Box, Interval, Sublevel
from fpsolve.model.process import SGD, diffusion_process, formula_landscape
from fpsolve.theory.certified.one_sided import search
from fpsolve.theory.certified.one_sided_rows import Polynomial, basis, points, symmetries
from fpsolve.theory.certified.one_sided_solver import minimise
from fpsolve.theory.certified.task import Task

OU = "(x**2+y**2)/2"
DISC = Ball((0.0, 0.0), 1.0)
RANK_ONE = [["1", "x/2"], ["x/2", "x**2/4"]]


def make_task(loss, covariance, epsilon2, domain, start=(0.0, 0.0), unreachable=()):
    return Task(SGD(loss, covariance, ["x", "y"], epsilon2=epsilon2), domain, unreachable, np.array([start]))


def bracket(task, degree, **options):
    return [search(task, degree, kind, **options) for kind in ("lower", "upper")]


def width(lower, upper):
    return 2 * (upper.value - lower.value) / (upper.value + lower.value)


def evaluate(bound, x):
    """Value, gradient and Hessian of the candidate by numpy's own Chebyshev routines."""
    c, low, high = bound.candidate.coefficients[0], *map(np.array, (bound.candidate.lower, bound.candidate.upper))
    d, half = len(low), (high - low) / 2
    t = ((x - low) / half - 1).T
    polynomial = {1: np.polynomial.chebyshev.chebval, 2: np.polynomial.chebyshev.chebval2d}[d]

    def derivative(*axes):
        result = c
        for axis in axes:
            result = np.polynomial.chebyshev.chebder(result, axis=axis) / half[axis]
        return polynomial(*t, result)

    gradient = np.stack([derivative(i) for i in range(d)], axis=-1)
    hessian = np.stack([np.stack([derivative(i, j) for j in range(d)], axis=-1) for i in range(d)], axis=-2)
    return derivative(), gradient, hessian


def violations(task, bound, x, edge):
    """Largest violations of the inequalities: of -A w against 1 at x, of w against 0 on the edge."""
    sign = 1 if bound.candidate.kind == "upper" else -1
    _, gradient, hessian = evaluate(bound, x)
    rate = -np.einsum("pij,pij->p", task.process.diffusion(x), hessian)
    rate -= np.einsum("pi,pi->p", task.process.drift(x), gradient)
    return (sign * (1 - rate)).max(), (-sign * evaluate(bound, edge)[0]).max()


def disc_points(n):
    r, t = np.meshgrid(np.linspace(0, 1, n), np.linspace(0, 2 * np.pi, 3 * n), indexing="ij")
    circle = np.stack([np.cos(t[0]), np.sin(t[0])], axis=-1)
    return np.stack([r * np.cos(t), r * np.sin(t)], axis=-1).reshape(-1, 2), circle


def box_points(domain, n):
    low, high = domain.bounding_box()
    x, y = (np.linspace(a, b, n) for a, b in zip(low, high, strict=True))
    inside = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)
    edge = inside[np.any((inside == low) | (inside == high), axis=1)]
    return inside, edge


@pytest.mark.parametrize(("epsilon2", "cap"), [(0.5, 3e-3), (0.2, 1e-3)])
def test_double_well_box_with_corners(epsilon2, cap):
    domain = Box((-1.8, -0.8), (-0.2, 0.8))
    task = make_task("(x**2-1)**2+y**2", "identity", epsilon2, domain, (-1.0, 0.0))
    wells = (lambda x: (x**2 - 1) ** 2, lambda y: y**2)
    exact = product_survival(wells, (epsilon2, epsilon2), ((-1.8, -0.2), (-0.8, 0.8)), -1.0, 0.0)
    lower, upper = bracket(task, 16)
    assert lower.value < exact < upper.value
    assert width(lower, upper) < cap
    inside, edge = box_points(domain, 201)
    for bound in (lower, upper):
        rate, value = violations(task, bound, inside, edge)
        assert rate < 1e-3 and value < 1e-3 * bound.value


@pytest.mark.parametrize(("epsilon2", "cap"), [(1.0, 1e-6), (0.2, 1e-4)])
def test_characteristic_points(epsilon2, cap):
    task = make_task(OU, [["1", "0"], ["0", "0"]], epsilon2, DISC)
    exact = interval_met(lambda x: x**2 / 2, epsilon2, -1.0, 1.0, 0.0)  # y stays 0
    lower, upper = bracket(task, 16)
    assert lower.value < exact < upper.value
    assert width(lower, upper) < cap
    for bound in (lower, upper):
        rate, value = violations(task, bound, *disc_points(150))
        assert rate < 1e-3 and value < 1e-3 * bound.value


def test_rank_one_disc():
    task = make_task(OU, RANK_ONE, 1.0, DISC)
    widths = []
    for degree in (8, 12, 16):
        lower, upper = bracket(task, degree)
        assert lower.value < 0.58546 < upper.value
        for bound in (lower, upper):
            rate, value = violations(task, bound, *disc_points(150))
            assert rate < 1e-3 and value < 1e-3 * bound.value
        widths.append(width(lower, upper))
    assert widths[2] < widths[1] < widths[0] and widths[2] < 1e-4


def test_width_shrinks_with_degree_at_corners():
    domain = Box((-1.8, -0.8), (-0.2, 0.8))
    task = make_task("(x**2-1)**2+y**2", "identity", 0.5, domain, (-1.0, 0.0))
    widths = [width(*bracket(task, degree)) for degree in (8, 12, 16)]
    assert widths[2] < widths[1] < widths[0]


def test_interval():
    process = SGD("x**4/4-x", "identity", ["x"], epsilon2=0.3)
    task = Task(process, Interval(-0.5, 2.0), (), np.array([[1.0]]))
    exact = interval_met(lambda x: x**4 / 4 - x, 0.3, -0.5, 2.0, 1.0)
    lower, upper = bracket(task, 40, tolerance=1e-5)
    assert lower.value < exact < upper.value and width(lower, upper) < 1e-4


@pytest.mark.parametrize("side", ["left", "right"])
def test_reflecting_side(side):
    # one dimension embedded in two: reflected at one end in x, nothing happens in y
    potential = {"left": lambda x: x**2 / 2, "right": lambda x: x**2 / 2}[side]
    exact = interval_met_one_sided(potential, 0.5, -1.0, 1.5, 0.25, reflecting=side)
    domain = Box((-1.0, -1.0), (1.5, 1.0), reflecting=(side, "bottom", "top"))
    task = make_task("x**2/2", "identity", 0.5, domain, (0.25, 0.0))
    lower, upper = bracket(task, 14)
    assert lower.value < exact < upper.value and width(lower, upper) < 2e-3
    inside, edge = box_points(domain, 101)
    absorbing = edge[edge[:, 0] == (1.5 if side == "left" else -1.0)]
    normals = {"left": (-1, 0), "right": (1, 0), "bottom": (0, -1), "top": (0, 1)}
    for bound, sign in ((lower, -1), (upper, 1)):
        rate, value = violations(task, bound, inside, absorbing)
        assert rate < 1e-3 and value < 1e-3 * bound.value
        for name in domain.reflecting:
            k = ["left", "right", "bottom", "top"].index(name)
            face = edge[edge[:, k // 2] == domain.bounding_box()[k % 2][k // 2]]
            assert (sign * evaluate(bound, face)[1] @ np.array(normals[name])).min() >= 0


def test_unreachable_part():
    # Q = diag(1, 0), drift inward in y: bottom and top are never reached, the exit is that of x alone
    exact = interval_met(lambda x: x**2 / 2, 0.2, -1.0, 1.0, 0.3)
    domain = Box((-1.0, -1.0), (1.0, 1.0))
    task = make_task(OU, [["1", "0"], ["0", "0"]], 0.2, domain, (0.3, 0.5), ("bottom", "top"))
    lower, upper = bracket(task, 12)
    assert lower.value < exact < upper.value and width(lower, upper) < 2e-3


def test_sublevel_and_three_dimensions():
    landscape = formula_landscape("(x**2+y**2)/2", "identity", ["x", "y"])
    task = make_task(OU, "identity", 0.5, Sublevel(landscape, 0.5, (0.0, 0.0), (-2.0, -2.0), (2.0, 2.0)))
    disc = make_task(OU, "identity", 0.5, DISC)
    first, second = bracket(task, 10), bracket(disc, 10)
    assert first[0].value <= second[1].value and second[0].value <= first[1].value
    assert width(*first) < 1e-3 and width(*second) < 1e-3
    brownian = diffusion_process(["0", "0", "0"], np.eye(3, dtype=int).tolist(), ["x", "y", "z"])
    ball = Task(brownian, Ball((0.0, 0.0, 0.0), 1.0), (), np.zeros((1, 3)))
    lower, upper = bracket(ball, 4)
    assert lower.value == pytest.approx(1 / 6, rel=1e-3) and upper.value == pytest.approx(1 / 6, rel=1e-3)


def test_no_supersolution_where_the_process_never_leaves():
    # Q = diag(1, 0) does not move y away from 0 and a reflecting wall keeps x in
    domain = Box((-1.0, -1.0), (1.0, 1.0), reflecting=("left", "right"))
    task = make_task(OU, [["1", "0"], ["0", "0"]], 0.2, domain)
    assert search(task, 6, "upper") is None


def test_coefficients_that_are_singular_on_the_boundary():
    process = diffusion_process(["-1/(2*x)"], [["x"]], ["x"])
    task = Task(process, Interval(0.0, 1.0), (), np.array([[0.5]]))
    bound = search(task, 6, "lower")  # no candidate is asked for; no error either
    assert bound is None or bound.value > 0


def test_deadline_is_kept():
    task = make_task(OU, RANK_ONE, 1.0, DISC)
    began = time.monotonic()
    search(task, 30, "upper", deadline=began)
    assert time.monotonic() - began < 30


def test_solver_on_a_known_programme():
    # min x + y subject to x >= 1, y >= 2, x + y >= 2: the optimum is (1, 2)
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    optimum = minimise(rows, np.array([1.0, 2.0, 2.0]), np.array([1.0, 1.0]), np.zeros(2), 1e-9)
    assert optimum.z == pytest.approx([1.0, 2.0], abs=1e-6)
    assert optimum.duals == pytest.approx([1.0, 1.0, 0.0], abs=1e-6)


def test_symmetries():
    assert symmetries(make_task(OU, "identity", 1.0, DISC)) == [(0,), (1,)]
    assert symmetries(make_task(OU, RANK_ONE, 1.0, DISC)) == [(0,)]
    assert symmetries(make_task(OU, [["1", "1/2"], ["1/2", "1"]], 1.0, DISC)) == [(0, 1)]
    assert symmetries(make_task(OU, "identity", 1.0, DISC, (0.1, 0.0))) == [(1,)]
    half = Box((-1.0, -1.0), (1.0, 1.0), reflecting=("left",))
    assert symmetries(make_task(OU, "identity", 1.0, half)) == [(1,)]


def test_rows_are_the_generator():
    task = make_task("x**3+x*y**2", RANK_ONE, 0.7, DISC, (0.1, 0.2))
    space = basis(task, 5)
    c = np.random.default_rng(1).normal(size=len(space.orders))
    x = points(task, 9).inside
    rows = space.minus_generator(task.process, x) @ c
    assert rows == pytest.approx(Polynomial(space, c).minus_generator(task.process, x), rel=1e-10, abs=1e-9)
    # w = x y²: -A w = -(2 ε² (x/2) 2 y + ε² x²/4 2 x) - f·(y², 2 x y)
    t = np.zeros((6, 6))
    t[1, 0], t[1, 2] = 0.5, 0.5  # x T_0/2 + x T_2(y)/2 = x y²
    w = Polynomial(space, np.array([t[tuple(o)] for o in space.orders]))
    f = task.process.drift(x)
    expected = -0.7 * (2 * x[:, 0] * x[:, 1] + x[:, 0] ** 3 / 2)
    expected -= f[:, 0] * x[:, 1] ** 2 + f[:, 1] * 2 * x[:, 0] * x[:, 1]
    assert w.minus_generator(task.process, x) == pytest.approx(expected, abs=1e-12)
