r"""One time step of a population as pure functions: the specification of what this package computes.

A leaky integrate-and-fire neuron obeys

.. math::
    \tau_\mathrm{mem} \dot v = v_\mathrm{leak} - v + i, \qquad \tau_\mathrm{syn} \dot i = -i,

spikes where :math:`v > v_\mathrm{th}` and is then reset to :math:`v_\mathrm{reset}`. A step of
length :math:`\Delta t` first adds the incoming current, then takes one forward Euler step of both equations, then
compares with the threshold. The order is that of Norse. Explained in chapter 1.

What a step returns are tensors of their own: to change the spikes in place does not change the state.

`p` is anything with the attributes of `LIFParameters` (or `LIParameters`): the declaration itself, or the
`p` of a cell. The functions do not check values; cells and layers do.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn.functional import linear

from snnparams.declaration import as_given
from snnparams.parameters import LIFParameters, LIParameters, NeuronParameters, Values
from snnparams.surrogate import threshold


class LIFState(NamedTuple):
    """State of a recurrent LIF population, each of shape (B, H)."""

    z: torch.Tensor  # spikes of the last step
    v: torch.Tensor  # membrane voltage
    i: torch.Tensor  # synaptic current


class LIFFeedForwardState(NamedTuple):
    """State of a LIF population without recurrence, each of the shape of its input."""

    v: torch.Tensor  # membrane voltage
    i: torch.Tensor  # synaptic current


class AdjointState(NamedTuple):
    """State of a LIF population without recurrence, each of the shape of its input.

    It also holds the spikes of the last step: what comes next says what their time does to the loss.
    """

    v: torch.Tensor  # membrane voltage
    i: torch.Tensor  # synaptic current
    z: torch.Tensor  # spikes of the last step


class LIState(NamedTuple):
    """State of a leaky integrator, each of the shape of its input."""

    v: torch.Tensor  # membrane voltage
    i: torch.Tensor  # synaptic current


def _integrate(v: torch.Tensor, i: torch.Tensor, p, dt: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Take one forward Euler step of membrane voltage and synaptic current."""
    v_new = v + dt * p.tau_mem_inv * ((p.v_leak - v) + i)
    i_new = i - dt * p.tau_syn_inv * i
    return v_new, i_new


def _fire(v: torch.Tensor, p, detach_reset: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Compare with the threshold; return the spikes and the voltage after the reset."""
    z = threshold(v - p.v_th, p.method, p.alpha)
    z_reset = z.detach() if detach_reset else z
    return z, (1 - z_reset) * v + z_reset * p.v_reset


def lif_step(
    input_spikes: torch.Tensor,
    state: LIFState,
    input_weights: torch.Tensor,
    recurrent_weights: torch.Tensor,
    p: LIFParameters | NeuronParameters | Values | None = None,
    dt: float = 0.001,
    detach_reset: bool = True,
) -> tuple[torch.Tensor, LIFState]:
    r"""Advance a recurrent LIF population by one time step.

    .. math::
        \begin{aligned}
        i' &= i + W_\mathrm{in} x + W_\mathrm{rec} z \\
        v' &= v + \Delta t \, \tau_\mathrm{mem}^{-1} (v_\mathrm{leak} - v + i') \\
        z_\mathrm{new} &= \Theta(v' - v_\mathrm{th}) \\
        v_\mathrm{new} &= (1 - z_\mathrm{new}) v' + z_\mathrm{new} v_\mathrm{reset} \\
        i_\mathrm{new} &= (1 - \Delta t \, \tau_\mathrm{syn}^{-1}) i'
        \end{aligned}

    Args:
        input_spikes: spikes that arrive in this step, shape (B, I).
        state: state before the step, each of shape (B, H).
        input_weights: shape (H, I).
        recurrent_weights: shape (H, H); row j holds what neuron j receives.
        p: neuron parameters, scalars or of shape (H,); the defaults of `LIFParameters` if None.
        dt: time step in s.
        detach_reset: treat the spike as a constant in the reset, so that no surrogate gradient flows through it.
            True here and False in `lif_feed_forward_step`, as in Norse.

    Returns:
        Spikes of this step, shape (B, H), and the state after it.
    """
    current = linear(input_spikes, input_weights)
    return lif_recurrent_current_step(current, state, recurrent_weights, p, dt, detach_reset)


def lif_recurrent_current_step(
    input_current: torch.Tensor,
    state: LIFState,
    recurrent_weights: torch.Tensor,
    p: LIFParameters | NeuronParameters | Values | None = None,
    dt: float = 0.001,
    detach_reset: bool = True,
) -> tuple[torch.Tensor, LIFState]:
    r"""Advance a recurrent LIF population by one step, given the current :math:`W_\mathrm{in} x` that its input causes.

    Whole sequences use it, because that current can be computed for all time steps in one matrix product.

    Args:
        input_current: current that arrives in this step, shape (B, H).
        state: state before the step, each of shape (B, H).
        recurrent_weights: shape (H, H).
        p: neuron parameters, scalars or of shape (H,).
        dt: time step in s.
        detach_reset: see `lif_step`.

    Returns:
        Spikes of this step, shape (B, H), and the state after it.
    """
    p = as_given(p, LIFParameters)
    i_jump = state.i + input_current + linear(state.z, recurrent_weights)
    v, i = _integrate(state.v, i_jump, p, dt)
    z, v = _fire(v, p, detach_reset)
    return z, LIFState(z.clone(), v, i)


def lif_feed_forward_step(
    input_current: torch.Tensor,
    state: LIFFeedForwardState,
    p: LIFParameters | NeuronParameters | Values | None = None,
    dt: float = 0.001,
    detach_reset: bool = False,
) -> tuple[torch.Tensor, LIFFeedForwardState]:
    """Advance a LIF population without recurrence by one time step: `lif_step` without its weights.

    Args:
        input_current: current that arrives in this step, shape (B, ...).
        state: state before the step, each of that shape.
        p: neuron parameters, broadcast against the input's shape without B.
        dt: time step in s.
        detach_reset: see `lif_step`.

    Returns:
        Spikes of this step, shape (B, ...), and the state after it.
    """
    p = as_given(p, LIFParameters)
    v, i = _integrate(state.v, state.i + input_current, p, dt)
    z, v = _fire(v, p, detach_reset)
    return z, LIFFeedForwardState(v, i)


def li_step(
    input_spikes: torch.Tensor,
    state: LIState,
    input_weights: torch.Tensor,
    p: LIParameters | NeuronParameters | Values | None = None,
    dt: float = 0.001,
) -> tuple[torch.Tensor, LIState]:
    """Advance a leaky integrator with input weights by one time step.

    Args:
        input_spikes: spikes that arrive in this step, shape (B, I).
        state: state before the step, each of shape (B, O).
        input_weights: shape (O, I).
        p: parameters, scalars or of shape (O,).
        dt: time step in s.

    Returns:
        Voltages after this step, shape (B, O), and the state after it.
    """
    return li_feed_forward_step(linear(input_spikes, input_weights), state, p, dt)


def li_feed_forward_step(
    input_current: torch.Tensor,
    state: LIState,
    p: LIParameters | NeuronParameters | Values | None = None,
    dt: float = 0.001,
) -> tuple[torch.Tensor, LIState]:
    """Advance a leaky integrator by one time step.

    Args:
        input_current: current that arrives in this step, shape (B, ...).
        state: state before the step, each of that shape.
        p: parameters, broadcast against the input's shape without B.
        dt: time step in s.

    Returns:
        Voltages after this step, shape (B, ...), and the state after it.
    """
    p = as_given(p, LIParameters)
    v, i = _integrate(state.v, state.i + input_current, p, dt)
    return v, LIState(v.clone(), i)
