"""States of cells, layers and whole networks: begin with one, cut its history off, move it, take a part, reset a part.

A state is a named tuple of tensors, such as `LIFState`; that of a `Sequential` is a tuple of the states of its modules,
with `()` for a module that has none. The batch is the first axis of every tensor. All functions return a new state and
leave the given one as it is.
"""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

State = TypeVar("State")


def carries_state(module: nn.Module) -> bool:
    """Return whether a module takes a state and returns its output and the new one: `forward` has an argument `state`.

    So do the cells and layers of this package, `Sequential`, and each module of your own that is written like them.
    """
    module = getattr(module, "_orig_mod", module)  # what torch.compile was given
    return "state" in inspect.signature(module.forward).parameters


def _check(state: Any) -> None:
    for leaf in tree_leaves(state):
        if not isinstance(leaf, torch.Tensor):
            raise TypeError(f"state: expected tensors, or tuples of them, got {type(leaf).__name__}")


def initial(model: nn.Module, input: torch.Tensor) -> Any:
    """Return the state in which a cell, a layer or a `Sequential` begins: voltages at the leak voltage, all else zero.

    Args:
        model: the module. Of a `Sequential`, which has to know the shapes within, the first time step is computed
            without gradient and in evaluation mode.
        input: what the module will be called with, for its shape, type and device.

    Raises:
        TypeError: if the module has no state of a known kind.
        ValueError: if it could not be called with the input.
    """
    begin = getattr(model, "initial_state", None)
    if begin is None:
        expected = "a cell, a layer or a Sequential, or a module with a method initial_state(input)"
        raise TypeError(f"model: expected {expected}, got {type(model).__name__}")
    return begin(input)


def detach(state: State) -> State:
    """Return a state that is cut off from what it was computed from: for truncated backpropagation through time.

    None, the state before the first step, stays None, so that a loop over chunks begins as it goes on.

    Raises:
        TypeError: if the state holds something else than tensors.
    """
    if state is None:
        return state
    _check(state)
    return tree_map(torch.Tensor.detach, state)


def to(state: State, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> State:
    """Return a state on another device or in another floating-point type.

    Raises:
        TypeError: if the state holds something else than tensors, or the type is none for floating-point numbers.
    """
    _check(state)
    if dtype is not None and not dtype.is_floating_point:
        raise TypeError(f"dtype: expected a floating-point type, got {dtype}")
    return tree_map(lambda x: x.to(device=device, dtype=dtype), state)


def tensors(state: Any) -> list[torch.Tensor]:
    """Return the tensors of a state, in order: a file of them is read by `torch.load` without being told of any class.

    Raises:
        TypeError: if the state holds something else than tensors.
    """
    _check(state)
    return tree_leaves(state)


def of_tensors(like: State, tensors: list[torch.Tensor]) -> State:
    """Return a state that is made of the tensors of one.

    Args:
        like: a state of the same module, such as that of `initial`, whose values are of no interest.
        tensors: what the function `tensors` has returned.

    Raises:
        TypeError: if they are no tensors.
        ValueError: if a state like that has another number of them.
    """
    _check(tensors)
    values, structure = tree_flatten(like)
    if len(values) != len(tensors):
        raise ValueError(f"tensors: expected {len(values)}, as in the given state, got {len(tensors)}")
    return tree_unflatten(tensors, structure)


def select(state: State, rows: torch.Tensor | list[int] | slice) -> State:
    """Return a part of the batch.

    Args:
        state: each tensor of shape (B, ...).
        rows: indices, a mask (B,) of type bool, or a slice.

    Raises:
        TypeError: if the state holds something else than tensors, or `rows` is one index alone, which would take the
            axis of the batch away.
        IndexError: if an index is out of range, or a mask of another length.
    """
    _check(state)
    if isinstance(rows, str):
        raise TypeError(f"rows: expected several indices, a mask (B,) or a slice, got {rows!r}")
    rows = list(rows) if isinstance(rows, (tuple, range)) else rows
    if not isinstance(rows, slice) and torch.as_tensor(rows).dim() != 1:
        raise TypeError("rows: expected several indices, a mask (B,) or a slice, got another number of axes; use [k]")
    return tree_map(lambda x: x[rows], state)


def where(mask: torch.Tensor, state: State, other: State) -> State:
    """Return a state where a mask is true, and another one where it is not.

    To begin anew in some rows of a batch: `states.where(ended, states.initial(model, x), state)`.

    Args:
        mask: type bool, shape (B,).
        state: each tensor of shape (B, ...).
        other: a state of the same structure and shapes.

    Raises:
        TypeError: if the mask is none, or a state holds something else than tensors.
        ValueError: if structures, shapes or the length of the mask differ.
    """
    _check((state, other))
    if not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool or mask.dim() != 1:
        got = f"{mask.dtype}, {tuple(mask.shape)}" if isinstance(mask, torch.Tensor) else type(mask).__name__
        raise TypeError(f"mask: expected a tensor of type bool and shape (B,), got {got}")
    (leaves, structure), (others, other_structure) = tree_flatten(state), tree_flatten(other)
    if structure != other_structure:
        raise ValueError(f"other: expected the structure of state, {structure}, got {other_structure}")
    for x, y in zip(leaves, others, strict=True):
        if x.shape != y.shape or x.shape[:1] != mask.shape:
            expected = f"tensors of one shape with a batch of {len(mask)}, the length of the mask"
            raise ValueError(f"state, other: expected {expected}, got {tuple(x.shape)} and {tuple(y.shape)}")
    return tree_map(lambda x, y: torch.where(mask.view(-1, *[1] * (x.dim() - 1)), x, y), state, other)


def __dir__() -> list[str]:
    return [
        name for name, value in globals().items() if getattr(value, "__module__", "") == __name__ and name[0] != "_"
    ]
