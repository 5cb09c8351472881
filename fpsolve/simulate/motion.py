"""From a chain or a diffusion process to the step that a simulation repeats."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fpsolve.errors import InputError
from fpsolve.model.chain import Chain, SampleGradients
from fpsolve.model.expressions import Formula
from fpsolve.model.momentum import KineticProcess
from fpsolve.model.process import Field, FormulaLandscape, Landscape, Process
from fpsolve.model.samples import SampleLandscape
from fpsolve.simulate import kernels
from fpsolve.simulate.compiled import (
    formula_coefficients,
    sample_coefficients,
    sample_gradient_code,
    weighted_table,
)
from fpsolve.simulate.vectorised import Advance, gaussian_step, samples_step

#: Entries of the permutations of one block of paths, 4 bytes each.
ORDER_ENTRIES = 2**26
#: Paths that advance together; their states stay in the processor's first cache.
BLOCK = 500


@dataclass(frozen=True)
class EulerMaruyama:
    """Paths of a diffusion process by Euler-Maruyama, ``x' = x + h f + sqrt(2h) B ξ`` with BB' = a.

    Attributes
    ----------
    process : Process
    step : float
        h, in the process's unit of time.
    bridge : bool
        Whether exits between the ends of a step are simulated too, by a Brownian bridge: the bias of mean exit
        times is then O(h) instead of O(√h) (Gobet, Stochastic Processes and their Applications 87 (2000)).

    Raises
    ------
    InputError
        If the step is not a positive number.
    """

    process: Process
    step: float
    bridge: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.step, bool) or not isinstance(self.step, (int, float)) or not 0 < self.step < np.inf:
            raise InputError("step", self.step, "a positive number")


@dataclass(frozen=True)
class Motion:
    """One step, in machine code where possible.

    Attributes
    ----------
    names : tuple of str
        The coordinates of the state: positions, then velocities v = z/√η with momentum.
    positions : int
        How many of them are positions.
    step_time : float
        The time of one step.
    bridge : bool
        Whether exits within a step are looked for.
    velocities : bool
        Whether the state holds velocities.
    kernel, vectorised : the step in numba (None where there is none) and in NumPy
    parameters : callable
        Returns the parameters of the step for a block of so many paths.
    samples : int
        The samples that each path keeps an order of; 0 with replacement.
    matrices : int
        0, or the dimension of the diffusion matrix that is kept of each path.
    """

    names: tuple[str, ...]
    positions: int
    step_time: float
    bridge: bool
    velocities: bool
    kernel: Any
    vectorised: Advance
    parameters: Callable[[int], tuple[Any, ...]]
    samples: int = 0
    matrices: int = 0

    @property
    def width(self) -> int:
        """The number of coordinates."""
        return len(self.names)

    @property
    def block(self) -> int:
        """How many paths advance together."""
        return BLOCK if self.samples == 0 else max(1, min(BLOCK, ORDER_ENTRIES // self.samples))


def state_of(source: Chain | EulerMaruyama) -> tuple[tuple[str, ...], int]:
    """Return the names of the coordinates of the state and how many of them are positions.

    Raises
    ------
    InputError
        If it is neither a chain nor Euler-Maruyama.
    """
    if isinstance(source, EulerMaruyama):
        return source.process.variables, source.process.dimension
    if not isinstance(source, Chain):
        raise InputError("chain", source, "a Chain or EulerMaruyama")
    names = tuple(source.landscape.variables)
    velocities = tuple(f"v_{name}" for name in names) if source.momentum else ()
    return names + velocities, len(names)


def motion_of(source: Chain | EulerMaruyama, shuffle: bool, near: np.ndarray) -> Motion:
    """Return the step of a chain or of Euler-Maruyama.

    Parameters
    ----------
    source : Chain or EulerMaruyama
    shuffle : bool
        Batches are cut from a random permutation of all samples, a new one for each epoch; samples beyond the last
        full batch are left out of that epoch.
    near : ndarray, shape (n, d)
        Points at which a process is compared with the drift and noise of its landscape: where they are equal, the
        landscape's formulas are compiled.

    Raises
    ------
    InputError
        If the law, batch size and sampling do not go together.
    """
    if isinstance(source, EulerMaruyama):
        return _diffusion(source, shuffle, near)
    return _gaussian_chain(source, shuffle) if source.law == "gaussian" else _sample_chain(source, shuffle)


def _sample_chain(chain: Chain, shuffle: bool) -> Motion:
    landscape, size = chain.landscape, chain.batch_size
    assert isinstance(landscape, SampleGradients)  # the law has been checked
    samples = landscape.samples
    names, d = state_of(chain)
    if shuffle and not chain.replacement:
        remedy = "Batches of an epoch never share a sample."
        raise InputError("replacement", chain.replacement, "true, the default, with epoch shuffling", remedy)
    if (shuffle or not chain.replacement) and size > samples:
        raise InputError("batch_size", size, f"at most the {samples} samples")
    epoch = samples // size if shuffle else (0 if chain.replacement else 1)
    momentum = chain.momentum > 0
    kernel, table = None, np.zeros((samples, 1))
    if isinstance(landscape, SampleLandscape):
        kernel = kernels.samples_kernel(sample_gradient_code(landscape), d, momentum)
        table = np.ascontiguousarray(landscape.table.T)
    eta = float(chain.learning_rate)
    numbers = (eta, size, epoch, chain.momentum, math.sqrt(eta), eta * math.sqrt(chain.extra_noise))

    def parameters(paths: int) -> tuple[Any, ...]:
        rows, columns = (paths, samples) if epoch else (1, 1)
        order = np.tile(np.arange(columns, dtype=np.int32), (rows, 1))
        return (table, order, *numbers)

    return Motion(
        names, d, chain.step_time, False, momentum, kernel, samples_step(landscape, d, momentum), parameters,
        samples=samples if epoch else 0,
    )  # fmt: skip


def _gaussian_chain(chain: Chain, shuffle: bool) -> Motion:
    if shuffle:
        raise InputError("shuffle", shuffle, "false: Gaussian noise knows no epochs")
    names, d = state_of(chain)
    level, landscape = chain.level, chain.landscape
    strength = level.epsilon2 * level.scale

    def drift(x: np.ndarray) -> np.ndarray:
        return -landscape.gradient(x)

    def diffusion(x: np.ndarray) -> np.ndarray:
        return strength * landscape.covariance(x) + level.extra * np.eye(d)

    momentum = chain.momentum > 0
    coefficients, *data = _landscape_code(landscape)
    eta = float(chain.learning_rate)
    numbers = (*data, strength, level.extra, eta, chain.momentum, math.sqrt(eta))
    kernel = kernels.gaussian_kernel(coefficients, d, momentum) if coefficients is not None else None
    step = gaussian_step(drift, diffusion, d, momentum)
    return Motion(
        names, d, chain.step_time, False, momentum, kernel, step, lambda paths: numbers, matrices=d
    )  # fmt: skip


def _diffusion(source: EulerMaruyama, shuffle: bool, near: np.ndarray) -> Motion:
    process, d = source.process, source.process.dimension
    if shuffle:
        raise InputError("shuffle", shuffle, "false: the diffusion knows no epochs")
    nothing = np.zeros((1, 1)), np.zeros(1)
    coefficients, data, strength, extra = None, nothing, 1.0, 0.0
    drift, diffusion = process.drift, process.diffusion
    if isinstance(drift, Formula) and isinstance(diffusion, Formula):
        coefficients = formula_coefficients(drift.entries, diffusion.entries, process.variables)
    elif process.landscape is not None and process.epsilon2 is not None:
        strength, extra = process.epsilon2 * process.covariance_scale, process.extra_diffusion
        if _same(process, process.landscape, strength, extra, near):
            coefficients, *data = _landscape_code(process.landscape)  # type: ignore[assignment]
    numbers = (*data, strength, extra, float(source.step), 0.0, 1.0)
    kernel = kernels.gaussian_kernel(coefficients, d, False) if coefficients is not None else None
    velocities = isinstance(process, KineticProcess)
    return Motion(
        process.variables, d, float(source.step), source.bridge, velocities, kernel,
        gaussian_step(drift, diffusion, d, False), lambda paths: numbers, matrices=d,
    )  # fmt: skip


def _landscape_code(landscape: Landscape) -> tuple[Any, np.ndarray, np.ndarray]:
    """Return the compiled coefficients of -∇L and Q with the data they need; None for Python functions."""
    nothing = np.zeros((1, 1)), np.zeros(1)
    if isinstance(landscape, FormulaLandscape):
        drift = tuple(-entry for entry in landscape.loss_formula.derivative().entries)
        code = formula_coefficients(drift, landscape.covariance_formula.entries, landscape.variables)
        return code, *nothing
    if isinstance(landscape, SampleLandscape):
        code = sample_coefficients(sample_gradient_code(landscape), len(landscape.variables))
        return code, *weighted_table(landscape)
    return None, *nothing


def _same(process: Process, landscape: Landscape, strength: float, extra: float, near: np.ndarray) -> bool:
    """Tell whether a process is the first-order diffusion of its landscape: others carry a landscape too."""
    points = near[:4, None, :] + 0.1 * np.random.default_rng(0).standard_normal((4, near.shape[1]))
    points = points.reshape(-1, near.shape[1])
    identity = np.eye(process.dimension)
    pairs: list[tuple[Field, np.ndarray]] = [
        (process.drift, -landscape.gradient(points)),
        (process.diffusion, strength * landscape.covariance(points) + extra * identity),
    ]
    return all(
        np.allclose(field(points), values, rtol=1e-12, atol=1e-14 * np.abs(values).max(), equal_nan=True)
        for field, values in pairs
    )
