"""Sums over samples need one formula at many inputs: a flat list of operations for it, in two arithmetics.

The expression trees are turned once into operations on numbered registers, equal subtrees into one
register. Each register has a level: it depends on the parameters only (0), on the inputs as well (1)
or on the whole sample (2). Samples with equal inputs share the registers of level 1, and in sums and
products the operands of low level are combined first, so most of the work is done once for each
distinct input. The same list is run on arrays (points × samples) and on Arb balls.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import numpy as np
import scipy.special
import sympy

from fpsolve.model.rendering import arb_operations

_NARROW = 1 / 64


@dataclass(frozen=True)
class Instruction:
    """One operation; `operands` are registers, `constant` is its exact constant if it has one."""

    operation: str
    operands: tuple[int, ...]
    constant: Any
    level: int


@dataclass(frozen=True)
class Program:
    """Registers 0 … leaves-1 hold the variables; instruction i writes register leaves + i.

    Attributes
    ----------
    leaf_levels : tuple of int
        0 for parameters, 1 for inputs, 2 for the target.
    instructions : tuple of Instruction
    outputs : tuple of int
        The registers of the compiled expressions.
    last_use : tuple of int
        For each register the instruction after which it is free; -1: kept to the end.
    """

    leaf_levels: tuple[int, ...]
    instructions: tuple[Instruction, ...]
    outputs: tuple[int, ...]
    last_use: tuple[int, ...]


def compile_program(
    expressions: Sequence[sympy.Expr], leaves: Sequence[sympy.Symbol], levels: Sequence[int]
) -> Program:
    """Compile `expressions` in the variables `leaves`, whose levels are `levels`.

    Raises
    ------
    TypeError
        If an expression has a function without an arithmetic (see `unsupported`).
    """
    compiler = _Compiler(list(levels), dict(zip(leaves, range(len(leaves)), strict=True)))
    outputs = tuple(compiler.visit(expression) for expression in expressions)
    last = [-1] * len(compiler.levels)
    for i, instruction in enumerate(compiler.instructions):
        for register in instruction.operands:
            last[register] = i
    for register in outputs:
        last[register] = -1
    return Program(tuple(levels), tuple(compiler.instructions), outputs, tuple(last))


def unsupported(expression: sympy.Expr) -> set[str]:
    """Return the names of the functions in `expression` that no arithmetic here has (DiracDelta, …)."""
    known = (sympy.Add, sympy.Mul, sympy.Pow)
    nodes = (node for node in sympy.preorder_traversal(expression) if node.args and not isinstance(node, known))
    return {name for name in (type(node).__name__ for node in nodes) if _key(name) not in _NUMPY}


@dataclass
class _Compiler:
    levels: list[int]
    known: dict[sympy.Expr, int]
    instructions: list[Instruction] = field(default_factory=list)
    numbers: dict[tuple[Any, ...], int] = field(default_factory=dict)

    def emit(self, operation: str, operands: tuple[int, ...] = (), constant: Any = None) -> int:
        if operation in ("add", "multiply"):
            operands = tuple(sorted(operands))
        key = (operation, operands, constant)
        if key not in self.numbers:
            level = max((self.levels[register] for register in operands), default=0)
            self.instructions.append(Instruction(operation, operands, constant, level))
            self.levels.append(level)
            self.numbers[key] = len(self.levels) - 1
        return self.numbers[key]

    def visit(self, expression: sympy.Expr) -> int:
        if expression not in self.known:
            self.known[expression] = self.translate(expression)
        return self.known[expression]

    def translate(self, expression: sympy.Expr) -> int:
        if expression.is_Rational:
            return self.emit("rational", (), (int(expression.p), int(expression.q)))
        if expression is sympy.pi:
            return self.emit("pi")
        if expression is sympy.E:
            return self.emit("exp", (self.visit(sympy.S.One),))
        if expression.is_Add:
            return self.add(expression)
        if expression.is_Mul:
            return self.multiply(expression)
        if expression.is_Pow:
            return self.power(*expression.args)
        name = _key(type(expression).__name__)
        if name not in _NUMPY:
            raise TypeError(f"no arithmetic for {type(expression).__name__} in {expression}")
        return self.emit(name, tuple(self.visit(argument) for argument in expression.args))

    def add(self, expression: sympy.Expr) -> int:
        signed = []
        for term in expression.args:
            negative = term.as_coeff_Mul()[0].is_negative
            signed.append((self.visit(-term if negative else term), bool(negative)))
        signed.sort(key=lambda pair: (self.levels[pair[0]], pair[1]))
        total, negative = signed[0]
        if negative:
            total = self.emit("negate", (total,))
        for register, minus in signed[1:]:
            total = self.emit("subtract", (total, register)) if minus else self.emit("add", (total, register))
        return total

    def multiply(self, expression: sympy.Expr) -> int:
        coefficient, registers = sympy.S.One, []
        for factor in expression.args:
            number, rest = (factor, None) if factor.is_Rational else factor.primitive()
            coefficient *= number  # (4a + 2b)/2 and 2a + b become the same registers
            if rest is not None:
                registers.append(self.visit(rest))
        registers.sort(key=lambda register: self.levels[register])
        if coefficient not in (1, -1):
            registers.insert(0, self.visit(abs(coefficient)))
        total = registers[0]
        for register in registers[1:]:
            total = self.emit("multiply", (total, register))
        return self.emit("negate", (total,)) if coefficient.is_negative else total

    def power(self, base: sympy.Expr, exponent: sympy.Expr) -> int:
        value = self.visit(base)
        if exponent.is_Rational and exponent.q in (1, 2):
            value = value if exponent.q == 1 else self.emit("root", (value,))
            return value if exponent.p == 1 else self.emit("integer_power", (value,), int(exponent.p))
        return self.emit("power", (value, self.visit(exponent)))


def _key(name: str) -> str:
    return {"Abs": "abs", "Logistic": "logistic", "Softplus": "softplus"}.get(name, name)


def _numpy_integer_power(x: np.ndarray, n: int) -> np.ndarray:
    if n < 0:
        return 1.0 / _numpy_integer_power(x, -n)
    if n > 64:
        return np.power(x, n)
    result, square = None, x
    while n:
        if n & 1:
            result = square if result is None else result * square
        n >>= 1
        square = square * square if n else square
    return np.ones_like(x) if result is None else result


_NUMPY: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "negate": np.negative,
    "power": np.power,
    "root": np.sqrt,
    "abs": np.abs,
    "sign": np.sign,
    "erf": scipy.special.erf,
    "logistic": scipy.special.expit,
    "softplus": lambda x: np.logaddexp(0.0, x),
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
} | {name: getattr(np, name) for name in ("exp", "log", "sin", "cos", "tan", "sinh", "cosh", "tanh")}


def run_arrays(
    program: Program, parameters: np.ndarray, inputs: np.ndarray, target: np.ndarray, index: np.ndarray | None
) -> list[np.ndarray]:
    """Run on floats.

    Parameters
    ----------
    parameters : ndarray, shape (n, d)
    inputs : ndarray, shape (m, u)
        The u distinct inputs.
    target : ndarray, shape (N,)
        Or, with inputs (m, n, N) and no index, shape (n, N): every point has samples of its own.
    index : ndarray of int, shape (N,), or None
        Which of the distinct inputs each sample has; None: u = N, sample k has input k.

    Returns
    -------
    list of ndarray, each of shape (n, N)
        Read-only views where a value does not depend on the sample. May hold inf or nan.
    """
    values: list[Any] = [column[:, None] for column in parameters.T]
    values += [row if row.ndim == 2 else row[None] for row in (*inputs, target)]
    expanded: dict[int, np.ndarray] = {}

    def at(register: int, level: int) -> np.ndarray:
        levels = program.leaf_levels
        own = levels[register] if register < len(levels) else program.instructions[register - len(levels)].level
        if index is None or own != 1 or level != 2:
            return values[register]
        if register not in expanded:
            expanded[register] = values[register].take(index, axis=1)
        return expanded[register]

    with np.errstate(all="ignore"):
        for i, instruction in enumerate(program.instructions):
            if instruction.operation == "rational":
                p, q = instruction.constant
                values.append(np.array([[p / q]]))
                continue
            if instruction.operation == "pi":
                values.append(np.array([[math.pi]]))
                continue
            arguments = [at(register, instruction.level) for register in instruction.operands]
            if instruction.operation == "integer_power":
                values.append(_numpy_integer_power(arguments[0], instruction.constant))
            else:
                values.append(_NUMPY[instruction.operation](*arguments))
            for register in instruction.operands:
                if program.last_use[register] == i:
                    values[register] = None
                    expanded.pop(register, None)
    shape = (len(parameters), target.shape[-1])
    return [np.broadcast_to(at(register, 2), shape) for register in program.outputs]


def _logistic_point(u: Any) -> Any:
    return 1 / ((-u).exp() + 1)


def _softplus_point(u: Any) -> Any:
    return u.exp().log1p()


def _increasing(function: Callable[[Any], Any], lower: Any, upper: Any) -> Callable[[Any], Any]:
    """Return an enclosure of an increasing function with the given limits.

    By its values at the ends; directly for narrow balls, where plain ball arithmetic is as tight to first
    order in the radius. For wide balls it is not: it may even find that 1 + exp(-u) reaches 0.
    """

    def enclose(u: Any) -> Any:
        if u.rad() < _NARROW:
            return function(u)
        if u.is_finite() or u.is_nan():  # nan: u itself may have a pole in the box
            return function(u.lower()).union(function(u.upper())) if u.is_finite() else u
        return lower.union(upper)

    return enclose


def _signed(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return an enclosure of a function that is monotone on each side of 0: root, logarithm, powers."""

    def enclose(x: Any) -> Any:
        if x.rad() < _NARROW * x.abs_lower() or x.contains(0) or not x.is_finite():
            return function(x)
        return function(x.lower()).union(function(x.upper()))

    return enclose


def _ball_operations() -> dict[str, Callable[..., Any]]:
    import flint

    zero, one, infinity = flint.arb(0), flint.arb(1), flint.arb.pos_inf()
    arithmetic = arb_operations()
    functions = arithmetic.functions
    return {
        **functions,
        "add": operator.add,
        "subtract": operator.sub,
        "multiply": operator.mul,
        "negate": operator.neg,
        "power": arithmetic.power,
        "root": _signed(arithmetic.root),
        "log": _signed(functions["log"]),
        "exp": _increasing(functions["exp"], zero, infinity),
        "logistic": _increasing(_logistic_point, zero, one),
        "softplus": _increasing(_softplus_point, zero, infinity),
        "tanh": _increasing(functions["tanh"], -one, one),
        "erf": _increasing(functions["erf"], -one, one),
        "atan": _increasing(functions["atan"], -flint.arb.pi(), flint.arb.pi()),
    }


def run_balls(
    program: Program,
    box: Sequence[Any],
    inputs: Sequence[list[Any]],
    target: list[Any],
    index: Sequence[int] | None,
) -> list[list[Any]]:
    """Run on Arb balls at flint's current precision; arguments as for `run_arrays`, columns as lists.

    Returns
    -------
    list of lists of N flint.arb
    """
    import flint

    arb = arb_operations()
    arithmetic = Arithmetic(
        _ball_operations(), arb.rational, flint.arb.pi, lambda n: _integer_power(n, arb.integer_power)
    )
    count = len(target)
    columns = run_columns(program, [*box, *inputs, target], index, arithmetic)
    return [column if isinstance(column, list) else [column] * count for column in columns]


@dataclass(frozen=True)
class Arithmetic:
    """What a program's operations mean for some kind of balls; `operations` holds all but integer powers."""

    operations: dict[str, Callable[..., Any]]
    rational: Callable[[int, int], Any]
    pi: Callable[[], Any]
    integer_power: Callable[[int], Callable[[Any], Any]]


def run_columns(
    program: Program, leaves: Sequence[Any], index: Sequence[int] | None, arithmetic: Arithmetic
) -> list[Any]:
    """Run on balls: one for each leaf of level 0, one list (a column) for each of another level.

    Parameters
    ----------
    index : sequence of int or None
        Which entry of the columns of level 1 belongs to each entry of the columns of level 2; None: the same one.

    Returns
    -------
    list of balls or lists of balls
        One for each output: a ball where it depends on leaves of level 0 only, else a column of level 2.
    """
    values: list[Any] = list(leaves)
    levels = [*program.leaf_levels, *(instruction.level for instruction in program.instructions)]
    expanded: dict[int, list[Any]] = {}

    def at(register: int, level: int) -> Any:
        if levels[register] == 0:
            return repeat(values[register])
        if index is None or levels[register] != 1 or level != 2:
            return values[register]
        if register not in expanded:
            column = values[register]
            expanded[register] = [column[k] for k in index]
        return expanded[register]

    for instruction in program.instructions:
        operation, constant = instruction.operation, instruction.constant
        if operation == "rational":
            values.append(arithmetic.rational(*constant))
            continue
        if operation == "pi":
            values.append(arithmetic.pi())
            continue
        function = arithmetic.operations.get(operation) or arithmetic.integer_power(constant)
        if instruction.level == 0:
            values.append(function(*(values[register] for register in instruction.operands)))
        else:
            values.append(list(map(function, *(at(register, instruction.level) for register in instruction.operands))))
    return [values[register] if levels[register] == 0 else at(register, 2) for register in program.outputs]


def _integer_power(n: int, general: Callable[[Any, int], Any]) -> Callable[[Any], Any]:
    return _signed(lambda x: 1 / x if n == -1 else general(x, n))
