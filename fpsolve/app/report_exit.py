"""The exit command's summary.json and table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpsolve.app.report import (
    aligned,
    bound_facts,
    bound_lines,
    common_summary,
    heading,
    point_text,
    solver_facts,
    steps_of,
    table_text,
)
from fpsolve.app.report_bounds import KINDS, bounds_at, hypotheses
from fpsolve.app.report_models import NAMES, model_lines, models_facts
from fpsolve.app.report_numbers import enclosure_text

if TYPE_CHECKING:
    from fpsolve.app.run_exit import ExitAnswer


def exit_summary(answer: ExitAnswer) -> dict[str, Any]:
    """Return the contents of summary.json of the exit command (the contract of the design, and more keys)."""
    result, case, comparison = answer.result, answer.case, answer.comparison
    return common_summary("exit", case, result, answer.seconds, answer.messages) | {
        "model": case.exit.model,
        "epsilon2": answer.process.epsilon2,
        "starts": [_start(answer, i) for i in range(len(result.starts))],
        "hypotheses": hypotheses(answer.bounds),
        "bounds": [bound_facts(bound) for bound in answer.bounds],
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
        **models_facts(answer.models),
    }


def _start(answer: ExitAnswer, i: int) -> dict[str, Any]:
    result = answer.result
    entry: dict[str, Any] = {
        "x": result.starts[i],
        "mean": result.mean[i],
        "error": result.error[i, 0],
        "moments": result.moments[i],
        "moment_errors": result.error[i],
        "standard_deviation": _deviation(answer, i),
        "steps": steps_of(answer.case, result.mean[i]),
    }
    for kind in dict.fromkeys([*KINDS, *(b.name for b in answer.bounds)]):
        entry[kind] = bounds_at(answer.bounds, kind, result.starts[i])
    return entry


def _deviation(answer: ExitAnswer, i: int) -> float | None:
    result = answer.result
    return float(result.standard_deviation[i]) if result.moments.shape[1] > 1 else None


def _margin(margin: Any) -> dict[str, Any]:
    return {"violations": margin.violations, "smallest_relative": margin.smallest, "where": margin.where}


# --- for people ------------------------------------------------------------------------------------------


def exit_table(answer: ExitAnswer, files: Sequence[Path] = ()) -> str:
    """Return the result as text: a line for each start, then boundary, hypotheses, messages and files."""
    bounds = [line for bound in answer.bounds for line in bound_lines(bound)]
    blocks = [heading(answer.case, answer.process), _starts(answer), _facts(answer), bounds]
    blocks.append(model_lines(answer.models, answer.case))
    return table_text(blocks, answer.messages, files)


def _starts(answer: ExitAnswer) -> list[str]:
    result = answer.result
    kinds = list(dict.fromkeys(bound.name for bound in answer.bounds))
    head = ["start", "mean exit time", "± error"]
    head += ["std"] if result.moments.shape[1] > 1 else []
    head += ["steps"] if answer.case.process.learning_rate else []
    sides = [(kind, side) for kind in kinds for side in ("lower", "upper") if (kind, side) != ("printed", "lower")]
    rows = [head + [f"{kind} {side}" if kind != "printed" else "printed (8)" for kind, side in sides]]
    for i, x in enumerate(result.starts):
        row = [point_text(x), f"{result.mean[i]:.10g}", f"{result.error[i, 0]:.1e}"]
        row += [f"{_deviation(answer, i):.6g}"] if result.moments.shape[1] > 1 else []
        row += [f"{steps_of(answer.case, result.mean[i]):.6g}"] if answer.case.process.learning_rate else []
        for kind in kinds:
            values = bounds_at(answer.bounds, kind, x) or {}
            texts = dict(zip(("lower", "upper"), enclosure_text(values.get("lower"), values.get("upper")), strict=True))
            row += [texts[side] for name, side in sides if name == kind]
        rows.append(row)
    return aligned(rows)


def _facts(answer: ExitAnswer) -> list[str]:
    result, comparison = answer.result, answer.comparison
    measures = result.boundary.measures
    parts = ", ".join(f"{measures[name]:.6g} {name}" for name in ("absorbing", "reflecting", "characteristic"))
    verified = sum(bound.verified for bound in answer.bounds)
    within = f" and within {verified} verified bounds" if verified else ""
    checked = (
        f"{comparison.violated} of {comparison.points} mesh points outside {verified} verified bounds and u >= 0"
        if comparison.violated
        else f"u >= 0{within} at all {comparison.points} mesh points"
    )
    name = answer.case.exit.model
    return [
        *([] if name == "diffusion" else [f"model     {NAMES[name]}"]),
        f"boundary  {parts} (measure)",
        f"check     {checked}",
        *solver_facts(answer.case, result, answer.seconds, len(result.levels)),
    ]
