"""The simulate command's summary.json and table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fpsolve.app.report import aligned, common_summary, evenly, heading, point_text, table_text
from fpsolve.simulate.exits import QUANTILES

if TYPE_CHECKING:
    from fpsolve.app.run_simulate import SimulateAnswer

#: Stored times of the table.
SHOWN = 12


def simulate_summary(answer: SimulateAnswer) -> dict[str, Any]:
    """Return the contents of summary.json of the simulate command (the contract of the design, and more keys).

    ``exit`` is that of the first start; ``starts`` has all.
    """
    exits, section = answer.exits, answer.case.simulate
    sample = exits if exits is not None else answer.paths
    assert sample is not None  # one is always asked for
    starts = [
        {"x": x, "exit": _exit(answer, i), "times": _times(answer, i)} for i, x in enumerate(sample.starts)
    ]  # fmt: skip
    return common_summary("simulate", answer.case, answer, answer.seconds, answer.messages) | {
        "chain": answer.chain,
        "law": getattr(answer.source, "law", "gaussian"),
        "shuffle": section.shuffle,
        "seed": section.seed,
        "paths": section.paths,
        "steps": answer.steps,
        "steps_per_second_and_rank": None if exits is None else exits.rate,
        "step_time": _step(answer),
        "coordinates": list(sample.names),
        "exit": starts[0]["exit"],
        "starts": starts,
    }


def _step(answer: SimulateAnswer) -> float:
    return float(answer.source.step if answer.chain == "sde" else answer.source.step_time)  # type: ignore[union-attr]


def _exit(answer: SimulateAnswer, i: int) -> dict[str, Any] | None:
    exits = answer.exits
    if exits is None:
        return None
    return {
        "mean": exits.mean[i],
        "ci95": exits.interval[i],
        "interval": "normal: mean ± 1.96 standard errors",
        "standard_error": exits.standard_error[i],
        "standard_deviation": exits.standard_deviation[i],
        "quantiles": {f"{level:g}": value for level, value in zip(QUANTILES, exits.quantiles[i], strict=True)},
        "steps": exits.mean[i] / exits.step_time,
        "inside": exits.inside[i],
        "max_time": exits.max_time,
        "if_exponential": {"mean": exits.exponential_mean[i], "ci95": exits.exponential_interval[i]},
    }


def _times(answer: SimulateAnswer, i: int) -> list[dict[str, Any]]:
    sample = answer.paths
    if sample is None:
        return []
    values, errors = (part[i] for part in sample.values)
    running, running_errors = (part[i] for part in sample.running_means)
    mean, covariance, inside = sample.mean[i], sample.covariance[i], sample.inside[i]
    return [
        {
            "t": t,
            "steps": round(t / _step(answer)),
            "inside": inside[k],
            "mean": mean[k],
            "covariance": covariance[k],
            "observables": values[k],
            "observable_errors": errors[k],
            "running_means": running[k],
            "running_errors": running_errors[k],
        }
        for k, t in enumerate(sample.times)
    ]


# --- for people ------------------------------------------------------------------------------------------


def simulate_table(answer: SimulateAnswer, files: Sequence[Path] = ()) -> str:
    """Return the result as text: exit times, positions at the stored times, messages and files."""
    blocks = [heading(answer.case, answer.process), _exits(answer), *_positions(answer), _facts(answer)]
    return table_text(blocks, answer.messages, files)


def _exits(answer: SimulateAnswer) -> list[str]:
    exits = answer.exits
    if exits is None:
        return []
    steps = f"steps of {exits.step_time:g}" if answer.chain == "sde" else "steps"
    rows = [["start", "mean exit time", "95 % interval", "std", "median", steps, "inside"]]
    for i, x in enumerate(exits.starts):
        known = not exits.inside[i]
        low, high = exits.interval[i]
        rows.append([
            point_text(x),
            f"{exits.mean[i]:.6g}" if known else "-",
            f"{low:.6g} to {high:.6g}" if known else "-",
            f"{exits.standard_deviation[i]:.6g}" if known else "-",
            f"{exits.quantiles[i, 2]:.6g}" if np.isfinite(exits.quantiles[i, 2]) else "-",
            f"{exits.mean[i] / exits.step_time:.6g}" if known else "-",
            f"{exits.inside[i]}",
        ])  # fmt: skip
    lines = aligned(rows)
    for i in np.flatnonzero(exits.inside):
        low, high = exits.exponential_interval[i]
        mean = f"{exits.exponential_mean[i]:.6g} ({low:.6g} to {high:.6g})"
        if exits.inside[i] == exits.paths:
            mean = f"more than {low:.6g} (97.5 %)"
        lines.append(f"{point_text(exits.starts[i])}: if exit times are exponential, their mean is {mean}")
    return lines


def _positions(answer: SimulateAnswer) -> list[list[str]]:
    """Return a table of means and variances in time for each start."""
    sample = answer.paths
    if sample is None:
        return []
    blocks = []
    values, errors = sample.values
    running, _ = sample.running_means
    for i, x in enumerate(sample.starts):
        head = [f"from {point_text(x)}, t", "inside"]
        head += [f"{what} {name}" for what in ("mean", "var") for name in sample.names]
        head += [entry for g in sample.observables for entry in (g, "± std error", "running mean")]
        rows = [head]
        for k in evenly(range(len(sample.times)), SHOWN):
            numbers = (*sample.mean[i, k], *np.diag(sample.covariance[i, k]))
            row = [f"{sample.times[k]:g}", f"{sample.inside[i, k]:.4g}", *(f"{v:.6g}" for v in numbers)]
            for m in range(len(sample.observables)):
                row += [f"{values[i, k, m]:.6g}", f"{errors[i, k, m]:.1e}", f"{running[i, k, m]:.6g}"]
            rows.append(row)
        blocks.append(aligned(rows))
    return blocks


def _facts(answer: SimulateAnswer) -> list[str]:
    section = answer.case.simulate
    rate = "" if answer.exits is None else f", {answer.exits.rate:.3g} steps per second and rank"
    shuffled = ", epochs shuffled" if section.shuffle else ""
    return [
        f"chain     {answer.chain}: {answer.solver}{shuffled}",
        f"sample    {section.paths} paths from each start, seed {section.seed}; {answer.steps:.4g} steps{rate}",
        f"time      {answer.comm.size} rank(s), {answer.seconds:.1f} s",
    ]
