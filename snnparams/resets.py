r"""A LIF population whose reset is another one: what a spike erases, and what survives it.

The reset of `snnparams.LIF` sets the voltage back, so a membrane forgets at each spike what it has added up; its
synaptic current stays. Chapter 6 asks whether that is why different membranes pay less than different synapses. These
controls change the reset and nothing else:

============== ========================================================================
`reset`        the voltage after a spike
============== ========================================================================
"zero"         0, as in `snnparams.LIF` with its default values
"subtraction"  :math:`v - v_\mathrm{th}`: what was above the threshold stays
"none"         :math:`v`: a spike reports the voltage and does not touch it
============== ========================================================================

With `clear_synapse` a spike sets the synaptic current to 0 as well. A loop over time steps in plain PyTorch.
"""

from __future__ import annotations

import torch
from torch.nn.functional import linear

from snnparams.surrogate import surrogate_of

RESETS = ("zero", "subtraction", "none")


def check_reset(reset: str) -> str:
    """Return `reset` if it names one.

    Raises:
        ValueError: it does not; the message lists the names that do.
    """
    if reset not in RESETS:
        raise ValueError(f"reset: expected one of {', '.join(RESETS)}, got {reset!r}")
    return reset


def lif_with_reset(
    currents: torch.Tensor,
    p,
    dt: float,
    reset: str = "zero",
    clear_synapse: bool = False,
    detach_reset: bool = False,
    recurrent_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    r"""Return the spikes of a LIF population that starts at rest, with a reset of choice.

    Args:
        currents: what the input brings, shape (T, B, H).
        p: neuron parameters, scalars or of shape (H,); leak and reset voltage are 0, whatever it says.
        dt: time step in s.
        reset: one of `RESETS`.
        clear_synapse: whether a spike sets the synaptic current to 0, too.
        detach_reset: treat the spike as a constant in what it resets.
        recurrent_weights: shape (H, H); None for no recurrence.

    Returns:
        Spikes, shape (T, B, H).

    Raises:
        ValueError: if there is no such reset, or the currents have another number of axes.
    """
    check_reset(reset)
    if currents.dim() != 3:
        raise ValueError(f"currents: expected shape (T, B, H), got {tuple(currents.shape)}")
    v = i = torch.zeros_like(currents[0])
    surrogate = surrogate_of(p)
    z, spikes = None, []
    for current in currents:
        i = i + current
        if recurrent_weights is not None and z is not None:
            i = i + linear(z, recurrent_weights)
        v = v + dt * p.tau_mem_inv * (i - v)
        i = i - dt * p.tau_syn_inv * i
        z = surrogate(v - p.v_th)
        spikes.append(z)
        erases = z.detach() if detach_reset else z
        if reset == "zero":
            v = (1 - erases) * v
        elif reset == "subtraction":
            v = v - erases * p.v_th
        if clear_synapse:
            i = (1 - erases) * i
    return torch.stack(spikes)
