"""The section [bounds] of a case file: how tight certified bounds should be, and how long to try."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fpsolve.app import readers as r
from fpsolve.app.readers import Reader, read_table


@dataclass(frozen=True)
class BoundsCase:
    """[bounds]: `width`, the relative width asked at the starts, and `budget`, the seconds after which the search ends.

    Also for ``exit.bounds = ["certified"]``; the starts are those of [exit].
    """

    width: float = 1e-2
    budget: float = 60.0


BOUNDS: dict[str, Reader] = {"width": r.positive, "budget": r.positive}


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
