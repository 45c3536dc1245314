"""Spike functions and their derivatives as lists of operations, from their one definition in `snnparams.surrogate`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from snnparams.neurons.step import Expression, Program, Refused, program_of
from snnparams.surrogate import DERIVATIVES, GRADED

ALLOWED = "+ - * /, powers that are multiples of a half, and exp, tanh, sigmoid, sqrt, abs and relu of PyTorch"


class _Smooth(Expression):
    """What a spike function computes: arithmetic, and some functions of PyTorch."""

    def __getattr__(self, name: str) -> Any:
        if name not in FUNCTIONS:
            raise Refused(name)
        return functools.partial(FUNCTIONS[name], self)

    @classmethod
    def __torch_function__(cls, function, kinds, values=(), named=None) -> Any:
        name = getattr(function, "__name__", str(function))
        if name not in FUNCTIONS or named:
            raise Refused(name)
        return FUNCTIONS[name](*values)

    def __abs__(self) -> _Smooth:
        return _Smooth("abs", self)

    def __pow__(self, exponent) -> Any:
        if isinstance(exponent, Expression) or 2 * exponent != int(2 * exponent):
            raise Refused("another power")
        halves = int(abs(2 * exponent))
        factors = [self] * (halves // 2) + [_Smooth("sqrt", self)] * (halves % 2)
        product: Any = functools.reduce(lambda a, b: a * b, factors, 1.0)
        return product if exponent >= 0 else 1.0 / product


def _operation(name: str) -> Callable:
    return lambda x: _Smooth(name, x)


FUNCTIONS: dict[str, Callable] = {name: _operation(name) for name in ("exp", "tanh", "sqrt", "abs", "relu")}
FUNCTIONS["sigmoid"] = lambda x: 1.0 / (1.0 + _Smooth("exp", -x))
FUNCTIONS["square"] = lambda x: x * x
FUNCTIONS["zeros_like"] = lambda x: 0.0
FUNCTIONS["ones_like"] = lambda x: 1.0


@functools.cache
def _program(function: Callable) -> Program:
    return program_of([function(*(_Smooth("argument", name) for name in ("x", "alpha")))], ("x", "alpha"))


def refusal(method: str) -> str | None:
    """Say why a spike function cannot be computed by the fused kernels, or None."""
    for function in (DERIVATIVES[method], GRADED.get(method)):
        try:
            if function is not None:
                _program(function)
        except Exception as error:  # whatever a function of the user's does with what it does not expect
            got = str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
            return f"expected a spike function made of {ALLOWED}, got {got}"
    return None


def is_graded(method: str) -> bool:
    """Return whether the spikes of a spike function lie between 0 and 1."""
    return method in GRADED


def value(method: str) -> Program:
    """Return the spikes of a graded spike function, by x = v - v_th and alpha."""
    return _program(GRADED[method])


def derivative(method: str) -> Program:
    """Return the derivative of a spike function, by x = v - v_th and alpha."""
    return _program(DERIVATIVES[method])
