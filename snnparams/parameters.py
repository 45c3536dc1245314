"""Neuron parameters: their values, which of them are learned, and what makes a value valid.

`LIFParameters` and `LIParameters` *declare* the parameters of a population. A cell or layer turns the declaration
into a `NeuronParameters` module of its own, in which a fixed value is a buffer and a learned one an
`nn.Parameter`. Explained in chapters 2 and 3.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from typing import ClassVar

import torch
from torch import nn

from snnparams.surrogate import check_method

Value = float | torch.Tensor | nn.Parameter
"""What a neuron parameter may be given as: a number, a tensor (fixed) or an `nn.Parameter` (learned)."""

UNITS = {"tau_syn_inv": "1/s", "tau_mem_inv": "1/s", "v_leak": "", "v_th": "", "v_reset": ""}
RATES = ("tau_syn_inv", "tau_mem_inv")  # inverse time constants: positive, and limited by the time step


def _as_value(name: str, value: Value) -> float | torch.Tensor:
    """Return a number as a float, which is exact in any type, and check that a tensor is a real one."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name}: expected a number or a floating-point tensor, got {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(f"{name}: expected a floating-point tensor, got {value.dtype}")
    return value


def check_value(name: str, value: float | torch.Tensor, dt: float | None = None) -> None:
    r"""Check that the integrator can handle a value of the neuron parameter `name`.

    All values must be finite. Inverse time constants must be positive and, where the time step is known,
    satisfy :math:`\Delta t \, \tau^{-1} < 1`: beyond that limit a forward Euler step overshoots its target.

    Args:
        name: the parameter, for instance `"tau_mem_inv"`.
        value: its value or values, any shape.
        dt: time step in s.

    Raises:
        ValueError: with the parameter, the offending value and the limit.
    """
    flat = torch.as_tensor(value).detach().flatten()
    if flat.is_meta:  # a shape without values
        return
    unit = f" {UNITS[name]}" if UNITS[name] else ""

    def refuse(bad: torch.Tensor, expected: str) -> None:
        if bad.any():
            first = int(bad.nonzero()[0])
            which = f" at neuron {first} ({int(bad.sum())} of {len(flat)} values are invalid)" if len(flat) > 1 else ""
            raise ValueError(f"{name}: expected {expected}, got {flat[first].item():g}{unit}{which}")

    refuse(~torch.isfinite(flat), "finite values")
    if name in RATES:
        refuse(flat <= 0, "positive values")
        if dt is not None:
            refuse(dt * flat >= 1, f"dt * {name} < 1, that is values below {1 / dt:g}{unit} at dt = {dt:g} s")


def check_dt(dt: float) -> float:
    """Return the time step `dt` in s as a float.

    Raises:
        ValueError: if it is not positive and finite.
    """
    if not (math.isfinite(dt) and dt > 0):
        raise ValueError(f"dt: expected a positive, finite time step in s, got {dt}")
    return float(dt)


class _Declaration:
    """What the two declarations share: the checks of their fields."""

    neuron_fields: ClassVar[tuple[str, ...]]

    def __post_init__(self) -> None:
        for name in self.neuron_fields:
            value = _as_value(name, getattr(self, name))
            check_value(name, value)
            object.__setattr__(self, name, value)


@dataclasses.dataclass(frozen=True, eq=False)
class LIParameters(_Declaration):
    r"""Parameters of a leaky integrator: a membrane that integrates its input and never spikes.

    Args:
        tau_syn_inv: inverse synaptic time constant :math:`1/\tau_\mathrm{syn}` in 1/s, positive.
        tau_mem_inv: inverse membrane time constant :math:`1/\tau_\mathrm{mem}` in 1/s, positive.
        v_leak: leak (resting) voltage, dimensionless.

    Each is a number, a tensor (a scalar or one value per neuron) or an `nn.Parameter`. Cells and layers copy a
    number or a tensor into a buffer (fixed) and register an `nn.Parameter` itself (learned, and shared by every
    module that it is given to).

    Raises:
        ValueError: if a value is not finite or a time constant is not positive.
        TypeError: if a value is not a real floating-point number.
    """

    neuron_fields: ClassVar[tuple[str, ...]] = ("tau_syn_inv", "tau_mem_inv", "v_leak")

    tau_syn_inv: Value = 1 / 5e-3  # 1/s
    tau_mem_inv: Value = 1 / 1e-2  # 1/s
    v_leak: Value = 0.0


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

    Each of the first five is a number, a tensor (a scalar or one value per neuron) or an `nn.Parameter`. Cells
    and layers copy a number or a tensor into a buffer (fixed) and register an `nn.Parameter` itself (learned,
    and shared by every module that it is given to). Names, order and defaults are those of Norse.

    Raises:
        ValueError: if a value is not finite, a time constant or `alpha` is not positive, or `method` is unknown.
        TypeError: if a value is not a real floating-point number, or `alpha` is to be learned.
    """

    neuron_fields: ClassVar[tuple[str, ...]] = ("tau_syn_inv", "tau_mem_inv", "v_leak", "v_th", "v_reset")

    tau_syn_inv: Value = 1 / 5e-3  # 1/s
    tau_mem_inv: Value = 1 / 1e-2  # 1/s
    v_leak: Value = 0.0
    v_th: Value = 1.0
    v_reset: Value = 0.0
    method: str = "super"
    alpha: float = 100.0

    def __post_init__(self) -> None:
        super().__post_init__()
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


def _validate_after_load(module: NeuronParameters, incompatible_keys) -> None:
    module.validate()


class NeuronParameters(nn.Module):
    """The neuron parameters of one cell or layer, as PyTorch registers them.

    Its attributes have the names of the declaration's fields. A field that was declared as an `nn.Parameter` is
    that parameter; every other one is a buffer. So `parameters()`, `state_dict()`, `to()` and `deepcopy` see
    them all.

    Args:
        p: the declaration.
        dt: time step in s, for the limit on inverse time constants.
        size: number of neurons, or None where it is only known from the input.
        device: device of the buffers.
        dtype: floating-point type of the buffers; learned parameters must have it already.

    Raises:
        ValueError: if a value has neither one value nor one per neuron, or is invalid at this time step.
        TypeError: if a learned parameter has another type, or a tensor requires a gradient that would be lost.
    """

    def __init__(
        self,
        p: LIFParameters | LIParameters,
        dt: float,
        size: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(p, (LIFParameters, LIParameters)):
            raise TypeError(f"p: expected LIFParameters or LIParameters, got {type(p).__name__}")
        dtype = dtype or torch.get_default_dtype()
        self.declaration = type(p).__name__
        self.neuron_fields = p.neuron_fields
        self.dt = check_dt(dt)
        if isinstance(p, LIFParameters):
            self.method, self.alpha = p.method, p.alpha
        for name in self.neuron_fields:
            value = getattr(p, name)
            if not isinstance(value, torch.Tensor):
                value = torch.tensor(value, dtype=dtype)
            if size is not None and value.dim() and tuple(value.shape) != (size,):
                raise ValueError(
                    f"{name}: expected one value, or one per neuron of shape ({size},), got {tuple(value.shape)}"
                )
            if isinstance(value, nn.Parameter):
                if value.dtype != dtype:
                    raise TypeError(f"{name}: expected a parameter of type {dtype}, got {value.dtype}")
                self.register_parameter(name, value)
            elif value.requires_grad:
                raise TypeError(
                    f"{name}: expected an nn.Parameter or a tensor without gradient, got a tensor that requires "
                    "one; a cell would cut it off from what it was computed from. Give the nn.Parameter itself, "
                    "or call the step function with this tensor"
                )
            else:
                # a copy, so that a later change to the caller's tensor does not reach into the cell
                self.register_buffer(name, value.detach().to(device=device, dtype=dtype, copy=True))
        self.validate()
        # a value may also be loaded through a second name, of a module that registered the parameter itself
        self.register_load_state_dict_post_hook(_validate_after_load)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        for name in self.neuron_fields:
            if isinstance(value := state_dict.get(prefix + name), torch.Tensor):
                check_value(name, value, self.dt)  # before it takes the place of a valid one
        super()._load_from_state_dict(state_dict, prefix, *args)

    def validate(self) -> None:
        """Check all values against the limits of the integrator.

        Done when the module is built and when a state is loaded. A gradient step can leave the valid range
        as well: `snnparams.train` calls this after every epoch.

        Raises:
            ValueError: with the parameter, the offending value and the limit.
        """
        for name in self.neuron_fields:
            check_value(name, getattr(self, name), self.dt)

    def _get_name(self) -> str:
        return self.declaration

    def extra_repr(self) -> str:
        """Show each parameter: its value, or for several its median and range, and whether it is learned."""
        lines = []
        for name in self.neuron_fields:
            value = getattr(self, name)
            flat = value.detach().flatten()
            if value.is_meta:
                text = f"shape {tuple(value.shape)}"
            elif value.dim() == 0:
                text = f"{flat.item():g}"
            else:
                low, high = flat.min().item(), flat.max().item()
                text = f"{flat.numel()} values, median {flat.median().item():.4g}, {low:.4g} to {high:.4g}"
            kind = "learned" if value.requires_grad else "fixed"
            lines.append(f"{name}={text}{' ' if UNITS[name] else ''}{UNITS[name]} ({kind})")
        if hasattr(self, "method"):
            lines.append(f"method={self.method!r}, alpha={self.alpha:g}")
        return "\n".join(lines)
