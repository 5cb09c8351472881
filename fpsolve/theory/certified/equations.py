"""The linear equations of a search for ``-A w = 1``: rows at sample points, columns for polynomials, their solution.

Floating point, nothing proved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from fpsolve.model.domains import Box
from fpsolve.theory.certified.orthogonal import Recurrence, orthogonal, triangle_of
from fpsolve.theory.certified.points import Sample
from fpsolve.theory.certified.task import Task

# of a boundary row, times n²/u: corners are met best with little weight
BOUNDARY_WEIGHT, CORNER_WEIGHT = 0.03, 1e-3
RIDGE = 1e-14


@dataclass(frozen=True)
class Rows:
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
    def of(cls, task: Task, found: Sample, degree: int, scale: float | None) -> Rows:
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


def solve_scaled(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
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


def tensor_matrix(
    rows: Rows, degrees: tuple[int, ...], even: tuple[bool, ...]
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
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


def total_matrix(rows: Rows, degree: int, even: tuple[bool, ...]) -> tuple[Recurrence, np.ndarray]:
    """Return the orthogonal polynomials and the matrix of the equations."""
    columns: list[np.ndarray] = []
    counted = np.arange(len(rows.z)) < rows.equations

    def consume(_: slice, values: np.ndarray, gradients: np.ndarray, seconds: np.ndarray) -> None:
        columns.append(rows.apply(values, gradients, seconds))

    return orthogonal(rows.z, counted, even, degree, consume), np.hstack(columns)
