"""Pairs of neighbouring unknowns: what mass moves along in a conservative scheme on linear elements.

A flux belongs to a pair and is added to one unknown and taken from the other, so the sum over all unknowns stays
the same whatever the values. Pairs across ranks are stored on both, oriented by global numbers, so that both
compute the same flux bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass

from petsc4py import PETSc

import numpy as np


class Graph:
    """The pairs {tail, head} of unknowns coupled by a matrix, of which this rank owns at least one. Collective.

    Local numbers are first the rank's own unknowns, then those of other ranks that occur in its rows.

    Parameters
    ----------
    matrix : PETSc.Mat
        Its pattern is symmetric.

    Attributes
    ----------
    owned, total : int
        Own unknowns, and own and foreign ones.
    tail, head : ndarray of int
        Local numbers; the global number of the tail is the smaller one.
    """

    def __init__(self, matrix: PETSc.Mat) -> None:
        start, end = matrix.getOwnershipRange()
        self.pointers, self.columns, _ = matrix.getValuesCSR()
        rows = np.repeat(np.arange(start, end), np.diff(self.pointers))
        here = (self.columns >= start) & (self.columns < end)
        foreign = np.unique(self.columns[~here])
        self.owned, self.total = end - start, end - start + len(foreign)
        self._off_diagonal = self.columns != rows
        self._chosen = (here & (rows < self.columns)) | ~here
        i, j = rows[self._chosen], self.columns[self._chosen]
        self._row_is_tail = i < j

        def local(numbers: np.ndarray) -> np.ndarray:
            own = (numbers >= start) & (numbers < end)
            return np.where(own, numbers - start, self.owned + np.searchsorted(foreign, numbers))

        self.tail, self.head = local(np.minimum(i, j)), local(np.maximum(i, j))
        self._places, self._pair = _pairs_of_entries(rows, self.columns, self._off_diagonal, self._chosen)
        self._place_is_tail = rows[self._places] < self.columns[self._places]
        everywhere = matrix.createVecRight()
        where = PETSc.IS().createGeneral(foreign.astype(PETSc.IntType), comm=PETSc.COMM_SELF)
        self._foreign = PETSc.Vec().createSeq(len(foreign), comm=PETSc.COMM_SELF)
        self._scatter = PETSc.Scatter().create(everywhere, where, self._foreign, None)
        self._work = everywhere
        where.destroy()

    def couplings(self, matrix: PETSc.Mat) -> tuple[np.ndarray, np.ndarray]:
        """Return the entries [tail, head] and [head, tail] of a matrix with the graph's pattern. Collective."""
        transposed = PETSc.Mat()
        matrix.transpose(transposed)
        mine, other = (self._values(thing)[self._chosen] for thing in (matrix, transposed))
        transposed.destroy()
        return np.where(self._row_is_tail, mine, other), np.where(self._row_is_tail, other, mine)

    def _values(self, matrix: PETSc.Mat) -> np.ndarray:
        pointers, columns, values = matrix.getValuesCSR()
        if not (np.array_equal(pointers, self.pointers) and np.array_equal(columns, self.columns)):
            raise ValueError("the matrix does not have the symmetric pattern of the graph")
        return values

    def with_foreign(self, values: PETSc.Vec | np.ndarray) -> np.ndarray:
        """Return the values at own and foreign unknowns, given those at own ones. Collective."""
        result = np.empty(self.total)
        if isinstance(values, np.ndarray):
            self._work.setArray(values)
            values = self._work
        self._scatter.scatter(values, self._foreign)
        result[: self.owned] = values.getArray(readonly=True)
        result[self.owned :] = self._foreign.getArray(readonly=True)
        return result

    def gain(self, flux: np.ndarray) -> np.ndarray:
        """Return what the own unknowns gain when each tail receives `flux` from its head."""
        return self.sums(self.tail, flux) - self.sums(self.head, flux)

    def sums(self, ends: np.ndarray, amounts: np.ndarray) -> np.ndarray:
        """Return, for each own unknown, the sum of the amounts of the pairs with this end."""
        return np.bincount(ends, weights=amounts, minlength=self.total)[: self.owned]

    def matrix(self, tail_head: np.ndarray, head_tail: np.ndarray, diagonal: np.ndarray) -> PETSc.Mat:
        """Return the matrix with these entries. Collective."""
        values = np.empty(len(self.columns))
        values[self._places] = np.where(self._place_is_tail, tail_head[self._pair], head_tail[self._pair])
        values[~self._off_diagonal] = diagonal
        sizes = self._work.getSizes()
        result = PETSc.Mat().createAIJ((sizes, sizes), csr=(self.pointers, self.columns, values), comm=self._work.comm)
        result.assemble()
        return result

    def destroy(self) -> None:
        """Free the PETSc objects. Collective."""
        for thing in (self._scatter, self._foreign, self._work):
            thing.destroy()


def _pairs_of_entries(
    rows: np.ndarray, columns: np.ndarray, off_diagonal: np.ndarray, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the off-diagonal entries and the number of each one's pair."""
    low, high = np.minimum(rows, columns).astype(np.int64), np.maximum(rows, columns)
    keys = low * (int(high.max(initial=0)) + 1) + high
    order = np.argsort(keys[chosen])
    places = np.flatnonzero(off_diagonal)
    return places, order[np.searchsorted(keys[chosen], keys[places], sorter=order)]


@dataclass(frozen=True)
class Couplings:
    """Generator and its monotone companion on the pairs of a graph.

    Attributes
    ----------
    out, back : ndarray
        B_th and B_ht for the pairs (t, h).
    low_out, low_back : ndarray
        The same of B~, all <= 0.
    leak, low_leak : ndarray
        Row sums κ and κ⁺ at own unknowns: the rates at which mass leaves altogether.
    """

    out: np.ndarray
    back: np.ndarray
    low_out: np.ndarray
    low_back: np.ndarray
    leak: np.ndarray
    low_leak: np.ndarray


def make_couplings(graph: Graph, matrix: PETSc.Mat, outflow: PETSc.Vec, reversible: bool) -> Couplings:
    """Return B and the nearest matrix with nonpositive couplings on the pairs of `graph`. Collective.

    Parameters
    ----------
    reversible : bool
        Whether ``B_ij ρ_i = B_ji ρ_j`` for an equilibrium ρ > 0. Then couplings of the wrong sign come in pairs and
        are dropped, which leaves the equilibrium as it is; else ``B~_ij = B_ij - max(0, B_ij, B_ji)``: symmetric
        artificial diffusion, which leaves the mean drift as it is.
    """
    out, back = graph.couplings(matrix)
    if reversible:
        low_out, low_back = np.minimum(out, 0.0), np.minimum(back, 0.0)
    else:
        excess = np.maximum(np.maximum(out, back), 0.0)
        low_out, low_back = out - excess, back - excess
    leak = outflow.getArray(readonly=True).copy()
    return Couplings(out, back, low_out, low_back, leak, np.maximum(leak, 0.0))
