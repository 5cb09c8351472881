"""Certified enclosures from the problem to the numbers: widths, reference values, limits, and finite elements."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from reference import (
    ball_ou_met,
    degenerate_disc_met,
    double_well_box_met,
    interval_met,
    interval_met_one_sided,
    product_survival,
    variable_interval_met,
)

import fpsolve as fp
from fpsolve.errors import InputError
from fpsolve.theory.certified.certificate import digest
from fpsolve.theory.certified.certify import CertifiedEnclosure, certify
from fpsolve.verify import check

WELL = "(x**2-1)**2+y**2"
ALONG_X = [["1", "0"], ["0", "0"]]
SMALL_BOX = fp.Box((-1.5, -0.75), (-0.25, 1.0))
MESHES = Path(__file__).parent.parent / "meshes"
LINE = fp.Interval(-1.0, 1.0)
DISC, SQUARE = fp.Ball((0.0, 0.0), 1.0), fp.Box((-1.0, -1.0), (1.0, 1.0))


def ou(epsilon2: float, d: int = 2, covariance: Any = "identity") -> fp.Process:
    names = ("x", "y", "z")[:d]
    return fp.SGD(" + ".join(f"{v}**2/2" for v in names), covariance, names, epsilon2=epsilon2)


def half_square(t):
    return t**2 / 2


def well_box(epsilon2: float) -> tuple[fp.Process, fp.Box]:
    return fp.SGD(WELL, epsilon2=epsilon2), fp.Box((-2.5, -2.0), (0.5, 2.0))


def sublevel() -> fp.Sublevel:
    return fp.Sublevel(fp.SGD(WELL, epsilon2=1.0).landscape, 0.5, (-1.0, 0.0), (-2.0, -1.5), (0.0, 1.5))


def consistent(found: CertifiedEnclosure) -> None:
    """What must hold of every result."""
    assert found.width == max(start.width for start in found.starts)
    for start in found.starts:
        assert 0 <= start.lower <= start.upper
        if math.isfinite(start.upper):
            # from the two floats, which are rounded outwards: a few units in the last place more
            assert 2 * (start.upper - start.lower) / (start.upper + start.lower) <= start.width + 2e-15
        else:
            assert start.width == 2.0
        points = np.array([start.x])
        if found.lower.verified:
            assert found.lower.evaluate(points)[0] <= start.upper
        if found.upper.verified:
            assert found.upper.evaluate(points)[0] >= start.lower
    assert (found.limited_by == "") == found.reached
    if found.certificate is not None:
        assert found.certificate["digest"] == digest(found.certificate)
        json.dumps(found.certificate, allow_nan=False)


def contains(found: CertifiedEnclosure, exact: Any, slack: float = 1e-11) -> None:
    consistent(found)
    for start, value in zip(found.starts, np.ravel(exact), strict=True):
        assert start.lower <= value * (1 + slack) and value * (1 - slack) <= start.upper


# --- widths ----------------------------------------------------------------------------------------------

CENTER = [0.0, 0.0]
#: Process, domain, start, width (of ../shared/certified-bounds.md or better), exact value or None.
TABLE = {
    **{
        f"line {e}": (ou(e, 1), LINE, [0.0], width, lambda e=e: interval_met(half_square, e, -1, 1, 0.0))
        for e, width in ((1.0, 4e-35), (0.1, 4e-14), (0.02, 5e-27))
    },
    **{
        f"disc {e}": (ou(e), DISC, CENTER, width, lambda e=e: ball_ou_met(0.0, 2, 1, e, 1))
        for e, width in ((1.0, 4e-12), (0.2, 2e-10), (0.1, 3.5e-6))
    },
    **{
        f"square, noise along x {e}": (
            ou(e, 2, ALONG_X), SQUARE, CENTER, width, lambda e=e: interval_met(half_square, e, -1, 1, 0.0)
        )
        for e, width in ((1.0, 1e-11), (0.2, 1.6e-9), (0.1, 2.8e-5))
    },
    "disc, noise along x": (
        ou(1.0, 2, ALONG_X), DISC, [0.0, 0.25], 2e-3, lambda: degenerate_disc_met(0.0, 0.25, 1.0)
    ),
    "disc, noise of rank one": (
        fp.SGD("(x**2+y**2)/2", [["1", "x/2"], ["x/2", "x**2/4"]], epsilon2=1.0), DISC, CENTER, 1.9e-3, None
    ),
    "double well, box, variable noise along x": (
        fp.SGD(WELL, [["1/2+x**2/2", "0"], ["0", "0"]], epsilon2=0.5),
        fp.Box((-1.5, -1.0), (0.0, 1.0)),
        [-1.0, 0.0],
        3e-10,
        lambda: variable_interval_met(lambda x: -4 * x * (x**2 - 1), lambda x: 0.25 * (1 + x**2), -1.5, 0.0, -1.0),
    ),
    "double well, box with corners": (
        fp.SGD(WELL, epsilon2=0.5),
        SMALL_BOX,
        [-1.0, 0.25],
        9e-3,
        lambda: product_survival(
            (lambda x: (x**2 - 1) ** 2, lambda y: y**2), (0.5, 0.5), ((-1.5, -0.25), (-0.75, 1.0)), -1.0, 0.25
        ),
    ),
    "reflecting end": (
        ou(0.1, 1), fp.Interval(0.0, 1.0, ("left",)), [0.25], 1e-12,
        lambda: interval_met_one_sided(half_square, 0.1, 0, 1, 0.25),
    ),
    "ball": (ou(0.5, 3), fp.Ball((0.0, 0.0, 0.0), 1.0), [0.0, 0.0, 0.0], 1e-5, lambda: ball_ou_met(0.0, 3, 1, 0.5, 1)),
}  # fmt: skip


@pytest.mark.serial
@pytest.mark.parametrize("name", TABLE)
def test_widths_and_exact_values(name):
    process, domain, start, width, exact = TABLE[name]
    found = certify(process, domain, width=width, budget=60.0, starts=[start])
    assert found.reached and found.width <= width, (found.width, found.limited_by)
    assert found.lower.verified and found.upper.verified and found.sources == (("certified", "certified"),)
    if exact is None:
        consistent(found)
    else:
        contains(found, exact())


@pytest.mark.serial
def test_several_starts_and_the_bounds_as_functions():
    x = [[0.0, 0.0], [0.5, 0.5], [-0.3, 0.6], [0.0, -0.9]]
    found = certify(ou(0.2), DISC, width=1e-6, starts=x)
    assert [list(start.x) for start in found.starts] == x and found.reached
    radius = np.linalg.norm(x, axis=1)
    contains(found, ball_ou_met(radius, 2, 1, 0.2, 1))
    many = np.random.default_rng(1).uniform(-0.7, 0.7, (500, 2))
    exact = ball_ou_met(np.linalg.norm(many, axis=1), 2, 1, 0.2, 1)
    low, high = found.lower.evaluate(many), found.upper.evaluate(many)
    assert np.all(low <= exact * (1 + 1e-11)) and np.all(exact * (1 - 1e-11) <= high)
    assert np.all(high - low <= 1e-5)
    assert {claim["kind"] for claim in found.certificate["claims"]} == {"lower", "upper"}
    assert len(found.certificate["starts"]) == 4


@pytest.mark.serial
@pytest.mark.parametrize(("size", "center"), [(1e-6, (0.0, 0.0)), (1e4, (0.0, 0.0)), (1.0, (1000.5, -500.25))])
def test_units_and_origin_do_not_matter(size, center):
    """X/size + center: the same times; far from the origin coordinates have fewer digits."""
    process = fp.SGD(f"((x-({center[0]}))**2 + (y-({center[1]}))**2)/2", epsilon2=0.5 * size**2)
    found = certify(process, fp.Ball(center, size), width=1e-8)
    assert found.reached
    contains(found, ball_ou_met(0.0, 2, 1, 0.5, 1))
    x = np.random.default_rng(1).uniform(-0.7, 0.7, (100, 2))
    exact = ball_ou_met(np.linalg.norm(x, axis=1), 2, 1, 0.5, 1)
    low, high = (bound.evaluate(np.array(center) + size * x) for bound in (found.lower, found.upper))
    assert np.all(low <= exact * (1 + 1e-11)) and np.all(exact * (1 - 1e-11) <= high) and np.all(high - low < 1e-7)


@pytest.mark.serial
def test_results_are_picklable_and_come_out_again():
    """Where the first candidate will do there is no race of methods, and two runs agree in every digit."""
    found, again = (certify(ou(0.5), SQUARE, width=0.2, budget=100.0) for _ in range(2))
    assert found.reached and (found.starts, found.certificate) == (again.starts, again.certificate)
    copy = pickle.loads(pickle.dumps(found))
    x = np.array([[0.1, 0.2]])
    assert copy.starts == found.starts and copy.certificate == found.certificate
    assert copy.upper.evaluate(x) == found.upper.evaluate(x)
    with pytest.raises(AttributeError):
        found.width = 0.0


@pytest.mark.serial
def test_default_starts_are_centres():
    assert certify(ou(0.5, 1), fp.Interval(-1.0, 2.0), width=0.1).starts[0].x == (0.5,)
    assert certify(ou(0.5), fp.Ball((0.25, 0.0), 0.5), width=0.1).starts[0].x == (0.25, 0.0)


def callable_process() -> fp.Process:
    landscape = fp.callable_landscape(
        lambda w, x: (w[0] - x) ** 2 / 2 + w[1] ** 2 / 2,
        {"x": np.array([-0.5, 0.0, 0.5])},
        ["x", "y"],
        lambda w, x: [w[0] - x, w[1]],
        lambda w, x: [[1.0, 0.0], [0.0, 1.0]],
    )
    return fp.sgd_process(landscape, fp.noise_level(epsilon2=0.5))


# --- limits ----------------------------------------------------------------------------------------------


@pytest.mark.serial
def test_a_budget_that_is_too_small_gives_a_valid_enclosure_and_says_so():
    exact = double_well_box_met(0.2, -1.0, 0.0)
    found = certify(*well_box(0.2), width=1e-13, budget=0.3, starts=[[-1.0, 0.0]])
    contains(found, exact)
    assert not found.reached and found.limited_by


@pytest.mark.serial
def test_what_is_not_proved_is_not_claimed():
    """Without a certified bound the paper's and the sharp ones are all there is."""
    found = certify(*well_box(0.1), width=1e-3, budget=0.2, starts=[[-1.0, 0.0]])
    contains(found, double_well_box_met(0.1, -1.0, 0.0), 1e-9)
    for start, (low, high) in zip(found.starts, found.sources, strict=True):
        assert (low == "") == (start.lower == 0) and (high == "") == math.isinf(start.upper)
    for bound in (found.lower, found.upper):
        assert bound.verified or bound.reason


@pytest.mark.serial
@pytest.mark.parametrize(
    ("process", "domain", "start", "words"),
    [
        (callable_process(), DISC, CENTER, "CallableLandscape"),
        (ou(0.5), fp.MeshFile(str(MESHES / "l_shape.msh"), 2), [-0.5, -0.5], "MeshFile"),
        (ou(0.5), fp.Moved(DISC, lambda x, n: 0.1 + 0 * x[:, 0]), CENTER, "Moved"),
        (ou(0.5, 2, ALONG_X), fp.Box((-1.0, -1.0), (1.0, 1.0), ("left", "right")), CENTER, "cannot leave"),
        (ou(0.5, 1), fp.Interval(-1.0, 1.0, ("left", "right")), [0.0], "cannot leave"),
    ],
)
def test_reasons_where_nothing_is_certified(process, domain, start, words):
    found = certify(process, domain, width=1e-3, budget=10.0, starts=[start])
    consistent(found)
    assert words in found.limited_by and not found.reached and found.certificate is None
    assert not found.lower.verified and not found.upper.verified
    assert "certified" not in {source for pair in found.sources for source in pair}


@pytest.mark.serial
@pytest.mark.parametrize(
    ("options", "key"),
    [
        *[({"width": w}, "bounds.width") for w in (0, -1.0, math.nan, math.inf, True, "1e-2")],
        *[({"budget": b}, "bounds.budget") for b in (0, -1.0, math.nan, math.inf, False, None)],
        *[({"starts": s}, "exit.starts") for s in ([[2, 0]], [[0]], [], [[math.nan, 0]], [[0, 0], [1, 1]])],
    ],
)
def test_wrong_inputs(options, key):
    with pytest.raises(InputError) as error:
        certify(ou(0.5), DISC, **options)
    assert error.value.key == key


# --- against finite elements -----------------------------------------------------------------------------


def samples() -> fp.Process:
    """Twenty points, a parameter of a slope and one of a sine."""
    x = np.linspace(-1.5, 1.5, 20)
    data = {"x": x, "y": 0.5 * x + 0.25 * np.sin(3 * x)}
    landscape = fp.sample_landscape("a*x + b*sin(2*x)", ["a", "b"], ["x"], "y", None, data)
    return fp.sgd_process(landscape, fp.noise_level(learning_rate=0.5, batch_size=2, samples=20, extra_noise=0.5))


#: Process, domain, starts, the enclosure's width, and the finite elements' tolerance.
PROBLEMS = {
    "disc": (ou(0.2), DISC, [[0.0, 0.0], [0.3, 0.4]], 1e-6, 1e-5),
    "box with corners": (fp.SGD(WELL, epsilon2=0.5), SMALL_BOX, [[-1.0, 0.0], [-0.5, 0.5]], 1e-2, 1e-5),
    "square, noise along x": (ou(0.2, 2, ALONG_X), SQUARE, [[0.0, 0.0], [0.3, 0.5]], 1e-6, 1e-5),
    "disc, noise along x": (ou(1.0, 2, ALONG_X), DISC, [[0.0, 0.25], [0.5, 0.5]], 1e-2, 1e-4),
    "disc, noise of rank one": (
        fp.SGD("(x**2+y**2)/2", [["1", "x/2"], ["x/2", "x**2/4"]], epsilon2=1.0),
        DISC,
        [[0.0, 0.0], [0.5, 0.25]],
        5e-3,
        1e-4,
    ),
    "level set": (fp.SGD(WELL, epsilon2=1.0), sublevel(), [[-1.0, 0.0], [-1.1, 0.3]], 1e-2, 1e-5),
    "data": (samples(), fp.Ball((0.5, 0.25), 0.5), [[0.5, 0.25]], 1e-2, 1e-5),
    "reflecting sides": (
        fp.SGD(WELL, epsilon2=0.5),
        fp.Box((-1.0, 0.0), (0.5, 1.0), ("left", "bottom")),
        [[-0.9, 0.1]],
        1e-2,
        1e-5,
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_finite_elements_lie_in_the_enclosure(name, comm: MPI.Intracomm):
    """At the starts to within the reported error, and at all mesh points; rank 0 makes the enclosure."""
    process, domain, starts, width, tolerance = PROBLEMS[name]
    found = certify(process, domain, width=width, budget=30.0, starts=starts) if comm.rank == 0 else None
    found = comm.bcast(found, root=0)
    consistent(found)
    assert found.width <= width, found.limited_by
    result = fp.mean_exit_time(process, domain, comm=comm, starts=starts, tolerance=tolerance)
    assert result.converged
    for start, value, error in zip(found.starts, result.mean, result.error[:, 0], strict=True):
        assert start.lower - 3 * error <= value <= start.upper + 3 * error
    comparison = fp.compare(result, [found.lower, found.upper])
    assert [margin.kind for margin in comparison.margins] == ["lower", "upper"]
    assert comparison.violated == 0 and all(margin.violations == 0 for margin in comparison.margins)


def test_enclosures_do_not_depend_on_the_rank(comm: MPI.Intracomm):
    """Each rank by itself: the same digits."""
    found = certify(ou(0.5, 1), LINE, width=1e-20, budget=100.0)
    assert len(set(comm.allgather(found.certificate["digest"]))) == 1
    square = certify(ou(0.5, 2, ALONG_X), SQUARE, width=0.2, budget=100.0)
    assert len(set(comm.allgather(square.certificate["digest"]))) == 1


def test_the_best_function_in_one_dimension_is_the_one_that_is_claimed() -> None:
    """Bounds that differ beyond the digits of floats: the certificate's numbers follow from its own functions."""
    process = fp.SGD(loss="x**2/2", variables=("x",), epsilon2=1.0)
    found = certify(process, fp.Interval(-1.0, 1.0), width=1e-30)
    assert len(found.attempts) > 1 and found.width < 1e-30
    verdict = check(json.dumps(found.certificate))
    assert verdict.accepted, verdict.reason


def test_the_domain_has_as_many_dimensions_as_the_process() -> None:
    with pytest.raises(InputError, match="2 dimensions, those of x, y"):
        certify(fp.SGD(loss="x**2 + y**2", epsilon2=0.5), fp.Interval(-1.0, 1.0))
