"""The command line: ``fpsolve COMMAND CASE.toml`` (see `COMMANDS`), ``fpsolve verify CERT.json``, ``fpsolve info``.

Also under ``mpirun -n N``.

Exit codes: 0 answered; 2 the input is wrong; 3 not converged, tolerance not met or a bound violated (the result
is written all the same) or a certificate rejected; 4 no finite answer; 1 an error in fpsolve itself; 130 interrupted.

Every rank ends with the same code and one rank says why. To that end each rank sends its outcome to all others
at the end without waiting in a barrier; a rank that has failed and hears nothing from the others, which then
wait for it elsewhere, ends them all.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

from fpsolve.errors import FpsolveError

if TYPE_CHECKING:
    from mpi4py import MPI

#: Seconds that a failed rank waits for the others to fail too before it ends them.
PATIENCE = 5.0
#: Packages that pip cannot bring, and where they come from.
SYSTEM_PACKAGES = ("mpi4py", "petsc4py", "dolfinx", "ufl", "basix", "ffcx", "gmsh", "flint")
PETSC_UNKNOWN_TYPE = 86
#: The commands that answer a case file: in a few words, and in a sentence.
COMMANDS = {
    "exit": (
        "mean exit time from a domain, with error estimate and bounds",
        "Compute the mean exit time of a case file, by one model of SGD or by several side by side.",
    ),
    "bounds": (
        "certified two-sided bounds of the mean exit time, with a certificate; also moments, P(τ > t), exits by parts",
        "Enclose the mean exit time at the starts of a case file by theorems; no mesh is needed.",
    ),
    "evolve": (
        "how the density of the parameters moves (Fokker-Planck equation)",
        "Compute the density of the parameters at given times and compare it with the theorems.",
    ),
    "backward": (
        "expectations at given times, from given points (backward Kolmogorov equation)",
        "Compute expectations of a function of the parameters at given times for given starts.",
    ),
    "steady": (
        "where the density ends: invariant density, spectral gap, eigenfunctions",
        "Compute the invariant density and the first eigenvalues of a case file.",
    ),
    "landscape": (
        "minima, saddles, heights between minima and basins of the loss, with proofs",
        "Find the critical points of the loss, prove that there are no others, and compare its minima.",
    ),
    "simulate": (
        "paths of SGD itself or of its diffusion: exit times, densities, running means",
        "Simulate paths of SGD, noisy SGD, momentum SGD or the diffusion until they leave the domain.",
    ),
}


@dataclass(frozen=True)
class Outcome:
    """How a rank ended: its exit code and, after a failure, what to say."""

    code: int
    message: str = ""


class _Usage(Exception):
    """The command line cannot be understood."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise instead of printing once for every rank."""
        raise _Usage(f"fpsolve: error: {message}\n{self.format_usage().strip()}; see {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line without what stands after ``--``."""
    from fpsolve import __version__

    top = _Parser(
        prog="fpsolve",
        description="Stochastic gradient descent as a degenerate diffusion, answered with error bounds.",
        epilog="Under MPI: mpirun -n N fpsolve ...; options for PETSc stand after --.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"fpsolve {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    for name, (what, description) in COMMANDS.items():
        _add_command(commands, name, what, description)
    _add_verify(commands)
    commands.add_parser("info", help="versions, abilities of the installed PETSc, places of caches", allow_abbrev=False)
    return top


def _add_command(commands: Any, name: str, what: str, description: str) -> None:
    again = " [--restart]" if name == "evolve" else ""
    effort = " [--width W] [--budget SECONDS]" if name == "bounds" else ""
    ask = commands.add_parser(
        name,
        help=what,
        description=f"{description} Writes summary.json, fields and figures.",
        usage=f"fpsolve {name} CASE.toml [--out DIR] [--no-figures] [--quiet]{again}{effort} [-- PETSc options]",
        allow_abbrev=False,
    )
    ask.add_argument("case", metavar="CASE.toml", help="the case file")
    ask.add_argument("--out", metavar="DIR", help="directory of the results (default: results/<name of the case file>)")
    ask.add_argument("--no-figures", action="store_true", help="write no pictures")
    ask.add_argument("--quiet", action="store_true", help="no progress on stderr")
    if again:
        ask.add_argument("--restart", action="store_true", help="go on from the checkpoint of a run that was ended")
    if effort:
        ask.add_argument("--width", metavar="W", type=float, help="relative width asked at the starts (default: 0.01)")
        ask.add_argument("--budget", metavar="SECONDS", type=float, help="when to stop trying (default: 60)")


def _add_verify(commands: Any) -> None:
    check = commands.add_parser(
        "verify",
        help="check a certificate of bounds again, from scratch",
        description="Check a certificate with code that shares nothing with the search. "
        "Exit codes: 0 accepted, 3 rejected, 2 not a certificate.",
        allow_abbrev=False,
    )
    check.add_argument("certificate", metavar="CERT.json", help="a certificate.json of fpsolve bounds")
    check.add_argument("--quiet", action="store_true", help="no progress on stderr")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code, the same on every rank. Collective on COMM_WORLD.

    Parameters
    ----------
    argv : list of str, optional
        The words after ``fpsolve``; those of the process by default.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    cut = words.index("--") if "--" in words else len(words)
    try:
        request = parser().parse_args(words[:cut])
    except _Usage as error:
        return finish(ranks(), Outcome(2, str(error)))
    except SystemExit as done:  # --help, --version
        return int(done.code or 0)
    all_ranks = ranks()
    with _progress(all_ranks, getattr(request, "quiet", False)):
        outcome = attempt(lambda: _command(request, words[cut + 1 :], all_ranks))
    return finish(all_ranks, outcome)


def _command(request: argparse.Namespace, options: list[str], all_ranks: Ranks | None) -> int:
    """Run a subcommand and return its exit code. Collective."""
    if request.command == "info":
        from fpsolve.app.info import collect, render

        found = collect(1 if all_ranks is None else all_ranks.work.size)  # on every rank: starting PETSc is collective
        if all_ranks is None or all_ranks.work.rank == 0:
            print(render(found), flush=True)
        return 0
    if request.command == "verify":
        from fpsolve.app.run_verify import run_verify

        return run_verify(request.certificate, None if all_ranks is None else all_ranks.work)
    if all_ranks is None:
        raise ModuleNotFoundError("No module named 'mpi4py'", name="mpi4py")
    comm = all_ranks.work
    # before dolfinx, which needs seconds, and before PETSc starts
    from fpsolve.app import petsc_options
    from fpsolve.app.case import load_case

    case = load_case(request.case, comm)
    if request.command == "bounds":
        from fpsolve.app.case_bounds import with_options

        case = replace(case, bounds=with_options(case.bounds, request.width, request.budget))
    names = petsc_options.insert(options)
    try:
        from fpsolve.app.run import Settings

        settings = Settings(
            request.out, not request.no_figures, getattr(request, "restart", False),
            lambda: petsc_options.unused(names),
        )  # fmt: skip
        command = getattr(importlib.import_module(f"fpsolve.app.run_{request.command}"), f"run_{request.command}")
        return int(command(case, comm, settings))
    finally:
        petsc_options.remove(names)


# --- how runs end --------------------------------------------------------------------------------------


def attempt(work: Callable[[], int]) -> Outcome:
    """Run `work` and return how it ended; nothing is raised."""
    try:
        return Outcome(work())
    except FpsolveError as error:
        return Outcome(error.exit_code, f"fpsolve: error: {error}")
    except KeyboardInterrupt:
        return Outcome(130, "fpsolve: interrupted")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in SYSTEM_PACKAGES:
            return Outcome(2, f"fpsolve: error: {error}. Run 'docker/run fpsolve ...' or install it; see README.md.")
        return _unexpected()
    except Exception as error:
        return _petsc(error) if type(error).__module__.startswith("petsc4py") else _unexpected()


def _petsc(error: Exception) -> Outcome:
    """PETSc's own errors mostly come from the options a user gave."""
    number = getattr(error, "ierr", 0)
    reason = str(error).strip().splitlines()[-1].partition("] ")[2] or str(error)
    remedy = "Check the options after '--' and those in PETSC_OPTIONS; 'fpsolve info' tells what this PETSc offers."
    code = 2 if number == PETSC_UNKNOWN_TYPE else 3
    return Outcome(code, f"fpsolve: error: PETSc failed with error {number}: {reason}. {remedy}")


def _unexpected() -> Outcome:
    request = "fpsolve: this is an error in fpsolve; please report it with the case file and the lines above."
    return Outcome(1, f"{traceback.format_exc()}{request}")


def finish(all_ranks: Ranks | None, outcome: Outcome) -> int:
    """Say why the run failed, on one rank, and return the exit code of all. Collective.

    Ranks that do not come here within `PATIENCE` wait for this one in some other collective call, if this one
    has failed: they are ended by MPI_Abort with the code.
    """
    if all_ranks is None or all_ranks.end.size == 1:
        if outcome.message:
            print(outcome.message, file=sys.stderr, flush=True)
        return outcome.code
    import numpy as np

    comm = all_ranks.end
    mine = np.array([outcome.code, bool(outcome.message)], dtype=np.int32)
    every = np.empty((comm.size, 2), dtype=np.int32)
    request = comm.Iallgather(mine, every)
    deadline = time.monotonic() + (PATIENCE if outcome.message else float("inf"))
    while not request.Test():
        if time.monotonic() > deadline:
            print(outcome.message, file=sys.stderr, flush=True)
            comm.Abort(outcome.code)
        time.sleep(0.005)
    speakers = np.flatnonzero(every[:, 1])
    if len(speakers) and comm.rank == speakers[0]:
        print(outcome.message, file=sys.stderr, flush=True)
    return int(every[:, 0].max())


@dataclass(frozen=True)
class Ranks:
    """All processes, twice: one communicator for the work and one to end it.

    A rank that fails while others work must not meet their messages with its own.
    """

    work: MPI.Intracomm
    end: MPI.Intracomm


@cache
def ranks() -> Ranks | None:
    """Return all processes, or None without mpi4py. Collective on first use."""
    try:
        from mpi4py import MPI
    except ImportError:
        return None
    return Ranks(MPI.COMM_WORLD, MPI.COMM_WORLD.Dup())


@contextmanager
def _progress(all_ranks: Ranks | None, quiet: bool) -> Iterator[None]:
    """Let rank 0 log to stderr, and nobody else."""
    log = logging.getLogger("fpsolve")
    before = log.level, log.propagate
    handler: logging.Handler = logging.NullHandler()
    if all_ranks is None or all_ranks.work.rank == 0:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("fpsolve: %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.level, log.propagate = before
