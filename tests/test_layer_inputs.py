"""What cells and layers take besides (T, B, ...) of their own type: no batch, other types of spikes, containers."""

import copy
import re

import pytest
import torch
from torch import nn

import snnparams as sp
from snnparams.layers import sequences, states


def modules():
    p = sp.LIFParameters(tau_mem=sp.Learned(0.02), v_th=0.3)
    exact = sp.LIFParameters(tau_mem=sp.Learned(0.02), v_th=0.3, method="adjoint")
    return {
        "LIF": sp.LIF(p, size=5),
        "LIF, adjoint": sp.LIF(exact, size=5),
        "LIF of two axes": sp.LIF(p, size=(4, 5)),
        "LI": sp.LI(sp.LIParameters(tau_mem=torch.full((5,), 0.02))),
        "LIFRecurrent": sp.LIFRecurrent(5, 6, p),
        "LIFRecurrent, adjoint": sp.LIFRecurrent(5, 6, exact),
        "LIFCell": sp.LIFCell(p, size=5),
        "LIFCell of two axes": sp.LIFCell(p, size=(4, 5)),
        "LICell": sp.LICell(sp.LIParameters(tau_mem=torch.full((5,), 0.02))),
        "LIFRecurrentCell": sp.LIFRecurrentCell(5, 6, p),
    }


def alone(name):
    """Return an input without batch."""
    steps = () if "Cell" in name else (7,)
    return torch.rand(*steps, *((4, 5) if "two axes" in name else (5,)))


@pytest.mark.parametrize("name", modules())
def test_an_input_without_a_batch_is_a_batch_of_one_without_its_axis(name):
    module, x = modules()[name], alone(name)
    axis = 0 if "Cell" in name else 1
    state, batched = None, None
    for _ in range(2):
        out, state = module(x, state)
        expected, batched = module(x.unsqueeze(axis), batched)
        assert torch.equal(out, expected.squeeze(axis))
        assert type(state) is type(batched)
        assert all(torch.equal(a, b[0]) for a, b in zip(state, batched, strict=True))
    begin = states.initial(module, x)
    assert all(a.shape == b.shape for a, b in zip(begin, state, strict=True))


def test_a_whole_network_without_a_batch():
    network = sp.Sequential(sp.LIFRecurrent(5, 6), nn.Linear(6, 3), sp.LI(size=3))
    x = (torch.rand(9, 5) < 0.5).float()
    voltages, state = network(x)
    expected, _ = network(x[:, None])
    torch.testing.assert_close(voltages, expected[:, 0])
    assert state[2].v.shape == (3,)
    assert network(x, state)[0].shape == (9, 3)


@pytest.mark.parametrize("kernel", [None, "reference"])
def test_a_readout_that_knows_no_size_needs_no_batch_either(kernel):
    network = sp.Sequential(sp.LIFRecurrent(5, 6), nn.Linear(6, 3), sp.LIF(kernel=kernel), sp.LI(kernel=kernel))
    x = (torch.rand(9, 5) < 0.5).float()
    voltages, state = network(x)
    voltages.sum().backward()
    expected, _ = network(x[:, None])
    torch.testing.assert_close(voltages, expected[:, 0])
    assert network(x, state)[1][3].v.shape == (3,)
    assert network(x, states.initial(network, x))[0].shape == (9, 3)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
@pytest.mark.parametrize("name", modules())
def test_spikes_may_be_boolean_or_bytes(name, dtype):
    module, x = modules()[name], alone(name) < 0.5
    assert torch.equal(module(x.to(dtype))[0], module(x.float())[0])
    assert states.initial(module, x.to(dtype))[0].dtype == torch.float32
    with pytest.raises(TypeError, match=r"input: expected torch.float32, the type of the parameters, got torch.int64"):
        module(x.long())


def test_a_layer_takes_lengths_itself():
    layer, x, lengths = modules()["LIFRecurrent"], torch.rand(7, 3, 5), torch.tensor([2, 7, 4])
    assert torch.equal(layer(x > 0.5, lengths=lengths)[0], layer((x > 0.5).float(), lengths=lengths)[0])
    z, state = layer(x, None, lengths)
    for row, length in enumerate(lengths):
        own, last = layer(x[:length, row])
        torch.testing.assert_close(z[:length, row], own)
        torch.testing.assert_close(state.v[row], last.v)
    assert (sequences.without_padding(z, lengths) == z).all()
    with pytest.raises(ValueError, match=r"one for each sequence of an input \(T, B, ...\), got 1 for .* \(7, 3, 5\)"):
        layer(x, lengths=[3])


def test_the_container_of_pytorch_is_refused_by_name():
    x = torch.rand(7, 3, 5)
    for name, layer in modules().items():
        if "two axes" not in name:
            step = x[0] if "Cell" in name else x
            with pytest.raises(TypeError, match=r"expected snnparams.Sequential as its container.* give ReLU both"):
                nn.Sequential(layer, nn.ReLU())(step)
            out, _ = nn.Sequential(nn.Identity(), layer)(step)  # the last one returns both to the caller
            assert torch.equal(out, layer(step)[0])
    inside = nn.Sequential(sp.Sequential(nn.Linear(5, 4), sp.LIF()))
    assert len(inside(x)) == 2
    for last in (sp.LIF(), sp.Sequential(nn.Linear(5, 4), sp.LIF()), nn.Sequential(nn.Identity(), sp.LIF())):
        with pytest.raises(TypeError, match=r"expected snnparams.Sequential as its container.* give Linear both"):
            nn.Sequential(nn.Sequential(nn.ReLU(), last), nn.Linear(4, 2))(x)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
def test_modules_of_pytorch_in_a_network_take_spikes_of_any_type(dtype):
    class Bytes(nn.Module):
        def forward(self, x):
            assert x.dtype == dtype
            return x.double() / 2

    x = torch.rand(7, 3, 2, 4, 4) < 0.5
    for first in (
        lambda: nn.AvgPool2d(2),
        lambda: nn.MaxPool2d(2),
        lambda: nn.BatchNorm2d(2),
        lambda: nn.Dropout(0.0),
        lambda: nn.Sequential(nn.Conv2d(2, 2, 3), nn.ReLU()),
        lambda: sp.OverTime(nn.Flatten(), nn.Unflatten(1, (2, 4, 4)), nn.AvgPool2d(2)),
    ):
        network = sp.Sequential(first(), sp.LIF(), nn.Flatten(), sp.LI()).double()
        torch.testing.assert_close(network(x.to(dtype))[0], network(x.double())[0])
    network = sp.Sequential(nn.Flatten(), Bytes(), sp.LIF(dtype=torch.float64))
    assert network(x.to(dtype))[0].dtype == torch.float64  # what a user's module is given is left to it


def test_a_batch_and_a_state_that_do_not_fit():
    layer = modules()["LIFRecurrent"]
    _, state = layer(torch.rand(4, 3, 5))
    with pytest.raises(ValueError, match=r"state.z: expected shape \(1, 6\), got \(1, 3, 6\)"):
        layer(torch.rand(4, 5), state)
    with pytest.raises(TypeError, match="state: expected LIFState or None, got list"):
        layer(torch.rand(4, 5), [1, 2])
    with pytest.raises(ValueError, match="lengths: expected one for each sequence"):
        layer(torch.rand(4, 5), lengths=[4, 4, 4])


def values_per_channel(layer, shape):
    return layer.p.tau_mem_inv.detach().view(-1, *[1] * (len(shape) - 1)).expand(shape)


@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 3, 2), (4, 3, 2, 2)])
@pytest.mark.parametrize("kind", [sp.LIF, sp.LIFCell])
def test_one_learned_time_constant_per_channel(kind, shape):
    tau = sp.distributions.log_normal(median=0.02, variation=0.5)
    layer = kind(sp.LIFParameters(tau_mem=sp.Learned(tau), v_th=0.3), channels=4, dtype=torch.float64)
    assert layer.p.raw("tau_mem_inv").shape == (4,)
    x = torch.rand(*(() if kind is sp.LIFCell else (9,)), 3, *shape, dtype=torch.float64)
    values = nn.Parameter(values_per_channel(layer, shape).clone())
    whole = kind(sp.LIFParameters(tau_mem_inv=values, v_th=0.3), dtype=torch.float64)
    (out, state), (expected, last) = layer(x), whole(x)
    assert torch.equal(out, expected)
    assert all(torch.equal(a, b) for a, b in zip(state, last, strict=True))
    (per_channel,) = torch.autograd.grad(state.v.sum(), layer.p.raw("tau_mem_inv"))
    (per_neuron,) = torch.autograd.grad(last.v.sum(), whole.p.raw("tau_mem_inv"))
    summed = per_neuron.reshape(4, -1).sum(1) * layer.p.tau_mem_inv.detach()  # of the logarithm
    torch.testing.assert_close(per_channel, summed)
    ensemble = sp.Ensemble([layer, copy.deepcopy(layer)])
    assert torch.equal(ensemble(x)[0][1], out)


def test_channels_that_do_not_fit():
    with pytest.raises(ValueError, match="channels: expected a positive integer, got 0"):
        sp.LIF(channels=0)
    with pytest.raises(ValueError, match="channels: expected either it or size, got both, 4 and 5"):
        sp.LIF(size=5, channels=4)
    for tau_mem in (0.02, sp.Learned(0.02)):  # one value for all channels, and one for each
        layer = sp.LIF(sp.LIFParameters(tau_mem=tau_mem), channels=4)
        for shape in ((5, 4), (5, 2, 3), (5, 2, 1, 2, 2), (5, 2, 3, 2, 2)):
            with pytest.raises(ValueError, match=re.escape(f"an axis of 4 behind the batch, got {shape}")):
                layer(torch.rand(shape))
