"""What a neuron parameter may be declared as, and what makes a value valid.

A field of `snnparams.LIFParameters` takes a number, a tensor, an array of NumPy, an `nn.Parameter`, a distribution, or
one of those in `Learned` or `Fixed`, which say the rest: whether it is learned, by which constraint it stays valid, and
whether the neurons of a layer share it. Explained in chapters 3 and 5.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.distributions import Distribution

from snnparams.parameters.distributions import bounds, described, reciprocal
from snnparams.parameters.settings import check_seconds, is_number

if TYPE_CHECKING:
    from snnparams.parameters.parameter import Parameter

CONSTRAINTS = ("log", "softplus", "decay", "none")


def plain(name: str, value: Any) -> Any:
    """Return an array of NumPy as a tensor, a copy, and a number of NumPy as one of Python; all else as it is.

    Raises:
        TypeError: if it is an array of what no tensor can hold.
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        if value.dtype.kind != "f" or value.dtype.itemsize > 8:
            raise TypeError(f"{name}: expected an array of float16, float32 or float64, got one of {value.dtype}")
        return torch.from_numpy(value.astype(value.dtype.newbyteorder("=")))
    return value


def _check_plain(name: str, value) -> None:
    if is_number(value):
        return
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name}: expected a number or a floating-point tensor, got {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(f"{name}: expected a floating-point tensor, got {value.dtype}")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Declared:
    """What `Fixed` and `Learned` have in common."""

    value: float | np.ndarray | torch.Tensor | Distribution
    shared: bool = dataclasses.field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", plain("value", self.value))
        if isinstance(self.value, nn.Parameter):
            raise TypeError("value: expected a number, a tensor or a distribution, got an nn.Parameter; give it itself")
        if not isinstance(self.value, Distribution):
            _check_plain("value", self.value)
        shape = self.value.batch_shape if isinstance(self.value, Distribution) else torch.as_tensor(self.value).shape
        if self.shared and len(shape):
            raise ValueError(f"value: expected one value to share, got shape {tuple(shape)}")
        if isinstance(self.value, Distribution) and self.value.event_shape:
            raise ValueError(f"value: expected a distribution of single numbers, got {self.value}")

    def __repr__(self) -> str:
        constraint, shared = getattr(self, "constraint", None), ", shared=True" if self.shared else ""
        how = "" if constraint is None else f", {constraint!r}"
        return f"{type(self).__name__}({shown(self.value)}{how}{shared})"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Fixed(Declared):
    """A neuron parameter that is not learned.

    Args:
        value: a number, a tensor or array of one value per neuron, or a `torch.distributions.Distribution` to draw from
            when a cell or layer is built.
        shared: draw one value for the whole layer instead of one per neuron.

    Raises:
        TypeError: if the value is none of these.
        ValueError: if a tensor of several values is to be shared.
    """


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Learned(Declared):
    """A neuron parameter that is learned, from the given initial value on.

    Each cell or layer that is built from it gets a parameter of its own; `NeuronParameters.share` makes two use one.

    Args:
        value: a number that every neuron starts with, a tensor or array of one value per neuron, or a
            `torch.distributions.Distribution` to draw from when a cell or layer is built.
        constraint: what keeps it valid: "log" (the default for time constants), "softplus", "decay",
            `snnparams.parameters.constraints.Interval(low, high)`, "none" (the default for voltages), or any module
            with a `forward` and a `right_inverse`, of which each gets a copy. See `snnparams.parameters.constraints`.
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
        if constraint not in CONSTRAINTS:
            expected = f"{', '.join(CONSTRAINTS)}, or constraints.Interval(low, high) with its bounds"
            raise ValueError(f"unknown constraint={constraint!r}; expected one of {expected}")


def shown(value: Any) -> str:
    """Return a declared value as text: numbers, and of tensors and distributions what tells them apart."""
    if isinstance(value, Distribution):
        return described(value)
    if isinstance(value, torch.Tensor):
        kind = "nn.Parameter" if isinstance(value, nn.Parameter) else "tensor"
        if value.dim() or value.is_meta:
            return f"{kind} of shape {tuple(value.shape)}"
        return f"{kind}({value.item():g})"
    return f"{value:g}" if isinstance(value, float) else repr(value)


def as_tensor(value: float | torch.Tensor) -> torch.Tensor:
    """Return a tensor where it is, a number on the CPU: the default device may be one without numbers, meta."""
    return value if isinstance(value, torch.Tensor) else torch.tensor(value, device="cpu")


def moved(value: torch.Tensor, device: torch.device | str | None, dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor on a device and in a type; on the way it is never float64 where Apple's GPUs have none."""
    return value.to(device).to(dtype) if dtype == torch.float64 else value.to(dtype).to(device)


def check_dtype(dtype: torch.dtype | None) -> torch.dtype:
    """Return a floating-point type, the default one for None.

    Raises:
        TypeError: if it is none.
    """
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise TypeError(f"dtype: expected a floating-point type such as torch.float32, got {dtype!r}")
    return dtype or torch.get_default_dtype()


def _is_unreadable(values: torch.Tensor) -> bool:
    """Return whether there is a shape without values, or they are not there yet, as in a compiler."""
    return values.is_meta or torch.compiler.is_compiling()


def check_value(parameter: Parameter, value: Any, dt: float | None = None) -> None:
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
    if _is_unreadable(flat):
        return

    def refuse(bad: torch.Tensor, expected: str) -> None:
        if bad.any():
            first = int(bad.nonzero()[0])
            which = f" at neuron {first} ({int(bad.sum())} of {len(flat)} values are invalid)" if len(flat) > 1 else ""
            got = parameter.with_unit(flat[first].item())
            raise ValueError(f"{name}: expected {expected}, got {got}{which}")

    refuse(~torch.isfinite(flat), "positive, finite values" if parameter.in_seconds else "finite values")
    below, above = (torch.lt, torch.gt) if parameter.closed else (torch.le, torch.ge)
    refuse(below(flat, parameter.low), parameter.above)
    refuse(above(flat, parameter.high), f"values below {parameter.with_unit(parameter.high)}")
    most = parameter.most_per_step
    if most < math.inf and dt is not None:
        share, side = (f"dt / {name}", "above") if parameter.in_seconds else (f"dt * {name}", "below")
        limit = f"values {side} {parameter.with_unit(most / dt)} at dt = {dt:g} s"
        refuse(dt * flat >= most, f"{share} < {most:g}, that is {limit}")


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


def fits(shape: tuple[int, ...], population: tuple[int, ...]) -> bool:
    """Return whether values of a shape broadcast to a population."""
    pairs = zip(reversed(shape), reversed(population), strict=False)
    return len(shape) <= len(population) and all(a in (1, b) for a, b in pairs)


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
    if isinstance(size, tuple) and not fits(got, size):
        raise ValueError(f"{name}: expected one value, or values that fit a population of {size}, got {got}")


def check_declared(parameter: Parameter, value) -> float | torch.Tensor | Declared:
    """Return what was declared: a float, which is exact in any type, a tensor, or a `Learned` or `Fixed`.

    Raises:
        ValueError: if a value, or a value that a distribution can give, is invalid at every time step.
        TypeError: if it is not one of these.
    """
    name = parameter.name
    value = Fixed(value) if isinstance(value, Distribution) else plain(name, value)
    if not isinstance(value, Declared):
        _check_plain(name, value)
        check_value(parameter, value)
        return value if isinstance(value, torch.Tensor) else float(value)
    if not isinstance(value.value, Distribution):
        check_value(parameter, value.value)
    elif (low := bounds(value.value)[0]) < parameter.low:
        expected = f"a distribution of {parameter.above}"
        raise ValueError(f"{name}: expected {expected}, got {shown(value.value)} from {low:g} on")
    if not parameter.per_step and getattr(value, "constraint", None) == "decay":
        raise ValueError(f"{name}: expected a constraint for voltages, got 'decay', which is one for time constants")
    return value


def _check_slow(name: str, typical: float, rate: str) -> None:
    if rate and typical:
        slow = f" A neuron that slow is declared by its rate, {rate}={1 / typical:g}"
        check_seconds(name, "time constant", typical, slow)


def of_times(name: str, value, rate: str = ""):
    """Turn time constants in s into rates in 1/s, or back: a number, a tensor, a distribution, `Learned` or `Fixed`.

    Args:
        name: of what is given.
        value: the value.
        rate: name of the rate that a time constant is turned into; "" for one that is turned back.

    Raises:
        ValueError: if one is not positive and finite, or a time constant is longer than one second.
        TypeError: if it is an `nn.Parameter`, which holds the rate itself.
    """
    value = plain(name, value)
    if isinstance(value, Declared):
        return dataclasses.replace(value, value=of_times(name, value.value, rate))
    if isinstance(value, Distribution):
        try:
            found = reciprocal(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        _check_slow(name, _typical(value), rate)
        return found
    if isinstance(value, nn.Parameter):
        raise TypeError(f"{name}: expected Learned({name}) or a value, got an nn.Parameter; give one to {rate}")
    _check_plain(name, value)
    flat = as_tensor(value).detach().flatten()
    if _is_unreadable(flat):
        return 1 / value
    if (bad := ~(torch.isfinite(flat) & (flat > 0))).any():
        raise ValueError(f"{name}: expected positive, finite times in s, got {flat[bad][0].item():g}")
    if flat.numel():
        _check_slow(name, flat.median().item(), rate)  # single neurons may be slow
    return 1 / value


def _typical(distribution: Distribution) -> float:
    """Return the mean of a distribution, or its median; of several the largest; or 0 if it knows neither."""
    with torch.device("cpu"):
        for number in (lambda: distribution.mean, lambda: distribution.icdf(torch.tensor(0.5))):
            with contextlib.suppress(NotImplementedError):
                return float(torch.as_tensor(number()).max())
    return 0.0
