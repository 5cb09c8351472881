"""Learning rate and batch size that change in time: ε²(t) = η(t)/(2 b(t)), relative to the process' own ε².

As in Dai-Zhu (3), ``dW = -∇L dt + sqrt(2 ε²(t) Q) dB``: time is measured in learning rate, the step k lasts
η(t_k), so a changing learning rate enters the equation only through ``a = ε²(t) Q``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import sympy

from fpsolve.errors import InputError
from fpsolve.model.expressions import Formula, parse

#: Points in which a formula is looked at, over the whole time and over one step.
MANY, FEW = 4001, 17
VARIABLE = "t"


@dataclass(frozen=True)
class Schedule:
    """θ(t) = ε²(t)/ε².

    Attributes
    ----------
    breaks : tuple of float
        Times at which θ may jump, increasing, all > 0.
    values : tuple of float
        θ between them (one more than breaks), where it is piecewise constant; empty otherwise.
    pieces : tuple of Formula
        θ between the breaks as formulas in t; empty where it is piecewise constant.
    """

    breaks: tuple[float, ...] = ()
    values: tuple[float, ...] = (1.0,)
    pieces: tuple[Formula, ...] = ()

    @property
    def constant(self) -> bool:
        """Whether θ = 1 at all times."""
        return self.values == (1.0,)

    @property
    def piecewise(self) -> bool:
        """Whether θ is constant between the breaks."""
        return not self.pieces

    def theta(self, t: float, dt: float) -> float:
        """Return θ for the step from t to t + dt, which contains no break inside: its value at the midpoint.

        The exponential midpoint rule, of second order in dt where θ changes inside the step.

        Raises
        ------
        InputError
            When a formula is not finite and positive there.
        """
        middle = t + dt / 2
        value = float(self._values(self._piece(middle), np.array([middle]))[0])
        if not 0 < value < np.inf:
            raise _not_positive(middle, value)
        return value

    def variation(self, t: float, dt: float) -> float:
        """Return the largest ``|θ(s) - θ|/θ`` over the step from t to t + dt, θ that of `theta`; 0 where constant."""
        if self.piecewise:
            return 0.0
        theta = self.theta(t, dt)
        inside = self._values(self._piece(t + dt / 2), np.linspace(t, t + dt, FEW))
        return float(np.abs(inside - theta).max() / theta)

    def largest(self, t: float) -> float:
        """Return the maximum of θ up to time t (of a formula: over a few thousand times)."""
        return max(float(values.max()) for _, values in self._samples(t))

    def final(self, t: float) -> float:
        """Return θ just before time t."""
        k = int(np.searchsorted(self.breaks, t, side="left"))
        return float(self._values(k, np.array([t]))[0])

    def check(self, until: float) -> None:
        """Raise InputError unless θ is finite and positive in a few thousand times from 0 to `until`."""
        for times, values in self._samples(until):
            wrong = np.flatnonzero(~((values > 0) & np.isfinite(values)))
            if len(wrong):
                raise _not_positive(float(times[wrong[0]]), float(values[wrong[0]]))

    def _piece(self, t: float) -> int:
        return int(np.searchsorted(self.breaks, t, side="right"))

    def _values(self, k: int, times: np.ndarray) -> np.ndarray:
        return self.pieces[k](times[:, None]) if self.pieces else np.full(len(times), self.values[k])

    def _samples(self, until: float) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return times and θ there for each piece that begins before `until` (and for the first one)."""
        ends = [0.0, *(b for b in self.breaks if b < until), until]
        grids = [np.linspace(a, b, MANY) for a, b in pairwise(ends)]
        return [(grid, self._values(k, grid)) for k, grid in enumerate(grids)]


def _not_positive(t: float, value: float) -> InputError:
    found = f"ε² times {value:.6g} at t = {t:.6g}"
    return InputError("process.schedule", found, "a finite positive noise at all times")


def schedule_from(
    learning_rate: object,
    batch_size: object,
    base_epsilon2: float,
    key: str = "process.schedule",
    until: float | None = None,
) -> Schedule:
    """Return θ(t) = η(t)/(2 b(t) ε²) from learning rate and batch size in time.

    Parameters
    ----------
    learning_rate, batch_size : number, formula in t, or [[t0, value], ...]
        A list holds each value from its time on; the first time is 0. Batch sizes in numbers and lists are
        integers of at least 1; a formula need not give integers: ε² = η/(2b) makes sense for all b.
    base_epsilon2 : float
        ε² of the process.
    until : float, optional
        Formulas must be finite and positive, a batch at least 1, up to this time.

    Raises
    ------
    InputError
    """
    if not (isinstance(base_epsilon2, (int, float)) and 0 < base_epsilon2 < np.inf):
        raise InputError("process.epsilon2", base_epsilon2, "a positive number")
    eta = _track(learning_rate, f"{key}.learning_rate", whole=False)
    batch = _track(batch_size, f"{key}.batch_size", whole=True)
    if until is not None:
        eta.check(until, f"{key}.learning_rate", 0.0)
        batch.check(until, f"{key}.batch_size", 1.0)
    breaks = tuple(sorted({*eta.starts[1:], *batch.starts[1:]}))
    base = sympy.Rational(repr(float(base_epsilon2)))
    pieces = [eta.at(t) / (2 * batch.at(t) * base) for t in (0.0, *breaks)]
    if all(piece.is_number for piece in pieces):
        schedule = Schedule(*_merged(breaks, tuple(_snapped(float(piece)) for piece in pieces)))
    else:
        schedule = Schedule(breaks, (), tuple(Formula((VARIABLE,), (piece,)) for piece in pieces))
    if until is not None:
        schedule.check(until)
    return schedule


def _snapped(theta: float) -> float:
    """Return 1 for what differs from 1 by the rounding of ε²: η and b of the process itself change nothing."""
    return 1.0 if abs(theta - 1.0) < 1e-15 else theta


def _merged(breaks: tuple[float, ...], values: tuple[float, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Leave out breaks at which nothing changes: halving η and b together is no change of ε²."""
    kept = [k for k in range(len(breaks)) if values[k + 1] != values[k]]
    return tuple(breaks[k] for k in kept), (values[0], *(values[k + 1] for k in kept))


@dataclass(frozen=True)
class _Track:
    """One quantity in time: expressions in t, each from its start on."""

    starts: tuple[float, ...]
    expressions: tuple[sympy.Expr, ...]

    def at(self, t: float) -> sympy.Expr:
        """Return the expression in force from t on."""
        return self.expressions[int(np.searchsorted(self.starts, t, side="right")) - 1]

    def check(self, until: float, key: str, least: float) -> None:
        """Raise InputError unless all values up to a time are finite, positive and at least `least`."""
        for k, expression in enumerate(self.expressions):
            begin, end = self.starts[k], min(until, *self.starts[k + 1 : k + 2], until)
            if expression.is_number or begin >= end:
                continue
            times = np.linspace(begin, end, MANY)
            values = Formula((VARIABLE,), (expression,))(times[:, None])
            wrong = np.flatnonzero(~((values > 0) & (values >= least) & np.isfinite(values)))
            if len(wrong):
                found = f"{expression} = {values[wrong[0]]:.6g} at t = {times[wrong[0]]:.6g}"
                raise InputError(key, found, f"{'a number of at least 1' if least else 'positive'} up to t = {until:g}")


def _track(value: Any, key: str, whole: bool) -> _Track:
    if isinstance(value, str):
        return _Track((0.0,), (_constant(parse(value, (VARIABLE,), key), key, whole),))
    if isinstance(value, (list, tuple)):
        return _list(value, key, whole)
    return _Track((0.0,), (_number(value, key, whole),))


def _list(value: Any, key: str, whole: bool) -> _Track:
    if not value or not all(isinstance(row, (list, tuple)) and len(row) == 2 for row in value):
        raise InputError(key, value, "a list of pairs [time, value]")
    starts = []
    for i, row in enumerate(value):
        if isinstance(row[0], bool) or not isinstance(row[0], (int, float)) or not 0 <= row[0] < np.inf:
            raise InputError(f"{key}[{i}]", row, "a pair [time, value] with a time of at least 0")
        starts.append(float(row[0]))
    if starts[0] != 0:
        raise InputError(key, value, "a list that begins at time 0", f"The first time is {starts[0]:g}.")
    for i in range(1, len(starts)):
        if not starts[i] > starts[i - 1]:
            raise InputError(f"{key}[{i}]", value[i], f"a time later than {starts[i - 1]:g}")
    return _Track(tuple(starts), tuple(_number(row[1], f"{key}[{i}]", whole) for i, row in enumerate(value)))


def _number(value: Any, key: str, whole: bool) -> sympy.Expr:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < np.inf:
        raise InputError(key, value, "a positive number, a formula in t or a list [[time, value], ...]")
    if whole and (value < 1 or value != int(value)):
        raise InputError(key, value, "an integer of at least 1")
    return sympy.Rational(repr(value))


def _constant(expression: sympy.Expr, key: str, whole: bool) -> sympy.Expr:
    """Check a formula that does not depend on t like a value; others can only be checked where they are used."""
    if expression.is_number and not float(expression) > 0:
        raise InputError(key, str(expression), "a positive number")
    if expression.is_number and whole and float(expression) < 1:
        raise InputError(key, str(expression), "a number of at least 1")
    return expression
