"""Whole sequences on a GPU, compiled by Triton: the LIF recurrence and the encoder.

A feed-forward population is one program for each block of neurons, which goes through all time steps with the state
in registers. A recurrent one is a program for each sixteen rows of the batch: neurons of one row need each other's
spikes, rows do not. Up to 128 neurons, weights and state stay on the chip over all steps; beyond that the state lies
in global memory and the weights, shared by all programs, come through the L2 cache in tiles in every step. No program
waits for the host or for another one, and nothing is summed in an order that changes from run to run.

With the environment variable `TRITON_INTERPRET=1`, set before the import, Triton computes all this on a CPU, slowly:
so the tests run without a GPU.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from snnparams.surrogate import threshold

METHODS = ("heaviside", "super", "triangle", "tanh", "circ", "heavi_erfc", "sigmoid")
ROWS = 16  # of a program with recurrence: the least that a tensor core multiplies
RESIDENT = 128  # neurons, at most, for which the recurrent weights stay on the chip
BLOCK, TILE = 256, 64  # neurons of a program without recurrence; neurons in a tile of the weights
TWO_OVER_ROOT_PI = tl.constexpr(1.1283791670955126)


@triton.jit
def _fire(v, v_th, v_reset, METHOD: tl.constexpr, ALPHA: tl.constexpr):
    """Return the spikes of voltages, and the voltages after the reset."""
    if METHOD == 6:
        z = 1 / (1 + tl.exp(-ALPHA * (v - v_th)))
        return z, (1 - z) * v + z * v_reset
    else:
        return (v > v_th).to(v.dtype), tl.where(v > v_th, v_reset, v)


@triton.jit
def _step(v, i_now, a, b, v_leak, v_th, v_reset, METHOD: tl.constexpr, ALPHA: tl.constexpr):
    """Return voltage before reset, spikes, and the state after the step, as in `snnparams.dynamics`."""
    v_now = v + a * ((v_leak - v) + i_now)
    z, v = _fire(v_now, v_th, v_reset, METHOD, ALPHA)
    return v_now, z, v, i_now - b * i_now


@triton.jit
def _surrogate(x, METHOD: tl.constexpr, ALPHA: tl.constexpr):
    """Return the derivative of a spike function, by its number in METHODS."""
    if METHOD == 0:
        return tl.zeros_like(x)
    elif METHOD == 1:
        s = 1 + ALPHA * tl.abs(x)
        return 1 / (s * s)
    elif METHOD == 2:
        return ALPHA * tl.maximum(1 - tl.abs(x), 0)
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
def _step_back(
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
    z, _ = _fire(v, v_th, v_reset, METHOD, ALPHA)
    if not DETACH_RESET:
        g_z += g_v * (v_reset - v)
    g_th = g_z * _surrogate(v - v_th, METHOD, ALPHA)
    g_now = (1 - z) * g_v + g_th + g_v_pre
    g_x = (g_i - b * g_i) + a * g_now
    return g_x, g_now - a * g_now, g_now * ((v_leak - v_before) + i), -g_i * i, a * g_now, -g_th, z * g_v


@triton.jit
def _load_parameters(a, b, v_leak, v_th, v_reset, at, mask):
    return (
        tl.load(a + at, mask, other=0.0),
        tl.load(b + at, mask, other=0.0),
        tl.load(v_leak + at, mask, other=0.0),
        tl.load(v_th + at, mask, other=float("inf")),  # what only fills up a block never fires
        tl.load(v_reset + at, mask, other=0.0),
    )


# ------------------------------------------------------------------------------------------------- without recurrence


@triton.jit
def _forward(
    x, v_0, i_0, a, b, v_leak, v_th, v_reset, z, v_last, i_last, v_pre, i_pre, steps, size, neurons,
    KEEP: tl.constexpr, METHOD: tl.constexpr, ALPHA: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    member = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    a, b, v_leak, v_th, v_reset = _load_parameters(
        a, b, v_leak, v_th, v_reset, member * neurons + at % neurons, mask
    )  # fmt: skip
    state = member * size + at
    v, i = tl.load(v_0 + state, mask, other=0.0), tl.load(i_0 + state, mask, other=0.0)
    place = member * steps * size + at
    for _ in range(steps):
        i_now = i + tl.load(x + place, mask, other=0.0)
        v_now, spikes, v, i = _step(v, i_now, a, b, v_leak, v_th, v_reset, METHOD, ALPHA)
        tl.store(z + place, spikes, mask)
        if KEEP:
            tl.store(v_pre + place, v_now, mask)
            tl.store(i_pre + place, i_now, mask)
        place += size
    tl.store(v_last + state, v, mask)
    tl.store(i_last + state, i, mask)


@triton.jit
def _backward(
    grad_z, grad_v_pre, grad_v, grad_i, v_pre, i_pre, v_0, a, b, v_leak, v_th, v_reset, grad_x, grad_v_0, grad_i_0,
    grad_p, steps, size, neurons,
    METHOD: tl.constexpr, ALPHA: tl.constexpr, DETACH_RESET: tl.constexpr, WITH_Z: tl.constexpr, WITH_V: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    member = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    a, b, v_leak, v_th, v_reset = _load_parameters(
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
        _, v_after = _fire(v_next, v_th, v_reset, METHOD, ALPHA)
        v_before = tl.where(later, v_after, first)
        g_z, g_v_pre = zero, zero
        if WITH_Z:
            g_z = tl.load(grad_z + place, mask, other=0.0)
        if WITH_V:
            g_v_pre = tl.load(grad_v_pre + place, mask, other=0.0)
        g_i, g_v, q_a, q_b, q_leak, q_th, q_reset = _step_back(
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


# --------------------------------------------------------------------------- with recurrence, weights and state on chip


@triton.jit
def _recurrent_forward(
    x, v_0, i_0, w, a, b, v_leak, v_th, v_reset, z, v_last, i_last, v_pre, i_pre, steps, rows, neurons,
    KEEP: tl.constexpr, METHOD: tl.constexpr, ALPHA: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr,
    N: tl.constexpr,
):  # fmt: skip
    member = tl.program_id(1).to(tl.int64)
    row, n = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, N)
    a, b, v_leak, v_th, v_reset = _load_parameters(a, b, v_leak, v_th, v_reset, member * neurons + n, n < neurons)
    a, b, v_leak, v_th, v_reset = a[None, :], b[None, :], v_leak[None, :], v_th[None, :], v_reset[None, :]
    w_t = tl.load(  # w_t[k, n]: what neuron n receives from neuron k
        w + member * neurons * neurons + n[None, :] * neurons + n[:, None],
        (n[None, :] < neurons) & (n[:, None] < neurons), other=0.0,
    )  # fmt: skip
    mask = (row[:, None] < rows) & (n[None, :] < neurons)
    at = row[:, None].to(tl.int64) * neurons + n[None, :]
    size = rows.to(tl.int64) * neurons
    state = member * size + at
    v, i = tl.load(v_0 + state, mask, other=0.0), tl.load(i_0 + state, mask, other=0.0)
    spikes = tl.zeros_like(v)
    place = member * steps * size + at
    for _ in range(steps):
        i_now = i + tl.load(x + place, mask, other=0.0) + tl.dot(spikes, w_t, input_precision=PRECISION)
        v_now, spikes, v, i = _step(v, i_now, a, b, v_leak, v_th, v_reset, METHOD, ALPHA)
        tl.store(z + place, spikes, mask)
        if KEEP:
            tl.store(v_pre + place, v_now, mask)
            tl.store(i_pre + place, i_now, mask)
        place += size
    tl.store(v_last + state, v, mask)
    tl.store(i_last + state, i, mask)


@triton.jit
def _recurrent_backward(
    grad_z, grad_v_pre, grad_v, grad_i, v_pre, i_pre, v_0, w, a, b, v_leak, v_th, v_reset, grad_x, grad_v_0, grad_i_0,
    grad_p, steps, rows, neurons,
    METHOD: tl.constexpr, ALPHA: tl.constexpr, DETACH_RESET: tl.constexpr, WITH_Z: tl.constexpr, WITH_V: tl.constexpr,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    member = tl.program_id(1).to(tl.int64)
    row, n = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, N)
    a, b, v_leak, v_th, v_reset = _load_parameters(a, b, v_leak, v_th, v_reset, member * neurons + n, n < neurons)
    a, b, v_leak, v_th, v_reset = a[None, :], b[None, :], v_leak[None, :], v_th[None, :], v_reset[None, :]
    w_here = tl.load(
        w + member * neurons * neurons + n[:, None] * neurons + n[None, :],
        (n[None, :] < neurons) & (n[:, None] < neurons), other=0.0,
    )  # fmt: skip
    mask = (row[:, None] < rows) & (n[None, :] < neurons)
    at = row[:, None].to(tl.int64) * neurons + n[None, :]
    size = rows.to(tl.int64) * neurons
    state = member * size + at
    g_v, g_i = tl.load(grad_v + state, mask, other=0.0), tl.load(grad_i + state, mask, other=0.0)
    first = tl.load(v_0 + state, mask, other=0.0)
    zero = tl.zeros_like(first)
    g_x = zero
    p_a, p_b, p_leak, p_th, p_reset = zero, zero, zero, zero, zero
    place = (member * steps + steps - 1) * size + at
    second = (member * steps + 1) * size  # where the second step begins
    v = tl.load(v_pre + place, mask, other=0.0)
    for _ in range(steps):
        i = tl.load(i_pre + place, mask, other=0.0)
        later = place >= second
        v_next = tl.load(v_pre + place - size, mask & later, other=0.0)  # of the step before
        _, v_after = _fire(v_next, v_th, v_reset, METHOD, ALPHA)
        v_before = tl.where(later, v_after, first)
        g_z, g_v_pre = tl.dot(g_x, w_here, input_precision=PRECISION), zero
        if WITH_Z:
            g_z += tl.load(grad_z + place, mask, other=0.0)
        if WITH_V:
            g_v_pre = tl.load(grad_v_pre + place, mask, other=0.0)
        g_x, g_v, q_a, q_b, q_leak, q_th, q_reset = _step_back(
            g_z, g_v_pre, g_v, g_i, v, i, v_before, a, b, v_leak, v_th, v_reset, METHOD, ALPHA, DETACH_RESET
        )  # fmt: skip
        g_i = g_x
        tl.store(grad_x + place, g_x, mask)
        p_a, p_b, p_leak, p_th, p_reset = p_a + q_a, p_b + q_b, p_leak + q_leak, p_th + q_th, p_reset + q_reset
        v = v_next
        place -= size
    tl.store(grad_v_0 + state, g_v, mask)
    tl.store(grad_i_0 + state, g_i, mask)
    sums = (member * tl.num_programs(0) + tl.program_id(0)) * 5 * neurons + n
    tl.store(grad_p + sums, tl.sum(p_a, axis=0), n < neurons)
    tl.store(grad_p + sums + neurons, tl.sum(p_b, axis=0), n < neurons)
    tl.store(grad_p + sums + 2 * neurons, tl.sum(p_leak, axis=0), n < neurons)
    tl.store(grad_p + sums + 3 * neurons, tl.sum(p_th, axis=0), n < neurons)
    tl.store(grad_p + sums + 4 * neurons, tl.sum(p_reset, axis=0), n < neurons)


# ------------------------------------------------------------------------------- with recurrence, weights read in tiles


@triton.jit
def _times_weights(values, place, w, n, row_mask, neurons, PRECISION: tl.constexpr, N: tl.constexpr):
    """Multiply rows of values (K) with a tile of N columns of the weights."""
    total = tl.zeros((place.shape[0], N), values.dtype.element_ty)
    for first in range(0, neurons, N):
        k = first + tl.arange(0, N)
        part = tl.load(values + place + k[None, :], row_mask & (k[None, :] < neurons), other=0.0)
        tile = tl.load(
            w + k[:, None] * neurons + n[None, :], (k[:, None] < neurons) & (n[None, :] < neurons), other=0.0
        )
        total += tl.dot(part, tile, input_precision=PRECISION)
    return total


@triton.jit
def _tiled_forward(
    x, v_state, i_state, w_t, a, b, v_leak, v_th, v_reset, z, v_pre, i_pre, steps, rows, neurons,
    KEEP: tl.constexpr, METHOD: tl.constexpr, ALPHA: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr,
    N: tl.constexpr,
):  # fmt: skip
    member = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    row_mask = row < rows
    size = rows.to(tl.int64) * neurons
    at = row.to(tl.int64) * neurons
    place = member * steps * size + at
    for t in range(steps):
        for block in range(0, neurons, N):
            n = block + tl.arange(0, N)
            mask = row_mask & (n[None, :] < neurons)
            a_n, b_n, leak_n, th_n, reset_n = _load_parameters(
                a, b, v_leak, v_th, v_reset, member * neurons + n[None, :], n[None, :] < neurons
            )  # fmt: skip
            state = member * size + at + n[None, :]
            v, i = tl.load(v_state + state, mask, other=0.0), tl.load(i_state + state, mask, other=0.0)
            i_now = i + tl.load(x + place + n[None, :], mask, other=0.0)
            if t > 0:
                i_now += _times_weights(
                    z, place - size, w_t + member * neurons * neurons, n, row_mask, neurons, PRECISION, N
                )  # fmt: skip
            v_now, spikes, v, i = _step(v, i_now, a_n, b_n, leak_n, th_n, reset_n, METHOD, ALPHA)
            tl.store(z + place + n[None, :], spikes, mask)
            tl.store(v_state + state, v, mask)
            tl.store(i_state + state, i, mask)
            if KEEP:
                tl.store(v_pre + place + n[None, :], v_now, mask)
                tl.store(i_pre + place + n[None, :], i_now, mask)
        tl.debug_barrier()  # the next step reads the spikes that other threads of this program wrote
        place += size


@triton.jit
def _tiled_backward(
    grad_z, grad_v_pre, g_v_state, g_i_state, v_pre, i_pre, v_0, w, a, b, v_leak, v_th, v_reset, grad_x,
    grad_p, steps, rows, neurons,
    METHOD: tl.constexpr, ALPHA: tl.constexpr, DETACH_RESET: tl.constexpr, WITH_Z: tl.constexpr, WITH_V: tl.constexpr,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    member = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    row_mask = row < rows
    size = rows.to(tl.int64) * neurons
    at = row.to(tl.int64) * neurons
    place = (member * steps + steps - 1) * size + at
    second = (member * steps + 1) * size  # where the second step begins
    of_program = (member * tl.num_programs(0) + tl.program_id(0)) * 5 * neurons
    for back in range(steps):
        for block in range(0, neurons, N):
            n = block + tl.arange(0, N)
            mask = row_mask & (n[None, :] < neurons)
            here = place + n[None, :]
            a_n, b_n, leak_n, th_n, reset_n = _load_parameters(
                a, b, v_leak, v_th, v_reset, member * neurons + n[None, :], n[None, :] < neurons
            )  # fmt: skip
            state = member * size + at + n[None, :]
            g_v, g_i = tl.load(g_v_state + state, mask, other=0.0), tl.load(g_i_state + state, mask, other=0.0)
            v, i = tl.load(v_pre + here, mask, other=0.0), tl.load(i_pre + here, mask, other=0.0)
            later = here >= second
            v_next = tl.load(v_pre + here - size, mask & later, other=0.0)  # of the step before
            first = tl.load(v_0 + state, mask & (here < second), other=0.0)
            _, v_after = _fire(v_next, th_n, reset_n, METHOD, ALPHA)
            v_before = tl.where(later, v_after, first)
            g_z, g_v_pre = tl.zeros_like(v), tl.zeros_like(v)
            if WITH_Z:
                g_z += tl.load(grad_z + here, mask, other=0.0)
            if WITH_V:
                g_v_pre += tl.load(grad_v_pre + here, mask, other=0.0)
            if back > 0:
                g_z += _times_weights(
                    grad_x, place + size, w + member * neurons * neurons, n, row_mask, neurons, PRECISION, N
                )  # fmt: skip
            g_x, g_v, p_a, p_b, p_leak, p_th, p_reset = _step_back(
                g_z, g_v_pre, g_v, g_i, v, i, v_before, a_n, b_n, leak_n, th_n, reset_n, METHOD, ALPHA, DETACH_RESET
            )  # fmt: skip
            tl.store(grad_x + here, g_x, mask)
            tl.store(g_v_state + state, g_v, mask)
            tl.store(g_i_state + state, g_x, mask)
            _add_rows(grad_p + of_program, p_a, n, neurons)
            _add_rows(grad_p + of_program + neurons, p_b, n, neurons)
            _add_rows(grad_p + of_program + 2 * neurons, p_leak, n, neurons)
            _add_rows(grad_p + of_program + 3 * neurons, p_th, n, neurons)
            _add_rows(grad_p + of_program + 4 * neurons, p_reset, n, neurons)
        tl.debug_barrier()  # the next step reads what other threads of this program wrote
        place -= size


@triton.jit
def _add_rows(sums, terms, n, neurons):
    """Add the rows of terms to sums, which belong to this program alone."""
    mask = n < neurons
    tl.store(sums + n, tl.load(sums + n, mask, other=0.0) + tl.sum(terms, axis=0), mask)


# ------------------------------------------------------------------------------------------------- called by `fused`


def _precision(dtype: torch.dtype) -> str:
    """Return how products with weights round: as float32 does, unless the user allows less (three passes of TF32)."""
    if dtype == torch.float64:
        return "ieee"
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def lif_forward(x, v_0, i_0, w, a, b, v_leak, v_th, v_reset, method, alpha, keep):
    """Compute the sequence; see `snnparams.kernels.fused` for shapes."""
    members, steps, rows, neurons = x.shape
    z, v, i = torch.empty_like(x), v_0.clone(), i_0.clone()
    v_pre = torch.empty_like(x) if keep else x.new_empty(members, 0, 0, 0)
    i_pre = torch.empty_like(v_pre)
    if not x.numel():
        return z, v, i, v_pre, i_pre
    p = a, b, v_leak, v_th, v_reset
    exact = {"KEEP": keep, "METHOD": METHODS.index(method), "ALPHA": alpha}
    exact["enable_fp_fusion"] = False  # each operation rounded by itself, as PyTorch does
    if w is None:
        grid = triton.cdiv(rows * neurons, BLOCK), members
        _forward[grid](
            x, v_0, i_0, *p, z, v, i, v_pre, i_pre, steps, rows * neurons, neurons, BLOCK=BLOCK, **exact
        )  # fmt: skip
        return z, v, i, v_pre, i_pre
    grid, exact["PRECISION"] = (triton.cdiv(rows, ROWS), members), _precision(x.dtype)
    if neurons <= RESIDENT:
        n = max(16, triton.next_power_of_2(neurons))
        _recurrent_forward[grid](
            x, v_0, i_0, w, *p, z, v, i, v_pre, i_pre, steps, rows, neurons, ROWS=ROWS, N=n, **exact
        )  # fmt: skip
    else:
        w_t = w.transpose(1, 2).contiguous()
        _tiled_forward[grid](
            x, v, i, w_t, *p, z, v_pre, i_pre, steps, rows, neurons, ROWS=ROWS, N=TILE, **exact
        )  # fmt: skip
    return z, v, i, v_pre, i_pre


def lif_backward(
    grad_z, grad_v_pre, grad_v, grad_i, v_pre, i_pre, v_0, w, a, b, v_leak, v_th, v_reset,
    method, alpha, detach_reset, with_p, with_w,
):  # fmt: skip
    """Compute the gradients, those by neuron parameters also without `with_p`; see `snnparams.kernels.fused`."""
    members, steps, rows, neurons = v_pre.shape
    grad_v_0, grad_i_0, grad_x = grad_v.clone(), grad_i.clone(), torch.empty_like(v_pre)
    grad_w = v_pre.new_zeros(members, *((neurons, neurons) if with_w else (0, 0)))
    if not v_pre.numel():
        return grad_x, grad_v_0, grad_i_0, grad_w, v_pre.new_zeros(members, 5, neurons)
    options = {"METHOD": METHODS.index(method), "ALPHA": alpha, "DETACH_RESET": detach_reset}
    options |= {"WITH_Z": grad_z is not None, "WITH_V": grad_v_pre is not None, "enable_fp_fusion": True}
    grad_z, grad_v_pre = (v_pre if g is None else g for g in (grad_z, grad_v_pre))  # a pointer that is not read
    p = a, b, v_leak, v_th, v_reset
    if w is None:
        grid = triton.cdiv(rows * neurons, BLOCK), members
        grad_p = v_pre.new_empty(members, 5, rows, neurons)
        _backward[grid](
            grad_z, grad_v_pre, grad_v, grad_i, v_pre, i_pre, v_0, *p, grad_x, grad_v_0, grad_i_0, grad_p,
            steps, rows * neurons, neurons, BLOCK=BLOCK, **options,
        )  # fmt: skip
        return grad_x, grad_v_0, grad_i_0, grad_w, grad_p.sum(dim=2)
    grid, options["PRECISION"] = (triton.cdiv(rows, ROWS), members), _precision(v_pre.dtype)
    grad_p = v_pre.new_zeros(members, grid[0], 5, neurons)
    if neurons <= RESIDENT:
        n = max(16, triton.next_power_of_2(neurons))
        _recurrent_backward[grid](
            grad_z, grad_v_pre, grad_v, grad_i, v_pre, i_pre, v_0, w, *p, grad_x, grad_v_0, grad_i_0, grad_p,
            steps, rows, neurons, ROWS=ROWS, N=n, **options,
        )  # fmt: skip
    else:
        _tiled_backward[grid](
            grad_z, grad_v_pre, grad_v_0, grad_i_0, v_pre, i_pre, v_0, w, *p, grad_x, grad_p,
            steps, rows, neurons, ROWS=ROWS, N=TILE, **options,
        )  # fmt: skip
    if with_w and steps > 1:
        spikes = threshold(v_pre[:, :-1] - v_th[:, None, None], method, alpha)
        torch.bmm(grad_x[:, 1:].flatten(1, 2).transpose(1, 2), spikes.flatten(1, 2), out=grad_w)
    return grad_x, grad_v_0, grad_i_0, grad_w, grad_p.sum(dim=1)


# ------------------------------------------------------------------------------------------------------- the encoder


@triton.jit
def _encode(x, a, v_leak, v_th, v_reset, z, steps, size, BLOCK: tl.constexpr):
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


def encode(x, steps: int, a, v_leak, v_th, v_reset):
    """Return the spikes (T, ...) of neurons that constant currents x drive; all arguments have its shape."""
    z = x.new_empty(steps, *x.shape)
    if x.numel():
        given = [t.contiguous() for t in (x, a, v_leak, v_th, v_reset)]
        grid = (triton.cdiv(x.numel(), BLOCK),)
        _encode[grid](*given, z, steps, x.numel(), BLOCK=BLOCK, enable_fp_fusion=False)
    return z
