"""Fields for ParaView: they are there, complete, curved, and replaced as a whole."""

from xml.etree import ElementTree

from mpi4py import MPI

import numpy as np
import pytest
import ufl
from dolfinx import common, fem
from pictures import arrays

from fpsolve.app.fields import _named, write_fields
from fpsolve.errors import InputError
from fpsolve.fem.boundary import CHARACTERISTIC, EXIT, REFLECTING
from fpsolve.model.domains import Ball, Box, Interval
from fpsolve.model.process import SGD
from fpsolve.problems.exit import mean_exit_time

COMM = MPI.COMM_WORLD


@pytest.fixture(scope="module")
def disc():
    """Elements of degree 1 on cells of degree 2."""
    process = SGD("(x**2 + y**2)/2", epsilon2=0.5)
    return mean_exit_time(process, Ball((0.0, 0.0), 1.0), comm=COMM, size=0.4, degree=1)


@pytest.fixture(scope="module")
def interval():
    process = SGD("x**2/2", variables=("x",), epsilon2=0.5)
    return mean_exit_time(process, Interval(-1.0, 2.0, ("left",)), comm=COMM, size=0.5)


@pytest.fixture(scope="module")
def cube():
    noise = [["1", "0", "0"], ["0", "1", "0"], ["0", "0", "0"]]
    process = SGD("(x**2 + y**2 + z**2)/2", noise, ("x", "y", "z"), epsilon2=0.3)
    domain = Box((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0), ("left",))
    return mean_exit_time(process, domain, comm=COMM, size=0.8, scheme="cg", degree=2)


@pytest.fixture
def place(tmp_path):
    """A directory that is the same on all ranks."""
    return COMM.bcast(tmp_path)


def shown_functions(result):
    return [_named(result.u, "mean_exit_time"), _named(result.difference, "estimated_error")]


def largest(function):
    values = function.x.array
    return COMM.allreduce(float(values.max()) if len(values) else -np.inf, op=MPI.MAX)


@pytest.mark.parametrize("name", ["interval", "disc", "cube"])
def test_vtx_files_hold_the_values(name, request, place):
    if not common.has_adios2:
        return
    result = request.getfixturevalue(name)
    paths = write_fields(result, place / "fields")
    assert paths == [place / "fields" / "mean_exit_time.bp", place / "fields" / "boundary.vtu"]
    COMM.Barrier()
    assert sorted(p.name for p in paths[0].parent.iterdir()) == ["boundary.vtu", "mean_exit_time.bp"]
    content = b"".join(p.read_bytes() for p in sorted(paths[0].iterdir()) if p.is_file())
    assert b"mean_exit_time" in content and b"estimated_error" in content
    # ADIOS2 has no reader here; its file holds the numbers as they are in memory
    for function in shown_functions(result):
        own = function.function_space.dofmap.index_map.size_local
        assert function.x.array[:own].tobytes() in content


@pytest.mark.parametrize("name", ["interval", "disc", "cube"])
def test_what_is_shown_is_the_answer(name, request):
    result = request.getfixturevalue(name)
    for shown, function in zip(shown_functions(result), (result.u, result.difference), strict=True):
        form = fem.form((shown - function) ** 2 * ufl.dx)
        assert COMM.allreduce(fem.assemble_scalar(form)) < 1e-24


@pytest.mark.parametrize("name", ["interval", "disc", "cube"])
def test_vtk_files_without_adios2(name, request, place, monkeypatch):
    monkeypatch.setattr(common, "has_adios2", False)
    result = request.getfixturevalue(name)
    paths = write_fields(result, place)
    assert paths == [place / "mean_exit_time.vtk" / "mean_exit_time.pvd", place / "boundary.vtu"]
    COMM.Barrier()
    collection = ElementTree.parse(paths[0]).getroot().find(".//DataSet").get("file")
    parallel = ElementTree.parse(paths[0].parent / collection).getroot()
    pieces = [arrays(paths[0].parent / piece.get("Source")) for piece in parallel.iter("Piece")]
    assert len(pieces) == COMM.size
    for function in shown_functions(result):
        shown = max(p[function.name].max() for p in pieces)
        assert shown == pytest.approx(largest(function), rel=1e-10, abs=1e-14)
    if name == "interval":
        for p in pieces:  # VTK's order: both ends, then equidistant nodes
            x = p["points"][:, 0].reshape(-1, 5)
            np.testing.assert_allclose(x[:, 2:], x[:, :1] + (x[:, 1:2] - x[:, :1]) * [0.25, 0.5, 0.75], atol=1e-12)
    if name == "disc":
        radius = np.concatenate([np.linalg.norm(p["points"], axis=1) for p in pieces])
        outside = radius[radius > 0.95]
        assert len(outside) > 2 * 15 and np.abs(outside - 1).max() < 1e-3


@pytest.mark.parametrize("name", ["interval", "disc", "cube"])
def test_boundary_file_has_kinds_and_measures(name, request, place):
    result = request.getfixturevalue(name)
    path = write_fields(result, place)[1]
    COMM.Barrier()
    found = arrays(path)
    d = result.process.dimension
    corners = found["points"].reshape(-1, d, 3)
    edges = corners[:, 1:] - corners[:, :1]
    if d == 1:
        measures = np.ones(len(corners))
    elif d == 2:
        measures = np.linalg.norm(edges[:, 0], axis=1)
    else:
        measures = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1) / 2
    kinds = {"absorbing": EXIT, "reflecting": REFLECTING, "characteristic": CHARACTERISTIC}
    for kind, number in kinds.items():
        expected = result.boundary.measures[kind]
        assert measures[found["kind"] == number].sum() == pytest.approx(expected, rel=1e-3)
    assert set(found["types"]) == {(1, 3, 5)[d - 1]}


def test_only_its_own_files_are_replaced(disc, place, monkeypatch):
    if COMM.rank == 0:
        (place / "summary.json").write_text("{}")
    COMM.Barrier()
    write_fields(disc, place)
    with monkeypatch.context() as without:
        without.setattr(common, "has_adios2", False)
        write_fields(disc, place)
        COMM.Barrier()
        # the older file of another format would contradict the new one
        assert sorted(p.name for p in place.iterdir()) == ["boundary.vtu", "mean_exit_time.vtk", "summary.json"]
        write_fields(disc, place)
    paths = write_fields(disc, place)
    COMM.Barrier()
    assert sorted(p.name for p in place.iterdir()) == sorted(
        {"boundary.vtu", "summary.json", paths[0].relative_to(place).parts[0]}
    )
    assert (place / "summary.json").read_text() == "{}"


def test_a_directory_that_cannot_be_made_is_an_input_error_on_every_rank(disc, place):
    if COMM.rank == 0:
        (place / "file").write_text("in the way")
    COMM.Barrier()
    with pytest.raises(InputError, match="a directory in which files can be written"):
        write_fields(disc, place / "file" / "fields")
