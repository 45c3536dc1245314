r"""One time step of a population as pure functions: the specification of what this package computes.

A step first adds the incoming current, then does what the neuron's own `step` says: `snnparams.neurons` has the
equations. The order is that of Norse. Explained in chapter 1.

What a step returns are tensors of their own: to change the spikes in place does not change the state.

`p` is anything with the attributes of `LIFParameters` (or of another neuron): the declaration itself, or the
`p` of a cell. The functions do not check values; cells and layers do.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import linear

from snnparams.neurons import LIFFeedForwardState, LIFParameters, LIFState, LIParameters, LIState, Neuron, as_given
from snnparams.neurons.neuron import check_gradient
from snnparams.neurons.surrogate import Adjoint, Gradient, gradient_of, surrogate_of
from snnparams.parameters.settings import check_dt


class AdjointState(NamedTuple):
    """State of a LIF population without recurrence, each of the shape of its input.

    It also holds the spikes of the last step: what comes next says what their time does to the loss.
    """

    v: torch.Tensor  # membrane voltage
    i: torch.Tensor  # synaptic current
    z: torch.Tensor  # spikes of the last step


def _where(z: torch.Tensor, *choices: torch.Tensor | float) -> torch.Tensor:
    a, b = (value if isinstance(value, torch.Tensor) else torch.full_like(z, value) for value in choices)
    return torch.where(z > 0.5, a, b)


def detaches(neuron: type[Neuron], given: bool | None, recurrent: bool, gradient: Gradient | None) -> bool:
    """Return whether the spike is a constant in the reset: what is asked for, or for None what Norse does.

    Args:
        neuron: class of the neurons.
        given: what is asked for.
        recurrent: whether they are connected; then Norse detaches the spike, else it does not.
        gradient: how the gradient is computed.

    Raises:
        ValueError: if something is asked for where there is nothing to choose.
        TypeError: if it is no bool.
    """
    if given is None:
        return recurrent and "reset" in neuron.arguments and not isinstance(gradient, Adjoint)
    if not isinstance(given, bool):
        raise TypeError(f"detach_reset: expected True, False or None, got {given!r}")
    if isinstance(gradient, Adjoint):
        raise ValueError(f"detach_reset={given}: the adjoint method differentiates the reset; leave detach_reset out")
    if given and "reset" not in neuron.arguments:
        raise ValueError(f"detach_reset=True: expected a neuron with a reset, got {neuron.__name__}")
    return given


def arguments_of_step(
    neuron: type[Neuron], p, dt: float, detach_reset: bool = False, gradient: Gradient | None = None
) -> dict[str, Any]:
    """Return what the steps of a sequence have in common: parameters, constants and functions, by name."""
    given: dict[str, Any] = {name: getattr(p, name) for name in neuron.neuron_fields if name in neuron.arguments}
    if neuron.constants is not None:
        values = [getattr(p, name) for name in neuron.of_constants]
        if not neuron.constants_of_numbers:
            values = [
                x if isinstance(x, torch.Tensor) else torch.tensor(x, dtype=torch.float64, device="cpu") for x in values
            ]
        given |= neuron.constants(dt, *values)
    given["where"] = _where
    given["reset"] = torch.Tensor.detach if detach_reset else lambda z: z
    if neuron.spiking:
        surrogate = surrogate_of(p, gradient)
        given["spike"] = lambda v, v_th: surrogate(v - v_th)
    return given


def advance(neuron: type[Neuron], x: torch.Tensor, state, given: dict[str, Any], recurrent_weights=None):
    """Take one step with the arguments that `arguments_of_step` has prepared; see `neuron_step`."""
    variables = dict(zip(neuron.state, state[-len(neuron.state) :], strict=True))
    recurrent = recurrent_weights is not None
    if neuron.receives:
        variables[neuron.receives] = variables[neuron.receives] + x
    if recurrent:
        arrives = linear(state[0], recurrent_weights)
        if neuron.receives:
            variables[neuron.receives] = variables[neuron.receives] + arrives
        else:
            x = x + arrives
    given = given | variables | {"x": x}
    returned = list(neuron.step(*(given[name] for name in neuron.arguments)))
    for k in neuron.shared:
        returned[k] = returned[k].clone()
    output, *new = returned
    return output, neuron.RecurrentState(output.clone(), *new) if recurrent else neuron.State(*new)


def neuron_step(
    neuron: type[Neuron],
    input_current: torch.Tensor,
    state,
    recurrent_weights: torch.Tensor | None = None,
    p: Neuron | nn.Module | None = None,
    *,
    dt: float = 0.001,
    gradient: Gradient | None = None,
    detach_reset: bool | None = None,
) -> tuple[torch.Tensor, Any]:
    """Advance a population of any neuron by one time step.

    Args:
        neuron: its class.
        input_current: current that arrives in this step, shape (B, ...).
        state: state before the step, each of that shape: `neuron.State`, or with recurrence `neuron.RecurrentState`.
        recurrent_weights: shape (H, H), for what the last output of a population (B, H) brings; None for no recurrence.
        p: neuron parameters, broadcast against the input's shape without B; the defaults of the class if None.
        dt: time step in s.
        gradient: the `Surrogate` of the spikes; None for what `p` says.
        detach_reset: treat the spike as a constant in the reset, so that no surrogate gradient flows through it. None
            for Norse's choice: True with recurrent weights, else False.

    Returns:
        Output of this step, shape (B, ...), and the state after it.

    Raises:
        ValueError: if `p` and `gradient` differ, or there is no reset to detach.
        TypeError: if state or `p` is none of this neuron.
    """
    p = as_given(p, neuron)
    if not isinstance(state, tuple) or len(state) < len(neuron.state) + (recurrent_weights is not None):
        kind = neuron.State if recurrent_weights is None else neuron.RecurrentState
        raise TypeError(f"state: expected {kind.__name__}, got {type(state).__name__}; cells begin with None")
    if not isinstance(input_current, torch.Tensor):
        raise TypeError(f"input: expected a tensor of shape (B, ...), got {type(input_current).__name__}")
    check_gradient(neuron, gradient)
    gradient = gradient_of(p, gradient) if neuron.spiking else None
    detach = detaches(neuron, detach_reset, recurrent_weights is not None, gradient)
    given = arguments_of_step(neuron, p, check_dt(dt), detach, gradient)
    return advance(neuron, input_current, state, given, recurrent_weights)


def lif_step(
    input_spikes: torch.Tensor,
    state: LIFState,
    input_weights: torch.Tensor,
    recurrent_weights: torch.Tensor,
    p: LIFParameters | nn.Module | None = None,
    *,
    dt: float = 0.001,
    gradient: Gradient | None = None,
    detach_reset: bool | None = None,
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
        gradient: the `Surrogate` of the spikes; None for what `p` says.
        detach_reset: treat the spike as a constant in the reset, so that no surrogate gradient flows through it. None
            for Norse's choice: True here, and False in `lif_feed_forward_step`.

    Returns:
        Spikes of this step, shape (B, H), and the state after it.
    """
    how: dict[str, Any] = {"dt": dt, "gradient": gradient, "detach_reset": detach_reset}
    return neuron_step(LIFParameters, linear(input_spikes, input_weights), state, recurrent_weights, p, **how)


def lif_feed_forward_step(
    input_current: torch.Tensor,
    state: LIFFeedForwardState,
    p: LIFParameters | nn.Module | None = None,
    *,
    dt: float = 0.001,
    gradient: Gradient | None = None,
    detach_reset: bool | None = None,
) -> tuple[torch.Tensor, LIFFeedForwardState]:
    """Advance a LIF population without recurrence by one time step: `lif_step` without its weights.

    Arguments and what it returns are those of `neuron_step`.
    """
    how: dict[str, Any] = {"dt": dt, "gradient": gradient, "detach_reset": detach_reset}
    return neuron_step(LIFParameters, input_current, state, None, p, **how)


def li_step(
    input_spikes: torch.Tensor,
    state: LIState,
    input_weights: torch.Tensor,
    p: LIParameters | nn.Module | None = None,
    *,
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
    return li_feed_forward_step(linear(input_spikes, input_weights), state, p, dt=dt)


def li_feed_forward_step(
    input_current: torch.Tensor,
    state: LIState,
    p: LIParameters | nn.Module | None = None,
    *,
    dt: float = 0.001,
) -> tuple[torch.Tensor, LIState]:
    """Advance a leaky integrator by one time step; arguments and what it returns are those of `neuron_step`."""
    return neuron_step(LIParameters, input_current, state, None, p, dt=dt)
