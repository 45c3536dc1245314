"""What a training run recorded: it prints in a line and plots itself."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import torch
from torch import nn

from snnparams.training.diagnostics import learned_values


class Evaluation(NamedTuple):
    """Mean loss and accuracy (0 to 1) on a data set; of an `Ensemble` a list of each member's.

    The loss is the negative log-likelihood, unless another one was given. The accuracy is NaN where the labels are no
    classes.
    """

    loss: Any
    accuracy: Any


@dataclasses.dataclass(repr=False)
class History:
    """What a training run recorded: one training loss per batch, one evaluation per epoch.

    `neuron_parameters` holds the values of each learned neuron parameter, for instance "hidden.p.tau_mem_inv", before
    the first epoch and after each. `learning_rates` are those of the optimiser's groups in each epoch. `stopped` is the
    name of the callback that ended the run, if one did.

    Of an `Ensemble`, each loss and accuracy is a list of the members'; `member(k)` is the history of one.
    """

    train_losses: list[Any] = dataclasses.field(default_factory=list)
    test_losses: list[Any] = dataclasses.field(default_factory=list)
    accuracies: list[Any] = dataclasses.field(default_factory=list)
    neuron_parameters: dict[str, list[list[float]]] = dataclasses.field(default_factory=dict)
    learning_rates: list[list[float]] = dataclasses.field(default_factory=list)
    stopped: str = ""

    @property
    def epochs(self) -> int:
        """Number of epochs done."""
        return len(self.accuracies)

    @property
    def size(self) -> int | None:
        """Number of members of an ensemble, or None of one model."""
        first = next(iter(self.test_losses), None)
        return len(first) if isinstance(first, list) else None

    @property
    def best_epoch(self) -> int:
        """The epoch of the lowest test loss, counted from 1; the first of several.

        Raises:
            ValueError: if no epoch is done, or this is the history of an ensemble.
        """
        if not self.test_losses or self.size is not None:
            got = "the history of an ensemble; use member(k)" if self.test_losses else "none"
            raise ValueError(f"expected at least one epoch of one model, got {got}")
        return 1 + min(range(self.epochs), key=self.test_losses.__getitem__)

    def record(self, model: nn.Module) -> None:
        """Add the present values of the learned neuron parameters of a model."""
        for name, values in learned_values(model).items():
            self.neuron_parameters.setdefault(name, []).append(values.flatten().tolist())

    def moved(self) -> dict[str, float]:
        """Return by which share of itself each learned neuron parameter has moved since the beginning.

        That is the median over the neurons of the distance from the first recorded values, over the median size of
        those. Where all first values are 0, it is 0 if nothing has moved and infinite otherwise. 1e-4 says that a
        parameter is frozen or its learning rate far too small, 1 that it is another one.

        Raises:
            ValueError: if nothing was trained, or the model has no learned neuron parameter.
        """
        if not self.epochs or not self.neuron_parameters:
            got = "none" if self.epochs else "no epoch"
            raise ValueError(f"expected learned neuron parameters that were recorded over epochs, got {got}")
        shares = {}
        for name, records in self.neuron_parameters.items():
            first, last = (torch.tensor(values, dtype=torch.float64) for values in (records[0], records[-1]))
            distance, size = (last - first).abs().median().item(), first.abs().median().item()
            shares[name] = distance / size if size else (math.inf if distance else 0.0)
        return shares

    def member(self, k: int) -> History:
        """Return the losses and accuracies of one member of an ensemble.

        Raises:
            ValueError: if this is the history of one model.
            IndexError: if there is no such member.
        """
        if self.size is None:
            raise ValueError("expected the history of an ensemble, got that of one model")
        train, test, right = (
            [of[k] for of in found] for found in (self.train_losses, self.test_losses, self.accuracies)
        )
        return History(train, test, right, {}, self.learning_rates, self.stopped)

    def __repr__(self) -> str:
        """Say in a line what was reached."""
        if not self.epochs:
            return "History(no epoch)"
        members = [self] if self.size is None else [self.member(k) for k in range(self.size)]
        best = [one.best_epoch for one in members]

        def spread(values, form) -> str:
            low, high = min(values), max(values)
            return form(low) if low == high else f"{form(low)} to {form(high)}"

        text = f"History({self.epochs} epochs" + ("" if self.size is None else f" of {self.size} members")
        text += f", test loss {spread([one.test_losses[-1] for one in members], '{:.4g}'.format)}"
        if not any(math.isnan(one.accuracies[-1]) for one in members):
            text += f", accuracy {spread([one.accuracies[-1] for one in members], '{:.1%}'.format)}"
        lowest = [one.test_losses[epoch - 1] for one, epoch in zip(members, best, strict=True)]
        text += f"; lowest test loss {spread(lowest, '{:.4g}'.format)} in epoch {spread(best, str)}"
        return text + (f"; stopped by {self.stopped})" if self.stopped else ")")

    def plot(self, axes=None):
        """Draw the losses and, where there are any, the accuracies over the epochs.

        Args:
            axes: two axes of matplotlib, or None for a new figure.

        Returns:
            The two axes.

        Raises:
            ValueError: if no epoch is done.
        """
        import matplotlib.pyplot as plt

        if not self.epochs:
            raise ValueError("expected at least one epoch, got none")
        if axes is None:
            _, axes = plt.subplots(1, 2, figsize=(7, 2.6), layout="constrained")
        losses, accuracies = axes
        epochs = range(1, self.epochs + 1)
        batches = [(k + 1) * self.epochs / len(self.train_losses) for k in range(len(self.train_losses))]
        for k, one in enumerate([self] if self.size is None else [self.member(k) for k in range(self.size)]):
            losses.plot(batches, one.train_losses, color="C0", alpha=0.4, label=None if k else "training")
            losses.plot(epochs, one.test_losses, "o-", color="C1", label=None if k else "test")
            accuracies.plot(epochs, [100 * share for share in one.accuracies], "o-", color="C1")
        losses.set(xlabel="epoch", ylabel="loss")
        losses.legend()
        accuracies.set(xlabel="epoch", ylabel="test accuracy (%)")
        return losses, accuracies
