"""With which numbers a declared parameter begins: drawn from its distribution, and kept valid by its constraint."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.distributions import Distribution

from snnparams.parameters import constraints
from snnparams.parameters.declared import Declared, Learned, check_value
from snnparams.parameters.distributions import bounds, described, probability_outside, reciprocal

if TYPE_CHECKING:
    from snnparams.parameters.parameter import Parameter


NEGLIGIBLE = 1e-3  # probability of a tail that may be cut off
EDGE = 1e-5  # share by which a constraint ends before a bound, which is not valid itself: more than rounding


def make_constraint(parameter: Parameter, constraint: str | nn.Module | None, dt: float) -> nn.Module | None:
    """Return the module that keeps a learned parameter valid, a new one for each parameter, or None for none.

    Raises:
        ValueError: if it allows values that the integrator cannot handle.
    """
    constraint = parameter.constraint if constraint is None else constraint
    if constraint == "none":
        return None
    if constraint == "decay":
        constraint = constraints.Decay(dt)
    if isinstance(constraint, str):
        kind = {"log": constraints.Log, "softplus": constraints.Softplus}[constraint]
        most = min(constraints.MOST * parameter.most_per_step, constraints.FASTEST)
        edge = 0.0 if parameter.closed else EDGE
        constraint = (
            kind(constraints.LEAST / dt, most / dt, unit=100.0)
            if parameter.per_step
            else kind(max(1e-6, (1 + edge) * parameter.low), min(1e6, (1 - edge) * parameter.high))
        )
    if isinstance(constraint, constraints.Constraint):
        for end in (constraint.low, constraint.high):
            try:
                check_value(parameter, end, dt)
            except ValueError as error:
                raise ValueError(f"constraint {constraint!r}: {error}") from None
    return copy.deepcopy(constraint)


def unconstrained(parameter: Parameter, value: torch.Tensor, constraint: nn.Module) -> torch.Tensor:
    """Return the numbers of which a constraint makes the values of a parameter.

    Raises:
        ValueError: if a value is out of the range of the constraint.
    """
    try:
        return cast(Any, constraint).right_inverse(value).detach()
    except ValueError as error:
        hint = "; a constraint is one of the rate, in 1/s" if parameter.in_seconds else ""
        raise ValueError(f"{parameter.name}: {error}{hint}") from None


def _draw(
    parameter: Parameter,
    distribution: Distribution,
    shape: tuple[int, ...],
    low: float,
    high: float,
    limit: float,
    hint: str,
) -> torch.Tensor:
    """Draw values between `low` and `high`.

    A negligible tail beyond is cut off. More, or a support that ends beyond `limit`, is refused.
    """
    share = probability_outside(distribution, low, high)
    if share > NEGLIGIBLE or limit < bounds(distribution)[1] < math.inf:
        ends, declared = (f"{low:g}", parameter.with_unit(high)), distribution
        if parameter.in_seconds:
            ends, declared = (f"{1 / high:g}", parameter.with_unit(low)), reciprocal(distribution)
        most = "up to " if distribution.batch_shape else ""
        raise ValueError(
            f"{parameter.name}: expected a distribution of values from {ends[0]} to {ends[1]}, "
            f"got {described(declared)}, of which {most}{share:.2%} lie outside{hint}"
        )
    more = shape[: len(shape) - len(distribution.batch_shape)]
    values = distribution.sample(more)
    for _ in range(100):
        outside = ~((values > low) & (values < high))
        if math.isnan(share) or not outside.any():
            break
        values = torch.where(outside, distribution.sample(more), values)
    return values


def initial_value(
    parameter: Parameter, given: Declared, shape: tuple[int, ...] | None, constraint: nn.Module | None, dt: float
) -> torch.Tensor:
    """Return the values of a declared parameter, drawn if it is a distribution; numbers come on the CPU.

    Args:
        parameter: what the neuron says of it.
        given: its declaration.
        shape: shape of the population, or None where it is unknown.
        constraint: what will keep it valid.
        dt: time step in s.

    Raises:
        ValueError: if the shape is needed and unknown, or the distribution gives values that are not valid.
    """
    value = given.value
    several = isinstance(given, Learned) or isinstance(value, Distribution)
    own_shape = tuple(value.batch_shape if isinstance(value, Distribution) else torch.as_tensor(value).shape)
    if own_shape or given.shared or not several:
        shape = own_shape
    if shape is None:
        raise ValueError(
            f"{parameter.name}: expected the size of the population, because each neuron gets a value of its own; "
            "give size=..., or shared=True for one value"
        )
    if not isinstance(value, Distribution):
        value = value if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=torch.float64, device="cpu")
        return value.expand(shape).detach().clone()
    low, high = parameter.low, parameter.high
    if parameter.per_step:
        low, high = constraints.LEAST / dt, parameter.most_per_step / dt
    limit, hint = high, f"; the time step is {dt:g} s" if parameter.per_step else ""
    if isinstance(constraint, constraints.Constraint):
        if parameter.in_seconds:  # then it is one per step, too
            hint += ", and a constraint is one of the rate, in 1/s"
        low, high = max(low, constraint.low), min(high, constraint.high)
    with torch.device("cpu"):  # the default device may have no float64, or no numbers at all
        return _draw(parameter, value, shape, low, high, limit, hint)
