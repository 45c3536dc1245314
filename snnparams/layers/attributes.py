"""What may be assigned to a module after it was built: the same as when it was built, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from torch import nn


class Attributes(nn.Module):
    """A module whose attributes are checked wherever they are assigned, by its constructor as by a user later."""

    # by name of an attribute, what is called with the module and the value, and returns what is kept or raises
    checked: ClassVar[Mapping[str, Callable[[Any, Any], Any]]] = MappingProxyType({})
    as_built: ClassVar[tuple[str, ...]] = ()  # what other attributes follow from, so that it cannot be assigned

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.as_built and (name in self.__dict__ or isinstance(getattr(type(self), name, None), property)):
            raise AttributeError(f"{name}: expected {getattr(self, name)!r} as built, got {value!r}; build a new one")
        weights = self.__dict__.get("_parameters", {}).get(name)
        if weights is not None and isinstance(value, nn.Parameter):
            expected, got = tuple(weights.shape), tuple(value.shape)
            if len(expected) == len(got) > 1 and expected != got:  # a part that PyTorch gives a device has one axis
                raise ValueError(f"{name}: expected weights of shape {expected}, got {got}")
        check = self.checked.get(name)
        super().__setattr__(name, value if check is None else check(self, value))
