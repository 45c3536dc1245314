"""The networks that chapter 6 compares: what differs between two conditions, and what is held equal.

Networks of one seed have equal weights, see the same batches in the same order, take equally many steps and begin with
equal firing rates, whatever their condition. For that, the weights of a network are those of the seed times one factor
for each neuron, which makes up for its time constants. Time constants count in time steps.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import torch
from torch import nn
from torch.nn.functional import nll_loss
from torch.nn.utils import parametrize

from snnparams import tasks
from snnparams.data import Split
from snnparams.ensemble import Ensemble
from snnparams.layers import LI, LIFRecurrent
from snnparams.models import decode
from snnparams.parameters import LIFParameters
from snnparams.tasks import Task

LEARNABLE = ("tau_mem", "tau_syn", "v_th")
DT = 1e-3  # s, of a time step inside the network


@dataclasses.dataclass(frozen=True)
class Condition:
    """What may differ between two networks of one seed.

    Args:
        tau: initial membrane time constant in time steps, more than 2; that of the synapses is half of it.
        spread: standard deviation between neurons of the logarithm of `tau - 1`, for membranes and synapses each by
            itself; a quarter of it for the logarithm of thresholds. 0 makes all neurons equal.
        learned: which of `LEARNABLE` are learned.
    """

    tau: float
    spread: float = 0.0
    learned: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "learned", tuple(self.learned))  # JSON knows lists only
        if not self.tau > 2:
            raise ValueError(f"tau: expected more than 2 time steps, got {self.tau}")
        if not self.spread >= 0:
            raise ValueError(f"spread: expected at least 0, got {self.spread}")
        if unknown := set(self.learned) - set(LEARNABLE):
            raise ValueError(f"learned: expected some of {', '.join(LEARNABLE)}, got {sorted(unknown)}")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is equal in all networks of a task.

    Args:
        task: name of a function in `snnparams.tasks`.
        options: its arguments.
        epochs: number of passes over the training split.
        hidden: number of LIF neurons.
        batch_size: inputs in a training batch.
        learning_rate: of the weights (Adam).
        neuron_learning_rate: of the neuron parameters, which are logarithms.
        rate: initial spikes per neuron and time step, on average.
        alpha: slope of the surrogate gradient.
        largest_gradient: length beyond which a network's gradient is shortened.
        recurrent_share: share of a membrane's initial variance that comes through recurrent connections.
    """

    task: str
    options: dict = dataclasses.field(default_factory=dict)
    epochs: int = 5
    hidden: int = 128
    batch_size: int = 64
    learning_rate: float = 5e-3
    neuron_learning_rate: float = 2e-2
    rate: float = 0.03
    alpha: float = 20.0
    largest_gradient: float = 1.0
    recurrent_share: float = 0.3


class _InverseTime(nn.Module):
    """1 / tau in 1/s from log(tau / dt - 1): valid for every number, since tau > dt."""

    def forward(self, x):
        return torch.sigmoid(-x) / DT

    def right_inverse(self, tau_inv):
        return torch.log(1 / (DT * tau_inv) - 1)


class _Exponential(nn.Module):
    """A threshold from its logarithm."""

    def forward(self, x):
        return x.exp()

    def right_inverse(self, v_th):
        return v_th.log()


class _Gain(nn.Module):
    """Weights (H, ...) times one fixed factor for each of the H neurons."""

    def __init__(self, gain: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("gain", gain[:, None].clone())

    def forward(self, weights):
        return weights * self.gain


class Network(nn.Module):
    """One recurrent LIF layer and a leaky readout; it returns log-probabilities and the rate of its neurons."""

    def __init__(self, hidden: LIFRecurrent, readout_weights: torch.Tensor) -> None:
        super().__init__()
        self.hidden, self.out = hidden, LI(dt=DT)
        self.readout_weights = nn.Parameter(readout_weights)

    def forward(self, spikes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log-probabilities (B, O) and spikes per neuron and time step (B,)."""
        z, _ = self.hidden(spikes)
        voltages, _ = self.out(z @ self.readout_weights.T)
        import os
        if os.environ.get('RO')=='mean': return torch.log_softmax(voltages.mean(0),1), z.mean(dim=(0, 2))
        return decode(voltages), z.mean(dim=(0, 2))


def _initial_values(condition: Condition, normal: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return tau_mem and tau_syn in time steps and v_th, each (H,), from normal random numbers (3, H)."""
    tau_mem, tau_syn = (
        1 + (tau - 1) * torch.exp(condition.spread * z)
        for tau, z in zip((condition.tau, condition.tau / 2), normal[:2], strict=True)
    )
    return {"tau_mem": tau_mem, "tau_syn": tau_syn, "v_th": torch.exp(condition.spread / 4 * normal[2])}


def build(condition: Condition, settings: Settings, task: Task, seed: int) -> Network:
    """Return an untrained network, whose neurons spike at the rate that the settings ask for.

    A spike through weight w makes the voltage vary by :math:`w^2 \\tau_s^2 / 2 (\\tau_m + \\tau_s)` (time constants in
    time steps, integrated over time). Every neuron's weights are divided by the root of that, and all of them
    multiplied by one number, found by bisection.

    Raises:
        RuntimeError: if no such number gives the wanted rate.
    """
    generator = torch.Generator().manual_seed(seed)
    hidden, inputs = settings.hidden, task.features

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    input_weights, recurrent_weights, readout_weights = draw(hidden, inputs), draw(hidden, hidden), draw(task.classes, hidden)
    values = _initial_values(condition, draw(3, hidden))
    sample = task.encode(task.train.images[torch.randperm(len(task.train.labels), generator=generator)[:100]])
    drive = math.sqrt(inputs * sample.to_dense().mean().item() / (1 - settings.recurrent_share))
    feedback = math.sqrt(hidden * settings.rate / settings.recurrent_share)
    p = LIFParameters(
        tau_mem_inv=nn.Parameter(1 / (DT * values["tau_mem"])),
        tau_syn_inv=nn.Parameter(1 / (DT * values["tau_syn"])),
        v_th=nn.Parameter(values["v_th"]),
        alpha=settings.alpha,
    )
    layer = LIFRecurrent(inputs, hidden, p, input_weights / drive, recurrent_weights / feedback, autapses=True, dt=DT)
    network = Network(layer, readout_weights / math.sqrt(hidden))
    parametrize.register_parametrization(layer.p, "tau_mem_inv", _InverseTime())
    parametrize.register_parametrization(layer.p, "tau_syn_inv", _InverseTime())
    parametrize.register_parametrization(layer.p, "v_th", _Exponential())
    variance = values["tau_syn"] ** 2 / (2 * (values["tau_mem"] + values["tau_syn"]))
    for name in ("input_weights", "recurrent_weights"):
        parametrize.register_parametrization(layer, name, _Gain(variance.rsqrt()), unsafe=True)
    _reach_rate(network, sample, settings.rate)
    return network


def _gains(network: Network) -> list[torch.Tensor]:
    layer = network.hidden.parametrizations
    return [layer.input_weights[0].gain, layer.recurrent_weights[0].gain]


@torch.no_grad()
def _reach_rate(network: Network, sample: torch.Tensor, rate: float, tolerance: float = 0.02) -> None:
    """Multiply all weights of the hidden layer by the number that gives the rate."""
    before = [gain.clone() for gain in _gains(network)]
    low, high = 2.0**-6, 2.0**6
    for _ in range(40):
        factor = math.sqrt(low * high)
        for gain, start in zip(_gains(network), before, strict=True):
            gain.copy_(factor * start)
        found = network(sample)[1].mean().item()
        if abs(found - rate) <= tolerance * rate:
            return
        low, high = (factor, high) if found < rate else (low, factor)
    raise RuntimeError(f"rate: expected {rate} spikes per neuron and time step within {tolerance:.0%}, reached {found:.4f}")


def time_warp(spikes: torch.Tensor, factor: float) -> torch.Tensor:
    """Return spikes (T, B, I) stretched in time by a factor; spikes that fall into one step become one.

    Raises:
        ValueError: if the factor is not positive.
    """
    if not factor > 0:
        raise ValueError(f"factor: expected a positive number, got {factor}")
    steps = (torch.arange(len(spikes), device=spikes.device) * factor).long()
    out = torch.zeros(max(1, round(len(spikes) * factor)), *spikes.shape[1:], device=spikes.device)
    return out.index_add_(0, steps.clamp(max=len(out) - 1), spikes.to_dense()).clamp_(max=1)


def add_noise(spikes: torch.Tensor, level: float, generator: torch.Generator) -> torch.Tensor:
    """Return spikes (T, B, I) and random ones at `level` times their mean rate, drawn on a CPU.

    Raises:
        ValueError: if the level is negative or so high that every input would spike all the time.
    """
    spikes = spikes.to_dense()
    rate = level * spikes.mean().item()
    if not 0 <= rate < 1:
        raise ValueError(f"level: expected noise of 0 to 1 spikes per time step, got {rate:g} at level {level}")
    return torch.maximum(spikes, (torch.rand(spikes.shape, generator=generator) < rate).to(spikes))


def _freeze(ensemble: Ensemble, conditions: list[Condition]) -> list[nn.Parameter]:
    """Make gradients by parameters zero in the members that do not learn them; return the neuron parameters."""
    found = []
    for name in LEARNABLE:
        field = "v_th" if name == "v_th" else f"{name}_inv"
        values = ensemble.stacked.hidden.p.parametrizations[field].original
        learns = torch.tensor([name in c.learned for c in conditions], device=values.device)[:, None]
        if learns.any():
            values.register_hook(functools.partial(torch.where, learns, other=torch.zeros((), device=values.device)))
            found.append(values)
        else:
            values.requires_grad_(False)
    return found


@torch.no_grad()
def _clip(ensemble: Ensemble, largest: float) -> None:
    """Shorten the gradient of each network that is longer than that."""
    gradients = [p.grad for p in ensemble.parameters() if p.grad is not None]
    norms = sum(g.flatten(1).square().sum(dim=1) for g in gradients).sqrt()  # (E,)
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
    return [dict(zip(("loss", "accuracy", "rate"), values, strict=True)) for values in (totals / len(split.labels)).T.tolist()]


def train_networks(conditions: list[Condition], settings: Settings, task: Task, seed: int, after_epoch=None) -> Ensemble:
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
    order = torch.Generator().manual_seed(seed)
    if after_epoch:
        after_epoch(ensemble)
    for _ in range(settings.epochs):
        for batch in torch.randperm(len(task.train.labels), generator=order).split(settings.batch_size):
            optimizer.zero_grad()
            log_p, _ = ensemble(task.encode(task.train.images[batch]))
            labels = task.train.labels[batch]
            loss = sum(nll_loss(member, labels) for member in log_p)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"expected a finite loss, got {loss.item()}")
            loss.backward()
            _clip(ensemble, settings.largest_gradient)
            optimizer.step()
        if after_epoch:
            after_epoch(ensemble)
    return ensemble
