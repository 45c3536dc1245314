"""The networks that chapter 6 compares: what differs between two conditions, and what is held equal.

Networks of one seed have equal weights, see the same batches in the same order, take equally many steps and begin with
equal firing rates, whatever their condition. For that, the weights of a network are those of the seed times one factor
for each neuron, which makes up for its time constants. Time constants count in time steps.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import nn
from torch.nn.utils import parametrize

from snnparams import tasks
from snnparams.layers import LI, LIFRecurrent
from snnparams.models import decode
from snnparams.parameters import LIFParameters
from snnparams.tasks import Task
from snnparams.values import Learned

LEARNABLE = ("tau_mem", "tau_syn", "v_th")
DT = 1e-3  # s, of a time step inside the network
TASKS = {
    "mnist": tasks.mnist,
    "sequential_mnist": tasks.sequential_mnist,
    "spoken_digits": tasks.spoken_digits,
    "smooth_random_manifolds": tasks.smooth_random_manifolds,
}
READOUTS = {"max": decode, "mean": lambda voltages: torch.log_softmax(voltages.mean(dim=0), dim=1)}


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
        task: one of `TASKS`.
        options: its arguments.
        epochs: number of passes over the training split.
        hidden: number of LIF neurons.
        batch_size: inputs in a training batch.
        learning_rate: of the weights (Adam).
        neuron_learning_rate: of the neuron parameters: of the logit of `1 / tau`, and of the logarithm of thresholds.
        rate: initial spikes per neuron and time step, on average.
        alpha: slope of the surrogate gradient.
        largest_gradient: length beyond which a network's gradient is shortened.
        readout: "max" or "mean" over time of the readout's voltages. A mean remembers everything by itself.
        device: where to compute.
        recurrent_share: share of a membrane's initial variance that comes through recurrent connections.
    """

    task: str
    options: dict = dataclasses.field(default_factory=dict)
    epochs: int = 5
    hidden: int = 128
    batch_size: int = 64
    learning_rate: float = 5e-3
    neuron_learning_rate: float = 5e-3
    rate: float = 0.03
    alpha: float = 20.0
    largest_gradient: float = 1.0
    readout: str = "max"
    device: str = "cpu"
    recurrent_share: float = 0.3

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"task: expected one of {', '.join(TASKS)}, got {self.task!r}")
        if self.readout not in READOUTS:
            raise ValueError(f"readout: expected one of {', '.join(READOUTS)}, got {self.readout!r}")


class _Gain(nn.Module):
    """Weights (H, ...) times one fixed factor for each of the H neurons."""

    def __init__(self, gain: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("gain", gain[:, None].clone())

    def forward(self, weights):
        return weights * self.gain


class Network(nn.Module):
    """One recurrent LIF layer and a leaky readout; it returns log-probabilities and the rate of its neurons."""

    def __init__(self, hidden: LIFRecurrent, readout_weights: torch.Tensor, readout: str = "max") -> None:
        super().__init__()
        self.hidden, self.out, self.readout = hidden, LI(dt=DT), readout
        self.readout_weights = nn.Parameter(readout_weights)

    def forward(self, spikes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log-probabilities (B, O) and spikes per neuron and time step (B,)."""
        z, _ = self.hidden(spikes)
        voltages, _ = self.out(z @ self.readout_weights.T)
        return READOUTS[self.readout](voltages), z.mean(dim=(0, 2))


def _initial_values(condition: Condition, normal: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return tau_mem and tau_syn in time steps and v_th, each (H,), from normal random numbers (3, H)."""
    tau_mem, tau_syn = (
        1 + (tau - 1) * torch.exp(condition.spread * z)
        for tau, z in zip((condition.tau, condition.tau / 2), normal[:2], strict=True)
    )
    return {"tau_mem": tau_mem, "tau_syn": tau_syn, "v_th": torch.exp(condition.spread / 4 * normal[2])}


def build(condition: Condition, settings: Settings, task: Task, seed: int) -> Network:
    r"""Return an untrained network, whose neurons spike at the rate that the settings ask for.

    A spike through weight w makes the voltage vary by :math:`w^2 \tau_s^2 / 2 (\tau_m + \tau_s)` (time constants in
    time steps, integrated over time). Every neuron's weights are divided by the root of that, and all of them
    multiplied by one number, found by bisection.

    Raises:
        RuntimeError: if no such number gives the wanted rate.
    """
    generator = torch.Generator().manual_seed(seed)
    hidden, inputs = settings.hidden, task.features

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    input_weights, recurrent_weights, readout_weights = (
        draw(hidden, inputs),
        draw(hidden, hidden),
        draw(task.classes, hidden),
    )
    values = _initial_values(condition, draw(3, hidden))
    chosen = torch.randperm(len(task.train.labels), generator=generator)[:100]
    sample = task.encode(task.train.images[chosen].cpu())  # built on a CPU: the same everywhere
    drive = math.sqrt(inputs * sample.to_dense().mean().item() / (1 - settings.recurrent_share))
    feedback = math.sqrt(hidden * settings.rate / settings.recurrent_share)
    p = LIFParameters(
        tau_mem=Learned(DT * values["tau_mem"], "decay"),
        tau_syn=Learned(DT * values["tau_syn"], "decay"),
        v_th=Learned(values["v_th"], "log"),
        alpha=settings.alpha,
    )
    layer = LIFRecurrent(inputs, hidden, p, input_weights / drive, recurrent_weights / feedback, autapses=True, dt=DT)
    network = Network(layer, readout_weights / math.sqrt(hidden), settings.readout)
    variance = values["tau_syn"] ** 2 / (2 * (values["tau_mem"] + values["tau_syn"]))
    for name in ("input_weights", "recurrent_weights"):
        parametrize.register_parametrization(layer, name, _Gain(variance.rsqrt()), unsafe=True)
    _reach_rate(network, sample, settings.rate)
    return network


def _gains(network: Network) -> list[torch.Tensor]:
    layer = network.hidden.parametrizations
    return [layer.input_weights[0].gain, layer.recurrent_weights[0].gain]


@torch.no_grad()
def _reach_rate(
    network: Network, sample: torch.Tensor, rate: float, tolerance: float = 0.02, most: float = 0.05
) -> None:
    """Multiply all weights of the hidden layer by the number that gives the rate.

    The rate of equal neurons can jump past the wanted one: then the nearest rate will do, if it is within `most`.
    """
    before = [gain.clone() for gain in _gains(network)]
    low, high = 2.0**-6, 2.0**6
    reached = {}
    for _ in range(40):
        factor = math.sqrt(low * high)
        reached[factor] = _scaled_rate(network, before, factor, sample)
        if abs(reached[factor] - rate) <= tolerance * rate:
            return
        low, high = (factor, high) if reached[factor] < rate else (low, factor)
    factor = min(reached, key=lambda factor: abs(reached[factor] - rate))
    if abs(reached[factor] - rate) > most * rate:
        raise RuntimeError(
            f"rate: expected {rate} spikes per neuron and time step within {most:.0%}, reached {reached[factor]:.4f}"
        )
    _scaled_rate(network, before, factor, sample)


def _scaled_rate(network: Network, gains: list[torch.Tensor], factor: float, sample: torch.Tensor) -> float:
    """Set the gains to some times a factor, and return the network's rate."""
    for gain, start in zip(_gains(network), gains, strict=True):
        gain.copy_(factor * start)
    return network(sample)[1].mean().item()
