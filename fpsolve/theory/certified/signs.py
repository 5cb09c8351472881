"""Signs and zeros of sympy expressions on boxes, proved: exact algebra for zeros, Arb balls and cutting for signs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import sympy
from flint import arb

from fpsolve.model.expressions import Formula
from fpsolve.theory.balls import above, below, box_balls, dot, finite

Expr = Any  # sympy.Expr, which has no type stubs
CELLS = 20_000
# of a cell: lower and upper corner
Test = Callable[[np.ndarray, np.ndarray], bool]


def singular(expression: Expr) -> bool:
    """Tell whether an expression holds infinities, kinks' derivatives or derivatives that could not be formed."""
    return bool(expression.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo, sympy.DiracDelta, sympy.Derivative))


def vanishes(expression: Expr, variables: Sequence[str], lower: np.ndarray, upper: np.ndarray) -> bool:
    """Tell whether an expression is zero identically; points of the box are tried first, simplification is slow."""
    if expression == 0:
        return True
    if singular(expression):
        return False
    formula = Formula(tuple(variables), (expression,))
    for k in range(1, 4):
        fraction = np.array([(0.618034 * k * (i + 1)) % 1.0 for i in range(len(lower))])
        point = lower + fraction * (upper - lower)
        value = formula.balls([arb(float(c)) for c in point])[0]
        if value.is_finite() and not value.contains(0):
            return False
    return bool(sympy.expand(expression) == 0 or sympy.simplify(expression) == 0)


def is_finite(expression: Expr, variables: Sequence[str]) -> Test:
    """Return the test whether the enclosure on a cell is finite."""
    formula = Formula(tuple(variables), (expression,))
    return lambda lo, hi: finite(formula.balls(box_balls(lo, hi)))


def enclosure(expression: Expr, variables: Sequence[str]) -> Callable[[np.ndarray, np.ndarray], tuple[float, float]]:
    """Return rigorous bounds of an expression on cells: the better of plain evaluation and mean-value form."""
    formula = Formula(tuple(variables), (expression,))
    slopes = formula.derivative()
    kinked = any(singular(entry) for entry in slopes.entries)

    def bounds(lo: np.ndarray, hi: np.ndarray) -> tuple[float, float]:
        box = box_balls(lo, hi)
        plain = formula.balls(box)[0]
        least, most = below(plain), above(plain)
        if not kinked and math.isfinite(most):
            middle = [arb(float(m)) for m in 0.5 * (lo + hi)]
            steps = [b - m for b, m in zip(box, middle, strict=True)]
            mean = formula.balls(middle)[0] + dot(slopes.balls(box), steps)
            least, most = max(least, below(mean)), min(most, above(mean))
        return least, most

    return bounds


def not_positive(expression: Expr, variables: Sequence[str]) -> Test:
    """Return the test whether an expression is <= 0 on a cell; also for rational ones such as -z², zero in places."""
    if expression.is_rational_function(*expression.free_symbols) and sympy.factor(expression).is_nonpositive:
        return is_finite(expression, variables)
    bounds = enclosure(expression, variables)
    return lambda lo, hi: bounds(lo, hi)[1] <= 0


def may_vanish(expression: Expr, variables: Sequence[str]) -> Test:
    """Return the test whether an expression is not proved different from zero on a cell."""
    bounds = enclosure(expression, variables)

    def test(lo: np.ndarray, hi: np.ndarray) -> bool:
        least, most = bounds(lo, hi)
        return not (least > 0 or most < 0)  # also where nothing is known

    return test


def everywhere(lower: np.ndarray, upper: np.ndarray, test: Test, deadline: float, aim: float = 1e-3) -> bool:
    """Tell whether the box is covered by cells that pass the test; sides of length zero are not cut.

    Depth first, and given up at the first cell below the size `aim` relative to the box: a test that fails on
    small cells fails near a point, where no cutting helps.
    """
    scale = upper - lower
    stack, count = [(lower, upper)], 0
    while stack:
        lo, hi = stack.pop()
        count += 1
        if test(lo, hi):
            continue
        relative = np.where(scale > 0, (hi - lo) / np.where(scale > 0, scale, 1.0), 0.0)
        side = int(np.argmax(relative)) if len(relative) else 0
        if not len(relative) or relative[side] <= max(aim, 1e-12):
            return False
        if count >= CELLS or time.monotonic() >= deadline:
            return False
        middle = 0.5 * (lo[side] + hi[side])
        left, right = hi.copy(), lo.copy()
        left[side] = right[side] = middle
        stack += [(lo, left), (right, hi)]
    return True
