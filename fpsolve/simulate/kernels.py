"""The loops over paths and steps (numba).

The paths of a block advance in lockstep, so that the processor overlaps the latencies of exponentials and
divisions of neighbouring paths; those that have left are taken off the list `active`. Each step has stages
(gradients, noise, exit test), each a loop over the active paths that draws its random numbers path by path:
`vectorised` draws the same numbers in the same order.

State: row p of x holds the position, with momentum followed by the velocity v = z/√η.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numba
import numpy as np

from fpsolve.simulate.compiled import OPTIONS

#: Kinds of regions.
EVERYWHERE, BOX, BALL = 0, 1, 2
#: A pivot below this part of its diagonal entry is rounding: the direction has no noise of its own.
SINGULAR = 1e-14


@lru_cache(maxsize=64)
def samples_kernel(gradient: Any, d: int, momentum: bool) -> Any:
    """Return the step of SGD on batches of samples, with or without momentum.

    ``θ' = θ - (η/b) Σ g_k (+ kick ξ)``; with momentum ``z' = μ z - (η/b) Σ g_k (+ kick ξ)``, ``θ' = θ + z'``.
    Parameters of the step: table, order (paths, N), η, b, batches per epoch (0: with replacement), μ, √η, kick.
    """

    @numba.njit(**OPTIONS)
    def advance(rng, x, before, a, active, n, tick, parameters):  # type: ignore[no-untyped-def]
        table, order, eta, size, epoch, mu, root, kick = parameters
        samples = len(table)
        # batches are cut from a permutation of each path, drawn as far as it is needed (Fisher-Yates)
        first = (tick % epoch) * size if epoch > 0 else 0
        factor = eta / size
        total = np.empty(d)
        for q in range(n):
            p = active[q]
            for i in range(d):
                total[i] = 0.0
            for j in range(first, first + size):
                if epoch > 0:
                    other = j + int(rng.random() * (samples - j))
                    k = order[p, other]
                    order[p, other] = order[p, j]
                    order[p, j] = k
                else:
                    k = int(rng.random() * samples)
                g = gradient(x[p], table[k])
                for i in range(d):
                    total[i] += g[i]
            for i in range(d):
                if momentum:
                    x[p, d + i] = mu * x[p, d + i] - factor * total[i] / root
                    x[p, i] += root * x[p, d + i]
                else:
                    x[p, i] -= factor * total[i]
        if kick > 0:
            for q in range(n):
                p = active[q]
                for i in range(d):
                    push = kick * rng.standard_normal()
                    x[p, i] += push
                    if momentum:
                        x[p, d + i] += push / root

    return advance


@lru_cache(maxsize=64)
def gaussian_kernel(coefficients: Any, d: int, momentum: bool) -> Any:
    """Return the step ``x' = x + h f + sqrt(2h) B ξ``, BB' = a: Euler-Maruyama, or SGD with Gaussian noise.

    B is the Cholesky factor; directions without noise of their own are left out. With momentum the same increment
    enters z. Parameters: table, weight, strength, extra, h, μ, √h.
    """

    @numba.njit(**OPTIONS)
    def advance(rng, x, before, a, active, n, tick, parameters):  # type: ignore[no-untyped-def]
        table, weight, strength, extra, h, mu, root = parameters
        f = np.empty(d)
        noise = np.empty(d)
        xi = np.empty(d)
        factor = np.zeros((d, d))
        scale = math.sqrt(2.0 * h)
        for q in range(n):
            p = active[q]
            before[p] = x[p]
            coefficients(x[p], table, weight, strength, extra, f, a[p])
            for i in range(d):
                xi[i] = rng.standard_normal()
            cholesky_times(a[p], xi, noise, factor)
            for i in range(d):
                step = h * f[i] + scale * noise[i]
                if momentum:
                    x[p, d + i] = mu * x[p, d + i] + step / root
                    x[p, i] += root * x[p, d + i]
                else:
                    x[p, i] += step

    return advance


@numba.njit(**OPTIONS)
def cholesky_times(a, xi, out, factor):  # type: ignore[no-untyped-def]
    """Write B xi to `out`, where BB' = a is the Cholesky factorisation of a semidefinite matrix."""
    d = len(xi)
    for i in range(d):
        out[i] = 0.0
    for j in range(d):
        pivot = a[j, j]
        for k in range(j):
            pivot -= factor[j, k] * factor[j, k]
        diagonal = math.sqrt(pivot) if pivot > SINGULAR * a[j, j] else 0.0
        factor[j, j] = diagonal
        out[j] += diagonal * xi[j]
        for i in range(j + 1, d):
            entry = a[i, j]
            for k in range(j):
                entry -= factor[i, k] * factor[j, k]
            factor[i, j] = entry / diagonal if diagonal > 0 else 0.0
            out[i] += factor[i, j] * xi[j]


@numba.njit(**OPTIONS)
def leave(rng, x, before, a, active, n, tick, region, h, steps, when):  # type: ignore[no-untyped-def]
    """Take the paths that are outside off the list and return how many remain."""
    kind, lower, upper, mirror_low, mirror_up, conormal, center, radius = region
    if kind == EVERYWHERE:
        return n
    if kind == BOX:
        _mirror(x, a, active, n, lower, upper, mirror_low, mirror_up, conormal)
    kept = 0
    for q in range(n):
        p = active[q]
        if kind == BOX:
            inside = True
            for i in range(len(lower)):
                inside &= x[p, i] >= lower[i] and x[p, i] <= upper[i]
        else:
            square = 0.0
            for i in range(len(center)):
                square += (x[p, i] - center[i]) ** 2
            inside = square <= radius * radius
        if inside:
            active[kept] = p
            kept += 1
        else:
            steps[p] = tick + 1
            when[p] = tick + 1.0
    return kept


@numba.njit(**OPTIONS)
def leave_between(rng, x, before, a, active, n, tick, region, h, steps, when):  # type: ignore[no-untyped-def]
    """Do the same for a diffusion, which may also have left between the ends of a step.

    A path that is inside before and after has left in between with the probability ``exp(-d d'/(h n·a n))`` that a
    Brownian bridge reaches a plane at distances d and d' (Gobet's half-space approximation); the time is drawn from
    the bridge's law of first passage.
    """
    kind, lower, upper, mirror_low, mirror_up, conormal, center, radius = region
    if kind == EVERYWHERE:
        return n
    if kind == BOX:
        _mirror(x, a, active, n, lower, upper, mirror_low, mirror_up, conormal)
    kept = 0
    for q in range(n):
        p = active[q]
        if kind == BOX:
            survival, start, end, strength = _box(x, before, a, p, lower, upper, mirror_low, mirror_up, h)
        else:
            survival, start, end, strength = _ball(x, before, a, p, center, radius, h)
        if rng.random() < survival:
            active[kept] = p
            kept += 1
        else:
            steps[p] = tick + 1
            when[p] = tick + _passage(rng, start, abs(end), strength * h)
    return kept


@numba.njit(**OPTIONS)
def _mirror(x, a, active, n, lower, upper, mirror_low, mirror_up, conormal):  # type: ignore[no-untyped-def]
    """Reflect at flat sides along the conormal a n or, for a chain, along n."""
    d = len(lower)
    for i in range(d):
        if not (mirror_low[i] or mirror_up[i]):
            continue
        for q in range(n):
            p = active[q]
            beyond = 0.0
            if mirror_low[i] and x[p, i] < lower[i]:
                beyond = lower[i] - x[p, i]
            if mirror_up[i] and x[p, i] > upper[i]:
                beyond = upper[i] - x[p, i]
            if beyond != 0.0 and conormal and a[p, i, i] > 0:
                for j in range(d):
                    x[p, j] += 2.0 * beyond * a[p, i, j] / a[p, i, i]
            elif beyond != 0.0:
                x[p, i] += 2.0 * beyond


@numba.njit(**OPTIONS)
def _box(x, before, a, p, lower, upper, mirror_low, mirror_up, h):  # type: ignore[no-untyped-def]
    """Return the probability to be still inside, and d, d', n·a n at the side that was most probably crossed."""
    survival, most, start, end, strength = 1.0, -1.0, 0.0, 0.0, 0.0
    for i in range(len(lower)):
        for side in range(2):
            if mirror_up[i] if side else mirror_low[i]:
                continue
            distance = upper[i] - x[p, i] if side else x[p, i] - lower[i]
            earlier = upper[i] - before[p, i] if side else before[p, i] - lower[i]
            crossing = _crossing(earlier, distance, a[p, i, i] * h)
            survival *= 1.0 - crossing
            if crossing > most:
                most, start, end, strength = crossing, earlier, distance, a[p, i, i]
    return survival, start, end, strength


@numba.njit(**OPTIONS)
def _ball(x, before, a, p, center, radius, h):  # type: ignore[no-untyped-def]
    """Return the same for the sphere; its normal is that at the middle of the step."""
    d = len(center)
    square, earlier, middle = 0.0, 0.0, 0.0
    for i in range(d):
        square += (x[p, i] - center[i]) ** 2
        earlier += (before[p, i] - center[i]) ** 2
        middle += (0.5 * (before[p, i] + x[p, i]) - center[i]) ** 2
    strength = 0.0
    if middle > 0:  # at the centre no side is near
        for i in range(d):
            for j in range(d):
                arm = (0.5 * (before[p, i] + x[p, i]) - center[i]) * (0.5 * (before[p, j] + x[p, j]) - center[j])
                strength += a[p, i, j] * arm / middle
    start, end = radius - math.sqrt(earlier), radius - math.sqrt(square)
    return 1.0 - _crossing(start, end, strength * h), start, end, strength


@numba.njit(**OPTIONS)
def _crossing(start, end, variance):  # type: ignore[no-untyped-def]
    """Return the probability that a bridge between distances `start` and `end` reaches 0; half its variance."""
    if not end > 0:
        return 1.0
    return math.exp(-start * end / variance) if variance > 0 else 0.0


@numba.njit(**OPTIONS)
def _passage(rng, start, end, variance):  # type: ignore[no-untyped-def]
    """Return when, within a step of length 1, a bridge from `start` > 0 to -`end` first reaches 0.

    ``t/(1 - t)`` is inverse Gaussian with mean start/end and shape start²/(2 variance).
    """
    if not start > 0:
        return 0.0
    if not (variance > 0 and end > 1e-12 * start):
        return start / (start + end) if end >= 0 else 1.0
    ratio = rng.wald(start / end, start * start / (2.0 * variance))
    return ratio / (1.0 + ratio) if ratio >= 0 else 0.5


@lru_cache(maxsize=64)
def run_kernel(advance: Any, bridge: bool, observe: Any = None) -> Any:
    """Return the loop over `ticks` steps of all active paths; it returns how many remain and the steps taken.

    `observe` is called after each step, if given.
    """
    exits = leave_between if bridge else leave
    observed = observe is not None
    watch = observe if observed else _nothing

    @numba.njit(**OPTIONS)
    def run(rng, x, before, a, active, n, first, ticks, parameters, region, h, steps, when, sums):  # type: ignore[no-untyped-def]
        taken = 0
        for tick in range(first, first + ticks):
            if n == 0:
                break
            advance(rng, x, before, a, active, n, tick, parameters)
            taken += n
            n = exits(rng, x, before, a, active, n, tick, region, h, steps, when)
            if observed:
                watch(x, active, n, sums)
        return n, taken

    return run


@numba.njit(**OPTIONS)
def _nothing(x, active, n, sums):  # type: ignore[no-untyped-def]
    return
