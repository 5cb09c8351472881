"""The loss of one sample as a function that JAX differentiates, compiled for many points and samples."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fpsolve.errors import InputError, MissingPackage
from fpsolve.model.sample_moments import Kind


def _jax() -> Any:
    try:
        import jax
    except ImportError as error:
        need = "JAX is needed to differentiate a loss given as a function: give gradient and hessian,"
        raise MissingPackage(f"{need} or install it: pip install 'fpsolve[jax]' ({error})") from None
    return jax


def _double() -> AbstractContextManager[Any]:
    """Return a context of double precision that leaves JAX's global setting as it is."""
    jax = _jax()
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    return importlib.import_module("jax.experimental").enable_x64()  # before JAX 0.8


@dataclass(frozen=True, eq=False)
class JaxRows:
    """The terms of ``sample_loss(theta, *columns)`` and their derivatives by JAX; implements `callable_loss.Rows`.

    XLA uses threads of its own, so none are made for it. `parameters` is the number of them on a subspace.
    """

    sample_loss: Callable[..., Any]
    threaded: bool = False
    parameters: int = 0

    @classmethod
    def of(cls, sample_loss: Callable[..., Any], point: np.ndarray, sample: Sequence[np.ndarray]) -> JaxRows:
        """Return the rows of a function, tried at one point and sample.

        Raises
        ------
        InputError
            If it is no function of JAX arrays or its value no number.
        MissingPackage
            Without JAX.
        """
        jax = _jax()
        with _double():
            arguments = [jax.numpy.asarray(value) for value in (point, *sample)]
            try:
                shape = jax.eval_shape(sample_loss, *arguments)
                if getattr(shape, "shape", None) == ():
                    jax.eval_shape(jax.hessian(sample_loss), *arguments)
            except Exception as error:  # the user's function, so anything
                reason = str(error).strip().splitlines()[:1] or [""]
                remedy = "Write it with jax.numpy, or give gradient and hessian."
                what = f"a function that JAX can differentiate ({type(error).__name__}: {reason[0]})"
                raise InputError("sample_loss", sample_loss, what, remedy) from error
        if getattr(shape, "shape", None) != ():
            raise InputError("sample_loss", shape, "a function whose value is one number")
        return cls(sample_loss)

    def __call__(self, kind: Kind, x: np.ndarray, columns: Sequence[np.ndarray], own: bool) -> list[np.ndarray]:
        """Return the rows; see `callable_loss.Rows`."""
        n = len(x)
        padded = 1 << (n - 1).bit_length()  # a power of two: few shapes, so few compilations
        x = np.concatenate([x, np.broadcast_to(x[-1:], (padded - n, x.shape[1]))])
        if own:
            columns = [np.concatenate([c, np.broadcast_to(c[-1:], (padded - n, *c.shape[1:]))]) for c in columns]
        with _double():
            rows = np.asarray(self._compiled[kind, own](x, *columns))
        return [np.array(row[:n]) for row in rows]

    def restricted(self, origin: np.ndarray, basis: np.ndarray) -> JaxRows:
        """Return the rows on a subspace; JAX differentiates with respect to its coordinates only."""
        inner = self.sample_loss
        return JaxRows(lambda t, *columns: inner(origin + basis @ t, *columns), parameters=len(basis))

    def arrays(self, kind: Kind) -> int:
        """Return how many arrays are in flight, roughly: values and tangents of each parameter on a subspace."""
        return 8 * self.parameters

    @cached_property
    def _compiled(self) -> dict[tuple[Kind, bool], Callable[..., Any]]:
        jax = _jax()
        jnp, loss = jax.numpy, self.sample_loss
        gradient, hessian = jax.grad(loss), jax.hessian(loss)

        def both(theta: Any, *columns: Any) -> Any:
            upper = np.triu_indices(theta.shape[0])
            return jnp.concatenate([gradient(theta, *columns), hessian(theta, *columns)[upper]])

        terms: dict[Kind, Callable[..., Any]] = {
            "loss": lambda theta, *columns: loss(theta, *columns)[None],
            "gradient": gradient,
            "hessian": both,
        }

        def over(term: Callable[..., Any], own: bool) -> Callable[..., Any]:
            def at(theta: Any, *columns: Any) -> Any:
                return jax.vmap(lambda *sample: term(theta, *sample))(*columns)

            def table(x: Any, *columns: Any) -> Any:
                points = jax.vmap(at)(x, *columns) if own else jax.vmap(lambda theta: at(theta, *columns))(x)
                return jnp.moveaxis(points, 2, 0)

            return jax.jit(table)

        return {(kind, own): over(term, own) for kind, term in terms.items() for own in (False, True)}
