"""The density as a small moving picture (GIF), one frame for each stored time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fpsolve.app import figure_style as style
from fpsolve.app.figure_density import (
    UNDERSHOOT,
    DensityData,
    Frame,
    colour_bar,
    draw_plane,
    draw_space,
    frame_label,
    line_frame,
)
from fpsolve.app.figure_files import canvas, published
from fpsolve.app.figure_paint import polyline
from fpsolve.app.report import evenly

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: A moving picture shows no more times than this.
MOST = 80
DOTS_PER_INCH = 80
#: Milliseconds that a frame is shown; the last one longer.
SHOWN = 350
LAST = 2500
COLOURS = 256


def write_animation(directory: Path, result: Any, data: DensityData) -> Path:
    """Write ``density.gif``. Not collective. Raises InputError if that is not possible."""
    from PIL import Image

    frames = evenly(data.frames, MOST)
    whole = replace(data, frames=frames)
    pictures = [Image.fromarray(_picture(result, whole, frame)) for frame in frames]
    # one palette for all, made of the first, a middle and the last frame
    wide = Image.new("RGB", (pictures[0].width * 3, pictures[0].height))
    for k, number in enumerate((0, len(pictures) // 2, len(pictures) - 1)):
        wide.paste(pictures[number], (k * pictures[0].width, 0))
    palette = wide.quantize(COLOURS)
    flat = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    durations = [SHOWN] * (len(flat) - 1) + [LAST]

    def write(path: Path) -> None:
        flat[0].save(path, save_all=True, append_images=flat[1:], duration=durations, loop=0, optimize=True)

    return published(directory, "density.gif", write)


def _picture(result: Any, data: DensityData, frame: Frame) -> np.ndarray:
    """Return one frame as pixels, shape (height, width, 3)."""
    with canvas(_size(data, result.process.dimension), DOTS_PER_INCH) as figure:
        _draw(figure, result, data, frame)
        figure.canvas.draw()
        return np.asarray(figure.canvas.buffer_rgba())[:, :, :3].copy()


def _size(data: DensityData, d: int) -> tuple[float, float]:
    if d == 1:
        return 6.4, 4.2
    return style.plane_size(*data.box, 4.6, 1.9) if d == 2 else (10.0, 3.6)


def _draw(figure: Figure, result: Any, data: DensityData, frame: Frame) -> None:
    d = result.process.dimension
    if d == 3:
        panels = list(figure.subplots(1, 3))
        painted = draw_space(panels, result, data, frame)
        colour_bar(figure, painted, panels, data)
        return
    axes = figure.add_subplot()
    if d == 2:
        painted, _ = draw_plane(axes, result, data, frame)
        colour_bar(figure, painted, [axes], data)
        return
    line_frame(axes, result, data)
    x, y = polyline(frame.cells[0])
    axes.plot(x, y, color="#31688e", linewidth=1.7, zorder=4)
    below = np.where(y < 0, y, np.nan)
    if frame.undershoots:
        axes.plot(x, below, color=UNDERSHOOT, linewidth=1.7, zorder=5)
    axes.set_title(frame_label(data, frame), fontsize=9.5)
