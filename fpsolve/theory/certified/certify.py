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
from typing import Any, Literal

import numpy as np

from fpsolve.errors import InputError
from fpsolve.model.domains import Ball, Box, Domain, Interval, Sublevel
from fpsolve.model.process import Process
from fpsolve.theory.bounds import paper_bounds, sharp_bounds
from fpsolve.theory.certified.barrier import Barrier, Setting, prove
from fpsolve.theory.certified.certificate import certificate
from fpsolve.theory.certified.coefficients import coefficients_of
from fpsolve.theory.certified.effort import candidates
from fpsolve.theory.certified.generator import Coefficient, Generator
from fpsolve.theory.certified.polynomial import Polynomial, precision, tensor
from fpsolve.theory.certified.reachability import PartProof, unreachable_parts
from fpsolve.theory.certified.surrogate import Surrogate, surrogates
from fpsolve.theory.certified.task import Task, corners
from fpsolve.theory.theorem import THEOREMS, Bound

log = logging.getLogger(__name__)
BITS = 128
BITS_1D = 512


@dataclass(frozen=True)
class StartEnclosure:
    """What is proved at one point: ``lower <= E_x τ <= upper``, in the process' unit of time.

    Attributes
    ----------
    x : tuple of float
    lower, upper : float
        0 and inf where nothing is proved.
    lower_from, upper_from : str
        Which bound each comes from: "certified", "paper" or "sharp"; "" for none.
    """

    x: tuple[float, ...]
    lower: float = 0.0
    upper: float = math.inf
    lower_from: str = ""
    upper_from: str = ""

    @property
    def width(self) -> float:
        """``(upper - lower)`` divided by the mean of both; 2 at worst, for an infinite upper bound."""
        if not math.isfinite(self.upper):
            return 2.0
        return 2.0 * (self.upper - self.lower) / (self.upper + self.lower)


@dataclass(frozen=True)
class Attempt:
    """One candidate: how it was found and the largest relative width over the starts after it."""

    method: str
    degree: int
    width: float
    seconds: float


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
        By default the centre of the domain.

    Raises
    ------
    InputError
        For a width or budget that is not positive, or starts outside of the domain.
    """
    began = time.monotonic()
    points = _starts(domain, starts)
    for key, value in (("width", width), ("budget", budget)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise InputError(f"bounds.{key}", value, "a positive number")
    state = _State(tuple(StartEnclosure(tuple(map(float, x))) for x in points))
    reason = ""
    parts: tuple[PartProof, ...] = ()
    if not isinstance(domain, (Interval, Box, Ball, Sublevel)):
        reason = f"not available on a {type(domain).__name__}: interval, box, ball and sublevel sets are covered"
    else:
        with precision(BITS_1D if domain.dimension == 1 else BITS):
            reason, parts = _search(process, domain, points, width, began + budget, state)
    if state.width > width:
        state.intersect(process, domain, points, max(began + budget - time.monotonic(), 0.1 * budget))
    return _enclosure(process, domain, state, width, reason, parts, time.monotonic() - began)


class _State:
    """What is proved so far; grows during the search."""

    def __init__(self, starts: tuple[StartEnclosure, ...]) -> None:
        self.starts = starts
        self.barriers: list[Barrier] = []
        self.attempts: list[Attempt] = []

    @property
    def width(self) -> float:
        """The largest relative width over the starts."""
        return max(start.width for start in self.starts)

    def improve(self, kind: str, values: Sequence[float], source: str) -> bool:
        """Take over better bounds; tell whether there were any."""
        before = self.starts
        if kind == "upper":
            self.starts = tuple(
                replace(s, upper=v, upper_from=source) if v < s.upper else s
                for s, v in zip(self.starts, values, strict=True)
            )
        else:
            self.starts = tuple(
                replace(s, lower=v, lower_from=source) if v > s.lower else s
                for s, v in zip(self.starts, values, strict=True)
            )
        return self.starts != before

    def add(self, barrier: Barrier) -> None:
        """Take over a proved function if it is better at a start."""
        values = [barrier.at(start.x) for start in self.starts]
        if self.improve(barrier.kind, values, "certified"):
            self.barriers.append(barrier)

    def useful(self) -> list[Barrier]:
        """Return the barriers that are the best of their kind at some start."""
        best: dict[int, Barrier] = {}
        for kind in ("lower", "upper"):
            own = [b for b in self.barriers if b.kind == kind]
            for start in self.starts if own else ():
                values = [b.at(start.x) for b in own]
                k = int(np.argmin(values) if kind == "upper" else np.argmax(values))
                best[id(own[k])] = own[k]
        return list(best.values())

    def intersect(self, process: Process, domain: Any, points: np.ndarray, seconds: float) -> None:
        """Take over the paper's and the sharp bounds where they are better."""
        for name, bounds in (("sharp", sharp_bounds), ("paper", paper_bounds)):
            for bound in bounds(process, domain, min(seconds, 10.0) / 2):
                if bound.verified:
                    values = [float(v) for v in bound.evaluate(points)]
                    self.improve(bound.kind, values, name)


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
    if not np.all(inside):
        raise InputError("exit.starts", points[~inside][0].tolist(), "a point of the domain")
    return points


def _search(
    process: Process, domain: Any, points: np.ndarray, width: float, deadline: float, state: _State
) -> tuple[str, tuple[PartProof, ...]]:
    """Prove what can be proved; return why it is not more, and the proofs about the boundary."""
    try:
        coefficients = coefficients_of(process)
        parts = tuple(unreachable_parts(process, domain, 0.1 * (deadline - time.monotonic())))
        lower, upper = corners(domain)
        seconds = 0.3 * (deadline - time.monotonic())
        found = surrogates(coefficients, lower, upper, relative=1e-20, budget_seconds=seconds)
    except ValueError as error:
        return str(error), ()
    generator = Generator(
        [_coefficient(s, lower, upper) for s in found.drift], [_coefficient(s, lower, upper) for s in found.diffusion]
    )
    free = tuple(part.name for part in parts if part.proved)
    task = Task(process, domain, free, points)
    setting = Setting(domain, task.absorbing, generator)
    if not task.absorbing:
        return "the process cannot leave the domain: every boundary part is reflecting or proved unreachable", parts
    return _improve(task, setting, width, deadline, state), parts


def _coefficient(s: Surrogate, lower: tuple[float, ...], upper: tuple[float, ...]) -> Coefficient:
    return Coefficient(Polynomial(lower, upper, tensor(s.coefficients, tuple(s.shape))), s.error)


def _improve(task: Task, setting: Setting, width: float, deadline: float, state: _State) -> str:
    """Prove candidate after candidate; return what limited the width."""
    last = time.monotonic()
    failed = ""
    for method, degree, candidate in candidates(task, width, deadline, lambda: state.width):
        proved: dict[str, Barrier] = {}
        if candidate is not None:
            proved = prove(setting, candidate, width, max(deadline, time.monotonic() + 1.0))
        for barrier in proved.values():
            state.add(barrier)
        now = time.monotonic()
        state.attempts.append(Attempt(method, degree, state.width, now - last))
        log.info("bounds: %s of degree %d: width %.2e (%.1f s)", method, degree, state.width, now - last)
        last = now
        if candidate is not None and not proved:
            failed = f"{method} of degree {degree}: -A w is not positive on all of the domain"
        if state.width <= width:
            return ""
        if now >= deadline:
            return "the budget of time"
    return failed or "the degrees that are tried: the solution is too rough or too steep for polynomials"


def _enclosure(
    process: Process,
    domain: Any,
    state: _State,
    width: float,
    reason: str,
    parts: tuple[PartProof, ...],
    seconds: float,
) -> CertifiedEnclosure:
    useful = state.useful()
    lower, upper = (_bound(kind, useful, reason) for kind in ("lower", "upper"))
    content = None
    if useful:
        proved = tuple(part.name for part in parts if part.proved)
        values = []
        for start in state.starts:
            low = max((b.at(start.x) for b in useful if b.kind == "lower"), default=0.0)
            high = min((b.at(start.x) for b in useful if b.kind == "upper"), default=math.inf)
            values.append((start.x, low, high))
        with precision(BITS_1D if domain.dimension == 1 else BITS):
            content = certificate(process, domain, proved, useful, values)
    reached = state.width <= width
    return CertifiedEnclosure(
        lower,
        upper,
        state.starts,
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
    numbers = {"factor": own[-1].factor, "offset": own[-1].offset, "degree": own[-1].coefficients[0].shape[0] - 1}
    return Bound("certified", kind, theorem, True, "", {}, numbers, Profile(own))
