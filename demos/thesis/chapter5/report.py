"""Tables in Markdown, verdicts, and figures of one style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

#: Okabe and Ito.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
LEVELS = 2.0 ** (np.arange(2, 27) / 2)


@dataclass
class Report:
    """What `tables.md` will hold, and where the figures go. Only rank 0 writes."""

    out: Path
    lines: list[str] = field(default_factory=list)
    verdicts: list[tuple[str, str, str]] = field(default_factory=list)

    def section(self, title: str) -> None:
        """Begin a section."""
        self.lines += [f"## {title}", ""]

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self.lines += [text, ""]

    def table(self, title: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Add a table; numbers get four digits."""
        self.lines += [f"**{title}**", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        self.lines += ["| " + " | ".join(shown(cell) for cell in row) + " |" for row in rows]
        self.lines += [""]

    def verdict(self, claim: str, holds: str, why: str) -> None:
        """Say whether a statement of the thesis holds here ("holds", "does not hold", "in part")."""
        self.verdicts.append((claim, holds, why))
        self.text(f"*{claim}*: **{holds}**. {why}")

    def write(self) -> None:
        """Write tables.md, verdicts first."""
        head = ["# Chapter 5 of the thesis with this repository's data", "", "| the thesis says | verdict | because |"]
        head += ["|---|---|---|", *("| " + " | ".join(row) + " |" for row in self.verdicts), ""]
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "tables.md").write_text("\n".join(head + self.lines), encoding="utf-8")

    def save(self, figure: Any, name: str) -> None:
        """Write a figure."""
        self.out.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.out / name)


def shown(cell: Any) -> str:
    """Return a table's cell as text."""
    if isinstance(cell, (float, np.floating)):
        return "-" if np.isnan(cell) else f"{cell:.4g}"
    if isinstance(cell, (tuple, list, np.ndarray)):
        return "(" + ", ".join(shown(c) if not isinstance(c, str) else c for c in cell) + ")"
    return str(cell)


def spread(mean: float, deviation: float) -> str:
    """Return ``mean ± deviation``, both with the digits that the deviation justifies."""
    if not (np.isfinite(mean) and np.isfinite(deviation)) or deviation <= 0:
        return f"{mean:.4g}"
    digits = max(0, 1 - int(np.floor(np.log10(deviation))))
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def figure(width: float, height: float) -> Any:
    """Return an empty figure."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", dpi=140)


def grid(lower: Sequence[float], upper: Sequence[float], n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the two axes and the points (n², 2) of a grid, a running fastest."""
    a, b = np.linspace(lower[0], upper[0], n), np.linspace(lower[1], upper[1], n)
    A, B = np.meshgrid(a, b)
    return a, b, np.column_stack([A.ravel(), B.ravel()])


def contours(axes: Any, landscape: Any, lower: Sequence[float], upper: Sequence[float], n: int = 121) -> None:
    """Draw thin grey contours of the loss, in powers of two above its minimum."""
    a, b, points = grid(lower, upper, n)
    axes.contour(a, b, landscape.loss(points).reshape(n, n), levels=LEVELS, colors="#999999", linewidths=0.5)
    axes.set(xlim=(lower[0], upper[0]), ylim=(lower[1], upper[1]), xlabel="$a$", ylabel="$b$")


def mark(axes: Any, model: Any, legend: bool = True) -> None:
    """Mark the critical points in the thesis' colours."""
    for point, colour, name in ((model.true, BLUE, "true minimum"), (model.spurious, RED, "spurious minimum"),
                                (model.saddle, GREEN, "saddle")):  # fmt: skip
        axes.plot(*point.x, "o", color=colour, markeredgecolor="white", markersize=7, label=name, zorder=5)
    if legend:
        axes.legend(fontsize=8, loc="best")
