"""Rational approximations of the exponential: order, L-stability, and the identities the limiter and the error use."""

from __future__ import annotations

import numpy as np
import pytest

from fpsolve.fem.rational import CRANK_NICOLSON, HALF_STEPS, Rational, l_stable

METHODS = [l_stable(order) for order in (1, 2, 3, 4)]


@pytest.mark.parametrize("method", [*METHODS, CRANK_NICOLSON, HALF_STEPS], ids=lambda m: m.name)
def test_order(method: Rational) -> None:
    z = np.array([-0.1, -0.05, -0.025])
    errors = np.abs([method(x) - np.exp(x) for x in z])
    slopes = np.diff(np.log(errors)) / np.diff(np.log(np.abs(z)))
    assert np.all(slopes > method.order + 0.75)
    assert np.all(slopes < method.order + 1.6)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_l_stable(method: Rational) -> None:
    """|R| <= 1 on the imaginary axis, no pole in the left half-plane, R(∞) = 0: hence L-stable."""
    y = np.concatenate([np.linspace(0, 50, 20001), np.logspace(1.7, 8, 400)])
    assert np.max(np.abs(method(1j * y))) <= 1 + 1e-14
    assert method.pole > 0
    assert method.weights[0] == 0.0
    assert abs(method(-1e9)) < 1e-8


@pytest.mark.parametrize("method", [*METHODS, CRANK_NICOLSON, HALF_STEPS], ids=lambda m: m.name)
def test_average(method: Rational) -> None:
    """R(z) - 1 = z Σ c_j (1-γz)^{-j}: the flux form of a step."""
    for z in (-0.3, -2.0 + 1.0j, -50.0):
        powers = [(1 - method.pole * z) ** -j for j in range(1, method.solves + 1)]
        average = np.dot(method.average, powers)
        assert abs(method(z) - 1 - z * average) < 1e-12


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_error_is_of_one_order_less(method: Rational) -> None:
    """It falls like z^k, never below the true error, and stays bounded for stiff components."""
    z = np.array([-0.2, -0.1, -0.05])
    estimates = np.abs([sum(e * (1 - method.pole * x) ** -j for j, e in enumerate(method.error)) for x in z])
    slopes = np.diff(np.log(estimates)) / np.diff(np.log(np.abs(z)))
    assert np.all(np.abs(slopes - method.order) < 0.5)
    assert np.all(estimates >= np.abs([method(x) - np.exp(x) for x in z]))
    assert abs(method.error[0]) < 3.0
