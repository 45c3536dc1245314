"""What the networks of chapter 6 have in common, and what may differ between them.

Time constants count in time steps.
"""

from __future__ import annotations

import dataclasses

import torch

from snnparams.parameters.settings import check_counts

LEARNABLE = ("tau_mem", "tau_syn", "v_th")
ADAPTATION = ("tau_adapt", "beta")  # of neurons whose thresholds adapt, which are learnable as well
DT = 1e-3  # s, of a time step inside the network
DETACH = True  # treat the spike as a constant in the reset, with and without recurrence
READOUTS = ("mean", "max")
# what a spike takes of the voltage, and what of the threshold: `of_voltage` and `of_threshold` of `PartialResetLIF`
RESETS = {"zero": (1.0, 0.0), "subtraction": (0.0, 1.0), "none": (0.0, 0.0)}
PER_OUTPUT = "per output"
FAST = 8.0  # time steps of a readout that forgets


@dataclasses.dataclass(frozen=True)
class Neurons:
    """What may differ between two networks of one seed.

    Args:
        tau_mem: membrane time constant in time steps, the middle one where they differ, more than 1.
        tau_syn: the same of synapses.
        spread_mem: 1 for equal membranes; else the factor between the middle and the longest, and between the shortest
            and the middle, of `tau_mem - 1`. Values are spaced evenly on a logarithmic scale.
        spread_syn: the same of synapses.
        distinct: number of distinct values where they differ; None for one per neuron.
        learned: which of `LEARNABLE`, of `ADAPTATION` if thresholds adapt, and "delay" if there are any, are learned.
        shared: whether the learned ones are one number for the layer (as in PLIF) instead of one per neuron.
        tau_adapt: time constant in time steps of thresholds that adapt, see `snnparams.neurons.AdaptiveLIF`, the middle
            one where they differ; None for thresholds that do not.
        spread_adapt: for it what `spread_mem` is for membranes.
        beta: what a spike adds to a threshold that adapts.
        delay: how long a spike of the last layer travels to the readout, in time steps, the mean where delays differ; 0
            for no delays.
        different_delays: whether delays are spaced evenly between 0 and twice `delay` instead of being equal.
    """

    tau_mem: float = 4.0
    tau_syn: float = 20.0
    spread_mem: float = 1.0
    spread_syn: float = 1.0
    distinct: int | None = None
    learned: tuple[str, ...] = ()
    shared: bool = False
    tau_adapt: float | None = None
    spread_adapt: float = 1.0
    beta: float = 0.3
    delay: float = 0.0
    different_delays: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "learned", tuple(self.learned))  # JSON knows lists only
        for name in ("tau_mem", "tau_syn", *(() if self.tau_adapt is None else ("tau_adapt",))):
            if not getattr(self, name) > 1:
                raise ValueError(f"{name}: expected more than 1 time step, got {getattr(self, name)}")
        if self.tau_adapt is not None and not self.beta > 0:
            raise ValueError(f"beta: expected a positive number, got {self.beta}")
        for name in ("spread_mem", "spread_syn", "spread_adapt"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"{name}: expected a factor of at least 1, got {getattr(self, name)}")
        if self.distinct is not None and not self.distinct >= 1:
            raise ValueError(f"distinct: expected None or at least 1, got {self.distinct}")
        if not self.delay >= 0 or (self.different_delays and self.delay == 0):
            raise ValueError(f"delay: expected at least 0 time steps, more if delays differ, got {self.delay}")
        learnable: tuple[str, ...] = LEARNABLE if self.tau_adapt is None else LEARNABLE + ADAPTATION
        learnable += ("delay",) if self.delay else ()
        if unknown := set(self.learned) - set(learnable):
            raise ValueError(f"learned: expected some of {', '.join(learnable)}, got {sorted(unknown)}")
        if self.tau_adapt is None and self.spread_adapt > 1:
            raise ValueError("spread_adapt: expected thresholds that adapt, with a tau_adapt")
        differ = max(self.spread_mem, self.spread_syn, self.spread_adapt) > 1 or self.different_delays
        if self.shared and (differ or not self.learned or "delay" in self.learned):
            raise ValueError("shared: expected equal neurons of which something is learned, delays one by one")


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What is equal in the networks that are compared.

    Args:
        hidden: neurons in each spiking layer.
        layers: number of spiking layers.
        recurrent: whether each layer is recurrent, without autapses.
        rate: initial spikes per neuron and time step, on average.
        alpha: slope of the surrogate gradient (`super`).
        readout_tau: time steps of the readout's exponential filter, or "per output": spaced on a logarithmic scale from
            the duration of the input, for the first output, to 8, for the last one.
        readout: "mean" or "max" over time of the outputs, for tasks with classes. Binary answers are read when due.
        reset: the voltage after a spike: "zero" for 0, as in LIF, "subtraction" for what was above the threshold, or
            "none" for the voltage as it was.
        clear_synapse: whether a spike clears the synaptic current, too.
        recurrent_share: share of a membrane's initial variance that comes through recurrent connections.
    """

    hidden: int = 48
    layers: int = 1
    recurrent: bool = False
    rate: float = 0.06
    alpha: float = 5.0
    readout_tau: float | str = FAST
    readout: str = "mean"
    reset: str = "zero"
    clear_synapse: bool = False
    recurrent_share: float = 0.3

    def __post_init__(self) -> None:
        if self.reset not in RESETS:
            raise ValueError(f"reset: expected one of {', '.join(RESETS)}, got {self.reset!r}")
        check_counts(hidden=self.hidden, layers=self.layers)
        if self.readout not in READOUTS:
            raise ValueError(f"readout: expected one of {', '.join(READOUTS)}, got {self.readout!r}")
        if self.readout_tau != PER_OUTPUT and not (isinstance(self.readout_tau, int | float) and self.readout_tau >= 1):
            raise ValueError(f"readout_tau: expected at least 1 time step or {PER_OUTPUT!r}, got {self.readout_tau!r}")
        if not 0 < self.rate < 1:
            raise ValueError(f"rate: expected more than 0 and less than 1 spike per time step, got {self.rate}")


def spaced(middle: float, spread: float, count: int, distinct: int | None = None) -> torch.Tensor:
    """Return time constants (count,) whose distance from 1 is spaced evenly on a logarithmic scale.

    They are the middles of as many equal parts of the range as there are distinct values, as equally often as can be.

    Args:
        middle: the middle one, in time steps.
        spread: factor between the middle and the ends of the range.
        count: number of neurons.
        distinct: number of distinct values; None for `count`.
    """
    distinct = count if distinct is None else min(distinct, count)
    part = torch.arange(count) * distinct // count
    return 1 + (middle - 1) * spread ** ((2 * part.double() + 1) / distinct - 1)


def initial_delays(neurons: Neurons, hidden: int) -> torch.Tensor:
    """Return the delay of each neuron in time steps, (H,) and float64; those that differ are middles of equal parts."""
    shares = (2 * torch.arange(hidden).double() + 1) / hidden
    return neurons.delay * (shares if neurons.different_delays else torch.ones_like(shares))


def initial_values(neurons: Neurons, hidden: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Return `tau_mem` and `tau_syn` in time steps and `v_th` of each neuron, each (H,) and float64.

    Where thresholds adapt, also `tau_adapt` and `beta`. Time constants that differ are paired at random.
    """
    tau_mem = spaced(neurons.tau_mem, neurons.spread_mem, hidden, neurons.distinct)
    tau_syn = spaced(neurons.tau_syn, neurons.spread_syn, hidden, neurons.distinct)
    order = torch.randperm(hidden, generator=generator)
    values = {"tau_mem": tau_mem[order], "tau_syn": tau_syn, "v_th": torch.ones(hidden, dtype=torch.float64)}
    if neurons.tau_adapt is not None:
        tau_adapt = spaced(neurons.tau_adapt, neurons.spread_adapt, hidden, neurons.distinct)
        values["tau_adapt"] = tau_adapt[order.argsort()]  # another order, without a draw: weights stay those of a seed
        values["beta"] = torch.full((hidden,), neurons.beta, dtype=torch.float64)
    return values
