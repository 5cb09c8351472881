"""The section [process.subspace] of a case file: on which part of many parameters the question is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fpsolve.app import readers as r
from fpsolve.app.readers import Reader, Vector, need, read_table
from fpsolve.errors import InputError

MAX_DIMENSION = 3


@dataclass(frozen=True)
class SubspaceCase:
    """[process.subspace]: θ = origin + V t, V the directions made orthonormal or leading eigenvectors of the Hessian.

    Attributes
    ----------
    origin : tuple of float
        With `leading` where the search for the minimum starts.
    directions : tuple of vectors, or None
    leading : int or None
    variables : tuple of str
        The names of the coordinates t.
    """

    origin: Vector
    directions: tuple[Vector, ...] | None
    leading: int | None
    variables: tuple[str, ...]


SUBSPACE: dict[str, Reader] = {
    "origin": r.vector, "directions": r.points, "leading": r.count, "variables": r.some_names,
}  # fmt: skip


def read_subspace(table: object, parameters: tuple[str, ...], sections: Mapping[str, set[str]]) -> SubspaceCase:
    """Read the section for a process with the given parameters. Raises InputError."""
    key = "process.subspace"
    values: dict[str, Any] = read_table(table, key, SUBSPACE, sections)
    need(values, key, "origin", "a point: one number for each parameter")
    r.check_length(f"{key}.origin", values["origin"], parameters)
    if ("directions" in values) == ("leading" in values):
        given = [name for name in ("directions", "leading") if name in values]
        raise InputError(key, given, "either directions or leading")
    directions = values.get("directions")
    for i, direction in enumerate(directions or ()):
        r.check_length(f"{key}.directions[{i}]", direction, parameters)
    size = values["leading"] if directions is None else len(directions)
    most = min(MAX_DIMENSION, len(parameters))
    if size > most:
        name = "leading" if directions is None else "directions"
        raise InputError(f"{key}.{name}", size, f"at most {most} directions")
    names = values.get("variables", tuple(f"t{i + 1}" for i in range(size)))
    if len(names) != size:
        raise InputError(f"{key}.variables", list(names), f"{size} names, one for each direction")
    return SubspaceCase(values["origin"], directions, values.get("leading"), names)
