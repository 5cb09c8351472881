"""Finite-element functions in files that do not depend on the number of ranks.

A file is an ordinary ``.npz`` with the mesh and the values, cell by cell in the mesh's original order, so that it is
read back bit for bit on any number of ranks, and also onto another mesh. It is written aside and renamed: whoever
finds the file finds a complete one. Rank 0 handles a bounded number of rows at a time.

==============  ==========================================================================================
``points``      (n, d) coordinates of the nodes of the geometry
``cells``       (cells, nodes per cell) their numbers, as handed to dolfinx's ``create_mesh``
``values``      (cells, nodes per element) values of the function in the nodes of the element
``header``      UTF-8 JSON: format, version, element, sizes and a fingerprint of points and cells
``metadata``    UTF-8 JSON of the caller
==============  ==========================================================================================
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mpi4py import MPI

import basix
import basix.ufl
import numpy as np
import ufl
from dolfinx import fem, mesh

from fpsolve.errors import InputError
from fpsolve.fem.npz import Writer, chunks, open_archive
from fpsolve.fem.parallel import on_root
from fpsolve.fem.partition import cell_partitioner

FORMAT = "fpsolve state"
VERSION = 1
#: Rows of an array that rank 0 holds at a time while writing and reading.
ROWS = 1 << 16
#: Nodes this close, relative to the extent of the mesh, are the same.
SAME = 1e-10


@dataclass(frozen=True)
class Header:
    """What a state file says about itself.

    Attributes
    ----------
    family, variant : str
        Of the element: a `basix.ElementFamily` and a `basix.LagrangeVariant`.
    discontinuous : bool
    degree : int
        Of the element.
    geometry : int
        Degree of the geometry.
    dimension : int
    cells, points : int
    fingerprint : str
        SHA-256 of the points, rounded, and the cells.
    """

    family: str
    variant: str
    discontinuous: bool
    degree: int
    geometry: int
    dimension: int
    cells: int
    points: int
    fingerprint: str = ""


# --- writing ---------------------------------------------------------------------------------------------


def save_state(path: Path, function: fem.Function, metadata: Any, comm: MPI.Comm) -> None:
    """Write a scalar Lagrange function and JSON metadata to `path`, whole or not at all. Collective.

    Parameters
    ----------
    path : Path
        Its directory is made if need be. ``<path>.new`` is used on the way; one left by a killed run does no harm.
    metadata : object
        Whatever JSON can hold; floats come back bit for bit.

    Raises
    ------
    InputError
        On every rank, when the file cannot be written.
    """
    domain = function.function_space.mesh
    header = _header(function.function_space)
    text = json.dumps(metadata, default=_plain).encode()
    owned = domain.topology.index_map(domain.topology.dim).size_local
    cell_numbers = np.asarray(domain.topology.original_cell_index[:owned], dtype=np.int64)
    point_numbers, points = _own_points(domain)
    unknowns = function.function_space.dofmap.list[:owned]
    function.x.scatter_forward()  # else two cells might save two values of a common node
    parts = {
        "points": (point_numbers, points, header.points),
        "cells": (cell_numbers, _input_nodes(domain)[:owned], header.cells),
        "values": (cell_numbers, function.x.array[unknowns], header.cells),
    }
    writer = Writer(path, comm.rank == 0)
    digest = hashlib.sha256()
    extent = _extent(domain)
    for name, (numbers, rows, total) in parts.items():
        writer.begin(name, rows.dtype, (total, rows.shape[1]))
        for chunk in _in_order(comm, numbers, rows, total):
            writer.write(chunk)
            if name != "values" and chunk is not None:
                rounded = chunk if name == "cells" else np.round(chunk / extent, 9) + 0.0  # no -0.0
                digest.update(np.ascontiguousarray(rounded))
    whole = asdict(header) | {"format": FORMAT, "version": VERSION, "fingerprint": digest.hexdigest()}
    for name, blob in (("header", json.dumps(whole).encode()), ("metadata", text)):
        writer.begin(name, np.dtype(np.uint8), (len(blob),))
        writer.write(np.frombuffer(blob, dtype=np.uint8))
    on_root(comm, writer.finish)


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")


def _in_order(comm: MPI.Comm, numbers: np.ndarray, rows: np.ndarray, total: int) -> Iterator[np.ndarray | None]:
    """Yield the rows in the order of their numbers 0..total-1, `ROWS` at a time, on rank 0. Collective."""
    sequence = np.argsort(numbers)
    numbers, rows = numbers[sequence], rows[sequence]
    for start in range(0, total, ROWS):
        stop = min(start + ROWS, total)
        a, b = np.searchsorted(numbers, (start, stop))
        parts = comm.gather((numbers[a:b] - start, rows[a:b]))
        if parts is None:
            yield None
            continue
        chunk = np.full((stop - start, rows.shape[1]), -1, dtype=rows.dtype)  # nodes of no cell
        for places, values in parts:
            chunk[places] = values
        yield chunk


def _header(space: fem.FunctionSpace) -> Header:
    """Return the header of a function of this space, without the fingerprint. Collective."""
    domain, element = space.mesh, space.element.basix_element
    if space.dofmap.index_map_bs != 1 or element.family != basix.ElementFamily.P:
        raise ValueError("only scalar Lagrange functions can be saved")
    own = np.asarray(domain.geometry.input_global_indices)
    last = int(own.max()) if len(own) else -1
    return Header(
        family=element.family.name,
        variant=element.lagrange_variant.name,
        discontinuous=bool(element.discontinuous),
        degree=int(element.degree),
        geometry=int(domain.geometry.cmap.degree),
        dimension=int(domain.geometry.dim),
        cells=int(domain.topology.index_map(domain.topology.dim).size_global),
        points=domain.comm.allreduce(last, op=MPI.MAX) + 1,
    )


def _own_points(domain: mesh.Mesh) -> tuple[np.ndarray, np.ndarray]:
    owned = domain.geometry.index_map().size_local
    numbers = np.asarray(domain.geometry.input_global_indices[:owned], dtype=np.int64)
    return numbers, domain.geometry.x[:owned, : domain.geometry.dim]


def _input_nodes(domain: mesh.Mesh) -> np.ndarray:
    """Return the nodes of all local cells by their numbers in the input, which no partition changes."""
    return np.asarray(domain.geometry.input_global_indices, dtype=np.int64)[domain.geometry.dofmap]


def _extent(domain: mesh.Mesh) -> float:
    x = domain.geometry.x
    return float(domain.comm.allreduce(np.abs(x).max(initial=0.0), op=MPI.MAX)) or 1.0


# --- reading ---------------------------------------------------------------------------------------------


def load_state(path: Path, space: fem.FunctionSpace, comm: MPI.Comm, key: str = "state") -> tuple[fem.Function, Any]:
    """Read a function on the mesh and element it was saved with: the same bits on any number of ranks. Collective.

    Returns
    -------
    Function
    object
        The metadata.

    Raises
    ------
    InputError
        On every rank, when the file is missing, damaged, of another version or of another mesh or element.
    """
    header, metadata = on_root(comm, lambda: _read_head(path, key))
    difference = _difference(path, header, space, comm, key)
    if difference:
        raise InputError(key, str(path), "a state on this mesh and element", f"It differs in {difference}.")
    function = fem.Function(space, name="density")
    wanted = np.asarray(space.mesh.topology.original_cell_index, dtype=np.int64)
    unknowns = space.dofmap.list
    for mine, rows in _rows(comm, path, "values", wanted, key):
        function.x.array[unknowns[mine]] = rows
    function.x.scatter_forward()
    return function, metadata


def read_metadata(path: Path, comm: MPI.Comm, key: str = "state") -> Any:
    """Return the metadata of a state file, None where there is no file. Collective. Raises InputError."""
    return on_root(comm, lambda: _read_head(path, key)[1] if path.exists() else None)


def matches(path: Path, space: fem.FunctionSpace, comm: MPI.Comm, key: str = "state") -> bool:
    """Tell whether a state file has this mesh and element, so that `load_state` reads it. Collective."""
    header, _ = on_root(comm, lambda: _read_head(path, key))
    return not _difference(path, header, space, comm, key)


def rebuild_state(path: Path, comm: MPI.Comm, key: str = "state") -> tuple[fem.Function, Any]:
    """Read a function together with its own mesh, distributed anew. Collective. Raises InputError on every rank."""
    header, _ = on_root(comm, lambda: _read_head(path, key))
    arrays: list[np.ndarray] = []

    def read() -> None:
        with open_archive(path, key) as archive:
            arrays.extend(np.concatenate(list(chunks(archive, name, ROWS))) for name in ("cells", "points"))

    on_root(comm, read)
    kind = ("interval", "triangle", "tetrahedron")[header.dimension - 1]
    equispaced = basix.LagrangeVariant.equispaced
    shape = basix.ufl.element("Lagrange", kind, header.geometry, equispaced, shape=(header.dimension,))
    per_cell = basix.create_element(
        basix.ElementFamily.P, basix.CellType[kind], header.geometry, equispaced
    ).dim  # fmt: skip
    cells, points = arrays or (np.empty((0, per_cell), dtype=np.int64), np.empty((0, header.dimension)))
    domain = mesh.create_mesh(
        comm, cells=cells, x=points, e=ufl.Mesh(shape), partitioner=cell_partitioner(cells, points)
    )
    element = basix.ufl.element(
        basix.ElementFamily[header.family],
        kind,
        header.degree,
        basix.LagrangeVariant[header.variant],
        discontinuous=header.discontinuous,
    )
    return load_state(path, fem.functionspace(domain, element), comm, key)


def _difference(path: Path, header: Header, space: fem.FunctionSpace, comm: MPI.Comm, key: str) -> str:
    """Return in what the space differs from the one saved, nothing if they are the same. Collective."""
    here, there = asdict(_header(space)), asdict(header)
    names = {name for name in here if name != "fingerprint" and here[name] != there[name]}
    if names:
        return ", ".join(f"{name} ({there[name]}, here {here[name]})" for name in here if name in names)
    domain = space.mesh
    same = True
    cells = _input_nodes(domain)
    for mine, rows in _rows(comm, path, "cells", np.asarray(domain.topology.original_cell_index), key):
        same = same and np.array_equal(cells[mine], rows)
    numbers, points = _own_points(domain)
    extent = _extent(domain)
    for mine, rows in _rows(comm, path, "points", numbers, key):
        same = same and bool((np.abs(points[mine] - rows) <= SAME * extent).all())
    return "" if comm.allreduce(same, op=MPI.LAND) else "the position of the cells"


def _rows(
    comm: MPI.Comm, path: Path, name: str, wanted: np.ndarray, key: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield, chunk by chunk, places in `wanted` and the rows of the array with these numbers. Collective."""
    sequence = np.argsort(wanted, kind="stable")
    ordered = wanted[sequence]
    start = 0
    source = _root_chunks(path, name, key) if comm.rank == 0 else None
    while True:
        chunk = on_root(comm, lambda: next(source) if source is not None else None)
        if chunk is None:
            return
        a, b = np.searchsorted(ordered, (start, start + len(chunk)))
        yield sequence[a:b], chunk[ordered[a:b] - start]
        start += len(chunk)


def _root_chunks(path: Path, name: str, key: str) -> Iterator[np.ndarray | None]:
    with open_archive(path, key) as archive:
        yield from chunks(archive, name, ROWS)
    yield None


def _read_head(path: Path, key: str) -> tuple[Header, Any]:
    with open_archive(path, key) as archive:
        texts = [b"".join(c.tobytes() for c in chunks(archive, name, ROWS)) for name in ("header", "metadata")]
        data = json.loads(texts[0])
        if data.pop("format") != FORMAT:
            raise ValueError("format")
        version = data.pop("version")
        if version != VERSION:
            remedy = "It was written by another version of fpsolve: repeat the run that wrote it."
            raise InputError(key, str(path), f"a state file of version {VERSION}, not {version}", remedy)
        return Header(**data), json.loads(texts[1])
