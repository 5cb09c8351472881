"""PNG figures of an exit-time answer, drawn off-screen on rank 0."""

from __future__ import annotations

from pathlib import Path

from fpsolve.app.figure_boundary import draw_boundary
from fpsolve.app.figure_data import MAX_PIECES, boundary_pieces, cell_pieces, extent, line_values, plane_pieces
from fpsolve.app.figure_files import asleep_elsewhere, save
from fpsolve.app.figure_line import draw_line, line_axis
from fpsolve.app.figure_mean import MeanData, draw_mean
from fpsolve.app.figure_style import plane_size
from fpsolve.problems.exit import ExitResult
from fpsolve.theory.bounds import Bound

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
            save(directory, "mean_exit_time", sizes[d][0], lambda f: draw_mean(f, result, mean)),
            save(directory, "line", (7.2, 5.6), lambda f: draw_line(f, result, bounds, line)),
            save(directory, "boundary", sizes[d][1], lambda f: draw_boundary(f, result, box, edges)),
        ]

    return asleep_elsewhere(result.comm, draw)
