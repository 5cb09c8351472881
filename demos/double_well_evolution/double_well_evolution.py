"""The double well of section 2: all mass starts in one well, half of it ends in the other.

``L = (x² - 1)² + y²``, Q = I. The nonnegative scheme is reversible with the exact Gibbs weights: the entropy relative
to ρ∞ never increases and decays at twice the spectral gap; the mass in the shrinking ball of Theorem 2.4 obeys its
bound until the noise has had time to lift it over the saddle.
Run: python double_well_evolution.py, or mpirun -n 2 python double_well_evolution.py.
Results: results/double_well_evolution/.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np

import fpsolve as fp

EPSILON2 = 0.2
DOMAIN = fp.Box((-2.6, -2.4), (2.6, 2.4))
TIMES = (
    0.005,
    0.01,
    0.02,
    0.035,
    0.05,
    0.07,
    0.1,
    0.2,
    0.4,
    0.8,
    1.5,
    3.0,
    6.0,
    12.0,
    25.0,
    50.0,
    75.0,
    100.0,
    150.0,
    200.0,
    250.0,
    300.0,
    400.0,
)


def main(
    comm: MPI.Comm,
    out: Path = Path("results/double_well_evolution"),
    size: float = 0.08,
    times: tuple[float, ...] = TIMES,
    step: float | None = None,
) -> dict[str, Any]:
    """Compute, print and draw; return the findings. Collective."""
    process = fp.SGD(loss="(x**2 - 1)**2 + y**2", epsilon2=EPSILON2)
    start = fp.gaussian_start([-1.0, 0.0], 0.02)
    run = fp.evolve(process, DOMAIN, start, times, comm=comm, nonnegative=True, size=size, step=step)
    steady = fp.steady_state(process, DOMAIN, comm=comm, scheme="sg", size=size)
    bounds, margins = fp.theorems(run, center=[-1.0, 0.0], gap=steady.spectral_gap)
    found = {"run": run, "steady": steady, "bounds": bounds, "margins": margins, "rate": decay(run)}
    if comm.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        table(found)
        draw(found, out / "double_well_evolution.png")
    return found


def decay(run: Any) -> float:
    """Return the rate of decay of the entropy over the late times."""
    entropy = np.array([record.entropy for record in run.records])
    use = run.times >= 25.0
    return float(-np.polyfit(run.times[use], np.log(entropy[use]), 1)[0])


def table(found: dict[str, Any]) -> None:
    """Print masses, entropy and the verdict on the theorems."""
    run, steady = found["run"], found["steady"]
    left = int(np.argmin(run.minima[:, 0]))
    print(f"{run.unknowns} unknowns, {len(run.steps)} steps ({run.rejected} rejected)")
    print("     t   mass left  mass right    entropy   minimum  mass - 1")
    for r in run.records:
        print(
            f"{r.t:6g}  {r.basins[left]:10.6f}  {r.basins[1 - left]:10.6f}  {r.entropy:9.3e}  {r.minimum:8.1e}"
            f"  {r.mass - 1:8.1e}"
        )
    print(f"entropy decays at {found['rate']:.6f}, twice the gap is {2 * steady.spectral_gap:.6f}")
    for margin in found["margins"]:
        state = "proven" if margin.verified else "not proven"
        print(f"  {margin.theorem} ({margin.name}): {state}, smallest margin {margin.smallest:.1e}")


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw the masses of the two wells and the entropy with the predicted rate."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14.5, 4.0), layout="constrained", dpi=150)
    left, middle, right = figure.subplots(1, 3)
    run, gap = found["run"], found["steady"].spectral_gap
    minima = np.argsort(run.minima[:, 0])
    for label, k, colour in (("left well", minima[0], "#0072B2"), ("right well", minima[-1], "#D55E00")):
        left.semilogx(
            run.times[1:], [r.basins[k] for r in run.records[1:]], "o-", markersize=4, color=colour, label=label
        )
    left.axhline(0.5, color="0.5", linestyle=":")
    left.set(xlabel="time t  (one SGD step lasts η)", ylabel="mass in the basin of attraction", ylim=(0, 1.03))
    left.legend(fontsize=8, loc="center left")
    escape(middle, found)
    entropy = np.array([r.entropy for r in run.records])
    right.semilogy(run.times, entropy, "o-", color="#0072B2", markersize=4, label="computed E(t)")
    predicted = entropy[-1] * np.exp(2 * gap * (run.times[-1] - run.times))
    right.semilogy(
        run.times, predicted, "--", color="#D55E00", label=rf"$e^{{-2\lambda t}}$, gap $\lambda$ = {gap:.5f}"
    )
    right.set(
        xlabel="time t  (one SGD step lasts η)", ylabel=r"entropy $E=\frac{1}{2}\int(\rho/\rho_\infty-1)^2\rho_\infty$"
    )
    right.legend(fontsize=8)
    figure.savefig(path)


def escape(axes: Any, found: dict[str, Any]) -> None:
    """Draw the mass in the balls of section 2 about the left minimum with the bounds from below, while they say so."""
    colours = iter(("#0072B2", "#D55E00", "#009E73", "#CC79A7"))
    for margin in found["margins"]:
        says = np.isfinite(margin.bounds) & (margin.times > 0)
        if margin.verified and margin.name == "sharp" and margin.kind == "lower" and np.any(margin.bounds[says] > 0):
            colour, name = next(colours), margin.theorem.removesuffix(", sharp form")
            axes.semilogx(margin.times[says], margin.values[says], "o", color=colour, markersize=4, label=name)
            axes.semilogx(margin.times[says], np.maximum(margin.bounds[says], 0.0), "--", color=colour)
    axes.plot([], [], "--", color="0.3", label="proven lower bounds")
    axes.set(xlabel="time t  (one SGD step lasts η)", ylabel="cut-off mass (24) about (-1, 0)", ylim=(0, 1.03))
    axes.legend(fontsize=8, loc="upper right")


if __name__ == "__main__":
    main(MPI.COMM_WORLD)
