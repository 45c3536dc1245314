"""Checkpoints of neuron parameters: what a file holds of one becomes what a layer stores.

A file holds the values of every parameter under its name. Where a constraint makes them of unconstrained numbers, it
holds those too, and what the constraint makes of a few given numbers: this tells one from another, whatever its kind,
range and time step. Under the same one the unconstrained numbers are loaded as they are, as PyTorch would; under
another, or none, the values count. Files of version 0.1.0 and before have the unconstrained numbers alone.
"""

from __future__ import annotations

import copy

import torch

from snnparams.values import check_size, check_value, unconstrained


def example(constraint: torch.nn.Module, stored: torch.Tensor) -> torch.Tensor:
    """Return what a constraint makes of given numbers, at its ends and between: shape (5, ...) of what is stored."""
    with torch.no_grad():
        return torch.stack([constraint(torch.full_like(stored, x)) for x in (-1000.0, -1.0, 0.0, 1.0, 1000.0)])


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
            several that are to be one.
    """
    key, inside = prefix + name, f"{prefix}parametrizations.{name}."
    value, stored = state_dict.get(key), state_dict.get(inside + "original")
    made_there = state_dict.pop(inside + "_extra_state", None)
    present = [t for t in (value, stored) if t is not None]
    if not present or not all(isinstance(t, torch.Tensor) for t in present):
        return  # missing, or refused by PyTorch
    place, constraint = p.stored(name), p.constraint(name)
    if value is not None:
        check_value(name, value, p.dt)
        own = {} if constraint is None else {f"{inside}0.{k}": t for k, t in constraint.state_dict().items()}
        for other in [k for k in state_dict if k.startswith(inside) and k not in (inside + "original", *own)]:
            del state_dict[other]  # of the constraint that made the values
        for k, tensor in own.items():
            state_dict.setdefault(k, tensor)
    if constraint is None:
        state_dict.pop(inside + "original", None)
        if value is None:
            error_messages.append(
                f"{key}: expected values, got a file of an earlier version, which has unconstrained numbers alone. "
                "Load it into a layer with the constraint that it was written with, and save the state of that"
            )
            return
        state_dict[key] = value.detach()
    else:
        if loaded := {k[len(inside) + 2 :]: t for k, t in state_dict.items() if k.startswith(f"{inside}0.")}:
            constraint = copy.deepcopy(constraint)  # with the tensors that it will have
            constraint.load_state_dict(loaded, strict=False)
        if stored is not None:
            check_value(name, constraint(stored), p.dt)
        if made_there is None:  # left out
            same = value is None or (stored is not None and _agree(constraint(stored), value))
        else:
            same = stored is not None and _agree(example(constraint, stored), made_there)
        if value is not None and not same:
            state_dict[inside + "original"] = unconstrained(name, value.detach(), constraint)
        state_dict.pop(key, None)
        key = inside + "original"
    new = state_dict[key]
    if place.dim() and not new.dim():
        state_dict[key] = new.detach().expand(place.shape).clone()
    elif not place.dim() and new.dim() and not isinstance(place, torch.nn.Parameter):
        check_size(name, new, p.size)
    elif not place.dim() and new.numel() != 1:  # of several values PyTorch would take the first
        raise ValueError(f"{name}: expected one value, which all neurons share, got shape {tuple(new.shape)}")


def _agree(computed: torch.Tensor, values: torch.Tensor) -> bool:
    """Return whether two constraints made the same of the same numbers, but for rounding."""
    if computed.shape != values.shape:
        return False
    if values.is_meta:
        return True
    rounding = 32 * torch.finfo(values.dtype).eps
    return torch.allclose(computed, values, rtol=rounding, atol=rounding, equal_nan=True)
