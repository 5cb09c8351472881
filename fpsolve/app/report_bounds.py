"""The bounds command's summary.json and table, its certificate as a file, and bounds in the summary of any command."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fpsolve.app.report import (
    aligned,
    bound_facts,
    bound_lines,
    common_summary,
    heading,
    point_text,
    steps_of,
    table_text,
    write_json,
)
from fpsolve.app.report import constant as constant_facts
from fpsolve.app.report_numbers import enclosure_text, width_text
from fpsolve.app.report_questions import question_blocks, questions_summary, start_summary
from fpsolve.fem.parallel import on_root
from fpsolve.theory.bounds import Bound

if TYPE_CHECKING:
    from fpsolve.app.run_bounds import BoundsAnswer

#: Kinds of bounds that summary.json always names; null where they were not asked for or do not apply.
KINDS = ("paper", "sharp", "certified")
#: The name of the file that `fpsolve verify` reads.
CERTIFICATE = "certificate.json"


def write_certificate(answer: BoundsAnswer, directory: Path) -> list[Path]:
    """Write the certificate aside and rename it; return its path. Collective.

    Raises
    ------
    OSError
        On every rank.
    """
    path, certificate = directory / CERTIFICATE, answer.enclosure.certificate or {}
    on_root(answer.comm, lambda: write_json(path, certificate))
    return [path]


def bounds_summary(answer: BoundsAnswer) -> dict[str, Any]:
    """Return the contents of summary.json of the bounds command."""
    enclosure, asked = answer.enclosure, answer.case.bounds
    return common_summary("bounds", answer.case, answer, answer.seconds, answer.messages) | {
        "tolerance": asked.width,
        "budget": asked.budget,
        "starts": [_start(answer, i) for i in range(len(answer.starts))],
        "width": enclosure.width if all(math.isfinite(start.upper) for start in enclosure.starts) else None,
        "reached": enclosure.reached,
        "limited_by": enclosure.limited_by,
        "hypotheses": hypotheses(answer.bounds),
        "bounds": [bound_facts(bound) for bound in answer.bounds],
        "unreachable": [{"part": p.name, "proved": p.proved, "reason": p.reason} for p in enclosure.unreachable],
        "attempts": [
            {"method": a.method, "degree": a.degree, "width": a.width, "seconds": a.seconds} for a in enclosure.attempts
        ],
        "certificate": None if enclosure.certificate is None else CERTIFICATE,
        **questions_summary(answer),
    }


def _start(answer: BoundsAnswer, i: int) -> dict[str, Any]:
    start, source, x = answer.enclosure.starts[i], answer.enclosure.sources[i], answer.starts[i]
    lower, upper = (steps_of(answer.case, value) for value in (start.lower, start.upper))
    entry: dict[str, Any] = {
        "x": x,
        "lower": start.lower,
        "upper": start.upper,
        "width": start.width if math.isfinite(start.upper) else None,
        "from": {"lower": source[0], "upper": source[1]},
        "steps": None if lower is None or upper is None else _outward(lower, upper),
    }
    return entry | {kind: _kind_at(answer, kind, i) for kind in KINDS} | start_summary(answer, i)


def _kind_at(answer: BoundsAnswer, kind: str, i: int) -> dict[str, float | None] | None:
    """Return {lower, upper} of one kind at a start; None where it does not apply."""
    values = bounds_at(answer.bounds, kind, answer.starts[i])
    if values is None:
        return None
    start = answer.enclosure.starts[i]
    # evaluated in balls at the starts, and with larger allowances for rounding elsewhere
    best = {"lower": (start.lower_from, start.lower), "upper": (start.upper_from, start.upper)}
    return {side: best[side][1] if best[side][0] == kind else value for side, value in values.items()}


def _outward(lower: float, upper: float) -> dict[str, float]:
    """Take back the rounding of one operation."""
    return {"lower": max(math.nextafter(lower, -math.inf), 0.0), "upper": math.nextafter(upper, math.inf)}


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
            found.setdefault(name, constant_facts(constant))
        direction = bound.parameters.get("direction")
        if direction is not None:
            found.setdefault("direction", {"value": direction, "kind": "chosen", "verified": True, "reason": ""})
    return found


# --- for people ------------------------------------------------------------------------------------------


def bounds_table(answer: BoundsAnswer, files: Sequence[Path] = ()) -> str:
    """Return the result as text: a line for each start, then how it was found, the theorems, messages and files."""
    theorems = [line for bound in answer.bounds for line in bound_lines(bound)]
    blocks = [heading(answer.case, answer.process), _starts(answer), *question_blocks(answer)]
    blocks += [_facts(answer), _attempts(answer), theorems]
    return table_text(blocks, answer.messages, files)


def _starts(answer: BoundsAnswer) -> list[str]:
    sides = [f"{kind} {side}" for kind in KINDS for side in ("lower", "upper")]
    rows = [["start", "E τ >=", "E τ <=", "width", "from", *sides]]
    for i, start in enumerate(answer.enclosure.starts):
        sources = [source or "-" for source in answer.enclosure.sources[i]]
        origin = sources[0] if sources[0] == sources[1] else " / ".join(sources)
        width = width_text(start.width) if math.isfinite(start.upper) else "-"
        row = [point_text(answer.starts[i]), *enclosure_text(start.lower or None, start.upper), width, origin]
        for kind in KINDS:
            values = _kind_at(answer, kind, i) or {}
            row += enclosure_text(values.get("lower") or None, values.get("upper"))
        rows.append(row)
    return aligned(rows)


def _facts(answer: BoundsAnswer) -> list[str]:
    enclosure, asked = answer.enclosure, answer.case.bounds
    state = "reached" if enclosure.reached else "NOT reached"
    known = all(math.isfinite(start.upper) for start in enclosure.starts)
    width = width_text(enclosure.width) if known else "infinite"
    lines = [f"width     {width}, relative; {asked.width:g} asked: {state}"]
    if enclosure.limited_by:
        lines.append(f"limit     {enclosure.limited_by}")
    for part in enclosure.unreachable:
        what = "proved to be out of reach" if part.proved else "counts as an exit"
        lines.append(f"boundary  {part.name}: {what}{': ' if part.reason else ''}{part.reason}")
    return [*lines, f"solver    {answer.solver}; {answer.comm.size} rank(s), {answer.seconds:.1f} s"]


def _attempts(answer: BoundsAnswer) -> list[str]:
    if not answer.enclosure.attempts:
        return []
    rows = [["attempt", "degree", "width", "seconds"]]
    for a in answer.enclosure.attempts:
        rows.append([str(a.method), str(a.degree), width_text(a.width), f"{a.seconds:.2f}"])
    return aligned(rows)


def width_messages(answer: BoundsAnswer) -> list[str]:
    """Return what the enclosure falls short of."""
    enclosure, asked = answer.enclosure, answer.case.bounds.width
    why = f"; what limits it: {enclosure.limited_by}" if enclosure.limited_by else ""
    if not answer.finite:
        return [f"error: no finite upper bound was found at any start{why}"]
    if enclosure.reached:
        return []
    wide = [
        f"{point_text(x)}: {width_text(start.width) if math.isfinite(start.upper) else 'no upper bound'}"
        for x, start in zip(answer.starts, enclosure.starts, strict=True)
        if not start.width <= asked
    ]
    where = f" ({', '.join(wide)})" if wide else ""
    return [f"warning: the bounds hold, but are wider than the relative width {asked:g} that was asked for{where}{why}"]
