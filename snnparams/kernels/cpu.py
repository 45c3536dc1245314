"""Whole sequences on a CPU, compiled by Numba: the LIF recurrence, products with sparse spikes, the encoder.

The compiled functions run without Python's global lock, each thread on its share of the rows (the members of the
batch). They use as many threads as PyTorch, see `torch.set_num_threads`. The recurrences are those of chapter 8.
"""

from __future__ import annotations

import functools
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numba import njit

compiled = njit(nogil=True, cache=True, error_model="numpy")
METHODS = ("heaviside", "super", "triangle", "tanh", "circ", "heavi_erfc")  # by their number in `_surrogate`


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="snnparams")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork


def _shares(rows: int) -> list[tuple[int, int, int]]:
    """Divide rows among the threads: number of the share, first row, row after the last."""
    count = min(torch.get_num_threads(), rows, os.cpu_count())
    return [(k, rows * k // count, rows * (k + 1) // count) for k in range(count)]


def _in_threads(function, shares: list[tuple[int, int, int]], *args) -> None:
    """Call `function(*args, share, start, stop)` for each share, the first of them in this thread."""
    others = [_pool().submit(function, *args, *share) for share in shares[1:]]
    function(*args, *shares[0])
    for other in others:
        other.result()


# ---------------------------------------------------------------------------------------------------------- LIF


@compiled
def _forward(x, v, i, w_t, a, b, v_leak, v_th, v_reset, z, v_pre, i_pre, recurrent, keep, share, start, stop):
    """Advance rows start..stop of x (T, B, N); v and i (B, N) hold the initial state, then the last one."""
    steps, _, neurons = x.shape
    from_spikes = np.zeros(neurons, x.dtype)
    fired = np.empty(neurons + 1, np.int64)  # neurons that spiked in the last step
    i_row, v_row = np.empty(neurons, x.dtype), np.empty(neurons, x.dtype)
    for r in range(start, stop):
        count = 0
        for t in range(steps):
            if recurrent:
                from_spikes[:] = 0
                for k in range(count):
                    weights = w_t[fired[k]]
                    for n in range(neurons):
                        from_spikes[n] += weights[n]
            for n in range(neurons):
                i_row[n] = (i[r, n] + x[t, r, n]) + from_spikes[n]
            for n in range(neurons):
                v_row[n] = v[r, n] + a[n] * ((v_leak[n] - v[r, n]) + i_row[n])
            for n in range(neurons):
                i[r, n] = i_row[n] - b[n] * i_row[n]
            for n in range(neurons):
                z[t, r, n] = 1 if v_row[n] > v_th[n] else 0
                v[r, n] = v_reset[n] if v_row[n] > v_th[n] else v_row[n]
            if keep:
                v_pre[t, r] = v_row
                i_pre[t, r] = i_row
            if recurrent:
                count = 0
                for n in range(neurons):
                    fired[count] = n
                    count += v_row[n] > v_th[n]


@compiled
def _surrogate(v, v_th, method, alpha, out):
    """Write the surrogate derivative at v - v_th; one loop per spike function, so that each is vectorised."""
    neurons = len(out)
    if method == 0:
        out[:] = 0
    elif method == 1:
        for n in range(neurons):
            s = 1 + alpha * abs(v[n] - v_th[n])
            out[n] = 1 / (s * s)
    elif method == 2:
        for n in range(neurons):
            out[n] = alpha * max(1 - abs(v[n] - v_th[n]), 0)
    elif method == 3:
        for n in range(neurons):
            s = np.tanh(alpha * (v[n] - v_th[n]))
            out[n] = 1 - s * s
    elif method == 4:
        for n in range(neurons):
            s = (v[n] - v_th[n]) / alpha
            s = 1 + s * s
            out[n] = 1 / (s * np.sqrt(s))
    else:
        for n in range(neurons):
            s = alpha * (v[n] - v_th[n])
            out[n] = 2 / np.sqrt(np.pi) * np.exp(-s * s)


@compiled
def _backward(
    grad_z, grad_v_pre, grad_rec, v_pre, i_pre, v_0, a, b, v_leak, v_th, v_reset, method, alpha, detach_reset,
    with_z, with_v, with_rec, with_p, first, last, grad_v, grad_i, grad_x, grad_p, share, start, stop
):  # fmt: skip
    """Go back from step last - 1 to step first in rows start..stop.

    grad_v and grad_i (B, N) hold the gradients by the state after the steps, then by the one before them.
    """
    neurons = v_pre.shape[2]
    sigma, g_z, g_v = np.empty(neurons, a.dtype), np.empty(neurons, a.dtype), np.empty(neurons, a.dtype)
    before = np.empty(neurons, a.dtype)
    total, row = np.zeros((5, neurons), a.dtype), np.zeros((5, neurons), a.dtype)  # in two levels, against rounding
    for r in range(start, stop):
        row[:] = 0
        for t in range(last - 1, first - 1, -1):
            v, i = v_pre[t, r], i_pre[t, r]
            g_v_row, g_i_row, g_x_row = grad_v[r], grad_i[r], grad_x[t, r]
            _surrogate(v, v_th, method, alpha, sigma)
            if with_z:
                g_z[:] = grad_z[t, r]
            else:
                g_z[:] = 0
            if with_rec:
                for n in range(neurons):
                    g_z[n] += grad_rec[r, n]
            if not detach_reset:
                for n in range(neurons):
                    g_z[n] += g_v_row[n] * (v_reset[n] - v[n])
            for n in range(neurons):
                sigma[n] *= g_z[n]  # from here on the gradient that passes the threshold
            for n in range(neurons):
                g_v[n] = (0 if v[n] > v_th[n] else g_v_row[n]) + sigma[n]
            if with_v:
                for n in range(neurons):
                    g_v[n] += grad_v_pre[t, r, n]
            if with_p:
                if t > 0:
                    v_before = v_pre[t - 1, r]
                    for n in range(neurons):
                        before[n] = v_reset[n] if v_before[n] > v_th[n] else v_before[n]
                else:
                    before[:] = v_0[r]
                for n in range(neurons):
                    row[0, n] += g_v[n] * ((v_leak[n] - before[n]) + i[n])
                for n in range(neurons):
                    row[1, n] -= g_i_row[n] * i[n]
                for n in range(neurons):
                    row[2, n] += a[n] * g_v[n]
                for n in range(neurons):
                    row[3, n] -= sigma[n]
                for n in range(neurons):
                    row[4, n] += g_v_row[n] if v[n] > v_th[n] else 0
            for n in range(neurons):
                g_x_row[n] = (g_i_row[n] - b[n] * g_i_row[n]) + a[n] * g_v[n]
            for n in range(neurons):
                g_i_row[n] = g_x_row[n]
            for n in range(neurons):
                g_v_row[n] = g_v[n] - a[n] * g_v[n]
        if with_p:
            total += row
    if with_p:
        grad_p[share] += total


def lif_forward(x, v_0, i_0, w, a, b, v_leak, v_th, v_reset, keep, precision):
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
    method, alpha, detach_reset, with_p, with_w, precision,
):  # fmt: skip
    """Compute the gradients; see `snnparams.kernels.fused` for shapes."""
    members, steps, rows, neurons = v_pre.shape
    grad_v, grad_i = grad_v.clone(), grad_i.clone()
    grad_x = torch.empty_like(v_pre)
    shares = _shares(rows)
    grad_p = v_pre.new_zeros(members, len(shares), 5, neurons)
    grad_w = v_pre.new_zeros(members, *((neurons, neurons) if with_w else (0, 0)))
    grad_rec = v_pre.new_zeros(rows, neurons)
    nothing = v_pre.new_empty(0, 0, 0).numpy()
    # a true number of the tensor's type keeps float32 arithmetic in float32
    alpha = a.numpy().dtype.type(alpha)
    for e in range(members):
        given = [t[e].numpy() for t in (v_pre, i_pre, v_0, a, b, v_leak, v_th, v_reset)]
        g_z, g_v_pre = (nothing if t is None else t[e].numpy() for t in (grad_z, grad_v_pre))
        flags = METHODS.index(method), alpha, detach_reset, grad_z is not None, grad_v_pre is not None
        out = [t[e].numpy() for t in (grad_v, grad_i, grad_x, grad_p)]

        def back(recurrent, first, last, shares, g_z=g_z, g_v_pre=g_v_pre, given=given, flags=flags, out=out):
            span = recurrent, with_p, first, last
            _in_threads(_backward, shares, g_z, g_v_pre, grad_rec.numpy(), *given, *flags, *span, *out)

        if w is None:
            back(False, 0, steps, shares)
            continue
        for t in range(steps - 1, -1, -1):  # one dense product per step, because surrogate gradients are dense
            if t < steps - 1:
                torch.mm(grad_x[e, t + 1], w[e], out=grad_rec)
            back(t < steps - 1, t, t + 1, [(0, 0, rows)])
        if with_w and steps > 1:
            spikes = v_pre[e, :-1] > v_th[e]
            sums = grad_x[e, 1:].reshape(-1, neurons)
            rows_of_spikes = _compress(spikes.reshape(-1, neurons), sums.dtype)
            grad_w[e] = weight_gradient(*rows_of_spikes, sums, neurons)
    return grad_x, grad_v, grad_i, grad_w, grad_p.sum(dim=1)


# ------------------------------------------------------------------------------------- products with sparse spikes


@compiled
def _count(spikes, row_start):
    for r in range(spikes.shape[0]):
        count = 0
        for n in range(spikes.shape[1]):
            count += spikes[r, n]
        row_start[r + 1] = row_start[r] + count


@compiled
def _fill(spikes, row_start, column, share, start, stop):
    for r in range(start, stop):
        k = row_start[r]
        for n in range(spikes.shape[1]):
            if spikes[r, n]:
                column[k] = n
                k += 1


def _compress(spikes: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return spikes, bool (R, N), as compressed rows: where each begins, its columns, their values."""
    row_start = torch.zeros(len(spikes) + 1, dtype=torch.int64)
    _count(spikes.numpy(), row_start.numpy())
    column = torch.empty(int(row_start[-1]), dtype=torch.int64)
    _in_threads(_fill, _shares(len(spikes)), spikes.numpy(), row_start.numpy(), column.numpy())
    return row_start, column, torch.ones(len(column), dtype=dtype)


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
    The arithmetic is that of `constant_current_lif_encode`, step by step, so that rounding is the same too.
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
