"""The picture of the mean exit time over the domain, with the starts and the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fpsolve.app import figure_style as style
from fpsolve.app.figure_data import Pieces
from fpsolve.app.figure_paint import loss_curve, outline, paint, polyline
from fpsolve.problems.exit import ExitResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: More starts than this are numbered, with a list beside the picture.
LABELLED = 3
LISTED = 12
#: Orders of magnitude of u in the interior beyond which its scale is logarithmic.
DECADES = 3.0


@dataclass(frozen=True)
class MeanData:
    """What the picture shows, on rank 0.

    Attributes
    ----------
    box : (lower, upper)
        Around the mesh, each of shape (d,).
    cells : list of Pieces
        The field: one entry in 1D and 2D, in 3D the cuts with planes through the first start normal to z, y and x.
    boundary : Pieces
        The outline.
    """

    box: tuple[np.ndarray, np.ndarray]
    cells: list[Pieces]
    boundary: Pieces


def draw_mean(figure: Figure, result: ExitResult, data: MeanData) -> None:
    """Draw into an empty figure. Not collective."""
    d = result.process.dimension
    if d == 1:
        _draw_interval(figure, result, data)
    elif d == 2:
        _draw_plane(figure, result, data)
    else:
        _draw_cuts(figure, result, data)
    figure.suptitle(style.title(result, "Mean exit time"), fontsize=10.5)


def interior_range(pieces: list[Pieces]) -> tuple[float, float]:
    """Return the range of u apart from the hundredth of the domain where it is smallest, and the maximum."""
    centre = np.concatenate([p.values.mean(axis=1) for p in pieces])
    edges = [p.corners[:, 1:] - p.corners[:, :1] for p in pieces]
    volumes = np.concatenate([np.abs(np.linalg.det(e)) for e in edges])
    order = np.argsort(centre)
    share = np.cumsum(volumes[order]) / np.sum(volumes)
    low = float(centre[order][np.searchsorted(share, 0.01)])
    return low, float(max(p.values.max() for p in pieces))


def colour_norm(pieces: list[Pieces]) -> tuple[Any, str]:
    """Return the colour scale, logarithmic when u spans many decades, and where it is cut off."""
    from matplotlib.colors import LogNorm, Normalize

    low, high = interior_range(pieces)
    if low > 0 and np.log10(high / low) > DECADES:
        return LogNorm(low, high), "min"
    if low <= 0 < high and not low < -0.05 * high:  # undershoots of a discontinuous solution near the boundary
        return Normalize(0.0, high), "neither"
    return Normalize(min(low, 0.0), high), "neither"


def _draw_plane(figure: Figure, result: ExitResult, data: MeanData) -> None:
    axes = figure.add_subplot()
    norm, extend = colour_norm(data.cells)
    x, y = result.process.variables
    style.plane(axes, (x, y), *data.box)
    painted = paint(axes, data.cells[0], norm)
    outline(axes, data.boundary)
    contours = style.loss_contours(axes, result, (0, 1), result.starts[0])
    _mark_starts(figure, axes, result, (0, 1), data.box)
    bar = figure.colorbar(painted, ax=axes, extend=extend, pad=0.02, fraction=0.06)
    bar.set_label(style.time_label(result, "mean exit time u(x)"))
    if contours:
        axes.set_title("grey: contours of the loss", fontsize=8.5, color="#606060", loc="left")


def _mark_starts(
    figure: Figure, axes: Axes, result: ExitResult, shown: tuple[int, int], box: tuple[np.ndarray, np.ndarray]
) -> None:
    """Mark the starts, with their values beside them or, when there is no room, in a list below."""
    starts = result.starts[:, list(shown)]
    axes.plot(*starts.T, "o", color="white", markeredgecolor="black", markersize=5.5, zorder=6)
    lower, upper = box[0][list(shown)], box[1][list(shown)]
    place = (starts - lower) / (upper - lower)
    gaps = np.abs(place[:, None, 1] - place[None, :, 1]) + np.eye(len(place))
    numbered = len(starts) > LABELLED or gaps.min() < 0.1
    for k, x in enumerate(starts):
        text = style.with_error(result.mean[k], result.error[k, 0])
        side = "center" if 0.3 <= place[k, 0] <= 0.7 else ("left" if place[k, 0] < 0.3 else "right")
        axes.annotate(
            str(k + 1) if numbered else rf"E$\,$τ = {text}",
            x, xytext=(0, 8 if place[k, 1] < 0.85 else -17), textcoords="offset points", fontsize=8.5,
            ha="center" if numbered else side, zorder=7,
            bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
        )  # fmt: skip
    if numbered:
        lines = _start_list(result)
        for i in range(2):
            figure.text(0.02 + 0.5 * i, -0.01, "\n".join(lines[i::2]), fontsize=8.5, va="top", linespacing=1.4)


def _start_list(result: ExitResult) -> list[str]:
    """Return numbered lines with the answers, not too many."""
    rows = zip(result.starts, result.mean, result.error[:, 0], strict=True)
    lines = [f"{k}: E τ{style.point_text(x)} = {style.with_error(m, e)}" for k, (x, m, e) in enumerate(rows, 1)]
    return lines if len(lines) <= LISTED else [*lines[: LISTED - 1], f"... {len(lines) - LISTED + 1} more"]


def _draw_cuts(figure: Figure, result: ExitResult, data: MeanData) -> None:
    """Three planes through the first start."""
    names, start = result.process.variables, result.starts[0]
    norm, extend = colour_norm(data.cells)
    panels = figure.subplots(1, 3)
    painted: Any = None
    contours = False
    for axes, axis, pieces in zip(panels, (2, 1, 0), data.cells, strict=True):
        a, b = (k for k in range(3) if k != axis)
        style.plane(axes, (names[a], names[b]), data.box[0][[a, b]], data.box[1][[a, b]])
        painted = paint(axes, pieces, norm)
        contours |= style.loss_contours(axes, result, (a, b), start)
        axes.plot(start[a], start[b], "o", color="white", markeredgecolor="black", markersize=5, zorder=6)
        axes.set_title(f"{style.symbol(names[axis])} = {start[axis]:.4g}", fontsize=9.5)
    bar = figure.colorbar(painted, ax=list(panels), extend=extend, pad=0.01, fraction=0.03)
    bar.set_label(style.time_label(result, "mean exit time u(x)"))
    lines = [f"first start: E τ{style.point_text(start)} = {style.with_error(result.mean[0], result.error[0, 0])}"]
    if len(result.starts) > 1:
        lines += _start_list(result)[1:]
    if contours:
        lines.append("grey: contours of the loss")
    figure.supxlabel("\n".join("      ".join(lines[i : i + 4]) for i in range(0, len(lines), 4)), fontsize=9)


def _draw_interval(figure: Figure, result: ExitResult, data: MeanData) -> None:
    """u over an interval; the loss on an axis of its own."""
    axes = figure.add_subplot()
    pieces = data.cells[0]
    low, high = interior_range(data.cells)
    lower, upper = float(data.box[0][0]), float(data.box[1][0])
    axes.plot(*polyline(pieces), color="#31688e", linewidth=1.8, zorder=4, label="u")
    margin = 0.03 * (upper - lower)
    axes.set_xlim(lower - margin, upper + margin)
    if low > 0 and np.log10(high / low) > DECADES:
        axes.set_yscale("log")
        axes.set_ylim(low / 10, high * 4)
    else:
        axes.set_ylim(min(0.0, 1.1 * float(pieces.values.min())), 1.15 * high)
    axes.axvspan(lower, upper, color="#31688e", alpha=0.06, linewidth=0, label="domain")
    axes.set_xlabel(style.symbol(result.process.variables[0]))
    axes.set_ylabel(style.time_label(result, "mean exit time u(x)"))
    for k, (x, m, e) in enumerate(zip(result.starts[:, 0], result.mean, result.error[:, 0], strict=True)):
        text = f"start {x:.4g}: E τ = {style.with_error(m, e)}"
        if k < LISTED:
            axes.plot([x], [m], "o", color=f"C{k + 1}", markeredgecolor="black", markersize=5.5, zorder=6, label=text)
    loss_curve(axes, result.process, lower, upper)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
