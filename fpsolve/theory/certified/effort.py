"""In which order candidates are tried.

Least squares converges geometrically where u is smooth and is then by far the best; where u is rough it proves nothing
for a long time or ever. One-sided linear programmes prove something at low degrees already, with slack where it costs
nothing, but hardly get below 1e-6 and become dear. Nobody knows beforehand, so both get the same time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Literal

from fpsolve.theory.certified.interval_solve import solve_interval
from fpsolve.theory.certified.least_squares import fits
from fpsolve.theory.certified.one_sided import one_sided
from fpsolve.theory.certified.task import Candidate, Task

LINE_DEGREES = (24, 48, 80, 128, 200, 320)
LINE_BITS = 512
PROGRAMMES = {1: (8, 16, 32), 2: (6, 9, 12, 16, 20, 24, 28, 32, 36), 3: (4, 6, 8, 10, 12, 14)}
HEAD_START = 0.3  # seconds
NARROW, GAIN = 0.5, 0.1
DOUBT = 3.0  # how much dearer least squares counts while it promises nothing

Trial = tuple[str, int, Candidate | None]


def candidates(task: Task, deadline: float) -> Iterator[Trial]:
    """Yield (method, degree, candidate or None); the caller proves each before it asks for the next.

    Parameters
    ----------
    deadline : float
        A moment of `time.monotonic`.
    """
    if task.domain.dimension == 1:
        yield from _line(task)
        yield from _programmes(task, deadline)
        return
    yield from _in_turns(_Fits(task, deadline), _programmes(task, deadline))


class _Fits(Iterator[Trial]):
    """Least squares of increasing degree; `converging` while a degree promises much more than the one before."""

    def __init__(self, task: Task, deadline: float) -> None:
        self._fits = fits(task, deadline)
        self._width = math.inf
        self.converging = False

    @property
    def promising(self) -> bool:
        """Whether any degree so far is expected to give a bound."""
        return self._width < math.inf

    def __next__(self) -> Trial:
        fit = next(self._fits)
        if isinstance(fit, int):
            self.converging = False
            return "least squares", fit, None
        self.converging = fit.estimate.width < min(NARROW, GAIN * self._width)
        self._width = fit.estimate.width
        return "least squares", max(fit.estimate.degrees), fit.candidate


def _in_turns(squares: _Fits, programmes: Iterator[Trial]) -> Iterator[Trial]:
    """Yield from least squares while it converges, else from the method that has had the least time so far."""
    methods = {"squares": squares, "programmes": programmes}
    spent = {"squares": -HEAD_START, "programmes": 0.0}
    while methods:
        name = "squares" if squares.converging else min(methods, key=lambda method: spent[method])
        began = time.monotonic()
        trial = next(methods[name], None)
        if trial is None:
            del methods[name]
            squares.converging = False
            continue
        yield trial
        weight = 1.0 if name == "programmes" or squares.promising else DOUBT
        spent[name] += weight * (time.monotonic() - began)


def _line(task: Task) -> Iterator[Trial]:
    for n in LINE_DEGREES:
        yield "polynomial solved in Arb", n, solve_interval(task, n, LINE_BITS)


def _programmes(task: Task, deadline: float) -> Iterator[Trial]:
    kinds: tuple[Literal["upper", "lower"], ...] = ("upper", "lower")
    for n in PROGRAMMES[task.domain.dimension]:
        for kind in kinds:
            if time.monotonic() >= deadline:
                return
            yield f"linear programme ({kind})", n, one_sided(task, n, kind, deadline)
