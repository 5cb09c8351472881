"""The section [landscape] of a case file: where critical points are looked for, and how hard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fpsolve.app import readers as r
from fpsolve.app.readers import Reader, Vector, read_table
from fpsolve.errors import InputError


@dataclass(frozen=True)
class LandscapeCase:
    """[landscape]: the box that is looked at instead of the domain, whether and how long to prove, basins or not.

    `boxes` and `budget` (seconds) end the proofs; None: the defaults of `critical_points`.
    """

    box: tuple[Vector, Vector] | None = None
    certify: bool = True
    boxes: int | None = None
    budget: float | None = None
    basins: bool = True


LANDSCAPE: dict[str, Reader] = {
    "box": r.corners, "certify": r.flag, "boxes": r.count, "budget": r.positive, "basins": r.flag,
}  # fmt: skip


def read_landscape(table: dict[str, Any], variables: tuple[str, ...], homes: Mapping[str, set[str]]) -> LandscapeCase:
    """Read the section; `variables` are those of the process. Raises InputError."""
    values = read_table(table, "landscape", LANDSCAPE, homes)
    for corner, name in zip(values.get("box", ()), ("lower", "upper"), strict=False):
        r.check_length(f"landscape.box.{name}", corner, variables)
    if "box" in values and not all(a < b for a, b in zip(*values["box"], strict=True)):
        raise InputError("landscape.box", table["box"], "an upper corner above the lower one in every variable")
    return LandscapeCase(**values)
