"""Arrays in ``.npz`` files, written and read a bounded number of rows at a time, whole or not at all."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from fpsolve.errors import InputError

#: What the standard library raises for files that are not what they should be.
UNREADABLE = (
    zipfile.BadZipFile, zlib.error, struct.error, KeyError, EOFError, TypeError, ValueError, NotImplementedError,
    RuntimeError, OverflowError, MemoryError,
)  # fmt: skip


class Writer:
    """An npz file under construction on rank 0; errors are kept until `finish`, so that no rank waits in vain."""

    def __init__(self, path: Path, active: bool) -> None:
        self.path, self.aside = path, path.with_name(path.name + ".new")
        self.active = active
        self.error: OSError | None = None
        self._entry: BinaryIO | None = None
        self._raw: BinaryIO | None = None
        self._archive: zipfile.ZipFile | None = None
        if active:
            with self._kept():
                path.parent.mkdir(parents=True, exist_ok=True)
                self._raw = open(self.aside, "wb")  # noqa: SIM115
                self._archive = zipfile.ZipFile(self._raw, "w", zipfile.ZIP_STORED)

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = self.error or error

    def begin(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        """Start an array."""
        if not self.active or self.error is not None or self._archive is None:
            return
        with self._kept():
            if self._entry is not None:
                self._entry.close()
            entry = zipfile.ZipInfo(f"{name}.npy")  # without the time: equal states make equal files
            self._entry = cast(BinaryIO, self._archive.open(entry, "w", force_zip64=True))
            description = np.lib.format.dtype_to_descr(dtype)
            header = {"descr": description, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(self._entry, header)

    def write(self, rows: np.ndarray | None) -> None:
        """Append rows to the array."""
        if rows is None or self.error is not None or self._entry is None:
            return
        with self._kept():
            self._entry.write(np.ascontiguousarray(rows).tobytes())

    def finish(self) -> None:
        """Complete the file and give it its name; raises InputError."""
        assert self._raw is None or not self._raw.closed
        with self._kept():
            if self.error is None and self._entry is not None and self._archive is not None and self._raw is not None:
                self._entry.close()
                self._archive.close()
                self._raw.flush()
                os.fsync(self._raw.fileno())  # else the new name may reach the disk before the contents
                self._raw.close()
                os.replace(self.aside, self.path)
        if self.error is not None:
            self._abandon()
            raise InputError("state", str(self.path), "a file that can be written", f"{self.error}.")

    def _abandon(self) -> None:
        for thing in (self._entry, self._archive, self._raw):
            with suppress(OSError, ValueError):
                if thing is not None:
                    thing.close()
        with suppress(OSError):
            self.aside.unlink(missing_ok=True)


@contextmanager
def open_archive(path: Path, key: str) -> Iterator[zipfile.ZipFile]:
    """Open a state file; whatever is wrong with it becomes an InputError."""
    remedy = "It is damaged, or no state file: repeat the run that wrote it."
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except OSError as error:
        raise InputError(key, str(path), "a state file", f"{error.strerror or error}.") from None
    except InputError:
        raise
    except UNREADABLE:
        raise InputError(key, str(path), "a complete state file of fpsolve", remedy) from None


def chunks(archive: zipfile.ZipFile, name: str, size: int) -> Iterator[np.ndarray]:
    """Yield an array of the archive, `size` rows at a time; a wrong checksum raises with the last of them."""
    with archive.open(f"{name}.npy") as entry:
        if np.lib.format.read_magic(entry) != (1, 0):  # type: ignore[arg-type]
            raise ValueError(name)
        shape, _, dtype = np.lib.format.read_array_header_1_0(entry)  # type: ignore[arg-type]
        if dtype.hasobject:
            raise ValueError(name)
        width = int(np.prod(shape[1:], dtype=int))
        for start in range(0, shape[0], size):
            count = min(size, shape[0] - start)
            data = entry.read(count * width * dtype.itemsize)
            yield np.frombuffer(data, dtype=dtype, count=count * width).reshape(count, *shape[1:])
        if entry.read(1):  # more than the header says
            raise ValueError(name)
