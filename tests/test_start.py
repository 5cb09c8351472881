"""Initial data on the mesh: mass, mean and covariance of every kind of start are exact; wrong ones are refused."""

import math

import numpy as np
import pytest
import ufl
from dolfinx import fem

import fpsolve as fp
from fpsolve.errors import InputError
from fpsolve.fem.adaptive import adaptive_load, positive_rule, whole_cells
from fpsolve.fem.generator import assemble, discretise
from fpsolve.fem.meshing import make_mesh
from fpsolve.fem.scharfetter_gummel import assemble_gibbs
from fpsolve.fem.start import start_load, start_vector
from fpsolve.fem.states import save_state
from fpsolve.model.expressions import Formula
from fpsolve.model.initial import (
    DensityStart,
    GaussianStart,
    PointStart,
    StateStart,
    density_start,
    gaussian_start,
    point_start,
)

NAMES = ("x", "y", "z")
SQUARE = fp.Box((-1.0, -1.0), (1.0, 1.0))
LINE = fp.Interval(-1.0, 1.0)
CUBE = fp.Box((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))


def process_in(d):
    return fp.SGD(" + ".join(f"{name}**2" for name in NAMES[:d]), variables=NAMES[:d], epsilon2=0.1)


def generator_on(domain, comm, scheme="cg", degree=2, size=0.25, reflecting=True, order=1):
    process, triangulation = process_in(domain.dimension), make_mesh(domain, size, order, comm)
    parts = tuple(triangulation.parts) if reflecting else ()
    if scheme == "sg":
        return assemble_gibbs(process, triangulation, parts)[0]
    return assemble(discretise(process, triangulation, parts, degree), scheme, degree)


def integral(vector, generator, function):
    """Return Σ b_i f_i for the nodal values f_i of f(x): ∫ρ₀ f exactly where f is in the space."""
    f = fem.Function(generator.space)
    f.interpolate(lambda x: function(x[: generator.space.mesh.geometry.dim]))
    part = generator.restrict(f.x.petsc_vec)
    result = part.dot(vector)
    part.destroy()
    return result


def moments(load, generator):
    d = generator.space.mesh.geometry.dim
    mean = np.array([integral(load, generator, lambda x, i=i: x[i]) for i in range(d)])
    covariance = [
        [integral(load, generator, lambda x, i=i, j=j: (x[i] - mean[i]) * (x[j] - mean[j])) for j in range(d)]
        for i in range(d)
    ]
    return integral(load, generator, lambda x: 1 + 0 * x[0]), mean, np.array(covariance)


def load_of(initial, generator, **options):
    return start_load(initial, generator, process_in(generator.space.mesh.geometry.dim), **options)


ROTATED = [[0.011, 0.0069], [0.0069, 0.0045]]


@pytest.mark.parametrize("scheme", ["dg", "cg"])
@pytest.mark.parametrize(
    ("domain", "mean", "covariance"),
    [
        (LINE, [0.1], 0.1**2),
        (LINE, [0.1], 1e-8),
        (SQUARE, [0.1, -0.2], 0.08**2),  # narrower than the cells, of size 0.25
        (SQUARE, [0.1, -0.2], 1e-4),
        (SQUARE, [0.125, 0.0], 1e-10),
        (SQUARE, [0.05, 0.02], ROTATED),  # axes 0.12 and 0.01
        (CUBE, [0.1, -0.2, 0.05], [0.09**2, 0.06**2, 0.02**2]),
    ],
)
def test_gaussian(comm, scheme, domain, mean, covariance):
    """Mass, mean and covariance whatever the width, within rounding of coordinates relative to the width."""
    generator = generator_on(domain, comm, scheme, size=0.5 if domain.dimension == 3 else 0.25)
    initial = gaussian_start(mean, covariance)
    load, messages = load_of(initial, generator)
    exact = np.array(initial.covariance)
    mass, found, spread = moments(load, generator)
    assert mass == pytest.approx(1.0, abs=1e-14)
    assert found == pytest.approx(np.array(mean), abs=1e-11 * math.sqrt(np.trace(exact)))
    assert spread == pytest.approx(exact, abs=max(1e-10 * np.abs(exact).max(), 1e-17))
    assert messages == ()


@pytest.mark.parametrize("degree", [1, 3])
def test_gaussian_on_curved_cells(comm, degree):
    """The same load as dolfinx assembles with the formula of the density and a quadrature of degree 30."""
    generator = generator_on(fp.Ball((0.0, 0.0), 1.0), comm, "dg", degree, 0.25, order=4)
    load, messages = load_of(gaussian_start([0.3, 0.1], [[0.03, 0.005], [0.005, 0.02]]), generator)
    x, test = ufl.SpatialCoordinate(generator.space.mesh), ufl.TestFunction(generator.space)
    z = ufl.as_vector([x[0] - 0.3, x[1] - 0.1])
    inverse = ufl.as_matrix(np.linalg.inv([[0.03, 0.005], [0.005, 0.02]]).tolist())
    height = 1 / (2 * math.pi * math.sqrt(0.03 * 0.02 - 0.005**2))
    measure = ufl.dx(metadata={"quadrature_degree": 30})
    expected = fem.Function(generator.space)
    density = height * ufl.exp(-0.5 * ufl.dot(z, inverse * z))
    fem.assemble_vector(expected.x.array, fem.form(density * test * measure))
    difference = load.copy()
    difference.scale(comm.allreduce(expected.x.array[: load.getLocalSize()].sum()))  # the mass inside
    difference.axpy(-1.0, expected.x.petsc_vec)
    assert difference.norm() < 1e-10 * load.norm()
    assert len(messages) == 1


@pytest.mark.parametrize("scheme", ["cg", "sg"])
@pytest.mark.parametrize("width", [0.2, 0.01, 1e-5])
def test_linear_elements_have_a_nonnegative_load(comm, scheme, width):
    generator = generator_on(SQUARE, comm, scheme, 1)
    load, _ = load_of(gaussian_start([0.03, 0.7], width**2), generator)
    assert load.min()[1] >= 0
    assert load.sum() == pytest.approx(1.0, abs=1e-14)
    assert integral(load, generator, lambda x: x[0]) / integral(load, generator, lambda x: x[1]) == pytest.approx(
        0.03 / 0.7, rel=1e-8 if width < 0.1 else 0.2
    )


def test_mass_outside(comm):
    """N(0.8, 0.1²) on (-1, 1): Φ(-2) = 0.02275 is outside, which is said, and the rest scaled; 1/2 is an error."""
    generator = generator_on(LINE, comm)
    load, messages = load_of(gaussian_start([0.8], 0.01), generator)
    assert load.sum() == pytest.approx(1.0, abs=1e-14)
    assert len(messages) == 1 and "0.0228 of its mass lies outside" in messages[0]
    inside = math.erf(2 / math.sqrt(2)) / 2 + 0.5
    mean = 0.8 - 0.1 * math.exp(-2) / math.sqrt(2 * math.pi) / inside
    assert integral(load, generator, lambda x: x[0]) == pytest.approx(mean, abs=1e-9)
    quiet, none = load_of(gaussian_start([0.5], 0.01), generator)  # Φ(-5) = 3e-7
    assert none == () and quiet.sum() == pytest.approx(1.0, abs=1e-14)
    for mean in (1.01, 5.0):
        with pytest.raises(InputError, match=r"initial\.mean = .*expected most of the initial density in the domain"):
            load_of(gaussian_start([mean], 0.01), generator)


def test_mass_at_an_absorbing_boundary(comm):
    """Continuous elements drop what belongs to the boundary nodes: 1D, h = 0.25, a uniform density loses h/2 of 1."""
    generator = generator_on(LINE, comm, "cg", 1, 0.25, reflecting=False)
    load, messages = load_of(DensityStart(Formula.parse("1", ("x",))), generator)
    assert load.sum() == pytest.approx(1 - 0.125, abs=1e-14)
    assert len(messages) == 1 and "0.125 of its mass lies at the absorbing boundary" in messages[0]
    weak = generator_on(LINE, comm, "dg", 1, 0.25, reflecting=False)
    load, messages = load_of(DensityStart(Formula.parse("1", ("x",))), weak)
    assert load.sum() == pytest.approx(1.0, abs=1e-14) and messages == ()


@pytest.mark.parametrize(
    ("formula", "mean", "second"),
    [
        ("1 + x", 1 / 3, 1 / 3),
        ("(1 + x)**7", 7 / 9, 29 / 45),
        ("abs(x - 1/3)", -13 / 45, 61 / 135),
        ("exp(-(x - 0.1)**2/(2*10**(-6)))", 0.1, 0.01 + 1e-6),  # 1/250 of a cell
        ("(1 - x)**(-1/4)", 1 / 7, 29 / 77),
        ("exp(700*x)", 1 - 1 / 700, 1 - 2 / 700 + 2 / 700**2),
    ],
)
def test_density(comm, formula, mean, second):
    """Moments of densities on (-1, 1), proportional to the formula, narrow, kinked or unbounded."""
    generator = generator_on(LINE, comm, "dg", 2)
    load, _ = load_of(DensityStart(Formula.parse(formula, ("x",))), generator)
    assert load.sum() == pytest.approx(1.0, abs=1e-14)
    assert integral(load, generator, lambda x: x[0]) == pytest.approx(mean, abs=1e-8)
    assert integral(load, generator, lambda x: x[0] ** 2) == pytest.approx(second, abs=1e-8)


def test_density_in_the_plane(comm):
    """x² + y⁴ on the square has mass 32/15; a kink is seen but where it cuts off a corner between the points."""
    generator = generator_on(SQUARE, comm, "cg", 2)
    load, _ = load_of(DensityStart(Formula.parse("x**2 + y**4", ("x", "y"))), generator)
    assert integral(load, generator, lambda x: x[0] ** 2) == pytest.approx((4 / 5 + 4 / 15) / (32 / 15), abs=1e-10)
    kink = adaptive_load(generator.space, lambda x: np.abs(x[:, 0] - x[:, 1]), whole_cells(generator.space.mesh))
    assert kink.error < 2e-8
    found = integral(kink.function.x.petsc_vec, generator, lambda x: x[0] * x[1]) / kink.total
    assert found == pytest.approx(-0.2, abs=1e-6)


@pytest.mark.parametrize(
    ("formula", "why"),
    [
        ("x", r"density = '-0.9\d* at x = -0.9\d*'.*nonnegative in the whole domain"),
        ("x - 0.99", "nonnegative in the whole domain"),
        ("0*x", "a density with mass in the domain. It is zero"),
        ("exp(-10**6*(x - 5)**2)", "a density with mass in the domain"),
        ("sqrt(x)", "density = 'not finite at x = -"),
        ("exp(10**4*(x + 1))", "not finite at"),
    ],
)
def test_wrong_density(comm, formula, why):
    generator = generator_on(LINE, comm)
    with pytest.raises(InputError, match=why):
        load_of(DensityStart(Formula.parse(formula, ("x",))), generator)


def test_a_density_that_vanishes_to_rounding_is_no_error(comm):
    """(x - 1/3)² expanded is -1e-17 somewhere near 1/3."""
    generator = generator_on(LINE, comm)
    load, _ = load_of(DensityStart(Formula.parse("x*x - 2*x/3 + 1/9", ("x",))), generator)
    assert load.sum() == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize("scheme", ["dg", "cg"])
@pytest.mark.parametrize("point", [(0.123, -0.456), (0.0, 0.0), (1.0, 1.0), (-1.0, 0.3)])
def test_point(comm, scheme, point):
    """∫ρ₀ f = f(x₀) for quadratic f, inside, at vertices and on a reflecting boundary."""
    generator = generator_on(SQUARE, comm, scheme)
    load, messages = load_of(PointStart(point), generator, domain=SQUARE)
    assert load.sum() == pytest.approx(1.0, abs=1e-14)
    for f in (lambda x: x[0], lambda x: x[0] * x[1] + 3 * x[1] ** 2):
        assert integral(load, generator, f) == pytest.approx(f(np.array(point)), abs=1e-13)
    assert messages == ()


def test_point_on_a_facet_belongs_to_one_cell_whatever_the_ranks(comm):
    """A vertex goes to its cell of the smallest original number: seen by elements that tell cells apart."""
    generator = generator_on(SQUARE, comm, "dg", 1)
    domain = generator.space.mesh
    owned = domain.topology.index_map(2).size_local
    corners = domain.geometry.x[domain.geometry.dofmap[:owned]][:, :, :2]
    numbers = np.array(domain.topology.original_cell_index[:owned], dtype=float)
    every = np.concatenate(comm.allgather(corners.reshape(-1, 6))).reshape(-1, 3, 2)
    order = np.concatenate(comm.allgather(numbers))
    inner = every[np.abs(every).max(axis=2) < 0.7]
    vertex = inner[np.argsort(np.round(inner @ [1.0, 0.1], 9))[0]]
    touching = (np.linalg.norm(every - vertex, axis=2) < 1e-12).any(axis=1)
    assert touching.sum() > 3
    label = fem.Function(generator.space)
    label.x.array[generator.space.dofmap.list[:owned]] = numbers[:, None]
    load, _ = load_of(PointStart(tuple(vertex)), generator)
    assert label.x.petsc_vec.dot(load) == pytest.approx(order[touching].min(), abs=1e-9)


def test_wrong_points(comm):
    for scheme in ("cg", "dg"):
        generator = generator_on(SQUARE, comm, scheme, 1, 0.5, reflecting=False)
        for point in [(2.0, 0.0), (0.0, -1.0 - 1e-6)]:
            with pytest.raises(InputError, match=r"evolve\.initial\.point = .*a point of the domain"):
                load_of(PointStart(point), generator, domain=SQUARE)
        for point in [(1.0, 0.13), (-1.0, -1.0)]:
            with pytest.raises(InputError, match="a point that is not on the absorbing boundary"):
                load_of(PointStart(point), generator)
        load, _ = load_of(PointStart((0.3, 0.2)), generator)
        assert 0 < load.sum() <= 1 + 1e-14
    with pytest.raises(InputError, match="2 finite numbers, for x, y"):
        load_of(PointStart((1.0,)), generator)
    with pytest.raises(InputError, match="2 finite numbers"):
        load_of(PointStart((math.nan, 0.0)), generator)
    with pytest.raises(InputError, match=r"initial\.mean"):
        load_of(gaussian_start([0.0], 1.0), generator)
    with pytest.raises(InputError, match=r"a standard deviation of at least 1e-08\..*Use point"):
        load_of(gaussian_start([0.0, 0.0], 1e-18), generator)


def test_point_in_the_gap_between_chord_and_arc(comm):
    """Straight cells leave out a little of the disc: said with what to do, and curved cells do not."""
    disc, start = fp.Ball((0.0, 0.0), 1.0), PointStart((0.9999 * math.cos(0.43), 0.9999 * math.sin(0.43)))
    with pytest.raises(InputError, match=r"a point of the domain\. The straight cells .* smaller mesh\.size"):
        load_of(start, generator_on(disc, comm, "cg", 1, 0.5), domain=disc)
    load, _ = load_of(start, generator_on(disc, comm, "dg", 1, 0.5, order=4), domain=disc)
    assert load.sum() == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize(("scheme", "degree"), [("dg", 1), ("dg", 3), ("cg", 1), ("cg", 3), ("sg", 1)])
@pytest.mark.parametrize("initial", [gaussian_start([0.1, 0.2], 0.05**2), PointStart((0.3, 0.1))])
def test_start_vector(comm, scheme, degree, initial):
    """M ρ = b, and the mass is 1 to rounding."""
    generator = generator_on(SQUARE, comm, scheme, degree)
    load, _ = load_of(initial, generator)
    rho = start_vector(load, generator)
    assert rho.dot(generator.mass) == pytest.approx(1.0, abs=3e-14)
    mass = generator.mass_matrix()
    product = rho.duplicate()
    mass.mult(rho, product)
    product.axpy(-1.0, load)
    assert product.norm() < 1e-14 * load.norm()


@pytest.mark.parametrize("reflecting", [True, False])
@pytest.mark.parametrize("scheme", ["cg", "sg"])
def test_nonnegative_start(comm, scheme, reflecting):
    """Of the mass of the load, nonnegative; the moments are those of the consistent density, not the lumped one."""
    generator = generator_on(SQUARE, comm, scheme, 1, 0.1, reflecting=reflecting)
    load, _ = load_of(gaussian_start([0.1, 0.2], 0.15**2), generator)
    rho = start_vector(load, generator, lumped=True)
    assert rho.min()[1] >= 0
    assert rho.dot(generator.mass) == pytest.approx(load.sum(), abs=1e-14)
    assert abs(variance(rho, generator) - 0.15**2) < 2e-4 * 0.15**2
    plain = load.duplicate()
    plain.pointwiseDivide(load, generator.mass)
    assert variance(plain, generator) - 0.15**2 > 0.05 * 0.15**2


def variance(rho, generator):
    """Return the variance of x under the finite-element density."""
    x, f = ufl.SpatialCoordinate(generator.space.mesh), generator.to_function(rho)
    terms = [fem.assemble_scalar(fem.form(f * g * ufl.dx)) for g in (x[0], x[0] ** 2)]
    first, second = f.function_space.mesh.comm.allreduce(np.array(terms))
    return second - first**2


def test_nonnegative_point(comm):
    """A point at a node stays there; elsewhere it is shared by the cell's nodes."""
    generator = generator_on(LINE, comm, "cg", 1, 0.25)
    load, _ = load_of(PointStart((0.25,)), generator)
    rho = start_vector(load, generator, lumped=True)
    assert rho.max()[1] == pytest.approx(4.0, rel=1e-14) and rho.norm() == pytest.approx(4.0, rel=1e-14)
    load, _ = load_of(PointStart((0.3,)), generator)
    rho = start_vector(load, generator, lumped=True)
    assert rho.min()[1] == 0
    assert rho.dot(generator.mass) == pytest.approx(1.0, abs=1e-15)


def state_on(domain, comm, path, scheme="cg", degree=2, size=0.25, initial=None, metadata=None):
    generator = generator_on(domain, comm, scheme, degree, size)
    load, _ = load_of(initial or gaussian_start([0.2] * domain.dimension, 0.1**2), generator)
    density = generator.to_function(start_vector(load, generator, lumped=degree == 1))
    save_state(path, density, metadata, comm)
    return generator, density


@pytest.mark.parametrize(
    ("scheme", "degree", "nonnegative"),
    [("dg", 3, False), ("cg", 2, False), ("sg", 1, False), ("sg", 1, True), ("cg", 1, True)],
)
def test_state_on_its_own_mesh(comm, shared_path, scheme, degree, nonnegative):
    path = shared_path / "state.npz"
    generator, density = state_on(SQUARE, comm, path, scheme, degree)
    load, messages = load_of(StateStart(path), generator, nonnegative=nonnegative)
    assert messages == ()
    back = start_vector(load, generator, lumped=nonnegative)
    back.axpy(-1.0, generator.restrict(density.x.petsc_vec))
    assert back.norm() < 1e-13 * density.x.petsc_vec.norm()


@pytest.mark.parametrize(
    ("scheme", "degree", "size", "accuracy"), [("dg", 2, 0.21, 1e-4), ("dg", 2, 0.08, 1e-4), ("cg", 1, 0.5, 2e-3)]
)
def test_state_on_another_mesh(comm, shared_path, scheme, degree, size, accuracy):
    """Mass 1; mean and second moment within the quadrature of a function with kinks."""
    path = shared_path / "state.npz"
    state_on(SQUARE, comm, path, "cg", 2, 0.15)
    generator = generator_on(SQUARE, comm, scheme, degree, size)
    load, messages = load_of(StateStart(path), generator)
    assert load.sum() == pytest.approx(1.0, abs=1e-14)
    assert integral(load, generator, lambda x: x[0]) == pytest.approx(0.2, abs=accuracy * 0.2)
    if degree == 2:
        assert integral(load, generator, lambda x: x[0] ** 2) == pytest.approx(0.05, abs=accuracy * 0.05)
    assert messages == ()


def test_state_of_another_domain(comm, shared_path):
    """A uniform density on (-1, 1)² is cut to (-0.5, 1)²: 7/16 lies outside; of (0.5, 1)² it is nearly all."""
    path = shared_path / "state.npz"
    uniform = DensityStart(Formula.parse("1", ("x", "y")))
    state_on(SQUARE, comm, path, "cg", 1, 0.5, uniform)
    generator = generator_on(fp.Box((-0.5, -0.5), (1.0, 1.0)), comm, "cg", 1)
    load, messages = load_of(StateStart(path), generator)
    assert load.sum() == pytest.approx(1.0, abs=1e-14)
    assert integral(load, generator, lambda x: x[0]) == pytest.approx(0.25, abs=1e-12)
    assert len(messages) == 1 and "0.438 of the saved state's mass" in messages[0]
    with pytest.raises(InputError, match=r"initial\.state.*0.938 of its mass is outside"):
        load_of(StateStart(path), generator_on(fp.Box((0.5, 0.5), (1.0, 1.0)), comm, "cg", 1))


def test_negative_values_of_a_state(comm, shared_path):
    """A state of a scheme without positivity starts a nonnegative one after clipping, which is said."""
    path = shared_path / "state.npz"
    state_on(SQUARE, comm, path, "dg", 3, 0.4, PointStart((0.1, 0.2)))
    generator = generator_on(SQUARE, comm, "cg", 1, 0.2)
    load, messages = load_of(StateStart(path), generator, nonnegative=True)
    assert load.min()[1] >= 0 and load.sum() == pytest.approx(1.0, abs=1e-14)
    assert any("were set to zero" in message for message in messages)
    plain, _ = load_of(StateStart(path), generator)
    assert plain.min()[1] < 0
    rho = start_vector(plain, generator, lumped=True)
    assert rho.min()[1] >= 0 and rho.dot(generator.mass) == pytest.approx(1.0, abs=1e-14)


def test_wrong_states(comm, shared_path):
    path = shared_path / "state.npz"
    state_on(SQUARE, comm, path, metadata={"settings": {"variables": ["a", "b"]}})
    generator = generator_on(SQUARE, comm)
    with pytest.raises(InputError, match=r"evolve\.initial\.state = .* with variables a, b': expected x, y"):
        load_of(StateStart(path), generator)
    with pytest.raises(InputError, match=r"evolve\.initial\.state = .*a state file"):
        load_of(StateStart(shared_path / "none.npz"), generator)
    state_on(LINE, comm, path)
    with pytest.raises(InputError, match=r"1 variables in .*2 variables"):
        load_of(StateStart(path), generator)


@pytest.mark.parametrize(
    "wrong", [[[1.0, 2.0], [2.0, 1.0]], [[1.0, 0.5], [0.0, 1.0]], [[0.0, 0.0], [0.0, 1.0]], [1.0], "a", -1.0]
)
def test_wrong_covariance(wrong):
    with pytest.raises(InputError, match=r"evolve\.initial\.covariance"):
        gaussian_start([0.0, 0.0], wrong)


def test_constructors():
    assert gaussian_start([1, 2], 0.5) == gaussian_start((1.0, 2.0), [0.5, 0.5])
    assert gaussian_start([1, 2], 0.5).covariance == ((0.5, 0.0), (0.0, 0.5))
    assert point_start([1, 2]) == PointStart((1.0, 2.0))
    assert density_start("x**2", ("x",)) == DensityStart(Formula.parse("x**2", ("x",)))
    with pytest.raises(InputError, match=r"evolve\.initial\.mean = \['a'\]: expected a list of numbers"):
        gaussian_start(["a"], 1.0)
    with pytest.raises(InputError, match=r"evolve\.initial\.point = \[inf\]: expected a list of finite numbers"):
        point_start([math.inf])
    with pytest.raises(InputError, match=r"evolve\.initial\.density"):
        density_start("x +", ("x",))


def test_quadrature_weights_are_positive():
    for d in (1, 2, 3):
        for degree in range(6, 14):
            points, weights = positive_rule(d, degree)
            assert weights.min() > 0 and points.min() > 0 and points.sum(axis=1).max() < 1
            assert weights @ points[:, 0] ** degree == pytest.approx(
                math.factorial(degree) / math.factorial(degree + d), rel=1e-11
            )


def test_density_of_a_gaussian():
    start = GaussianStart((1.0, 0.0), ((2.0, 0.5), (0.5, 1.0)))
    x = np.array([[1.0, 0.0], [2.0, 1.0]])
    exponent = -0.5 * np.array([1.0, 1.0]) @ np.linalg.inv([[2.0, 0.5], [0.5, 1.0]]) @ np.array([1.0, 1.0])
    height = 1 / (2 * math.pi * math.sqrt(1.75))
    assert start.density(x) == pytest.approx(height * np.array([1.0, math.exp(exponent)]), rel=1e-14)
