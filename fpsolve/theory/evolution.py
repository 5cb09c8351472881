"""All theorems about how the density moves and where it ends, for one problem: the front of the modules below.

`fpsolve.theory.concentration` (paper section 2), `fpsolve.theory.decay` (entropy), `fpsolve.theory.longtime` (linear
drift), `fpsolve.theory.kinetic` (Dai and Zhu).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from fpsolve.model.process import Process
from fpsolve.model.schedule import Schedule
from fpsolve.theory.concentration import Boundary, concentration_bounds, drift_constants
from fpsolve.theory.decay import Start, entropy_bounds, linear_entropy_bounds, poincare_constant
from fpsolve.theory.kinetic import dai_zhu_bounds
from fpsolve.theory.linear import linear_diffusion
from fpsolve.theory.longtime import Initial, linear_bounds
from fpsolve.theory.timebounds import TimeBound

__all__ = ["TimeBound", "evolution_bounds"]

T = TypeVar("T")
SECONDS = 15.0


def _here(work: Callable[[], T]) -> T:
    return work()


def evolution_bounds(
    process: Process,
    domain: Any,
    *,
    boundary: Boundary = "no-flux",
    initial_functional: Initial,
    names: Sequence[str] = ("paper", "sharp"),
    center: Sequence[float] | None = None,
    radius: float | None = None,
    delta: float | None = None,
    gap: float | None = None,
    entropy0: float | None = None,
    entropy_time: float = 0.0,
    gaussian_start: tuple[np.ndarray, np.ndarray] | None = None,
    schedule: Schedule | None = None,
    horizon: float | None = None,
    seconds: float = SECONDS,
    on_root: Callable[[Callable[[], Any]], Any] = _here,
) -> list[TimeBound]:
    """Return every statement about ρ(t) that could apply, those that do not with the reason.

    Parameters
    ----------
    process, domain
        The problem that is solved, Ω being the domain as given and not its mesh.
    boundary : "no-flux" or "absorbing"
    initial_functional : callable
        g -> ∫gρ₀ for vectorised g, (n, d) -> (n,), of the initial datum that is actually used. Called in the same
        order on every rank, so it may be collective.
    names : out of "paper", "sharp", "printed"
    center, radius, delta : optional
        c, R₀ and δ of section 2; by default the minimum next to the initial mean, the best ball, δ = 1.
    gap : float, optional
        Computed spectral gap, for predictions.
    entropy0, entropy_time : float, optional
        E at a time from which on the entropy is bounded (0, or the first stored time where it is finite).
    gaussian_start : (mean, covariance), optional
        When the start is a Gaussian; covariance 0 for a point.
    schedule : Schedule, optional
        Noise that changes in time; the bounds of section 2 take it into account, the others then do not apply.
    horizon : float, optional
        The last time of interest.
    seconds : float
        For proving constants.
    on_root : callable
        Runs work on one rank and returns its result on all, e.g. ``lambda work: parallel.on_root(comm, work)``:
        searches that end by the clock give different constants on different ranks. Needed on several ranks only.
    """
    kinds, schedule = tuple(names), Schedule() if schedule is None else schedule
    d = process.dimension
    mean = np.array([initial_functional(lambda x, i=i: x[:, i]) for i in range(d)])  # type: ignore[misc]
    point = None if center is None else np.asarray(center, dtype=float)
    known = on_root(lambda: drift_constants(process, domain, boundary, point, radius, delta, 2 * seconds / 3, mean))
    found = concentration_bounds(known, process, initial_functional, boundary, kinds, schedule)
    start = Start(entropy0, entropy_time)
    proven = on_root(lambda: poincare_constant(process, domain, seconds / 3))
    found += entropy_bounds(process, proven, start, gap, boundary, kinds, schedule)
    law = on_root(lambda: linear_diffusion(process))
    # what leaves through an absorbing boundary is lost to mean and covariance: nothing is claimed about the rest
    if law is None or not schedule.constant or boundary != "no-flux":
        return found
    found += linear_entropy_bounds(law, start, domain, kinds)
    found += dai_zhu_bounds(law, gaussian_start, domain, kinds)
    gaussian = gaussian_start is not None
    return found + linear_bounds(law, initial_functional, domain, kinds, gaussian, horizon)
