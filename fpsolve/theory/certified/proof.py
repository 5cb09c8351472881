"""Proofs that a candidate is a sub- or supersolution: ranges of -A w over Ω and of w over S, in Arb."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from flint import arb

from fpsolve.theory.balls import Ball, above, below
from fpsolve.theory.certified.angular import Angular, Range, least, two_sided
from fpsolve.theory.certified.barrier import Barrier
from fpsolve.theory.certified.polynomial import Polynomial, exact_points
from fpsolve.theory.certified.reflection import corrected
from fpsolve.theory.certified.setting import Piece, Setting, Side
from fpsolve.theory.certified.task import Candidate

# a subsolution with -A w <= M is of no use beyond this M
LARGEST_FACTOR = 20.0
FINE = 1e-7
SPARE, ROUNDING, SMALL, TOUCHING = 0.05, 2e-15, 1e-4, 1e-7


@dataclass(frozen=True)
class Effort:
    """How accurately inequalities are worth knowing, relative to the mean exit time, and until when."""

    width: float
    deadline: float


def prove(setting: Setting, candidate: Candidate, effort: Effort) -> dict[Side, Barrier]:
    """Return the barriers, by kind, that the candidate gives; without those for which nothing is proved."""
    kinds: list[Side] = ["lower", "upper"] if candidate.kind == "both" else [candidate.kind]
    if not setting.reflecting:
        return _proved(setting, candidate, kinds, effort)
    found: dict[Side, Barrier] = {}
    for kind in kinds:
        own = corrected(setting, candidate, kind)
        if own is not None:
            found |= _proved(setting, own, [kind], effort)
    return found


def _proved(setting: Setting, candidate: Candidate, kinds: Sequence[Side], effort: Effort) -> dict[Side, Barrier]:
    w = setting.generator.holding(Polynomial.of_floats(candidate.lower, candidate.upper, candidate.coefficients))
    image, error = setting.generator(w)
    slack = above(error)
    excess = Polynomial(image.lower, image.upper, -image.coefficients)  # -A w - 1
    excess.coefficients.flat[0] = excess.coefficients.flat[0] - 1
    if not math.isfinite(slack):
        return {}
    found: dict[Side, Barrier] = {}
    once = _once(setting, excess, effort)
    for kind in kinds:
        if candidate.kind == "both":
            ranges = once(kind)
            inside = min(r.lower for r in ranges) if kind == "upper" else max(r.upper for r in ranges)
        else:
            inside = _one_sided(setting.interior(excess, kind), kind, effort)
        # where least squares makes w small everywhere on S, two-sided bounds are good enough
        small = SMALL * above(w.size()) if candidate.kind == "both" and setting.star is None else 0.0
        edge = _edge(setting.boundary(w, kind), kind, effort, small)
        edge += _rounding(setting, w) + (_touching(setting, w) if candidate.kind != "both" else 0.0)
        barrier = _barrier(candidate, kind, inside, edge, slack)
        if barrier is not None:
            found[kind] = barrier
    return found


def _rounding(setting: Setting, w: Polynomial) -> float:
    """Return what b gets besides on curved boundaries, where the checker uses a shell as thin as rounding."""
    if not (setting.absorbing and setting.curved):
        return 0.0
    x = exact_points(setting.boundary_points())
    slopes = [np.abs(w.derivative(axis).at(x).astype(float)).max() for axis in range(w.dimension)]
    return ROUNDING * float(sum(slopes)) * float(np.abs([w.lower, w.upper]).max())  # rounding of coordinates


def _touching(setting: Setting, w: Polynomial) -> float:
    """Return what b gets besides where w of a linear programme touches its bound on a curved boundary.

    A proof on a shell about the boundary needs a distance that is large beside the shell's thickness.
    """
    if not (setting.absorbing and setting.curved):
        return 0.0
    center = setting.domain.center if setting.star is None else setting.star.center
    return TOUCHING * above(abs(w.at(exact_points(np.array([center])))[0]))


def _once(setting: Setting, excess: Polynomial, effort: Effort) -> Callable[[Side], list[Range]]:
    """Return a function of the kind that proves both sides at once where Ω is the same for both kinds."""
    known: dict[Side, list[Range]] = {}

    def ranges(kind: Side) -> list[Range]:
        key: Side = "upper" if setting.star is None else kind
        if key not in known:
            known[key] = [_range(piece, setting, effort) for piece in setting.interior(excess, key)]
        return known[key]

    return ranges


def _range(piece: Angular, setting: Setting, effort: Effort) -> Range:
    """Return the range; on the many pieces of a level set by cells, which are faster and exact to about 1e-9."""
    if setting.star is None or effort.width < FINE:
        return two_sided(piece)
    tolerance = 0.1 * effort.width
    low = least(piece, tolerance, math.inf, -1.0, effort.deadline)[0]
    return Range(low, -least(piece.negative(), tolerance, math.inf, -LARGEST_FACTOR, effort.deadline)[0])


def _one_sided(pieces: Sequence[Angular], kind: Side, effort: Effort) -> float:
    """Return a lower bound of -A w - 1 (upper) or an upper bound (lower)."""
    tolerance = 0.1 * effort.width
    if kind == "upper":
        return min(least(piece, tolerance, math.inf, -1.0, effort.deadline)[0] for piece in pieces)
    bounds = [least(piece.negative(), tolerance, math.inf, -LARGEST_FACTOR, effort.deadline)[0] for piece in pieces]
    return -min(bounds)


def _edge(pieces: Sequence[Piece], kind: Side, effort: Effort, small: float) -> float:
    """Return b: ``w >= -b`` (upper) or ``w <= b`` (lower) on all pieces, not negative."""
    worst = 0.0
    for piece in pieces:
        if isinstance(piece, Angular):
            worst = max(worst, -_least_on(piece if kind == "upper" else piece.negative(), effort, small))
        else:
            worst = max(worst, -below(piece if kind == "upper" else -piece))
    return worst


def _least_on(piece: Angular, effort: Effort, small: float) -> float:
    """Return a lower bound of w on a piece of the boundary."""
    rough = two_sided(piece)
    if rough.upper - rough.lower <= small:
        return rough.lower
    spread = rough.upper - rough.lower
    return max(rough.lower, least(piece, 1e-3 * effort.width * spread, math.inf, -math.inf, effort.deadline)[0])


def _barrier(candidate: Candidate, kind: Side, inside: float, edge: float, slack: float) -> Barrier | None:
    """Return the barrier with m = 1 + inside (or M) and b = edge, moved by what errors of coefficients cost.

    And by a little more, so that other proofs of the same inequalities, as the checker's, need not be as sharp.
    """
    if not (math.isfinite(inside) and math.isfinite(edge)):
        return None
    lost = arb(slack) + arb(SPARE) * abs(arb(inside))
    rest = below(arb(inside) - lost) if kind == "upper" else above(arb(inside) + lost)
    offset = above(arb(1 + SPARE) * arb(edge))
    factor: Ball = arb(1) + arb(rest)
    if not (factor > 0 and factor.is_finite() and math.isfinite(offset)):
        return None
    return Barrier(kind, candidate.lower, candidate.upper, candidate.coefficients, (1.0, rest), offset)
