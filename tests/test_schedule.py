"""ε²(t) from learning rate and batch size: numbers worked out by hand."""

import math

import numpy as np
import pytest

import fpsolve as fp
from fpsolve.errors import InputError
from fpsolve.model.schedule import Schedule, schedule_from

KEY = "process.schedule"


def test_nothing_changes():
    """η = 0.1, b = 3 of the process itself: θ is exactly 1, although 0.1/6 is no binary number."""
    level = fp.noise_level(learning_rate=0.1, batch_size=3)
    for eta in (0.1, "0.1", [[0, 0.1]]):
        assert schedule_from(eta, 3, level.epsilon2) == Schedule()
    for eta, b in [(0.7, 3), (0.3, 11), (1e-3, 7), (0.11, 96), (2 / 3, 5)]:
        assert schedule_from(eta, b, eta / (2 * b)).constant
    assert Schedule().constant and Schedule().piecewise
    assert (Schedule().theta(0.3, 1e9), Schedule().largest(7.0), Schedule().final(7.0)) == (1.0, 1.0, 1.0)
    assert Schedule().variation(0.0, 5.0) == 0.0


def test_batch_size_in_steps():
    """ε² = 0.2/2 at b = 1: b = 1, 4, 2 from t = 0, 1, 3 on."""
    s = schedule_from(0.2, [[0, 1], [1, 4], [3.0, 2]], 0.1)
    assert s == Schedule((1.0, 3.0), (1.0, 0.25, 0.5))
    assert s.piecewise and not s.constant
    assert (s.theta(0.0, 1.0), s.theta(1.0, 0.5), s.theta(2.5, 0.5), s.theta(3.0, 1.0)) == (1.0, 0.25, 0.25, 0.5)
    assert (s.final(1.0), s.final(1.0 + 1e-12), s.final(3.0), s.final(9.0)) == (1.0, 0.25, 0.25, 0.5)
    assert (s.largest(0.5), s.largest(9.0)) == (1.0, 1.0)
    assert s.variation(1.0, 1.5) == 0.0


def test_largest_looks_no_further_than_asked():
    s = schedule_from([[0, 0.1], [2, 0.3]], 1, 0.05)
    assert s.values == pytest.approx((1.0, 3.0), rel=1e-15)
    assert s.largest(1.9) == s.largest(2.0) == 1.0  # up to the jump, not beyond it
    assert s.largest(2.1) == pytest.approx(3.0, rel=1e-15)


def test_both_in_steps():
    """θ at 0, 1, 2, 3: 1, 1/2 (b doubled), 1/4 (η halved), and at 3 both go back together: no break."""
    s = schedule_from([[0, 0.4], [2, 0.2], [3, 0.1]], [[0, 1], [1, 2], [3, 1]], 0.2)
    assert s == Schedule((1.0, 2.0), (1.0, 0.5, 0.25))


def test_a_number_different_from_the_process():
    s = schedule_from(0.3, 1, 0.05)
    assert not s.constant and s.piecewise
    assert s.theta(4.0, 0.1) == s.final(0.0) == pytest.approx(3.0, rel=1e-15)


def test_formula():
    """θ = e^{-t}: midpoint value, variation e^{dt/2} - 1, largest at 0."""
    s = schedule_from("0.1*exp(-t)", 1, 0.05, until=10.0)
    assert not s.piecewise and not s.constant and s.breaks == ()
    assert s.theta(1.0, 0.5) == pytest.approx(math.exp(-1.25), rel=1e-14)
    assert s.variation(1.0, 0.5) == pytest.approx(math.expm1(0.25), rel=1e-13)
    assert s.final(2.0) == pytest.approx(math.exp(-2), rel=1e-14)
    assert s.largest(5.0) == pytest.approx(1.0, rel=1e-14)


def test_midpoint_is_of_second_order():
    """The noise put in, Σ θ dt, against ∫θ = 1 - e^{-2} and arctan-like growth: errors fall by 4."""
    s = schedule_from("0.1*exp(-t)", 1, 0.05)
    errors = []
    for n in (10, 20):
        t = np.linspace(0, 2, n + 1)
        errors.append(abs(sum(s.theta(a, 2 / n) for a in t[:-1]) * 2 / n - (1 - math.exp(-2))))
    assert errors[0] / errors[1] == pytest.approx(4.0, abs=0.02)


def test_largest_of_a_formula_with_a_peak_inside():
    s = schedule_from("0.1*(1 + 3*exp(-50*(t - 0.7)**2))", 1, 0.05)
    assert s.largest(0.5) == pytest.approx(1 + 3 * math.exp(-50 * 0.04), rel=1e-12)
    assert s.largest(2.0) == pytest.approx(4.0, rel=1e-6)


def test_formula_and_steps_together():
    """η = 0.1 (1 + t), b = 1 then 5: θ = 1 + t before 2, (1 + t)/5 after."""
    s = schedule_from("0.1*(1 + t)", [[0, 1], [2, 5]], 0.05, until=4.0)
    assert s.breaks == (2.0,) and s.values == () and not s.constant
    assert s.theta(1.0, 1.0) == pytest.approx(2.5, rel=1e-15)
    assert s.theta(2.0, 1.0) == pytest.approx(3.5 / 5, rel=1e-15)
    assert s.final(2.0) == pytest.approx(3.0, rel=1e-15)
    assert s.largest(4.0) == pytest.approx(3.0, rel=1e-15)
    assert s.variation(2.0, 1.0) == pytest.approx(0.5 / 3.5, rel=1e-14)


def test_batch_formula_need_not_be_integer():
    s = schedule_from(0.1, "1 + t/2", 0.05, until=3.0)
    assert s.theta(0.5, 0.0) == pytest.approx(0.8, rel=1e-15)


def test_the_representation_tells_schedules_apart():
    """It stands in checkpoints, where another schedule must be another text."""
    texts = [repr(schedule_from(eta, 1, 0.05)) for eta in (0.1, "0.1*exp(-t)", "0.1*exp(-2*t)", [[0, 0.1], [1, 0.2]])]
    assert len(set(texts)) == 4
    assert repr(schedule_from("0.1*exp(-t)", 1, 0.05)) == texts[1]


@pytest.mark.parametrize(
    ("eta", "batch", "where", "why"),
    [
        (0.0, 1, "learning_rate", "a positive number"),
        (-0.1, 1, "learning_rate", "a positive number"),
        (True, 1, "learning_rate", "a positive number"),
        (None, 1, "learning_rate", "a positive number"),
        (math.nan, 1, "learning_rate", "a positive number"),
        (0.1, 0, "batch_size", "a positive number"),
        (0.1, 0.5, "batch_size", "an integer of at least 1"),
        (0.1, 2.5, "batch_size", "an integer of at least 1"),
        (0.1, "1/2", "batch_size", "at least 1"),
        ("-1", 1, "learning_rate", "a positive number"),
        ("0.1*x", 1, "learning_rate", "Unknown symbol 'x'"),
        ("__import__('os')", 1, "learning_rate", "not a known function"),
        ("1/t", 1, "learning_rate", "positive up to t = 10"),
        ("1 - t", 1, "learning_rate", r"= 0 at t = 1"),
        ("exp(1000*t)", 1, "learning_rate", "= inf at"),
        (0.1, "2 - t", "batch_size", "at least 1 up to t = 10"),
        (0.1, "exp(-1000*t) + 1 - t", "batch_size", "at least 1"),
        ([], 1, "learning_rate", "pairs"),
        ([0.1, 0.2], 1, "learning_rate", "pairs"),
        ([[0, 0.1, 3]], 1, "learning_rate", "pairs"),
        ([[1, 0.1]], 1, "learning_rate", "begins at time 0"),
        ([[0, 0.1], [0, 0.2]], 1, r"learning_rate\[1\]", "later than 0"),
        ([[0, 0.1], [2, 0.2], [1, 0.3]], 1, r"learning_rate\[2\]", "later than 2"),
        ([[0, 0.1], [-1, 0.2]], 1, r"learning_rate\[1\]", "a time of at least 0"),
        ([["0", 0.1]], 1, r"learning_rate\[0\]", "a time of at least 0"),
        ([[0, 0.1], [1, -0.2]], 1, r"learning_rate\[1\]", "a positive number"),
        (0.1, [[0, 1], [1, 1.5]], r"batch_size\[1\]", "an integer of at least 1"),
    ],
)
def test_wrong_input(eta, batch, where, why):
    with pytest.raises(InputError, match=rf"^process\.schedule\.{where} = .*{why}"):
        schedule_from(eta, batch, 0.05, until=10.0)


def test_wrong_base():
    with pytest.raises(InputError, match="epsilon2 = 0"):
        schedule_from(0.1, 1, 0)


def test_a_formula_that_fails_beyond_what_was_checked():
    s = schedule_from("1 - t", 1, 0.5, until=0.5)
    assert s.theta(0.0, 0.5) == 0.75
    with pytest.raises(InputError, match=r"ε² times -0\.5 at t = 1\.5"):
        s.theta(1.0, 1.0)
    with pytest.raises(InputError, match="finite positive noise"):
        s.check(3.0)
