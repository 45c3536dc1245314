r"""A whole sequence as one operator of PyTorch, with its derivative: what the fused kernels share.

The operator does for all steps what `snnparams.dynamics` does for one. Shapes: E networks of one shape (a single one
is E = 1), T steps, B rows (the batch), N neurons.

============================================  ============  ====================================================
`x`                                           (E, T, B, N)  input currents
`v_0`, `i_0`                                  (E, B, N)     state before the first step
`w`                                           (E, N, N)     recurrent weights, or None
`a`, `b`                                      (E, N)        :math:`\Delta t / \tau_\mathrm{mem}`,
                                                            :math:`\Delta t / \tau_\mathrm{syn}`
`v_leak`, `v_th`, `v_reset`                   (E, N)
`z`, `v_pre`, `i_pre`                         (E, T, B, N)  spikes; voltage and current before reset and decay
`v`, `i`                                      (E, B, N)     state after the last step
============================================  ============  ====================================================

The voltages `v_pre` and currents `i_pre` are all that the backward pass needs: eight bytes per neuron and step
in float32. The operators have a rule for `torch.vmap`; there is no second derivative.
"""

from __future__ import annotations

import importlib

import torch
from torch import Tensor

BACKENDS = {"cpu": "snnparams.kernels.cpu", "sparse": "snnparams.kernels.sparse", "triton": "snnparams.kernels.gpu"}


def _backend(name: str):
    return importlib.import_module(BACKENDS[name])


@torch.library.custom_op("snnparams::lif", mutates_args=())
def lif(
    x: Tensor, v_0: Tensor, i_0: Tensor, w: Tensor | None, a: Tensor, b: Tensor, v_leak: Tensor, v_th: Tensor,
    v_reset: Tensor, method: str, alpha: float, detach_reset: bool, keep: bool, backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return z, v, i, v_pre and i_pre; the last two are empty unless `keep`."""
    given = [None if t is None else t.detach().contiguous() for t in (x, v_0, i_0, w, a, b, v_leak, v_th, v_reset)]
    return _backend(backend).lif_forward(*given, method, alpha, keep)


@lif.register_fake
def _(x, v_0, i_0, w, a, b, v_leak, v_th, v_reset, method, alpha, detach_reset, keep, backend):
    kept = x.shape if keep else (x.shape[0], 0, 0, 0)
    shapes = (x.shape, v_0.shape, i_0.shape, kept, kept)
    return tuple(x.new_empty(shape) for shape in shapes)


@torch.library.custom_op("snnparams::lif_backward", mutates_args=())
def lif_backward(
    grad_z: Tensor | None, grad_v_pre: Tensor | None, grad_v: Tensor, grad_i: Tensor, v_pre: Tensor, i_pre: Tensor,
    v_0: Tensor, w: Tensor | None, a: Tensor, b: Tensor, v_leak: Tensor, v_th: Tensor, v_reset: Tensor,
    method: str, alpha: float, detach_reset: bool, with_p: bool, with_w: bool, backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients by x, v_0, i_0, w (empty unless `with_w`) and the neuron parameters (E, 5, N)."""
    tensors = (grad_z, grad_v_pre, grad_v, grad_i, v_pre, i_pre, v_0, w, a, b, v_leak, v_th, v_reset)
    given = [None if t is None else t.detach().contiguous() for t in tensors]
    return _backend(backend).lif_backward(*given, method, alpha, detach_reset, with_p, with_w)


@lif_backward.register_fake
def _(
    grad_z, grad_v_pre, grad_v, grad_i, v_pre, i_pre, v_0, w, a, b, v_leak, v_th, v_reset,
    method, alpha, detach_reset, with_p, with_w, backend,
):  # fmt: skip
    members, _, _, neurons = v_pre.shape
    weights = (members, neurons, neurons) if with_w else (members, 0, 0)
    shapes = (v_pre.shape, grad_v.shape, grad_i.shape, weights, (members, 5, neurons))
    return tuple(v_pre.new_empty(shape) for shape in shapes)


def _setup_context(ctx, inputs, output) -> None:
    _, v_0, _, w, a, b, v_leak, v_th, v_reset, *ctx.how, _, ctx.backend = inputs
    _, _, _, v_pre, i_pre = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(i_pre)
    ctx.save_for_backward(v_0, w, a, b, v_leak, v_th, v_reset, v_pre, i_pre)


def _backward(ctx, grad_z, grad_v, grad_i, grad_v_pre, _):
    v_0, w, a, b, v_leak, v_th, v_reset, v_pre, i_pre = ctx.saved_tensors
    needed = ctx.needs_input_grad
    with_w, with_p = w is not None and needed[3], any(needed[4:9])
    grad_v, grad_i = (torch.zeros_like(v_0) if g is None else g for g in (grad_v, grad_i))
    grad_x, grad_v, grad_i, grad_w, grad_p = lif_backward(
        grad_z, grad_v_pre, grad_v, grad_i, v_pre, i_pre, v_0, w, a, b, v_leak, v_th, v_reset,
        *ctx.how, with_p, with_w, ctx.backend,
    )  # fmt: skip
    of_parameters = grad_p.unbind(dim=-2) if with_p else [None] * 5
    return grad_x, grad_v, grad_i, grad_w if with_w else None, *of_parameters, *[None] * 5


lif.register_autograd(_backward, setup_context=_setup_context)


def _vectorised(operator):
    """Return the rule of `torch.vmap`: the new axis joins that of the networks."""

    def rule(info, in_dims, *args):
        def join(value, dim):
            if not isinstance(value, Tensor):
                return value
            value = value.expand(info.batch_size, *value.shape) if dim is None else value.movedim(dim, 0)
            return value.flatten(0, 1)

        out = operator(*(join(value, dim) for value, dim in zip(args, in_dims, strict=True)))
        return tuple(t.unflatten(0, (info.batch_size, -1)) for t in out), (0,) * len(out)

    return rule


for operator in (lif, lif_backward):
    operator.register_vmap(_vectorised(operator))


def compressed(spikes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a coalesced sparse COO tensor (T, B, I) on a CPU as T * B compressed rows: starts, columns, values."""
    return _backend("sparse").compress(spikes)


def encode(x: Tensor, steps: int, a: Tensor, v_leak: Tensor, v_th: Tensor, v_reset: Tensor) -> Tensor:
    """Return the indices (3, spikes) of the spikes that constant currents x (R, N) cause, on a CPU."""
    return _backend("sparse").encode(x, steps, a, v_leak, v_th, v_reset)


def encode_dense(x: Tensor, steps: int, a: Tensor, v_leak: Tensor, v_th: Tensor, v_reset: Tensor) -> Tensor:
    """Return the spikes (T, ...) that constant currents x cause, on a GPU."""
    return _backend("triton").encode(x.detach(), steps, a, v_leak, v_th, v_reset)


@torch.library.custom_op("snnparams::sparse_product", mutates_args=())
def sparse_product(row_start: Tensor, column: Tensor, values: Tensor, weights: Tensor) -> Tensor:
    """Multiply compressed rows (R, I) of spikes with weights (H, I) on a CPU: shape (R, H)."""
    return _backend("sparse").product(row_start, column, values, weights.detach())


@sparse_product.register_fake
def _(row_start, column, values, weights):
    return weights.new_empty(len(row_start) - 1, len(weights))


@torch.library.custom_op("snnparams::sparse_weight_gradient", mutates_args=())
def sparse_weight_gradient(row_start: Tensor, column: Tensor, values: Tensor, grad: Tensor, inputs: int) -> Tensor:
    """Return the gradient (H, I) by the weights."""
    return _backend("sparse").weight_gradient(row_start, column, values, grad.detach(), inputs)


@sparse_weight_gradient.register_fake
def _(row_start, column, values, grad, inputs):
    return grad.new_empty(grad.shape[1], inputs)


def _keep_rows(ctx, inputs, output) -> None:
    *rows, weights = inputs
    ctx.inputs = weights.shape[1]
    ctx.save_for_backward(*rows)


sparse_product.register_autograd(
    lambda ctx, grad: (None, None, None, sparse_weight_gradient(*ctx.saved_tensors, grad, ctx.inputs)),
    setup_context=_keep_rows,
)


def _of_one_input(dims) -> None:
    """Under `torch.vmap`, networks may differ in their weights only."""
    if any(dim is not None for dim in dims):
        raise ValueError("input: expected the same sparse spikes for all networks under vmap, got others for each")


@sparse_product.register_vmap
def _(info, in_dims, row_start, column, values, weights):
    _of_one_input(in_dims[:3])
    weights = weights.movedim(in_dims[3], 0)  # the neurons of all networks are like more neurons of one
    out = sparse_product(row_start, column, values, weights.flatten(0, 1))
    return out.unflatten(1, weights.shape[:2]), 1


@sparse_weight_gradient.register_vmap
def _(info, in_dims, row_start, column, values, grad, inputs):
    _of_one_input(in_dims[:3])
    grad = grad.movedim(in_dims[3], 1)
    out = sparse_weight_gradient(row_start, column, values, grad.flatten(1, 2), inputs)
    return out.unflatten(0, grad.shape[1:]), 0
