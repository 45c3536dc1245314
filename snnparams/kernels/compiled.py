"""How Numba compiles the functions of the CPU kernels, where it keeps them, and how they share rows among threads.

A loop over rows is compiled twice: for one share of the rows, and for all shares at once in Numba's threads. There are
as many shares as PyTorch has threads, see `torch.set_num_threads`. Where Numba finds OpenMP (Linux), its threads are
those of PyTorch, so that the two never compete for the cores.

What is compiled is kept in `compiled` below `snnparams.folders.cache_folder()`, or below the folder that the
environment variable `NUMBA_CACHE_DIR` names. Where neither can be written, each process compiles for itself, once.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import math
import os
import platform
import threading
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from numba.core import caching, config

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


compiled = _compile()
fused_multiply_add = _compile(fastmath={"contract"})  # where rounding may differ from the reference's: gradients
one_at_a_time = threading.Lock()  # not all of Numba's thread pools bear two callers


def in_shares(function: Any) -> Any:
    """Give a compiled function of one share, as its attribute `in_threads`, another for all of them at once.

    Its last arguments must be the number of the share, its first row and the row behind its last one. The other takes
    the bounds of all shares in their place, as its first argument. It is written here as text, since Numba keeps no
    compiled function that takes the function that it calls from around it.
    """
    code = function.py_func.__code__
    *names, _, _, _ = code.co_varnames[: code.co_argcount]
    name, given = f"{code.co_name}_in_threads", ", ".join(names)
    loop = f"for k in prange(len(bounds) - 1):\n        {code.co_name}({given}, k, bounds[k], bounds[k + 1])"
    space = {"prange": numba.prange, code.co_name: function, "__name__": function.__module__}
    exec(compile(f"def {name}(bounds, {given}):\n    {loop}\n", code.co_filename, "exec"), space)
    function.in_threads = _compile(parallel=True)(space[name])
    return function


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
    """Call a function that is compiled `in_shares` for all shares: in threads, or where there are none in turn.

    A process that was forked, such as a worker of a DataLoader, has none: OpenMP would end it or wait for ever. Nor can
    it rely on a lock that another thread may have held.
    """
    if len(bounds) == 2 or os.getpid() != PROCESS:
        for k in range(len(bounds) - 1):
            function(*args, k, bounds[k], bounds[k + 1])
    else:
        with one_at_a_time:
            function.in_threads(bounds, *args)


def of_all_shares(sums: torch.Tensor, outputs: int) -> torch.Tensor:
    """Return the gradient (..., H, I) by weights, of which each share has a sum (..., shares, panels, I, width)."""
    total = sums[..., 0, :, :, :] if sums.shape[-4] == 1 else sums.sum(dim=-4)
    return total.mT.flatten(-3, -2)[..., :outputs, :].contiguous()
