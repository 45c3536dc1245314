"""How the values of many networks are stacked, and those kept out of reach that are not learned."""

from __future__ import annotations

import math

import torch
from torch import nn

from snnparams.layers.likeness import join
from snnparams.layers.neuron_parameters import NeuronParameters

# The C library keeps freed memory for the next tensor, but not that of tensors of more than 32 MiB: each of them comes
# from the system anew, page by page and filled with zeros, which takes longer than to compute with it.
_LARGE = 32 * 2**20  # bytes


class _PartlyFrozen(nn.Module):
    """The values of a parameter in those members that do not learn it: out of reach of every optimiser.

    Args:
        values: shape (F, ...), of the F members that do not learn it.
        members: their indices, shape (F,).
        size: number of all members E.

    Called with the values that are learned, shape (E - F, ...), it returns those of all members in their order.

    `made` is for checkpoints: what a constraint makes of the values, which are unconstrained numbers then.
    """

    values: torch.Tensor
    made: torch.Tensor | None
    members: torch.Tensor
    order: torch.Tensor

    def __init__(self, values: torch.Tensor, members: torch.Tensor, size: int) -> None:
        super().__init__()
        self.register_buffer("values", values)
        self.register_buffer("made", None)
        self.register_buffer("members", members)
        learned = [k for k in range(size) if k not in members]
        order = torch.tensor([*learned, *members.tolist()], device=members.device).argsort()
        self.register_buffer("order", order, persistent=False)

    def forward(self, learned: torch.Tensor) -> torch.Tensor:
        """Return the values of all members."""
        return torch.cat([learned, self.values]).index_select(0, self.order)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        members = state_dict.get(prefix + "members")
        if members is not None and members.tolist() != self.members.tolist():
            expected, got = self.members.tolist(), members.tolist()
            raise ValueError(f"{prefix}members: expected frozen members {expected} in the state, got {got}")
        made, self.made = self.made, None  # follows from the values, which the ensemble has converted
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.made = made


def _stored(path: str, part: NeuronParameters, name: str) -> str:
    """Return the full name of what is stored of a neuron parameter."""
    return join(path, name if part.constraint(name) is None else f"parametrizations.{name}.original")


def _key(name: str) -> str:
    """Return the key in `frozen` of a parameter's full name; a key of a `nn.ModuleDict` must have no point."""
    return f"stacked/{name}".replace(".", "/")


def _independent(value):
    """Return an output that has memory of its own for each member, also if it is the same for all."""
    if isinstance(value, torch.Tensor) and value.layout == torch.strided and value.stride(0) == 0:
        return value.clone(memory_format=torch.contiguous_format)
    return value


def _at_once(size: int, parameters, buffers, args: tuple, axes: tuple[int | None, ...]) -> int | None:
    """Return how many of so many members are computed at once, None for all of them.

    On a CPU it is as many as can be expected to have tensors that are not large. For that the first input is taken to
    have axes for time and batch, and each parameter to have as many rows as its layer has outputs.
    """
    x = args[0] if args else None
    if not isinstance(x, torch.Tensor) or x.device.type != "cpu" or not x.dim() or torch.compiler.is_compiling():
        return None
    if any(name.endswith("num_batches_tracked") for name in buffers):  # one for all, it would count the parts
        return None
    width = max([1, *(values.shape[1] for values in parameters.values() if values.dim() > 1)])
    shape = x.shape[:-1]
    if axes[0] == 0:
        width, shape = max(width, x.shape[-1]), shape[1:]
    bytes_of_one = max(1, math.prod(shape)) * width * x.element_size()
    parts = math.ceil(size / max(_LARGE // bytes_of_one, 1))
    return math.ceil(size / parts) if parts > 1 else None


def _is_of_one_member(value) -> bool:
    return isinstance(value, torch.Tensor) and torch._C._functorch.is_functorch_wrapped_tensor(value)


def _computed(module: nn.Module) -> set[str]:
    """Return the names of buffers that hold what constraints make of other numbers, for checkpoints alone."""
    found = ((path, part) for path, part in module.named_modules() if isinstance(part, NeuronParameters))
    return {join(path, name) for path, part in found for name in part.constrained()}


def _can_stay_one(owner: nn.Module, name: str) -> bool:
    """Return whether no forward pass makes a buffer differ between members that have it in common."""
    return isinstance(owner, NeuronParameters) or name == "num_batches_tracked"
