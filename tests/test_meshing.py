"""Meshes: geometry, tags, sizes, curved elements; the same on every number of ranks."""

from __future__ import annotations

import shutil
from pathlib import Path

from mpi4py import MPI

import numpy as np
import pytest
import ufl
from dolfinx import fem
from dolfinx.mesh import exterior_facet_indices

from fpsolve.errors import InputError
from fpsolve.fem import gmsh_geometry, shapes
from fpsolve.fem.curved import jacobians, remove_flat_cells, split_corner_cells
from fpsolve.fem.gmsh_geometry import Simplices
from fpsolve.fem.meshing import MeshingError, SizeField, make_mesh
from fpsolve.fem.shapes import mesh_of
from fpsolve.fem.spacing import checked_size
from fpsolve.model.domains import Ball, Box, Interval, MeshFile, Sublevel
from fpsolve.model.process import formula_landscape
from fpsolve.model.simplices import boundary_facets, volumes

COMM = MPI.COMM_WORLD
MESHES = Path(__file__).parent.parent / "meshes"
WELL = formula_landscape("(x**2 - 1)**2 + y**2", "identity", ["x", "y"])
WELL_3D = formula_landscape("(x**2 - 1)**2 + y**2 + 2*z**2", "identity", ["x", "y", "z"])
DROP = Sublevel(WELL, 0.8, (-1, 0), (-2, -2), (2, 2))
DROP_3D = Sublevel(WELL_3D, 0.8, (-1, 0, 0), (-2, -2, -2), (2, 2, 2))
PEANUT_3D = Sublevel(WELL_3D, 1.2, (0, 0, 0), (-2, -2, -2), (2, 2, 2))
PARTS = {1: ["left", "right"], 2: ["left", "right", "bottom", "top"]}
PARTS[3] = [*PARTS[2], "back", "front"]


def integral(domain, measure):
    return COMM.allreduce(fem.assemble_scalar(fem.form(fem.Constant(domain, 1.0) * measure)), op=MPI.SUM)


def volume(made):
    return integral(made.mesh, ufl.dx(domain=made.mesh))


def area(made, name):
    ds = ufl.Measure("ds", domain=made.mesh, subdomain_data=made.facet_tags)
    return integral(made.mesh, ds(made.parts[name]))


def check_tags(made):
    """Every exterior facet is tagged once, with the tag of a part; the parts agree on all ranks."""
    d = made.mesh.topology.dim
    made.mesh.topology.create_connectivity(d - 1, d)
    assert made.facet_tags.dim == d - 1
    assert np.array_equal(made.facet_tags.indices, np.sort(exterior_facet_indices(made.mesh.topology)))
    assert set(made.facet_tags.values) <= set(made.parts.values())
    assert all(parts == made.parts for parts in COMM.allgather(made.parts))
    assert not any(name.startswith("_") for name in made.parts)
    # ghosts: facets between ranks must be interior for the forms with jumps
    jump = fem.form(fem.Constant(made.mesh, 1.0)("+") * ufl.dS(domain=made.mesh))
    assert COMM.allreduce(fem.assemble_scalar(jump), op=MPI.SUM) >= 0


def graded(domain, order, rule, size):
    """Return a size field on a coarse mesh of the domain, the same on all ranks."""
    coarse = mesh_of(domain, size, order)
    corners = coarse.nodes[coarse.cells[:, : domain.dimension + 1]]
    return SizeField(corners, rule(corners))


def fingerprint(made):
    """Return numbers that depend on the cells' nodes but not on their distribution or order."""
    owned = made.mesh.topology.index_map(made.mesh.topology.dim).size_local
    x = made.mesh.geometry.x[made.mesh.geometry.dofmap[:owned]]
    sums = np.array([owned, *(np.sum(np.abs(x) ** p, axis=(0, 1)) for p in (1, 3))], dtype=object)
    return np.array([COMM.allreduce(value, op=MPI.SUM) for value in np.hstack(sums).astype(float)])


@pytest.mark.parametrize("domain", [Interval(-1, 2), Box((-1,), (2,)), Ball((0.5,), 1.5)])
def test_intervals(domain):
    made = make_mesh(domain, 0.1, 3, COMM)
    check_tags(made)
    assert made.mesh.topology.index_map(1).size_global == 30
    assert volume(made) == pytest.approx(3, rel=1e-14)
    assert list(made.parts) == (["boundary"] if isinstance(domain, Ball) else ["left", "right"])
    assert COMM.allreduce(len(made.facet_tags.indices), op=MPI.SUM) == 2
    assert make_mesh(domain, 100.0, 1, COMM).mesh.topology.index_map(1).size_global == 2


def test_interval_follows_the_size_field():
    rule = lambda x: 0.01 + 0.2 * x[..., 0]  # noqa: E731
    x = mesh_of(Interval(0, 1), graded(Interval(0, 1), 1, rule, 0.1), 1).nodes
    gaps, middle = np.diff(x[:, 0]), 0.5 * (x[1:] + x[:-1])
    assert np.all(gaps / rule(middle) < 1.2) and np.all(gaps / rule(middle) > 0.7)


@pytest.mark.parametrize(("domain", "size"), [(Box((-1, 1), (1, 2)), 0.1), (Box((1e4, 0, 5), (1e4 + 1, 2, 5.5)), 0.3)])
def test_boxes(domain, size):
    made = make_mesh(domain, size, 2, COMM)
    check_tags(made)
    low, high = domain.bounding_box()
    assert volume(made) == pytest.approx(np.prod(high - low), rel=1e-10)
    assert list(made.parts) == PARTS[domain.dimension]
    for k, name in enumerate(made.parts):
        assert area(made, name) == pytest.approx(np.prod(np.delete(high - low, k // 2)), rel=1e-10)
    own = made.mesh.geometry.x[:, : domain.dimension]
    nodes = np.concatenate(COMM.allgather(own))
    assert np.array_equal(nodes.min(axis=0), low) and np.array_equal(nodes.max(axis=0), high)
    assert np.all((nodes == low) | (nodes == high), axis=1).sum() >= 2**domain.dimension
    sides = [name for k, name in enumerate(made.parts) if k % 2]
    assert sides == [name for name in ("right", "top", "front") if name in made.parts]


def test_the_sides_are_where_their_names_say():
    box = mesh_of(Box((0, 0, 0), (1, 2, 3)), 0.7, 1)
    for k, name in enumerate(PARTS[3]):
        x = box.nodes[box.facets[box.labels == box.parts[name]]]
        assert np.all(x[..., k // 2] == (0, 1, 0, 2, 0, 3)[k])


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_area_of_the_curved_disc_converges(order):
    errors = [volume(make_mesh(Ball((1, 2), 0.5), h, order, COMM)) / (0.25 * np.pi) - 1 for h in (0.2, 0.1, 0.05)]
    rates = np.log2(np.abs(np.array(errors[:-1]) / errors[1:]))
    print("errors", errors, "rates", rates)
    expected = 2 * ((order + 2) // 2)  # equispaced nodes: order + 1, one more for even orders
    assert rates[0] > expected - 0.5 and abs(errors[0]) < 0.3 * 0.3**expected


@pytest.mark.parametrize(("order", "cap"), [(1, 0.1), (2, 2e-3), (3, 1e-3)])
def test_volume_of_the_curved_ball_converges(order, cap):
    errors = [volume(make_mesh(Ball((0, 0, 1), 2.0), h, order, COMM)) / (32 * np.pi / 3) - 1 for h in (1.0, 0.5)]
    print("errors", errors)
    assert abs(errors[1]) < cap and np.log2(errors[0] / errors[1]) > 2 * ((order + 2) // 2) - 0.6


@pytest.mark.parametrize("size", [0.2, 0.5, 100.0])
@pytest.mark.parametrize(
    ("domain", "order"),
    [(Ball((3, 0), 0.5), 2), (Ball((3, 0), 0.5), 5), (Ball((1, 0, 0), 0.5), 2), (Ball((1, 0, 0), 0.5), 3)],
)
def test_boundary_nodes_of_balls_and_valid_cells(domain, order, size):
    made = mesh_of(domain, size, order)
    d = domain.dimension
    on_facets = np.unique(made.facets)
    distance = np.linalg.norm(made.nodes - domain.center, axis=1) / domain.radius
    assert np.abs(distance[on_facets] - 1).max() < 1e-14 * 10
    assert np.sum(np.abs(distance - 1) < 1e-12) > len(on_facets) and distance.max() < 1 + 1e-13
    assert jacobians(made.nodes, made.cells, d, order).min() > 0.3
    assert np.array_equal(
        np.sort(boundary_facets(made.cells[:, : d + 1])[0], axis=0), np.sort(np.sort(made.facets, axis=1), axis=0)
    )


def test_all_exterior_facet_nodes_lie_on_the_circle():
    made = make_mesh(Ball((1, 0), 0.7), 0.3, 3, COMM)
    space = fem.functionspace(made.mesh, ("Lagrange", 3, (2,)))
    x = fem.Function(space)
    x.interpolate(lambda p: p[:2])
    # the geometry has degree 3 with equispaced nodes, so its own nodes are compared
    made.mesh.topology.create_connectivity(1, 2)
    cells = made.mesh.topology.connectivity(1, 2)
    to_facet = made.mesh.topology.connectivity(2, 1)
    worst = 0.0
    for facet in made.facet_tags.indices:
        cell = cells.links(facet)[0]
        local = list(to_facet.links(cell)).index(facet)
        nodes = made.mesh.geometry.dofmap[cell][space.element.basix_element.entity_closure_dofs[1][local]]
        worst = max(worst, np.abs(np.linalg.norm(made.mesh.geometry.x[nodes, :2] - [1, 0], axis=1) - 0.7).max())
    assert COMM.allreduce(worst, op=MPI.MAX) < 1e-14


@pytest.mark.parametrize(
    ("domain", "size", "order"), [(DROP, 0.1, 3), (DROP, 2.0, 2), (DROP_3D, 0.5, 2), (PEANUT_3D, 0.5, 2)]
)
def test_sublevel_nodes_lie_on_the_level_set(domain, size, order):
    made = mesh_of(domain, size, order)
    on_level = np.abs(domain.landscape.loss(made.nodes) - domain.below) < 1e-13
    assert np.all(on_level[np.unique(made.facets)])
    assert on_level.sum() > len(np.unique(made.facets))
    assert jacobians(made.nodes, made.cells, domain.dimension, order).min() > 0.1


def test_area_of_a_sublevel_set_with_a_hole():
    ring = formula_landscape("(x**2 + y**2 - 1)**2", "identity", ["x", "y"])
    domain = Sublevel(ring, 0.25, (-1, 0), (-2, -2), (2, 2), ("boundary",))
    made = make_mesh(domain, 0.1, 2, COMM)
    check_tags(made)
    assert volume(made) == pytest.approx(np.pi, rel=2e-6)
    assert area(made, "boundary") == pytest.approx(2 * np.pi * (np.sqrt(1.5) + np.sqrt(0.5)), rel=1e-5)


def test_volume_of_a_sublevel_set_in_space():
    ellipsoid = formula_landscape("x**2 + 2*y**2 + 4*z**2", "identity", ["x", "y", "z"])
    made = make_mesh(Sublevel(ellipsoid, 1.0, (0.1, 0, 0), (-2, -2, -2), (2, 2, 2)), 0.25, 2, COMM)
    check_tags(made)
    assert volume(made) == pytest.approx(4 * np.pi / 3 / np.sqrt(8), rel=1e-3)


@pytest.mark.parametrize(
    ("domain", "order", "coarse"),
    [
        (Box((0, 0), (2, 1)), 1, 0.2),
        (Ball((0, 0), 1), 3, 0.3),
        (DROP, 2, 0.3),
        (Ball((0, 0, 0), 1), 2, 0.5),
        (Box((0, 0, 0), (1, 1, 1)), 1, 0.4),
        (DROP_3D, 2, 0.4),
    ],
)
def test_size_fields_are_followed(domain, order, coarse):
    d = domain.dimension
    center = np.array(domain.bounding_box()[1])
    rule = lambda x: (0.05, 0.15)[d - 2] + 0.25 * np.linalg.norm(x - center, axis=-1)  # noqa: E731
    made = mesh_of(domain, graded(domain, order, rule, coarse), order)
    corners = made.nodes[made.cells[:, : d + 1]]
    edges = np.concatenate([corners[:, i] - corners[:, j] for i in range(d + 1) for j in range(i)])
    middles = np.concatenate([corners[:, i] + corners[:, j] for i in range(d + 1) for j in range(i)]) / 2
    ratio = np.linalg.norm(edges, axis=1) / rule(middles)
    assert 0.6 < np.median(ratio) < 1.3 and np.quantile(ratio, 0.98) < 2.0
    if order > 1:
        assert jacobians(made.nodes, made.cells, d, order).min() > 0.1


@pytest.mark.parametrize("domain", [Interval(0, 1), Box((0, 0), (2, 1)), Ball((0, 0), 1), DROP, Ball((0, 0, 0), 1)])
def test_rounding_in_the_size_field_does_not_change_the_mesh(domain):
    field = graded(domain, 2, lambda x: 0.15 + 0.3 * np.abs(x[..., 0]), 0.4)
    noise = 1 + 1e-12 * np.random.default_rng(5).uniform(-1, 1, field.sizes.shape)
    first, second = (
        mesh_of(domain, checked_size(f, domain.dimension), 2)
        for f in (field, SizeField(field.corners, field.sizes * noise))
    )
    assert np.array_equal(first.nodes, second.nodes) and np.array_equal(first.cells, second.cells)


@pytest.mark.parametrize(("domain", "order"), [(Ball((0, 0), 1), 3), (Box((0, 0, 0), (1, 1, 1)), 1), (DROP, 2)])
def test_the_mesh_does_not_depend_on_the_number_of_ranks(domain, order):
    field = graded(domain, order, lambda x: 0.1 + 0.3 * np.abs(x[..., 0]), 0.4)
    whole = fingerprint(make_mesh(domain, field, order, COMM))
    reference = mesh_of(domain, checked_size(field, domain.dimension), order)
    x = reference.nodes[reference.cells]
    expected = np.concatenate(
        [[len(x)], *(np.pad(np.sum(np.abs(x) ** p, axis=(0, 1)), (0, 3 - x.shape[2])) for p in (1, 3))]
    )
    assert np.allclose(whole, expected, rtol=1e-13)


def test_mesh_files_and_their_groups():
    made = make_mesh(MeshFile(str(MESHES / "l_shape.msh"), 2), np.inf, 1, COMM)
    check_tags(made)
    assert volume(made) == pytest.approx(3, rel=1e-13)
    assert area(made, "corner") == pytest.approx(2) and area(made, "outer") == pytest.approx(6)
    ring = make_mesh(MeshFile(str(MESHES / "annulus.msh"), 2), np.inf, 1, COMM)
    check_tags(ring)
    assert volume(ring) == pytest.approx(2 * np.pi, rel=1e-4)
    assert area(ring, "inner") == pytest.approx(np.pi, rel=1e-3)


@pytest.mark.parametrize("name", ["l_shape", "annulus"])
def test_mesh_files_are_bisected(name):
    domain = MeshFile(str(MESHES / f"{name}.msh"), 2)
    whole = make_mesh(domain, np.inf, 1, COMM)
    rule = lambda x: 0.01 + 0.3 * np.linalg.norm(x - [0.5, 0], axis=-1)  # noqa: E731
    made = make_mesh(domain, graded(domain, 1, rule, np.inf), 1, COMM)
    check_tags(made)
    # curved cells are cut in their reference cells: the domain stays the same
    assert volume(made) == pytest.approx(volume(whole), rel=1e-12)
    for part in whole.parts:
        assert area(made, part) == pytest.approx(area(whole, part), rel=1e-6)
    fine = mesh_of(domain, 0.08, 1)
    mean = np.sqrt(4 / np.sqrt(3) * np.abs(volumes(fine.nodes, fine.cells[:, :3])))
    assert 0.05 < np.median(mean) < 0.1 and mean.max() < 0.1


def write_box(path, groups):
    """Write a coarse cube with the given physical groups: name -> surfaces."""
    with gmsh_geometry.gmsh_session({"Mesh.MeshSizeMin": 0.5, "Mesh.MeshSizeMax": 0.5}) as gmsh:
        gmsh.model.occ.addBox(0, 0, 0, 1, 1, 1)
        gmsh.model.occ.synchronize()
        for name, surfaces in groups.items():
            gmsh.model.addPhysicalGroup(2, surfaces, name=name)
        gmsh.model.addPhysicalGroup(3, [1], name="cube")
        gmsh.model.mesh.generate(3)
        gmsh.write(str(path))


def test_groups_of_a_cube_and_what_is_in_none(shared_path):
    if COMM.rank == 0:
        write_box(shared_path / "cube.msh", {"a": [1], "": [2, 3]})
    COMM.barrier()
    domain = MeshFile(str(shared_path / "cube.msh"), 3, ("a", "untagged"))
    made = make_mesh(domain, 0.3, 1, COMM)
    check_tags(made)
    assert [area(made, part) for part in ("a", "2", "untagged")] == pytest.approx([1, 2, 3])
    assert volume(made) == pytest.approx(1)
    assert domain.contains(np.array([[0.5, 0.5, 0.5], [0.5, 0.5, 1.5]])).tolist() == [True, False]


def test_overlapping_groups_are_refused(shared_path):
    if COMM.rank == 0:
        write_box(shared_path / "cube.msh", {"a": [1, 2], "b": [2, 3]})
    COMM.barrier()
    with pytest.raises(InputError, match="at most one group"):
        make_mesh(MeshFile(str(shared_path / "cube.msh"), 3), 1.0, 1, COMM)


def test_a_file_that_vanishes_fails_on_every_rank(shared_path):
    if COMM.rank == 0:
        shutil.copy(MESHES / "l_shape.msh", shared_path / "there.msh")
    COMM.barrier()
    domain = MeshFile(str(shared_path / "there.msh"), 2)
    COMM.barrier()
    if COMM.rank == 0:
        (shared_path / "there.msh").unlink()
    with pytest.raises(InputError) as caught:
        make_mesh(domain, 1.0, 1, COMM)
    assert caught.value.key == "domain.file"


@pytest.mark.parametrize(
    ("domain", "size", "order", "key"),
    [
        (Ball((0, 0), 1), 0.0, 1, "mesh.size"),
        (Ball((0, 0), 1), float("nan"), 1, "mesh.size"),
        (Ball((0, 0), 1), "0.1", 1, "mesh.size"),
        (Ball((0, 0), 1), 1e-4, 1, "mesh.size"),
        (Box((0, 0, 0), (1, 1, 1)), 1e-3, 1, "mesh.size"),
        (Interval(0, 1), 1e-9, 1, "mesh.size"),
        (DROP, 1e-5, 1, "mesh.size"),
        (Ball((0, 0), 1), 0.1, 0, "mesh.order"),
        (Ball((0, 0, 0), 1), 0.5, 4, "mesh.order"),
        (Ball((0, 0), 1), SizeField(np.zeros((1, 2, 1)), np.ones((1, 2))), 1, "mesh.size"),
        (Interval(0, 1), SizeField(np.array([[[0.0], [1.0]]]), np.array([[0.1, -1.0]])), 1, "mesh.size"),
        (Interval(0, 1), SizeField(np.array([[[0.0], [1.0]]]), np.array([[1e-9, 1e-9]])), 1, "mesh.size"),
    ],
)
def test_unusable_sizes_and_orders(domain, size, order, key):
    with pytest.raises(InputError) as caught:
        make_mesh(domain, size, order, COMM)
    assert caught.value.key == key


def test_a_failure_of_gmsh_reaches_every_rank_with_domain_and_size(monkeypatch):
    def fail(*arguments):
        with gmsh_geometry._session(1.0, 2, True) as gmsh:
            gmsh.model.mesh.getElements(2, 17)

    monkeypatch.setattr(shapes, "fill_polygon", fail)
    with pytest.raises(
        MeshingError, match=r"Ball from \[-1.0, -1.0\] to \[1.0, 1.0\] with mesh size 0.25: .*17"
    ) as caught:
        make_mesh(Ball((0, 0), 1), 0.25, 2, COMM)
    assert caught.value.exit_code == 3
    monkeypatch.undo()
    make_mesh(Ball((0, 0), 1), 0.25, 2, COMM)


def test_a_gmsh_session_of_the_caller_survives():
    import gmsh

    if COMM.rank == 0:
        gmsh.initialize(readConfigFiles=False, interruptible=False)
        gmsh.model.add("mine")
        gmsh.option.setNumber("Mesh.MeshSizeMax", 7.0)
    make_mesh(Box((0, 0), (1, 1)), 0.25, 1, COMM)
    if COMM.rank == 0:
        assert gmsh.isInitialized() and gmsh.model.getCurrent() == "mine" and "fpsolve" not in gmsh.model.list()
        assert gmsh.option.getNumber("Mesh.MeshSizeMax") == 7.0
        gmsh.finalize()


def test_cells_that_a_smooth_boundary_would_flatten_are_changed():
    square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    two = Simplices(
        square, np.array([[0, 1, 2], [0, 2, 3]]), np.array([[0, 1], [1, 2], [2, 3], [3, 0]]), np.ones(4, dtype=int)
    )
    split = split_corner_cells(two)
    assert len(split.cells) == 6 and np.abs(volumes(split.points, split.cells)).sum() == pytest.approx(1)
    x = np.array([[0.0, 0, 0.1], [1, 1, 0.1], [1, 0, 0], [0, 1, 0], [0.5, 0.5, -1]])
    cells = np.array([[0, 1, 2, 3], [0, 2, 3, 4], [1, 2, 3, 4]])
    facets = boundary_facets(cells)[0]
    flat = remove_flat_cells(Simplices(x, cells, facets, np.zeros(len(facets), dtype=int)))
    assert [0, 1, 2, 3] not in flat.cells.tolist()
