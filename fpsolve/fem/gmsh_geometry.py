"""What gmsh does for fpsolve: fill polygons, boxes and closed surfaces with simplices.

Plain functions of arrays for one process (rank 0); coordinates should be of order one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from fpsolve.errors import FpsolveError
from fpsolve.fem.spacing import Size, SizeField
from fpsolve.model.domains import SIDES
from fpsolve.model.meshfile import gmsh_session

DELAUNAY, FRONTAL = 5, 6


class MeshingError(FpsolveError):
    """gmsh could not make the mesh; the message names the domain, the size and gmsh's own message."""

    exit_code = 3


@dataclass(frozen=True)
class Simplices:
    """A straight-sided mesh with tagged boundary facets.

    Attributes
    ----------
    points : ndarray, shape (n, d)
    cells : ndarray of int, shape (m, d+1)
    facets : ndarray of int, shape (b, d)
        All boundary facets.
    labels : ndarray of int, shape (b,)
        A tag for each.
    """

    points: np.ndarray
    cells: np.ndarray
    facets: np.ndarray
    labels: np.ndarray


@contextmanager
def _session(size: Size, dimension: int, extend: bool) -> Iterator[Any]:
    """Start gmsh with the size as its only source of sizes (besides the boundary's own edges, with `extend`)."""
    field = isinstance(size, SizeField)
    options: dict[str, float] = {
        "Mesh.Algorithm": DELAUNAY if field else FRONTAL,
        "Mesh.Algorithm3D": 1,
        "Mesh.Optimize": 1,
        "Mesh.MeshSizeExtendFromBoundary": float(extend and not field),
        "Mesh.MeshSizeFromPoints": 0,
        "Mesh.MeshSizeFromCurvature": 0,
        "Mesh.MeshSizeMin": 0.0,
        "Mesh.MeshSizeMax": 1e22 if field else float(size),  # type: ignore[arg-type]
    }
    with gmsh_session(options) as gmsh:
        if isinstance(size, SizeField):
            view = gmsh.view.add("size")
            gmsh.view.addListData(view, ("SL", "ST", "SS")[dimension - 1], len(size.sizes), _list_data(size))
            number = gmsh.model.mesh.field.add("PostView")
            gmsh.model.mesh.field.setNumber(number, "ViewTag", view)
            gmsh.model.mesh.field.setAsBackgroundMesh(number)
        try:
            yield gmsh
        except FpsolveError:
            raise
        except Exception as error:  # gmsh raises plain Exception
            raise MeshingError(str(error) or gmsh.logger.getLastError()) from None
        finally:
            if field:
                gmsh.view.remove(view)


def _list_data(size: SizeField) -> np.ndarray:
    """Return x of all corners, y, z, then values, simplex by simplex, as gmsh's list-based views want it."""
    n, k, d = size.corners.shape
    coordinates = np.zeros((n, 3, k))
    coordinates[:, :d] = size.corners.transpose(0, 2, 1)
    return np.concatenate([coordinates.reshape(n, -1), size.sizes], axis=1).ravel()


def _mesh_arrays(gmsh: Any, dimension: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the points that cells use, the cells, and for each point its gmsh tag."""
    tags, coordinates, _ = gmsh.model.mesh.getNodes()
    cells = gmsh.model.mesh.getElementsByType((1, 2, 4)[dimension - 1])[1].reshape(-1, dimension + 1)
    if len(cells) == 0:
        raise MeshingError("no cells were made")
    used, numbered = np.unique(cells, return_inverse=True)
    order = np.argsort(tags)
    rows = order[np.searchsorted(tags, used, sorter=order)]
    return coordinates.reshape(-1, 3)[rows, :dimension], numbered.reshape(cells.shape), used


def fill_polygon(loops: Sequence[np.ndarray], labels: Sequence[np.ndarray], size: Size) -> Simplices:
    """Triangulate the inside of closed polygons, keeping their points and edges.

    Parameters
    ----------
    loops : arrays of shape (n, 2)
        The outer polygon, then the holes.
    labels : arrays of int, shape (n,)
        A label for the edge from each point to the next.
    size : float or SizeField

    Raises
    ------
    MeshingError
    """
    with _session(size, 2, extend=True) as gmsh:
        geo = gmsh.model.geo
        curves = []
        for loop in loops:
            ends = [geo.addPoint(float(x), float(y), 0.0) for x, y in loop]
            lines = [geo.addLine(a, b) for a, b in zip(ends, ends[1:] + ends[:1], strict=True)]
            for line in lines:
                geo.mesh.setTransfiniteCurve(line, 2)
            curves.append(geo.addCurveLoop(lines))
        geo.addPlaneSurface(curves)
        geo.synchronize()
        gmsh.model.mesh.generate(2)
        points, cells, _ = _mesh_arrays(gmsh, 2)
    given = np.concatenate(list(loops))
    distance, at = cKDTree(points).query(given)
    if distance.max() > 1e-9 or len(np.unique(at)) != len(given):
        raise MeshingError("boundary points were lost")
    points[at] = given
    start = np.cumsum([0, *(len(loop) for loop in loops)])
    following = np.concatenate([np.roll(np.arange(a, b), -1) for a, b in pairwise(start)])
    return Simplices(points, cells, np.column_stack([at, at[following]]), np.concatenate(list(labels)))


def fill_box(extent: Sequence[float], size: Size) -> Simplices:
    """Mesh the box from 0 to `extent` (3 numbers) with tetrahedra; labels number `SIDES`.

    Raises
    ------
    MeshingError
    """
    with _session(size, 3, extend=False) as gmsh:
        if not isinstance(size, SizeField):
            gmsh.option.setNumber("Mesh.MeshSizeMin", size)
        gmsh.model.occ.addBox(0, 0, 0, *extent)
        gmsh.model.occ.synchronize()
        gmsh.model.mesh.generate(3)
        points, cells, tags = _mesh_arrays(gmsh, 3)
        facets, labels = [], []
        for _, surface in gmsh.model.getEntities(2):
            nodes = gmsh.model.mesh.getElements(2, surface)[2][0].reshape(-1, 3)
            facets.append(np.searchsorted(tags, nodes))
            mean = points[facets[-1].ravel()]
            flat = int(np.argmin(np.ptp(mean, axis=0) / np.array(extent)))
            labels.append(np.full(len(nodes), 2 * flat + (mean[0, flat] > 0.5 * extent[flat])))
            # sides are where they should be to the last digit
            points[facets[-1].ravel(), flat] = 0.0 if labels[-1][0] % 2 == 0 else extent[flat]
    assert len(SIDES) == len(labels)
    return Simplices(points, cells, np.concatenate(facets), np.concatenate(labels))


def mesh_sphere(size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Return points (n, 3) and triangles (m, 3) of the unit sphere.

    Raises
    ------
    MeshingError
    """
    with _session(size, 3, extend=False) as gmsh:
        if not isinstance(size, SizeField):
            gmsh.option.setNumber("Mesh.MeshSizeMin", size)
        gmsh.model.occ.addSphere(0, 0, 0, 1)
        gmsh.model.occ.synchronize()
        gmsh.model.mesh.generate(2)
        points, triangles = _surface_arrays(gmsh)
    return points / np.linalg.norm(points, axis=1)[:, None], triangles


def remesh_surface(surface: np.ndarray, triangles: np.ndarray, size: SizeField) -> tuple[np.ndarray, np.ndarray]:
    """Mesh a smooth closed surface anew, given by many points (n, 3) and outward triangles (m, 3).

    Returns
    -------
    points, triangles
        The points lie on the given triangles.

    Raises
    ------
    MeshingError
    """
    with _session(size, 3, extend=False) as gmsh:
        entity = gmsh.model.addDiscreteEntity(2)
        gmsh.model.mesh.addNodes(2, entity, np.arange(1, len(surface) + 1), surface.ravel())
        gmsh.model.mesh.addElementsByType(entity, 2, [], (triangles + 1).ravel())
        # one smooth surface without feature edges, cut into charts that can be flattened
        gmsh.model.mesh.classifySurfaces(np.pi, True, True, np.pi)
        gmsh.model.mesh.createGeometry()
        gmsh.model.mesh.generate(2)
        return _surface_arrays(gmsh)


def _surface_arrays(gmsh: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the points that triangles use, and the triangles."""
    tags, coordinates, _ = gmsh.model.mesh.getNodes()
    triangles = gmsh.model.mesh.getElementsByType(2)[1].reshape(-1, 3)
    used, numbered = np.unique(triangles, return_inverse=True)
    order = np.argsort(tags)
    points = coordinates.reshape(-1, 3)[order[np.searchsorted(tags, used, sorter=order)]]
    return points, numbered.reshape(-1, 3)


def fill_surface(surface: np.ndarray, triangles: np.ndarray, size: Size) -> Simplices:
    """Fill a closed triangulated surface with tetrahedra, keeping its points and triangles.

    Raises
    ------
    MeshingError
    """
    with _session(size, 3, extend=True) as gmsh:
        entity = gmsh.model.addDiscreteEntity(2)
        numbers = np.arange(1, len(surface) + 1)
        gmsh.model.mesh.addNodes(2, entity, numbers, surface.ravel())
        gmsh.model.mesh.addElementsByType(entity, 2, [], (triangles + 1).ravel())
        gmsh.model.geo.addVolume([gmsh.model.geo.addSurfaceLoop([entity])])
        gmsh.model.geo.synchronize()
        gmsh.model.mesh.generate(3)
        points, cells, tags = _mesh_arrays(gmsh, 3)
    if not np.array_equal(tags[: len(surface)], numbers):
        raise MeshingError("boundary points were lost")
    return Simplices(points, cells, triangles, np.zeros(len(triangles), dtype=int))
