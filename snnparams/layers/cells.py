"""One time step as modules: `LIFCell`, `LIFRecurrentCell` and `LICell`.

A cell owns its neuron parameters as `cell.p`, a `NeuronParameters` module. Names and arguments are those of
Norse. Explained in chapters 1 and 3.
"""

from __future__ import annotations

from typing import Any

import torch

from snnparams.layers.calls import in_own_type
from snnparams.layers.neuron_parameters import NeuronParameters
from snnparams.layers.population import FeedForward, Recurrent
from snnparams.neurons import LIFFeedForwardState, LIFParameters, LIFState, LIParameters, LIState, Neuron
from snnparams.neurons.surrogate import Gradient


class Cell(FeedForward):
    """One time step of a population of any neuron without recurrence, see `snnparams.neurons.dynamics.neuron_step`.

    Arguments, what it returns and raises are those of `LIFCell`, but for `p`: an object of a class of
    `snnparams.neurons.Neuron`, or of a user's own. The state is `State` of that class.
    """

    layout = "(B, ...)"

    def __init__(
        self,
        p: Neuron | NeuronParameters | None = None,
        *,
        size: int | tuple[int, ...] | None = None,
        channels: int | None = None,
        dt: float = 0.001,
        gradient: Gradient | None = None,
        detach_reset: bool | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        how: dict[str, Any] = {"gradient": gradient, "detach_reset": detach_reset, "device": device, "dtype": dtype}
        super().__init__(p, size=size, channels=channels, dt=dt, **how)

    @in_own_type
    def forward(self, input: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        """Return the output (B, ...) and the new state."""
        return self._step(input, state)


class RecurrentCell(Recurrent):
    """One time step of a recurrent population of any neuron, see `snnparams.neurons.dynamics.neuron_step`.

    Arguments, what it returns and raises are those of `LIFRecurrentCell`, but for `p`, which is as in `Cell`. The state
    is `RecurrentState` of its class: the last output z, which the recurrent weights bring back, and the variables.
    """

    layout = "(B, I)"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        p: Neuron | NeuronParameters | None = None,
        *,
        input_weights: torch.Tensor | None = None,
        recurrent_weights: torch.Tensor | None = None,
        autapses: bool = False,
        dt: float = 0.001,
        gradient: Gradient | None = None,
        detach_reset: bool | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        how: dict[str, Any] = {"gradient": gradient, "detach_reset": detach_reset, "device": device, "dtype": dtype}
        weights: dict[str, Any] = {"input_weights": input_weights, "recurrent_weights": recurrent_weights}
        super().__init__(input_size, hidden_size, p, **weights, autapses=autapses, dt=dt, **how)

    @in_own_type
    def forward(self, input: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        """Return the output (B, H) and the new state."""
        return self._step(input, state)


class LIFCell(Cell):
    """One time step of a LIF population without recurrence, see `snnparams.lif_feed_forward_step`.

    Arguments and errors are those of `snnparams.LIF`, without the kernel; `size` is the shape of the input without B.

    Called with an input current of shape (B, ...) and optionally a `LIFFeedForwardState`, it returns the spikes,
    of the same shape, and the new state. Without a state it starts at the leak voltage, with no current.
    """

    accepts = LIFParameters

    @in_own_type
    def forward(
        self, input: torch.Tensor, state: LIFFeedForwardState | None = None
    ) -> tuple[torch.Tensor, LIFFeedForwardState]:
        """Return spikes (B, ...) and the new state."""
        return self._step(input, state)


class LIFRecurrentCell(RecurrentCell):
    """One time step of a recurrent LIF population, see `snnparams.lif_step`.

    Arguments and errors are those of `snnparams.LIFRecurrent`, without the kernel.

    Called with spikes of shape (B, I) and optionally a `LIFState`, it returns the spikes, of shape (B, H), and
    the new state. Without a state it starts at the leak voltage, with no current and no spikes.
    """

    accepts = LIFParameters

    @in_own_type
    def forward(self, input: torch.Tensor, state: LIFState | None = None) -> tuple[torch.Tensor, LIFState]:
        """Return spikes (B, H) and the new state."""
        return self._step(input, state)


class LICell(Cell):
    """One time step of a leaky integrator, see `snnparams.li_feed_forward_step`.

    Arguments and errors are those of `LIFCell`, without what belongs to spikes; defaults are as in `LIParameters`.

    Called with an input current of shape (B, ...) and optionally a `LIState`, it returns the voltages, of the
    same shape, and the new state. Without a state it starts at the leak voltage, with no current.
    """

    accepts = LIParameters

    @in_own_type
    def forward(self, input: torch.Tensor, state: LIState | None = None) -> tuple[torch.Tensor, LIState]:
        """Return voltages (B, ...) and the new state."""
        return self._step(input, state)
