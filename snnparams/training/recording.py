"""What happens inside a network while it runs: the outputs of its populations, and their state after every step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from snnparams.layers.cells import Cell, RecurrentCell
from snnparams.layers.checks import check_module
from snnparams.layers.population import Population
from snnparams.layers.sequences import without_padding
from snnparams.layers.sequential import Sequential
from snnparams.training.ensemble import Ensemble


class Recorded:
    """What one cell or layer did while `record` watched it.

    Calls in a row, of a cell step by step or of a layer chunk by chunk, are one recording: T counts the steps of all.
    Everything carries a gradient where the calls do.
    """

    def __init__(self, path: str, trace: bool = True) -> None:
        self._path = path
        self._traced = trace
        self._outputs: list[torch.Tensor] = []
        self._traces: list[Any] = []

    @property
    def output(self) -> torch.Tensor:
        """What was returned, shape (T, B, ...)."""
        return torch.cat(self._called(self._outputs))

    @property
    def trace(self) -> Any:
        """The state after every step, each of its tensors of shape (T, B, ...); after the reset where one spiked.

        `trace.v` are membrane voltages, `trace.i` synaptic currents.
        """
        return tree_map(lambda *parts: torch.cat(parts), *self._called(self._traces))

    @property
    def state(self) -> Any:
        """The state after the last step."""
        return tree_map(lambda x: x[-1], self._called(self._traces)[-1])

    def _called(self, parts: list) -> list:
        if parts is self._traces and not self._traced:
            raise RuntimeError(f"{self._path}: expected states that were recorded, got `record` with trace=False")
        if not parts:
            raise RuntimeError(f"{self._path}: expected a population that has been called, got one that has not been")
        return parts

    def _add(self, output: torch.Tensor, trace: Any) -> None:
        if self._outputs and self._outputs[-1].shape[1:] != output.shape[1:]:
            expected, got = (tuple(shape) for shape in (self._outputs[-1].shape[1:], output.shape[1:]))
            raise ValueError(
                f"{self._path}: expected steps of shape {expected}, as in the calls recorded before, got {got}; record "
                "each batch by itself"
            )
        self._outputs.append(output)
        self._traces.append(trace)


def _stacked(traces: list) -> Any:
    return tree_map(lambda *steps: torch.stack(steps), *traces)


def _watch(recorded: Recorded):
    """Return a hook that records a call. For its trace a layer is computed anew, step by step, and returns that."""

    def hook(module, args, options, returned):
        output, last = returned
        one_step = isinstance(module, (Cell, RecurrentCell))
        if one_step or not recorded._traced:
            recorded._add(output[None] if one_step else output, _stacked([last]) if recorded._traced else None)
            return None
        given = dict(zip(("input", "state", "lengths"), args, strict=False)) | options
        x, state, lengths = given["input"], given.get("state"), given.get("lengths")
        x = x if x.layout == torch.strided else x.to_dense()  # which torch.vmap cannot call in vain
        x = x if lengths is None else without_padding(x, lengths)
        outputs, traces = [], []
        for step in x.split(1):
            output, state = module.forward(step, state)
            outputs.append(output)
            traces.append(state)
        output, trace = torch.cat(outputs), _stacked(traces)
        if lengths is not None:
            output, trace = (tree_map(lambda s: without_padding(s, lengths), found) for found in (output, trace))
        recorded._add(output, trace)
        return output, last

    return hook


@contextlib.contextmanager
def record(model: nn.Module, trace: bool = True) -> Iterator[dict[str, Recorded]]:
    """Record the outputs and states of all cells and layers of a network.

    ::

        with record(model) as recorded:
            model(spikes)
        recorded["hidden"].trace.v  # (T, B, H)

    What the network returns keeps its type. For states after every step layers compute one step after the other, with
    the same kernel, which is slower; outputs alone, with `trace=False`, cost no time. A loss on what was recorded has
    its gradient. Behind the end of a sequence that is shorter than others all is zero. A `Sequential` in chunks is one
    piece while it is watched.

    Args:
        model: a network, a cell or a layer.
        trace: whether states are recorded as well as outputs.

    Yields:
        A `Recorded` for each cell and layer, under its name as in `model.named_modules()`; "" for the model itself.

    Raises:
        TypeError: if there is none, or the model is compiled or an `Ensemble`, whose inside is out of reach; or if
            `trace` is no bool.
        RuntimeError: on reading what was not recorded.
        ValueError: on a call, if its steps are not of the shape of those recorded before.
    """
    check_module(model)
    if not isinstance(trace, bool):
        raise TypeError(f"trace: expected True or False, got {trace!r}")
    for part in model.modules():
        if isinstance(part, Ensemble):
            raise TypeError("model: expected one network, got an Ensemble; use ensemble.member(k)")
        if hasattr(part, "_orig_mod") or getattr(part, "_compiled_call_impl", None) is not None:
            raise TypeError(
                "model: expected one that is not compiled, got a compiled one; use the module it was made of"
            )
    populations = {path: part for path, part in model.named_modules() if isinstance(part, Population)}
    if not populations:
        raise TypeError(f"model: expected one with a cell or layer, got {type(model).__name__} without any")
    recorded = {path: Recorded(path or type(part).__name__, trace) for path, part in populations.items()}
    whole = {part: part.chunk for part in model.modules() if isinstance(part, Sequential)}
    for part in whole:
        part.chunk = None  # computed again in the backward pass, it would be recorded again
    hooks = [part.register_forward_hook(_watch(recorded[path]), with_kwargs=True) for path, part in populations.items()]
    try:
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()
        for part, chunk in whole.items():
            part.chunk = chunk
