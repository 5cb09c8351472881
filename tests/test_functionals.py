"""Integrals of functions given by their values: exact polynomials, compiled forms, balls, half-planes, cut-offs."""

from mpi4py import MPI

import numpy as np
import pytest
import ufl
from dolfinx import fem, la
from scipy.integrate import quad
from scipy.stats import chi2, norm

import fpsolve as fp
from fpsolve.fem.boundary import Boundary
from fpsolve.fem.functionals import integrate, integrate_with_error, load, loads, region_loads
from fpsolve.fem.meshing import make_mesh
from fpsolve.model.domains import Domain

CENTER = np.array([0.13, -0.2, 0.07])


def space_on(
    comm: MPI.Intracomm,
    domain: Domain,
    size: float,
    degree: int,
    family: str = "Discontinuous Lagrange",
    order: int = 1,
):
    return fem.functionspace(make_mesh(domain, size, order, comm).mesh, (family, degree))


def box(d: int, half: float = 4.0) -> Domain:
    return fp.Interval(-half, half) if d == 1 else fp.Box((-half,) * d, (half,) * d)


def gaussian(space: fem.FunctionSpace, mean: np.ndarray, covariance: np.ndarray) -> fem.Function:
    u = fem.Function(space)
    d = len(mean)
    x = space.tabulate_dof_coordinates()[:, :d] - mean
    z = np.linalg.solve(np.linalg.cholesky(covariance), x.T)
    u.x.array[:] = np.exp(-0.5 * np.sum(z * z, axis=0)) / np.sqrt(np.linalg.det(2 * np.pi * covariance))
    return u


def product(vector, function: fem.Function) -> float:
    local = function.function_space.dofmap.index_map.size_local
    part = float(vector.getArray(readonly=True) @ function.x.array[:local])
    return function.function_space.mesh.comm.allreduce(part)


@pytest.mark.parametrize("family", ["Discontinuous Lagrange", "Lagrange"])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_moments_of_polynomials_are_exact(comm, d, family):
    """∫ x_i x_j u over a box for u of degree 2, and for u = 1 with elements of degree 1."""
    space = space_on(comm, box(d, 1.0), 0.6, 2, family)
    u = fem.Function(space)
    u.interpolate(lambda x: 1 + x[0] - 3 * x[0] * x[d - 1])
    second, mixed = loads(space, 2, [lambda x: x[:, 0] ** 2, lambda x: x[:, 0] * x[:, -1]])
    volume = 2.0**d
    assert product(second, u) == pytest.approx(volume * (1 / 3 - (3 / 5 if d == 1 else 0)), rel=1e-13)
    assert product(mixed, u) == pytest.approx(volume * (1 / 3 - 3 / 5 if d == 1 else -1 / 3), rel=1e-13)


def test_load_equals_the_compiled_form_on_curved_cells(comm):
    triangulation = make_mesh(fp.Ball((0.2, 0.0), 1.0), 0.4, 3, comm)
    space = fem.functionspace(triangulation.mesh, ("Lagrange", 3))
    x = ufl.SpatialCoordinate(triangulation.mesh)
    dx = ufl.dx(metadata={"quadrature_degree": 12})
    form = fem.assemble_vector(fem.form(ufl.sin(3 * x[0]) * ufl.exp(x[1]) * ufl.TestFunction(space) * dx))
    form.scatter_reverse(la.InsertMode.add)
    boundary: Boundary = None  # type: ignore[assignment]
    vector = load(space, boundary, 3, lambda p: np.sin(3 * p[:, 0]) * np.exp(p[:, 1]), quadrature_degree=12)
    difference = vector.getArray() - form.array[: vector.getLocalSize()]
    assert np.abs(difference).max(initial=0.0) < 1e-14
    assert vector.norm() > 0.05


# (dimension, mesh size, allowed error): of the quadrature and of interpolating the Gaussian by cubics
BALLS = [(1, 0.1, 1e-8), (2, 0.4, 1e-4), (2, 0.2, 1e-5), (3, 0.6, 1e-3)]


@pytest.mark.parametrize("d, size, cap", BALLS)
def test_mass_of_a_gaussian_in_a_ball(comm, d, size, cap):
    half = 4.0 if d < 3 else 1.8
    space = space_on(comm, box(d, half), size, 3)
    u = gaussian(space, CENTER[:d], 0.49 * np.eye(d))

    def inside(x: np.ndarray) -> np.ndarray:
        return np.linalg.norm(x - CENTER[:d], axis=1) <= 0.93

    exact = chi2.cdf((0.93 / 0.7) ** 2, d)
    value, error = integrate_with_error(u, lambda x: inside(x).astype(float))
    assert abs(value - exact) < cap
    assert error < 3 * cap
    region = region_loads(space, 3, lambda x: np.where(inside(x), 0, -1), 1)[0]
    assert product(region, u) == pytest.approx(exact, abs=cap)


def test_dividing_cells_is_what_makes_it_accurate(comm):
    space = space_on(comm, box(2), 0.4, 3)
    u = gaussian(space, CENTER[:2], 0.49 * np.eye(2))

    def error(radius: float, depth: int) -> float:
        value = integrate(u, lambda x: (np.linalg.norm(x - CENTER[:2], axis=1) <= radius).astype(float), depth=depth)
        return float(abs(value - chi2.cdf((radius / 0.7) ** 2, 2)))

    errors = [max(error(radius, depth) for radius in (0.3, 0.6, 0.93, 1.1)) for depth in (0, 3, 6)]
    assert errors[0] > 1e-3
    assert errors[1] < 0.2 * errors[0]
    assert errors[2] < 0.05 * errors[0]


def test_mass_of_a_rotated_gaussian_in_a_half_plane(comm):
    """The normal law of v·X: 100 : 1 in the variances, the half-plane's edge across all cells."""
    turn = np.array([[np.cos(0.6), -np.sin(0.6)], [np.sin(0.6), np.cos(0.6)]])
    covariance = turn @ np.diag([0.5, 0.02]) @ turn.T
    space = space_on(comm, box(2, 3.0), 0.12, 3)
    u = gaussian(space, CENTER[:2], covariance)
    v = np.array([0.3, 0.95])
    exact = norm.cdf(0.1, v @ CENTER[:2], np.sqrt(v @ covariance @ v))
    assert integrate(u, lambda x: (x @ v < 0.1).astype(float)) == pytest.approx(exact, abs=3e-5)


def test_cut_off_of_theorem_24(comm):
    """A C¹ function whose pieces are narrower than the cells, against a radial integral."""
    radius, delta, s = 0.3, 0.4, 0.4

    def phi(r: np.ndarray) -> np.ndarray:
        inner = 1 - 2 * (r - radius) ** 2 / (delta * radius) ** 2
        outer = 2 * ((1 + delta) * radius - r) ** 2 / (delta * radius) ** 2
        middle = np.where(r <= (1 + delta / 2) * radius, inner, outer)
        return np.where(r <= radius, 1.0, np.where(r > (1 + delta) * radius, 0.0, middle))

    space = space_on(comm, box(2, 3.0), 0.2, 4)
    u = gaussian(space, CENTER[:2], s**2 * np.eye(2))
    breaks = [radius, (1 + delta / 2) * radius, (1 + delta) * radius]
    exact = quad(lambda r: phi(np.array(r)) * r / s**2 * np.exp(-(r**2) / 2 / s**2), 0, breaks[2], points=breaks[:2])[0]
    value, error = integrate_with_error(u, lambda x: phi(np.linalg.norm(x - CENTER[:2], axis=1)))
    assert value == pytest.approx(exact, abs=2e-6)
    assert 2e-7 < error < 5e-5


def test_a_ball_of_half_a_cell(comm):
    """Mass in a shrinking ball stays right when it is smaller than a cell."""
    space = space_on(comm, box(2, 1.0), 0.5, 1)
    u = fem.Function(space)
    u.x.array[:] = 1.0
    for radius in (0.25, 0.1):
        value = integrate(u, lambda x, r=radius: (np.linalg.norm(x - CENTER[:2], axis=1) <= r).astype(float))
        assert value == pytest.approx(np.pi * radius**2, rel=1e-2)


def test_regions_share_out_the_mass(comm):
    """Sectors: their functionals add up to that of the whole, whatever the cuts."""
    space = space_on(comm, box(2, 1.0), 0.3, 2)
    u = gaussian(space, CENTER[:2], 0.3 * np.eye(2))

    def sector(x: np.ndarray) -> np.ndarray:
        return np.floor((np.arctan2(x[:, 1], x[:, 0]) + np.pi) / (2 * np.pi) * 5 - 1e-12).astype(int)

    parts = region_loads(space, 2, sector, 5)
    whole = loads(space, 2, [lambda x: np.ones(len(x))])[0]
    masses = [product(part, u) for part in parts]
    assert min(masses) > 0.05
    assert sum(masses) == pytest.approx(product(whole, u), rel=1e-13)


def test_rough_everywhere_ends(comm):
    """A function that no division resolves costs a bounded number of evaluations and says how wrong it may be."""
    space = space_on(comm, box(2, 1.0), 0.2, 1)
    u = fem.Function(space)
    u.x.array[:] = 1.0
    count = 0

    def rough(x: np.ndarray) -> np.ndarray:
        nonlocal count
        count += len(x)
        return np.sign(np.sin(1e5 * x[:, 0] + 3e5 * x[:, 1]))

    value, error = integrate_with_error(u, rough)
    assert comm.allreduce(count) < 2e7
    assert abs(value) < error < 0.5


def test_same_on_any_number_of_ranks(comm):
    def numbers(on: MPI.Intracomm) -> list[float]:
        space = space_on(on, box(2), 0.5, 2, "Lagrange")
        u = gaussian(space, CENTER[:2], 0.49 * np.eye(2))
        cut = region_loads(space, 2, lambda x: np.where(np.linalg.norm(x, axis=1) < 1, 0, -1), 1)[0]
        smooth = loads(space, 2, [lambda x: np.exp(x[:, 0])])[0]
        return [product(cut, u), product(smooth, u), integrate(u, lambda x: (x[:, 0] > 0.1).astype(float))]

    assert numbers(comm) == pytest.approx(numbers(MPI.COMM_SELF), rel=1e-12)
