"""Whole sequences of any neuron, for Triton: the loops over time, blocks and tiles around one step.

`STEP` is one of the functions that `snnparams.kernels.gpu_steps` has printed for the neuron, so that these loops serve
all. Shapes are those of `snnparams.kernels.fused_sequence`. S, P and K are the numbers of variables, of constants and
parameters, and of what is kept of each step; several values of a neuron are a tuple. `snnparams.kernels.gpu` says how
the work is shared out, `snnparams.kernels.gpu_sequence` launches.

Triton passes an integer as 32 bits, and makes a constant of a 1. So each kernel begins by making 64 bits of the sizes
that it multiplies: offsets do not overflow, and a batch of one is like any other.

Gradients by parameters are sums over all steps in the type of the neurons, in float32 so: most GPUs compute float64 at
a small fraction of that speed, and twice the registers are not there. The rounding of such a sum grows with the number
of steps, at most by half a unit in the last place of its largest part for each; the CPU kernels sum in float64.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def part(count, PER: tl.constexpr):
    """Return the network that this program belongs to, and where its part begins: PER of `count` rows or neurons."""
    program, parts = tl.program_id(0).to(tl.int64), tl.cdiv(count, PER)
    return program // parts, program % parts * PER


@triton.jit
def append(found, value):
    """Return a tuple with one more value."""
    return found + (value,)  # noqa: RUF005


@triton.jit
def load(values, stride, at, mask, COUNT: tl.constexpr):
    """Return several values of each neuron."""
    found = ()
    for k in tl.static_range(COUNT):
        found = append(found, tl.load(values + k * stride + at, mask, other=0.0))
    return found


@triton.jit
def store(found, values, stride, at, mask, COUNT: tl.constexpr):
    """Write the first of several values of each neuron."""
    for k in tl.static_range(COUNT):
        tl.store(values + k * stride + at, found[k], mask)


@triton.jit
def zeros(like, COUNT: tl.constexpr):
    """Return as many zeros for each neuron."""
    found = ()
    for _ in tl.static_range(COUNT):
        found = append(found, tl.zeros_like(like))
    return found


@triton.jit
def add(sums, terms, COUNT: tl.constexpr):
    """Return the sums with the first of the terms added."""
    found = ()
    for k in tl.static_range(COUNT):
        found = append(found, sums[k] + terms[k])
    return found


# ------------------------------------------------------------------------------------------------- without recurrence


@triton.jit
def forward(
    x, state, p, out, last, kept, steps, size, neurons,
    STEP: tl.constexpr, S: tl.constexpr, P: tl.constexpr, K: tl.constexpr, ALPHA: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Take BLOCK of the `size` neurons of all rows through all time steps; K is 0 if nothing is kept."""
    steps, size, neurons = tl.cast(steps, tl.int64), tl.cast(size, tl.int64), tl.cast(neurons, tl.int64)
    member, first = part(size, BLOCK)
    at = first + tl.arange(0, BLOCK)
    mask = at < size
    given = load(p + member * P * neurons, neurons, at % neurons, mask, P)
    values = load(state + member * S * size, size, at, mask, S)
    x, out, kept = x + member * steps * size, out + member * steps * size, kept + member * K * steps * size
    place = at
    for _ in range(steps):
        output, values, start = STEP(tl.load(x + place, mask, other=0.0), values, given, ALPHA)
        tl.store(out + place, output, mask)
        store(start, kept, steps * size, place, mask, K)
        place += size
    store(values, last + member * S * size, size, at, mask, S)


@triton.jit
def backward(
    grad_out, grad_state, kept, p, grad_x, grad_state_0, grad_p, steps, size, neurons,
    STEP: tl.constexpr, S: tl.constexpr, P: tl.constexpr, K: tl.constexpr, TERMS: tl.constexpr, WITH_OUT: tl.constexpr,
    ALPHA: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Go back through all time steps of `forward`; `grad_p` (E, TERMS, B, N) is not yet summed over the rows."""
    steps, size, neurons = tl.cast(steps, tl.int64), tl.cast(size, tl.int64), tl.cast(neurons, tl.int64)
    member, first = part(size, BLOCK)
    at = first + tl.arange(0, BLOCK)
    mask = at < size
    given = load(p + member * P * neurons, neurons, at % neurons, mask, P)
    gradients = load(grad_state + member * S * size, size, at, mask, S)
    grad_out, grad_x = grad_out + member * steps * size, grad_x + member * steps * size
    kept += member * K * steps * size
    sums = zeros(gradients[0], TERMS)
    place = (steps - 1) * size + at
    for _ in range(steps):
        g_out = tl.zeros_like(gradients[0])
        if WITH_OUT:
            g_out = tl.load(grad_out + place, mask, other=0.0)
        start = load(kept, steps * size, place, mask, K)
        g_x, gradients, terms, _ = STEP(g_out, gradients, start, given, ALPHA)
        tl.store(grad_x + place, g_x, mask)
        sums = add(sums, terms, TERMS)
        place -= size
    store(gradients, grad_state_0 + member * S * size, size, at, mask, S)
    store(sums, grad_p + member * TERMS * size, size, at, mask, TERMS)


# ------------------------------------------------------------------------------------------- weights and state on chip


@triton.jit
def recurrent_forward(
    x, state, w, p, out, last, kept, steps, rows, neurons,
    STEP: tl.constexpr, S: tl.constexpr, P: tl.constexpr, K: tl.constexpr, ALPHA: tl.constexpr,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Take ROWS rows of at most N neurons through all time steps; K is 0 if nothing is kept."""
    steps, rows, neurons = tl.cast(steps, tl.int64), tl.cast(rows, tl.int64), tl.cast(neurons, tl.int64)
    member, first_row = part(rows, ROWS)
    row, n = first_row + tl.arange(0, ROWS)[:, None], tl.arange(0, N)
    here = n[None, :] < neurons
    mask, at, size = (row < rows) & here, row * neurons + n[None, :], rows * neurons
    w_t = tl.load(  # w_t[k, n]: what neuron n receives from neuron k
        w + member * neurons * neurons + n[None, :] * neurons + n[:, None], here & (n[:, None] < neurons), other=0.0
    )
    given = load(p + member * P * neurons, neurons, n[None, :], here, P)
    values = load(state + member * S * size, size, at, mask, S)
    x, out, kept = x + member * steps * size, out + member * steps * size, kept + member * K * steps * size
    before = tl.zeros_like(values[0])
    place = at
    for t in range(steps):
        received = tl.where(t > 0, tl.dot(before, w_t, input_precision=PRECISION), 0.0)  # 0 times infinity is not 0
        current = tl.load(x + place, mask, other=0.0) + received
        output, values, start = STEP(current, values, given, ALPHA)
        tl.store(out + place, output, mask)
        store(start, kept, steps * size, place, mask, K)
        before = tl.where(mask, output, 0.0)  # what only fills up a block gives nothing
        place += size
    store(values, last + member * S * size, size, at, mask, S)


@triton.jit
def recurrent_backward(
    grad_out, grad_state, kept, w, p, grad_x, grad_state_0, grad_p, out, steps, rows, neurons,
    STEP: tl.constexpr, S: tl.constexpr, P: tl.constexpr, K: tl.constexpr, TERMS: tl.constexpr, WITH_OUT: tl.constexpr,
    WITH_W: tl.constexpr, ALPHA: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Go back through all time steps; `grad_p` (E, programs, TERMS, N) is not yet summed over the programs.

    With WITH_W the outputs are written to `out`.
    """
    steps, rows, neurons = tl.cast(steps, tl.int64), tl.cast(rows, tl.int64), tl.cast(neurons, tl.int64)
    member, first_row = part(rows, ROWS)
    row, n = first_row + tl.arange(0, ROWS)[:, None], tl.arange(0, N)
    here = n[None, :] < neurons
    mask, at, size = (row < rows) & here, row * neurons + n[None, :], rows * neurons
    w_here = tl.load(
        w + member * neurons * neurons + n[:, None] * neurons + n[None, :], here & (n[:, None] < neurons), other=0.0
    )
    given = load(p + member * P * neurons, neurons, n[None, :], here, P)
    gradients = load(grad_state + member * S * size, size, at, mask, S)
    grad_out, grad_x, out = (
        grad_out + member * steps * size, grad_x + member * steps * size, out + member * steps * size
    )  # fmt: skip
    kept += member * K * steps * size
    g_x, sums = tl.zeros_like(gradients[0]), zeros(gradients[0], TERMS)
    place = (steps - 1) * size + at
    for back in range(steps):
        g_out = tl.where(back > 0, tl.dot(g_x, w_here, input_precision=PRECISION), 0.0)
        if WITH_OUT:
            g_out += tl.load(grad_out + place, mask, other=0.0)
        start = load(kept, steps * size, place, mask, K)
        g_x, gradients, terms, output = STEP(g_out, gradients, start, given, ALPHA)
        g_x = tl.where(mask, g_x, 0.0)
        tl.store(grad_x + place, g_x, mask)
        if WITH_W:
            tl.store(out + place, output, mask)
        sums = add(sums, terms, TERMS)
        place -= size
    store(gradients, grad_state_0 + member * S * size, size, at, mask, S)
    grad_p += tl.program_id(0).to(tl.int64) * TERMS * neurons
    for k in tl.static_range(TERMS):
        tl.store(grad_p + k * neurons + n, tl.sum(tl.where(mask, sums[k], 0.0), axis=0), n < neurons)


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
def add_rows(sums, terms, n, neurons):
    """Add the rows of terms to sums, which belong to this program alone."""
    mask = n < neurons
    tl.store(sums + n, tl.load(sums + n, mask, other=0.0) + tl.sum(terms, axis=0), mask)


@triton.jit
def tiled_forward(
    x, w_t, p, out, last, kept, steps, rows, neurons,
    STEP: tl.constexpr, S: tl.constexpr, P: tl.constexpr, K: tl.constexpr, ALPHA: tl.constexpr,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Take ROWS rows through all time steps, N neurons after the other; `w_t` (E, N, N) is the weights' transpose.

    `last` is the state, at first that before the first step.
    """
    steps, rows, neurons = tl.cast(steps, tl.int64), tl.cast(rows, tl.int64), tl.cast(neurons, tl.int64)
    member, first_row = part(rows, ROWS)
    row = first_row + tl.arange(0, ROWS)[:, None]
    row_mask, at, size = row < rows, row * neurons, rows * neurons
    x, out, kept = x + member * steps * size, out + member * steps * size, kept + member * K * steps * size
    p, last, w_t = p + member * P * neurons, last + member * S * size, w_t + member * neurons * neurons
    place = at
    for t in range(steps):
        for block in range(0, neurons, N):
            n = block + tl.arange(0, N)
            here = n[None, :] < neurons
            mask = row_mask & here
            current = tl.zeros((ROWS, N), x.dtype.element_ty)
            if t > 0:  # before anything else is loaded, so that the product has all registers
                current = times_weights(out, place - size, w_t, n, row_mask, neurons, PRECISION, N)
            current = tl.load(x + place + n[None, :], mask, other=0.0) + current
            given = load(p, neurons, n[None, :], here, P)
            values = load(last, size, at + n[None, :], mask, S)
            output, values, start = STEP(current, values, given, ALPHA)
            tl.store(out + place + n[None, :], output, mask)
            store(start, kept, steps * size, place + n[None, :], mask, K)
            store(values, last, size, at + n[None, :], mask, S)
        tl.debug_barrier()  # the next step reads the outputs that other threads of this program wrote
        place += size


@triton.jit
def tiled_backward(
    grad_out, kept, w, p, grad_x, grad_state, grad_p, out, steps, rows, neurons,
    STEP: tl.constexpr, S: tl.constexpr, P: tl.constexpr, K: tl.constexpr, TERMS: tl.constexpr, WITH_OUT: tl.constexpr,
    WITH_W: tl.constexpr, ALPHA: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Go back through all time steps, N neurons after the other; `grad_p` as in `recurrent_backward`, zero at first.

    `grad_state` is the gradient by the state, at first by that after the last step.
    """
    steps, rows, neurons = tl.cast(steps, tl.int64), tl.cast(rows, tl.int64), tl.cast(neurons, tl.int64)
    member, first_row = part(rows, ROWS)
    row = first_row + tl.arange(0, ROWS)[:, None]
    row_mask, at, size = row < rows, row * neurons, rows * neurons
    grad_out, grad_x, out = (
        grad_out + member * steps * size, grad_x + member * steps * size, out + member * steps * size
    )  # fmt: skip
    kept, p, w = kept + member * K * steps * size, p + member * P * neurons, w + member * neurons * neurons
    grad_state, grad_p = grad_state + member * S * size, grad_p + tl.program_id(0).to(tl.int64) * TERMS * neurons
    place = (steps - 1) * size + at
    for back in range(steps):
        for block in range(0, neurons, N):
            n = block + tl.arange(0, N)
            here = n[None, :] < neurons
            mask, where = row_mask & here, place + n[None, :]
            g_out = tl.zeros((ROWS, N), grad_x.dtype.element_ty)
            if back > 0:  # before anything else is loaded, so that the product has all registers
                g_out = times_weights(grad_x, place + size, w, n, row_mask, neurons, PRECISION, N)
            if WITH_OUT:
                g_out += tl.load(grad_out + where, mask, other=0.0)
            given = load(p, neurons, n[None, :], here, P)
            gradients = load(grad_state, size, at + n[None, :], mask, S)
            start = load(kept, steps * size, where, mask, K)
            g_x, gradients, terms, output = STEP(g_out, gradients, start, given, ALPHA)
            tl.store(grad_x + where, g_x, mask)
            if WITH_W:
                tl.store(out + where, output, mask)
            store(gradients, grad_state, size, at + n[None, :], mask, S)
            for k in tl.static_range(TERMS):
                add_rows(grad_p + k * neurons, tl.where(mask, terms[k], 0.0), n, neurons)
        tl.debug_barrier()  # the next step reads what other threads of this program wrote
        place -= size
