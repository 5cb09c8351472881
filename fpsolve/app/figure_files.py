"""Pictures as files: drawn off-screen on rank 0, while the other ranks sleep; nobody sees a half-written one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from mpi4py import MPI

from fpsolve.app.figure_style import STYLE
from fpsolve.errors import InputError
from fpsolve.fem.parallel import on_root

T = TypeVar("T")

DOTS_PER_INCH = 160


def asleep_elsewhere(comm: MPI.Comm, work: Callable[[], T]) -> T:
    """Run `work` on rank 0 and return its result, or raise its error, on every rank. Collective.

    Drawing takes seconds. MPI's own waiting would keep the other ranks' processors busy for as long.
    """

    def announced() -> T:
        try:
            return work()
        finally:
            comm.Ibarrier().Wait()

    if comm.rank > 0:
        done = comm.Ibarrier()
        while not done.Test():
            time.sleep(0.01)
    return on_root(comm, announced)


@contextmanager
def canvas(size: tuple[float, float], dots_per_inch: int = DOTS_PER_INCH) -> Iterator[Any]:
    """Give an empty figure of this size in inches, in the style of all pictures."""
    # without pyplot no window system is ever asked for and no state outlives the figure
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, dpi=dots_per_inch, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def save(directory: Path, name: str, size: tuple[float, float], draw: Callable[[Any], None]) -> Path:
    """Draw a figure and write ``name.png``. Raises InputError if that is not possible."""
    with canvas(size) as figure:
        draw(figure)

        def write(path: Path) -> None:
            figure.savefig(path, format="png", bbox_inches="tight", pad_inches=0.1)

        return published(directory, f"{name}.png", write)


def published(directory: Path, name: str, write: Callable[[Path], None]) -> Path:
    """Let `write` write a file aside and give it its name; return its path. Raises InputError."""
    path = directory / name
    temporary = directory / f".{path.stem}.{os.getpid()}{path.suffix}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise InputError("out", str(directory), "a directory in which files can be written", str(error)) from None
    return path
