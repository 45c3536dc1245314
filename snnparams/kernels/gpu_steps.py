"""One step of any neuron as functions for Triton, forward and back, printed from its list of operations.

`snnparams.kernels.derive` says what is computed, statement by statement; each becomes one line. Forward every operation
is rounded by itself, as PyTorch does: constants have the type of the neurons, division is that of IEEE 754, and the
launch forbids fused multiply-add. The backward pass computes the step again, so all that holds there as well: a voltage
that is rounded in another way might pass the threshold in the one and not in the other.

Triton compiles source text, so the text is kept where Python looks for that of a function, under a name in angle
brackets, and no file is written. The loops around a step are in `snnparams.kernels.gpu_any_neuron`.
"""

from __future__ import annotations

import functools
import hashlib
import linecache
import math
from collections.abc import Callable, Iterable
from typing import Any

import triton
import triton.language as tl

from snnparams.kernels import derive
from snnparams.neurons import spike_programs
from snnparams.neurons.step import PROGRAMS, Program, Statement

OPERATIONS = {"+": "{} + {}", "-": "{} - {}", "*": "{} * {}", "/": "divide({}, {})", "neg": "-{}", "reset": "{}"}
OPERATIONS |= {"where": "tl.where({} > 0.5, {}, {})", "spike": "fire({}, {}, ALPHA)"}
OPERATIONS |= {"surrogate": "{} * slope({} - {}, ALPHA)"}
OPERATIONS |= {"exp": "tl.exp({})", "tanh": "tanh({})", "sqrt": "tl.sqrt({})", "abs": "tl.abs({})", "relu": "relu({})"}


@triton.jit
def divide(a, b):
    """Return a / b, rounded to the nearest; `/` of float32 is less exact on a GPU."""
    if a.dtype == tl.float32:
        return tl.div_rn(a, b)
    else:
        return a / b


@triton.jit
def tanh(x):
    """Return the hyperbolic tangent."""
    s = tl.exp(-2 * tl.abs(x))
    return tl.where(x < 0, s - 1, 1 - s) / (1 + s)


@triton.jit
def relu(x):
    """Return x where it is positive, else 0; NaN stays NaN."""
    return tl.where(x <= 0, 0.0, x)


@triton.jit
def fire(v, v_th, ALPHA: tl.constexpr):
    """Return the spikes of voltages; a graded spike function stands in its place."""
    return (v > v_th).to(v.dtype)


NAMES = {"tl": tl, "triton": triton, "divide": divide, "tanh": tanh, "relu": relu, "fire": fire, "__name__": __name__}


def _value(operand: str | float, shape: str = "()") -> str:
    """Return the code of an operand. Names of a step begin with no `_`: behind one they hide nothing."""
    if isinstance(operand, str):
        return f"_{operand}"
    number = repr(operand) if math.isfinite(operand) else f"float('{operand}')"
    return f"tl.full({shape}, {number}, kind)"


def _lines(statements: Iterable[Statement]) -> list[str]:
    """Return a line for each statement."""
    return [
        f"_{name} = {OPERATIONS[operation].format(*map(_value, operands))}" for name, operation, operands in statements
    ]


def _unpacked(names: tuple[str, ...], values: str) -> list[str]:
    return [f"({''.join(f'_{name}, ' for name in names)}) = {values}"] if names else []


def _packed(values: tuple[str | float, ...], shape: str) -> str:
    """Return the code of a tuple; a number is that of each neuron."""
    return f"({''.join(f'{_value(value, shape)}, ' for value in values)})"


def _function(head: str, lines: list[str], returned: str) -> str:
    return "\n    ".join([f"@triton.jit\ndef {head}:", *lines, f"return {returned}"]) + "\n"


def _of_distance(name: str, program: Program) -> str:
    """Return a function of the distance to the threshold."""
    lines = ["kind: tl.constexpr = _x.dtype", "_alpha = tl.full((), ALPHA, kind)", *_lines(program.statements)]
    return _function(f"{name}(_x, ALPHA: tl.constexpr)", lines, f"{_value(program.returned[0])} + tl.zeros_like(_x)")


def _fire(method: str) -> list[str]:
    """Return the spike function, if it is graded."""
    if not spike_programs.is_graded(method):
        return []
    fire = _function("fire(v, v_th, ALPHA: tl.constexpr)", [], "height(v - v_th, ALPHA)")
    return [_of_distance("height", spike_programs.value_of(method)), fire]


def _read(functions: list[str], name: str) -> Callable:
    """Return one of the functions; Triton and its interpreter find its text as that of any other."""
    text = "\n\n".join(functions)
    place = f"<snnparams step {hashlib.sha256(text.encode()).hexdigest()[:16]}>"
    linecache.cache[place] = (len(text), None, text.splitlines(keepends=True), place)
    space: dict[str, Any] = dict(NAMES)
    exec(compile(text, place, "exec"), space)
    return space[name]


@functools.cache
def forward(name: str, method: str) -> Callable:
    """Return a step for Triton.

    It takes the input current, the state, constants and parameters, and alpha. It returns the output, the new state,
    and what the step starts from, see `Program.kept`; several values are a tuple.

    Args:
        name: of the program.
        method: spike function.
    """
    program = PROGRAMS[name]
    before = f"_{program.receives} + " if program.receives in program.state else ""
    lines = [
        "kind: tl.constexpr = current.dtype",
        *_unpacked(program.state, "state"),
        *_unpacked(program.parameters, "p"),
        f"_{program.receives} = {before}current",
        f"kept = {_packed(program.kept, '()')}",
        *_lines(program.statements),
    ]
    output, *state = program.returned
    returned = f"{_value(output)}, {_packed(tuple(state), 'current.shape')}, kept"
    head = "forward(current, state, p, ALPHA: tl.constexpr)"
    return _read([*_fire(method), _function(head, lines, returned)], "forward")


@functools.cache
def backward(name: str, method: str, detach_reset: bool) -> Callable:
    """Return the derivative of a step for Triton.

    It takes the gradients by the output and by the state after the step, what the step started from, constants and
    parameters, and alpha. It returns the gradients by the input current, by the state before the step, and by
    constants and parameters, and the output of the step; several values are a tuple.

    Args:
        name: of the program.
        method: spike function.
        detach_reset: whether no gradient passes the spike in the reset.
    """
    step = PROGRAMS[name]
    program = derive.backward(step, detach_reset, method == "heaviside")
    of_output, *of_state = program.arguments[len(step.arguments) :]
    lines = [
        "kind: tl.constexpr = gradient.dtype",
        f"_{of_output} = gradient",
        *_unpacked(tuple(of_state), "gradients"),
        *_unpacked(step.kept, "kept"),
        *_unpacked(step.parameters, "p"),
        *_lines(step.statements),
        *_lines(statement for statement in program.statements if statement not in step.statements),
    ]
    shape, found = "gradient.shape", program.returned
    returned = (
        _value(found[step.kept.index(step.receives)], shape),
        _packed(found[: len(step.state)], shape),
        _packed(found[len(step.kept) :], shape),
        _value(step.returned[0]),
    )
    slope = _of_distance("slope", spike_programs.derivative_of(method))
    head = "backward(gradient, gradients, kept, p, ALPHA: tl.constexpr)"
    return _read([*_fire(method), slope, _function(head, lines, ", ".join(returned))], "backward")
