"""Approximations of the gradient covariance."""

from pathlib import Path

import numpy as np
import pytest
from flint import arb

import fpsolve as fp
from fpsolve.errors import InputError
from fpsolve.model.chain import sgd_chain
from fpsolve.model.covariance_models import KINDS, covariance_model
from fpsolve.model.process import FormulaLandscape, formula_landscape, noise_level, sgd_process
from fpsolve.model.third_order import differences

FORMULA = formula_landscape("1 + x**2 + y**4/4 + y**2", [["2 + x**2", "x*y/5"], ["x*y/5", "1 + y**2"]], ("x", "y"))
DATA = Path(__file__).parents[1] / "demos" / "two_parameter_model" / "data.csv"
MINIMUM = np.array([-5.63687, 2.96346])
OFFSETS = np.random.default_rng(2).uniform(-1, 1, (10, 2))


@pytest.fixture(scope="module")
def model():
    data = fp.read_csv(DATA, ["x", "y"])
    return fp.sample_landscape("a**2 + x*(1 + b/(1 + exp(-a*x)))", ["a", "b"], ["x"], "y", None, data)


@pytest.fixture(params=["formula", "samples"])
def case(request, model):
    return (FORMULA, np.zeros(2)) if request.param == "formula" else (model, MINIMUM)


def approximation(landscape, kind, center, x):
    """The definitions, written out."""
    if kind == "constant":
        return np.broadcast_to(landscape.covariance(center[None])[0], (len(x), 2, 2))
    if kind == "loss-proportional":
        return 2 * landscape.loss(x)[:, None, None] * landscape.hessian(center[None])[0]
    q = landscape.covariance(x)
    return 0.5 * (q[:, 0, 0] + q[:, 1, 1])[:, None, None] * np.eye(2)


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_derivatives(case, kind):
    landscape, center = case
    made = covariance_model(landscape, kind, at=None if kind == "isotropic" else center)
    x = center + OFFSETS
    expected = approximation(landscape, kind, center, x)
    np.testing.assert_allclose(made.covariance(x), expected, rtol=1e-13)
    divergence = np.einsum("nijj->ni", differences(made.covariance, x))
    np.testing.assert_allclose(made.covariance_divergence(x), divergence, atol=1e-10 * np.abs(expected).max())
    for name in ("loss", "gradient", "hessian"):
        np.testing.assert_array_equal(getattr(made, name)(x), getattr(landscape, name)(x))
    assert isinstance(made, FormulaLandscape) == isinstance(landscape, FormulaLandscape)


@pytest.mark.parametrize("kind", KINDS)
def test_enclosures_hold_the_values(case, kind):
    landscape, center = case
    made = covariance_model(landscape, kind, at=center)
    enclosure, radius = made.enclosure(), 1e-3
    box = [arb(float(c), radius) for c in center]
    x = center + radius * OFFSETS
    for found, values in (
        (enclosure.covariance(box), made.covariance(x)),
        (enclosure.covariance_derivative(box), differences(made.covariance, x)),
    ):
        rows = values.reshape(len(x), -1).T
        assert len(found) == len(rows)
        for ball, row in zip(found, rows, strict=True):
            middle, reach = float(ball.mid()), float(ball.rad())
            assert np.isfinite(reach) and np.all(np.abs(row - middle) <= reach + 1e-9 * np.abs(rows).max())


def test_used_as_any_landscape(model):
    """By the diffusion, its bounds and the chain, which has no samples left and so Gaussian noise."""
    made = covariance_model(model, "loss-proportional", at=MINIMUM)
    chain = sgd_chain(made, 0.001)
    assert chain.law == "gaussian" and chain.samples is None
    process = sgd_process(made, noise_level(learning_rate=0.001))
    x = MINIMUM + OFFSETS
    np.testing.assert_allclose(chain.step_covariance(x), 0.002 * process.diffusion(x))
    formula = sgd_process(covariance_model(FORMULA, "isotropic"), noise_level(epsilon2=0.2))
    found = fp.bounds.sharp_bounds(formula, fp.Ball((0.0, 0.0), 0.5), budget=4.0)
    assert all(bound.verified for bound in found)


@pytest.mark.parametrize(
    ("kind", "at", "key"),
    [
        ("diagonal", (0.0, 0.0), "process.covariance"),
        ("constant", None, "process.covariance_at"),
        ("constant", (0.0,), "process.covariance_at"),
        ("constant", (0.0, np.nan), "process.covariance_at"),
        ("loss-proportional", (1.0, 0.0), "process.covariance_at"),
    ],
)
def test_unusable_input_is_named(kind, at, key):
    saddle = formula_landscape("1 + (x - 1)**2 - y**2", "identity", ("x", "y"))
    with pytest.raises(InputError) as caught:
        covariance_model(saddle, kind, at=at)
    assert caught.value.key == key
