"""Compilation: what the first problem costs, and that another formula compiles nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common import COMM, say, table

#: Loss and covariance; all share element, dimension and geometry.
PROBLEMS = (
    ("(x**2 + y**2)/2", "identity"),
    ("(x**2 + y**2)/2 + cos(3*x)/10", "identity"),
    ("x**4 + exp(y)/5 + y**2", '[["1 + x**2", "x*y/2"], ["x*y/2", "2 + y**2"]]'),
)
CHILD = """
import json, sys, time
from pathlib import Path
from mpi4py import MPI
from fpsolve import SGD, Ball, mean_exit_time
loss, covariance = sys.argv[1:3]
covariance = json.loads(covariance) if covariance.startswith("[") else covariance
import dolfinx.fem, fpsolve.problems.exit
began = time.perf_counter()
process = SGD(loss, covariance, epsilon2=0.3)
mean_exit_time(process, Ball((0.0, 0.0), 1.0), comm=MPI.COMM_WORLD, size=0.25, starts=[(0.1, 0.2)])
print(time.perf_counter() - began)
"""


def main() -> None:
    """Run each problem in a process of its own with a cache that starts empty."""
    if COMM.size > 1:
        say("jit runs in one process only")
        return
    rows, known = [], 0
    with tempfile.TemporaryDirectory() as folder:
        for number, (loss, covariance) in enumerate((PROBLEMS[0], *PROBLEMS)):
            environment = {**os.environ, "XDG_CACHE_HOME": folder}
            command = [sys.executable, "-c", CHILD, loss, covariance]
            out = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
            count = len(list(Path(folder, "fenics").glob("libffcx*.so")))
            note = "empty cache" if not number else "again" if number == 1 else "another formula"
            rows.append((loss, note, count - known, f"{float(out.split()[-1]):.1f}"))
            known = count
    title = "Compilation, default scheme on the disc, two levels, a new process each"
    table(("loss", "", "forms compiled", "seconds"), rows, title)
    say("\nno compilation for another formula: " + ("yes" if not any(r[2] for r in rows[1:]) else "NO"))
