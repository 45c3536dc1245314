"""The times of spikes, as numbers that can be differentiated: see `snnparams.kernels.adjoint`."""

from __future__ import annotations

import math

import torch

from snnparams.kernels.adjoint import refuse
from snnparams.parameters.settings import check_counts, check_dt


class _SpikeTimes(torch.autograd.Function):
    """Times of the first spikes; the gradient is handed to the spikes as a function whose slope it is."""

    generate_vmap_rule = True

    @staticmethod
    def forward(spikes, dt, number, missing):
        counted = spikes.cumsum(dim=0)
        step = torch.stack([(counted < k).sum(dim=0) for k in range(1, number + 1)])
        times = dt * (step + 1).to(spikes.dtype)
        return torch.where(step < len(spikes), times, missing), step

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        spikes, ctx.dt, _, _ = inputs
        ctx.steps = len(spikes)
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx, grad, _):
        (step,) = ctx.saved_tensors
        grad = torch.where(step < ctx.steps, ctx.dt * grad, 0)
        slope = grad.new_zeros(ctx.steps + 2, *grad.shape[1:]).scatter_add_(0, step + 1, grad)
        return slope[: ctx.steps].cumsum(dim=0), None, None, None

    jvp = refuse("forward-mode derivative")


def spike_times(spikes: torch.Tensor, dt: float, number: int = 1, missing: float = math.inf) -> torch.Tensor:
    r"""Return the times of each neuron's first spikes, differentiable by them.

    The spike of step t (from 0) has the time :math:`(t + 1) \Delta t`, the end of its step. Its derivative is right for
    spikes of a layer with `gradient=Adjoint()`, as :math:`\Delta t \to 0`; a surrogate gradient has none.

    Args:
        spikes: 0 or 1, shape (T, ...).
        dt: time step in s.
        number: how many spikes of each neuron, at least 1.
        missing: what stands for a spike that does not happen; no gradient comes from it.

    Returns:
        Times in s, shape (number, ...), in ascending order.

    Raises:
        ValueError: if `number` is not a positive integer, or `dt` not positive and finite.
        TypeError: if the spikes are no floating-point tensor.
    """
    if not isinstance(spikes, torch.Tensor) or not spikes.is_floating_point():
        raise TypeError(f"spikes: expected a floating-point tensor, got {getattr(spikes, 'dtype', type(spikes))}")
    check_counts(number=number)
    return _SpikeTimes.apply(spikes, check_dt(dt), number, missing)[0]
