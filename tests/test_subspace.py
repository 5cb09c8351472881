"""Restrictions to subspaces: three independent ways to the same numbers, minima, and what is neglected."""

from __future__ import annotations

import tracemalloc

import flint
import jax.numpy as jnp
import numpy as np
import pytest

import fpsolve as fp
from fpsolve.errors import InputError
from fpsolve.model.callable_loss import callable_landscape
from fpsolve.model.chain import sgd_chain
from fpsolve.model.process import FormulaLandscape
from fpsolve.model.samples import SampleLandscape
from fpsolve.model.subspace import Restriction, find_minimum, neglected, restrict
from fpsolve.simulate.compiled import sample_gradient_code

NAMES = ["a", "b", "c", "e", "f"]
MODEL = "a*tanh(b*x + c) + e*x + f"
ORIGIN = [0.3, -0.4, 0.1, 0.7, -0.2]
DIRECTIONS = [[1.0, 0.5, 0.0, -1.0, 0.2], [0.0, 2.0, 1.0, 0.3, 0.0]]
T = np.array([[0.0, 0.0], [0.7, -1.1], [-0.4, 0.3]])


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(5)
    x = rng.uniform(-2, 2, 12)
    return {"x": x, "y": np.tanh(2 * x) + 0.3 * rng.normal(size=12)}


@pytest.fixture(scope="module")
def full(data) -> SampleLandscape:
    return fp.sample_landscape(MODEL, NAMES, ["x"], "y", None, data)


def given(data):
    """Return the same landscape as Python functions with typed derivatives."""

    def parts(w, x, y):
        s = np.tanh(w[1] * x + w[2])
        u = 1 - s**2
        one = np.ones_like(s)
        model = [s, w[0] * u * x, w[0] * u, x * one, one]
        second = np.zeros((5, 5, *s.shape))
        second[0, 1] = second[1, 0] = u * x
        second[0, 2] = second[2, 0] = u
        second[1, 1], second[2, 2] = -2 * w[0] * s * u * x**2, -2 * w[0] * s * u
        second[1, 2] = second[2, 1] = -2 * w[0] * s * u * x
        return w[0] * s + w[3] * x + w[4] - y, model, second

    def hessian(w, x, y):
        r, m, second = parts(w, x, y)
        return [[m[i] * m[j] + r * second[i, j] for j in range(5)] for i in range(5)]

    def gradient(w, x, y):
        r, m, _ = parts(w, x, y)
        return [r * entry for entry in m]

    return callable_landscape(lambda w, x, y: parts(w, x, y)[0] ** 2 / 2, data, NAMES, gradient, hessian)


def by_jax(data):
    def loss(w, x, y):
        return (w[0] * jnp.tanh(w[1] * x + w[2]) + w[3] * x + w[4] - y) ** 2 / 2

    return callable_landscape(loss, data, NAMES)


def test_formula_function_and_jax_agree_on_a_subspace(data, full):
    small = restrict(full, ORIGIN, DIRECTIONS, variables=["s", "t"])
    assert small.variables == ("s", "t") and isinstance(small, SampleLandscape) and isinstance(small, Restriction)
    v = small.subspace.basis
    np.testing.assert_allclose(v.T @ v, np.eye(2), atol=1e-15)
    np.testing.assert_allclose(v[:, 0], np.array(DIRECTIONS[0]) / np.linalg.norm(DIRECTIONS[0]), rtol=1e-14)
    theta = small.subspace.points(T)
    every = small.statistics(T)
    np.testing.assert_allclose(small.loss(T), full.loss(theta), rtol=1e-13)
    np.testing.assert_allclose(every.gradient, full.gradient(theta) @ v, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(every.hessian, v.T @ full.hessian(theta) @ v, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(every.covariance, v.T @ full.covariance(theta) @ v, rtol=1e-12, atol=1e-14)
    index = np.array([[3, 3], [0, 11], [7, 1]])
    for other in (given(data), by_jax(data)):
        restricted = restrict(other, ORIGIN, DIRECTIONS)
        assert restricted.variables == ("t1", "t2") and restricted.samples == 12 and restricted.enclosure() is None
        again = restricted.statistics(T)
        np.testing.assert_allclose(restricted.loss(T), small.loss(T), rtol=1e-12)
        for name, expected in vars(every).items():
            np.testing.assert_allclose(getattr(again, name), expected, rtol=1e-10, atol=1e-13)
        expected = np.take_along_axis(other.sample_gradients(theta), index[:, :, None], axis=1) @ v
        np.testing.assert_allclose(restricted.sample_gradients(T, index), expected, rtol=1e-11, atol=1e-14)
        assert sgd_chain(restricted, 0.1).law == "samples"


def test_divergence_on_the_subspace_is_the_contraction_of_all_first_derivatives(full):
    """(div_t VᵀQV)_i = Σ V_ki V_lj V_mj ∂_m Q_kl, with ∂Q from the enclosures of the full landscape."""
    small = restrict(full, ORIGIN, DIRECTIONS)
    v = small.subspace.basis
    for t, theta, found in zip(T, small.subspace.points(T), small.covariance_divergence(T), strict=True):
        box = [flint.arb(float(c)) for c in theta]
        third = np.array([float(ball.mid()) for ball in full.enclosure().covariance_derivative(box)]).reshape(5, 5, 5)
        np.testing.assert_allclose(found, np.einsum("ki,lj,mj,klm->i", v, v, v, third), rtol=1e-11, atol=1e-14)
        ball = small.enclosure().covariance([flint.arb(float(c), 0.01) for c in t])
        values = small.covariance(t + 0.01 * np.random.default_rng(0).uniform(-1, 1, (20, 2))).reshape(-1, 4)
        for enclosed, column in zip(ball, values.T, strict=True):
            assert float(enclosed.lower()) <= column.min() and column.max() <= float(enclosed.upper())


def test_formulas_on_a_subspace():
    """Q is quadratic, so central differences of it are exact up to rounding."""
    names = ["a", "b", "c", "e"]
    q = [
        ["1 + a**2", "b*c", "0", "0"],
        ["b*c", "2 + e**2", "a*e", "0"],
        ["0", "a*e", "3", "0"],
        ["0", "0", "0", "b**2"],
    ]
    full = fp.SGD("a**4 + sin(b)*c + exp(e) + a*b*e", q, names, epsilon2=0.1).landscape
    small = restrict(full, [0.1, 0.2, 0.3, 0.4], [[1, 2, 0, 1], [0, 1, 1, 1], [1, 0, 0, -3]])
    v, t = small.subspace.basis, np.random.default_rng(0).normal(size=(4, 3))
    theta = small.subspace.points(t)
    assert isinstance(small, FormulaLandscape) and small.variables == ("t1", "t2", "t3")
    np.testing.assert_allclose(small.loss(t), full.loss(theta), rtol=1e-13)
    np.testing.assert_allclose(small.gradient(t), full.gradient(theta) @ v, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(small.hessian(t), v.T @ full.hessian(theta) @ v, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(small.covariance(t), v.T @ full.covariance(theta) @ v, rtol=1e-12, atol=1e-13)
    total = sum((small.covariance(t + e / 2) - small.covariance(t - e / 2))[:, :, j] for j, e in enumerate(np.eye(3)))
    np.testing.assert_allclose(small.covariance_divergence(t), total, rtol=1e-11, atol=1e-12)
    plain = fp.SGD("a**2 + b**2 + c**2 + e**4", "identity", names, epsilon2=0.1).landscape
    process = fp.sgd_process(restrict(plain, [0, 0, 0, 0], [[1, 1, 1, 0], [0, 0, 1, 2]]), fp.noise_level(epsilon2=0.1))
    assert process.isotropic and process.constant_diffusion
    assert all(bound.verified for bound in fp.bounds.sharp_bounds(process, fp.Ball((0.0, 0.0), 0.5), budget=2.0))


def test_memory_on_a_subspace_is_bounded_by_all_parameters():
    """Thirty parameters: the Hessians of a full block are 144 MB and their halves besides; allowed are 32 MB in all."""
    d, rng = 30, np.random.default_rng(0)
    inputs, target = rng.normal(size=(20_000, d)), rng.normal(size=20_000)

    def residual(w, x, y):
        return sum(w[i] * x[i] for i in range(d)) - y

    linear = callable_landscape(
        lambda w, x, y: residual(w, x, y) ** 2 / 2,
        [inputs, target],
        [f"w{i}" for i in range(d)],
        lambda w, x, y: [residual(w, x, y) * x[i] for i in range(d)],
        lambda w, x, y: [x[i] * x[j] for i in range(d) for j in range(i, d)],
    )
    line = restrict(linear, np.zeros(d), [np.eye(d)[3]])
    tracemalloc.start()
    found = line.hessian(np.zeros((1, 1)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80e6
    np.testing.assert_allclose(found[:, 0, 0], np.mean(inputs[:, 3] ** 2), rtol=1e-12)


def test_what_is_neglected(full):
    small = restrict(full, ORIGIN, DIRECTIONS)
    v, theta = small.subspace.basis, small.subspace.points(T)
    out = np.eye(5) - v @ v.T
    found = neglected(small, T)
    g, q = full.gradient(theta), full.covariance(theta)
    np.testing.assert_allclose(found.drift, np.linalg.norm(g @ out, axis=1), rtol=1e-12)
    np.testing.assert_allclose(
        found.drift_share, np.linalg.norm(g @ out, axis=1) / np.linalg.norm(g, axis=1), rtol=1e-12
    )
    noise = np.trace(out @ q, axis1=1, axis2=2)
    np.testing.assert_allclose(found.noise, noise, rtol=1e-10)
    np.testing.assert_allclose(found.noise_share, noise / np.trace(q, axis1=1, axis2=2), rtol=1e-10)
    every = restrict(fp.SGD("x**2 + y**4", epsilon2=0.1).landscape, [0, 0], [[1, 1], [1, -1]])
    nothing = neglected(every, np.array([[0.0, 0.0], [1.0, 2.0]]))
    assert np.abs([nothing.drift, nothing.drift_share, nothing.noise, nothing.noise_share]).max() < 1e-14
    with pytest.raises(InputError, match=r"fpsolve\.restrict"):
        neglected(full, T)


def test_leading_directions_at_a_minimum(full):
    small = restrict(full, [1.0, 2.0, 0.0, 0.0, 0.0], leading=2)
    o, v = small.subspace.origin, small.subspace.basis
    assert np.linalg.norm(full.gradient(o[None])) < 1e-13
    eigenvalues, vectors = np.linalg.eigh(full.hessian(o[None])[0])
    assert eigenvalues[0] > 1e-3
    np.testing.assert_allclose(small.hessian(np.zeros((1, 2)))[0], np.diag(eigenvalues[:2:-1]), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(np.abs(np.sum(v * vectors[:, :2:-1], axis=0)), 1, rtol=1e-9)
    assert (v[np.abs(v).argmax(axis=0), [0, 1]] > 0).all()


def test_a_degenerate_minimum_of_an_interpolating_model():
    """Two samples, five parameters: L = 0 on a surface of dimension three, where Q vanishes."""
    full = fp.sample_landscape(MODEL, NAMES, ["x"], "y", None, {"x": [0.5, -1.0], "y": [1.0, 2.0]})
    minimum = find_minimum(full, ORIGIN)
    assert full.loss(minimum[None])[0] < 1e-25
    assert fp.covariance_spectrum(full, minimum[None]).rank[0] == 0
    small = restrict(full, ORIGIN, leading=2)
    spectrum = fp.covariance_spectrum(small, np.array([[0.0, 0.0], [0.3, 0.2]]))
    assert spectrum.bound == 1 and spectrum.rank.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("change", "key", "part"),
    [
        ({"origin": [1.0]}, "subspace.origin", "5 numbers"),
        ({"origin": "abc"}, "subspace.origin", "5 numbers"),
        ({"leading": 2}, "subspace", "either"),
        ({"directions": None}, "subspace", "either"),
        ({"directions": None, "leading": 4}, "subspace.leading", "1 to 3"),
        ({"directions": []}, "subspace.directions", "one to 3"),
        ({"directions": [[1.0, 0.0]]}, r"subspace.directions[0]", "5 numbers"),
        ({"directions": [[0.0] * 5]}, "subspace.directions[0]", "not zero"),
        ({"directions": [DIRECTIONS[0], [2 * c for c in DIRECTIONS[0]]]}, "subspace.directions[1]", "independent"),
        ({"variables": ["s"]}, "subspace.variables", "2 names"),
        ({"variables": ["s", "x"]}, "subspace.variables", "columns"),
        ({"variables": ["s", "exp"]}, "subspace.variables", "not a function"),
    ],
)
def test_wrong_values_are_named(full, change, key, part):
    with pytest.raises(InputError, match=part) as caught:
        restrict(full, **({"origin": ORIGIN, "directions": DIRECTIONS} | change))
    assert caught.value.key == key


def test_a_start_without_a_minimum():
    slope = fp.SGD("exp(-x**2) + y + 0*x", epsilon2=0.1).landscape
    with pytest.raises(InputError, match="near a minimum") as caught:
        restrict(slope, [1.0, 0.0], leading=1)
    assert caught.value.key == "subspace.origin"
    edge = fp.SGD("x - log(x) + y**2", epsilon2=0.1).landscape  # minimum at (1, 0), no loss for x <= 0
    np.testing.assert_allclose(find_minimum(edge, [20.0, 3.0]), [1.0, 0.0], atol=1e-12)
    with pytest.raises(InputError, match="loss is finite"):
        find_minimum(edge, [-1.0, 0.0])


def test_tiny_components_fit_into_compiled_code(full):
    """1e-9 as a fraction has a denominator of 83 bits, machine integers have 64: fractions must be folded before."""
    small = restrict(full, [1e-5, 0.3, 1e-9, 0.1, 0.2], [[1, 1e-7, -0.2, 3e-5, 1], [0, 0, 10, 3e-5, 1]])
    gradient = sample_gradient_code(small)(T[1], np.ascontiguousarray(small.table.T[4]))
    np.testing.assert_allclose(gradient, small.sample_gradients(T[1:2])[0, 4], rtol=1e-12)
