"""5.1: the objective function and its critical points (Figures 5.1, 5.2, 5.3)."""

from __future__ import annotations

from typing import Any

import numpy as np

from chapter5.model import WINDOW, Model, landscape_of, value
from chapter5.report import BLUE, GREEN, ORANGE, RED, Report, contours, figure, mark
from fpsolve.theory.critical import critical_points

#: What the thesis prints: place and loss (Table 5.1; text of 5.3 and 5.4).
PRINTED = {"true": ((0.97, 5.00), 2.6), "spurious": ((-5.6, 3.2), 424.5), "saddle": (("-", "-"), 1059.4)}


def run(model: Model, report: Report, samples: int = 401) -> dict[str, Any]:
    """Compare the critical points and draw the landscape; rank 0."""
    points = {"true": model.true, "spurious": model.spurious, "saddle": model.saddle}
    report.section("5.1 The objective function")
    report.table(
        f"Critical points in [{WINDOW[0][0]:g}, {WINDOW[1][0]:g}] × [{WINDOW[0][1]:g}, {WINDOW[1][1]:g}]"
        + (", proved to be all" if model.complete else ", possibly not all"),
        ["point", "(a, b)", "thesis (a, b)", "L = (1/2N) Σr²", "2L = (1/N) Σr²", "thesis' loss", "eigenvalues of D²L"],
        [
            (name, p.x, PRINTED[name][0], p.loss, 2 * p.loss, PRINTED[name][1], p.eigenvalues)
            for name, p in points.items()
        ],
    )
    grids = {
        "-15, ..., 15 (30 equispaced, ours)": np.linspace(-15, 15, 30),
        "-14, -13, ..., 15": np.arange(-14.0, 16.0),
    }
    rows = [(name, *_without_noise(x)) for name, x in grids.items()]
    report.table(
        "The spurious minimum without noise, by the inputs x (2L + 3, the noise's variance)",
        ["30 inputs", "(a, b)", "2L + 3 there", "2L + 3 at the saddle"],
        [*rows, ("thesis", PRINTED["spurious"][0], PRINTED["spurious"][1], PRINTED["saddle"][1])],
    )
    report.verdict(
        "two minima, the spurious one sharper and shallower (5.1)", "holds",
        f"eigenvalues ({shown_pair(model.spurious.eigenvalues)}) against ({shown_pair(model.true.eigenvalues)}), loss "
        f"{model.spurious.loss:.4g} against {model.true.loss:.4g}; the only saddle has {model.saddle.loss:.4g}.",
    )  # fmt: skip
    report.verdict(
        "loss 2.6, 424.5, 1059.4 (Table 5.1)", "holds up to a factor 2",
        "the table shows (1/N) Σr², not (4.1)'s half of it. The rest is another draw of the noise, and other inputs: "
        "the place (-5.6, 3.2) is that for -14, ..., 15, not for 30 equispaced points of [-15, 15].",
    )  # fmt: skip
    _draw(model, report, samples)
    return {"points": points, "complete": model.complete, "grids": rows}


def shown_pair(values: np.ndarray) -> str:
    """Return two numbers as text."""
    return ", ".join(f"{v:.4g}" for v in values)


def _without_noise(x: np.ndarray) -> tuple[np.ndarray, float, float]:
    landscape = landscape_of({"x": x, "y": value(np.array([1.0, 5.0]), x)})
    found = critical_points(landscape, WINDOW, certify=False)
    spurious = max(found.minima, key=lambda p: p.loss)
    return spurious.x, 2 * spurious.loss + 3, 2 * found.saddles[0].loss + 3


def _draw(model: Model, report: Report, samples: int) -> None:
    table = model.landscape.table
    picture = figure(5.6, 3.6)
    axes = picture.subplots()
    x = np.linspace(-15, 15, samples)
    axes.plot(table[0], table[1], ".", color="#999999", markersize=2, label="600 data")
    for theta, colour, name in (((1.0, 5.0), BLUE, "(1, 5)"), (model.spurious.x, RED, "spurious minimum")):
        axes.plot(x, value(np.asarray(theta), x), color=colour, label=f"$f$ at {name}")
    axes.set(xlabel="input $x$", ylabel="target $y$, model $f(a, b; x)$")
    axes.legend(fontsize=8)
    report.save(picture, "fig_5_1.png")

    picture = figure(6.4, 4.6)
    axes = picture.subplots()
    contours(axes, model.like_true, *WINDOW, n=max(61, samples // 2))
    mark(axes, model)
    axes.set_title("loss $L$, contours in powers of √2", fontsize=10)
    report.save(picture, "fig_5_2.png")

    picture = figure(8.6, 3.4)
    left, right = picture.subplots(1, 2)
    for axes, low, high, lines in (
        (left, -1.0, 2.0, ((5.0, BLUE, "-"), (model.true.x[1], RED, "--"))),
        (right, -8.0, 1.5, ((model.spurious.x[1], ORANGE, "-"),)),
    ):
        a = np.linspace(low, high, samples)
        for b, colour, style in lines:
            loss = model.like_true.loss(np.column_stack([a, np.full_like(a, b)]))
            axes.plot(a, loss, style, color=colour, label=f"$b = {b:.4g}$")
        axes.set(xlabel="$a$", ylabel="$L(a, b)$", yscale="log")
        axes.legend(fontsize=8)
    # where the straight section through the minima is highest is not the saddle
    right.axhline(model.saddle.loss, color=GREEN, linewidth=0.8, linestyle=":")
    right.annotate(
        "saddle", (-7.9, model.saddle.loss), xytext=(0, 2), textcoords="offset points", color=GREEN, fontsize=8
    )
    report.save(picture, "fig_5_3.png")
