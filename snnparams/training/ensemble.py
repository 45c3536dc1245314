"""Many independent networks of one architecture, computed and trained at once.

Controlled experiments need the same network many times: other seeds, other initial values, with and without learning.
The members of an `Ensemble` share nothing but their shapes, and get the numbers that each would get alone. Explained in
chapter 10.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from types import MappingProxyType
from typing import ClassVar, cast

import torch
from torch import nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves, tree_map

from snnparams.layers.attributes import Attributes
from snnparams.layers.checkpoint import NO_VALUES, of_members, to_store, with_tensors
from snnparams.layers.likeness import OF_PYTORCH, check_alike, join
from snnparams.layers.neuron_parameters import NeuronParameters
from snnparams.neurons.surrogate import Adjoint
from snnparams.parameters.declared import check_value
from snnparams.parameters.settings import is_whole
from snnparams.training.members import hand_over, kept
from snnparams.training.stacking import (
    _at_once,
    _can_stay_one,
    _computed,
    _independent,
    _is_of_one_member,
    _key,
    _PartlyFrozen,
    _stored,
)


def _keep_after_load(ensemble: Ensemble, incompatible_keys) -> None:
    ensemble._keep_frozen_values()


class Ensemble(Attributes):
    """Independent networks of one architecture, whose values are stacked on a leading axis.

    The stacked values keep the names that they have in a member, behind `stacked.`; fixed neuron parameters that are
    equal in all members stay as they are, so that one encoder may serve all. An optimiser that works on each number by
    itself (SGD, Adam, ...) trains all members as it would train each one alone, if the loss is the sum of theirs.

    A parameter that requires a gradient in some members only is frozen in the others: no optimiser can change it there,
    not by weight decay either. Then `stacked` holds the values of those that learn, shape (number of them, ...), in
    their order, and `frozen` the other values. A parameter or buffer that modules of a member share stays one. Modules
    of `stacked` may be set to training or evaluation mode as always, all of them or one.

    Args:
        members: at least one module. They may differ in the values of parameters and buffers and in what requires a
            gradient, but in nothing else that can change numbers: types, names, shapes, devices, modes, hooks, and
            attributes such as `dt`, `gradient` or `kernel`. Objects are compared by their parts, functions by their
            code; what cannot be compared has to be the same object. All are copied.
        randomness: what happens where a forward pass draws random numbers, as dropout does: "error", or as in
            `torch.vmap` "different" for each member, or the "same" for all. They are not those that a member would draw
            alone.

    Called with the input of a member, it gives it to all and returns the output of a member (a tensor, or a tuple of
    tensors) with a leading axis of length E. Buffers that a forward pass changes, such as running means, change for
    each member. A forward pass must keep no tensors but in buffers, and draw no random numbers unless `randomness` says
    that it may. With `in_dims`, as in `torch.vmap`, members get inputs and states of their own: 0 for an argument that
    has a leading axis of length E, None for one that all have in common, as in `ensemble(x, state, in_dims=(None, 0))`;
    one of the two stands for all arguments. On a CPU large members are computed a few at a time.

    `ensemble.halt(k)` takes a member out of training: `snnparams.train` and `fit` then leave its values as they are. In
    a loop of your own, put each batch into `with ensemble.halted_kept():`.

    Raises:
        ValueError: if there is no member; if they differ in more than values, or share a learned parameter; if a
            parameter or buffer is reached in other ways than by its name, which its copy would not be; or if they use
            the adjoint method.
        TypeError: if a member is not a module.
        RuntimeError: on calling, if a forward pass draws random numbers or keeps a tensor.
    """

    checked = MappingProxyType({"halted": lambda ensemble, members: frozenset(ensemble._checked(members))})
    as_built: ClassVar[tuple[str, ...]] = ("size", "randomness")
    halted: frozenset[int] = frozenset()  # members that are out of training

    def __init__(self, members: Sequence[nn.Module], *, randomness: str = "error") -> None:
        super().__init__()
        if isinstance(members, nn.Module) and not isinstance(members, (nn.ModuleList, nn.Sequential)):
            raise TypeError(f"members: expected a list of modules, got {type(members).__name__}")
        if randomness not in ("error", "different", "same"):
            raise ValueError(f"randomness: expected 'error', 'different' or 'same', got {randomness!r}")
        members, self.randomness = list(members), randomness
        check_alike(members)
        for part in (part for member in members for part in member.modules() if isinstance(part, NeuronParameters)):
            part.check_reads(wait=True)
        if any(isinstance(getattr(module, "gradient", None), Adjoint) for module in members[0].modules()):
            raise ValueError("members: the adjoint method has no rule for many networks at once; train them one by one")
        self.size = len(members)
        self.frozen = nn.ModuleDict()
        stacked: dict[int, torch.Tensor] = {}
        for name, parameter in members[0].named_parameters():
            stacked[id(parameter)] = self._stack(name, [member.get_parameter(name) for member in members])
        computed = _computed(members[0])
        for name, buffer in members[0].named_buffers():
            if name in computed:
                continue
            path, _, last = name.rpartition(".")
            buffers = [member.get_buffer(name) for member in members]
            alike = all(torch.equal(buffer, other) for other in buffers)
            if not (alike and _can_stay_one(members[0].get_submodule(path), last)):
                stacked[id(buffer)] = torch.stack(buffers)
        names = members[0].named_buffers(remove_duplicate=False)
        self.stacked_buffers = [name for name, buffer in names if id(buffer) in stacked]
        self.stacked = copy.deepcopy(members[0], stacked)  # these in place of copies, also where modules share them
        self.training = self.stacked.training
        for path, part in self._neuron_parameters():
            part._rows = {name: self.members_of(_stored(path, part, name)) for name in part.neuron_fields}
            part.keep_values()
        self._keep_frozen_values()
        self.register_load_state_dict_post_hook(_keep_after_load)

    def _neuron_parameters(self) -> list[tuple[str, NeuronParameters]]:
        return [(path, part) for path, part in self.stacked.named_modules() if isinstance(part, NeuronParameters)]

    def _frozen(self, path: str, part: NeuronParameters, name: str) -> _PartlyFrozen | None:
        """Return what holds a neuron parameter of the members that do not learn it, if some do."""
        key = _key(_stored(path, part, name))
        return cast(_PartlyFrozen, self.frozen[key]) if key in self.frozen else None

    def _stack(self, name: str, parameters: list[nn.Parameter]) -> nn.Parameter:
        """Return what is learned of a parameter, or all if nothing is; the rest becomes a part of `frozen`."""
        learns = torch.tensor([p.requires_grad for p in parameters])
        values = torch.stack([p.detach() for p in parameters])
        if not learns.any() or learns.all():
            return nn.Parameter(values, requires_grad=bool(learns.all()))
        learns = learns.to(values.device)
        self.frozen[_key(name)] = _PartlyFrozen(values[~learns], (~learns).nonzero().flatten(), len(values))
        return nn.Parameter(values[learns])

    def __len__(self) -> int:
        """Return the number of members E."""
        return self.size

    def extra_repr(self) -> str:
        """Show the number of members."""
        return f"size={self.size}"

    def _parameters_of_all(self) -> dict[str, torch.Tensor]:
        """Return all parameters, shape (E, ...), those that modules share under each of their names."""
        whole = {}
        for name, parameter in self.stacked.named_parameters():
            key = _key(name)
            whole[parameter] = self.frozen[key](parameter) if key in self.frozen else parameter
        return {name: whole[p] for name, p in self.stacked.named_parameters(remove_duplicate=False)}

    def forward(self, *args, in_dims: int | tuple[int | None, ...] | None = None, **options):
        """Return what the members return, stacked."""
        axes_of_args = self._check_in_dims(args, in_dims)
        parameters, computed = self._parameters_of_all(), _computed(self.stacked)
        buffers = dict(self.stacked.named_buffers(remove_duplicate=False))
        buffers = {name: buffer for name, buffer in buffers.items() if name not in computed}
        axes = dict.fromkeys(parameters, 0) | {name: 0 if name in self.stacked_buffers else None for name in buffers}

        def member(values, _, *args):
            given = dict(values)
            out = functional_call(self.stacked, values, args, options, tie_weights=False)
            return out, {name: value for name, value in values.items() if value is not given[name]}

        at_once = _at_once(self.size, parameters, buffers, args, axes_of_args)
        every = axes, 0, *axes_of_args
        over_members = torch.vmap(member, every, randomness=self.randomness, chunk_size=at_once)
        try:  # the index is there for members that have no values of their own
            out, replaced = over_members(parameters | buffers, torch.arange(self.size), *args)
        except RuntimeError as error:
            if "randomness" not in str(error):
                raise
            raise RuntimeError(self._about_random_numbers()) from error
        self._check_nothing_kept(parameters, buffers, replaced)
        for name, value in replaced.items():
            path, _, last = name.rpartition(".")
            self.stacked.get_submodule(path)._buffers[last] = value
        self.stacked_buffers += [name for name in replaced if name not in self.stacked_buffers]
        return tree_map(_independent, out)

    def _check_in_dims(self, args: tuple, in_dims) -> tuple[int | None, ...]:
        """Return for each argument whether it has an axis for the members."""
        axes = in_dims if isinstance(in_dims, tuple) else (in_dims,) * len(args)
        if len(axes) != len(args) or any(axis is not None and (type(axis) is not int or axis != 0) for axis in axes):
            expected = f"0 or None, or one of them for each of {len(args)} arguments"
            raise ValueError(f"in_dims: expected {expected}, got {in_dims!r}")
        for axis, value in zip(axes, args, strict=True):
            for leaf in tree_leaves(value) if axis == 0 else ():
                if not isinstance(leaf, torch.Tensor) or leaf.shape[:1] != (self.size,):
                    got = tuple(leaf.shape) if isinstance(leaf, torch.Tensor) else type(leaf).__name__
                    raise ValueError(f"input: expected a leading axis of {self.size} members for in_dims=0, got {got}")
                if leaf.layout != torch.strided:
                    raise TypeError(f"input: expected a dense tensor for in_dims=0, got layout {leaf.layout}")
        return axes

    def halt(self, *members: int) -> None:
        """Take members out of training, for good: see `halted_kept`.

        Raises:
            IndexError: if there is no such member.
        """
        self.halted = self.halted | set(self._checked(members))

    def _checked(self, members: Sequence[int]) -> list[int]:
        for k in members:
            if not is_whole(k, 0) or k >= self.size:
                raise IndexError(f"members: expected integers from 0 to {self.size - 1}, got {k!r}")
        return [int(k) for k in members]

    def select(self, members: Sequence[int], optimizer: torch.optim.Optimizer | None = None) -> Ensemble:
        """Return an ensemble of copies of some members: for going on without those that are of no interest any more.

        Args:
            members: their indices, in the wanted order.
            optimizer: of this ensemble. From then on it is one of the new ensemble, and keeps of its state what belongs
                to the members that stay.

        Raises:
            IndexError: if there is no such member.
            ValueError: if there is none at all, or one twice.
            TypeError: if the optimiser has a state that is not one number for each of a parameter's, or of all members.
        """
        members = self._checked(members)
        if not members or len(set(members)) < len(members):
            raise ValueError(f"members: expected at least one, and each once, got {members}")
        new = Ensemble([self.member(k) for k in members], randomness=self.randomness)
        new.halted = frozenset(place for place, k in enumerate(members) if k in self.halted)
        if optimizer is not None:
            hand_over(optimizer, self, new, members)
        return new

    def members_of(self, name: str) -> list[int]:
        """Return the members whose values of a parameter `stacked` holds, in their order."""
        frozen = cast(_PartlyFrozen, self.frozen[_key(name)]).members.tolist() if _key(name) in self.frozen else []
        return [k for k in range(self.size) if k not in frozen]

    def halted_kept(self) -> contextlib.AbstractContextManager[None]:
        """Give halted members at the end of a `with` the values that they had at its beginning, buffers included."""
        return kept(self, sorted(self.halted))

    def _about_random_numbers(self) -> str:
        drawing = [
            f"stacked.{name}"
            for name, module in self.stacked.named_modules()
            if isinstance(module, nn.modules.dropout._DropoutNd) and module.training
        ]
        which = f" ({', '.join(drawing)} in training mode)" if drawing else ""
        return (
            f"members: expected a forward pass that draws no random numbers, got one that does{which}; call .eval() of "
            "the module that draws them, build the ensemble with randomness='different', or give numbers as an input"
        )

    def _check_nothing_kept(self, parameters, buffers, replaced) -> None:
        """Refuse that a forward pass keeps a tensor elsewhere: it is of one member, and of no use afterwards."""
        kept = [name for name in parameters if name in replaced]
        for name, values in parameters.items():  # those put together from learned and frozen ones are copies
            path, _, last = name.rpartition(".")
            registered = self.stacked.get_submodule(path)._parameters[last]  # no nn.Parameter under functional_call
            if values is not registered and not values.is_inference() and values._version:
                kept.append(name)
        for path, module in self.stacked.named_modules():
            attributes = {name: value for name, value in vars(module).items() if name not in OF_PYTORCH}
            for name, value in (attributes | module._buffers).items():
                if (whole := join(path, name)) not in buffers:
                    kept += [whole for leaf in tree_leaves(value) if _is_of_one_member(leaf)]
        if kept:
            raise RuntimeError(
                f"members: expected a forward pass that keeps tensors in buffers only, got one in {kept[0]}; return "
                "it, or register a buffer for it before the ensemble is built"
            )

    @torch.no_grad()
    def _keep_frozen_values(self) -> None:
        """Compute what constraints make of frozen numbers, for a checkpoint."""
        for path, part in self._neuron_parameters():
            for name in part.constrained():
                if (frozen := self._frozen(path, part, name)) is not None:
                    constraint = of_members(cast(nn.Module, part.constraint(name)), frozen.members.tolist())
                    frozen.made = constraint(frozen.values).clone()

    def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
        self._keep_frozen_values()
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _convert(self, part, name: str, frozen: _PartlyFrozen, state_dict: dict, prefix: str, path: str) -> None:
        """Make of the frozen values in a state what is stored here, as is done with those that are learned.

        The state holds them under the name of what was stored: that has another one with a constraint than without.
        """
        plain, inside = join(path, name), join(path, f"parametrizations.{name}.original")
        constraint, keys = part.constraint(name), {key: f"{prefix}frozen.{_key(key)}." for key in (plain, inside)}
        there = next((key for key in (plain, inside) if f"{keys[key]}values" in state_dict), None)
        if there is None:
            return  # missing
        found = {what: state_dict.pop(keys[there] + what, None) for what in ("values", "made", "members")}
        value, stored = (found["made"], found["values"]) if there == inside else (found["values"], None)
        parameter = part.about(name)
        if value is not None:
            check_value(parameter, value, part.dt)
        if constraint is None and value is None:
            raise ValueError(f"{keys[there]}values: {NO_VALUES}")
        if constraint is not None:
            tensors = f"{prefix}stacked." + join(path, f"parametrizations.{name}.0.")
            constraint = with_tensors(constraint, state_dict, tensors, found["values"].device)
            value = to_store(parameter, value, stored, of_members(constraint, frozen.members.tolist()), part.dt)
        here = keys[plain if constraint is None else inside]
        state_dict[here + "values"] = value
        if found["members"] is not None:
            state_dict[here + "members"] = found["members"]

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        for name in self.stacked_buffers:  # a state of before may hold one buffer for all members
            value, shape = state_dict.get(f"{prefix}stacked.{name}"), self.stacked.get_buffer(name).shape
            if isinstance(value, torch.Tensor) and value.shape == shape[1:]:
                state_dict[f"{prefix}stacked.{name}"] = value.expand(shape).clone()
        for path, part in self._neuron_parameters():
            for name in part.neuron_fields:
                if (frozen := self._frozen(path, part, name)) is not None:
                    self._convert(part, name, frozen, state_dict, prefix, path)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def member(self, k: int) -> nn.Module:
        """Return a copy of member k, a module that works alone.

        Raises:
            IndexError: if there is no such member.
        """
        if not -self.size <= k < self.size:
            raise IndexError(f"k: expected a member below {self.size}, got {k}")
        own: dict[int, torch.Tensor] = {}
        values = self._parameters_of_all()
        for name, parameter in self.stacked.named_parameters():
            requires_grad = parameter.requires_grad and k % self.size in self.members_of(name)
            own[id(parameter)] = nn.Parameter(values[name].detach()[k].clone(), requires_grad=requires_grad)
        for name in self.stacked_buffers:
            buffer = self.stacked.get_buffer(name)
            own.setdefault(id(buffer), buffer[k].clone())
        alone = copy.deepcopy(self.stacked, own)
        for part in alone.modules():
            if isinstance(part, NeuronParameters):
                del part._rows
                part.keep_values()
        return alone
