"""What cells and layers share: neuron parameters, weights, initial state and the checks of what comes in."""

from __future__ import annotations

import functools
import math
import sys
import types
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import nn

from snnparams.checks import (
    autocast_is_on,
    check_finite,
    check_input,
    check_population,
    check_state,
    check_weights,
    widened,
)
from snnparams.dynamics import LIFState
from snnparams.parameters import LIFParameters, LIParameters, NeuronParameters, Values

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


def in_own_type(forward: Forward) -> Forward:
    """Let a cell or layer compute in the type of its parameters, also under autocast.

    There a cell or layer is like the operators that PyTorch keeps in float32: an input or a state in half precision,
    which a layer before it has made, is cast to the type of the parameters, and all products and sums are of that type.
    """

    def own(self, x, state=None):
        _refuse_reentrant_checkpoint()
        if not isinstance(x, torch.Tensor) or not autocast_is_on(x):
            return forward(self, x, state)
        dtype = self.p.stored("v_leak").dtype
        if isinstance(state, tuple):
            state = type(state)(*(widened(t, dtype) if isinstance(t, torch.Tensor) else t for t in state))
        with torch.autocast(x.device.type, enabled=False):
            return forward(self, widened(x, dtype), state)

    # torch.compile counts how often it compiles one code object: each forward has its own, as if there were no wrapper
    own.__code__ = own.__code__.replace(co_name=forward.__qualname__)
    return cast(Forward, functools.wraps(forward)(own))


class Population(nn.Module):
    """What all cells and layers share: the neuron parameters `p` and the time step."""

    def __init__(self, p: LIFParameters | LIParameters, dt: float, size=None, device=None, dtype=None) -> None:
        super().__init__()
        self.p = NeuronParameters(p, dt, size, device, dtype)

    @property
    def dt(self) -> float:
        """Time step in s."""
        return self.p.dt

    def extra_repr(self) -> str:
        """Show the time step."""
        return f"dt={self.dt}"

    @staticmethod
    def _at_rest(p: Values, shape: tuple[int, ...], like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return voltage at the leak potential and zero current: where a population starts.

        The initial voltage is data, not a function of `v_leak`: no gradient flows through it, as in Norse.
        """
        v = p.v_leak.detach().expand(shape).clone()
        return v, torch.zeros(shape, dtype=like.dtype, device=like.device)


class FeedForward(Population):
    """A population without weights, whose parameters broadcast against its input."""

    def __init__(
        self, p, kind: type[LIFParameters | LIParameters], dt: float, device, dtype, size: int | tuple[int, ...] | None
    ) -> None:
        p = kind() if p is None else p
        if not isinstance(p, kind):
            raise TypeError(f"p: expected {kind.__name__}, got {type(p).__name__}")
        shape = (size,) if type(size) is int else size
        if shape is not None and not (isinstance(shape, tuple) and all(type(n) is int and n > 0 for n in shape)):
            raise ValueError(f"size: expected a positive integer or a tuple of them, got {size!r}")
        super().__init__(p, dt, shape, device, dtype)
        if shape is not None:
            check_population(self.p.values(), shape)

    def _start(self, x: torch.Tensor, layout: str, state, kind: Any) -> tuple[Values, Any]:
        """Check the input; return the neuron parameters and the given state, checked, or the initial one."""
        p = self.p.values()
        check_input(x, layout, p.v_leak.dtype, p.v_leak.device)
        shape = tuple(x.shape[1:] if layout.startswith("(T") else x.shape)
        check_population(p, shape[1:])
        if state is None:
            return p, kind(*self._at_rest(p, shape, x))
        check_state(state, kind, shape, x)
        return p, state


class Recurrent(Population):
    """A population with input and recurrent weights; `LIFRecurrent` documents the arguments."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        p: LIFParameters | None = None,
        input_weights: torch.Tensor | None = None,
        recurrent_weights: torch.Tensor | None = None,
        autapses: bool = False,
        dt: float = 0.001,
        detach_reset: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise ValueError(f"{name}: expected a positive integer, got {size!r}")
        p = LIFParameters() if p is None else p
        if not isinstance(p, LIFParameters):
            raise TypeError(f"p: expected LIFParameters, got {type(p).__name__}")
        super().__init__(p, dt, hidden_size, device, dtype)
        self.input_size, self.hidden_size = input_size, hidden_size
        self.autapses, self.detach_reset = autapses, detach_reset
        self.input_weights = self._weights("input_weights", input_weights, input_size)
        self.recurrent_weights = self._weights("recurrent_weights", recurrent_weights, hidden_size)
        if not autapses and recurrent_weights is None:
            with torch.no_grad():
                self.recurrent_weights.fill_diagonal_(0.0)
        self._check_diagonal(self.recurrent_weights)

    def _weights(self, name: str, given: torch.Tensor | None, inputs: int) -> nn.Parameter:
        v_leak, shape = self.p.stored("v_leak"), (self.hidden_size, inputs)
        if given is None:
            scale = math.sqrt(2 / self.hidden_size)
            return nn.Parameter(scale * torch.randn(shape, dtype=v_leak.dtype, device=v_leak.device))
        check_weights(name, given, shape)
        if isinstance(given, nn.Parameter):
            if given.dtype != v_leak.dtype:
                raise TypeError(f"{name}: expected a parameter of type {v_leak.dtype}, got {given.dtype}")
            return given
        if given.requires_grad:
            raise TypeError(
                f"{name}: expected an nn.Parameter or a tensor without gradient, got a tensor that requires one; "
                "it would be cut off from what it was computed from"
            )
        return nn.Parameter(given.detach().to(dtype=v_leak.dtype, device=v_leak.device, copy=True))

    def _check_diagonal(self, weights: torch.Tensor) -> None:
        if not self.autapses and not weights.is_meta and (count := int(weights.diagonal().count_nonzero())):
            raise ValueError(
                f"recurrent_weights: expected a zero diagonal because autapses=False, got {count} non-zero values on "
                "it; set them to zero or pass autapses=True"
            )

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        for name in ("input_weights", "recurrent_weights"):  # checked before they take the place of valid ones
            weights = state_dict.get(prefix + name)
            if isinstance(weights, torch.Tensor) and not weights.is_meta:
                check_finite(name, weights)
        if isinstance(weights := state_dict.get(prefix + "recurrent_weights"), torch.Tensor) and weights.dim() == 2:
            self._check_diagonal(weights)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def effective_recurrent_weights(self) -> torch.Tensor:
        """Return the recurrent weights, shape (H, H), with a diagonal of zeros unless autapses are allowed.

        Masked at use, so that its gradient is exactly zero there and neither an optimiser nor a copy of the
        module can bring an autapse back.
        """
        if self.autapses:
            return self.recurrent_weights
        diagonal = torch.eye(self.hidden_size, dtype=torch.bool, device=self.recurrent_weights.device)
        return self.recurrent_weights.masked_fill(diagonal, 0.0)

    def extra_repr(self) -> str:
        """Show the sizes, whether autapses are allowed, and the time step."""
        return f"input_size={self.input_size}, hidden_size={self.hidden_size}, autapses={self.autapses}, dt={self.dt}"

    def _start(self, x: torch.Tensor, layout: str, state: LIFState | None) -> tuple[Values, LIFState]:
        """Check the input; return the neuron parameters and the given state, checked, or the initial one."""
        weights, p = self.input_weights, self.p.values()
        check_input(x, layout, weights.dtype, weights.device, self.input_size, sparse=True)
        shape = (x.shape[-2], self.hidden_size)
        if state is None:
            v, i = self._at_rest(p, shape, x)
            return p, LIFState(torch.zeros_like(i), v, i)
        check_state(state, LIFState, shape, x)
        return p, state
