"""What the questions beside the mean exit time share: the setting, a least-squares solver, and ranges in Arb."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
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
from fpsolve.theory.certified.one_sided_solver import minimise
from fpsolve.theory.certified.polynomial import Polynomial, exact_points, tensor
from fpsolve.theory.certified.reachability import unreachable_parts
from fpsolve.theory.certified.setting import Piece, Setting
from fpsolve.theory.certified.surrogate import Surrogate, surrogates
from fpsolve.theory.certified.task import Task, corners

BITS = 192
#: Degrees of the polynomials, by dimension: in each variable on boxes, in total on balls.
DEGREES = {1: (24, 48, 96, 160), 2: (16, 22, 30, 40), 3: (6, 9, 12)}
#: Points per degree and axis, and the weight of the boundary's equations.
DENSITY, BOUNDARY_WEIGHT = 2.0, 1.0
#: Points per degree and axis of the finer grid.
FINE = {1: 12, 2: 4, 3: 2}
#: Linear programmes: density of the finer grid, rounds of cutting planes, violation and number of points added.
CORNER_ZONE, CORNER_POINTS = 3.0, 41
FINER, ROUNDS, VIOLATION, MOST_ADDED = 5, 8, 1e-6, 1500


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
    """Return the range on a piece of the boundary: two-sided first, by cells where that is coarse."""
    if not isinstance(piece, Angular):
        return Range(below(piece), above(piece))
    found = two_sided(piece)
    spread = found.upper - found.lower
    if not math.isfinite(spread) or piece.coefficients.ndim > 2:
        return found
    until, tolerance = time.monotonic() + 2.0, 1e-4 * spread
    low = least(piece, tolerance, math.inf, -math.inf, until)[0]
    high = -least(piece.negative(), tolerance, math.inf, -math.inf, until)[0]
    return Range(max(found.lower, low), min(found.upper, high))


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


def shifted(p: Polynomial, value: float) -> Polynomial:
    """Return p + value."""
    coefficients = p.coefficients.copy()
    coefficients.flat[0] = coefficients.flat[0] + arb(value)
    return Polynomial(p.lower, p.upper, coefficients)


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
        self.symmetric = symmetric
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

    def at(self, p: Polynomial) -> np.ndarray:
        """Return a polynomial at the points of Ω, in floating point."""
        return _floats_at(p, self.inside)

    def edge_values(self, values: Mapping[str, float]) -> np.ndarray | float:
        """Return numbers given for each part of S at the points of S."""
        if self.symmetric:
            return next(iter(values.values()))
        return np.concatenate([np.full(len(self.part(name, 1.0)), values[name]) for name in self.task.absorbing])

    def part(self, name: str, density: float) -> np.ndarray:
        """Return points of one part of S, `density` times as many along each axis as in `absorbing`."""
        others = tuple(other for other in self.task.domain.names if other != name)
        count = int(density * (int(DENSITY * self.space.degree) + 6))
        return points(replace(self.task, unreachable=others), count).absorbing

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


def _floats_at(p: Polynomial, x: np.ndarray) -> np.ndarray:
    """Return p at points (n, d), in floating point."""
    low, high = np.array(p.lower), np.array(p.upper)
    t = np.clip((2 * x - low - high) / (high - low), -1, 1)
    values: np.ndarray = p.coefficients.astype(float)
    vectors = [np.polynomial.chebyshev.chebvander(t[:, i], n - 1) for i, n in enumerate(p.shape)]
    values = np.tensordot(vectors[0], values, axes=1)
    for vector in vectors[1:]:
        values = np.einsum("nk...,nk->n...", values, vector)
    return np.asarray(values)


def _near_corners(solver: Solver) -> np.ndarray:
    """Return points near the corners of a box in the plane, where data that jump make w steep."""
    low, high = solver.space.lower, solver.space.upper
    if len(low) != 2 or not isinstance(solver.task.domain, Box):
        return np.zeros((0, len(low)))
    t = np.cos(np.linspace(0.0, CORNER_ZONE * np.pi / solver.space.degree, CORNER_POINTS))
    ends = np.concatenate([t, -t])
    grid = np.stack(np.meshgrid(ends, ends, indexing="ij"), axis=-1).reshape(-1, 2)
    return (low + high) / 2 + grid * (high - low) / 2


def one_sided_solution(
    solver: Solver, right: Polynomial, values: Mapping[str, float], kind: str, starts: np.ndarray, deadline: float
) -> np.ndarray:
    """Minimise (maximise) w at the starts with ``-A w >= right`` and ``w >= values`` on S (both ``<=``).

    A linear programme on a grid, to which points of a finer one are added where they are violated.

    Parameters
    ----------
    right : Polynomial
    values : dict
        For each part of S.
    kind : "upper" or "lower"
    """
    sign, process = 1.0 if kind == "upper" else -1.0, solver.task.process

    def rows_at(inside: np.ndarray, density: float) -> tuple[np.ndarray, np.ndarray]:
        edges = [(solver.part(name, density), value) for name, value in values.items()]
        rows = [solver.space.minus_generator(process, inside)]
        rows += [solver.weight * solver.space.values(x) for x, _ in edges]
        bound = [_floats_at(right, inside), *(np.full(len(x), solver.weight * value) for x, value in edges)]
        return np.concatenate(rows), np.concatenate(bound)

    rows, bound = rows_at(solver.inside, 1.0)
    scale = np.linalg.norm(rows, axis=0) + 1e-300
    q, triangle = np.linalg.qr(rows / scale)
    weak = np.abs(np.diag(triangle)) <= 1e-12
    triangle[weak, weak] += 1.0
    inverse = np.linalg.inv(triangle) / scale[:, None]
    cost = inverse.T @ solver.space.values(starts).mean(axis=0)
    fine = points(solver.task, FINER * solver.space.degree + 11).inside
    if len(set(values.values())) > 1:
        fine = np.concatenate([fine, _near_corners(solver)])
    more, more_bound = rows_at(fine, FINER)
    more = more @ inverse
    unit, start, added = np.sqrt(len(rows)), q.T @ bound, np.zeros(len(more), dtype=bool)
    for _ in range(ROUNDS):
        matrix, limit = np.concatenate([q, more[added]]), np.concatenate([bound, more_bound[added]])
        optimum = minimise(
            sign * unit * matrix, sign * limit, sign * unit * cost, start / unit, 1e-6,
            stop=lambda: time.monotonic() > deadline,
        )  # fmt: skip
        start = unit * optimum.z
        lacking = sign * (more_bound - more @ start)
        violated = (lacking > VIOLATION * solver.weight) & ~added
        if not violated.any() or time.monotonic() > deadline:
            break
        worst = np.flatnonzero(violated)
        added[worst[np.argsort(-lacking[worst])][:MOST_ADDED]] = True
    return np.asarray(inverse @ start)
