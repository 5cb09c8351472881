"""Approximations of the gradient covariance that are in use, as landscapes with the same loss.

``"constant"``: Q at a minimum x*, everywhere. ``"loss-proportional"``: ``Q ≈ 2 L(x) H*``, H* = D²L(x*) (thesis, after
Mori et al.; mathematics.md section 5). ``"isotropic"``: ``Q ≈ β(x) I`` (Dai-Zhu (4), who leave β open; here
``β = tr Q/d``, the nearest multiple of the identity, with as much noise as Q).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sympy

from fpsolve.errors import InputError
from fpsolve.model.expressions import Formula
from fpsolve.model.process import Enclosure, FormulaLandscape, Landscape
from fpsolve.model.third_order import covariance_slope

KINDS = ("constant", "loss-proportional", "isotropic")
#: Negative eigenvalues of H* below this part of the largest are rounding.
ROUNDING = 1e-12


def covariance_model(
    landscape: Landscape, kind: str, at: Sequence[float] | np.ndarray | None = None, key: str = "process.covariance"
) -> Landscape:
    """Return the landscape with the same loss whose covariance is approximated.

    It has no samples: its chain is the Gaussian one. Of a loss given by formulas it is again given by formulas.

    Parameters
    ----------
    landscape : Landscape
    kind : "constant", "loss-proportional" or "isotropic"
    at : point, optional
        The minimum x*; needed except for ``"isotropic"``.

    Raises
    ------
    InputError
        For an unknown kind, a point that is missing or unusable, or (loss-proportional) where H* is not positive
        semidefinite or L(x*) < 0: 2 L H* is then no covariance.
    """
    if kind not in KINDS:
        raise InputError(key, kind, f"one of {', '.join(KINDS)}")
    matrix = np.zeros((0, 0)) if kind == "isotropic" else _matrix(landscape, kind, at, key)
    if isinstance(landscape, FormulaLandscape):
        return replace(landscape, covariance_formula=_formula(landscape, kind, matrix))  # what is restricted stays so
    return ModelledCovariance(landscape, kind, matrix)


def _matrix(landscape: Landscape, kind: str, at: Sequence[float] | np.ndarray | None, key: str) -> np.ndarray:
    """Return Q(x*) or H*."""
    d = len(landscape.variables)
    place = f"{key.removesuffix('_model')}_at"
    point = np.asarray([] if at is None else at, dtype=float).reshape(-1)
    if point.shape != (d,) or not np.isfinite(point).all():
        shown = None if at is None else list(at)
        raise InputError(place, shown, f"a point of {d} finite numbers, the minimum that {kind!r} refers to")
    x = point[None]
    matrix = (landscape.covariance if kind == "constant" else landscape.hessian)(x)[0]
    if not np.isfinite(matrix).all():
        raise InputError(place, point.tolist(), "a point where loss and covariance are finite")
    if kind == "loss-proportional":
        values, loss = np.linalg.eigvalsh(matrix), float(landscape.loss(x)[0])
        if values[0] < -ROUNDING * np.abs(values).max() or loss < 0:
            found = f"L = {loss:.6g}, eigenvalues of D²L {np.round(values, 6).tolist()}"
            raise InputError(place, point.tolist(), "a minimum with L >= 0", f"There {found}.")
    return matrix


def _formula(landscape: FormulaLandscape, kind: str, matrix: np.ndarray) -> Formula:
    d = len(landscape.variables)
    if kind == "isotropic":
        diagonal = sympy.Add(*(landscape.covariance_formula.entries[k * (d + 1)] for k in range(d))) / d
        entries = [diagonal if i == j else sympy.Integer(0) for i in range(d) for j in range(d)]
    else:
        factor = 2 * landscape.loss_formula.entries[0] if kind == "loss-proportional" else sympy.Integer(1)
        # exact rationals: a float in a formula would be rounded again
        entries = [factor * sympy.Rational(float(value)) for value in matrix.ravel()]
    return Formula(landscape.variables, tuple(entries), (d, d))


@dataclass(frozen=True, eq=False)
class ModelledCovariance:
    """A landscape with another covariance; see the module.

    Attributes
    ----------
    base : Landscape
    kind : str
    matrix : ndarray, shape (d, d)
        Q(x*) or H*; empty for ``"isotropic"``.
    """

    base: Landscape
    kind: str
    matrix: np.ndarray

    @property
    def variables(self) -> tuple[str, ...]:
        """The names of the parameters."""
        return self.base.variables

    def loss(self, x: np.ndarray) -> np.ndarray:
        """Return L, shape (n,)."""
        return self.base.loss(x)

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """Return ∇L, shape (n, d)."""
        return self.base.gradient(x)

    def hessian(self, x: np.ndarray) -> np.ndarray:
        """Return D²L, shape (n, d, d)."""
        return self.base.hessian(x)

    def covariance(self, x: np.ndarray) -> np.ndarray:
        """Return the approximation of Q, shape (n, d, d)."""
        if self.kind == "isotropic":
            identity = np.eye(len(self.variables))
            return np.einsum("nii,kl->nkl", self.base.covariance(x), identity) / len(identity)
        factor = 2 * self.base.loss(x) if self.kind == "loss-proportional" else np.ones(len(x))
        return factor[:, None, None] * self.matrix

    def covariance_divergence(self, x: np.ndarray) -> np.ndarray:
        """Return its divergence, shape (n, d)."""
        return np.einsum("nijj->ni", self.covariance_derivative(x))

    def covariance_derivative(self, x: np.ndarray) -> np.ndarray:
        """Return its derivatives ∂_k Q_ij, shape (n, d, d, d), k last."""
        d = len(self.variables)
        if self.kind == "isotropic":
            trace = np.einsum("niik->nk", covariance_slope(self.base)(x))
            return np.einsum("nm,kl->nklm", trace, np.eye(d)) / d
        if self.kind == "constant":
            return np.zeros((len(x), d, d, d))
        return 2 * np.einsum("nm,kl->nklm", self.base.gradient(x), self.matrix)

    def enclosure(self) -> Enclosure | None:
        """Return rigorous evaluations, or None where the base has none; the matrix is taken as exact."""
        inner = self.base.enclosure()
        return None if inner is None else ModelledEnclosure(inner, self.kind, self.matrix, len(self.variables))


@dataclass(frozen=True, eq=False)
class ModelledEnclosure:
    """Arb enclosures of a `ModelledCovariance`; see `process.Enclosure`."""

    inner: Enclosure
    kind: str
    matrix: np.ndarray
    dimension: int

    def loss(self, box: Sequence[Any]) -> Any:
        """Enclose L."""
        return self.inner.loss(box)

    def gradient(self, box: Sequence[Any]) -> list[Any]:
        """Enclose ∇L."""
        return self.inner.gradient(box)

    def hessian(self, box: Sequence[Any]) -> list[Any]:
        """Enclose D²L."""
        return self.inner.hessian(box)

    def covariance(self, box: Sequence[Any]) -> list[Any]:
        """Enclose the approximation of Q."""
        import flint

        d = self.dimension
        if self.kind == "isotropic":
            q = self.inner.covariance(box)
            mean = sum((q[k * (d + 1)] for k in range(d)), flint.arb(0)) / d
            return [mean if i == j else flint.arb(0) for i in range(d) for j in range(d)]
        factor = 2 * self.inner.loss(box) if self.kind == "loss-proportional" else flint.arb(1)
        return [factor * flint.arb(float(value)) for value in self.matrix.ravel()]

    def covariance_derivative(self, box: Sequence[Any]) -> list[Any] | None:
        """Enclose its derivatives ∂_k Q_ij, k last."""
        import flint

        d, zero = self.dimension, flint.arb(0)
        if self.kind == "constant":
            return [zero] * d**3
        if self.kind == "loss-proportional":
            slope = self.inner.gradient(box)
            return [2 * g * flint.arb(float(value)) for value in self.matrix.ravel() for g in slope]
        third = self.inner.covariance_derivative(box)
        if third is None:
            return None
        trace = [sum((third[k * (d + 1) * d + m] for k in range(d)), zero) / d for m in range(d)]
        return [trace[m] if i == j else zero for i in range(d) for j in range(d) for m in range(d)]
