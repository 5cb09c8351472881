"""Fields for ParaView: the mean exit time with its estimated error, and the kinds of boundary.

Lagrange cells of the field's own degree, continuous or not, on straight or curved cells, with nodes where VTK's cells
have them: ParaView shows the same polynomials. ADIOS2's VTX format where dolfinx has it, VTK's own files otherwise (no
further library needed).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import basix.ufl
import numpy as np
from dolfinx import common, fem, io

from fpsolve.app.figure_data import Pieces, boundary_pieces
from fpsolve.errors import InputError
from fpsolve.fem.parallel import agree, on_root
from fpsolve.problems.exit import ExitResult

FIELD = "mean_exit_time"
BOUNDARY = "boundary.vtu"
#: The highest degree written; VTK's cells go to 10, but their equidistant nodes are ill-conditioned by then.
MAX_DEGREE = 7
#: VTK's numbers of the cell types vertex, line and triangle.
VTK_SIMPLEX = (1, 3, 5)


def write_fields(result: ExitResult, directory: Path) -> list[Path]:
    """Write u, its estimated error and the boundary's kinds. Collective.

    Parameters
    ----------
    result : ExitResult
    directory : Path
        Created if it does not exist; of its contents only the files named here are replaced, each when its
        successor is complete.

    Returns
    -------
    list of Path
        ``mean_exit_time.bp`` (ADIOS2) or ``mean_exit_time.vtk/mean_exit_time.pvd``, with the point data
        ``mean_exit_time`` and ``estimated_error`` (signed); and ``boundary.vtu`` with the cell data ``kind``
        (1 absorbing, 2 reflecting, 3 characteristic). The same on every rank.

    Raises
    ------
    InputError
        If the files cannot be written; on every rank.
    """
    comm = result.comm
    name = f"{FIELD}.bp" if common.has_adios2 else f"{FIELD}.vtk"
    functions = [_named(result.u, FIELD), _named(result.difference, "estimated_error")]
    boundary = boundary_pieces(result.triangulation.mesh, result.boundary)
    scratch = comm.bcast(directory / f".fields.{os.getpid()}")
    on_root(comm, lambda: _try(directory, lambda: _empty(scratch)))
    try:
        error = None
        try:
            _write(functions, scratch / name)
        except (RuntimeError, OSError) as failure:
            error = _unwritable(directory, failure)
        agree(comm, error)

        def publish() -> None:
            assert boundary is not None
            (scratch / BOUNDARY).write_text(vtu_text(boundary, "kind"), encoding="ascii")
            for old in (f"{FIELD}.bp", f"{FIELD}.vtk", BOUNDARY):
                _replace(scratch / old, directory / old, scratch)

        on_root(comm, lambda: _try(directory, publish))
    finally:
        if comm.rank == 0:
            shutil.rmtree(scratch, ignore_errors=True)
    first = directory / name
    return [first if common.has_adios2 else first / f"{FIELD}.pvd", directory / BOUNDARY]


def _write(functions: list[fem.Function], path: Path) -> None:
    comm = functions[0].function_space.mesh.comm
    if common.has_adios2:
        with io.VTXWriter(comm, path, functions) as writer:
            writer.write(0.0)
        return
    if comm.rank == 0:
        path.mkdir()
    comm.Barrier()
    with io.VTKFile(comm, path / f"{FIELD}.pvd", "w") as file:
        file.write_function(functions, 0.0)


def _named(function: fem.Function, name: str) -> fem.Function:
    """Return the function under another name, as VTK's cells represent it. Collective.

    Of a degree that shows the curved cells it lives on, and with equidistant nodes: with dolfinx's own ones, denser
    towards the ends, VTK would take straight cells of degree 3 and above for distorted ones.
    """
    space = function.function_space
    domain, element = space.mesh, space.element.basix_element
    degree = min(max(element.degree, domain.geometry.cmap.degree), MAX_DEGREE)
    shown = basix.ufl.element(
        "Lagrange",
        domain.basix_cell(),
        degree,
        lagrange_variant=basix.LagrangeVariant.equispaced,
        discontinuous=element.discontinuous,
        dtype=domain.geometry.x.dtype,
    )
    result = fem.Function(fem.functionspace(domain, shown), name=name)
    result.interpolate(function)
    result.x.scatter_forward()
    return result


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
