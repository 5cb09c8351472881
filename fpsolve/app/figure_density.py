"""Pictures of a function at several times: curves over each other, panels, or marginals, with the loss behind.

All times share one scale as long as their maxima are comparable; otherwise each is shown relative to its own
maximum, which is written beside it. Values below zero have a colour of their own: an undershoot is seen, not hidden.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fpsolve.app import figure_style as style
from fpsolve.app.figure_data import Pieces
from fpsolve.app.figure_paint import loss_curve, outline, paint, polyline
from fpsolve.app.report import evenly

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: More stored times than this are thinned out in a still picture.
PANELS = 9
#: Maxima further apart than this do not share a scale.
COMPARABLE = 2.5
#: An undershoot beyond this part of the maximum has its colour, one beyond the second part is written beside.
VISIBLE, NOTED = 1e-3, 1e-6
UNDERSHOOT = "#ff2d2d"
#: The pairs of variables of the three pictures in 3D.
PLANES = ((0, 1), (0, 2), (1, 2))
PANEL_HEIGHT = 2.5
WIDEST = 11.5


@dataclass(frozen=True)
class Frame:
    """The density at one time.

    Attributes
    ----------
    t : float
    lowest, highest : float
        The smallest and the largest value.
    cells : tuple of Pieces
        One entry in 1D and 2D; in 3D one for each of `PLANES`: marginals of a density, cuts through other functions.
    """

    t: float
    lowest: float
    highest: float
    cells: tuple[Pieces, ...]

    @property
    def shown_maximum(self) -> float:
        """The largest value of what is drawn (that of a marginal is another one than the density's)."""
        return max(float(p.values.max(initial=0.0)) for p in self.cells)

    @property
    def undershoots(self) -> bool:
        """Whether the function is negative beyond what can be told from zero in a picture."""
        drawn = min(float(p.values.min(initial=0.0)) for p in self.cells)
        return self.lowest < -VISIBLE * self.highest or drawn < -VISIBLE * self.shown_maximum


@dataclass(frozen=True)
class DensityData:
    """What the pictures show, on rank 0.

    Attributes
    ----------
    box : (lower, upper)
        Around the mesh, each of shape (d,).
    boundary : Pieces or None
        The outline in 2D.
    frames : list of Frame
        In the order of time.
    name : str
        What is shown, for the labels.
    is_density : bool
        False for functions that may have any sign: all times then share one scale, and nothing is an undershoot.
    points : ndarray or None, shape (n, d)
        To be marked; in 3D the cuts go through the first one.
    """

    box: tuple[np.ndarray, np.ndarray]
    boundary: Pieces | None
    frames: list[Frame]
    name: str = "density ρ(t, ·)"
    is_density: bool = True
    points: np.ndarray | None = None

    @property
    def common(self) -> bool:
        """Whether all times share one scale."""
        if not self.is_density:
            return True
        tops = [frame.shown_maximum for frame in self.frames]
        return max(tops) <= COMPARABLE * min(tops)

    def scale(self, frame: Frame) -> float:
        """Return what a frame's values are divided by."""
        return 1.0 if self.common else frame.shown_maximum or 1.0

    @property
    def limits(self) -> tuple[float, float]:
        """The ends of the scale after this division."""
        top = max(frame.shown_maximum for frame in self.frames) if self.common else 1.0
        if self.is_density:
            return 0.0, top
        every = [p.values for frame in self.frames for p in frame.cells]
        low, top = min(float(v.min()) for v in every), max(float(v.max()) for v in every)
        return low, max(top, low + 1e-12 * max(abs(low), 1e-300))


def density_size(data: DensityData, d: int) -> tuple[float, float]:
    """Return the size of the picture of all times in inches."""
    n = min(len(data.frames), PANELS)
    if d == 1:
        return 7.4, 5.4
    if d == 3:
        return 10.0, 0.8 + 2.8 * min(n, 4)
    rows, columns, width = _layout(data, n)
    return max(columns * width + 1.3, 4.6), rows * (PANEL_HEIGHT + 0.45) + 0.8


def _layout(data: DensityData, n: int) -> tuple[int, int, float]:
    """Return rows, columns and the width of a panel in inches."""
    sides = data.box[1] - data.box[0]
    ratio = sides[0] / sides[1] if np.max(sides) <= style.SLENDER * np.min(sides) else 1.3
    width = float(np.clip(PANEL_HEIGHT * ratio, 1.5, 4.5)) + 0.35
    columns = min(n, max(1, int(WIDEST / width)), 2 if n == 4 else 4 if n > 6 else 3)
    rows = math.ceil(n / columns)
    return rows, math.ceil(n / rows), width


def draw_density(figure: Figure, result: Any, data: DensityData, what: str = "Density") -> None:
    """Draw all times into an empty figure. Not collective.

    Parameters
    ----------
    result : EvolveResult
    what : str
        The first words of the title.
    """
    d = result.process.dimension
    shown = replace(data, frames=evenly(data.frames, 4 if d == 3 else PANELS))
    if d == 1:
        _draw_curves(figure, result, shown)
    elif d == 2:
        _draw_panels(figure, result, shown)
    else:
        rows = figure.subplots(len(shown.frames), 3, squeeze=False)
        painted = None
        for row, frame in zip(rows, shown.frames, strict=True):
            painted = draw_space(row, result, shown, frame)
        colour_bar(figure, painted, [axes for row in rows for axes in row], shown)
    left_out = len(data.frames) - len(shown.frames)
    note = f"   ({left_out} of {len(data.frames)} stored times not shown)" if left_out else ""
    if d == 3 and data.points is not None:
        note = f"   planes through {style.point_text(data.points[0])}{note}"
    figure.suptitle(style.title(result, what) + note, fontsize=10.5)


# --- one dimension -------------------------------------------------------------------------------------


def _draw_curves(figure: Figure, result: Any, data: DensityData) -> None:
    axes = figure.add_subplot()
    import matplotlib

    colours = matplotlib.colormaps[style.COLOURS](np.linspace(0.0, 0.92, len(data.frames)))
    for frame, colour in zip(data.frames, colours, strict=True):
        label = frame_label(data, frame, data.is_density)
        axes.plot(*polyline(frame.cells[0]), color=colour, linewidth=1.6, zorder=4, label=label)
    line_frame(axes, result, data)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)


def line_frame(axes: Axes, result: Any, data: DensityData) -> None:
    """Set labels and limits of the axis of the variable, and draw the loss behind."""
    lower, upper = float(data.box[0][0]), float(data.box[1][0])
    margin = 0.03 * (upper - lower)
    axes.set_xlim(lower - margin, upper + margin)
    axes.axhline(0.0, color="black", linewidth=0.6, zorder=1)
    axes.set_xlabel(style.symbol(result.process.variables[0]))
    axes.set_ylabel(data.name + ("   [probability per unit length]" if data.is_density else ""))
    loss_curve(axes, result.process, lower, upper)
    axes.set_ylim(*_curve_limits(data))


def _curve_limits(data: DensityData) -> tuple[float, float]:
    """Return limits in which all but a few sharp peaks have room; what is cut off has its maximum in the legend."""
    if not data.is_density:
        low, top = data.limits
        return low - 0.06 * (top - low), top + 0.06 * (top - low)
    frames = data.frames
    tops = np.sort([frame.shown_maximum for frame in frames])
    top = float(tops[-1])
    typical = float(np.median(tops))
    top = min(top, max(4.0 * typical, float(tops[len(tops) // 2])))
    low = min(frame.lowest for frame in frames)
    return max(min(1.1 * low, -0.02 * top), -0.6 * top), 1.06 * top


def frame_label(data: DensityData, frame: Frame, scaled: bool = True) -> str:
    """Return the time, the maximum if `scaled`, and the minimum where a density has a negative one."""
    parts = [f"t = {style.number(frame.t)}" if math.isfinite(frame.t) else "t → ∞"]
    if scaled:
        parts.append(f"max {style.number(frame.highest, 3)}")
    if data.is_density and frame.lowest < -NOTED * frame.highest:
        parts.append(f"min −{style.number(-frame.lowest, 2)}")
    return "   ".join(parts)


# --- two dimensions ------------------------------------------------------------------------------------


def _draw_panels(figure: Figure, result: Any, data: DensityData) -> None:
    rows, columns, _ = _layout(data, len(data.frames))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    painted, contours = None, False
    for k, (axes, frame) in enumerate(zip(grid, data.frames, strict=False)):
        painted, drawn = draw_plane(axes, result, data, frame)
        contours |= drawn
        axes.label_outer() if k + columns < len(data.frames) else axes.tick_params(labelleft=k % columns == 0)
        if k % columns:
            axes.set_ylabel("")
    for axes in grid[len(data.frames) :]:
        axes.remove()
    colour_bar(figure, painted, list(grid[: len(data.frames)]), data)
    if contours:
        figure.supxlabel(f"grey: contours of the {style.potential_name(result.process)}", fontsize=8.5, color="#606060")


def draw_plane(axes: Axes, result: Any, data: DensityData, frame: Frame) -> tuple[Any, bool]:
    """Draw one time in 2D; return what the colour bar needs and whether there are contours of the loss."""
    x, y = result.process.variables
    style.plane(axes, (x, y), *data.box)
    painted = paint_frame(axes, frame.cells[0], data, frame)
    if data.boundary is not None:
        outline(axes, data.boundary, 0.8)
    contours = style.loss_contours(axes, result, (0, 1), (data.box[0] + data.box[1]) / 2)
    if data.points is not None:
        axes.plot(*data.points.T, "o", color="white", markeredgecolor="black", markersize=4, zorder=6)
    axes.set_title(frame_label(data, frame, not data.common), fontsize=8.5)
    return painted, contours


def paint_frame(axes: Axes, pieces: Pieces, data: DensityData, frame: Frame) -> Any:
    """Draw triangles in the common scale; values that are negative beyond rounding get the colour below it."""
    import matplotlib
    from matplotlib.colors import Normalize

    values = pieces.values / data.scale(frame)
    low, top = data.limits
    if data.is_density:
        values = np.where((values < 0) & (values >= -VISIBLE * top), 0.0, values)
    colours = matplotlib.colormaps[style.COLOURS].with_extremes(under=UNDERSHOOT)
    return paint(axes, Pieces(pieces.corners, values), Normalize(low, top), colours)


def colour_bar(figure: Figure, painted: Any, panels: list[Axes], data: DensityData) -> None:
    """Put the colour bar of all panels to their right."""
    below = data.is_density and any(frame.undershoots for frame in data.frames)
    bar = figure.colorbar(painted, ax=panels, extend="min" if below else "neither", pad=0.02, fraction=0.05, aspect=30)
    unit = "\n[probability per unit area]" if data.is_density else ""
    label = f"{data.name}{unit}" if data.common else f"{data.name} / its maximum\nat that time"
    bar.set_label(label + ("\nred: negative" if below else ""))


# --- three dimensions ----------------------------------------------------------------------------------


def draw_space(row: Sequence[Axes], result: Any, data: DensityData, frame: Frame) -> Any:
    """Draw the three pictures of one time; return what the colour bar needs."""
    names = result.process.variables
    painted = None
    for axes, (a, b), pieces in zip(row, PLANES, frame.cells, strict=True):
        style.plane(axes, (names[a], names[b]), data.box[0][[a, b]], data.box[1][[a, b]])
        painted = paint_frame(axes, pieces, data, frame)
    row[0].set_title(frame_label(data, frame, False), fontsize=8.5, loc="left")
    return painted
