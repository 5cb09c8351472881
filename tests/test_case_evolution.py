"""The sections [evolve], [backward], [steady] and [process.schedule], and what is built from them."""

from pathlib import Path

import numpy as np
import pytest

from fpsolve.app.build import build_process
from fpsolve.app.build_evolution import build_initial, build_schedule
from fpsolve.app.case import Case, parse_case
from fpsolve.app.case_evolution import InitialCase, needed
from fpsolve.app.figure_style import time_unit
from fpsolve.app.report import heading, step_length
from fpsolve.errors import InputError
from fpsolve.model.initial import DensityStart, GaussianStart, PointStart, StateStart

WHOLE = """
title = "all questions"
[process]
variables = ["x", "y"]
loss = "(x**2 - 1)**2 + y**2"
learning_rate = 0.2
batch_size = 2
[process.schedule]
learning_rate = "0.2/(1 + t)"
batch_size = [[0, 2], [1.5, 8]]
[domain]
shape = "box"
lower = [-2.0, -2.0]
upper = [2.0, 2.0]
[mesh]
size = 0.1
scheme = "cg"
[evolve]
initial = { mean = [1.0, 0.0], covariance = [[0.01, 0.0], [0.0, 0.02]] }
times = [0.1, 1.0]
observables = ["x**2 + y**2"]
boundary = "absorbing"
nonnegative = true
step = 0.01
order = 2
bounds = ["paper", "printed", "paper"]
center = [1.0, 0.0]
radius = 0.5
delta = 1.0
checkpoint_seconds = 10
[backward]
terminal = "x"
times = 2
points = [[0.0, 0.0], [1.0, 0.5]]
initial = { density = "exp(-x**2)" }
boundary = "no-flux"
step = 0.1
order = 3
[steady]
eigenvalues = 5
observables = ["x"]
deltas = [0.2, 0.1, 0.05]
"""


def case_of(text: str) -> Case:
    return parse_case(text, "some/where.toml")


def changed(old: str, new: str) -> Case:
    assert WHOLE.count(old) >= 1
    return case_of(WHOLE.replace(old, new, 1))


def test_all_keys_are_read():
    case = case_of(WHOLE)
    evolve, backward, steady = case.evolve, case.backward, case.steady
    assert evolve.initial == InitialCase(mean=(1.0, 0.0), covariance=((0.01, 0.0), (0.0, 0.02)))
    assert (evolve.times, evolve.observables, evolve.boundary) == ((0.1, 1.0), ("x**2 + y**2",), "absorbing")
    assert (evolve.nonnegative, evolve.step, evolve.order) == (True, 0.01, 2)
    assert (evolve.bounds, evolve.center, evolve.radius, evolve.delta) == (("paper", "printed"), (1.0, 0.0), 0.5, 1.0)
    assert evolve.checkpoint_seconds == 10.0
    assert (backward.terminal, backward.times, backward.points) == ("x", (2.0,), ((0.0, 0.0), (1.0, 0.5)))
    assert backward.initial == InitialCase(density="exp(-x**2)")
    assert (backward.boundary, backward.step, backward.order) == ("no-flux", 0.1, 3)
    assert (steady.eigenvalues, steady.observables, steady.deltas) == (5, ("x",), (0.2, 0.1, 0.05))
    assert case.process.schedule is not None
    assert case.process.schedule.learning_rate == "0.2/(1 + t)"
    assert case.process.schedule.batch_size == ((0.0, 2.0), (1.5, 8.0))


def test_defaults():
    case = case_of(WHOLE[: WHOLE.index("[process.schedule]")] + WHOLE[WHOLE.index("[domain]") : WHOLE.index("[mesh]")])
    assert case.process.schedule is None and case.process.momentum is None
    assert (case.evolve.initial, case.evolve.times, case.evolve.observables) == (None, None, ())
    assert (case.evolve.boundary, case.evolve.nonnegative, case.evolve.bounds) == ("no-flux", None, ("paper", "sharp"))
    assert (case.steady.eigenvalues, case.steady.deltas) == (3, ())
    assert case.mesh.scheme is None, "every command has its own default"


@pytest.mark.parametrize(
    "old, new, parts",
    [
        ("times = [0.1, 1.0]", "time = [0.1]", ("evolve.time = [0.1]", "Did you mean 'times'?")),
        ("eigenvalues = 5", "eigenvalue = 5", ("steady.eigenvalue", "Did you mean 'eigenvalues'?")),
        ('terminal = "x"', 'goal = "x"', ("backward.goal", "Known keys: ")),
        ("nonnegative = true", 'scheme = "cg"', ("evolve.scheme", "It belongs in [mesh]")),
        ('batch_size = [[0, 2]', 'batch = [[0, 2]', ("process.schedule.batch", "Did you mean 'batch_size'?")),
        ("mean = [1.0, 0.0]", "means = [1.0, 0.0]", ("evolve.initial.means", "Did you mean 'mean'?")),
        ("mean = [1.0, 0.0], ", "", ("evolve.initial", "{ mean = [...], covariance = [[...]] }")),
        ("mean = [1.0, 0.0], ", "mean = [1.0, 0.0], point = [0, 0], ", ("evolve.initial", "{ point = [...] }")),
        ("mean = [1.0, 0.0], ", "mean = [1.0], ", ("evolve.initial.mean = [1.0]", "2 number(s)", "x, y")),
        ("[[0.01, 0.0], [0.0, 0.02]]", "[0.01, 0.0, 0.02]", ("evolve.initial.covariance", "2 × 2")),
        ("[[0.01, 0.0], [0.0, 0.02]]", "[[0.01, 0.0]]", ("evolve.initial.covariance", "2 × 2")),
        ('{ density = "exp(-x**2)" }', '"exp(-x**2)"', ("backward.initial", "density")),
        ("times = [0.1, 1.0]", "times = [1.0, 0.1]", ("evolve.times = [1.0, 0.1]", "increasing")),
        ("times = [0.1, 1.0]", "times = [-1.0, 0.1]", ("evolve.times", "increasing times > 0")),
        ("times = 2", "times = []", ("backward.times", "list of numbers")),
        ("times = 2", "times = [0]", ("backward.times", "times > 0")),
        ('"absorbing"', '"absorb"', ("evolve.boundary = 'absorb'", "Did you mean 'absorbing'?")),
        ("nonnegative = true", "nonnegative = 1", ("evolve.nonnegative = 1", "true or false")),
        ("order = 2", "order = 5", ("evolve.order = 5", "1, 2, 3 or 4")),
        ("order = 2", "order = true", ("evolve.order = True", "1, 2, 3 or 4")),
        ("step = 0.01", "step = 0", ("evolve.step = 0", "positive")),
        ('["paper", "printed", "paper"]', '["papers"]', ("evolve.bounds = 'papers'", "Did you mean 'paper'?")),
        ("center = [1.0, 0.0]", "center = 1.0", ("evolve.center = [1.0]", "2 number(s)")),
        ("points = [[0.0, 0.0], [1.0, 0.5]]", "points = [0.0, 0.0]", ("backward.points[0]", "2 number(s)")),
        ("deltas = [0.2, 0.1, 0.05]", "deltas = [0.2, -0.1, 0.3]", ("steady.deltas", "three different positive")),
        ("deltas = [0.2, 0.1, 0.05]", "deltas = [0.2, 0.1]", ("steady.deltas", "three different positive")),
        ("eigenvalues = 5", "eigenvalues = 0", ("steady.eigenvalues = 0", "at least 1")),
        ('"0.2/(1 + t)"', "0.2", ("process.schedule.learning_rate = 0.2", "formula in t", "[[0, 0.1], [5, 0.01]]")),
        ("[[0, 2], [1.5, 8]]", "[0, 2]", ("process.schedule.batch_size[0] = [0.0]", "a time and the value")),
        ("[steady]", "[stedy]", ("stedy", "Did you mean 'steady'?")),
    ],
)  # fmt: skip
def test_wrong_values_name_the_key(old, new, parts):
    with pytest.raises(InputError) as caught:
        changed(old, new)
    for part in parts:
        assert part in str(caught.value)


def test_a_missing_key_matters_only_to_its_own_command():
    case = changed('terminal = "x"\n', "")
    with pytest.raises(InputError, match=r"backward.terminal = None: .* missing in \[backward\]"):
        needed("backward", case.backward, "terminal", "times")
    needed("evolve", case.evolve, "initial", "times")
    empty = case_of(WHOLE[: WHOLE.index("[mesh]")])
    with pytest.raises(InputError, match=r"evolve.initial .*mean = "):
        needed("evolve", empty.evolve, "initial", "times")


def test_initial_data(comm, tmp_path):
    process = build_process(case_of(WHOLE).process, comm)
    matrix = ((0.01, 0.0), (0.0, 0.02))
    for spread in (matrix, (0.01, 0.02)):
        start = build_initial(InitialCase(mean=(1.0, 0.0), covariance=spread), process, "evolve")
        assert start == GaussianStart((1.0, 0.0), matrix)
    start = build_initial(InitialCase(mean=(1.0, 0.0), covariance=0.5), process, "evolve")
    assert isinstance(start, GaussianStart) and start.covariance == ((0.5, 0.0), (0.0, 0.5))
    density = build_initial(InitialCase(density="1 + x*y"), process, "evolve")
    assert isinstance(density, DensityStart)
    np.testing.assert_allclose(density.density(np.array([[2.0, 3.0]])), 7.0)
    assert build_initial(InitialCase(point=(0.5, 0.0)), process, "evolve") == PointStart((0.5, 0.0))
    file = tmp_path / "state.npz"
    with pytest.raises(InputError, match=r"evolve.initial.state = .*earlier run"):
        build_initial(InitialCase(state=file), process, "evolve")
    file.touch()
    assert build_initial(InitialCase(state=file), process, "evolve") == StateStart(file)


@pytest.mark.parametrize(
    "initial, part",
    [
        (InitialCase(mean=(1.0, 0.0), covariance=0.0), "backward.initial.covariance = 0.0: expected a positive"),
        (InitialCase(mean=(1.0, 0.0), covariance=((1.0, 0.5), (0.0, 1.0))), "symmetric 2 × 2"),
        (InitialCase(density="1 + z"), "backward.initial.density = '1 + z'"),
    ],
)
def test_initial_data_that_make_no_sense(initial, part, comm):
    process = build_process(case_of(WHOLE).process, comm)
    with pytest.raises(InputError) as caught:
        build_initial(initial, process, "backward")
    assert part in str(caught.value)


def test_a_state_lies_beside_the_case_file():
    case = changed("{ mean = [1.0, 0.0], covariance = [[0.01, 0.0], [0.0, 0.02]] }", '{ state = "a/state.npz" }')
    assert case.evolve.initial == InitialCase(state=Path("some/a/state.npz"))


def test_the_schedule_is_the_noise_relative_to_the_process(comm):
    case = case_of(WHOLE)
    process = build_process(case.process, comm)
    schedule = build_schedule(case.process, process, 3.0)
    assert schedule.breaks == (1.5,)
    # η(t)/(2b(t)) over 0.2/4, in the middle of a step
    assert schedule.theta(0.9, 0.2) == pytest.approx(1 / 2)
    assert schedule.theta(1.9, 0.2) == pytest.approx(1 / 3 / 4)
    only = changed('learning_rate = "0.2/(1 + t)"\n', "").process
    assert build_schedule(only, process, 3.0).values == pytest.approx((1.0, 0.25))
    none = case_of(WHOLE.replace('learning_rate = "0.2/(1 + t)"\nbatch_size = [[0, 2], [1.5, 8]]\n', ""
                                 ).replace("[process.schedule]\n", ""))  # fmt: skip
    assert build_schedule(none.process, process, 3.0).constant


def test_a_schedule_needs_a_learning_rate(comm):
    case = changed("learning_rate = 0.2\nbatch_size = 2", "epsilon2 = 0.05")
    with pytest.raises(InputError, match=r"process.schedule .*learning_rate"):
        build_schedule(case.process, build_process(case.process, comm), 1.0)


MOMENTUM = """
[process]
variables = ["w"]
loss = "w**2/2"
learning_rate = 0.25
batch_size = 2
momentum = 0.9
[domain]
shape = "box"
lower = [-2, -3]
upper = [2, 3]
[evolve]
initial = { point = [1.0, 0.0] }
times = [1.0]
"""


def test_momentum_doubles_the_variables(comm):
    case = case_of(MOMENTUM)
    process = build_process(case.process, comm)
    assert case.process.states == process.variables == ("w", "v_w")
    friction, strength = (1 - 0.9) / 0.5, 0.5 / 4
    np.testing.assert_allclose(process.drift(np.array([[1.0, 2.0]])), [[2.0, -1.0 - 2 * friction]])
    np.testing.assert_allclose(process.diffusion(np.array([[1.0, 2.0]]))[0], [[0, 0], [0, strength]])


def test_a_step_with_momentum_lasts_the_root(comm):
    case = case_of(MOMENTUM)
    process = build_process(case.process, comm)
    assert step_length(case) == 0.5
    assert time_unit(process) == "one SGD step = √η"
    assert any("lasts √η = 0.5" in line for line in heading(case, process))
    plain = case_of(WHOLE)
    assert step_length(plain) == 0.2
    assert time_unit(build_process(plain.process, comm)) == "one SGD step = η"


@pytest.mark.parametrize(
    "old, new, part",
    [
        ("momentum = 0.9", "momentum = 1.0", "process.momentum = 1.0"),
        ("momentum = 0.9", "momentum = 0.9\nextra_noise = 1.0", "process.extra_noise = 1.0"),
        ("learning_rate = 0.25\nbatch_size = 2", "epsilon2 = 0.1", "process.momentum = 0.9: expected learning_rate"),
        ('["w"]\nloss = "w**2/2"', '["w", "z"]\nloss = "w**2/2 + z**2"', "one variable: its velocity"),
        ("upper = [2, 3]", "upper = [2]", "domain.upper = [2.0]: expected 2 number(s), one for each of w, v_w"),
    ],
)
def test_momentum_that_makes_no_sense(old, new, part, comm):
    with pytest.raises(InputError) as caught:
        build_process(case_of(MOMENTUM.replace(old, new)).process, comm)
    assert part in str(caught.value)
