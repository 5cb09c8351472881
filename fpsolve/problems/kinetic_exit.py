"""How much the artificial ends of the velocities change an exit time of a kinetic process."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fpsolve.errors import InputError
from fpsolve.model.domains import Box
from fpsolve.problems.exit import ExitResult, mean_exit_time

#: The velocities reach this much further in the control run.
FURTHER = 2.0


@dataclass(frozen=True)
class Truncation:
    """What a box that reaches twice as far in v answers.

    Attributes
    ----------
    wide : ExitResult
    change : ndarray, shape (starts, K)
        Absolute change of the moments, which holds the discretisation errors of both runs.
    error : ndarray, shape (starts, K)
        The sum of those errors' estimates: a smaller change is no evidence of any effect.
    """

    wide: ExitResult
    change: np.ndarray
    error: np.ndarray

    @property
    def visible(self) -> bool:
        """Whether the velocities' ends change more than the discretisation."""
        return bool((self.change > self.error).any())


def truncation_effect(result: ExitResult, tolerance: float | None = None) -> Truncation:
    """Ask again with the velocities' ends twice as far out. Collective.

    Parameters
    ----------
    result : ExitResult
        On a box in (w, v), e.g. of `fpsolve.kinetic_domain`.
    tolerance : float, optional
        Of the control run; by default the relative error of `result`.

    Raises
    ------
    InputError
        If the result's domain is no box in the plane.
    """
    domain = result.domain
    if not isinstance(domain, Box) or domain.dimension != 2:
        raise InputError("domain", type(domain).__name__, "a box in position and velocity")
    (left, bottom), (right, top) = domain.lower, domain.upper
    middle, half = (bottom + top) / 2, FURTHER * (top - bottom) / 2
    wider = Box((left, middle - half), (right, middle + half), domain.reflecting)
    if tolerance is None:
        tolerance = max(1e-12, float(np.max(result.error / np.abs(result.moments))))
    starts = [tuple(float(c) for c in start) for start in result.starts]
    wide = mean_exit_time(
        result.process, wider, comm=result.comm, starts=starts, tolerance=tolerance, scheme=result.scheme,
        degree=result.degree, moments=result.moments.shape[1],
    )  # fmt: skip
    return Truncation(wide, np.abs(wide.moments - result.moments), result.error + wide.error)
