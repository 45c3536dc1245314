"""Train and evaluate a classifier on data in memory; stop, and go on where it stopped.

A model maps a batch of images to log-probabilities of the classes. `train` and `evaluate` are those that
chapter 4 writes out, with the checks that a library needs.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import os
import threading
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import nll_loss

from snnparams.checks import check_finite
from snnparams.data import Split
from snnparams.diagnostics import learned_values
from snnparams.parameters import NeuronParameters


class Evaluation(NamedTuple):
    """Mean negative log-likelihood and accuracy (0 to 1) on a data set."""

    loss: float
    accuracy: float


@dataclasses.dataclass
class History:
    """What a training run recorded: one training loss per batch, one evaluation per epoch.

    `neuron_parameters` holds the values of each learned neuron parameter, for instance "hidden.p.tau_mem_inv", before
    the first epoch and after each.
    """

    train_losses: list[float] = dataclasses.field(default_factory=list)
    test_losses: list[float] = dataclasses.field(default_factory=list)
    accuracies: list[float] = dataclasses.field(default_factory=list)
    neuron_parameters: dict[str, list[list[float]]] = dataclasses.field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """Number of epochs done."""
        return len(self.accuracies)

    def record(self, model: nn.Module) -> None:
        """Add the present values of the learned neuron parameters of a model."""
        for name, values in learned_values(model).items():
            self.neuron_parameters.setdefault(name, []).append(values.flatten().tolist())


@functools.cache
def _bars() -> type:
    """Return the kind of tqdm's bar for a terminal or a notebook, with a lock of this process alone.

    tqdm's own lock is shared with every process forked from this one, and with tqdm's thread that watches slow bars: a
    process killed while it draws would leave all others waiting for ever.
    """
    from tqdm.auto import tqdm

    class Bar(tqdm):
        monitor_interval = 0  # no such thread
        _lock = threading.RLock()  # what set_lock sets: without it, tqdm makes its own

    if hasattr(os, "register_at_fork"):  # a thread of the parent may hold the lock, and the child has no such thread
        os.register_at_fork(after_in_child=lambda: Bar.set_lock(threading.RLock()))
    return Bar


def progress_bar(iterable, show: bool = True, total: int | None = None):
    """Wrap an iterable in tqdm's progress bar, which disappears when it is done.

    The environment variable `TQDM_DISABLE` switches it off, in notebooks as well, where tqdm itself ignores it: a
    stored page should not show half a bar. Nor is there one where the output is no screen.

    Args:
        iterable: what to go through.
        show: whether to show the bar.
        total: how many items there are, where the iterable does not know.
    """
    hidden = not show or os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
    return _bars()(iterable, total=total, leave=False, disable=hidden or None)


def _check_split(split: Split, batch_size: int) -> None:
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size: expected a positive integer, got {batch_size!r}")
    if len(split.labels) == 0 or len(split.inputs) != len(split.labels):
        got = f"{len(split.inputs)} images and {len(split.labels)} labels"
        raise ValueError(f"split: expected as many labels as images and at least one, got {got}")
    if split.inputs.is_floating_point():
        check_finite("images", split.inputs)


def validate_neuron_parameters(model: nn.Module) -> None:
    """Check all neuron parameters of a model against the limits of the integrator.

    Raises:
        ValueError: with the module, the parameter, the offending value and the limit.
    """
    for name, module in model.named_modules():
        if isinstance(module, NeuronParameters):
            try:
                module.validate()
            except ValueError as error:
                raise ValueError(f"{name}.{error}") from None


def _check_gradients(model: nn.Module, batch: int) -> None:
    """A spike of a NaN membrane is 0, so the loss of a broken spiking network can be finite; its gradients are not."""
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            continue
        # of an embedding with sparse=True: the same row may come several times
        values = parameter.grad.coalesce().values() if parameter.grad.is_sparse else parameter.grad
        if not torch.isfinite(values).all():
            raise FloatingPointError(f"batch {batch}: expected finite gradients, got one that is not for {name}")


def train(
    model: nn.Module,
    split: Split,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator | None = None,
    batch_size: int = 256,
    progress: bool = True,
) -> list[float]:
    """Train a model for one epoch.

    Args:
        model: maps images (B, ...) to log-probabilities (B, classes).
        split: images and labels, on the device of the model.
        optimizer: over the model's parameters.
        generator: of the order of the images; the global one if None.
        batch_size: images in a batch; the last one may be smaller.
        progress: whether to show a progress bar.

    Returns:
        The loss of each batch.

    Raises:
        ValueError: if the split is empty, an image is not finite, or a neuron parameter has left its valid range.
        FloatingPointError: if a loss or a gradient is not finite; the model is then as it was before that batch.
    """
    _check_split(split, batch_size)
    model.train()
    losses = []
    order = torch.randperm(len(split.labels), generator=generator).to(split.labels.device)
    for batch in progress_bar(order.split(batch_size), progress):
        optimizer.zero_grad()
        loss = nll_loss(model(split.inputs[batch]), split.labels[batch])
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"batch {len(losses)}: expected a finite loss, got {losses[-1]}")
        loss.backward()
        _check_gradients(model, len(losses))
        optimizer.step()
    validate_neuron_parameters(model)
    return losses


@torch.no_grad()
def evaluate(model: nn.Module, split: Split, batch_size: int = 1000) -> Evaluation:
    """Evaluate a model; the training mode of each of its modules is restored afterwards.

    Args:
        model: maps images (B, ...) to log-probabilities (B, classes).
        split: images and labels, on the device of the model.
        batch_size: images in a batch.

    Returns:
        Mean negative log-likelihood and accuracy.

    Raises:
        ValueError: if the split is empty or an image is not finite.
    """
    _check_split(split, batch_size)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    loss, correct = 0.0, 0
    try:
        for images, labels in zip(split.inputs.split(batch_size), split.labels.split(batch_size), strict=True):
            log_p = model(images)
            loss += nll_loss(log_p, labels, reduction="sum").item()
            correct += (log_p.argmax(dim=1) == labels).sum().item()
    finally:
        for module, training in modes.items():
            module.training = training
    return Evaluation(loss / len(split.labels), correct / len(split.labels))


def fit(
    model: nn.Module,
    train_split: Split,
    test_split: Split,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    generator: torch.Generator | None = None,
    batch_size: int = 256,
    progress: bool = True,
    checkpoint: str | os.PathLike | None = None,
) -> History:
    """Train a model for several epochs and evaluate it after each.

    Args:
        model: maps images (B, ...) to log-probabilities (B, classes).
        train_split: images and labels to train on, on the device of the model.
        test_split: images and labels to evaluate on.
        optimizer: over the model's parameters.
        epochs: number of epochs in all, those of a resumed run included.
        generator: of the order of the images; the global one if None.
        batch_size: images in a training batch.
        progress: whether to show progress bars.
        checkpoint: a file to write after each epoch. If it exists, training goes on from there, with the same
            numbers as if it had never stopped: with the learning rate of the checkpoint, whatever the optimiser's.

    Returns:
        The losses, accuracies and neuron parameters, those before a resumption included.

    Raises:
        ValueError: if `epochs` is not an integer of at least 0, the checkpoint holds more of them or was written with
            another choice of generator or other constraints of the neuron parameters, or as `train`.
        RuntimeError: if the checkpoint is of another model.
        FloatingPointError: if a loss is not finite.
    """
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 0:
        raise ValueError(f"epochs: expected an integer of at least 0, got {epochs!r}")
    history = History()
    history.record(model)
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None and path.exists():
        history = _resume(path, model, optimizer, generator, epochs)
    remaining = progress_bar(range(history.epochs, epochs), progress)
    for _ in remaining:
        history.train_losses += train(model, train_split, optimizer, generator, batch_size, progress)
        loss, accuracy = evaluate(model, test_split)
        history.test_losses.append(loss)
        history.accuracies.append(accuracy)
        history.record(model)
        remaining.set_postfix(accuracy=f"{accuracy:.1%}")
        if path is not None:
            _save(path, model, optimizer, generator, history)
    return history


def _save(path: Path, model, optimizer, generator, history: History) -> None:
    """Write a checkpoint beside its place, then move it there: a killed run leaves the last whole one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state_all(),
        "order": None if generator is None else generator.get_state(),
        "history": dataclasses.asdict(history),
    }
    temporary = path.with_name(path.name + ".partial")
    torch.save(state, temporary)
    os.replace(temporary, path)


def _check_optimizer(path: Path, optimizer, saved: dict) -> None:
    """Check that an optimiser is of the kind whose state a checkpoint holds."""

    def kind(groups) -> list[tuple]:
        return [(len(group["params"]), *sorted(set(group) - {"params", "initial_lr"})) for group in groups]

    expected, got = kind(saved["param_groups"]), kind(optimizer.state_dict()["param_groups"])
    if expected != got:
        raise ValueError(
            f"optimizer: expected one as in the checkpoint {path}, with groups of {expected} (number of parameters, "
            f"options), got {got}"
        )


def _resume(path: Path, model, optimizer, generator, epochs: int) -> History:
    state = torch.load(path, map_location="cpu", weights_only=True)
    if (generator is None) != (state["order"] is None):
        given, stored = generator is not None, state["order"] is not None
        raise ValueError(f"generator: expected one as in the checkpoint {path} ({stored}), got {given}")
    history = History(**state["history"])
    if history.epochs > epochs:
        raise ValueError(f"epochs: expected at least the {history.epochs} of the checkpoint {path}, got {epochs}")
    before = copy.deepcopy(model.state_dict())
    model.load_state_dict(state["model"])
    for name, parameter in model.named_parameters():
        module, _, last = name.rpartition(".")
        saved = None if f"{module}.parametrizations.{last}.original" in state["model"] else state["model"].get(name)
        if saved is None or not torch.equal(parameter.detach(), saved.to(parameter)):
            model.load_state_dict(before)
            raise ValueError(
                f"{name}: expected the constraint, its range and time step of the checkpoint {path}, got others, for "
                "which its optimiser state has no meaning; to start from its values, load its entry 'model' alone"
            )
    try:
        _check_optimizer(path, optimizer, state["optimizer"])
    except ValueError:
        model.load_state_dict(before)
        raise
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    torch.cuda.set_rng_state_all(state["random_cuda"][: torch.cuda.device_count()])
    if generator is not None:
        generator.set_state(state["order"])
    return history
