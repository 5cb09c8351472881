"""What `fpsolve info` prints, with everything installed, with parts missing and with parts broken."""

import importlib.metadata
import json
import sys
from types import ModuleType

from mpi4py import MPI

import dolfinx
import pytest

from fpsolve.app import info


def test_versions_are_those_of_the_imported_modules():
    versions = info.collect()["versions"]
    assert versions["dolfinx"] == dolfinx.__version__
    assert versions["fpsolve"] == importlib.metadata.version("fpsolve")
    assert versions["Python"] == ".".join(str(part) for part in sys.version_info[:3])
    named = {"ufl", "basix", "ffcx", "PETSc", "petsc4py", "SLEPc", "mpi4py", "numpy", "scipy", "sympy", "python-flint"}
    for name in named:
        assert str(versions[name])[0].isdigit(), name
    assert {"gmsh", "pyvista", "matplotlib"} <= set(versions)


def test_abilities_and_places():
    found = info.collect(MPI.COMM_WORLD.size)
    assert found["petsc"]["scalar"] == "real (float64)"
    assert found["petsc"]["usable"] is True
    assert found["petsc"]["integer_bits"] in (32, 64)
    assert {"mumps", "superlu_dist", "umfpack", "hypre"} <= set(found["petsc"])
    assert found["dolfinx"]["VTX_writer"] is dolfinx.common.has_adios2
    assert found["mpi"]["ranks"] == MPI.COMM_WORLD.size
    assert found["places"]["JIT_cache"] == str(dolfinx.jit.get_options()["cache_dir"])


def test_json_holds_it():
    found = info.collect()
    assert json.loads(json.dumps(found)) == found


def test_render_has_one_aligned_line_per_value():
    text = info.render({"a": {"x": True, "long_name": 64}, "b": {"y": "two\nlines", "z": False}})
    assert text.splitlines() == [
        "a",
        "  x          yes",
        "  long name  64",
        "b",
        "  y          two lines",
        "  z          no",
    ]
    assert info.render({}) == ""
    assert dolfinx.__version__ in info.render(info.collect())


@pytest.mark.parametrize("module, shown", [("pyvista", "pyvista"), ("flint", "python-flint"), ("gmsh", "gmsh")])
def test_a_missing_package_is_shown_as_such(monkeypatch, module, shown):
    monkeypatch.setitem(sys.modules, module, None)
    found = info.collect()
    assert found["versions"][shown] == "not installed"
    assert f"{shown} " in info.render(found)


def test_without_fenics_the_rest_is_still_shown(monkeypatch):
    for module in ("dolfinx", "petsc4py", "petsc4py.PETSc", "slepc4py", "slepc4py.SLEPc", "mpi4py"):
        monkeypatch.setitem(sys.modules, module, None)
    found = info.collect()
    for name in ("dolfinx", "petsc4py", "PETSc", "SLEPc", "mpi4py"):
        assert found["versions"][name] == "not installed", name
    for section in ("mpi", "petsc", "dolfinx"):
        assert found[section] == {"status": "not installed"}
    assert found["places"]["JIT_cache"] == "not installed"
    assert found["versions"]["numpy"] != "not installed"
    info.render(found)


def test_a_broken_library_is_reported_with_its_message(monkeypatch):
    class Broken(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise OSError("libpetsc.so: cannot open shared object file")

    monkeypatch.setitem(sys.modules, "petsc4py.PETSc", Broken("petsc4py.PETSc"))
    found = info.collect()
    assert "OSError: libpetsc.so" in str(found["versions"]["PETSc"])
    assert found["versions"]["petsc4py"] != "not installed"
    assert "numpy" in info.render(found)


def test_places_name_the_root_only_inside_it(monkeypatch):
    monkeypatch.setenv("FPSOLVE_ROOT", "/somewhere/root")
    assert info.collect()["places"]["docker/run_root"] == "/somewhere/root"
    monkeypatch.delenv("FPSOLVE_ROOT")
    assert "docker/run_root" not in info.collect()["places"]
