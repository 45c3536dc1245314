"""One step of any neuron as machine code, forward and back, for a stretch of neurons at once.

`snnparams.kernels.derive` says what is computed, statement by statement. Each becomes one instruction on a vector
register, for as many neurons as it holds, so that no compiler has to find out whether a loop can be vectorised. Forward
every operation is rounded as PyTorch rounds it; gradients may use fused multiply-add.

A function takes pointers to the first neuron of its stretch, and the distance, in numbers, between variables of the
state or between parameters, each of which lies in one piece. It is called by its address: the loops over time and
rows, in `snnparams.kernels.cpu`, are compiled once for all neurons. Writing one takes some hundredths of a
second.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from llvmlite import ir
from numba.core import cgutils
from numba.core.compiler_lock import global_compiler_lock

from snnparams.kernels import derive
from snnparams.kernels.compiled import machine_code
from snnparams.kernels.vectors import REGISTER, lanes
from snnparams.neurons import spike_programs
from snnparams.neurons.step import PROGRAMS, Program

INTEGER = ir.IntType(64)
KINDS = {torch.float32: ir.FloatType(), torch.float64: ir.DoubleType()}
INSTRUCTIONS: dict[str, Callable] = {"+": ir.IRBuilder.fadd, "-": ir.IRBuilder.fsub, "*": ir.IRBuilder.fmul}
INSTRUCTIONS |= {"/": ir.IRBuilder.fdiv, "neg": ir.IRBuilder.fneg}
OF_LLVM = {"sqrt": "llvm.sqrt", "abs": "llvm.fabs"}


class _Arithmetic:
    """Writes statements for `lanes` neurons at once."""

    def __init__(self, builder: ir.IRBuilder, kind: ir.Type, lanes: int, method: str, alpha: ir.Value) -> None:
        self.builder, self.kind, self.lanes, self.method = builder, kind, lanes, method
        self.type = kind if lanes == 1 else ir.VectorType(kind, lanes)
        self.alpha = self.everywhere(alpha)

    def everywhere(self, value: ir.Value) -> ir.Value:
        """Return a register full of one number."""
        if self.lanes == 1:
            return value
        vector = ir.Constant(self.type, ir.Undefined)
        for lane in range(self.lanes):
            vector = self.builder.insert_element(vector, value, ir.Constant(ir.IntType(32), lane))
        return vector

    def number(self, value: float) -> ir.Constant:
        """Return a register full of one constant, rounded to the type of the neurons."""
        rounded = float(np.float32(value)) if isinstance(self.kind, ir.FloatType) else value
        return ir.Constant(self.type, rounded if self.lanes == 1 else [rounded] * self.lanes)

    def each(self, function: ir.Function, value: ir.Value) -> ir.Value:
        """Call a function of one number for each."""
        if self.lanes == 1:
            return self.builder.call(function, [value])
        for lane in range(self.lanes):
            at = ir.Constant(ir.IntType(32), lane)
            result = self.builder.call(function, [self.builder.extract_element(value, at)])
            value = self.builder.insert_element(value, result, at)
        return value

    def run(self, program: Program, given: dict[str, Any], exact: Callable[[str], bool]) -> list[ir.Value]:
        """Write all statements of a program; return what it returns.

        Args:
            program: what to write.
            given: its arguments.
            exact: says of the name of a statement whether it must be rounded by itself.
        """
        values = dict(given)

        def value(operand: str | float) -> ir.Value:
            return values[operand] if isinstance(operand, str) else self.number(operand)

        for name, operation, operands in program.statements:
            values[name] = self.operation(operation, [value(operand) for operand in operands], exact(name))
        return [value(name) for name in program.returned]

    def operation(self, operation: str, operands: list[ir.Value], exact: bool) -> ir.Value:
        """Write one operation."""
        if operation in INSTRUCTIONS:
            return INSTRUCTIONS[operation](self.builder, *operands, flags=() if exact else ("contract",))
        if operation in OF_LLVM:
            scalar = self.kind.intrinsic_name
            name = f"{OF_LLVM[operation]}.{scalar if self.lanes == 1 else f'v{self.lanes}{scalar}'}"
            return self.builder.call(self._declared(name, self.type), operands)
        return getattr(self, f"_{operation}")(*operands, exact)

    def _declared(self, name: str, kind: ir.Type) -> ir.Function:
        return cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(kind, [kind]), name)

    def _exp(self, x: ir.Value, _) -> ir.Value:
        return self.each(self._declared(f"llvm.exp.{self.kind.intrinsic_name}", self.kind), x)

    def _tanh(self, x: ir.Value, _) -> ir.Value:
        return self.each(self._declared("tanhf" if isinstance(self.kind, ir.FloatType) else "tanh", self.kind), x)

    def _relu(self, x: ir.Value, _) -> ir.Value:
        below = self.builder.fcmp_ordered("<=", x, self.number(0.0))  # NaN stays NaN
        return self.builder.select(below, self.number(0.0), x)

    def _spike(self, v: ir.Value, v_th: ir.Value, exact: bool) -> ir.Value:
        if spike_programs.is_graded(self.method):
            return self._of_distance(spike_programs.value_of(self.method), v, v_th, exact)
        return self.builder.uitofp(self.builder.fcmp_ordered(">", v, v_th), self.type)

    def _surrogate(self, g: ir.Value, v: ir.Value, v_th: ir.Value, exact: bool) -> ir.Value:
        return self.builder.fmul(
            g, self._of_distance(spike_programs.derivative_of(self.method), v, v_th, exact), flags=("contract",)
        )

    def _of_distance(self, program: Program, v: ir.Value, v_th: ir.Value, exact: bool) -> ir.Value:
        given = {"x": self.builder.fsub(v, v_th), "alpha": self.alpha}
        return self.run(program, given, lambda _: exact)[0]

    def _reset(self, z: ir.Value, _) -> ir.Value:
        return z

    def _where(self, z: ir.Value, a: ir.Value, b: ir.Value, _) -> ir.Value:
        return self.builder.select(self.builder.fcmp_ordered(">", z, self.number(0.5)), a, b)


class _Array(NamedTuple):
    """What a function takes: the place of the first neuron, and how far the next variable lies from the first."""

    pointer: ir.Value
    stride: ir.Value | None

    @property
    def kind(self) -> ir.Type:
        """Type of its numbers."""
        return self.pointer.type.pointee


class _Stretch:
    """Reads and writes the neurons from number `first` on, as many as a register holds."""

    def __init__(self, builder: ir.IRBuilder, lanes: int, first: ir.Value) -> None:
        self.builder, self.lanes, self.first = builder, lanes, first

    def _place(self, array: _Array, k: int) -> ir.Value:
        at = self.first
        if array.stride is not None:
            at = self.builder.add(at, self.builder.mul(array.stride, ir.Constant(INTEGER, k)))
        whole = array.kind if self.lanes == 1 else ir.VectorType(array.kind, self.lanes)
        return self.builder.bitcast(self.builder.gep(array.pointer, [at]), whole.as_pointer())

    def load(self, array: _Array, k: int = 0) -> ir.Value:
        """Read variable k of an array."""
        return self.builder.load(self._place(array, k), align=_size(array.kind))

    def store(self, value: ir.Value, array: _Array, k: int = 0) -> None:
        """Write variable k of an array."""
        self.builder.store(value, self._place(array, k), align=_size(array.kind))

    def add(self, value: ir.Value, array: _Array, k: int) -> None:
        """Add to variable k."""
        self.store(self.builder.fadd(self.load(array, k), value), array, k)


def _size(kind: ir.Type) -> int:
    return 4 if isinstance(kind, ir.FloatType) else 8


FORWARD = ("state", "x", "received", "p", "out", "kept")  # in this order, each with what follows it
BACKWARD = ("kept", "p", "grad_out", "received", "grad_state", "grad_x", "out", "sums")
WITH_STRIDE = ("state", "p", "kept", "grad_state", "sums")


@global_compiler_lock
def _compiled(names: Sequence[str], dtype: torch.dtype, method: str, body: Callable) -> int:
    """Return the address of a function that does `body` for each neuron of a stretch.

    It takes their number, the alpha of the spike function, and what `names` says: pointers and strides.
    """
    kind = KINDS[dtype]
    kinds = [INTEGER, kind]
    for name in names:
        kinds.append(kind.as_pointer())
        kinds += [INTEGER] if name in WITH_STRIDE else []

    def write(builder: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        set.add(builder.function.attributes, f'"min-legal-vector-width"="{8 * REGISTER}"')
        size, alpha, *rest = args
        given = iter(rest)
        arrays = {name: _Array(next(given), next(given) if name in WITH_STRIDE else None) for name in names}
        per_register, begin = ir.Constant(INTEGER, lanes(dtype)), ir.Constant(INTEGER, 0)
        whole = builder.sub(size, builder.srem(size, per_register))
        for together, end in ((lanes(dtype), whole), (1, size)):  # whole registers first, then what is left over
            arithmetic = _Arithmetic(builder, kind, together, method, alpha)
            with cgutils.for_range_slice(builder, begin, end, ir.Constant(INTEGER, together)) as (first, _):
                body(arithmetic, _Stretch(builder, together, first), arrays)
            begin = end

    return machine_code(kinds, write)


@functools.cache
def forward(name: str, method: str, dtype: torch.dtype, recurrent: bool, keep: bool) -> int:
    """Return the address of a step.

    It takes the size of the stretch and alpha, then `FORWARD`. It writes the output, and the new state in the place of
    the old one.

    Args:
        name: of the program.
        method: spike function.
        dtype: type of all numbers.
        recurrent: whether `received`, what recurrent weights bring, is added to the input current x.
        keep: whether `program.kept` is written to `kept`.
    """
    program = PROGRAMS[name]

    def body(write: _Arithmetic, here: _Stretch, arrays) -> None:
        values = {variable: here.load(arrays["state"], k) for k, variable in enumerate(program.state)}
        for arriving in ("x", "received") if recurrent else ("x",):
            current = here.load(arrays[arriving])
            before = values.get(program.receives)
            values[program.receives] = current if before is None else write.builder.fadd(before, current)
        if keep:
            for k, variable in enumerate(program.kept):
                here.store(values[variable], arrays["kept"], k)
        values |= {parameter: here.load(arrays["p"], k) for k, parameter in enumerate(program.parameters)}
        output, *state = write.run(program, values, lambda _: True)
        here.store(output, arrays["out"])
        for k, value in enumerate(state):
            here.store(value, arrays["state"], k)

    return _compiled(FORWARD, dtype, method, body)


@functools.cache
def backward(
    name: str, method: str, dtype: torch.dtype, detach_reset: bool, recurrent: bool, with_out: bool, with_p: bool
) -> int:
    """Return the address of the derivative of a step.

    It takes the size of the stretch and alpha, then `BACKWARD`. `grad_state` holds the gradient by the state after the
    step, then that by the one before it.

    Args:
        name: of the program.
        method: spike function.
        dtype: type of all numbers.
        detach_reset: whether no gradient passes the spike in the reset.
        recurrent: whether a gradient by the output has been `received` from the next step, and the output is written
            to `out`.
        with_out: whether there is another one, `grad_out`.
        with_p: whether gradients by parameters are added to `sums`, of the same type: the caller takes these over into
            sums of float64 before they are of so many steps that rounding would show.
    """
    step = PROGRAMS[name]
    program = derive.backward(step, detach_reset, method == "heaviside")
    if not with_p:
        program = derive.without(program, len(program.kept))
    forward_names = {statement.name for statement in step.statements}
    of_output, *of_state = program.arguments[len(step.arguments) :]
    outputs = step._replace(returned=step.returned[:1])

    def body(write: _Arithmetic, here: _Stretch, arrays) -> None:
        values = {variable: here.load(arrays["kept"], k) for k, variable in enumerate(program.kept)}
        values |= {parameter: here.load(arrays["p"], k) for k, parameter in enumerate(step.parameters)}
        by_output = [here.load(arrays["grad_out"])] if with_out else []
        by_output += [here.load(arrays["received"])] if recurrent else []
        if recurrent:
            here.store(write.run(outputs, values, lambda _: True)[0], arrays["out"])
        values[of_output] = functools.reduce(write.builder.fadd, by_output) if by_output else write.number(0.0)
        values |= {variable: here.load(arrays["grad_state"], k) for k, variable in enumerate(of_state)}
        found = write.run(program, values, forward_names.__contains__)
        for k, value in enumerate(found[: len(step.state)]):
            here.store(value, arrays["grad_state"], k)
        here.store(found[program.kept.index(program.receives)], arrays["grad_x"])
        for k, value in enumerate(found[len(program.kept) :]):
            here.add(value, arrays["sums"], k)

    return _compiled(BACKWARD, dtype, method, body)
