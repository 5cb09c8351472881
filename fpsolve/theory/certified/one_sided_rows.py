"""Rows of a one-sided linear programme: a Chebyshev basis, points of a domain, -A of each basis function.

Floating point; nothing is proved here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from numpy.polynomial import chebyshev

from fpsolve.errors import InputError
from fpsolve.model.component import Segment, Star, sphere_points
from fpsolve.model.domains import SIDES, Ball, Box, Interval, Sublevel
from fpsolve.model.levelset import Planar
from fpsolve.model.process import Process
from fpsolve.theory.certified.task import Task

CHUNK = 200_000  # entries of a temporary array: it should stay in the cache


@dataclass(frozen=True)
class Basis:
    """Products of Chebyshev polynomials on a box.

    Attributes
    ----------
    lower, upper : ndarray, shape (d,)
        The box.
    orders : ndarray of int, shape (n, d)
        The degree of each product in each variable.
    """

    lower: np.ndarray
    upper: np.ndarray
    orders: np.ndarray

    @property
    def degree(self) -> int:
        """The largest degree in one variable."""
        return int(self.orders.max())

    def factors(self, x: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Return T_k, T_k' and T_k'' of each coordinate of x (p, d): arrays of shape (p, degree+1)."""
        half = (self.upper - self.lower) / 2
        slope = _derivative_matrix(self.degree)
        result = []
        for i, h in enumerate(half):
            t = (x[:, i] - self.lower[i]) / h - 1
            values = chebyshev.chebvander(np.clip(t, -1, 1), self.degree)
            first = values @ slope
            result.append((values, first / h, first @ slope / h**2))
        return result

    def values(self, x: np.ndarray) -> np.ndarray:
        """Return each product at the points x (p, d), shape (p, n)."""
        factors = self.factors(x)
        return self._products([f[0] for f in factors])

    def gradient(self, x: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Return direction·∇ of each product; x and direction have shape (p, d), the result (p, n)."""
        factors, d = self.factors(x), x.shape[1]
        total = np.zeros((len(x), len(self.orders)))
        for i in range(d):
            total += direction[:, i, None] * self._products([f[int(i == k)] for k, f in enumerate(factors)])
        return total

    def minus_generator(self, process: Process, x: np.ndarray) -> np.ndarray:
        """Return -A = -tr(a D²·) - f·∇ of each product at the points x (p, d), shape (p, n)."""
        factors, d = self.factors(x), x.shape[1]
        f, a = process.drift(x), process.diffusion(x)
        total = np.zeros((len(x), len(self.orders)))
        for which, weight in _terms(f, a, d):
            total -= weight[:, None] * self._products([factor[k] for factor, k in zip(factors, which, strict=True)])
        return total

    def _products(self, factors: list[np.ndarray]) -> np.ndarray:
        result = factors[0][:, self.orders[:, 0]]
        for k in range(1, len(factors)):
            result *= factors[k][:, self.orders[:, k]]
        return result

    def tensor(self, coefficients: np.ndarray) -> np.ndarray:
        """Return coefficients (n,) as a full tensor of shape (degree+1,)*d."""
        full = np.zeros((self.degree + 1,) * self.orders.shape[1])
        full[tuple(self.orders.T)] = coefficients
        return full


def _derivative_matrix(degree: int) -> np.ndarray:
    """Return D with T_k' = Σ_j T_j D_jk."""
    matrix = np.zeros((degree + 1, degree + 1))
    for k in range(1, degree + 1):
        matrix[np.arange(k - 1, -1, -2), k] = 2 * k
    matrix[0] /= 2
    return matrix


def _terms(f: np.ndarray, a: np.ndarray, d: int) -> list[tuple[tuple[int, ...], np.ndarray]]:
    """Return the orders of differentiation and the coefficients of A; zero coefficients are left out."""
    terms = []
    for i in range(d):
        terms.append((tuple(int(k == i) for k in range(d)), f[:, i]))
        for j in range(i + 1):
            orders = tuple(int(k == i) + int(k == j) for k in range(d))
            terms.append((orders, a[:, i, j] * (1 if i == j else 2)))
    # where a coefficient is infinite the rows are left out: nan without a warning
    return [(orders, np.where(np.isfinite(weight), weight, np.nan)) for orders, weight in terms if np.any(weight)]


@dataclass(frozen=True)
class Polynomial:
    """A function in a basis, evaluated at many points without forming rows.

    Attributes
    ----------
    basis : Basis
    coefficients : ndarray, shape (n,)
    """

    basis: Basis
    coefficients: np.ndarray

    @cached_property
    def _tensor(self) -> np.ndarray:
        return self.basis.tensor(self.coefficients)

    def _sums(self, x: np.ndarray, derivatives: list[tuple[int, ...]]) -> list[np.ndarray]:
        """Return derivatives of w, each given by its orders in the variables, at the points x (p, d)."""
        factors = self.basis.factors(x)
        partial: dict[tuple[int, ...], np.ndarray] = {}

        def contracted(orders: tuple[int, ...]) -> np.ndarray:
            if orders not in partial:
                k = len(orders) - 1
                factor = factors[k][orders[-1]]
                if k == 0:
                    partial[orders] = np.tensordot(factor, self._tensor, axes=(1, 0))
                else:
                    partial[orders] = np.einsum("pj,pj...->p...", factor, contracted(orders[:-1]))
            return partial[orders]

        return [contracted(orders) for orders in derivatives]

    def _chunks(self, x: np.ndarray) -> list[np.ndarray]:
        size = max(1, CHUNK // (self.basis.degree + 1) ** max(1, x.shape[1] - 1))
        return [x[k : k + size] for k in range(0, len(x), size)] or [x]

    def values(self, x: np.ndarray) -> np.ndarray:
        """Return w at the points x (p, d), shape (p,)."""
        order = (0,) * x.shape[1]
        return np.concatenate([self._sums(part, [order])[0] for part in self._chunks(x)])

    def gradient(self, x: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Return direction·∇w at the points x (p, d), shape (p,)."""
        d = x.shape[1]
        slopes = self._sums(x, [tuple(int(i == k) for k in range(d)) for i in range(d)])
        return np.asarray(sum(direction[:, i] * slope for i, slope in enumerate(slopes)))

    def minus_generator(self, process: Process, x: np.ndarray) -> np.ndarray:
        """Return -A w at the points x (p, d), shape (p,)."""
        parts = []
        for part in self._chunks(x):
            terms = _terms(process.drift(part), process.diffusion(part), x.shape[1])
            sums, total = self._sums(part, [orders for orders, _ in terms]), np.zeros(len(part))
            for (_, weight), values in zip(terms, sums, strict=True):
                total -= weight * values
            parts.append(total)
        return np.concatenate(parts)


# ---------------------------------------------------------------------------------------------------------------------
# Symmetries
# ---------------------------------------------------------------------------------------------------------------------


def symmetries(task: Task) -> list[tuple[int, ...]]:
    """Return reflections about the box's centre that leave the task unchanged, as independent sets of axes.

    A set of axes means that all its coordinates change sign together. Its first axis occurs in no other set. The
    optimum of the linear programme may be taken invariant; so only such basis functions and a part of the points
    are needed. Decided by sampling: a wrong answer costs tightness, never validity.
    """
    if isinstance(task.domain, Sublevel):
        return []
    low, high = (np.asarray(v, dtype=float) for v in task.domain.bounding_box())
    d, center = len(low), (low + high) / 2
    x = center + (np.random.default_rng(0).uniform(-1, 1, (64, d)) * (high - low) / 2)
    found: list[np.ndarray] = []
    for mask in product((0, 1), repeat=d):
        sign = 1.0 - 2.0 * np.array(mask)
        if any(mask) and _invariant(task, x, center, sign):
            found.append(np.array(mask))
    return _independent(found, d)


def _invariant(task: Task, x: np.ndarray, center: np.ndarray, sign: np.ndarray) -> bool:
    mirrored = center + sign * (x - center)
    pairs = [
        (task.process.drift(mirrored), sign * task.process.drift(x)),
        (task.process.diffusion(mirrored), np.multiply.outer(sign, sign) * task.process.diffusion(x)),
    ]
    for first, second in pairs:
        if not np.allclose(first, second, rtol=0, atol=1e-12 * (np.abs(second).max() + 1e-300)):
            return False
    extent = np.abs(task.starts - center).max() + np.abs(x - center).max()
    gaps = np.abs((center + sign * (task.starts - center))[:, None] - task.starts[None]).max(axis=2).min(axis=1)
    if np.any(gaps > 1e-12 * extent):
        return False
    if isinstance(task.domain, Ball):
        return True
    for special in (task.unreachable, task.domain.reflecting):
        for i in np.flatnonzero(sign < 0):
            if (SIDES[2 * i] in special) != (SIDES[2 * i + 1] in special):
                return False
    return True


def _independent(masks: list[np.ndarray], d: int) -> list[tuple[int, ...]]:
    """Reduce the masks to echelon form over the field of two elements."""
    rows: list[np.ndarray] = []
    rest = [m.copy() for m in masks]
    for axis in range(d):
        pivot = next((m for m in rest if m[axis]), None)
        if pivot is None:
            continue
        rows = [(r + pivot) % 2 if r[axis] else r for r in rows]
        rest = [(m + pivot) % 2 if m[axis] else m for m in rest]
        rows.append(pivot)
    pivots = [int(np.flatnonzero(r)[0]) for r in rows]
    return [(p, *[int(k) for k in np.flatnonzero(r) if k != p]) for p, r in zip(pivots, rows, strict=True)]


def basis(task: Task, degree: int, tensor: bool = False) -> Basis:
    """Return the basis of total (or, in each variable) degree on the bounding box, invariant functions only."""
    low, high = (np.asarray(v, dtype=float) for v in task.domain.bounding_box())
    orders = np.array(list(product(range(degree + 1), repeat=len(low))))
    if not tensor:
        orders = orders[orders.sum(axis=1) <= degree]
    for axes in symmetries(task):
        orders = orders[orders[:, list(axes)].sum(axis=1) % 2 == 0]
    return Basis(low, high, orders)


# ---------------------------------------------------------------------------------------------------------------------
# Points
# ---------------------------------------------------------------------------------------------------------------------


Sides = dict[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Points:
    """Points of a closed domain and of its boundary.

    Attributes
    ----------
    inside : ndarray, shape (p, d)
        The closure of Ω, edges included.
    absorbing : ndarray, shape (q, d)
        Points where the process leaves.
    reflecting, conormal : ndarray, shape (r, d)
        Points of reflecting parts and a n there, n the outward normal.
    """

    inside: np.ndarray
    absorbing: np.ndarray
    reflecting: np.ndarray
    conormal: np.ndarray


def points(task: Task, count: int, edge_count: int | None = None) -> Points:
    """Return points, about `count` of them along each axis (or, on the boundary, `edge_count`), as Chebyshev's.

    The counts are made odd: then the centre, often an equilibrium, is one of the points.
    """
    domain = task.domain
    count |= 1
    inside, sides = _shape_points(domain, count)
    if edge_count is not None:
        _, sides = _shape_points(domain, edge_count | 1)
    d = inside.shape[1]
    absorbing = [sides[name][0] for name in task.absorbing]
    reflecting = [sides[name] for name in domain.reflecting]
    low, high = (np.asarray(v, dtype=float) for v in domain.bounding_box())
    axes = [s[0] for s in symmetries(task)]

    def kept(x: np.ndarray) -> np.ndarray:
        return np.all(x[:, axes] >= ((low + high) / 2 - 1e-9 * (high - low))[axes], axis=1)

    absorbed = np.concatenate([*absorbing, np.zeros((0, d))])
    mirror = np.concatenate([*[s[0] for s in reflecting], np.zeros((0, d))])
    normal = np.concatenate([*[s[1] for s in reflecting], np.zeros((0, d))])
    conormal = np.einsum("pij,pj->pi", task.process.diffusion(mirror), normal) if len(mirror) else normal
    keep = kept(mirror)
    return Points(inside[kept(inside)], absorbed[kept(absorbed)], mirror[keep], conormal[keep])


def _shape_points(domain: Interval | Box | Ball | Sublevel, count: int) -> tuple[np.ndarray, Sides]:
    if isinstance(domain, Ball):
        return _ball_points(domain, count)
    if isinstance(domain, Sublevel):
        return _sublevel_points(domain, count)
    return _box_points(domain, count)


def _nodes(count: int) -> np.ndarray:
    """Return Chebyshev-Lobatto points on [-1, 1]."""
    return np.cos(np.pi * np.arange(count) / (count - 1))[::-1]


def _grid(axes: list[np.ndarray]) -> np.ndarray:
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


def _box_points(domain: Interval | Box, count: int) -> tuple[np.ndarray, Sides]:
    low, high = (np.asarray(v, dtype=float) for v in domain.bounding_box())
    axes = [(a + b) / 2 + (b - a) / 2 * _nodes(count) for a, b in zip(low, high, strict=True)]
    for axis, a, b in zip(axes, low, high, strict=True):
        axis[[0, -1]] = a, b
    sides: Sides = {}
    for k, name in enumerate(domain.names):
        i, end = divmod(k, 2)
        face = _grid([np.array([(low, high)[end][i]]) if j == i else axes[j] for j in range(len(low))])
        normal = np.zeros_like(face)
        normal[:, i] = 2 * end - 1
        sides[name] = (face, normal)
    return _grid(axes), sides


def _directions(d: int, count: int) -> np.ndarray:
    """Return unit vectors with a spacing of about 1/count of a half turn."""
    if d == 1:
        return np.array([[-1.0], [1.0]])
    if d == 2:
        t = np.arange(2 * count) * np.pi / count
        return np.column_stack([np.cos(t), np.sin(t)])
    return sphere_points(int(1.3 * count**2))


def _ball_points(domain: Ball, count: int) -> tuple[np.ndarray, Sides]:
    center = np.array(domain.center)
    d = len(center)
    directions = _directions(d, count)
    shells = [np.zeros((1, d))]
    for r in _nodes(count)[(count + 1) // 2 :]:
        # fewer directions on small shells: the same spacing
        shells.append(r * (_directions(d, max(4, int(np.ceil(r * count)))) if r < 0.999 else directions))
    return center + domain.radius * np.concatenate(shells), {
        "boundary": (center + domain.radius * directions, directions)
    }


def _sublevel_points(domain: Sublevel, count: int) -> tuple[np.ndarray, Sides]:
    component = domain.component
    low, high = (np.asarray(v, dtype=float) for v in domain.bounding_box())
    if isinstance(component, Segment):
        edge = np.array([[component.lower], [component.upper]])
    elif isinstance(component, Planar):
        edge = np.concatenate([_along(loop, 3 * count) for loop in component.loops])
    elif isinstance(component, Star):
        directions = _directions(3, count)
        edge = component.center + directions * component.radius(directions)[:, None]
    else:
        raise InputError("domain", type(component).__name__, "a sublevel set of dimension one, two or three")
    box = _grid([(a + b) / 2 + (b - a) / 2 * _nodes(count) for a, b in zip(low, high, strict=True)])
    gradient = domain.landscape.gradient(edge)
    normal = gradient / np.linalg.norm(gradient, axis=1)[:, None]
    return np.concatenate([box[domain.contains(box)], edge]), {"boundary": (edge, normal)}


def _along(loop: np.ndarray, count: int) -> np.ndarray:
    """Return about `count` of the points of a closed curve, evenly spaced by length."""
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(loop, axis=0), axis=1))])
    chosen = np.searchsorted(length, np.linspace(0, length[-1], count))
    return loop[np.unique(np.minimum(chosen, len(loop) - 1))]
