"""Linear drift in closed form: against high precision, ordinary differential equations, quadrature and the equation."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from numpy.polynomial.hermite_e import hermegauss
from scipy.integrate import quad, solve_ivp
from scipy.linalg import block_diag, sqrtm

from fpsolve.model.process import SGD, Process, diffusion_process, formula_landscape, noise_level, sgd_process
from fpsolve.theory.gaussian import (
    LinearDiffusion,
    chi_square_entropy,
    kullback_leibler,
    log_density,
    wasserstein,
)
from fpsolve.theory.linear import (
    example4,
    example5,
    example6,
    example7,
    example8,
    kalman_rank,
    linear_diffusion,
    proven_rate,
    structure,
)

KINETIC = LinearDiffusion([[0, -1], [2, 0.7]], [[0, 0], [0, 0.3]], [0, 0])
CHAIN = LinearDiffusion([[0, -1, 0], [0, 0, -1], [1, 2, 2]], np.diag([0, 0, 0.5]), [0, 0, 0])
TILTED = LinearDiffusion([[1.0, 0.4], [-0.3, 2.0]], [[0.2, 0.1], [0.1, 0.05]], [0.5, -1.0])


def random_law(seed: int, d: int, rank: int) -> LinearDiffusion:
    rng = np.random.default_rng(seed)
    C, B = rng.normal(size=(d, d)), rng.normal(size=(d, rank))
    C += (0.3 - np.linalg.eigvals(C).real.min()) * np.eye(d)
    return LinearDiffusion(C, B @ B.T, rng.normal(size=d))


def random_covariance(rng: np.random.Generator, d: int) -> np.ndarray:
    B = rng.normal(size=(d, d))
    return B @ B.T / d + 0.1 * np.eye(d)


# --- recognition ---------------------------------------------------------------------------------------------------


def test_quadratic_loss_with_constant_covariance_is_recognised_exactly() -> None:
    process = SGD("(x**2 + x*y + 2*y**2)/2 + x - 3", [["1", "0.3"], ["0.3", "1"]], epsilon2=0.1)
    law = linear_diffusion(process)
    assert law is not None
    assert np.array_equal(law.C, [[1, 0.5], [0.5, 2]]) and np.allclose(law.a, [[0.1, 0.03], [0.03, 0.1]], rtol=1e-15)
    assert np.allclose(law.x0, [-8 / 7, 2 / 7], rtol=1e-15) and not law.shift.any()
    x = np.random.default_rng(0).normal(size=(7, 2))
    assert np.allclose(process.drift(x), -(x - law.x0) @ law.C.T, rtol=1e-13, atol=1e-14)


def test_general_linear_drift_and_extra_noise_are_recognised() -> None:
    law = linear_diffusion(diffusion_process(["v", "-x - v/3 + 1"], [["0", "0"], ["0", "2/7"]], ("x", "v")))
    assert law is not None
    assert np.allclose(law.C, [[0, -1], [1, 1 / 3]], rtol=1e-16) and np.array_equal(law.x0, [1, 0])
    assert law.rational is not None and law.rational[0][3].denominator == 3
    noisy = linear_diffusion(SGD("x**2/2+y**2", learning_rate=0.2, batch_size=5, extra_noise=0.5))
    assert noisy is not None and np.allclose(noisy.a, (0.02 + 0.05) * np.eye(2))


def test_no_zero_of_the_drift_leaves_a_shift() -> None:
    law = linear_diffusion(diffusion_process(["1 - x", "2"], [["1", "0"], ["0", "1"]], ("x", "y")))
    assert law is not None
    assert np.allclose(law.x0, [1, 0]) and np.allclose(law.shift, [0, 2])
    assert np.allclose(law.mean(3.0, np.array([2.0, 1.0])), [1 + math.exp(-3), 7.0])
    assert law.stationary is None


def hand_made() -> Process:
    landscape = formula_landscape("x**2/2 + y**2/2", "identity", ("x", "y"))
    process = sgd_process(landscape, noise_level(epsilon2=0.1))
    other = {**process.__dict__, "drift": lambda x: -2 * x}
    return Process(**other)


@pytest.mark.parametrize(
    "process",
    [
        SGD("(x**2-1)**2 + y**2", epsilon2=0.1),
        SGD("x**2 + y**2", [["1+x**2", "0"], ["0", "1"]], epsilon2=0.1),
        SGD("abs(x) + y**2", epsilon2=0.1),
        diffusion_process(["-sin(x)", "-y"], [["1", "0"], ["0", "1"]], ("x", "y")),
        diffusion_process(["-x", "-y"], [["1", "0"], ["0", "y**2"]], ("x", "y")),
        hand_made(),
    ],
)
def test_others_are_not(process: Process) -> None:
    assert linear_diffusion(process) is None


def test_unusable_matrices_are_refused() -> None:
    for a in ([[1, 1], [0, 1]], [[1, 2], [2, 1]], [[1, 0, 0]], [[np.nan, 0], [0, 1]]):
        with pytest.raises(ValueError):
            LinearDiffusion(np.eye(2), a, [0, 0])


# --- mean and covariance -------------------------------------------------------------------------------------------


def precise(law: LinearDiffusion, t: float) -> tuple[np.ndarray, np.ndarray]:
    """e^{-Ct} and W(t) by Van Loan's block exponential with 120 digits."""
    d = law.dimension
    with mpmath.workdps(120):
        block = mpmath.zeros(2 * d)
        for i in range(d):
            for j in range(d):
                block[i, j], block[d + i, d + j] = -mpmath.mpf(law.C[i, j]), mpmath.mpf(law.C[j, i])
                block[i, d + j] = 2 * mpmath.mpf(law.a[i, j])
        result = mpmath.expm(block * mpmath.mpf(t), method="taylor")
        noise = result[:d, d:] * result[:d, :d].T
        return np.array(result[:d, :d].tolist(), dtype=float), np.array(noise.tolist(), dtype=float)


@pytest.mark.parametrize("law", [KINETIC, CHAIN, TILTED, example7(), random_law(1, 3, 1)])
@pytest.mark.parametrize("t", [1e-12, 1e-6, 1e-3, 0.1, 1.0, 7.0, 30.0])
def test_moments_against_120_digits(law: LinearDiffusion, t: float) -> None:
    flow, noise = precise(law, t)
    condition = 1 + np.linalg.norm(law.C, 2) * t  # of the exponential: rounding t alone changes it by so much
    assert np.allclose(law.flow(t), flow, rtol=0, atol=2e-15 * condition * np.abs(flow).max())
    assert np.allclose(law.noise(t), noise, rtol=0, atol=1e-14 * np.abs(noise).max())
    if t <= 0.1:  # every entry by itself, down to t^5 of a chain of three
        assert np.allclose(law.noise(t), noise, rtol=1e-12, atol=0)


@pytest.mark.parametrize("law", [KINETIC, CHAIN, TILTED, random_law(2, 4, 2)])
def test_moments_against_their_differential_equations(law: LinearDiffusion) -> None:
    rng, d = np.random.default_rng(0), law.dimension
    m0, S0 = rng.normal(size=d), random_covariance(rng, d)

    def right(t: float, y: np.ndarray) -> np.ndarray:
        S = y[d:].reshape(d, d)
        return np.concatenate([-law.C @ (y[:d] - law.x0), (2 * law.a - law.C @ S - S @ law.C.T).ravel()])

    times = np.array([0.2, 1.0, 4.0])
    path = solve_ivp(right, (0, 4), np.concatenate([m0, S0.ravel()]), "DOP853", times, rtol=1e-11, atol=1e-13).y
    for t, y in zip(times, path.T, strict=True):
        assert np.allclose(law.mean(t, m0), y[:d], rtol=1e-8, atol=1e-9)
        assert np.allclose(law.covariance(t, S0), y[d:].reshape(d, d), rtol=1e-8, atol=1e-9)


def test_large_times_give_the_stationary_covariance() -> None:
    for law in (KINETIC, CHAIN, TILTED, example7()):
        assert law.stationary is not None
        mean, K = law.stationary
        assert np.allclose(law.C @ K + K @ law.C.T, 2 * law.a, atol=1e-14)
        for t in (1e3, 1e9, 1e300, math.inf):
            assert np.allclose(law.noise(t), K, rtol=0, atol=1e-13 * np.abs(K).max())
            assert np.allclose(law.mean(t, mean + 1), mean)
    unstable = LinearDiffusion([[1, 0], [0, -0.1]], np.eye(2), [0, 0])
    assert unstable.stationary is None
    with pytest.raises(ValueError):
        unstable.noise(math.inf)
    with pytest.raises(ValueError):
        unstable.spectrum(2)


def test_the_density_solves_the_equation() -> None:
    law, m0, S0, t = TILTED, np.array([1.0, 0.5]), np.array([[0.3, 0.1], [0.1, 0.2]]), 0.4
    x, h, k = np.array([[0.9, -0.2]]), 1e-3, 1e-4
    e = h * np.eye(2)

    def rho(y: np.ndarray, s: float = t) -> float:
        return float(law.density(s, y, m0, S0)[0])

    change = (rho(x, t + k) - rho(x, t - k)) / (2 * k)
    second = [[(rho(x + e[i] + e[j]) - rho(x + e[i] - e[j]) - rho(x - e[i] + e[j]) + rho(x - e[i] - e[j])) / (4 * h * h)
               for j in range(2)] for i in range(2)]  # fmt: skip

    def outflow(y: np.ndarray, i: int) -> float:
        return float((law.C @ (y[0] - law.x0))[i]) * rho(y)

    drift = sum((outflow(x + e[i], i) - outflow(x - e[i], i)) / (2 * h) for i in range(2))
    assert change == pytest.approx(np.sum(law.a * second) + drift, rel=1e-4)


# --- conditions and structure --------------------------------------------------------------------------------------


def test_kalman_rank_is_about_eigenvectors_of_the_transpose() -> None:
    assert kalman_rank(KINETIC).value == 2 and kalman_rank(KINETIC).verified
    assert kalman_rank(CHAIN).value == 3
    law = LinearDiffusion([[1, 1], [0, 2]], np.diag([1, 0]), [0, 0])
    assert kalman_rank(law).value == 1 and kalman_rank(law).verified
    # as printed, (II) would hold: a moves every eigenvector of C; but it kills (0, 1), an eigenvector of Cᵀ
    assert np.all(np.linalg.norm(law.a @ np.linalg.eig(law.C)[1], axis=0) > 0.5)
    assert np.array_equal(law.C.T @ [0, 1], [0, 2]) and not (law.a @ [0, 1]).any()


def test_rational_formulas_decide_the_rank_where_floating_point_cannot() -> None:
    third = diffusion_process(["-x - y/3 - z/3", "-x/3 - y - z/3", "-x/3 - y/3 - z"],
                              [["1/3", "1/3", "1/3"]] * 3, ("x", "y", "z"))  # fmt: skip
    law = linear_diffusion(third)
    assert law is not None
    assert kalman_rank(law).value == 1 and kalman_rank(law).verified  # (1,1,1) is an eigenvector
    nearly = LinearDiffusion([[1, 1e-13], [1e-13, 2]], np.diag([1, 0]), [0, 0])
    rank = kalman_rank(nearly)
    assert rank.value == 1 and not rank.verified and "exact rank 2" in rank.reason


def test_rates_are_proven_and_not_too_low() -> None:
    for law in (KINETIC, CHAIN, TILTED, random_law(3, 5, 2)):
        found = proven_rate(law.C)
        assert found.verified and law.rate - 1e-6 <= found.value <= law.rate
    jordan = proven_rate(np.array([[1.0, 1.0], [0.0, 1.0]]))
    assert jordan.verified and 1 - 1e-3 < jordan.value < 1


def test_defective_eigenvalues_are_found() -> None:
    unit = np.eye(2)
    assert LinearDiffusion([[1, 1], [0, 1]], unit, [0, 0]).defective
    assert not LinearDiffusion(unit, unit, [0, 0]).defective
    assert LinearDiffusion([[0, -1], [1, 2]], unit, [0, 0]).defective  # critical damping
    assert not LinearDiffusion([[0, -1], [1, 2.01]], unit, [0, 0]).defective
    rng = np.random.default_rng(0)
    T = rng.normal(size=(3, 3))
    C = T @ np.array([[1, 1, 0], [0, 1, 0], [0, 0, 3.0]]) @ np.linalg.inv(T)
    assert LinearDiffusion(C, np.eye(3), np.zeros(3)).defective


def test_spectrum_of_the_generator() -> None:
    values = example4(2, 1.0, 2.0, 0.1).spectrum(10)
    assert np.allclose(values, [0, 1, 1, 2, 2, 2, 3, 3, 3, 3])
    law = LinearDiffusion(np.diag([1.0, 2.5]), np.eye(2), [0, 0])
    assert np.allclose(law.spectrum(7), [0, 1, 2, 2.5, 3, 3.5, 4])
    lam = KINETIC.eigenvalues
    assert np.allclose(np.sort_complex(KINETIC.spectrum(6)[3:]), np.sort_complex([2 * lam[0], 2 * lam[1], sum(lam)]))


@pytest.mark.parametrize("seed", range(5))
def test_structure_of_rotated_blocks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    C0, C3, C1 = KINETIC.C, np.diag([0.5, 3.0]) + 0.1 * rng.normal(size=(2, 2)), rng.normal(size=(2, 2))
    plain = example8(C0, KINETIC.a, C3, C1)
    T = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    law = LinearDiffusion(T @ plain.C @ T.T, T @ plain.a @ T.T, np.zeros(4))
    found = structure(law)
    assert found.diffusive.shape == (4, 2) and found.margin > 1e4
    U, P = found.diffusive, found.deterministic
    assert np.allclose(P.T @ law.C @ U, 0, atol=1e-12) and np.allclose(law.a @ P, 0, atol=1e-12)
    assert np.allclose(np.sort_complex(np.linalg.eigvals(found.C3)), np.sort_complex(np.linalg.eigvals(C3)))
    assert np.allclose(np.sort_complex(np.linalg.eigvals(found.C0)), np.sort_complex(np.linalg.eigvals(C0)))
    K0 = LinearDiffusion(found.C0, found.Q0, np.zeros(2)).stationary[1]
    assert np.allclose(law.stationary[1], U @ K0 @ U.T, atol=1e-12)  # g∞ ⊗ δ₀


def test_structure_of_the_paper_s_examples() -> None:
    assert structure(example4(3, 1.0, 1.0, 0.1)).deterministic.shape == (3, 0)
    assert np.array_equal(structure(example5(3, 1.0, 1.0, 0.1)).deterministic, np.eye(3)[:, 1:])
    assert structure(example6(np.diag([1.0, 2.0]))).diffusive.shape == (2, 0)
    assert np.array_equal(example7().stationary[1], np.diag([1.0, 0.0]))


# --- the paper's closed forms --------------------------------------------------------------------------------------


def test_example_4_and_5() -> None:
    lam, sigma, epsilon2, t = 1.5, 2.0, 0.1, 0.7
    law = example4(2, lam, sigma, epsilon2)
    x = np.array([[0.3, -0.2], [0.0, 0.5]])
    width = epsilon2 * sigma / (lam * 2) * (1 - math.exp(-2 * lam * t))
    assert np.allclose(law.density(t, x, np.zeros(2)), np.exp(-np.sum(x**2, 1) / (2 * width)) / (2 * math.pi * width))
    assert np.trace(law.stationary[1]) == pytest.approx(epsilon2 * sigma / lam)
    law5, m0, s0 = example5(2, lam, sigma, epsilon2), np.array([0.4, 0.2]), 0.05
    var = epsilon2 * sigma / lam * (1 - math.exp(-2 * lam * t))

    def printed(point: np.ndarray) -> float:
        def inner(y: float) -> float:
            start = np.exp(log_density(np.array([[y, point[1] * math.exp(lam * t)]]), m0, s0 * np.eye(2)))[0]
            return math.exp(-((point[0] - y * math.exp(-lam * t)) ** 2) / (2 * var)) * start

        return math.exp(lam * t) / math.sqrt(2 * math.pi * var) * quad(inner, -3, 3, epsabs=1e-13, points=[0.4])[0]

    assert np.allclose(law5.density(t, x, m0, s0 * np.eye(2)), [printed(p) for p in x], rtol=1e-9)


def test_example_6_is_transport() -> None:
    C, t = np.array([[1.0, 0.5], [0.0, 2.0]]), 0.6
    law, S0, x = example6(C), 0.1 * np.eye(2), np.array([[0.1, 0.2]])
    back = x @ np.linalg.inv(law.flow(t)).T
    expected = math.exp(t * np.trace(C)) * np.exp(log_density(back, np.zeros(2), S0))
    assert np.allclose(law.density(t, x, np.zeros(2), S0), expected)


def test_example_7_corrected() -> None:
    law, start, t = example7(), np.array([0.8, -0.5]), 0.3
    assert np.allclose(law.mean(t, start), start * math.exp(-t))
    assert np.allclose(law.covariance(t, np.zeros((2, 2))), np.diag([1 - math.exp(-2 * t), 0]), rtol=1e-14)
    with pytest.raises(ValueError, match="singular"):
        law.density(t, start[None, :], start)
    # as printed the kernel is too narrow by 2, and its mass is not 1
    mass = quad(lambda x: 2 / (math.sqrt(2 * math.pi) * (1 - math.exp(-2 * t))) * math.exp(
        -2 * x**2 / (1 - math.exp(-2 * t))), -9, 9, points=[0])[0]  # fmt: skip
    assert abs(mass - 1) > 0.2


def test_example_8_covariance_is_twice_w() -> None:
    law, t = example8(KINETIC.C, KINETIC.a, np.array([[1.0]])), 0.9

    def integrand(s: float, i: int, j: int) -> float:
        flow = KINETIC.flow(s)
        return float((flow @ KINETIC.a @ flow.T)[i, j])

    W = [[quad(integrand, 0, t, args=(i, j))[0] for j in range(2)] for i in range(2)]
    assert np.allclose(law.covariance(t, np.zeros((3, 3))), block_diag(2 * np.array(W), [[0.0]]), rtol=1e-10)


# --- distances -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 3])
def test_distances_against_quadrature(d: int) -> None:
    rng = np.random.default_rng(d)
    K, m = random_covariance(rng, d), rng.normal(size=d)
    S, n = 0.6 * K + 0.05 * random_covariance(rng, d), m + 0.3 * rng.normal(size=d)
    nodes, weights = hermegauss(60)
    z = np.stack(np.meshgrid(*[nodes] * d, indexing="ij"), -1).reshape(-1, d)
    w = np.prod(np.stack(np.meshgrid(*[weights / weights.sum()] * d, indexing="ij"), -1).reshape(-1, d), axis=1)
    x = m + z @ np.linalg.cholesky(K).T
    ratio = log_density(x, n, S) - log_density(x, m, K)
    assert chi_square_entropy(n, S, m, K) == pytest.approx(0.5 * np.sum(w * np.expm1(ratio) ** 2), rel=1e-8)
    y = n + z @ np.linalg.cholesky(S).T
    gain = np.sum(w * (log_density(y, n, S) - log_density(y, m, K)))
    assert kullback_leibler(n, S, m, K) == pytest.approx(gain, rel=1e-10)
    middle = sqrtm(sqrtm(K) @ S @ sqrtm(K)).real
    bures = np.sum((m - n) ** 2) + np.trace(K + S - 2 * middle)
    assert wasserstein(n, S, m, K) == pytest.approx(math.sqrt(bures), rel=1e-7)
    assert wasserstein(n, S, m, K) == pytest.approx(wasserstein(m, K, n, S), rel=1e-13)


def test_distances_at_their_limits() -> None:
    zero, unit = np.zeros(2), np.eye(2)
    assert chi_square_entropy(zero, 2 * unit, zero, unit) == math.inf
    assert chi_square_entropy(zero, np.diag([1.999, 1.0]), zero, unit) < math.inf
    assert chi_square_entropy(zero, np.diag([1.0, 0.0]), zero, unit) == math.inf
    assert kullback_leibler(zero, np.diag([1.0, 0.0]), zero, unit) == math.inf
    assert chi_square_entropy(zero, unit, zero, unit) == 0 == kullback_leibler(zero, unit, zero, unit)
    with pytest.raises(ValueError):
        chi_square_entropy(zero, unit, zero, np.diag([1.0, 0.0]))
    # small differences keep their digits
    assert chi_square_entropy(np.array([1e-9, 0]), unit, zero, unit) == pytest.approx(5e-19, rel=1e-9)
    assert wasserstein(zero, (1 + 1e-9) ** 2 * unit, zero, unit) == pytest.approx(1e-9 * math.sqrt(2), rel=1e-6)
    assert wasserstein(zero, np.diag([1.0, 0.0]), zero, np.diag([0.0, 1.0])) == pytest.approx(math.sqrt(2))
