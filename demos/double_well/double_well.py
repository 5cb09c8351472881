"""Mean exit time from one well of L = (x² - 1)² + y²: bounds on a disc, and Arrhenius' law on a box.

Run: python double_well.py, or mpirun -n 2 python double_well.py. Results: results/double_well/.
"""

from __future__ import annotations

from pathlib import Path

from mpi4py import MPI

import numpy as np

import fpsolve as fp

MINIMUM = (-1.0, 0.0)
DISC = fp.Ball(MINIMUM, 0.8)
BOXES = {"right side at 0.5": fp.Box((-2.5, -2.0), (0.5, 2.0)), "right side at 0": fp.Box((-2.5, -2.0), (0.0, 2.0))}
# Eyring-Kramers: curvatures (-4, 2) at the saddle (0, 0), (8, 2) at the minimum, barrier 1. This is the time from
# minimum to minimum; the process leaves the first box after it has crossed the saddle for good. The second box
# ends on the saddle, which is reached twice as often as it is crossed: half the time.
FACTOR = {"right side at 0.5": 1.0, "right side at 0": 0.5}


def kramers(epsilon2: float) -> float:
    """Return the Eyring-Kramers time (mathematics.md section 5), an asymptotic law and not an answer."""
    return 2 * np.pi / 4 * np.sqrt(8 / 16) * np.exp(1 / epsilon2)


def main(
    comm: MPI.Comm,
    out: Path = Path("results/double_well"),
    disc_levels: tuple[float, ...] = (0.4, 0.2, 0.1, 0.05),
    box_levels: tuple[float, ...] = (0.5, 0.2, 0.1, 0.06, 0.04, 0.03),
    size: float = 0.05,
) -> dict[str, list[dict]]:
    """Compute, print and draw; return the rows of the tables. Collective."""
    well = fp.SGD(loss="(x**2 - 1)**2 + y**2", covariance="identity", epsilon2=0.1)
    disc, boxes = [], []
    for epsilon2 in disc_levels:
        process = fp.with_epsilon2(well, epsilon2)
        result = fp.mean_exit_time(process, DISC, comm=comm, starts=[MINIMUM], tolerance=1e-3)
        # the search for bounds has a time budget: one rank does it, so that all have the same ones
        bounds = comm.bcast(fp.bounds.sharp_bounds(process, DISC, 4.0) if comm.rank == 0 else None)
        lower, upper = (float(b.evaluate(result.starts)[0]) for b in bounds)
        violated = fp.compare(result, bounds).violated
        disc.append({"epsilon2": epsilon2, "mean": result.mean[0], "error": result.error[0, 0],
                     "lower": lower, "upper": upper, "violated": violated})  # fmt: skip
    for name, box in BOXES.items():
        for epsilon2 in box_levels:
            # Q = I: Scharfetter-Gummel weights keep u positive and are cheap where u spans many decades
            process = fp.with_epsilon2(well, epsilon2)
            result = fp.mean_exit_time(process, box, comm=comm, starts=[MINIMUM], size=size, scheme="sg")
            boxes.append({"box": name, "epsilon2": epsilon2, "mean": result.mean[0], "error": result.error[0, 0],
                          "law": FACTOR[name] * kramers(epsilon2)})  # fmt: skip
    if comm.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        for rows in (disc, boxes):
            print("  ".join(f"{key:>12}" for key in rows[0]))
            for row in rows:
                print("  ".join(f"{v:>12.5g}" if isinstance(v, float) else f"{v!s:>12}" for v in row.values()))
        draw(disc, boxes, out / "arrhenius.png")
    return {"disc": disc, "box": boxes}


def draw(disc: list[dict], boxes: list[dict], path: Path) -> None:
    """Draw log MET against 1/ε² and the ratio to the asymptotic law."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 4.0), layout="constrained", dpi=150)
    left, right = figure.subplots(1, 2)
    inverse = np.array([1 / row["epsilon2"] for row in disc])
    left.fill_between(inverse, [r["lower"] for r in disc], [r["upper"] for r in disc], color="#56B4E9", alpha=0.3,
                      linewidth=0, label="disc: between sharp bounds")  # fmt: skip
    left.plot(inverse, [r["mean"] for r in disc], "s-", color="#0072B2", label="disc of radius 0.8")
    for name, colour, marker in zip(BOXES, ("#D55E00", "#009E73"), "o^", strict=True):
        rows = [r for r in boxes if r["box"] == name]
        inverse = np.array([1 / r["epsilon2"] for r in rows])
        fine = np.linspace(inverse.min(), inverse.max(), 50)
        left.plot(inverse, [r["mean"] for r in rows], marker, color=colour, label=f"box, {name}")
        left.plot(fine, [FACTOR[name] * kramers(1 / t) for t in fine], "-", color=colour, linewidth=0.8)
        ratio, error = ([r[key] / r["law"] for r in rows] for key in ("mean", "error"))
        right.errorbar(1 / inverse, ratio, error, fmt=marker, capsize=3, color=colour, label=f"box, {name}")
    left.set(yscale="log", xlabel=r"$1/\varepsilon^2$", ylabel=r"mean exit time from $(-1, 0)$")
    left.legend(fontsize=8, title="thin lines: Eyring-Kramers", title_fontsize=8)
    right.axhline(1.0, color="black", linewidth=0.8)
    right.set(xlabel=r"$\varepsilon^2$", ylabel="mean exit time / Eyring-Kramers", xlim=(0, None))
    right.legend(fontsize=8, title="bars: error estimate", title_fontsize=8)
    figure.savefig(path)


if __name__ == "__main__":
    main(MPI.COMM_WORLD)
