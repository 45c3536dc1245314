r"""The networks of chapter 6: one or two spiking layers, whose neurons are equal or differ, and a readout.

Networks of one seed have equal weights before training and begin with equal firing rates, whatever their time
constants. For that, a neuron's weights are those of the seed times a factor that gives all voltages one variance, as in
fluctuation-driven initialization (see `snnparams.layers.initialisation.voltage_variance`), times one number for the
layer, found by bisection. Time constants count in time steps.

Why they are no `snnparams.Sequential`, nor the network of chapter 4 (`snnparams.models`): a readout is asked for each
answer when it is due, and filters spikes only for those steps, and weights are stored without the factors that belong
to a neuron's time constants, so that all networks learn at one rate. The populations and kernels are the package's own.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import nn
from torch.nn.functional import linear
from torch.nn.utils import parametrize

from snnparams import kernels
from snnparams.data.task import Task
from snnparams.experiments.designs import (
    DETACH,
    DT,
    FAST,
    PER_OUTPUT,
    RESETS,
    Architecture,
    Neurons,
    initial_delays,
    initial_values,
)
from snnparams.layers.delay import Delay
from snnparams.layers.initialisation import reach_rate_, voltage_variance
from snnparams.layers.neuron_parameters import NeuronParameters
from snnparams.neurons import AdaptiveLIF, LIFParameters, PartialResetLIF
from snnparams.neurons.surrogate import Surrogate
from snnparams.parameters.constraints import Interval
from snnparams.parameters.declared import Learned


class _Factor(nn.Module):
    """Weights times fixed factors, one for each row or each weight."""

    def __init__(self, factor: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("factor", factor.float().clone())

    def forward(self, weights):
        return weights * self.factor


class SpikingLayer(nn.Module):
    """Weights and a population of LIF neurons, with or without adaptation, recurrent or not.

    Args:
        weights: of the input, (H, I), before the factors of the neurons.
        recurrent_weights: (H, H), or None.
        values: `tau_mem` and `tau_syn` in time steps and `v_th`, each (H,), and likewise `tau_adapt` and `beta` if the
            thresholds adapt.
        neurons: says which are learned.
        architecture: says how the population resets, and the slope of the surrogate.

    Raises:
        ValueError: if thresholds adapt and the reset is another one than the standard one.
    """

    def __init__(self, weights, recurrent_weights, values: dict, neurons: Neurons, architecture: Architecture) -> None:
        super().__init__()
        self.reset, self.clear_synapse = architecture.reset, architecture.clear_synapse
        declared: dict = {}
        for name, value in values.items():
            x, field, constraint = value.float(), name, "log"
            if name.startswith("tau"):  # as rates: searches go beyond what may be declared as a time
                x, field, constraint = 1 / (x * DT), f"{name}_inv", "decay"
            if name in neurons.learned:
                x = Learned(x[0].item() if neurons.shared else x, constraint, shared=neurons.shared)
            declared[field] = x
        kind: type = LIFParameters if neurons.tau_adapt is None else AdaptiveLIF
        if self.reset != "zero" or self.clear_synapse:
            if neurons.tau_adapt is not None:
                raise ValueError("reset: expected the standard one where thresholds adapt, got another")
            kind = PartialResetLIF
            declared["of_voltage"], declared["of_threshold"] = RESETS[self.reset]
            declared["of_current"] = float(self.clear_synapse)
        gradient = Surrogate("super", architecture.alpha)
        self.p = NeuronParameters(kind(**declared), dt=DT, size=len(weights), gradient=gradient)
        gain = voltage_variance(values["tau_mem"], values["tau_syn"]).rsqrt()[:, None]
        self.weights = nn.Parameter(weights.clone())
        parametrize.register_parametrization(self, "weights", _Factor(gain), unsafe=True)
        self.recurrent = recurrent_weights is not None
        if self.recurrent:
            self.recurrent_weights = nn.Parameter(recurrent_weights.clone())
            no_autapses = gain * (1 - torch.eye(len(weights)))
            parametrize.register_parametrization(self, "recurrent_weights", _Factor(no_autapses), unsafe=True)

    def factors(self) -> list[torch.Tensor]:
        """Return the fixed factors of the weights: of the input, and of recurrent ones if there are any."""
        return [module[0].factor for module in cast(Any, self.parametrizations).values()]

    def forward(self, spikes: torch.Tensor) -> torch.Tensor:
        """Return spikes (T, B, H) for spikes (T, B, I)."""
        currents, p, neuron = linear(spikes, self.weights), self.p.values(), self.p.neuron
        recurrent_weights = self.recurrent_weights if self.recurrent else None
        kind = neuron.RecurrentState if self.recurrent else neuron.State
        start = kind(*currents.new_zeros(len(kind._fields), *currents.shape[1:]))
        return kernels.sequence(neuron, currents, start, p, DT, DETACH, recurrent_weights=recurrent_weights)[0]


def filters(taus: torch.Tensor, steps: int) -> torch.Tensor:
    """Return exponential filters (n, T) by lag, each with a sum of squares of 1 over infinite time.

    Args:
        taus: time constants in time steps, at least 1, (n,).
        steps: number of lags T.
    """
    decay = (1 - 1 / taus.double())[:, None]
    return ((1 - decay**2).sqrt() * decay ** torch.arange(steps)).float()


class Network(nn.Module):
    """One or two spiking layers and a readout, which returns logits and the spikes of each layer.

    A readout is an exponential filter of the last layer's spikes, weights and a bias. Binary answers (B, A) are read
    when they are due; classes (B, O) as the mean or maximum over time. With a `delay` the spikes arrive late there.
    """

    def __init__(
        self,
        layers: list[SpikingLayer],
        weights: torch.Tensor,
        task: Task,
        architecture: Architecture,
        delay: Delay | None = None,
    ) -> None:
        super().__init__()
        self.delay = delay
        self.layers = nn.ModuleList(layers)
        self.readout_weights, self.bias = nn.Parameter(weights.clone()), nn.Parameter(torch.zeros(len(weights)))
        self.readout, steps, tau = architecture.readout, task.steps, architecture.readout_tau
        if tau == PER_OUTPUT:
            taus = torch.logspace(math.log10(max(steps, FAST)), math.log10(FAST), len(weights))
        else:
            taus = torch.full((len(weights),), float(tau))
        self.taus, self.answers = taus, bool(task.answers)
        if self.answers:
            due, self.output = torch.tensor(task.answers).T
            lags = due[:, None] - torch.arange(steps)  # (A, T)
            self.kernel = filters(taus, steps)[self.output[:, None], lags.clamp(min=0)] * (lags >= 0)
            # answers that are due together and forget alike see the same filtered spikes
            distinct = torch.stack([due.float(), taus[self.output]], dim=1).unique(dim=0, return_inverse=True)
            (self.distinct_due, self.distinct_taus), self.answer = distinct[0].T, distinct[1]
        else:
            self.kernel = self._kernel_over_time(steps)

    def _kernel_over_time(self, steps: int) -> torch.Tensor:
        """Return what a readout of classes makes of a spike at each time: (O, T) if it is a mean, else (O, T, T)."""
        lags = torch.arange(steps)[:, None] - torch.arange(steps)
        kernel = filters(self.taus, steps)[:, lags.clamp(min=0)] * (lags >= 0)
        return kernel.mean(dim=1) if self.readout == "mean" else kernel

    def spiking_layers(self) -> list[SpikingLayer]:
        """Return the spiking layers, in order."""
        return [layer for layer in self.layers if isinstance(layer, SpikingLayer)]

    def forward(self, spikes: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return logits, (B, A) or (B, O), and spikes (T, B, H) of each layer."""
        hidden = []
        for layer in self.layers:
            spikes = layer(spikes)
            hidden.append(spikes)
        return self.decode(spikes), hidden

    def _late_kernel(self, delay: Delay, spikes: torch.Tensor) -> torch.Tensor:
        """Return what a spike at each time counts for the distinct answers (R, T, H).

        Late spikes through a filter are spikes through a late filter, which has no batch and so costs next to nothing.
        """
        steps, hidden = len(spikes), spikes.shape[2]
        by_lag = filters(self.distinct_taus, steps).to(spikes.dtype).T[..., None].expand(-1, -1, hidden)
        late, _ = delay(by_lag)  # (T, R, H): lags stand for time
        lags = self.distinct_due.long()[:, None] - torch.arange(steps)  # (R, T)
        rows = torch.arange(len(lags))[:, None]
        return late[lags.clamp(min=0), rows] * (lags >= 0)[..., None]

    def decode(self, spikes: torch.Tensor) -> torch.Tensor:
        """Return logits for the spikes (T, B, H) of the last layer."""
        if self.delay is not None and not self.answers:
            spikes, _ = self.delay(spikes)
        if self.answers:
            if self.delay is None:
                filtered = (self.kernel @ spikes.flatten(1)).view(-1, *spikes.shape[1:])  # (A, B, H)
            else:
                kernel = self._late_kernel(self.delay, spikes)
                if len(kernel) == 1:  # five times faster than a product of so thin matrices
                    filtered = (kernel.transpose(0, 1) * spikes).sum(dim=0, keepdim=True)[self.answer]
                else:
                    by_neuron = [x.permute(2, 0, 1).contiguous() for x in (kernel, spikes)]  # einsum copies slices
                    filtered = torch.bmm(*by_neuron).permute(1, 2, 0)[self.answer]
            logits = torch.einsum("abh,ah->ba", filtered, self.readout_weights[self.output])
            return logits + self.bias[self.output]
        outputs = linear(spikes, self.readout_weights)  # (T, B, O)
        same = len(spikes) == self.kernel.shape[-1]  # an input can be stretched in time
        kernel = self.kernel if same else self._kernel_over_time(len(spikes))
        if self.readout == "mean":
            return torch.einsum("tbo,ot->bo", outputs, kernel) + self.bias
        return torch.einsum("ots,sbo->tbo", kernel, outputs).amax(dim=0) + self.bias


def build(neurons: Neurons, architecture: Architecture, task: Task, seed: int) -> Network:
    """Return an untrained network, whose layers spike at the rate that the architecture asks for.

    Args:
        neurons: what is special about this network.
        architecture: what it has in common with others.
        task: what it shall learn: 100 of its training inputs are used to set the rate.
        seed: of the weights and the pairing of time constants.

    Raises:
        RateError: if no scale of the weights gives the wanted rate.
    """
    generator = torch.Generator().manual_seed(seed)
    hidden, share = architecture.hidden, architecture.recurrent_share if architecture.recurrent else 0.0
    sample = task.encode(task.train.inputs[:100]).to_dense()
    drive = sample.mean().item()
    layers, inputs, spikes = [], task.features, sample
    for _ in range(architecture.layers):
        weights = torch.randn(hidden, inputs, generator=generator) / math.sqrt(inputs * drive / (1 - share))
        back = torch.randn(hidden, hidden, generator=generator)  # drawn in any case: the rest stays the same
        recurrent = back / math.sqrt(hidden * architecture.rate / share) if share else None
        values = initial_values(neurons, hidden, generator)
        layer = SpikingLayer(weights, recurrent, values, neurons, architecture)
        spikes = reach_rate(layer, spikes, architecture.rate)
        layers.append(layer)
        inputs, drive = hidden, architecture.rate
    readout_weights = torch.randn(task.outputs, hidden, generator=generator) / math.sqrt(hidden)
    return Network(layers, readout_weights, task, architecture, _delay_of(neurons, hidden, task.steps))


def _delay_of(neurons: Neurons, hidden: int, steps: int) -> Delay | None:
    """Return the delays of the last layer's spikes, at most the duration of the task, or None for none."""
    if not neurons.delay:
        return None
    delays, longest = (initial_delays(neurons, hidden) * DT).float(), steps * DT
    learned = "delay" in neurons.learned
    value = Learned(delays, Interval(0.0, longest)) if learned else delays
    return Delay(value, max_delay=longest, size=hidden, dt=DT)


@torch.no_grad()
def reach_rate(layer: SpikingLayer, sample: torch.Tensor, rate: float) -> torch.Tensor:
    """Multiply all weights of a layer by the number that gives the rate, and return its spikes.

    See `snnparams.reach_rate_`, which does this.

    Args:
        layer: its factors are changed.
        sample: spikes (T, B, I).
        rate: wanted spikes per neuron and time step.

    Raises:
        RateError: if no such number gives the wanted rate.
    """
    return reach_rate_(layer.factors(), lambda: layer(sample), rate / DT, dt=DT)
