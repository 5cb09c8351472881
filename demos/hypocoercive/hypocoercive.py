"""An Ornstein-Uhlenbeck process whose noise acts in one direction only, while the drift carries it everywhere.

``C = [[1, -2], [2, 0.5]]``, ``a = diag(0.5, 0)``: singular, but of full Kalman rank (condition (II)), so that there is
a smooth invariant Gaussian and the entropy decays at 2γ on average, but in swings: almost not at all while the density
turns across the noise. Theorem 4.12 therefore needs a constant in front of ``e^{-2γt}E(0)``.
Run: python hypocoercive.py, or mpirun -n 2 python hypocoercive.py. Results: results/hypocoercive/.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np

import fpsolve as fp

DRIFT = ["-x + 2*y", "-2*x - 0.5*y"]
DIFFUSION = [["0.5", "0"], ["0", "0"]]
MEAN, COVARIANCE = (0.4, 0.2), 0.12
#: The mean turns with ω = sqrt(4 - 1/16); the entropy swings with the period π/ω.
PERIOD = np.pi / np.sqrt(4 - 0.0625)
COLOURS = ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7")
TIMES = tuple(PERIOD / 8 * np.arange(1, 25))


def main(
    comm: MPI.Comm,
    out: Path = Path("results/hypocoercive"),
    tolerance: float = 5e-4,
    size: float = 0.4,
    times: tuple[float, ...] = TIMES,
) -> dict[str, Any]:
    """Compute, print and draw; return the findings. Collective."""
    process = fp.diffusion_process(DRIFT, DIFFUSION, ("x", "y"))
    domain = fp.Box((-4.0, -4.0), (4.0, 4.0))
    start = fp.gaussian_start(MEAN, COVARIANCE)
    result = fp.evolve(process, domain, start, times, comm=comm, tolerance=tolerance, size=size)
    bounds, margins = fp.theorems(result)
    law = fp.linear_diffusion(process)
    assert law is not None
    dual = fp.backward(process, domain, "1 + x + x*y", (times[0], times[-1]), comm=comm, initial=start, size=size)
    found = {"result": result, "law": law, "bounds": bounds, "margins": margins, "duality": dual.duality_defect}
    found["rate"] = period_rate(result)
    if comm.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        table(found)
        draw(found, out / "hypocoercive.png")
    return found


def period_rate(result: Any) -> float:
    """Return the mean rate of decay of the entropy over the last period of its oscillation."""
    entropy = np.array([record.entropy for record in result.records])
    began = int(np.argmin(np.abs(result.times - (result.times[-1] - PERIOD))))
    return float(np.log(entropy[began] / entropy[-1]) / (result.times[-1] - result.times[began]))


def table(found: dict[str, Any]) -> None:
    """Print the decay, the errors and the verdict on the theorems."""
    result, law = found["result"], found["law"]
    print(
        f"γ = min Re eig C = {law.rate:.4f}; entropy decays at {found['rate']:.4f}, predicted 2γ = {2 * law.rate:.4f}"
    )
    worst = 0.0
    for record in result.records:
        mean = law.mean(record.t, np.array(MEAN))
        covariance = law.covariance(record.t, COVARIANCE * np.eye(2))
        worst = max(worst, np.abs(record.mean - mean).max(), np.abs(record.covariance - covariance).max())
    print(f"{result.unknowns} unknowns, {len(result.steps)} steps, largest error of mean and covariance {worst:.1e}")
    print(f"duality defect {found['duality']:.1e}")
    for margin in found["margins"]:
        state = "proven" if margin.verified else "not proven"
        print(f"  {margin.theorem} ({margin.name}): {state}, smallest margin {margin.smallest:.1e}")


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw the entropy between its bounds and the path of the mean with the ellipses of one standard deviation."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.2), layout="constrained", dpi=150)
    left, right = figure.subplots(1, 2)
    result, law = found["result"], found["law"]
    entropy = np.array([record.entropy for record in result.records])
    left.semilogy(result.times, entropy, "o-", color="#0072B2", markersize=4, label="computed E(t)")
    for bound in found["bounds"]:
        if bound.record_key == "entropy" and bound.curve is not None:
            fine = np.linspace(0.0, result.times[-1], 300)
            # proven on the whole plane only: the computation has a truncated one
            label = f"{bound.theorem}{'' if bound.verified else ' (whole plane)'}"
            left.semilogy(fine, bound.evaluate(fine), "--" if bound.verified else ":", linewidth=1.5, label=label)
    left.semilogy(
        result.times, entropy[0] * np.exp(-2 * law.rate * result.times), color="0.6", label=r"$e^{-2\gamma t}E(0)$"
    )
    left.set(
        xlabel="time t  (one SGD step lasts η)",
        ylabel=r"entropy $E(t)=\frac{1}{2}\int(\rho/\rho_\infty-1)^2\rho_\infty$",
    )
    left.legend(fontsize=7)
    circle = np.array([np.cos(np.linspace(0, 2 * np.pi, 100)), np.sin(np.linspace(0, 2 * np.pi, 100))])
    means = np.array([record.mean for record in result.records])
    turning = np.array([law.mean(t, np.array(MEAN)) for t in np.linspace(0.0, result.times[-1], 400)])
    right.plot(*turning.T, "-", color="0.5", linewidth=1, label="mean, exact")
    right.plot(*means.T, ".", color="black", markersize=4, label="mean, computed")
    shown = (0, 2, 4, 8, 16, len(result.records) - 1)
    for colour, record in zip(COLOURS, (result.records[k] for k in shown if k < len(result.records)), strict=False):
        ellipse = record.mean[:, None] + np.linalg.cholesky(record.covariance) @ circle
        right.plot(*ellipse, color=colour, linewidth=1.4, label=f"t = {record.t:.2f}")
    right.set(xlabel="x", ylabel="y", aspect="equal", title="mean and one standard deviation")
    right.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path)


if __name__ == "__main__":
    main(MPI.COMM_WORLD)
