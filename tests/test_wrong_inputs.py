"""Wrong inputs: one message that names key, value and remedy, exit code 2 or 4, no traceback, no result."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fpsolve.app.cli import main

DISC = """
title = "wrong"
[process]
variables = ["x", "y"]
loss = "x**2 + y**2"
covariance = "identity"
epsilon2 = 0.5
[domain]
shape = "ball"
center = [0.0, 0.0]
radius = 1.0
[mesh]
size = 0.5
[exit]
starts = [[0.0, 0.0]]
bounds = []
"""
BOX = DISC.replace('"ball"\ncenter = [0.0, 0.0]\nradius = 1.0', '"box"\nlower = [-1.0, -1.0]\nupper = [1.0, 1.0]')
LEVEL = DISC.replace(
    '"ball"\ncenter = [0.0, 0.0]\nradius = 1.0',
    '"sublevel"\nbelow = 0.5\ncontaining = [0.0, 0.0]\nbox = { lower = [-1, -1], upper = [1, 1] }',
)
FILE = DISC.replace('"ball"\ncenter = [0.0, 0.0]\nradius = 1.0', '"mesh"\nfile = "shape.msh"')
DATA = """
[process]
covariance = "samples"
learning_rate = 0.1
[process.data]
model = "a*x + b"
parameters = ["a", "b"]
inputs = ["x"]
target = "y"
file = "data.csv"
[domain]
shape = "ball"
center = [0.0, 0.0]
radius = 1.0
[mesh]
size = 0.5
[exit]
bounds = []
"""
LOSS = 'loss = "x**2 + y**2"\ncovariance = "identity"\nepsilon2 = 0.5'
DRIFT = 'drift = ["-x", "-y"]\ndiffusion = [["1", "0"], ["0", "1"]]'
GENERAL = DISC.replace(LOSS, DRIFT)
SPACE = GENERAL.replace('["x", "y"]', '["x", "y", "z"]').replace("[0.0, 0.0]", "[0.0, 0.0, 0.0]")
UNEQUAL = DISC.replace('"identity"', '[["1", "0"], ["0", "2"]]')
KINK = DISC.replace("x**2 +", "abs(x) +").replace("epsilon2 = 0.5", "learning_rate = 0.1")
CSV = "x,y\n0,1\n1,3\n2,4\n"


def loss(formula: str) -> tuple[str, str, str]:
    return DISC, 'loss = "x**2 + y**2"', f'loss = "{formula}"'


def covariance(matrix: str) -> tuple[str, str, str]:
    return DISC, 'covariance = "identity"', f"covariance = {matrix}"


START = "starts = [[0.0, 0.0]]"

#: name: (case file, text to replace, its replacement), what the message must hold
CASES: dict[str, tuple[tuple[str, str, str], tuple[str, ...]]] = {
    # keys and types
    "unknown section": ((DISC, "[mesh]", "[meshing]"), ("meshing", "'size'", "Did you mean 'mesh'?")),
    "unknown key": ((DISC, "epsilon2 =", "epsilon ="), ("process.epsilon = 0.5", "Did you mean 'epsilon2'?")),
    "unknown key at the top": ((DISC, 'title = "wrong"', "radius = 3"), ("radius = 3", "It belongs in [domain]")),
    "unknown key of the data": ((DATA, "target =", "targets ="), ("process.data.targets", "Did you mean 'target'?")),
    "unknown key of a box": (
        (LEVEL, "lower = [-1, -1], ", "lover = [-1, -1], "),
        ("domain.box.lover", "Did you mean 'lower'?"),
    ),
    "unknown key far from all": ((DISC, "size = 0.5", "colour = 1"), ("mesh.colour = 1", "tolerance")),
    "misplaced key": ((DISC, "size = 0.5", "reflecting = []"), ("mesh.reflecting = []", "It belongs in [domain]")),
    "key of another shape": (
        (DISC, "radius = 1.0", "radius = 1.0\nupper = [1.0, 1.0]"),
        ("domain.upper", "[1.0, 1.0]", "center, radius"),
    ),
    "missing section": ((DISC, "[domain]", "[simulate]"), ("domain", "[domain]")),
    "missing key": ((DISC, "radius = 1.0", ""), ("domain.radius", 'shape = "ball"', "missing")),
    "missing loss": ((DISC, 'loss = "x**2 + y**2"', ""), ("process", "loss", "drift")),
    "section that is a number": ((DISC, "[mesh]\nsize = 0.5", "[[mesh]]"), ("mesh = [{}]", "[mesh]")),
    "TOML syntax": ((DISC, "radius = 1.0", "radius = = 1.0"), (", line 11", "radius = = 1.0", "TOML")),
    "text for a number": ((DISC, "radius = 1.0", 'radius = "1.0"'), ("domain.radius = '1.0'", "a number")),
    "true for a number": ((DISC, "size = 0.5", "size = true"), ("mesh.size = True", "a number")),
    "number for a formula": ((DISC, '"x**2 + y**2"', "3"), ("process.loss = 3", 'Write "3"')),
    "infinite number": ((DISC, "radius = 1.0", "radius = inf"), ("domain.radius = inf", "finite")),
    "huge integer": ((DISC, "radius = 1.0", f"radius = 1{400 * '0'}"), ("domain.radius = 1000", "finite")),
    "no number": ((DISC, "center = [0.0, 0.0]", "center = [0.0, nan]"), ("domain.center[1] = nan", "finite")),
    # process
    "unknown symbol": (loss("x**2 + z**2"), ("process.loss", "x**2 + z**2", "Unknown symbol 'z'")),
    "unknown function": (loss("x**2 + cosinus(y)"), ("process.loss", "cosinus", "not a known function")),
    "caret for a power": (loss("x^2 + y^2"), ("process.loss", "x^2 + y^2", "Write ** instead")),
    "import": (loss("__import__('os').system('touch broken')"), ("process.loss", "__import__", "not a known function")),
    "lambda": (loss("(lambda: 1)()"), ("process.loss", "lambda", "not a known function")),
    "attribute": (loss("x.__class__"), ("process.loss", "x.__class__", "not allowed")),
    "subscript": (loss("[x, y][0]"), ("process.loss", "[x, y][0]", "not allowed")),
    "power tower": (loss("9**9**9**9**9**9**9*x"), ("process.loss", "9**9", "too large")),
    "nested brackets": (loss("(" * 5000 + "x" + ")" * 5000), ("process.loss", "(((", "cannot be read")),
    "long formula": (loss("+".join(["x"] * 20_000)), ("process.loss", "x+x+x", "at most")),
    "division by zero": (loss("x**2/(1 - 1)"), ("process.loss", "x**2/(1 - 1)", "Division by zero")),
    "imaginary constant": (loss("x**2 + sqrt(-2)"), ("process.loss", "sqrt(-2)", "real")),
    "reserved name": ((DISC, '["x", "y"]', '["x", "exp"]'), ("process.variables = 'exp'", "function")),
    "reserved word": ((DISC, '["x", "y"]', '["x", "lambda"]'), ("process.variables = 'lambda'", "lambda_")),
    "name twice": ((DISC, '["x", "y"]', '["x", "x"]'), ("process.variables", "['x', 'x']", "distinct")),
    "not a name": ((DISC, '["x", "y"]', '["x", "y 1"]'), ("process.variables = 'y 1'", "plain name")),
    "four variables": ((DISC, '["x", "y"]', '["x", "y", "z", "w"]'), ("process.variables", "'w'", "one to three")),
    "non-symmetric Q": (
        covariance('[["1", "x"], ["y", "1"]]'),
        ("process.covariance", "'x'", "symmetric", "[1][0] and [0][1]"),
    ),
    "non-square Q": (covariance('[["1", "0"]]'), ("process.covariance", "2 × 2")),
    "ragged Q": (covariance('[["1", "0"], ["0"]]'), ("process.covariance", "rows of equal length")),
    "unknown Q": (covariance('"unity"'), ("process.covariance = 'unity'", '"identity"')),
    "indefinite Q": (
        covariance('[["1", "0"], ["0", "0.5 - x**2"]]'),
        ("process.covariance", "indefinite", "x =", "shrink the domain"),
    ),
    "samples without data": (covariance('"samples"'), ("process.covariance = 'samples'", "[process.data]")),
    "loss not finite": (loss("log(x) + y**2"), ("process.loss", "not finite at x =", "Change the formula")),
    "epsilon2 zero": ((DISC, "epsilon2 = 0.5", "epsilon2 = 0.0"), ("process.epsilon2 = 0.0", "positive", "noise")),
    "negative learning rate": (
        (DISC, "epsilon2 = 0.5", "learning_rate = -0.1"),
        ("process.learning_rate = -0.1", "positive"),
    ),
    "no batch": (
        (DISC, "epsilon2 = 0.5", "learning_rate = 0.1\nbatch_size = 0"),
        ("process.batch_size = 0", "at least 1"),
    ),
    "learning rate and epsilon2": (
        (DISC, "epsilon2 = 0.5", "epsilon2 = 0.5\nlearning_rate = 0.1"),
        ("process.epsilon2", "'learning_rate': 0.1", "either"),
    ),
    "neither learning rate nor epsilon2": ((DISC, "epsilon2 = 0.5", ""), ("process.epsilon2", "either learning_rate")),
    "batch size and epsilon2": (
        (DISC, "epsilon2 = 0.5", "epsilon2 = 0.5\nbatch_size = 4"),
        ("process.batch_size = 4", "learning_rate"),
    ),
    "no replacement without data": (
        (DISC, "epsilon2 = 0.5", "learning_rate = 0.1\nreplacement = false"),
        ("process.replacement", "data"),
    ),
    "momentum without a learning rate": (
        (DISC, "epsilon2 = 0.5", "epsilon2 = 0.5\nmomentum = 0.9"),
        ("process.momentum = 0.9", "learning_rate"),
    ),
    "two formulas for three variables": (
        (SPACE, "", ""),
        ("process.drift", "'-x', '-y'", "3 formulas", "x, y, z"),
    ),
    "drift and learning rate": (
        (GENERAL, "[domain]", "learning_rate = 0.1\n[domain]"),
        ("process.learning_rate = 0.1", "drift and diffusion"),
    ),
    "drift and loss": ((GENERAL, "[domain]", 'loss = "x"\n[domain]'), ("process", "'loss', 'drift'", "one of")),
    "drift without diffusion": (
        (GENERAL, 'diffusion = [["1", "0"], ["0", "1"]]', ""),
        ("process.diffusion", "matrix", "missing"),
    ),
    "drift and a subspace": (
        (GENERAL, "[domain]", "[process.subspace]\norigin = [0, 0]\nleading = 1\n[domain]"),
        ("process.subspace = {'origin': [0, 0], 'leading': 1}", "besides drift and diffusion"),
    ),
    "subspace at no minimum": (
        (DISC, LOSS, f"{LOSS.replace('x**2', 'x')}\n[process.subspace]\norigin = [0.9, 0.1]\nleading = 2"),
        ("process.subspace.origin = [0.9, 0.1]", "a minimum of the loss"),
    ),
    "covariance model at no point": (
        (DISC, "epsilon2 = 0.5", 'epsilon2 = 0.5\ncovariance_model = "constant"'),
        ("process.covariance_at = None", "2 finite numbers"),
    ),
    "momentum in the plane": (
        (DISC, "epsilon2 = 0.5", "learning_rate = 0.1\nmomentum = 0.9"),
        ("process.variables", "one variable", "fpsolve.simulate_exit"),
    ),
    "corrections of a loss with a kink": (
        (KINK, START, f'{START}\nmodel = "corrected"'),
        ("process.loss", "twice differentiable", "kink"),
    ),
    "a chain whose loss is not finite": (
        (KINK.replace("abs(x) +", "log(x) +"), START, f'{START}\nmodel = "chain"'),
        ("process.loss", "log(x)", "gradient is finite at the start [0.0, 0.0]"),
    ),
    "a chain without a step": ((DISC, START, f'{START}\nmodel = "chain"'), ("process.learning_rate", "ε² alone")),
    # data
    "missing data file": ((DATA, '"data.csv"', '"date.csv"'), ("process.data.file", "date.csv", "No such file")),
    "missing column": (
        (DATA, 'target = "y"', 'target = "Z"'),
        ("process.data.file", "a column named 'Z'", "It has x, y"),
    ),
    "model without parameters": ((DATA, "a*x + b", "3*x"), ("process.data.model = '3*x'", "a, b")),
    "variables beside parameters": (
        (DATA, "learning_rate = 0.1", 'learning_rate = 0.1\nvariables = ["u"]'),
        ("process.variables", "['u']", "['a', 'b']"),
    ),
    "loss beside data": (
        (DATA, "learning_rate", 'loss = "a**2"\nlearning_rate'),
        ("process", "'loss', 'data'", "one of"),
    ),
    "batch of all samples": (
        (DATA, "learning_rate = 0.1", "learning_rate = 0.1\nbatch_size = 3\nreplacement = false"),
        ("process.batch_size = 3", "fewer than the 3 samples"),
    ),
    # domain
    "unknown shape": ((DISC, '"ball"', '"bal"'), ("domain.shape = 'bal'", "Did you mean 'ball'?")),
    "negative radius": ((DISC, "radius = 1.0", "radius = -1.0"), ("domain.radius = -1.0", "positive")),
    "wrong dimension": (
        (DISC, "center = [0.0, 0.0]", "center = [0.0, 0.0, 0.0]"),
        ("domain.center = [0.0, 0.0, 0.0]", "2 number(s)", "x, y"),
    ),
    "interval in the plane": (
        (DISC, '"ball"\ncenter = [0.0, 0.0]\nradius = 1.0', '"interval"\nlower = -1\nupper = 1'),
        ("domain.shape = 'interval'", '"box"'),
    ),
    "corners exchanged": ((BOX, "upper = [1.0, 1.0]", "upper = [1.0, -2.0]"), ("domain.upper", "-2.0", "larger")),
    "unknown side": (
        (BOX, "upper = [1.0, 1.0]", 'upper = [1.0, 1.0]\nreflecting = ["lefd"]'),
        ("domain.reflecting = 'lefd'", "Did you mean 'left'?"),
    ),
    "sublevel point outside": (
        (LEVEL, "containing = [0.0, 0.0]", "containing = [0.9, 0.9]"),
        ("domain.containing", "0.9", "below 0.5", "1.62"),
    ),
    "sublevel set too large for its box": ((LEVEL, "below = 0.5", "below = 1.5"), ("domain.box", "Enlarge domain.box")),
    "sublevel set without a loss": (
        (LEVEL, LOSS, DRIFT),
        ("domain.shape = 'sublevel'", "a loss"),
    ),
    "missing mesh file": ((FILE, "size = 0.5", "size = 0.5"), ("domain.file", "shape.msh", "existing")),
    # mesh and exit
    "tolerance zero": ((DISC, "size = 0.5", "tolerance = 0.0"), ("mesh.tolerance = 0.0", "positive")),
    "tolerance out of reach": ((DISC, "size = 0.5", "tolerance = 1e-15"), ("mesh.tolerance = 1e-15", "1e-12")),
    "size beyond the domain": ((DISC, "size = 0.5", "size = 5.0"), ("mesh.size = 5.0", "extent 2")),
    "negative size": ((DISC, "size = 0.5", "size = -0.5"), ("mesh.size = -0.5", "positive")),
    "unknown scheme": ((DISC, "size = 0.5", 'size = 0.5\nscheme = "fem"'), ("mesh.scheme = 'fem'", "dg, cg, sg")),
    "scheme that does not fit": (
        (UNEQUAL, "size = 0.5", 'size = 0.5\nscheme = "sg"'),
        ("mesh.scheme = 'sg'", "multiple of the identity", 'scheme = "dg"'),
    ),
    "degree zero": ((DISC, "size = 0.5", "size = 0.5\ndegree = 0"), ("mesh.degree = 0", "at least 1")),
    "start outside": ((DISC, START, "starts = [[0.0, 0.0], [2.0, 0.0]]"), ("exit.starts[1] = [2.0, 0.0]", "between")),
    "start on the boundary": (
        (DISC, START, "starts = [[0.6, 0.8]]"),
        ("exit.starts[0] = [0.6, 0.8]", "not on its boundary"),
    ),
    "start on a side": ((BOX, START, "starts = [[1.0, 0.0]]"), ("exit.starts[0] = [1.0, 0.0]", "not on its boundary")),
    "start of another dimension": ((DISC, START, "starts = [[0.0]]"), ("exit.starts[0] = [0.0]", "2 number(s)")),
    "start that is no point": (
        (DISC, START, "starts = [0.0, 0.0]"),
        ("exit.starts = [0.0, 0.0]", "Write [[0.0, 0.0]]"),
    ),
    "no start": ((DISC, START, "starts = []"), ("exit.starts = []", "a list of points")),
    "no moments": ((DISC, START, f"{START}\nmoments = 0"), ("exit.moments = 0", "at least 1")),
    "unknown bound": ((DISC, "bounds = []", 'bounds = ["shrap"]'), ("exit.bounds = 'shrap'", "Did you mean 'sharp'?")),
    "certified": (
        (DISC, "bounds = []", 'bounds = ["certified"]\n[bounds]\nwidth = 0.0'),
        ("bounds.width = 0.0", "a positive number"),
    ),
    "another model": ((DISC, START, f'{START}\nmodel = "chains"'), ("exit.model = 'chains'", "Did you mean 'chain'?")),
}

#: contents of data.csv, what the message must hold
DATA_FILES = {
    "NaN": ("x,y\n0,1\n1,nan\n", ("process.data.file", "column 'y', row 2 is nan", "finite numbers")),
    "text": ("x,y\n0,1\n1,many\n", ("process.data.file", "column 'y', row 2 is 'many'", "numbers")),
    "one sample": ("x,y\n0,1\n", ("process.data.file", "one sample", "no noise")),
    "empty": ("", ("process.data.file", "header", "empty")),
    "no rows": ("x,y\n", ("process.data.file", "rows of numbers", "none")),
    "missing entry": ("x,y\n0,1\n1\n", ("process.data.file", "row 2", "'y'")),
    "other columns": ("u,v\n0,1\n1,2\n", ("process.data.file", "a column named 'x'", "It has u, v")),
}

ALL_SIDES = 'reflecting = ["left", "right", "bottom", "top"]'
#: no finite answer: exit code 4
ENDLESS = {
    "all sides reflect": (BOX, "upper = [1.0, 1.0]", f"upper = [1.0, 1.0]\n{ALL_SIDES}"),
    "the sphere reflects": (DISC, "radius = 1.0", 'radius = 1.0\nreflecting = ["boundary"]'),
    "no noise and inward drift": (DISC, '"identity"', '[["0", "0"], ["0", "0"]]'),
}


def write(folder: Path, edit: tuple[str, str, str], csv: str = CSV) -> Path:
    text, old, new = edit
    assert text.count(old) >= 1, f"{old!r} is not in the case file"
    (folder / "data.csv").write_text(csv, encoding="utf-8")
    path = folder / "case.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


def message_of(capsys, comm, path: Path, code: int) -> str:
    """Run the case in this process and return its one message (on rank 0; others say nothing)."""
    capsys.readouterr()
    out = path.parent / "out"
    assert main(["exit", str(path), "--out", str(out), "--quiet", "--no-figures"]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert not (out / "summary.json").exists()
    if comm.rank:
        assert shown.err == ""
    else:
        assert shown.err.startswith("fpsolve: error: ")
        assert shown.err.count("\n") == 1, "one line"
        assert "Traceback" not in shown.err
        assert len(shown.err) < 1000
    return comm.bcast(shown.err, root=0)


def prepared(comm, folder: Path, edit: tuple[str, str, str], csv: str = CSV) -> Path:
    if comm.rank == 0:
        write(folder, edit, csv)
    comm.barrier()
    return folder / "case.toml"


@pytest.mark.parametrize("name", CASES)
def test_wrong_case_files(name, capsys, comm, shared_path):
    edit, needed = CASES[name]
    message = message_of(capsys, comm, prepared(comm, shared_path, edit), 2)
    for part in needed:
        assert part in message, message


@pytest.mark.parametrize("name", DATA_FILES)
def test_wrong_data_files(name, capsys, comm, shared_path):
    csv, needed = DATA_FILES[name]
    message = message_of(capsys, comm, prepared(comm, shared_path, (DATA, "[mesh]", "[mesh]"), csv), 2)
    for part in needed:
        assert part in message, message


@pytest.mark.parametrize("name", ENDLESS)
def test_no_place_to_leave(name, capsys, comm, shared_path):
    message = message_of(capsys, comm, prepared(comm, shared_path, ENDLESS[name]), 4)
    at_rest = name.startswith("no noise")  # the start is the minimum, where the drift vanishes too
    what, remedy = ("stays there forever", "process.extra_noise") if at_rest else ("cannot leave", "domain.reflecting")
    assert what in message and remedy in message


def test_formulas_are_never_executed(capsys, comm, shared_path):
    message_of(capsys, comm, prepared(comm, shared_path, CASES["import"][0]), 2)
    assert not Path("broken").exists()


@pytest.mark.parametrize(
    "words, needed",
    [
        ([], ("COMMAND", "--help")),
        (["exit"], ("CASE.toml", "--help")),
        (["leave", "case.toml"], ("'leave'", "exit")),
        (["exit", "case.toml", "--ouf", "x"], ("--ouf", "usage")),
        (["exit", "no/such.toml"], ("case file = 'no/such.toml'", "No such file")),
        (["exit", "."], ("case file = '.'", "not a directory")),
    ],
)
def test_wrong_command_lines(words, needed, capsys, comm):
    assert main(words) == 2
    shown = comm.bcast(capsys.readouterr().err, root=0)
    assert shown.startswith("fpsolve: error: ")
    for part in needed:
        assert part in shown, shown


def test_a_directory_with_a_case_is_suggested(capsys, comm, shared_path):
    prepared(comm, shared_path, (DISC, "", ""))
    assert main(["exit", str(shared_path)]) == 2
    assert f"Did you mean '{shared_path / 'case.toml'}'?" in comm.bcast(capsys.readouterr().err, root=0)


@pytest.mark.parametrize(
    "words, part", [(["nonsense"], "'nonsense'"), (["-ksp_type", "nonsense"], "KSP type nonsense")]
)
def test_wrong_petsc_options(words, part, capsys, comm, shared_path):
    path = prepared(comm, shared_path, (DISC, "", ""))
    assert main(["exit", str(path), "--out", str(shared_path / "out"), "--quiet", "--no-figures", "--", *words]) == 2
    shown = comm.bcast(capsys.readouterr().err, root=0)
    assert part in shown and "after '--'" in shown.replace("after --", "after '--'")
    assert "Traceback" not in shown
    # and the wrong option is gone afterwards
    assert main(["exit", str(path), "--out", str(shared_path / "out"), "--quiet", "--no-figures"]) == 0


def mpirun(words: list[str], limit: float = 20.0) -> tuple[int, str]:
    """Run a command on two ranks and return exit code and stderr."""
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    environment = os.environ | root | {"OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    run = subprocess.run(
        ["mpirun", "-n", "2", *words], capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    assert time.monotonic() - began < limit
    return run.returncode, run.stderr


FAILING = ["-ksp_type", "gmres", "-ksp_max_it", "1", "-pc_type", "none"]


@pytest.mark.serial
@pytest.mark.parametrize(
    "edit, options, code, part",
    [
        (CASES["import"][0], [], 2, "process.loss"),
        (CASES["missing data file"][0], [], 2, "process.data.file"),
        (CASES["indefinite Q"][0], [], 2, "indefinite"),
        (CASES["sublevel set too large for its box"][0], [], 2, "domain.box"),
        ((DISC, "size = 0.5", "size = 1e-7"), [], 2, "mesh.size"),
        ((DISC, "", ""), FAILING, 3, "linear solver gmres"),
        (ENDLESS["all sides reflect"], [], 4, "cannot leave"),
    ],
    ids=["formula", "file on rank 0", "matrix at a point", "geometry on rank 0", "mesh", "PETSc", "no exit"],
)
def test_two_ranks_end_with_one_message(edit, options, code, part, tmp_path):
    path = write(tmp_path, edit)
    words = [sys.executable, "-m", "fpsolve", "exit", str(path), "--out", str(tmp_path / "out"), "--no-figures"]
    returned, shown = mpirun([*words, "--", *options])
    assert returned == code
    assert shown.count("fpsolve: error: ") == 1
    assert part in shown
    assert "Traceback" not in shown
