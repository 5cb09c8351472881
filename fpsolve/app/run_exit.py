"""The exit command: from a case file to the mean exit time, its bounds, their comparison and the written results."""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mpi4py import MPI

from fpsolve.app.build import build
from fpsolve.app.case import Case
from fpsolve.app.report import exit_summary, exit_table, write_json
from fpsolve.errors import InputError
from fpsolve.fem.parallel import on_root
from fpsolve.problems.compare import Comparison, compare
from fpsolve.problems.exit import ExitResult, mean_exit_time
from fpsolve.theory.bounds import Bound, all_bounds

log = logging.getLogger("fpsolve")


@dataclass(frozen=True)
class ExitAnswer:
    """All that the exit command found; the same on every rank.

    Attributes
    ----------
    bounds : list of Bound
        Also those that do not apply.
    messages : list of str
        What the user should know; errors begin with "error:".
    """

    case: Case
    result: ExitResult
    bounds: list[Bound]
    comparison: Comparison
    seconds: float
    messages: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0, or 3 when the tolerance is not met or a bound is violated."""
        return 0 if self.result.converged and self.comparison.violated == 0 else 3


def answer_exit(case: Case, comm: MPI.Comm) -> ExitAnswer:
    """Answer the question of a case: solve, bound, compare. Collective.

    Raises
    ------
    InputError, NoFiniteAnswer, NotConverged
        On every rank.
    """
    began = time.perf_counter()
    process, domain, starts = build(case, comm)
    mesh = case.mesh
    result = mean_exit_time(
        process, domain, comm=comm, starts=starts, tolerance=mesh.tolerance, size=mesh.size, scheme=mesh.scheme,
        degree=mesh.degree, moments=case.exit.moments, max_unknowns=mesh.max_unknowns,
    )  # fmt: skip
    if case.exit.bounds:
        log.info("bounds: %s", ", ".join(case.exit.bounds))
    # their search has a time budget, so ranks could find different ones
    bounds = on_root(comm, lambda: all_bounds(process, domain, case.exit.bounds))
    comparison = compare(result, bounds)
    messages = [*result.messages, *_bound_messages(bounds), *_violations(comparison)]
    return ExitAnswer(case, result, bounds, comparison, time.perf_counter() - began, messages)


def _bound_messages(bounds: Sequence[Bound]) -> list[str]:
    return [f"{b.name} {b.kind} bound ({b.theorem}): {b.reason}" for b in bounds if not b.verified]


def _violations(comparison: Comparison) -> list[str]:
    found = [
        f"error: the {m.name} {m.kind} bound is violated at {m.violations} of {comparison.points} mesh points beyond "
        f"the error estimate (smallest margin {m.smallest:.3e} of max u, at {m.where}); "
        "the solution, its error estimate or the bound is wrong"
        for m in comparison.margins
        if m.violations
    ]
    if not comparison.positive:
        found.append(
            f"error: the mean exit time is negative beyond the error estimate (smallest value "
            f"{comparison.smallest_value:.6g}); use a smaller mesh.size or mesh.tolerance"
        )
    return found


def run_exit(
    case: Case,
    out: str | Path | None,
    comm: MPI.Comm,
    figures: bool = True,
    unused_options: Callable[[], list[str]] = list,
) -> int:
    """Run the exit command and return its exit code. Collective.

    Parameters
    ----------
    case : Case
    out : path, optional
        Directory of the results; ``results/<name of the case>`` when not given.
    figures : bool
        Whether to draw PNG figures.
    unused_options : callable
        Returns the PETSc options that nothing has looked at, after the run.

    Raises
    ------
    InputError, NoFiniteAnswer, NotConverged
        On every rank. Nothing is written then, and an older summary.json of the directory is gone.
    """
    directory = Path(out) if out is not None else Path("results") / case.name
    on_root(comm, lambda: _prepare(directory))
    answer = answer_exit(case, comm)
    log.info("fields")
    files, problems = _write_extra("fpsolve.app.fields", "write_fields", (answer.result, directory))
    if figures:
        log.info("figures")
        more, other = _write_extra("fpsolve.app.figures", "exit_figures", (answer.result, answer.bounds, directory))
        files, problems = files + more, problems + other
    unused = unused_options()
    if unused:
        problems.append(f"warning: unused PETSc options: {' '.join(unused)}")
    answer.messages.extend(problems)
    summary = exit_summary(answer)
    on_root(comm, lambda: write_json(directory / "summary.json", summary))
    if comm.rank == 0:
        print(exit_table(answer, [directory / "summary.json", *files]), flush=True)
    return answer.exit_code


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


def _write_extra(module: str, name: str, arguments: tuple[object, ...]) -> tuple[list[Path], list[str]]:
    """Write figures or fields; a failure becomes a message, since the numbers are more important. Collective."""
    try:
        written = getattr(importlib.import_module(module), name)(*arguments)
        return [Path(file) for file in written or []], []
    except Exception as error:
        what = module.rsplit(".", 1)[-1]
        log.debug("%s failed", what, exc_info=True)
        text = " ".join(str(error).split())
        return [], [f"warning: no {what}: {type(error).__name__}: {text}"]
