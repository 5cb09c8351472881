"""Search for weights of the spectral gap: a barrier method at points, in floating point; nothing is proved here.

Maximise κ over ψ subject to ``S = D²L - diag(Aψ_i + s|∇ψ_i|²) - κ > 0`` at points of Ω and ``β + ∂ψ_i > 0`` at
points of ∂Ω (β = 0 on a side, where ψ_i may not fall outwards; 1/R on a sphere). S is concave in ψ, so Newton's
method for ``-κ/μ - mean log det S - ν mean log(β + ∂ψ)`` finds the one maximum
as μ → 0.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from fpsolve.model.domains import Ball as BallDomain
from fpsolve.model.domains import Box as BoxDomain
from fpsolve.model.process import Process

#: Accuracy of κ relative to itself, and to the size of D²L.
RELATIVE, ABSOLUTE = 1e-3, 1e-9
STEPS = 60
#: Times that points are added, which of them, and how many at most.
ROUNDS, VIOLATION, MOST_ADDED = 6, 3e-3, 500
BOUNDARY_SHARE = 0.1
#: Slope of ψ_i outwards that is asked for on sides, in units of s/extent, so that a proof has room.
MARGIN = 1e-4
#: Points of a marginal, degrees of the h_i, and how far below its eigenvalue κ is for them.
MARGINAL = 48
FACTOR_DEGREES = (8, 12, 16, 20, 24, 32, 40)
FACTOR_BELOW = 0.2
#: Last coefficients of an h_i; it need not be accurate.
FACTOR_TAIL = 1e-5


@dataclass(frozen=True, eq=False)
class Search:
    """The problem at points; unknowns are the coefficients of the ψ_i, scaled, without constants.

    With fixed factors h_i(x_i) the weights are h_i e^{ψ_i}: ``A log h + s|∇log h|² = Ah/h`` is taken off D²L, and A
    of a basis function φ gains ``2s h'/h ∂_iφ``.

    Attributes
    ----------
    s : float
    hessian : ndarray, shape (p, d, d)
        D²L - diag(Ah_i/h_i).
    generator : list of ndarray, each of shape (p, n)
        A of each basis function, and what h_i adds; one for each ψ.
    gradient : ndarray, shape (d, p, n)
    edge : list of (i, ndarray (q, n), float)
        Rows and β of the conditions on ψ_i.
    shared : bool
        One ψ for all i.
    orders : ndarray, shape (n, d)
    scale : ndarray, shape (n,)
        Basis function k is T_k / scale.
    lower, upper : ndarray
    fine : tuple
        Hessian, generator and gradient on a finer grid.
    start : ndarray
        Unknowns that satisfy the conditions on ∂Ω strictly.
    unit : float
        s/diam², the size of a gap where L is flat.
    """

    s: float
    hessian: np.ndarray
    generator: list[np.ndarray]
    gradient: np.ndarray
    edge: list[tuple[int, np.ndarray, float]]
    shared: bool
    orders: np.ndarray
    scale: np.ndarray
    shape: tuple[int, ...]
    fine: tuple[np.ndarray, list[np.ndarray], np.ndarray]
    start: np.ndarray
    unit: float

    @classmethod
    def of(
        cls,
        process: Process,
        domain: BoxDomain | BallDomain,
        s: float,
        degrees: tuple[int, ...],
        factors: Sequence[np.ndarray] = (),
    ) -> Search:
        """Set up the search with ψ of those degrees in each variable; on balls the first is the total degree."""
        d = domain.dimension
        lower, upper = domain.bounding_box()
        ball = isinstance(domain, BallDomain)
        degrees = degrees[:1] * d if ball else degrees
        indices = product(*(range(n + 1) for n in degrees))
        orders = np.array([k for k in indices if sum(k) > 0 and (not ball or sum(k) <= degrees[0])])
        shape = tuple(n + 1 for n in degrees)

        def rows(x: np.ndarray) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
            first, second = _derivatives(x, lower, upper, orders)
            f = process.drift(x)
            apply = s * second.sum(axis=0) + np.einsum("pk,kpn->pn", f, first)
            hessian = process.landscape.hessian(x).copy()  # type: ignore[union-attr]
            if not factors:
                return hessian, [apply] * (1 if ball else d), first
            generators = []
            for i, h in enumerate(factors):
                t = np.clip(2 * (x[:, i] - lower[i]) / (upper[i] - lower[i]) - 1, -1, 1)
                per = 2 / (upper[i] - lower[i])
                value, slope, bend = (
                    chebyshev.chebval(t, chebyshev.chebder(h, k)) * per**k if k else chebyshev.chebval(t, h)
                    for k in range(3)
                )
                hessian[:, i, i] -= (s * bend + f[:, i] * slope) / value
                generators.append(apply + 2 * s * (slope / value)[:, None] * first[i])
            return hessian, generators, first

        extra = [len(h) for h in factors] if factors else [0] * d
        grid: Any = _ball_points if ball else _box_points
        inside = grid(domain, [2 * n + 5 + k for n, k in zip(degrees, extra, strict=True)])[0]
        edges = grid(domain, [5 * n + 11 for n in degrees])[1]
        hessian, generators, gradient = rows(inside)
        scale = np.sqrt(np.mean(generators[0] ** 2, axis=0) + np.mean(np.sum(gradient**2, axis=0), axis=0)) + 1e-300
        edge = []
        for i, x, normal, beta in edges:
            first = _derivatives(x, lower, upper, orders)[0]
            beta = beta or -MARGIN * s / float(np.max(upper - lower))
            edge.append((i, np.einsum("pk,kpn->pn", normal, first) / scale, beta))
        fine = rows(grid(domain, [5 * n + 11 + 3 * k for n, k in zip(degrees, extra, strict=True)])[0])
        fine = (fine[0], [g / scale for g in fine[1]], fine[2] / scale)
        start = np.zeros((1 if ball else d, len(orders)))
        for i in range(len(start) if not ball else 0):
            for j in range(d):
                if j != i:  # slightly convex across the other sides
                    start[i, np.flatnonzero((orders[:, j] == 2) & (orders.sum(axis=1) == 2))] = 1e-2
        return cls(
            s, hessian, [g / scale for g in generators], gradient / scale, edge, ball, orders, scale, shape, fine,
            start * scale, s / float(np.max(upper - lower)) ** 2,
        )  # fmt: skip

    def matrices(self, c: np.ndarray, fine: bool = False) -> np.ndarray:
        """Return ``D²L - diag(Aψ_i + s|∇ψ_i|²)`` at the points, shape (p, d, d)."""
        hessian, generator, gradient = self.fine if fine else (self.hessian, self.generator, self.gradient)
        result = hessian.copy()
        for i in range(hessian.shape[1]):
            own = c[0 if self.shared else i]
            result[:, i, i] -= generator[0 if self.shared else i] @ own + self.s * np.sum((gradient @ own) ** 2, axis=0)
        return result

    def smallest(self, weights: tuple[np.ndarray, ...]) -> float:
        """Return the smallest eigenvalue on the finer grid, for coefficients as `maximise` returns them."""
        c = np.array([w[tuple(self.orders.T)] for w in weights]) * self.scale
        return float(np.linalg.eigvalsh(self.matrices(c, fine=True))[:, 0].min())

    def extended(self, c: np.ndarray, kappa: float) -> Search | None:
        """Return the problem with points of the finer grid that violate it too; None where there are none."""
        values = np.linalg.eigvalsh(self.matrices(c, fine=True))[:, 0]
        bad = np.flatnonzero(values < kappa - VIOLATION * abs(kappa))
        if not len(bad):
            return None
        bad = bad[np.argsort(values[bad])][:MOST_ADDED]
        return replace(
            self,
            hessian=np.concatenate([self.hessian, self.fine[0][bad]]),
            generator=[np.concatenate([g, f[bad]]) for g, f in zip(self.generator, self.fine[1], strict=True)],
            gradient=np.concatenate([self.gradient, self.fine[2][:, bad]], axis=1),
        )


def maximise(search: Search, deadline: float) -> tuple[np.ndarray, ...]:
    """Return the Chebyshev coefficients of the ψ_i with the largest κ found."""
    size = float(np.abs(search.hessian).max()) + search.unit
    c, mu, grown = search.start.copy(), 0.3 * size, search
    best, value = c, -np.inf
    for _ in range(ROUNDS):
        c, kappa = _maximum(grown, c, mu, size, deadline)
        least = float(np.linalg.eigvalsh(search.matrices(c, fine=True))[:, 0].min())
        if least > value:
            best, value = c, least
        extended = grown.extended(c, kappa)
        if extended is None or time.monotonic() > deadline:
            break
        grown, mu = extended, 0.01 * size
    result = []
    for own in best / search.scale:
        full = np.zeros(search.shape)
        full[tuple(search.orders.T)] = own
        result.append(full)
    return tuple(result)


def _maximum(search: Search, c: np.ndarray, mu: float, size: float, deadline: float) -> tuple[np.ndarray, float]:
    """Return the unknowns and κ for μ → 0, from unknowns that satisfy the conditions on ∂Ω."""
    kappa = float(np.linalg.eigvalsh(search.matrices(c))[:, 0].min()) - 0.3 * mu
    while True:
        for _ in range(STEPS):
            step = _newton(search, c, kappa, mu)
            if step is None:
                break
            dc, dk, decrement = step
            length, value = 1.0, _barrier(search, c, kappa, mu)
            while length > 1e-8 and not _barrier(search, c + length * dc, kappa + length * dk, mu) < value:
                length /= 2
            if length <= 1e-8:
                break
            c, kappa = c + length * dc, kappa + length * dk
            if decrement < 1e-2 or time.monotonic() > deadline:
                break
        if mu <= max(RELATIVE * abs(kappa), ABSOLUTE * size) or time.monotonic() > deadline:
            return c, kappa
        mu *= 0.2


def _barrier(search: Search, c: np.ndarray, kappa: float, mu: float) -> float:
    shifted = search.matrices(c) - kappa * np.eye(search.hessian.shape[1])
    values = np.linalg.eigvalsh(shifted)
    if not values.min() > 0:
        return np.inf
    total = -kappa / mu - float(np.log(values).sum(axis=1).mean())
    for i, rows, beta in search.edge:
        slope = rows @ c[i] + beta
        if not slope.min() > 0:
            return np.inf
        total -= BOUNDARY_SHARE * float(np.log(slope).mean())
    return total


def _newton(search: Search, c: np.ndarray, kappa: float, mu: float) -> tuple[np.ndarray, float, float] | None:
    """Return the Newton step of the barrier function and its decrement."""
    p, d, n = len(search.hessian), search.hessian.shape[1], c.shape[1]
    inverse = np.linalg.inv(search.matrices(c) - kappa * np.eye(d))
    count = len(c)
    rows = [
        base + 2 * search.s * np.einsum("kp,kpn->pn", search.gradient @ own, search.gradient)
        for base, own in zip(search.generator, c, strict=True)
    ]
    gradient, hessian = np.zeros(count * n + 1), np.zeros((count * n + 1,) * 2)
    for i in range(d):
        own = 0 if search.shared else i
        at = slice(own * n, (own + 1) * n)
        gradient[at] += inverse[:, i, i] @ rows[own] / p
        flat = (search.gradient * np.sqrt(2 * search.s * inverse[:, i, i] / p)[None, :, None]).reshape(-1, n)
        hessian[at, at] += flat.T @ flat
        hessian[at, -1] += np.einsum("pj,pj->p", inverse[:, i], inverse[:, i]) @ rows[own] / p
        for j in range(d):
            other = 0 if search.shared else j
            to = slice(other * n, (other + 1) * n)
            hessian[at, to] += (rows[own] * (inverse[:, i, j] ** 2 / p)[:, None]).T @ rows[other]
    gradient[-1] = -1 / mu + np.trace(inverse, axis1=1, axis2=2).mean()
    hessian[-1, -1] = np.sum(inverse**2, axis=(1, 2)).mean()
    for i, edge, beta in search.edge:
        at = slice(i * n, (i + 1) * n)
        slope = edge @ c[i] + beta
        weight = BOUNDARY_SHARE / len(slope)
        gradient[at] -= weight * (edge.T @ (1 / slope))
        scaled = edge * (np.sqrt(weight) / slope)[:, None]
        hessian[at, at] += scaled.T @ scaled
    hessian[-1, :-1] = hessian[:-1, -1]
    scale = np.sqrt(np.diag(hessian)) + 1e-300
    normal = hessian / np.outer(scale, scale)
    normal[np.diag_indices_from(normal)] += 1e-13
    try:
        step = -cho_solve(cho_factor(normal), gradient / scale) / scale
    except (LinAlgError, ValueError):
        return None
    return step[:-1].reshape(c.shape), float(step[-1]), float(-gradient @ step)


def _derivatives(
    x: np.ndarray, lower: np.ndarray, upper: np.ndarray, orders: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return ∂_k and ∂_k² of each Chebyshev product at points x (p, d), shapes (d, p, n)."""
    d, degree = x.shape[1], int(orders.max())
    slope = chebyshev.chebder(np.eye(degree + 1))
    slope = np.vstack([slope, np.zeros((1, degree + 1))])
    tables = []
    for k in range(d):
        half = (upper[k] - lower[k]) / 2
        value = chebyshev.chebvander(np.clip((x[:, k] - lower[k]) / half - 1, -1, 1), degree)
        first = value @ slope
        tables.append((value, first / half, first @ slope / half**2))

    def products(which: list[int]) -> np.ndarray:
        result = tables[0][which[0]][:, orders[:, 0]]
        for k in range(1, d):
            result = result * tables[k][which[k]][:, orders[:, k]]
        return result

    unit = np.eye(d, dtype=int)
    return np.array([products(list(unit[k])) for k in range(d)]), np.array(
        [products(list(2 * unit[k])) for k in range(d)]
    )


Edges = list[tuple[int, np.ndarray, np.ndarray, float]]


def _box_points(domain: BoxDomain, counts: list[int]) -> tuple[np.ndarray, Edges]:
    """Return points of the box and, for each i and each side not across x_i, points and normals."""
    lower, upper = domain.bounding_box()
    d = domain.dimension
    axes = [
        lower[k] + (upper[k] - lower[k]) * 0.5 * (1 - np.cos(np.pi * np.arange(n) / (n - 1)))
        for k, n in enumerate(counts)
    ]
    inside = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, d)
    edges: Edges = []
    for i, axis in product(range(d), repeat=2):
        for end, sign in ((lower[axis], -1.0), (upper[axis], 1.0)):
            if axis != i:
                x = inside[inside[:, axis] == axes[axis][0]].copy()
                x[:, axis] = end
                normal = np.zeros_like(x)
                normal[:, axis] = sign
                edges.append((i, x, normal, 0.0))
    return inside, edges


def _ball_points(domain: BallDomain, counts: list[int]) -> tuple[np.ndarray, Edges]:
    """Return points of the ball, and of the sphere with normals."""
    d, center, radius, count = domain.dimension, np.array(domain.center), domain.radius, counts[0]
    radii = 0.5 * (1 - np.cos(np.pi * (np.arange(count // 2 + 1) + 1) / (count // 2 + 1)))
    if d == 2:
        angle = 2 * np.pi * np.arange(2 * count) / (2 * count)
        directions = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    else:
        z = np.polynomial.legendre.leggauss(count)[0]
        angle = 2 * np.pi * np.arange(count) / count
        rho = np.sqrt(1 - z**2)
        directions = np.concatenate(
            [
                np.stack([r * np.cos(angle), r * np.sin(angle), np.full_like(angle, h)], axis=1)
                for r, h in zip(rho, z, strict=True)
            ]
        )
    inside = np.concatenate([center[None], *(center + radius * r * directions for r in radii)])
    return inside, [(0, center + radius * directions, directions, 1 / radius)]


def factors(process: Process, domain: BoxDomain, s: float) -> list[np.ndarray]:
    """Return Chebyshev coefficients of positive h_i(x_i): g of `gap_line` for the marginals ``-s log ∫e^{-L/s}``.

    For independent coordinates they are the best weights, and they have the steep ends that polynomials ψ lack.
    """
    lower, upper = domain.bounding_box()
    return [_factor(_marginal(process, domain, s, i), (upper[i] - lower[i]) / 2, s) for i in range(domain.dimension)]


def _marginal(process: Process, domain: BoxDomain, s: float, axis: int) -> np.ndarray:
    """Return Chebyshev coefficients of the free energy of one coordinate."""
    lower, upper = domain.bounding_box()
    d = domain.dimension
    nodes = np.cos(np.pi * (np.arange(MARGINAL) + 0.5) / MARGINAL)
    gauss, weight = np.polynomial.legendre.leggauss(80 if d == 2 else 30)
    axes = [nodes if k == axis else gauss for k in range(d)]
    t = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    x = lower + (t + 1) / 2 * (upper - lower)
    energy = np.moveaxis(process.landscape.loss(x.reshape(-1, d)).reshape(t.shape[:-1]), axis, 0)  # type: ignore[union-attr]
    low = energy.reshape(MARGINAL, -1).min(axis=1)
    mass = np.exp(-(energy - low.reshape(-1, *([1] * (d - 1)))) / s)
    for _ in range(d - 1):
        mass = mass @ weight
    return np.asarray(chebyshev.chebfit(nodes, low - s * np.log(mass), MARGINAL - 1))


def _factor(energy: np.ndarray, half: float, s: float) -> np.ndarray:
    """Solve ``(H - κ)h = 1``, h = 1 at the ends, for κ below the smallest eigenvalue of H."""
    best = np.ones(1)
    for n in FACTOR_DEGREES:
        nodes = np.cos(np.pi * np.arange(n + 1) / n)
        value = chebyshev.chebvander(nodes, n)
        slope = np.vstack([chebyshev.chebder(np.eye(n + 1)), np.zeros((1, n + 1))]) / half
        first, second = value @ slope, value @ slope @ slope
        bend = [chebyshev.chebval(nodes, chebyshev.chebder(energy, k)) / half**k for k in (1, 2)]
        rows = -s * second + bend[0][:, None] * first + bend[1][:, None] * value
        inner = value.copy()
        rows[[0, -1]], inner[[0, -1]] = value[[0, -1]], 0.0
        inverse = np.linalg.eigvals(np.linalg.solve(rows, inner))
        largest = float(np.max(inverse.real))
        if not largest > 0:
            continue
        h = np.linalg.solve(rows - (1 - FACTOR_BELOW) / largest * inner, np.ones(n + 1))
        h /= np.abs(chebyshev.chebval(np.linspace(-1, 1, 501), h)).max()
        if chebyshev.chebval(np.linspace(-1, 1, 501), h).min() > 0:
            best = h
            if np.abs(h[-3:]).max() < FACTOR_TAIL:
                break
    return best
