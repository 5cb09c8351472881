"""Exit times of simulated paths: against the exit-time equation and integral equations, on any number of ranks."""

import math

from mpi4py import MPI

import numpy as np
import pytest
from scipy.stats import chi2

import fpsolve as fp
from fpsolve.errors import InputError, NoFiniteAnswer
from fpsolve.model.initial import GaussianStart

SELF = MPI.COMM_SELF
#: u(0) for L = x²/2, ε²Q = 1/2 on (-1, 1): ∫₀¹ 2 e^{r²} ∫₀^r e^{-t²} dt dr
OU, OU_MEAN = fp.SGD("x**2/2", "identity", ["x"], epsilon2=0.5), 1.44524561338
WELL, DISC = fp.SGD("(x**2 - 1)**2 + y**2", epsilon2=0.2), fp.Ball((-1.0, 0.0), 0.8)
LINE = fp.Interval(-1.0, 1.0)
DATA = {"y": np.array([-4.0, -2.0, 2.0, 6.0])}


def chain(**options):
    return fp.sgd_chain(fp.sample_landscape("w", ["w"], [], "y", None, DATA), 0.1, **options)


def hits(mean, runs):
    """How many 95 % intervals hold the mean, and their mean half width relative to it."""
    inside = sum(bool(run.interval[0, 0] <= mean <= run.interval[0, 1]) for run in runs)
    return inside, float(np.mean([np.ptp(run.interval[0]) / 2 for run in runs])) / mean


def test_diffusion_agrees_with_the_exit_time_of_an_ou_process(comm):
    source = fp.EulerMaruyama(OU, 0.004)
    runs = [fp.simulate_exit(source, LINE, [0.0], comm=comm, paths=500, seed=seed) for seed in range(20)]
    inside, width = hits(OU_MEAN, runs)
    assert inside >= 18
    assert width < 0.1


def test_diffusion_agrees_with_the_exit_time_equation_of_a_double_well(comm):
    solved = fp.mean_exit_time(WELL, DISC, comm=comm, starts=[(-1.0, 0.0)], tolerance=2e-3)
    assert solved.converged
    source = fp.EulerMaruyama(WELL, 0.002)
    runs = [fp.simulate_exit(source, DISC, [[-1.0, 0.0]], comm=comm, paths=500, seed=seed) for seed in range(20)]
    inside, width = hits(float(solved.mean[0]), runs)
    assert inside >= 18
    assert width < 0.1


def discrete_ou(eta, epsilon2, nodes=200):
    """E τ from 0 of x' = (1 - η) x + sqrt(2ηε²) ξ leaving (-1, 1): u = η + ∫ k u, Nyström's method."""
    y, weight = np.polynomial.legendre.leggauss(nodes)
    variance = 2 * eta * epsilon2

    def kernel(x):
        return weight * np.exp(-((y - (1 - eta) * x) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)

    u = np.linalg.solve(np.eye(nodes) - np.array([kernel(x) for x in y]), np.full(nodes, eta))
    return eta + kernel(0.0) @ u


def test_gaussian_chain_agrees_with_its_integral_equation(comm):
    eta, epsilon2 = 0.1, 0.5
    exact = discrete_ou(eta, epsilon2)
    assert abs(exact - discrete_ou(eta, epsilon2, 100)) < 1e-10
    assert exact > 1.3 * OU_MEAN  # far from the diffusion
    # Q = 10 and b = 1: ε²Q = 10 η/2
    gaussian = fp.sgd_chain(fp.SGD("x**2/2", [["10"]], ["x"], epsilon2=1.0).landscape, eta, law="gaussian")
    runs = [fp.simulate_exit(gaussian, LINE, [0.0], comm=comm, paths=2000, seed=seed) for seed in range(20)]
    inside, width = hits(exact, runs)
    assert inside >= 18
    assert width < 0.05


def test_sample_is_the_same_on_any_number_of_ranks(comm):
    asked = {"paths": 1201, "seed": 7}
    here = fp.simulate_exit(chain(), LINE, [0.0, 0.5], comm=comm, **asked)
    alone = fp.simulate_exit(chain(), LINE, [0.0, 0.5], comm=SELF, **asked)
    assert np.array_equal(here.times, alone.times) and np.array_equal(here.places, alone.places)
    assert here.steps == alone.steps
    assert here.times.shape == (2, 1201)
    assert not np.array_equal(here.times, fp.simulate_exit(chain(), LINE, [0.0, 0.5], comm=comm, paths=1201).times)
    asked |= {"observables": ["w**2"], "trajectories": 2, "domain": LINE}
    here = fp.simulate_paths(chain(), [0.0], [0.5, 3.0], comm=comm, **asked)
    alone = fp.simulate_paths(chain(), [0.0], [0.5, 3.0], comm=SELF, **asked)
    for name in ("positions", "running", "trajectories"):
        assert np.array_equal(getattr(here, name), getattr(alone, name), equal_nan=True), name


def test_the_first_paths_do_not_depend_on_how_many_follow(comm):
    few, many = (fp.simulate_exit(chain(), LINE, [0.0], comm=comm, paths=n) for n in (500, 1000))
    assert np.array_equal(few.times[0], many.times[0, :500])


def test_exit_sample_holds_statistics_of_the_times(comm):
    sample = fp.simulate_exit(chain(), LINE, [0.0], comm=comm, paths=999)
    times = np.sort(sample.times[0])
    steps = times / 0.1
    assert np.allclose(steps, np.round(steps)) and steps.min() >= 1
    assert sample.steps == round(steps.sum())
    assert sample.mean[0] == pytest.approx(times.mean())
    error = times.std(ddof=1) / math.sqrt(999)
    assert sample.interval[0] == pytest.approx([times.mean() - 1.959964 * error, times.mean() + 1.959964 * error])
    assert sample.quantiles[0] == pytest.approx(times[[49, 249, 499, 749, 949]])
    assert (sample.inside[0], sample.messages, sample.max_time) == (0, (), None)
    assert (np.abs(sample.places) > 1).all()


def test_paths_still_inside_leave_no_plain_mean(comm):
    sample = fp.simulate_exit(chain(), LINE, [0.0], comm=comm, paths=800, max_time=0.95)
    inside = int(np.isinf(sample.times).sum())
    assert 0 < inside == sample.inside[0] < 800
    assert sample.max_time == pytest.approx(1.0)
    assert np.isnan(sample.mean[0]) and np.isnan(sample.interval).all() and np.isnan(sample.standard_deviation[0])
    assert f"{inside} of 800 paths were still inside at time 1:" in sample.messages[0]
    spent, exits = sample.times[np.isfinite(sample.times)].sum() + inside * sample.max_time, 800 - inside
    assert sample.exponential_mean[0] == pytest.approx(spent / exits)
    low, high = 2 * spent / chi2.ppf(0.975, 2 * exits + 2), 2 * spent / chi2.ppf(0.025, 2 * exits)
    assert sample.exponential_interval[0] == pytest.approx([low, high])


def test_densities_of_a_gaussian_chain_are_gaussian(comm):
    # x' = (1 - η) x + sqrt(2ηε²) ξ from N(1, 0.25)
    source = fp.sgd_chain(fp.SGD("x**2/2", [["10"]], ["x"], epsilon2=1.0).landscape, 0.1, law="gaussian")
    start = GaussianStart((1.0,), ((0.25,),))
    sample = fp.simulate_paths(source, start, [0.0, 0.5], comm=comm, paths=20_000, observables=["x**2", "1 + 0*x"])
    k = np.arange(1, 6)
    mean, variance = 0.9 ** np.r_[0, k], [0.25]
    for _ in k:
        variance.append(0.81 * variance[-1] + 0.1)
    assert sample.times == pytest.approx([0.0, 0.5])
    for j, step in enumerate((0, 5)):
        assert abs(sample.mean[0, j, 0] - mean[step]) < 4 * math.sqrt(variance[step] / 20_000)
        assert abs(sample.covariance[0, j, 0, 0] / variance[step] - 1) < 4 * math.sqrt(2 / 20_000)
    running = np.mean(np.array(variance[1:]) + mean[1:] ** 2)
    found, error = (part[0, 1] for part in sample.running_means)
    assert abs(found[0] - running) < 4 * error[0] < 0.05
    assert (found[1], error[1]) == (1.0, 0.0)
    value, error = (part[0, 1] for part in sample.values)
    assert abs(value[0] - variance[5] - mean[5] ** 2) < 4 * error[0] < 0.06
    density, (edges,) = sample.histogram(1, 30, limits=[(-1.5, 2.5)])
    middle = 0.5 * (edges[1:] + edges[:-1])
    normal = np.exp(-((middle - mean[5]) ** 2) / (2 * variance[5])) / math.sqrt(2 * math.pi * variance[5])
    assert (np.abs(density - normal) < 0.01 + 4 * np.sqrt(normal / (20_000 * np.diff(edges)))).all()


def test_paths_that_have_left_are_no_part_of_the_density(comm):
    sample = fp.simulate_paths(chain(), [0.0], [0.1, 1.0], comm=comm, domain=LINE, paths=600)
    exits = fp.simulate_exit(chain(), LINE, [0.0], comm=comm, paths=600)
    assert sample.inside[0] == pytest.approx([np.mean(exits.times[0] > t + 1e-9) for t in (0.1, 1.0)])
    density, (edges,) = sample.histogram(1, 20, limits=[(-1.0, 1.0)])
    assert np.sum(density * np.diff(edges)) == pytest.approx(sample.inside[0, 1])
    assert (np.abs(sample.positions[np.isfinite(sample.positions)]) <= 1).all()


def test_sublevel_set_is_left_as_the_interval_it_is(comm):
    level = fp.Sublevel(WELL.landscape, 0.5, (-1.0, 0.0), (-2.0, -2.0), (0.0, 2.0))
    disc = fp.Sublevel(fp.SGD("x**2 + y**2", epsilon2=1.0).landscape, 1.0, (0.0, 0.0), (-2.0, -2.0), (2.0, 2.0))
    source = fp.EulerMaruyama(fp.SGD("x**2 + y**2", epsilon2=0.5), 0.01)
    by_level = fp.simulate_exit(source, disc, [[0.0, 0.0]], comm=comm, paths=1000)
    by_radius = fp.simulate_exit(source, fp.Ball((0.0, 0.0), 1.0), [[0.0, 0.0]], comm=comm, paths=1000, seed=1)
    error = math.hypot(by_level.standard_error[0], by_radius.standard_error[0])
    assert abs(by_level.mean[0] - by_radius.mean[0]) < 3 * error < 0.15 * by_radius.mean[0]
    left = fp.simulate_exit(fp.EulerMaruyama(WELL, 0.01, bridge=False), level, [[-1.0, 0.0]], comm=comm, paths=100)
    assert (WELL.landscape.loss(left.places[0]) >= 0.5).all()


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"paths": 0}, "paths"),
        ({"paths": 2.5}, "paths"),
        ({"seed": -1}, "seed"),
        ({"max_time": 0.0}, "max_time"),
        ({"starts": [3.0]}, "starts[0]"),
        ({"starts": [[0.0, 1.0, 2.0]]}, "starts"),
        ({"starts": [math.nan]}, "starts"),
    ],
)
def test_wrong_questions_are_refused_on_every_rank(comm, options, key):
    asked = {"starts": [0.0], "paths": 10} | options
    with pytest.raises(InputError) as error:
        fp.simulate_exit(chain(), LINE, asked.pop("starts"), comm=comm, **asked)
    assert error.value.key == key


@pytest.mark.parametrize("times", [[], [-1.0], [0.5, 0.5], [0.0], [1.0, 1.01], [math.inf]])
def test_wrong_times_are_refused(comm, times):
    with pytest.raises(InputError, match="times"):
        fp.simulate_paths(chain(), [0.0], times, comm=comm, paths=5)


def test_an_error_on_one_rank_ends_all(comm, monkeypatch):
    from fpsolve.simulate import blocks

    def fails(self, until=None):
        if comm.rank == comm.size - 1:
            raise FloatingPointError("on one rank")
        return iter([None])

    monkeypatch.setattr(blocks.Block, "advance", fails)
    with pytest.raises(FloatingPointError, match="on one rank"):
        fp.simulate_exit(chain(), LINE, [0.0], comm=comm, paths=2000)


def test_nobody_waits_for_paths_that_cannot_leave():
    closed = fp.Interval(-1.0, 1.0, ("left", "right"))
    with pytest.raises(NoFiniteAnswer, match="reflects"):
        fp.simulate_exit(chain(), closed, [0.0], comm=SELF, paths=2)
    # steps of the chain below move by 0.6 at most, so that one reflection brings them back
    sample = fp.simulate_exit(chain(), closed, [0.0], comm=SELF, paths=2, max_time=1.0)
    assert sample.inside.tolist() == [2]
