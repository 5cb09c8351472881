"""Integrals over the cells with plain arrays: any callable can be integrated, without compiling a form."""

from __future__ import annotations

from collections.abc import Callable

from mpi4py import MPI

import basix
import numpy as np
from dolfinx import fem, mesh


class CellQuadrature:
    """Points in this rank's own cells: a quadrature rule, or given points of the reference cell (then without weights).

    Attributes
    ----------
    points : ndarray, shape (cells, q, d)
    weights : ndarray, shape (cells, q)
        Including the volume element.
    """

    def __init__(self, domain: mesh.Mesh, degree: int, reference: np.ndarray | None = None) -> None:
        d = domain.topology.dim
        self.comm: MPI.Comm = domain.comm
        self.owned = domain.topology.index_map(d).size_local
        self._cell = (basix.CellType.interval, basix.CellType.triangle, basix.CellType.tetrahedron)[d - 1]
        points, weights = basix.make_quadrature(self._cell, degree)
        if reference is not None:
            points, weights = reference, np.zeros(len(reference))
        self._reference: np.ndarray = np.asarray(points)
        cmap = domain.geometry.cmap
        element = basix.create_element(
            basix.ElementFamily.P, self._cell, cmap.degree, basix.LagrangeVariant(cmap.variant)
        )
        table = np.asarray(element.tabulate(1, self._reference))[..., 0]
        nodes = domain.geometry.x[domain.geometry.dofmap[: self.owned]][:, :, :d]
        self.points = np.einsum("qn,cni->cqi", table[0], nodes)
        jacobian = np.einsum("jqn,cni->cqij", table[1:], nodes)
        self.weights = np.abs(np.linalg.det(jacobian)) * weights
        self._inverse = np.linalg.inv(jacobian)

    @property
    def flat(self) -> np.ndarray:
        """The points as one list, shape (cells*q, d)."""
        return self.points.reshape(-1, self.points.shape[2])

    def values(self, function: fem.Function) -> np.ndarray:
        """Return a scalar function at the points, shape (cells, q)."""
        space = function.function_space
        table = space.element.basix_element.tabulate(0, self._reference)[0, :, :, 0]
        return function.x.array[space.dofmap.list[: self.owned]] @ table.T

    def gradients(self, function: fem.Function) -> np.ndarray:
        """Return the gradient of a scalar function at the points, shape (cells, q, d)."""
        space = function.function_space
        table = space.element.basix_element.tabulate(1, self._reference)[1:, :, :, 0]
        local = np.einsum("cn,jqn->cqj", function.x.array[space.dofmap.list[: self.owned]], table)
        return np.einsum("cqj,cqji->cqi", local, self._inverse)

    def at(self, callable_: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Return a vectorised callable (n, d) -> (n, ...) at the points, shape (cells, q, ...)."""
        if not self.owned:  # an empty rank still needs the shape of a value
            return np.zeros((*self.weights.shape, *np.shape(callable_(np.zeros((1, self.points.shape[2]))))[1:]))
        values = np.asarray(callable_(self.flat))
        return values.reshape(*self.weights.shape, *values.shape[1:])

    def per_cell(self, values: np.ndarray) -> np.ndarray:
        """Return the integrals over the single cells of values (cells, q)."""
        return np.sum(self.weights * values, axis=1)

    def integral(self, values: np.ndarray) -> np.ndarray:
        """Return the integral over the domain of values (cells, q, ...). Collective."""
        return np.asarray(self.comm.allreduce(np.tensordot(self.weights, values, axes=2)))
