"""The demo of mass splitting: its case file, and what it claims, on smaller problems."""

from __future__ import annotations

from pathlib import Path

from mpi4py import MPI

import numpy as np
import pytest
from test_demos import DEMOS, assert_drawn, assert_same_everywhere, load

from fpsolve.app.build import build
from fpsolve.app.case import load_case


def test_case_file_asks_what_the_script_does(comm: MPI.Comm) -> None:
    case, module = load_case(DEMOS / "mass_splitting" / "case.toml", comm), load("mass_splitting")
    process, domain, _ = build(case, comm)
    assert case.evolve.initial is not None
    x = np.array([[0.3, -0.2], [-1.0, 0.5]])
    other = module.process()
    np.testing.assert_allclose(process.drift(x), other.drift(x), rtol=1e-14)
    np.testing.assert_allclose(process.diffusion(x), other.diffusion(x), rtol=1e-14)
    np.testing.assert_allclose(domain.bounding_box(), module.DOMAIN.bounding_box())


def test_mass_splitting(comm: MPI.Comm, shared_path: Path) -> None:
    module = load("mass_splitting")
    noise = (0.05, 0.025, 0.0125)
    found = module.main(comm, shared_path, size=0.35, times=(0.4, 6.4, 50.0), noise=noise, points=150)
    splitting, chain = found["splitting"], found["chain"]
    np.testing.assert_allclose(chain.masses(splitting.times)[2:], splitting.masses[2:], atol=1e-3)
    assert splitting.l1()[0] > 1.9 and splitting.l1()[1] > 0.9
    assert splitting.l1()[2] < 0.2
    assert splitting.relaxation[2] < 1e-4
    assert np.all(splitting.w2()[:, 1] <= splitting.w2()[:, 0])
    assert np.all(splitting.w2()[:, 0] <= splitting.w2()[:, 2])
    # the means of the wells, whatever the noise does from place to place
    for well, mean in zip(splitting.wells, splitting.means[-1], strict=True):
        np.testing.assert_allclose(mean - well.x, well.shift, atol=0.35 * np.abs(well.shift).max())
    assert found["moved"].lower < 0.5 * splitting.w2()[-1, 1]
    assert len(found["line"]) == 2 and np.isfinite(found["line"][0][1]).all()
    # the leading terms in one dimension, and their orders
    assert [row["epsilon"] ** 2 for row in found["limit"]] == pytest.approx(noise)
    for name in ("l1", "w2", "moved", "split"):
        off = np.array([row[name] / row[f"{name} leading"] - 1 for row in found["limit"]])
        assert np.all(off[:-1] / off[1:] > 1.6)  # the next term is smaller by a factor ε²
        assert 2 * off[-1] - off[-2] == pytest.approx(0.0, abs=0.01)  # and extrapolated away, the constant is right
    for name, power in (("l1", 1.0), ("w2", 2.0), ("split", 2.0)):
        assert found["orders"][name] == pytest.approx(power, abs=0.1)
    assert_same_everywhere(comm, [*found["orders"].values(), *splitting.l1(), *splitting.w2().ravel()])
    assert_drawn(comm, shared_path / "mass_splitting.png")
