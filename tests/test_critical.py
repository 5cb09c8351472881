"""Critical points and their proofs, heights between minima: against known lists, and what must not be proved."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from flint import arb
from scipy.ndimage import label

import fpsolve as fp
from fpsolve.errors import InputError
from fpsolve.model.condense import condensed
from fpsolve.model.process import formula_landscape
from fpsolve.model.samples import sample_landscape
from fpsolve.theory.balls import box_balls
from fpsolve.theory.cover import BoxCover
from fpsolve.theory.critical import critical_points
from fpsolve.theory.derivatives import derivatives_of
from fpsolve.theory.heights import communication_heights
from fpsolve.theory.levels import separates
from fpsolve.theory.newton import EMPTY, UNIQUE, examine, inertia
from fpsolve.theory.search import Budget
from fpsolve.theory.zeros import Isolated, isolate_all

CAMEL = "(4 - 2.1*x**2 + x**4/3)*x**2 + x*y + (-4 + 4*y**2)*y**2"
CAMEL_BOX = ((-3.0, -2.0), (3.0, 2.0))
HIMMELBLAU = "(x**2 + y - 11)**2 + (x + y**2 - 7)**2"


def landscape(loss: str, variables: str = "xy"):
    return formula_landscape(loss, "identity", tuple(variables))


@pytest.fixture(scope="module")
def camel():
    return critical_points(landscape(CAMEL), CAMEL_BOX)


@pytest.fixture(scope="module")
def himmelblau():
    return critical_points(landscape(HIMMELBLAU), ((-6.0, -6.0), (6.0, 6.0)))


@pytest.fixture(scope="module")
def data():
    """The two-parameter model with its 600 samples."""
    columns = fp.read_csv("demos/two_parameter_model/data.csv", ["x", "y"])
    return sample_landscape("a**2 + x*(1 + b/(1 + exp(-a*x)))", ["a", "b"], ["x"], "y", "(model - y)**2/2", columns)


def count(points, kind: str) -> int:
    return sum(p.kind == kind for p in points.points)


def certified(points) -> bool:
    """Whether every point has a proof with a tiny box round the point."""
    proofs = [(p, p.certificate) for p in points.points]
    return all(
        c is not None
        and c.index_proved
        and np.all((c.lower <= p.x) & (p.x <= c.upper) & (c.region_lower <= c.lower) & (c.upper <= c.region_upper))
        and np.all(c.upper - c.lower < 1e-12)
        and c.loss_lower - 1e-13 <= p.loss <= c.loss_upper + 1e-13
        for p, c in proofs
    )


# --- known lists ---------------------------------------------------------------------------------------


def test_double_well():
    points = critical_points(landscape("(x**2 - 1)**2 + y**2"), ((-2, -2), (2, 2)))
    assert points.complete and points.reason == "" and points.undecided.count == 0
    assert certified(points)
    assert [p.kind for p in points.points] == ["minimum", "minimum", "saddle"]
    assert np.allclose([p.x for p in points.points], [[-1, 0], [1, 0], [0, 0]], atol=1e-15)
    assert np.allclose(points.points[2].eigenvalues, [-4, 2]) and points.points[2].index == 1
    height = communication_heights(points).between(0, 1)
    assert height.level == pytest.approx(1.0, abs=1e-15) and height.exact and height.direct
    assert 0.998 <= height.lower <= 1.0


def test_a_polynomial_in_one_variable_has_the_roots_of_its_derivative():
    wells = np.polynomial.Polynomial.fromroots([-2, -1.2, 0.3, 1.1, 2.5]).integ()
    loss = " + ".join(f"{c!r}*x**{k}" for k, c in enumerate(wells.coef.tolist()))
    points = critical_points(landscape(loss, "x"), ((-3.5,), (3.5,)))
    assert points.complete and certified(points)
    assert np.allclose(sorted(p.x[0] for p in points.points), [-2, -1.2, 0.3, 1.1, 2.5], atol=1e-12)
    assert count(points, "minimum") == 3 and count(points, "maximum") == 2
    heights = communication_heights(points)
    x = [p.x[0] for p in points.minima]
    for h in heights.pairs:  # in one dimension the height is the largest maximum between the two
        ends = sorted((x[h.first], x[h.second]))
        between = [p.loss for p in points.saddles if ends[0] < p.x[0] < ends[1]]
        assert h.level == pytest.approx(max(between), abs=1e-12)
        assert h.exact and h.lower is not None and h.lower <= h.level


def test_six_hump_camel(camel):
    assert camel.complete and certified(camel)
    assert len(camel.points) == 15
    kinds = [count(camel, kind) for kind in ("minimum", "saddle", "maximum")]
    assert kinds == [6, 7, 2] and kinds[0] - kinds[1] + kinds[2] == 1  # Morse: -∇L points into the box
    assert camel.points[0].loss == pytest.approx(-1.031628453489877, abs=1e-14)
    assert np.allclose(np.abs(camel.points[0].x), [0.08984201368301331, 0.7126564032704135], atol=1e-12)


def test_himmelblau(himmelblau):
    assert himmelblau.complete and certified(himmelblau)
    assert [count(himmelblau, kind) for kind in ("minimum", "saddle", "maximum")] == [4, 4, 1]
    known = [[3, 2], [-2.805118086952745, 3.131312518250573], [-3.779310253377747, -3.283185991286170],
             [3.584428340330492, -1.848126526964404]]  # fmt: skip
    found = np.array([p.x for p in himmelblau.minima])
    assert all(np.linalg.norm(found - x, axis=1).min() < 1e-12 for x in known)
    (top,) = (p for p in himmelblau.points if p.kind == "maximum")
    assert np.allclose(top.x, [-0.270845, -0.923039], atol=1e-6) and top.loss == pytest.approx(181.617, abs=1e-3)


def test_three_dimensions():
    points = critical_points(landscape("(x**2-1)**2 + (y**2-1)**2 + z**2 + x*y*z/4", "xyz"), ((-2,) * 3, (2,) * 3))
    assert points.complete and certified(points)
    indices = [p.index for p in points.points]
    assert sorted(indices) == [0, 0, 0, 0, 1, 1, 1, 1, 2] and sum((-1) ** k for k in indices) == 1
    assert all(np.abs(p.gradient).max() < 1e-13 for p in points.points)


def test_a_ball_lists_its_own_points_only():
    points = critical_points(landscape(CAMEL), fp.Ball((0.0, 0.0), 0.8))
    assert points.complete and len(points.points) == 3  # two minima and the saddle between them


def test_a_point_on_the_boundary_belongs_to_the_box():
    points = critical_points(landscape("(x**2 - 1)**2 + y**2"), ((-1, -1), (2, 0)))
    assert points.complete and len(points.points) == 3


# --- data ----------------------------------------------------------------------------------------------


def test_two_parameter_model(data):
    points = critical_points(data, ((-8.0, -2.0), (4.0, 8.0)))
    assert points.complete and certified(points) and points.boxes < 1000
    true, spurious, saddle = points.points
    assert np.allclose(true.x, [1.0706, 4.9884], atol=1e-4) and true.loss == pytest.approx(1.4754, abs=1e-4)
    assert np.allclose(spurious.x, [-5.63687, 2.96346], atol=1e-5) and spurious.loss == pytest.approx(206.25, abs=1e-3)
    assert np.allclose(spurious.eigenvalues, [21.898, 145.28], rtol=1e-4)
    assert np.allclose(saddle.x, [-0.29433, 0.15420], atol=1e-5) and saddle.loss == pytest.approx(519.546, abs=1e-3)
    assert [p.kind for p in points.points] == ["minimum", "minimum", "saddle"]


def logistic(seed: int = 3):
    rng = np.random.default_rng(seed)
    columns = {"x": np.repeat(rng.normal(size=6), [1, 2, 3, 4, 5, 9]), "y": rng.choice([-1.0, 1.0], 24)}
    return sample_landscape("a*x + b", ["a", "b"], ["x"], "y", "log(1 + exp(-y*model)) + model**2/50", columns)


def unequal(seed: int = 4):
    rng = np.random.default_rng(seed)
    x = np.repeat(rng.normal(size=6), [1, 2, 3, 4, 5, 9])
    return sample_landscape("a*x + b**2*x**2", ["a", "b"], ["x"], "y", None, {"x": x, "y": rng.normal(size=24)})


@pytest.mark.parametrize("made", [logistic, unequal, None])
def test_terms_that_are_taken_together_have_the_same_derivatives(made, data):
    loss = data if made is None else made()
    short, full = derivatives_of(loss), loss.enclosure()
    assert len(short.target) < len(loss.target)
    x = np.random.default_rng(0).normal(size=(5, 2))
    for point in x:
        exact = [arb(float(c)) for c in point]
        gradient, hessian = short.gradient_and_hessian(exact)
        assert short.loss(exact).overlaps(full.loss(exact))
        assert all(a.overlaps(b) and a.rad() < 1e-9 for a, b in zip(gradient, full.gradient(exact), strict=True))
        assert all(a.overlaps(b) and a.rad() < 1e-9 for a, b in zip(hessian, full.hessian(exact), strict=True))
    fast = condensed(loss)
    assert np.allclose(fast.gradient(x), loss.gradient(x), rtol=1e-12)
    assert np.allclose(fast.hessian(x), loss.hessian(x), rtol=1e-12)


# --- what must not be proved ---------------------------------------------------------------------------


def test_random_boxes_are_never_certified_against_the_truth(camel):
    """Verdicts on boxes of all sizes agree with the number of critical points in them."""
    known = np.array([p.x for p in camel.points])
    derivatives = derivatives_of(camel.landscape)
    rng = np.random.default_rng(1)
    verdicts = {EMPTY: 0, UNIQUE: 0, "undecided": 0}
    several = 0
    for _ in range(600):
        centre = known[rng.integers(len(known))] + rng.normal(size=2) * 10 ** rng.uniform(-3, -0.5)
        half = 10 ** rng.uniform(-2.5, 0.2, size=2)
        lo, hi = centre - half, centre + half
        inside = int(np.sum(np.all((known > lo) & (known < hi), axis=1)))
        several += inside > 1
        verdict = examine(derivatives, lo, hi).kind
        verdicts[verdict] += 1
        assert verdict == "undecided" or inside == (0 if verdict == EMPTY else 1)
    assert several > 20 and verdicts[EMPTY] > 50 and verdicts[UNIQUE] > 20


@pytest.mark.parametrize("missing", [4, 5, 13])
def test_a_point_missing_from_the_list_is_noticed(camel, missing):
    """Newton's proposals are replaced by nothing: branch and bound alone must find it or leave its box undecided."""
    derivatives, cover = derivatives_of(camel.landscape), BoxCover(*(np.array(c) for c in CAMEL_BOX))
    proofs = [p.certificate for p in camel.points]
    known = [
        Isolated(p.x, (c.lower, c.upper), (c.region_lower, c.region_upper))
        for p, c in zip(camel.points, proofs, strict=True)
    ]
    x = known.pop(missing).x

    def nothing(y: np.ndarray) -> np.ndarray:
        return np.full_like(y, np.nan)

    for boxes in (3000, 20):
        again = isolate_all(derivatives, cover, known, Budget(np.inf, boxes), nothing)
        found = any(np.linalg.norm(zero.x - x) < 1e-9 for zero in again.zeros)
        open_ = any(np.all((lo <= x) & (x <= hi)) for lo, hi in again.undecided)
        assert found or open_
        assert again.exhausted == (boxes == 20)


def test_a_continuum_may_be_incomplete():
    points = critical_points(landscape("x**2*y**2"), ((-1, -1), (1, 1)), boxes=400)
    assert not points.complete and "400 boxes" in points.reason and points.boxes == 400
    assert [p.kind for p in points.points] == ["degenerate"] and points.points[0].certificate is None
    axis = np.linspace(-1, 1, 41)
    for x in np.concatenate([np.column_stack([axis, 0 * axis]), np.column_stack([0 * axis, axis])]):
        assert np.any(np.all((points.undecided.lower <= x) & (x <= points.undecided.upper), axis=1))
    assert 0 < points.undecided.share < 0.1


def test_a_degenerate_point_may_be_incomplete():
    points = critical_points(landscape("x**4 + y**2"), ((-1, -1), (1, 1.3)))
    assert not points.complete and "singular" in points.reason
    assert points.boxes < 1000 and points.undecided.measure < 1e-9
    assert [p.kind for p in points.points] == ["degenerate"]
    assert communication_heights(points).pairs == ()


def test_the_number_of_negative_eigenvalues_is_proved_or_not():
    box = np.array([-0.1, -0.1]), np.array([0.1, 0.1])
    assert inertia(derivatives_of(landscape("x**2 - y**2 + x*y/10")), box) == (1, 1)
    assert inertia(derivatives_of(landscape("x**2 + y**4")), box) is None
    assert inertia(derivatives_of(landscape("-x**2 - 3*x*y - 3*y**2")), box) == (2, 0)
    # eigenvalues 2 ± 2.0001: the sign of the small one needs the exact matrix
    assert inertia(derivatives_of(landscape("x**2 + y**2 + 2.0001*x*y")), box) == (1, 1)


@dataclass(frozen=True)
class Unenclosed:
    """A landscape without rigorous evaluations."""

    inner: object

    def __getattr__(self, name: str):
        return getattr(self.inner, name)

    def enclosure(self) -> None:
        return None


def test_without_enclosure_nothing_is_proved():
    points = critical_points(Unenclosed(landscape(CAMEL)), CAMEL_BOX)
    assert not points.complete and "no rigorous enclosure" in points.reason
    assert len(points.points) == 15 and all(p.certificate is None for p in points.points)
    heights = communication_heights(points)
    assert all(h.lower is None and not h.exact and "may be missing" in h.reason for h in heights.pairs)
    assert points.undecided.share == 1.0


# --- heights -------------------------------------------------------------------------------------------


def test_heights_agree_with_components_on_a_grid(himmelblau):
    """Just below its height a pair of minima lies in two components of {L < c} on a fine grid, just above in one."""
    heights = communication_heights(himmelblau)
    side = np.linspace(-6, 6, 1201)
    X, Y = np.meshgrid(side, side, indexing="ij")
    loss = himmelblau.landscape.loss(np.column_stack([X.ravel(), Y.ravel()])).reshape(X.shape)
    places = [tuple(np.searchsorted(side, c) for c in p.x) for p in himmelblau.minima]
    assert len(heights.pairs) == 6
    for h in heights.pairs:
        below, above = (label(loss < c)[0] for c in (0.999 * h.level, 1.001 * h.level))
        assert below[places[h.first]] != below[places[h.second]]
        assert above[places[h.first]] == above[places[h.second]]
        assert h.exact and 0.99 * h.level <= h.lower <= h.level


def test_a_lower_pass_outside_of_the_box_is_not_excluded():
    """A ring of a valley with a lower pass at x < 0, cut off: the height over the other one is no answer."""
    ring = landscape("(x**2 + y**2 - 1)**2 + x**2/5 + x/10")
    points = critical_points(ring, ((-0.5, -2.0), (2.0, 2.0)))
    height = communication_heights(points).between(0, 1)
    assert points.complete and not height.exact and "may leave the domain" in height.reason
    whole = communication_heights(critical_points(ring, ((-2.0, -2.0), (2.0, 2.0)))).between(0, 1)
    assert whole.exact and whole.level < height.level - 0.1
    assert height.lower is None or height.lower <= whole.level


def test_a_lower_pass_outside_of_the_ball_is_not_excluded():
    """The lower pass of a ring lies outside of the ball, but in the box round it."""
    ring = landscape("10*((x - 1/2)**2 + (y - 1/2)**2 - 0.1225)**2 - (x - y)**2/10 - (x + y)/50")
    points = critical_points(ring, fp.Ball((0.0, 0.0), 1.0))
    height = communication_heights(points).between(0, 1)
    assert points.complete and not height.exact and "may leave the domain" in height.reason
    whole = communication_heights(critical_points(ring, fp.Ball((0.5, 0.5), 0.45))).between(0, 1)
    assert whole.exact and whole.level < height.level - 0.01
    assert whole.level - 0.01 <= whole.lower <= whole.level


def test_separation_is_proved_below_the_saddle_only():
    well, box = derivatives_of(landscape("(x**2 - 1)**2 + y**2")), (np.array([-2.0, -2.0]), np.array([2.0, 2.0]))
    left, right = np.array([[-1.0, 0.0]]), np.array([[1.0, 0.0]])
    assert separates(well, box, 0.99, left, right, Budget(np.inf, 1000))
    assert not separates(well, box, 1.01, left, right, Budget(np.inf, 1000))
    assert not separates(
        well, (np.array([-1.2, -2.0]), box[1]), 0.9, left, right, Budget(np.inf, 1000)
    )  # it may go round outside
    assert separates(well, (np.array([-1.2, -2.0]), box[1]), 0.9, right, left, Budget(np.inf, 1000))


def test_eyring_kramers_times_are_given_besides():
    process = fp.SGD("(x**2 - 1)**2 + y**2", epsilon2=0.1)
    points = critical_points(process, ((-2, -2), (2, 2)))
    times = communication_heights(points, process).between(0, 1).times
    assert np.allclose(times, 2 * np.pi / 4 * np.sqrt(8 / 16) * np.exp(1 / 0.1), rtol=1e-12)
    noise = fp.SGD("(x**2 - 1)**2 + y**2", [["1 + x**2", "0"], ["0", "1"]], epsilon2=0.1)
    assert communication_heights(points, noise).between(0, 1).times is None


def test_descents_go_downhill_to_the_minima(camel):
    heights = communication_heights(camel, certify=False)
    assert len(heights.descents) == 7
    for step in heights.descents:
        assert -1 not in step.ends and step.ends[0] != step.ends[1]
        for path, end in zip(step.paths, step.ends, strict=True):
            loss = camel.landscape.loss(path)
            assert all(b < a + 1e-9 for a, b in pairwise(loss.tolist()))
            assert np.array_equal(path[-1], camel.minima[end].x)
    slope = critical_points(landscape("x**3/3 - x", "x"), ((-3,), (2,)))  # one side falls to -∞
    assert sorted(communication_heights(slope).descents[0].ends) == [-1, 0]


# --- wrong input ---------------------------------------------------------------------------------------


def test_wrong_input():
    well = landscape("(x**2 - 1)**2 + y**2")
    free = fp.diffusion_process(["-x"], [["1"]], ["x"])
    for ask, key in (
        (lambda: critical_points(free, ((-1,), (1,))), "process"),
        (lambda: critical_points(well, ((-1,), (1,))), "domain"),
        (lambda: critical_points(well, "box"), "domain"),
        (lambda: critical_points(well, ((1, 1), (0, 0))), "domain.upper"),
        (lambda: critical_points(well, ((-1, -1), (1, 1)), boxes=0), "boxes"),
        (lambda: critical_points(well, ((-1, -1), (1, 1)), budget=float("nan")), "budget"),
        (lambda: critical_points(landscape("abs(x) + y**2"), ((-1, -1), (1, 1))), "process.loss"),
    ):
        with pytest.raises(InputError) as error:
            ask()
        assert error.value.key == key


def test_boxes_enclose():
    lo, hi = np.array([0.2, -0.3]), np.array([0.4, 0.1])
    derivatives = derivatives_of(landscape(CAMEL))
    x = np.random.default_rng(2).uniform(lo, hi, (50, 2))
    gradient, hessian = derivatives.gradient_and_hessian(box_balls(lo, hi))
    for values, balls in ((landscape(CAMEL).gradient(x), gradient), (landscape(CAMEL).hessian(x), hessian)):
        assert all(
            ball.contains(arb(float(v))) for row in values.reshape(50, -1) for v, ball in zip(row, balls, strict=True)
        )
