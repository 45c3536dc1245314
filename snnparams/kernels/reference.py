"""The reference: a loop over the step functions of `snnparams.dynamics`, differentiated by autograd.

It is slow, runs on every device in every floating-point type, and is what the kernels are tested against.
"""

from __future__ import annotations

import torch

from snnparams.dynamics import li_feed_forward_step, lif_feed_forward_step, lif_recurrent_current_step
from snnparams.parameters import Values


def _own(p) -> Values:
    """Return parameters whose reset voltage, which the backward pass reads, nobody else changes before that."""
    values = Values(*(getattr(p, name) for name in Values._fields))
    return values._replace(v_reset=torch.as_tensor(values.v_reset).clone())


def lif(currents, state, p, dt, detach_reset):
    """Return spikes and last state of a feed-forward population, see `snnparams.kernels.lif`."""
    p, spikes = _own(p), []
    for current in currents:
        z, state = lif_feed_forward_step(current, state, p, dt, detach_reset)
        spikes.append(z)
    return torch.stack(spikes), state


def lif_recurrent(currents, state, recurrent_weights, p, dt, detach_reset):
    """Return spikes and last state of a recurrent population, see `snnparams.kernels.lif_recurrent`."""
    p, spikes = _own(p), []
    for current in currents:
        z, state = lif_recurrent_current_step(current, state, recurrent_weights, p, dt, detach_reset)
        spikes.append(z)
    return torch.stack(spikes), state


def li(currents, state, p, dt):
    """Return voltages and last state of leaky integrators, see `snnparams.kernels.li`."""
    voltages = []
    for current in currents:
        v, state = li_feed_forward_step(current, state, p, dt)
        voltages.append(v)
    return torch.stack(voltages), state
