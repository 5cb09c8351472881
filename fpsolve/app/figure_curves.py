"""Pictures of numbers in time: computed values with their errors, bounds and exact solutions, in panels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fpsolve.app import figure_style as style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Computed curves: colours that all kinds of colour vision tell apart.
COMPUTED = ("#0072b2", "#cc79a7", "#009e73", "#56b4e9", "#e69f00", "#111111")
DASHED = (0, (5, 2))
MARKERS = ["o", "s", "^", "D", "v"]
#: Last stored time to first beyond which the axis of time is logarithmic.
LONG = 200.0
#: Stored times up to this number are marked.
FEW = 60
#: Logarithmic values are shown this far below the largest of a panel.
LOWEST = 1e-16
PANEL = (5.4, 3.4)


@dataclass(frozen=True)
class Curve:
    """Values at times, both of shape (k,).

    Attributes
    ----------
    error : ndarray or None, shape (k,)
        Shown as bars, of many times as a band.
    colour, dashes, width
        Of the line.
    points : bool
        Whether the values are those of stored times and marked so.
    """

    t: np.ndarray
    y: np.ndarray
    label: str
    colour: str = COMPUTED[0]
    dashes: Any = "-"
    width: float = 1.6
    error: np.ndarray | None = None
    points: bool = True


@dataclass(frozen=True)
class Panel:
    """Curves over one axis of time.

    Attributes
    ----------
    label : str
        Of the vertical axis.
    logarithmic : bool
    linear_time : bool
        Whether the axis of time is linear however far the stored times are apart, so that exponentials are straight.
    """

    label: str
    curves: list[Curve] = field(default_factory=list)
    logarithmic: bool = False
    linear_time: bool = False


def curves_size(panels: Sequence[Panel]) -> tuple[float, float]:
    """Return the size of the picture in inches."""
    columns = 1 if len(panels) == 1 else 2
    rows = -(-len(panels) // columns)
    entries = max(len(panel.curves) for panel in panels)
    return PANEL[0] * columns + (1.6 if columns == 1 else 0.4), rows * (PANEL[1] + 0.19 * entries) + 0.5


def draw_curves(figure: Figure, result: Any, panels: Sequence[Panel], what: str) -> None:
    """Draw panels into an empty figure. Not collective."""
    columns = 1 if len(panels) == 1 else 2
    rows = -(-len(panels) // columns)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        draw_panel(axes, panel)
        axes.set_xlabel(style.time_label(result, "t"))
    for axes in grid[len(panels) :]:
        axes.remove()
    figure.suptitle(style.title(result, what), fontsize=10.5)


def draw_panel(axes: Axes, panel: Panel) -> None:
    """Draw the curves of a panel with their legend below."""
    stored = np.concatenate([c.t[c.t > 0] for c in panel.curves if c.points] or [np.ones(1)])
    long = not panel.linear_time and bool(stored.max() > LONG * stored.min())
    alone = all(curve.points for curve in panel.curves)
    shapes = iter(MARKERS * len(panel.curves))
    for curve in sorted(panel.curves, key=lambda c: not c.points):
        shown = (curve.t > 0) if long else np.ones(len(curve.t), dtype=bool)
        t, y = curve.t[shown], curve.y[shown]
        if panel.logarithmic:
            y = np.where(y > 0, y, np.nan)
        few = curve.points and len(t) <= FEW
        marker: dict[str, Any] = {"marker": next(shapes), "markersize": 3.2 if alone else 4.5} if few else {}
        # a chord between two stored times could cross a bound that holds
        dashes = "none" if few and not alone else curve.dashes
        axes.plot(
            t, y, color=curve.colour, linestyle=dashes, linewidth=curve.width, label=curve.label,
            zorder=5 if curve.points else 4, **marker,
        )  # fmt: skip
        if curve.error is not None and not panel.logarithmic:
            error = curve.error[shown]
            if few:
                axes.errorbar(t, y, yerr=error, fmt="none", ecolor=curve.colour, elinewidth=1.2, capsize=2.5, zorder=5)
                continue
            axes.fill_between(t, y - error, y + error, color=curve.colour, alpha=0.3, linewidth=0, zorder=3)
    if long:
        axes.set_xscale("log")
    if panel.logarithmic:
        axes.set_yscale("log")
        _logarithmic_limits(axes, panel)
    else:
        _linear_limits(axes, panel)
    low, high = axes.get_ylim()
    for line in axes.lines:
        y = np.asarray(line.get_ydata(), dtype=float)
        if np.isfinite(y).any() and not ((y >= low) & (y <= high)).any():
            line.set_label(f"{line.get_label()} (beyond the scale)")
    axes.set_ylabel(panel.label)
    axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), frameon=False, fontsize=8, handlelength=2.6)


def _logarithmic_limits(axes: Axes, panel: Panel) -> None:
    computed = np.concatenate([c.y[np.isfinite(c.y) & (c.y > 0)] for c in panel.curves if c.points] or [np.ones(1)])
    top = float(computed.max(initial=LOWEST))
    low = max(float(computed.min(initial=top)), LOWEST * top)
    axes.set_ylim(low / 3, 4 * top)


def _linear_limits(axes: Axes, panel: Panel) -> None:
    """Leave room for the computed curves, and for bounds as far as they are of the same size."""
    computed = [c.y[np.isfinite(c.y)] for c in panel.curves if c.points]
    every = np.concatenate([*computed, np.zeros(0)])
    if not len(every):
        return
    low, high = float(every.min()), float(every.max())
    span = max(high - low, 1e-12 * max(abs(low), abs(high), 1e-300), 0.02 * max(abs(low), abs(high)))
    others = np.concatenate([c.y[np.isfinite(c.y)] for c in panel.curves if not c.points] or [np.zeros(0)])
    near = others[(others >= low - 3 * span) & (others <= high + 3 * span)]
    low, high = min(low, float(near.min(initial=low))), max(high, float(near.max(initial=high)))
    margin = 0.06 * max(high - low, span)
    axes.set_ylim(low - margin, high + margin)
