"""Numbers of many bits as exact sums of float arrays."""

from __future__ import annotations

import numpy as np
from flint import arb, ctx

MOST_ARRAYS = 24


def float_sum(values: np.ndarray, weights: np.ndarray | float, tolerable: float, bits: int) -> tuple[np.ndarray, ...]:
    """Return float arrays whose exact sum is near the values.

    Parameters
    ----------
    values : object ndarray of flint.arb
        Their midpoints are meant.
    weights : float ndarray of the same shape, or float
        Arrays are added until ``(Σ (weights · error)²)^{1/2} <= tolerable``, at most `MOST_ARRAYS`.
    bits : int
        Precision of the subtractions.
    """
    arrays: list[np.ndarray] = []
    with ctx.workprec(bits):
        rest = values
        while len(arrays) < MOST_ARRAYS:
            arrays.append(np.array([float(v.mid()) for v in rest.ravel()]).reshape(rest.shape))
            rest = np.array(
                [(v - arb(y)).mid() for v, y in zip(rest.ravel(), arrays[-1].ravel().tolist(), strict=True)]
            )
            rest = rest.reshape(values.shape)
            error = np.array([float(v) for v in rest.ravel()]).reshape(rest.shape)
            if not np.any(error) or np.linalg.norm((weights * error).ravel()) <= tolerable:
                break
    return tuple(arrays)
