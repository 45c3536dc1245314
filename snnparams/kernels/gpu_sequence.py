"""Whole sequences of any neuron on a GPU: the launches of the kernels in `snnparams.kernels.gpu_any_neuron`.

`snnparams.kernels.gpu` says in blocks of what size they work, and what a device must have for them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import triton
from torch import Tensor

from snnparams.kernels import gpu, gpu_any_neuron, gpu_steps
from snnparams.kernels.gpu import BLOCK
from snnparams.neurons.step import PROGRAMS


def _options(step, alpha: float, state: Tensor, p: Tensor, kept: Tensor) -> dict:
    """Return what all kernels are told."""
    sizes = {"S": state.shape[1], "P": p.shape[1], "K": kept.shape[1]}
    return {"STEP": step, "ALPHA": alpha, "enable_fp_fusion": False} | sizes


def sequence_forward(
    x: Tensor, state: Tensor, w: Tensor | None, p: Tensor, name: str, method: str, alpha: float, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the sequence; see `snnparams.kernels.fused_sequence` for shapes."""
    program = PROGRAMS[name]
    members, steps, rows, neurons = x.shape
    out, last = torch.empty_like(x), state.clone()
    kept = x.new_empty(members, len(program.kept), *x.shape[1:]) if keep else x.new_empty(members, 0, 0, 0, 0)
    if not x.numel():
        return out, last, kept
    options = _options(gpu_steps.forward(name, method), alpha, state, p, kept)

    def without_recurrence(device):
        given = x, state, p, out, last, kept, steps, rows * neurons, neurons
        programs = members * triton.cdiv(rows * neurons, BLOCK)
        yield gpu_any_neuron.forward, programs, given, options | {"BLOCK": BLOCK}

    def with_recurrence(device):
        sizes = steps, rows, neurons
        for how in gpu.arrangements_for(device, x):
            programs = members * triton.cdiv(rows, how.rows)
            if how.path == "on chip":
                given = x, state, w, p, out, last, kept, *sizes
                yield gpu_any_neuron.recurrent_forward, programs, given, options | how.options()
            else:
                given = x, w.mT.contiguous(), p, out, last, kept, *sizes
                yield gpu_any_neuron.tiled_forward, programs, given, options | how.options()

    gpu.launch(x, without_recurrence if w is None else with_recurrence)
    return out, last, kept


def sequence_backward(
    grad_out: Tensor | None, grad_state: Tensor, kept: Tensor, w: Tensor | None, p: Tensor, name: str, method: str,
    alpha: float, detach_reset: bool, with_p: bool, with_w: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Compute the gradients; see `snnparams.kernels.fused_sequence` for shapes."""
    step = gpu_steps.backward(name, method, detach_reset)
    return go_back(step, alpha, grad_out, grad_state, kept, w, p, with_p, with_w)


def go_back(
    step: Callable, alpha: float, grad_out: Tensor | None, grad_state: Tensor, kept: Tensor, w: Tensor | None,
    p: Tensor, with_p: bool, with_w: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Compute the gradients by a step that goes back, see `snnparams.kernels.gpu_steps.backward`."""
    members, _, steps, rows, neurons = kept.shape
    grad_x, before = kept.new_empty(members, steps, rows, neurons), grad_state.clone()
    grad_w = kept.new_zeros(members, *((neurons, neurons) if with_w else (0, 0)))
    terms = p.shape[1] if with_p else 0
    if not kept.numel():
        return grad_x, before, grad_w, torch.zeros_like(p)
    options = _options(step, alpha, grad_state, p, kept)
    options |= {"TERMS": terms, "WITH_OUT": grad_out is not None}
    given_out = kept if grad_out is None else grad_out  # a pointer that is not read
    with_w = with_w and steps > 1
    out = torch.empty_like(grad_x) if with_w else kept

    def without_recurrence(device):
        given = given_out, grad_state, kept, p, grad_x, before, grad_p, steps, rows * neurons, neurons
        programs = members * triton.cdiv(rows * neurons, BLOCK)
        yield gpu_any_neuron.backward, programs, given, options | {"BLOCK": BLOCK}

    def with_recurrence(device):
        nonlocal grad_p
        sizes = steps, rows, neurons
        for how in gpu.arrangements_for(device, grad_x):
            parts = triton.cdiv(rows, how.rows)
            grad_p = kept.new_zeros(members, parts, terms, neurons)  # of the attempt that is launched; tiles add to it
            more = options | how.options() | {"WITH_W": with_w}
            if how.path == "on chip":
                given = given_out, grad_state, kept, w, p, grad_x, before, grad_p, out, *sizes
                yield gpu_any_neuron.recurrent_backward, members * parts, given, more
            else:
                given = given_out, kept, w, p, grad_x, before, grad_p, out, *sizes
                yield gpu_any_neuron.tiled_backward, members * parts, given, more

    grad_p = kept.new_empty(members, terms, 0 if w is not None else rows, neurons)
    gpu.launch(kept, without_recurrence if w is None else with_recurrence)
    totals = grad_p.sum(dim=2 if w is None else 1)
    if with_w:
        torch.bmm(grad_x[:, 1:].flatten(1, 2).transpose(1, 2), out[:, :-1].flatten(1, 2), out=grad_w)
    return grad_x, before, grad_w, totals if with_p else torch.zeros_like(p)
