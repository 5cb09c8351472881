"""Pictures of a steady state, drawn off-screen on rank 0."""

from __future__ import annotations

from pathlib import Path

from mpi4py import MPI

import numpy as np
from dolfinx import fem

from fpsolve.app.figure_data import Pieces, cell_pieces, extent, plane_pieces
from fpsolve.app.figure_files import asleep_elsewhere, save
from fpsolve.app.figure_frames import collect, vector_values
from fpsolve.app.figure_steady import (
    Arrows,
    Mode,
    draw_modes,
    draw_spectrum,
    draw_steady,
    is_complex,
    modes_size,
    steady_size,
)
from fpsolve.fem.points import locate
from fpsolve.problems.steady_result import SteadyResult

#: Arrows along the longer side of the domain.
ARROWS = 21
#: Eigenfunctions shown.
MODES = 4
#: Where the invariant density is below this part of its maximum, eigenfunctions of A may leave the scale.
SMALL = 1e-3
#: Relative distance below which two eigenvalues are each other's conjugates.
SAME = 1e-6


def steady_figures(result: SteadyResult, directory: Path) -> list[Path]:
    """Draw the invariant density with its current, the eigenfunctions, and the spectrum if it is complex. Collective.

    Returns
    -------
    list of Path
        ``steady.png``, ``eigenfunctions.png`` and, with complex eigenvalues, ``spectrum.png``; on every rank.

    Raises
    ------
    InputError
        If the files cannot be written; on every rank.
    """
    d = result.process.dimension
    data = collect([np.inf], [result.density], result.boundary, "invariant density ρ∞")
    arrows = None if result.detailed_balance or d != 2 else _arrows(result.current)
    level = float(result.mean[2]) if d == 3 else 0.0
    values = [complex(value) for value in result.eigenvalues[: MODES + 1]]
    modes = [
        _mode(value, result.right[k][0], result.left[k][0], result.density, level)
        for k, value in enumerate(values)
        if k > 0 and not _is_conjugate(value, values[k - 1])
    ]

    def draw() -> list[Path]:
        assert data is not None
        shown = [mode for mode in modes if mode is not None]
        files = [save(directory, "steady", steady_size(data, d), lambda f: draw_steady(f, result, data, arrows))]
        if shown:
            size = modes_size(data, shown, d)
            files.append(save(directory, "eigenfunctions", size, lambda f: draw_modes(f, result, data, shown, level)))
        if any(is_complex(complex(value)) for value in result.eigenvalues):
            files.append(save(directory, "spectrum", (6.4, 5.0), lambda f: draw_spectrum(f, result)))
        return files

    return asleep_elsewhere(result.comm, draw)


def _arrows(current: fem.Function) -> Arrows | None:
    """Return the current on a grid; None where it vanishes. Collective."""
    domain = current.function_space.mesh
    lower, upper = extent(domain)
    step = float(np.max(upper - lower)) / ARROWS
    sides = [np.arange(a + 0.5 * step, b, step) for a, b in zip(lower, upper, strict=True)]
    where = locate(domain, np.stack([g.ravel() for g in np.meshgrid(*sides)], axis=1))
    values = vector_values(current, where)[where.found]
    largest = float(np.linalg.norm(values, axis=1).max(initial=0.0))
    return Arrows(where.points[where.found], values, largest) if largest > 0 else None


def _is_conjugate(value: complex, before: complex) -> bool:
    """Return whether two complex eigenvalues are a pair, of which one is shown."""
    return is_complex(value) and abs(value - before.conjugate()) <= SAME * abs(value)


def _mode(value: complex, right: fem.Function, left: fem.Function, density: fem.Function, level: float) -> Mode | None:
    """Return an eigenpair as pieces, on rank 0; None elsewhere. Collective."""
    domain = density.function_space.mesh

    def pieces(function: fem.Function) -> Pieces | None:
        return plane_pieces(function, 2, level) if domain.topology.dim == 3 else cell_pieces(function)

    found = [pieces(right), pieces(left)]
    limit = _typical(right, density)
    if found[0] is None or found[1] is None:
        return None
    return Mode(value, found[0], found[1], limit)


def _typical(right: fem.Function, density: fem.Function) -> float:
    """Return the largest |x| where ρ is not small; the functions share a space. Collective."""
    comm = density.function_space.mesh.comm
    rho, x = density.x.array, np.abs(right.x.array)
    top = comm.allreduce(float(rho.max(initial=0.0)), op=MPI.MAX)
    largest = comm.allreduce(float(x[rho > SMALL * top].max(initial=0.0)), op=MPI.MAX)
    return largest or 1.0
