"""Pictures of an evolution, forward or backward, drawn off-screen on rank 0."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fpsolve.app.animation import write_animation
from fpsolve.app.figure_curves import COMPUTED, Curve, Panel, curves_size, draw_curves
from fpsolve.app.figure_decay import (
    basin_panels,
    bound_panels,
    entropy_panels,
    moment_panels,
    shortened,
    survival_panels,
)
from fpsolve.app.figure_density import density_size, draw_density
from fpsolve.app.figure_files import asleep_elsewhere, save
from fpsolve.app.figure_frames import collect
from fpsolve.app.figure_style import point_text
from fpsolve.problems.evolution import BackwardResult, EvolveResult

#: Points whose values are drawn.
LISTED = 8


def evolve_figures(result: EvolveResult, bounds: Sequence[Any], margins: Sequence[Any], directory: Path) -> list[Path]:
    """Draw the density at the stored times, moving and still, and what is known of it in time. Collective.

    Parameters
    ----------
    result : EvolveResult
    bounds : list of TimeBound
    margins : list of TimeMargin
        Of the same bounds.
    directory : Path
        Created if it does not exist.

    Returns
    -------
    list of Path
        ``density.png``, ``density.gif`` and ``moments.png``; ``entropy.png`` where ρ∞ is known, ``bounds.png`` where
        theorems say something, ``basins.png`` where there are several and ``survival.png`` with absorbing boundary.
        On every rank.

    Raises
    ------
    InputError
        If the files cannot be written; on every rank.
    """
    data = collect(result.times, result.densities, result.boundary)

    def draw() -> list[Path]:
        assert data is not None
        size = density_size(data, result.process.dimension)
        scheme = "Density, ρ ≥ 0 kept" if result.nonnegative else "Density"
        files = [
            save(directory, "density", size, lambda f: draw_density(f, result, data, scheme)),
            write_animation(directory, result, data),
        ]
        pictures: dict[str, tuple[list[Panel], str]] = {
            "moments": (moment_panels(result, bounds), "Moments"),
            "entropy": (entropy_panels(result, bounds), "Entropy"),
            "bounds": (bound_panels(result, bounds, margins), "Theorems and computed values"),
            "basins": (basin_panels(result), "Basins of attraction"),
            "survival": (survival_panels(result), "Exit through the boundary"),
        }
        for name, (panels, title) in pictures.items():
            if panels:
                files.append(_curves(directory, name, result, panels, title))
        return files

    return asleep_elsewhere(result.comm, draw)


def backward_figures(result: BackwardResult, directory: Path) -> list[Path]:
    """Draw u at the stored times and its values at the points. Collective.

    Returns
    -------
    list of Path
        ``u.png`` and ``values.png``, on every rank.

    Raises
    ------
    InputError
        If the files cannot be written; on every rank.
    """
    name = f"u(t, ·) = E φ(X$_t$), φ = {shortened(result.terminal)}"
    data = collect(result.times, result.fields, result.boundary, name, result.points)
    curves = [
        Curve(
            result.times,
            result.values[:, k],
            f"from {point_text(x)}",
            COMPUTED[k % len(COMPUTED)],
            error=None if result.errors is None else result.errors[:, k],
        )
        for k, x in enumerate(result.points[:LISTED])
    ]

    def draw() -> list[Path]:
        assert data is not None
        size = density_size(data, result.process.dimension)
        return [
            save(directory, "u", size, lambda f: draw_density(f, result, data, "Expectations")),
            _curves(directory, "values", result, [Panel(name, curves)], "Expectations"),
        ]

    return asleep_elsewhere(result.comm, draw)


def _curves(directory: Path, name: str, result: Any, panels: list[Panel], title: str) -> Path:
    return save(directory, name, curves_size(panels), lambda f: draw_curves(f, result, panels, title))
