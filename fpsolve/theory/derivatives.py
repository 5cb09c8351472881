"""Loss and its first three derivatives over boxes, cheap enough for tens of thousands of boxes.

Formulas are evaluated as they are. Of a loss given by samples only as many terms are evaluated as there are different
ones. Where the sample gradient is affine in the target, as with squared losses, samples with equal inputs are
one term with their mean target: with ``ℓ = A + B y + C(y)``, C free of the parameters,
``(1/N) Σ_k ∇ℓ(x_k, y_k) = Σ_x w_x ∇ℓ(x, ȳ_x)`` exactly, w_x the share of the samples with the input x; the
losses differ by a constant, which is taken at one point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from operator import mul
from typing import Any, Protocol

import numpy as np
import sympy
from flint import arb

from fpsolve.errors import InputError
from fpsolve.model.expressions import Formula, symbols
from fpsolve.model.process import Enclosure, FormulaEnclosure, Landscape
from fpsolve.model.sample_program import Program, compile_program, run_balls, unsupported
from fpsolve.model.samples import SampleLandscape
from fpsolve.theory.balls import Ball, finite, intersect
from fpsolve.theory.cover import loss_range as _loss_range


class Derivatives(Protocol):
    """Enclosures over a box of d balls; tensors row-major and possibly not finite (no enclosure found)."""

    def loss(self, box: Sequence[Ball]) -> Ball:
        """Enclose L."""

    def gradient(self, box: Sequence[Ball]) -> list[Ball]:
        """Enclose ∇L, d balls."""

    def gradient_and_hessian(self, box: Sequence[Ball]) -> tuple[list[Ball], list[Ball]]:
        """Enclose ∇L and D²L, d and d*d balls."""

    def third(self, box: Sequence[Ball]) -> list[Ball] | None:
        """Enclose ∂_k D²L_ij, d*d*d balls, k last; None where not available."""


@dataclass(frozen=True)
class PlainDerivatives:
    """What any `Enclosure` offers.

    Attributes
    ----------
    third_formula : Formula or None
        Third derivatives, where there is a formula for them.
    """

    enclosure: Enclosure
    third_formula: Formula | None = None

    def loss(self, box: Sequence[Ball]) -> Ball:
        """Enclose L."""
        return self.enclosure.loss(list(box))

    def gradient(self, box: Sequence[Ball]) -> list[Ball]:
        """Enclose ∇L."""
        return self.enclosure.gradient(list(box))

    def gradient_and_hessian(self, box: Sequence[Ball]) -> tuple[list[Ball], list[Ball]]:
        """Enclose ∇L and D²L."""
        return self.enclosure.gradient(list(box)), self.enclosure.hessian(list(box))

    def third(self, box: Sequence[Ball]) -> list[Ball] | None:
        """Enclose the third derivatives."""
        return None if self.third_formula is None else self.third_formula.balls(list(box))


@dataclass(frozen=True, eq=False)
class MeanDerivatives:
    """Weighted means of one formula over different inputs and targets.

    Attributes
    ----------
    programs : Program × 3
        The loss of one term; its gradient with the upper triangle of its Hessian; its third derivatives i <= j <= k.
    gradient_program : Program
    inputs : tuple of lists of n balls
    target, weights : lists of n balls
    offset : Ball
        Added to the mean loss.
    """

    dimension: int
    programs: tuple[Program, Program, Program]
    gradient_program: Program
    inputs: tuple[list[Ball], ...]
    target: list[Ball]
    weights: list[Ball]
    offset: Ball

    def loss(self, box: Sequence[Ball]) -> Ball:
        """Enclose L."""
        return self._means(self.programs[0], box)[0] + self.offset

    def gradient(self, box: Sequence[Ball]) -> list[Ball]:
        """Enclose ∇L."""
        return self._means(self.gradient_program, box)

    def gradient_and_hessian(self, box: Sequence[Ball]) -> tuple[list[Ball], list[Ball]]:
        """Enclose ∇L and D²L, from one pass."""
        d = self.dimension
        values = self._means(self.programs[1], box)
        places = {pair: d + k for k, pair in enumerate(_increasing(d, 2))}
        return values[:d], [values[places[min(i, j), max(i, j)]] for i in range(d) for j in range(d)]

    def third(self, box: Sequence[Ball]) -> list[Ball]:
        """Enclose the third derivatives."""
        d = self.dimension
        values = dict(zip(_increasing(d, 3), self._means(self.programs[2], box), strict=True))
        return [values[tuple(sorted(triple))] for triple in product(range(d), repeat=3)]

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
        third = enclosure.hessian_formula.derivative()
        return PlainDerivatives(enclosure, None if any(map(unsupported, third.entries)) else third)
    return None if enclosure is None else PlainDerivatives(enclosure)


def _check_smooth(enclosure: FormulaEnclosure) -> None:
    strange = set().union(*map(unsupported, enclosure.hessian_formula.entries))
    if strange:
        loss = str(enclosure.loss_formula.entries[0])
        raise InputError("process.loss", loss, "a twice differentiable loss", f"Its Hessian has a {min(strange)}.")


def _of_samples(landscape: SampleLandscape) -> MeanDerivatives:
    names, d = symbols(landscape.names), len(landscape.variables)
    parameters, loss = names[:d], landscape.sample_loss
    table = landscape.table
    affine = _is_affine(landscape)
    keys = table[:-1] if affine else table
    if len(keys):
        rows, index, counts = np.unique(keys, axis=1, return_inverse=True, return_counts=True)
    else:  # no inputs at all: every sample has the same
        rows, index, counts = keys[:, :1], np.zeros(table.shape[1], dtype=int), np.array([table.shape[1]])
    index = index.reshape(-1)
    weights = [arb(int(c)) / table.shape[1] for c in counts]
    targets = _mean_targets(table[-1], index, counts) if affine else [arb(float(y)) for y in rows[-1]]
    columns = tuple([arb(float(v)) for v in row] for row in (rows if affine else rows[:-1]))
    levels = [0] * d + [2] * (len(names) - d)
    third = [sympy.diff(loss, *(parameters[i] for i in triple)) for triple in _increasing(d, 3)]
    programs = (landscape.loss_program, landscape.hessian_program, compile_program(third, names, levels))
    result = MeanDerivatives(d, programs, landscape.gradient_program, columns, targets, weights, arb(0))
    if not affine:
        return result
    origin = [arb(0) for _ in range(d)]
    for start in (0, 1):  # a loss may have a pole at the origin
        origin = [arb(start) for _ in range(d)]
        offset = landscape.enclosure().loss(origin) - result.loss(origin)
        if offset.is_finite():
            break
    return MeanDerivatives(d, programs, landscape.gradient_program, columns, targets, weights, offset)


def _is_affine(landscape: SampleLandscape) -> bool:
    """Tell whether the gradient of a sample is affine in its target; False also where sympy does not see it."""
    *others, target = symbols(landscape.names)
    parameters = others[: len(landscape.variables)]
    return all(sympy.expand(sympy.diff(landscape.sample_loss, p, target, 2)) == 0 for p in parameters)


def _mean_targets(target: np.ndarray, index: np.ndarray, counts: np.ndarray) -> list[Ball]:
    sums: list[Any] = [arb(0) for _ in counts]
    for k, y in zip(index, target, strict=True):
        sums[int(k)] = sums[int(k)] + arb(float(y))
    return [total / int(count) for total, count in zip(sums, counts, strict=True)]


def _increasing(d: int, rank: int) -> list[tuple[int, ...]]:
    """Return the index tuples i <= j <= …, in the order of an upper triangle, row by row."""
    return [t for t in product(range(d), repeat=rank) if list(t) == sorted(t)]


def loss_range(derivatives: Derivatives, lo: np.ndarray, hi: np.ndarray) -> tuple[float, float]:
    """Return rigorous lower and upper bounds of L over a box; see `cover.loss_range`."""
    return _loss_range(derivatives, lo, hi)  # type: ignore[arg-type]  # it needs loss and gradient only


def hessian_by_slope(
    derivatives: Derivatives, box: Sequence[Ball], middle: Sequence[Ball], hessian: Sequence[Ball]
) -> list[Ball]:
    """Return the better of a known enclosure of D²L over a box and its mean-value form D²L(m) + D³L(box)(box - m)."""
    third = derivatives.third(box)
    if third is None or not finite(third):
        return list(hessian)
    d = len(middle)
    steps = [x - m for x, m in zip(box, middle, strict=True)]
    at_middle = derivatives.gradient_and_hessian(middle)[1]
    mean = [at_middle[n] + sum((third[n * d + k] * steps[k] for k in range(d)), arb(0)) for n in range(d * d)]
    return [intersect(a, b) for a, b in zip(hessian, mean, strict=True)]


def condensed(landscape: Landscape) -> Landscape:
    """Return a landscape with the same ∇L and D²L that is cheaper to evaluate in floating point; or the given one.

    Samples with equal inputs become one with their mean target (see above), where every input has as many. Its loss
    differs by a constant and its covariance is another one.
    """
    if not isinstance(landscape, SampleLandscape) or landscape.index is None:
        return landscape
    counts = np.bincount(landscape.index)
    if not _is_affine(landscape) or counts.min() < counts.max():
        return landscape
    means = np.bincount(landscape.index, landscape.target) / counts
    return replace(landscape, target=means, index=None)
