"""What a neuron parameter may be declared as, and what makes a value valid.

A field of `snnparams.LIFParameters` takes a number, a tensor, an `nn.Parameter`, a distribution, or one of those in
`Learned` or `Fixed`, which say the rest: whether it is learned, by which constraint it stays valid, and whether the
neurons of a layer share it. Explained in chapters 3 and 5.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.distributions import Distribution

from snnparams import constraints
from snnparams.distributions import bounds, probability_outside, reciprocal

if TYPE_CHECKING:
    from snnparams.neurons.parameter import Parameter

TIMES = {"tau_syn": "tau_syn_inv", "tau_mem": "tau_mem_inv"}  # of a LIF neuron: what chapter 6 compares
CONSTRAINTS = ("log", "softplus", "decay", "interval", "none")
NEGLIGIBLE = 1e-3  # probability of a tail that may be cut off


def _check_plain(name: str, value) -> None:
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name}: expected a number or a floating-point tensor, got {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(f"{name}: expected a floating-point tensor, got {value.dtype}")


@dataclasses.dataclass(frozen=True, eq=False)
class Fixed:
    """A neuron parameter that is not learned.

    Args:
        value: a number, a tensor of one value per neuron, or a `torch.distributions.Distribution` to draw from when
            a cell or layer is built.
        shared: draw one value for the whole layer instead of one per neuron.

    Raises:
        TypeError: if the value is none of these.
        ValueError: if a tensor of several values is to be shared.
    """

    value: float | torch.Tensor | Distribution
    shared: bool = dataclasses.field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.value, nn.Parameter):
            raise TypeError("value: expected a number, a tensor or a distribution, got an nn.Parameter; give it itself")
        if not isinstance(self.value, Distribution):
            _check_plain("value", self.value)
        shape = self.value.batch_shape if isinstance(self.value, Distribution) else torch.as_tensor(self.value).shape
        if self.shared and len(shape):
            raise ValueError(f"value: expected one value to share, got shape {tuple(shape)}")
        if isinstance(self.value, Distribution) and self.value.event_shape:
            raise ValueError(f"value: expected a distribution of single numbers, got {self.value}")


@dataclasses.dataclass(frozen=True, eq=False)
class Learned(Fixed):
    """A neuron parameter that is learned, from the given initial value on.

    Each cell or layer that is built from it gets a parameter of its own; `NeuronParameters.share` makes two use one.

    Args:
        value: a number that every neuron starts with, a tensor of one value per neuron, or a
            `torch.distributions.Distribution` to draw from when a cell or layer is built.
        constraint: what keeps it valid: "log" (the default for time constants), "softplus", "decay",
            `snnparams.constraints.Interval(low, high)`, "none" (the default for voltages), or any module with a
            `forward` and a `right_inverse`. See `snnparams.constraints`.
        shared: learn one value for the whole layer instead of one per neuron.

    Raises:
        TypeError: if the value or the constraint is none of these.
        ValueError: if a tensor of several values is to be shared, or the constraint's name is unknown.
    """

    constraint: str | nn.Module | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        constraint = self.constraint
        if constraint is None or (isinstance(constraint, nn.Module) and hasattr(constraint, "right_inverse")):
            return
        if not isinstance(constraint, str):
            got = type(constraint).__name__
            raise TypeError(f"constraint: expected a name or an nn.Module with a right_inverse, got {got}")
        if constraint == "interval":
            raise ValueError("constraint 'interval': expected its bounds, as in constraints.Interval(low, high)")
        if constraint not in CONSTRAINTS:
            raise ValueError(f"unknown constraint={constraint!r}; expected one of {', '.join(CONSTRAINTS)}")


def as_tensor(value: float | torch.Tensor) -> torch.Tensor:
    """Return a tensor where it is, a number on the CPU: the default device may be one without numbers, meta."""
    return value if isinstance(value, torch.Tensor) else torch.tensor(value, device="cpu")


def moved(value: torch.Tensor, device: torch.device | str | None, dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor on a device and in a type; on the way it is never float64 where Apple's GPUs have none."""
    return value.to(device).to(dtype) if dtype == torch.float64 else value.to(dtype).to(device)


def check_value(parameter: Parameter, value: float | torch.Tensor, dt: float | None = None) -> None:
    r"""Check that the integrator can handle a value of a neuron parameter.

    All values must be finite and within the range of the parameter. Inverse time constants of a neuron that is
    integrated by forward Euler steps must also satisfy :math:`\Delta t \, \tau^{-1} < 1`, where the time step is known:
    beyond that limit a step overshoots its target. The neuron says so, see `snnparams.rate`.

    Args:
        parameter: what the neuron says of it.
        value: its value or values, any shape.
        dt: time step in s.

    Raises:
        ValueError: with the parameter, the offending value and the limit.
    """
    flat, name = as_tensor(value).detach().flatten(), parameter.name
    if flat.is_meta:  # a shape without values
        return

    def refuse(bad: torch.Tensor, expected: str) -> None:
        if bad.any():
            first = int(bad.nonzero()[0])
            which = f" at neuron {first} ({int(bad.sum())} of {len(flat)} values are invalid)" if len(flat) > 1 else ""
            got = parameter.with_unit(flat[first].item())
            raise ValueError(f"{name}: expected {expected}, got {got}{which}")

    refuse(~torch.isfinite(flat), "finite values")
    refuse(flat <= parameter.low, parameter.above)
    refuse(flat >= parameter.high, f"values below {parameter.with_unit(parameter.high)}")
    most = parameter.most_per_step
    if most < math.inf and dt is not None:
        limit = parameter.with_unit(most / dt)
        refuse(dt * flat >= most, f"dt * {name} < {most:g}, that is values below {limit} at dt = {dt:g} s")


def check_no_gradient(name: str, value: torch.Tensor) -> None:
    """Check that a tensor was not computed from another one, which would then learn nothing.

    Raises:
        TypeError: if it was.
    """
    if value.requires_grad:
        raise TypeError(
            f"{name}: expected an nn.Parameter or a tensor without gradient, got a tensor that requires "
            "one; a cell would cut it off from what it was computed from. Give the nn.Parameter itself, "
            "or call the step function with this tensor; NeuronParameters.share lets two layers learn one parameter, "
            "and .detach() gives the values alone"
        )


def check_size(name: str, value: torch.Tensor, size: int | tuple[int, ...] | None) -> None:
    """Check that there is one value, or one per neuron where the population is known.

    Args:
        name: the parameter.
        value: its value or values.
        size: number of neurons, or a shape that values need only fit; None where it is unknown.

    Raises:
        ValueError: if there are others.
    """
    got = tuple(value.shape)
    if isinstance(size, int) and got not in ((), (size,)):
        raise ValueError(f"{name}: expected one value, or one per neuron of shape ({size},), got {got}")
    if isinstance(size, tuple):
        pairs = zip(reversed(got), reversed(size), strict=False)
        if len(got) > len(size) or any(a not in (1, b) for a, b in pairs):
            raise ValueError(f"{name}: expected one value, or values that fit a population of {size}, got {got}")


def check_dt(dt: float) -> float:
    """Return the time step `dt` in s as a float.

    Raises:
        ValueError: if it is not positive and finite.
    """
    if not (math.isfinite(dt) and dt > 0):
        raise ValueError(f"dt: expected a positive, finite time step in s, got {dt}")
    return float(dt)


def check_declared(parameter: Parameter, value) -> float | torch.Tensor | Fixed:
    """Return what was declared: a float, which is exact in any type, a tensor, or a `Learned` or `Fixed`.

    Raises:
        ValueError: if a value, or a value that a distribution can give, is invalid at every time step.
        TypeError: if it is not one of these.
    """
    name = parameter.name
    if isinstance(value, Distribution):
        value = Fixed(value)
    if not isinstance(value, Fixed):
        _check_plain(name, value)
        check_value(parameter, value)
        return value if isinstance(value, torch.Tensor) else float(value)
    if not isinstance(value.value, Distribution):
        check_value(parameter, value.value)
    elif (low := bounds(value.value)[0]) < parameter.low:
        expected = f"a distribution of {parameter.above}"
        raise ValueError(f"{name}: expected {expected}, got {value.value} from {low:g} on")
    if not parameter.per_step and getattr(value, "constraint", None) == "decay":
        raise ValueError(f"{name}: expected a constraint for voltages, got 'decay', which is one for time constants")
    return value


def of_times(name: str, value, rate: str = ""):
    """Turn time constants in s into rates in 1/s, or back: a number, a tensor, a distribution, `Learned` or `Fixed`.

    Args:
        name: of what is given.
        value: the value.
        rate: name of the rate that a time constant is turned into.

    Raises:
        ValueError: if one is not positive and finite.
        TypeError: if it is an `nn.Parameter`, which holds the rate itself.
    """
    if isinstance(value, Fixed):
        return dataclasses.replace(value, value=of_times(name, value.value, rate))
    if isinstance(value, Distribution):
        try:
            return reciprocal(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    if isinstance(value, nn.Parameter):
        raise TypeError(f"{name}: expected Learned({name}) or a value, got an nn.Parameter; give one to {rate}")
    _check_plain(name, value)
    flat = as_tensor(value).detach().flatten()
    if not flat.is_meta and (bad := ~(torch.isfinite(flat) & (flat > 0))).any():
        raise ValueError(f"{name}: expected positive, finite times in s, got {flat[bad][0].item():g}")
    return 1 / value


def make_constraint(parameter: Parameter, constraint: str | nn.Module | None, dt: float) -> nn.Module | None:
    """Return the module that keeps a learned parameter valid, or None for none.

    Raises:
        ValueError: if it allows values that the integrator cannot handle.
    """
    constraint = parameter.constraint if constraint is None else constraint
    if constraint == "none":
        return None
    if constraint == "decay":
        return constraints.Decay(dt)
    if isinstance(constraint, str):
        kind = {"log": constraints.Log, "softplus": constraints.Softplus}[constraint]
        most = min(constraints.MOST * parameter.most_per_step, constraints.FASTEST)
        constraint = (
            kind(constraints.LEAST / dt, most / dt, unit=100.0)
            if parameter.per_step
            else kind(max(1e-6, parameter.low), min(1e6, parameter.high))
        )
    if isinstance(constraint, constraints.Constraint):
        for end in (constraint.low, constraint.high):
            try:
                check_value(parameter, end, dt)
            except ValueError as error:
                raise ValueError(f"constraint {constraint!r}: {error}") from None
    return constraint


def unconstrained(name: str, value: torch.Tensor, constraint: nn.Module) -> torch.Tensor:
    """Return the numbers of which a constraint makes the values of the parameter `name`.

    Raises:
        ValueError: if a value is out of the range of the constraint.
    """
    try:
        return constraint.right_inverse(value).detach()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _draw(
    parameter: Parameter, distribution: Distribution, shape: tuple[int, ...], low: float, high: float, limit: float
) -> torch.Tensor:
    """Draw values between `low` and `high`.

    A negligible tail beyond is cut off. More, or a support that ends beyond `limit`, is refused.
    """
    share = probability_outside(distribution, low, high)
    if share > NEGLIGIBLE or limit < bounds(distribution)[1] < math.inf:
        raise ValueError(
            f"{parameter.name}: expected a distribution of values from {low:g} to {parameter.with_unit(high)}, "
            f"got {distribution}, of which {share:.2%} lie outside"
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
    parameter: Parameter, given: Fixed, shape: tuple[int, ...] | None, constraint: nn.Module | None, dt: float
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
    limit = high
    if isinstance(constraint, constraints.Constraint):
        low, high = max(low, constraint.low), min(high, constraint.high)
    with torch.device("cpu"):  # the default device may have no float64, or no numbers at all
        return _draw(parameter, value, shape, low, high, limit)
