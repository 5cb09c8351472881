"""Formulas: parsed by a whitelist, differentiated exactly, rendered to NumPy, UFL and Arb balls.

A formula is data. The text is parsed to Python's syntax tree, which is never executed; every node
must be on the list below and is rebuilt as a sympy expression in the declared, real variables.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import sympy

from fpsolve.errors import InputError

FUNCTIONS: dict[str, Callable[..., sympy.Expr]] = {
    "exp": sympy.exp,
    "log": sympy.log,
    "sqrt": sympy.sqrt,
    "sin": sympy.sin,
    "cos": sympy.cos,
    "tan": sympy.tan,
    "asin": sympy.asin,
    "acos": sympy.acos,
    "atan": sympy.atan,
    "sinh": sympy.sinh,
    "cosh": sympy.cosh,
    "tanh": sympy.tanh,
    "erf": sympy.erf,
    "abs": sympy.Abs,
}
CONSTANTS = {"pi": sympy.pi}
MAX_LENGTH = 20_000
MAX_NUMERIC_EXPONENT = 1000
MAX_BITS = 4_000_000
LARGEST = 1.7e308


def symbols(variables: Sequence[str]) -> tuple[sympy.Symbol, ...]:
    """Return the real sympy symbols that stand for `variables`."""
    return tuple(sympy.Symbol(name, real=True) for name in variables)


def check_names(names: Sequence[str], key: str) -> tuple[str, ...]:
    """Return `names` as a tuple if they can name variables of a formula.

    Raises
    ------
    InputError
        If a name is not an identifier, is a function or constant of the language, or is repeated.
    """
    for name in names:
        if not isinstance(name, str) or not name.isidentifier() or not name.isascii() or name.startswith("__"):
            raise InputError(key, name, "a plain name such as x or w_1")
        if name in FUNCTIONS or name in CONSTANTS:
            raise InputError(key, name, "a name that is not a function or constant of the formula language")
    if len(set(names)) != len(names):
        raise InputError(key, list(names), "distinct names")
    return tuple(names)


def parse(text: object, variables: Sequence[str], key: str = "formula") -> sympy.Expr:
    """Parse one formula in `variables`.

    Parameters
    ----------
    text : str or number
        Numbers, variables, ``+ - * / **``, parentheses, ``pi`` and the functions in `FUNCTIONS`.
    variables : sequence of str
        The names allowed besides constants and functions.
    key : str
        Where the text comes from, for the error message.

    Raises
    ------
    InputError
        If anything else stands in the text.
    """
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        text = repr(text)
    if not isinstance(text, str) or not text.strip():
        raise InputError(key, text, 'a formula such as "x**2 + y**2"')
    if len(text) > MAX_LENGTH:
        raise InputError(key, text, f"a formula of at most {MAX_LENGTH} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        expression = _Parser(tuple(variables), text, key).visit(tree.body)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            key, text, "a formula", f"It cannot be read: {error.args[0] if error.args else error}."
        ) from None
    if expression.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo):
        raise InputError(key, text, "a formula with finite constants")
    if expression.is_real is False:
        raise InputError(key, text, "a real-valued formula")
    return expression


class _Parser:
    """Rebuild a whitelisted syntax tree as a sympy expression."""

    def __init__(self, variables: tuple[str, ...], text: str, key: str) -> None:
        self.names: dict[str, sympy.Expr] = dict(zip(variables, symbols(variables), strict=True)) | CONSTANTS
        self.text, self.key = text, key

    def fail(self, what: str, remedy: str = "") -> InputError:
        allowed = f"numbers, {', '.join(self.names)}, + - * / ** and {', '.join(FUNCTIONS)}"
        return InputError(self.key, self.text, f"a formula made of {allowed}", f"{what} {remedy}".strip())

    def visit(self, node: ast.AST) -> sympy.Expr:
        value = self.build(node)
        if value.is_number:
            self.check_constant(node, value)
        return value

    def check_constant(self, node: ast.AST, value: sympy.Expr) -> None:
        """Refuse constants that are not real or too large for a float, before others are built from them."""
        if value.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo):
            raise self.fail(f"'{ast.unparse(node)}' is not finite.")
        if value.is_real is False or value.has(sympy.I):
            raise self.fail(f"'{ast.unparse(node)}' is not real.")
        size = abs(value.evalf(15))
        if (not size.is_Float and not size.is_Integer) or size > LARGEST:
            raise self.fail(f"'{ast.unparse(node)}' is not finite in double precision.")

    def build(self, node: ast.AST) -> sympy.Expr:
        if isinstance(node, ast.Constant):
            return self.number(node.value)
        if isinstance(node, ast.Name):
            return self.name(node.id)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.UAdd, ast.USub)):
            value = self.visit(node.operand)
            return -value if isinstance(node.op, ast.USub) else value
        if isinstance(node, ast.BinOp):
            return self.binary(node)
        if isinstance(node, ast.Call):
            return self.call(node)
        raise self.fail(f"'{ast.unparse(node)}' is not allowed.")

    def number(self, value: object) -> sympy.Expr:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.fail(f"{value!r} is not a number.")
        if not np.isfinite(float(value)):
            raise self.fail(f"{value!r} is not finite.")
        return sympy.Rational(repr(value))  # 0.1 means 1/10 exactly, in every rendering

    def name(self, name: str) -> sympy.Expr:
        if name in self.names:
            return self.names[name]
        if name in FUNCTIONS:
            raise self.fail(f"'{name}' is a function and needs an argument.")
        near = difflib.get_close_matches(name, [*self.names, *FUNCTIONS], n=1)
        raise self.fail(f"Unknown symbol '{name}'.", f"Did you mean '{near[0]}'?" if near else "")

    def binary(self, node: ast.BinOp) -> sympy.Expr:
        if isinstance(node.op, ast.BitXor):
            raise self.fail("'^' is not a power.", "Write ** instead.")
        left, right = self.visit(node.left), self.visit(node.right)
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(node.op, ast.Sub):
            return left - right
        if isinstance(node.op, ast.Mult):
            return left * right
        if isinstance(node.op, ast.Div):
            if right.is_zero:
                raise self.fail("Division by zero.")
            return left / right
        if isinstance(node.op, ast.Pow):
            if right.is_number and abs(float(right)) > MAX_NUMERIC_EXPONENT:
                raise self.fail(f"The exponent {ast.unparse(node.right)} is too large.")
            if (
                right.is_number
                and left.is_Rational
                and max(left.p.bit_length(), left.q.bit_length()) * abs(float(right)) > MAX_BITS
            ):
                raise self.fail(f"'{ast.unparse(node)}' has too many digits.")
            if left.is_zero and right.is_number and float(right) < 0:
                raise self.fail("Division by zero.")
            return left**right
        raise self.fail(f"The operator in '{ast.unparse(node)}' is not allowed.")

    def call(self, node: ast.Call) -> sympy.Expr:
        if not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS:
            raise self.fail(f"'{ast.unparse(node.func)}' is not a known function.")
        if len(node.args) != 1 or node.keywords:
            raise self.fail(f"{node.func.id} takes one argument.")
        return FUNCTIONS[node.func.id](self.visit(node.args[0]))


@dataclass(frozen=True)
class Formula:
    """An array of expressions in common variables.

    Attributes
    ----------
    variables : tuple of str
    entries : tuple of sympy.Expr
        The entries in row-major order.
    shape : tuple of int
        ``()`` for a scalar, ``(d,)`` for a vector, ``(d, d)`` for a matrix.
    """

    variables: tuple[str, ...]
    entries: tuple[sympy.Expr, ...]
    shape: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: Any, variables: Sequence[str], key: str = "formula") -> Formula:
        """Parse a string, a list of strings or a list of lists of strings."""
        if not isinstance(text, (list, tuple)):
            return cls(tuple(variables), (parse(text, variables, key),))
        parts = [cls.parse(part, variables, f"{key}[{i}]") for i, part in enumerate(text)]
        if not parts or len({part.shape for part in parts}) != 1:
            raise InputError(key, text, "a list of formulas, or rows of equal length")
        entries = tuple(entry for part in parts for entry in part.entries)
        return cls(tuple(variables), entries, (len(parts), *parts[0].shape))

    @property
    def dimension(self) -> int:
        """The number of variables d."""
        return len(self.variables)

    def derivative(self) -> Formula:
        """Return all first derivatives, exact; the new index is the last one."""
        names = symbols(self.variables)
        entries = tuple(sympy.diff(entry, name) for entry in self.entries for name in names)
        return Formula(self.variables, entries, (*self.shape, self.dimension))

    def divergence(self) -> Formula:
        """Return the divergence over the last index, (div M)_i = Σ_j ∂_j M_ij."""
        if not self.shape or self.shape[-1] != self.dimension:
            raise ValueError(f"divergence of a formula of shape {self.shape} in {self.dimension} variables")
        names = symbols(self.variables)
        rows = [self.entries[k : k + self.dimension] for k in range(0, len(self.entries), self.dimension)]
        entries = tuple(
            sympy.Add(*(sympy.diff(entry, name) for entry, name in zip(row, names, strict=True))) for row in rows
        )
        return Formula(self.variables, entries, self.shape[:-1])

    @cached_property
    def _numpy(self) -> Callable[..., list[Any]]:
        # lambdify writes code from the sympy tree, which the parser has restricted
        return sympy.lambdify(symbols(self.variables), list(self.entries), modules=["scipy", "numpy"], cse=True)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Evaluate at points.

        Parameters
        ----------
        x : ndarray, shape (n, d)

        Returns
        -------
        ndarray, shape (n, *shape)
            May hold inf or nan where the formula is singular; callers check.
        """
        x = np.asarray(x, dtype=float)
        result = np.empty((len(self.entries), len(x)))
        with np.errstate(all="ignore"):
            for row, value in zip(result, self._numpy(*x.T), strict=True):
                row[:] = value
        return np.ascontiguousarray(result.T).reshape((len(x), *self.shape))

    def ufl(self, x: Any) -> Any:
        """Render to UFL; `x` holds the coordinates, e.g. ``ufl.SpatialCoordinate(mesh)``."""
        import ufl

        from fpsolve.model.rendering import render, ufl_operations

        values = render(self, [x[i] for i in range(self.dimension)], ufl_operations())
        if not self.shape:
            return values[0]
        if len(self.shape) == 1:
            return ufl.as_vector(values)
        return ufl.as_matrix(np.array(values, dtype=object).reshape(self.shape).tolist())

    def balls(self, box: Sequence[Any]) -> list[Any]:
        """Enclose the entries over a box of Arb balls, rigorously, in row-major order.

        Parameters
        ----------
        box : sequence of flint.arb
            One ball for each variable, at flint's current precision.

        Returns
        -------
        list of flint.arb
            Non-finite balls where no enclosure was found (e.g. a pole in the box).
        """
        from fpsolve.model.rendering import arb_operations, render

        return render(self, list(box), arb_operations())
