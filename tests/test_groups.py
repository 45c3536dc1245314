"""Optimiser groups: nothing lost, nothing twice, each kind at its own rate; and what diagnostics count."""

import pytest
import torch
from test_constraints import build
from torch import nn

import snnparams as sp
from snnparams.training.models import mnist_model


def model(constraint=None):
    learned = {name: sp.Learned(value, constraint) for name, value in (("tau_mem_inv", 100.0), ("v_th", 0.5))}
    first = sp.LIFRecurrent(4, 3, sp.LIFParameters(**learned, tau_syn=sp.Learned(5e-3, shared=True)))
    shared = sp.LI(
        sp.LIParameters(tau_mem_inv=sp.Learned(100.0, constraint), v_leak=nn.Parameter(torch.zeros(3))), size=3
    )
    shared.p.share("tau_mem_inv", first.p)
    return nn.ModuleDict({"first": first, "between": nn.Linear(3, 3), "last": shared})


def as_names(model, groups):
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {group["name"]: [names[parameter] for parameter in group["params"]] for group in groups}


@pytest.mark.parametrize("constraint", [None, "none", "log"])
def test_every_parameter_is_in_one_group_once(constraint):
    net = model(constraint)
    groups = sp.parameter_groups(net, 1e-3, {"tau_mem_inv": 0.1, "v_th": 0.02}, weight_decay=0.5)
    listed = [parameter for group in groups for parameter in group["params"]]
    assert len(listed) == len({id(parameter) for parameter in listed})
    assert {id(parameter) for parameter in listed} == {id(parameter) for parameter in net.parameters()}
    names = as_names(net, groups)
    assert list(names) == ["weights", "tau_syn", "tau_mem_inv", "v_leak", "v_th"]
    assert names["weights"] == ["first.input_weights", "first.recurrent_weights", "between.weight", "between.bias"]
    assert len(names["tau_mem_inv"]) == len(names["v_th"]) == 1
    rates = {group["name"]: (group["lr"], group["weight_decay"]) for group in groups}
    assert rates["weights"] == (1e-3, 0.5)
    assert rates["tau_mem_inv"] == (0.1, 0.0)
    assert rates["v_th"] == (0.02, 0.0)
    assert rates["tau_syn"] == rates["v_leak"] == (1e-3, 0.0)


def test_one_rate_for_all_neuron_parameters_and_none():
    net = model()
    assert {g["name"]: g["lr"] for g in sp.parameter_groups(net, 1e-3, 0.1)} == {
        "weights": 1e-3,
        "tau_syn": 0.1,
        "tau_mem_inv": 0.1,
        "v_leak": 0.1,
        "v_th": 0.1,
    }
    assert {g["lr"] for g in sp.parameter_groups(net, 1e-3)} == {1e-3}
    assert [g["name"] for g in sp.parameter_groups(nn.Linear(2, 2), 1e-3)] == ["weights"]
    ensemble = sp.Ensemble([mnist_model(sp.LIFParameters(tau_mem=sp.Learned(10e-3)), 5) for _ in range(2)])
    assert [g["name"] for g in sp.parameter_groups(ensemble, 1e-3)] == ["weights", "tau_mem"]


def test_weight_decay_leaves_neurons_alone():
    net = model()
    before = sp.learned_values(net)
    weights = net["between"].weight.detach().clone()
    optimizer = torch.optim.AdamW(sp.parameter_groups(net, 0.1, weight_decay=0.5))
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, value in sp.learned_values(net).items():
        assert torch.equal(value, before[name])
    assert (net["between"].weight.abs() < weights.abs()).all()


def test_bad_input():
    net = model()
    with pytest.raises(ValueError, match=r"expected kinds that the model learns \(tau_syn, .*\), got 'v_reset'"):
        sp.parameter_groups(net, 1e-3, {"v_reset": 0.1})
    with pytest.raises(ValueError, match="got 'tau'"):
        sp.parameter_groups(net, 1e-3, {"tau": 0.1})
    for bad in (-1.0, float("nan"), True, "1"):
        with pytest.raises(ValueError, match="lr: expected a finite number of at least 0"):
            sp.parameter_groups(net, bad)
        with pytest.raises(ValueError, match="v_th: expected a finite number of at least 0"):
            sp.parameter_groups(net, 1e-3, {"v_th": bad})


# Diagnostics


def test_learned_values_are_copies_in_physical_units():
    net = model("log")
    values = sp.learned_values(net)
    learned = ["first.p.tau_syn_inv", "first.p.tau_mem_inv", "first.p.v_th", "last.p.tau_mem_inv", "last.p.v_leak"]
    assert list(values) == learned
    torch.testing.assert_close(values["first.p.tau_mem_inv"], torch.full((3,), 100.0))
    net["first"].p.tau_mem = 20e-3
    torch.testing.assert_close(values["first.p.tau_mem_inv"], torch.full((3,), 100.0))
    assert list(sp.learned_values(net["first"].p)) == ["tau_syn_inv", "tau_mem_inv", "v_th"]


def test_gradient_to_value():
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[2.0, 0.0]]))
    with pytest.raises(ValueError, match="expected one after a backward pass"):
        sp.gradient_to_value(layer)
    layer(torch.tensor([[3.0, 5.0]])).sum().backward()
    assert sp.gradient_to_value(layer) == {"weight": 1.5}
    with torch.no_grad():
        layer.weight.zero_()
    assert sp.gradient_to_value(layer) == {}


@pytest.mark.parametrize("constraint", ["log", "softplus", sp.constraints.Interval(20.0, 500.0), "none"])
def test_gradient_to_value_of_time_constants_is_a_share_of_these(constraint):
    """What is stored is near zero at 10 ms under "log": a share of that would say nothing."""
    found = []
    for tau_mem in (0.01, 0.0101):
        torch.manual_seed(0)
        layer = sp.LIF(sp.LIFParameters(tau_mem=sp.Learned(tau_mem, constraint)), size=3, dtype=torch.float64)
        layer(torch.rand(20, 2, 3, dtype=torch.float64))[1].v.sum().backward()
        ((_, ratio),) = sp.gradient_to_value(layer).items()
        stored, step = layer.p.raw("tau_mem"), 1e-3
        before, change = layer.p.tau_mem_inv.detach().clone(), stored.grad.clone()
        with torch.no_grad():
            stored -= step * change
        shares = (layer.p.tau_mem_inv - before).abs() / before / step
        assert ratio == pytest.approx(shares.median().item(), rel=0.02)
        found.append(ratio)
    assert found[0] == pytest.approx(found[1], rel=0.1)


def test_frozen_neurons_have_no_gradient():
    layer = build("LIF", {"tau_mem_inv": "log"})
    with pytest.raises(ValueError, match="after a backward pass"):
        sp.zero_gradients(layer)
    x = torch.zeros(10, 2, 3)
    x[..., 0] = 3.0
    layer.p.v_leak = 0.0  # without input nothing happens
    layer(x)[1].v.sum().backward()
    assert sp.zero_gradients(layer) == {"p.tau_mem_inv": 2}


def test_activity():
    spikes = torch.zeros(10, 2, 4)
    spikes[:, :, 1] = 1
    spikes[:5, :, 2] = 1
    spikes[3, 0, 3] = 1
    assert sp.activity(spikes) == (1, 2, 4)
    assert sp.activity(spikes, saturation=0.6) == (1, 1, 4)
    with pytest.raises(ValueError, match=r"spikes: expected shape \(T, B, ...\), got \(10, 2\)"):
        sp.activity(spikes[..., 0])
    with pytest.raises(ValueError, match="saturation: expected a share of at most 1, got 2"):
        sp.activity(spikes, 2)


def test_activity_of_sparse_spikes_and_of_what_is_no_tensor():
    spikes = (torch.rand(20, 3, 5) < torch.tensor([0.0, 0.1, 0.4, 0.6, 1.0])).float()
    assert sp.activity(spikes.to_sparse()) == sp.activity(spikes.bool()) == sp.activity(spikes)
    with pytest.raises(TypeError, match=r"spikes: expected a tensor of shape \(T, B, ...\), got ndarray"):
        sp.activity(spikes.numpy())


def test_parameters_that_no_optimizer_holds():
    layer = sp.LIF(sp.LIFParameters(v_th=sp.Learned(0.5)), size=3)
    network = sp.Sequential(nn.Linear(3, 3), layer)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    assert sp.not_optimized(network, optimizer) == []
    layer.p.tau_mem = sp.Learned(0.02)  # after the optimiser was made
    assert sp.not_optimized(network, optimizer) == ["1.p.parametrizations.tau_mem_inv.original"]
    network[0].bias.requires_grad_(False)  # nothing that learns
    partial = torch.optim.SGD([layer.p.v_th], lr=0.1)
    assert sp.not_optimized(network, partial) == ["0.weight", "1.p.parametrizations.tau_mem_inv.original"]
    ensemble = sp.Ensemble([sp.LIF(sp.LIFParameters(v_th=sp.Learned(0.5, shared=True))) for _ in range(2)])
    assert sp.not_optimized(ensemble, torch.optim.SGD(ensemble.parameters(), lr=0.1)) == []
    with pytest.raises(TypeError, match=r"optimizer: expected one of torch.optim, got dict"):
        sp.not_optimized(network, optimizer.state_dict())


def test_how_far_neuron_parameters_have_moved():
    history = sp.History(accuracies=[0.5, 0.5])
    history.neuron_parameters = {
        "p.tau_mem_inv": [[100.0, 50.0, 200.0], [1.0, 1.0, 1.0], [110.0, 50.0, 260.0]],  # by 10, 0, 60 of 100
        "p.v_leak": [[0.0, 0.0], [0.0, 0.0]],
        "p.v_reset": [[0.0], [0.1]],
    }
    assert history.moved() == {"p.tau_mem_inv": 0.1, "p.v_leak": 0.0, "p.v_reset": float("inf")}
    with pytest.raises(ValueError, match=r"expected learned neuron parameters that were recorded .* got no epoch"):
        sp.History().moved()
    with pytest.raises(ValueError, match=r"expected learned neuron parameters that were recorded .* got none"):
        sp.History(accuracies=[0.5]).moved()
