"""Common to all tests, serial or under mpirun."""

import gc
from pathlib import Path

from mpi4py import MPI

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "serial: starts processes itself or has no use for ranks; left out when run under mpirun"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if MPI.COMM_WORLD.size > 1:
        serial = [item for item in items if item.get_closest_marker("serial")]
        items[:] = [item for item in items if not item.get_closest_marker("serial")]
        config.hook.pytest_deselected(items=serial)


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
