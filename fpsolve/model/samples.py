"""Loss and gradient covariance of a model fitted to data (mathematics.md sections 1 and 6).

``L(θ) = (1/N) Σ_k ℓ(model(θ; inputs_k), target_k)`` and, with ``g_k``, ``H_k`` the gradient and Hessian of its
k-th term and G, H their means,

* ``Q = (1/N) Σ_k (g_k - G)(g_k - G)ᵀ``, which is ``(1/N) Σ g_k g_kᵀ - G Gᵀ`` without its cancellation,
* ``(div Q)_i = (1/N) Σ_k Σ_j [(H_k - H)_ij (g_k - G)_j + (g_k - G)_i (H_k - H)_jj]``.

Derivatives are exact: the model is put into the loss symbolically, rewritten by `logistic.stable_form` so
that derivatives do not overflow, and differentiated with respect to the parameters. Sums over samples
run in blocks of bounded memory; moments of blocks are merged by Chan's update, so Q stays symmetric
and positive semidefinite up to rounding for any number of samples. Points whose floating-point value
is not finite all the same (intermediate overflow of a kind `stable_form` does not know) are evaluated
again in Arb, whose exponents are unbounded; what is not finite there either is nan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import sympy

from fpsolve.errors import InputError
from fpsolve.model.expressions import Formula, check_names, symbols
from fpsolve.model.logistic import stable_form
from fpsolve.model.sample_data import check_data, read_csv
from fpsolve.model.sample_enclosure import SampleEnclosure
from fpsolve.model.sample_program import Program, compile_program, run_arrays, unsupported

__all__ = ["SampleLandscape", "SampleStatistics", "read_csv", "sample_landscape"]

BLOCK = 32_768
"""Entries (points × samples) of an array in flight: 256 kB, so that operations stay in cache."""


@dataclass(frozen=True)
class SampleStatistics:
    """∇L (n, d), D²L (n, d, d), Q (n, d, d) and div Q (n, d) at n points, from one pass over the samples."""

    gradient: np.ndarray
    hessian: np.ndarray
    covariance: np.ndarray
    covariance_divergence: np.ndarray


@dataclass(frozen=True, eq=False)
class SampleLandscape:
    """Loss and gradient covariance as means over samples; implements `process.Landscape`.

    Attributes
    ----------
    variables : tuple of str
        The d parameters.
    loss_program, gradient_program, hessian_program : Program
        The loss of one sample; its gradient; its gradient and the upper triangle of its Hessian, row by row.
    inputs : ndarray, shape (m, u)
        The distinct inputs, or all of them when few coincide.
    target : ndarray, shape (N,)
        Samples are ordered by their input.
    index : ndarray of int, shape (N,), or None
        Which column of `inputs` belongs to each sample, ascending; None: one column each.
    names : tuple of str
        Parameters, inputs and target: the variables of `sample_loss`.
    sample_loss : sympy.Expr
        The loss of one sample as a formula in `names`.
    """

    variables: tuple[str, ...]
    loss_program: Program
    gradient_program: Program
    hessian_program: Program
    inputs: np.ndarray
    target: np.ndarray
    index: np.ndarray | None
    names: tuple[str, ...]
    sample_loss: sympy.Expr

    @property
    def samples(self) -> int:
        """The number of samples N."""
        return len(self.target)

    @cached_property
    def table(self) -> np.ndarray:
        """Inputs and target of every sample, shape (m + 1, N), in the order of `sample_gradients`."""
        inputs = self.inputs if self.index is None else self.inputs[:, self.index]
        return np.ascontiguousarray(np.vstack([inputs, self.target]))

    def sample_gradients(self, x: np.ndarray, index: np.ndarray | None = None) -> np.ndarray:
        """Return ∇L_k of every sample k, shape (n, N, d); of the samples `index` (n, b) only, shape (n, b, d).

        No chunks: the caller bounds n·N.
        """
        x = np.asarray(x, dtype=float).reshape(-1, len(self.variables))
        if index is None:
            columns = run_arrays(self.gradient_program, x, self.inputs, self.target, self.index)
        else:
            own = self.table[:, np.asarray(index)]
            columns = run_arrays(self.gradient_program, x, own[:-1], own[-1], None)
        return np.stack(columns, axis=2)

    def loss(self, x: np.ndarray) -> np.ndarray:
        """Return L, shape (n,)."""
        mean, _ = self._moments(self.loss_program, x, [])
        return _repaired(mean[0], x, lambda box: [self.enclosure().loss(box)])

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """Return ∇L, shape (n, d)."""
        mean, _ = self._moments(self.gradient_program, x, [])
        return self._gradient(mean, x)

    def hessian(self, x: np.ndarray) -> np.ndarray:
        """Return D²L, shape (n, d, d)."""
        mean, _ = self._moments(self.hessian_program, x, [])
        return self._hessian(mean, x)

    def covariance(self, x: np.ndarray) -> np.ndarray:
        """Return Q, shape (n, d, d), exactly symmetric."""
        _, products = self._moments(self.gradient_program, x, _covariance_pairs(len(self.variables)))
        return self._covariance(products, x)

    def covariance_divergence(self, x: np.ndarray) -> np.ndarray:
        """Return div Q, shape (n, d)."""
        _, products = self._moments(self.hessian_program, x, _divergence_pairs(len(self.variables)))
        return self._divergence(products, x)

    def statistics(self, x: np.ndarray) -> SampleStatistics:
        """Return ∇L, D²L, Q and div Q together; cheaper than one after the other."""
        d = len(self.variables)
        pairs = _covariance_pairs(d)
        mean, products = self._moments(self.hessian_program, x, [*pairs, *_divergence_pairs(d)])
        return SampleStatistics(
            self._gradient(mean[:d], x),
            self._hessian(mean, x),
            self._covariance(products[: len(pairs)], x),
            self._divergence(products[len(pairs) :], x),
        )

    def enclosure(self) -> SampleEnclosure:
        """Return rigorous evaluations of the same sums; the data are taken as exact binary numbers."""
        return self._enclosure

    @cached_property
    def _enclosure(self) -> SampleEnclosure:
        return SampleEnclosure.of(
            self.loss_program, self.gradient_program, self.hessian_program, self.inputs, self.target, self.index
        )

    def _gradient(self, mean: np.ndarray, x: np.ndarray) -> np.ndarray:
        return _repaired(mean.T, x, lambda box: self.enclosure().gradient(box))

    def _hessian(self, mean: np.ndarray, x: np.ndarray) -> np.ndarray:
        packed = mean[len(self.variables) :]
        return _repaired(_unpack(packed, len(self.variables)), x, lambda box: self.enclosure().hessian(box))

    def _covariance(self, products: np.ndarray, x: np.ndarray) -> np.ndarray:
        return _repaired(_unpack(products, len(self.variables)), x, lambda box: self.enclosure().covariance(box))

    def _divergence(self, products: np.ndarray, x: np.ndarray) -> np.ndarray:
        d = len(self.variables)
        rows = products.reshape(d, d + 1, products.shape[1]).sum(axis=1)

        def again(box: list[Any]) -> list[Any]:
            third = self.enclosure().covariance_derivative(box)
            return [sum(third[(i * d + j) * d + j] for j in range(d)) for i in range(d)]

        return _repaired(rows.T, x, again)

    def _moments(
        self, program: Program, x: np.ndarray, pairs: Sequence[tuple[int, int]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return means over the samples, (rows, n), and mean centred products of pairs of rows, (pairs, n).

        Row d + d(d+1)/2 (after the outputs of the program) is the trace of the Hessian.
        """
        x = np.asarray(x, dtype=float).reshape(-1, len(self.variables))
        rows = len(program.outputs)
        mean, products = np.empty((rows, len(x))), np.empty((len(pairs), len(x)))
        width = min(self.samples, BLOCK)
        step = max(1, BLOCK // width)
        with np.errstate(all="ignore"):
            for start in range(0, len(x), step):
                chunk = slice(start, start + step)
                blocks = [self._block(program, x[chunk], b, b + width, pairs) for b in range(0, self.samples, width)]
                merged = blocks[0]
                for block in blocks[1:]:
                    merged = _merge(merged, block, pairs)
                mean[:, chunk] = merged[1][:rows]
                products[:, chunk] = merged[2] / self.samples
        return mean, products

    def _block(
        self, program: Program, x: np.ndarray, start: int, stop: int, pairs: Sequence[tuple[int, int]]
    ) -> tuple[int, np.ndarray, np.ndarray]:
        target = self.target[start:stop]
        if self.index is None:
            columns = run_arrays(program, x, self.inputs[:, start:stop], target, None)
        else:
            index = self.index[start:stop]
            inputs = self.inputs[:, index[0] : index[-1] + 1]
            columns = run_arrays(program, x, inputs, target, index - index[0])
        if pairs and max(max(pair) for pair in pairs) == len(columns):
            d = len(self.variables)
            diagonal = [d + _packed(i, i, d) for i in range(d)]
            columns.append(np.sum([columns[i] for i in diagonal], axis=0))
        mean = np.array([column.mean(axis=1) for column in columns])
        products = np.empty((len(pairs), len(x)))
        if pairs:
            centred = [column - m[:, None] for column, m in zip(columns, mean, strict=True)]
            for row, (a, b) in zip(products, pairs, strict=True):
                row[:] = np.einsum("pk,pk->p", centred[a], centred[b])
        return len(target), mean, products


def _merge(
    first: tuple[int, np.ndarray, np.ndarray],
    second: tuple[int, np.ndarray, np.ndarray],
    pairs: Sequence[tuple[int, int]],
) -> tuple[int, np.ndarray, np.ndarray]:
    """Join count, means and centred product sums of two blocks (Chan, Golub, LeVeque 1983)."""
    count = first[0] + second[0]
    change = second[1] - first[1]
    mean = first[1] + change * (second[0] / count)
    products = first[2] + second[2]
    for row, (a, b) in zip(products, pairs, strict=True):
        row += change[a] * change[b] * (first[0] * second[0] / count)
    return count, mean, products


def _packed(i: int, j: int, d: int) -> int:
    """Return the place of entry (i, j) in the upper triangle, row by row."""
    i, j = min(i, j), max(i, j)
    return i * d - i * (i - 1) // 2 + j - i


def _unpack(packed: np.ndarray, d: int) -> np.ndarray:
    full = np.stack([packed[_packed(i, j, d)] for i in range(d) for j in range(d)], axis=1)
    return full.reshape(packed.shape[1], d, d)


def _covariance_pairs(d: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(d) for j in range(i, d)]


def _divergence_pairs(d: int) -> list[tuple[int, int]]:
    trace = d + d * (d + 1) // 2
    return [pair for i in range(d) for pair in [*((d + _packed(i, j, d), j) for j in range(d)), (trace, i)]]


def _repaired(values: np.ndarray, x: np.ndarray, evaluate: Callable[[list[Any]], list[Any]]) -> np.ndarray:
    """Return `values` (n, …) with its non-finite points evaluated again in Arb."""
    values = np.ascontiguousarray(values)
    if values.size == 0:
        return values
    flat = values.reshape(len(values), -1)
    points = np.asarray(x, dtype=float).reshape(len(values), -1)
    for k in np.flatnonzero(~np.isfinite(flat).all(axis=1) & np.isfinite(points).all(axis=1)):
        flat[k] = _exponent_free(evaluate, points[k])
    return values


def _exponent_free(evaluate: Callable[[list[Any]], list[Any]], point: np.ndarray) -> np.ndarray:
    """Evaluate at a point in Arb with as much precision as 12 digits of the result take; nan without success."""
    import flint

    before = flint.ctx.prec
    try:
        for precision in (128, 512, 2048):
            flint.ctx.prec = precision
            balls = evaluate([flint.arb(float(coordinate)) for coordinate in point])
            middle = np.array([float(ball.mid()) for ball in balls])
            radius = np.array([float(ball.rad()) for ball in balls])
            # a value below 1e-300 need not have correct digits
            if (radius <= 1e-12 * np.abs(middle) + 1e-300).all():
                return middle
    finally:
        flint.ctx.prec = before
    return np.full(len(balls), np.nan)


def sample_landscape(
    model: str,
    parameters: Sequence[str],
    inputs: Sequence[str],
    target: str,
    sample_loss: str | None,
    data: Mapping[str, np.ndarray],
    key: str = "process.data",
) -> SampleLandscape:
    """Return the landscape of a model, a per-sample loss and data.

    Parameters
    ----------
    model : str
        Formula in parameters and inputs.
    parameters, inputs : names
    target : name
    sample_loss : str or None
        Formula in ``model``, the target and the inputs; None: ``(model - target)**2/2``.
    data : mapping of name to ndarray (N,)
        A column for each input and the target.
    key : str
        The name of the group of these inputs in error messages.

    Raises
    ------
    InputError
        If a name, formula or column cannot be used, the loss is not twice differentiable, or there are
        fewer than two samples.
    """
    names = check_names(parameters, f"{key}.parameters")
    if not names:
        raise InputError(f"{key}.parameters", list(parameters), "at least one name")
    known = check_names(inputs, f"{key}.inputs")
    check_names([target], f"{key}.target")
    if "model" in (*names, *known, target):
        raise InputError(key, "model", "other names for parameters, inputs and target", "It stands for the model.")
    everything = check_names([*names, *known, target], key)
    text = f"(model - {target})**2/2" if sample_loss is None else sample_loss
    inner = Formula.parse(model, (*names, *known), f"{key}.model").entries[0]
    outer = Formula.parse(text, ("model", target, *known), f"{key}.sample_loss").entries[0]
    if sympy.Symbol("model", real=True) not in outer.free_symbols:
        raise InputError(f"{key}.sample_loss", text, "a formula in which model occurs")
    if not inner.free_symbols & set(symbols(names)):
        raise InputError(f"{key}.model", model, f"a formula in which one of {', '.join(names)} occurs")
    loss = stable_form(outer.subs({sympy.Symbol("model", real=True): inner}))
    columns = check_data(data, [*known, target], key)
    return _assemble(loss, names, everything, columns, f"{key}.sample_loss", text)


def _assemble(
    loss: sympy.Expr,
    names: tuple[str, ...],
    everything: tuple[str, ...],
    columns: Mapping[str, np.ndarray],
    key: str,
    text: str,
) -> SampleLandscape:
    parameters = symbols(names)
    gradient = [sympy.diff(loss, p) for p in parameters]
    hessian = [sympy.diff(gradient[i], parameters[j]) for i in range(len(names)) for j in range(i, len(names))]
    strange = set().union(*(unsupported(entry) for entry in [loss, *gradient, *hessian]))
    if strange:
        raise InputError(key, text, "a loss whose gradient and Hessian exist everywhere", f"Found {sorted(strange)}.")
    matrix, target, index = _ordered(np.array([columns[name] for name in everything[len(names) :]]))
    levels = [0] * len(names) + [1 if index is not None else 2] * len(matrix) + [2]
    programs = [
        compile_program(entries, symbols(everything), levels) for entries in ([loss], gradient, [*gradient, *hessian])
    ]
    return SampleLandscape(names, programs[0], programs[1], programs[2], matrix, target, index, everything, loss)


def _ordered(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return inputs, targets and the index that joins them, sorted by input; the last column is the target."""
    inputs, target = columns[:-1], columns[-1]
    if len(inputs) == 0:
        return inputs, target, None
    distinct, index = np.unique(inputs, axis=1, return_inverse=True)
    index = index.reshape(-1)
    if 2 * distinct.shape[1] > len(target):
        return np.ascontiguousarray(inputs), target, None
    order = np.argsort(index, kind="stable")
    return np.ascontiguousarray(distinct), target[order], index[order]
