"""fpsolve: stochastic gradient descent as a degenerate diffusion, answered with error bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fpsolve.app.splitting import MassSplitting, mass_splitting, steady_mixture
    from fpsolve.app.theorems import theorems
    from fpsolve.model.callable_loss import callable_landscape
    from fpsolve.model.chain import Chain, sgd_chain
    from fpsolve.model.corrections import exit_model
    from fpsolve.model.covariance_models import covariance_model
    from fpsolve.model.covariance_rank import covariance_spectrum
    from fpsolve.model.domains import Ball, Box, Interval, MeshFile, Sublevel
    from fpsolve.model.initial import DensityStart, GaussianStart, PointStart, StateStart, density_start, gaussian_start
    from fpsolve.model.kinetic_domain import kinetic_domain
    from fpsolve.model.momentum import MomentumSGD
    from fpsolve.model.moved import Moved
    from fpsolve.model.process import SGD, Process, diffusion_process, noise_level, sgd_process, with_epsilon2
    from fpsolve.model.sample_data import read_samples
    from fpsolve.model.samples import read_csv, sample_landscape
    from fpsolve.model.schedule import Schedule, schedule_from
    from fpsolve.model.subspace import neglected, restrict
    from fpsolve.problems.backward import backward
    from fpsolve.problems.chain_evolve import ChainEvolveResult, chain_evolve
    from fpsolve.problems.chain_exit import ChainExitResult, chain_exit_time
    from fpsolve.problems.chain_steady import ChainSteadyResult, chain_steady
    from fpsolve.problems.compare import compare
    from fpsolve.problems.evolution import BackwardResult, EvolveResult
    from fpsolve.problems.evolve import evolve
    from fpsolve.problems.exit import ExitResult, mean_exit_time
    from fpsolve.problems.kinetic_exit import truncation_effect
    from fpsolve.problems.noisy_limit import noisy_limit
    from fpsolve.problems.steady import steady_state
    from fpsolve.problems.steady_result import SteadyResult
    from fpsolve.problems.wells import WellChain, well_chain
    from fpsolve.simulate.exits import ExitSample, simulate_exit
    from fpsolve.simulate.motion import EulerMaruyama
    from fpsolve.simulate.paths import PathSample, simulate_paths
    from fpsolve.theory import bounds
    from fpsolve.theory.certified.certify import certify
    from fpsolve.theory.certified.gap import spectral_gap_bound
    from fpsolve.theory.certified.moments import certified_exit_probability, certified_second_moment
    from fpsolve.theory.certified.survival import certified_survival
    from fpsolve.theory.critical import CriticalPoints, critical_points
    from fpsolve.theory.evolution import evolution_bounds
    from fpsolve.theory.heights import communication_heights
    from fpsolve.theory.linear import linear_diffusion
    from fpsolve.theory.mixture import GaussianMixture, LocalGaussian, gaussian_mixture, local_gaussians

_MODULES = {
    "fpsolve.app.splitting": ("MassSplitting", "mass_splitting", "steady_mixture"),
    "fpsolve.app.theorems": ("theorems",),
    "fpsolve.model.callable_loss": ("callable_landscape",),
    "fpsolve.model.chain": ("Chain", "sgd_chain"),
    "fpsolve.model.corrections": ("exit_model",),
    "fpsolve.model.covariance_models": ("covariance_model",),
    "fpsolve.model.covariance_rank": ("covariance_spectrum",),
    "fpsolve.model.domains": ("Ball", "Box", "Interval", "MeshFile", "Sublevel"),
    "fpsolve.model.initial": (
        "DensityStart",
        "GaussianStart",
        "PointStart",
        "StateStart",
        "density_start",
        "gaussian_start",
    ),
    "fpsolve.model.kinetic_domain": ("kinetic_domain",),
    "fpsolve.model.momentum": ("MomentumSGD",),
    "fpsolve.model.moved": ("Moved",),
    "fpsolve.model.process": (
        "SGD",
        "Process",
        "diffusion_process",
        "noise_level",
        "sgd_process",
        "with_epsilon2",
    ),
    "fpsolve.model.sample_data": ("read_samples",),
    "fpsolve.model.samples": ("read_csv", "sample_landscape"),
    "fpsolve.model.schedule": ("Schedule", "schedule_from"),
    "fpsolve.model.subspace": ("neglected", "restrict"),
    "fpsolve.problems.backward": ("backward",),
    "fpsolve.problems.chain_evolve": ("ChainEvolveResult", "chain_evolve"),
    "fpsolve.problems.chain_exit": ("ChainExitResult", "chain_exit_time"),
    "fpsolve.problems.chain_steady": ("ChainSteadyResult", "chain_steady"),
    "fpsolve.problems.compare": ("compare",),
    "fpsolve.problems.evolution": ("BackwardResult", "EvolveResult"),
    "fpsolve.problems.evolve": ("evolve",),
    "fpsolve.problems.exit": ("ExitResult", "mean_exit_time"),
    "fpsolve.problems.kinetic_exit": ("truncation_effect",),
    "fpsolve.problems.noisy_limit": ("noisy_limit",),
    "fpsolve.problems.steady": ("steady_state",),
    "fpsolve.problems.steady_result": ("SteadyResult",),
    "fpsolve.problems.wells": ("WellChain", "well_chain"),
    "fpsolve.simulate.exits": ("ExitSample", "simulate_exit"),
    "fpsolve.simulate.motion": ("EulerMaruyama",),
    "fpsolve.simulate.paths": ("PathSample", "simulate_paths"),
    "fpsolve.theory": ("bounds",),
    "fpsolve.theory.certified.certify": ("certify",),
    "fpsolve.theory.certified.gap": ("spectral_gap_bound",),
    "fpsolve.theory.certified.moments": ("certified_exit_probability", "certified_second_moment"),
    "fpsolve.theory.certified.survival": ("certified_survival",),
    "fpsolve.theory.critical": ("CriticalPoints", "critical_points"),
    "fpsolve.theory.evolution": ("evolution_bounds",),
    "fpsolve.theory.heights": ("communication_heights",),
    "fpsolve.theory.linear": ("linear_diffusion",),
    "fpsolve.theory.mixture": ("GaussianMixture", "LocalGaussian", "gaussian_mixture", "local_gaussians"),
}
__all__ = [
    "SGD",
    "BackwardResult",
    "Ball",
    "Box",
    "Chain",
    "ChainEvolveResult",
    "ChainExitResult",
    "ChainSteadyResult",
    "CriticalPoints",
    "DensityStart",
    "EulerMaruyama",
    "EvolveResult",
    "ExitResult",
    "ExitSample",
    "GaussianMixture",
    "GaussianStart",
    "Interval",
    "LocalGaussian",
    "MassSplitting",
    "MeshFile",
    "MomentumSGD",
    "Moved",
    "PathSample",
    "PointStart",
    "Process",
    "Schedule",
    "StateStart",
    "SteadyResult",
    "Sublevel",
    "WellChain",
    "backward",
    "bounds",
    "callable_landscape",
    "certified_exit_probability",
    "certified_second_moment",
    "certified_survival",
    "certify",
    "chain_evolve",
    "chain_exit_time",
    "chain_steady",
    "communication_heights",
    "compare",
    "covariance_model",
    "covariance_spectrum",
    "critical_points",
    "density_start",
    "diffusion_process",
    "evolution_bounds",
    "evolve",
    "exit_model",
    "gaussian_mixture",
    "gaussian_start",
    "kinetic_domain",
    "linear_diffusion",
    "local_gaussians",
    "mass_splitting",
    "mean_exit_time",
    "neglected",
    "noise_level",
    "noisy_limit",
    "read_csv",
    "read_samples",
    "restrict",
    "sample_landscape",
    "schedule_from",
    "sgd_chain",
    "sgd_process",
    "simulate_exit",
    "simulate_paths",
    "spectral_gap_bound",
    "steady_mixture",
    "steady_state",
    "theorems",
    "truncation_effect",
    "well_chain",
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
