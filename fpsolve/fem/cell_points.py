"""Quadrature points on the curved cells of plain mesh arrays."""

from __future__ import annotations

import basix
import numpy as np

from fpsolve.fem.curved import CELLS, element
from fpsolve.fem.nodal import NodalSpace


def cell_points(space: NodalSpace, degree: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return points (m·q, d), weights (m·q,) and cells (m·q,) of a rule of that degree in the reference cell."""
    d = space.points.shape[1]
    rule = basix.make_quadrature(CELLS[d - 1], degree)
    reference, weights = np.asarray(rule[0]), np.asarray(rule[1])
    geometry = space.geometry
    table = np.asarray(element(d, geometry.order).tabulate(1, reference))[:, :, :, 0]
    nodes = geometry.nodes[geometry.cells]
    at = np.einsum("qk,mkj->mqj", table[0], nodes)
    jacobian = np.einsum("iqk,mkj->mqij", table[1:], nodes)
    size = np.abs(np.linalg.det(jacobian))
    return at.reshape(-1, d), (size * weights).ravel(), np.repeat(np.arange(len(nodes)), len(weights))
