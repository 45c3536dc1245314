"""Neuron parameters as PyTorch modules: what is registered, what is learned, and how it is read and written.

A cell or layer turns its declaration (`snnparams.declaration`) into a `NeuronParameters` module, in which a fixed value
is a buffer and a learned one an `nn.Parameter`. Explained in chapters 3 and 5.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils import parametrize

from snnparams.declaration import LIFParameters, LIParameters
from snnparams.values import (
    TIMES,
    UNITS,
    Fixed,
    Learned,
    check_declared,
    check_dt,
    check_value,
    initial_value,
    make_constraint,
    of_times,
)

__all__ = ["LIFParameters", "LIParameters", "NeuronParameters", "Values"]


def _validate_after_load(module: NeuronParameters, incompatible_keys) -> None:
    module.validate()


class Values(NamedTuple):
    """The values of all neuron parameters at one time, and the spike function, under the names of a declaration."""

    tau_syn_inv: torch.Tensor
    tau_mem_inv: torch.Tensor
    v_leak: torch.Tensor
    v_th: torch.Tensor | None = None
    v_reset: torch.Tensor | None = None
    method: str | None = None
    alpha: float | None = None


class NeuronParameters(nn.Module):
    """The neuron parameters of one cell or layer, as PyTorch registers them.

    Its attributes have the names of the declaration's fields; `tau_mem` and `tau_syn` are the time constants in s. A
    fixed field is a buffer. A learned one is an `nn.Parameter`, or, with a constraint, computed from one at every use
    (`torch.nn.utils.parametrize`). So `parameters()`, `state_dict()`, `to()` and `deepcopy` see them all.

    All can be assigned: a number, or a tensor that fits, is checked and written into the place of the old values (of
    the unconstrained ones where there is a constraint). `dt`, `method` and `alpha` stay as they were built.

    Args:
        p: the declaration.
        dt: time step in s, for the limit on inverse time constants.
        size: number of neurons, or shape of the population of a feed-forward module; None where it is unknown.
        device: device of buffers and new parameters.
        dtype: their floating-point type; a given `nn.Parameter` must have it already.

    Raises:
        ValueError: if a value has neither one value nor one per neuron, or is invalid at this time step, or the size is
            needed and unknown.
        TypeError: if a learned parameter has another type, or a tensor requires a gradient that would be lost.
    """

    tau_syn_inv: torch.Tensor
    tau_mem_inv: torch.Tensor
    v_leak: torch.Tensor

    def __init__(
        self,
        p: LIFParameters | LIParameters,
        dt: float,
        size: int | tuple[int, ...] | None = None,
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
        constraints = {}
        for name in self.neuron_fields:
            value = getattr(p, name)
            learned = isinstance(value, Learned)
            constraint = constraints[name] = make_constraint(name, value.constraint, dt) if learned else None
            if isinstance(value, Fixed):
                shape = (size,) if isinstance(size, int) else size
                value = initial_value(name, value, shape, constraint, dt)
            elif not isinstance(value, torch.Tensor):
                value = torch.tensor(value, dtype=dtype)
            if isinstance(size, int) and value.dim() and tuple(value.shape) != (size,):
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
                value = value.detach().to(device=device, dtype=dtype, copy=True)
                if learned:
                    self.register_parameter(name, nn.Parameter(value))
                else:
                    self.register_buffer(name, value)
        self.validate()
        for name, constraint in constraints.items():
            if constraint is not None:
                self._constrain(name, constraint)
        # a value may also be loaded through a second name, of a module that registered the parameter itself
        self.register_load_state_dict_post_hook(_validate_after_load)

    def _constrain(self, name: str, constraint: nn.Module) -> None:
        """Store a learned parameter unconstrained from here on."""
        before = getattr(self, name).detach().clone()
        try:
            parametrize.register_parametrization(self, name, constraint)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        after = getattr(self, name).detach()
        if not before.is_meta and not torch.allclose(after, before, rtol=1e-3, atol=1e-6):
            raise ValueError(f"{name}: expected a constraint whose right_inverse is its inverse, got {constraint!r}")

    def constraint(self, name: str) -> nn.Module | None:
        """Return what keeps the parameter of that name valid, or None.

        Raises:
            AttributeError: if there is no such parameter.
        """
        self._check_name(name)
        return self.get_submodule(f"parametrizations.{name}.0") if parametrize.is_parametrized(self, name) else None

    def stored(self, name: str) -> torch.Tensor:
        """Return what is stored and, if it is learned, changed by an optimiser.

        That is the unconstrained numbers where there is a constraint, else the values.

        Raises:
            AttributeError: if there is no such parameter.
        """
        constrained = self.constraint(name) is not None
        return self.parametrizations[name].original if constrained else getattr(self, name)

    def _check_name(self, name: str) -> None:
        if name not in self.neuron_fields:
            raise AttributeError(
                f"unknown {name} of {self.declaration}; expected one of {', '.join(self.neuron_fields)}"
            )

    def share(self, name: str, other: NeuronParameters) -> None:
        """Use the learned parameter of that name of another population from here on: both learn one.

        Args:
            name: a parameter that is learned here and there.
            other: the neuron parameters that it is taken from.

        Raises:
            AttributeError: if one of the two has no such parameter.
            ValueError: if it is not learned in both, differs in shape, type or constraint, or has a value that is
                invalid at this time step.
        """

        def kind(p):
            stored, constraint = p.stored(name), p.constraint(name)
            about = None if constraint is None else (type(constraint), constraint.extra_repr())
            return isinstance(stored, nn.Parameter), tuple(stored.shape), stored.dtype, about

        if kind(self) != kind(other) or not isinstance(stored := other.stored(name), nn.Parameter):
            raise ValueError(f"{name}: expected two learned parameters of one kind, got {kind(self)} and {kind(other)}")
        check_value(name, getattr(other, name), self.dt)
        if self.constraint(name) is None:
            self.register_parameter(name, stored)
        else:
            self.parametrizations[name].original = stored

    def values(self) -> Values:
        """Return all values, each computed once: for the many time steps of one forward pass."""
        values = {name: getattr(self, name) for name in self.neuron_fields}
        return Values(**values, method=getattr(self, "method", None), alpha=getattr(self, "alpha", None))

    @property
    def tau_mem(self) -> torch.Tensor:
        """Membrane time constants in s."""
        return 1 / self.tau_mem_inv

    @property
    def tau_syn(self) -> torch.Tensor:
        """Synaptic time constants in s."""
        return 1 / self.tau_syn_inv

    def __setattr__(self, name: str, value) -> None:
        if name in ("dt", "method", "alpha") and name in self.__dict__:
            raise AttributeError(f"{name}: expected {getattr(self, name)!r} as built, got {value!r}; build a new layer")
        fields = self.__dict__.get("neuron_fields", ())
        if name in TIMES and fields:
            name, value = TIMES[name], of_times(name, value)
        if name in UNITS and fields:
            self._check_name(name)
            if name in self._parameters and isinstance(value, nn.Parameter):
                check_value(name, value, self.dt)
            elif name in self._parameters or name in self._buffers or parametrize.is_parametrized(self, name):
                return self._assign(name, value)
        super().__setattr__(name, value)

    @torch.no_grad()
    def _assign(self, name: str, value: float | torch.Tensor) -> None:
        """Write values into the place of the old ones."""
        check_declared(name, value)
        place = self.stored(name)
        new = torch.as_tensor(value).detach().to(device=place.device, dtype=place.dtype)
        check_value(name, new, self.dt)
        try:
            new = new.expand(place.shape)
        except RuntimeError:
            expected, got = tuple(place.shape), tuple(new.shape)
            raise ValueError(f"{name}: expected a number or values of shape {expected}, got {got}") from None
        if (constraint := self.constraint(name)) is not None:
            try:
                new = constraint.right_inverse(new)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        place.copy_(new)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        for name in self.neuron_fields:  # checked before they take the place of valid ones
            if isinstance(value := state_dict.get(prefix + name), torch.Tensor):
                check_value(name, value, self.dt)
            value = state_dict.get(f"{prefix}parametrizations.{name}.original")
            if isinstance(value, torch.Tensor) and (constraint := self.constraint(name)) is not None:
                check_value(name, constraint(value), self.dt)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def validate(self) -> None:
        """Check all values against the limits of the integrator.

        Done when the module is built and when a state is loaded. Without a constraint a gradient step can leave the
        valid range as well: `snnparams.train` calls this after every epoch.

        Raises:
            ValueError: with the parameter, the offending value and the limit.
        """
        for name in self.neuron_fields:
            check_value(name, getattr(self, name), self.dt)

    def _get_name(self) -> str:
        return self.declaration

    def __repr__(self) -> str:
        lines = self.extra_repr().replace("\n", "\n  ")
        return f"{self._get_name()}(\n  {lines}\n)"

    def extra_repr(self) -> str:
        """Show each parameter: its value, or for several its median and range, whether it is learned, and how."""
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
            kind = "learned" if self.stored(name).requires_grad else "fixed"
            if (constraint := self.constraint(name)) is not None:
                kind += f", {constraint!r}"
            lines.append(f"{name}={text}{' ' if UNITS[name] else ''}{UNITS[name]} ({kind})")
        if hasattr(self, "method"):
            lines.append(f"method={self.method!r}, alpha={self.alpha:g}")
        return "\n".join(lines)
