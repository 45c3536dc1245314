"""Poisson and latency encoders, against the statistics and times that they promise."""

import math

import pytest
import torch

import snnparams as sp


def test_a_poisson_train_has_the_rate_and_independence_of_a_bernoulli_one():
    values = torch.tensor([0.0, 0.2, 1.0], dtype=torch.float64)
    spikes = sp.poisson_encode(values.expand(50, 3), 4000, f_max=200.0, dt=2e-3)
    assert spikes.shape == (4000, 50, 3)
    assert spikes.dtype == torch.float64
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    probability = values * 0.4
    counts = spikes.sum(0)
    assert (counts[:, 0] == 0).all()
    spread = (probability * (1 - probability) / (4000 * 50)).sqrt()
    assert ((counts.mean(0) / 4000 - probability).abs() <= 5 * spread).all()
    after = (spikes[1:] * spikes[:-1]).mean((0, 1))  # both of two steps in a row
    torch.testing.assert_close(after, probability**2, rtol=0.05, atol=1e-12)
    assert sp.poisson_encode(torch.ones(3), 5, f_max=1000.0).min() == 1


def test_a_poisson_train_follows_its_generator_and_the_encoder_the_global_one():
    x = torch.rand(4, 3)
    first, second = (sp.poisson_encode(x, 9, 300.0, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    encoder = sp.PoissonEncoder(9, f_max=300.0)
    torch.manual_seed(3)
    assert torch.equal(encoder(x), first)
    assert "seq_length=9, f_max=300.0, dt=0.001" in repr(encoder)
    assert torch.compile(encoder, backend="eager", fullgraph=True)(x).shape == (9, 4, 3)


def test_a_larger_value_spikes_earlier_and_once_at_the_time_of_the_closed_form():
    x = torch.tensor([0.5, 1.0, 1.2, 2.0, 8.0], dtype=torch.float64)
    spikes = sp.spike_latency_lif_encode(x, 60)
    assert spikes.sum(0).tolist() == [0, 0, 1, 1, 1]
    # v after n steps is x (1 - 0.9 ** n), above 1 for the first time at
    expected = [math.floor(math.log(1 - 1 / value) / math.log(0.9)) + 1 for value in (1.2, 2.0, 8.0)]
    assert (spikes[:, 2:].argmax(0) + 1).tolist() == expected
    p = sp.LIFParameters(tau_mem=0.02, v_th=0.7)
    encoder = sp.SpikeLatencyLIFEncoder(60, p, dt=2e-3)
    every = sp.constant_current_lif_encode(x, 60, p, dt=2e-3)
    first = encoder(x)
    assert torch.equal(first.argmax(0), every.argmax(0))
    assert "seq_length=60, dt=0.002" in repr(encoder)


def test_bad_input():
    x = torch.rand(3)
    for encode in (lambda n: sp.poisson_encode(x, n), sp.PoissonEncoder, sp.SpikeLatencyLIFEncoder):
        for bad in (0, 2.5, True):
            with pytest.raises(ValueError, match=f"seq_length: expected a positive integer, got {bad}"):
                encode(bad)
    for bad in (0, -1.0, 1001.0, math.nan):
        with pytest.raises(ValueError, match="f_max: expected a positive rate of at most 1000 1/s"):
            sp.PoissonEncoder(5, bad)
    with pytest.raises(ValueError, match=r"input: expected values from 0 to 1, got 0 to 1\.5"):
        sp.poisson_encode(torch.tensor([0.0, 1.5]), 5)
    with pytest.raises(ValueError, match="input: expected finite values, got 1 that are not"):
        sp.poisson_encode(torch.tensor([0.0, math.nan]), 5)
    with pytest.raises(TypeError, match=r"input: expected a floating-point tensor, got torch\.uint8"):
        sp.poisson_encode(torch.zeros(3, dtype=torch.uint8), 5)
    with pytest.raises(ValueError, match="got graded spikes, of which none is first"):
        sp.spike_latency_lif_encode(x, 5, sp.LIFParameters(method="sigmoid"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_small_rates_in_half_precision(dtype):
    spikes = sp.poisson_encode(torch.ones(1000, dtype=dtype), 2000, f_max=1.0)
    assert spikes.dtype == dtype
    expected = 1000 * 2000 * 1e-3
    assert abs(spikes.float().sum().item() - expected) < 5 * expected**0.5
