"""The demos that put SGD itself beside the diffusion: what they claim, under the ranks this test runs on."""

from __future__ import annotations

from pathlib import Path

from mpi4py import MPI

import numpy as np
from test_demos import assert_drawn, assert_same_everywhere, load


def test_momentum_exit(comm: MPI.Comm, shared_path: Path) -> None:
    """The chain tends to the kinetic equation as √η → 0; friction brings both to SGD with η/(1 - μ)."""
    found = load("momentum", "momentum_exit").main(
        comm, shared_path, steps=(0.4, 0.1), frictions=(0.5, 1.0, 4.0), paths=1500, tolerance=1e-2
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
    found = module.main(comm, shared_path, size=0.16, paths=4000, deltas=(0.2,), times=(0.1, 0.2))
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
