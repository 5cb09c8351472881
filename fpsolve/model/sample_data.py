"""Data files of samples, read and checked: columns of numbers under a header line, or named arrays in an NPZ file."""

from __future__ import annotations

import csv
import difflib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from fpsolve.errors import InputError

ONE_SAMPLE = "There is one sample only, so the covariance of the gradients is zero: the process has no noise."


#: What NumPy and the zip format raise for a damaged or foreign file, and for one that claims to be enormous.
_UNREADABLE = (ValueError, OSError, EOFError, KeyError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


def read_samples(path: str | Path, columns: Sequence[str], key: str = "process.data.file") -> dict[str, np.ndarray]:
    """Read named columns of a file: of NPZ when its name ends in .npz, else of CSV. Not collective.

    Parameters, result (an array of shape (samples,) for each column) and errors as of `read_csv` and `read_npz`.
    """
    return (read_npz if Path(path).suffix.lower() == ".npz" else read_csv)(path, columns, key)


def read_npz(path: str | Path, columns: Sequence[str], key: str = "process.data.file") -> dict[str, np.ndarray]:
    """Read named arrays of an NPZ file (`numpy.savez`), each one-dimensional with a number for each sample.

    Nothing in the file is executed: arrays of Python objects are refused. Parameters and result as of `read_csv`.

    Raises
    ------
    InputError
        If the file cannot be read or is no NPZ file, an array is missing, has another shape, does not hold finite
        real numbers (the message names file, array and row), or there are fewer than two samples.
    """
    try:
        with open(path, "rb") as file:
            if not zipfile.is_zipfile(file):
                remedy = "It is a single array: write numpy.savez." if _is_npy(file) else "It is no zip archive."
                raise InputError(key, str(path), "an NPZ file, as numpy.savez writes it", remedy)
        with np.load(path, allow_pickle=False) as archive:
            _check_present(path, columns, archive.files, "an array", key)
            data = {name: _npz_array(path, name, archive, key) for name in columns}
    except InputError:
        raise
    except OSError as error:
        raise InputError(key, str(path), "a readable file", f"{error.strerror or error}.") from None
    except _UNREADABLE as error:
        raise InputError(key, str(path), "an NPZ file that is whole", f"It cannot be read: {error}.") from None
    lengths = {name: len(values) for name, values in data.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(key, str(path), "arrays of equal length", f"They have {lengths}.")
    _check_rows(path, data, key)
    return data


def _is_npy(file: Any) -> bool:
    file.seek(0)
    return bool(file.read(6) == b"\x93NUMPY")


def _npz_array(path: str | Path, name: str, archive: Any, key: str) -> np.ndarray:
    try:
        values = archive[name]
    except _UNREADABLE as error:
        pickled = "allow_pickle" in str(error)
        what = "holds Python objects" if pickled else f"cannot be read: {error}"
        raise InputError(key, str(path), "arrays of numbers", f"In {path}, array '{name}' {what}.") from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
        kind = {"U": "texts", "S": "texts", "c": "complex numbers"}.get(getattr(values, "dtype", np.dtype("V1")).kind)
        found = f"array '{name}' holds {kind or 'no real numbers'}"
        raise InputError(key, str(path), "arrays of real numbers", f"In {path}, {found}.")
    if values.ndim != 1:
        found = f"array '{name}' has shape {values.shape}"
        raise InputError(key, str(path), "one-dimensional arrays, one number for each sample", f"In {path}, {found}.")
    return np.ascontiguousarray(values, dtype=float)


def read_csv(path: str | Path, columns: Sequence[str], key: str = "process.data.file") -> dict[str, np.ndarray]:
    """Read named columns of a comma separated file whose first line names the columns.

    Parameters
    ----------
    path : str or Path
    columns : names
        The columns wanted; others are not looked at.
    key : str
        Where the path comes from, for error messages.

    Returns
    -------
    dict of ndarray, each of shape (N,)

    Raises
    ------
    InputError
        If the file cannot be read, a column is missing or an entry is not a finite number (the message
        names file, column and row; row 1 is the first one below the header), or there are fewer than
        two rows.
    """
    header = _header(path, key)
    _check_present(path, columns, header, "a column", key)
    for name in columns:
        if header.count(name) > 1:
            raise InputError(key, str(path), f"one column named '{name}'", f"It has {header.count(name)} of them.")
    positions = [header.index(name) for name in columns]
    if not _has_rows(path):
        raise InputError(key, str(path), "rows of numbers below the header", "The file has none.")
    try:
        table = np.loadtxt(
            path, delimiter=",", skiprows=_header_lines(path), usecols=positions, ndmin=2, comments=None, quotechar='"',
            encoding="utf-8-sig",
        )  # fmt: skip
    except (ValueError, IndexError) as error:
        raise _bad_entry(path, columns, positions, key, error) from None
    data = {name: np.ascontiguousarray(table[:, i]) for i, name in enumerate(columns)}
    _check_rows(path, data, key)
    return data


def _check_present(path: str | Path, columns: Sequence[str], present: Sequence[str], what: str, key: str) -> None:
    for name in columns:
        if name not in present:
            remedy = f"It has {', '.join(present) or 'nothing'}. {_suggestion(name, present)}".strip()
            raise InputError(key, str(path), f"{what} named '{name}'", remedy)


def _check_rows(path: str | Path, data: Mapping[str, np.ndarray], key: str) -> None:
    """Raise InputError for an entry that is not finite and for fewer than two rows."""
    for name, values in data.items():
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            where = f"column '{name}', row {bad[0] + 1} is {values[bad[0]]}"
            raise InputError(key, str(path), "finite numbers", f"In {path}, {where} ({len(bad)} such entries).")
    count = len(next(iter(data.values()), ()))
    if count < 2:
        raise InputError(key, str(path), "at least two rows", ONE_SAMPLE if count else "The file has none.")


def check_data(
    data: Mapping[str, np.ndarray], columns: Sequence[str], key: str, vectors: bool = False
) -> dict[str, np.ndarray]:
    """Return the wanted columns as float arrays of one length N >= 2 with finite entries.

    Parameters
    ----------
    vectors : bool
        Whether a column may hold an array for each sample, shape (N, …).

    Raises
    ------
    InputError
        Otherwise. One sample alone has gradient covariance zero: the process would have no noise.
    """
    result = {}
    for name in columns:
        if name not in data:
            raise InputError(key, sorted(data), f"a column named '{name}'", _suggestion(name, list(data)))
        try:
            values = np.array(data[name], dtype=float)
        except (TypeError, ValueError):
            raise InputError(f"{key}.{name}", data[name], "numbers") from None
        if values.ndim != 1 and not (vectors and values.ndim > 1):
            raise InputError(f"{key}.{name}", values.shape, "a one-dimensional array, one number for each sample")
        bad = np.flatnonzero(~np.isfinite(values).all(axis=tuple(range(1, values.ndim))))
        if len(bad):
            raise InputError(f"{key}.{name}", values[bad[0]].tolist(), "finite numbers", f"Row {bad[0] + 1} is not.")
        result[name] = values
    lengths = {name: len(values) for name, values in result.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(key, lengths, "columns of equal length")
    count = next(iter(lengths.values()), 0)
    if count < 2:
        raise InputError(key, f"{count} samples", "at least two samples", ONE_SAMPLE if count else "")
    return result


def _suggestion(name: str, among: Sequence[str]) -> str:
    lowered = {other.lower(): other for other in among}
    near = difflib.get_close_matches(name.lower(), lowered, n=1)
    return f"Did you mean '{lowered[near[0]]}'?" if near else ""


def _header_lines(path: str | Path) -> int:
    """Return the number of lines up to and including the header (blank lines may come before it)."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                return number
    return 0


def _header(path: str | Path, key: str) -> list[str]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header = next((row for row in csv.reader(file) if any(cell.strip() for cell in row)), None)
    except OSError as error:
        raise InputError(key, str(path), "a readable file", f"{error.strerror}.") from None
    except (UnicodeDecodeError, csv.Error):
        raise InputError(key, str(path), "a text file of comma separated numbers") from None
    if header is None:
        raise InputError(key, str(path), "a header line that names the columns", "The file is empty.")
    return [cell.strip() for cell in header]


def _has_rows(path: str | Path) -> bool:
    with open(path, encoding="utf-8-sig", newline="") as file:
        return len(list(islice(filter(str.strip, file), 2))) == 2


def _bad_entry(
    path: str | Path, columns: Sequence[str], positions: Sequence[int], key: str, error: Exception
) -> InputError:
    """Find the entry that could not be read and return the error that names it."""
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = (row for row in csv.reader(file) if any(cell.strip() for cell in row))
        next(rows)
        for number, row in enumerate(rows, start=1):
            for name, position in zip(columns, positions, strict=True):
                if position >= len(row):
                    what = f"row {number} has {len(row)} entries and none for column '{name}'"
                    return InputError(key, str(path), "an entry in every column", f"In {path}, {what}.")
                try:
                    float(row[position])
                except ValueError:
                    what = f"column '{name}', row {number} is {row[position]!r}"
                    return InputError(key, str(path), "numbers", f"In {path}, {what}.")
    return InputError(key, str(path), "a text file of comma separated numbers", f"It cannot be read: {error}.")
