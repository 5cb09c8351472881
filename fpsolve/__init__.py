"""fpsolve: stochastic gradient descent as a degenerate diffusion, answered with error bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fpsolve.app.theorems import theorems
    from fpsolve.model.callable_loss import callable_landscape
    from fpsolve.model.chain import Chain, sgd_chain
    from fpsolve.model.domains import Ball, Box, Interval, MeshFile, Sublevel
    from fpsolve.model.initial import DensityStart, GaussianStart, PointStart, StateStart, density_start, gaussian_start
    from fpsolve.model.momentum import MomentumSGD
    from fpsolve.model.process import SGD, Process, diffusion_process, noise_level, sgd_process, with_epsilon2
    from fpsolve.model.samples import read_csv, sample_landscape
    from fpsolve.model.schedule import Schedule, schedule_from
    from fpsolve.problems.backward import backward
    from fpsolve.problems.compare import compare
    from fpsolve.problems.evolution import BackwardResult, EvolveResult
    from fpsolve.problems.evolve import evolve
    from fpsolve.problems.exit import ExitResult, mean_exit_time
    from fpsolve.problems.noisy_limit import noisy_limit
    from fpsolve.problems.steady import steady_state
    from fpsolve.problems.steady_result import SteadyResult
    from fpsolve.simulate.exits import ExitSample, simulate_exit
    from fpsolve.simulate.motion import EulerMaruyama
    from fpsolve.theory import bounds
    from fpsolve.theory.evolution import evolution_bounds
    from fpsolve.theory.linear import linear_diffusion

_MODULES = {
    "fpsolve.app.theorems": ("theorems",),
    "fpsolve.model.callable_loss": ("callable_landscape",),
    "fpsolve.model.chain": ("Chain", "sgd_chain"),
    "fpsolve.model.domains": ("Ball", "Box", "Interval", "MeshFile", "Sublevel"),
    "fpsolve.model.initial": (
        "DensityStart",
        "GaussianStart",
        "PointStart",
        "StateStart",
        "density_start",
        "gaussian_start",
    ),
    "fpsolve.model.momentum": ("MomentumSGD",),
    "fpsolve.model.process": (
        "SGD",
        "Process",
        "diffusion_process",
        "noise_level",
        "sgd_process",
        "with_epsilon2",
    ),
    "fpsolve.model.samples": ("read_csv", "sample_landscape"),
    "fpsolve.model.schedule": ("Schedule", "schedule_from"),
    "fpsolve.problems.backward": ("backward",),
    "fpsolve.problems.compare": ("compare",),
    "fpsolve.problems.evolution": ("BackwardResult", "EvolveResult"),
    "fpsolve.problems.evolve": ("evolve",),
    "fpsolve.problems.exit": ("ExitResult", "mean_exit_time"),
    "fpsolve.problems.noisy_limit": ("noisy_limit",),
    "fpsolve.problems.steady": ("steady_state",),
    "fpsolve.problems.steady_result": ("SteadyResult",),
    "fpsolve.simulate.exits": ("ExitSample", "simulate_exit"),
    "fpsolve.simulate.motion": ("EulerMaruyama",),
    "fpsolve.theory": ("bounds",),
    "fpsolve.theory.evolution": ("evolution_bounds",),
    "fpsolve.theory.linear": ("linear_diffusion",),
}
__all__ = [
    "SGD",
    "BackwardResult",
    "Ball",
    "Box",
    "Chain",
    "DensityStart",
    "EulerMaruyama",
    "EvolveResult",
    "ExitResult",
    "ExitSample",
    "GaussianStart",
    "Interval",
    "MeshFile",
    "MomentumSGD",
    "PointStart",
    "Process",
    "Schedule",
    "StateStart",
    "SteadyResult",
    "Sublevel",
    "backward",
    "bounds",
    "callable_landscape",
    "compare",
    "density_start",
    "diffusion_process",
    "evolution_bounds",
    "evolve",
    "gaussian_start",
    "linear_diffusion",
    "mean_exit_time",
    "noise_level",
    "noisy_limit",
    "read_csv",
    "sample_landscape",
    "schedule_from",
    "sgd_chain",
    "sgd_process",
    "simulate_exit",
    "steady_state",
    "theorems",
    "with_epsilon2",
]


def __getattr__(name: str) -> Any:
    """Import public names when they are first used: formulas and bounds need no dolfinx."""
    import importlib

    for module, names in _MODULES.items():
        if name in names:
            if name == "bounds":
                return importlib.import_module("fpsolve.theory.bounds")
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'fpsolve' has no attribute {name!r}")
