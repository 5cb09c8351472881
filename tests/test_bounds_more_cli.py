"""Certified bounds beside the mean exit time, and of the spectral gap: against finite elements and closed forms."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.integrate import quad

from fpsolve.app import run_steady
from fpsolve.app.bounds_questions import deviation_bounds
from fpsolve.app.case import parse_case
from fpsolve.app.cli import main
from fpsolve.app.report_steady import gap_violated
from fpsolve.model.process import with_epsilon2

#: a(x) = 1/2 on (-1, 1.5)
PLAIN = """
title = "a line"
[process]
variables = ["x"]
loss = "x**2/2"
learning_rate = 2.0
batch_size = 2
[domain]
shape = "interval"
lower = -1.0
upper = 1.5
[exit]
starts = [0.0, 0.5]
"""
LINE = f"""{PLAIN}
[bounds]
moments = 2
times = [0.5, 2.0]
parts = ["left"]
budget = 10
"""
FINE = "[mesh]\ntolerance = 1e-8\n"
BACKWARD = '[backward]\nterminal = "1"\ntimes = [0.5, 2.0, 8.0, 9.0]\npoints = [0.0, 0.5]\nboundary = "absorbing"\n'
SQUARE = """
[process]
variables = ["x", "y"]
loss = "(x**2 + y**2)/2"
covariance = [["1", "0"], ["0", "0"]]
epsilon2 = 0.5
[domain]
shape = "box"
lower = [-1.0, -1.0]
upper = [1.5, 1.0]
[exit]
starts = [[0.0, 0.0], [0.0, 1.0]]
[bounds]
budget = 6
moments = 2
parts = ["bottom", "top"]
"""
WELLS = """
[process]
variables = ["x"]
loss = "(x**2 - 1)**2"
epsilon2 = 0.5
[domain]
shape = "interval"
lower = -2.0
upper = 2.0
[mesh]
tolerance = 1e-6
"""


@pytest.fixture
def run(comm, shared_path, capsys):
    """Run a command in this process; return exit code, summary (on every rank), stdout and stderr."""

    def run_case(command: str, text: str, *words: str):
        path = shared_path / "case.toml"
        comm.barrier()
        if comm.rank == 0:
            path.write_text(text, encoding="utf-8")
        comm.barrier()
        capsys.readouterr()
        code = main([command, str(path), "--out", str(shared_path / "out"), "--no-figures", *words])
        shown = capsys.readouterr()
        comm.barrier()
        file = shared_path / "out" / "summary.json"
        summary = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
        comm.barrier()
        return code, summary, shown.out, shown.err

    return run_case


def holds(sides: dict, value: float, slack: float) -> bool:
    return sides["lower"] - slack <= value <= sides["upper"] + slack


def left_first(x: float, a: float, b: float, s: float) -> float:
    """P(the process leaves (a, b) at a) for L = x²/2: its scale function is ∫e^{L/s}."""
    part, whole = (quad(lambda r: math.exp(r**2 / 2 / s), low, b, epsabs=1e-13)[0] for low in (x, a))
    return part / whole


# --- the bounds command ------------------------------------------------------------------------------------


def test_bounds_hold_for_what_finite_elements_and_the_scale_function_say(run, comm):
    code, summary, shown, progress = run("bounds", LINE)
    assert code == 0 and summary["messages"] == []
    assert (summary["moments"], summary["times"], summary["parts"]) == (2, [0.5, 2.0], ["left"])
    assert all(entry["verified"] and entry["reason"] == "" for entry in summary["questions"].values())
    exits = run("exit", PLAIN + FINE, "--quiet")[1]["starts"]
    backward = run("backward", PLAIN + FINE + BACKWARD, "--quiet")[1]["times"]
    backward = {entry["t"]: entry for entry in backward}
    before, after = (np.array(backward[t]["values"]) for t in (8.0, 9.0))
    rates = np.log(before / after)  # the rest of them has decayed by e^{-8·2} or so
    for i, start in enumerate(summary["starts"]):
        second, spread = start["second_moment"], start["standard_deviation"]
        slack = 3 * exits[i]["moment_errors"][1]
        assert slack < 1e-5 * second["lower"]
        assert holds(second, exits[i]["moments"][1], slack)
        assert second["upper"] - second["lower"] <= 1e-6 * second["upper"]
        assert holds(spread, exits[i]["standard_deviation"], slack) and spread["lower"] > 0
        assert spread["upper"] - spread["lower"] <= 1e-5 * spread["upper"]
        assert [entry["t"] for entry in start["survival"]] == [0.5, 2.0]
        for sides in start["survival"]:
            computed = backward[sides["t"]]
            assert holds(sides, computed["values"][i], max(10 * computed["errors"][i], 1e-6))
            assert 0 < sides["lower"] < sides["upper"] <= sides["lower"] + 0.1
        assert holds(start["rate"], rates[i], 1e-3 * rates[i])
        assert start["rate"]["upper"] - start["rate"]["lower"] <= 1e-3 * rates[i]
        assert holds(start["probability"], left_first(start["x"][0], -1.0, 1.5, 0.5), 1e-10)
        assert start["probability"]["upper"] - start["probability"]["lower"] <= 1e-4
    if comm.rank == 0:
        for part in ("E τ² >=", "std <=", "P(τ > t) >=", "rate of decay of P(τ > t)", "P(leaves through left) >="):
            assert part in shown
        assert "certified bounds of E τ², at most" in progress


def test_degenerate_noise_sides_out_of_reach_and_a_start_there(run):
    """Q = diag(1, 0): y decays on its own, so that E τ² is that of the line, and top and bottom are never reached."""
    code, summary, _, _ = run("bounds", SQUARE, "--quiet")
    assert code == 0
    line = run("exit", PLAIN + FINE, "--quiet")[1]["starts"][0]
    for start in summary["starts"]:
        assert holds(start["second_moment"], line["moments"][1], 3 * line["moment_errors"][1])
        assert start["second_moment"]["upper"] <= 1.01 * start["second_moment"]["lower"]
        assert start["probability"] == {"lower": 0.0, "upper": 0.0}
        assert start["survival"] is start["rate"] is None, "not asked"
    assert summary["questions"]["survival"] is None


def test_nothing_more_is_asked_by_default(run, comm):
    _, summary, shown, _ = run("bounds", PLAIN, "--quiet")
    assert summary["questions"] == dict.fromkeys(("second_moment", "survival", "probability"))
    assert (summary["moments"], summary["times"], summary["parts"]) == (1, [], [])
    keys = ("second_moment", "standard_deviation", "survival", "rate", "probability")
    assert all(start[key] is None for start in summary["starts"] for key in keys)
    assert comm.rank or not any(part in shown for part in ("τ²", "std", "P(", "rate of decay"))


def test_what_is_not_proved_is_a_warning_and_trivial_bounds(run, comm):
    """A reflecting end: only the theorem about the mean exit time is about it."""
    text = LINE.replace("upper = 1.5", 'upper = 1.5\nreflecting = ["right"]')
    code, summary, shown, _ = run("bounds", text, "--quiet")
    assert code == 0, "the mean exit time is enclosed"
    found = [message for message in summary["messages"] if message.startswith("warning: ")]
    names = ("E τ²", "P(τ > t)", "the probability to leave through left")
    for name, key, message in zip(names, ("second_moment", "survival", "probability"), found, strict=True):
        reason = summary["questions"][key]["reason"]
        assert message.startswith(f"warning: {name}: ") and reason and message.endswith(reason)
        assert comm.rank or message in shown
    start = summary["starts"][0]
    square = Fraction(start["lower"]) ** 2
    assert square * Fraction(999999, 1000000) <= Fraction(start["second_moment"]["lower"]) <= square
    assert start["second_moment"]["upper"] is None and start["standard_deviation"] == {"lower": 0.0, "upper": None}
    assert start["survival"][0] == {"t": 0.5, "lower": 0.0, "upper": 1.0}
    assert start["rate"] == {"lower": 0.0, "upper": None} and start["probability"] == {"lower": 0.0, "upper": 1.0}


@pytest.mark.parametrize(
    "old, new, needed",
    [
        ('["left"]', '["lefft"]', ("bounds.parts = 'lefft'", "left, right", "Did you mean 'left'?")),
        ('["left"]', '["top"]', ("bounds.parts = 'top'", "left, right")),
        ('["left"]', '"left"', ("bounds.parts = 'left'", "a list of names")),
        ("[0.5, 2.0]", "[0.0, 2.0]", ("bounds.times = [0.0, 2.0]", "increasing times > 0")),
        ("[0.5, 2.0]", "[2.0, -0.5]", ("bounds.times = [2.0, -0.5]", "increasing times > 0")),
        ("[0.5, 2.0]", "[1.0, 1.0]", ("bounds.times = [1.0, 1.0]", "increasing times > 0")),
        ("[0.5, 2.0]", '["1"]', ("bounds.times[0] = '1'", "a number")),
        ("[0.5, 2.0]", "[inf]", ("bounds.times[0] = inf", "finite")),
        ("moments = 2", "moments = 3", ("bounds.moments = 3", "1 or 2", "fpsolve exit")),
        ("moments = 2", "moments = true", ("bounds.moments = True", "1 or 2")),
        ("moments = 2", "moment = 2", ("bounds.moment = 2", "Did you mean 'moments'?")),
    ],
)
def test_wrong_input_is_one_message(run, comm, old, new, needed):
    assert old in LINE
    code, summary, shown, said = run("bounds", LINE.replace(old, new), "--quiet")
    assert code == 2 and summary is None and shown == ""
    said = comm.bcast(said, root=0)
    assert said.startswith("fpsolve: error: ") and "Traceback" not in said
    for part in needed:
        assert part in said, said


def test_empty_lists_ask_nothing_and_names_count_once(shared_path):
    text = LINE.replace("[0.5, 2.0]", "[]").replace('["left"]', '["left", "left"]')
    asked = parse_case(text, shared_path / "case.toml").bounds
    assert (asked.moments, asked.times, asked.parts) == (2, (), ("left",))


@pytest.mark.parametrize(
    ("mean", "second"),
    [((1.0, 1.1), (2.0, 4.0)), ((0.1, 0.1), (0.02, 0.02)), ((0.3, 0.7), (0.3, 0.5)), ((1e150, 1e150), (3e300, 3e300))],
)
def test_the_standard_deviation_is_rounded_outwards(mean, second):
    """The largest mean belongs to the smallest variance."""
    low, high = deviation_bounds(mean, second)
    least = max(Fraction(second[0]) - Fraction(mean[1]) ** 2, Fraction(0))
    most = Fraction(second[1]) - Fraction(mean[0]) ** 2
    assert Fraction(low) ** 2 <= least and Fraction(high) ** 2 >= most
    assert low >= (1 - 1e-14) * math.sqrt(least) and high <= (1 + 1e-14) * math.sqrt(most)


def test_the_standard_deviation_of_what_is_not_known():
    assert deviation_bounds((1.0, math.inf), (2.0, math.inf)) == (0.0, math.inf)
    assert deviation_bounds((1.0, math.inf), (2.0, 5.0))[0] == 0.0
    assert deviation_bounds((1.0, 2.0), (5.0, math.inf))[1] == math.inf


# --- the steady command ------------------------------------------------------------------------------------

CERTIFIED = f'{WELLS}[steady]\nbounds = ["certified"]\n'


def test_the_spectral_gap_lies_above_its_proved_bound(run, comm):
    code, summary, shown, progress = run("steady", CERTIFIED)
    bound = summary["spectral_gap_bound"]
    assert code == 0 and set(bound) == {"value", "verified", "reason", "theorem"}
    assert bound["verified"] and bound["reason"] == "" and "g > 0" in bound["theorem"]
    assert 0.999 * summary["spectral_gap"] <= bound["value"] <= summary["spectral_gap"] + 1e-7
    if comm.rank == 0:
        (line,) = [line for line in shown.splitlines() if line.startswith("spectral gap >= ")]
        assert float(line.split()[3].rstrip(",")) <= bound["value"] and bound["theorem"] in line
        assert "certified lower bound of the spectral gap" in progress


def test_no_bound_of_the_gap_unless_asked(run):
    code, summary, _, _ = run("steady", WELLS, "--quiet")
    assert code == 0 and summary["spectral_gap_bound"] is None


def test_no_theorem_about_the_gap_is_a_warning(run, comm):
    text = CERTIFIED.replace("epsilon2 = 0.5", 'epsilon2 = 0.5\ncovariance = [["1 + x**2/4"]]')
    code, summary, shown, _ = run("steady", text, "--quiet")
    bound = summary["spectral_gap_bound"]
    assert code == 0 and bound["value"] is None and not bound["verified"]
    (message,) = [m for m in summary["messages"] if m.startswith("warning: no lower bound of the spectral gap")]
    assert bound["reason"] in message and (comm.rank or message in shown)


def test_a_gap_below_its_proved_bound_is_an_error(run, comm, monkeypatch):
    """The bound of another noise level."""
    true = run_steady.spectral_gap_bound
    monkeypatch.setattr(run_steady, "spectral_gap_bound", lambda p, *a: true(with_epsilon2(p, 0.51), *a))
    code, summary, shown, _ = run("steady", CERTIFIED, "--quiet")
    assert code == 3 and summary["spectral_gap_bound"]["value"] > summary["spectral_gap"]
    assert any(m.startswith("error: the spectral gap") for m in summary["messages"])
    assert comm.rank or "error: the spectral gap" in shown
    assert not gap_violated(None, None)


@pytest.mark.parametrize(("value", "needed"), [('"certified"', '["certified"] or []'), ('["sharp"]', "certified")])
def test_other_bounds_of_the_gap_are_refused(run, comm, value, needed):
    code, summary, _, said = run("steady", CERTIFIED.replace('["certified"]', value), "--quiet")
    said = comm.bcast(said, root=0)
    assert code == 2 and summary is None and "steady.bounds" in said and needed in said
