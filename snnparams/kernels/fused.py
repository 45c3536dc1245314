r"""A whole sequence of LIF neurons on a GPU as one operator of PyTorch, and what all fused kernels share.

The operator does for all steps what `snnparams.neurons.dynamics` does for one. Shapes: E networks of one shape (a
single one is E = 1), T steps, B rows (the batch), N neurons.

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
in float32. There is a rule for `torch.vmap`, and none for second or forward-mode derivatives, which are refused.

`torch.compile` sees operators that it does not look into (`torch.library.custom_op`). Elsewhere the same functions are
called through `torch.autograd.Function`, which costs less and knows the transforms of `torch.func`.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

BACKENDS = {"sparse": "snnparams.kernels.sparse", "triton": "snnparams.kernels.gpu"}
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


# ------------------------------------------------------------------------------------------------- whole sequences


def _run_forward(
    x: Tensor, v_0: Tensor, i_0: Tensor, w: Tensor | None, a: Tensor, b: Tensor, v_leak: Tensor, v_th: Tensor,
    v_reset: Tensor, method: str, alpha: float, detach_reset: bool, keep: bool, backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return z, v, i, v_pre and i_pre; the last two are empty unless `keep`."""
    given = [plain(tensor) for tensor in (x, v_0, i_0, w, a, b, v_leak, v_th, v_reset)]
    return _backend(backend).lif_forward(*given, method, alpha, keep)


def _run_backward(
    grad_z: Tensor | None, grad_v_pre: Tensor | None, grad_v: Tensor, grad_i: Tensor, v_pre: Tensor, i_pre: Tensor,
    v_0: Tensor, w: Tensor | None, a: Tensor, b: Tensor, v_leak: Tensor, v_th: Tensor, v_reset: Tensor,
    method: str, alpha: float, detach_reset: bool, with_p: bool, with_w: bool, backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients by x, v_0, i_0, w (empty unless `with_w`) and the neuron parameters (E, 5, N)."""
    tensors = (grad_z, grad_v_pre, grad_v, grad_i, v_pre, i_pre, v_0, w, a, b, v_leak, v_th, v_reset)
    given = [plain(tensor) for tensor in tensors]
    return _backend(backend).lif_backward(*given, method, alpha, detach_reset, with_p, with_w)


def _setup_context(ctx, inputs, output) -> None:
    _, v_0, _, w, a, b, v_leak, v_th, v_reset, *ctx.how, _, ctx.backend = inputs
    z, _, _, v_pre, i_pre = output
    ctx.set_materialize_grads(False)
    # no gradient passes a spike function that has none: the spikes are constants, as in the reference
    ctx.mark_non_differentiable(i_pre, *([z] if ctx.how[0] == "heaviside" else []))
    ctx.save_for_backward(v_0, w, a, b, v_leak, v_th, v_reset, v_pre, i_pre)


def _backward_by(run_backward):
    """Return the backward pass of a sequence that calls `run_backward`."""

    def backward(ctx, grad_z, grad_v, grad_i, grad_v_pre, _):
        v_0, w, a, b, v_leak, v_th, v_reset, v_pre, i_pre = ctx.saved_tensors
        needed = ctx.needs_input_grad
        with_w, with_p = w is not None and needed[3], any(needed[4:9])
        grad_v, grad_i = (torch.zeros_like(v_0) if g is None else g for g in (grad_v, grad_i))
        grad_x, grad_v, grad_i, grad_w, grad_p = run_backward(
            grad_z, grad_v_pre, grad_v, grad_i, v_pre, i_pre, v_0, w, a, b, v_leak, v_th, v_reset,
            *ctx.how, with_p, with_w, ctx.backend,
        )  # fmt: skip
        of_parameters = grad_p.unbind(dim=-2) if with_p else [None] * 5
        return grad_x, grad_v, grad_i, grad_w if with_w else None, *of_parameters, *[None] * 5

    return backward


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


_Backward: type[torch.autograd.Function] = _function(
    _run_backward, _keep_nothing, _refuse_second_derivative, _vectorised(lambda *args: _Backward.apply(*args))
)
_Forward: type[torch.autograd.Function] = _function(
    _run_forward, _setup_context, _backward_by(_Backward.apply), _vectorised(lambda *args: _Forward.apply(*args))
)
_forward_operator = torch.library.custom_op("snnparams::lif", _run_forward, mutates_args=())
_backward_operator = torch.library.custom_op("snnparams::lif_backward", _run_backward, mutates_args=())
_forward_operator.register_autograd(_backward_by(_backward_operator), setup_context=_setup_context)
for _operator in (_forward_operator, _backward_operator):
    _operator.register_vmap(_vectorised(_operator))


@_forward_operator.register_fake
def _(x, v_0, i_0, w, a, b, v_leak, v_th, v_reset, method, alpha, detach_reset, keep, backend):
    kept = x.shape if keep else (x.shape[0], 0, 0, 0)
    shapes = (x.shape, v_0.shape, i_0.shape, kept, kept)
    return tuple(x.new_empty(shape) for shape in shapes)


@_backward_operator.register_fake
def _(
    grad_z, grad_v_pre, grad_v, grad_i, v_pre, i_pre, v_0, w, a, b, v_leak, v_th, v_reset,
    method, alpha, detach_reset, with_p, with_w, backend,
):  # fmt: skip
    members, _, _, neurons = v_pre.shape
    weights = (members, neurons, neurons) if with_w else (members, 0, 0)
    shapes = (v_pre.shape, grad_v.shape, grad_i.shape, weights, (members, 5, neurons))
    return tuple(v_pre.new_empty(shape) for shape in shapes)


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


def lif(x, v_0, i_0, w, a, b, v_leak, v_th, v_reset, method, alpha, detach_reset, keep, backend):
    """Return z, v, i, v_pre and i_pre, for shapes see above; the last two are empty unless `keep`.

    `backend` is "triton"; `keep` says whether there may be a backward pass.
    """
    how = method, alpha, detach_reset, keep, backend
    return _call(_Forward, _forward_operator, x, v_0, i_0, w, a, b, v_leak, v_th, v_reset, *how)


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
    return _backend("sparse").encode(plain(x), steps, *map(plain, parameters))


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
