"""The encoder on a GPU: spikes of LIF neurons that constant currents drive, which have no gradient."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from snnparams.kernels.gpu import BLOCK, launch


@triton.jit
def encode_block(x, a, v_leak, v_th, v_reset, z, steps, size, BLOCK: tl.constexpr):
    """Let constant currents x drive BLOCK neurons through all time steps; z has shape (T, size)."""
    size = tl.cast(size, tl.int64)
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    x, a = tl.load(x + at, mask, other=0.0), tl.load(a + at, mask, other=0.0)
    v_leak, v_reset = tl.load(v_leak + at, mask, other=0.0), tl.load(v_reset + at, mask, other=0.0)
    v_th = tl.load(v_th + at, mask, other=float("inf"))
    v = tl.zeros_like(x)
    for _ in range(steps):
        v = v + a * ((v_leak - v) + x)
        spike = v - v_th > 0
        tl.store(z + at, spike.to(v.dtype), mask)
        v = tl.where(spike, v_reset, v)
        at += size


def encode(x: Tensor, steps: int, a: Tensor, v_leak: Tensor, v_th: Tensor, v_reset: Tensor) -> Tensor:
    """Return the spikes (T, ...) of neurons that constant currents x drive; all arguments have its shape."""
    z = x.new_empty(steps, *x.shape)
    if x.numel():
        given = x, a, v_leak, v_th, v_reset, z, steps, x.numel()
        options = {"BLOCK": BLOCK, "enable_fp_fusion": False}
        launch(x, lambda _: [(encode_block, triton.cdiv(x.numel(), BLOCK), given, options)])
    return z
