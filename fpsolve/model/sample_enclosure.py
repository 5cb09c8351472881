"""Rigorous enclosures of a loss and covariance given by samples, in Arb ball arithmetic.

Over a box B with midpoint m every quantity is enclosed directly and, where its derivative is at hand, by
the mean-value form ``F(B) ⊂ F(m) + F'(B)(B - m)``, whose excess over the range is quadratic in the width
of B; the intersection is returned. Covariances are the sums ``(1/N) Σ (g_k - c)(g_k - c)ᵀ - (G - c)(G - c)ᵀ``
with the exact number c = mid(G): an identity for every c that does not widen the balls g_k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fpsolve.model.sample_program import Program, run_balls


@dataclass(frozen=True)
class _Moments:
    """Means of the rows (gradient, then upper triangle of the Hessian) and their covariances."""

    mean: list[Any]
    covariance: list[list[Any]]


@dataclass(frozen=True, eq=False)
class SampleEnclosure:
    """Arb enclosures of means over samples; implements `process.Enclosure`.

    The precision is flint's current one. Data are exact: the binary values of the floats. Entries are
    not finite where no enclosure was found, e.g. for a pole in the box. The moments over the last box
    are kept, so asking for several quantities over one box costs one pass over the samples.
    """

    dimension: int
    loss_program: Program
    gradient_program: Program
    hessian_program: Program
    inputs: tuple[list[Any], ...]
    target: list[Any]
    index: list[int] | None
    _last: dict[str, tuple[Any, Any]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        loss_program: Program,
        gradient_program: Program,
        hessian_program: Program,
        inputs: np.ndarray,
        target: np.ndarray,
        index: np.ndarray | None,
    ) -> SampleEnclosure:
        """Return the enclosure of the programs of a `samples.SampleLandscape` and its data."""
        import flint

        return cls(
            len(gradient_program.outputs),
            loss_program,
            gradient_program,
            hessian_program,
            tuple([flint.arb(value) for value in row.tolist()] for row in inputs),
            [flint.arb(value) for value in target.tolist()],
            None if index is None else [int(k) for k in index],
        )

    def loss(self, box: Sequence[Any]) -> Any:
        """Enclose L."""
        direct = self._mean(self.loss_program, box)
        if _is_point(box):
            return direct
        middle, change = _split(box)
        slope = self.gradient(box)
        return _tighter(direct, self._mean(self.loss_program, middle) + _dot(slope, change))

    def gradient(self, box: Sequence[Any]) -> list[Any]:
        """Enclose ∇L, d balls."""
        middle, change = _split(box)
        if _is_point(box):
            return self._moments("middle", middle, False).mean[: self.dimension]
        direct, centre = self._moments("box", box, True).mean, self._moments("middle", middle, False).mean
        return [
            _tighter(direct[i], centre[i] + _dot([direct[self._row(i, j)] for j in range(self.dimension)], change))
            for i in range(self.dimension)
        ]

    def hessian(self, box: Sequence[Any]) -> list[Any]:
        """Enclose D²L, d*d balls."""
        mean, d = self._moments("box", box, True).mean, self.dimension
        return [mean[self._row(i, j)] for i in range(d) for j in range(d)]

    def covariance(self, box: Sequence[Any]) -> list[Any]:
        """Enclose Q, d*d balls; no diagonal entry reaches below zero."""
        d = self.dimension
        middle, change = _split(box)
        centre = self._moments("middle", middle, False).covariance
        if _is_point(box):
            return [_nonnegative(centre[i][j], i == j) for i in range(d) for j in range(d)]
        direct, slope = self._moments("box", box, True).covariance, self.covariance_derivative(box)
        result = []
        for i in range(d):
            for j in range(d):
                linear = centre[i][j] + _dot(slope[(i * d + j) * d : (i * d + j + 1) * d], change)
                result.append(_nonnegative(_tighter(direct[i][j], linear), i == j))
        return result

    def covariance_derivative(self, box: Sequence[Any]) -> list[Any]:
        """Enclose ∂_k Q_ij = cov(H_ik, g_j) + cov(g_i, H_jk), d*d*d balls, k last."""
        covariance, d = self._moments("box", box, True).covariance, self.dimension
        return [
            covariance[self._row(i, k)][j] + covariance[self._row(j, k)][i]
            for i in range(d)
            for j in range(d)
            for k in range(d)
        ]

    def _row(self, i: int, j: int) -> int:
        """Return the row of H_ij among the outputs of the Hessian program."""
        i, j = min(i, j), max(i, j)
        return self.dimension + i * self.dimension - i * (i - 1) // 2 + j - i

    def _columns(self, program: Program, box: Sequence[Any]) -> list[list[Any]]:
        import flint

        balls = [flint.arb(entry) for entry in box]
        return run_balls(program, balls, self.inputs, self.target, self.index)

    def _mean(self, program: Program, box: Sequence[Any]) -> Any:
        import flint

        (column,) = self._columns(program, box)
        ones = flint.arb_mat(len(column), 1, [1] * len(column))
        return (flint.arb_mat(1, len(column), column) * ones)[0, 0] / len(column)

    def _moments(self, name: str, box: Sequence[Any], curvature: bool) -> _Moments:
        key = (_key(box), curvature)
        last = self._last.get(name)
        if last is None or last[0] != key:
            last = key, self._sum(self.hessian_program if curvature else self.gradient_program, box)
            self._last[name] = last
        return last[1]

    def _sum(self, program: Program, box: Sequence[Any]) -> _Moments:
        import flint

        columns = self._columns(program, box)
        rows, count = len(columns), len(self.target)
        table = flint.arb_mat(rows, count, [ball for column in columns for ball in column])
        sums = table * flint.arb_mat(count, 1, [1] * count)
        mean = [sums[i, 0] / count for i in range(rows)]
        if not all(ball.is_finite() for ball in mean):
            wide = flint.arb(0, float("inf"))
            return _Moments(mean, [[wide] * rows for _ in range(rows)])
        centres = [ball.mid() for ball in mean]
        shifted = flint.arb_mat(
            rows, count, [ball - c for column, c in zip(columns, centres, strict=True) for ball in column]
        )
        # only products with a gradient row are needed
        gradients = flint.arb_mat(self.dimension, count, shifted.entries()[: self.dimension * count])
        products = shifted * gradients.transpose()
        off = [ball - c for ball, c in zip(mean, centres, strict=True)]
        covariance = [[products[a, b] / count - off[a] * off[b] for b in range(self.dimension)] for a in range(rows)]
        return _Moments(mean, covariance)


def _key(box: Sequence[Any]) -> Any:
    import flint

    parts = [part for entry in box for part in (flint.arb(entry).mid(), flint.arb(entry).rad())]
    return flint.ctx.prec, tuple(part.man_exp() if part.is_finite() else str(part) for part in parts)


def _split(box: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Return the midpoint of the box and the box minus it; an edge of length zero is the number 0."""
    import flint

    balls = [flint.arb(entry) for entry in box]
    return [ball.mid() for ball in balls], [0 if ball.is_exact() else flint.arb(0, ball.rad()) for ball in balls]


def _is_point(box: Sequence[Any]) -> bool:
    import flint

    return all(flint.arb(entry).is_exact() for entry in box)


def _dot(slope: Sequence[Any], change: Sequence[Any]) -> Any:
    return sum(s * c for s, c in zip(slope, change, strict=True))


def _tighter(first: Any, second: Any) -> Any:
    """Intersect two enclosures of one set."""
    if not second.is_finite():
        return first
    return first.intersection(second) if first.is_finite() else second


def _nonnegative(ball: Any, diagonal: bool) -> Any:
    return ball.nonnegative_part() if diagonal and ball.is_finite() else ball
