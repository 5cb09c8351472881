"""State files: the same bits on any number of ranks, on other meshes, and whatever happens to the file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dolfinx import fem

import fpsolve as fp
from fpsolve.errors import InputError
from fpsolve.fem import states
from fpsolve.fem.meshing import make_mesh
from fpsolve.fem.states import load_state, matches, read_metadata, rebuild_state, save_state

DISC = fp.Ball((0.3, -0.2), 1.0)


def wave(x):
    return np.exp(-x[0]) * np.sin(3 * x[0] + 2 * x[1]) + x[0] ** 3


def function_on(domain, comm, family="DG", degree=3, size=0.4, order=4):
    space = fem.functionspace(make_mesh(domain, size, order, comm).mesh, (family, degree))
    function = fem.Function(space)
    function.interpolate(wave)
    return function


CASES = [
    (fp.Interval(-1.0, 2.0), "DG", 4, 1),
    (fp.Box((-1.0, -1.0), (1.0, 1.0)), "Lagrange", 1, 1),
    (DISC, "Lagrange", 3, 4),
    (DISC, "DG", 3, 4),
    (fp.Ball((0.0, 0.0, 0.0), 1.0), "Lagrange", 3, 2),
]


@pytest.mark.parametrize(("domain", "family", "degree", "order"), CASES)
def test_values_come_back_bit_for_bit(comm, shared_path, monkeypatch, domain, family, degree, order):
    """On the space itself, on the same mesh made again, and on the mesh in the file; in many small chunks."""
    monkeypatch.setattr(states, "ROWS", 37)
    size = 0.9 if domain.dimension == 3 else 0.3
    function = function_on(domain, comm, family, degree, size, order)
    path = shared_path / "deep" / "state.npz"
    save_state(path, function, {"t": 0.1}, comm)
    here, metadata = load_state(path, function.function_space, comm)
    assert metadata == {"t": 0.1}
    assert np.array_equal(here.x.array, function.x.array)
    again = function_on(domain, comm, family, degree, size, order).function_space
    assert np.array_equal(load_state(path, again, comm)[0].x.array, function.x.array)
    rebuilt, _ = rebuild_state(path, comm)
    expected = fem.Function(rebuilt.function_space)
    expected.interpolate(wave)
    assert rebuilt.x.array == pytest.approx(expected.x.array, abs=1e-13)
    other = shared_path / "other.npz"
    save_state(other, rebuilt, {"t": 0.1}, comm)
    assert other.read_bytes() == path.read_bytes()


def test_file_holds_the_function(comm, shared_path):
    """Points, cells and values mean what the table in the module says."""
    function = function_on(fp.Box((0.0, 0.0), (1.0, 1.0)), comm, "Lagrange", 1, 0.3, 1)
    save_state(shared_path / "state.npz", function, {}, comm)
    with np.load(shared_path / "state.npz") as file:
        corners = file["points"][file["cells"]]
        assert file["values"] == pytest.approx(wave(np.moveaxis(corners, 2, 0)), abs=1e-14)
        header = json.loads(bytes(file["header"]))
    assert (header["cells"], header["degree"], header["discontinuous"]) == (len(corners), 1, False)


def test_metadata_survives(comm, shared_path):
    function = function_on(fp.Interval(0.0, 1.0), comm, size=0.5, order=1)
    given = {"t": 1 / 3, "tiny": 5e-324, "list": [np.float64(0.1), np.int64(3)], "array": np.array([0.1]), "ü": None}
    save_state(shared_path / "a.npz", function, given, comm)
    back = read_metadata(shared_path / "a.npz", comm)
    assert back == {"t": 1 / 3, "tiny": 5e-324, "list": [0.1, 3], "array": [0.1], "ü": None}
    assert read_metadata(shared_path / "none.npz", comm) is None


@pytest.mark.parametrize(
    ("family", "degree", "size", "domain", "what"),
    [
        ("DG", 2, 0.4, DISC, "degree"),
        ("Lagrange", 3, 0.4, DISC, "discontinuous"),
        ("DG", 3, 0.5, DISC, "cells"),
        ("DG", 3, 0.4, fp.Ball((0.3, -0.2 + 1e-7), 1.0), "the position of the cells"),
    ],
)
def test_another_mesh_or_element_is_refused(comm, shared_path, family, degree, size, domain, what):
    path = shared_path / "state.npz"
    save_state(path, function_on(DISC, comm), {}, comm)
    space = function_on(domain, comm, family, degree, size).function_space
    assert not matches(path, space, comm)
    with pytest.raises(InputError, match=f"a state on this mesh and element.*{what}"):
        load_state(path, space, comm)


def damaged(content: bytes, how: str) -> bytes:
    where = content.index(b"values.npy") + 400
    return {
        "empty": b"",
        "text": b"hello",
        "truncated": content[: len(content) // 2],
        "end missing": content[:-1],
        "bit flipped": content[:where] + bytes([content[where] ^ 1]) + content[where + 1 :],
    }[how]


@pytest.mark.parametrize("how", ["empty", "text", "truncated", "end missing", "bit flipped"])
def test_damaged_files_are_refused(comm, shared_path, how):
    path = shared_path / "state.npz"
    function = function_on(DISC, comm)
    save_state(path, function, {}, comm)
    if comm.rank == 0:
        path.write_bytes(damaged(path.read_bytes(), how))
    comm.barrier()
    with pytest.raises(InputError, match=r"state = .*state.npz': expected a complete state file"):
        load_state(path, function.function_space, comm)


def test_no_damage_goes_unseen(comm, shared_path):
    """Any changed byte is refused or has no effect on what is read."""
    path = shared_path / "state.npz"
    function = function_on(fp.Interval(0.0, 1.0), comm, degree=1, size=0.25, order=1)
    save_state(path, function, {"t": 1.5}, comm)
    content = comm.bcast(path.read_bytes() if comm.rank == 0 else b"")
    refused = 0
    for place in range(0, len(content), 13):
        if comm.rank == 0:
            path.write_bytes(content[:place] + bytes([content[place] ^ 0x41]) + content[place + 1 :])
        comm.barrier()
        try:
            found, metadata = load_state(path, function.function_space, comm)
        except InputError:
            refused += 1
            continue
        assert metadata == {"t": 1.5}
        assert np.array_equal(found.x.array, function.x.array)
    assert refused > len(content) / 13 / 3


def test_other_files_and_versions_are_refused(comm, shared_path, monkeypatch):
    function = function_on(fp.Interval(0.0, 1.0), comm, size=0.5, order=1)
    with pytest.raises(InputError, match=r"a state file\. No such file"):
        load_state(shared_path / "none.npz", function.function_space, comm)
    if comm.rank == 0:
        np.savez(shared_path / "foreign.npz", values=np.zeros(3))
    comm.barrier()
    with pytest.raises(InputError, match="a complete state file of fpsolve"):
        load_state(shared_path / "foreign.npz", function.function_space, comm)
    monkeypatch.setattr(states, "VERSION", 7)
    save_state(shared_path / "new.npz", function, {}, comm)
    monkeypatch.undo()
    with pytest.raises(InputError, match="of version 1, not 7"):
        load_state(shared_path / "new.npz", function.function_space, comm)


def test_what_cannot_be_written_is_said(comm, shared_path):
    function = function_on(fp.Interval(0.0, 1.0), comm, size=0.5, order=1)
    if comm.rank == 0:
        (shared_path / "occupied").write_text("a file, not a directory")
    comm.barrier()
    with pytest.raises(InputError, match="a file that can be written"):
        save_state(shared_path / "occupied" / "state.npz", function, {}, comm)
    (shared_path / "state.npz").mkdir(exist_ok=True)  # renaming onto a directory fails
    comm.barrier()
    with pytest.raises(InputError, match="a file that can be written"):
        save_state(shared_path / "state.npz", function, {}, comm)
    assert not list(shared_path.glob("*.new"))


SAVING = """
import os
from mpi4py import MPI
import numpy as np
from dolfinx import fem
import fpsolve as fp
from fpsolve.fem.meshing import make_mesh
from fpsolve.fem.states import save_state
comm = MPI.COMM_WORLD
space = fem.functionspace(make_mesh(fp.Ball((0.3, -0.2), 1.0), 0.4, 4, comm).mesh, ("Lagrange", 3))
f = fem.Function(space)
f.interpolate(lambda x: np.exp(-x[0]) * np.sin(3 * x[0] + 2 * x[1]) + x[0] ** 3)
save_state(__import__("pathlib").Path("state.npz"), f, {{"t": 1.0}}, comm)
if {kill}:
    os.replace = os.fsync = lambda *a: os._exit(9)
    f.x.array[:] = 0.0
    save_state(__import__("pathlib").Path("state.npz"), f, {{"t": 2.0}}, comm)
"""


def run(script: str, ranks: int, directory: Path) -> subprocess.CompletedProcess[str]:
    (directory / "run.py").write_text(script)
    inherited = ("OMPI_COMM", "PMIX_", "PRTE_LAUNCHED")
    env = {key: value for key, value in os.environ.items() if not key.startswith(inherited)}
    env |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    words = [sys.executable, "run.py"] if ranks == 1 else ["mpirun", "-n", str(ranks), sys.executable, "run.py"]
    return subprocess.run(words, cwd=directory, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.serial
@pytest.mark.parametrize("ranks", [2, 3])
def test_a_file_of_several_ranks_is_read_on_one(comm, tmp_path, ranks):
    """Written on 2 and 3 ranks, read on 1 and written again: the same file, byte for byte."""
    done = run(SAVING.format(kill=False), ranks, tmp_path)
    assert done.returncode == 0, done.stderr
    expected = function_on(DISC, comm, "Lagrange", 3)
    found, metadata = load_state(tmp_path / "state.npz", expected.function_space, comm)
    assert metadata == {"t": 1.0}
    assert found.x.array == pytest.approx(expected.x.array, abs=1e-14)  # nodes are placed to rounding only
    save_state(tmp_path / "here.npz", found, {"t": 1.0}, comm)
    assert (tmp_path / "here.npz").read_bytes() == (tmp_path / "state.npz").read_bytes()


@pytest.mark.serial
def test_a_kill_before_the_rename_leaves_the_last_complete_file(comm, tmp_path):
    done = run(SAVING.format(kill=True), 1, tmp_path)
    assert done.returncode == 9
    assert (tmp_path / "state.npz.new").exists()
    expected = function_on(DISC, comm, "Lagrange", 3)
    found, metadata = load_state(tmp_path / "state.npz", expected.function_space, comm)
    assert metadata == {"t": 1.0}
    assert np.array_equal(found.x.array, expected.x.array)  # not the zeros of the second
    save_state(tmp_path / "state.npz", expected, {"t": 3.0}, comm)  # what was left aside is in nobody's way
    assert read_metadata(tmp_path / "state.npz", comm) == {"t": 3.0}
    assert not (tmp_path / "state.npz.new").exists()
