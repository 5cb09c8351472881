"""Exact Gaussian solutions of dX = -C(X - x0) dt + sqrt(2a) dW, independent of fpsolve: an ODE for the covariance."""

from __future__ import annotations

from mpi4py import MPI

import numpy as np
import ufl
from dolfinx import fem
from scipy.integrate import solve_ivp
from scipy.linalg import expm


def gaussian_at(
    C: np.ndarray, a: np.ndarray, m0: np.ndarray, S0: np.ndarray, t: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and covariance at time t: dm/dt = -Cm, dS/dt = -CS - SCᵀ + 2a."""
    d = len(m0)

    def rate(_: float, s: np.ndarray) -> np.ndarray:
        S = s.reshape(d, d)
        return (-C @ S - S @ C.T + 2 * a).ravel()

    solution = solve_ivp(rate, (0.0, t), S0.ravel(), method="DOP853", rtol=1e-12, atol=1e-14)
    return expm(-C * t) @ m0, solution.y[:, -1].reshape(d, d)


def l2_error(density: fem.Function, mean: np.ndarray, covariance: np.ndarray, degree: int = 10) -> float:
    """Return ‖ρ - N(mean, covariance)‖ / ‖N‖ in L². Collective."""
    domain = density.function_space.mesh
    d = len(mean)
    centre = fem.Constant(domain, mean)
    precision = fem.Constant(domain, np.linalg.inv(covariance))
    factor = fem.Constant(domain, 1.0 / np.sqrt(np.linalg.det(2 * np.pi * covariance)))
    x = ufl.SpatialCoordinate(domain)
    shift = ufl.as_vector([x[i] - centre[i] for i in range(d)])
    exact = factor * ufl.exp(-0.5 * ufl.dot(shift, precision * shift))
    dx = ufl.dx(metadata={"quadrature_degree": degree})
    square = fem.assemble_scalar(fem.form((density - exact) ** 2 * dx))
    size = fem.assemble_scalar(fem.form(exact**2 * dx))
    comm = domain.comm
    return float(np.sqrt(comm.allreduce(square, op=MPI.SUM) / comm.allreduce(size, op=MPI.SUM)))


def fitted_order(sizes: list[float], errors: list[float]) -> float:
    """Return the slope of log error over log size by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])
