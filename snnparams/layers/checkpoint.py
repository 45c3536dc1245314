"""Checkpoints of neuron parameters: what a file holds of one becomes what a layer stores.

A file holds the values of every parameter under its name. Where a constraint makes them of unconstrained numbers, it
holds those too. If the constraint of the layer makes the same values of them, they are loaded as they are, as PyTorch
would; else the values count, and the layer stores those numbers of which its own constraint makes them. Files of
version 0.1.0 and before have the unconstrained numbers alone.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch

from snnparams.layers.reads import Noted
from snnparams.neurons import Parameter
from snnparams.parameters.constraints import Constraint, Interval
from snnparams.parameters.declared import check_size, check_value
from snnparams.parameters.initial import unconstrained


def convert(p, name: str, state_dict: dict, prefix: str, error_messages: list[str]) -> None:
    """Make of what a checkpoint holds of one neuron parameter what a module stores.

    Args:
        p: the `NeuronParameters` that load it; left as it is.
        name: the parameter.
        state_dict: the checkpoint, changed in place.
        prefix: of the keys of `p`.
        error_messages: what PyTorch will raise as one error; added to.

    Raises:
        ValueError: if a value is invalid at the time step of `p`, out of the range of its constraint, or one of
            several that are to be one, also one that the members of an ensemble have in common.
    """
    key, inside = prefix + name, f"{prefix}parametrizations.{name}."
    value, stored = state_dict.get(key), state_dict.get(inside + "original")
    present = [t for t in (value, stored) if t is not None]
    if not present or not all(isinstance(t, torch.Tensor) for t in present):
        return  # missing, or refused by PyTorch
    place, constraint, parameter = p.raw(name), p.constraint(name), p.about(name)
    if value is not None:
        check_value(parameter, value, p.dt)
        own = {} if constraint is None else {f"{inside}0.{k}": t for k, t in constraint.state_dict().items()}
        for other in [k for k in state_dict if k.startswith(inside) and k not in (inside + "original", *own)]:
            del state_dict[other]  # of the constraint that made the values
        for k, tensor in own.items():
            state_dict.setdefault(k, tensor)
    if constraint is None:
        state_dict.pop(inside + "original", None)
        if value is None:
            error_messages.append(f"{key}: {NO_VALUES}")
            return
        state_dict[key] = value.detach()
    else:
        constraint = with_tensors(constraint, state_dict, f"{inside}0.", present[0].device)
        if p._rows is not None:
            constraint = of_members(constraint, p._rows[name])
        state_dict.pop(key, None)
        key = inside + "original"
        state_dict[key] = to_store(parameter, value, stored, constraint, p.dt)
    new = state_dict[key]
    if place.dim() and not new.dim():
        state_dict[key] = new.detach().expand(place.shape).clone()
    elif not place.dim() and new.dim() and not isinstance(place, torch.nn.Parameter):
        check_common(p, name, new)
        check_size(name, new, p.size)
    elif not place.dim() and new.numel() != 1:  # of several values PyTorch would take the first
        raise ValueError(f"{name}: expected one value, which all neurons share, got shape {tuple(new.shape)}")


def check_common(p, name: str, value: torch.Tensor) -> None:
    """Check that no values take the place of one that all members of an ensemble have in common.

    They could be one for each member or one for each neuron, which shapes alone do not tell.

    Raises:
        ValueError: if they would.
    """
    if p._rows is not None:
        raise ValueError(
            f"{p.about(name).name}: expected one value, which all members have in common, got shape "
            f"{tuple(value.shape)}; build the ensemble of members that have these values"
        )


def with_tensors(constraint: torch.nn.Module, state_dict: dict, prefix: str, device: torch.device) -> torch.nn.Module:
    """Return a constraint with the tensors that it will have when it has loaded a state, on a device."""
    loaded = {k[len(prefix) :]: t for k, t in state_dict.items() if k.startswith(prefix)}
    if not loaded:
        return constraint
    there = {k: t.to(device) if isinstance(t, torch.Tensor) and not t.is_meta else t for k, t in loaded.items()}
    constraint = copy.deepcopy(constraint)
    constraint.load_state_dict(there, strict=False, assign=True)
    return constraint


class _OfMembers(torch.nn.Module):
    """A user's constraint in an ensemble: each member has its own, and none sees the values of another."""

    def __init__(self, constraint: torch.nn.Module, rows: list[int]) -> None:
        super().__init__()
        own: list[dict] = [{id(b): b[k] for b in constraint.buffers()} for k in rows]
        for k, tensors in zip(rows, own, strict=True):
            tensors.update({id(p): torch.nn.Parameter(p.detach()[k]) for p in constraint.parameters()})
        self.each = torch.nn.ModuleList(copy.deepcopy(constraint, tensors) for tensors in own)

    def forward(self, stored: torch.Tensor) -> torch.Tensor:
        return torch.stack([one(x) for one, x in zip(self.each, stored, strict=True)])

    def right_inverse(self, value: torch.Tensor) -> torch.Tensor:
        return torch.stack([cast(Any, one).right_inverse(x) for one, x in zip(self.each, value, strict=True)])

    def __repr__(self) -> str:
        return repr(self.each[0])


def of_members(constraint: torch.nn.Module, rows: list[int]) -> torch.nn.Module:
    """Return a constraint in an ensemble as it applies to what is stored of the members with these indices."""
    return constraint if isinstance(constraint, Constraint) else _OfMembers(constraint, rows)


NO_VALUES = (
    "expected values, got a file of an earlier version, which has unconstrained numbers alone. "
    "Load it into a layer with the constraint that it was written with, and save the state of that"
)


def to_store(
    parameter: Parameter,
    value: torch.Tensor | None,
    stored: torch.Tensor | None,
    constraint: torch.nn.Module,
    dt: float,
) -> torch.Tensor:
    """Return the unconstrained numbers of a parameter: those of the file where they mean its values, else others.

    Args:
        parameter: what the neuron says of it.
        value: its values in the file, any shape, already checked; None in a file that has none.
        stored: the unconstrained numbers in the file, of the same shape; None in a file that has none.
        constraint: of the module that loads them.
        dt: its time step in s.

    Raises:
        ValueError: if numbers or values are invalid, or no numbers give the values under this constraint.
    """
    if stored is not None and not stored.is_meta and not torch.isfinite(stored).all():
        check_value(parameter, stored)  # raises
    if value is None:
        assert stored is not None
        check_value(parameter, constraint(stored), dt)
        return stored
    if stored is not None and stored.shape == value.shape and (value.is_meta or _makes(constraint, stored, value)):
        return stored
    new = unconstrained(parameter, value.detach(), constraint)
    if not isinstance(constraint, Constraint) and not value.is_meta:
        rounding = max(1e-3, 16 * torch.finfo(value.dtype).eps)  # of a user's functions there and back
        if not torch.allclose(constraint(new).detach(), value, rounding, rounding * value.abs().max().item()):
            raise ValueError(
                f"{parameter.name}: expected values that the constraint {constraint!r} can give, got others"
            )
    return new


def _makes(constraint: torch.nn.Module, stored: torch.Tensor, value: torch.Tensor) -> bool:
    """Return whether a constraint makes these values of what is stored, but for rounding in the type of the file."""
    try:
        with torch.no_grad():
            made = constraint(stored)
    except Exception:  # what a user's constraint raises for numbers that it does not allow, which are of another
        return False
    rounding = 4 * torch.finfo(value.dtype).eps
    # near zero an interval's lower bound and what is added to it cancel, and with them all but their rounding
    cancelled = abs(constraint.bounds[0]) if isinstance(constraint, Interval) else 0.0
    return made.shape == value.shape and torch.allclose(made.to(value.dtype), value, rounding, rounding * cancelled)


class Saved(Noted):
    """What `snnparams.NeuronParameters` are to a checkpoint."""

    _rows: dict[str, list[int]] | None = None  # in an ensemble: of which members each parameter is stored here

    def constrained(self) -> list[str]:
        """Return the names of the parameters that have a constraint."""
        return [name for name in self.neuron_fields if self.constraint(name) is not None]

    @torch.no_grad()
    def keep_values(self) -> None:
        """Compute the values under constraints for a checkpoint: buffers, which nothing else reads.

        As attributes these names stay the values that are computed at every use. Done for every `state_dict()`.
        """
        for name in self.constrained():
            constraint = self.get_submodule(f"parametrizations.{name}.0")
            if self._rows is not None:
                constraint = of_members(constraint, self._rows[name])
            self._buffers[name] = constraint(self.raw(name)).detach().clone()
        self._note_own()

    def _note_own(self) -> None:
        """Note which tensors are the module's own, so that those of a `functional_call` are seen to be others."""
        self._reads.own = {
            name: (self.raw(name), cast(torch.Tensor, self._buffers[name])) for name in self.constrained()
        }

    def _apply(self, fn, recurse=True):
        """Move or convert all tensors: PyTorch puts new ones into the place of buffers."""
        moved = super()._apply(fn, recurse)
        self._note_own()
        return moved

    def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
        """Save the values beside the numbers of which a constraint makes them, which alone would say nothing."""
        self.check_reads(wait=True)
        self.keep_values()
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, *reports) -> None:
        """Check all values before one takes the place of another, and convert them to what is stored here.

        PyTorch would copy values into the places of buffers where it is to assign the tensors of the checkpoint (it
        sets attributes, and to set one of ours writes into the place of the old values), so that is done before.
        """
        for name in self.neuron_fields:
            convert(self, name, state_dict, prefix, reports[-1])
            if any(prefix + key in state_dict for key in (name, f"parametrizations.{name}.original")):
                self._forget_reads(name)
        assign = local_metadata.get("assign_to_params_buffers", False)
        for name in self.neuron_fields:
            place, new = self.raw(name), state_dict.get(prefix + name)
            if not isinstance(new, torch.Tensor) or self.constraint(name) is not None:
                continue
            larger = name in self._buffers and not place.dim() and new.dim() > 0
            if assign and name in self._buffers and (larger or place.shape == new.shape):
                self._buffers[name] = new
            elif assign and place.shape == new.shape:
                self._parameters[name] = torch.nn.Parameter(new, requires_grad=place.requires_grad)
            elif larger:
                self._buffers[name] = place.new_empty(new.shape)
        order = list(self._buffers)
        values = {name: self._buffers.pop(name) for name in self.constrained() if name in self._buffers}
        try:  # PyTorch is to load what is stored alone, of which the values follow
            super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *reports)
        finally:
            loaded = {name: values[name] if name in values else self._buffers[name] for name in order}
            self._buffers.clear()
            self._buffers.update(loaded)
