"""How neuron parameters are read: a change in place of what was read, which would be lost, is noticed."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import nn

from snnparams.layers.attributes import Attributes
from snnparams.parameters.constraints import can_be_looked_at
from snnparams.parameters.declared import check_value

if TYPE_CHECKING:
    from snnparams.neurons import Neuron, Parameter


class Reads(dict):
    """What was read of neuron parameters, by name.

    The tensor, its version, which PyTorch counts, a copy, and whether it was computed when it was read. In `kept`
    what was computed without gradient: the constraint, a copy of what was stored, and the values. And in `own` the
    tensors that the module has itself of a parameter under a constraint: what is stored, and the values in checkpoints.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, tuple[nn.Module, torch.Tensor, torch.Tensor]] = {}
        self.own: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def __deepcopy__(self, memo: dict) -> Reads:
        """Return what finds in a copy of the module what would be found in the module itself."""
        reads = Reads()
        for name, (value, version, copied, computed) in self.items():
            again = copy.deepcopy(value, memo)
            reads[name] = again, again._version - (value._version != version), copied, computed
        reads.own = copy.deepcopy(self.own, memo)
        return reads

    def __reduce__(self):
        return Reads, ()  # in a file, and where modules are compared, it does not count


class Noted(Attributes):
    """What `snnparams.NeuronParameters` are to one who reads them: each read is noted."""

    as_built: ClassVar[tuple[str, ...]] = (
        "dt",
        "gradient",
        "neuron",
        "declaration",
        "size",
        "neuron_fields",
        "in_seconds",
    )
    neuron: type[Neuron]
    neuron_fields: tuple[str, ...]
    declaration: str
    in_seconds: frozenset[str] = frozenset()  # the rates that are shown as time constants
    dt: float
    _reads: Reads

    if TYPE_CHECKING:  # what a type checker sees of a parameter: one reads a tensor, and writes what declares it
        parametrizations: Any

        def __getattr__(self, name: str) -> torch.Tensor: ...

    def constraint(self, name: str) -> nn.Module | None:
        """Return what keeps the parameter of that name, also of a time constant, valid, or None: as a rate, in 1/s.

        Raises:
            AttributeError: if there is no such parameter.
        """
        name = self._stored_name(name)
        constraints = self._constraints(name)
        return None if constraints is None else constraints[0]

    def _constraints(self, name: str) -> Any:
        """Return what PyTorch has registered to compute a parameter, or None."""
        modules: Any = self._modules.get("parametrizations")
        return modules[name] if modules is not None and name in modules else None

    def raw(self, name: str) -> torch.Tensor:
        """Return what is stored and, if it is learned, changed by an optimiser.

        That is the unconstrained numbers where there is a constraint, else the values; of a time constant those of its
        inverse.

        Raises:
            AttributeError: if there is no such parameter.
        """
        name = self._stored_name(name)
        constraints = self._constraints(name)
        return self._in_use(name) if constraints is None else constraints.original

    def _stored_name(self, name: str) -> str:
        """Return the name under which a parameter is stored, which of a time constant is that of its inverse."""
        name = self.neuron.times.get(name, name)
        if name not in self.neuron_fields:
            raise AttributeError(
                f"unknown {name} of {self.declaration}; expected one of {', '.join(self.neuron_fields)}"
            )
        return name

    def _in_use(self, name: str) -> torch.Tensor:
        """Return the values that the neurons use, without noting that they were read."""
        if hasattr(type(self), name):  # computed; a user may have registered the parametrization
            return getattr(self, f"_{name}" if hasattr(type(self), f"_{name}") else name)
        # a replica of nn.DataParallel has parameters as plain attributes
        value = self.__dict__[name] if name in self.__dict__ else super().__getattr__(name)
        return cast(torch.Tensor, value)

    def _given(self, name: str) -> torch.Tensor | None:
        """Return values that stand in the place of a parameter under a constraint for one call, or None.

        `torch.func.functional_call` puts them where the module keeps those for checkpoints. If it is given what is
        stored as well, as of a whole `state_dict`, that counts.

        Raises:
            ValueError: if they have another shape, or one is invalid and can be looked at.
        """
        if name not in self._reads.own:
            return None
        stored, values = self._reads.own[name]
        given = self._buffers[name]
        if given is None or given is values or self._constraints(name).original is not stored:
            return None
        if given.shape != values.shape:
            raise ValueError(f"{name}: expected values of shape {tuple(values.shape)}, got {tuple(given.shape)}")
        if can_be_looked_at(given):
            check_value(self.about(name), given, self.dt)
        return given

    def _computed(self, name: str) -> torch.Tensor:
        """Return the values that the neurons use, which without gradient are computed only if they have changed.

        What is stored is compared number by number, so that no change of it is missed. Nobody may change the values.
        """
        if torch.is_grad_enabled() or (constraints := self._constraints(name)) is None:
            return self._in_use(name)
        (constraint, *further), stored = constraints, constraints.original
        if further or not getattr(constraint, "is_pure", False) or not (can_be_looked_at(stored) and stored.is_cpu):
            return self._in_use(name)
        if (given := self._given(name)) is not None:
            return given
        known, before, values = self._reads.kept.get(name, (None, stored, stored))
        if known is not constraint or before.dtype != stored.dtype or not torch.equal(before, stored):
            values = self._in_use(name)
            self._reads.kept[name] = constraint, stored.detach().clone(), values
        return values

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> torch.Tensor | nn.Module:
            neuron = self.__dict__.get("neuron")
            if neuron is not None and name in neuron.times:
                return self._noted(name, 1 / self._in_use(neuron.times[name]))
            value = super().__getattr__(name)
            return self._noted(name, value) if neuron is not None and name in neuron.parameters else value

    def _noted(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """Return a value that is read, and note it, so that `check_reads` finds a change in place."""
        if not can_be_looked_at(value) or value.is_inference():
            return value
        if name in self._reads:
            self._check_read(name)
        noted = value.detach()  # with the same memory and version, and without the graph
        # of what is stored a user's own constraint may make no more than a view
        stored = self.raw(self.neuron.times.get(name, name))
        computed = noted.untyped_storage().data_ptr() != stored.untyped_storage().data_ptr()
        self._reads[name] = noted, noted._version, noted.clone(), computed
        return value

    def _forget_reads(self, name: str) -> None:
        """Forget what was read of a parameter that gets new values: a change in place would be overwritten as well."""
        for read in (name, *(time for time, rate in self.neuron.times.items() if rate == name)):
            self._reads.pop(read, None)

    def check_reads(self, wait: bool = False) -> None:
        """Check that no value was changed in place since it was read, if that change would be lost or is invalid.

        It is not noticed if a value was read again before it was changed, and the tensor of before is changed; if it
        came from `values()`, or was read in compiled code, in inference mode or in a transform of `torch.func`; and if
        the module is pickled before it is used. A change by way of `.data` or NumPy, which PyTorch does not count, is
        noticed by the first check after the value was read, and of a fixed value never.

        Args:
            wait: whether to look for those on a GPU as well, for which the host waits, as for a checkpoint.

        Raises:
            RuntimeError: if a value was changed that is computed whenever it is read; once.
            ValueError: if a fixed value was changed to one that is invalid.
        """
        for name in list(self._reads):
            self._check_read(name, wait)

    def _check_read(self, name: str, wait: bool = False) -> None:
        value, version, copied, computed = self._reads[name]
        changed = value._version != version
        if computed and copied is not None and (wait or value.is_cpu):
            same = torch.equal(value, copied) or torch.equal(value.nan_to_num(), copied.nan_to_num())
            changed, copied = changed or not same, None
        if changed and computed:
            del self._reads[name]
            raise RuntimeError(
                f"{name}: expected an assignment, as in p.{name} = values, got a change in place of what p.{name} "
                "returned, which is computed anew whenever it is read: the change was lost, and the neurons have the "
                "values of before. For numbers of your own call .clone() first"
            )
        if changed:
            if name in self._buffers and self.constraint(name) is None:
                check_value(self.about(name), value, self.dt)
            copied = value.clone()
        self._reads[name] = value, value._version, copied, computed

    def about(self, name: str) -> Parameter:
        """Return what the neuron says of a parameter, as it was declared."""
        parameter = self.neuron.parameters[name]
        return parameter.of_time() if name in self.in_seconds else parameter

    def _get_name(self) -> str:
        return self.declaration

    def __repr__(self) -> str:
        lines = self.extra_repr().replace("\n", "\n  ")
        return f"{self._get_name()}(\n  {lines}\n)"

    def extra_repr(self) -> str:
        """Show each parameter as it was declared: a value, or median and range, whether it is learned, and how."""
        lines = []
        for name in self.neuron_fields:
            value, parameter = self._in_use(name), self.neuron.parameters[name]
            shown, unit, flat = name, parameter.unit, value.detach().flatten()
            if name in self.in_seconds:
                shown, unit, flat = parameter.time, "s", 1 / flat
            if value.is_meta:
                text = f"shape {tuple(value.shape)}"
            elif value.dim() == 0:
                text = f"{flat.item():g}"
            else:
                low, high = flat.min().item(), flat.max().item()
                text = f"{flat.numel()} values, median {flat.median().item():.4g}, {low:.4g} to {high:.4g}"
            stored = self.raw(name)
            kind = "learned" if stored.requires_grad else "fixed"
            if isinstance(stored, nn.Parameter) and not stored.requires_grad:
                kind = "learned, frozen"
            if isinstance(stored, nn.Parameter) and not value.dim():
                kind += ", shared"
            if (constraint := self.constraint(name)) is not None:
                kind += f", {constraint!r}"
            lines.append(f"{shown}={text}{' ' if unit else ''}{unit} ({kind})")
        return "\n".join(lines)
