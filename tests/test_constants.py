"""Rigorous constants: right where they are known, never violated by samples, honest where they fail."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from flint import arb

from fpsolve.model.domains import Ball, Box, Interval, Sublevel
from fpsolve.model.process import SGD, Process
from fpsolve.theory.balls import above, below, box_balls, largest_eigenvalue, norm, smallest_eigenvalue, square
from fpsolve.theory.constants import (
    Constant,
    Field,
    convexity_inf,
    diffusion_sup,
    directional_diffusion_inf,
    gradient_at,
    reach_sup,
    stationary_point,
    trace_sup,
)
from fpsolve.theory.cover import BallCover, BoxCover, Cover, cover_of, inscribed_radius, loss_range, sample
from fpsolve.theory.search import Budget, maximise
from fpsolve.theory.slopes import paper_slope, plane_sup, sharp_slope

E1 = np.array([1.0, 0.0])
ZERO = [arb(0), arb(0)]
RANK_ONE = [["1+x**2", "x+x**3"], ["x+x**3", "x**2+x**4"]]  # (1+x²) (1,x)(1,x)ᵀ


def budget() -> Budget:
    return Budget.seconds(6.0)


def well(epsilon2: float = 0.1) -> Process:
    return SGD("(x**2-1)**2 + y**2", epsilon2=epsilon2)


def dense(cover: Cover, count: int = 200_000) -> np.ndarray:
    return sample(cover, count)


def test_floats_around_a_ball_hold_it() -> None:
    for value in (arb(1) / 3, arb.pi(), arb(2).sqrt() * 10**20, arb(0, 1e-30), arb(-7), arb("1e-310")):
        assert arb(above(value)) >= value
        assert arb(below(value)) <= value
    assert above(arb(1)) == below(arb(1)) == 1.0
    assert above(arb("nan")) == math.inf and below(arb("nan")) == -math.inf
    assert square(arb(0.25, 1)).contains(1.5) and square(arb(0.25, 1)).contains(0)
    assert above(norm([arb(3, 1e-20), arb(4)])) == pytest.approx(5.0, rel=1e-12)


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_eigenvalue_bounds_hold_for_all_members_and_are_sharp_for_points(d: int) -> None:
    rng = np.random.default_rng(d)
    for radius in (0.0, 1e-3, 0.5):
        mid = rng.normal(size=(d, d))
        mid = mid + mid.T
        balls = [arb(float(x), radius) for x in mid.ravel()]
        top, bottom = largest_eigenvalue(balls, d), smallest_eigenvalue(balls, d)
        for _ in range(200):
            noise = np.triu(rng.uniform(-radius, radius, (d, d)))
            values = np.linalg.eigvalsh(mid + noise + np.triu(noise, 1).T)
            assert bottom <= values[0] + 1e-13 and values[-1] <= top + 1e-13
        exact = np.linalg.eigvalsh(mid)
        assert top <= exact[-1] + d * radius + 1e-7 and bottom >= exact[0] - d * radius - 1e-7
    assert largest_eigenvalue([arb("nan")] * (d * d), d) == math.inf


def test_search_returns_valid_bounds_whatever_the_budget() -> None:
    cover = BoxCover(np.array([-2.0]), np.array([3.0]))

    def bound(lo: np.ndarray, hi: np.ndarray) -> tuple[float, None]:
        x = box_balls(lo, hi)[0]
        return above(x * (2 - x)), None  # maximum 1 at x = 1

    def value(x: np.ndarray) -> np.ndarray:
        return x[:, 0] * (2 - x[:, 0])

    bounds = [maximise(bound, value, cover, Budget.seconds(5, n)) for n in (1, 10, 100, 2000)]
    assert all(b.bound >= 1 for b in bounds)
    assert all(p.bound >= q.bound for p, q in pairwise(bounds))
    assert bounds[-1].complete and bounds[-1].bound <= 1.001
    assert not bounds[0].complete
    assert maximise(bound, lambda x: x[:, 0], cover, Budget.seconds(-1)).bound >= 1


def test_a_box_that_cannot_be_bounded_is_never_passed() -> None:
    """x log x² has no enclosure around its singular point, so nothing may be claimed."""
    cover = BoxCover(np.array([-1.0]), np.array([1.0]))

    def bound(lo: np.ndarray, hi: np.ndarray) -> tuple[float, None]:
        x = box_balls(lo, hi)[0]
        return above(x * (x * x).log()), None

    outcome = maximise(bound, lambda x: np.zeros(len(x)), cover, Budget.seconds(2, 300))
    assert outcome.bound == math.inf and not outcome.complete
    assert outcome.worst is not None and outcome.worst[0][0] <= 0 <= outcome.worst[1][0]


def test_ornstein_uhlenbeck_constants_are_exact() -> None:
    process, cover = SGD("(x**2 + y**2)/2", epsilon2=0.25), BallCover(np.zeros(2), 1.0)
    field = Field.of(process)
    assert diffusion_sup(field, cover, budget()).value == 0.25
    assert trace_sup(field, cover, budget()).value == 0.5
    assert directional_diffusion_inf(field, E1, cover, budget()).value == 0.25
    assert convexity_inf(field, ZERO, ZERO, cover, budget()).value == 1.0
    assert reach_sup(E1, np.zeros(2), cover, budget()).value == 1.0
    assert sharp_slope(field, E1, np.zeros(2), 0.0, 0.25, 1.0, cover, budget()).value == 1.0
    # paper (7) asks for Λ >= 1 - b/(2y²) at |y| = 1
    assert paper_slope(field, E1, np.zeros(2), 0.25, 1.0, cover, budget()).value == pytest.approx(0.875, rel=2e-3)


def test_extra_noise_and_scale_enter_the_diffusion() -> None:
    process = SGD("x**2 + y**2", [["x**2", "0"], ["0", "0"]], learning_rate=0.2, batch_size=2, extra_noise=0.5)
    field, cover = Field.of(process), BoxCover(np.array([-1.0, -1.0]), np.array([2.0, 1.0]))
    assert diffusion_sup(field, cover, budget()).value == pytest.approx(0.05 * 4 + 0.05, rel=2e-3)
    assert directional_diffusion_inf(field, E1, cover, budget()).value == pytest.approx(0.05, rel=2e-3)


def test_largest_eigenvalue_of_a_rank_one_covariance() -> None:
    field, cover = Field.of(SGD("x**2 + y**2", RANK_ONE, epsilon2=1.0)), BallCover(np.zeros(2), 1.0)
    sigma, trace = diffusion_sup(field, cover, budget()), trace_sup(field, cover, budget())
    for constant in (sigma, trace):  # (1 + x²)² at x = 1
        assert 4.0 <= constant.value <= 4.0 * 1.0011


def test_double_well_is_star_shaped_where_it_is_not_convex() -> None:
    """(x-c)·∇L >= λ|x-c|² holds up to R = 0.8 about (-1, 0) though ∂_xx L < 0 for |x| < 0.577."""
    field, cover = Field.of(well()), BallCover(np.array([-1.0, 0.0]), 0.8)
    constant = convexity_inf(field, [arb(-1), arb(0)], ZERO, cover, budget())
    assert constant.verified
    assert 0.96 * 0.9985 <= constant.value <= 0.96  # 4x(x-1) at x = -0.2
    wide = convexity_inf(field, [arb(-1), arb(0)], ZERO, BallCover(np.array([-1.0, 0.0]), 1.2), budget())
    assert wide.value < 0


@pytest.mark.parametrize("p", [2, 4])
def test_paper_example_1(p: int) -> None:
    """L = |x|^p/p on B_R: Λ = R^(p-2) along e₁."""
    radius = 1.5
    field, cover = Field.of(SGD(f"(x**2+y**2)**{p // 2}/{p}", epsilon2=1.0)), BallCover(np.zeros(2), radius)
    exact = radius ** (p - 2)
    slope = sharp_slope(field, E1, np.zeros(2), 0.0, 1.0, radius, cover, budget())
    assert slope.verified and exact <= slope.value <= exact * 1.002
    relaxed = paper_slope(field, E1, np.zeros(2), 1.0, radius, cover, budget())
    assert relaxed.verified and relaxed.value < slope.value


def test_paper_example_2() -> None:
    """L = e^x + y²/2: v·∇L does not vanish on x = 0, so only the hypothesis with slack can hold along e₁."""
    field, cover = Field.of(SGD("exp(x) + y**2/2", epsilon2=1.0)), BallCover(np.zeros(2), 1.0)
    x = np.linspace(-1, 1, 400_000)[:, None]
    exact = np.max((x * np.exp(x) - 0.5) / x**2)
    relaxed = paper_slope(field, E1, np.zeros(2), 1.0, 1.0, cover, budget())
    assert relaxed.verified and exact <= relaxed.value <= exact * 1.003
    assert plane_sup(field, E1, np.zeros(2), cover, budget()).value == pytest.approx(1.0)
    # with the offset κ = 1 it holds: (e^x - 1)/x <= e - 1
    with_offset = sharp_slope(field, E1, np.zeros(2), 1.0, 1.0, 1.0, cover, budget())
    assert with_offset.verified and math.e - 1 <= with_offset.value <= (math.e - 1) * 1.002


@pytest.mark.parametrize("height", [1.0, 4.0, 16.0])
def test_paper_example_3_on_a_bounded_box(height: float) -> None:
    """L = x₁²x₂²/2 on [-1,1]×[-K,K]: Λ = K², hence nothing on the whole strip."""
    field = Field.of(SGD("x**2*y**2/2", epsilon2=1.0))
    cover = cover_of(Box((-1.0, -height), (1.0, height)))
    slope = sharp_slope(field, E1, np.zeros(2), 0.0, 1.0, 1.0, cover, budget())
    assert slope.verified and height**2 <= slope.value <= height**2 * 1.002
    relaxed = paper_slope(field, E1, np.zeros(2), 1.0, 1.0, cover, budget())
    assert height**2 - 0.5 <= relaxed.value <= (height**2 - 0.5) * 1.004


def test_no_noise_in_a_direction_gives_a_reason() -> None:
    field = Field.of(SGD("x**2 + y**2", [["0", "0"], ["0", "1"]], epsilon2=1.0))
    constant = directional_diffusion_inf(field, E1, BallCover(np.zeros(2), 1.0), budget())
    assert not constant.verified and "no positive lower bound" in constant.reason


def test_stationary_points_are_proven_or_not() -> None:
    field = Field.of(SGD("x**4/4 - 0.3*x**2/2 + (y - x/3)**2", epsilon2=1.0))
    root = math.sqrt(0.3)
    balls, proven = stationary_point(field, np.array([root, root / 3]))
    assert proven
    exact = (arb(3) / 10).sqrt()
    assert above(abs(balls[0] - exact)) < 1e-14 and above(abs(balls[1] - exact / 3)) < 1e-14
    rough, proven = stationary_point(field, np.array([root + 0.01, root / 3]))
    assert not proven or rough[0].contains(exact)
    nowhere = Field.of(SGD("exp(x) + y**2", epsilon2=1.0))
    assert not stationary_point(nowhere, np.zeros(2))[1]
    flat = Field.of(SGD("(x**2 + y**2)**2", epsilon2=1.0))
    assert stationary_point(flat, np.zeros(2))[1]  # exactly zero gradient, singular Hessian
    assert gradient_at(flat, np.array([1.0, 0.0])).value == pytest.approx(4.0)


def test_covers_hold_their_domains() -> None:
    process = well()
    for domain in (Ball((0.3, -0.2), 0.7), Box((-1.0, 0.0), (0.5, 2.0)), Interval(-1.0, 2.0)):
        cover = cover_of(domain)
        rng = np.random.default_rng(0)
        lo, hi = domain.bounding_box()
        x = rng.uniform(lo, hi, (4000, domain.dimension))
        inside = x[domain.contains(x)]
        for point in inside[:300]:
            width = rng.uniform(0, 0.3, domain.dimension)
            reduced = cover.reduce(point - width, point + width)
            assert reduced is not None and np.all(reduced[0] <= point) and np.all(point <= reduced[1])
    ball = BallCover(np.zeros(2), 1.0)
    assert ball.reduce(np.array([0.8, 0.8]), np.array([1.0, 1.0])) is None
    lo, hi = np.array([-1.3, 0.1]), np.array([-0.9, 0.4])
    least, most = loss_range(process.landscape.enclosure(), lo, hi)  # type: ignore[union-attr,arg-type]
    values = process.landscape.loss(np.random.default_rng(1).uniform(lo, hi, (5000, 2)))  # type: ignore[union-attr]
    assert least <= values.min() and values.max() <= most
    assert inscribed_radius(Ball((0.0, 0.0), 1.0), np.array([0.6, 0.0])) == pytest.approx(0.4)
    assert inscribed_radius(Box((0.0, 0.0), (1.0, 4.0)), np.array([0.75, 1.0]), 0.05) == pytest.approx(0.2)


def test_the_other_component_of_a_sublevel_set_is_left_out() -> None:
    process = well()
    cover = cover_of(Sublevel(process.landscape, 0.5, (-1.0, 0.0), (-2.0, -2.0), (2.0, 2.0)))  # type: ignore[arg-type]
    assert cover.upper[0] < 0
    reach = reach_sup(E1, np.array([-1.0, 0.0]), cover, budget())
    exact = 1 - math.sqrt(1 - math.sqrt(0.5))  # x² = 1 ± sqrt(0.5) on the axis; the inner side is farther
    assert reach.verified and exact <= reach.value <= exact * 1.002


class Problem:
    """A process on a cover with its verified constants, and the same inequalities at points."""

    def __init__(self, process: Process, cover: Cover, center: np.ndarray, v: np.ndarray, kappa: float) -> None:
        self.process, self.cover, self.center, self.v, self.kappa = process, cover, center, v, kappa
        field = Field.of(process)
        c = [arb(float(t)) for t in center]
        base = field.gradient(c)
        reach = reach_sup(v, center, cover, budget())
        b = directional_diffusion_inf(field, v, cover, budget())
        assert plane_sup(field, v, center, cover, budget()).value <= kappa
        self.constants: dict[str, Constant] = {
            "s": diffusion_sup(field, cover, budget()),
            "T": trace_sup(field, cover, budget()),
            "b": b,
            "R": reach,
            "lambda": convexity_inf(field, c, base, cover, budget()),
            "paper": paper_slope(field, v, center, b.value, reach.value, cover, budget()),
            "sharp": sharp_slope(field, v, center, kappa, b.value, reach.value, cover, budget()),
        }

    def margins(self, values: dict[str, float], x: np.ndarray) -> dict[str, float]:
        """Return for each constant how far the inequality is from being violated at the points (>= 0: holds)."""
        gradient, a = self.process.landscape.gradient(x), self.process.diffusion(x)  # type: ignore[union-attr]
        g0 = self.process.landscape.gradient(self.center[None, :])[0]  # type: ignore[union-attr]
        y, G = (x - self.center) @ self.v, gradient @ self.v
        r2 = np.sum((x - self.center) ** 2, axis=1)
        star = np.sum((x - self.center) * (gradient - g0), axis=1)
        found = {
            "s": values["s"] - np.linalg.eigvalsh(a)[:, -1],
            "T": values["T"] - np.trace(a, axis1=1, axis2=2),
            "b": np.einsum("i,nij,j->n", self.v, a, self.v) - values["b"],
            "R": values["R"] - np.abs(y),
            "lambda": star - values["lambda"] * r2,
            "paper": values["paper"] * y**2 + values["b"] / 2 - G * y,
            "sharp": values["sharp"] * np.abs(y) + self.kappa - np.sign(y) * G,
        }
        return {name: float(margin.min()) for name, margin in found.items()}


CUBIC = SGD("x**2/2 + y**2 + x*y/4 + x**3/6", [["1", "x/4"], ["x/4", "1+sin(x)/2"]], epsilon2=0.5)
BALL_3D = BallCover(np.array([0.2, 0.0, 1.0]), 1.0)
E3 = (0.0, 0.0, 1.0)
PROBLEMS = [
    (well(0.3), BallCover(np.array([-1.0, 0.0]), 0.8), (-1.0, 0.0), (0.0, 1.0), 0.0),
    (well(0.3), BoxCover(np.array([-1.6, -1.0]), np.array([-0.1, 1.0])), (-1.0, 0.0), (1.0, 0.0), 0.0),
    (CUBIC, BallCover(np.array([0.1, 0.0]), 1.0), (0.0, 0.0), (0.6, 0.8), 0.6),
    (SGD("exp(x) + y**2/2", RANK_ONE, epsilon2=1.0), BallCover(np.zeros(2), 1.0), (0.0, 0.0), (1.0, 0.0), 1.05),
    (SGD("x**2/2 + y**2 + z**2 + x*z/4", epsilon2=1.0, variables=["x", "y", "z"]), BALL_3D, (0.0,) * 3, E3, 0.4),
]


@pytest.mark.parametrize("case", range(len(PROBLEMS)))
def test_verified_constants_are_never_violated_and_wrong_ones_are_caught(case: int) -> None:
    process, cover, center, v, kappa = PROBLEMS[case]
    problem = Problem(process, cover, np.array(center), np.array(v), kappa)
    assert all(c.verified for c in problem.constants.values()), problem.constants
    x = sample(cover, 40_000)
    rng = np.random.default_rng(case)
    random = rng.uniform(cover.lower, cover.upper, (20_000, len(center)))
    x = np.concatenate([x, random[cover.contains(random)]])
    assert len(x) >= 10_000
    values = {name: c.value for name, c in problem.constants.items()}
    assert all(margin >= -1e-12 for margin in problem.margins(values, x).values())
    # each bound is tight: moved by 2% of its size to the wrong side (and b fixed) it is violated at some point
    for name, constant in problem.constants.items():
        step = 0.02 * abs(constant.value) + (0.02 if name in ("lambda", "sharp", "paper") else 0.0)
        wrong = values | {name: constant.value + (step if constant.kind == "lower" else -step)}
        caught = problem.margins(wrong, x)[name] < 0
        assert caught or constant.value == 0.0, (name, constant)


def test_a_pole_in_the_domain_is_reported() -> None:
    field = Field.of(SGD("log(x) + y**2", epsilon2=1.0))
    cover = BoxCover(np.array([-1.0, -1.0]), np.array([1.0, 1.0]))
    constant = convexity_inf(field, [arb(0.5), arb(0)], ZERO, cover, Budget.seconds(2, 200))
    assert not constant.verified and "could not be bounded on the box" in constant.reason
