"""Brackets of star-shaped components: proved, narrow, and attacks that must fail."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from flint import arb, arb_poly

from fpsolve.model.domains import Sublevel
from fpsolve.model.expressions import Formula
from fpsolve.model.process import formula_landscape
from fpsolve.theory.certified.series import precision, range_along
from fpsolve.theory.certified.star import NOT_FILLED, StarBracket, sector_points, star_bracket, star_failure

WELL = "(x**2-1)**2+y**2"


def level_set(
    loss: str, below: float, point: tuple[float, ...], reach: float = 2.0, upper: tuple[float, ...] | None = None
) -> Sublevel:
    names = ("x", "y", "z")[: len(point)]
    high = upper or tuple(c + reach for c in point)
    return Sublevel(formula_landscape(loss, "identity", names), below, point, tuple(c - reach for c in point), high)


def found(domain: Sublevel, sectors: int = 24) -> StarBracket:
    bracket = star_bracket(domain, sectors)
    assert isinstance(bracket, StarBracket), bracket
    return bracket


def well() -> Sublevel:
    return level_set(WELL, 0.5, (-1.0, 0.0), upper=(0.0, 2.0))


@pytest.mark.parametrize(
    ("loss", "below", "point", "width"),
    [
        (WELL, 0.5, (-1.0, 0.0), 1e-8),
        ("(x**2+y**2)/2", 0.5, (0.0, 0.0), 1e-13),
        ("(x**2+y**2)/2", 0.5, (0.3, 0.4), 1e-10),
        ("log(cosh(3*x))+y**2+sin(x*y)/5", 1.0, (0.0, 0.0), 1e-7),
        ("x**2+100*y**2", 1.0, (0.0, 0.0), 1e-6),
        ("exp(x)-x+y**4+y**2*sqrt(2+x)", 2.0, (0.0, 0.0), 1e-6),
        ("(x**2-1)**2", 0.5, (-1.0,), 1e-13),
        ("exp(x)-x", 2.0, (0.0,), 1e-13),
    ],
)
def test_brackets_are_narrow_and_right(loss: str, below: float, point: tuple[float, ...], width: float) -> None:
    domain = level_set(loss, below, point, upper=(0.0, 2.0)[: len(point)] if "-1)" in loss else None)
    bracket = found(domain)
    assert 0 < bracket.width <= width
    assert bracket.inner < 1 < bracket.outer
    rng = np.random.default_rng(1)
    t = rng.uniform(-1, 1, 50)
    inside = sector_points(bracket, t, rng.uniform(0, bracket.inner, 50)).reshape(-1, len(point))
    assert np.all(domain.landscape.loss(inside) < below + 1e-14)
    assert np.mean(domain.contains(inside)) > 0.99
    outside = sector_points(bracket, t, rng.uniform(1 + 1e-6, 1.01, 50)).reshape(-1, len(point))
    assert np.all(domain.landscape.loss(outside) > below)
    on_it = sector_points(bracket, t).reshape(-1, len(point))
    assert np.allclose(domain.landscape.loss(on_it), below, atol=2e3 * width)


def test_more_arcs_are_narrower() -> None:
    widths = [found(well(), sectors).width for sectors in (8, 16, 40)]
    assert widths[0] > 100 * widths[1] > 10_000 * widths[2]


def test_joints_are_exact_and_the_file_is_too() -> None:
    bracket = found(well())
    for k, arc in enumerate(bracket.sectors):
        assert arc[0] == bracket.sectors[k - 1][-1]
    entry = json.loads(json.dumps(bracket.to_json()))
    assert StarBracket.from_json(entry, bracket.center) == bracket
    assert star_failure(well(), StarBracket.from_json(entry, bracket.center)) == ""


def test_points_of_the_curve() -> None:
    bracket = found(well())
    ends = sector_points(bracket, np.array([-1.0, 1.0]))
    assert np.allclose(ends[:, 0], [arc[0] for arc in bracket.sectors], atol=1e-15)
    assert np.allclose(ends[:, 1], [arc[-1] for arc in bracket.sectors], atol=1e-15)
    assert np.allclose(sector_points(bracket, np.array([0.3]), 0.0), bracket.center)
    line = found(level_set("x**2", 1.0, (0.0,)))
    assert sector_points(line, np.array([0.0]), 0.5).ravel() == pytest.approx([-0.5, 0.5])


def test_what_has_no_bracket() -> None:
    def reason(domain: Sublevel) -> str:
        answer = star_bracket(domain)
        assert isinstance(answer, str)
        return answer

    assert "box" in reason(level_set(WELL, 0.5, (-1.0, 0.0), upper=(-0.9, 2.0)))
    assert "box" in reason(level_set("x**2+y", 1.0, (0.0, 0.0)))  # unbounded
    assert "star-shaped" in reason(level_set(WELL, 1.2, (-1.0, 0.0), reach=3.0))  # both wells
    assert "star-shaped" in reason(level_set("10*(y-x**2)**2+x**2/10", 0.5, (0.0, 0.0), reach=6.0))  # bent
    assert "three" in reason(level_set("x**2+y**2+z**2", 1.0, (0.0, 0.0, 0.0)))
    reason(level_set("(x**2+y**2-1)**2", 0.5, (1.0, 0.0)))  # a ring
    reason(level_set("abs(x)+abs(y)", 1.0, (0.0, 0.0)))  # corners


def test_attacks_on_a_bracket() -> None:
    domain, good = well(), found(well())
    assert star_failure(domain, good) == ""
    gap = good.width
    assert star_failure(domain, replace(good, inner=1 - 1e-16 * 2, outer=good.outer))
    assert star_failure(domain, replace(good, outer=1 + 3e-16))
    assert star_failure(domain, replace(good, inner=1 + gap))
    assert star_failure(domain, replace(good, inner=-0.5))
    assert star_failure(domain, replace(good, outer=math.inf))
    assert star_failure(domain, replace(good, inner=math.nan))
    assert star_failure(domain, replace(good, outer=3.0))  # leaves the box
    assert star_failure(domain, replace(good, sectors=good.sectors[:-1]))  # open
    assert star_failure(domain, replace(good, sectors=good.sectors * 2))  # winds twice
    assert star_failure(domain, replace(good, sectors=tuple(arc[::-1] for arc in good.sectors[::-1])))  # clockwise
    assert star_failure(domain, replace(good, center=(-1.0, 1e-9)))
    assert star_failure(level_set(WELL, 0.5 + 1e-7, (-1.0, 0.0), upper=(0.0, 2.0)), good)
    assert star_failure(level_set(WELL, 0.5 - 1e-7, (-1.0, 0.0), upper=(0.0, 2.0)), good)
    assert star_failure(level_set(WELL + "+1e-7*x", 0.5, (-1.0, 0.0), upper=(0.0, 2.0)), good)


@pytest.mark.parametrize(("arc", "point"), [(0, 3), (5, 4), (11, 7)])
def test_a_moved_control_point_is_noticed(arc: int, point: int) -> None:
    good = found(well())
    for shift in (1e-7, -1e-7):
        arcs = [list(points) for points in good.sectors]
        x, y = arcs[arc][point]
        arcs[arc][point] = (x + shift * (x + 1), y + shift * y)
        assert star_failure(well(), replace(good, sectors=tuple(tuple(points) for points in arcs)))


def test_islands_inside_are_found() -> None:
    circle = found(level_set("x**2+y**2", 1.0, (0.0, 0.0)))
    for width in (50, 2000, 20000):
        bump = f"2*exp(-{width}*((x-0.5)**2+(y-0.1)**2))*(1-x**2-y**2)"  # zero on the circle
        assert star_failure(level_set(f"x**2+y**2+{bump}", 1.0, (0.0, 0.0)), circle) == NOT_FILLED
    kink = "abs(x**2+y**2-0.09)*(1-x**2-y**2)/10"  # on a circle inside: no second derivative, yet no obstacle
    assert star_failure(level_set(f"x**2+y**2+{kink}", 1.0, (0.0, 0.0)), circle) == ""
    line = found(level_set("x**2", 1.0, (0.0,)))
    assert star_failure(level_set("x**2+2*exp(-1e5*(x-0.4)**2)*(1-x**2)", 1.0, (0.0,)), line) == NOT_FILLED


@pytest.mark.parametrize(
    "text", ["x**3-y*x", "exp(x*y)", "tanh(2*x+y)", "log(3+x)/(2+y)", "sqrt(2+x)*erf(y)", "abs(3+x)"]
)
def test_range_along_a_curve(text: str) -> None:
    formula = Formula.parse(text, ("x", "y"))
    curve = [arb_poly([0.1, 0.5, -0.25]), arb_poly([0.2, -0.3, 0.0, 0.125])]
    t = np.linspace(0.375, 0.625, 41)
    x = np.stack([0.1 + 0.5 * t - 0.25 * t**2, 0.2 - 0.3 * t + 0.125 * t**3], axis=1)
    values = formula(x)
    with precision(80, 13):
        ball = range_along(formula, curve, 0.5, 0.125, 12)
    low, high = float(ball.lower()), float(ball.upper())
    assert low <= values.min() + 1e-15
    assert values.max() - 1e-15 <= high
    assert high - low <= 3 * (values.max() - values.min()) + 1e-3


def test_series_refuse_kinks_and_poles() -> None:
    with precision(80, 13):
        for text in ("abs(x)", "1/x", "log(x)", "sqrt(x)", "tan(2*x)", "abs(x)*x"):
            ball = range_along(Formula.parse(text, ("x",)), [arb_poly([0, 1])], 0.0, 1.0, 12)
            assert not ball.is_finite()
        assert range_along(Formula.parse("x/x", ("x",)), [arb_poly([0, 1])], 0.0, 1.0, 12) == arb(1)
