"""Checkpoints of an evolution: a killed run loses at most the work since the last one.

A directory holds the density at each stored time reached and, last written, ``current.npz`` with the density
now and all that decides how the run goes on. Files are written aside and renamed (`fpsolve.fem.states`), so that
what ``current.npz`` refers to is always complete.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mpi4py import MPI
from petsc4py import PETSc

import numpy as np
from dolfinx import fem

from fpsolve.errors import InputError
from fpsolve.fem.generator import Generator
from fpsolve.fem.parallel import on_root
from fpsolve.fem.states import load_state, read_metadata, save_state
from fpsolve.problems.evolution import Record
from fpsolve.problems.march import Progress

CURRENT = "current.npz"


def record_to_json(record: Record) -> dict[str, Any]:
    """Return a record as plain data; floats survive JSON exactly."""
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in asdict(record).items()}


def record_from_json(data: Mapping[str, Any]) -> Record:
    """Return the record of `record_to_json`."""
    arrays = ("mean", "covariance", "observables", "basins")
    values: dict[str, Any] = {key: np.array(value) if key in arrays else value for key, value in data.items()}
    return Record(**values)


class Checkpointer:
    """Writes checkpoints while a run goes on and reads them when it is repeated.

    Parameters
    ----------
    directory : Path
    seconds : float
        Time between checkpoints; one is also written at each stored time.
    settings : dict
        What was asked, as plain data; a checkpoint of another question is refused.
    restart : bool
        Go on from the checkpoint in the directory, if there is one; otherwise it is overwritten.
    """

    def __init__(
        self, directory: Path, seconds: float, settings: Mapping[str, Any], comm: MPI.Comm, restart: bool
    ) -> None:
        self.directory = directory
        self.seconds = seconds
        self.settings = dict(settings)
        self.comm = comm
        self.history: list[dict[str, Any]] = []
        self._last = time.monotonic()
        self._stored = 0
        self._saved: dict[str, Any] | None = None
        if restart:
            self._saved = read_metadata(directory / CURRENT, comm)
            self._check()
        else:
            # an old one must not be taken for that of this run, whose densities replace those it refers to
            on_root(comm, lambda: (directory / CURRENT).unlink(missing_ok=True))

    @property
    def level(self) -> int:
        """The number of meshes that the interrupted run had finished."""
        return len(self._saved["history"]) if self._saved else 0

    def _check(self) -> None:
        if self._saved is not None and self._saved["settings"] != self.settings:
            changed = [k for k, v in self.settings.items() if self._saved["settings"].get(k) != v]
            raise InputError(
                "--restart", str(self.directory), "a checkpoint of the same question",
                f"Changed since: {', '.join(changed) or 'the version'}. Run without --restart.",
            )  # fmt: skip

    def finished(self, level: dict[str, Any]) -> None:
        """Remember the result of a mesh that is done."""
        self.history.append(level)
        self._stored = 0

    def previous(self) -> list[dict[str, Any]]:
        """Return the results of the meshes that the interrupted run had finished."""
        return list(self._saved["history"]) if self._saved else []

    def resume(self, generator: Generator) -> tuple[Progress, PETSc.Vec, list[Record], list[fem.Function]] | None:
        """Return where the interrupted run stood on this mesh; None if there is nothing to go on from. Collective."""
        saved, self._saved = self._saved, None
        if saved is None:
            return None
        current = load_state(self.directory / CURRENT, generator.space, self.comm)[0]
        y = generator.restrict(current.x.petsc_vec)
        records = [record_from_json(record) for record in saved["records"]]
        densities = [load_state(self._file(k), generator.space, self.comm)[0] for k in range(len(records))]
        self._stored = len(records)
        return Progress.from_json(saved["progress"]), y, records, densities

    def after_step(
        self,
        progress: Progress,
        y: PETSc.Vec,
        records: list[Record],
        densities: list[fem.Function],
        generator: Generator,
    ) -> None:
        """Write a checkpoint if a stored time was reached or it is time. Collective."""
        due = self.comm.bcast(time.monotonic() - self._last >= self.seconds)
        if not due and len(records) == self._stored:
            return
        for k in range(self._stored, len(records)):
            save_state(self._file(k), densities[k], {"t": records[k].t}, self.comm)
        self._stored = len(records)
        metadata = {
            "settings": self.settings,
            "history": self.history,
            "progress": progress.to_json(),
            "records": [record_to_json(record) for record in records],
        }
        save_state(self.directory / CURRENT, generator.to_function(y, "density"), metadata, self.comm)
        self._last = time.monotonic()

    def _file(self, k: int) -> Path:
        return self.directory / f"density_{len(self.history)}_{k:04d}.npz"
