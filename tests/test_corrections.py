"""Better diffusion models of the chain: their coefficients, their order in η, the two-parameter model."""

from pathlib import Path

import gaussian_chain
import numpy as np
import pytest
from scipy.linalg import solve_continuous_lyapunov, solve_discrete_lyapunov

import fpsolve as fp
from fpsolve.errors import InputError
from fpsolve.model.chain import sgd_chain
from fpsolve.model.corrections import (
    EXIT_MODELS,
    OVERSHOOT,
    ModifiedEquation,
    corrected,
    exit_model,
    second_order,
    shifted,
)
from fpsolve.model.moved import Moved
from fpsolve.model.process import formula_landscape
from fpsolve.model.third_order import covariance_slope, differences, loss_third

FORMULA = formula_landscape(
    "x**2 + y**4/4 + x*y/2 + sin(x*y)/3", [["2 + sin(x)", "x*y/5"], ["x*y/5", "1 + y**2"]], ("x", "y")
)
DATA = Path(__file__).parents[1] / "demos" / "two_parameter_model" / "data.csv"
MINIMUM = (-5.63687, 2.96346)
POINTS = np.random.default_rng(1).uniform(-1, 1, (20, 2))


@pytest.fixture(scope="module")
def model():
    data = fp.read_csv(DATA, ["x", "y"])
    return fp.sample_landscape("a**2 + x*(1 + b/(1 + exp(-a*x)))", ["a", "b"], ["x"], "y", None, data)


class Bare:
    """A landscape of which nothing is known but its values."""

    variables = FORMULA.variables
    loss = staticmethod(FORMULA.loss)
    gradient = staticmethod(FORMULA.gradient)
    hessian = staticmethod(FORMULA.hessian)
    covariance = staticmethod(FORMULA.covariance)
    covariance_divergence = staticmethod(FORMULA.covariance_divergence)

    def enclosure(self):
        return None


# --- coefficients ----------------------------------------------------------------------------------------------------


def test_third_derivatives_and_slope_of_q(model):
    for landscape, x in ((FORMULA, POINTS), (model, np.array(MINIMUM) + POINTS)):
        third, slope = loss_third(landscape)(x), covariance_slope(landscape)(x)
        np.testing.assert_allclose(third, differences(landscape.hessian, x), atol=1e-10 * np.abs(third).max())
        np.testing.assert_allclose(slope, differences(landscape.covariance, x), atol=1e-10 * np.abs(slope).max())
        np.testing.assert_allclose(third, third.transpose(0, 3, 1, 2), atol=1e-10 * np.abs(third).max())
        divergence = landscape.covariance_divergence(x)
        np.testing.assert_allclose(np.einsum("nijj->ni", slope), divergence, atol=1e-12 * np.abs(divergence).max())


def test_modified_equation_to_second_order():
    """f̃ exactly; ã = a + (η/2)(Ha + aH - ∇L·∇a) up to O(η²): the difference falls with the square of η."""
    h, g, q = FORMULA.hessian(POINTS), FORMULA.gradient(POINTS), FORMULA.covariance(POINTS)
    along = np.einsum("nijk,nk->nij", covariance_slope(FORMULA)(POINTS), g)
    eta = np.array([0.04, 0.02, 0.01])
    errors = []
    for e in eta:
        chain = sgd_chain(FORMULA, e, 3, extra_noise=0.2)
        a, da = e / 6 * q + 0.1 * e * np.eye(2), e / 6 * along
        np.testing.assert_allclose(corrected(chain).drift(POINTS), -g - e / 2 * np.einsum("nij,nj->ni", h, g))
        errors.append(np.abs(corrected(chain).diffusion(POINTS) - a - e / 2 * (h @ a + a @ h - da)).max() / e)
    order = np.polyfit(np.log(eta), np.log(errors), 1)[0]
    assert 1.9 < order < 2.1


@pytest.mark.parametrize("kind", ["formula", "samples", "samples without replacement"])
def test_divergence_of_the_modified_diffusion(model, kind):
    landscape, x = (FORMULA, POINTS) if kind == "formula" else (model, np.array(MINIMUM) + POINTS)
    eta = 0.05 if kind == "formula" else 0.001
    process = corrected(sgd_chain(landscape, eta, 2, kind != "samples without replacement", extra_noise=0.1))
    exact = np.einsum("nijj->ni", differences(process.diffusion, x))
    np.testing.assert_allclose(process.divergence(x), exact, atol=1e-9 * np.abs(exact).max())
    np.testing.assert_allclose(process.beta(x), exact - process.drift(x), atol=1e-9 * np.abs(process.drift(x)).max())


def test_modified_diffusion_is_a_covariance_for_any_step():
    """Also where η|H| is far above 1, and where Q has rank one."""
    landscape = formula_landscape("x**4 - 3*x**2 + y**2 + x*y", [["1", "x"], ["x", "x**2"]], ("x", "y"))
    a = corrected(sgd_chain(landscape, 3.0)).diffusion(3 * POINTS)
    values = np.linalg.eigvalsh(a)
    assert np.array_equal(a, a.transpose(0, 2, 1))
    assert (values[:, 0] >= -1e-13 * values[:, 1]).all()


def test_stationary_covariance_of_a_linear_chain():
    """The chain's K = (I - ηH)K(I - ηH) + 2ηa; the corrected model is right to second order, the others to first."""
    h = np.array([[2.0, 0.5], [0.5, 0.7]])
    q = np.array([[1.0, -0.4], [-0.4, 0.5]])
    landscape = formula_landscape("x**2 + 0.35*y**2 + 0.5*x*y", q.tolist(), ("x", "y"))
    zero, eta = np.zeros((1, 2)), np.array([0.2, 0.1, 0.05])
    errors = {"plain": [], "second order": [], "corrected": []}
    for e in eta:
        chain = sgd_chain(landscape, e)
        exact = solve_discrete_lyapunov(np.eye(2) - e * h, e**2 * q)
        for name, process in zip(errors, (chain.diffusion(), second_order(chain), corrected(chain)), strict=True):
            c = -differences(process.drift, zero)[0]
            k = solve_continuous_lyapunov(c, 2 * process.diffusion(zero)[0])
            errors[name].append(np.abs(k - exact).max() / np.abs(exact).max())
    order = {name: np.polyfit(np.log(eta), np.log(values), 1)[0] for name, values in errors.items()}
    print(errors, order)
    assert errors["corrected"][0] < 0.02 and 1.9 < order["corrected"] < 2.3
    assert errors["plain"][0] > 0.08 and 0.9 < order["plain"] < 1.2
    assert errors["second order"][0] > 0.15 and 0.8 < order["second order"] < 1.1


def test_landscape_without_formulas():
    exact, measured = corrected(sgd_chain(FORMULA, 0.05)), corrected(sgd_chain(Bare(), 0.05))
    np.testing.assert_array_equal(measured.diffusion(POINTS), exact.diffusion(POINTS))
    np.testing.assert_allclose(measured.divergence(POINTS), exact.divergence(POINTS), rtol=1e-9, atol=1e-11)


# --- orders in η, at fixed ε² ----------------------------------------------------------------------------------------

PROBLEMS = {
    # loss, its derivative, Q; ε² = 1/4
    "constant": ("x**2/2", lambda x: x, "1", lambda x: 1 + 0 * x),
    "varying": ("x**2/2 + x**3/6", lambda x: x + x**2 / 2, "1 + x/2 + x**2/4", lambda x: 1 + x / 2 + x**2 / 4),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_orders_on_an_interval(comm, problem):
    """Plain 1/2, shifted 1; corrected 1 with a smaller constant.

    With Q constant nothing of first order is left but η/4, the mean square of the overshoot about its mean (Siegmund
    1979) times the time of a step: u + η/4 is right up to O(η^{3/2}).
    """
    loss, slope, noise, q = PROBLEMS[problem]
    eta = np.array([0.04, 0.01, 0.0025])
    exact, found = [], {name: [] for name in ("diffusion", "shifted", "corrected")}
    for e in eta:
        asked = (lambda x, e=e: x - e * slope(x), lambda x, e=e: 0.5 * e * q(x), e, -1.0, 1.0, 0.2)
        exact.append(gaussian_chain.interval_met(*asked, 500))
        assert abs(gaussian_chain.interval_met(*asked, 400) - exact[-1]) < 1e-9
        chain = sgd_chain(formula_landscape(loss, [[f"{0.5 / e:.17g}*({noise})"]], ["x"]), e)
        for name, values in found.items():
            process, domain = exit_model(chain, fp.Interval(-1.0, 1.0), name)
            values.append(fp.mean_exit_time(process, domain, comm=comm, starts=[[0.2]], tolerance=1e-7).mean[0])
    error = {name: np.array(values) / exact - 1 for name, values in found.items()}
    order = {name: fitted(eta, values) for name, values in error.items()}
    print(error, order)
    assert -0.08 < error["diffusion"][-1] < -0.07 and 0.4 < order["diffusion"] < 0.55
    assert 0.003 < error["shifted"][-1] < 0.004 and 0.95 < order["shifted"] < 1.15
    assert np.abs(error["corrected"]).max() < 0.015 and np.abs(error["corrected"][-1]) < 0.0015
    assert order["corrected"] > 1.0
    if problem == "constant":
        assert fitted(eta, np.array(found["corrected"]) + eta / 4 - exact) > 1.4


def fitted(sizes, errors):
    return np.polyfit(np.log(sizes), np.log(np.abs(errors)), 1)[0]


# --- the two-parameter model -----------------------------------------------------------------------------------------


def test_exit_of_the_gaussian_chain_on_the_two_parameter_model(comm, model):
    """η = 0.002, b = 2: plain off by a third, shifted by more, corrected by a few per mille (the target: 5 %)."""
    chain = sgd_chain(model, 0.002, 2)
    exact = comm.bcast(_chain_met(chain, 0.058) if comm.rank == 0 else None)
    assert abs(exact - 0.664843) < 1e-4  # with spacings 0.055 and 0.05 it is 0.6648433
    ratio = {}
    for name in ("diffusion", "shifted", "corrected"):
        process, domain = exit_model(chain, fp.Ball(MINIMUM, 1.5), name)
        result = fp.mean_exit_time(process, domain, comm=comm, starts=[MINIMUM], tolerance=2e-3)
        assert result.converged
        ratio[name] = result.mean[0] / exact
    print(ratio)
    assert abs(ratio["corrected"] - 1) < 0.01
    assert 0.62 < ratio["diffusion"] < 0.65 and 1.55 < ratio["shifted"] < 1.65


def _chain_met(chain, spacing):
    def mean(x):
        return x - chain.learning_rate * chain.landscape.gradient(x)

    return gaussian_chain.disc_met(mean, chain.step_covariance, chain.learning_rate, np.array(MINIMUM), 1.5, spacing)


# --- what is refused -------------------------------------------------------------------------------------------------


def test_overshoot_constant():
    """-ζ(1/2)/sqrt(2π), ζ by Euler-Maclaurin."""
    n = 1000
    zeta = np.sum(np.arange(1, n) ** -0.5) - 2 * np.sqrt(n) + 0.5 / np.sqrt(n) + n**-1.5 / 24
    assert abs(OVERSHOOT + zeta / np.sqrt(2 * np.pi)) < 1e-12


DISC = fp.Ball((0.0, 0.0), 1.0)
ABS = formula_landscape("x**2*abs(x)", "identity", ["x"])
REFUSED = {
    "unknown name": (lambda: exit_model(sgd_chain(FORMULA, 0.1), DISC, "third-order"), "exit.model"),
    "momentum, boundary": (lambda: shifted(sgd_chain(FORMULA, 0.1, momentum=0.5), DISC), "process.momentum"),
    "momentum, drift": (lambda: second_order(sgd_chain(FORMULA, 0.1, momentum=0.5)), "process.momentum"),
    "momentum": (lambda: corrected(sgd_chain(FORMULA, 0.1, momentum=0.5)), "process.momentum"),
    "large step": (lambda: exit_model(sgd_chain(FORMULA, 1.0), DISC, "corrected"), "exit.model"),
    "moved twice": (lambda: shifted(sgd_chain(FORMULA, 0.1), shifted(sgd_chain(FORMULA, 0.1), DISC)), "exit.model"),
    "third derivative": (lambda: corrected(sgd_chain(ABS, 0.1)).divergence(np.ones((1, 1))), "process.loss"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unusable_input_is_named(case):
    make, key = REFUSED[case]
    with pytest.raises(InputError) as caught:
        make()
    assert caught.value.key == key


def test_models_of_a_chain():
    chain, ball = sgd_chain(FORMULA, 0.01), fp.Ball((0.0, 0.0), 1.0)
    for name in EXIT_MODELS:
        process, domain = exit_model(chain, ball, name)
        assert isinstance(domain, Moved) == (name in ("shifted", "corrected"))
        # bounds of the papers hold for the first-order limit only
        assert (process.landscape is None) == (name in ("second-order", "corrected"))
    normal = np.array([[0.6, 0.8]])
    s = 0.5826 * 0.01 * np.sqrt(normal @ FORMULA.covariance(normal)[0] @ normal.T)[0, 0]
    np.testing.assert_allclose(domain.shift(normal, normal), s, rtol=1e-5)
    assert ModifiedEquation(chain).half == 0.005
