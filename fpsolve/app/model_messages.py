"""What a user should know of the model itself: what a subspace leaves out, and noise that is degenerate everywhere."""

from __future__ import annotations

import numpy as np

from fpsolve.errors import InputError
from fpsolve.model.chain import SampleGradients
from fpsolve.model.covariance_models import ModelledCovariance
from fpsolve.model.covariance_rank import covariance_spectrum
from fpsolve.model.domains import Domain
from fpsolve.model.process import Landscape
from fpsolve.model.subspace import Restriction, find_minimum, neglected
from fpsolve.theory.cover import cover_of, sample

#: Points of the domain at which drift and noise are compared, and points × samples at most.
POINTS = 256
WORK = 5_000_000
#: Shares below this are rounding.
ROUNDING = 1e-10


def model_messages(landscape: Landscape | None, domain: Domain) -> list[str]:
    """Return the messages on a landscape in a domain of its parameters. Deterministic; not collective."""
    if landscape is None or domain.bounding_box()[0].shape != (len(landscape.variables),):
        return []
    samples = landscape.samples if isinstance(landscape, SampleGradients) else 1
    points = sample(cover_of(domain), int(np.clip(WORK // samples, 16, POINTS)))
    points = points[domain.contains(points)]
    points = points[np.isfinite(landscape.gradient(points)).all(axis=1)]
    if len(points) == 0:
        return []
    return [*_rank(landscape, points), *_interpolation(landscape, domain, points), *_neglected(landscape, points)]


def _rank(landscape: Landscape, points: np.ndarray) -> list[str]:
    """Say when the covariance of samples is degenerate at all points; that of a formula is there for all to see."""
    d = len(landscape.variables)
    if not isinstance(landscape, SampleGradients):
        return []
    spectrum = covariance_spectrum(landscape, points)
    rank = int(spectrum.rank.max())
    if rank == d:
        return []
    where = f"at {len(points)} points of the domain"
    if rank == 0:
        return [f"warning: all samples have the same gradient {where}: there is no noise, and Q = 0"]
    reason = f", since there are {landscape.samples} samples" if spectrum.bound == rank else ""
    return [f"the covariance Q of {d} parameters has rank {rank} {where}{reason}: there are directions without noise"]


def _interpolation(landscape: Landscape, domain: Domain, points: np.ndarray) -> list[str]:
    """Warn of a minimum in the domain at which every sample's gradient vanishes."""
    if not isinstance(landscape, SampleGradients):
        return []
    try:
        minimum = find_minimum(landscape, points[int(np.argmin(landscape.loss(points)))])[None]
    except InputError:  # there is none near
        return []
    if not domain.contains(minimum)[0] or covariance_spectrum(landscape, minimum).rank[0] > 0:
        return []
    return [
        f"warning: at the minimum ({_place(minimum[0])}) in the domain every sample's gradient vanishes, so there "
        "is no noise: SGD may stay there for ever, and mean exit times nearby are infinite unless the noise expels it"
    ]


def _neglected(landscape: Landscape, t: np.ndarray) -> list[str]:
    if isinstance(landscape, ModelledCovariance):
        landscape = landscape.base
    if not isinstance(landscape, Restriction):
        return []
    found = neglected(landscape, t)
    total = len(landscape.full.variables)
    where = f"at {len(t)} points of the domain"
    if max(found.drift_share.max(), found.noise_share.max()) <= ROUNDING:
        return [f"the subspace of {total} parameters is invariant up to rounding {where}: nothing is neglected"]
    return [
        f"warning: of the {total} parameters those off the subspace are held fixed; neglected are "
        f"{_largest('drift out of it', found.drift, found.drift_share, '|∇L|', t)} and "
        f"{_largest('noise out of it', found.noise, found.noise_share, 'tr Q', t)}, the largest shares {where}"
    ]


def _largest(what: str, size: np.ndarray, share: np.ndarray, whole: str, t: np.ndarray) -> str:
    k = int(share.argmax())
    return f"{what} of {size[k]:.4g} ({100 * share[k]:.3g} % of {whole}, at ({_place(t[k])}))"


def _place(x: np.ndarray) -> str:
    return ", ".join(f"{c:.4g}" for c in x)
