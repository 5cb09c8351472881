"""Proofs that a candidate bounds the mean exit time: exact solutions, spoilt ones, reflecting and unreachable sides."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from flint import arb, ctx
from reference import ball_ou_met, interval_met, interval_met_one_sided, product_survival

from fpsolve.model.domains import Ball, Box, Interval, Sublevel
from fpsolve.model.process import SGD, Process, diffusion_process, formula_landscape
from fpsolve.theory.balls import above, below
from fpsolve.theory.certified.barrier import Barrier, terms, total
from fpsolve.theory.certified.coefficients import coefficients_of
from fpsolve.theory.certified.generator import Coefficient, Generator
from fpsolve.theory.certified.interval_solve import solve_interval
from fpsolve.theory.certified.least_squares import least_squares
from fpsolve.theory.certified.polynomial import Polynomial, tensor
from fpsolve.theory.certified.proof import Effort, prove
from fpsolve.theory.certified.reflection import corrected
from fpsolve.theory.certified.setting import Setting
from fpsolve.theory.certified.star import star_bracket
from fpsolve.theory.certified.state import Best
from fpsolve.theory.certified.surrogate import surrogates
from fpsolve.theory.certified.task import Candidate, Task, corners

FINE = Effort(1e-9, math.inf)


@pytest.fixture(autouse=True)
def bits() -> Iterator[None]:
    with ctx.workprec(256):
        yield


def ou(epsilon2: float, d: int = 2, covariance="identity") -> Process:
    names = ("x", "y", "z")[:d]
    return SGD(" + ".join(f"{v}**2/2" for v in names), covariance, names, epsilon2=epsilon2)


def setting(process: Process, domain, unreachable: tuple[str, ...] = ()) -> Setting:
    low, high = corners(domain)
    found = surrogates(coefficients_of(process), low, high, relative=1e-20, budget_seconds=10.0)

    def coefficient(s):
        return Coefficient(Polynomial(low, high, tensor(s.coefficients, tuple(s.shape))), s.error)

    generator = Generator([coefficient(s) for s in found.drift], [coefficient(s) for s in found.diffusion])
    absorbing = tuple(n for n in domain.names if n not in unreachable and n not in domain.reflecting)
    bracket = star_bracket(domain) if isinstance(domain, Sublevel) else None
    assert not isinstance(bracket, str), bracket
    return Setting(domain, absorbing, generator, bracket)


def task(process: Process, domain, unreachable: tuple[str, ...] = ()) -> Task:
    low, high = domain.bounding_box()
    return Task(process, domain, unreachable, np.array([(low + high) / 2]))


def enclosure(proved: dict[str, Barrier], x) -> tuple[float, float]:
    """Return the proved bounds at a point as floats, the lower one rounded down."""
    low = below(proved["lower"].at(x)) if "lower" in proved else 0.0
    high = above(proved["upper"].at(x)) if "upper" in proved else math.inf
    assert low <= high
    return low, high


def holds(proved: dict[str, Barrier], x, exact: float, slack: float = 1e-11) -> float:
    """Assert that the exact value is inside (up to its own error); return the relative width."""
    low, high = enclosure(proved, x)
    assert low <= exact * (1 + slack) and exact * (1 - slack) <= high
    return (high - low) / exact


# --- exact solutions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 3])
def test_brownian_motion_in_a_ball_is_exact(d):
    """u = (1 - |x|²)/(2dε²) = -Σ T_2(x_i)/(4dε²) + (1 - d/2)/(2dε²)."""
    epsilon2 = 0.5
    process = diffusion_process(
        ["0"] * d, [["1/2" if i == j else "0" for j in range(d)] for i in range(d)], ["x", "y", "z"][:d]
    )
    c = np.zeros((3,) * d)
    c.flat[0] = (1 - d / 2) / (2 * d * epsilon2)
    for axis in range(d):
        c[tuple(2 * int(k == axis) for k in range(d))] = -1 / (4 * d * epsilon2)
    proved = prove(
        setting(process, Ball((0.0,) * d, 1.0)), Candidate((-1.0,) * d, (1.0,) * d, (c,)), Effort(1e-12, math.inf)
    )
    assert set(proved) == {"lower", "upper"}
    for x in ((0.0,) * d, (0.5,) + (0.25,) * (d - 1)):
        assert holds(proved, x, (1 - math.hypot(*x) ** 2) / (2 * d * epsilon2), 1e-15) < 1e-13


@pytest.mark.parametrize(("epsilon2", "degree", "width"), [(1.0, 40, 1e-30), (0.1, 60, 1e-14), (0.02, 110, 1e-10)])
def test_interval_contains_the_exact_time(epsilon2, degree, width):
    process, domain = ou(epsilon2, 1), Interval(-1.0, 1.0)
    with ctx.workprec(512):
        proved = prove(setting(process, domain), solve_interval(task(process, domain), degree, 512), FINE)
    for x in (-0.75, 0.0, 0.5):
        assert holds(proved, (x,), float(interval_met(lambda t: t**2 / 2, epsilon2, -1, 1, x))) <= width + 1e-15
        low, high = (proved[kind].at((x,)) for kind in ("lower", "upper"))
        assert low < high and (high - low) / low < width


DISC = Ball((0.0, 0.0), 1.0)


def disc_candidate() -> Candidate:
    return least_squares(task(ou(0.2), DISC), 22).candidate


@pytest.fixture(scope="module")
def disc() -> tuple[Setting, Candidate]:
    with ctx.workprec(256):
        return setting(ou(0.2), DISC), disc_candidate()


def exact_disc(x) -> float:
    return float(ball_ou_met(math.hypot(*x), 2, 1, 0.2, 1))


INSIDE = [(0.0, 0.0), (0.3, 0.4), (-0.5, 0.7)]


def test_disc_contains_the_exact_time(disc):
    proved = prove(*disc, FINE)
    for x in INSIDE:
        assert holds(proved, x, exact_disc(x)) < 1e-8


@pytest.mark.parametrize("kind", ["lower", "upper"])
def test_one_sided_candidates_are_proved_on_their_side_only(disc, kind):
    """The proof on cells agrees with Ehlich and Zeller's up to the tolerance."""
    both = prove(*disc, FINE)
    proved = prove(disc[0], replace(disc[1], kind=kind), Effort(1e-6, math.inf))
    assert set(proved) == {kind}
    for x in INSIDE:
        holds(proved, x, exact_disc(x))
        assert abs(proved[kind].at(x) - both[kind].at(x)) < 1e-5


# --- spoilt candidates -----------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [(0, 0), (2, 0), (2, 2), (0, 6), (4, 8)])
@pytest.mark.parametrize("factor", [1 + 1e-3, 1 - 1e-3])
def test_perturbed_coefficients_give_wider_bounds_that_hold(disc, index, factor):
    part = disc[1].coefficients[0].copy()
    part[index] *= factor
    proved = prove(disc[0], replace(disc[1], coefficients=(part, *disc[1].coefficients[1:])), FINE)
    widths = [holds(proved, x, exact_disc(x)) for x in INSIDE]
    change = abs(disc[1].coefficients[0][index]) * 1e-3
    assert max(widths) > 0.1 * change
    assert max(widths) < 1.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", ["both", "lower", "upper"])
def test_coefficients_that_are_not_finite_prove_nothing(disc, bad, kind):
    part = disc[1].coefficients[0].copy()
    part[2, 0] = bad
    soon = Effort(1e-3, time.monotonic() + 0.2)
    assert prove(disc[0], Candidate(disc[1].lower, disc[1].upper, (part,), kind), soon) == {}


@pytest.mark.parametrize("bad", ["nan", "inf"])
def test_coefficients_of_the_process_that_are_not_finite_prove_nothing(disc, bad):
    known = disc[0].generator
    worse = [replace(known.drift[0], error=arb(bad)), known.drift[1]]
    assert prove(replace(disc[0], generator=Generator(worse, known.diffusion)), disc[1], FINE) == {}
    p = known.drift[0].polynomial
    values = p.coefficients.copy()
    values.flat[-1] = arb(bad)
    worse = [Coefficient(Polynomial(p.lower, p.upper, values), arb(0)), known.drift[1]]
    assert prove(replace(disc[0], generator=Generator(worse, known.diffusion)), disc[1], FINE) == {}


def test_errors_of_the_coefficients_count(disc):
    """m and M move by e sup|∂w|."""
    known = disc[0].generator
    worse = Generator([replace(known.drift[0], error=arb(1e-4)), known.drift[1]], known.diffusion)
    width, wider = (
        holds(prove(replace(disc[0], generator=g), disc[1], FINE), (0.0, 0.0), exact_disc((0, 0)))
        for g in (known, worse)
    )
    assert width < 1e-8 and 1e-4 < wider < 0.1


def test_functions_with_the_wrong_sign_prove_nothing(disc):
    negative = replace(disc[1], coefficients=tuple(-c for c in disc[1].coefficients))
    proved = prove(disc[0], negative, FINE)
    assert "upper" not in proved
    assert proved == {} or proved["lower"].at((0.0, 0.0)) == 0
    assert "upper" not in prove(disc[0], replace(disc[1], coefficients=(np.zeros((3, 3)),)), FINE)


def test_a_candidate_of_another_problem_is_weak_but_not_wrong(disc):
    """Of the disc of radius 1 in that of radius 1.2 and 0.8, and of ε² = 0.2 for ε² = 0.3."""
    for radius, epsilon2 in ((0.8, 0.2), (1.0, 0.3), (1.0, 0.15)):
        proved = prove(setting(ou(epsilon2), Ball((0.0, 0.0), radius)), disc[1], FINE)
        for x in ((0.0, 0.0), (0.3, 0.4)):
            exact = float(ball_ou_met(math.hypot(*x), 2, radius, epsilon2, 1))
            assert holds(proved, x, exact) > 0.05
    with pytest.raises(ValueError, match="does not hold"):
        prove(setting(ou(0.2), Ball((0.0, 0.0), 1.2)), disc[1], FINE)


# --- barriers as functions -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lower", "upper"])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_barriers_in_floating_point_stay_on_the_safe_side(kind, count, d):
    rng = np.random.default_rng(d)
    shape = (40, 12, 6)[:d] if d < 3 else (7, 6, 5)
    parts = tuple(rng.normal(size=shape) * 1e-16**k for k in range(count))
    lower, upper = (-1.0, 0.2, 3.0)[:d], (0.5, 0.9, 3.5)[:d]
    barrier = Barrier(kind, lower, upper, parts, (1.0, 1e-3, -1e-20), 200.0 if kind == "upper" else -200.0)
    x = np.concatenate([rng.uniform(lower, upper, (60, d)), np.where(rng.random((20, d)) < 0.5, lower, upper)])
    for point, value in zip(x, barrier(x), strict=True):
        exact = barrier.at(tuple(point))
        gap = (arb(float(value)) - exact) if kind == "upper" else exact - arb(float(value))
        assert gap >= 0 and gap < 1e-9 * abs(exact)


@pytest.mark.parametrize("lowest", [1023.3, np.nextafter(1023.3, 2000), 0.1, -1e6 / 3])
@pytest.mark.parametrize("kind", ["lower", "upper"])
def test_barriers_far_from_the_origin(lowest, kind):
    """x is known to 1e-13 of the length of the box there, but the bound is to hold at that x exactly."""
    lower, upper = float(lowest), float(lowest) + 1.6
    c = np.zeros(41)
    c[40] = 1.0
    barrier = Barrier(kind, (lower,), (upper,), (c,), (1.0,), 0.0 if kind == "upper" else -5.0)
    x = np.linspace(upper - 1e-3, upper, 80)
    for point, value in zip(x, barrier(x[:, None]), strict=True):
        exact = barrier.at((point,))
        assert arb(float(value)) >= exact if kind == "upper" else arb(float(value)) <= exact


@pytest.mark.parametrize("kind", ["lower", "upper"])
def test_barriers_beyond_their_box(kind):
    """A level set in one dimension reaches out of the box that was traced."""
    barrier = Barrier(kind, (0.0,), (1.0,), (np.array([0.5, -0.25, 0.125, 1.0]),), (1.0,), 0.0)
    x = np.array([-1e-3, -1e-15, 0.0, 1.0, np.nextafter(1.0, 2.0), 1.0 + 1e-12, 1.01])
    for point, value in zip(x, barrier(x[:, None]), strict=True):
        exact = barrier.at((point,))
        gap = (arb(float(value)) - exact) if kind == "upper" else exact - arb(float(value))
        assert gap >= 0 and gap < 1e-12


def test_lower_barriers_are_cut_at_zero():
    barrier = Barrier("lower", (0.0,), (1.0,), (np.array([1.0, 2.0]),), (1.0,), 0.0)
    assert barrier.at((0.0,)) == 0 and barrier(np.array([[0.0]]))[0] == 0
    assert barrier.at((1.0,)) == 3


def test_sums_of_floats_bound_a_ball():
    with ctx.workprec(300):
        value = arb.pi() * arb(10) ** 9
        for up in (True, False):
            found = terms(value, up)
            gap = total(found) - value if up else value - total(found)
            assert gap >= 0 and gap < 1e-45
        wide = arb(1, 0.25)
        assert total(terms(wide, True)) >= 1.25 and total(terms(wide, False)) <= 0.75


def test_widths_have_more_digits_than_floats():
    best = Best((0.0,))
    assert best.width == 2.0
    assert best.improve("upper", arb(1) + arb(10) ** -30, "certified") and best.improve("lower", arb(1), "certified")
    assert 0.999e-30 < best.width < 1.001e-30
    assert arb(best.width) >= 2 * (best.upper - best.lower) / (best.upper + best.lower)
    assert not best.improve("upper", arb(2), "paper") and not best.improve("lower", arb("nan"), "paper")
    found = best.enclosure()
    assert found.lower <= 1 < found.upper and (found.lower_from, found.upper_from) == ("certified", "certified")


# --- reflecting sides ------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
def test_interval_with_a_reflecting_end(side):
    process = ou(0.1, 1)
    domain = Interval(0.2, 1.0, (side,)) if side == "left" else Interval(-1.0, -0.2, (side,))
    where = setting(process, domain)
    candidate = solve_interval(task(process, domain), 50, 256)
    for x in (domain.lower + 0.1, domain.lower + 0.5):
        exact = float(interval_met_one_sided(lambda t: t**2 / 2, 0.1, domain.lower, domain.upper, x, side))
        assert holds(prove(where, candidate, FINE), (x,), exact) < 1e-12
        # a slope at the reflecting end costs width, not truth
        for sign in (1, -1):
            tilted = replace(candidate, coefficients=(*candidate.coefficients, np.array([0, 1e-4 * sign] + [0] * 49)))
            assert 1e-5 < holds(prove(where, tilted, FINE), (x,), exact) < 0.1
    # forgotten reflection would be wrong: the absorbing interval's time is much shorter
    both = solve_interval(task(process, Interval(domain.lower, domain.upper)), 50, 256)
    assert holds(prove(where, both, FINE), (x,), exact) > 0.1


def test_quarter_of_a_square_with_reflecting_sides():
    """L even: the process in [0, 1]², reflected at x = 0 and y = 0, is (|X|, |Y|) of the process in [-1, 1]²."""
    process, domain = ou(1.0), Box((0.0, 0.0), (1.0, 1.0), ("left", "bottom"))
    where, exact = setting(process, domain), product_survival
    lines = setting(process, Box((0.0, -1.0), (1.0, 1.0), ("left", "bottom", "top")))
    line = solve_interval(task(ou(1.0, 1), Interval(0.0, 1.0, ("left",))), 30, 256)
    # nothing leaves through y = ±1: the 1D time
    flat = replace(line, lower=(0.0, -1.0), upper=(1.0, 1.0), coefficients=tuple(c[:, None] for c in line.coefficients))
    time_1d = float(interval_met_one_sided(lambda t: t**2 / 2, 1.0, 0, 1, 0.5))
    assert holds(prove(lines, flat, FINE), (0.5, 0.3), time_1d) < 1e-12
    whole = least_squares(task(process, Box((-1.0, -1.0), (1.0, 1.0))), 18).candidate
    moved = Polynomial.of_floats(whole.lower, whole.upper, whole.coefficients).moved((0.0, 0.0), (1.0, 1.0))
    quarter = Candidate((0.0, 0.0), (1.0, 1.0), (moved.coefficients.astype(float),))
    proved = prove(where, quarter, FINE)
    low, high = enclosure(proved, (0.25, 0.5))
    full_low, full_high = enclosure(prove(setting(process, Box((-1.0, -1.0), (1.0, 1.0))), whole, FINE), (0.25, 0.5))
    assert max(low, full_low) <= min(high, full_high) and high - low < 0.05
    assert exact is product_survival


def test_oblique_conormals():
    """Q is full, so reflection is along a n: what is proved is (a n)·∇w >= 0 or <= 0, and w changes by little."""
    process = ou(1.0, 2, [["1", "1/2"], ["1/2", "1"]])
    domain = Box((0.0, -1.0), (1.0, 1.0), ("left",))
    where = setting(process, domain)
    for c in (np.array([[0.0, 0.0], [1e-3, 0.0]]), np.array([[0.0, 1e-3]])):  # a slope across, and one along the side
        candidate = Candidate(*corners(domain), (np.pad(c, ((0, 3 - c.shape[0]), (0, 1))),))
        for kind, sign in (("upper", 1), ("lower", -1)):
            for factor in (1, -1):
                tilted = replace(candidate, coefficients=(factor * candidate.coefficients[0],))
                better = corrected(where, tilted, kind)
                assert better is not None and better.kind == kind
                w = Polynomial.of_floats(better.lower, better.upper, better.coefficients)
                side = [tensor([arb(0)] * 9, (9,)), tensor([arb(y) / 4 for y in range(-4, 5)], (9,))]
                flux = -w.derivative(0).at(side) - w.derivative(1).at(side) / 2
                assert all(sign * v >= 0 for v in flux)
                change = sum(np.abs(part).sum() for part in better.coefficients[1:])
                # (a n)·∇w < 0 is right for lower bounds as it is
                assert change < 1e-11 if sign * factor < 0 else 1e-4 < change < 1e-2


def test_a_degenerate_conormal_proves_nothing():
    """Q = diag(1, 0): a n = 0 on y = ±1, where the process is not pushed back by any reflection."""
    process = ou(0.5, 2, [["1", "0"], ["0", "0"]])
    domain = Box((-1.0, -1.0), (1.0, 1.0), ("bottom",))
    where = setting(process, domain, ("top",))
    line = solve_interval(task(ou(0.5, 1), Interval(-1.0, 1.0)), 30, 256)
    flat = replace(
        line, lower=(-1.0, -1.0), upper=(1.0, 1.0), coefficients=tuple(c[:, None] for c in line.coefficients)
    )
    assert corrected(where, flat, "upper") is None and corrected(where, flat, "lower") is None
    assert prove(where, flat, FINE) == {}
    vanishing = ou(0.5, 2, [["1", "0"], ["0", "1+y"]])  # only on the side
    assert corrected(setting(vanishing, domain, ("top",)), flat, "upper") is None


def test_a_slope_that_is_not_repaired_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is added, the condition is proved for the function that is returned."""
    process = ou(1.0, 2, [["1", "1/2"], ["1/2", "1"]])
    where = setting(process, Box((0.0, -1.0), (1.0, 1.0), ("left",)))
    candidate = Candidate(*corners(where.domain), (np.array([[0.0, 0.0], [1e-3, 0.0]]),))
    assert corrected(where, candidate, "upper") is not None
    monkeypatch.setattr("fpsolve.theory.certified.reflection.SPARE", 0.0)
    assert corrected(where, candidate, "upper") is None


# --- unreachable sides -----------------------------------------------------------------------------------


def test_sides_without_a_condition():
    """Q = diag(1, 0): only x leaves; with a condition on all sides the same function proves much less."""
    process, square = ou(0.5, 2, [["1", "0"], ["0", "0"]]), Box((-1.0, -1.0), (1.0, 1.0))
    line = solve_interval(task(ou(0.5, 1), Interval(-1.0, 1.0)), 30, 256)
    flat = replace(
        line, lower=(-1.0, -1.0), upper=(1.0, 1.0), coefficients=tuple(c[:, None] for c in line.coefficients)
    )
    exact = float(interval_met(lambda t: t**2 / 2, 0.5, -1, 1, 0.25))
    assert holds(prove(setting(process, square, ("bottom", "top")), flat, FINE), (0.25, 0.5), exact) < 1e-12
    proved = prove(setting(process, square), flat, FINE)
    assert holds(proved, (0.25, 0.5), exact) > 0.5
    assert above(proved["upper"].at((0.25, 0.5))) < exact * (1 + 1e-9)  # upper bounds need w >= 0 only


# --- sublevel sets ---------------------------------------------------------------------------------------


def test_a_sublevel_set_that_is_a_disc():
    """{(x² + y²)/2 < 1/2}, whose exact exit time is known; the box must hold it."""
    landscape = formula_landscape("(x**2+y**2)/2", "identity", ("x", "y"))
    domain = Sublevel(landscape, 0.5, (0.0, 0.0), (-2.0, -2.0), (2.0, 2.0))
    where = setting(ou(1.0), domain)
    assert where.star is not None and where.star.inner < 1 < where.star.outer
    proved = prove(where, least_squares(task(ou(1.0), domain), 10).candidate, Effort(1e-3, math.inf))
    for x in INSIDE:
        assert holds(proved, x, float(ball_ou_met(math.hypot(*x), 2, 1, 1.0, 1))) < 1e-2
    assert where.inside((-1.01, -1.01), (1.01, 1.01))
    assert not where.inside((-0.99, -1.01), (1.01, 1.01))
    assert not where.inside((-1.01, -1.01), (1.01, 0.9))


def test_a_sublevel_set_in_one_dimension():
    landscape = formula_landscape("x**2/2", "identity", ("x",))
    domain = Sublevel(landscape, 0.5, (0.0,), (-2.0,), (2.0,))
    process = ou(0.5, 1)
    where = setting(process, domain)
    candidate = solve_interval(task(process, Interval(*(float(v[0]) for v in domain.bounding_box()))), 40, 256)
    exact = float(interval_met(lambda t: t**2 / 2, 0.5, -1, 1, 0.25))
    assert holds(prove(where, candidate, FINE), (0.25,), exact) < 1e-9
    low, high = where.ends("upper")
    assert low[0] < -1 < where.ends("lower")[0][0] and where.ends("lower")[1][0] < 1 < high[0]
    assert where.inside((-1.1,), (1.1,)) and not where.inside((-1.0,), (1.0,))
