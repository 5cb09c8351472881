"""What summary.json and the table say of models of SGD side by side, and of a chain by its transfer operator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fpsolve import __version__
from fpsolve.app.exit_models import ChainAnswer, ModelAnswer, Shares, shares
from fpsolve.app.report import (
    aligned,
    batch_size,
    heading,
    point_text,
    step_length,
    steps_of,
    subspace_facts,
    table_text,
)

#: In words, for people.
NAMES = {
    "diffusion": "diffusion, first order",
    "second-order": "diffusion, second-order drift",
    "shifted": "diffusion, boundary moved",
    "corrected": "diffusion, modified, boundary moved",
    "gaussian-chain": "chain with Gaussian noise",
    "chain": "SGD's own chain",
}


def models_facts(answers: Sequence[ModelAnswer]) -> dict[str, Any]:
    """Return the keys ``models`` and ``shares`` of summary.json."""
    part = shares(answers)
    return {
        "models": {
            a.name: {
                "mean": a.moments[:, 0], "error": a.error[:, 0], "converged": a.result.converged,
                "dofs": a.result.unknowns, "cells": a.result.cells, "seconds": a.seconds,
            }
            for a in answers
        },
        "shares": None if part is None else _shares(part),
    }  # fmt: skip


def _shares(part: Shares) -> list[dict[str, float]]:
    rows = zip(part.step, part.noise, part.error, strict=True)
    return [{"finite_step": float(s), "noise_shape": float(n), "error": float(e)} for s, n, e in rows]


def model_lines(answers: Sequence[ModelAnswer], case: Any) -> list[str]:
    """Return the models' mean exit times as lines, one for each model and start; nothing for a single model."""
    if len(answers) < 2:
        return []
    reference = next((a for a in answers if a.name == "chain"), answers[0])
    relative = "ratio to SGD's" if reference.name == "chain" else f"ratio to {reference.name}"
    rows = [["model", "start", "mean exit time", "± error", "steps", relative]]
    for answer in answers:
        for x, mean, error, other in zip(
            answer.result.starts, answer.moments[:, 0], answer.error[:, 0], reference.moments[:, 0], strict=True
        ):
            steps = steps_of(case, mean)
            rows.append(
                [
                    NAMES.get(answer.name, answer.name), point_text(x), f"{mean:.6g}", f"{error:.1e}",
                    "-" if steps is None else f"{steps:.6g}", f"{mean / other:.4f}",
                ]
            )  # fmt: skip
    return [*aligned(rows), *_share_lines(answers)]


def _share_lines(answers: Sequence[ModelAnswer]) -> list[str]:
    part = shares(answers)
    if part is None:
        return []
    x = answers[0].result.starts
    return [
        f"of SGD's time from {point_text(x[i])}: {100 * part.step[i]:.1f} % the finite step, "
        f"{100 * part.noise[i]:.1f} % the noise's shape, which no diffusion has (± {100 * part.error[i]:.1f} %)"
        for i in range(len(x))
    ]


# --- a chain alone ---------------------------------------------------------------------------------------


def chain_summary(answer: ChainAnswer) -> dict[str, Any]:
    """Return summary.json of the exit command with ``model = "chain"`` or ``"gaussian-chain"``."""
    result, case = answer.answer.result, answer.case
    nothing = {"paper": None, "sharp": None, "certified": None}  # bounds of the diffusion say nothing of the chain
    starts = [
        {
            "x": x, "mean": m[0], "error": e[0], "moments": m, "moment_errors": e,
            "standard_deviation": _deviation(m), "steps": steps_of(case, m[0]), **nothing,
        }
        for x, m, e in zip(result.starts, result.moments, result.error, strict=True)
    ]  # fmt: skip
    return {
        "command": "exit", "model": answer.answer.name, "title": case.title, "version": __version__,
        "case": case.path.name, "ranks": result.comm.size, "dofs": result.unknowns, "cells": result.cells,
        "seconds": answer.seconds, "epsilon2": answer.process.epsilon2, "learning_rate": case.process.learning_rate,
        "batch_size": batch_size(case), "step_length": step_length(case),
        "variables": list(answer.process.variables), "subspace": subspace_facts(answer.process),
        "converged": result.converged,
        "tolerance": case.exit.chain_tolerance, "starts": starts, "bounds_violated": 0,
        "messages": answer.messages, **models_facts(answer.models),
    }  # fmt: skip


def _deviation(moments: np.ndarray) -> float | None:
    return float(np.sqrt(max(moments[1] - moments[0] ** 2, 0.0))) if len(moments) > 1 else None


def chain_table(answer: ChainAnswer, files: Sequence[Path] = ()) -> str:
    """Return the result as text."""
    result, case = answer.answer.result, answer.case
    rows = [["start", "mean exit time", "± error", "steps"]]
    for x, m, e in zip(result.starts, result.moments, result.error, strict=True):
        steps = steps_of(case, m[0])
        rows.append([point_text(x), f"{m[0]:.8g}", f"{e[0]:.1e}", "-" if steps is None else f"{steps:.6g}"])
    met = "met" if result.converged else "NOT met"
    tolerance = "" if case.mesh.size is not None else f", tolerance {case.exit.chain_tolerance:g} {met}"
    facts = [
        f"model     {NAMES[answer.answer.name]}, by its transfer operator",
        f"mesh      {result.cells} cells, {result.unknowns} unknowns{tolerance}",
        f"solver    {result.comm.size} rank(s), {answer.seconds:.1f} s",
    ]
    blocks = [heading(case, answer.process), aligned(rows), facts, model_lines(answer.models, case)]
    return table_text(blocks, answer.messages, files)
