"""PNG figures of an exit-time answer, drawn off-screen on rank 0."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from mpi4py import MPI

from fpsolve.app.figure_boundary import draw_boundary
from fpsolve.app.figure_data import MAX_PIECES, boundary_pieces, cell_pieces, extent, line_values, plane_pieces
from fpsolve.app.figure_line import draw_line, line_axis
from fpsolve.app.figure_mean import MeanData, draw_mean
from fpsolve.app.figure_style import STYLE, plane_size
from fpsolve.errors import InputError
from fpsolve.fem.parallel import on_root
from fpsolve.problems.exit import ExitResult
from fpsolve.theory.bounds import Bound

T = TypeVar("T")

DOTS_PER_INCH = 160
#: matplotlib sorts a surface's pieces in Python.
MAX_SURFACE = 20_000


def exit_figures(result: ExitResult, bounds: list[Bound], directory: Path) -> list[Path]:
    """Draw the mean exit time, its bounds along a line and the boundary. Collective.

    Parameters
    ----------
    result : ExitResult
    bounds : list of Bound
        Those to be shown along the line; the same on every rank.
    directory : Path
        Created if it does not exist.

    Returns
    -------
    list of Path
        ``mean_exit_time.png``, ``line.png`` and ``boundary.png``, on every rank.

    Raises
    ------
    InputError
        If the files cannot be written; on every rank.
    """
    mesh, d = result.u.function_space.mesh, result.process.dimension
    box = extent(mesh)
    edges = boundary_pieces(mesh, result.boundary, MAX_SURFACE if d == 3 else MAX_PIECES)
    if d == 3:
        cells = [plane_pieces(result.u, axis, float(result.starts[0, axis])) for axis in (2, 1, 0)]
    else:
        cells = [cell_pieces(result.u)]
    line = line_values(result.u, result.difference, result.starts[0], line_axis(result, bounds))

    def draw() -> list[Path]:
        assert edges is not None
        mean = MeanData(box, [c for c in cells if c is not None], edges)
        sizes = {1: ((7.2, 5.6), (7.2, 3.2)), 3: ((13.0, 4.6), (10.5, 5.6))}
        if d == 2:
            sizes[2] = plane_size(*box, 5.6, 1.7), plane_size(*box, 6.2, 0.9)
        return [
            _save(directory, "mean_exit_time", sizes[d][0], lambda f: draw_mean(f, result, mean)),
            _save(directory, "line", (7.2, 5.6), lambda f: draw_line(f, result, bounds, line)),
            _save(directory, "boundary", sizes[d][1], lambda f: draw_boundary(f, result, box, edges)),
        ]

    return _asleep_elsewhere(result.comm, draw)


def _asleep_elsewhere(comm: MPI.Comm, work: Callable[[], T]) -> T:
    """Run `work` on rank 0 and return its result, or raise its error, on every rank. Collective.

    Drawing takes seconds. MPI's own waiting would keep the other ranks' processors busy for as long.
    """

    def announced() -> T:
        try:
            return work()
        finally:
            comm.Ibarrier().Wait()

    if comm.rank > 0:
        done = comm.Ibarrier()
        while not done.Test():
            time.sleep(0.01)
    return on_root(comm, announced)


def _save(directory: Path, name: str, size: tuple[float, float], draw: Callable[[Any], None]) -> Path:
    """Draw a figure and write it; nobody sees a half-written file."""
    # without pyplot no window system is ever asked for and no state outlives the figure
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path, temporary = directory / f"{name}.png", directory / f".{name}.{os.getpid()}.png"
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            figure.savefig(temporary, format="png", bbox_inches="tight", pad_inches=0.1)
            os.replace(temporary, path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise InputError("out", str(directory), "a directory in which files can be written", str(error)) from None
    return path
