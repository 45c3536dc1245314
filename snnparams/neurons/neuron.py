"""A neuron is a class: its state, its parameters, and one step. An object of it declares their values.

A declaration says of each parameter what its value or distribution is, whether it is learned, and how it stays valid. A
cell or layer turns it into a `snnparams.NeuronParameters` of its own. Explained in chapters 2, 3 and 5.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections import namedtuple
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.distributions import Distribution
from typing_extensions import dataclass_transform

from snnparams.neurons.definition import SPIKES, check_definition
from snnparams.neurons.surrogate import Adjoint, Gradient, check_alpha, named
from snnparams.parameters.declared import Declared, check_declared, of_times, plain, shown
from snnparams.parameters.parameter import Parameter, rate, voltage

Value = float | np.ndarray | torch.Tensor | nn.Parameter | Distribution | Declared
"""What a neuron parameter may be given as. A number, a tensor, an array and a distribution are fixed, an `nn.Parameter`
is learned, `Learned` and `Fixed` say it themselves."""


@dataclass_transform(eq_default=False, frozen_default=True, field_specifiers=(rate, voltage, dataclasses.field))
class Neuron:
    r"""The base class of all neurons; an object of such a class declares the values of a cell or layer.

    For instance the leaky integrator::

        class LeakyIntegrator(Neuron):
            state = ("v", "i")
            rest = {"v": "v_leak"}
            receives = "i"
            tau_syn_inv = rate(200.0, time="tau_syn")
            tau_mem_inv = rate(100.0, time="tau_mem")
            v_leak = voltage(0.0)

            def constants(dt, tau_mem_inv, tau_syn_inv):
                return {"a": dt * tau_mem_inv, "b": dt * tau_syn_inv}

            def step(v, i, a, b, v_leak):
                v = v + a * ((v_leak - v) + i)
                return v, v, i - b * i

        layer = Layer(LeakyIntegrator(tau_mem=Learned(20e-3)), size=100)

    `step` takes what it needs by name: variables of the state, parameters, constants, the input current `x`, and three
    functions. It returns the output and the new state. What computes a whole sequence at once is derived from it, so it
    is plain arithmetic, `+ - * /` of these and of numbers, and nothing else:

    =================== ====================================================================================
    `spike(v, v_th)`    1 where v is above v_th, else 0; its derivative is a surrogate's
    `reset(z)`          the spike as the reset sees it: z, or with `detach_reset` a constant that is equal
    `where(z, a, b)`    a where there is a spike z, else b; no gradient passes by z
    =================== ====================================================================================

    Attributes:
        state: names of the variables.
        rest: the parameter at which a variable starts; the others start at zero.
        receives: the variable to which the input current is added before the step, first what comes from outside and
            then what recurrent weights bring. Without one, `step` takes the sum of both as `x`.
        constants: a function of the time step `dt` in s and of parameters, by name, that returns a dictionary of what
            `step` takes in their place; PyTorch computes it once per call, and not again where it reads these alone
            and no gradient is asked for. None if there are none.

    Raises:
        TypeError: when the class is made, if `step` does more than it may, forgets a part of the state, does not use a
            parameter, or takes what there is not; if `constants` fails, or gives what is no finite value for each
            neuron; if a default is not valid; when an object is made, as `LIFParameters` does.
    """

    state: ClassVar[tuple[str, ...]] = ()
    rest: ClassVar[dict[str, str]] = {}
    receives: ClassVar[str] = ""
    constants: ClassVar[Callable[..., dict[str, Any]] | None] = None
    step: ClassVar[Callable[..., tuple]]

    # what the class finds out about itself
    parameters: ClassVar[dict[str, Parameter]] = {}
    neuron_fields: ClassVar[tuple[str, ...]] = ()  # the names of the parameters
    times: ClassVar[dict[str, str]] = {}  # names of time constants, and the parameters whose inverse they are
    spiking: ClassVar[bool] = False
    has_adjoint: ClassVar[bool] = False  # whether `snnparams.kernels.adjoint`, which is derived for LIF, computes it
    arguments: ClassVar[tuple[str, ...]]  # of step
    of_constants: ClassVar[tuple[str, ...]] = ()  # parameters that `constants` takes
    constants_of_numbers: ClassVar[bool] = True  # whether it takes numbers as well as tensors: one with exp does not
    constants_may_change: ClassVar[bool] = False  # whether it reads anything else, which may change
    program: ClassVar[str]  # step as a list of operations, by its name in `snnparams.neurons.step.PROGRAMS`
    shared: ClassVar[tuple[int, ...]]  # what step returns that is another tensor again, an argument or the output
    State: ClassVar[Any]  # a NamedTuple of the state
    RecurrentState: ClassVar[Any]  # the same, behind the last output
    Values: ClassVar[Any]  # a NamedTuple of the values of all parameters, and of how the gradient is computed
    in_seconds: frozenset[str] = frozenset()  # of an object: the rates that were declared as time constants
    gradient_is_given: bool = False  # likewise whether it says how the gradient is computed
    _keywords: ClassVar[tuple[str, ...]]  # of a declaration: time constants, and the one that another is made of

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        kinds = [base for base in cls.__bases__ if issubclass(base, Neuron)]
        if len(kinds) > 1:
            got = ", ".join(kind.__name__ for kind in kinds)
            raise TypeError(f"{cls.__name__}: expected one neuron that it is made of, got {got}")
        own = {name: value for name, value in vars(cls).items() if isinstance(value, Parameter)}
        before = kinds[0].parameters  # cls.parameters may be one of that name, which is refused below
        for name in before:
            if name in vars(cls) and name not in own:
                expected = "rate(default) or voltage(default) of a parameter"
                raise TypeError(f"{cls.__name__}: {name}: expected {expected}, got {vars(cls)[name]!r}")
        for name, parameter in own.items():
            time = getattr(before.get(name), "time", "")
            if time and not (parameter.per_step and parameter.time in ("", time)):
                expected = f"a rate of the time constant {time}, which it has in {kinds[0].__name__}"
                got = f"one of {parameter.time}" if parameter.per_step else "a voltage"
                raise TypeError(f"{cls.__name__}: {name}: expected {expected}, got {got}")
            own[name] = dataclasses.replace(parameter, name=name, time=parameter.time or time)
        cls.parameters = before | own
        cls.neuron_fields = tuple(cls.parameters)
        cls.times = {parameter.time: name for name, parameter in cls.parameters.items() if parameter.time}
        if "has_adjoint" in vars(cls) and not cls.__module__.startswith("snnparams."):
            expected = "it to be left alone, because the adjoint method is derived for LIF neurons only"
            raise TypeError(f"{cls.__name__}: has_adjoint: expected {expected}, got {cls.has_adjoint!r}")
        if {"step", "constants", "receives"} & set(vars(cls)) and "has_adjoint" not in vars(cls):
            cls.has_adjoint = False  # that of a class from which this one is derived
        for function in ("step", "constants"):
            if inspect.isfunction(vars(cls).get(function)):
                setattr(cls, function, staticmethod(vars(cls)[function]))
        try:
            check_definition(cls, Neuron)
        except TypeError as error:
            raise TypeError(f"{cls.__name__}: {error}") from error.__cause__
        _make_states(cls)
        _make_declaration(cls)

    def __init__(self, *_, **__) -> None:
        raise TypeError(
            "Neuron: expected an object of a class of neurons, LIFParameters() say, got one of Neuron itself"
        )

    def __post_init__(self, *given) -> None:
        times = dict(zip(self._keywords, given, strict=True))
        source = times.pop("_source")
        before = type(self) if source is None else source
        derived, in_seconds = [], set() if source is None else set(source.in_seconds)
        for time, value in times.items():
            rate = self.times[time]
            by_time, by_rate = (
                given is not getattr(before, name) for name, given in ((time, value), (rate, getattr(self, rate)))
            )
            if by_time and by_rate:
                raise ValueError(f"{time}: expected either it or {rate}, got both")
            if by_time:
                object.__setattr__(self, rate, of_times(time, value, rate))
                in_seconds.add(rate)
            elif by_rate or source is None:
                derived.append(time)
                in_seconds.discard(rate)
            object.__setattr__(self, time, plain(time, value))
        object.__setattr__(self, "in_seconds", frozenset(in_seconds))
        for name, parameter in self.parameters.items():
            object.__setattr__(self, name, check_declared(parameter, getattr(self, name)))
        for time in derived:
            rate = getattr(self, self.times[time])
            learned = isinstance(rate, nn.Parameter) or (isinstance(rate, torch.Tensor) and rate.requires_grad)
            object.__setattr__(self, time, None if learned else of_times(self.times[time], rate))
        if self.spiking:
            self._check_spike_function(source)

    def _check_spike_function(self: Any, source: Any) -> None:
        same = source is not None and self.method is source.method and self.alpha is source.alpha
        is_given = source.gradient_is_given if same else (self.method, self.alpha) != (None, None)
        alpha = None if self.alpha is None else check_alpha(self.alpha)
        for name, value in (("method", self.method or "super"), ("alpha", alpha), ("gradient_is_given", is_given)):
            object.__setattr__(self, name, value)
        check_gradient(type(self), self.gradient)

    def __repr__(self) -> str:
        names = [self.parameters[name].time if name in self.in_seconds else name for name in self.neuron_fields]
        given = [f"{name}={shown(getattr(self, name))}" for name in names]
        if self.spiking and self.gradient_is_given:
            given += [f"{name}={value!r}" for name in ("method", "alpha") if (value := getattr(self, name)) is not None]
        return f"{type(self).__name__}({', '.join(given)})"

    @property
    def gradient(self: Any) -> Gradient | None:
        """What `method` and `alpha`, Norse's spelling, say of how the gradient is computed; None without spikes."""
        return named(self.method, self.alpha) if self.spiking else None


def check_gradient(neuron: type[Neuron], gradient: Gradient | None) -> None:
    """Check that a neuron has the kind of gradient that a cell or layer was told to compute.

    Raises:
        ValueError: if it cannot.
    """
    if gradient is not None and not neuron.spiking:
        raise ValueError(f"gradient: expected None for {neuron.__name__}, which does not spike, got {gradient!r}")
    if isinstance(gradient, Adjoint) and not neuron.has_adjoint:
        raise ValueError(f"gradient=Adjoint(): there is none for {neuron.__name__}; use a Surrogate")


def _make_states(kind: type[Neuron]) -> None:
    """Give a class the named tuples that it does not bring itself; they can be pickled as its attributes."""
    gradient = ("gradient",) if kind.spiking else ()
    for name, fields in (
        ("State", kind.state),
        ("RecurrentState", (SPIKES, *kind.state)),
        ("Values", (*kind.neuron_fields, *gradient)),
    ):
        if getattr(getattr(kind, name, None), "_fields", None) != fields:
            if name in vars(kind):
                got = getattr(vars(kind)[name], "_fields", vars(kind)[name])
                raise TypeError(f"{kind.__name__}.{name}: expected the fields {fields}, got {got}")
            made = namedtuple(kind.__name__ + name, fields, module=kind.__module__)  # type: ignore[misc]
            made.__qualname__ = f"{kind.__qualname__}.{name}"
            setattr(kind, name, made)


def _make_declaration(kind: type[Neuron]) -> None:
    """Make a dataclass of a class: a field for each parameter, and if it spikes for the spike function.

    An unknown name is refused with the known ones, and `dataclasses.replace` works: it gives a new object all fields of
    the old one that are not changed, a time constant and its inverse both. It also gives `_source`, which reads as the
    old object itself; with it a declaration finds out which are changed.
    """
    annotations: dict[str, Any] = dict.fromkeys(kind.neuron_fields, Value)
    for name, parameter in kind.parameters.items():
        setattr(kind, name, parameter.default)
    if kind.spiking:
        annotations |= {"method": str | None, "alpha": float | None}
        kind.method = kind.alpha = None  # type: ignore[attr-defined]
    for name in (*kind.times, "_source"):
        annotations[name] = dataclasses.InitVar[Any]
        setattr(kind, name, dataclasses.field(default=None, kw_only=True))
    kind.__annotations__ = annotations
    dataclasses.dataclass(frozen=True, eq=False, repr=False)(kind)
    build = kind.__init__
    signature = inspect.signature(build)
    kind._keywords = tuple(p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY)
    shown = [parameter for name, parameter in signature.parameters.items() if name != "_source"]
    known = [parameter.name for parameter in shown[1:]]

    @functools.wraps(build)
    def __init__(self, *values, **named) -> None:
        for name in named:
            if name not in known and name != "_source":
                raise TypeError(f"{kind.__name__}: unknown {name}; expected one of {', '.join(known)}")
        build(self, *values, **named)

    __init__.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined]
    kind.__init__ = __init__  # type: ignore[method-assign]
    kind._source = property(lambda self: self)  # type: ignore[attr-defined]


def no_parameters(kind: type, expected: str) -> TypeError:
    """Return the error for an object without neuron parameters; other libraries have classes of the same names."""
    ours = issubclass(kind, Neuron) or kind.__module__ == "builtins"
    got = kind.__name__ if ours else f"{kind.__module__}.{kind.__qualname__}"
    hint = "; snnparams.from_norse converts those of LIF and LI" if got.startswith("norse.") else ""
    return TypeError(f"p: expected {expected}, got {got}{hint}")


def as_given(p, default: type[Neuron]):
    """Return neuron parameters that a function takes as they are, or the defaults for None.

    Raises:
        TypeError: if they are none that it can use, or a declaration holds what only a cell or layer turns into values.
    """
    if p is None:
        return default()
    if not isinstance(p, (Neuron, nn.Module, default.Values)):
        raise no_parameters(type(p), default.__name__)
    kind = getattr(p, "neuron", type(p)) if isinstance(p, (Neuron, nn.Module)) else default
    if missing := set(default.neuron_fields) - set(getattr(kind, "neuron_fields", ())):
        raise no_parameters(kind, f"{default.__name__} or others with {', '.join(sorted(missing))}")
    for name in p.neuron_fields if isinstance(p, Neuron) else ():
        if isinstance(value := getattr(p, name), Declared):
            raise TypeError(
                f"{name}: expected a number or a tensor, because a function uses values as they are, got {value!r}; "
                "build a cell or layer with this declaration and give its .p"
            )
    return p
