"""One step of LIF neurons for Triton, forward and back; whole sequences of neurons without recurrence; the encoder.

A program takes a block of neurons through all time steps, with the state in registers. `snnparams.kernels.gpu`
launches it.

Triton passes an integer as 32 bits, and makes a constant of a 1. So each kernel begins by making 64 bits of the sizes
that it multiplies: offsets do not overflow, and a batch of one is like any other.
"""

from __future__ import annotations

import triton
import triton.language as tl

TWO_OVER_ROOT_PI = tl.constexpr(1.1283791670955126)


@triton.jit
def part(count, PER: tl.constexpr):
    """Return the network that this program belongs to, and where its part begins: PER of `count` rows or neurons."""
    program, parts = tl.program_id(0).to(tl.int64), tl.cdiv(count, PER)
    return program // parts, program % parts * PER


@triton.jit
def fire(v, v_th, v_reset, METHOD: tl.constexpr, ALPHA: tl.constexpr):
    """Return the spikes of voltages, and the voltages after the reset."""
    if METHOD == 6:
        z = 1 / (1 + tl.exp(-ALPHA * (v - v_th)))
        return z, (1 - z) * v + z * v_reset
    else:
        # of an infinite voltage the reset leaves NaN, as (1 - z) v + z v_reset does
        return (v > v_th).to(v.dtype), tl.where(v > v_th, v_reset + (v - v), v)


@triton.jit
def step(v, i_now, a, b, v_leak, v_th, v_reset, METHOD: tl.constexpr, ALPHA: tl.constexpr):
    """Return voltage before reset, spikes, and the state after the step, as in `snnparams.neurons.dynamics`."""
    v_now = v + a * ((v_leak - v) + i_now)
    z, v = fire(v_now, v_th, v_reset, METHOD, ALPHA)
    return v_now, z, v, i_now - b * i_now


@triton.jit
def surrogate(x, METHOD: tl.constexpr, ALPHA: tl.constexpr):
    """Return the derivative of a spike function, by its number in METHODS."""
    if METHOD == 0:
        return tl.zeros_like(x)
    elif METHOD == 1:
        s = 1 + ALPHA * tl.abs(x)
        return 1 / (s * s)
    elif METHOD == 2:
        s = 1 - tl.abs(x)
        return tl.where(s <= 0, 0.0, ALPHA * s)  # NaN stays NaN
    elif METHOD == 3:  # 1 - tanh^2, without the difference of two numbers close to each other
        s = tl.exp(-2 * ALPHA * tl.abs(x))
        return 4 * s / ((1 + s) * (1 + s))
    elif METHOD == 4:
        s = 1 + (x / ALPHA) * (x / ALPHA)
        return 1 / (s * tl.sqrt(s))
    elif METHOD == 5:
        return TWO_OVER_ROOT_PI * tl.exp(-(ALPHA * x) * (ALPHA * x))
    else:
        s = tl.exp(-ALPHA * tl.abs(x))
        return ALPHA * s / ((1 + s) * (1 + s))


@triton.jit
def step_back(
    g_z, g_v_pre, g_v, g_i, v, i, v_before, a, b, v_leak, v_th, v_reset,
    METHOD: tl.constexpr, ALPHA: tl.constexpr, DETACH_RESET: tl.constexpr,
):  # fmt: skip
    """Go back through one step.

    g_z, g_v_pre: gradients by the spikes and the voltages that the step gave; g_v, g_i: by the state after it; v, i:
    voltage before the reset and current before the decay; v_before: voltage before the step.

    Returns:
        Gradients by the input current and the voltage before the step, and five terms of those by a, b, v_leak, v_th
        and v_reset. That by the synaptic current before the step is that by the input current.
    """
    z, _ = fire(v, v_th, v_reset, METHOD, ALPHA)
    if not DETACH_RESET:
        g_z += g_v * (v_reset - v)
    g_th = tl.zeros_like(v)  # a step has no derivative, not even a NaN
    if METHOD > 0:
        g_th = g_z * surrogate(v - v_th, METHOD, ALPHA)
    g_now = (1 - z) * g_v + g_th + g_v_pre
    g_x = (g_i - b * g_i) + a * g_now
    return g_x, g_now - a * g_now, g_now * ((v_leak - v_before) + i), -g_i * i, a * g_now, -g_th, z * g_v


@triton.jit
def load_parameters(a, b, v_leak, v_th, v_reset, at, mask):
    """Return the neuron parameters of some neurons."""
    return (
        tl.load(a + at, mask, other=0.0),
        tl.load(b + at, mask, other=0.0),
        tl.load(v_leak + at, mask, other=0.0),
        tl.load(v_th + at, mask, other=float("inf")),  # what only fills up a block never fires
        tl.load(v_reset + at, mask, other=0.0),
    )


# ------------------------------------------------------------------------------------------------- without recurrence


@triton.jit
def forward(
    x, v_0, i_0, a, b, v_leak, v_th, v_reset, z, v_last, i_last, v_pre, i_pre, steps, size, neurons,
    KEEP: tl.constexpr, METHOD: tl.constexpr, ALPHA: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Take BLOCK of the `size` neurons of all rows through all time steps; shapes as in `snnparams.kernels.fused`."""
    size, neurons = tl.cast(size, tl.int64), tl.cast(neurons, tl.int64)
    member, first = part(size, BLOCK)
    at = first + tl.arange(0, BLOCK)
    mask = at < size
    a, b, v_leak, v_th, v_reset = load_parameters(
        a, b, v_leak, v_th, v_reset, member * neurons + at % neurons, mask
    )  # fmt: skip
    state = member * size + at
    v, i = tl.load(v_0 + state, mask, other=0.0), tl.load(i_0 + state, mask, other=0.0)
    place = member * steps * size + at
    for _ in range(steps):
        i_now = i + tl.load(x + place, mask, other=0.0)
        v_now, spikes, v, i = step(v, i_now, a, b, v_leak, v_th, v_reset, METHOD, ALPHA)
        tl.store(z + place, spikes, mask)
        if KEEP:
            tl.store(v_pre + place, v_now, mask)
            tl.store(i_pre + place, i_now, mask)
        place += size
    tl.store(v_last + state, v, mask)
    tl.store(i_last + state, i, mask)


@triton.jit
def backward(
    grad_z, grad_v_pre, grad_v, grad_i, v_pre, i_pre, v_0, a, b, v_leak, v_th, v_reset, grad_x, grad_v_0, grad_i_0,
    grad_p, steps, size, neurons,
    METHOD: tl.constexpr, ALPHA: tl.constexpr, DETACH_RESET: tl.constexpr, WITH_Z: tl.constexpr, WITH_V: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Go back through all time steps of `forward`; `grad_p` (E, 5, B, N) is not yet summed over the rows."""
    size, neurons = tl.cast(size, tl.int64), tl.cast(neurons, tl.int64)
    member, first = part(size, BLOCK)
    at = first + tl.arange(0, BLOCK)
    mask = at < size
    a, b, v_leak, v_th, v_reset = load_parameters(
        a, b, v_leak, v_th, v_reset, member * neurons + at % neurons, mask
    )  # fmt: skip
    state = member * size + at
    g_v, g_i = tl.load(grad_v + state, mask, other=0.0), tl.load(grad_i + state, mask, other=0.0)
    first = tl.load(v_0 + state, mask, other=0.0)
    zero = tl.zeros_like(first)
    p_a, p_b, p_leak, p_th, p_reset = zero, zero, zero, zero, zero
    place = (member * steps + steps - 1) * size + at
    second = (member * steps + 1) * size  # where the second step begins
    v = tl.load(v_pre + place, mask, other=0.0)
    for _ in range(steps):
        i = tl.load(i_pre + place, mask, other=0.0)
        later = place >= second
        v_next = tl.load(v_pre + place - size, mask & later, other=0.0)  # of the step before
        _, v_after = fire(v_next, v_th, v_reset, METHOD, ALPHA)
        v_before = tl.where(later, v_after, first)
        g_z, g_v_pre = zero, zero
        if WITH_Z:
            g_z = tl.load(grad_z + place, mask, other=0.0)
        if WITH_V:
            g_v_pre = tl.load(grad_v_pre + place, mask, other=0.0)
        g_i, g_v, q_a, q_b, q_leak, q_th, q_reset = step_back(
            g_z, g_v_pre, g_v, g_i, v, i, v_before, a, b, v_leak, v_th, v_reset, METHOD, ALPHA, DETACH_RESET
        )  # fmt: skip
        tl.store(grad_x + place, g_i, mask)
        p_a, p_b, p_leak, p_th, p_reset = p_a + q_a, p_b + q_b, p_leak + q_leak, p_th + q_th, p_reset + q_reset
        v = v_next
        place -= size
    tl.store(grad_v_0 + state, g_v, mask)
    tl.store(grad_i_0 + state, g_i, mask)
    sums = member * 5 * size + at  # for each row of the batch; summed over them outside
    tl.store(grad_p + sums, p_a, mask)
    tl.store(grad_p + sums + size, p_b, mask)
    tl.store(grad_p + sums + 2 * size, p_leak, mask)
    tl.store(grad_p + sums + 3 * size, p_th, mask)
    tl.store(grad_p + sums + 4 * size, p_reset, mask)


# ------------------------------------------------------------------------------------------------------- the encoder


@triton.jit
def encode(x, a, v_leak, v_th, v_reset, z, steps, size, BLOCK: tl.constexpr):
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
        v = tl.where(spike, v - (v - v_reset), v)
        at += size
