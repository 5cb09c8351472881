"""What is observed of a density along the way, each number one scalar product with a vector made once."""

from __future__ import annotations

from collections.abc import Sequence

from petsc4py import PETSc

import numpy as np
from scipy.spatial import cKDTree

from fpsolve.errors import InputError
from fpsolve.fem.boundary import REFLECTING, facet_points
from fpsolve.fem.functionals import Scalar, expectation_loads, region_loads
from fpsolve.fem.generator import Generator
from fpsolve.fem.meshing import Triangulation
from fpsolve.fem.parallel import agree, on_root
from fpsolve.model.basins import basin_labels, find_minima
from fpsolve.model.domains import Domain
from fpsolve.model.expressions import Formula
from fpsolve.model.process import Process
from fpsolve.problems.entropies import FLOOR, Entropies, EntropyMonitor
from fpsolve.problems.evolution import Record
from fpsolve.problems.reference import Reference

#: Width of the layer at an artificial boundary, relative to the extent of the domain in each direction.
LAYER = 0.05
#: How often cells on a separatrix are halved, by dimension: 5e-5 of the mass where ρ is large there (2D, h = 0.1).
BASIN_DEPTH = {1: 30, 2: 4, 3: 3}
#: Mass in that layer beyond which the truncation matters.
NEGLIGIBLE = 1e-6
#: A domain should reach this many standard deviations from the mean: a Gaussian has 1e-8 of its mass outside.
REACH = 6.0


class Monitors:
    """Observes densities on one mesh. Construction and methods are collective.

    Parameters
    ----------
    process : Process
    domain : Domain
    triangulation : Triangulation
    generator : Generator
        Its space and free unknowns are those of the densities. Must live as long as the monitors.
    observables : formulas g
        ∫gρ is recorded.
    reference : Reference, optional
        ρ∞ for the entropies; not used where the process can leave.
    minima : ndarray, shape (k, d), optional
        Of L, for the masses of their basins; searched for by default.

    Raises
    ------
    InputError
        On every rank, if an observable cannot be parsed or is not finite in the domain.
    """

    def __init__(
        self,
        process: Process,
        domain: Domain,
        triangulation: Triangulation,
        generator: Generator,
        observables: Sequence[str] = (),
        reference: Reference | None = None,
        minima: np.ndarray | None = None,
    ) -> None:
        self.process, self.domain, self.generator = process, domain, generator
        self.observables = tuple(observables)
        comm = generator.space.mesh.comm
        self.comm = comm
        self.minima = on_root(comm, lambda: find_minima(process, domain)) if minima is None else np.asarray(minima)
        lower, upper = domain.bounding_box()
        self.center = 0.5 * (lower + upper)  # moments about it lose fewer digits than about 0
        self._rows = np.array(
            [_taken(generator, vector) for vector in self._moments() + self._observed() + self._regions(triangulation)]
        )
        leaves = generator.boundary.measures["absorbing"] > 0
        self._entropies = None if reference is None or leaves else EntropyMonitor(process, generator, reference)
        self._all_free = generator.unknowns == generator.space.dofmap.index_map.size_global

    def _moments(self) -> list[PETSc.Vec]:
        d, center = self.process.dimension, self.center

        def power(*axes: int) -> Scalar:
            return lambda x: np.prod((x - center)[:, list(axes)], axis=1)

        first = [power(i) for i in range(d)]
        second = [power(i, j) for i in range(d) for j in range(i, d)]
        return expectation_loads(self.generator, first + second)

    def _observed(self) -> list[PETSc.Vec]:
        names = self.process.variables
        formulas = [Formula.parse(text, names, f"observables[{k}]") for k, text in enumerate(self.observables)]
        vectors = expectation_loads(self.generator, list(formulas)) if formulas else []
        bad = [k for k, v in enumerate(vectors) if not np.isfinite(v.getArray(readonly=True)).all()]
        error = (
            InputError(f"observables[{bad[0]}]", self.observables[bad[0]], "finite values in the domain")
            if bad
            else None
        )
        agree(self.comm, error)
        return vectors

    def _regions(self, triangulation: Triangulation) -> list[PETSc.Vec]:
        """Return the vectors of the boundary layer and of the basins."""
        space, degree = self.generator.space, self.generator.degree
        layer = artificial_layer(self.domain, triangulation, self.generator)
        vectors = region_loads(space, degree, layer, 1, depth=2)
        if len(self.minima):
            size = float(np.linalg.norm(np.subtract(*self.domain.bounding_box())))
            vectors += region_loads(
                space,
                degree,
                lambda x: basin_labels(self.process, self.minima, x, size),
                len(self.minima),
                BASIN_DEPTH[self.process.dimension],
            )
        return vectors

    def record(
        self, t: float, vector: PETSc.Vec, theta: float = 1.0, current: tuple[PETSc.Mat, PETSc.Vec] | None = None
    ) -> Record:
        """Observe the density with these free unknowns. Collective.

        Parameters
        ----------
        t : float
            Time, in units in which one SGD step lasts η.
        vector : PETSc.Vec
        theta : float
            ε²(t)/ε², for the entropies.
        current : (B(θ), κ(θ)), optional
            Where they are not the generator's, as `Family.at` gives them.
        """
        matrix, outflow = (None, self.generator.outflow) if current is None else current
        mass = self.generator.mass.dot(vector)
        values = self.comm.allreduce(self._rows @ vector.getArray(readonly=True))
        d, k = self.process.dimension, len(self.observables)
        pairs = d * (d + 1) // 2
        mean, covariance = _mean_and_covariance(values[:d], values[d : d + pairs], mass)
        lowest, highest = vector.min()[1], vector.max()[1]
        if not self._all_free:  # the others are fixed to zero
            lowest, highest = min(lowest, 0.0), max(highest, 0.0)
        entropies = self.entropies(vector, theta, matrix)
        return Record(
            t=t,
            mass=mass,
            outflow=outflow.dot(vector),
            minimum=lowest,
            maximum=highest,
            mean=self.center + mean,
            covariance=covariance,
            observables=values[d + pairs : d + pairs + k],
            entropy=None if entropies is None else entropies.chi2,
            entropy_production=None if entropies is None else entropies.production,
            relative_entropy=None if entropies is None else entropies.relative,
            basins=values[d + pairs + k + 1 :],
            near_boundary=float(values[d + pairs + k] / mass) if mass > 0 else 0.0,
        )

    def entropies(self, vector: PETSc.Vec, theta: float = 1.0, matrix: PETSc.Mat | None = None) -> Entropies | None:
        """Return the entropies alone, as `EntropyMonitor.evaluate`; None where ρ∞ is not known. Collective."""
        if self._entropies is None:
            return None
        return self._entropies.evaluate(vector, theta, matrix)

    @property
    def messages(self) -> tuple[str, ...]:
        """What a reader of the records must know about the entropies."""
        if self._entropies is None:
            return ()
        origin = self._entropies.reference.origin
        text = f"entropies: ρ∞ {origin}; its tail below {FLOOR:g} max ρ∞ counts as one state"
        if self.generator.scheme != "sg":
            text += "; small values and the production need a mesh that resolves ρ and ρ∞"
        return (text,)

    def destroy(self) -> None:
        """Let go of the vectors."""
        self._rows = np.empty((0, 0))
        self._entropies = None


def _taken(generator: Generator, vector: PETSc.Vec) -> np.ndarray:
    """Return this rank's free part of a vector over the space, which is destroyed."""
    free = generator.restrict(vector)
    values = free.getArray(readonly=True).copy()
    for thing in (vector, free):
        thing.destroy()
    return values


def _mean_and_covariance(first: np.ndarray, second: np.ndarray, mass: float) -> tuple[np.ndarray, np.ndarray]:
    """Return both from the moments ∫xρ and ∫x_i x_j ρ (i <= j, row by row)."""
    d = len(first)
    if not mass > 0:
        return np.full(d, np.nan), np.full((d, d), np.nan)
    mean = first / mass
    covariance = np.empty((d, d))
    covariance[np.triu_indices(d)] = second / mass
    covariance.T[np.triu_indices(d)] = second / mass
    return mean, covariance - np.outer(mean, mean)


def artificial_layer(domain: Domain, triangulation: Triangulation, generator: Generator) -> Scalar:
    """Return the function that is 0 within the layer at the artificial boundary and -1 elsewhere. Collective.

    Artificial are the facets without flux that are not in ``domain.reflecting``. The layer is `LAYER` wide, in
    units of the extents of the bounding box.
    """
    mesh = triangulation.mesh
    tags = generator.boundary.tags
    wanted = [triangulation.parts[name] for name in domain.reflecting]
    cut_off = (tags.values == REFLECTING) & ~np.isin(triangulation.facet_tags.values, wanted)
    points = facet_points(mesh, tags.indices[cut_off], 8)[0].reshape(-1, mesh.geometry.dim)
    everywhere = np.concatenate(mesh.comm.allgather(points))
    lower, upper = domain.bounding_box()
    extent = upper - lower
    if not len(everywhere):
        return lambda x: np.full(len(x), -1)
    tree = cKDTree(everywhere / extent)
    return lambda x: np.where(np.isfinite(tree.query(x / extent, distance_upper_bound=LAYER)[0]), 0, -1)


def truncation_warning(
    records: Sequence[Record], domain: Domain, process: Process | None = None, allowed: float = NEGLIGIBLE
) -> str | None:
    """Return a warning when mass came near the artificial boundary, with a box that would be large enough.

    Parameters
    ----------
    records : sequence of Record
    domain : Domain
    process : Process, optional
        To tell on which sides its drift leads out, so that no box helps.
    allowed : float
        Part of the mass that may be near the boundary.

    Returns
    -------
    str or None
        The box holds mean ± 6 standard deviations at all times, and is larger by a quarter on the sides that
        those come close to, because what is seen in too small a box is too narrow.
    """
    worst = max(records, key=lambda record: record.near_boundary)
    if not worst.near_boundary > allowed:
        return None
    lower, upper = domain.bounding_box()
    extent = upper - lower
    means = np.array([record.mean for record in records if record.mass > 0])
    deviations = np.sqrt(np.maximum([np.diag(record.covariance) for record in records if record.mass > 0], 0.0))
    low, high = (means - REACH * deviations).min(axis=0), (means + REACH * deviations).max(axis=0)
    inner = LAYER * extent
    tight_low, tight_high = low < lower + inner, high > upper - inner
    if not (tight_low | tight_high).any():
        tight_low = tight_high = np.full(len(lower), True)
    low = np.where(tight_low, np.minimum(low, lower - 0.25 * extent), lower)
    high = np.where(tight_high, np.maximum(high, upper + 0.25 * extent), upper)
    k = int(
        np.argmax(np.max([(means + REACH * deviations - upper), (lower - means + REACH * deviations)], axis=(0, 1)))
    )
    at = records.index(worst)
    text = (
        f"warning: {worst.near_boundary:.2g} of the mass is within {LAYER:.0%} of the artificial boundary at "
        f"t = {worst.t:g} (mean {worst.mean[k]:.4g}, standard deviation {np.sqrt(worst.covariance[k, k]):.4g} in "
        f"direction {k + 1}, domain {lower[k]:g} to {upper[k]:g}); a domain from {_show(low)} to {_show(high)} would "
        f"hold mean ± {REACH:g} standard deviations"
    )
    return text + (_outward(process, lower, upper, records[at].mean) if process is not None else "")


def _show(x: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.3g}" for value in x) + ")"


def _outward(process: Process, lower: np.ndarray, upper: np.ndarray, mean: np.ndarray) -> str:
    """Return a remark on the sides of the box through which the drift leads out, seen from the mean."""
    found = []
    for k in range(len(lower)):
        for end, sign in ((lower, -1.0), (upper, 1.0)):
            foot = np.array(mean)
            foot[k] = end[k]
            whole = process.drift(foot[None, :])[0]
            drift = float(sign * whole[k])
            if drift > 1e-9 * float(np.linalg.norm(whole)):  # not rounding
                found.append(f"{process.variables[k]} = {end[k]:g} (outward drift {drift:.3g})")
    if not found:
        return ""
    return f"; the drift leads out at {', '.join(found)}: the box must reach to where it turns back"
