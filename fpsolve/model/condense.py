"""Samples with equal inputs taken together, exactly, for all that depends on the mean loss alone.

Where the gradient of a sample is affine in its target, as with squared losses, ``ℓ = A + B y + C`` with A and B
functions of parameters and inputs and C free of the parameters. Hence ``(1/N) Σ_k ∇ℓ(x_k, y_k) = Σ_x w_x ∇ℓ(x, ȳ_x)``
with w_x the share of the samples with input x and ȳ_x their mean target. The losses differ by a constant; the
covariance is another one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import sympy

from fpsolve.model.expressions import symbols
from fpsolve.model.process import Landscape
from fpsolve.model.samples import SampleLandscape


def condensed(landscape: Landscape) -> Landscape:
    """Return a landscape with the same ∇L and D²L that is cheaper to evaluate in floating point; or the given one.

    Samples with equal inputs become one, where every input has as many. The loss differs by a constant; Q is another.
    """
    if not isinstance(landscape, SampleLandscape) or landscape.index is None:
        return landscape
    counts = np.bincount(landscape.index)
    if not affine_in_target(landscape) or counts.min() < counts.max():
        return landscape
    means = np.bincount(landscape.index, landscape.target) / counts
    return replace(landscape, target=means, index=None)


def affine_in_target(landscape: SampleLandscape) -> bool:
    """Tell whether the gradient of a sample is affine in its target; False also where sympy does not see it."""
    *others, target = symbols(landscape.names)
    parameters = others[: len(landscape.variables)]
    return all(sympy.expand(sympy.diff(landscape.sample_loss, p, target, 2)) == 0 for p in parameters)
