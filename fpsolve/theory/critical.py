"""Critical points of the loss: minima, saddles and maxima, each with a proof, and whether there are others.

Newton's method proposes; Krawczyk's operator in Arb balls proves that exactly one critical point lies in a box; branch
and bound proves that the rest of the domain holds none, or says which part stays undecided. Where ∇L vanishes on a
curve, or D²L is singular, no such proof exists and the list "may be incomplete".
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fpsolve.errors import InputError
from fpsolve.model.condense import condensed
from fpsolve.model.domains import Box, Domain
from fpsolve.model.process import Landscape, Process
from fpsolve.theory.balls import box_balls
from fpsolve.theory.cover import BoxCover, Cover, cover_of
from fpsolve.theory.derivatives import Derivatives, derivatives_of, loss_range
from fpsolve.theory.newton import inertia, isolate
from fpsolve.theory.search import Budget
from fpsolve.theory.stationary import SAME, newton, stationary_points, typical_gradient
from fpsolve.theory.zeros import LARGEST, Isolated, Search, isolate_all, record

#: Boxes that branch and bound may evaluate.
BOXES = 10_000
#: Evaluations that a proof takes at least.
AT_LEAST = 20
#: Eigenvalues of D²L count as zero, where their sign is not proved, at this part of the largest or of a typical one.
FLAT = 1e-7


@dataclass(frozen=True)
class Certificate:
    """The proof that a critical point exists.

    Attributes
    ----------
    lower, upper : ndarray, shape (d,)
        Corners of a box in which it lies.
    region_lower, region_upper : ndarray, shape (d,)
        Corners of a box that holds it and no other one.
    loss_lower, loss_upper : float
        L lies between them there.
    index_proved : bool
        Whether the signs of the eigenvalues of D²L are proved.
    """

    lower: np.ndarray
    upper: np.ndarray
    region_lower: np.ndarray
    region_upper: np.ndarray
    loss_lower: float
    loss_upper: float
    index_proved: bool


@dataclass(frozen=True)
class CriticalPoint:
    """A point where ∇L vanishes.

    Attributes
    ----------
    x : ndarray, shape (d,)
    loss : float
    gradient : ndarray, shape (d,)
        As evaluated, zero up to rounding.
    hessian : ndarray, shape (d, d)
    eigenvalues : ndarray, shape (d,)
        Of D²L, increasing.
    eigenvectors : ndarray, shape (d, d)
        Columns.
    index : int
        The number of negative eigenvalues.
    kind : "minimum", "saddle", "maximum" or "degenerate"
        The last where an eigenvalue is zero up to rounding.
    certificate : Certificate or None
        None where nothing is proved.
    """

    x: np.ndarray
    loss: float
    gradient: np.ndarray
    hessian: np.ndarray
    eigenvalues: np.ndarray
    eigenvectors: np.ndarray
    index: int
    kind: str
    certificate: Certificate | None


@dataclass(frozen=True)
class Undecided:
    """The part of the domain in which there may be more critical points.

    Attributes
    ----------
    lower, upper : ndarray, shape (count, d)
        Corners of the boxes; the largest first.
    measure, share : float
        Their volume, and the part of the domain's bounding box that it is.
    """

    lower: np.ndarray
    upper: np.ndarray
    measure: float
    share: float

    @property
    def count(self) -> int:
        """The number of boxes."""
        return len(self.lower)


@dataclass(frozen=True)
class CriticalPoints:
    """What is known of the critical points in a domain.

    Attributes
    ----------
    points : tuple of CriticalPoint
        By increasing loss.
    complete : bool
        Whether it is proved that the domain holds no others, and that each of these is exactly one.
    reason : str
        If not complete: why it may be incomplete.
    undecided : Undecided
    boxes : int
        Boxes evaluated.
    seconds : float
    landscape : Landscape
    domain : Domain
    """

    points: tuple[CriticalPoint, ...]
    complete: bool
    reason: str
    undecided: Undecided
    boxes: int
    seconds: float
    landscape: Landscape
    domain: Domain

    @property
    def minima(self) -> tuple[CriticalPoint, ...]:
        """The minima, by increasing loss; degenerate points are not among them."""
        return tuple(p for p in self.points if p.kind == "minimum")

    @property
    def saddles(self) -> tuple[CriticalPoint, ...]:
        """The points of index 1, by increasing loss: those that paths between minima pass (in 1D the maxima)."""
        return tuple(p for p in self.points if p.kind != "degenerate" and p.index == 1)


def critical_points(
    process: Process | Landscape,
    domain: Domain | Sequence[Sequence[float]],
    *,
    certify: bool = True,
    boxes: int = BOXES,
    budget: float = 20.0,
) -> CriticalPoints:
    """Find the critical points of the loss in a domain, with proofs. Not collective.

    Parameters
    ----------
    process : Process or Landscape
        With a loss of one to three parameters.
    domain : Domain, or the corners (lower, upper) of a box
        Points on the boundary belong to it. A mesh file is replaced by its bounding box in the proof.
    certify : bool
        Whether anything is proved; without, a search with more starts is all.
    boxes : int
        Boxes of branch and bound; the outcome is reproducible unless the time is up before.
    budget : float
        Seconds, a safety net.

    Raises
    ------
    InputError
        If there is no loss, or the domain or a number cannot be used.
    """
    began = time.monotonic()
    landscape = process.landscape if isinstance(process, Process) else process
    if landscape is None:
        raise InputError("process", tuple(process.variables), "a process with a loss", "Drift and diffusion have none.")
    d = len(landscape.variables)
    domain = _checked_domain(domain, d)
    _check_positive("boxes", boxes)
    _check_positive("budget", budget)
    derivatives = derivatives_of(landscape)
    derivatives = derivatives if certify else None
    lower, upper = (np.atleast_1d(np.asarray(c, dtype=float)) for c in domain.bounding_box())
    fast = condensed(landscape)
    candidates = stationary_points(fast, lower, upper, thorough=derivatives is None)
    why = "asked without proof" if not certify else "this loss has no rigorous enclosure"
    if derivatives is not None:
        cost = _cost(derivatives, 0.5 * (lower + upper))
        if AT_LEAST * cost > budget:
            derivatives, why = None, f"one evaluation over the samples takes {cost:.2g} s, the budget is {budget:g} s"
    if derivatives is None:
        reason = f"only searched from a grid of starts: {why}"
        cover: Cover = BoxCover(lower, upper)
        search = Search(undecided=[(lower, upper)])
    else:
        cover = cover_of(domain)
        search = _proved(derivatives, fast, cover, candidates, Budget(began + budget, boxes))
        reason = _reason(search, boxes)
    found = _listed(landscape, derivatives, domain, search, candidates)
    return CriticalPoints(
        found, not reason, reason, _undecided(search, cover), search.boxes, time.monotonic() - began, landscape, domain
    )


def _checked_domain(domain: Any, d: int) -> Domain:
    if isinstance(domain, (tuple, list, np.ndarray)):
        if len(domain) != 2:
            raise InputError("domain", domain, "a domain or the two corners of a box")
        domain = Box(*domain)
    if not hasattr(domain, "bounding_box"):
        raise InputError("domain", domain, "a domain or the two corners of a box")
    if domain.dimension != d or d not in (1, 2, 3):
        raise InputError("domain", domain, f"a domain of {d} dimension(s), at most 3: the loss has {d} parameter(s)")
    return domain


def _check_positive(key: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise InputError(key, value, "a positive number")


def _cost(derivatives: Derivatives, x: np.ndarray) -> float:
    """Return how many seconds an evaluation takes."""
    began = time.monotonic()
    derivatives.gradient_and_hessian(box_balls(x, x))
    return time.monotonic() - began


def _proved(
    derivatives: Derivatives, landscape: Landscape, cover: Cover, candidates: np.ndarray, budget: Budget
) -> Search:
    """Prove the candidates one by one, then the rest of the domain."""
    scale = cover.upper - cover.lower
    size = float(np.linalg.norm(scale))
    known: list[Isolated] = []
    for x in candidates:
        if any(np.all((x >= z.region[0]) & (x <= z.region[1])) for z in known) or budget.spent(0):
            continue
        found = isolate(derivatives, x, LARGEST * scale)
        if found is not None:
            record(known, found[1], found[0])
    return isolate_all(derivatives, cover, known, budget, lambda x: newton(landscape, x, size))


def _reason(search: Search, boxes: int) -> str:
    if not search.undecided:
        return ""
    if search.boxes >= boxes:
        return f"the budget of {boxes} boxes is spent; D²L may be singular somewhere, or raise landscape.boxes"
    if search.exhausted:
        return "the time is up; raise landscape.budget"
    return "boxes of the smallest size are left: D²L is singular there, or the critical points are not isolated"


def _undecided(search: Search, cover: Cover) -> Undecided:
    d = len(cover.lower)
    lower = np.array([lo for lo, _ in search.undecided]).reshape(-1, d)
    upper = np.array([hi for _, hi in search.undecided]).reshape(-1, d)
    volumes = np.prod(upper - lower, axis=1)
    order = np.argsort(-volumes, kind="stable")
    measure = float(volumes.sum())
    return Undecided(lower[order], upper[order], measure, measure / float(np.prod(cover.upper - cover.lower)))


def _listed(
    landscape: Landscape,
    derivatives: Derivatives | None,
    domain: Domain,
    search: Search,
    candidates: np.ndarray,
) -> tuple[CriticalPoint, ...]:
    """Return the proved points and the candidates in undecided boxes, as far as they lie in the domain."""
    d = len(landscape.variables)
    lower = np.array([lo for lo, _ in search.undecided]).reshape(-1, d)
    upper = np.array([hi for _, hi in search.undecided]).reshape(-1, d)
    box = [np.atleast_1d(np.asarray(c, dtype=float)) for c in domain.bounding_box()]
    size = float(np.linalg.norm(box[1] - box[0]))
    bend, near = typical_gradient(condensed(landscape), *box) / size, SAME * size
    entries: list[tuple[np.ndarray, Certificate | None]] = []
    for zero in search.zeros:
        assert derivatives is not None  # there are no proofs without
        entries.append((zero.x, _certificate(derivatives, zero)))
    for x in candidates:
        proved = any(np.all((x >= z.region[0]) & (x <= z.region[1])) for z in search.zeros)
        open_ = bool(np.any(np.all((x >= lower - near) & (x <= upper + near), axis=1)))
        if open_ and not proved:
            entries.append((x, None))
    points = [_point(landscape, x, certificate, bend) for x, certificate in entries if _belongs(domain, x, near)]
    # among equal losses the order must not depend on rounding
    losses = np.array([p.loss for p in points] or [0.0])
    equal = max(1e-10 * float(np.ptp(losses)), 1e-15 * float(np.abs(losses).max()), 1e-290)
    return tuple(sorted(points, key=lambda p: (round(p.loss / equal), *np.round(p.x / near))))


def _belongs(domain: Domain, x: np.ndarray, margin: float) -> bool:
    """Tell whether a point lies in the domain, or within rounding of it."""
    shifts = margin * np.concatenate([np.zeros((1, len(x))), np.eye(len(x)), -np.eye(len(x))])
    return bool(domain.contains(x + shifts).any())


def _certificate(derivatives: Derivatives, zero: Isolated) -> Certificate:
    signs = inertia(derivatives, zero.enclosure)
    least, most = loss_range(derivatives, *zero.enclosure)
    return Certificate(*zero.enclosure, *zero.region, least, most, signs is not None)


def _point(landscape: Landscape, x: np.ndarray, certificate: Certificate | None, bend: float) -> CriticalPoint:
    """Return the facts of a point; `bend` is a typical eigenvalue of D²L."""
    y = x[None, :]
    hessian = landscape.hessian(y)[0]
    values, vectors = np.linalg.eigh(0.5 * (hessian + hessian.T))
    index = int(np.sum(values < 0))
    proved = certificate is not None and certificate.index_proved
    if not proved and np.any(np.abs(values) <= FLAT * max(np.abs(values).max(), bend)):
        kind = "degenerate"
    else:
        kind = "minimum" if index == 0 else "maximum" if index == len(x) else "saddle"
    loss, gradient = float(landscape.loss(y)[0]), landscape.gradient(y)[0]
    return CriticalPoint(x, loss, gradient, hessian, values, vectors, index, kind, certificate)
