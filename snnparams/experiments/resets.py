r"""A LIF neuron whose reset is another one: what a spike erases, and what survives it.

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
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from snnparams.neurons.neuron import Neuron, Value
from snnparams.parameters.parameter import rate, voltage

RESETS = {"zero": (1.0, 0.0), "subtraction": (0.0, 1.0), "none": (0.0, 0.0)}  # shares of voltage and threshold


def check_reset(reset: str) -> str:
    """Return `reset` if it names one.

    Raises:
        ValueError: it does not; the message lists the names that do.
    """
    if reset not in RESETS:
        raise ValueError(f"reset: expected one of {', '.join(RESETS)}, got {reset!r}")
    return reset


class LIFWithReset(Neuron):
    r"""Parameters of a LIF neuron of which a spike takes given shares; its leak voltage is 0.

    Args:
        tau_syn_inv: inverse synaptic time constant in 1/s, positive.
        tau_mem_inv: inverse membrane time constant in 1/s, positive.
        v_th: threshold voltage, dimensionless.
        of_voltage: share of the voltage that a spike takes.
        of_threshold: what it takes of the voltage in thresholds.
        of_current: share of the synaptic current that it takes.
        method: as in `snnparams.LIFParameters`.
        alpha: likewise.
        tau_mem: membrane time constant in s, in place of `tau_mem_inv`.
        tau_syn: synaptic time constant in s, in place of `tau_syn_inv`.
    """

    state = ("v", "i")
    receives = "i"

    tau_syn_inv: Value = rate(default=1 / 5e-3, time="tau_syn")
    tau_mem_inv: Value = rate(default=1 / 1e-2, time="tau_mem")
    v_th: Value = voltage(default=1.0)
    of_voltage: Value = voltage(default=1.0)
    of_threshold: Value = voltage(default=0.0)
    of_current: Value = voltage(default=0.0)
    if TYPE_CHECKING:  # what a class of neurons gets by itself
        method: str | None = None
        alpha: float | None = None
        tau_mem: Value | None = dataclasses.field(default=None, kw_only=True)  # s
        tau_syn: Value | None = dataclasses.field(default=None, kw_only=True)  # s

    @staticmethod
    def constants(dt, tau_mem_inv, tau_syn_inv):
        """Return the shares of the way to their targets that voltage and current go in one step."""
        return {"a": dt * tau_mem_inv, "b": dt * tau_syn_inv}

    @staticmethod
    def step(v, i, a, b, v_th, of_voltage, of_threshold, of_current, spike, reset):
        """Take one forward Euler step, then compare with the threshold."""
        v = v + a * (i - v)
        i = i - b * i
        z = spike(v, v_th)
        resets = reset(z)
        return z, v - resets * (of_voltage * v + of_threshold * v_th), i - (of_current * resets) * i
