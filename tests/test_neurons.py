"""One row per neuron: whatever holds of one holds of all, those that a user defines among them."""

import copy
import dataclasses
import functools
import io
import json
import math
import pickle
import re
import sys
import types
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from notebooks import ROOT
from scipy.linalg import expm
from torch import nn

import snnparams as sp

F64 = torch.float64
STEPS, ROWS, INPUTS, NEURONS = 12, 2, 4, 3
DT = 1e-3


class AdaptiveLIF(sp.Neuron):
    """A LIF neuron whose threshold rises with each spike."""

    state = ("v", "i", "c")
    rest = {"v": "v_leak"}  # noqa: RUF012
    receives = "i"
    tau_syn_inv = sp.rate(200.0, time="tau_syn")
    tau_mem_inv = sp.rate(100.0, time="tau_mem")
    tau_adapt_inv = sp.rate(10.0, time="tau_adapt")
    v_leak = sp.voltage(0.0)
    v_th = sp.voltage(0.3)
    v_reset = sp.voltage(0.0)
    beta = sp.voltage(0.2, low=0.0, constraint="log")

    def constants(dt, tau_syn_inv, tau_mem_inv, tau_adapt_inv):
        return {"a": dt * tau_mem_inv, "b": dt * tau_syn_inv, "r": dt * tau_adapt_inv}

    def step(v, i, c, a, b, r, v_leak, v_th, v_reset, beta, spike, reset):
        v = v + a * ((v_leak - v) + i)
        z = spike(v, v_th + beta * c)
        resets = reset(z)
        return z, (1 - resets) * v + resets * v_reset, i - b * i, c - r * c + z


class Exact(sp.Neuron):
    """A membrane without a synapse, integrated exactly; a spike takes its threshold away."""

    state = ("v",)
    tau_mem_inv = sp.rate(80.0, time="tau_mem", most_per_step=math.inf)
    v_th = sp.voltage(0.6)

    def constants(dt, tau_mem_inv):
        return {"kept": torch.exp(-dt * tau_mem_inv)}

    def step(x, v, kept, v_th, spike, where):
        v = kept * v + (1 - kept) * x
        z = spike(v, v_th)
        return z, where(z, v - v_th, v)


def of_chapter_8():
    """Return the neuron that chapter 8 defines, made as in a notebook: its module has no file."""
    notebook = json.loads((ROOT / "book" / "8_own_neuron.ipynb").read_text())
    (cell,) = ("".join(x["source"]) for x in notebook["cells"] if "".join(x["source"]).startswith("class Adaptive("))
    module = types.ModuleType("chapter_8")
    sys.modules[module.__name__] = module  # where pickle looks for it, as for __main__
    exec("import snnparams as sp\n" + cell, vars(module))
    return module.Adaptive


def adaptive_by_hand(x, p, recurrent_weights, fire):
    v = np.broadcast_to(p["v_leak"], x.shape[1:])
    i, c, z, outputs = 0 * x[0], 0 * x[0], 0 * x[0], []
    for x_t in x:
        i = i + x_t + z @ recurrent_weights.T
        v = v + DT * p["tau_mem_inv"] * (p["v_leak"] - v + i)
        i = i * (1 - DT * p["tau_syn_inv"])
        z = fire(v - p["v_th"] - p["beta"] * c)
        v, c = v + z * (p["v_reset"] - v), c * (1 - DT * p["tau_adapt_inv"]) + z
        outputs.append(z)
    return np.stack(outputs), (v, i, c)


def exact_by_hand(x, p, recurrent_weights, fire):
    v, z, outputs = 0 * x[0], 0 * x[0], []
    decay = np.exp(-DT * p["tau_mem_inv"])
    for x_t in x:
        v = v * decay + (1 - decay) * (x_t + z @ recurrent_weights.T)
        z = fire(v - p["v_th"])
        v = v - p["v_th"] * (z > 0.5)
        outputs.append(z)
    return np.stack(outputs), (v,)


def lif_by_hand(x, p, recurrent_weights, fire):
    no_adaptation = {"beta": 0.0, "tau_adapt_inv": 0.0}
    outputs, (v, i, _) = adaptive_by_hand(x, p | no_adaptation, recurrent_weights, fire)
    return outputs, (v, i)


def li_by_hand(x, p, recurrent_weights, fire):
    v, z, outputs = np.broadcast_to(p["v_leak"], x.shape[1:]), 0 * x[0], []
    i = 0 * x[0]
    for x_t in x:
        i = i + x_t + z @ recurrent_weights.T
        v = v + DT * p["tau_mem_inv"] * (p["v_leak"] - v + i)
        i = i * (1 - DT * p["tau_syn_inv"])
        z = v
        outputs.append(v)
    return np.stack(outputs), (v, i)


def exact_lif_by_hand(x, p, recurrent_weights, fire):
    """Solve the two equations of each neuron together, by the exponential of their matrix."""
    v, i, z, outputs = np.broadcast_to(p["v_leak"], x.shape[1:]), 0 * x[0], 0 * x[0], []
    m, s = p["tau_mem_inv"], p["tau_syn_inv"]
    matrices = np.stack([expm(DT * np.array([[-a, a], [0, -b]])) for a, b in zip(m, s, strict=True)])
    for x_t in x:
        i = i + x_t + z @ recurrent_weights.T
        v, i = np.einsum("nij,jbn->ibn", matrices, np.stack([v - p["v_leak"], i]))
        v = v + p["v_leak"]
        z = fire(v - p["v_th"])
        v = v + z * (p["v_reset"] - v)
        outputs.append(z)
    return np.stack(outputs), (v, i)


def subtractive_by_hand(x, p, recurrent_weights, fire):
    v, i, z, outputs = np.broadcast_to(p["v_leak"], x.shape[1:]), 0 * x[0], 0 * x[0], []
    for x_t in x:
        i = i + x_t + z @ recurrent_weights.T
        v = v + DT * p["tau_mem_inv"] * (p["v_leak"] - v + i)
        i = i * (1 - DT * p["tau_syn_inv"])
        z = fire(v - p["v_th"])
        v = v - z * p["v_th"] + z * p["v_reset"]
        outputs.append(z)
    return np.stack(outputs), (v, i)


def partial_reset_by_hand(x, p, recurrent_weights, fire):
    v, i, z, outputs = np.broadcast_to(p["v_leak"], x.shape[1:]), 0 * x[0], 0 * x[0], []
    for x_t in x:
        i = i + x_t + z @ recurrent_weights.T
        v = v + DT * p["tau_mem_inv"] * (p["v_leak"] - v + i)
        i = i * (1 - DT * p["tau_syn_inv"])
        z = fire(v - p["v_th"])
        v = v + z * p["of_voltage"] * (p["v_reset"] - v) + z * p["of_threshold"] * (p["v_reset"] - p["v_th"])
        i = i * (1 - z * p["of_current"])
        outputs.append(z)
    return np.stack(outputs), (v, i)


def slope_by_hand(x, p, recurrent_weights, fire):
    return lif_by_hand(x, p, recurrent_weights, lambda u: fire(p["slope"] * u))


def adlif_by_hand(x, p, recurrent_weights, fire, new):
    v, w, z, outputs = 0 * x[0], 0 * x[0], 0 * x[0], []
    alpha, beta = (np.exp(-DT * p[name]) for name in ("tau_mem_inv", "tau_adapt_inv"))
    for x_t in x:
        before = v
        v = alpha * v + (1 - alpha) * (x_t + z @ recurrent_weights.T - w)
        z = fire(v - p["v_th"])
        v = v * (1 - z)
        w = beta * w + (1 - beta) * (p["a"] * (v if new else before) + p["b"] * z)
        outputs.append(z)
    return np.stack(outputs), (v, w)


class Row(NamedTuple):
    """A neuron, the same neuron as a loop in NumPy, and what an error says of a time constant that is too short."""

    neuron: type[sp.Neuron]
    by_hand: Any
    gain: float = 1.0  # of the input, so that it spikes


TABLE = {
    "LIF": Row(sp.LIFParameters, lif_by_hand, 4.0),
    "LI": Row(sp.LIParameters, li_by_hand),
    "adaptive LIF": Row(sp.neurons.AdaptiveLIF, adaptive_by_hand, 4.0),
    "exact LIF": Row(sp.neurons.ExactLIF, exact_lif_by_hand, 4.0),
    "LIF, reset by subtraction": Row(sp.neurons.SubtractiveLIF, subtractive_by_hand, 4.0),
    "LIF, partial reset": Row(sp.neurons.PartialResetLIF, partial_reset_by_hand, 4.0),
    "LIF with a slope": Row(sp.neurons.SlopeLIF, slope_by_hand, 4.0),
    "SE-adLIF": Row(sp.neurons.SEAdLIF, functools.partial(adlif_by_hand, new=True), 12.0),
    "EF-adLIF": Row(sp.neurons.EFAdLIF, functools.partial(adlif_by_hand, new=False), 12.0),
    "adaptive LIF of a user": Row(AdaptiveLIF, adaptive_by_hand),
    "adaptive LIF of chapter 8": Row(of_chapter_8(), adaptive_by_hand, 4.0),
    "exact LIF of a user": Row(Exact, exact_by_hand, 8.0),
}
each = pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)


def declared(neuron, how=sp.Learned, seed=0, **options):
    """Return a declaration of values that differ between neurons, each around its default."""
    generator = torch.Generator().manual_seed(seed)
    values = {}
    for name, parameter in neuron.parameters.items():
        value = (parameter.default or 0.05) * (0.8 + 0.4 * torch.rand(NEURONS, generator=generator, dtype=F64))
        values[name] = how(value)
    return neuron(**values, **options)


def inputs(row, seed=1, inputs=NEURONS):
    return row.gain * torch.rand(STEPS, ROWS, inputs, generator=torch.Generator().manual_seed(seed), dtype=F64)


def recurrent(row, p, kind=sp.RecurrentLayer, **options):
    torch.manual_seed(3)
    weights = {"input_weights": torch.rand(NEURONS, INPUTS, dtype=F64)}
    weights["recurrent_weights"] = 0.5 * torch.randn(NEURONS, NEURONS, dtype=F64).fill_diagonal_(0)
    return kind(INPUTS, NEURONS, p, **weights, dtype=F64, **options)


def sigmoid(u):
    return 1 / (1 + np.exp(-3 * u))


def graded(row):
    return {"method": "sigmoid", "alpha": 3.0} if row.neuron.spiking else {}


@each
@pytest.mark.parametrize("with_recurrence", [False, True])
@pytest.mark.parametrize("smooth", [False, True])
def test_a_layer_computes_what_a_loop_in_numpy_does(row, with_recurrence, smooth):
    p = declared(row.neuron, **(graded(row) if smooth else {}))
    if with_recurrence:
        layer, x = recurrent(row, p), inputs(row, inputs=INPUTS)
        current = (x @ layer.input_weights.t()).detach().numpy()
        weights = layer.recurrent_weights.detach().numpy()
    else:
        layer, x = sp.Layer(p, size=NEURONS, dtype=F64), inputs(row)
        current, weights = x.numpy(), np.zeros((NEURONS, NEURONS))
    out, state = layer(x)
    values = {name: getattr(layer.p, name).detach().numpy() for name in row.neuron.neuron_fields}
    expected, last = row.by_hand(current, values, weights, sigmoid if smooth else lambda u: 1.0 * (u > 0))
    if row.neuron.spiking and not smooth:
        assert 2 < (expected > 0.5).sum() < expected.size - 2
    np.testing.assert_allclose(out.detach(), expected, rtol=0, atol=1e-12)
    for name, value in zip(row.neuron.state, last, strict=True):
        np.testing.assert_allclose(getattr(state, name).detach(), value, rtol=0, atol=1e-12)
    assert isinstance(state, row.neuron.RecurrentState if with_recurrence else row.neuron.State)
    if with_recurrence:
        assert torch.equal(state.z, out[-1])


@each
def test_gradients_of_every_parameter_are_those_of_finite_differences(row):
    layer, x = recurrent(row, declared(row.neuron, **graded(row)), detach_reset=False), inputs(row, inputs=INPUTS)
    learned = dict(layer.named_parameters())
    assert len(learned) == 2 + len(row.neuron.parameters)
    first = row.neuron.RecurrentState(*(0.1 * torch.rand(ROWS, NEURONS, dtype=F64) for _ in (0, *row.neuron.state)))

    def loss(x, *values):
        values, state = values[: len(learned)], row.neuron.RecurrentState(*values[len(learned) :])
        out, last = torch.func.functional_call(layer, dict(zip(learned, values, strict=True)), (x, state))
        return out.cos().sum() + sum(value.sin().sum() for value in last)

    assert torch.autograd.gradcheck(loss, [t.detach().clone().requires_grad_() for t in (x, *learned.values(), *first)])


@each
def test_detach_reset_changes_the_gradient_and_nothing_else(row):
    found = []
    if "reset" not in row.neuron.arguments:
        assert recurrent(row, declared(row.neuron)).detach_reset is False
        return
    for detach_reset in (False, True):
        layer, x = recurrent(row, declared(row.neuron), detach_reset=detach_reset), inputs(row, inputs=INPUTS)
        out, state = layer(x)
        gradient = torch.autograd.grad(sum(value.sum() for value in state), layer.input_weights)[0]
        found.append((out, gradient))
    assert torch.equal(found[0][0], found[1][0])
    assert not torch.equal(found[0][1], found[1][1])


@each
@pytest.mark.parametrize("with_recurrence", [False, True])
def test_a_cell_does_one_step_of_what_a_layer_does(row, with_recurrence):
    p = declared(row.neuron)
    if with_recurrence:
        layer, cell = (recurrent(row, p, kind) for kind in (sp.RecurrentLayer, sp.RecurrentCell))
    else:
        layer, cell = (kind(p, size=NEURONS, dtype=F64) for kind in (sp.Layer, sp.Cell))
    x, state, outputs = inputs(row, inputs=INPUTS if with_recurrence else NEURONS), None, []
    whole, last = layer(x)
    for x_t in x:
        out, state = cell(x_t, state)
        outputs.append(out)
    torch.testing.assert_close(torch.stack(outputs), whole, rtol=0, atol=1e-12)
    assert type(state) is type(last)
    for a, b in zip(state, last, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    first, middle = layer(x[:5])
    second, _ = layer(x[5:], middle)
    torch.testing.assert_close(torch.cat([first, second]), whole, rtol=0, atol=1e-12)
    others = [torch.zeros(ROWS, NEURONS + 1, dtype=F64) for _ in last]
    with pytest.raises(ValueError, match=rf"state.{type(last)._fields[0]}: expected shape \(2, 3\), got \(2, 4\)"):
        layer(x, type(last)(*others))


@each
def test_values_are_checked_shown_and_kept_valid(row):
    neuron = row.neuron
    layer = sp.Layer(declared(neuron), size=NEURONS, dtype=F64)
    for name, parameter in neuron.parameters.items():
        with pytest.raises(ValueError, match=f"{name}: expected finite values, got nan"):
            neuron(**{name: float("nan")})
        assert re.search(rf"{name}=3 values, median .*{parameter.unit} \(learned", repr(layer.p))
        if parameter.low == 0:
            with pytest.raises(ValueError, match=f"{name}: expected positive values, got -1"):
                neuron(**{name: -1.0})
        if parameter.most_per_step < math.inf:
            with pytest.raises(ValueError, match=rf"{name}: expected dt \* {name} < 1, that is values below 1000 1/s"):
                sp.Layer(neuron(**{name: 1000.0}))
        elif parameter.per_step:
            assert torch.isfinite(sp.Layer(neuron(**{name: 1e9}), dtype=F64)(inputs(row))[1].v).all()
        assert (layer.p.constraint(name) is None) == (parameter.constraint == "none")
    for time, name in neuron.times.items():
        p = neuron(**{time: 0.02})
        assert (getattr(p, time), getattr(p, name)) == (0.02, 50.0)
        assert getattr(dataclasses.replace(p, **{time: 0.05}), name) == 20.0
        torch.testing.assert_close(getattr(layer.p, time), 1 / getattr(layer.p, name))
        setattr(layer.p, time, 0.04)
        torch.testing.assert_close(getattr(layer.p, name).detach(), torch.full((NEURONS,), 25.0, dtype=F64))
    with pytest.raises(TypeError, match=f"{neuron.__name__}: unknown tau_ref; expected one of "):
        neuron(tau_ref=1.0)
    with pytest.raises(AttributeError, match=f"unknown tau_ref of {neuron.__name__}; expected one of "):
        layer.p.tau_ref = 1.0
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e3)
    for _ in range(3):
        layer(inputs(row))[1].v.sum().backward()
        optimizer.step()
    for name, parameter in neuron.parameters.items():
        if parameter.constraint != "none":
            assert (getattr(layer.p, name) > 0).all()
    assert list(sp.learned_values(layer)) == [f"p.{name}" for name in neuron.neuron_fields]
    names = [parameter.time or name for name, parameter in neuron.parameters.items()]  # as they were assigned last
    assert [group["name"] for group in sp.parameter_groups(layer, 1e-3)] == names


@each
def test_a_layer_survives_saving_copying_and_conversion(row):
    layer, x = sp.Layer(declared(row.neuron), size=NEURONS, dtype=F64), inputs(row)
    expected, state = layer(x)
    other = sp.Layer(declared(row.neuron, seed=5), size=NEURONS, dtype=F64)
    other.load_state_dict(layer.state_dict())
    fixed = sp.Layer(declared(row.neuron, sp.Fixed, seed=6), size=NEURONS, dtype=F64)
    buffer = io.BytesIO()
    torch.save(fixed, buffer)
    buffer.seek(0)
    again = torch.load(buffer, weights_only=False)
    assert torch.equal(again(x)[0], fixed(x)[0])
    for twin in (other, copy.deepcopy(layer)):
        assert torch.equal(twin(x)[0], expected)
    loaded = pickle.loads(pickle.dumps(state))
    assert type(loaded) is type(state)
    assert all(torch.equal(a, b) for a, b in zip(loaded, state, strict=True))
    assert layer.float()(x.float())[0].dtype == torch.float32


@each
def test_an_ensemble_computes_what_its_members_do(row):
    members = [recurrent(row, declared(row.neuron, seed=seed)) for seed in range(3)]
    members[1].p.raw("tau_mem_inv").requires_grad_(False)
    x = inputs(row, inputs=INPUTS)
    out, state = sp.Ensemble(members)(x)
    for k, member in enumerate(members):
        expected, last = member(x)
        torch.testing.assert_close(out[k], expected, rtol=0, atol=1e-12)
        for a, b in zip(state, last, strict=True):
            torch.testing.assert_close(a[k], b, rtol=0, atol=1e-12)


@pytest.mark.slow
@each
@pytest.mark.parametrize("kind", [sp.Layer, sp.Cell])
def test_a_compiled_module_computes_the_same(row, kind):
    module, x = kind(declared(row.neuron), size=NEURONS, dtype=F64), inputs(row)
    x = x[0] if kind is sp.Cell else x
    torch.compiler.reset()  # there are more neurons than PyTorch traces one function for
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x)[0], module(x)[0])
    stored = module.p.raw("tau_mem_inv")
    found, expected = (torch.autograd.grad(f(x)[1].v.sum(), stored)[0] for f in (compiled, module))
    torch.testing.assert_close(found, expected)


@each
def test_sparse_input_and_kernels(row):
    layer, x = recurrent(row, declared(row.neuron)), inputs(row, inputs=INPUTS)
    spikes = (x > x.mean()).to(F64)
    torch.testing.assert_close(layer(spikes.to_sparse())[0], layer(spikes)[0])
    with pytest.raises(ValueError, match="unknown kernel='numba'"):
        recurrent(row, declared(row.neuron), kernel="numba")


@each
@pytest.mark.parametrize("with_recurrence", [False, True])
def test_bad_input_is_refused_by_name(row, with_recurrence):
    layer = recurrent(row, declared(row.neuron)) if with_recurrence else sp.Layer(declared(row.neuron), dtype=F64)
    x = inputs(row, inputs=INPUTS if with_recurrence else NEURONS)
    state = layer(x)[1]
    for wrong, error, message in (
        (x.numpy(), TypeError, r"input: expected a tensor of shape \(T, B, .*, got ndarray"),
        (x.float(), TypeError, r"input: expected .*float64.*, got .*float32"),
        (x.long(), TypeError, "got .*int64"),
        (x[..., :-1], ValueError, rf"input: expected .*, got .*{x.shape[-1] - 1},?\)"),
        (x[0, 0, 0], ValueError, r"input: expected .*got .*\(\)"),
    ):
        with pytest.raises(error, match=message):
            layer(wrong)
    with pytest.raises(TypeError, match=f"state: expected {type(state).__name__}"):
        layer(x, tuple(state))
    with pytest.raises(ValueError, match=r"state\..* expected shape"):
        layer(x[:, :1], state)


class ByHand(nn.Module):
    """A module of a user's own, which goes through time itself and has the parameters of a neuron."""

    def __init__(self, neuron):
        super().__init__()
        self.kind, self.weights = neuron, nn.Linear(INPUTS, NEURONS)
        self.soma = nn.ModuleList([sp.NeuronParameters(declared(neuron), dt=DT, size=NEURONS, dtype=torch.float32)])

    def forward(self, x):
        state = self.kind.State(*torch.zeros(len(self.kind.state), len(x), NEURONS))
        outputs = []
        for x_t in x.transpose(0, 1):
            out, state = sp.neuron_step(self.kind, 9 * self.weights(x_t).abs(), state, p=self.soma[0])
            outputs.append(out)
        return (torch.stack(outputs).mean(0) + state[0]).log_softmax(1)


@each
def test_parameters_of_a_users_own_module_are_seen_grouped_recorded_and_checked(row):
    torch.manual_seed(0)
    model, names = ByHand(row.neuron), list(row.neuron.parameters)
    assert list(sp.learned_values(model)) == [f"soma.0.{name}" for name in names]
    groups = sp.parameter_groups(model, 1e-2, {names[0]: 1e-3}, weight_decay=0.1)
    assert [(group["name"], group["lr"], group["weight_decay"]) for group in groups] == [
        ("weights", 1e-2, 0.1),
        *((name, 1e-3 if name == names[0] else 1e-2, 0.0) for name in names),
    ]
    data = sp.Split(torch.rand(8, STEPS, INPUTS), torch.arange(8) % NEURONS)
    history = sp.fit(model, data, data, torch.optim.Adam(groups), 2, batch_size=4, progress=False)
    assert {len(values) for values in history.neuron_parameters.values()} == {3}
    assert set(history.moved()) == {f"soma.0.{name}" for name in names}
    assert max(history.moved().values()) > 0
    with torch.no_grad():
        model.soma[0].raw(names[-1]).fill_(math.nan)
    with pytest.raises(ValueError, match=rf"soma\.0\.{names[-1]}: expected finite values, got nan"):
        sp.validate_neuron_parameters(model)


@each
def test_step_function(row):
    """The function takes the values of a cell, or those of a declaration that are numbers or tensors."""
    neuron, x = row.neuron, inputs(row)[0]
    cell = sp.Cell(declared(neuron), size=NEURONS, dtype=F64)
    out, state = cell(x)
    again, last = sp.neuron_step(neuron, x, cell(torch.zeros_like(x))[1], p=cell.p)
    assert torch.equal(again, cell(x, cell(torch.zeros_like(x))[1])[0])
    assert not {t.data_ptr() for t in (again, *last)} & {t.data_ptr() for t in (out, *state)}
    with pytest.raises(TypeError, match="tau_mem_inv: expected a number or a tensor, because a function uses values"):
        sp.neuron_step(neuron, x, state, p=neuron(tau_mem=sp.Learned(0.02)))


def test_numbers_of_a_declaration_keep_their_digits_in_the_step_function():
    x = torch.rand(2, 3, dtype=F64)
    for row in TABLE.values():
        first = row.neuron.State(*(0.1 * torch.rand(2, 3, dtype=F64) for _ in row.neuron.state))
        out, state = sp.neuron_step(row.neuron, x, first)
        expected, last = sp.Cell(row.neuron(), dtype=F64)(x, first)
        for ours, theirs in zip((out, *state), (expected, *last), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-15, atol=1e-15)


# ------------------------------------------------------------------------------------------- neurons made of another


class Slow(sp.LIFParameters):
    tau_mem_inv = sp.rate(20.0, time="tau_mem")


class ExponentialLIF(sp.LIFParameters):
    def constants(dt, tau_mem_inv, tau_syn_inv):
        return {"a": 1 - torch.exp(-dt * tau_mem_inv), "b": 1 - torch.exp(-dt * tau_syn_inv)}


def test_a_neuron_with_other_defaults_is_computed_by_the_same_kernels():
    x = 4 * torch.rand(STEPS, ROWS, NEURONS)
    out, state = sp.LIF(Slow(), kernel="cpu")(x)
    expected, last = sp.LIF(sp.LIFParameters(tau_mem_inv=20.0), kernel="reference")(x)
    assert torch.equal(out, expected)
    torch.testing.assert_close(state, last)
    assert Slow(tau_mem=0.01).tau_mem_inv == 100.0
    assert sp.LIF(Slow(method="adjoint")).gradient == sp.Adjoint()
    fast = type("Fast", (sp.LIFParameters,), {"tau_mem_inv": sp.rate(250.0)})  # the time constant keeps its name
    assert (fast().tau_mem, fast(tau_mem=0.01).tau_mem_inv, list(fast.times)) == (4e-3, 100.0, ["tau_syn", "tau_mem"])


def test_a_neuron_with_other_constants_is_not_taken_for_the_one_that_it_is_made_of():
    x = 4 * torch.rand(STEPS, ROWS, NEURONS, dtype=F64)
    for layer in (sp.LIF(ExponentialLIF(), dtype=F64), sp.Layer(ExponentialLIF(), dtype=F64)):
        _, state = layer(x)
        values = {name: np.float64(value.default) for name, value in sp.LIFParameters.parameters.items()}
        for name in ("tau_mem_inv", "tau_syn_inv"):
            values[name] = (1 - np.exp(-DT * values[name])) / DT
        _, (v, _) = lif_by_hand(x.numpy(), values, np.zeros((NEURONS, NEURONS)), lambda u: 1.0 * (u > 0))
        np.testing.assert_allclose(state.v, v, rtol=0, atol=1e-12)
    for build in (lambda: ExponentialLIF(method="adjoint"), lambda: sp.LIF(ExponentialLIF(), gradient=sp.Adjoint())):
        with pytest.raises(
            ValueError, match=r"gradient=Adjoint\(\): there is none for ExponentialLIF; use a Surrogate"
        ):
            build()


def test_the_limit_of_the_time_step_belongs_to_the_declaration():
    """Of forward Euler steps it is one over the step; exact ones have none, and constraints and tails follow."""
    for kind, ends in ((AdaptiveLIF, 1 / DT), (Exact, 50 / DT)):
        layer = sp.Layer(kind(tau_mem=sp.Learned(0.01)), size=2, dt=DT)
        assert 0.9 * ends < layer.p.constraint("tau_mem_inv").high <= ends
    tail = torch.distributions.Gamma(2.0, 2.0 / 200)  # of mean 200; beyond 1000 lie 5 of 10,000
    torch.manual_seed(0)
    for kind, cut in ((AdaptiveLIF, True), (Exact, False)):
        drawn = sp.Layer(kind(tau_mem_inv=tail), size=100_000, dt=DT).p.tau_mem_inv
        assert (drawn > 0).all()
        assert (drawn.max() < 1 / DT) == cut
    short = torch.distributions.Uniform(1e-5, 1e-4)  # s, times far below a step
    with pytest.raises(ValueError, match=r"tau_mem: expected a distribution of values from 0\.001 to 1e\+09 s"):
        sp.Layer(AdaptiveLIF(tau_mem=short), size=10, dt=DT)
    assert (sp.Layer(Exact(tau_mem=short), size=10, dt=DT).p.tau_mem <= 1e-4).all()
    learned = sp.Layer(Exact(tau_mem=sp.Learned(2e-4)), size=1, dt=DT, dtype=F64)
    optimizer = torch.optim.SGD(learned.parameters(), lr=1e6)
    for _ in range(3):  # a huge step does not leave a gradient of zero behind
        optimizer.zero_grad()
        learned(torch.full((3, 1, 1), 0.1, dtype=F64))[1].v.sum().neg().backward()
        optimizer.step()
        assert learned.p.raw("tau_mem_inv").grad != 0
    with pytest.raises(ValueError, match="most_per_step: expected a positive number, got 0"):
        sp.rate(100.0, most_per_step=0)


# ------------------------------------------------------------------------------------------------ wrong definitions


def define(**changes):
    """Define a leaky integrator with changes; None takes something away."""
    parts = {
        "state": ("v", "i"),
        "rest": {"v": "v_leak"},
        "receives": "i",
        "tau_mem_inv": sp.rate(100.0, time="tau_mem"),
        "v_leak": sp.voltage(0.0),
        "v_th": sp.voltage(1.0),
        "constants": lambda dt, tau_mem_inv: {"a": dt * tau_mem_inv},
        "step": lambda v, i, a, v_leak, v_th, spike: (spike(v, v_th), v + a * (v_leak - v), i - v),
    }
    parts |= changes
    return type("Mine", (sp.Neuron,), {name: value for name, value in parts.items() if value is not None})


def if_else(v, i, a, v_leak, v_th, spike):
    z = spike(v, v_th)
    return z, (v if z else v_leak) + a, i


def loops(v, i, a, v_leak, v_th, spike):
    for _ in (1, 2):
        v = v + a * v_leak
    return spike(v, v_th), v, i


WRONG = {
    "a forgotten variable": (
        {"step": lambda v, i, a, v_leak, v_th, spike: (spike(v, v_th), v + a * (v_leak - i))},
        "step: expected it to return the output and then v, i, got 2 values",
    ),
    "an unused variable": (
        {"step": lambda v, a, v_leak, v_th, spike: (spike(v, v_th), v + a * v_leak, v)},
        "step: expected what it returns to depend on i, got a step that does not use it",
    ),
    "an unused parameter": (
        {"step": lambda v, i, a, v_leak, v_th, spike: (spike(v, 1), v + a * (v_leak - v), i)},
        "step: expected what it returns to depend on v_th, got a step that does not use it",
    ),
    "a parameter that is not there": (
        {"step": lambda v, i, a, v_leak, v_th, tau, spike: (spike(v, v_th), v + a * (v_leak - v) * tau, i)},
        "step: unknown argument tau; expected some of v, i, v_leak, v_th, a",
    ),
    "an unused constant": (
        {"constants": lambda dt, tau_mem_inv: {"a": dt * tau_mem_inv, "r": tau_mem_inv}},
        "step: expected what it returns to depend on r",
    ),
    "a constant that does not depend on its parameter": (
        {"constants": lambda dt, tau_mem_inv, v_leak: {"a": dt * tau_mem_inv}},
        "constants: expected some that depend on v_leak, got none",
    ),
    "a constant of another shape": (
        {"constants": lambda dt, tau_mem_inv: {"a": dt * tau_mem_inv.mean()}},
        "constants: expected a to have the shape of the parameters, got another",
    ),
    "a function of PyTorch": (
        {"step": lambda v, i, a, v_leak, v_th, spike: (spike(v, v_th), torch.tanh(v) + a * v_leak, i)},
        "got torch.tanh",
    ),
    "a method of a tensor": (
        {"step": lambda v, i, a, v_leak, v_th, spike: (spike(v, v_th), v.clamp(0) + a * v_leak, i)},
        "got clamp",
    ),
    "a power": (
        {"step": lambda v, i, a, v_leak, v_th, spike: (spike(v, v_th), v**2 + a * v_leak, i)},
        "step: expected + - * / of arguments and numbers, spike(v, v_th), reset(z) and where(z, a, b), got **",
    ),
    "a comparison": (
        {"step": lambda v, i, a, v_leak, v_th, spike: (spike(v, v_th), v * (v > v_leak) * a, i)},
        "got >",
    ),
    "a branch": ({"step": if_else}, "got a branch or a loop"),
    "a loop": ({"step": loops}, "got a branch or a loop"),
    "a number in place of the output": (
        {"step": lambda v, i, a, v_leak, v_th, spike: (1.0, spike(v, v_th) + a * v_leak, i)},
        "got the number 1.0 in place of an expression",
    ),
    "a reset of something that is no spike": (
        {"step": lambda v, i, a, v_leak, v_th, spike, reset: (spike(v, v_th), reset(v) + a * v_leak, i)},
        "got reset of something that is no spike",
    ),
    "an output of parameters alone": (
        {"step": lambda v, i, a, v_leak, v_th, spike: (a * v_leak, spike(v, v_th), i)},
        "step: expected the output to depend on the state or x, got another shape than theirs",
    ),
    "no tuple": ({"step": lambda v, i, a, v_leak, v_th, spike: spike(v, v_th)}, "expected it to return a tuple"),
    "a default": (
        {"step": lambda v, i, a, v_leak, v_th, spike=None: (v, i, a)},
        "step: expected plain arguments without defaults, got spike=None",
    ),
    "no step": ({"step": None}, "step: expected a function, got NoneType"),
    "a name twice": ({"state": ("v", "v_th")}, "v_th: expected a name of its own, got one that something else has"),
    "a name that is taken": ({"state": ("v", "x")}, "x: expected a name of its own"),
    "a name that neurons have": ({"state": ("v", "rest")}, "rest: expected a name of its own"),
    "no state": ({"state": ()}, "state: expected a tuple of names, such as ('v', 'i') or ('v',), got ()"),
    "a forgotten comma": ({"state": ("v")}, "state: expected a tuple of names, such as ('v', 'i') or ('v',), got 'v'"),
    "an adjoint of its own": ({"has_adjoint": True}, "has_adjoint: expected it to be left alone, because the adjoint"),
    "an unknown receiver": ({"receives": "j"}, "j: expected a variable of the state, one of v, i"),
    "an unknown start": ({"rest": {"v": "v_0"}}, "rest: expected one of tau_mem_inv, v_leak, v_th, got v_0"),
}


def step_of(v=None, output="spike(v, v_th)", more=""):
    """Return a step that is right but for what it returns as its voltage or its output."""
    code = f"def step(v, i, a, v_leak, v_th, spike{more}): return {output}, {v or 'v + a * (v_leak - v)'}, i - v"
    space: dict[str, Any] = {}
    exec(code, space)
    return {"step": space["step"]}


def of_rate(function):
    """Return constants of which one is a function of the share of the way that a membrane goes."""
    return {"constants": lambda dt, tau_mem_inv: {"a": function(dt * tau_mem_inv)}}


WRONG |= {
    "a spike of one argument": (step_of(output="spike(v) + v_th"), "step: spike() missing 1 required positional"),
    "the spike itself": (step_of(v="v + a * v_leak * spike"), "got the function spike itself"),
    "a bit turned": (step_of(v="~v + a * v_leak"), "got ~"),
    "a text": (step_of(v="f'{v}' + a * v_leak"), "got a text"),
    "a truth value": (step_of(v="v + a * v_leak * True"), "got bool True"),
    "a complex number": (step_of(v="v + a * v_leak * 1j"), "got complex 1j"),
    "an infinite number": (step_of(v="v + a * v_leak * 1e400"), "got a number that is not finite"),
    "a number too large": (step_of(v="v + a * v_leak * 10**400"), "got a number that is not finite"),
    "a division by zero": (step_of(v="v / 0 + a * v_leak"), "got a division by 0"),
    "nothing in place of a state": (step_of(v="None"), "got NoneType None"),
    "a function within": (step_of(v="(lambda y: y)(v) + a * v_leak"), "got a function within"),
    "a choice by a voltage": (
        step_of(v="where(v, a, i) + v_leak", more=", where"),
        "got where of something that is no spike",
    ),
    "a state of parameters alone": (step_of(v="a * v_leak"), "step: expected v to depend on the state or x"),
    "a variable that is no name": ({"state": ("v", "i j")}, "'i j': expected a name that Python takes"),
    "a variable that is a word of Python": ({"state": ("v", "lambda")}, "'lambda': expected a name that Python takes"),
    "a number for a variable": ({"state": ("v", 3)}, "3: expected a name that Python takes"),
    "a time that is no name": ({"tau_mem_inv": sp.rate(1.0, time="tau mem")}, "'tau mem': expected a name"),
    "a start that is no dictionary": ({"rest": ["v"]}, "rest: expected a dictionary, got list"),
    "a negative rate by default": ({"tau_mem_inv": sp.rate(-1.0)}, "tau_mem_inv: expected positive values, got -1 1/s"),
    "a default that is no number": ({"v_th": sp.voltage(math.nan)}, "v_th: expected finite values, got nan by default"),
    "a default out of range": ({"v_th": sp.voltage(1.0, low=2.0)}, "v_th: expected values above 2, got 1 by default"),
    "a bound that is no number": ({"v_th": sp.voltage(1.0, low="0")}, "v_th: expected numbers as default and bounds"),
    "an unknown constraint": (
        {"v_th": sp.voltage(1.0, constraint="exp")},
        "v_th: expected a constraint of log, softplus, none by default, got 'exp'",
    ),
    "a constraint of time constants": ({"v_th": sp.voltage(1.0, constraint="decay")}, "none by default, got 'decay'"),
    "a constraint that refuses the default": (
        {"v_th": sp.voltage(-1.0, constraint="log")},
        "v_th: expected a default that is not negative for 'log', got -1",
    ),
    "constants that fail": (of_rate(lambda x: x.foo()), "constants: expected values for any parameters, got Attribute"),
    "constants of one number": (of_rate(math.exp), "constants: expected values for any parameters, got ValueError"),
    "a constant of the first neuron": (of_rate(lambda x: x[0].item()), "a of a neuron to depend on its own parameters"),
    "a constant without gradient": (of_rate(torch.Tensor.detach), "constants: expected some that depend on tau_mem"),
    "a list of constants": ({"constants": lambda dt, tau_mem_inv: [dt]}, "constants: expected a dictionary, got list"),
    "constants of nothing": (
        {"constants": lambda: {}},
        "constants: expected dt and then some of tau_mem_inv, v_leak, v_th, got nothing",
    ),
    "a constant that is a text": (of_rate(str), "constants: expected a to be a tensor or a number, got str"),
    "a constant of another type": (of_rate(torch.Tensor.float), "expected a to have the type of the parameters"),
    "a constant that is not finite": (of_rate(lambda x: torch.log(-x)), "expected a to be finite where parameters"),
    "a number that is not finite": (of_rate(lambda x: math.inf), "expected a to be finite where parameters have"),
    "a constant that is drawn": (of_rate(lambda x: x * torch.rand(len(x))), "a of a neuron to depend on its own"),
    "a constant of all neurons": (of_rate(lambda x: x.cumsum(0)), "a of a neuron to depend on its own parameters"),
    "a constant of another neuron": (of_rate(lambda x: x.flip(0)), "a of a neuron to depend on its own parameters"),
    "the mean of all neurons": (of_rate(lambda x: x.mean().expand(3)), "a of a neuron to depend on its own parameters"),
}


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad:UserWarning")  # PyTorch's, of math.exp
@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_definition_is_refused_by_name(changes, message):
    with pytest.raises(TypeError, match=re.escape(message)) as caught:
        define(**changes)
    assert str(caught.value).startswith("Mine: ")


@pytest.mark.parametrize(
    ("bases", "changes", "message"),
    [
        ((sp.LIFParameters,), {"extra": sp.voltage(1.0)}, "step: expected what it returns to depend on extra"),
        (
            (sp.LIFParameters,),
            {"v_th": 0.5},
            "v_th: expected rate(default) or voltage(default) of a parameter, got 0.5",
        ),
        ((sp.LIFParameters,), {"v_reset": None}, "v_reset: expected rate(default) or voltage(default) of a parameter"),
        ((sp.LIFParameters,), {"state": ("v", "i", "c")}, "step: expected it to return the output and then v, i, c"),
        ((sp.LIFParameters,), {"rest": {"v": "v_0"}}, "rest: expected one of tau_syn_inv, tau_mem_inv, v_leak, v_th,"),
        ((sp.LIFParameters,), {"receives": "v_th"}, "v_th: expected a variable of the state, one of v, i"),
        ((sp.LIFParameters,), {"q": sp.rate(1.0, time="tau_mem")}, "tau_mem: expected a name of its own"),
        (
            (sp.LIFParameters,),
            {"tau_mem_inv": sp.rate(1.0, time="tau")},
            "tau_mem_inv: expected a rate of the time constant tau_mem, which it has in LIFParameters, got one of tau",
        ),
        ((sp.LIFParameters,), {"tau_mem_inv": sp.voltage(1.0)}, "which it has in LIFParameters, got a voltage"),
        (
            (sp.neurons.AdaptiveLIF, sp.neurons.SlopeLIF),
            {},
            "expected one neuron that it is made of, got AdaptiveLIF, Sl",
        ),
    ],
)
def test_a_neuron_made_of_another_is_refused_by_name_as_well(bases, changes, message):
    with pytest.raises(TypeError, match=re.escape(message)) as caught:
        type("Mine", bases, changes)
    assert str(caught.value).startswith("Mine: ")


def test_states_of_other_fields_and_a_neuron_that_is_none_are_refused():
    for state in (tuple, type("S", (tuple,), {"_fields": ("v",)})):
        with pytest.raises(TypeError, match=r"Mine.State: expected the fields \('v', 'i'\), got "):
            type("Mine", (sp.LIFParameters,), {"State": state})
    with pytest.raises(TypeError, match="Neuron: expected an object of a class of neurons"):
        sp.Neuron()


class Holding(sp.Neuron):
    """Some of what it returns is there already."""

    state = ("v", "kept", "last", "reset_by")
    v_th = sp.voltage(0.5)

    def step(x, v, kept, last, reset_by, v_th, spike, reset):
        z = spike(v + x, v_th)
        return z, v + x + 0 * last + 0 * reset_by, kept, z, reset(z)


@pytest.mark.parametrize("detach_reset", [False, True])
def test_what_a_step_returns_are_tensors_of_their_own(detach_reset):
    cell = sp.Cell(Holding(), detach_reset=detach_reset)
    first = Holding.State(*torch.rand(4, 2, 3))
    out, state = cell(torch.rand(2, 3), first)
    assert torch.equal(state.kept, first.kept)
    assert torch.equal(state.last, out)
    assert torch.equal(state.reset_by, out)
    tensors = [out, *state, *first]
    assert len({tensor.data_ptr() for tensor in tensors}) == len(tensors)


class Counting(sp.Neuron):
    """Where it spikes it adds a number to what it has counted."""

    state = ("v", "n")
    v_th = sp.voltage(0.5)

    def step(x, v, n, v_th, spike, where):
        z = spike(v + x, v_th)
        return z, where(z, 0, v + x), n + where(z, 2, -1)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_where_chooses_between_numbers(dtype):
    x = torch.rand(STEPS, ROWS, NEURONS, dtype=dtype)
    out, state = sp.Layer(Counting(), dtype=dtype)(x)
    count = out.sum(0)
    assert count.min() > 0
    assert count.max() < STEPS
    assert torch.equal(state.n, 2 * count - (STEPS - count))
    assert {t.dtype for t in (out, *state)} == {dtype}


NOTEBOOK = """
import snnparams as sp

class Integrator(sp.Neuron):
    state = ("v",)
    v_th = sp.voltage(1.0)

    def step(x, v, v_th, spike, reset):
        z = spike(v + x, v_th)
        return z, v + x - reset(z) * v_th

layer = sp.RecurrentLayer(4, 3, Integrator(v_th=sp.Learned(0.8)))
"""


def test_a_neuron_of_a_notebook_has_no_file():
    cell: dict[str, Any] = {"__name__": "__main__"}
    exec(NOTEBOOK, cell)
    x = (torch.rand(STEPS, ROWS, INPUTS) < 0.7).float()
    out, state = cell["layer"](x)
    out.sum().backward()
    assert isinstance(state, cell["Integrator"].RecurrentState)
    assert 0 < out.sum() < out.numel()
    assert all(p.grad.any() for p in cell["layer"].parameters())
    assert "v_th=3 values, median 0.8, 0.8 to 0.8 (learned)" in repr(cell["layer"])


def test_a_parameter_does_not_hide_what_a_module_has():
    def named(name):
        space: dict[str, Any] = {}
        exec(f"def step(x, v, {name}): return v - x, x * {name}", space)
        return type("Hiding", (sp.Neuron,), {"state": ("v",), name: sp.voltage(1.0), "step": space["step"]})

    layer = sp.Layer(sp.LIFParameters(tau_mem=sp.Learned(0.02)), size=2)
    of_the_module = {*dir(layer.p), *vars(layer.p), "parametrizations"} - {
        *layer.p.neuron_fields,
        *layer.p.neuron.times,
    }
    of_the_module = {name for name in of_the_module if name[0] != "_"}
    assert {"raw", "share", "values", "neuron", "size", "train", "parameters"} <= of_the_module
    for name in of_the_module:
        with pytest.raises(TypeError, match=f"Hiding: {name}: expected a name of its own, got one that something else"):
            named(name)
    with pytest.raises(TypeError, match="Mine: share: expected a name of its own"):
        define(tau_mem_inv=sp.rate(100.0, time="share"))
    for name in ("low", "high"):  # those of delays alone
        assert sp.Layer(named(name)(**{name: sp.Learned(0.5, "log")}), size=2)(torch.ones(3, 1, 2))[0].any()
    space: dict[str, Any] = {}
    exec("def step(v, share, x, v_th): return v - v_th, v + x, share + v", space)
    of_state = type("Mine", (sp.Neuron,), {"state": ("v", "share"), "v_th": sp.voltage(1.0), "step": space["step"]})
    assert of_state.State._fields == ("v", "share")  # a variable of the state is no attribute


def test_a_reset_that_is_not_there_is_not_detached():
    for build in (sp.Layer, sp.Cell):
        with pytest.raises(ValueError, match="detach_reset=True: expected a neuron with a reset, got LIParameters"):
            build(sp.LIParameters(), detach_reset=True)


def test_layers_of_any_neuron_are_those_of_lif():
    """With the adjoint method, too, and by the same kernels."""
    torch.manual_seed(1)
    x = 4 * torch.rand(STEPS, ROWS, NEURONS, dtype=F64)
    for how in ({"method": "adjoint"}, {"method": "tanh", "alpha": 1.0}):
        p = sp.LIFParameters(tau_mem=0.01, **how)
        for ours, theirs in ((sp.Layer, sp.LIF), (sp.Cell, sp.LIFCell)):
            given = x if ours is sp.Layer else x[0]
            (out, state), (expected, last) = ours(p, dtype=F64)(given), theirs(p, dtype=F64)(given)
            assert torch.equal(out, expected)
            assert type(state) is type(last)
            assert torch.equal(state.v, last.v)


def test_what_a_definition_takes_without_complaint():
    mine = define()
    assert issubclass(mine, sp.Neuron)
    assert mine.times == {"tau_mem": "tau_mem_inv"}
    assert sp.Layer(mine(tau_mem=0.02), size=2)(torch.ones(3, 1, 2))[0].shape == (3, 1, 2)
    with pytest.raises(TypeError, match="p: expected LIFParameters, got Mine"):
        sp.LIF(mine())
    with pytest.raises(TypeError, match="p: expected the parameters of a neuron, got type"):
        sp.Layer(mine)
    assert isinstance(sp.Layer(mine(v_th=nn.Parameter(torch.ones(2)))).p.v_th, nn.Parameter)
