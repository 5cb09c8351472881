"""Initial data of the Fokker-Planck equation: what the parameters are at time 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fpsolve.errors import InputError
from fpsolve.model.expressions import Formula


@dataclass(frozen=True)
class GaussianStart:
    """X_0 ~ N(mean, covariance), the covariance positive definite; use `PointStart` for none."""

    mean: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        d = len(self.mean)
        matrix = np.array(self.covariance, dtype=float)
        key = "evolve.initial.covariance"
        if matrix.shape != (d, d) or not np.isfinite(matrix).all() or not np.allclose(matrix, matrix.T, rtol=1e-12):
            raise InputError(key, self.covariance, f"a symmetric {d} × {d} matrix")
        if not np.linalg.eigvalsh(matrix)[0] > 0:
            remedy = "Use point = [...] for a start without spread."
            raise InputError(key, self.covariance, "a positive definite matrix", remedy)

    def density(self, x: np.ndarray) -> np.ndarray:
        """Return the density at points (n, d), shape (n,)."""
        matrix = np.array(self.covariance, dtype=float)
        z = np.linalg.solve(np.linalg.cholesky(matrix), (x - np.array(self.mean)).T)
        return np.exp(-0.5 * np.sum(z * z, axis=0)) / np.sqrt(np.linalg.det(2 * np.pi * matrix))


@dataclass(frozen=True)
class DensityStart:
    """X_0 has a density proportional to a formula that is nonnegative in the domain; it is normalised there."""

    formula: Formula

    def density(self, x: np.ndarray) -> np.ndarray:
        """Return the formula's value at points (n, d), shape (n,)."""
        return self.formula(x)


@dataclass(frozen=True)
class PointStart:
    """X_0 = point."""

    point: tuple[float, ...]


@dataclass(frozen=True)
class StateStart:
    """The density at the end of an earlier run, from its ``state.npz`` (same process variables, any mesh)."""

    path: Path


Initial = GaussianStart | DensityStart | PointStart | StateStart


def gaussian_start(mean: Sequence[float], covariance: object) -> GaussianStart:
    """Return N(mean, covariance); `covariance` is a matrix, a list of variances or one variance.

    Raises
    ------
    InputError
    """
    centre = _numbers("evolve.initial.mean", mean)
    key = "evolve.initial.covariance"
    try:
        matrix = np.array(covariance, dtype=float)
    except (TypeError, ValueError):
        raise InputError(key, covariance, "a matrix, a list of variances or one variance") from None
    if matrix.ndim == 0:
        matrix = matrix * np.eye(len(centre))
    elif matrix.ndim == 1:
        matrix = np.diag(matrix)
    if matrix.ndim != 2:
        raise InputError(key, covariance, "a matrix, a list of variances or one variance")
    return GaussianStart(centre, tuple(tuple(float(c) for c in row) for row in matrix))


def density_start(formula: object, variables: Sequence[str]) -> DensityStart:
    """Return the start with a density proportional to a formula. Raises InputError."""
    return DensityStart(Formula.parse(formula, variables, "evolve.initial.density"))


def point_start(point: Sequence[float]) -> PointStart:
    """Return the start in a point. Raises InputError."""
    return PointStart(_numbers("evolve.initial.point", point))


def _numbers(key: str, value: object) -> tuple[float, ...]:
    try:
        numbers = np.atleast_1d(np.array(value, dtype=float))
    except (TypeError, ValueError):
        raise InputError(key, value, "a list of numbers") from None
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise InputError(key, value, "a list of finite numbers")
    return tuple(float(c) for c in numbers)
