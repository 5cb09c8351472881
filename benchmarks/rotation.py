"""Turning a problem by 0.7 rad: the change of the answer against the reported errors."""

from __future__ import annotations

import numpy as np
from common import COMM, say, table
from orders import ANGLE

from fpsolve import SGD, Ball, mean_exit_time

#: Name, loss, covariance, ε²; X and Y are the coordinates of the unturned problem.
PROBLEMS = (
    ("OU, Q = I", "(X**2 + Y**2)/2", [["1", "0"], ["0", "1"]], 0.2),
    ("anisotropic OU, Q = diag(1, 0.1)", "X**2/2 + Y**2", [["1", "0"], ["0", "0.1"]], 0.2),
    ("OU, Q = diag(1, 0)", "(X**2 + Y**2)/2", [["1", "0"], ["0", "0"]], 0.5),
    ("quartic, Q depends on x", "X**4/4 + Y**2/2 + X*Y/4", [["1 + X**2", "0.3*Y"], ["0.3*Y", "0.5"]], 0.3),
)
STARTS = np.array([[0.0, 0.0], [0.4, 0.3], [-0.2, 0.6], [0.1, -0.7]])


def turned(formula: str, angle: float) -> str:
    """Return the formula with X, Y in terms of the turned coordinates x, y."""
    c, s = float(np.cos(angle)), float(np.sin(angle))
    return formula.replace("X", f"({c!r}*x + {s!r}*y)").replace("Y", f"({c!r}*y - {s!r}*x)")


def turned_matrix(q: list[list[str]], angle: float) -> list[list[str]]:
    """Return R Q R^T as formulas of x, y."""
    c, s = float(np.cos(angle)), float(np.sin(angle))
    turn = [[c, -s], [s, c]]
    return [
        [
            turned(" + ".join(f"{turn[i][k] * turn[j][m]!r}*({q[k][m]})" for k in (0, 1) for m in (0, 1)), angle)
            for j in (0, 1)
        ]
        for i in (0, 1)
    ]


def main() -> None:
    """Print the largest change over the starts, relative to the errors reported."""
    rows, good = [], True
    c, s = np.cos(ANGLE), np.sin(ANGLE)
    turn = np.array([[c, -s], [s, c]])
    for name, loss, q, epsilon2 in PROBLEMS:
        for tolerance in (1e-3, 1e-6):
            results = []
            for angle, starts in ((0.0, STARTS), (ANGLE, STARTS @ turn.T)):
                process = SGD(turned(loss, angle), turned_matrix(q, angle), epsilon2=epsilon2)
                asked = {"starts": starts, "tolerance": tolerance, "max_unknowns": 60_000}
                results.append(mean_exit_time(process, Ball((0.0, 0.0), 1.0), comm=COMM, **asked))
            one, two = results
            change = np.abs(one.mean - two.mean)
            ratio = float((change / (one.error[:, 0] + two.error[:, 0])).max())
            good &= ratio < 1
            errors = [f"{(r.error[:, 0] / r.mean).max():.1e}" for r in results]
            rows.append(
                (name, f"{tolerance:.0e}", f"{(change / one.mean).max():.1e}", *errors, f"{ratio:.2f}", one.unknowns)
            )
    header = ("problem", "tolerance", "relative change", "reported", "reported, turned", "change / sum", "unknowns")
    table(header, rows, f"Turned by {ANGLE} rad")
    say("\nevery change below the errors: " + ("yes" if good else "NO"))
