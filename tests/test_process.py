"""Processes and their noise: ε², replacement, extra noise, general drift."""

import numpy as np
import pytest

import fpsolve as fp
from fpsolve.errors import InputError
from fpsolve.model.process import noise_level

X = np.random.default_rng(0).uniform(-1, 1, (50, 2))


def test_epsilon2_from_learning_rate_and_batch():
    assert noise_level(learning_rate=0.2, batch_size=4).epsilon2 == pytest.approx(0.025)
    assert noise_level(epsilon2=0.3).epsilon2 == 0.3


def test_without_replacement():
    level = noise_level(learning_rate=0.1, batch_size=10, replacement=False, samples=101)
    assert level.scale == pytest.approx(91 / 100)


def test_coefficients_of_sgd():
    process = fp.SGD("x**4/4 + x*y**2", [["1 + x**2", "x*y"], ["x*y", "1 + y**2"]], epsilon2=0.1)
    x, y = X.T
    np.testing.assert_allclose(process.drift(X), -np.stack([x**3 + y**2, 2 * x * y], axis=1), atol=1e-14)
    np.testing.assert_allclose(process.divergence(X), 0.1 * np.stack([3 * x, 3 * y], axis=1), atol=1e-14)
    np.testing.assert_allclose(process.beta(X), process.divergence(X) - process.drift(X))


def test_noisy_sgd_adds_isotropic_noise():
    """a = ε²Q + (η/2)δI (paper 4.1)."""
    process = fp.SGD("x**2 + y**2", [["1", "0"], ["0", "0"]], learning_rate=0.2, batch_size=2, extra_noise=0.3)
    np.testing.assert_allclose(process.diffusion(X[:1])[0], np.diag([0.05 + 0.03, 0.03]))


def test_general_process():
    process = fp.diffusion_process(["y", "x - x**3 - y"], [["0", "0"], ["0", "0.25 + x**2"]], ["x", "y"])
    np.testing.assert_allclose(process.divergence(X), 0.0, atol=1e-15)
    assert not process.constant_diffusion and process.landscape is None


def test_with_epsilon2_keeps_everything_else():
    process = fp.SGD("x**2 + y**2", epsilon2=0.1)
    np.testing.assert_allclose(fp.with_epsilon2(process, 0.4).diffusion(X), 4 * process.diffusion(X))


@pytest.mark.parametrize(
    "options",
    [
        {}, {"learning_rate": 0.1, "epsilon2": 0.1}, {"epsilon2": 0.0}, {"epsilon2": -1.0}, {"epsilon2": float("nan")},
        {"learning_rate": -0.1}, {"learning_rate": 0.1, "batch_size": 0}, {"learning_rate": 0.1, "batch_size": 1.5},
        {"epsilon2": 0.1, "extra_noise": 0.1}, {"learning_rate": 0.1, "extra_noise": -1},
        {"learning_rate": 0.1, "replacement": False},
        {"learning_rate": 0.1, "batch_size": 7, "replacement": False, "samples": 7},
    ],
)  # fmt: skip
def test_unusable_noise(options):
    with pytest.raises(InputError):
        noise_level(**options)


def test_asymmetric_and_misshapen_covariances():
    with pytest.raises(InputError, match="symmetric"):
        fp.SGD("x**2 + y**2", [["1", "x"], ["y", "1"]], epsilon2=0.1)
    with pytest.raises(InputError, match="2 × 2"):
        fp.SGD("x**2 + y**2", [["1", "0", "0"], ["0", "1", "0"]], epsilon2=0.1)
