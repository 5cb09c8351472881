"""One-sided polynomial sub- and supersolutions by linear programming, where least squares stalls.

At corners and characteristic boundary points the solution of -A u = 1 is rough and no polynomial comes near
-A w = 1 everywhere. It need not: for an upper bound -A w >= 1 suffices, and slack near such points costs little at
the start. So two linear programmes are solved (theorem: `Task`'s problem, supersolutions and subsolutions),

* upper: minimise the mean of w over the starts subject to -A w >= 1 in Ω, w >= 0 where the process leaves and
  (a n)·∇w >= 0 on reflecting parts;
* lower: maximise it subject to the opposite inequalities,

at the points of a grid, to which the worst points of a finer one are added until violations no longer matter.
Floating point; nothing is proved here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.linalg import qr, solve_triangular

from fpsolve.model.domains import Box, Interval
from fpsolve.theory.certified.one_sided_check import Verdict, judge
from fpsolve.theory.certified.one_sided_rows import Basis, Points, Polynomial, basis, points
from fpsolve.theory.certified.one_sided_solver import minimise
from fpsolve.theory.certified.task import Candidate, Task

ROUNDS = 16  # of cutting planes
FINER = 4.0  # points of the check per degree and axis
FIRST_PENALTY = 1e-2  # of slack, once a programme turned out unbounded; lowered as cuts are added
# of the first programme and of the next ones per loss: a less accurate solution is more central and violates less
FIRST_ACCURACY, ACCURACY = 1e-3, 0.3
PATIENCE = 4  # rounds that may pass without a better candidate once one is nearly good enough
GRIDS = 3  # grids tried, each half as fine again, when the programme is unbounded


@dataclass(frozen=True)
class Bound:
    """A candidate with what the check on the finer points says about it.

    Attributes
    ----------
    candidate : Candidate
        Scaled such that all inequalities hold on the finer points.
    value : float
        Mean of w over the starts (time): the bound on the mean exit time if the inequalities hold everywhere.
    loss : float
        What scaling away the violations cost, relative to the value.
    unknowns, constraints, rounds : int
        Size of the last programme and number of programmes solved.
    """

    candidate: Candidate
    value: float
    loss: float
    unknowns: int
    constraints: int
    rounds: int


@dataclass(frozen=True)
class Programme:
    """Constraints ``matrix z >= right`` (upper) or ``<=`` (lower) in orthogonalised unknowns z.

    Attributes
    ----------
    matrix, right : ndarray, shapes (m, n) and (m,)
        Rows of Ω, of absorbing and of reflecting parts.
    cost : ndarray, shape (n,)
        Mean of w over the starts.
    total : ndarray, shape (n,)
        Mean of -A w over the first points of Ω, in units of w: a little of it as a penalty keeps the programme
        bounded and w small where its size does not matter.
    triangle : ndarray, shape (n, n)
        z = triangle c, c the coefficients in the basis.
    start : ndarray, shape (n,)
        The least-squares solution.
    weight : float
        Factor of the rows of the boundary: one over the size of w.
    margin : float
        Right-hand side of reflecting rows per |a n|, with the sign of the inequality.
    """

    matrix: np.ndarray
    right: np.ndarray
    cost: np.ndarray
    total: np.ndarray
    triangle: np.ndarray
    start: np.ndarray
    weight: float
    margin: float

    def plain(self, z: np.ndarray) -> np.ndarray:
        """Return the coefficients in the basis."""
        return np.asarray(solve_triangular(self.triangle, z))

    def with_points(self, task: Task, space: Basis, extra: Points) -> Programme:
        """Return the programme with the constraints at further points."""
        rows, right = _rows(task, space, extra, self.weight, self.margin)
        matrix = np.concatenate([self.matrix, _orthogonal(rows, self.triangle)])
        return replace(self, matrix=matrix, right=np.concatenate([self.right, right]))


def one_sided(
    task: Task,
    degree: int,
    kind: Literal["upper", "lower"],
    deadline: float = np.inf,
    tolerance: float = 1e-4,
    tensor: bool = False,
) -> Candidate | None:
    """Return a polynomial sub- or supersolution that is tight at the starts, or None where none was found.

    Parameters
    ----------
    task : Task
    degree : int
        Total degree (degree in each variable with `tensor`).
    kind : "upper" or "lower"
    deadline : float
        Value of ``time.monotonic()`` after which no further step is begun; the best so far is returned.
    tolerance : float
        Relative loss at the starts, by violations and by stopping early, that is good enough.
    tensor : bool
    """
    bound = search(task, degree, kind, deadline, tolerance, tensor)
    return None if bound is None else bound.candidate


def search(
    task: Task,
    degree: int,
    kind: Literal["upper", "lower"],
    deadline: float = np.inf,
    tolerance: float = 1e-4,
    tensor: bool = False,
) -> Bound | None:
    """Return what `one_sided` returns, with its figures."""
    state = _Search(task, basis(task, degree, tensor), kind, tolerance, deadline)
    best: Bound | None = None
    density = _density(task)
    for _ in range(GRIDS):
        found, bounded = _with_cuts(state, density)
        if found is not None and (best is None or state.sign * (best.value - found.value) > 0):
            best = found
        if bounded or state.stop():
            break
        density *= 1.5
    return None if best is None or best.value <= 0 else best  # 0 is a bound without any candidate


def _density(task: Task) -> float:
    """Return how many points per degree and axis the first grid has."""
    density = 2.0 if isinstance(task.domain, (Interval, Box)) else 3.0
    return density - (1.0 if task.starts.shape[1] == 3 else 0.0)


@dataclass(frozen=True)
class _Search:
    task: Task
    space: Basis
    kind: Literal["upper", "lower"]
    tolerance: float
    deadline: float

    @property
    def sign(self) -> float:
        return 1.0 if self.kind == "upper" else -1.0

    def stop(self) -> bool:
        return time.monotonic() > self.deadline

    def bound(self, verdict: Verdict, programme: Programme, rounds: int) -> Bound:
        low, high = (tuple(float(v) for v in corner) for corner in (self.space.lower, self.space.upper))
        candidate = Candidate(low, high, (verdict.tensor,), self.kind)
        rows, columns = programme.matrix.shape
        return Bound(candidate, verdict.value, verdict.loss, columns, rows, rounds)


def _with_cuts(search: _Search, density: float) -> tuple[Bound | None, bool]:
    """Solve on a grid and on its extensions; also tell whether the programme was bounded."""
    task, space, sign, tolerance = search.task, search.space, search.sign, search.tolerance
    check = int((FINER if len(space.lower) < 3 else 0.6 * FINER) * space.degree) + 8
    fine = points(task, check, 4 * check if len(space.lower) == 2 else check)
    programme = _programme(task, space, points(task, int(density * space.degree) + 4), sign, tolerance)
    goal = 0.1 * tolerance
    penalty, drop, best, solved, before, accuracy = goal, 0.1, None, False, np.nan, max(FIRST_ACCURACY, tolerance)
    improved = 0
    for k in range(ROUNDS):
        cost = programme.cost + penalty * programme.total
        limit = 1e3 * (abs(float(cost @ programme.start)) + 1 / programme.weight)
        optimum = minimise(
            sign * programme.matrix,
            sign * programme.right,
            sign * cost,
            programme.start,
            accuracy,
            stop=search.stop,
            limit=limit,
        )
        failed = not (optimum.gap < 0.05 and optimum.infeasibility < 0.05)
        verdict = judge(task, Polynomial(space, programme.plain(optimum.z)), fine, np.pi / check, sign, tolerance)
        solved = solved or not failed
        if np.isfinite(verdict.value) and (best is None or sign * (best.value - verdict.value) > 0):
            if best is None or abs(best.value - verdict.value) > tolerance * abs(verdict.value):
                improved = k
            best = search.bound(verdict, programme, k + 1)
        steady = penalty <= goal or abs(verdict.value - before) < tolerance * abs(verdict.value)
        done = verdict.loss < tolerance and steady and accuracy <= tolerance and not failed
        stalled = best is not None and best.loss < 10 * tolerance and k >= improved + PATIENCE
        if done or stalled or search.stop():
            break
        if failed and sign * float(cost @ optimum.z) > 0 and optimum.infeasibility > 1e-3:
            return best, True  # no such polynomial
        programme = programme.with_points(task, space, verdict.violated)
        before = verdict.value
        if failed:  # unbounded between the points, most often
            penalty, drop = max(10 * penalty, FIRST_PENALTY), 0.3
        else:
            penalty = max(goal, drop * penalty)
            accuracy = max(min(accuracy, ACCURACY * verdict.loss), 0.5 * tolerance)
    return best, solved


def _orthogonal(rows: np.ndarray, triangle: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(solve_triangular(triangle, rows.T, trans="T").T)


def _rows(task: Task, space: Basis, at: Points, weight: float, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the constraints' rows and right-hand sides: -A w, weight w and weight (a n)·∇w."""
    rows = [space.minus_generator(task.process, at.inside), weight * space.values(at.absorbing)]
    right = [np.ones(len(at.inside)), np.zeros(len(at.absorbing))]
    if len(at.reflecting):
        rows.append(weight * space.gradient(at.reflecting, at.conormal))
        right.append(margin * np.linalg.norm(at.conormal, axis=1))
    matrix = np.concatenate(rows)
    defined = np.isfinite(matrix).all(axis=1)  # coefficients may be singular on the boundary
    return matrix[defined], np.concatenate(right)[defined]


def _programme(task: Task, space: Basis, at: Points, sign: float, tolerance: float) -> Programme:
    """Orthogonalise the constraints' columns and solve the constraints by least squares."""
    extent = float(np.linalg.norm(space.upper - space.lower)) / 2
    margin = sign * 0.3 * tolerance / extent
    weight = max(1e-300, float(np.abs(task.process.diffusion(at.inside)).max())) / extent**2
    for _ in range(3):
        rows, right = _rows(task, space, at, weight, margin)
        scale = np.linalg.norm(rows, axis=0)
        scale[scale == 0] = 1.0
        triangle = qr(rows / scale, mode="r")[0][: rows.shape[1]] * scale
        diagonal = np.abs(np.diag(triangle))
        # a function that the constraints do not see (a reflecting boundary all round): kept at 0
        triangle[np.diag_indices_from(triangle)] += np.where(diagonal < 1e-13 * scale, scale, 0.0)
        matrix = _orthogonal(rows, triangle)
        start = matrix.T @ right
        cost = _orthogonal(space.values(task.starts), triangle).mean(axis=0)
        typical = float(cost @ start)
        if not typical > 0 or 0.1 < weight * typical < 10:
            break
        weight = 1 / typical
    total = matrix[right == 1].mean(axis=0) / weight
    size = np.sqrt(len(matrix))  # rows of norm about sqrt(n) instead of sqrt(n/m)
    return Programme(size * matrix, right, size * cost, size * total, triangle / size, start / size, weight, margin)
