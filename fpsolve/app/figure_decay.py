"""What the curves of an evolution are: entropies, moments, masses, each beside the theorems about it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fpsolve.app import figure_style as style
from fpsolve.app.figure_curves import COMPUTED, DASHED, Curve, Panel
from fpsolve.app.report import theorem_name

#: By name of a bound: one colour for each bound of this name in a panel.
BOUND_COLOURS = {
    "paper": ("#e69f00", "#a87400", "#f2cf7e"),
    "sharp": ("#d55e00", "#7f2a00", "#ff9c5a"),
    "printed": ("#707070", "#a0a0a0", "#404040"),
}
OTHER_COLOURS = ("#009e73", "#005c43", "#66c9ac")
#: Points of a bound's curve.
FINE = 121
#: Entropy below this part of its largest value is not looked at for its rate: the discretisation's own.
RESOLVED = 1e-9
#: Record attributes that have panels of their own.
ENTROPIES = ("entropy", "relative_entropy", "entropy_production")


def entropy_panels(result: Any, bounds: Sequence[Any]) -> list[Panel]:
    """Return the decay of the entropies on a logarithmic axis; nothing where ρ∞ is not known."""
    names = {
        "entropy": "E = ½∫(ρ/ρ∞ − 1)²ρ∞",
        "relative_entropy": "relative entropy ∫ρ log(ρ/ρ∞)",
        "entropy_production": "−dE/dt = ∫∇(ρ/ρ∞)ᵀa∇(ρ/ρ∞)ρ∞",
    }
    curves = []
    for k, (key, label) in enumerate(names.items()):
        values = [getattr(record, key) for record in result.records]
        if any(value is None for value in values):
            continue
        y = np.array(values, dtype=float)
        rate = decay_rate(result.times, y)
        if rate is not None:
            label += f";  rate at the end {style.number(rate, 4)}"
        curves.append(Curve(result.times, y, label, COMPUTED[k]))
    if not curves:
        return []
    about = [bound for bound in bounds if bound.record_key in ENTROPIES]
    return [Panel("entropy", curves + bound_curves(result, about), logarithmic=True, linear_time=True)]


def decay_rate(t: np.ndarray, y: np.ndarray) -> float | None:
    """Return the rate of exponential decay over the last third of the values that are resolved."""
    good = np.isfinite(y) & (y > RESOLVED * np.nanmax(y, initial=0.0)) & (y > 0)
    last = int(np.argmin(good)) if not good.all() else len(y)
    chosen = slice(last - max(last // 3, 2), last)
    if last < 4:
        return None
    return float(-np.polyfit(t[chosen], np.log(y[chosen]), 1)[0])


def bound_curves(result: Any, bounds: Sequence[Any], entry: tuple[int, ...] = ()) -> list[Curve]:
    """Return the curves of bounds: solid where proven, dashed otherwise; nothing for those that say nothing.

    Parameters
    ----------
    entry : indices
        Of the vector or matrix that is bounded.
    """
    end = float(result.times[-1])
    # dense near 0 as well, where bounds change fast
    t = np.unique(np.concatenate([np.linspace(0, end, FINE), np.geomspace(1e-4, 1, FINE) * end, result.times]))
    curves: list[Curve] = []
    seen: dict[str, int] = {}
    for bound in bounds:
        y = np.asarray(bound.evaluate(t), dtype=float)
        if y.ndim > 1:
            y = y.reshape(len(t), -1)[:, int(np.ravel_multi_index(entry, y.shape[1:]))]
        if bound.kind == "lower":  # of masses, moments and entropies: 0 says nothing
            y = np.where(y > 0, y, np.nan)
        if not np.isfinite(y).any():
            continue
        colours = BOUND_COLOURS.get(bound.name, OTHER_COLOURS)
        colour = colours[seen.get(bound.name, 0) % len(colours)]
        seen[bound.name] = seen.get(bound.name, 0) + 1
        dashes = "-" if bound.verified else DASHED
        y = np.where(np.isfinite(y), y, np.nan)
        curves.append(Curve(t, y, bound_label(bound), colour, dashes, 1.3, points=False))
    return curves


def bound_label(bound: Any) -> str:
    """Return the theorem, what it is about, and whether it is proven for this problem."""
    kind = "exact" if bound.kind == "equal" else f"{bound.kind} bound"
    return f"{theorem_name(bound)}: {kind}" + ("" if bound.verified else ", not proven here")


def moment_panels(result: Any, bounds: Sequence[Any]) -> list[Panel]:
    """Return mean, covariance and observables in time, with the exact solution where there is one."""
    names = [style.symbol(name) for name in result.process.variables]
    d = len(names)
    mean = [_entry(result, bounds, "mean", (i,), f"mean of {names[i]}", i) for i in range(d)]
    pairs = [(i, j) for i in range(d) for j in range(i, d)]
    spread = [
        _entry(result, bounds, "covariance", (i, j), f"Cov({names[i]}, {names[j]})" if i < j else f"Var {names[i]}", k)
        for k, (i, j) in enumerate(pairs)
    ]
    panels = [Panel("mean", _joined(mean)), Panel("covariance", _joined(spread))]
    for k, formula in enumerate(result.observables):
        panels.append(Panel(f"∫gρ, g = {shortened(formula)}", _entry(result, (), "observables", (k,), "computed", 0)))
    return panels


def wrapped(text: str) -> str:
    """Return a text on lines that fit beside a panel."""
    return "\n".join(textwrap.wrap(text, 36))


def shortened(formula: str) -> str:
    """Return a formula that fits into a label."""
    return formula if len(formula) <= 36 else formula[:33] + "..."


def _joined(groups: Sequence[list[Curve]]) -> list[Curve]:
    """Return all curves, those of the exact solution with one entry in the legend."""
    curves: list[Curve] = []
    for curve in (curve for group in groups for curve in group):
        known = any(other.label == curve.label for other in curves)
        curves.append(replace(curve, label="_") if known and not curve.points else curve)
    return curves


def _entry(
    result: Any, bounds: Sequence[Any], key: str, index: tuple[int, ...], label: str, number: int
) -> list[Curve]:
    """Return one entry of a recorded vector or matrix and its exact solution."""
    values = np.array([getattr(record, key)[index] for record in result.records], dtype=float)
    error = result.errors.get(key)
    band = None if error is None else error[:, *index]
    computed = Curve(result.times, values, label, COMPUTED[number % len(COMPUTED)], error=band)
    about = [bound for bound in bounds if bound.record_key == key and bound.kind == "equal"]
    exact = bound_curves(result, about, index)
    return [computed, *(replace(curve, colour="#111111", width=0.9) for curve in exact)]


def bound_panels(result: Any, bounds: Sequence[Any], margins: Sequence[Any]) -> list[Panel]:
    """Return a panel for each quantity that theorems are about, apart from those shown elsewhere."""
    groups: dict[str, list[tuple[Any, Any]]] = {}
    for bound, margin in zip(bounds, margins, strict=True):
        scalar = np.ndim(margin.values) == 1 and np.isfinite(margin.values).any()
        if scalar and bound.record_key not in ENTROPIES and np.isfinite(margin.bounds).any():
            groups.setdefault(bound.quantity, []).append((bound, margin))
    panels = []
    for quantity, pairs in groups.items():
        margin = pairs[0][1]
        computed = Curve(result.times, np.asarray(margin.values, dtype=float), "computed")
        panels.append(Panel(wrapped(quantity), [computed, *bound_curves(result, [bound for bound, _ in pairs])]))
    return panels


def survival_panels(result: Any) -> list[Panel]:
    """Return P(τ > t) and the density of the exit time of an absorbing run; nothing otherwise."""
    if result.boundary_condition != "absorbing":
        return []
    mass = np.array([record.mass for record in result.records])
    outflow = np.array([record.outflow for record in result.records])
    error = result.errors.get("mass")
    decades = mass.min() > 0 and mass.min() < 0.05
    return [
        Panel("P(τ > t): probability not to have left", [
            Curve(result.times, mass, "survival probability", COMPUTED[0], error=error)
        ], logarithmic=bool(decades)),
        Panel("density of the exit time τ   [per unit time]", [
            Curve(result.times, outflow, "flux through the boundary", COMPUTED[1])
        ], logarithmic=bool(decades)),
    ]  # fmt: skip


def basin_panels(result: Any) -> list[Panel]:
    """Return the mass in each basin of attraction; nothing where there is but one."""
    masses = np.array([record.basins for record in result.records])
    if len(result.minima) < 2 or masses.shape[1:] != (len(result.minima),):
        return []
    curves = [
        Curve(result.times, masses[:, k], f"basin of {style.point_text(x)}", COMPUTED[k % len(COMPUTED)])
        for k, x in enumerate(result.minima)
    ]
    return [Panel("mass in the basin of attraction", curves)]
