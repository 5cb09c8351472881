"""One comparison of a computed evolution with the theorems about it, at every stored time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fpsolve.fem.functionals import integrate_with_error
from fpsolve.problems.entropies import stagnation
from fpsolve.problems.evolution import EvolveResult

#: An estimated error is trusted up to this factor before a violation is reported.
SAFETY = 3.0
#: Relative error of quantities for which neither a control run nor a tolerance tells one.
UNKNOWN = 1e-3
#: Rounding, relative to the largest value of a quantity over time.
ROUNDING = 1e-12


class TimeBound(Protocol):
    """What the comparison needs of a bound in time (see `fpsolve.theory`)."""

    @property
    def name(self) -> str:
        """E.g. ``"sharp"``."""

    @property
    def theorem(self) -> str:
        """Where it stands."""

    @property
    def quantity(self) -> str:
        """What is bounded, in words."""

    @property
    def kind(self) -> str:
        """``"upper"``, ``"lower"`` or ``"equal"``."""

    @property
    def verified(self) -> bool:
        """Whether all hypotheses are proved."""

    @property
    def record_key(self) -> str | None:
        """The attribute of `Record` that is bounded, if it is one."""

    @property
    def statistic(self) -> Callable[[np.ndarray, np.ndarray], float] | None:
        """The quantity as a function of mean and covariance, if it is one."""

    def evaluate(self, t: np.ndarray) -> np.ndarray:
        """Return the bound at times (k,); nan or an infinity where it says nothing."""

    def functional(self, t: float, x: np.ndarray) -> np.ndarray | None:
        """Return g(t, x) at points (n, d), the quantity being ∫ g(t)ρ(t); None where it is in the records."""


@dataclass(frozen=True)
class TimeMargin:
    """How one bound compares with the solution at the stored times.

    Attributes
    ----------
    name, theorem, quantity, kind : str
    verified : bool
        Whether all hypotheses of the bound are proved; otherwise a violation contradicts nothing.
    times : ndarray, shape (k,)
    values : ndarray, shape (k,) or (k, …)
        The computed quantity.
    bounds : ndarray, of the same shape
        Not finite where the bound says nothing.
    allowed : ndarray, of the same shape
        The error allowance: `SAFETY` times the estimated errors of solution and quadrature, and rounding.
    margins : ndarray, of the same shape
        bound - value for upper, value - bound for lower bounds, -|value - bound| for equalities; inf where the
        bound says nothing.
    violations : int
        Stored times at which the margin is below -allowed.
    error_known : bool
        False where no control run or tolerance told the error of the solution and `UNKNOWN` was used.
    """

    name: str
    theorem: str
    quantity: str
    kind: str
    verified: bool
    times: np.ndarray
    values: np.ndarray
    bounds: np.ndarray
    allowed: np.ndarray
    margins: np.ndarray
    violations: int
    error_known: bool

    @property
    def smallest(self) -> float:
        """The smallest margin relative to the largest value; inf where the bound says nothing at all."""
        top = float(np.nanmax(np.abs(self.values), initial=0.0))
        return float(self.margins.min(initial=np.inf)) / (top or 1.0)


def compare_bounds(result: EvolveResult, bounds: Sequence[TimeBound]) -> list[TimeMargin]:
    """Compare every bound with the computed density at every stored time. Collective.

    A quantity ``∫ g(t) ρ(t)`` is integrated over the stored density with cells divided where g jumps or bends.
    Its error is estimated by that of the quadrature and the relative error of the run: the largest change of
    mass, mean (over the standard deviation), covariance (over its largest entry) and observables against the
    control run, at that time; without a control run the tolerance; else `UNKNOWN`. Quantities that the control run
    has itself are allowed their own change. Entropies are allowed what ρ∞ itself has on these elements, where they
    stagnate.
    """
    return [_compare(result, bound) for bound in bounds]


def _compare(result: EvolveResult, bound: TimeBound) -> TimeMargin:
    times = result.times
    limits = np.asarray(bound.evaluate(times), dtype=float)
    said = np.isfinite(limits).reshape(len(times), -1).any(axis=1)
    values, errors, known = _quantity(result, bound, said)
    limits = np.broadcast_to(limits.reshape(limits.shape + (1,) * (values.ndim - limits.ndim)), values.shape)
    says = np.isfinite(limits) & np.isfinite(values)
    allowed = SAFETY * errors + ROUNDING * np.nanmax(np.abs(values), initial=0.0)
    with np.errstate(invalid="ignore"):
        gap = {"upper": limits - values, "lower": values - limits}.get(bound.kind, -np.abs(values - limits))
    margins = np.where(says, gap, np.inf)
    fails = (margins < -allowed).reshape(len(times), -1).any(axis=1)
    return TimeMargin(
        bound.name, bound.theorem, bound.quantity, bound.kind, bound.verified, times, values, limits, allowed, margins,
        int(np.count_nonzero(fails)), known,
    )  # fmt: skip


def _quantity(result: EvolveResult, bound: TimeBound, said: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return the bounded quantity at the stored times, its estimated errors, and whether these are estimates.

    It is nan where it is not recorded, and where it would have to be computed although the bound says nothing.
    """
    if bound.record_key is not None:
        return _recorded(result, bound.record_key)
    relative, known = relative_errors(result)
    values, errors = np.full(len(said), np.nan), np.zeros(len(said))
    for k in np.flatnonzero(said):
        if bound.statistic is not None:
            values[k], errors[k] = _of_moments(result, bound.statistic, int(k), float(relative[k]))
        elif bound.functional(result.records[k].t, np.zeros((1, result.process.dimension))) is not None:
            values[k], errors[k] = _integral(result, bound, int(k))
            errors[k] += relative[k] * abs(values[k])
    return values, errors, known


def _integral(result: EvolveResult, bound: TimeBound, k: int) -> tuple[float, float]:
    """Return ∫ g(t) ρ(t) at the k-th stored time and its quadrature error."""
    t = result.records[k].t

    def g(x: np.ndarray) -> np.ndarray:
        values = bound.functional(t, x)
        assert values is not None
        return values

    return integrate_with_error(result.densities[k], g)


def _recorded(result: EvolveResult, key: str) -> tuple[np.ndarray, np.ndarray, bool]:
    found = [getattr(record, key) for record in result.records]
    if any(value is None for value in found):
        found = [np.nan if value is None else value for value in found]
    values = np.array(found, dtype=float)
    if key in result.errors:
        return values, np.asarray(result.errors[key]), True
    relative, known = relative_errors(result)
    scale = np.abs(values).reshape(len(values), -1).max(axis=1)
    if key == "mean":  # may vanish; its errors are relative to the spread
        scale = np.sqrt(_largest(result))
    errors = np.broadcast_to((relative * scale).reshape(-1, *(1,) * (values.ndim - 1)), values.shape)
    if key in ("entropy", "relative_entropy") and result.reference is not None and result.scheme != "sg":
        errors = errors + stagnation(result.reference, result.densities[0].function_space)
    return values, errors, known


def _of_moments(
    result: EvolveResult, statistic: Callable[[np.ndarray, np.ndarray], float], k: int, relative: float
) -> tuple[float, float]:
    """Return a number made of mean and covariance, and by how much it changes with their errors."""
    mean, covariance = result.records[k].mean, result.records[k].covariance
    spread = float(np.abs(covariance).max())
    d_mean = result.errors["mean"][k] if "mean" in result.errors else np.full(len(mean), relative * np.sqrt(spread))
    d_covariance = (
        result.errors["covariance"][k]
        if "covariance" in result.errors
        else np.full(covariance.shape, relative * spread)
    )
    value, change = float(statistic(mean, covariance)), 0.0
    for i, unit in enumerate(np.eye(len(mean))):
        change += abs(float(statistic(mean + d_mean[i] * unit, covariance)) - value)
        for j in range(i + 1):
            step = np.zeros_like(covariance)
            step[i, j] = step[j, i] = d_covariance[i, j]
            change += abs(float(statistic(mean, covariance + step)) - value)
    return value, change


def _largest(result: EvolveResult) -> np.ndarray:
    """Return the largest entry of the covariance at each time."""
    return np.array([max(float(np.abs(r.covariance).max()), 1e-300) for r in result.records])


def relative_errors(result: EvolveResult) -> tuple[np.ndarray, bool]:
    """Return the relative error of the run at each stored time, and whether it is an estimate. Not collective."""
    count = len(result.records)
    if not result.errors:
        guess = UNKNOWN if result.tolerance is None else result.tolerance
        return np.full(count, guess), result.tolerance is not None
    largest = _largest(result)
    mass = np.array([max(abs(r.mass), 1e-300) for r in result.records])
    parts = [np.zeros(count)]
    if "mass" in result.errors:
        parts.append(result.errors["mass"] / mass)
    if "mean" in result.errors:
        parts.append(result.errors["mean"].reshape(count, -1).max(axis=1) / np.sqrt(largest))
    if "covariance" in result.errors:
        parts.append(result.errors["covariance"].reshape(count, -1).max(axis=1) / largest)
    if "observables" in result.errors and result.errors["observables"].size:
        top = np.maximum(np.abs([r.observables for r in result.records]).max(axis=0), 1e-300)
        parts.append((result.errors["observables"] / top).max(axis=1))
    return np.max(parts, axis=0), True
