"""In which order candidates are tried: cheap and smooth first, then dearer and rougher."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from fpsolve.theory.certified.interval_solve import solve_interval
from fpsolve.theory.certified.least_squares import least_squares
from fpsolve.theory.certified.one_sided import one_sided
from fpsolve.theory.certified.task import Candidate, Task

LINE_DEGREES = (24, 48, 96, 160, 240)
PLANE_DEGREES = (8, 14, 20, 28, 38, 50, 64)
SPACE_DEGREES = (6, 10, 14, 18)
PROGRAMME_DEGREES = {1: (12, 24, 40), 2: (6, 12, 18, 24, 30, 36), 3: (4, 6, 8, 10)}
# least squares of a higher degree must make the enclosure narrower at least by this factor, or programmes follow
GAIN = 0.5
PATIENCE = 3

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
    if task.domain.dimension == 1:
        yield from _until_stalled(
            "polynomial solved in Arb", lambda n: solve_interval(task, n, 512), LINE_DEGREES, reached
        )
    else:
        degrees = PLANE_DEGREES if task.domain.dimension == 2 else SPACE_DEGREES
        yield from _until_stalled("least squares", lambda n: least_squares(task, n).candidate, degrees, reached)
    for n in PROGRAMME_DEGREES[task.domain.dimension]:
        for kind in ("upper", "lower"):
            if time.monotonic() >= deadline:
                return
            yield f"linear programme ({kind})", n, one_sided(task, n, kind, deadline)


def _until_stalled(
    method: str, make: Callable[[int], Candidate | None], degrees: Sequence[int], reached: Callable[[], float]
) -> Iterator[Trial]:
    """Yield candidates of increasing degree until `PATIENCE` of them in a row bring little."""
    idle = 0
    for degree in degrees:
        before = reached()
        yield method, degree, make(degree)
        idle = 0 if reached() < GAIN * before else idle + 1
        if idle >= PATIENCE:
            return
