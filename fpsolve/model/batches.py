"""Which steps represent the noise of one step of SGD: all batches, quasi-random ones, or Gaussian increments.

``E u(θ - η g_B(θ))`` is a sum over batches. All of them are taken while there are few (`ENUMERATE`). Otherwise
batches come from several independently scrambled Sobol sequences, samples ordered along the strongest direction of
the noise. At each θ the sequences are shifted digitally by a hash of θ's coordinates, so that the errors at the nodes
of a mesh are independent and average out in the solution instead of adding up. An affine map for each θ and each
sequence gives the steps exactly the mean -ηG and the covariance η²Q/b (without replacement times (N-b)/(N-1)) of all
batches; it is the one nearest to the identity (optimal transport of Gaussians), ``S^-½ (S^½ C S^½)^½ S^-½`` from
covariance S to C. Gaussian noise is treated alike.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import numba
import numpy as np
from scipy.special import gammaln, ndtri
from scipy.stats import qmc

from fpsolve.errors import InputError
from fpsolve.model.chain import Chain, SampleGradients

#: Up to so many batches all are taken.
ENUMERATE = 20_000
#: Independently scrambled sequences, and points of each.
SEQUENCES, POINTS = 8, 128
#: Dimensions of scipy's Sobol sequence; further samples of a batch are drawn at random.
SOBOL = 2_000


@dataclass(frozen=True)
class Batches:
    """Weighted steps that represent one step of a chain; made by `make_batches`.

    Attributes
    ----------
    chain : Chain
    index : ndarray of int, shape (J, b), or None
        The samples of each batch when all batches are there.
    weights : ndarray, shape (J,)
        Positive, of sum 1.
    digits : ndarray of uint64, shape (J, s), or None
        Sobol points times 2^32: d columns for Gaussian noise (of the Gaussian law, or the extra noise), if any, then b
        for the samples, if any.
    order : ndarray of int, shape (N,), or None
        The samples along the strongest direction of the noise.
    sequences : int
        The points are this many independent sequences of equal length, one after the other.
    """

    chain: Chain
    index: np.ndarray | None
    weights: np.ndarray
    digits: np.ndarray | None
    order: np.ndarray | None
    sequences: int

    @property
    def exact(self) -> bool:
        """Whether all batches are there."""
        return self.digits is None

    @property
    def count(self) -> int:
        """The number J of steps."""
        return len(self.weights)

    @property
    def description(self) -> str:
        """What was chosen, for reports."""
        if self.exact:
            return f"all {self.count} batches"
        kind = "Gaussian steps" if self.order is None else "batches"
        return f"{self.count} {kind}, {self.sequences} scrambled Sobol sequences, mean and covariance matched"

    def sequence(self, k: int) -> Batches:
        """Return the k-th sequence alone."""
        size = self.count // self.sequences
        return self._part(np.arange(k * size, (k + 1) * size), 1)

    def halved(self) -> Batches:
        """Return the first half of every sequence."""
        size = self.count // self.sequences
        return self._part(np.arange(self.count).reshape(self.sequences, size)[:, : size // 2].ravel(), self.sequences)

    def _part(self, keep: np.ndarray, sequences: int) -> Batches:
        assert self.digits is not None  # all batches have no parts
        return replace(self, weights=_equal(len(keep)), digits=self.digits[keep], sequences=sequences)

    def steps(self, x: np.ndarray) -> np.ndarray:
        """Return θ' - θ of every represented step at points x (n, d), shape (n, J, d). The caller bounds n·(J + N)."""
        chain = self.chain
        eta = chain.learning_rate
        z = np.zeros((len(x), self.count, chain.dimension))
        if self.index is not None:
            gradients = _sample_gradients(chain, x)
            for column in self.index.T:
                z += gradients[:, column]
            return z * (-eta / self.index.shape[1])
        assert self.digits is not None
        shifts = _hashed(x, self.digits.shape[1])
        covariance = chain.step_covariance(x)
        if self.order is not None:
            first = self.digits.shape[1] - chain.batch_size
            gradients = _sample_gradients(chain, x)
            _add_batches(gradients, self.digits[:, first:], shifts[:, first:], self.order, chain.replacement, z)
            z *= -eta / chain.batch_size
        if self.order is None or chain.extra_noise:
            normal = ndtri(((self.digits[:, : chain.dimension] ^ shifts[:, None, : chain.dimension]) + 0.5) / 2.0**32)
            spread = _root(covariance) if self.order is None else np.sqrt(chain.extra_noise) * eta * np.eye(x.shape[1])
            z += normal @ spread
        return self._matched(z, -eta * chain.landscape.gradient(x), covariance)

    def _matched(self, z: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        """Give the steps of each sequence that mean and covariance."""
        n, _, d = z.shape
        parts = z.reshape(n, self.sequences, -1, d)
        parts = parts - parts.mean(axis=2, keepdims=True)
        own = np.einsum("nrki,nrkj->nrij", parts, parts) / parts.shape[2]
        a = transport(own, covariance[:, None])
        return np.asarray((parts @ a.swapaxes(2, 3)).reshape(n, -1, d) + mean[:, None])


def make_batches(
    chain: Chain, reference: np.ndarray, points: int | None = None, sequences: int = SEQUENCES, seed: int = 0
) -> Batches:
    """Choose the steps that represent one step of `chain`.

    Parameters
    ----------
    chain : Chain
        Without momentum.
    reference : ndarray, shape (d,)
        Where the samples are ordered by their gradients.
    points : int, optional
        Length of each sequence, a power of 2; given, it also prevents the enumeration.
    sequences : int
    seed : int

    Raises
    ------
    InputError
    """
    if chain.momentum:
        remedy = "The transfer operator in position and velocity is not offered; simulate the chain."
        raise InputError("process.momentum", chain.momentum, "no momentum", remedy)
    if points is not None and (isinstance(points, bool) or not isinstance(points, int) or not 2 <= points <= 2**20):
        raise InputError("batches", points, "a power of 2 from 2 to 2**20")
    if points is not None and points & (points - 1):
        raise InputError("batches", points, "a power of 2")
    d, b = chain.dimension, chain.batch_size
    if chain.law == "gaussian":
        digits = _sobol(d, points or POINTS, sequences, seed)
        return Batches(chain, None, _equal(len(digits)), digits, None, sequences)
    n = chain.samples
    assert n is not None
    if points is None and not chain.extra_noise and _how_many(n, b, chain.replacement) <= ENUMERATE:
        index, weights = _every(n, b, chain.replacement)
        return Batches(chain, index, weights, None, None, 1)
    digits = _sobol(b + (d if chain.extra_noise else 0), points or POINTS, sequences, seed)
    return Batches(chain, None, _equal(len(digits)), digits, _order(chain, reference), sequences)


def transport(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the symmetric matrix A (…, d, d) with A S A = C: the optimal map from N(0, S) to N(0, C).

    Where S is singular, C is reached on its range only.
    """
    half, inverse = _root(source), _root(source, inverse=True)
    return np.asarray(inverse @ _root(half @ target @ half) @ inverse)


def _root(matrix: np.ndarray, inverse: bool = False) -> np.ndarray:
    """Return the positive semidefinite square root of matrices (…, d, d), or its pseudo-inverse."""
    values, vectors = np.linalg.eigh(matrix)
    largest = np.maximum(values[..., -1:], 0.0)
    values = np.where(values > 1e-14 * largest, values, 0.0)
    roots = np.sqrt(values)
    if inverse:
        roots = np.where(roots > 0, 1 / np.where(roots > 0, roots, 1.0), 0.0)
    return np.asarray((vectors * roots[..., None, :]) @ vectors.swapaxes(-1, -2))


def _equal(count: int) -> np.ndarray:
    return np.full(count, 1 / count)


def _sample_gradients(chain: Chain, x: np.ndarray) -> np.ndarray:
    assert isinstance(chain.landscape, SampleGradients)
    return chain.landscape.sample_gradients(x)


def _how_many(n: int, b: int, replacement: bool) -> int:
    return math.comb(n + b - 1, b) if replacement else math.comb(n, b)


def _every(n: int, b: int, replacement: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return all batches (J, b), each once whatever its order, and their probabilities (J,)."""
    index: np.ndarray
    if not replacement:
        index = np.array(list(itertools.combinations(range(n), b)), dtype=np.int64).reshape(-1, b)
        return index, _equal(len(index))
    index = np.array(list(itertools.combinations_with_replacement(range(n), b)), dtype=np.int64).reshape(-1, b)
    # orders of a multiset: b! over the factorials of the multiplicities
    run: np.ndarray = np.ones(len(index))
    logarithm: np.ndarray = np.full(len(index), float(gammaln(b + 1)))
    for k in range(1, b):
        run = np.where(index[:, k] == index[:, k - 1], run + 1, 1.0)
        logarithm -= np.log(run)
    weights = np.exp(logarithm - b * np.log(n))
    return index, weights / weights.sum()


def _order(chain: Chain, reference: np.ndarray) -> np.ndarray:
    """Return the samples sorted by their gradient along the strongest direction of the noise."""
    gradients = _sample_gradients(chain, np.asarray(reference, dtype=float)[None, :])[0]
    centred = gradients - gradients.mean(axis=0)
    strongest = np.linalg.eigh(centred.T @ centred)[1][:, -1]
    return np.argsort(centred @ strongest, kind="stable")


def _sobol(dimension: int, points: int, sequences: int, seed: int) -> np.ndarray:
    """Return scrambled Sobol points in the open unit cube, shape (sequences · points, dimension)."""
    every = []
    for child in np.random.SeedSequence(seed).spawn(sequences):
        generator = np.random.default_rng(child)
        used = min(dimension, SOBOL)
        u = qmc.Sobol(used, scramble=True, seed=generator).random_base2(int(math.log2(points)))
        if used < dimension:
            u = np.hstack([u, generator.random((points, dimension - used))])
        every.append(u)
    return np.minimum(np.concatenate(every) * 2.0**32, 2.0**32 - 1).astype(np.uint64)


def _hashed(x: np.ndarray, count: int) -> np.ndarray:
    """Return `count` pseudo-random integers of 32 bits for each point (n, d), a function of its coordinates."""
    bits = np.ascontiguousarray(x, dtype=float).view(np.uint64)
    state = np.zeros(len(x), dtype=np.uint64)
    for column in bits.T:
        state = _mixed(state ^ column)
    counter = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return np.asarray(_mixed(state[:, None] + counter) >> np.uint64(32))


def _mixed(z: np.ndarray) -> np.ndarray:
    """Mix the bits (splitmix64; Steele, Lea, Flood 2014)."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))


@numba.njit(cache=True, nogil=True)
def _add_batches(gradients: Any, digits: Any, shifts: Any, order: Any, replacement: bool, sums: Any) -> None:
    """Add to sums (n, J, d) the gradients (n, N, d) of the batches that shifted points stand for."""
    n, total, d = gradients.shape
    b = digits.shape[1]
    taken = np.empty(b, dtype=np.int64)
    for p in range(n):
        for j in range(digits.shape[0]):
            for k in range(b):
                left = total if replacement else total - k
                place = np.int64(((digits[j, k] ^ shifts[p, k]) * np.uint64(left)) >> np.uint64(32))
                if not replacement:
                    # the place-th of those not yet taken: step over the taken ones, which are sorted
                    at = 0
                    while at < k and taken[at] <= place:
                        place += 1
                        at += 1
                    for m in range(k, at, -1):
                        taken[m] = taken[m - 1]
                    taken[at] = place
                sample = order[place]
                for i in range(d):
                    sums[p, j, i] += gradients[p, sample, i]
