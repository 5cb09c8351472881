"""The theorems of section 2: their proofs pointwise, exact solutions, wrong solutions, hypotheses that fail."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.linalg import expm

from fpsolve.model.domains import Ball, Box, Interval, Sublevel
from fpsolve.model.process import SGD, Process, diffusion_process
from fpsolve.model.schedule import Schedule
from fpsolve.theory.concentration import (
    Drift,
    concentration_bounds,
    cut_off,
    cut_off_constant,
    drift_constants,
)
from fpsolve.theory.gaussian import LinearDiffusion
from fpsolve.theory.linear import linear_diffusion
from fpsolve.theory.timebounds import TimeBound

Function = Callable[[np.ndarray], np.ndarray]
TIMES = np.array([0.0, 0.1, 0.4, 1.0, 2.5, 6.0])


def midpoints(count: int = 400, reach: float = 6.5) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of N(0, I) in the plane: the trapezoidal rule, spectrally accurate for smooth integrands."""
    z = (np.arange(count) + 0.5) / count * 2 * reach - reach
    w = np.exp(-0.5 * z**2)
    w /= w.sum()
    return np.stack(np.meshgrid(z, z, indexing="ij"), -1).reshape(-1, 2), np.outer(w, w).ravel()


NODES, WEIGHTS = midpoints()


def expectation(mean: np.ndarray, covariance: np.ndarray) -> Callable[[Function], float]:
    """∫ g N(mean, covariance) in the plane; degenerate covariances too. Discontinuous g: to 1e-3."""
    values, vectors = np.linalg.eigh(covariance)
    x = mean + NODES @ (vectors * np.sqrt(np.maximum(values, 0.0))).T
    return lambda g: float(WEIGHTS @ g(x))


def by_theorem(bounds: list[TimeBound], name: str, theorem: str) -> TimeBound:
    (found,) = [b for b in bounds if b.name == name and b.theorem.startswith(theorem)]
    return found


def margins(bound: TimeBound, law: LinearDiffusion, m0: np.ndarray, S0: np.ndarray) -> np.ndarray:
    """How far the exact Gaussian solution is on the right side, at `TIMES`."""
    values = []
    for t in TIMES:
        integrate = expectation(law.mean(t, m0), law.covariance(t, S0))
        values.append(integrate(lambda x, t=t: bound.functional(t, x)))
    sign = 1 if bound.kind == "upper" else -1
    return sign * (bound.evaluate(TIMES) - np.array(values))


def test_the_cut_off_is_the_paper_s() -> None:
    R, delta = 1.3, 0.7
    r = np.linspace(0, 3, 30001)
    phi = cut_off(r, R, delta)
    assert np.all(phi[r <= R] == 1) and np.all(phi[r > (1 + delta) * R] == 0)
    inner = (r > R) & (r <= (1 + delta / 2) * R)
    outer = (r > (1 + delta / 2) * R) & (r <= (1 + delta) * R)
    assert np.allclose(phi[inner], 1 - 2 / (delta * R) ** 2 * (r[inner] - R) ** 2)
    assert np.allclose(phi[outer], 2 / (delta * R) ** 2 * ((1 + delta) * R - r[outer]) ** 2)
    slope = np.diff(phi) / np.diff(r)
    assert np.max(np.abs(np.diff(slope))) < 1.1 * 4 / (delta * R) ** 2 * (r[1] - r[0])  # C¹


@pytest.mark.parametrize("name", ["paper", "sharp"])
def test_the_differential_inequality_holds_pointwise(name: str) -> None:
    """∂_tφ + Aφ >= -C/R² at random points, for random a within the constants and the weakest drift allowed."""
    rng, lam, closest = np.random.default_rng(0), 0.8, math.inf
    for _ in range(400):
        d, delta, R = int(rng.integers(1, 5)), rng.uniform(0.1, 3), rng.uniform(0.2, 2)
        B = rng.normal(size=(d, int(rng.integers(1, d + 1))))
        a = B @ B.T
        s, T = float(np.linalg.eigvalsh(a)[-1]), float(np.trace(a))
        g = 0.0 if name == "paper" else lam * R * rng.uniform(0, 1)
        rate = lam / 2 if name == "paper" else lam - g / R  # R' = -rate R
        e = rng.normal(size=(500, d))
        e /= np.linalg.norm(e, axis=1)[:, None]
        if rng.uniform() < 0.3:
            e[:] = np.linalg.eigh(a)[1][:, -1]
        z, h, k = rng.uniform(0, 1, 500), 1e-4 * R * delta, 1e-5
        smooth = np.min(np.abs(z - np.array([[0], [0.5], [1]])), axis=0) > 3e-4  # differences are not across kinks
        r = R * (1 + delta * z)
        up, mid, down = (cut_off(r + j * h, R, delta) for j in (1, 0, -1))
        first, second = (up - down) / (2 * h), (up - 2 * mid + down) / h**2
        change = (cut_off(r, R * math.exp(-rate * k), delta) - cut_off(r, R * math.exp(rate * k), delta)) / (2 * k)
        q = np.einsum("ni,ij,nj->n", e, a, e)
        generator = second * q + first / r * (T - q) - first * (lam * r - g)
        bound = cut_off_constant(name, s, T, d, delta) / R**2
        gap = (change + generator + bound)[smooth]
        assert gap.min() >= -1e-6 * (bound + 4 * lam * (1 + delta) ** 2 / delta**2)
        closest = min(closest, float(gap.min()) / bound)
    assert closest < (0.01 if name == "sharp" else 0.9)  # the sharp constant is attained at r = (1 + δ/2)R


def test_the_sharp_constant_is_at_most_the_paper_s_and_the_stated_one() -> None:
    for d in (1, 2, 3, 10):
        for delta in (0.1, 1.0, 4.0):
            share = (delta / 2) / (1 + delta / 2)
            stated = 4 / delta**2 * (1 + (d - 1) * share)
            assert cut_off_constant("sharp", 1.0, float(d), d, delta) == pytest.approx(stated, rel=1e-14)
            assert cut_off_constant("sharp", 1.0, 1.0, d, delta) <= stated
            printed = 4 * d**2 / delta**2 * (1 + (1 + delta) / (1 + delta / 2))
            assert cut_off_constant("paper", 1.0, float(d), d, delta) == pytest.approx(printed, rel=1e-14)
            assert stated < printed


# --- exact solutions -----------------------------------------------------------------------------------------------

OU = SGD("(x**2 + y**2)/2", epsilon2=0.02)
STEEP = SGD("(x**2 + 5*y**2)/2", [["1", "0"], ["0", "0.2"]], epsilon2=0.01)
DEGENERATE = SGD("(x**2 + y**2)/2", [["1", "0"], ["0", "0"]], epsilon2=0.02)
SWIRL = diffusion_process(["-x - y", "x/2 - y"], [["0.02", "0.005"], ["0.005", "0.01"]], ("x", "y"))


@pytest.mark.parametrize("process", [OU, STEEP, DEGENERATE, SWIRL])
@pytest.mark.parametrize("start", [(0.3, 0.0, 0.01), (0.8, -0.6, 0.03), (0.05, 0.05, 1e-4)])
@pytest.mark.parametrize("delta", [0.5, 1.0])
def test_every_bound_holds_for_exact_solutions(
    process: Process, start: tuple[float, float, float], delta: float
) -> None:
    law = linear_diffusion(process)
    assert law is not None
    m0, S0 = np.array(start[:2]), start[2] * np.eye(2)
    known = drift_constants(process, Box((-4, -4), (4, 4)), delta=delta, radius=1.5)
    assert isinstance(known, Drift)
    bounds = concentration_bounds(known, process, expectation(m0, S0))
    applicable = [b for b in bounds if b.curve is not None]
    assert len(applicable) >= 8 and all(b.verified and b.status == "theorem" for b in applicable)
    for bound in applicable:
        assert np.all(margins(bound, law, m0, S0) >= -1e-9)
    for theorem in ("Lemma 2.1", "Corollary 2.2", "Corollary 2.5", "Theorem 2.4"):
        paper, sharp = (by_theorem(bounds, name, theorem).evaluate(TIMES) for name in ("paper", "sharp"))
        assert np.all((sharp <= paper + 1e-12) if theorem == "Lemma 2.1" else (sharp >= paper - 1e-12))


@pytest.mark.parametrize("process", [OU, DEGENERATE])
def test_sharp_lemma_is_an_equality_for_examples_4_and_5_and_catches_wrong_solutions(process: Process) -> None:
    law = linear_diffusion(process)
    assert law is not None
    m0, S0 = np.array([0.5, -0.2]), 0.02 * np.eye(2)
    known = drift_constants(process, Box((-4, -4), (4, 4)))
    bound = by_theorem(concentration_bounds(known, process, expectation(m0, S0)), "sharp", "Lemma 2.1")
    exact = bound.evaluate(TIMES)
    assert np.all(np.abs(margins(bound, law, m0, S0)) <= 1e-6 * exact)  # the constants are those of the formulas
    for shifted, widened in ((1.03, 1.0), (1.0, 1.03)):
        for t in TIMES[1:4]:
            integrate = expectation(shifted * law.mean(t, m0), widened * law.covariance(t, S0))
            value = integrate(lambda x, t=t: bound.functional(t, x))
            assert value > bound.evaluate(t)[0] * (1 + 1e-3)


def test_the_cut_off_bound_catches_a_shift_by_a_few_per_cent_of_the_first_radius() -> None:
    process = SGD("(x**2 + y**2)/2", epsilon2=1e-7)
    law = linear_diffusion(process)
    assert law is not None
    m0, S0, t = np.array([0.3, 0.2]), 1e-3 * np.eye(2), 3.0
    known = drift_constants(process, Box((-3, -3), (3, 3)), radius=1.0, delta=0.2)
    bound = by_theorem(concentration_bounds(known, process, expectation(m0, S0)), "sharp", "Corollary 2.5")
    least = bound.evaluate(t)[0]
    assert least > 0.97
    mean, covariance = law.mean(t, m0), law.covariance(t, S0)

    def mass(offset: float) -> float:
        integrate = expectation(mean + np.array([offset, 0.0]), covariance)
        return integrate(lambda x: bound.functional(t, x))

    assert mass(0.0) >= least
    assert mass(0.05) < least - 0.5  # 5 % of R₀, the ball has shrunk to e^{-3} = 0.05
    # the paper's ball has shrunk to e^{-1.5} only: the margin is the distance to its sphere
    paper = by_theorem(concentration_bounds(known, process, expectation(m0, S0)), "paper", "Corollary 2.5")
    assert (
        expectation(mean + np.array([0.05, 0.0]), covariance)(lambda x: paper.functional(t, x)) > paper.evaluate(t)[0]
    )


def test_theorem_1_2_is_the_printed_loss_until_the_printed_time() -> None:
    process = SGD("(x**2 + y**2)/2", epsilon2=1e-6)
    known = drift_constants(process, Box((-3, -3), (3, 3)), radius=1.0, delta=1.0)
    bounds = concentration_bounds(known, process, expectation(np.zeros(2), 0.01 * np.eye(2)), alpha=0.6, a=2.0)
    epsilon = 1e-3
    for name, half, C in (("paper", 1.0, 16 * (1 + 2 / 1.5)), ("sharp", 0.5, 4 * (1 + 1 / 3))):
        bound = by_theorem(bounds, name, "Theorem 1.2")
        end = half * 2 * math.log(1.0 / (2.0 * epsilon**0.6))
        assert bound.parameters["T_epsilon"] == pytest.approx(end)
        largest = half * epsilon ** (2 - 1.2) * C / (2.0**2)
        assert bound.parameters["loss"] <= largest and bound.parameters["loss"] == pytest.approx(largest, rel=0.02)
        start = bound.parameters["initial"]
        assert np.allclose(bound.evaluate([0.0, 0.99 * end]), start - bound.parameters["loss"])
        assert bound.evaluate(1.01 * end)[0] == 0  # says nothing any more


def test_more_noise_later_is_taken_into_account() -> None:
    known = drift_constants(OU, Box((-4, -4), (4, 4)), radius=1.5)
    initial, schedule = expectation(np.zeros(2), 0.01 * np.eye(2)), Schedule((1.0,), (1.0, 3.0))
    plain = concentration_bounds(known, OU, initial)
    noisy = concentration_bounds(known, OU, initial, schedule=schedule)
    for a, b in zip(plain, noisy, strict=True):
        assert a.evaluate(0.9)[0] == b.evaluate(0.9)[0]
        worse = b.evaluate(1.5)[0] - a.evaluate(1.5)[0]
        assert worse > 0 if a.kind == "upper" else worse < 0 or a.evaluate(1.5)[0] == 0 or "1.2" in a.theorem
    lemma, t = by_theorem(noisy, "sharp", "Lemma 2.1"), 2.0
    # exact: variance of each coordinate with noise 0.02 until 1, 0.06 after it
    variance = (0.01 * math.exp(-2) + 0.02 * (1 - math.exp(-2))) * math.exp(-2 * (t - 1))
    variance += 0.06 * (1 - math.exp(-2 * (t - 1)))
    assert 2 * variance <= lemma.evaluate(t)[0] <= 3 * variance


# --- the problem in a bounded domain -------------------------------------------------------------------------------


def finite_volumes(boundary: str, lower: float, upper: float, noise: float, n: int = 300) -> tuple[np.ndarray, ...]:
    """Cell centres and the matrix of d/dt (masses of cells) for dX = -X dt + sqrt(2 noise) dW (Scharfetter-Gummel)."""
    edges = np.linspace(lower, upper, n + 1)
    x, h = 0.5 * (edges[1:] + edges[:-1]), edges[1] - edges[0]
    z = (x[1:] ** 2 - x[:-1] ** 2) / (2 * noise)
    right = noise / h**2 * z / np.expm1(z)  # rate of jumps to the right; Bernoulli's function
    left = right * np.exp(z)
    G = np.diag(right, -1) + np.diag(left, 1)
    out = G.sum(axis=0)
    if boundary == "absorbing":
        out[[0, -1]] += 2 * noise / h**2
    return x, G - np.diag(out)


@pytest.mark.parametrize("boundary", ["no-flux", "absorbing"])
def test_bounds_hold_where_the_boundary_matters(boundary: str) -> None:
    process, noise = SGD("x**2/2", variables=("x",), epsilon2=0.4), 0.4
    x, G = finite_volumes(boundary, -0.8, 1.0, noise)
    start = np.exp(-((x - 0.6) ** 2) / 0.02)
    start /= start.sum()
    known = drift_constants(process, Interval(-0.8, 1.0), boundary)
    bounds = concentration_bounds(known, process, lambda g: float(start @ g(x[:, None])), boundary)
    live = [b for b in bounds if b.curve is not None]
    assert {b.theorem[:11] for b in live} >= {"Lemma 2.1, ", "Corollary 2", "Theorem 2.4"}
    assert all(b.verified for b in live)
    if boundary == "absorbing":
        assert "mass is lost" in by_theorem(bounds, "sharp", "Corollary 2.2").reason
    step = expm(0.01 * G)
    for t in (0.01, 0.05, 0.2, 1.0, 4.0):
        rho = np.linalg.matrix_power(step, round(t / 0.01)) @ start
        assert (rho.sum() < 0.999) == (boundary == "absorbing")
        for bound in live:
            value = float(rho @ bound.functional(t, x[:, None]))
            sign = 1 if bound.kind == "upper" else -1
            assert sign * (bound.evaluate(t)[0] - value) >= -1e-5, (bound.theorem, t)


def test_constants_are_needed_on_the_domain_only() -> None:
    """L is convex on Ω but not on the line: the paper's Lemma 2.1 would not apply, the one in Ω does."""
    process = SGD("x**2/2 - x**4/12 + y**2/2", epsilon2=0.05)
    inside = drift_constants(process, Box((-1, -1), (1, 1)))
    assert isinstance(inside, Drift) and not inside.whole.failure
    assert inside.whole.rate.value == pytest.approx(2 / 3, abs=2e-3)
    outside = drift_constants(process, Box((-3, -3), (3, 3)))
    assert (
        isinstance(outside, Drift) and "proven with λ = -" in outside.whole.failure and "at (" in outside.whole.failure
    )


def test_the_sign_on_a_reflecting_boundary_is_checked() -> None:
    tilted = SGD("x**2/2 + y**2/2", [["1", "0.8"], ["0.8", "1"]], epsilon2=0.01)
    fine = drift_constants(tilted, Box((-1, -1), (1, 1)))
    assert isinstance(fine, Drift) and not fine.boundary_failure  # |0.8 y| <= 1
    flat = drift_constants(tilted, Box((-1, -3), (1, 3)))
    assert isinstance(flat, Drift) and "left, right" in flat.boundary_failure
    bounds = concentration_bounds(flat, tilted, expectation(np.zeros(2), 0.01 * np.eye(2)))
    lemma = by_theorem(bounds, "sharp", "Lemma 2.1")
    assert not lemma.verified and lemma.status == "prediction" and "n·a(x-c)" in lemma.reason
    assert by_theorem(bounds, "sharp", "Corollary 2.5").verified  # does not see the boundary
    assert not drift_constants(tilted, Box((-1, -3), (1, 3)), "absorbing").boundary_failure
    mixed = Box((-1, -3), (1, 3), reflecting=("bottom", "top"))
    assert not drift_constants(tilted, mixed, "absorbing").boundary_failure
    assert not drift_constants(tilted, Ball((0, 0), 2)).boundary_failure
    assert drift_constants(tilted, Ball((0.1, 0), 2)).boundary_failure
    well = Sublevel(OU.landscape, 0.5, (0.0, 0.0), (-2.0, -2.0), (2.0, 2.0))
    assert not drift_constants(OU, well).boundary_failure


# --- hypotheses that fail ------------------------------------------------------------------------------------------


def test_failing_hypotheses_say_where() -> None:
    well = SGD("(x**2-1)**2 + y**2", epsilon2=0.02)
    box, initial = Box((-2, -2), (2, 2)), expectation(np.array([-1.0, 0.0]), 0.01 * np.eye(2))
    known = drift_constants(well, box, near=np.array([-0.9, 0.1]))
    assert isinstance(known, Drift) and np.array_equal(known.center, [-1, 0])
    bounds = concentration_bounds(known, well, initial)
    lemma = by_theorem(bounds, "paper", "Lemma 2.1")
    assert lemma.status == "does not apply" and "λ = -1.0" in lemma.reason and lemma.evaluate(1.0)[0] == math.inf
    local = by_theorem(bounds, "sharp", "Corollary 2.5")
    assert local.verified and local.parameters["radius"] * 2 < 1  # the ball stays on its side of the saddle
    large = drift_constants(well, box, center=np.array([-1.0, 0.0]), radius=0.9, delta=1.0)
    assert isinstance(large, Drift) and "is not in Ω" in large.ball_failure
    wide = drift_constants(well, Box((-4, -4), (4, 4)), center=np.array([-1.0, 0.0]), radius=1.2, delta=1.0)
    assert isinstance(wide, Drift) and "proven with λ = -" in wide.ball_failure
    for b in concentration_bounds(wide, well, initial):
        assert b.status == "does not apply" and b.reason and not np.isfinite(b.evaluate([0.0, 1.0])).any()


def test_a_centre_that_is_no_minimum_is_for_the_sharp_form_only() -> None:
    known = drift_constants(OU, Box((-4, -4), (4, 4)), center=np.array([0.2, 0.0]), radius=1.5)
    law, m0, S0 = linear_diffusion(OU), np.array([0.6, 0.1]), 0.01 * np.eye(2)
    assert law is not None
    bounds = concentration_bounds(known, OU, expectation(m0, S0))
    assert "is not a minimum" in by_theorem(bounds, "paper", "Lemma 2.1").reason
    assert "is not a minimum" in by_theorem(bounds, "paper", "Corollary 2.5").reason
    for theorem in ("Lemma 2.1", "Corollary 2.5", "Theorem 2.4"):
        bound = by_theorem(bounds, "sharp", theorem)
        assert bound.verified and bound.parameters["center"] == (0.2, 0.0)
        assert np.all(margins(bound, law, m0, S0) >= -1e-9)


def test_without_rigorous_coefficients_nothing_is_claimed() -> None:
    swirl = diffusion_process(["-x**3 - y", "x - y**3"], [["1", "0"], ["0", "1"]], ("x", "y"))
    known = drift_constants(swirl, Box((-1, -1), (1, 1)))
    assert isinstance(known, str) and "no rigorous enclosure" in known
    bounds = concentration_bounds(known, swirl, expectation(np.zeros(2), np.eye(2)))
    assert len(bounds) == 10 and all(not b.verified and b.reason == known for b in bounds)
