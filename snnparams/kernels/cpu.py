"""Whole sequences on a CPU, compiled by Numba: the LIF recurrence, products with sparse spikes, the encoder.

Each function works on a share of the rows (the members of the batch) and is compiled twice: for one share, and for
all shares at once in Numba's threads. There are as many shares as PyTorch has threads, see `torch.set_num_threads`.
Where Numba finds OpenMP (Linux), its threads are those of PyTorch, so that the two never compete for the cores.
"""

from __future__ import annotations

import threading

import numpy as np
import torch
from numba import njit, prange

compiled = njit(nogil=True, cache=True, error_model="numpy")
in_threads = njit(nogil=True, cache=True, error_model="numpy", parallel=True)
# where rounding may differ from that of the reference: products with weights, gradients
fused_multiply_add = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
METHODS = ("heaviside", "super", "triangle", "tanh", "circ", "heavi_erfc")  # by their number in `_surrogate`
LANES = 16  # numbers in the widest vector register: rows of weights are padded to a multiple of it
one_at_a_time = threading.Lock()  # not all of Numba's thread pools bear two callers

# The C library returns a freed block of some megabytes to the system at once and pays for it page by page when the
# next step needs it again. Freeing one block just below 32 MB, never touched, makes glibc keep such blocks.
torch.empty(2**25 - 2**14, dtype=torch.uint8)


def _shares(rows: int) -> np.ndarray:
    """Divide rows among the threads: where each share begins, and where the last one ends."""
    count = max(1, min(torch.get_num_threads(), rows))
    return np.linspace(0, rows, count + 1).astype(np.int64)


def _run(function, function_in_threads, bounds: np.ndarray, *args) -> None:
    """Call a compiled function for all shares; with one share, without threads (they do not survive a fork)."""
    if len(bounds) == 2:
        function(*args, 0, 0, bounds[1])
    else:
        with one_at_a_time:
            function_in_threads(bounds, *args)


def _padded(w: torch.Tensor) -> torch.Tensor:
    """Return w with zeros appended to its rows, up to a multiple of the width of a vector."""
    return torch.nn.functional.pad(w, (0, -w.shape[-1] % LANES)).contiguous()


def _of_all_shares(sums: torch.Tensor, outputs: int) -> torch.Tensor:
    """Return the gradient (..., H, I) by weights, of which each share has a sum (..., shares, I, H and padding)."""
    return sums.sum(dim=-3)[..., :outputs].mT.contiguous()


# ---------------------------------------------------------------------------------------------------------- LIF
#
# A block of rows is one stretch of memory, of `size` numbers; the neuron parameters are repeated for each of its rows.


@fused_multiply_add
def _product_of_four(rows, chosen, count, w, out):
    """Write rows (4, K) times w (K, P), of which only the chosen ones of the K differ from zero, to out (4, P).

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
def _forward(x, v, i, w_t, a, b, v_leak, v_th, v_reset, z, v_pre, i_pre, neurons, recurrent, keep, share, start, stop):
    """Advance rows start..stop of x (T, B * N); v and i (B * N) hold the first state, then the last."""
    steps = len(x)
    zero, one = x.dtype.type(0), x.dtype.type(1)
    fired, chosen = np.zeros((4, neurons), x.dtype), np.empty(neurons, np.int64)
    received = np.zeros((4, w_t.shape[1]), x.dtype)
    i_now, v_now = np.empty(len(a), x.dtype), np.empty(len(a), x.dtype)
    for block in range(start, stop, len(a) // neurons):
        first, last = block * neurons, min(block * neurons + len(a), stop * neurons)
        size = last - first
        v_state, i_state = v[first:last], i[first:last]
        for t in range(steps):
            x_t, z_t = x[t, first:last], z[t, first:last]
            for n in range(size):
                i_now[n] = i_state[n] + x_t[n]
            if recurrent and t > 0:
                count = 0
                for n in range(neurons):  # neurons that fired in any of the rows
                    chosen[count] = n
                    count += fired[0, n] + fired[1, n] + fired[2, n] + fired[3, n] > zero
                _product_of_four(fired, chosen, count, w_t, received)
                for r in range(size // neurons):
                    i_row, row = i_now[r * neurons : (r + 1) * neurons], received[r]
                    for n in range(neurons):
                        i_row[n] += row[n]
            for n in range(size):
                v_now[n] = v_state[n] + a[n] * ((v_leak[n] - v_state[n]) + i_now[n])
            for n in range(size):
                i_state[n] = i_now[n] - b[n] * i_now[n]
            for n in range(size):
                z_t[n] = one if v_now[n] > v_th[n] else zero
            for n in range(size):
                v_state[n] = v_reset[n] if v_now[n] > v_th[n] else v_now[n]
            if keep:
                v_pre[t, first:last] = v_now[:size]
                i_pre[t, first:last] = i_now[:size]
            if recurrent:
                fired[:] = zero
                for r in range(size // neurons):
                    fired[r] = z_t[r * neurons : (r + 1) * neurons]


@in_threads
def _forward_in_threads(
    bounds, x, v, i, w_t, a, b, v_leak, v_th, v_reset, z, v_pre, i_pre, neurons, recurrent, keep
):  # fmt: skip
    for k in prange(len(bounds) - 1):
        _forward(
            x, v, i, w_t, a, b, v_leak, v_th, v_reset, z, v_pre, i_pre, neurons, recurrent, keep,
            k, bounds[k], bounds[k + 1],
        )  # fmt: skip


@fused_multiply_add
def _surrogate(v, v_th, method, alpha, out):
    """Write the surrogate derivative at v - v_th; one loop per spike function, so that each is vectorised."""
    size = len(v)
    zero, one, two = v.dtype.type(0), v.dtype.type(1), v.dtype.type(2)
    if method == 0:
        out[:] = 0
    elif method == 1:
        for n in range(size):
            s = one + alpha * abs(v[n] - v_th[n])
            out[n] = one / (s * s)
    elif method == 2:
        for n in range(size):
            s = one - abs(v[n] - v_th[n])
            out[n] = alpha * s if s > zero else zero
    elif method == 3:
        for n in range(size):
            s = np.tanh(alpha * (v[n] - v_th[n]))
            out[n] = one - s * s
    elif method == 4:
        for n in range(size):
            s = (v[n] - v_th[n]) / alpha
            s = one + s * s
            out[n] = one / (s * np.sqrt(s))
    else:
        scale = two / np.sqrt(v.dtype.type(np.pi))
        for n in range(size):
            s = alpha * (v[n] - v_th[n])
            out[n] = scale * np.exp(-s * s)


@fused_multiply_add
def _backward(
    grad_z, grad_v_pre, v_pre, i_pre, v_0, w, a, b, v_leak, v_th, v_reset, neurons, method, alpha, detach_reset,
    with_z, with_v, recurrent, with_p, with_w, grad_v, grad_i, grad_x, grad_p, grad_w_t, share, start, stop
):  # fmt: skip
    """Go back through all steps in rows start..stop.

    grad_v and grad_i (B * N) hold the gradients by the state after the last step, then by the one before the first.
    """
    dtype = v_pre.dtype
    zero = dtype.type(0)
    everyone, chosen = np.arange(neurons), np.empty(neurons, np.int64)
    by_row, received = np.zeros((4, w.shape[1]), dtype), np.zeros((4, w.shape[1]), dtype)
    of_weights = grad_w_t[share]
    g_z, g_v, before = np.empty(len(a), dtype), np.empty(len(a), dtype), np.empty(len(a), dtype)
    sums = np.zeros((5, neurons), dtype)
    for block in range(start, stop, len(a) // neurons):
        of_block = np.zeros((5, len(a)), dtype)  # summed by block first: fewer roundings
        p_a, p_b, p_leak, p_th, p_reset = of_block[0], of_block[1], of_block[2], of_block[3], of_block[4]
        first, last = block * neurons, min(block * neurons + len(a), stop * neurons)
        size = last - first
        g_v_state, g_i_state = grad_v[first:last], grad_i[first:last]
        for t in range(len(v_pre) - 1, -1, -1):
            v, i, g_x = v_pre[t, first:last], i_pre[t, first:last], grad_x[t, first:last]
            # g_z: what passes the threshold
            if with_z:
                g_z[:size] = grad_z[t, first:last]
            else:
                g_z[:] = zero
            if recurrent and t < len(v_pre) - 1:
                for r in range(size // neurons):
                    by_row[r, :neurons] = grad_x[t + 1, first + r * neurons : first + (r + 1) * neurons]
                _product_of_four(by_row, everyone, neurons, w, received)
                for r in range(size // neurons):
                    g_z_row, row = g_z[r * neurons : (r + 1) * neurons], received[r]
                    for n in range(neurons):
                        g_z_row[n] += row[n]
                if with_w:
                    for r in range(size // neurons):
                        count, row = 0, by_row[r]
                        for n in range(neurons):  # neurons that fired
                            chosen[count] = n
                            count += v[r * neurons + n] > v_th[n]
                        for k in range(count):
                            weights = of_weights[chosen[k]]
                            for n in range(len(row)):
                                weights[n] += row[n]
            if not detach_reset:
                for n in range(size):
                    g_z[n] += g_v_state[n] * (v_reset[n] - v[n])
            _surrogate(v, v_th, method, alpha, before)
            for n in range(size):
                g_z[n] *= before[n]
            # g_v: by the voltage before the reset
            for n in range(size):
                g_v[n] = zero if v[n] > v_th[n] else g_v_state[n]
            for n in range(size):
                g_v[n] += g_z[n]
            if with_v:
                g_v_pre = grad_v_pre[t, first:last]
                for n in range(size):
                    g_v[n] += g_v_pre[n]
            if with_p:
                if t > 0:
                    v_before = v_pre[t - 1, first:last]
                    for n in range(size):
                        before[n] = v_reset[n] if v_before[n] > v_th[n] else v_before[n]
                else:
                    before[:size] = v_0[first:last]
                for n in range(size):
                    p_a[n] += g_v[n] * ((v_leak[n] - before[n]) + i[n])
                for n in range(size):
                    p_b[n] -= g_i_state[n] * i[n]
                for n in range(size):
                    p_leak[n] += a[n] * g_v[n]
                for n in range(size):
                    p_th[n] -= g_z[n]
                for n in range(size):
                    p_reset[n] += g_v_state[n] if v[n] > v_th[n] else zero
            for n in range(size):
                g_x[n] = (g_i_state[n] - b[n] * g_i_state[n]) + a[n] * g_v[n]
            for n in range(size):
                g_v_state[n] = g_v[n] - a[n] * g_v[n]
            g_i_state[:] = g_x
        for row in range(0, size, neurons):
            sums += of_block[:, row : row + neurons]
    grad_p[share] = sums


@in_threads
def _backward_in_threads(
    bounds, grad_z, grad_v_pre, v_pre, i_pre, v_0, w, a, b, v_leak, v_th, v_reset, neurons, method, alpha,
    detach_reset, with_z, with_v, recurrent, with_p, with_w, grad_v, grad_i, grad_x, grad_p, grad_w_t
):  # fmt: skip
    for k in prange(len(bounds) - 1):
        _backward(
            grad_z, grad_v_pre, v_pre, i_pre, v_0, w, a, b, v_leak, v_th, v_reset, neurons, method, alpha,
            detach_reset, with_z, with_v, recurrent, with_p, with_w, grad_v, grad_i, grad_x, grad_p, grad_w_t,
            k, bounds[k], bounds[k + 1],
        )  # fmt: skip


def _by_block(parameters, recurrent: bool, rows: int) -> list[torch.Tensor]:
    """Repeat parameters (E, N) for the rows of a block: four, or without recurrence about a thousand numbers."""
    neurons = parameters[0].shape[-1]
    of_block = 4 if recurrent else max(1, min(rows, 1024 // max(1, neurons)))
    return list(torch.stack(parameters).repeat(1, 1, of_block))


def lif_forward(x, v_0, i_0, w, a, b, v_leak, v_th, v_reset, keep):
    """Compute the sequence; see `snnparams.kernels.fused` for shapes."""
    members, _, rows, neurons = x.shape
    z, v, i = torch.empty_like(x), v_0.clone(), i_0.clone()
    v_pre = torch.empty_like(x) if keep else x.new_empty(members, 0, 0, 0)
    i_pre = torch.empty_like(v_pre)
    if not x.numel():
        return z, v, i, v_pre, i_pre
    w_t = x.new_empty(members, 0, 0) if w is None else _padded(w.transpose(1, 2))
    parameters = _by_block((a, b, v_leak, v_th, v_reset), w is not None, rows)
    sequences, states = [t.flatten(-2) for t in (x, z, v_pre, i_pre)], [t.flatten(-2) for t in (v, i)]
    arrays = [t.numpy() for t in (sequences[0], *states, w_t, *parameters, *sequences[1:])]
    for member in zip(*arrays, strict=True):
        _run(_forward, _forward_in_threads, _shares(rows), *member, neurons, w is not None, keep)
    return z, v, i, v_pre, i_pre


def lif_backward(
    grad_z, grad_v_pre, grad_v, grad_i, v_pre, i_pre, v_0, w, a, b, v_leak, v_th, v_reset,
    method, alpha, detach_reset, with_p, with_w,
):  # fmt: skip
    """Compute the gradients; see `snnparams.kernels.fused` for shapes."""
    members, _, rows, neurons = v_pre.shape
    grad_v, grad_i, grad_x = grad_v.clone(), grad_i.clone(), torch.empty_like(v_pre)
    bounds = _shares(rows)
    grad_p = v_pre.new_zeros(members, len(bounds) - 1, 5, neurons)
    padded = neurons + -neurons % LANES
    grad_w_t = v_pre.new_zeros(members, len(bounds) - 1, *((neurons, padded) if with_w else (0, 0)))
    if not v_pre.numel():
        return grad_x, grad_v, grad_i, _of_all_shares(grad_w_t, neurons), grad_p.sum(dim=1)
    alpha = a.numpy().dtype.type(alpha)  # a number of the tensor's type keeps float32 arithmetic in float32
    nothing = v_pre.new_empty(members, 0, 0, 1)
    flags = METHODS.index(method), alpha, detach_reset, grad_z is not None, grad_v_pre is not None, w is not None
    given = [(nothing if t is None else t).flatten(-2) for t in (grad_z, grad_v_pre, v_pre, i_pre, v_0)]
    given.append(nothing[..., 0] if w is None else _padded(w))
    given += _by_block((a, b, v_leak, v_th, v_reset), w is not None, rows)
    out = grad_v.flatten(-2), grad_i.flatten(-2), grad_x.flatten(-2), grad_p, grad_w_t
    for e in range(members):
        arrays, written = ([t[e].numpy() for t in tensors] for tensors in (given, out))
        _run(_backward, _backward_in_threads, bounds, *arrays, neurons, *flags, with_p, with_w, *written)
    return grad_x, grad_v, grad_i, _of_all_shares(grad_w_t, neurons), grad_p.sum(dim=1)


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


@fused_multiply_add
def _product(row_start, column, values, w_t, out, share, start, stop):
    """Add up the weights of each row's spikes, four spikes at a time."""
    total = np.empty(w_t.shape[1], w_t.dtype)
    for r in range(start, stop):
        total[:] = 0
        first, last = row_start[r], row_start[r + 1]
        for k in range(first, last - 3, 4):
            a_0, a_1, a_2, a_3 = values[k], values[k + 1], values[k + 2], values[k + 3]
            w_0, w_1, w_2, w_3 = w_t[column[k]], w_t[column[k + 1]], w_t[column[k + 2]], w_t[column[k + 3]]
            for n in range(len(total)):
                total[n] += (a_0 * w_0[n] + a_1 * w_1[n]) + (a_2 * w_2[n] + a_3 * w_3[n])
        for k in range(last - (last - first) % 4, last):
            value, weights = values[k], w_t[column[k]]
            for n in range(len(total)):
                total[n] += value * weights[n]
        out[r] = total[: out.shape[1]]


@in_threads
def _product_in_threads(bounds, row_start, column, values, w_t, out):
    for k in prange(len(bounds) - 1):
        _product(row_start, column, values, w_t, out, k, bounds[k], bounds[k + 1])


@fused_multiply_add
def _outer_products(row_start, column, values, grad, out, share, start, stop):
    """Add each row of grad to the rows of out[share] that its spikes name."""
    sums, row = out[share], np.zeros(out.shape[2], out.dtype)
    for r in range(start, stop):
        row[: grad.shape[1]] = grad[r]
        for k in range(row_start[r], row_start[r + 1]):
            weights, value = sums[column[k]], values[k]
            for n in range(len(row)):
                weights[n] += value * row[n]


@in_threads
def _outer_products_in_threads(bounds, row_start, column, values, grad, out):
    for k in prange(len(bounds) - 1):
        _outer_products(row_start, column, values, grad, out, k, bounds[k], bounds[k + 1])


def product(row_start, column, values, weights):
    """Multiply compressed rows (R, I) with weights (H, I): shape (R, H)."""
    out = weights.new_empty(len(row_start) - 1, len(weights))
    arrays = [t.numpy() for t in (row_start, column, values, _padded(weights.t()), out)]
    _run(_product, _product_in_threads, _shares(len(out)), *arrays)
    return out


def weight_gradient(row_start, column, values, grad, inputs: int):
    """Return the gradient (H, I) of that product by the weights, from that by the result (R, H)."""
    bounds, outputs = _shares(len(grad)), grad.shape[1]
    sums = grad.new_zeros(len(bounds) - 1, inputs, outputs + -outputs % LANES)  # one sum for each thread
    arrays = [t.numpy() for t in (row_start, column, values, grad.contiguous(), sums)]
    _run(_outer_products, _outer_products_in_threads, bounds, *arrays)
    return _of_all_shares(sums, outputs)


# ---------------------------------------------------------------------------------------------------- the encoder


@compiled
def _spike_times(x, steps, a, v_leak, v_th, v_reset, times, counts, share, start, stop):
    """Write the first spike time of each value and the interval to the next one, in steps, 0 for never.

    After a spike the voltage is v_reset again and the current still the same, so that all intervals are equal.
    The arithmetic is that of `constant_current_lif_encode`, step by step; for v_reset = 0 rounding is the same too.
    """
    zero, margin = x.dtype.type(0), x.dtype.type(8) * np.finfo(x.dtype).eps
    chosen = np.empty(x.shape[1], np.int64)
    given = np.empty((5, x.shape[1]), x.dtype)
    v, found = np.empty(x.shape[1], x.dtype), np.empty(x.shape[1], np.int32)
    for r in range(start, stop):
        times[:, r] = 0
        count = 0
        for n in range(x.shape[1]):  # the voltage stays between where it begins and where it tends
            highest = max(v_leak[r, n] + x[r, n], zero)
            chosen[count] = n
            count += highest + margin * (abs(v_leak[r, n]) + abs(x[r, n]) + abs(v_th[r, n])) >= v_th[r, n]
        for j in range(count):
            n = chosen[j]
            given[0, j], given[1, j], given[2, j], given[3, j] = x[r, n], a[r, n], v_leak[r, n], v_th[r, n]
            given[4, j] = v_reset[r, n]
        current, rate, leak, th, reset = given[0], given[1], given[2], given[3], given[4]
        again = False
        for j in range(count):
            again |= reset[j] != zero
        for k in range(2):
            if k == 1 and not again:  # where the voltage begins is where it is reset to
                times[1, r] = times[0, r]
                continue
            for j in range(count):
                v[j] = reset[j] if k == 1 else zero
            found[:] = 0
            for t in range(1, steps + 1):
                for j in range(count):
                    v[j] = v[j] + rate[j] * ((leak[j] - v[j]) + current[j])
                for j in range(count):
                    found[j] = t if found[j] == 0 and v[j] - th[j] > zero else found[j]
            for j in range(count):
                times[k, r, chosen[j]] = found[j]
        for j in range(count):
            n = chosen[j]
            t, interval = times[0, r, n], times[1, r, n]
            while 0 < t <= steps:
                counts[share, t - 1] += 1
                t += interval if interval > 0 else steps


@in_threads
def _spike_times_in_threads(bounds, x, steps, a, v_leak, v_th, v_reset, times, counts):
    for k in prange(len(bounds) - 1):
        _spike_times(x, steps, a, v_leak, v_th, v_reset, times, counts, k, bounds[k], bounds[k + 1])


@compiled
def _write_spikes(steps, times, position, indices, share, start, stop):
    place = position[share]
    for r in range(start, stop):
        for n in range(times.shape[2]):
            t, interval = times[0, r, n], times[1, r, n]
            while 0 < t <= steps:
                k = place[t - 1]
                indices[0, k], indices[1, k], indices[2, k] = t - 1, r, n
                place[t - 1] += 1
                t += interval if interval > 0 else steps


@in_threads
def _write_spikes_in_threads(bounds, steps, times, position, indices):
    for k in prange(len(bounds) - 1):
        _write_spikes(steps, times, position, indices, k, bounds[k], bounds[k + 1])


def encode(x, steps: int, a, v_leak, v_th, v_reset):
    """Return the indices (3, spikes) of the spikes of neurons that x (R, N) drives; all arguments have its shape."""
    times = torch.empty(2, *x.shape, dtype=torch.int32)
    bounds = _shares(len(x))
    counts = torch.zeros(len(bounds) - 1, steps, dtype=torch.int64)
    arrays = [t.numpy() for t in (a, v_leak, v_th, v_reset, times, counts)]
    _run(_spike_times, _spike_times_in_threads, bounds, x.numpy(), steps, *arrays)
    ends = counts.t().flatten().cumsum(0)  # in the order in which spikes are stored: by step, then by share
    position = ends.view(steps, -1).t().contiguous() - counts
    indices = torch.empty(3, int(ends[-1]), dtype=torch.int64)
    _run(_write_spikes, _write_spikes_in_threads, bounds, steps, times.numpy(), position.numpy(), indices.numpy())
    return indices
