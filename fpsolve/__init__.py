"""fpsolve: stochastic gradient descent as a degenerate diffusion, answered with error bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "SGD": "fpsolve.model.process",
    "Process": "fpsolve.model.process",
    "diffusion_process": "fpsolve.model.process",
    "with_epsilon2": "fpsolve.model.process",
    "sample_landscape": "fpsolve.model.samples",
    "Interval": "fpsolve.model.domains",
    "Box": "fpsolve.model.domains",
    "Ball": "fpsolve.model.domains",
    "Sublevel": "fpsolve.model.domains",
    "MeshFile": "fpsolve.model.domains",
    "mean_exit_time": "fpsolve.problems.exit",
    "ExitResult": "fpsolve.problems.exit",
    "compare": "fpsolve.problems.compare",
    "bounds": "fpsolve.theory.bounds",
}
__all__ = sorted(_WHERE)

if TYPE_CHECKING:
    from fpsolve.model.domains import Ball, Box, Interval, MeshFile, Sublevel
    from fpsolve.model.process import SGD, Process, diffusion_process, with_epsilon2
    from fpsolve.model.samples import sample_landscape
    from fpsolve.problems.compare import compare
    from fpsolve.problems.exit import ExitResult, mean_exit_time
    from fpsolve.theory import bounds


def __getattr__(name: str) -> Any:
    """Import public names when they are first used: formulas and bounds need no dolfinx."""
    import importlib

    if name not in _WHERE:
        raise AttributeError(f"module 'fpsolve' has no attribute {name!r}")
    module = importlib.import_module(_WHERE[name])
    return module if name == "bounds" else getattr(module, name)
