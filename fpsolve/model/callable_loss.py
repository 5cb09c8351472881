"""Loss and gradient covariance of a loss that is a Python function of parameters and one sample.

The function is written for numbers: ``sample_loss(theta, *columns)`` with d parameters ``theta[i]`` and one entry of
each column. Two ways to its derivatives:

* given as functions of the same arguments. All three are then called once for many points and samples, with NumPy
  arrays in the place of numbers: theta of shape (d, n, 1), columns of shape (…, N) or (…, n, N), so that
  ``theta[i]*x`` has shape (n, N). `gradient` returns d such arrays, `hessian` d rows of d (or its upper triangle row
  by row). They are called from several threads at once (FPSOLVE_THREADS=1 for one).
* taken by JAX. The function must then be written with `jax.numpy`, and may do with the vector theta what JAX can
  differentiate twice, e.g. cut weight matrices out of it. In double precision whatever JAX's global setting is.

A column may hold a vector for every sample, shape (N, p): its entries are ``x[0] … x[p-1]`` in both cases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fpsolve.errors import InputError
from fpsolve.model.expressions import check_names
from fpsolve.model.sample_data import check_data
from fpsolve.model.sample_moments import Kind, SampleMeans

#: Derivatives that differ by more than this part of the largest from differences of the loss are wrong.
WRONG = 1e-5
#: Steps of those differences, relative to max(1, |θ|).
STEPS = (1e-3, 1e-4, 1e-5)
#: About how many samples are looked at in that comparison.
LOOK = 64


class Rows(Protocol):
    """The terms of a loss at points and samples."""

    @property
    def threaded(self) -> bool:
        """Whether several threads may call it, and gain by it."""

    def __call__(self, kind: Kind, x: np.ndarray, columns: Sequence[np.ndarray], own: bool) -> list[np.ndarray]:
        """Return rows as `SampleMeans.columns` for points x (n, d).

        `columns` have shape (N, …); (n, N, …) with `own`: every point has samples of its own.
        """

    def arrays(self, kind: Kind) -> int:
        """Return how many arrays are in flight beyond the rows; see `SampleMeans.arrays`."""

    def restricted(self, origin: np.ndarray, basis: np.ndarray) -> Rows:
        """Return the rows of t -> ℓ(origin + basis t), basis (d, k)."""


@dataclass(frozen=True, eq=False)
class ArrayRows:
    """Loss, gradient and Hessian as functions of arrays; see the module. Optionally of a restriction by the chain rule.

    Attributes
    ----------
    origin, basis : ndarray (d,), (d, k), or None
    """

    loss: Callable[..., Any]
    gradient: Callable[..., Any]
    hessian: Callable[..., Any]
    origin: np.ndarray | None = None
    basis: np.ndarray | None = None
    threaded: bool = True

    def __call__(self, kind: Kind, x: np.ndarray, columns: Sequence[np.ndarray], own: bool) -> list[np.ndarray]:
        """Return the rows; see `Rows`."""
        lead = 2 if own else 1
        arranged = [np.moveaxis(c, range(lead), range(-lead, 0)) for c in columns]
        shape = (len(x), columns[0].shape[lead - 1])
        theta = (x if self.basis is None else self.origin + x @ self.basis.T).T[:, :, None]
        if kind == "loss":
            return [_filled(self.loss(theta, *arranged), shape, "sample_loss")]
        first = _entries(self.gradient(theta, *arranged), len(theta), "gradient")
        rows = [_filled(entry, shape, "gradient") for entry in first]
        v = self.basis
        result = rows if v is None else list(np.tensordot(v.T, np.stack(rows), 1))
        if kind == "gradient":
            return result
        second = _packed_entries(self.hessian(theta, *arranged), len(theta))
        upper = [_filled(entry, shape, "hessian") for entry in second]
        if v is None:
            return result + upper
        full = np.empty((len(theta), len(theta), *shape))
        for (i, j), entry in zip(zip(*np.triu_indices(len(theta)), strict=True), upper, strict=True):
            full[i, j] = full[j, i] = entry
        inner = np.einsum("ia,ijpk,jb->abpk", v, full, v, optimize=True)
        return result + [inner[a, b] for a, b in zip(*np.triu_indices(v.shape[1]), strict=True)]

    def arrays(self, kind: Kind) -> int:
        """Return how many arrays are in flight: on a subspace the derivatives in all parameters."""
        if self.basis is None:
            return 0
        d = len(self.basis)
        return {"loss": d, "gradient": 2 * d, "hessian": 2 * d**2}[kind]

    def restricted(self, origin: np.ndarray, basis: np.ndarray) -> ArrayRows:
        """Return the rows on a subspace; see `Rows`."""
        if self.basis is not None and self.origin is not None:
            origin, basis = self.origin + self.basis @ origin, self.basis @ basis
        return ArrayRows(self.loss, self.gradient, self.hessian, origin, basis)


def _filled(values: Any, shape: tuple[int, int], what: str) -> np.ndarray:
    try:
        return np.broadcast_to(np.asarray(values, dtype=float), shape)
    except (TypeError, ValueError):
        got = np.shape(values) if not isinstance(values, (str, type(None))) else values
        raise InputError(what, got, f"values of shape {shape}, points × samples", "Use NumPy's functions.") from None


def _entries(values: Any, d: int, what: str) -> list[Any]:
    try:
        entries = list(values)
    except TypeError:
        raise InputError(what, values, f"a function with {d} values, one for each parameter") from None
    if len(entries) != d:
        raise InputError(what, f"{len(entries)} values", f"a function with {d} values, one for each parameter")
    return entries


def _packed_entries(values: Any, d: int) -> list[Any]:
    """Return the upper triangle of a Hessian given as rows or as its upper triangle."""
    try:
        rows = list(values)
    except TypeError:
        raise InputError("hessian", values, f"a function with {d} rows of {d} values") from None
    if len(rows) == d * (d + 1) // 2 and d > 1:
        return rows
    matrix = [_entries(row, d, "hessian") for row in _entries(rows, d, "hessian")]
    return [matrix[i][j] for i in range(d) for j in range(i, d)]


@dataclass(frozen=True, eq=False)
class CallableLandscape(SampleMeans):
    """Loss and covariance of a Python function; implements `process.Landscape` and `chain.SampleGradients`.

    Made by `callable_landscape`, which checks its arguments.

    Attributes
    ----------
    variables : tuple of str
        The d parameters.
    data : tuple of ndarray, each (N, …)
        The columns, in the order of the function's arguments.
    rows : Rows
        The terms and their derivatives.
    """

    variables: tuple[str, ...]
    data: tuple[np.ndarray, ...]
    rows: Rows

    @property
    def samples(self) -> int:
        """The number of samples N."""
        return len(self.data[0])

    @property
    def threaded(self) -> bool:
        """Whether several threads are used: not where JAX has its own."""
        return self.rows.threaded

    def columns(self, kind: Kind, x: np.ndarray, start: int, stop: int) -> list[np.ndarray]:
        """Return rows of terms; see `SampleMeans.columns`."""
        return self.rows(kind, x, [column[start:stop] for column in self.data], False)

    def arrays(self, kind: Kind) -> int:
        """Return how many arrays are in flight; see `SampleMeans.arrays`."""
        return self.rows.arrays(kind)

    def sample_gradients(self, x: np.ndarray, index: np.ndarray | None = None) -> np.ndarray:
        """Return ∇L_k of every sample k, shape (n, N, d); of the samples `index` (n, b) only, shape (n, b, d).

        No chunks: the caller bounds n·N.
        """
        x = np.asarray(x, dtype=float).reshape(-1, len(self.variables))
        chosen = None if index is None else np.asarray(index)
        if len(x) == 0:
            return np.empty((0, self.samples if chosen is None else chosen.shape[1], len(self.variables)))
        columns = self.data if chosen is None else [column[chosen] for column in self.data]
        with np.errstate(all="ignore"):
            return np.stack(self.rows("gradient", x, columns, chosen is not None), axis=2)

    def enclosure(self) -> None:
        """Return None: a function of floats has no rigorous evaluation, so no bound can be proven."""
        return None


def callable_landscape(
    sample_loss: Callable[..., Any],
    data: Mapping[str, Any] | Sequence[Any],
    variables: Sequence[str],
    gradient: Callable[..., Any] | None = None,
    hessian: Callable[..., Any] | None = None,
    check_at: Sequence[float] | None = None,
) -> CallableLandscape:
    """Return the landscape L(θ) = (1/N) Σ_k sample_loss(θ, sample k) of a Python function.

    Parameters
    ----------
    sample_loss : callable
        ``sample_loss(theta, *columns)``, a number; see `fpsolve.model.callable_loss` for how it is called.
    data : mapping of name to array, or sequence of arrays
        The columns, in the order of the arguments: shape (N,), or (N, p) for a vector for each sample.
    variables : names
        Of the d parameters.
    gradient, hessian : callable, optional
        Derivatives with respect to theta, with the same arguments; both, or neither: then JAX takes them.
    check_at : d numbers, optional
        Where given derivatives are compared with differences of `sample_loss`; two points near 0 by default.

    Raises
    ------
    InputError
        If a value cannot be used, the function fails, or a given derivative is wrong.
    MissingPackage
        If derivatives are not given and JAX is not installed.
    """
    names = check_names(variables, "variables")
    if not names:
        raise InputError("variables", list(variables), "at least one name")
    for key, function in (("sample_loss", sample_loss), ("gradient", gradient), ("hessian", hessian)):
        if not callable(function) and (function is not None or key == "sample_loss"):
            raise InputError(key, function, "a function")
    if (gradient is None) != (hessian is None):
        missing = "gradient" if gradient is None else "hessian"
        raise InputError(missing, None, "gradient and hessian both, or neither", "JAX takes them if neither is given.")
    if not isinstance(data, Mapping):
        data = {f"column_{i}": column for i, column in enumerate(data)}
    columns = tuple(check_data(data, list(data), "data", vectors=True).values())
    points = _check_points(check_at, len(names))
    rows: Rows
    if gradient is None or hessian is None:
        from fpsolve.model.jax_loss import JaxRows

        rows = JaxRows.of(sample_loss, points[0], [column[0] for column in columns])
    else:
        rows = ArrayRows(sample_loss, gradient, hessian)
        stride = max(1, len(columns[0]) // LOOK)  # files are often sorted
        _check_derivatives(rows, points, [column[::stride] for column in columns])
    return CallableLandscape(names, columns, rows)


def _check_points(given: Sequence[float] | None, d: int) -> np.ndarray:
    """Return the points (n, d) of the comparison; drawn from a fixed seed, so the same on every rank."""
    if given is None:
        return 0.5 * np.random.default_rng(7).normal(size=(2, d))
    point = np.asarray(given, dtype=float)
    if point.shape != (d,) or not np.isfinite(point).all():
        raise InputError("check_at", given, f"{d} finite numbers")
    return point[None]


def _check_derivatives(rows: Rows, points: np.ndarray, columns: Sequence[np.ndarray]) -> None:
    """Compare gradient and Hessian with central differences of fourth order of the loss and the gradient.

    A right derivative agrees at one of the steps at least, a wrong one at none.
    """
    with np.errstate(all="ignore"):
        loss = rows("loss", points, columns, False)[0]
        exact = np.stack(rows("hessian", points, columns, False))
        if not (np.isfinite(loss).all() and np.isfinite(exact).all()):
            what = "a point where loss and derivatives are finite"
            raise InputError("check_at", points[0].tolist(), what, "Give one.")
        errors = []
        for step in STEPS:
            error = _mismatch(rows, points, columns, loss, exact, step)
            if error is None:
                return
            errors.append(error)
    raise errors[-1]


def _mismatch(
    rows: Rows, points: np.ndarray, columns: Sequence[np.ndarray], loss: np.ndarray, exact: np.ndarray, relative: float
) -> InputError | None:
    d = points.shape[1]
    upper = {pair: d + k for k, pair in enumerate(zip(*np.triu_indices(d), strict=True))}
    for i in range(d):
        step = relative * np.maximum(1.0, np.abs(points[:, i]))
        slope, change = np.zeros_like(loss), np.zeros((d, *loss.shape))
        for shift, weight in ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12)):
            x = points.copy()
            x[:, i] += shift * step
            slope = slope + weight / step[:, None] * rows("loss", x, columns, False)[0]
            change = change + weight / step[:, None] * np.stack(rows("gradient", x, columns, False))
        found = [_compare("gradient", f"[{i}]", exact[i], slope, loss)]
        for j in range(d):
            entry = exact[upper[min(i, j), max(i, j)]]
            found.append(_compare("hessian", f"[{i}][{j}]", entry, change[j], exact[:d]))
        for error in found:
            if error is not None:
                return error
    return None


def _compare(what: str, entry: str, given: np.ndarray, measured: np.ndarray, lower: np.ndarray) -> InputError | None:
    """Return what is wrong with a derivative, if anything; `lower` is what was differenced."""
    allowed = WRONG * np.abs(given).max() + 1e-9 * np.abs(lower).max()
    worst = np.unravel_index(np.argmax(np.nan_to_num(np.abs(given - measured), nan=np.inf)), given.shape)
    if abs(given[worst] - measured[worst]) <= allowed:
        return None
    order = "sample_loss" if what == "gradient" else "gradient"
    found = f"{given[worst]:.10g} as entry {entry} of a sample"
    return InputError(what, found, f"{measured[worst]:.10g}, which differences of {order} give")
