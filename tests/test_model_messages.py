"""Case files with many parameters, few samples and NPZ data: how they are read, built and spoken of."""

from __future__ import annotations

from pathlib import Path

from mpi4py import MPI

import numpy as np
import pytest

import fpsolve as fp
from fpsolve.app.build import build, build_chain, build_process
from fpsolve.app.case import parse_case
from fpsolve.app.model_messages import model_messages
from fpsolve.app.report import heading, subspace_facts
from fpsolve.app.run_exit import answer_exit
from fpsolve.errors import InputError
from fpsolve.model.subspace import restrict

MANY = """
[process]
variables = ["a", "b", "c", "e"]
loss = "a**2 + b**2 + (a - c)**2*e**2/2 + c**2 + 2*e**2"
learning_rate = 0.2
[process.subspace]
origin = [0, 0, 0, 0]
directions = [[0, 3, 0, 0]]
variables = ["s"]
[domain]
shape = "interval"
lower = -1
upper = 1
[mesh]
size = 0.1
"""
FEW = """
[process]
covariance = "samples"
learning_rate = 0.1
[process.data]
model = "a*x + b + c*x**2"
parameters = ["a", "b", "c"]
inputs = ["x"]
target = "y"
file = "few.npz"
[domain]
shape = "box"
lower = [0, 0, 0]
upper = [1, 1, 1]
"""


def test_an_invariant_line_of_four_parameters_has_the_exit_time_of_one(comm):
    """b is uncoupled, and the noise in it alone: the Ornstein-Uhlenbeck process of L = s²."""
    noise = 'covariance = [["0", "0", "0", "0"], ["0", "1", "0", "0"], ["0", "0", "0", "0"], ["0", "0", "0", "0"]]'
    text = MANY.replace("learning_rate", f"{noise}\nlearning_rate") + "[exit]\nbounds = []\n"
    answer = answer_exit(parse_case(text, "many.toml"), comm)
    well = fp.SGD("s**2", variables=["s"], learning_rate=0.2)
    expected = fp.mean_exit_time(well, fp.Interval(-1.0, 1.0), comm=comm, size=0.1)
    assert answer.result.mean[0] == pytest.approx(expected.mean[0], rel=1e-12)
    assert answer.result.process.variables == ("s",)
    assert sum("nothing is neglected" in message for message in answer.messages) == 1
    assert not any(message.startswith("warning") for message in answer.messages)


def test_what_is_neglected_is_a_warning():
    case = parse_case(MANY.replace("[0, 3, 0, 0]]", "[1, 0, 0, 1]]"), "many.toml")
    process, domain, _ = build(case, MPI.COMM_SELF)
    (message,) = model_messages(process.landscape, domain)
    assert message.startswith("warning: of the 4 parameters")
    # at s = ±1: a = e = s/√2, ∇L = (2a + a e², 0, -a e², a² e + 4e), tr Q = 4 of which 1 is on the line
    assert "75 % of tr Q" in message and "drift out of it of" in message
    a = np.sqrt(0.5)
    gradient = np.array([2 * a + a**3, 0, -(a**3), a**3 + 4 * a])
    out = gradient - np.array([1, 0, 0, 1]) * (gradient[0] + gradient[3]) / 2
    ends = restrict(process.landscape.full, [0, 0, 0, 0], [[1, 0, 0, 1]])
    part = subspace_facts(process)
    assert part is not None and part["parameters"] == ["a", "b", "c", "e"]
    assert np.allclose(part["directions"], [[a, 0, 0, a]]) and not np.any(part["origin"])
    assert (
        heading(case, process)[-1]
        == "subspace of (a, b, c, e): origin (0, 0, 0, 0), s along (0.707107, 0, 0, 0.707107)"
    )
    assert fp.neglected(ends, np.array([[1.0]])).drift[0] == pytest.approx(np.linalg.norm(out), rel=1e-12)
    assert build_chain(case.process, MPI.COMM_SELF).dimension == 1


def test_fewer_samples_than_parameters(tmp_path: Path):
    np.savez(tmp_path / "few.npz", x=[1.0, 2.0], y=[1.0, -1.0])
    case = parse_case(FEW, tmp_path / "few.toml")
    process, domain, _ = build(case, MPI.COMM_SELF)
    (message,) = model_messages(process.landscape, domain)
    assert "Q of 3 parameters has rank 1" in message and "there are 2 samples" in message
    at_minimum = FEW.replace("[0, 0, 0]", "[-3, 2, -1]").replace("[1, 1, 1]", "[0, 4, 1]")
    process, domain, _ = build(parse_case(at_minimum, tmp_path / "few.toml"), MPI.COMM_SELF)
    messages = model_messages(process.landscape, domain)
    assert len(messages) == 2 and "every sample's gradient vanishes" in messages[1]
    np.savez(tmp_path / "few.npz", x=[1.0] * 4, y=[2.0] * 4)
    process, domain, _ = build(case, MPI.COMM_SELF)
    assert "there is no noise" in model_messages(process.landscape, domain)[0]
    plane = FEW.replace(
        "[domain]", "[process.subspace]\norigin = [0, 0, 0]\nleading = 2\n[domain]"
    ).replace("[0, 0, 0]\nupper = [1, 1, 1]", "[-1, -1]\nupper = [1, 1]")  # fmt: skip
    np.savez(tmp_path / "few.npz", x=[1.0, 2.0], y=[1.0, -1.0])
    process = build_process(parse_case(plane, tmp_path / "few.toml").process, MPI.COMM_SELF)
    assert process.variables == ("t1", "t2") and process.landscape.full.variables == ("a", "b", "c")
    assert process.landscape.loss(np.zeros((1, 2)))[0] < 1e-25


@pytest.mark.parametrize(
    ("old", "new", "key", "part"),
    [
        ('["a", "b", "c", "e"]', '["a", "b", "c", "e", "f"]', "process.subspace.origin", "5 number"),
        ("origin = [0, 0, 0, 0]\n", "", "process.subspace.origin", "missing"),
        ("directions = [[0, 3, 0, 0]]\n", "", "process.subspace", "either"),
        ("directions", "leading = 1\ndirections", "process.subspace", "either"),
        ("[0, 3, 0, 0]", "[0, 3, 0]", "process.subspace.directions[0]", "4 number"),
        ('["s"]', '["s", "t"]', "process.subspace.variables", "1 names"),
        ("directions = [[0, 3, 0, 0]]", "leading = 4", "process.subspace.leading", "at most 3"),
        ("directions", "direction", "process.subspace.direction", "Did you mean 'directions'"),
        ("directions = [[0, 3, 0, 0]]\nvariables", "leading = 2\n#", "domain.shape", "2 dimensions"),
        (MANY[MANY.index("[process.subspace]") : MANY.index("[domain]")], "", "process.variables", "process.subspace"),
    ],
)
def test_wrong_sections_are_named(old, new, key, part):
    assert MANY.count(old) == 1
    with pytest.raises(InputError, match=part) as caught:
        parse_case(MANY.replace(old, new), "many.toml")
    assert caught.value.key == key


def test_momentum_has_no_subspace():
    box = 'shape = "box"\nlower = [-1, -1]\nupper = [1, 1]'
    text = MANY.replace('shape = "interval"\nlower = -1\nupper = 1', box)
    case = parse_case(text.replace("learning_rate", "momentum = 0.5\nlearning_rate"), "momentum.toml")
    assert case.process.states == ("s", "v_s")
    with pytest.raises(InputError, match="no momentum"):
        build_process(case.process, MPI.COMM_SELF)


@pytest.mark.parametrize("sampled", [False, True])
def test_an_approximated_covariance_hides_nothing_of_what_is_neglected(tmp_path: Path, sampled: bool):
    text = MANY.replace("[0, 3, 0, 0]]", "[1, 0, 0, 1]]")
    if sampled:
        np.savez(tmp_path / "few.npz", x=[1.0, 2.0, 4.0], y=[1.0, -1.0, 2.0])
        line = "[process.subspace]\norigin = [0, 0, 0]\ndirections = [[1, 0, 1]]\n[domain]"
        text = FEW.replace("[domain]", line)
        text = text[: text.index("[domain]")] + '[domain]\nshape = "interval"\nlower = -1\nupper = 1\n'
    text = text.replace("[process]", '[process]\ncovariance_model = "isotropic"')
    process, domain, _ = build(parse_case(text, tmp_path / "few.toml"), MPI.COMM_SELF)
    assert any("neglected are drift out of it" in message for message in model_messages(process.landscape, domain))
