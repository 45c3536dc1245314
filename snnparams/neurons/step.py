"""The check that the step of a neuron does nothing but what `snnparams.neurons.neuron.Neuron` allows."""

from __future__ import annotations

import dis
import inspect
import types
from collections.abc import Callable
from typing import Any, NoReturn

FUNCTIONS = ("spike", "reset", "where")
INPUT = "x"
BRANCHES = ("JUMP", "FOR_ITER", "SEND")  # in names of instructions
ALLOWED = "expected + - * / of arguments and numbers, spike(v, v_th), reset(z) and where(z, a, b)"


class _Refused(TypeError):
    """Something that a step must not do, by name."""


class Expression:
    """What a step computes: it remembers the arguments that it depends on, and whether it is a spike.

    `root` is what it is another name of: of a spike that resets, the spike.
    """

    def __init__(self, uses: frozenset[str], is_spike: bool = False, root: Expression | None = None) -> None:
        self.uses, self.is_spike, self.root = uses, is_spike, self if root is None else root

    def __getattr__(self, name: str) -> NoReturn:
        raise _Refused(name)

    @classmethod
    def __torch_function__(cls, function, kinds, values=(), named=None) -> NoReturn:
        raise _Refused(getattr(function, "__name__", str(function)))


def _uses(*values) -> frozenset[str]:
    """Return the arguments from which all values were computed."""
    for value in values:
        if not isinstance(value, (Expression, int, float)) or isinstance(value, bool):
            raise _Refused(f"{type(value).__name__} {value!r}")
    return frozenset[str]().union(*(value.uses for value in values if isinstance(value, Expression)))


def _refuse(what: str) -> Callable:
    def refuse(*_) -> NoReturn:
        raise _Refused(what)

    return refuse


for _name in ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "neg"):
    setattr(Expression, f"__{_name}__", lambda *values: Expression(_uses(*values)))
for _name, _what in (
    *(("pow", "**"), ("rpow", "**"), ("floordiv", "//"), ("mod", "%"), ("matmul", "@"), ("abs", "abs"), ("pos", "+")),
    *(("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">="), ("eq", "=="), ("ne", "!="), ("bool", "a branch")),
    *(("getitem", "[]"), ("iter", "a loop"), ("len", "len"), ("float", "float"), ("and", "&"), ("or", "|")),
):
    setattr(Expression, f"__{_name}__", _refuse(_what))


def _spike(v, v_th) -> Expression:
    return Expression(_uses(v, v_th) | {"spike"}, is_spike=True)


def _check_spike(function: str, z) -> None:
    if not (isinstance(z, Expression) and z.is_spike):
        raise _Refused(f"{function} of something that is no spike")


def _reset(z) -> Expression:
    _check_spike("reset", z)
    return Expression(z.uses | {"reset"}, is_spike=True, root=z.root)


def _where(z, a, b) -> Expression:
    _check_spike("where", z)
    return Expression(_uses(z, a, b) | {"where"})


def _check_code(code: types.CodeType) -> None:
    """Refuse names of the outside, functions within, branches and loops."""
    if outside := [*code.co_names, *code.co_freevars]:
        raise _Refused(".".join(outside))
    if any(isinstance(value, types.CodeType) for value in code.co_consts):
        raise _Refused("a function within")
    if any(part in instruction.opname for instruction in dis.get_instructions(code) for part in BRANCHES):
        raise _Refused("a branch or a loop")


def traced(step: Callable, arguments: tuple[str, ...]) -> tuple[list[Expression], tuple[int, ...]]:
    """Return what a step returns, as expressions of its arguments, and which are a tensor that is there already.

    Raises:
        TypeError: if it does more than a step may do; the message names that.
    """
    functions: dict[str, Any] = {"spike": _spike, "reset": _reset, "where": _where}
    given = [functions.get(name, Expression(frozenset([name]))) for name in arguments]
    try:
        _check_code(step.__code__)
        found = step(*given)
        for value in found if isinstance(found, tuple) else ():
            if not isinstance(value, Expression):
                _uses(value)
                raise _Refused(f"the number {value!r} in place of an expression")
    except _Refused as error:
        raise TypeError(f"step: {ALLOWED}, got {error}") from None
    if not isinstance(found, tuple):
        raise TypeError(f"step: expected it to return a tuple, the output and then the state, got {type(found)}")
    roots, shared = list(given), []
    for k, value in enumerate(found):
        if any(value.root is other for other in roots):
            shared.append(k)
        roots.append(value.root)
    return list(found), tuple(shared)


def names_of(function: Callable, what: str) -> tuple[str, ...]:
    """Return the names of the arguments of a function.

    Raises:
        TypeError: if it is no function of Python's own, or some arguments have no name or a default.
    """
    if not isinstance(function, types.FunctionType):
        raise TypeError(f"{what}: expected a function, got {type(function).__name__}")
    parameters = inspect.signature(function).parameters.values()
    for parameter in parameters:
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD or parameter.default is not parameter.empty:
            raise TypeError(f"{what}: expected plain arguments without defaults, got {parameter}")
    return tuple(parameter.name for parameter in parameters)
