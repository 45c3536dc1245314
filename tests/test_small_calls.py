"""Calls of few neurons, which cost what is done around them: operators, and what is kept from one call to the next."""

import copy
import inspect
import pickle
from collections import Counter

import pytest
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.utils._python_dispatch import TorchDispatchMode

import snnparams as sp
from snnparams.parameters.constraints import Decay, Interval, Log, Softplus, bend

STEP = 20  # operators; that of Norse's cell takes 24
SEQUENCE = {"forward": 40, "forward and backward": 59}  # PyTorch's own nn.RNN takes 171 forward and backward


class Operators(TorchDispatchMode):
    """Counts the operators that PyTorch calls below autograd."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, function, kinds, args=(), kwargs=None):
        self.found[str(function)] += 1
        return function(*args, **(kwargs or {}))


def operators(call):
    call()  # what is compiled or kept at the first call
    with Operators() as mode:
        call()
    return mode.found.total()


def learned():
    """Three learned parameters, two of them under a constraint, one of those with a value for each neuron."""
    return sp.LIFParameters(
        tau_mem=sp.Learned(sp.distributions.log_normal(median=10e-3, variation=0.5)),
        tau_syn=sp.Learned(5e-3),
        v_th=sp.Learned(0.1),
    )


def spikes(*shape):
    return (torch.rand(shape) < 0.5).to(torch.get_default_dtype())


@torch.no_grad()
def test_a_step_without_gradient_takes_few_operators():
    cell, layer = sp.LIFRecurrentCell(20, 50, learned()), sp.LIFRecurrent(20, 50, learned())
    x = spikes(1, 1, 20)
    state = cell(x[0])[1]
    assert operators(lambda: cell(x[0], state)) <= STEP
    assert operators(lambda: layer(x, state)) <= STEP


@pytest.mark.parametrize("p", [sp.LIFParameters, learned])
def test_a_short_sequence_takes_few_operators(p):
    layer, x = sp.LIFRecurrent(20, 10, p()), spikes(8, 1, 20)
    assert operators(lambda: layer(x)) <= SEQUENCE["forward"]
    assert operators(lambda: layer(x)[0].sum().backward()) <= SEQUENCE["forward and backward"]


def test_no_call_looks_at_the_arguments_of_a_function(monkeypatch):
    layer, cell, x = sp.LIFRecurrent(20, 10, learned()), sp.LIFRecurrentCell(20, 10, learned()), spikes(8, 1, 20)

    def calls():
        layer(x)[0].sum().backward()
        cell(x[0])
        with torch.no_grad():
            layer(x)
            cell(x[0])

    calls()
    looked_at = []
    signature = inspect.signature
    monkeypatch.setattr(inspect, "signature", lambda f, **how: looked_at.append(f) or signature(f, **how))
    calls()
    assert [f for f in looked_at if not hasattr(f, "__signature__")] == []


@pytest.mark.parametrize("constraint", [Log(), Softplus(), Decay(1e-3), Interval(0.0, 2.0)], ids=repr)
def test_what_nothing_bends_has_the_values_and_gradients_of_what_is_bent(constraint, double):
    low, high, margin = constraint.ends
    inside = torch.linspace(low + margin, high - margin, 9)
    for x in (inside, torch.tensor([low - 3, 0.0, high + 3]), torch.tensor([0.0, torch.nan]), torch.tensor(0.5)):
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        value, expected = constraint(a), constraint.curve(bend(b, *constraint.ends))
        torch.testing.assert_close(value, expected, rtol=0, atol=0, equal_nan=True)
        value.sum().backward()
        expected.sum().backward()
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=0, equal_nan=True)
    assert constraint(torch.empty(0)).shape == (0,)


def change_by_optimiser(cell):
    cell(spikes(1, 20))[1].v.sum().backward()
    torch.optim.Adam(cell.parameters(), 0.5).step()


def change_through_data(cell):
    cell.p.raw("tau_mem_inv").data.add_(1)  # which PyTorch does not count


def change_through_numpy(cell):
    cell.p.raw("tau_mem_inv").detach().numpy()[3] += 1  # nor this


def change_all_at_once(cell):
    vector_to_parameters(parameters_to_vector(cell.parameters()) - 0.5, cell.parameters())


def change_in_inference_mode(cell):
    with torch.inference_mode():
        cell.p.raw("tau_syn_inv").add_(1)
        cell(spikes(1, 20))


def change_by_assignment(cell):
    cell.p.tau_mem = 4e-3
    cell.p.tau_syn = 4e-3


def change_the_constraint(cell):
    cell.p.tau_mem = sp.Learned(sp.distributions.log_normal(median=10e-3, variation=0.5), constraint="decay")


def change_the_state(cell):
    cell.load_state_dict(sp.LIFRecurrentCell(20, 50, learned()).state_dict())


def change_the_type(cell):
    cell.double().float()
    cell.p.tau_mem = 4e-3


CHANGES = [value for name, value in globals().items() if name.startswith("change_")]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_values_that_were_kept_follow_every_change(change):
    cell, x = sp.LIFRecurrentCell(20, 50, learned()), spikes(1, 20)
    with torch.no_grad():
        for _ in range(2):
            before = cell.p.values(in_use=True)
        assert cell.p.values(in_use=True).tau_mem_inv is before.tau_mem_inv  # or the test would show nothing
        cell(x)
    change(cell)
    expected = cell.p.values()  # computed anew
    with torch.no_grad():
        found = cell.p.values(in_use=True)
        assert not torch.equal(
            torch.cat([v.flatten() for v in found[:2]]), torch.cat([v.flatten() for v in before[:2]])
        )
        for a, b in zip(found[:-1], expected[:-1], strict=True):
            assert torch.equal(a, b)
        with_values = sp.LIFRecurrentCell(20, 50, sp.LIFParameters(*(v.detach() for v in expected[:-1])))
        with_values.input_weights, with_values.recurrent_weights = cell.input_weights, cell.recurrent_weights
        state = cell(x)[1]
        for a, b in zip(cell(x, state)[1], with_values(x, state)[1], strict=True):
            torch.testing.assert_close(a, b)


def test_kept_values_are_nobodys_but_the_cells():
    cell, x = sp.LIFRecurrentCell(20, 50, learned()), spikes(1, 20)
    with torch.no_grad():
        state = cell(x)[1]
        cell.p.values().tau_mem_inv.zero_()  # a copy
        again = cell(x)[1]
        assert all(torch.equal(a, b) for a, b in zip(state, again, strict=True))
        other = copy.deepcopy(cell)
        other.p.tau_mem = 3e-3
        assert all(torch.equal(a, b) for a, b in zip(cell(x)[1], again, strict=True))
        assert other.p.values(in_use=True).tau_mem_inv is not cell.p.values(in_use=True).tau_mem_inv
        loaded = pickle.loads(pickle.dumps(sp.LIFRecurrentCell(20, 50).p))
        assert loaded.values(in_use=True) == loaded.values()
    assert cell.p.values(in_use=True).tau_mem_inv.grad_fn is not None
    assert cell.p.values(in_use=True).v_th.requires_grad


def test_a_constraint_of_ones_own_is_computed_each_time():
    class Growing(torch.nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return x + self.calls

        def right_inverse(self, value):
            return value - self.calls - 1

    cell = sp.LIFRecurrentCell(20, 50)
    torch.nn.utils.parametrize.register_parametrization(cell.p, "v_th", Growing(), unsafe=True)
    with torch.no_grad():
        first, second = (cell.p.values(in_use=True).v_th for _ in range(2))
    assert second == first + 1


@torch.no_grad()
@pytest.mark.parametrize("autapse", [False, True])
def test_a_layer_computes_one_step_as_the_kernel_does(autapse, double):
    layer = sp.LIFRecurrent(20, 50, learned())
    if autapse:  # as a user's in-place change may bring one in, which counts as none
        layer.recurrent_weights[3, 3] = 5.0
    kernel = copy.deepcopy(layer)
    kernel.kernel = "cpu"
    x, state, other = spikes(30, 4, 20), None, None
    for x_t in x:
        z, state = layer(x_t[None], state)
        expected, other = kernel(x_t[None], other)
        assert torch.equal(z, expected)
    for a, b in zip(state, other, strict=True):
        torch.testing.assert_close(a, b)
    assert 0 < z.mean() < 1
    assert torch.equal(layer.effective_recurrent_weights().diagonal(), torch.zeros(50))
    layer.effective_recurrent_weights().fill_(7)  # a copy
    assert not (layer.recurrent_weights == 7).any()
