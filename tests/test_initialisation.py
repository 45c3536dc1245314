"""Initial weights against the statistics that they promise, measured on neurons that run."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import snnparams as sp
from snnparams.layers.initialisation import fluctuation_driven_, reach_rate_

RATE, DT, INPUTS = 40.0, 1e-3, 150


def measured(weights, p, steps=3000):
    """Return the standard deviation over time of the voltages of neurons without threshold, and their means."""
    x = (torch.rand(steps, 1, INPUTS) < RATE * DT).float()
    free = sp.LIParameters(tau_mem_inv=p.tau_mem_inv.detach(), tau_syn_inv=p.tau_syn_inv.detach(), v_leak=p.v_leak)
    voltages, _ = sp.LI(free)(x @ weights.detach().T)
    voltages = voltages[500:, 0]
    return voltages.std(0), voltages.mean(0)


def rms(values):
    return values.square().mean().sqrt().item()


@pytest.mark.parametrize("std", [0.5, 1.0])
def test_voltages_vary_as_promised_whatever_the_time_constants(std):
    tau_mem = torch.tensor([5e-3, 20e-3, 60e-3]).repeat_interleave(150)
    tau_syn = torch.tensor([2e-3, 10e-3, 5e-3]).repeat_interleave(150)
    v_th = torch.tensor([1.0, 0.5, 2.0]).repeat_interleave(150)
    layer = sp.LIFRecurrent(INPUTS, 450, sp.LIFParameters(tau_mem=tau_mem, tau_syn=tau_syn, v_th=v_th, v_leak=0.1))
    drawn = fluctuation_driven_(layer.input_weights, layer, RATE, std=std)
    assert drawn is layer.input_weights
    deviation, mean = measured(layer.input_weights, layer.p)
    for group in (slice(0, 150), slice(150, 300), slice(300, 450)):
        expected = std * (v_th[group][0].item() - 0.1)
        assert rms(deviation[group]) == pytest.approx(expected, rel=0.12)
        # weights of mean zero: what is left of the mean comes from the sum of 150 of them
        assert abs(mean[group].mean().item() - 0.1) < 0.6 * expected


def test_shares_of_input_and_recurrence_add_up():
    layer = sp.LIFRecurrent(INPUTS, INPUTS, sp.LIFParameters())
    fluctuation_driven_(layer.input_weights, layer, RATE, share=0.75)
    fluctuation_driven_(layer.recurrent_weights, layer, RATE, share=0.25)
    assert (layer.recurrent_weights.diagonal() == 0).all()
    deviations = [measured(weights, layer.p)[0] for weights in (layer.input_weights, layer.recurrent_weights)]
    assert rms(deviations[0]) == pytest.approx(math.sqrt(0.75), rel=0.1)
    assert rms(deviations[1]) == pytest.approx(math.sqrt(0.25), rel=0.1)


def test_the_weights_of_a_convolution_and_of_a_linear_map():
    channels = sp.LIF(sp.LIFParameters(tau_mem=sp.Learned(0.02)), channels=400)
    conv = nn.Conv2d(10, 400, 3)
    fluctuation_driven_(conv.weight, channels, RATE)
    linear = nn.Linear(90, 400)
    fluctuation_driven_(linear.weight, sp.LIF(sp.LIFParameters(tau_mem=0.02)), RATE)
    assert conv.weight.std().item() == pytest.approx(linear.weight.std().item(), rel=0.02)
    drawn = [
        fluctuation_driven_(torch.empty(400, 3), channels.p, RATE, generator=torch.Generator().manual_seed(1))
        for _ in range(2)
    ]
    assert torch.equal(*drawn)


def test_a_rate_is_reached():
    torch.manual_seed(2)
    linear, layer = nn.Linear(30, 40, bias=False), sp.LIF()
    fluctuation_driven_(linear.weight, layer, RATE)
    before = linear.weight.detach().clone()
    x = (torch.rand(200, 8, 30) < RATE * DT).float()
    spikes = reach_rate_([linear.weight], lambda: layer(linear(x))[0], 20.0)
    assert torch.equal(spikes, layer(linear(x))[0])
    assert spikes.mean().item() / DT == pytest.approx(20.0, rel=0.1)
    factor = (linear.weight / before).detach()
    torch.testing.assert_close(factor, factor[0, 0].expand_as(factor))
    silent = linear.weight.detach().clone()
    with pytest.raises(sp.RateError, match=r"rate: expected 900 1/s within 10%, got 0 1/s"):
        reach_rate_([linear.weight], lambda: layer(0 * linear(x))[0], 900.0)
    assert torch.equal(linear.weight, silent)


class Other(sp.LIFParameters):
    def step(v, i, a, b, v_leak, v_th, v_reset, spike, reset):
        v = v + a * ((v_leak - v) + 2 * i)
        z = spike(v, v_th)
        return z, (1 - reset(z)) * v + reset(z) * v_reset, i - b * i


def test_bad_input():
    layer, weights = sp.LIF(size=5), torch.empty(5, 4)
    for more, message in (
        ({"rate": 0}, "rate: expected a number above 0 and below 1000, got 0"),
        ({"rate": 1000.0}, "rate: expected a number above 0 and below 1000, got 1000.0"),
        ({"std": -1}, "std: expected a number above 0 and below inf, got -1"),
        ({"share": 1.5}, "share: expected a number above 0 and at most 1, got 1.5"),
        ({"rate": True}, "rate: expected a number .* got True"),
        ({"weights": torch.empty(4)}, r"weights: expected a tensor of shape \(H, I\), got \(4,\)"),
        ({"weights": [[1.0]]}, r"weights: expected a tensor of shape \(H, I\), got list"),
        ({"neurons": sp.LIF(sp.LIFParameters(v_th=0.0))}, "v_th: expected thresholds above the leak voltage, got 0"),
        (
            {"neurons": sp.LIF(sp.LIFParameters(tau_mem=torch.full((3,), 0.02)))},
            r"neurons: expected one value, or one for each of 5 rows, got \(3,\)",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            fluctuation_driven_(**({"weights": weights, "neurons": layer, "rate": RATE} | more))
    for neurons, message in (
        (nn.Linear(2, 2), "neurons: expected a cell, a layer or its p, got Linear"),
        (sp.LI(), "neurons: expected LIF neurons, whose voltage has a known variance, got LIParameters"),
        (sp.Layer(Other()), "neurons: expected LIF neurons, whose voltage has a known variance, got Other"),
    ):
        with pytest.raises(TypeError, match=message):
            fluctuation_driven_(weights, neurons, RATE)
    for rate in (0.0, 1000.0):
        with pytest.raises(ValueError, match="rate: expected a number above 0 and below 1000 1/s"):
            reach_rate_([weights], lambda: weights, rate)
    with pytest.raises(ValueError, match="weights: expected at least one tensor, got none"):
        reach_rate_([], lambda: weights, 10.0)
    for nothing in (weights, 3.0, [weights, 3.0]):
        with pytest.raises(TypeError, match="weights: expected a list of tensors, got"):
            reach_rate_(nothing, lambda: weights, 10.0)


def test_weights_that_others_make_are_refused_as_what_is_written_there_is_lost():
    linear, layer = weight_norm(nn.Linear(4, 5, bias=False)), sp.LIF(size=5)
    message = "weights: expected a parameter or a buffer, got a tensor that is computed from others"
    with pytest.raises(ValueError, match=message):
        fluctuation_driven_(linear.weight, layer, RATE)
    with pytest.raises(ValueError, match=message):
        reach_rate_([linear.weight], lambda: torch.zeros(3), 10.0)
    inside = linear.parametrizations.weight.parameters()  # what is stored, in any order that can be gone through
    x = torch.rand(200, 8, 4)
    spikes = reach_rate_([next(inside)], lambda: layer(20 * linear(x))[0], 20.0)
    assert spikes.mean().item() / DT == pytest.approx(20.0, rel=0.1)


def test_after_an_error_weights_are_as_they_were():
    weights = torch.full((5, 4), 0.1)

    def fails():
        if weights[0, 0] > 1:
            raise KeyError("a fault of run's own")
        return torch.zeros(3)

    with pytest.raises(KeyError, match="a fault of run's own"):
        reach_rate_([weights], fails, 50.0)
    with pytest.raises(ValueError, match="run: expected spikes of a finite mean, got nan"):
        reach_rate_([weights], lambda: torch.full((3,), torch.nan), 50.0)
    assert (weights == 0.1).all()
