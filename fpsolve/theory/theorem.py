"""A bound as an object, and what lower and upper bounds share."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from flint import arb

from fpsolve.model.domains import Sublevel
from fpsolve.model.moved import Moved
from fpsolve.model.process import Process
from fpsolve.theory import candidates
from fpsolve.theory.balls import above, below
from fpsolve.theory.constants import Constant, Field
from fpsolve.theory.cover import Cover, cover_of
from fpsolve.theory.profiles import Profile

ATTEMPTS = 4


@dataclass(frozen=True)
class Bound:
    """A bound of the mean exit time with the hypotheses it rests on.

    Attributes
    ----------
    name : "paper", "sharp", "certified" or "printed"
    kind : "lower" or "upper"
    theorem : str
    verified : bool
        True when every hypothesis is proven; only then is it a bound.
    reason : str
        Why it does not apply.
    hypotheses : dict of str to Constant
    parameters : dict
        Centre, radius, direction as plain numbers and tuples.
    profile : Profile or None
        The function itself; None where the bound does not apply.
    """

    name: str
    kind: Literal["lower", "upper"]
    theorem: str
    verified: bool
    reason: str = ""
    hypotheses: dict[str, Constant] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    profile: Profile | None = None

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        """Evaluate the bound at points of Ω, rounded to the safe side; not collective.

        Parameters
        ----------
        x : ndarray, shape (n, d)

        Returns
        -------
        ndarray, shape (n,)
            Where it says nothing: 0 for lower, inf for upper bounds. In the process' unit of time.
        """
        x = np.atleast_2d(np.asarray(x, dtype=float))
        if self.profile is None:
            return np.full(len(x), 0.0 if self.kind == "lower" else np.inf)
        return self.profile(x)


THEOREMS = {
    ("paper", "lower"): "Theorem 3.1 (1.3), paper",
    ("sharp", "lower"): "Theorem 3.1 with the Ornstein-Uhlenbeck comparison",
    ("paper", "upper"): "Theorem 3.3 (1.4), paper, pointwise form",
    ("sharp", "upper"): "Theorem 3.3 with the Ornstein-Uhlenbeck comparison",
    ("certified", "lower"): "Comparison with a polynomial w: -A w <= M, w <= b where the process leaves",
    ("certified", "upper"): "Comparison with a polynomial w: -A w >= m, w >= -b where the process leaves",
    ("printed", "upper"): "Equation (8) as printed, paper",
}


def missing(
    name: str, kind: Literal["lower", "upper"], reason: str, hypotheses: dict[str, Constant] | None = None
) -> Bound:
    """Return the bound that does not apply, for that reason."""
    return Bound(name, kind, THEOREMS[name, kind], False, reason, hypotheses or {})


def prepare(process: Process, domain: Any) -> tuple[Field, Cover] | str:
    """Return the rigorous coefficients and a cover of Ω; or the reason why there are none."""
    if isinstance(domain, Moved):
        return "not available: the theory knows no domain with a moved boundary"
    try:
        rigorous = Field.of(process)
    except ValueError as error:
        return str(error)
    cover = cover_of(domain)
    lo, hi = cover.roots[0]
    try:
        rigorous.gradient_and_hessian(lo, hi)
        rigorous.diffusion(lo, hi)
    except TypeError as error:  # e.g. the second derivative of abs()
        return f"no rigorous enclosure of loss and covariance: {error}"
    return rigorous, cover


def numbers(x: np.ndarray) -> tuple[float, ...]:
    """Return plain numbers."""
    return tuple(float(t) for t in x)


def search_points(process: Process, domain: Any, cover: Cover) -> list[np.ndarray]:
    """Return minima of L in Ω and the domain's centre."""
    middle = candidates.domain_center(domain)
    starts = [middle, np.asarray(domain.containing, dtype=float)] if isinstance(domain, Sublevel) else [middle]
    points = candidates.minima(process.landscape, cover, starts)  # type: ignore[arg-type]
    if cover.contains(middle[None, :])[0] and all(np.linalg.norm(p - middle) > 1e-12 for p in points):
        points.append(middle)
    return points


def per_epsilon2(name: str, constant: Constant, epsilon2: float) -> Constant:
    """Return σ, β … of Q_eff from the same constant of a = ε²Q_eff, rounded to the safe side."""
    if not math.isfinite(constant.value):
        return replace(constant, name=name)
    quotient = arb(constant.value) / arb(epsilon2)
    return replace(constant, name=name, value=above(quotient) if constant.kind == "upper" else below(quotient))
