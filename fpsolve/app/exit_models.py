"""The models of SGD an exit time can be asked of, one beside the other.

``diffusion`` is the paper's, of first order in η; ``second-order``, ``shifted`` and ``corrected`` are diffusions with
corrections (`fpsolve.model.corrections`); ``chain`` is SGD itself by its transfer operator, ``gaussian-chain`` the
same chain with Gaussian noise of equal mean and covariance. What separates the last two is the shape of the noise,
which no diffusion has; what separates the Gaussian chain from the diffusion is the length of the step.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from mpi4py import MPI

import numpy as np

from fpsolve.app.build import build_chain
from fpsolve.app.case import CHAIN_MODELS, Case
from fpsolve.errors import InputError, NoFiniteAnswer, NotConverged
from fpsolve.model.chain import Chain
from fpsolve.model.corrections import exit_model
from fpsolve.model.domains import Domain
from fpsolve.model.process import Process
from fpsolve.problems.chain_exit import ChainExitResult, chain_exit_time
from fpsolve.problems.exit import ExitResult, mean_exit_time

log = logging.getLogger("fpsolve")

#: Where the case file names none.
SCHEME = "dg"
#: η‖D²L‖ beyond which corrections of first order are doubtful: at 0.3 they were within 1 %, at 1 10 % off.
LARGE_STEP = 0.4


@dataclass(frozen=True)
class ModelAnswer:
    """The exit-time moments that one model gives.

    Attributes
    ----------
    name : str
    moments, error : ndarray, shape (n, K)
        At the starts; time in units in which one SGD step lasts η.
    seconds : float
    result : ExitResult or ChainExitResult
    """

    name: str
    moments: np.ndarray
    error: np.ndarray
    seconds: float
    result: ExitResult | ChainExitResult


@dataclass(frozen=True)
class Shares:
    """What makes up the distance between SGD's mean exit time T and the diffusion's, in parts of T; each (n,).

    ``step`` is (Gaussian chain - diffusion)/T, ``noise`` is (T - Gaussian chain)/T, ``error`` the largest error
    that the estimates allow in either.
    """

    step: np.ndarray
    noise: np.ndarray
    error: np.ndarray


def solve_model(
    name: str, case: Case, process: Process, domain: Domain, starts: Sequence[tuple[float, ...]], comm: MPI.Comm
) -> ModelAnswer:
    """Return the answer of one model. Collective.

    Parameters
    ----------
    process : Process
        The first-order diffusion of the case.

    Raises
    ------
    InputError, NoFiniteAnswer, NotConverged
        On every rank.
    """
    began = time.perf_counter()
    result: ExitResult | ChainExitResult
    if name in CHAIN_MODELS:
        result = _chain_answer(name, case, domain, starts, comm)
    else:
        chain = None if name == "diffusion" else build_chain(case.process, comm)
        if chain is not None:
            process, domain = exit_model(chain, domain, name)
        result = _diffusion_answer(case, process, domain, starts, comm)
        if chain is not None:
            result.messages.extend(_large_steps(chain, result.starts))
    return ModelAnswer(name, result.moments, result.error, time.perf_counter() - began, result)


def _large_steps(chain: Chain, starts: np.ndarray) -> list[str]:
    """Return a warning where corrections of first order in η‖D²L‖ cannot be trusted."""
    curvature = np.abs(np.linalg.eigvalsh(chain.landscape.hessian(starts))).max()
    step = float(chain.learning_rate * curvature)
    if step <= LARGE_STEP:
        return []
    return [
        f"warning: η times the largest curvature of the loss is {step:.2g} at the starts; the corrections are "
        'expansions in it. Compare with model = "gaussian-chain"'
    ]


def _diffusion_answer(
    case: Case, process: Process, domain: Domain, starts: Sequence[tuple[float, ...]], comm: MPI.Comm
) -> ExitResult:
    mesh = case.mesh
    return mean_exit_time(
        process, domain, comm=comm, starts=starts, tolerance=mesh.tolerance, size=mesh.size,
        scheme=mesh.scheme or SCHEME, degree=mesh.degree, moments=case.exit.moments, max_unknowns=mesh.max_unknowns,
    )  # fmt: skip


def _chain_answer(
    name: str, case: Case, domain: Domain, starts: Sequence[tuple[float, ...]], comm: MPI.Comm
) -> ChainExitResult:
    chain: Chain = build_chain(case.process, comm)
    mesh = case.mesh
    finite = np.isfinite(chain.landscape.gradient(np.array(starts, dtype=float))).all(axis=1)
    if not finite.all():
        data = case.process.data
        key, formula = ("process.loss", case.process.loss) if data is None else ("process.data.model", data.model)
        place = [float(c) for c in starts[int(np.argmin(finite))]]
        raise InputError(key, formula, f"a loss whose gradient is finite at the start {place}", "Change one of them.")
    result = chain_exit_time(
        chain.gaussian() if name == "gaussian-chain" else chain, domain, comm=comm, starts=starts,
        tolerance=None if mesh.size is not None else case.exit.chain_tolerance, size=mesh.size,
        moments=case.exit.moments,
    )  # fmt: skip
    if name == "chain" and chain.law == "gaussian":
        result.messages.append("a loss given by a formula has no samples: the noise of its chain is Gaussian")
    return result


def compare_models(
    case: Case,
    first: ModelAnswer,
    process: Process,
    domain: Domain,
    starts: Sequence[tuple[float, ...]],
    comm: MPI.Comm,
) -> list[ModelAnswer]:
    """Return the answers of the model asked for and of all it is to be compared with, `first` first. Collective.

    One that has no answer becomes an error among the messages of the first: what the others found is not lost.
    """
    answers = [first]
    for name in case.exit.compare:
        if name != first.name:
            log.info("model %s", name)
            try:
                answers.append(solve_model(name, case, process, domain, starts, comm))
            except (NoFiniteAnswer, NotConverged) as failure:  # on every rank
                first.result.messages.append(f"error: model {name}: {failure}")
    return answers


def failed(messages: Sequence[str]) -> bool:
    """Return whether a message is an error."""
    return any(text.startswith("error:") for text in messages)


def shares(answers: Sequence[ModelAnswer]) -> Shares | None:
    """Return what the step and what the noise's shape make up; None unless all three models are there, from samples."""
    known = {answer.name: answer for answer in answers}
    if not {"diffusion", "gaussian-chain", "chain"} <= set(known):
        return None
    own = known["chain"].result
    if isinstance(own, ChainExitResult) and own.chain.law == "gaussian":
        return None
    plain, gaussian, chain = (known[name] for name in ("diffusion", "gaussian-chain", "chain"))
    total = chain.moments[:, 0]
    error = gaussian.error[:, 0] + np.maximum(chain.error[:, 0], plain.error[:, 0])
    return Shares(
        (gaussian.moments[:, 0] - plain.moments[:, 0]) / total, (total - gaussian.moments[:, 0]) / total, error / total
    )


@dataclass(frozen=True)
class ChainAnswer:
    """What the exit command found for a chain by its transfer operator; the same on every rank."""

    case: Case
    process: Process
    answer: ModelAnswer
    models: list[ModelAnswer]
    seconds: float
    messages: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0, or 3 when the tolerance is not met or a model to compare with has no answer."""
        return 0 if self.answer.result.converged and not failed(self.messages) else 3
