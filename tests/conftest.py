"""Common to all tests, serial or under mpirun."""

import gc
import re
from functools import cache
from pathlib import Path

from mpi4py import MPI

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "serial: starts processes itself; left out when run under mpirun")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if MPI.COMM_WORLD.size > 1:
        serial = [item for item in items if item.get_closest_marker("serial") or not uses_ranks(item.path)]
        items[:] = [item for item in items if item not in serial]
        config.hook.pytest_deselected(items=serial)


def pytest_collection_finish() -> None:
    """What is imported stays: the collections of garbage after each test need not look at it again and again."""
    gc.collect()
    gc.freeze()


@cache
def uses_ranks(path: Path) -> bool:
    """A module that never names a communicator would do the same on every rank (formulas, theory, data)."""
    return re.search(r"\bcomm\b|COMM_", path.read_text(encoding="utf-8")) is not None


@pytest.fixture
def comm() -> MPI.Intracomm:
    return MPI.COMM_WORLD


@pytest.fixture
def shared_path(comm: MPI.Intracomm, tmp_path: Path) -> Path:
    """A temporary directory that is the same one on every rank."""
    return comm.bcast(tmp_path, root=0)


@pytest.fixture(autouse=True)
def together(comm: MPI.Intracomm):
    """PETSc destructors are collective: collect garbage on all ranks at the same point."""
    yield
    gc.collect()
    comm.barrier()
