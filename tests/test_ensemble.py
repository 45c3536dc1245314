"""An ensemble against its members, computed and trained one by one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import nll_loss

import snnparams as sp
from snnparams.kernels import fused_sequence
from snnparams.neurons import AdaptiveLIF, LIFParameters, LIParameters
from snnparams.neurons.step import PROGRAMS
from snnparams.training.models import mnist_model


class Double(nn.Module):
    """Turns float32 into float64."""

    def forward(self, x):
        return x.double()


def member(seed, layout=torch.sparse_coo, v_th=0.5):
    """Return a model in float64: Adam makes a step of full size from a rounding error of float32."""
    torch.manual_seed(seed)
    p = sp.LIFParameters(tau_mem_inv=nn.Parameter(100 + 20 * torch.rand(12)), v_th=torch.tensor(v_th), alpha=5.0)
    model = mnist_model(p, hidden_features=12, seq_length=8, spike_layout=layout)
    model.encoder.insert(1, Double())
    return model.double()


def step(model, optimizer, loss):
    optimizer.zero_grad()
    loss(model).backward()
    optimizer.step()


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.strided])
@pytest.mark.parametrize("thresholds", [(0.5, 0.5, 0.5), (0.4, 0.5, 0.6)], ids=["equal buffers", "other buffers"])
def test_training_an_ensemble_is_training_its_members_one_by_one(layout, thresholds):
    members = [member(seed, layout, v_th) for seed, v_th in enumerate(thresholds)]
    ensemble = sp.Ensemble(members)
    images = torch.randint(0, 256, (4, 16, 28, 28), dtype=torch.uint8)
    labels = torch.randint(0, 10, (4, 16))
    of_ensemble = torch.optim.Adam(ensemble.parameters(), lr=2e-3)
    of_members = [torch.optim.Adam(model.parameters(), lr=2e-3) for model in members]
    for x, y in zip(images, labels, strict=True):
        step(ensemble, of_ensemble, lambda m, x=x, y=y: sum(nll_loss(out, y) for out in m(x)))
        for model, optimizer in zip(members, of_members, strict=True):
            step(model, optimizer, lambda m, x=x, y=y: nll_loss(m(x), y))
    with torch.no_grad():
        out = ensemble(images[0])
    for k, model in enumerate(members):
        alone = ensemble.member(k)
        torch.testing.assert_close(out[k], model(images[0]), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(alone(images[0]), model(images[0]), rtol=1e-9, atol=1e-9)
        for (name, a), (_, b) in zip(alone.named_parameters(), model.named_parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")
        for a, b in zip(alone.buffers(), model.buffers(), strict=True):
            assert torch.equal(a, b)


def test_gradients_in_float64():
    def layer(seed):
        torch.manual_seed(seed)
        values = {"tau_mem_inv": 100.0, "tau_syn_inv": 200.0, "v_th": 0.3, "v_leak": 0.0, "v_reset": 0.0}
        learned = {
            name: nn.Parameter(value + 0.1 * torch.rand(9, dtype=torch.float64)) for name, value in values.items()
        }
        return sp.LIFRecurrent(6, 9, sp.LIFParameters(**learned), dtype=torch.float64)

    layers = [layer(seed) for seed in range(4)]
    ensemble, x = sp.Ensemble(layers), (torch.rand(20, 5, 6, dtype=torch.float64) < 0.3).double()
    for spikes in (x, x.to_sparse()):
        out, state = ensemble(spikes)
        ensemble.zero_grad()
        (out.sum() + state.v.sum()).backward()
        for k, one in enumerate(layers):
            one.zero_grad()
            z, last = one(spikes)
            (z.sum() + last.v.sum()).backward()
            assert torch.equal(out[k], z)
            for name, parameter in one.named_parameters():
                gradient = ensemble.stacked.get_parameter(name).grad[k]
                torch.testing.assert_close(gradient, parameter.grad, rtol=1e-10, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(
    neuron=st.sampled_from([LIFParameters, AdaptiveLIF, LIParameters]),
    sizes=st.tuples(*(st.integers(1, most) for most in (5, 9, 7, 40))),
    recurrent=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 2**31),
)
def test_a_kernel_computes_each_member_to_the_bit_as_alone(neuron, sizes, recurrent, dtype, seed):
    generator, program = torch.Generator().manual_seed(seed), PROGRAMS[neuron.program]
    members, steps, rows, neurons = sizes

    def draw(*shape):
        return torch.rand(members, *shape, generator=generator, dtype=dtype)

    given = [draw(steps, rows, neurons), draw(len(program.state), rows, neurons)]
    given += [draw(neurons, neurons) - 0.5 if recurrent else None, draw(len(program.parameters), neurons)]
    by = [draw(steps, rows, neurons), draw(len(program.state), rows, neurons)]  # gradients by outputs and state

    def compute(these):
        tensors = [None if x is None else x[these].clone().requires_grad_() for x in given]
        method = "super" if program.spikes else "heaviside"
        results = fused_sequence.sequence(*tensors, neuron.program, method, 3.0, False, True, "cpu")
        inputs = [x for x in tensors if x is not None]
        return [*results, *torch.autograd.grad(results[:2], inputs, [x[these] for x in by])]

    for k in range(members):
        for of_all, alone in zip(compute(slice(None)), compute(slice(k, k + 1)), strict=True):
            assert torch.equal(of_all[k : k + 1], alone)


def test_values_are_copied_and_saved():
    members = [member(0), member(1)]
    ensemble, other = sp.Ensemble(members), sp.Ensemble([member(2), member(3)])
    names = {f"stacked.{name}" for name, _ in members[0].named_parameters()}
    assert {name for name, _ in ensemble.named_parameters()} == names
    with torch.no_grad():
        members[0].snn.fc_out.weight.zero_()
    assert ensemble.member(0).snn.fc_out.weight.abs().sum() > 0
    other.load_state_dict(ensemble.state_dict())
    images = torch.randint(0, 256, (3, 28, 28), dtype=torch.uint8)
    assert torch.equal(other(images), ensemble(images))
    assert len(ensemble) == 2
    sp.validate_neuron_parameters(ensemble)


def test_a_shared_parameter_stays_one():
    def pair(seed):
        torch.manual_seed(seed)
        first, second = nn.Linear(3, 3), nn.Linear(3, 3)
        second.weight = first.weight
        return nn.Sequential(first, second)

    ensemble = sp.Ensemble([pair(0), pair(1)])
    assert ensemble.stacked[0].weight is ensemble.stacked[1].weight
    alone = ensemble.member(1)
    assert alone[0].weight is alone[1].weight
    x = torch.randn(2, 3)
    torch.testing.assert_close(ensemble(x)[1], pair(1)(x))


def test_bad_input():
    with pytest.raises(ValueError, match="expected at least one module, got none"):
        sp.Ensemble([])
    with pytest.raises(ValueError, match="expected Linear, got ReLU as member 1"):
        sp.Ensemble([nn.Linear(2, 2), nn.ReLU()])
    with pytest.raises(ValueError, match=r"expected weight as in member 0, .*\(2, 3\).* got .*\(2, 4\).* in member 1"):
        sp.Ensemble([nn.Linear(3, 2), nn.Linear(4, 2)])
    with pytest.raises(ValueError, match=r"expected module '1' as in member 0, .*Tanh.* got .*ReLU.* in member 1"):
        sp.Ensemble([nn.Sequential(nn.Linear(2, 2), nn.Tanh()), nn.Sequential(nn.Linear(2, 2), nn.ReLU())])
    for name, other in {
        r"dt as in member 0, 0\.001, got 0\.0005": {"dt": 5e-4},
        r"gradient as in member 0, .*alpha=1\), got .*alpha=5\)": {"p": sp.LIFParameters(alpha=5.0)},
        r"gradient as in member 0, .*super.*, got .*tanh.*": {"p": sp.LIFParameters(method="tanh")},
    }.items():
        with pytest.raises(ValueError, match=rf"members: expected p\.{name} in member 1"):
            sp.Ensemble([sp.LIF(), sp.LIF(**other)])
    with pytest.raises(IndexError, match="expected a member below 1, got 1"):
        sp.Ensemble([nn.Linear(2, 2)]).member(1)
