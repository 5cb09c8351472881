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
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from fpsolve.model.domains import Ball, Box, Interval
from fpsolve.theory.certified.disc_solve import solve_disc
from fpsolve.theory.certified.float_sums import float_sum
from fpsolve.theory.certified.orthogonal import Recurrence, orthogonal, triangle_of
from fpsolve.theory.certified.points import Sample, even_axes, free_axes, sample
from fpsolve.theory.certified.task import Candidate, Task

LADDER = {1: (12, 24, 48, 96, 160), 2: (8, 12, 18, 26, 38, 54, 72), 3: (6, 10, 14, 18, 22)}
# of a boundary row, times n²/u: corners are met best with little weight
BOUNDARY_WEIGHT, CORNER_WEIGHT = 0.03, 1e-3
RIDGE = 1e-14
TRUSTED = 0.3  # a tau solution with this residual is resolved: least squares would give the same
ROUGH_DEGREE = 20
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
    """A candidate and what is expected of it."""

    candidate: Candidate
    estimate: Estimate


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
        return _by_products(task, given, scale)
    degrees = (degree,) if isinstance(degree, int) else tuple(degree)
    fit = _by_modes(task, degrees[0]) if isinstance(task.domain, Ball) and d == 2 and task.absorbing else None
    if fit is not None and (fit.estimate.residual < TRUSTED or (degrees[0] > ROUGH_DEGREE and _elliptic(task))):
        return fit
    other = _by_total_degree(task, degrees[0], scale)
    return other if fit is None or other.estimate.width <= fit.estimate.width else fit


def _by_products(task: Task, degrees: tuple[int, ...], scale: float | None) -> Fit:
    begin = time.monotonic()
    lower, upper = task.domain.bounding_box()
    even = even_axes(task)
    rows = _Rows.of(task, _sample(task, degrees, even), max(degrees), scale)
    index, matrix = _tensor(rows, degrees, even)
    c = _solve(matrix[: rows.equations], rows.right)
    coefficients = np.zeros(tuple(n + 1 for n in degrees))
    coefficients[index] = c
    estimate = rows.estimate(matrix, c, degrees, begin)
    return Fit(Candidate(tuple(map(float, lower)), tuple(map(float, upper)), (coefficients,)), estimate)


def _by_total_degree(task: Task, degree: int, scale: float | None) -> Fit:
    begin = time.monotonic()
    lower, upper = task.domain.bounding_box()
    d, even = len(lower), even_axes(task)
    rows = _Rows.of(task, _sample(task, (degree,) * d, even), degree, scale)
    recurrence, matrix = _total(rows, degree, even)
    c = _solve(matrix[: rows.equations], rows.right)
    estimate = rows.estimate(matrix, c, (degree,), begin)
    bits = 160 + 2 * degree
    if np.all(np.isfinite(c)):
        arrays = _expanded(recurrence.chebyshev(c, bits), estimate.residual, rows.speed, bits)
    else:
        arrays = (np.full((degree + 1,) * d, np.nan),)
    return Fit(Candidate(tuple(map(float, lower)), tuple(map(float, upper)), arrays), estimate)


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
    rows = _Rows.of(task, _sample(task, (4, 4), even), 4, None)
    arrays = _expanded(found.chebyshev(even, bits), found.residual, rows.speed, bits)
    return Fit(Candidate(tuple(map(float, lower)), tuple(map(float, upper)), arrays), estimate)


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


# --- the equations ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rows:
    """Linear equations ``Σ_α weight·(operator of the row) q = right`` and, after them, values at the starts.

    Attributes
    ----------
    z : ndarray, shape (n, d)
        Points in [-1, 1]^d: interior, boundary, starts.
    first, second, value : arrays
        Coefficients of ∂_i (n, d), ∂_i∂_j for i <= j (n, d(d+1)/2) and the value (n,), with respect to z.
    """

    z: np.ndarray
    value: np.ndarray
    first: np.ndarray
    second: np.ndarray
    weights: np.ndarray
    right: np.ndarray
    interior: int
    absorbing: np.ndarray
    equations: int

    @classmethod
    def of(cls, task: Task, found: Sample, degree: int, scale: float | None) -> _Rows:
        lower, upper = task.domain.bounding_box()
        center, half, d = (lower + upper) / 2, (upper - lower) / 2, len(lower)
        with np.errstate(all="ignore"):
            f, a = task.process.drift(found.interior), task.process.diffusion(found.interior)
        good = np.all(np.isfinite(f), axis=1) & np.all(np.isfinite(a), axis=(1, 2))
        x, f, a = found.interior[good], f[good], a[good]
        i, j = np.triu_indices(d)
        second = -a[:, i, j] * np.where(i == j, 1.0, 2.0) / (half[i] * half[j])
        first = -f / half
        rate = float(np.median(np.abs(second).sum(axis=1))) if len(x) else 0.0
        corners = isinstance(task.domain, Box) and d > 1
        unit = degree**2 / (scale or 1 / (rate or 1.0))
        weight = (CORNER_WEIGHT if corners else BOUNDARY_WEIGHT) * unit
        parts: list[tuple[np.ndarray, ...]] = [
            (x, np.zeros(len(x)), first, second, np.ones(len(x)), np.ones(len(x)), np.zeros(len(x), dtype=bool))
        ]
        for facet in found.facets:
            n = len(facet.points)
            zero, none = np.zeros(n), np.zeros((n, len(i)))
            if facet.name in task.absorbing:
                parts.append((facet.points, np.ones(n), np.zeros((n, d)), none, np.full(n, weight), zero, zero == 0))
            elif facet.name in task.domain.reflecting and facet.name not in task.unreachable:
                with np.errstate(all="ignore"):
                    flux = np.einsum("nij,nj->ni", task.process.diffusion(facet.points), facet.normals) / half
                usual = float(np.nanmax(np.abs(flux), initial=0.0)) or 1.0
                flux[~np.all(np.isfinite(flux), axis=1)] = 0.0
                w = np.full(n, BOUNDARY_WEIGHT * unit / usual)
                parts.append((facet.points, zero, flux, none, w, zero, zero != 0))
        equations = sum(len(p[0]) for p in parts)
        starts = np.asarray(task.starts, dtype=float).reshape(-1, d)
        k = len(starts)
        parts.append(
            (starts, np.ones(k), np.zeros((k, d)), np.zeros((k, len(i))), np.ones(k), np.zeros(k), np.ones(k) < 0)
        )
        points, value, first, second, weights, right, absorbing = (np.concatenate(p) for p in zip(*parts, strict=True))
        return cls(
            (points - center) / half,
            value,
            first,
            second,
            weights[:equations],
            (weights * right)[:equations],
            len(x),
            absorbing[:equations],
            equations,
        )

    def apply(self, values: np.ndarray, gradients: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        """Return the rows' columns for polynomials with these values (n, k) and derivatives."""
        result = self.value[:, None] * values
        for g, c in zip(gradients, self.first.T, strict=True):
            result += c[:, None] * g
        for h, c in zip(seconds, self.second.T, strict=True):
            result += c[:, None] * h
        result[: self.equations] *= self.weights[:, None]
        return result

    @property
    def speed(self) -> float:
        """The largest coefficients of the operator together, with respect to z."""
        return float(np.max(np.abs(self.second).sum(axis=1) + np.abs(self.first).sum(axis=1), initial=0.0))

    def estimate(self, matrix: np.ndarray, c: np.ndarray, degrees: tuple[int, ...], begin: float) -> Estimate:
        values = matrix @ c
        size = np.abs((values[: self.equations] - self.right) / self.weights)
        rest = np.arange(self.equations) >= self.interior
        return Estimate(
            float(np.max(size[: self.interior], initial=0.0)),
            float(np.max(size[self.absorbing], initial=0.0)),
            float(np.max(size[rest & ~self.absorbing], initial=0.0)),
            float(np.min(values[self.equations :], initial=math.inf)),
            degrees,
            time.monotonic() - begin,
        )


def _solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the least-squares solution with scaled columns; directions that do not matter are damped."""
    norms = np.linalg.norm(matrix, axis=0)
    norms[~(norms > 0)] = 1.0
    scaled = np.column_stack([matrix / norms, right])
    if not np.all(np.isfinite(scaled)):
        return np.full(matrix.shape[1], np.nan)
    n = matrix.shape[1]
    triangle = triangle_of(scaled)
    r, y = triangle[:n, :n], triangle[:n, n]
    diagonal = np.abs(np.diag(r))
    if len(diagonal) < n or diagonal.min() < 1e-12 * diagonal.max():
        damped = np.vstack([np.column_stack([r, y]), np.column_stack([RIDGE * np.eye(n), np.zeros(n)])])
        triangle = triangle_of(damped)
        r, y = triangle[:n, :n], triangle[:n, n]
    return solve_triangular(r, y) / norms


def _tensor(rows: _Rows, degrees: tuple[int, ...], even: tuple[bool, ...]) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Return the indices of the Chebyshev products in use and the matrix of the equations."""
    d = len(degrees)
    kept = [np.arange(0, n + 1, 2 if e else 1) for n, e in zip(degrees, even, strict=True)]
    index = tuple(g.ravel() for g in np.meshgrid(*kept, indexing="ij"))
    tables = [_chebyshev(rows.z[:, k], n) for k, n in enumerate(degrees)]

    def product(orders: np.ndarray) -> np.ndarray:
        result = tables[0][orders[0]][:, index[0]]
        for k in range(1, d):
            result = result * tables[k][orders[k]][:, index[k]]
        return result

    unit = np.eye(d, dtype=int)
    gradients = np.array([product(unit[i]) for i in range(d)])
    seconds = np.array([product(unit[i] + unit[j]) for i, j in zip(*np.triu_indices(d), strict=True)])
    return index, rows.apply(product(np.zeros(d, dtype=int)), gradients, seconds)


def _chebyshev(z: np.ndarray, degree: int) -> np.ndarray:
    """Return T_j, T_j' and T_j'' at z, shape (3, n, degree+1), by the recurrences (exact at the ends too)."""
    table = np.zeros((3, len(z), degree + 1))
    table[0, :, 0] = 1.0
    if degree:
        table[0, :, 1], table[1, :, 1] = z, 1.0
    for j in range(1, degree):
        for k in range(3):
            lower = 2 * k * table[k - 1, :, j] if k else 0.0
            table[k, :, j + 1] = 2 * z * table[k, :, j] + lower - table[k, :, j - 1]
    return table


def _total(rows: _Rows, degree: int, even: tuple[bool, ...]) -> tuple[Recurrence, np.ndarray]:
    """Return the orthogonal polynomials and the matrix of the equations."""
    columns: list[np.ndarray] = []
    counted = np.arange(len(rows.z)) < rows.equations

    def consume(_: slice, values: np.ndarray, gradients: np.ndarray, seconds: np.ndarray) -> None:
        columns.append(rows.apply(values, gradients, seconds))

    return orthogonal(rows.z, counted, even, degree, consume), np.hstack(columns)


def _expanded(exact: np.ndarray, residual: float, speed: float, bits: int) -> tuple[np.ndarray, ...]:
    """Return Chebyshev coefficients in Arb as a sum of as many float arrays as their accuracy needs."""
    # an error e of one coefficient changes the residual by up to e·speed·degree⁴/3, typically by far less
    return float_sum(exact, 1.0, 1e-2 * residual / (speed * len(exact) ** 2), bits)


# --- the degree ------------------------------------------------------------------------------------------------------


def search(task: Task, width: float, deadline: float) -> Fit:
    """Increase the degree until the expected relative width at the starts is at most width/2.

    Parameters
    ----------
    task : Task
    width : float
    deadline : float
        Of `time.monotonic`; a degree that would take longer is not tried.

    Returns
    -------
    Fit
        The best one; at least the lowest degree is always tried.
    """
    best: Fit | None = None
    scale, before = None, 0
    for degree in LADDER[task.domain.dimension]:
        if best is not None:
            growth = (degree / before) ** (3 * task.domain.dimension)
            if time.monotonic() + growth * best.estimate.seconds > deadline:
                break
        fit = least_squares(task, degree, scale)
        before = degree
        if best is None or fit.estimate.width < best.estimate.width:
            best = fit
        if best.estimate.width <= width / 2:
            break
        if fit.estimate.value > 0 and math.isfinite(fit.estimate.value):
            scale = fit.estimate.value
    assert best is not None
    return best
