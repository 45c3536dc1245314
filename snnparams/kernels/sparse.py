"""Sparse spikes on a CPU, compiled by Numba: products with weights, and the encoder that makes them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from snnparams.kernels.compiled import all_finite, compiled, empty, in_shares, of_all_shares, run, shares
from snnparams.kernels.vectors import gather, panels, scatter, width


@compiled
def _row_starts(step, row, column, steps, rows, inputs, row_start, columns):
    """Write where each row begins, and the columns; return the place of an index that is not valid, or -1."""
    before = -1
    for k in range(len(step)):
        r = step[k] * rows + row[k]
        inside = 0 <= step[k] < steps and 0 <= row[k] < rows and 0 <= column[k] < inputs
        place = r * inputs + column[k]
        if not inside or place <= before:
            return k
        row_start[r + 1] += 1
        columns[k] = column[k]
        before = place
    for r in range(len(row_start) - 1):
        row_start[r + 1] += row_start[r]
    return -1


def compress(spikes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a coalesced sparse COO tensor (T, B, I) as T * B compressed rows."""
    steps, rows, inputs = spikes.shape
    indices = spikes.indices().contiguous()  # they may be a view with strides of its own, or an expanded one
    step, row, column = indices.numpy()
    row_start = torch.zeros(steps * rows + 1, dtype=torch.int64)
    columns = torch.empty(indices.shape[1], dtype=torch.int32)
    arrays = row_start.numpy(), columns.numpy()
    if (bad := _row_starts(step, row, column, steps, rows, inputs, *arrays)) >= 0:
        raise ValueError(
            f"input: expected indices within {tuple(spikes.shape)} in the order of rows, got "
            f"{indices[:, bad].tolist()} as number {bad}; build the tensor with check_invariants=True, and without "
            "is_coalesced=True"
        )
    return row_start, columns, spikes.values().resolve_neg().clone(memory_format=torch.contiguous_format)


def _dense(row_start, column, values, inputs: int) -> torch.Tensor:
    """Return compressed rows as a dense tensor (R, I)."""
    row = torch.repeat_interleave(torch.arange(len(row_start) - 1), row_start.diff())
    return values.new_zeros(len(row_start) - 1, inputs).index_put_((row, column.long()), values, accumulate=True)


@in_shares
@compiled
def _product(row_start, column, values, w, out, share, start, stop):
    """Add up the weights of each row's spikes."""
    inputs, columns = w.shape[1], w.shape[2]
    weights, total = w.reshape(-1), np.zeros(len(w) * columns, w.dtype)
    for r in range(start, stop):
        for p in range(len(w)):
            gather(weights, p * inputs * columns, column, values, row_start[r], row_start[r + 1], total, p * columns)
        out[r] = total[: out.shape[1]]


@in_shares
@compiled
def _outer_products(row_start, column, values, grad, out, share, start, stop):
    """Add each row of grad to the rows of out[share] that its spikes name."""
    inputs, columns = out.shape[2], out.shape[3]
    sums, row = out[share].reshape(-1), np.zeros(out.shape[1] * columns, out.dtype)
    for r in range(start, stop):
        row[: grad.shape[1]] = grad[r]
        for p in range(out.shape[1]):
            scatter(sums, p * inputs * columns, column, values, row_start[r], row_start[r + 1], row, p * columns)


def product(row_start: Tensor, column: Tensor, values: Tensor, weights: Tensor) -> Tensor:
    """Multiply compressed rows (R, I) with weights (H, I): shape (R, H)."""
    if not all_finite(weights):  # zero times infinity is NaN, also where there is no spike
        return _dense(row_start, column, values, weights.shape[1]) @ weights.t()
    out = empty(weights, len(row_start) - 1, len(weights))
    arrays = [t.numpy() for t in (row_start, column, values, panels(weights.t()), out)]
    run(_product, shares(len(out)), *arrays)
    return out


def weight_gradient(row_start: Tensor, column: Tensor, values: Tensor, grad: Tensor, inputs: int) -> Tensor:
    """Return the gradient (H, I) of that product by the weights, from that by the result (R, H)."""
    if not all_finite(grad):
        return grad.t() @ _dense(row_start, column, values, inputs)
    bounds, outputs, columns = shares(len(grad)), grad.shape[1], width(grad.dtype)
    sums = grad.new_zeros(len(bounds) - 1, -(-outputs // columns), inputs, columns)  # one sum for each thread
    arrays = [t.numpy() for t in (row_start, column, values, grad.contiguous(), sums)]
    run(_outer_products, bounds, *arrays)
    return of_all_shares(sums, outputs)


# ---------------------------------------------------------------------------------------------------- the encoder


@in_shares
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


@in_shares
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


def encode(x: Tensor, steps: int, a: Tensor, v_leak: Tensor, v_th: Tensor, v_reset: Tensor) -> Tensor:
    """Return the indices (3, spikes) of the spikes of neurons that x (R, N) drives; all arguments have its shape."""
    times = torch.empty(2, *x.shape, dtype=torch.int32)
    bounds = shares(len(x))
    counts = torch.zeros(len(bounds) - 1, steps, dtype=torch.int64)
    arrays = [t.numpy() for t in (a, v_leak, v_th, v_reset, times, counts)]
    run(_spike_times, bounds, x.numpy(), steps, *arrays)
    ends = counts.t().flatten().cumsum(0)  # in the order in which spikes are stored: by step, then by share
    position = ends.view(steps, -1).t().contiguous() - counts
    indices = torch.empty(3, int(ends[-1]), dtype=torch.int64)
    run(_write_spikes, bounds, steps, times.numpy(), position.numpy(), indices.numpy())
    return indices
