"""The reference: a loop over the steps of a neuron, see `snnparams.neurons.dynamics`, differentiated by autograd.

It is slow, runs on every device in every floating-point type, and is what the kernels are tested against.
"""

from __future__ import annotations

from typing import Any

import torch

from snnparams.neurons import Neuron
from snnparams.neurons.dynamics import advance, arguments_of_step


def sequence(
    neuron: type[Neuron],
    currents: torch.Tensor,
    state: Any,
    p: Any,
    dt: float,
    detach_reset: bool = False,
    recurrent_weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, Any]:
    """Return outputs and last state of a population of any neuron, see `snnparams.kernels.sequence`."""
    given = arguments_of_step(neuron, p, dt, detach_reset)
    for name in neuron.neuron_fields:  # the backward pass reads them, and nobody else is to change them before that
        if torch.is_grad_enabled() and isinstance(given.get(name), torch.Tensor):
            given[name] = given[name].clone()
    outputs = []
    for current in currents:
        output, state = advance(neuron, current, state, given, recurrent_weights)
        outputs.append(output)
    return torch.stack(outputs), state
