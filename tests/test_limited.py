"""Flux correction: nonnegative, conservative, second order, with the exact equilibrium; on any number of ranks."""

from mpi4py import MPI

import numpy as np
import pytest
from dolfinx import geometry
from linear_reference import fitted_order, gaussian_at, l2_error

import fpsolve as fp
from fpsolve.fem.family import Single, make_family
from fpsolve.fem.generator import assemble, discretise
from fpsolve.fem.limited import LimitedStepper
from fpsolve.fem.limited_graph import Graph
from fpsolve.fem.linear import Solver
from fpsolve.fem.meshing import make_mesh
from fpsolve.fem.rational import CRANK_NICOLSON, l_stable
from fpsolve.fem.scharfetter_gummel import assemble_gibbs
from fpsolve.fem.stepping import LinearStepper, System

EYE = np.eye(2)
TURN = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
KINETIC = np.array([[0.0, -1.0], [1.0, 1.0]])
SQUARE = fp.Box((-3.0, -3.0), (3.0, 3.0))
#: name: drift matrix C, diffusion a
LINEAR = {
    "isotropic": (EYE, 0.25 * EYE),
    "rotated": (EYE, 0.25 * TURN @ np.diag([1.0, 0.0]) @ TURN.T),
    "kinetic": (KINETIC, np.diag([0.0, 0.25])),
    "collapsing": (EYE, np.diag([0.25, 0.0])),
}
WELLS = "(x**2 - 1)**2 + y**2"
WELLS_BOX = fp.Box((-2.0, -1.5), (2.0, 1.5))


class Run:
    """A system with its two steppers, and densities on it as arrays of own values."""

    def __init__(self, process, domain, size, comm, scheme="cg", order=2, reflecting=True):
        triangulation = make_mesh(domain, size, 1, comm)
        parts = tuple(triangulation.parts) if reflecting else ()
        if scheme == "sg":
            generator, self.wrong = assemble_gibbs(process, triangulation, parts)
        else:
            generator = assemble(discretise(process, triangulation, parts, 1), scheme, 1)
        self.comm = comm
        self.generator = generator
        self.system = System(Single(generator))
        self.linear = LinearStepper(self.system, l_stable(order))
        self.limited = LimitedStepper(self.system, self.linear)
        index_map = generator.space.dofmap.index_map
        own = np.arange(index_map.size_local)
        if generator.free is not None:
            own = generator.free.getIndices() - index_map.local_range[0]
        self.x = generator.space.tabulate_dof_coordinates()[own][:, : process.dimension]
        self.weights = generator.mass.getArray(readonly=True).copy()

    def vector(self, values):
        y = self.generator.mass.duplicate()
        y.setArray(values)
        return y

    def integral(self, values):
        """Sums over the last axis, weighted by ∫φ_i."""
        return self.comm.allreduce((values * self.weights).sum(axis=-1))

    def moments(self, y):
        values = y.getArray()
        first = self.integral(values * self.x.T)
        second = self.integral(values * self.x.T[:, None] * self.x.T[None])
        return np.concatenate([[self.integral(values), self.integral(values**2)], first, second.ravel()])

    def point(self, place):
        """Barycentric weights of the point over ∫φ_i: a Dirac without negative values."""
        domain = self.generator.space.mesh
        d = len(place)
        at = np.zeros((1, 3))
        at[0, :d] = place
        found = geometry.compute_collisions_points(geometry.bb_tree(domain, d), at)
        cells = geometry.compute_colliding_cells(domain, found, at).links(0)
        mine = [c for c in cells if c < domain.topology.index_map(d).size_local]
        owner = next(r for r, has in enumerate(self.comm.allgather(bool(mine))) if has)
        y = self.generator.mass.duplicate()
        y.set(0.0)
        if self.comm.rank == owner:
            unknowns = self.generator.space.dofmap.cell_dofs(mine[0])
            corners = self.generator.space.tabulate_dof_coordinates()[unknowns][:, :d]
            weights = np.linalg.solve(np.vstack([corners.T, np.ones(d + 1)]), [*place, 1.0])
            numbers = self.generator.space.dofmap.index_map.local_to_global(unknowns).astype(np.int32)
            y.setValues(numbers, weights, addv=True)
        y.assemble()
        y.pointwiseDivide(y, self.generator.mass)
        return y

    def march(self, y, dt, steps, limited=True):
        """Return the last vector and the smallest value over the largest on the way; keep the largest correction."""
        lowest, self.corrected = np.inf, 0.0
        for _ in range(steps):
            new, _ = (self.limited if limited else self.linear).step(y, dt)
            y.destroy()
            y = new
            lowest = min(lowest, y.min()[1] / y.max()[1])
            self.corrected = max(self.corrected, self.limited.corrected)
        return y, lowest

    def destroy(self):
        self.limited.destroy()
        self.system.destroy()


def linear_process(name):
    C, a = LINEAR[name]
    drift = [f"({-c[0]!r})*x + ({-c[1]!r})*y" for c in C.tolist()]
    return fp.diffusion_process(drift, [[repr(entry) for entry in row] for row in a.tolist()], ["x", "y"])


def gaussian(x, mean, covariance):
    z = np.linalg.solve(np.linalg.cholesky(covariance), (x - mean).T)
    return np.exp(-0.5 * np.sum(z * z, axis=0)) / np.sqrt(np.linalg.det(2 * np.pi * covariance))


def equilibrium(run, loss, epsilon2):
    weight = np.exp(-loss(run.x) / epsilon2)
    return weight / run.integral(weight)


def wells(x):
    return (x[:, 0] ** 2 - 1) ** 2 + x[:, 1] ** 2


ROUGH = [("collapsing", False, 0.003), ("isotropic", True, 0.001), ("kinetic", True, 0.003), ("rotated", True, 0.02)]


@pytest.mark.parametrize(("name", "from_point", "dt"), ROUGH)
def test_nonnegative_and_conservative_over_1000_steps(comm, name, from_point, dt):
    """Where the linear scheme goes far below zero: a point start, and a marginal that collapses to a Dirac."""
    run = Run(linear_process(name), SQUARE, 0.25, comm)
    mean, covariance = np.array([0.5, 0.3]), 0.09 * EYE

    def start():
        return run.point((0.5, 0.21)) if from_point else run.vector(gaussian(run.x, mean, covariance))

    y, lowest = run.march(start(), dt, 500, limited=False)
    assert lowest < -0.01
    mass = run.integral(start().getArray())
    y, lowest = run.march(start(), dt, 1000)
    assert lowest >= 0.0
    assert abs(run.integral(y.getArray()) - mass) <= 1e-13 * mass
    assert run.corrected <= 1e-15  # by the limiter, not by the scaling after it
    run.destroy()


def test_long_steps_and_every_order(comm):
    """A point start with a step far too long for it, where R∞ of the linear methods shows; Crank-Nicolson, too."""
    for method in (*map(l_stable, (1, 2, 3, 4)), CRANK_NICOLSON):
        run = Run(linear_process("kinetic"), SQUARE, 0.25, comm)
        y = run.point((0.5, 0.21))
        for _ in range(5):
            y, _ = run.limited.step(y, 0.5, 1.0, method)
            assert y.min()[1] >= 0.0
            assert abs(run.integral(y.getArray()) - 1.0) <= 1e-13
        run.destroy()


def test_mass_may_pass_through_where_there_is_little(comm):
    """Large artificial diffusion and a long step: counting what arrives halves the error of Zalesak's limiter."""
    C, a = LINEAR["kinetic"]
    run = Run(linear_process("kinetic"), SQUARE, 0.1, comm)
    mean, covariance = gaussian_at(C, a, np.array([0.5, 0.21]), np.zeros((2, 2)), 1.0)
    y, lowest = run.march(run.point((0.5, 0.21)), 0.1, 10)
    assert lowest >= 0.0
    assert run.integral(np.abs(y.getArray() - gaussian(run.x, mean, covariance))) < 0.15  # 0.28 by Zalesak's
    run.destroy()


def test_residuals_cost_neither_mass_nor_sign(comm, monkeypatch):
    """Solves with relative errors of 1e-5, as Krylov methods may leave: still conservative and nonnegative."""
    run = Run(linear_process("kinetic"), SQUARE, 0.25, comm)
    noise = np.random.default_rng(comm.rank)
    exact = Solver._run

    def disturbed(self, *arguments, **options):
        x = exact(self, *arguments, **options)
        values = x.getArray()
        values += 1e-5 * x.norm(3) * noise.uniform(-1, 1, len(values))
        return x

    monkeypatch.setattr(Solver, "_run", disturbed)
    y, lowest = run.march(run.point((0.5, 0.21)), 0.01, 100)
    assert lowest >= 0.0
    assert abs(run.integral(y.getArray()) - 1.0) <= 1e-13
    assert run.corrected > 1e-12  # else the disturbance was none
    run.destroy()


def test_equilibrium_is_stationary(comm):
    """Scharfetter-Gummel weights: exp(-L/ε²) at the nodes does not move, each value relative to itself."""
    run = Run(fp.SGD(WELLS, epsilon2=0.1), WELLS_BOX, 0.15, comm, "sg")
    gibbs = equilibrium(run, wells, 0.1)
    for dt, steps, bound in ((0.01, 1000, 1e-12), (1.0, 50, 1e-11)):
        y, _ = run.march(run.vector(gibbs), dt, steps)
        drift = np.abs(y.getArray() / gibbs - 1).max(initial=0.0)
        assert comm.allreduce(drift, op=MPI.MAX) < bound
        assert abs(run.integral(y.getArray()) - 1.0) < 1e-13
    run.destroy()


def test_wrong_signed_couplings_keep_the_equilibrium(comm):
    """A tetrahedral mesh has them even for a = ε² I; positivity and the equilibrium survive."""
    process = fp.SGD("(x**2 + y**2 + z**2)/2", variables=("x", "y", "z"), epsilon2=0.3)
    run = Run(process, fp.Ball((0.0, 0.0, 0.0), 1.0), 0.4, comm, "sg")
    assert run.wrong > 1e-3
    gibbs = equilibrium(run, lambda x: 0.5 * np.sum(x**2, axis=1), 0.3)
    y, _ = run.march(run.vector(gibbs), 0.1, 100)
    assert comm.allreduce(np.abs(y.getArray() / gibbs - 1).max(initial=0.0), op=MPI.MAX) < 1e-12
    graph, couplings = run.limited.graph, run.limited.couplings()
    at = graph.with_foreign(gibbs)
    there, back = couplings.low_out * at[graph.tail], couplings.low_back * at[graph.head]
    assert np.all(there <= 0.0) and there == pytest.approx(back, rel=1e-12, abs=1e-14)
    y, lowest = run.march(run.point((0.3, 0.2, 0.1)), 0.01, 20)
    assert lowest >= 0.0 and abs(run.integral(y.getArray()) - 1.0) <= 1e-13
    run.destroy()


@pytest.mark.parametrize("dt", [0.002, 0.05, 0.5])
def test_entropy_never_increases(comm, dt):
    """Double well from a point, Scharfetter-Gummel: ½∫(ρ/ρ∞ - 1)²ρ∞ and ∫ρ log(ρ/ρ∞) at every step."""
    run = Run(fp.SGD(WELLS, epsilon2=0.5), WELLS_BOX, 0.1, comm, "sg")
    gibbs = equilibrium(run, wells, 0.5)

    def entropies(y):
        ratio = y.getArray() / gibbs
        return np.array([run.integral(gibbs * (ratio - 1) ** 2), run.integral(gibbs * ratio * np.log(ratio + 1e-300))])

    y = run.point((-1.02, 0.21))
    before, limited = entropies(y), 0.0
    for _ in range(min(100, round(10 / dt))):
        y, _ = run.limited.step(y, dt)
        after = entropies(y)
        assert np.all(after < before)
        before, limited = after, max(limited, run.limited.limited)
    assert dt < 0.05 or limited > 0.01  # the limiter worked, not only the linear scheme
    run.destroy()


ORDERS = [("isotropic", 0.09, 1.0, 1.3e-3), ("rotated", 0.16, 0.5, 3.6e-3), ("kinetic", 0.09, 1.0, 4e-3)]


@pytest.mark.parametrize(("name", "variance", "t", "cap"), ORDERS)
def test_second_order_in_space(comm, name, variance, t, cap):
    """Gaussian start against the exact Gaussian in L²; the step shrinks with the mesh."""
    C, a = LINEAR[name]
    mean, covariance = np.array([0.5, 0.2]), variance * EYE
    sizes, errors = [0.12, 0.08, 0.05], []
    for size in sizes:
        run = Run(linear_process(name), SQUARE, size, comm)
        steps = round(6 * t / size)
        y, lowest = run.march(run.vector(gaussian(run.x, mean, covariance)), t / steps, steps)
        assert lowest >= 0.0
        density = run.generator.to_function(y)
        errors.append(l2_error(density, *gaussian_at(C, a, mean, covariance, t)))
        run.destroy()
    assert fitted_order(sizes, errors) >= 1.9
    assert errors[-1] < cap


@pytest.mark.parametrize("scheme", ["cg", "sg"])
def test_second_order_in_time(comm, scheme):
    """On one mesh, against many steps; the limiter is at work in the tails."""
    process = linear_process("kinetic") if scheme == "cg" else fp.SGD("(x**2 + y**2)/2", epsilon2=0.25)
    run = Run(process, SQUARE, 0.15, comm, scheme)
    start = gaussian(run.x, np.array([0.5, 0.2]), 0.09 * EYE)
    finest, _ = run.march(run.vector(start), 0.5 / 320, 320)
    counts, errors = [8, 16, 32], []
    for steps in counts:
        y, lowest = run.march(run.vector(start), 0.5 / steps, steps)
        assert lowest >= 0.0
        y.axpy(-1.0, finest)
        errors.append(y.norm() / finest.norm())
    assert fitted_order([1 / n for n in counts], errors) >= 1.9
    assert errors[-1] < 2e-3
    run.destroy()


def test_error_estimate(comm):
    """Close to the error of one step on smooth data, third order in the step; a point start does not inflate it."""
    run = Run(linear_process("isotropic"), SQUARE, 0.2, comm)
    start = run.vector(gaussian(run.x, np.array([0.5, 0.2]), 0.16 * EYE))
    estimates = [run.limited.step(start, dt)[1] for dt in (0.1, 0.05)]
    assert 3.0 < estimates[0] / estimates[1] < 4.5  # the estimate is of one order less than the step
    y = run.point((0.5, 0.21))
    for _ in range(20):
        y, error = run.limited.step(y, 0.05)
    assert error < 2 * estimates[1]
    run.destroy()


@pytest.mark.parametrize("scheme", ["cg", "sg"])
def test_absorbing_boundary(comm, scheme):
    """Heat equation on the unit square: the mass left is e^{-π²T}, what is gone went through the exit."""
    process = fp.SGD("0*x", epsilon2=0.5)
    sizes, errors, t = [0.1, 0.05], [], 0.3
    for size in sizes:
        run = Run(process, fp.Box((0.0, 0.0), (1.0, 1.0)), size, comm, scheme, reflecting=False)
        y = run.vector(np.pi**2 / 4 * np.prod(np.sin(np.pi * run.x), axis=1))
        first, left, steps = run.integral(y.getArray()), 0.0, round(4 * t / size)
        for _ in range(steps):
            y, _ = run.limited.step(y, t / steps)
            assert run.limited.outflow > 0
            left += run.limited.outflow
        mass = run.integral(y.getArray())
        assert y.min()[1] >= 0.0
        assert abs(mass + left - first) < 1e-13
        errors.append(abs(mass / np.exp(-(np.pi**2) * t) - 1))
        run.destroy()
    assert fitted_order(sizes, errors) >= 1.8
    assert errors[-1] < 2e-2


def test_absorbing_with_outflow_of_the_wrong_sign(comm):
    """Rotated degenerate noise towards an exit: κ_i < 0 at some unknowns, yet nothing comes back from outside."""
    a = [[repr(entry) for entry in row] for row in LINEAR["rotated"][1].tolist()]
    process = fp.diffusion_process(["1 - x", "0.5*y"], a, ["x", "y"])
    run = Run(process, fp.Box((-1.0, -1.0), (1.0, 1.0)), 0.06, comm, reflecting=False)
    assert run.system.outflow().min()[1] < -0.01
    mean = np.array([0.1, 0.1])
    reference, lowest = run.march(run.vector(gaussian(run.x, mean, 0.04 * EYE)), 0.005, 200, limited=False)
    assert lowest < -1e-5
    y, left = run.vector(gaussian(run.x, mean, 0.04 * EYE)), 0.0
    first = run.integral(y.getArray())
    for _ in range(200):
        y, _ = run.limited.step(y, 0.005)
        assert y.min()[1] >= 0.0 and run.limited.outflow >= 0.0
        left += run.limited.outflow
    mass = run.integral(y.getArray())
    assert abs(mass + left - first) < 1e-13
    assert mass == pytest.approx(run.integral(reference.getArray()), rel=1e-3)
    couplings = run.limited.couplings()
    assert np.all(couplings.low_leak >= 0.0) and max(couplings.low_out.max(), couplings.low_back.max()) <= 0.0
    run.destroy()


def test_changing_noise(comm):
    """B(θ) of a family is what the step uses: θ = ½ is the process with half the noise, and θ = 1 again after it."""
    process = fp.SGD("x**2/2 + y**2", [["1", "0.5"], ["0.5", "0.25"]], epsilon2=0.4)
    half = fp.SGD("x**2/2 + y**2", [["1", "0.5"], ["0.5", "0.25"]], epsilon2=0.2)
    triangulation = make_mesh(SQUARE, 0.3, 1, comm)
    reflecting = tuple(triangulation.parts)
    results = []
    for base, largest, thetas in ((process, 1.0, (1.0, 0.5, 1.0)), (process, None, (1.0,)), (half, None, (1.0,))):
        system = System(make_family(base, triangulation, reflecting, "cg", 1, largest))
        stepper = LimitedStepper(system, LinearStepper(system, l_stable(2)))
        x = system.generator.space.tabulate_dof_coordinates()[: system.lumped.getLocalSize(), :2]
        y = system.lumped.duplicate()
        y.setArray(gaussian(x, np.array([0.5, 0.2]), 0.05 * EYE))
        results += [stepper.step(y, 0.05, theta)[0].getArray().copy() for theta in thetas]
        stepper.destroy()
        system.destroy()
    first, middle, last, full, less = results
    # to rounding: MUMPS does not add in the same order each time on several ranks
    assert np.abs(first - last).max() < 1e-12
    assert np.abs(first - full).max() < 1e-12 and np.abs(middle - less).max() < 1e-12
    assert comm.allreduce(np.abs(first - middle).max(), op=MPI.MAX) > 1e-3


@pytest.mark.parametrize("name", ["collapsing", "rotated"])
def test_ranks_agree(comm, name):
    """All ranks together and each one alone: mass, L² norm, first and second moments to 1e-10."""
    if comm.size == 1:
        pytest.skip("needs several ranks")
    results = []
    for group in (comm, MPI.COMM_SELF):
        run = Run(linear_process(name), SQUARE, 0.25, group)
        y, _ = run.march(run.point((0.5, 0.21)), 0.02, 50)
        results.append(run.moments(y))
        run.destroy()
    assert results[0] == pytest.approx(results[1], rel=1e-10, abs=1e-10)


def test_graph_against_the_matrix(comm):
    """Gains by pairs are Bᵀx without the row sums, entries go back where they came from, on every rank."""
    run = Run(linear_process("rotated"), SQUARE, 0.3, comm)
    graph, matrix = Graph(run.generator.matrix), run.generator.matrix
    x, product = matrix.createVecs()
    x.setArray(np.cos(run.x[:, 0] + 2 * run.x[:, 1]))
    matrix.multTranspose(x, product)
    out, back = graph.couplings(matrix)
    values = graph.with_foreign(x)
    gain = graph.gain(back * values[graph.head] - out * values[graph.tail])
    assert np.abs(gain - product.getArray()).max() < 1e-12
    again = graph.matrix(out, back, matrix.getDiagonal().getArray())
    again.axpy(-1.0, matrix)
    assert again.norm() == 0.0
    graph.destroy()
    run.destroy()


def test_needs_linear_elements(comm):
    triangulation = make_mesh(SQUARE, 1.0, 1, comm)
    process = linear_process("isotropic")
    for scheme, degree in (("dg", 1), ("cg", 2)):
        generator = assemble(discretise(process, triangulation, tuple(triangulation.parts), degree), scheme, degree)
        system = System(Single(generator))
        with pytest.raises(ValueError, match="linear elements"):
            LimitedStepper(system, LinearStepper(system, l_stable(2)))
        system.destroy()
