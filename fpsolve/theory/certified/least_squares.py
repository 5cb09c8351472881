"""Floating-point candidates for ``-A w = 1`` in Ω, ``w = 0`` where the process can leave, by least squares.

Nothing is proved here. The unknown is a polynomial: tensor degree in Chebyshev products on boxes; total degree in
polynomials orthogonal on the sample points (`fpsolve.theory.certified.orthogonal`) on balls and sublevel sets, written
in Chebyshev products of the bounding box at the end, as a sum of several float arrays where one is not accurate enough.
The equations hold at points that cluster towards the boundary; columns are scaled; axes in which the problem is even
leave out the odd polynomials.

If ``|-A w - 1| <= ϱ`` and ``|w| <= b`` on the absorbing boundary, the enclosure's relative width is about
``2ϱ + 2b/u``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.polynomial.chebyshev import chebval

from fpsolve.model.domains import Ball, Box, Interval
from fpsolve.theory.certified.disc_solve import solve_disc
from fpsolve.theory.certified.equations import Rows, solve_scaled, tensor_matrix, total_matrix
from fpsolve.theory.certified.float_sums import float_sum
from fpsolve.theory.certified.interval_solve import solve_axis
from fpsolve.theory.certified.points import Sample, even_axes, free_axes, sample
from fpsolve.theory.certified.task import Candidate, Task

LADDER = {
    1: (12, 24, 48, 96, 160),
    2: (8, 12, 18, 26, 34, 44, 56, 72, 92),
    3: (6, 8, 10, 12, 14, 16, 18, 22),
}
GAIN = 0.7  # what a higher degree must gain to be worth a proof
USELESS = 2.0  # a relative width that tells nothing
NARROW = 0.05  # an enclosure that shows convergence
PATIENCE = 2
LINE_BITS = 256
TRUSTED = 0.3  # a tau solution with this residual is resolved: least squares would give the same
ROUGH_DEGREE, ROUGH_SECONDS = 20, 0.2
BALANCED_DEGREE = 16
LEAST_PART = 0.45


@dataclass(frozen=True)
class Estimate:
    """What the certified enclosure is expected to give, from floats at the sample points.

    Attributes
    ----------
    residual : float
        sup|-A w - 1|.
    boundary : float
        sup|w| on the absorbing boundary; SGD time.
    reflection : float
        sup|(a n)·∇w| on reflecting parts.
    value : float
        The smallest w at the starts; SGD time.
    degrees : tuple of int
        Polynomial degree along each axis (boxes) or in total.
    seconds : float
        Time of the solve.
    """

    residual: float
    boundary: float
    reflection: float
    value: float
    degrees: tuple[int, ...]
    seconds: float

    @property
    def width(self) -> float:
        """The expected relative width ``2ϱ + 2b/u`` at the worst start; inf where nothing would be proved."""
        if not (math.isfinite(self.residual) and self.residual < 1 and self.value > 0):
            return math.inf
        upper = (self.value + self.boundary) / (1 - self.residual)
        lower = max(self.value - self.boundary, 0.0) / (1 + self.residual)
        return (upper - lower) / self.value


@dataclass(frozen=True)
class Fit:
    """A candidate and what is expected of it.

    Attributes
    ----------
    estimate : Estimate
    make : callable
        Returns the candidate; its Chebyshev coefficients are only worked out for those that are wanted.
    """

    estimate: Estimate
    make: Callable[[], Candidate]

    @cached_property
    def candidate(self) -> Candidate:
        """The polynomial, made on first use."""
        return self.make()

    @classmethod
    def on(cls, task: Task, estimate: Estimate, arrays: Callable[[], tuple[np.ndarray, ...]]) -> Fit:
        """Return the fit of a task whose candidate has these arrays."""
        lower, upper = (tuple(float(v) for v in end) for end in task.domain.bounding_box())
        return cls(estimate, lambda: Candidate(lower, upper, arrays()))


def least_squares(task: Task, degree: int | Sequence[int], scale: float | None = None) -> Fit:
    """Return the polynomial of the given degree with the smallest weighted residuals.

    Parameters
    ----------
    task : Task
    degree : int, or d ints for boxes
    scale : float, optional
        A guess of u, which balances the boundary against the equation; by default the time to diffuse across Ω.

    Returns
    -------
    Fit
        With an infinite width where the problem could not be solved.
    """
    d = task.domain.dimension
    if isinstance(task.domain, (Interval, Box)) or d == 1:
        given = _degrees(task, degree, scale) if isinstance(degree, int) else tuple(degree)
        if d > 1 and np.count_nonzero(given) == 1:
            return _by_axis(task, given) or _by_products(task, given, scale)
        return _by_products(task, given, scale)
    degrees = (degree,) if isinstance(degree, int) else tuple(degree)
    fit = _by_modes(task, degrees[0]) if isinstance(task.domain, Ball) and d == 2 and task.absorbing else None
    if fit is not None and (fit.estimate.residual < TRUSTED or (degrees[0] > ROUGH_DEGREE and _elliptic(task))):
        return fit
    other = _by_total_degree(task, degrees[0], scale)
    return other if fit is None or other.estimate.width <= fit.estimate.width else fit


def _by_products(task: Task, degrees: tuple[int, ...], scale: float | None) -> Fit:
    begin = time.monotonic()
    even = even_axes(task)
    rows = Rows.of(task, _sample(task, degrees, even), max(degrees), scale)
    index, matrix = tensor_matrix(rows, degrees, even)
    c = solve_scaled(matrix[: rows.equations], rows.right)
    coefficients = np.zeros(tuple(n + 1 for n in degrees))
    coefficients[index] = c
    estimate = _estimate(rows, matrix, c, degrees, begin)
    return Fit.on(task, estimate, lambda: (coefficients,))


def _by_axis(task: Task, degrees: tuple[int, ...]) -> Fit | None:
    """Return a solution in Arb that depends on one coordinate; None where there is none."""
    begin = time.monotonic()
    axis = int(np.argmax(degrees))
    try:
        found = solve_axis(task, axis, degrees[axis], LINE_BITS)
    except ValueError:  # Python functions have no values in Arb
        return None
    if found is None:
        return None
    lower, upper = task.domain.bounding_box()
    shape = [len(found.arrays[0]) if k == axis else 1 for k in range(len(degrees))]
    z = (np.asarray(task.starts, dtype=float)[:, axis] * 2 - lower[axis] - upper[axis]) / (upper[axis] - lower[axis])
    value = float(np.min(chebval(z, found.arrays[0]), initial=math.inf))
    # the ends' equations hold to the accuracy of the arrays
    estimate = Estimate(found.residual, 0.0, 0.0, value, degrees, time.monotonic() - begin)
    arrays = tuple(a.reshape(shape) for a in found.arrays)
    return Fit.on(task, estimate, lambda: arrays)


def _by_total_degree(task: Task, degree: int, scale: float | None) -> Fit:
    begin = time.monotonic()
    d, even = task.domain.dimension, even_axes(task)
    rows = Rows.of(task, _sample(task, (degree,) * d, even), degree, scale)
    recurrence, matrix = total_matrix(rows, degree, even)
    c = solve_scaled(matrix[: rows.equations], rows.right)
    estimate = _estimate(rows, matrix, c, (degree,), begin)
    bits = 160 + 2 * degree
    if not np.all(np.isfinite(c)):
        return Fit.on(task, estimate, lambda: (np.full((degree + 1,) * d, np.nan),))
    return Fit.on(task, estimate, lambda: _expanded(recurrence.chebyshev(c, bits), estimate.residual, rows.speed, bits))


def _by_modes(task: Task, degree: int) -> Fit | None:
    """Return the tau solution on a disc, where there is one; see `fpsolve.theory.certified.disc_solve`."""
    begin = time.monotonic()
    lower, upper = task.domain.bounding_box()
    even = even_axes(task)
    found = solve_disc(task, degree, even)
    if found is None:
        return None
    z = (np.asarray(task.starts, dtype=float).reshape(-1, 2) - (lower + upper) / 2) / ((upper - lower) / 2)
    value = float(np.min(found.at(z), initial=math.inf))
    estimate = Estimate(found.residual, found.boundary, 0.0, value, (degree,), time.monotonic() - begin)
    bits = 160 + 2 * degree
    rows = Rows.of(task, _sample(task, (4, 4), even), 4, None)
    return Fit.on(task, estimate, lambda: _expanded(found.chebyshev(even, bits), found.residual, rows.speed, bits))


def _sample(task: Task, degrees: tuple[int, ...], even: tuple[bool, ...]) -> Sample:
    lower, upper = task.domain.bounding_box()
    counts = tuple(2 * math.ceil(0.75 * n + 3) for n in degrees)
    return sample(task.domain, counts).folded(even, (lower + upper) / 2)


def _degrees(task: Task, degree: int, scale: float | None) -> tuple[int, ...]:
    """Return 0 along axes on which the solution does not depend, and less than `degree` where less will do.

    A solution of half the degree shows how fast the coefficients fall along each axis.
    """
    free = free_axes(task)
    active = np.array([all(free) or not f for f in free])
    full = np.where(active, degree, 0)
    if degree < BALANCED_DEGREE or np.count_nonzero(active) < 2:
        return tuple(int(n) for n in full)
    trial = _by_products(task, tuple(int(n) // 2 for n in full), scale)
    size = np.abs(trial.candidate.coefficients[0])
    if not np.all(np.isfinite(size)):
        return tuple(int(n) for n in full)
    profiles = [_falling(size, axis) for axis in range(size.ndim)]
    level = max(0.01 * float(np.max(size)), *(3 * float(p[-2]) for p, a in zip(profiles, active, strict=True) if a))
    reach = np.array([1.0 + np.count_nonzero(p >= level) for p in profiles])
    part = np.clip(1.1 * reach / np.max(reach[active]), LEAST_PART, 1.0)
    return tuple(int(n) for n in np.where(active, np.ceil(part * degree), 0))


def _falling(size: np.ndarray, axis: int) -> np.ndarray:
    """Return the largest coefficient of each order or a higher one along the axis."""
    largest: np.ndarray = np.max(size, axis=tuple(k for k in range(size.ndim) if k != axis))
    return np.maximum.accumulate(largest[::-1])[::-1]


def _elliptic(task: Task) -> bool:
    with np.errstate(all="ignore"):
        a = task.process.diffusion(
            _sample(task, (8,) * task.domain.dimension, (False,) * task.domain.dimension).interior
        )
    if not np.all(np.isfinite(a)):
        return False
    eigenvalues = np.linalg.eigvalsh(a)
    return bool(np.min(eigenvalues) > 1e-3 * np.max(eigenvalues))


def _estimate(rows: Rows, matrix: np.ndarray, c: np.ndarray, degrees: tuple[int, ...], begin: float) -> Estimate:
    values = matrix @ c
    size = np.abs((values[: rows.equations] - rows.right) / rows.weights)
    rest = np.arange(rows.equations) >= rows.interior
    return Estimate(
        float(np.max(size[: rows.interior], initial=0.0)),
        float(np.max(size[rows.absorbing], initial=0.0)),
        float(np.max(size[rest & ~rows.absorbing], initial=0.0)),
        float(np.min(values[rows.equations :], initial=math.inf)),
        degrees,
        time.monotonic() - begin,
    )


def _expanded(exact: np.ndarray, residual: float, speed: float, bits: int) -> tuple[np.ndarray, ...]:
    """Return Chebyshev coefficients in Arb as a sum of as many float arrays as their accuracy needs."""
    # an error e of one coefficient changes the residual by up to e·speed·degree⁴/3, typically by far less
    return float_sum(exact, 1.0, 1e-2 * residual / ((speed or 1.0) * len(exact) ** 2), bits)


# --- the degree ------------------------------------------------------------------------------------------------------


def fits(task: Task, deadline: float) -> Iterator[Fit | int]:
    """Yield solutions of increasing degree that are expected to give a narrower enclosure; for others the degree only.

    Ends when two degrees in a row do not, or when a degenerate problem has shown nothing so far and becomes dear: its u
    is rough, and a higher degree will not help soon.

    Parameters
    ----------
    task : Task
    deadline : float
        Of `time.monotonic`; a degree that would probably take longer is not tried.
    """
    best, idle = USELESS / GAIN, 0
    scale, before, spent, elliptic = None, 0, 0.0, _elliptic(task)
    for degree in LADDER[task.domain.dimension]:
        begin = time.monotonic()
        if before and begin + spent * (degree / before) ** (2 * task.domain.dimension) > deadline:
            return
        fit = least_squares(task, degree, scale)
        before, spent = degree, time.monotonic() - begin
        if fit.estimate.width < GAIN * best:
            best, idle = fit.estimate.width, 0
            yield fit
        else:
            idle += best < NARROW or (best < USELESS and not elliptic)
            yield degree
        rough = best >= USELESS and degree > ROUGH_DEGREE and spent > ROUGH_SECONDS and not elliptic
        if idle >= PATIENCE or rough:
            return
        if 0 < fit.estimate.value < math.inf and fit.estimate.residual < 1:
            scale = fit.estimate.value


def search(task: Task, width: float, deadline: float) -> Fit:
    """Increase the degree until the expected relative width at the starts is at most width/2.

    Parameters
    ----------
    task : Task
    width : float
    deadline : float
        See `fits`.

    Returns
    -------
    Fit
        The best one; that of the lowest degree where none promises anything.
    """
    best: Fit | None = None
    for fit in fits(task, deadline):
        if isinstance(fit, int):
            continue
        best = fit
        if fit.estimate.width <= width / 2:
            break
    return best or least_squares(task, LADDER[task.domain.dimension][0])
