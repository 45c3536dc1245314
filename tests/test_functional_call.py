"""Values that `torch.func.functional_call` puts into the place of a parameter for one call."""

import copy

import pytest
import torch
from torch.func import functional_call, vmap

import snnparams as sp

NAME = "p.tau_mem_inv"
X = torch.ones(40, 2, 6)


@pytest.fixture(params=["layer", "recurrent layer", "cell"])
def module(request):
    p = sp.LIFParameters(tau_mem=sp.Learned(20e-3))
    return {
        "layer": lambda: sp.LIF(p, size=6),
        "recurrent layer": lambda: sp.LIFRecurrent(6, 6, sp.LIFParameters(tau_mem=sp.Learned(20e-3))),
        "cell": lambda: sp.LIFCell(p, size=6),
    }[request.param]()


def voltage(module, values=None):
    """Return the voltages behind a sequence, of the module or with other values in the place of its own."""
    steps = [X] if hasattr(module, "chunk") else list(X)
    state = None
    for x in steps:
        given = {} if values is None else {NAME: values}
        _, state = functional_call(module, given, (0.05 * x, state))
    return state.v


def built_with(module, values):
    other = copy.deepcopy(module)
    other.p.tau_mem_inv = values
    return other


@pytest.mark.parametrize("with_gradient", [True, False])
def test_values_count_as_if_they_were_assigned(module, with_gradient):
    values = torch.linspace(100.0, 400.0, 6)
    with torch.set_grad_enabled(with_gradient):
        before, found = voltage(module), voltage(module, values)
        assert not torch.equal(found, before)
        torch.testing.assert_close(found, voltage(built_with(module, values)))
        torch.testing.assert_close(voltage(module), before)  # and for that call alone


def test_the_gradient_is_theirs(module):
    values = torch.full((6,), 100.0, dtype=torch.float64, requires_grad=True)
    module.double()
    (found,) = torch.autograd.grad(functional_call(module, {NAME: values}, (0.05 * X[0].double(),))[1].v.sum(), values)
    other = built_with(module, values.detach())
    other(0.05 * X[0].double())[1].v.sum().backward()
    stored = other.p.raw("tau_mem_inv")
    torch.testing.assert_close(found, stored.grad / values.detach())  # stored is the logarithm


def test_a_sweep_over_values_by_vmap():
    layer = sp.LIF(sp.LIFParameters(tau_mem=sp.Learned(20e-3)), size=6)
    sweep = torch.tensor([50.0, 500.0])
    counts = vmap(lambda one: functional_call(layer, {NAME: one.expand(6)}, (X,))[0].sum())(sweep)
    alone = [built_with(layer, one.item())(X)[0].sum() for one in sweep]
    assert counts.tolist() == torch.stack(alone).tolist()
    assert counts[0] != counts[1]


def test_compiled():
    layer = sp.LIF(sp.LIFParameters(tau_mem=sp.Learned(20e-3)), size=6)
    compiled = torch.compile(
        lambda values: functional_call(layer, {NAME: values}, (X,))[0], backend="aot_eager", fullgraph=True
    )
    values = torch.full((6,), 500.0)
    assert torch.equal(compiled(values), built_with(layer, values)(X)[0])
    assert torch.equal(torch.compile(layer, backend="aot_eager", fullgraph=True)(X)[0], layer(X)[0])


def test_of_a_whole_state_what_is_stored_counts(module):
    other = built_with(module, 300.0)
    state = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    expected = functional_call(module, state, (0.05 * X[0],))[1].v
    torch.testing.assert_close(expected, other(0.05 * X[0])[1].v)


@pytest.mark.parametrize(
    "change",
    [
        lambda module: module.double().float(),
        copy.deepcopy,
        lambda module: [module.load_state_dict(copy.deepcopy(module.state_dict()), assign=True), module][1],
        lambda module: [module.state_dict(), module][1],
        lambda module: [setattr(module.p, "tau_mem", 20e-3), module][1],
    ],
    ids=["converted", "copied", "loaded", "saved", "assigned"],
)
def test_tensors_of_its_own_are_no_others(module, change):
    before, values = voltage(module), torch.full((6,), 300.0)
    changed = change(module)
    torch.testing.assert_close(voltage(changed), before)
    torch.testing.assert_close(voltage(changed, values), voltage(built_with(changed, values)))


def test_wrong_values_are_refused(module):
    with pytest.raises(ValueError, match=r"tau_mem_inv: expected values of shape \(6,\), got \(5,\)"):
        voltage(module, torch.ones(5))
    with pytest.raises(ValueError, match=r"expected positive values, got -0\.2 s at neuron 0"):
        voltage(module, torch.full((6,), -5.0))


@pytest.mark.parametrize("kernel", [None, "reference", "cpu"])
@pytest.mark.parametrize("with_gradient", [True, False])
@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("input_weights", (8, 6), r"\(5, 6\)"),
        ("input_weights", (5, 7), r"\(5, 6\)"),
        ("recurrent_weights", (1, 5), r"\(5, 5\)"),  # would broadcast
        ("recurrent_weights", (6, 6), r"\(5, 5\)"),
    ],
)
def test_weights_of_another_shape_are_refused(name, shape, expected, kernel, with_gradient):
    layers = sp.LIFRecurrent(6, 5, kernel=kernel), sp.DelayedRecurrentLayer(6, 5, sp.LIFParameters(), delay=2e-3)
    for module, x in (*((layer, X) for layer in layers), (sp.LIFRecurrentCell(6, 5), X[0])):
        with (
            torch.set_grad_enabled(with_gradient),
            pytest.raises(ValueError, match=rf"{name}: expected shape {expected}, got"),
        ):
            functional_call(module, {name: torch.zeros(shape)}, (x,))
