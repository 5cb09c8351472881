"""What a run leaves behind: summary.json for scripts, a table for people."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fpsolve import __version__
from fpsolve.theory.bounds import Bound

if TYPE_CHECKING:
    from fpsolve.app.run_exit import ExitAnswer

#: Kinds of bounds that summary.json always names; null where they were not asked for or do not apply.
KINDS = ("paper", "sharp", "certified")


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


def exit_summary(answer: ExitAnswer) -> dict[str, Any]:
    """Return the contents of summary.json of the exit command (the contract of the design, and more keys)."""
    result, case, comparison = answer.result, answer.case, answer.comparison
    return {
        "command": "exit",
        "title": case.title,
        "version": __version__,
        "case": case.path.name,
        "ranks": result.comm.size,
        "dofs": result.unknowns,
        "cells": result.cells,
        "seconds": answer.seconds,
        "epsilon2": result.process.epsilon2,
        "learning_rate": case.process.learning_rate,
        "batch_size": _batch_size(answer),
        "variables": list(result.process.variables),
        "converged": result.converged,
        "tolerance": case.mesh.tolerance,
        "scheme": result.scheme,
        "degree": result.degree,
        "solver": result.solver,
        "starts": [_start(answer, i) for i in range(len(result.starts))],
        "hypotheses": hypotheses(answer.bounds),
        "bounds": [_bound(bound) for bound in answer.bounds],
        "boundary": {key: result.boundary.measures[key] for key in ("absorbing", "reflecting", "characteristic")},
        "bounds_violated": comparison.violated,
        "mesh_points": comparison.points,
        "positive": comparison.positive,
        "smallest_value": comparison.smallest_value,
        "margins": {f"{m.name} {m.kind}": _margin(m) for m in comparison.margins},
        "flux": result.flux,
        "levels": [
            {"cells": v.cells, "dofs": v.unknowns, "mean": v.mean, "error": v.error, "seconds": v.seconds}
            for v in result.levels
        ],
        "messages": answer.messages,
    }


def _batch_size(answer: ExitAnswer) -> int | None:
    process = answer.case.process
    return None if process.learning_rate is None else process.batch_size or 1


def _start(answer: ExitAnswer, i: int) -> dict[str, Any]:
    result = answer.result
    entry: dict[str, Any] = {
        "x": result.starts[i],
        "mean": result.mean[i],
        "error": result.error[i, 0],
        "moments": result.moments[i],
        "moment_errors": result.error[i],
        "standard_deviation": _deviation(answer, i),
        "steps": _steps(answer, result.mean[i]),
    }
    for kind in dict.fromkeys([*KINDS, *(b.name for b in answer.bounds)]):
        entry[kind] = bounds_at(answer.bounds, kind, result.starts[i])
    return entry


def _deviation(answer: ExitAnswer, i: int) -> float | None:
    result = answer.result
    return float(result.standard_deviation[i]) if result.moments.shape[1] > 1 else None


def _steps(answer: ExitAnswer, time: float) -> float | None:
    rate = answer.case.process.learning_rate
    return None if rate is None else float(time) / rate


def bounds_at(bounds: Sequence[Bound], kind: str, x: np.ndarray) -> dict[str, float | None] | None:
    """Return {lower, upper} of one kind at a point; None where it does not apply or was not asked for.

    The printed (8) is no bound; it is given where its hypotheses hold, to be looked at.
    """
    values: dict[str, float | None] = {"lower": None, "upper": None}
    for bound in bounds:
        if bound.name == kind and (bound.verified or (kind == "printed" and bound.profile is not None)):
            value = float(bound.evaluate(x[None, :])[0])
            values[bound.kind] = value if math.isfinite(value) else None
    return None if all(value is None for value in values.values()) else values


def hypotheses(bounds: Iterable[Bound]) -> dict[str, Any]:
    """Return the constants in the theorems' hypotheses, the paper's before the sharp ones; see also ``bounds``."""
    found: dict[str, Any] = {}
    for bound in bounds:
        for name, constant in bound.hypotheses.items():
            found.setdefault(name, _constant(constant))
        direction = bound.parameters.get("direction")
        if direction is not None:
            found.setdefault("direction", {"value": direction, "kind": "chosen", "verified": True, "reason": ""})
    return found


def _constant(constant: Any) -> dict[str, Any]:
    return {
        "value": constant.value,
        "kind": constant.kind,
        "verified": constant.verified,
        "reason": constant.reason,
        "method": constant.method,
    }


def _bound(bound: Bound) -> dict[str, Any]:
    return {
        "name": bound.name,
        "kind": bound.kind,
        "theorem": bound.theorem,
        "verified": bound.verified,
        "reason": bound.reason,
        "hypotheses": {name: _constant(constant) for name, constant in bound.hypotheses.items()},
        "parameters": bound.parameters,
    }


def _margin(margin: Any) -> dict[str, Any]:
    return {"violations": margin.violations, "smallest_relative": margin.smallest, "where": margin.where}


# --- for people ------------------------------------------------------------------------------------------


def exit_table(answer: ExitAnswer, files: Sequence[Path] = ()) -> str:
    """Return the result as text: a line for each start, then boundary, hypotheses, messages and files."""
    blocks = [
        "\n".join(_heading(answer)),
        "\n".join(_starts(answer)),
        "\n".join(_facts(answer)),
        *("\n".join(part) for part in (_hypotheses(answer), _notes(answer)) if part),
        "\n".join(f"wrote {file}" for file in files),
    ]
    return "\n\n".join(block for block in blocks if block)


def _heading(answer: ExitAnswer) -> list[str]:
    result, process = answer.result, answer.case.process
    lines = [answer.case.title or answer.case.name]
    if result.process.epsilon2 is not None:
        rate, batch = process.learning_rate, _batch_size(answer)
        origin = f" (learning rate {rate:g}, batch size {batch})" if rate else ""
        lines.append(f"ε² = {result.process.epsilon2:g}{origin}")
    if process.learning_rate:
        lines.append(f"time in units in which one SGD step lasts η = {process.learning_rate:g}; steps = time/η")
    elif result.process.landscape is not None:
        lines.append("time in units in which one SGD step lasts η (the learning rate)")
    return lines


def _starts(answer: ExitAnswer) -> list[str]:
    result = answer.result
    kinds = list(dict.fromkeys(bound.name for bound in answer.bounds))
    head = ["start", "mean exit time", "± error"]
    head += ["std"] if result.moments.shape[1] > 1 else []
    head += ["steps"] if answer.case.process.learning_rate else []
    sides = [(kind, side) for kind in kinds for side in ("lower", "upper") if (kind, side) != ("printed", "lower")]
    rows = [head + [f"{kind} {side}" if kind != "printed" else "printed (8)" for kind, side in sides]]
    for i, x in enumerate(result.starts):
        row = [f"({', '.join(f'{c:g}' for c in x)})", f"{result.mean[i]:.10g}", f"{result.error[i, 0]:.1e}"]
        row += [f"{_deviation(answer, i):.6g}"] if result.moments.shape[1] > 1 else []
        row += [f"{_steps(answer, result.mean[i]):.6g}"] if answer.case.process.learning_rate else []
        for kind, side in sides:
            value = (bounds_at(answer.bounds, kind, x) or {}).get(side)
            row.append("-" if value is None else f"{value:.6g}")
        rows.append(row)
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines; the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells[1:]]))
    return lines


def _facts(answer: ExitAnswer) -> list[str]:
    result, comparison = answer.result, answer.comparison
    measures = result.boundary.measures
    parts = ", ".join(f"{measures[name]:.6g} {name}" for name in ("absorbing", "reflecting", "characteristic"))
    verified = sum(bound.verified for bound in answer.bounds)
    checked = (
        f"{comparison.violated} of {comparison.points} mesh points outside {verified} verified bounds and u >= 0"
        if comparison.violated
        else f"u >= 0 and within {verified} verified bounds at all {comparison.points} mesh points"
    )
    tolerance = answer.case.mesh.tolerance
    asked = "" if tolerance is None else f", tolerance {tolerance:g} {'met' if result.converged else 'NOT met'}"
    return [
        f"boundary  {parts} (measure)",
        f"check     {checked}",
        f"mesh      {result.cells} cells, {result.unknowns} unknowns, {result.scheme}{result.degree}, "
        f"{len(result.levels)} level(s){asked}",
        f"solver    {result.solver}; {result.comm.size} rank(s), {answer.seconds:.1f} s",
    ]


def _hypotheses(answer: ExitAnswer) -> list[str]:
    lines = []
    for bound in answer.bounds:
        state = "holds" if bound.verified else "not a bound"
        lines.append(f"{bound.name} {bound.kind}: {bound.theorem}: {state}")
        signs = {"lower": ">=", "upper": "<="}
        constants = [f"{name} {signs[c.kind]} {c.value:.6g}" for name, c in bound.hypotheses.items()]
        direction = bound.parameters.get("direction")
        if direction is not None:
            constants.append(f"v = ({', '.join(f'{c:.4g}' for c in direction)})")
        if constants:
            lines.append(f"  {', '.join(constants)}")
    return lines


def _notes(answer: ExitAnswer) -> list[str]:
    return [text if text.startswith(("error:", "warning:")) else f"note: {text}" for text in answer.messages]
