"""Exit times of chains by their transfer operator against independent answers."""

from mpi4py import MPI

import numpy as np
import pytest
from chain_reference import discrete_exit_steps, gaussian_exit_moments

import fpsolve as fp
from fpsolve.errors import InputError, NoFiniteAnswer, NotConverged
from fpsolve.fem import resolvent
from fpsolve.model.process import formula_landscape

ETA = 0.1
OU = fp.sgd_chain(formula_landscape("x**2/2", "identity", ["x"]), ETA, 1)  # x' = 0.9 x + 0.1 ξ
LINE = fp.Interval(-0.5, 0.4)
THREE = fp.sample_landscape("a", ["a"], [], "t", None, {"t": np.array([-1.0, 0.2, 0.9])})


def thesis() -> tuple:
    """The landscape of the thesis and the disc round its spurious minimum."""
    x = np.linspace(-15, 15, 30)
    noise = np.random.default_rng(0).uniform(-3, 3, (30, 20))
    y = 1 + x * (1 + 5 / (1 + np.exp(-x)))
    data = {"x": np.repeat(x, 20), "y": (y[:, None] + noise).ravel()}
    formula = "a**2 + x*(1 + b/(1 + exp(-a*x)))"
    center = (-5.63687, 2.96346)
    return fp.sample_landscape(formula, ["a", "b"], ["x"], "y", None, data), fp.Ball(center, 1.5), center


def simulated(domain: fp.Ball, center: tuple, eta: float, paths: int) -> np.ndarray:
    """Return exit times of SGD with batches of one, by a loop of its own."""
    x, y = (column for column in thesis()[0].table)
    rng = np.random.default_rng(1)
    theta, alive = np.tile(center, (paths, 1)), np.arange(paths)
    times = np.zeros(paths)
    while len(alive):
        k = rng.integers(len(y), size=len(alive))
        (a, b), inputs = theta[alive].T, x[k]
        s = 1 / (1 + np.exp(-a * inputs))
        residual = a**2 + inputs * (1 + b * s) - y[k]
        gradient = np.column_stack([2 * a + b * inputs**2 * s * (1 - s), inputs * s]) * residual[:, None]
        theta[alive] -= eta * gradient
        times[alive] += eta
        alive = alive[np.linalg.norm(theta[alive] - center, axis=1) <= domain.radius]
    return times


@pytest.mark.parametrize(("degree", "order"), [(1, 1.5), (2, 3.0), (3, 4.0), (4, 5.0)])
def test_gaussian_chain_against_nystrom(comm: MPI.Intracomm, degree, order):
    """Orders over three meshes and honest errors, of two moments."""
    exact = np.array(gaussian_exit_moments(0.9, 0.1, -0.5, 0.4, 0.05))
    sizes, errors = (0.1, 0.05, 0.025), []
    for size in sizes:
        found = fp.chain_exit_time(OU, LINE, comm=comm, starts=[[0.05]], size=size, degree=degree, moments=2)
        error = np.abs(found.moments[0] / [ETA, ETA**2] - exact) * [ETA, ETA**2]
        assert (error <= found.error[0]).all()
        errors.append(error[0])
    assert np.polyfit(np.log(sizes), np.log(errors), 1)[0] >= order
    assert errors[-1] <= {1: 5e-3, 2: 1e-5, 3: 1e-7, 4: 1e-8}[degree] * exact[0] * ETA
    assert found.standard_deviation[0] / ETA == pytest.approx(np.sqrt(exact[1] - exact[0] ** 2), rel=1e-2)
    np.testing.assert_allclose(found.at([[0.05], [0.39999]])[0], found.mean[0], rtol=1e-12)
    assert found.at([[0.41]])[0] == 0
    assert found.u.at(np.array([[0.05]]))[0] == pytest.approx(found.mean[0], rel=1e-2)


@pytest.mark.parametrize("radius", [1.0, 1.3])
def test_long_exit_times(comm, radius):
    """1e5 and 1e8 steps: I - P is singular to 1e-5 and 1e-8; the residual says what is left."""
    exact = gaussian_exit_moments(0.9, 0.1, -radius, radius, 0.0)[0]
    found = fp.chain_exit_time(OU, fp.Interval(-radius, radius), comm=comm, size=0.05, degree=4)
    assert found.mean_steps[0] == pytest.approx(exact, rel=1e-4)
    assert abs(found.mean_steps[0] - exact) * ETA <= found.error[0, 0]
    assert found.residual <= 1e-6


def test_small_steps_are_solved_with_a_preconditioner(comm, monkeypatch, caplog):
    """Where GMRES alone stagnates, an incomplete factorisation helps to the same answer."""
    chain = fp.sgd_chain(formula_landscape("x**2/2", "identity", ["x"]), 0.02)
    options = {"comm": comm, "starts": [[0.1]], "size": 0.02, "degree": 1}
    plain = fp.chain_exit_time(chain, fp.Interval(-0.25, 0.25), **options)
    monkeypatch.setattr(resolvent, "ITERATIONS", 12)
    with caplog.at_level("INFO", logger="fpsolve"):
        helped = fp.chain_exit_time(chain, fp.Interval(-0.25, 0.25), **options)
    assert "incomplete factorisation" in caplog.text
    assert np.allclose(helped.mean, plain.mean, rtol=1e-9)
    assert helped.residual <= 1e-6
    exact = 0.02 * gaussian_exit_moments(0.98, 0.02, -0.25, 0.25, 0.1)[0]
    assert abs(helped.mean[0] - exact) <= helped.error[0, 0]
    # a residual that is not small enough is no answer
    monkeypatch.setattr(resolvent, "ACCEPT", 1e-30)
    with pytest.raises(NotConverged, match="residual"):
        fp.chain_exit_time(chain, fp.Interval(-0.25, 0.25), **options)


def test_three_samples_against_a_fine_grid(comm):
    """Three steps only: the solution jumps everywhere. The estimate covers the error on every mesh."""
    chain = fp.sgd_chain(THREE, 0.15, 1)
    exact = discrete_exit_steps([(0.85, 0.15 * t) for t in (-1.0, 0.2, 0.9)], -0.55, 0.5, 0.1)
    coarse = discrete_exit_steps([(0.85, 0.15 * t) for t in (-1.0, 0.2, 0.9)], -0.55, 0.5, 0.1, grid=10_001)
    assert abs(coarse / exact - 1) < 2e-3
    for degree in (1, 2, 3):
        found = fp.chain_exit_time(chain, fp.Interval(-0.55, 0.5), comm=comm, starts=[[0.1]], size=0.003, degree=degree)
        assert found.batches == "all 3 batches"
        assert abs(found.mean_steps[0] - exact) <= found.error[0, 0] / 0.15 + 2e-3 * exact
        assert found.mean_steps[0] == pytest.approx(exact, rel=0.03)


def test_values_that_do_not_move_are_no_evidence(comm):
    """One of three samples leads out from nearly everywhere: u = 3, but for a gap that coarse meshes do not see."""
    data = {"x": np.array([1.242, 0.654, 1.2225]), "y": np.array([0.0513, -0.7019, 0.9299])}
    chain = fp.sgd_chain(fp.sample_landscape("tanh(a*x)", ["a"], ["x"], "y", None, data), 0.4615, 1)
    asked = {"domain": fp.Interval(-0.1919, 0.5315), "starts": [[0.1698]], "comm": comm}
    exact = fp.chain_exit_time(chain, **asked, size=1e-4)
    assert 2.98 < exact.mean_steps[0] < 2.99 and exact.error[0, 0] < 1e-4 * exact.mean[0]
    coarse = fp.chain_exit_time(chain, **asked, size=0.02)
    assert coarse.mean_steps[0] == pytest.approx(3.0, rel=1e-12)
    refined = fp.chain_exit_time(chain, **asked, tolerance=1e-2)
    assert refined.converged and refined.cells > coarse.cells
    for found in (coarse, refined):
        assert abs(found.mean[0] - exact.mean[0]) <= found.error[0, 0] <= 0.03 * exact.mean[0]


@pytest.mark.parametrize("replacement", [True, False])
def test_error_of_the_choice_of_batches(comm, replacement):
    """Quasi-random batches of two against all of them: the difference is within the reported error."""
    rng = np.random.default_rng(5)
    data = {"x": rng.normal(size=40), "y": rng.normal(size=40)}
    landscape = fp.sample_landscape("a*x", ["a"], ["x"], "y", None, data)
    minimum = float(data["x"] @ data["y"] / (data["x"] @ data["x"]))
    domain = fp.Interval(minimum - 0.5, minimum + 0.4)
    chain = fp.sgd_chain(landscape, 0.2, 2, replacement)
    every = fp.chain_exit_time(chain, domain, comm=comm, size=0.02)
    some = fp.chain_exit_time(chain, domain, comm=comm, size=0.02, batches=64)
    assert every.batches.startswith("all ")
    assert every.batch_error.max() == 0
    difference = abs(some.mean[0] - every.mean[0])
    assert 0 < difference <= some.batch_error[0, 0]
    assert some.batch_error[0, 0] <= 0.2 * every.mean[0]


def test_two_parameter_model_against_the_simulated_chain(comm):
    """SGD itself on the thesis model, η = 0.002, b = 1: inside the 95 % interval of the simulation."""
    landscape, domain, center = thesis()
    chain = fp.sgd_chain(landscape, 0.002, 1)
    found = fp.chain_exit_time(chain, domain, comm=comm, starts=[center], size=0.2, moments=2)
    times = simulated(domain, center, 0.002, 100_000)
    assert abs(found.mean[0] - times.mean()) <= 1.96 * times.std() / np.sqrt(len(times))
    assert found.standard_deviation[0] == pytest.approx(times.std(), rel=0.02)
    assert found.error[0, 0] <= 0.02 * found.mean[0]


def test_same_on_any_number_of_ranks(comm):
    chain = fp.sgd_chain(thesis()[0], 0.002, 1)
    domain, center = thesis()[1:]
    every = fp.chain_exit_time(chain, domain, comm=comm, starts=[center], size=0.4)
    alone = fp.chain_exit_time(chain, domain, comm=MPI.COMM_SELF, starts=[center], size=0.4)
    np.testing.assert_allclose(every.moments, alone.moments, rtol=1e-9)
    assert comm.allgather(every.mean[0]) == [every.mean[0]] * comm.size


def test_noise_in_one_direction_only(comm):
    """Q = diag(1, 0): y only decays, x leaves as in one dimension; no density, so quasi-random Gaussian steps."""
    flat = formula_landscape("x**2/2 + y**2/2", [["1", "0"], ["0", "0"]], ["x", "y"])
    exact = gaussian_exit_moments(0.9, 0.1, -0.5, 0.4, 0.05)[0]
    box = fp.Box((-0.5, -0.5), (0.4, 0.5))
    found = fp.chain_exit_time(fp.sgd_chain(flat, ETA, 1), box, comm=comm, starts=[[0.05, 0.0], [0.05, 0.3]], size=0.2)
    assert "Sobol" in found.batches
    assert (np.abs(found.mean_steps - exact) <= found.error[:, 0] / ETA).all()
    np.testing.assert_allclose(found.mean_steps, exact, rtol=0.03)


def test_noise_that_vanishes_at_a_node(comm):
    """No density at x = 1/2, a node that is none of those where the quadrature is tried out."""
    chain = fp.sgd_chain(formula_landscape("x**2/2", [["(x - 1/2)**2"]], ["x"]), 0.5, 1)
    asked = {"domain": fp.Interval(-1.0, 1.0), "starts": [[0.9]], "comm": comm}
    found = fp.chain_exit_time(chain, **asked, size=0.02)
    assert "Sobol" in found.batches
    rng, x, alive, steps = np.random.default_rng(2), np.full(2000, 0.9), np.arange(2000), np.zeros(2000)
    while len(alive):
        x[alive] = 0.5 * x[alive] + 0.5 * (x[alive] - 0.5) * rng.standard_normal(len(alive))
        steps[alive] += 1
        alive = alive[np.abs(x[alive]) <= 1]
    error = (found.error[0, 0] + 3 * 0.5 * steps.std() / np.sqrt(2000)) / found.mean[0]
    assert abs(0.5 * steps.mean() / found.mean[0] - 1) <= error < 0.15


def test_a_disc_given_by_the_loss(comm):
    landscape = formula_landscape("x**2/2 + y**2/2", "identity", ["x", "y"])
    chain = fp.sgd_chain(landscape, ETA, 1)
    domains = (fp.Ball((0, 0), 0.6), fp.Sublevel(landscape, 0.18, (0, 0), (-1, -1), (1, 1)))
    ball, bowl = (fp.chain_exit_time(chain, domain, comm=comm, size=0.2) for domain in domains)
    assert bowl.mean[0] == pytest.approx(ball.mean[0], rel=1e-4)
    ring = np.column_stack([np.cos(np.arange(5)), np.sin(np.arange(5))])  # on another mesh, by quasi-random steps
    other = fp.chain_exit_time(chain, domains[0], comm=comm, starts=0.4 * ring, size=0.15, degree=2, batches=64)
    assert (np.abs(other.mean - ball.at(0.4 * ring)) <= other.error[:, 0]).all()
    np.testing.assert_allclose(other.mean, ball.at(0.4 * ring), rtol=0.03)


def test_wrong_questions(comm):
    def ask(chain: object = OU, domain: object = LINE, **options: object) -> None:
        fp.chain_exit_time(chain, domain, comm=comm, **options)

    for key, options in {
        "exit.starts": {"starts": [[2.0]]},
        "domain.reflecting": {"domain": fp.Interval(-1, 1, ("left",))},
        "domain": {"domain": fp.Ball((0, 0), 1)},
        "mesh.degree": {"degree": 5},
        "mesh.size": {"size": 5.0},
        "batches": {"batches": 100},
        "process.momentum": {"chain": fp.sgd_chain(OU.landscape, 0.1, 1, momentum=0.5)},
    }.items():
        with pytest.raises(InputError) as caught:
            ask(**options)
        assert caught.value.key == key
    with pytest.raises(NoFiniteAnswer, match="cannot leave"):
        ask(fp.sgd_chain(THREE, 0.15, 1), fp.Interval(-2, 2), starts=[[0.0]])
