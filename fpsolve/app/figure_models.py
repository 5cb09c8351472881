"""The picture of the mean exit times that several models of SGD give."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mpi4py import MPI

import numpy as np

from fpsolve.app import figure_style as style
from fpsolve.app.exit_models import ModelAnswer
from fpsolve.app.figure_files import asleep_elsewhere, save
from fpsolve.app.report_models import NAMES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Diffusions, chains.
COLOURS = ("#0072b2", "#d55e00")
MOST_STARTS = 4


def models_figure(answers: Sequence[ModelAnswer], directory: Path, comm: MPI.Comm) -> list[Path]:
    """Draw ``models.png``, the mean exit time by model for the first starts; nothing for one model. Collective."""
    if len(answers) < 2:
        return []
    starts = answers[0].result.starts[:MOST_STARTS]
    size = (7.6, 1.4 + 0.36 * len(answers) * len(starts))
    return asleep_elsewhere(comm, lambda: [save(directory, "models", size, lambda f: _draw(f, answers, starts))])


def _draw(figure: Figure, answers: Sequence[ModelAnswer], starts: np.ndarray) -> None:
    axes = figure.add_subplot()
    places, labels = [], []
    for i, x in enumerate(starts):
        for k, answer in enumerate(answers):
            place = -(i * (len(answers) + 0.7) + k)
            mean, error = answer.moments[i, 0], answer.error[i, 0]
            colour = COLOURS["chain" in answer.name]
            axes.barh(place, mean, height=0.68, color=colour, alpha=0.35)
            axes.errorbar(mean, place, xerr=error, fmt="o", color=colour, markersize=4, capsize=3, elinewidth=1)
            axes.annotate(
                style.with_error(mean, error), (mean, place), xytext=(8, 0), textcoords="offset points",
                va="center", fontsize=8.5,
            )  # fmt: skip
            places.append(place)
            where = f"   from {style.point_text(x)}" if len(starts) > 1 else ""
            labels.append(f"{NAMES.get(answer.name, answer.name)}{where}")
    axes.set_yticks(places, labels)
    room = 1.5 if len(starts) == 1 else 1.9  # for the numbers; long labels leave a narrow picture
    axes.set_xlim(0, room * max(float(a.moments[: len(starts), 0].max()) for a in answers))
    axes.set_xlabel("mean exit time E τ   [time; one SGD step = η]")
    where = f" from {style.point_text(starts[0])}" if len(starts) == 1 else ""
    axes.set_title(f"Mean exit time{where}, by model of SGD (± estimated error)", loc="right")
