"""The density against the Gaussian mixture, and the Markov chain of the wells, under the ranks this test runs on."""

from __future__ import annotations

import math
from functools import cache

from mpi4py import MPI

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm
from test_demos import assert_same_everywhere

import fpsolve as fp
from fpsolve.errors import InputError
from fpsolve.theory.gaussian import wasserstein

#: A flat and a sharp well; the saddle is where L' = 0 between the minima at ±1.
RATE = 0.6
WELLS = fp.SGD(f"(x**2 - 1)**2*exp({RATE}*x)", variables=("x",), epsilon2=0.15)
LINE = fp.Interval(-2.7, 2.2)
SADDLE = (-2 + math.sqrt(4 + RATE**2)) / RATE
START = fp.gaussian_start([0.1], 0.09)


def loss(x):
    return (x**2 - 1) ** 2 * np.exp(RATE * x)


@cache
def steady():
    return fp.steady_state(WELLS, LINE, comm=MPI.COMM_WORLD, size=0.05, eigenvalues=3)


@cache
def evolution():
    return fp.evolve(WELLS, LINE, START, [0.3, 6.0, 60.0, 600.0], comm=MPI.COMM_WORLD, size=0.05)


# --- one well, linear: the local picture is exact ---------------------------------------------------------


def test_ornstein_uhlenbeck_is_its_own_local_picture(comm):
    """Relaxing: no distance at any time; stationary: the closed form of Gaussians."""
    process = fp.SGD("3*x**2/2", variables=("x",), epsilon2=0.3)
    run = fp.evolve(
        process, fp.Interval(-3.0, 3.0), fp.gaussian_start([0.5], 0.04), [0.1, 0.4, 6.0], comm=comm, size=0.1
    )
    found = fp.mass_splitting(run)
    assert found.l1(True).max() < 2e-5
    assert found.w2(True)[:, 0].max() < 1e-4
    for k, t in enumerate(found.times):
        mean, variance = 0.5 * math.exp(-3 * t), 0.1 + (0.04 - 0.1) * math.exp(-6 * t)
        exact = wasserstein([mean], [[variance]], [0.0], [[0.1]])
        assert found.relaxation[k] == pytest.approx(exact, abs=1e-6)
        value, lower, upper = found.w2()[k]
        assert value == pytest.approx(exact, abs=1e-4)
        assert lower <= value <= upper
        one, other = norm(mean, math.sqrt(variance)), norm(0, math.sqrt(0.1))
        l1 = quad(lambda x, p=one, q=other: abs(p.pdf(x) - q.pdf(x)), -3, 3, limit=200, points=[0.0, 0.5])[0]
        assert found.l1()[k] == pytest.approx(l1, abs=max(2e-5, 10 * found.stationary[k].l1_error))
        assert found.means[k, 0, 0] == pytest.approx(mean, abs=1e-6)
        assert found.covariances[k, 0, 0, 0] == pytest.approx(variance, abs=1e-6)
    # 4 standard deviations
    assert found.far[-1] == pytest.approx(2 * norm.cdf(-4), rel=0.3)
    np.testing.assert_allclose(found.masses, 1.0, atol=1e-8)
    assert_same_everywhere(comm, np.concatenate([found.l1(), found.w2(True).ravel(), found.relaxation]))


def test_degenerate_noise_in_the_plane(comm):
    """Q = diag(1, 0): L¹ = 2 at all times, while W₂ falls like e^{-t}; everything is Gaussian."""
    process = fp.SGD("x**2/2 + y**2/2", covariance=[["1", "0"], ["0", "0"]], epsilon2=0.2)
    start = fp.gaussian_start([0.4, 0.5], [0.1, 0.3])
    box = fp.Box((-2.6, -2.6), (2.6, 2.6))
    found = fp.mass_splitting(fp.evolve(process, box, start, [0.6, 1.2], comm=comm, size=0.4), points=300)
    np.testing.assert_allclose(found.l1(), 2.0, atol=1e-3)
    assert found.l1(True)[-1] < 2e-2
    for k, t in enumerate(found.times):
        decay = math.exp(-t)
        mean = decay * np.array([0.4, 0.5])
        covariance = np.diag([0.2 + (0.1 - 0.2) * decay**2, 0.3 * decay**2])
        exact = wasserstein(mean, covariance, np.zeros(2), np.diag([0.2, 0.0]))
        value, lower, upper = found.w2()[k]
        assert lower - 1e-3 <= exact <= upper
        assert value == pytest.approx(exact, rel=0.02)
        # the relaxing law is exact; its bounds are as wide as 300 points make them
        assert found.w2(True)[k, 1] <= 2e-3
        assert found.w2(True)[k, 0] < 0.1 and found.w2(True)[k, 2] < 0.25
        np.testing.assert_allclose(found.predicted_means[k, 0], mean, atol=2e-3)
        np.testing.assert_allclose(found.predicted_covariances[k, 0], covariance, atol=2e-3)
    assert_same_everywhere(comm, np.concatenate([found.w2().ravel(), found.l1(True)]))


# --- two wells --------------------------------------------------------------------------------------------


def test_steady_state_against_quadrature(comm):
    """The Gibbs density, its basins and its Gaussian mixture integrated by other means."""
    mixture, found = fp.steady_mixture(steady())
    scale = quad(lambda x: np.exp(-loss(x) / 0.15), -2.7, 2.2, points=[-1, 1], limit=200)[0]
    left = quad(lambda x: np.exp(-loss(x) / 0.15), -2.7, SADDLE, points=[-1], limit=200)[0] / scale
    parts = [(left, -1.0, 0.15 / (8 * math.exp(-RATE))), (1 - left, 1.0, 0.15 / (8 * math.exp(RATE)))]
    order = np.argsort(mixture.means[:, 0])
    np.testing.assert_allclose(mixture.weights[order], [left, 1 - left], atol=5e-6)  # cells are halved three times
    np.testing.assert_allclose(fp.well_chain(steady()).stationary[order], [left, 1 - left], atol=5e-8)
    np.testing.assert_allclose(mixture.covariances[order, 0, 0], [v for *_, v in parts], rtol=1e-10)
    x = np.linspace(-2.7, 2.2, 200_001)
    dx = x[1] - x[0]
    rho = np.exp(-loss(x) / 0.15) / scale
    other = sum(w * norm(m, math.sqrt(v)).pdf(x) for w, m, v in parts)
    assert found.l1 == pytest.approx(np.sum(np.abs(rho - other)) * dx, abs=2e-5)
    # quantile functions on a fine grid of levels
    levels = (np.arange(400_000) + 0.5) / 400_000
    places = [np.interp(levels, np.cumsum(p) * dx - 0.5 * p * dx, x) for p in (rho, other)]
    exact = math.sqrt(np.mean((places[0] - places[1]) ** 2))
    assert found.w2.value == pytest.approx(exact, rel=5e-3)
    assert abs(found.w2.value - exact) <= 3 * (found.w2.upper - found.w2.lower) + 1e-5
    assert_same_everywhere(comm, [found.l1, found.w2.value, found.far])


def test_masses_follow_the_markov_chain(comm):
    """Rates from the spectrum against the evolution, another solver; m(0+) against the scale function."""
    run, chain = evolution(), fp.well_chain(steady(), START)
    masses = np.array([record.basins for record in run.records])
    late = run.times >= 6.0
    np.testing.assert_allclose(chain.masses(run.times[late]), masses[late], atol=2e-6)
    assert np.abs(chain.masses(run.times[1:2]) - masses[1]).max() > 5e-3  # at t = 0.3 the wells have not relaxed
    np.testing.assert_allclose(chain.rates.sum(axis=0), 0.0, atol=1e-9 * np.abs(chain.rates).max())
    assert chain.rates[0, 1] > 0 and chain.rates[1, 0] > 0
    np.testing.assert_allclose(chain.rates @ chain.stationary, 0.0, atol=1e-9 * np.abs(chain.rates).max())
    assert chain.separation > 100
    # probability to reach the right minimum first: ∫e^{L/ε²}, averaged over the start
    x = np.linspace(-1, 1, 20_001)
    scale = np.cumsum(np.exp(loss(x) / 0.15))
    committor = scale / scale[-1]
    start = norm(0.1, 0.3)
    right = np.sum(committor * start.pdf(x)) * (x[1] - x[0]) + start.sf(1.0)
    k = int(np.argmax(run.minima[:, 0]))
    assert chain.start[k] == pytest.approx(right, abs=2e-4)
    assert masses[0, k] == pytest.approx(start.sf(SADDLE), abs=1e-6)
    assert abs(right - start.sf(SADDLE)) > 0.02
    # a point start is the committor itself, up to its small error within the wells
    point = fp.well_chain(steady(), fp.PointStart((0.1,))).start[k]
    assert point == pytest.approx(np.interp(0.1, x, committor), abs=2e-3)
    assert_same_everywhere(comm, chain.rates)


def test_distance_in_time(comm):
    """First the wells relax, then the anharmonic part of the steady state stays."""
    found = fp.mass_splitting(evolution())
    limit = fp.steady_mixture(steady())[1]
    l1, w2 = found.l1(), found.w2()[:, 0]
    assert l1[0] > 1.5 and l1[1] > 0.5
    assert np.all(np.diff(l1) < 0)
    assert l1[-1] == pytest.approx(limit.l1, rel=0.03)
    assert w2[-1] == pytest.approx(limit.w2.value, rel=0.03)
    assert found.relaxation[1] > 0.1 and found.relaxation[2] < 1e-9
    assert found.far[0] > 0.5 and found.far[-1] < 0.01
    assert found.valid(0.15) == ((6.0, 600.0),)
    assert found.valid(2.0, "w2") == ((0.0, 600.0),)
    assert found.valid(1e-6) == ()
    mixture = found.mixture(-1)
    np.testing.assert_allclose(mixture.weights, found.masses[-1])
    assert found.mixture(0, relaxing=True).covariance[0, 0] == pytest.approx(0.09, rel=2e-3)
    with pytest.raises(InputError, match="measure"):
        found.valid(0.1, "w1")


def test_one_process_gives_the_same_on_its_own(comm):
    """The numbers do not depend on the number of ranks."""
    process = fp.SGD("(x**2 - 1)**2 + (y - 0.3*x)**2", epsilon2=0.3)
    box, start = fp.Box((-2.6, -2.6), (2.6, 2.6)), fp.gaussian_start([0.2, 0.1], 0.2)
    answers = []
    for group in (comm, MPI.COMM_SELF):
        run = fp.evolve(process, box, start, [0.5], comm=group, size=0.5, nonnegative=True)
        found = fp.mass_splitting(run, points=120)
        answers.append(
            np.concatenate([found.l1(), found.l1(True), found.w2().ravel(), found.far, found.masses.ravel()])
        )
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-7, atol=1e-9)


# --- wrong questions --------------------------------------------------------------------------------------


def test_questions_without_an_answer(comm):
    interval = fp.Interval(-1.0, 1.0)
    left = fp.evolve(WELLS, interval, START, [0.01], comm=comm, boundary="absorbing", size=0.2)
    with pytest.raises(InputError, match="no-flux"):
        fp.mass_splitting(left)
    with pytest.raises(InputError, match="at least two minima"):
        fp.well_chain(fp.steady_state(WELLS, fp.Interval(-2.7, 0.1), comm=comm, size=0.2, eigenvalues=2))
    with pytest.raises(InputError, match="as many as there are minima"):
        fp.well_chain(fp.steady_state(WELLS, LINE, comm=comm, size=0.2, eigenvalues=1))
    schedule = fp.schedule_from(0.3, [[0.0, 1], [0.01, 2]], WELLS.epsilon2)
    run = fp.evolve(WELLS, LINE, START, [0.02], comm=comm, schedule=schedule, size=0.2)
    with pytest.raises(InputError, match="constant ε²"):
        fp.mass_splitting(run)
    flat = fp.SGD("x", variables=("x",), epsilon2=0.1)
    run = fp.evolve(flat, LINE, START, [0.01], comm=comm, size=0.2)
    with pytest.raises(InputError, match="a loss with a minimum"):
        fp.mass_splitting(run)
    quartic = fp.SGD("x**4", variables=("x",), epsilon2=0.1)
    run = fp.evolve(quartic, LINE, START, [0.01], comm=comm, size=0.2)
    with pytest.raises(InputError, match="nondegenerate minimum"):
        fp.mass_splitting(run)
    with pytest.raises(InputError, match="start"):
        fp.well_chain(steady()).masses([1.0])
