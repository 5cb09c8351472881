"""What all commands that answer a case file have in common: the directory, the written results, the table."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mpi4py import MPI

from fpsolve.app.case import Case
from fpsolve.app.report import write_json
from fpsolve.errors import InputError
from fpsolve.fem.parallel import on_root

log = logging.getLogger("fpsolve")


class Answer(Protocol):
    """What a command found; the same on every rank."""

    @property
    def messages(self) -> list[str]:
        """What the user should know; errors begin with "error:", warnings with "warning:"."""

    @property
    def exit_code(self) -> int:
        """0, or 3 when the answer is not what was asked for."""


@dataclass(frozen=True)
class Extra:
    """A file besides the numbers; a failure to write it becomes a message.

    Attributes
    ----------
    what : str
        ``"fields"`` or ``"figures"``.
    module, name : str
        The function that writes, imported when it is needed.
    arguments : tuple
    """

    what: str
    module: str
    name: str
    arguments: tuple[object, ...]


@dataclass(frozen=True)
class Command:
    """How to answer a question and what to write down.

    Attributes
    ----------
    answer : callable
        Solves; gets the directory of the results. Collective.
    summary, table : callable
        Return the contents of summary.json and the text for people (with the files written).
    extras : callable
        Returns what else is to be written to the directory.
    """

    answer: Callable[[Path], Any]
    summary: Callable[[Any], Mapping[str, Any]]
    table: Callable[[Any, Sequence[Path]], str]
    extras: Callable[[Any, Path], Sequence[Extra]]


@dataclass(frozen=True)
class Settings:
    """What the command line says besides the case file.

    Attributes
    ----------
    out : path or None
        Directory of the results; ``results/<name of the case>`` when not given.
    figures : bool
        Whether to draw figures.
    restart : bool
        Whether to go on from the checkpoint in the directory of the results.
    unused_options : callable
        Returns the PETSc options that nothing has looked at, after the run.
    """

    out: str | Path | None = None
    figures: bool = True
    restart: bool = False
    unused_options: Callable[[], list[str]] = list


def run(command: Command, case: Case, comm: MPI.Comm, settings: Settings) -> int:
    """Run a command and return its exit code. Collective.

    Raises
    ------
    InputError, NoFiniteAnswer, NotConverged
        On every rank. Nothing is written then, and an older summary.json of the directory is gone.
    """
    directory = Path(settings.out) if settings.out is not None else Path("results") / case.name
    on_root(comm, lambda: _prepare(directory))
    answer: Answer = command.answer(directory)
    files: list[Path] = []
    for extra in command.extras(answer, directory):
        if extra.what == "figures" and not settings.figures:
            continue
        log.info("%s", extra.what)
        written, problems = _write_extra(extra)
        files += written
        answer.messages.extend(problems)
    unused = settings.unused_options()
    if unused:
        answer.messages.append(f"warning: unused PETSc options: {' '.join(unused)}")
    summary = command.summary(answer)
    on_root(comm, lambda: write_json(directory / "summary.json", summary))
    if comm.rank == 0:
        print(command.table(answer, [directory / "summary.json", *files]), flush=True)
    return answer.exit_code


def without_schedule(case: Case) -> list[str]:
    """Return the warning that an answer for all times knows nothing of a schedule, if there is one."""
    if case.process.schedule is None:
        return []
    return ["warning: [process.schedule] is not used here: the noise stays that of [process] at all times"]


def _prepare(directory: Path) -> None:
    """Make the directory before hours of work, and remove an older answer: a failed run must not seem answered."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / ".fpsolve-probe"
        probe.touch()
        probe.unlink()
        (directory / "summary.json").unlink(missing_ok=True)
    except OSError as error:
        raise InputError("--out", str(directory), "a directory that can be written", f"{error.strerror}.") from None


def _write_extra(extra: Extra) -> tuple[list[Path], list[str]]:
    """Write figures or fields; a failure becomes a message, since the numbers are more important. Collective."""
    try:
        written = getattr(importlib.import_module(extra.module), extra.name)(*extra.arguments)
        return [Path(file) for file in written or []], []
    except Exception as error:
        log.debug("%s failed", extra.what, exc_info=True)
        text = " ".join(str(error).split())
        return [], [f"warning: no {extra.what}: {type(error).__name__}: {text}"]
