"""How each kind of domain is meshed; for one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull

from fpsolve.fem.bisection import refine_file
from fpsolve.fem.curved import MIN_JACOBIAN, curve, jacobians, lattice, remove_flat_cells, split_corner_cells, straight
from fpsolve.fem.gmsh_geometry import (
    MeshingError,
    Simplices,
    fill_box,
    fill_polygon,
    fill_surface,
    mesh_sphere,
    remesh_surface,
)
from fpsolve.fem.spacing import Size, SizeField, check_count, equidistribute, graded, line_points, sizes_at
from fpsolve.model.component import Star
from fpsolve.model.domains import SIDES, Ball, Box, Domain, Interval, MeshFile, Sublevel
from fpsolve.model.levelset import Planar, crosses_itself, polygon_area, project
from fpsolve.model.moved import Moved
from fpsolve.model.simplices import match_rows

#: Curved boundaries turn by at most this angle from one vertex to the next; smaller ones are tried if cells fail.
ANGLES = (0.8, 0.5, 0.3, 0.15)
#: Neighbouring boundary edges differ by about this factor at most where the curvature asks for small ones.
GRADATION = 0.4
BOUNDARY = {"boundary": 1}


@dataclass(frozen=True)
class NodalMesh:
    """A mesh with all its nodes, before distribution.

    Attributes
    ----------
    nodes : ndarray, shape (n, d)
    cells : ndarray of int, shape (m, k)
        In the order of the equispaced Lagrange element.
    order : int
    facets, labels : ndarray of int, shape (b, d), (b,)
        Corner nodes of all boundary facets, and their tags.
    parts : dict
        Name -> tag.
    """

    nodes: np.ndarray
    cells: np.ndarray
    order: int
    facets: np.ndarray
    labels: np.ndarray
    parts: dict[str, int]


def mesh_of(domain: Domain, size: Size, order: int) -> NodalMesh:
    """Mesh a domain; see `fpsolve.fem.meshing.make_mesh`."""
    try:
        if isinstance(domain, MeshFile):
            return _file(domain, size)
        if domain.dimension == 1:
            return _line(domain, size)
        if isinstance(domain, Box):
            return _plane_box(domain, size) if domain.dimension == 2 else _space_box(domain, size)
        if isinstance(domain, Moved) and isinstance(domain.base, Box):
            return _moved_box(domain, size, order)
        if isinstance(domain, (Ball, Sublevel, Moved)):
            return _smooth(domain, size, order)
    except MeshingError as error:
        low, high = (np.round(corner, 6).tolist() for corner in domain.bounding_box())
        shown = f"{size.sizes.min():.3g} to {size.sizes.max():.3g}" if isinstance(size, SizeField) else f"{size:g}"
        raise MeshingError(
            f"no mesh could be made of the {type(domain).__name__} from {low} to {high} with mesh size {shown}: {error}"
        ) from None
    raise TypeError(f"{domain!r} is not a domain")


def _line(domain: Interval | Box | Ball | Sublevel | Moved, size: Size) -> NodalMesh:
    low, high = (float(corner[0]) for corner in domain.bounding_box())
    check_count(size, high - low, 1)
    x = line_points(low, high, size)
    cells = np.column_stack([np.arange(len(x) - 1), np.arange(1, len(x))])
    ends = np.array([[0], [len(x) - 1]])
    if isinstance(domain.base if isinstance(domain, Moved) else domain, (Interval, Box)):
        return NodalMesh(x[:, None], cells, 1, ends, np.array([1, 2]), {"left": 1, "right": 2})
    return NodalMesh(x[:, None], cells, 1, ends, np.array([1, 1]), BOUNDARY)


def _file(domain: MeshFile, size: Size) -> NodalMesh:
    contents = refine_file(domain.contents, size)
    d = domain.dimension
    own = lattice(d, contents.order)
    sequence = match_rows(own, contents.lattice)
    return NodalMesh(
        contents.points, contents.cells[:, sequence], contents.order, contents.facets, contents.tags, contents.parts
    )


# --- boxes -----------------------------------------------------------------------------------------


def _scaled(size: Size, shift: np.ndarray, scale: float) -> Size:
    """Return the size in coordinates (x - shift)/scale."""
    return size.moved(shift, 1 / scale) if isinstance(size, SizeField) else size / scale


def _side_tags(d: int) -> dict[str, int]:
    return {name: k + 1 for k, name in enumerate(SIDES[: 2 * d])}


def _plane_box(domain: Box, size: Size) -> NodalMesh:
    low, high = domain.bounding_box()
    check_count(size, float(np.prod(high - low)), 2)
    scale = float((high - low).max())
    unit, extent = _scaled(size, low, scale), (high - low) / scale
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * extent
    pieces, labels = [], []
    for a, b, name in zip(corners, np.roll(corners, -1, axis=0), ("bottom", "right", "top", "left"), strict=True):
        length = float(np.abs(b - a).sum())
        t = np.linspace(0, length, 2001)
        gaps = equidistribute(t, sizes_at(unit, a + t[:, None] / length * (b - a)), 1)[:-1]
        pieces.append(a + gaps[:, None] / length * (b - a))
        labels.append(np.full(len(gaps), _side_tags(2)[name]))
    mesh = fill_polygon([np.concatenate(pieces)], [np.concatenate(labels)], unit)
    return _box_result(mesh, low, high, scale)


def _space_box(domain: Box, size: Size) -> NodalMesh:
    low, high = domain.bounding_box()
    check_count(size, float(np.prod(high - low)), 3)
    scale = float((high - low).max())
    mesh = fill_box(((high - low) / scale).tolist(), _scaled(size, low, scale))
    return _box_result(Simplices(mesh.points, mesh.cells, mesh.facets, mesh.labels + 1), low, high, scale)


def _box_result(mesh: Simplices, low: np.ndarray, high: np.ndarray, scale: float) -> NodalMesh:
    """Scale back; sides lie exactly at the box's own numbers."""
    extent = (high - low) / scale
    nodes = np.where(mesh.points == extent, high, low + scale * mesh.points)
    return NodalMesh(nodes, mesh.cells, 1, mesh.facets, mesh.labels, _side_tags(len(low)))


def _moved_box(domain: Moved, size: Size, order: int) -> NodalMesh:
    """Mesh the box and move all nodes of its cells of the given order."""
    box = domain.base
    assert isinstance(box, Box)
    low, high = box.bounding_box()
    if isinstance(size, SizeField):  # as it would be before the box is stretched
        corners = domain.preimage(size.corners.reshape(-1, box.dimension)).reshape(size.corners.shape)
        ends = domain.bounding_box()
        size = SizeField(corners, size.sizes * float(np.min((high - low) / (ends[1] - ends[0]))))
    plain = _plane_box(box, size) if box.dimension == 2 else _space_box(box, size)
    nodes, cells = straight(Simplices(plain.nodes, plain.cells, plain.facets, plain.labels), order)
    nodes = domain.image(nodes)
    if not (jacobians(nodes, cells, box.dimension, order) > MIN_JACOBIAN).all():
        raise MeshingError("moving the sides turns cells over; the shift varies too much along them")
    return NodalMesh(nodes, cells, order, plain.facets, plain.labels, plain.parts)


# --- balls and sublevel sets -----------------------------------------------------------------------


def _smooth(domain: Ball | Sublevel | Moved, size: Size, order: int) -> NodalMesh:
    """Mesh a domain with a smooth boundary; where cells come out invalid the boundary gets more vertices."""
    failure = ""
    for angle in ANGLES:
        try:
            mesh, onto, back = (_plane if domain.dimension == 2 else _space)(domain, size, angle)
        except MeshingError as error:
            failure = str(error)
            continue
        if order > 1:
            mesh = split_corner_cells(remove_flat_cells(mesh) if domain.dimension == 3 else mesh)
        nodes, cells, valid = curve(mesh, order, onto)
        if valid:
            facets = mesh.facets
            return NodalMesh(back(nodes), cells, order, facets, np.ones(len(facets), dtype=int), BOUNDARY)
        failure = "curved cells overlap; the size is too large for the shape of the boundary"
    raise MeshingError(failure)


Onto = Callable[[np.ndarray, np.ndarray], np.ndarray]
Back = Callable[[np.ndarray], np.ndarray]


def _radially(x: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Move points to the unit sphere."""
    return x / np.linalg.norm(x, axis=1)[:, None]


def _maps(domain: Ball | Sublevel | Moved) -> tuple[np.ndarray, float, Onto, Back]:
    """Return shift and scale of the coordinates for gmsh, the projection in them, and the way back."""
    if isinstance(domain, Ball):
        center, radius = np.array(domain.center), domain.radius
        return center, radius, _radially, lambda x: center + radius * x
    low, high = domain.bounding_box()
    shift, scale = low, float((high - low).max())

    def onto(x: np.ndarray, reach: np.ndarray) -> np.ndarray:
        place = shift + scale * x
        if isinstance(domain, Moved):
            return (domain.onto(place, scale * reach) - shift) / scale
        return (project(domain.landscape, domain.below, place, scale * reach) - shift) / scale

    return shift, scale, onto, lambda x: shift + scale * x


def _curves(domain: Ball | Sublevel | Moved) -> list[np.ndarray]:
    """Return the boundary curves of a plane domain, many points each."""
    if isinstance(domain, Moved):
        assert isinstance(domain.base, (Ball, Sublevel))
        return [domain.pushed(loop) for loop in _curves(domain.base)]
    if isinstance(domain, Ball):
        return [np.array(domain.center) + domain.radius * _circle()]
    assert isinstance(domain.component, Planar)
    return list(domain.component.loops)


def _circle() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 1441)[:-1]
    return np.column_stack([np.cos(t), np.sin(t)])


def _plane(domain: Ball | Sublevel | Moved, size: Size, angle: float) -> tuple[Simplices, Onto, Back]:
    shift, scale, onto, back = _maps(domain)
    unit = _scaled(size, shift, scale)
    traced = [_circle()] if isinstance(domain, Ball) else [(loop - shift) / scale for loop in _curves(domain)]
    area = abs(sum(polygon_area(loop) for loop in traced)) * scale**2
    check_count(size, area, 2)
    across = _thickness(traced)
    loops = [_vertices(loop, unit, angle, width, onto) for loop, width in zip(traced, across, strict=True)]
    if crosses_itself(loops):  # gmsh might not come back
        raise MeshingError("the boundary polygon crosses itself")
    return fill_polygon(loops, [np.ones(len(loop), dtype=int) for loop in loops], unit), onto, back


def _thickness(loops: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return for each point of the curves the distance to parts of them that face the other way.

    Edges no longer than this fit into necks and between neighbouring curves.
    """
    normals = []
    for loop in loops:
        along = np.roll(loop, -1, axis=0) - np.roll(loop, 1, axis=0)
        normals.append(along / np.linalg.norm(along, axis=1)[:, None])
    every = np.concatenate(list(loops))
    stride = 1 + len(every) // 2000  # the others are compared with a part of the points only
    other, facing = every[::stride], np.concatenate(normals)[::stride]
    result = []
    for loop, normal in zip(loops, normals, strict=True):
        width = np.empty(len(loop))
        for start in range(0, len(loop), 500):
            part = slice(start, start + 500)
            distance = np.linalg.norm(loop[part, None] - other, axis=2)
            width[part] = np.where(normal[part] @ facing.T < 0, distance, np.inf).min(axis=1)
        result.append(width)
    return result


def _vertices(loop: np.ndarray, size: Size, angle: float, width: np.ndarray, onto: Onto) -> np.ndarray:
    """Return mesh vertices on a closed curve that is given by many points."""
    ahead = np.roll(loop, -1, axis=0) - loop
    length = np.linalg.norm(ahead, axis=1)
    behind = np.roll(ahead, 1, axis=0)
    cross = behind[:, 0] * ahead[:, 1] - behind[:, 1] * ahead[:, 0]
    turn = np.abs(np.arctan2(cross, np.sum(behind * ahead, axis=1)))
    curvature = 2 * turn / (length + np.roll(length, 1))
    t = np.concatenate([[0.0], np.cumsum(length)])
    sizes = np.minimum(np.minimum(sizes_at(size, loop), width), angle / np.maximum(curvature, 1e-12))
    sizes = graded(t[:-1], sizes, GRADATION, period=t[-1])
    positions = equidistribute(t, np.append(sizes, sizes[0]), 6)[:-1]
    closed = np.vstack([loop, loop[:1]])
    x = np.column_stack([np.interp(positions, t, closed[:, k]) for k in range(2)])
    return onto(x, np.full(len(x), 2 * length.max()))


def _space(domain: Ball | Sublevel | Moved, size: Size, angle: float) -> tuple[Simplices, Onto, Back]:
    shift, scale, onto, back = _maps(domain)
    unit = _scaled(size, shift, scale)
    base = domain.base if isinstance(domain, Moved) else domain
    low, high = domain.bounding_box()
    check_count(size, 0.5 * float(np.prod(high - low)), 3)
    if isinstance(base, Ball):
        around = _scaled(size, np.array(base.center), base.radius)
        on_sphere = around.capped(angle) if isinstance(around, SizeField) else min(around, angle)
        surface, triangles = mesh_sphere(on_sphere)
        if isinstance(domain, Moved):
            moved = domain.pushed(np.array(base.center) + base.radius * surface)
            surface = onto((moved - shift) / scale, np.zeros(len(moved)))
    else:
        assert isinstance(base, Sublevel) and isinstance(base.component, Star)
        fine, triangles, sizes = _star_surface(base.component, size, angle)
        fine = domain.pushed(fine) if isinstance(domain, Moved) else fine
        surface, triangles = remesh_surface((fine - shift) / scale, triangles, sizes.moved(shift, 1 / scale))
        surface = onto(surface, np.full(len(surface), 0.02))
    return fill_surface(surface, triangles, unit), onto, back


def _star_surface(star: Star, size: Size, angle: float) -> tuple[np.ndarray, np.ndarray, SizeField]:
    """Return many points of the surface, outward triangles, and the wanted size in a shell around it.

    The normal curvatures of a level set are the eigenvalues of P D²L P/|∇L|, P the tangential projection; the
    size is limited to `angle` over the largest one.
    """
    surface = star.center + star.directions * star.radii[:, None]
    gradient = star.landscape.gradient(surface)
    steepness = np.linalg.norm(gradient, axis=1)
    normal = gradient / steepness[:, None]
    tangential = np.eye(3) - normal[:, :, None] * normal[:, None, :]
    shape = tangential @ star.landscape.hessian(surface) @ tangential / steepness[:, None, None]
    curvature = np.linalg.norm(shape, ord=2, axis=(1, 2))
    wanted = np.minimum(sizes_at(size, surface), angle / np.maximum(curvature, 1e-12))
    triangles = ConvexHull(star.directions).simplices
    inward = np.linalg.det(star.directions[triangles]) < 0
    triangles[inward] = triangles[inward][:, ::-1]
    for _ in range(30):  # make it gradual
        for i, j in ((0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)):
            start, end = triangles[:, i], triangles[:, j]
            distance = np.linalg.norm(surface[start] - surface[end], axis=1)
            np.minimum.at(wanted, start, wanted[end] + GRADATION * distance)
    # a shell of prisms around the surface, three tetrahedra each
    prisms = np.hstack([triangles, triangles + len(surface)])
    tetrahedra = np.concatenate([prisms[:, corners] for corners in ([0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5])])
    corners = np.concatenate([star.center + (surface - star.center) * factor for factor in (0.9, 1.1)])
    return surface, triangles, SizeField(corners[tetrahedra], np.tile(wanted, 2)[tetrahedra])
