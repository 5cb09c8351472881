"""The distribution of cells: the same on every run, balanced, with ghosts across shared facets."""

from __future__ import annotations

from mpi4py import MPI

import numpy as np
import pytest

import fpsolve as fp
from fpsolve.fem.meshing import make_mesh
from fpsolve.fem.partition import coordinate_bisection, neighbours


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_bisection_is_balanced_and_covers_everything(parts: int) -> None:
    points = np.random.default_rng(0).normal(size=(1000, 2)) * [5.0, 1.0]
    counts = np.bincount(coordinate_bisection(points, parts), minlength=parts)
    assert counts.sum() == 1000
    assert counts.max() - counts.min() <= parts


def test_bisection_cuts_the_longest_side() -> None:
    points = np.random.default_rng(0).uniform(size=(400, 2)) * [10.0, 1.0]
    owner = coordinate_bisection(points, 2)
    assert points[owner == 0, 0].max() <= points[owner == 1, 0].min()


def test_neighbours_of_two_triangles_and_of_two_tetrahedra() -> None:
    assert sorted(neighbours(np.array([[0, 1, 2], [3, 2, 1], [5, 6, 7]]))[0]) == [0, 1]
    assert len(neighbours(np.array([[0, 1, 2, 3], [4, 1, 2, 3]]))) == 1
    assert len(neighbours(np.array([[0, 1], [1, 2], [2, 3]]))) == 2


def test_meshes_are_distributed_in_the_same_way_each_time(comm: MPI.Comm) -> None:
    """A graph partitioner gave 15 different distributions in 15 attempts at this size, on two ranks."""
    first, second = (make_mesh(fp.Box((0.0, 0.0), (2.0, 1.0)), 0.05, 1, comm).mesh for _ in range(2))
    assert np.array_equal(first.topology.original_cell_index, second.topology.original_cell_index)
    assert np.array_equal(first.geometry.x, second.geometry.x)
    cells = first.topology.index_map(2)
    counts = comm.allgather(cells.size_local)
    assert max(counts) - min(counts) <= comm.size
    # every facet between two ranks has both its cells on each of them
    first.topology.create_connectivity(1, 2)
    lists, facets = first.topology.connectivity(1, 2), first.topology.index_map(1)
    owned = range(facets.size_local)
    inner = comm.allreduce(sum(len(lists.links(f)) == 2 for f in owned))
    outer = comm.allreduce(sum(len(lists.links(f)) == 1 for f in owned))
    assert outer == 2 * (40 + 20)
    assert 2 * inner + outer == 3 * cells.size_global
