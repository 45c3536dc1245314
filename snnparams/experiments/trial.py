"""One trial of chapter 6: build a network, train it, measure it.

All that a trial depends on is in the dictionary that describes it. It runs in one thread, so that many can run beside
each other and none depends on how many there are. It is trained by the package's own loop, `snnparams.train`, with what
an optimiser's hooks add before and after each update. What it measures is another thing than accuracy and loss, answer
by answer and with the spikes that it cost, so `measure` stands beside `snnparams.evaluate`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
from collections.abc import Callable
from typing import cast

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from snnparams.data import tasks
from snnparams.data.mnist import Split
from snnparams.data.task import Task
from snnparams.experiments.designs import ADAPTATION, DT, LEARNABLE, Architecture, Neurons
from snnparams.experiments.disturbances import add_noise, time_warp
from snnparams.experiments.networks import Network, SpikingLayer, build
from snnparams.layers.initialisation import RateError
from snnparams.training import loop
from snnparams.training.regularisation import rate_bounds_loss

TASKS: dict[str, Callable[..., Task]] = {
    "windows": tasks.windows,
    "multi-timescale xor": tasks.multi_timescale_xor,
    "spoken digits": tasks.spoken_digits,
    "sequential mnist": tasks.sequential_mnist,
}
WARPS = (0.75, 1.5)  # factors by which test inputs are stretched in time
NOISE = (0.25, 1.0)  # random spikes added to test inputs, as a share of theirs
QUANTILES = torch.linspace(0, 1, 21)


@dataclasses.dataclass(frozen=True)
class Training:
    """How a network is trained: with Adam, whose learning rates fall to zero like a cosine.

    Args:
        epochs: passes over the training split.
        batch_size: inputs in a batch.
        learning_rate: of the weights before the factors of the neurons, and of the readout.
        neuron_learning_rate: of the neuron parameters: of the logit of `1 / tau`, and of the logarithm of thresholds.
        largest_gradient: length beyond which the gradient of the weights is shortened, and, by itself, that of the
            neuron parameters.
        rate_low: lower bound of the rate of each layer, see `snnparams.rate_bounds_loss`.
        rate_high: upper bound.
        rate_strength: factor of that term in the loss; 0 leaves it out.
    """

    epochs: int = 15
    batch_size: int = 100
    learning_rate: float = 1e-2
    neuron_learning_rate: float = 3e-2
    largest_gradient: float = 1.0
    rate_low: float = 0.0
    rate_high: float = 1.0
    rate_strength: float = 0.0


@functools.lru_cache(maxsize=2)
def make_task(description: str) -> Task:
    """Return a task by its name and options, as JSON; the two that were used last stay in memory.

    Raises:
        ValueError: if there is no such task.
    """
    options = json.loads(description)
    name = options.pop("name")
    if name not in TASKS:
        raise ValueError(f"task: expected one of {', '.join(TASKS)}, got {name!r}")
    return TASKS[name](**options)


@functools.lru_cache(maxsize=2)
def _encoded(task: Task) -> torch.Tensor:
    """Return the training inputs as bits (N, T, I): encoded once, four times smaller than numbers."""
    parts = [task.encode(images).to_dense().transpose(0, 1) > 0 for images in task.train.inputs.split(1000)]
    return torch.cat(parts)


def loss_of(task: Task, logits: torch.Tensor, labels: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """Return the cross-entropy of the logits: over classes, or over binary answers."""
    if task.answers:
        return binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction=reduction)
    return cross_entropy(logits, labels, reduction=reduction)


@torch.no_grad()
def measure(network: nn.Module, task: Task, split: Split, change=None, batch_size: int = 500) -> dict:
    """Return how a network does on a split.

    Args:
        network: returns logits and a list of spikes (T, B, H).
        task: what it shall do.
        split: one of the task's.
        change: what alters the spikes that go in, or None.
        batch_size: inputs at a time.

    Returns:
        `loss` and `accuracy` (a mean over answers), `answers` (the accuracy of each) if there are several, `rate`
        (spikes per neuron and time step) of each layer, and `spikes` per input, of all layers together.
    """
    right, rates, count = [], [], len(split.labels)
    loss = spikes = 0.0
    for images, labels in zip(split.inputs.split(batch_size), split.labels.split(batch_size), strict=True):
        x = task.encode(images).to_dense()
        logits, hidden = network(x if change is None else change(x))
        loss += loss_of(task, logits, labels, "sum").item()
        right.append((logits > 0) == labels.bool() if task.answers else logits.argmax(dim=1) == labels)
        rates.append([z.mean().item() * len(labels) / count for z in hidden])
        spikes += sum(z.sum().item() for z in hidden)
    accuracy = torch.cat(right).double().mean(dim=0)
    found: dict = {"loss": loss / max(1, len(task.answers)) / count, "accuracy": accuracy.mean().item()}
    if task.answers:
        found["answers"] = accuracy.tolist()
    by_layer = [sum(column) for column in zip(*rates, strict=True)]
    return found | {"rate": by_layer, "spikes": spikes / count}


def _parameters(network: Network) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the weights, and the neuron parameters that are learned."""
    neuron = [x for layer in network.layers for x in cast(SpikingLayer, layer).p.parameters()]
    neuron += [] if network.delay is None else network.delay.p.parameters()
    known = set(neuron)
    return [x for x in network.parameters() if x not in known], neuron


class _OfBits(nn.Module):
    """A network that is given bits (B, T, I)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, bits: torch.Tensor):
        """Return what the network makes of them as spikes (T, B, I)."""
        return self.network(bits.transpose(0, 1).contiguous().float())


def train_module(
    network: nn.Module,
    groups: list[list[nn.Parameter]],
    learning_rates: list[float],
    task: Task,
    training: Training,
    seed: int,
    after_epoch,
) -> None:
    """Train any module that returns logits and a list of spikes; see `train`.

    Args:
        network: it is changed.
        groups: its parameters, in groups whose gradients are shortened each by itself.
        learning_rates: one for each group.
        task: what it shall learn.
        training: how; its learning rates are not used.
        seed: of the order of the inputs.
        after_epoch: called with nothing after every epoch, or None.

    Raises:
        FloatingPointError: if a loss or a gradient is not finite.
    """
    pairs = zip(groups, learning_rates, strict=True)
    optimizer = torch.optim.Adam([{"params": params, "lr": rate} for params, rate in pairs], fused=True)
    bits = Split(_encoded(task), task.train.labels)
    updates = training.epochs * math.ceil(len(bits.labels) / training.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)

    def shorten(*_) -> None:
        norms = [nn.utils.clip_grad_norm_(params, training.largest_gradient).item() for params in groups]
        if not all(map(math.isfinite, norms)):
            raise FloatingPointError(f"expected gradients of finite lengths, got {norms}")

    def loss(found: tuple[torch.Tensor, list[torch.Tensor]], labels: torch.Tensor) -> torch.Tensor:
        logits, hidden = found
        total = loss_of(task, logits, labels)
        if training.rate_strength:
            bounds = training.rate_low, training.rate_high
            total = total + training.rate_strength * sum(rate_bounds_loss(z, *bounds) for z in hidden)
        return total

    # before and after every update: the loop itself shortens all gradients together, and schedules epochs
    optimizer.register_step_pre_hook(shorten)
    optimizer.register_step_post_hook(lambda *_: schedule.step())
    order, model = torch.Generator().manual_seed(seed), _OfBits(network)
    for _ in range(training.epochs):
        loop.train(model, bits, optimizer, order, training.batch_size, progress=False, loss=loss)
        if after_epoch:
            after_epoch()


def train(network: Network, task: Task, training: Training, seed: int, after_epoch=None) -> None:
    """Train a network; the gradients of weights and of neuron parameters are shortened apart.

    Args:
        network: it is changed.
        task: what it shall learn.
        training: how.
        seed: of the order of the inputs.
        after_epoch: called with nothing after every epoch.

    Raises:
        FloatingPointError: if a loss or a gradient is not finite.
    """
    weights, neuron = _parameters(network)
    groups, rates = [weights], [training.learning_rate]
    if neuron:
        groups, rates = [weights, neuron], [training.learning_rate, training.neuron_learning_rate]
    train_module(network, groups, rates, task, training, seed, after_epoch)


def neuron_values(network: Network) -> dict[str, list]:
    """Return quantiles of the neuron parameters of each layer, and of delays, times in time steps."""
    p = network.spiking_layers()[0].p
    names = [name for name in LEARNABLE + ADAPTATION if name in (*p.neuron_fields, *p.neuron.times)]
    found: dict[str, list] = {name: [] for name in names}
    for layer in network.layers:
        for name in names:
            x = getattr(layer.p, name).detach().double() / (DT if name.startswith("tau") else 1)
            found[name].append(x.reshape(-1).quantile(QUANTILES.double()).tolist())
    if network.delay is not None:
        delays = network.delay.p.delay.detach().double() / DT
        found["delay"] = [delays.quantile(QUANTILES.double()).tolist()]
    return found


@contextlib.contextmanager
def one_thread():
    """Compute in one thread: how many there are changes the order of sums, and so the last digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def network_of(trial: dict) -> tuple[Network, Task]:
    """Return the untrained network of a trial and its task."""
    task = make_task(json.dumps(trial["task"], sort_keys=True))
    return build(Neurons(**trial["neurons"]), Architecture(**trial["architecture"]), task, trial["seed"]), task


def _disturbed(network: Network, task: Task, seed: int) -> dict[str, float]:
    """Return the accuracy on altered test inputs."""
    warps = () if task.answers else WARPS  # answers are due at fixed steps
    changes = {f"warp {factor:g}": functools.partial(time_warp, factor=factor) for factor in warps}
    for level in NOISE:
        generator = torch.Generator().manual_seed(seed)
        changes[f"noise {level:g}"] = functools.partial(add_noise, level=level, generator=generator)
    return {name: measure(network, task, task.test, change)["accuracy"] for name, change in changes.items()}


def run_trial(trial: dict) -> dict:
    """Train the network of one trial and measure it.

    Args:
        trial: `task`, its name and options; `neurons`, `architecture` and `training`, the arguments of `Neurons`,
            `Architecture` and `Training`; `seed`; and `test`, whether to measure on the test split, after training.
            With `disturbed`, also on altered test inputs.

    Returns:
        `curve`, accuracy on the validation split after each epoch; `validation`, and, if asked for, `train`, `test` and
        `disturbed`; `before` and `after`, quantiles of the neuron parameters. Or `failed`, the reason why this network
        could not be built or trained: tuning may try what does not work.
    """
    with one_thread():
        try:
            network, task = network_of(trial)
            before, curve = neuron_values(network), []

            def after_epoch() -> None:
                curve.append(measure(network, task, task.validation))

            train(network, task, Training(**trial["training"]), trial["seed"], after_epoch)
        except (FloatingPointError, RateError) as error:
            return {"failed": str(error)}
        found = {"curve": [x["accuracy"] for x in curve], "validation": curve[-1]}
        found |= {"before": before, "after": neuron_values(network)}
        if trial["test"]:
            some = Split(task.train.inputs[: len(task.test.labels)], task.train.labels[: len(task.test.labels)])
            found["train"] = measure(network, task, some)
            found["test"] = measure(network, task, task.test)
        if trial.get("disturbed"):
            found["disturbed"] = _disturbed(network, task, trial["seed"])
        return found


def run_raster(trial: dict) -> dict:
    """Train the network of one trial and return the spikes of its last layer for one test input, and time constants.

    Args:
        trial: as that of `run_trial`, with `input`, the index of a test input.

    Returns:
        `steps` and `neurons` of the spikes, `tau_mem` and `tau_syn` of each neuron in time steps, and the `label`.
    """
    with one_thread():
        network, task = network_of(trial)
        train(network, task, Training(**trial["training"]), trial["seed"])
        k, p = trial["input"], network.layers[-1].p
        with torch.no_grad():
            _, hidden = network(task.encode(task.test.inputs[k : k + 1]).to_dense())
        steps, neurons = hidden[-1][:, 0].nonzero(as_tuple=True)
        taus = {name: (getattr(p, name).detach() / DT).expand(hidden[-1].shape[2]) for name in ("tau_mem", "tau_syn")}
        return {
            "steps": steps.tolist(),
            "neurons": neurons.tolist(),
            "label": task.test.labels[k].tolist(),
            **{name: x.tolist() for name, x in taus.items()},
        }
