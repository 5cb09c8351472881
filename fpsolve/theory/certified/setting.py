"""Where inequalities are proved: Ω and the parts of its boundary, as ranges of angles.

A sublevel set is replaced by a larger set for upper bounds and by a smaller one for lower bounds (the mean exit time is
monotone in the domain); both are proved in `fpsolve.theory.certified.star`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from flint import arb

from fpsolve.model.domains import Ball as BallDomain
from fpsolve.model.domains import Box, Interval
from fpsolve.theory.balls import Ball, above, below
from fpsolve.theory.certified.angular import Angular, least
from fpsolve.theory.certified.arcs import StarBracket
from fpsolve.theory.certified.generator import BEYOND, Generator
from fpsolve.theory.certified.polynomial import Polynomial
from fpsolve.theory.certified.shapes import on_arc, on_ball, on_box, on_sector, on_sphere
from fpsolve.theory.certified.task import corners

Side = Literal["lower", "upper"]
Piece = Angular | Ball  # a number at the end of an interval
THIN = 1e-6  # relative width of a bracket


@dataclass(frozen=True, eq=False)
class Setting:
    """What the proofs need: Ω, its parts, and the generator with rigorous coefficients on a box around Ω.

    Attributes
    ----------
    domain : Interval, Box, Ball or Sublevel
    absorbing : tuple of str
        S.
    generator : Generator
    star : StarBracket or None
        For sublevel sets.
    """

    domain: Any
    absorbing: tuple[str, ...]
    generator: Generator
    star: StarBracket | None = None

    @property
    def reflecting(self) -> tuple[str, ...]:
        """The reflecting sides."""
        return tuple(self.domain.reflecting)

    @property
    def curved(self) -> bool:
        """Whether the boundary is curved."""
        return self.domain.dimension > 1 and not isinstance(self.domain, Box)

    def interior(self, p: Polynomial, kind: Side) -> list[Angular]:
        """Return p on Ω, or on the set that stands for it in lower or upper bounds."""
        if self.star is not None:
            if p.dimension == 1:
                return [on_box(p.moved(*self.ends(kind)))]
            return [on_sector(p, self.star.center, arc, self.scale(kind)) for arc in self.star.sectors]
        if isinstance(self.domain, BallDomain):
            return [on_ball(p, self.domain.center, self.domain.radius)]
        return [on_box(self.own(p))]

    def boundary(self, p: Polynomial, kind: Side) -> list[Piece]:
        """Return p on each part of S; on all points between both sets that stand for a sublevel set, for either kind.

        Nothing less would do: a lower bound is claimed at all points of Ω, also outside of the smaller set (it is not
        positive there), and a may be negative outside of Ω, where no process leads to the larger set's boundary.
        """
        if not self.absorbing:
            return []
        if self.star is not None:
            if p.dimension == 1:
                outer, inner = self.ends("upper"), self.ends("lower")
                return [on_box(p.moved(outer[0], inner[0])), on_box(p.moved(inner[1], outer[1]))]
            return self._between(p)
        if isinstance(self.domain, BallDomain):
            if p.dimension == 1:
                c, r = arb(self.domain.center[0]), arb(self.domain.radius)
                return list(p.at([np.array([c - r, c + r], dtype=object)]))
            return [on_sphere(p, self.domain.center, self.domain.radius)]
        return [on_face(self.own(p), *side(self.domain, name)) for name in self.absorbing]

    def _between(self, p: Polynomial) -> list[Piece]:
        """Return p between the two curves; from both, with the error ``(outer - inner)²/8 max|∂_s² p|``, if thin."""
        assert self.star is not None
        center, inner, outer = self.star.center, arb(self.star.inner), arb(self.star.outer)
        if self.star.width > THIN:
            return [on_sector(p, center, arc, self.star.outer, inner / outer) for arc in self.star.sectors]
        # |γ - c| is less than the lengths of the box, and the points lie in it: |T_k| <= 1 up to rounding
        bent = arb(0)
        for i in range(p.dimension):
            for j in range(p.dimension):
                bent += 4 * p.half(i) * p.half(j) * p.derivative(i).derivative(j).size()
        missed = (outer - inner) ** 2 / 8 * bent * BEYOND
        pieces = [on_arc(p, center, arc, s) for arc in self.star.sectors for s in (self.star.inner, self.star.outer)]
        for piece in pieces:
            piece.coefficients.flat[0] = piece.coefficients.flat[0] + arb(0, 1) * missed
        return list(pieces)

    def boundary_points(self) -> np.ndarray:
        """Return some points near a curved boundary, in floating point, shape (n, d)."""
        if self.star is not None:
            return np.array([arc[0] for arc in self.star.sectors])
        directions = np.random.default_rng(0).standard_normal((100, self.domain.dimension))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        return np.array(self.domain.center) + self.domain.radius * directions

    def own(self, p: Polynomial) -> Polynomial:
        """Return p in the variables of the box or interval Ω."""
        return p.moved(*corners(self.domain))

    def inside(self, lower: tuple[float, ...], upper: tuple[float, ...]) -> bool:
        """Tell whether the sublevel set's larger set is proved to lie in the box; others do by construction."""
        if self.star is None:
            return True
        if len(lower) == 1:
            ends = self.ends("upper")
            return ends[0][0] >= lower[0] and ends[1][0] <= upper[0]
        for axis in range(len(lower)):
            s = np.zeros((2,) * len(lower))
            s[tuple(int(k == axis) for k in range(len(lower)))] = 1.0  # the variable itself, in [-1, 1] on the box
            for piece in self.boundary(Polynomial.of_floats(lower, upper, [s]), "upper"):
                if not isinstance(piece, Angular) or not all(_above(side, -1.0) for side in (piece, piece.negative())):
                    return False
        return True

    def scale(self, kind: Side) -> float:
        """Return the scaling of the star's curve: the outer one for upper bounds."""
        assert self.star is not None
        return self.star.outer if kind == "upper" else self.star.inner

    def ends(self, kind: Side) -> tuple[tuple[float], tuple[float]]:
        """Return the ends of the interval that stands for a sublevel set in one dimension, rounded to the safe side."""
        assert self.star is not None
        c, s = arb(self.star.center[0]), arb(self.scale(kind))
        left, right = (c + s * (arb(arc[0][0]) - c) for arc in self.star.sectors)
        if kind == "upper":
            return (below(left),), (above(right),)
        return (above(left),), (below(right),)


def _above(piece: Angular, level: float) -> bool:
    return least(piece, 1e-4, level, level, time.monotonic() + 5.0)[0] >= level


def side(domain: Interval | Box, name: str) -> tuple[int, int]:
    """Return the axis and the sign of the outward normal of a side."""
    position = domain.names.index(name)
    return position // 2, 1 if position % 2 else -1


def on_face(p: Polynomial, axis: int, sign: int) -> Piece:
    """Return p on a side of its box."""
    face = p.face(axis, sign)
    return face.coefficients if p.dimension == 1 else on_box(face)
