"""The law of linear chains, exactly known, by the transposed transfer operator; invariant measures and gaps."""

import numpy as np
import pytest
from scipy.linalg import solve_discrete_lyapunov
from scipy.stats import norm

import fpsolve as fp
from fpsolve.errors import InputError
from fpsolve.model.initial import PointStart
from fpsolve.model.process import formula_landscape

ETA = 0.2
HESSIAN, NOISE = np.array([[1, 0.3], [0.3, 2]]), np.array([[1, 0.3], [0.3, 0.5]])
STEP = np.eye(2) - ETA * HESSIAN
CHAIN = fp.sgd_chain(formula_landscape("x**2/2 + 0.3*x*y + y**2", [["1", "0.3"], ["0.3", "0.5"]], ["x", "y"]), ETA, 1)
BOX = fp.Box((-3, -3), (3, 3))
OU = fp.sgd_chain(formula_landscape("x**2/2", "identity", ["x"]), ETA, 1)  # x' = 0.8 x + 0.2 ξ


def law_after(steps: int, mean: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    for _ in range(steps):
        mean, covariance = STEP @ mean, STEP @ covariance @ STEP.T + ETA**2 * NOISE
    return mean, covariance


def test_linear_chain_from_a_gaussian(comm):
    mean, covariance = np.array([1.0, -0.5]), np.array([[0.05, 0.01], [0.01, 0.08]])
    start = fp.gaussian_start(mean, covariance)
    found = fp.chain_evolve(CHAIN, BOX, start, steps=[1, 8], comm=comm, size=0.25, observables=["x**2"], batches=32)
    assert [record.steps for record in found.records] == [0, 1, 8]
    np.testing.assert_allclose(found.times, [0, ETA, 8 * ETA])
    for record in found.records:
        exact_mean, exact = law_after(record.steps, mean, covariance)
        assert abs(record.mass - 1) <= 1e-12
        assert record.minimum >= 0
        np.testing.assert_allclose(record.mean, exact_mean, atol=1e-9)
        np.testing.assert_allclose(record.covariance, exact, atol=2e-3 * exact.max())
        assert record.observables[0] == pytest.approx(exact[0, 0] + exact_mean[0] ** 2, rel=2e-3)


def test_point_and_density_in_one_dimension(comm):
    """Mean and variance, and the density itself against the normal one."""
    line = fp.Interval(-2.5, 2.5)
    found = fp.chain_evolve(OU, line, PointStart((1.0,)), times=[5 * ETA], comm=comm, size=0.05)
    variance = sum(ETA**2 * 0.8 ** (2 * k) for k in range(5))
    record = found.records[-1]
    assert abs(record.mass - 1) <= 1e-12
    np.testing.assert_allclose([record.mean[0], record.covariance[0, 0]], [0.8**5, variance], rtol=1e-6)
    x = np.linspace(-0.8, 1.5, 30)[:, None]
    np.testing.assert_allclose(
        found.density(-1).at(x), norm.pdf(x[:, 0], 0.8**5, np.sqrt(variance)), atol=0.02 * norm.pdf(0) / variance**0.5
    )
    start = fp.density_start("exp(-4*x**2)", ["x"])
    first = fp.chain_evolve(OU, line, start, steps=[0], comm=comm, size=0.05).records[0]
    np.testing.assert_allclose(first.covariance[0, 0], 0.125, rtol=1e-2)


def test_absorbing_boundary_accounts_for_all_mass(comm):
    """Left and lost make 1; summed survival is the mean exit time of the same operator."""
    line = fp.Interval(-0.5, 0.4)
    found = fp.chain_evolve(
        OU, line, PointStart((0.05,)), steps=range(1, 400), comm=comm, size=0.05, boundary="absorbing"
    )
    for record in found.records:
        assert abs(record.mass + record.killed - 1) <= 1e-12
        assert record.minimum >= 0
    survival = np.array([record.mass for record in found.records])
    assert (np.diff(survival) <= 0).all() and survival[-1] < 1e-9
    exit_time = fp.chain_exit_time(OU, line, comm=comm, starts=[[0.05]], size=0.05, degree=1)
    assert survival.sum() == pytest.approx(exit_time.mean_steps[0], rel=1e-8)


def test_invariant_measure_and_gap_of_the_linear_chain(comm):
    found = fp.chain_steady(CHAIN, BOX, comm=comm, size=0.2, batches=32)
    exact = solve_discrete_lyapunov(STEP, ETA**2 * NOISE)
    assert found.masses.min() >= 0
    assert abs(found.masses.sum() - 1) <= 1e-12
    assert found.residual <= 1e-13
    np.testing.assert_allclose(found.mean, 0, atol=1e-9)
    np.testing.assert_allclose(found.covariance, exact, atol=1e-3 * exact.max())
    slowest = np.linalg.eigvals(STEP).real.max()
    np.testing.assert_allclose(found.eigenvalues[:3].real, [1, slowest, slowest**2], rtol=1e-3)
    assert found.spectral_gap == pytest.approx(-np.log(slowest) / ETA, rel=1e-3)
    assert found.unique


def test_variance_of_the_scalar_chain(comm):
    """η²Q/(1 - (1 - ηλ)²), not the diffusion's ηQ/(2λ)."""
    found = fp.chain_steady(OU, fp.Interval(-2.5, 2.5), comm=comm, size=0.06)
    assert found.covariance[0, 0] == pytest.approx(ETA**2 / (1 - 0.8**2), rel=1e-6)
    assert abs(found.covariance[0, 0] - ETA / 2) > 0.01


def test_two_closed_classes_are_not_called_unique(comm):
    """Steps bounded by 0.075 keep the chain in the well it starts in."""
    data = {"t": np.array([-0.5, 0.5])}
    landscape = fp.sample_landscape("(x**2 - 1)**2 + x*0", ["x"], [], "t", "model - t*0 + t*0*model", data)
    found = fp.chain_steady(fp.sgd_chain(landscape, 0.05, 1), fp.Interval(-1.6, 1.6), comm=comm, size=0.05)
    assert not found.unique
    assert found.spectral_gap == 0
    assert found.messages


def test_wrong_questions(comm):
    start = PointStart((0.0, 0.0))
    together = {"times": [1.0, 1.0001]}  # both are the same step
    wrong = ({}, {"times": [1.0], "steps": [1]}, {"steps": [3, 1]}, {"steps": [1], "boundary": "periodic"}, together)
    for options in wrong:
        with pytest.raises(InputError):
            fp.chain_evolve(CHAIN, BOX, start, comm=comm, size=0.5, **options)
    with pytest.raises(InputError, match="a point of the domain"):
        fp.chain_evolve(CHAIN, BOX, PointStart((4.0, 0.0)), steps=[1], comm=comm, size=0.5)
    with pytest.raises(InputError, match="eigenvalues"):
        fp.chain_steady(CHAIN, BOX, comm=comm, size=0.5, eigenvalues=1)
    pole = fp.sgd_chain(formula_landscape("x - log(x)", "identity", ["x"]), ETA)
    with pytest.raises(InputError, match="are finite"):
        fp.chain_steady(pole, fp.Interval(0.0, 3.0), comm=comm, size=0.5)
    with pytest.raises(InputError, match="are finite"):
        fp.chain_exit_time(pole, fp.Interval(0.0, 3.0), comm=comm, size=0.5, degree=1)
