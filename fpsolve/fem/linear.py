"""Linear systems with one matrix and its transpose: the one place that makes PETSc solvers.

Defaults follow the measurements in benchmarks/README.md; whatever stands in the PETSc options
database (the command line after ``--``) is applied last and wins.
"""

from __future__ import annotations

import logging

from petsc4py import PETSc

from fpsolve.errors import NotConverged

log = logging.getLogger("fpsolve")

#: Unknowns up to which a sparse factorisation is the default, by dimension.
DIRECT_LIMIT = {1: 5_000_000, 2: 800_000, 3: 60_000}
#: Unknowns up to which every rank may factorise the whole matrix by itself: reproducible to the last bit, which a
#: distributed MUMPS is not (its sums depend on which message comes first), and on few ranks not slower in the solves.
REPRODUCIBLE_LIMIT = 40_000
#: Prefix of the options of the factorisation inside `redundant`.
INNER = "fpsolve_inner_"


class Solver:
    """Solve A x = b and Aᵀ x = b with one factorisation or one preconditioner. Collective.

    Parameters
    ----------
    matrix : PETSc.Mat
        Square; kept by reference.
    dimension : int
        Of the domain; decides with the size between direct and Krylov.
    prolongation : PETSc.Mat, optional
        From continuous linear elements to the matrix's space; enables the two-level preconditioner.
    rtol : float
        Relative residual of Krylov solves.
    reproducible : bool
        Give the same bits each time on the same ranks, where the size allows it (`REPRODUCIBLE_LIMIT`).
    """

    def __init__(
        self,
        matrix: PETSc.Mat,
        dimension: int,
        prolongation: PETSc.Mat | None = None,
        rtol: float = 1e-11,
        reproducible: bool = False,
    ) -> None:
        self.matrix = matrix
        self.redundant = reproducible and matrix.getComm().size > 1 and matrix.getSize()[0] <= REPRODUCIBLE_LIMIT
        self.direct = matrix.getSize()[0] <= DIRECT_LIMIT[dimension]
        self.prolongation = prolongation
        self.rtol = rtol
        self._coarse: list[PETSc.Mat] = []
        self.ksp = self._make(matrix)
        self._transpose: tuple[PETSc.Mat, PETSc.KSP] | None = None
        self.iterations = 0

    def _make(self, matrix: PETSc.Mat) -> PETSc.KSP:
        ksp = PETSc.KSP().create(matrix.getComm())
        ksp.setOperators(matrix)
        ksp.setErrorIfNotConverged(True)
        if self.direct:
            use_redundant(ksp) if self.redundant else use_direct(ksp)
        else:
            coarse = use_two_level(ksp, self.prolongation, self.rtol)
            self._coarse += [coarse] if coarse is not None else []
        ksp.setFromOptions()
        try:
            ksp.setUp()
        except PETSc.Error as error:
            raise NotConverged(_explain(error, ksp, matrix)) from None
        return ksp

    def solve(self, rhs: PETSc.Vec) -> PETSc.Vec:
        """Return A⁻¹ rhs as a new vector. Raises NotConverged."""
        return self._run(self.ksp, rhs)

    def solve_transpose(self, rhs: PETSc.Vec) -> PETSc.Vec:
        """Return A⁻ᵀ rhs as a new vector. Raises NotConverged.

        A factorisation is used for both; a Krylov method gets the explicit transpose, because
        flexible methods have no transposed solve.
        """
        if self.ksp.getType() == "preonly":
            return self._run(self.ksp, rhs, transpose=True)
        if self._transpose is None:
            matrix = self.matrix.transpose(PETSc.Mat())
            self._transpose = (matrix, self._make(matrix))
        return self._run(self._transpose[1], rhs)

    def _run(self, ksp: PETSc.KSP, rhs: PETSc.Vec, transpose: bool = False) -> PETSc.Vec:
        x = rhs.duplicate()
        try:
            ksp.solveTranspose(rhs, x) if transpose else ksp.solve(rhs, x)
        except PETSc.Error as error:
            raise NotConverged(_explain(error, ksp, self.matrix)) from None
        self.iterations = max(self.iterations, ksp.getIterationNumber())
        return x

    def describe(self) -> str:
        """Return the options really used, e.g. ``preonly + lu (mumps)``."""
        pc = self.ksp.getPC()
        package = f" ({pc.getFactorSolverType()})" if pc.getType() == "lu" else ""
        return f"{self.ksp.getType()} + {pc.getType()}{package}"

    def destroy(self) -> None:
        """Free the factorisation. Collective."""
        self.ksp.destroy()
        if self._transpose is not None:
            self._transpose[1].destroy()
            self._transpose[0].destroy()
            self._transpose = None
        for matrix in self._coarse:
            matrix.destroy()
        self._coarse = []


def use_direct(ksp: PETSc.KSP) -> None:
    """Set a sparse factorisation: MUMPS where PETSc has it, else what it offers."""
    ksp.setType("preonly")
    pc = ksp.getPC()
    pc.setType("lu")
    for package in ("mumps", "superlu_dist"):
        try:
            pc.setFactorSolverType(package)
            pc.setFactorSetUpSolverType()
        except PETSc.Error:
            continue
        if package == "mumps":
            factored = pc.getFactorMatrix()
            factored.setMumpsIcntl(14, 60)  # spare workspace: the diffusion may be far from symmetric
        return


def use_redundant(ksp: PETSc.KSP) -> None:
    """Set a factorisation of the whole matrix on every rank."""
    ksp.setType("preonly")
    pc = ksp.getPC()
    pc.setType("redundant")
    options = PETSc.Options()
    inner = {f"{INNER}redundant_pc_type": "lu", f"{INNER}redundant_pc_factor_mat_solver_type": "mumps"}
    for key, value in inner.items():
        options[key] = value
    pc.setOptionsPrefix(INNER)
    pc.setFromOptions()
    try:
        pc.setUp()
    finally:
        for key in inner:
            options.delValue(key)
        pc.setOptionsPrefix("")


def use_two_level(ksp: PETSc.KSP, prolongation: PETSc.Mat | None, rtol: float) -> PETSc.Mat | None:
    """Set FGMRES with two levels: continuous linear elements solved directly, ILU smoothing. Collective.

    Returns
    -------
    PETSc.Mat or None
        The coarse matrix, to be destroyed with the solver; without a prolongation GMRES with ILU is
        set and there is none.
    """
    ksp.setTolerances(rtol=rtol, max_it=600)
    ksp.setGMRESRestart(150)
    pc = ksp.getPC()
    if prolongation is None:
        ksp.setType("gmres")
        ksp.setPCSide(PETSc.PC.Side.RIGHT)
        pc.setType("bjacobi")
        return None
    ksp.setType("fgmres")
    matrix = ksp.getOperators()[0]
    coarse_matrix = matrix.PtAP(prolongation)
    pc.setType("mg")
    pc.setMGLevels(2)
    pc.setMGInterpolation(1, prolongation)
    smoother = pc.getMGSmoother(1)
    smoother.setOperators(matrix)
    smoother.setType("richardson")
    smoother.setTolerances(max_it=2)
    smoother.getPC().setType("bjacobi")
    coarse = pc.getMGCoarseSolve()
    coarse.setOperators(coarse_matrix)
    use_direct(coarse)
    return coarse_matrix


def _explain(error: PETSc.Error, ksp: PETSc.KSP, matrix: PETSc.Mat) -> str:
    pc = ksp.getPC()
    size = matrix.getSize()[0]
    return (
        f"the linear solver {ksp.getType()} + {pc.getType()} failed for {size} unknowns "
        f"(PETSc error {error.ierr}, reason {ksp.getConvergedReason()}). The matrix may be singular: is there "
        "a part of the domain from which the process cannot leave? Else try other PETSc options after '--', "
        "e.g. -- -ksp_type gmres -pc_type ilu, or a smaller mesh."
    )
