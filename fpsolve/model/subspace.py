"""Models of many parameters on an affine subspace θ = o + V t of one to three dimensions.

For orthonormal V (d, k), with everything at θ = o + V t, the restriction has

``L``, ``Vᵀ∇L``, ``VᵀD²L V``, ``VᵀQV`` and ``(div_t VᵀQV)_i = Σ V_ki V_lj V_mj ∂_m Q_kl``.

All of it is exact: a formula or the loss of a sample gets o + V t in the place of its parameters and is
differentiated again, with enclosures; a Python function gets the chain rule for each sample, from which means and
covariances follow as always. What the restriction leaves out is the motion out of the subspace: the drift
``(I - VVᵀ)∇L`` and noise of total strength ``tr (I - VVᵀ)Q``, see `neglected`. Where both vanish the subspace is
invariant and nothing is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import numpy as np
import scipy.optimize
import sympy

from fpsolve.errors import InputError
from fpsolve.model.callable_loss import CallableLandscape
from fpsolve.model.expressions import Formula, check_names, symbols
from fpsolve.model.process import FormulaLandscape, Landscape
from fpsolve.model.samples import SampleLandscape, assemble

#: A direction counts as dependent on those before it when less than this part of it is left.
DEPENDENT = 1e-10
#: |∇L| at a minimum, relative to |∇L| at the start or ‖D²L‖ max(1, |θ|).
STATIONARY = 1e-9
MAX_DIMENSION = 3


@dataclass(frozen=True, eq=False)
class Subspace:
    """The points o + V t.

    Attributes
    ----------
    origin : ndarray, shape (d,)
    basis : ndarray, shape (d, k)
        V, orthonormal columns.
    variables : tuple of str
        The names of the k coordinates.
    """

    origin: np.ndarray
    basis: np.ndarray
    variables: tuple[str, ...]

    def points(self, t: np.ndarray) -> np.ndarray:
        """Return θ = o + V t, shape (n, d), for coordinates t (n, k)."""
        return self.origin + np.asarray(t, dtype=float).reshape(-1, self.basis.shape[1]) @ self.basis.T


@runtime_checkable
class Restriction(Protocol):
    """A landscape made by `restrict`."""

    full: Landscape
    subspace: Subspace


@dataclass(frozen=True)
class RestrictedFormula(FormulaLandscape):
    """A formula on a subspace; `full` is the landscape in all parameters."""

    full: Any = None
    subspace: Any = None


@dataclass(frozen=True, eq=False)
class RestrictedSamples(SampleLandscape):
    """A model and data on a subspace; `full` is the landscape in all parameters."""

    full: Any = None
    subspace: Any = None


@dataclass(frozen=True, eq=False)
class RestrictedCallable(CallableLandscape):
    """A Python function on a subspace; `full` is the landscape in all parameters."""

    full: Any = None
    subspace: Any = None


@dataclass(frozen=True)
class Neglected:
    """What a restriction leaves out at n points.

    Attributes
    ----------
    drift, noise : ndarray, shape (n,)
        ``|(I - VVᵀ)∇L|`` and ``tr (I - VVᵀ)Q``.
    drift_share, noise_share : ndarray, shape (n,)
        Their parts of ``|∇L|`` and ``tr Q``; 0 where both are 0.
    """

    drift: np.ndarray
    drift_share: np.ndarray
    noise: np.ndarray
    noise_share: np.ndarray


def neglected(restriction: Landscape, t: np.ndarray) -> Neglected:
    """Return drift and noise out of the subspace of a landscape made by `restrict`, at coordinates t (n, k).

    Raises
    ------
    InputError
        If the landscape is no restriction.
    """
    if not isinstance(restriction, Restriction):
        raise InputError("restriction", restriction.variables, "a landscape made by fpsolve.restrict")
    full, v = restriction.full, restriction.subspace.basis
    theta = restriction.subspace.points(t)
    g, q = full.gradient(theta), full.covariance(theta)
    drift = np.linalg.norm(g - (g @ v) @ v.T, axis=1)
    total = np.trace(q, axis1=1, axis2=2)
    noise = np.maximum(total - np.einsum("ki,nkl,li->n", v, q, v), 0.0)
    return Neglected(drift, _share(drift, np.linalg.norm(g, axis=1)), noise, _share(noise, total))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def restrict(
    landscape: Landscape,
    origin: Sequence[float],
    directions: Sequence[Sequence[float]] | None = None,
    leading: int | None = None,
    variables: Sequence[str] | None = None,
    key: str = "subspace",
) -> Landscape:
    """Return the landscape on an affine subspace of the parameters.

    Parameters
    ----------
    landscape : FormulaLandscape, SampleLandscape or CallableLandscape
    origin : d numbers
        o; with `leading` the start of the search for the minimum that o then is.
    directions : one to three lists of d numbers, optional
        Made orthonormal in their order.
    leading : int, optional
        Take the so many eigenvectors of D²L(o) with the largest eigenvalues instead.
    variables : names, optional
        Of the coordinates; t1, t2, … by default.
    key : str
        The name of the group of these inputs in error messages.

    Returns
    -------
    Landscape
        Of the same kind, in the coordinates t, with the attributes `full` and `subspace` besides.

    Raises
    ------
    InputError
        If a value cannot be used, directions are dependent, or no minimum is found near the start.
    """
    d = len(landscape.variables)
    o = _vector(origin, d, f"{key}.origin", landscape.variables)
    if (directions is None) == (leading is None):
        given = {"directions": directions, "leading": leading}
        raise InputError(key, given, "either directions or leading")
    if directions is not None:
        basis = _orthonormal(directions, d, landscape.variables, f"{key}.directions")
    else:
        if isinstance(leading, bool) or not isinstance(leading, int) or not 1 <= leading <= min(d, MAX_DIMENSION):
            raise InputError(f"{key}.leading", leading, f"an integer from 1 to {min(d, MAX_DIMENSION)}")
        o = find_minimum(landscape, o, f"{key}.origin")
        basis = _leading(landscape.hessian(o[None])[0], leading)
    names = tuple(variables) if variables is not None else tuple(f"t{i + 1}" for i in range(basis.shape[1]))
    names = check_names(names, f"{key}.variables")
    if len(names) != basis.shape[1]:
        raise InputError(f"{key}.variables", list(names), f"{basis.shape[1]} names, one for each direction")
    subspace = Subspace(o, basis, names)
    if isinstance(landscape, SampleLandscape):
        return _samples(landscape, subspace, f"{key}.variables")
    if isinstance(landscape, FormulaLandscape):
        return _formula(landscape, subspace)
    if isinstance(landscape, CallableLandscape):
        return RestrictedCallable(names, landscape.data, landscape.rows.restricted(o, basis), landscape, subspace)
    expected = "a landscape of a formula, of a model and data or of a Python function"
    raise InputError(key, type(landscape).__name__, expected, "div Q needs all first derivatives of Q.")


# --- the subspace --------------------------------------------------------------------------------------


def _vector(values: Sequence[float], d: int, key: str, names: Sequence[str]) -> np.ndarray:
    try:
        vector = np.array(values, dtype=float)
    except (TypeError, ValueError):
        vector = np.empty(0)
    if vector.shape != (d,) or not np.isfinite(vector).all():
        raise InputError(key, values, f"{d} numbers, one for each of {', '.join(names)}")
    return vector


def _orthonormal(directions: Sequence[Sequence[float]], d: int, names: Sequence[str], key: str) -> np.ndarray:
    """Return the directions made orthonormal one after the other, as columns; each keeps its sense."""
    most = min(d, MAX_DIMENSION)
    if isinstance(directions, str) or not 1 <= len(directions) <= most:
        raise InputError(key, directions, f"one to {most} directions, each of {d} numbers")
    columns = np.column_stack([_vector(v, d, f"{key}[{i}]", names) for i, v in enumerate(directions)])
    for i, norm in enumerate(np.linalg.norm(columns, axis=0)):
        if norm == 0:
            raise InputError(f"{key}[{i}]", list(directions[i]), "a direction that is not zero")
        columns[:, i] /= norm
    basis, triangle = np.linalg.qr(columns)
    left = np.abs(np.diag(triangle))
    if left.min() < DEPENDENT:
        i = int(np.argmin(left))
        raise InputError(f"{key}[{i}]", list(directions[i]), "a direction that is independent of those before it")
    return basis * np.sign(np.diag(triangle)) + 0.0  # no -0.0


def _leading(hessian: np.ndarray, k: int) -> np.ndarray:
    """Return the k eigenvectors of the largest eigenvalues, largest first; the largest entry of each is positive."""
    vectors = np.linalg.eigh(hessian)[1][:, ::-1][:, :k]
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(k)]
    return vectors * np.sign(largest)


def find_minimum(landscape: Landscape, start: Sequence[float] | np.ndarray, key: str = "origin") -> np.ndarray:
    """Return a minimum of L near a start, shape (d,), by a trust region and Newton's method.

    The minimum may be degenerate, as where there are fewer samples than parameters: Newton's steps are those of least
    squares. It is one to second order: a saddle whose Hessian has no negative eigenvalue is not told from it.

    Raises
    ------
    InputError
        If the search ends elsewhere.
    """
    x = np.array(start, dtype=float)
    if not np.isfinite(landscape.loss(x[None])[0]):
        raise InputError(key, x.tolist(), "a start at which the loss is finite")
    try:
        found = scipy.optimize.minimize(
            lambda p: np.nan_to_num(
                landscape.loss(p[None])[0], nan=np.inf
            ),  # so that steps out of its domain are shortened
            x,
            jac=lambda p: landscape.gradient(p[None])[0],
            hess=lambda p: landscape.hessian(p[None])[0],
            method="trust-exact",
            options={"gtol": 1e-10, "maxiter": 500},
        )
    except (ArithmeticError, np.linalg.LinAlgError):  # flat or unbounded below: steps without end
        raise InputError(key, x.tolist(), "a start near a minimum of the loss", "The search finds none.") from None
    best = np.asarray(found.x, dtype=float)
    gradient, hessian = landscape.gradient(best[None])[0], landscape.hessian(best[None])[0]
    for _ in range(20):
        if not (np.isfinite(gradient).all() and np.isfinite(hessian).all()):
            break
        new = best - np.linalg.lstsq(hessian, gradient, rcond=1e-10)[0]
        at_new = landscape.gradient(new[None])[0]
        if not np.linalg.norm(at_new) < np.linalg.norm(gradient):
            break
        best, gradient, hessian = new, at_new, landscape.hessian(new[None])[0]
    scale = np.linalg.norm(hessian) * max(1.0, float(np.linalg.norm(best)))
    eigenvalues = np.linalg.eigvalsh(hessian) if np.isfinite(hessian).all() else np.array([-np.inf])
    if not np.linalg.norm(gradient) <= STATIONARY * scale or eigenvalues[0] < -1e-8 * max(eigenvalues[-1], 0.0):
        found_at = f"The search ends at {best.tolist()} with |∇L| = {np.linalg.norm(gradient):.3g}."
        raise InputError(key, x.tolist(), "a start near a minimum of the loss", found_at)
    return best


# --- the restriction -----------------------------------------------------------------------------------


def _inserted(variables: Sequence[str], subspace: Subspace) -> dict[sympy.Symbol, sympy.Expr]:
    """Return o + V t for every parameter; floats are taken as the binary numbers that they are."""
    t = symbols(subspace.variables)
    return {
        symbol: sympy.Rational(float(o)) + sum(sympy.Rational(float(c)) * s for c, s in zip(row, t, strict=True))
        for symbol, o, row in zip(symbols(variables), subspace.origin, subspace.basis, strict=True)
    }


def _samples(landscape: SampleLandscape, subspace: Subspace, key: str) -> RestrictedSamples:
    columns = landscape.names[len(landscape.variables) :]
    taken = [name for name in subspace.variables if name in columns]
    if taken:
        raise InputError(key, list(subspace.variables), "names that are no columns of the data", f"{taken[0]} is.")
    loss = landscape.sample_loss.xreplace(_inserted(landscape.variables, subspace))
    names = (*subspace.variables, *columns)
    table = dict(zip(columns, landscape.table, strict=True))
    inner = assemble(loss, subspace.variables, names, table, key, str(landscape.sample_loss))
    values = {field.name: getattr(inner, field.name) for field in fields(inner)}
    return RestrictedSamples(**values, full=landscape, subspace=subspace)


def _formula(landscape: FormulaLandscape, subspace: Subspace) -> RestrictedFormula:
    inserted, v = _inserted(landscape.variables, subspace), sympy.Matrix(subspace.basis.tolist())
    v = v.applyfunc(lambda c: sympy.Rational(float(c)))
    d, k = subspace.basis.shape
    q = sympy.Matrix(d, d, landscape.covariance_formula.entries)
    loss = landscape.loss_formula.entries[0].xreplace(inserted)
    if q == q[0, 0] * sympy.eye(d):  # VᵀV = 1 holds exactly for V itself, not for its floats
        inner = q[0, 0] * sympy.eye(k)
    else:
        inner = v.T * q * v
        inner = (inner + inner.T) / 2
    covariance = tuple(entry.xreplace(inserted) for entry in inner)
    names = subspace.variables
    formulas = Formula(names, (loss,)), Formula(names, covariance, (k, k))
    return RestrictedFormula(*formulas, full=landscape, subspace=subspace)
