"""The theorems about a computed evolution, each compared with it: for scripts as well as for the evolve command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from fpsolve.fem.functionals import integrate_with_error
from fpsolve.fem.parallel import on_root
from fpsolve.model.initial import GaussianStart, PointStart
from fpsolve.problems.compare_evolution import TimeMargin, compare_bounds
from fpsolve.problems.evolution import EvolveResult
from fpsolve.theory.evolution import TimeBound, evolution_bounds


def theorems(
    result: EvolveResult,
    names: Sequence[str] = ("paper", "sharp"),
    center: Sequence[float] | None = None,
    radius: float | None = None,
    delta: float | None = None,
    gap: float | None = None,
) -> tuple[list[TimeBound], list[TimeMargin]]:
    """Return every statement about ρ(t) that could apply, and how each compares at the stored times. Collective.

    Parameters
    ----------
    names : out of "paper", "sharp", "printed"
    center, radius, delta : optional
        c, R₀ and δ of the paper's section 2; chosen if not given.
    gap : float, optional
        A computed spectral gap: a prediction of the decay of entropy, no bound.
    """

    def expectation(g: Callable[[np.ndarray], np.ndarray]) -> float:
        return float(integrate_with_error(result.densities[0], g)[0])

    finite = [record for record in result.records if record.entropy is not None and np.isfinite(record.entropy)]
    bounds = evolution_bounds(
        result.process,
        result.domain,
        boundary=result.boundary_condition,  # type: ignore[arg-type]
        initial_functional=expectation,
        names=names,
        center=center,
        radius=radius,
        delta=delta,
        gap=gap,
        entropy0=finite[0].entropy if finite else None,
        entropy_time=finite[0].t if finite else 0.0,
        gaussian_start=_gaussian(result.initial),
        schedule=result.schedule,
        horizon=float(result.times[-1]),
        # searches that end by the clock find different constants on different ranks
        on_root=partial(on_root, result.comm),
    )
    return bounds, compare_bounds(result, bounds)


def _gaussian(initial: object) -> tuple[np.ndarray, np.ndarray] | None:
    """Return mean and covariance of a Gaussian start, also of a point."""
    if isinstance(initial, GaussianStart):
        return np.array(initial.mean), np.array(initial.covariance)
    if isinstance(initial, PointStart):
        return np.array(initial.point), np.zeros((len(initial.point),) * 2)
    return None
