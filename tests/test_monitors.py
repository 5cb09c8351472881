"""What is observed of a density, against Gaussians whose numbers are known in closed form."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mpi4py import MPI
from petsc4py import PETSc

import numpy as np
import pytest
from dolfinx import fem
from scipy.integrate import quad
from scipy.stats import norm

import fpsolve as fp
import fpsolve.problems.entropies as entropies
from fpsolve.errors import InputError
from fpsolve.fem.generator import Generator, assemble, discretise
from fpsolve.fem.linear import Solver
from fpsolve.fem.meshing import Triangulation, make_mesh
from fpsolve.fem.scharfetter_gummel import assemble_gibbs
from fpsolve.model.domains import Domain
from fpsolve.model.initial import gaussian_start
from fpsolve.model.momentum import MomentumSGD
from fpsolve.model.process import Process
from fpsolve.problems.compare_evolution import compare_bounds
from fpsolve.problems.entropies import stagnation
from fpsolve.problems.evolution import Cost, EvolveResult
from fpsolve.problems.monitors import Monitors, truncation_warning
from fpsolve.problems.reference import Reference, known_reference, stationary_gaussian

OU = fp.SGD("(x**2 + y**2)/2", epsilon2=0.25)
WELLS = fp.SGD("(x**2 - 1)**2 + y**2", epsilon2=0.2)
SQUARE = fp.Box((-4.0, -4.0), (4.0, 4.0))


@dataclass(frozen=True)
class Case:
    """A process on a mesh without flux through the boundary."""

    process: Process
    domain: Domain
    triangulation: Triangulation
    generator: Generator

    def monitors(self, observables: tuple[str, ...] = (), reference: Reference | None = None, **more: Any) -> Monitors:
        return Monitors(self.process, self.domain, self.triangulation, self.generator, observables, reference, **more)

    def reference(self) -> Reference:
        found = known_reference(self.process, self.domain, self.generator)
        assert found is not None
        return found

    def density(self, values: Any) -> PETSc.Vec:
        """The interpolation of a callable (n, d) -> (n,)."""
        space = self.generator.space
        function = fem.Function(space)
        function.x.array[:] = values(space.tabulate_dof_coordinates()[:, : self.process.dimension])
        return self.generator.restrict(function.x.petsc_vec)

    def gaussian(self, mean: Any, covariance: Any) -> PETSc.Vec:
        return self.density(gaussian_start(mean, covariance).density)


def case(
    comm: MPI.Intracomm, process: Process, domain: Domain, size: float, scheme: str, degree: int, closed: bool = True
) -> Case:
    triangulation = make_mesh(domain, size, 1, comm)
    names = domain.names if closed else domain.reflecting
    if scheme == "sg":
        return Case(process, domain, triangulation, assemble_gibbs(process, triangulation, names)[0])
    return Case(
        process, domain, triangulation, assemble(discretise(process, triangulation, names, degree), scheme, degree)
    )


def relaxation(t: float, v0: float = 0.1) -> tuple[np.ndarray, float]:
    """Mean and variance of OU (in each direction) at time t."""
    return np.array([0.8, -0.5]) * np.exp(-t), 0.25 + (v0 - 0.25) * np.exp(-2 * t)


def chi2_of_gaussians(m: np.ndarray, v: float, s: float) -> float:
    """½∫(N(m, v)/N(0, s) - 1)² N(0, s) in len(m) dimensions, v < 2s."""
    q = 1 / (2 / v - 1 / s)
    one = np.sqrt(s * q) / v * np.exp(m**2 * (2 * q / v**2 - 1 / v))
    return 0.5 * float(np.expm1(np.sum(np.log(one))))


def kl_of_gaussians(m: np.ndarray, v: float, s: float) -> float:
    return 0.5 * float(np.sum(v / s + m**2 / s - 1 - np.log(v / s)))


def test_closed_form_of_chi2_is_right():
    """The reference of the tests below against quadrature."""
    m, v, s = np.array([0.3]), 0.2, 0.25
    rho, pi = norm(0.3, np.sqrt(v)).pdf, norm(0, np.sqrt(s)).pdf
    assert chi2_of_gaussians(m, v, s) == pytest.approx(0.5 * quad(lambda x: (rho(x) - pi(x)) ** 2 / pi(x), -4, 4)[0])
    assert kl_of_gaussians(m, v, s) == pytest.approx(quad(lambda x: rho(x) * np.log(rho(x) / pi(x)), -4, 4)[0])


@pytest.mark.parametrize("scheme, size, cap", [("dg", 0.15, 3e-8), ("cg", 0.15, 3e-8), ("dg", 0.3, 3e-6)])
def test_moments_of_a_rotated_gaussian(comm, scheme, size, cap):
    """Mass, mean, covariance, observables; the Gaussian is interpolated by cubics."""
    turn = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
    mean, covariance = np.array([0.4, -0.3]), turn @ np.diag([0.4, 0.08]) @ turn.T
    c = case(comm, OU, SQUARE, size, scheme, 3)
    record = c.monitors(("x*y", "exp(x)")).record(0.5, c.gaussian(mean, covariance))
    assert record.t == 0.5
    assert record.mass == pytest.approx(1.0, abs=cap)
    np.testing.assert_allclose(record.mean, mean, atol=cap)
    np.testing.assert_allclose(record.covariance, covariance, atol=cap)
    expected = [covariance[0, 1] + mean[0] * mean[1], np.exp(mean[0] + covariance[0, 0] / 2)]
    np.testing.assert_allclose(record.observables, expected, atol=10 * cap)
    peak = 1 / (2 * np.pi * np.sqrt(0.4 * 0.08))
    assert 0.9 * peak < record.maximum <= peak
    assert 0.0 <= record.minimum < 1e-30
    assert record.outflow == 0.0
    assert record.entropy is None and record.relative_entropy is None


def test_one_dimension_far_from_zero(comm):
    """Mean 1000, standard deviation 0.01: moments about the centre of the domain keep the variance's digits."""
    process = fp.SGD("(x - 1000)**2/2", epsilon2=1e-4, variables=("x",))
    c = case(comm, process, fp.Interval(999.9, 1000.1), 0.002, "cg", 3)
    record = c.monitors().record(0.0, c.gaussian([1000.01], [[1e-4]]))
    assert record.mean[0] == pytest.approx(1000.01, rel=1e-12)
    assert record.covariance[0, 0] == pytest.approx(1e-4, rel=1e-5)


def test_outflow_is_the_loss_of_mass(comm):
    """κ·ρ = -1ᵀMρ' = 1ᵀBᵀρ, by a matrix product that the monitor does not make; the mass left is the survival."""
    c = case(comm, OU, fp.Box((-1.0, -1.0), (1.0, 1.0), reflecting=("top",)), 0.2, "cg", 2, closed=False)
    vector = c.gaussian([0.2, 0.3], 0.05)
    monitors = c.monitors(reference=c.reference())
    record = monitors.record(0.0, vector)
    rate, ones = vector.duplicate(), vector.duplicate()
    ones.set(1.0)
    c.generator.matrix.multTranspose(vector, rate)
    assert record.outflow == pytest.approx(rate.dot(ones), rel=1e-10)
    assert record.outflow > 1e-3
    assert record.minimum == 0.0  # of the unknowns fixed to zero
    assert record.near_boundary == 0.0  # nothing artificial: the top reflects by the user's wish
    assert record.entropy is None  # no stationary density where mass leaves
    doubled = rate.copy()
    c.generator.outflow.copy(doubled)
    doubled.scale(2.0)
    again = monitors.record(0.0, vector, 1.0, (c.generator.matrix, doubled))
    assert again.outflow == pytest.approx(2 * record.outflow, rel=1e-14)


def test_basins_and_boundary_layer(comm):
    """Gaussians in the double well: half-planes, and a layer of 5 % at the sides that are not reflecting by wish."""
    domain = fp.Box((-2.0, -1.5), (2.0, 1.5), reflecting=("right",))
    c = case(comm, WELLS, domain, 0.1, "dg", 3)
    monitors = c.monitors()
    np.testing.assert_allclose(monitors.minima, [[-1, 0], [1, 0]], atol=1e-12)
    record = monitors.record(0.0, c.gaussian([0.2, 0.1], [[0.16, 0.0], [0.0, 0.09]]))
    np.testing.assert_allclose(record.basins, norm.cdf([-0.5, 0.5]), atol=5e-5)
    assert record.basins.sum() == pytest.approx(record.mass, rel=1e-13)
    x, y = norm(0.2, 0.4), norm(0.1, 0.3)
    interior = (x.cdf(2.0) - x.cdf(-1.8)) * (y.cdf(1.35) - y.cdf(-1.35))
    assert record.near_boundary == pytest.approx(1 - interior / record.mass, abs=2e-6)
    assert record.near_boundary > 1e-5


def test_gibbs_reference(comm):
    """Normalised on the mesh, safe from overflow, scaled with ε²."""
    well = fp.SGD("(x**2 - 1)**2", epsilon2=0.2, variables=("x",))
    c = case(comm, well, fp.Interval(-2.5, 2.5), 0.05, "cg", 2)
    reference = c.reference()
    assert reference.origin == "Gibbs (exact)"
    for theta in (1.0, 0.5):
        z = quad(lambda x, s=0.2 * theta: np.exp(-((x * x - 1) ** 2) / s), -2.5, 2.5)[0]
        at = reference.at(theta)
        assert at.log_density(np.array([[0.3]]))[0] == pytest.approx(
            -((0.09 - 1) ** 2) / (0.2 * theta) - np.log(z), rel=1e-8
        )
    steep = fp.SGD("1e5*(x**2 + 1)", epsilon2=0.01, variables=("x",))
    narrow = Reference.gibbs(steep, case(comm, steep, fp.Interval(-0.01, 0.01), 1e-4, "cg", 2).generator)
    assert narrow.log_density(np.zeros((1, 1)))[0] == pytest.approx(0.5 * np.log(1e7 / np.pi), rel=1e-8)
    with pytest.raises(InputError):
        Reference.given(lambda x: np.full(len(x), np.nan), c.generator)
    anisotropic = fp.SGD("(x**2 - 1)**2 + y**2", [["1", "0"], ["0", "2"]], epsilon2=0.2)
    assert Reference.gibbs(anisotropic, c.generator) is None


def test_stationary_gaussian_of_linear_drift():
    """Kinetic: N(m, D/g I), Kalman's rank condition; none without it, nor for nonlinear or unstable drift."""
    box = fp.Box((-3.0, -2.0), (4.0, 5.0))

    def law(drift: list[str], a: list[list[str]]) -> Any:
        return stationary_gaussian(fp.diffusion_process(drift, a, ["w", "v"]), box)

    noise = [["0", "0"], ["0", "0.5"]]
    mean, covariance = law(["v", "-(w - 1) - 2*v"], noise)
    np.testing.assert_allclose(mean, [1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(covariance, 0.25 * np.eye(2), atol=1e-12)
    assert law(["-w", "-v"], noise) is None
    assert law(["v", "w - 2*v"], noise) is None
    assert law(["v", "-w**3 - 2*v"], noise) is None


def test_kinetic_reference(comm):
    """Momentum in a double well: exp(-(g/D)(L + v²/2)), by the process' own formulas of g and D."""
    process = MomentumSGD("(w**2 - 1)**2", learning_rate=0.25, momentum=0.5, batch_size=1)
    c = case(comm, process, fp.Box((-2.5, -3.0), (2.5, 3.0)), 0.15, "dg", 3)
    reference = c.reference()
    g, noise = 0.5 / 0.5, 0.5 / 2
    for theta in (1.0, 2.0):
        x = np.array([[0.4, -0.7], [-1.0, 0.0]])
        difference = np.diff(reference.at(theta).log_density(x))[0]
        assert difference == pytest.approx(g / (theta * noise) * ((0.4**2 - 1) ** 2 + 0.7**2 / 2), rel=1e-12)
    record = c.monitors(reference=reference).record(0.0, c.density(lambda x: np.exp(reference.log_density(x))))
    assert record.mass == pytest.approx(1.0, abs=1e-5)
    assert record.entropy < 1e-5
    assert record.basins.shape == (0,)


TIMES = (0.1, 1.0, 2.0, 3.0, 4.0, 6.0)


@pytest.mark.parametrize("degree, cap", [(2, 0.06), (3, 3e-4)])
def test_entropies_of_ornstein_uhlenbeck(comm, degree, cap):
    """χ² and Kullback-Leibler of the exact Gaussians, over more than five decades; the order in h² of the floor."""
    c = case(comm, OU, SQUARE, 0.2, "dg", degree)
    monitors = c.monitors(reference=c.reference(), minima=np.empty((0, 2)))
    floor = []
    for t in TIMES:
        m, v = relaxation(t)
        record = monitors.record(t, c.gaussian(m, v))
        exact, rate = chi2_of_gaussians(m, v, 0.25), kl_of_gaussians(m, v, 0.25)
        assert record.entropy == pytest.approx(exact, rel=cap)
        assert record.relative_entropy == pytest.approx(rate, rel=cap)
        floor.append(abs(record.entropy - exact))
        slope = (chi2_of_gaussians(*relaxation(t - 1e-4), 0.25) - chi2_of_gaussians(*relaxation(t + 1e-4), 0.25)) / 2e-4
        assert record.entropy_production == pytest.approx(slope, rel=1e-3)
    assert floor[-1] < {2: 1e-6, 3: 2e-9}[degree]
    assert monitors.messages and "Gibbs" in monitors.messages[0]


def test_entropy_to_rounding_with_a_reference_on_the_same_elements(comm):
    """With ρ∞ in the same space nothing but rounding is left: twelve decades."""
    c = case(comm, OU, SQUARE, 0.4, "dg", 3)
    exact = c.reference()
    stationary = c.generator.to_function(c.density(lambda x: np.exp(exact.log_density(x))))
    monitors = c.monitors(reference=Reference.computed(stationary), minima=np.empty((0, 2)))
    for t in (3.0, 6.0, 10.0, 15.0):
        m, v = relaxation(t)
        record = monitors.record(t, c.gaussian(m, v))
        assert record.entropy == pytest.approx(chi2_of_gaussians(m, v, 0.25), rel=2e-3)
        assert record.relative_entropy == pytest.approx(kl_of_gaussians(m, v, 0.25), rel=2e-3)


def test_rounding_in_the_tails_does_not_matter(comm, monkeypatch):
    """Noise of 1e-15 of the maximum everywhere, where ρ∞ falls to 1e-28 of it."""
    c = case(comm, OU, SQUARE, 0.2, "dg", 3)
    m, v = relaxation(6.0)
    rough = gaussian_start(m, v)
    noisy = c.density(lambda x: rough.density(x) + 1e-15 * np.sin(1e4 * x[:, 0] + 3e4 * x[:, 1]))
    exact = chi2_of_gaussians(m, v, 0.25)

    def entropy() -> float:
        return c.monitors(reference=c.reference(), minima=np.empty((0, 2))).record(6.0, noisy).entropy

    assert entropy() == pytest.approx(exact, rel=3e-4)
    monkeypatch.setattr(entropies, "FLOOR", 1e-40)
    assert entropy() > 1.01 * exact


def test_mass_in_the_tail_is_not_overlooked(comm):
    """A density far out, where ρ∞ is lumped: the entropies are large, and below the exact ones."""
    c = case(comm, OU, SQUARE, 0.1, "dg", 3)
    m, v = np.array([3.0, -2.0]), 0.05
    record = c.monitors(reference=c.reference(), minima=np.empty((0, 2))).record(0.0, c.gaussian(m, v))
    assert 1e6 < record.entropy < chi2_of_gaussians(m, v, 0.25)
    assert 0.5 * kl_of_gaussians(m, v, 0.25) < record.relative_entropy < kl_of_gaussians(m, v, 0.25)


def test_entropy_of_the_reversible_chain(comm):
    """Scharfetter-Gummel: E never increases, its production is -dE/dt, and mass passes from well to well."""
    c = case(comm, WELLS, fp.Box((-2.0, -1.5), (2.0, 1.5)), 0.15, "sg", 1)
    monitors = c.monitors(reference=c.reference())
    dt = 0.02
    stepping = c.generator.matrix.copy()
    stepping.scale(dt)
    diagonal = stepping.getDiagonal()
    diagonal.axpy(1.0, c.generator.mass)
    stepping.setDiagonal(diagonal)
    solver = Solver(stepping, 2)
    y = c.gaussian([-1.0, 0.2], 0.03)
    y.scale(1 / y.dot(c.generator.mass))
    records, rhs = [monitors.record(0.0, y)], y.duplicate()
    for n in range(60):
        rhs.pointwiseMult(c.generator.mass, y)
        y = solver.solve_transpose(rhs)
        records.append(monitors.record(dt * (n + 1), y))
    E = np.array([r.entropy for r in records])
    assert (np.diff(E) < 0).all() and E[-1] < 0.1 * E[0]
    # implicit Euler: E_n - E_{n+1} = dt (production at n + 1) + ½|h_{n+1} - h_n|²
    production = np.array([r.entropy_production for r in records])
    assert (production[1:] * dt <= -np.diff(E) * (1 + 1e-12)).all()
    np.testing.assert_allclose(production[-20:] * dt, -np.diff(E)[-20:], rtol=0.02)
    relative = np.array([r.relative_entropy for r in records])
    assert (np.diff(relative) < 0).all() and (relative > 0).all()
    assert records[-1].basins[1] > 0.005 and records[0].basins[1] < 1e-6
    np.testing.assert_allclose([r.basins.sum() for r in records], 1.0, rtol=1e-12)
    stationary = c.density(lambda x: np.exp(c.reference().log_density(x)))
    stationary.scale(1 / stationary.dot(c.generator.mass))
    assert monitors.record(0.0, stationary).entropy < 1e-25
    assert monitors.record(0.0, y, 0.5).entropy_production is None  # B(θ) was not given


def test_theta_is_another_noise_level(comm):
    half = fp.with_epsilon2(OU, 0.125)
    one, other = case(comm, OU, SQUARE, 0.3, "dg", 3), case(comm, half, SQUARE, 0.3, "dg", 3)
    start = ([0.1, 0.2], 0.1)
    scaled = one.monitors(reference=one.reference(), minima=np.empty((0, 2))).record(0.0, one.gaussian(*start), 0.5)
    direct = other.monitors(reference=other.reference(), minima=np.empty((0, 2))).record(0.0, other.gaussian(*start))
    for name in ("entropy", "entropy_production", "relative_entropy"):
        assert getattr(scaled, name) == pytest.approx(getattr(direct, name), rel=1e-12)
    assert direct.entropy == pytest.approx(chi2_of_gaussians(np.array([0.1, 0.2]), 0.1, 0.125), rel=1e-3)


def test_wrong_observables(comm):
    c = case(comm, OU, SQUARE, 1.0, "cg", 1)
    with pytest.raises(InputError, match=r"observables\[1\]"):
        c.monitors(("x", "x + z"))
    with pytest.raises(InputError, match=r"observables\[0\].*finite"):
        c.monitors(("log(x)",))


def test_truncation_warning(comm):
    """Quiet inside; otherwise a box that holds mean ± 6 standard deviations, and where the drift leads out."""
    domain = fp.Box((-2.0, -2.0), (2.0, 2.0))
    c = case(comm, OU, domain, 0.2, "cg", 2)
    monitors = c.monitors(minima=np.empty((0, 2)))
    inside = monitors.record(0.0, c.gaussian([0.0, 0.0], 0.04))
    assert inside.near_boundary < 1e-12
    assert truncation_warning([inside], domain) is None
    near = monitors.record(1.0, c.gaussian([1.0, 0.0], 0.16))
    text = truncation_warning([inside, near], domain)
    assert text is not None and "t = 1" in text
    low, high = (
        np.array([float(v) for v in part.split(")")[0].split(",")]) for part in text.split("from (")[1].split("to (")
    )
    assert high[0] >= near.mean[0] + 6 * np.sqrt(near.covariance[0, 0]) > 3.0
    assert low[0] == -2.0 and high[1] > 2.0 > -2.0 > low[1]
    assert "leads out" not in (truncation_warning([near], domain, OU) or "")
    ridge = fp.SGD("x**2/2 - y**2/2", epsilon2=0.1)
    assert "y = 2 (outward drift 2)" in (truncation_warning([near], domain, ridge) or "")


def test_same_on_any_number_of_ranks(comm):
    def numbers(on: MPI.Intracomm) -> list[float]:
        c = case(on, WELLS, fp.Box((-2.0, -1.5), (2.0, 1.5)), 0.3, "cg", 2)
        r = c.monitors(("x*y",), c.reference()).record(0.0, c.gaussian([-0.4, 0.2], 0.1))
        moments = [*r.mean, *r.covariance.ravel(), *r.observables, *r.basins, r.mass, r.near_boundary]
        return [*moments, r.entropy, r.entropy_production, r.relative_entropy, r.minimum, r.maximum]

    mine = numbers(comm)
    np.testing.assert_allclose(mine, numbers(MPI.COMM_SELF), rtol=1e-10, atol=1e-15)
    assert all(mine == other for other in comm.allgather(mine))


@dataclass(frozen=True)
class Bound:
    """∫g(t)ρ(t) against a function of time; the mass in B_1 of OU, or what is recorded."""

    kind: str
    factor: float = 1.0
    record_key: str | None = None
    statistic: Any = None
    verified: bool = True
    name: str = "test"
    theorem: str = "none"
    quantity: str = "mass in the unit ball"

    def evaluate(self, t: np.ndarray) -> np.ndarray:
        if self.statistic is not None:
            return self.factor * np.array([relaxation(s)[1] for s in t])
        if self.record_key == "mean":
            return self.factor * np.array([relaxation(s)[0] for s in t])
        if self.record_key == "entropy":
            return self.factor * np.ones_like(t)
        values = [1 - np.exp(-1 / (2 * relaxation(s)[1])) for s in t]  # Rayleigh: the start is centred
        return np.where(t > 1.5, np.nan, self.factor * np.array(values))

    def functional(self, t: float, x: np.ndarray) -> np.ndarray | None:
        return (np.linalg.norm(x, axis=1) <= 1.0).astype(float)


def evolved(c: Case, shift: float = 0.0, scale: float = 1.0, **more: Any) -> EvolveResult:
    """A result with the exact densities, or wrong ones; its means are those of the centred start unless moved."""
    monitors = c.monitors(minima=np.empty((0, 2)))
    times = (0.1, 0.5, 1.0, 2.0)
    vectors = [c.gaussian(np.array([shift, 0.0]), relaxation(t)[1]) for t in times]
    for vector in vectors:
        vector.scale(scale)
    empty: Any = None
    result = EvolveResult(
        process=OU, domain=SQUARE, comm=c.generator.space.mesh.comm, triangulation=c.triangulation,
        boundary=c.generator.boundary, initial=empty, boundary_condition="no-flux", schedule=empty, scheme="dg",
        degree=3, order=4, nonnegative=False, unknowns=0, cells=0, solver="", observables=(),
        records=tuple(monitors.record(t, v) for t, v in zip(times, vectors, strict=True)),
        densities=tuple(c.generator.to_function(v) for v in vectors), errors={}, steps=(), rejected=0,
        tolerance=1e-5, converged=True, cost=Cost(), minima=np.empty((0, 2)),
    )  # fmt: skip
    return replace(result, **more)


def test_bounds_hold_for_the_solution_and_fail_for_wrong_ones(comm):
    c = case(comm, OU, SQUARE, 0.2, "dg", 3)
    right = evolved(c)
    equal, below, above, beyond = compare_bounds(
        right, [Bound("equal"), Bound("lower", 0.999), Bound("upper", 1.001), Bound("lower", 1.001)]
    )
    for margin in (equal, below, above):
        assert margin.violations == 0 and margin.error_known
        assert margin.margins[-1] == np.inf  # the bound says nothing there
    assert np.abs(equal.values - equal.bounds)[:3].max() < 1e-5
    assert below.smallest == pytest.approx(0.001, rel=0.7)
    assert beyond.violations == 3
    for wrong in (evolved(c, shift=0.1), evolved(c, scale=0.98)):  # moved by a fifth of a deviation; two per cent lost
        equal, below, above = compare_bounds(wrong, [Bound("equal"), Bound("lower", 0.999), Bound("upper", 1.001)])
        assert equal.violations == 3 and below.violations == 3 and above.violations == 0


def test_numbers_made_of_mean_and_covariance(comm):
    """The trace's half is the variance; its error allowance follows from those of the covariance."""
    c = case(comm, OU, SQUARE, 0.2, "dg", 3)
    errors = {"mean": np.full((4, 2), 1e-5), "covariance": np.full((4, 2, 2), 1e-4), "mass": np.zeros(4)}
    half = Bound("equal", statistic=lambda mean, covariance: 0.5 * float(np.trace(covariance)))
    (right,) = compare_bounds(evolved(c, errors=errors), [half])
    assert right.violations == 0
    np.testing.assert_allclose(right.allowed, 3 * 1e-4, rtol=1e-6)
    (wrong,) = compare_bounds(evolved(c, errors=errors), [replace(half, factor=1.01)])
    assert wrong.violations == 4


def test_stagnation_of_the_entropy_is_no_violation(comm):
    """At late times E is that of the elements, above the decaying bound; a real delay is seen all the same."""
    c = case(comm, OU, SQUARE, 0.2, "dg", 2)
    reference = c.reference()
    floor = stagnation(reference, c.generator.space)
    assert 1e-7 < floor < 1e-6
    monitors = c.monitors(reference=reference, minima=np.empty((0, 2)))
    times = (8.0, 10.0)
    records = tuple(monitors.record(t, c.gaussian(*relaxation(t))) for t in times)
    assert records[1].entropy > 50 * chi2_of_gaussians(*relaxation(10.0), 0.25)
    result = evolved(c, records=records, reference=reference)

    @dataclass(frozen=True)
    class Decay(Bound):
        def evaluate(self, t: np.ndarray) -> np.ndarray:
            return np.array([chi2_of_gaussians(*relaxation(s), 0.25) for s in t])

    decay = Decay("upper", record_key="entropy")
    assert compare_bounds(result, [decay])[0].violations == 0
    late = tuple(
        replace(record, t=record.t + 4.0)
        for record in [monitors.record(t, c.gaussian(*relaxation(t))) for t in (3.0, 4.0)]
    )
    assert compare_bounds(replace(result, records=late), [decay])[0].violations == 2


def test_recorded_quantities_and_error_allowance(comm):
    c = case(comm, OU, SQUARE, 0.4, "dg", 3)
    result = evolved(c)
    (entropy,) = compare_bounds(result, [Bound("upper", record_key="entropy")])
    assert entropy.violations == 0 and entropy.smallest == np.inf  # not recorded: nothing is claimed
    mass, mean = compare_bounds(result, [Bound("lower", record_key="mass"), Bound("equal", 0.0, record_key="mean")])
    assert mass.margins[:3].min() > 0.0 and mass.values[0] == pytest.approx(1.0, abs=1e-5)
    assert mean.margins.shape == (4, 2) and mean.violations == 0
    moved = evolved(c, shift=0.02)
    (mean,) = compare_bounds(moved, [Bound("equal", 0.0, record_key="mean")])
    assert mean.violations == 4
    errors = {
        "mean": np.full((4, 2), 0.01),
        "covariance": np.zeros((4, 2, 2)),
        "observables": np.zeros((4, 0)),
        "mass": np.zeros(4),
    }
    (allowed,) = compare_bounds(replace(result, errors=errors), [Bound("equal")])
    deviation = np.sqrt(relaxation(0.1)[1])
    assert allowed.allowed[0] == pytest.approx(3 * 0.01 / deviation * allowed.values[0], rel=2e-2)
    (unknown,) = compare_bounds(replace(result, tolerance=None), [Bound("equal")])
    assert not unknown.error_known
