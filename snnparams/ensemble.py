"""Many independent networks of one architecture, computed and trained at once.

Controlled experiments need the same network many times: other seeds, other initial values. The members of an
`Ensemble` share nothing but their shapes, and get the numbers that each would get alone. Explained in chapter 8.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils.parametrize import type_before_parametrizations

from snnparams.parameters import NeuronParameters


def _owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Return the submodule that holds a parameter or buffer of that full name, and its name there."""
    path, _, last = name.rpartition(".")
    return module.get_submodule(path), last


def _check_alike(members: Sequence[nn.Module]) -> None:
    if not members:
        raise ValueError("members: expected at least one module, got none")

    def kind(module):
        settings = ("dt", "method", "alpha") if isinstance(module, NeuronParameters) else ()
        return type_before_parametrizations(module), *(getattr(module, name, None) for name in settings)

    def layout(member):
        tensors = {**dict(member.named_parameters(remove_duplicate=False)), **dict(member.named_buffers())}
        found = {name: (type(t) is nn.Parameter, tuple(t.shape), t.dtype, t.device) for name, t in tensors.items()}
        return found | {f"module {name!r}": kind(m) for name, m in member.named_modules(remove_duplicate=False)}

    first = layout(members[0])
    for k, member in enumerate(members[1:], start=1):
        expected, got = (kind(m)[0] for m in (members[0], member))
        if got is not expected:
            raise ValueError(f"members: expected {expected.__name__}, got {got.__name__} as member {k}")
        other = layout(member)
        for name in first | other:
            if first.get(name) != other.get(name):
                expected, got = (values.get(name, "none") for values in (first, other))
                raise ValueError(f"members: expected {name} as in member 0, {expected}, got {got} in member {k}")


class Ensemble(nn.Module):
    """Independent networks of one architecture, whose parameters are stacked on a leading axis.

    The stacked values keep the names that they have in a member, behind `stacked.`; buffers that are equal in all
    members stay as they are. An optimiser that works on each number by itself (SGD, Adam, ...) trains all members as
    it would train each one alone, if the loss is the sum of theirs. Other settings that are not tensors, such as the
    kernel, are those of the first member.

    Args:
        members: at least one module; submodules of the same names and types, parameters and buffers of the same names,
            shapes, types and device, neurons of the same `dt`, `method` and `alpha`. Their values are copied.

    Called with the input of a member, it gives it to all and returns the output of a member (a tensor, or a tuple of
    tensors) with a leading axis of length E. Members must draw no random numbers in their forward pass.

    Raises:
        ValueError: if there is no member, or they differ in more than values.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        members = list(members)
        _check_alike(members)
        if any(getattr(module, "method", None) == "adjoint" for module in members[0].modules()):
            raise ValueError("members: method='adjoint' has no rule for many networks at once; train them one by one")
        self.size = len(members)
        self.stacked = copy.deepcopy(members[0])
        self._one = [copy.deepcopy(members[0]).to("meta")]  # in a list: its parameters are not the ensemble's
        new = {}  # a parameter that two modules share stays one
        for name, parameter in list(self.stacked.named_parameters(remove_duplicate=False)):
            values = torch.stack([member.get_parameter(name).detach() for member in members])
            if parameter not in new:
                new[parameter] = nn.Parameter(values, requires_grad=parameter.requires_grad)
            module, last = _owner(self.stacked, name)
            module._parameters[last] = new[parameter]
        self.stacked_buffers = []
        for name, buffer in list(self.stacked.named_buffers(remove_duplicate=False)):
            buffers = [member.get_buffer(name) for member in members]
            if not all(torch.equal(buffer, other) for other in buffers):
                module, last = _owner(self.stacked, name)
                module._buffers[last] = torch.stack(buffers)
                self.stacked_buffers.append(name)

    def __len__(self) -> int:
        """Return the number of members E."""
        return self.size

    def extra_repr(self) -> str:
        """Show the number of members."""
        return f"size={self.size}"

    def forward(self, *args, **options):
        """Return what the members return, stacked."""
        parameters = dict(self.stacked.named_parameters(remove_duplicate=False))
        buffers = dict(self.stacked.named_buffers(remove_duplicate=False))
        axes = dict.fromkeys(parameters, 0) | {name: 0 if name in self.stacked_buffers else None for name in buffers}
        one = self._one[0].train(self.training)

        def member(values):
            return functional_call(one, values, args, options, tie_weights=False)

        return torch.vmap(member, in_dims=(axes,))(parameters | buffers)

    def member(self, k: int) -> nn.Module:
        """Return a copy of member k, a module that works alone.

        Raises:
            IndexError: if there is no such member.
        """
        if not -self.size <= k < self.size:
            raise IndexError(f"k: expected a member below {self.size}, got {k}")
        member = copy.deepcopy(self.stacked)
        new = {}
        for name, parameter in list(member.named_parameters(remove_duplicate=False)):
            module, last = _owner(member, name)
            if parameter not in new:
                new[parameter] = nn.Parameter(parameter.detach()[k].clone(), requires_grad=parameter.requires_grad)
            module._parameters[last] = new[parameter]
        for name in self.stacked_buffers:
            module, last = _owner(member, name)
            module._buffers[last] = module._buffers[last][k].clone()
        return member
