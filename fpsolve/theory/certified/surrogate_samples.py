"""∇L and Q of a model fitted to data, as exact sums over the samples, in real and complex balls.

Rows ``h_x`` with weights ``w_x`` (Σ w_x = 1) stand for groups of samples: ``∇L = G = Σ w_x h_x`` and

    Q = Σ_x w_x (h_x - c)(h_x - c)ᵀ - (G - c)(G - c)ᵀ + Σ_x w_x v_x B_x B_xᵀ       for every c.

Where the gradient of a sample is affine in its target, g = A + B y, the samples of one input x are a group with
``h_x = A + B ȳ_x``, ȳ_x and v_x the mean and the variance of their targets, exact rational numbers. Otherwise every
sample is a group of its own and v = 0. c is a number near G: nothing cancels then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy
from flint import acb, acb_mat, arb, arb_mat, ctx, fmpq

from fpsolve.model.condense import affine_in_target
from fpsolve.model.expressions import symbols
from fpsolve.model.sample_program import Program, compile_program, run_balls
from fpsolve.model.samples import SampleLandscape
from fpsolve.theory.balls import Ball
from fpsolve.theory.certified.coefficients import Degrees, degree_bound, upper_pairs
from fpsolve.theory.certified.surrogate_arithmetic import run_complex


@dataclass(frozen=True)
class _Data:
    """Balls of the data at one precision, in one kind (arb or acb)."""

    inputs: list[list[Ball]]
    target: list[Ball]
    weights: list[Ball]
    spreads: list[Ball]


@dataclass(frozen=True, eq=False)
class SampleSource:
    """Implements `coefficients.Source`.

    Attributes
    ----------
    program : Program
        The gradient of a group; then B, if samples are grouped.
    degrees : tuple
    inputs : tuple of tuple of float
        One tuple for each input, exact.
    target, weights, spreads : tuple of fmpq
        ȳ_x, w_x and w_x v_x; without groups the targets, 1/N and nothing.
    index : tuple of int or None
        As in `SampleLandscape`, without groups.
    """

    program: Program
    degrees: tuple[Degrees, ...]
    inputs: tuple[tuple[float, ...], ...]
    target: tuple[Any, ...]
    weights: tuple[Any, ...]
    spreads: tuple[Any, ...]
    index: tuple[int, ...] | None
    _data: dict[tuple[int, bool], _Data] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, landscape: SampleLandscape) -> SampleSource:
        """Return the sums of a landscape of samples."""
        d, names = len(landscape.variables), symbols(landscape.names)
        gradient = [sympy.diff(landscape.sample_loss, p) for p in names[:d]]
        single = [tuple(degree_bound(entry, p) for p in names[:d]) for entry in gradient]
        pairs = [
            tuple(None if m is None or n is None else m + n for m, n in zip(single[i], single[j], strict=True))
            for i, j in upper_pairs(d)
        ]
        degrees = (*single, *pairs)
        inputs = tuple(tuple(map(float, row)) for row in landscape.inputs)
        values = [fmpq(*float(y).as_integer_ratio()) for y in landscape.target]
        if landscape.index is None or not affine_in_target(landscape):
            index = None if landscape.index is None else tuple(map(int, landscape.index))
            weights = (fmpq(1, len(values)),) * len(values)
            return cls(landscape.gradient_program, degrees, inputs, tuple(values), weights, (), index)
        groups: list[list[Any]] = [[] for _ in inputs[0]]
        for k, y in zip(landscape.index, values, strict=True):
            groups[k].append(y)
        means = [sum(ys, fmpq(0)) / len(ys) for ys in groups]
        squares = [sum(((y - m) ** 2 for y in ys), fmpq(0)) for ys, m in zip(groups, means, strict=True)]
        slopes = [sympy.diff(entry, names[-1]) for entry in gradient]
        levels = [*[0] * d, *[1] * len(inputs), 2]
        return cls(
            compile_program([*gradient, *slopes], names, levels),
            degrees,
            inputs,
            tuple(means),
            tuple(fmpq(len(ys), len(values)) for ys in groups),
            tuple(total / len(values) for total in squares),
            None,
        )

    def columns(self, points: Sequence[Sequence[Ball]], complex_balls: bool) -> list[list[Ball]]:
        """Evaluate; see `coefficients.Source`."""
        found = [self._at(list(point), complex_balls) for point in zip(*points, strict=True)]
        return [list(column) for column in zip(*found, strict=True)]

    def _balls(self, complex_balls: bool) -> _Data:
        key = (ctx.prec, complex_balls)
        if key not in self._data:
            kind = (lambda value: acb(arb(value))) if complex_balls else arb
            self._data[key] = _Data(
                [[kind(value) for value in row] for row in self.inputs],
                [kind(value) for value in self.target],
                [arb(value) for value in self.weights],
                [arb(value) for value in self.spreads],
            )
        return self._data[key]

    def _at(self, point: list[Ball], complex_balls: bool) -> list[Ball]:
        data, d = self._balls(complex_balls), len(point)
        if complex_balls:
            values = run_complex(self.program, [*map(acb, point), *data.inputs, data.target], self.index)
            rows = [v if isinstance(v, list) else [v] * len(data.target) for v in values]
        else:
            rows = run_balls(self.program, point, data.inputs, data.target, self.index)
        matrix: Any = acb_mat if complex_balls else arb_mat
        mean = [_dot(data.weights, row) for row in rows[:d]]
        if not all(ball.is_finite() for ball in mean):
            nothing = (acb if complex_balls else arb)("nan")
            return mean + [nothing] * len(upper_pairs(d))
        centre = [ball.mid() for ball in mean]
        shifted = [[h - c for h in row] for row, c in zip(rows[:d], centre, strict=True)]
        products = _gram(matrix, data.weights, shifted)
        off = [ball - c for ball, c in zip(mean, centre, strict=True)]
        result = mean + [products[i, j] - off[i] * off[j] for i, j in upper_pairs(d)]
        if data.spreads:
            within = _gram(matrix, data.spreads, rows[d:])
            result[d:] = [q + within[i, j] for q, (i, j) in zip(result[d:], upper_pairs(d), strict=True)]
        return result


def _dot(weights: Sequence[Ball], row: Sequence[Ball]) -> Ball:
    return sum((w * h for w, h in zip(weights, row, strict=True)), arb(0))


def _gram(matrix: Any, weights: Sequence[Ball], rows: Sequence[Sequence[Ball]]) -> Any:
    """Return Σ_x w_x r_x r_xᵀ."""
    d, count = len(rows), len(weights)
    weighted = matrix(d, count, [w * h for row in rows for w, h in zip(weights, row, strict=True)])
    return weighted * matrix(d, count, [h for row in rows for h in row]).transpose()
