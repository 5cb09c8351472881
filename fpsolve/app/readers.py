"""Readers of single values in a case file: each takes a key and what TOML holds there, and returns it typed.

They raise `InputError` with the key when the value has another type. Formulas stay texts here.
"""

from __future__ import annotations

import difflib
import keyword
import math
from collections.abc import Callable, Mapping
from typing import Any

from fpsolve.errors import InputError

Reader = Callable[[str, object], Any]
Vector = tuple[float, ...]

BOUNDS = ("paper", "sharp", "certified", "printed")


def read_table(
    table: object, name: str, readers: Mapping[str, Reader], homes: Mapping[str, set[str]] | None = None
) -> dict[str, Any]:
    """Return the values of a table, each read by its reader.

    Parameters
    ----------
    table : dict
    name : str
        The section; empty for the whole file.
    readers : mapping of key to Reader
        All keys the section may have.
    homes : mapping of section to keys, optional
        Where keys belong, for the hint at a misplaced one.

    Raises
    ------
    InputError
        If it is no table, a key is unknown (with the closest known one), or a value cannot be used.
    """
    if not isinstance(table, dict):
        raise InputError(name, table, f"a section [{name}]")
    for key, value in table.items():
        if key not in readers:
            raise _unknown(key, value, name, readers, homes or {})
    return {key: readers[key](_joined(name, key), value) for key, value in table.items()}


def _joined(section: str, key: str) -> str:
    return f"{section}.{key}" if section else key


def _unknown(
    key: str, value: object, section: str, readers: Mapping[str, Reader], homes: Mapping[str, set[str]]
) -> InputError:
    where = f"[{section}]" if section else "a case file"
    near = difflib.get_close_matches(key.lower(), readers, n=1)
    places = [name for name, known in homes.items() if key in known and name != section]
    if near:
        hint = f"Did you mean '{near[0]}'?"
    elif places:
        hint = f"It belongs in [{places[0]}]."
    else:
        hint = f"Known keys: {', '.join(readers)}."
    return InputError(_joined(section, key), value, f"no such key in {where}", hint)


def need(values: Mapping[str, Any], section: str, key: str, why: str) -> Any:
    """Return the value of a key that must be there, or raise."""
    if key not in values:
        raise InputError(f"{section}.{key}", None, why, f"The key is missing in [{section}].")
    return values[key]


def text(key: str, value: object) -> str:
    """Read a text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise InputError(key, value, "a text in quotes")
    return value


def title(key: str, value: object) -> str:
    """Read a text that may be empty."""
    if not isinstance(value, str):
        raise InputError(key, value, "a text in quotes")
    return value


def flag(key: str, value: object) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise InputError(key, value, "true or false")
    return value


def number(key: str, value: object) -> float:
    """Read a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(key, value, "a number", "Write it without quotes." if isinstance(value, str) else "")
    if (isinstance(value, int) and abs(value) > 1e300) or not math.isfinite(value):
        raise InputError(key, value, "a finite number")
    return float(value)


def positive(key: str, value: object) -> float:
    """Read a positive number."""
    result = number(key, value)
    if result <= 0:
        raise InputError(key, value, "a positive number")
    return result


def count(key: str, value: object) -> int:
    """Read an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31:
        raise InputError(key, value, "an integer of at least 1")
    return value


def vector(key: str, value: object) -> Vector:
    """Read a list of numbers; a number is a list of one."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = [value]
    if not isinstance(value, list) or not value:
        raise InputError(key, value, "a list of numbers such as [-1.0, 0.0]")
    return tuple(number(f"{key}[{i}]", entry) for i, entry in enumerate(value))


def points(key: str, value: object) -> tuple[Vector, ...]:
    """Read a list of points; in one dimension numbers are points too."""
    if not isinstance(value, list) or not value:
        raise InputError(key, value, "a list of points such as [[-1.0, 0.0]]")
    return tuple(vector(f"{key}[{i}]", point) for i, point in enumerate(value))


def corners(key: str, value: object) -> tuple[Vector, Vector]:
    """Read a box: { lower = [...], upper = [...] } or [[...], [...]]."""
    if isinstance(value, list) and len(value) == 2:
        value = {"lower": value[0], "upper": value[1]}
    if not isinstance(value, dict):
        raise InputError(key, value, "the corners of a box", "Write { lower = [-2, -2], upper = [2, 2] }.")
    corners = read_table(value, key, {"lower": vector, "upper": vector})
    low, high = (need(corners, key, name, "a list of numbers") for name in ("lower", "upper"))
    return low, high


def formula(key: str, value: object) -> str:
    """Read the text of a formula; it is parsed by `fpsolve.model.expressions`."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise InputError(key, value, "a formula in quotes", f'Write "{value}".')
    if not isinstance(value, str) or not value.strip():
        raise InputError(key, value, 'a formula in quotes such as "x**2 + y**2"')
    return value


def formulas(key: str, value: object) -> tuple[str, ...]:
    """Read a list of formulas."""
    if not isinstance(value, list) or not value:
        raise InputError(key, value, "a list of formulas")
    return tuple(formula(f"{key}[{i}]", entry) for i, entry in enumerate(value))


def matrix(key: str, value: object) -> tuple[tuple[str, ...], ...]:
    """Read a list of lists of formulas."""
    if not isinstance(value, list) or not value:
        raise InputError(key, value, 'a matrix of formulas such as [["1", "0"], ["0", "0"]]')
    return tuple(formulas(f"{key}[{i}]", row) for i, row in enumerate(value))


def some_formulas(key: str, value: object) -> tuple[str, ...]:
    """Read a list of formulas that may be empty."""
    return () if value == [] else formulas(key, value)


def covariance(key: str, value: object) -> str | tuple[tuple[str, ...], ...]:
    """Read a matrix of formulas or the name of one."""
    if isinstance(value, list):
        return matrix(key, value)
    if value not in ("identity", "samples"):
        raise InputError(key, value, '"identity", "samples" (with [process.data]) or a matrix of formulas')
    return str(value)


def names(key: str, value: object) -> tuple[str, ...]:
    """Read a list of names of variables."""
    if isinstance(value, str) or not isinstance(value, list):
        raise InputError(key, value, 'a list of names such as ["x", "y"]')
    for name in value:
        if not isinstance(name, str):
            raise InputError(key, name, 'a name in quotes such as "x"')
        if keyword.iskeyword(name):
            raise InputError(key, name, "a name that is not a reserved word", f"Write {name}_ instead.")
    return tuple(value)


def some_names(key: str, value: object) -> tuple[str, ...]:
    """Read a list of names that is not empty."""
    result = names(key, value)
    if not result:
        raise InputError(key, value, "at least one name")
    return result


def parts(key: str, value: object) -> tuple[str, ...]:
    """Read boundary parts; groups of a mesh file may be numbers."""
    if not isinstance(value, list):
        raise InputError(key, value, "a list of names of boundary parts")
    for part in value:
        if isinstance(part, bool) or not isinstance(part, (str, int)):
            raise InputError(key, part, "a name in quotes or the number of a group")
    return tuple(str(part) for part in value)


def one_of(*allowed: str) -> Reader:
    """Return the reader of a text out of a list."""

    def read(key: str, value: object) -> str:
        if value not in allowed:
            near = difflib.get_close_matches(value, allowed, n=1) if isinstance(value, str) else []
            raise InputError(key, value, f"one of {', '.join(allowed)}", f"Did you mean '{near[0]}'?" if near else "")
        return str(value)

    return read


def bounds(key: str, value: object) -> tuple[str, ...]:
    """Read a list of kinds of bounds."""
    if not isinstance(value, list):
        raise InputError(key, value, f"a list out of {', '.join(BOUNDS)}")
    return tuple(dict.fromkeys(one_of(*BOUNDS)(key, name) for name in value))


def check_length(key: str, value: Vector, variables: tuple[str, ...]) -> None:
    """Raise InputError unless there is one number for each variable."""
    if len(value) != len(variables):
        raise InputError(key, list(value), f"{len(variables)} number(s), one for each of {', '.join(variables)}")


def table(key: str, value: object) -> dict[str, Any]:
    """Read a section as it is."""
    if not isinstance(value, dict):
        raise InputError(key, value, f"a section [{key}]")
    return value
