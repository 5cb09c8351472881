"""What the questions beside the mean exit time share: the setting, a least-squares solver, and ranges in Arb."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flint import arb

from fpsolve.errors import InputError
from fpsolve.model.domains import Ball as BallDomain
from fpsolve.model.domains import Box, Interval
from fpsolve.model.process import Process
from fpsolve.theory.balls import Ball, above, below
from fpsolve.theory.certified.angular import Angular, Range, least, two_sided
from fpsolve.theory.certified.coefficients import coefficients_of
from fpsolve.theory.certified.generator import Coefficient, Generator
from fpsolve.theory.certified.one_sided_rows import basis, points
from fpsolve.theory.certified.polynomial import Polynomial, exact_points, tensor
from fpsolve.theory.certified.reachability import unreachable_parts
from fpsolve.theory.certified.setting import Piece, Setting
from fpsolve.theory.certified.surrogate import Surrogate, surrogates
from fpsolve.theory.certified.task import Task, corners

BITS = 192
#: Degrees of the polynomials, by dimension: in each variable on boxes, in total on balls.
DEGREES = {1: (24, 48, 96, 160), 2: (16, 22), 3: (6, 9)}
#: Points per degree and axis, and the weight of the boundary's equations.
DENSITY, BOUNDARY_WEIGHT = 2.0, 0.03
#: Points per degree and axis of the finer grid.
FINE = {1: 12, 2: 4, 3: 2}


@dataclass(frozen=True, eq=False)
class Problem:
    """A process, Ω and S with what the proofs need.

    Attributes
    ----------
    task : Task
        Starts and parts; the parts proved unreachable carry no condition.
    setting : Setting
        Rigorous coefficients.
    """

    task: Task
    setting: Setting

    @classmethod
    def of(cls, process: Process, domain: Any, starts: np.ndarray, deadline: float) -> Problem | str:
        """Return the problem, or the reason why nothing can be proved."""
        if not isinstance(domain, (Interval, Box, BallDomain)):
            return f"not available on a {type(domain).__name__}: interval, box and ball are covered"
        if domain.reflecting:
            return "not available with reflecting parts"
        try:
            parts = unreachable_parts(process, domain, 0.1 * (deadline - time.monotonic()))
            lower, upper = corners(domain)
            seconds = 0.3 * (deadline - time.monotonic())
            found = surrogates(coefficients_of(process), lower, upper, relative=1e-20, budget_seconds=seconds)
        except ValueError as error:
            return str(error)

        def coefficient(s: Surrogate) -> Coefficient:
            return Coefficient(Polynomial(lower, upper, tensor(s.coefficients, tuple(s.shape))), s.error)

        generator = Generator([coefficient(s) for s in found.drift], [coefficient(s) for s in found.diffusion])
        task = Task(process, domain, tuple(part.name for part in parts if part.proved), starts)
        if not task.absorbing:
            return "the process cannot leave the domain: every boundary part is proved unreachable"
        return cls(task, Setting(domain, task.absorbing, generator))

    def minus_generator(self, w: Polynomial, rate: float = 0.0) -> tuple[Polynomial, Ball]:
        """Return p and e with ``|(-A - rate) w - p| <= e`` on Ω."""
        image, error = self.setting.generator(w)
        own = w.moved(image.lower, image.upper) if (image.lower, image.upper) != (w.lower, w.upper) else w
        return combination([arb(-1), -arb(rate)], [image, own]), error

    def range(self, p: Polynomial) -> Range:
        """Return bounds of p on Ω, by Ehlich and Zeller: good where p is small or nearly constant."""
        found = [two_sided(piece) for piece in self.setting.interior(p, "upper")]
        return Range(min(r.lower for r in found), max(r.upper for r in found))

    def least(self, p: Polynomial, tolerance: float, deadline: float, enough: float = math.inf) -> float:
        """Return a lower bound of p on Ω that is within a tolerance, if there is time."""
        pieces = self.setting.interior(p, "upper")
        return min(least(piece, tolerance, enough, -math.inf, deadline)[0] for piece in pieces)

    def edge(self, p: Polynomial, names: Sequence[str] | None = None) -> Range:
        """Return bounds of p on S, or on the named parts of it."""
        setting = self.setting if names is None else replace(self.setting, absorbing=tuple(names))
        found = [_piece_range(piece) for piece in setting.boundary(p, "upper")]
        return Range(min((r.lower for r in found), default=math.inf), max((r.upper for r in found), default=-math.inf))


def _piece_range(piece: Piece) -> Range:
    return two_sided(piece) if isinstance(piece, Angular) else Range(below(piece), above(piece))


def size(found: Range) -> float:
    """Return a bound of |F|."""
    value = max(-found.lower, found.upper)
    return value if math.isfinite(value) else math.inf


def at_point(p: Polynomial, x: Sequence[float]) -> Ball:
    """Return p at a point."""
    return p.at(exact_points(np.array([x], dtype=float)))[0]


def combination(factors: Sequence[Ball], polynomials: Sequence[Polynomial]) -> Polynomial:
    """Return ``Σ factor p`` for polynomials on one box."""
    shape = tuple(max(n) for n in zip(*(p.shape for p in polynomials), strict=True))
    total = np.full(shape, arb(0), dtype=object)
    for factor, p in zip(factors, polynomials, strict=True):
        at = tuple(slice(0, n) for n in p.shape)
        total[at] = total[at] + p.coefficients * factor
    return Polynomial(polynomials[0].lower, polynomials[0].upper, total)


def checked_starts(domain: Any, starts: Sequence[Sequence[float]] | np.ndarray | None) -> np.ndarray:
    """Return the starts as an array (k, d); the centre by default. Raises InputError for points outside of Ω."""
    lower, upper = domain.bounding_box()
    x = 0.5 * (lower + upper)[None, :] if starts is None else np.atleast_2d(np.asarray(starts, dtype=float))
    if x.ndim != 2 or x.shape[1] != domain.dimension or not len(x):
        raise InputError("exit.starts", starts, f"points with {domain.dimension} coordinates")
    inside = domain.contains(x)
    if not np.all(inside):
        raise InputError("exit.starts", x[~inside][0].tolist(), "a point of the domain")
    return x


class Solver:
    """``(-A - rate) w = right`` in Ω, ``w = edge`` on S, by least squares in Chebyshev products; nothing proved.

    Attributes
    ----------
    inside, absorbing : ndarray
        The points, shapes (p, d) and (q, d).
    """

    def __init__(self, task: Task, degree: int, symmetric: bool = True) -> None:
        if not symmetric:  # starts that no reflection keeps
            low, high = (np.asarray(v) for v in task.domain.bounding_box())
            spread = 0.137 + 0.211 * np.arange(1, len(low) + 1) / len(low)
            task = replace(task, starts=(low + spread * (high - low))[None, :])
        self.task, self._fine = task, None  # type: tuple[Task, np.ndarray | None]
        self.space = basis(task, degree, tensor=isinstance(task.domain, (Interval, Box)))
        at = points(task, int(DENSITY * degree) + 6)
        self.inside, self.absorbing = at.inside, at.absorbing
        self.apply = self.space.minus_generator(task.process, at.inside)
        self.values = self.space.values(at.inside)
        extent = float(np.max(self.space.upper - self.space.lower)) / 2
        speed = float(np.max(np.abs(self.apply[:, 1:6]), initial=0.0)) + 1e-300
        diffusion = float(np.abs(task.process.diffusion(at.inside)).max())
        self.weight = BOUNDARY_WEIGHT * degree**2 * max(diffusion / extent**2, 1e-3 * speed)
        self.boundary = self.weight * self.space.values(at.absorbing)

    def fine(self) -> np.ndarray:
        """Return the values of the basis on a finer grid of Ω."""
        if self._fine is None:
            count = FINE[self.inside.shape[1]] * self.space.degree + 11
            self._fine = self.space.values(points(self.task, int(count)).inside)
        return self._fine

    def solve(self, rate: float, right: np.ndarray | float, edge: np.ndarray | float) -> np.ndarray:
        """Return the coefficients, in the order of the basis."""
        rows = np.concatenate([self.apply - rate * self.values, self.boundary])
        target = np.concatenate(
            [np.broadcast_to(right, len(self.inside)), self.weight * np.broadcast_to(edge, len(self.absorbing))]
        )
        scale = np.linalg.norm(rows, axis=0) + 1e-300
        return np.asarray(np.linalg.lstsq(rows / scale, target, rcond=1e-15)[0] / scale)

    def principal(self, iterations: int = 60) -> tuple[float, np.ndarray]:
        """Return about the principal Dirichlet eigenvalue of -A, and its function's values, by inverse iteration."""
        rows = np.concatenate([self.apply, self.boundary])
        scale = np.linalg.norm(rows, axis=0) + 1e-300
        inverse = np.linalg.pinv(rows / scale, rcond=1e-15)[:, : len(self.inside)] / scale[:, None]
        step = self.values @ inverse
        v, value = np.ones(len(self.inside)), 0.0
        for _ in range(iterations):
            new = step @ v
            largest = float(new[np.argmax(np.abs(new))])
            before, value, v = value, largest, new / largest
            if abs(value - before) <= 1e-12 * abs(value):
                break
        return 1 / value, v

    def polynomial(self, c: np.ndarray) -> Polynomial:
        """Return the polynomial with these float coefficients, on the box of the basis."""
        low, high = ([float(v) for v in corner] for corner in (self.space.lower, self.space.upper))
        return Polynomial.of_floats(low, high, [self.tensor(c)])

    def tensor(self, c: np.ndarray) -> np.ndarray:
        """Return the coefficients as an array of shape (degree+1,)*d."""
        return self.space.tensor(c)
