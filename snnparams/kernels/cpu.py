"""Whole sequences of LIF neurons on a CPU, compiled by Numba.

Each function works on a share of the rows (the members of the batch), four rows at a time, whose state stays close to
the processor over all steps. Products with weights, which cost most, stand in `snnparams.kernels.vectors`.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import prange

from snnparams.kernels.compiled import (
    all_finite,
    compiled,
    empty,
    fused_multiply_add,
    in_threads,
    of_all_shares,
    run,
    shares,
)
from snnparams.kernels.vectors import ROWS, append_above, four_rows, gather, lanes, panels, scatter

METHODS = ("heaviside", "super", "triangle", "tanh", "circ", "heavi_erfc", "sigmoid")  # by number in `_surrogate`

# The rows lie one after the other in memory. A piece of that, of `size` numbers, goes through all steps before the next
# one does: four rows, or without recurrence as much as stays close to the processor. The neuron parameters `p` (a, b,
# v_leak, v_th, v_reset) are repeated row after row, so that a piece finds its own wherever it begins.


@compiled
def _above(v, v_th, first, last, lanes, chosen):
    """Write which of the neurons first..last are above their threshold, counted from first; return how many."""
    count, n = 0, first
    while n + lanes <= last:
        count = append_above(v, v_th, n, n - first, chosen, count)
        n += lanes
    while n < last:
        chosen[count] = n - first
        count += v[n] > v_th[n]
        n += 1
    return count


@compiled
def _spikes(v, v_th, graded, alpha, z):
    """Write the spikes: of a hard threshold, or graded ones."""
    zero, one = v.dtype.type(0), v.dtype.type(1)
    if graded:
        for n in range(len(v)):
            z[n] = one / (one + np.exp(-alpha * (v[n] - v_th[n])))
    else:
        for n in range(len(v)):
            z[n] = one if v[n] > v_th[n] else zero


@compiled
def _forward(
    x, v, i, w, p, z, v_pre, i_pre, neurons, piece, lanes, recurrent, dense, graded, alpha, keep,
    share, start, stop
):  # fmt: skip
    """Advance rows start..stop of x (T, B * N); v and i (B * N) hold the first state, then the last.

    Products with weights take the neurons that spike, or all of them if `dense`.
    """
    one, columns, weights = x.dtype.type(1), w.shape[2], w.reshape(-1)
    chosen, count = np.zeros((ROWS, neurons + lanes), np.int32), np.zeros(ROWS, np.int64)
    chosen[:, :neurons] = np.arange(neurons)
    ones, received = np.ones(neurons, x.dtype), np.zeros(len(w) * columns, x.dtype)
    i_now, v_now = np.empty(piece, x.dtype), np.empty(piece, x.dtype)
    for first in range(start * neurons, stop * neurons, piece):
        last = min(first + piece, stop * neurons)
        size, at = last - first, first % neurons
        a, b, v_leak = p[0, at : at + size], p[1, at : at + size], p[2, at : at + size]
        v_th, v_reset = p[3, at : at + size], p[4, at : at + size]
        v_state, i_state = v[first:last], i[first:last]
        for t in range(len(x)):
            x_t, z_t = x[t, first:last], z[t, first:last]
            for n in range(size):
                i_now[n] = i_state[n] + x_t[n]
            if recurrent and t > 0:
                for r in range(size // neurons):
                    row = r * neurons
                    values = z[t - 1, first + row : first + row + neurons] if dense else ones
                    for k in range(len(w)):
                        gather(weights, k * neurons * columns, chosen[r], values, 0, count[r], received, k * columns)
                    for n in range(neurons):
                        i_now[row + n] += received[n]
            for n in range(size):
                v_now[n] = v_state[n] + a[n] * ((v_leak[n] - v_state[n]) + i_now[n])
            for n in range(size):
                i_state[n] = i_now[n] - b[n] * i_now[n]
            _spikes(v_now[:size], v_th, graded, alpha, z_t)
            if graded:
                for n in range(size):
                    v_state[n] = (one - z_t[n]) * v_now[n] + z_t[n] * v_reset[n]
            else:
                for n in range(size):  # of an infinite voltage the reset leaves NaN, as (1 - z) v + z v_reset does
                    v_state[n] = v_reset[n] + (v_now[n] - v_now[n]) if v_now[n] > v_th[n] else v_now[n]
            if keep:
                v_pre[t, first:last] = v_now[:size]
                i_pre[t, first:last] = i_now[:size]
            if recurrent:
                for r in range(size // neurons):
                    row = r * neurons
                    count[r] = neurons if dense else _above(v_now, v_th, row, row + neurons, lanes, chosen[r])


@in_threads
def _forward_in_threads(
    bounds, x, v, i, w, p, z, v_pre, i_pre, neurons, piece, lanes, recurrent, dense, graded, alpha, keep
):  # fmt: skip
    for k in prange(len(bounds) - 1):
        _forward(
            x, v, i, w, p, z, v_pre, i_pre, neurons, piece, lanes, recurrent, dense, graded, alpha, keep,
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
            out[n] = zero if s <= zero else alpha * s  # NaN stays NaN
    elif method == 3:
        for n in range(size):
            s = np.tanh(alpha * (v[n] - v_th[n]))
            out[n] = one - s * s
    elif method == 4:
        for n in range(size):
            s = (v[n] - v_th[n]) / alpha
            s = one + s * s
            out[n] = one / (s * np.sqrt(s))
    elif method == 5:
        scale = two / np.sqrt(v.dtype.type(np.pi))
        for n in range(size):
            s = alpha * (v[n] - v_th[n])
            out[n] = scale * np.exp(-s * s)
    else:
        for n in range(size):
            s = np.exp(-alpha * abs(v[n] - v_th[n]))
            out[n] = alpha * s / ((one + s) * (one + s))


@fused_multiply_add
def _backward(
    grad_z, grad_v_pre, v_pre, i_pre, v_0, w, p, neurons, piece, lanes, dense, method, graded, alpha,
    detach_reset, with_z, with_v, recurrent, with_p, with_w, grad_v, grad_i, grad_x, grad_p, grad_w_t,
    share, start, stop
):  # fmt: skip
    """Go back through all steps in rows start..stop.

    grad_v and grad_i (B * N) hold the gradients by the state after the last step, then by the one before the first.
    """
    dtype = v_pre.dtype
    zero, one, columns, weights = dtype.type(0), dtype.type(1), w.shape[2], w.reshape(-1)
    padded = len(w) * columns
    everyone, chosen = np.arange(neurons).astype(np.int32), np.empty(neurons + lanes, np.int32)
    ones = np.ones(neurons, dtype)
    later, received = np.zeros((ROWS, padded), dtype), np.zeros((ROWS, padded), dtype)
    g_z, g_v, before = np.empty(piece, dtype), np.empty(piece, dtype), np.empty(piece, dtype)
    z, z_before, g_threshold = np.empty(piece, dtype), np.empty(piece, dtype), np.empty(piece, dtype)
    totals = np.zeros((5, neurons), np.float64)
    for first in range(start * neurons, stop * neurons, piece):
        last = min(first + piece, stop * neurons)
        size, at = last - first, first % neurons
        a, b, v_leak = p[0, at : at + size], p[1, at : at + size], p[2, at : at + size]
        v_th, v_reset = p[3, at : at + size], p[4, at : at + size]
        sums = np.zeros((5, size), np.float64)  # over all steps: the rounding of float32 would show
        p_a, p_b, p_leak, p_th, p_reset = sums[0], sums[1], sums[2], sums[3], sums[4]
        g_v_state, g_i_state = grad_v[first:last], grad_i[first:last]
        _spikes(v_pre[-1, first:last], v_th, graded, alpha, z)
        for t in range(len(v_pre) - 1, -1, -1):
            v, i, g_x = v_pre[t, first:last], i_pre[t, first:last], grad_x[t, first:last]
            # g_z: what passes the threshold
            if with_z:
                g_z[:size] = grad_z[t, first:last]
            else:
                g_z[:] = zero
            if recurrent and t < len(v_pre) - 1:
                for k in range(len(w)):
                    four_rows(
                        later, 0, padded, neurons, weights, k * neurons * columns, received, k * columns, padded
                    )  # fmt: skip
                for r in range(size // neurons):
                    row = r * neurons
                    for n in range(neurons):
                        g_z[row + n] += received[r, n]
                    if with_w and dense:
                        for k in range(len(w)):
                            scatter(
                                grad_w_t, (share * len(w) + k) * neurons * columns, everyone,
                                z[row : row + neurons], 0, neurons, later, r * padded + k * columns,
                            )  # fmt: skip
                    elif with_w:
                        count = _above(v, v_th, row, row + neurons, lanes, chosen)
                        for k in range(len(w)):
                            scatter(
                                grad_w_t, (share * len(w) + k) * neurons * columns, chosen, ones, 0, count,
                                later, r * padded + k * columns,
                            )  # fmt: skip
            if not detach_reset:
                for n in range(size):
                    g_z[n] += g_v_state[n] * (v_reset[n] - v[n])
            _surrogate(v, v_th, method, alpha, g_threshold)
            if method > 0:  # a step has no derivative, not even a NaN
                for n in range(size):
                    g_threshold[n] *= g_z[n]
            # g_v: by the voltage before the reset
            for n in range(size):
                g_v[n] = (one - z[n]) * g_v_state[n] + g_threshold[n]
            if with_v:
                g_v_pre = grad_v_pre[t, first:last]
                for n in range(size):
                    g_v[n] += g_v_pre[n]
            if t > 0:
                _spikes(v_pre[t - 1, first:last], v_th, graded, alpha, z_before)
            if with_p:
                if t > 0:
                    v_before = v_pre[t - 1, first:last]
                    for n in range(size):
                        before[n] = (one - z_before[n]) * v_before[n] + z_before[n] * v_reset[n]
                else:
                    before[:size] = v_0[first:last]
                for n in range(size):
                    p_a[n] += g_v[n] * ((v_leak[n] - before[n]) + i[n])
                for n in range(size):
                    p_b[n] -= g_i_state[n] * i[n]
                for n in range(size):
                    p_leak[n] += a[n] * g_v[n]
                for n in range(size):
                    p_th[n] -= g_threshold[n]
                for n in range(size):
                    p_reset[n] += z[n] * g_v_state[n]
            for n in range(size):
                g_x[n] = (g_i_state[n] - b[n] * g_i_state[n]) + a[n] * g_v[n]
            for n in range(size):
                g_v_state[n] = g_v[n] - a[n] * g_v[n]
            g_i_state[:] = g_x
            if recurrent:
                for r in range(size // neurons):
                    later[r, :neurons] = g_x[r * neurons : (r + 1) * neurons]
            z, z_before = z_before, z
        for n in range(size):
            totals[:, (at + n) % neurons] += sums[:, n]
    grad_p[share] = totals


@in_threads
def _backward_in_threads(
    bounds, grad_z, grad_v_pre, v_pre, i_pre, v_0, w, p, neurons, piece, lanes, dense, method, graded,
    alpha, detach_reset, with_z, with_v, recurrent, with_p, with_w, grad_v, grad_i, grad_x, grad_p, grad_w_t
):  # fmt: skip
    for k in prange(len(bounds) - 1):
        _backward(
            grad_z, grad_v_pre, v_pre, i_pre, v_0, w, p, neurons, piece, lanes, dense, method, graded,
            alpha, detach_reset, with_z, with_v, recurrent, with_p, with_w, grad_v, grad_i, grad_x, grad_p, grad_w_t,
            k, bounds[k], bounds[k + 1],
        )  # fmt: skip


def _pieces(parameters, recurrent: bool) -> tuple[torch.Tensor, int]:
    """Return parameters (E, N) as (E, 5, N repeated), and the length of a piece."""
    neurons = parameters[0].shape[-1]
    piece = ROWS * neurons if recurrent else 1024
    return torch.stack(parameters, dim=1).repeat(1, 1, 1 + -(-piece // neurons)), piece


def _spike_function(method: str, alpha: float, v: torch.Tensor) -> tuple:
    """Return whether spikes are graded, and alpha as a number of the tensor's type: float32 arithmetic stays so."""
    return method == "sigmoid", v.numpy().dtype.type(alpha)


def _dense(method: str, w: torch.Tensor | None) -> bool:
    """Return whether products take all neurons: spikes are graded, or zero times a weight is not zero but NaN."""
    return method == "sigmoid" or not (w is None or all_finite(w))


def lif_forward(x, v_0, i_0, w, a, b, v_leak, v_th, v_reset, method, alpha, keep):
    """Compute the sequence; see `snnparams.kernels.fused` for shapes."""
    members, _, rows, neurons = x.shape
    z, v, i = empty(x), v_0.clone(), i_0.clone()
    v_pre, i_pre = (empty(x) if keep else x.new_empty(members, 0, 0, 0) for _ in range(2))
    if not x.numel():
        return z, v, i, v_pre, i_pre
    weights = x.new_empty(members, 0, 0, 1) if w is None else panels(w.transpose(1, 2))
    p, piece = _pieces((a, b, v_leak, v_th, v_reset), w is not None)
    sequences, states = [t.flatten(-2) for t in (x, z, v_pre, i_pre)], [t.flatten(-2) for t in (v, i)]
    arrays = [t.numpy() for t in (sequences[0], *states, weights, p, *sequences[1:])]
    dense = _dense(method, w)
    how = neurons, piece, lanes(x.dtype), w is not None, dense, *_spike_function(method, alpha, a), keep
    bounds = shares(rows)
    for member in zip(*arrays, strict=True):
        run(_forward, _forward_in_threads, bounds, *member, *how)
    return z, v, i, v_pre, i_pre


def lif_backward(
    grad_z, grad_v_pre, grad_v, grad_i, v_pre, i_pre, v_0, w, a, b, v_leak, v_th, v_reset,
    method, alpha, detach_reset, with_p, with_w,
):  # fmt: skip
    """Compute the gradients; see `snnparams.kernels.fused` for shapes."""
    given = (
        grad_z, grad_v_pre, grad_v, grad_i, v_pre, i_pre, v_0, w, a, b, v_leak, v_th, v_reset,
        method, alpha, detach_reset, with_p, with_w,
    )  # fmt: skip
    dense = _dense(method, w)
    gradients = _gradients(*given, dense)
    # a NaN in a gradient by a current is one in all earlier ones, and makes zero spikes times it NaN as well
    if with_w and not dense and not all_finite(gradients[2]):
        gradients = _gradients(*given, True)
    return gradients


def _gradients(
    grad_z, grad_v_pre, grad_v, grad_i, v_pre, i_pre, v_0, w, a, b, v_leak, v_th, v_reset,
    method, alpha, detach_reset, with_p, with_w, dense,
):  # fmt: skip
    members, _, rows, neurons = v_pre.shape
    grad_v, grad_i, grad_x = grad_v.clone(), grad_i.clone(), empty(v_pre)
    bounds = shares(rows)
    grad_p = v_pre.new_zeros(members, len(bounds) - 1, 5, neurons)
    nothing = v_pre.new_empty(members, 0, 0, 1)
    weights = nothing if w is None else panels(w)
    grad_w_t = v_pre.new_zeros(members, len(bounds) - 1, *(weights.shape[1:] if with_w else (0, 0, 1)))
    if v_pre.numel():
        p, piece = _pieces((a, b, v_leak, v_th, v_reset), w is not None)
        how = neurons, piece, lanes(v_pre.dtype), dense, METHODS.index(method), *_spike_function(method, alpha, a)
        flags = detach_reset, grad_z is not None, grad_v_pre is not None, w is not None, with_p, with_w
        given = [(nothing if t is None else t).flatten(-2) for t in (grad_z, grad_v_pre, v_pre, i_pre, v_0)]
        given += [weights, p]
        out = grad_v.flatten(-2), grad_i.flatten(-2), grad_x.flatten(-2), grad_p, grad_w_t.flatten(1)
        for e in range(members):
            arrays, written = ([t[e].numpy() for t in tensors] for tensors in (given, out))
            run(_backward, _backward_in_threads, bounds, *arrays, *how, *flags, *written)
    grad_w = of_all_shares(grad_w_t, neurons) if with_w else v_pre.new_empty(members, 0, 0)
    return grad_x, grad_v, grad_i, grad_w, grad_p.sum(dim=1)
