"""Vector instructions and sums of the CPU kernels against NumPy, whatever registers the processor has."""

import numpy as np
import pytest
import torch
from torch import nn

import snnparams as sp
from snnparams.kernels import few
from snnparams.kernels.compiled import compiled
from snnparams.kernels.fused_sequence import sequence
from snnparams.kernels.threads import run
from snnparams.kernels.vectors import ROWS, append_above, gather, lanes, panels, scatter, several_rows, width

DTYPES = [torch.float32, torch.float64]


def random(dtype: torch.dtype, *shape: int) -> np.ndarray:
    """Return random numbers of a type."""
    return torch.randn(*shape, dtype=dtype).numpy()


@compiled
def _all_above(v, v_th, first, lanes, chosen, count, share, start, stop):
    for n in range(0, len(v), lanes):
        count[0] = append_above(v, v_th, n, first + n, chosen, count[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_numbers_above_are_appended_in_order(dtype, share):
    size, before, first = 512 * lanes(dtype), 3, 7
    v_th = random(dtype, size)
    above = np.random.default_rng(0).random(size) < share
    v = np.where(above, v_th + 1, v_th)  # a number that equals its threshold is not above it
    v[~above & (np.arange(size) % 5 == 0)] = np.nan
    chosen, count = np.full(before + size + lanes(dtype), -1, np.int32), np.array([before])
    run(_all_above, np.array([0, 1]), v, v_th, first, lanes(dtype), chosen, count)
    assert count[0] == before + above.sum()
    assert (chosen[:before] == -1).all()
    assert (chosen[before : count[0]] == first + np.flatnonzero(above)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_pattern_of_a_register_is_told(dtype):
    together = lanes(dtype)
    bits = np.arange(2**together)[:, None] >> np.arange(together) & 1
    v, chosen = bits.astype(random(dtype, 1).dtype).reshape(-1), np.empty(bits.size + together, np.int32)
    count = np.array([0])
    run(_all_above, np.array([0, 1]), v, np.full_like(v, 0.5), 0, together, chosen, count)
    assert (chosen[: count[0]] == np.flatnonzero(bits)).all()


@compiled
def _products(w, chosen, values, rows, row, gathered, scattered, several, share, start, stop):
    gather(w, 0, chosen, values, 1, len(chosen), gathered, 0)
    scatter(scattered, 0, chosen, values, 1, len(chosen), row, 0)
    several_rows(rows, 0, rows.shape[1], rows.shape[1], w, 0, several, 0, several.shape[1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_with_a_panel(dtype):
    inputs, columns = 37, width(dtype)
    w = torch.randn(inputs, columns, dtype=dtype)
    chosen = np.array([5, 0, 36, 5, 12], np.int32)  # the first is left out; one comes twice
    values, rows, row = random(dtype, len(chosen)), random(dtype, ROWS, inputs), random(dtype, columns)
    gathered, scattered, several = random(dtype, columns), random(dtype, inputs, columns), random(dtype, ROWS, columns)
    before, array = scattered.copy(), w.numpy()
    run(_products, np.array([0, 1]), panels(w).numpy(), chosen, values, rows, row, gathered, scattered, several)
    near = {"rtol": 0, "atol": 40 * torch.finfo(dtype).eps}
    np.testing.assert_allclose(gathered, values[1:] @ array[chosen[1:]], **near)
    np.add.at(before, chosen[1:], values[1:, None] * row)
    np.testing.assert_allclose(scattered, before, **near)
    np.testing.assert_allclose(several, rows @ array, **near)


def test_gradients_by_parameters_of_a_short_call_are_exact_over_all_its_steps():
    torch.manual_seed(0)
    x, found = torch.rand(few.STEPS, 20, 9), []
    for dtype in (torch.float32, torch.float64):
        p = sp.LIFParameters(v_th=nn.Parameter(torch.full((9,), 1e3, dtype=dtype)))
        layer = sp.LIF(p, size=9, gradient=sp.Surrogate("super", alpha=0.001), dtype=dtype)
        assert few._takes(x.to(dtype), few.STEPS, 20 * 9)
        layer(x.to(dtype))[0].sum().backward()
        (learned,) = layer.parameters()
        found.append(learned.grad.double())
    assert (found[1] < -10).all()
    torch.testing.assert_close(*found, rtol=8 * torch.finfo(torch.float32).eps, atol=0)


@pytest.mark.parametrize("neurons", [9, 1024])  # from so many on, recurrent ones go back step by step
@pytest.mark.parametrize("recurrent", [False, True])
def test_gradients_by_parameters_are_as_exact_over_many_steps(recurrent, neurons):
    """Added one by one in float32, so many terms of one sign would be off by some hundred roundings."""
    torch.manual_seed(0)
    steps, rows = (40_000, 7) if neurons < 1000 else (2, 4000)
    x, state = torch.rand(1, steps, rows, neurons), torch.zeros(1, 2, rows, neurons)
    w = torch.rand(1, neurons, neurons) / neurons if recurrent else None
    p = torch.tensor([0.1, 0.2, 0.0, 1e3, 0.0])[None, :, None].repeat(1, 1, neurons)  # no neuron spikes
    found = []
    for dtype in (torch.float32, torch.float64):
        given = [None if t is None else t.to(dtype) for t in (x, state, w)]
        values = p.to(dtype, copy=True).requires_grad_()
        out, *_ = sequence(*given, values, sp.LIFParameters.program, "super", 0.001, True, True, "cpu")
        out.sum().backward()
        found.append(values.grad.double())
    single, double = (gradient[0, 2:4] for gradient in found)  # by v_leak and v_th, whose terms all have one sign
    assert (double.abs() > 1e-4).all()
    torch.testing.assert_close(single, double, rtol=3 * torch.finfo(torch.float32).eps, atol=0)
