"""From a checked case file to the process, the domain and the starts it describes."""

from __future__ import annotations

from typing import Any

from mpi4py import MPI

import numpy as np

from fpsolve.app.case import Case, DomainCase, ProcessCase
from fpsolve.errors import InputError
from fpsolve.fem.parallel import on_root
from fpsolve.model.chain import Chain, SampleGradients, sgd_chain
from fpsolve.model.covariance_models import covariance_model
from fpsolve.model.domains import Ball, Box, Domain, Interval, MeshFile, Sublevel
from fpsolve.model.kinetic_domain import kinetic_domain
from fpsolve.model.momentum import MomentumSGD
from fpsolve.model.process import Landscape, Process, diffusion_process, formula_landscape, noise_level, sgd_process
from fpsolve.model.sample_data import read_samples
from fpsolve.model.samples import SampleLandscape, sample_landscape
from fpsolve.model.subspace import restrict

#: n·a n below this part of tr a counts as zero, as in `fpsolve.fem.boundary`.
TANGENTIAL = 1e-6
#: A start this near to a side, relative to the domain's size, lies on it.
ON_SIDE = 1e-9


def build(case: Case, comm: MPI.Comm) -> tuple[Process, Domain, list[tuple[float, ...]]]:
    """Return process, domain and the points at which the mean exit time is asked. Collective.

    Raises
    ------
    InputError
        On every rank, if a formula, file, shape or value cannot be used.
    """
    process = build_process(case.process, comm)
    speed = max((abs(start[-1]) for start in case.exit.starts or ()), default=0.0)
    domain = build_domain(case.domain, process, comm, speed)
    starts = case.exit.starts or (default_start(domain),)
    check_starts(starts, process, domain, given=case.exit.starts is not None)
    return process, domain, list(starts)


def build_process(case: ProcessCase, comm: MPI.Comm) -> Process:
    """Return the process; data are read on rank 0. Collective. Raises InputError."""
    if case.momentum is not None:
        return _momentum(case)
    if case.drift is not None:
        return diffusion_process(case.drift, case.diffusion or (), case.variables)
    landscape = build_landscape(case, comm)
    samples = landscape.samples if isinstance(landscape, SampleGradients) else None
    return sgd_process(landscape, noise_level(**_noise(case), samples=samples))


def build_landscape(case: ProcessCase, comm: MPI.Comm) -> Landscape:
    """Return loss and covariance of a process that has them, on its subspace if it has one. Collective.

    Raises
    ------
    InputError
        On every rank.
    """
    if case.data is None:
        landscape: Landscape = formula_landscape(case.loss, case.covariance, case.variables)
    else:
        landscape = _landscape_of_data(case, comm)
    part = case.subspace
    if part is not None:
        landscape = restrict(landscape, part.origin, part.directions, part.leading, part.variables, "process.subspace")
    if case.covariance_model is None:
        return landscape
    return covariance_model(landscape, case.covariance_model, case.covariance_at, "process.covariance_model")


def build_chain(case: ProcessCase, comm: MPI.Comm) -> Chain:
    """Return SGD itself, the Markov chain of a process with a loss or data. Collective. Raises InputError."""
    if case.drift is not None:
        remedy = "Give the loss and the covariance, or data."
        raise InputError("process.drift", list(case.drift), "a loss: drift and diffusion make no chain", remedy)
    landscape = build_landscape(case, comm)
    return sgd_chain(
        landscape, case.learning_rate, case.batch_size, case.replacement, case.extra_noise, case.momentum or 0.0
    )


def _momentum(case: ProcessCase) -> Process:
    """Return momentum SGD in position and velocity. Raises InputError."""
    if case.data is not None:
        remedy = "Give the loss and the covariance as formulas."
        raise InputError("process.momentum", case.momentum, "no momentum besides [process.data]", remedy)
    if case.subspace is not None:
        what = "no momentum besides [process.subspace]"
        raise InputError("process.momentum", case.momentum, what, "Give the loss as a formula of one variable.")
    for key, default in {"epsilon2": None, "replacement": True, "extra_noise": 0.0}.items():
        value = getattr(case, key)
        if value != default:
            raise InputError(f"process.{key}", value, "no such key with momentum", "Give learning_rate and batch_size.")
    return MomentumSGD(
        case.loss, case.covariance, case.variables, case.learning_rate or 0.0, case.momentum or 0.0,
        case.batch_size or 1,
    )  # fmt: skip


def _noise(case: ProcessCase) -> dict[str, Any]:
    keys = ("learning_rate", "batch_size", "epsilon2", "replacement", "extra_noise")
    return {key: getattr(case, key) for key in keys}


def _landscape_of_data(case: ProcessCase, comm: MPI.Comm) -> SampleLandscape:
    data = case.data
    assert data is not None  # the caller has looked
    columns = on_root(comm, lambda: read_samples(data.file, [*data.inputs, data.target]))
    return sample_landscape(data.model, data.parameters, data.inputs, data.target, data.sample_loss, columns)


def build_domain(case: DomainCase, process: Process, comm: MPI.Comm, speed: float = 0.0) -> Domain:
    """Return the domain; a mesh file is read on rank 0. Collective. Raises InputError.

    With momentum an interval of positions gets the velocities that matter, at least those up to `speed`.
    """
    values, reflecting = case.values, case.reflecting
    if case.shape == "interval" and process.dimension == 2:
        return kinetic_domain(process, values["lower"], values["upper"], speed, reflecting=reflecting)
    if case.shape == "interval":
        return Interval(values["lower"], values["upper"], reflecting)
    if case.shape == "box":
        return Box(values["lower"], values["upper"], reflecting)
    if case.shape == "ball":
        return Ball(values["center"], values["radius"], reflecting)
    if case.shape == "mesh":
        return on_root(comm, lambda: _mesh_file(str(values["file"]), process.dimension, reflecting))
    if process.landscape is None:
        remedy = "A process given by drift and diffusion has none."
        raise InputError("domain.shape", "sublevel", "a process with a loss", remedy)
    lower, upper = values["box"]
    return Sublevel(process.landscape, values["below"], values["containing"], lower, upper, reflecting)


def _mesh_file(path: str, dimension: int, reflecting: tuple[str, ...]) -> MeshFile:
    """Read the file here, so that its contents travel to the other ranks with the domain."""
    domain = MeshFile(path, dimension, reflecting)
    _ = domain.contents
    return domain


def default_start(domain: Domain) -> tuple[float, ...]:
    """Return the start when none is given: the point of a sublevel set, else the middle of the bounding box."""
    if isinstance(domain, Sublevel):
        return domain.containing
    lower, upper = domain.bounding_box()
    return tuple(float(c) for c in (lower + upper) / 2)


def check_starts(starts: tuple[tuple[float, ...], ...], process: Process, domain: Domain, given: bool = True) -> None:
    """Raise InputError for a start that lies outside, or on the boundary where the process leaves at once.

    A start on a reflecting part, or on one that the process cannot reach or cross, is in order (mathematics.md
    section 1, Fichera's criterion with the outward normal there).
    """
    remedy = "" if given else "Give exit.starts."
    for i, start in enumerate(starts):
        key = f"exit.starts[{i}]"
        point = np.array([start])
        normals = _normals(point[0], domain)
        if not normals and not domain.contains(point)[0]:
            lower, upper = (corner.tolist() for corner in domain.bounding_box())
            remedy = remedy or f"The domain lies between {lower} and {upper}."
            raise InputError(key, list(start), "a point inside the domain", remedy)
        if any(name not in domain.reflecting and _leaves(point, normal, process) for name, normal in normals):
            remedy = remedy or "The process leaves there at once: the exit time is 0."
            raise InputError(key, list(start), "a point inside the domain, not on its boundary", remedy)


def _normals(x: np.ndarray, domain: Domain) -> list[tuple[str, np.ndarray]]:
    """Return names and outward normals of the flat or spherical sides that x lies on."""
    if isinstance(domain, Ball):
        arm = x - np.array(domain.center)
        distance = float(np.linalg.norm(arm))
        return [("boundary", arm / distance)] if abs(distance - domain.radius) <= ON_SIDE * domain.radius else []
    if not isinstance(domain, (Interval, Box)):
        return []
    lower, upper = domain.bounding_box()
    near = ON_SIDE * (upper - lower)
    if not ((x >= lower - near) & (x <= upper + near)).all():
        return []
    sides = []
    for i, unit in enumerate(np.eye(len(x))):
        if x[i] - lower[i] <= near[i]:
            sides.append((domain.names[2 * i], -unit))
        if upper[i] - x[i] <= near[i]:
            sides.append((domain.names[2 * i + 1], unit))
    return sides


def _leaves(point: np.ndarray, normal: np.ndarray, process: Process) -> bool:
    a, beta = process.diffusion(point)[0], process.beta(point)[0]
    return bool(normal @ a @ normal > TANGENTIAL * np.trace(a) or beta @ normal < 0)
