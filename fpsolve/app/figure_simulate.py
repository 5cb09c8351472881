"""Pictures of simulated paths: exit times beside the exponential law, densities at given times, trajectories."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fpsolve.app import figure_style as style
from fpsolve.app.figure_curves import COMPUTED, DASHED
from fpsolve.app.figure_files import asleep_elsewhere, save
from fpsolve.app.figure_paint import loss_curve
from fpsolve.app.report import evenly
from fpsolve.fem.boundary import EXIT
from fpsolve.model.domains import Ball, Box

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fpsolve.app.run_simulate import SimulateAnswer

#: Starts, times and trajectories beyond these numbers are not drawn.
STARTS, TIMES, TRAJECTORIES = 4, 9, 6
#: Fewer paths than this are drawn as points.
SCATTER = 3000
#: Of a histogram in one dimension, and along each axis in two.
BINS, CELLS = 60, 40
#: The share of paths beyond the limits of an axis on which nothing else bounds them.
TAIL = 0.005


def simulate_figures(answer: SimulateAnswer, directory: Path) -> list[Path]:
    """Draw the exit times, the densities and some trajectories. Collective.

    Returns
    -------
    list of Path
        ``exit_times.png``, ``density.png`` and ``trajectories.png``, those for which there is something; on every
        rank.

    Raises
    ------
    InputError
        If the files cannot be written; on every rank.
    """

    def draw() -> list[Path]:
        files = []
        if answer.exits is not None and np.isfinite(answer.exits.times).any():
            files.append(save(directory, "exit_times", (10.6, 4.4), lambda f: _draw_exits(f, answer)))
        if answer.paths is not None:
            shown = _shown_times(answer)
            if shown:
                size = _density_size(answer, len(shown))
                files.append(save(directory, "density", size, lambda f: _draw_density(f, answer, shown)))
            if len(answer.paths.trajectories):
                height = 1.2 + 2.2 * len(answer.paths.names)
                files.append(save(directory, "trajectories", (8.0, height), lambda f: _draw_paths(f, answer)))
        return files

    return asleep_elsewhere(answer.comm, draw)


def _what(answer: SimulateAnswer) -> str:
    return {"sgd": "SGD", "noisy": "noisy SGD", "momentum": "momentum SGD", "sde": "the diffusion"}[answer.chain]


# --- exit times ------------------------------------------------------------------------------------------


def _draw_exits(figure: Figure, answer: SimulateAnswer) -> None:
    """Histogram and survival of the exit times, each beside the exponential law of the same mean."""
    exits: Any = answer.exits
    left, right = figure.subplots(1, 2)
    gone = exits.times[:STARTS][np.isfinite(exits.times[:STARTS])]
    end = float(np.quantile(gone, 1 - TAIL)) if exits.max_time is None else exits.max_time
    grid = np.linspace(0.0, end, 400)
    for i in range(min(len(exits.starts), STARTS)):
        colour = COMPUTED[i]
        times, mean = np.sort(exits.times[i]), exits.exponential_mean[i]
        start = f"from {style.point_text(exits.starts[i])}: "
        label = start + (
            rf"E$\,$τ = {style.with_error(exits.mean[i], exits.interval[i, 1] - exits.mean[i])}"
            if not exits.inside[i]
            else f"{exits.inside[i]} of {exits.paths} still inside"
        )
        counts, edges = np.histogram(times[np.isfinite(times)], bins=BINS, range=(0.0, end))
        left.stairs(counts / (exits.paths * np.diff(edges)), edges, color=colour, fill=i == 0, alpha=0.35)
        right.step(
            np.r_[0.0, times], 1 - np.arange(exits.paths + 1) / exits.paths, where="post", color=colour, label=label
        )
        if np.isfinite(mean):
            law = f"exponential law of the mean {style.number(mean)}"
            left.plot(grid, np.exp(-grid / mean) / mean, color=colour, linestyle=DASHED, linewidth=1.3)
            right.plot(grid, np.exp(-grid / mean), color=colour, linestyle=DASHED, linewidth=1.3, label=law)
    left.set_ylabel("density of the exit time τ   [per unit time]")
    right.set_ylabel("P(τ > t): share of paths not yet left")
    right.set_yscale("log")
    right.set_ylim(TAIL / 2, 1.3)
    for axes in (left, right):
        axes.set_xlim(0.0, end)
        axes.set_xlabel(style.time_label(answer, "t"))
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    count = f"{exits.paths:,} paths".replace(",", " ")
    figure.suptitle(f"{style.title(answer, f'Exit times of {_what(answer)}', scheme=False)}   {count}", fontsize=10.5)


# --- densities -------------------------------------------------------------------------------------------


def _shown_times(answer: SimulateAnswer) -> list[int]:
    """Return the numbers of the stored times that are drawn: some path is there, and they are not all in a point."""
    assert answer.paths is not None
    x = answer.paths.positions[0]
    alive = [
        k for k in range(len(x)) if np.isfinite(x[k, :, 0]).sum() > 1 and np.nanmax(np.ptp(_alive(x[k]), axis=0)) > 0
    ]
    return evenly(alive, TIMES)


def _alive(x: np.ndarray) -> np.ndarray:
    return x[np.isfinite(x[:, 0])]


def _limits(answer: SimulateAnswer) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of what is shown: the domain where paths end at its boundary, else where the paths are."""
    sample = answer.paths
    assert sample is not None
    every = _alive(sample.positions[0].reshape(-1, len(sample.names)))
    low, high = np.quantile(every, [TAIL, 1 - TAIL], axis=0)
    margin = 0.1 * (high - low) + 1e-9
    low, high = low - margin, high + margin
    if sample.domain is not None:
        lower, upper = sample.domain.bounding_box()
        low[: len(lower)], high[: len(lower)] = lower, upper
    return low, high


def _density_size(answer: SimulateAnswer, count: int) -> tuple[float, float]:
    assert answer.paths is not None
    if len(answer.paths.names) == 1:
        return 7.5, 4.6
    columns = _columns(count)
    return 3.4 * columns + 1.2, 3.1 * math.ceil(count / columns) + 0.7


def _columns(count: int) -> int:
    return 2 if count == 4 else min(count, 3)


def _draw_density(figure: Figure, answer: SimulateAnswer, shown: list[int]) -> None:
    sample: Any = answer.paths
    low, high = _limits(answer)
    if len(sample.names) == 1:
        _draw_line(figure.add_subplot(), answer, shown, float(low[0]), float(high[0]))
    else:
        _draw_planes(figure, answer, shown, low[:2], high[:2])
    start = f"Density of {_what(answer)} from {style.point_text(sample.starts[0])}"
    figure.suptitle(style.title(answer, start, scheme=False), fontsize=10.5)


def _draw_line(axes: Axes, answer: SimulateAnswer, shown: list[int], low: float, high: float) -> None:
    import matplotlib

    sample: Any = answer.paths
    colours = matplotlib.colormaps[style.COLOURS](np.linspace(0.0, 0.9, len(shown)))
    for k, colour in zip(shown, colours, strict=True):
        density, (edges,) = sample.histogram(k, BINS, limits=[(low, high)])
        left = f", {100 * sample.inside[0, k]:.4g} % not left" if sample.domain is not None else ""
        axes.stairs(density, edges, color=colour, linewidth=1.4, label=f"t = {style.number(sample.times[k])}{left}")
    axes.set_xlim(low, high)
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel(style.symbol(sample.names[0]))
    axes.set_ylabel("density of the paths ρ(t, x)")
    loss_curve(axes, answer.process, low, high)
    axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)


def _draw_planes(figure: Figure, answer: SimulateAnswer, shown: list[int], low: np.ndarray, high: np.ndarray) -> None:
    """The first two coordinates, the others integrated out, each time on its own scale."""
    sample: Any = answer.paths
    columns = _columns(len(shown))
    panels = figure.subplots(math.ceil(len(shown) / columns), columns, squeeze=False).ravel()
    painted: Any = None
    contours = sample.domain is None or sample.domain.dimension == 2
    for axes, k in zip(panels, shown, strict=False):
        style.plane(axes, (sample.names[0], sample.names[1]), low, high)
        alive = _alive(sample.positions[0, k])
        if len(alive) < SCATTER:
            axes.plot(alive[:, 0], alive[:, 1], ".", color=COMPUTED[0], markersize=2.0, alpha=0.5)
        else:
            density, edges = sample.histogram(k, (CELLS, CELLS), limits=list(zip(low, high, strict=True)), axes=(0, 1))
            shade = np.ma.masked_equal(density / density.max(), 0.0)
            painted = axes.pcolormesh(*edges, shade.T, cmap=style.COLOURS, vmin=0.0, vmax=1.0, rasterized=True)
        if contours:
            style.loss_contours(axes, answer, (0, 1), sample.starts[0])
        _outline(axes, sample.domain)
        left = f"   {100 * sample.inside[0, k]:.4g} % not left" if sample.domain is not None else ""
        axes.set_title(f"t = {style.number(sample.times[k])}{left}", fontsize=9.5)
    for axes in panels[len(shown) :]:
        axes.remove()
    if painted is not None:
        bar = figure.colorbar(painted, ax=list(panels[: len(shown)]), pad=0.02, fraction=0.05)
        bar.set_label("density relative to its maximum at t")
    known = contours and style.potential_name(answer.process)
    figure.supxlabel("grey: contours of the loss" if known else "", fontsize=8.5)


def _outline(axes: Axes, domain: Any) -> None:
    from matplotlib.patches import Circle, Rectangle

    line: dict[str, Any] = {"fill": False, "edgecolor": style.KINDS[EXIT][1]}
    if isinstance(domain, Ball) and domain.dimension == 2:
        axes.add_patch(Circle((domain.center[0], domain.center[1]), domain.radius, linewidth=1.4, **line))
    if isinstance(domain, Box) and domain.dimension == 2:
        (x, y), (right, top) = domain.lower, domain.upper
        axes.add_patch(Rectangle((x, y), right - x, top - y, linewidth=1.4, **line))


def _draw_paths(figure: Figure, answer: SimulateAnswer) -> None:
    """The coordinates of some paths in time."""
    sample: Any = answer.paths
    panels = np.atleast_1d(figure.subplots(len(sample.names), 1, sharex=True))
    for i, (axes, name) in enumerate(zip(panels, sample.names, strict=True)):
        for k, path in enumerate(sample.trajectories[:TRAJECTORIES]):
            axes.plot(sample.trajectory_times, path[:, i], color=COMPUTED[k % len(COMPUTED)], linewidth=0.7)
        axes.set_ylabel(style.symbol(name))
    panels[-1].set_xlabel(style.time_label(answer, "t"))
    panels[-1].set_xlim(0.0, sample.trajectory_times[-1])
    start = f"Paths of {_what(answer)} from {style.point_text(sample.starts[0])}"
    figure.suptitle(style.title(answer, start, scheme=False), fontsize=10.5)
