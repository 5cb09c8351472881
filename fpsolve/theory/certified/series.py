"""Taylor series of formulas along polynomial curves, in Arb: ranges that stay tight where a function is nearly flat."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import flint
from flint import arb, arb_poly, arb_series

from fpsolve.model.expressions import Formula
from fpsolve.model.rendering import Operations, render
from fpsolve.theory.balls import Ball

Series = Any  # flint.arb_series, which has no type stubs
DIRECT = ("exp", "log", "sin", "cos", "tan", "asin", "acos", "atan", "erf")


@contextmanager
def precision(bits: int, terms: int) -> Iterator[None]:
    """Set Arb's precision in bits and the number of terms of series, and set them back at the end."""
    old = flint.ctx.prec, flint.ctx.cap
    flint.ctx.prec, flint.ctx.cap = bits, terms
    try:
        yield
    finally:
        flint.ctx.prec, flint.ctx.cap = old


def range_along(formula: Formula, curve: Sequence[Any], middle: float, half: float, terms: int) -> Ball:
    """Enclose a scalar formula along a curve for parameters in [middle - half, middle + half].

    ``f(m + u) ∈ Σ_{k<n} f_k(m) u^k + f_n(T) u^n`` for |u| <= half, where T is the whole range and f_k are Taylor
    coefficients (Lagrange's remainder).

    Parameters
    ----------
    formula : Formula
    curve : d arb_poly
        The coordinates as polynomials of the parameter.
    terms : int
        n; ``flint.ctx.cap`` must be at least n + 1 (see `precision`).

    Returns
    -------
    arb
        Not finite where the formula is not proved smooth.
    """
    center, unit = arb(middle), arb(0, 1)
    near = _taylor(formula, curve, center, terms + 1)
    far = _taylor(formula, curve, center + unit * arb(half), terms + 1)
    if near is None or far is None:
        return arb("nan")
    total, power = near[0], arb(1)
    for k in range(1, terms + 1):
        power = power * arb(half)  # Arb's own power of a ball around zero is not finite
        total += (near[k] if k < terms else far[terms]) * power * unit
    return total


def _taylor(formula: Formula, curve: Sequence[Any], at: Ball, terms: int) -> list[Ball] | None:
    """Return enclosures of the first Taylor coefficients of the formula along the curve at all points of a ball."""
    shift = arb_poly([at, 1])
    values = [arb_series(list(p(shift))[:terms] or [0], prec=terms) for p in curve]
    try:
        result = render(formula, values, _operations())[0]
    except (ZeroDivisionError, ValueError):  # a pole, or a series that flint refuses to form
        return None
    found = list(result) if isinstance(result, arb_series) else [result]
    if isinstance(result, arb_series) and result.prec < terms:
        return None
    found = found[:terms] + [arb(0)] * (terms - len(found))
    return found if all(c.is_finite() for c in found) else None


def _operations() -> Operations:
    functions: dict[str, Callable[[Any], Any]] = {name: partial(_call, name) for name in DIRECT}
    functions |= {
        "sinh": lambda x: (_call("exp", x) - _call("exp", -x)) / 2,
        "cosh": lambda x: (_call("exp", x) + _call("exp", -x)) / 2,
        "tanh": lambda x: 1 - 2 / (_call("exp", 2 * x) + 1),
        "abs": lambda x: x * _sign(x),
        "sign": _sign,
    }
    return Operations(
        rational=lambda p, q: arb(p) / q if q != 1 else arb(p),
        pi=arb.pi,
        integer_power=_power,
        root=partial(_call, "sqrt"),
        power=lambda x, y: _call("exp", y * _call("log", x)),
        functions=functions,
    )


def _call(name: str, x: Any) -> Any:
    return getattr(x if isinstance(x, arb_series) else arb(x), name)()


def _sign(x: Any) -> Ball:
    """Return ±1 where the sign does not change; otherwise there is a kink, hence no series."""
    first = (list(x) or [arb(0)])[0] if isinstance(x, arb_series) else arb(x)
    if first > 0:
        return arb(1)
    return arb(-1) if first < 0 else arb("nan")


def _power(x: Any, n: int) -> Any:
    if n < 0:
        return 1 / _power(x, -n)
    result, square = None, x
    while n:
        if n & 1:
            result = square if result is None else result * square
        n >>= 1
        if n:
            square = square * square
    return arb(1) if result is None else result
