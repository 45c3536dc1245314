r"""Maps that keep a learned value valid: what an optimiser changes can be any number, what a neuron uses cannot.

PyTorch stores the unconstrained number :math:`\theta` and computes the value from it at every use
(`torch.nn.utils.parametrize`). All maps here are smooth and increasing, and none has a zero gradient:

========== ======================================================== ======================================
name       value                                                    for
========== ======================================================== ======================================
`log`      :math:`u \, e^\theta`                                    time constants (the default), positive
                                                                    voltages
`softplus` :math:`u \ln(1 + e^\theta)`                              the same
`decay`    :math:`\Delta t \, \tau^{-1} = 1 / (1 + e^{-\theta})`    time constants; that of PLIF
`interval` :math:`low + (high - low) / (1 + e^{-\theta})`           anything between two bounds
`none`     :math:`\theta`                                           voltages (the default)
========== ======================================================== ======================================

with a unit :math:`u` of 100 per second for time constants and 1 for voltages.

**How they stay in range.** Computers round: :math:`e^{-1000}` is zero and :math:`1/(1 + e^{-40})` is one, and both are
invalid. A clamp here, in the forward pass, would make the gradient zero. So each map follows its formula between two
bends, and beyond them :math:`\theta` is bent towards an end that it never reaches,

.. math:: \theta \to c + m - \frac{m^2}{m + (\theta - c)} \quad\text{for } \theta > c,

with :math:`c` the bend and :math:`m = 1/2` (less where the range is narrow), and likewise below. Its derivative there,
:math:`m^2 / (m + \theta - c)^2`, falls so slowly that a step back is always possible. Explained in chapter 5.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.functional import softplus

from snnparams.parameters.settings import check_dt, is_number

LEAST, MOST = 1e-12, 1 - 1e-4  # share of the way to its target that a membrane moves in one step
FASTEST = 50.0  # time steps over an exact time constant: what is left after one, and its gradient, are not yet zero


def bend(x: torch.Tensor, low: float, high: float, margin: float) -> torch.Tensor:
    """Map all real numbers into the open interval from `low` to `high`: the identity but for a margin at either end."""
    c_low, c_high = low + margin, high - margin
    above, below = torch.relu(x - c_high), torch.relu(c_low - x)
    # not c + m * above / (m + above), whose derivative would be a difference of nearly equal numbers
    ends = torch.where(x > c_high, high - margin**2 / (margin + above), low + margin**2 / (margin + below))
    return torch.where((x > c_high) | (x < c_low), ends, x)


def straighten(u: torch.Tensor, low: float, high: float, margin: float) -> torch.Tensor:
    """Return the inverse of `bend`."""
    c_low, c_high = low + margin, high - margin
    above, below = torch.relu(u - c_high), torch.relu(c_low - u)
    return u.clamp(c_low, c_high) + margin * (above / (margin - above) - below / (margin - below))


def can_be_looked_at(x: torch.Tensor) -> bool:
    """Return whether a tensor has numbers that Python may read, as none has in a compiler or a transform."""
    return (
        type(x) in (torch.Tensor, nn.Parameter)
        and not x.is_meta
        and not torch.compiler.is_compiling()
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
    )


class Constraint(nn.Module):
    """What the maps share: their range, and the bends at its ends.

    Args:
        low: no value is smaller.
        high: no value is larger.

    A subclass gives `curve`, a smooth increasing function, and its inverse `uncurve`. Any other module with a
    `forward` and a `right_inverse` can be given as a constraint as well.
    """

    name = ""
    is_pure = True  # equal numbers always have equal values

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"{self.name}: expected finite bounds with low < high, got {low} and {high}")
        self.low, self.high = float(low), float(high)
        # on the CPU, whatever the default device: Apple's GPUs have no float64, and the meta device no numbers
        first, last = self.uncurve(torch.tensor([low, high], dtype=torch.float64, device="cpu")).tolist()
        margin = 0.5  # a power of two: between the bends nothing is rounded
        while margin > (last - first) / 4:
            margin /= 2
        self.ends = first, last, margin

    def curve(self, x: torch.Tensor) -> torch.Tensor:
        """Return the value of an unconstrained number between the bends."""
        raise NotImplementedError

    def uncurve(self, value: torch.Tensor) -> torch.Tensor:
        """Return the inverse of `curve`."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the values of unconstrained numbers."""
        return self.curve(x if self._bends_nothing(x) else bend(x, *self.ends))

    def _bends_nothing(self, x: torch.Tensor) -> bool:
        """Return whether `bend` would change no number, where looking is cheaper than bending: on a CPU."""
        if not can_be_looked_at(x) or not x.is_cpu or not x.numel() or x.dtype not in (torch.float32, torch.float64):
            return False
        low, high, margin = self.ends
        if torch._C._functorch.maybe_current_level() is None:
            numbers = x.detach().numpy()  # asked by NumPy it takes half as long
            least, most = numbers.min(), numbers.max()
        else:  # tensors within transforms of torch.func have no memory of their own
            least, most = (end.item() for end in x.detach().aminmax())
        return low + margin <= least and most <= high - margin  # not if one is NaN

    def right_inverse(self, value: torch.Tensor) -> torch.Tensor:
        """Return the unconstrained numbers of values.

        Raises:
            ValueError: if a value is not within the range.
        """
        if not value.is_meta and (outside := ~((value > self.low) & (value < self.high))).any():
            got = value[outside].flatten()[0].item()
            raise ValueError(
                f"expected values within the range of {self!r}, {self.low:g} to {self.high:g}, got {got:g}"
            )
        exact = value.to("meta" if value.is_meta else "cpu").double()  # on the CPU: Apple's GPUs have no float64
        return straighten(self.uncurve(exact), *self.ends).to(value.dtype).to(value.device)

    def extra_repr(self) -> str:
        """Show the range."""
        return f"{self.low:g} to {self.high:g}"

    def __repr__(self) -> str:
        return self.name


class Log(Constraint):
    r"""Learn the logarithm: :math:`u \, e^\theta`. A step of size s changes the value by a share s of itself.

    Args:
        low: smallest value, positive.
        high: largest value.
        unit: the value at :math:`\theta = 0`, positive.
    """

    name = "log"

    def __init__(self, low: float = 1e-6, high: float = 1e6, unit: float = 1.0) -> None:
        for end, value in (("low", low), ("unit", unit)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{self.name}: expected a positive, finite {end}, got {value}")
        self.unit = unit
        super().__init__(low, high)

    def curve(self, x: torch.Tensor) -> torch.Tensor:
        """Return :math:`u e^x`."""
        return self.unit * torch.exp(x)

    def uncurve(self, value: torch.Tensor) -> torch.Tensor:
        """Return the logarithm."""
        return torch.log(value / self.unit)

    def extra_repr(self) -> str:
        """Show the range, and the unit if it is not 1."""
        return super().extra_repr() + ("" if self.unit == 1 else f", unit {self.unit}")


class Softplus(Log):
    r"""A smooth ramp: :math:`u \ln(1 + e^\theta)`. Proportional to :math:`\theta` above the unit, like `Log` below it.

    Args:
        low: smallest value, positive.
        high: largest value.
        unit: where the ramp begins, positive; one far from the values leaves :math:`\theta` badly scaled.
    """

    name = "softplus"

    def curve(self, x: torch.Tensor) -> torch.Tensor:
        """Return the softplus."""
        return self.unit * softplus(x)

    def uncurve(self, value: torch.Tensor) -> torch.Tensor:
        """Return the inverse of the softplus."""
        y = value / self.unit
        return y + torch.log(-torch.expm1(-y))


class Decay(Constraint):
    r"""The decay in one step as a sigmoid: :math:`\Delta t \, \tau^{-1} = 1 / (1 + e^{-\theta})`.

    Args:
        dt: time step in s, below 1. The meaning of :math:`\theta` depends on it.

    Raises:
        ValueError: if it is out of range.

    References:
        Parametric LIF (PLIF): Fang et al. (2021).
    """

    name = "decay"

    def __init__(self, dt: float) -> None:
        check_dt(dt)
        self.dt = dt
        super().__init__(LEAST / dt, MOST / dt)

    def curve(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sigmoid over the time step."""
        return torch.sigmoid(x) / self.dt

    def uncurve(self, value: torch.Tensor) -> torch.Tensor:
        """Return the logit."""
        return torch.logit(value * self.dt)


class Interval(Constraint):
    r"""Values between two bounds: :math:`low + (high - low) / (1 + e^{-\theta})`.

    Args:
        low: lower bound, not reached, in the unit of the parameter: of a time constant, which is stored as a rate, in
            1/s, so that `Interval(20, 200)` keeps it between 5 and 50 ms; of a delay in s.
        high: upper bound, not reached.

    Raises:
        ValueError: if they are not finite, or `low` is not below `high`.
    """

    name = "interval"

    def __init__(self, low: float, high: float) -> None:
        if not (is_number(low) and is_number(high) and -math.inf < low < high < math.inf):
            raise ValueError(f"interval: expected finite bounds with low < high, got {low!r} and {high!r}")
        self.bounds = low, high
        edge = (high - low) / (1 + math.exp(12.0))
        super().__init__(low + edge, high - edge)

    def curve(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scaled sigmoid."""
        low, high = self.bounds
        return low + (high - low) * torch.sigmoid(x)

    def uncurve(self, value: torch.Tensor) -> torch.Tensor:
        """Return the logit of the share of the way from bound to bound."""
        low, high = self.bounds
        return torch.logit((value - low) / (high - low))

    def __repr__(self) -> str:
        return "interval {:g} to {:g}".format(*self.bounds)


def __dir__() -> list[str]:
    return [
        name for name, value in globals().items() if getattr(value, "__module__", "") == __name__ and name[0] != "_"
    ]
