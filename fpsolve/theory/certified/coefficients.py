"""Drift f and diffusion a of a process as functions of real and of complex balls.

Complex values are the analytic continuation and finite only where it is proved to exist, see `surrogate_arithmetic`;
they bound polynomial approximations of f and a (`surrogate`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import sympy
from flint import acb, arb, arb_mat

from fpsolve.model.expressions import Formula, symbols
from fpsolve.model.process import FormulaLandscape, Process
from fpsolve.model.sample_program import Program, compile_program, run_balls
from fpsolve.model.samples import SampleLandscape
from fpsolve.theory.balls import Ball
from fpsolve.theory.certified.surrogate_arithmetic import run_complex

Degrees = tuple[int | None, ...]
#: Formulas whose expansion may have more terms than this are not expanded to find their degree.
_MOST_TERMS = 2000


class Source(Protocol):
    """Functions g_1 … g_d and the upper triangle of a matrix q, row by row."""

    @property
    def degrees(self) -> tuple[Degrees, ...]:
        """For each function its degree in each variable; None: no polynomial in this variable."""

    def columns(self, points: Sequence[Sequence[Ball]], complex_balls: bool) -> list[list[Ball]]:
        """Evaluate at points, given as one list of arb or acb for each variable; one list for each function."""


@dataclass(frozen=True, eq=False)
class Coefficients:
    """Rigorous drift f and diffusion a of a process, at flint's current precision.

    Attributes
    ----------
    variables : tuple of str
    source : Source
        f and a themselves, or ∇L and Q.
    noise : (ε², scale, extra) or None
        f = -∇L and a = ε² scale Q + extra I for these exact floats; None: the source is f and a.
    """

    variables: tuple[str, ...]
    source: Source
    noise: tuple[float, float, float] | None = None

    @property
    def dimension(self) -> int:
        """The number of variables d."""
        return len(self.variables)

    @property
    def degrees(self) -> tuple[Degrees, ...]:
        """The degree in each variable (None: no polynomial in it) of f's d entries and a's upper triangle."""
        return self.source.degrees

    @property
    def degree(self) -> tuple[int, ...] | None:
        """The largest degree in each variable over f and a; None if not all of them are polynomials."""
        found = [[n for n in column if n is not None] for column in zip(*self.degrees, strict=True)]
        if any(len(column) < len(self.degrees) for column in found):
            return None
        return tuple(max(column) for column in found)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the entries that `degrees` and `columns` are about, for messages."""
        x = self.variables
        return (*(f"drift[{n}]" for n in x), *(f"diffusion[{x[i]}, {x[j]}]" for i, j in upper_pairs(len(x))))

    def columns(self, points: Sequence[Sequence[Ball]]) -> list[list[Ball]]:
        """Evaluate the entries of f and the upper triangle of a at many points or boxes.

        Parameters
        ----------
        points : d lists of n balls
            One list for each variable, all of `arb` or all of `acb`.

        Returns
        -------
        d + d(d+1)/2 lists of n balls
            Non-finite where there is no enclosure or, for `acb`, no proof of analyticity.
        """
        complex_balls = any(isinstance(ball, acb) for column in points for ball in column[:1])
        values = self.source.columns(points, complex_balls)
        if self.noise is None:
            return values
        d = self.dimension
        strength, extra = arb(self.noise[0]) * arb(self.noise[1]), arb(self.noise[2])
        result = [[-ball for ball in column] for column in values[:d]]
        for (i, j), column in zip(upper_pairs(d), values[d:], strict=True):
            result.append([strength * q + extra for q in column] if i == j else [strength * q for q in column])
        return result

    def drift(self, x: Sequence[Ball]) -> list[Ball]:
        """Return f at one point or box of d `arb`, or its continuation at d `acb`."""
        return [column[0] for column in self.columns(_single(x))[: self.dimension]]

    def diffusion(self, x: Sequence[Ball]) -> list[Ball]:
        """Return a at one point or box, row-major; see `drift`."""
        d = self.dimension
        packed = [column[0] for column in self.columns(_single(x))[d:]]
        place = {pair: k for k, pair in enumerate(upper_pairs(d))}
        return [packed[place[min(i, j), max(i, j)]] for i in range(d) for j in range(d)]


def coefficients_of(process: Process) -> Coefficients:
    """Return f and a of a process as functions of balls.

    Raises
    ------
    ValueError
        If they are not given by formulas, or by a model that is a formula and data.
    """
    landscape = process.landscape
    if landscape is None:
        if isinstance(process.drift, Formula) and isinstance(process.diffusion, Formula):
            return Coefficients(process.variables, FormulaSource.of(process.drift, process.diffusion))
        raise ValueError("no rigorous coefficients: drift and diffusion are Python functions, not formulas")
    if process.epsilon2 is None:
        raise ValueError("no rigorous coefficients: the process has a loss but no noise level")
    noise = (float(process.epsilon2), float(process.covariance_scale), float(process.extra_diffusion))
    if not all(map(math.isfinite, noise)):
        raise ValueError(f"no rigorous coefficients: the noise level {noise} is not finite")
    if isinstance(landscape, FormulaLandscape):
        source: Source = FormulaSource.of(landscape.loss_formula.derivative(), landscape.covariance_formula)
    elif isinstance(landscape, SampleLandscape):
        from fpsolve.theory.certified.surrogate_samples import SampleSource

        source = SampleSource.of(landscape)
    else:
        kind = type(landscape).__name__
        raise ValueError(f"no rigorous coefficients: a {kind} is not given by formulas, or by a formula and data")
    return Coefficients(process.variables, source, noise)


def upper_pairs(d: int) -> list[tuple[int, int]]:
    """Return the places of the upper triangle of a d × d matrix, row by row."""
    return [(i, j) for i in range(d) for j in range(i, d)]


def negative_noise(coefficients: Coefficients, points: np.ndarray) -> tuple[float, ...] | None:
    """Return one of the points (n, d) at which a is proved not to be nonnegative, if there is one.

    By principal minors, with a margin of 1e-9; sums over samples are nonnegative as they are made.
    """
    if not isinstance(coefficients.source, FormulaSource) or not len(points):
        return None
    d = coefficients.dimension
    for x in points:
        a = coefficients.diffusion([arb(float(c)) for c in x])
        scale = sum((abs(entry) for entry in a), arb(0))
        for size in range(1, d + 1):
            for rows in itertools.combinations(range(d), size):
                minor = arb_mat([[a[i * d + j] for j in rows] for i in rows]).det()
                if minor + arb(1e-9) * scale**size < 0:
                    return tuple(float(c) for c in x)
    return None


@dataclass(frozen=True, eq=False)
class FormulaSource:
    """A vector and a symmetric matrix of formulas; implements `Source`."""

    program: Program
    degrees: tuple[Degrees, ...]

    @classmethod
    def of(cls, vector: Formula, matrix: Formula) -> FormulaSource:
        """Compile the formulas; entries (i, j) and (j, i) of the matrix are equal functions."""
        d = vector.dimension
        entries = [*vector.entries, *(matrix.entries[i * d + j] for i, j in upper_pairs(d))]
        names = symbols(vector.variables)
        # all points at once: every variable is a column of level 1; `run_balls` wants a target (level 2) besides
        try:
            program = compile_program(entries, (*names, sympy.Dummy()), (*[1] * d, 2))
        except TypeError as error:
            raise ValueError(f"no rigorous coefficients: {error}") from None
        return cls(program, tuple(polynomial_degrees(entry, names) for entry in entries))

    def columns(self, points: Sequence[Sequence[Ball]], complex_balls: bool) -> list[list[Ball]]:
        """Evaluate; see `Source`."""
        count = len(points[0])
        if not complex_balls:
            return run_balls(self.program, [], [list(column) for column in points], [arb(0)] * count, None)
        values = run_complex(self.program, [*(list(map(acb, column)) for column in points), [acb(0)] * count])
        return [value if isinstance(value, list) else [value] * count for value in values]


def polynomial_degrees(expression: sympy.Expr, names: Sequence[sympy.Symbol]) -> Degrees:
    """Return the degree (or a bound of it) in each variable; None where the expression is no polynomial in it."""
    bound = tuple(degree_bound(expression, name) for name in names)
    known = [n for n in bound if n is not None]
    if len(known) < len(bound) or max(known) == 0 or math.prod(n + 1 for n in known) > _MOST_TERMS:
        return bound
    exact = sympy.Poly(expression, *names).degree_list()  # -oo for zero
    return tuple(int(n) if n.is_finite else 0 for n in map(sympy.sympify, exact))


def degree_bound(expression: sympy.Expr, name: sympy.Symbol) -> int | None:
    """Return a bound of the degree in one variable from the form of the expression; None if it is no polynomial."""
    if name not in expression.free_symbols:
        return 0
    if expression == name:
        return 1
    if expression.is_Pow and expression.exp.is_Integer and expression.exp > 0:
        inner = degree_bound(expression.base, name)
        return None if inner is None else inner * int(expression.exp)
    if not (expression.is_Add or expression.is_Mul):
        return None
    parts = [degree_bound(argument, name) for argument in expression.args]
    known = [n for n in parts if n is not None]
    if len(known) < len(parts):
        return None
    return max(known) if expression.is_Add else sum(known)


def _single(x: Sequence[Ball]) -> list[list[Ball]]:
    if any(isinstance(ball, acb) for ball in x):
        return [[acb(ball)] for ball in x]
    return [[arb(ball)] for ball in x]
