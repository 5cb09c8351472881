"""Make tests/data_certified/references.json: exit times of the random problems by means that share nothing with bounds.

    docker/run python benchmarks/certified_references.py [FIRST LAST]

In 1D quadrature; in 2D and 3D adaptive finite elements with their error estimate, and for all problems simulated paths
beside it. Where the elements do not come within `POOR` (nowhere in 2D) and in 3D for Q of rank one, the paths are the
reference, with smaller steps.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from common import COMM, reference, say

import fpsolve as fp

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path.append(str(TESTS))

from random_problems import RandomProblem, random_problem  # noqa: E402

FILE = TESTS / "data_certified" / "references.json"
SEED = 5
COUNTS = {1: 32, 2: 200, 3: 2}
TOLERANCE = {("full", 2): 1e-6, ("rank 1", 2): 1e-5, ("full", 3): 1e-3, ("rank 1", 3): 1e-3}
MAX_UNKNOWNS = {2: 60_000, 3: 30_000}
#: Relative error of finite elements from which on paths are the reference instead.
POOR = 1e-2
PATHS = 10_000
#: Steps in the mean exit time from the centre: of the comparison, and of a reference.
STEPS = 500
FINE_STEPS, FINE_PATHS = 1000, 20_000


def by_quadrature(problem: RandomProblem) -> dict[str, Any]:
    """Return the exact values in 1D."""
    process, (lower, upper) = problem.process, problem.domain.bounding_box()

    def drift(x: np.ndarray) -> np.ndarray:
        return process.drift(x.reshape(-1, 1)).reshape(x.shape)

    def diffusion(x: np.ndarray) -> np.ndarray:
        return process.diffusion(x.reshape(-1, 1)).reshape(x.shape)

    mean = reference().variable_interval_met(drift, diffusion, lower[0], upper[0], problem.starts[:, 0])
    return {"method": "quadrature", "mean": mean.tolist(), "error": (1e-10 * mean).tolist()}


def by_elements(problem: RandomProblem) -> dict[str, Any]:
    """Return the finite-element values and their estimated errors. Collective."""
    result = fp.mean_exit_time(
        problem.process, problem.domain, comm=COMM, starts=problem.starts.tolist(),
        tolerance=TOLERANCE[problem.rank, problem.dimension], max_unknowns=MAX_UNKNOWNS[problem.dimension],
    )  # fmt: skip
    return {"method": "finite elements", "mean": result.mean.tolist(), "error": result.error[:, 0].tolist()}


def by_paths(problem: RandomProblem, scale: float, paths: int, steps: int) -> dict[str, Any]:
    """Return means of paths, and two standard errors plus the change from steps four times larger. Collective."""
    fine, coarse = (
        fp.simulate_exit(
            fp.EulerMaruyama(problem.process, scale / count), problem.domain, problem.starts.tolist(),
            comm=COMM, paths=paths, seed=seed,
        )
        for seed, count in ((1, steps), (2, steps // 4))
    )  # fmt: skip
    error = 2 * fine.standard_error + np.abs(fine.mean - coarse.mean)
    return {"method": "paths", "mean": fine.mean.tolist(), "error": error.tolist()}


def entry(problem: RandomProblem) -> dict[str, Any]:
    """Return the stored line of one problem. Collective."""
    if problem.dimension == 3 and problem.rank == "rank 1":  # where the solver of linear systems may fail
        found = by_paths(problem, 0.1, PATHS // 10, STEPS)
        found["error"] = [np.inf] * len(found["mean"])
    else:
        found = by_quadrature(problem) if problem.dimension == 1 else by_elements(problem)
    scale = found["mean"][0]
    paths = by_paths(problem, scale, PATHS, STEPS)
    if max(e / m for e, m in zip(found["error"], found["mean"], strict=True)) > POOR:
        found = by_paths(problem, scale, FINE_PATHS, FINE_STEPS)
    return {
        "index": problem.index, "digest": problem.digest, **found,
        "paths": paths["mean"], "paths_error": paths["error"],
    }  # fmt: skip


def rounded(line: dict[str, Any]) -> dict[str, Any]:
    """Return the line with as many digits as mean something."""
    digits = {"mean": 13, "error": 3, "paths": 6, "paths_error": 3}
    return {k: [float(f"{v:.{digits[k]}g}") for v in value] if k in digits else value for k, value in line.items()}


def main() -> None:
    """Compute all problems, or those from FIRST to before LAST of each dimension, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("range", nargs="*", type=int, default=[0, 10**6])
    parser.add_argument("--dimensions", nargs="+", type=int, default=list(COUNTS))
    options = parser.parse_args()
    first, last = options.range
    stored = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {"seed": SEED}
    for dimension in options.dimensions:
        lines = {line["index"]: line for line in stored.get(f"{dimension}D", [])}
        for index in range(first, min(last, COUNTS[dimension])):
            problem = random_problem(SEED, index, dimension)
            line = lines[index] = rounded(entry(problem))
            apart = np.abs(np.array(line["mean"]) - line["paths"]) / (np.array(line["paths_error"]) + line["error"])
            name = f"{dimension}D {index} {problem.rank} {problem.dependence} {problem.shape} {problem.potential}"
            value = f"{line['mean'][0]:.8g} ± {line['error'][0]:.1e} ({line['method']})"
            say(f"{name}: {value}, apart {apart.max():.2f}")
            stored[f"{dimension}D"] = [lines[i] for i in sorted(lines)]
            if COMM.rank == 0:
                write(stored)


def write(stored: dict[str, Any]) -> None:
    """Write the file, one problem a line."""
    parts = [f'"seed": {stored["seed"]}']
    for name in sorted(set(stored) - {"seed"}):
        parts.append(f'"{name}": [\n' + ",\n".join(json.dumps(line) for line in stored[name]) + "\n]")
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text("{" + ",\n".join(parts) + "}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
