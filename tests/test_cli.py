"""The command line: what a run writes and prints, exit codes, options, and how runs end on several ranks."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fpsolve import __version__
from fpsolve.app import cli, report, run_exit
from fpsolve.app.cli import main
from fpsolve.errors import FpsolveError, InputError, NotConverged

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
[mesh]
tolerance = 1e-8
[exit]
starts = [0.0, 0.5]
moments = 2
bounds = ["paper", "sharp", "printed"]
"""
#: u(0) for L = x²/2, ε²Q = 1/2 on (-1, 1): ∫₀¹ 2 e^{r²} ∫₀^r e^{-t²} dt dr
MEAN = 1.44524561338


@pytest.fixture
def run(comm, shared_path, capsys):
    """Run a case in this process; return exit code, summary (on every rank), stdout and stderr."""

    def run_case(text: str = LINE, *words: str, name: str = "line.toml"):
        path = shared_path / name
        if comm.rank == 0:
            path.write_text(text, encoding="utf-8")
        comm.barrier()
        capsys.readouterr()
        code = main(["exit", str(path), "--out", str(shared_path / "out"), *words])
        shown = capsys.readouterr()
        file = shared_path / "out" / "summary.json"
        summary = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse) if file.exists() else None
        return code, summary, shown.out, shown.err

    return run_case


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_summary_holds_what_the_contract_says(run, comm):
    code, summary, _, _ = run(LINE, "--no-figures", "--quiet")
    assert code == 0
    common = {"command", "title", "version", "ranks", "dofs", "cells", "seconds", "epsilon2", "converged", "messages"}
    own = {"starts", "hypotheses", "boundary", "bounds_violated", "flux", "tolerance", "scheme", "degree", "levels"}
    assert common | own | {"solver"} <= set(summary)
    assert (summary["command"], summary["title"], summary["version"]) == ("exit", "a line", __version__)
    assert (summary["ranks"], summary["epsilon2"], summary["converged"]) == (comm.size, 0.5, True)
    assert summary["dofs"] > summary["cells"] > 0
    assert summary["boundary"] == {"absorbing": 2.0, "reflecting": 0.0, "characteristic": 0.0}
    assert (summary["bounds_violated"], summary["tolerance"]) == (0, 1e-8)
    assert len(summary["levels"]) >= 1
    assert all(isinstance(message, str) for message in summary["messages"])


def test_summary_holds_the_answer(run):
    _, summary, _, _ = run(LINE, "--no-figures", "--quiet")
    first, second = summary["starts"]
    assert (first["x"], second["x"]) == ([0.0], [0.5])
    assert first["mean"] == pytest.approx(MEAN, rel=1e-8)
    assert 0 <= first["error"] <= 1e-8 * first["mean"]
    assert first["moments"][0] == first["mean"] and len(first["moments"]) == len(first["moment_errors"]) == 2
    variance = first["moments"][1] - first["mean"] ** 2
    assert first["standard_deviation"] == pytest.approx(math.sqrt(variance))
    assert first["steps"] == pytest.approx(first["mean"] / 2.0)
    for start in (first, second):
        assert start["certified"] is None
        for kind in ("paper", "sharp"):
            # the sharp ones are equalities here; an estimate of the error may be a little below it
            slack = 2 * start["error"]
            assert start[kind]["lower"] - slack <= start["mean"] <= start[kind]["upper"] + slack
    for name, kind in {"lambda": "lower", "sigma": "upper", "beta": "lower", "Lambda": "upper", "R_v": "upper"}.items():
        constant = summary["hypotheses"][name]
        assert constant["kind"] == kind and constant["verified"] is True
        assert {"value", "reason"} <= set(constant)
    assert [abs(c) for c in summary["hypotheses"]["direction"]["value"]] == [1.0]


def test_the_printed_bound_is_shown_but_not_called_one(run):
    _, summary, shown, _ = run(LINE, "--no-figures", "--quiet")
    assert summary["starts"][0]["printed"]["lower"] is None
    assert summary["starts"][0]["printed"]["upper"] > 0
    printed = [bound for bound in summary["bounds"] if bound["name"] == "printed"]
    assert len(printed) == 1 and printed[0]["verified"] is False
    assert any("(8)" in message for message in summary["messages"])
    assert not shown or "printed (8)" in shown


def test_a_bound_that_does_not_apply_is_null_with_its_reason(run):
    text = LINE.replace('loss = "x**2/2"', 'drift = ["-x"]\ndiffusion = [["0.5"]]')
    text = text.replace("learning_rate = 2.0\nbatch_size = 2\n", "")
    code, summary, _, _ = run(text, "--no-figures", "--quiet")
    assert code == 0
    assert summary["epsilon2"] is None and summary["learning_rate"] is None
    assert summary["starts"][0]["mean"] == pytest.approx(MEAN, rel=1e-8)
    assert summary["starts"][0]["steps"] is None
    for kind in ("paper", "sharp"):
        assert summary["starts"][0][kind] is None
        for side in ("lower", "upper"):
            assert any(message.startswith(f"{kind} {side} bound") for message in summary["messages"])


def test_one_moment_has_no_deviation(run, comm):
    _, summary, shown, _ = run(LINE.replace("moments = 2", "moments = 1"), "--no-figures", "--quiet")
    assert summary["starts"][0]["standard_deviation"] is None
    assert "std" not in shown


def test_the_table(run, comm):
    _, _, shown, progress = run(LINE, "--no-figures")
    if comm.rank:
        assert shown == "" and progress == "", "rank 0 speaks for all"
        return
    assert "one SGD step lasts η = 2; steps = time/η" in shown
    lines = shown.splitlines()
    head = next(k for k, line in enumerate(lines) if line.startswith("start"))
    assert "mean exit time" in lines[head] and "sharp upper" in lines[head]
    assert len(lines[head]) == len(lines[head + 1]) == len(lines[head + 2]), "aligned"
    assert "1.44524561" in lines[head + 1]
    for part in ("2 absorbing, 0 reflecting", "u >= 0 and within 4 verified bounds", "lambda >= ", "summary.json"):
        assert part in shown
    assert "fpsolve: level 1:" in progress


def test_quiet(run):
    assert run(LINE, "--no-figures", "--quiet")[3] == ""


def test_figures_and_fields(run, comm, shared_path):
    code, summary, shown, _ = run(LINE, "--quiet")
    assert code == 0
    assert not any(message.startswith("warning: no ") for message in summary["messages"]), summary["messages"]
    assert comm.rank or shown.count(".png") >= 1
    if comm.rank == 0:
        for file in [line.removeprefix("wrote ") for line in shown.splitlines() if line.startswith("wrote ")]:
            assert Path(file).exists()
    comm.barrier()


def test_broken_figures_do_not_spoil_the_answer(run, monkeypatch):
    import fpsolve.app.figures as figures

    def broken(*_: object) -> list[Path]:
        raise RuntimeError("no fonts\nat all")

    monkeypatch.setattr(figures, "exit_figures", broken)
    code, summary, _, _ = run(LINE, "--quiet")
    assert code == 0
    assert "warning: no figures: RuntimeError: no fonts at all" in summary["messages"]


def test_a_tolerance_not_met_is_code_3_with_the_result_written(run, comm):
    text = LINE.replace("tolerance = 1e-8", "tolerance = 1e-9\ndegree = 1\nmax_unknowns = 20")
    code, summary, shown, _ = run(text, "--no-figures", "--quiet")
    assert code == 3
    assert summary["converged"] is False
    assert summary["starts"][0]["mean"] == pytest.approx(MEAN, rel=1e-1)
    assert any("not met" in message for message in summary["messages"])
    assert comm.rank or "NOT met" in shown


def test_a_violated_bound_is_an_error(run, monkeypatch, comm):
    """The printed (8), called a bound, is violated: ε² = 1 gives 0.2988 at 0, below u(0) = 0.5957."""
    from dataclasses import replace

    true = run_exit.all_bounds
    monkeypatch.setattr(run_exit, "all_bounds", lambda *a, **k: [replace(b, verified=True) for b in true(*a, **k)])
    text = LINE.replace("learning_rate = 2.0\nbatch_size = 2", "epsilon2 = 1.0").replace('"paper", "sharp", ', "")
    code, summary, shown, _ = run(text, "--no-figures", "--quiet")
    assert code == 3
    assert summary["bounds_violated"] > 0
    assert summary["starts"][0]["printed"]["upper"] == pytest.approx(0.2988, abs=1e-4)
    assert any(m.startswith("error: the printed upper bound is violated") for m in summary["messages"])
    assert comm.rank or "error: the printed upper bound" in shown


def test_an_older_summary_does_not_outlive_a_failed_run(run, shared_path):
    assert run(LINE, "--no-figures", "--quiet")[0] == 0
    code, summary, _, _ = run(LINE.replace("starts = [0.0, 0.5]", "starts = [3.0]"), "--no-figures", "--quiet")
    assert code == 2
    assert summary is None


def test_petsc_options_win_and_unused_ones_are_named(run):
    options = ["-ksp_type", "gmres", "-ksp_typ", "cg", "-foo", "-2"]
    code, summary, _, _ = run(LINE, "--no-figures", "--quiet", "--", *options)
    assert code == 0
    assert summary["solver"].startswith("gmres")
    assert "warning: unused PETSc options: -ksp_typ -foo" in summary["messages"]
    _, summary, _, _ = run(LINE, "--no-figures", "--quiet")
    assert summary["solver"].startswith("preonly")
    assert not any("unused" in message for message in summary["messages"])


def test_results_go_to_a_directory_named_after_the_case(comm, shared_path, monkeypatch):
    if comm.rank == 0:
        (shared_path / "well").mkdir()
        (shared_path / "well" / "case.toml").write_text(LINE)
    comm.barrier()
    monkeypatch.chdir(shared_path)
    assert main(["exit", "well/case.toml", "--no-figures", "--quiet"]) == 0
    comm.barrier()
    assert (shared_path / "results" / "well" / "summary.json").is_file()


def test_a_place_that_cannot_be_written(run, comm, shared_path):
    if comm.rank == 0:
        (shared_path / "out").write_text("a file")
    comm.barrier()
    path = shared_path / "line.toml"
    if comm.rank == 0:
        path.write_text(LINE)
    comm.barrier()
    assert main(["exit", str(path), "--out", str(shared_path / "out")]) == 2


def test_version_help_and_info(capsys, comm):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fpsolve {__version__}\n"
    assert main(["--help"]) == 0
    assert "exit" in capsys.readouterr().out
    assert main(["info"]) == 0
    shown = capsys.readouterr().out
    assert ("versions" in shown) == (comm.rank == 0)


def test_json_has_no_nan():
    import numpy as np

    data = {"a": float("nan"), "b": [np.float64("inf"), np.int64(3)], "c": np.array([[1.5]]), "d": (True, None, "x")}
    assert report.plain(data) == {"a": None, "b": [None, 3], "c": [[1.5]], "d": [True, None, "x"]}


def test_json_is_never_half_written(tmp_path):
    path = tmp_path / "summary.json"
    report.write_json(path, {"a": 0.1})
    with pytest.raises(TypeError):
        report.write_json(path, {"a": 1} | {"b": _NoText()})
    assert json.loads(path.read_text()) == {"a": 0.1}
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]


class _NoText:
    def __str__(self) -> str:
        raise TypeError


# --- how runs end ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error, code, part",
    [
        (InputError("a.b", 3, "4"), 2, "fpsolve: error: a.b = 3: expected 4."),
        (NotConverged("did not"), 3, "fpsolve: error: did not"),
        (FpsolveError("other"), 3, "fpsolve: error: other"),
        (KeyboardInterrupt(), 130, "fpsolve: interrupted"),
        (ModuleNotFoundError("No module named 'dolfinx'", name="dolfinx.fem"), 2, "docker/run"),
        (ZeroDivisionError("oh"), 1, "please report"),
    ],
)
def test_every_error_has_its_code_and_one_message(error, code, part, monkeypatch, capsys, comm):
    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr(cli, "_command", fail)
    assert main(["info"]) == code
    shown = capsys.readouterr().err
    assert part in shown if comm.rank == 0 else shown == ""
    assert ("Traceback" in shown) == (code == 1 and comm.rank == 0)


def test_help_is_fast_because_nothing_heavy_is_imported():
    code = "import sys; from fpsolve.app.cli import main; main(['--help']); print([m for m in sys.modules if m in {h}])"
    heavy = {"dolfinx", "petsc4py", "mpi4py.MPI", "sympy", "matplotlib", "scipy", "numpy"}
    done = subprocess.run([sys.executable, "-c", code.format(h=heavy)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


ON_ONE_RANK = """
import sys
from mpi4py import MPI
from fpsolve.app import cli
from fpsolve.errors import InputError
def command(*_):
    if MPI.COMM_WORLD.rank == {rank}:
        raise {error}
    MPI.COMM_WORLD.barrier()
    return 0
cli._command = command
sys.exit(cli.main(["info"]))
"""


@pytest.mark.serial
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("error, code", [("InputError('a.b', 3, '4')", 2), ("ZeroDivisionError('oh')", 1)])
def test_an_error_on_one_rank_ends_all(rank, error, code, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(ON_ONE_RANK.format(rank=rank, error=error))
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    began = time.monotonic()
    words = ["mpirun", "-n", "2", sys.executable, str(script)]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | root, timeout=60, check=False)
    assert time.monotonic() - began < 20
    assert done.returncode == code
    needed = "fpsolve: error: a.b = 3" if code == 2 else "please report"
    assert done.stderr.count(needed) == 1
    assert done.stderr.count("Traceback") == (code == 1)
