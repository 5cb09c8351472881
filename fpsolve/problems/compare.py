"""One comparison of a computed exit time with its bounds, at every mesh point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mpi4py import MPI

import numpy as np

from fpsolve.problems.exit import ExitResult

#: The estimate of a mesh point's error is trusted up to this factor before a violation is reported.
SAFETY = 10.0


class BoundFunction(Protocol):
    """What the comparison needs of a bound (see `fpsolve.theory.bounds`)."""

    @property
    def name(self) -> str:
        """E.g. ``"sharp"``."""

    @property
    def kind(self) -> str:
        """``"lower"`` or ``"upper"``."""

    @property
    def verified(self) -> bool:
        """Whether all hypotheses are proved."""

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        """Return the bound at points (n, d)."""


@dataclass(frozen=True)
class Margin:
    """How one bound compares with the solution.

    Attributes
    ----------
    name, kind : str
        E.g. ``"sharp"`` and ``"lower"``.
    violations : int
        Mesh points at which the bound fails by more than the error estimate.
    smallest : float
        The smallest of u - lower or upper - u over the mesh points, relative to max u.
    where : tuple of float
        The point of the smallest margin.
    """

    name: str
    kind: str
    violations: int
    smallest: float
    where: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """All margins; ``violated`` counts the mesh points at which some verified bound or positivity fails."""

    margins: tuple[Margin, ...]
    violated: int
    points: int
    positive: bool
    smallest_value: float


def compare(result: ExitResult, bounds: Sequence[BoundFunction]) -> Comparison:
    """Compare ``lower ≤ u ≤ upper`` and ``u ≥ 0`` at every mesh point. Collective.

    Mesh points are the nodes of the solution. The error at a node is estimated by the largest
    difference of the two degrees (or meshes) within the cells around it, times `SAFETY`, and by the
    relative error at the starts.
    """
    space = result.u.function_space
    owned = space.dofmap.index_map.size_local
    x = space.tabulate_dof_coordinates()[:owned, : result.process.dimension]
    u = result.u.x.array[:owned]
    comm = result.comm
    top = comm.allreduce(float(np.abs(u).max(initial=0.0)), op=MPI.MAX)
    relative = float(np.max(result.error[:, 0] / np.abs(result.mean)))
    allowed = SAFETY * (_cell_error(result)[:owned] + relative * np.abs(u)) + 1e-12 * top
    bad = u < -allowed
    margins = []
    for bound in bounds:
        if not bound.verified:
            continue
        value = bound.evaluate(x) if owned else np.zeros(0)
        gap = u - value if bound.kind == "lower" else value - u
        gap = np.where(np.isnan(gap), np.inf, gap)
        fails = gap < -allowed
        bad |= fails
        margins.append(_margin(comm, bound, gap / top, fails, x))
    lowest = comm.allreduce(float(u.min(initial=np.inf)), op=MPI.MIN)
    negative = comm.allreduce(int(np.count_nonzero(u < -allowed)))
    return Comparison(
        tuple(margins),
        violated=comm.allreduce(int(np.count_nonzero(bad))),
        points=comm.allreduce(int(owned)),
        positive=negative == 0,
        smallest_value=lowest,
    )


def _cell_error(result: ExitResult) -> np.ndarray:
    """Return at each node the largest |difference| over the cells that share it."""
    space = result.difference.function_space
    unknowns = space.dofmap.list
    difference = np.abs(result.difference.x.array)
    largest = difference[unknowns].max(axis=1) if len(unknowns) else np.zeros(0)
    spread = np.zeros_like(difference)
    np.maximum.at(spread, unknowns.ravel(), np.repeat(largest, unknowns.shape[1]))
    return spread


def _margin(comm: MPI.Comm, bound: BoundFunction, gap: np.ndarray, fails: np.ndarray, x: np.ndarray) -> Margin:
    here = int(np.argmin(gap)) if len(gap) else -1
    mine = (float(gap[here]), tuple(float(v) for v in x[here])) if here >= 0 else (np.inf, ())
    smallest, where = min(comm.allgather(mine))
    return Margin(bound.name, bound.kind, comm.allreduce(int(np.count_nonzero(fails))), smallest, where)
