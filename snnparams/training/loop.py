"""Train and evaluate a model; stop, and go on where it stopped.

`train` and `evaluate` are those that chapter 4 writes out, with the checks that a library needs. Data are tensors in
memory (a `Split`), a `torch.utils.data.Dataset` or a `DataLoader`, whose batches are pairs of inputs and labels.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import nll_loss
from torch.nn.parameter import is_lazy

from snnparams.layers.checks import check_module
from snnparams.layers.neuron_parameters import NeuronParameters
from snnparams.parameters.settings import is_whole
from snnparams.training.batches import (
    Data,
    begin_epoch,
    check_generators,
    checked_data,
    device_of,
    generators_of,
    in_order,
    shuffled,
)
from snnparams.training.ensemble import Ensemble
from snnparams.training.history import Evaluation, History
from snnparams.training.measures import Loss, Measure, classes_found, rows_of
from snnparams.training.members import check_clip, clip_gradients_
from snnparams.training.resumption import Run, check_optimizer


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


def validate_neuron_parameters(model: nn.Module) -> None:
    """Check all neuron parameters of a model against the limits of the integrator.

    Raises:
        ValueError: with the module, the parameter, the offending value and the limit.
        TypeError: if the model is none.
    """
    check_module(model)
    for name, module in model.named_modules():
        if isinstance(module, NeuronParameters):
            try:
                module.validate()
            except ValueError as error:
                raise ValueError(f"{name}.{error}") from None


def _check_finite(model: nn.Module) -> None:
    """A NaN weight of a spiking layer makes neurons that are silent, so loss and accuracy can look like others."""
    for name, parameter in model.named_parameters():
        if is_lazy(parameter) or parameter.layout != torch.strided:
            continue
        if not torch.isfinite(parameter).all():
            raise ValueError(f"{name}: expected finite numbers, got one that is not")


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
    split: Data,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    batch_size: int = 256,
    progress: bool = True,
    *,
    loss: Loss = nll_loss,
    decode: Callable[[Any], Any] | None = None,
    clip: float | None = None,
) -> list[Any]:
    """Train a model for one epoch.

    Args:
        model: maps a batch of inputs to what the loss takes, by default log-probabilities (B, classes). An `Ensemble`
            trains its members side by side; each learns as it would alone.
        split: images (or other inputs) and labels on the device of the model, or arrays of NumPy, with the batch as
            first axis; or a data set of such pairs, of which an `IterableDataset` comes in its own order; or a loader
            of batches, which decides itself on order and size.
        optimizer: over the model's parameters, or some of them.
        generator: of the order of the images; the global one if None. Of an ensemble also a list, one for each member,
            each of which then sees its own order.
        batch_size: images in a batch; the last one may be smaller.
        progress: whether to show a progress bar.
        loss: takes what the model returns and the labels, and returns the mean over the batch. For the default and for
            PyTorch's `cross_entropy`, labels are classes from 0 on, of type int64 or uint8.
        decode: makes of what the model returns what the loss takes, for instance of the voltages and the state that a
            `Sequential` of an encoder and layers returns: `lambda out: out[0].amax(0).log_softmax(1)`.
        clip: largest norm of all gradients together, in an ensemble of each member's; larger ones are scaled down.

    Returns:
        The loss of each batch; of an ensemble a list of its members'.

    Raises:
        ValueError: if the data are empty, an image is not finite, the model takes time first and the data are a
            `Split`, the outputs are no log-probabilities or the labels no classes where those are expected, a loss has
            no gradient, the optimiser none of the parameters, or a neuron parameter has left its valid range.
        TypeError: if data or outputs are of another kind, or the optimiser is none.
        FloatingPointError: if a loss or a gradient is not finite; all parameters are then as they were before that
            batch, but running means of a normalisation may have seen it.
    """
    split = checked_data(split, batch_size, generator)
    check_clip(clip)
    measure, losses = Measure(model, loss, decode, split), []
    check_optimizer(model, optimizer)
    apart = check_generators(generator, measure.members)
    model.train()
    batches, count = shuffled(split, batch_size, generator, device_of(model))
    for inputs, labels in progress_bar(batches, progress, count):
        with model.halted_kept() if isinstance(model, Ensemble) else contextlib.nullcontext():
            optimizer.zero_grad()
            model.zero_grad()  # those, too, that the optimiser does not hold: clipping and checks see all
            of_each = measure.losses(measure.outputs(inputs, labels, apart))
            losses.append(measure.shaped(of_each.tolist()))
            if not of_each.isfinite().all():
                raise FloatingPointError(f"batch {len(losses)}: expected a finite loss, got {losses[-1]}")
            if not of_each.requires_grad:
                raise ValueError("loss: expected a number with a gradient, got one that nothing learned leads to")
            of_each.sum().backward()
            _check_gradients(model, len(losses))
            if clip is not None and isinstance(model, Ensemble):
                clip_gradients_(model, clip)
            elif clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
    validate_neuron_parameters(model)
    return losses


@torch.no_grad()
def evaluate(
    model: nn.Module,
    split: Data,
    batch_size: int = 1000,
    *,
    loss: Loss = nll_loss,
    decode: Callable[[Any], Any] | None = None,
) -> Evaluation:
    """Evaluate a model; the training mode of each of its modules is restored afterwards.

    Args:
        model: maps a batch of inputs to what the loss takes, by default log-probabilities (B, classes).
        split: as in `train`.
        batch_size: images in a batch.
        loss: as in `train`.
        decode: as in `train`.

    Returns:
        Mean loss and accuracy; of an ensemble, lists of its members'. The accuracy is NaN where labels are no classes.

    Raises:
        ValueError: if the data are empty, an image is not finite, the model takes time first and the data are a
            `Split`, the outputs are no log-probabilities or the labels no classes where those are expected, a parameter
            of the model is not finite, or a neuron parameter has left its valid range.
        TypeError: if data or outputs are of another kind.
    """
    split = checked_data(split, batch_size, None)
    validate_neuron_parameters(model)
    _check_finite(model)
    measure = Measure(model, loss, decode, split)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    total, right, count = torch.zeros(1), torch.zeros(1), 0
    try:
        for inputs, labels in in_order(split, batch_size, device_of(model)):
            pairs = measure.outputs(inputs, labels)
            size = rows_of(labels)
            total = total + size * measure.losses(pairs).cpu().double()
            found = [classes_found(outputs, own) for outputs, own in pairs]
            right = right + torch.tensor(found, dtype=torch.float64)
            count += size
    finally:
        for module, training in modes.items():
            module.training = training
    return Evaluation(*(measure.shaped((values / count).tolist()) for values in (total, right)))


def fit(
    model: nn.Module,
    train_split: Data,
    test_split: Data,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    batch_size: int = 256,
    progress: bool = True,
    checkpoint: str | os.PathLike | None = None,
    *,
    loss: Loss = nll_loss,
    decode: Callable[[Any], Any] | None = None,
    clip: float | None = None,
    scheduler: Any = None,
    patience: int | None = None,
    restore_best: bool = False,
    callbacks: Sequence[Callable[[nn.Module, History], Any]] = (),
) -> History:
    """Train a model for several epochs and evaluate it after each.

    Args:
        model: maps a batch of inputs to what the loss takes, by default log-probabilities (B, classes). An `Ensemble`
            trains its members side by side; each learns as it would alone.
        train_split: what to train on, as in `train`.
        test_split: what to evaluate on. Where `patience`, `restore_best`, a callback or a scheduler chooses by it, its
            numbers are no longer those of data that had no influence: give a validation set, and test afterwards. It is
            evaluated in batches of 1000; for smaller ones, which need less memory, give a `DataLoader`.
        optimizer: over the model's parameters.
        epochs: number of epochs in all, those of a resumed run included.
        generator: of the order of the images; the global one if None. As in `train`.
        batch_size: images in a training batch.
        progress: whether to show progress bars.
        checkpoint: a file to write after each epoch. If it exists, training goes on from there, with the same
            numbers as if it had never stopped: with the learning rate of the checkpoint, whatever the optimiser's. It
            holds the states of all random numbers but those of generators that a data set keeps, or workers of a loader
            from epoch to epoch, with `persistent_workers=True`. A process that ends while it writes leaves the file of
            the epoch before. Under `DistributedDataParallel` all processes are given the same file. It knows neither
            data nor `batch_size`, `loss`, `decode` and `clip`: give it the same, and each run a file of its own. A file
            that holds all the epochs already is read, and nothing is trained; so is one of a run that a callback has
            ended, unless more epochs are asked for than before.
        loss: as in `train`.
        decode: as in `train`.
        clip: as in `train`.
        scheduler: of `torch.optim.lr_scheduler`, called after each epoch; a `ReduceLROnPlateau` is given the test loss.
        patience: stop after so many epochs in a row without a lower test loss. A member of an ensemble stops by itself,
            and keeps its values from then on.
        restore_best: give the model at the end the values that it had in the epoch of the lowest test loss, the first
            of several; each member of an ensemble those of its own best epoch. A checkpoint holds them as its entry
            "best", beside those of the last epoch.
        callbacks: each is called after every epoch with the model and the history. One that returns True ends the run.
            One with `state_dict` and `load_state_dict` is saved and restored; a state is made of numbers, texts,
            tensors, lists and dictionaries.

    Returns:
        The losses, accuracies and neuron parameters, those before a resumption included.

    Raises:
        ValueError: if `epochs` is not an integer of at least 0, the checkpoint holds more of them or was written with
            another choice of generator, scheduler, callbacks or `restore_best`, or other constraints of the neuron
            parameters, or as `train`.
        TypeError: if something is of another kind than expected.
        RuntimeError: if the checkpoint is of another model.
        FloatingPointError: if a loss is not finite, also one on test data.
    """
    if not is_whole(epochs, 0):
        raise ValueError(f"epochs: expected an integer of at least 0, got {epochs!r}")
    if patience is not None and not is_whole(patience):
        raise ValueError(f"patience: expected a positive number of epochs or None, got {patience!r}")
    how: dict[str, Any] = {"loss": loss, "decode": decode}
    generators = generators_of(generator, train_split, test_split)
    run = Run(model, optimizer, generators, scheduler, callbacks, restore_best)
    run.history.record(model)
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None and path.exists():
        run.resume(path, epochs)
    history = run.history
    remaining = progress_bar(range(history.epochs, epochs), progress)
    for _ in remaining:
        if history.stopped or _all_stopped(model, history, patience):
            break
        history.learning_rates.append([float(group["lr"]) for group in optimizer.param_groups])
        begin_epoch(train_split, history.epochs)
        history.train_losses += train(model, train_split, optimizer, generator, batch_size, progress, **how, clip=clip)
        test_loss, accuracy = evaluate(model, test_split, **how)
        if not torch.tensor(test_loss).isfinite().all():
            raise FloatingPointError(f"epoch {history.epochs + 1}: expected a finite test loss, got {test_loss}")
        history.test_losses.append(test_loss)
        history.accuracies.append(accuracy)
        history.record(model)
        remaining.set_postfix(_postfix(test_loss, accuracy))
        run.end_epoch(test_loss)
        if path is not None:
            run.save(path, epochs)
    _all_stopped(model, history, patience)
    run.restore_best()
    return history


def _postfix(test_loss, accuracy) -> dict[str, str]:
    losses, shares = (torch.tensor(value).flatten() for value in (test_loss, accuracy))
    if shares.isnan().any():
        return {"loss": f"{losses.mean().item():.4g}"}
    return {"accuracy": f"{shares.mean().item():.1%}"}


def _waited(losses: list[float]) -> int:
    """Return for how many epochs there has been no lower loss."""
    return len(losses) - 1 - losses.index(min(losses)) if losses else 0


def _all_stopped(model: nn.Module, history: History, patience: int | None) -> bool:
    """Return whether patience is at an end; halt those members of an ensemble for which it is."""
    if patience is None or not history.epochs:
        return False
    if not isinstance(model, Ensemble):
        return _waited(history.test_losses) >= patience
    for k in range(model.size):
        if _waited(history.member(k).test_losses) >= patience:
            model.halt(k)
    return len(model.halted) == model.size
