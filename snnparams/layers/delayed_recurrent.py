"""Recurrent layers whose connections take their time."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import torch
from torch.nn.functional import linear

from snnparams import kernels
from snnparams.kernels import adjoint
from snnparams.layers.checks import check_state
from snnparams.layers.delay import DelayState, _batch_first
from snnparams.layers.delay_parameters import (
    ROUNDING,
    DelayParameters,
    _delayed,
    _delayed_linear,
    _longest,
    _number_of_steps,
)
from snnparams.layers.layer import RecurrentLayer
from snnparams.neurons import Neuron, Value
from snnparams.neurons.surrogate import Gradient
from snnparams.parameters.constraints import can_be_looked_at
from snnparams.parameters.settings import check_bool


class DelayedRecurrentState(NamedTuple):
    """State of a recurrent population with delays."""

    z: torch.Tensor  # outputs of the last D steps, oldest first, shape (B, D, H)
    neurons: Any  # state of the population without recurrence


class DelayedRecurrentLayer(RecurrentLayer):
    r"""A recurrent population of any neuron whose recurrent connections have delays, over a whole sequence.

    A spike arrives a delay after it was fired; :math:`\Delta t`, one step, is the shortest, and with it alone the layer
    is a `RecurrentLayer`.

    Args:
        input_size: number of inputs I.
        hidden_size: number of neurons H.
        p: neuron parameters, as in `RecurrentLayer`.
        delay: delays in s, each from `dt` to `max_delay`, as in `Delay`: one for all neurons or of shape (H,), axonal;
            or with `per_synapse` of shape (H, H), row j for what neuron j receives.
        max_delay: longest delay in s that there is room for, as in `Delay`.
        per_synapse: whether each synapse has a delay of its own.
        input_weights: shape (H, I), as in `RecurrentLayer`.
        recurrent_weights: shape (H, H), likewise.
        autapses: whether a neuron may connect to itself.
        dt: time step in s.
        gradient: how the gradient of the spikes is computed, as in `LIF`.
        detach_reset: treat the spike as a constant in the reset, as in `LIFRecurrent`.
        kernel: how the sequence is computed, see `snnparams.kernels`.
        chunk: steps after which the state is kept, and nothing in between, as in `LIF`.
        device: device of fixed parameters and new weights.
        dtype: their floating-point type.

    Called with spikes of shape (T, B, I), dense or sparse, and optionally a `DelayedRecurrentState`, it returns the
    spikes, of shape (T, B, H), and the state after the last step. `delays.delay` are the delays.

    **Time.** Within the shortest delay no neuron hears of another, so that the layer computes as many steps at once as
    that has, by the kernel for a population without recurrence. With a shortest delay of one step this is a loop over
    steps, as the reference is. Under `torch.compile` and `torch.func`, which see no values, the lower bound of the
    constraint counts. **Memory:** :math:`D B H` numbers for the state, and where there is a gradient as many again for
    every part that is computed at once.

    Raises:
        ValueError: as `RecurrentLayer` and `Delay`.
        TypeError: as `RecurrentLayer` and `Delay`.
    """

    as_built: ClassVar[tuple[str, ...]] = (*RecurrentLayer.as_built, "max_delay", "per_synapse", "remembered")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        p: Neuron | None = None,
        *,
        delay: Value,
        max_delay: float | None = None,
        per_synapse: bool = False,
        input_weights: torch.Tensor | None = None,
        recurrent_weights: torch.Tensor | None = None,
        autapses: bool = False,
        dt: float = 0.001,
        gradient: Gradient | None = None,
        detach_reset: bool | None = None,
        kernel: str | None = None,
        chunk: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_bool(per_synapse=per_synapse)
        super().__init__(
            input_size,
            hidden_size,
            p,
            input_weights=input_weights,
            recurrent_weights=recurrent_weights,
            autapses=autapses,
            dt=dt,
            gradient=gradient,
            detach_reset=detach_reset,
            kernel=kernel,
            chunk=chunk,
            device=device,
            dtype=dtype,
        )
        like = self.p.raw(self.p.neuron_fields[0])
        self.max_delay, self.per_synapse = _longest(delay, max_delay), per_synapse
        size = (hidden_size, hidden_size) if per_synapse else hidden_size
        limits = {"low": self.dt, "high": self.max_delay}
        self.delays = DelayParameters(delay, dt=self.dt, size=size, device=like.device, dtype=like.dtype, **limits)
        self.remembered = _number_of_steps(self.max_delay, self.dt)

    def _arriving(self, past: torch.Tensor, weights: torch.Tensor, whole, fraction, steps: int) -> torch.Tensor:
        """Return the currents (T, B, H) that earlier spikes (D, B, H) cause in the next steps."""
        if self.per_synapse:
            whole, fraction = (part.expand(weights.shape) for part in (whole, fraction))
            return _delayed_linear(past, weights, whole, fraction, steps, self.remembered)
        return linear(_delayed(past, whole, fraction, steps, self.remembered), weights)

    def _steps_at_once(self, whole: torch.Tensor) -> int:
        """Return the shortest delay in steps."""
        if not can_be_looked_at(whole):
            low = getattr(self.delays.constraint("delay"), "low", self.dt)
            return max(1, math.floor((1 + ROUNDING) * low / self.dt))
        return int(whole.min())

    def _start(self, x: torch.Tensor, state) -> tuple[Any, DelayedRecurrentState]:
        """Check the input; return the neuron parameters and the given state, checked, or the initial one."""
        p = self.p.values()
        self._check_input(x)
        shape, past = (x.shape[-2], self.hidden_size), (x.shape[-2], self.remembered, self.hidden_size)
        if state is None:
            neurons = self._at_rest(self._state_without_recurrence(None), p, shape, x)
            return p, DelayedRecurrentState(torch.zeros(past, dtype=x.dtype, device=x.device), neurons)
        if not isinstance(state, DelayedRecurrentState):
            raise TypeError(f"state: expected DelayedRecurrentState or None, got {type(state).__name__}")
        check_state(DelayState(state.z), DelayState, past, x)
        check_state(state.neurons, self._state_without_recurrence(state.neurons), shape, x)
        return p, state

    def _compute(self, x: torch.Tensor, state) -> tuple[torch.Tensor, Any]:
        p, (past, neurons) = self._start(x, state)
        whole, fraction = self.delays.steps()
        weights, past, outputs = self.effective_recurrent_weights(), past.transpose(0, 1), []
        for currents in kernels.input_currents(x, self.input_weights, self.kernel).split(self._steps_at_once(whole)):
            currents = currents + self._arriving(past, weights, whole, fraction, currents.shape[0])
            if self._exact:
                z, neurons = adjoint.lif(currents, neurons, p, self.dt, self.kernel)
            else:
                how = self.detach_reset, self.kernel
                z, neurons = kernels.sequence(self.neuron, currents, neurons, p, self.dt, *how)
            outputs.append(z)
            past = torch.cat([past, z])[len(z) :]
        return torch.cat(outputs), DelayedRecurrentState(_batch_first(past), neurons)

    def extra_repr(self) -> str:
        """Show the sizes, whether autapses are allowed, the longest delay and the time step."""
        return f"{super().extra_repr()}, max_delay={self.max_delay:g}, per_synapse={self.per_synapse}"
