"""The verify command: a certificate is checked again, by code that shares nothing with the search."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from fpsolve.errors import InputError

if TYPE_CHECKING:
    from mpi4py import MPI

    from fpsolve.verify import Verdict

#: The only format there is.
FORMAT = "fpsolve-certificate-1"
#: The exit code for a certificate that proves nothing.
REJECTED = 3

log = logging.getLogger("fpsolve")


def run_verify(path: str | Path, comm: MPI.Comm | None) -> int:
    """Check a certificate on rank 0, print the verdict there, and return the exit code. Collective.

    Parameters
    ----------
    path : str or Path
        A certificate.json of ``fpsolve bounds``.
    comm : communicator or None
        None without mpi4py.

    Returns
    -------
    int
        0 when all its statements are proved again; 3 when it is rejected.

    Raises
    ------
    InputError
        On every rank, if the file cannot be read or is no certificate.
    """
    if comm is None:
        verdict = verify_file(path)
    else:
        from fpsolve.fem.parallel import on_root

        verdict = on_root(comm, lambda: verify_file(path))
    if comm is None or comm.rank == 0:
        print(verdict_text(path, verdict), flush=True)
    return 0 if verdict.accepted else REJECTED


def verify_file(path: str | Path) -> Verdict:
    """Read a certificate and check it. Not collective. Raises InputError."""
    from fpsolve.verify import check

    text = read_certificate(path)
    log.info("checking %s", path)
    verdict = check(text)
    if not verdict.readable:
        raise InputError("certificate", str(path), "a certificate", f"It is {verdict.reason}.")
    return verdict


def read_certificate(path: str | Path) -> str:
    """Return the text of a certificate. Not collective. Raises InputError if it is none."""
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except IsADirectoryError:
        raise InputError("certificate", str(path), "a JSON file, not a directory", _near(path)) from None
    except OSError as error:
        raise InputError("certificate", str(path), "a readable JSON file", f"{error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise InputError("certificate", str(path), "a text file in UTF-8", f"Byte {error.start} is not.") from None
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"Line {error.lineno}, column {error.colno}: {error.msg}."
        raise InputError("certificate", str(path), "JSON", where) from None
    except (RecursionError, ValueError):
        raise InputError("certificate", str(path), "JSON without deep nesting or endless numbers") from None
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        remedy = "'fpsolve bounds' writes one, certificate.json."
        what = f"{path}: format"
        raise InputError(what, found, f"{FORMAT!r}, the format of a certificate", remedy)
    return text


def _near(path: str | Path) -> str:
    inside = Path(path) / "certificate.json"
    return f"Did you mean '{inside}'?" if inside.is_file() else ""


def verdict_text(path: str | Path, verdict: Verdict) -> str:
    """Return the verdict for people: the statements that are proved, or why there are none."""
    if not verdict.accepted:
        return f"REJECTED  {path}: {verdict.reason}"
    return "\n".join([f"accepted  {path}: proved again, from the file alone", *(f"  {s}" for s in verdict.statements)])
