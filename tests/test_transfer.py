"""Batches, point location and rows of the transfer operator."""

import math

from mpi4py import MPI

import numpy as np
import pytest

import fpsolve as fp
from fpsolve.errors import InputError
from fpsolve.fem.nodal import nodal_space
from fpsolve.fem.transfer import TransferOperator, transfer_rows
from fpsolve.model.batches import _add_batches, _hashed, make_batches, transport
from fpsolve.model.process import formula_landscape

RNG = np.random.default_rng(3)
DATA = {"x": np.linspace(-1, 1, 12), "y": RNG.normal(size=12)}
LINE = fp.sample_landscape("p + q*x", ["p", "q"], ["x"], "y", None, DATA)
FORMULA = formula_landscape("x**2/2 + 0.3*x*y + y**2", [["1", "0.3"], ["0.3", "0.5 + x**2"]], ["x", "y"])
X = np.array([[0.3, -0.2], [1.0, 0.5], [-0.7, 0.1]])


def check_moments(chain, batches):
    """Mean and covariance of the represented steps are the chain's own."""
    steps = batches.steps(X)
    mean = np.einsum("nki,k->ni", steps, batches.weights)
    np.testing.assert_allclose(mean, -chain.learning_rate * chain.landscape.gradient(X), rtol=1e-10, atol=1e-13)
    centred = steps - mean[:, None]
    covariance = np.einsum("nki,nkj,k->nij", centred, centred, batches.weights)
    np.testing.assert_allclose(covariance, chain.step_covariance(X), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize(("size", "count"), [(1, 12), (2, None), (3, None)])
def test_all_batches_have_the_moments_of_a_step(size, count, replacement):
    chain = fp.sgd_chain(LINE, 0.1, size, replacement)
    batches = make_batches(chain, X[0])
    assert batches.exact
    expected = math.comb(12 + size - 1, size) if replacement else math.comb(12, size)
    assert batches.count == expected == (count or expected)
    check_moments(chain, batches)


def test_weights_of_multisets():
    batches = make_batches(fp.sgd_chain(LINE, 0.1, 3), X[0])
    drawn = np.sort(np.array(np.meshgrid(*[range(12)] * 3, indexing="ij")).reshape(3, -1).T, axis=1)
    rows, count = np.unique(drawn, axis=0, return_counts=True)
    order = np.lexsort(batches.index.T[::-1])
    np.testing.assert_array_equal(batches.index[order], rows)
    np.testing.assert_allclose(batches.weights[order], count / 12**3, rtol=1e-12)


@pytest.mark.parametrize("replacement", [True, False])
def test_quasi_random_batches_are_matched(replacement):
    chain = fp.sgd_chain(LINE, 0.1, 5, replacement)
    batches = make_batches(chain, X[0], 64)
    assert not batches.exact
    check_moments(chain, batches)
    check_moments(chain, batches.halved())
    check_moments(chain, batches.sequence(3))


def test_noise_beside_the_samples_and_gaussian_steps():
    for chain in (fp.sgd_chain(LINE, 0.1, 2, extra_noise=0.3), fp.sgd_chain(FORMULA, 0.1, 4)):
        check_moments(chain, make_batches(chain, X[0]))


def test_without_replacement_no_sample_is_drawn_twice():
    """With distinct powers of two as gradients a batch's sum tells its samples."""
    data = {"t": 2.0 ** np.arange(6)}
    chain = fp.sgd_chain(fp.sample_landscape("a", ["a"], [], "t", None, data), 1.0, 4, False)
    batches = make_batches(chain, np.zeros(1), 256)
    sums = np.zeros((1, batches.count, 1))
    x = np.array([[0.25]])
    gradients = chain.landscape.sample_gradients(x)
    _add_batches(gradients, batches.digits, _hashed(x, 4), batches.order, False, sums)
    found = np.rint(4 * x[0, 0] - sums[0, :, 0]).astype(int)
    assert {int(v).bit_count() for v in found} == {4}
    assert len(set(found.tolist())) == math.comb(6, 4)


def test_transport_maps_covariances():
    s, c = (m @ m.T for m in RNG.normal(size=(2, 3, 3)))
    a = transport(s, c)
    np.testing.assert_allclose(a @ s @ a, c, rtol=1e-9)
    np.testing.assert_allclose(a, a.T, atol=1e-12)


def test_wrong_batches():
    with pytest.raises(InputError, match="power of 2"):
        make_batches(fp.sgd_chain(LINE, 0.1, 3), X[0], 100)
    with pytest.raises(InputError, match="momentum"):
        make_batches(fp.sgd_chain(LINE, 0.1, 3, momentum=0.5), X[0])


@pytest.mark.parametrize(
    "domain", [fp.Interval(-1, 2), fp.Ball((0.5, -1), 1.5), fp.Box((0, 0), (2, 1)), fp.Box((0, 0, 0), (1, 1, 2))]
)
def test_location_agrees_with_the_domain_and_polynomials_are_reproduced(comm, domain):
    d = domain.dimension
    low, high = domain.bounding_box()
    x = low - 0.1 + (high - low + 0.2) * np.random.default_rng(0).uniform(size=(4000, d))
    for degree in (1, 2, 3):
        space = nodal_space(domain, 0.35, degree, comm)
        cells = space.holding(x, domain)
        np.testing.assert_array_equal(cells >= 0, domain.contains(x))
        values = (space.nodes @ np.arange(1, d + 1) - 0.3) ** degree
        inside = domain.contains(x)
        exact = np.where(inside, (x @ np.arange(1, d + 1) - 0.3) ** degree, 0)
        np.testing.assert_allclose(space.interpolate(values, x, domain), exact, atol=1e-11 * np.abs(exact).max())
    cells = space.nearest(x[~inside] + 5.0)
    assert space.locator.at_boundary[cells].all()


@pytest.mark.parametrize("boundary", ["absorbing", "no-flux"])
@pytest.mark.parametrize("compensate", [True, False])
def test_linear_elements_conserve_mass_and_sign(comm: MPI.Intracomm, boundary, compensate):
    chain = fp.sgd_chain(LINE, 0.4, 1)
    domain = fp.Ball((0.0, 0.5), 0.8)
    space = nodal_space(domain, 0.15, 1, comm)
    operator = TransferOperator(space, domain, make_batches(chain, X[0]), comm, boundary, compensate)
    rows = operator.apply(np.ones(space.unknowns))
    np.testing.assert_allclose(rows + operator.killed, 1, atol=1e-13)
    assert operator.killed.max() == 0 if boundary == "no-flux" else operator.killed.max() > 0.05
    _, _, entries = operator.matrix.getValuesCSR()
    assert entries.min() >= 0
    rng = np.random.default_rng(1)
    m, u = rng.uniform(size=(2, space.unknowns))
    assert operator.apply_transpose(m) @ u == pytest.approx(m @ operator.apply(u), rel=1e-12)
    operator.destroy()


def test_compensated_steps_have_the_covariance_of_the_chain(comm):
    """No artificial diffusion: mean and covariance of a row are the chain's own, far from the boundary."""
    chain = fp.sgd_chain(FORMULA, 0.2, 1)
    domain = fp.Box((-4, -4), (4, 4))
    space = nodal_space(domain, 0.3, 1, comm)
    batches = make_batches(chain, X[0])
    for compensate, close in ((True, 1e-3), (False, None)):
        rows = transfer_rows(space, domain, batches, X, compensate=compensate)
        mean = rows.matrix @ space.nodes
        np.testing.assert_allclose(mean, X - 0.2 * FORMULA.gradient(X), atol=1e-12)
        square = np.stack([rows.matrix @ (space.nodes[:, [k]] * space.nodes) for k in range(2)], axis=1)
        error = square - mean[:, :, None] * mean[:, None, :] - chain.step_covariance(X)
        relative = np.abs(error).max() / np.abs(chain.step_covariance(X)).max()
        assert relative <= close if close else relative > 0.1
