"""The part of phase space in which a kinetic process lives until its position leaves an interval.

The process leaves {lower < w < upper} × velocities at w = lower where v < 0 and at w = upper where v > 0; the rest of
these sides cannot be reached from inside, and nothing is imposed there (Fichera, mathematics.md section 1). The
velocities have to end somewhere: at ±V, far out, where the process is reflected.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fpsolve.errors import InputError
from fpsolve.model.domains import Box, Interval
from fpsolve.model.momentum import as_kinetic
from fpsolve.model.process import Process

#: Points of the interval in which L and D are looked at, to choose V.
SAMPLES = 1001
#: V lies this many standard deviations sqrt(D/g) of the velocity beyond the energy at the barrier.
DEVIATIONS = 6.0
#: Or, with little friction, this many (D l)^(1/3) beyond: what the noise adds to v while the interval is crossed.
CROSSINGS = 4.0


def kinetic_domain(
    process: Process,
    lower: float,
    upper: float,
    speed: float = 0.0,
    widths: float = 1.0,
    reflecting: Sequence[str] = (),
) -> Box:
    """Return the box {lower < w < upper} × {|v| < V} with reflecting velocity sides; V as far as anything happens.

    With the largest energy at which paths inside live, ``E = max L - min L + speed²/2``, and the largest D inside,
    V is the smaller of ``sqrt(2E + 36 D/g)`` (thermal: e^{-18} of the weight at the barrier is beyond) and
    ``sqrt(2E) + 4 (D l)^{1/3}``, l the interval's length (little friction: paths leave before they are that fast).
    V only places an artificial boundary: `fpsolve.problems.kinetic_exit.truncation_effect` measures what it changes.

    Parameters
    ----------
    process : Process
        Momentum SGD, or drift and diffusion of the form that `as_kinetic` recognises.
    lower, upper : float
        Ends of the interval of positions.
    speed : float
        The largest |v| of the starts.
    widths : float
        V is multiplied by it.
    reflecting : names
        ``left`` or ``right``: where the process does not leave. Mass that comes there stays until the noise turns v.

    Raises
    ------
    InputError
        If the process has no positions and velocities, or the ends are no interval.
    """
    kinetic = as_kinetic(process)
    if kinetic is None or kinetic.potential is None or kinetic.dimension != 2:
        remedy = "Give momentum, or drift [v, F(w) - g v] and diffusion of v alone; else a box in (w, v)."
        raise InputError("domain.shape", "interval", "a process of one position and its velocity", remedy)
    for key, value, least in (("domain.speed", speed, 0.0), ("domain.widths", widths, 1e-3)):
        if not (isinstance(value, (int, float)) and least <= value < math.inf):
            raise InputError(key, value, f"a finite number of at least {least:g}")
    sides = Interval(lower, upper, tuple(reflecting))  # checks the ends and the names
    w = np.linspace(sides.lower, sides.upper, SAMPLES)
    loss = kinetic.potential.loss(w[:, None])
    noise = float(kinetic.diffusion(np.column_stack([w, 0 * w]))[:, 1, 1].max())
    reach = math.sqrt(2 * float(loss.max() - loss.min()) + speed**2)
    if not (math.isfinite(reach) and math.isfinite(noise)):
        raise InputError("domain", [lower, upper], "an interval on which loss and covariance are finite")
    ballistic = reach + CROSSINGS * (noise * (sides.upper - sides.lower)) ** (1 / 3)
    thermal = math.hypot(reach, DEVIATIONS * math.sqrt(noise / kinetic.friction)) if kinetic.friction > 0 else math.inf
    far = widths * min(thermal, ballistic)
    if not far > 0:
        raise InputError("process.covariance", noise, "noise inside the interval, or a loss that is not constant")
    return Box((sides.lower, -far), (sides.upper, far), (*sides.reflecting, "bottom", "top"))
