"""Minima and basins of attraction against published minima and one accurate ODE solution for each point."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import fpsolve as fp
from fpsolve.model.basins import basin_labels, find_minima
from fpsolve.model.process import Process

MULLER_BROWN = (
    "-200*exp(-(x-1)**2-10*y**2) - 100*exp(-x**2-10*(y-0.5)**2)"
    "-170*exp(-6.5*(x+0.5)**2+11*(x+0.5)*(y-1.5)-6.5*(y-1.5)**2)"
    "+15*exp(0.7*(x+1)**2+0.6*(x+1)*(y-1)+0.7*(y-1)**2)"
)
CURVED = "(x**2 - 1)**2 + 2*(y - 0.6*x**2 + 0.4*x)**2 + 0.5*y*x"
VALLEY = "(x**2 - 1)**2 + 300*(y - 0.5*sin(2*x))**2"


def process(loss: str, variables: tuple[str, ...] = ("x", "y")) -> Process:
    return fp.SGD(loss, epsilon2=0.1, variables=variables)


def reached(p: Process, minima: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The row of the minimum that an accurate solution of x' = -∇L reaches, -1 for none; one point at a time."""

    def slope(_: float, y: np.ndarray) -> np.ndarray:
        return -p.landscape.gradient(y[None])[0]

    ends = np.array([solve_ivp(slope, (0, 200), point, method="LSODA", rtol=1e-10, atol=1e-12).y[:, -1] for point in x])
    distance = np.linalg.norm(ends[:, None] - minima, axis=2)
    return np.where(distance.min(axis=1) < 1e-3, distance.argmin(axis=1), -1)


def test_published_minima():
    """Müller and Brown (1979): (-0.558, 1.442), (0.623, 0.028), (-0.050, 0.467), by increasing energy."""
    found = find_minima(process(MULLER_BROWN), fp.Box((-1.5, -0.5), (1.2, 2.0)))
    np.testing.assert_allclose(found, [[-0.558, 1.442], [0.623, 0.028], [-0.050, 0.467]], atol=6e-4)


@pytest.mark.parametrize(
    "loss, expected",
    [
        ("(x**2 - 1)**2 + y**2", [[-1, 0], [1, 0]]),
        ("(x**2 + y - 11)**2 + (x + y**2 - 7)**2", [[3, 2]]),  # Himmelblau; its others lie outside
        ("x**4 + y**4", [[0, 0]]),
        ("x**3 + y**2", []),  # singular Hessian at a point that is no minimum
        ("x*y", []),
        ("x**2 - y", []),
    ],
)
def test_true_minima_only(loss, expected):
    found = find_minima(process(loss), fp.Box((-2.0, -1.5), (3.2, 2.5)))
    np.testing.assert_allclose(found, np.reshape(np.array(expected, dtype=float), (-1, 2)), atol=1e-9)


@pytest.mark.parametrize("loss", ["(x**2 + y**2 - 1)**2", "(x*y - 1)**2", "(x - y)**2"])
def test_continua_are_one_minimum(loss):
    p = process(loss)
    found = find_minima(p, fp.Box((-2.0, -2.0), (2.0, 2.0)))
    assert len(found) == 1
    x = np.random.default_rng(0).uniform(-2, 2, (200, 2))
    assert (basin_labels(p, found, x) == 0).all()


@pytest.mark.parametrize("d", [1, 3])
def test_other_dimensions(d):
    names = ("x", "y", "z")[:d]
    p = process(" + ".join(f"({name}**2 - 1)**2" for name in names) + " + 0.1*x", names)
    domain = fp.Interval(-2.0, 2.0) if d == 1 else fp.Box((-2.0,) * 3, (2.0,) * 3)
    found = find_minima(p, domain)
    assert len(found) == 2**d
    x = np.random.default_rng(1).uniform(-2, 2, (300, d))
    labels = basin_labels(p, found, x)
    # the flow is separable; in x the maximum lies at the middle root of 4x³ - 4x + 0.1
    ridge = np.zeros(d)
    ridge[0] = np.sort(np.roots([4, 0, -4, 0.1]).real)[1]
    np.testing.assert_array_equal(np.sign(found[labels] - ridge), np.sign(x - ridge))


def test_without_a_loss():
    p = fp.diffusion_process(["-x"], [["1"]], ["x"])
    found = find_minima(p, fp.Interval(-1.0, 1.0))
    assert found.shape == (0, 1)
    assert (basin_labels(p, found, np.zeros((3, 1))) == -1).all()


@pytest.mark.parametrize(
    "loss, lower, upper",
    [(CURVED, (-2.0, -1.5), (2.0, 2.5)), (VALLEY, (-2.0, -1.0), (2.0, 1.0)), (MULLER_BROWN, (-1.5, -0.5), (1.2, 2.0))],
)
def test_labels_against_one_ode_for_each_point(loss, lower, upper):
    p = process(loss)
    minima = find_minima(p, fp.Box(lower, upper))
    assert len(minima) >= 2
    x = np.random.default_rng(2).uniform(lower, upper, (60, 2))
    labels = basin_labels(p, minima, x)
    np.testing.assert_array_equal(labels, reached(p, minima, x))
    assert len(set(labels)) == len(minima)


def test_both_sides_of_a_curved_separatrix():
    """Points 1e-4 from the separatrix, which is the stable manifold of the saddle, followed backwards."""
    p = process(CURVED)
    minima = find_minima(p, fp.Box((-2.0, -1.5), (2.0, 2.5)))
    assert len(minima) == 2
    saddle = np.array([0.1, 0.1])
    for _ in range(30):
        saddle = saddle - np.linalg.solve(p.landscape.hessian(saddle[None])[0], p.landscape.gradient(saddle[None])[0])
    values, vectors = np.linalg.eigh(p.landscape.hessian(saddle[None])[0])
    assert values[0] < 0 < values[1]

    def uphill(_: float, y: np.ndarray) -> np.ndarray:
        slope = p.landscape.gradient(y[None])[0]
        return slope / (1e-3 + np.linalg.norm(slope))

    curve = np.concatenate(
        [
            solve_ivp(uphill, (0, 1.5), saddle + sign * 1e-6 * vectors[:, 1], rtol=1e-10, atol=1e-13, max_step=0.05).y.T
            for sign in (1, -1)
        ]
    )
    assert np.ptp(curve, axis=0)[0] > 0.2  # curved, not the line x = const
    tangent = np.array([uphill(0.0, y) for y in curve])
    normal = np.column_stack([-tangent[:, 1], tangent[:, 0]])
    normal *= np.sign(normal[:, :1] * vectors[0, 0] + normal[:, 1:] * vectors[1, 0])
    far = np.linalg.norm(curve - saddle, axis=1) > 0.05
    one = basin_labels(p, minima, (curve + 1e-4 * normal)[far])
    other = basin_labels(p, minima, (curve - 1e-4 * normal)[far])
    assert len(one) > 30
    assert (one == one[0]).all() and (other == other[0]).all()
    assert {int(one[0]), int(other[0])} == {0, 1}


def test_a_straight_ridge_is_not_jumped_over():
    """1e-8 from the ridge x = 0 the path passes slowly by the saddle and must come out on its own side."""
    p = process("(x**2 - 1)**2 + y**2")
    minima = np.array([[-1.0, 0.0], [1.0, 0.0]])
    y = np.linspace(-1.4, 1.4, 29)
    for side in (-1, 1):
        labels = basin_labels(p, minima, np.column_stack([np.full_like(y, side * 1e-8), y]), size=5.0)
        assert (labels == (side + 1) // 2).all()


def test_paths_that_do_not_arrive():
    """To infinity, and into a minimum that is not on the list."""
    p = process("x**3/3 - x + y**2")
    minima = find_minima(p, fp.Box((-3.0, -1.0), (2.0, 1.0)))
    np.testing.assert_allclose(minima, [[1.0, 0.0]], atol=1e-9)
    assert basin_labels(p, minima, np.array([[0.5, 0.3], [-0.99, 0.5], [-1.01, 0.5]])).tolist() == [0, 0, -1]
    double = process("(x**2 - 1)**2 + y**2")
    assert basin_labels(double, np.array([[1.0, 0.0]]), np.array([[0.5, 0.3], [-0.5, 0.3]])).tolist() == [0, -1]


def test_a_label_does_not_depend_on_the_other_points():
    p = process(CURVED)
    minima = find_minima(p, fp.Box((-2.0, -1.5), (2.0, 2.5)))
    x = np.random.default_rng(3).uniform((-2.0, -1.5), (2.0, 2.5), (500, 2))
    whole = basin_labels(p, minima, x, size=5.0)
    parts = np.concatenate([basin_labels(p, minima, part, size=5.0) for part in np.array_split(x, 7)])
    np.testing.assert_array_equal(whole, parts)
    np.testing.assert_array_equal(find_minima(p, fp.Box((-2.0, -1.5), (2.0, 2.5))), minima)
