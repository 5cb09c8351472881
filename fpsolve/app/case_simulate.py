"""[simulate] of a case file: which chain, how many paths, what is recorded."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from fpsolve.app import readers as r
from fpsolve.app.readers import Reader, Vector, read_table
from fpsolve.errors import InputError
from fpsolve.model.chain import LAWS

if TYPE_CHECKING:
    from fpsolve.app.case import ProcessCase

CHAINS = ("sgd", "noisy", "momentum", "sde")
MOST = 100_000_000


@dataclass(frozen=True)
class SimulateCase:
    """[simulate]; what is None follows from [process].

    Attributes
    ----------
    chain : "sgd", "noisy", "momentum", "sde" or None
    law : "samples", "gaussian" or None
    boundary : "absorbing" or "free"
        Whether paths end when they leave the domain.
    step, bridge
        Of the SDE; a bridge unless it is false.
    """

    chain: str | None = None
    law: str | None = None
    paths: int = 10_000
    seed: int = 0
    starts: tuple[Vector, ...] | None = None
    times: Vector | None = None
    observables: tuple[str, ...] = ()
    shuffle: bool = False
    boundary: str = "absorbing"
    max_time: float | None = None
    step: float | None = None
    bridge: bool | None = None
    trajectories: int = 3


def _times(key: str, value: object) -> Vector:
    times = r.vector(key, value)
    if times[0] < 0 or any(b <= a for a, b in pairwise(times)):
        raise InputError(key, value, "increasing times >= 0 such as [0.1, 1.0]")
    return times


def _paths(key: str, value: object) -> int:
    paths = r.count(key, value)
    if paths > MOST:
        raise InputError(key, value, f"at most {MOST:,} paths", "Every path's exit time and place are kept.")
    return paths


def _whole(key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise InputError(key, value, "an integer of at least 0")
    return value


SIMULATE: dict[str, Reader] = {
    "chain": r.one_of(*CHAINS), "law": r.one_of(*LAWS), "paths": _paths, "seed": _whole, "starts": r.points,
    "times": _times, "observables": r.some_formulas, "shuffle": r.flag, "boundary": r.one_of("absorbing", "free"),
    "max_time": r.positive, "step": r.positive, "bridge": r.flag, "trajectories": _whole,
}  # fmt: skip


def read_simulate(table: object, process: ProcessCase, homes: dict[str, set[str]]) -> SimulateCase:
    """Return [simulate]; what does not go together with [process] is found by `chosen_chain`. Raises InputError."""
    values = read_table(table, "simulate", SIMULATE, homes)
    positions = len(process.states) // (1 if process.momentum is None else 2)
    for i, point in enumerate(values.get("starts", ())):
        if len(point) != positions:  # at rest, else
            r.check_length(f"simulate.starts[{i}]", point, process.states)
    if values.get("boundary") == "free" and "times" not in values:
        remedy = "Without an exit there is nothing else to ask for."
        raise InputError("simulate.times", None, 'times, since boundary = "free"', remedy)
    section = SimulateCase(**values)
    if section.chain not in (None, "sde"):
        _without_sde(section)
    return section


def _without_sde(section: SimulateCase) -> None:
    for key in ("step", "bridge"):
        if (given := getattr(section, key)) is not None:
            raise InputError(f"simulate.{key}", given, 'no such key unless chain = "sde"', "A chain's step is η.")


def chosen_chain(section: SimulateCase, process: ProcessCase) -> str:
    """Return the chain that is meant: the given one, which [process] must fit, or the one that [process] describes.

    Raises
    ------
    InputError
        If they do not fit, or a key is missing or has no meaning.
    """
    momentum, noisy = bool(process.momentum), process.extra_noise > 0
    natural = "sde" if process.drift is not None else "momentum" if momentum else "noisy" if noisy else "sgd"
    chain = section.chain or natural
    if chain != "sde":
        if process.drift is not None:
            raise InputError("simulate.chain", chain, '"sde", since [process] gives drift and diffusion')
        if chain == "momentum" and process.momentum is None:
            raise InputError("process.momentum", None, 'a number, since chain = "momentum"')
        if chain == "noisy" and not noisy:
            raise InputError("process.extra_noise", process.extra_noise, 'a positive number, since chain = "noisy"')
        if chain == "sgd" and (momentum or noisy):
            raise InputError("simulate.chain", chain, f'"{natural}" or "sde", since [process] describes it')
        _without_sde(section)
        return chain
    if section.step is None:
        raise InputError("simulate.step", None, 'the time step, since chain = "sde"')
    for key, default in (("shuffle", False), ("law", None)):
        if getattr(section, key) != default:
            raise InputError(f"simulate.{key}", getattr(section, key), 'no such key with chain = "sde"')
    return chain
