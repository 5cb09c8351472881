"""Closed curves of Bézier arcs about a point, and their fit to a level set. Floating point: nothing is proved here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.special import comb

from fpsolve.model.domains import Sublevel
from fpsolve.model.levelset import pole_free_loss

Curve = tuple[tuple[tuple[float, ...], ...], ...]
DEGREE = 8
RAY_SAMPLES = 400


@dataclass(frozen=True)
class StarBracket:
    """Two scalings of a closed curve about a point which enclose a domain between them.

    Attributes
    ----------
    center : tuple of float
        c.
    sectors : tuple of arcs, each a tuple of control points, each a tuple of d floats
        2D: ``γ_k(t) = Σ_j B_j^n((t+1)/2) P_kj`` for t in [-1, 1] with Bernstein polynomials, anticlockwise; the last
        point of each arc is the first one of the next, exactly. 1D: two arcs of one point, the left and right end.
    inner, outer : float
        The scalings; see `fpsolve.theory.certified.star` for what is proved about them.
    """

    center: tuple[float, ...]
    sectors: tuple[tuple[tuple[float, ...], ...], ...]
    inner: float
    outer: float

    def to_json(self) -> dict[str, Any]:
        """Return the entry "star" of a certificate; floats are written as exact hexadecimal numbers."""
        sectors = [[[x.hex() for x in point] for point in arc] for arc in self.sectors]
        return {"sectors": sectors, "inner": self.inner.hex(), "outer": self.outer.hex()}

    @classmethod
    def from_json(cls, entry: dict[str, Any], center: Sequence[float]) -> StarBracket:
        """Return the bracket written by `to_json` about the point `center`; nothing is proved."""
        sectors = tuple(tuple(tuple(float.fromhex(x) for x in point) for point in arc) for arc in entry["sectors"])
        return cls(tuple(map(float, center)), sectors, float.fromhex(entry["inner"]), float.fromhex(entry["outer"]))

    @property
    def width(self) -> float:
        """outer - inner."""
        return self.outer - self.inner


def sector_points(bracket: StarBracket, t: np.ndarray, s: float | np.ndarray = 1.0) -> np.ndarray:
    """Return the points c + s(γ_k(t) - c) of all arcs in floating point.

    Parameters
    ----------
    bracket : StarBracket
    t : ndarray, shape (m,)
        Parameters in [-1, 1] (without effect in one dimension).
    s : float or ndarray, shape (m,)
        Scalings: 1 on the curve, less inside.

    Returns
    -------
    ndarray, shape (number of arcs, m, d)
    """
    t = np.asarray(t, dtype=float)
    points, center = np.array(bracket.sectors), np.array(bracket.center)
    return center + np.broadcast_to(s, t.shape)[:, None] * (_bernstein(points.shape[1] - 1, t) @ (points - center))


def _bernstein(n: int, t: np.ndarray) -> np.ndarray:
    """Return the Bernstein polynomials of degree n at t in [-1, 1], shape (m, n+1)."""
    u, j = 0.5 * (t + 1)[:, None], np.arange(n + 1)
    return comb(n, j) * u**j * (1 - u) ** (n - j)


def _reach(domain: Sublevel, directions: np.ndarray) -> np.ndarray | str:
    """Return the distances along rays (n, d) at which L reaches the level first, in floating point."""
    center = np.array(domain.containing)
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = np.where(directions > 0, np.array(domain.upper) - center, np.array(domain.lower) - center)
        length = np.min(np.where(directions == 0, np.inf, ends / directions), axis=1)
    share = np.concatenate([[0.0], np.geomspace(1e-4, 0.01, 20), np.linspace(0.01, 1.0, RAY_SAMPLES)[1:]])

    def excess(r: np.ndarray) -> np.ndarray:
        x = center + directions[:, None, :] * r[:, :, None]
        return pole_free_loss(domain.landscape, x.reshape(-1, len(center))).reshape(r.shape) - domain.below

    outside = excess(length[:, None] * share) >= 0
    if not outside.any(axis=1).all():
        return "the component reaches the box in which it is looked for"
    first = outside.argmax(axis=1)
    a, b = length * share[first - 1], length * share[first]
    for _ in range(55):
        middle = 0.5 * (a + b)
        out = excess(middle[:, None])[:, 0] >= 0
        a, b = np.where(out, a, middle), np.where(out, middle, b)
    return 0.5 * (a + b)


def trace_curve(domain: Sublevel, sectors: int) -> Curve | str:
    """Return arcs near the boundary of a component (two ends in one dimension), or why there are none.

    Parameters
    ----------
    domain : Sublevel
        In one or two dimensions.
    sectors : int
        Largest number of arcs.
    """
    return _ends(domain) if domain.dimension == 1 else _trace(domain, sectors)


def _ends(domain: Sublevel) -> Curve | str:
    """Return the two ends in one dimension."""
    found = _reach(domain, np.array([[-1.0], [1.0]]))
    if isinstance(found, str):
        return found
    c = domain.containing[0]
    return (((float(c - found[0]),),), ((float(c + found[1]),),))


def _trace(domain: Sublevel, sectors: int) -> Curve | str:
    """Return arcs through boundary points, at Chebyshev points of the angle; the worst arc is halved each time."""
    nodes = -np.cos(np.pi * np.arange(DEGREE + 1) / DEGREE)
    probes = np.linspace(-0.97, 0.97, 24)
    to_control, at_probes = np.linalg.inv(_bernstein(DEGREE, nodes)), _bernstein(DEGREE, probes)
    center = np.array(domain.containing)

    def arcs(angles: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray] | str:
        """Return the control points about c of some arcs, shape (k, n+1, 2), and their errors, shape (k,)."""
        t = np.concatenate([nodes, probes])
        all_angles = np.array([0.5 * (a + b) + 0.5 * (b - a) * t for a, b in angles])
        unit = np.stack([np.cos(all_angles), np.sin(all_angles)], axis=-1)
        radius = _reach(domain, unit.reshape(-1, 2))
        if isinstance(radius, str):
            return radius
        points = unit * radius.reshape(*all_angles.shape, 1)
        control = to_control @ points[:, : DEGREE + 1]
        control[:, 0], control[:, -1] = points[:, 0], points[:, DEGREE]
        miss = np.linalg.norm(at_probes @ control - points[:, DEGREE + 1 :], axis=-1)
        return control, np.max(miss / np.linalg.norm(points[:, DEGREE + 1 :], axis=-1), axis=1)

    corners = [0.5 * math.pi * k for k in range(5)]
    first = arcs(list(pairwise(corners)))
    if isinstance(first, str):
        return first
    found = [(pair, c, e) for pair, c, e in zip(pairwise(corners), *first, strict=True)]
    while len(found) < sectors:
        worst = max(range(len(found)), key=lambda k: float(found[k][2]))
        (a, b), _, error = found[worst]
        if error < 1e-13:
            break
        halves = [(a, 0.5 * (a + b)), (0.5 * (a + b), b)]
        parts = arcs(halves)
        if isinstance(parts, str):
            return parts
        found[worst : worst + 1] = [(pair, c, e) for pair, c, e in zip(halves, *parts, strict=True)]
    curve = [[(center + p).tolist() for p in control] for _, control, _ in found]
    for k, arc in enumerate(curve):
        arc[0] = curve[k - 1][-1]  # exactly the same point
    return tuple(tuple((float(p[0]), float(p[1])) for p in arc) for arc in curve)


def misfit(domain: Sublevel, trial: StarBracket) -> tuple[float, float]:
    """Return the least and largest s, of many rays, at which L(c + s(γ-c)) reaches the level, by Newton's method."""
    x = sector_points(trial, np.linspace(-1, 1, 48)).reshape(-1, len(trial.center))
    center = np.array(trial.center)
    s = np.ones(len(x))
    with np.errstate(all="ignore"):
        for _ in range(4):
            at = center + s[:, None] * (x - center)
            slope = np.sum(domain.landscape.gradient(at) * (x - center), axis=1)
            s = s - np.clip((domain.landscape.loss(at) - domain.below) / slope, -0.01, 0.01)
    s = s[np.isfinite(s)]
    return (float(s.min()), float(s.max())) if len(s) else (1.0, 1.0)
