"""The commands bounds and verify, and certified bounds beside a computed exit time."""

import json
import math
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

from mpi4py import MPI

import numpy as np
import pytest
from pictures import check_picture

from fpsolve.app import run_bounds, run_exit
from fpsolve.app.case import parse_case
from fpsolve.app.cli import main
from fpsolve.app.figure_bounds import line_through
from fpsolve.app.report_numbers import enclosure_text
from fpsolve.errors import InputError
from fpsolve.model.domains import Ball, Box, Interval, Sublevel
from fpsolve.model.moved import Moved
from fpsolve.model.process import SGD, with_epsilon2
from fpsolve.theory.bounds import certified_bounds

COMM = MPI.COMM_WORLD
LINE = """
title = "a line"
[process]
variables = ["x"]
loss = "x**2/2"
learning_rate = 2.0
batch_size = 2
[domain]
shape = "interval"
lower = -1.0
upper = 1.0
[exit]
starts = [0.0, 0.5]
"""
#: u(0) for L = x²/2, ε²Q = 1/2 on (-1, 1): ∫₀¹ 2 e^{r²} ∫₀^r e^{-t²} dt dr
MEAN = 1.44524561338
SQUARE = """
[process]
variables = ["x", "y"]
loss = "(x**2 + y**2)/2"
covariance = [["1", "0"], ["0", "0"]]
epsilon2 = 0.5
[domain]
shape = "box"
lower = [-1.0, -1.0]
upper = [1.0, 1.0]
"""


@pytest.fixture
def run(comm, shared_path, capsys):
    """Run a command in this process; return exit code, summary (on every rank), stdout and stderr."""

    def run_case(text: str, *words: str, command: str = "bounds"):
        path = shared_path / "case.toml"
        comm.barrier()
        if comm.rank == 0:
            path.write_text(text, encoding="utf-8")
        comm.barrier()
        capsys.readouterr()
        code = main([command, str(path), "--out", str(shared_path / "out"), *words])
        shown = capsys.readouterr()
        comm.barrier()
        file = shared_path / "out" / "summary.json"
        summary = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
        comm.barrier()
        return code, summary, shown.out, shown.err

    return run_case


# --- bounds ----------------------------------------------------------------------------------------------


def test_what_the_bounds_command_writes(run, comm, shared_path):
    code, summary, shown, progress = run(LINE)
    assert code == 0
    common = {"command", "title", "version", "ranks", "dofs", "cells", "seconds", "epsilon2", "converged", "messages"}
    own = {"starts", "hypotheses", "bounds", "unreachable", "attempts", "limited_by", "reached", "width", "certificate"}
    assert common | own <= set(summary)
    assert (summary["command"], summary["ranks"], summary["converged"]) == ("bounds", comm.size, True)
    first, second = summary["starts"]
    assert (first["x"], second["x"]) == ([0.0], [0.5])
    assert first["lower"] <= MEAN * (1 + 1e-11) and first["upper"] >= MEAN * (1 - 1e-11)
    assert first["steps"]["lower"] <= first["lower"] / 2 and first["upper"] / 2 <= first["steps"]["upper"]
    for start in (first, second):
        assert 0 <= start["width"] <= summary["width"] <= 1e-2
        for kind in ("paper", "sharp", "certified"):
            assert start[kind]["lower"] <= start["upper"] and start["lower"] <= start[kind]["upper"]
        assert set(start["from"].values()) <= {"paper", "sharp", "certified"}
    assert summary["hypotheses"]["lambda"]["verified"] is True
    assert [(b["name"], b["kind"]) for b in summary["bounds"]][-2:] == [("certified", "lower"), ("certified", "upper")]
    assert all(entry["method"] and entry["seconds"] >= 0 for entry in summary["attempts"])
    if comm.rank:
        assert shown == "" and progress == ""
        return
    files = {path.name for path in (shared_path / "out").iterdir()}
    assert files == {"summary.json", "certificate.json", "bounds.png"}
    check_picture(shared_path / "out" / "bounds.png")
    lines = shown.splitlines()
    head = next(k for k, line in enumerate(lines) if line.startswith("start"))
    assert "E τ >=" in lines[head] and "certified upper" in lines[head]
    assert len(lines[head]) == len(lines[head + 1]) == len(lines[head + 2]), "aligned"
    for part in ("one SGD step lasts η = 2", "asked: reached", "certificate.json", "certified lower: "):
        assert part in shown
    assert "certified bounds: relative width 0.01 asked" in progress


def test_degenerate_noise_and_a_side_out_of_reach(run):
    """Q = diag(1, 0): y decays on its own, so that top and bottom are never reached and u is that of the line."""
    code, summary, _, _ = run(SQUARE, "--no-figures", "--quiet")
    assert code == 0
    (start,) = summary["starts"]
    assert start["x"] == [0.0, 0.0]
    assert start["lower"] <= MEAN * (1 + 1e-11) and start["upper"] >= MEAN * (1 - 1e-11)
    proved = {entry["part"]: entry["proved"] for entry in summary["unreachable"]}
    assert proved["bottom"] and proved["top"] and not proved.get("left") and not proved.get("right")


def test_an_enclosure_wider_than_asked_is_code_3_with_the_result_written(run, comm, shared_path):
    code, summary, shown, _ = run(LINE, "--no-figures", "--quiet", "--width", "1e-300", "--budget", "0.5")
    assert code == 3
    assert summary["converged"] is False and summary["limited_by"] != ""
    assert (summary["tolerance"], summary["budget"]) == (1e-300, 0.5)
    assert summary["starts"][0]["lower"] <= MEAN * (1 + 1e-11)
    assert any(m.startswith("warning: the bounds hold, but are wider") for m in summary["messages"])
    assert (shared_path / "out" / "certificate.json").exists()
    assert comm.rank or "asked: NOT reached" in shown


def test_no_upper_bound_is_code_4_with_what_is_known_written(run, comm):
    text = LINE.replace("upper = 1.0", 'upper = 1.0\nreflecting = ["left", "right"]')
    code, summary, shown, _ = run(text, "--quiet", "--budget", "2")
    assert code == 4
    assert summary["starts"][0]["upper"] is None
    assert any(m.startswith("error: no finite upper bound") for m in summary["messages"])
    assert comm.rank or "error: no finite upper bound" in shown


def test_an_error_on_one_rank_is_one_message(run, comm, monkeypatch, shared_path):
    def refuse(*_: object) -> None:
        assert comm.rank == 0
        raise InputError("a.b", 3, "4")

    assert run(LINE, "--no-figures", "--quiet")[0] == 0
    monkeypatch.setattr(run_bounds, "certify", refuse)
    code, summary, shown, said = run(LINE, "--no-figures", "--quiet")
    assert code == 2 and summary is None and shown == ""
    assert not (shared_path / "out" / "certificate.json").exists(), "that of another run"
    assert said.startswith("fpsolve: error: a.b = 3") if comm.rank == 0 else said == ""


MOMENTUM = LINE.replace("learning_rate = 2.0", "learning_rate = 0.1\nmomentum = 0.9").replace("[0.0, 0.5]", "[[0, 0]]")
MESH = LINE.replace('"interval"\nlower = -1.0\nupper = 1.0', '"mesh"\nfile = "shape.msh"')


@pytest.mark.parametrize(
    "text, words, needed",
    [
        (MESH, [], ("domain.shape = 'mesh'", "interval, box, ball or sublevel", "fpsolve exit")),
        (MOMENTUM, [], ("process.momentum = 0.9", "no momentum", "fpsolve exit")),
        (LINE, ["--width", "0"], ("--width = 0.0", "a positive number")),
        (LINE, ["--width", "nan"], ("--width = nan", "finite")),
        (LINE, ["--budget", "-1"], ("--budget = -1.0", "a positive number")),
        (LINE, ["--width", "wide"], ("--width", "'wide'", "usage")),
        (f"{LINE}[bounds]\nwidth = -0.5", [], ("bounds.width = -0.5", "a positive number")),
        (f"{LINE}[bounds]\nbudget = 0", [], ("bounds.budget = 0", "a positive number")),
        (f"{LINE}[bounds]\nwidht = 0.1", [], ("bounds.widht = 0.1", "Did you mean 'width'?")),
        (LINE.replace("[0.0, 0.5]", "[0.0, 2.0]"), [], ("exit.starts[1] = [2.0]", "inside the domain")),
    ],
)
def test_wrong_input_is_one_message(run, comm, text, words, needed):
    code, summary, shown, said = run(text, "--no-figures", "--quiet", *words)
    assert code == 2 and summary is None and shown == ""
    said = comm.bcast(said, root=0)
    assert said.startswith("fpsolve: error: ") and "Traceback" not in said
    for part in needed:
        assert part in said, said


def test_the_section_and_what_the_command_line_says_instead(run, shared_path):
    text = f"{LINE}[bounds]\nwidth = 0.5\nbudget = 7\n"
    case = parse_case(text, shared_path / "case.toml")
    assert (case.bounds.width, case.bounds.budget) == (0.5, 7.0)
    _, summary, _, _ = run(text, "--no-figures", "--quiet", "--width", "0.25")
    assert (summary["tolerance"], summary["budget"]) == (0.25, 7.0)


# --- certified bounds beside a computed exit time ----------------------------------------------------------

BESIDE = LINE.replace("[exit]", '[mesh]\ntolerance = 1e-8\n[exit]\nbounds = ["paper", "certified"]')


def test_certified_bounds_in_the_exit_command(run, comm, shared_path):
    code, summary, shown, _ = run(BESIDE, "--quiet", command="exit")
    assert code == 0 and summary["bounds_violated"] == 0
    assert set(summary["margins"]) == {"paper lower", "paper upper", "certified lower", "certified upper"}
    for start in summary["starts"]:
        slack = 3 * start["error"]
        assert start["certified"]["lower"] - slack <= start["mean"] <= start["certified"]["upper"] + slack
        assert start["certified"]["upper"] - start["certified"]["lower"] <= 1e-2 * start["mean"]
        assert start["sharp"] is None
    if comm.rank == 0:
        assert "within 4 verified bounds" in shown and "certified upper" in shown
        check_picture(shared_path / "out" / "line.png")


def test_an_exit_time_outside_its_certificate_is_an_error(run, comm, monkeypatch):
    """The bounds of another noise level, tight enough to tell."""
    true = run_exit.all_bounds
    other = lambda process, *a, **k: true(with_epsilon2(process, 0.52), *a, **k)  # noqa: E731
    monkeypatch.setattr(run_exit, "all_bounds", other)
    code, summary, shown, _ = run(BESIDE, "--no-figures", "--quiet", command="exit")
    assert code == 3 and summary["bounds_violated"] > 0
    assert any(m.startswith("error: the certified upper bound is violated") for m in summary["messages"])
    assert comm.rank or "error: the certified upper bound" in shown


def test_a_domain_that_no_certificate_is_about_says_so():
    moved = Moved(Ball((0.0, 0.0), 1.0), lambda x, n: np.full(len(x), 0.1))
    found = certified_bounds(SGD("x**2 + y**2", epsilon2=0.5), moved, budget=0.1)
    assert [(b.kind, b.verified, "intervals, boxes, balls" in b.reason) for b in found] == [
        ("lower", False, True),
        ("upper", False, True),
    ]


# --- verify ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> str:
    """The text of a certificate, the same on every rank."""
    folder = COMM.bcast(tmp_path_factory.mktemp("certificate"), root=0)
    if COMM.rank == 0:
        (folder / "case.toml").write_text(LINE, encoding="utf-8")
    COMM.barrier()
    assert main(["bounds", str(folder / "case.toml"), "--out", str(folder), "--no-figures", "--quiet"]) == 0
    COMM.barrier()
    return (folder / "certificate.json").read_text(encoding="utf-8")


@pytest.fixture
def verify(comm, shared_path, capsys):
    """Verify a certificate; return exit code, stdout and stderr of rank 0."""

    def verify_text(text: str | bytes) -> tuple[int, str, str]:
        path = shared_path / "certificate.json"
        if comm.rank == 0:
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        comm.barrier()
        capsys.readouterr()
        code = main(["verify", str(path), "--quiet"])
        shown = capsys.readouterr()
        if comm.rank:
            assert shown.out == shown.err == ""
        return code, *comm.bcast((shown.out, shown.err), root=0)

    return verify_text


def test_a_certificate_is_accepted_and_says_what_is_proved(verify, certificate):
    code, shown, said = verify(certificate)
    assert code == 0 and said == ""
    assert shown.startswith("accepted  ") and len(shown.splitlines()) > 1


def changed(content: dict) -> dict:
    """Return the certificate with one claim a little stronger than proved."""
    claim = next(entry for entry in content["claims"] if entry["kind"] == "upper")
    first, *rest = claim["m"] if isinstance(claim["m"], list) else [claim["m"]]
    claim["m"] = [(float.fromhex(first) * 1.01).hex(), *rest] if rest else (float.fromhex(first) * 1.01).hex()
    return content


@pytest.mark.parametrize("with_digest", [False, True])
def test_a_changed_certificate_is_rejected(verify, certificate, with_digest):
    from fpsolve.theory.certified.certificate import digest

    content = changed(json.loads(certificate))
    if with_digest:
        content["digest"] = digest(content)
    code, shown, said = verify(json.dumps(content))
    assert code == 3 and said == ""
    assert shown.startswith("REJECTED  ") and shown.count("\n") == 1


@pytest.mark.parametrize(
    "text, needed",
    [
        ("{", ("JSON", "Line 1, column 2")),
        (b"\xff\xfe", ("UTF-8",)),
        ("[" * 100_000, ("deep nesting",)),
        ("[]", ("format = None", "'fpsolve-certificate-1'")),
        ('{"command": "bounds"}', ("format = None", "'fpsolve bounds'")),
        ('{"format": "fpsolve-certificate-9"}', ("format = 'fpsolve-certificate-9'",)),
    ],
)
def test_what_is_no_certificate_is_an_input_error(verify, text, needed):
    code, shown, said = verify(text)
    assert code == 2 and shown == ""
    assert said.startswith("fpsolve: error: ") and said.count("\n") == 1
    for part in needed:
        assert part in said, said


def test_missing_files_and_directories(capsys, comm, shared_path):
    assert main(["verify", str(shared_path / "none.json")]) == 2
    assert "No such file" in comm.bcast(capsys.readouterr().err, root=0)
    if comm.rank == 0:
        (shared_path / "certificate.json").write_text("{}")
    comm.barrier()
    assert main(["verify", str(shared_path)]) == 2
    assert "Did you mean" in comm.bcast(capsys.readouterr().err, root=0)
    assert main(["verify"]) == 2
    assert "CERT.json" in comm.bcast(capsys.readouterr().err, root=0)


@pytest.mark.serial
def test_two_ranks_find_the_same_certificate(certificate, tmp_path):
    case, out = tmp_path / "case.toml", tmp_path / "out"
    case.write_text(LINE, encoding="utf-8")
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    words = ["mpirun", "-n", "2", sys.executable, "-m", "fpsolve", "bounds", str(case), "--out", str(out)]
    done = subprocess.run(
        [*words, "--no-figures"], capture_output=True, text=True, env=os.environ | root, timeout=100, check=False
    )
    assert done.returncode == 0 and done.stdout.count("asked: reached") == 1, done.stderr
    assert json.loads((out / "summary.json").read_text(encoding="utf-8"))["ranks"] == 2
    assert (out / "certificate.json").read_text(encoding="utf-8") == certificate


# --- parts -------------------------------------------------------------------------------------------------


def test_numbers_are_rounded_outwards():
    rng = np.random.default_rng(5)
    for _ in range(300):
        lower = float(10.0 ** rng.uniform(-12, 12))
        upper = lower * (1 + float(10.0 ** rng.uniform(-17, 1)))
        low, high = (Decimal(text) for text in enclosure_text(lower, upper))
        assert low <= Decimal(lower) <= Decimal(upper) <= high
        assert high - low <= Decimal("1.3") * (Decimal(upper) - Decimal(lower)) + Decimal(upper) / 10**5
        assert low < high or lower == upper
    assert enclosure_text(None, math.inf) == ("-", "-")
    assert enclosure_text(0.1, None) == ("0.100000", "-")


def test_the_line_of_the_figure_ends_on_the_boundary():
    hole = SGD("(x**2 - 1)**2 + y**2", epsilon2=0.1)
    wells = Sublevel(hole.landscape, 1.5, (1.0, 0.0), (-2.0, -2.0), (2.0, 2.0))
    cases = [
        (Interval(-1.0, 2.0), (0.0,), [-1.0, 2.0]),
        (Box((-1.0, 0.0), (2.0, 1.0)), (0.0, 0.5), [-1.0, 2.0]),
        (Ball((0.5, 0.0), 1.0), (0.0, 0.6), [0.5 - 0.8, 0.5 + 0.8]),
        (wells, (0.9, 1.1), [math.sqrt(1 - math.sqrt(1.5 - 1.21)), math.sqrt(1 + math.sqrt(1.5 - 1.21))]),
    ]
    for domain, start, ends in cases:
        points, inside = line_through(domain, np.array(start), 0)
        assert np.all(points[:, 1:] == np.array(start)[1:]) and np.any(np.all(points == start, axis=1))
        assert np.all(domain.contains(points[inside]))
        t = points[inside, 0]
        right = t[t > 0] if len(ends) == 2 and ends[0] > 0 else t
        assert [right.min(), right.max()] == pytest.approx(ends, abs=1e-9)


def test_help_names_the_options(capsys, comm):
    assert main(["bounds", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--width" in shown and "--budget" in shown
    assert main(["verify", "--help"]) == 0
    assert "3 rejected" in capsys.readouterr().out


def test_paths_are_not_in_the_certificate(certificate):
    assert str(Path.cwd()) not in certificate and "tmp" not in certificate
