"""Is SGD a diffusion? Mean exit time from the spurious minimum against the learning rate, by every model of SGD.

Two-parameter model with 600 samples (../two_parameter_model/data.csv), batch size 1, disc of radius 1.5 round the
spurious minimum. The chain is simulated and computed without noise by its transfer operator; so is the chain with
Gaussian noise of the same mean and covariance. Between the plain diffusion and the Gaussian chain lies the finite
step, which corrected diffusions follow; between the Gaussian chain and SGD lies the shape of the noise.
Run: python diffusion_or_not.py, or mpirun -n 2 python diffusion_or_not.py. Results: results/diffusion_or_not/.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mpi4py import MPI

import numpy as np

import fpsolve as fp

DATA = Path(__file__).parents[1] / "two_parameter_model" / "data.csv"
MINIMUM = (-5.63687, 2.96346)
DISC = fp.Ball(MINIMUM, 1.5)
RATES = (0.002, 0.0014, 0.001, 0.0008, 0.0006)
#: Models of SGD: label, colour, marker.
STYLE = {
    "simulated": ("SGD, simulated (95 % interval)", "black", "o"),
    "chain": ("SGD, transfer operator", "#000000", "None"),
    "gaussian-chain": ("Gaussian chain, transfer operator", "#d55e00", "s"),
    "corrected": ("diffusion, modified drift and noise, boundary moved", "#cc79a7", "v"),
    "shifted": ("diffusion, boundary moved", "#e69f00", "x"),
    "second-order": ("diffusion, second-order drift", "#009e73", "+"),
    "diffusion": ("diffusion, first order", "#0072b2", "^"),
}
MODELS = tuple(name for name in STYLE if name != "simulated")


@dataclass(frozen=True)
class Row:
    """Mean exit times at one learning rate: model -> value and error (simulated: half the 95 % interval)."""

    rate: float
    mean: dict[str, float] = field(default_factory=dict)
    error: dict[str, float] = field(default_factory=dict)

    def ratio(self, name: str) -> float:
        """Return the mean exit time over that of the chain."""
        return self.mean[name] / self.mean["chain"]


def landscape() -> fp.SampleLandscape:
    """Return loss and gradients of the 600 samples."""
    data = fp.read_csv(DATA, ["x", "y"])
    return fp.sample_landscape("a**2 + x*(1 + b/(1 + exp(-a*x)))", ["a", "b"], ["x"], "y", "(model - y)**2/2", data)


def main(
    comm: MPI.Comm,
    out: Path = Path("results/diffusion_or_not"),
    rates: tuple[float, ...] = RATES,
    tolerance: float = 3e-3,
    paths: int = 40_000,
) -> list[Row]:
    """Compute, print and draw; return the rows of the table. Collective."""
    loss, rows = landscape(), []
    for rate in rates:
        row = Row(rate)
        chain = fp.sgd_chain(loss, rate)
        drawn = fp.simulate_exit(chain, DISC, [MINIMUM], comm=comm, paths=paths)
        row.mean["simulated"] = float(drawn.mean[0])
        row.error["simulated"] = float(np.ptp(drawn.interval[0]) / 2)
        for name in MODELS:
            row.mean[name], row.error[name] = solve(name, chain, tolerance, comm)
        rows.append(row)
    if comm.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        table(rows)
        draw(rows, out / "diffusion_or_not.png")
    return rows


def solve(name: str, chain: fp.Chain, tolerance: float, comm: MPI.Comm) -> tuple[float, float]:
    """Return the mean exit time of one model and its estimated error. Collective."""
    answer: fp.ChainExitResult | fp.ExitResult
    if name in ("chain", "gaussian-chain"):
        asked = chain.gaussian() if name == "gaussian-chain" else chain
        answer = fp.chain_exit_time(asked, DISC, comm=comm, starts=[MINIMUM], tolerance=tolerance)
    else:
        process, domain = fp.exit_model(chain, DISC, name)
        answer = fp.mean_exit_time(process, domain, comm=comm, starts=[MINIMUM], tolerance=tolerance)
    return float(answer.mean[0]), float(answer.error[0, 0])


def table(rows: list[Row]) -> None:
    """Print mean exit times, their ratio to the chain's, and the shares of step and noise."""
    print("mean exit time (time; one SGD step lasts η), in brackets over that of SGD's transfer operator")
    print("  ".join(f"{name:>22}" for name in ("η", *STYLE)))
    for row in rows:
        cells = [f"{row.mean[name]:.4g} ± {row.error[name]:.0e} [{row.ratio(name):.3f}]" for name in STYLE]
        print("  ".join(f"{cell:>22}" for cell in (f"{row.rate:g}", *cells)))
    for row in rows:
        step, noise = row.ratio("gaussian-chain") - row.ratio("diffusion"), 1 - row.ratio("gaussian-chain")
        text = f"{100 * step:.0f} % are the finite step, {100 * noise:.0f} % the noise's shape"
        print(f"η = {row.rate:g}: of SGD's time {text}")


def draw(rows: list[Row], path: Path) -> None:
    """Draw the mean exit time against η, and its ratio to that of SGD."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.6), layout="constrained", dpi=150)
    left, right = figure.subplots(1, 2)
    rates = np.array([row.rate for row in rows])
    for name, (label, colour, marker) in STYLE.items():
        mean = np.array([row.mean[name] for row in rows])
        ratio = np.array([row.ratio(name) for row in rows])
        error = np.array([row.error[name] for row in rows])
        if name == "simulated":
            left.errorbar(rates, mean, error, fmt="o", color=colour, capsize=4, markersize=5, label=label)
            right.errorbar(rates, ratio, error / mean * ratio, fmt="o", color=colour, capsize=4, markersize=5)
        else:
            left.plot(rates, mean, color=colour, marker=marker, markersize=6, linewidth=1.4, label=label)
            right.plot(rates, ratio, color=colour, marker=marker, markersize=6, linewidth=1.4)
    for axes in (left, right):
        axes.set(xscale="log", xlabel=r"learning rate $\eta$   (batch size 1)")
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axes.minorticks_off()
        axes.grid(True, color="#dddddd", linewidth=0.6)
    left.set(yscale="log", ylabel=r"mean exit time E$\,\tau$   [time; one SGD step = $\eta$]")
    right.set(ylabel=r"E$\,\tau$ over that of SGD")
    right.axhline(1.0, color="black", linewidth=0.8)
    left.legend(fontsize=8)
    figure.savefig(path)


if __name__ == "__main__":
    main(MPI.COMM_WORLD)
