"""How Numba compiles the functions of the CPU kernels, where it keeps them, and how they share rows among threads.

A kernel works on a share of the rows, and there are as many shares as PyTorch has threads, see
`torch.set_num_threads`. Each is compiled once for float32 and once for float64, whatever the number of rows and threads
and the other arguments are. Numba's own way to threads would compile the kernel several times, into a function that
runs it in parallel; here a single such function calls every kernel by its address. Where Numba finds OpenMP (Linux),
its threads are those of PyTorch, so that the two never compete for the cores.

What a kernel contains decides how long a user waits for the first call. To copy an array into a part of another, or to
add arrays, takes a second each, most of it for messages about shapes that differ; a loop takes hundredths.

What is compiled is kept in `compiled` below `snnparams.folders.cache_folder()`, or below the folder that the
environment variable `NUMBA_CACHE_DIR` names. Where neither can be written, each process compiles for itself, once.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import itertools
import logging
import math
import os
import platform
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import prange
from numba.core import caching, config, types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from numba.np import arrayobj

from snnparams.folders import cache_folder
from snnparams.kernels import PROCESS
from snnparams.kernels.vectors import REGISTER, REGISTERS, ROWS


@functools.cache
def _folder() -> Path:
    """Return where compiled functions are kept: one folder for all on which they depend besides the processor.

    Numba itself knows of the processor and of changes in the file of a function, but not of the functions of other
    files that it calls. No folder is ever used for another source, so that an upgrade never meets old code.
    """
    base = Path(vars(config)["CACHE_DIR"] or cache_folder() / "compiled")
    sources = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    versions = f"{numba.__version__} {platform.python_version()} {REGISTER} {REGISTERS} {ROWS}"
    return base / f"snnparams-{hashlib.sha256(b''.join([versions.encode(), *sources])).hexdigest()[:16]}"


class _Locator(caching._CacheLocator):
    """Tells Numba the folder; whether it can be written shows when something is."""

    def __init__(self, function) -> None:
        self._py_file, self._line = function.__code__.co_filename, function.__code__.co_firstlineno  # Numba reads both

    def get_cache_path(self) -> str:
        return str(_folder())

    def get_source_stamp(self) -> str:
        return _folder().name

    def get_disambiguator(self) -> str:
        return str(self._line)

    @classmethod
    def from_function(cls, py_func, py_file):
        return cls(py_func)


class _Implementation(caching.CompileResultCacheImpl):
    _locator_classes = [_Locator]  # type: ignore[list-item]  # noqa: RUF012


@functools.cache
def _say_that_nothing_is_kept(why: str) -> None:
    """Log it: a warning would end a program in which warnings are errors."""
    logging.getLogger("snnparams").warning(
        "Compiled kernels cannot be kept (%s), so each process compiles them anew, for up to a minute or two. "
        "Set NUMBA_CACHE_DIR to a folder that can be written.",
        why,
    )


@functools.cache
def _say_that_it_takes_long() -> None:
    """Log why nothing happens, once, as a warning: only these are shown by default."""
    logging.getLogger("snnparams").warning(
        "Compiling kernels for this processor: some seconds, once; they are kept in %s.", _folder()
    )


@contextlib.contextmanager
def _said_when_slow() -> Iterator[None]:
    """Say it when what follows takes longer than a second."""
    timer = threading.Timer(1.0, _say_that_it_takes_long)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class _Cache(caching.FunctionCache):
    """Numba's cache of one function; where files cannot be read or written, the function is compiled all the same."""

    _impl_class = _Implementation

    def load_overload(self, sig, target_context):
        try:
            return super().load_overload(sig, target_context)
        except OSError:
            return None
        except Exception:  # a damaged file, whatever unpickling makes of it; it will be written anew
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig, data) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            _say_that_nothing_is_kept(str(error))


def _compile(**options):
    """Return a decorator like `numba.njit(cache=True)` that keeps what it compiled in our own folder.

    Numba would write beside the source: that fails in a read-only installation without a home, and `pip uninstall`
    would leave those files, a folder that can still be imported.
    """

    def decorate(function):
        dispatcher = numba.njit(nogil=True, error_model="numpy", **options)(function)
        try:
            dispatcher._cache = _Cache(function)
        except RuntimeError as error:  # the user has no home, or none of the user's NUMBA_CACHE_LOCATOR_CLASSES fits
            _say_that_nothing_is_kept(str(error))
        return dispatcher

    return decorate


_without_python = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # kernels are called by their address
compiled = _compile(**_without_python)
fused_multiply_add = _compile(fastmath={"contract"}, **_without_python)  # where rounding may differ: gradients
one_at_a_time = threading.Lock()  # not all of Numba's thread pools bear two callers


@intrinsic
def call(typing, address, given):
    """Call the function at an address with a tuple of numbers, and of arrays, of which it gets a pointer."""
    if not isinstance(given, types.BaseTuple):
        return None
    signature = types.void(types.intp, given)

    def write(context, builder, signature, args):
        address, given = args
        values = []
        for k, kind in enumerate(signature.args[1]):
            value = builder.extract_value(given, k)
            array = isinstance(kind, types.Array)
            values.append(context.make_array(kind)(context, builder, value=value).data if array else value)
        function = ir.FunctionType(ir.VoidType(), [value.type for value in values])
        builder.call(builder.inttoptr(address, function.as_pointer()), values)
        return context.get_dummy_value()

    return signature, write


@_compile(parallel=True)
def _in_threads(entry, packed, bounds):
    """Let Numba's threads call a kernel, see `_entry`, each for a share of the rows."""
    for k in prange(len(bounds) - 1):
        call(entry, (packed, k, bounds[k], bounds[k + 1]))


def _kind(value: Any) -> types.Type:
    """Return Numba's type of an argument: one for all sizes of arrays and all integers."""
    if isinstance(value, np.ndarray):
        return _array_kind(value.dtype, value.ndim)
    return numba.typeof(value)


@functools.cache
def _array_kind(dtype: np.dtype, axes: int) -> types.Type:
    return types.Array(numba.from_dtype(dtype), axes, "C")


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

    def value(self, kind: types.Type) -> ir.Value:
        """Return the next argument, of that type."""
        own = self.context.get_value_type(kind)
        if isinstance(kind, types.Array):
            return self._array(kind)
        if isinstance(kind, types.BaseTuple):
            return self.context.make_tuple(self.builder, kind, [self.value(part) for part in kind])
        number = self.number()
        if isinstance(kind, types.Float):
            double = self.builder.bitcast(number, ir.DoubleType())
            return double if own == ir.DoubleType() else self.builder.fptrunc(double, own)
        return number if own == number.type else self.builder.trunc(number, own)

    def _array(self, kind: types.Array) -> ir.Value:
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
    with _said_when_slow():
        function.compile(kinds)
    kernel = function.overloads[kinds]
    context, integer = cpu_target.target_context, ir.IntType(64)
    library = context.codegen().create_library(f"snnparams_entry_{next(_entries)}")
    module = library.create_ir_module(library.name)
    entry = ir.Function(
        module, ir.FunctionType(ir.VoidType(), [integer.as_pointer(), integer, integer, integer]), library.name
    )
    builder = ir.IRBuilder(entry.append_basic_block())
    packed, *share = entry.args
    unpacking = _Unpacking(context, builder, packed)
    given = [*map(unpacking.value, kinds[:-3]), *share]
    convention, returned = context.call_conv, kernel.signature.return_type
    address = ir.Constant(integer, kernel.library.get_pointer_to_function(kernel.fndesc.llvm_func_name))
    kernel_at = builder.inttoptr(address, convention.get_function_type(returned, kinds).as_pointer())
    status, _ = convention.call_function(builder, kernel_at, returned, kinds, given)
    with builder.if_then(status.is_error):
        builder.store(ir.Constant(integer, 1), packed)
    builder.ret_void()
    library.add_ir_module(module)
    library.finalize()
    _libraries.append(library)
    return library.get_pointer_to_function(library.name)


_entries = itertools.count()
_libraries: list[Any] = []  # whose code stays in memory
_ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int64] * 3)


@functools.cache
def _let_freed_blocks_be_kept() -> None:
    """Make glibc keep freed blocks of some megabytes, by freeing one just below 32 MB that was never touched.

    It would return them to the system at once and pay for them page by page when the next step needs them again.
    """
    torch.empty(2**25 - 2**14, dtype=torch.uint8)


def empty(like: torch.Tensor, *shape: int) -> torch.Tensor:
    """Return a tensor of that shape, not filled. NumPy asks for large pages, which the system hands out far faster."""
    _let_freed_blocks_be_kept()  # when a kernel runs first, not when the package is imported
    return torch.from_numpy(np.empty(shape or tuple(like.shape), like.numpy().dtype))


def all_finite(tensor: torch.Tensor) -> bool:
    """Return whether all numbers are finite. If their sum overflows it says no, at the price of a slower path."""
    return math.isfinite(tensor.sum().item())


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
    entry = _entry(function, *map(_kind, args))
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
