"""Optimiser groups: weights in one, each kind of neuron parameter in another, with learning rates of their own.

Explained in chapter 5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

from torch import nn

from snnparams.layers.checks import check_module
from snnparams.layers.neuron_parameters import NeuronParameters
from snnparams.parameters.settings import is_number
from snnparams.training.diagnostics import _learned


def neuron_parameter_kinds(model: nn.Module) -> dict[nn.Parameter, str]:
    """Return the kind, for instance "tau_mem_inv", of every parameter that holds a learned neuron parameter."""
    kinds: dict[nn.Parameter, str] = {}
    for _, p, name in _learned(model):
        kinds.setdefault(cast(nn.Parameter, p.raw(name)), name)
    return kinds


def _as_declared(kind: str, parts: list[NeuronParameters]) -> str:
    """Return the name of a learned rate, or of its time constant if all that learn it were declared in seconds."""
    learning = [p for p in parts if isinstance(p.raw(kind), nn.Parameter)]
    return learning[0].about(kind).name if all(kind in p.in_seconds for p in learning) else kind


def _check_rate(name: str, value: float) -> None:
    if not (is_number(value) and math.isfinite(value) and value >= 0):
        raise ValueError(f"{name}: expected a finite number of at least 0, got {value!r}")


def parameter_groups(
    model: nn.Module, lr: float, neuron_lr: float | Mapping[str, float] | None = None, weight_decay: float = 0.0
) -> list[dict]:
    """Split the parameters of a model into groups for a `torch.optim.Optimizer`.

    Each group is a dictionary of `params`, `lr`, `weight_decay` and `name`: "weights", or a kind of neuron parameter as
    it was declared, "tau_mem" or "tau_mem_inv". Weight decay pulls towards zero, which for a neuron parameter means
    nothing (a threshold of zero, a logarithm of zero), so those have none.

    Args:
        model: any module.
        lr: learning rate of the weights.
        neuron_lr: learning rate of the neuron parameters: a number, or one for each kind, as in
            `{"tau_mem": 1e-2, "v_th": 1e-3}`; `lr` for what is not named. It is the rate of what is stored: under a
            constraint, of unconstrained numbers, and else of the rate in 1/s, `tau_mem_inv`.
        weight_decay: of the weights.

    Returns:
        Groups that are not empty. Every parameter of the model is in one of them, in one place.

    Raises:
        ValueError: if a rate is negative or not finite, or a kind is unknown or not learned by this model.
    """
    check_module(model)
    kinds = neuron_parameter_kinds(model)
    parts = [module for module in model.modules() if isinstance(module, NeuronParameters)]
    order = dict.fromkeys(name for module in parts for name in module.neuron_fields)
    times = {time: name for module in parts for time, name in module.neuron.times.items()}
    rates: dict[str, float] = {}
    for kind, rate in neuron_lr.items() if isinstance(neuron_lr, Mapping) else ():
        if times.get(kind, kind) in rates:
            raise ValueError(f"neuron_lr: expected either {kind} or its inverse, got both")
        rates[times.get(kind, kind)] = rate
    learned = [kind for kind in order if kind in kinds.values()]
    names = {kind: _as_declared(kind, [m for m in parts if kind in m.neuron_fields]) for kind in learned}
    for kind in neuron_lr if isinstance(neuron_lr, Mapping) else ():
        if times.get(kind, kind) not in learned:
            expected = (
                f"kinds that the model learns ({', '.join(names.values())})" if names else "a model that learns some"
            )
            raise ValueError(f"neuron_lr: expected {expected}, got {kind!r}")
    if not isinstance(neuron_lr, Mapping):
        _check_rate("neuron_lr", lr if neuron_lr is None else neuron_lr)
        rates = dict.fromkeys(learned, lr if neuron_lr is None else neuron_lr)
    for name, rate in {"lr": lr, "weight_decay": weight_decay, **rates}.items():
        _check_rate(name, rate)
    groups: dict[str, dict] = {"weights": {"params": [], "lr": lr, "weight_decay": weight_decay, "name": "weights"}}
    for kind in learned:
        groups[kind] = {"params": [], "lr": rates.get(kind, lr), "weight_decay": 0.0, "name": names[kind]}
    for parameter in model.parameters():
        groups[kinds.get(parameter, "weights")]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]
