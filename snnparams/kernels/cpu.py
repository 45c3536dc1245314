"""Whole sequences of any neuron on a CPU: the loops over time and rows around one step, compiled by Numba.

Each function works on a share of the rows (the members of the batch). The rows lie one after the other in memory; a
piece of that goes through all steps before the next one does: some rows of a recurrent population, or as much of
another as stays close to the processor. Parameters are repeated row after row, so that a piece finds its own wherever
it begins. Products with weights, which cost most, stand in `snnparams.kernels.vectors`. `step` is the address of what
`snnparams.kernels.elementwise` has written for the neuron, so that these loops serve all neurons.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from snnparams.kernels import elementwise
from snnparams.kernels.compiled import all_finite, compiled, empty
from snnparams.kernels.threads import at, call, of_all_shares, run, shares
from snnparams.kernels.vectors import ROWS, append_above, gather, lanes, panels, scatter, several_rows, width
from snnparams.neurons import spike_programs
from snnparams.neurons.step import PROGRAMS

PIECE = 512  # neurons of a population without recurrence that go through all steps before the next ones do
TERMS = 16  # of float32 that are added up before they go to sums of float64: over more, rounding would show
LARGE = 1024  # neurons from which on weights leave the caches between two pieces, so that PyTorch's products are faster


class Sizes(NamedTuple):
    """What the loops must know besides arrays.

    Args:
        neurons: of a row.
        piece: neurons that go through all steps together.
        lanes: numbers in a register.
        recurrent: whether there are recurrent weights.
        dense: whether products with them take all outputs, or else those neurons that spike.
    """

    neurons: int
    piece: int
    lanes: int
    recurrent: bool
    dense: bool


@compiled
def _fill(array, number):
    """Set all numbers of an array with one axis."""
    for n in range(len(array)):
        array[n] = number


@compiled
def _spiking(z, half, first, last, lanes, chosen):
    """Write which of the neurons first..last spike, counted from first; return how many."""
    count, n = 0, first
    while n + lanes <= last:
        count = append_above(z, half, n, n - first, chosen, count)
        n += lanes
    while n < last:
        chosen[count] = n - first
        count += z[n] > half[n]
        n += 1
    return count


@compiled
def _forward(x, state, w, p, out, kept, step, alpha, sizes, keep, share, start, stop):
    """Advance rows start..stop of x (T, B * N); state (S, B * N) is that before the first step, then after the last."""
    neurons, piece, panel, columns = sizes.neurons, sizes.piece, sizes.neurons * w.shape[2], w.shape[2]
    chosen, count = np.empty((ROWS, neurons + sizes.lanes), np.int32), np.empty(ROWS, np.int64)
    for r in range(ROWS):
        for n in range(neurons):
            chosen[r, n] = n
    half, ones, received = (
        np.empty(piece, x.dtype),
        np.empty(neurons, x.dtype),
        np.empty(piece + len(w) * columns, x.dtype),
    )
    _fill(half, 0.5)
    _fill(ones, 1.0)
    of_step, p_stride, kept_stride = x.shape[1], p.shape[1], kept.shape[1] * kept.shape[2]
    for first in range(start * neurons, stop * neurons, piece):
        last = min(first + piece, stop * neurons)
        _fill(received, 0.0)
        for t in range(len(x)):
            if sizes.recurrent and t > 0:
                for r in range((last - first) // neurons):
                    values = out[t - 1, first + r * neurons : last] if sizes.dense else ones
                    for k in range(len(w)):  # what a panel writes behind a row, the next row writes again
                        gather(w, k * panel, chosen[r], values, 0, count[r], received, r * neurons + k * columns)
            here = t * of_step + first
            call(
                step,
                (
                    last - first, alpha, at(state, first), of_step, at(x, here), received, at(p, first % neurons),
                    p_stride, at(out, here), at(kept, here) if keep else at(out, here), kept_stride,
                ),
            )  # fmt: skip
            if sizes.recurrent:
                for r in range((last - first) // neurons):
                    row = r * neurons
                    if sizes.dense:
                        count[r] = neurons
                    else:
                        count[r] = _spiking(out[t, first:last], half, row, row + neurons, sizes.lanes, chosen[r])


@compiled
def _received(later, place, w, neurons, received):
    """Write what recurrent weights bring back to each of some rows from the gradients by their later currents.

    What the last panel writes behind a row, the first one writes again for the next row.
    """
    for k in range(len(w) - 1, -1, -1):
        several_rows(
            later, place, neurons, neurons, w, k * w.shape[1] * w.shape[2], received, k * w.shape[2], neurons
        )  # fmt: skip


@compiled
def _add_products(out, later, first, grad_w_t, share, panels, columns, rows, half, sizes, everyone, chosen, ones):
    """Add outputs times the gradients by later currents to the gradient by the recurrent weights.

    Behind the last neuron a panel gets what comes behind a row, and is not read there.
    """
    neurons = sizes.neurons
    for r in range(rows):
        row = r * neurons
        count = neurons if sizes.dense else _spiking(out, half, row, row + neurons, sizes.lanes, chosen)
        values = out[row : row + neurons] if sizes.dense else ones
        for k in range(panels):
            place = (share * panels + k) * neurons * columns
            which = everyone if sizes.dense else chosen
            scatter(grad_w_t, place, which, values, 0, count, later, first + row + k * columns)


@compiled
def _add_sums(sums, piece, size, first, neurons, totals, place):
    """Add the sums of a piece, of which the first number is of neuron `first`, to those of each neuron; clear them."""
    for k in range(len(sums) // piece):
        begin, of_neuron = k * piece, place + k * neurons + first
        while begin < k * piece + size:
            behind = min(k * piece + size, begin + place + (k + 1) * neurons - of_neuron)
            of_piece, of_total = sums[begin:behind], totals[of_neuron:]
            for j in range(len(of_piece)):
                of_total[j] += of_piece[j]
                of_piece[j] = 0
            begin, of_neuron = behind, place + k * neurons


@compiled
def _backward(
    grad_out, kept, w, p, step, alpha, sizes, with_out, with_w, grad_state, grad_x, totals, grad_w_t, share, start, stop
):  # fmt: skip
    """Go back through all steps in rows start..stop.

    grad_state (S, B * N) is the gradient by the state after the last step, then by that before the first. Behind the
    last number of grad_x as many others are read, to no effect, as `ROWS` rows and the width of a panel have.
    """
    neurons, piece = sizes.neurons, sizes.piece
    half, ones, out = np.empty(piece, p.dtype), np.empty(neurons, p.dtype), np.empty(piece, p.dtype)
    everyone, chosen = np.empty(neurons, np.int32), np.empty(neurons + sizes.lanes, np.int32)
    received, sums = np.empty(piece + len(w) * w.shape[2], p.dtype), np.empty(len(p) * piece, p.dtype)
    _fill(half, 0.5)
    _fill(ones, 1.0)
    _fill(sums, 0.0)
    for n in range(neurons):
        everyone[n] = n
    of_step, p_stride, kept_stride = grad_x.shape[1], p.shape[1], kept.shape[1] * kept.shape[2]
    for first in range(start * neurons, stop * neurons, piece):
        last = min(first + piece, stop * neurons)
        rows = (last - first) // neurons
        _fill(received, 0.0)
        for t in range(len(grad_x) - 1, -1, -1):
            after, here = sizes.recurrent and t < len(grad_x) - 1, t * of_step + first
            if after:
                _received(grad_x, here + of_step, w, neurons, received)
            call(
                step,
                (
                    last - first, alpha, at(kept, here), kept_stride, at(p, first % neurons), p_stride,
                    at(grad_out, here) if with_out else at(grad_x, here), received, at(grad_state, first), of_step,
                    at(grad_x, here), out, sums, piece,
                ),
            )  # fmt: skip
            if after and with_w:
                _add_products(
                    out, grad_x, here + of_step, grad_w_t, share, len(w), w.shape[2], rows, half, sizes, everyone,
                    chosen, ones,
                )  # fmt: skip
            if t % TERMS == 0:
                _add_sums(sums, piece, last - first, first % neurons, neurons, totals, share * len(p) * neurons)


@compiled
def _backward_step(
    grad_out, kept, t, received, p, step, alpha, neurons, with_out, grad_state, grad_x, out, totals, share, start, stop
):  # fmt: skip
    """Go back through one step in rows start..stop, for which `received` comes from the next one."""
    of_step, p_stride, kept_stride = grad_state.shape[1], p.shape[1], kept.shape[1] * kept.shape[2]
    sums, place = np.empty(len(p) * neurons, p.dtype), share * len(p) * neurons
    _fill(sums, 0.0)
    for row in range(start, stop):
        first = row * neurons
        call(
            step,
            (
                neurons, alpha, at(kept, t * of_step + first), kept_stride, p, p_stride,
                at(grad_out, first) if with_out else at(grad_x, first), at(received, first), at(grad_state, first),
                of_step, at(grad_x, first), at(out, first), sums, neurons,
            ),
        )  # fmt: skip
        if (row - start) % TERMS == TERMS - 1 or row == stop - 1:
            _add_sums(sums, neurons, neurons, 0, neurons, totals, place)


def _sizes(program, method, like, w) -> Sizes:
    """Return what the loops must know. Zero times a weight is not zero but NaN if that is not finite."""
    dense = not program.spikes or spike_programs.is_graded(method) or not (w is None or all_finite(w))
    neurons = like.shape[-1]
    return Sizes(neurons, PIECE if w is None else ROWS * neurons, lanes(like.dtype), w is not None, dense)


def _repeated(p: torch.Tensor, sizes: Sizes) -> np.ndarray:
    """Return parameters (E, P, N), row after row, so that a piece finds its own wherever it begins."""
    return np.concatenate([p.numpy()] * (1 + -(-sizes.piece // sizes.neurons)), axis=2)


def _rows(tensor: torch.Tensor) -> np.ndarray:
    """Return an array whose rows of neurons lie one after the other: (..., B * N) of (..., B, N)."""
    array = tensor.numpy()
    return array.reshape(*array.shape[:-2], array.shape[-2] * array.shape[-1])


def sequence_forward(
    x: Tensor, state: Tensor, w: Tensor | None, p: Tensor, name: str, method: str, alpha: float, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the sequence; see `snnparams.kernels.fused_sequence` for shapes."""
    program = PROGRAMS[name]
    out, state = empty(x), state.clone()
    members, steps, rows, neurons = x.shape
    kept = empty(x, members, len(program.kept), steps, rows, neurons) if keep else x.new_empty(members, 0, 0, 0, 0)
    if not x.numel():
        return out, state, kept
    sizes = _sizes(program, method, x, w)
    weights = x.new_empty(members, 0, 0, 1) if w is None else panels(w.transpose(1, 2))
    repeated = _repeated(p, sizes)
    given = _rows(x), _rows(state), weights.numpy(), repeated, _rows(out), _rows(kept)
    step = elementwise.forward(name, method, x.dtype, sizes.recurrent, keep)
    alpha, bounds = repeated.dtype.type(alpha), shares(rows)
    for arrays in zip(*given, strict=True):
        run(_forward, bounds, *arrays, step, alpha, sizes, keep)
    return out, state, kept


def sequence_backward(
    grad_out: Tensor | None, grad_state: Tensor, kept: Tensor, w: Tensor | None, p: Tensor, name: str, method: str,
    alpha: float, detach_reset: bool, with_p: bool, with_w: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Compute the gradients; see `snnparams.kernels.fused_sequence` for shapes."""
    sizes = _sizes(PROGRAMS[name], method, kept, w)
    given = grad_out, grad_state, kept, w, p, name, method, alpha, detach_reset, with_p, with_w
    gradients = _gradients(*given, sizes)
    # a NaN in a gradient by a current is one in all earlier ones, and makes zero spikes times it NaN as well
    if with_w and not sizes.dense and not all_finite(gradients[0]):
        gradients = _gradients(*given, sizes._replace(dense=True))
    return gradients


def _with_more_behind(like: torch.Tensor, *shape: int) -> torch.Tensor:
    """Return a tensor of that shape, not filled, behind which memory has room for what products read to no effect."""
    size = math.prod(shape)
    whole = empty(like, size + ROWS * shape[-1] + width(like.dtype))
    return torch.from_numpy(whole.numpy()[:size].reshape(shape))


def _gradients_step_by_step(grad_out, grad_state, kept, w, p, step, alpha, with_w):
    """Go back step by step, with products of all rows by PyTorch: it reads weights once that no cache holds."""
    members, _, steps, rows, neurons = kept.shape
    bounds = shares(rows)
    grad_x, grad_state = empty(kept, members, steps, rows, neurons), grad_state.clone()
    grad_p = torch.zeros(members, len(bounds) - 1, *p.shape[1:], dtype=torch.float64)
    grad_w = kept.new_zeros(members, *((neurons, neurons) if with_w else (0, 0)))
    received, out = kept.new_zeros(rows, neurons), empty(kept, rows, neurons)
    flat = received.numpy().reshape(-1), out.numpy().reshape(-1)
    for k in range(members):
        received.zero_()
        for t in range(steps - 1, -1, -1):
            given = (grad_x if grad_out is None else grad_out)[k, t].numpy().reshape(-1), _rows(kept[k]), t
            written = _rows(grad_state[k]), grad_x[k, t].numpy().reshape(-1), flat[1], grad_p[k].numpy().reshape(-1)
            how = step, alpha, neurons, grad_out is not None
            run(_backward_step, bounds, *given, flat[0], p[k].numpy(), *how, *written)
            if with_w and t < steps - 1:
                grad_w[k].addmm_(grad_x[k, t + 1].t(), out)
            if t:
                torch.mm(grad_x[k, t], w[k], out=received)
    return grad_x, grad_state, grad_w, grad_p.sum(dim=1).to(p.dtype)


def _gradients(grad_out, grad_state, kept, w, p, name, method, alpha, detach_reset, with_p, with_w, sizes):
    members, _, steps, rows, neurons = kept.shape
    if w is not None and kept.numel() and neurons >= LARGE:
        step = elementwise.backward(name, method, kept.dtype, detach_reset, True, grad_out is not None, with_p)
        alpha = p.numpy().dtype.type(alpha)
        return _gradients_step_by_step(grad_out, grad_state, kept, w, p, step, alpha, with_w)
    bounds = shares(rows)
    grad_x, grad_state = _with_more_behind(kept, members, steps, rows, neurons), grad_state.clone()
    grad_p = torch.zeros(members, len(bounds) - 1, *p.shape[1:], dtype=torch.float64)
    nothing = kept.new_empty(members, 0, 0, 1)
    weights = nothing if w is None else panels(w)
    grad_w_t = kept.new_zeros(members, len(bounds) - 1, *(weights.shape[1:] if with_w else (0, 0, 1)))
    if kept.numel():
        step = elementwise.backward(
            name, method, kept.dtype, detach_reset, sizes.recurrent, grad_out is not None, with_p
        )  # fmt: skip
        repeated = _repeated(p, sizes)
        given = _rows(nothing if grad_out is None else grad_out), _rows(kept), weights.numpy(), repeated
        totals, of_w = (gradient.numpy().reshape(members, -1) for gradient in (grad_p, grad_w_t))
        written = _rows(grad_state), _rows(grad_x), totals, of_w
        how = step, repeated.dtype.type(alpha), sizes, grad_out is not None, with_w
        for *arrays, of_state, of_x, of_p, of_w in zip(*given, *written, strict=True):
            run(_backward, bounds, *arrays, *how, of_state, of_x, of_p, of_w)
    grad_w = of_all_shares(grad_w_t, neurons) if with_w else kept.new_empty(members, 0, 0)
    return grad_x, grad_state, grad_w, grad_p.sum(dim=1).to(p.dtype)
