"""Domains: where the process lives until it leaves. Geometry only, no mesh.

Every domain has ``dimension``, ``names`` (of its boundary parts), ``reflecting``, ``bounding_box()`` and
``contains(x)``. Constructors check what they are given and raise `InputError` with the case-file key.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from fpsolve.errors import InputError
from fpsolve.model.component import Component, trace_component
from fpsolve.model.meshfile import FileMesh, inside_simplices, read_mesh_file
from fpsolve.model.process import Landscape

if TYPE_CHECKING:
    from fpsolve.model.moved import Moved

SIDES = ("left", "right", "bottom", "top", "back", "front")


def _number(key: str, value: object) -> float:
    """Return a finite float or raise; booleans and strings are not numbers."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise InputError(key, value, "a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InputError(key, value, "a finite number")
    return number


def _vector(key: str, value: object) -> tuple[float, ...]:
    """Return one to three finite floats or raise; a single number is a vector of length 1."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = (value,)
    if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= 3:
        raise InputError(key, value, "a list of one, two or three numbers")
    return tuple(_number(f"{key}[{i}]", entry) for i, entry in enumerate(value))


def _corners(lower: object, upper: object, key: str = "domain") -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the corners of a box or raise."""
    low, high = _vector(f"{key}.lower", lower), _vector(f"{key}.upper", upper)
    if len(low) != len(high):
        raise InputError(f"{key}.upper", upper, f"{len(low)} numbers, as many as in {key}.lower")
    for i, (a, b) in enumerate(zip(low, high, strict=True)):
        if not a < b:
            raise InputError(
                f"{key}.upper", upper, f"larger numbers than in {key}.lower", f"Entry {i}: {a:g} >= {b:g}."
            )
        if not math.isfinite(b - a) or b - a <= 1e-12 * max(abs(a), abs(b)):
            raise InputError(f"{key}.upper", upper, f"an extent of entry {i} that floating point can resolve")
    return low, high


def _parts(reflecting: object, names: Sequence[str]) -> tuple[str, ...]:
    """Return the reflecting parts as a tuple or raise, with the closest name as a suggestion."""
    key = "domain.reflecting"
    if isinstance(reflecting, (str, int)) and not isinstance(reflecting, bool):
        reflecting = (reflecting,)
    if not isinstance(reflecting, (list, tuple)):
        raise InputError(key, reflecting, f"a list of names out of {', '.join(names)}")
    result: list[str] = []
    for part in reflecting:
        # numbers are allowed because mesh files may have numbered groups without a name
        name = str(part) if isinstance(part, (str, int)) and not isinstance(part, bool) else None
        if name is None or name not in names:
            near = difflib.get_close_matches(name or "", names, n=1)
            remedy = f"Did you mean '{near[0]}'?" if near else ""
            raise InputError(key, part, f"a name out of {', '.join(names) or '(this domain has none)'}", remedy)
        if name not in result:
            result.append(name)
    return tuple(result)


def _points(x: np.ndarray, dimension: int) -> np.ndarray:
    """Return points as an (n, d) array."""
    points = np.asarray(x, dtype=float)
    points = points[None, :] if points.ndim == 1 else points
    if points.ndim != 2 or points.shape[1] != dimension:
        raise InputError("points", np.shape(x), f"an array of points with {dimension} coordinate(s) each")
    return points


@dataclass(frozen=True)
class Interval:
    """The interval (lower, upper) in one dimension.

    Attributes
    ----------
    lower, upper : float
    reflecting : names
        Out of ``left`` and ``right``: where the process is reflected instead of killed.

    Raises
    ------
    InputError
        If the ends are not finite, increasing numbers or a reflecting name is unknown.
    """

    lower: float
    upper: float
    reflecting: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        low, high = _corners(_number("domain.lower", self.lower), _number("domain.upper", self.upper))
        object.__setattr__(self, "lower", low[0])
        object.__setattr__(self, "upper", high[0])
        object.__setattr__(self, "reflecting", _parts(self.reflecting, self.names))

    @property
    def dimension(self) -> int:
        """1."""
        return 1

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the ends."""
        return SIDES[:2]

    def bounding_box(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends, each as an array of shape (1,)."""
        return np.array([self.lower]), np.array([self.upper])

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Tell which of the points x (n, 1) lie in the closed interval, shape (n,)."""
        points = _points(x, 1)[:, 0]
        return (points >= self.lower) & (points <= self.upper)


@dataclass(frozen=True)
class Box:
    """A box with sides along the axes, in one to three dimensions.

    Attributes
    ----------
    lower, upper : tuple of float
        Opposite corners.
    reflecting : names
        Out of left right (x), bottom top (y), back front (z), lower side first.

    Raises
    ------
    InputError
        If the corners are not finite, of one length and increasing, or a reflecting name is unknown.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    reflecting: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        low, high = _corners(self.lower, self.upper)
        object.__setattr__(self, "lower", low)
        object.__setattr__(self, "upper", high)
        object.__setattr__(self, "reflecting", _parts(self.reflecting, self.names))

    @property
    def dimension(self) -> int:
        """The number of coordinates."""
        return len(self.lower)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the sides."""
        return SIDES[: 2 * self.dimension]

    def bounding_box(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the corners, each of shape (d,)."""
        return np.array(self.lower), np.array(self.upper)

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Tell which of the points x (n, d) lie in the closed box, shape (n,)."""
        points = _points(x, self.dimension)
        return np.all((points >= self.lower) & (points <= self.upper), axis=1)


@dataclass(frozen=True)
class Ball:
    """A ball (interval, disc) in one to three dimensions.

    Attributes
    ----------
    center : tuple of float
    radius : float
    reflecting : names
        ``("boundary",)`` or nothing.

    Raises
    ------
    InputError
        If the centre is not made of finite numbers, the radius is not positive or a name is unknown.
    """

    center: tuple[float, ...]
    radius: float
    reflecting: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        center, radius = _vector("domain.center", self.center), _number("domain.radius", self.radius)
        if not radius > 0:
            raise InputError("domain.radius", self.radius, "a positive number")
        if radius <= 1e-12 * max(abs(c) for c in center):
            raise InputError("domain.radius", self.radius, "a radius that floating point can resolve beside the centre")
        object.__setattr__(self, "center", center)
        object.__setattr__(self, "radius", radius)
        object.__setattr__(self, "reflecting", _parts(self.reflecting, self.names))

    @property
    def dimension(self) -> int:
        """The number of coordinates."""
        return len(self.center)

    @property
    def names(self) -> tuple[str, ...]:
        """The name of the sphere."""
        return ("boundary",)

    def bounding_box(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the corners of the smallest box around the ball, each of shape (d,)."""
        center = np.array(self.center)
        return center - self.radius, center + self.radius

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Tell which of the points x (n, d) lie in the closed ball, shape (n,)."""
        points = _points(x, self.dimension)
        return np.linalg.norm(points - np.array(self.center), axis=1) <= self.radius


@dataclass(frozen=True)
class Sublevel:
    """The component of {L < below} that holds a point, e.g. the bottom of a well up to a given loss.

    Attributes
    ----------
    landscape : Landscape
        Its loss is L.
    below : float
        The level; must not be a critical value on the component's boundary.
    containing : tuple of float
        A point of the component.
    lower, upper : tuple of float
        The box in which the component is looked for; it must lie strictly inside.
    reflecting : names
        ``("boundary",)`` or nothing.

    Raises
    ------
    InputError
        If a value is unusable or the point is not in {L < below}; by methods other than the constructor
        also if the component reaches the box or, in three dimensions, is not star-shaped about the point.
    """

    landscape: Landscape
    below: float
    containing: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    reflecting: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        below, point = _number("domain.below", self.below), _vector("domain.containing", self.containing)
        low, high = _corners(self.lower, self.upper, "domain.box")
        d = len(self.landscape.variables)
        for key, value in (("domain.containing", point), ("domain.box", low)):
            if len(value) != d:
                raise InputError(key, value, f"{d} numbers, one for each of {', '.join(self.landscape.variables)}")
        if not all(a < p < b for a, p, b in zip(low, point, high, strict=True)):
            raise InputError("domain.containing", self.containing, f"a point inside the box {low} to {high}")
        level = float(self.landscape.loss(np.array([point]))[0])
        if not level < below:
            raise InputError(
                "domain.containing",
                self.containing,
                f"a point where the loss is below {below:g}",
                f"It is {level:g} there.",
            )
        for name, entry in (("below", below), ("containing", point), ("lower", low), ("upper", high)):
            object.__setattr__(self, name, entry)
        object.__setattr__(self, "reflecting", _parts(self.reflecting, self.names))

    @property
    def dimension(self) -> int:
        """The number of coordinates."""
        return len(self.containing)

    @property
    def names(self) -> tuple[str, ...]:
        """The name of the level set."""
        return ("boundary",)

    @cached_property
    def component(self) -> Component:
        """The boundary, traced on first use."""
        return trace_component(self.landscape, self.below, self.containing, self.lower, self.upper)

    def bounding_box(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the corners, each of shape (d,), of a box around the component (slightly too large)."""
        return self.component.bounding_box()

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Tell which of the points x (n, d) lie in the (open) component, shape (n,)."""
        return self.component.contains(_points(x, self.dimension))


@dataclass(frozen=True)
class MeshFile:
    """The domain covered by the simplices of a gmsh .msh file, with its named boundary groups.

    Attributes
    ----------
    path : str
    dimension : int
        1, 2 or 3.
    reflecting : names
        Physical groups of boundary facets by name (by number where they have none); ``untagged`` stands for all
        boundary facets outside of every group.

    Raises
    ------
    InputError
        If the file is missing, unreadable (found on first use), of another dimension or without simplices.
    """

    path: str
    dimension: int
    reflecting: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.dimension, bool) or self.dimension not in (1, 2, 3):
            raise InputError("domain.dimension", self.dimension, "1, 2 or 3")
        if not isinstance(self.path, (str, Path)) or not str(self.path):
            raise InputError("domain.file", self.path, "the name of a gmsh .msh file")
        if not Path(self.path).is_file():
            raise InputError("domain.file", str(self.path), "an existing gmsh .msh file")
        object.__setattr__(self, "path", str(self.path))
        if self.reflecting != ():  # names need the file's contents, so it is read now
            object.__setattr__(self, "reflecting", _parts(self.reflecting, self.names))

    @cached_property
    def contents(self) -> FileMesh:
        """The nodes, cells and groups, read on first use by the process that asks (not collective)."""
        return read_mesh_file(self.path, self.dimension)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the boundary groups."""
        return tuple(self.contents.parts)

    def bounding_box(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the corners of the smallest box around all nodes, each of shape (d,)."""
        return self.contents.points.min(axis=0), self.contents.points.max(axis=0)

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Tell which of the points x (n, d) lie in a cell, shape (n,); curved cells count as straight."""
        corners = self.contents.cells[:, : self.dimension + 1]
        return inside_simplices(self.contents.points, corners, _points(x, self.dimension))


Domain: TypeAlias = "Interval | Box | Ball | Sublevel | MeshFile | Moved"
