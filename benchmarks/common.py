"""What the benchmarks share: timing that means the same on every rank, tables, fitted orders."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mpi4py import MPI

import numpy as np
import ufl
from dolfinx import fem, mesh

COMM = MPI.COMM_WORLD


def reference():
    """Return tests/reference.py, the exact values the tests use."""
    folder = str(Path(__file__).resolve().parents[1] / "tests")
    if folder not in sys.path:
        sys.path.append(folder)
    import reference

    return reference


def say(text: str = "") -> None:
    """Print on rank 0."""
    if COMM.rank == 0:
        print(text, flush=True)


def table(header: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """Print a Markdown table; rows of a generator appear as they are made."""
    if title:
        say(f"\n### {title}\n")
    say("| " + " | ".join(header) + " |")
    say("|" + "---|" * len(header))
    for row in rows:
        say("| " + " | ".join(str(entry) for entry in row) + " |")


class Stopwatch:
    """Seconds of named steps, the slowest rank's; on the wall and, for busy machines, of the processor."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.processor = 0.0

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        COMM.barrier()
        began, used = time.perf_counter(), time.process_time()
        yield
        spent, used = time.perf_counter() - began, time.process_time() - used
        spent = COMM.allreduce(spent, op=MPI.MAX)
        self.processor += COMM.allreduce(used, op=MPI.MAX)
        self.seconds[name] = self.seconds.get(name, 0.0) + spent

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def timed(work: Callable[[], object]) -> float:
    """Return the seconds `work` takes on the slowest rank."""
    watch = Stopwatch()
    with watch("all"):
        work()
    return watch.total


def fitted_order(sizes: Sequence[float], errors: Sequence[float]) -> float:
    """Return the slope of log(error) over log(size), least squares."""
    return float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])


def mean_size(domain: mesh.Mesh) -> float:
    """Return (volume per cell)^(1/d): the size that meshes of one family differ by. Collective."""
    volume = COMM.allreduce(fem.assemble_scalar(fem.form(fem.Constant(domain, 1.0) * ufl.dx)), op=MPI.SUM)
    d = domain.topology.dim
    return float((volume / domain.topology.index_map(d).size_global) ** (1 / d))


def l2_error(
    u: fem.Function, exact: Callable[[np.ndarray], np.ndarray], degree: int, keep: Callable | None = None
) -> tuple[float, float]:
    """Return ‖u - exact‖ and ‖exact‖ in L², by quadrature points of the cells; `exact` maps (n, d) to (n,).

    Parameters
    ----------
    degree : int
        Of the quadrature.
    keep : callable, optional
        (n, d) -> bool: the part of the domain that is looked at. Collective.
    """
    domain = u.function_space.mesh
    d = domain.topology.dim
    element = _quadrature(domain, degree)
    space = fem.functionspace(domain, element)
    points = fem.Function(fem.functionspace(domain, _quadrature(domain, degree, d)))
    x = ufl.SpatialCoordinate(domain)
    cells = np.arange(domain.topology.index_map(d).size_local, dtype=np.int32)
    expression = fem.Expression(x, points.function_space.element.interpolation_points())
    points.interpolate(expression, cells)
    at = points.x.array.reshape(-1, d)
    target, inside = fem.Function(space), fem.Function(space)
    known = space.dofmap.index_map.size_local
    values = exact(at[:known])
    target.x.array[:known] = np.nan_to_num(values)
    # 0 where the reference declines to answer
    inside.x.array[:known] = np.isfinite(values) & (keep(at[:known]) if keep else True)
    dx = ufl.Measure("dx", domain=domain, metadata={"quadrature_degree": degree, "quadrature_rule": "default"})
    error = fem.form(inside * (u - target) ** 2 * dx)
    norm = fem.form(inside * target**2 * dx)
    parts = [COMM.allreduce(fem.assemble_scalar(form), op=MPI.SUM) for form in (error, norm)]
    return float(np.sqrt(parts[0])), float(np.sqrt(parts[1]))


def _quadrature(domain: mesh.Mesh, degree: int, size: int = 0):
    import basix.ufl

    shape = (size,) if size else ()
    return basix.ufl.quadrature_element(domain.basix_cell(), value_shape=shape, scheme="default", degree=degree)
