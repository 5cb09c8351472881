"""Proved ranges of polynomials on boxes, balls, spheres and star-shaped sets, and what they are made of."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import sympy
from flint import arb, ctx, fmpq
from numpy.polynomial import chebyshev

from fpsolve.model.domains import Ball
from fpsolve.model.process import SGD, Process, diffusion_process
from fpsolve.theory.balls import above
from fpsolve.theory.certified.angular import Angular, _counts, basis, least, local_polynomials, two_sided
from fpsolve.theory.certified.cells import Cells
from fpsolve.theory.certified.coefficients import coefficients_of
from fpsolve.theory.certified.generator import Coefficient, Generator
from fpsolve.theory.certified.polynomial import (
    Polynomial,
    chebyshev_angles,
    chebyshev_vectors,
    exact_points,
    from_grid,
    powers,
    tensor,
)
from fpsolve.theory.certified.rays import along_rays, truncated
from fpsolve.theory.certified.shapes import on_arc, on_ball, on_box, on_sector, on_sphere
from fpsolve.theory.certified.surrogate import surrogates
from fpsolve.theory.certified.task import corners

NEVER = math.inf
#: A Bézier arc about (0.1, 0.2) of degree 3.
CENTER, ARC = (0.1, 0.2), ((0.9, 0.2), (0.9, 0.6), (0.6, 0.9), (0.1, 0.9))


@pytest.fixture(autouse=True)
def bits() -> Iterator[None]:
    with ctx.workprec(192):
        yield


def random_coefficients(rng: np.random.Generator, d: int, degree: int) -> np.ndarray:
    """Total degree as asked for, decaying."""
    total = np.indices((degree + 1,) * d).sum(axis=0)
    return np.where(total <= degree, rng.normal(size=total.shape) / (1 + total), 0.0)


def polynomial(coefficients: np.ndarray, lower: float = -1.25, upper: float = 1.5) -> Polynomial:
    d = coefficients.ndim
    return Polynomial.of_floats((lower,) * d, (upper,) * d, [coefficients])


def sphere(rng: np.random.Generator, d: int, count: int) -> np.ndarray:
    if d == 2:
        angles = np.linspace(0, 2 * np.pi, count)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)
    x = rng.normal(size=(count, d))
    return x / np.linalg.norm(x, axis=1)[:, None]


def arc_points(t: np.ndarray) -> np.ndarray:
    u = 0.5 * (t + 1)[:, None]
    return sum(math.comb(3, j) * u**j * (1 - u) ** (3 - j) * np.array(p) for j, p in enumerate(ARC))


def shaped(name: str, p: Polynomial, rng: np.random.Generator) -> tuple[Angular, np.ndarray]:
    """Return p on a set of that kind and points of the set (up to rounding)."""
    d, many = p.dimension, {1: 2000, 2: 4000, 3: 4000}[p.dimension]
    if name == "box":
        x = rng.uniform(p.lower, p.upper, (many, d))
        x[: many // 4] = np.where(rng.random((many // 4, d)) < 0.5, p.lower, x[: many // 4])
        x[many // 4 : many // 2] = np.where(rng.random((many // 4, d)) < 0.7, p.upper, x[many // 4 : many // 2])
        return on_box(p), x
    center, radius = (0.25, -0.125, 0.0)[:d], 1.0
    if name == "ball":
        r = np.concatenate([np.ones(many // 2), rng.random(many // 2) ** (1 / d)])
        n = sphere(rng, d, many) if d > 1 else rng.choice([-1.0, 1.0], (many, 1))
        return on_ball(p, center, radius), center + (1 - 1e-15) * r[:, None] * rng.permutation(n)
    if name == "sphere":
        return on_sphere(p, center, radius), center + sphere(rng, d, many)
    t = np.linspace(-1, 1, many)
    if name == "arc":
        return on_arc(p, CENTER, ARC, 1.0), arc_points(t)
    first = 0.75 if name == "rim" else 0.0
    s = np.concatenate([np.ones(many // 2), rng.uniform(first, 1, many // 2)])
    return on_sector(p, CENTER, ARC, 1.0, arb(first)), CENTER + s[:, None] * (arc_points(rng.permutation(t)) - CENTER)


SHAPES = [
    *[("box", 1, m) for m in (0, 1, 5, 24)],
    *[("box", 2, m) for m in (1, 4, 12)],
    *[("box", 3, m) for m in (1, 4)],
    *[("ball", 1, m) for m in (1, 9)],
    *[("ball", 2, m) for m in (0, 1, 4, 11)],
    *[("ball", 3, m) for m in (1, 3)],
    *[("sphere", 2, m) for m in (1, 4, 13)],
    *[("sphere", 3, m) for m in (1, 5)],
    *[(name, 2, m) for name in ("sector", "rim", "arc") for m in (1, 4, 8)],
]
#: Angles of a shape; each makes Ehlich and Zeller's range wider by 1/cos(π/6).
ANGLES = {("sphere", 2): 1, ("sphere", 3): 2, ("arc", 2): 1}


@pytest.mark.parametrize(("name", "d", "degree"), SHAPES)
def test_ranges_hold_all_values_and_are_not_much_wider(name, d, degree):
    rng = np.random.default_rng(degree + 10 * d)
    p = polynomial(random_coefficients(rng, d, degree))
    function, x = shaped(name, p, rng)
    values = p.at(exact_points(x))
    # points of the set only up to rounding
    low, high, slack = arb(min(values)), arb(max(values)), 1e-13
    spread = above(high - low)
    found = two_sided(function)
    assert found.lower <= low + slack and found.upper >= high - slack
    wider = (1 / math.cos(math.pi / 6)) ** ANGLES.get((name, d), d)
    assert found.upper - found.lower <= 1.1 * wider * spread + 1e-12
    tolerance = 1e-3 * spread + 1e-9
    for sign, end in ((1, low), (-1, -high)):
        piece = function if sign > 0 else function.negative()
        bound, seen = least(piece, tolerance, math.inf, -math.inf, NEVER)
        assert bound <= end + slack
        assert seen - tolerance <= bound <= seen
        assert bound >= (found.lower if sign > 0 else -found.upper) - tolerance


def hump(d: int, at: tuple[float, ...]) -> Polynomial:
    """|x - at|² on [-2, 2]^d, exactly."""
    c = np.zeros((3,) * d)
    for axis in range(d):
        index = [0] * d
        for power, value in enumerate((2.0 + at[axis] ** 2, -4 * at[axis], 2.0)):
            index[axis] = power
            c[tuple(index)] += value
    return Polynomial.of_floats((-2.0,) * d, (2.0,) * d, [c])


@pytest.mark.parametrize("tolerance", [1e-2, 1e-5, 1e-9])
@pytest.mark.parametrize("name", ["box", "ball", "sphere"])
@pytest.mark.parametrize("d", [2, 3])
def test_least_value_converges_to_exact_extrema(name, d, tolerance):
    """|x - a|² is 0 in a, and (|c - a| - 1)² on the unit sphere about c; its negative is least far away."""
    at, center = (0.25, 0.5, -0.25)[:d], (0.25, -0.125, 0.5)[:d]
    p = hump(d, at)
    away = math.dist(at, center)
    shape = {
        "box": lambda: (on_box(p), 0.0, sum((2 + abs(a)) ** 2 for a in at)),
        "ball": lambda: (on_ball(p, center, 1.0), 0.0, (away + 1) ** 2),
        "sphere": lambda: (on_sphere(p, center, 1.0), (away - 1) ** 2, (away + 1) ** 2),
    }
    function, low, high = shape[name]()
    for piece, exact in ((function, low), (function.negative(), -high)):
        bound, _ = least(piece, tolerance, math.inf, -math.inf, NEVER)
        # in three angles interpolation on the cells is exact to about 1e-9 of the coefficients
        assert exact - 1.1 * tolerance - (1e-8 if d == 3 else 1e-12) <= bound <= exact + 1e-14


def test_least_value_ends_early_when_that_is_enough():
    function = on_box(hump(2, (0.25, 0.5)))
    assert least(function, 0.0, -1.0, -math.inf, NEVER)[0] >= -1.0
    bound, seen = least(function.negative(), 1e-9, math.inf, -1.0, NEVER)
    assert bound <= seen < -1.0
    bound, _ = least(function, 1e-12, math.inf, -math.inf, 0.0)  # no time at all
    assert math.isfinite(bound) and bound <= 0


@pytest.mark.parametrize("bad", ["nan", "inf", "+/- inf"])
@pytest.mark.parametrize("name", ["box", "ball", "sphere", "sector", "arc"])
@pytest.mark.parametrize("where", [(0, 0), (1, 2)])
def test_nothing_is_proved_with_numbers_that_are_not_finite(bad, name, where):
    p = polynomial(random_coefficients(np.random.default_rng(1), 2, 3))
    p.coefficients[where] = arb(bad) if bad != "+/- inf" else arb(0, math.inf)
    function, _ = shaped(name, p, np.random.default_rng(2))
    found = two_sided(function)
    assert (found.lower, found.upper) == (-math.inf, math.inf)
    assert least(function, 1e-3, math.inf, -math.inf, NEVER)[0] == -math.inf


@pytest.mark.parametrize("name", ["box", "ball", "sphere", "sector", "arc"])
def test_balls_as_coefficients_count_with_their_radii(name):
    """The range holds the values of every polynomial in the balls; leading ones contain zero."""
    rng = np.random.default_rng(4)
    c = random_coefficients(rng, 2, 4)
    c[2, 2] = c[4, 0] = 0.0
    p = polynomial(c)
    p.coefficients[2, 2] = p.coefficients[4, 0] = arb(0, 0.25)
    p.coefficients[4, 4] = arb(0, 0.125)
    function, x = shaped(name, p, rng)
    found = two_sided(function)
    bounds = [least(f, 1e-2, math.inf, -math.inf, NEVER)[0] for f in (function, function.negative())]
    for s, t, u in ((1, 1, 1), (-1, 1, -1), (1, -1, 1), (-1, -1, -1)):
        one = c.copy()
        one = np.pad(one, ((0, 0), (0, 0)))
        one[2, 2], one[4, 0], one[4, 4] = 0.25 * s, 0.25 * t, 0.125 * u
        values = polynomial(one).at(exact_points(x[::20]))
        assert found.lower <= min(values) + 1e-12 and max(values) - 1e-12 <= found.upper
        assert bounds[0] <= min(values) + 1e-12 and bounds[1] <= -max(values) + 1e-12


# --- cells -----------------------------------------------------------------------------------------------


def angular(rng: np.random.Generator, kinds: tuple[str, ...], degree: int, scale: float) -> Angular:
    """Coefficients that are large and cancel: of a function times `scale`, shifted by 1e3 scale in both waves."""
    sizes = [degree + 1 if kind == "cos" else 2 * degree + 1 for kind in kinds]
    c = scale * rng.normal(size=sizes) * 10.0 ** rng.uniform(-3, 3, sizes)
    spans = tuple((0.0, 1.0) if kind == "cos" else (0.0, 2.0) for kind in kinds)
    return Angular(kinds, tensor([arb(v) for v in c.ravel().tolist()], c.shape), spans)


def value_at(function: Angular, angles: list) -> arb:
    values = function.coefficients
    for axis, kind in enumerate(function.kinds):
        row = basis(kind, function.degree(axis), [angles[axis]])[0]
        values = np.tensordot(row, values, axes=(0, 0))
    return values if not isinstance(values, np.ndarray) else values[()]


def series_at(coefficients: np.ndarray, s: list[float]) -> arb:
    """Evaluate the floats of a cell exactly."""
    values = tensor([arb(v) for v in coefficients.ravel().tolist()], coefficients.shape)
    for t in s:
        row = chebyshev_vectors(np.array([arb(t)], dtype=object), values.shape[0] - 1)[0]
        values = np.tensordot(row, values, axes=(0, 0))
    return values if not isinstance(values, np.ndarray) else values[()]


def first_places(function: Angular, cells: Cells) -> tuple[list[list[int]], list[int]]:
    counts = _counts(function)
    places = [list(place) for place in np.ndindex(*counts)]
    assert len(places) == len(cells.error)
    return places, counts


@pytest.mark.parametrize(
    ("kinds", "degree"),
    [(("cos",), 30), (("trig",), 17), (("cos", "cos"), 7), (("cos", "trig"), 5), (("cos", "trig", "trig"), 2)],
)
@pytest.mark.parametrize("scale", [1.0, 1e12])
@pytest.mark.parametrize("bits_used", [24, 192])
def test_errors_of_cells_are_honest(kinds, degree, scale, bits_used):
    """Against 500 bits, at once and after up to 14 halvings; with few bits the radii of the matrices count."""
    rng = np.random.default_rng(degree)
    function = angular(rng, kinds, degree, scale)
    with ctx.workprec(bits_used):
        cells = local_polynomials(function)
    total = above(abs(function.coefficients).sum())
    d = len(kinds)
    places, counts = first_places(function, cells)
    keep = rng.permutation(len(places))[:6]
    cells = cells.chosen(keep)
    places = [places[k] for k in keep]
    # the part of its first cell that a cell is: middle and half-width along each axis, exact dyadic numbers
    middles, half = np.zeros((len(places), d)), 1.0
    worst, seen = 0.0, 0.0
    for depth in range(15):
        with ctx.workprec(500):
            for k in range(min(len(places), 6)):
                s = rng.choice([-1.0, 1.0, 0.0, 0.375, -0.8125], d)
                y = middles[k] + half * s
                angles = []
                for axis, (a, b) in enumerate(function.spans):
                    step = arb.pi() * (arb(b) - arb(a)) / (2 * counts[axis])
                    angles.append(arb.pi() * arb(a) + step * (2 * places[k][axis] + 1 + arb(float(y[axis]))))
                exact = value_at(function, angles)
                miss = abs(exact - series_at(cells.coefficients[k], list(s)))
                assert miss <= cells.error[k]
                assert cells.bounds()[k] <= exact
                worst, seen = max(worst, above(miss)), max(seen, float(cells.error[k]))
        cells = cells.halved().trimmed(1e-11 * total if depth % 2 else 0.0)
        for axis in range(d):
            middles, places = np.repeat(middles, 2, axis=0), [p for p in places for _ in range(2)]
            middles[:, axis] += 0.5 * half * np.tile([-1.0, 1.0], len(middles) // 2)
        half *= 0.5
        keep = rng.permutation(len(places))[:6]
        cells, middles, places = cells.chosen(keep), middles[keep], [places[k] for k in keep]
    # there is an error, and the bound is not worthless
    assert worst > 0 and seen <= (1e-8 if bits_used > 53 else 0.1) * total


@pytest.mark.parametrize("d", [1, 2, 3])
def test_trailing_coefficients_become_errors(d):
    """What is left out of a series is in its error, on every cell."""
    rng = np.random.default_rng(d)
    values = rng.normal(size=(5, *(6, 7, 8)[:d])) * 10.0 ** (-np.indices((6, 7, 8)[:d]).sum(axis=0))
    cells = Cells(values, np.full(5, 1e-9))
    shorter = cells.trimmed(1e-4)
    assert shorter.coefficients[0].size < values[0].size
    rest = values.copy()
    rest[(slice(None), *(slice(0, n) for n in shorter.coefficients.shape[1:]))] -= shorter.coefficients
    lost = np.abs(rest).reshape(5, -1).sum(axis=1)
    assert np.all(shorter.error >= 1e-9 + lost) and np.all(shorter.error <= 1e-9 + d * 1.1e-4) and lost.min() > 1e-9
    assert np.all(shorter.bounds() <= cells.bounds() + 1e-15 + 2 * lost)
    assert cells.trimmed(0.0).coefficients.shape == values.shape
    values[2] = math.nan
    assert Cells(values, np.full(5, 1e-9)).trimmed(1e-4).bounds()[2] == -math.inf


@pytest.mark.parametrize("kinds", [("cos",), ("cos", "cos"), ("cos", "trig")])
def test_high_frequencies_become_a_radius(kinds):
    function = angular(np.random.default_rng(3), kinds, 9, 1.0)
    weights = np.prod(np.indices(function.coefficients.shape) + 1.0, axis=0) ** -6
    function = replace(function, coefficients=function.coefficients * weights)
    shorter = function.trimmed(1e-4)
    assert shorter.coefficients.size < function.coefficients.size
    for angle in np.linspace(0.0, 6.0, 13):
        at = [arb(float(angle)), arb(float(2 * angle))][: len(kinds)]
        assert value_at(shorter, at).contains(value_at(function, at).mid())
    nan = function.coefficients.copy()
    nan.flat[-1] = arb("nan")
    assert not replace(function, coefficients=nan).trimmed(1e-4).coefficients.flat[0].is_finite()


def test_the_smallest_value_seen_is_not_taken_for_a_bound():
    """Errors count: with them a cell's bound is below the smallest value of its series."""
    cells = Cells(np.array([[1.0, 0.25, 0.0], [2.0, 0.0, 0.5]]), np.array([0.5, math.inf]))
    np.testing.assert_allclose(cells.bounds()[0], 0.25, rtol=1e-13)
    assert cells.bounds()[0] <= 0.25 and cells.bounds()[1] == -math.inf
    assert cells.smallest() == pytest.approx(0.75)
    nan = replace(cells, coefficients=np.array([[math.nan, 0, 0], [2.0, 0, math.nan]]))
    assert np.all(nan.bounds() == -math.inf)


@pytest.mark.parametrize("count", [150, 700])
def test_radii_do_not_grow_with_the_degree(count):
    """High degrees on arcs: products one factor at a time would lose half a bit or more for each degree."""
    waves = powers(chebyshev_angles(3), count)
    polynomials = chebyshev_vectors(waves[:, 1].copy(), count) if count < 2 else None
    assert max(float(z.real.rad()) for z in waves.ravel()) < 2.0**-160
    assert polynomials is None
    x = np.array([arb(-1), arb(0.3), arb("0.99999")], dtype=object)
    vectors = chebyshev_vectors(x, count)
    assert max(float(v.rad()) for v in vectors.ravel()) < 2.0**-150
    for k in (2, 3, 17, count):
        assert all(vectors[i, k].overlaps((k * x[i].acos()).cos()) for i in range(3))


# --- polynomials -----------------------------------------------------------------------------------------


def floats(values: np.ndarray) -> np.ndarray:
    return values.astype(float)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_derivatives_faces_and_other_boxes_against_numpy(d):
    rng = np.random.default_rng(d)
    c = rng.normal(size=(6, 4, 3)[:d])
    lower, upper = (-1.0, 0.5, 2.0)[:d], (0.25, 3.0, 2.5)[:d]
    p = Polynomial.of_floats(lower, upper, [0.5 * c, 0.5 * c])
    low, high = np.array(lower), np.array(upper)
    x = rng.uniform(low, high, (20, d))
    evaluate = (chebyshev.chebval, chebyshev.chebval2d, chebyshev.chebval3d)

    def values(q: np.ndarray, x: np.ndarray) -> np.ndarray:
        return evaluate[d - 1](*((2 * x - low - high) / (high - low)).T, q)

    np.testing.assert_allclose(floats(p.at(exact_points(x))), values(c, x), atol=1e-13)
    for axis in range(d):
        slope = p.derivative(axis)
        expected = chebyshev.chebder(c, axis=axis) * 2 / (high - low)[axis]
        np.testing.assert_allclose(floats(slope.coefficients), expected, atol=1e-13)
        for sign in (1, -1):
            y = x.copy()
            y[:, axis] = high[axis] if sign > 0 else low[axis]
            face = p.face(axis, sign)
            at = floats(face.at(exact_points(np.delete(y, axis, axis=1)))) if d > 1 else float(face.coefficients)
            np.testing.assert_allclose(at, values(c, y), atol=1e-13)
    wider = p.moved(tuple(low - 0.5), tuple(high + 0.25))
    assert wider.lower == tuple(low - 0.5)
    moved, own = wider.at(exact_points(x)), p.at(exact_points(x))
    assert all(a.overlaps(b) and a.rad() < 1e-40 for a, b in zip(moved, own, strict=True))
    assert p.moved(lower, upper) is p
    assert all(abs(v) <= p.size() for v in own)
    constant = Polynomial.of_floats(lower, upper, [np.ones((1,) * d)])
    assert all(v == 0 for v in constant.derivative(0).coefficients.ravel())


def test_values_on_the_grid_and_back():
    c = np.random.default_rng(5).normal(size=(5, 3))
    p = polynomial(c)
    sizes = (7, 4)
    grid = p.on_grid(sizes)
    nodes = [np.cos([(2 * j + 1) * np.pi / (2 * n) for j in range(n)]) for n in sizes]
    np.testing.assert_allclose(floats(grid), chebyshev.chebgrid2d(*nodes, c), atol=1e-13)
    back = from_grid(p.lower, p.upper, grid)
    assert back.shape == sizes
    expected = np.pad(c, ((0, 2), (0, 1)))
    for found, value in zip(back.coefficients.ravel(), expected.ravel(), strict=True):
        assert found.contains(arb(float(value))) and found.rad() < 1e-40


def test_exact_sums_are_exact():
    p = Polynomial.of_floats((-1,), (1,), [np.array([1.0, 1e20]), np.array([2.0**-80, 1.0])])
    assert p.coefficients[0] == arb(1) + arb(2) ** -80
    assert p.coefficients[1] == arb(10) ** 20 + 1


# --- rays ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beyond", [0.0, 1e-60, 0.25])
def test_truncation_never_loses_a_coefficient(beyond):
    """A ball about zero beyond the total degree becomes a radius; a ball that holds no zero stays."""
    rng = np.random.default_rng(7)
    c = random_coefficients(rng, 2, 4)
    p = polynomial(c)
    p.coefficients[4, 4] = p.coefficients[3, 4] = arb(0, beyond)
    shorter, degree = truncated(p)
    assert degree == 4
    x = rng.uniform(-1.25, 1.5, (30, 2))
    held = shorter.at(exact_points(x))
    for sign in (-1, 1):
        one = c.copy()
        one[4, 4], one[3, 4] = sign * beyond, -sign * beyond
        assert all(a.overlaps(b) for a, b in zip(held, polynomial(one).at(exact_points(x)), strict=True))
    kept = polynomial(c)
    kept.coefficients[4, 4] = arb(1e-30, 0.9e-30)
    assert truncated(kept)[1] == 8
    below_degree = polynomial(c)
    below_degree.coefficients[1, 1] = arb(0, 0.5)
    assert truncated(below_degree)[0].coefficients[1, 1].contains(arb(0.5))
    assert p.coefficients[4, 4].contains(arb(beyond))  # the argument is left alone
    nothing, zero = truncated(polynomial(np.zeros((3, 3))))
    assert zero == 0 and all(v == 0 for v in nothing.coefficients.ravel())
    p.coefficients[4, 4] = arb("nan")
    assert not truncated(p)[0].coefficients[0, 0].is_finite()


@pytest.mark.parametrize(("d", "degree"), [(2, 0), (2, 7), (2, 20), (3, 5)])
def test_along_rays_is_the_polynomial(d, degree):
    rng = np.random.default_rng(degree)
    p = polynomial(random_coefficients(rng, d, degree))
    center, g = (0.3, -0.2, 0.1)[:d], rng.uniform(-0.6, 0.6, (d, 5))
    directions = [np.array([arb(float(v)) for v in row], dtype=object) for row in g]
    series = along_rays(*truncated(p), center, directions, lambda s: (1 + s) / 2)
    assert series.shape == (degree + 1, 5)
    for s in (-1.0, 0.25, 1.0):
        row = chebyshev_vectors(np.array([arb(s)], dtype=object), degree)[0]
        along = row @ series
        rho = (arb(1) + arb(s)) / 2
        exact = p.at([arb(c) + rho * v for c, v in zip(center, directions, strict=True)])
        assert all(a.overlaps(b) and a.rad() < 1e-30 for a, b in zip(along, exact, strict=True))


# --- the generator ---------------------------------------------------------------------------------------

X, Y = sympy.symbols("x y")


def generator_of(process: Process, lower, upper, relative: float = 1e-20) -> Generator:
    found = surrogates(coefficients_of(process), tuple(lower), tuple(upper), relative=relative, budget_seconds=10.0)

    def coefficient(s):
        return Coefficient(Polynomial(tuple(lower), tuple(upper), tensor(s.coefficients, tuple(s.shape))), s.error)

    return Generator([coefficient(s) for s in found.drift], [coefficient(s) for s in found.diffusion])


def exact_image(drift, diffusion, c: np.ndarray, lower, upper):
    """A w as an expression, w's coefficients being exact rationals."""
    s = [(2 * v - sympy.Rational(a) - sympy.Rational(b)) / (sympy.Rational(b) - sympy.Rational(a))
         for v, a, b in zip((X, Y), lower, upper, strict=True)]  # fmt: skip
    w = sum(
        sympy.Rational(float(c[k])) * math.prod(sympy.chebyshevt(n, t) for n, t in zip(k, s, strict=True))
        for k in np.ndindex(*c.shape)
    )
    pairs = [(i, j) for i in range(2) for j in range(2)]
    v = (X, Y)
    return sum(sympy.sympify(drift[i]) * w.diff(v[i]) for i in range(2)) + sum(
        sympy.sympify(diffusion[i][j]) * w.diff(v[i], v[j]) for i, j in pairs
    )


LOSS = "(x**2-1)**2/4 + x*y**2/2 + y**2"
FULL = [["1 + x**2", "x*y/4"], ["x*y/4", "2 - y"]]
GENERATORS = {
    "polynomial": (SGD(LOSS, FULL, epsilon2=0.5), [f"-({sympy.diff(LOSS, v)})" for v in "xy"], FULL, "1/2", 1e-20),
    "general drift": (
        diffusion_process(["y - x**3", "-x + y/3"], [["0", "0"], ["0", "1"]], ["x", "y"]),
        ["y - x**3", "-x + y/3"],
        [["0", "0"], ["0", "1"]],
        "1",
        1e-20,
    ),
    "no polynomial": (
        SGD("log(cosh(x)) + x*sin(y)", [["1+exp(x)/4", "sin(y)/2"], ["sin(y)/2", "1+cosh(x*y)"]], epsilon2=0.25),
        ["-tanh(x) - sin(y)", "-x*cos(y)"],
        [["1+exp(x)/4", "sin(y)/2"], ["sin(y)/2", "1+cosh(x*y)"]],
        "1/4",
        1e-20,
    ),
    "a coarse surrogate": (
        diffusion_process(["-tanh(2*x)", "sin(3*y)"], [["1", "0"], ["0", "1+exp(x)"]], ["x", "y"]),
        ["-tanh(2*x)", "sin(3*y)"],
        [["1", "0"], ["0", "1+exp(x)"]],
        "1",
        1e-2,
    ),
}


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("same_box", [True, False])
def test_generator_against_exact_derivatives(name, same_box):
    process, drift, diffusion, scale, relative = GENERATORS[name]
    lower, upper = (-1.0, -0.5), (0.75, 1.0)
    own = (lower, upper) if same_box else ((-1.25, -0.5), (1.0, 1.125))
    rng = np.random.default_rng(6)
    c = rng.normal(size=(4, 5))
    image, error = generator_of(process, lower, upper, relative)(Polynomial.of_floats(*own, [c]))
    assert (image.lower, image.upper) == own
    a = [[f"({scale})*({entry})" for entry in row] for row in diffusion]
    exact = exact_image(drift, a, c, *own)
    points = [(-1, "-1/2"), ("3/4", 1), ("-1/3", "1/7"), ("1/2", "9/10"), (0, 0), ("-7/8", "2/3")]
    misses = []
    for x, y in points:
        value = sympy.N(exact.subs({X: sympy.Rational(x), Y: sympy.Rational(y)}), 60)
        ball = arb(str(value)) + arb(0, 1e-50)
        at = [np.array([arb(fmpq(*map(int, sympy.Rational(t).as_numer_denom())))], dtype=object) for t in (x, y)]
        misses.append(abs(image.at(at)[0] - ball))
        assert not misses[-1] > error + arb(1e-48)
    assert error <= (1e-14 if relative < 1e-10 else 100.0)
    if name == "a coarse surrogate":
        assert max(misses) > 1e-12  # the error is there, so it must count


def test_boxes_that_do_not_hold_the_coefficients_are_refused():
    generator = generator_of(SGD("(x**2+y**2)/2", epsilon2=0.5), (-1.0, -1.0), (1.0, 1.0))
    w = polynomial(np.ones((3, 3)), -1.0, 0.999)
    with pytest.raises(ValueError, match="does not hold"):
        generator(w)


def test_slivers_by_rounding_are_covered():
    """A ball's box is rounded outwards, so it may reach out of the box of w by a unit in the last place."""
    ball = Ball((0.1, 0.3), 0.7)
    process = SGD("(x**2+y**2)/2 + log(cosh(x))", epsilon2=0.5)
    low, high = ball.bounding_box()
    c = np.random.default_rng(8).normal(size=(5, 5))
    w = Polynomial.of_floats(low, high, [c])
    assert corners(ball) != (w.lower, w.upper)
    image, error = generator_of(process, *corners(ball))(w)
    exact = exact_image(["-x-tanh(x)", "-y"], [["1/2", 0], [0, "1/2"]], c, low, high)
    point = (0.1, 0.9)
    value = sympy.N(exact.subs({X: sympy.Rational(point[0]), Y: sympy.Rational(point[1])}), 60)
    assert not abs(image.at(exact_points(np.array([point])))[0] - arb(str(value))) > error + arb(1e-45)


@pytest.mark.parametrize("error", ["nan", "inf", "[0 +/- 0.5]"])
@pytest.mark.parametrize("zero", [True, False])
def test_errors_that_are_not_numbers_are_not_dropped(error, zero):
    """Comparisons with nan are false, with balls that hold zero too: `error != 0` would pass both over."""
    one = Polynomial.of_floats((-1, -1), (1, 1), [np.zeros((1, 1)) if zero else np.ones((1, 1))])
    exact = Coefficient(one, arb(0))
    generator = Generator([Coefficient(one, arb(error)), exact], [exact] * 4)
    found = generator(Polynomial.of_floats((-1, -1), (1, 1), [np.ones((3, 3))]))[1]
    assert not found < 0.4
