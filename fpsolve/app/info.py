"""What is installed, what it can do, and where its caches are: the answer of ``fpsolve info``.

Nothing here needs a working installation: this is what people run to see why theirs does not work.
So every import that can fail is made inside a function, and a failure becomes part of the answer.
No call is collective, beyond what importing mpi4py and petsc4py does.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

Value = str | int | bool
Info = dict[str, dict[str, Value]]

NOT_INSTALLED = "not installed"

# shown name, module, names of the distribution that may carry its version (Debian, PyPI and
# conda-forge differ); the modules are not imported, pyvista alone would take seconds
PACKAGES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("dolfinx", "dolfinx", ("fenics-dolfinx", "dolfinx")),
    ("ufl", "ufl", ("fenics-ufl", "ufl")),
    ("basix", "basix", ("fenics-basix", "basix")),
    ("ffcx", "ffcx", ("fenics-ffcx", "ffcx")),
    ("petsc4py", "petsc4py", ("petsc4py",)),
    ("slepc4py", "slepc4py", ("slepc4py",)),
    ("mpi4py", "mpi4py", ("mpi4py",)),
    ("gmsh", "gmsh", ("gmsh",)),
    ("numpy", "numpy", ("numpy",)),
    ("scipy", "scipy", ("scipy",)),
    ("sympy", "sympy", ("sympy",)),
    ("python-flint", "flint", ("python-flint",)),
    ("pyvista", "pyvista", ("pyvista",)),
    ("matplotlib", "matplotlib", ("matplotlib",)),
)

# shown name, the names under which PETSc builds list it
PETSC_PACKAGES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("mumps", ("mumps",)),
    ("superlu_dist", ("superlu_dist",)),
    ("umfpack", ("umfpack", "suitesparse")),
    ("hypre", ("hypre",)),
)


def collect(ranks: int = 1) -> Info:
    """Collect versions, abilities and cache places of this installation.

    Parameters
    ----------
    ranks : int
        The number of ranks of the run, to be shown.

    Returns
    -------
    dict
        Sections ``versions``, ``mpi``, ``petsc``, ``dolfinx`` and ``places``, each a dict of plain
        values that JSON can hold. What is absent is ``"not installed"``; what is broken carries
        the message of its failure.
    """
    return {
        "versions": _versions(),
        "mpi": _guarded(lambda: _mpi(ranks)),
        "petsc": _guarded(_petsc),
        "dolfinx": _guarded(_dolfinx),
        "places": _places(),
    }


def render(info: Info) -> str:
    """Render what `collect` returned for people.

    Parameters
    ----------
    info : dict
        Sections of named values.

    Returns
    -------
    str
        One line per value, in aligned columns below the names of the sections.
    """
    width = max((len(key) for section in info.values() for key in section), default=0)
    lines: list[str] = []
    for title, section in info.items():
        lines.append(title)
        lines.extend(f"  {key.replace('_', ' '):<{width}}  {_word(value)}".rstrip() for key, value in section.items())
    return "\n".join(lines)


def _word(value: Value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(str(value).split())


def _failure(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return NOT_INSTALLED
    return f"cannot be used: {type(error).__name__}: {error}"


def _guarded(part: Callable[[], dict[str, Value]]) -> dict[str, Value]:
    """Return what `part` finds, or its failure: a broken library must not hide the rest."""
    try:
        return part()
    except Exception as error:
        return {"status": _failure(error)}


def _version(module: str, distributions: tuple[str, ...]) -> str:
    try:
        if importlib.util.find_spec(module) is None:
            return NOT_INSTALLED
        for name in distributions:
            try:
                return importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        # e.g. the gmsh of conda-forge is a bare module
        return str(getattr(importlib.import_module(module), "__version__", "unknown"))
    except Exception as error:
        return _failure(error)


def _versions() -> dict[str, Value]:
    versions: dict[str, Value] = {
        "fpsolve": _version("fpsolve", ("fpsolve",)),
        "Python": platform.python_version(),
        "platform": platform.platform(),
    }
    for name, module, distributions in PACKAGES:
        versions[name] = _version(module, distributions)
    versions["PETSc"] = _library_version("petsc4py", "PETSc")
    versions["SLEPc"] = _library_version("slepc4py", "SLEPc")
    return versions


def _library_version(package: str, module: str) -> str:
    """Return the version of the library itself; that of its Python bindings may differ."""
    try:
        library = importlib.import_module(f"{package}.{module}")
        return ".".join(str(part) for part in library.Sys.getVersion())
    except Exception as error:
        return _failure(error)


def _mpi(ranks: int) -> dict[str, Value]:
    from mpi4py import MPI

    return {
        # some libraries fill the rest of the line with the options of their build
        "library": MPI.Get_library_version().strip("\0\n ").split("\n")[0].split(", package:")[0],
        "standard": ".".join(str(part) for part in MPI.Get_version()),
        "ranks": ranks,
    }


def _petsc() -> dict[str, Value]:
    from petsc4py import PETSc

    import numpy as np

    scalar = np.dtype(PETSc.ScalarType)
    offers: dict[str, Value] = {
        "scalar": f"{'complex' if scalar.kind == 'c' else 'real'} ({scalar.name})",
        "usable": scalar.kind == "f",
        "integer_bits": np.dtype(PETSc.IntType).itemsize * 8,
    }
    for name, listed in PETSC_PACKAGES:
        offers[name] = any(PETSc.Sys.hasExternalPackage(other) for other in listed)
    return offers


def _dolfinx() -> dict[str, Value]:
    import dolfinx
    import dolfinx.io

    offers: dict[str, Value] = {"VTX_writer": hasattr(dolfinx.io, "VTXWriter")}
    for name in ("adios2", "parmetis", "ptscotch", "kahip"):
        offers[name] = bool(getattr(dolfinx.common, f"has_{name}", False))
    return offers


def _jit_cache() -> str:
    try:
        from dolfinx import jit

        return str(Path(jit.get_options()["cache_dir"]).expanduser())
    except Exception as error:
        return _failure(error)


def _petsc_directory() -> str:
    try:
        import petsc4py

        config = petsc4py.get_config()
        return str(Path(config.get("PETSC_DIR", ""), config.get("PETSC_ARCH", "")))
    except Exception as error:
        return _failure(error)


def _places() -> dict[str, Value]:
    places: dict[str, Value] = {
        "fpsolve": str(Path(__file__).resolve().parents[1]),
        "python": sys.executable,
        "PETSc": _petsc_directory(),
        "JIT_cache": _jit_cache(),
        # set by docker/activate and docker/run
        "environment": os.environ.get("FPSOLVE_VENV") or sys.prefix,
    }
    root = os.environ.get("FPSOLVE_ROOT")
    if root:
        places["docker/run_root"] = root
    return places
