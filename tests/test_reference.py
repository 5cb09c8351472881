"""Self-checks of reference.py against independent methods: collocation, mpmath, power series, known values."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
import reference as ref
from scipy.linalg import solve_sylvester


def chebyshev(n: int, lower: float, upper: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, differentiation matrix and barycentric weights of Chebyshev collocation (Trefethen, cheb.m)."""
    t = np.cos(np.pi * np.arange(n + 1) / n)
    c = np.where((np.arange(n + 1) == 0) | (np.arange(n + 1) == n), 2.0, 1.0) * (-1.0) ** np.arange(n + 1)
    d = np.outer(c, 1 / c) / (t[:, None] - t + np.eye(n + 1))
    d = (d - np.diag(d.sum(axis=1))) * 2 / (upper - lower)
    return lower + (upper - lower) * (t + 1) / 2, d, 1 / c


def row(points: np.ndarray, weights: np.ndarray, x: float) -> np.ndarray:
    """Barycentric interpolation at x as a row vector."""
    if np.any(points == x):
        return (points == x).astype(float)
    quotient = weights / (x - points)
    return quotient / quotient.sum()


def collocation_moments(f, a, lower, upper, x, n=60, neumann=False):
    """First two exit moments at x by collocation; neumann: u' = 0 at the lower end."""
    t, d, w = chebyshev(n, lower, upper)
    operator = -(a(t)[:, None] * (d @ d) + f(t)[:, None] * d)
    operator[[0, -1]] = np.eye(n + 1)[[0, -1]]
    if neumann:
        operator[-1] = d[-1]
    inner = np.where((t > t[-1]) & (t < t[0]), 1.0, 0.0)
    first = np.linalg.solve(operator, inner)
    second = np.linalg.solve(operator, 2 * first * inner)
    return row(t, w, x) @ first, row(t, w, x) @ second


def well(x):
    return (x * x - 1) ** 2


def test_known_values():
    assert ref.interval_met(lambda x: x * x / 2, 1.0, -1, 1, 0.0) == pytest.approx(0.5957, abs=5e-5)
    assert ref.ball_ou_met(0.0, 1, 1.0, 1.0, 1.0) == pytest.approx(0.5957493185127574, rel=1e-12)
    assert ref.degenerate_disc_met(0, 0.5, 0.5) == pytest.approx(1.33228518603, abs=2e-11)
    assert ref.degenerate_disc_met(0.5, 0.5, 0.5) == pytest.approx(0.98233466248, abs=2e-11)
    assert ref.double_well_box_met(0.2, -1, 0) == pytest.approx(177.36975, abs=5e-6)
    # V = 0: (x-a)(b-x)/(2ε²) and, reflecting at a, (b-x)(b+x-2a)/(2ε²); E τ² = (5-6x²+x⁴)/12ε⁴ on (-1,1)
    x = np.array([-0.9, 0.0, 0.3])
    flat = lambda t: 0 * t  # noqa: E731
    np.testing.assert_allclose(ref.interval_met(flat, 0.3, -1, 2, x), (x + 1) * (2 - x) / 0.6, rtol=1e-13)
    np.testing.assert_allclose(ref.interval_met_one_sided(flat, 0.3, -1, 2, x), (2 - x) * (x + 4) / 0.6, rtol=1e-13)
    np.testing.assert_allclose(
        ref.interval_second_moment(flat, 0.3, -1, 1, x), (5 - 6 * x**2 + x**4) / (12 * 0.09), rtol=1e-13
    )


@pytest.mark.parametrize("epsilon2", [0.5, 0.2])
def test_interval_against_collocation(epsilon2):
    drift, a = lambda t: -4 * t * (t * t - 1) - 0.3, lambda t: epsilon2 + 0 * t
    potential = lambda t: well(t) + 0.3 * t  # noqa: E731
    first, second = collocation_moments(drift, a, -1.5, 1.3, 0.2)
    assert ref.interval_met(potential, epsilon2, -1.5, 1.3, 0.2) == pytest.approx(first, rel=1e-9)
    assert ref.interval_second_moment(potential, epsilon2, -1.5, 1.3, 0.2) == pytest.approx(second, rel=1e-9)
    first, _ = collocation_moments(drift, a, -1.5, 1.3, 0.2, neumann=True)
    assert ref.interval_met_one_sided(potential, epsilon2, -1.5, 1.3, 0.2) == pytest.approx(first, rel=1e-9)
    mirrored = ref.interval_met_one_sided(lambda t: potential(-t), epsilon2, -1.3, 1.5, -0.2, reflecting="right")
    assert mirrored == pytest.approx(first, rel=1e-9)


def taylor_met(
    derivative: list[float], epsilon2: float, lower: float, upper: float, points: list[float], neumann: bool
) -> list[float]:
    """MET for a polynomial V' (lowest coefficient first): Taylor series at 0 of ε²u'' = V'u' - 1 with 400 digits."""
    with mp.workdps(400):
        e, slopes = mp.mpf(epsilon2), [mp.mpf(v) for v in derivative]

        def series(u1: int, source: int) -> list:
            c = [mp.mpf(0), mp.mpf(u1)]
            for k in range(7000):
                total = sum(v * (k - j + 1) * c[k - j + 1] for j, v in enumerate(slopes) if j <= k)
                c.append((total - (source if k == 0 else 0)) / (e * (k + 1) * (k + 2)))
            return c

        def value(c: list, t: float) -> mp.mpf:
            total = mp.mpf(0)
            for coefficient in reversed(c):
                total = total * t + coefficient
            return total

        homogeneous, particular = series(1, 0), series(0, 1)
        h, p = (lambda t: value(homogeneous, t)), (lambda t: value(particular, t))
        if neumann:
            dh, dp = (value([k * v for k, v in enumerate(c)][1:], lower) for c in (homogeneous, particular))
            factor = -dp / dh
        else:
            factor = -(p(upper) - p(lower)) / (h(upper) - h(lower))
        return [float(factor * (h(x) - h(upper)) + p(x) - p(upper)) for x in points]


@pytest.mark.parametrize("neumann", [False, True])
@pytest.mark.parametrize(("epsilon2", "low", "high"), [(0.5, 1, 1e2), (0.05, 1e10, 1e13), (0.023, 1e22, 1e27)])
def test_interval_against_taylor(epsilon2, low, high, neumann):
    """V = (x²-1)² + 0.3x on (-1.6, 0.5): MET up to 1e25."""
    solver, points = ref.interval_met_one_sided if neumann else ref.interval_met, [-1.59, -1.0, 0.3]
    values = solver(lambda t: well(t) + 0.3 * t, epsilon2, -1.6, 0.5, points)
    exact = taylor_met([0.3, -4.0, 0.0, 4.0], epsilon2, -1.6, 0.5, points, neumann)
    np.testing.assert_allclose(values, exact, rtol=1e-11)
    assert low < values[1] < high


@pytest.mark.parametrize(
    ("d", "lam", "s", "radius", "r"),
    [(1, 1, 1, 1, 0), (2, 1, 0.1, 1, 0.3), (10, 2, 0.02, 1, 0.5), (3, -2, 0.1, 1.5, 0.3), (2, -5, 0.01, 1, 0.99),
     (2, 0, 0.3, 2, 1), (1, 1, 0.0085, 1, 0.2)],
)  # fmt: skip
def test_ball_against_hypergeometric(d, lam, s, radius, r):
    with mp.workdps(60):
        f = lambda q: q * mp.hyp2f2(1, 1, 2, mp.mpf(d) / 2 + 1, lam * q / (2 * mp.mpf(s)))  # noqa: E731
        exact = float((f(mp.mpf(radius) ** 2) - f(mp.mpf(r) ** 2)) / (2 * mp.mpf(s) * d))
    assert ref.ball_ou_met(r, d, lam, s, radius) == pytest.approx(exact, rel=1e-12)
    if d == 1:
        assert ref.interval_met(lambda t: lam * t * t / 2, s, -radius, radius, r) == pytest.approx(exact, rel=1e-12)


def test_variable_coefficient():
    drift, a = (lambda t: np.sin(3 * t) - t), (lambda t: 0.2 + 0.1 * t * t)
    first, _ = collocation_moments(drift, a, -1.0, 1.4, 0.3)
    assert ref.variable_interval_met(drift, a, -1.0, 1.4, 0.3) == pytest.approx(first, rel=1e-10)
    same = ref.variable_interval_met(lambda t: -4 * t * (t * t - 1), lambda t: 0.03, -1.8, 0.5, [-1.0, 0.2])
    np.testing.assert_allclose(same, ref.interval_met(well, 0.03, -1.8, 0.5, [-1.0, 0.2]), rtol=1e-11)


@pytest.mark.parametrize("epsilon2", [1.0, 0.5, 0.1])
def test_degenerate_disc_against_power_series(epsilon2):
    """v = Σ q^k v_k(ξ), 2k v_k - G v_k = 2(k-1) v_{k-1} + δ_k0 - δ_k1: no eigenfunctions, no ₂F₁."""
    t, d, w = chebyshev(48, -1.0, 1.0)
    generator = (epsilon2 * (d @ d) - t[:, None] * d)[1:-1, 1:-1]
    for x, y in [(0.0, 0.5), (0.5, 0.5), (0.3, 0.8), (0.0, -0.9)]:
        term, total = np.zeros(47), np.zeros(47)
        for k in range(200):
            right = 2 * (k - 1) * term + (k == 0) - (k == 1)
            term = np.linalg.solve(2 * k * np.eye(47) - generator, right * np.ones(47))
            total = total + term * y ** (2 * k)
        exact = row(t, w, x / np.sqrt(1 - y * y)) @ np.pad(total, 1)
        assert ref.degenerate_disc_met(x, y, epsilon2) == pytest.approx(exact, rel=1e-10)


def test_degenerate_disc_limits():
    """Chord y = 0: the 1D OU MET; 0 on the circle; also for small ε²."""
    x = np.array([0.0, 0.4, 0.9, 1.0])
    for epsilon2 in (0.5, 0.05, 0.01):
        np.testing.assert_allclose(
            ref.degenerate_disc_met(x, 0.0, epsilon2), ref.ball_ou_met(x, 1, 1, epsilon2, 1), rtol=1e-10
        )
    assert ref.degenerate_disc_met(0.8, 0.6, 0.5) == pytest.approx(0, abs=1e-12)


def test_strip_and_ellipse():
    t = 0.7
    e, n = np.array([np.cos(t), np.sin(t)]), np.array([-np.sin(t), np.cos(t)])
    for along, across in [(0.3, 0.0), (-0.3, 5.0)]:
        value = ref.strip_ou_rotated(*(along * e + across * n), t, 0.2)
        assert value == pytest.approx(ref.interval_met(lambda z: z * z / 2, 0.2, -1, 1, 0.3), rel=1e-12)
    # disc: only tr Q matters
    q = np.diag([3.0, 1.0])
    turned = np.column_stack([e, n]) @ q @ np.column_stack([e, n]).T
    for matrix in (q, turned, 2 * np.eye(2)):
        assert ref.constant_q_disc_met(0.3, 0.4, matrix, 0.1, (2, 2)) == pytest.approx((4 - 0.25) / (2 * 0.1 * 4))
    assert ref.constant_q_disc_met(0.6, 0.2, np.diag([1.0, 0.0]), 0.5) == pytest.approx((1 - 0.04) - 0.36)
    # ellipse: second differences of a quadratic are exact
    u = lambda x, y: ref.constant_q_disc_met(x, y, turned, 0.1, (2.0, 0.5), 0.4)  # noqa: E731
    h = 0.05
    xx = (u(h, 0) - 2 * u(0, 0) + u(-h, 0)) / h**2
    yy = (u(0, h) - 2 * u(0, 0) + u(0, -h)) / h**2
    xy = (u(h, h) - u(h, -h) - u(-h, h) + u(-h, -h)) / (4 * h**2)
    assert 0.1 * (turned[0, 0] * xx + 2 * turned[0, 1] * xy + turned[1, 1] * yy) == pytest.approx(-1, rel=1e-10)
    assert u(2 * np.cos(0.4), 2 * np.sin(0.4)) == pytest.approx(0, abs=1e-12)


def test_double_well_against_tensor_collocation():
    epsilon2 = 0.5
    (x, dx, wx), (y, dy, wy) = chebyshev(80, -2.5, 0.5), chebyshev(56, -2.0, 2.0)
    first = -(epsilon2 * dx @ dx - (4 * x * (x * x - 1))[:, None] * dx)[1:-1, 1:-1]
    second = -(epsilon2 * dy @ dy - (2 * y)[:, None] * dy)[1:-1, 1:-1]
    u = np.pad(solve_sylvester(first, second.T, np.ones((79, 55))), 1)
    px, py = np.array([-1.0, 0.0, -0.5, -2.4, 0.4]), np.array([0.0, 0.5, 1.8, 1.0, 0.0])
    exact = [row(x, wx, a) @ u @ row(y, wy, b) for a, b in zip(px, py, strict=True)]
    np.testing.assert_allclose(ref.double_well_box_met(epsilon2, px, py), exact, rtol=1e-8)


def test_double_well_against_product():
    """Spectral × Kummer against spectral × spectral."""
    x, y = np.array([-1.0, 0.0, -0.5]), np.array([0.0, 0.5, 1.0])
    product = ref.product_survival((well, np.square), (0.2, 0.2), ((-2.5, 0.5), (-2.0, 2.0)), x, y)
    np.testing.assert_allclose(product, ref.double_well_box_met(0.2, x, y), rtol=1e-10)


def test_double_well_against_interval():
    """The exit through y has rate e^{-4/ε²}: at small ε² the MET is that of the x-interval, and always below it."""
    x, y = np.array([-1.0, 0.0, -0.5]), np.array([0.0, 0.5, 1.0])
    box, interval = ref.double_well_box_met(0.04, x, y), ref.interval_met(well, 0.04, -2.5, 0.5, x)
    np.testing.assert_allclose(box, interval, rtol=1e-12)
    assert np.all(ref.double_well_box_met(0.2, x, y) < ref.interval_met(well, 0.2, -2.5, 0.5, x))
    assert ref.double_well_box_met(0.04, -1.0, 2.0) == 0


def test_product_survival_brownian_square():
    """Centre of (-1,1)² without drift, ε² = 1/2: torsion function, Σ of Timoshenko; 2·0.2946854... by its series."""
    with mp.workdps(25):
        tail = mp.nsum(lambda k: (-1) ** int(k) / ((2 * k + 1) ** 3 * mp.cosh((2 * k + 1) * mp.pi / 2)), [0, 40])
        exact = float(1 - 32 / mp.pi**3 * tail)
    flat = lambda t: 0 * t  # noqa: E731
    value = ref.product_survival((flat, flat), (0.5, 0.5), ((-1, 1), (-1, 1)), 0.0, 0.0)
    assert value == pytest.approx(exact, rel=1e-9)


def test_survival_guard_returns_nan_not_garbage():
    """Deep in the tail and close to y = 2 the expansion cancels: nan, never a wrong number."""
    assert np.isnan(ref.double_well_box_met(0.2, -2.45, 1.95))
    with pytest.raises(ValueError, match="out of range"):
        ref.double_well_box_met(0.01, 0.0, 0.0)
