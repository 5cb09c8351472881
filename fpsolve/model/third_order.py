"""Third derivatives of the loss and first derivatives of its gradient covariance, as the modified equations need them.

Exact for formulas (all parts) and for models with data (∂Q from the samples' gradients and Hessians, ∂D²L from the
formula of a sample's loss once more differentiated). Of other landscapes, e.g. Python functions, ∂D²L and where
necessary ∂Q are central differences of sixth order.
"""

from __future__ import annotations

import numpy as np
import sympy

from fpsolve.errors import InputError
from fpsolve.model.expressions import symbols
from fpsolve.model.process import Field, FormulaEnclosure, Landscape
from fpsolve.model.sample_program import unsupported
from fpsolve.model.samples import SampleLandscape, assemble

#: Step of the differences, times max(1, |x|). For values that vary on the length ℓ their relative error is about
#: 1e-20/ℓ⁶ (truncation) + 1e-13 (rounding): 1e-12 for ℓ above 0.05.
STEP = 1e-3
_WEIGHTS = ((1, 3 / 4), (2, -3 / 20), (3, 1 / 60))


def differences(function: Field, x: np.ndarray) -> np.ndarray:
    """Return the derivatives of `function` at x (n, d) by central differences of sixth order; the new index is last.

    Evaluates it at 6d n points up to 0.003 max(1, |x|) away.
    """
    x = np.asarray(x, dtype=float)
    steps = STEP * np.maximum(1.0, np.abs(x).max(axis=1, initial=0.0))
    parts = []
    for axis in np.eye(x.shape[1]):
        total = 0.0
        for k, weight in _WEIGHTS:
            ahead, behind = x + k * steps[:, None] * axis, x - k * steps[:, None] * axis
            total = total + weight * (function(ahead) - function(behind))
        parts.append(np.asarray(total) / steps.reshape(-1, *[1] * (np.ndim(total) - 1)))
    return np.stack(parts, axis=-1)


def covariance_slope(landscape: Landscape) -> Field:
    """Return the function x (n, d) -> ∂_k Q_ij, shape (n, d, d, d), k last."""
    exact = getattr(landscape, "covariance_derivative", None)
    if exact is not None:
        return exact
    enclosure = landscape.enclosure()
    if isinstance(enclosure, FormulaEnclosure):
        return enclosure.derivative_formula
    return lambda x: differences(landscape.covariance, x)


def loss_third(landscape: Landscape) -> Field:
    """Return the function x (n, d) -> ∂_k D²L_ij, shape (n, d, d, d).

    Raises
    ------
    InputError
        If the loss is a formula, or a model with data, without third derivatives.
    """
    if isinstance(landscape, SampleLandscape):
        return _of_samples(landscape)
    enclosure = landscape.enclosure()
    if isinstance(enclosure, FormulaEnclosure):
        third = enclosure.hessian_formula.derivative()
        if any(unsupported(entry) for entry in third.entries):
            loss = str(enclosure.loss_formula.entries[0])
            raise InputError("process.loss", loss, "a loss with third derivatives everywhere")
        return third
    return lambda x: differences(landscape.hessian, x)


def _of_samples(landscape: SampleLandscape) -> Field:
    """Return the Hessians of the means of ∂_k ℓ, k = 1 … d: each a landscape of its own."""
    columns = dict(zip(landscape.names[len(landscape.variables) :], landscape.table, strict=True))
    slopes = []
    for name, parameter in zip(landscape.variables, symbols(landscape.variables), strict=True):
        slope = sympy.diff(landscape.sample_loss, parameter)
        what = f"the derivative of {landscape.sample_loss} by {name}"
        slopes.append(assemble(slope, landscape.variables, landscape.names, columns, "process.data.sample_loss", what))
    return lambda x: np.stack([slope.hessian(x) for slope in slopes], axis=-1)
