"""Loss and gradient covariance of a model fitted to data (mathematics.md sections 1 and 6).

``L(θ) = (1/N) Σ_k ℓ(model(θ; inputs_k), target_k)``; what follows from its terms is in `sample_moments`.

Derivatives are exact: the model is put into the loss symbolically, rewritten by `logistic.stable_form` so
that derivatives do not overflow, and differentiated with respect to the parameters. Points whose floating-point
value is not finite all the same (intermediate overflow of a kind `stable_form` does not know) are evaluated
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
from fpsolve.model.sample_moments import Kind, SampleMeans, SampleStatistics
from fpsolve.model.sample_program import Program, compile_program, run_arrays, unsupported

__all__ = ["SampleLandscape", "SampleStatistics", "read_csv", "sample_landscape"]


@dataclass(frozen=True, eq=False)
class SampleLandscape(SampleMeans):
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

    def columns(self, kind: Kind, x: np.ndarray, start: int, stop: int) -> list[np.ndarray]:
        """Return rows of terms; see `SampleMeans.columns`."""
        program = {"loss": self.loss_program, "gradient": self.gradient_program, "hessian": self.hessian_program}[kind]
        target = self.target[start:stop]
        if self.index is None:
            return run_arrays(program, x, self.inputs[:, start:stop], target, None)
        index = self.index[start:stop]
        inputs = self.inputs[:, index[0] : index[-1] + 1]
        return run_arrays(program, x, inputs, target, index - index[0])

    def repaired(self, name: str, values: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return `values` (n, …) with its non-finite points evaluated again in Arb."""
        if values.size == 0:
            return values
        flat = values.reshape(len(values), -1)
        points = np.asarray(x, dtype=float).reshape(len(values), -1)
        for k in np.flatnonzero(~np.isfinite(flat).all(axis=1) & np.isfinite(points).all(axis=1)):
            flat[k] = _exponent_free(lambda box: self._balls(name, box), points[k])
        return values

    def _balls(self, name: str, box: list[Any]) -> list[Any]:
        if name == "loss":
            return [self.enclosure().loss(box)]
        if name == "covariance_divergence":
            d, third = len(self.variables), self.enclosure().covariance_derivative(box)
            return [sum(third[(i * d + j) * d + j] for j in range(d)) for i in range(d)]
        return list(getattr(self.enclosure(), name)(box))

    def enclosure(self) -> SampleEnclosure:
        """Return rigorous evaluations of the same sums; the data are taken as exact binary numbers."""
        return self._enclosure

    @cached_property
    def _enclosure(self) -> SampleEnclosure:
        return SampleEnclosure.of(
            self.loss_program, self.gradient_program, self.hessian_program, self.inputs, self.target, self.index
        )


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
    return assemble(loss, names, everything, columns, f"{key}.sample_loss", text)


def assemble(
    loss: sympy.Expr,
    names: tuple[str, ...],
    everything: tuple[str, ...],
    columns: Mapping[str, np.ndarray],
    key: str,
    text: str,
) -> SampleLandscape:
    """Return the landscape of the loss of one sample, a formula in the parameters `names` and the columns.

    Parameters
    ----------
    everything : names
        Parameters, inputs and target.
    columns : mapping of name to ndarray (N,)
        Checked ones.
    key, text : str
        What `loss` comes from, for error messages.

    Raises
    ------
    InputError
        If the loss is not twice differentiable.
    """
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
