"""Loss, gradient and Hessian over boxes, cheap enough for tens of thousands of boxes.

Formulas are evaluated as they are. Of a loss given by samples only as many terms are evaluated as there are different
ones; where `fpsolve.model.condense` allows, samples with equal inputs are one term with their mean target, and the
constant by which the loss then differs is taken at one point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from operator import mul
from typing import Any, Protocol

import numpy as np
from flint import arb

from fpsolve.errors import InputError
from fpsolve.model.condense import affine_in_target
from fpsolve.model.process import Enclosure, FormulaEnclosure, Landscape
from fpsolve.model.sample_program import Program, run_balls, unsupported
from fpsolve.model.samples import SampleLandscape
from fpsolve.theory.balls import Ball
from fpsolve.theory.cover import loss_range as _loss_range


class Derivatives(Protocol):
    """Enclosures over a box of d balls; tensors row-major and possibly not finite (no enclosure found)."""

    def loss(self, box: Sequence[Ball]) -> Ball:
        """Enclose L."""

    def gradient(self, box: Sequence[Ball]) -> list[Ball]:
        """Enclose ∇L, d balls."""

    def gradient_and_hessian(self, box: Sequence[Ball]) -> tuple[list[Ball], list[Ball]]:
        """Enclose ∇L and D²L, d and d*d balls."""


@dataclass(frozen=True)
class PlainDerivatives:
    """What any `Enclosure` offers."""

    enclosure: Enclosure

    def loss(self, box: Sequence[Ball]) -> Ball:
        """Enclose L."""
        return self.enclosure.loss(list(box))

    def gradient(self, box: Sequence[Ball]) -> list[Ball]:
        """Enclose ∇L."""
        return self.enclosure.gradient(list(box))

    def gradient_and_hessian(self, box: Sequence[Ball]) -> tuple[list[Ball], list[Ball]]:
        """Enclose ∇L and D²L."""
        return self.enclosure.gradient(list(box)), self.enclosure.hessian(list(box))


@dataclass(frozen=True, eq=False)
class MeanDerivatives:
    """Weighted means of one formula over different inputs and targets.

    Attributes
    ----------
    loss_program, gradient_program, hessian_program : Program
        Of one term: its loss; its gradient; its gradient with the upper triangle of its Hessian.
    inputs : tuple of lists of n balls
    target, weights : lists of n balls
    offset : Ball
        Added to the mean loss.
    """

    dimension: int
    loss_program: Program
    gradient_program: Program
    hessian_program: Program
    inputs: tuple[list[Ball], ...]
    target: list[Ball]
    weights: list[Ball]
    offset: Ball

    def loss(self, box: Sequence[Ball]) -> Ball:
        """Enclose L."""
        return self._means(self.loss_program, box)[0] + self.offset

    def gradient(self, box: Sequence[Ball]) -> list[Ball]:
        """Enclose ∇L."""
        return self._means(self.gradient_program, box)

    def gradient_and_hessian(self, box: Sequence[Ball]) -> tuple[list[Ball], list[Ball]]:
        """Enclose ∇L and D²L, from one pass."""
        d = self.dimension
        values = self._means(self.hessian_program, box)
        places = {pair: d + k for k, pair in enumerate(combinations_with_replacement(range(d), 2))}
        return values[:d], [values[places[min(i, j), max(i, j)]] for i in range(d) for j in range(d)]

    def _means(self, program: Program, box: Sequence[Ball]) -> list[Ball]:
        columns = run_balls(program, list(box), self.inputs, self.target, None)
        return [sum(map(mul, column, self.weights), arb(0)) for column in columns]


def derivatives_of(landscape: Landscape) -> Derivatives | None:
    """Return enclosures of loss and derivatives, or None where the landscape has none.

    Raises
    ------
    InputError
        If D²L is no function, as ∇L jumps somewhere.

    Notes
    -----
    At flint's current precision, 53 bits by default. Data are exact: the binary values of the floats.
    """
    if isinstance(landscape, SampleLandscape):
        return _of_samples(landscape)
    enclosure = landscape.enclosure()
    if isinstance(enclosure, FormulaEnclosure):
        _check_smooth(enclosure)
    return None if enclosure is None else PlainDerivatives(enclosure)


def _check_smooth(enclosure: FormulaEnclosure) -> None:
    strange = set().union(*map(unsupported, enclosure.hessian_formula.entries))
    if strange:
        loss = str(enclosure.loss_formula.entries[0])
        raise InputError("process.loss", loss, "a twice differentiable loss", f"Its Hessian has a {min(strange)}.")


def _of_samples(landscape: SampleLandscape) -> MeanDerivatives:
    d, table = len(landscape.variables), landscape.table
    affine = affine_in_target(landscape)
    keys = table[:-1] if affine else table
    if len(keys):
        rows, index, counts = np.unique(keys, axis=1, return_inverse=True, return_counts=True)
    else:  # no inputs at all: every sample has the same
        rows, index, counts = keys[:, :1], np.zeros(table.shape[1], dtype=int), np.array([table.shape[1]])
    index = index.reshape(-1)
    weights = [arb(int(c)) / table.shape[1] for c in counts]
    targets = _mean_targets(table[-1], index, counts) if affine else [arb(float(y)) for y in rows[-1]]
    columns = tuple([arb(float(v)) for v in row] for row in (rows if affine else rows[:-1]))
    programs = landscape.loss_program, landscape.gradient_program, landscape.hessian_program
    result = MeanDerivatives(d, *programs, columns, targets, weights, arb(0))
    if not affine:
        return result
    offset = arb(0)
    for start in (0, 1):  # a loss may have a pole at the origin
        point = [arb(start) for _ in range(d)]
        offset = landscape.enclosure().loss(point) - result.loss(point)
        if offset.is_finite():
            break
    return replace(result, offset=offset)


def _mean_targets(target: np.ndarray, index: np.ndarray, counts: np.ndarray) -> list[Ball]:
    sums: list[Any] = [arb(0) for _ in counts]
    for k, y in zip(index, target, strict=True):
        sums[int(k)] = sums[int(k)] + arb(float(y))
    return [total / int(count) for total, count in zip(sums, counts, strict=True)]


def loss_range(derivatives: Derivatives, lo: np.ndarray, hi: np.ndarray) -> tuple[float, float]:
    """Return rigorous lower and upper bounds of L over a box; see `cover.loss_range`."""
    return _loss_range(derivatives, lo, hi)  # type: ignore[arg-type]  # it needs loss and gradient only
