"""What the figures have in common: style, names and numbers as text, axes of a plane, the loss behind them."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fpsolve.fem.boundary import CHARACTERISTIC, EXIT, REFLECTING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fpsolve.model.domains import Domain
    from fpsolve.model.process import Process


class Asked(Protocol):
    """What the pictures need of a result: the question and how it was discretised."""

    @property
    def process(self) -> Process:
        """The process."""

    @property
    def domain(self) -> Domain:
        """Where it is looked at."""

    @property
    def scheme(self) -> str:
        """``"dg"``, ``"cg"`` or ``"sg"``."""

    @property
    def degree(self) -> int:
        """Of the elements."""

    @property
    def cells(self) -> int:
        """Of the mesh."""


STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.labelsize": 10,
    "legend.fontsize": 8.5,
    "mathtext.fontset": "dejavusans",
    "text.usetex": False,
    "axes.linewidth": 0.8,
}
#: Perceptually uniform.
COLOURS = "viridis"
#: Colours that all kinds of colour vision tell apart (Okabe and Ito), with the width of the line.
KINDS: dict[int, tuple[str, str, float]] = {
    EXIT: ("absorbing", "#d55e00", 4.0),
    REFLECTING: ("reflecting", "#0072b2", 4.0),
    CHARACTERISTIC: ("characteristic", "#111111", 1.6),
}
GREEK = {
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi",
    "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
}  # fmt: skip
LOSS_GRID = {1: 801, 2: 161, 3: 161}
#: Longest side to shortest beyond which one unit is not drawn equally long on both axes.
SLENDER = 5.0


def symbol(name: str) -> str:
    """Return a variable's name as it is set in mathematics, ``x_1`` with an index; long names as they are."""
    match = re.fullmatch(r"([A-Za-z]+?)_?(\d+)?", name) or re.fullmatch(r"([A-Za-z]+)_([A-Za-z]\w?)", name)
    if match and (len(match[1]) == 1 or match[1] in GREEK):
        letter = match[1] if len(match[1]) == 1 else "\\" + match[1]
        return f"${letter}_{{{match[2]}}}$" if match[2] else f"${letter}$"
    return name


def number(value: float, digits: int = 4) -> str:
    """Return a number with this many significant digits, powers of ten as such."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    if -4 <= int(exponent) < 6:
        return f"{value:.{digits}g}" if int(exponent) < digits else f"{value:.0f}"
    return rf"${mantissa}\cdot 10^{{{int(exponent)}}}$"


def with_error(value: float, error: float) -> str:
    """Return ``value ± error`` with no more digits than the error justifies."""
    if not (math.isfinite(value) and math.isfinite(error)) or value == 0:
        return f"{value:g} ± {error:g}"
    exponent = math.floor(math.log10(abs(value)))
    # 2 to 10 digits: a label has to stay readable
    uncertain = math.floor(math.log10(error)) if error > 0 else exponent - 9
    last = min(max(uncertain, exponent - 9), exponent - 1)
    plain = -3 <= exponent < 6
    decimals = max(-last if plain else exponent - last, 0)
    scale = 1.0 if plain else 10.0**exponent
    error_text = f"{error / scale:.{decimals}f}" if last <= uncertain else number(error / scale, 1)
    if plain:
        return f"{value:.{decimals}f} ± {error_text}"
    return rf"({value / scale:.{decimals}f} ± {error_text})$\cdot 10^{{{exponent}}}$"


def point_text(x: np.ndarray) -> str:
    """Return coordinates in parentheses, a single one without."""
    if len(x) == 1:
        return f"{x[0]:.4g}"
    return "(" + ", ".join(f"{t:.4g}" for t in x) + ")"


def title(result: Asked, what: str, scheme: bool = True) -> str:
    """Return a short title: what is shown, the noise level and the discretisation."""
    parts = [what]
    if result.process.epsilon2 is not None:
        parts.append(rf"$\varepsilon^2$ = {number(result.process.epsilon2)}")
    if not scheme:
        return "   ".join(parts)
    if result.scheme == "sg":
        parts.append("Scharfetter-Gummel")
    else:
        parts.append(f"{result.scheme.upper()} of degree {result.degree}")
    parts.append(f"{result.cells:,} cells".replace(",", " "))
    return "   ".join(parts)


def time_label(result: Asked, what: str) -> str:
    """Return the label of an axis of times."""
    unit = time_unit(result.process)
    return f"{what}   [time; {unit}]" if unit else f"{what}   [time]"


def time_unit(process: Process) -> str:
    """Return how long a step of SGD lasts; nothing where the process does not come from SGD."""
    if getattr(process, "step_time", None) is not None:  # with momentum
        return "one SGD step = √η"
    return "one SGD step = η" if process.epsilon2 is not None else ""


def potential_name(process: Process) -> str | None:
    """Return what the grey contours show; None where there is nothing."""
    if process.landscape is not None:
        return "loss"
    return "energy L + |v|²/2" if getattr(process, "potential", None) is not None else None


def potential(process: Process, x: np.ndarray) -> np.ndarray | None:
    """Return the loss at points (n, d), of position and velocity the energy L(w) + |v|²/2; None without a loss."""
    landscape = process.landscape or getattr(process, "potential", None)
    if landscape is None:
        return None
    k = len(landscape.variables)
    with np.errstate(all="ignore"):
        loss = np.asarray(landscape.loss(x[:, :k]), dtype=float)
    return loss + np.sum(x[:, k:] ** 2, axis=1) / 2


def plane(axes: Axes, names: tuple[str, str], lower: np.ndarray, upper: np.ndarray) -> None:
    """Set limits, labels and aspect of a plane in which the box from `lower` to `upper` (each (2,)) is shown."""
    margin = 0.04 * (upper - lower)
    axes.set_xlim(lower[0] - margin[0], upper[0] + margin[0])
    axes.set_ylim(lower[1] - margin[1], upper[1] + margin[1])
    sides = upper - lower
    if np.max(sides) <= SLENDER * np.min(sides):
        axes.set_aspect("equal")
    axes.set_xlabel(symbol(names[0]))
    axes.set_ylabel(symbol(names[1]))


def plane_size(lower: np.ndarray, upper: np.ndarray, height: float, beside: float) -> tuple[float, float]:
    """Return a figure's size in inches for such a plane with room of width `beside` next to it."""
    sides = upper - lower
    ratio = sides[0] / sides[1] if np.max(sides) <= SLENDER * np.min(sides) else 1.2
    width = float(np.clip(0.85 * height * ratio, 2.8, 7.5))
    return width + beside, height if ratio <= 1.2 else float(np.clip(width / ratio, 2.6, height)) + 0.9


def loss_contours(axes: Axes, result: Asked, plane_axes: tuple[int, int], through: np.ndarray) -> bool:
    """Draw thin grey contours of the loss over the axes' limits; return whether there are any.

    The levels are those of the domain. They are spaced like squares, so that a quadratic well shows evenly
    spaced rings. Beyond the domain the contours show where the process is going.
    """
    if potential_name(result.process) is None:
        return False
    n = LOSS_GRID[2]
    sides = [np.linspace(*limits, n) for limits in (axes.get_xlim(), axes.get_ylim())]
    X, Y = np.meshgrid(*sides)
    points = np.tile(np.asarray(through, dtype=float), (X.size, 1))
    points[:, plane_axes[0]], points[:, plane_axes[1]] = X.ravel(), Y.ravel()
    loss = potential(result.process, points)
    assert loss is not None
    good = np.isfinite(loss)
    inside = good & result.domain.contains(points)
    if np.count_nonzero(inside) < 3 or not np.ptp(loss[inside]) > 0:
        return False
    low, high = float(loss[inside].min()), float(loss[inside].max())
    levels = low + (high - low) * (np.arange(1, 13) / 12) ** 2
    masked = np.ma.masked_invalid(np.where(good, loss, np.nan)).reshape(X.shape)
    axes.contour(X, Y, masked, levels=levels, colors="#8c8c8c", linewidths=0.45, zorder=3)
    return True
