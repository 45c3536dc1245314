import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import snnparams as sp


@settings(deadline=None)
@given(st.floats(-3, 0.999))
def test_a_current_below_threshold_never_spikes(value):
    assert sp.constant_current_lif_encode(torch.tensor([value]), 200).sum() == 0


@settings(deadline=None)
@given(st.floats(1.05, 20), st.floats(1.0, 2.0))
def test_a_larger_current_spikes_no_later_and_no_less(value, factor):
    spikes = sp.constant_current_lif_encode(torch.tensor([value, value * factor], dtype=torch.float64), 100)
    counts = spikes.sum(0)
    assert counts[1] >= counts[0] > 0
    first = spikes.argmax(0)
    assert first[1] <= first[0]


def test_shape_type_and_module_agree_with_the_function():
    x = 3 * torch.rand(2, 1, 4, 4, dtype=torch.float64)
    p = sp.LIFParameters(v_th=0.7)
    spikes = sp.ConstantCurrentLIFEncoder(9, p, dt=5e-4)(x)
    assert spikes.shape == (9, 2, 1, 4, 4)
    assert spikes.dtype == x.dtype
    assert torch.equal(spikes, sp.constant_current_lif_encode(x, 9, p, dt=5e-4))
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    half = sp.constant_current_lif_encode(x.half(), 9, sp.LIFParameters(v_th=torch.full((4,), 0.7)))
    assert half.dtype == torch.float16
    assert "seq_length=9, dt=0.0005" in repr(sp.ConstantCurrentLIFEncoder(9, p, dt=5e-4))


def test_graded_spikes_are_graded_everywhere_or_refused(monkeypatch):
    x, p = torch.linspace(0, 3, 5), sp.LIFParameters(method="sigmoid", alpha=5.0)
    expected = sp.constant_current_lif_encode(x.requires_grad_(), 9, p)
    assert ((expected > 0) & (expected < 1)).all()
    # as on a GPU, whose kernel has hard ones
    monkeypatch.setattr("snnparams.data.encoding.choose", lambda *_: "triton")
    assert torch.equal(sp.constant_current_lif_encode(x.detach(), 9, p), expected)
    for method, message in (("sigmoid", "layout: expected torch.strided"), ("adjoint", "expected a surrogate")):
        p = sp.LIFParameters(method=method)
        for encode in (sp.constant_current_lif_encode, lambda x, *how, **kw: sp.ConstantCurrentLIFEncoder(*how, **kw)):
            with pytest.raises(ValueError, match=re.escape(message)):
                encode(x.detach(), 9, p, layout=torch.sparse_coo)


@pytest.mark.parametrize("neuron", [sp.neurons.ExactLIF, sp.neurons.SubtractiveLIF])
def test_other_neurons_than_lif_do_not_encode(neuron):
    """Their steps and limits are others: of ExactLIF a time constant may be shorter than a step."""
    message = f"p: expected LIFParameters, whose neuron encodes, got {neuron.__name__}"
    for encoder in (sp.ConstantCurrentLIFEncoder, sp.SpikeLatencyLIFEncoder):
        with pytest.raises(TypeError, match=message):
            encoder(9, neuron())
    for p in (neuron(), sp.Layer(neuron()).p):
        with pytest.raises(TypeError, match=message):
            sp.constant_current_lif_encode(torch.rand(3), 9, p)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rates_in_half_precision_make_as_many_spikes_as_in_float64(dtype):
    rates = torch.linspace(0, 1, 9, dtype=dtype).expand(2000, 9)
    spikes = sp.integrate_and_fire(rates)
    assert spikes.dtype == dtype
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    expected = sp.integrate_and_fire(rates.double())
    torch.testing.assert_close(spikes.double().sum(0), expected.sum(0), rtol=0, atol=1)


@pytest.mark.parametrize("encoder", [sp.ConstantCurrentLIFEncoder, sp.SpikeLatencyLIFEncoder])
def test_values_of_each_input_are_drawn_and_learned_once_the_shape_is_known(encoder):
    x = 2 + torch.rand(3, 4)
    drawn = encoder(40, sp.LIFParameters(tau_mem=sp.distributions.log_uniform(low=5e-3, high=50e-3)), size=4)
    assert drawn.p.tau_mem.unique().numel() == 4
    alike = encoder(40, sp.LIFParameters(tau_mem=drawn.p.tau_mem.clone()))
    assert torch.equal(drawn(x), alike(x))
    learned = encoder(40, sp.LIFParameters(tau_mem=sp.Learned(20e-3)), size=(4,))
    learned(x).sum().backward()
    assert (learned.p.raw("tau_mem_inv").grad != 0).all()
    with pytest.raises(ValueError, match="give size"):
        encoder(40, sp.LIFParameters(tau_mem=sp.Learned(20e-3)))
    with pytest.raises(ValueError, match="size: expected"):
        encoder(40, size=0)
