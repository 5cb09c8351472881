"""Bounds of f and a on filled Bernstein ellipses, by covers of complex boxes.

In coordinates where the box of the surrogates is [-1, 1]^d, one variable ranges over the filled ellipse E_ρ with foci
±1 and half-axes (ρ ± 1/ρ)/2, the others over [-1, 1]. Where a coefficient is finite on boxes that cover this set, it is
analytic there and bounded by the largest ball. f and a are real on the real axis, so the upper half of E_ρ suffices
(Schwarz's reflection). The boundary of E_ρ alone would not do: a pole inside stays unseen.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flint import acb, arb, ctx

from fpsolve.theory.balls import Ball, above, interval
from fpsolve.theory.certified.coefficients import Coefficients

#: Bits for boxes: they are wide, so more would be wasted.
_PRECISION = 53
#: Boxes evaluated together.
_BATCH = 8
#: A box is not divided more than this often for each side; if it is not finite then, it is near a singularity.
_DEPTH = 9
#: A box counts as outside the ellipse if its nearest point is by this much, far above rounding.
_OUTSIDE = 1 + 1e-9
#: Boxes are divided until each bound is at most this, or ρ if larger, times a value that is taken: a factor ρ is worth
#: one degree of the interpolation.
_TIGHT = 2.5


@dataclass(frozen=True, eq=False)
class Region:
    """Filled Bernstein ellipse × box.

    Attributes
    ----------
    lower, upper : tuple of float
        The box.
    axis : int
        The variable that ranges over the ellipse.
    rho : float
        ρ > 1.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    axis: int
    rho: float

    def balls(self, boxes: np.ndarray) -> list[list[Ball]]:
        """Return columns of acb for boxes (n, 2d + 2): Re of every variable, then Im of the complex one."""
        ends: list[list[float]] = boxes.T.tolist()  # type: ignore[assignment]
        sides = [list(map(interval, lo, hi)) for lo, hi in zip(ends[::2], ends[1::2], strict=True)]
        result = []
        for k, (a, b) in enumerate(zip(self.lower, self.upper, strict=True)):
            middle, half = (arb(a) + arb(b)) / 2, (arb(b) - arb(a)) / 2
            real = [middle + half * t for t in sides[k]]
            if k == self.axis:
                result.append([acb(x, half * t) for x, t in zip(real, sides[-1], strict=True)])
            else:
                result.append([acb(x) for x in real])
        return result

    def whole(self) -> np.ndarray:
        """Return one box around the upper half of the region."""
        real, imag = self.half_axes()
        box = [-1.0, 1.0] * len(self.lower) + [0.0, imag]
        box[2 * self.axis : 2 * self.axis + 2] = [-real, real]
        return np.array([box])

    def half_axes(self) -> tuple[float, float]:
        """Return numbers >= (ρ + 1/ρ)/2 and >= (ρ - 1/ρ)/2."""
        rho = arb(self.rho)
        return above((rho + 1 / rho) / 2), above((rho - 1 / rho) / 2)

    def meets(self, boxes: np.ndarray) -> np.ndarray:
        """Tell which boxes may meet the ellipse."""
        real, imag = self.half_axes()
        lo, hi = boxes[:, 2 * self.axis], boxes[:, 2 * self.axis + 1]
        nearest = np.maximum(np.maximum(lo, -hi), 0.0)
        return (nearest / real) ** 2 + (boxes[:, -2] / imag) ** 2 <= _OUTSIDE


@dataclass(frozen=True, eq=False)
class EllipseBounds:
    """What is known on one filled ellipse.

    Attributes
    ----------
    bounds : ndarray, shape (entries,)
        For each entry of `Coefficients.columns` a number >= its modulus; inf where it is not proved analytic.
    places : tuple of str
        For each of these entries a box that is to blame, in words; "" elsewhere.
    boxes : int
        Boxes evaluated.
    """

    bounds: np.ndarray
    places: tuple[str, ...]
    boxes: int


def ellipse_bounds(
    coefficients: Coefficients,
    region: Region,
    wanted: Sequence[int],
    limit: int = 4000,
    deadline: float = float("inf"),
) -> EllipseBounds:
    """Bound entries of f and a on a filled ellipse times a box.

    Parameters
    ----------
    coefficients : Coefficients
    region : Region
    wanted : sequence of int
        The entries that matter, as numbered by `Coefficients.columns`; the others get inf.
    limit : int
        The largest number of boxes to evaluate.
    deadline : float
        In `time.monotonic()`; without a proof until then the bound is inf.
    """
    with ctx.workprec(min(ctx.prec, _PRECISION)):
        search = _Search(coefficients, region, np.array(sorted(wanted), dtype=int), limit, deadline)
        search.cover()
        search.refine()
    return search.result()


class _Search:
    """State of one cover: accepted boxes with bounds of each entry."""

    def __init__(
        self, coefficients: Coefficients, region: Region, wanted: np.ndarray, limit: int, deadline: float
    ) -> None:
        self.coefficients, self.region, self.limit, self.deadline = coefficients, region, limit, deadline
        self.entries, self.active = len(coefficients.names), wanted
        self.places = [""] * self.entries
        self.count = 0
        self.boxes: np.ndarray = np.empty((0, region.whole().shape[1]))
        self.high: np.ndarray = np.empty((0, self.entries))
        self.low = np.zeros(self.entries)
        free = [all(coefficients.degrees[entry][k] == 0 for entry in wanted) for k in range(coefficients.dimension)]
        self.weights = np.array([*(0.0 if f else 1.0 for f in free), 1.0])  # no cuts where nothing changes
        self.depth = _DEPTH * int(self.weights.sum())

    def evaluate(self, boxes: np.ndarray) -> np.ndarray:
        """Return upper bounds of the moduli (n, entries), inf where not finite; note values that are taken."""
        self.count += len(boxes)
        high = np.full((len(boxes), self.entries), np.inf)
        columns = self.coefficients.columns(self.region.balls(boxes))
        for entry in self.active:
            for k, ball in enumerate(columns[entry]):
                if ball.is_finite():
                    high[k, entry] = above(acb(ball).abs_upper())
                    self.low[entry] = max(self.low[entry], float(acb(ball).abs_lower()))
        return high

    def halves(self, boxes: np.ndarray) -> np.ndarray:
        """Divide each box across its longest side; leave out what lies outside the ellipse."""
        width = boxes[:, 1::2] - boxes[:, ::2]
        rows, side = np.arange(len(boxes)), (width * self.weights).argmax(axis=1)
        middle = boxes[rows, 2 * side] + width[rows, side] / 2
        first, second = boxes.copy(), boxes.copy()
        first[rows, 2 * side + 1] = middle
        second[rows, 2 * side] = middle
        both = np.concatenate([first, second])
        return both[self.region.meets(both)]

    def cover(self) -> None:
        """Divide boxes, the last ones first, until all wanted entries are finite on each; give up entries."""
        stack = [(self.region.whole(), 0)]  # batches of boxes of equal depth
        accepted, values = [self.boxes], [self.high]
        while stack and len(self.active):
            if self.count >= self.limit or time.monotonic() > self.deadline:
                for entry in self.active:
                    self.give_up(entry, stack[-1][0][0], "not decided within the limits of the search")
                break
            batch, depth = stack.pop()
            if len(batch) > _BATCH:
                stack.append((batch[:-_BATCH], depth))
                batch = batch[-_BATCH:]
            high = self.evaluate(batch)
            bad = ~np.isfinite(high[:, self.active])
            if depth == self.depth and bad.any():
                for entry, column in zip(self.active, bad.T, strict=True):
                    if column.any():
                        self.give_up(entry, batch[np.flatnonzero(column)[0]], "not analytic, as far as proved,")
                bad = ~np.isfinite(high[:, self.active])
            open_ = bad.any(axis=1)
            accepted.append(batch[~open_])
            values.append(high[~open_])
            if open_.any():
                children = self.halves(batch[open_])
                if len(children):
                    stack.append((children, depth + 1))
        self.boxes, self.high = np.concatenate(accepted), np.concatenate(values)

    def give_up(self, entry: int, box: np.ndarray, reason: str) -> None:
        self.active = self.active[self.active != entry]
        point = ", ".join(
            f"{name} = {_complex(column[0])}"
            for name, column in zip(self.coefficients.variables, self.region.balls(box[None]), strict=True)
        )
        self.places[entry] = f"{reason} near {point}"

    def refine(self) -> None:
        """Divide the boxes with the largest bounds until these are not much larger than values that are taken."""
        most = 2 * self.count + 200
        while len(self.active) and self.count < most and time.monotonic() < self.deadline:
            largest = self.high[:, self.active].max(axis=0)
            with np.errstate(over="ignore"):
                ratio = largest / np.maximum(self.low[self.active], 1e-300)
            worst = int(ratio.argmax())
            if ratio[worst] <= max(_TIGHT, self.region.rho):
                return
            column = self.high[:, self.active[worst]]
            chosen = np.zeros(len(column), dtype=bool)
            chosen[np.argsort(column)[-_BATCH:]] = True
            chosen &= column >= largest[worst] / 2
            children = self.halves(self.boxes[chosen])
            ceiling = self.high[chosen].max(axis=0)  # what holds for the parents holds for their children
            high = np.minimum(self.evaluate(children), ceiling)
            self.boxes = np.concatenate([self.boxes[~chosen], children])
            self.high = np.concatenate([self.high[~chosen], high])

    def result(self) -> EllipseBounds:
        """Return the bounds that are proved."""
        bounds = np.full(self.entries, np.inf)
        if len(self.active) and len(self.high):
            bounds[self.active] = self.high[:, self.active].max(axis=0)
        return EllipseBounds(bounds, tuple(self.places), self.count)


def _complex(ball: Ball) -> str:
    value = complex(float(ball.real.mid()), float(ball.imag.mid()))
    return f"{value.real:.4g}" + (f" + {value.imag:.4g}i" if value.imag else "")
