"""One step and many of the simulated chains, against plain loops and exact moments."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.special import erfc
from scipy.stats import kstest

import fpsolve as fp
from fpsolve.errors import InputError
from fpsolve.simulate.blocks import Block, Share, generator
from fpsolve.simulate.compiled import sample_coefficients, sample_gradient_code, weighted_table
from fpsolve.simulate.motion import EulerMaruyama, motion_of, state_of
from fpsolve.simulate.region import region_of, state_starts

RANDOM = np.random.default_rng(5)
INPUTS = np.repeat(np.linspace(-1.0, 1.0, 4), 3)
DATA = {"x": INPUTS, "y": 0.5 + INPUTS + RANDOM.uniform(-1, 1, 12)}
ETA = 0.05


def model(loss=None):
    return fp.sample_landscape("b + tanh(a*x)", ["a", "b"], ["x"], "y", loss, DATA)


LANDSCAPE = model()
START = np.array([0.3, -0.2])
TURNED = fp.SGD("x**4/4 + y**2/2 + x*y/4", [["1 + x**2", "0.3*y"], ["0.3*y", "0.5"]], epsilon2=0.3)


def block_of(source, start=START, paths=6, domain=None, shuffle=False, kernel=True, seed=3):
    starts = np.atleast_2d(start)
    motion = motion_of(source, shuffle, starts)
    starts = state_starts(starts, motion.positions, motion.width, domain)
    if not kernel:
        motion = dataclasses.replace(motion, kernel=None)
    region = region_of(domain, motion.bridge, motion.velocities, isinstance(source, EulerMaruyama))
    return Block(motion, region, domain, starts[0], paths, generator(seed, Share(0, 0, paths)))


def advanced(block, ticks):
    for _ in block.advance(ticks):
        pass
    return block


# --- step by step --------------------------------------------------------------------------------------


def plain_chain(chain, start, paths, ticks, rng, shuffle=False):
    """SGD as it is written in textbooks: one path, one batch, one sample after the other."""
    samples, size, d = chain.landscape.samples, chain.batch_size, len(start)
    x, z = np.tile(start, (paths, 1)), np.zeros((paths, d))
    decks = [list(range(samples)) for _ in range(paths)]
    epoch = samples // size if shuffle else 1
    for tick in range(ticks):
        for p in range(paths):
            batch = []
            for j in range(size):
                u = rng.random()
                if chain.replacement and not shuffle:
                    batch.append(int(u * samples))
                    continue
                place = (tick % epoch) * size + j
                other = place + int(u * (samples - place))
                decks[p][place], decks[p][other] = decks[p][other], decks[p][place]
                batch.append(decks[p][place])
            gradient = chain.landscape.sample_gradients(x[p : p + 1], np.array([batch]))[0].mean(axis=0)
            z[p] = chain.momentum * z[p] - chain.learning_rate * gradient
            x[p] += z[p]
        if chain.extra_noise:
            push = chain.learning_rate * math.sqrt(chain.extra_noise) * rng.standard_normal((paths, d))
            x, z = x + push, z + push
    return x, z


@pytest.mark.parametrize(
    ("options", "shuffle"),
    [
        ({"batch_size": 2}, False),
        ({"batch_size": 5, "replacement": False}, False),
        ({"batch_size": 5}, True),
        ({"batch_size": 2, "extra_noise": 2.0}, False),
        ({"batch_size": 2, "extra_noise": 2.0, "momentum": 0.7}, False),
    ],
    ids=["replacement", "no replacement", "epochs", "noisy", "momentum"],
)
@pytest.mark.parametrize("kernel", [True, False], ids=["numba", "numpy"])
def test_chain_equals_a_plain_loop_for_the_same_random_numbers(options, shuffle, kernel):
    chain = fp.sgd_chain(LANDSCAPE, ETA, **options)
    block = advanced(block_of(chain, shuffle=shuffle, kernel=kernel), 40)
    rng = generator(3, Share(0, 0, 6))
    x, z = plain_chain(chain, START, 6, 40, rng, shuffle)
    assert np.ptp(x, axis=0).min() > 0.01
    assert np.allclose(block.x[:, :2], x, rtol=0, atol=1e-12)
    if chain.momentum:
        assert np.allclose(block.x[:, 2:], z / math.sqrt(ETA), rtol=0, atol=1e-11)
    assert block.rng.random() == rng.random()  # as many were drawn


def plain_diffusion(process, start, paths, ticks, h, rng, lower, upper):
    """Euler-Maruyama of one path after the other in a box, without bridges; the step after which each leaves."""
    x, steps, inside = np.tile(start, (paths, 1)), np.zeros(paths, dtype=int), list(range(paths))
    for tick in range(ticks):
        for p in inside:
            a = process.diffusion(x[p : p + 1])[0]
            noise = np.linalg.cholesky(a) @ rng.standard_normal(len(start))
            x[p] = x[p] + h * process.drift(x[p : p + 1])[0] + math.sqrt(2 * h) * noise
        for p in list(inside):
            if (x[p] < lower).any() or (x[p] > upper).any():
                steps[p] = tick + 1
                inside.remove(p)
    return x, steps


@pytest.mark.parametrize("kernel", [True, False], ids=["numba", "numpy"])
def test_diffusion_equals_a_plain_loop_for_the_same_random_numbers(kernel):
    box = fp.Box((-1.0, -1.0), (1.0, 1.0))
    block = advanced(block_of(EulerMaruyama(TURNED, 0.02, bridge=False), domain=box, kernel=kernel, paths=20), 60)
    rng = generator(3, Share(0, 0, 20))
    x, steps = plain_diffusion(TURNED, START, 20, 60, 0.02, rng, -1.0, 1.0)
    assert 5 < (steps > 0).sum() < 20
    assert np.array_equal(block.steps, steps)
    assert np.allclose(block.x, x, rtol=0, atol=1e-12)


def test_gaussian_noise_of_data_is_the_same_compiled_and_in_numpy():
    chain = fp.sgd_chain(LANDSCAPE, ETA, batch_size=2, replacement=False, extra_noise=0.5, momentum=0.3, law="gaussian")
    x, y = (advanced(block_of(chain, kernel=kernel), 30).x for kernel in (True, False))
    assert np.ptp(x, axis=0).min() > 0.01
    assert np.allclose(x, y, rtol=0, atol=1e-11)


def test_bridges_are_the_same_compiled_and_in_numpy():
    for domain in (fp.Box((-1.0, -1.0), (1.0, 1.0), ("left",)), fp.Ball((0.0, 0.0), 1.0)):
        both = [advanced(block_of(EulerMaruyama(TURNED, 0.02), domain=domain, kernel=k, paths=50), 100) for k in (1, 0)]
        assert np.isfinite(both[0].when).sum() > 20
        assert np.allclose(both[0].when, both[1].when, rtol=0, atol=1e-9)


# --- moments -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_size": 4, "replacement": False},
        {"batch_size": 3, "extra_noise": 5.0},
        {"batch_size": 2, "law": "gaussian", "extra_noise": 1.0},
    ],
    ids=["one sample", "no replacement", "noisy", "gaussian"],
)
def test_one_step_has_the_mean_and_covariance_of_the_chain(options):
    chain, paths = fp.sgd_chain(LANDSCAPE, ETA, **options), 100_000
    # one kernel less to compile: that of Gaussian noise is compared with NumPy above
    step = advanced(block_of(chain, paths=paths, kernel=chain.law == "samples"), 1).x - START
    centred = step - step.mean(axis=0)
    expected, covariance = -ETA * LANDSCAPE.gradient(START[None])[0], chain.step_covariance(START[None])[0]
    error = np.sqrt(np.diag(covariance) / paths)
    assert (np.abs(step.mean(axis=0) - expected) < 4 * error).all()
    products = centred[:, :, None] * centred[:, None, :]
    assert (np.abs(products.mean(axis=0) - covariance) < 4 * products.std(axis=0) / math.sqrt(paths)).all()
    assert (products.std(axis=0) / math.sqrt(paths) < 0.02 * np.abs(np.diag(covariance)).max()).all()


def test_all_samples_without_replacement_make_gradient_descent():
    chain = fp.Chain(LANDSCAPE, ETA, batch_size=LANDSCAPE.samples, replacement=False)
    block = advanced(block_of(chain), 50)
    x = START[None]
    for _ in range(50):
        x = x - ETA * LANDSCAPE.gradient(x)
    assert np.allclose(block.x, x, rtol=0, atol=1e-13)
    assert np.linalg.norm(x - START) > 0.3


def test_an_epoch_uses_each_sample_once():
    # gradients that depend on the sample alone: after an epoch their sum is the same for all paths
    landscape = fp.sample_landscape("w", ["w"], [], "y", "model*y + 0*model**2", {"y": np.array([1.0, 2.0, 4.0, 8.0])})
    chain = fp.sgd_chain(landscape, ETA, batch_size=2)
    block = block_of(chain, np.array([0.0]), paths=50, shuffle=True, kernel=False)
    assert np.ptp(advanced(block, 1).x) > 0.01
    assert np.allclose(advanced(block, 2).x, -ETA * 7.5, rtol=0, atol=1e-14)
    assert np.ptp(advanced(block, 3).x) > 0.01
    assert np.allclose(advanced(block, 4).x, -ETA * 15, rtol=0, atol=1e-14)


def test_momentum_of_a_quadratic_loss_has_the_covariance_of_the_linear_recursion():
    chain = fp.sgd_chain(fp.sample_landscape("b + a*x", ["a", "b"], ["x"], "y", None, DATA), ETA, momentum=0.6)
    # (θ, z) is affine given the sample: E and Cov of the state follow from those of the pairs (A_k, c_k)
    mean, second, mu = np.array([*START, 0, 0]), None, 0.6
    second = np.outer(mean, mean)
    maps = []
    for x, y in zip(*(LANDSCAPE.table[0], LANDSCAPE.table[1]), strict=True):
        row = np.array([x, 1.0])
        hessian, shift = np.outer(row, row), -y * row
        lower = np.hstack([-ETA * hessian, mu * np.eye(2)])
        maps.append((np.vstack([np.hstack([np.eye(2), np.zeros((2, 2))]) + lower, lower]), np.tile(-ETA * shift, 2)))
    for _ in range(25):
        pushed = [a @ mean for a, _ in maps]
        second = np.mean(
            [
                a @ second @ a.T + np.outer(p, c) + np.outer(c, p) + np.outer(c, c)
                for (a, c), p in zip(maps, pushed, strict=True)
            ],
            axis=0,
        )
        mean = np.mean([p + c for p, (_, c) in zip(pushed, maps, strict=True)], axis=0)
    covariance = second - np.outer(mean, mean)
    paths = 40_000
    state = advanced(block_of(chain, paths=paths), 25).x * np.array([1, 1, math.sqrt(ETA), math.sqrt(ETA)])
    centred = state - state.mean(axis=0)
    assert (np.abs(state.mean(axis=0) - mean) < 4 * np.sqrt(np.diag(covariance) / paths)).all()
    products = centred[:, :, None] * centred[:, None, :]
    assert (np.abs(products.mean(axis=0) - covariance) < 4 * products.std(axis=0) / math.sqrt(paths)).all()


@pytest.mark.parametrize(("loss", "rows"), [(None, 8), ("(model - y)**4/4", 12)], ids=["affine in y", "cubic in y"])
def test_compiled_gradient_and_covariance_are_those_of_the_landscape(loss, rows):
    landscape = model(loss)
    table, weight = weighted_table(landscape)
    assert (len(table), len(weight)) == (rows, rows)
    coefficients = sample_coefficients(sample_gradient_code(landscape), 2)
    f, a = np.empty(2), np.empty((2, 2))
    for point in np.random.default_rng(0).normal(size=(5, 2)):
        coefficients.py_func(point, table, weight, 0.7, 0.1, f, a)
        assert np.allclose(f, -landscape.gradient(point[None])[0], rtol=1e-13, atol=1e-14)
        assert np.allclose(a, 0.7 * landscape.covariance(point[None])[0] + 0.1 * np.eye(2), rtol=1e-13, atol=1e-14)


# --- leaving within a step -----------------------------------------------------------------------------


def test_bridges_give_the_exact_first_passage_of_brownian_motion():
    # a = 1/2: standard Brownian motion from 1 reaches 0 by time t with probability erfc(1/sqrt(2t))
    brownian = fp.diffusion_process(["0"], [["0.5"]], ["x"])
    block = block_of(EulerMaruyama(brownian, 1.0), np.array([1.0]), 20_000, fp.Interval(0.0, 1e6))
    times = advanced(block, 3).when
    gone = times[np.isfinite(times)]
    share = erfc(1 / math.sqrt(6.0))
    assert abs(len(gone) / 20_000 - share) < 3 * math.sqrt(share * (1 - share) / 20_000)
    assert kstest(gone, lambda t: erfc(1 / np.sqrt(2 * t)) / share).pvalue > 0.01


def test_paths_are_reflected_at_a_side():
    # -u''/2 = 1, u'(0) = 0, u(1) = 0: u(0.5) = 1 - 0.25
    brownian = fp.diffusion_process(["0"], [["0.5"]], ["x"])
    block = block_of(EulerMaruyama(brownian, 0.005), np.array([0.5]), 20_000, fp.Interval(0.0, 1.0, ("left",)))
    times = 0.005 * advanced(block, None).when
    assert abs(times.mean() - 0.75) < 3 * times.std() / math.sqrt(20_000)
    assert times.std() / math.sqrt(20_000) < 0.01


@pytest.mark.parametrize(("slope", "kind"), [(0.0, "chain"), (0.8, "diffusion")])
def test_chains_are_reflected_along_the_normal_and_diffusions_along_the_conormal(slope, kind):
    # one step, without and with the side: what is beyond comes back with a shift along it of a_21/a_11 or of 0
    process = fp.SGD("x**2 + y**2", [["1", "0.8"], ["0.8", "1"]], learning_rate=0.2)
    source = EulerMaruyama(process, 0.2, False) if kind == "diffusion" else fp.sgd_chain(process.landscape, 0.2)
    half = fp.Box((0.0, -50.0), (50.0, 50.0), ("left",))
    free, there = (advanced(block_of(source, (0.1, 0.0), 200, domain), 1).x for domain in (None, half))
    beyond = np.maximum(-free[:, 0], 0.0)
    assert np.count_nonzero(beyond) > 20
    assert np.allclose(there, free + 2 * beyond[:, None] * [1.0, slope], rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("source", "shuffle", "domain", "key"),
    [
        (fp.Chain(LANDSCAPE, ETA, 13, False), False, None, "batch_size"),
        (fp.sgd_chain(LANDSCAPE, ETA, 2, False), True, None, "replacement"),
        (fp.sgd_chain(LANDSCAPE, ETA).gaussian(), True, None, "shuffle"),
        (EulerMaruyama(TURNED, 0.1), True, None, "shuffle"),
        (fp.sgd_chain(LANDSCAPE, ETA), False, fp.Ball((5.0, 5.0), 1.0), "starts[0]"),
        (fp.sgd_chain(LANDSCAPE, ETA), False, fp.Ball((0.0, 0.0), 1.0, ("boundary",)), "domain.reflecting"),
        (fp.sgd_chain(LANDSCAPE, ETA, momentum=0.5), False, fp.Box((-1, -1), (1, 1), ("left",)), "domain.reflecting"),
        (fp.sgd_chain(LANDSCAPE, ETA), False, fp.Interval(-1.0, 1.0), "domain"),
    ],
)
def test_what_does_not_go_together_is_refused(source, shuffle, domain, key):
    with pytest.raises(InputError) as error:
        block_of(source, shuffle=shuffle, domain=domain)
    assert error.value.key == key


def test_a_process_alone_has_no_step():
    with pytest.raises(InputError, match="EulerMaruyama"):
        state_of(TURNED)


@pytest.mark.parametrize("step", [0, -1.0, math.inf, True])
def test_step_must_be_positive(step):
    with pytest.raises(InputError, match="step"):
        EulerMaruyama(TURNED, step)
