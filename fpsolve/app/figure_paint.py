"""Brushes of the pictures: triangles with linearly varying colour, piecewise lines, outlines, the loss as a curve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fpsolve.app import figure_style as style
from fpsolve.app.figure_data import Pieces

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fpsolve.model.process import Process


def paint(axes: Axes, pieces: Pieces, norm: Any, colours: Any = style.COLOURS) -> Any:
    """Draw triangles with linearly varying colour."""
    from matplotlib.collections import TriMesh
    from matplotlib.tri import Triangulation

    edges = pieces.corners - np.roll(pieces.corners, 1, axis=1)
    longest = np.max(np.sum(edges**2, axis=2), axis=1)
    # Agg widens triangles by half a pixel, which makes spikes of needles; their neighbours cover them as well
    wide = np.abs(np.linalg.det(edges[:, 1:])) > 0.02 * longest
    n = int(np.count_nonzero(wide))
    x, y = pieces.corners[wide].reshape(-1, 2).T
    values = pieces.values[wide].ravel()
    if norm.vmin > 0:  # logarithmic: what is not positive has the lowest colour
        values = np.maximum(values, norm.vmin)
    painted = TriMesh(Triangulation(x, y, np.arange(3 * n).reshape(n, 3)), cmap=colours, norm=norm)
    painted.set_array(values)
    painted.set_in_layout(False)  # it lies inside the axes; measuring it makes a path of every triangle
    # as tripcolor does, which besides makes a path of every triangle to find the limits
    return axes.add_collection(painted, autolim=False)


def polyline(pieces: Pieces) -> tuple[np.ndarray, np.ndarray]:
    """Return the pieces of an interval as one line, with gaps where the mesh has some; jumps are vertical."""
    x, order = np.sort(pieces.corners[:, :, 0], axis=1), np.argsort(pieces.corners[:, :, 0], axis=1)
    u = np.take_along_axis(pieces.values, order, axis=1)
    along = np.argsort(x.mean(axis=1))
    x, u = x[along], u[along]
    gaps = 2 * (1 + np.flatnonzero(x[1:, 0] - x[:-1, 1] > 1e-9 * (x[-1, 1] - x[0, 0])))
    return np.insert(x.ravel(), gaps, np.nan), np.insert(u.ravel(), gaps, np.nan)


def outline(axes: Axes, boundary: Pieces, width: float = 1.0) -> None:
    """Draw the boundary of a plane domain."""
    from matplotlib.collections import LineCollection

    axes.add_collection(LineCollection(list(boundary.corners), colors="black", linewidths=width, zorder=4))


def loss_curve(axes: Axes, process: Process, lower: float, upper: float) -> None:
    """Draw the loss over an interval behind the curves of `axes`, on an axis of its own; nothing without a loss."""
    grid = np.linspace(lower, upper, style.LOSS_GRID[1])
    loss = style.potential(process, grid[:, None])
    if loss is None:
        return
    other = axes.twinx()
    other.plot(grid, np.where(np.isfinite(loss), loss, np.nan), color="#8c8c8c", linewidth=0.9)
    other.set_ylabel("loss (thin grey)", color="#606060")
    other.tick_params(axis="y", colors="#606060")
    axes.set_zorder(other.get_zorder() + 1)
    axes.patch.set_visible(False)
