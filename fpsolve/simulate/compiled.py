"""Formulas and per-sample gradients as machine code for the simulation kernels (numba).

The expressions are those that everything else is computed from; they are differentiated exactly, written as
scalar code with common subexpressions shared, and compiled once for each formula. Arithmetic is IEEE without
``fastmath``, so that every rank rounds alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numba
import numpy as np
import sympy

from fpsolve.model.condense import affine_in_target
from fpsolve.model.expressions import symbols
from fpsolve.model.samples import SampleLandscape

#: Division by zero gives inf as in NumPy, not an exception.
OPTIONS: dict[str, Any] = {"error_model": "numpy"}


@numba.njit(inline="always", **OPTIONS)
def _logistic(u: float) -> float:
    """1/(1 + exp(-u)); written in |u|, so that S(u) and S(-u) share the exponential."""
    e = math.exp(-abs(u))
    r = 1.0 / (1.0 + e)
    return r if u >= 0 else e * r


@numba.njit(inline="always", **OPTIONS)
def _softplus(u: float) -> float:
    return max(u, 0.0) + math.log1p(math.exp(-abs(u)))


@numba.njit(inline="always", **OPTIONS)
def _real(u: float) -> float:
    return 1.0 * u


_FUNCTIONS = {"Logistic": _logistic, "Softplus": _softplus, "_real": _real}


@lru_cache(maxsize=64)
def scalar_code(entries: tuple[sympy.Expr, ...], variables: tuple[str, ...], data: tuple[str, ...] = ()) -> Any:
    """Return compiled code ``f(x, row) -> tuple of floats`` of expressions in variables x and a row of data."""
    x, row = sympy.IndexedBase("x_"), sympy.IndexedBase("row_")
    places = [x[i] for i in range(len(variables))] + [row[i] for i in range(len(data))]
    placed = [entry.xreplace(dict(zip(symbols((*variables, *data)), places, strict=True))) for entry in entries]
    # all entries must be floats: a constant would be an integer
    real = sympy.Function("_real")
    typed = tuple(entry if entry.free_symbols else real(entry) for entry in placed)
    # lambdify writes code from the sympy tree, which the parser of formulas has restricted
    function = sympy.lambdify((x, row), typed, modules=[_FUNCTIONS, "math"], cse=True)
    return numba.njit(function, **OPTIONS)


def sample_gradient_code(landscape: SampleLandscape) -> Any:
    """Return compiled code of ∇L_k: ``f(x, row of the table) -> tuple of d floats``."""
    d = len(landscape.variables)
    entries = tuple(sympy.diff(landscape.sample_loss, parameter) for parameter in symbols(landscape.variables))
    return scalar_code(entries, landscape.variables, landscape.names[d:])


@lru_cache(maxsize=64)
def formula_coefficients(
    drift: tuple[sympy.Expr, ...], diffusion: tuple[sympy.Expr, ...], variables: tuple[str, ...]
) -> Any:
    """Return compiled ``f(x, table, weight, strength, extra, drift, diffusion)``, which fills the last two.

    Parameters
    ----------
    drift : d expressions
    diffusion : d·d expressions
        q, row by row; the diffusion is ``strength q + extra I``.
    """
    d = len(variables)
    upper = tuple(diffusion[i * d + j] for i in range(d) for j in range(i, d))
    code = scalar_code(drift + upper, variables)

    @numba.njit(**OPTIONS)
    def coefficients(x, table, weight, strength, extra, f, a):  # type: ignore[no-untyped-def]
        values = code(x, x)
        k = d
        for i in range(d):
            f[i] = values[i]
            for j in range(i, d):
                a[i, j] = strength * values[k]
                a[j, i] = a[i, j]
                k += 1
            a[i, i] += extra

    return coefficients


@lru_cache(maxsize=64)
def sample_coefficients(gradient: Any, d: int) -> Any:
    """Return the same for data: drift -∇L and Q from a weighted table of samples, in one pass.

    Gradients are counted from that of the first row, against cancellation in ``E gg' - GG'``.
    """

    @numba.njit(**OPTIONS)
    def coefficients(x, table, weight, strength, extra, f, a):  # type: ignore[no-untyped-def]
        first = gradient(x, table[0])
        f[:] = 0.0
        a[:] = 0.0
        for k in range(len(weight)):
            g = gradient(x, table[k])
            for i in range(d):
                w = weight[k] * (g[i] - first[i])
                f[i] += w
                for j in range(i, d):
                    a[i, j] += w * (g[j] - first[j])
        for i in range(d):
            for j in range(i, d):
                a[i, j] = strength * (a[i, j] - f[i] * f[j])
                a[j, i] = a[i, j]
            a[i, i] += extra
        for i in range(d):
            f[i] = -(f[i] + first[i])

    return coefficients


def weighted_table(landscape: SampleLandscape) -> tuple[np.ndarray, np.ndarray]:
    """Return rows (m, columns) and weights (m,) that have the same ∇L and Q as the data, few if possible.

    Where the gradient is affine in the target, as for squared and logistic losses, its mean and covariance depend
    on the targets at one input only by their number, mean and standard deviation s: all of them are replaced by
    the two points mean ± s.
    """
    table = landscape.table.T
    rows = len(table)
    if landscape.index is None or not affine_in_target(landscape):
        return np.ascontiguousarray(table), np.full(rows, 1.0 / rows)
    count = np.bincount(landscape.index)
    mean = np.bincount(landscape.index, landscape.target) / count
    spread = np.sqrt(np.bincount(landscape.index, (landscape.target - mean[landscape.index]) ** 2) / count)
    twice = np.repeat(landscape.inputs.T, 2, axis=0)
    targets = np.column_stack([mean - spread, mean + spread]).reshape(-1, 1)
    return np.ascontiguousarray(np.hstack([twice, targets])), np.repeat(count / (2.0 * rows), 2)


@lru_cache(maxsize=64)
def observer(entries: tuple[sympy.Expr, ...], variables: tuple[str, ...]) -> Callable[..., None]:
    """Return compiled ``f(x, active, n, sums)``, which adds the expressions at the active rows of x to sums."""
    code = scalar_code(entries, variables)
    count = len(entries)

    @numba.njit(**OPTIONS)
    def observe(x, active, n, sums):  # type: ignore[no-untyped-def]
        for q in range(n):
            p = active[q]
            values = code(x[p], x[p])
            for k in range(count):
                sums[p, k] += values[k]

    return observe


def entries_of(formulas: Sequence[Any]) -> tuple[sympy.Expr, ...]:
    """Return the entries of scalar formulas."""
    return tuple(entry for formula in formulas for entry in formula.entries)
