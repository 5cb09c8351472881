"""The march through time on a scalar equation y' = -y: stops are met, steps follow the error, jumps of ε² count."""

from __future__ import annotations

from petsc4py import PETSc

import numpy as np
import pytest

from fpsolve.errors import NotConverged
from fpsolve.fem.rational import CRANK_NICOLSON, Rational, l_stable
from fpsolve.model.schedule import Schedule, schedule_from
from fpsolve.problems.march import Plan, Progress, march, replay, with_methods


class Decay:
    """y' = -θ rate y by a rational method."""

    def __init__(self, rate: float = 1.0, method: Rational | None = None) -> None:
        self.rate, self.method = rate, method or l_stable(4)
        self.used: list[str] = []

    def step(
        self, y: PETSc.Vec, dt: float, theta: float = 1.0, method: Rational | None = None
    ) -> tuple[PETSc.Vec, float]:
        method = method or self.method
        self.used.append(method.name)
        z = -self.rate * theta * dt
        new = y.copy()
        new.scale(method(z))
        error = sum(e * (1 - method.pole * z) ** -j for j, e in enumerate(method.error))
        return new, abs(error / method(z))


def start() -> PETSc.Vec:
    y = PETSc.Vec().createSeq(1)
    y.set(1.0)
    return y


def run(plan: Plan, stepper: Decay, first: float = 0.1) -> tuple[float, Progress, dict[float, float]]:
    seen: dict[float, float] = {}
    progress = Progress()

    def at_stop(number: int, y: PETSc.Vec) -> None:
        seen[plan.stops[number]] = y.getArray()[0]

    y = march(stepper, start(), plan, first, progress, at_stop, lambda _: None)
    return float(y.getArray()[0]), progress, seen


@pytest.mark.parametrize("first", [1e-4, 0.3, 50.0])
def test_adaptive_steps_meet_the_cap(first: float) -> None:
    plan = Plan((0.1, 1.0, 7.0), l_stable(4), 1e-6, None)
    y, progress, seen = run(plan, Decay(), first)
    assert y == pytest.approx(np.exp(-7.0), rel=1e-5)
    assert seen[0.1] == pytest.approx(np.exp(-0.1), rel=1e-6)
    assert all(step.error <= 1e-6 for step in progress.steps)
    assert [step.t for step in progress.steps if step.t in plan.stops] == list(plan.stops)
    assert np.sum([step.dt for step in progress.steps]) == pytest.approx(7.0, rel=1e-10)
    assert len({step.dt for step in progress.steps}) < 16  # powers of two and the remainders at the stops


def test_steps_grow_where_nothing_happens() -> None:
    plan = Plan((100.0,), l_stable(2), 1e-4, None)
    _, progress, _ = run(plan, Decay(1e-3), 1e-3)
    assert progress.steps[0].dt <= 1e-3
    assert max(step.dt for step in progress.steps) > 5.0


def test_fixed_steps_and_the_start_of_crank_nicolson() -> None:
    plan = Plan((0.5, 1.0), CRANK_NICOLSON, None, 0.1)
    stepper = Decay(method=CRANK_NICOLSON)
    y, progress, _ = run(plan, stepper)
    assert len(progress.steps) == 10
    assert len({step.dt for step in progress.steps}) == 1
    assert sum("Euler" in name for name in stepper.used) == 2
    assert y == pytest.approx(np.exp(-1.0), rel=1e-2)


def test_jumps_of_the_noise_level() -> None:
    schedule = Schedule((0.25,), (1.0, 3.0))
    plan = Plan((0.25, 1.0), l_stable(4), 1e-8, None, schedule)
    y, progress, _ = run(plan, Decay())
    assert y == pytest.approx(np.exp(-0.25 - 3 * 0.75), rel=1e-6)
    assert {step.theta for step in progress.steps if step.t <= 0.25} == {1.0}
    assert {step.theta for step in progress.steps if step.t > 0.25} == {3.0}


def test_going_on_from_saved_progress_is_the_same() -> None:
    plan = Plan((0.3, 1.0), l_stable(3), 1e-7, None)
    whole, progress, _ = run(plan, Decay())
    saved: list[tuple[dict, float]] = []
    stopped = Progress()

    def remember(y: PETSc.Vec) -> None:
        saved.append((stopped.to_json(), float(y.getArray()[0])))

    march(Decay(), start(), plan, 0.1, stopped, lambda *_: None, remember)
    data, value = saved[len(saved) // 2]
    y = start()
    y.set(value)
    again = Progress.from_json(data)
    y = march(Decay(), y, plan, 123.0, again, lambda *_: None, lambda _: None)
    assert y.getArray()[0] == whole
    assert again.steps == progress.steps


def test_replay_takes_the_same_steps() -> None:
    plan = Plan((1.0,), CRANK_NICOLSON, None, 0.1)
    whole, progress, _ = run(plan, Decay(method=CRANK_NICOLSON))
    y = replay(Decay(), start(), with_methods(progress.steps, CRANK_NICOLSON))
    assert y.getArray()[0] == whole


def test_hopeless_steps_end() -> None:
    class Noise(Decay):
        def step(self, y, dt, theta=1.0, method=None):  # type: ignore[no-untyped-def]
            return y.copy(), 1.0

    with pytest.raises(NotConverged, match="time step fell below"):
        run(Plan((1.0,), l_stable(4), 1e-6, None), Noise())


def test_steps_follow_a_smooth_schedule() -> None:
    """θ = 1/(1 + t)²: ∫θ = t/(1+t); frozen at midpoints, so steps must be short where θ changes."""
    schedule = schedule_from("1/(1 + t)**2", 1, 0.5, until=3.0)
    plan = Plan((3.0,), l_stable(4), 1e-5, None, schedule)
    y, progress, _ = run(plan, Decay())
    assert y == pytest.approx(np.exp(-0.75), rel=1e-4)
    assert progress.steps[-1].dt > 2 * progress.steps[0].dt
