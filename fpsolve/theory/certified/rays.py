"""A polynomial along rays: ``p(c + ρ g) = Σ_k ρ^k h_k(g)``, with one matrix product for all rays."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from flint import arb, arb_mat, ctx

from fpsolve.theory.certified.polynomial import Polynomial, Tensor, contract, matrix_of, precision, tensor

GUARD_BITS = 3  # per degree: Chebyshev coefficients grow by (1 + sqrt 2)^n when written in powers


def total_degree(polynomial: Polynomial) -> int:
    """Return the largest total degree with a coefficient other than the exact number 0."""
    degrees = np.indices(polynomial.shape).sum(axis=0).ravel()
    return max((int(k) for k, c in zip(degrees, polynomial.coefficients.ravel(), strict=True) if c != 0), default=0)


def along_rays(polynomial: Polynomial, center: Sequence[float], directions: Sequence[Tensor]) -> Tensor:
    """Return the coefficients h_k of ρ^k, k = 0 … total degree, shape (m+1, N).

    Parameters
    ----------
    directions : d arrays of N balls
        g; of the size of the domain, so that ρ is about 1 at its boundary.
    """
    m, d = total_degree(polynomial), polynomial.dimension
    with precision(ctx.prec + GUARD_BITS * max(polynomial.shape)):
        values = polynomial.coefficients
        for axis in range(d):
            values = contract(_shifted(polynomial, axis, center[axis]), values, axis)
        orders = [alpha for alpha in product(*(range(n) for n in values.shape)) if sum(alpha) <= m]
        table = np.empty((len(orders), m + 1), dtype=object)
        table[...] = arb(0)
        for row, alpha in enumerate(orders):
            table[row, sum(alpha)] = values[alpha]
        scaled = [g / polynomial.half(i) for i, g in enumerate(directions)]
        return tensor(
            (matrix_of(table.T) * matrix_of(_monomials(scaled, orders, values.shape))).entries(),
            (m + 1, len(directions[0])),
        )


def _shifted(polynomial: Polynomial, axis: int, center: float) -> arb_mat:
    """Return the matrix from coefficients of T_k(s) to those of powers of y, s = s(c) + y."""
    size = polynomial.shape[axis]
    start = polynomial.reduced(np.array([arb(center)], dtype=object), axis)[0]
    columns = np.empty((size, size), dtype=object)
    columns[...] = arb(0)
    columns[0, 0] = arb(1)
    if size > 1:
        columns[0, 1], columns[1, 1] = start, arb(1)
    for k in range(2, size):
        twice = 2 * columns[:, k - 1]
        columns[:, k] = start * twice - columns[:, k - 2]
        columns[1:, k] = columns[1:, k] + twice[:-1]
    return matrix_of(columns)


def _monomials(x: Sequence[Tensor], orders: Sequence[tuple[int, ...]], shape: tuple[int, ...]) -> Tensor:
    """Return x^α for all orders α, shape (len(orders), N)."""
    powers = []
    for xi, size in zip(x, shape, strict=True):
        rows = np.empty((size, len(xi)), dtype=object)
        rows[0] = arb(1)
        for k in range(1, size):
            rows[k] = rows[k - 1] * xi
        powers.append(rows)
    result = np.empty((len(orders), len(x[0])), dtype=object)
    last: dict[tuple[int, ...], Tensor] = {}
    for row, alpha in enumerate(orders):
        head = alpha[:-1]
        if head not in last:  # the product over all but the last variable is shared
            value = powers[0][head[0]]
            for i in range(1, len(head)):
                value = value * powers[i][head[i]]
            last[head] = value
        result[row] = last[head] * powers[-1][alpha[-1]]
    return result
