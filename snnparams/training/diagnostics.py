"""Is it learning? What neuron parameters do during training, and neurons that take no part in it.

Explained in chapter 5 and in "When it does not learn".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn

from snnparams.layers.checks import check_module
from snnparams.layers.likeness import join
from snnparams.layers.neuron_parameters import NeuronParameters


def _learned(model: nn.Module) -> Iterator[tuple[str, NeuronParameters, str]]:
    """Yield for all learned neuron parameters their full name, what holds them, and their name there."""
    check_module(model)
    for path, module in model.named_modules():
        for name in module.neuron_fields if isinstance(module, NeuronParameters) else ():
            if isinstance(module.raw(name), nn.Parameter):
                yield join(path, name), module, name


def learned_values(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of the values of all learned neuron parameters, under names such as "hidden.p.tau_mem_inv"."""
    return {full: getattr(p, name).detach().clone() for full, p, name in _learned(model)}


def gradient_to_value(model: nn.Module) -> dict[str, float]:
    r"""Return for each parameter with a gradient how large that is, relative to its value.

    The median of :math:`|g| / |x|` over the numbers of the parameter that are not zero. Plain gradient descent changes
    a parameter by this share of itself, times the learning rate. Adam divides by the size of the gradient: there, a
    step is about the learning rate over :math:`|x|`, whatever the gradient. Of a neuron parameter under a constraint,
    :math:`|g| \, |\mathrm{d}x / \mathrm{d}\theta| / |x|`, with the gradient by what is stored,
    :math:`\theta`: the share of its value, not of that number, whose size depends on the unit; under "log" it is
    :math:`|g|`. A parameter of zeros only is left out.

    Args:
        model: after a backward pass.

    Raises:
        ValueError: if no parameter has a gradient.
        TypeError: if the model is none.
    """
    constrained = {id(p.raw(name)): p.constraint(name) for _, p, name in _learned(model)}
    graded = {name: (p, p.grad) for name, p in model.named_parameters() if p.grad is not None}
    if not graded:
        raise ValueError("model: expected one after a backward pass, got no gradient")
    ratios = {}
    for name, (parameter, gradient) in graded.items():
        change, values = gradient.to_dense(), parameter.detach().clone()
        if (constraint := constrained.get(id(parameter))) is not None:
            stored = values.requires_grad_()  # a constraint takes each number by itself
            values = constraint(stored)
            change, values = change * torch.autograd.grad(values.sum(), stored)[0], values.detach()
        if (known := values != 0).any():
            ratios[name] = (change[known] / values[known]).abs().median().item()
    return ratios


def zero_gradients(model: nn.Module) -> dict[str, int]:
    """Count the neurons whose gradient is exactly zero, for each learned neuron parameter.

    Such a neuron does not learn: no surrogate gradient reaches it in this batch, a clamp cuts it off, or its loss is
    zero already.

    Args:
        model: after a backward pass.

    Raises:
        ValueError: if no learned neuron parameter has a gradient.
        TypeError: if the model is none.
    """
    gradients = {full: p.raw(name).grad for full, p, name in _learned(model)}
    counts = {full: int((gradient == 0).sum()) for full, gradient in gradients.items() if gradient is not None}
    if not counts:
        raise ValueError("model: expected learned neuron parameters after a backward pass, got no gradient")
    return counts


def not_optimized(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """Return the names of the parameters that require a gradient and that no group of an optimiser holds.

    They never change. A frequent cause: `layer.p.tau_mem = Learned(...)` after the optimiser was made, or a model that
    was copied.

    Args:
        model: the model that is trained.
        optimizer: what trains it.

    Raises:
        TypeError: if `optimizer` is none.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer: expected one of torch.optim, got {type(optimizer).__name__}")
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in held]


class Activity(NamedTuple):
    """Numbers of neurons: those that never spike, those that spike nearly always, and all."""

    silent: int
    saturated: int
    neurons: int


def activity(spikes: torch.Tensor, saturation: float = 0.5) -> Activity:
    """Count the neurons that say nothing because they never spike, or because they hardly stop.

    Args:
        spikes: 0 or 1, shape (T, B, ...), dense or sparse.
        saturation: share of the steps, 0 to 1; a neuron that spikes in so many or more is saturated.

    Raises:
        TypeError: if the spikes are no tensor.
        ValueError: if they have fewer axes, or `saturation` is out of range.
    """
    if not isinstance(spikes, torch.Tensor):
        raise TypeError(f"spikes: expected a tensor of shape (T, B, ...), got {type(spikes).__name__}")
    if spikes.dim() < 3:
        raise ValueError(f"spikes: expected shape (T, B, ...), got {tuple(spikes.shape)}")
    if 0 in spikes.shape:
        raise ValueError(f"spikes: expected shape (T, B, ...) without an empty axis, got {tuple(spikes.shape)}")
    if not 0 < saturation <= 1:
        raise ValueError(f"saturation: expected a share of at most 1, got {saturation}")
    share = spikes.detach().to_dense().flatten(0, 1).float().mean(0)
    return Activity(int((share == 0).sum()), int((share >= saturation).sum()), share.numel())
