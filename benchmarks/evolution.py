"""Cost of the Fokker-Planck equation: what 200 fixed steps cost beside their solves, and two ranks against one.

The steps are those of `evolve` with a fixed step (Crank-Nicolson: one solve a step; the nonnegative scheme: two and a
limiter). Mesh and monitors are set up once and shown apart. Ranks are compared by what depends on them: assembly,
factorisation and steps.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from common import COMM, say, table

from fpsolve import SGD, Box, gaussian_start
from fpsolve.fem.limited import LimitedStepper
from fpsolve.fem.start import start_load, start_vector
from fpsolve.fem.stepping import LinearStepper
from fpsolve.problems.evolve_level import discretise_evolution
from fpsolve.problems.march import Plan, Progress, march
from fpsolve.problems.timed_request import timed_request

STEPS = 200
LIMIT = 1.15
#: Double wells on a square and in a cube.
PLANE = SGD(loss="(x**2 - 1)**2 + y**2", epsilon2=0.2), Box((-2.5, -2.5), (2.5, 2.5))
SPACE = (
    SGD(loss="(x**2 - 1)**2 + y**2 + z**2", variables=("x", "y", "z"), epsilon2=0.4),
    Box((-2.5, -2.5, -2.5), (2.5, 2.5, 2.5)),
)


def size_for(unknowns: int, degree: int, scheme: str, d: int) -> float:
    """Return the mesh size that gives about that many unknowns on the square or in the cube."""
    if d == 3:  # continuous elements: about degree³/6 unknowns for each tetrahedron of volume 0.1 h³
        return float(5.0 * (1.75 * degree**3 / unknowns) ** (1 / 3))
    per_cell = (degree + 1) * (degree + 2) / 2 if scheme == "dg" else degree**2 / 2
    return float(np.sqrt(25.0 * 4 / np.sqrt(3) * per_cell / unknowns))


def run(unknowns: int, scheme: str, degree: int, nonnegative: bool = False, d: int = 2) -> dict[str, float]:
    """Take the steps and return the seconds of each part. Collective."""
    process, domain = PLANE if d == 2 else SPACE
    request = timed_request(
        process, domain, "evolve", [STEPS * 0.01], scheme=scheme, degree=degree, nonnegative=nonnegative,
        size=size_for(unknowns, degree, scheme, d), step=0.01,
    )  # fmt: skip
    COMM.barrier()
    began = time.perf_counter()
    discrete = discretise_evolution(process, domain, request.size or 0.0, request, COMM)
    system = discrete.system
    load, _ = start_load(gaussian_start([-1.0] + [0.0] * (d - 1), 0.1), system.generator, process, domain)
    y = start_vector(load, system.generator, lumped=nonnegative)
    linear = LinearStepper(system, request.method)
    stepper = LimitedStepper(system, linear) if nonnegative else linear
    COMM.barrier()
    ready = time.perf_counter()
    plan = Plan(request.stops, request.method, None, request.step)
    y = march(stepper, y, plan, 1.0, Progress(), lambda *_: None, lambda _: None)
    COMM.barrier()
    steps = time.perf_counter() - ready
    seconds, counts = system.meter.seconds, system.meter.counts
    return {
        "unknowns": system.generator.unknowns,
        "setup": ready - began,
        "factorisations": counts["factorisation"],
        "factorisation": seconds["factorisation"],
        "solves": counts["solve"],
        "solving": seconds["solve"],
        "steps": steps,
    }


def main() -> None:
    """Print the split at 100,000 unknowns, and start the comparison of one rank with two."""
    cases = (("dg", 3, False), ("dg", 2, False), ("cg", 1, True), ("sg", 1, True))

    def rows():
        for scheme, degree, nonnegative in cases:
            r = run(100_000, scheme, degree, nonnegative)
            linear = r["factorisation"] + r["solving"]
            yield (
                f"{scheme}{degree}{', nonnegative' if nonnegative else ''}", f"{r['unknowns']:,}",
                f"{r['factorisations']:.0f}: {r['factorisation']:.2f}", f"{r['solves']:.0f}: {r['solving']:.2f}",
                f"{r['steps']:.2f}", f"{r['steps'] / linear:.3f}", f"{r['setup']:.2f}",
            )  # fmt: skip

    head = ["scheme", "unknowns", "factorisations: s", "solves: s", "march s", "march/(both)", "mesh, assembly s"]
    table(head, rows(), f"{STEPS} fixed steps; the bar is {LIMIT} for the linear schemes")
    if COMM.size == 1:
        ranks()


def ranks(repeats: int = 3) -> None:
    """Compare one rank with two at 300,000 unknowns, each run a process of its own, in turn."""

    def rows():
        for scheme, degree, d in (("dg", 3, 2), ("dg", 2, 2), ("cg", 2, 3)):
            found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
            for _ in range(repeats if d == 2 else 1):
                for count in (1, 2):
                    found[count].append(_elsewhere(count, scheme, degree, d))
            best = {count: min(runs, key=sum) for count, runs in found.items()}
            setup, steps = (best[1][k] / best[2][k] for k in (0, 1))
            whole = sum(best[1]) / sum(best[2])
            yield (
                f"{scheme}{degree}, {d}D",
                *(f"{best[c][0]:.1f} + {best[c][1]:.1f}" for c in (1, 2)),
                setup,
                steps,
                whole,
            )

    shown = (tuple(f"{e:.2f}" if isinstance(e, float) else e for e in row) for row in rows())
    table(["scheme", "1 rank: setup + steps, s", "2 ranks", "setup ratio", "steps ratio", "ratio"], shown,
          f"300,000 unknowns, {STEPS} steps, best of {repeats}")  # fmt: skip


def _elsewhere(count: int, scheme: str, degree: int, d: int) -> tuple[float, float]:
    """Run this file on some ranks and return seconds of set-up and steps."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMIX_", "PMI_", "PRTE_"))}
    clean |= {
        k: v for k, v in os.environ.items() if k.startswith(("OMPI_MCA_", "OMPI_ALLOW", "PRTE_ALLOW", "PRTE_MCA_"))
    }
    command = ["mpirun", "-n", str(count), sys.executable, str(Path(__file__)), scheme, str(degree), str(d)]
    out = subprocess.run(command, env=clean, capture_output=True, text=True, check=True).stdout
    setup, steps = out.split()[-2:]
    return float(setup), float(steps)


if __name__ == "__main__":
    answer = run(300_000, sys.argv[1], int(sys.argv[2]), d=int(sys.argv[3]))
    say(f"{answer['setup']} {answer['steps']}")
