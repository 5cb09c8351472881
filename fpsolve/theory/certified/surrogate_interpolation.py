"""Chebyshev coefficients of the interpolants of f and a in tensor products of Chebyshev points, by matrix products."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from flint import arb, arb_mat, fmpq

from fpsolve.theory.balls import Ball
from fpsolve.theory.certified.coefficients import Coefficients


def _nodes(count: int) -> list[Ball]:
    """Return the zeros of T_count."""
    return [arb.cos_pi_fmpq(fmpq(2 * k + 1, 2 * count)) for k in range(count)]


def on_grid(
    coefficients: Coefficients, lower: tuple[float, ...], upper: tuple[float, ...], counts: tuple[int, ...]
) -> list[list[Ball]]:
    """Return the values of all entries at the tensor product of Chebyshev points, row-major."""
    lines = []
    for a, b, count in zip(lower, upper, counts, strict=True):
        middle, half = (arb(a) + arb(b)) / 2, (arb(b) - arb(a)) / 2
        lines.append([middle + half * t for t in _nodes(count)])
    points = [list(column) for column in zip(*itertools.product(*lines), strict=True)]
    return coefficients.columns(points)


def interpolants(
    coefficients: Coefficients,
    lower: tuple[float, ...],
    upper: tuple[float, ...],
    degrees: tuple[int, ...],
    entries: Sequence[int],
) -> dict[int, list[Ball]]:
    """Return the coefficients of the interpolating polynomials of some entries, row-major."""
    counts = tuple(n + 1 for n in degrees)
    columns = on_grid(coefficients, lower, upper, counts)
    transforms = [_transform(count) for count in counts]
    result = {}
    for entry in entries:
        values = columns[entry]
        if not all(ball.is_finite() for ball in values):
            raise ValueError(f"{coefficients.names[entry]} is not finite everywhere on the box {lower} to {upper}")
        # one variable after the other: it goes from the front to the back, so the order is the old one in the end
        for count, matrix in zip(counts, transforms, strict=True):
            table = arb_mat(count, len(values) // count, values)
            values = (matrix * table).transpose().entries()
        result[entry] = values
    return result


def _transform(count: int) -> arb_mat:
    """Return the matrix that takes values at the Chebyshev points to Chebyshev coefficients."""
    cosines = [arb.cos_pi_fmpq(fmpq(j, 2 * count)) for j in range(4 * count)]
    return arb_mat(
        count,
        count,
        [
            cosines[m * (2 * k + 1) % (4 * count)] * (1 if m == 0 else 2) / count
            for m in range(count)
            for k in range(count)
        ],
    )
