"""Cells and layers as PyTorch modules: what is registered, what moves, what survives, what equals what."""

import copy
import inspect
import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import snnparams as sp

F64 = torch.float64
FIELDS = {"tau_syn_inv": 150.0, "tau_mem_inv": 90.0, "v_leak": 0.05, "v_th": 0.4, "v_reset": -0.1}


def build(kind: str, learned=(), per_neuron=True, dtype=torch.float32):
    lif = kind.startswith("LIF")
    values = {}
    for name in FIELDS if lif else ("tau_syn_inv", "tau_mem_inv", "v_leak"):
        value = FIELDS[name] * (torch.linspace(0.9, 1.1, 3) if per_neuron else torch.tensor(1.0))
        values[name] = nn.Parameter(value.to(dtype)) if name in learned else value
    p = sp.LIFParameters(**values, alpha=5.0) if lif else sp.LIParameters(**values)
    if "Recurrent" not in kind:
        return getattr(sp, kind)(p=p, dtype=dtype)
    excitatory = torch.rand(3, 4) + 0.5  # every neuron spikes
    return getattr(sp, kind)(4, 3, p=p, input_weights=excitatory, dtype=dtype)


def inputs(kind: str, dtype=torch.float32):
    x = 3 * torch.rand(12, 2, 4 if "Recurrent" in kind else 3, dtype=dtype)
    return x[0] if kind.endswith("Cell") else x


def run(module, kind, x):
    """Return something to differentiate: several steps, so that every parameter matters."""
    if not kind.endswith("Cell"):
        out, state = module(x)
        return out.sum() + sum(s.sum() for s in state)
    total, state = 0.0, None
    for _ in range(8):
        out, state = module(x, state)
        total = total + out.sum() + sum(s.sum() for s in state)
    return total


KINDS = ["LIFCell", "LIFRecurrentCell", "LICell", "LIF", "LIFRecurrent", "LI"]
CASES = [
    (kind, name)
    for kind in KINDS
    for name in (FIELDS if kind.startswith("LIF") else ("tau_syn_inv", "tau_mem_inv", "v_leak"))
]


@pytest.mark.parametrize("per_neuron", [True, False], ids=["per neuron", "shared"])
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_learned_parameter_is_listed_gets_a_gradient_and_moves_and_a_fixed_one_does_not(kind, name, per_neuron):
    module = build(kind, learned=[name], per_neuron=per_neuron)
    listed = dict(module.named_parameters())
    assert f"p.{name}" in listed
    assert [n for n in listed if n.startswith("p.")] == [f"p.{name}"]
    before = {n: x.clone() for n, x in module.state_dict().items()}
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-6)
    run(module, kind, inputs(kind)).backward()
    assert listed[f"p.{name}"].grad.abs().min() > 0
    optimizer.param_groups[0]["lr"] = 0.01 / listed[f"p.{name}"].grad.abs().max().item()
    optimizer.step()
    after = module.state_dict()
    assert (after[f"p.{name}"] != before[f"p.{name}"]).any()
    for other in [n for n in after if n.startswith("p.") and n != f"p.{name}"]:
        assert torch.equal(after[other], before[other]), f"{other} is fixed and moved"


@pytest.mark.parametrize("kind", KINDS)
def test_survives_saving_copying_and_conversion(kind):
    learned = ["tau_mem_inv", "v_leak"]
    module, x = build(kind, learned), inputs(kind)
    expected = run(module, kind, x)
    with torch.no_grad():
        module.p.tau_mem_inv *= 0.05
    changed = run(module, kind, x)
    assert changed != expected

    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    buffer.seek(0)
    fresh = build(kind, learned)
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    assert run(fresh, kind, x) == changed

    twin = copy.deepcopy(module)
    assert run(twin, kind, x) == changed
    assert twin.p.tau_mem_inv is not module.p.tau_mem_inv

    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    assert run(torch.load(buffer, weights_only=False), kind, x) == changed

    double = module.to(F64)
    assert {t.dtype for t in double.state_dict().values()} == {F64}
    assert isinstance(double.p.tau_mem_inv, nn.Parameter)
    out = run(double, kind, x.double())
    assert out.dtype == F64
    exact = build(kind, learned, dtype=F64)
    exact.load_state_dict(fresh.state_dict())
    assert run(exact, kind, x.double()) == out
    assert {t.device.type for t in module.to("meta").state_dict().values()} == {"meta"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_same_numbers_on_cuda(kind):
    module, x = build(kind, ["tau_mem_inv"], dtype=F64), inputs(kind, F64)
    run(module, kind, x).backward()
    twin = copy.deepcopy(module).cuda()
    twin.zero_grad()
    run(twin, kind, x.cuda()).backward()
    for a, b in zip(module.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(b.grad.cpu(), a.grad, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**16), steps=st.integers(1, 20), batch=st.integers(1, 4), with_state=st.booleans())
@pytest.mark.parametrize("kind", ["LIF", "LIFRecurrent", "LI"])
def test_a_cell_does_one_step_of_what_a_layer_does(kind, seed, steps, batch, with_state):
    torch.manual_seed(seed)
    layer, cell = build(kind, ["v_leak"], dtype=F64), build(kind + "Cell", ["v_leak"], dtype=F64)
    cell.load_state_dict(layer.state_dict())
    x = 3 * torch.randn(steps, batch, 4 if "Recurrent" in kind else 3, dtype=F64)
    state = None
    if with_state:
        _, state = layer(torch.rand_like(x))
    whole, last = layer(x, state)
    outputs = []
    for current in x:
        out, state = cell(current, state)
        outputs.append(out)
    torch.testing.assert_close(torch.stack(outputs), whole, rtol=0, atol=1e-12)
    for a, b in zip(state, last, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["LIF", "LIFRecurrent", "LI"])
def test_a_sequence_in_two_halves_is_the_whole_sequence(kind):
    layer, x = build(kind, dtype=F64), inputs(kind, F64)
    whole, last = layer(x)
    first, state = layer(x[:5])
    second, state = layer(x[5:], state)
    torch.testing.assert_close(torch.cat([first, second]), whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(state.v, last.v, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_compiles_without_a_graph_break(kind):
    module, x = build(kind, ["tau_mem_inv"]), inputs(kind)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    out, state = module(x)
    torch.testing.assert_close(compiled(x)[0], out)
    torch.testing.assert_close(compiled(x)[1], state)
    (gradient,) = torch.autograd.grad(sum(s.sum() for s in compiled(x)[1]), module.p.tau_mem_inv)
    (expected,) = torch.autograd.grad(sum(s.sum() for s in module(x)[1]), module.p.tau_mem_inv)
    torch.testing.assert_close(gradient, expected)


def test_one_parameter_in_two_layers_is_one_parameter():
    tau = nn.Parameter(torch.full((3,), 100.0))
    model = nn.ModuleList([sp.LIF(sp.LIFParameters(tau_mem_inv=tau)), sp.LI(sp.LIParameters(tau_mem_inv=tau))])
    assert list(model.parameters()) == [tau]
    assert model[0].p.tau_mem_inv is model[1].p.tau_mem_inv is tau


def test_a_tensor_is_copied():
    tau = torch.full((3,), 100.0)
    cell = sp.LIFCell(sp.LIFParameters(tau_mem_inv=tau))
    tau.zero_()
    assert cell.p.tau_mem_inv.tolist() == [100.0] * 3


def test_numbers_are_exact_in_every_type():
    assert sp.LIFCell(sp.LIFParameters(v_th=0.3), dtype=F64).p.v_th.item() == 0.3


def test_no_autapses_by_default_and_none_are_learned():
    cell = sp.LIFRecurrentCell(2, 5)
    assert cell.recurrent_weights.diagonal().abs().sum() == 0
    optimizer = torch.optim.AdamW(cell.parameters(), lr=0.1)
    state = sp.LIFState(torch.ones(1, 5), torch.zeros(1, 5), torch.zeros(1, 5))
    cell(torch.ones(1, 2), state)[1].i.sum().backward()
    optimizer.step()
    assert cell.recurrent_weights.diagonal().abs().sum() == 0
    assert cell.effective_recurrent_weights().diagonal().abs().sum() == 0
    with torch.no_grad():
        cell.recurrent_weights.fill_(1.0)  # whatever is stored there is not used
    assert cell.effective_recurrent_weights().diagonal().abs().sum() == 0
    assert sp.LIFRecurrentCell(2, 5, autapses=True).effective_recurrent_weights().diagonal().abs().min() > 0


def test_autapses_are_not_loaded_into_a_population_without_them():
    source = sp.LIFRecurrent(3, 4, autapses=True).state_dict()
    target = sp.LIFRecurrent(3, 4)
    with pytest.raises(ValueError, match="recurrent_weights: expected a zero diagonal because autapses=False, got 4"):
        target.load_state_dict(source)
    assert target.recurrent_weights.diagonal().abs().sum() == 0


@pytest.mark.parametrize("name", ["input_weights", "recurrent_weights"])
def test_weights_that_are_not_finite_are_not_loaded(name):
    layer = sp.LIFRecurrent(3, 4)
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    broken = before[name].clone()
    broken[0, 1:] = torch.inf
    with pytest.raises(ValueError, match=f"{name}: expected finite values, got {len(broken[0]) - 1} that are not"):
        layer.load_state_dict(before | {name: broken})
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())


def test_the_recurrent_layer_takes_what_its_cell_takes():
    cell, layer = (dict(inspect.signature(kind).parameters) for kind in (sp.LIFRecurrentCell, sp.LIFRecurrent))
    assert layer.pop("kernel").default is layer.pop("chunk").default is None
    assert list(layer.items()) == list(cell.items())


def test_built_without_memory_and_filled_later():
    source = sp.LIFRecurrent(3, 4)
    with torch.device("meta"):
        target = sp.LIFRecurrent(3, 4)
    assert "shape ()" in repr(target)
    target = target.to_empty(device="cpu")
    target.load_state_dict(source.state_dict())
    x = torch.rand(5, 2, 3) * 5
    assert torch.equal(target(x)[0], source(x)[0])


def test_given_weights():
    w_in, w_rec = torch.randn(3, 2), nn.Parameter(torch.zeros(3, 3))
    cell = sp.LIFRecurrentCell(2, 3, input_weights=w_in, recurrent_weights=w_rec)
    assert cell.recurrent_weights is w_rec
    assert torch.equal(cell.input_weights, w_in)
    assert cell.input_weights.data_ptr() != w_in.data_ptr()


def test_spatial_input_for_feed_forward_modules():
    p = sp.LIFParameters(tau_mem_inv=torch.full((6, 1, 1), 80.0))  # one value per channel
    spikes, state = sp.LIF(p)(torch.rand(4, 2, 6, 5, 5))
    assert spikes.shape == (4, 2, 6, 5, 5)
    assert state.v.shape == (2, 6, 5, 5)


def test_printed_module_names_every_parameter_and_what_is_learned():
    text = repr(build("LIFRecurrentCell", ["tau_mem_inv"]))
    assert "input_size=4, hidden_size=3, autapses=False, dt=0.001" in text
    assert "(p): LIFParameters(" in text
    assert "tau_mem_inv=3 values, median 90, 81 to 99 1/s (learned)" in text
    assert "v_th=3 values, median 0.4, 0.36 to 0.44 (fixed)" in text
    assert "dt=0.001, gradient=Surrogate('super', alpha=5), detach_reset=True\n" in text
    assert "v_th=1 (fixed)" in repr(sp.LIFCell())
    assert "gradient" not in repr(sp.LICell())
