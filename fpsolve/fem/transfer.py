"""The transfer operator of a chain on a mesh: ``(Pu)(θ) = Σ_j w_j u(θ + z_j(θ))`` collocated at the nodes.

u is a continuous piecewise polynomial inside the domain and 0 outside (the chain has left): it jumps at the boundary,
which the domain's own geometry resolves step by step, whatever the mesh. A row of P holds the weighted basis functions
at the points that one step leads to. Inside a cell they sum to 1, so row sum + probability to leave is 1. Linear
elements with nonnegative coordinates make P a (sub-)stochastic matrix, its transpose a forward operator that keeps
masses nonnegative and, with "no-flux", their sum.

Linear interpolation adds the covariance ``V = Σ_a λ_a v_a v_aᵀ - y yᵀ`` (v_a the vertices, y the point) to each step.
With `compensate`, steps are contracted so that step and interpolation together have the chain's own covariance: no
artificial diffusion while the cells are small beside the steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mpi4py import MPI
from petsc4py import PETSc

import numba
import numpy as np
from scipy.sparse import csr_array, vstack

from fpsolve.errors import InputError
from fpsolve.fem.gaussian_steps import CellQuadrature, quadrature_rows
from fpsolve.fem.nodal import NodalSpace, shape_functions
from fpsolve.fem.parallel import agree
from fpsolve.model.batches import Batches, transport
from fpsolve.model.domains import Domain

#: Points in flight: rows × steps, and rows × samples.
CHUNK = 300_000
#: Contractions of the steps; each leaves a small part of the defect of the one before.
CONTRACTIONS = 3
#: The largest matrix, in entries on one rank.
MAX_ENTRIES = 400_000_000


@dataclass(frozen=True)
class Rows:
    """Rows of P at some points.

    Attributes
    ----------
    matrix : csr_array, shape (n, unknowns)
    killed : ndarray, shape (n,)
        The probability that the step leads out of the domain; 0 with "no-flux".
    excess : ndarray, shape (n,)
        Trace of the covariance of a step including interpolation, relative to the chain's own, minus 1; nan where not
        compensated.
    """

    matrix: csr_array
    killed: np.ndarray
    excess: np.ndarray


def transfer_rows(
    space: NodalSpace, domain: Domain, batches: Batches | CellQuadrature, x: np.ndarray,
    boundary: str = "absorbing", compensate: bool = False,
) -> Rows:  # fmt: skip
    """Return the rows of P at points x (n, d). Not collective.

    Parameters
    ----------
    boundary : "absorbing" or "no-flux"
        Whether a step out of the domain ends the chain or is shortened to the domain's edge (the next cell).
    compensate : bool
        For linear elements: no artificial diffusion.

    A `CellQuadrature` has an absorbing boundary and nothing to compensate.
    """
    if isinstance(batches, CellQuadrature):
        matrix = quadrature_rows(space, batches, x)
        return Rows(matrix, 1.0 - matrix.sum(axis=1), np.full(len(x), np.nan))
    parts = list(_chunks(space, domain, batches, x, boundary, compensate))
    if not parts:
        empty = np.empty(0)
        return Rows(csr_array((0, space.unknowns)), empty, empty)
    return Rows(
        vstack([part.matrix for part in parts], format="csr"),
        np.concatenate([part.killed for part in parts]),
        np.concatenate([part.excess for part in parts]),
    )


def _chunks(
    space: NodalSpace, domain: Domain, batches: Batches, x: np.ndarray, boundary: str, compensate: bool
) -> Iterator[Rows]:
    width = max(1, CHUNK // (batches.count + (batches.chain.samples or 0)))
    entries = 0
    for start in range(0, len(x), width):
        rows = _some_rows(space, domain, batches, x[start : start + width], boundary, compensate)
        entries += rows.matrix.nnz
        if entries > MAX_ENTRIES:
            remedy = f"The matrix has over {entries:.0e} entries; use a larger size or fewer unknowns."
            raise InputError("mesh.size", f"{space.unknowns} unknowns", "fewer unknowns", remedy)
        yield rows


def _some_rows(
    space: NodalSpace, domain: Domain, batches: Batches, x: np.ndarray, boundary: str, compensate: bool
) -> Rows:
    return rows_of_steps(space, domain, x, batches.steps(x), batches.weights, boundary, compensate)


def rows_of_steps(
    space: NodalSpace, domain: Domain, x: np.ndarray, steps: np.ndarray, weights: np.ndarray,
    boundary: str = "absorbing", compensate: bool = False,
) -> Rows:  # fmt: skip
    """Return the rows for steps (n, J, d) from points x (n, d) with weights (J,). Not collective.

    Raises
    ------
    InputError
        If a step is not finite, unless the chain has just left then (absorbing, not compensated).
    """
    finite = np.isfinite(steps).all(axis=(1, 2))
    if not finite.all() and (boundary == "no-flux" or compensate):
        point = x[np.argmin(finite)].tolist()
        raise InputError("domain", point, "a domain in which gradient and covariance of the loss are finite")
    cells = _cells(space, domain, x, steps, boundary)
    excess = np.full(len(x), np.nan)
    if compensate:
        own = _covariance(steps, weights)
        mean = np.einsum("nki,k->ni", steps, weights)[:, None]
        added, left = _accumulate(space, x, steps, cells, weights, True)[3], own
        for _ in range(CONTRACTIONS):
            steps = mean + (steps - mean) @ transport(left, _nonnegative(own - added))
            # whether the chain has left is decided by its own steps
            cells = np.where(cells >= 0, _flat_nearest(space, x, steps), -1)
            offsets, indices, entries, added = _accumulate(space, x, steps, cells, weights, True)
            left = _covariance(steps, weights)
        trace = np.trace(own, axis1=1, axis2=2)
        excess = np.trace(left + added, axis1=1, axis2=2) / np.maximum(trace, 1e-300) - 1
    else:
        offsets, indices, entries, _ = _accumulate(space, x, steps, cells, weights, False)
    matrix = csr_array((entries, indices, offsets), shape=(len(x), space.unknowns))
    matrix.sort_indices()
    return Rows(matrix, (cells < 0) @ weights, excess)


def _covariance(steps: np.ndarray, weights: np.ndarray) -> np.ndarray:
    centred = steps - np.einsum("nki,k->ni", steps, weights)[:, None]
    return np.asarray((centred * weights[:, None]).swapaxes(1, 2) @ centred)


def _nonnegative(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.maximum(values, 0.0)[:, None, :]) @ vectors.swapaxes(1, 2))


def _flat_nearest(space: NodalSpace, x: np.ndarray, steps: np.ndarray) -> np.ndarray:
    return space.nearest((x[:, None] + steps).reshape(-1, x.shape[1])).reshape(steps.shape[:2])


def _cells(space: NodalSpace, domain: Domain, x: np.ndarray, steps: np.ndarray, boundary: str) -> np.ndarray:
    """Return the cell that each step leads to, -1 for out of the domain, shape (n, J)."""
    if boundary == "no-flux":
        return _flat_nearest(space, x, steps)
    targets = (x[:, None] + steps).reshape(-1, x.shape[1])
    finite = np.isfinite(targets).all(axis=1)
    targets = np.where(finite[:, None], targets, x.mean(axis=0))
    cells = space.holding(targets, domain)
    return np.where(finite, cells, -1).reshape(steps.shape[:2])


def _accumulate(
    space: NodalSpace, x: np.ndarray, steps: np.ndarray, cells: np.ndarray, weights: np.ndarray, spread: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return offsets, column numbers and entries of the rows, and what interpolation adds to the covariance."""
    n, count = cells.shape
    d = x.shape[1]
    bound = n * min(space.unknowns, count * len(space.lattice))
    offsets, indices, entries = np.zeros(n + 1, dtype=np.int64), np.empty(bound, dtype=np.int32), np.empty(bound)
    added = np.zeros((n, d, d))
    locator = space.locator
    _fill(
        x, steps, cells, weights, locator.origin, locator.inverse, space.lattice, space.degree, space.cells,
        space.nodes, spread, np.zeros(space.unknowns), np.full(space.unknowns, -1), offsets, indices, entries, added,
    )  # fmt: skip
    return offsets, indices[: offsets[-1]].copy(), entries[: offsets[-1]].copy(), added


@numba.njit(cache=True, nogil=True)
def _fill(
    x: Any, steps: Any, cells: Any, weights: Any, origin: Any, inverse: Any, lattice: Any, degree: int, dofs: Any,
    nodes: Any, spread: bool, work: Any, owner: Any, offsets: Any, indices: Any, entries: Any, added: Any,
) -> None:  # fmt: skip
    d = x.shape[1]
    width = lattice.shape[0]
    local, factors, values = np.empty(d + 1), np.empty((d + 1, degree + 1)), np.empty(width)
    target, point, edge = np.empty(d), np.empty(d), np.empty(d)
    free = 0
    for row in range(cells.shape[0]):
        begin = free
        for k in range(cells.shape[1]):
            c = cells[row, k]
            if c < 0:
                continue
            for i in range(d):
                target[i] = x[row, i] + steps[row, k, i]
            shape_functions(target, origin[c], inverse[c], lattice, degree, degree == 1, local, factors, values)
            for a in range(width):
                column = dofs[c, a]
                if owner[column] != row:
                    owner[column] = row
                    work[column] = 0.0
                    indices[free] = column
                    free += 1
                work[column] += weights[k] * values[a]
            if spread:
                # V = Σ_a λ_a e_a e_aᵀ - y yᵀ with e_a and y = Σ_a λ_a e_a relative to the first vertex
                for i in range(d):
                    point[i] = 0.0
                for a in range(1, width):
                    share = weights[k] * values[a]
                    for i in range(d):
                        edge[i] = nodes[dofs[c, a], i] - nodes[dofs[c, 0], i]
                        point[i] += values[a] * edge[i]
                        for j in range(i + 1):
                            added[row, i, j] += share * edge[i] * edge[j]
                for i in range(d):
                    for j in range(i + 1):
                        added[row, i, j] -= weights[k] * point[i] * point[j]
        for i in range(d):
            for j in range(i):
                added[row, j, i] = added[row, i, j]
        for e in range(begin, free):
            entries[e] = work[indices[e]]
        offsets[row + 1] = free


class TransferOperator:
    """P on all nodes, distributed by rows. Collective.

    Parameters
    ----------
    space, domain, batches, boundary, compensate
        See `transfer_rows`.
    comm : MPI.Comm

    Attributes
    ----------
    matrix : PETSc.Mat
        P, AIJ.
    killed, excess : ndarray, shape (unknowns,)
        As in `Rows`, of all rows, on every rank.
    """

    def __init__(
        self, space: NodalSpace, domain: Domain, batches: Batches | CellQuadrature, comm: MPI.Comm,
        boundary: str = "absorbing", compensate: bool = False,
    ) -> None:  # fmt: skip
        self.space, self.comm = space, comm
        n = space.unknowns
        cuts = [n * rank // comm.size for rank in range(comm.size + 1)]
        self.own = slice(cuts[comm.rank], cuts[comm.rank + 1])
        error: BaseException | None = None
        try:
            rows = transfer_rows(space, domain, batches, space.nodes[self.own], boundary, compensate)
        except Exception as failure:
            error = failure
        agree(comm, error)
        csr = rows.matrix
        local = self.own.stop - self.own.start
        arrays = (csr.indptr.astype(PETSc.IntType), csr.indices.astype(PETSc.IntType), csr.data)
        self.matrix = PETSc.Mat().createAIJ(((local, n), (local, n)), csr=arrays, comm=comm)
        self.entries = int(comm.allreduce(csr.nnz))
        self.killed = np.concatenate(comm.allgather(rows.killed))
        self.excess = np.concatenate(comm.allgather(rows.excess))

    def vector(self, values: np.ndarray | float) -> PETSc.Vec:
        """Return a distributed vector of values (unknowns,) known on every rank, or of one number."""
        result = self.matrix.createVecRight()
        result.setArray(np.broadcast_to(values, self.space.unknowns)[self.own])
        return result

    def everywhere(self, vector: PETSc.Vec) -> np.ndarray:
        """Return the entries of a distributed vector on every rank. Collective."""
        return np.concatenate(self.comm.allgather(vector.getArray(readonly=True).copy()))

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Return P u for nodal values (unknowns,). Collective."""
        return self._product(values, transpose=False)

    def apply_transpose(self, masses: np.ndarray) -> np.ndarray:
        """Return Pᵀ m for nodal masses (unknowns,). Collective."""
        return self._product(masses, transpose=True)

    def _product(self, values: np.ndarray, transpose: bool) -> np.ndarray:
        x, y = self.vector(values), self.matrix.createVecRight()
        self.matrix.multTranspose(x, y) if transpose else self.matrix.mult(x, y)
        result = self.everywhere(y)
        x.destroy()
        y.destroy()
        return result

    def destroy(self) -> None:
        """Free the matrix. Collective."""
        self.matrix.destroy()
