"""How Numba compiles the functions of the CPU kernels, and where it keeps them.

What a kernel contains decides how long a user waits for the first call. To copy an array into a part of another takes
longest to compile, most of it for messages about shapes that differ; kernels use loops instead.

What is compiled is kept in `compiled` below `snnparams.folders.cache_folder()`, or below the folder that the
environment variable `NUMBA_CACHE_DIR` names. Where neither can be written, each process compiles for itself, once.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import itertools
import logging
import math
import os
import platform
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core import caching, config
from numba.core.dispatcher import Dispatcher
from numba.core.registry import cpu_target

from snnparams.folders import cache_folder
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
        "Compiled kernels cannot be kept (%s), so each process compiles them anew, for some seconds. "
        "Set NUMBA_CACHE_DIR to a folder that can be written.",
        why,
    )


@functools.cache
def _say_that_it_takes_long() -> None:
    """Log why nothing happens, once, as a warning: only these are shown by default.

    Where the environment variable `TQDM_DISABLE` switches progress bars off, it is not said: a stored page has no place
    for what depends on what has been compiled before.
    """
    if os.environ.get("TQDM_DISABLE", "0") not in ("", "0"):
        return
    logging.getLogger("snnparams").warning(
        "Compiling kernels for this processor: some seconds, once; they are kept in %s.", _folder()
    )


@contextlib.contextmanager
def while_compiling() -> Iterator[None]:
    """Say it when what follows takes longer than a second, and let Python not look for garbage meanwhile.

    The compiler makes so many objects that Python would go through all that there are again and again.
    """
    timer = threading.Timer(1.0, _say_that_it_takes_long)
    timer.daemon = True
    timer.start()
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        timer.cancel()
        if collecting:
            gc.enable()


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


def compile_with(**options: Any) -> Callable[[Callable], Dispatcher]:
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
compiled = compile_with(**_without_python)
fused_multiply_add = compile_with(fastmath={"contract"}, **_without_python)  # where rounding may differ: gradients


_numbers = itertools.count()  # of functions: each needs a name of its own
_libraries: list[Any] = []  # whose code stays in memory


def machine_code(kinds: Sequence[ir.Type], write: Callable[[ir.IRBuilder, Sequence[ir.Value]], None]) -> int:
    """Return the address of a function that returns nothing; call it with Numba's compiler lock.

    Args:
        kinds: types of its arguments.
        write: called with a builder, to which it gives the function's instructions, and the arguments.
    """
    library = cpu_target.target_context.codegen().create_library(f"snnparams_{next(_numbers)}")
    module = library.create_ir_module(library.name)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), library.name)
    builder = ir.IRBuilder(function.append_basic_block())
    write(builder, function.args)
    builder.ret_void()
    library.add_ir_module(module)
    library.finalize()
    _libraries.append(library)
    return library.get_pointer_to_function(library.name)


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
