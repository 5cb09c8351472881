"""The meshes of an exit time of a chain, and what they tell of its error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fpsolve.fem.gaussian_steps import CellQuadrature
from fpsolve.fem.nodal import NodalField
from fpsolve.model.batches import Batches

#: Meshes that an error estimate takes, at least.
LEVELS = 3
#: Safety factor of the estimated error where u has jumps.
SCATTER = 1.5
#: With so few batches each jump of u has weight.
FEW = 100
#: Values that differ by less than this part have not moved.
STILL = 1e-9


@dataclass(frozen=True)
class ChainLevel:
    """One mesh: moments at the starts (starts, K)."""

    size: float
    cells: int
    unknowns: int
    entries: int
    moments: np.ndarray
    fields: tuple[NodalField, ...]
    residual: float
    iterations: int
    excess: float
    seconds: float


def levels_needed(batches: Batches | CellQuadrature) -> int:
    """Return the number of meshes that an error estimate takes."""
    return LEVELS + _jumps(batches)


def _jumps(batches: Batches | CellQuadrature) -> bool:
    return isinstance(batches, Batches) and batches.count <= FEW


def discretisation_error(levels: list[ChainLevel], batches: Batches | CellQuadrature) -> np.ndarray:
    """Return the estimated error of the last level, (starts, K): what moved in the last steps of refinement.

    Sizes fall by √2, so that a method of second order halves its error from level to level, and what moved is at least
    what is left; the distances to earlier levels guard against a change that is small by chance. With batches of
    samples u has jumps, of the more weight the fewer there are, and errors scatter from mesh to mesh: then times 1.5,
    and with few batches one more level counts. Values that then do not move at all say nothing: u is a constant on the
    meshes, and parts of the domain thinner than a cell may be hidden, from where the chain leaves otherwise.
    """
    last = levels[-1].moments
    if len(levels) < 2:
        return np.full_like(last, np.inf)
    smooth = isinstance(batches, CellQuadrature)
    weights = (1.0, 0.5) if smooth else (1.0, 1.0, 0.5)[: levels_needed(batches) - 1]
    before = levels[-2 : -2 - len(weights) : -1]
    moved = [weight * np.abs(last - level.moments) for weight, level in zip(weights, before, strict=False)]
    most = np.max(moved, axis=0)
    if _jumps(batches):
        hidden = levels[-1].cells ** (-1 / levels[-1].fields[0].space.points.shape[1])
        most = np.where(most > STILL * np.abs(last), most, hidden * np.abs(last))
    return (1.0 if smooth else SCATTER) * most + levels[-1].residual * np.abs(last)
