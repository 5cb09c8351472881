"""What is proved so far during a search for an enclosure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from flint import arb, ctx

from fpsolve.errors import InputError
from fpsolve.model.process import Process
from fpsolve.theory.balls import Ball, above, below
from fpsolve.theory.bounds import paper_bounds, sharp_bounds
from fpsolve.theory.certified.arcs import StarBracket
from fpsolve.theory.certified.barrier import BITS, Barrier


@dataclass(frozen=True)
class StartEnclosure:
    """What is proved at one point: ``lower <= E_x τ <= upper``, in the process' unit of time.

    Attributes
    ----------
    x : tuple of float
    lower, upper : float
        0 and inf where nothing is proved.
    width : float
        ``(upper - lower)`` divided by the mean of both, from more digits than the two floats have; 2 at worst.
    lower_from, upper_from : str
        Which bound each comes from: "certified", "paper" or "sharp"; "" for none.
    """

    x: tuple[float, ...]
    lower: float
    upper: float
    width: float
    lower_from: str = ""
    upper_from: str = ""


@dataclass(frozen=True)
class Attempt:
    """One candidate: how it was found and the largest relative width over the starts after it."""

    method: str
    degree: int
    width: float
    seconds: float


@dataclass
class Best:
    """The best lower and upper bound at one start as exact balls, and where they come from."""

    x: tuple[float, ...]
    lower: Ball = field(default_factory=lambda: arb(0))
    upper: Ball = field(default_factory=lambda: arb(math.inf))
    lower_from: str = ""
    upper_from: str = ""

    def improve(self, kind: Literal["lower", "upper"], value: Ball, source: str) -> bool:
        """Take over a bound if it is better."""
        if kind == "upper" and value < self.upper:
            self.upper, self.upper_from = value, source
        elif kind == "lower" and value > self.lower:
            self.lower, self.lower_from = value, source
        else:
            return False
        return True

    @property
    def width(self) -> float:
        """The relative width, rounded up."""
        if not self.upper.is_finite():
            return 2.0
        with ctx.workprec(BITS):
            return above(2 * (self.upper - self.lower) / (self.upper + self.lower))

    def enclosure(self) -> StartEnclosure:
        """Return both bounds as floats, rounded to the safe side."""
        upper = above(self.upper) if self.upper.is_finite() else math.inf
        return StartEnclosure(self.x, below(self.lower) + 0.0, upper, self.width, self.lower_from, self.upper_from)


class State:
    """The best bounds at the starts, the functions they come from, and what was tried; grows during the search."""

    def __init__(self, starts: Sequence[tuple[float, ...]]) -> None:
        self.starts = [Best(x) for x in starts]
        self.barriers: list[Barrier] = []
        self.attempts: list[Attempt] = []
        self.star: StarBracket | None = None

    @property
    def width(self) -> float:
        """The largest relative width over the starts."""
        return max(start.width for start in self.starts)

    def add(self, barrier: Barrier) -> None:
        """Take over a proved function if it is better at a start."""
        better = [start.improve(barrier.kind, barrier.at(start.x), "certified") for start in self.starts]
        if any(better):
            self.barriers.append(barrier)

    def useful(self) -> list[Barrier]:
        """Return the barriers that are the best of their kind at some start, lower ones first."""
        chosen: list[Barrier] = []
        for kind in ("lower", "upper"):
            own = [b for b in self.barriers if b.kind == kind]
            for start in self.starts if own else ():
                values = [b.at(start.x) for b in own]
                with ctx.workprec(BITS):  # a minus sign rounds to the precision
                    best = max(range(len(own)), key=lambda k: values[k] if kind == "lower" else -values[k])
                if not any(own[best] is b for b in chosen):
                    chosen.append(own[best])
        return chosen

    def certified(self) -> list[tuple[tuple[float, ...], Ball, Ball]]:
        """Return what the barriers alone say at the starts: (x, lower, upper)."""
        found = []
        for start in self.starts:
            lows = [b.at(start.x) for b in self.barriers if b.kind == "lower"]
            highs = [b.at(start.x) for b in self.barriers if b.kind == "upper"]
            found.append((start.x, max(lows, default=arb(0)), min(highs, default=arb(math.inf))))
        return found

    def intersect(self, process: Process, domain: Any, seconds: float) -> None:
        """Take over the paper's and the sharp bounds where they are better."""
        points = np.array([start.x for start in self.starts])
        for name, bounds in (("sharp", sharp_bounds), ("paper", paper_bounds)):
            for bound in bounds(process, domain, min(seconds, 10.0) / 2):
                values = bound.evaluate(points) if bound.verified else ()
                for start, value in zip(self.starts, values, strict=False):
                    start.improve(bound.kind, arb(float(value)), name)

    def enclosures(self) -> tuple[StartEnclosure, ...]:
        """Return the best at each start.

        Raises
        ------
        InputError
            If a lower bound exceeds an upper one: then there is no such process, e.g. a is not nonnegative.
        """
        for start in self.starts:
            if not start.lower <= start.upper:
                found = [float(start.lower), float(start.upper)]
                raise InputError("process", found, f"a process (the bounds at {start.x} contradict each other)")
        return tuple(start.enclosure() for start in self.starts)
