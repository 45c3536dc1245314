"""Whole sequences as modules: `LIF`, `LIFRecurrent` and `LI`.

A layer does for every time step what the cell of that name does for one, with the same numbers. Time is the
first axis. The whole sequence is computed at once, by the kernel for the device: see `snnparams.kernels`. Explained
in chapter 4.
"""

from __future__ import annotations

import torch

from snnparams import adjoint, kernels
from snnparams.dynamics import LIFFeedForwardState, LIFState, LIState
from snnparams.parameters import LIFParameters, LIParameters
from snnparams.population import FeedForward, Recurrent, in_own_type


class LIF(FeedForward):
    """A LIF population without recurrence over a whole sequence.

    Args:
        p: neuron parameters, broadcast against the input's shape without T and B; defaults as in
            `LIFParameters`.
        dt: time step in s.
        detach_reset: treat the spike as a constant in the reset; False as in Norse.
        kernel: how the sequence is computed, "reference", "cpu" or "triton"; None for the fastest that takes the input.
            See `snnparams.kernels`.
        device: device of fixed and new parameters.
        dtype: their floating-point type.
        size: number of neurons, or shape of the input without T and B, for parameters that are drawn or learned one per
            neuron.

    Called with input currents of shape (T, B, ...) and optionally a `LIFFeedForwardState`, it returns the spikes,
    of the same shape, and the state after the last step. A NaN in the input makes a membrane NaN, which does not spike.

    Raises:
        ValueError: on building, if a parameter is invalid; on calling, if shapes, batch or device do not fit.
        TypeError: if floating-point types differ, or the input is an integer or complex tensor.
    """

    def __init__(
        self,
        p: LIFParameters | None = None,
        dt: float = 0.001,
        detach_reset: bool = False,
        device=None,
        dtype=None,
        kernel: str | None = None,
        *,
        size: int | tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(p, LIFParameters, dt, device, dtype, size)
        self.detach_reset = detach_reset
        self.kernel = kernels.check_kernel(kernel)
        adjoint.check(self.p, kernel, detach_reset)

    @in_own_type
    def forward(
        self, input_current: torch.Tensor, state: LIFFeedForwardState | None = None
    ) -> tuple[torch.Tensor, LIFFeedForwardState]:
        """Return spikes (T, B, ...) and the state after the last step."""
        if self.p.method == "adjoint":
            p, start = self._start(input_current, "(T, B, ...)", state, adjoint.state_of(state))
            return adjoint.lif(input_current, start, p, self.dt, self.kernel)
        p, state = self._start(input_current, "(T, B, ...)", state, LIFFeedForwardState)
        return kernels.lif(input_current, state, p, self.dt, self.detach_reset, self.kernel)


class LIFRecurrent(Recurrent):
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
        detach_reset: treat the spike as a constant in the reset; True as in Norse. Not used by `method="adjoint"`.
        device: device of fixed parameters and new weights.
        dtype: their floating-point type.
        kernel: how the sequence is computed, "reference", "cpu" or "triton"; None for the fastest that takes the input.
            See `snnparams.kernels`.

    Called with spikes of shape (T, B, I), dense or in the sparse COO layout, and optionally a `LIFState`, it
    returns the spikes, of shape (T, B, H), and the state after the last step. A NaN in the input makes a membrane NaN,
    which does not spike.

    Raises:
        ValueError: on building, if a size, weight or parameter is invalid, or given recurrent weights have
            autapses that are not allowed; on calling, if shapes, batch or device do not fit.
        TypeError: if floating-point types differ, or the input is an integer or complex tensor.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        p: LIFParameters | None = None,
        input_weights: torch.Tensor | None = None,
        recurrent_weights: torch.Tensor | None = None,
        autapses: bool = False,
        dt: float = 0.001,
        detach_reset: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        kernel: str | None = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, p, input_weights, recurrent_weights, autapses, dt, detach_reset, device, dtype
        )
        self.kernel = kernels.check_kernel(kernel)
        adjoint.check(self.p, kernel)

    @in_own_type
    def forward(self, input_spikes: torch.Tensor, state: LIFState | None = None) -> tuple[torch.Tensor, LIFState]:
        """Return spikes (T, B, H) and the state after the last step."""
        p, state = self._start(input_spikes, "(T, B, I)", state)
        currents = kernels.input_currents(input_spikes, self.input_weights, self.kernel)
        weights = self.effective_recurrent_weights()
        if p.method == "adjoint":
            return adjoint.lif_recurrent(currents, state, weights, p, self.dt, self.kernel)
        return kernels.lif_recurrent(currents, state, weights, p, self.dt, self.detach_reset, self.kernel)


class LI(FeedForward):
    """A leaky integrator over a whole sequence: a readout that turns spikes into voltages.

    Args:
        p: parameters, broadcast against the input's shape without T and B; defaults as in `LIParameters`.
        dt: time step in s.
        kernel: how the sequence is computed, "reference", "cpu" or "triton"; None for the fastest that takes the input.
            See `snnparams.kernels`.
        device: device of fixed and new parameters.
        dtype: their floating-point type.
        size: number of neurons, or shape of the input without T and B, for parameters that are drawn or learned one per
            neuron.

    Called with input currents of shape (T, B, ...) and optionally a `LIState`, it returns the voltages, of the
    same shape, and the state after the last step.

    Raises:
        ValueError: on building, if a parameter is invalid; on calling, if shapes, batch or device do not fit.
        TypeError: if floating-point types differ, or the input is an integer or complex tensor.
    """

    def __init__(
        self,
        p: LIParameters | None = None,
        dt: float = 0.001,
        device=None,
        dtype=None,
        kernel: str | None = None,
        *,
        size: int | tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(p, LIParameters, dt, device, dtype, size)
        self.kernel = kernels.check_kernel(kernel)

    @in_own_type
    def forward(self, input_current: torch.Tensor, state: LIState | None = None) -> tuple[torch.Tensor, LIState]:
        """Return voltages (T, B, ...) and the state after the last step."""
        p, state = self._start(input_current, "(T, B, ...)", state, LIState)
        return kernels.li(input_current, state, p, self.dt, self.kernel)
