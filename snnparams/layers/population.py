"""What cells and layers share: neuron parameters, weights, initial state and the checks of what comes in."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any, ClassVar, cast

import torch
from torch import nn
from torch.nn.functional import linear

from snnparams import kernels
from snnparams.kernels import adjoint, few
from snnparams.layers.calls import HasState
from snnparams.layers.checks import check_finite, check_input, check_population, check_state, check_weights
from snnparams.layers.chunks import check_chunk, over_chunks, over_chunks_untraced
from snnparams.layers.neuron_parameters import NeuronParameters
from snnparams.layers.sequences import Lengths, over_lengths
from snnparams.neurons import Neuron
from snnparams.neurons.dynamics import AdjointState, advance, arguments_of_step, detaches
from snnparams.neurons.neuron import no_parameters
from snnparams.neurons.surrogate import Adjoint, Gradient
from snnparams.parameters.constraints import can_be_looked_at
from snnparams.parameters.declared import plain
from snnparams.parameters.settings import check_bool, check_counts, shape_of_population


class Population(HasState):
    """What all cells and layers share: the neuron parameters `p` and the time step."""

    as_built: ClassVar[tuple[str, ...]] = ("dt", "neuron", "gradient")
    checked = MappingProxyType(
        {
            "detach_reset": lambda layer, given: detaches(
                layer.neuron, given, isinstance(layer, Recurrent), layer.gradient
            ),
            "kernel": lambda layer, name: kernels.check_kernel(name),
            "chunk": lambda layer, steps: check_chunk(steps),
        }
    )
    accepts: ClassVar[type[Neuron]] = Neuron  # class of the neurons that it is for
    chunk: int | None = None  # steps after which the state is kept, and nothing in between

    def __init__(self, p: Neuron | NeuronParameters | None, *, detach_reset, kernel, chunk=None, **how) -> None:
        super().__init__()
        if p is None and self.accepts is not Neuron:
            p = self.accepts()
        kind = p.neuron if isinstance(p, NeuronParameters) else type(p)
        if not issubclass(kind, self.accepts):
            expected = "the parameters of a neuron" if self.accepts is Neuron else self.accepts.__name__
            raise no_parameters(kind, expected)
        if isinstance(p, NeuronParameters):
            p.check_use(**how)
        self.p = p if isinstance(p, NeuronParameters) else NeuronParameters(cast(Neuron, p), **how)
        self.detach_reset, self.kernel, self.chunk = detach_reset, kernel, chunk

    @property
    def neuron(self) -> type[Neuron]:
        """Class of the neurons."""
        return self.p.neuron

    @property
    def gradient(self) -> Gradient | None:
        """How the gradient of the spikes is computed, by a surrogate or the adjoint; None if there are none."""
        return self.p.gradient

    @property
    def _exact(self) -> bool:
        """Whether gradients are those of the adjoint method."""
        return isinstance(self.gradient, Adjoint)

    def extra_repr(self) -> str:
        """Show the time step, and how gradients are computed."""
        text = f"dt={self.dt}"
        if self.gradient is not None:
            text += f", gradient={self.gradient!r}"
        if "reset" in self.neuron.arguments and not self._exact:
            text += f", detach_reset={self.detach_reset}"
        return text if self.chunk is None else f"{text}, chunk={self.chunk}"

    def _sequence(self, x: torch.Tensor, state, lengths: Lengths | None = None) -> tuple[torch.Tensor, Any]:
        """Return the outputs of all time steps, and the state after the last, or after the last of each sequence."""
        if lengths is not None:
            return over_lengths(self._compute_in_chunks, x, state, lengths, apart=self._exact)
        return self._with_batch(x, state, self._compute_in_chunks)

    def _compute_in_chunks(self, x: torch.Tensor, state) -> tuple[torch.Tensor, Any]:
        run = over_chunks_untraced if self._exact else over_chunks
        return run(self._compute, x, state, self.chunk)

    def _step(self, x: torch.Tensor, state) -> tuple[torch.Tensor, Any]:
        """Return the output of one time step, and the new state."""
        return self._with_batch(x, state, self._compute_step)

    def _compute(self, x: torch.Tensor, state) -> tuple[torch.Tensor, Any]:
        raise NotImplementedError

    def _compute_step(self, x: torch.Tensor, state) -> tuple[torch.Tensor, Any]:
        raise NotImplementedError

    def _few(self, x: torch.Tensor, state, p) -> tuple[torch.Tensor, Any] | None:
        """Compute a sequence or a step as `snnparams.kernels.few` does, or return None if it takes none like it."""
        if self.kernel is not None or isinstance(getattr(p, "gradient", None), Adjoint):
            return None
        weights = (self.input_weights, self.recurrent_weights, self.autapses) if isinstance(self, Recurrent) else ()
        return few.sequence(self.neuron, x, state, p, self.dt, self.detach_reset, *weights)

    def _at_rest(self, kind: Any, p, shape: tuple[int, ...], like: torch.Tensor) -> Any:
        """Return the state, of a class, in which a population starts: voltage at the leak potential, all else zero."""
        # the initial voltage is data, not a function of `v_leak`: no gradient flows through it, as in Norse
        rest = self.neuron.rest
        return kind(
            *(
                getattr(p, rest[name]).detach().expand(shape).clone()
                if name in rest
                else torch.zeros(shape, dtype=like.dtype, device=like.device)
                for name in kind._fields
            )
        )

    def _state_without_recurrence(self, state) -> Any:
        """Return the class of the state to expect, or with which to begin, of neurons that do not hear each other."""
        if not self._exact:
            return self.neuron.State
        return AdjointState if state is None else adjoint.state_of(state)


class FeedForward(Population):
    """A population without weights, whose parameters broadcast against its input."""

    as_built: ClassVar[tuple[str, ...]] = (*Population.as_built, "channels")

    def __init__(
        self,
        p: Neuron | NeuronParameters | None = None,
        *,
        size: int | tuple[int, ...] | None = None,
        channels: int | None = None,
        dt: float = 0.001,
        gradient: Gradient | None = None,
        detach_reset: bool | None = None,
        kernel: str | None = None,
        chunk: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if channels is not None:
            check_counts(channels=channels)
            if size is not None:
                raise ValueError(f"channels: expected either it or size, got both, {channels} and {size}")
            size = channels = int(channels)
        shape = shape_of_population(size)
        how: dict[str, Any] = {"size": shape, "dt": dt, "gradient": gradient, "device": device, "dtype": dtype}
        super().__init__(p, detach_reset=detach_reset, kernel=kernel, chunk=chunk, **how)
        self.channels, self._size = channels, shape if channels is None else None

    def _population_axes(self) -> int | None:
        if self.channels is not None:
            return None
        if isinstance(self.p.size, tuple):
            return len(self.p.size)
        one_per_neuron = max(self.p.raw(name).dim() for name in self.p.neuron_fields) == 1
        return 1 if one_per_neuron else None

    def _start(self, x: torch.Tensor, state) -> tuple[Any, Any]:
        """Check the input; return the neuron parameters and the given state, checked, or the initial one."""
        p, kind = self.p.values(in_use=True), self._state_without_recurrence(state)
        check_input(x, self.layout, p[0].dtype, p[0].device)
        shape = tuple(x.shape[1:] if self.layout.startswith("(T") else x.shape)
        if self.channels is not None and (len(shape) < 2 or shape[1] != self.channels):
            raise ValueError(f"channels: expected an axis of {self.channels} behind the batch, got {tuple(x.shape)}")
        if self.channels is not None:  # the axis behind the batch; the values of one channel serve all places
            fields, axes = zip(self.p.neuron_fields, p, strict=False), [1] * (len(shape) - 2)
            p = p._replace(**{name: value.view(-1, *axes) for name, value in fields if value.dim()})
        check_population(self.p.neuron_fields, p, shape[1:], self._size)
        if state is None:
            return p, self._at_rest(kind, p, shape, x)
        check_state(state, kind, shape, x)
        return p, state

    def _compute_step(self, x: torch.Tensor, state) -> tuple[torch.Tensor, Any]:
        p, state = self._start(x, state)
        if self._exact:
            z, last = adjoint.lif(x[None], state, p, self.dt)
            return z[0], last
        if not torch.is_grad_enabled() and (found := self._few(x, state, p)):
            return found
        return advance(self.neuron, x, state, arguments_of_step(self.neuron, p, self.dt, self.detach_reset))

    def _compute(self, x: torch.Tensor, state) -> tuple[torch.Tensor, Any]:
        p, state = self._start(x, state)
        if self._exact:
            return adjoint.lif(x, state, p, self.dt, self.kernel)
        how = p, self.dt, self.detach_reset, self.kernel
        return self._few(x, state, p) or kernels.sequence(self.neuron, x, state, *how)


class Recurrent(Population):
    """A population with input and recurrent weights; `LIFRecurrent` documents the arguments."""

    as_built: ClassVar[tuple[str, ...]] = (*Population.as_built, "input_size", "hidden_size", "autapses")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        p: Neuron | NeuronParameters | None = None,
        *,
        input_weights: torch.Tensor | None = None,
        recurrent_weights: torch.Tensor | None = None,
        autapses: bool = False,
        dt: float = 0.001,
        gradient: Gradient | None = None,
        detach_reset: bool | None = None,
        kernel: str | None = None,
        chunk: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_counts(input_size=input_size, hidden_size=hidden_size)
        check_bool(autapses=autapses)
        input_size, hidden_size = int(input_size), int(hidden_size)
        how: dict[str, Any] = {"size": hidden_size, "dt": dt, "gradient": gradient, "device": device, "dtype": dtype}
        super().__init__(p, detach_reset=detach_reset, kernel=kernel, chunk=chunk, **how)
        self.input_size, self.hidden_size, self.autapses = input_size, hidden_size, autapses
        self.input_weights = self._weights("input_weights", input_weights, input_size)
        self.recurrent_weights = self._weights("recurrent_weights", recurrent_weights, hidden_size)
        if not autapses and recurrent_weights is None:
            with torch.no_grad():
                self.recurrent_weights.fill_diagonal_(0.0)
        self._check_diagonal(self.recurrent_weights)

    def _weights(self, name: str, given: torch.Tensor | None, inputs: int) -> nn.Parameter:
        like, shape = self.p.raw(self.p.neuron_fields[0]), (self.hidden_size, inputs)
        if given is None:
            return nn.Parameter(math.sqrt(2 / shape[0]) * torch.randn(shape, dtype=like.dtype, device=like.device))
        given = plain(name, given)
        check_weights(name, given, shape)
        if isinstance(given, nn.Parameter):
            if given.dtype != like.dtype:
                raise TypeError(f"{name}: expected a parameter of type {like.dtype}, got {given.dtype}")
            return given
        if given.requires_grad:
            raise TypeError(
                f"{name}: expected an nn.Parameter or a tensor without gradient, got a tensor that requires one; "
                "it would be cut off from what it was computed from"
            )
        return nn.Parameter(given.detach().to(dtype=like.dtype, device=like.device, copy=True))

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

    def _weights_in_use(self) -> torch.Tensor:
        """Return the same to be read only: without gradient there need be no copy."""
        weights = self.recurrent_weights
        looked_at = not torch.is_grad_enabled() and can_be_looked_at(weights) and weights.is_cpu
        return weights if looked_at and not weights.diagonal().any() else self.effective_recurrent_weights()

    def extra_repr(self) -> str:
        """Show the sizes, whether autapses are allowed, the time step, and how gradients are computed."""
        sizes = f"input_size={self.input_size}, hidden_size={self.hidden_size}, autapses={self.autapses}"
        return f"{sizes}, {super().extra_repr()}"

    def _population_axes(self) -> int | None:
        return 1

    def _check_input(self, x: torch.Tensor) -> None:
        """Check the input, and the weights, which were assigned or given for one call since they were checked."""
        for name, inputs in (("input_weights", self.input_size), ("recurrent_weights", self.hidden_size)):
            weights, expected = getattr(self, name), (self.hidden_size, inputs)
            if weights.shape != expected:
                raise ValueError(f"{name}: expected shape {expected}, got {tuple(weights.shape)}")
        like = self.input_weights
        check_input(x, self.layout, like.dtype, like.device, self.input_size, sparse=True)

    def _start(self, x: torch.Tensor, state) -> tuple[Any, Any]:
        """Check the input; return the neuron parameters and the given state, checked, or the initial one."""
        p = self.p.values(in_use=True)
        self._check_input(x)
        shape, kind = (x.shape[-2], self.hidden_size), self.neuron.RecurrentState
        if state is None:
            return p, self._at_rest(kind, p, shape, x)
        check_state(state, kind, shape, x)
        return p, state

    def _compute_step(self, x: torch.Tensor, state) -> tuple[torch.Tensor, Any]:
        p, state = self._start(x, state)
        if not torch.is_grad_enabled() and (found := self._few(x, state, p)):
            return found
        current = linear(kernels.dense(x) if x.is_sparse else x, self.input_weights)
        weights = self._weights_in_use()
        if self._exact:
            z, state = adjoint.lif_recurrent(current[None], state, weights, p, self.dt)
            return z[0], state
        given = arguments_of_step(self.neuron, p, self.dt, self.detach_reset)
        return advance(self.neuron, current, state, given, weights)

    def _compute(self, x: torch.Tensor, state) -> tuple[torch.Tensor, Any]:
        p, state = self._start(x, state)
        if found := self._few(x, state, p):
            return found
        currents = kernels.input_currents(x, self.input_weights, self.kernel)
        weights = self._weights_in_use()
        if self._exact:
            return adjoint.lif_recurrent(currents, state, weights, p, self.dt, self.kernel)
        return kernels.sequence(self.neuron, currents, state, p, self.dt, self.detach_reset, self.kernel, weights)
