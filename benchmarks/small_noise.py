"""The double well as the noise falls: mean exit times from 1e1 to 1e21."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from common import COMM, reference, say, table

from fpsolve import SGD, Box, mean_exit_time

exact_values = reference()
EPSILON2 = (0.5, 0.2, 0.1, 0.05, 0.03, 0.0215, 0.02)
#: Adaptive elements start from this size below ε² = 0.1: the default one (0.5) sees nothing of such a well.
START_SIZE = 0.1
LIMIT = {"dg": 60_000, "sg": 100_000}


def exact(epsilon2: float) -> float:
    """Return E τ from (-1, 0).

    Below 0.03 that of one dimension on (-1.8, 0.5): L = 4 at y = ±2 and 5 at x = -1.8, so the process leaves there
    with a probability below e^(-100) only.
    """
    if epsilon2 >= 0.03:
        return float(exact_values.double_well_box_met(epsilon2, -1.0, 0.0))
    return float(exact_values.interval_met(lambda x: (x * x - 1) ** 2, epsilon2, -1.8, 0.5, -1.0))


def run(epsilon2: float, scheme: str, tolerance: float) -> tuple[tuple[object, ...], bool]:
    """Return a row, and whether the true error is within the reported one."""
    process = SGD("(x**2 - 1)**2 + y**2", epsilon2=epsilon2)
    asked = {"starts": [(-1.0, 0.0)], "tolerance": tolerance, "scheme": scheme, "max_unknowns": LIMIT[scheme]}
    if scheme == "dg" and epsilon2 < 0.1:
        asked["size"] = START_SIZE
    began = time.perf_counter()
    result = mean_exit_time(process, Box((-2.5, -2.0), (0.5, 2.0)), comm=COMM, **asked)
    seconds = time.perf_counter() - began
    want = exact(epsilon2)
    value, error = float(result.mean[0]), float(result.error[0, 0])
    true = abs(value - want)
    row = (
        f"{epsilon2:g}", f"{want:.8e}", f"{scheme}{result.degree}", f"{value / want:.7f}", f"{error / want:.1e}",
        f"{true / want:.1e}", f"{error / true if true else np.inf:.1f}", f"{result.flux[0]:.3g}", result.unknowns,
        len(result.levels), f"{seconds:.1f}", "yes" if result.converged else "no",
    )  # fmt: skip
    return row, true <= error or true <= tolerance * want


def main() -> None:
    """Print the table for adaptive discontinuous elements and for Scharfetter-Gummel weights."""
    outside: list[str] = []

    def rows() -> Iterator[tuple[object, ...]]:
        for scheme, tolerance in (("dg", 1e-3), ("sg", 1e-3)):
            for epsilon2 in EPSILON2:
                row, within = run(epsilon2, scheme, tolerance)
                if not within:
                    outside.append(f"{row[2]} at ε² = {row[0]}")
                yield row

    header = (
        "ε²", "exact", "scheme", "value/exact", "reported", "true", "reported/true", "flux", "unknowns", "levels", "s",
        "met",
    )  # fmt: skip
    table(header, rows(), "Double well, box, from (-1, 0), tolerance 1e-3")
    verdict = "yes" if not outside else "NO: " + ", ".join(outside)
    say(f"\ntrue error within the reported one or the tolerance: {verdict}")
