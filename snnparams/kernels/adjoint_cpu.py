"""The adjoint method on a CPU, compiled by Numba: see `snnparams.kernels.adjoint` for what is computed.

Forward, `snnparams.kernels.elementwise` computes the steps of the neurons, from the neuron's own definition; what
stands here is what goes along with them. A block of rows is one stretch of memory, of `size` numbers, for which the
neuron parameters are repeated: one row of a recurrent population, about a thousand numbers of another. Spikes are
listed block by block, in a block by time, in a step by position. Each of PyTorch's threads takes a share of the rows
and has a list of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from snnparams.kernels import adjoint, elementwise
from snnparams.kernels.compiled import compiled, fused_multiply_add
from snnparams.kernels.threads import call, run, shares
from snnparams.neurons import LIFParameters

LISTED = 4096  # spikes of a share for which there is room at least


class Sizes(NamedTuple):
    """What the loops must know besides arrays.

    Args:
        neurons: of a row.
        block: numbers of a block.
        recurrent: whether there are recurrent weights.
        with_p: whether neuron parameters get gradients.
    """

    neurons: int
    block: int
    recurrent: bool
    with_p: bool


@compiled
def _advance_traces(of_a, of_b, of_leak, of_i, a, b, v_leak, v, i):
    """Take the traces of a block one step on: derivatives of its voltages and of its currents.

    v and i are what the step starts from. The step itself needs no derivative by these but that of its equations.
    """
    length, one = len(of_a), v.dtype.type(1)
    for n in range(length):
        of_a[n] += ((v_leak[n] - v[n]) + i[n]) - a[n] * of_a[n]
    for n in range(length):
        of_b[n] += a[n] * (of_i[n] - of_b[n])
    for n in range(length):
        of_leak[n] += a[n] * (one - of_leak[n])
    for n in range(length):
        of_i[n] -= b[n] * of_i[n] + i[n]


@compiled
def _forward(x, state, w_t, p, step, sizes, keep, z, last, where, what, counts, share, start, stop):
    """Advance rows start..stop of x (T, B * N); state (2, B * N) is that before the first step, then after the last.

    `last` (4, B * N) receives the traces after the last step. With `keep` spikes are listed: step and position in
    where[share], slope and traces in what[share], in `counts` how many there are, also those for which there is no
    room.
    """
    zero, one, half, size = x.dtype.type(0), x.dtype.type(1), x.dtype.type(0.5), sizes.block
    a, b, v_leak, v_th = p[0], p[1], p[2], p[3]
    before, received = np.empty((2, size), x.dtype), np.zeros(size, x.dtype)
    v, i, fired = before[0], before[1], np.empty(size, np.int64)
    count = 0
    for begin in range(start * sizes.neurons, stop * sizes.neurons, size):
        end = min(begin + size, stop * sizes.neurons)
        length = end - begin
        of_a, of_b, of_leak, of_i = last[0, begin:end], last[1, begin:end], last[2, begin:end], last[3, begin:end]
        firing = 0
        for t in range(len(x)):
            z_t = z[t, begin:end]
            if sizes.recurrent:
                received[:] = zero
                for k in range(firing):
                    row = w_t[fired[k]]
                    for n in range(length):
                        received[n] += row[n]
            call(
                step,
                (
                    length, one, state[0, begin:], state.shape[1], x[t, begin:end], received, p[0], p.shape[1], z_t,
                    before[0], size,
                ),
            )  # fmt: skip
            if sizes.with_p:
                _advance_traces(of_a, of_b, of_leak, of_i, a, b, v_leak, v, i)
            if not (sizes.recurrent or keep):
                continue
            firing = 0
            for n in range(length):
                fired[firing] = n
                firing += z_t[n] > half
            for k in range(firing if keep else 0):
                n = fired[k]
                if count < where.shape[1]:
                    where[share, count, 0], where[share, count, 1] = t, begin + n
                    # how steeply the membrane crosses the threshold; -1 if it was above already
                    crossing = max((v_leak[n] - v_th[n]) + i[n], zero)
                    what[share, count, 0] = crossing if v[n] <= v_th[n] else -one
                    what[share, count, 1], what[share, count, 2] = of_a[n], of_b[n]
                    what[share, count, 3] = of_leak[n]
                of_a[n], of_b[n], of_leak[n] = zero, zero, zero
                count += 1
    counts[share] = count


@fused_multiply_add
def _later(weights, after, arrives, zero):
    """Return by how much the loss changes if what one neuron sends to all arrives one step later."""
    total = zero
    for m in range(len(arrives)):
        total += weights[m] * (after[m] - arrives[m])
    return total


@fused_multiply_add
def _backward(
    grad_z, with_z, grad_z_last, with_last, where, what, counts, w_t, p, sizes, with_w, grazing, largest, last,
    grad_v, grad_i, i_last, grad_x, grad_p, grad_w_t, share, start, stop
):  # fmt: skip
    """Go back through all steps of rows start..stop.

    grad_v and grad_i hold the gradients by the state after the last step, then by the one before the first; i_last is
    a copy of grad_i. grad_p[share] (5, block) and grad_w_t[share] (N, N) receive sums.
    """
    zero, steps, size = grad_x.dtype.type(0), len(grad_x), sizes.block
    a, b, v_th, v_reset = p[0], p[1], p[3], p[4]
    sums, first, behind = grad_p[share], start * sizes.neurons, stop * sizes.neurons
    least = counts[:share].sum()
    k = least + counts[share] - 1
    for begin in range(first + (behind - first - 1) // size * size, first - 1, -size):
        end = min(begin + size, behind)
        length = end - begin
        g_v, g_i = grad_v[begin:end], grad_i[begin:end]
        if sizes.with_p:  # what the state after the last step depends on
            for n in range(length):
                sums[0, n] += g_v[n] * last[0, begin + n]
                sums[1, n] += g_v[n] * last[1, begin + n] + g_i[n] * last[3, begin + n]
                sums[2, n] += g_v[n] * last[2, begin + n]
        for t in range(steps - 1, -1, -1):
            g_x = grad_x[t, begin:end]
            while k >= least and where[k, 0] == t and where[k, 1] >= begin:
                n = where[k, 1] - begin
                later = zero  # by how much the loss changes if the spike comes one step later
                if t < steps - 1:
                    if with_z:
                        later += grad_z[t + 1, begin + n] - grad_z[t, begin + n]
                    if sizes.recurrent:
                        arrives = grad_x[t + 1, begin:end]
                        after = grad_x[t + 2, begin:end] if t + 2 < steps else i_last[begin:end]
                        later += _later(w_t[n], after, arrives, zero)
                        if with_w:
                            of_weights = grad_w_t[share, n]
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
                if sizes.with_p:
                    sums[0, n] += jump * what[k, 1]
                    sums[1, n] += jump * what[k, 2]
                    sums[2, n] += jump * what[k, 3]
                    sums[3, n] -= jump
                    sums[4, n] += g_v[n]
                g_v[n] = jump
                k -= 1
            for n in range(length):
                g_x[n] = (g_i[n] - b[n] * g_i[n]) + a[n] * g_v[n]
            for n in range(length):
                g_i[n] = g_x[n]
            for n in range(length):
                g_v[n] -= a[n] * g_v[n]


def _sizes(w, rows: int, neurons: int, with_p: bool) -> tuple[Sizes, int]:
    """Return what the loops must know, and the number of rows in a block."""
    block = 1 if w is not None else max(1, min(rows, 1024 // max(1, neurons)))
    return Sizes(neurons, block * neurons, w is not None, with_p), block


def forward(
    x: Tensor, v_0: Tensor, i_0: Tensor, w: Tensor | None, p: Tensor, keep: bool, with_p: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
    """Compute the sequence; see `snnparams.kernels.adjoint` for arguments and shapes."""
    steps, rows, neurons = x.shape
    sizes, block = _sizes(w, rows, neurons, with_p)
    w_t = x.new_empty(0, 0) if w is None else w.t().contiguous()
    step = elementwise.forward(LIFParameters.program, "heaviside", x.dtype, sizes.recurrent, keep=True)
    bounds = shares(rows)
    most = steps * int(np.diff(bounds).max()) * neurons
    counts = torch.zeros(len(bounds) - 1, dtype=torch.int64)
    room = min(most, max(LISTED, most // 8)) if keep else 0
    while True:
        z, state, last = torch.empty_like(x), torch.stack([v_0, i_0]), x.new_zeros(4, rows, neurons)
        where = torch.empty(len(counts), room, 2, dtype=torch.int32)
        what = x.new_empty(len(counts), room, 4)
        given = x.flatten(1), state.flatten(1), w_t, torch.cat([p] * block, dim=1)
        written = z.flatten(1), last.flatten(1), where, what, counts
        arrays, results = ([t.numpy() for t in tensors] for tensors in (given, written))
        run(_forward, bounds, *arrays, step, sizes, keep, *results)
        if not keep or (most := int(counts.max())) <= room:
            break
        room = most  # more spikes than there was room for: once more, with as much as they need
    lists = (torch.cat([part[:count] for part, count in zip(t, counts, strict=True)]) for t in (where, what))
    v, i = state.unbind()
    return z, v.clone(), i.clone(), last, [*lists, counts]


def backward(
    grad_z: Tensor | None, grad_z_last: Tensor | None, grad_v: Tensor, grad_i: Tensor, last: Tensor,
    spikes: Sequence[Tensor], w: Tensor | None, p: Tensor, steps: int, with_p: bool, with_w: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Compute the gradients; see `snnparams.kernels.adjoint` for arguments and shapes."""
    where, what, counts = spikes
    rows, neurons = grad_v.shape
    sizes, block = _sizes(w, rows, neurons, with_p)
    grad_x = grad_v.new_empty(steps, rows, neurons)
    i_last, grad_v, grad_i = grad_i, grad_v.clone(), grad_i.clone()
    grad_p = torch.zeros(len(counts), 5, sizes.block, dtype=torch.float64)
    grad_w_t = grad_v.new_zeros(len(counts), *((neurons, neurons) if with_w else (0, 0)))
    nothing = grad_v.new_empty(0, 0)
    of_z, of_last = (nothing if g is None else g.flatten(1) for g in (grad_z, grad_z_last))
    w_t, of_last = nothing if w is None else w.t().contiguous(), of_last.flatten()
    lists = [t.numpy() for t in (where, what, counts, w_t, torch.cat([p] * block, dim=1))]
    number = lists[-1].dtype.type  # numbers of the tensors' type keep float32 arithmetic in float32
    limits = number(adjoint.GRAZING), number(adjoint.LARGEST)
    written = last.flatten(1), grad_v.flatten(), grad_i.flatten(), i_last.flatten(), grad_x.flatten(1)
    run(
        _backward, shares(rows, len(counts)), of_z.numpy(), grad_z is not None, of_last.numpy(),
        grad_z_last is not None, *lists, sizes, with_w, *limits, *(t.numpy() for t in (*written, grad_p, grad_w_t)),
    )  # fmt: skip
    of_parameters = grad_p.sum(dim=0).view(5, block, neurons).sum(dim=1).to(grad_v.dtype)
    return grad_x, grad_v, grad_i, grad_w_t.sum(dim=0).t().contiguous(), of_parameters
