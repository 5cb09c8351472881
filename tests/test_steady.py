"""Steady states against exact densities and eigenvalues, and the honesty of the reported errors."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

from mpi4py import MPI

import numpy as np
import pytest
import reference
from scipy.linalg import eigh, solve_continuous_lyapunov

import fpsolve as fp
from fpsolve.errors import InputError
from fpsolve.fem.cell_quadrature import CellQuadrature
from fpsolve.problems.noisy_limit import extrapolated, noisy_limit
from fpsolve.problems.steady import steady_state
from fpsolve.problems.steady_level import Known, calibrated
from fpsolve.problems.steady_result import SteadyResult

IDENTITY = [["1", "0"], ["0", "1"]]


def true_error(result: SteadyResult, log_density: Callable[[np.ndarray], np.ndarray]) -> float:
    """∫|ρ - exact| over the domain, the exact density normalised there by the same fine quadrature."""
    quadrature = CellQuadrature(result.triangulation.mesh, 16)
    exponent = quadrature.at(log_density)
    exact = np.exp(exponent - max(result.comm.allgather(float(exponent.max(initial=-np.inf)))))
    exact /= quadrature.integral(exact)
    return float(quadrature.integral(np.abs(quadrature.values(result.density) - exact)))


def check(result: SteadyResult, log_density: Callable[[np.ndarray], np.ndarray], bound: float = 1e-4) -> None:
    """The density is right to `bound`, the reported error honest within ten, mass 1, residual rounding."""
    true = true_error(result, log_density)
    print("L1", true, "reported", result.density_error, "unknowns", result.unknowns, "cost", result.cost)
    assert result.converged
    assert true <= bound
    assert true <= 1.1 * result.density_error
    assert result.density_error <= 10 * true
    assert result.mass == pytest.approx(1.0, abs=1e-12)
    assert result.residual <= 1e-14


def check_eigenvalues(result: SteadyResult, exact: list[complex], rel: float = 1e-4, truncation: float = 0.0) -> None:
    """Eigenvalues right to `rel`; their reported error honest beyond the effect of the truncated domain."""
    exact_ = np.array(exact)
    true = np.abs(result.eigenvalues - exact_)
    print("eigenvalues", result.eigenvalues, "true", true, "reported", result.eigenvalue_errors)
    assert np.all(true <= rel * np.maximum(np.abs(exact_), 1e-300))
    assert np.all(true <= 3 * result.eigenvalue_errors + truncation * np.abs(exact_))


def reference_gap(loss: Callable[[np.ndarray], np.ndarray], s: float, a: float, b: float, panels: int = 400) -> float:
    """The first eigenvalue λ > 0 of ``-(s u'w)' = λ u w``, ``w = exp(-L/s)``, ``u'(a) = u'(b) = 0``.

    Inverse iteration ``s w u_new' = ∫_x^b u w``, by quadrature of order 16; the integral is taken from the side of the
    lower mass of its part, so that nothing cancels however small λ is. No finite elements, no matrix.
    """
    breaks = np.linspace(a, b, panels + 1)
    x = reference._nodes(breaks)
    exponent = -loss(x) / s
    w = np.exp(exponent - exponent.max())
    weights = np.diff(breaks)[:, None] * reference._gauss()[1]
    u = np.sign(x - (a + b) / 2) + 0.1 * x
    value = np.inf
    for _ in range(200):
        u = u - np.sum(weights * u * w) / np.sum(weights * w)
        left, right = -reference._from_left(breaks, u * w)[0], reference._from_right(breaks, u * w)[0]
        mass = reference._from_left(breaks, np.abs(u) * w)[0]
        flux = np.where(mass < mass.max() / 2, left, right)
        new = reference._from_left(breaks, flux / (s * w))[0]
        before, value = value, float(np.sum(weights * flux * u_slope(flux, s, w)) ** -1 * np.sum(weights * u * u * w))
        u = new / np.abs(new).max()
        if abs(value - before) <= 1e-13 * value:
            return value
    raise AssertionError("the reference iteration did not converge")


def u_slope(flux: np.ndarray, s: float, w: np.ndarray) -> np.ndarray:
    return flux / (s * w)


# ---- Gibbs densities ------------------------------------------------------------


@pytest.mark.parametrize("epsilon2", [0.5, 0.2, 0.1])
def test_double_well(comm, epsilon2):
    process = fp.SGD("(x**2 - 1)**2 + y**2", epsilon2=epsilon2)
    height = 4.5 * np.sqrt(epsilon2 / 2)
    box = fp.Box((-2.0, -height), (2.0, height))
    result = steady_state(
        process, box, comm=comm, eigenvalues=2, tolerance=2e-4, observables=["x**2", "y**2 + x"]
    )  # 2e-4 reported with a factor two for safety
    check(result, lambda x: -((x[:, 0] ** 2 - 1) ** 2 + x[:, 1] ** 2) / epsilon2)
    check_eigenvalues(result, [0, reference_gap(lambda x: (x**2 - 1) ** 2, epsilon2, -2, 2)])
    assert result.unique and result.zero_count == 1
    assert result.detailed_balance
    assert result.poincare == result.spectral_gap
    assert np.all(np.abs(result.mean) <= 1e-4)
    x = np.linspace(-2, 2, 4001)
    w = np.exp(-((x**2 - 1) ** 2) / epsilon2)
    moment = np.trapezoid(x**2 * w, x) / np.trapezoid(w, x)
    assert result.expectations[0] == pytest.approx(moment, rel=1e-4)
    assert abs(result.expectations[0] - moment) <= 5 * result.expectation_errors[0] + 1e-9
    assert result.covariance[0, 0] == pytest.approx(moment, rel=1e-4)
    np.testing.assert_allclose(np.sort(result.minima[:, 0]), [-1, 1], atol=1e-6)
    np.testing.assert_allclose(result.basin_masses, 0.5, atol=1e-4)


def test_metastable_gap(comm):
    """ε² = 0.05: a gap of 3.6e-9, both wells with half the mass."""
    process = fp.SGD("(x**2 - 1)**2 + y**2", epsilon2=0.05)
    result = steady_state(process, fp.Box((-1.7, -0.7), (1.7, 0.7)), comm=comm, eigenvalues=2, tolerance=2e-3)
    exact = reference_gap(lambda x: (x**2 - 1) ** 2, 0.05, -1.7, 1.7)
    assert 3e-9 < exact < 4e-9
    check(result, lambda x: -((x[:, 0] ** 2 - 1) ** 2 + x[:, 1] ** 2) / 0.05, bound=1e-3)
    check_eigenvalues(result, [0, exact], rel=1e-3)
    assert result.unique
    np.testing.assert_allclose(result.basin_masses, 0.5, atol=1e-3)


@pytest.mark.parametrize("scheme", ["dg", "cg", "sg"])
def test_tilted_wells_far_apart(comm, scheme):
    """Relative masses of wells between which the process passes at a rate of 8e-14."""
    process = fp.SGD("(x**2 - 1)**2 + 0.1*x", variables=["x"], epsilon2=0.03)
    result = steady_state(process, fp.Interval(-1.6, 1.6), comm=comm, eigenvalues=2, scheme=scheme, tolerance=1e-4)
    check(result, lambda x: -((x[:, 0] ** 2 - 1) ** 2 + 0.1 * x[:, 0]) / 0.03)
    exact = reference_gap(lambda x: (x**2 - 1) ** 2 + 0.1 * x, 0.03, -1.6, 1.6)
    check_eigenvalues(result, [0, exact])
    assert result.unique
    x = np.linspace(-1.6, 1.6, 200_001)
    w = np.exp(-((x**2 - 1) ** 2 + 0.1 * x) / 0.03)
    right = np.trapezoid(np.where(x > 0.0125, w, 0.0), x) / np.trapezoid(w, x)  # the maximum is at 0.0126
    light = int(np.argmax(result.minima[:, 0]))
    assert result.basin_masses[light] == pytest.approx(right, rel=2e-3)
    assert result.basin_masses.sum() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("barrier", [0, 1])
def test_kinetic(comm, barrier):
    """ψ ∝ exp(-(g/D)(L(w) + v²/2)) for a hypoelliptic process, quadratic and double-well loss (Dai-Zhu)."""
    g, noise = 1.0, 0.5
    force, width = (("-4*w*(w**2 - 1)", 2.0), ("-w", 4.2))[1 - barrier]
    process = fp.diffusion_process(["v", f"{force} - {g}*v"], [["0", "0"], ["0", str(noise)]], ["w", "v"])
    result = steady_state(process, fp.Box((-width, -4.2), (width, 4.2)), comm=comm, eigenvalues=2, tolerance=2e-4)

    def log_density(x: np.ndarray) -> np.ndarray:
        loss = (x[:, 0] ** 2 - 1) ** 2 if barrier else x[:, 0] ** 2 / 2
        return -(g / noise) * (loss + x[:, 1] ** 2 / 2)

    check(result, log_density)
    assert not result.detailed_balance
    assert result.poincare is None and "degenerate" in result.poincare_reason
    if not barrier:
        assert result.eigenvalues[1] == pytest.approx(0.5 + np.sqrt(0.75) * 1j, rel=1e-4)
        assert any("complex" in message for message in result.messages)


def test_power_law(comm):
    """dX = -hX dt + sqrt(η(s + rX²)) dB: ρ ∝ (1 + rx²/s)^κ, κ = -(1 + h/(ηr)); mathematics.md section 5."""
    h, eta, s, r = 1.0, 0.5, 0.3, 0.4
    process = fp.diffusion_process([f"-{h}*x"], [[f"{eta}*({s} + {r}*x**2)/2"]], ["x"])
    result = steady_state(process, fp.Interval(-6.0, 6.0), comm=comm, tolerance=1e-5)
    check(result, lambda x: -(1 + h / (eta * r)) * np.log1p(r * x[:, 0] ** 2 / s), bound=1e-5)
    # E X² = ηs/(2h - ηr) on the line; -A x = hx is exact as well
    assert result.covariance[0, 0] == pytest.approx(eta * s / (2 * h - eta * r), rel=1e-4)
    assert result.eigenvalues[1] == pytest.approx(h, rel=1e-5)
    assert result.detailed_balance


def test_gibbs_weights(comm):
    """Scharfetter-Gummel: nodal values are the Gibbs weights to rounding; its order is two."""
    process = fp.SGD("(x**2 - 1)**2 + y**2", epsilon2=0.2)
    box = fp.Box((-2.0, -1.5), (2.0, 1.5))
    results = [steady_state(process, box, comm=comm, scheme="sg", size=size) for size in (0.16, 0.08)]
    errors = [true_error(r, lambda x: -((x[:, 0] ** 2 - 1) ** 2 + x[:, 1] ** 2) / 0.2) for r in results]
    assert np.log2(errors[0] / errors[1]) >= 1.8
    for result, error in zip(results, errors, strict=True):
        assert result.density_error == pytest.approx(error, rel=0.05)
        assert result.minimum > 0
    ratio = results[1].at([[-1.0, 0.0]])[0] / results[1].at([[1.0, 0.0]])[0]
    assert ratio == pytest.approx(1.0, rel=2e-2)
    exact = reference_gap(lambda x: (x**2 - 1) ** 2, 0.2, -2, 2)
    true = abs(results[1].spectral_gap - exact)
    assert true <= 1e-2 * exact
    assert true <= 3 * results[1].eigenvalue_errors[1]


# ---- Spectra ------------------------------------------------------------


def test_ou_plane(comm):
    """Eigenvalues 0, 1, 1, 2, 2, 2; the box reaches to density 6e-9, which shifts them by less than 1e-6."""
    process = fp.SGD("(x**2 + y**2)/2", epsilon2=1.0)
    result = steady_state(process, fp.Box((-6.0, -6.0), (6.0, 6.0)), comm=comm, eigenvalues=6)
    check(result, lambda x: -np.sum(x**2, axis=1) / 2)
    check_eigenvalues(result, [0, 1, 1, 2, 2, 2], truncation=2e-6)
    # in the double eigenvalue the first function has a mean along x, the second has none
    points = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    for pair, exact in ((result.right[1], [1, 0, 1]), (result.right[2], [0, 1, 1])):
        values = SteadyResult.at(_showing(result, pair[0]), points)
        np.testing.assert_allclose(values, exact, atol=1e-3)
    dual = _showing(result, result.left[1][0]).at(points)
    np.testing.assert_allclose(dual, points[:, 0] * np.exp(-np.sum(points**2, axis=1) / 2) / (2 * np.pi), atol=1e-4)


def _showing(result: SteadyResult, function: object) -> SteadyResult:
    return replace(result, density=function)


def test_ou_line(comm):
    process = fp.SGD("x**2/2", variables=["x"], epsilon2=1.0)
    result = steady_state(process, fp.Interval(-7.0, 7.0), comm=comm, eigenvalues=5)
    check_eigenvalues(result, [0, 1, 2, 3, 4], truncation=1e-5)
    assert result.spectral_gap == pytest.approx(1, rel=1e-4)
    x2 = _showing(result, result.right[2][0]).at([[2.0], [0.0]])
    np.testing.assert_allclose(x2, np.array([3.0, -1.0]) / np.sqrt(2), atol=1e-3)  # He₂/√2, signed by its dual


def test_nonsymmetric_linear_drift(comm):
    """OU with complex eigenvalues: all sums of eigenvalues of C; Gaussian density; current and Poincaré constant."""
    c = np.array([[1.0, 1.5], [-0.5, 2.0]])
    q = np.diag([1.0, 0.5])
    process = fp.diffusion_process(["-x - 1.5*y", "0.5*x - 2*y"], q.tolist(), ["x", "y"])
    result = steady_state(process, fp.Box((-6.0, -3.5), (6.0, 3.5)), comm=comm, eigenvalues=6)
    k = solve_continuous_lyapunov(c, 2 * q)
    inverse = np.linalg.inv(k)
    check(result, lambda x: -np.einsum("ni,ij,nj->n", x, inverse, x) / 2)
    pair = np.sort_complex(np.linalg.eigvals(c))[::-1]
    check_eigenvalues(result, [0, *pair, pair.sum().real, *(2 * pair)], truncation=1e-5)
    np.testing.assert_allclose(result.covariance, k, atol=1e-4)
    exact = eigh(q, k, eigvals_only=True)[0]
    print("Poincaré", result.poincare, "exact", exact, "reported", result.poincare_error, result.poincare_reason)
    assert result.poincare == pytest.approx(exact, rel=1e-3)
    assert abs(result.poincare - exact) <= result.poincare_error
    # a mesh on which the density's tail is noise: less accurate, but not misled by the noise
    coarse = steady_state(process, result.domain, comm=comm, eigenvalues=2, degree=2, size=0.8)
    assert abs(coarse.poincare - exact) <= coarse.poincare_error <= 0.3 * exact
    assert result.poincare < 0.9 * result.spectral_gap
    assert not result.detailed_balance
    assert result.unique


def test_current_of_a_rotation(comm):
    """f = -x + ωRx: the density of the gradient part, J = ωRx ρ, no detailed balance however small ω is."""
    for omega in (2.0, 1e-2):
        process = fp.diffusion_process([f"-x + {omega}*y", f"-y - {omega}*x"], IDENTITY, ["x", "y"])
        result = steady_state(process, fp.Box((-5.5, -5.5), (5.5, 5.5)), comm=comm, eigenvalues=2, tolerance=2e-3)
        assert not result.detailed_balance
        quadrature = CellQuadrature(result.triangulation.mesh, 10)
        x = quadrature.points
        rho = np.exp(-np.sum(x**2, axis=2) / 2) / (2 * np.pi)
        exact = omega * np.stack([x[..., 1], -x[..., 0]], axis=2) * rho[..., None]
        flux = result.current.sub(0).collapse(), result.current.sub(1).collapse()
        computed = np.stack([quadrature.values(part) for part in flux], axis=2)
        error = float(quadrature.integral(np.linalg.norm(computed - exact, axis=2)))
        size = float(quadrature.integral(np.linalg.norm(exact, axis=2)))
        assert error <= (1e-2 if omega > 1 else 0.5) * size
        whole = 1 + np.sqrt(1 + omega**2)  # |∇ρ| = rρ, |βρ| = r sqrt(1 + ω²) ρ
        assert result.current_norm == pytest.approx(omega / whole, rel=1e-3 if omega > 1 else 0.2)


def test_irreversible_drift_is_faster(comm):
    """f = -(I + R)∇L keeps exp(-L/ε²) and with it the Poincaré constant, the gap of f = -∇L; its own gap is larger."""
    x_slope, y_slope = "4*x*(x**2 - 1)", "2*y"
    drift = [f"-({x_slope}) - ({y_slope})", f"-({y_slope}) + {x_slope}"]
    process = fp.diffusion_process(drift, [["0.5", "0"], ["0", "0.5"]], ["x", "y"])
    result = steady_state(process, fp.Box((-2.0, -2.5), (2.0, 2.5)), comm=comm, eigenvalues=2, tolerance=1e-3)
    check(result, lambda x: -((x[:, 0] ** 2 - 1) ** 2 + x[:, 1] ** 2) / 0.5, bound=5e-4)
    exact = reference_gap(lambda x: (x**2 - 1) ** 2, 0.5, -2, 2)
    print("Poincaré", result.poincare, "exact", exact, "reported", result.poincare_error)
    assert abs(result.poincare - exact) <= result.poincare_error <= 1e-3 * exact
    assert result.spectral_gap > 1.3 * exact
    assert not result.detailed_balance


# ---- Uniqueness ------------------------------------------------------------


def test_an_estimate_that_was_wrong_raises_the_next_one():
    """A leak of the discretisation that falls from mesh to mesh is an eigenvalue 0, a rate that stays is not."""
    spectrum = SimpleNamespace(values=np.array([0, 1e-9, 2.0], dtype=complex))
    own = np.array([0, 1e-12, 1e-8])
    falling = Known(np.array([0, 1e-6, 2.0], dtype=complex), np.array([0, 1e-9, 1e-6]), np.zeros(3))
    staying = Known(np.array([0, 1.001e-9, 2.0], dtype=complex), np.array([0, 1e-11, 1e-6]), np.zeros(3))
    assert calibrated(spectrum, own, falling).errors[1] >= 0.9e-6
    np.testing.assert_allclose(calibrated(spectrum, own, staying).errors, own)
    assert calibrated(SimpleNamespace(values=-spectrum.values), own, None).errors[1] >= 1e-9


@pytest.mark.parametrize("upper", [3.0, 2.9])  # 0 on a vertex of the first mesh, or inside a cell
def test_no_passage_through_zero(comm, upper):
    """dX = (X - X³)dt + X/sqrt(2) dB never changes sign: ρ ∝ x² exp(-2x²) on each half line."""
    process = fp.diffusion_process(["x - x**3"], [["x**2/4"]], ["x"])
    result = steady_state(process, fp.Interval(-3.0, upper), comm=comm, eigenvalues=3)
    assert result.zero_count == 2 and not result.unique
    assert any("2 invariant measures" in message for message in result.messages)
    assert result.poincare is None
    assert result.spectral_gap == pytest.approx(0.5, rel=1e-3)
    side = 3.0 / (3.0 + upper)  # of the uniform start
    quadrature = CellQuadrature(result.triangulation.mesh, 12)
    x = quadrature.points[..., 0]
    weight = np.where(x < 0, side, 1 - side)
    exact = weight * 8 * np.sqrt(2 / np.pi) * x**2 * np.exp(-2 * x**2)
    assert float(quadrature.integral(np.abs(quadrature.values(result.density) - exact))) <= 5e-3
    assert result.converged


def test_barrier_without_noise(comm):
    """a = 0 for |x| < 0.3, where the drift leads outwards: two closed wells."""
    process = fp.diffusion_process(["x - x**3"], [["(abs(x) - 0.3 + abs(abs(x) - 0.3))/16"]], ["x"])
    result = steady_state(process, fp.Interval(-2.0, 2.0), comm=comm, eigenvalues=3, tolerance=1e-3)
    assert result.zero_count == 2


# ---- Noisy SGD ------------------------------------------------------------


def test_noisy_limit_of_example_7(comm):
    """f = -(x, y), a = diag(1, 0): E x² = 1, E y² = 0, and the density concentrates on y = 0."""
    process = fp.diffusion_process(["-x", "-y"], [["1", "0"], ["0", "0"]], ["x", "y"])
    limit = noisy_limit(
        process, fp.Box((-5.5, -2.0), (5.5, 2.0)), comm=comm, deltas=[0.2, 0.1, 0.05], learning_rate=1.0,
        observables=["x**2", "y**2", "exp(-y**2)"], tolerance=5e-3,
    )  # fmt: skip
    print(limit.covariance, limit.covariance_error, limit.expectations, limit.expectation_errors)
    np.testing.assert_allclose(limit.strengths, [0.1, 0.05, 0.025])
    np.testing.assert_allclose(limit.expectations[:2], [1.0, 0.0], atol=1e-3)
    np.testing.assert_allclose(limit.covariance, np.diag([1.0, 0.0]), atol=1e-3)
    assert abs(limit.expectations[2] - 1) <= limit.expectation_errors[2] <= 5e-3
    np.testing.assert_allclose(limit.directions, [[0.0, 1.0]], atol=1e-5)
    assert limit.exponents[-1] == pytest.approx(-0.5, abs=0.05)
    assert not limit.density_converges
    assert any("does not converge" in message for message in limit.messages)


def test_noisy_limit_of_a_hypoelliptic_process(comm):
    """One noise but the drift spreads it: the limit has a density, and its covariance solves CK + KCᵀ = 2Q₀."""
    a = np.outer([1.0, 1.0], [1.0, 1.0]) / 2
    c = np.array([[1.0, 0.0], [0.0, 3.0]])
    process = fp.diffusion_process(["-x", "-3*y"], a.tolist(), ["x", "y"])
    limit = noisy_limit(process, fp.Box((-4.0, -2.5), (4.0, 2.5)), comm=comm, deltas=[0.2, 0.1, 0.05], tolerance=1e-2)
    k = solve_continuous_lyapunov(c, 2 * a)
    np.testing.assert_allclose(limit.covariance, k, atol=1e-3)
    assert np.all(np.abs(limit.covariance - k) <= limit.covariance_error + 1e-6)
    assert len(limit.directions) == 0


def test_extrapolation_is_exact_for_polynomials():
    strengths = np.array([0.4, 0.2, 0.1, 0.05])
    values = [np.array([1 + s - 3 * s**2 + s**3, 2.0]) for s in strengths]
    limit, error = extrapolated(strengths, values, [np.full(2, 1e-9)] * 4)
    np.testing.assert_allclose(limit, [1, 2], atol=1e-12)
    assert 1e-9 < error[1] < 1e-7


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"eigenvalues": 0}, "steady.eigenvalues"),
        ({"scheme": "fv"}, "mesh.scheme"),
        ({"observables": ["x + z"]}, "steady.observables[0]"),
        ({"observables": "x"}, "steady.observables"),
        ({"size": 100.0}, "mesh.size"),
    ],
)
def test_wrong_questions(comm: MPI.Intracomm, options: dict[str, object], key: str) -> None:
    process = fp.SGD("x**2 + y**2", epsilon2=0.5)
    with pytest.raises(InputError) as raised:
        steady_state(process, fp.Box((-2.0, -2.0), (2.0, 2.0)), comm=comm, **options)
    assert raised.value.key == key


def test_wrong_deltas(comm: MPI.Intracomm) -> None:
    process = fp.SGD("x**2 + y**2", epsilon2=0.5)
    for deltas in ([0.2, 0.1], [0.2, 0.1, -0.1], [0.2, 0.1, 0.1], ["a", 1, 2]):
        with pytest.raises(InputError, match=r"steady\.deltas"):
            noisy_limit(process, fp.Box((-2.0, -2.0), (2.0, 2.0)), comm=comm, deltas=deltas)
