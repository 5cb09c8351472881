"""Measure the package: docker/run python benchmarks/run.py [PART...].

Parts: cost, data, evolution, jit, orders, degenerate, rotation, small_noise, schemes, corrections, simulate,
transfer, certified. Without one, all run. README.md has figures.
"""

from __future__ import annotations

import argparse
import importlib
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

PARTS = (
    "cost",
    "data",
    "evolution",
    "jit",
    "orders",
    "degenerate",
    "rotation",
    "small_noise",
    "schemes",
    "corrections",
    "simulate",
    "transfer",
    "certified",
)


def main() -> None:
    """Run the parts named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="*", default=["all"], choices=(*PARTS, "all"))
    parser.add_argument("--unknowns", type=int, default=300_000, help="of the cost comparison")
    parser.add_argument("--repeats", type=int, default=5, help="of the cost comparison")
    parser.add_argument("--degrees", type=int, nargs="+", default=[2, 3], help="of the cost comparison")
    options = parser.parse_args()
    from common import say

    chosen = PARTS if "all" in options.part else options.part
    for name in chosen:
        say(f"\n## {name}")
        began = time.perf_counter()
        module = importlib.import_module(name)
        if name == "cost":
            module.main(options.unknowns, options.repeats, tuple(options.degrees))
        else:
            module.main()
        say(f"\n({name}: {time.perf_counter() - began:.0f} s)")


if __name__ == "__main__":
    main()
