"""The demos that put SGD itself beside the diffusion: what they claim, under the ranks this test runs on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from mpi4py import MPI

import numpy as np
from test_demos import DEMOS, assert_drawn, assert_same_everywhere, load

from fpsolve.app.case import load_case
from fpsolve.app.run import Settings
from fpsolve.app.run_exit import run_exit


def test_momentum_exit(comm: MPI.Comm, shared_path: Path) -> None:
    """The chain tends to the kinetic equation as √η → 0; friction brings both to SGD with η/(1 - μ)."""
    found = load("momentum", "momentum_exit").main(
        comm, shared_path, steps=(0.4, 0.1), frictions=(0.5, 4.0), paths=800, tolerance=1e-2
    )
    exact = found["kinetic"][1.0].mean[0]
    assert not found["truncation"].visible
    gaps = [1 - run.mean[0] / exact for run in found["by_step"].values()]
    half = [np.diff(run.interval[0])[0] / 2 / exact for run in found["by_step"].values()]
    assert gaps[0] - half[0] > 0.1
    assert abs(gaps[1]) - half[1] < 0.04  # first order in √η: a quarter of 0.17
    ratios = [answer.mean[0] / (g * found["overdamped"]) for g, answer in found["kinetic"].items()]
    assert ratios[0] > 4 > ratios[1] > 2 > ratios[2] > 1
    for g, run in found["by_friction"].items():
        assert abs(run.mean[0] / found["kinetic"][g].mean[0] - 1) < 0.12
    assert_same_everywhere(comm, [answer.mean[0] for answer in found["kinetic"].values()])
    assert_drawn(comm, shared_path / "momentum_exit.png")


def test_overparametrised(comm: MPI.Comm, shared_path: Path) -> None:
    """Rank Q is 1 and 0 on the curve; the density collapses as paths do; larger steps find flatter minima."""
    module = load("overparametrised")
    found = module.main(comm, shared_path, size=0.16, paths=2000, deltas=(0.2,), times=(0.1, 0.2))
    assert found["spectrum"].rank.tolist() == [1] * 6 + [0]
    for k, masses in enumerate(found["masses"]):
        sample = found["sde"].positions[0, k]
        share = module.shares(sample, np.full(len(sample), 1 / len(sample)))
        assert np.abs(masses - share).max() < 4 * np.sqrt(0.25 / len(sample))
    strips = [masses[0] for masses in found["masses"]]
    assert strips[0] < 0.2 < 0.6 < strips[1]
    ends = {key: run.positions[0, -1] for key, run in found["chains"].items()}
    sharpness = [np.mean((ends[rate, 0.0] ** 2).sum(axis=1)) for rate in (0.02, 0.1, 0.15)]
    assert sharpness[0] > sharpness[1] + 0.2 > sharpness[2] + 0.3
    assert np.abs(ends[0.1, 0.0].prod(axis=1) - 1).max() < 1e-6  # on the curve, for good
    leaving = found["exits"]
    assert leaving["stays"] == 1.0
    assert "stays there forever" in leaving["said"]
    chain, pde = leaving["chain"][0.2], leaving["pde"][0.2]
    assert pde.converged
    assert pde.mean[0] < chain.interval[0, 1] and chain.interval[0, 0] < 1.25 * pde.mean[0]
    for name in ("collapse.png", "selection.png"):
        assert_drawn(comm, shared_path / name)


def test_diffusion_or_not(comm: MPI.Comm, shared_path: Path) -> None:
    """The transfer operator gives what simulation gives; the corrected diffusion follows the Gaussian chain."""
    (row,) = load("diffusion_or_not").main(comm, shared_path, rates=(0.002,), tolerance=3e-2, paths=4000)
    gap = abs(row.mean["chain"] - row.mean["simulated"])
    assert gap <= row.error["chain"] + 1.5 * row.error["simulated"]
    assert row.error["chain"] < 0.03 * row.mean["chain"]
    gaussian = row.mean["gaussian-chain"]
    assert abs(row.mean["corrected"] / gaussian - 1) < 0.06 < 0.25 < abs(row.mean["diffusion"] / gaussian - 1)
    assert row.ratio("gaussian-chain") < 0.93  # the rest is the noise's shape
    assert_same_everywhere(comm, list(row.mean.values()))
    assert_drawn(comm, shared_path / "diffusion_or_not.png")


def test_diffusion_or_not_case_file(comm: MPI.Comm, shared_path: Path) -> None:
    case = load_case(DEMOS / "diffusion_or_not" / "case.toml", comm)
    assert case.exit.model == "chain" and set(case.exit.compare) >= {"gaussian-chain", "corrected", "diffusion"}
    few = replace(case.exit, compare=("diffusion",), chain_tolerance=0.1)
    quick = replace(case, exit=few, process=replace(case.process, learning_rate=0.002))
    assert run_exit(quick, comm, Settings(shared_path)) == 0
    comm.barrier()
    summary = json.loads((shared_path / "summary.json").read_text(encoding="utf-8"))
    start = summary["starts"][0]
    # 200,000 simulated paths: 0.0980 ± 0.0004
    assert abs(start["mean"] - 0.0980) <= start["error"] + 4e-4
    for name in ("mean_exit_time", "line", "models"):
        assert_drawn(comm, shared_path / f"{name}.png")
