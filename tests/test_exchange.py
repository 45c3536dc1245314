"""Networks that go out to NIR and come back, into Norse, and in from Norse."""

import re
import sys
import warnings

import nir
import numpy as np
import pytest
import torch
from peers import norse
from torch import nn

import snnparams as sp

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from norse.torch.functional.lif import LIFParameters as NorseLIF
    from norse.torch.utils import import_nir

INPUTS, HIDDEN, OUTPUTS = 5, 8, 3


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def taus():
    return sp.Learned(sp.distributions.log_normal(median=12e-3, variation=0.4))


def network(dtype=torch.float64):
    """Return a network of all that NIR has, with a learned time constant for each neuron."""
    voltages = {"v_leak": 0.1 * torch.randn(HIDDEN), "v_reset": 0.1 * torch.randn(HIDDEN)}
    first = sp.LIFParameters(tau_mem=taus(), tau_syn=taus(), v_th=torch.rand(HIDDEN) + 0.3, **voltages)
    how = {"dtype": dtype}
    late = 1e-3 + 5e-3 * torch.rand(HIDDEN)
    parts = [
        sp.Delay(9e-3 * torch.rand(INPUTS), dtype=dtype),
        sp.LIFRecurrent(INPUTS, HIDDEN, first, **how),
        nn.Linear(HIDDEN, HIDDEN, dtype=dtype),
        sp.LIF(sp.LIFParameters(tau_mem=taus(), v_th=0.2), size=HIDDEN, **how),
        sp.DelayedRecurrentLayer(
            HIDDEN,
            HIDDEN,
            sp.LIFParameters(tau_syn=taus(), v_th=0.5),
            delay=late,
            **how,
        ),
        nn.Linear(HIDDEN, OUTPUTS, bias=False, dtype=dtype),
        sp.LI(sp.LIParameters(tau_mem=taus()), size=OUTPUTS, **how),
    ]
    return sp.Sequential(*parts)


def spikes(steps=40, batch=10, dtype=torch.float64):
    return (torch.rand(steps, batch, INPUTS) < 0.3).to(dtype)


def hidden(model, x):
    """Return the outputs of all modules, spikes and voltages."""
    outputs = []
    for module in model:
        x = module(x)
        x = x[0] if isinstance(x, tuple) else x
        outputs.append(x)
    return outputs


# ------------------------------------------------------------------------------------------------ out and back again


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("by_file", [False, True])
def test_a_network_comes_back_the_same(dtype, by_file, tmp_path):
    model = network(dtype)
    graph = sp.to_nir(model)
    if by_file:
        nir.write(tmp_path / "network.nir", graph)
        graph = tmp_path / "network.nir"
    again = sp.from_nir(graph)
    assert [type(module) for module in again] == [type(module) for module in model]
    for ours, theirs in zip(model, again, strict=True):
        for path, parameters in theirs.named_modules():
            if isinstance(parameters, sp.NeuronParameters):
                for name in parameters.neuron_fields:
                    value = getattr(ours.get_submodule(path), name)
                    assert torch.equal(getattr(parameters, name), value.expand(getattr(parameters, name).shape)), name
        for name, weights in theirs.named_parameters():
            assert torch.equal(weights, ours.get_parameter(name)), name
    with torch.no_grad():
        for _ in range(10):
            x = spikes(batch=100, dtype=dtype)
            found = hidden(model, x), hidden(again, x)
            for a, b in zip(*found, strict=True):
                assert torch.equal(a, b)
    assert all(0.02 < z.mean() < 0.9 for z in (found[0][1], found[0][3], found[0][4]))


def test_resistances_of_other_simulators():
    """Every current arrives with the same strength: the product of weight, resistance and step over tau_mem."""
    model = network()
    plain, other = sp.to_nir(model), sp.to_nir(model, resistance="tau_mem / dt")
    for name, node in plain.nodes.items():
        if isinstance(node, (nir.CubaLIF, nir.CubaLI)):
            there = other.nodes[name]
            np.testing.assert_allclose(there.r, node.tau_mem / 1e-3)
            sources = [a for a, b in plain.edges if b == name]
            assert sources
            for source in sources:
                ours, theirs = (graph.nodes[source].weight for graph in (plain, other))
                np.testing.assert_allclose(theirs * there.r[:, None], ours)
    again, x = sp.from_nir(other), spikes(batch=50)
    with torch.no_grad():
        for a, b in zip(hidden(model, x), hidden(again, x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    alone = sp.LIF(sp.LIFParameters(tau_mem=taus(), v_th=0.3), size=INPUTS).double()
    again = sp.from_nir(sp.to_nir(alone, resistance="tau_mem / dt"))
    torch.testing.assert_close(hidden(again, 3 * x)[-1], alone(3 * x)[0])
    with pytest.raises(ValueError, match="resistance: expected one of '1', 'tau_mem / dt', got 2"):
        sp.to_nir(alone, resistance=2)


def test_learned_values_come_back_learned():
    model = network()
    again = sp.from_nir(sp.to_nir(model), learned=("tau_mem", "delay"), gradient=sp.Surrogate("tanh", 4.0))
    values, before = sp.learned_values(again), sp.learned_values(model)
    assert len(values) == 4 + 2
    torch.testing.assert_close(values["lif_2.p.tau_mem_inv"], before["1.p.tau_mem_inv"])
    torch.testing.assert_close(values["delay_0.p.delay"], model[0].p.delay)
    assert again[1].gradient == sp.Surrogate("tanh", 4.0)
    with pytest.raises(ValueError, match=r"learned: expected names out of .*delay, got 'tau_mem'"):
        sp.from_nir(sp.to_nir(model), learned="tau_mem")


def test_what_is_written():
    p = sp.LIFParameters(tau_mem=20e-3, tau_syn=torch.tensor([5e-3, 10e-3]), v_th=0.5, v_reset=-0.1)
    layer = sp.LIFRecurrent(3, 2, p, dt=2e-3)
    graph = sp.to_nir([sp.Delay(1.5e-3, dt=2e-3, size=3), layer])
    assert list(graph.nodes) == ["input", "delay_0", "linear_1", "lif_2", "recurrent_3", "output"]
    assert set(graph.edges) == {
        ("input", "delay_0"),
        ("delay_0", "linear_1"),
        ("linear_1", "lif_2"),
        ("lif_2", "recurrent_3"),
        ("recurrent_3", "lif_2"),
        ("lif_2", "output"),
    }
    node = graph.nodes["lif_2"]
    np.testing.assert_allclose(node.tau_mem, [20e-3, 20e-3], rtol=1e-6)
    np.testing.assert_allclose(node.tau_syn, [5e-3, 10e-3], rtol=1e-6)
    np.testing.assert_allclose(node.w_in, [2.5, 5.0], rtol=1e-6)
    np.testing.assert_allclose(node.v_threshold, [0.5, 0.5])
    np.testing.assert_allclose(node.v_reset, np.float32([-0.1, -0.1]))
    np.testing.assert_array_equal(node.r, [1, 1])
    np.testing.assert_allclose(graph.nodes["delay_0"].delay, np.float32([1.5e-3] * 3))
    np.testing.assert_array_equal(graph.nodes["recurrent_3"].weight, layer.effective_recurrent_weights().detach())


def cuba(size, **changes):
    """Return a node whose weights, resistances and time constants are anything."""
    rng = np.random.default_rng(0)
    given = {name: rng.uniform(8e-3, 20e-3, size) for name in ("tau_mem", "tau_syn")}
    given |= {"r": rng.uniform(0.5, 2, size), "v_leak": np.zeros(size), "v_threshold": rng.uniform(0.1, 0.3, size)}
    return nir.CubaLIF(**given | {"w_in": rng.uniform(5, 9, size)} | changes)


@pytest.mark.parametrize("recurrent", [False, True])
def test_weights_and_resistances_of_others_become_weights(recurrent):
    """Against the equations of NIR by Euler steps, the current first, as simulators take them."""
    rng, dt = np.random.default_rng(1), 1e-3
    node, w, back = cuba(HIDDEN), rng.normal(0.5, 1, (HIDDEN, INPUTS)), rng.normal(0, 0.5, (HIDDEN, HIDDEN))
    nodes = {"input": nir.Input(np.array([INPUTS])), "weights": nir.Linear(w), "neurons": node}
    nodes["output"] = nir.Output(np.array([HIDDEN]))
    edges = [("input", "weights"), ("weights", "neurons"), ("neurons", "output")]
    if recurrent:
        nodes["back"] = nir.Linear(back)
        edges += [("neurons", "back"), ("back", "neurons")]
    model = sp.from_nir(nir.NIRGraph(nodes, edges), dt=dt)
    x = spikes(80)
    z = hidden(model, x)[-1]
    v, i, before = np.zeros((3, x.shape[1], HIDDEN))
    for t, x_t in enumerate(x.numpy()):
        arrives = x_t @ w.T + (before @ back.T if recurrent else 0)
        i = i + dt / node.tau_syn * (node.w_in * arrives - i)
        v = v + dt / node.tau_mem * (node.v_leak - v + node.r * i)
        before = (v > node.v_threshold).astype(float)
        v = np.where(before > 0, node.v_reset, v)
        np.testing.assert_array_equal(z[t].detach().numpy(), before)
    assert 0.02 < z.mean() < 0.9


def test_graphs_within_graphs_and_other_time_steps():
    model = sp.Sequential(sp.LIFRecurrent(INPUTS, HIDDEN, sp.LIFParameters(tau_mem=taus(), v_th=0.4)).double())
    inner = sp.to_nir(model)
    outer = nir.NIRGraph(
        {"input": nir.Input(np.array([INPUTS])), "inside": inner, "output": nir.Output(np.array([HIDDEN]))},
        [("input", "inside"), ("inside", "output")],
    )
    again, x = sp.from_nir(outer), spikes()
    assert list(dict(again.named_children())) == ["inside_lif_1"]
    assert torch.equal(again(x)[0], model(x)[0])
    half = sp.from_nir(outer, dt=5e-4)
    assert half[0].dt == 5e-4
    # the charge of a spike is that of a step, so half of it
    torch.testing.assert_close(half[0].input_weights, 0.5 * model[0].input_weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_that_somebody_changed_count(dtype):
    graph = sp.to_nir(sp.LIF(sp.LIFParameters(tau_mem=20e-3), size=2, dtype=dtype))
    graph.nodes["lif_0"].tau_mem[1] = 10e-3
    layer = sp.from_nir(graph)[0]
    torch.testing.assert_close(layer.p.tau_mem, torch.tensor([20e-3, 10e-3], dtype=dtype))


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: sp.Layer(sp.neurons.AdaptiveLIF(), size=3), TypeError, "Layer: expected LIF or LI neurons, which NIR"),
        (lambda: [nn.Linear(3, 2), nn.ReLU()], TypeError, "got ReLU, for which NIR has nothing"),
        (lambda: sp.DelayedLinear(3, 2, 1e-3), TypeError, "got DelayedLinear, for which NIR has nothing"),
        (lambda: sp.LIF(), ValueError, "LIF: expected a known number of neurons; build the layer with size"),
        (lambda: sp.LIF(size=(2, 3)), ValueError, "LIF: expected a population with one axis"),
        (lambda: [sp.LIF(size=2), sp.LI(dt=5e-4)], ValueError, "expected one time step, got 0.001 s, 0.0005 s"),
        (lambda: [], ValueError, "model: expected at least one module, got none"),
        (lambda: [3], TypeError, "model: expected a module, or a sequence of modules, got int"),
        (
            lambda: sp.DelayedRecurrentLayer(3, 2, sp.LIFParameters(), delay=2e-3, per_synapse=True),
            TypeError,
            "expected delays of neurons, which NIR has, got one per synapse",
        ),
    ],
)
def test_what_nir_has_not_is_refused_by_name(build, error, message):
    with pytest.raises(error, match=message):
        sp.to_nir(build())


@pytest.mark.parametrize("given", [{"v_th": torch.ones(1)}, {"v_th": torch.ones(1), "v_reset": torch.zeros(5)}])
def test_one_value_in_a_list_is_that_of_all_neurons(given):
    node = sp.to_nir(sp.LIF(sp.LIFParameters(**given), size=5)).nodes["lif_0"]
    assert node.v_threshold.tolist() == [1.0] * 5


def graph_of(nodes, edges):
    whole = {"input": nir.Input(np.array([2])), **nodes, "output": nir.Output(np.array([2]))}
    return nir.NIRGraph(whole, edges)


def test_what_is_not_here_is_refused_by_name():
    two = np.full(2, 1e-2)
    box = nir.LIF(tau=two, r=two, v_leak=two, v_threshold=two)
    with pytest.raises(TypeError, match=r"graph: expected CubaLIF, .* got LIF as node 'box'"):
        sp.from_nir(graph_of({"box": box}, [("input", "box"), ("box", "output")]), dt=1e-3)
    a, b = nir.Linear(np.eye(2)), nir.Linear(np.eye(2))
    branches = [("input", "a"), ("input", "b"), ("a", "output"), ("b", "output")]
    with pytest.raises(ValueError, match="graph: expected one node to follow 'input', got a, b"):
        sp.from_nir(graph_of({"a": a, "b": b}, branches), dt=1e-3)
    loop = [("input", "a"), ("a", "b"), ("b", "a"), ("b", "output")]
    with pytest.raises(ValueError, match="graph: expected one node before 'a', got input, b"):
        sp.from_nir(graph_of({"a": a, "b": b}, loop), dt=1e-3)
    neurons = [("input", "n"), ("n", "n"), ("n", "output")]
    with pytest.raises(ValueError, match="graph: expected one way back, by a Linear and before it at most a Delay"):
        sp.from_nir(graph_of({"n": cuba(2)}, neurons), dt=1e-3)
    with pytest.raises(ValueError, match="dt: expected the time step in s, because the graph says none, got None"):
        sp.from_nir(graph_of({"a": a}, [("input", "a"), ("a", "output")]))
    with pytest.raises(TypeError, match=r"graph: expected a nir.NIRGraph or the name of a file, got Linear"):
        sp.from_nir(a)
    short = cuba(2, tau_mem=np.full(2, 1e-4))
    with pytest.raises(ValueError, match="tau_mem_inv: expected dt"):
        sp.from_nir(graph_of({"n": short}, [("input", "n"), ("n", "output")]), dt=1e-3)


def test_without_the_package_its_name_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "nir", None)
    with pytest.raises(ImportError, match=r"nir: expected the package: pip install 'nir>=1\.0\.8,<2'"):
        sp.to_nir(nn.Linear(2, 3))
    with pytest.raises(ImportError, match="pip install 'nir"):
        sp.from_nir("network.nir")


# --------------------------------------------------------------------------------------------------- into Norse


@pytest.mark.filterwarnings("ignore")  # nirtorch says what is new in it
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("recurrent", [False, True])
def test_norse_fires_the_same_spikes(recurrent, exact, monkeypatch):
    """1,000 random inputs, in float64 if Norse is made not to round, else but for membranes near their threshold."""
    if exact:
        monkeypatch.setattr(import_nir, "_to_tensor", lambda array: torch.from_numpy(np.asarray(array)))
    p = sp.LIFParameters(tau_mem=taus(), tau_syn=taus(), v_th=torch.rand(HIDDEN) + 0.3)
    if recurrent:
        model = sp.Sequential(sp.LIFRecurrent(INPUTS, HIDDEN, p)).double()
    else:
        model = sp.Sequential(nn.Linear(INPUTS, HIDDEN, bias=False), sp.LIF(p, size=HIDDEN)).double()
        with torch.no_grad():
            model[0].weight.mul_(3)
    graph = sp.to_nir(model)
    for node in graph.nodes.values():  # Norse reads weights as they are
        if not exact and isinstance(node, nir.Linear):
            node.weight = node.weight.astype(np.float32)
    theirs = norse.from_nir(graph)
    x = spikes(30, 1000)
    x = x if exact else x.float()
    with torch.no_grad():
        z, _ = model(x.double())
        state, outputs = None, []
        for x_t in x:
            out, state = theirs(x_t, state)
            outputs.append(out)
    found = torch.stack(outputs).double()
    assert 0.02 < z.mean() < 0.9
    if exact:
        assert torch.equal(found, z)
    else:  # one that rounds to the other side goes on otherwise
        assert (found != z).any(dim=(0, 2)).sum() < 10


@pytest.mark.filterwarnings("ignore")  # of the libraries, on import
@pytest.mark.parametrize("library", ["snntorch", "spikingjelly"])
def test_snntorch_and_spikingjelly_fire_the_same_spikes(library):
    """Learned networks, 1,000 inputs, float64, and back. SpikingJelly takes one value for all, snnTorch 0.1 ms."""
    pytest.importorskip(library)
    dt = 1e-4 if library == "snntorch" else 1e-3
    one = library == "spikingjelly"
    start = torch.tensor(12e-3) if one else 8e-3 + 8e-3 * torch.rand(HIDDEN)
    p = sp.LIFParameters(tau_mem=sp.Learned(start, shared=one), tau_syn=5e-3, v_th=50 * dt)
    layer = sp.LIF(p, size=HIDDEN, dt=dt)
    model, x = sp.Sequential(nn.Linear(INPUTS, HIDDEN, bias=False), layer).double(), spikes(60, 1000, torch.float64)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(3):  # what leaves is what was learned
        optimizer.zero_grad()
        (model(x[:, :50])[0].mean() - 0.2).square().backward()
        optimizer.step()
    assert not torch.allclose(layer.p.tau_mem.float(), start, rtol=1e-4)
    graph = sp.to_nir(model, resistance="tau_mem / dt")
    if library == "snntorch":
        from snntorch.export_nir import export_to_nir
        from snntorch.import_nir import import_from_nir

        theirs = import_from_nir(graph).double()
    else:
        from spikingjelly.activation_based.nir_exchange import export_to_nir, import_from_nir

        theirs = import_from_nir(graph, dt=dt).double()
    state, outputs = None, []
    with torch.no_grad():
        for x_t in x:
            out, state = theirs(x_t, state)
            outputs.append(out)
        z, _ = model(x)
    assert 0.02 < z.mean() < 0.9
    assert torch.equal(torch.stack(outputs), z)
    if library == "snntorch":  # which writes values of one shape only, and has read single numbers
        for name in ("alpha", "beta", "threshold"):
            setattr(theirs.lif_1, name, getattr(theirs.lif_1, name).detach().expand(HIDDEN).clone())
        returned = export_to_nir(theirs, x[0, 0])
    else:  # which writes modules, not the graph that it has made of them
        returned = export_to_nir(nn.Sequential(theirs.linear_0, theirs.lif_1.module), x[0, :1], dt=dt)
    with torch.no_grad():
        assert torch.equal(sp.from_nir(returned, dt=dt).double()(x)[0], z)


# --------------------------------------------------------------------------------------------------- from Norse


def norse_parameters(size, **changes):
    given = {"tau_mem_inv": 60 + 60 * torch.rand(size), "tau_syn_inv": 100 + 100 * torch.rand(size)}
    given |= {"v_th": 0.3 + 0.3 * torch.rand(size), "method": "tanh", "alpha": torch.tensor(4.0)}
    return NorseLIF(**given | changes)


def test_modules_of_norse_come_in_with_the_same_spikes_and_gradients():
    theirs = norse.SequentialState(
        nn.Linear(INPUTS, HIDDEN),
        norse.LIF(norse_parameters(HIDDEN)),
        norse.LIFRecurrent(HIDDEN, HIDDEN, norse_parameters(HIDDEN), autapses=True),
        norse.Lift(nn.Linear(HIDDEN, OUTPUTS)),
        norse.LI(),
    )
    with torch.no_grad():
        theirs[0].weight.mul_(4)
    ours = sp.from_norse(theirs)
    kinds = [nn.Linear, sp.LIF, sp.LIFRecurrent, sp.OverTime, sp.LI]
    assert [type(module) for module in ours] == kinds
    x, found = spikes(dtype=torch.float32), []
    for model in (theirs, ours):
        out, _ = model(x)
        out.square().sum().backward()
        found.append([out, *(p.grad for p in model.parameters() if p.grad is not None)])
    assert ours[2].autapses
    assert ours[1].gradient == sp.Surrogate("tanh", 4.0)
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * b.abs().max().item())


@pytest.mark.parametrize("kind", ["LIFCell", "LIFRecurrentCell", "LICell"])
def test_cells_of_norse_come_in(kind):
    sizes = (INPUTS, HIDDEN) if "Recurrent" in kind else ()
    p = [norse_parameters(HIDDEN if sizes else INPUTS)] if kind != "LICell" else []
    theirs = getattr(norse, kind)(*sizes, *p, dt=5e-4)
    ours = sp.from_norse(theirs)
    assert type(ours) is getattr(sp, kind)
    assert ours.dt == 5e-4
    state = own = None
    for x in spikes(dtype=torch.float32):
        out, state = theirs(x, state)
        ours_out, own = ours(x, own)
        torch.testing.assert_close(ours_out, out, rtol=1e-5, atol=1e-5)


def test_what_norse_learns_is_learned():
    tau = nn.Parameter(torch.full((HIDDEN,), 80.0))
    ours = sp.from_norse(norse.LIF(norse_parameters(HIDDEN, tau_mem_inv=tau)))
    assert list(sp.learned_values(ours)) == ["p.tau_mem_inv"]
    assert ours.p.raw("tau_mem_inv") is not tau
    assert torch.equal(ours.p.tau_mem_inv, tau)
    for method, gradient in (("super", sp.Surrogate("super", 1.0)), ("adjoint", sp.Adjoint())):
        assert sp.from_norse(norse.LIF(norse_parameters(HIDDEN, method=method))).gradient == gradient


def test_weights_that_norse_saved():
    theirs = norse.SequentialState(norse.LIFRecurrent(INPUTS, HIDDEN), nn.Linear(HIDDEN, OUTPUTS), norse.LI())
    ours = sp.Sequential(sp.LIFRecurrent(INPUTS, HIDDEN), nn.Linear(HIDDEN, OUTPUTS), sp.LI())
    assert sp.from_norse(theirs.state_dict(), ours) is ours
    assert torch.equal(ours[0].input_weights, theirs[0].input_weights)
    assert torch.equal(ours[1].bias, theirs[1].bias)
    x = spikes(dtype=torch.float32)
    torch.testing.assert_close(ours(x)[0], theirs(x)[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"source: expected 0.input_weights, .* got 0.input_weights"):
        sp.from_norse({"0.input_weights": theirs[0].input_weights}, ours)


def test_what_is_not_here_is_refused_for_norse_too():
    with pytest.raises(TypeError, match=r"LSNN: expected one of LIF, .* got LSNN"):
        sp.from_norse(norse.LSNN())
    with pytest.raises(TypeError, match=r"1: expected one of LIF, .*, got IAFCell"):
        sp.from_norse(norse.SequentialState(nn.Linear(2, 3), norse.IAFCell()))
    with pytest.raises(TypeError, match="source: expected a module of Norse, got Linear"):
        sp.from_norse(nn.Linear(2, 3))
    with pytest.raises(TypeError, match="source: expected a module of Norse, or a state_dict and a model for it"):
        sp.from_norse({})


def test_declarations_of_norse_come_in():
    theirs = norse_parameters(HIDDEN, tau_mem_inv=nn.Parameter(torch.full((HIDDEN,), 80.0)))
    p = sp.from_norse(theirs)
    assert type(p) is sp.LIFParameters
    for name in p.neuron_fields:
        assert torch.equal(getattr(p, name), torch.as_tensor(getattr(theirs, name)))
    layer = sp.LIF(p)
    assert list(sp.learned_values(layer)) == ["p.tau_mem_inv"]
    assert layer.gradient == sp.from_norse(norse.LIF(theirs)).gradient
    assert type(sp.from_norse(norse.LIParameters())) is sp.LIParameters


def test_declarations_of_norse_are_refused_by_their_full_names():
    def full(kind):
        return re.escape(f"{kind.__module__}.{kind.__name__}")

    message = f"p: expected LIFParameters, got {full(norse.LIFParameters)}; snnparams.from_norse converts"
    with pytest.raises(TypeError, match=message):
        sp.LIF(norse.LIFParameters())
    with pytest.raises(TypeError, match=f"p: expected LIParameters, got {full(norse.LIParameters)}"):
        sp.LI(norse.LIParameters())
    with pytest.raises(TypeError, match=f"p: expected LIFParameters, got {full(norse.LSNNParameters)}"):
        sp.LIFRecurrent(3, 4, norse.LSNNParameters())
    with pytest.raises(TypeError, match=f"expected Norse's LIFParameters .* got {full(norse.LSNNParameters)}"):
        sp.from_norse(norse.LSNNParameters())


def test_names_that_only_dots_tell_apart_are_refused():
    weight = np.ones((2, 2))
    nodes = {"a.b": nir.Linear(weight), "n": cuba(2), "a_b": nir.Linear(weight)}
    edges = [("input", "a.b"), ("a.b", "n"), ("n", "a_b"), ("a_b", "output")]
    with pytest.raises(ValueError, match="a_b: expected names of nodes that differ in more than dots"):
        sp.from_nir(graph_of(nodes, edges), dt=1e-3)
