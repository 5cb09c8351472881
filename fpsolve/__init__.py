"""fpsolve: stochastic gradient descent as a degenerate diffusion, answered with error bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fpsolve.model.domains import Ball, Box, Interval, MeshFile, Sublevel
    from fpsolve.model.process import SGD, Process, diffusion_process, noise_level, sgd_process, with_epsilon2
    from fpsolve.model.samples import read_csv, sample_landscape
    from fpsolve.problems.compare import compare
    from fpsolve.problems.exit import ExitResult, mean_exit_time
    from fpsolve.theory import bounds

_MODULES = {
    "fpsolve.model.domains": ("Ball", "Box", "Interval", "MeshFile", "Sublevel"),
    "fpsolve.model.process": (
        "SGD",
        "Process",
        "diffusion_process",
        "noise_level",
        "sgd_process",
        "with_epsilon2",
    ),
    "fpsolve.model.samples": ("read_csv", "sample_landscape"),
    "fpsolve.problems.compare": ("compare",),
    "fpsolve.problems.exit": ("ExitResult", "mean_exit_time"),
    "fpsolve.theory": ("bounds",),
}
__all__ = [
    "SGD",
    "Ball",
    "Box",
    "ExitResult",
    "Interval",
    "MeshFile",
    "Process",
    "Sublevel",
    "bounds",
    "compare",
    "diffusion_process",
    "mean_exit_time",
    "noise_level",
    "read_csv",
    "sample_landscape",
    "sgd_process",
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
