"""Candidates in one dimension: ``-(a w'' + f w') = 1`` solved by Chebyshev collocation in Arb.

Nothing is proved here, but there is no float's floor either: the equations and the elimination have hundreds of bits,
and the coefficients are returned as a sum of several float arrays. u may exceed 1e16 many times over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from flint import arb, arb_mat, ctx

from fpsolve.theory.certified.coefficients import Coefficients, coefficients_of, upper_pairs
from fpsolve.theory.certified.float_sums import float_sum
from fpsolve.theory.certified.points import even_axes
from fpsolve.theory.certified.task import Candidate, Task

#: Arrays are added until their rounding errors are below this part of the error of the polynomial itself.
ROUNDING = 0.01


def solve_interval(task: Task, degree: int, precision: int) -> Candidate | None:
    """Return the polynomial that solves the equation at Chebyshev nodes, with ``w = 0`` at absorbing ends.

    Parameters
    ----------
    task : Task
        In one dimension; reflecting ends get ``w' = 0``, unreachable ends one node more of the equation.
    degree : int
        At least 2; rounded up to an even number where the problem is even.
    precision : int
        Bits.

    Returns
    -------
    Candidate or None
        None where no end absorbs or the equations have no finite solution.

    Raises
    ------
    ValueError
        If f and a are not known in Arb; see `coefficients_of`.
    """
    found = solve_axis(task, 0, degree, precision)
    if found is None:
        return None
    lower, upper = task.domain.bounding_box()
    return Candidate((float(lower[0]),), (float(upper[0]),), found.arrays)


@dataclass(frozen=True)
class LineSolution:
    """Chebyshev coefficients along one axis, as a sum of arrays, and sup|-A w - 1| between the nodes."""

    arrays: tuple[np.ndarray, ...]
    residual: float


def solve_axis(task: Task, axis: int, degree: int, precision: int) -> LineSolution | None:
    """Solve for a w that depends on one coordinate of a box only; see `solve_interval`, `free_axes`."""
    kinds = _kinds(task, axis)
    if "absorbing" not in kinds:
        return None
    even = even_axes(task)[axis]
    step = 2 if even else 1
    orders = np.arange(0, max(2, degree) + step, step)
    ends = [(arb(1), kinds[1])] if even else [(arb(-1), kinds[0]), (arb(1), kinds[1])]
    ends = [(z, kind) for z, kind in ends if kind != "unreachable"]
    with ctx.workprec(precision):
        line = _Line.of(task, axis)
        z = _zeros(len(orders) - len(ends), even)
        rows = line.rows(z, orders)
        right = [[arb(1)]] * len(rows) + [[arb(0)]] * len(ends)
        rows += [_condition(end, kind, orders) for end, kind in ends]
        try:
            solution = arb_mat(rows).solve(arb_mat(right), algorithm="approx")
        except ZeroDivisionError:
            return None
        c = [x.mid() for x in solution.entries()]
        if not all(x.is_finite() for x in c):
            return None
        return _split(c, line, orders, even, precision)


def _kinds(task: Task, axis: int) -> list[str]:
    names = task.domain.names
    names = names[2 * axis : 2 * axis + 2] if len(names) > 1 else names * 2
    return [
        "unreachable" if n in task.unreachable else "reflecting" if n in task.domain.reflecting else "absorbing"
        for n in names
    ]


@dataclass(frozen=True)
class _Line:
    """The operator -A on z of [-1, 1]: x_axis = middle + half z, the other coordinates fixed."""

    coefficients: Coefficients
    axis: int
    middle: list[Any]
    half: Any

    @classmethod
    def of(cls, task: Task, axis: int) -> _Line:
        lower, upper = ([arb(float(v)) for v in end] for end in task.domain.bounding_box())
        middle = [(p + q) / 2 for p, q in zip(lower, upper, strict=True)]
        return cls(coefficients_of(task.process), axis, middle, (upper[axis] - lower[axis]) / 2)

    def rows(self, z: list[Any], orders: np.ndarray) -> list[list[Any]]:
        """Return -A T_j at each z (not ±1) for the given j."""
        points = [[m + self.half * t if k == self.axis else m for t in z] for k, m in enumerate(self.middle)]
        columns = self.coefficients.columns(points)
        d = len(self.middle)
        f, a = columns[self.axis], columns[d + upper_pairs(d).index((self.axis, self.axis))]
        return [_row(t, p / self.half, q / self.half**2, orders) for t, p, q in zip(z, f, a, strict=True)]


def _row(z: Any, f: Any, a: Any, orders: np.ndarray) -> list[Any]:
    # T_j' = j U_{j-1} and (1 - z²) T_j'' = z T_j' - j² T_j
    bend = a / (1 - z * z)
    slope, value = -(f + bend * z).mid(), bend.mid()
    result, before, now = [arb(0)], arb(0), arb(1)  # U_{-1}, U_0
    twice, t = 2 * z, [arb(1), z]
    for j in range(1, int(orders[-1]) + 1):
        result.append(j * (slope * now + (j * value) * t[1]))
        before, now = now, twice * now - before
        t = [t[1], twice * t[1] - t[0]]
    return [result[j] for j in orders]


def _condition(z: Any, kind: str, orders: np.ndarray) -> list[Any]:
    """Return the values (absorbing) or slopes (reflecting) of the T_j at z = ±1."""
    degrees: list[int] = [int(j) for j in orders]
    sign = [1 if z > 0 or j % 2 == 0 else -1 for j in degrees]
    if kind == "absorbing":
        return [arb(s) for s in sign]
    return [arb(-s * j * j if z < 0 else s * j * j) for s, j in zip(sign, degrees, strict=True)]


def _zeros(n: int, even: bool) -> list[Any]:
    """Return the n zeros of T_n; for even problems the positive ones of T_2n."""
    total = 2 * n if even else n
    return [(arb.pi() * (2 * k + 1) / (2 * total)).cos().mid() for k in range(n)]


def _split(c: list[Any], line: _Line, orders: np.ndarray, even: bool, precision: int) -> LineSolution:
    """Return the coefficients as a sum of as many float arrays as the polynomial's own error deserves."""
    between = _zeros(len(orders) + 1, even)
    table = line.rows(between, orders)
    residual = (arb_mat(table) * arb_mat([[x] for x in c])).entries()
    wrong = max(abs((x - 1).mid()) for x in residual)
    weights = np.zeros(int(orders[-1]) + 1)
    weights[orders] = [float(max(abs(row[k]).upper() for row in table)) for k in range(len(orders))]
    values = np.full(len(weights), arb(0), dtype=object)
    values[orders] = c
    tolerable = ROUNDING * float(wrong) + 2.0 ** (-(precision // 2))
    return LineSolution(float_sum(values, weights, tolerable, precision), float(wrong))
