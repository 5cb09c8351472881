"""The spectrum of Q: against typed answers, with few samples and at interpolating minima."""

from __future__ import annotations

import numpy as np
import pytest

import fpsolve as fp
from fpsolve.model.covariance_rank import covariance_spectrum


def linear_model(count: int, d: int, seed: int = 0):
    """Return the landscape of (θ·x - y)²/2, inputs (N, d) and targets."""
    rng = np.random.default_rng(seed)
    inputs, target = rng.normal(size=(count, d)), rng.normal(size=count)
    names = [f"w{i}" for i in range(d)]
    data = {f"x{i}": inputs[:, i] for i in range(d)} | {"y": target}
    model = " + ".join(f"w{i}*x{i}" for i in range(d))
    return fp.sample_landscape(model, names, [f"x{i}" for i in range(d)], "y", None, data), inputs, target


@pytest.mark.parametrize(("count", "d"), [(2, 2), (2, 3), (3, 3), (3, 5), (5, 5), (6, 5), (40, 3)])
def test_rank_is_at_most_samples_minus_one(count, d):
    landscape, inputs, target = linear_model(count, d)
    x = np.random.default_rng(1).normal(size=(6, d))
    spectrum = covariance_spectrum(landscape, x)
    assert spectrum.bound == min(d, count - 1) and (spectrum.rank == spectrum.bound).all()
    for point, values in zip(x, spectrum.eigenvalues, strict=True):
        gradients = (inputs @ point - target)[:, None] * inputs
        expected = np.linalg.eigvalsh(np.cov(gradients.T, bias=True))
        np.testing.assert_allclose(values, expected, rtol=1e-10, atol=1e-13 * expected[-1])
    assert (spectrum.eigenvalues[:, : d - spectrum.bound] <= spectrum.threshold[:, None]).all()


@pytest.mark.parametrize(("count", "d"), [(2, 3), (3, 5)])
def test_no_noise_at_an_interpolating_minimum(count, d):
    """N < d: all residuals vanish on a plane, and Q with them; L = 0 there and the Hessian is singular."""
    landscape, inputs, target = linear_model(count, d)
    minimum = np.linalg.lstsq(inputs, target, rcond=None)[0]
    along = np.linalg.svd(inputs)[2][-1]
    x = np.array([minimum, minimum + 3 * along, minimum + 1e-5 * inputs[0]])
    spectrum = covariance_spectrum(landscape, x)
    assert spectrum.rank.tolist() == [0, 0, count - 1]
    assert landscape.loss(x)[:2].max() < 1e-28 and spectrum.eigenvalues[:2].max() < 1e-27
    assert covariance_spectrum(landscape, minimum[None]).eigenvalues.shape == (1, d)


def test_small_eigenvalues_keep_their_digits():
    """Inputs of sizes 1 and 1e-10: λ_min/λ_max = 1e-20 is lost in Q and not in its square root."""
    rng = np.random.default_rng(2)
    u, y = rng.normal(size=(2, 30))
    data = {"x": u, "z": 1e-10 * y**2, "y": y}
    landscape = fp.sample_landscape("a*x + b*z", ["a", "b"], ["x", "z"], "y", None, data)
    spectrum = covariance_spectrum(landscape, np.zeros((1, 2)))
    g = np.column_stack([-y * u, -(y**3)])  # in units of 1 and 1e-10
    expected = np.linalg.det(np.cov(g.T, bias=True)) / np.var(g[:, 0]) * 1e-20
    assert spectrum.eigenvalues[0, 0] == pytest.approx(expected, rel=1e-6)
    assert spectrum.rank[0] == 2


def test_a_formula_and_a_constant_column():
    well = fp.SGD(loss="x**2 + y**2", covariance=[["x**2", "x*y"], ["x*y", "y**2"]], epsilon2=0.1).landscape
    spectrum = covariance_spectrum(well, np.array([[1.0, 2.0], [0.0, 0.0], [3.0, -1.0]]))
    assert spectrum.rank.tolist() == [1, 0, 1] and spectrum.bound == 2
    pole = fp.SGD(loss="x**2", covariance=[["1/x"]], variables=["x"], epsilon2=0.1).landscape
    assert covariance_spectrum(pole, np.array([[0.0], [1.0]])).rank.tolist() == [0, 1]
    data = {"x": np.array([1.0, 2.0]), "y": np.array([0.0, 1.0])}
    root = fp.sample_landscape("sqrt(a)*x", ["a"], ["x"], "y", None, data)
    assert covariance_spectrum(root, np.array([[-1.0], [1.0]])).rank.tolist() == [0, 1]
    np.testing.assert_allclose(spectrum.eigenvalues[:, 1], [5.0, 0.0, 10.0], rtol=1e-14)
    data = {"x": np.full(9, 0.7), "y": np.arange(9.0)}
    flat = fp.sample_landscape("a + b*x", ["a", "b"], ["x"], "y", None, data)
    assert covariance_spectrum(flat, np.zeros((2, 2))).rank.tolist() == [1, 1]
    assert covariance_spectrum(flat, np.zeros((0, 2))).rank.shape == (0,)
