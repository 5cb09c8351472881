"""The evolve and backward commands' summary.json and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fpsolve.app.report import (
    aligned,
    bound_facts,
    common_summary,
    constants_text,
    evenly,
    heading,
    point_text,
    solver_facts,
    steps_of,
    table_text,
    theorem_name,
)

if TYPE_CHECKING:
    from fpsolve.app.run_backward import BackwardAnswer
    from fpsolve.app.run_evolve import EvolveAnswer
    from fpsolve.problems.evolution import Cost, Record, Step

#: Rows of the table of times for people.
ROWS = 24


def evolve_summary(answer: EvolveAnswer) -> dict[str, Any]:
    """Return the contents of summary.json of the evolve command (the contract of the design, and more keys)."""
    result = answer.result
    common = common_summary("evolve", answer.case, result, answer.seconds, answer.messages)
    return common | _marched(result.steps, result.cost) | {
        "boundary_condition": result.boundary_condition,
        "nonnegative": result.nonnegative,
        "order": result.order,
        "observables": list(result.observables),
        "times": [_time(answer, k) for k in range(len(result.records))],
        "minima": result.minima,
        "reference": None if result.reference is None else getattr(result.reference, "origin", "given"),
        "rejected": result.rejected,
        "bounds": [_bound(bound, margin) for bound, margin in zip(answer.bounds, answer.margins, strict=True)],
        "bounds_violated": answer.violated,
        "state": None if answer.state is None else answer.state.name,
    }  # fmt: skip


def _time(answer: EvolveAnswer, k: int) -> dict[str, Any]:
    record = answer.result.records[k]
    entry = asdict(record)
    entry["steps"] = steps_of(answer.case, record.t)
    entry["errors"] = {name: values[k] for name, values in answer.result.errors.items()}
    return entry


def _marched(steps: Sequence[Step], cost: Cost) -> dict[str, Any]:
    """Return how many time steps there were, of what length, and what they cost."""
    lengths = [step.dt for step in steps]
    return {
        "steps": len(steps),
        "step_range": [min(lengths), max(lengths)] if lengths else None,
        "largest_step_error": max((step.error for step in steps), default=None),
        "cost": asdict(cost),
    }


def _bound(bound: Any, margin: Any) -> dict[str, Any]:
    """Return a theorem with its values at the stored times; numbers that are not finite become null."""
    return bound_facts(bound) | {
        "quantity": bound.quantity,
        "times": margin.times,
        "values": margin.values,
        "limits": margin.bounds,
        "margins": margin.margins,
        "allowed": margin.allowed,
        "smallest_relative": margin.smallest,
        "violations": margin.violations,
        "violated": bool(margin.violations),
    }


def backward_summary(answer: BackwardAnswer) -> dict[str, Any]:
    """Return the contents of summary.json of the backward command."""
    result = answer.result
    common = common_summary("backward", answer.case, result, answer.seconds, answer.messages)
    return common | _marched(result.steps, result.cost) | {
        "boundary_condition": result.boundary_condition,
        "order": result.order,
        "terminal": result.terminal,
        "points": result.points,
        "times": [
            {
                "t": t,
                "steps": steps_of(answer.case, t),
                "values": result.values[k],
                "errors": None if result.errors is None else result.errors[k],
            }
            for k, t in enumerate(result.times)
        ],
        "duality_defect": result.duality_defect,
    }  # fmt: skip


# --- for people ------------------------------------------------------------------------------------------


def evolve_table(answer: EvolveAnswer, files: Sequence[Path] = ()) -> str:
    """Return the result as text: a line for each stored time, then theorems, facts, messages and files."""
    result = answer.result
    blocks = [
        heading(answer.case, result.process),
        _times_table(answer),
        _errors(result.errors, result.records),
        _facts(answer),
        _bounds(answer),
    ]
    state = [] if answer.state is None else [answer.state]
    return table_text(blocks, answer.messages, [*files, *state])


def _times_table(answer: EvolveAnswer) -> list[str]:
    result = answer.result
    names = result.process.variables
    counted = steps_of(answer.case, 1.0) is not None
    known = any(record.entropy is not None for record in result.records)
    wells = len(result.minima) if len(result.minima) > 1 else 0
    absorbing = result.boundary_condition == "absorbing"
    head = ["t", *(["steps"] if counted else []), "P(τ > t)" if absorbing else "mass"]
    head += ["density of τ"] if absorbing else []
    head += ["minimum", *(f"mean {name}" for name in names), *(f"var {name}" for name in names)]
    head += ["entropy"] if known else []
    head += [f"g{k + 1}" for k in range(len(result.observables))] + [f"well {k + 1}" for k in range(wells)]
    rows = [head]
    for record in evenly(result.records, ROWS):
        row = [f"{record.t:g}", *([f"{steps_of(answer.case, record.t):.6g}"] if counted else [])]
        row += [f"{record.mass:.8g}", *([f"{record.outflow:.5g}"] if absorbing else [])]
        row += [f"{record.minimum:.1e}", *(f"{m:.6g}" for m in record.mean)]
        row += [f"{v:.6g}" for v in np.diag(record.covariance)]
        row += ["-" if record.entropy is None else f"{record.entropy:.5g}"] if known else []
        row += [f"{value:.6g}" for value in record.observables]
        row += [f"{value:.6g}" for value in record.basins] if wells else []
        rows.append(row)
    legend = [f"g{k + 1} = {formula}" for k, formula in enumerate(result.observables)]
    legend += [f"well {k + 1}: basin of attraction of {point_text(x)}" for k, x in enumerate(result.minima) if wells]
    left_out = len(result.records) - (len(rows) - 1)
    legend += [f"... {left_out} more stored times in summary.json"] if left_out else []
    return [*aligned(rows), *legend]


def _errors(errors: Mapping[str, np.ndarray], records: Sequence[Record]) -> list[str]:
    """Return the largest estimated errors over all times."""
    if not errors:
        return ["error     not estimated: give mesh.tolerance for a control run"]
    parts = [f"{name} {float(np.max(values)):.1e}" for name, values in errors.items() if np.size(values)]
    near = max(record.near_boundary for record in records)
    return [
        f"error     estimated, largest over all times: {', '.join(parts)}",
        f"boundary  mass near it at most {near:.1e}",
    ]


def _steps_line(steps: Sequence[Step], cost: Cost, order: int, rejected: int | None = None) -> list[str]:
    lengths = [step.dt for step in steps] or [0.0]
    again = "" if rejected is None else f", {rejected} rejected"
    return [
        f"time      {len(steps)} steps of {min(lengths):.3g} to {max(lengths):.3g}{again}, order {order}",
        f"cost      assembly {cost.assembly:.2f} s, {cost.factorisations} factorisations {cost.factorisation:.2f} s, "
        f"{cost.solves} solves {cost.solving:.2f} s, monitoring {cost.monitoring:.2f} s",
    ]


def _facts(answer: EvolveAnswer) -> list[str]:
    result = answer.result
    lowest = min(record.minimum / max(record.maximum, 1e-300) for record in result.records)
    kept = "kept by the scheme" if result.nonnegative else "not kept by the scheme"
    drift = max(abs(record.mass - result.records[0].mass) for record in result.records)
    checks = [f"smallest density {lowest:.1e} of the largest (ρ >= 0 {kept})"]
    checks += [f"mass changed by {drift:.1e}"] if result.boundary_condition == "no-flux" else []
    verified = sum(margin.verified for margin in answer.margins)
    checks += [f"{answer.violated} of {verified} proven theorems violated"] if verified else []
    return [
        f"check     {'; '.join(checks)}",
        *_steps_line(result.steps, result.cost, result.order, result.rejected),
        *solver_facts(answer.case, result, answer.seconds),
    ]


def _bounds(answer: EvolveAnswer) -> list[str]:
    """Return the theorems that say something about this problem; the reasons of the others are among the messages."""
    rows = [["theorem", "bounds", "quantity", "proven here", "smallest margin"]]
    constants: dict[str, None] = {}  # in order, each once
    for bound, margin in zip(answer.bounds, answer.margins, strict=True):
        if not np.isfinite(margin.bounds).any():
            continue
        constants |= dict.fromkeys(constants_text(bound))
        state = f"{margin.smallest:.1e}" if np.isfinite(margin.smallest) else "-"
        if margin.violations:
            state = "VIOLATED" if bound.verified else "not met"
        rows.append([theorem_name(bound), bound.kind, bound.quantity, "yes" if bound.verified else "no", state])
    return [*aligned(rows), f"with {', '.join(constants)}"] if len(rows) > 1 else []


def backward_table(answer: BackwardAnswer, files: Sequence[Path] = ()) -> str:
    """Return the result as text: a line for each stored time, a column for each point."""
    result = answer.result
    counted = steps_of(answer.case, 1.0) is not None
    rows = [["t", *(["steps"] if counted else []), *(f"from {point_text(x)}" for x in result.points)]]
    rows[0] += [] if result.errors is None else ["± largest error"]
    for k, t in enumerate(result.times):
        row = [f"{t:g}", *([f"{steps_of(answer.case, t):.6g}"] if counted else [])]
        row += [f"{value:.10g}" for value in result.values[k]]
        row += [] if result.errors is None else [f"{float(np.max(result.errors[k])):.1e}"]
        rows.append(row)
    defect = "not claimed by this scheme" if result.duality_defect is None else f"defect {result.duality_defect:.1e}"
    facts = [
        f"duality   ∫ρ(t)φ = ∫ρ₀u(t): {defect}",
        *_steps_line(result.steps, result.cost, result.order),
        *solver_facts(answer.case, result, answer.seconds),
    ]
    killed = "; 0 for paths that have left" if result.boundary_condition == "absorbing" else ""
    title = [f"E φ(X_t), φ = {result.terminal}{killed}"]
    return table_text([heading(answer.case, result.process), title + aligned(rows), facts], answer.messages, files)
