"""The commands evolve, backward and steady: what a run writes and prints, exit codes, restart."""

import json
import math
from dataclasses import replace
from pathlib import Path

from mpi4py import MPI

import made_evolution as made
import numpy as np
import pytest
from dolfinx import common
from pictures import arrays

from fpsolve import __version__
from fpsolve.app import report_evolution, run_backward, run_evolve, theorems
from fpsolve.app.case import parse_case
from fpsolve.app.cli import main
from fpsolve.app.fields import write_evolution, write_steady
from fpsolve.problems.steady import steady_state

COMM = MPI.COMM_WORLD
#: Ornstein-Uhlenbeck with ε² = 0.1: mean e^{-t}/2, variance 0.1 - 0.06 e^{-2t}.
LINE = """
title = "a line"
[process]
variables = ["x"]
loss = "x**2/2"
learning_rate = 0.4
batch_size = 2
[domain]
shape = "interval"
lower = -3.0
upper = 3.0
[mesh]
tolerance = 1e-3
[evolve]
initial = { mean = [0.5], covariance = [[0.04]] }
times = [0.5, 1.0]
observables = ["x**2"]
bounds = []
[backward]
terminal = "x**2"
times = [0.5, 1.0]
points = [0.5, -1.0]
initial = { mean = [0.5], covariance = 0.04 }
[steady]
eigenvalues = 4
observables = ["x**4"]
"""
COMMON = {"command", "title", "version", "ranks", "dofs", "cells", "seconds", "epsilon2", "converged", "messages"}


@pytest.fixture
def run(comm, shared_path, capsys):
    """Run a command on a case in this process; return exit code, summary (on every rank), stdout and stderr."""

    def run_case(command: str, text: str = LINE, *words: str, out: str = "out"):
        path = shared_path / "line.toml"
        comm.barrier()
        if comm.rank == 0:
            path.write_text(text, encoding="utf-8")
        comm.barrier()
        capsys.readouterr()
        code = main([command, str(path), "--out", str(shared_path / out), "--no-figures", *words])
        shown = capsys.readouterr()
        file = shared_path / out / "summary.json"
        summary = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse) if file.exists() else None
        comm.barrier()
        return code, summary, shown.out, shown.err

    return run_case


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def shown_files(text: str) -> list[Path]:
    return [Path(line.removeprefix("wrote ")) for line in text.splitlines() if line.startswith("wrote ")]


# --- evolve --------------------------------------------------------------------------------------------


def test_evolve_answers_and_keeps_the_contract(run, comm, shared_path):
    code, summary, shown, progress = run("evolve")
    assert code == 0
    own = {"times", "steps", "rejected", "cost", "bounds", "bounds_violated", "boundary_condition", "minima"}
    assert COMMON | own | {"reference", "state"} <= set(summary)
    assert (summary["command"], summary["title"], summary["version"]) == ("evolve", "a line", __version__)
    assert (summary["ranks"], summary["epsilon2"], summary["step_length"]) == (comm.size, 0.1, 0.4)
    assert [entry["t"] for entry in summary["times"]] == [0.0, 0.5, 1.0]
    for entry in summary["times"]:
        t = entry["t"]
        mean, variance = 0.5 * math.exp(-t), 0.1 - 0.06 * math.exp(-2 * t)
        assert entry["steps"] == pytest.approx(t / 0.4)
        assert entry["mass"] == pytest.approx(1.0, abs=1e-10)
        assert entry["mean"] == pytest.approx([mean], abs=1e-3 * math.sqrt(variance))
        assert entry["covariance"][0] == pytest.approx([variance], rel=1e-3)
        assert entry["observables"] == pytest.approx([variance + mean**2], rel=1e-3)
        assert set(entry["errors"]) == {"mean", "covariance", "observables", "mass"}
        assert {"minimum", "entropy", "relative_entropy", "basins", "near_boundary", "outflow"} <= set(entry)
    entropies = [entry["entropy"] for entry in summary["times"]]
    assert entropies == sorted(entropies, reverse=True) and entropies[-1] > 0
    assert summary["steps"] > 0 and summary["step_range"][0] <= summary["step_range"][1]
    assert {"assembly", "factorisations", "factorisation", "solves", "solving", "monitoring"} <= set(summary["cost"])
    if comm.rank:
        assert shown == "" and progress == "", "rank 0 speaks for all"
        return
    assert "one SGD step lasts η = 0.4; steps = time/η" in shown
    lines = shown.splitlines()
    head = next(k for k, line in enumerate(lines) if line.startswith("t "))
    assert [len(line) for line in lines[head : head + 4]] == [len(lines[head])] * 4, "aligned"
    for word in ("steps", "mean x", "var x", "entropy", "g1"):
        assert word in lines[head]
    assert "g1 = x**2" in shown and "tolerance 0.001 met" in shown
    assert all(file.exists() for file in shown_files(shown))
    assert "fpsolve: mesh size" in progress


def test_the_final_state_starts_another_run(run, comm, shared_path):
    assert run("evolve")[0] == 0
    assert not (shared_path / "out" / "checkpoint").exists(), "of no use any more"
    text = LINE.replace("{ mean = [0.5], covariance = [[0.04]] }", '{ state = "out/state.npz" }', 1)
    code, summary, _, _ = run("evolve", text, "--quiet", out="more")
    assert code == 0
    assert summary["times"][0]["mean"] == pytest.approx([0.5 * math.exp(-1)], rel=1e-3)
    assert summary["times"][2]["mean"] == pytest.approx([0.5 * math.exp(-2)], rel=1e-3)


def test_an_interrupted_run_goes_on(run, monkeypatch, shared_path, comm):
    true, seen = run_evolve.evolve, []

    def interrupted(*arguments, **options):
        seen.append(options["restart"])
        result = true(*arguments, **options)
        if len(seen) == 1:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(run_evolve, "evolve", interrupted)
    code, summary, _, _ = run("evolve", LINE, "--quiet")
    assert code == 130 and summary is None
    assert (shared_path / "out" / "checkpoint").is_dir()
    code, summary, _, _ = run("evolve", LINE, "--quiet", "--restart")
    assert code == 0 and seen == [False, True]
    assert summary["times"][2]["mean"] == pytest.approx([0.5 * math.exp(-1)], rel=1e-3)


def test_a_state_that_cannot_be_written_does_not_spoil_the_answer(run, comm, shared_path):
    if comm.rank == 0:
        (shared_path / "out" / "state.npz").mkdir(parents=True)
    comm.barrier()
    code, summary, _, _ = run("evolve", LINE, "--quiet")
    assert code == 0 and summary["state"] is None
    assert any(message.startswith("warning: no state.npz: ") for message in summary["messages"])


def test_restart_belongs_to_evolve(run, comm):
    code, _, _, complaint = run("steady", LINE, "--restart")
    assert code == 2
    assert comm.rank or "--restart" in complaint


def test_an_absorbing_boundary_gives_the_survival_probability(run, comm):
    text = LINE.replace('loss = "x**2/2"', 'loss = "0*x"').replace("-3.0", "0.0").replace("upper = 3.0", "upper = 1.0")
    text = text.replace("{ mean = [0.5], covariance = [[0.04]] }", '{ density = "sin(pi*x)" }', 1)
    text = text.replace("bounds = []", 'bounds = []\nboundary = "absorbing"')
    code, summary, shown, _ = run("evolve", text, "--quiet")
    assert code == 0
    rate = 0.1 * math.pi**2
    for entry in summary["times"]:
        assert entry["mass"] == pytest.approx(math.exp(-rate * entry["t"]), rel=1e-3)
        assert entry["outflow"] == pytest.approx(rate * math.exp(-rate * entry["t"]), rel=1e-2)
    assert comm.rank or ("P(τ > t)" in shown and "density of τ" in shown)


def test_a_tolerance_not_met_is_code_3_with_the_result_written(run, comm, shared_path):
    text = LINE.replace("tolerance = 1e-3", "tolerance = 1e-9\ndegree = 1\nmax_unknowns = 60")
    code, summary, shown, _ = run("evolve", text, "--quiet")
    assert code == 3
    assert summary["converged"] is False
    assert any(message.startswith("warning: ") for message in summary["messages"])
    assert (shared_path / "out" / "checkpoint").is_dir(), "with more unknowns the run can go on"
    assert comm.rank or "NOT met" in shown


def test_theorems_are_compared_at_every_stored_time(run, comm):
    code, summary, shown, _ = run("evolve", LINE.replace("bounds = []", 'bounds = ["paper", "sharp"]'), "--quiet")
    assert code == 0 and summary["bounds_violated"] == 0
    found = {(bound["theorem"], bound["kind"]): bound for bound in summary["bounds"]}
    moment = next(b for (theorem, _), b in found.items() if "Lemma 2.1" in theorem and b["name"] == "sharp")
    assert moment["verified"] and not moment["violated"]
    assert moment["times"] == [0.0, 0.5, 1.0]
    # M(t) <= (M₀ - ε²σ/λ) e^{-2λt} + ε²σ/λ, an equality here
    exact = [(0.29 - 0.1) * math.exp(-2 * t) + 0.1 for t in moment["times"]]
    assert moment["values"] == pytest.approx(exact, rel=1e-3)
    assert moment["limits"] == pytest.approx(exact, rel=1e-3)
    predicted = [b for b in summary["bounds"] if "computed gap" in b["theorem"] and b["name"] == "sharp"]
    assert len(predicted) == 1 and predicted[0]["verified"] is False
    assert predicted[0]["limits"][2] == pytest.approx(summary["times"][0]["entropy"] * math.exp(-2), rel=1e-2)
    assert comm.rank or "Lemma 2.1" in shown


@pytest.mark.parametrize("verified, code", [(True, 3), (False, 0)])
def test_a_violated_theorem_is_an_error_if_it_is_proven(run, monkeypatch, comm, verified, code):
    wrong = made.Made("sharp", "upper", "Lemma 0", "mass", "mass", lambda t: 0.9 + 0 * t, verified, "invented")
    monkeypatch.setattr(theorems, "evolution_bounds", lambda *_, **__: [wrong])
    text = LINE.replace("bounds = []", 'bounds = ["sharp"]\ngap = false')
    found, summary, shown, _ = run("evolve", text, "--quiet")
    assert found == code
    assert summary["bounds_violated"] == int(verified)
    (bound,) = summary["bounds"]
    assert bound["violated"] is True and bound["violations"] == 3
    assert bound["margins"] == pytest.approx([-0.1] * 3, abs=1e-6)
    message = next(m for m in summary["messages"] if "violated at 3 of 3 stored times" in m)
    assert message.startswith("error: ") == verified
    assert comm.rank or ("VIOLATED" if verified else "not met") in shown


def test_what_says_nothing_has_its_reason(run, monkeypatch):
    mute = [
        made.Made("paper", "lower", theorem, "a mass", "mass", lambda t: np.full(len(t), np.nan), False, "Q grows")
        for theorem in ("Theorem 1", "Theorem 2")
    ]
    monkeypatch.setattr(theorems, "evolution_bounds", lambda *_, **__: mute)
    code, summary, shown, _ = run("evolve", LINE.replace("bounds = []", 'bounds = ["paper"]'), "--quiet")
    assert code == 0
    assert "Theorem 1 (paper), Theorem 2 (paper): Q grows" in summary["messages"]
    assert summary["bounds"][0]["limits"] == [None] * 3
    assert "proven here" not in shown, "no table of theorems"


@pytest.mark.parametrize(
    "command, old, new, part",
    [
        ("evolve", "times = [0.5, 1.0]\nobservables", "observables", "evolve.times"),
        ("evolve", "initial = { mean = [0.5], covariance = [[0.04]] }", "", "evolve.initial"),
        ("backward", 'terminal = "x**2"', "", "backward.terminal"),
        ("evolve", "covariance = [[0.04]]", "covariance = [[-0.04]]", "evolve.initial.covariance"),
        ("backward", "points = [0.5, -1.0]", "points = [5.0]", "backward.points"),
        ("evolve", "bounds = []", "nonnegative = true\norder = 7", "evolve.order = 7"),
    ],
)
def test_wrong_inputs_name_the_key(run, comm, command, old, new, part):
    assert old in LINE
    code, summary, _, complaint = run(command, LINE.replace(old, new, 1), "--quiet")
    assert code == 2 and summary is None
    if comm.rank == 0:
        assert complaint.startswith("fpsolve: error: ") and part in complaint and "Traceback" not in complaint


def test_a_schedule_moves_the_variance(run):
    schedule = "[process.schedule]\nbatch_size = [[0, 2], [0.5, 8]]\n[domain]"
    code, summary, _, _ = run("evolve", LINE.replace("[domain]", schedule), "--quiet")
    assert code == 0
    first = 0.1 - 0.06 * math.exp(-1.0)
    second = 0.025 + (first - 0.025) * math.exp(-1.0)
    assert [entry["covariance"][0][0] for entry in summary["times"]] == pytest.approx([0.04, first, second], rel=2e-3)
    code, summary, _, _ = run("steady", LINE.replace("[domain]", schedule), "--quiet")
    assert any("[process.schedule] is not used here" in message for message in summary["messages"])


def test_momentum_in_phase_space(run, comm):
    """The mean obeys w'' = -w - g w'; g = (1 - 0.5)/√0.25 = 1."""
    text = """
    title = "a swing"
    [process]
    variables = ["w"]
    loss = "w**2/2"
    learning_rate = 0.25
    batch_size = 4
    momentum = 0.5
    [domain]
    shape = "box"
    lower = [-2.0, -2.0]
    upper = [2.0, 2.0]
    [mesh]
    size = 0.5
    [evolve]
    initial = { mean = [0.8, 0.0], covariance = 0.06 }
    times = [1.0]
    step = 0.05
    bounds = []
    """
    code, summary, shown, _ = run("evolve", text, "--quiet")
    assert code == 0
    omega = math.sqrt(0.75)
    mean = 0.8 * math.exp(-0.5) * (math.cos(omega) + math.sin(omega) / (2 * omega))
    assert summary["times"][1]["mean"][0] == pytest.approx(mean, abs=5e-3)
    assert summary["times"][1]["steps"] == pytest.approx(2.0)
    assert summary["variables"] == ["w", "v_w"]
    assert comm.rank or "one SGD step lasts √η = 0.5" in shown


# --- backward ------------------------------------------------------------------------------------------


def test_backward_answers(run, comm):
    code, summary, shown, _ = run("backward", LINE, "--quiet")
    assert code == 0
    assert COMMON | {"times", "points", "terminal", "duality_defect", "steps", "cost"} <= set(summary)
    assert summary["points"] == [[0.5], [-1.0]]
    for entry in summary["times"]:
        decay = math.exp(-2 * entry["t"])
        exact = [x * x * decay + 0.1 * (1 - decay) for x in (0.5, -1.0)]
        assert entry["values"] == pytest.approx(exact, abs=1e-3)
        assert entry["steps"] == pytest.approx(entry["t"] / 0.4)
    assert 0 <= summary["duality_defect"] <= 1e-11
    assert comm.rank or ("E φ(X_t), φ = x**2" in shown and "from (-1)" in shown and "duality" in shown)


def test_a_broken_duality_is_an_error(run, monkeypatch):
    true = run_backward.backward
    monkeypatch.setattr(run_backward, "backward", lambda *a, **k: replace(true(*a, **k), duality_defect=1e-3))
    code, summary, _, _ = run("backward", LINE, "--quiet")
    assert code == 3
    assert any(message.startswith("error: the two sides of the duality") for message in summary["messages"])


def test_points_are_the_starts_where_there_are_no_others(run):
    text = LINE.replace("points = [0.5, -1.0]\n", "") + "[exit]\nstarts = [0.25]\n"
    _, summary, _, _ = run("backward", text, "--quiet")
    assert summary["points"] == [[0.25]]


# --- steady --------------------------------------------------------------------------------------------


def test_steady_answers(run, comm):
    code, summary, shown, _ = run("steady", LINE, "--quiet")
    assert code == 0
    own = {"mass", "minimum", "mean", "covariance", "eigenvalues", "spectral_gap", "poincare", "residual", "wells"}
    assert COMMON | own | {"unique", "detailed_balance", "noisy_limit"} <= set(summary)
    assert summary["eigenvalues"] == pytest.approx([0, 1, 2, 3], abs=1e-2)
    assert summary["eigenvalues_imaginary"] == [0, 0, 0, 0]
    assert summary["spectral_gap"] == pytest.approx(1, rel=1e-3) and summary["poincare"] == pytest.approx(1, rel=1e-3)
    assert summary["mass"] == pytest.approx(1, abs=1e-10)
    assert summary["covariance"][0] == pytest.approx([0.1], rel=1e-3)
    assert summary["observables"] == pytest.approx([0.03], rel=1e-2)
    assert summary["unique"] is True and summary["detailed_balance"] is True and summary["noisy_limit"] is None
    (well,) = summary["wells"]
    assert well["minimum"] == pytest.approx([0.0], abs=1e-6) and well["mass"] == pytest.approx(1.0, abs=1e-6)
    if comm.rank == 0:
        for part in ("eigenvalues of -A", "spectral gap", "minimum of the loss", "E x**4", "detailed balance"):
            assert part in shown


def test_the_limit_of_noisy_sgd(run, comm):
    text = LINE.replace("eigenvalues = 4", "eigenvalues = 2\ndeltas = [0.4, 0.2, 0.1]")
    code, summary, shown, _ = run("steady", text, "--quiet")
    assert code == 0
    limit = summary["noisy_limit"]
    assert limit["deltas"] == [0.4, 0.2, 0.1]
    # ε² + (η/2)δ for each δ, ε² in the limit
    variances = [entry["covariance"][0][0] for entry in limit["sequence"]]
    assert variances == pytest.approx([0.18, 0.14, 0.12], rel=1e-3)
    assert limit["covariance"][0] == pytest.approx([0.1], rel=2e-3)
    assert summary["covariance"][0][0] == pytest.approx(variances[2])
    assert comm.rank or "limit δ → 0" in shown
    code, _, _, _ = run("steady", text.replace("batch_size = 2", "batch_size = 2\nextra_noise = 1.0"), "--quiet")
    assert code == 2


# --- files and text ------------------------------------------------------------------------------------


def test_broken_figures_do_not_spoil_the_answer(comm, shared_path, monkeypatch):
    import fpsolve.app.figures_steady as figures

    def broken(*_: object) -> list[Path]:
        raise RuntimeError("no fonts")

    monkeypatch.setattr(figures, "steady_figures", broken)
    if comm.rank == 0:
        (shared_path / "line.toml").write_text(LINE)
    comm.barrier()
    assert main(["steady", str(shared_path / "line.toml"), "--out", str(shared_path / "out"), "--quiet"]) == 0
    messages = json.loads((shared_path / "out" / "summary.json").read_text())["messages"]
    assert "warning: no figures: RuntimeError: no fonts" in messages


@pytest.mark.parametrize("adios", [True, False])
def test_densities_are_a_series_in_time(shared_path, monkeypatch, adios):
    if adios and not common.has_adios2:
        return
    monkeypatch.setattr(common, "has_adios2", adios)
    result = made.evolution(2)
    paths = write_evolution(result, shared_path / "fields")
    COMM.barrier()
    name = "density.bp" if adios else "density.vtk/density.pvd"
    assert paths == [shared_path / "fields" / name, shared_path / "fields" / "boundary.vtu"]
    if not adios:
        text = paths[0].read_text()
        assert text.count("<DataSet") == len(made.TIMES) and 'timestep="0.25"' in text
        for k, function in enumerate(result.densities):
            top = COMM.allreduce(float(function.x.array.max(initial=0.0)), op=MPI.MAX)
            written = [arrays(path)["density"].max() for path in paths[0].parent.glob(f"*{k:06d}.vtu")]
            assert max(written) == pytest.approx(top, rel=1e-6)
    assert sorted(p.name for p in (shared_path / "fields").iterdir()) == sorted([name.split("/")[0], "boundary.vtu"])


@pytest.mark.parametrize("d", [1, 2])
def test_eigenfunctions_and_current_are_written(shared_path, monkeypatch, d):
    monkeypatch.setattr(common, "has_adios2", False)
    process, domain = made.question(d)
    result = steady_state(process, domain, comm=COMM, eigenvalues=2, size=0.5, degree=1)
    paths = write_steady(result, shared_path)
    COMM.barrier()
    assert [path.name for path in paths] == ["steady.pvd", "current.pvd", "boundary.vtu"]
    texts = [path.read_text() for path in (shared_path / "steady.vtk").glob("*.vtu")]
    assert texts and all(f'Name="{name}"' in text for text in texts for name in ("density", "right_1", "left_1"))
    assert not any("imaginary" in text for text in texts)
    vectors = [path.read_text() for path in (shared_path / "current.vtk").glob("*.vtu")]
    assert vectors and all('Name="current"' in text for text in vectors)


def test_a_long_table_is_thinned_out():
    result = made.evolution(1)
    records = tuple(made.record(1, float(t)) for t in np.linspace(0, 4, 100))
    case = parse_case(LINE, "line.toml")
    long = replace(result, records=records, errors={})
    text = report_evolution.evolve_table(run_evolve.EvolveAnswer(case, long, [], [], 1.0))
    assert "... 76 more stored times in summary.json" in text
    assert "not estimated" in text
    assert len([line for line in text.splitlines() if line.startswith(("0", "1", "2", "3", "4"))]) == 24
