"""Bounds of the mean exit time: equal to exact solutions where they should be, and never violated."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spl
from flint import arb
from scipy.integrate import quad

from fpsolve.model.domains import Ball, Box, Interval, Sublevel
from fpsolve.model.process import SGD, Process
from fpsolve.theory.bounds import Bound, all_bounds, paper_bounds, printed_upper, sharp_bounds
from fpsolve.theory.radial import ornstein_uhlenbeck, paper_exponential, paraboloid, steepest_slope


def radial_exact(r: float, radius: float, d: float, rate: float, s: float) -> float:
    """Integrate m' of mathematics.md section 3 numerically."""

    def slope(t: float) -> float:
        z = rate * t * t / (2 * s)
        return t / s * quad(lambda q: q ** (d - 1) * math.exp(z * (1 - q * q)), 0, 1, epsabs=0, epsrel=1e-12)[0]

    return float(quad(slope, r, radius, epsabs=0, epsrel=1e-11)[0])


def finite_differences(process: Process, lo: tuple[float, float], hi: tuple[float, float], n: int = 160) -> np.ndarray:
    """Return u on an (n+1)² grid of a box for diagonal a, by central, without noise upwind differences (about 1e-3)."""
    x, y = np.linspace(lo[0], hi[0], n + 1), np.linspace(lo[1], hi[1], n + 1)
    points = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)
    a, f, index = process.diffusion(points), process.drift(points), np.arange(len(points)).reshape(n + 1, n + 1)
    inner = index[1:-1, 1:-1].ravel()
    position = -np.ones(len(points), dtype=int)
    position[inner] = np.arange(len(inner))
    rows, columns, entries = [np.arange(len(inner))], [np.arange(len(inner))], [np.zeros(len(inner))]
    for axis, (h, step) in enumerate(((x[1] - x[0], n + 1), (y[1] - y[0], 1))):
        for sign in (1, -1):
            drift = np.where(a[inner, axis, axis] > 0, sign * f[inner, axis] / 2, np.maximum(sign * f[inner, axis], 0))
            weight = a[inner, axis, axis] / h**2 + drift / h
            entries[0] = entries[0] + weight
            neighbour = position[inner + sign * step]
            keep = neighbour >= 0
            rows.append(np.flatnonzero(keep))
            columns.append(neighbour[keep])
            entries.append(-weight[keep])
    matrix = sp.csc_matrix((np.concatenate(entries), (np.concatenate(rows), np.concatenate(columns))))
    u = np.zeros(len(points))
    u[inner] = spl.spsolve(matrix, np.ones(len(inner)))
    return np.column_stack([points, u])


def assert_sandwich(bounds: list[Bound], x: np.ndarray, u: np.ndarray, slack: float) -> None:
    for bound in bounds:
        assert bound.verified, bound.reason
        values = bound.evaluate(x)
        if bound.kind == "lower":
            assert np.all(values <= u + slack), (bound.name, np.max(values - u))
        else:
            assert np.all(values >= u - slack), (bound.name, np.max(u - values))


# --- the comparison functions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1.0, 1.3, 2.0, 3.0])
@pytest.mark.parametrize(("rate", "s"), [(0.0, 0.5), (1e-9, 1.0), (1.0, 1.0), (2.0, 0.03)])
def test_radial_function_is_enclosed_tightly(d: float, rate: float, s: float) -> None:
    radius = 0.9
    r = np.array([0.0, 0.3, 0.7, 0.899999])
    low, high = (ornstein_uhlenbeck(r, radius, d, rate, s, side) for side in ("lower", "upper"))  # type: ignore[arg-type]
    exact = np.array([radial_exact(t, radius, d, rate, s) for t in r])
    assert np.all(low < high) and np.all(high <= low * (1 + 2e-12))
    assert np.allclose(low, exact, rtol=1e-9, atol=0)


@pytest.mark.parametrize("z", [0.3, 30.0, 300.0, 690.0, 2000.0])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_radial_function_against_hypergeometric_balls(z: float, d: int) -> None:
    """m(r) = (G(z_R) - G(z_r))/(λd), G(z) = z ₂F₂(1, 1; 2, d/2+1; z), in Arb."""
    radius, s = 1.0, 0.25
    rate = 2 * z * s

    def primitive(value: arb) -> arb:
        return value * value.hypgeom([arb(1), arb(1)], [arb(2), 1 + arb(d) / 2])

    r = np.array([0.0, 0.25, 0.5, 0.99])
    low, high = (ornstein_uhlenbeck(r, radius, d, rate, s, side) for side in ("lower", "upper"))  # type: ignore[arg-type]
    for t, below, above in zip(r, low, high, strict=True):
        scale = arb(rate) / (2 * arb(s))
        exact = (primitive(scale) - primitive(scale * arb(float(t)) ** 2)) / (arb(rate) * d)
        assert not arb(float(below)) > exact and (math.isinf(above) or not arb(float(above)) < exact)
        assert math.isinf(above) or above <= below * (1 + 1e-10)
    assert (z < 700) == bool(np.all(np.isfinite(high)))


def test_radial_function_is_monotone_concave_and_vanishes_outside() -> None:
    r = np.linspace(0, 1.2, 600)
    m = ornstein_uhlenbeck(r, 1.0, 2, 3.0, 0.2, "upper")
    inside = m[r < 1]
    assert np.all(np.diff(inside) < 0) and np.all(np.diff(inside, 2) < 1e-12)
    assert np.all(m[r >= 1] == 0)
    step = 1e-6
    at = ornstein_uhlenbeck(np.array([1 - step]), 1.0, 2, 3.0, 0.2, "upper")[0]
    assert steepest_slope(1.0, 2, 3.0, 0.2) == pytest.approx(at / step, rel=1e-4)


def test_paper_functions_round_to_the_safe_side() -> None:
    y = np.linspace(0, 1, 50)
    for rate in (0.0, 1e-12, 0.7, 40.0):
        values = paper_exponential(y, 1.0, rate, 0.3)
        for t, value in zip(y, values, strict=True):
            q = arb(rate) / (2 * arb(0.3))
            gap = 1 - arb(float(t)) ** 2
            grown = 2 * (q * gap).expm1() * (q * arb(float(t)) ** 2).exp()
            exact = gap / arb(0.3) if rate == 0 else grown / arb(rate)
            assert not arb(float(value)) < exact
            assert not rate or float(value) <= float(exact.upper()) * (1 + 1e-11)
    assert np.isinf(paper_exponential(np.array([0.0]), 1.0, 1e4, 0.3)[0])
    assert np.all(paraboloid(y, 1.0, 3.0) <= (1 - y**2) / 3)


# --- exact solutions -------------------------------------------------------------------------------------------------


def test_in_one_dimension_the_sharp_bounds_are_the_solution() -> None:
    for epsilon2 in (1.0, 0.1, 0.01):
        process = SGD("x**2/2", variables=["x"], epsilon2=epsilon2)
        lower, upper = sharp_bounds(process, Interval(-1.0, 1.0))
        x = np.linspace(-0.99, 0.99, 21)[:, None]
        low, high = lower.evaluate(x), upper.evaluate(x)
        assert lower.verified and upper.verified
        assert np.all(low <= high) and np.allclose(low, high, rtol=1e-11)
        assert low[10] == pytest.approx(radial_exact(0.0, 1.0, 1, 1.0, epsilon2), rel=1e-9)


def test_ornstein_uhlenbeck_disc() -> None:
    process, domain = SGD("(x**2 + y**2)/2", epsilon2=0.2), Ball((0.0, 0.0), 1.0)
    low, high = sharp_bounds(process, domain)
    for constant, value in (("lambda", 1.0), ("sigma", 1.0), ("trace", 2.0)):
        assert low.hypotheses[constant].value == pytest.approx(value, rel=1e-12)
    for constant, value in (("Lambda", 1.0), ("beta", 1.0), ("R_v", 1.0)):
        assert high.hypotheses[constant].value == pytest.approx(value, rel=1e-12)
    x = np.array([[0.0, 0.0], [0.3, 0.4], [-0.6, 0.79]])
    exact = [radial_exact(r, 1.0, 2, 1.0, 0.2) for r in np.linalg.norm(x, axis=1)]
    assert np.allclose(low.evaluate(x), exact, rtol=1e-9)
    assert_sandwich(all_bounds(process, domain), x, np.array(exact), 1e-9)
    paper_low, paper_high = paper_bounds(process, domain)
    assert paper_low.evaluate(x[:1])[0] == pytest.approx(1.25, rel=1e-12)
    assert paper_high.evaluate(x[:1])[0] == pytest.approx(18.87, rel=2e-3)
    assert low.evaluate(x)[0] > paper_low.evaluate(x)[0] and high.evaluate(x)[0] < paper_high.evaluate(x)[0]
    outside = np.array([[1.5, 0.0]])
    assert low.evaluate(outside)[0] == 0


@pytest.mark.parametrize(("quartic", "rel"), [("0", 1e-9), ("1/4", 0.3)])
def test_shifted_and_rotated_problems_have_the_same_bounds(quartic: str, rel: float) -> None:
    """To rounding for a quadratic loss; otherwise as far as the time suffices (boxes do not follow the rotation)."""
    t, c = 0.7, (0.31, -1.73)
    straight = SGD(f"x**2 + y**2/2 + {quartic}*x**4", [["1", "0"], ["0", "1/4"]], epsilon2=0.3)
    X = f"({math.cos(t)!r}*(x-({c[0]})) + {math.sin(t)!r}*(y-({c[1]})))"
    Y = f"({-math.sin(t)!r}*(x-({c[0]})) + {math.cos(t)!r}*(y-({c[1]})))"
    e, f = np.array([math.cos(t), math.sin(t)]), np.array([-math.sin(t), math.cos(t)])
    Q = [[repr(float(q)) for q in row] for row in np.outer(e, e) + np.outer(f, f) / 4]
    turned = SGD(f"{X}**2 + {Y}**2/2 + {quartic}*{X}**4", Q, epsilon2=0.3)
    for one, two in zip(
        all_bounds(straight, Ball((0.0, 0.0), 1.0)), all_bounds(turned, Ball(c, 1.0), budget=3.0), strict=True
    ):
        assert one.verified and two.verified, (one.reason, two.reason)
        at = one.evaluate(np.array([[0.2, 0.1]]))[0], two.evaluate(np.array([c]) + 0.2 * e + 0.1 * f)[0]
        assert at[1] == pytest.approx(at[0], rel=rel if one.name == "sharp" else max(rel, 0.01))


def test_degenerate_disc() -> None:
    """Q = diag(1, 0): started on y = 0 the exit time is that of the interval, and both sharp bounds equal it."""
    process, domain = SGD("(x**2 + y**2)/2", [["1", "0"], ["0", "0"]], epsilon2=0.5), Ball((0.0, 0.0), 1.0)
    lower, upper = sharp_bounds(process, domain)
    assert upper.parameters["direction"] == (1.0, 0.0)
    x = np.array([[0.0, 0.0], [0.5, 0.0]])
    exact = np.array([radial_exact(r, 1.0, 1, 1.0, 0.5) for r in (0.0, 0.5)])
    assert np.allclose(lower.evaluate(x), exact, rtol=1e-9) and np.allclose(upper.evaluate(x), exact, rtol=1e-9)
    assert_sandwich(all_bounds(process, domain), x, exact, 1e-9)


@pytest.mark.parametrize("epsilon2", [0.5, 0.15])
@pytest.mark.parametrize(
    ("loss", "covariance"),
    [
        ("(x**2-1)**2 + y**2", "identity"),
        ("(x**2-1)**2 + y**2 + x*y/3", [["1+x**2/2", "0"], ["0", "0.5+y**2"]]),
        ("log(cosh(2*x)) + exp(y) - y", [["1", "0"], ["0", "0"]]),
    ],
)
def test_bounds_hold_against_finite_differences(loss: str, covariance: object, epsilon2: float) -> None:
    process = SGD(loss, covariance, epsilon2=epsilon2)
    lo, hi = (-1.7, -0.8), (-0.1, 0.9)
    if covariance != "identity" and covariance[1][1] == "0":  # type: ignore[index]
        lo = (-0.7, -0.8)
        hi = (0.8, 0.9)
    grid = finite_differences(process, lo, hi)
    bounds = all_bounds(process, Box(lo, hi), budget=2.0)
    assert_sandwich(bounds, grid[:, :2], grid[:, 2], 2e-3 * grid[:, 2].max())
    values = {(b.name, b.kind): b.evaluate(grid[np.argmax(grid[:, 2])][None, :2])[0] for b in bounds}
    assert values["sharp", "lower"] >= 0.9 * values["paper", "lower"]
    if covariance == "identity":  # elsewhere the time may not suffice for the best constants
        assert values["sharp", "upper"] <= 1.01 * values["paper", "upper"]


def test_double_well_disc() -> None:
    process, domain = SGD("(x**2-1)**2 + y**2", epsilon2=0.2), Ball((-1.0, 0.0), 0.8)
    bounds = all_bounds(process, domain)
    assert all(b.verified for b in bounds)
    at = {(b.name, b.kind): b.evaluate(np.array([[-1.0, 0.0]]))[0] for b in bounds}
    assert at["paper", "lower"] == pytest.approx(0.8, rel=1e-6)  # 0.64/(4 ε²): the whole disc, though L is not convex
    assert at["paper", "lower"] < at["sharp", "lower"] < at["sharp", "upper"] < at["paper", "upper"]
    assert at["sharp", "upper"] == pytest.approx(radial_exact(0.0, 0.8, 1, 2.0, 0.2), rel=1e-6)  # along y


# --- the paper's statements ------------------------------------------------------------------------------------------


def test_equation_8_as_printed_is_not_an_upper_bound() -> None:
    process, domain = SGD("x**2/2", variables=["x"], epsilon2=1.0), Interval(-1.0, 1.0)
    printed = printed_upper(process, domain, ball_radius=0.9)
    exact = radial_exact(0.0, 1.0, 1, 1.0, 1.0)
    assert exact == pytest.approx(0.5957, abs=1e-4)
    assert printed.evaluate(np.array([[0.0]]))[0] == pytest.approx(0.2988, abs=1e-4)
    assert printed.evaluate(np.array([[0.0]]))[0] < exact
    assert not printed.verified and "not an upper bound" in printed.reason
    assert paper_bounds(process, domain)[1].evaluate(np.array([[0.0]]))[0] > exact


def test_paper_examples_1_to_3() -> None:
    quartic, disc = SGD("(x**2+y**2)**2/4", epsilon2=1.0), Ball((0.0, 0.0), 1.5)
    lower, upper = paper_bounds(quartic, disc, budget=4.0)
    assert lower.verified and upper.verified
    # λ = 0 at best: known only up to a tiny defect, which the bound pays for
    assert lower.evaluate(np.zeros((1, 2)))[0] == pytest.approx(1.5**2 / 4, rel=0.01)
    assert upper.hypotheses["Lambda"].value < 1.5**2
    exponential, disc = SGD("exp(x) + y**2/2", epsilon2=1.0), Ball((0.0, 0.0), 1.0)
    lower, upper = paper_bounds(exponential, disc)
    assert upper.verified
    assert not lower.verified and "does not apply" in lower.reason  # no minimum in the disc
    for height in (2.0, 4.0):
        strip = SGD("x**2*y**2/2", epsilon2=1.0)
        upper = sharp_bounds(strip, Box((-1.0, -height), (1.0, height)))[1]
        assert upper.verified and upper.parameters["direction"] == (1.0, 0.0)
        assert upper.hypotheses["Lambda"].value == pytest.approx(height**2, rel=2e-3)


# --- when a bound does not apply -------------------------------------------------------------------------------------


def test_reflecting_parts_leave_only_the_lower_bound() -> None:
    process = SGD("(x**2 + y**2)/2", epsilon2=0.2)
    lower, upper = paper_bounds(process, Box((-1.0, -1.0), (1.0, 1.0), ("top",)))
    assert lower.verified
    assert not upper.verified and "reflecting part (top)" in upper.reason
    assert np.isinf(upper.evaluate(np.zeros((1, 2)))[0])


def test_without_noise_nothing_applies() -> None:
    process = SGD("(x**2 + y**2)/2", [["0", "0"], ["0", "0"]], epsilon2=0.2)
    for bound in all_bounds(process, Ball((0.0, 0.0), 1.0)):
        assert not bound.verified and bound.reason
        assert bound.evaluate(np.zeros((1, 2)))[0] == (0.0 if bound.kind == "lower" else np.inf)


def test_without_an_enclosure_nothing_is_verified() -> None:
    process = SGD("(x**2 + y**2)/2", epsilon2=0.2)

    class Blind:
        """The same landscape without balls."""

        def __getattr__(self, name: str) -> object:
            return getattr(process.landscape, name)

        def enclosure(self) -> None:
            return None

    for bound in all_bounds(replace(process, landscape=Blind()), Ball((0.0, 0.0), 1.0)):  # type: ignore[arg-type]
        assert not bound.verified and bound.reason == "no rigorous enclosure of loss and covariance"
    kink = SGD("abs(x) + y**2", epsilon2=0.2)
    assert all("enclosure" in b.reason or b.reason for b in all_bounds(kink, Ball((0.0, 0.0), 1.0)) if not b.verified)


def test_on_a_hill_the_paper_has_no_lower_bound() -> None:
    hill = SGD("-(x**2 + y**2)", epsilon2=0.2)
    lower, upper = paper_bounds(hill, Ball((0.0, 0.0), 1.0))
    assert not lower.verified and "does not apply" in lower.reason
    assert upper.verified and upper.hypotheses["Lambda"].value == 0.0
    sharp = sharp_bounds(hill, Ball((0.0, 0.0), 1.0))[0]
    assert sharp.verified and 0 < sharp.evaluate(np.zeros((1, 2)))[0] < 1.25


def test_a_nonconvex_loss_reduces_the_ball() -> None:
    process = SGD("(x**2-1)**2 + y**2", epsilon2=0.2)
    lower = paper_bounds(process, Ball((0.0, 0.0), 2.2))[0]
    assert lower.verified and abs(abs(lower.parameters["center"][0]) - 1) < 1e-9
    assert 0.85 < lower.parameters["radius"] < 1.0  # x(x-1) > 0 fails at x = 0, at distance 1 from the minimum


def test_a_minimum_known_approximately_is_enclosed() -> None:
    process = SGD("x**4/4 - 0.3*x**2/2 + (y - x/3)**2", epsilon2=0.01)
    lower, upper = sharp_bounds(process, Ball((0.55, 0.18), 0.3))
    assert lower.verified and upper.verified
    assert 0 < lower.parameters["center_radius"] < 1e-14
    assert abs(lower.parameters["center"][0] - math.sqrt(0.3)) < 1e-12


def test_sublevel_set_of_the_loss() -> None:
    process = SGD("(x**2-1)**2 + y**2 + x*y/3", epsilon2=0.2)
    domain = Sublevel(process.landscape, 0.6, (-1.0, 0.0), (-2.0, -2.0), (2.0, 2.0))  # type: ignore[arg-type]
    lower, upper = sharp_bounds(process, domain, budget=4.0)
    assert lower.verified and upper.verified, (lower.reason, upper.reason)
    # u is at least that of the largest disc in Ω and at most that of a box around it
    big = all_bounds(process, Box((-1.6, -1.1), (-0.2, 1.4)), ("sharp",))[1]
    x = np.array([[-1.0, 0.15]])
    assert 0 < lower.evaluate(x)[0] < upper.evaluate(x)[0] <= 1.1 * big.evaluate(x)[0]


def test_bounds_are_plain_data() -> None:
    process, x = SGD("(x**2 + y**2)/2", epsilon2=0.2), np.array([[0.1, 0.2]])
    for bound in all_bounds(process, Ball((0.0, 0.0), 1.0), ("paper", "sharp", "printed")):
        again = pickle.loads(pickle.dumps(bound))
        assert again == bound and again.evaluate(x)[0] == bound.evaluate(x)[0]
    with pytest.raises(ValueError, match="unknown kind"):
        all_bounds(process, Ball((0.0, 0.0), 1.0), ("best",))


def test_a_small_budget_gives_valid_wider_bounds() -> None:
    process, domain = SGD("(x**2-1)**2 + y**2 + x*y/3", epsilon2=0.3), Ball((-1.0, 0.1), 0.6)
    x = np.array([[-1.0, 0.1]])
    wide, tight = sharp_bounds(process, domain, budget=0.01), sharp_bounds(process, domain, budget=2.0)
    assert wide[0].evaluate(x)[0] <= tight[0].evaluate(x)[0] * (1 + 1e-9)
    assert wide[1].evaluate(x)[0] >= tight[1].evaluate(x)[0] * (1 - 1e-9)
