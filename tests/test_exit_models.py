"""[exit] model and compare: models of SGD from a case file, against independent answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest

import fpsolve as fp
from fpsolve.app.case import load_case, parse_case
from fpsolve.app.exit_models import shares
from fpsolve.app.run import Settings
from fpsolve.app.run_exit import answer_exit, run_exit
from fpsolve.errors import InputError

WELL = """
[process]
variables = ["x"]
loss = "x**2/2"
learning_rate = 0.1
batch_size = 1
[domain]
shape = "interval"
lower = -0.6
upper = 0.6
[mesh]
tolerance = 1e-6
[exit]
starts = [[0.0], [0.3]]
chain_tolerance = 1e-4
"""
#: Nine samples: the chain jumps to (1 - η)x + ηy, y out of TARGETS.
TARGETS = np.linspace(-1.5, 1.5, 9)
FEW_SAMPLES = (
    WELL.replace('variables = ["x"]\nloss = "x**2/2"', 'covariance = "samples"')
    + """
[process.data]
model = "x"
parameters = ["x"]
target = "y"
sample_loss = "(model - y)**2/2"
file = "few.csv"
"""
)


def gaussian_chain_met(x: list[float], a: float = 0.6, eta: float = 0.1) -> np.ndarray:
    """Solve u = η + ∫ k(x, y) u(y) dy by Nyström's method, kernel N((1 - η)x, η²)."""
    t, w = np.polynomial.legendre.leggauss(200)
    nodes, weights = a * t, a * w

    def kernel(at: np.ndarray) -> np.ndarray:
        z = (nodes - (1 - eta) * at[:, None]) / eta
        return np.exp(-z * z / 2) / np.sqrt(2 * np.pi) / eta * weights

    u = np.linalg.solve(np.eye(len(nodes)) - kernel(nodes), np.full(len(nodes), eta))
    return eta + kernel(np.array(x)) @ u


def answer(text: str, comm: MPI.Comm, folder: Path = Path(".")) -> Any:
    return answer_exit(parse_case(text, folder / "case.toml"), comm)


def test_models_side_by_side(comm: MPI.Comm) -> None:
    names = ["second-order", "shifted", "corrected", "gaussian-chain"]
    found = answer(WELL + f"compare = {json.dumps(names)}", comm)
    assert [a.name for a in found.models] == ["diffusion", *names]
    exact = gaussian_chain_met([0.0, 0.3])
    values = {a.name: a.moments[:, 0] for a in found.models}
    chain = found.models[-1]
    assert np.all(np.abs(values["gaussian-chain"] - exact) <= chain.error[:, 0] + 1e-12)
    assert np.all(chain.error[:, 0] <= 1e-4 * exact)
    # the better model is nearer: this is what they are for
    gaps = {name: np.max(np.abs(value / exact - 1)) for name, value in values.items()}
    assert gaps["corrected"] < 0.03 < 0.2 < gaps["diffusion"]
    assert gaps["second-order"] < gaps["diffusion"]
    # bounds are about the first-order diffusion, and hold for it
    assert found.comparison.violated == 0 and any(b.verified for b in found.bounds)
    assert shares(found.models) is None  # no samples: nothing to say of the noise's shape


def test_steps_too_large_for_corrections(comm: MPI.Comm) -> None:
    text = WELL.replace("learning_rate = 0.1", "learning_rate = 0.5").replace("0.6", "2.0") + 'model = "second-order"'
    assert any("largest curvature of the loss is 0.5" in message for message in answer(text, comm).messages)


def test_a_corrected_model_alone_has_no_bounds(comm: MPI.Comm) -> None:
    found = answer(WELL + 'model = "corrected"', comm)
    assert not any("curvature" in message for message in found.messages)
    assert found.bounds == [] and found.exit_code == 0
    assert any("theorems about model" in text for text in found.messages)
    assert abs(found.result.mean[0] / gaussian_chain_met([0.0])[0] - 1) < 0.03


def test_a_model_without_an_answer_does_not_lose_the_others(comm: MPI.Comm, shared_path: Path) -> None:
    if comm.rank == 0:
        (shared_path / "few.csv").write_text("\n".join(["y", *map(str, TARGETS / 3)]))  # none outside: no way out
    comm.barrier()
    found = answer(FEW_SAMPLES.replace("[exit]", '[exit]\nbounds = []\ncompare = ["chain"]'), comm, shared_path)
    assert [a.name for a in found.models] == ["diffusion"] and found.result.converged
    assert found.exit_code == 3
    assert any(text.startswith("error: model chain: no step leads") for text in found.messages)


def test_chain_of_few_samples(comm: MPI.Comm, shared_path: Path) -> None:
    if comm.rank == 0:
        (shared_path / "few.csv").write_text("\n".join(["y", *map(str, TARGETS)]))
        (shared_path / "case.toml").write_text(
            FEW_SAMPLES.replace("chain_tolerance = 1e-4", 'chain_tolerance = 0.02\nmodel = "chain"\n'
                                'compare = ["gaussian-chain", "diffusion"]'))  # fmt: skip
    comm.barrier()
    case = load_case(shared_path / "case.toml", comm)
    code = run_exit(case, comm, Settings(shared_path / "out"))
    summary = json.loads((shared_path / "out" / "summary.json").read_text())
    assert code == 0 and summary["model"] == "chain" and summary["converged"]
    exact = few_point_met(0.0)
    start = summary["starts"][0]
    assert abs(start["mean"] - exact) <= start["error"] <= 0.02 * exact
    part = summary["shares"][0]
    means = {name: entry["mean"][0] for name, entry in summary["models"].items()}
    assert part["noise_shape"] == pytest.approx(1 - means["gaussian-chain"] / means["chain"])
    assert part["finite_step"] == pytest.approx((means["gaussian-chain"] - means["diffusion"]) / means["chain"])
    assert {"line.png", "models.png"} <= {path.name for path in (shared_path / "out").iterdir()}


def few_point_met(x: float, a: float = 0.6, eta: float = 0.1, cells: int = 20_001) -> float:
    """Iterate u = η + mean of u((1 - η)x + ηy) on a fine grid with nearest neighbours."""
    grid = np.linspace(-a, a, cells)
    places = (1 - eta) * grid + eta * TARGETS[:, None]
    inside = np.abs(places) <= a
    at = np.clip(np.rint((places + a) / (2 * a) * (cells - 1)).astype(int), 0, cells - 1)
    u, change = np.zeros(cells), np.zeros(cells)
    for _ in range(300):
        new = eta + np.where(inside, u[at], 0).mean(axis=0)
        ratio, change, u = (new - u).sum() / max(change.sum(), 1e-300), new - u, new
    # by now each change is the one before times the largest eigenvalue: the rest is a geometric series
    return float((u + change * ratio / (1 - ratio))[round((x + a) / (2 * a) * (cells - 1))])


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('model = "modified"', "exit.model"),
        ('compare = "chain"', "exit.compare"),
        ('compare = ["chain", "gauss"]', "exit.compare"),
        ("chain_tolerance = 0", "exit.chain_tolerance"),
    ],
)
def test_wrong_models(line: str, key: str) -> None:
    text = WELL.replace("chain_tolerance = 1e-4", line)
    with pytest.raises(InputError) as error:
        parse_case(text, "case.toml")
    assert error.value.key == key


def test_a_chain_needs_a_learning_rate(comm: MPI.Comm) -> None:
    text = WELL.replace("learning_rate = 0.1\nbatch_size = 1", "epsilon2 = 0.05") + 'model = "gaussian-chain"'
    with pytest.raises(InputError, match="learning_rate"):
        answer(text, comm)


def test_covariance_models(comm: MPI.Comm) -> None:
    text = WELL.replace('loss = "x**2/2"', 'loss = "1 + x**2/2"\ncovariance = [["1 + x**2"]]')
    plain = answer(text, comm).result.mean[0]
    same = fp.mean_exit_time(
        fp.SGD("1 + x**2/2", [["2 + x**2"]], ["x"], 0.1, 1), fp.Interval(-0.6, 0.6), comm=comm, tolerance=1e-6
    )
    model = text.replace("[domain]", 'covariance_model = "loss-proportional"\ncovariance_at = [0.0]\n[domain]')
    assert answer(model, comm).result.mean[0] == pytest.approx(same.mean[0], rel=1e-6)
    assert abs(same.mean[0] / plain - 1) > 0.1
    for line in ('covariance_model = "power"', "covariance_at = [0.0]"):
        with pytest.raises(InputError) as error:
            parse_case(text.replace("[domain]", f"{line}\n[domain]"), "case.toml")
        assert error.value.key == f"process.{line.split()[0]}"
