"""Pictures of a steady state: invariant density with its current, eigenfunctions of A and A*, complex eigenvalues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fpsolve.app import figure_style as style
from fpsolve.app.figure_data import Pieces
from fpsolve.app.figure_density import (
    DensityData,
    colour_bar,
    draw_plane,
    draw_space,
    frame_label,
    line_frame,
)
from fpsolve.app.figure_paint import outline, paint, polyline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Positive and negative values of an eigenfunction; perceptually uniform on both sides of white.
SIGNED = "RdBu_r"
#: An imaginary part counts from this part of the absolute value on.
COMPLEX = 1e-6


@dataclass(frozen=True)
class Arrows:
    """The current at points of a grid.

    Attributes
    ----------
    points, current : ndarray, shape (n, 2)
    largest : float
        The largest |J| at the points.
    """

    points: np.ndarray
    current: np.ndarray
    largest: float


@dataclass(frozen=True)
class Mode:
    """An eigenvalue λ of -A with the real parts of its eigenfunctions.

    Attributes
    ----------
    right, left : Pieces
        Of A and of A*; in 3D on the plane z = `level`.
    limit : float
        The largest |φ| of the right one where the invariant density is not small.
    """

    value: complex
    right: Pieces
    left: Pieces
    limit: float


def is_complex(value: complex) -> bool:
    """Return whether an eigenvalue has an imaginary part."""
    return abs(value.imag) > COMPLEX * abs(value)


def steady_size(data: DensityData, d: int) -> tuple[float, float]:
    """Return the size of the picture of the density in inches."""
    return {1: (7.4, 5.0), 3: (10.5, 4.2)}.get(d) or style.plane_size(*data.box, 5.8, 1.9)


def draw_steady(figure: Figure, result: Any, data: DensityData, arrows: Arrows | None) -> None:
    """Draw the invariant density into an empty figure. Not collective.

    Parameters
    ----------
    result : SteadyResult
    data : DensityData
        With one frame.
    arrows : Arrows or None
        None in 1D and 3D, and where there is no current.
    """
    d, frame = result.process.dimension, data.frames[0]
    notes = [_current_text(result, arrows)]
    if d == 1:
        axes = figure.add_subplot()
        axes.plot(*polyline(frame.cells[0]), color="#31688e", linewidth=1.8, zorder=4, label="invariant density ρ∞")
        line_frame(axes, result, data)
        axes.set_title(frame_label(data, frame), fontsize=8.5)
    elif d == 2:
        axes = figure.add_subplot()
        painted, contours = draw_plane(axes, result, data, frame)
        if arrows is not None:
            _draw_arrows(axes, arrows)
        if contours:
            notes.insert(0, f"grey: contours of the {style.potential_name(result.process)}")
        colour_bar(figure, painted, [axes], data)
    else:
        panels = list(figure.subplots(1, 3))
        painted = draw_space(panels, result, data, frame)
        colour_bar(figure, painted, panels, data)
    figure.supxlabel("      ".join(notes), fontsize=8.5, color="#404040")
    figure.suptitle(style.title(result, "Invariant density"), fontsize=10.5)


def _current_text(result: Any, arrows: Arrows | None) -> str:
    if result.detailed_balance:
        return "no current: detailed balance"
    share = f"‖J‖₁ = {style.number(100 * result.current_norm, 2)} % of ‖a∇ρ‖₁ + ‖βρ‖₁"
    if arrows is None:
        return f"current: {share}"
    return f"arrows: current J, the longest {style.number(arrows.largest, 3)}; {share}"


def _draw_arrows(axes: Axes, arrows: Arrows) -> None:
    """Draw arrows with lengths proportional to the current."""
    steps = np.diff(np.unique(arrows.points[:, 0]))
    longest = 1.5 * float(steps.min(initial=np.inf))
    J = arrows.current * (longest / arrows.largest)
    seen = np.linalg.norm(J, axis=1) > 0.05 * longest
    axes.quiver(
        *arrows.points[seen].T, *J[seen].T, angles="xy", scale_units="xy", scale=1, pivot="mid", color="white",
        edgecolor="#303030", linewidth=0.4, units="inches", width=0.022, headwidth=4, headlength=4.5,
        headaxislength=4, minlength=0, zorder=5,
    )  # fmt: skip


# --- eigenfunctions ------------------------------------------------------------------------------------


def modes_size(data: DensityData, modes: Sequence[Mode], d: int) -> tuple[float, float]:
    """Return the size of the picture of the eigenfunctions in inches."""
    if d == 1:
        return 7.4, 7.2
    width, height = style.plane_size(data.box[0][:2], data.box[1][:2], 3.1, 0.9)
    return max(len(modes) * width + 0.6, 5.0), 2 * height + 0.9


def draw_modes(figure: Figure, result: Any, data: DensityData, modes: Sequence[Mode], level: float) -> None:
    """Draw eigenfunctions of A above those of A*. Not collective.

    Parameters
    ----------
    level : float
        Of the third variable in 3D.
    """
    d = result.process.dimension
    if d == 1:
        _mode_curves(figure, result, data, modes)
    else:
        _mode_panels(figure, result, data, modes)
    plane = f"   (plane {style.symbol(result.process.variables[2])} = {level:.4g})" if d == 3 else ""
    figure.suptitle(style.title(result, "Eigenfunctions") + plane, fontsize=10.5)


def mode_label(mode: Mode, k: int) -> str:
    """Return number and eigenvalue."""
    value = style.number(mode.value.real)
    if is_complex(mode.value):
        value += f" {'+' if mode.value.imag > 0 else '−'} {style.number(abs(mode.value.imag))} i"
    return f"λ$_{{{k}}}$ = {value}"


def _mode_curves(figure: Figure, result: Any, data: DensityData, modes: Sequence[Mode]) -> None:
    from fpsolve.app.figure_curves import COMPUTED

    panels = figure.subplots(2, 1, sharex=True)
    lower, upper = float(data.box[0][0]), float(data.box[1][0])
    for axes, side, name in zip(panels, ("right", "left"), ("Aφ = −λφ", "A*ψ = −λψ"), strict=True):
        for k, mode in enumerate(modes, 1):
            label = mode_label(mode, k) + (" (real part)" if is_complex(mode.value) else "")
            colour = COMPUTED[(k - 1) % len(COMPUTED)]
            axes.plot(*polyline(getattr(mode, side)), color=colour, linewidth=1.6, label=label, zorder=4)
        axes.axhline(0.0, color="black", linewidth=0.6, zorder=1)
        axes.set_xlim(lower, upper)
        axes.set_ylabel(f"eigenfunctions, {name}")
        axes.grid(True, color="#e4e4e4", linewidth=0.6)
    limit = 1.15 * max(mode.limit for mode in modes)
    panels[0].set_ylim(-limit, limit)
    panels[1].set_xlabel(style.symbol(result.process.variables[0]))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)


def _mode_panels(figure: Figure, result: Any, data: DensityData, modes: Sequence[Mode]) -> None:
    names = result.process.variables
    grid = figure.subplots(2, len(modes), squeeze=False)
    through = (data.box[0] + data.box[1]) / 2
    for k, mode in enumerate(modes):
        for axes, pieces, name in zip(grid[:, k], (mode.right, mode.left), ("φ", "ψ"), strict=True):
            top = mode.limit if name == "φ" else float(np.abs(pieces.values).max(initial=1e-300))
            style.plane(axes, (names[0], names[1]), data.box[0][:2], data.box[1][:2])
            painted = _paint_signed(axes, pieces, top)
            if data.boundary is not None:
                outline(axes, data.boundary, 0.8)
            style.loss_contours(axes, result, (0, 1), through)
            beyond = float(np.abs(pieces.values).max(initial=0.0)) > 1.01 * top
            bar = figure.colorbar(painted, ax=axes, pad=0.02, fraction=0.05, extend="both" if beyond else "neither")
            bar.ax.tick_params(labelsize=7)
            part = "Re " if is_complex(mode.value) else ""
            operator = "A" if name == "φ" else "A*"
            title = f"{part}{name}$_{{{k + 1}}}$, eigenfunction of {operator}"
            axes.set_title(f"{mode_label(mode, k + 1)}\n{title}" if name == "φ" else title, fontsize=8.5)
            if name == "φ":
                axes.set_xlabel("")
            if k:
                axes.set_ylabel("")


def _paint_signed(axes: Axes, pieces: Pieces, top: float) -> Any:
    from matplotlib.colors import Normalize

    return paint(axes, pieces, Normalize(-top, top), SIGNED)


# --- eigenvalues ---------------------------------------------------------------------------------------


def draw_spectrum(figure: Figure, result: Any) -> None:
    """Draw the eigenvalues of A in the complex plane. Not collective."""
    axes = figure.add_subplot()
    values = -np.asarray(result.eigenvalues)
    errors = np.asarray(result.eigenvalue_errors, dtype=float)
    axes.errorbar(
        values.real, values.imag, xerr=errors, yerr=errors, fmt="o", color="#0072b2", markersize=6, capsize=3,
        elinewidth=1, label="eigenvalues of A; bars: estimated errors", zorder=4,
    )  # fmt: skip
    if np.isfinite(result.spectral_gap):
        label = f"spectral gap {style.number(result.spectral_gap)}"
        axes.axvline(-result.spectral_gap, color="#d55e00", linestyle=(0, (5, 2)), linewidth=1.2, label=label)
    axes.axhline(0.0, color="black", linewidth=0.6, zorder=1)
    for limits, part in ((axes.set_xlim, values.real), (axes.set_ylim, values.imag)):
        room = 0.15 * max(float(np.ptp(part)), 1e-3 * float(np.abs(values).max()))
        limits(float(part.min()) - room, float(part.max()) + room)
    axes.set_xlabel(_rate_label(result, "Re"))
    axes.set_ylabel(_rate_label(result, "Im"))
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(style.title(result, "Spectrum"), fontsize=10.5)


def _rate_label(result: Any, part: str) -> str:
    unit = style.time_unit(result.process)
    return f"{part} of the eigenvalue   [1/time{'; ' + unit if unit else ''}]"
