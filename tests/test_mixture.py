"""Local Gaussians, their mixtures and W₂ distances, against closed forms; nothing here needs a mesh."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

import fpsolve as fp
from fpsolve.errors import InputError
from fpsolve.model.process import Process
from fpsolve.theory.gaussian import wasserstein
from fpsolve.theory.mixture import GaussianMixture, gaussian_mixture, local_gaussians
from fpsolve.theory.transport import Quantised, quantise, wasserstein_bounds, wasserstein_points, wasserstein_tables

TWO = fp.SGD("(x**2 - 1)**2 + 0.5*y**2 + x*y", covariance=[["2 + x", "0.2"], ["0.2", "1"]], epsilon2=0.01)
SINGULAR = GaussianMixture([0.3, 0.7], [[-1.0, 0.0], [1.0, 0.5]], [np.diag([0.1, 0.0]), np.diag([0.2, 0.0])])


def one(mean, covariance):
    """N(mean, covariance) as a mixture."""
    return GaussianMixture([1.0], [mean], [covariance])


def cloud(law, count):
    """The law on points as a density on a mesh is: from many points."""
    many = law.quantised(20_000)
    found = quantise(many.points, many.weights, count)
    return Quantised(found.points, found.weights, math.hypot(found.spread, many.spread))


def distance(law, other, count, least=0.0):
    return wasserstein_bounds(cloud(law, count), other.quantised(count), cloud(other, count), least)


def random_covariance(rng, d):
    A = rng.normal(size=(d, d))
    return A @ A.T + 0.1 * np.eye(d)


# --- linearisation ----------------------------------------------------------------------------------------


def test_covariance_of_a_quadratic_loss_in_one_dimension():
    """K = Q/L'': L = 2x², Q = 3, ε² = 0.1."""
    (well,) = local_gaussians(fp.SGD("2*x**2", covariance=[["3"]], variables=("x",), epsilon2=0.1), [[0.0]])
    assert well.covariance[0, 0] == pytest.approx(0.1 * 3 / 4, rel=1e-14)
    assert well.regular
    mean, covariance = well.at(0.3, np.array([0.5]), np.array([[0.2]]))
    decay = math.exp(-4 * 0.3)
    assert mean[0] == pytest.approx(0.5 * decay, rel=1e-13)
    assert covariance[0, 0] == pytest.approx(0.2 * decay**2 + 0.075 * (1 - decay**2), rel=1e-12)


def test_lyapunov_equation_at_minima_found_by_hand():
    """∇L = 0: y = -x, 4x(x² - 1) - x = 0, so x = ±√(5/4)."""
    x = math.sqrt(1.25)
    wells = local_gaussians(TWO, [[x, -x], [-x, x]])
    for well, s in zip(wells, (x, -x), strict=True):
        C = np.array([[12 * s * s - 4, 1.0], [1.0, 1.0]])
        Q = np.array([[2 + s, 0.2], [0.2, 1.0]])
        np.testing.assert_allclose(well.law.C, C, rtol=1e-12)
        np.testing.assert_allclose(C @ well.covariance + well.covariance @ C.T, 0.02 * Q, rtol=1e-11, atol=1e-14)


def test_shift_of_the_mean():
    """½C⁻¹D²f:S by hand, from formulas and from differences; of D³L only L_xxx = 24x, and the drift is -∇L."""
    x = math.sqrt(1.25)
    (well,) = local_gaussians(TWO, [[x, -x]])
    hand = np.linalg.solve(well.law.C, [-12 * x * well.covariance[0, 0], 0.0])
    np.testing.assert_allclose(well.shift, hand, rtol=1e-8)
    drift = ["-4*x*(x**2 - 1) - y", "-y - x"]
    noise = [["0.01*(2 + x)", "0.002"], ["0.002", "0.01"]]
    (other,) = local_gaussians(fp.diffusion_process(drift, noise, ("x", "y")), [[x, -x]])
    np.testing.assert_allclose(other.shift, hand, rtol=1e-12)
    moved = well.corrected
    np.testing.assert_allclose(moved.x, well.x + hand, rtol=1e-7)
    np.testing.assert_allclose(moved.at(200.0, np.zeros(2), np.eye(2))[0], moved.x, rtol=1e-9)


def test_mean_of_a_gibbs_law_is_shifted():
    """Against quadrature in one dimension: the rest is O(ε⁴)."""
    rest = []
    for epsilon2 in (0.02, 0.01):
        (well,) = local_gaussians(fp.SGD("x**2/2 + x**3/6 + x**4/4", variables=("x",), epsilon2=epsilon2), [[0.0]])
        x = np.linspace(-2, 2, 40_001)
        rho = np.exp(-(x**2 / 2 + x**3 / 6 + x**4 / 4) / epsilon2)
        assert well.shift[0] == pytest.approx(-epsilon2 / 2, rel=1e-8)
        rest.append(x @ rho / rho.sum() - well.shift[0])
    assert abs(rest[0]) < 0.2 * 0.01
    assert rest[0] / rest[1] == pytest.approx(4.0, rel=0.1)


def test_drift_without_a_loss():
    """Momentum: K = (D/g) diag(1/L'', 1), C not symmetric; a singular."""
    process = fp.MomentumSGD("(w**2 - 1)**2", variables=("w",), learning_rate=0.04, momentum=0.9)
    (well,) = local_gaussians(process, [[1.0, 0.0]])
    ratio = process.noise / process.friction
    np.testing.assert_allclose(well.covariance, ratio * np.diag([1 / 8, 1.0]), rtol=1e-11, atol=1e-14)


def test_degenerate_noise_gives_a_singular_gaussian():
    process = fp.SGD("x**2 + y**2/2", covariance=[["1", "0"], ["0", "0"]], epsilon2=0.1)
    wells = local_gaussians(process, [[0.0, 0.0]])
    np.testing.assert_allclose(wells[0].covariance, np.diag([0.05, 0.0]), atol=1e-17)
    assert not wells[0].regular
    with pytest.raises(ValueError, match="singular"):
        gaussian_mixture(wells, [1.0]).density(np.zeros((1, 2)))


@pytest.mark.parametrize(
    "loss, point, message",
    [
        ("(x**2 - 1)**2", 0.0, "nondegenerate minimum"),
        ("x**4", 0.0, "nondegenerate minimum"),
        ("(x**2 - 1)**2", 0.9, "where the drift vanishes"),
    ],
)
def test_points_without_a_stationary_gaussian(loss, point, message):
    with pytest.raises(InputError, match=message):
        local_gaussians(fp.SGD(loss, variables=("x",), epsilon2=0.1), [[point]])


def test_wrong_inputs():
    with pytest.raises(InputError, match="finite coordinates"):
        local_gaussians(TWO, [[1.0]])
    opaque = Process(("x",), lambda x: -x, lambda x: np.ones((len(x), 1, 1)), lambda x: 0 * x)
    with pytest.raises(InputError, match="drift given by formulas"):
        local_gaussians(opaque, [[0.0]])
    assert local_gaussians(TWO, np.empty((0, 2))) == ()
    wells = local_gaussians(TWO, [[math.sqrt(1.25), -math.sqrt(1.25)]])
    for masses in ([0.5, 0.5], [-0.1], [0.0]):
        with pytest.raises(InputError, match="one for each well"):
            gaussian_mixture(wells, masses)


# --- mixtures ---------------------------------------------------------------------------------------------


def test_density_mean_and_covariance_of_a_mixture():
    law = GaussianMixture([0.3, 0.5], [[-1.0], [2.0]], [[[0.04]], [[0.25]]])
    parts = [(0.3, norm(-1, 0.2)), (0.5, norm(2, 0.5))]
    x = np.linspace(-3, 5, 41)
    np.testing.assert_allclose(law.density(x[:, None]), sum(w * n.pdf(x) for w, n in parts), rtol=1e-12)
    assert law.mass == pytest.approx(0.8)
    mean = (0.3 * -1 + 0.5 * 2) / 0.8
    second = (0.3 * (0.04 + 1) + 0.5 * (0.25 + 4)) / 0.8
    assert law.mean[0] == pytest.approx(mean)
    assert law.covariance[0, 0] == pytest.approx(second - mean**2)
    place, F = law.distribution()
    exact = sum(w / 0.8 * n.cdf(place) for w, n in parts)
    np.testing.assert_allclose(F, exact, atol=1e-15)


def test_samples_and_points_have_the_moments_of_the_law():
    rng = np.random.default_rng(3)
    law = GaussianMixture([0.2, 0.6, 0.2], rng.normal(size=(3, 2)), [random_covariance(rng, 2) for _ in range(3)])
    sample = law.sample(200_000, seed=1)
    np.testing.assert_array_equal(sample[:5], law.sample(200_000, seed=1)[:5])
    size = math.sqrt(law.covariance[0, 0] + law.covariance[1, 1])
    np.testing.assert_allclose(sample.mean(axis=0), law.mean, atol=4 * size / math.sqrt(200_000))
    np.testing.assert_allclose(np.cov(sample.T), law.covariance, atol=0.06)  # four of its standard deviations
    points = law.quantised(900)
    assert 700 < len(points.points) < 1100
    np.testing.assert_allclose(points.weights @ points.points, law.mean, atol=1e-13)
    lost = np.trace(law.covariance) - np.trace(np.cov(points.points.T, aweights=points.weights, ddof=0))
    assert points.spread == pytest.approx(math.sqrt(lost), rel=1e-9)


def test_singular_parts_stay_on_their_lines():
    sample, points = SINGULAR.sample(1000, seed=0), SINGULAR.quantised(300)
    assert set(np.unique(sample[:, 1])) == set(np.unique(points.points[:, 1])) == {0.0, 0.5}
    assert points.weights[points.points[:, 1] == 0].sum() == pytest.approx(0.3)
    # one-dimensional: Panter and Dite's constant √3π/2 in σ²/n²
    law = one([0.0, 0.0], np.diag([1.0, 0.0])).quantised(400)
    assert law.spread == pytest.approx(math.sqrt(math.sqrt(3) * math.pi / 2) / 400, rel=0.02)


def test_mahalanobis_distance_to_the_nearest_part():
    law = GaussianMixture([0.5, 0.5], [[0.0, 0.0], [4.0, 0.0]], [np.diag([1.0, 0.25]), np.diag([0.01, 1.0])])
    np.testing.assert_allclose(law.distances([[0.0, 1.5], [4.0, 1.0], [3.0, 0.0]]), [3.0, 1.0, 3.0])
    np.testing.assert_allclose(SINGULAR.distances([[0.0, 0.0], [0.0, 0.1]]), [1 / math.sqrt(0.1), np.inf])


def test_mass_of_a_half_line():
    law = GaussianMixture([0.4, 0.6], [[-1.0, 0.0], [1.0, 0.0]], [0.3 * np.eye(2), np.eye(2)])
    found = law.masses(lambda x: np.where(x[:, 0] < 0, 0, 1))
    left = 0.4 * norm.cdf(1 / math.sqrt(0.3)) + 0.6 * norm.cdf(-1)
    np.testing.assert_allclose(found, [left, 1 - left], atol=5e-3)


# --- W₂ ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("shift", [0.0, 0.1, 1.0])
def test_bounds_hold_the_distance_of_gaussians(d, shift):
    """Bures' closed form, without the help of Gelbrich's bound, which is the same."""
    rng = np.random.default_rng(10 * d)
    S1, S2, m = random_covariance(rng, d), random_covariance(rng, d), shift * rng.normal(size=d)
    exact = wasserstein(np.zeros(d), S1, m, S2)
    found = distance(one(np.zeros(d), S1), one(m, S2), 400)
    assert found.lower <= exact <= found.upper
    assert found.value == pytest.approx(exact, rel=0.03)
    # finer points: narrower bounds
    coarse = distance(one(np.zeros(d), S1), one(m, S2), 100)
    assert coarse.lower <= exact <= coarse.upper
    assert found.upper - found.lower < 0.8 * (coarse.upper - coarse.lower)


def test_distances_below_that_of_the_points():
    """A shift by 0.02 standard deviations, while the points are 0.13 apart."""
    S, m = np.array([[1.0, 0.3], [0.3, 0.5]]), np.array([0.02, 0.01])
    law, other = one([0.0, 0.0], S), one(m, 1.01 * S)
    exact = wasserstein(np.zeros(2), S, m, 1.01 * S)
    found = distance(law, other, 300)
    assert found.lower <= exact <= found.upper
    assert wasserstein_points(cloud(law, 300), other.quantised(300)) > 4 * exact
    assert found.value == pytest.approx(exact, rel=0.3)
    assert distance(law, other, 300, least=exact).lower == exact


def test_bounds_hold_for_singular_gaussians():
    law, other = one([0.0, 0.0], np.diag([1.0, 0.0])), one([0.0, 0.0], np.diag([0.0, 1.0]))
    found = distance(law, other, 256)
    assert found.lower <= math.sqrt(2) <= found.upper * (1 + 1e-12)
    assert found.value == pytest.approx(math.sqrt(2), rel=1e-3)


def test_equal_laws_from_different_points():
    """The distance of the points is not 0, that of the laws is: the bounds say so."""
    law = one([0.0, 0.0], np.eye(2))
    x = law.sample(20_000, seed=2)
    mine = quantise(x, np.ones(len(x)), 300)
    found = wasserstein_bounds(mine, law.quantised(300), cloud(law, 300))
    assert found.lower == 0.0
    between = wasserstein_points(mine, law.quantised(300))
    assert between == pytest.approx(math.hypot(mine.spread, law.quantised(300).spread), rel=0.1)
    assert between < found.upper < 1.5 * between
    assert found.value < 0.35 * between  # and the sample is off by some 0.02


def test_upper_bound_for_any_measures():
    """sqrt(LP² + q² + q²) and the triangle inequality against the linear program on all points; nothing Gaussian."""
    rng = np.random.default_rng(5)
    for _ in range(20):
        x, y = rng.exponential(size=(150, 2)), rng.normal(size=(150, 2)) ** 3 * rng.uniform(0.1, 1)
        v, w = rng.exponential(size=150), rng.exponential(size=150)
        exact = wasserstein_points(quantise(x, v, 1000), quantise(y, w, 1000))
        first, second = quantise(x, v, 16), quantise(y, w, 16)
        found = wasserstein_bounds(first, second, second)
        assert found.lower <= exact <= found.upper
        # the triangle inequality alone would say at least this
        assert found.upper < found.lower + 2 * (first.spread + second.spread)


def test_quantised_points_are_barycentres():
    rng = np.random.default_rng(7)
    x, w = rng.normal(size=(5000, 2)) * [1.0, 0.2] + 3.0, rng.exponential(size=5000)
    w[::7] = 0.0
    law = quantise(x, w, 64)
    assert len(law.points) == 64
    mean = w @ x / w.sum()
    np.testing.assert_allclose(law.weights @ law.points, mean, rtol=1e-12)
    kept = np.cov(law.points.T, aweights=law.weights, ddof=0)
    lost = np.trace(np.cov(x.T, aweights=w, ddof=0)) - np.trace(kept)
    assert law.spread == pytest.approx(math.sqrt(lost), rel=1e-9)
    # not much worse than the best possible (Zador: 2 sqrt(σ₁σ₂/n) for a Gaussian)
    assert law.spread < 1.15 * 2 * math.sqrt(0.2 / 64)
    turned = rng.permutation(5000)
    np.testing.assert_array_equal(quantise(x[turned], w[turned], 64).points, law.points)
    with_volumes = quantise(x, w, 64, np.full(5000, 0.01))
    assert with_volumes.spread**2 == pytest.approx(law.spread**2 + 2 / 12 * 0.01)
    assert len(quantise(np.ones((5, 1)), np.ones(5), 3).points) == 1  # nothing to divide
    with pytest.raises(ValueError, match="without mass"):
        quantise(x, np.zeros(5000), 10)


def test_distance_on_the_line():
    x, F = one([0.0], [[1.0]]).distribution()
    y, G = one([0.1], [[1.21]]).distribution()
    assert wasserstein_tables(x, F, y, G) == pytest.approx(math.hypot(0.1, 0.1), rel=1e-5)
    assert wasserstein_tables(x, F, x + 0.1, F) == pytest.approx(0.1, rel=1e-12)
    # against the quantile integral, for a mixture
    law = GaussianMixture([0.3, 0.7], [[-1.0], [1.0]], [[[0.04]], [[0.09]]])
    z = np.linspace(-8, 8, 400_001)
    place, H = law.distribution()
    square = np.trapezoid((np.interp(norm.cdf(z), H, place) - z) ** 2 * norm.pdf(z), z)
    assert wasserstein_tables(x, F, *law.distribution()) == pytest.approx(math.sqrt(square), rel=1e-4)


def test_distance_on_the_line_with_gaps_and_atoms():
    """Half at [0, 1], half at [4, 5] against uniform on [0, 2]; a point against a uniform law."""
    x, F = np.array([0.0, 1.0, 4.0, 5.0]), np.array([0.0, 0.5, 0.5, 1.0])
    assert wasserstein_tables(x, F, np.array([0.0, 2.0]), np.array([0.0, 1.0])) == pytest.approx(math.sqrt(9 / 2))
    atom = GaussianMixture([1.0], [[0.5]], [[[0.0]]])
    found = wasserstein_tables(*atom.distribution(), np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    assert found == pytest.approx(math.sqrt(1 / 12), rel=1e-9)
