"""Time to a tolerance for the schemes and degrees among which the defaults were chosen."""

from __future__ import annotations

import time

import numpy as np
from common import COMM, reference, table

from fpsolve import SGD, Ball, Box, mean_exit_time
from fpsolve.model.domains import Domain
from fpsolve.model.process import Process

exact_values = reference()
PLANE = (("dg", 2), ("dg", 3), ("dg", 4), ("cg", 2), ("cg", 3), ("cg", 4))
SPACE = (("cg", 3), ("cg", 4), ("dg", 2), ("dg", 3))


def row(
    process: Process,
    domain: Domain,
    start: tuple[float, ...],
    want: float,
    scheme: str,
    degree: int,
    tolerance: float,
    limit: int,
) -> tuple[object, ...]:
    """Run twice (the first compiles) and return a table row."""

    def go(accuracy: float, most: int):
        asked = {"starts": [start], "tolerance": accuracy, "max_unknowns": most}
        return mean_exit_time(process, domain, comm=COMM, scheme=scheme, degree=degree, **asked)

    go(0.5, 10)
    began = time.perf_counter()
    result = go(tolerance, limit)
    seconds = time.perf_counter() - began
    value, error = float(result.mean[0]), float(result.error[0, 0])
    true = abs(value - want)
    return (
        f"{scheme}{degree}", f"{error / want:.1e}", f"{true / want:.1e}", result.unknowns, len(result.levels),
        f"{seconds:.1f}", f"{result.levels[-1].seconds:.1f}", "yes" if result.converged else "no", result.solver,
    )  # fmt: skip


HEADER = ("scheme", "reported", "true", "unknowns", "levels", "s", "s on the last", "met", "solver")


def main() -> None:
    """Print three tables."""
    well = SGD("(x**2 - 1)**2 + y**2", epsilon2=0.2)
    box = Box((-2.5, -2.0), (0.5, 2.0))
    want = float(exact_values.double_well_box_met(0.2, -1.0, 0.0))
    rows = (row(well, box, (-1.0, 0.0), want, *case, 1e-6, 150_000) for case in PLANE)
    table(HEADER, rows, "Double well, ε² = 0.2, tolerance 1e-6")

    flat = SGD("(x**2 + y**2)/2", [["1", "0"], ["0", "0"]], epsilon2=0.5)
    want = float(exact_values.degenerate_disc_met(0.5, 0.5, 0.5))
    rows = (row(flat, Ball((0.0, 0.0), 1.0), (0.5, 0.5), want, *case, 1e-6, 100_000) for case in PLANE)
    table(HEADER, rows, "Q = diag(1, 0) on the disc, ε² = 0.5, at (0.5, 0.5), tolerance 1e-6")

    ball = SGD("(x**2 + y**2 + z**2)/2", variables=("x", "y", "z"), epsilon2=0.3)
    start = (0.3, 0.1, -0.2)
    want = float(exact_values.ball_ou_met(np.linalg.norm(start), 3, 1.0, 0.3, 1.0))
    rows = (row(ball, Ball((0.0, 0.0, 0.0), 1.0), start, want, *case, 1e-5, 8_000) for case in SPACE)
    table(HEADER, rows, "OU in the ball, ε² = 0.3, tolerance 1e-5")
