"""Points where drift and noise both vanish: paths that start there never move, and such points can hold others.

An overparametrised model fits its data exactly along a manifold; every sample's gradient is zero there, and so is Q.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import least_squares

from fpsolve.errors import NoFiniteAnswer
from fpsolve.model.domains import Domain
from fpsolve.model.process import Process

#: Drift and diffusion below this part of their size in the domain are zero.
ZERO = 1e-12
#: Points of the bounding box, in each direction, at which that size is looked up.
SAMPLES = 9
REMEDY = "Add noise there (process.extra_noise), or ask `fpsolve evolve` or `simulate` where the paths end."


def require_motion(process: Process, domain: Domain, starts: np.ndarray) -> None:
    """Raise NoFiniteAnswer if a start (n, d) is a point where the process never moves. Not collective."""
    still = _still(process, domain, starts)
    if still.any():
        point = starts[np.flatnonzero(still)[0]].tolist()
        raise NoFiniteAnswer(f"at the start {point} drift and noise vanish: the process stays there forever. {REMEDY}")


def require_no_trap(process: Process, domain: Domain, starts: np.ndarray) -> None:
    """Raise NoFiniteAnswer if the drift leads from a start to a point inside where nothing moves. Not collective.

    For answers that are no numbers: a trap alone does not prove that paths end in it.
    """
    for start in starts:
        end = least_squares(lambda x: process.drift(x[None])[0], start, xtol=1e-15, ftol=1e-15, gtol=1e-15).x[None]
        if domain.contains(end)[0] and _still(process, domain, end)[0]:
            raise NoFiniteAnswer(
                f"no mean exit time is found from {start.tolist()}: drift and noise vanish at {end[0].tolist()}, and "
                f"paths that come near such points need not leave. {REMEDY}"
            )


def _still(process: Process, domain: Domain, x: np.ndarray) -> np.ndarray:
    lower, upper = domain.bounding_box()
    axes = [np.linspace(a, b, SAMPLES) for a, b in zip(lower, upper, strict=True)]
    around = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, len(axes))
    everywhere = np.concatenate([x, around])
    with np.errstate(all="ignore"):  # formulas need not be defined in the corners of a disc's box
        speeds = np.linalg.norm(process.drift(everywhere), axis=1)
        noises = np.trace(process.diffusion(everywhere), axis1=1, axis2=2)
    n, finite = len(x), np.isfinite(speeds) & np.isfinite(noises)
    speed, noise = (float(size[n:][finite[n:]].max(initial=0.0)) for size in (speeds, noises))
    return finite[:n] & (speeds[:n] <= ZERO * speed) & (noises[:n] <= ZERO * noise)
