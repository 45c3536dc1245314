"""Checks of what enters a cell or layer; each error says what was expected and what came."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from snnparams.parameters.declared import fits


def autocast_is_on(x: torch.Tensor) -> bool:
    """Return whether autocast is on for the device of a tensor."""
    return not x.is_meta and torch.is_autocast_enabled(x.device.type)


def widened(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor of half precision, as autocast makes them, in another type; others as they are."""
    return x.to(dtype) if x.dtype in (torch.bfloat16, torch.float16) else x


def check_input(
    x: torch.Tensor,
    layout: str,
    dtype: torch.dtype,
    device: torch.device,
    features: int | None = None,
    sparse: bool = False,
) -> None:
    """Check an input tensor.

    Args:
        x: the input.
        layout: the expected axes, for instance "(T, B, I)"; an ending ", ..." allows further ones.
        dtype: the expected floating-point type, that of the parameters.
        device: the expected device, that of the parameters.
        features: the expected length of the last axis, or None for any.
        sparse: whether it may be a sparse COO tensor, all of whose axes are sparse.

    Raises:
        TypeError: if `x` is no tensor, of another type, or stored in another way.
        ValueError: if an axis is missing, too many, empty or of another length, or the device differs.
    """
    if not isinstance(x, torch.Tensor):
        both = "; is it the output and the state of a layer? snnparams.Sequential hands on each to where it belongs"
        got = f"{type(x).__name__}{both if isinstance(x, tuple) else ''}"
        raise TypeError(f"input: expected a tensor of shape {layout}, got {got}")
    _check_storage(x, layout, sparse)
    _check_axes(x, layout)
    if features is not None and x.shape[-1] != features:
        raise ValueError(f"input: expected {features} features in shape {layout}, got {tuple(x.shape)}")
    if x.dtype != dtype:
        hint = "call .to() on the input or on the module"
        raise TypeError(f"input: expected {dtype}, the type of the parameters, got {x.dtype}; {hint}")
    if x.device != device:
        raise ValueError(f"input: expected device {device}, that of the parameters, got {x.device}")


def _check_axes(x: torch.Tensor, layout: str) -> None:
    """Check that a tensor has the axes of a layout, none of them empty.

    Raises:
        ValueError: if it has not.
    """
    open_ended, axes = layout.endswith(", ...)"), layout.count(",") + 1
    least = axes - open_ended
    if x.dim() < least or (x.dim() > least and not open_ended):
        raise ValueError(f"input: expected shape {layout}, got {x.dim()} dimensions, {tuple(x.shape)}")
    if 0 in x.shape:
        axis = layout.strip("()").split(", ")[min(list(x.shape).index(0), axes - 1)]
        known = {"T": "at least one time step", "B": "a batch of at least one", "...": "at least one neuron"}
        expected = known.get(axis, f"{axis} > 0")
        raise ValueError(f"input: expected {expected} in shape {layout}, got {tuple(x.shape)}")


def _check_storage(x: torch.Tensor, layout: str, sparse: bool) -> None:
    """Check that a tensor is dense, or where that is allowed sparse in the COO layout.

    Raises:
        TypeError: if it is not.
    """
    if x.layout == torch.strided or (sparse and x.layout == torch.sparse_coo and x.sparse_dim() == x.dim()):
        return
    expected, got = "a dense tensor", str(x.layout)
    if sparse:
        expected += f", or a sparse COO one with all axes of {layout} sparse"
    if x.layout == torch.sparse_coo:
        got += f" with {x.sparse_dim()} sparse axes of {x.dim()}"
    raise TypeError(f"input: expected {expected}, got {got}; use .to_dense()")


def check_state(state: NamedTuple, kind: Any, shape: tuple[int, ...], like: torch.Tensor) -> None:
    """Check a given state.

    Args:
        state: the state.
        kind: the expected class.
        shape: the expected shape of each of its tensors.
        like: the input, for device and type.

    Raises:
        TypeError: if the state is of another class or floating-point type.
        ValueError: if a tensor has another shape or device.
    """
    if not isinstance(state, kind):
        got = type(state).__name__  # other libraries have states of the same names
        got = f"{type(state).__module__}.{got}" if got == kind.__name__ else got
        raise TypeError(f"state: expected {kind.__name__} or None, got {got}")
    for name, value in zip(kind._fields, state, strict=True):
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"state.{name}: expected a tensor, got {type(value).__name__}")
        if tuple(value.shape) != shape:
            raise ValueError(f"state.{name}: expected shape {shape}, got {tuple(value.shape)}")
        if value.device != like.device:
            raise ValueError(f"state.{name}: expected device {like.device}, that of the input, got {value.device}")
        if value.dtype != like.dtype:
            raise TypeError(f"state.{name}: expected {like.dtype}, the type of the input, got {value.dtype}")


def check_module(model: Any) -> None:
    """Check that a model is one.

    Raises:
        TypeError: if it is not.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a module, got {type(model).__name__}")


def check_population(
    names: tuple[str, ...], p, shape: tuple[int, ...], size: int | tuple[int, ...] | None = None
) -> None:
    """Check that the values p of parameters with these names broadcast to the population of an input.

    Args:
        names: of the parameters.
        p: their values.
        shape: of the population.
        size: the shape that it was said to have, if it was; that may have ones.

    Raises:
        ValueError: if a parameter, or the size, has more or other axes than the population.
    """
    for name in names:
        if not fits(own := tuple(getattr(p, name).shape), shape):
            raise ValueError(f"input: expected a population that the values of {name}, {own}, fit, got {shape}")
    if isinstance(size, tuple) and not fits(size, shape):
        raise ValueError(f"input: expected a population of shape {size}, the size of this module, got {shape}")


def check_weights(name: str, weights: torch.Tensor, shape: tuple[int, int]) -> None:
    """Check weights that were given to a recurrent cell or layer.

    Raises:
        TypeError: if they are no floating-point tensor.
        ValueError: if they have another shape or are not finite.
    """
    check_floating(name, weights)
    if tuple(weights.shape) != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {tuple(weights.shape)}")
    check_finite(name, weights)


def check_floating(name: str, values: Any) -> None:
    """Check that values are a floating-point tensor.

    Raises:
        TypeError: if they are not.
    """
    if not isinstance(values, torch.Tensor) or not values.is_floating_point():
        got = values.dtype if isinstance(values, torch.Tensor) else type(values).__name__
        raise TypeError(f"{name}: expected a floating-point tensor, got {got}")


def check_finite(name: str, values: torch.Tensor) -> None:
    """Check that there is no NaN and no infinity, also under `torch.vmap` and `torch.compile`.

    Raises:
        ValueError: with the number of values that are not finite.
        RuntimeError: instead of that under `torch.compile`, which cannot trace what depends on values.
    """
    if torch.compiler.is_compiling():
        check_finite_later(name, values)
    else:
        _Finite.apply(values.detach(), name)


def check_finite_later(name: str, values: torch.Tensor) -> None:
    """Check that there is no NaN and no infinity, on a GPU without making the host wait.

    Raises:
        RuntimeError: if there is; on a GPU when the host next waits for it.
    """
    torch._assert_async(torch.isfinite(values).all(), f"{name}: expected finite values, got some that are not")


class _Finite(torch.autograd.Function):
    """The check of values that exist, which `torch.vmap` reaches by a rule of its own."""

    @staticmethod
    def forward(values: torch.Tensor, name: str) -> torch.Tensor:
        if values.sum().isfinite():  # one pass; a sum may overflow, so that no is no answer
            return values.new_empty(0)
        if count := int((~torch.isfinite(values)).sum()):
            raise ValueError(f"{name}: expected finite values, got {count} that are not")
        return values.new_empty(0)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info, in_dims, values: torch.Tensor, name: str):
        return _Finite.apply(values, name), None
