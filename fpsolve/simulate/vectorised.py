"""The same steps in NumPy, for landscapes and domains that are Python functions: all paths of a block at once.

Random numbers are drawn in the order of `kernels`, so that both give the same paths up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fpsolve.model.chain import SampleGradients
from fpsolve.model.domains import Domain, Sublevel
from fpsolve.model.process import Field
from fpsolve.simulate.kernels import SINGULAR

Advance = Callable[..., None]


def samples_step(landscape: SampleGradients, d: int, momentum: bool) -> Advance:
    """Return the step of SGD on batches of samples; see `kernels.samples_kernel`."""

    def advance(
        rng: np.random.Generator, x: np.ndarray, before: np.ndarray, a: np.ndarray, active: np.ndarray, n: int,
        tick: int, parameters: Any,
    ) -> None:  # fmt: skip
        _, order, eta, size, epoch, mu, root, kick = parameters
        now, samples = active[:n], landscape.samples
        first = (tick % epoch) * size if epoch > 0 else 0
        uniform = rng.random((n, size))
        if epoch > 0:
            batch = np.empty((n, size), dtype=np.int64)
            for j in range(size):  # each draw changes the order the next one draws from
                other = first + j + (uniform[:, j] * (samples - first - j)).astype(np.int64)
                batch[:, j] = order[now, other]
                order[now, other] = order[now, first + j]
                order[now, first + j] = batch[:, j]
        else:
            batch = (uniform * samples).astype(np.int64)
        step = -eta / size * landscape.sample_gradients(x[now, :d], batch).sum(axis=1)
        _move(x, now, step, d, momentum, mu, root)
        if kick > 0:
            push = kick * rng.standard_normal((n, d))
            x[now, :d] += push
            if momentum:
                x[now, d:] += push / root

    return advance


def gaussian_step(drift: Field, diffusion: Field, d: int, momentum: bool) -> Advance:
    """Return the step with Gaussian noise; see `kernels.gaussian_kernel`. Here a comes from `diffusion` alone."""

    def advance(
        rng: np.random.Generator, x: np.ndarray, before: np.ndarray, a: np.ndarray, active: np.ndarray, n: int,
        tick: int, parameters: Any,
    ) -> None:  # fmt: skip
        *_, h, mu, root = parameters
        now = active[:n]
        before[now] = x[now]
        a[now] = diffusion(x[now, :d])
        step = h * drift(x[now, :d]) + math.sqrt(2.0 * h) * coloured(a[now], rng.standard_normal((n, d)))
        _move(x, now, step, d, momentum, mu, root)

    return advance


def _move(x: np.ndarray, now: np.ndarray, step: np.ndarray, d: int, momentum: bool, mu: float, root: float) -> None:
    if momentum:
        x[now, d:] = mu * x[now, d:] + step / root
        step = root * x[now, d:]
    x[now, :d] += step


def coloured(a: np.ndarray, xi: np.ndarray) -> np.ndarray:
    """Return B xi, shape (n, d), where BB' = a (n, d, d) is the Cholesky factorisation of semidefinite matrices."""
    d = xi.shape[1]
    factor = np.zeros_like(a)
    for j in range(d):
        entry = a[:, j:, j] - np.einsum("nik,nk->ni", factor[:, j:, :j], factor[:, j, :j])
        some = entry[:, 0] > SINGULAR * a[:, j, j]
        root = np.sqrt(np.where(some, entry[:, 0], 1.0))
        factor[:, j:, j] = np.where(some[:, None], entry / root[:, None], 0.0)
    return np.einsum("nij,nj->ni", factor, xi)


def leave_domain(domain: Domain, bridge: bool) -> Callable[..., int]:
    """Return the exit test of a domain without a kernel, of the signature of `kernels.leave`.

    With `bridge` the distance to the boundary of a sublevel set is taken as ``(below - L)/|∇L|``, and the time of
    passage where the distance, linear in time, is 0.
    """

    def leave(
        rng: np.random.Generator, x: np.ndarray, before: np.ndarray, a: np.ndarray, active: np.ndarray, n: int,
        tick: int, region: Any, h: float, steps: np.ndarray, when: np.ndarray,
    ) -> int:  # fmt: skip
        now, d = active[:n].copy(), domain.dimension
        inside = domain.contains(x[now, :d]) & np.isfinite(x[now, :d]).all(axis=1)
        passed = np.ones(n)
        if bridge:
            assert isinstance(domain, Sublevel)  # checked before the run
            start, end, normal = _level_distances(domain, before[now], x[now])
            variance = h * np.einsum("ni,nij,nj->n", normal, a[now], normal)
            with np.errstate(all="ignore"):
                crossing = np.where(variance > 0, np.exp(-start * end / variance), 0.0)
                passed = np.nan_to_num(start / (start + np.abs(end)), nan=0.5)
            inside &= rng.random(n) < 1.0 - crossing
        left = now[~inside]
        steps[left] = tick + 1
        when[left] = tick + passed[~inside]
        kept = now[inside]
        active[: len(kept)] = kept
        return len(kept)

    return leave


def _level_distances(domain: Sublevel, before: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return distances to the level set before and after a step, and unit normals, to first order."""
    gradient = domain.landscape.gradient(before)
    size = np.linalg.norm(gradient, axis=1)
    with np.errstate(all="ignore"):
        normal = np.where(size[:, None] > 0, gradient / size[:, None], 0.0)
        start = np.where(size > 0, (domain.below - domain.landscape.loss(before)) / size, np.inf)
        later = domain.landscape.gradient(x)
        end = (domain.below - domain.landscape.loss(x)) / np.linalg.norm(later, axis=1)
    return start, end, normal
