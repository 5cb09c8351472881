"""Threads for work in NumPy, which lets others run while it computes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fpsolve.errors import InputError

T = TypeVar("T")

#: Looked at in this order; OMP_NUM_THREADS is what MPI runs set, FPSOLVE_THREADS leaves BLAS alone.
VARIABLES = ("FPSOLVE_THREADS", "OMP_NUM_THREADS")


def thread_count() -> int:
    """Return how many threads to use: FPSOLVE_THREADS, else OMP_NUM_THREADS, else the processors of this process.

    The processors are those the process is bound to (by mpirun or taskset), not all of the machine.

    Raises
    ------
    InputError
        If FPSOLVE_THREADS is no positive integer.
    """
    for name in VARIABLES:
        text = os.environ.get(name, "").split(",")[0].strip()  # OMP_NUM_THREADS may be a list, one for each level
        if text.isdigit() and int(text) > 0:
            return int(text)
        if text and name == "FPSOLVE_THREADS":
            raise InputError(name, text, "a positive integer")
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def for_each(work: Callable[[T], None], items: Sequence[T], parallel: bool = True) -> None:
    """Call `work` once for every item, on `thread_count` threads; each thread takes every n-th item.

    `work` writes its result to a place of its own, so that nothing depends on the number of threads. An
    exception in it is raised here.
    """
    count = min(thread_count(), len(items)) if parallel else 1
    if count < 2:
        for item in items:
            work(item)
        return

    def share(first: int) -> None:
        for item in items[first::count]:
            work(item)

    with ThreadPoolExecutor(count, thread_name_prefix="fpsolve") as pool:
        for _ in pool.map(share, range(count)):
            pass
