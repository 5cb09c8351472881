"""From cell indicators to the next mesh: sizes that reach a tolerance with the fewest cells."""

from __future__ import annotations

import numpy as np
from dolfinx import fem, mesh

from fpsolve.fem.meshing import SizeField

#: A level changes the mesh size by no smaller a factor.
SHRINK = 0.2
#: Sizes may change by this much per unit distance (graded meshes keep good angles).
GRADATION = 0.6
#: Error of the field, relative to its maximum, that refinement aims at away from the asked points.
FIELD_ACCURACY = 5e-3


def edge_lengths(domain: mesh.Mesh, volumes: np.ndarray) -> np.ndarray:
    """Return the edge of the regular simplex with these volumes."""
    d = domain.topology.dim
    factor = {1: 1.0, 2: 4 / np.sqrt(3.0), 3: 6 * np.sqrt(2.0)}[d]
    return (factor * volumes) ** (1.0 / d)


def next_sizes(
    domain: mesh.Mesh,
    volumes: np.ndarray,
    indicators: np.ndarray,
    target: float,
    order: float,
    caps: np.ndarray,
    most_cells: float,
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
    caps : ndarray
        The largest size allowed in each of this rank's own cells, for the sake of the field elsewhere.
    most_cells : float
        All sizes are raised by a common factor where more cells would result.
    """
    d = domain.topology.dim
    corners, volumes, indicators, caps = _gather(domain, volumes, indicators, caps)
    h = edge_lengths(domain, volumes)
    floor = 1e-3 * target / len(h)  # contributions lost in rounding still get a bounded size
    density = np.maximum(indicators, floor) / (h**order * volumes)
    exponent = order / (order + d)
    level = (target / np.sum(density ** (1 - exponent) * volumes)) ** (1 / exponent)
    wanted = (level / density) ** (1 / (order + d))
    wanted = np.maximum(np.minimum(wanted, caps), SHRINK * h)
    sizes = _graded(corners, wanted)
    cells = float(np.sum((h / sizes.mean(axis=1)) ** d))
    return SizeField(corners, sizes * max(cells / most_cells, 1.0) ** (1.0 / d))


def _gather(domain: mesh.Mesh, *cellwise: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the corners and other arrays of all cells in the mesh's original order, on every rank."""
    d = domain.topology.dim
    owned = domain.topology.index_map(d).size_local
    corners = domain.geometry.x[domain.geometry.dofmap[:owned, : d + 1]][:, :, :d]
    order = np.asarray(domain.topology.original_cell_index[:owned])
    parts = domain.comm.allgather((order, corners, *(values[:owned] for values in cellwise)))
    sequence = np.argsort(np.concatenate([part[0] for part in parts]))
    return tuple(np.concatenate([part[k] for part in parts])[sequence] for k in range(1, len(cellwise) + 2))


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


def field_caps(difference: fem.Function, volumes: np.ndarray, scale: float, degree: int, smallest: float) -> np.ndarray:
    """Return sizes at which a field's estimated error becomes `FIELD_ACCURACY`, but not below `smallest`.

    The values asked for decide on the mesh; this keeps the field fit to be looked at where they do not.

    Parameters
    ----------
    difference : Function
        The field's estimated error.
    scale : float
        The field's maximum.
    """
    unknowns = difference.function_space.dofmap.list[: len(volumes)]
    error = np.abs(difference.x.array[unknowns]).max(axis=1) / scale
    h = edge_lengths(difference.function_space.mesh, volumes)
    wanted = h * (FIELD_ACCURACY / np.maximum(error, 1e-300)) ** (1.0 / (degree + 1))
    return np.where(error > FIELD_ACCURACY, np.maximum(wanted, np.minimum(smallest, h)), np.inf)
