"""The picture of the boundary: where the process can leave, is reflected, or never arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fpsolve.app import figure_style as style
from fpsolve.app.figure_data import Pieces
from fpsolve.problems.exit import ExitResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEANING = {
    "absorbing": "absorbing: the process can leave",
    "reflecting": "reflecting: sent back",
    "characteristic": "characteristic: never leaves here",
}
ARROWS = 19


def draw_boundary(figure: Figure, result: ExitResult, box: tuple[np.ndarray, np.ndarray], boundary: Pieces) -> None:
    """Draw into an empty figure. Not collective.

    Parameters
    ----------
    box : (lower, upper)
        Around the mesh, each of shape (d,).
    boundary : Pieces
        The facets, valued by kind.
    """
    d = result.process.dimension
    draw = (_draw_ends, _draw_curves, _draw_surface)[d - 1]
    draw(figure, result, box, boundary)
    figure.suptitle(style.title(result, "Boundary", scheme=False), fontsize=10.5)


def _legend(figure: Figure, result: ExitResult, extra: list[tuple[Any, str]]) -> None:
    from matplotlib.lines import Line2D

    d = result.process.dimension
    quantity = ("points", "length", "area")[d - 1]
    handles: list[Any] = []
    labels = []
    for name, colour, width in style.KINDS.values():
        measure = result.boundary.measures[name]
        marker = {"marker": "o", "linestyle": "none"} if d == 1 else {"linewidth": width if d == 2 else 6.0}
        handles.append(Line2D([], [], color=colour, **marker))
        shown = f"{quantity}: {round(measure)}" if d == 1 else f"{quantity} {measure:.5g}"
        labels.append(f"{MEANING[name]} ({shown})" if measure > 0 else f"{name}: none")
    for handle, label in extra:
        handles.append(handle)
        labels.append(label)
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)


def _draw_ends(figure: Figure, result: ExitResult, box: tuple[np.ndarray, np.ndarray], boundary: Pieces) -> None:
    axes = figure.add_subplot()
    lower, upper = float(box[0][0]), float(box[1][0])
    axes.plot([lower, upper], [0, 0], color="#b0b0b0", linewidth=3, solid_capstyle="butt", zorder=1)
    for x, kind in zip(boundary.corners[:, 0, 0], boundary.values[:, 0], strict=True):
        name, colour, _ = style.KINDS[round(kind)]
        axes.plot([x], [0], "o", color=colour, markersize=13, zorder=3)
        axes.annotate(name, (x, 0), xytext=(0, 14), textcoords="offset points", ha="center", color=colour)
        axes.annotate(f"{x:.6g}", (x, 0), xytext=(0, -22), textcoords="offset points", ha="center", fontsize=9)
    step = (upper - lower) / (ARROWS + 1)
    places = np.arange(lower + 3 * step, upper - 2.5 * step, step)[:, None]
    extra = _drift_arrows(axes, result, places, np.array([step]))
    axes.plot(result.starts[:, 0], 0 * result.starts[:, 0], "o", color="white", markeredgecolor="black", zorder=4)
    margin = 0.12 * (upper - lower)
    axes.set_xlim(lower - margin, upper + margin)
    axes.set_ylim(-1, 1)
    axes.set_yticks([])
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.set_xlabel(style.symbol(result.process.variables[0]))
    _legend(figure, result, [*extra, _start_entry()])


def _start_entry() -> tuple[Any, str]:
    from matplotlib.lines import Line2D

    return Line2D([], [], marker="o", linestyle="none", color="white", markeredgecolor="black"), "start"


def _drift_arrows(axes: Axes, result: ExitResult, points: np.ndarray, step: np.ndarray) -> list[tuple[Any, str]]:
    """Draw the drift's direction at points (n, 1 or 2), `step` apart, as short grey arrows."""
    from matplotlib.lines import Line2D

    drift = np.asarray(result.process.drift(points), dtype=float)
    size = np.linalg.norm(drift, axis=1)
    moving = size > 1e-12 * max(float(size.max(initial=0.0)), 1e-300)
    if not moving.any():
        return []
    x, f = points[moving], drift[moving]
    f = 0.62 * f / np.linalg.norm(f / step, axis=1, keepdims=True)
    y, v = (x[:, 1], f[:, 1]) if x.shape[1] == 2 else (np.full(len(x), 0.35), np.zeros(len(x)))
    axes.quiver(
        x[:, 0], y, f[:, 0], v, angles="xy", scale_units="xy", scale=1, pivot="mid", color="#9a9a9a", units="inches",
        width=0.013, headwidth=4, headlength=5, headaxislength=4.5, minlength=0, zorder=2,
    )  # fmt: skip
    arrow = Line2D([], [], color="#9a9a9a", marker=r"$\rightarrow$", linestyle="none", markersize=11)
    return [(arrow, "direction of the drift")]


def _draw_curves(figure: Figure, result: ExitResult, box: tuple[np.ndarray, np.ndarray], boundary: Pieces) -> None:
    from matplotlib.collections import LineCollection

    axes = figure.add_subplot()
    x, y = result.process.variables
    style.plane(axes, (x, y), *box)
    sides = box[1] - box[0]
    slender = np.max(sides) > style.SLENDER * np.min(sides)
    step = (sides if slender else np.full(2, np.max(sides))) / (ARROWS + 1)
    grid = [np.arange(a + 0.75 * h, b - 0.5 * h, h) for a, b, h in zip(*box, step, strict=True)]
    points = np.stack([g.ravel() for g in np.meshgrid(*grid)], axis=1)
    extra = _drift_arrows(axes, result, points[result.domain.contains(points)], step)
    kinds = np.round(boundary.values[:, 0])
    for kind, (_, colour, width) in style.KINDS.items():
        lines = list(boundary.corners[kinds == kind])
        # wider ones below: where two kinds meet both are seen
        axes.add_collection(
            LineCollection(lines, colors=colour, linewidths=width, capstyle="round", zorder=4 + kind / 10)
        )
    axes.plot(*result.starts.T, "o", color="white", markeredgecolor="black", markersize=5.5, zorder=5)
    _legend(figure, result, [*extra, _start_entry()])


def _draw_surface(figure: Figure, result: ExitResult, box: tuple[np.ndarray, np.ndarray], boundary: Pieces) -> None:
    """Facets in space, seen from two opposite sides."""
    from matplotlib.colors import LightSource, to_rgb
    from matplotlib.ticker import MaxNLocator
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    kinds = np.round(boundary.values[:, 0]).astype(int)
    colours = np.array([to_rgb(style.KINDS[k][1]) for k in kinds])
    edges = boundary.corners[:, 1:] - boundary.corners[:, :1]
    normal = np.cross(edges[:, 0], edges[:, 1])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-300)
    # facets have no orientation here; away from the middle is outward enough for shading
    outward = np.sign(np.sum(normal * (boundary.corners.mean(axis=1) - (box[0] + box[1]) / 2), axis=1))
    normal *= np.where(outward == 0, 1.0, outward)[:, None]
    for k, azimuth in enumerate((-60.0, 120.0)):
        axes: Any = figure.add_subplot(1, 2, k + 1, projection="3d", computed_zorder=False)
        axes.view_init(elev=22.0 if k == 0 else -22.0, azim=azimuth)
        light = LightSource(azdeg=90.0 - azimuth - 35.0, altdeg=40.0 if k == 0 else -40.0)
        shade = 0.55 + 0.45 * np.clip(normal @ light.direction, 0.0, 1.0)
        tinted = np.clip(colours * shade[:, None] + 0.12 * (1 - shade[:, None]), 0, 1)
        axes.add_collection3d(Poly3DCollection(boundary.corners, facecolors=tinted, edgecolors=tinted, linewidths=0.2))
        axes.set(xlim=(box[0][0], box[1][0]), ylim=(box[0][1], box[1][1]), zlim=(box[0][2], box[1][2]))
        sides = box[1] - box[0]
        if np.max(sides) <= style.SLENDER * np.min(sides):
            axes.set_box_aspect(sides / np.max(sides), zoom=0.9)
        x, y, z = (style.symbol(name) for name in result.process.variables)
        axes.set(xlabel=x, ylabel=y, zlabel=z)
        axes.set_title("from above" if k == 0 else "from the opposite side, below", fontsize=9)
        axes.tick_params(labelsize=8)
        for direction in (axes.xaxis, axes.yaxis, axes.zaxis):
            direction.set_major_locator(MaxNLocator(5))
    _legend(figure, result, [])
