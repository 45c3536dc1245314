"""Data in batches: tensors in memory, data sets and loaders, in an order that is drawn or in their own."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader, Dataset, IterableDataset

from snnparams.data.mnist import Split
from snnparams.layers.checks import check_finite
from snnparams.parameters.settings import check_counts

Data = Split | Dataset | DataLoader


def _checked_split(split: Split) -> Split:
    for name, value in split._asdict().items():
        if not isinstance(value, (torch.Tensor, np.ndarray)):
            raise TypeError(f"split.{name}: expected a tensor, got {type(value).__name__}")
    split = Split(*(torch.as_tensor(value) for value in split))  # arrays of NumPy: no copy
    if len(split.labels) == 0 or len(split.inputs) != len(split.labels):
        got = f"{len(split.inputs)} images and {len(split.labels)} labels"
        raise ValueError(f"split: expected as many labels as images and at least one, got {got}")
    if split.inputs.is_floating_point():
        check_finite("images", split.inputs)
    return split


def checked_data(data: Data, batch_size: int, generator) -> Data:
    """Return data that are there, of a kind that can be had in batches, and that the generator can order.

    Raises:
        TypeError: if they are of another kind.
        ValueError: if the size of a batch is no positive integer, a split is empty or not finite, or a generator would
            not be used.
    """
    check_counts(batch_size=batch_size)
    if isinstance(data, Split):
        return _checked_split(data)
    if not isinstance(data, (DataLoader, Dataset)):
        raise TypeError(f"data: expected a Split, a Dataset or a DataLoader, got {type(data).__name__}")
    if isinstance(generator, (list, tuple)):
        raise ValueError("generator: expected one alone with a Dataset or DataLoader, got several, for members")
    if isinstance(data, DataLoader) and generator is not None:
        raise ValueError("generator: expected None with a DataLoader, which draws the order from its own, got one")
    if isinstance(data, IterableDataset) and generator is not None:
        raise ValueError("generator: expected None with an IterableDataset, which comes in its own order, got one")
    return data


def _of_loader(loader, device: torch.device | None) -> Iterator[tuple[Any, Any]]:
    """Go through the batches of a loader, on the device of the model."""
    count = 0
    for batch in loader:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            got = f"{len(batch)} of them" if isinstance(batch, (tuple, list)) else type(batch).__name__
            raise TypeError(f"data: expected batches of two, inputs and labels, got {got}")
        count += 1
        yield tuple(tree_map(lambda x: x.to(device) if isinstance(x, torch.Tensor) else x, batch))
    if not count:
        raise ValueError("data: expected at least one batch, got none")


def shuffled(data: Data, batch_size: int, generator, device) -> tuple[Any, int | None]:
    """Return batches in an order that is drawn, where the data have none, and their number if it is known."""
    if isinstance(data, Split):
        several = isinstance(generator, (list, tuple))
        draws = [torch.randperm(len(data.labels), generator=g) for g in (generator if several else [generator])]
        order = (torch.stack(draws) if several else draws[0]).to(data.labels.device)
        parts = order.split(int(batch_size), dim=-1)
        return ((data.inputs[part], data.labels[part]) for part in parts), len(parts)
    drawn = not isinstance(data, IterableDataset)
    loader = data if isinstance(data, DataLoader) else DataLoader(data, int(batch_size), drawn, generator=generator)
    count = len(loader) if isinstance(loader.dataset, Sized) else None
    return _of_loader(loader, device), count


def in_order(data: Data, batch_size: int, device) -> Iterator[tuple[Any, Any]]:
    """Return batches in the order of the data."""
    if isinstance(data, Split):
        return zip(data.inputs.split(int(batch_size)), data.labels.split(int(batch_size)), strict=True)
    return _of_loader(data if isinstance(data, DataLoader) else DataLoader(data, int(batch_size)), device)


def device_of(model: nn.Module) -> torch.device | None:
    """Return the device of a model, or None if it has no tensor."""
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), None)


def check_generators(generator, members: int | None) -> bool:
    """Return whether each member has its own.

    Raises:
        TypeError: if what is given is no generator of PyTorch.
        ValueError: if there are several, but not one for each member.
    """
    for one in generator if isinstance(generator, (list, tuple)) else [generator]:
        if one is not None and not isinstance(one, torch.Generator):
            raise TypeError(f"generator: expected a torch.Generator, got {type(one).__name__}")
    if not isinstance(generator, (list, tuple)):
        return False
    if members is None or len(generator) != members:
        expected = "one generator for one model" if members is None else f"one for each of {members} members"
        raise ValueError(f"generator: expected {expected}, got {len(generator)}")
    return True


def _samplers(loader: DataLoader) -> list[Any]:
    """Return what has to do with the order of a loader."""
    return [loader, loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None)]


def begin_epoch(data: Data, epoch: int) -> None:
    """Tell a sampler which epoch begins, where it asks: `DistributedSampler` else draws the same order every time."""
    for sampler in _samplers(data) if isinstance(data, DataLoader) else []:
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)


def generators_of(generator, *data: Data) -> list[torch.Generator]:
    """Return the generators that say in which order data come, or what workers draw, but for the global one."""
    given = list(generator) if isinstance(generator, (list, tuple)) else [generator]
    for loader in data:
        if isinstance(loader, DataLoader):
            given += [getattr(sampler, "generator", None) for sampler in _samplers(loader)]
    return list(dict.fromkeys(g for g in given if g is not None))
