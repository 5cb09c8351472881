"""In which order candidates are tried.

Least squares converges geometrically where u is smooth and is then by far the best; where u is rough it proves nothing
for a long time or ever. One-sided linear programmes prove something at low degrees already, with slack where it costs
nothing, but hardly get below 1e-6 and become dear. Nobody knows beforehand, so both get the same time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Literal

from fpsolve.theory.certified.interval_solve import solve_interval
from fpsolve.theory.certified.least_squares import fits
from fpsolve.theory.certified.one_sided import one_sided
from fpsolve.theory.certified.task import Candidate, Task

LINE_DEGREES = (24, 48, 96, 160, 240, 360)
LINE_BITS = 512
PROGRAMMES = {1: (8, 16, 32), 2: (6, 9, 12, 16, 20, 24, 28, 32, 36), 3: (4, 6, 8, 10, 12, 14)}
HEAD_START = 0.3  # seconds

Trial = tuple[str, int, Candidate | None]


def candidates(task: Task, deadline: float) -> Iterator[Trial]:
    """Yield (method, degree, candidate or None); the caller proves each before it asks for the next.

    Parameters
    ----------
    deadline : float
        A moment of `time.monotonic`.
    """
    methods = [_line(task) if task.domain.dimension == 1 else _fits(task, deadline), _programmes(task, deadline)]
    if task.domain.dimension == 1:
        for method in methods:
            yield from method
        return
    yield from _in_turns(methods)


def _in_turns(methods: list[Iterator[Trial]]) -> Iterator[Trial]:
    """Yield from the method that has had the least time so far; the first one has a head start."""
    spent = [-HEAD_START, *([0.0] * (len(methods) - 1))]
    while methods:
        k = spent.index(min(spent))
        began = time.monotonic()
        trial = next(methods[k], None)
        if trial is None:
            del methods[k], spent[k]
            continue
        yield trial
        spent[k] += time.monotonic() - began


def _line(task: Task) -> Iterator[Trial]:
    for n in LINE_DEGREES:
        yield "polynomial solved in Arb", n, solve_interval(task, n, LINE_BITS)


def _fits(task: Task, deadline: float) -> Iterator[Trial]:
    for fit in fits(task, deadline):
        if isinstance(fit, int):
            yield "least squares", fit, None
        else:
            yield "least squares", max(fit.estimate.degrees), fit.candidate


def _programmes(task: Task, deadline: float) -> Iterator[Trial]:
    kinds: tuple[Literal["upper", "lower"], ...] = ("upper", "lower")
    for n in PROGRAMMES[task.domain.dimension]:
        for kind in kinds:
            if time.monotonic() >= deadline:
                return
            yield f"linear programme ({kind})", n, one_sided(task, n, kind, deadline)
