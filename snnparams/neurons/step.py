"""The check that the step of a neuron does nothing but what `snnparams.neurons.neuron.Neuron` allows."""

from __future__ import annotations

import dis
import hashlib
import inspect
import itertools
import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

FUNCTIONS = ("spike", "reset", "where")
INPUT = "x"
BRANCHES = ("JUMP", "FOR_ITER", "SEND")  # in names of instructions
ALLOWED = "expected + - * / of arguments and numbers, spike(v, v_th), reset(z) and where(z, a, b)"


class Refused(TypeError):
    """Something that a step must not do, by name."""


class Expression:
    """What a step computes: the operation that made it, and of what.

    Args:
        operation: one of + - * / neg, of `FUNCTIONS`, or `argument`.
        operands: expressions and numbers; for `argument`, its name.
    """

    def __init__(self, operation: str, *operands) -> None:
        if operation == "/" and not isinstance(operands[1], Expression) and operands[1] == 0:
            raise Refused("a division by 0")
        self.operation, self.operands = operation, operands
        self.uses: frozenset[str] = frozenset(operands) if operation == "argument" else _uses(*operands)
        if operation in FUNCTIONS:
            self.uses |= {operation}

    @property
    def is_spike(self) -> bool:
        """Whether it is a spike, or that as the reset sees it."""
        return self.operation in ("spike", "reset")

    @property
    def root(self) -> Expression:
        """What it is another name of: of a spike that resets, the spike."""
        return self.operands[0].root if self.operation == "reset" else self

    def __getattr__(self, name: str) -> Any:
        raise Refused(name)

    @classmethod
    def __torch_function__(cls, function, kinds, values=(), named=None) -> Any:
        raise Refused(getattr(function, "__name__", str(function)))


def _uses(*values) -> frozenset[str]:
    """Return the arguments from which all values were computed."""
    for value in values:
        if inspect.isfunction(value):
            raise Refused(f"the function {value.__name__} itself")
        if not isinstance(value, (Expression, int, float)) or isinstance(value, bool):
            raise Refused(f"{type(value).__name__} {value!r}")
        if not isinstance(value, Expression) and not abs(value) <= sys.float_info.max:
            raise Refused("a number that is not finite")
    return frozenset[str]().union(*(value.uses for value in values if isinstance(value, Expression)))


def _refuse(what: str) -> Callable:
    def refuse(*_) -> NoReturn:
        raise Refused(what)

    return refuse


def _divided(b: Expression, a) -> Expression:
    """Return a / b of a number a as PyTorch computes it."""
    kind = type(b)
    return kind("*", kind("/", 1.0, b), a)


def _operator(operation: str) -> Callable:
    return lambda *values: type(values[0])(operation, *values)


def _reflected(operation: str) -> Callable:
    return lambda b, a: type(b)(operation, a, b)


for _name, _operation in (("add", "+"), ("sub", "-"), ("mul", "*"), ("truediv", "/")):
    setattr(Expression, f"__{_name}__", _operator(_operation))
    setattr(Expression, f"__r{_name}__", _reflected(_operation))
setattr(Expression, "__neg__", _operator("neg"))  # noqa: B010
setattr(Expression, "__rtruediv__", _divided)  # noqa: B010
for _name, _what in (
    *(("pow", "**"), ("rpow", "**"), ("floordiv", "//"), ("mod", "%"), ("matmul", "@"), ("abs", "abs"), ("pos", "+")),
    *(("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">="), ("eq", "=="), ("ne", "!="), ("bool", "a branch")),
    *(("getitem", "[]"), ("iter", "a loop"), ("len", "len"), ("float", "float"), ("and", "&"), ("or", "|")),
    *(("invert", "~"), ("format", "a text")),
):
    setattr(Expression, f"__{_name}__", _refuse(_what))


def spike(v, v_th) -> Expression:
    """Return the expression of a spike; a step that gives it too few arguments is told so under this name."""
    return Expression("spike", v, v_th)


def _check_spike(function: str, z) -> None:
    if not (isinstance(z, Expression) and z.is_spike):
        raise Refused(f"{function} of something that is no spike")


def reset(z) -> Expression:
    """Return the expression of a spike as the reset sees it."""
    _check_spike("reset", z)
    return Expression("reset", z)


def where(z, a, b) -> Expression:
    """Return the expression of a choice by a spike."""
    _check_spike("where", z)
    return Expression("where", z, a, b)


class Statement(NamedTuple):
    """One operation: `name = operation(*operands)`, where an operand is the name of another value or a number."""

    name: str
    operation: str
    operands: tuple[str | float, ...]


class Program(NamedTuple):
    """A step as a list of operations, in the order in which Python does them: what kernels are made from.

    Args:
        state: names of the variables.
        receives: the one to which the input current is added before the step, or `INPUT`.
        arguments: names of what the step takes; functions are operations instead.
        statements: each name is given once, after those of its operands.
        returned: names of what it returns, the output first.
    """

    state: tuple[str, ...]
    receives: str
    arguments: tuple[str, ...]
    statements: tuple[Statement, ...]
    returned: tuple[str | float, ...]

    @property
    def kept(self) -> tuple[str, ...]:
        """What a step starts from: the variables, and the input current if none of them receives it."""
        return self.state if self.receives in self.state else (*self.state, INPUT)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The other arguments, of which there is one value per neuron for all steps."""
        return tuple(name for name in self.arguments if name not in self.kept)

    @property
    def spikes(self) -> bool:
        """Whether the output is a spike, not something computed from one."""
        operations = {statement.name: statement.operation for statement in self.statements}
        return operations.get(str(self.returned[0])) in ("spike", "reset")


PROGRAMS: dict[str, Program] = {}  # by a name that an operator of PyTorch can take: classes are no arguments of those


def registered(program: Program) -> str:
    """Return a name under which `PROGRAMS` has a program from now on; equal programs have one name."""
    name = hashlib.sha256(repr(program).encode()).hexdigest()[:16]
    PROGRAMS[name] = program
    return name


def another_name(prefix: str, taken) -> str:
    """Return a name that begins like this and is not taken."""
    return next(name for n in itertools.count(1) if (name := f"{prefix}{n}") not in taken)


def program_of(found, arguments: tuple[str, ...], state: tuple[str, ...] = (), receives: str = "") -> Program:
    """Return what a step has computed as a program; what is the same twice is computed once.

    Args:
        found: what it returns, expressions or numbers.
        arguments: names of what it takes.
        state: names of the variables.
        receives: the one that receives the input current, if any.
    """
    names: dict[str, str] = {}
    statements: list[Statement] = []

    def name_of(value) -> str | float:
        if not isinstance(value, Expression):
            return float(value)
        if value.operation == "argument":
            return value.operands[0]
        operands = tuple(name_of(operand) for operand in value.operands)
        key = repr((value.operation, operands))
        if key not in names:
            names[key] = another_name("s", {*arguments, *names.values()})
            statements.append(Statement(names[key], value.operation, operands))
        return names[key]

    returned = tuple(name_of(value) for value in found)
    taken = tuple(name for name in arguments if name not in FUNCTIONS)
    return Program(state, receives or INPUT, taken, tuple(statements), returned)


def _check_code(code: types.CodeType) -> None:
    """Refuse names of the outside, functions within, branches and loops."""
    if outside := [*code.co_names, *code.co_freevars]:
        raise Refused(".".join(outside))
    if any(isinstance(value, types.CodeType) for value in code.co_consts):
        raise Refused("a function within")
    if any(part in instruction.opname for instruction in dis.get_instructions(code) for part in BRANCHES):
        raise Refused("a branch or a loop")


def traced(step: Callable, arguments: tuple[str, ...]) -> tuple[list[Expression], tuple[int, ...]]:
    """Return what a step returns, as expressions of its arguments, and which are a tensor that is there already.

    Raises:
        TypeError: if it does more than a step may do; the message names that.
    """
    functions: dict[str, Any] = {"spike": spike, "reset": reset, "where": where}
    given = [functions.get(name) or Expression("argument", name) for name in arguments]
    try:
        _check_code(step.__code__)
        found = step(*given)
        for value in found if isinstance(found, tuple) else ():
            if not isinstance(value, Expression):
                _uses(value)
                raise Refused(f"the number {value!r} in place of an expression")
    except Refused as error:
        raise TypeError(f"step: {ALLOWED}, got {error}") from None
    except TypeError as error:  # of Python itself: a function of the step is called with too few, say
        raise TypeError(f"step: {error}") from error
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
