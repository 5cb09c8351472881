"""Integrals ``∫ g φ_i`` and ``∫ g u`` of a function g known by its values, smooth or with jumps.

Everything is NumPy on arrays of cells: nothing is compiled, whatever g is. A density ρ with coefficients
``ρ_i`` has ``∫ g ρ = Σ_i ρ_i ∫ g φ_i``, so a functional that is asked for many times is one vector. Where g
jumps or bends inside a cell (balls, basins of attraction, cut-off functions), the cell is divided into parts
until g is smooth in each of them or they are tiny.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from mpi4py import MPI
from petsc4py import PETSc

import basix
import numpy as np
from dolfinx import fem, la, mesh

from fpsolve.fem.boundary import Boundary
from fpsolve.fem.curved import CELLS
from fpsolve.fem.generator import Generator

Scalar = Callable[[np.ndarray], np.ndarray]

#: Cells that are worked on together; bounds the memory.
CHUNK = 10_000
#: How often a cell may be halved where g jumps, by dimension.
DEPTH = {1: 30, 2: 6, 3: 3}
#: A part of a cell counts as resolved when quadratic polynomials fit g there up to this part of max |g|.
RESOLVED = 1e-3
#: Parts on one rank beyond which no more are made, relative to its cells: for g that is rough everywhere.
BUDGET = 30


@dataclass(frozen=True)
class Patch:
    """Quadrature points in cells or in simplicial parts of cells.

    Attributes
    ----------
    cells : ndarray of int, shape (n,)
        Local numbers; a cell appears once for each of its parts.
    reference : ndarray, shape (q, d) or (n, q, d)
        Points in the reference cell; common to all cells where they are whole.
    x : ndarray, shape (n, q, d)
    weights : ndarray, shape (n, q)
        Including the Jacobian: they sum up to the volume.
    """

    cells: np.ndarray
    reference: np.ndarray
    x: np.ndarray
    weights: np.ndarray

    def part(self, rows: np.ndarray) -> Patch:
        """Return the patch of some of its rows."""
        reference = self.reference if self.reference.ndim == 2 else self.reference[rows]
        return Patch(self.cells[rows], reference, self.x[rows], self.weights[rows])

    def basis(self, space: fem.FunctionSpace) -> np.ndarray:
        """Return the basis functions of each cell at the points, shape (q, k) or (n, q, k)."""
        d = self.x.shape[2]
        if not self.reference.size:  # basix aborts on no points
            return np.zeros((*self.reference.shape[:-1], space.element.basix_element.dim))
        table = space.element.basix_element.tabulate(0, self.reference.reshape(-1, d))[0, :, :, 0]
        return np.asarray(table).reshape(*self.reference.shape[:-1], table.shape[-1])

    def values(self, function: fem.Function) -> np.ndarray:
        """Return a finite-element function at the points, shape (n, q)."""
        space = function.function_space
        return _apply(self.basis(space), function.x.array[space.dofmap.list[self.cells]])


def _apply(table: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Return values (n, q) of coefficients (n, k) with a table (q, k) or (n, q, k)."""
    return coefficients @ table.T if table.ndim == 2 else np.einsum("nqk,nk->nq", table, coefficients)


def patch(domain: mesh.Mesh, cells: np.ndarray, degree: int, corners: np.ndarray | None = None) -> Patch:
    """Return the points of a quadrature of this degree in whole cells or in parts of them.

    Parameters
    ----------
    cells : ndarray of int, shape (n,)
    degree : int
    corners : ndarray, shape (n, d + 1, d), optional
        Corners of one part of each cell in reference coordinates.
    """
    d = domain.topology.dim
    points, weights = basix.make_quadrature(CELLS[d - 1], degree)
    reference, scale = np.asarray(points), np.ones((1, 1))
    if corners is not None:
        edges = corners[:, 1:] - corners[:, :1]
        reference = corners[:, :1] + reference @ edges
        scale = np.abs(np.linalg.det(edges))[:, None]
    x, jacobian = cell_map(domain, cells, reference)
    return Patch(cells, reference, x, np.abs(np.linalg.det(jacobian)) * scale * weights)


def cell_map(domain: mesh.Mesh, cells: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return images (n, q, d) of reference points and ``∂x_j/∂X_k`` as [n, q or 1, k, j]."""
    d = domain.topology.dim
    cmap = domain.geometry.cmap
    nodes = domain.geometry.x[domain.geometry.dofmap[cells]][:, :, :d]
    if cmap.degree == 1:
        jacobian = nodes[:, 1:] - nodes[:, :1]
        return nodes[:, :1] + reference @ jacobian, jacobian[:, None]
    element = basix.create_element(
        basix.ElementFamily.P, CELLS[d - 1], cmap.degree, basix.LagrangeVariant(cmap.variant)
    )
    table = np.asarray(element.tabulate(1, reference.reshape(-1, d)))[..., 0]
    table = table.reshape(1 + d, *reference.shape[:-1], -1)
    if reference.ndim == 2:
        return np.einsum("qm,nmj->nqj", table[0], nodes), np.einsum("kqm,nmj->nqkj", table[1:], nodes)
    return np.einsum("nqm,nmj->nqj", table[0], nodes), np.einsum("knqm,nmj->nqkj", table[1:], nodes)


def owned_cells(domain: mesh.Mesh) -> Iterator[np.ndarray]:
    """Yield this rank's own cells in chunks."""
    count = domain.topology.index_map(domain.topology.dim).size_local
    for start in range(0, count, CHUNK):
        yield np.arange(start, min(start + CHUNK, count))


def whole_cells(domain: mesh.Mesh, degree: int) -> Iterator[Patch]:
    """Yield the quadrature points of a degree in all of this rank's cells."""
    for cells in owned_cells(domain):
        yield patch(domain, cells, degree)


def at_points(function: Scalar, x: np.ndarray) -> np.ndarray:
    """Evaluate a callable (n, d) -> (n,) at points of shape (..., d)."""
    return np.asarray(function(x.reshape(-1, x.shape[-1]))).reshape(x.shape[:-1])


class Loads:
    """Vectors ``∫ g_k φ_i`` over a whole space, summed up patch by patch.

    Parameters
    ----------
    space : FunctionSpace
        Scalar Lagrange elements.
    count : int
        The number of functions g.
    """

    def __init__(self, space: fem.FunctionSpace, count: int) -> None:
        self.space = space
        self.vectors = [la.vector(space.dofmap.index_map, 1, dtype=np.float64) for _ in range(count)]

    def add(self, k: int, points: Patch, values: np.ndarray) -> None:
        """Add the integrals of g_k, given by its values (n, q) at the points."""
        table, weighted = points.basis(self.space), points.weights * values
        parts = weighted @ table if table.ndim == 2 else np.einsum("nqk,nq->nk", table, weighted)
        unknowns = self.space.dofmap.list[points.cells].ravel()
        array = self.vectors[k].array
        array += np.bincount(unknowns, parts.ravel(), minlength=len(array))

    def finish(self) -> list[PETSc.Vec]:
        """Return the vectors over the space's unknowns. Collective."""
        local = self.space.dofmap.index_map.size_local
        result = []
        for vector in self.vectors:
            vector.scatter_reverse(la.InsertMode.add)
            values = vector.array[:local].copy()
            result.append(PETSc.Vec().createWithArray(values, size=(local, None), comm=self.space.mesh.comm))
        return result


def load(
    space: fem.FunctionSpace,
    boundary: Boundary,
    degree: int,
    function: Scalar,
    quadrature_degree: int | None = None,
) -> PETSc.Vec:
    """Return ``∫ g φ_i`` over the whole space for a smooth g. Collective.

    Parameters
    ----------
    space : FunctionSpace
        Scalar Lagrange elements, continuous or not.
    boundary : Boundary
        Not needed, the integral runs over the whole domain; taken because all assembly functions take it.
    degree : int
        Of the elements.
    function : callable, (n, d) -> (n,)
    quadrature_degree : int, optional
        2 degree + 4 by default: exact for polynomials g of degree `degree` + 4 on straight cells.

    Returns
    -------
    PETSc.Vec
        To be restricted to the free unknowns with `Generator.restrict`, and destroyed, by the caller.
    """
    return loads(space, degree, [function], quadrature_degree)[0]


def loads(
    space: fem.FunctionSpace, degree: int, functions: Sequence[Scalar], quadrature_degree: int | None = None
) -> list[PETSc.Vec]:
    """Return ``∫ g_k φ_i`` for several smooth g_k; see `load`. Collective."""
    sums = Loads(space, len(functions))
    for points in whole_cells(space.mesh, quadrature_degree or 2 * degree + 4):
        for k, function in enumerate(functions):
            sums.add(k, points, at_points(function, points.x))
    return sums.finish()


def expectation_loads(generator: Generator, functions: Sequence[Scalar]) -> list[PETSc.Vec]:
    """Return what a density of the generator's scheme is multiplied with for ∫ gρ, over the whole space. Collective.

    ``∫ g φ_i``; for "sg" ``m_i g(x_i)``, the expectation of g in the chain on the nodes, whose stationary law is
    exactly the Gibbs law on the nodes.
    """
    space = generator.space
    if generator.scheme != "sg":
        return loads(space, generator.degree, functions)
    nodes = space.tabulate_dof_coordinates()[: space.dofmap.index_map.size_local, : space.mesh.geometry.dim]
    vectors = loads(space, generator.degree, [lambda x: np.ones(len(x))] * len(functions))
    for vector, function in zip(vectors, functions, strict=True):
        vector.getArray()[:] *= at_points(function, nodes)
    return vectors


def region_loads(
    space: fem.FunctionSpace, degree: int, labels: Scalar, count: int, depth: int | None = None
) -> list[PETSc.Vec]:
    """Return ``∫_{labels = k} φ_i`` for k = 0 … count - 1. Collective.

    Parameters
    ----------
    degree : int
        Of the elements.
    labels : callable, (n, d) -> (n,) of int
        In which region a point lies, any other number outside of all. Regions that are thinner than the cells
        may be missed: a cell is divided only if its vertices and the midpoints of its edges are not all in one
        region.
    depth : int, optional
        How often a cell is halved at interfaces; `DEPTH` by default.
    """
    sums = Loads(space, count)
    for points, values in _by_region(
        space.mesh, labels, degree, DEPTH[space.mesh.topology.dim] if depth is None else depth
    ):
        for k in np.unique(values[(values >= 0) & (values < count)]):
            sums.add(int(k), points, (values == k).astype(float))
    return sums.finish()


def integrate(function: fem.Function, g: Scalar, degree: int | None = None, depth: int | None = None) -> float:
    """Return ``∫ g u`` for a finite-element function u and any bounded, piecewise smooth g. Collective.

    See `integrate_with_error`.
    """
    return integrate_with_error(function, g, degree, depth)[0]


def integrate_with_error(
    function: fem.Function, g: Scalar, degree: int | None = None, depth: int | None = None
) -> tuple[float, float]:
    """Return ``∫ g u`` and an estimate of the quadrature error. Collective.

    Parameters
    ----------
    function : dolfinx Function
        u, of scalar Lagrange elements.
    g : callable, (n, d) -> (n,)
        Features smaller than the distance of the quadrature points (about a quarter of a cell) may be missed.
    degree : int, optional
        Of the quadrature in each part; 2p + 4 by default, p the degree of u.
    depth : int, optional
        How often a cell may be halved; `DEPTH` by default.

    Returns
    -------
    value, error : float
        The same on every rank. The error holds what is not resolved in the smallest parts: three times the
        root of the sum of squares over them, because the errors of the parts that an interface cuts are of
        either sign.
    """
    space = function.function_space
    domain = space.mesh
    degree = 2 * space.element.basix_element.degree + 4 if degree is None else degree
    total = np.zeros(2)
    for points, values, misfit in _adapted(domain, g, degree, DEPTH[domain.topology.dim] if depth is None else depth):
        u = points.values(function)
        total[0] += np.sum(points.weights * values * u)
        total[1] += np.sum((np.sum(points.weights * np.abs(u), axis=1) * misfit) ** 2)
    total = domain.comm.allreduce(total)
    return float(total[0]), 3.0 * float(np.sqrt(total[1]))


def _adapted(domain: mesh.Mesh, g: Scalar, degree: int, depth: int) -> Iterator[tuple[Patch, np.ndarray, np.ndarray]]:
    """Yield patches in which g is resolved, its values, and its misfit; see `RESOLVED`. Collective."""
    d = domain.topology.dim
    degree = max(degree, 10) if d == 1 else max(degree, 6)  # enough points to tell a jump from a quadratic
    rest = _misfit_of_quadratics(d, degree)
    top = max((float(np.abs(at_points(g, p.x)).max(initial=0.0)) for p in whole_cells(domain, degree)), default=0.0)
    top = domain.comm.allreduce(top, op=MPI.MAX)
    count = domain.topology.index_map(d).size_local
    pending = [(cells, _unit(d, len(cells))) for cells in owned_cells(domain)]
    for level in range(depth + 1):
        last = level == depth or (level > 0 and sum(len(c) for c, _ in pending) > BUDGET * (count + 1000))
        divided = []
        for cells, corners in pending:
            points = patch(domain, cells, degree, None if level == 0 else corners)
            values = at_points(g, points.x)
            # an interface may pass between the points and the boundary of the cell
            lattice = corners[:, :1] + _lattice(d) @ (corners[:, 1:] - corners[:, :1])
            more = at_points(g, cell_map(domain, cells, lattice)[0])
            misfit = np.sqrt(np.mean((np.concatenate([values, more], axis=1) @ rest) ** 2, axis=1))
            done = np.full(len(cells), True) if last else misfit <= RESOLVED * top
            yield points.part(done), values[done], misfit[done]
            if not done.all():
                divided += _in_chunks(np.repeat(cells[~done], 2**d), _children(corners[~done]))
        pending = divided


def _lattice(d: int) -> np.ndarray:
    """Return points of the reference simplex, most of them on its boundary."""
    return np.asarray(basix.create_lattice(CELLS[d - 1], 4 if d < 3 else 3, basix.LatticeType.equispaced, True))


def _misfit_of_quadratics(d: int, degree: int) -> np.ndarray:
    """Return the projection that removes quadratics from values (rows) at the quadrature points and the lattice."""
    points = np.asarray(basix.make_quadrature(CELLS[d - 1], degree)[0])
    x = np.concatenate([points, _lattice(d)])
    powers = [np.ones(len(x)), *x.T, *(x[:, i] * x[:, j] for i in range(d) for j in range(i + 1))]
    q = np.linalg.qr(np.column_stack(powers))[0]
    return np.eye(len(x)) - q @ q.T


def _by_region(domain: mesh.Mesh, labels: Scalar, degree: int, depth: int) -> Iterator[tuple[Patch, np.ndarray]]:
    """Yield patches that lie in one region, or are as small as possible, with the labels of their points."""
    d = domain.topology.dim
    ends = np.array(list(combinations(range(d + 1), 2)))
    pending = [(cells, _unit(d, len(cells)), _vertex_labels(domain, cells, labels)) for cells in owned_cells(domain)]
    for level in range(depth + 1):
        divided = []
        for cells, corners, at_corners in pending:
            halves = cell_map(domain, cells, corners[:, ends].mean(axis=2))[0]
            at_halves = _edge_labels(domain, cells, halves, labels) if level == 0 else at_points(labels, halves)
            known = np.column_stack([at_corners, at_halves])
            one = (known == known[:, :1]).all(axis=1)
            points = patch(domain, cells[one], degree, None if level == 0 else corners[one])
            yield points, np.broadcast_to(known[one, :1], points.weights.shape)
            cells, corners, known = cells[~one], corners[~one], known[~one]
            if not len(cells):
                continue
            if level == depth:
                points = patch(domain, cells, max(degree, 4), corners)
                yield points, at_points(labels, points.x)
            else:
                at_children = known[:, DIVISION[d]].reshape(-1, d + 1)
                divided += _in_chunks(np.repeat(cells, 2**d), _children(corners), at_children)
        pending = divided


def _vertex_labels(domain: mesh.Mesh, cells: np.ndarray, labels: Scalar) -> np.ndarray:
    """Return the labels at the vertices of each cell, each vertex evaluated once."""
    d = domain.topology.dim
    vertices, inverse = np.unique(domain.geometry.dofmap[cells][:, : d + 1], return_inverse=True)
    return at_points(labels, domain.geometry.x[vertices][:, :d])[inverse.reshape(-1, d + 1)]


def _edge_labels(domain: mesh.Mesh, cells: np.ndarray, halves: np.ndarray, labels: Scalar) -> np.ndarray:
    """Return the labels at the midpoints (n, k, d) of the edges of each cell, each edge evaluated once."""
    d = domain.topology.dim
    ends = np.sort(domain.geometry.dofmap[cells][:, list(combinations(range(d + 1), 2))].astype(np.int64), axis=2)
    names = ends[..., 0] * len(domain.geometry.x) + ends[..., 1]
    _, first, inverse = np.unique(names, return_index=True, return_inverse=True)
    return at_points(labels, halves.reshape(-1, d)[first])[inverse.reshape(names.shape)]


def _unit(d: int, count: int) -> np.ndarray:
    """Return the reference simplex `count` times."""
    return np.broadcast_to(np.asarray(basix.geometry(CELLS[d - 1])), (count, d + 1, d))


#: Children of a simplex, each given by d + 1 of its vertices 0 … d and edge midpoints (edges in the order of
#: `itertools.combinations`): regular ("red") refinement, in three dimensions after Bey (1995).
DIVISION = {
    1: np.array([[0, 2], [2, 1]]),
    2: np.array([[0, 3, 4], [3, 1, 5], [4, 5, 2], [3, 4, 5]]),
    3: np.array(
        [[0, 4, 5, 6], [4, 1, 7, 8], [5, 7, 2, 9], [6, 8, 9, 3], [4, 5, 6, 8], [4, 5, 7, 8], [5, 6, 8, 9], [5, 7, 8, 9]]
    ),
}


def _children(corners: np.ndarray) -> np.ndarray:
    """Return the 2^d children of simplices (n, d + 1, d), shape (n 2^d, d + 1, d)."""
    d = corners.shape[2]
    ends = np.array(list(combinations(range(d + 1), 2)))
    points = np.concatenate([corners, corners[:, ends].mean(axis=2)], axis=1)
    return points[:, DIVISION[d]].reshape(-1, d + 1, d)


def _in_chunks(*arrays: np.ndarray) -> list[Any]:
    """Return tuples of corresponding pieces of the arrays."""
    return [tuple(a[start : start + CHUNK] for a in arrays) for start in range(0, len(arrays[0]), CHUNK)]
