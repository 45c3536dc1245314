"""How Numba compiles the functions of the CPU kernels, and how they share the rows among threads.

Each function is compiled twice: for one share of the rows, and for all shares at once in Numba's threads. There are as
many shares as PyTorch has threads, see `torch.set_num_threads`. Where Numba finds OpenMP (Linux), its threads are those
of PyTorch, so that the two never compete for the cores.
"""

from __future__ import annotations

import math
import threading

import numpy as np
import torch
from numba import njit

from snnparams.kernels.vectors import unpanelled

compiled = njit(nogil=True, cache=True, error_model="numpy")
in_threads = njit(nogil=True, cache=True, error_model="numpy", parallel=True)
# where rounding may differ from that of the reference: products with weights, gradients
fused_multiply_add = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
one_at_a_time = threading.Lock()  # not all of Numba's thread pools bear two callers

# The C library returns a freed block of some megabytes to the system at once and pays for it page by page when the
# next step needs it again. Freeing one block just below 32 MB, never touched, makes glibc keep such blocks.
torch.empty(2**25 - 2**14, dtype=torch.uint8)


def empty(like: torch.Tensor, *shape: int) -> torch.Tensor:
    """Return a tensor of that shape, not filled. NumPy asks for large pages, which the system hands out far faster."""
    return torch.from_numpy(np.empty(shape or tuple(like.shape), like.numpy().dtype))


def all_finite(tensor: torch.Tensor) -> bool:
    """Return whether all numbers are finite. If their sum overflows it says no, at the price of a slower path."""
    return math.isfinite(tensor.sum().item())


def shares(rows: int, count: int | None = None) -> np.ndarray:
    """Divide rows among the threads, or into `count` shares: where each begins, and where the last one ends."""
    count = count or max(1, min(torch.get_num_threads(), rows))
    return np.arange(count + 1) * rows // count


def run(function, function_in_threads, bounds: np.ndarray, *args) -> None:
    """Call a compiled function for all shares; with one share, without threads (they do not survive a fork)."""
    if len(bounds) == 2:
        function(*args, 0, 0, bounds[1])
    else:
        with one_at_a_time:
            function_in_threads(bounds, *args)


def of_all_shares(sums: torch.Tensor, outputs: int) -> torch.Tensor:
    """Return the gradient (..., H, I) by weights, of which each share has a sum (..., shares, panels, I, width)."""
    return unpanelled(sums.sum(dim=-4), outputs).mT.contiguous()
