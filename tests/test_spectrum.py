"""Eigenpairs of discrete generators: biorthogonality, exact eigenvalues, rates below rounding, closed classes."""

from mpi4py import MPI

import numpy as np
import pytest
from test_steady import reference_gap

import fpsolve as fp
from fpsolve.fem.generator import assemble, discretise
from fpsolve.fem.meshing import make_mesh
from fpsolve.fem.metastable import Differences, limit_masses, stationary_masses
from fpsolve.fem.spectrum import Pencil, Spectrum, magnitude, slow_count, spectrum
from fpsolve.model.process import Process


def solve(
    process: Process, domain: object, size: float, degree: int, shift: float, comm: MPI.Intracomm, count: int = 5
):
    """Return the pencil and the spectrum on a uniform mesh without flux through the boundary."""
    triangulation = make_mesh(domain, size, 1, comm)
    generator = assemble(discretise(process, triangulation, tuple(triangulation.parts), degree), "dg", degree)
    mass = generator.mass_matrix()
    pencil = Pencil(generator.matrix, mass, process.dimension, shift)
    return pencil, spectrum(pencil, generator.mass.getArray().copy(), count), generator


def check_pairs(pencil: Pencil, found: Spectrum) -> None:
    """Residuals of left and right vectors, biorthogonality, the constant and the density."""
    biorthogonal = pencil.product(found.left, pencil.apply(pencil.mass, found.right))
    assert np.abs(biorthogonal - np.eye(len(biorthogonal))).max() <= 1e-7
    assert found.residuals.max() <= 1e-10
    moved = pencil.apply(pencil.mass, found.left) * found.values
    left = pencil.apply(pencil.matrix, found.left, transpose=True) - moved
    absolute = magnitude(pencil.matrix)  # backward error: relative to what the products could lose
    size = pencil.apply(absolute, np.abs(found.left), transpose=True) + np.abs(moved)
    absolute.destroy()
    total = pencil.comm.allreduce(np.array([np.abs(left).sum(axis=0), size.sum(axis=0)]))
    assert np.all(total[0] <= 1e-10 * total[1])
    assert found.values[0] == 0
    assert np.all(found.right[:, 0] == 1)


def test_ou_multiple_eigenvalues(comm):
    process = fp.SGD("(x**2 + y**2)/2", epsilon2=1.0)
    pencil, found, _ = solve(process, fp.Box((-6, -6), (6, 6)), 0.6, 3, 1.0, comm, count=6)
    check_pairs(pencil, found)
    np.testing.assert_allclose(found.values[:6], [0, 1, 1, 2, 2, 2], atol=1e-5)


def test_rotation_complex_pairs(comm):
    process = fp.diffusion_process(["-x+5*y", "-y-5*x"], [["1", "0"], ["0", "1"]], ["x", "y"])
    pencil, found, _ = solve(process, fp.Box((-6, -6), (6, 6)), 0.6, 3, 1.0, comm, count=4)
    check_pairs(pencil, found)
    np.testing.assert_allclose(found.values[:4], [0, 1 + 5j, 1 - 5j, 2], atol=1e-5)


@pytest.mark.parametrize("shift", [5.0, 1.0, 1e-3])
def test_gap_does_not_depend_on_the_shift(comm, shift):
    """A gap of 1e-13 next to entries of 1e2: plain eigenvalues are noise, the rate matrix is not."""
    process = fp.SGD("(x**2 - 1)**2 + 0.1*x", variables=["x"], epsilon2=0.03)
    pencil, found, _ = solve(process, fp.Interval(-1.6, 1.6), 0.025, 4, shift, comm, count=2)
    check_pairs(pencil, found)
    assert len(found.slow.values) == 2
    gap = found.values[1].real
    exact = reference_gap(lambda x: (x**2 - 1) ** 2 + 0.1 * x, 0.03, -1.6, 1.6)
    # a shift far below the fast eigenvalues leaves the discretisation error alone, 2e-6 on this mesh
    assert gap == pytest.approx(exact, rel=1e-5 if shift < 5 else 1e-4)
    assert found.slow.errors[1] <= (1e-12 if shift < 1 else 1e-5) * gap


def test_closed_classes_are_exactly_closed(comm):
    """No noise and no drift at 0, a vertex of the mesh: no probability passes, to the last digit."""
    process = fp.diffusion_process(["x - x**3"], [["x**2/4"]], ["x"])
    _, found, _ = solve(process, fp.Interval(-3.0, 3.0), 0.375, 4, 0.5, comm, count=3)
    assert len(found.slow.values) == 2
    assert abs(found.values[1]) <= 1e-15
    assert found.values[2].real == pytest.approx(0.5, rel=1e-2)
    density = found.slow.invariant(2)
    assert density.shape == (len(found.right),)


def test_stationary_masses_without_cancellation():
    """Rates over forty orders of magnitude, where an eigenvalue solver keeps no digit of the small masses."""
    forward, backward = np.array([1e-5, 1e-20, 1e-30]), np.array([1e-2, 1e-3, 1e-1])
    rates = np.zeros((4, 4))
    for i in range(3):
        rates[i + 1, i] -= forward[i]
        rates[i, i + 1] -= backward[i]
    rates -= np.diag(rates.sum(axis=0))
    exact = np.cumprod(np.concatenate([[1.0], forward / backward]))
    for order in ([0, 1, 2, 3], [2, 0, 3, 1], [3, 2, 1, 0]):
        masses = stationary_masses(rates[np.ix_(order, order)])
        np.testing.assert_allclose(masses, (exact / exact.sum())[order], rtol=1e-12)


def test_limit_masses_of_closed_wells():
    """Two closed wells and one from which both are reached at equal rates."""
    rates = np.array([[0.0, 0.0, -1.0], [0.0, 0.0, -1.0], [0.0, 0.0, 2.0]])
    np.testing.assert_allclose(limit_masses(rates, np.array([0.2, 0.4, 0.4]), 2), [0.4, 0.6, 0.0], atol=1e-12)


def test_slow_count():
    assert slow_count(np.array([0, 1.0, 2.0])) == 1
    assert slow_count(np.array([0, 1e-9, 2.0, 3.0])) == 2
    assert slow_count(np.array([1e-15, 1e-12, 1e-5, 2.0])) == 3
    assert slow_count(np.array([0, 1 + 5j, 1 - 5j, 2.0])) == 1


def test_differences_agree_with_the_matrix(comm):
    """Bv by differences is Bv up to the row sums, and exactly 0 for constants."""
    process = fp.diffusion_process(["-x+y", "-y-x"], [["1", "0"], ["0", "x**2"]], ["x", "y"])
    pencil, _, generator = solve(process, fp.Box((-3, -3), (3, 3)), 0.7, 2, 1.0, comm, count=1)
    difference = Differences(generator.matrix)
    owned = generator.matrix.getLocalSize()[0]
    assert np.all(difference(np.ones((owned, 1))) == 0)
    x = np.sin(np.arange(*generator.matrix.getOwnershipRange()))[:, None]
    exact = pencil.apply(generator.matrix, x)
    assert np.abs(difference(x) - exact).max() <= 1e-12 * np.abs(exact).max()
