"""The picture of an enclosure: all bounds of the mean exit time along a line, and how far apart they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fpsolve.app import figure_style as style
from fpsolve.app.figure_files import asleep_elsewhere, save
from fpsolve.app.figure_line import (
    DASHES,
    bound_values,
    label_line,
    legend,
    line_axis,
    plot_bounds,
    scale_times,
    starts_on_line,
)
from fpsolve.app.report_numbers import enclosure_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fpsolve.app.run_bounds import BoundsAnswer
    from fpsolve.model.domains import Domain

#: Points of the line, and steps of the bisection that finds its ends.
POINTS, BISECTIONS = 601, 50
COLOUR = "#0072b2"


def bounds_figure(answer: BoundsAnswer, directory: Path) -> list[Path]:
    """Draw ``bounds.png``. Collective.

    Raises
    ------
    InputError
        If the file cannot be written; on every rank.
    """
    draw = lambda: [save(directory, "bounds", (7.2, 7.0), lambda figure: draw_bounds(figure, answer))]  # noqa: E731
    return asleep_elsewhere(answer.comm, draw)


def line_through(domain: Domain, start: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points (n, d) on the line through a start parallel to an axis, and which of them lie in Ω.

    The ends of each of its pieces in Ω are found by bisection.
    """
    lower, upper = (corner[axis] for corner in domain.bounding_box())
    t = np.union1d(np.linspace(lower, upper, POINTS), start[axis])
    inside = domain.contains(_on_line(start, axis, t))
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    into = np.where(inside[edges], t[edges], t[edges + 1])
    out = np.where(inside[edges], t[edges + 1], t[edges])
    for _ in range(BISECTIONS if len(edges) else 0):
        middle = (into + out) / 2
        found = domain.contains(_on_line(start, axis, middle))
        into, out = np.where(found, middle, into), np.where(found, out, middle)
    # one point just outside each end keeps separate parts of the line apart
    points = _on_line(start, axis, np.unique(np.concatenate([t, into, out])))
    return points, domain.contains(points)


def _on_line(start: np.ndarray, axis: int, t: np.ndarray) -> np.ndarray:
    points = np.tile(np.asarray(start, dtype=float), (len(t), 1))
    points[:, axis] = t
    return points


def draw_bounds(figure: Figure, answer: BoundsAnswer) -> None:
    """Draw into an empty figure. Not collective."""
    axis = line_axis(answer, answer.bounds)
    points, inside = line_through(answer.domain, answer.starts[0], axis)
    t = points[:, axis]
    times, widths = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1.3])
    curves, notes = plot_bounds(times, answer.bounds, t, points, inside)
    _starts(times, answer, axis)
    scale_times(times, curves)
    label_line(times, answer, axis)
    times.set_xlabel("")
    _widths(widths, answer, t, points, inside)
    label_line(widths, answer, axis)
    widths.set_ylabel("relative width")
    legend(figure, times, notes)
    figure.suptitle(style.title(answer, "Bounds of the mean exit time", scheme=False), fontsize=10.5)


def _starts(axes: Axes, answer: BoundsAnswer, axis: int) -> None:
    """Mark the enclosures at the starts on the line."""
    for k in starts_on_line(answer, axis):
        start = answer.enclosure.starts[k]
        x, name = answer.starts[k, axis], style.point_text(answer.starts[k])
        low, high = enclosure_text(start.lower or None, start.upper)
        middle = start.lower if not np.isfinite(start.upper) else (start.lower + start.upper) / 2
        reach = [[middle - start.lower], [max(start.upper - middle, 0.0)] if np.isfinite(start.upper) else [0.0]]
        axes.errorbar([x], [middle], yerr=reach, fmt="none", capsize=3, ecolor="black", elinewidth=1, zorder=6)
        text = f"start {name}: {low} ≤ E τ ≤ {high}"
        axes.plot([x], [middle], "o", color="white", markeredgecolor="black", markersize=5.5, zorder=7, label=text)


def _widths(axes: Axes, answer: BoundsAnswer, t: np.ndarray, points: np.ndarray, inside: np.ndarray) -> None:
    """Draw (upper - lower)/mean of each kind that has both, on a logarithmic axis."""
    drawn = []
    for name in dict.fromkeys(bound.name for bound in answer.bounds):
        sides = {bound.kind: bound_values(bound, points, inside) for bound in answer.bounds if bound.name == name}
        both = [bound for bound in answer.bounds if bound.name == name and bound.verified]
        if len(both) < 2:
            continue
        lower, upper = sides["lower"], sides["upper"]
        with np.errstate(invalid="ignore"):
            # two neighbouring numbers may be the same one
            width = np.maximum(2 * (upper - lower) / (upper + lower), np.finfo(float).eps)
        if np.isfinite(width).any():
            axes.plot(t, width, color=COLOUR, linestyle=DASHES[name], linewidth=1.5, label=name)
            drawn.append(width)
    if drawn:
        axes.axhline(answer.case.bounds.width, color="#707070", linewidth=0.8, linestyle=(0, (1, 1.5)), label="asked")
        axes.set_yscale("log")
        axes.legend(frameon=False, fontsize=8, loc="best", ncols=4)
    else:
        axes.text(0.5, 0.5, "no kind has both bounds on this line", transform=axes.transAxes, ha="center")
