"""Momentum SGD in phase space: coefficients, its invariant density, and the chain it models."""

import math

import numpy as np
import pytest
import sympy

import fpsolve as fp
from fpsolve.errors import InputError
from fpsolve.model.expressions import Formula
from fpsolve.model.momentum import KineticProcess, MomentumSGD, as_kinetic, stationary_log_density

WELL = "(x**2 - 1)**2/4"


def quadratic() -> KineticProcess:
    return MomentumSGD("2*x**2", variables=["x"], learning_rate=0.04, momentum=0.9, batch_size=5)


def test_coefficients():
    """η = 0.04, ξ = 0.9, b = 5: g = 0.1/0.2 = 0.5, D = 0.2/10 = 0.02."""
    p = quadratic()
    assert p.variables == ("x", "v_x") and p.dimension == 2
    x = np.array([[1.0, 3.0], [-2.0, 0.5]])
    assert p.drift(x) == pytest.approx(np.array([[3.0, -4 - 1.5], [0.5, 8 - 0.25]]), rel=1e-15)
    assert p.diffusion(x) == pytest.approx(np.array([[[0, 0], [0, 0.02]]] * 2), rel=1e-15)
    assert (p.divergence(x) == 0).all()
    assert (p.friction, p.noise, p.step_time) == (0.5, 0.02, 0.2)
    assert p.constant_diffusion and not p.isotropic
    assert p.landscape is None and p.epsilon2 is None


def test_numbers_are_exact():
    """0.04 is 1/25 and its root 1/5, not a float: linear drifts are recognised as such."""
    p = quadratic()
    assert isinstance(p.drift, Formula) and isinstance(p.diffusion, Formula)
    x, v = sympy.symbols("x v_x", real=True)
    assert p.drift.entries == (v, -4 * x - v / 2)
    assert p.diffusion.entries == (0, 0, 0, sympy.Rational(1, 50))
    q = MomentumSGD("x**2", variables=["x"], learning_rate=0.1, momentum=0.9, batch_size=1)
    assert q.drift.entries[1] == -2 * x - v * sympy.sqrt(10) / 10


def test_covariance_of_the_position():
    p = MomentumSGD(WELL, [["1 + x**2"]], ["x"], learning_rate=1.0, momentum=0.5, batch_size=2)
    x = np.array([[2.0, 7.0]])
    assert p.diffusion(x)[0].tolist() == [[0, 0], [0, 1.25]]
    assert p.divergence(x).tolist() == [[0, 0]]  # a depends on x but diffuses v
    assert not p.constant_diffusion
    assert stationary_log_density(p) is None


@pytest.mark.parametrize("loss", ["2*x**2", WELL, "x**2/2 + cos(3*x)", "log(1 + x**2)"])
def test_stationary_density_solves_the_kinetic_equation(loss):
    """A*ψ = 0 for ψ = exp(-(g/D)(L + v²/2)): ∂_w(v ψ) + ∂_v((-L' - g v) ψ) - D ∂_v²ψ, exactly."""
    p = MomentumSGD(loss, variables=["x"], learning_rate=0.04, momentum=0.9, batch_size=5)
    log = stationary_log_density(p)
    assert log is not None and log.variables == p.variables
    assert log(np.array([[1.0, 2.0]])) == pytest.approx(-25 * (p.potential.loss(np.array([[1.0]])) + 2), rel=1e-14)
    x, v = sympy.symbols("x v_x", real=True)
    (u,), (_, force), noise = log.entries, p.drift.entries, p.diffusion.entries[3]
    # divided by ψ: a derivative of ψ is one of the logarithm times ψ
    remainder = v * u.diff(x) + force.diff(v) + force * u.diff(v) - noise * (u.diff(v, 2) + u.diff(v) ** 2)
    assert sympy.simplify(remainder) == 0


def test_covariance_of_the_quadratic_case():
    """K of C K + K Cᵀ = 2 a is diag(D/(g λ), D/g), as the stationary density says, λ = L''."""
    p = quadratic()
    c = -np.array(sympy.Matrix(p.drift.entries).jacobian(sympy.symbols("x v_x", real=True)), dtype=float)
    k = np.diag([0.02 / (0.5 * 4), 0.02 / 0.5])
    assert c @ k + k @ c.T == pytest.approx(2 * p.diffusion(np.zeros((1, 2)))[0], abs=1e-16)
    hessian = np.array(stationary_log_density(p).derivative().derivative().entries, dtype=float).reshape(2, 2)
    assert hessian == pytest.approx(-np.linalg.inv(k), rel=1e-14)


def test_the_chain_itself():
    """z ← ξz - η(λw + n), w ← w + z, n of variance 1/b: variance of w after k steps against the diffusion at k√η."""
    eta, xi, b, lam = 1e-4, 0.99, 4, 2.0
    p = MomentumSGD("x**2", variables=["x"], learning_rate=eta, momentum=xi, batch_size=b)
    rng = np.random.default_rng(1)
    z, w, steps = np.zeros(20000), np.full(20000, 0.5), 150
    for _ in range(steps):
        z = xi * z - eta * (lam * w + rng.normal(size=w.size) / math.sqrt(b))
        w = w + z
    t = steps * p.step_time
    c = np.array([[0.0, -1.0], [lam, p.friction]])
    mean = _expm(-c * t) @ np.array([0.5, 0.0])
    s = np.linspace(0, t, 4001)
    parts = np.array([_expm(-c * r)[:, 1] for r in s])
    cov = np.trapezoid(2 * p.noise * parts[:, :, None] * parts[:, None, :], s, axis=0)
    sample = np.array([w, z / math.sqrt(eta)])
    assert sample.mean(axis=1) == pytest.approx(mean, abs=0.01)
    assert np.cov(sample) == pytest.approx(cov, abs=0.04 * np.abs(cov).max())


def _expm(m):
    values, vectors = np.linalg.eig(m)
    return (vectors @ np.diag(np.exp(values)) @ np.linalg.inv(vectors)).real


def test_kinetic_form_of_formulas():
    """The kinetic equation typed in as drift and diffusion has the same invariant density."""
    p = fp.diffusion_process(["v", "w - w**3 - 0.5*v"], [["0", "0"], ["0", "0.25"]], ["w", "v"])
    log = stationary_log_density(p)
    w, v = sympy.symbols("w v", real=True)
    assert sympy.expand(log.entries[0] + 2 * (w**4 / 4 - w**2 / 2 + v**2 / 2)) == 0
    kinetic = as_kinetic(p)
    assert (kinetic.friction, kinetic.noise, kinetic.step_time) == (0.5, 1.0, None)
    assert kinetic.potential.loss(np.array([[2.0]])) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("drift", "diffusion"),
    [
        (["-v", "w - v"], [["0", "0"], ["0", "1"]]),  # the position does not follow v
        (["v", "w - v**3"], [["0", "0"], ["0", "1"]]),  # friction not linear
        (["v", "w - w*v"], [["0", "0"], ["0", "1"]]),  # friction not constant
        (["v", "w + v"], [["0", "0"], ["0", "1"]]),  # negative friction
        (["v", "w"], [["0", "0"], ["0", "1"]]),  # none
        (["v", "sin(w) - v"], [["0", "0"], ["0", "1"]]),  # not a polynomial
        (["v", "w - v"], [["0.1", "0"], ["0", "1"]]),  # noise in the position
        (["v", "w - v"], [["0", "0"], ["0", "1 + v**2"]]),  # noise depends on v
        (["v", "w - v"], [["0", "0"], ["0", "1 + w**2"]]),  # or w
        (["v", "w - v"], [["0", "0"], ["0", "0"]]),  # no noise
    ],
)
def test_other_processes_have_no_such_density(drift, diffusion):
    assert stationary_log_density(fp.diffusion_process(drift, diffusion, ["w", "v"])) is None


def test_processes_that_are_not_kinetic():
    assert stationary_log_density(fp.SGD("x**2 + y**2", epsilon2=0.1)) is None
    assert as_kinetic(fp.diffusion_process(["-x"], [["1"]], ["x"])) is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"learning_rate": 0}, "learning_rate = 0: expected a positive number"),
        ({"learning_rate": -1.0}, "learning_rate = -1.0: expected a positive number"),
        ({"learning_rate": math.inf}, "learning_rate = inf: expected a positive number"),
        ({"learning_rate": math.nan}, "learning_rate = nan: expected a positive number"),
        ({"learning_rate": True}, "learning_rate = True: expected a positive number"),
        ({"momentum": 1.0}, r"momentum = 1.0: expected a number in \[0, 1\)"),
        ({"momentum": -0.1}, r"momentum = -0.1: expected a number in \[0, 1\)"),
        ({"momentum": "0.9"}, r"momentum = '0.9': expected a number in \[0, 1\)"),
        ({"batch_size": 0}, "batch_size = 0: expected an integer of at least 1"),
        ({"batch_size": 1.5}, "batch_size = 1.5: expected an integer"),
        ({"loss": "x**2 + q"}, "Unknown symbol 'q'"),
        ({"covariance": [["1", "0"], ["0", "1"]]}, "a 1 × 1 matrix"),
        ({"variables": ["x", "y"], "loss": "x*y"}, "one position variable with momentum.*2 velocities make 4 dimens"),
        ({"variables": ["x", "v_x"], "loss": "x"}, "one position variable"),
    ],
)
def test_wrong_input(change, why):
    given = {"loss": "x**2", "variables": ["x"], "learning_rate": 0.1, "momentum": 0.9, "batch_size": 1}
    with pytest.raises(InputError, match=why):
        MomentumSGD(**(given | change))
