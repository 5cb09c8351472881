"""Errors and values that must be the same on every rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from mpi4py import MPI

T = TypeVar("T")


def agree(comm: MPI.Comm, error: BaseException | None) -> None:
    """Raise on every rank the error of the lowest rank that has one. Collective.

    Called after a step that can fail on one rank only, before the next collective call, so that
    no rank waits for another that has left.
    """
    errors = comm.allgather(error)
    first = next((e for e in errors if e is not None), None)
    if first is not None:
        raise first


def on_root(comm: MPI.Comm, work: Callable[[], T]) -> T:
    """Run `work` on rank 0 and return its result, or raise its error, on every rank. Collective."""
    outcome: tuple[Any, BaseException | None] = (None, None)
    if comm.rank == 0:
        try:
            outcome = (work(), None)
        except Exception as error:
            outcome = (None, error)
    result, failure = comm.bcast(outcome, root=0)
    if failure is not None:
        raise failure
    return result
