"""Exit times of kinetic processes: an exact one, velocities cut off, a case file, the chain, points that never move."""

from __future__ import annotations

from pathlib import Path

from mpi4py import MPI

import numpy as np
import pytest
from scipy.special import gamma, hyp2f1

import fpsolve as fp
from fpsolve.app.build import build
from fpsolve.app.case import parse_case
from fpsolve.errors import InputError, NoFiniteAnswer
from fpsolve.fem.boundary import classify
from fpsolve.fem.meshing import make_mesh

FREE = fp.diffusion_process(["v", "0"], [["0", "0"], ["0", "1"]], ["w", "v"])
#: Four times (D l)^(1/3) in v changes the answer by less than 1e-6: see `test_velocities_cut_off`.
STRIP = fp.Box((0.0, -4.0), (1.0, 4.0), ("bottom", "top"))
CASE = """
[process]
loss = "(w**2 - 1)**2/4"
variables = ["w"]
covariance = [["3"]]
learning_rate = 0.01
momentum = 0.9
[domain]
shape = "interval"
lower = -2.0
upper = 0.0
[exit]
starts = [[-1.0, 0.0], [-1.5, -9.0]]
"""


def randomly_accelerated(x: float) -> float:
    """E τ of dW = V dt, dV = √2 dB from (x, 0) in 0 < w < 1 (Masoliver and Porrà, Phys. Rev. Lett. 75, 189 (1995))."""
    ends = hyp2f1(1, -1 / 3, 7 / 6, x) + hyp2f1(1, -1 / 3, 7 / 6, 1 - x)
    return (4 / 3) ** (1 / 6) / gamma(7 / 3) * (x * (1 - x)) ** (1 / 6) * ends


def test_randomly_accelerated_particle(comm: MPI.Comm) -> None:
    """Within the tolerance and an honest estimate; u ~ √distance where the exit ends, so that orders are lost there."""
    starts = [(0.5, 0.0), (0.25, 0.0)]
    answer = fp.mean_exit_time(FREE, STRIP, comm=comm, starts=starts, tolerance=1e-4)
    error = np.abs(answer.mean - [randomly_accelerated(x) for x, _ in starts])
    assert answer.converged
    assert (error <= 1e-4 * answer.mean).all()
    assert (error <= answer.error[:, 0]).all()
    assert (answer.error[:, 0] <= 10 * error).all()
    # from rest, the left and the right half are mirror images: u(w, v) = u(1 - w, -v)
    one, other = answer.at([(0.3, 0.8), (0.7, -0.8)])
    assert one == pytest.approx(other, rel=1e-3)


def test_order_on_uniform_meshes(comm: MPI.Comm) -> None:
    """Order 1 from the singular corners whatever the degree: the error is of the size h times a thousandth."""
    exact, sizes = randomly_accelerated(0.5), (0.4, 0.2, 0.1)
    errors = [
        abs(fp.mean_exit_time(FREE, STRIP, comm=comm, starts=[(0.5, 0.0)], size=h).mean[0] - exact) for h in sizes
    ]
    assert np.polyfit(np.log(sizes), np.log(errors), 1)[0] > 0.8
    assert errors[-1] < 3e-4


def test_exit_is_where_the_drift_leads_out(comm: MPI.Comm) -> None:
    """On the right for v > 0, on the left for v < 0, up to one facet; both exits end at v = 0."""
    for size in (0.5, 0.37):
        made = make_mesh(STRIP, size, 1, comm)
        parts = [made.parts[name] for name in STRIP.reflecting]
        boundary = classify(FREE, made.facet_tags, made.mesh, parts, 8)
        assert boundary.measures["absorbing"] == pytest.approx(8, abs=2 * size)
        assert boundary.measures["absorbing"] + boundary.measures["characteristic"] == pytest.approx(16)
        assert boundary.measures["reflecting"] == pytest.approx(2)
        assert {0.0, 1.0} == set(boundary.ends[:, 0])
        assert np.abs(boundary.ends[:, 1]).max() <= size


def test_velocities_cut_off(comm: MPI.Comm) -> None:
    """The chosen V is far enough, half of it is not, and the control run tells the two apart."""
    process = fp.diffusion_process(["v", "-w - v"], [["0", "0"], ["0", "0.3"]], ["w", "v"])
    near = fp.kinetic_domain(process, -1.0, 1.0, widths=0.4)
    far = fp.kinetic_domain(process, -1.0, 1.0)
    assert far.reflecting == ("bottom", "top")
    assert far.upper[1] == pytest.approx(min(np.sqrt(1 + 36 * 0.3), 1 + 4 * 0.6 ** (1 / 3)))
    effects = [
        fp.truncation_effect(fp.mean_exit_time(process, box, comm=comm, starts=[(0.0, 0.0)], tolerance=1e-3))
        for box in (near, far)
    ]
    assert effects[0].visible
    assert not effects[1].visible


def test_interval_with_momentum(comm: MPI.Comm) -> None:
    """A case file's interval is one of positions; fast starts are inside."""
    process, domain, starts = build(parse_case(CASE, Path("case.toml")), comm)
    assert isinstance(domain, fp.Box)
    assert (domain.lower[0], domain.upper[0]) == (-2.0, 0.0)
    assert domain.upper[1] > 9.0 and domain.lower[1] == -domain.upper[1]
    assert starts == [(-1.0, 0.0), (-1.5, -9.0)]
    assert process.step_time == pytest.approx(0.1)
    with pytest.raises(InputError, match="position and its velocity"):
        fp.kinetic_domain(fp.SGD("x**2 + y**2", epsilon2=0.1), -1.0, 1.0)
    with pytest.raises(InputError, match="expected larger numbers"):
        fp.kinetic_domain(process, 1.0, -1.0)


def test_points_that_never_move(comm: MPI.Comm) -> None:
    """Two samples fitted exactly on ab = 1: no finite exit time from the curve; with extra noise there is one."""
    data = {"x": np.array([1.0, 2.0]), "y": np.array([1.0, 2.0])}
    landscape = fp.sample_landscape("a*b*x", ["a", "b"], ["x"], "y", "(model - y)**2/2", data)
    disc = fp.Ball((1.0, 1.0), 0.6)
    levels = [
        fp.noise_level(learning_rate=0.1, batch_size=1, replacement=True, samples=2, extra_noise=delta)
        for delta in (0.0, 0.05)
    ]
    still, noisy = (fp.sgd_process(landscape, level) for level in levels)
    with pytest.raises(NoFiniteAnswer, match="stays there forever"):
        fp.mean_exit_time(still, disc, comm=comm, starts=[(1.0, 1.0)], size=0.3)
    with pytest.raises(NoFiniteAnswer, match="drift and noise vanish at"):
        fp.mean_exit_time(still, disc, comm=comm, starts=[(1.2, 1.2)], size=0.3)
    answer = fp.mean_exit_time(noisy, disc, comm=comm, starts=[(1.0, 1.0)], tolerance=1e-2)
    assert answer.converged
    assert 60 < answer.mean[0] < 90
