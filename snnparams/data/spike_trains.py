"""From numbers to spikes by chance, and to one spike each, beside the constant currents of `encoding`."""

from __future__ import annotations

from typing import ClassVar

import torch

from snnparams.data.encoding import check_encodes, constant_current_lif_encode
from snnparams.layers.attributes import Attributes
from snnparams.layers.calls import HasParameters
from snnparams.layers.checks import check_finite, check_floating
from snnparams.layers.neuron_parameters import NeuronParameters
from snnparams.neurons import LIFParameters
from snnparams.parameters.constraints import can_be_looked_at
from snnparams.parameters.settings import check_counts, check_dt, is_number, shape_of_population


def poisson_encode(
    input_values: torch.Tensor,
    seq_length: int,
    f_max: float = 100.0,
    *,
    dt: float = 0.001,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    r"""Let each value be the rate at which an input spikes by chance, independently in every step.

    A value :math:`x` spikes with probability :math:`x f_\mathrm{max} \Delta t` per step, so that a step has one spike
    at most: a Poisson process, where that is small.

    Args:
        input_values: from 0 to 1, any shape.
        seq_length: number of time steps T.
        f_max: rate of a value of 1, in 1/s, positive and at most one spike per step.
        dt: time step in s.
        generator: of the random numbers, on the device of the values; the global one if None.

    Returns:
        Spikes, shape (T, ...), of the type of the values, without gradient.

    Raises:
        ValueError: if T is not a positive integer, a value is not from 0 to 1, or the rate is out of range.
        TypeError: if the values are not floating-point numbers.
    """
    _check_poisson(seq_length, f_max, dt)
    check_floating("input", input_values)
    check_finite("input", input_values)
    # random numbers in half precision are multiples of 1/256 or 1/2048: small rates would come out wrong
    precision = torch.promote_types(input_values.dtype, torch.float32)
    probability = input_values.detach().to(precision) * (f_max * dt)
    if can_be_looked_at(input_values) and ((input_values < 0) | (input_values > 1)).any():
        low, high = input_values.min().item(), input_values.max().item()
        raise ValueError(f"input: expected values from 0 to 1, got {low:g} to {high:g}")
    shape = (seq_length, *input_values.shape)
    chance = torch.rand(shape, dtype=probability.dtype, device=probability.device, generator=generator)
    return (chance < probability).to(input_values.dtype)


def _check_poisson(seq_length: int, f_max: float, dt: float) -> None:
    check_counts(seq_length=seq_length)
    check_dt(dt)
    if not (is_number(f_max) and 0 < f_max * dt <= 1):
        raise ValueError(
            f"f_max: expected a positive rate of at most {1 / dt:g} 1/s, one spike per step, got {f_max!r}"
        )


class PoissonEncoder(Attributes):
    """Encode values as the rates of spikes that come by chance, see `poisson_encode`.

    Args:
        seq_length: number of time steps T.
        f_max: rate of a value of 1, in 1/s.
        dt: time step in s.

    Called with values of any shape, from 0 to 1, it returns spikes of shape (T, ...). It draws from the
    global generator.

    Raises:
        ValueError: if T is not a positive integer, or the rate is out of range.
    """

    as_built: ClassVar[tuple[str, ...]] = ("seq_length", "f_max", "dt")

    def __init__(self, seq_length: int, f_max: float = 100.0, *, dt: float = 0.001) -> None:
        super().__init__()
        _check_poisson(seq_length, f_max, dt)
        self.seq_length, self.f_max, self.dt = seq_length, f_max, dt

    def extra_repr(self) -> str:
        """Show the number of time steps, the largest rate and the time step."""
        return f"seq_length={self.seq_length}, f_max={self.f_max}, dt={self.dt}"

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        """Return spikes (T, ...)."""
        return poisson_encode(input_values, self.seq_length, self.f_max, dt=self.dt)


def spike_latency_lif_encode(
    input_current: torch.Tensor,
    seq_length: int,
    p: LIFParameters | NeuronParameters | None = None,
    *,
    dt: float = 0.001,
) -> torch.Tensor:
    """Let each value drive a LIF neuron as a constant current, and return that neuron's first spike.

    A larger value spikes earlier; one of at most the threshold above the leak voltage never does, unless the threshold
    is negative: the membrane begins at 0.

    Args:
        input_current: values of any shape.
        seq_length: number of time steps T.
        p: neuron parameters as in `constant_current_lif_encode`; `LIFParameters()` if None.
        dt: time step in s.

    Returns:
        Spikes, shape (T, ...), at most one for each value, of the type of the values. A surrogate gradient passes by
        that spike alone.

    Raises:
        ValueError, TypeError: as `constant_current_lif_encode`; also if spikes are graded.
    """
    spikes = constant_current_lif_encode(input_current, seq_length, p, dt=dt)
    so_far = spikes.detach().cumsum(dim=0)
    if can_be_looked_at(spikes) and ((spikes != 0) & (spikes != 1)).any():
        raise ValueError(
            "p: expected a spike function with spikes of 0 or 1, got graded spikes, of which none is first"
        )
    return spikes * (so_far == 1)


class SpikeLatencyLIFEncoder(HasParameters):
    """Encode values by the time of one spike, see `spike_latency_lif_encode`.

    Args:
        seq_length: number of time steps T.
        p: neuron parameters; defaults as in `LIFParameters`.
        size: number of values, or their shape without the batch, if a parameter is drawn or learned for each of them.
        dt: time step in s.

    Called with values of any shape, it returns spikes of shape (T, ...).

    Raises:
        ValueError: if T is not a positive integer, or a parameter is invalid.
        TypeError: if the parameters are of another neuron.
    """

    as_built: ClassVar[tuple[str, ...]] = (*HasParameters.as_built, "seq_length")

    def __init__(
        self,
        seq_length: int,
        p: LIFParameters | None = None,
        *,
        size: int | tuple[int, ...] | None = None,
        dt: float = 0.001,
    ) -> None:
        super().__init__()
        check_counts(seq_length=seq_length)
        p = LIFParameters() if p is None else p
        check_encodes(p)
        self.p = NeuronParameters(p, dt=dt, size=shape_of_population(size))
        self.seq_length = seq_length

    def extra_repr(self) -> str:
        """Show the number of time steps and their length."""
        return f"seq_length={self.seq_length}, dt={self.dt}"

    def forward(self, input_currents: torch.Tensor) -> torch.Tensor:
        """Return spikes (T, ...)."""
        return spike_latency_lif_encode(input_currents, self.seq_length, self.p, dt=self.dt)
