"""What a user should know of the model itself: what a subspace leaves out, and noise that is degenerate everywhere."""

from __future__ import annotations

import numpy as np

from fpsolve.model.chain import SampleGradients
from fpsolve.model.domains import Domain
from fpsolve.model.process import Landscape
from fpsolve.model.subspace import Restriction, neglected
from fpsolve.theory.cover import cover_of, sample

#: Points of the domain at which drift and noise are compared, and points × samples at most.
POINTS = 256
WORK = 20_000_000
#: Shares below this are rounding.
ROUNDING = 1e-10


def model_messages(landscape: Landscape | None, domain: Domain) -> list[str]:
    """Return the messages on a landscape in a domain of its parameters. Deterministic; not collective."""
    if landscape is None:
        return []
    return [*_few_samples(landscape), *_neglected(landscape, domain)]


def _few_samples(landscape: Landscape) -> list[str]:
    d = len(landscape.variables)
    if not isinstance(landscape, SampleGradients) or landscape.samples > d:
        return []
    rank = landscape.samples - 1
    return [
        f"the covariance Q has rank {rank} at most in {d} parameters, since there are {landscape.samples} samples: "
        "at every point there are directions without noise"
    ]


def _neglected(landscape: Landscape, domain: Domain) -> list[str]:
    if not isinstance(landscape, Restriction) or domain.bounding_box()[0].shape != (len(landscape.variables),):
        return []
    samples = landscape.samples if isinstance(landscape, SampleGradients) else 1
    t = sample(cover_of(domain), int(np.clip(WORK // samples, 16, POINTS)))
    if len(t) == 0:
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
    place = ", ".join(f"{c:.4g}" for c in t[k])
    return f"{what} of {size[k]:.4g} ({100 * share[k]:.3g} % of {whole}, at ({place}))"
