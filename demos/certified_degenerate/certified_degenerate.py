"""Certified exit times where the noise has one direction only, with L = |x|²/2: what is proved about the boundary.

On the square, Q = diag(1, 0): that nothing leaves by y = 1 and y = -1 is proved on the way, so that no condition is
needed there and the bounds are as tight as in one dimension. On discs every part of the circle counts; Q = diag(1, 0)
is tangential at (0, ±1), where u has an infinite slope. In the third problem the direction (1, x/2) depends on x.
Run: python certified_degenerate.py, or mpirun -n 2 python certified_degenerate.py.
Results: results/certified_degenerate/.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np

import fpsolve as fp
from fpsolve.verify import check

LOSS = "(x**2 + y**2)/2"
ALONG = [["1", "0"], ["0", "0"]]
#: What the search is for. In the middle the sharp bounds happen to be exact.
STARTS = [(0.0, 0.5), (0.0, -0.5)]
#: Where all bounds are compared, the first start first.
LINE = np.array([STARTS[0], *[(0.0, t) for t in np.linspace(-0.95, 0.95, 39)]])


@dataclass(frozen=True)
class Case:
    """A covariance, a domain and a direction of the noise at x (n, 2), for the picture."""

    title: str
    covariance: list[list[str]]
    domain: fp.Box | fp.Ball
    slope: float
    tolerance: float


SQUARE, DISC = fp.Box((-1.0, -1.0), (1.0, 1.0)), fp.Ball((0.0, 0.0), 1.0)
CASES = {
    "square": Case("square, Q = diag(1, 0)", ALONG, SQUARE, 0.0, 1e-6),
    "disc": Case("disc, Q = diag(1, 0)", ALONG, DISC, 0.0, 1e-5),
    "turning": Case("disc, Q = a aᵀ, a = (1, x/2)", [["1", "x/2"], ["x/2", "x**2/4"]], DISC, 0.5, 1e-5),
}


def enclose(process: fp.Process, domain: fp.Box | fp.Ball, width: float, seconds: float) -> dict[Any, Any]:
    """Return bounds proved for the starts, evaluated along the line, with the certificate; one rank."""
    began = time.perf_counter()
    found = fp.certify(process, domain, width=width, budget=seconds, starts=STARTS)
    spent, text = time.perf_counter() - began, json.dumps(found.certificate)
    verdict = check(text)
    return {
        ("certified", "lower"): found.lower.evaluate(LINE), ("certified", "upper"): found.upper.evaluate(LINE),
        "unreachable": tuple(found.certificate["unreachable"]),
        "limited_by": found.limited_by, "verdict": verdict, "text": text, "seconds": spent,
    }  # fmt: skip


def main(
    comm: MPI.Comm,
    out: Path = Path("results/certified_degenerate"),
    epsilon2: float = 0.5,
    width: float = 1e-6,
    seconds: float = 6.0,
    others: float = 2.0,
    coarser: float = 1.0,
) -> dict[str, dict[Any, Any]]:
    """Compute, print and draw; return the numbers of each case. Collective.

    Parameters
    ----------
    width : float
        Asked of the certified enclosures.
    seconds : float
        For each of them at most.
    others : float
        Seconds for the paper's bounds, and as many for the sharp ones.
    coarser : float
        Factor of the tolerances of the finite elements.
    """
    found: dict[str, dict[Any, Any]] = {}
    for name, case in CASES.items():
        process = fp.SGD(loss=LOSS, covariance=case.covariance, epsilon2=epsilon2)
        starts, tolerance = [*STARTS, (0.0, 0.8), (0.0, -0.8)], coarser * case.tolerance
        result = fp.mean_exit_time(process, case.domain, comm=comm, starts=starts, tolerance=tolerance)
        certified = comm.bcast(enclose(process, case.domain, width, seconds) if comm.rank == 0 else None)
        bounds = comm.bcast(fp.bounds.all_bounds(process, case.domain, budget=others) if comm.rank == 0 else None)
        row = certified | {(bound.name, bound.kind): bound.evaluate(LINE) for bound in bounds}
        grid = points(case.domain)
        field = result.at(grid.reshape(-1, 2)).reshape(grid.shape[:2])
        found[name] = row | {"mean": result.at(LINE), "error": result.error[:, 0], "grid": grid, "field": field}
    if comm.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        report(found)
        for name, row in found.items():
            (out / f"certificate_{name}.json").write_text(row["text"], encoding="utf-8")
        draw(found, out / "certified_degenerate.png")
    return found


def points(domain: fp.Box | fp.Ball) -> np.ndarray:
    """Return a grid that fits the domain, shape (n, m, 2)."""
    if isinstance(domain, fp.Box):
        t = np.linspace(-1, 1, 61)
        return np.stack(np.meshgrid(t, t, indexing="ij"), axis=-1)
    radius, angle = np.meshgrid(np.sin(np.linspace(0, np.pi / 2, 41)), np.linspace(0, 2 * np.pi, 121), indexing="ij")
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)


def report(found: dict[str, dict[Any, Any]]) -> None:
    """Print the bounds at the first start and what is proved about the boundary."""
    for name, row in found.items():
        lower, upper = row["certified", "lower"][0], row["certified", "upper"][0]
        width = upper / lower - 1 if lower > 0 else np.inf
        print(f"{CASES[name].title}: u{STARTS[0]} = {row['mean'][0]:.10g} ± {row['error'][0]:.1e} (finite elements)")
        print(f"    certified {lower:.12g} ... {upper:.12g}, width {width:.1e}, in {row['seconds']:.1f} s; "
              f"paper {row['paper', 'lower'][0]:.4g} ... {row['paper', 'upper'][0]:.4g}, "
              f"sharp {row['sharp', 'lower'][0]:.4g} ... {row['sharp', 'upper'][0]:.4g}")  # fmt: skip
        print(f"    proved unreachable: {', '.join(row['unreachable']) or 'no part'}; checked again: "
              f"{row['verdict'].reason}; limited by: {row['limited_by'] or 'nothing'}")  # fmt: skip


def draw(found: dict[str, dict[Any, Any]], path: Path) -> None:
    """Draw u with the noise's direction and the boundary, and below it the bounds along x = 0."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.4), layout="constrained", dpi=150)
    planes, lines = figure.subplots(2, 3, height_ratios=[1.25, 1])
    highest = max(float(np.nanmax(row["mean"])) for row in found.values())
    levels = np.linspace(0, np.ceil(10 * highest) / 10, 16)
    for (name, row), plane, line in zip(found.items(), planes, lines, strict=True):
        grid = row["grid"]
        painted = plane.contourf(*np.moveaxis(grid, -1, 0), np.clip(row["field"], 0, None), levels)
        at = np.array([(x, y) for x in (-0.6, 0.0, 0.6) for y in (-0.6, 0.0, 0.6)])
        noise = np.column_stack([np.ones(len(at)), CASES[name].slope * at[:, 0]])
        plane.quiver(*at.T, *noise.T, color="white", pivot="mid", headaxislength=0, headlength=0, headwidth=1, scale=8)
        boundary(plane, CASES[name].domain, row["unreachable"])
        plane.set(aspect="equal", xlabel="x", ylabel="y", xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), title=CASES[name].title)
        y = LINE[1:, 1]
        for kind, colour in (("paper", "#E69F00"), ("sharp", "#009E73")):
            for end, style in (("upper", "--"), ("lower", ":")):
                line.plot(y, row[kind, end][1:], style, color=colour, label=f"{kind}, {end}")
        ends = (row["certified", end][1:] for end in ("lower", "upper"))
        line.fill_between(y, *ends, color="#D55E00", alpha=0.6, label="certified")
        line.plot(y, row["mean"][1:], color="black", linewidth=0.8, label="u (finite elements)")
        line.plot([y for _, y in STARTS], [0.0, 0.0], "k^", markersize=5, clip_on=False, label="starts")
        line.set(xlabel="y", ylabel="u(0, y), SGD time (η per step)", xlim=(-1, 1), ylim=(0, 2.3 * highest))
    lines[0].legend(
        fontsize=7, loc="upper center", bbox_to_anchor=(0.5, 0.88), ncol=2, handlelength=1.4, columnspacing=1
    )
    planes[0].legend(fontsize=7.5, loc="center", bbox_to_anchor=(0.5, 0.32))
    figure.colorbar(
        painted, ax=list(planes), label="mean exit time u, SGD time (η per step)", shrink=0.8, ticks=levels[::5]
    )
    figure.savefig(path)


def boundary(axes: Any, domain: fp.Box | fp.Ball, unreachable: tuple[str, ...]) -> None:
    """Draw the boundary, proved unreachable parts dashed."""
    sides = {"boundary": np.column_stack([np.cos(t := np.linspace(0, 2 * np.pi, 200)), np.sin(t)])}
    if isinstance(domain, fp.Box):
        corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)], dtype=float)
        sides = {name: corners[i : i + 2] for i, name in enumerate(("bottom", "right", "top", "left"))}
    labelled = set()
    for name, ends in sides.items():
        label = "proved unreachable" if name in unreachable else "u = 0"
        style, colour = ("--", "#56B4E9") if name in unreachable else ("-", "#D55E00")
        axes.plot(*ends.T, style, color=colour, linewidth=2.5, label=None if label in labelled else label)
        labelled.add(label)


if __name__ == "__main__":
    main(MPI.COMM_WORLD)
