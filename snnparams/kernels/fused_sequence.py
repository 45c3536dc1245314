"""A whole sequence of any neuron as one operator of PyTorch, with its derivative.

It does for all steps what `snnparams.neurons.dynamics` does for one. Shapes: E networks of one shape (a single one is
E = 1), T steps, B rows (the batch), N neurons, S variables of the state, P constants and parameters, K = S or, where
the step takes the input current itself, S + 1.

============ ================= ==========================================================================
`x`          (E, T, B, N)      input currents
`state`      (E, S, B, N)      before the first step, and as a result after the last
`w`          (E, N, N)         recurrent weights, or None; before the first step they bring nothing
`p`          (E, P, N)         constants and parameters, in the order of `Program.parameters`
`program`                      the step, by its name in `snnparams.neurons.step.PROGRAMS`
`out`        (E, T, B, N)      outputs
`kept`       (E, K, T, B, N)   what each step starts from, see `Program.kept`: all that the backward pass needs
============ ================= ==========================================================================

There is a rule for `torch.vmap`, by which networks stand side by side.
"""

from __future__ import annotations

import importlib

import torch
from torch import Tensor

from snnparams.kernels.fused import _call, _function, _keep_nothing, _refuse_second_derivative, _vectorised, plain
from snnparams.neurons.step import PROGRAMS

BACKENDS = {"cpu": "snnparams.kernels.cpu", "triton": "snnparams.kernels.gpu_sequence"}


def _backend(name: str):
    return importlib.import_module(BACKENDS[name])


def _sequence(
    x: Tensor, state: Tensor, w: Tensor | None, p: Tensor, program: str, method: str, alpha: float, detach_reset: bool,
    keep: bool, backend: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return out, state and kept; the last is empty unless `keep`."""
    given = [plain(tensor) for tensor in (x, state, w, p)]
    return _backend(backend).sequence_forward(*given, program, method, alpha, keep)


def _sequence_backward(
    grad_out: Tensor | None, grad_state: Tensor, kept: Tensor, w: Tensor | None, p: Tensor, program: str, method: str,
    alpha: float, detach_reset: bool, with_p: bool, with_w: bool, backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients by x, state, w (empty unless `with_w`) and p."""
    given = [plain(tensor) for tensor in (grad_out, grad_state, kept, w, p)]
    how = program, method, alpha, detach_reset, with_p, with_w
    return _backend(backend).sequence_backward(*given, *how)


def _setup_context(ctx, inputs, output) -> None:
    _, state, w, p, *ctx.how, _, ctx.backend = inputs
    out, _, kept = output
    program, method, *_ = ctx.how
    ctx.set_materialize_grads(False)
    # no gradient passes a spike function that has none: the spikes are constants, as in the reference
    constant = [out] if method == "heaviside" and PROGRAMS[program].spikes else []
    ctx.mark_non_differentiable(kept, *constant)
    ctx.save_for_backward(state, w, p, kept)


def _backward_by(run_backward):
    """Return the backward pass of a sequence that calls `run_backward`."""

    def backward(ctx, grad_out, grad_state, _):
        state, w, p, kept = ctx.saved_tensors
        with_w, with_p = w is not None and ctx.needs_input_grad[2], ctx.needs_input_grad[3]
        grad_state = torch.zeros_like(state) if grad_state is None else grad_state
        grad_x, grad_state, grad_w, grad_p = run_backward(
            grad_out, grad_state, kept, w, p, *ctx.how, with_p, with_w, ctx.backend
        )
        return grad_x, grad_state, grad_w if with_w else None, grad_p if with_p else None, *[None] * 6

    return backward


_Backward: type[torch.autograd.Function] = _function(
    _sequence_backward, _keep_nothing, _refuse_second_derivative, _vectorised(lambda *args: _Backward.apply(*args))
)
_Forward: type[torch.autograd.Function] = _function(
    _sequence, _setup_context, _backward_by(_Backward.apply), _vectorised(lambda *args: _Forward.apply(*args))
)
_forward_operator = torch.library.custom_op("snnparams::sequence", _sequence, mutates_args=())
_backward_operator = torch.library.custom_op("snnparams::sequence_backward", _sequence_backward, mutates_args=())
_forward_operator.register_autograd(_backward_by(_backward_operator), setup_context=_setup_context)
for _operator in (_forward_operator, _backward_operator):
    _operator.register_vmap(_vectorised(_operator))


@_forward_operator.register_fake
def _(x, state, w, p, program, method, alpha, detach_reset, keep, backend):
    members, *sizes = x.shape
    kept = (members, len(PROGRAMS[program].kept), *sizes) if keep else (members, 0, 0, 0, 0)
    return tuple(x.new_empty(shape) for shape in (x.shape, state.shape, kept))


@_backward_operator.register_fake
def _(grad_out, grad_state, kept, w, p, program, method, alpha, detach_reset, with_p, with_w, backend):
    members, _, *sizes = kept.shape
    weights = (members, sizes[-1], sizes[-1]) if with_w else (members, 0, 0)
    shapes = (members, *sizes), grad_state.shape, weights, p.shape
    return tuple(kept.new_empty(shape) for shape in shapes)


def sequence(
    x: Tensor, state: Tensor, w: Tensor | None, p: Tensor, program: str, method: str, alpha: float, detach_reset: bool,
    keep: bool, backend: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return out, state and kept, for shapes see above.

    Args:
        x: input currents.
        state: state before the first step.
        w: recurrent weights, or None.
        p: constants and parameters.
        program: name of the step.
        method: name of the spike function.
        alpha: its shape parameter.
        detach_reset: whether no gradient passes the spike in the reset.
        keep: whether there may be a backward pass.
        backend: "cpu" or "triton".

    Raises:
        ValueError: if dtypes differ.
    """
    dtypes = [tensor.dtype for tensor in (x, state, w, p) if tensor is not None]
    if len(set(dtypes)) > 1:  # a kernel reads all memory as what x is
        raise ValueError(f"expected one dtype of x, state, w and p, got {', '.join(map(str, dtypes))}")
    how = program, method, alpha, detach_reset, keep, backend
    return _call(_Forward, _forward_operator, x, state, w, p, *how)
