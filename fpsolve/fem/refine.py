"""From cell indicators to the next mesh: sizes that reach a tolerance with the fewest cells."""

from __future__ import annotations

import numpy as np
from dolfinx import mesh

from fpsolve.fem.meshing import SizeField

#: A level changes the mesh size by at most these factors.
SHRINK, GROW = 0.2, 2.0
#: Sizes may change by this much per unit distance (graded meshes keep good angles).
GRADATION = 0.6


def edge_lengths(domain: mesh.Mesh, volumes: np.ndarray) -> np.ndarray:
    """Return the edge of the regular simplex with these volumes."""
    d = domain.topology.dim
    factor = {1: 1.0, 2: 4 / np.sqrt(3.0), 3: 6 * np.sqrt(2.0)}[d]
    return (factor * volumes) ** (1.0 / d)


def next_sizes(
    domain: mesh.Mesh, volumes: np.ndarray, indicators: np.ndarray, target: float, order: float
) -> SizeField:
    """Return the size field for which the sum of indicators becomes `target`. Collective.

    If cell K contributes ``E_K h^order |K|`` to the error, the fewest cells for a given sum have
    ``h^(order + d) ∝ 1/E_K``.

    Parameters
    ----------
    volumes, indicators : ndarray
        Of this rank's own cells; indicators are nonnegative.
    target : float
        The wanted sum of indicators.
    order : float
        The assumed local order of convergence.
    """
    d = domain.topology.dim
    corners, volumes, indicators = _gather(domain, volumes, indicators)
    h = edge_lengths(domain, volumes)
    floor = 1e-3 * target / len(h)  # contributions lost in rounding still get a bounded size
    density = np.maximum(indicators, floor) / (h**order * volumes)
    exponent = order / (order + d)
    level = (target / np.sum(density ** (1 - exponent) * volumes)) ** (1 / exponent)
    wanted = (level / density) ** (1 / (order + d))
    wanted = np.clip(wanted, SHRINK * h, GROW * h)
    return SizeField(corners, _graded(corners, wanted))


def _gather(domain: mesh.Mesh, volumes: np.ndarray, indicators: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return corners, volumes and indicators of all cells in the mesh's original order, on every rank."""
    d = domain.topology.dim
    owned = domain.topology.index_map(d).size_local
    corners = domain.geometry.x[domain.geometry.dofmap[:owned, : d + 1]][:, :, :d]
    order = np.asarray(domain.topology.original_cell_index[:owned])
    parts = domain.comm.allgather((order, corners, volumes[:owned], indicators[:owned]))
    sequence = np.argsort(np.concatenate([part[0] for part in parts]))
    return tuple(np.concatenate([part[k] for part in parts])[sequence] for k in (1, 2, 3))


def _graded(corners: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return corner sizes: the smallest wanted around each vertex, made gradual."""
    n, k, d = corners.shape
    flat = corners.reshape(-1, d)
    extent = np.ptp(flat, axis=0).max()
    vertices, index = np.unique(np.round(flat / extent, 10), axis=0, return_inverse=True)
    index = index.reshape(n, k)
    sizes = np.full(len(vertices), np.inf)
    np.minimum.at(sizes, index.ravel(), np.repeat(wanted, k))
    pairs = np.array([(i, j) for i in range(k) for j in range(k) if i != j])
    start, end = index[:, pairs[:, 0]].ravel(), index[:, pairs[:, 1]].ravel()
    distance = np.linalg.norm(vertices[start] - vertices[end], axis=1) * extent
    for _ in range(30):
        before = sizes.copy()
        np.minimum.at(sizes, start, sizes[end] + GRADATION * distance)
        if np.array_equal(before, sizes):
            break
    return sizes[index]
