"""Certified bounds beside those of the mean exit time: their part of summary.json, of the table and of the messages."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fpsolve.app.report import aligned, point_text
from fpsolve.app.report_numbers import enclosure_text

if TYPE_CHECKING:
    from fpsolve.app.bounds_questions import Pair, Question
    from fpsolve.app.run_bounds import BoundsAnswer

#: Names of the questions for people; the parts of the boundary are put in.
NAMES = {
    "second_moment": "E τ²",
    "survival": "P(τ > t)",
    "probability": "the probability to leave through {parts}",
}


def questions_summary(answer: BoundsAnswer) -> dict[str, Any]:
    """Return what was asked and, under ``questions``, whether it was proved and why not; null where not asked."""
    asked, found = answer.case.bounds, answer.further.questions
    facts = {name: _facts(found[name]) if name in found else None for name in NAMES}
    return {"moments": asked.moments, "times": asked.times, "parts": asked.parts, "questions": facts}


def _facts(question: Question) -> dict[str, Any]:
    return {"verified": question.verified, "reason": question.reason, "seconds": question.seconds}


def start_summary(answer: BoundsAnswer, i: int) -> dict[str, Any]:
    """Return the bounds at a start; null where not asked. An upper bound that is null is infinite."""
    further, times = answer.further, answer.case.bounds.times
    second, survival, probability = further.second_moment, further.survival, further.probability
    course = None
    if survival is not None:
        course = [{"t": t, **_sides(pair)} for t, pair in zip(times, survival.values[i], strict=True)]
    return {
        "second_moment": None if second is None else _sides(second.values[i][0]),
        "standard_deviation": None if further.deviation is None else _sides(further.deviation[i]),
        "survival": course,
        "rate": None if survival is None or survival.rate is None else _sides(survival.rate),
        "probability": None if probability is None else _sides(probability.values[i][0]),
    }


def _sides(pair: Pair) -> dict[str, float]:
    return {"lower": pair[0], "upper": pair[1]}


# --- for people ------------------------------------------------------------------------------------------


def question_blocks(answer: BoundsAnswer) -> list[list[str]]:
    """Return a block of lines for each question that was asked."""
    return [block(answer) for name, block in _BLOCKS.items() if name in answer.further.questions]


def _moments(answer: BoundsAnswer) -> list[str]:
    second, deviation = answer.further.second_moment, answer.further.deviation
    assert second is not None and deviation is not None
    rows = [["start", "E τ² >=", "E τ² <=", "std >=", "std <="]]
    for x, at, spread in zip(answer.starts, second.values, deviation, strict=True):
        rows.append([point_text(x), *_positive_text(at[0]), *_positive_text(spread)])
    return aligned(rows)


def _survival(answer: BoundsAnswer) -> list[str]:
    survival = answer.further.survival
    assert survival is not None and survival.rate is not None
    rows = [["start", "t", "P(τ > t) >=", "P(τ > t) <="]]
    for x, course in zip(answer.starts, survival.values, strict=True):
        rows += [
            [point_text(x), f"{t:g}", *enclosure_text(*pair)]
            for t, pair in zip(answer.case.bounds.times, course, strict=True)
        ]
    low, high = _positive_text(survival.rate)
    return [*aligned(rows), f"rate of decay of P(τ > t) for t → ∞: >= {low}, <= {high}"]


def _probability(answer: BoundsAnswer) -> list[str]:
    probability = answer.further.probability
    assert probability is not None
    event = f"P(leaves through {', '.join(answer.case.bounds.parts)})"
    rows = [["start", f"{event} >=", "<="]]
    for x, at in zip(answer.starts, probability.values, strict=True):
        rows.append([point_text(x), *enclosure_text(*at[0])])
    return aligned(rows)


_BLOCKS: dict[str, Callable[[BoundsAnswer], list[str]]] = {
    "second_moment": _moments, "survival": _survival, "probability": _probability,
}  # fmt: skip


def _positive_text(pair: Pair) -> tuple[str, str]:
    """Return bounds of a number without an upper limit; ``-`` where there is none."""
    return enclosure_text(pair[0] or None, pair[1])


def question_messages(answer: BoundsAnswer) -> list[str]:
    """Return a warning for each question with bounds that are not proved."""
    found = []
    for name, question in answer.further.questions.items():
        what = NAMES[name].format(parts=", ".join(answer.case.bounds.parts))
        missing = _missing(answer, question)
        if missing:
            found.append(f"warning: {what}: {missing}{f': {question.reason}' if question.reason else ''}")
    return found


def _missing(answer: BoundsAnswer, question: Question) -> str:
    """Return what is not proved of a question; nothing if both bounds are everywhere."""
    if not question.verified:
        return "no bounds"
    lacking = []
    if question.rate is not None:
        lacking += ["the rate of decay from below"] if question.rate[0] <= 0 else []
        lacking += ["the rate of decay from above"] if not math.isfinite(question.rate[1]) else []
    without = [
        point_text(x)
        for x, values in zip(answer.starts, question.values, strict=True)
        if any(not math.isfinite(high) or (low, high) == (0.0, 1.0) for low, high in values)
    ]
    if without:
        what = "upper bounds" if question is answer.further.second_moment else "bounds"
        lacking.append(f"{what} at {', '.join(without)}")
    return f"not proved: {', '.join(lacking)}" if lacking else ""
