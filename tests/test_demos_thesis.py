"""The demo of the thesis' chapter 5: what it claims, with few rates and coarse meshes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from test_demos import DEMOS, assert_drawn


@pytest.fixture(scope="module")
def chapter() -> Iterator[dict[str, ModuleType]]:
    sys.path.insert(0, str(DEMOS / "thesis"))
    names = ("covariance", "escape", "landscape", "model", "paths", "report", "stationary")
    yield {name: importlib.import_module(f"chapter5.{name}") for name in names}
    sys.path.remove(str(DEMOS / "thesis"))


@pytest.fixture(scope="module")
def model(chapter: dict[str, ModuleType]) -> Any:
    return chapter["model"].two_parameter_model()


def test_landscape_and_covariance(
    chapter: dict[str, ModuleType], model: Any, comm: MPI.Comm, shared_path: Path
) -> None:
    if comm.rank == 0:  # as in the demo
        report = chapter["report"].Report(shared_path)
        chapter["landscape"].run(model, report, 61)
        found = chapter["covariance"].run(model, report, 31)
        report.write()
        # Table 5.1 is 2LH with (1/N)Σr² for L and the Hessian of Σr² for H, up to the draw of the data
        printed = chapter["covariance"].DIFFERENCES
        assert all(found[name]["unscaled"] == pytest.approx(printed[name], rel=0.12) for name in printed)
        assert found["true"]["own"] < 0.15 < 0.4 < found["spurious"]["own"] and found["saddle"]["true"] > 60
        text = (shared_path / "tables.md").read_text(encoding="utf-8")
        assert "does not hold" in text and "Table 5.1" in text
    for name in ("5_1", "5_2", "5_3", "5_4"):
        assert_drawn(comm, shared_path / f"fig_{name}.png")


def test_critical_points(model: Any) -> None:
    assert model.complete
    np.testing.assert_allclose(model.spurious.x, (-5.63687, 2.96346), atol=1e-5)
    losses = [point.loss for point in (model.true, model.spurious, model.saddle)]
    np.testing.assert_allclose(losses, (1.4754, 206.250, 519.546), rtol=1e-4)


def test_formula_with_one_term_per_input_is_the_same_loss(model: Any) -> None:
    x = np.random.default_rng(0).uniform((-8, -3), (4, 9), (50, 2))
    np.testing.assert_allclose(model.like_true.loss(x), model.landscape.loss(x), rtol=1e-12)
    np.testing.assert_allclose(model.like_true.gradient(x), model.landscape.gradient(x), rtol=1e-10, atol=1e-9)
    noise = 2 * model.landscape.loss(x)[:, None, None] * model.true.hessian
    np.testing.assert_allclose(model.like_true.covariance(x), noise, rtol=1e-9)


def test_escape(
    chapter: dict[str, ModuleType], model: Any, comm: MPI.Comm, shared_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    escape, report = chapter["escape"], chapter["report"].Report(shared_path)
    monkeypatch.setattr(escape, "DIFFUSION_RATES", (2e-3, 1e-3))
    monkeypatch.setattr(escape, "CHAIN_RATES", (2e-3, 1e-3))
    monkeypatch.setattr(escape, "PRINTED", escape.PRINTED[:2])
    monkeypatch.setattr(escape, "CROSSING_RATES", (4e-3, 8e-3, 1e-2))
    found = escape.run(model, report, comm, paths=60, steps=1e5, tolerance=0.1, operator_size=0.4, quick=True)
    lines = found["lines"]
    # reference: the full run at tolerance 1e-2, and over the saddle the same with a finer mesh
    np.testing.assert_allclose(lines["diffusion, Q of the data"].log_time, (-0.8001, 0.7743), atol=0.05)
    np.testing.assert_allclose(lines["over the saddle, Q = 2LH*, H* spurious"].log_time, (1.692, 6.472), atol=0.05)
    simulated, operator = lines["SGD, simulated"], lines["SGD, transfer operator"]
    assert abs(simulated.log_time[0] - operator.log_time[0]) < 4 * np.hypot(simulated.error[0], operator.error[0])
    assert (escape.ends(model, found["places"]) == 1).all()
    assert np.isfinite(found["crossing"][1e-2].times).all()
    assert_drawn(comm, shared_path / "fig_5_7.png")


def test_fitted_line_and_predictions(chapter: dict[str, ModuleType], model: Any) -> None:
    escape = chapter["escape"]
    rates = np.array([1e-3, 5e-4, 2e-4, 1e-4])
    line = escape.Line(rates, -3.0 + 0.004 / rates, np.zeros(4))
    np.testing.assert_allclose(line.fit(), (-3.0, 0.0, 0.004, 0.0), atol=1e-10)
    np.testing.assert_allclose(line.fit(2)[::2], (-3.0, 0.004), rtol=1e-10)
    predicted = list(escape.slopes(model).values())
    ratio = np.log(model.saddle.loss / model.spurious.loss)
    np.testing.assert_allclose(predicted[:2], ratio / model.spurious.eigenvalues, rtol=1e-12)
    # with Q = 2LH* the linearised covariance is ηL* I
    assert predicted[3] == pytest.approx((4.0 - model.spurious.x[1]) ** 2 / (4 * model.spurious.loss) * 2, rel=1e-9)


def test_regions(chapter: dict[str, ModuleType]) -> None:
    box = chapter["paths"].Elsewhere((1.0, 5.0), 0.05)
    points = np.array([(1.0, 5.0), (1.04, 4.96), (1.06, 5.0), (1.0, 2e3)])
    assert box.contains(points).tolist() == [False, False, True, False]
    both = chapter["escape"].NotBoth()
    assert both.contains(np.array([(1.0, 5.0), (1.0, 3.0), (0.0, 5.0)])).tolist() == [False, True, True]


def test_current_of_a_function_of_the_loss(chapter: dict[str, ModuleType], model: Any) -> None:
    """J from (3.4) by differences is -P(I - (η/BT)H*)∇L; at T = 100 it is the drift, for no T does it vanish."""
    stationary = chapter["stationary"]
    x, rate, temperature, h = np.array([[1.3, 4.7], [0.8, 5.2], [-5.0, 3.0]]), 1e-2, 0.3, 1e-5
    density = lambda z: model.like_true.loss(z) ** (-(1 + 1 / temperature))  # noqa: E731
    a = lambda z: rate / 2 * model.like_true.covariance(z) * density(z)[:, None, None]  # noqa: E731
    divergence = sum((a(x + h * e) - a(x - h * e))[:, :, k] / (2 * h) for k, e in enumerate(np.eye(2)))
    gradient = model.like_true.gradient(x)
    current = -density(x)[:, None] * gradient - divergence
    expected = np.linalg.norm(current, axis=1) / (density(x) * np.linalg.norm(gradient, axis=1))
    np.testing.assert_allclose(stationary.current_ratio(model, temperature, rate, x), expected, rtol=1e-6)
    np.testing.assert_allclose(stationary.current_ratio(model, 100.0, 1e-5, x), 1.0, atol=1e-5)
    basin, near = stationary.masses(model, [-1.01], 101)[0]
    assert 0.8 < basin < 0.9 and 0.4 < near < 0.6
