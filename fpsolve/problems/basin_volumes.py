"""The volumes of the basins of attraction of ``x' = -∇L``, on a mesh of the domain."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mpi4py import MPI

import numpy as np
from dolfinx import fem

from fpsolve.errors import InputError
from fpsolve.fem.functionals import region_loads, whole_cells
from fpsolve.fem.meshing import make_mesh
from fpsolve.model.basins import basin_labels
from fpsolve.model.condense import condensed
from fpsolve.model.domains import Domain
from fpsolve.model.process import Process

#: Cells along the diagonal of the bounding box on the coarser of the two meshes, by dimension.
CELLS = {1: 50, 2: 32, 3: 8}
#: How often cells on a separatrix are halved, by dimension.
DEPTH = {1: 30, 2: 2, 3: 1}


@dataclass(frozen=True)
class BasinVolumes:
    """How much of the domain flows to which minimum; the same on every rank.

    Attributes
    ----------
    minima : ndarray, shape (k, d)
    volumes, errors : ndarray, shape (k,)
        The errors are estimates: twice the difference between two meshes, or the finest cells on a separatrix.
    elsewhere : float
        The volume of what flows to none of the minima: out of the domain for good, or to one that is not known.
    total : float
        The volume of the mesh.
    cells : int
        Of the finer mesh.
    """

    minima: np.ndarray
    volumes: np.ndarray
    errors: np.ndarray
    elsewhere: float
    total: float
    cells: int

    @property
    def shares(self) -> np.ndarray:
        """The parts of the total."""
        return self.volumes / self.total


def basin_volumes(
    process: Process, domain: Domain, minima: np.ndarray, *, comm: MPI.Comm, size: float | None = None
) -> BasinVolumes:
    """Return the volumes of the basins of attraction in a domain. Collective.

    Cells whose corners and edges flow to different minima are divided; paths may leave the domain and come back.

    Parameters
    ----------
    minima : ndarray, shape (k, d)
    size : float, optional
        Of the cells of the finer mesh; a second one is twice as coarse.

    Raises
    ------
    InputError
        On every rank, if the process has no loss or the size cannot be used.
    """
    if process.landscape is None:
        raise InputError("process", tuple(process.variables), "a process with a loss", "Drift and diffusion have none.")
    process = replace(process, landscape=condensed(process.landscape))
    lower, upper = domain.bounding_box()
    diameter = float(np.linalg.norm(upper - lower))
    fine = diameter / (2 * CELLS[domain.dimension]) if size is None else size
    coarse_volumes, _, _ = _volumes(process, domain, minima, 2 * fine, diameter, comm)
    volumes, total, cells = _volumes(process, domain, minima, fine, diameter, comm)
    smallest = fine * 0.5 ** DEPTH[domain.dimension]
    # three standard deviations of a separatrix as long as the diameter that misses a tenth of each cell it cuts
    d = domain.dimension
    random = 0.15 * smallest**d * np.sqrt((diameter / smallest) ** (d - 1))
    errors = np.maximum(2 * np.abs(volumes - coarse_volumes), random)
    return BasinVolumes(minima, volumes, errors, max(total - float(volumes.sum()), 0.0), total, cells)


def _volumes(
    process: Process, domain: Domain, minima: np.ndarray, size: float, diameter: float, comm: MPI.Comm
) -> tuple[np.ndarray, float, int]:
    mesh = make_mesh(domain, size, 1, comm).mesh
    space = fem.functionspace(mesh, ("Lagrange", 1))
    parts = region_loads(
        space, 1, lambda x: basin_labels(process, minima, x, diameter), len(minima), DEPTH[domain.dimension]
    )
    volumes = np.array([part.sum() for part in parts])
    for part in parts:
        part.destroy()
    total = comm.allreduce(sum(float(points.weights.sum()) for points in whole_cells(mesh, 1)))
    return volumes, float(total), int(mesh.topology.index_map(mesh.topology.dim).size_global)
