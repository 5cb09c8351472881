"""Formulas in complex balls: the analytic continuation, finite only where it is proved to exist.

Every operation is one analytic function on one open set U of the plane (or C × C), e.g. the principal logarithm on
the plane without (-∞, 0], and its result is finite only if the ball of its argument lies in U. So where a formula is
finite on balls that cover a connected set, it is analytic there, and it is the continuation of the real formula if
the set holds real points.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

from flint import acb, arb

from fpsolve.model.sample_program import Arithmetic, Program, run_columns
from fpsolve.theory.balls import Ball

#: Functions without branch cuts; poles make them not finite by themselves.
_SINGLE_VALUED = ("exp", "sin", "cos", "tan", "sinh", "cosh", "tanh", "erf")


def run_complex(program: Program, leaves: Sequence[Any], index: Sequence[int] | None = None) -> list[Any]:
    """Run a program on complex balls at flint's current precision.

    Parameters
    ----------
    program : Program
    leaves : sequence of acb or list of acb
        One acb for each variable of level 0, one list (a column) for each of another level.
    index : sequence of int, optional
        Which entry of the columns of level 1 belongs to each entry of the columns of level 2; None: the same one.

    Returns
    -------
    list of acb or list of acb
        One for each output; a single acb where it depends on variables of level 0 only, columns of level 2 else.
    """
    arithmetic = Arithmetic(
        _complex_operations(),
        lambda p, q: acb(arb(p) / q),
        lambda: acb(arb.pi()),
        lambda n: partial(_integer_power, n=n),
    )
    return run_columns(program, leaves, index, arithmetic)


@cache
def _complex_operations() -> dict[str, Callable[..., Any]]:
    """Return the operations of `sample_program` but for integer powers."""
    operations: dict[str, Callable[..., Any]] = {
        "add": operator.add,
        "subtract": operator.sub,
        "multiply": operator.mul,
        "negate": operator.neg,
        "power": _power,
        "root": _root,
        "log": _log,
        "asin": partial(_off_real_cut, method=acb.asin),
        "acos": partial(_off_real_cut, method=acb.acos),
        "atan": _atan,
        "abs": _abs,
        "sign": _sign,
        "logistic": _logistic,
        "softplus": softplus,
    }
    return operations | {name: getattr(acb, name) for name in _SINGLE_VALUED}


def _undefined() -> Ball:
    return acb(arb("nan"), arb("nan"))


def _integer_power(z: Ball, n: int) -> Ball:
    if n < 0:
        return 1 / _integer_power(z, -n)
    result, square = acb(1), z
    while n:
        if n & 1:
            result = result * square
        n >>= 1
        if n:
            square = square * square
    return result


def _root(z: Ball) -> Ball:
    return z.sqrt(analytic=True)


def _log(z: Ball) -> Ball:
    return z.log(analytic=True)


def _power(z: Ball, exponent: Ball) -> Ball:
    """Return z**exponent = exp(exponent log z) off the cut of log."""
    return (exponent * _log(z)).exp()


def _off_real_cut(z: Ball, method: Callable[[Any], Any]) -> Ball:
    """Apply asin or acos, analytic off (-∞, -1] and [1, ∞)."""
    if z.imag.contains(0) and not abs(z.real) < 1:
        return _undefined()
    return method(z)


def _atan(z: Ball) -> Ball:
    """Return atan, analytic off i(-∞, -1] and i[1, ∞)."""
    if z.real.contains(0) and not abs(z.imag) < 1:
        return _undefined()
    return z.atan()


def _abs(z: Ball) -> Ball:
    """Return the continuation of |x|: z for Re z > 0, -z for Re z < 0; none across Re z = 0."""
    return z if z.real > 0 else -z if z.real < 0 else _undefined()


def _sign(z: Ball) -> Ball:
    return acb(1) if z.real > 0 else acb(-1) if z.real < 0 else _undefined()


def _logistic(u: Ball) -> Ball:
    """Return 1/(1 + exp(-u)) in the form whose exponential has modulus < 1, if one has."""
    if u.real < 0:
        w = u.exp()
        return w / (1 + w)
    return 1 / (1 + (-u).exp())


def softplus(u: Ball) -> Ball:
    """Return the continuation of log(1 + exp(u)) off the branch cuts ±i[π, ∞).

    For Re u < 0 the principal branch; for Re u > 0 it is u + log(1 + exp(-u)). Both agree near Re u = 0 between the
    cuts.
    """
    if u.real < 0:
        return (1 + u.exp()).log(analytic=True)
    if u.real > 0 or abs(u.imag) < arb.pi():
        return u + (1 + (-u).exp()).log(analytic=True)
    return _undefined()
