"""Certified lower bounds of the spectral gap: sharp in one dimension, right in others, false statements refused."""

import time

import numpy as np
import pytest
from flint import arb, arb_poly, ctx
from test_steady import reference_gap

import fpsolve as fp
from fpsolve.theory.certified.gap import derivatives, spectral_gap_bound, strength
from fpsolve.theory.certified.gap_line import Line, positive_everywhere
from fpsolve.theory.certified.gap_weights import Curvature, condition_holds
from fpsolve.theory.certified.generator import Coefficient
from fpsolve.theory.certified.polynomial import Polynomial, tensor

LINES = [
    ("(x**2 - 1)**2", lambda x: (x**2 - 1) ** 2, 0.2, -2.0, 2.0),
    ("(x**2 - 1)**2", lambda x: (x**2 - 1) ** 2, 1.0, -2.0, 2.0),
    ("x**2/2", lambda x: x**2 / 2, 0.3, -0.5, 2.0),
    ("sin(3*x) + x**2/2", lambda x: np.sin(3 * x) + x**2 / 2, 0.3, -2.0, 2.0),
]


@pytest.mark.parametrize(("formula", "loss", "s", "a", "b"), LINES)
def test_line_is_sharp(formula, loss, s, a, b):
    process = fp.SGD(formula, variables=["x"], epsilon2=s)
    found = spectral_gap_bound(process, fp.Interval(a, b))
    exact = reference_gap(loss, s, a, b)
    assert found.verified, found.reason
    assert exact * (1 - 1e-3) < found.value < exact * (1 - 1e-8)  # a theorem may not come out above


def test_brownian_motion_between_walls():
    """The gap is sπ²/l²."""
    found = spectral_gap_bound(fp.SGD("0*x", variables=["x"], epsilon2=0.5), fp.Interval(0.0, 2.0))
    assert found.verified
    exact = 0.5 * np.pi**2 / 4
    assert exact * (1 - 1e-3) < found.value < exact


def test_independent_coordinates():
    """The least of the gaps, exact as in one dimension."""
    process = fp.SGD("(x**2 - 1)**2 + 2*y**2", epsilon2=0.5)
    found = spectral_gap_bound(process, fp.Box((-2.0, -1.0), (2.0, 1.5)))
    exact = reference_gap(lambda x: (x**2 - 1) ** 2, 0.5, -2, 2)
    assert found.verified and found.theorem.startswith("Gap of independent")
    assert exact * (1 - 1e-3) < found.value < exact


def line_of(formula: str, s: float, a: float, b: float) -> Line:
    x, h = (arb(a) + arb(b)) / 2, (arb(b) - arb(a)) / 2
    loss = arb_poly([arb(c) for c in {"double well": [1, 0, -2, 0, 1]}[formula]])
    first = loss.derivative()
    shift = arb_poly([x, h])
    return Line(x, h, arb(s), first(shift), first.derivative()(shift), arb(0), arb(0))


def test_line_refuses_false_statements():
    process = fp.SGD("(x**2 - 1)**2", variables=["x"], epsilon2=0.5)
    found = spectral_gap_bound(process, fp.Interval(-2.0, 2.0))
    with ctx.workprec(500):
        line = line_of("double well", 0.5, -2.0, 2.0)
        parts = found.functions[0].coefficients
        assert positive_everywhere(line, found.value, parts)
        assert not positive_everywhere(line, found.computed * (1 + 1e-6), parts)  # above the gap
        assert not positive_everywhere(line_of("double well", 0.45, -2.0, 2.0), found.value, parts)
        assert not positive_everywhere(line, found.value, tuple(-p for p in parts))  # g < 0
        changed = np.array(parts[0])
        changed[40] += 1e-3
        assert not positive_everywhere(line, found.value, (changed, *parts[1:]))
        changed[40] = np.nan
        assert not positive_everywhere(line, found.value, (changed, *parts[1:]))
        vague = Line(line.middle, line.half, line.diffusion, line.slope, line.curvature, arb(1), arb(0))
        assert not positive_everywhere(vague, found.value, parts)  # L' known up to 1 only


def curvature_of(process: fp.Process, domain: fp.Box | fp.Ball) -> Curvature:
    lower, upper = (tuple(map(float, v)) for v in domain.bounding_box())
    found = derivatives(process.landscape.loss_formula, lower, upper, 5.0)

    def made(s: object) -> Coefficient:
        return Coefficient(Polynomial(lower, upper, tensor(s.coefficients, tuple(s.shape))), s.error)

    return Curvature(domain, strength(process), [made(c) for c in found.drift], [made(c) for c in found.diffusion])


def test_coupled_coordinates():
    """0.89 or more of the gap 1.58796 (finite elements), where Bakry and Émery give 0.793; then false statements."""
    process, box = fp.SGD("x**2/2 + y**2 + x*y/2", epsilon2=0.5), fp.Box((-1.0, -1.0), (1.0, 1.0))
    found = spectral_gap_bound(process, box, budget=3.0)
    assert found.verified, found.reason
    assert 1.2 < found.value < 1.58795
    weights = [f.coefficients[0] for f in found.functions[:2]]
    fixed = [f.coefficients[0] for f in found.functions[2:]]
    later = time.monotonic() + 10
    with ctx.workprec(128):
        curvature = curvature_of(process, box)
        assert condition_holds(curvature, found.value, weights, fixed, later)
        assert not condition_holds(curvature, found.value * 1.1, weights, fixed, later)
        assert not condition_holds(curvature, found.value, weights[::-1], fixed, later)
        assert not condition_holds(curvature, found.value, weights, [-h for h in fixed], later)
        falling = weights[0].copy()
        falling[0, 1] += 0.5  # ψ_1 falls towards the lower side across y
        assert not condition_holds(curvature, 0.0, [falling, weights[1]], fixed, later)


def test_disc():
    """Better than Bakry and Émery's 1, whose proof ignores the curvature of the circle; the gap is 2.17234."""
    process, disc = fp.SGD("x**2/2 + y**2/2", epsilon2=0.5), fp.Ball((0.0, 0.0), 1.0)
    found = spectral_gap_bound(process, disc, budget=4.0)
    assert found.verified and 1.4 < found.value < 2.1723
    with ctx.workprec(128):
        curvature = curvature_of(process, disc)
        weight = found.functions[0].coefficients[0]
        assert not condition_holds(curvature, found.value, [2 * weight], (), time.monotonic() + 10)  # falls too steeply


def test_reasons():
    box = fp.Box((-1.0, -1.0), (1.0, 1.0))
    assert "a = sI" in spectral_gap_bound(fp.SGD("x**2 + y**2", [["1", "0"], ["0", "2"]], epsilon2=0.1), box).reason
    level = fp.Sublevel(fp.SGD("x**2 + y**2", epsilon2=0.1).landscape, 0.5, (0.0, 0.0), (-1.0, -1.0), (1.0, 1.0))
    found = spectral_gap_bound(fp.SGD("x**2 + y**2", epsilon2=0.1), level)
    assert not found.verified and "convex" in found.reason
    assert "interval" in spectral_gap_bound(fp.SGD("x**2", variables=["x"], epsilon2=0.1), fp.Ball((0.1,), 1.0)).reason
    found = spectral_gap_bound(fp.SGD("x**2/2", variables=["x"], epsilon2=0.3), fp.Interval(-1.0, 1.0), budget=1e-9)
    assert not found.verified and found.value == 0.0
