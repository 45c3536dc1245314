import torch
from hypothesis import given
from hypothesis import strategies as st

import snnparams as sp


@given(st.floats(-3, 0.999))
def test_a_current_below_threshold_never_spikes(value):
    assert sp.constant_current_lif_encode(torch.tensor([value]), 200).sum() == 0


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
    assert torch.equal(spikes, sp.constant_current_lif_encode(x, 9, p, 5e-4))
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    half = sp.constant_current_lif_encode(x.half(), 9, sp.LIFParameters(v_th=torch.full((4,), 0.7)))
    assert half.dtype == torch.float16
    assert "seq_length=9, dt=0.0005" in repr(sp.ConstantCurrentLIFEncoder(9, p, dt=5e-4))
