"""Random exit-time problems: polynomial losses, Q of rank one or full, boxes and balls; the same ones on every machine.

The mean exit time is finite in all of them: there is a direction e with e·Q e >= c > 0 on the whole domain, so that
e·X alone leaves the (bounded) domain in finite mean time, whatever the drift.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

import fpsolve as fp
from fpsolve.model.domains import Ball, Box, Interval
from fpsolve.model.process import Process

VARIABLES = ("x", "y", "z")
#: Largest allowed (max L - min L)/(ε² min e·Qe) over the domain: exit times stay below e to this power or so.
BARRIER = 9.0
#: Points along each axis at which that ratio is looked at.
SAMPLES = 15


@dataclass(frozen=True)
class RandomProblem:
    """One problem: L, Q, ε² and the domain.

    Attributes
    ----------
    index : int
        Its place in the list; the classes follow from it.
    loss : str
    covariance : d × d formulas
    epsilon2 : float
    domain : Interval, Box or Ball
    starts : ndarray, shape (3, d)
        The domain's centre and two random points.
    rank : "full" or "rank 1"
    dependence : "constant" or "quadratic"
        How Q depends on x.
    potential : "confining" or "general"
        Confining: with a minimum inside the domain.
    """

    index: int
    loss: str
    covariance: tuple[tuple[str, ...], ...]
    epsilon2: float
    domain: Interval | Box | Ball
    starts: np.ndarray
    rank: str
    dependence: str
    potential: str

    @property
    def dimension(self) -> int:
        """d."""
        return len(self.covariance)

    @property
    def shape(self) -> str:
        """``interval``, ``box`` or ``ball``."""
        return type(self.domain).__name__.lower()

    @property
    def process(self) -> Process:
        """SGD's diffusion of this problem."""
        covariance = [list(row) for row in self.covariance]
        return fp.SGD(self.loss, covariance, VARIABLES[: self.dimension], epsilon2=self.epsilon2)

    @property
    def digest(self) -> str:
        """Say in 16 hexadecimal digits what the problem is: reference values are stored beside it."""
        lower, upper = self.domain.bounding_box()
        numbers = [float(v).hex() for v in (self.epsilon2, *lower, *upper, *self.starts.ravel())]
        text = json.dumps([self.loss, self.covariance, self.shape, numbers])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def random_problems(seed: int, count: int, dimension: int = 2) -> list[RandomProblem]:
    """Return the first `count` problems of a seed; each depends on seed, dimension and its own index only.

    Parameters
    ----------
    seed : int
    count : int
        Sixteen consecutive ones have all combinations of rank, dependence, shape and potential.
    dimension : int
        1, 2 or 3.
    """
    return [random_problem(seed, index, dimension) for index in range(count)]


def random_problem(seed: int, index: int, dimension: int = 2) -> RandomProblem:
    """Return one problem of a seed; see `random_problems`."""
    # seeded by a text, `Random` gives the same numbers in every version of Python
    random = Random(f"fpsolve {seed} {dimension} {index}")
    rank, dependence = ("full", "rank 1")[index % 2], ("constant", "quadratic")[index // 2 % 2]
    round_, potential = index // 4 % 2 == 0, ("confining", "general")[index // 8 % 2]
    while True:
        domain, center = _domain(random, dimension, round_)
        half = domain.bounding_box()[1] - center
        reach = float(half.max() if round_ else np.linalg.norm(half))
        covariance = _covariance(random, center, reach, rank, dependence, aligned=index // 16 % 3 == 2)
        loss = (
            _confining(random, center, float(half.min())) if potential == "confining" else _general(random, dimension)
        )
        epsilon2 = _decimal(random, 0.2, 1.5)
        problem = RandomProblem(
            index, loss, covariance, epsilon2, domain, _starts(random, domain), rank, dependence, potential
        )
        if _barrier(problem) <= BARRIER:
            return problem


def _decimal(random: Random, low: float, high: float) -> float:
    """Return a random number with two decimals, an exact one once it stands in a formula."""
    return random.randint(math.ceil(100 * low), math.floor(100 * high)) / 100


def _domain(random: Random, d: int, round_: bool) -> tuple[Interval | Box | Ball, np.ndarray]:
    center = [_decimal(random, -0.5, 0.5) for _ in range(d)]
    sizes = [_decimal(random, 0.4, 1.2) for _ in range(d)]
    lower = [round(c - s, 2) for c, s in zip(center, sizes, strict=True)]
    upper = [round(c + s, 2) for c, s in zip(center, sizes, strict=True)]
    middle = (np.array(lower) + np.array(upper)) / 2
    if d == 1:
        return Interval(lower[0], upper[0]), middle
    return (Ball(tuple(center), sizes[0]), np.array(center)) if round_ else (Box(tuple(lower), tuple(upper)), middle)


def _linear(random: Random, constant: float, center: np.ndarray, slope: float) -> str:
    """Return ``constant + Σ s_i (x_i - c_i)`` with random |s_i| <= slope."""
    terms = [f"{constant:g}"]
    for name, c in zip(VARIABLES, center, strict=False):
        s = _decimal(random, -slope, slope) if slope >= 0.01 else 0.0
        terms += [f"{s:+g}*({name} - ({c:g}))"] if s else []
    return "(" + " ".join(terms) + ")"


def _covariance(
    random: Random, center: np.ndarray, reach: float, rank: str, dependence: str, aligned: bool
) -> tuple[tuple[str, ...], ...]:
    """Return ``a aᵀ`` or ``A Aᵀ + δ I``, A constant or linear in x.

    The slopes of the first column a are so small that a·e >= |a(centre)|/3, where e is its direction in the centre.
    """
    d = len(center)
    center = np.round(center, 2)
    if aligned and d > 1:
        axis = random.randrange(d)
        first = [_decimal(random, 0.6, 1.4) if i == axis else 0.0 for i in range(d)]
    else:
        while not 0.6 <= math.hypot(*(first := [_decimal(random, -1.2, 1.2) for _ in range(d)])) <= 1.5:
            pass
    columns = (
        [first] if rank == "rank 1" else [first, *[[_decimal(random, -1, 1) for _ in range(d)] for _ in first[1:]]]
    )
    slope = 0.0 if dependence == "constant" else 2 / 3 * math.hypot(*first) / (d * reach)
    texts = [[_linear(random, entry, center, slope) for entry in column] for column in columns]
    delta = 0.0 if rank == "rank 1" else _decimal(random, 0.05, 0.5)
    rows = []
    for i in range(d):
        row = [" + ".join(f"{column[i]}*{column[j]}" for column in texts) for j in range(d)]
        row[i] += f" + {delta:g}" if delta else ""
        rows.append(tuple(row))
    return tuple(rows)


def _confining(random: Random, center: np.ndarray, inner: float) -> str:
    """Return a positive quadratic form, quartic terms and a small cubic one about a point near the centre.

    The point is less than half of `inner`, the distance of the centre from the boundary, away; it is a minimum.
    """
    at = [round(c + _decimal(random, -0.4, 0.4) * inner / math.sqrt(len(center)), 2) for c in center]
    shifted = [f"({name} - ({c:g}))" for name, c in zip(VARIABLES, at, strict=False)]
    terms = [f"{_decimal(random, 0.2, 2.0):g}*{s}**2" for s in shifted]
    terms += [f"{_decimal(random, 0.0, 1.0):g}*{s}**4" for s in shifted]
    terms += [f"{_decimal(random, -0.2, 0.2):g}*{s}*{t}" for s, t in itertools.combinations(shifted, 2)]
    terms += [f"{_decimal(random, -0.2, 0.2):g}*{random.choice(shifted)}**2*{random.choice(shifted)}"]
    return " + ".join(terms)


def _general(random: Random, d: int) -> str:
    """Return a polynomial of degree 2 to 4 with a random coefficient at each monomial."""
    degree = random.randint(2, 4)
    terms = []
    for powers in itertools.product(range(degree + 1), repeat=d):
        if 0 < sum(powers) <= degree:
            factors = ((name, power) for name, power in zip(VARIABLES, powers, strict=False) if power)
            monomial = "*".join(f"{name}**{power}" if power > 1 else name for name, power in factors)
            terms.append(f"{_decimal(random, -1, 1):g}*{monomial}")
    return " + ".join(terms)


def _starts(random: Random, domain: Interval | Box | Ball) -> np.ndarray:
    """Return the centre and two points up to 0.7 of the way to the boundary."""
    lower, upper = domain.bounding_box()
    center, half = (lower + upper) / 2, (upper - lower) / 2
    rows = [center]
    for _ in range(2):
        y = np.array([random.uniform(-1, 1) for _ in center])
        if isinstance(domain, Ball):
            y /= max(1.0, float(np.linalg.norm(y)))
        rows.append(center + 0.7 * half * y)
    return np.array(rows)


def _barrier(problem: RandomProblem) -> float:
    """Return (max L - min L)/(ε² min e·Qe) at points of the domain; e: largest eigenvector in the centre."""
    lower, upper = problem.domain.bounding_box()
    axes = [np.linspace(a, b, SAMPLES) for a, b in zip(lower, upper, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    points = points[problem.domain.contains(points)]
    landscape = problem.process.landscape
    assert landscape is not None
    loss = landscape.loss(points)
    e = np.linalg.eigh(landscape.covariance(problem.starts[:1])[0])[1][:, -1]
    noise = np.einsum("i,nij,j->n", e, landscape.covariance(points), e).min()
    return float(np.ptp(loss) / (problem.epsilon2 * noise))


def outside(starts: Any, mean: Sequence[float], error: Sequence[float]) -> float:
    """Return how far values lie outside of enclosures (with ``lower`` and ``upper``), in their errors.

    At most 0 when all are inside, 1 when they are inside up to their errors, inf where an enclosure is empty or nan.
    """
    apart = [max(s.lower - u, u - s.upper) / e for s, u, e in zip(starts, mean, error, strict=True)]
    return float("inf") if any(not s.lower <= s.upper for s in starts) else max(apart)
