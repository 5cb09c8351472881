"""The pictures of a chain's mean exit time: u on the domain and along a line through the first start."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fpsolve.app import figure_style as style
from fpsolve.app.exit_models import ModelAnswer
from fpsolve.app.figure_files import asleep_elsewhere, save
from fpsolve.app.report_models import NAMES
from fpsolve.model.process import Process
from fpsolve.problems.chain_exit import ChainExitResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNIT = "[time; one SGD step = η]"
LINE_POINTS = 801


def chain_figures(process: Process, answer: ModelAnswer, directory: Path) -> list[Path]:
    """Draw ``line.png`` and, in two dimensions, ``mean_exit_time.png``. Collective."""
    result = answer.result
    assert isinstance(result, ChainExitResult)
    lower, upper = result.domain.bounding_box()

    def draw() -> list[Path]:
        files = [save(directory, "line", (7.2, 4.4), lambda f: _line(f, process, answer.name, result))]
        if process.dimension == 2:
            size = style.plane_size(lower, upper, 5.6, 1.7)
            files.append(save(directory, "mean_exit_time", size, lambda f: _plane(f, process, answer.name, result)))
        return files

    return asleep_elsewhere(result.comm, draw)


def _title(name: str, process: Process, result: ChainExitResult) -> str:
    rate = f"η = {result.chain.learning_rate:g}, b = {result.chain.batch_size}"
    return f"Mean exit time of {NAMES[name]}   {rate}   {result.cells} cells"


def _line(figure: Figure, process: Process, name: str, result: ChainExitResult) -> None:
    """Draw u along the first coordinate through the first start; it jumps to 0 at the boundary."""
    axes = figure.add_subplot()
    lower, upper = result.domain.bounding_box()
    margin = 0.04 * (upper[0] - lower[0])
    t = np.linspace(lower[0] - margin, upper[0] + margin, LINE_POINTS)
    x = np.tile(result.starts[0], (len(t), 1))
    x[:, 0] = t
    u = result.u.at(x)
    inside = result.domain.contains(x)
    axes.plot(t, np.where(inside, u, np.nan), color="#0072b2", linewidth=1.8, label="u, computed")
    axes.plot(t, np.where(inside, np.nan, 0.0), color="#0072b2", linewidth=1.8)
    for i, start in enumerate(result.starts):
        if np.allclose(start[1:], result.starts[0, 1:]):
            text = f"start {style.point_text(start)}: E τ = {style.with_error(result.mean[i], result.error[i, 0])}"
            axes.errorbar(
                start[0], result.mean[i], yerr=result.error[i, 0], fmt="o", capsize=3, color="black", label=text
            )
    names = process.variables
    fixed = [f"{style.symbol(n)} = {result.starts[0][k]:.4g}" for k, n in enumerate(names) if k]
    axes.set_xlabel(style.symbol(names[0]) + (f"   (along the line {', '.join(fixed)})" if fixed else ""))
    axes.set_ylabel(f"u, E τ   {UNIT}")
    axes.set_ylim(bottom=0.0)
    axes.set_title(_title(name, process, result))
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.legend(loc="best")


def _plane(figure: Figure, process: Process, name: str, result: ChainExitResult) -> None:
    from matplotlib.tri import Triangulation

    axes = figure.add_subplot()
    space = result.u.space
    triangles = Triangulation(space.points[:, 0], space.points[:, 1], space.corners)
    values = result.u.values[: len(space.points)]  # the vertices come first
    painted = axes.tripcolor(triangles, values, shading="gouraud", cmap=style.COLOURS, vmin=0.0)
    axes.tricontour(triangles, values, levels=8, colors="white", linewidths=0.5)
    lower, upper = result.domain.bounding_box()
    style.plane(axes, (process.variables[0], process.variables[1]), lower, upper)
    axes.plot(result.starts[:, 0], result.starts[:, 1], "o", color="white", markeredgecolor="black", label="starts")
    axes.legend(loc="upper right")
    figure.colorbar(painted, ax=axes, label=f"u, E τ   {UNIT}")
    axes.set_title(_title(name, process, result))
