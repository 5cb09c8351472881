"""Flat and sharp minima of equal depth, and a batch size that changes in time (Dai and Zhu, Lemma 3 and (8)).

``L = (x² - 1)² e^{cx}`` has minima at ±1 with L = 0 and L'' = 8 e^{±c}. As ε² → 0 the invariant measure gives them
masses in the ratio ``sqrt(L''(1)/L''(-1)) = e^c``, whatever learning rate and batch size; these decide how long it
takes. All mass starts in the sharp minimum.
Run: python flat_and_sharp.py, or mpirun -n 2 python flat_and_sharp.py. Results: results/flat_and_sharp/.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
from scipy.integrate import quad

import fpsolve as fp

C = 0.6
LOSS = f"(x**2 - 1)**2*exp({C}*x)"
DOMAIN = fp.Interval(-3.6, 2.6)
LEARNING_RATE = 0.6
#: Batch sizes in time: [[from, b], ...]; ε² = η/(2b).
SCHEDULES: dict[str, Any] = {
    "b = 1": 1,
    "b = 3": 3,
    "b = 1, from t = 10 on b = 3": [[0.0, 1], [10.0, 3]],
    "b = 3, from t = 10 on b = 1": [[0.0, 3], [10.0, 1]],
}
TIMES = tuple(np.round(np.concatenate([np.arange(0.5, 10.01, 0.5), np.arange(11.0, 40.01, 1.0)]), 10))
#: Below 0.05 the spectral gap is lost in rounding, and with it the ratio of the masses.
NOISE = (0.3, 0.2, 0.1, 0.05)


def main(comm: MPI.Comm, out: Path = Path("results/flat_and_sharp"), tolerance: float = 1e-4) -> dict[str, Any]:
    """Compute, print and draw; return the findings. Collective."""
    process = fp.SGD(loss=LOSS, variables=("x",), learning_rate=LEARNING_RATE)
    start = fp.gaussian_start([1.0], 0.01)
    runs = {}
    for name, batch in SCHEDULES.items():
        schedule = fp.schedule_from(LEARNING_RATE, batch, process.epsilon2, until=TIMES[-1])
        runs[name] = fp.evolve(
            process, DOMAIN, start, TIMES, comm=comm, schedule=schedule, scheme="dg", tolerance=tolerance
        )
    steady = {
        noise: fp.steady_state(
            fp.SGD(loss=LOSS, variables=("x",), epsilon2=noise), DOMAIN, comm=comm, tolerance=tolerance
        )
        for noise in NOISE
    }
    theorems = {name: fp.theorems(run)[1] for name, run in runs.items()}
    found = {"runs": runs, "steady": steady, "margins": theorems}
    found["exact"] = {noise: exact_ratio(noise) for noise in NOISE}
    found["ratios"] = {noise: flat_over_sharp(result) for noise, result in steady.items()}
    if comm.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        table(found)
        draw(found, out / "flat_and_sharp.png")
    return found


def flat_over_sharp(result: Any) -> float:
    """Return the mass round -1 (flat) over that round 1 (sharp)."""
    order = np.argsort(result.minima[:, 0])
    masses = result.basin_masses[order]
    return float(masses[0] / masses[-1])


def exact_ratio(noise: float) -> float:
    """Return the ratio of the Gibbs weights of the two basins, which meet at the saddle L' = 0 between the minima."""
    saddle = (-2 + np.sqrt(4 + C**2)) / C

    def weight(x: float) -> float:
        return float(np.exp(-((x**2 - 1) ** 2) * np.exp(C * x) / noise))

    flat, sharp = quad(weight, -3.6, saddle, points=[-1.0])[0], quad(weight, saddle, 2.6, points=[1.0])[0]
    return float(flat / sharp)


def table(found: dict[str, Any]) -> None:
    """Print the masses in the flat minimum, and their limit ratio."""
    print("mass in the basin of the flat minimum:")
    for name, run in found["runs"].items():
        flat = int(np.argmin(run.minima[:, 0]))
        values = ", ".join(f"{r.basins[flat]:.4f} (t = {r.t:g})" for r in run.records if r.t in (5.0, 10.0, 20.0, 40.0))
        print(f"  {name}: {values}")
    print(f"invariant measure, flat over sharp; (8) says e^c = {np.exp(C):.4f} as ε² → 0:")
    for noise, ratio in found["ratios"].items():
        gap = found["steady"][noise].spectral_gap
        print(f"  ε² = {noise:g}: {ratio:.5f}, by quadrature {found['exact'][noise]:.5f}, spectral gap {gap:.3e}")
    for name, margins in found["margins"].items():
        proven = [m for m in margins if m.verified]
        print(f"{name}: {len(proven)} proven statements, {sum(m.violations > 0 for m in proven)} violated")


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw the loss with two invariant densities, and the mass in the flat minimum against time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.0), layout="constrained", dpi=150)
    left, right = figure.subplots(1, 2)
    x = np.linspace(-2.4, 1.8, 600)
    left.plot(x, (x**2 - 1) ** 2 * np.exp(C * x), color="0.4", linewidth=1.5, label="L")
    left.set(
        ylim=(0, 3),
        xlabel="weight x",
        ylabel="loss L",
        title=r"$L=(x^2-1)^2e^{0.6x}$ and $\rho_\infty\propto e^{-L/\varepsilon^2}$",
    )
    density = left.twinx()
    for noise, colour in ((0.3, "#0072B2"), (0.1, "#D55E00")):
        values = (lambda e: e / (e.sum() * (x[1] - x[0])))(np.exp(-((x**2 - 1) ** 2) * np.exp(C * x) / noise))
        density.plot(x, values, color=colour, label=rf"$\varepsilon^2$ = {noise:g}")
    density.set(ylabel=r"invariant density $\rho_\infty$", ylim=(0, 2.0))
    density.plot([], [], color="0.4", label="L")
    density.legend(fontsize=8, loc="upper center", ncols=3)
    styles = (("#0072B2", "-"), ("#D55E00", "-"), ("#009E73", "--"), ("#CC79A7", "--"))
    for (name, run), (colour, style) in zip(found["runs"].items(), styles, strict=True):
        flat = int(np.argmin(run.minima[:, 0]))
        right.plot(run.times, [r.basins[flat] for r in run.records], style, color=colour, label=name)
    stationary = found["ratios"][NOISE[0]]
    right.axhline(stationary / (1 + stationary), color="#0072B2", linewidth=0.8, linestyle=":", label="b = 1, t → ∞")
    limit = np.exp(C) / (1 + np.exp(C))
    right.axhline(limit, color="0.5", linestyle=":", label=r"(8), t → ∞ and $\varepsilon^2 \to 0$")
    right.set(xlabel="time t  (one SGD step lasts η)", ylabel="mass in the basin of the flat minimum", ylim=(0, 0.95))
    right.legend(fontsize=7, loc="upper left", ncols=2)
    figure.savefig(path)


if __name__ == "__main__":
    main(MPI.COMM_WORLD)
