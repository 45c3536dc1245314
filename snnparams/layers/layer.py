"""Whole sequences as modules: `LIF`, `LIFRecurrent` and `LI`.

A layer does for every time step what the cell of that name does for one, with the same numbers. Time is the
first axis. The whole sequence is computed at once, by the kernel for the device: see `snnparams.kernels`. Explained
in chapter 4.
"""

from __future__ import annotations

from typing import Any

import torch

from snnparams.layers.calls import in_own_type
from snnparams.layers.population import FeedForward, Recurrent
from snnparams.layers.sequences import Lengths
from snnparams.neurons import LIFFeedForwardState, LIFParameters, LIFState, LIParameters, LIState


class Layer(FeedForward):
    """A population of any neuron without recurrence over a whole sequence.

    Arguments, what it returns and raises are those of `LIF`, but for `p`: an object of a class of
    `snnparams.neurons.Neuron`, or of a user's own. The state is `State` of that class.
    """

    layout = "(T, B, ...)"

    @in_own_type
    def forward(
        self, input: torch.Tensor, state: Any = None, lengths: Lengths | None = None
    ) -> tuple[torch.Tensor, Any]:
        """Return the outputs (T, B, ...) and the state after the last step."""
        return self._sequence(input, state, lengths)


class RecurrentLayer(Recurrent):
    """A recurrent population of any neuron over a whole sequence.

    Arguments, what it returns and raises are those of `LIFRecurrent`, but for `p`, which is as in `Layer`. The state is
    `RecurrentState` of its class: the last output z, which the recurrent weights bring back, and the variables.
    """

    layout = "(T, B, I)"

    @in_own_type
    def forward(
        self, input: torch.Tensor, state: Any = None, lengths: Lengths | None = None
    ) -> tuple[torch.Tensor, Any]:
        """Return the outputs (T, B, H) and the state after the last step."""
        return self._sequence(input, state, lengths)


class LIF(Layer):
    """A LIF population without recurrence over a whole sequence.

    Args:
        p: neuron parameters, broadcast against the input's shape without T and B; defaults as in `LIFParameters`. The
            `p` of another cell or layer is used itself: both then have one, and learn it together.
        size: number of neurons, or shape of the input without T and B, for parameters that are drawn or learned one per
            neuron.
        channels: instead of the size, the length C of the axis behind the batch, as after a convolution, for parameters
            that are drawn or learned one per channel: input (T, B, C, ...), values (C,).
        dt: time step in s.
        gradient: how the gradient of the spikes is computed: `Surrogate` with the name of a spike function or one of
            your own, or `Adjoint()`. None for what `p` says in Norse's spelling, `Surrogate("super")` unless it says
            another.
        detach_reset: treat the spike as a constant in the reset. None for Norse's choice, which is False here and True
            with recurrent weights; the adjoint method takes None alone.
        kernel: how the sequence is computed, "reference", "cpu" or "triton"; None for the fastest that takes the input.
            See `snnparams.kernels`.
        chunk: number of steps, or None. With it the backward pass computes every so many steps again, from the state
            before them, which alone is kept, besides the input: the same numbers but for rounding, for the price of a
            second forward pass. Without it, autograd keeps two numbers per neuron and step, 8 bytes in float32. Within
            an `Ensemble` there are no chunks where there is a gradient.
        device: device of fixed and new parameters.
        dtype: their floating-point type.

    Called with input currents of shape (T, B, ...) and optionally a `LIFFeedForwardState`, it returns the spikes,
    of the same shape, and the state after the last step. A NaN in the input makes a membrane NaN, which does not spike.
    Input of type bool or uint8 counts as spikes. A layer that knows the shape of its population, by `size` or by one
    value per neuron, also takes input without the axis of the batch; then output and state have none either. Of
    sequences of different lengths, `lengths` says how many steps of each count, see `snnparams.layers.sequences`.
    `detach_reset`, `kernel` and `chunk` can be assigned later, and are checked then; other arguments are as they were
    built.

    Raises:
        ValueError: on building, if a parameter is invalid, or `p` and `gradient` differ; on calling, if shapes, batch
            or device do not fit.
        TypeError: if floating-point types differ, or the input is of another integer type or complex.
    """

    accepts = LIFParameters

    @in_own_type
    def forward(
        self, input: torch.Tensor, state: LIFFeedForwardState | None = None, lengths: Lengths | None = None
    ) -> tuple[torch.Tensor, LIFFeedForwardState]:
        """Return spikes (T, B, ...) and the state after the last step."""
        return self._sequence(input, state, lengths)


class LIFRecurrent(RecurrentLayer):
    """A recurrent LIF population over a whole sequence.

    Args:
        input_size: number of inputs I.
        hidden_size: number of neurons H.
        p: neuron parameters, scalars or of shape (H,); defaults as in `LIFParameters`.
        input_weights: shape (H, I); normal with variance 2/H if None. A tensor is copied into a learned
            parameter, an `nn.Parameter` is used itself.
        recurrent_weights: shape (H, H), likewise.
        autapses: whether a neuron may connect to itself.
        dt: time step in s.
        gradient: how the gradient of the spikes is computed, as in `LIF`.
        detach_reset: treat the spike as a constant in the reset. None for Norse's choice, which is True here and False
            without recurrent weights; the adjoint method takes None alone.
        kernel: how the sequence is computed, "reference", "cpu" or "triton"; None for the fastest that takes the input.
            See `snnparams.kernels`.
        chunk: steps after which the state is kept, and nothing in between, as in `LIF`. Currents are computed again
            from the input, of any kind.
        device: device of fixed parameters and new weights.
        dtype: their floating-point type.

    Called with spikes of shape (T, B, I), dense or in the sparse COO layout, and optionally a `LIFState`, it
    returns the spikes, of shape (T, B, H), and the state after the last step. A NaN in the input makes a membrane NaN,
    which does not spike. Without a batch, types of spikes and `lengths`: as in `LIF`.

    Raises:
        ValueError: on building, if a size, weight or parameter is invalid, or given recurrent weights have
            autapses that are not allowed; on calling, if shapes, batch or device do not fit.
        TypeError: if floating-point types differ, or the input is of another integer type or complex.
    """

    accepts = LIFParameters

    @in_own_type
    def forward(
        self, input: torch.Tensor, state: LIFState | None = None, lengths: Lengths | None = None
    ) -> tuple[torch.Tensor, LIFState]:
        """Return spikes (T, B, H) and the state after the last step."""
        return self._sequence(input, state, lengths)


class LI(Layer):
    """A leaky integrator over a whole sequence: a readout that turns spikes into voltages.

    Arguments and errors are those of `LIF`, without what belongs to spikes; defaults are as in `LIParameters`.

    Called with input currents of shape (T, B, ...) and optionally a `LIState`, it returns the voltages, of the
    same shape, and the state after the last step.
    """

    accepts = LIParameters

    @in_own_type
    def forward(
        self, input: torch.Tensor, state: LIState | None = None, lengths: Lengths | None = None
    ) -> tuple[torch.Tensor, LIState]:
        """Return voltages (T, B, ...) and the state after the last step."""
        return self._sequence(input, state, lengths)
