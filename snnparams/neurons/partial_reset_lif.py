r"""A LIF neuron of which a spike takes as much as one says: what it erases, and what survives it.

The reset of LIF sets the voltage back, so that a membrane forgets at each spike what it has added up; its synaptic
current stays. Chapter 6 asks whether that is why membranes with different time constants gain less than synapses with
different ones, and changes the reset and nothing else.
"""

from __future__ import annotations

from snnparams.neurons.lif import LIFParameters
from snnparams.neurons.neuron import Value
from snnparams.parameters.parameter import voltage


class PartialResetLIF(LIFParameters):
    r"""Parameters of a LIF neuron of which a spike takes given shares, each of any size.

    Args:
        of_voltage: share of :math:`v - v_\mathrm{reset}` that a spike takes: 1 for the reset of LIF, 0 for none.
        of_threshold: share of :math:`v_\mathrm{th} - v_\mathrm{reset}` that it takes: 1, and nothing of the voltage,
            for reset by subtraction.
        of_current: share of the synaptic current that it takes, 0 in LIF.

    The others are those of `LIFParameters`. The adjoint method is not to be had.
    """

    of_voltage: Value = voltage(default=1.0)
    of_threshold: Value = voltage(default=0.0)
    of_current: Value = voltage(default=0.0)

    @staticmethod
    def step(v, i, a, b, v_leak, v_th, v_reset, of_voltage, of_threshold, of_current, spike, reset):
        """Take one forward Euler step, then compare with the threshold."""
        v = v + a * ((v_leak - v) + i)
        i = i - b * i
        z = spike(v, v_th)
        resets = reset(z)
        taken = of_voltage * (v - v_reset) + of_threshold * (v_th - v_reset)
        return z, v - resets * taken, i - (of_current * resets) * i
