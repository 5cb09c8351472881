"""Fields for ParaView: functions at one time or several, and the kinds of boundary.

Lagrange cells of the field's own degree, continuous or not, on straight or curved cells, with nodes where VTK's cells
have them: ParaView shows the same polynomials. ADIOS2's VTX format where dolfinx has it, VTK's own files otherwise (no
further library needed).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mpi4py import MPI

import basix.ufl
import numpy as np
from dolfinx import common, fem, io

from fpsolve.app.figure_data import Pieces, boundary_pieces
from fpsolve.errors import InputError
from fpsolve.fem.boundary import Boundary
from fpsolve.fem.parallel import agree, on_root
from fpsolve.problems.evolution import BackwardResult, EvolveResult
from fpsolve.problems.exit import ExitResult
from fpsolve.problems.steady_result import SteadyResult

FIELD = "mean_exit_time"
BOUNDARY = "boundary.vtu"
#: The highest degree written; VTK's cells go to 10, but their equidistant nodes are ill-conditioned by then.
MAX_DEGREE = 7
#: VTK's numbers of the cell types vertex, line and triangle.
VTK_SIMPLEX = (1, 3, 5)


@dataclass(frozen=True)
class Series:
    """Functions in one file, at one or more times.

    Attributes
    ----------
    name : str
        Of the file.
    names : tuple of str
        Of the functions: what ParaView calls the point data.
    frames : list of (time, functions)
        All of one element on one mesh.
    """

    name: str
    names: tuple[str, ...]
    frames: Sequence[tuple[float, Sequence[fem.Function]]]

    @property
    def file(self) -> str:
        """The file or directory that holds the series."""
        return f"{self.name}.bp" if common.has_adios2 else f"{self.name}.vtk"


def write_fields(result: ExitResult, directory: Path) -> list[Path]:
    """Write the mean exit time, its signed estimated error and the boundary's kinds. Collective.

    Returns
    -------
    list of Path
        ``mean_exit_time.bp`` (ADIOS2) or ``mean_exit_time.vtk/mean_exit_time.pvd``, with the point data
        ``mean_exit_time`` and ``estimated_error``; and ``boundary.vtu``. The same on every rank.

    Raises
    ------
    InputError
        If the files cannot be written; on every rank.
    """
    series = Series(FIELD, (FIELD, "estimated_error"), [(0.0, (result.u, result.difference))])
    return write_series([series], result.boundary, directory)


def write_evolution(result: EvolveResult, directory: Path) -> list[Path]:
    """Write the density at the stored times as ``density.bp`` or ``density.vtk``; see `write_series`. Collective."""
    frames = [(float(t), (rho,)) for t, rho in zip(result.times, result.densities, strict=True)]
    return write_series([Series("density", ("density",), frames)], result.boundary, directory)


def write_backward(result: BackwardResult, directory: Path) -> list[Path]:
    """Write u at the stored times as ``u.bp`` or ``u.vtk``; see `write_series`. Collective."""
    frames = [(float(t), (u,)) for t, u in zip(result.times, result.fields, strict=True)]
    return write_series([Series("u", ("u",), frames)], result.boundary, directory)


def write_steady(result: SteadyResult, directory: Path) -> list[Path]:
    """Write the invariant density with the eigenfunctions, and the current; see `write_series`. Collective.

    In ``steady``: ``density``, ``right_k`` and ``left_k`` (eigenfunctions of A and A* to the k-th eigenvalue), with
    ``_imaginary`` at the end of the name their imaginary parts where there are any; in ``current`` the vector J.
    """
    found = {"density": result.density}
    for side, pairs in (("right", result.right), ("left", result.left)):
        for k, (value, (real, imaginary)) in enumerate(zip(result.eigenvalues, pairs, strict=True)):
            if k == 0:  # 1 and the density
                continue
            found[f"{side}_{k}"] = real
            if value.imag != 0:
                found[f"{side}_{k}_imaginary"] = imaginary
    steady = Series("steady", tuple(found), [(0.0, tuple(found.values()))])
    current = Series("current", ("current",), [(0.0, (result.current,))])
    return write_series([steady, current], result.boundary, directory)


def write_series(series: Sequence[Series], boundary: Boundary, directory: Path) -> list[Path]:
    """Write functions, possibly in time, and the boundary's kinds. Collective.

    Parameters
    ----------
    directory : Path
        Created if it does not exist; of its contents only files of the same names are replaced, each when its
        successor is complete.

    Returns
    -------
    list of Path
        For each series ``NAME.bp`` (ADIOS2) or ``NAME.vtk/NAME.pvd``; and ``boundary.vtu`` with the cell data ``kind``
        (1 absorbing, 2 reflecting, 3 characteristic). The same on every rank.

    Raises
    ------
    InputError
        If the files cannot be written; on every rank.
    """
    domain = series[0].frames[0][1][0].function_space.mesh
    comm = domain.comm
    edges = boundary_pieces(domain, boundary)
    scratch = comm.bcast(directory / f".fields.{os.getpid()}")
    on_root(comm, lambda: _try(directory, lambda: _empty(scratch)))
    try:
        for one in series:
            error = None
            try:
                _write(one, scratch / one.file)
            except (RuntimeError, OSError) as failure:
                error = _unwritable(directory, failure)
            agree(comm, error)

        def publish() -> None:
            assert edges is not None
            (scratch / BOUNDARY).write_text(vtu_text(edges, "kind"), encoding="ascii")
            stale = [f"{one.name}.{end}" for one in series for end in ("bp", "vtk")]
            for old in (*stale, BOUNDARY):
                _replace(scratch / old, directory / old, scratch)

        on_root(comm, lambda: _try(directory, publish))
    finally:
        if comm.rank == 0:
            shutil.rmtree(scratch, ignore_errors=True)
    written = [directory / one.file for one in series]
    if not common.has_adios2:
        written = [path / f"{path.stem}.pvd" for path in written]
    return [*written, directory / BOUNDARY]


def _write(series: Series, path: Path) -> None:
    """Write one series. Collective."""
    first = series.frames[0][1]
    comm = first[0].function_space.mesh.comm
    shown = [_named(function, name) for function, name in zip(first, series.names, strict=True)]
    with _writer(comm, path, shown) as write:
        for number, (t, functions) in enumerate(series.frames):
            for function, target in zip(functions, shown, strict=True):
                if number:
                    _interpolate(target, function)
            write(t)


@contextmanager
def _writer(comm: MPI.Comm, path: Path, functions: list[fem.Function]) -> Iterator[Callable[[float], None]]:
    """Give what writes the functions as they are at a time. Collective."""
    if common.has_adios2:
        with io.VTXWriter(comm, path, functions) as writer:
            yield writer.write
        return
    if comm.rank == 0:
        path.mkdir()
    comm.Barrier()
    with io.VTKFile(comm, path / f"{path.stem}.pvd", "w") as file:
        yield lambda t: file.write_function(functions, t)


def _named(function: fem.Function, name: str) -> fem.Function:
    """Return the function under another name, as VTK's cells represent it. Collective.

    Of a degree that shows the curved cells it lives on, and with equidistant nodes: with dolfinx's own ones, denser
    towards the ends, VTK would take straight cells of degree 3 and above for distorted ones.
    """
    space = function.function_space
    domain, element = space.mesh, space.ufl_element()
    degree = min(max(element.degree, domain.geometry.cmap.degree), MAX_DEGREE)
    shown = basix.ufl.element(
        "Lagrange",
        domain.basix_cell(),
        degree,
        lagrange_variant=basix.LagrangeVariant.equispaced,
        discontinuous=element.discontinuous,
        shape=function.ufl_shape or None,
        dtype=domain.geometry.x.dtype,
    )
    result = fem.Function(fem.functionspace(domain, shown), name=name)
    _interpolate(result, function)
    return result


def _interpolate(target: fem.Function, function: fem.Function) -> None:
    target.interpolate(function)
    target.x.scatter_forward()


def _empty(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)


def _replace(new: Path, path: Path, scratch: Path) -> None:
    """Put `new`, if it exists, in the place of `path`; a directory is moved out of the way first."""
    if path.is_dir() and not path.is_symlink():
        path.rename(scratch / f"old.{path.name}")
    elif path.exists() and not new.exists():
        path.unlink()
    if new.exists():
        os.replace(new, path)


def _try(directory: Path, work: Callable[[], None]) -> None:
    try:
        work()
    except OSError as error:
        raise _unwritable(directory, error) from None


def _unwritable(directory: Path, error: Exception) -> InputError:
    return InputError("out", str(directory), "a directory in which files can be written", str(error))


def vtu_text(pieces: Pieces, name: str) -> str:
    """Return a VTK file (unstructured grid, XML, ASCII) of simplices with one integer each.

    Parameters
    ----------
    pieces : Pieces
        Points, segments or triangles; the value at the first corner counts.
    name : str
        Of the integer.
    """
    n, corners, d = pieces.corners.shape
    points = np.zeros((n * corners, 3))
    points[:, :d] = pieces.corners.reshape(-1, d)
    arrays = {
        "points": " ".join(f"{x:.17g}" for x in points.ravel()),
        "connectivity": " ".join(map(str, range(n * corners))),
        "offsets": " ".join(map(str, range(corners, (n + 1) * corners, corners))),
        "types": " ".join([str(VTK_SIMPLEX[corners - 1])] * n),
        "values": " ".join(str(round(v)) for v in pieces.values[:, 0]),
    }
    return f"""<?xml version="1.0"?>
<VTKFile type="UnstructuredGrid" version="0.1" byte_order="LittleEndian">
<UnstructuredGrid><Piece NumberOfPoints="{n * corners}" NumberOfCells="{n}">
<Points><DataArray type="Float64" NumberOfComponents="3" format="ascii">
{arrays["points"]}
</DataArray></Points>
<Cells>
<DataArray type="Int64" Name="connectivity" format="ascii">
{arrays["connectivity"]}
</DataArray>
<DataArray type="Int64" Name="offsets" format="ascii">
{arrays["offsets"]}
</DataArray>
<DataArray type="UInt8" Name="types" format="ascii">
{arrays["types"]}
</DataArray>
</Cells>
<CellData Scalars="{name}"><DataArray type="Int32" Name="{name}" format="ascii">
{arrays["values"]}
</DataArray></CellData>
</Piece></UnstructuredGrid>
</VTKFile>
"""
