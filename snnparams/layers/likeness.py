"""Whether networks differ in nothing but their values: what an `Ensemble` can compute at once.

All that can change the numbers of a network is compared: types, shapes, modes, hooks, which tensors are one, and every
attribute. What cannot be shown to be equal counts as different.
"""

from __future__ import annotations

import copyreg
import math
import reprlib
import types
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from snnparams.layers.neuron_parameters import NeuronParameters

OF_PYTORCH = set(vars(nn.Module()))  # attributes of every module, compared by what they mean
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
FLAGS = ("with_kwargs", "always_called")  # of some hooks
FIXED = "fixed"
EXACT = (str, bytes, int, complex, type(None), set, frozenset, type, types.ModuleType, types.CodeType)
ADVICE = (
    "; declare it as Learned in all members, with one constraint, and freeze it by requires_grad_(False) of "
    "p.raw(name) in those that do not learn it"
)


class _Missing:
    def __repr__(self) -> str:
        return "none"


def check_alike(members: Sequence[nn.Module]) -> None:
    """Check that modules differ in nothing but the values of their parameters and buffers, and in what is frozen.

    Raises:
        ValueError: with the first difference, the member, what was expected and what came; or if two names stand for
            one memory, which they would not after stacking.
        TypeError: if a member is not a module.
    """
    if not members:
        raise ValueError("members: expected at least one module, got none")
    _check_own_parameters(members)
    first, missing = describe(members[0]), _Missing()
    for k, member in enumerate(members):
        expected, got = (type_before_parametrizations(m) for m in (members[0], member))
        if got is not expected:
            raise ValueError(f"members: expected {expected.__name__}, got {got.__name__} as member {k}")
        _check_memory(member, k)
        other, likeness = describe(member), _Likeness(members[0], member)
        for what in first | other:
            expected, got = (found.get(what, missing) for found in (first, other))
            alike = likeness.holds(expected, got)
            if likeness.problem:
                raise ValueError(f"members: {likeness.problem} in {what} of member {k}")
            if not alike:
                shown = [value if isinstance(value, str) else reprlib.repr(value) for value in (expected, got)]
                advice = ADVICE if FIXED in shown else ""
                raise ValueError(
                    f"members: expected {what} as in member 0, {shown[0]}, got {shown[1]} in member {k}{advice}"
                )


def _check_own_parameters(members: Sequence[nn.Module]) -> None:
    """Refuse a learned parameter that two members share: alone, both would train one; stacked, each a copy."""
    owners: dict[nn.Parameter, int] = {}
    for k, member in enumerate(members):
        if not isinstance(member, nn.Module):
            raise TypeError(f"members: expected modules, got {type(member).__name__} as member {k}")
        for name, parameter in member.named_parameters():
            if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
                raise ValueError(
                    f"members: expected parameters without hooks, which their stacked copy would not have, got one on "
                    f"{name} of member {k}; register it on the parameter of the ensemble"
                )
            if owners.setdefault(parameter, k) != k and parameter.requires_grad:
                raise ValueError(
                    f"members: expected learned parameters of their own, got {name} shared by members "
                    f"{owners[parameter]} and {k}; give each its own, for instance by copy.deepcopy of the member"
                )


def _tensors(module: nn.Module) -> dict[str, tuple[str, torch.Tensor]]:
    """Return parameters and buffers, those that are shared under each of their names."""
    found = {name: ("parameter", p) for name, p in module.named_parameters(remove_duplicate=False)}
    return found | {name: ("buffer", b) for name, b in module.named_buffers(remove_duplicate=False)}


def _place(tensor: torch.Tensor) -> tuple[str, int, int] | None:
    """Return where in memory a tensor begins and ends, if that is known."""
    if tensor.layout != torch.strided or tensor.is_meta or not tensor.numel():
        return None
    last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return str(tensor.device), tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def _overlap(a: tuple[str, int, int] | None, b: tuple[str, int, int] | None) -> bool:
    return a is not None and b is not None and a[0] == b[0] and a[1] < b[2] and b[1] < a[2]


def _check_memory(member: nn.Module, k: int) -> None:
    """Refuse two tensors that look at one memory: stacked, a change of one would not reach the other."""
    tensors = {id(tensor): (_place(tensor), name) for name, (_, tensor) in _tensors(member).items()}
    places = sorted((place, name) for place, name in tensors.values() if place is not None)
    for (place, name), (following, other) in pairwise(places):
        if _overlap(place, following):
            raise ValueError(
                f"members: expected tensors with memory of their own, got {name} and {other} of member {k} in one; "
                "use one tensor in both places, or a clone"
            )


def describe(module: nn.Module) -> dict[str, Any]:
    """Return all that can change the numbers of a network, but for the values of its parameters and buffers."""
    modules = dict(module.named_modules(remove_duplicate=False))
    found: dict[str, Any] = {}
    for path, part in modules.items():
        if isinstance(part, NeuronParameters):
            for name in part.neuron_fields:
                constraint = part.constraint(name)
                learned = "learned" if constraint is None else f"learned ({constraint!r})"
                found[f"neuron parameter {join(path, name)}"] = (
                    learned if isinstance(part.raw(name), nn.Parameter) else FIXED
                )
    for path, part in modules.items():
        found[f"module {path!r}"] = type_before_parametrizations(part)
        found[f"mode of module {path!r}"] = "training" if part.training else "evaluation"
    names: dict[int, str] = {}
    for name, (kind, tensor) in _tensors(module).items():
        found[name] = f"a {kind} {tuple(tensor.shape)}, {tensor.dtype}, {tensor.device}"
        first = names.setdefault(id(tensor), name)
        found[f"tensor of {name}"] = "its own" if first == name else f"that of {first}"
    for path, part in modules.items():
        for kind in HOOKS:
            flags = [getattr(part, f"{kind}_{flag}", {}) for flag in FLAGS]
            hooks = [(hook, *(key in flag for flag in flags)) for key, hook in getattr(part, kind).items()]
            found[join(path, kind)] = hooks
        found |= {join(path, name): value for name, value in vars(part).items() if name not in OF_PYTORCH}
    return found


def same_modules(a: nn.Module, b: nn.Module) -> bool:
    """Return whether two modules are alike in all that can change numbers, their parameters and buffers included."""
    return a is b or _Likeness(nn.Module(), nn.Module()).holds(a, b)


def join(path: str, name: str) -> str:
    """Return the full name of what a submodule holds."""
    return f"{path}.{name}" if path else name


class _Likeness:
    """Compare attributes of two members.

    Objects are alike if they are of one type and consist of parts that are alike, the parts being those from which
    `copy.deepcopy` would build them. A method `__eq__` is not asked: it may leave out what changes numbers.

    `problem` says what is wrong with a tensor that an attribute was found to hold, if something is.
    """

    def __init__(self, first: nn.Module, other: nn.Module) -> None:
        self.paths = [{id(part): path for path, part in member.named_modules()} for member in (first, other)]
        self.tensors = [_tensors(member) for member in (first, other)]
        self.seen: dict[tuple[int, int], tuple] = {}  # holds the objects as well, so that no other gets their id
        self.problem = ""

    def holds(self, a: Any, b: Any) -> bool:
        """Return whether two values are alike."""
        if isinstance(a, nn.Module) and isinstance(b, nn.Module):  # parametrised ones have types of their own
            paths = [known.get(id(part)) for known, part in zip(self.paths, (a, b), strict=True)]
            if any(path is not None for path in paths):
                return paths[0] == paths[1]
        elif type(a) is not type(b):
            return False
        elif isinstance(a, float):
            return a == b or (math.isnan(a) and math.isnan(b))
        elif isinstance(a, EXACT):
            return a == b
        if (id(a), id(b)) in self.seen:  # compared already, or being compared
            return True
        self.seen[id(a), id(b)] = a, b
        if isinstance(a, torch.Tensor):
            return self._same_tensor(a, b)
        try:
            parts = _parts(a), _parts(b)
        except Exception:  # whatever the object raises: it cannot be taken apart
            return a is b
        return len(parts[0]) == len(parts[1]) and all(map(self.holds, *parts))

    def _same_tensor(self, a: torch.Tensor, b: torch.Tensor) -> bool:
        for tensor, known in zip((a, b), self.tensors, strict=True):
            names = [name for name, (_, t) in known.items() if t is tensor or _overlap(_place(t), _place(tensor))]
            if names:
                self.problem = f"expected {names[0]} to be used under this name only, got it"
            elif tensor.requires_grad:
                self.problem = "expected what is learned to be registered, got a tensor that requires a gradient"
        kinds = [(t.shape, t.dtype, t.device, t.layout, t.requires_grad) for t in (a, b)]
        if kinds[0] != kinds[1] or a.is_meta:
            return kinds[0] == kinds[1]
        a, b = a.detach().to_dense(), b.detach().to_dense()
        return bool(((a == b) | ((a != a) & (b != b))).all())


def _parts(value: Any) -> Sequence:
    """Return what an object consists of, of equal length for objects that may be alike."""
    if isinstance(value, nn.Module):  # one that is not registered: its values count as well
        return [{name: tensor for name, (_, tensor) in _tensors(value).items()}, describe(value)]
    if isinstance(value, tuple):
        return [*value, getattr(value, "__dict__", None)]
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        code, names = value.__code__, id(value.__globals__)
        return [code, names, value.__defaults__, value.__kwdefaults__, cells, vars(value)]
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, types.BuiltinFunctionType):
        return [value.__name__, value.__module__, value.__self__]
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return [value.shape, value.dtype, value.tobytes()]
    if isinstance(value, torch.Generator):  # an ensemble refuses to draw from it
        return []
    reduce = copyreg.dispatch_table.get(type(value))
    reduced = reduce(value) if reduce else value.__reduce_ex__(4)
    if isinstance(reduced, str):
        raise TypeError("a name, for what there is only once")
    return [tuple(part) if isinstance(part, Iterator) else part for part in reduced]
