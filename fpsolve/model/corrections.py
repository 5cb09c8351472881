"""Diffusions that are closer to the SGD chain than its first-order limit, for a step η that is not small.

The reference is the Gaussian chain ``θ' = θ - η∇L + N(0, 2ηa)``, i.e. Euler-Maruyama with step η for
``f = -∇L``, ``a = ε²Q``. Two things set it apart from ``dX = f dt + sqrt(2a) dW``:

**The coefficients.** One step is ``exp(ηÃ)`` with ``Ã = A + (η/2)(A₀² - A²) + O(η²)``, A₀ being A with
coefficients frozen at the start of the step (modified or backward error analysis: Shardlow 2006, Zygalakis 2011,
SIAM J. Sci. Comput. 33). Written out with ``f = -∇L``, ``H = D²L`` and without what carries an ε² more,

    ``Ã u = A u + (η/2) [ -(H∇L)·∇u + (∇L·∇a + Ha + aH) : D²u - 2 a_ij ∂_i a_kl ∂_jkl u ]``.

A diffusion has no third derivatives. They are replaced by what they are on the way out of a well, where the solution
of the exit problem has ``a∇u_kl ≈ ∇L u_kl`` (in one dimension this follows from ``A u = -1``): the last term becomes
``-2 ∇L·∇a : D²u`` and turns the sign of ``∇L·∇a`` round. To the same order

    ``f̃ = -∇L - (η/2) H∇L = -∇(L + (η/4)|∇L|²)``   (the drift of Li, Tai and E 2017),
    ``ã = (I + (η/2)H) a(x - (η/2)∇L) (I + (η/2)H)``,

which needs no derivative of a and is positive semidefinite whatever η, H and Q are. Li-Tai-E's model of order two
keeps ``a`` beside that drift. That is right for the means, but confines too much: for ``L = λx²/2`` the chain's
stationary variance is ``a/(λ(1 - ηλ/2))``; with f̃ and ã it is ``(1 + ηλ/2)a/λ``, with f̃ and a ``a/(λ(1 + ηλ/2))``.

**The boundary.** The chain is looked at once a step and overshoots. To leave is as hard as for a diffusion whose
boundary lies ``0.5826 σ`` further out, ``σ² = n·2ηa n`` the variance of a step across the boundary (Broadie,
Glasserman, Kou 1997; Gobet, Menozzi 2010 for general domains): ``s = 0.5826 η sqrt(n·Qn/b)``. Assumptions: Gaussian
steps, a smooth boundary whose radii of curvature are large against s, noise that changes little over s. A drift
across the boundary of one σ a step changes s by 2 % only: it enters with its square (Chang, Peres 1997). At fixed ε²
the first-order limit is off by O(√η), the shifted one by O(η). The two changes are large and opposite where a step is
not small: on the two-parameter model (η = 0.001, b = 1) the modified coefficients alone give -48 %, the boundary alone
+26 %, both -0.6 %, none -34 % (benchmarks, part `corrections`).

Whether the steps of SGD itself, which are not Gaussian, leave as fast as Gaussian ones is another question.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fpsolve.errors import InputError
from fpsolve.model.chain import Chain
from fpsolve.model.domains import Domain, MeshFile
from fpsolve.model.moved import Moved
from fpsolve.model.process import Field, Process
from fpsolve.model.third_order import covariance_slope, loss_third

#: -ζ(1/2)/sqrt(2π): mean overshoot of a Gaussian random walk over a far boundary, in standard deviations of a step.
OVERSHOOT = 0.5825971579390107
EXIT_MODELS = ("diffusion", "second-order", "shifted", "corrected")
#: A boundary moved by more than this part of the domain's smallest extent is refused.
LARGEST_SHIFT = 0.25


def exit_model(chain: Chain, domain: Domain, name: str) -> tuple[Process, Domain]:
    """Return the process and the domain whose exit problem models that of a chain.

    Parameters
    ----------
    chain : Chain
        Without momentum; its law does not matter, only mean and covariance of a step enter.
    domain : Domain
        Where the chain is to leave.
    name : str
        ``"diffusion"``: the limit of first order. ``"second-order"``: the drift of Li, Tai and E.
        ``"shifted"``: first order, boundary moved outwards. ``"corrected"``: drift and diffusion of the modified
        equation, boundary moved outwards: the best one.

    Raises
    ------
    InputError
        For an unknown name, a chain with momentum, a mesh file whose boundary should move, or a shift that is not
        small against the domain.
    """
    if name not in EXIT_MODELS:
        raise InputError("exit.model", name, f"one of {', '.join(EXIT_MODELS)}")
    if name == "diffusion":
        return chain.diffusion(), domain
    if name == "second-order":
        return second_order(chain), domain
    moved = shifted(chain, domain)
    return (chain.diffusion() if name == "shifted" else corrected(chain)), moved


def second_order(chain: Chain) -> Process:
    """Return ``dX = -∇(L + (η/4)|∇L|²) dt + sqrt(2a) dW`` (Li, Tai, E 2017); plain SGD only.

    It is no SGD process any more, so it has no landscape: bounds of the papers do not know it.
    """
    plain = chain.diffusion()
    return Process(
        plain.variables,
        ModifiedEquation(chain).drift,
        plain.diffusion,
        plain.divergence,
        constant_diffusion=plain.constant_diffusion,
    )


def corrected(chain: Chain) -> Process:
    """Return the modified equation with drift f̃ and diffusion ã, see the module; plain SGD only.

    Raises
    ------
    InputError
        If the chain has momentum or the loss no third derivatives (div ã needs them).
    """
    plain, modified = chain.diffusion(), ModifiedEquation(chain)
    return Process(plain.variables, modified.drift, modified.diffusion, modified.divergence)


@dataclass(frozen=True, eq=False)
class ModifiedEquation:
    """f̃, ã and div ã of a chain; see the module.

    ã at x asks for Q at ``x - (η/2)∇L(x)``, which may lie outside of the domain by half a step.
    """

    chain: Chain

    @property
    def half(self) -> float:
        """η/2."""
        return 0.5 * self.chain.learning_rate

    @cached_property
    def _slopes(self) -> tuple[Field, Field]:
        return loss_third(self.chain.landscape), covariance_slope(self.chain.landscape)

    def drift(self, x: np.ndarray) -> np.ndarray:
        """Return f̃ = -(I + (η/2)H)∇L, shape (n, d)."""
        gradient = self.chain.landscape.gradient(x)
        return -(gradient + self.half * np.einsum("nij,nj->ni", self.chain.landscape.hessian(x), gradient))

    def diffusion(self, x: np.ndarray) -> np.ndarray:
        """Return ã, shape (n, d, d), symmetric to the last bit."""
        factor, a = self._parts(x)[1:]
        product = factor @ a @ factor
        return 0.5 * (product + product.swapaxes(1, 2))

    def divergence(self, x: np.ndarray) -> np.ndarray:
        """Return div ã, shape (n, d), by the product rule.

        With ``F = I + (η/2)H`` and y = x - (η/2)∇L, whose derivative is ``I - (η/2)H``, ``∂_j (F_ik a_kl(y) F_lj)`` is
        ``(η/2) ∂_jH_ik a_kl F_lj + F_ik ∂_m a_kl (I - (η/2)H)_mj F_jl + (η/2) F_ik a_kl ∂_l ΔL``.
        """
        third, slope = self._slopes
        ahead, factor, a = self._parts(x)
        level = self.chain.level
        change = level.epsilon2 * level.scale * slope(ahead)
        bend = self.half * third(x)
        along = (2 * np.eye(x.shape[1]) - factor) @ factor
        result = np.einsum("nikj,nkl,nlj->ni", bend, a, factor, optimize=True)
        result += np.einsum("nik,nklm,nml->ni", factor, change, along, optimize=True)
        return result + np.einsum("nik,nkl,nljj->ni", factor, a, bend, optimize=True)

    def _parts(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return x - (η/2)∇L, I + (η/2)H at x, and a at the former."""
        landscape = self.chain.landscape
        ahead = x - self.half * landscape.gradient(x)
        factor = np.eye(x.shape[1]) + self.half * landscape.hessian(x)
        return ahead, factor, self.chain.step_covariance(ahead) / (2 * self.chain.learning_rate)


@dataclass(frozen=True)
class Overshoot:
    """How far the boundary moves: 0.5826 times the standard deviation of one step along the outward normal."""

    chain: Chain

    def __call__(self, x: np.ndarray, normal: np.ndarray) -> np.ndarray:
        """Return s >= 0 at boundary points x (n, d) with outward unit normals (n, d), shape (n,)."""
        variance = np.einsum("ni,nij,nj->n", normal, self.chain.step_covariance(x), normal)
        return OVERSHOOT * np.sqrt(np.maximum(variance, 0.0))


def shifted(chain: Chain, domain: Domain) -> Moved:
    """Return the domain with its boundary moved outwards by the mean overshoot of a step; reflecting parts stay.

    Raises
    ------
    InputError
        If the domain is a mesh file, or the shift is not small against the domain (a quarter of its smallest extent).
    """
    if chain.momentum:
        raise InputError("process.momentum", chain.momentum, "no momentum", "Its overshoot is another one.")
    if isinstance(domain, (MeshFile, Moved)):
        raise InputError("exit.model", "shifted", "an interval, box, ball or sublevel set as domain")
    moved = Moved(domain, Overshoot(replace(chain, law="gaussian")))
    low, high = domain.bounding_box()
    extent = float(np.min(high - low))
    if moved.largest_shift > LARGEST_SHIFT * extent:
        raise InputError(
            "exit.model",
            "shifted",
            f"steps that are small against the domain of extent {extent:.4g}",
            f"Its boundary would move by up to {moved.largest_shift:.4g}. Use a smaller learning_rate, a larger "
            'batch_size or model = "gaussian-chain".',
        )
    return moved
