"""PETSc options from the command line: put into PETSc's database before the run, looked at after it."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Sequence

from fpsolve.errors import InputError

#: What PETSc takes for the name of an option: -5 and -.5 are values.
NAME = re.compile(r"--?[A-Za-z][^\s]*$")


def check(words: Sequence[str]) -> list[str]:
    """Return the names (without dash) in ``-name [value]`` words. Raises InputError for anything else."""
    names: list[str] = []
    free = False
    for word in words:
        if NAME.match(word):
            names.append(word.lstrip("-"))
            free = True
        elif not free or not word or any(c.isspace() for c in word):
            remedy = "Write for instance: -- -ksp_type gmres -pc_type ilu"
            raise InputError("PETSc option after --", word, "names with a dash, each with at most one value", remedy)
        else:
            free = False
    return names


def insert(words: Sequence[str]) -> list[str]:
    """Put options into PETSc's database and return their names. Raises InputError."""
    names = check(words)
    if not names:
        return names
    if "petsc4py.PETSc" in sys.modules:
        from petsc4py import PETSc

        PETSc.Options().insertString(" ".join(words))
    else:  # some, such as -log_view, count only at the start of PETSc
        import petsc4py

        petsc4py.init(["fpsolve", *words])
    return names


def unused(names: Sequence[str]) -> list[str]:
    """Return those of the options, with dash, that nothing has asked PETSc for; [] where PETSc does not tell."""
    if not names:
        return []
    from petsc4py import PETSc

    try:
        asked = ctypes.CDLL(PETSc.__file__).PetscOptionsUsed  # petsc4py itself has no such method
    except (OSError, AttributeError):
        return []
    asked.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_int)]
    left = []
    for name in names:
        flag = ctypes.c_int(0)
        if asked(None, name.encode(), ctypes.byref(flag)) == 0 and not flag.value:
            left.append(f"-{name}")
    return left


def remove(names: Sequence[str]) -> None:
    """Take options out of the database: the next run in this process starts without them."""
    if names:
        from petsc4py import PETSc

        options = PETSc.Options()
        for name in names:
            options.delValue(name)
