"""What a network is made of, as far as the modules that hold it have to know."""

from __future__ import annotations

from typing import Any

from torch import nn

from snnparams.layers.attributes import Attributes
from snnparams.layers.population import Population
from snnparams.layers.states import carries_state


def normalises_by_all_steps(module: nn.Module) -> bool:
    """Return whether a module normalises by, or counts, all that it is called with at once."""
    if not isinstance(module, nn.modules.batchnorm._NormBase):
        return False
    of_batch = isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None
    return of_batch or (module.training and module.track_running_stats)


def hands_no_state(module: nn.Module) -> bool:
    """Return whether it is a container of PyTorch, or one within another, of what returns a state."""
    if not isinstance(module, nn.Sequential) or type(module).forward is not nn.Sequential.forward:
        return False
    return any(carries_state(part) or hands_no_state(part) for part in module)


def counts_steps(module: nn.Module) -> bool:
    """Return whether a module counts time in steps: a cell, a layer, a delay or an encoder."""
    return isinstance(module, Attributes) and "dt" in getattr(module, "as_built", ())


def as_shown(dt: float) -> float:
    """Return a time step but for rounding: 0.1 * 3 ms is 0.3 ms, though not to the last bit."""
    return float(f"{dt:g}")


def encodes(module: nn.Module) -> bool:
    """Return whether a module makes the time steps: it counts them, and carries no state from one to the next."""
    return counts_steps(module) and not carries_state(module)


def check_time_step(*modules: nn.Module) -> None:
    """Check that all that counts time in steps, encoders and delays too, has one step.

    Raises:
        ValueError: if there are several.
    """
    known = [module for module in modules if isinstance(module, nn.Module)]  # PyTorch refuses what else is added
    parts: list[Any] = [part for module in known for part in module.modules() if counts_steps(part)]
    steps: dict[float, str] = {}
    for part in parts:  # a module comes before those within it
        steps.setdefault(as_shown(part.dt), type(part).__name__)
    if len(steps) > 1:
        got = " and ".join(f"{dt:g} s of {name}" for dt, name in steps.items())
        raise ValueError(f"modules: expected one time step dt, got {got}")


def takes_time_first(module: nn.Module) -> bool:
    """Return whether a module takes sequences (T, B, ...), for sure: a layer, or a `Sequential` that begins with one.

    Modules of PyTorch before it leave the axes where they are; what a module of one's own does nobody knows.
    """
    if not type(module).__module__.startswith("snnparams."):
        return False
    parts: Any = getattr(module, "_parts", lambda: [module])  # of a Sequential
    for part in parts():
        if isinstance(part, Population):
            return part.layout.startswith("(T")
        if not type(part).__module__.startswith("torch.nn."):
            return False
    return False


def populations(module: nn.Module) -> list[str]:
    """Return the kinds of the cells and layers in a module."""
    return [type(part).__name__ for part in module.modules() if isinstance(part, Population)]
