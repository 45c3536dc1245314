"""The leaky integrator (LI): a membrane that integrates its input and never spikes. Explained in chapter 1."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import torch

from snnparams.neurons.neuron import Neuron, Value
from snnparams.parameters.parameter import rate, voltage


class LIState(NamedTuple):
    """State of a leaky integrator: voltage and current, each of the shape of its input."""

    v: torch.Tensor  # membrane voltage
    i: torch.Tensor  # synaptic current


class LIParameters(Neuron):
    r"""Parameters of a leaky integrator: a membrane that integrates its input and never spikes.

    Args:
        tau_syn_inv: inverse synaptic time constant :math:`1/\tau_\mathrm{syn}` in 1/s, positive.
        tau_mem_inv: inverse membrane time constant :math:`1/\tau_\mathrm{mem}` in 1/s, positive.
        v_leak: leak (resting) voltage, dimensionless.
        tau_mem: membrane time constant in s, longer than a time step, in place of `tau_mem_inv`.
        tau_syn: synaptic time constant in s, longer than a time step, in place of `tau_syn_inv`.

    Each is declared, read and replaced as in `LIFParameters`.

    Raises:
        ValueError: if a value is not finite or a time constant is not positive.
        TypeError: if a value is not a real floating-point number, or a name is unknown.
    """

    state = ("v", "i")
    State = LIState
    rest = {"v": "v_leak"}  # noqa: RUF012
    receives = "i"

    tau_syn_inv: Value = rate(default=1 / 5e-3, time="tau_syn")
    tau_mem_inv: Value = rate(default=1 / 1e-2, time="tau_mem")
    v_leak: Value = voltage(default=0.0)
    if TYPE_CHECKING:  # what a class of neurons gets by itself
        tau_mem: Value | None = dataclasses.field(default=None, kw_only=True)  # s
        tau_syn: Value | None = dataclasses.field(default=None, kw_only=True)  # s

    @staticmethod
    def constants(dt, tau_mem_inv, tau_syn_inv):
        """Return the shares of the way to their targets that voltage and current go in one step."""
        return {"a": dt * tau_mem_inv, "b": dt * tau_syn_inv}

    @staticmethod
    def step(v, i, a, b, v_leak):
        """Take one forward Euler step."""
        v = v + a * ((v_leak - v) + i)
        return v, v, i - b * i
