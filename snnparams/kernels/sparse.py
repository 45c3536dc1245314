"""Sparse spikes on a CPU, compiled by Numba: products with weights, and the encoder that makes them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from snnparams.kernels.compiled import all_finite, compiled, empty
from snnparams.kernels.threads import of_all_shares, run, shares
from snnparams.kernels.vectors import append_above, gather, lanes, panels, scatter, width


@compiled
def _compress(step, row, column, steps, rows, inputs, row_start, columns, bad, share, start, stop):
    """Write where the rows begin that have a spike among start..stop or none before it, and the columns.

    bad[share] becomes the place of the first index that is not valid, or -1.
    """
    bad[share], row_before, place_before = -1, -1, -1
    for k in range(max(start - 1, 0), stop):
        r = step[k] * rows + row[k]
        inside = 0 <= step[k] < steps and 0 <= row[k] < rows and 0 <= column[k] < inputs
        place = r * inputs + column[k]
        if not inside or place <= place_before:
            bad[share] = k
            return
        if k >= start:
            for j in range(row_before + 1, r + 1):
                row_start[j] = k
            columns[k] = column[k]
        row_before, place_before = r, place
    if stop == len(step):
        for j in range(row_before + 1, len(row_start)):
            row_start[j] = stop


def compress(spikes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a coalesced sparse COO tensor (T, B, I) as T * B compressed rows."""
    steps, rows, inputs = spikes.shape
    indices = spikes.indices().contiguous()  # they may be a view with strides of its own, or an expanded one
    step, row, column = indices.numpy()
    row_start = torch.empty(steps * rows + 1, dtype=torch.int64)
    columns = torch.empty(indices.shape[1], dtype=torch.int32)
    bounds = shares(len(step))
    found = np.empty(len(bounds) - 1, np.int64)
    run(_compress, bounds, step, row, column, steps, rows, inputs, row_start.numpy(), columns.numpy(), found)
    if (found >= 0).any():
        bad = found[found >= 0].min()
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


@compiled
def _product(row_start, column, values, w, out, share, start, stop):
    """Add up the weights of each row's spikes."""
    inputs, columns = w.shape[1], w.shape[2]
    total = np.empty(len(w) * columns, w.dtype)
    for r in range(start, stop):
        for p in range(len(w)):
            gather(w, p * inputs * columns, column, values, row_start[r], row_start[r + 1], total, p * columns)
        for n in range(out.shape[1]):
            out[r, n] = total[n]


@compiled
def _outer_products(row_start, column, values, grad, out, share, start, stop):
    """Add each row of grad to the rows of out[share] that its spikes name."""
    inputs, columns = out.shape[2], out.shape[3]
    sums, row = out[share], np.empty(out.shape[1] * columns, out.dtype)
    for n in range(len(row)):  # what lies behind the last neuron stays zero
        row[n] = 0
    for r in range(start, stop):
        for n in range(grad.shape[1]):
            row[n] = grad[r, n]
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


@compiled
def _of_row(values, r, out):
    """Write row r of a parameter, which may have a single row for all of them, and a single column."""
    row, last = r if len(values) > 1 else 0, values.shape[1] - 1
    for n in range(len(out)):
        out[n] = values[row, min(n, last)]


@compiled
def _simulate(x, steps, a, v_leak, v_th, v_reset, margin, lanes, row_start, indices, share, start, stop):
    """Let rows start..stop of x (R, N) drive neurons for all steps, to count their spikes or to write them.

    Where there is no room in `indices`, row_start[t * R + r + 1] becomes the number of spikes of row r in step t; else
    row_start[t * R + r] says where they belong. The arithmetic is that of `constant_current_lif_encode`, step by step,
    for those neurons that can reach their threshold, or miss it by no more than rounding, `margin`.
    """
    rows, inputs = x.shape
    given, of_row = (a, v_leak, v_th, v_reset), np.empty((4, inputs + lanes), x.dtype)
    rate_of, leak_of, th_of, reset_of = of_row[0], of_row[1], of_row[2], of_row[3]
    active = np.empty((5, inputs + lanes), x.dtype)  # a whole register from any place on
    rate, target, current, th, reset = active[0], active[1], active[2], active[3], active[4]
    v, highest = np.empty(inputs + lanes, x.dtype), np.empty(inputs + lanes, x.dtype)
    chosen, spiking = np.empty(inputs + 2 * lanes, np.int32), np.empty(inputs + 2 * lanes, np.int32)
    for n in range(inputs, inputs + lanes):
        highest[n] = -np.inf  # what fills the last register is not chosen, or never spikes
    for r in range(start, stop):
        for k in range(4):
            if r == start or len(given[k]) > 1:
                _of_row(given[k], r, of_row[k][:inputs])
        x_of = x[r]
        for n in range(inputs):  # the voltage stays between where it begins, or is reset to, and where it tends
            reached = max(leak_of[n] + x_of[n], max(x.dtype.type(0), reset_of[n]))
            highest[n] = reached + margin * (abs(leak_of[n]) + abs(x_of[n]) + abs(th_of[n]) + abs(reset_of[n]))
        count = 0
        for n in range(0, inputs, lanes):
            count = append_above(highest, th_of, n, n, chosen, count)
        for j in range(count):
            n = chosen[j]
            rate[j], target[j], current[j], th[j], reset[j] = rate_of[n], leak_of[n], x_of[n], th_of[n], reset_of[n]
        for j in range(count, count + lanes):
            th[j] = np.inf
        for j in range(count + lanes):
            v[j] = 0
        for t in range(steps):
            for j in range(count):
                v[j] = v[j] + rate[j] * ((target[j] - v[j]) + current[j])
            found = 0
            for j in range(0, count, lanes):
                found = append_above(v, th, j, j, spiking, found)
            if len(indices[0]) == 0:
                row_start[t * rows + r + 1] = found
            else:
                place = row_start[t * rows + r]
                for k in range(found):
                    indices[0, place + k], indices[1, place + k] = t, r
                    indices[2, place + k] = chosen[spiking[k]]
            for j in range(count):  # all of them, as a register of which single numbers were written is slow to read
                low, high = reset[j], v[j]
                v[j] = low if high > th[j] else high


def _once(values: Tensor) -> np.ndarray:
    """Return a parameter that was expanded to (R, N) with one row or one column where all are the same."""
    row, column = (values.stride(axis) == 0 for axis in (0, 1))
    return values[: 1 if row else None, : 1 if column else None].contiguous().numpy()


def encode(x: Tensor, steps: int, *parameters: Tensor) -> Tensor:
    """Return the indices (3, spikes) of the spikes of neurons that x (R, N) drives.

    All of a, v_leak, v_th and v_reset have its shape, perhaps expanded to it. Simulating twice, first to count and
    then to write, costs less than to keep what the first time finds.
    """
    rows, bounds = len(x), shares(len(x))
    row_start = torch.zeros(steps * rows + 1, dtype=torch.int64)
    margin = x.numpy().dtype.type(8 * torch.finfo(x.dtype).eps)
    given = x.numpy(), steps, *map(_once, parameters), margin, lanes(x.dtype), row_start.numpy()
    run(_simulate, bounds, *given, np.empty((3, 0), np.int64))
    row_start.cumsum_(0)
    indices = torch.empty(3, int(row_start[-1]), dtype=torch.int64)
    if indices.numel():
        run(_simulate, bounds, *given, indices.numpy())
    return indices
