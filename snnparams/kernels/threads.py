"""How CPU kernels are called, and how they share rows among threads.

A kernel works on a share of the rows, and there are as many shares as PyTorch has threads, see
`torch.set_num_threads`. Each is compiled once for float32 and once for float64, whatever the number of rows and threads
and the other arguments are. Numba's own way to threads would compile the kernel several times, into a function that
runs it in parallel; here a single such function calls every kernel by its address. Where Numba finds OpenMP (Linux),
its threads are those of PyTorch, so that the two never compete for the cores.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import struct
import threading
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import prange
from numba.core import types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from numba.np import arrayobj

from snnparams.kernels import PROCESS
from snnparams.kernels.compiled import compile_with, machine_code, while_compiling

one_at_a_time = threading.Lock()  # not all of Numba's thread pools bear two callers


def _data(context, builder, kind: types.Array, array: ir.Value) -> ir.Value:
    """Return the address of the first number of an array."""
    return builder.extract_value(array, context.data_model_manager[kind].get_field_position("data"))


@intrinsic
def at(typing, array, place):
    """Return where a number of an array lies, as if it had one axis: a part of it would be compiled for far longer."""

    def write(context, builder, signature, args):
        return builder.gep(_data(context, builder, signature.args[0], args[0]), [args[1]])

    return types.CPointer(array.dtype)(array, types.intp), write


@intrinsic
def call(typing, address, given):
    """Call the function at an address with a tuple of numbers, of places, and of arrays, of which it gets the first."""
    if not isinstance(given, types.BaseTuple):
        return None

    def write(context, builder, signature, args):
        address, given = args
        values = []
        for k, kind in enumerate(signature.args[1]):
            value = builder.extract_value(given, k)
            values.append(_data(context, builder, kind, value) if isinstance(kind, types.Array) else value)
        function = ir.FunctionType(ir.VoidType(), [value.type for value in values])
        builder.call(builder.inttoptr(address, function.as_pointer()), values)
        return context.get_dummy_value()

    return types.void(types.intp, given), write


@compile_with(parallel=True)
def _in_threads(entry, packed, bounds):
    """Let Numba's threads call a kernel, see `_entry`, each for a share of the rows."""
    for k in prange(len(bounds) - 1):
        call(entry, (packed, k, bounds[k], bounds[k + 1]))


def _kind(value: Any) -> types.Type:
    """Return Numba's type of an argument: one for all sizes of arrays and all integers."""
    array = isinstance(value, np.ndarray)
    return types.Array(numba.from_dtype(value.dtype), value.ndim, "C") if array else numba.typeof(value)


def _pack(value: Any) -> list[int]:
    """Return an argument of a kernel as integers: what is in it, or of an array its address and sizes."""
    if isinstance(value, np.ndarray):
        if not value.flags.c_contiguous:
            raise ValueError("expected an array whose numbers lie one after the other, got one with gaps")
        return [value.__array_interface__["data"][0], *value.shape]
    if isinstance(value, tuple):
        return [number for part in value for number in _pack(part)]
    if isinstance(value, float | np.floating):
        return [*struct.unpack("q", struct.pack("d", value))]
    return [int(value)]


class _Unpacking:
    """Writes instructions that read what `_pack` has written, from the second number on."""

    def __init__(self, context, builder: ir.IRBuilder, packed: ir.Value) -> None:
        self.context, self.builder, self.packed = context, builder, packed
        self.place = itertools.count(1)

    def number(self) -> ir.Value:
        """Return the next integer."""
        at = ir.Constant(ir.IntType(64), next(self.place))
        return self.builder.load(self.builder.gep(self.packed, [at]))

    def value(self, kind: Any) -> ir.Value:
        """Return the next argument, of that type of Numba's."""
        own = self.context.get_value_type(kind)
        if isinstance(kind, types.Array):
            return self._array(kind)
        if isinstance(kind, types.BaseTuple):
            parts: Any = kind  # no base of Numba's says that it can be iterated over
            return self.context.make_tuple(self.builder, kind, [self.value(part) for part in parts])
        number = self.number()
        if isinstance(kind, types.Float):
            double = self.builder.bitcast(number, ir.DoubleType())
            return double if own == ir.DoubleType() else self.builder.fptrunc(double, own)
        return number if own == number.type else self.builder.trunc(number, own)

    def _array(self, kind: Any) -> ir.Value:
        array = self.context.make_array(kind)(self.context, self.builder)
        data = self.builder.inttoptr(self.number(), array.data.type)
        shape = [self.number() for _ in range(kind.ndim)]
        size = ir.Constant(ir.IntType(64), kind.dtype.bitwidth // 8)
        strides = [size]
        for length in shape[:0:-1]:
            strides.insert(0, self.builder.mul(strides[0], length))
        arrayobj.populate_array(array, data, shape, strides, size, None)
        return array._getvalue()


@functools.cache
@global_compiler_lock
def _entry(function: Any, *kinds: types.Type) -> int:
    """Compile a kernel for arguments of these types, and return the address of a C function that calls it.

    That takes what `_pack` has written behind one number more, the number of the share, its first row and the one
    behind its last. The first number becomes 1 if there is not enough memory.
    """
    kinds = *kinds, types.intp, types.intp, types.intp
    with while_compiling():
        function.compile(kinds)
    kernel = function.overloads[kinds]
    context, integer = cpu_target.target_context, ir.IntType(64)
    convention, returned = context.call_conv, kernel.signature.return_type
    address = ir.Constant(integer, kernel.library.get_pointer_to_function(kernel.fndesc.llvm_func_name))

    def write(builder: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        packed, *share = args
        given = [*map(_Unpacking(context, builder, packed).value, kinds[:-3]), *share]
        kernel_at = builder.inttoptr(address, convention.get_function_type(returned, kinds).as_pointer())
        status, _ = convention.call_function(builder, kernel_at, returned, kinds, given)
        with builder.if_then(status.is_error):
            builder.store(ir.Constant(integer, 1), packed)

    return machine_code([integer.as_pointer(), integer, integer, integer], write)


_known: dict[tuple, int] = {}  # what `_entry` returned
_ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int64] * 3)


def shares(rows: int, count: int | None = None) -> np.ndarray:
    """Divide rows among the threads, or into `count` shares: where each begins, and where the last one ends."""
    count = count or max(1, min(torch.get_num_threads(), rows))
    return np.arange(count + 1) * rows // count


def run(function: Any, bounds: np.ndarray, *args) -> None:
    """Call a compiled kernel for all shares: in threads, or where there are none in turn.

    A process that was forked, such as a worker of a DataLoader, has none: OpenMP would end it or wait for ever. Nor can
    it rely on a lock that another thread may have held.

    Args:
        function: whose last three arguments are the number of a share, its first row and the row behind its last one.
        bounds: of the shares, see `shares`.
        args: the others.
    """
    key = function, *((v.dtype, v.ndim) if isinstance(v, np.ndarray) else type(v) for v in args)
    if (entry := _known.get(key)) is None:  # Numba's types take longer to find
        entry = _known[key] = _entry(function, *map(_kind, args))
    packed = np.array([0, *(number for value in args for number in _pack(value))], np.int64)
    if len(bounds) == 2 or os.getpid() != PROCESS:
        for k in range(len(bounds) - 1):
            _ENTRY(entry)(packed.ctypes.data, k, bounds[k], bounds[k + 1])
    else:
        with one_at_a_time:
            _in_threads(entry, packed, bounds)
    if packed[0]:
        raise MemoryError("not enough memory for a kernel")


def of_all_shares(sums: torch.Tensor, outputs: int) -> torch.Tensor:
    """Return the gradient (..., H, I) by weights, of which each share has a sum (..., shares, panels, I, width)."""
    total = sums[..., 0, :, :, :] if sums.shape[-4] == 1 else sums.sum(dim=-4)
    return total.mT.flatten(-3, -2)[..., :outputs, :].contiguous()
