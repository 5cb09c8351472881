"""What a search for sub- and supersolutions is asked for, and what it returns: floating point, nothing proved."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fpsolve.model.domains import Ball, Box, Interval, Sublevel
from fpsolve.model.process import Process


def corners(domain: Interval | Box | Ball | Sublevel) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return a box around the domain, shapes (d,): exact for boxes, rounded outwards for balls.

    For sublevel sets it comes from a curve traced in floating point; that it holds the domain must be proved.
    """
    if isinstance(domain, Ball):
        low = tuple(math.nextafter(c - domain.radius, -math.inf) for c in domain.center)
        return low, tuple(math.nextafter(c + domain.radius, math.inf) for c in domain.center)
    lower, upper = domain.bounding_box()
    if isinstance(domain, Sublevel) and domain.dimension == 1:  # these ends lie on the level, up to rounding
        lower, upper = lower - 1e-3 * (upper - lower), upper + 1e-3 * (upper - lower)
    return tuple(float(a) for a in lower), tuple(float(b) for b in upper)


@dataclass(frozen=True)
class Task:
    """A boundary value problem ``-A w = 1``, ``w = 0`` where the process can leave.

    Attributes
    ----------
    process : Process
        Drift f and diffusion a as vectorised functions.
    domain : Interval, Box, Ball or Sublevel
        Ω; on its reflecting parts the process is reflected along the conormal a n.
    unreachable : tuple of str
        Boundary parts that are proved unreachable; no condition there.
    starts : ndarray, shape (k, d)
        Points where the enclosure should be tight.
    """

    process: Process
    domain: Interval | Box | Ball | Sublevel
    unreachable: tuple[str, ...]
    starts: np.ndarray

    @property
    def absorbing(self) -> tuple[str, ...]:
        """The names of the parts where w = 0 is asked for."""
        return tuple(n for n in self.domain.names if n not in self.unreachable and n not in self.domain.reflecting)


@dataclass(frozen=True)
class Candidate:
    """A polynomial in products of Chebyshev polynomials on a box that may be a sub- or supersolution.

    Attributes
    ----------
    lower, upper : tuple of float
        The box.
    coefficients : tuple of ndarray, each of shape (n_1+1, ..., n_d+1)
        Their exact sum is meant; usually one array.
    kind : "both", "lower" or "upper"
        "both": -A w is near 1 from both sides.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    coefficients: tuple[np.ndarray, ...]
    kind: Literal["both", "lower", "upper"] = "both"
