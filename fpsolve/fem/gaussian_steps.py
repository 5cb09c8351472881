"""Rows of the transfer operator of a Gaussian chain: its density integrated over the cells, without random points.

``(Pu)(θ) = ∫_Ω p(θ, y) u(y) dy`` with p(θ, ·) the normal density of mean ``θ - ηG`` and covariance ``η²Q/b``. The
quadrature points lie in Ω, so that the jump of u at the boundary costs nothing: with elements of degree p this is
Nyström's method up to interpolation. It needs noise in every direction and cells that a step does not jump within.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numba
import numpy as np
from scipy.sparse import csr_array

from fpsolve.fem.cell_points import cell_points
from fpsolve.fem.nodal import NodalSpace, basis
from fpsolve.model.chain import Chain

#: Standard deviations beyond which the density counts as 0 (below 1e-16 of it).
REACH = 8.5
#: Degrees of quadrature that are tried, and how much lower the one is that a degree is compared with.
DEGREES = (8, 12, 16, 20, 28)
LOWER = 4
#: The largest defect of the probability to stay, and the number of nodes where it is measured.
DEFECT, PROBES = 1e-5, 200


@dataclass(frozen=True)
class CellQuadrature:
    """How the steps of a Gaussian chain are integrated: a rule of a degree in every cell."""

    chain: Chain
    degree: int

    @property
    def exact(self) -> bool:
        """False: the quadrature has an error."""
        return False

    @property
    def sequences(self) -> int:
        """One: nothing is random."""
        return 1

    @property
    def description(self) -> str:
        """What was chosen, for reports."""
        return f"Gaussian density, quadrature of degree {self.degree} in every cell"

    def halved(self) -> CellQuadrature:
        """Return a rule of lower degree, for comparison."""
        return replace(self, degree=self.degree - LOWER)


def resolving_quadrature(chain: Chain, space: NodalSpace, others: np.ndarray) -> CellQuadrature | None:
    """Return the cheapest rule that resolves the chain's density on the cells, None if there is none.

    Looked for at some nodes, those with the least noise among them, and at further points `others` (n, d); there must
    be noise in every direction at all nodes and these.
    """
    x = np.concatenate([space.nodes, others])
    spreads = np.linalg.eigvalsh(chain.step_covariance(x))
    if not (spreads[:, 0] > 1e-8 * spreads[:, -1]).all():
        return None
    narrow = np.argsort(spreads[:, 0], kind="stable")[: PROBES // 10]
    probes = x[np.union1d(np.arange(0, len(x), max(1, len(x) // PROBES)), narrow)]
    for degree in DEGREES:
        rule = CellQuadrature(chain, degree)
        staying = [quadrature_rows(space, each, probes).sum(axis=1) for each in (rule, rule.halved())]
        if np.abs(staying[0] - staying[1]).max() <= DEFECT:
            return rule
    return None


def quadrature_rows(space: NodalSpace, rule: CellQuadrature, x: np.ndarray) -> csr_array:
    """Return the rows of P at points x (n, d), shape (n, unknowns). Not collective."""
    chain = rule.chain
    at, weights, cells = cell_points(space, rule.degree)
    table = basis(space, at, cells) * weights[:, None]
    at = at.reshape(len(space.cells), -1, x.shape[1])
    table = table.reshape(*at.shape[:2], -1)
    centre = at.mean(axis=1)
    radius = np.linalg.norm(at - centre[:, None], axis=2).max(axis=1)
    mean = x - chain.learning_rate * chain.landscape.gradient(x)
    factor = np.linalg.cholesky(chain.step_covariance(x))
    whitening = np.linalg.inv(factor)
    height = (2 * np.pi) ** (-x.shape[1] / 2) * np.prod(np.diagonal(whitening, axis1=1, axis2=2), axis=1)
    stretch = np.linalg.norm(whitening, ord=2, axis=(1, 2))
    offsets = [np.zeros(1, dtype=np.int64)]
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    width = max(1, 4_000_000 // space.unknowns)
    for start in range(0, len(x), width):
        part = slice(start, start + width)
        n = len(mean[part])
        ends, indices = np.zeros(n + 1, dtype=np.int64), np.empty(n * space.unknowns, np.int32)
        entries = np.empty(n * space.unknowns)
        _integrate(
            mean[part], whitening[part], height[part], stretch[part], at, table, centre, radius, space.cells,
            np.zeros(space.unknowns), np.full(space.unknowns, -1), ends, indices, entries,
        )  # fmt: skip
        offsets.append(offsets[-1][-1] + ends[1:])
        parts.append((indices[: ends[-1]].copy(), entries[: ends[-1]].copy()))
    columns = np.concatenate([p[0] for p in parts]) if parts else np.empty(0, dtype=np.int32)
    data = np.concatenate([p[1] for p in parts]) if parts else np.empty(0)
    matrix = csr_array((data, columns, np.concatenate(offsets)), shape=(len(x), space.unknowns))
    matrix.sort_indices()
    return matrix


@numba.njit(cache=True, nogil=True)
def _integrate(
    mean: Any, whitening: Any, height: Any, stretch: Any, at: Any, table: Any, centre: Any, radius: Any, dofs: Any,
    work: Any, owner: Any, ends: Any, indices: Any, entries: Any,
) -> None:  # fmt: skip
    width = dofs.shape[1]
    free = 0
    for row in range(mean.shape[0]):
        begin = free
        for c in range(dofs.shape[0]):
            far = REACH + stretch[row] * radius[c]
            if _square(centre[c], mean[row], whitening[row]) > far * far:
                continue
            for q in range(at.shape[1]):
                square = _square(at[c, q], mean[row], whitening[row])
                if square > REACH * REACH:
                    continue
                p = height[row] * np.exp(-0.5 * square)
                for a in range(width):
                    column = dofs[c, a]
                    if owner[column] != row:
                        owner[column] = row
                        work[column] = 0.0
                        indices[free] = column
                        free += 1
                    work[column] += p * table[c, q, a]
        for e in range(begin, free):
            entries[e] = work[indices[e]]
        ends[row + 1] = free


@numba.njit(cache=True, nogil=True)
def _square(x: Any, mean: Any, whitening: Any) -> float:
    """Return |W(x - mean)|² for a lower triangular W."""
    total = 0.0
    for i in range(x.size):
        value = 0.0
        for j in range(i + 1):
            value += whitening[i, j] * (x[j] - mean[j])
        total += value * value
    return total
