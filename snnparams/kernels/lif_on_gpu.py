"""LIF and LI neurons by the Triton kernels that are written for LIF alone: what these take, and how to call them."""

from __future__ import annotations

import torch
from torch.nn.functional import linear

from snnparams.kernels import fused
from snnparams.neurons import LIFParameters, LIParameters, Neuron
from snnparams.neurons.surrogate import Surrogate, surrogate_of


def takes(neuron: type[Neuron], gradient: Surrogate | None, recurrent: bool) -> bool:
    """Return whether a neuron is LIF, LI without recurrence, or like them, with a spike function of this package."""
    if gradient is not None and gradient.derivative is not None:
        return False
    parts = ("step", "constants", "receives", "state")
    known = LIFParameters if neuron.spiking else LIParameters
    return all(getattr(known, part) == getattr(neuron, part) for part in parts) and (neuron.spiking or not recurrent)


def _fused(currents, v, i, p, dt, kernel, *, recurrent_weights=None, method, alpha, detach_reset, v_th, v_reset, keep):
    """Call the fused operator for one network; the population's axes become one."""
    steps, rows, *population = currents.shape

    def per_neuron(value):  # a copy: a value that is changed before the backward pass does not change a gradient
        return torch.as_tensor(value, dtype=v.dtype, device=v.device).expand(population).reshape(1, -1).clone()

    outputs = fused.lif(
        currents.reshape(1, steps, rows, -1),
        v.reshape(1, rows, -1).clone(),  # so that a state can be set to zero before the backward pass
        i.reshape(1, rows, -1),
        None if recurrent_weights is None or steps == 1 else recurrent_weights[None],
        per_neuron(dt * p.tau_mem_inv),
        per_neuron(dt * p.tau_syn_inv),
        per_neuron(p.v_leak),
        per_neuron(v_th),
        per_neuron(v_reset),
        method,
        alpha,
        detach_reset,
        keep,
        kernel,
    )
    z, v_last, i_last, v_pre, _ = outputs
    return z.view(currents.shape), v_last.view(v.shape), i_last.view(i.shape), v_pre


def sequence(neuron: type[Neuron], currents, state, p, dt, detach_reset, kernel, recurrent_weights):
    """Compute a population of such neurons, see `snnparams.kernels.sequence`."""
    *_, v, i = state
    recurrent = recurrent_weights is not None
    if not neuron.spiking:  # a LIF neuron whose threshold is infinite
        how = {"method": "heaviside", "alpha": 1.0, "detach_reset": True, "v_th": torch.inf, "v_reset": 0.0}
        _, v, i, voltages = _fused(currents, v, i, p, dt, kernel, **how, keep=True)
        voltages = voltages.view(currents.shape)
        # the backward pass reads the voltages, so that a caller who may change them gets a copy
        return voltages.clone() if voltages.requires_grad else voltages, neuron.State(v, i)
    if recurrent:
        i = i + linear(state.z, recurrent_weights)  # what the spikes before the first step cause
    gradient = surrogate_of(p)
    how = {"method": gradient.method, "alpha": gradient.alpha, "detach_reset": detach_reset}
    how |= {"v_th": p.v_th, "v_reset": p.v_reset, "recurrent_weights": recurrent_weights}
    # voltages and currents are kept only for a backward pass
    z, v, i, _ = _fused(currents, v, i, p, dt, kernel, **how, keep=torch.is_grad_enabled())
    # the last spikes are not a part of all spikes: both can be changed, and saved, alone
    return z, neuron.RecurrentState(z[-1].clone(), v, i) if recurrent else neuron.State(v, i)
