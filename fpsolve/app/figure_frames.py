"""Frames of a function that moves, collected on rank 0 for `fpsolve.app.figure_density`."""

from __future__ import annotations

from collections.abc import Sequence

from mpi4py import MPI

import numpy as np
from dolfinx import fem

from fpsolve.app.figure_data import Pieces, boundary_pieces, cell_pieces, centroids, extent, plane_pieces
from fpsolve.app.figure_density import PLANES, DensityData, Frame
from fpsolve.fem.boundary import Boundary
from fpsolve.fem.points import Location

#: Triangles of one panel, and how much longer they may be than in a picture of its own.
PANEL_PIECES = 60_000
COARSER = 2.5
#: Boxes along each side of a marginal.
BINS = 40


def collect(
    times: Sequence[float] | np.ndarray,
    functions: Sequence[fem.Function],
    boundary: Boundary,
    name: str = "density ρ(t, ·)",
    points: np.ndarray | None = None,
) -> DensityData | None:
    """Return the frames of functions on one mesh, on rank 0; None elsewhere. Collective.

    Parameters
    ----------
    points : ndarray, shape (n, d), optional
        Given for functions that are no densities: marked; in 3D the function is cut by planes through the first one.
    """
    domain = functions[0].function_space.mesh
    d, comm = domain.topology.dim, domain.comm
    box = extent(domain)
    edges = boundary_pieces(domain, boundary) if d == 2 else None
    frames = []
    for t, function in zip(times, functions, strict=True):
        own = function.x.array[: function.function_space.dofmap.index_map.size_local]
        lowest = comm.allreduce(float(own.min(initial=np.inf)), op=MPI.MIN)
        highest = comm.allreduce(float(own.max(initial=-np.inf)), op=MPI.MAX)
        cells = tuple(pieces for pieces in _shown(function, box, points) if pieces is not None)
        if d < 3 and cells:  # a polynomial is lower between the nodes than there
            lowest = min(lowest, float(cells[0].values.min()))
        frames.append(Frame(float(t), lowest, highest, cells))
    name = f"marginal of the {name}" if d == 3 and points is None else name
    return DensityData(box, edges, frames, name, points is None, points) if comm.rank == 0 else None


def _shown(
    function: fem.Function, box: tuple[np.ndarray, np.ndarray], points: np.ndarray | None
) -> list[Pieces | None]:
    d = function.function_space.mesh.topology.dim
    if d < 3:
        return [cell_pieces(function, PANEL_PIECES, 1.0 if d == 1 else COARSER)]
    if points is None:
        return [marginal(function, axes, box) for axes in PLANES]
    normals = [3 - sum(axes) for axes in PLANES]
    return [plane_pieces(function, axis, float(points[0, axis]), PANEL_PIECES) for axis in normals]


def marginal(
    function: fem.Function, axes: tuple[int, int], box: tuple[np.ndarray, np.ndarray], bins: int = BINS
) -> Pieces | None:
    """Return the integral of a function in 3D over the third direction, on rank 0; None elsewhere. Collective.

    On a grid; a small piece of a cell gives its integral to the four nodes around it, so that what is drawn has the
    function's integral up to that of piecewise linear values.
    """
    comm = function.function_space.mesh.comm
    x, weights = centroids(function)
    lower, upper = (corner[list(axes)] for corner in box)
    place = (x[:, axes] - lower) / (upper - lower) * bins
    base = np.clip(np.floor(place).astype(np.int64), 0, bins - 1)
    share = place - base
    sums = np.zeros((bins + 1, bins + 1))
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        part = weights * np.abs(1 - i - share[:, 0]) * np.abs(1 - j - share[:, 1])
        numbers = (base[:, 0] + i) * (bins + 1) + base[:, 1] + j
        sums += np.bincount(numbers, part, minlength=sums.size).reshape(sums.shape)
    sums = comm.reduce(sums, root=0)
    if sums is None:
        return None
    sides = [np.linspace(lower[k], upper[k], bins + 1) for k in range(2)]
    widths = np.where((np.arange(bins + 1) % bins) == 0, 0.5, 1.0)
    area = float(np.prod((upper - lower) / bins)) * np.outer(widths, widths)
    return _as_triangles(np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1), sums / area)


def _as_triangles(points: np.ndarray, values: np.ndarray) -> Pieces:
    """Return two triangles for each square of a grid of points, shape (n, n, 2)."""

    def corners(grid: np.ndarray) -> np.ndarray:
        a, b, c, d = grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]
        return np.concatenate([np.stack(t, axis=2).reshape(-1, 3, *grid.shape[2:]) for t in ((a, b, c), (a, c, d))])

    return Pieces(corners(points), corners(values))


def vector_values(function: fem.Function, where: Location) -> np.ndarray:
    """Return a vector function at points, shape (n, d), the same on every rank; nan where not found. Collective."""
    space = function.function_space
    d = space.dofmap.index_map_bs
    element = space.sub(0).element.basix_element
    own = np.zeros((len(where.points), d))
    if len(where.mine):
        table = element.tabulate(0, where.reference)[0, :, :, 0]
        coefficients = function.x.array.reshape(-1, d)[space.dofmap.list[where.cells]]
        own[where.mine] = np.einsum("pk,pkd->pd", table, coefficients)
    values = space.mesh.comm.allreduce(own)
    return np.where(where.found[:, None], values, np.nan)
