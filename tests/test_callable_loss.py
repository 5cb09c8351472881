"""Losses that are Python functions: against the same loss as a formula, with given derivatives and with JAX's."""

from __future__ import annotations

import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import fpsolve as fp
from fpsolve.errors import InputError, MissingPackage
from fpsolve.model.callable_loss import CallableLandscape, callable_landscape
from fpsolve.model.chain import SampleGradients, sgd_chain
from fpsolve.model.domains import Sublevel
from fpsolve.model.sample_moments import BLOCK

DEMO = Path(__file__).parents[1] / "demos" / "two_parameter_model"
MODEL = "a**2 + x*(1 + b/(1 + exp(-a*x)))"


def loss(theta, x, y):
    a, b = theta
    return (a**2 + x * (1 + b / (1 + np.exp(-a * x))) - y) ** 2 / 2


def loss_for_jax(theta, x, y):
    return (theta[0] ** 2 + x * (1 + theta[1] / (1 + jnp.exp(-theta[0] * x))) - y) ** 2 / 2


def parts(theta, x, y):
    a, b = theta
    s = 1 / (1 + np.exp(-a * x))
    first = s * (1 - s)
    residual = a**2 + x * (1 + b * s) - y
    model = 2 * a + b * x**2 * first, x * s
    second = 2 + b * x**3 * first * (1 - 2 * s), x**2 * first
    return residual, model, second


def gradient(theta, x, y):
    residual, (ma, mb), _ = parts(theta, x, y)
    return residual * ma, residual * mb


def hessian(theta, x, y):
    residual, (ma, mb), (maa, mab) = parts(theta, x, y)
    mixed = ma * mb + residual * mab
    return [[ma * ma + residual * maa, mixed], [mixed, mb * mb]]


def bent(theta, x, y):
    """Return a Hessian that is wrong for some samples only."""
    return [[entry * (1 + 1e-3 * (x > 0)) for entry in row] for row in hessian(theta, x, y)]


@pytest.fixture(scope="module")
def data():
    return fp.read_csv(DEMO / "data.csv", ["x", "y"])


@pytest.fixture(scope="module")
def thesis(data):
    return fp.sample_landscape(MODEL, ["a", "b"], ["x"], "y", None, data)


def of(kind: str, data) -> CallableLandscape:
    if kind == "jax":
        return callable_landscape(loss_for_jax, data, ["a", "b"])
    return callable_landscape(loss, data, ["a", "b"], gradient, hessian)


@pytest.mark.parametrize("kind", ["given", "jax"])
def test_a_function_gives_what_the_formula_gives(kind, data, thesis):
    landscape = of(kind, data)
    x = np.array([[0.7, -1.3], [1.0706, 4.9884], [-5.63687, 2.96346], [-2.0, 0.4], [3.0, -4.0]])
    assert np.allclose(landscape.loss(x), thesis.loss(x), rtol=1e-12)
    for name, expected in vars(thesis.statistics(x)).items():
        got = getattr(landscape, name)(x)
        together = getattr(landscape.statistics(x), name)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-13 * scale)
        np.testing.assert_allclose(together, expected, rtol=1e-10, atol=1e-13 * scale)
    assert isinstance(landscape, SampleGradients) and landscape.samples == 600
    index = np.random.default_rng(0).integers(0, 600, (5, 3))
    every = landscape.sample_gradients(x)
    assert every.shape == (5, 600, 2)
    np.testing.assert_allclose(every.mean(axis=1), thesis.gradient(x), rtol=1e-10, atol=1e-12)
    some = landscape.sample_gradients(x, index)
    np.testing.assert_allclose(some, np.take_along_axis(every, index[:, :, None], axis=1), rtol=1e-12, atol=1e-12)
    assert landscape.sample_gradients(x[:0], index[:0]).shape == (0, 3, 2)
    assert landscape.gradient(x[:0]).shape == (0, 2)


def test_many_samples_run_in_blocks(data):
    several = {name: np.tile(column, 60) for name, column in data.items()}
    assert len(several["x"]) > BLOCK
    x = np.array([[0.7, -1.3], [2.0, 1.0]])
    for kind in ("given", "jax"):
        many, few = of(kind, several).statistics(x), of(kind, data).statistics(x)
        for name, expected in vars(few).items():
            np.testing.assert_allclose(getattr(many, name), expected, rtol=1e-10)


def test_vectors_for_each_sample_and_a_network_for_jax():
    """A network of eight parameters by JAX, against differences; a linear model with typed derivatives."""
    rng = np.random.default_rng(0)
    inputs, target = rng.normal(size=(40, 3)), rng.normal(size=40)

    def network(theta, x, y):
        return 0.5 * (theta[6:] @ jnp.tanh(theta[:6].reshape(2, 3) @ x) - y) ** 2

    deep = callable_landscape(network, {"x": inputs, "y": target}, [f"w{i}" for i in range(8)])
    point, step = rng.normal(size=(1, 8)), 1e-5
    for i, e in enumerate(np.eye(8)):
        change = deep.gradient(point + step * e) - deep.gradient(point - step * e)
        np.testing.assert_allclose(deep.hessian(point)[0, i], change[0] / (2 * step), rtol=1e-7, atol=1e-9)
        moved = [np.cov(deep.sample_gradients(point + s * step * e)[0].T, bias=True) for s in (1, -1)]
        if i == 0:
            total = np.zeros(8)
        total += (moved[0] - moved[1])[:, i] / (2 * step)
    np.testing.assert_allclose(deep.covariance_divergence(point)[0], total, rtol=1e-7, atol=1e-9)
    linear = callable_landscape(
        lambda w, x, y: (w[0] * x[0] + w[1] * x[1] + w[2] * x[2] - y) ** 2 / 2,
        [inputs, target],
        ["u", "v", "w"],
        lambda w, x, y: [(w[0] * x[0] + w[1] * x[1] + w[2] * x[2] - y) * x[i] for i in range(3)],
        lambda w, x, y: [[x[i] * x[j] for j in range(3)] for i in range(3)],
    )
    w = np.array([[0.3, -0.2, 1.0]])
    np.testing.assert_allclose(linear.hessian(w)[0], inputs.T @ inputs / 40, rtol=1e-12)
    residual = inputs @ w[0] - target
    np.testing.assert_allclose(linear.gradient(w)[0], inputs.T @ residual / 40, rtol=1e-12)
    index = np.array([[5, 9]])
    np.testing.assert_allclose(linear.sample_gradients(w, index)[0], (residual[:, None] * inputs)[[5, 9]], rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "key", "part"),
    [
        ({"gradient": lambda t, x, y: (gradient(t, x, y)[0] * 1.001, gradient(t, x, y)[1])}, "gradient", "differences"),
        ({"gradient": lambda t, x, y: gradient(t, x, y)[::-1]}, "gradient", "differences"),
        ({"hessian": bent}, "hessian", "entry"),
        ({"gradient": lambda t, x, y: gradient(t, x, y)[:1]}, "gradient", "2 values"),
        ({"gradient": lambda t, x, y: 1.0}, "gradient", "2 values"),
        ({"hessian": lambda t, x, y: 1.0}, "hessian", "2 rows"),
        ({"sample_loss": lambda t, x, y: "text"}, "sample_loss", "points × samples"),
        ({"sample_loss": lambda t, x, y: np.zeros(3)}, "sample_loss", "points × samples"),
        ({"hessian": None}, "hessian", "both, or neither"),
        ({"gradient": 3}, "gradient", "a function"),
        ({"variables": ["a", "a"]}, "variables", "distinct"),
        ({"variables": []}, "variables", "at least one"),
        ({"check_at": [1.0]}, "check_at", "2 finite"),
        ({"check_at": [1e200, 1.0]}, "check_at", "are finite"),
        ({"data": {"x": [1.0], "y": [2.0]}}, "data", "no noise"),
        ({"data": {"x": [1.0, 2.0], "y": [2.0, np.inf]}}, "data.y", "Row 2"),
        ({"data": {}}, "data", "at least two"),
    ],
)
def test_wrong_functions_and_values_are_named(change, key, part, data):
    given = {
        "sample_loss": loss, "data": data, "variables": ["a", "b"], "gradient": gradient, "hessian": hessian,
    }  # fmt: skip
    with pytest.raises(InputError, match=part) as caught:
        callable_landscape(**(given | change))
    assert caught.value.key == key


def test_functions_that_jax_cannot_differentiate(data, monkeypatch):
    with pytest.raises(InputError, match=r"jax\.numpy"):
        callable_landscape(loss, data, ["a", "b"])  # numpy.exp of a tracer
    with pytest.raises(InputError, match="one number"):
        callable_landscape(lambda t, x, y: t * x, data, ["a", "b"])
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(MissingPackage, match=r"fpsolve\[jax\]"):
        callable_landscape(loss_for_jax, data, ["a", "b"])
    assert callable_landscape(loss, data, ["a", "b"], gradient, hessian).samples == 600


def test_bounds_say_that_nothing_can_be_proven_and_the_chain_has_samples(data):
    landscape = of("given", data)
    process = fp.sgd_process(landscape, fp.noise_level(0.001, 1))
    for domain in (
        fp.Ball((1.07, 4.99), 0.3),
        fp.Box((0.8, 4.5), (1.3, 5.5)),
        Sublevel(landscape, 2.0, (1.07, 4.99), (0.5, 4.0), (2.0, 6.0)),
    ):
        bounds = fp.bounds.all_bounds(process, domain, ("paper", "sharp", "printed"))
        assert len(bounds) == 5 and not any(b.verified for b in bounds)
        assert all("no rigorous enclosure" in b.reason for b in bounds)
    assert sgd_chain(landscape, 0.001).law == "samples"
