"""What [bounds] asks beside the mean exit time: E τ², P(τ > t) with its rate of decay, and where the process leaves."""

from __future__ import annotations

import difflib
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from fpsolve.app.case_bounds import BoundsCase
from fpsolve.errors import InputError
from fpsolve.model.domains import Domain
from fpsolve.model.process import Process
from fpsolve.theory.certified.moments import certified_exit_probability, certified_second_moment
from fpsolve.theory.certified.survival import certified_survival

log = logging.getLogger("fpsolve")

#: Lower and upper bound.
Pair = tuple[float, float]
#: Part of the budget that the mean exit time may use where more is asked, and the least part of every other question.
MEAN_SHARE, LEAST_SHARE = 0.5, 0.05


@dataclass(frozen=True)
class Question:
    """What is proved of one question.

    Attributes
    ----------
    values : tuple of tuple of (lower, upper)
        For each start; of survival for each of the times. True, but trivial, where nothing is proved.
    verified : bool
        Whether more is proved than the trivial bounds.
    reason : str
        Why not, or what is missing.
    rate : (lower, upper) or None
        Of survival: of the exponential decay of P(τ > t), per unit of SGD time.
    seconds : float
    """

    values: tuple[tuple[Pair, ...], ...]
    verified: bool
    reason: str
    rate: Pair | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class FurtherBounds:
    """The answers to all questions beside the mean exit time; None where not asked.

    Attributes
    ----------
    second_moment, survival, probability : Question or None
    deviation : tuple of (lower, upper) or None
        The standard deviation of τ at each start.
    """

    second_moment: Question | None = None
    survival: Question | None = None
    probability: Question | None = None
    deviation: tuple[Pair, ...] | None = None

    @property
    def questions(self) -> dict[str, Question]:
        """Those that were asked, by their names in summary.json."""
        names = ("second_moment", "survival", "probability")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def count_questions(asked: BoundsCase) -> int:
    """Return how many questions there are beside the mean exit time."""
    return (asked.moments > 1) + bool(asked.times) + bool(asked.parts)


def check_parts(asked: BoundsCase, domain: Domain) -> None:
    """Raise InputError for parts that the domain does not have, with the closest name."""
    for part in asked.parts:
        if part not in domain.names:
            near = difflib.get_close_matches(part, domain.names, n=1)
            remedy = f"Did you mean '{near[0]}'?" if near else ""
            raise InputError("bounds.parts", part, f"a name out of {', '.join(domain.names)}", remedy)


@dataclass
class _Clock:
    """Shares what is left of the budget equally among the questions that are left."""

    budget: float
    end: float
    left: int

    def share(self) -> float:
        """Return the seconds of the next question."""
        seconds = max((self.end - time.monotonic()) / self.left, LEAST_SHARE * self.budget)
        self.left -= 1
        return seconds


@dataclass(frozen=True)
class _Asker:
    """Asks about the starts in the closure of Ω; the others, within rounding of it, keep trivial bounds."""

    process: Process
    domain: Domain
    starts: np.ndarray
    clock: _Clock

    @property
    def inside(self) -> np.ndarray:
        """Which starts lie in the closure of Ω."""
        return self.domain.contains(self.starts)

    def ask(
        self, what: str, nothing: Pair, count: int, work: Callable[[np.ndarray, float], tuple[Question, list[Pair]]]
    ) -> tuple[Question, list[Pair]]:
        """Return the answer and what was proved of E τ on the way, both for all starts."""
        trivial, unknown = (nothing,) * count, (0.0, math.inf)
        seconds = self.clock.share()
        log.info("certified bounds of %s, at most %.3g s", what, seconds)
        began = time.monotonic()
        if self.inside.any():
            try:
                found, means = work(self.starts[self.inside], seconds)
            except InputError:
                raise
            except (ArithmeticError, ValueError) as error:  # the mean exit time is not to be lost for it
                found, means = Question((), False, f"{type(error).__name__}: {error}"), []
        else:
            found, means = Question((), False, "no start lies in the domain"), []
        values, at = iter(found.values), iter(means)
        every = tuple(next(values, trivial) if inside else trivial for inside in self.inside)
        known = [next(at, unknown) if inside else unknown for inside in self.inside]
        return replace(found, values=every, seconds=time.monotonic() - began), known


def further_bounds(
    process: Process, domain: Domain, starts: np.ndarray, asked: BoundsCase, means: Sequence[Pair], seconds: float
) -> FurtherBounds:
    """Answer what is asked beside the mean exit time, with a proof. Not collective.

    Parameters
    ----------
    process, domain
    starts : ndarray, shape (k, d)
    asked : BoundsCase
    means : list of (lower, upper)
        What is proved of E τ at the starts.
    seconds : float
        What is left of the budget. The questions get equal parts of it; what one does not use is shared by the next
        ones, and each gets at least a twentieth of the whole budget.
    """
    left = count_questions(asked)
    asker = _Asker(process, domain, starts, _Clock(asked.budget, time.monotonic() + seconds, left))
    second = survival = probability = deviation = None
    if asked.moments > 1:
        found, better = asker.ask("E τ²", (0.0, math.inf), 1, lambda x, s: _second_moment(process, domain, x, s))
        means = [(max(a, c), min(b, d)) for (a, b), (c, d) in zip(means, better, strict=True)]
        second = _at_least_squares(found, means)
        deviation = tuple(deviation_bounds(mean, at[0]) for mean, at in zip(means, second.values, strict=True))
    if asked.times:
        times = asked.times
        work = lambda x, s: _survival(process, domain, x, times, s)  # noqa: E731
        survival, _ = asker.ask("P(τ > t)", (0.0, 1.0), len(times), work)
        survival = survival if survival.rate is not None else replace(survival, rate=(0.0, math.inf))
    if asked.parts:
        name = f"the probability to leave through {', '.join(asked.parts)}"
        work = lambda x, s: _probability(process, domain, asked.parts, x, s)  # noqa: E731
        probability, _ = asker.ask(name, (0.0, 1.0), 1, work)
    return FurtherBounds(second, survival, probability, deviation)


# balls do not travel to other ranks: only numbers are taken over


def _second_moment(process: Process, domain: Domain, x: np.ndarray, seconds: float) -> tuple[Question, list[Pair]]:
    found = certified_second_moment(process, domain, x, seconds)
    values = tuple(((v.lower, v.upper),) for v in found.values)
    return Question(values, found.verified, found.reason), [(v.lower, v.upper) for v in found.means]


def _survival(
    process: Process, domain: Domain, x: np.ndarray, times: Sequence[float], seconds: float
) -> tuple[Question, list[Pair]]:
    found = certified_survival(process, domain, x, times, seconds)
    pairs = [(v.lower, v.upper) for v in found.values]
    values = tuple(tuple(pairs[k : k + len(times)]) for k in range(0, len(pairs), len(times)))
    return Question(values, found.verified, found.reason, (found.rate_lower, found.rate_upper)), []


def _probability(
    process: Process, domain: Domain, parts: Sequence[str], x: np.ndarray, seconds: float
) -> tuple[Question, list[Pair]]:
    found = certified_exit_probability(process, domain, parts, x, seconds)
    return Question(tuple(((v.lower, v.upper),) for v in found.values), found.verified, found.reason), []


# --- moments ---------------------------------------------------------------------------------------------


def _at_least_squares(found: Question, means: Sequence[Pair]) -> Question:
    """Take over (E τ)² <= E τ² where that is better."""
    values = []
    for at, mean in zip(found.values, means, strict=True):
        low, high = at[0]
        values.append(((max(low, _down(Fraction(mean[0]) ** 2)), high),))
    proved = found.verified or any(at[0][0] > 0 for at in values)
    return replace(found, values=tuple(values), verified=proved)


def deviation_bounds(mean: Pair, second: Pair) -> Pair:
    """Return bounds of sqrt(E τ² - (E τ)²), rounded outwards, from bounds of E τ >= 0 and of E τ².

    The variance lies in ``[E2_low - u_up², E2_up - u_low²]``.
    """
    lower, upper = 0.0, math.inf
    if math.isfinite(mean[1]):
        lower = math.sqrt(_down(max(Fraction(second[0]) - Fraction(mean[1]) ** 2, Fraction(0))))
    if math.isfinite(second[1]):
        high = max(Fraction(second[1]) - Fraction(mean[0]) ** 2, Fraction(0))
        upper = math.sqrt(math.nextafter(float(high), math.inf))
    return max(math.nextafter(lower, -math.inf), 0.0), math.nextafter(upper, math.inf)


def _down(value: Fraction) -> float:
    """Return a float that is not above a number >= 0."""
    if value > Fraction(np.finfo(float).max):
        return float(np.finfo(float).max)
    return max(math.nextafter(float(value), -math.inf), 0.0)
