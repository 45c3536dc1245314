"""What makes the definition of a neuron right: its names, its parameters, its constants, and what its step returns."""

from __future__ import annotations

import keyword
import math
import types
from typing import TYPE_CHECKING, Any, cast

import torch

from snnparams.neurons.step import FUNCTIONS, INPUT, names_of, program_of, registered, traced
from snnparams.parameters.declared import CONSTRAINTS, check_value
from snnparams.parameters.settings import is_number

if TYPE_CHECKING:
    from snnparams.neurons.neuron import Neuron
    from snnparams.parameters.parameter import Parameter

SPIKES = "z"  # name of the last step's output in the state of a recurrent population
LIBRARIES = ("math", "numpy", "torch")  # what they offer does not change
RESERVED: set[str] = set()  # what a layer's parameters have besides: its module stands behind this one, and says it
POPULATION = 3  # neurons for which constants are computed, to see whether each has its own


def _computed(kind: type[Neuron], *values) -> dict[str, Any]:
    """Return what `constants` computes.

    Raises:
        TypeError: if it fails, or returns no dictionary.
    """
    try:
        found = cast(Any, kind.constants)(1e-3, *values)
    except Exception as error:  # whatever a function may do wrong
        raise TypeError(
            f"constants: expected values for any parameters, got {type(error).__name__}: {error}"
        ) from error
    if not isinstance(found, dict):
        raise TypeError(f"constants: expected a dictionary, got {type(found).__name__}")
    return found


def _check_constant(name: str, value: Any, alone: Any) -> None:
    """Check one of the constants of a population, and that of its last neuron alone."""
    if not isinstance(value, torch.Tensor):
        if not is_number(value):
            raise TypeError(f"constants: expected {name} to be a tensor or a number, got {type(value).__name__}")
    elif value.shape != (POPULATION,):
        raise TypeError(f"constants: expected {name} to have the shape of the parameters, got another")
    elif value.dtype != torch.float64:
        raise TypeError(f"constants: expected {name} to have the type of the parameters, float64, got {value.dtype}")
    values, own = torch.as_tensor(value).flatten(), torch.as_tensor(alone)
    if not values.isfinite().all():
        got = values[0].item()
        raise TypeError(f"constants: expected {name} to be finite where parameters have their defaults, got {got}")
    if own.numel() != 1 or not torch.allclose(own.flatten(), values[-1:], rtol=1e-9, atol=1e-15):
        raise TypeError(f"constants: expected {name} of a neuron to depend on its own parameters, got one of others")


def _reads_what_may_change(value: Any, within: tuple[Any, ...] = ()) -> bool:
    """Return whether a function reads anything but its arguments, libraries and functions that do not either."""
    if isinstance(value, (types.ModuleType, types.FunctionType, type)):
        name = value.__name__ if isinstance(value, types.ModuleType) else value.__module__
        if name.split(".")[0] in LIBRARIES or value in within:
            return False
    if not isinstance(value, types.FunctionType):  # of those that are written in C, methods of an object may
        return not isinstance(getattr(value, "__self__", None), (types.ModuleType, type))
    if value.__closure__:
        return True
    codes = [value.__code__]
    for code in codes:  # functions within it, too
        codes += [part for part in code.co_consts if isinstance(part, types.CodeType)]
    names = {name for code in codes for name in code.co_names} & value.__globals__.keys()
    return any(_reads_what_may_change(value.__globals__[name], (*within, value)) for name in names)


def _constants_of(kind: type[Neuron]) -> tuple[str, ...]:
    """Return the names of what `constants` computes.

    Raises:
        TypeError: if it takes what there is not, does not use it, fails, or gives what is no value for each neuron.
    """
    if kind.constants is None:
        kind.of_constants, kind.constants_may_change = (), False
        return ()
    taken = names_of(kind.constants, "constants")
    names = taken[1:]
    if taken[:1] != ("dt",) or any(name not in kind.parameters for name in names):
        expected = ", ".join(kind.parameters)
        raise TypeError(f"constants: expected dt and then some of {expected}, got {', '.join(taken) or 'nothing'}")
    with torch.enable_grad():
        defaults = [kind.parameters[name].default for name in names]
        unlike = 1 - 1e-3 * torch.arange(POPULATION, dtype=torch.float64, device="cpu")
        given = [(default * unlike).requires_grad_() for default in defaults]
        found, alone = _computed(kind, *given), _computed(kind, *(x.detach()[-1:] for x in given))
        try:
            kind.constants_of_numbers = bool(kind.constants(1e-3, *defaults))
        except (TypeError, AttributeError, ArithmeticError):
            kind.constants_of_numbers = False
        for name, value in found.items():
            _check_constant(name, value, alone.get(name, math.nan))
        total = sum(value.sum() for value in found.values() if isinstance(value, torch.Tensor) and value.requires_grad)
        used = torch.autograd.grad(total, given, allow_unused=True) if isinstance(total, torch.Tensor) else ()
    if unused := [name for name, gradient in zip(names, used or [None] * len(names), strict=True) if gradient is None]:
        raise TypeError(f"constants: expected some that depend on {unused[0]}, got none")
    kind.of_constants, kind.constants_may_change = names, _reads_what_may_change(kind.constants)
    return tuple(found)


def _check_parameter(parameter: Parameter) -> None:
    """Check the default and the constraint of a parameter."""
    bounds = parameter.default, parameter.low, parameter.high
    if not all(map(is_number, bounds)):
        raise TypeError(f"{parameter.name}: expected numbers as default and bounds, got {bounds}")
    try:
        check_value(parameter, parameter.default)
    except ValueError as error:
        raise TypeError(f"{error} by default") from None
    known = CONSTRAINTS if parameter.per_step else tuple(name for name in CONSTRAINTS if name != "decay")
    if parameter.constraint not in known:
        expected = f"a constraint of {', '.join(known)}"
        raise TypeError(f"{parameter.name}: expected {expected} by default, got {parameter.constraint!r}")
    if parameter.constraint in ("log", "softplus") and not parameter.default >= 0:
        expected = f"a default that is not negative for {parameter.constraint!r}"
        raise TypeError(f"{parameter.name}: expected {expected}, got {parameter.default:g}")


def _check_names(kind: type[Neuron], base: type[Neuron], constants: tuple[str, ...]) -> None:
    """Check that every name is one, and stands for one thing."""
    if not isinstance(kind.state, tuple) or not kind.state:
        raise TypeError(f"state: expected a tuple of names, such as ('v', 'i') or ('v',), got {kind.state!r}")
    if not kind.parameters:
        raise TypeError("expected at least one parameter, declared by rate(default) or voltage(default), got none")
    times = [parameter.time for parameter in kind.parameters.values() if parameter.time]
    own = [*kind.parameters, *times]
    names = [*kind.state, *own, *constants]
    taken = {INPUT, SPIKES, "dt", "method", "alpha", *FUNCTIONS, *vars(base), *base.__annotations__}
    for name in names:
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
            raise TypeError(f"{name!r}: expected a name that Python takes and that does not begin with _")
        if names.count(name) > 1 or name in taken or (name in own and name in RESERVED):
            raise TypeError(f"{name}: expected a name of its own, got one that something else has")
    if not isinstance(kind.rest, dict):
        raise TypeError(f"rest: expected a dictionary, got {type(kind.rest).__name__}")
    for name in [kind.receives or kind.state[0], *kind.rest]:
        if name not in kind.state:
            raise TypeError(f"{name}: expected a variable of the state, one of {', '.join(kind.state)}")
    for name in kind.rest.values():
        if name not in kind.parameters:
            raise TypeError(f"rest: expected one of {', '.join(kind.parameters)}, got {name}")


def check_definition(kind: type[Neuron], base: type[Neuron]) -> None:
    """Check what a class says of its neuron, and let it know what it takes.

    Args:
        kind: the class.
        base: that of all neurons.

    Raises:
        TypeError: if a name stands for two things or for nothing, a default is not valid, or `constants` or `step` are
            not what can be computed.
    """
    for parameter in kind.parameters.values():
        _check_parameter(parameter)
    constants = _constants_of(kind)
    _check_names(kind, base, constants)
    kind.arguments = names_of(cast(Any, getattr(kind, "step", None)), "step")
    needed = (*kind.state, *(name for name in kind.parameters if name not in kind.of_constants), *constants)
    needed = needed if kind.receives else (INPUT, *needed)
    known = (*needed, *kind.of_constants, *FUNCTIONS)
    for name in kind.arguments:
        if name not in known:
            raise TypeError(f"step: unknown argument {name}; expected some of {', '.join(known)}")
    returned, kind.shared = traced(kind.step, kind.arguments)
    if len(returned) != 1 + len(kind.state):
        expected = f"the output and then {', '.join(kind.state)}"
        raise TypeError(f"step: expected it to return {expected}, got {len(returned)} values")
    for name, value in zip(("the output", *kind.state), returned, strict=True):
        if not value.uses & {INPUT, *kind.state}:
            raise TypeError(f"step: expected {name} to depend on the state or x, got another shape than theirs")
    used = frozenset[str]().union(*(value.uses for value in returned))
    for name in (*needed, *kind.arguments):
        if name not in used:
            raise TypeError(f"step: expected what it returns to depend on {name}, got a step that does not use it")
    kind.spiking = "spike" in kind.arguments
    kind.program = registered(program_of(returned, kind.arguments, kind.state, kind.receives))
