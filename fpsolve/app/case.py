"""Case files: TOML, data only, checked key by key and read into frozen dataclasses.

Nothing is computed here. A key that does not exist is an error with a suggestion, at every level, so that a
misspelt key is never silently ignored. What formulas, shapes and numbers *mean* is checked where they are
used (`fpsolve.model`), with the same keys in the messages.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpi4py import MPI

from fpsolve.app import readers as r
from fpsolve.app.case_bounds import BOUNDS, BoundsCase, read_bounds
from fpsolve.app.case_evolution import (
    BACKWARD,
    EVOLVE,
    SCHEDULE,
    STEADY,
    BackwardCase,
    EvolveCase,
    ScheduleCase,
    SteadyCase,
    read_backward,
    read_evolve,
    read_schedule,
    read_steady,
)
from fpsolve.app.case_landscape import LANDSCAPE, LandscapeCase, read_landscape
from fpsolve.app.case_simulate import SIMULATE, SimulateCase, read_simulate
from fpsolve.app.case_subspace import SUBSPACE, SubspaceCase, read_subspace
from fpsolve.app.readers import Reader, Vector, need, read_table
from fpsolve.errors import InputError
from fpsolve.fem.parallel import on_root
from fpsolve.model.covariance_models import KINDS

#: Relative error asked at the starts when a case file gives neither mesh.size nor mesh.tolerance.
DEFAULT_TOLERANCE = 1e-4
#: Models of SGD an exit time can be asked of: diffusions, and chains by their transfer operators.
CHAIN_MODELS = ("gaussian-chain", "chain")
EXIT_MODELS = ("diffusion", "second-order", "shifted", "corrected", *CHAIN_MODELS)


@dataclass(frozen=True)
class DataCase:
    """[process.data]: a model, a loss of one sample, and the file of the samples."""

    model: str
    parameters: tuple[str, ...]
    inputs: tuple[str, ...]
    target: str
    file: Path
    sample_loss: str | None = None


@dataclass(frozen=True)
class ProcessCase:
    """[process]: loss and covariance, or data, or drift and diffusion; and the strength of the noise.

    `covariance_model`: an approximation that takes the covariance's place, made at the minimum `covariance_at`.
    """

    variables: tuple[str, ...]
    loss: str | None = None
    covariance: str | tuple[tuple[str, ...], ...] = "identity"
    covariance_model: str | None = None
    covariance_at: Vector | None = None
    drift: tuple[str, ...] | None = None
    diffusion: tuple[tuple[str, ...], ...] | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    epsilon2: float | None = None
    replacement: bool = True
    extra_noise: float = 0.0
    momentum: float | None = None
    data: DataCase | None = None
    schedule: ScheduleCase | None = None
    subspace: SubspaceCase | None = None

    @property
    def states(self) -> tuple[str, ...]:
        """The variables of the process: parameters or coordinates of a subspace, and with momentum the velocities."""
        positions = self.variables if self.subspace is None else self.subspace.variables
        return positions + (() if self.momentum is None else tuple(f"v_{name}" for name in positions))


@dataclass(frozen=True)
class DomainCase:
    """[domain]: `values` are the keys that belong to the shape."""

    shape: str
    values: Mapping[str, Any]
    reflecting: tuple[str, ...] = ()


@dataclass(frozen=True)
class MeshCase:
    """[mesh]: a size, or the relative error asked for, or both (the size is then that of the first mesh).

    Every command has its own default of what is None.
    """

    size: float | None = None
    tolerance: float | None = None
    scheme: str | None = None
    degree: int | None = None
    max_unknowns: int | None = None


@dataclass(frozen=True)
class ExitCase:
    """[exit]: where the mean exit time is asked, how many moments, which bounds, of which model of SGD.

    `compare`: models whose answers are put beside it. `chain_tolerance`: relative error asked of transfer operators.
    """

    starts: tuple[Vector, ...] | None = None
    moments: int = 2
    bounds: tuple[str, ...] = ("paper", "sharp")
    model: str = "diffusion"
    compare: tuple[str, ...] = ()
    chain_tolerance: float = 2e-3


@dataclass(frozen=True)
class Case:
    """A whole case file.

    Attributes
    ----------
    path : Path
        The file; names of other files in it are relative to its directory.
    """

    path: Path
    process: ProcessCase
    domain: DomainCase
    title: str = ""
    mesh: MeshCase = field(default_factory=MeshCase)
    exit: ExitCase = field(default_factory=ExitCase)
    bounds: BoundsCase = field(default_factory=BoundsCase)
    evolve: EvolveCase = field(default_factory=EvolveCase)
    backward: BackwardCase = field(default_factory=BackwardCase)
    steady: SteadyCase = field(default_factory=SteadyCase)
    simulate: SimulateCase = field(default_factory=SimulateCase)
    landscape: LandscapeCase = field(default_factory=LandscapeCase)

    @property
    def name(self) -> str:
        """The name of the results: the file's, or its directory's when the file is called case.toml."""
        stem = self.path.stem
        return (self.path.resolve().parent.name or stem) if stem == "case" else stem


# --- files -------------------------------------------------------------------------------------------


def load_case(path: str | Path, comm: MPI.Comm) -> Case:
    """Read a case file on rank 0 and return it on every rank. Collective.

    Raises
    ------
    InputError
        On every rank, if the file or anything in it cannot be used.
    """
    return on_root(comm, lambda: read_case(path))


def read_case(path: str | Path) -> Case:
    """Read and check a case file. Not collective. Raises InputError."""
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except IsADirectoryError:
        inside = path / "case.toml"
        remedy = f"Did you mean '{inside}'?" if inside.is_file() else ""
        raise InputError("case file", str(path), "a TOML file, not a directory", remedy) from None
    except OSError as error:
        raise InputError("case file", str(path), "a readable TOML file", f"{error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise InputError("case file", str(path), "a text file in UTF-8", f"Byte {error.start} is not.") from None
    return parse_case(text, path)


def parse_case(text: str, path: str | Path) -> Case:
    """Check the text of a case file; `path` is its place, for messages and relative names. Raises InputError."""
    path = Path(path)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(path, text, error) from None
    except RecursionError:
        raise InputError("case file", str(path), "TOML without deep nesting") from None
    values = read_table(table, "", _TOP, _SECTIONS)
    for name in ("process", "domain"):
        if name not in values:
            raise InputError(name, None, f"a section [{name}]", f"{path} has none.")
    process = _process(values["process"], path.parent)
    states = process.states
    if len(states) > 3:
        allowed = "one to three variables" if process.momentum is None else "one variable: its velocity is another one"
        remedy = "More parameters need a section [process.subspace]." if process.subspace is None else ""
        if process.momentum is not None:
            remedy = "Momentum SGD of more variables can be simulated from Python: fpsolve.simulate_exit."
        raise InputError("process.variables", list(process.variables), allowed, remedy)
    return Case(
        path=path,
        title=values.get("title", ""),
        process=process,
        domain=_domain(values["domain"], states, path.parent, velocities=process.momentum is not None),
        mesh=_mesh(values.get("mesh", {})),
        exit=_exit(values.get("exit", {}), states),
        bounds=read_bounds(values.get("bounds", {}), _SECTIONS),
        evolve=read_evolve(values.get("evolve", {}), states, path.parent, _SECTIONS),
        backward=read_backward(values.get("backward", {}), states, path.parent, _SECTIONS),
        steady=read_steady(values.get("steady", {}), _SECTIONS),
        simulate=read_simulate(values.get("simulate", {}), process, _SECTIONS),
        landscape=read_landscape(values.get("landscape", {}), states, _SECTIONS),
    )


def _syntax_error(path: Path, text: str, error: tomllib.TOMLDecodeError) -> InputError:
    place = re.search(r"at line (\d+)", str(error))
    lines = text.splitlines() or [""]
    number = min(int(place.group(1)), len(lines)) if place else len(lines)
    return InputError(f"{path}, line {number}", lines[number - 1].strip(), "TOML", f"{error}.")


def _models(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InputError(key, value, f"a list out of {', '.join(EXIT_MODELS)}")
    return tuple(dict.fromkeys(r.one_of(*EXIT_MODELS)(key, name) for name in value))


def _momentum(key: str, value: object) -> float:
    momentum = r.number(key, value)
    if not 0 <= momentum < 1:
        raise InputError(key, value, "a number from 0 up to, but not including, 1")
    return momentum


_DATA: dict[str, Reader] = {
    "model": r.formula, "parameters": r.some_names, "inputs": r.names, "target": r.text,
    "sample_loss": r.formula, "file": r.text,
}  # fmt: skip
_PROCESS: dict[str, Reader] = {
    "variables": r.some_names, "loss": r.formula, "covariance": r.covariance,
    "covariance_model": r.one_of(*KINDS), "covariance_at": r.vector,
    "drift": r.formulas, "diffusion": r.matrix, "data": r.table,
    "learning_rate": r.number, "batch_size": r.count, "epsilon2": r.number, "replacement": r.flag,
    "extra_noise": r.number, "momentum": _momentum, "schedule": r.table, "subspace": r.table,
}  # fmt: skip
_SHAPES: dict[str, dict[str, Reader]] = {
    "interval": {"lower": r.number, "upper": r.number},
    "box": {"lower": r.vector, "upper": r.vector},
    "ball": {"center": r.vector, "radius": r.number},
    "sublevel": {"below": r.number, "containing": r.vector, "box": r.corners},
    "mesh": {"file": r.text},
}
_DOMAIN: dict[str, Reader] = {"shape": r.one_of(*_SHAPES), "reflecting": r.parts}
_MESH: dict[str, Reader] = {
    "size": r.positive, "tolerance": r.positive, "scheme": r.one_of("dg", "cg", "sg"), "degree": r.count,
    "max_unknowns": r.count,
}  # fmt: skip
_EXIT: dict[str, Reader] = {
    "starts": r.points, "moments": r.count, "bounds": r.bounds, "model": r.one_of(*EXIT_MODELS), "compare": _models,
    "chain_tolerance": r.positive,
}  # fmt: skip
_TOP: dict[str, Reader] = {"title": r.title}
_TOP |= dict.fromkeys(
    ("process", "domain", "mesh", "exit", "bounds", "evolve", "backward", "steady", "simulate", "landscape"), r.table
)
#: Where a misplaced key belongs.
_SECTIONS: dict[str, set[str]] = {
    "process": set(_PROCESS), "process.data": set(_DATA), "domain": set(_DOMAIN).union(*_SHAPES.values()),
    "mesh": set(_MESH), "exit": set(_EXIT), "bounds": set(BOUNDS),
    "process.schedule": set(SCHEDULE), "process.subspace": set(SUBSPACE),
    "evolve": set(EVOLVE), "backward": set(BACKWARD), "steady": set(STEADY),
    "simulate": set(SIMULATE), "landscape": set(LANDSCAPE),
}  # fmt: skip


# --- sections ------------------------------------------------------------------------------------------


def _process(table: dict[str, Any], folder: Path) -> ProcessCase:
    values = read_table(table, "process", _PROCESS, _SECTIONS)
    if "schedule" in values:
        values["schedule"] = read_schedule(values["schedule"], _SECTIONS)
    given = [name for name in ("loss", "data", "drift") if name in values]
    if values.get("covariance") == "samples" and "data" not in values:
        raise InputError("process.covariance", "samples", "a section [process.data] with it")
    if len(given) != 1:
        raise InputError("process", given, "one of loss, drift (with diffusion) or a section [process.data]")
    if given[0] == "data":
        return _from_data(values, folder)
    need(values, "process", "variables", 'the names in the formulas, such as ["x", "y"]')
    if "subspace" in values:
        values["subspace"] = read_subspace(values["subspace"], values["variables"], _SECTIONS)
    if given[0] == "drift":
        need(values, "process", "diffusion", "a matrix of formulas besides drift")
        for key in values:
            if key not in ("variables", "drift", "diffusion"):
                remedy = "They say all there is to say of the process."
                raise InputError(f"process.{key}", table[key], "no such key besides drift and diffusion", remedy)
    elif "diffusion" in values:
        remedy = "Give covariance and epsilon2, or drift and diffusion."
        raise InputError("process.diffusion", table["diffusion"], "no diffusion besides a loss", remedy)
    _check_noise(values)
    return ProcessCase(**values)


def _from_data(values: dict[str, Any], folder: Path) -> ProcessCase:
    if values.get("covariance") != "samples":
        why = '"samples", since there is a section [process.data]'
        raise InputError("process.covariance", values.get("covariance"), why)
    if "diffusion" in values:
        raise InputError("process.diffusion", values["diffusion"], "no diffusion besides [process.data]")
    data = read_table(values["data"], "process.data", _DATA, _SECTIONS)
    wanted = {"model": "a formula", "parameters": "a list of names", "target": "a column", "file": "a file"}
    for key, why in wanted.items():
        need(data, "process.data", key, why)
    parameters = data["parameters"]
    if values.get("variables", parameters) != parameters:
        given = list(values["variables"])
        raise InputError("process.variables", given, f"the parameters {list(parameters)}", "Remove the key.")
    if "subspace" in values:
        values["subspace"] = read_subspace(values["subspace"], parameters, _SECTIONS)
    _check_noise(values)
    file = folder / data.pop("file")
    return ProcessCase(**(values | {"variables": parameters, "data": DataCase(**({"inputs": ()} | data), file=file)}))


def _check_noise(values: dict[str, Any]) -> None:
    if "momentum" in values and "drift" not in values and "learning_rate" not in values:
        remedy = "One step lasts √η then, and the friction depends on η."
        raise InputError("process.momentum", values["momentum"], "learning_rate with it", remedy)
    if "momentum" in values and "covariance_model" in values:
        raise InputError("process.covariance_model", values["covariance_model"], "no such key with momentum")
    if "covariance_at" in values and "covariance_model" not in values:
        raise InputError("process.covariance_at", list(values["covariance_at"]), "covariance_model with it")
    if "epsilon2" in values and "batch_size" in values and "learning_rate" not in values:
        remedy = "Give learning_rate instead of epsilon2."
        raise InputError("process.batch_size", values["batch_size"], "no batch_size besides epsilon2", remedy)


def _domain(table: dict[str, Any], variables: tuple[str, ...], folder: Path, velocities: bool = False) -> DomainCase:
    need(table, "domain", "shape", f"one of {', '.join(_SHAPES)}")
    shape = _DOMAIN["shape"]("domain.shape", table["shape"])
    own = _SHAPES[shape]
    for key in table:
        if key not in own and key not in _DOMAIN and any(key in other for other in _SHAPES.values()):
            remedy = f"It takes {', '.join(own)}."
            raise InputError(f"domain.{key}", table[key], f'no such key with shape = "{shape}"', remedy)
    values = read_table(table, "domain", _DOMAIN | own, _SECTIONS)
    for key in own:
        need(values, "domain", key, f'a value, since shape = "{shape}"')
    if shape == "interval" and len(variables) != 1 + velocities:  # of the positions
        raise InputError("domain.shape", shape, f'a domain of {len(variables)} dimensions, e.g. "box" or "ball"')
    for key in ("lower", "upper", "center", "containing"):
        if isinstance(values.get(key), tuple):
            r.check_length(f"domain.{key}", values[key], variables)
    for corner, name in zip(values.get("box", ()), ("lower", "upper"), strict=False):
        r.check_length(f"domain.box.{name}", corner, variables)
    if "file" in values:
        values["file"] = folder / values["file"]
    return DomainCase(shape, {key: values[key] for key in own}, values.get("reflecting", ()))


def _mesh(table: dict[str, Any]) -> MeshCase:
    values = read_table(table, "mesh", _MESH, _SECTIONS)
    if "size" not in values:
        values.setdefault("tolerance", DEFAULT_TOLERANCE)
    return MeshCase(**values)


def _exit(table: dict[str, Any], variables: tuple[str, ...]) -> ExitCase:
    starts = table.get("starts")
    if isinstance(starts, list) and len(variables) > 1 and starts and not any(isinstance(x, list) for x in starts):
        raise InputError("exit.starts", starts, "a list of points, each a list", f"Write [{starts}] for one point.")
    values = read_table(table, "exit", _EXIT, _SECTIONS)
    for i, point in enumerate(values.get("starts", ())):
        r.check_length(f"exit.starts[{i}]", point, variables)
    return ExitCase(**values)
