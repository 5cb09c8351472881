"""The command landscape: what it writes and prints, basins with known volumes, wrong input."""

import json

from mpi4py import MPI

import numpy as np
import pytest

import fpsolve as fp
from fpsolve.app.case import parse_case
from fpsolve.app.cli import main
from fpsolve.app.figure_landscape import landscape_figures
from fpsolve.app.run_landscape import answer_landscape
from fpsolve.problems.basin_volumes import basin_volumes

COMM = MPI.COMM_WORLD
WELL = """
title = "tilted wells"
[process]
variables = ["x", "y"]
loss = "((4*x + 3*y)**2/25 - 1)**2 + (4*y - 3*x)**2/25"
epsilon2 = 0.1
[domain]
shape = "ball"
center = [0.8, 0.6]
radius = 0.5
[landscape]
box = { lower = [-2.0, -1.5], upper = [3.0, 2.0] }
[mesh]
size = 0.2
"""
#: The part of the box with 4x + 3y < 0: the separatrix is a straight line.
AREA = 6.34375
LINE = """
[process]
variables = ["w"]
loss = "(w**2 - 1)**2*w**2"
epsilon2 = 0.1
[domain]
shape = "interval"
lower = -1.5
upper = 2.0
"""


@pytest.fixture
def run(comm, shared_path, capsys):
    """Run the command in this process; return exit code, summary (on every rank), stdout and stderr."""

    def run_case(text: str, *words: str):
        path = shared_path / "wells.toml"
        comm.barrier()
        if comm.rank == 0:
            path.write_text(text, encoding="utf-8")
        comm.barrier()
        capsys.readouterr()
        code = main(["landscape", str(path), "--out", str(shared_path / "out"), "--quiet", *words])
        shown = capsys.readouterr()
        file = shared_path / "out" / "summary.json"
        summary = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
        comm.barrier()
        return code, summary, shown.out, shown.err

    return run_case


def test_two_wells(comm, run, shared_path):
    code, summary, out, _ = run(WELL)
    assert code == 0 and summary["command"] == "landscape" and summary["ranks"] == comm.size
    assert {"title", "version", "dofs", "cells", "seconds", "epsilon2", "converged", "messages"} <= summary.keys()
    assert summary["complete"] and summary["converged"] and summary["undecided"]["count"] == 0
    points = summary["critical_points"]
    assert [p["kind"] for p in points] == ["minimum", "minimum", "saddle"] and [p["index"] for p in points] == [0, 0, 1]
    assert np.allclose([p["x"] for p in points], [[-0.8, -0.6], [0.8, 0.6], [0, 0]], atol=1e-12)
    assert np.allclose(points[2]["eigenvalues"], [-4, 2]) and points[2]["loss"] == pytest.approx(1)
    assert all(p["certificate"]["index_proved"] and p["covariance"]["rank"] == 2 for p in points)
    (height,) = summary["heights"]
    assert height["minima"] == [0, 1] and height["saddle"] == 2 and height["exact"]
    assert height["lower"] <= 1 <= height["level"] + 1e-12
    assert height["eyring_kramers"]["there"] == pytest.approx(2 * np.pi / 4 * np.sqrt(0.5) * np.exp(10))
    volumes = [b["volume"] for b in summary["basins"]]
    assert abs(volumes[0] - AREA) <= summary["basins"][0]["error"] < 0.05
    assert sum(volumes) + summary["elsewhere"] == pytest.approx(17.5)
    if comm.rank == 0:
        assert (shared_path / "out" / "landscape.png").stat().st_size > 20_000
        assert "complete: proved that there are no others" in out and "basin of" in out and "landscape.png" in out
        assert any("law for" in text for text in summary["messages"])


def test_basins_of_an_interval_end_at_the_maxima(comm):
    """The maxima of w²(w² - 1)² lie at ±1/√3: lengths 1.5 - 1/√3, 2/√3, 2 - 1/√3."""
    process = fp.SGD("(w**2 - 1)**2*w**2", variables=("w",), epsilon2=0.1)
    found = basin_volumes(process, fp.Interval(-1.5, 2.0), np.array([[-1.0], [0.0], [1.0]]), comm=comm)
    exact = np.array([1.5 - 3**-0.5, 2 * 3**-0.5, 2 - 3**-0.5])
    assert np.all(np.abs(found.volumes - exact) <= 1e-6) and found.total == pytest.approx(3.5)
    assert np.all(found.errors < 1e-5)
    outside = basin_volumes(process, fp.Interval(-1.5, 2.0), np.array([[-1.0], [0.0]]), comm=comm)
    assert outside.elsewhere == pytest.approx(exact[2], abs=1e-6)


def test_the_line_and_its_picture(comm, shared_path):
    answer = answer_landscape(parse_case(LINE, shared_path / "line.toml"), comm)
    assert [p.kind for p in answer.critical.points] == ["minimum"] * 3 + ["maximum"] * 2
    assert len(answer.heights.pairs) == 3 and all(h.exact for h in answer.heights.pairs)
    (picture,) = landscape_figures(answer, shared_path)
    if comm.rank == 0:
        assert picture.stat().st_size > 10_000


def test_what_is_not_proved_is_said(comm, run):
    text = LINE.replace("(w**2 - 1)**2*w**2", "w**4").replace("upper = 2.0", "upper = 2.0\n[landscape]\nbasins = false")
    code, summary, out, _ = run(text, "--no-figures")
    assert code == 0 and not summary["complete"] and not summary["converged"]
    assert [p["kind"] for p in summary["critical_points"]] == ["degenerate"]
    assert summary["critical_points"][0]["certificate"] is None
    undecided = summary["undecided"]
    assert undecided["count"] > 0 and "singular" in undecided["reason"] and 0 < undecided["measure"] < 1e-4
    assert all(-1e-3 < box["lower"][0] < box["upper"][0] < 1e-3 for box in undecided["boxes"])
    assert summary["basins"] == []
    assert any(m.startswith("warning: ") and "may be incomplete" in m for m in summary["messages"])
    if comm.rank == 0:
        assert "may be incomplete" in out


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("box = {", "bx = {", "Did you mean"),
        ("upper = [3.0, 2.0]", "upper = [3.0]", "landscape.box.upper"),
        ("upper = [3.0, 2.0]", "upper = [-3.0, 2.0]", "landscape.box"),
        ("[mesh]", "boxes = 0\n[mesh]", "landscape.boxes"),
        ('loss = "((4*x + 3*y)**2/25 - 1)**2 + (4*y - 3*x)**2/25"\nepsilon2 = 0.1',
         'drift = ["-x", "-y"]\ndiffusion = [["1", "0"], ["0", "1"]]', "a process with a loss"),
        ("((4*x + 3*y)**2/25 - 1)**2", "abs(x)", "twice differentiable"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_message(comm, run, old, new, said):
    assert old in WELL
    code, summary, _, err = run(WELL.replace(old, new), "--no-figures")
    assert code == 2 and summary is None
    if comm.rank == 0:
        assert said in err and "Traceback" not in err
