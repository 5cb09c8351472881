"""Enclosures of the mean exit time that are theorems: a search in floating point, then a proof in Arb balls.

Effort increases until the asked width is reached or the budget is spent: in 1D polynomials solved for in Arb; in 2D and
3D least squares of increasing degree; where they stall (corners, characteristic points, rough solutions) one-sided
linear programmes. Everything that was proved on the way counts: the bounds at each start are the best of all.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from flint import ctx

from fpsolve.errors import InputError
from fpsolve.model.domains import Ball, Box, Domain, Interval, Sublevel
from fpsolve.model.process import Process
from fpsolve.theory.certified.approximation import Approximation
from fpsolve.theory.certified.barrier import Barrier
from fpsolve.theory.certified.certificate import certificate
from fpsolve.theory.certified.coefficients import coefficients_of, negative_noise
from fpsolve.theory.certified.effort import candidates
from fpsolve.theory.certified.polynomial import Polynomial
from fpsolve.theory.certified.proof import Effort, prove
from fpsolve.theory.certified.reachability import PartProof, unreachable_parts
from fpsolve.theory.certified.setting import Setting, Side
from fpsolve.theory.certified.star import star_bracket
from fpsolve.theory.certified.state import Attempt, StartEnclosure, State
from fpsolve.theory.certified.task import Task, corners
from fpsolve.theory.theorem import THEOREMS, Bound

log = logging.getLogger(__name__)
BITS = 256  # polynomials in two and three variables are written in powers on the way, which costs digits
BITS_1D = 512


@dataclass(frozen=True)
class Profile:
    """The best of several barriers of one kind, as a function of points; see `Barrier`."""

    barriers: tuple[Barrier, ...]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the bound at points of Ω (n, d), shape (n,), rounded to the safe side."""
        values = np.array([barrier(x) for barrier in self.barriers])
        return values.min(axis=0) if self.barriers[0].kind == "upper" else values.max(axis=0)


@dataclass(frozen=True)
class CertifiedEnclosure:
    """The result of `certify`; picklable.

    Attributes
    ----------
    lower, upper : Bound
        The certified bounds as functions; `verified` is False where there is none.
    starts : tuple of StartEnclosure
        The best at each start, the paper's and the sharp bounds included.
    width : float
        The largest relative width over the starts.
    reached : bool
        Whether it is at most what was asked for.
    limited_by : str
        What limited it, in words; "" when reached.
    unreachable : tuple of PartProof
        Which boundary parts are proved unreachable.
    attempts : tuple of Attempt
    seconds : float
    certificate : dict or None
        To be written as JSON; None where nothing is certified.
    """

    lower: Bound
    upper: Bound
    starts: tuple[StartEnclosure, ...]
    width: float
    reached: bool
    limited_by: str
    unreachable: tuple[PartProof, ...]
    attempts: tuple[Attempt, ...]
    seconds: float
    certificate: dict[str, Any] | None

    @property
    def sources(self) -> tuple[tuple[str, str], ...]:
        """Which bound gave the lower and the upper number at each start."""
        return tuple((start.lower_from, start.upper_from) for start in self.starts)


def certify(
    process: Process,
    domain: Domain,
    width: float = 1e-2,
    budget: float = 60.0,
    starts: Sequence[Sequence[float]] | np.ndarray | None = None,
) -> CertifiedEnclosure:
    """Enclose the mean exit time at points, with a proof (theorem in `fpsolve.theory.certified.barrier`).

    Not collective; deterministic except for the time budget, so under MPI compute it on one rank and broadcast.

    Parameters
    ----------
    process : Process
        With formulas or data; callables have no proofs.
    domain : Interval, Box, Ball or Sublevel
        For others only the paper's and the sharp bounds are returned, as far as they apply.
    width : float
        The asked relative width at the starts.
    budget : float
        Seconds. The best enclosure so far is returned when they are spent.
    starts : points (k, d), optional
        In the closure of the domain, by default its centre. On a part that is proved unreachable τ is the time until
        the process leaves through another part.

    Raises
    ------
    InputError
        For a width or budget that is not positive, starts outside of the domain, or a diffusion a that is negative
        somewhere: the theorem is about processes, so that ``a >= 0`` in Ω is its hypothesis (not proved here).
    """
    began = time.monotonic()
    if domain.dimension != process.dimension:
        names = ", ".join(process.variables)
        raise InputError("domain", domain.dimension, f"{process.dimension} dimensions, those of {names}")
    points = _starts(domain, starts)
    for key, value in (("width", width), ("budget", budget)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise InputError(f"bounds.{key}", value, "a positive number")
    state = State([tuple(map(float, x)) for x in points])
    reason = ""
    parts: tuple[PartProof, ...] = ()
    if not isinstance(domain, (Interval, Box, Ball, Sublevel)):
        reason = f"not available on a {type(domain).__name__}: interval, box, ball and sublevel sets are covered"
    else:
        with ctx.workprec(BITS_1D if domain.dimension == 1 else BITS):
            reason, parts = _search(process, domain, points, width, began + budget, state)
    if state.width > width:
        state.intersect(process, domain, max(began + budget - time.monotonic(), 0.1 * budget))
    return _enclosure(process, domain, state, width, reason, parts, time.monotonic() - began)


def _starts(domain: Any, starts: Sequence[Sequence[float]] | np.ndarray | None) -> np.ndarray:
    """Return the starts as an array (k, d)."""
    if starts is None:
        if isinstance(domain, Ball):
            return np.array([domain.center])
        if isinstance(domain, Sublevel):
            return np.array([domain.containing])
        lower, upper = domain.bounding_box()
        return 0.5 * (lower + upper)[None, :]
    points = np.atleast_2d(np.asarray(starts, dtype=float))
    if points.ndim != 2 or points.shape[1] != domain.dimension or not len(points):
        raise InputError("exit.starts", starts, f"points with {domain.dimension} coordinates")
    inside = domain.contains(points)
    if isinstance(domain, Ball):  # exactly, which floating point does not tell
        inside &= [bool(near) and _in_ball(domain, x) for near, x in zip(inside, points.tolist(), strict=True)]
    if not np.all(inside):
        raise InputError("exit.starts", points[~inside][0].tolist(), "a point of the domain")
    return points


def _in_ball(domain: Ball, x: Sequence[float]) -> bool:
    squares = ((Fraction(a) - Fraction(c)) ** 2 for a, c in zip(x, domain.center, strict=True))
    return sum(squares) <= Fraction(domain.radius) ** 2


def _inner_points(domain: Domain) -> np.ndarray:
    """Return points of a grid, none on the boundary of a box, that lie in the domain, shape (n, d)."""
    lower, upper = domain.bounding_box()
    shares = np.arange(1, 8)[:, None] / 8
    points = np.stack(np.meshgrid(*(lower + shares * (upper - lower)).T), axis=-1).reshape(-1, len(lower))
    return np.asarray(points[domain.contains(points)])


def _search(
    process: Process, domain: Any, points: np.ndarray, width: float, deadline: float, state: State
) -> tuple[str, tuple[PartProof, ...]]:
    """Prove what can be proved; return why it is not more, and the proofs about the boundary."""
    try:
        coefficients = coefficients_of(process)
        parts = tuple(unreachable_parts(process, domain, 0.1 * (deadline - time.monotonic())))
        lower, upper = corners(domain)
        seconds = 0.3 * (deadline - time.monotonic())
        approximation = Approximation(coefficients, lower, upper, width, seconds)
    except ValueError as error:
        return str(error), ()
    wrong = negative_noise(coefficients, _inner_points(domain))
    if wrong is not None:
        raise InputError("process.diffusion", wrong, "a diffusion that is not negative (covariance >= 0) at this point")
    free = tuple(part.name for part in parts if part.proved)
    task = Task(process, domain, free, points)
    if not task.absorbing:
        return "the process cannot leave the domain: every boundary part is reflecting or proved unreachable", parts
    star = None
    if isinstance(domain, Sublevel):
        bracket = star_bracket(domain)
        if isinstance(bracket, str):
            return bracket, parts
        star = state.star = bracket
    setting = Setting(domain, task.absorbing, approximation.generator, star)
    if not setting.inside(lower, upper):
        return "the box of the polynomials does not hold the domain", parts
    return _improve(task, setting, approximation, width, deadline, state), parts


def _improve(
    task: Task, setting: Setting, approximation: Approximation, width: float, deadline: float, state: State
) -> str:
    """Prove candidate after candidate; return what limited the width."""
    last = time.monotonic()
    failed = ""
    for method, degree, candidate in candidates(task, deadline):
        proved: dict[Side, Barrier] = {}
        if candidate is not None:
            w = Polynomial.of_floats(candidate.lower, candidate.upper, candidate.coefficients)
            if approximation.sharpen(w, deadline):
                setting = replace(setting, generator=approximation.generator)
            effort = Effort(max(width, 0.01 * state.width), max(deadline, time.monotonic() + 1.0))
            proved = prove(setting, candidate, effort)
        for barrier in proved.values():
            state.add(barrier)
        now = time.monotonic()
        if candidate is not None:
            state.attempts.append(Attempt(method, degree, state.width, now - last))
            log.info("bounds: %s of degree %d: width %.2e (%.1f s)", method, degree, state.width, now - last)
        last = now
        if candidate is not None and not proved:
            failed = f"{method} of degree {degree}: -A w is not positive on all of the domain"
        if state.width <= width:
            return ""
        if now >= deadline:
            return "the budget of time was spent before the width was reached"
    return failed or "the degrees that are tried: the solution is too rough or too steep for polynomials"


def _enclosure(
    process: Process,
    domain: Any,
    state: State,
    width: float,
    reason: str,
    parts: tuple[PartProof, ...],
    seconds: float,
) -> CertifiedEnclosure:
    useful = state.useful()
    lower, upper = _bound("lower", useful, reason), _bound("upper", useful, reason)
    content = None
    if useful:
        proved = tuple(part.name for part in parts if part.proved)
        with ctx.workprec(BITS_1D):
            content = certificate(process, domain, proved, useful, state.certified(), state.star)
    reached = state.width <= width
    return CertifiedEnclosure(
        lower,
        upper,
        state.enclosures(),
        state.width,
        reached,
        "" if reached else reason,
        parts,
        tuple(state.attempts),
        seconds,
        content,
    )


def _bound(kind: Literal["lower", "upper"], barriers: Sequence[Barrier], reason: str) -> Bound:
    own = tuple(b for b in barriers if b.kind == kind)
    theorem = THEOREMS["certified", kind]
    if not own:
        return Bound("certified", kind, theorem, False, reason or f"no {kind} function was proved")
    last = own[-1]
    numbers = {"factor": sum(last.factor), "offset": last.offset, "degree": max(last.coefficients[0].shape) - 1}
    return Bound("certified", kind, theorem, True, "", {}, numbers, Profile(own))
