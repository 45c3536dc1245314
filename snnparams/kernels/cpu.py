"""Whole sequences on a CPU, compiled by Numba: the LIF recurrence, products with sparse spikes, the encoder.

The compiled functions run without Python's global lock, each thread on its share of the rows (the members of the
batch). They use as many threads as PyTorch, see `torch.set_num_threads`.
"""

from __future__ import annotations

import functools
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numba import njit

CORES = os.cpu_count() or 1
compiled = njit(nogil=True, cache=True, error_model="numpy")
# where rounding may differ from that of the reference: products with weights, gradients
fused_multiply_add = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
METHODS = ("heaviside", "super", "triangle", "tanh", "circ", "heavi_erfc")  # by their number in `_surrogate`

# The C library returns a freed block of some megabytes to the system at once and pays for it page by page when the
# next step needs it again. Freeing one block just below 32 MB, never touched, makes glibc keep such blocks.
torch.empty(2**25 - 2**14, dtype=torch.uint8)


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="snnparams")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork


def _shares(rows: int) -> list[tuple[int, int, int]]:
    """Divide rows among the threads: number of the share, first row, row after the last."""
    count = max(1, min(torch.get_num_threads(), rows, CORES))
    return [(k, rows * k // count, rows * (k + 1) // count) for k in range(count)]


def _in_threads(function, shares: list[tuple[int, int, int]], *args) -> None:
    """Call `function(*args, share, start, stop)` for each share, the first of them in this thread."""
    others = [_pool().submit(function, *args, *share) for share in shares[1:]]
    function(*args, *shares[0])
    for other in others:
        other.result()


# ---------------------------------------------------------------------------------------------------------- LIF


@fused_multiply_add
def _product_of_four(rows, chosen, count, w, out):
    """Write rows (4, K) times w (K, N), of which only the chosen ones of the K differ from zero, to out (4, N).

    Four rows and four k at a time keep each number that is loaded in use for four products; the compiler makes
    vector instructions of the loop over n.
    """
    out[:] = 0
    w_0, w_1, w_2, w_3 = out[0], out[1], out[2], out[3]  # gives them their type
    out_0, out_1, out_2, out_3 = out[0], out[1], out[2], out[3]
    for first in range(0, count - 3, 4):
        k_0, k_1, k_2, k_3 = chosen[first], chosen[first + 1], chosen[first + 2], chosen[first + 3]
        a_0, a_1, a_2, a_3 = rows[0, k_0], rows[0, k_1], rows[0, k_2], rows[0, k_3]
        b_0, b_1, b_2, b_3 = rows[1, k_0], rows[1, k_1], rows[1, k_2], rows[1, k_3]
        c_0, c_1, c_2, c_3 = rows[2, k_0], rows[2, k_1], rows[2, k_2], rows[2, k_3]
        d_0, d_1, d_2, d_3 = rows[3, k_0], rows[3, k_1], rows[3, k_2], rows[3, k_3]
        w_0, w_1, w_2, w_3 = w[k_0], w[k_1], w[k_2], w[k_3]
        for n in range(w.shape[1]):
            x_0, x_1, x_2, x_3 = w_0[n], w_1[n], w_2[n], w_3[n]
            out_0[n] += a_0 * x_0 + a_1 * x_1 + a_2 * x_2 + a_3 * x_3
            out_1[n] += b_0 * x_0 + b_1 * x_1 + b_2 * x_2 + b_3 * x_3
            out_2[n] += c_0 * x_0 + c_1 * x_1 + c_2 * x_2 + c_3 * x_3
            out_3[n] += d_0 * x_0 + d_1 * x_1 + d_2 * x_2 + d_3 * x_3
    for last in range(count - count % 4, count):
        k = chosen[last]
        w_0 = w[k]
        for n in range(w.shape[1]):
            out_0[n] += rows[0, k] * w_0[n]
            out_1[n] += rows[1, k] * w_0[n]
            out_2[n] += rows[2, k] * w_0[n]
            out_3[n] += rows[3, k] * w_0[n]


@compiled
def _forward(x, v, i, w_t, a, b, v_leak, v_th, v_reset, z, v_pre, i_pre, recurrent, keep, share, start, stop):
    """Advance rows start..stop of x (T, B, N), four at a time; v and i (B, N) hold the first state, then the last."""
    steps, _, neurons = x.shape
    zero, one = x.dtype.type(0), x.dtype.type(1)
    fired, chosen = np.zeros((4, neurons), x.dtype), np.empty(neurons, np.int64)
    received = np.zeros((4, neurons), x.dtype)
    i_row, v_row = np.empty(neurons, x.dtype), np.empty(neurons, x.dtype)
    for block in range(start, stop, 4):
        fired[:] = 0
        for t in range(steps):
            if recurrent and t > 0:
                count = 0
                for n in range(neurons):  # neurons that fired in any of the rows
                    chosen[count] = n
                    count += fired[0, n] + fired[1, n] + fired[2, n] + fired[3, n] > zero
                _product_of_four(fired, chosen, count, w_t, received)
            elif recurrent:
                received[:] = 0
            for r in range(block, min(block + 4, stop)):
                row, z_row, v_state, i_state = received[r - block], z[t, r], v[r], i[r]
                for n in range(neurons):
                    i_row[n] = (i_state[n] + x[t, r, n]) + row[n]
                for n in range(neurons):
                    v_row[n] = v_state[n] + a[n] * ((v_leak[n] - v_state[n]) + i_row[n])
                for n in range(neurons):
                    i_state[n] = i_row[n] - b[n] * i_row[n]
                for n in range(neurons):
                    z_row[n] = one if v_row[n] > v_th[n] else zero
                for n in range(neurons):
                    v_state[n] = v_reset[n] if v_row[n] > v_th[n] else v_row[n]
                if keep:
                    v_pre[t, r] = v_row
                    i_pre[t, r] = i_row
                if recurrent:
                    fired[r - block] = z_row


@fused_multiply_add
def _surrogate(v, v_th, method, alpha, out):
    """Write the surrogate derivative at v - v_th; one loop per spike function, so that each is vectorised."""
    neurons = len(out)
    zero, one, two = v.dtype.type(0), v.dtype.type(1), v.dtype.type(2)
    if method == 0:
        out[:] = 0
    elif method == 1:
        for n in range(neurons):
            s = one + alpha * abs(v[n] - v_th[n])
            out[n] = one / (s * s)
    elif method == 2:
        for n in range(neurons):
            s = one - abs(v[n] - v_th[n])
            out[n] = alpha * s if s > zero else zero
    elif method == 3:
        for n in range(neurons):
            s = np.tanh(alpha * (v[n] - v_th[n]))
            out[n] = one - s * s
    elif method == 4:
        for n in range(neurons):
            s = (v[n] - v_th[n]) / alpha
            s = one + s * s
            out[n] = one / (s * np.sqrt(s))
    else:
        scale = two / np.sqrt(v.dtype.type(np.pi))
        for n in range(neurons):
            s = alpha * (v[n] - v_th[n])
            out[n] = scale * np.exp(-s * s)


@fused_multiply_add
def _backward(
    grad_z, grad_v_pre, v_pre, i_pre, v_0, w, a, b, v_leak, v_th, v_reset, method, alpha, detach_reset,
    with_z, with_v, recurrent, with_p, grad_v, grad_i, grad_x, grad_p, share, start, stop
):  # fmt: skip
    """Go back through all steps in rows start..stop, four at a time.

    grad_v and grad_i (B, N) hold the gradients by the state after the last step, then by the one before the first.
    """
    steps, _, neurons = v_pre.shape
    dtype = v_pre.dtype
    zero = dtype.type(0)
    everyone = np.arange(neurons)
    g_x, received = np.zeros((4, neurons), dtype), np.zeros((4, neurons), dtype)
    g_z, g_v, before = np.empty(neurons, dtype), np.empty(neurons, dtype), np.empty(neurons, dtype)
    sums = np.zeros((5, neurons), dtype)
    for block in range(start, stop, 4):
        of_block = np.zeros((5, neurons), dtype)  # summed by block first: fewer roundings
        for t in range(steps - 1, -1, -1):
            if recurrent and t < steps - 1:
                _product_of_four(g_x, everyone, neurons, w, received)
            elif recurrent:
                received[:] = 0
            for r in range(block, min(block + 4, stop)):
                v, i, g_v_row, g_i_row, g_x_row = v_pre[t, r], i_pre[t, r], grad_v[r], grad_i[r], g_x[r - block]
                # g_z: what passes the threshold
                _surrogate(v, v_th, method, alpha, before)
                if with_z:
                    g_z_row, row = grad_z[t, r], received[r - block]
                    for n in range(neurons):
                        g_z[n] = g_z_row[n] + row[n]
                else:
                    g_z[:] = received[r - block]
                if not detach_reset:
                    for n in range(neurons):
                        g_z[n] += g_v_row[n] * (v_reset[n] - v[n])
                for n in range(neurons):
                    g_z[n] *= before[n]
                # g_v: by the voltage before the reset
                for n in range(neurons):
                    g_v[n] = zero if v[n] > v_th[n] else g_v_row[n]
                for n in range(neurons):
                    g_v[n] += g_z[n]
                if with_v:
                    g_v_pre_row = grad_v_pre[t, r]
                    for n in range(neurons):
                        g_v[n] += g_v_pre_row[n]
                if with_p:
                    if t > 0:
                        v_before = v_pre[t - 1, r]
                        for n in range(neurons):
                            before[n] = v_reset[n] if v_before[n] > v_th[n] else v_before[n]
                    else:
                        before[:] = v_0[r]
                    p_a, p_b, p_leak, p_th, p_reset = of_block[0], of_block[1], of_block[2], of_block[3], of_block[4]
                    for n in range(neurons):
                        p_a[n] += g_v[n] * ((v_leak[n] - before[n]) + i[n])
                    for n in range(neurons):
                        p_b[n] -= g_i_row[n] * i[n]
                    for n in range(neurons):
                        p_leak[n] += a[n] * g_v[n]
                    for n in range(neurons):
                        p_th[n] -= g_z[n]
                    for n in range(neurons):
                        p_reset[n] += g_v_row[n] if v[n] > v_th[n] else zero
                for n in range(neurons):
                    g_x_row[n] = (g_i_row[n] - b[n] * g_i_row[n]) + a[n] * g_v[n]
                for n in range(neurons):
                    g_v_row[n] = g_v[n] - a[n] * g_v[n]
                g_i_row[:] = g_x_row
                grad_x[t, r] = g_x_row
        sums += of_block
    grad_p[share] = sums


def lif_forward(x, v_0, i_0, w, a, b, v_leak, v_th, v_reset, keep):
    """Compute the sequence; see `snnparams.kernels.fused` for shapes."""
    z, v, i = torch.empty_like(x), v_0.clone(), i_0.clone()
    v_pre = torch.empty_like(x) if keep else x.new_empty(x.shape[0], 0, 0, 0)
    i_pre = torch.empty_like(v_pre)
    w_t = x.new_empty(x.shape[0], 0, 0) if w is None else w.transpose(1, 2).contiguous()
    arrays = [t.numpy() for t in (x, v, i, w_t, a, b, v_leak, v_th, v_reset, z, v_pre, i_pre)]
    for member in zip(*arrays, strict=True):
        _in_threads(_forward, _shares(x.shape[2]), *member, w is not None, keep)
    return z, v, i, v_pre, i_pre


def lif_backward(
    grad_z, grad_v_pre, grad_v, grad_i, v_pre, i_pre, v_0, w, a, b, v_leak, v_th, v_reset,
    method, alpha, detach_reset, with_p, with_w,
):  # fmt: skip
    """Compute the gradients; see `snnparams.kernels.fused` for shapes."""
    members, steps, rows, neurons = v_pre.shape
    grad_v, grad_i, grad_x = grad_v.clone(), grad_i.clone(), torch.empty_like(v_pre)
    shares = _shares(rows)
    grad_p = v_pre.new_zeros(members, len(shares), 5, neurons)
    grad_w = v_pre.new_zeros(members, *((neurons, neurons) if with_w else (0, 0)))
    alpha = a.numpy().dtype.type(alpha)  # a number of the tensor's type keeps float32 arithmetic in float32
    nothing = v_pre.new_empty(members, 0, 0, 1)
    flags = METHODS.index(method), alpha, detach_reset, grad_z is not None, grad_v_pre is not None, w is not None
    given = [nothing if t is None else t for t in (grad_z, grad_v_pre)]
    given += [v_pre, i_pre, v_0, nothing[..., 0] if w is None else w, a, b, v_leak, v_th, v_reset]
    for e in range(members):
        arrays = [t[e].numpy() for t in given]
        out = [t[e].numpy() for t in (grad_v, grad_i, grad_x, grad_p)]
        _in_threads(_backward, shares, *arrays, *flags, with_p, *out)
        if with_w and steps > 1:
            spikes = (v_pre[e, :-1] > v_th[e]).to(v_pre.dtype)
            torch.mm(grad_x[e, 1:].reshape(-1, neurons).t(), spikes.view(-1, neurons), out=grad_w[e])
    return grad_x, grad_v, grad_i, grad_w, grad_p.sum(dim=1)


# ------------------------------------------------------------------------------------- products with sparse spikes


@compiled
def _row_starts(step, row, rows, row_start):
    for k in range(len(step)):
        row_start[step[k] * rows + row[k] + 1] += 1
    for r in range(len(row_start) - 1):
        row_start[r + 1] += row_start[r]


def compress(spikes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a coalesced sparse COO tensor (T, B, I) as T * B compressed rows."""
    steps, rows, _ = spikes.shape
    step, row, column = spikes.indices()
    row_start = torch.zeros(steps * rows + 1, dtype=torch.int64)
    _row_starts(step.numpy(), row.numpy(), rows, row_start.numpy())
    return row_start, column, spikes.values()


@compiled
def _product(row_start, column, values, w_t, out, share, start, stop):
    for r in range(start, stop):
        row = out[r]
        row[:] = 0
        for k in range(row_start[r], row_start[r + 1]):
            weights, value = w_t[column[k]], values[k]
            for n in range(len(row)):
                row[n] += value * weights[n]


@compiled
def _outer_products(row_start, column, values, grad, out, share, start, stop):
    sums = out[share]
    for r in range(start, stop):
        row = grad[r]
        for k in range(row_start[r], row_start[r + 1]):
            weights, value = sums[column[k]], values[k]
            for n in range(len(row)):
                weights[n] += value * row[n]


def product(row_start, column, values, weights):
    """Multiply compressed rows (R, I) with weights (H, I): shape (R, H)."""
    out = weights.new_empty(len(row_start) - 1, len(weights))
    arrays = [t.numpy() for t in (row_start, column, values, weights.t().contiguous(), out)]
    _in_threads(_product, _shares(len(out)), *arrays)
    return out


def weight_gradient(row_start, column, values, grad, inputs: int):
    """Return the gradient (H, I) of that product by the weights, from that by the result (R, H)."""
    shares = _shares(len(grad))
    sums = grad.new_zeros(len(shares), inputs, grad.shape[1])  # one sum for each thread
    arrays = [t.numpy() for t in (row_start, column, values, grad.contiguous(), sums)]
    _in_threads(_outer_products, shares, *arrays)
    return sums.sum(dim=0).t().contiguous()


# ---------------------------------------------------------------------------------------------------- the encoder


@compiled
def _spike_times(x, steps, a, v_leak, v_th, v_reset, times, counts, share, start, stop):
    """Write the first spike time of each value and the interval to the next one, in steps, 0 for never.

    After a spike the voltage is v_reset again and the current still the same, so that all intervals are equal.
    The arithmetic is that of `constant_current_lif_encode`, step by step; for v_reset = 0 rounding is the same too.
    """
    margin = 8 * np.finfo(x.dtype).eps
    for r in range(start, stop):
        for n in range(x.shape[1]):
            times[0, r, n] = times[1, r, n] = 0
            rest, th = v_leak[r, n] + x[r, n], v_th[r, n]
            for k in range(2):
                v = v_reset[r, n] if k == 1 else x.dtype.type(0)
                # the voltage stays between where it begins and where it tends
                if max(rest, v) + margin * (abs(v_leak[r, n]) + abs(x[r, n]) + abs(th)) < th:
                    break
                for t in range(1, steps + 1):
                    v = v + a[r, n] * ((v_leak[r, n] - v) + x[r, n])
                    if v - th > 0:
                        times[k, r, n] = t
                        break
                if times[k, r, n] == 0:
                    break
            t = times[0, r, n]
            while 0 < t <= steps:
                counts[share, t - 1] += 1
                if times[1, r, n] == 0:
                    break
                t += times[1, r, n]


@compiled
def _write_spikes(steps, times, position, indices, share, start, stop):
    place = position[share]
    for r in range(start, stop):
        for n in range(times.shape[2]):
            t = times[0, r, n]
            while 0 < t <= steps:
                k = place[t - 1]
                indices[0, k], indices[1, k], indices[2, k] = t - 1, r, n
                place[t - 1] += 1
                if times[1, r, n] == 0:
                    break
                t += times[1, r, n]


def encode(x, steps: int, a, v_leak, v_th, v_reset):
    """Return the indices (3, spikes) of the spikes of neurons that x (R, N) drives; all arguments have its shape."""
    times = torch.empty(2, *x.shape, dtype=torch.int32)
    shares = _shares(len(x))
    counts = torch.zeros(len(shares), steps, dtype=torch.int64)
    arrays = [t.numpy() for t in (a, v_leak, v_th, v_reset, times, counts)]
    _in_threads(_spike_times, shares, x.numpy(), steps, *arrays)
    ends = counts.t().flatten().cumsum(0)  # in the order in which spikes are stored: by step, then by share
    position = ends.view(steps, -1).t().contiguous() - counts
    indices = torch.empty(3, int(ends[-1]), dtype=torch.int64)
    _in_threads(_write_spikes, shares, steps, times.numpy(), position.numpy(), indices.numpy())
    return indices
