"""The adjoint method on a CPU, compiled by Numba: see `snnparams.kernels.adjoint` for what is computed.

A block of rows is one stretch of memory, of `size` numbers, for which the neuron parameters are repeated: one row of a
recurrent population, about a thousand numbers of another. Spikes are listed block by block, in a block by time, in a
step by position. Each of PyTorch's threads takes a share of the rows and has a list of its own.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from snnparams.kernels.compiled import compiled, fused_multiply_add, shares


@compiled
def _grown(old, count):
    """Return an array of twice the length along its first axis with the first `count` entries of the old one."""
    new = np.empty((2 * old.shape[0], old.shape[1]), old.dtype)
    new[:count] = old[:count]
    return new


@compiled
def _advance_traces(of_a, of_b, of_leak, of_i, a, b, rise, i_now, one):
    """Take the traces of a block one step on: derivatives of its voltages and of its currents."""
    length = len(of_a)
    for n in range(length):
        of_a[n] += rise[n] - a[n] * of_a[n]
    for n in range(length):
        of_b[n] += a[n] * (of_i[n] - of_b[n])
    for n in range(length):
        of_leak[n] += a[n] * (one - of_leak[n])
    for n in range(length):
        of_i[n] -= b[n] * of_i[n] + i_now[n]


@compiled
def _forward(x, v, i, w_t, a, b, v_leak, v_th, v_reset, size, recurrent, keep, with_p, z, last, first, stop):
    """Advance numbers first..stop of x (T, B * N); v and i hold the first state, then the last.

    Returns the list of spikes: step and position, (spikes, 2), and rise and traces, (spikes, 4). `last` (4, B * N)
    receives the traces after the last step.
    """
    zero, one = x.dtype.type(0), x.dtype.type(1)
    count = 0
    where = np.empty((2 * size if keep else 0, 2), np.int32)
    what = np.empty((2 * size if keep else 0, 4), x.dtype)
    i_now, v_now, rise = np.empty(size, x.dtype), np.empty(size, x.dtype), np.empty(size, x.dtype)
    fired = np.empty(size, np.int64)
    for begin in range(first, stop, size):
        end = min(begin + size, stop)
        length = end - begin
        v_state, i_state = v[begin:end], i[begin:end]
        of_a, of_b, of_leak, of_i = last[0, begin:end], last[1, begin:end], last[2, begin:end], last[3, begin:end]
        firing = 0
        for t in range(len(x)):
            x_t, z_t = x[t, begin:end], z[t, begin:end]
            for n in range(length):
                i_now[n] = i_state[n] + x_t[n]
            if recurrent:
                for k in range(firing):
                    row = w_t[fired[k]]
                    for n in range(length):
                        i_now[n] += row[n]
            for n in range(length):
                rise[n] = (v_leak[n] - v_state[n]) + i_now[n]
            for n in range(length):
                v_now[n] = v_state[n] + a[n] * rise[n]
            for n in range(length):
                i_state[n] = i_now[n] - b[n] * i_now[n]
            if with_p:
                _advance_traces(of_a, of_b, of_leak, of_i, a, b, rise, i_now, one)
            for n in range(length):
                z_t[n] = one if v_now[n] > v_th[n] else zero
            firing = 0
            for n in range(length):
                fired[firing] = n
                firing += v_now[n] > v_th[n]
            if keep and count + firing > len(where):
                where, what = _grown(where, count), _grown(what, count)
            for k in range(firing):
                n = fired[k]
                if keep:
                    where[count, 0], where[count, 1] = t, begin + n
                    # how steeply the membrane crosses the threshold; -1 if it was above already
                    crossing = max((v_leak[n] - v_th[n]) + i_now[n], zero)
                    what[count, 0] = crossing if v_state[n] <= v_th[n] else -one
                    what[count, 1], what[count, 2], what[count, 3] = of_a[n], of_b[n], of_leak[n]
                    of_a[n], of_b[n], of_leak[n] = zero, zero, zero
                    count += 1
            for n in range(length):
                v_state[n] = v_reset[n] if v_now[n] > v_th[n] else v_now[n]
    return where[:count].copy(), what[:count].copy()


@fused_multiply_add
def _later(weights, after, arrives, zero):
    """Return by how much the loss changes if what one neuron sends to all arrives one step later."""
    total = zero
    for m in range(len(arrives)):
        total += weights[m] * (after[m] - arrives[m])
    return total


@fused_multiply_add
def _backward(
    grad_z, with_z, grad_z_last, with_last, where, what, w_t, a, b, v_th, v_reset, size, recurrent, with_p, with_w,
    grazing, largest, last, grad_v, grad_i, i_last, grad_x, grad_p, grad_w_t, first, stop
):  # fmt: skip
    """Go back through all steps of numbers first..stop.

    grad_v and grad_i hold the gradients by the state after the last step, then by the one before the first; i_last is
    a copy of grad_i. grad_p (5, size) and grad_w_t (N, N) receive sums.
    """
    zero, steps = grad_x.dtype.type(0), len(grad_x)
    k = len(where) - 1
    for begin in range(first + (stop - first - 1) // size * size, first - 1, -size):
        end = min(begin + size, stop)
        length = end - begin
        g_v, g_i = grad_v[begin:end], grad_i[begin:end]
        if with_p:  # what the state after the last step depends on
            for n in range(length):
                grad_p[0, n] += g_v[n] * last[0, begin + n]
                grad_p[1, n] += g_v[n] * last[1, begin + n] + g_i[n] * last[3, begin + n]
                grad_p[2, n] += g_v[n] * last[2, begin + n]
        for t in range(steps - 1, -1, -1):
            g_x = grad_x[t, begin:end]
            while k >= 0 and where[k, 0] == t and where[k, 1] >= begin:
                n = where[k, 1] - begin
                later = zero  # by how much the loss changes if the spike comes one step later
                if t < steps - 1:
                    if with_z:
                        later += grad_z[t + 1, begin + n] - grad_z[t, begin + n]
                    if recurrent:
                        arrives = grad_x[t + 1, begin:end]
                        after = grad_x[t + 2, begin:end] if t + 2 < steps else i_last[begin:end]
                        later += _later(w_t[n], after, arrives, zero)
                        if with_w:
                            of_weights = grad_w_t[n]
                            for m in range(length):
                                of_weights[m] += arrives[m]
                elif with_last:
                    later += grad_z_last[begin + n]
                    if with_z:
                        later -= grad_z[t, begin + n]
                jump = zero
                if what[k, 0] >= zero:
                    jump = g_v[n] * (what[k, 0] + (v_th[n] - v_reset[n])) - later / a[n]
                    jump = max(min(jump / max(what[k, 0], grazing), largest), -largest)
                if with_p:
                    grad_p[0, n] += jump * what[k, 1]
                    grad_p[1, n] += jump * what[k, 2]
                    grad_p[2, n] += jump * what[k, 3]
                    grad_p[3, n] -= jump
                    grad_p[4, n] += g_v[n]
                g_v[n] = jump
                k -= 1
            for n in range(length):
                g_x[n] = (g_i[n] - b[n] * g_i[n]) + a[n] * g_v[n]
            for n in range(length):
                g_i[n] = g_x[n]
            for n in range(length):
                g_v[n] -= a[n] * g_v[n]


def _in_threads(function, bounds: np.ndarray, arguments) -> list:
    """Call a compiled function, which does not hold the interpreter's lock, once for each share."""
    if len(bounds) == 2:  # without threads
        return [function(*arguments(0))]
    with ThreadPoolExecutor(len(bounds) - 1) as pool:
        return list(pool.map(lambda k: function(*arguments(k)), range(len(bounds) - 1)))


def _block(recurrent: bool, rows: int, neurons: int) -> int:
    """Return the number of rows in a block."""
    return 1 if recurrent else max(1, min(rows, 1024 // max(1, neurons)))


def forward(x, v_0, i_0, w, a, b, v_leak, v_th, v_reset, keep, with_p):
    """Compute the sequence; see `snnparams.kernels.adjoint` for arguments and shapes."""
    _, rows, neurons = x.shape
    z, v, i = torch.empty_like(x), v_0.clone(), i_0.clone()
    last = x.new_zeros(4, rows, neurons)
    block = _block(w is not None, rows, neurons)
    w_t = x.new_empty(0, 0) if w is None else w.t().contiguous()
    given = [t.numpy() for t in (x.flatten(1), v.flatten(), i.flatten(), w_t)]
    given += [t.repeat(block).numpy() for t in (a, b, v_leak, v_th, v_reset)]
    given += [block * neurons, w is not None, keep, with_p, z.flatten(1).numpy(), last.flatten(1).numpy()]
    bounds = shares(rows) * neurons
    lists = _in_threads(_forward, bounds, lambda k: (*given, bounds[k], bounds[k + 1]))
    return z, v, i, last, [(torch.from_numpy(where), torch.from_numpy(what)) for where, what in lists]


def backward(
    grad_z, grad_z_last, grad_v, grad_i, last, spikes, w, a, b, v_th, v_reset, steps, grazing, largest, with_p, with_w
):
    """Compute the gradients; see `snnparams.kernels.adjoint` for arguments and shapes."""
    rows, neurons = grad_v.shape
    grad_x = grad_v.new_empty(steps, rows, neurons)
    i_last, grad_v, grad_i = grad_i, grad_v.clone(), grad_i.clone()
    block = _block(w is not None, rows, neurons)
    bounds = shares(rows, len(spikes)) * neurons  # those of the forward pass
    grad_p = torch.zeros(len(spikes), 5, block * neurons, dtype=torch.float64)
    grad_w_t = grad_v.new_zeros(len(spikes), *((neurons, neurons) if with_w else (0, 0)))
    nothing = grad_v.new_empty(0, 0)
    given = [nothing if grad_z is None else grad_z.flatten(1), grad_z is not None]
    given += [nothing.flatten() if grad_z_last is None else grad_z_last.flatten(), grad_z_last is not None]
    parameters = [t.repeat(block).numpy() for t in (a, b, v_th, v_reset)]
    of = parameters[0].dtype.type  # numbers of the tensors' type keep float32 arithmetic in float32
    flags = block * neurons, w is not None, with_p, with_w, of(grazing), of(largest)
    given = [t.numpy() if isinstance(t, torch.Tensor) else t for t in given]
    written = [t.numpy() for t in (last.flatten(1), grad_v.flatten(), grad_i.flatten(), i_last.flatten())]
    written.append(grad_x.flatten(1).numpy())
    w_t = (nothing if w is None else w.t().contiguous()).numpy()

    def arguments(k):
        where, what = (t.numpy() for t in spikes[k])
        sums = grad_p[k].numpy(), grad_w_t[k].numpy()
        return *given, where, what, w_t, *parameters, *flags, *written, *sums, bounds[k], bounds[k + 1]

    _in_threads(_backward, bounds, arguments)
    of_parameters = grad_p.sum(dim=0).view(5, block, neurons).sum(dim=1).to(grad_v.dtype)
    return grad_x, grad_v, grad_i, grad_w_t.sum(dim=0).t().contiguous(), of_parameters
