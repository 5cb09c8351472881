"""Values at points, in parallel: which cell holds a point and the functional v -> v(x)."""

from __future__ import annotations

from dataclasses import dataclass

from petsc4py import PETSc

import numpy as np
from dolfinx import fem, geometry, mesh

#: How far outside its reference cell (in barycentric coordinates) a point may lie: rounding, curved edges.
OUTSIDE = 1e-7


@dataclass(frozen=True)
class Location:
    """Where points lie; every point belongs to exactly one rank.

    Attributes
    ----------
    points : ndarray, shape (n, d)
    mine : ndarray of int
        The numbers of the points that this rank evaluates.
    cells : ndarray of int32
        The local cell of each of these.
    reference : ndarray, shape (len(mine), d)
        Their coordinates in the reference cell.
    found : ndarray of bool, shape (n,)
        Whether any rank has the point; the same on all ranks.
    """

    points: np.ndarray
    mine: np.ndarray
    cells: np.ndarray
    reference: np.ndarray
    found: np.ndarray


def locate(domain: mesh.Mesh, points: np.ndarray) -> Location:
    """Find the cells of `points` (n, d), the same list on every rank. Collective.

    A point on a facet goes to the cell with the smallest number in the mesh's original order, so
    that the answer does not depend on the number of ranks.
    """
    points = np.asarray(points, dtype=float)
    d = domain.topology.dim
    padded = np.zeros((len(points), 3))
    padded[:, :d] = points
    owned = domain.topology.index_map(d).size_local
    tree = geometry.bb_tree(domain, d, padding=1e-10) if owned else None
    best = np.full((len(points), 2), np.inf)
    cells = np.full(len(points), -1, dtype=np.int32)
    reference = np.zeros((len(points), d))
    if tree is not None:
        candidates = geometry.compute_collisions_points(tree, padded)
        for k in range(len(points)):
            for cell in candidates.links(k):
                if cell >= owned:
                    continue
                X, outside = _pull_back(domain, int(cell), padded[k])
                rank = (max(outside, OUTSIDE), float(domain.topology.original_cell_index[cell]))
                if rank < tuple(best[k]):
                    best[k], cells[k], reference[k] = rank, cell, X
    every = np.array(domain.comm.allgather(best))  # (ranks, n, 2)
    outside = every[:, :, 0].min(axis=0)
    numbers = np.where(every[:, :, 0] == outside, every[:, :, 1], np.inf).min(axis=0)
    found = outside <= 1e-3
    own = found & (cells >= 0) & (best[:, 0] == outside) & (best[:, 1] == numbers)
    mine = np.flatnonzero(own)
    return Location(points, mine, cells[mine], reference[mine], found)


def _pull_back(domain: mesh.Mesh, cell: int, x: np.ndarray) -> tuple[np.ndarray, float]:
    """Return reference coordinates and by how much they lie outside the reference simplex."""
    d = domain.topology.dim
    nodes = domain.geometry.x[domain.geometry.dofmap[cell]][:, :d]
    try:
        X = domain.geometry.cmap.pull_back(x[None, :d].copy(), nodes)[0]
    except RuntimeError:  # Newton's method far outside a curved cell
        return np.zeros(d), np.inf
    return X, float(max(-X.min(), X.sum() - 1.0, 0.0))


def basis_values(space: fem.FunctionSpace, location: Location) -> tuple[np.ndarray, np.ndarray]:
    """Return the unknowns' local numbers and basis values at this rank's points, shape (len(mine), n_basis)."""
    element = space.element.basix_element
    if not len(location.mine):
        return np.zeros((0, element.dim), dtype=np.int32), np.zeros((0, element.dim))
    table = element.tabulate(0, location.reference)[0, :, :, 0]
    return space.dofmap.list[location.cells], table


def evaluate(function: fem.Function, location: Location) -> np.ndarray:
    """Return the values at all points, the same on every rank; nan where not found. Collective."""
    unknowns, table = basis_values(function.function_space, location)
    values = np.zeros(len(location.points))
    values[location.mine] = np.sum(function.x.array[unknowns] * table, axis=1)
    values = function.function_space.mesh.comm.allreduce(values)
    return np.where(location.found, values, np.nan)


def functional(space: fem.FunctionSpace, location: Location, k: int, like: PETSc.Vec) -> PETSc.Vec:
    """Return the vector e with e·u = u(point k), over the whole space, laid out as `like`. Collective."""
    vector = like.duplicate()
    vector.set(0.0)
    unknowns, table = basis_values(space, location)
    for row in np.flatnonzero(location.mine == k):
        numbers = space.dofmap.index_map.local_to_global(unknowns[row])
        vector.setValues(numbers.astype(PETSc.IntType), table[row], addv=PETSc.InsertMode.ADD)
    vector.assemble()
    return vector
