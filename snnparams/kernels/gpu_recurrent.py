"""Whole sequences of LIF neurons with recurrence, for Triton.

Neurons of one row of the batch need each other's spikes, rows do not: a program takes ROWS rows through all time steps.
Either weights and state stay on the chip from the first step to the last, or the state lies in global memory and the
weights, shared by all programs, come through the L2 cache in tiles in every step. No program waits for the host or for
another one, and nothing is summed in an order that changes from run to run. `snnparams.kernels.gpu` chooses and
launches. Of sizes it is as in `snnparams.kernels.gpu_kernels`: 64 bits.
"""

from __future__ import annotations

import triton
import triton.language as tl

from snnparams.kernels.gpu_kernels import fire, load_parameters, part, step, step_back

# ------------------------------------------------------------------------------------------- weights and state on chip


@triton.jit
def recurrent_forward(
    x, v_0, i_0, w, a, b, v_leak, v_th, v_reset, z, v_last, i_last, v_pre, i_pre, steps, rows, neurons,
    KEEP: tl.constexpr, METHOD: tl.constexpr, ALPHA: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr,
    N: tl.constexpr,
):  # fmt: skip
    """Take ROWS rows of at most N neurons through all time steps; shapes as in `snnparams.kernels.fused`."""
    rows, neurons = tl.cast(rows, tl.int64), tl.cast(neurons, tl.int64)
    member, first_row = part(rows, ROWS)
    row, n = first_row + tl.arange(0, ROWS), tl.arange(0, N)
    a, b, v_leak, v_th, v_reset = load_parameters(a, b, v_leak, v_th, v_reset, member * neurons + n, n < neurons)
    a, b, v_leak, v_th, v_reset = a[None, :], b[None, :], v_leak[None, :], v_th[None, :], v_reset[None, :]
    w_t = tl.load(  # w_t[k, n]: what neuron n receives from neuron k
        w + member * neurons * neurons + n[None, :] * neurons + n[:, None],
        (n[None, :] < neurons) & (n[:, None] < neurons), other=0.0,
    )  # fmt: skip
    mask = (row[:, None] < rows) & (n[None, :] < neurons)
    at = row[:, None] * neurons + n[None, :]
    size = rows * neurons
    state = member * size + at
    v, i = tl.load(v_0 + state, mask, other=0.0), tl.load(i_0 + state, mask, other=0.0)
    spikes = tl.zeros_like(v)
    place = member * steps * size + at
    for t in range(steps):
        received = tl.dot(spikes, w_t, input_precision=PRECISION)
        i_now = i + tl.load(x + place, mask, other=0.0) + tl.where(t > 0, received, 0.0)  # 0 times infinity is not 0
        v_now, spikes, v, i = step(v, i_now, a, b, v_leak, v_th, v_reset, METHOD, ALPHA)
        tl.store(z + place, spikes, mask)
        if KEEP:
            tl.store(v_pre + place, v_now, mask)
            tl.store(i_pre + place, i_now, mask)
        place += size
    tl.store(v_last + state, v, mask)
    tl.store(i_last + state, i, mask)


@triton.jit
def recurrent_backward(
    grad_z, grad_v_pre, grad_v, grad_i, v_pre, i_pre, v_0, w, a, b, v_leak, v_th, v_reset, grad_x, grad_v_0, grad_i_0,
    grad_p, steps, rows, neurons,
    METHOD: tl.constexpr, ALPHA: tl.constexpr, DETACH_RESET: tl.constexpr, WITH_Z: tl.constexpr, WITH_V: tl.constexpr,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Go back through all time steps; `grad_p` (E, programs, 5, N) is not yet summed over the programs."""
    rows, neurons = tl.cast(rows, tl.int64), tl.cast(neurons, tl.int64)
    member, first_row = part(rows, ROWS)
    row, n = first_row + tl.arange(0, ROWS), tl.arange(0, N)
    a, b, v_leak, v_th, v_reset = load_parameters(a, b, v_leak, v_th, v_reset, member * neurons + n, n < neurons)
    a, b, v_leak, v_th, v_reset = a[None, :], b[None, :], v_leak[None, :], v_th[None, :], v_reset[None, :]
    w_here = tl.load(
        w + member * neurons * neurons + n[:, None] * neurons + n[None, :],
        (n[None, :] < neurons) & (n[:, None] < neurons), other=0.0,
    )  # fmt: skip
    mask = (row[:, None] < rows) & (n[None, :] < neurons)
    at = row[:, None] * neurons + n[None, :]
    size = rows * neurons
    state = member * size + at
    g_v, g_i = tl.load(grad_v + state, mask, other=0.0), tl.load(grad_i + state, mask, other=0.0)
    first = tl.load(v_0 + state, mask, other=0.0)
    zero = tl.zeros_like(first)
    g_x = zero
    p_a, p_b, p_leak, p_th, p_reset = zero, zero, zero, zero, zero
    place = (member * steps + steps - 1) * size + at
    second = (member * steps + 1) * size  # where the second step begins
    v = tl.load(v_pre + place, mask, other=0.0)
    for back in range(steps):
        i = tl.load(i_pre + place, mask, other=0.0)
        later = place >= second
        v_next = tl.load(v_pre + place - size, mask & later, other=0.0)  # of the step before
        _, v_after = fire(v_next, v_th, v_reset, METHOD, ALPHA)
        v_before = tl.where(later, v_after, first)
        g_z = tl.where(back > 0, tl.dot(g_x, w_here, input_precision=PRECISION), 0.0)
        g_v_pre = zero
        if WITH_Z:
            g_z += tl.load(grad_z + place, mask, other=0.0)
        if WITH_V:
            g_v_pre = tl.load(grad_v_pre + place, mask, other=0.0)
        g_x, g_v, q_a, q_b, q_leak, q_th, q_reset = step_back(
            g_z, g_v_pre, g_v, g_i, v, i, v_before, a, b, v_leak, v_th, v_reset, METHOD, ALPHA, DETACH_RESET
        )  # fmt: skip
        g_i = g_x
        tl.store(grad_x + place, g_x, mask)
        p_a, p_b, p_leak, p_th, p_reset = p_a + q_a, p_b + q_b, p_leak + q_leak, p_th + q_th, p_reset + q_reset
        v = v_next
        place -= size
    tl.store(grad_v_0 + state, g_v, mask)
    tl.store(grad_i_0 + state, g_i, mask)
    sums = tl.program_id(0).to(tl.int64) * 5 * neurons + n
    tl.store(grad_p + sums, tl.sum(p_a, axis=0), n < neurons)
    tl.store(grad_p + sums + neurons, tl.sum(p_b, axis=0), n < neurons)
    tl.store(grad_p + sums + 2 * neurons, tl.sum(p_leak, axis=0), n < neurons)
    tl.store(grad_p + sums + 3 * neurons, tl.sum(p_th, axis=0), n < neurons)
    tl.store(grad_p + sums + 4 * neurons, tl.sum(p_reset, axis=0), n < neurons)


# ---------------------------------------------------------------------------------------------- weights read in tiles


@triton.jit
def times_weights(values, place, w, n, row_mask, neurons, PRECISION: tl.constexpr, N: tl.constexpr):
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
def tiled_forward(
    x, v_state, i_state, w_t, a, b, v_leak, v_th, v_reset, z, v_pre, i_pre, steps, rows, neurons,
    KEEP: tl.constexpr, METHOD: tl.constexpr, ALPHA: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr,
    N: tl.constexpr,
):  # fmt: skip
    """Take ROWS rows through all time steps, N neurons after the other; `w_t` (E, N, N) is the weights' transpose."""
    rows, neurons = tl.cast(rows, tl.int64), tl.cast(neurons, tl.int64)
    member, first_row = part(rows, ROWS)
    row = first_row + tl.arange(0, ROWS)[:, None]
    row_mask = row < rows
    size = rows * neurons
    at = row * neurons
    place = member * steps * size + at
    for t in range(steps):
        for block in range(0, neurons, N):
            n = block + tl.arange(0, N)
            mask = row_mask & (n[None, :] < neurons)
            a_n, b_n, leak_n, th_n, reset_n = load_parameters(
                a, b, v_leak, v_th, v_reset, member * neurons + n[None, :], n[None, :] < neurons
            )  # fmt: skip
            state = member * size + at + n[None, :]
            v, i = tl.load(v_state + state, mask, other=0.0), tl.load(i_state + state, mask, other=0.0)
            i_now = i + tl.load(x + place + n[None, :], mask, other=0.0)
            if t > 0:
                i_now += times_weights(
                    z, place - size, w_t + member * neurons * neurons, n, row_mask, neurons, PRECISION, N
                )  # fmt: skip
            v_now, spikes, v, i = step(v, i_now, a_n, b_n, leak_n, th_n, reset_n, METHOD, ALPHA)
            tl.store(z + place + n[None, :], spikes, mask)
            tl.store(v_state + state, v, mask)
            tl.store(i_state + state, i, mask)
            if KEEP:
                tl.store(v_pre + place + n[None, :], v_now, mask)
                tl.store(i_pre + place + n[None, :], i_now, mask)
        tl.debug_barrier()  # the next step reads the spikes that other threads of this program wrote
        place += size


@triton.jit
def tiled_backward(
    grad_z, grad_v_pre, g_v_state, g_i_state, v_pre, i_pre, v_0, w, a, b, v_leak, v_th, v_reset, grad_x,
    grad_p, steps, rows, neurons,
    METHOD: tl.constexpr, ALPHA: tl.constexpr, DETACH_RESET: tl.constexpr, WITH_Z: tl.constexpr, WITH_V: tl.constexpr,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Go back through all time steps, N neurons after the other; `grad_p` as in `recurrent_backward`, zero at first."""
    rows, neurons = tl.cast(rows, tl.int64), tl.cast(neurons, tl.int64)
    member, first_row = part(rows, ROWS)
    row = first_row + tl.arange(0, ROWS)[:, None]
    row_mask = row < rows
    size = rows * neurons
    at = row * neurons
    place = (member * steps + steps - 1) * size + at
    second = (member * steps + 1) * size  # where the second step begins
    of_program = tl.program_id(0).to(tl.int64) * 5 * neurons
    for back in range(steps):
        for block in range(0, neurons, N):
            n = block + tl.arange(0, N)
            mask = row_mask & (n[None, :] < neurons)
            here = place + n[None, :]
            a_n, b_n, leak_n, th_n, reset_n = load_parameters(
                a, b, v_leak, v_th, v_reset, member * neurons + n[None, :], n[None, :] < neurons
            )  # fmt: skip
            state = member * size + at + n[None, :]
            g_v, g_i = tl.load(g_v_state + state, mask, other=0.0), tl.load(g_i_state + state, mask, other=0.0)
            v, i = tl.load(v_pre + here, mask, other=0.0), tl.load(i_pre + here, mask, other=0.0)
            later = here >= second
            v_next = tl.load(v_pre + here - size, mask & later, other=0.0)  # of the step before
            first = tl.load(v_0 + state, mask & (here < second), other=0.0)
            _, v_after = fire(v_next, th_n, reset_n, METHOD, ALPHA)
            v_before = tl.where(later, v_after, first)
            g_z, g_v_pre = tl.zeros_like(v), tl.zeros_like(v)
            if WITH_Z:
                g_z += tl.load(grad_z + here, mask, other=0.0)
            if WITH_V:
                g_v_pre += tl.load(grad_v_pre + here, mask, other=0.0)
            if back > 0:
                g_z += times_weights(
                    grad_x, place + size, w + member * neurons * neurons, n, row_mask, neurons, PRECISION, N
                )  # fmt: skip
            g_x, g_v, p_a, p_b, p_leak, p_th, p_reset = step_back(
                g_z, g_v_pre, g_v, g_i, v, i, v_before, a_n, b_n, leak_n, th_n, reset_n, METHOD, ALPHA, DETACH_RESET
            )  # fmt: skip
            tl.store(grad_x + here, g_x, mask)
            tl.store(g_v_state + state, g_v, mask)
            tl.store(g_i_state + state, g_x, mask)
            add_rows(grad_p + of_program, p_a, n, neurons)
            add_rows(grad_p + of_program + neurons, p_b, n, neurons)
            add_rows(grad_p + of_program + 2 * neurons, p_leak, n, neurons)
            add_rows(grad_p + of_program + 3 * neurons, p_th, n, neurons)
            add_rows(grad_p + of_program + 4 * neurons, p_reset, n, neurons)
        tl.debug_barrier()  # the next step reads what other threads of this program wrote
        place -= size


@triton.jit
def add_rows(sums, terms, n, neurons):
    """Add the rows of terms to sums, which belong to this program alone."""
    mask = n < neurons
    tl.store(sums + n, tl.load(sums + n, mask, other=0.0) + tl.sum(terms, axis=0), mask)
