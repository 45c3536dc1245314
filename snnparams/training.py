"""Train and evaluate a model; stop, and go on where it stopped.

`train` and `evaluate` are those that chapter 4 writes out, with the checks that a library needs. Data are tensors in
memory (a `Split`), a `torch.utils.data.Dataset` or a `DataLoader`, whose batches are pairs of inputs and labels.
"""

from __future__ import annotations

import contextlib
import functools
import math
import numbers
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import nll_loss
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader, Dataset

from snnparams.checks import check_finite
from snnparams.data import Split
from snnparams.ensemble import Ensemble
from snnparams.history import Evaluation, History
from snnparams.parameters import NeuronParameters
from snnparams.resumption import Run

Data = Split | Dataset | DataLoader
Loss = Callable[[Any, Any], torch.Tensor]


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
    if len(split.labels) == 0 or len(split.inputs) != len(split.labels):
        got = f"{len(split.inputs)} images and {len(split.labels)} labels"
        raise ValueError(f"split: expected as many labels as images and at least one, got {got}")
    if split.inputs.is_floating_point():
        check_finite("images", split.inputs)


def _check_data(data: Data, batch_size: int, generator) -> None:
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size: expected a positive integer, got {batch_size!r}")
    if isinstance(data, Split):
        _check_split(data, batch_size)
    elif not isinstance(data, (DataLoader, Dataset)):
        raise TypeError(f"data: expected a Split, a Dataset or a DataLoader, got {type(data).__name__}")
    elif isinstance(generator, (list, tuple)):
        raise ValueError("generator: expected one alone with a Dataset or DataLoader, got several, for members")
    elif isinstance(data, DataLoader) and generator is not None:
        raise ValueError("generator: expected None with a DataLoader, which draws the order from its own, got one")


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


def _shuffled(data: Data, batch_size: int, generator, device) -> tuple[Any, int | None]:
    """Return batches in an order that is drawn, and their number if it is known."""
    if isinstance(data, Split):
        several = isinstance(generator, (list, tuple))
        draws = [torch.randperm(len(data.labels), generator=g) for g in (generator if several else [generator])]
        order = (torch.stack(draws) if several else draws[0]).to(data.labels.device)
        parts = order.split(batch_size, dim=-1)
        return ((data.inputs[part], data.labels[part]) for part in parts), len(parts)
    loader = data if isinstance(data, DataLoader) else DataLoader(data, batch_size, True, generator=generator)
    count = len(loader) if hasattr(loader.dataset, "__len__") else None  # type: ignore[arg-type, attr-defined]
    return _of_loader(loader, device), count


def _in_order(data: Data, batch_size: int, device) -> Iterator[tuple[Any, Any]]:
    if isinstance(data, Split):
        return zip(data.inputs.split(batch_size), data.labels.split(batch_size), strict=True)
    return _of_loader(data if isinstance(data, DataLoader) else DataLoader(data, batch_size), device)


def _device(model: nn.Module) -> torch.device | None:
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), None)


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


def _check_log_probabilities(outputs: Any, labels: Any) -> None:
    """Check what `nll_loss` does not: outputs that are no log-probabilities give it a loss without a lower bound."""
    hint = "end with torch.log_softmax(..., dim=1), or give a loss of your own, as in loss=nn.functional.cross_entropy"
    if not isinstance(outputs, torch.Tensor) or outputs.dim() != 2 or not outputs.is_floating_point():
        got = f"shape {tuple(outputs.shape)}" if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        raise TypeError(f"model: expected log-probabilities (B, classes), got {got}; give decode=..., or {hint}")
    sums = outputs.detach().float().logsumexp(dim=1)
    sums = sums[sums.isfinite()].exp()
    if ((sums - 1).abs() > 0.05).any():
        got = f"{sums.min().item():.3g} to {sums.max().item():.3g}"
        raise ValueError(
            f"model: expected log-probabilities, of probabilities whose sum is 1, got a sum of {got}; {hint}"
        )


class _Measure:
    """Loss and accuracy of what a model returns, or of the members of an ensemble."""

    def __init__(self, model: nn.Module, loss: Loss, decode) -> None:
        if not callable(loss):
            raise TypeError(f"loss: expected a function of outputs and labels, got {type(loss).__name__}")
        self.model, self.loss, self.decode = model, loss, decode
        self.members = model.size if isinstance(model, Ensemble) else None
        self.unchecked = loss is nll_loss

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
            for part, own in pairs:
                _check_log_probabilities(part, own)
            self.unchecked = False
        return pairs

    def losses(self, pairs) -> torch.Tensor:
        """Return the loss of each, shape (1,) or (E,)."""
        found = [self.loss(part, labels) for part, labels in pairs]
        for value in found:
            if not isinstance(value, torch.Tensor) or value.dim():
                got = f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
                raise TypeError(f"loss: expected it to return one number as a tensor, the mean of a batch, got {got}")
        return torch.stack(found)

    def shaped(self, values: list[float]):
        """Return one number for a model and a list for an ensemble."""
        return values[0] if self.members is None else values


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
        split: images (or other inputs) and labels on the device of the model; or a data set of such pairs; or a loader
            of batches, which decides itself on order and size.
        optimizer: over the model's parameters.
        generator: of the order of the images; the global one if None. Of an ensemble also a list, one for each member,
            each of which then sees its own order.
        batch_size: images in a batch; the last one may be smaller.
        progress: whether to show a progress bar.
        loss: takes what the model returns and the labels, and returns the mean over the batch.
        decode: makes of what the model returns what the loss takes, for instance of the voltages and the state that a
            `Sequential` returns: `lambda out: out[0].amax(0).log_softmax(1)`.
        clip: largest norm of all gradients together, in an ensemble of each member's; larger ones are scaled down.

    Returns:
        The loss of each batch; of an ensemble a list of its members'.

    Raises:
        ValueError: if the data are empty, an image is not finite, the outputs are no log-probabilities where those are
            expected, or a neuron parameter has left its valid range.
        TypeError: if data or outputs are of another kind.
        FloatingPointError: if a loss or a gradient is not finite; the model is then as it was before that batch.
    """
    _check_data(split, batch_size, generator)
    _check_clip(clip)
    measure, losses = _Measure(model, loss, decode), []
    apart = _check_generators(generator, measure.members)
    model.train()
    batches, count = _shuffled(split, batch_size, generator, _device(model))
    for inputs, labels in progress_bar(batches, progress, count):
        with model.halted_kept() if isinstance(model, Ensemble) else contextlib.nullcontext():
            optimizer.zero_grad()
            of_each = measure.losses(measure.outputs(inputs, labels, apart))
            losses.append(measure.shaped(of_each.tolist()))
            if not of_each.isfinite().all():
                raise FloatingPointError(f"batch {len(losses)}: expected a finite loss, got {losses[-1]}")
            of_each.sum().backward()
            _check_gradients(model, len(losses))
            _clip(model, clip)
            optimizer.step()
    validate_neuron_parameters(model)
    return losses


def _clip(model: nn.Module, clip: float | None) -> None:
    if clip is not None and isinstance(model, Ensemble):
        model.clip_gradients_(clip)
    elif clip is not None:
        nn.utils.clip_grad_norm_(model.parameters(), clip)


def _check_clip(clip) -> None:
    if clip is None:
        return
    if isinstance(clip, bool) or not isinstance(clip, numbers.Real) or not 0 < float(clip) < math.inf:
        raise ValueError(f"clip: expected a positive, finite norm or None, got {clip!r}")


def _check_generators(generator, members: int | None) -> bool:
    """Return whether each member has its own."""
    if not isinstance(generator, (list, tuple)):
        return False
    if members is None or len(generator) != members:
        expected = "one generator for one model" if members is None else f"one for each of {members} members"
        raise ValueError(f"generator: expected {expected}, got {len(generator)}")
    return True


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
        ValueError: if the data are empty, an image is not finite, or the outputs are no log-probabilities where those
            are expected.
        TypeError: if data or outputs are of another kind.
    """
    _check_data(split, batch_size, None)
    measure = _Measure(model, loss, decode)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    total, correct, count = torch.zeros(1), torch.zeros(1), 0
    try:
        for inputs, labels in _in_order(split, batch_size, _device(model)):
            pairs = measure.outputs(inputs, labels)
            size = len(labels)
            total = total + size * measure.losses(pairs).cpu().double()
            correct = correct + torch.tensor([_correct(outputs, own) for outputs, own in pairs], dtype=torch.float64)
            count += size
    finally:
        for module, training in modes.items():
            module.training = training
    return Evaluation(*(measure.shaped((values / count).tolist()) for values in (total, correct)))


def _correct(outputs: Any, labels: Any) -> float:
    """Return how many classes are found, or NaN where there are none to find."""
    if not isinstance(outputs, torch.Tensor) or outputs.dim() != 2 or not isinstance(labels, torch.Tensor):
        return math.nan
    if labels.dim() != 1 or labels.is_floating_point() or labels.is_complex():
        return math.nan
    return float((outputs.argmax(dim=1) == labels).sum())


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
            numbers are no longer those of data that had no influence: give a validation set, and test afterwards.
        optimizer: over the model's parameters.
        epochs: number of epochs in all, those of a resumed run included.
        generator: of the order of the images; the global one if None. As in `train`.
        batch_size: images in a training batch.
        progress: whether to show progress bars.
        checkpoint: a file to write after each epoch. If it exists, training goes on from there, with the same
            numbers as if it had never stopped: with the learning rate of the checkpoint, whatever the optimiser's.
        loss: as in `train`.
        decode: as in `train`.
        clip: as in `train`.
        scheduler: of `torch.optim.lr_scheduler`, called after each epoch; a `ReduceLROnPlateau` is given the test loss.
        patience: stop after so many epochs in a row without a lower test loss. A member of an ensemble stops by itself,
            and keeps its values from then on.
        restore_best: give the model at the end the values that it had in the epoch of the lowest test loss, the first
            of several. A checkpoint holds them as its entry "best", beside those of the last epoch.
        callbacks: each is called after every epoch with the model and the history. One that returns True ends the run.
            One with `state_dict` and `load_state_dict` is saved and restored.

    Returns:
        The losses, accuracies and neuron parameters, those before a resumption included.

    Raises:
        ValueError: if `epochs` is not an integer of at least 0, the checkpoint holds more of them or was written with
            another choice of generator, scheduler, callbacks or `restore_best`, or other constraints of the neuron
            parameters, or as `train`.
        TypeError: if something is of another kind than expected, or cannot be had of an ensemble.
        RuntimeError: if the checkpoint is of another model.
        FloatingPointError: if a loss is not finite.
    """
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 0:
        raise ValueError(f"epochs: expected an integer of at least 0, got {epochs!r}")
    if patience is not None and (isinstance(patience, bool) or not isinstance(patience, int) or patience < 1):
        raise ValueError(f"patience: expected a positive number of epochs or None, got {patience!r}")
    if restore_best and isinstance(model, Ensemble):
        raise TypeError(
            "restore_best: expected one model, got an Ensemble, whose members are best in epochs of their own"
        )
    how: dict[str, Any] = {"loss": loss, "decode": decode}
    run = Run(model, optimizer, _generators(train_split, generator), scheduler, callbacks, restore_best)
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
        history.train_losses += train(model, train_split, optimizer, generator, batch_size, progress, **how, clip=clip)
        test_loss, accuracy = evaluate(model, test_split, **how)
        history.test_losses.append(test_loss)
        history.accuracies.append(accuracy)
        history.record(model)
        remaining.set_postfix(_postfix(test_loss, accuracy))
        run.end_epoch(test_loss)
        if path is not None:
            run.save(path)
    _all_stopped(model, history, patience)
    if run.best is not None:
        model.load_state_dict(run.best)
    return history


def _generators(data: Data, generator) -> list[torch.Generator]:
    """Return the generators that say in which order data come, but for the global one."""
    given = list(generator) if isinstance(generator, (list, tuple)) else [generator]
    if isinstance(data, DataLoader):
        samplers = (data, data.sampler, data.batch_sampler, getattr(data.batch_sampler, "sampler", None))
        given += [getattr(sampler, "generator", None) for sampler in samplers]
    return list(dict.fromkeys(g for g in given if g is not None))


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
