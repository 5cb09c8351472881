"""The asymptotic laws against exact one-dimensional answers, as the noise goes to 0."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.polynomial.legendre import leggauss

from fpsolve.errors import InputError
from fpsolve.theory import laws

Scalar = Callable[[np.ndarray], np.ndarray]
CELLS, ORDER = 600, 8


def exact_time(drift_over_a: Scalar, a: Scalar, reflecting: float, start: float, end: float) -> float:
    """Return E_start τ at `end`: ∫_start^end e^{-Φ(y)} ∫_reflecting^y e^{Φ(z)}/a(z) dz dy with Φ' = f/a.

    Gauss-Legendre on cells; the inner integral and Φ are the exact integrals of polynomial interpolants.
    """
    edges = np.linspace(reflecting, end, CELLS + 1)
    nodes, weights = leggauss(ORDER)
    half = np.diff(edges)[:, None] / 2
    x = edges[:-1, None] + half * (1 + nodes)
    powers = np.vander(nodes, ORDER, increasing=True)
    upper = np.stack([(nodes ** (k + 1) - (-1.0) ** (k + 1)) / (k + 1) for k in range(ORDER)], axis=1)
    within = upper @ np.linalg.inv(powers)  # integrals from -1 to each node

    def primitive(values: np.ndarray) -> np.ndarray:
        whole = np.cumsum((half * values) @ weights)
        return np.concatenate([[0.0], whole[:-1]])[:, None] + half * (values @ within.T)

    phi = primitive(drift_over_a(x))
    inner = primitive(np.exp(phi - phi.max()) / a(x))
    assert np.isclose(edges, start).any()
    counted = edges[:-1] > start - 1e-9
    outer = (half * weights)[counted] * np.exp(phi.max() - phi[counted]) * inner[counted]
    return float(outer.sum())


def orders(law: Callable[[float], float], exact: Callable[[float], float], small: tuple[float, ...]) -> np.ndarray:
    errors = np.log([abs(law(e) / exact(e) - 1) for e in small])
    return np.diff(errors) / np.diff(np.log(small))


def test_eyring_kramers_in_one_dimension() -> None:
    """L = (x² - 1)²: L'' = 8 at -1 and -4 at 0; the relative error is of first order in ε²."""
    slope = lambda x: -4 * x * (x**2 - 1)  # noqa: E731
    for until, end in (("minimum", 1.0), ("boundary", 0.0)):
        order = orders(
            lambda e, until=until: laws.eyring_kramers_time(1.0, [[8.0]], [[-4.0]], e, until=until),
            lambda e, end=end: exact_time(lambda x: slope(x) / e, lambda x: 0 * x + e, -3.0, -1.0, end),
            (0.04, 0.02, 0.01),
        )
        assert np.all(np.abs(order - 1) < 0.1), until


def test_eyring_kramers_of_a_sum_of_wells_is_that_of_the_crossed_one() -> None:
    """L(x) + hy²/2 with isotropic noise: y is independent of x and changes nothing; σ scales ε²."""
    flat = laws.eyring_kramers_time(1.0, [[8.0]], [[-4.0]], 0.06)
    turned = np.array([[0.6, -0.8], [0.8, 0.6]])
    well, top = (turned @ np.diag([v, 3.0]) @ turned.T for v in (8.0, -4.0))
    assert laws.eyring_kramers_time(1.0, well, top, 0.02, sigma=3.0) == pytest.approx(flat, rel=1e-12)


def loss(x: np.ndarray) -> np.ndarray:
    return 0.5 + (x**2 - 1) ** 2


def slope(x: np.ndarray) -> np.ndarray:
    return 4 * x * (x**2 - 1)


@pytest.mark.parametrize("batch", [1, 4])
def test_loss_proportional_escape_in_one_dimension(batch: int) -> None:
    """L = ½ + (x² - 1)², a = (η/b)L h*: L* = 0.5, L(s) = 1.5, h* = 8, h_s = -4; first order in η."""

    def exact(rate: float) -> float:
        noise = rate / batch * 8.0
        return exact_time(lambda x: -slope(x) / (noise * loss(x)), lambda x: noise * loss(x), -4.0, -1.0, 1.0)

    def law(rate: float) -> float:
        return 1 / laws.loss_proportional_rate(0.5, 1.5, 8.0, -4.0, rate, batch)

    small = tuple(batch * rate for rate in (0.01, 0.005, 0.0025))
    assert np.all(np.abs(orders(law, exact, small) - 1) < 0.2)
    assert abs(law(small[-1]) / exact(small[-1]) - 1) < 0.05
    line = laws.loss_proportional_line(0.5, 1.5, 8.0, -4.0, batch)
    measured = (np.log(exact(small[2])) - np.log(exact(small[1]))) / (1 / small[2] - 1 / small[1])
    assert line.slope == pytest.approx(batch / 8.0 * np.log(3.0), rel=1e-12)
    assert measured == pytest.approx(line.slope, rel=2e-3)


def test_dimension_in_the_loss_proportional_law_is_that_of_eyring_kramers() -> None:
    """H* = hI in n directions: Eyring-Kramers for log L at temperature ηh/b, in the time dτ = L* dt."""
    low, high, h, top, rate, batch = 0.5, 1.5, 8.0, -4.0, 0.02, 2
    for n in (1, 2, 3):
        well, saddle = np.eye(n) * h / low, np.diag([top] + [h] * (n - 1)) / high
        time = laws.eyring_kramers_time(np.log(high / low), well, saddle, rate * h / batch) / low
        assert 1 / laws.loss_proportional_rate(low, high, h, top, rate, batch, n) == pytest.approx(time, rel=1e-12)


def test_invariant_densities_have_no_current() -> None:
    """J = fρ - (aρ)' of both one-dimensional densities, by a complex step."""
    x = np.linspace(-1.7, 1.9, 13)
    rate, step = 0.3, 1e-30j
    power = laws.loss_proportional_exponent(8.0, rate, 2)
    density = lambda z: loss(z) ** power  # noqa: E731
    flow = ((rate / 2 * 8.0 * loss(x + step) * density(x + step)).imag) / step.imag
    np.testing.assert_allclose(-slope(x) * density(x), flow, rtol=1e-12, atol=1e-14)
    h, s, r = 2.0, 0.7, 1.3
    kappa = laws.power_law_exponent(h, r, rate)
    tail = lambda z: (1 + r * z**2 / s) ** kappa  # noqa: E731
    flow = (rate / 2 * (s + r * (x + step) ** 2) * tail(x + step)).imag / step.imag
    np.testing.assert_allclose(-h * x * tail(x), flow, rtol=1e-12, atol=1e-14)


def test_effective_dimension_is_where_the_density_stops_being_integrable() -> None:
    """r^{n-1} (L* + hr²/2)^p decays like r^{n-1+2p}: integrable iff n < n_c."""
    for rate in (0.1, 0.4, 3.0):
        critical = laws.largest_effective_dimension(2.0, rate)
        assert critical + 2 * laws.loss_proportional_exponent(2.0, rate) == pytest.approx(0.0, abs=1e-12)


def test_power_law_escape_in_one_dimension() -> None:
    """η log E τ from (-1, 1) tends to (h/r) log(1 + r/s); by symmetry half the interval, reflecting at 0."""
    h, s, r = 2.0, 0.7, 1.3

    def scaled(rate: float) -> float:
        return rate * np.log(
            exact_time(
                lambda x: -2 * h * x / (rate * (s + r * x**2)), lambda x: rate / 2 * (s + r * x**2), 0.0, 0.0, 1.0
            )
        )

    limit = laws.power_law_action([h], [s], [r], 1.0)
    rates = np.array([0.02, 0.01, 0.005])
    # E τ = C η^½ exp(limit/η)(1 + O(η)): η log E τ - ½ η log η is a polynomial in η
    values = np.array([scaled(rate) for rate in rates]) - rates / 2 * np.log(rates)
    assert np.polyfit(rates, values, 2)[-1] == pytest.approx(limit, rel=1e-4)


def test_power_law_minimum_over_the_sphere_is_at_an_axis() -> None:
    h, s, r = np.array([2.0, 1.0, 3.0]), np.array([0.7, 0.4, 2.0]), np.array([1.3, 0.2, 0.5])
    points = np.random.default_rng(0).normal(size=(4000, 3))
    points *= 1.5 / np.linalg.norm(points, axis=1)[:, None]
    sampled = (h / r * np.log1p(r * points**2 / s)).sum(axis=1).min()
    best = laws.power_law_action(h, s, r, 1.5)
    assert best <= sampled <= 1.1 * best


@pytest.mark.parametrize(
    "call",
    [
        lambda: laws.eyring_kramers_time(-1.0, [[1.0]], [[-1.0]], 0.1),
        lambda: laws.eyring_kramers_time(1.0, [[-1.0]], [[-1.0]], 0.1),
        lambda: laws.eyring_kramers_time(1.0, np.eye(2), -np.eye(2), 0.1),
        lambda: laws.eyring_kramers_time(1.0, [[1.0]], [[-1.0]], 0.1, until="never"),
        lambda: laws.loss_proportional_rate(1.0, 0.5, 1.0, -1.0, 0.1),
        lambda: laws.loss_proportional_rate(1.0, 2.0, 1.0, 1.0, 0.1),
        lambda: laws.loss_proportional_rate(1.0, 2.0, 1.0, -1.0, 0.0),
        lambda: laws.loss_proportional_rate(1.0, 2.0, 1.0, -1.0, 0.1, dimension=0),
        lambda: laws.power_law_action([1.0], [1.0, 2.0], [1.0], 1.0),
        lambda: laws.power_law_exponent(float("nan"), 1.0, 0.1),
    ],
)
def test_wrong_numbers_are_refused(call: Callable[[], float]) -> None:
    with pytest.raises(InputError):
        call()
