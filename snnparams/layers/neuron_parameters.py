"""Neuron parameters as PyTorch modules: what is registered, what is learned, and how it is read and written.

A cell or layer turns its declaration (`snnparams.neurons`) into a `NeuronParameters` module, in which a fixed value is
a buffer and a learned one an `nn.Parameter`. Explained in chapters 3 and 5.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import nn
from torch.distributions import Distribution
from torch.nn.utils import parametrize

from snnparams.layers.checkpoint import Saved, check_common
from snnparams.layers.reads import Reads
from snnparams.neurons import Neuron, Value
from snnparams.neurons.definition import RESERVED
from snnparams.neurons.neuron import check_gradient, no_parameters
from snnparams.neurons.surrogate import Gradient, gradient_of
from snnparams.parameters import constraints
from snnparams.parameters.declared import (
    Declared,
    Learned,
    check_declared,
    check_dtype,
    check_no_gradient,
    check_size,
    check_value,
    moved,
    of_times,
    plain,
)
from snnparams.parameters.initial import initial_value, make_constraint, unconstrained
from snnparams.parameters.settings import check_dt


def _validate_after_load(module: NeuronParameters, incompatible_keys) -> None:
    """Check what was loaded: a function of its own, so that modules that call it can be pickled."""
    module.validate()


class NeuronParameters(Saved):
    """The neuron parameters of one cell or layer, as PyTorch registers them.

    Its attributes have the names of the declaration's fields; `tau_mem` and `tau_syn` are the time constants in s. A
    fixed field is a buffer. A learned one is an `nn.Parameter`, or, with a constraint, computed from one at every use
    (`torch.nn.utils.parametrize`). So `parameters()`, `state_dict()`, `to()` and `deepcopy` see them all.

    All can be assigned. A number, or a tensor that fits, is checked and written into the place of the old values (of
    the unconstrained ones where there is a constraint). A `Learned`, a `Fixed`, a distribution or an `nn.Parameter`
    takes the place of what was there, as if the layer had been built with it; tell the optimiser of its new parameter.
    `dt` and `gradient` stay as they were built. A function under `torch.compile` knows no values: what it assigns is
    checked by the next `validate`.

    `tau_mem`, `tau_syn` and a value under a constraint are computed anew whenever they are read. To change such a
    tensor in place, as in `p.tau_mem[0] = 0.02` or `nn.init.constant_(p.tau_mem_inv, 50.0)`, would change that tensor
    alone and not the neurons: assign instead, as in `p.tau_mem = values`. It is an error, see `check_reads`, which is
    raised when the neurons are used (but not by a compiled forward pass), saved or validated, or the same value is
    read. A fixed value may be changed in place and is checked then.

    A checkpoint (`state_dict`) holds what is stored and, for a parameter under a constraint, its values in 1/s or
    without a unit as well, under the name of the field: a buffer beside `parametrizations.<field>.original`, computed
    anew for each checkpoint. A layer whose constraint makes the same values of what is stored takes that. One with
    another constraint, range or time step takes the values, checked against its own limits, as does one in which
    the parameter is fixed; and a learned parameter takes those of a fixed one. So who changes what is stored in a
    checkpoint has to change the values too, or leave them out. One value fills all neurons, and a fixed parameter of
    one value takes one per neuron. The state of an optimiser belongs to what is stored, and means nothing under another
    constraint.

    Args:
        p: the declaration.
        dt: time step in s, for the limit on inverse time constants.
        size: number of neurons, or shape of the population of a feed-forward module; None where it is unknown.
        gradient: a `Surrogate` or `Adjoint()`, how the gradient of spikes is computed; None for what `p` says of it.
        device: device of buffers and new parameters.
        dtype: their floating-point type; a given `nn.Parameter` must have it already.

    Raises:
        ValueError: if a value has neither one value nor one per neuron, or is invalid at this time step, or the size is
            needed and unknown.
        TypeError: if a learned parameter has another type, or a tensor requires a gradient that would be lost.
    """

    def __init__(
        self,
        p: Neuron,
        *,
        dt: float,
        size: int | tuple[int, ...] | None = None,
        gradient: Gradient | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(p, Neuron):
            raise no_parameters(type(p), "the parameters of a neuron")
        dtype = check_dtype(dtype)
        self.neuron, self.declaration = type(p), type(p).__name__
        self.dt, self.size, self.in_seconds = check_dt(dt), size, p.in_seconds
        self._reads = Reads()
        check_gradient(self.neuron, gradient)
        self.gradient = gradient_of(p, gradient) if self.neuron.spiking else None
        check_gradient(self.neuron, self.gradient)
        self.neuron_fields = p.neuron_fields  # from here on other names are refused
        made = {name: self._make(name, getattr(p, name), device, dtype) for name in self.neuron_fields}
        for name, (value, constraint) in made.items():
            self._place(name, value, constraint)
        # a value may also be loaded through a second name, of a module that registered the parameter itself
        self.register_load_state_dict_post_hook(_validate_after_load)

    def _make(
        self, name: str, declared: Value, device: torch.device | str | None, dtype: torch.dtype
    ) -> tuple[torch.Tensor, nn.Module | None]:
        """Return what to register for a declared value, a buffer or a parameter, and its constraint; all is checked."""
        learned, parameter = isinstance(declared, Learned), self.about(name)
        constraint = make_constraint(parameter, declared.constraint, self.dt) if isinstance(declared, Learned) else None
        value = declared.value if isinstance(declared, Declared) else declared
        if device is None:
            device = value.device if isinstance(value, torch.Tensor) else torch.get_default_device()
        if isinstance(declared, Declared):
            shape = (self.size,) if isinstance(self.size, int) else self.size
            value = initial_value(parameter, declared, shape, constraint, self.dt)
        elif not isinstance(value, torch.Tensor):
            value = torch.tensor(value, dtype=dtype, device="cpu")
        check_size(parameter.name, value, self.size)
        if isinstance(value, nn.Parameter):
            if value.dtype != dtype:
                raise TypeError(f"{name}: expected a parameter of type {dtype}, got {value.dtype}")
            check_value(parameter, value, self.dt)
            return value, None
        check_no_gradient(name, value)
        without_memory = torch.device(device).type == "meta"  # and without values, which are checked where they are
        value = moved(value.detach(), value.device if without_memory else device, dtype)
        check_value(parameter, value, self.dt)
        if constraint is not None:
            before = value if isinstance(constraint, constraints.Constraint) else value.to(device)
            after = constraint(unconstrained(parameter, before, constraint)).detach()
            if not before.is_meta and not torch.allclose(after, before, rtol=1e-3, atol=1e-6):
                raise ValueError(
                    f"{name}: expected a constraint whose right_inverse is its inverse, got {constraint!r}"
                )
        # a copy, so that a later change to the caller's tensor does not reach into the cell
        value = value.to(device) if without_memory else value.clone()
        return nn.Parameter(value) if learned else value, constraint

    def _place(self, name: str, value: torch.Tensor, constraint: nn.Module | None) -> None:
        """Register what `_make` returned."""
        if isinstance(value, nn.Parameter):
            self.register_parameter(name, value)
        else:
            self.register_buffer(name, value)
        if constraint is not None:  # stored unconstrained from here on
            parametrize.register_parametrization(self, name, constraint)
            computed = vars(type(self))[name]  # PyTorch's, for the neurons; what a user reads is noted as well

            def in_use(p: NeuronParameters) -> torch.Tensor:
                given = p._given(name)
                return computed.fget(p) if given is None else given

            setattr(type(self), f"_{name}", property(in_use))
            setattr(type(self), name, property(lambda p: p._noted(name, in_use(p)), computed.fset))
            self.keep_values()

    def check_use(self, *, dt: float, size, gradient: Gradient | None, device, dtype) -> None:
        """Check that another cell or layer can have these parameters, as it is asked to be built.

        Raises:
            ValueError: if it asks for another time step, size, device, type or gradient.
        """
        place = self.raw(self.neuron_fields[0])
        device = place.device.type if device is None else torch.device(device).type
        for name, wanted, got in (
            ("dt", dt, self.dt),
            ("device", device, place.device.type),
            ("dtype", dtype or place.dtype, place.dtype),
        ):
            if wanted != got:
                raise ValueError(f"p: expected parameters of {name} {wanted}, got those of a layer of {name} {got}")
        for name in self.neuron_fields:
            check_size(self.about(name).name, self.raw(name), size)
        gradient_of(self, gradient)

    def share(self, name: str, other: NeuronParameters) -> None:
        """Use the learned parameter of that name of another population from here on: both learn one.

        Args:
            name: a parameter that is learned here and there, also a time constant.
            other: the neuron parameters that it is taken from.

        Raises:
            AttributeError: if one of the two has no such parameter.
            ValueError: if it is not learned in both, differs in shape, type or constraint, or has a value that is
                invalid at this time step.
        """
        from snnparams.layers.likeness import same_modules  # which imports this module

        if not isinstance(other, NeuronParameters):
            raise TypeError(f"other: expected NeuronParameters, as layer.p, got {type(other).__name__}")
        name = self.neuron.times.get(name, name)

        def kind(p):
            stored, constraint = p.raw(name), p.constraint(name)
            about = None if constraint is None else (type(constraint), constraint.extra_repr())
            return isinstance(stored, nn.Parameter), tuple(stored.shape), stored.dtype, about

        if kind(self) != kind(other) or not isinstance(stored := other.raw(name), nn.Parameter):
            raise ValueError(f"{name}: expected two learned parameters of one kind, got {kind(self)} and {kind(other)}")
        check_value(self.about(name), getattr(other, name), self.dt)
        own, others = self.constraint(name), other.constraint(name)
        if own is None or others is None:
            self.register_parameter(name, stored)
            return
        if not same_modules(copy.deepcopy(own).eval(), copy.deepcopy(others).eval()):
            raise ValueError(
                f"{name}: expected two constraints that make the same values of all numbers, got {own!r} and "
                f"{others!r}, which differ in their attributes or tensors"
            )
        self.parametrizations[name][0] = others  # which may learn as well
        self.parametrizations[name].original = stored
        self._forget_reads(name)
        self.keep_values()

    def values(self, in_use: bool = False) -> Any:
        """Return all values, each computed once: for the many time steps of one forward pass.

        They are a named tuple, `Values` of the neuron's class, with `gradient` if it spikes.

        Args:
            in_use: whether they may be those of the call before, where no gradient is required and what is stored has
                not changed; nobody may then change them in place.
        """
        if not torch.compiler.is_compiling():
            self.check_reads()
        if "parametrizations" in self._modules or self.__dict__.get("_is_replica"):
            read = self._computed if in_use else self._in_use
            values = [read(name) for name in self.neuron_fields]
        else:  # none is computed
            fixed, learned = cast(Any, self._buffers), cast(Any, self._parameters)
            values = [fixed[name] if name in fixed else learned[name] for name in self.neuron_fields]
        return self.neuron.Values(*values, *((self.gradient,) if self.neuron.spiking else ()))

    def __setattr__(self, name: str, value: Value) -> None:  # type: ignore[override]
        if self.__dict__.get("_is_replica"):  # nn.DataParallel puts its parts together on another device
            return super().__setattr__(name, value)  # type: ignore[arg-type]
        fields, before = self.__dict__.get("neuron_fields", ()), self.in_seconds
        if fields and name in self.neuron.times:
            rate = self.neuron.times[name]
            self._forget_reads(rate)
            name, value = rate, of_times(name, value, rate)
            self.__dict__["in_seconds"] = self.in_seconds | {rate}
        elif name in self.in_seconds:
            self.__dict__["in_seconds"] = self.in_seconds - {name}
        if name in fields:
            if name in self._parameters or name in self._buffers or parametrize.is_parametrized(self, name):
                try:
                    return self._assign(name, value)
                except (TypeError, ValueError):
                    self.__dict__["in_seconds"] = before  # a value that is refused changes nothing
                    raise
        elif fields and not (name.startswith("_") or isinstance(value, nn.Module) or hasattr(self, name)):
            expected = ", ".join([*fields, *self.neuron.times])
            raise AttributeError(f"unknown {name} of {self.declaration}; expected one of {expected}")
        super().__setattr__(name, value)  # type: ignore[arg-type]

    @torch.no_grad()
    def _assign(self, name: str, value: Value) -> None:
        """Assign a value. If it is refused, so is the change in place that `p.v_th *= 2` has made before."""
        place, read = self.raw(name), self._reads.get(name)
        self._forget_reads(name)
        try:
            self._write(name, value)
        except (TypeError, ValueError):
            if value is place and read is not None:
                place.copy_(read[2])
            raise

    def _write(self, name: str, value: Value) -> None:
        """Write values into the place of the old ones, or register what a declaration would have registered."""
        value, place, constraint = plain(name, value), self.raw(name), self.constraint(name)
        parameter = self.about(name)
        if isinstance(value, (Distribution, Declared, nn.Parameter)):
            if self._rows is not None:
                raise ValueError(
                    f"{name}: expected a number or values of shape {tuple(place.shape)} in an ensemble, "
                    f"got {type(value).__name__}; build the members anew with it"
                )
            declared = value if isinstance(value, nn.Parameter) else check_declared(parameter, value)
            made, new_constraint = self._make(name, declared, place.device, place.dtype)
            if parametrize.is_parametrized(self):
                kind = type(self)  # made by parametrize, which will change it; copies of this module share it
                self.__class__ = type(kind.__name__, kind.__bases__, dict(vars(kind)))
            kept = self._parameters if isinstance(made, nn.Parameter) else self._buffers
            # else its place in the order of all parameters is kept as well
            if constraint is not None or name not in kept:
                self._remove(name)
            self._place(name, made, new_constraint)
            return
        check_declared(parameter, value)
        if isinstance(value, torch.Tensor):
            check_no_gradient(name, value)
            new = moved(value.detach(), place.device, place.dtype)
        else:
            new = torch.tensor(value, device=place.device, dtype=place.dtype)
        check_value(parameter, new, self.dt)
        if new.dim() and not place.dim() and constraint is None and name in self._buffers:
            check_common(self, name, new)
            check_size(parameter.name, new, self.size)
            self._buffers[name] = new.clone()
            return
        try:
            new = new.expand(place.shape)
        except RuntimeError:
            expected, got = tuple(place.shape), tuple(new.shape)
            raise ValueError(f"{parameter.name}: expected a number or values of shape {expected}, got {got}") from None
        place.copy_(new if constraint is None else unconstrained(parameter, new, constraint))
        self.keep_values()

    def _remove(self, name: str) -> None:
        """Forget what is registered under a name."""
        if parametrize.is_parametrized(self, name):
            del self._buffers[name]  # the values for checkpoints, in whose place PyTorch puts the original
            delattr(type(self), f"_{name}")
            parametrize.remove_parametrizations(self, name, leave_parametrized=False)
        delattr(self, name)

    def validate(self) -> None:
        """Check all values against the limits of the integrator.

        Done when the module is built and when a state is loaded. Without a constraint a gradient step can leave the
        valid range as well: `snnparams.train` calls this after every epoch.

        Raises:
            ValueError: with the parameter, the offending value and the limit.
        """
        self.check_reads(wait=True)
        self.keep_values()
        constrained = self.constrained()
        for name in self.neuron_fields:
            value = self._buffers[name] if name in constrained else self.raw(name)
            check_value(self.about(name), cast(torch.Tensor, value), self.dt)


RESERVED.update(dir(NeuronParameters), NeuronParameters.as_built, vars(nn.Module()), ["parametrizations"])
