"""In which order candidates are tried: cheap ones first, then what the problem seems to need.

Least squares converges geometrically where u is smooth and is then by far the cheapest; where u is rough or steep it
proves nothing for a long time. One-sided linear programmes prove something at low degrees already, with slack where
it costs nothing, but hardly get below 1e-6 and become dear.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Literal

from fpsolve.theory.certified.interval_solve import solve_interval
from fpsolve.theory.certified.least_squares import least_squares
from fpsolve.theory.certified.one_sided import one_sided
from fpsolve.theory.certified.task import Candidate, Task

LINE_DEGREES = (24, 48, 96, 160, 240)
LINE_BITS = 512
# least squares: always tried, continued while it converges, and tried again at the end
FIRST = {2: (8, 14, 20), 3: (6, 10)}
NEXT = {2: (28, 38, 50, 64), 3: (14, 18, 22)}
PROGRAMMES = {1: (8, 16, 32), 2: (6, 9, 12, 16, 20, 24, 28, 32, 36), 3: (4, 6, 8, 10)}
# an enclosure that is that narrow and gets narrower by this factor is converging
NARROW, GAIN = 0.5, 0.3

Trial = tuple[str, int, Candidate | None]


def candidates(task: Task, width: float, deadline: float, reached: Callable[[], float]) -> Iterator[Trial]:
    """Yield (method, degree, candidate); the caller proves each before it asks for the next.

    Parameters
    ----------
    width : float
        The asked relative width.
    deadline : float
        A moment of `time.monotonic`.
    reached : callable
        The relative width that is proved so far (2: no upper bound yet).
    """
    d = task.domain.dimension
    if d == 1:
        for n in LINE_DEGREES:
            yield "polynomial solved in Arb", n, solve_interval(task, n, LINE_BITS)
        yield from _programmes(task, deadline)
        return
    left = list(NEXT[d])
    before = 2.0
    for n in FIRST[d]:
        before = reached()
        yield "least squares", n, least_squares(task, n).candidate
    while left and reached() < min(NARROW, GAIN * before):
        before = reached()
        n = left.pop(0)
        yield "least squares", n, least_squares(task, n).candidate
    yield from _programmes(task, deadline)
    for n in left:
        yield "least squares", n, least_squares(task, n).candidate


def _programmes(task: Task, deadline: float) -> Iterator[Trial]:
    kinds: tuple[Literal["upper", "lower"], ...] = ("upper", "lower")
    for n in PROGRAMMES[task.domain.dimension]:
        for kind in kinds:
            if time.monotonic() >= deadline:
                return
            yield f"linear programme ({kind})", n, one_sided(task, n, kind, deadline)
