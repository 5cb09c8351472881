"""5.2: how far Σ = Q/B is from 2L(θ)H(θ*)/B (Table 5.1, Figure 5.4). Batch size B = 1."""

from __future__ import annotations

from typing import Any

import numpy as np

from chapter5.landscape import PRINTED
from chapter5.model import SUM_OF_SQUARES, WINDOW, Model
from chapter5.report import Report, figure, grid, mark
from fpsolve.theory.critical import CriticalPoint

#: Norm of the difference in Table 5.1.
DIFFERENCES = {"true": 2.7e5, "spurious": 1.44e8, "saddle": 4.8e8}


def run(model: Model, report: Report, samples: int = 141) -> dict[str, Any]:
    """Tabulate and draw the difference; rank 0."""
    report.section("5.2 Covariance matrix approximation")
    rows, found = [], {}
    for name in ("true", "spurious", "saddle"):
        point = getattr(model, name)
        q = model.landscape.covariance(point.x[None])[0]
        own, theirs = (_norm(q - 2 * point.loss * h) for h in (point.hessian, model.true.hessian))
        unscaled = 2 * (2 * point.loss) * SUM_OF_SQUARES * _norm(point.hessian)
        found[name] = {"own": own / _norm(q), "true": theirs / _norm(q), "unscaled": unscaled}
        rows.append((name, point.loss, _norm(q), theirs, theirs / _norm(q), own, own / _norm(q), own / point.loss,
                     unscaled, DIFFERENCES[name], DIFFERENCES[name] / PRINTED[name][1]))  # fmt: skip
    report.table(
        "Table 5.1 (Frobenius norms; H* at the true minimum, and H at the point itself)",
        ["point", "L", "N[Σ]", "N[Σ - 2LH*]", "/ N[Σ]", "N[Σ - 2LH]", "/ N[Σ]", "/ L",
         "N[2 (2L) D²Σr²]", "thesis' difference", "thesis' difference / loss"], rows,
    )  # fmt: skip
    report.verdict(
        "differences 2.7e5, 1.44e8, 4.8e8 (Table 5.1)", "does not hold",
        f"they are {rows[0][5]:.3g}, {rows[1][5]:.3g} and {rows[2][5]:.3g}. With (1/N) Σr² for L and the Hessian at "
        "the point of the *sum* Σr² for H (1200 times that of (4.1)) N[2LH] alone is "
        f"{rows[0][8]:.2g}, {rows[1][8]:.3g}, {rows[2][8]:.2g}: the thesis' numbers. Its 2LH is 2400 times too large, "
        "and Σ does not show beside it.",
    )  # fmt: skip
    report.verdict(
        "2LH*/B is a good approximation near the minimum (4.5)", "holds at the true minimum only",
        f"relative error {found['true']['own']:.2f} there, {found['spurious']['own']:.2f} at the spurious minimum even "
        f"with its own Hessian ({found['spurious']['true']:.2f} with that of the true one); at the saddle it is "
        f"{found['saddle']['true']:.0f} times larger than Σ itself, since there large residuals meet small gradients.",
    )  # fmt: skip
    report.verdict(
        "difference/loss is smallest at the flat minimum", "holds",
        f"{rows[0][7]:.3g} against {rows[1][7]:.3g} and {rows[2][7]:.3g}; the ratio has the unit of H, so that a "
        "sharp minimum has a larger one at the same relative error.",
    )  # fmt: skip
    reach = {name: [_reach(model, getattr(model, name), axis) for axis in (0, 1)] for name in ("true", "spurious")}
    report.table(
        "Within which distance of a minimum the relative error with its own H* stays below one half",
        ["minimum", "a from", "a to", "b from", "b to"],
        [(name, *reach[name][0], *reach[name][1]) for name in reach],
    )
    _draw(model, report, samples)
    return found | {"reach": reach}


def _norm(matrix: np.ndarray) -> float:
    return float(np.linalg.norm(matrix))


def _reach(model: Model, point: CriticalPoint, axis: int, n: int = 401) -> tuple[float, float]:
    """Return how far along an axis through the minimum the relative error stays below one half."""
    line = np.linspace(WINDOW[0][axis], WINDOW[1][axis], n)
    points = np.tile(point.x, (n, 1))
    points[:, axis] = line
    q = model.landscape.covariance(points)
    difference = q - 2 * model.like_true.loss(points)[:, None, None] * point.hessian
    bad = np.linalg.norm(difference, axis=(1, 2)) > 0.5 * np.linalg.norm(q, axis=(1, 2))
    below, above = line[bad & (line < point.x[axis])], line[bad & (line > point.x[axis])]
    return float(max(below, default=line[0])), float(min(above, default=line[-1]))


def _draw(model: Model, report: Report, samples: int) -> None:
    a, b, points = grid(*WINDOW, samples)
    q, loss = model.landscape.covariance(points), model.like_true.loss(points)
    size = np.linalg.norm(q, axis=(1, 2))
    picture = figure(10.4, 6.8)
    panels = picture.subplots(2, 2)
    for row, (point, name) in zip(panels, ((model.true, "true"), (model.spurious, "spurious")), strict=True):
        difference = np.linalg.norm(q - 2 * loss[:, None, None] * point.hessian, axis=(1, 2))
        relative = difference / size
        for axes, shown, label, limits in (
            (row[0], difference, r"$\log_{10}\,N[\Sigma - 2LH^*]$", (1, 6)),
            (row[1], relative, r"$\log_{10}\,(N[\Sigma - 2LH^*]\,/\,N[\Sigma])$", (-1, 2)),
        ):
            image = axes.pcolormesh(a, b, np.log10(shown).reshape(samples, samples), cmap="viridis",
                                    vmin=limits[0], vmax=limits[1], rasterized=True)  # fmt: skip
            picture.colorbar(image, ax=axes, label=label, extend="both")
            axes.contour(a, b, relative.reshape(samples, samples), levels=[0.5], colors="white", linewidths=1.2)
            mark(axes, model, legend=False)
            axes.set(xlabel="$a$", ylabel="$b$")
            axes.set_title(f"$H^*$ of the {name} minimum; white: relative error ½", fontsize=9)
    report.save(picture, "fig_5_4.png")
