"""The picture of the mean exit time along a line, between its bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fpsolve.app import figure_style as style
from fpsolve.theory.bounds import Bound

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fpsolve.app.figure_data import Line
    from fpsolve.problems.exit import ExitResult

#: Orders of magnitude beyond which the times' axis is logarithmic.
DECADES = 2.0
#: By kind of bound: colour; by name: dashes.
LINE_COLOURS = {"lower": "#009e73", "upper": "#d55e00"}
DASHES = {"paper": (0, (6, 2)), "sharp": (0, (4, 1.2, 1, 1.2)), "certified": "solid", "printed": (0, (1, 1.5))}
#: Width and height of the lines of certified bounds, which mostly lie on the solution: each leaves the next one seen.
BROAD = {"lower": (4.6, 4.4), "upper": (2.8, 4.5)}
OTHER_DASHES = (0, (2.5, 1.5))


class Asked(style.Asked, Protocol):
    """What the line needs of an answer: the question with its starts."""

    @property
    def starts(self) -> np.ndarray:
        """Where it starts, shape (k, d)."""


def line_axis(result: Asked, bounds: Sequence[Bound]) -> int:
    """Return the coordinate axis along which the bounds have most to say through the first start.

    The one along which a verified upper bound varies most; else the one along which the first start differs most
    from the centre of a verified lower bound; else the first.
    """
    for bound in bounds:
        if bound.verified and bound.kind == "upper" and "direction" in bound.parameters:
            return _largest(np.asarray(bound.parameters["direction"], dtype=float), 0.0)
    lower, upper = result.domain.bounding_box()
    for bound in bounds:
        if bound.verified and bound.kind == "lower" and "center" in bound.parameters:
            step = np.asarray(bound.parameters["center"], dtype=float) - result.starts[0]
            return _largest(step, 0.02 * float(np.max(upper - lower)))
    return 0


def _largest(vector: np.ndarray, threshold: float) -> int:
    size = np.abs(vector)
    # of nearly equal ones the first
    return int(np.flatnonzero(size >= 0.999 * size.max())[0]) if size.max() > threshold else 0


def draw_line(figure: Figure, result: ExitResult, bounds: list[Bound], line: Line) -> None:
    """Draw into an empty figure. Not collective."""
    axes = figure.add_subplot()
    t = line.points[:, line.axis]
    inside = np.isfinite(line.u)
    error = np.abs(line.difference)
    largest = float(np.nanmax(error)) / max(float(np.nanmax(np.abs(line.u))), 1e-300)
    curves = [np.where(np.isfinite(line.u), line.u, np.nan)]
    axes.fill_between(t, line.u - error, line.u + error, color="#0072b2", alpha=0.35, linewidth=0, zorder=4)
    label = f"u, computed; band: estimated error, at most {style.number(100 * largest, 1)} % of max u"
    axes.plot(t, line.u, color="#0072b2", linewidth=1.8, zorder=5, label=label)
    drawn, notes = plot_bounds(axes, bounds, t, line.points, inside)
    curves += drawn
    for k in starts_on_line(result, line.axis):
        mean, error = result.mean[k], result.error[k, 0]
        x = result.starts[k, line.axis]
        text = f"start {style.point_text(result.starts[k])}: E τ = {style.with_error(mean, error)}"
        axes.errorbar([x], [mean], yerr=[error], fmt="none", capsize=3, ecolor="black", elinewidth=1, zorder=6)
        axes.plot([x], [mean], "o", color="white", markeredgecolor="black", markersize=5.5, zorder=7, label=text)
    scale_times(axes, curves)
    what = "Mean exit time and its bounds" if len(curves) > 1 else "Mean exit time"
    label_line(axes, result, line.axis)
    legend(figure, axes, notes)
    figure.suptitle(style.title(result, what), fontsize=10.5)


def plot_bounds(
    axes: Axes, bounds: Sequence[Bound], t: np.ndarray, points: np.ndarray, inside: np.ndarray
) -> tuple[list[np.ndarray], list[str]]:
    """Draw bounds along a line; return what is drawn, and notes on those that say nothing.

    Parameters
    ----------
    t : ndarray, shape (n,)
        The abscissae.
    points : ndarray, shape (n, d)
    inside : ndarray of bool, shape (n,)
    """
    curves: list[np.ndarray] = []
    silent: dict[str, list[str]] = {}
    for bound in bounds:
        values = bound_values(bound, points, inside)
        if np.isfinite(values).any():
            _plot_bound(axes, bound, t, values)
            curves.append(values)
        elif bound.name != "printed":
            reason = "says nothing on this line" if bound.profile is not None else _short(bound.reason or "none")
            silent.setdefault(reason, []).append(f"{bound.name} {bound.kind}")
    return curves, [f"{', '.join(names)}: {reason}" for reason, names in silent.items()]


def scale_times(axes: Axes, curves: list[np.ndarray]) -> None:
    """Make the axis of times logarithmic if the curves are decades apart, and set its limits."""
    if not curves:
        return
    if _is_logarithmic(curves):
        axes.set_yscale("log")
        axes.set_ylim(*_logarithmic_limits(curves))
    else:
        axes.set_ylim(0.0, 1.08 * max(float(np.nanmax(c)) for c in curves))


def bound_values(bound: Bound, points: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the bound along the line, nan where it says nothing."""
    values = np.asarray(bound.evaluate(points), dtype=float)
    nothing = ~inside | ~np.isfinite(values)
    if bound.kind == "lower":
        nothing |= values <= 0
    return np.where(nothing, np.nan, values)


def _plot_bound(axes: Axes, bound: Bound, t: np.ndarray, values: np.ndarray) -> None:
    if bound.verified:
        dashes = DASHES.get(bound.name, OTHER_DASHES)
        label = f"{bound.name} {bound.kind} bound: {bound.theorem}"
        width, above = BROAD[bound.kind] if bound.name == "certified" else (1.5, 5.5)
        axes.plot(
            t, values, color=LINE_COLOURS[bound.kind], linestyle=dashes, linewidth=width, label=label, zorder=above
        )
    else:
        label = f"{bound.name}, not a bound: {bound.theorem}"
        axes.plot(t, values, color="#707070", linestyle=DASHES["printed"], linewidth=1.5, label=label, zorder=5.5)


def starts_on_line(result: Asked, axis: int) -> np.ndarray:
    """Return the numbers of the starts on the line through the first one; at most six."""
    others = [k for k in range(result.process.dimension) if k != axis]
    lower, upper = result.domain.bounding_box()
    near = np.abs(result.starts[:, others] - result.starts[0, others]) <= 1e-9 * float(np.max(upper - lower))
    return np.flatnonzero(near.all(axis=1))[:6]


def _is_logarithmic(curves: list[np.ndarray]) -> bool:
    """Return whether the curves' middles and maxima are decades apart (all tend to 0 at the boundary)."""
    positive = [c[np.isfinite(c) & (c > 0)] for c in curves]
    positive = [c for c in positive if len(c)]
    low, high = min(np.quantile(c, 0.1) for c in positive), max(c.max() for c in positive)
    return bool(high > 10**DECADES * low)


def _logarithmic_limits(curves: list[np.ndarray]) -> tuple[float, float]:
    positive = np.concatenate([c[np.isfinite(c) & (c > 0)] for c in curves])
    low = min(float(np.quantile(c[np.isfinite(c) & (c > 0)], 0.02)) for c in curves)
    return low / 2, 2 * float(positive.max())


def _short(reason: str) -> str:
    return reason if len(reason) <= 90 else reason[:87].rsplit(" ", 1)[0] + " ..."


def label_line(axes: Axes, result: Asked, axis: int, what: str = "u, E τ") -> None:
    """Name the axes of a picture along a line, with units."""
    names, start = result.process.variables, result.starts[0]
    fixed = [f"{style.symbol(n)} = {start[k]:.4g}" for k, n in enumerate(names) if k != axis]
    where = f"   (along the line {', '.join(fixed)})" if fixed else ""
    axes.set_xlabel(style.symbol(names[axis]) + where)
    axes.set_ylabel(style.time_label(result, what))
    axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(x=0.02)


def legend(figure: Figure, axes: Axes, notes: Sequence[str] = ()) -> None:
    """Put the names of all curves, and notes, below the picture."""
    handles, labels = axes.get_legend_handles_labels()
    if notes:
        from matplotlib.lines import Line2D

        for note in notes:
            handles.append(Line2D([], [], linestyle="none"))
            labels.append(note)
    figure.legend(handles, labels, loc="outside lower left", frameon=False, fontsize=8.5)
