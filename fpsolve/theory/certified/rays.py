"""A polynomial along rays: ``p(c + ρ g) = Σ_k ρ^k h_k(g)``, with matrix products for all rays at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
from flint import arb, arb_mat, ctx

from fpsolve.theory.certified.polynomial import (
    Polynomial,
    Tensor,
    chebyshev_angles,
    contract,
    matrix_of,
    tensor,
    to_coefficients,
)

GUARD_BITS = 3  # per degree: Chebyshev coefficients grow by (1 + sqrt 2)^n when written in powers


def truncated(polynomial: Polynomial) -> tuple[Polynomial, int]:
    """Return the polynomial without the coefficients of the highest total degrees that may be zero, and its degree.

    Arithmetic leaves tiny balls about zero beyond the total degree. Their sizes go into the radius of the constant
    coefficient, so the result still encloses p on the box, up to the factor 1.001 of points beyond it by rounding.
    """
    degrees = np.indices(polynomial.shape).sum(axis=0)
    nonzero = np.array([not c.contains(0) for c in polynomial.coefficients.ravel()]).reshape(polynomial.shape)
    m = int(degrees[nonzero].max(initial=0))
    values = polynomial.coefficients.copy()
    size = abs(values[degrees > m]).sum() * arb(1.001) if np.any(degrees > m) else arb(0)
    values[degrees > m] = arb(0)
    values.flat[0] = values.flat[0] + arb(0, 1) * arb(size)
    return Polynomial(polynomial.lower, polynomial.upper, values), m


def along_rays(
    polynomial: Polynomial,
    degree: int,
    center: Sequence[float],
    directions: Sequence[Tensor],
    radii: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return the Chebyshev coefficients in s of ``p(c + ρ(s) g)``, shape (degree + 1, N); see `truncated`.

    Parameters
    ----------
    polynomial, degree : Polynomial, int
        Of that total degree.
    directions : d arrays of N balls
        g; of the size of the domain, so that ρ is about 1 at its boundary.
    radii : callable
        ρ(s), affine, at numbers s of [-1, 1].
    """
    m, d = degree, polynomial.dimension
    with ctx.workprec(ctx.prec + GUARD_BITS * max(polynomial.shape)):
        values = polynomial.coefficients
        for axis in range(d):
            values = contract(_shifted(polynomial, axis, center[axis]), values, axis)
        orders = [alpha for alpha in product(*(range(n) for n in values.shape)) if sum(alpha) <= m]
        scaled = [g / polynomial.half(i) for i, g in enumerate(directions)]
        monomials, degrees = _monomials(scaled, orders, values.shape), np.array([sum(alpha) for alpha in orders])
        factors = np.array([values[alpha] for alpha in orders], dtype=object)
        parts = []  # h_k(g), one row for each k
        for k in range(m + 1):
            own = degrees == k
            parts += (matrix_of(factors[None, own]) * matrix_of(monomials[own])).entries()
        nodes = np.array([angle.cos() for angle in chebyshev_angles(m + 1)], dtype=object)
        series = to_coefficients(m + 1) * matrix_of(_powers(radii(nodes), m))
        result = series * arb_mat(m + 1, len(directions[0]), parts)
        return tensor(result.entries(), (m + 1, len(directions[0])))


def _powers(x: Tensor, degree: int) -> Tensor:
    """Return x^k for k = 0 … degree, shape (len(x), degree+1)."""
    rows = np.empty((len(x), degree + 1), dtype=object)
    rows[:, 0] = arb(1)
    for k in range(1, degree + 1):
        rows[:, k] = rows[:, k - 1] * x
    return rows


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
