"""What all fused kernels share as operators of PyTorch, and those of sparse spikes and of encoders.

`torch.compile` sees operators that it does not look into (`torch.library.custom_op`). Elsewhere the same functions are
called through `torch.autograd.Function`, which costs less and knows the transforms of `torch.func`. There are no second
or forward-mode derivatives, which are refused.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

BACKENDS = {"sparse": "snnparams.kernels.sparse", "triton": "snnparams.kernels.gpu_encoder"}
REFERENCE = "use kernel='reference', which has all derivatives"


def _backend(name: str):
    return importlib.import_module(BACKENDS[name])


def plain(tensor: Tensor | None) -> Tensor | None:
    """Return a tensor whose numbers lie in memory one after the other, as kernels read them."""
    return None if tensor is None else tensor.detach().resolve_neg().contiguous()


def _refuse_forward_mode(*_):
    raise NotImplementedError(f"forward-mode derivative: a fused kernel has none; {REFERENCE}")


def _refuse_second_derivative(*_):
    raise NotImplementedError(f"second derivative: a fused kernel has none; {REFERENCE}")


def _function(forward, setup_context, backward, vmap, jvp=_refuse_forward_mode):
    """Return a `torch.autograd.Function` made of these functions."""
    setattr(forward, "__signature__", inspect.signature(forward))  # noqa: B010 PyTorch asks for it at every call
    parts = {"forward": forward, "setup_context": setup_context, "backward": backward, "vmap": vmap, "jvp": jvp}
    name = forward.__name__.strip("_")
    return type(name, (torch.autograd.Function,), {key: staticmethod(part) for key, part in parts.items()})


def _keep_nothing(ctx, inputs, output) -> None:
    """Remember nothing: there is no further derivative."""


def _constants(ctx, inputs, output) -> None:
    """Mark what depends on inputs by steps only, or has no gradient for another reason."""
    ctx.mark_non_differentiable(*(output if isinstance(output, tuple) else (output,)))


_untraced: Any = torch._disable_dynamo


def _vectorised(run):
    """Return the rule of `torch.vmap`: the new axis joins that of the networks."""

    def rule(info, in_dims, *args):
        def join(value, dim):
            if not isinstance(value, Tensor):
                return value
            value = value.expand(info.batch_size, *value.shape) if dim is None else value.movedim(dim, 0)
            return value.flatten(0, 1)

        out = run(*(join(value, dim) for value, dim in zip(args, in_dims, strict=True)))
        return tuple(t.unflatten(0, (info.batch_size, -1)) for t in out), (0,) * len(out)

    # Where torch.compile leaves a transform to be run without it, it would still trace this function, into itself until
    # the stack is full. torch.compiler.disable would import the compiler here, this does so at the first call.
    return _untraced(rule)


def _call(function, operator, *args):
    """Call the operator under `torch.compile`, and elsewhere the function."""
    if not torch.compiler.is_compiling():
        return function.apply(*args)
    if forward_ad._current_level >= 0:  # an operator would drop the derivative without a word
        _refuse_forward_mode()
    # Within a transform of torch.func an operator has no gradient. There this is no None, which torch.compile cannot
    # trace, so that it leaves the whole transform to be run without it.
    if torch._C._functorch.maybe_current_level() is not None:
        return function.apply(*args)
    return operator(*args)


# ---------------------------------------------------------------------------------------------------- sparse spikes


def compressed(spikes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a sparse COO tensor (T, B, I) on a CPU as T * B compressed rows: starts, columns, values.

    They are copies: what happens to the tensor later does not change a gradient.

    Raises:
        ValueError: if the indices lie outside of the tensor or are not in order, although it says that they are.
    """
    return _Compress.apply(spikes)


def _run_compress(spikes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _backend("sparse").compress(spikes.coalesce())


def encode(x: Tensor, steps: int, a: Tensor, v_leak: Tensor, v_th: Tensor, v_reset: Tensor) -> Tensor:
    """Return the indices (3, spikes) of the spikes that constant currents x (R, N) cause, on a CPU."""
    return _Encode.apply(x, steps, a, v_leak, v_th, v_reset)


def _run_encode(x, steps, *parameters):
    return _backend("sparse").encode(plain(x), steps, *(t.detach().resolve_neg() for t in parameters))


def encode_dense(x: Tensor, steps: int, a: Tensor, v_leak: Tensor, v_th: Tensor, v_reset: Tensor) -> Tensor:
    """Return the spikes (T, ...) that constant currents x cause, on a GPU; all arguments have its shape."""
    return _EncodeDense.apply(x, steps, a, v_leak, v_th, v_reset)


def _run_encode_dense(x, steps, *parameters):
    return _backend("triton").encode(plain(x), steps, *map(plain, parameters))


def _no_gradient(ctx, *_):
    return (None,) * len(ctx.needs_input_grad)


def _no_tangent(ctx, *_):
    raise NotImplementedError("forward-mode derivative: sparse spikes have none; use dense ones, layout=torch.strided")


def _sparse_each(info, in_dims, *_):
    raise ValueError("layout: expected dense spikes under torch.vmap, got sparse ones; use layout=torch.strided")


def _encode_dense_each(info, in_dims, x, steps, *parameters):
    """Apply the rule of `torch.vmap`: the new axis is one more of the values."""
    dims = in_dims[0], *in_dims[2:]
    given = [t[None] if dim is None else t.movedim(dim, 0) for t, dim in zip((x, *parameters), dims, strict=True)]
    x, *parameters = torch.broadcast_tensors(*given)
    return _EncodeDense.apply(x, steps, *parameters), 1


_Compress = _function(_run_compress, _constants, _no_gradient, _sparse_each, _no_tangent)
_Encode = _function(_run_encode, _constants, _no_gradient, _sparse_each, _no_tangent)
_EncodeDense: type[torch.autograd.Function] = _function(
    _run_encode_dense, _constants, _no_gradient, _encode_dense_each, _no_tangent
)


def _run_product(row_start: Tensor, column: Tensor, values: Tensor, weights: Tensor) -> Tensor:
    """Multiply compressed rows (R, I) with weights (H, I): shape (R, H)."""
    return _backend("sparse").product(row_start, column, values, plain(weights))


def _run_weight_gradient(row_start: Tensor, column: Tensor, values: Tensor, grad: Tensor, inputs: int) -> Tensor:
    """Return the gradient (H, I) of the product by the weights, from that by the result (R, H)."""
    return _backend("sparse").weight_gradient(row_start, column, values, plain(grad), inputs)


def _keep_rows(ctx, inputs, output) -> None:
    rows = inputs[:3]
    ctx.inputs = inputs[4] if len(inputs) == 5 else inputs[3].shape[1]
    ctx.save_for_backward(*rows)
    ctx.save_for_forward(*rows)


def _of_one_input(dims) -> None:
    """Under `torch.vmap`, networks may differ in their weights only."""
    if any(dim is not None for dim in dims):
        raise ValueError("input: expected the same sparse spikes for all networks under vmap, got others for each")


def _vectorised_product(run):
    def rule(info, in_dims, row_start, column, values, weights):
        _of_one_input(in_dims[:3])
        weights = weights.movedim(in_dims[3], 0)  # the neurons of all networks are like more neurons of one
        out = run(row_start, column, values, weights.flatten(0, 1))
        return out.unflatten(1, weights.shape[:2]), 1

    return rule


def _vectorised_gradient(run):
    def rule(info, in_dims, row_start, column, values, grad, inputs):
        _of_one_input(in_dims[:3])
        grad = grad.movedim(in_dims[3], 1)
        out = run(row_start, column, values, grad.flatten(1, 2), inputs)
        return out.unflatten(0, grad.shape[1:]), 0

    return rule


def _product_backward_by(run_weight_gradient):
    return lambda ctx, grad: (None, None, None, run_weight_gradient(*ctx.saved_tensors, grad, ctx.inputs))


# both are linear in the tensor that they take besides the rows, so each is the derivative of the other
_Product: type[torch.autograd.Function] = _function(
    _run_product,
    _keep_rows,
    _product_backward_by(lambda *args: _WeightGradient.apply(*args)),
    _vectorised_product(lambda *args: _Product.apply(*args)),
    lambda ctx, _start, _column, _values, weights: _Product.apply(*ctx.saved_tensors, weights),
)
_WeightGradient: type[torch.autograd.Function] = _function(
    _run_weight_gradient,
    _keep_rows,
    lambda ctx, grad: (None, None, None, _Product.apply(*ctx.saved_tensors, grad), None),
    _vectorised_gradient(lambda *args: _WeightGradient.apply(*args)),
    lambda ctx, _start, _column, _values, grad, _: _WeightGradient.apply(*ctx.saved_tensors, grad, ctx.inputs),
)
_product_operator = torch.library.custom_op("snnparams::sparse_product", _run_product, mutates_args=())
_gradient_operator = torch.library.custom_op("snnparams::sparse_weight_gradient", _run_weight_gradient, mutates_args=())
_product_operator.register_autograd(_product_backward_by(_gradient_operator), setup_context=_keep_rows)
_product_operator.register_vmap(_vectorised_product(_product_operator))
_gradient_operator.register_vmap(_vectorised_gradient(_gradient_operator))


@_product_operator.register_fake
def _(row_start, column, values, weights):
    return weights.new_empty(len(row_start) - 1, len(weights))


@_gradient_operator.register_fake
def _(row_start, column, values, grad, inputs):
    return grad.new_empty(grad.shape[1], inputs)


def sparse_product(row_start: Tensor, column: Tensor, values: Tensor, weights: Tensor) -> Tensor:
    """Multiply compressed rows (R, I) of spikes, see `compressed`, with weights (H, I) on a CPU: shape (R, H)."""
    return _call(_Product, _product_operator, row_start, column, values, weights)
