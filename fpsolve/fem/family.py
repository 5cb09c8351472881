"""The generators of one discretisation for all noise levels ε²(t): what a changing batch size needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from petsc4py import PETSc

import numpy as np

from fpsolve.fem.coefficients import interpolate
from fpsolve.fem.generator import Discretisation, Generator, assemble, discretise
from fpsolve.fem.meshing import Triangulation
from fpsolve.fem.scharfetter_gummel import assemble_gibbs
from fpsolve.model.process import Process, with_epsilon2


class Family(Protocol):
    """B(θ) and κ(θ) on fixed unknowns, θ = ε²(t)/ε²."""

    @property
    def generator(self) -> Generator:
        """One member, for the space, the free unknowns and the mass, which all have in common."""

    def at(self, theta: float) -> tuple[PETSc.Mat, PETSc.Vec]:
        """Return B(θ) and κ(θ), valid until the next call. Collective."""

    def destroy(self) -> None:
        """Free the matrices. Collective."""


class Single:
    """A generator that does not change."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator

    def at(self, theta: float) -> tuple[PETSc.Mat, PETSc.Vec]:
        """Return B and κ."""
        return self.generator.matrix, self.generator.outflow

    def destroy(self) -> None:
        """Free the generator. Collective."""
        self.generator.destroy()


class Linear:
    """``B(θ) = B_f + (θ/θ*) (B(θ*) - B_f)``, with B_f the part of the drift and θ* the largest θ.

    The upwinding of a convex combination is the combination of the upwindings, so both parts stay stable.
    """

    def __init__(self, generator: Generator, drift_only: Generator, top: float) -> None:
        self.generator, self.drift_only, self.top = generator, drift_only, top
        self._mixed = generator.matrix.copy(), generator.outflow.copy()
        self._theta = top

    def at(self, theta: float) -> tuple[PETSc.Mat, PETSc.Vec]:
        """Return B(θ) and κ(θ), valid until the next call. Collective."""
        if theta != self._theta:
            part = theta / self.top
            matrix, outflow = self._mixed
            same = PETSc.Mat.Structure.SAME_NONZERO_PATTERN
            self.drift_only.matrix.copy(matrix, structure=same)
            matrix.scale(1.0 - part)
            matrix.axpy(part, self.generator.matrix, structure=same)
            self.drift_only.outflow.copy(outflow)
            outflow.scale(1.0 - part)
            outflow.axpy(part, self.generator.outflow)
            self._theta = theta
        return self._mixed

    def destroy(self) -> None:
        """Free the matrices. Collective."""
        for thing in (*self._mixed, self.generator, self.drift_only):
            thing.destroy()


class Rebuilt:
    """Scharfetter-Gummel weights depend on ε² nonlinearly: assembled anew for each θ."""

    def __init__(self, build: Callable[[float], Generator]) -> None:
        self._build = build
        self.generator = build(1.0)
        self._now = 1.0, self.generator

    def at(self, theta: float) -> tuple[PETSc.Mat, PETSc.Vec]:
        """Return B(θ) and κ(θ), valid until the next call. Collective."""
        if theta != self._now[0]:
            if self._now[1] is not self.generator:
                self._now[1].destroy()
            self._now = theta, (self.generator if theta == 1.0 else self._build(theta))
        return self._now[1].matrix, self._now[1].outflow

    def destroy(self) -> None:
        """Free the matrices. Collective."""
        if self._now[1] is not self.generator:
            self._now[1].destroy()
        self.generator.destroy()


def make_family(
    process: Process,
    triangulation: Triangulation,
    reflecting: tuple[str, ...],
    scheme: str,
    degree: int,
    largest: float | None = None,
) -> Family:
    """Assemble the generator, or a family of them when ε² changes. Collective.

    Parameters
    ----------
    reflecting : names of boundary parts without flux
    scheme : "dg", "cg" or "sg"
    degree : int
    largest : float, optional
        The largest θ that will be asked for; None when ε² does not change.
    """
    if scheme == "sg":

        def build(theta: float) -> Generator:
            at = process if theta == 1.0 else with_epsilon2(process, theta * (process.epsilon2 or 1.0))
            return assemble_gibbs(at, triangulation, reflecting)[0]

        return Single(build(1.0)) if largest is None else Rebuilt(build)
    top = process if largest is None else with_epsilon2(process, largest * (process.epsilon2 or 1.0))
    problem = discretise(top, triangulation, reflecting, degree)
    generator = assemble(problem, scheme, degree)
    if largest is None:
        return Single(generator)
    coefficients = interpolate(without_noise(process), triangulation.mesh, max(degree + 1, 2))
    still = Discretisation(triangulation, coefficients, problem.boundary)
    return Linear(generator, assemble(still, scheme, degree), largest)


def without_noise(process: Process) -> Process:
    """Return the same drift with a = 0."""
    d = process.dimension
    return replace(
        process,
        diffusion=lambda x: np.zeros((len(x), d, d)),
        divergence=lambda x: np.zeros((len(x), d)),
        landscape=None,
        epsilon2=None,
    )
