"""The parameters of delays: declared, drawn, learned and kept within their limits; and what they do to spikes."""

from __future__ import annotations

import dataclasses
import math
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import torch
from torch import nn
from torch.distributions import Distribution
from torch.nn.functional import conv1d

from snnparams.layers.checks import check_finite
from snnparams.layers.neuron_parameters import NeuronParameters, _validate_after_load
from snnparams.layers.reads import Reads
from snnparams.neurons import Parameter, Value
from snnparams.parameters.constraints import Constraint, Interval, can_be_looked_at
from snnparams.parameters.declared import Fixed, Learned, as_tensor, check_declared, check_dtype, plain
from snnparams.parameters.distributions import bounds
from snnparams.parameters.settings import check_dt, check_seconds, is_number

ROUNDING = 2e-7  # share by which a delay may exceed its limits, as in float32 it does


class _Limits(Parameter):
    """What is known of a delay, whose limits are valid themselves."""

    @property
    def above(self) -> str:
        return f"delays of at least {self.with_unit(self.low)}"


class _Values(NamedTuple):
    delay: torch.Tensor


@dataclasses.dataclass(frozen=True)
class _Kind:
    """What `NeuronParameters` read of a class of neurons, for delays with limits of their own."""

    parameters: dict[str, Parameter]
    times = MappingProxyType[str, str]({})
    spiking = False
    Values = _Values


def _check_time(name: str, time: float) -> float:
    if not (is_number(time) and math.isfinite(time) and time >= 0):
        raise ValueError(f"{name}: expected a finite time in s of at least 0, got {time!r}")
    check_seconds(name, "delay", time)
    return float(time)


def _longest(delay: Value, max_delay: float | None) -> float:
    """Return the longest delay in s that a declared delay can have.

    Raises:
        ValueError: if it says nothing of it and `max_delay` does not either, or it is longer than one second, when
            milliseconds were more likely meant.
    """
    if max_delay is not None:
        return _check_time("max_delay", max_delay)
    value = delay.value if isinstance(delay, Fixed) else plain("delay", delay)
    constraint = getattr(delay, "constraint", None)
    if isinstance(constraint, Interval):
        return _check_time("constraint", constraint.bounds[1])
    learned = isinstance(delay, Learned) or isinstance(value, nn.Parameter)
    if isinstance(value, Distribution):
        high = bounds(value)[1]
    elif isinstance(value, (int, float)) or (isinstance(value, torch.Tensor) and value.is_floating_point()):
        values = as_tensor(value).detach()
        high = max(values[torch.isfinite(values)].tolist(), default=0.0)
    else:
        high = 0.0  # neither is a delay, which is refused where it is used
    if learned or not math.isfinite(high):
        raise ValueError(
            "max_delay: expected the longest delay in s that there is to be room for, because delays are learned or "
            "drawn without an end, got None"
        )
    return _check_time("delay", max(float(high), 0.0))


class DelayParameters(NeuronParameters):
    """The delays of one module: `delay` in s, with all that `NeuronParameters` do for a neuron's parameters.

    Args:
        delay: a number, a tensor, an array of NumPy, a distribution, `Learned`, `Fixed` or an `nn.Parameter`. Learned
            delays stay between their limits by `constraints.Interval`, unless another constraint is chosen.
        low: shortest valid delay in s.
        high: longest valid delay in s.
        dt: time step in s.
        size: number of presynaptic neurons, or a shape that the values fit; None where it is unknown.
        device: device of buffers and new parameters.
        dtype: their floating-point type.

    Raises:
        ValueError: if a delay is out of its limits, or the size is needed and unknown.
        TypeError: if a value is not a real floating-point number.
    """

    as_built: ClassVar[tuple[str, ...]] = (*NeuronParameters.as_built, "low", "high")

    def __init__(
        self,
        delay: Value,
        *,
        low: float,
        high: float,
        dt: float,
        size: int | tuple[int, ...] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        nn.Module.__init__(self)
        if not low <= high:
            raise ValueError(f"max_delay: expected at least {low:g} s, got {high:g} s")
        self.low, self.high = low, high
        limits = _Limits(low, "s", (1 - ROUNDING) * low, (1 + ROUNDING) * high, name="delay", closed=True)
        self.neuron, self.declaration = _Kind({"delay": limits}), "DelayParameters"  # type: ignore[assignment]
        self.dt, self.size = check_dt(dt), size
        self._reads = Reads()
        self.gradient = None
        self.neuron_fields = ("delay",)  # from here on other names are refused
        declared = check_declared(limits, delay)
        self._place("delay", *self._make("delay", declared, device, check_dtype(dtype)))
        self.register_load_state_dict_post_hook(_validate_after_load)

    def _make(self, name, declared, device, dtype):
        if isinstance(declared, Learned) and declared.constraint is None:
            if not self.low < self.high:
                raise ValueError(f"max_delay: expected more than {self.low:g} s for delays that are learned")
            declared = dataclasses.replace(declared, constraint=Interval(self.low, self.high))
        return super()._make(name, declared, device, dtype)

    def steps(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the whole steps and the fractions of all delays, differentiable by the delays.

        Raises:
            ValueError: if a delay is not finite, or one that nothing constrains is out of its limits.
        """
        (delay,) = self.values()
        check_finite("delay", delay)
        if can_be_looked_at(delay) and not isinstance(self.constraint("delay"), Constraint):
            self.validate()
        whole, fraction = _whole_and_fraction(delay / self.dt)
        return whole.clamp(max=_number_of_steps(self.high, self.dt) - 1), fraction  # beyond it by rounding alone


def _whole_and_fraction(steps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Split delays in time steps into whole steps and a fraction, 0 to 1, through which the gradient passes.

    A delay that differs from a whole number by rounding is one, so that it leaves spikes zeros and ones.
    """
    nearest = steps.detach().round()
    tolerance = min(8 * torch.finfo(steps.dtype).eps, 1e-3) * nearest.clamp(min=1)  # in bfloat16 eps is 0.8 %
    near = (steps.detach() - nearest).abs() <= tolerance
    whole = torch.where(near, nearest, steps.detach().floor())
    fraction = steps - whole
    return whole.long(), fraction - torch.where(near, fraction, 0).detach()


def _number_of_steps(longest: float, dt: float) -> int:
    """Return how many steps D a delay remembers, to interpolate at its longest delay and beyond."""
    return math.ceil((1 - ROUNDING) * longest / dt) + 1


def _delayed(
    history: torch.Tensor, whole: torch.Tensor, fraction: torch.Tensor, steps: int, first: int
) -> torch.Tensor:
    """Return a signal delayed by a time of each neuron.

    Args:
        history: the signal, shape (S, B, ...).
        whole: whole steps of the delays, broadcast against (...).
        fraction: their fractions, likewise.
        steps: number T of steps to return.
        first: the step of `history` that a delay of zero would return first.

    Returns:
        Shape (T, B, ...).
    """
    at = torch.arange(first - 1, first + steps, device=history.device).view(-1, *[1] * (history.dim() - 1)) - whole
    arrived = history.gather(0, at.expand(steps + 1, *history.shape[1:]))
    earlier, later = arrived[:-1], arrived[1:]
    return later + fraction * (earlier - later)


def _delayed_linear(
    history: torch.Tensor,
    weight: torch.Tensor,
    whole: torch.Tensor,
    fraction: torch.Tensor,
    steps: int,
    remembered: int,
) -> torch.Tensor:
    """Return what synapses with a weight and a delay each make of a signal: a convolution over time.

    Args:
        history: the signal, shape (S, B, I); its last step is the last one that the last returned step can need.
        weight: shape (O, I).
        whole: whole steps of the delays, shape (O, I), at least remembered + steps - S.
        fraction: their fractions, likewise.
        steps: number T of steps to return.
        remembered: number D of steps by which a signal can be late.

    Returns:
        Shape (T, B, O).
    """
    at = (remembered - whole)[..., None]
    kernel = weight.new_zeros(*weight.shape, remembered + 1)
    kernel = kernel.scatter_add(2, at, (weight * (1 - fraction))[..., None])
    kernel = kernel.scatter_add(2, at - 1, (weight * fraction)[..., None])
    return conv1d(history.permute(1, 2, 0), kernel[..., : history.shape[0] - steps + 1]).permute(2, 0, 1)
