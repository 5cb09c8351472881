"""The mean exit time from a well of L = (x² - 1)² + y²: finite elements, the paper's, sharper and certified bounds.

A certified bound is a theorem: its hypotheses are checked in outward-rounded arithmetic, and the certificate that the
script writes is checked again by `fpsolve verify`, which shares no code with the search.
Run: python certified_double_well.py, or mpirun -n 2 python certified_double_well.py.
Results: results/certified_double_well/.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np

import fpsolve as fp
from fpsolve.verify import check

MINIMUM = (-1.0, 0.0)
RADIUS = 0.8
DISC = fp.Ball(MINIMUM, RADIUS)
#: The line y = 0 through the disc, its middle first.
LINE = np.array([MINIMUM, *[(-1.0 + RADIUS * t, 0.0) for t in np.linspace(-0.95, 0.95, 39)]])
#: What the search is for; the finite elements are refined for these and for points closer to the circle.
STARTS = [MINIMUM, (-1.6, 0.0), (-0.4, 0.0)]
NEAR = [(-1.75, 0.0), (-0.25, 0.0)]
KINDS = ("paper", "sharp", "certified")


def enclose(process: fp.Process, width: float, seconds: float) -> dict[str, Any]:
    """Return bounds proved for the starts, evaluated along the line, with certificate and seconds; one rank."""
    began = time.perf_counter()
    found = fp.certify(process, DISC, width=width, budget=seconds, starts=STARTS)
    spent, text = time.perf_counter() - began, json.dumps(found.certificate)
    began = time.perf_counter()
    verdict = check(text)
    checking = time.perf_counter() - began
    return {
        "lower": found.lower.evaluate(LINE), "upper": found.upper.evaluate(LINE),
        "limited_by": found.limited_by, "verdict": verdict, "text": text, "seconds": spent, "checking": checking,
    }  # fmt: skip


def main(
    comm: MPI.Comm,
    out: Path = Path("results/certified_double_well"),
    levels: tuple[float, ...] = (0.5, 0.2, 0.1),
    shown: float = 0.2,
    width: float = 3e-3,
    seconds: float = 20.0,
    others: float = 2.0,
    tolerance: float = 1e-5,
) -> list[dict[str, Any]]:
    """Compute, print and draw; return one row for each ε². Collective.

    Parameters
    ----------
    shown : float
        The ε² of the first two pictures, one of the levels.
    width : float
        Asked of the certified enclosures.
    seconds : float
        For each of them at most.
    others : float
        Seconds for the paper's bounds, and as many for the sharp ones.
    """
    rows = []
    for epsilon2 in levels:
        process = fp.SGD(loss="(x**2 - 1)**2 + y**2", covariance="identity", epsilon2=epsilon2)
        result = fp.mean_exit_time(process, DISC, comm=comm, starts=STARTS + NEAR, tolerance=tolerance)
        # searches have a time budget: one rank does them, so that all have the same bounds
        certified = comm.bcast(enclose(process, width, seconds) if comm.rank == 0 else None)
        bounds = comm.bcast(fp.bounds.all_bounds(process, DISC, budget=others) if comm.rank == 0 else None)
        row: dict[str, Any] = {"epsilon2": epsilon2, "mean": result.at(LINE), "error": result.error[0, 0]}
        row |= {(bound.name, bound.kind): bound.evaluate(LINE) for bound in bounds}
        row |= {("certified", kind): certified[kind] for kind in ("lower", "upper")}
        rows.append(row | {key: certified[key] for key in ("limited_by", "verdict", "text", "seconds", "checking")})
    if comm.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        report(rows)
        for row in rows:
            (out / f"certificate_{row['epsilon2']:g}.json").write_text(row["text"], encoding="utf-8")
        draw(rows, shown, out / "certified_double_well.png")
    return rows


def report(rows: list[dict[str, Any]]) -> None:
    """Print the bounds in the middle of the disc."""
    print(f"{'ε²':>5} {'bound':>10} {'lower':>20} {'upper':>20} {'upper/lower - 1':>16}")
    for row in rows:
        print(f"{row['epsilon2']:5g} {'u (FE)':>10} {row['mean'][0]:20.13g} ± {row['error']:.1e}")
        for name in KINDS:
            lower, upper = row[name, "lower"][0], row[name, "upper"][0]
            width = upper / lower - 1 if lower > 0 else np.inf
            print(f"{'':5} {name:>10} {lower:20.13g} {upper:20.13g} {width:16.1e}")
        print(f"{'':16} certified in {row['seconds']:.1f} s, checked again in {row['checking']:.1f} s: "
              f"{row['verdict'].reason}; limited by: {row['limited_by'] or 'nothing'}")  # fmt: skip


def draw(rows: list[dict[str, Any]], shown: float, path: Path) -> None:
    """Draw u and all bounds along the line, the certified ones enlarged, and all of them against 1/ε²."""
    from matplotlib.figure import Figure

    colours = dict(zip(KINDS, ("#E69F00", "#009E73", "#D55E00"), strict=True))
    figure = Figure(figsize=(12, 4), layout="constrained", dpi=150)
    along, near, levels = figure.subplots(1, 3)
    row = next(row for row in rows if row["epsilon2"] == shown)
    x, u = LINE[1:, 0], row["mean"][1:]
    lower, upper = row["certified", "lower"][1:], row["certified", "upper"][1:]
    for name in KINDS[:2]:
        for kind, style in (("upper", "--"), ("lower", ":")):
            values = np.where(row[name, kind][1:] > 0, row[name, kind][1:], np.nan)
            along.plot(x, values, style, color=colours[name], label=f"{name}, {kind}")
    for end, label in ((lower, "certified, both"), (upper, None)):
        along.plot(x, end, color=colours["certified"], linewidth=4, alpha=0.6, label=label)
    along.plot(x, u, color="black", linewidth=0.8, label="u (finite elements)")
    along.set(yscale="log", xlabel="x", ylabel="mean exit time u(x, 0), SGD time (η per step)")
    along.set_title(rf"(a) bounds of u, $\varepsilon^2$ = {shown:g}")
    along.set_ylim(bottom=0.05)
    along.legend(fontsize=7.5, loc="lower center", ncol=2)
    near.plot(x, (upper - lower) / upper, color=colours["certified"], label="width of the certified enclosure / u")
    near.plot(x, np.abs(u / ((lower + upper) / 2) - 1), "k.", markersize=4, label="distance of FE from its middle / u")
    near.set(yscale="log", xlabel="x", title="(b) the certified enclosure, closer")
    near.margins(y=0.25)
    near.legend(fontsize=7.5, loc="upper center")
    inverse = np.array([1 / r["epsilon2"] for r in rows])
    for name in KINDS:
        ends = np.array([[r[name, kind][0] for r in rows] for kind in ("lower", "upper")])
        levels.fill_between(inverse, *ends, color=colours[name], alpha=0.2, linewidth=0)
        levels.plot(inverse, ends.T, color=colours[name], label=[name, None])
    levels.plot(inverse, [r["mean"][0] for r in rows], "ko", markersize=4, label="u (finite elements)")
    levels.set(yscale="log", xlabel=r"$1/\varepsilon^2$", ylabel="u(-1, 0), SGD time (η per step)")
    levels.set_title("(c) in the middle")
    levels.legend(fontsize=7.5, loc="upper left")
    figure.savefig(path)


if __name__ == "__main__":
    main(MPI.COMM_WORLD)
