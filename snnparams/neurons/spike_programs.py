"""Spike functions and their derivatives as lists of operations, from their one definition as surrogates."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any, cast

from snnparams.neurons.step import PROGRAMS, Expression, Program, Refused, program_of, registered
from snnparams.neurons.surrogate import DERIVATIVES

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
        product: Any = functools.reduce(operator.mul, factors, cast(Any, 1.0))
        return product if exponent >= 0 else 1.0 / product


def _operation(name: str) -> Callable:
    return lambda x: _Smooth(name, x)


FUNCTIONS: dict[str, Callable] = {name: _operation(name) for name in ("exp", "tanh", "sqrt", "abs", "relu")}
FUNCTIONS["sigmoid"] = lambda x: 1.0 / (1.0 + cast(Any, _Smooth("exp", -x)))
FUNCTIONS["square"] = lambda x: x * x
FUNCTIONS["zeros_like"] = lambda x: 0.0
FUNCTIONS["ones_like"] = lambda x: 1.0


def _program(function: Callable) -> Program:
    return program_of([function(*(_Smooth("argument", name) for name in ("x", "alpha")))], ("x", "alpha"))


_named_program = functools.cache(_program)  # of the functions of this package alone: a user's may change


def code_of(derivative: Callable, value: Callable | None) -> tuple[str, str]:
    """Return the name of a spike function of the user's own for the fused kernels, and why they cannot compute it.

    Functions of equal arithmetic have one name. One of the two results is empty.
    """
    names = []
    for function in (derivative, value):
        try:
            names.append("" if function is None else registered(_program(function)))
        except Exception as error:  # whatever a function does with what it does not expect
            got = str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
            return "", f"expected a spike function made of {ALLOWED}, got {got}"
    return " ".join(names), ""


def _own(code: str) -> tuple[str, str]:
    derivative, _, value = code.partition(" ")
    return derivative, value


def is_graded(code: str) -> bool:
    """Return whether spikes may be other numbers than 0 and 1."""
    return code == "sigmoid" if code in DERIVATIVES else bool(_own(code)[1])


def value_of(code: str) -> Program:
    """Return the spikes of a graded spike function, by x = v - v_th and alpha."""
    return _named_program(_sigmoid) if code in DERIVATIVES else PROGRAMS[_own(code)[1]]


def derivative_of(code: str) -> Program:
    """Return the derivative of a spike function, by x = v - v_th and alpha."""
    return _named_program(DERIVATIVES[code]) if code in DERIVATIVES else PROGRAMS[_own(code)[0]]


def _sigmoid(x: Any, alpha: Any) -> Any:
    return FUNCTIONS["sigmoid"](alpha * x)
