"""Evaluation of a formula's expression tree in another arithmetic: UFL expressions or Arb balls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import sympy

if TYPE_CHECKING:
    from fpsolve.model.expressions import Formula

_NAMES = ("exp", "log", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "erf")


@dataclass(frozen=True)
class Operations:
    """An arithmetic: how constants, powers and functions are made."""

    rational: Callable[[int, int], Any]
    pi: Callable[[], Any]
    integer_power: Callable[[Any, int], Any]
    root: Callable[[Any], Any]
    power: Callable[[Any, Any], Any]
    functions: dict[str, Callable[[Any], Any]]


def render(formula: Formula, values: Sequence[Any], operations: Operations) -> list[Any]:
    """Evaluate all entries of `formula` with its variables set to `values`; common parts once."""
    from fpsolve.model.expressions import symbols

    replacements, reduced = _common_parts(formula.entries)
    known: dict[sympy.Expr, Any] = dict(zip(symbols(formula.variables), values, strict=True))
    for symbol, expression in replacements:
        known[symbol] = _evaluate(expression, known, operations)
    return [_evaluate(expression, known, operations) for expression in reduced]


@lru_cache(maxsize=256)
def _common_parts(entries: tuple[sympy.Expr, ...]) -> tuple[Any, Any]:
    """Return sympy's common subexpressions; branch and bound evaluates one formula thousands of times."""
    return sympy.cse(entries, order="none")


def _evaluate(expression: sympy.Expr, known: dict[sympy.Expr, Any], operations: Operations) -> Any:
    if expression in known:
        return known[expression]
    if expression.is_Rational:
        return operations.rational(int(expression.p), int(expression.q))
    if expression is sympy.pi:
        return operations.pi()
    if expression is sympy.E:
        return operations.functions["exp"](operations.rational(1, 1))
    if expression.is_Pow:
        return _power(expression, known, operations)
    arguments = [_evaluate(argument, known, operations) for argument in expression.args]
    if expression.is_Add or expression.is_Mul:
        result = arguments[0]
        for argument in arguments[1:]:
            result = result + argument if expression.is_Add else result * argument
        return result
    name = {"Abs": "abs"}.get(type(expression).__name__, type(expression).__name__)
    if name not in operations.functions:
        raise TypeError(f"no rendering of {type(expression).__name__} in {expression}")
    return operations.functions[name](*arguments)


def _power(expression: sympy.Expr, known: dict[sympy.Expr, Any], operations: Operations) -> Any:
    base, exponent = expression.args
    value = _evaluate(base, known, operations)
    if exponent.is_Integer:
        return operations.integer_power(value, int(exponent))
    if exponent.is_Rational and exponent.q == 2:
        return operations.integer_power(operations.root(value), int(exponent.p))
    return operations.power(value, _evaluate(exponent, known, operations))


def ufl_operations() -> Operations:
    """Return the arithmetic of UFL expressions."""
    import ufl

    functions = {name: getattr(ufl, {"log": "ln"}.get(name, name)) for name in _NAMES}
    functions |= {"abs": abs, "sign": ufl.sign}
    return Operations(
        rational=lambda p, q: p / q if q != 1 else float(p),
        pi=lambda: float(sympy.pi),
        integer_power=lambda x, n: x**n if n >= 0 else 1 / x ** (-n),
        root=ufl.sqrt,
        power=lambda x, y: x**y,
        functions=functions,
    )


def arb_operations() -> Operations:
    """Return the arithmetic of Arb balls (python-flint), outward rounded."""
    import flint

    functions: dict[str, Callable[[Any], Any]] = {name: partial(_arb_method, name) for name in _NAMES}
    functions |= {"abs": lambda x: abs(flint.arb(x)), "sign": _arb_sign}
    return Operations(
        rational=lambda p, q: flint.arb(p) / q if q != 1 else flint.arb(p),
        pi=flint.arb.pi,
        integer_power=_arb_integer_power,
        root=lambda x: flint.arb(x).sqrt(),
        power=lambda x, y: flint.arb(x) ** flint.arb(y),
        functions=functions,
    )


def _arb_method(name: str, x: Any) -> Any:
    import flint

    return getattr(flint.arb(x), name)()


def _arb_sign(x: Any) -> Any:
    import flint

    if x > 0:
        return flint.arb(1)
    if x < 0:
        return flint.arb(-1)
    return flint.arb(0, 1)


def _arb_integer_power(x: Any, n: int) -> Any:
    """Power by repeated multiplication: arb's own ** is not finite for balls that hold zero.

    The range of even powers is cut at zero, which plain ball arithmetic loses.
    """
    import flint

    x = flint.arb(x)
    if n < 0:
        return 1 / _arb_integer_power(x, -n)
    if n == 0:
        return flint.arb(1)
    if n % 2 == 0 and x.contains(0):
        half = _arb_repeated(abs(x).upper(), n) / 2
        return half + flint.arb(0, 1) * half
    return _arb_repeated(x, n)


def _arb_repeated(x: Any, n: int) -> Any:
    result, square = None, x
    while n:
        if n & 1:
            result = square if result is None else result * square
        n >>= 1
        if n:
            square = square * square
    return result
