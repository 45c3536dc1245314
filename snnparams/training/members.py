"""What is done to some members of an `Ensemble` and not to others: they stop, are clipped, are handed over."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn

from snnparams.parameters.settings import is_number

if TYPE_CHECKING:  # which imports this module
    from snnparams.training.ensemble import Ensemble


@contextlib.contextmanager
def kept(ensemble: Ensemble, members: list[int]) -> Iterator[None]:
    """Give members at the end the values that they had at the beginning, buffers included."""
    kept: list[tuple[Callable[[str], torch.Tensor], str, list[int], torch.Tensor]] = []
    for name, parameter in ensemble.stacked.named_parameters() if members else ():
        rows = [row for row, k in enumerate(ensemble.members_of(name)) if k in members]
        kept.append((ensemble.stacked.get_parameter, name, rows, parameter.detach()[rows].clone()))
    for name in ensemble.stacked_buffers if members else ():
        kept.append((ensemble.stacked.get_buffer, name, members, ensemble.stacked.get_buffer(name)[members].clone()))
    try:
        yield
    finally:
        with torch.no_grad():
            for find, name, rows, values in kept:
                find(name)[rows] = values


@torch.no_grad()
def take_over(ensemble: Ensemble, values: dict[str, torch.Tensor], members: list[int]) -> None:
    """Write the present values of some members, buffers included, into those that are kept of all.

    Those may be on another device, as a checkpoint is that was read.
    """
    for name, parameter in ensemble.stacked.named_parameters():
        rows = [row for row, k in enumerate(ensemble.members_of(name)) if k in members]
        kept = values.setdefault(name, parameter.detach().clone())
        kept[rows] = parameter[rows].to(kept.device)
    for name in ensemble.stacked_buffers:
        buffer = ensemble.stacked.get_buffer(name)
        kept = values.setdefault(name, buffer.clone())
        kept[members] = buffer[members].to(kept.device)


@torch.no_grad()
def give_back(ensemble: Ensemble, values: dict[str, torch.Tensor]) -> None:
    """Give all members the values that `take_over` kept."""
    for name, parameter in ensemble.stacked.named_parameters():
        parameter.copy_(values[name])
    for name in ensemble.stacked_buffers:
        ensemble.stacked.get_buffer(name).copy_(values[name])


def check_clip(clip) -> None:
    """Check a norm for clipping.

    Raises:
        ValueError: if it is neither None nor positive and finite.
    """
    if clip is not None and not (is_number(clip) and 0 < clip < math.inf):
        raise ValueError(f"clip: expected a positive, finite norm or None, got {clip!r}")


@torch.no_grad()
def clip_gradients_(ensemble: Ensemble, max_norm: float) -> None:
    """Scale the gradients of each member down to a largest norm, as `nn.utils.clip_grad_norm_` would alone.

    Raises:
        TypeError: if a gradient is sparse.
    """
    graded = [(n, p.grad) for n, p in ensemble.stacked.named_parameters() if p.grad is not None and p.requires_grad]
    rows = {name: torch.tensor(ensemble.members_of(name), device=grad.device) for name, grad in graded}
    if not graded:
        return
    squares = graded[0][1].new_zeros(ensemble.size)
    for name, grad in graded:
        if grad.is_sparse:
            raise TypeError(f"{name}: expected a dense gradient to clip in an ensemble, got a sparse one")
        squares.index_add_(0, rows[name], grad.reshape(len(grad), -1).square().sum(dim=1).to(squares))
    scale = (max_norm / (squares.sqrt() + 1e-6)).clamp(max=1)
    for name, grad in graded:
        grad.mul_(scale[rows[name]].view(-1, *[1] * (grad.dim() - 1)).to(grad))


def hand_over(optimizer: torch.optim.Optimizer, old: Ensemble, new: Ensemble, members: list[int]) -> None:
    """Make an optimiser of an ensemble one of some of its members, which another ensemble holds copies of.

    Raises:
        TypeError: if it has a state that is not one number for each of a parameter's, or of all members.
    """
    replacement: dict[nn.Parameter, nn.Parameter] = {}
    states: dict[nn.Parameter, dict] = {}
    for name, before in old.stacked.named_parameters():
        parameter = replacement[before] = new.stacked.get_parameter(name)
        here = old.members_of(name)
        rows = [here.index(members[k]) for k in new.members_of(name) if members[k] in here]
        for key, value in optimizer.state.get(before, {}).items():
            if isinstance(value, torch.Tensor) and value.dim() and value.shape != before.shape:
                expected = f"a state {tuple(before.shape)} or one number"
                raise TypeError(f"optimizer: expected {expected} for {name}, got {key} of shape {tuple(value.shape)}")
            if not (parameter.requires_grad and before.requires_grad):
                continue
            own = isinstance(value, torch.Tensor) and value.dim()
            states.setdefault(parameter, {})[key] = value[rows].clone() if own else value
    for group in optimizer.param_groups:
        group["params"] = [replacement.get(parameter, parameter) for parameter in group["params"]]
    for before, parameter in replacement.items():
        optimizer.state.pop(before, None)
        if parameter in states:
            optimizer.state[parameter] = states[parameter]
