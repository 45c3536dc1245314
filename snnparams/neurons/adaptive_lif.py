r"""The LIF neuron with an adaptive threshold (ALIF): each spike raises it, and it decays back.

.. math::
    \tau_\mathrm{adapt} \dot c = -c, \qquad \text{spike where } v > v_\mathrm{th} + \beta c, \text{ then } c \to c + 1,

with voltage, current and reset as in `snnparams.neurons.lif`. No spike takes away what the threshold remembers.
Explained in chapter 8.

References:
    G. Bellec et al. (2018), "Long short-term memory and learning-to-learn in networks of spiking neurons", NeurIPS 31;
    in this form G. Bellec et al. (2020), "A solution to the learning dilemma for recurrent networks of spiking
    neurons", Nature Communications 11, 3625, where a spike also takes the threshold away instead of resetting.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from snnparams.neurons.lif import LIFParameters
from snnparams.neurons.neuron import Value
from snnparams.parameters.parameter import rate, voltage


class AdaptiveLIF(LIFParameters):
    r"""Parameters of a LIF neuron whose threshold rises with each spike.

    Args:
        tau_adapt_inv: inverse time constant :math:`1/\tau_\mathrm{adapt}` in 1/s of the threshold's decay, positive.
        beta: what a spike adds to the threshold, dimensionless. At 0 this is a LIF neuron, below 0 spikes make the next
            ones easier; learned it is positive, unless another constraint is chosen.
        tau_adapt: its time constant in s, longer than a time step, in place of `tau_adapt_inv`.

    The others, what each may be given as, and errors are those of `snnparams.LIFParameters`. Its third variable,
    `adaptation`, counts spikes and decays.
    """

    state = ("v", "i", "adaptation")

    tau_adapt_inv: Value = rate(default=1 / 1e-1, time="tau_adapt")
    beta: Value = voltage(default=0.2, constraint="log")
    if TYPE_CHECKING:  # what a class of neurons gets by itself
        tau_adapt: Value | None = dataclasses.field(default=None, kw_only=True)  # s

    @staticmethod
    def constants(dt, tau_mem_inv, tau_syn_inv, tau_adapt_inv):
        """Return the shares of the way to their targets that voltage, current and adaptation go in one step."""
        return {"a": dt * tau_mem_inv, "b": dt * tau_syn_inv, "r": dt * tau_adapt_inv}

    @staticmethod
    def step(v, i, adaptation, a, b, r, v_leak, v_th, v_reset, beta, spike, reset):
        """Take one forward Euler step, then compare with the threshold that the spikes before have left."""
        v = v + a * ((v_leak - v) + i)
        z = spike(v, v_th + beta * adaptation)
        resets = reset(z)
        return z, (1 - resets) * v + resets * v_reset, i - b * i, adaptation - r * adaptation + z
