"""How the values of many networks are stacked, and those kept out of reach that are not learned."""

from __future__ import annotations

import torch
from torch import nn

from snnparams.layers.likeness import join
from snnparams.layers.neuron_parameters import NeuronParameters


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


def _key(name: str) -> str:
    """Return the key in `frozen` of a parameter's full name; a key of a `nn.ModuleDict` must have no point."""
    return f"stacked/{name}".replace(".", "/")


def _independent(value):
    """Return an output that has memory of its own for each member, also if it is the same for all."""
    if isinstance(value, torch.Tensor) and value.layout == torch.strided and value.stride(0) == 0:
        return value.clone(memory_format=torch.contiguous_format)
    return value


def _is_of_one_member(value) -> bool:
    return isinstance(value, torch.Tensor) and torch._C._functorch.is_functorch_wrapped_tensor(value)


def _computed(module: nn.Module) -> set[str]:
    """Return the names of buffers that hold what constraints make of other numbers, for checkpoints alone."""
    found = ((path, part) for path, part in module.named_modules() if isinstance(part, NeuronParameters))
    return {join(path, name) for path, part in found for name in part.constrained()}


def _can_stay_one(owner: nn.Module, name: str) -> bool:
    """Return whether no forward pass makes a buffer differ between members that have it in common."""
    return isinstance(owner, NeuronParameters) or name == "num_batches_tracked"
