"""Case files: every key of the design is read, defaults hold, the processes and domains are the ones described."""

import tomllib
from pathlib import Path

import numpy as np
import pytest

from fpsolve.app.build import build, check_starts
from fpsolve.app.case import Case, load_case, parse_case, read_case
from fpsolve.errors import InputError
from fpsolve.model.domains import Ball, Box, Interval, MeshFile, Sublevel
from fpsolve.model.process import SGD

ROOT = Path(__file__).parents[1]
DEMOS = sorted(path for path in ROOT.glob("demos/*/*.toml") if not path.name.startswith("_"))

WHOLE = """
title = "double well"
[process]
variables = ["x", "y"]
loss = "(x**2 - 1)**2 + y**2"
covariance = "identity"
learning_rate = 0.2
batch_size = 1
extra_noise = 0.0
[domain]
shape = "ball"
center = [-1.0, 0.0]
radius = 0.8
reflecting = []
[mesh]
size = 0.02
scheme = "cg"
degree = 2
max_unknowns = 1000
[exit]
starts = [[-1.0, 0.0]]
moments = 3
bounds = ["paper", "sharp", "paper"]
model = "diffusion"
[evolve]
initial = { mean = [1.0, 0.0], covariance = [[0.01, 0.0], [0.0, 0.01]] }
times = [0.1, 1.0]
observables = ["x**2 + y**2"]
[backward]
terminal = "x"
[steady]
eigenvalues = 3
[simulate]
chain = "sgd"
"""


def case_of(text: str) -> Case:
    return parse_case(text, "some/where.toml")


def with_domain(variables: str, domain: str, rest: str = "") -> Case:
    formula = " + ".join(f"{name}**2" for name in variables)
    names = ", ".join(f'"{name}"' for name in variables)
    process = f'[process]\nvariables = [{names}]\nloss = "{formula}"\nepsilon2 = 0.5'
    return case_of(f"{process}\n[domain]\n{domain}\n{rest}")


def test_all_keys_are_read():
    case = case_of(WHOLE)
    assert case.title == "double well"
    assert case.process.variables == ("x", "y")
    assert (case.process.learning_rate, case.process.batch_size, case.process.epsilon2) == (0.2, 1, None)
    assert case.domain.shape == "ball"
    assert case.domain.values == {"center": (-1.0, 0.0), "radius": 0.8}
    assert (case.mesh.size, case.mesh.tolerance, case.mesh.scheme) == (0.02, None, "cg")
    assert (case.mesh.degree, case.mesh.max_unknowns) == (2, 1000)
    assert case.exit.starts == ((-1.0, 0.0),)
    assert (case.exit.moments, case.exit.bounds) == (3, ("paper", "sharp"))


def test_defaults():
    case = with_domain("xy", 'shape = "ball"\ncenter = [0, 0]\nradius = 1')
    assert case.title == ""
    assert (case.mesh.size, case.mesh.tolerance, case.mesh.scheme) == (None, 1e-4, None)
    assert case.exit.starts is None
    assert (case.exit.moments, case.exit.bounds) == (2, ("paper", "sharp"))


def test_a_size_alone_asks_for_no_tolerance():
    shape = 'shape = "ball"\ncenter = [0, 0]\nradius = 1'
    assert with_domain("xy", shape, "[mesh]\nsize = 0.1").mesh.tolerance is None
    both = with_domain("xy", shape, "[mesh]\nsize = 0.1\ntolerance = 1e-3").mesh
    assert (both.size, both.tolerance) == (0.1, 1e-3)


def test_numbers_are_points_in_one_dimension():
    case = with_domain("x", 'shape = "interval"\nlower = -1\nupper = 1', "[exit]\nstarts = [0.0, 0.5]")
    assert case.exit.starts == ((0.0,), (0.5,))


def test_a_byte_order_mark_does_no_harm(tmp_path):
    path = tmp_path / "case.toml"
    path.write_text(WHOLE, encoding="utf-8-sig")
    assert read_case(path).title == "double well"


@pytest.mark.parametrize(
    "path, name", [("a/well.toml", "well"), ("a/b/case.toml", "b"), ("two.parts.toml", "two.parts")]
)
def test_the_name_of_the_results(path, name):
    assert parse_case(WHOLE, path).name == name


def test_errors_are_plain_data():
    """They travel between ranks by pickling."""
    import pickle

    with pytest.raises(InputError) as caught:
        case_of(WHOLE.replace("radius", "radios"))
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value)
    assert copy.key == "domain.radios"


def test_the_process_is_the_one_of_python(comm):
    process, domain, starts = build(case_of(WHOLE), comm)
    same = SGD("(x**2 - 1)**2 + y**2", learning_rate=0.2, batch_size=1)
    x = np.array([[-1.0, 0.3], [0.2, -0.7]])
    assert process.epsilon2 == same.epsilon2 == pytest.approx(0.1)
    np.testing.assert_array_equal(process.drift(x), same.drift(x))
    np.testing.assert_array_equal(process.diffusion(x), same.diffusion(x))
    assert domain == Ball((-1.0, 0.0), 0.8)
    assert starts == [(-1.0, 0.0)]


def test_extra_noise_and_matrix(comm):
    text = WHOLE.replace('"identity"', '[["1", "0"], ["0", "x**2"]]').replace("extra_noise = 0.0", "extra_noise = 2")
    process, _, _ = build(case_of(text), comm)
    np.testing.assert_allclose(process.diffusion(np.array([[3.0, 0.0]]))[0], [[0.3, 0.0], [0.0, 1.1]])


def test_drift_and_diffusion(comm):
    text = """
    [process]
    variables = ["v", "w"]
    drift = ["w - v", "w - w**3 - v"]
    diffusion = [["0", "0"], ["0", "0.25"]]
    [domain]
    shape = "box"
    lower = [-1, -2]
    upper = [1, 2]
    reflecting = ["left"]
    """
    process, domain, starts = build(case_of(text), comm)
    assert process.landscape is None
    np.testing.assert_allclose(process.drift(np.array([[1.0, 2.0]])), [[1.0, -7.0]])
    assert domain == Box((-1.0, -2.0), (1.0, 2.0), ("left",))
    assert starts == [(0.0, 0.0)]


def test_data_are_read_beside_the_case_file(comm):
    process, domain, starts = build(load_case(ROOT / "demos/two_parameter_model/case.toml", comm), comm)
    minimum = np.array([[-5.63687, 2.96346]])
    assert process.variables == ("a", "b")
    assert process.landscape is not None
    assert process.landscape.loss(minimum)[0] == pytest.approx(206.250, abs=1e-3)
    eigenvalues = np.linalg.eigvalsh(process.landscape.covariance(minimum)[0])
    np.testing.assert_allclose(eigenvalues, [3299.7, 52960], rtol=1e-4)
    assert isinstance(domain, Ball)
    assert starts == [(-5.63687, 2.96346)]


@pytest.mark.parametrize(
    "variables, text, domain",
    [
        ("x", 'shape = "interval"\nlower = -1\nupper = 2.5', Interval(-1.0, 2.5)),
        ("x", 'shape = "ball"\ncenter = 1\nradius = 2', Ball((1.0,), 2.0)),
        ("xyz", 'shape = "box"\nlower = [0, 0, 0]\nupper = [1, 2, 3]', Box((0.0, 0.0, 0.0), (1.0, 2.0, 3.0))),
        ("x", 'shape = "interval"\nlower = 0\nupper = 1\nreflecting = ["left"]', Interval(0.0, 1.0, ("left",))),
    ],
)
def test_shapes(variables, text, domain, comm):
    assert build(with_domain(variables, text), comm)[1] == domain


@pytest.mark.parametrize("box", ["{ lower = [-2, -2], upper = [2, 2] }", "[[-2, -2], [2, 2]]"])
def test_sublevel_sets(box, comm):
    text = f'shape = "sublevel"\nbelow = 1\ncontaining = [0.1, 0.2]\nbox = {box}'
    _, domain, starts = build(with_domain("xy", text), comm)
    assert isinstance(domain, Sublevel)
    assert (domain.below, domain.containing) == (1.0, (0.1, 0.2))
    assert (domain.lower, domain.upper) == ((-2.0, -2.0), (2.0, 2.0))
    assert starts == [(0.1, 0.2)], "the point given, not the middle of the bounding box"


def test_mesh_files_are_read_beside_the_case_file(comm, shared_path):
    if comm.rank == 0:
        (shared_path / "segment.msh").write_text(SEGMENT)
        case = 'shape = "mesh"\nfile = "segment.msh"\nreflecting = ["wall"]'
        process = '[process]\nvariables = ["x"]\nloss = "x**2"\nepsilon2 = 0.5'
        (shared_path / "case.toml").write_text(f"{process}\n[domain]\n{case}\n[exit]\nstarts = [0.25]\n")
    comm.barrier()
    _, domain, starts = build(load_case(shared_path / "case.toml", comm), comm)
    assert isinstance(domain, MeshFile)
    assert domain.reflecting == ("wall",)
    assert starts == [(0.25,)]


SEGMENT = """$MeshFormat
2.2 0 8
$EndMeshFormat
$PhysicalNames
2
0 1 "wall"
1 2 "line"
$EndPhysicalNames
$Nodes
3
1 0 0 0
2 0.5 0 0
3 1 0 0
$EndNodes
$Elements
3
1 15 2 1 1 1
2 1 2 2 1 1 2
3 1 2 2 1 2 3
$EndElements
"""


def test_a_start_may_lie_where_the_process_stays():
    """At (0, 1) noise diag(1, 0) is tangential and the drift leads inwards; reflecting sides let nobody out."""
    degenerate = SGD("(x**2 + y**2)/2", [["1", "0"], ["0", "0"]], epsilon2=0.5)
    check_starts(((0.0, 1.0),), degenerate, Ball((0.0, 0.0), 1.0))
    with pytest.raises(InputError, match="not on its boundary"):
        check_starts(((1.0, 0.0),), degenerate, Ball((0.0, 0.0), 1.0))
    line = SGD("x**2/2", variables=["x"], epsilon2=0.5)
    check_starts(((0.0,),), line, Interval(0.0, 1.0, ("left",)))
    with pytest.raises(InputError, match="not on its boundary"):
        check_starts(((0.0,),), line, Interval(0.0, 1.0))
    with pytest.raises(InputError, match="between"):
        check_starts(((1.0 + 1e-6,),), line, Interval(0.0, 1.0))


@pytest.mark.parametrize("path", DEMOS, ids=[str(path.relative_to(ROOT)) for path in DEMOS])
def test_demos_are_sound(path, comm):
    case = load_case(path, comm)
    assert case.title
    build(case, comm)


def test_the_case_file_of_the_design_is_data():
    """All of TOML's types reach the checks; nothing is evaluated on the way."""
    assert tomllib.loads(WHOLE)["process"]["loss"] == case_of(WHOLE).process.loss
