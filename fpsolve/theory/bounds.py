"""The paper's bounds of the mean exit time as objects, and sharper ones, with rigorously checked hypotheses.

The process is ``dX = -∇L dt + sqrt(2a) dW`` with ``a = ε²Q_eff``, ``Q_eff = scale·Q + (extra/ε²) I``; τ is the exit
time from the open set Ω and u(x) = E_x τ. No ellipticity is used anywhere, only Itô's formula.

The theorems and their proofs are in `fpsolve.theory.lower` (sub-solutions on balls; valid for any boundary conditions),
`fpsolve.theory.upper` (super-solutions that depend on one coordinate; not for reflecting parts) and
`fpsolve.theory.certified` (polynomials found by a search, whose inequalities are proved).

Ω is the domain as given, not its mesh. The hypotheses are checked on supersets of Ω (upper) and of B (lower).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from fpsolve.model.domains import Ball, Box, Interval, Sublevel
from fpsolve.model.process import Process
from fpsolve.theory.constants import Constant, Field
from fpsolve.theory.cover import cover_of
from fpsolve.theory.lower import lower_bound
from fpsolve.theory.profiles import PrintedUpper, StripUpper
from fpsolve.theory.search import Budget
from fpsolve.theory.slopes import plane_sup, sharp_slope
from fpsolve.theory.theorem import THEOREMS, Bound, missing
from fpsolve.theory.upper import upper_bound

__all__ = ["Bound", "Constant", "all_bounds", "certified_bounds", "paper_bounds", "printed_upper", "sharp_bounds"]

BOUND_SECONDS = 10.0
#: Seconds and relative width of certified bounds.
CERTIFIED_SECONDS, CERTIFIED_WIDTH = 60.0, 1e-2


def paper_bounds(process: Process, domain: Any, budget: float = BOUND_SECONDS) -> tuple[Bound, Bound]:
    """Return the paper's lower and upper bound (Theorems 3.1 and 3.3) of the mean exit time.

    Deterministic except for the time budget, so under MPI compute it on one rank and broadcast; not collective.

    Parameters
    ----------
    process : Process
        With a landscape; otherwise neither bound is verified.
    domain : Interval, Box, Ball, Sublevel or MeshFile
    budget : float
        Seconds for both bounds together; a search that runs out of time returns a valid, wider constant.
    """
    return _pair("paper", process, domain, budget)


def sharp_bounds(process: Process, domain: Any, budget: float = BOUND_SECONDS) -> tuple[Bound, Bound]:
    """Return the lower and upper bound by comparison with Ornstein-Uhlenbeck processes; see `paper_bounds`."""
    return _pair("sharp", process, domain, budget)


def _pair(name: Literal["paper", "sharp"], process: Process, domain: Any, seconds: float) -> tuple[Bound, Bound]:
    total = Budget.seconds(seconds)
    return lower_bound(name, process, domain, total.share(2)), upper_bound(name, process, domain, total)


def certified_bounds(
    process: Process,
    domain: Any,
    width: float = CERTIFIED_WIDTH,
    budget: float = CERTIFIED_SECONDS,
    starts: Any = None,
) -> tuple[Bound, Bound]:
    """Return the bounds of `fpsolve.theory.certified.certify.certify`, which also gives their certificate.

    Deterministic except for the time budget, so under MPI compute it on one rank and broadcast; not collective.

    Parameters
    ----------
    process : Process
    domain : Interval, Box, Ball or Sublevel
        For others neither bound is verified.
    width : float
        The relative width (upper - lower)/mean that ends the search.
    budget : float
        Seconds after which the search ends.
    starts : array_like, shape (k, d), optional
        Where the bounds should be tight; the domain's centre by default.
    """
    from fpsolve.theory.certified.certify import certify  # which uses the bounds above

    if not isinstance(domain, (Interval, Box, Ball, Sublevel)):
        reason = "certified bounds are for intervals, boxes, balls and sublevel sets"
        return missing("certified", "lower", reason), missing("certified", "upper", reason)
    found = certify(process, domain, width=width, budget=budget, starts=starts)
    return found.lower, found.upper


def printed_upper(
    process: Process, domain: Any, ball_radius: float | None = None, budget: float = BOUND_SECONDS
) -> Bound:
    """Return equation (8) of the paper as printed, with r² in place of (v·x)²; it is not an upper bound.

    The pointwise form decreases in |v·x|, so replacing |v·x| <= r by r makes it smaller, below u near the centre:
    for L = x²/2, Q = 1, ε² = 1 on (-1, 1) it gives 0.2988 at 0 for r = 0.9, while u(0) = 0.5957.

    Parameters
    ----------
    ball_radius : float, optional
        r; 0.9 R_v by default.

    Notes
    -----
    Λ is taken from ``(v·∇L)(v·x) <= Λ(v·x)²`` where this holds, as in the paper's Example 1, otherwise from (7).
    """
    pointwise = upper_bound("paper", process, domain, Budget.seconds(budget / 2))
    if not pointwise.verified or not isinstance(pointwise.profile, StripUpper):
        return missing("printed", "upper", pointwise.reason)
    base, rate = pointwise.profile, pointwise.hypotheses["Lambda"]
    rigorous, cover = Field.of(process), cover_of(domain)
    v, center = np.array(base.direction), np.array(base.center)
    rest = Budget.seconds(budget / 2)
    if plane_sup(rigorous, v, center, cover, rest.share(3)).value == 0:
        plain = sharp_slope(rigorous, v, center, 0.0, base.diffusion, base.radius, cover, rest)
        rate = plain if plain.verified else rate
    r = 0.9 * base.radius if ball_radius is None else ball_radius
    profile = PrintedUpper(base.center, r, base.radius, rate.value, base.diffusion)
    reason = "not an upper bound: (8) is printed with r² in place of (v·x)²; the paper's proof gives the pointwise form"
    parameters = pointwise.parameters | {"ball_radius": r}
    hypotheses = pointwise.hypotheses | {"Lambda": rate}
    return Bound("printed", "upper", THEOREMS["printed", "upper"], False, reason, hypotheses, parameters, profile)


def all_bounds(
    process: Process,
    domain: Any,
    kinds: Sequence[str] = ("paper", "sharp"),
    budget: float = BOUND_SECONDS,
    width: float = CERTIFIED_WIDTH,
    effort: float = CERTIFIED_SECONDS,
    starts: Any = None,
) -> list[Bound]:
    """Return the bounds of the given kinds ("paper", "sharp", "certified", "printed"), lower before upper.

    Parameters
    ----------
    budget : float
        Seconds for each kind but "certified".
    width, effort, starts
        Of "certified": see `certified_bounds`, where `effort` is `budget`.

    Raises
    ------
    ValueError
        For an unknown kind.
    """
    found: list[Bound] = []
    for kind in kinds:
        if kind == "paper":
            found.extend(paper_bounds(process, domain, budget))
        elif kind == "sharp":
            found.extend(sharp_bounds(process, domain, budget))
        elif kind == "certified":
            found.extend(certified_bounds(process, domain, width, effort, starts))
        elif kind == "printed":
            found.append(printed_upper(process, domain, budget=budget))
        else:
            raise ValueError(f"unknown kind of bound {kind!r}: paper, sharp, certified or printed")
    return found
