"""SGD itself as a Markov chain: what one step does, and with which time it is counted.

Plain: ``θ' = θ - η g_B(θ)``, one step lasts η. g_B is the mean gradient of a batch B of b samples, drawn with or
without replacement (``law = "samples"``), or a Gaussian vector of the same mean and covariance (``"gaussian"``).
A loss given by a formula has no samples, only Q: its chain is the Gaussian one. Noisy SGD (paper 4.1) adds
``η sqrt(δ) ξ``. With momentum: ``z' = μz - η g_B(θ)``, ``θ' = θ + z'``, one step lasts √η.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np

from fpsolve.errors import InputError
from fpsolve.model.process import Landscape, NoiseLevel, Process, noise_level, sgd_process

LAWS = ("samples", "gaussian")


@runtime_checkable
class SampleGradients(Protocol):
    """A landscape that is a mean over samples."""

    @property
    def samples(self) -> int:
        """The number of samples N."""

    def sample_gradients(self, x: np.ndarray, index: np.ndarray | None = None) -> np.ndarray:
        """Return ∇L_k of every sample, shape (n, N, d); of the samples `index` (n, b) only, shape (n, b, d)."""


@dataclass(frozen=True)
class Chain:
    """The Markov chain of SGD. Made by `sgd_chain`, which checks its arguments.

    Attributes
    ----------
    landscape : Landscape
        Also `SampleGradients` when `law` is ``"samples"``.
    learning_rate, batch_size : float, int
        η and b.
    replacement : bool
        Whether a batch may hold a sample twice.
    extra_noise : float
        δ of noisy SGD.
    momentum : float
        μ in [0, 1).
    law : "samples" or "gaussian"
    """

    landscape: Landscape
    learning_rate: float
    batch_size: int = 1
    replacement: bool = True
    extra_noise: float = 0.0
    momentum: float = 0.0
    law: str = "samples"

    @property
    def dimension(self) -> int:
        """The number of parameters d."""
        return len(self.landscape.variables)

    @property
    def step_time(self) -> float:
        """The time that one step lasts: η, with momentum √η."""
        return self.learning_rate if self.momentum == 0 else float(np.sqrt(self.learning_rate))

    @property
    def samples(self) -> int | None:
        """The number of samples N, None for a loss given by a formula."""
        return self.landscape.samples if isinstance(self.landscape, SampleGradients) else None

    @property
    def level(self) -> NoiseLevel:
        """The strength of the noise in the diffusion limit."""
        return noise_level(self.learning_rate, self.batch_size, None, self.replacement, self.samples, self.extra_noise)

    def step_covariance(self, x: np.ndarray) -> np.ndarray:
        """Return the covariance of one step θ' - θ at points x (n, d), shape (n, d, d): 2ηa of the diffusion limit."""
        level = self.level
        q = self.landscape.covariance(x)
        return 2 * self.learning_rate * (level.epsilon2 * level.scale * q + level.extra * np.eye(self.dimension))

    def gaussian(self) -> Chain:
        """Return the chain with Gaussian noise of the same mean and covariance."""
        return replace(self, law="gaussian")

    def diffusion(self) -> Process:
        """Return the diffusion limit of first order (paper (2)); plain SGD only."""
        if self.momentum:
            raise InputError("process.momentum", self.momentum, "no momentum", "Its limit is MomentumSGD's process.")
        return sgd_process(self.landscape, self.level)


def sgd_chain(
    landscape: Landscape,
    learning_rate: float | None,
    batch_size: int | None = None,
    replacement: bool = True,
    extra_noise: float = 0.0,
    momentum: float = 0.0,
    law: str | None = None,
    key: str = "process",
) -> Chain:
    """Return the chain of SGD on a landscape, ``θ' = θ - η g_B(θ)``. Not collective.

    One step lasts the time η, with momentum √η.

    Parameters
    ----------
    landscape : Landscape
        Of formulas, samples or a Python function.
    learning_rate, batch_size : float, int
        η and b; b = 1 by default.
    replacement : bool
        Whether a batch may hold a sample twice.
    extra_noise : float
        δ of noisy SGD.
    momentum : float
        μ in [0, 1): ``z' = μ z - η g_B(θ)``, ``θ' = θ + z'``.
    law : "samples" or "gaussian", optional
        By default ``"samples"`` where the landscape has samples.

    Raises
    ------
    InputError
        If a value is missing or out of range: a chain needs η, ε² alone does not say how long a step is.
    """
    sampled = isinstance(landscape, SampleGradients)
    if learning_rate is None:
        raise InputError(
            f"{key}.learning_rate", None, "a positive number", "ε² alone does not tell the step of a chain."
        )
    law = law or ("samples" if sampled else "gaussian")
    if law not in LAWS:
        raise InputError(f"{key}.law", law, f"one of {', '.join(LAWS)}")
    if law == "samples" and not sampled:
        raise InputError(f"{key}.law", law, '"gaussian"', "A loss given by a formula has no samples.")
    if isinstance(momentum, bool) or not isinstance(momentum, (int, float)) or not 0 <= momentum < 1:
        raise InputError(f"{key}.momentum", momentum, "a number from 0 up to, but not including, 1")
    size = 1 if batch_size is None else batch_size
    chain = Chain(landscape, learning_rate, size, replacement, extra_noise, float(momentum), law)
    noise_level(learning_rate, size, None, replacement, chain.samples, extra_noise, key)  # checks the values
    return chain
