"""Loss and gradient covariance as means over samples, whatever gives the terms (mathematics.md sections 1 and 6).

With ``g_k``, ``H_k`` the gradient and Hessian of the k-th sample's loss and G, H their means over N samples,

* ``Q = (1/N) Σ_k (g_k - G)(g_k - G)ᵀ``, which is ``(1/N) Σ g_k g_kᵀ - G Gᵀ`` without its cancellation,
* ``(div Q)_i = (1/N) Σ_k Σ_j [(H_k - H)_ij (g_k - G)_j + (g_k - G)_i (H_k - H)_jj]``.

Points × samples are worked off in blocks of bounded memory, points on several threads. Moments of blocks are merged by
Chan's update, so Q stays symmetric and positive semidefinite up to rounding for any number of samples. Blocks and the
order of merging do not depend on the number of threads, so neither do the results.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fpsolve.model.threads import for_each

BLOCK = 32_768
"""Entries (points × samples) of an array in flight: 256 kB, so that operations stay in cache."""
IN_FLIGHT = 2**22
"""Entries of all arrays of a block together, for models of many parameters: 32 MB."""

Kind = Literal["loss", "gradient", "hessian"]
Pairs = Sequence[tuple[int, int]]
#: Number of samples, means of the rows and sums of centred products, of one block of samples.
Block = tuple[int, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class SampleStatistics:
    """∇L (n, d), D²L (n, d, d), Q (n, d, d) and div Q (n, d) at n points, from one pass over the samples."""

    gradient: np.ndarray
    hessian: np.ndarray
    covariance: np.ndarray
    covariance_divergence: np.ndarray


class SampleMeans(ABC):
    """A landscape that is a mean over samples; implements `process.Landscape` but for `enclosure`.

    A subclass gives the terms: `columns`.
    """

    variables: tuple[str, ...]

    @property
    @abstractmethod
    def samples(self) -> int:
        """The number of samples N."""

    @property
    def threaded(self) -> bool:
        """Whether the terms are computed by code that lets other threads run."""
        return True

    @abstractmethod
    def columns(self, kind: Kind, x: np.ndarray, start: int, stop: int) -> list[np.ndarray]:
        """Return rows of terms at points x (n, d) for the samples from `start` to `stop`, each (n, stop - start).

        One row for the loss, d for the gradient; the gradient and the upper triangle of the Hessian, row by
        row, for ``"hessian"``.
        """

    def arrays(self, kind: Kind) -> int:
        """Return how many arrays (points × samples) `columns` has in flight if more than it returns; else 0."""
        return 0

    def repaired(self, name: str, values: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return `values` (n, …) of the method `name` with those replaced that are not finite but could be."""
        return values

    def loss(self, x: np.ndarray) -> np.ndarray:
        """Return L, shape (n,)."""
        mean, _ = self._moments("loss", x, [])
        return self.repaired("loss", mean[0], x)

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """Return ∇L, shape (n, d)."""
        mean, _ = self._moments("gradient", x, [])
        return self._gradient(mean, x)

    def hessian(self, x: np.ndarray) -> np.ndarray:
        """Return D²L, shape (n, d, d)."""
        mean, _ = self._moments("hessian", x, [])
        return self._hessian(mean, x)

    def covariance(self, x: np.ndarray) -> np.ndarray:
        """Return Q, shape (n, d, d), exactly symmetric."""
        _, products = self._moments("gradient", x, _covariance_pairs(len(self.variables)))
        return self._covariance(products, x)

    def covariance_divergence(self, x: np.ndarray) -> np.ndarray:
        """Return div Q, shape (n, d)."""
        _, products = self._moments("hessian", x, _divergence_pairs(len(self.variables)))
        return self._divergence(products, x)

    def covariance_derivative(self, x: np.ndarray) -> np.ndarray:
        """Return ∂_k Q_ij, shape (n, d, d, d), k last: (1/N) Σ [(H - H̄)_ik (g - ḡ)_j + (g - ḡ)_i (H - H̄)_jk]."""
        d = len(self.variables)
        pairs = [(d + packed, j) for packed in range(d * (d + 1) // 2) for j in range(d)]
        _, products = self._moments("hessian", x, pairs)
        mixed = products.reshape(-1, d, products.shape[1])  # (upper triangle of H, g, n)
        whole = np.stack([mixed[packed_index(i, k, d)] for i in range(d) for k in range(d)])
        half = np.moveaxis(whole.reshape(d, d, d, -1), (0, 1, 2, 3), (1, 3, 2, 0))  # i k j n -> n i j k
        return self.repaired("covariance_derivative", np.ascontiguousarray(half + half.swapaxes(1, 2)), x)

    def statistics(self, x: np.ndarray) -> SampleStatistics:
        """Return ∇L, D²L, Q and div Q together; cheaper than one after the other."""
        d = len(self.variables)
        pairs = _covariance_pairs(d)
        mean, products = self._moments("hessian", x, [*pairs, *_divergence_pairs(d)])
        return SampleStatistics(
            self._gradient(mean[:d], x),
            self._hessian(mean, x),
            self._covariance(products[: len(pairs)], x),
            self._divergence(products[len(pairs) :], x),
        )

    def _gradient(self, mean: np.ndarray, x: np.ndarray) -> np.ndarray:
        return self.repaired("gradient", np.ascontiguousarray(mean.T), x)

    def _hessian(self, mean: np.ndarray, x: np.ndarray) -> np.ndarray:
        d = len(self.variables)
        return self.repaired("hessian", _unpack(mean[d:], d), x)

    def _covariance(self, products: np.ndarray, x: np.ndarray) -> np.ndarray:
        return self.repaired("covariance", _unpack(products, len(self.variables)), x)

    def _divergence(self, products: np.ndarray, x: np.ndarray) -> np.ndarray:
        d = len(self.variables)
        rows = products.reshape(d, d + 1, products.shape[1]).sum(axis=1)
        return self.repaired("covariance_divergence", np.ascontiguousarray(rows.T), x)

    def _moments(self, kind: Kind, x: np.ndarray, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
        """Return means over the samples, (rows, n), and mean centred products of pairs of rows, (pairs, n).

        Row d + d(d+1)/2 (after those of `columns`) is the trace of the Hessian.
        """
        d = len(self.variables)
        x = np.asarray(x, dtype=float).reshape(-1, d)
        rows = {"loss": 1, "gradient": d, "hessian": d + d * (d + 1) // 2}[kind]
        mean, products = np.empty((rows, len(x))), np.empty((len(pairs), len(x)))
        entries = min(BLOCK, max(256, IN_FLIGHT // max(rows, self.arrays(kind))))
        width = min(self.samples, entries)
        step = max(1, entries // width)

        def chunk(start: int) -> None:
            part = slice(start, start + step)
            with np.errstate(all="ignore"):
                merged = self._block(kind, x[part], 0, width, pairs)
                for begin in range(width, self.samples, width):
                    merged = _merge(merged, self._block(kind, x[part], begin, begin + width, pairs), pairs)
            mean[:, part] = merged[1][:rows]
            products[:, part] = merged[2] / self.samples

        for_each(chunk, range(0, len(x), step), self.threaded)
        return mean, products

    def _block(self, kind: Kind, x: np.ndarray, start: int, stop: int, pairs: Pairs) -> Block:
        stop = min(stop, self.samples)
        columns = self.columns(kind, x, start, stop)
        if pairs and max(max(pair) for pair in pairs) == len(columns):
            d = len(self.variables)
            diagonal = [d + packed_index(i, i, d) for i in range(d)]
            columns.append(np.sum([columns[i] for i in diagonal], axis=0))
        mean = np.array([column.mean(axis=1) for column in columns])
        products = np.empty((len(pairs), len(x)))
        if pairs:
            centred = [column - m[:, None] for column, m in zip(columns, mean, strict=True)]
            for row, (a, b) in zip(products, pairs, strict=True):
                row[:] = np.einsum("pk,pk->p", centred[a], centred[b])
        return stop - start, mean, products


def _merge(first: Block, second: Block, pairs: Pairs) -> Block:
    count = first[0] + second[0]
    change = second[1] - first[1]
    mean = first[1] + change * (second[0] / count)
    products = first[2] + second[2]
    for row, (a, b) in zip(products, pairs, strict=True):
        row += change[a] * change[b] * (first[0] * second[0] / count)
    return count, mean, products


def packed_index(i: int, j: int, d: int) -> int:
    """Return the place of entry (i, j) in the upper triangle of a d × d matrix, row by row."""
    i, j = min(i, j), max(i, j)
    return i * d - i * (i - 1) // 2 + j - i


def _unpack(packed: np.ndarray, d: int) -> np.ndarray:
    full = np.stack([packed[packed_index(i, j, d)] for i in range(d) for j in range(d)], axis=1)
    return full.reshape(packed.shape[1], d, d)


def _covariance_pairs(d: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(d) for j in range(i, d)]


def _divergence_pairs(d: int) -> list[tuple[int, int]]:
    trace = d + d * (d + 1) // 2
    return [pair for i in range(d) for pair in [*((d + packed_index(i, j, d), j) for j in range(d)), (trace, i)]]
