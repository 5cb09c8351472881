"""Loads ``∫ g φ_i`` of functions that the mesh need not resolve, by quadrature on bisected cells.

Cells are bisected in their reference coordinates, so mesh and partition stay as they are and all weights are
positive: a nonnegative g has a nonnegative load on linear elements.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from mpi4py import MPI

import basix
import numpy as np
from dolfinx import fem, la, mesh

Density = Callable[[np.ndarray], np.ndarray]
#: Bisections at most for each direction: then coordinates begin to lose the parts.
LEVELS = 40
#: Parts at most on one rank.
MOST = 2_000_000
#: Points evaluated at a time.
POINTS = 200_000
TOLERANCE = 1e-8
KINDS = (basix.CellType.interval, basix.CellType.triangle, basix.CellType.tetrahedron)


@dataclass(frozen=True)
class Parts:
    """Parts of cells.

    Attributes
    ----------
    cells : ndarray, shape (n,)
        Local numbers.
    corners : ndarray, shape (n, d+1, d)
        In the cells' reference coordinates.
    """

    cells: np.ndarray
    corners: np.ndarray

    def __len__(self) -> int:
        return len(self.cells)

    def take(self, which: np.ndarray) -> Parts:
        """Return some of the parts."""
        return Parts(self.cells[which], self.corners[which])

    def bisected(self, lengths: np.ndarray) -> Parts:
        """Return the 2 n halves, the first ones first; `lengths` (n, edges) decides which edge is cut."""
        d = self.corners.shape[2]
        cut = np.array(edges(d))[lengths.argmax(axis=1)]
        every = np.arange(len(self))
        middle = (self.corners[every, cut[:, 0]] + self.corners[every, cut[:, 1]]) / 2
        halves = []
        for side in (0, 1):
            corners = self.corners.copy()
            corners[every, cut[:, side]] = middle
            halves.append(corners)
        return Parts(np.concatenate([self.cells] * 2), np.concatenate(halves))


def edges(d: int) -> list[tuple[int, int]]:
    """Return the pairs of corners of a d-simplex."""
    return [(i, j) for i in range(d + 1) for j in range(i)]


def whole_cells(domain: mesh.Mesh) -> Parts:
    """Return this rank's own cells."""
    d = domain.topology.dim
    cells = np.arange(domain.topology.index_map(d).size_local, dtype=np.int32)
    return Parts(cells, np.broadcast_to(np.asarray(basix.geometry(KINDS[d - 1])), (len(cells), d + 1, d)))


@cache
def _lagrange(d: int, degree: int, variant: int) -> basix.finite_element.FiniteElement:
    return basix.create_element(basix.ElementFamily.P, KINDS[d - 1], degree, basix.LagrangeVariant(variant))


@cache
def positive_rule(d: int, degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points (k, d) and weights of a quadrature on the simplex with all weights positive, points inside."""
    for kind in (basix.QuadratureType.default, basix.QuadratureType.gauss_jacobi):
        points, weights = (np.asarray(part) for part in basix.make_quadrature(KINDS[d - 1], degree, kind))
        if (weights > 0).all() and (points > 0).all() and (points.sum(axis=1) < 1).all():
            return points, weights
    raise AssertionError("Gauss-Jacobi weights are positive")


def _at(parts: Parts, points: np.ndarray) -> np.ndarray:
    """Return the reference coordinates in the cell, shape (n, k, d), of points (k, d) given in those of the part."""
    return np.column_stack([1 - points.sum(axis=1), points]) @ parts.corners


def _in_cell(element: basix.finite_element.FiniteElement, X: np.ndarray) -> np.ndarray:
    """Return the basis functions of an element, shape (n, k, basis), at reference points (n, k, d)."""
    if not X.size:  # on which basix aborts
        return np.zeros((*X.shape[:2], element.dim))
    return np.asarray(element.tabulate(0, X.reshape(-1, X.shape[2])))[0, :, :, 0].reshape(*X.shape[:2], -1)


def _geometry(domain: mesh.Mesh) -> basix.finite_element.FiniteElement:
    cmap = domain.geometry.cmap
    return _lagrange(domain.topology.dim, cmap.degree, int(cmap.variant))


def positions(domain: mesh.Mesh, parts: Parts, points: np.ndarray) -> np.ndarray:
    """Return x, shape (n, k, d), at points (k, d) in the reference coordinates of the parts."""
    d = domain.topology.dim
    nodes = domain.geometry.x[domain.geometry.dofmap[parts.cells]][:, :, :d]
    return _in_cell(_geometry(domain), _at(parts, points)) @ nodes


def lengths(domain: mesh.Mesh, parts: Parts, metric: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return edge lengths (n, edges) and corner positions (n, d+1, d), both in coordinates ``metric @ x``."""
    d = domain.topology.dim
    x = positions(domain, parts, np.asarray(basix.geometry(KINDS[d - 1])))
    x = x if metric is None else x @ metric.T
    first, second = np.array(edges(d)).T
    return np.linalg.norm(x[:, first] - x[:, second], axis=2), x


def part_loads(space: fem.FunctionSpace, parts: Parts, density: Density, degree: int) -> np.ndarray:
    """Return ∫ g φ_i over each part for the basis functions of its cell, shape (n, basis).

    On a part, φ_i and the map are polynomials, given by their values in the nodes of the part: basis functions are
    tabulated there and not in every quadrature point.
    """
    domain, element = space.mesh, space.element.basix_element
    d, geometry = domain.topology.dim, _geometry(space.mesh)
    points, weights = positive_rule(d, degree)
    table = np.asarray(geometry.tabulate(1, points))[..., 0]
    local = np.asarray(element.tabulate(0, points))[0, :, :, 0]
    result = np.empty((len(parts), element.dim))
    step = max(1, POINTS // len(points))
    for a in range(0, len(parts), step):
        piece = parts.take(np.arange(a, min(a + step, len(parts))))
        nodes = positions(domain, piece, np.asarray(geometry.points))
        derivatives = table[1:] if geometry.degree > 1 else table[1:, :1]  # constant where the cell is straight
        g = density((table[0] @ nodes).reshape(-1, d)).reshape(len(piece), -1)
        g = g * _determinants(derivatives, nodes) * weights
        values = _in_cell(element, _at(piece, np.asarray(element.points)))
        if element.degree == 1:
            values = np.maximum(values, 0.0)  # they are nonnegative but for rounding
        result[a : a + step] = np.einsum("nj,nji->ni", g @ local, values)
    return result


def _determinants(derivatives: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """Return |det ∂x/∂ξ|, shape (n, k), for derivatives (d, k, nodes) of the map's basis functions."""
    columns = [table @ nodes for table in derivatives]  # each (n, k, d)
    if len(columns) == 1:
        return np.abs(columns[0][:, :, 0])
    if len(columns) == 2:
        (a, b) = columns
        return np.abs(a[:, :, 0] * b[:, :, 1] - a[:, :, 1] * b[:, :, 0])
    return np.abs(np.sum(np.cross(columns[0], columns[1]) * columns[2], axis=2))


@dataclass(frozen=True)
class Load:
    """``∫ g φ_i`` over the whole space.

    Attributes
    ----------
    function : Function
        Holds the values b_i in its coefficients; ghosts are up to date.
    total : float
        Σ b_i = ∫ g.
    error : float
        Estimated error, Σ over the parts of the change of the load between two rules, relative to Σ|b_i|. For
        smooth g far above the true one; a kink that cuts a corner off a cell between all points is not seen (1e-6
        of the mass where measured).
    parts : int
        The number of parts, all ranks together.
    """

    function: fem.Function
    total: float
    error: float
    parts: int


def adaptive_load(space: fem.FunctionSpace, density: Density, parts: Parts, tolerance: float = TOLERANCE) -> Load:
    """Integrate g φ_i over the parts, bisected until two rules agree. Collective.

    Parameters
    ----------
    density : callable, (n, d) -> (n,)
        g; called a different number of times on each rank, so it must not communicate.
    parts : Parts
        Where to begin; cells left out count as g = 0.
    tolerance : float
        Parts may differ by this much in sum, relative to the whole; less where `MOST` parts or `LEVELS` end it.
    """
    comm, p = space.mesh.comm, space.element.basix_element.degree
    function = fem.Function(space)
    b = function.x.array
    unknowns = space.dofmap.list
    error, size, count = 0.0, 0.0, 0
    last_level = LEVELS * space.mesh.topology.dim - 1
    for level in range(last_level + 1):
        fine = part_loads(space, parts, density, p + 9)
        change = np.abs(fine - part_loads(space, parts, density, p + 5)).sum(axis=1)
        scale, share = comm.allreduce(np.array([size + np.abs(fine).sum(), count + len(parts)]))
        full = comm.allreduce(count + 2 * len(parts) > MOST, op=MPI.LOR)
        last = level == last_level or full
        good = np.ones(len(parts), dtype=bool) if last else change * max(share, 1) <= tolerance * scale
        np.add.at(b, unknowns[parts.cells[good]], fine[good])
        error += float(change[good].sum())
        size += float(np.abs(fine[good]).sum())
        count += int(good.sum())
        parts = parts.take(np.flatnonzero(~good))
        if not comm.allreduce(len(parts)):
            break
        parts = parts.bisected(lengths(space.mesh, parts)[0])
    return Load(function, *_finished(function, error, size, count))


def _finished(function: fem.Function, error: float, size: float, count: int) -> tuple[float, float, int]:
    comm = function.function_space.mesh.comm
    function.x.scatter_reverse(la.InsertMode.add)
    function.x.scatter_forward()
    owned = function.function_space.dofmap.index_map.size_local
    total = comm.allreduce(float(function.x.array[:owned].sum()))
    sums = comm.allreduce(np.array([error, size, count]))
    return total, float(sums[0] / (sums[1] or 1.0)), int(sums[2])


def resolving_parts(domain: mesh.Mesh, mean: np.ndarray, whitening: np.ndarray, width: float, reach: float) -> Parts:
    """Return parts of the cells that resolve a Gaussian: none longer than `width` standard deviations near it.

    Parameters
    ----------
    mean : ndarray, shape (d,)
    whitening : ndarray, shape (d, d)
        L⁻¹ for the covariance L Lᵀ.
    width, reach : float
        In standard deviations. Parts farther from the mean than `reach` are left out.
    """
    centre = whitening @ mean
    parts, done = whole_cells(domain), []
    for _ in range(LEVELS * domain.topology.dim):
        length, x = lengths(domain, parts, whitening)
        middle = x.mean(axis=1)
        radius = np.linalg.norm(x - middle[:, None], axis=2).max(axis=1)
        # curved cells may bulge out of the hull of their corners by a small part of their size
        near = np.linalg.norm(middle - centre, axis=1) - 1.5 * radius <= reach
        fits = length.max(axis=1, initial=0.0) <= width
        done.append(parts.take(np.flatnonzero(near & fits)))
        wide = np.flatnonzero(near & ~fits)
        if not len(wide):
            break
        parts = parts.take(wide).bisected(length[wide])
    else:
        done.append(parts)
    return Parts(np.concatenate([p.cells for p in done]), np.concatenate([p.corners for p in done]))
