"""Reading .msh files, and the one way in which gmsh is started and stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from fpsolve.errors import FpsolveError, InputError, MissingPackage
from fpsolve.model.simplices import boundary_facets, inside_simplices, match_rows, volumes

__all__ = ["UNTAGGED", "FileMesh", "gmsh_session", "inside_simplices", "read_mesh_file"]

#: Name of all boundary facets that are in no physical group.
UNTAGGED = "untagged"
#: Set in every session, so that equal input gives equal meshes and nothing is printed.
OPTIONS = {
    "General.Terminal": 0,
    "General.AbortOnError": 2,  # errors become exceptions
    "General.NumThreads": 1,
    "Mesh.MaxNumThreads1D": 1,
    "Mesh.MaxNumThreads2D": 1,
    "Mesh.MaxNumThreads3D": 1,
    "Mesh.RandomSeed": 1,
}


@dataclass(frozen=True)
class FileMesh:
    """The simplices of a mesh file.

    Attributes
    ----------
    points : ndarray, shape (n, d)
        All nodes that a cell uses.
    cells : ndarray of int, shape (m, k)
        Nodes of each cell; the corners are the first d+1.
    lattice : ndarray of int, shape (k, d+1)
        Barycentric coordinates of the nodes in their cell, times the order.
    order : int
        Degree of the geometry.
    facets : ndarray of int, shape (b, d)
        Corners of all boundary facets, sorted.
    tags : ndarray of int, shape (b,)
        Their physical group.
    parts : dict
        Name of each group on the boundary -> its number.
    """

    points: np.ndarray
    cells: np.ndarray
    lattice: np.ndarray
    order: int
    facets: np.ndarray
    tags: np.ndarray
    parts: dict[str, int]


@contextmanager
def gmsh_session(options: dict[str, float] | None = None) -> Iterator[Any]:
    """Give the gmsh module with a new model and fixed options; not collective, for one process.

    A session that the caller's own program has open is kept, with its options and current model.

    Raises
    ------
    MissingPackage
        If gmsh cannot be imported.
    """
    try:
        import gmsh
    except (ImportError, OSError) as error:  # OSError: a shared library (libGL ...) is missing
        raise MissingPackage(f"gmsh is needed to make meshes: install gmsh and python3-gmsh ({error})") from None
    mine = not gmsh.isInitialized()
    if mine:  # signal handlers stay Python's own
        gmsh.initialize(readConfigFiles=False, interruptible=False)
    before = None if mine else gmsh.model.getCurrent()
    wanted = OPTIONS | (options or {})
    saved = {name: gmsh.option.getNumber(name) for name in wanted}
    try:
        for name, value in wanted.items():
            gmsh.option.setNumber(name, value)
        gmsh.model.add("fpsolve")
        yield gmsh
    finally:
        if mine:
            gmsh.finalize()
        else:
            gmsh.model.remove()
            for name, value in saved.items():
                gmsh.option.setNumber(name, value)
            if before is not None and before in gmsh.model.list():
                gmsh.model.setCurrent(before)


def read_mesh_file(path: str, dimension: int) -> FileMesh:
    """Read the simplices and boundary groups of a .msh file. Not collective.

    Raises
    ------
    InputError
        If the file cannot be read, has no simplices of that dimension, or cells of another kind or dimension.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(64)
    except OSError as error:
        raise InputError("domain.file", path, "a readable gmsh .msh file", str(error)) from None
    # gmsh runs any other text as a script
    if not start.lstrip().startswith(b"$MeshFormat"):
        raise InputError(
            "domain.file", path, "a gmsh .msh file, version 2 or newer", "It does not begin with $MeshFormat."
        )
    try:
        with gmsh_session() as gmsh:
            gmsh.merge(path)
            return _extract(gmsh, path, dimension)
    except FpsolveError:
        raise
    except Exception as error:  # gmsh raises plain Exception
        raise InputError("domain.file", path, "a readable gmsh .msh file", f"gmsh says: {error}") from None


def _extract(gmsh: Any, path: str, d: int) -> FileMesh:
    found = [len(np.concatenate([[], *gmsh.model.mesh.getElements(k)[1]])) for k in range(4)]
    if not any(found[1:]):
        raise InputError("domain.file", path, "a mesh with cells", "The file has none.")
    highest = max(k for k in range(4) if found[k])
    if highest != d:
        raise InputError("domain.file", path, f"a mesh of dimension {d}", f"Its cells have dimension {highest}.")
    types, _, nodes = gmsh.model.mesh.getElements(d)
    if len(types) != 1:
        raise InputError("domain.file", path, "cells of one kind and order", f"It has {len(types)} kinds.")
    order, lattice = _lattice(gmsh, path, int(types[0]), d)
    tags, coordinates, _ = gmsh.model.mesh.getNodes()
    coordinates = coordinates.reshape(-1, 3)
    order_of_tags = np.argsort(tags)
    where = order_of_tags[np.searchsorted(tags, nodes[0], sorter=order_of_tags)]
    used, cells = np.unique(where, return_inverse=True)
    cells = cells.reshape(-1, len(lattice))
    points = coordinates[used]
    if np.ptp(points[:, d:], axis=0).max(initial=0.0) > 1e-12 * np.ptp(points, axis=0).max():
        raise InputError("domain.file", path, f"nodes in {d} dimension(s)", "Further coordinates are not constant.")
    points = np.ascontiguousarray(points[:, :d])
    if not np.isfinite(points).all() or not (np.abs(volumes(points, cells[:, : d + 1])) > 0).all():
        raise InputError("domain.file", path, "cells with a positive volume and finite nodes")
    number = np.full(len(tags), -1)
    number[used] = np.arange(len(used))
    facets, _ = boundary_facets(cells[:, : d + 1])
    values, parts = _groups(gmsh, path, d, facets, tags, order_of_tags, number)
    return FileMesh(points, cells, lattice, order, facets, values, parts)


def _lattice(gmsh: Any, path: str, kind: int, d: int) -> tuple[int, np.ndarray]:
    """Return order and barycentric lattice of an element type of gmsh."""
    name, _, order, count, local, corners = gmsh.model.mesh.getElementProperties(kind)
    coordinates: np.ndarray = np.array(local).reshape(count, d)
    if d == 1:
        coordinates = (coordinates + 1) / 2  # gmsh's reference interval is (-1, 1)
    lattice = np.hstack([1 - coordinates.sum(axis=1, keepdims=True), coordinates]) * order
    whole = np.rint(lattice).astype(int)
    complete = (
        count == {1: order + 1, 2: (order + 1) * (order + 2) // 2, 3: (order + 1) * (order + 2) * (order + 3) // 6}[d]
    )
    if corners != d + 1 or not complete or np.abs(lattice - whole).max() > 1e-6:
        raise InputError(
            "domain.file", path, "lines, triangles or tetrahedra as cells", f"It has cells of type {name}."
        )
    return int(order), whole


def _groups(
    gmsh: Any, path: str, d: int, facets: np.ndarray, tags: np.ndarray, sorter: np.ndarray, number: np.ndarray
) -> tuple[np.ndarray, dict[str, int]]:
    """Return the group of each boundary facet and the names of the groups."""
    values = np.zeros(len(facets), dtype=np.int32)
    parts: dict[str, int] = {}
    largest = 0
    for _, group in gmsh.model.getPhysicalGroups(d - 1):
        largest = max(largest, group)
        name = gmsh.model.getPhysicalName(d - 1, group) or str(group)
        tag = parts.get(name, int(group))  # groups of one name are one part
        for entity in gmsh.model.getEntitiesForPhysicalGroup(d - 1, group):
            kinds, _, nodes = gmsh.model.mesh.getElements(d - 1, entity)
            for kind, list_of_nodes in zip(kinds, nodes, strict=True):
                count = gmsh.model.mesh.getElementProperties(kind)[3]
                corners = list_of_nodes.reshape(-1, count)[:, :d]
                rows = np.sort(number[sorter[np.searchsorted(tags, corners, sorter=sorter)]], axis=1)
                at = match_rows(rows, facets)
                at = at[at >= 0]  # groups inside the domain do not matter here
                if np.any((values[at] != 0) & (values[at] != tag)):
                    raise InputError(
                        "domain.file",
                        path,
                        "every boundary facet in at most one group",
                        f"'{name}' overlaps with another.",
                    )
                values[at] = tag
                if len(at):
                    parts[name] = tag
    if np.any(values == 0):
        parts[UNTAGGED] = largest + 1
        values[values == 0] = largest + 1
    return values, parts
