"""How a cell or layer is called: in the type of its parameters, and by nobody who would lose its state."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, cast

import torch
from torch import nn
from torch.utils._pytree import tree_map

from snnparams.layers.attributes import Attributes
from snnparams.layers.checks import autocast_is_on, widened
from snnparams.layers.neuron_parameters import NeuronParameters
from snnparams.layers.sequences import refuse_packed

Forward = TypeVar("Forward", bound=Callable)


def _refuse_reentrant_checkpoint() -> None:
    """Refuse to be called by `torch.utils.checkpoint` with use_reentrant=True.

    That lets no gradient through tensors within a tuple, so that the one by the state would be lost without a word.

    Raises:
        RuntimeError: it is.
    """
    checkpoint = sys.modules.get("torch.utils.checkpoint")
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or checkpoint is None:
        return  # a reentrant checkpoint runs everything without gradient first
    code = checkpoint.CheckpointFunction.forward.__code__
    frame: types.FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code is code:
            raise RuntimeError(
                "torch.utils.checkpoint: expected use_reentrant=False, got True, which would lose the gradient by a "
                "population's state"
            )
        frame = frame.f_back


def refuse_plain_sequential(module: nn.Module) -> None:
    """Refuse to be called by an `nn.Sequential` that would hand output and state on to its next module.

    Raises:
        TypeError: it does.
    """
    if torch.compiler.is_compiling():  # there are no frames, and what is called learns nothing of what calls it
        return
    frame: types.FrameType | None = sys._getframe(2)
    called = module
    while True:
        while frame is not None and frame.f_code.co_filename == nn.modules.module.__file__:  # what calls a module
            frame = frame.f_back
        if frame is None or frame.f_code is not nn.Sequential.forward.__code__:
            return
        container = frame.f_locals["self"]
        modules = list(container)
        if modules[-1] is not called:
            following = type(modules[modules.index(called) + 1]).__name__
            raise TypeError(
                f"{type(module).__name__}: expected snnparams.Sequential as its container, which hands states along, "
                f"got PyTorch's, which would give {following} both output and state"
            )
        frame, called = frame.f_back, container  # the last one hands both on to where its container stands


def as_numbers(x: Any, dtype: torch.dtype) -> Any:
    """Return spikes of type bool or uint8, and under autocast numbers of half precision, in the type of parameters."""
    if not isinstance(x, torch.Tensor):
        return x
    if x.dtype in (torch.bool, torch.uint8):
        return x.to(dtype)
    return widened(x, dtype) if autocast_is_on(x) else x


def in_own_type(forward: Forward) -> Forward:
    """Let a cell or layer compute in the type of its parameters, also under autocast.

    Spikes may also be of type bool or uint8. Under autocast a cell or layer is like the operators that PyTorch keeps in
    float32: an input or a state in half precision, which a layer before it has made, is cast to the type of the
    parameters, and all products and sums are of that type.
    """

    def own(self, input, state=None, *lengths, **options):
        _refuse_reentrant_checkpoint()
        refuse_plain_sequential(self)
        if isinstance(input, torch.Tensor) and input.is_floating_point() and not autocast_is_on(input):
            return forward(self, input, state, *lengths, **options)  # as nearly always
        dtype = self.p.raw(self.p.neuron_fields[0]).dtype
        input = as_numbers(input, dtype)
        if not isinstance(input, torch.Tensor) or not autocast_is_on(input):
            return forward(self, input, state, *lengths, **options)
        if isinstance(state, tuple):
            state = tree_map(lambda t: widened(t, dtype) if isinstance(t, torch.Tensor) else t, state)
        with torch.autocast(input.device.type, enabled=False):
            return forward(self, input, state, *lengths, **options)

    # torch.compile counts how often it compiles one code object: each forward has its own, as if there were no wrapper
    own.__code__ = own.__code__.replace(co_name=forward.__qualname__)
    return cast(Forward, functools.wraps(forward)(own))


def with_batch(x: torch.Tensor, state, compute: Callable, axes: int | None, time: int = 1) -> tuple[torch.Tensor, Any]:
    """Compute an input that may lack the axis of the batch, as in `nn.RNN`; then so do output and state.

    Args:
        x: shape (T, B, ...), or (T, ...); of one time step without T.
        state: the state or None.
        compute: called with an input that has a batch and a state, returns an output and a state.
        axes: how many axes an input has behind those for time and batch, or None if it may have any number.
        time: how many axes it has for time, 0 or 1.
    """
    refuse_packed(x)
    whole = not isinstance(x, torch.Tensor) or axes is None or x.dim() != time + axes
    if whole or x.layout not in (torch.strided, torch.sparse_coo):  # others have no further axis, and are refused
        return compute(x, state)
    given = tree_map(lambda t: t[None] if isinstance(t, torch.Tensor) else t, state)
    output, last = compute(x.unsqueeze(time), given)
    return output.squeeze(time), tree_map(lambda t: t.squeeze(0), last)


class HasParameters(Attributes):
    """A module with neuron parameters `p`, or parameters of `delays`, which are not set beside them by mistake."""

    as_built: ClassVar[tuple[str, ...]] = ("dt",)
    p: NeuronParameters

    @property
    def dt(self) -> float:
        """Time step in s."""
        return self.p.dt

    def __setattr__(self, name: str, value: Any) -> None:
        for held in ("p", "delays"):
            p: Any = self._modules.get(held) if "_modules" in self.__dict__ else None
            if not hasattr(p, "neuron_fields"):
                continue
            if name in (*p.neuron_fields, *p.neuron.times):
                raise AttributeError(f"{name}: expected an assignment to layer.{held}.{name}, got one to layer.{name}")
            if name == held and _kind_of(value) != _kind_of(p):
                raise TypeError(
                    f"{name}: expected {type(p).__name__} of the same neuron, time step and gradient, from another "
                    f"layer, got {type(value).__name__}; assign to layer.{name}.{p.neuron_fields[0]} and others, or "
                    "build a new layer"
                )
        super().__setattr__(name, value)


class HasState(HasParameters):
    """A module that is given an input and a state, and returns an output and the next state."""

    layout: ClassVar[str]  # axes of the input

    def initial_state(self, input: torch.Tensor) -> Any:
        """Return the state in which a call with this input begins, see `snnparams.layers.states.initial`."""
        x = as_numbers(input, self.p.raw(self.p.neuron_fields[0]).dtype)
        return self._with_batch(x, None, lambda x, _: (x, self._start(x, None)[1]))[1]

    def _start(self, x: torch.Tensor, state) -> tuple[Any, Any]:
        """Check the input; return the values of all parameters and the given state, checked, or the initial one."""
        raise NotImplementedError

    def _population_axes(self) -> int | None:
        """Return how many axes an input has behind those for time and batch, or None if it may have any number."""
        raise NotImplementedError

    def _with_batch(self, x, state, compute: Callable) -> tuple[torch.Tensor, Any]:
        """Compute an input that may lack the axis of the batch, as in `nn.RNN`; then so do output and state."""
        return with_batch(x, state, compute, self._population_axes(), int(self.layout.startswith("(T")))


def _kind_of(p: Any) -> tuple:
    """Return what has to be the same of neuron parameters that take the place of others."""
    return tuple(getattr(p, name, None) for name in ("neuron", "dt", "gradient"))
