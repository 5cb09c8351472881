"""Momentum SGD as a kinetic equation in position w and velocity v (Dai and Zhu, section 4).

``dV = -L'(W) dt - gV dt + sqrt(2D) dB, dW = V dt`` with ``g = (1-ξ)/√η``, ``D = √η/(2b)``; one step lasts √η. Noise
acts on v only, yet there is a smooth invariant density ``∝ exp(-(g/D)(L(w) + v²/2))``. The rate of convergence to it
is that of the first eigenvalue; Theorem 3 of Dai and Zhu gives one for quadratic losses.
Run: python momentum.py, or mpirun -n 2 python momentum.py. Results: results/momentum/. How long it stays in a well:
momentum_exit.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np

import fpsolve as fp
from fpsolve.fem.functionals import at_points, whole_cells

LEARNING_RATE, MOMENTUM, BATCH = 0.25, 0.6, 1
LOSSES = {"double well": "(w**2 - 1)**2/4", "quadratic": "w**2/2"}
#: What is left out of the invariant measure weighs less than 1e-8. A wide start has infinite entropy in a quartic loss.
DOMAINS = {"double well": fp.Box((-2.6, -3.5), (2.6, 3.5)), "quadratic": fp.Box((-3.5, -3.5), (3.5, 3.5))}
SPREAD = {"double well": 0.1, "quadratic": 0.2}
#: The slowest modes of the quadratic loss turn with ω = sqrt(1 - g²/4): their entropy swings with the period π/ω.
PERIOD = np.pi / np.sqrt(1 - 0.8**2 / 4)
TIMES = tuple(PERIOD / 8 * np.arange(1, 33))


def main(
    comm: MPI.Comm, out: Path = Path("results/momentum"), size: float = 0.3, times: tuple[float, ...] = TIMES
) -> dict[str, Any]:
    """Compute, print and draw; return the findings by loss. Collective."""
    found = {}
    for name, loss in LOSSES.items():
        process = fp.MomentumSGD(
            loss, variables=("w",), learning_rate=LEARNING_RATE, momentum=MOMENTUM, batch_size=BATCH
        )
        steady = fp.steady_state(process, DOMAINS[name], comm=comm, eigenvalues=4, size=size)
        start = fp.gaussian_start([1.0, 0.0], SPREAD[name])
        run = fp.evolve(process, DOMAINS[name], start, times, comm=comm, size=size)
        bounds, margins = fp.theorems(run)
        found[name] = {
            "process": process, "steady": steady, "run": run, "bounds": bounds, "margins": margins,
            "line": steady.at(line()), "rate": decay(run), "l1": l1_error(steady, process, name),
        }  # fmt: skip
    if comm.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        table(found)
        draw(found, out / "momentum.png")
    return found


def line() -> np.ndarray:
    """Return points with v = 0."""
    w = np.linspace(-2.5, 2.5, 201)
    return np.column_stack([w, 0 * w])


def decay(run: Any) -> float:
    """Return the mean rate of decay of the entropy over the last period of its oscillation."""
    entropy = np.array([record.entropy for record in run.records])
    began = int(np.argmin(np.abs(run.times - (run.times[-1] - PERIOD))))
    return float(np.log(entropy[began] / entropy[-1]) / (run.times[-1] - run.times[began]))


def energy(name: str, x: np.ndarray) -> np.ndarray:
    """Return L(w) + v²/2 at points (n, 2)."""
    w, v = x[:, 0], x[:, 1]
    loss = (w**2 - 1) ** 2 / 4 if name == "double well" else w**2 / 2
    return np.asarray(loss + v**2 / 2)


def l1_error(steady: Any, process: Any, name: str) -> float:
    """Return the L¹ distance of ρ∞ to ``exp(-(g/D)(L(w) + v²/2))``, normalised on the domain. Collective."""
    mesh, scale = steady.density.function_space.mesh, process.friction / process.noise

    def weight(x: np.ndarray) -> np.ndarray:
        return np.exp(-scale * energy(name, x))

    patches = list(whole_cells(mesh, 12))
    mass = steady.comm.allreduce(sum(float(np.sum(p.weights * at_points(weight, p.x))) for p in patches))
    gaps = (np.abs(p.values(steady.density) - at_points(weight, p.x) / mass) for p in patches)
    return float(
        steady.comm.allreduce(sum(float(np.sum(p.weights * gap)) for p, gap in zip(patches, gaps, strict=True)))
    )


def table(found: dict[str, Any]) -> None:
    """Print friction, noise, spectrum and rates."""
    for name, case in found.items():
        process, steady, run = case["process"], case["steady"], case["run"]
        g, D = process.friction, process.noise
        print(f"{name}: g = {g:.4g}, D = {D:.4g}, temperature D/g = {D / g:.4g}; one SGD step = √η")
        values = ", ".join(f"{v:.5g}" for v in steady.eigenvalues)
        print(f"  eigenvalues of -A: {values}; ρ∞ unique: {steady.unique}, detailed balance: {steady.detailed_balance}")
        print(
            f"  ρ∞: L¹ error {case['l1']:.1e} (estimated {steady.density_error:.1e}), variances "
            f"{steady.covariance[0, 0]:.5f} of w, {steady.covariance[1, 1]:.5f} of v"
        )
        print(f"  {run.unknowns} unknowns, {len(run.steps)} steps")
        print(f"  entropy decays at {case['rate']:.4f}, twice the gap is {2 * steady.spectral_gap:.4f}")
        for margin in case["margins"]:
            state = "proven" if margin.verified else "not proven"
            print(f"  {margin.theorem} ({margin.name}): {state}, smallest margin {margin.smallest:.1e}")


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw ρ∞ along v = 0 with the exact density, and the entropy with its rate."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.0), layout="constrained", dpi=150)
    left, right = figure.subplots(1, 2)
    for (name, case), colour in zip(found.items(), ("#0072B2", "#D55E00"), strict=True):
        w = line()[:, 0]
        g, D = case["process"].friction, case["process"].noise
        exact = np.exp(-g / D * energy(name, line()))
        left.plot(w, case["line"], color=colour, linewidth=2.2, label=f"{name}, computed")
        left.plot(w, exact * case["line"].max() / exact.max(), ":", color="black", linewidth=1.4)
        run, gap = case["run"], case["steady"].spectral_gap
        entropy = np.array([record.entropy for record in run.records])
        right.semilogy(run.times, entropy, "o-", color=colour, markersize=3, label=f"{name}, computed")
        predicted = entropy[-1] * np.exp(2 * gap * (run.times[-1] - run.times))
        right.semilogy(
            run.times, predicted, "--", color=colour, linewidth=1, label=rf"$e^{{-{2 * gap:.3f}t}}$, 2 × gap"
        )
    left.plot([], [], ":", color="black", label=r"$\propto \exp(-(g/D)L(w))$")
    left.set(xlabel="weight w", ylabel=r"$\rho_\infty(w, v = 0)$", ylim=(0, 0.72), title="invariant density")
    left.legend(fontsize=8, loc="upper left")
    for bound in found["quadratic"]["bounds"]:
        if bound.theorem.startswith("Dai-Zhu") and bound.record_key == "entropy" and bound.curve is not None:
            curve = bound.evaluate(found["quadratic"]["run"].times)
            right.semilogy(found["quadratic"]["run"].times, curve, ":", color="0.3", label="quadratic, Theorem 3")
    right.set(
        xlabel="time t  (one SGD step lasts √η)",
        ylabel=r"entropy $E(t)=\frac{1}{2}\int(\rho/\rho_\infty-1)^2\rho_\infty$",
        title="decay at twice the spectral gap",
    )
    right.legend(fontsize=8)
    figure.savefig(path)


if __name__ == "__main__":
    main(MPI.COMM_WORLD)
