"""Momentum SGD as a kinetic diffusion of position and velocity (Dai-Zhu 4; mathematics.md section 7).

``dW = V dt``, ``dV = -∇L(W) dt - g V dt + sqrt(2 D(W)) dB`` with friction ``g = (1 - ξ)/√η`` and
``D = √η Q/(2b)``. **One step of momentum SGD lasts the time √η** (of plain SGD: η), and v = z/√η for the buffer z
of ``z ← ξ z - η∇L``, ``w ← w + z``. (Dai-Zhu print ``dW = W dt``.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import sympy

from fpsolve.errors import InputError
from fpsolve.model.expressions import Formula, check_names, symbols
from fpsolve.model.process import FormulaLandscape, Process, formula_landscape

#: Dimension of phase space that has finite elements here.
MAX_DIMENSION = 3


@dataclass(frozen=True)
class KineticProcess(Process):
    """A process of positions and velocities, variables (w..., v...): drift (v, -∇L - g v), a = diag(0, D).

    `landscape` is None, because the drift of the pair is no gradient; what concerns the positions alone stands here.

    Attributes
    ----------
    potential : FormulaLandscape or None
        L and Q as functions of the positions.
    friction : float
        g.
    noise : float
        D = √η/(2b) per unit of Q, so that the lower right block of a is D Q(w).
    step_time : float or None
        The time √η of one step; None when the process was not made by `MomentumSGD`.
    """

    potential: FormulaLandscape | None = None
    friction: float = 0.0
    noise: float = 0.0
    step_time: float | None = None


def MomentumSGD(
    loss: object,
    covariance: object = "identity",
    variables: Sequence[str] = ("w",),
    learning_rate: float | None = None,
    momentum: float = 0.9,
    batch_size: int = 1,
    key: str = "process",
) -> KineticProcess:
    """Return the diffusion of momentum SGD for a loss formula in one position variable w; time √η per step.

    Parameters
    ----------
    loss : str
        Formula in the position.
    covariance : "identity" or matrix of formulas
        Q, the covariance of the sample gradients.
    variables : name
        Of the position; the velocity is called ``v_<name>``.
    learning_rate, momentum, batch_size : float, float, int
        η > 0, ξ in [0, 1), b >= 1: ``g = (1 - ξ)/√η``, ``D = √η/(2b)``.

    Raises
    ------
    InputError
        If a formula or value cannot be used, or there is more than one position.
    """
    eta = _number(f"{key}.learning_rate", learning_rate, 0.0, np.inf, "a positive number", closed=False)
    xi = _number(f"{key}.momentum", momentum, 0.0, 1.0, "a number in [0, 1)", closed=True)
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"{key}.batch_size", batch_size, "an integer of at least 1")
    potential = formula_landscape(loss, covariance, variables, key)
    root = sympy.sqrt(eta)
    return _kinetic(potential, (1 - xi) / root, root / (2 * batch_size), float(root), key)


def _number(key: str, value: object, low: float, high: float, expected: str, closed: bool) -> sympy.Rational:
    """Return the number exactly as written, 0.1 as 1/10, if it lies in [low, high) or (low, high)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value < high:
        raise InputError(key, value, expected)
    if not closed and value == low:
        raise InputError(key, value, expected)
    return sympy.Rational(repr(value))


def _kinetic(
    potential: FormulaLandscape, g: sympy.Expr, noise: sympy.Expr, step_time: float | None, key: str
) -> KineticProcess:
    positions = potential.variables
    n = len(positions)
    if 2 * n > MAX_DIMENSION:
        raise InputError(
            f"{key}.variables", list(positions), "one position variable with momentum",
            f"{n} positions and {n} velocities make {2 * n} dimensions; up to {MAX_DIMENSION} can be meshed. "
            "Look at one direction of the loss, or simulate the momentum chain.",
        )  # fmt: skip
    names = check_names((*positions, *(f"v_{name}" for name in positions)), f"{key}.variables")
    velocities = symbols(names)[n:]
    gradient = potential.loss_formula.derivative().entries
    zero = sympy.Integer(0)
    force = tuple(-slope - g * v for slope, v in zip(gradient, velocities, strict=True))
    blocks = [[zero] * (2 * n) for _ in range(2 * n)]
    for i in range(n):
        for j in range(n):
            blocks[n + i][n + j] = noise * potential.covariance_formula.entries[i * n + j]
    drift = Formula(names, (*velocities, *force), (2 * n,))
    a = Formula(names, tuple(entry for row in blocks for entry in row), (2 * n, 2 * n))
    return KineticProcess(
        variables=names,
        drift=drift,
        diffusion=a,
        divergence=a.divergence(),
        constant_diffusion=not any(entry.free_symbols for entry in a.entries),
        potential=potential,
        friction=float(g),
        noise=float(noise),
        step_time=step_time,
    )


def as_kinetic(process: Process) -> KineticProcess | None:
    """Return the kinetic form of a process in (w, v), None if it is not of the form (v, F(w) - g v), a = diag(0, D).

    Processes given by formulas are recognised when F is a polynomial, whose potential ``L = -∫F`` is exact.
    """
    if isinstance(process, KineticProcess):
        return process
    f, a = process.drift, process.diffusion
    if process.dimension != 2 or not isinstance(f, Formula) or not isinstance(a, Formula):
        return None
    w, v = symbols(process.variables)
    noise, rest = a.entries[3], sympy.expand(f.entries[1])
    g = -sympy.diff(rest, v)
    force = sympy.expand(rest + g * v)
    known = f.entries[0] == v and not any(a.entries[:3]) and g.is_number and not noise.has(v) and not force.has(v)
    if not known or not force.is_polynomial(w) or not float(g) > 0:
        return None
    position = process.variables[:1]
    loss = Formula(position, (-sympy.integrate(force, w),))
    potential = FormulaLandscape(loss, Formula(position, (noise,), (1, 1)))
    return KineticProcess(
        variables=process.variables,
        drift=f,
        diffusion=a,
        divergence=process.divergence,
        constant_diffusion=process.constant_diffusion,
        potential=potential,
        friction=float(g),
        noise=1.0,
    )


def stationary_log_density(process: Process) -> Formula | None:
    """Return ``-(g/D)(L(w) + |v|²/2)``, the log of the invariant density up to a constant (Dai-Zhu Theorem 3).

    Returns
    -------
    Formula or None
        In the variables of the process; None when it is not kinetic, has no friction, or Q is not a constant
        multiple of the identity: then no closed form is known.
    """
    kinetic = as_kinetic(process)
    if kinetic is None or kinetic.potential is None:
        return None
    f, a = kinetic.drift, kinetic.diffusion
    if not isinstance(f, Formula) or not isinstance(a, Formula):
        return None
    n = kinetic.dimension // 2
    velocities = symbols(kinetic.variables)[n:]
    entries = np.array(a.entries, dtype=object).reshape(2 * n, 2 * n)[n:, n:]
    strength = entries[0, 0]
    if any(entries[i, j] != (strength if i == j else 0) for i in range(n) for j in range(n)):
        return None
    if not strength.is_number or not float(strength) > 0:
        return None
    g = -sympy.diff(f.entries[n], velocities[0])  # exact, unlike kinetic.friction
    if not float(g) > 0:
        return None
    energy = kinetic.potential.loss_formula.entries[0] + sum(v**2 for v in velocities) / 2
    return Formula(kinetic.variables, (-(g / strength) * energy,))
