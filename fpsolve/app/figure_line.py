"""The picture of the mean exit time along a line, between its bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fpsolve.app import figure_style as style
from fpsolve.app.figure_data import Line
from fpsolve.problems.exit import ExitResult
from fpsolve.theory.bounds import Bound

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Orders of magnitude beyond which the times' axis is logarithmic.
DECADES = 2.0
#: By kind of bound: colour; by name: dashes.
LINE_COLOURS = {"lower": "#009e73", "upper": "#d55e00"}
DASHES = {"paper": (0, (6, 2)), "sharp": (0, (4, 1.2, 1, 1.2)), "printed": (0, (1, 1.5))}
OTHER_DASHES = (0, (2.5, 1.5))


def line_axis(result: ExitResult, bounds: list[Bound]) -> int:
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
    silent: dict[str, list[str]] = {}
    for bound in bounds:
        values = _bound_values(bound, line.points, inside)
        name = f"{bound.name} {bound.kind}"
        if np.isfinite(values).any():
            _plot_bound(axes, bound, t, values)
            curves.append(values)
        elif bound.name != "printed":
            reason = "says nothing on this line" if bound.profile is not None else _short(bound.reason or "none")
            silent.setdefault(reason, []).append(name)
    _starts_on_line(axes, result, line)
    if _is_logarithmic(curves):
        axes.set_yscale("log")
        axes.set_ylim(*_logarithmic_limits(curves))
    else:
        axes.set_ylim(0.0, 1.08 * max(float(np.nanmax(c)) for c in curves))
    what = "Mean exit time and its bounds" if len(curves) > 1 else "Mean exit time"
    _label(figure, axes, result, line, [f"{', '.join(names)}: {reason}" for reason, names in silent.items()])
    figure.suptitle(style.title(result, what), fontsize=10.5)


def _bound_values(bound: Bound, points: np.ndarray, inside: np.ndarray) -> np.ndarray:
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
        axes.plot(t, values, color=LINE_COLOURS[bound.kind], linestyle=dashes, linewidth=1.5, label=label, zorder=5.5)
    else:
        label = f"{bound.name}, not a bound: {bound.theorem}"
        axes.plot(t, values, color="#707070", linestyle=DASHES["printed"], linewidth=1.5, label=label, zorder=5.5)


def _starts_on_line(axes: Axes, result: ExitResult, line: Line) -> None:
    """Mark the values at the starts on the line, with their errors."""
    others = [k for k in range(result.process.dimension) if k != line.axis]
    lower, upper = result.domain.bounding_box()
    near = np.abs(result.starts[:, others] - result.starts[0, others]) <= 1e-9 * float(np.max(upper - lower))
    for k in np.flatnonzero(near.all(axis=1))[:6]:
        mean, error = result.mean[k], result.error[k, 0]
        x = result.starts[k, line.axis]
        text = f"start {style.point_text(result.starts[k])}: E τ = {style.with_error(mean, error)}"
        axes.errorbar([x], [mean], yerr=[error], fmt="none", capsize=3, ecolor="black", elinewidth=1, zorder=6)
        axes.plot([x], [mean], "o", color="white", markeredgecolor="black", markersize=5.5, zorder=7, label=text)


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


def _label(figure: Figure, axes: Axes, result: ExitResult, line: Line, notes: list[str]) -> None:
    names, start = result.process.variables, result.starts[0]
    fixed = [f"{style.symbol(n)} = {start[k]:.4g}" for k, n in enumerate(names) if k != line.axis]
    where = f"   (along the line {', '.join(fixed)})" if fixed else ""
    axes.set_xlabel(style.symbol(names[line.axis]) + where)
    axes.set_ylabel(style.time_label(result, "u, E τ"))
    axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(x=0.02)
    handles, labels = axes.get_legend_handles_labels()
    if notes:
        from matplotlib.lines import Line2D

        for note in notes:
            handles.append(Line2D([], [], linestyle="none"))
            labels.append(note)
    figure.legend(handles, labels, loc="outside lower left", frameon=False, fontsize=8.5)
