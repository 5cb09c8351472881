"""Noise in the first direction only, Q = diag(1, 0), with L = |x|²/2: where does the process leave?

On the unit disc the noise is tangential at (0, ±1) only; on the square all of the sides y = ±1 is characteristic.
There the drift leads inwards, and no boundary condition is imposed.
Run: python degenerate_disc.py, or mpirun -n 2 python degenerate_disc.py. Results: results/degenerate_disc/.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
from scipy.optimize import brentq
from scipy.special import hyp1f1

import fpsolve as fp

EPSILON2 = 0.5
STARTS = [(0.0, 0.5), (0.5, 0.5)]
EXACT = (1.33228518603, 0.98233466248)  # series solution on the disc
TOWARDS = ((0.0, 0.9), (0.0, 0.99), (0.0, 0.999))  # asked too, so that the mesh is refined there


def exponent(epsilon2: float) -> float:
    """Return α of u(0, y) ~ (1 - |y|)^α on the disc: the first root of M(-α, 1/2, 1/(2ε²)) = 0.

    2α is the principal exit rate of dX = -X dt + sqrt(2ε²) dW from (-1, 1): near (0, 1) the chord widens as fast as
    the noise spreads, so the exit time tends to 0 at this point, though only with an infinite slope.
    """
    return brentq(lambda alpha: hyp1f1(-alpha, 0.5, 0.5 / epsilon2), 1e-3, 0.5 + 0.5 * epsilon2)


def main(
    comm: MPI.Comm,
    out: Path = Path("results/degenerate_disc"),
    tolerance: float = 1e-5,
    towards: tuple[tuple[float, float], ...] = TOWARDS,
) -> dict[str, Any]:
    """Compute, print and draw; return the numbers. Collective."""
    covariance = [["1", "0"], ["0", "0"]]
    process = fp.SGD(loss="(x**2 + y**2)/2", covariance=covariance, epsilon2=EPSILON2)
    disc, square = fp.Ball((0.0, 0.0), 1.0), fp.Box((-1.0, -1.0), (1.0, 1.0))
    result = fp.mean_exit_time(process, disc, comm=comm, starts=STARTS, tolerance=tolerance)
    other = fp.mean_exit_time(process, square, comm=comm, starts=STARTS, tolerance=tolerance)
    bounds = comm.bcast(fp.bounds.all_bounds(process, disc, budget=4.0) if comm.rank == 0 else None)
    violated = fp.compare(result, bounds).violated
    away = np.logspace(-3, 0, 61)  # distance to (0, 1)
    line = np.column_stack([np.zeros_like(away), 1 - away])
    near = fp.mean_exit_time(process, disc, comm=comm, starts=towards, tolerance=100 * tolerance)
    cut, flat = near.at(line), other.at(line)
    radius, angle = np.meshgrid(np.sin(np.linspace(0, np.pi / 2, 61)), np.linspace(0, 2 * np.pi, 181))
    grid = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    field = result.at(grid.reshape(-1, 2)).reshape(grid.shape[:2])
    if comm.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        print(f"{'start':>12} {'mean exit time':>15} {'exact':>15} {'error':>9} {'estimated':>9} {'square':>9}")
        rows = zip(STARTS, result.mean, EXACT, result.error[:, 0], other.mean, strict=True)
        for x, mean, exact, error, on_square in rows:
            print(f"{x!s:>12} {mean:15.9f} {exact:15.9f} {abs(mean - exact):9.1e} {error:9.1e} {on_square:9.6f}")
        print(f"square: characteristic boundary of length {other.boundary.measures['characteristic']:.3g}, "
              f"u(0, 0.999) = {flat[0]:.6f}; disc: u(0, 0.999) = {cut[0]:.4f}")  # fmt: skip
        draw(grid, field, away, cut, flat, out / "degenerate_disc.png")
    return {"result": result, "near": near, "square": other, "violated": violated, "cut": cut, "flat": flat}


def draw(grid: np.ndarray, field: np.ndarray, away: np.ndarray, cut: np.ndarray, flat: np.ndarray, path: Path) -> None:
    """Draw u, u along x = 0, and the same against the distance to the characteristic point."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.5), layout="constrained", dpi=150)
    plane, along, near = figure.subplots(1, 3)
    painted = plane.contourf(*grid.T, np.clip(field.T, 0, None), np.linspace(0, 1.5, 16), cmap="viridis")
    plane.plot(*grid[:, -1].T, color="black", linewidth=1)
    plane.plot([0, 0], [-1, 1], "o", color="#D55E00")
    plane.set(aspect="equal", xlabel="x", ylabel="y", xlim=(-1.08, 1.08), ylim=(-1.08, 1.08))
    plane.set_title("(a) disc; dots: noise tangential")
    figure.colorbar(painted, ax=plane, ticks=np.linspace(0, 1.5, 6))
    along.plot(1 - away, flat, color="#D55E00", label="square: positive up to y = 1")
    along.plot(1 - away, cut, color="#0072B2", label="disc")
    along.set(xlabel="y", ylabel="u(0, y)", xlim=(0, 1), ylim=(0, 1.1 * flat.max()), title="(b) along x = 0")
    along.legend(fontsize=8)
    alpha = exponent(EPSILON2)
    near.loglog(away, flat, color="#D55E00", label="square")
    near.loglog(away, cut, color="#0072B2", label="disc")
    near.loglog(away, 0.8 * cut[20] * (away / away[20]) ** alpha, "k--", linewidth=1,
                label=rf"slope $\alpha$ = {alpha:.3f} (theory)")  # fmt: skip
    near.set(xlabel="1 - y", ylabel="u(0, y)", xlim=(1e-3, 1), ylim=(0.1, 2), title="(c) towards (0, 1)")
    near.legend(fontsize=8)
    figure.savefig(path)


if __name__ == "__main__":
    main(MPI.COMM_WORLD)
