"""What a neuron says of each of its parameters: unit, default, valid range, constraint, time constant."""

from __future__ import annotations

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class Parameter:
    """What is known of one parameter of a neuron, whatever its value. `rate` and `voltage` make them.

    Args:
        default: value where none is given.
        unit: of the value, in repr and errors; "" for none.
        low: all values are larger.
        high: all values are smaller.
        per_step: whether it is an inverse time constant in 1/s, whose values are compared with one over the time step.
        most_per_step: if it is one, `dt * value` is smaller: 1 where the neuron takes forward Euler steps, which
            overshoot beyond; infinite where it decays exactly.
        constraint: what keeps a learned value valid unless another is chosen, see `snnparams.Learned`.
        time: name of its inverse, a time constant in s, under which it can be declared, read and written as well.
        name: its own name, which the class gives it.
        in_seconds: whether an error speaks of its inverse, because that is what was declared; see `of_time`.
        closed: whether `low` and `high` are valid themselves, rounded to the type of the values.
    """

    default: float
    unit: str = ""
    low: float = -math.inf
    high: float = math.inf
    per_step: bool = False
    most_per_step: float = math.inf
    constraint: str = "none"
    time: str = ""
    name: str = ""
    in_seconds: bool = False
    closed: bool = False

    def of_time(self) -> Parameter:
        """Return the same as errors speak of it to who has declared a time constant."""
        return dataclasses.replace(self, name=self.time, in_seconds=True)

    def with_unit(self, value: float) -> str:
        """Return a value as text, with its unit."""
        if self.in_seconds:
            return f"{1 / value if value else math.inf:g} s"
        return f"{value:g} {self.unit}" if self.unit else f"{value:g}"

    @property
    def above(self) -> str:
        """Say which values are large enough."""
        return "positive values" if self.low == 0 else f"values above {self.with_unit(self.low)}"


def rate(default: float, time: str = "", most_per_step: float = 1.0) -> Any:
    """Return an inverse time constant of a neuron, in 1/s.

    It is positive, and learned as its logarithm unless another constraint is chosen.

    Args:
        default: value where none is given, in 1/s.
        time: name of the time constant, "tau_mem" say.
        most_per_step: values over time steps in s are smaller. 1 for a neuron that takes forward Euler steps, which
            overshoot beyond; `math.inf` for one that decays exactly, to which any time constant is valid.

    Raises:
        ValueError: if `most_per_step` is not positive.
    """
    if not most_per_step > 0:
        raise ValueError(f"most_per_step: expected a positive number, got {most_per_step}")
    return Parameter(
        float(default), "1/s", low=0.0, per_step=True, most_per_step=most_per_step, constraint="log", time=time
    )


def voltage(default: float, low: float = -math.inf, high: float = math.inf, constraint: str = "none") -> Any:
    """Return a voltage of a neuron, or another parameter without a unit.

    Args:
        default: value where none is given.
        low: all values are larger.
        high: all values are smaller.
        constraint: what keeps it valid where it is learned, unless another is chosen.
    """
    return Parameter(float(default), low=low, high=high, constraint=constraint)
