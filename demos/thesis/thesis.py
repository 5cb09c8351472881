"""Chapter 5 of the thesis (paper 001) with this repository's data: which of its numbers hold, and which do not.

5.1 critical points, 5.2 the covariance approximation Σ ≈ 2LH*/B, 5.3 SDE and SGD, 5.4 escape times against 1/η,
5.5 the stationary density and its current. Everything is compared with what the thesis prints; `README.md` beside this
file gives the verdicts. The thesis drew its own noise, so its digits are not expected, its statements are.
Run: python thesis.py, or mpirun -n 2 python thesis.py. Results: results/thesis/tables.md (all tables and verdicts)
and results/thesis/fig_5_*.png, numbered as in the thesis.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from mpi4py import MPI

from chapter5 import covariance, escape, landscape, paths, stationary
from chapter5.model import two_parameter_model
from chapter5.report import Report


def main(comm: MPI.Comm, out: Path = Path("results/thesis"), quick: bool = False) -> dict[str, Any]:
    """Compute, tabulate and draw; return the findings by section (5.1 and 5.2 on rank 0 only). Collective.

    Parameters
    ----------
    quick : bool
        Few short paths and coarse meshes, to see that everything runs.
    """
    began = time.perf_counter()
    model, report = two_parameter_model(), Report(out)
    found: dict[str, Any] = {"model": model, "report": report}
    if comm.rank == 0:
        found["5.1"] = landscape.run(model, report, **({"samples": 61} if quick else {}))
        found["5.2"] = covariance.run(model, report, **({"samples": 31} if quick else {}))
        print(f"5.1, 5.2: {time.perf_counter() - began:.0f} s", flush=True)
    sections: tuple[tuple[str, Any, dict[str, Any]], ...] = (
        ("5.3", paths, {"paths": 4, "share": 0.05}),
        ("5.4", escape, {"paths": 40, "steps": 3e5, "tolerance": 0.1, "operator_size": 0.5, "quick": True}),
        ("5.5", stationary, {"paths": 100, "tolerance": 0.2, "share": 0.02}),
    )
    for name, section, small in sections:
        found[name] = section.run(model, report, comm, **(small if quick else {}))
        if comm.rank == 0:
            print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    if comm.rank == 0:
        report.write()
        for claim, holds, why in report.verdicts:
            print(f"\n{claim}: {holds.upper()}\n  {why}")
        print(f"\ntables and figures: {out}")
    return found


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    main(MPI.COMM_WORLD)
