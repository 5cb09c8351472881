"""Independent answers for chains in one dimension: Nyström's method, and the recursion on a fine grid."""

import numpy as np


def gaussian_exit_moments(
    slope: float, deviation: float, low: float, high: float, start: float, points: int = 400
) -> tuple[float, float]:
    """Return E n and E n² of the steps n after which x' = slope x + deviation ξ, ξ ~ N(0, 1), has left (low, high)."""
    t, w = np.polynomial.legendre.leggauss(points)
    y, w = low + (high - low) * (t + 1) / 2, w * (high - low) / 2

    def kernel(x: np.ndarray) -> np.ndarray:
        z = (y[None, :] - slope * x[:, None]) / deviation
        return w * np.exp(-z * z / 2) / (deviation * np.sqrt(2 * np.pi))

    p = kernel(y)
    one = np.linalg.solve(np.eye(points) - p, np.ones(points))
    two = np.linalg.solve(np.eye(points) - p, 1 + 2 * p @ one)
    row = kernel(np.array([start]))[0]
    return 1 + row @ one, 1 + 2 * row @ one + row @ two


def discrete_exit_steps(
    maps: list[tuple[float, float]], low: float, high: float, start: float, rounds: int = 4000, grid: int = 20_001
) -> float:
    """Return E n for x' = s x + c, (s, c) drawn from `maps` with equal weights, by iteration on a fine grid.

    P(n > k) is a step function; nearest grid points are exact but next to its jumps.
    """
    x = np.linspace(low, high, grid)
    spacing = x[1] - x[0]
    targets = []
    for s, c in maps:
        y = s * x + c
        inside = (y >= low) & (y <= high)
        targets.append((inside, np.clip(np.rint((y - low) / spacing).astype(int), 0, grid - 1)))
    at = int(np.rint((start - low) / spacing))
    survival, total = np.ones(grid), 0.0
    for _ in range(rounds):
        total += survival[at]
        survival = sum(np.where(inside, survival[k], 0.0) for inside, k in targets) / len(maps)
        if survival.max() < 1e-13:
            break
    return total
