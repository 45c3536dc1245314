"""What is measured of a model on a batch: its loss and how many classes it finds, or those of each member."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy, nll_loss
from torch.utils._pytree import tree_leaves, tree_map

from snnparams.data.mnist import Split
from snnparams.layers.checks import check_module
from snnparams.layers.contents import takes_time_first
from snnparams.training.ensemble import Ensemble

Loss = Callable[[Any, Any], torch.Tensor]


def _check_log_probabilities(outputs: Any, places: bool) -> None:
    """Check what `nll_loss` does not: outputs that are no log-probabilities give it a loss without a lower bound.

    Args:
        outputs: shape (B, classes).
        places: whether axes may follow, each place in them with a class of its own.
    """
    hint = "end with torch.log_softmax(..., dim=1), or give a loss of your own, as in loss=nn.functional.cross_entropy"
    fits = isinstance(outputs, torch.Tensor) and (outputs.dim() == 2 or (places and outputs.dim() > 2))
    if not fits or not outputs.is_floating_point():
        got = f"shape {tuple(outputs.shape)}" if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        raise TypeError(f"model: expected log-probabilities (B, classes), got {got}; give decode=..., or {hint}")
    sums = outputs.detach().float().logsumexp(dim=1)
    sums = sums[sums.isfinite()].exp()
    if ((sums - 1).abs() > 0.05).any():
        got = f"{sums.min().item():.3g} to {sums.max().item():.3g}"
        raise ValueError(
            f"model: expected log-probabilities, of probabilities whose sum is 1, got a sum of {got}; {hint}"
        )


def _check_labels(outputs: Any, labels: Any, probabilities: bool) -> None:
    """Check that labels are classes, one for each row of outputs: of others PyTorch says little, and a GPU nothing.

    A label of -100, which PyTorch leaves out of the mean, is refused as well: it would count as a class not found.
    """
    if not isinstance(outputs, torch.Tensor):
        got = type(outputs).__name__
        raise TypeError(f"model: expected a tensor of scores (B, classes, ...), got {got}; give decode=...")
    if outputs.dim() < 2:
        return
    shape = (outputs.shape[0], *outputs.shape[2:])
    expected = f"labels: expected classes from 0 to {outputs.shape[1] - 1}, int64 of shape {shape}"
    if not isinstance(labels, torch.Tensor):
        raise TypeError(f"{expected}, got {type(labels).__name__}")
    if labels.is_floating_point() and labels.shape == outputs.shape and probabilities:
        return
    if labels.dtype not in (torch.int64, torch.uint8):
        hint = "numbers need a loss of your own, as in loss=nn.functional.mse_loss"
        raise TypeError(f"{expected}, got {labels.dtype}; {hint if labels.is_floating_point() else 'call .long()'}")
    if labels.shape != shape:
        hint = f"; the model returned {tuple(outputs.shape)}, of which the first axis has to be the batch"
        raise ValueError(f"{expected}, got shape {tuple(labels.shape)}{hint}")
    wrong = labels[(labels < 0) | (labels >= outputs.shape[1])]
    if len(wrong):
        raise ValueError(f"{expected}, got {wrong[0].item()}")


class Measure:
    """Loss and accuracy of what a model returns, or of the members of an ensemble."""

    def __init__(self, model: nn.Module, loss: Loss, decode, data: Any = None) -> None:
        if not callable(loss):
            raise TypeError(f"loss: expected a function of outputs and labels, got {type(loss).__name__}")
        if decode is not None and not callable(decode):
            raise TypeError(f"decode: expected a function of what the model returns, got {type(decode).__name__}")
        check_module(model)
        if isinstance(data, Split) and takes_time_first(model.stacked if isinstance(model, Ensemble) else model):
            raise ValueError(
                "model: expected one that takes the batch first, as a Split has it, got layers, which take time first; "
                "put them into a module that exchanges the two axes"
            )
        self.model, self.loss, self.decode = model, loss, decode
        self.members = model.size if isinstance(model, Ensemble) else None
        self.places = isinstance(loss, nn.NLLLoss)
        self.unchecked = loss is nll_loss or self.places
        self.probabilities = loss is cross_entropy or isinstance(loss, nn.CrossEntropyLoss)  # may be labels
        self.of_classes = self.probabilities or self.unchecked

    def outputs(self, inputs, labels, apart: bool = False) -> list[tuple[Any, Any]]:
        """Return what the model, or each member, makes of a batch, and the labels; `apart` if each has its own."""
        outputs = self.model(inputs, in_dims=0) if apart else self.model(inputs)
        parts = [outputs]
        if self.members is not None:
            parts = [tree_map(lambda x, k=k: x[k], outputs) for k in range(self.members)]
        pairs = [(part if self.decode is None else self.decode(part), labels) for part in parts]
        if apart:
            pairs = [(part, labels[k]) for k, (part, _) in enumerate(pairs)]
        if self.unchecked:
            for part, _ in pairs:
                _check_log_probabilities(part, self.places)
            self.unchecked = False
        return pairs

    def losses(self, pairs) -> torch.Tensor:
        """Return the loss of each, shape (1,) or (E,)."""
        if self.of_classes:
            for part, labels in pairs:
                _check_labels(part, labels, self.probabilities)
        found = [self.loss(part, labels) for part, labels in pairs]
        for value in found:
            if not isinstance(value, torch.Tensor) or value.dim():
                got = f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
                raise TypeError(f"loss: expected it to return one number as a tensor, the mean of a batch, got {got}")
        return torch.stack(found)

    def shaped(self, values: list[float]):
        """Return one number for a model and a list for an ensemble."""
        return values[0] if self.members is None else values


def rows_of(labels: Any) -> int:
    """Return how many inputs a batch has, of labels that may be a tensor, or some in a dictionary, say."""
    tensors = [x for x in tree_leaves(labels) if isinstance(x, torch.Tensor) and x.dim()]
    return len(tensors[0]) if tensors else len(labels)


def classes_found(outputs: Any, labels: Any) -> float:
    """Return how many classes are found, or NaN where there are none to find."""
    if not isinstance(outputs, torch.Tensor) or outputs.dim() != 2 or not isinstance(labels, torch.Tensor):
        return math.nan
    if labels.dim() != 1 or labels.is_floating_point() or labels.is_complex():
        return math.nan
    return float((outputs.argmax(dim=1) == labels).sum())
