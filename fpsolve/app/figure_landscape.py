"""The picture of a landscape: the loss with its critical points, the paths between minima, the basins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fpsolve.app import figure_style as style
from fpsolve.app.figure_files import asleep_elsewhere, save
from fpsolve.model.basins import basin_labels
from fpsolve.model.condense import condensed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fpsolve.app.run_landscape import LandscapeAnswer

#: Points along a side of the grid on which basins are shaded, and of that of the loss.
BASIN_GRID, LOSS_GRID = 110, 241
#: Pale, of all kinds of colour vision distinguishable (Okabe and Ito).
BASINS = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#0072b2", "#d55e00", "#999999")
#: Markers: sign, colour, name.
MARKS = {
    "minimum": ("o", "#0072b2", "minimum"),
    "saddle": ("X", "#d55e00", "saddle"),
    "maximum": ("^", "#111111", "maximum"),
    "degenerate": ("D", "#cc79a7", "degenerate point"),
}
#: Undecided boxes that are drawn, the largest.
UNDECIDED = 20_000
#: Contours of the loss.
LEVELS = 22


def landscape_figures(answer: LandscapeAnswer, directory: Path) -> list[Path]:
    """Draw ``landscape.png``. Collective.

    Raises
    ------
    InputError
        If the file cannot be written; on every rank.
    """
    d = answer.process.dimension
    lower, upper = _box(answer)

    def draw() -> list[Path]:
        if d == 1:
            return [save(directory, "landscape", (7.4, 4.6), lambda f: _line(f, answer))]
        if d == 2:
            size = style.plane_size(lower, upper, 6.0, 1.5)
            return [save(directory, "landscape", size, lambda f: _plane(f, answer))]
        return [save(directory, "landscape", (12.0, 4.6), lambda f: _space(f, answer))]

    return asleep_elsewhere(answer.comm, draw)


def _box(answer: LandscapeAnswer) -> tuple[np.ndarray, np.ndarray]:
    lower, upper = answer.critical.domain.bounding_box()
    return np.atleast_1d(lower), np.atleast_1d(upper)


def _title(answer: LandscapeAnswer) -> str:
    critical = answer.critical
    state = "complete, proved" if critical.complete else "may be incomplete"
    count = len(critical.points)
    return f"Landscape of the loss: {count} critical point{'s' if count != 1 else ''} ({state})"


def _labels(answer: LandscapeAnswer, x: np.ndarray) -> np.ndarray:
    """Return for points (n, d) the number of their basin; -1 outside of the domain and of all basins."""
    result = np.full(len(x), -1)
    basins, landscape = answer.basins, answer.process.landscape
    if basins is None or landscape is None:
        return result
    inside = answer.critical.domain.contains(x)
    size = float(np.linalg.norm(np.subtract(*_box(answer))))
    process = replace(answer.process, landscape=condensed(landscape))
    result[inside] = basin_labels(process, basins.minima, x[inside], size)
    return result


def _line(figure: Figure, answer: LandscapeAnswer) -> None:
    axes = figure.add_subplot()
    (lower,), (upper,) = _box(answer)
    grid = np.linspace(lower, upper, style.LOSS_GRID[1])[:, None]
    loss = style.potential(answer.process, grid)
    assert loss is not None
    axes.plot(grid[:, 0], np.where(np.isfinite(loss), loss, np.nan), color="#404040", linewidth=1.5, zorder=3)
    labels = _labels(answer, grid)
    edges = np.flatnonzero(np.diff(labels)) + 1
    for part in np.split(np.arange(len(grid)), edges):
        if labels[part[0]] >= 0:
            colour = BASINS[labels[part[0]] % len(BASINS)]
            axes.axvspan(grid[part[0], 0], grid[part[-1], 0], color=colour, alpha=0.25, linewidth=0)
    for kind, (sign, colour, name) in MARKS.items():
        points = [p for p in answer.critical.points if p.kind == kind]
        if points:
            axes.plot([p.x[0] for p in points], [p.loss for p in points], sign, color=colour, label=name, zorder=5)
    heights = np.array([p.loss for p in answer.critical.points])
    if len(heights) > 1 and np.ptp(loss[np.isfinite(loss)]) > 5 * np.ptp(heights) > 0:  # show the wells
        axes.set_ylim(heights.min() - 0.4 * np.ptp(heights), heights.max() + 1.6 * np.ptp(heights))
    axes.set_xlim(lower, upper)
    axes.set_xlabel(style.symbol(answer.process.variables[0]))
    axes.set_ylabel("loss")
    axes.grid(True, color="#e4e4e4", linewidth=0.6)
    _legend(figure, answer, axes)


def _plane(figure: Figure, answer: LandscapeAnswer) -> None:
    axes = figure.add_subplot()
    lower, upper = _box(answer)
    style.plane(axes, (answer.process.variables[0], answer.process.variables[1]), lower, upper)
    _shade(axes, answer, lower, upper)
    lowest = min((p.loss for p in answer.critical.points), default=np.inf)
    painted = _contours(axes, answer, (0, 1), 0.5 * (lower + upper), lowest)
    _undecided(axes, answer)
    _paths(axes, answer, (0, 1))
    _points(axes, answer, (0, 1), annotate=True)
    if painted is not None:
        from matplotlib.ticker import FuncFormatter

        mark = FuncFormatter(lambda value, _: style.number(value, 3))
        figure.colorbar(painted, ax=axes, pad=0.02, fraction=0.05, label="loss on the contours", format=mark)
    _legend(figure, answer, axes)


def _space(figure: Figure, answer: LandscapeAnswer) -> None:
    lower, upper = _box(answer)
    names = answer.process.variables
    best = min(answer.critical.points, key=lambda p: p.loss, default=None)
    through = 0.5 * (lower + upper) if best is None else best.x
    panels = figure.subplots(1, 3)
    for axes, (i, j) in zip(panels, ((0, 1), (0, 2), (1, 2)), strict=True):
        style.plane(axes, (names[i], names[j]), lower[[i, j]], upper[[i, j]])
        _contours(axes, answer, (i, j), through, np.inf if best is None else best.loss)
        _paths(axes, answer, (i, j))
        _points(axes, answer, (i, j), annotate=False)
        (k,) = {0, 1, 2} - {i, j}
        axes.set_title(f"contours at {style.symbol(names[k])} = {through[k]:.4g}, points projected", fontsize=8.5)
    _legend(figure, answer, panels[0])


def _shade(axes: Axes, answer: LandscapeAnswer, lower: np.ndarray, upper: np.ndarray) -> None:
    """Colour the basins."""
    from matplotlib.colors import ListedColormap

    if answer.basins is None:
        return
    sides = [a + (b - a) * (np.arange(BASIN_GRID) + 0.5) / BASIN_GRID for a, b in zip(lower, upper, strict=True)]
    X, Y = np.meshgrid(*sides)
    labels = _labels(answer, np.column_stack([X.ravel(), Y.ravel()])).reshape(X.shape)
    colours = ListedColormap(BASINS)
    shown = np.ma.masked_where(labels < 0, labels % len(BASINS))
    extent = (lower[0], upper[0], lower[1], upper[1])
    axes.imshow(
        shown, origin="lower", extent=extent, cmap=colours, vmin=-0.5, vmax=len(BASINS) - 0.5, alpha=0.28,
        interpolation="nearest", aspect=axes.get_aspect(), zorder=1,
    )  # fmt: skip


def _undecided(axes: Axes, answer: LandscapeAnswer) -> None:
    """Mark the boxes in which there may be more critical points, each at least as large as can be seen."""
    from matplotlib.collections import PolyCollection

    undecided = answer.critical.undecided
    if not 0 < undecided.share < 1:
        return
    lower, upper = _box(answer)
    middle = 0.5 * (undecided.lower + undecided.upper)[:UNDECIDED]
    half = np.maximum(0.5 * (undecided.upper - undecided.lower)[:UNDECIDED], 2e-3 * (upper - lower))
    corners = middle[:, None] + half[:, None] * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    boxes = PolyCollection(list(corners), facecolor="#d62728", edgecolor="none", alpha=0.8, zorder=3.5)
    boxes.set_label("undecided: there may be more")
    axes.add_collection(boxes)


def _contours(
    axes: Axes, answer: LandscapeAnswer, plane_axes: tuple[int, int], through: np.ndarray, lowest: float
) -> Any:
    """Draw contours whose distance from the lowest loss grows by a factor; return what a colour bar needs."""
    from matplotlib.colors import FuncNorm

    lower, upper = _box(answer)
    i, j = plane_axes
    sides = [np.linspace(lower[k], upper[k], LOSS_GRID) for k in plane_axes]
    X, Y = np.meshgrid(*sides)
    x = np.tile(np.asarray(through, dtype=float), (X.size, 1))
    x[:, i], x[:, j] = X.ravel(), Y.ravel()
    loss = style.potential(answer.process, x)
    assert loss is not None
    good = np.isfinite(loss) & (answer.critical.domain.contains(x) if len(lower) == 2 else True)
    if np.count_nonzero(good) < 3 or not np.ptp(loss[good]) > 0:
        return None
    base = min(float(loss[good].min()), lowest)
    reach = float(loss[good].max()) - base
    # the saddles decide from where on the picture matters
    passes = [p.loss - base for p in answer.critical.saddles if p.loss - base > 1e-9 * reach]
    first = 1e-2 * min([*passes, reach])
    levels = base + np.geomspace(first, 0.999 * reach, LEVELS)
    norm = FuncNorm(
        (lambda v: np.log(np.maximum(v - base, 0.1 * first)), lambda v: base + np.exp(v)),
        vmin=levels[0], vmax=levels[-1],
    )  # fmt: skip
    values = np.ma.masked_where(~good, loss).reshape(X.shape)
    return axes.contour(X, Y, values, levels=levels, norm=norm, cmap=style.COLOURS, linewidths=0.8, zorder=3)


def _paths(axes: Axes, answer: LandscapeAnswer, plane_axes: tuple[int, int]) -> None:
    """Draw the steepest descents from the saddles."""
    for step in answer.heights.descents:
        for path in step.paths:
            axes.plot(*path[:, plane_axes].T, color="#303030", linewidth=1.3, linestyle=(0, (4, 1.5)), zorder=4)


def _points(axes: Axes, answer: LandscapeAnswer, plane_axes: tuple[int, int], annotate: bool) -> None:
    for kind, (sign, colour, name) in MARKS.items():
        points = np.array([p.x[list(plane_axes)] for p in answer.critical.points if p.kind == kind])
        if len(points):
            axes.plot(
                *points.T, sign, color=colour, markersize=8, markeredgecolor="white", markeredgewidth=0.9,
                linestyle="none", label=name, zorder=6,
            )  # fmt: skip
    if annotate and len(answer.critical.points) <= 9:
        middle = float(np.mean(axes.get_xlim()))
        box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
        for p in answer.critical.points:
            place = (float(p.x[plane_axes[0]]), float(p.x[plane_axes[1]]))
            side, shift = ("right", -8) if place[0] > middle else ("left", 8)  # towards the inside
            axes.annotate(
                style.number(p.loss), place, xytext=(shift, 6), textcoords="offset points", ha=side, fontsize=8,
                zorder=7, bbox=box,
            )  # fmt: skip


def _legend(figure: Figure, answer: LandscapeAnswer, axes: Axes) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles, names = axes.get_legend_handles_labels()
    if answer.heights.descents and answer.process.dimension > 1:
        handles.append(Line2D([], [], color="#303030", linewidth=1.3, linestyle=(0, (4, 1.5))))
        names.append("steepest descent from saddles")
    if answer.basins is not None and answer.process.dimension < 3:
        handles.append(Patch(color=BASINS[0], alpha=0.28))
        names.append("basins (one colour each)")
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 3), frameon=False)
    figure.suptitle(_title(answer), fontsize=10.5)
