"""The section [bounds] of a case file: what is to be enclosed with a proof, how tight, and how long to try."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from fpsolve.app import readers as r
from fpsolve.app.readers import Reader, Vector, read_table
from fpsolve.errors import InputError


@dataclass(frozen=True)
class BoundsCase:
    """[bounds]: `width`, the relative width asked at the starts, and `budget`, the seconds after which the search ends.

    These two also for ``exit.bounds = ["certified"]``, and `budget` for ``steady.bounds``; the starts are those of
    [exit].

    Attributes
    ----------
    moments : int
        2: also of E τ² and the standard deviation.
    times : tuple of float
        t > 0 for P(τ > t), and the rate at which it decays.
    parts : tuple of str
        For the probability to leave through one of these parts of the boundary.
    """

    width: float = 1e-2
    budget: float = 60.0
    moments: int = 1
    times: Vector = ()
    parts: tuple[str, ...] = ()


def _moments(key: str, value: object) -> int:
    if isinstance(value, bool) or value not in (1, 2):
        raise InputError(key, value, "1 or 2", "'fpsolve exit' computes higher moments, with error estimates.")
    return int(value)  # type: ignore[call-overload,no-any-return]


def _times(key: str, value: object) -> Vector:
    times = () if value == [] else r.vector(key, value)
    if any(t <= 0 for t in times) or any(b <= a for a, b in pairwise(times)):
        raise InputError(key, value, "increasing times > 0 such as [0.5, 2.0]")
    return times


def _parts(key: str, value: object) -> tuple[str, ...]:
    return tuple(dict.fromkeys(r.parts(key, value)))


BOUNDS: dict[str, Reader] = {
    "width": r.positive, "budget": r.positive, "moments": _moments, "times": _times, "parts": _parts,
}  # fmt: skip


def read_bounds(table: dict[str, Any], homes: Mapping[str, set[str]]) -> BoundsCase:
    """Read the section. Raises InputError."""
    return BoundsCase(**read_table(table, "bounds", BOUNDS, homes))


def with_options(section: BoundsCase, width: float | None, budget: float | None) -> BoundsCase:
    """Return the section with what the command line says instead; None where it says nothing. Raises InputError."""
    if width is not None:
        section = replace(section, width=r.positive("--width", width))
    if budget is not None:
        section = replace(section, budget=r.positive("--budget", budget))
    return section
