r"""The leaky integrate-and-fire (LIF) neuron, integrated by forward Euler steps.

.. math::
    \tau_\mathrm{mem} \dot v = v_\mathrm{leak} - v + i, \qquad \tau_\mathrm{syn} \dot i = -i,

It spikes where :math:`v > v_\mathrm{th}` and is then reset to :math:`v_\mathrm{reset}`. Explained in chapter 1.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch

from snnparams.neurons.neuron import Neuron, Value
from snnparams.parameters.parameter import rate, voltage


class LIFState(NamedTuple):
    """State of a recurrent LIF population: spikes, voltages and currents, each of shape (B, H)."""

    z: torch.Tensor  # spikes of the last step
    v: torch.Tensor  # membrane voltage
    i: torch.Tensor  # synaptic current


class LIFFeedForwardState(NamedTuple):
    """State of a LIF population without recurrence: voltages and currents, each of the shape of its input."""

    v: torch.Tensor  # membrane voltage
    i: torch.Tensor  # synaptic current


class LIFParameters(Neuron):
    r"""Parameters of a leaky integrate-and-fire (LIF) neuron.

    Args:
        tau_syn_inv: inverse synaptic time constant :math:`1/\tau_\mathrm{syn}` in 1/s, positive.
        tau_mem_inv: inverse membrane time constant :math:`1/\tau_\mathrm{mem}` in 1/s, positive.
        v_leak: leak (resting) voltage, dimensionless.
        v_th: threshold voltage, dimensionless.
        v_reset: voltage after a spike, dimensionless. It may lie above the threshold; such a neuron, once it has
            fired, hardly stops.
        method: Norse's spelling of `gradient` of the cell or layer: the name of a spike function, see
            `snnparams.surrogate_derivative`, or `"adjoint"` for exact gradients; `"super"` if None.
        alpha: likewise the shape parameter of the spike function, positive; None for its default, see
            `snnparams.Surrogate`.
        tau_mem: membrane time constant in s, longer than a time step, in place of `tau_mem_inv`.
        tau_syn: synaptic time constant in s, longer than a time step, in place of `tau_syn_inv`.

    As attributes, `tau_mem` and `tau_syn` are what was given, or the inverse of what was given (None if that is an
    `nn.Parameter` or requires a gradient). `dataclasses.replace` changes a time constant through either name.

    Each of the first five and of the last two is one of these:

    - a number, a tensor or an array (a scalar or one value per neuron): fixed, copied into a buffer;
    - a `torch.distributions.Distribution`: fixed, drawn for every neuron when a cell or layer is built;
    - `snnparams.Learned` of a number, a tensor or a distribution: learned, with a constraint that keeps it valid;
    - `snnparams.Fixed` of one of them: fixed, for instance one draw for the whole layer;
    - an `nn.Parameter` (not for the last two): learned, registered itself, shared by every module that it is given to,
      without constraint.

    One second is the longest `tau_mem` or `tau_syn`, of several values their median: 20 is taken for milliseconds.
    Declare slower neurons by the inverse. A tail of a distribution beyond the limit of the time step, of a probability
    of at most 1 in 1000, is cut off.
    Names, order and defaults are those of Norse, but for `alpha`: its `"super"` ignores the 100 that it gives, which
    amounts to the 1 of here.

    Raises:
        ValueError: if a value, or one that a distribution can give, is not valid, a time constant is given twice,
            `alpha` is not positive, or `method` is unknown.
        TypeError: if a value is not a real floating-point number, `alpha` is to be learned, or a name is unknown.
    """

    state: ClassVar[tuple[str, ...]] = ("v", "i")
    State, RecurrentState = LIFFeedForwardState, LIFState
    rest = {"v": "v_leak"}  # noqa: RUF012
    receives = "i"
    has_adjoint = True

    tau_syn_inv: Value = rate(default=1 / 5e-3, time="tau_syn")
    tau_mem_inv: Value = rate(default=1 / 1e-2, time="tau_mem")
    v_leak: Value = voltage(default=0.0)
    v_th: Value = voltage(default=1.0)
    v_reset: Value = voltage(default=0.0)
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
    def step(v, i, a, b, v_leak, v_th, v_reset, spike, reset):
        """Take one forward Euler step, then compare with the threshold: Norse's order."""
        v = v + a * ((v_leak - v) + i)
        i = i - b * i
        z = spike(v, v_th)
        resets = reset(z)
        return z, (1 - resets) * v + resets * v_reset, i


class SubtractiveLIF(LIFParameters):
    r"""Parameters of a LIF neuron that is reset by subtraction: a spike takes :math:`v_\mathrm{th} - v_\mathrm{reset}`.

    So what lay above the threshold lies above `v_reset` afterwards, and is not lost. Its parameters are those of
    `LIFParameters`.
    """

    @staticmethod
    def step(v, i, a, b, v_leak, v_th, v_reset, spike, reset):
        """Take one forward Euler step, then compare with the threshold."""
        v = v + a * ((v_leak - v) + i)
        z = spike(v, v_th)
        return z, v - reset(z) * (v_th - v_reset), i - b * i
