"""The experiment of chapter 6: train networks of several conditions alike, and measure what they can.

What is held equal, `snnparams.conditions` says.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math

import torch
from torch import nn
from torch.nn.functional import nll_loss

from snnparams.conditions import DT, LEARNABLE, TASKS, Condition, Settings, build
from snnparams.data import Split
from snnparams.disturbances import add_noise, time_warp
from snnparams.ensemble import Ensemble
from snnparams.tasks import Task
from snnparams.values import TIMES

WARPS = (0.5, 0.75, 1.5, 2.0)  # factors by which test inputs are stretched in time
NOISE = (0.25, 0.5, 1.0, 2.0)  # random spikes added to test inputs, as a share of theirs
QUANTILES = torch.linspace(0, 1, 21)


def _freeze(ensemble: Ensemble, conditions: list[Condition]) -> list[nn.Parameter]:
    """Make gradients by parameters zero in the members that do not learn them; return the neuron parameters."""
    found = []
    for name in LEARNABLE:
        values = ensemble.stacked.hidden.p.stored(TIMES.get(name, name))
        learns = torch.tensor([name in c.learned for c in conditions], device=values.device)[:, None]
        if learns.any():
            values.register_hook(functools.partial(torch.where, learns, other=torch.zeros((), device=values.device)))
            found.append(values)
        else:
            values.requires_grad_(False)
    return found


@torch.no_grad()
def _clip(ensemble: Ensemble, largest: float) -> None:
    """Shorten the gradient of each network that is longer than that, and refuse one that is not finite."""
    gradients = [p.grad for p in ensemble.parameters() if p.grad is not None]
    norms = sum(g.flatten(1).square().sum(dim=1) for g in gradients).sqrt()  # (E,)
    if not torch.isfinite(norms).all():
        raise FloatingPointError(f"expected finite gradients, got norms of {norms.tolist()}")
    scale = (largest / norms).clamp(max=1)
    for g in gradients:
        g.mul_(scale.view(-1, *[1] * (g.dim() - 1)))


@torch.no_grad()
def _measure(ensemble: Ensemble, task: Task, split: Split, change=None, batch_size: int = 500) -> list[dict]:
    """Return loss, accuracy and rate of each member on a split, whose spikes `change` may alter."""
    totals = torch.zeros(3, len(ensemble), dtype=torch.float64)
    for images, labels in zip(split.images.split(batch_size), split.labels.split(batch_size), strict=True):
        spikes = task.encode(images)
        log_p, rate = ensemble(spikes if change is None else change(spikes))
        right = (log_p.argmax(dim=2) == labels).sum(dim=1)
        loss = -log_p.gather(2, labels.expand(len(ensemble), -1)[..., None]).sum(dim=(1, 2))
        totals += torch.stack([loss, right, rate.sum(dim=1)]).cpu()
    return [
        dict(zip(("loss", "accuracy", "rate"), values, strict=True))
        for values in (totals / len(split.labels)).T.tolist()
    ]


def train_networks(
    conditions: list[Condition], settings: Settings, task: Task, seed: int, after_epoch=None
) -> Ensemble:
    """Build one network for each condition and train all of them on the same batches.

    Args:
        conditions: of the members.
        settings: what they have in common.
        task: what they learn.
        seed: of weights, initial values and the order of the training inputs.
        after_epoch: called with the ensemble before the first epoch and after each.

    Returns:
        The trained networks. They are independent of each other: each is what it would be if trained alone, to
        rounding error.

    Raises:
        FloatingPointError: if a loss or a gradient is not finite.
    """
    ensemble = Ensemble([build(condition, settings, task, seed) for condition in conditions])
    ensemble.to(task.train.labels.device)
    neuron = _freeze(ensemble, conditions)
    known = set(neuron)
    weights = [p for p in ensemble.parameters() if p.requires_grad and p not in known]
    groups = [{"params": weights, "lr": settings.learning_rate}]
    if neuron:
        groups.append({"params": neuron, "lr": settings.neuron_learning_rate})
    optimizer = torch.optim.Adam(groups)
    updates = settings.epochs * math.ceil(len(task.train.labels) / settings.batch_size)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, updates)
    order = torch.Generator().manual_seed(seed)
    if after_epoch:
        after_epoch(ensemble)
    for _ in range(settings.epochs):
        for batch in torch.randperm(len(task.train.labels), generator=order).split(settings.batch_size):
            optimizer.zero_grad()
            log_p, _ = ensemble(task.encode(task.train.images[batch]))
            labels = task.train.labels[batch]
            loss = sum(nll_loss(member, labels) for member in log_p)
            if not math.isfinite(loss.item()):
                raise FloatingPointError(f"expected a finite loss, got {loss.item()}")
            loss.backward()
            _clip(ensemble, settings.largest_gradient)
            optimizer.step()
            schedule.step()
        if after_epoch:
            after_epoch(ensemble)
    return ensemble


@functools.lru_cache(maxsize=4)
def _task(name: str, options: str, device: str) -> Task:
    return TASKS[name](**json.loads(options)).to(device)


@contextlib.contextmanager
def _one_thread():
    """Compute in one thread: how many there are changes the order of sums, and so the last digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _values(ensemble: Ensemble) -> list[dict[str, list[float]]]:
    """Return quantiles of the neuron parameters of each member, time constants in time steps."""
    found = []
    for k in range(len(ensemble)):
        p = ensemble.member(k).hidden.p
        values = {"tau_mem": p.tau_mem / DT, "tau_syn": p.tau_syn / DT, "v_th": p.v_th}
        found.append({name: x.detach().cpu().quantile(QUANTILES).tolist() for name, x in values.items()})
    return found


def _robustness(ensemble: Ensemble, task: Task, seed: int) -> list[dict]:
    """Return each member's accuracy on altered test inputs."""
    found = {}
    for factor in WARPS:
        found[f"warp {factor:g}"] = _measure(ensemble, task, task.test, functools.partial(time_warp, factor=factor))
    for level in NOISE:
        generator = torch.Generator().manual_seed(seed)
        noise = functools.partial(add_noise, level=level, generator=generator)
        found[f"noise {level:g}"] = _measure(ensemble, task, task.test, noise)
    return [{name: values[k]["accuracy"] for name, values in found.items()} for k in range(len(ensemble))]


def run_cells(cells: list[dict]) -> list[dict]:
    """Train the networks of some cells and return what chapter 6 reports of each.

    Args:
        cells: each a dictionary of `settings` (the arguments of `Settings`), `condition` (those of `Condition`), `seed`
            and `test`: whether to measure on the test split, after training, or only on the validation split. They
            may differ in the condition only, and are trained as one ensemble.

    Returns:
        For each: `validation`, with loss, accuracy and rate before training and after each epoch; `before` and
        `after`, quantiles of the neuron parameters; and `test` and `robustness`, or None.

    Raises:
        ValueError: if cells differ in more than the condition.
    """
    first = cells[0]
    if any({**cell, "condition": None} != {**first, "condition": None} for cell in cells):
        raise ValueError("cells: expected the same settings, seed and test, and other conditions only")
    settings, conditions = Settings(**first["settings"]), [Condition(**cell["condition"]) for cell in cells]
    curve: list[list[dict]] = []
    values: list[list[dict]] = []

    def after_epoch(ensemble: Ensemble) -> None:
        curve.append(_measure(ensemble, task, task.validation))
        if len(curve) in (1, settings.epochs + 1):
            values.append(_values(ensemble))

    with _one_thread():
        task = _task(settings.task, json.dumps(settings.options, sort_keys=True), settings.device)
        ensemble = train_networks(conditions, settings, task, first["seed"], after_epoch)
        test = _measure(ensemble, task, task.test) if first["test"] else [None] * len(cells)
        robustness = _robustness(ensemble, task, first["seed"]) if first["test"] else [None] * len(cells)
    return [
        {
            "validation": {name: [epoch[k][name] for epoch in curve] for name in ("loss", "accuracy", "rate")},
            "before": values[0][k],
            "after": values[-1][k],
            "test": test[k],
            "robustness": robustness[k],
        }
        for k in range(len(cells))
    ]
