"""Declarations of neuron parameters: `LIFParameters` and `LIParameters`.

One place says of each parameter what its value or distribution is, whether it is learned, and how it stays valid. A
cell or layer turns the declaration into a `snnparams.NeuronParameters` of its own. Explained in chapters 2, 3 and 5.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import numbers
from typing import Any, ClassVar

import torch
from torch import nn
from torch.distributions import Distribution

from snnparams.surrogate import check_method
from snnparams.values import TIMES, Fixed, check_declared, of_times

Value = float | torch.Tensor | nn.Parameter | Distribution | Fixed
"""What a neuron parameter may be given as. A number, a tensor and a distribution are fixed, an `nn.Parameter` is
learned, `Learned` and `Fixed` say it themselves."""


def _complete(declaration: type[Any]) -> type:
    """Let a declaration that is built with an unknown name list the known ones, and `dataclasses.replace` work.

    `replace` gives a new object all fields of the old one that are not changed: a time constant and its inverse, both.
    It also gives `_source`, which reads as the old object itself; with it `_Declaration` finds out which are changed.
    """
    build = declaration.__init__
    known = (*(field.name for field in dataclasses.fields(declaration)), *TIMES)
    signature = inspect.signature(build)
    shown = [parameter for name, parameter in signature.parameters.items() if name != "_source"]

    @functools.wraps(build)
    def __init__(self, *values, **named) -> None:
        for name in named:
            if name not in known and name != "_source":
                raise TypeError(f"{declaration.__name__}: unknown {name}; expected one of {', '.join(known)}")
        build(self, *values, **named)

    __init__.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined]
    declaration.__init__ = __init__
    declaration._source = property(lambda self: self)
    return declaration


class _Declaration:
    """What the two declarations share: the checks of their fields."""

    neuron_fields: ClassVar[tuple[str, ...]]

    tau_mem: Value | None  # s; here, because type checkers take a dataclass's InitVar for no attribute
    tau_syn: Value | None  # s

    def __post_init__(self, source: _Declaration | None, **times) -> None:
        before = type(self) if source is None else source
        derived = []
        for time, value in times.items():
            rate = TIMES[time]
            by_time, by_rate = (
                given is not getattr(before, name) for name, given in ((time, value), (rate, getattr(self, rate)))
            )
            if by_time and by_rate:
                raise ValueError(f"{time}: expected either it or {rate}, got both")
            if by_time:
                object.__setattr__(self, rate, of_times(time, value))
            elif by_rate or source is None:
                derived.append(time)
            object.__setattr__(self, time, value)
        for name in self.neuron_fields:
            object.__setattr__(self, name, check_declared(name, getattr(self, name)))
        for time in derived:
            rate = getattr(self, TIMES[time])
            learned = isinstance(rate, nn.Parameter) or (isinstance(rate, torch.Tensor) and rate.requires_grad)
            object.__setattr__(self, time, None if learned else of_times(TIMES[time], rate))


def as_given(p, default: type[_Declaration]):
    """Return neuron parameters that a function takes as they are, or the defaults for None.

    Raises:
        TypeError: if a declaration holds what only a cell or layer turns into values.
    """
    if p is None:
        return default()
    for name in p.neuron_fields if isinstance(p, _Declaration) else ():
        if isinstance(value := getattr(p, name), Fixed):
            drawn = isinstance(value.value, Distribution)
            got = f"{type(value).__name__} of {'the distribution ' if drawn else ''}{value.value}"
            raise TypeError(
                f"{name}: expected a number or a tensor, because a function uses values as they are, got {got}; build "
                "a cell or layer with this declaration and give its .p"
            )
    return p


@_complete
@dataclasses.dataclass(frozen=True, eq=False)
class LIParameters(_Declaration):
    r"""Parameters of a leaky integrator: a membrane that integrates its input and never spikes.

    Args:
        tau_syn_inv: inverse synaptic time constant :math:`1/\tau_\mathrm{syn}` in 1/s, positive.
        tau_mem_inv: inverse membrane time constant :math:`1/\tau_\mathrm{mem}` in 1/s, positive.
        v_leak: leak (resting) voltage, dimensionless.
        tau_mem: membrane time constant in s, positive, in place of `tau_mem_inv`.
        tau_syn: synaptic time constant in s, positive, in place of `tau_syn_inv`.

    Each is declared, read and replaced as in `LIFParameters`.

    Raises:
        ValueError: if a value is not finite or a time constant is not positive.
        TypeError: if a value is not a real floating-point number, or a name is unknown.
    """

    neuron_fields: ClassVar[tuple[str, ...]] = ("tau_syn_inv", "tau_mem_inv", "v_leak")

    tau_syn_inv: Value = 1 / 5e-3  # 1/s
    tau_mem_inv: Value = 1 / 1e-2  # 1/s
    v_leak: Value = 0.0
    tau_mem: dataclasses.InitVar[Value | None] = dataclasses.field(default=None, kw_only=True)  # s
    tau_syn: dataclasses.InitVar[Value | None] = dataclasses.field(default=None, kw_only=True)  # s
    _source: dataclasses.InitVar[_Declaration | None] = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self, tau_mem: Value | None, tau_syn: Value | None, _source: _Declaration | None) -> None:
        super().__post_init__(_source, tau_mem=tau_mem, tau_syn=tau_syn)


@_complete
@dataclasses.dataclass(frozen=True, eq=False)
class LIFParameters(_Declaration):
    r"""Parameters of a leaky integrate-and-fire (LIF) neuron.

    Args:
        tau_syn_inv: inverse synaptic time constant :math:`1/\tau_\mathrm{syn}` in 1/s, positive.
        tau_mem_inv: inverse membrane time constant :math:`1/\tau_\mathrm{mem}` in 1/s, positive.
        v_leak: leak (resting) voltage, dimensionless.
        v_th: threshold voltage, dimensionless.
        v_reset: voltage after a spike, dimensionless. It may lie above the threshold; such a neuron, once it has
            fired, hardly stops.
        method: name of the spike function, see `snnparams.surrogate_derivative`, or `"adjoint"` for exact gradients,
            see `snnparams.adjoint`.
        alpha: shape parameter of the surrogate gradient, positive; None for the default of the spike function, 1 for
            `"super"` and 100 for the others. `"adjoint"` does not use it.
        tau_mem: membrane time constant in s, positive, in place of `tau_mem_inv`.
        tau_syn: synaptic time constant in s, positive, in place of `tau_syn_inv`.

    As attributes, `tau_mem` and `tau_syn` are what was given, or the inverse of what was given (None if that is an
    `nn.Parameter` or requires a gradient). `dataclasses.replace` changes a time constant through either name.

    Each of the first five and of the last two is one of these:

    - a number or a tensor (a scalar or one value per neuron): fixed, copied into a buffer;
    - a `torch.distributions.Distribution`: fixed, drawn for every neuron when a cell or layer is built;
    - `snnparams.Learned` of a number, a tensor or a distribution: learned, with a constraint that keeps it valid;
    - `snnparams.Fixed` of one of them: fixed, for instance one draw for the whole layer;
    - an `nn.Parameter` (not for the last two): learned, registered itself, shared by every module that it is given to,
      without constraint.

    A tail of a distribution beyond the limit of the time step, of a probability of at most 1 in 1000, is cut off.
    Names, order and defaults are those of Norse; its `"super"` ignores `alpha`, which amounts to 1.

    Raises:
        ValueError: if a value, or one that a distribution can give, is not valid, a time constant is given twice,
            `alpha` is not positive, or `method` is unknown.
        TypeError: if a value is not a real floating-point number, `alpha` is to be learned, or a name is unknown.
    """

    neuron_fields: ClassVar[tuple[str, ...]] = ("tau_syn_inv", "tau_mem_inv", "v_leak", "v_th", "v_reset")

    tau_syn_inv: Value = 1 / 5e-3  # 1/s
    tau_mem_inv: Value = 1 / 1e-2  # 1/s
    v_leak: Value = 0.0
    v_th: Value = 1.0
    v_reset: Value = 0.0
    method: str = "super"
    alpha: float | None = None
    tau_mem: dataclasses.InitVar[Value | None] = dataclasses.field(default=None, kw_only=True)  # s
    tau_syn: dataclasses.InitVar[Value | None] = dataclasses.field(default=None, kw_only=True)  # s
    _source: dataclasses.InitVar[_Declaration | None] = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self, tau_mem: Value | None, tau_syn: Value | None, _source: _Declaration | None) -> None:
        super().__post_init__(_source, tau_mem=tau_mem, tau_syn=tau_syn)
        if self.method != "adjoint":  # no spike function but a backward pass of its own, see snnparams.adjoint
            check_method(self.method)
        if (alpha := self.alpha) is None:
            return
        if isinstance(alpha, torch.Tensor) and alpha.dim() == 0 and not alpha.requires_grad:
            alpha = alpha.item()
        if not isinstance(alpha, numbers.Real) or isinstance(alpha, bool):
            raise TypeError(f"alpha: expected a number, which is not learned, got {type(self.alpha).__name__}")
        if not (math.isfinite(alpha) and alpha > 0):
            raise ValueError(f"alpha: expected a positive, finite number, got {alpha}")
        object.__setattr__(self, "alpha", float(alpha))
