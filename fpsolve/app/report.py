"""What a run leaves behind: summary.json for scripts, a table for people."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from mpi4py import MPI

import numpy as np

from fpsolve import __version__
from fpsolve.model.covariance_models import ModelledCovariance
from fpsolve.model.subspace import Restriction

if TYPE_CHECKING:
    from fpsolve.app.case import Case
    from fpsolve.model.process import Process


#: Parameters beside a subspace that the table still lists.
SHOWN_PARAMETERS = 8


def plain(value: Any) -> Any:
    """Return the same as JSON can hold it: no NumPy types, and null for numbers that are not finite."""
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(entry) for entry in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write JSON aside and rename, so that nobody ever reads half a file. Not collective."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    text = json.dumps(plain(data), indent=2, ensure_ascii=False, allow_nan=False)
    try:
        aside.write_text(text + "\n", encoding="utf-8")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


T = TypeVar("T")


class Solved(Protocol):
    """What the results of all commands have."""

    @property
    def process(self) -> Process:
        """The process."""

    @property
    def comm(self) -> MPI.Comm:
        """The ranks that solved."""

    @property
    def unknowns(self) -> int:
        """Of the finest mesh."""

    @property
    def cells(self) -> int:
        """Of the finest mesh."""

    @property
    def scheme(self) -> str:
        """``"dg"``, ``"cg"`` or ``"sg"``."""

    @property
    def degree(self) -> int:
        """Of the elements."""

    @property
    def solver(self) -> str:
        """How the linear systems were solved."""

    @property
    def converged(self) -> bool:
        """Whether it was reached."""


def common_summary(command: str, case: Case, result: Solved, seconds: float, messages: Sequence[str]) -> dict[str, Any]:
    """Return what summary.json of every command holds."""
    return {
        "command": command,
        "title": case.title,
        "version": __version__,
        "case": case.path.name,
        "ranks": result.comm.size,
        "dofs": result.unknowns,
        "cells": result.cells,
        "seconds": seconds,
        "epsilon2": result.process.epsilon2,
        "learning_rate": case.process.learning_rate,
        "batch_size": batch_size(case),
        "step_length": step_length(case),
        "variables": list(result.process.variables),
        "subspace": subspace_facts(result.process),
        "converged": result.converged,
        "tolerance": case.mesh.tolerance,
        "scheme": result.scheme,
        "degree": result.degree,
        "solver": result.solver,
        "messages": list(messages),
    }


def subspace_facts(process: Process) -> dict[str, Any] | None:
    """Return origin and directions of the subspace that the variables are coordinates of, if they are."""
    landscape = process.landscape
    if isinstance(landscape, ModelledCovariance):
        landscape = landscape.base
    if not isinstance(landscape, Restriction):
        return None
    return {
        "parameters": list(landscape.full.variables),
        "origin": landscape.subspace.origin,
        "directions": landscape.subspace.basis.T,
    }


def batch_size(case: Case) -> int | None:
    """Return the batch size; None where no learning rate is given."""
    return None if case.process.learning_rate is None else case.process.batch_size or 1


def step_length(case: Case) -> float | None:
    """Return the time that one step of SGD lasts: η, with momentum √η; None where no learning rate is given."""
    rate = case.process.learning_rate
    return rate if rate is None or case.process.momentum is None else math.sqrt(rate)


def steps_of(case: Case, time: float) -> float | None:
    """Return how many steps of SGD a time is; None where no learning rate is given."""
    length = step_length(case)
    return None if length is None else float(time) / length


def constant(value: Any) -> dict[str, Any]:
    """Return a constant in a theorem's hypotheses."""
    return {
        "value": value.value,
        "kind": value.kind,
        "verified": value.verified,
        "reason": value.reason,
        "method": value.method,
    }


def bound_facts(bound: Any) -> dict[str, Any]:
    """Return what a bound rests on."""
    return {
        "name": bound.name,
        "kind": bound.kind,
        "theorem": bound.theorem,
        "verified": bound.verified,
        "reason": bound.reason,
        "hypotheses": {name: constant(entry) for name, entry in bound.hypotheses.items()},
        "parameters": bound.parameters,
    }


# --- for people ------------------------------------------------------------------------------------------


def heading(case: Case, process: Process) -> list[str]:
    """Return the title, the noise and the unit of time."""
    lines = [case.title or case.name]
    rate, length = case.process.learning_rate, step_length(case)
    if process.epsilon2 is not None:
        origin = f" (learning rate {rate:g}, batch size {batch_size(case)})" if rate else ""
        lines.append(f"ε² = {process.epsilon2:g}{origin}")
    if case.process.momentum is not None:
        lines.append(f"momentum {case.process.momentum:g}, learning rate {rate:g}, batch size {batch_size(case)}")
        lines.append(f"time in units in which one SGD step lasts √η = {length:g}; steps = time/√η")
    elif rate:
        lines.append(f"time in units in which one SGD step lasts η = {rate:g}; steps = time/η")
    elif process.landscape is not None:
        lines.append("time in units in which one SGD step lasts η (the learning rate)")
    return [*lines, *_subspace_lines(process)]


def _subspace_lines(process: Process) -> list[str]:
    part = subspace_facts(process)
    if part is None:
        return []
    names = part["parameters"]
    if len(names) > SHOWN_PARAMETERS:
        return [f"subspace of {len(names)} parameters: origin and directions are in summary.json"]
    along = zip(process.variables, part["directions"], strict=True)
    axes = ", ".join(f"{name} along {point_text(direction)}" for name, direction in along)
    return [f"subspace of ({', '.join(names)}): origin {point_text(part['origin'])}, {axes}"]


def table_text(blocks: Sequence[Sequence[str]], messages: Sequence[str], files: Sequence[Path]) -> str:
    """Return blocks of lines with messages and files, an empty line between them."""
    notes = [text if text.startswith(("error:", "warning:")) else f"note: {text}" for text in messages]
    every = [*blocks, notes, [f"wrote {file}" for file in files]]
    return "\n\n".join("\n".join(block) for block in every if block)


def solver_facts(case: Case, result: Solved, seconds: float, meshes: int | None = None) -> list[str]:
    """Return the lines on mesh and solver."""
    tolerance = case.mesh.tolerance
    asked = "" if tolerance is None else f", tolerance {tolerance:g} {'met' if result.converged else 'NOT met'}"
    levels = "" if meshes is None else f", {meshes} level(s)"
    return [
        f"mesh      {result.cells} cells, {result.unknowns} unknowns, {result.scheme}{result.degree}{levels}{asked}",
        f"solver    {result.solver}; {result.comm.size} rank(s), {seconds:.1f} s",
    ]


def bound_lines(bound: Any) -> list[str]:
    """Return whether a bound holds and the constants it rests on."""
    state = "holds" if bound.verified else "not a bound"
    lines = [f"{bound.name} {bound.kind}: {bound.theorem}: {state}"]
    constants = constants_text(bound)
    return [*lines, f"  {', '.join(constants)}"] if constants else lines


def bound_messages(bounds: Sequence[Any]) -> list[str]:
    """Return why bounds do not apply."""
    return [f"{b.name} {b.kind} bound ({b.theorem}): {b.reason}" for b in bounds if not b.verified]


def theorem_name(bound: Any) -> str:
    """Return the theorem with the name of its form, if that is not part of it."""
    return str(bound.theorem) if bound.name in bound.theorem else f"{bound.theorem} ({bound.name})"


def constants_text(bound: Any) -> list[str]:
    """Return the constants in a theorem's hypotheses with their sides, and the direction."""
    signs = {"lower": ">=", "upper": "<="}
    constants = [f"{name} {signs.get(c.kind, '=')} {c.value:.6g}" for name, c in bound.hypotheses.items()]
    direction = bound.parameters.get("direction")
    if direction is not None:
        constants.append(f"v = ({', '.join(f'{c:.4g}' for c in direction)})")
    return constants


def evenly(entries: Sequence[T], most: int) -> list[T]:
    """Return at most so many of the entries, evenly chosen, with the first and the last."""
    if len(entries) <= most:
        return list(entries)
    return [entries[k] for k in np.unique(np.round(np.linspace(0, len(entries) - 1, most)).astype(int))]


def point_text(x: np.ndarray) -> str:
    """Return coordinates in parentheses."""
    return f"({', '.join(f'{c:g}' for c in x)})"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines; the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells[1:]]))
    return lines
