"""The simulate command: what a case file may say, what is written, and what is refused."""

import json
import math

import pytest

from fpsolve.app.case import parse_case
from fpsolve.app.case_simulate import chosen_chain
from fpsolve.app.cli import main
from fpsolve.errors import InputError

DISC = """
title = "a disc"
[process]
variables = ["x", "y"]
loss = "(x**2 + y**2)/2"
covariance = [["8", "0"], ["0", "4"]]
learning_rate = 0.1
[domain]
shape = "ball"
center = [0.0, 0.0]
radius = 1.0
[exit]
starts = [[0.0, 0.0], [0.5, 0.0]]
[simulate]
paths = 300
seed = 4
times = [0.1, 0.4]
observables = ["x**2"]
"""
DATA = """
[process]
covariance = "samples"
learning_rate = 0.1
momentum = 0.5
[process.data]
model = "w"
parameters = ["w"]
target = "y"
file = "samples.csv"
[domain]
shape = "box"
lower = [-1.0, -20.0]
upper = [1.0, 20.0]
[simulate]
paths = 200
max_time = 0.7
starts = [[0.0]]
"""


def case_of(text):
    return parse_case(text, "some/where.toml")


@pytest.fixture
def run(comm, shared_path, capsys):
    """Run a case in this process; return exit code, summary (on every rank), stdout, stderr and the directory."""

    def run_case(text, *words):
        path, out = shared_path / "case.toml", shared_path / "out"
        if comm.rank == 0:
            path.write_text(text, encoding="utf-8")
            (shared_path / "samples.csv").write_text("y\n-4\n-2\n2\n6\n", encoding="utf-8")
        comm.barrier()
        capsys.readouterr()
        code = main(["simulate", str(path), "--out", str(out), "--quiet", *words])
        shown = comm.bcast(capsys.readouterr())  # rank 0 speaks
        file = out / "summary.json"
        return code, json.loads(file.read_text("utf-8")) if file.exists() else None, shown.out, shown.err, out

    return run_case


def test_summary_and_pictures(run, comm):
    code, summary, text, _, out = run(DISC)
    assert code == 0
    common = {"command", "title", "version", "ranks", "dofs", "cells", "seconds", "epsilon2", "converged", "messages"}
    assert common | {"paths", "steps", "exit", "starts", "seed", "chain", "law", "step_time"} <= set(summary)
    assert (summary["command"], summary["ranks"], summary["chain"]) == ("simulate", comm.size, "sgd")
    assert (summary["paths"], summary["seed"], summary["law"]) == (300, 4, "gaussian")
    first, second = (start["exit"] for start in summary["starts"])
    assert summary["exit"] == first
    assert first["ci95"][0] < first["mean"] < first["ci95"][1] and first["inside"] == 0
    assert 0.1 <= second["mean"] < first["mean"] < 2
    assert first["steps"] == pytest.approx(first["mean"] / 0.1)
    times = summary["starts"][0]["times"]
    assert [(entry["t"], entry["steps"]) for entry in times] == [(0.1, 1), (pytest.approx(0.4), 4)]
    assert times[1]["inside"] < times[0]["inside"] <= 1
    assert len(times[0]["mean"]) == 2 and len(times[0]["covariance"]) == 2
    assert times[0]["observables"] == times[0]["running_means"]  # after one step
    assert f"{first['mean']:.6g}" in text and "95 % interval" in text
    assert {file.name for file in out.iterdir()} == {
        "summary.json", "exit_times.png", "density.png", "trajectories.png",
    }  # fmt: skip


def test_momentum_with_data_that_stays_inside_is_marked(run):
    code, summary, text, _, _ = run(DATA, "--no-figures")
    assert (code, summary["converged"], summary["chain"], summary["law"]) == (3, False, "momentum", "samples")
    found = summary["exit"]
    assert found["mean"] is None and 0 < found["inside"] < 200
    assert found["max_time"] == pytest.approx(3 * math.sqrt(0.1))  # a step lasts √η
    low, high = found["if_exponential"]["ci95"]
    assert low < found["if_exponential"]["mean"] < high
    assert summary["coordinates"] == ["w", "v_w"] and summary["starts"][0]["x"] == [0.0, 0.0]
    assert any("still inside" in message for message in summary["messages"])
    assert "if exit times are exponential" in text


def test_diffusion_of_one_variable_anywhere(run):
    text = DISC.replace('["x", "y"]', '["x"]').replace("(x**2 + y**2)/2", "x**2/2")
    text = text.replace('[["8", "0"], ["0", "4"]]', '[["8"]]')
    text = text.replace('"ball"', '"interval"').replace("center = [0.0, 0.0]\nradius", "lower = -1.0\nupper")
    text = text.replace("[[0.0, 0.0], [0.5, 0.0]]", "[0.0]")
    code, summary, _, _, out = run(text + 'boundary = "free"\nchain = "sde"\nstep = 0.05\n')
    assert (code, summary["exit"], summary["chain"]) == (0, None, "sde")
    assert (summary["step_time"], summary["steps"]) == (0.05, 300 * 8)
    assert all(entry["inside"] == 1 for entry in summary["starts"][0]["times"])
    assert {file.name for file in out.iterdir()} >= {"density.png", "trajectories.png"}


def test_section_is_read():
    case = case_of(DISC + 'chain = "sgd"\nshuffle = true\nmax_time = 3\ntrajectories = 0\n')
    section = case.simulate
    assert (section.paths, section.seed, section.times, section.shuffle) == (300, 4, (0.1, 0.4), True)
    assert (section.max_time, section.trajectories, section.observables) == (3.0, 0, ("x**2",))
    assert case_of(DISC.replace("[simulate]", "[simulate]\nstarts = [[0, 0.5]]")).simulate.starts == ((0.0, 0.5),)


@pytest.mark.parametrize(
    ("rest", "key"),
    [
        ("pats = 3", "simulate.pats"),
        ("seed = -1", "simulate.seed"),
        ('chain = "sdg"', "simulate.chain"),
        ("paths = 0", "simulate.paths"),
        ("starts = [[1.0, 2.0, 3.0]]", "simulate.starts[0]"),
        ('chain = "sgd"\nstep = 0.1', "simulate.step"),
        ('chain = "sgd"\nbridge = false', "simulate.bridge"),
        ("paths = 1000000000", "simulate.paths"),
        ('boundary = "free"', "simulate.times"),
        ("times = [0.5, 0.2]", "simulate.times"),
    ],
)
def test_wrong_sections_are_refused(rest, key):
    with pytest.raises(InputError) as error:
        case_of(DISC[: DISC.index("paths = 300")] + rest)
    assert error.value.key == key


@pytest.mark.parametrize(
    ("process", "rest", "key"),
    [
        ("", 'chain = "sde"', "simulate.step"),
        ("", 'chain = "noisy"', "process.extra_noise"),
        ("", 'chain = "momentum"', "process.momentum"),
        ("extra_noise = 1.0", 'chain = "sgd"', "simulate.chain"),
        ("", "step = 0.1", "simulate.step"),
        ("", "bridge = false", "simulate.bridge"),
        ("", 'chain = "sde"\nstep = 0.1\nshuffle = true', "simulate.shuffle"),
    ],
)
def test_chains_that_do_not_fit_the_process_are_refused(process, rest, key):
    case = case_of(DISC.replace("[domain]", f"{process}\n[domain]") + rest)
    with pytest.raises(InputError) as error:
        chosen_chain(case.simulate, case.process)
    assert error.value.key == key


def test_start_outside_of_the_domain(run, comm):
    code, summary, _, error, _ = run(DISC.replace("[0.5, 0.0]", "[1.5, 0.0]"))
    assert (code, summary) == (2, None)
    assert comm.rank > 0 or "exit.starts[1]" in error


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (DISC + "shuffle = true", "simulate.shuffle = True"),
        (DISC.replace('"x**2"]', '"z**2"]'), "simulate.observables[0] = 'z**2'"),
        (DISC.replace("[0.1, 0.4]", "[0.01]"), "simulate.times = [0.01]"),
    ],
)
def test_what_the_simulation_refuses_has_the_name_of_the_case_file(run, comm, text, key):
    code, summary, _, error, _ = run(text)
    assert (code, summary) == (2, None)
    assert comm.rank > 0 or (error.startswith(f"fpsolve: error: {key}: expected") and error.count("\n") == 1)


def test_times_between_two_steps_are_moved_and_that_is_said(run, comm):
    _, summary, _, _, _ = run(DISC.replace("[0.1, 0.4]", "[0.12, 0.4]"))
    assert [row["t"] for row in summary["starts"][0]["times"]] == pytest.approx([0.1, 0.4])
    assert any("whole number of steps: 0.1, 0.4" in message for message in summary["messages"])


def test_paths_that_end_nowhere(run, comm):
    wild = DISC.replace("(x**2 + y**2)/2", "log(x + 0.5) + y**2").replace("[[0.0, 0.0], [0.5, 0.0]]", "[[-0.5, 0.0]]")
    _, summary, _, _, _ = run(wild)
    assert any("300 paths reached places that are not finite" in message for message in summary["messages"])


def test_no_path_leaves(run, comm):
    text = DISC.replace('[["8", "0"], ["0", "4"]]', '"identity"').replace("[simulate]", "[simulate]\nmax_time = 0.2")
    code, summary, out, _, _ = run(text)
    assert code == 3 and summary["exit"]["mean"] is None and summary["exit"]["inside"] == 300
    assert comm.rank > 0 or ("their mean is more than" in out and "nan" not in out)
