"""A bound in time as an object: what it bounds, what it rests on, and how to compare it with a computed density."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from fpsolve.theory.constants import Constant

Name = Literal["paper", "sharp", "printed"]
Kind = Literal["upper", "lower", "equal"]
#: Times (k,) to values (k,) or (k, …).
Curve = Callable[[np.ndarray], np.ndarray]
#: g(t, x) at points (n, d).
Integrand = Callable[[float, np.ndarray], np.ndarray]
#: Mean (d,) and covariance (d, d) to a number.
Statistic = Callable[[np.ndarray, np.ndarray], float]
#: Outside the times for which a bound says something.
NOTHING = {"upper": np.inf, "lower": -np.inf, "equal": np.nan}


@dataclass(frozen=True)
class TimeBound:
    """A statement about the density ρ(t) at all times, with its hypotheses.

    One of three tells what is bounded: `functional` (then it is ``∫ g(t, x) ρ(t, x) dx``), `record_key` (an entry of
    `fpsolve.problems.evolution.Record`) or `statistic` (a number made of mean and covariance).

    Attributes
    ----------
    name : "paper", "sharp" or "printed"
        "printed" is what the paper prints where that is false; never a bound.
    theorem : str
        With its number.
    quantity : str
    kind : "upper", "lower" or "equal"
    verified : bool
        True when every hypothesis is proven for the problem that is solved; only then a violation is a contradiction.
    reason : str
        Why it is not verified: what is not proven, or does not hold and where.
    hypotheses : dict of str to Constant
    parameters : dict
        Plain numbers and tuples.
    curve : callable or None
        Times to bounds; None where the theorem does not apply.
    integrand : callable or None
        g(t, x).
    record_key : str or None
    statistic : callable or None
        Of mean and covariance. For distances it never exceeds the distance itself (Gelbrich), so that it must obey
        every upper bound of it.
    """

    name: Name
    theorem: str
    quantity: str
    kind: Kind
    verified: bool
    reason: str = ""
    hypotheses: dict[str, Constant] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    curve: Curve | None = field(default=None, repr=False)
    integrand: Integrand | None = field(default=None, repr=False)
    record_key: str | None = None
    statistic: Statistic | None = field(default=None, repr=False)

    @property
    def status(self) -> Literal["theorem", "prediction", "does not apply"]:
        """ "theorem": proven with these constants; "prediction": not proven, but comparable; else "does not apply"."""
        if self.curve is None:
            return "does not apply"
        return "theorem" if self.verified else "prediction"

    def evaluate(self, t: np.ndarray | Sequence[float] | float) -> np.ndarray:
        """Return the bound at times t (k,), shape (k,) or (k, …); inf, -inf or nan where it says nothing."""
        t = np.atleast_1d(np.asarray(t, dtype=float))
        if self.curve is None:
            return np.full(len(t), NOTHING[self.kind])
        return np.asarray(self.curve(t), dtype=float)

    def functional(self, t: float, x: np.ndarray) -> np.ndarray | None:
        """Return g(t, x) at points x (n, d), shape (n,); None where the quantity is not an integral of ρ."""
        return None if self.integrand is None else self.integrand(float(t), np.atleast_2d(x))


def inapplicable(
    name: Name,
    theorem: str,
    quantity: str,
    kind: Kind,
    reason: str,
    hypotheses: dict[str, Constant] | None = None,
    parameters: dict[str, Any] | None = None,
) -> TimeBound:
    """Return the statement that does not apply, for that reason."""
    return TimeBound(name, theorem, quantity, kind, False, reason, hypotheses or {}, parameters or {})


def vectorised(function: Callable[[float], Any]) -> Curve:
    """Return the curve that calls `function` for each time (a handful: the stored ones)."""
    return lambda t: np.array([function(float(s)) for s in t])
