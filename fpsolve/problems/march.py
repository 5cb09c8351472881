"""The march through time: step sizes from the error estimate, stored times met exactly.

Between two stops the steps are the distance divided by a power of two, so that a factorisation serves many of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from petsc4py import PETSc

from fpsolve.errors import NotConverged
from fpsolve.fem.rational import CRANK_NICOLSON, HALF_STEPS, STARTING_STEPS, Rational
from fpsolve.model.schedule import Schedule
from fpsolve.problems.evolution import Step

#: Halvings of the distance of two stops before a step counts as hopeless.
DEEPEST = 50
#: A step may be at most this part of the whole time.
LONGEST = 0.25


class Stepper(Protocol):
    """One step of a scheme."""

    def step(
        self, y: PETSc.Vec, dt: float, theta: float = 1.0, method: Rational | None = None
    ) -> tuple[PETSc.Vec, float]:
        """Return the new vector and the estimated local error relative to it."""


@dataclass
class Progress:
    """Where the march stands; all that is needed to go on from a checkpoint.

    Attributes
    ----------
    t : float
    stop : int
        Number of the next stop.
    size : float or None
        The step size that the error allows; None before the first step.
    steps : list of Step
    rejected : int
    """

    t: float = 0.0
    stop: int = 0
    size: float | None = None
    steps: list[Step] = field(default_factory=list)
    rejected: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Progress:
        """Return the same object from `to_json`."""
        return cls(**(data | {"steps": [Step(**step) for step in data["steps"]]}))


@dataclass(frozen=True)
class Plan:
    """When to stop and how to choose steps.

    Attributes
    ----------
    stops : tuple of float
        Increasing, > 0: stored times and jumps of ε².
    method : Rational
    tolerance : float or None
        Cap on the estimated local error of each step; None for fixed steps.
    step : float or None
        The fixed step; shortened so that stops are met.
    schedule : Schedule
    control : bool
        Steps twice as long, so that the error in time shows in the difference too.
    """

    stops: tuple[float, ...]
    method: Rational
    tolerance: float | None
    step: float | None
    schedule: Schedule = field(default_factory=Schedule)
    control: bool = False

    def __post_init__(self) -> None:
        if self.control:
            stretched = None if self.step is None else 2 * self.step
            cap = None if self.tolerance is None else self.tolerance * 2**self.method.order
            object.__setattr__(self, "step", stretched)
            object.__setattr__(self, "tolerance", cap)

    def interval(self, stop: int) -> tuple[float, float]:
        """Return the beginning and the length of the interval that ends with a stop."""
        begin = self.stops[stop - 1] if stop else 0.0
        return begin, self.stops[stop] - begin


def march(
    stepper: Stepper,
    y: PETSc.Vec,
    plan: Plan,
    first: float,
    progress: Progress,
    at_stop: Callable[[int, PETSc.Vec], None],
    after_step: Callable[[PETSc.Vec], None],
) -> PETSc.Vec:
    """Advance y from progress.t to the last stop; return the final vector (y is consumed). Collective.

    Parameters
    ----------
    first : float
        First step to try; adaptive steps only.
    progress : Progress
        Updated in place.
    at_stop : callable
        Gets the number of the stop just reached and the vector.
    after_step : callable
        Called after each accepted step and what `at_stop` did.

    Raises
    ------
    NotConverged
        If the error stays above the cap however short the step.
    """
    while progress.stop < len(plan.stops):
        if progress.size is None:
            progress.size = min(first, LONGEST * plan.stops[-1])
        dt, end = _next_step(plan, progress)
        theta = plan.schedule.theta(progress.t, dt)
        new, error = stepper.step(y, dt, theta, _method(plan, progress))
        if plan.tolerance is not None and not error <= plan.tolerance:
            new.destroy()
            _shorten(plan, progress, dt, error)
            continue
        y.destroy()
        y = new
        _accept(plan, progress, Step(end, dt, theta, error))
        if progress.t == plan.stops[progress.stop]:
            at_stop(progress.stop, y)
            progress.stop += 1
        after_step(y)
    return y


def replay(stepper: Stepper, y: PETSc.Vec, steps: Sequence[tuple[Step, Rational]]) -> PETSc.Vec:
    """Advance y by the given steps with their methods; return the final vector (y is consumed). Collective."""
    for step, method in steps:
        new, _ = stepper.step(y, step.dt, step.theta, method)
        y.destroy()
        y = new
    return y


def with_methods(steps: Sequence[Step], method: Rational) -> list[tuple[Step, Rational]]:
    """Return the steps of a march with the method that each one used."""
    return [(step, starting(method, number)) for number, step in enumerate(steps)]


def starting(method: Rational, number: int) -> Rational:
    """Return the method of a step: Crank-Nicolson begins with damped half steps."""
    return HALF_STEPS if method is CRANK_NICOLSON and number < STARTING_STEPS else method


def _method(plan: Plan, progress: Progress) -> Rational:
    return starting(plan.method, len(progress.steps))


def _next_step(plan: Plan, progress: Progress) -> tuple[float, float]:
    """Return the length of the next step and the time at its end."""
    assert progress.size is not None
    begin, length = plan.interval(progress.stop)
    if plan.tolerance is None:
        assert plan.step is not None
        count = max(1, math.ceil(length / plan.step * (1 - 1e-9)))
    else:
        # two steps at least, so that the control run can take longer ones
        count = 2 ** max(0 if plan.control else 1, math.ceil(math.log2(length / progress.size) - 1e-9))
    done = round((progress.t - begin) / length * count)
    if plan.tolerance is not None:
        # the step must lead from one point of its grid to the next
        while begin + length * (done / count) != progress.t or _changes_much(plan, progress.t, length / count):
            count *= 2
            done = round((progress.t - begin) / length * count)
            if count > 2**DEEPEST:
                raise NotConverged(f"the time step fell below {length / count:.3e} at t = {progress.t:.6g}")
    end = plan.stops[progress.stop] if done + 1 == count else begin + length * ((done + 1) / count)
    # lengths that differ by rounding share a factorisation
    return float(f"{length / count:.12e}"), end


def _changes_much(plan: Plan, t: float, dt: float) -> bool:
    """Return whether θ changes too much within a step.

    θ is frozen at the middle of a step, which the error estimate does not see. That costs v²/6 of what the step
    changes, v being the variation of θ, and a step of the adaptive methods changes the density by about one half.
    """
    assert plan.tolerance is not None
    return plan.schedule.variation(t, dt) > math.sqrt(12 * plan.tolerance)


def _accept(plan: Plan, progress: Progress, step: Step) -> None:
    progress.t = step.t
    progress.steps.append(step)
    if plan.tolerance is None:
        return
    gain = _gain(plan, step.error)
    if gain >= 2.0:
        longest = LONGEST * plan.stops[-1] * (2.0 if plan.control else 1.0)
        progress.size = min(longest, max(progress.size or 0.0, step.dt * 2.0 ** min(3, int(math.log2(gain)))))


def _gain(plan: Plan, error: float) -> float:
    """Return by which factor the step could be longer; the estimate is of one order less than the method."""
    assert plan.tolerance is not None
    if not math.isfinite(error):
        return 0.0
    return min(16.0, 0.85 * (plan.tolerance / max(error, 1e-300)) ** (1.0 / plan.method.order))


def _shorten(plan: Plan, progress: Progress, dt: float, error: float) -> None:
    progress.rejected += 1
    gain = max(_gain(plan, error), 2.0**-6)
    progress.size = dt * 2.0 ** min(-1, math.floor(math.log2(gain)))
    if progress.size < plan.stops[-1] * 2.0**-DEEPEST:
        raise NotConverged(
            f"the time step fell below {dt:.3e} at t = {progress.t:.6g} and its error estimate {error:.3e} is still "
            f"above the cap {plan.tolerance:.3e}. Use a smaller mesh.size, a smoother initial density or a fixed step."
        )
