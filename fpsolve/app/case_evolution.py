"""The sections [evolve], [backward], [steady] and [process.schedule] of a case file.

Keys and types are checked whatever the command, so that no misspelt key waits for its own command to be noticed. A
missing key is an error only for the command that needs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from fpsolve.app import readers as r
from fpsolve.app.readers import Reader, Vector, need, read_table
from fpsolve.errors import InputError

BOUNDARIES = ("no-flux", "absorbing")
#: A formula in t, or its values from given times on.
Course = str | tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class ScheduleCase:
    """[process.schedule]: learning rate and batch size in time."""

    learning_rate: Course | None = None
    batch_size: Course | None = None


@dataclass(frozen=True)
class InitialCase:
    """Where the parameters start: exactly one of a Gaussian, a density, a point and a saved state."""

    mean: Vector | None = None
    covariance: float | Vector | tuple[Vector, ...] | None = None
    density: str | None = None
    point: Vector | None = None
    state: Path | None = None


@dataclass(frozen=True)
class EvolveCase:
    """[evolve]: the density at given times, and which theorems it is compared with.

    `gap`: whether the spectral gap is computed where it predicts how the entropy decays.
    """

    initial: InitialCase | None = None
    times: Vector | None = None
    observables: tuple[str, ...] = ()
    boundary: str = "no-flux"
    nonnegative: bool | None = None
    step: float | None = None
    order: int | None = None
    bounds: tuple[str, ...] = ("paper", "sharp")
    center: Vector | None = None
    radius: float | None = None
    delta: float | None = None
    gap: bool = True
    checkpoint_seconds: float = 60.0


@dataclass(frozen=True)
class BackwardCase:
    """[backward]: E φ(X_t) from given points; `initial` is for the test of duality."""

    terminal: str | None = None
    times: Vector | None = None
    points: tuple[Vector, ...] | None = None
    initial: InitialCase | None = None
    boundary: str = "no-flux"
    step: float | None = None
    order: int | None = None


@dataclass(frozen=True)
class SteadyCase:
    """[steady]: how many eigenpairs, which expectations, and the strengths δ of the noise that is added.

    `bounds`: ("certified",) for a proved lower bound of the spectral gap, within the seconds of ``bounds.budget``.
    """

    eigenvalues: int = 3
    observables: tuple[str, ...] = ()
    deltas: tuple[float, ...] = ()
    bounds: tuple[str, ...] = ()


# --- single values -------------------------------------------------------------------------------------


def _course(key: str, value: object) -> Course:
    if isinstance(value, str):
        return r.formula(key, value)
    remedy = 'Write "0.1/(1 + t)" or [[0, 0.1], [5, 0.01]].'
    if not isinstance(value, list) or not value:
        raise InputError(key, value, "a formula in t in quotes, or a list of [time, value]", remedy)
    pairs = tuple(r.vector(f"{key}[{i}]", pair) for i, pair in enumerate(value))
    for i, pair in enumerate(pairs):
        if len(pair) != 2:
            raise InputError(f"{key}[{i}]", list(pair), "a time and the value from then on", remedy)
    return tuple((t, v) for t, v in pairs)


def _spread(key: str, value: object) -> float | Vector | tuple[Vector, ...]:
    """Read a covariance: a matrix, a list of variances, or one variance for all directions."""
    if isinstance(value, list) and value and isinstance(value[0], list):
        return tuple(r.vector(f"{key}[{i}]", row) for i, row in enumerate(value))
    return r.vector(key, value) if isinstance(value, list) else r.number(key, value)


_INITIAL: dict[str, Reader] = {
    "mean": r.vector, "covariance": _spread, "density": r.formula, "point": r.vector, "state": r.text,
}  # fmt: skip
_KINDS = ({"mean", "covariance"}, {"density"}, {"point"}, {"state"})
_FORMS = '{ mean = [...], covariance = [[...]] }, { density = "..." }, { point = [...] } or { state = "file.npz" }'


def _initial(key: str, value: object) -> InitialCase:
    if not isinstance(value, dict):
        raise InputError(key, value, f"one of {_FORMS}")
    values = read_table(value, key, _INITIAL)
    if set(values) not in _KINDS:
        raise InputError(key, value, f"one of {_FORMS}")
    return InitialCase(**values)


def _times(key: str, value: object) -> Vector:
    times = r.vector(key, value)
    if any(t < 0 for t in times) or any(b <= a for a, b in pairwise(times)) or times[-1] <= 0:
        raise InputError(key, value, "increasing times > 0 such as [0.1, 1.0]")
    return times


def _order(key: str, value: object) -> int:
    if isinstance(value, bool) or value not in (1, 2, 3, 4):
        raise InputError(key, value, "1, 2, 3 or 4")
    return int(value)  # type: ignore[call-overload,no-any-return]


def _deltas(key: str, value: object) -> Vector:
    if value == []:
        return ()
    deltas = r.vector(key, value)
    if any(d <= 0 for d in deltas) or len(set(deltas)) < max(len(deltas), 3):
        raise InputError(key, value, "at least three different positive numbers such as [0.4, 0.2, 0.1]")
    return deltas


def _certified(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InputError(key, value, '["certified"] or []')
    return tuple(dict.fromkeys(r.one_of("certified")(key, name) for name in value))


SCHEDULE: dict[str, Reader] = {"learning_rate": _course, "batch_size": _course}
_TIMED: dict[str, Reader] = {
    "initial": _initial, "times": _times, "boundary": r.one_of(*BOUNDARIES), "step": r.positive, "order": _order,
}  # fmt: skip
EVOLVE: dict[str, Reader] = _TIMED | {
    "observables": r.some_formulas, "nonnegative": r.flag, "bounds": r.bounds, "center": r.vector,
    "radius": r.positive, "delta": r.positive, "gap": r.flag, "checkpoint_seconds": r.positive,
}  # fmt: skip
BACKWARD: dict[str, Reader] = _TIMED | {"terminal": r.formula, "points": r.points}
STEADY: dict[str, Reader] = {
    "eigenvalues": r.count, "observables": r.some_formulas, "deltas": _deltas, "bounds": _certified,
}  # fmt: skip


# --- sections ------------------------------------------------------------------------------------------


def read_schedule(table: object, homes: dict[str, set[str]]) -> ScheduleCase:
    """Return [process.schedule]. Raises InputError."""
    values = read_table(table, "process.schedule", SCHEDULE, homes)
    if not values:
        raise InputError("process.schedule", table, "learning_rate or batch_size as functions of time")
    return ScheduleCase(**values)


def read_evolve(table: object, variables: tuple[str, ...], folder: Path, homes: dict[str, set[str]]) -> EvolveCase:
    """Return [evolve]; `variables` are all of the process, velocities included. Raises InputError."""
    values = read_table(table, "evolve", EVOLVE, homes)
    values |= _placed(values, "evolve", variables, folder)
    if "center" in values:
        r.check_length("evolve.center", values["center"], variables)
    return EvolveCase(**values)


def read_backward(table: object, variables: tuple[str, ...], folder: Path, homes: dict[str, set[str]]) -> BackwardCase:
    """Return [backward]. Raises InputError."""
    values = read_table(table, "backward", BACKWARD, homes)
    values |= _placed(values, "backward", variables, folder)
    for i, point in enumerate(values.get("points", ())):
        r.check_length(f"backward.points[{i}]", point, variables)
    return BackwardCase(**values)


def read_steady(table: object, homes: dict[str, set[str]]) -> SteadyCase:
    """Return [steady]. Raises InputError."""
    return SteadyCase(**read_table(table, "steady", STEADY, homes))


def _placed(values: dict[str, Any], section: str, variables: tuple[str, ...], folder: Path) -> dict[str, Any]:
    """Return the initial datum with the numbers of its entries checked and its file beside the case file."""
    initial: InitialCase | None = values.get("initial")
    if initial is None:
        return {}
    key, d = f"{section}.initial", len(variables)
    for name in ("mean", "point"):
        if getattr(initial, name) is not None:
            r.check_length(f"{key}.{name}", getattr(initial, name), variables)
    spread = initial.covariance
    rows = spread if isinstance(spread, tuple) else ()
    if rows and (len(rows) != d or any(isinstance(row, tuple) and len(row) != d for row in rows)):
        raise InputError(f"{key}.covariance", spread, f"a {d} × {d} matrix, {d} variances or one variance")
    if initial.state is not None:
        return {"initial": InitialCase(state=folder / initial.state)}
    return {}


def needed(section: str, case: object, *keys: str) -> None:
    """Raise InputError unless the section of a command has the keys that it cannot do without."""
    wanted = {
        "initial": f"one of {_FORMS}",
        "times": "the times at which the answer is wanted, such as [0.1, 1.0]",
        "terminal": 'the function whose expectation is wanted, such as "x"',
    }
    given = {key: getattr(case, key) for key in keys if getattr(case, key, None) is not None}
    for key in keys:
        need(given, section, key, wanted[key])
