"""Make the meshes of this folder with gmsh: ``python meshes/make.py``.

They are examples of what `fpsolve` reads: triangles (or tetrahedra), and one physical group with a name for
each part of the boundary.
"""

from __future__ import annotations

from pathlib import Path

import gmsh

HERE = Path(__file__).parent


def l_shape(size: float = 0.1) -> None:
    """Write the square (-1, 1)² without its lower right quarter; groups "corner" (two inner sides) and "outer"."""
    corners = [(0, 0), (0, -1), (-1, -1), (-1, 1), (1, 1), (1, 0)]
    points = [gmsh.model.geo.addPoint(x, y, 0, size) for x, y in corners]
    lines = [gmsh.model.geo.addLine(a, b) for a, b in zip(points, points[1:] + points[:1], strict=True)]
    surface = gmsh.model.geo.addPlaneSurface([gmsh.model.geo.addCurveLoop(lines)])
    gmsh.model.geo.synchronize()
    gmsh.model.addPhysicalGroup(1, [lines[0], lines[-1]], name="corner")
    gmsh.model.addPhysicalGroup(1, lines[1:-1], name="outer")
    gmsh.model.addPhysicalGroup(2, [surface], name="domain")


def annulus(size: float = 0.2) -> None:
    """Write the ring 0.5 < |x| < 1.5 with curved triangles of order 2; groups "inner" and "outer"."""
    outer, inner = gmsh.model.occ.addDisk(0, 0, 0, 1.5, 1.5), gmsh.model.occ.addDisk(0, 0, 0, 0.5, 0.5)
    ring = gmsh.model.occ.cut([(2, outer)], [(2, inner)])[0][0][1]
    gmsh.model.occ.synchronize()
    curves = {gmsh.model.getBoundingBox(1, tag)[3] > 1: tag for _, tag in gmsh.model.getEntities(1)}
    gmsh.model.addPhysicalGroup(1, [curves[False]], name="inner")
    gmsh.model.addPhysicalGroup(1, [curves[True]], name="outer")
    gmsh.model.addPhysicalGroup(2, [ring], name="domain")
    gmsh.option.setNumber("Mesh.MeshSizeMin", size)
    gmsh.option.setNumber("Mesh.MeshSizeMax", size)
    gmsh.option.setNumber("Mesh.ElementOrder", 2)


def main() -> None:
    """Write all meshes next to this file."""
    for geometry in (l_shape, annulus):
        gmsh.initialize(readConfigFiles=False, interruptible=False)
        gmsh.option.setNumber("General.Terminal", 0)
        gmsh.model.add(geometry.__name__)
        geometry()
        gmsh.model.mesh.generate(2)
        gmsh.write(str(HERE / f"{geometry.__name__}.msh"))
        gmsh.finalize()


if __name__ == "__main__":
    main()
