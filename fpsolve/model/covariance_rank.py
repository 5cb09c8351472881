"""Eigenvalues and numerical rank of the gradient covariance Q along points: where and how far the noise degenerates.

Q is a mean of N centred rank-one matrices, so its rank is at most min(d, N - 1): with fewer than d + 1 samples there is
no noise in some directions anywhere. At a point where every sample's gradient vanishes (interpolation) the rank is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fpsolve.model.chain import SampleGradients
from fpsolve.model.process import Landscape

#: Entries (points × samples × parameters) of an array in flight: 32 MB.
IN_FLIGHT = 2**22
#: Roundings by which a point may be off.
ULPS = 64


@dataclass(frozen=True)
class CovarianceSpectrum:
    """The spectrum of Q at n points.

    Attributes
    ----------
    eigenvalues : ndarray, shape (n, d)
        Increasing, none negative; nan where Q is not finite, with rank 0.
    rank : ndarray of int, shape (n,)
        How many eigenvalues exceed `threshold`.
    threshold : ndarray, shape (n,)
        What rounding explains: ``(m eps g)²`` with ``g² = (1/N) Σ_k |g_k|²``, ``m = max(d, N)`` for samples, and
        ``d eps λ_max`` for a formula of Q; plus ``(64 eps max(1, |x|) ‖D²L‖)²``, which a point off by that much
        makes (Frobenius norm).
    bound : int
        min(d, N - 1); d without samples.
    """

    eigenvalues: np.ndarray
    rank: np.ndarray
    threshold: np.ndarray
    bound: int


def covariance_spectrum(landscape: Landscape, x: np.ndarray) -> CovarianceSpectrum:
    """Return eigenvalues and numerical rank of Q at points x (n, d).

    With samples the eigenvalues are squares of the singular values of the centred sample gradients, so those below
    eps λ_max keep their digits, which they lose in Q itself. Memory is bounded. Not collective.
    """
    d = len(landscape.variables)
    x = np.asarray(x, dtype=float).reshape(-1, d)
    eps = np.finfo(float).eps
    if isinstance(landscape, SampleGradients):
        count = landscape.samples
        step = max(1, IN_FLIGHT // (count * d))
        parts = [_of_samples(landscape, x[k : k + step]) for k in range(0, len(x), step)]
        eigenvalues = np.concatenate([part[0] for part in parts]) if parts else np.empty((0, d))
        size = np.concatenate([part[1] for part in parts]) if parts else np.empty(0)
        rounding, bound = (max(d, count) * eps * size) ** 2, min(d, count - 1)
    else:
        eigenvalues = _eigenvalues(landscape.covariance(x))
        rounding, bound = d * eps * eigenvalues.max(axis=1, initial=0), d
    curvature = np.linalg.norm(landscape.hessian(x), axis=(1, 2))
    threshold = rounding + (ULPS * eps * np.maximum(1, np.linalg.norm(x, axis=1)) * curvature) ** 2
    return CovarianceSpectrum(eigenvalues, (eigenvalues > threshold[:, None]).sum(axis=1), threshold, bound)


def _of_samples(landscape: SampleGradients, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues (n, d), increasing, and the root mean square of |g_k| (n,)."""
    gradients = landscape.sample_gradients(x)
    n, count, d = gradients.shape
    size = np.sqrt(np.mean(np.sum(gradients**2, axis=2), axis=1))
    centred = gradients - gradients.mean(axis=1, keepdims=True)
    finite = np.isfinite(centred).all(axis=(1, 2))
    singular = np.linalg.svd(centred[finite], compute_uv=False) / np.sqrt(count)
    eigenvalues = np.zeros((n, d))
    eigenvalues[~finite] = np.nan
    eigenvalues[finite, : singular.shape[1]] = singular**2
    return eigenvalues[:, ::-1].copy(), size


def _eigenvalues(q: np.ndarray) -> np.ndarray:
    finite = np.isfinite(q).all(axis=(1, 2))
    eigenvalues = np.full(q.shape[:2], np.nan)
    eigenvalues[finite] = np.linalg.eigvalsh(q[finite]).clip(min=0)
    return eigenvalues
