"""Declarations of neuron parameters: `LIFParameters` and `LIParameters`.

One place says of each parameter what its value or distribution is, whether it is learned, and how it stays valid. A
cell or layer turns the declaration into a `snnparams.NeuronParameters` of its own. Explained in chapters 2, 3 and 5.
"""

from __future__ import annotations

import dataclasses
import functools
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


def _known_names(declaration: type[Any]) -> type:
    """Let a declaration that is built with an unknown name list the known ones."""
    build = declaration.__init__
    known = (*(field.name for field in dataclasses.fields(declaration)), *TIMES)

    @functools.wraps(build)
    def __init__(self, *values, **named) -> None:
        for name in named:
            if name not in known:
                raise TypeError(f"{declaration.__name__}: unknown {name}; expected one of {', '.join(known)}")
        build(self, *values, **named)

    declaration.__init__ = __init__
    return declaration


class _Declaration:
    """What the two declarations share: the checks of their fields."""

    neuron_fields: ClassVar[tuple[str, ...]]

    def __post_init__(self, **times) -> None:
        for time, value in times.items():
            if value is None:
                continue
            field = TIMES[time]
            if getattr(self, field) is not getattr(type(self), field):
                raise ValueError(f"{time}: expected either it or {field}, got both")
            object.__setattr__(self, field, of_times(time, value))
        for name in self.neuron_fields:
            object.__setattr__(self, name, check_declared(name, getattr(self, name)))


@_known_names
@dataclasses.dataclass(frozen=True, eq=False)
class LIParameters(_Declaration):
    r"""Parameters of a leaky integrator: a membrane that integrates its input and never spikes.

    Args:
        tau_syn_inv: inverse synaptic time constant :math:`1/\tau_\mathrm{syn}` in 1/s, positive.
        tau_mem_inv: inverse membrane time constant :math:`1/\tau_\mathrm{mem}` in 1/s, positive.
        v_leak: leak (resting) voltage, dimensionless.
        tau_mem: membrane time constant in s, positive, in place of `tau_mem_inv`.
        tau_syn: synaptic time constant in s, positive, in place of `tau_syn_inv`.

    Each is declared as in `LIFParameters`.

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

    def __post_init__(self, tau_mem: Value | None, tau_syn: Value | None) -> None:
        super().__post_init__(tau_mem=tau_mem, tau_syn=tau_syn)


@_known_names
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
        alpha: shape parameter of the surrogate gradient, positive.
        tau_mem: membrane time constant in s, positive, in place of `tau_mem_inv`.
        tau_syn: synaptic time constant in s, positive, in place of `tau_syn_inv`.

    Each of the first five and of the last two is one of these:

    - a number or a tensor (a scalar or one value per neuron): fixed, copied into a buffer;
    - a `torch.distributions.Distribution`: fixed, drawn for every neuron when a cell or layer is built;
    - `snnparams.Learned` of a number, a tensor or a distribution: learned, with a constraint that keeps it valid;
    - `snnparams.Fixed` of one of them: fixed, for instance one draw for the whole layer;
    - an `nn.Parameter` (not for the last two): learned, registered itself, shared by every module that it is given to,
      without constraint.

    A tail of a distribution beyond the limit of the time step, of a probability of at most 1 in 1000, is cut off.
    Names, order and defaults are those of Norse.

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
    alpha: float = 100.0
    tau_mem: dataclasses.InitVar[Value | None] = dataclasses.field(default=None, kw_only=True)  # s
    tau_syn: dataclasses.InitVar[Value | None] = dataclasses.field(default=None, kw_only=True)  # s

    def __post_init__(self, tau_mem: Value | None, tau_syn: Value | None) -> None:
        super().__post_init__(tau_mem=tau_mem, tau_syn=tau_syn)
        if self.method != "adjoint":  # no spike function but a backward pass of its own, see snnparams.adjoint
            check_method(self.method)
        alpha = self.alpha
        if isinstance(alpha, torch.Tensor) and alpha.dim() == 0 and not alpha.requires_grad:
            alpha = alpha.item()
        if not isinstance(alpha, numbers.Real) or isinstance(alpha, bool):
            raise TypeError(f"alpha: expected a number, which is not learned, got {type(self.alpha).__name__}")
        if not (math.isfinite(alpha) and alpha > 0):
            raise ValueError(f"alpha: expected a positive, finite number, got {alpha}")
        object.__setattr__(self, "alpha", float(alpha))
