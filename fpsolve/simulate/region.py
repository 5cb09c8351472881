"""Domains as the kernels test them: boxes and balls by numbers, others by their `contains`."""

from __future__ import annotations

from typing import Any

import numpy as np

from fpsolve.errors import InputError
from fpsolve.model.domains import SIDES, Ball, Box, Domain, Interval, Sublevel
from fpsolve.simulate.kernels import BALL, BOX, EVERYWHERE

Region = tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray, bool, np.ndarray, float]


def region_of(domain: Domain | None, bridge: bool, momentum: bool, conormal: bool) -> Region | None:
    """Return what `kernels.leave` needs to know of a domain; None where the domain itself has to be asked.

    Parameters
    ----------
    domain : Domain or None
        None: the whole space.
    bridge : bool
        Whether crossings between the steps are looked for.
    momentum : bool
        Whether the process has velocities.
    conormal : bool
        Whether paths are reflected along the conormal a n (a diffusion) or along n (a chain).

    Raises
    ------
    InputError
        For a reflecting part that is not a flat side, and where velocities would have to be reflected.
    """
    none = np.zeros(0)
    flags = np.zeros(0, dtype=np.bool_)
    if domain is None:
        return EVERYWHERE, none, none, flags, flags, False, none, 0.0
    _check_reflecting(domain, momentum)
    if isinstance(domain, (Interval, Box)) or (isinstance(domain, Sublevel) and domain.dimension == 1):
        lower, upper = (np.ascontiguousarray(corner) for corner in domain.bounding_box())
        d = domain.dimension
        sides = np.array([name in domain.reflecting for name in SIDES[: 2 * d]]).reshape(d, 2)
        return BOX, lower, upper, sides[:, 0].copy(), sides[:, 1].copy(), conormal, none, 0.0
    if isinstance(domain, Ball):
        return BALL, none, none, flags, flags, False, np.array(domain.center), domain.radius
    if bridge and not isinstance(domain, Sublevel):
        remedy = "Give bridge=False; exits are then seen at the end of each step only."
        raise InputError("domain", type(domain).__name__, "an interval, box, ball or sublevel set", remedy)
    return None


def _check_reflecting(domain: Domain, momentum: bool) -> None:
    if not domain.reflecting:
        return
    if not isinstance(domain, (Interval, Box)):
        allowed = "no reflecting part in a simulation of this shape: paths are reflected at flat sides only"
        raise InputError("domain.reflecting", list(domain.reflecting), allowed)
    if momentum:
        raise InputError("domain.reflecting", list(domain.reflecting), "no reflecting part with velocities")


def state_starts(starts: Any, positions: int, width: int, domain: Domain | None, key: str = "starts") -> np.ndarray:
    """Return the starts as rows of the state, at rest where velocities are not given.

    Raises
    ------
    InputError
        If their lengths do not fit or one is not inside the domain.
    """
    rows = np.asarray(starts, dtype=float)
    rows = rows.reshape(-1, 1) if rows.ndim < 2 and positions == 1 and width == 1 else np.atleast_2d(rows)
    if rows.ndim != 2 or rows.shape[1] not in (positions, width) or not len(rows) or not np.isfinite(rows).all():
        raise InputError(key, np.asarray(starts).tolist(), f"points with {positions} finite coordinate(s) each")
    full = np.zeros((len(rows), width))
    full[:, : rows.shape[1]] = rows
    if domain is None:
        return full
    if domain.dimension not in (positions, width):
        raise InputError("domain", domain, f"a domain of {positions} dimension(s)")
    for i, inside in enumerate(domain.contains(full[:, : domain.dimension])):
        if not inside:
            raise InputError(f"{key}[{i}]", rows[i].tolist(), "a point inside the domain")
    return full
