"""The adjoint method on a GPU: see `snnparams.kernels.adjoint` for what is computed.

Forward it is the step of every LIF neuron. Going back, the loops are those of any neuron, too, around another step: one
that carries a third number from each step to the one before, the derivative :math:`G` of the loss by the neuron's spike
(what comes from outside and what its own receivers send back), because a spike time asks for
:math:`G_{t + 1} - G_t`. What each step starts from is kept, eight bytes of float32 per neuron and step, instead of
traces at the spikes: a GPU has no lists that grow. The gradients by time constants and leak are summed on the way back,
which gives what the traces give, to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from snnparams.kernels import adjoint, gpu_sequence
from snnparams.kernels.gpu_steps import divide
from snnparams.neurons import LIFParameters

GRAZING, LARGEST = tl.constexpr(adjoint.GRAZING), tl.constexpr(adjoint.LARGEST)


@triton.jit
def step_back(gradient, gradients, kept, p, ALPHA: tl.constexpr):
    """Take the adjoint variables of LIF neurons one step back, see `snnparams.kernels.gpu_steps.backward`.

    `gradients` are those by voltage and current after the step, and G of the step behind; `gradient` is G of this one.
    """
    kind: tl.constexpr = gradient.dtype
    of_v, of_i, following = gradients
    before, i = kept
    a, b, v_leak, v_th, v_reset = p
    fires = before + a * ((v_leak - before) + i) > v_th
    zero = tl.full((), 0.0, kind)
    slope = tl.maximum((v_leak - v_th) + i, zero)
    jump = of_v * (slope + (v_th - v_reset)) - divide(following - gradient, a)
    jump = divide(jump, tl.maximum(slope, tl.full((), GRAZING, kind)))
    largest = tl.full((), LARGEST, kind)
    jump = tl.maximum(jump, -largest, propagate_nan=tl.PropagateNan.ALL)
    jump = tl.minimum(jump, largest, propagate_nan=tl.PropagateNan.ALL)
    jump = tl.where(fires & (before <= v_th), jump, zero)  # what was above the threshold crosses nothing
    of_reset = tl.where(fires, of_v, zero)
    of_v = tl.where(fires, jump, of_v)
    new_i = of_i - b * of_i + a * of_v
    of_p = of_v * ((v_leak - before) + i), -of_i * i, a * of_v, -jump, of_reset
    return new_i, (of_v - a * of_v, new_i, gradient), of_p, fires.to(kind)


def forward(
    x: Tensor, v_0: Tensor, i_0: Tensor, w: Tensor | None, p: Tensor, keep: bool, with_p: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
    """Compute the sequence; see `snnparams.kernels.adjoint` for arguments and shapes. There are no traces."""
    given = x[None], torch.stack([v_0, i_0])[None], None if w is None else w[None], p[None]
    z, (last,), kept = gpu_sequence.sequence_forward(*given, LIFParameters.program, "heaviside", 1.0, keep)
    return z[0], last[0].clone(), last[1].clone(), last.new_empty(4, *v_0.shape), [kept[0]] if keep else []


def backward(
    grad_z: Tensor | None, grad_z_last: Tensor | None, grad_v: Tensor, grad_i: Tensor, last: Tensor,
    spikes: Sequence[Tensor], w: Tensor | None, p: Tensor, steps: int, with_p: bool, with_w: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Compute the gradients; see `snnparams.kernels.adjoint` for arguments and shapes."""
    arrived = torch.zeros_like(grad_v)
    if w is not None:  # what the last spikes cause comes after the last step
        arrived = grad_i @ w
        grad_z = grad_i.new_zeros(steps, *grad_i.shape) if grad_z is None else grad_z.clone()
        grad_z[-1] += arrived
    last_z = arrived if grad_z is None else grad_z[-1]
    following = last_z if grad_z_last is None else grad_z_last + arrived
    how = 1.0, None if grad_z is None else grad_z[None], torch.stack([grad_v, grad_i, following])[None], spikes[0][None]
    grad_x, (of_state,), of_w, of_p = gpu_sequence.go_back(
        step_back, *how, None if w is None else w[None], p[None], with_p, with_w
    )
    return grad_x[0], of_state[0].clone(), of_state[1].clone(), of_w[0], of_p[0]
