"""Checkpoints: a run that is killed and repeated gives the same answer, bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from mpi4py import MPI

import numpy as np
import pytest

import fpsolve as fp
from fpsolve.errors import InputError
from fpsolve.problems import evolve_level
from fpsolve.problems.evolution import EvolveResult

WELL = fp.SGD(loss="(x**2 - 1)**2 + y**2", epsilon2=0.3)
BOX = fp.Box((-3.0, -3.0), (3.0, 3.0))
START = fp.gaussian_start([-1.0, 0.2], 0.1)


class Killed(Exception):
    """Stands for a signal."""


def solve(comm: MPI.Comm, directory: Path, restart: bool = False, **changes: object) -> EvolveResult:
    options = {"size": 1.0, "scheme": "dg", "degree": 2, "checkpoint": directory, "checkpoint_seconds": 0.0} | changes
    return fp.evolve(WELL, BOX, START, [0.2, 0.5, 1.0], comm=comm, restart=restart, **options)  # type: ignore[arg-type]


def same(a: EvolveResult, b: EvolveResult) -> bool:
    return (
        a.steps == b.steps
        and all(np.array_equal(x.mean, y.mean) and np.array_equal(x.covariance, y.covariance) and x.mass == y.mass
                for x, y in zip(a.records, b.records, strict=True))
        and all(np.array_equal(x.x.array, y.x.array) for x, y in zip(a.densities, b.densities, strict=True))
    )  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [{}, {"scheme": "cg", "degree": 1, "nonnegative": True, "step": 0.05}, {"size": None, "tolerance": 0.1}],
    ids=["dg", "nonnegative", "two meshes"],
)
@pytest.mark.parametrize("after", [1, 9])
def test_killed_and_repeated(
    comm: MPI.Comm, shared_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict, after: int
) -> None:
    whole = solve(comm, shared_path / "whole", **changes)
    written = 0
    original = evolve_level.Checkpointer.after_step

    def killed(self, *arguments):  # type: ignore[no-untyped-def]
        nonlocal written
        original(self, *arguments)
        written += 1
        if written == after + (len(whole.steps) if "tolerance" in changes else 0) // 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(evolve_level.Checkpointer, "after_step", killed)
        with pytest.raises(Killed):
            solve(comm, shared_path / "part", **changes)
    comm.barrier()
    assert same(solve(comm, shared_path / "part", restart=True, **changes), whole)


def test_a_checkpoint_of_another_question_is_refused(comm: MPI.Comm, shared_path: Path) -> None:
    solve(comm, shared_path)
    with pytest.raises(InputError, match="tolerance") as caught:
        solve(comm, shared_path, restart=True, tolerance=1e-2)
    assert caught.value.key == "--restart"


def test_restart_without_a_checkpoint_begins_anew(comm: MPI.Comm, shared_path: Path) -> None:
    assert same(solve(comm, shared_path / "none", restart=True), solve(comm, shared_path / "other"))


SCRIPT = """
import json, sys
from pathlib import Path
from mpi4py import MPI
sys.path.insert(0, {folder!r})
import test_restart as t
from fpsolve.problems import evolve_level
comm, directory, after = MPI.COMM_WORLD, Path(sys.argv[1]), int(sys.argv[2])
done, original = 0, evolve_level.Checkpointer.after_step
def killed(self, *arguments):
    global done
    original(self, *arguments)
    done += 1
    if done == after:
        comm.barrier()
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
if after:
    evolve_level.Checkpointer.after_step = killed
result = t.solve(comm, directory, restart=True)
last = result.records[-1]
if comm.rank == 0:
    print(json.dumps([last.mass, *last.mean.tolist(), *last.covariance.ravel().tolist()]))
"""


def clean_environment() -> dict[str, str]:
    """Return the environment without what an MPI launcher has put there; its settings stay."""
    launcher, settings = ("OMPI_", "PMIX_", "PMI_", "PRTE_"), ("OMPI_MCA_", "OMPI_ALLOW", "PRTE_MCA_")
    return {k: v for k, v in os.environ.items() if not k.startswith(launcher) or k.startswith(settings)}


def ranks(count: int, directory: Path, after: int) -> subprocess.CompletedProcess[str]:
    script = SCRIPT.format(folder=str(Path(__file__).parent))
    command = ["mpirun", "-n", str(count), sys.executable, "-c", script, str(directory), str(after)]
    return subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=120)


@pytest.mark.serial
def test_killed_on_two_ranks_and_repeated_on_others(tmp_path: Path) -> None:
    """SIGKILL in the middle; the rest on 1, 2 and 3 ranks gives the same to 1e-10."""
    answers = {}
    for count in (1, 2, 3):
        directory = tmp_path / str(count)
        assert ranks(2, directory, 6).returncode != 0
        done = ranks(count, directory, 0)
        assert done.returncode == 0, done.stderr[-2000:]
        answers[count] = np.array(json.loads(done.stdout.splitlines()[-1]))
    for count in (1, 3):
        assert np.abs(answers[count] - answers[2]).max() < 1e-10
