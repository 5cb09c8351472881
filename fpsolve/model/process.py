"""The stochastic process dX = f dt + sqrt(2a) dW and its constructors.

One convention everywhere (mathematics.md section 1): generator ``A u = tr(a D²u) + f·∇u``, row-wise
divergence of a, ``β = div a - f``. For SGD with learning rate η and batch size b one step is the
time η, ``f = -∇L`` and ``a = ε² Q`` with ``ε² = η/(2b)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import sympy

from fpsolve.errors import InputError
from fpsolve.model.expressions import Formula, check_names

Field = Callable[[np.ndarray], np.ndarray]


class Landscape(Protocol):
    """Loss and gradient covariance, at an array of points x of shape (n, d)."""

    @property
    def variables(self) -> tuple[str, ...]:
        """The names of the d parameters."""

    def loss(self, x: np.ndarray) -> np.ndarray:
        """Return L, shape (n,)."""

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """Return ∇L, shape (n, d)."""

    def hessian(self, x: np.ndarray) -> np.ndarray:
        """Return D²L, shape (n, d, d)."""

    def covariance(self, x: np.ndarray) -> np.ndarray:
        """Return Q, shape (n, d, d)."""

    def covariance_divergence(self, x: np.ndarray) -> np.ndarray:
        """Return div Q, shape (n, d)."""

    def enclosure(self) -> Enclosure | None:
        """Return rigorous ball evaluations, or None where there are none."""


class Enclosure(Protocol):
    """Rigorous enclosures over a box, given as a list of d Arb balls; matrices row-major."""

    def loss(self, box: Sequence[Any]) -> Any:
        """Enclose L."""

    def gradient(self, box: Sequence[Any]) -> list[Any]:
        """Enclose ∇L, d balls."""

    def hessian(self, box: Sequence[Any]) -> list[Any]:
        """Enclose D²L, d*d balls."""

    def covariance(self, box: Sequence[Any]) -> list[Any]:
        """Enclose Q, d*d balls."""

    def covariance_derivative(self, box: Sequence[Any]) -> list[Any] | None:
        """Enclose ∂_k Q_ij, d*d*d balls, k last; None where not available."""


@dataclass(frozen=True)
class Process:
    """A diffusion process with vectorised coefficients.

    Attributes
    ----------
    variables : tuple of str
    drift : callable, (n, d) -> (n, d)
        f. Time is in units in which one SGD step lasts η.
    diffusion : callable, (n, d) -> (n, d, d)
        a, symmetric and nonnegative.
    divergence : callable, (n, d) -> (n, d)
        div a, row-wise.
    epsilon2 : float or None
        ε² when the process comes from SGD.
    landscape : Landscape or None
        Loss and covariance when the process comes from SGD; the theorems need them.
    covariance_scale, extra_diffusion : float
        ``a = ε² covariance_scale Q + extra_diffusion I``.
    constant_diffusion : bool
        True when a is known not to depend on x.
    """

    variables: tuple[str, ...]
    drift: Field
    diffusion: Field
    divergence: Field
    epsilon2: float | None = None
    landscape: Landscape | None = None
    covariance_scale: float = 1.0
    extra_diffusion: float = 0.0
    constant_diffusion: bool = False
    isotropic: bool = False

    @property
    def dimension(self) -> int:
        """The number of variables d."""
        return len(self.variables)

    def beta(self, x: np.ndarray) -> np.ndarray:
        """Return β = div a - f, shape (n, d)."""
        return self.divergence(x) - self.drift(x)


@dataclass(frozen=True)
class FormulaLandscape:
    """Loss and covariance given by formulas; derivatives are exact.

    Attributes
    ----------
    loss_formula : Formula
        Scalar.
    covariance_formula : Formula
        Shape (d, d).
    """

    loss_formula: Formula
    covariance_formula: Formula

    def __post_init__(self) -> None:
        g = self.loss_formula.derivative()
        object.__setattr__(self, "_gradient", g)
        object.__setattr__(self, "_hessian", g.derivative())
        object.__setattr__(self, "_divergence", self.covariance_formula.divergence())

    _gradient: Formula = None  # type: ignore[assignment]
    _hessian: Formula = None  # type: ignore[assignment]
    _divergence: Formula = None  # type: ignore[assignment]

    @property
    def variables(self) -> tuple[str, ...]:
        """The names of the parameters."""
        return self.loss_formula.variables

    def loss(self, x: np.ndarray) -> np.ndarray:
        """Return L, shape (n,)."""
        return self.loss_formula(x)

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """Return ∇L, shape (n, d)."""
        return self._gradient(x)

    def hessian(self, x: np.ndarray) -> np.ndarray:
        """Return D²L, shape (n, d, d). Raises InputError for a loss with kinks, such as ``abs(x)``."""
        if any(entry.has(sympy.DiracDelta) for entry in self._hessian.entries):
            what = "a twice differentiable loss: its second derivatives are needed here"
            raise InputError("process.loss", str(self.loss_formula.entries[0]), what, "It has a kink.")
        return self._hessian(x)

    def covariance(self, x: np.ndarray) -> np.ndarray:
        """Return Q, shape (n, d, d)."""
        return self.covariance_formula(x)

    def covariance_divergence(self, x: np.ndarray) -> np.ndarray:
        """Return div Q, shape (n, d)."""
        return self._divergence(x)

    def enclosure(self) -> FormulaEnclosure:
        """Return Arb evaluations of the same formulas."""
        return FormulaEnclosure(
            self.loss_formula,
            self._gradient,
            self._hessian,
            self.covariance_formula,
            self.covariance_formula.derivative(),
        )


@dataclass(frozen=True)
class FormulaEnclosure:
    """Arb enclosures of a formula landscape; see `Enclosure`."""

    loss_formula: Formula
    gradient_formula: Formula
    hessian_formula: Formula
    covariance_formula: Formula
    derivative_formula: Formula

    def loss(self, box: Sequence[Any]) -> Any:
        """Enclose L."""
        return self.loss_formula.balls(box)[0]

    def gradient(self, box: Sequence[Any]) -> list[Any]:
        """Enclose ∇L."""
        return self.gradient_formula.balls(box)

    def hessian(self, box: Sequence[Any]) -> list[Any]:
        """Enclose D²L."""
        return self.hessian_formula.balls(box)

    def covariance(self, box: Sequence[Any]) -> list[Any]:
        """Enclose Q."""
        return self.covariance_formula.balls(box)

    def covariance_derivative(self, box: Sequence[Any]) -> list[Any]:
        """Enclose ∂_k Q_ij."""
        return self.derivative_formula.balls(box)


def diffusion_process(
    drift: Sequence[Any], diffusion: Sequence[Sequence[Any]], variables: Sequence[str], key: str = "process"
) -> Process:
    """Return the process dX = f dt + sqrt(2a) dW from formulas of f and a (not of ½σσᵀ·2, D or Σ).

    Parameters
    ----------
    drift : d formulas
    diffusion : d × d formulas
        a, i.e. half the covariance of the noise per unit time: ``a = ½σσᵀ`` for noise σ dW.
    variables : d names
    """
    names = check_names(variables, f"{key}.variables")
    d = len(names)
    f = Formula.parse(list(drift), names, f"{key}.drift")
    a = Formula.parse(
        [list(row) if isinstance(row, (list, tuple)) else row for row in diffusion], names, f"{key}.diffusion"
    )
    if f.shape != (d,):
        raise InputError(f"{key}.drift", list(drift), f"{d} formulas, one for each of {', '.join(names)}")
    _check_square(a, d, f"{key}.diffusion", diffusion)
    constant = not any(entry.free_symbols for entry in a.entries)
    return Process(names, f, a, a.divergence(), constant_diffusion=constant, isotropic=_is_multiple_of_identity(a))


def _check_square(matrix: Formula, d: int, key: str, value: object) -> None:
    if matrix.shape != (d, d):
        raise InputError(key, value, f"a {d} × {d} matrix of formulas")
    for i in range(d):
        for j in range(i):
            if (matrix.entries[i * d + j] - matrix.entries[j * d + i]).simplify() != 0:
                raise InputError(key, value, "a symmetric matrix", f"Entries [{i}][{j}] and [{j}][{i}] differ.")


def _is_multiple_of_identity(matrix: Formula) -> bool:
    d = matrix.dimension
    entries = np.array(matrix.entries, dtype=object).reshape(d, d)
    off = all(entries[i, j] == 0 for i in range(d) for j in range(d) if i != j)
    return off and all(entries[i, i] == entries[0, 0] for i in range(d))


def formula_landscape(
    loss: object, covariance: object, variables: Sequence[str], key: str = "process"
) -> FormulaLandscape:
    """Return the landscape of a loss formula and a covariance: ``"identity"`` or a matrix of formulas."""
    names = check_names(variables, f"{key}.variables")
    d = len(names)
    if isinstance(covariance, str):
        if covariance != "identity":
            raise InputError(
                f"{key}.covariance", covariance, '"identity", "samples" (with data) or a matrix of formulas'
            )
        covariance = [["1" if i == j else "0" for j in range(d)] for i in range(d)]
    elif not isinstance(covariance, (list, tuple)) or not all(isinstance(row, (list, tuple)) for row in covariance):
        raise InputError(f"{key}.covariance", covariance, '"identity", "samples" (with data) or a matrix of formulas')
    matrix = Formula.parse(covariance, names, f"{key}.covariance")
    _check_square(matrix, d, f"{key}.covariance", covariance)
    return FormulaLandscape(Formula.parse(loss, names, f"{key}.loss"), matrix)


@dataclass(frozen=True)
class NoiseLevel:
    """How strong the noise of SGD is.

    Attributes
    ----------
    epsilon2 : float
        ε² = η/(2b).
    scale : float
        1, or (N-b)/(N-1) when batches are drawn without replacement from N samples.
    extra : float
        (η/2) δ of noisy SGD (paper 4.1).
    """

    epsilon2: float
    scale: float = 1.0
    extra: float = 0.0


def noise_level(
    learning_rate: float | None = None,
    batch_size: int | None = None,
    epsilon2: float | None = None,
    replacement: bool = True,
    samples: int | None = None,
    extra_noise: float = 0.0,
    key: str = "process",
) -> NoiseLevel:
    """Return ε² and its companions from learning rate η and batch size b, or from ε² itself.

    Raises
    ------
    InputError
        If values are missing, contradictory or out of range.
    """
    if (learning_rate is None) == (epsilon2 is None):
        given = {"learning_rate": learning_rate, "epsilon2": epsilon2}
        raise InputError(f"{key}.epsilon2", given, "either learning_rate (with batch_size) or epsilon2")
    if epsilon2 is None:
        batch_size = 1 if batch_size is None else batch_size
        _check_positive(f"{key}.learning_rate", learning_rate)
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise InputError(f"{key}.batch_size", batch_size, "an integer of at least 1")
        epsilon2 = float(learning_rate or 0) / (2 * batch_size)
    _check_positive(f"{key}.epsilon2", epsilon2, "Without noise the process never leaves a minimum.")
    if isinstance(extra_noise, bool) or not isinstance(extra_noise, (int, float)) or not 0 <= extra_noise < np.inf:
        raise InputError(f"{key}.extra_noise", extra_noise, "a number of at least 0")
    if extra_noise and learning_rate is None:
        raise InputError(
            f"{key}.extra_noise", extra_noise, "learning_rate and batch_size instead of epsilon2, δ enters as (η/2)δ"
        )
    scale = 1.0
    if not replacement:
        if samples is None or batch_size is None or learning_rate is None:
            raise InputError(f"{key}.replacement", replacement, "true, or data, learning_rate and batch_size besides")
        if batch_size >= samples:
            raise InputError(
                f"{key}.batch_size", batch_size, f"fewer than the {samples} samples", "A full batch has no noise."
            )
        scale = (samples - batch_size) / (samples - 1)
    return NoiseLevel(float(epsilon2), scale, 0.5 * float(learning_rate or 0.0) * float(extra_noise))


def _check_positive(key: str, value: object, remedy: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < np.inf:
        raise InputError(key, value, "a positive number", remedy)


def sgd_process(landscape: Landscape, level: NoiseLevel) -> Process:
    """Return SGD's diffusion: f = -∇L, a = ε² scale Q + extra I (paper (2); noisy SGD: paper 4.1)."""
    strength = level.epsilon2 * level.scale
    identity = level.extra * np.eye(len(landscape.variables))
    formula = landscape.covariance_formula if isinstance(landscape, FormulaLandscape) else None
    return Process(
        variables=landscape.variables,
        drift=lambda x: -landscape.gradient(x),
        diffusion=lambda x: strength * landscape.covariance(x) + identity,
        divergence=lambda x: strength * landscape.covariance_divergence(x),
        epsilon2=level.epsilon2,
        landscape=landscape,
        covariance_scale=level.scale,
        extra_diffusion=level.extra,
        constant_diffusion=formula is not None and not any(entry.free_symbols for entry in formula.entries),
        isotropic=formula is not None and _is_multiple_of_identity(formula),
    )


def SGD(
    loss: object,
    covariance: object = "identity",
    variables: Sequence[str] = ("x", "y"),
    learning_rate: float | None = None,
    batch_size: int | None = None,
    epsilon2: float | None = None,
    extra_noise: float = 0.0,
) -> Process:
    """Return SGD's diffusion for a loss formula (dX = -∇L dt + sqrt(2ε²Q) dW, paper (2)).

    Parameters
    ----------
    loss : str
        Formula in `variables`.
    covariance : "identity" or matrix of formulas
        Q, the covariance of the sample gradients.
    variables : names
    learning_rate, batch_size : float, int
        η and b, giving ε² = η/(2b); or `epsilon2` directly.
    extra_noise : float
        δ of noisy SGD, a = ε²Q + (η/2)δI.

    Raises
    ------
    InputError
        If a formula or value cannot be used.
    """
    level = noise_level(learning_rate, batch_size, epsilon2, extra_noise=extra_noise)
    return sgd_process(formula_landscape(loss, covariance, variables), level)


def with_epsilon2(process: Process, epsilon2: float) -> Process:
    """Return the same SGD problem at another ε²."""
    if process.landscape is None or process.epsilon2 is None:
        raise InputError(
            "process", process.variables, "a process made by SGD", "A general drift and diffusion has no ε²."
        )
    if process.extra_diffusion:
        raise InputError("process.extra_noise", process.extra_diffusion, "no extra noise when only ε² is changed")
    level = NoiseLevel(epsilon2, process.covariance_scale)
    return replace(sgd_process(process.landscape, level))
