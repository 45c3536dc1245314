"""Long sequences in chunks: the same numbers as in one piece, for a fraction of the memory, which is counted."""

import re
import subprocess
import sys

import pytest
import torch
from notebooks import ROOT
from torch import nn
from torch.utils._pytree import tree_leaves

import snnparams as sp
from snnparams.neurons import AdaptiveLIF, SEAdLIF

sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
from kept import kept

T, B, N, INPUTS = 60, 3, 5, 4
LEARNED = {"tau_mem": sp.Learned(20e-3), "v_th": sp.Learned(0.3)}
DOUBLE = {"dtype": torch.float64}


def delayed(**how):
    delay = sp.Learned(torch.tensor([2.5e-3, 3e-3, 4.2e-3, 5e-3, 7e-3]))
    return sp.DelayedRecurrentLayer(INPUTS, N, sp.LIFParameters(**LEARNED), delay=delay, max_delay=9e-3, **how)


LAYERS = {
    "LIF": lambda **how: sp.LIF(sp.LIFParameters(**LEARNED), size=N, **how),
    "LI": lambda **how: sp.LI(sp.LIParameters(tau_mem=sp.Learned(20e-3)), size=N, **how),
    "LIFRecurrent": lambda **how: sp.LIFRecurrent(INPUTS, N, sp.LIFParameters(**LEARNED), **how),
    "AdaptiveLIF": lambda **how: sp.Layer(AdaptiveLIF(**LEARNED), size=N, **how),
    "SEAdLIF": lambda **how: sp.RecurrentLayer(INPUTS, N, SEAdLIF(tau_mem=sp.Learned(20e-3), v_th=0.05), **how),
    "adjoint": lambda **how: sp.LIF(sp.LIFParameters(**LEARNED), size=N, gradient=sp.Adjoint(), **how),
    "recurrent adjoint": lambda **how: sp.LIFRecurrent(
        INPUTS, N, sp.LIFParameters(**LEARNED), gradient=sp.Adjoint(), **how
    ),
    "delayed": delayed,
}
RECURRENT = ("LIFRecurrent", "SEAdLIF", "recurrent adjoint", "delayed")


def pair(name, chunk, **how):
    """Return a layer in one piece, and one with the same values in chunks."""
    torch.manual_seed(0)
    whole, parts = (LAYERS[name](chunk=length, **(DOUBLE | how)) for length in (None, chunk))
    parts.load_state_dict(whole.state_dict())
    return whole, parts


def inputs(name, dtype=torch.float64):
    if name in RECURRENT:
        return (torch.rand(T, B, INPUTS) < 0.3).to(dtype)
    return (0.6 * torch.rand(T, B, N)).to(dtype).requires_grad_()


def found(layer, x, state=None, **how):
    """Return outputs, states, and gradients by all that can have one."""
    z, last = layer(x, state, **how)
    after = [leaf for leaf in tree_leaves(last) if leaf.requires_grad]
    weights = torch.linspace(0, 1, z.numel(), dtype=z.dtype).view(z.shape).cos()
    loss = (z * weights).sum() + sum(leaf.square().sum() for leaf in after)
    given = [x, *tree_leaves(state), *layer.parameters()]
    by = [t for t in given if isinstance(t, torch.Tensor) and t.requires_grad]
    return z, tree_leaves(last), torch.autograd.grad(loss, by, allow_unused=True)


def assert_the_same(a, b):
    assert torch.equal(a[0], b[0])
    torch.testing.assert_close(a[1], b[1], rtol=1e-12, atol=1e-13)
    assert [g is None for g in a[2]] == [g is None for g in b[2]]
    for one, other in zip(a[2], b[2], strict=True):
        if one is not None:
            torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-11 * max(1.0, float(one.abs().max())))


@pytest.mark.parametrize("chunk", [1, 7, T - 1, T, T + 9])
@pytest.mark.parametrize("name", LAYERS)
def test_chunks_give_the_numbers_of_the_whole(name, chunk):
    whole, parts = pair(name, chunk)
    x = inputs(name)
    a, b = found(whole, x), found(parts, x)
    assert 0 < a[0].count_nonzero() < a[0].numel() or name == "LI"
    assert_the_same(a, b)
    _, state = whole(x)  # and from a state that itself has a gradient
    states = [torch.utils._pytree.tree_map(lambda t: t.detach().requires_grad_(), state) for _ in range(2)]
    assert_the_same(found(whole, x, states[0]), found(parts, x, states[1]))
    with torch.no_grad():
        assert torch.equal(parts(x)[0], a[0])


@pytest.mark.parametrize("name", RECURRENT)
def test_sparse_input_in_chunks(name):
    whole, parts = pair(name, 7)
    x = inputs(name)
    x[20:40] = 0  # chunks without any spike
    assert_the_same(found(whole, x.to_sparse()), found(parts, x.to_sparse()))
    twice = [torch.cat([t, t], -1) for t in (x.to_sparse().indices(), x.to_sparse().values())]
    twice = torch.sparse_coo_tensor(*twice, x.shape, check_invariants=True)  # not coalesced
    assert_the_same(found(whole, twice), found(parts, twice))


@pytest.mark.parametrize("order", [[0, 2, 1, 3], [3, 2, 1, 0]])
def test_sparse_input_that_is_out_of_order_is_refused_as_without_chunks(order):
    _, parts = pair("LIFRecurrent", 2)
    indices = torch.tensor([[0, 1, 2, 3], [0, 0, 0, 0], [1, 1, 1, 1]])[:, order]
    sizes = (4, 1, INPUTS)
    x = torch.sparse_coo_tensor(indices, torch.ones(4).double(), sizes, check_invariants=False, is_coalesced=True)
    with pytest.raises(ValueError, match=r"expected indices within|out of|order"):
        parts(x)


@pytest.mark.parametrize("name", LAYERS)
def test_lengths_and_inputs_without_a_batch(name):
    whole, parts = pair(name, 7)
    x = inputs(name)
    lengths = [T, 11, 25]
    assert_the_same(found(whole, x, lengths=lengths), found(parts, x, lengths=lengths))
    alone = x.detach()[:, 0]
    assert_the_same(found(whole, alone), found(parts, alone))


@pytest.mark.parametrize("name", ["LIF", "LIFRecurrent", "recurrent adjoint", "delayed"])
def test_autocast(name):
    whole, parts = pair(name, 7, dtype=torch.float32)
    x = inputs(name, torch.float32)

    def loss(layer):
        with torch.autocast("cpu", torch.bfloat16):
            z, last = layer(x.detach().bfloat16())
        assert z.dtype == torch.float32
        return z, last, torch.autograd.grad((z * z.cumsum(0)).sum(), list(layer.parameters()))  # outside of autocast

    (z, _, one), (z_parts, _, other) = loss(whole), loss(parts)
    assert torch.equal(z, z_parts)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-4 * float(a.abs().max()))


# ------------------------------------------------------------------------------------------------------------- memory


def of_float32(recurrent, steps, chunk=None):
    p = sp.LIFParameters(tau_mem=sp.Learned(20e-3), v_th=0.3)
    layer = sp.LIFRecurrent(8, 40, p, chunk=chunk) if recurrent else sp.LIF(p, size=40, chunk=chunk)
    x = torch.rand(steps, 6, 8 if recurrent else 40)
    return layer, x


@pytest.mark.parametrize("recurrent", [False, True])
def test_a_layer_keeps_eight_bytes_of_a_neuron_and_step(recurrent):
    """Voltage and current before each step; neither the currents that come in nor the spikes that go out."""
    short, long = (kept(*of_float32(recurrent, steps)) for steps in (100, 300))
    assert long - short == 8 * 200 * 6 * 40
    assert short < 8 * 100 * 6 * 40 + 4 * 4 * 40 * 40  # and what does not grow with time


@pytest.mark.parametrize("recurrent", [False, True])
def test_with_chunks_it_keeps_the_states_between_them(recurrent):
    """A recurrent layer computes its currents again, so its input alone is kept; that of another layer is its currents.

    The steps of the last chunk are kept as without chunks.
    """
    chunk = 25
    few, many = (kept(*of_float32(recurrent, steps, chunk)) for steps in (100, 300))
    state = 4 * (3 if recurrent else 2) * 6 * 40  # z, v and i, or v and i
    assert many - few <= (200 // chunk) * (state + 64)  # and 64 bytes for each chunk of PyTorch's own
    per_neuron_and_step = (many - few) / (200 * 6 * 40)
    assert per_neuron_and_step < 0.6  # of the 4 that are allowed
    assert few <= 8 * chunk * 6 * 40 + 4 * (state + 64) + 4 * 4 * 40 * 40


def test_a_whole_network_in_chunks_keeps_its_states():
    def network(chunk):
        return sp.Sequential(nn.Linear(8, 40), sp.LIF(size=40), nn.Linear(40, 3), sp.LI(), chunk=chunk)

    def of(chunk, steps):
        return kept(network(chunk), torch.rand(steps, 6, 8))

    whole, parts = (of(chunk, 300) - of(chunk, 100) for chunk in (None, 20))
    assert whole > 12 * 200 * 6 * 40
    assert parts <= 200 // 20 * (2 * 4 * 6 * 43 + 64 + 8000)  # besides the states, of random numbers


PEAK = r"""
import re, sys
from pathlib import Path
import torch
import snnparams as sp

def peak():  # of this process; getrusage would count that of the one that it was forked from
    return int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])

chunk = int(sys.argv[1]) or None
torch.set_num_threads(1)
torch.manual_seed(0)
network = sp.Sequential(sp.LIFRecurrent(20, 128, sp.LIFParameters(tau_mem=sp.Learned(20e-3), v_th=0.3)),
                        torch.nn.Linear(128, 2), sp.LI(), chunk=chunk)
with torch.no_grad():
    network[0].recurrent_weights.mul_(0.1)  # so that no gradient explodes
network(torch.rand(150, 8, 20) < 0.3)[0].sum().backward()  # compiled and loaded
x = torch.rand(10_000, 8, 20) < 0.3
before = peak()
voltages, _ = network(x)
loss = voltages.square().mean()
loss.backward()
assert all(p.grad.isfinite().all() and p.grad.any() for p in network.parameters())
print((peak() - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux says in /proc how much memory was used")
def test_ten_thousand_steps_train_within_a_budget():
    """8 rows of 128 neurons: in one piece 80 MB are kept for the hidden layer alone."""

    def peak(chunk):
        command = [sys.executable, "-c", PEAK, chunk]
        return int(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout)

    assert peak("0") > 100  # MB
    assert peak("100") < 25


# ----------------------------------------------------------------------------------------------------- whole networks


def network(chunk=None, p=0.0):
    torch.manual_seed(0)
    layers = sp.LIFRecurrent(INPUTS, N, sp.LIFParameters(**LEARNED), **DOUBLE), nn.Dropout(p), nn.Linear(N, 2), sp.LI()
    return sp.Sequential(*layers, chunk=chunk).double()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bool])
def test_a_network_in_chunks_gives_the_numbers_of_the_whole(dtype):
    x = inputs("LIFRecurrent").to(dtype)
    assert_the_same(found(network(), x), found(network(7), x))
    _, state = network(7)(x)
    assert_the_same(found(network(), x, sp.states.detach(state)), found(network(7), x, sp.states.detach(state)))


def test_what_dropout_draws_is_drawn_once():
    x, results = inputs("LIFRecurrent"), []
    for chunk in (None, 20):
        torch.manual_seed(1)
        whole, state, parts = network(chunk, 0.5), None, []
        torch.manual_seed(2)
        if chunk is None:
            for part in x.split(20):
                out, state = whole(part, state)
                parts.append(out)
            out = torch.cat(parts)
        else:
            out, _ = whole(x)
        results.append((out, [], torch.autograd.grad(out.square().sum(), list(whole.parameters()))))
    assert_the_same(*results)


def test_recording_a_network_in_chunks():
    x, model = inputs("LIFRecurrent"), network(7)
    with sp.record(model) as recorded:
        out, _ = model(x)
        out.sum().backward()
    assert recorded["0"].trace.v.shape == (T, B, N)
    assert model.chunk == 7
    torch.testing.assert_close(out, network()(x)[0])


# ---------------------------------------------------------------------------------------------------- torch.compile


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LIF", "LIFRecurrent", "recurrent adjoint"])
def test_compiled(name):
    whole, parts = pair(name, 20)
    x = inputs(name).detach()
    torch.compiler.reset()
    compiled = torch.compile(parts, backend="aot_eager")
    z, last = compiled(x)
    a = found(whole, x)
    assert torch.equal(z, a[0])
    torch.testing.assert_close(tree_leaves(last), a[1])
    weights = torch.linspace(0, 1, z.numel(), dtype=z.dtype).view(z.shape).cos()
    loss = (z * weights).sum() + sum(leaf.square().sum() for leaf in tree_leaves(last) if leaf.requires_grad)
    for one, other in zip(a[2], torch.autograd.grad(loss, list(parts.parameters())), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-11 * max(1.0, float(one.abs().max())))


@pytest.mark.slow
def test_compiled_it_keeps_as_little():
    layer, x = of_float32(True, 300, chunk=25)
    torch.compiler.reset()
    compiled = torch.compile(layer, backend="aot_eager")
    assert kept(layer, x, compiled) < 1.5 * kept(layer, x) + 4 * 4 * 40 * 40


# ---------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("chunk", [0, -3, 2.0, True, "10", torch.tensor(3)])
@pytest.mark.parametrize("build", [*LAYERS.values(), lambda **how: sp.Sequential(sp.LI(), **how)])
def test_what_is_no_positive_integer_is_refused(build, chunk):
    with pytest.raises(ValueError, match=re.escape(f"chunk: expected a positive integer, got {chunk!r}")):
        build(chunk=chunk)


def test_it_is_shown_and_may_be_changed():
    layer = sp.LIF(chunk=10)
    assert "chunk=10" in repr(layer)
    assert "chunk" not in repr(sp.LIF())
    layer.chunk = None
    assert layer(torch.rand(30, 2, 3))[0].shape == (30, 2, 3)


def test_a_cell_has_no_chunks():
    with pytest.raises(TypeError, match="chunk"):
        sp.LIFCell(chunk=3)


def test_ensembles_are_refused_where_there_is_a_gradient():
    ensemble = sp.Ensemble([sp.LIFRecurrent(INPUTS, N, chunk=5) for _ in range(2)])
    x = torch.rand(T, B, INPUTS)
    with pytest.raises(RuntimeError, match=r"chunk: expected None within an Ensemble .*; train the members one by one"):
        ensemble(x)
    with torch.no_grad():
        assert ensemble(x)[0].shape == (2, T, B, N)


def test_networks_that_would_give_other_numbers_in_chunks_are_refused():
    x = torch.rand(30, 2, 3, 4, 4)
    normalised = sp.Sequential(nn.BatchNorm2d(3), sp.LIF(), chunk=10)
    with pytest.raises(ValueError, match=r"chunk=10: expected no normalisation .*, got module 0 \(BatchNorm2d\)"):
        normalised(x)
    assert normalised.eval()(x)[0].shape == x.shape
    with pytest.raises(ValueError, match="expected no normalisation"):
        sp.Sequential(nn.BatchNorm2d(3, track_running_stats=False), sp.LIF(), chunk=10).eval()(x)
    assert sp.Sequential(nn.InstanceNorm2d(3), sp.LIF(), chunk=10)(x)[0].shape == x.shape
    with pytest.raises(ValueError, match="lengths: expected None where chunk=10; give chunk to the layers"):
        sp.Sequential(sp.LIF(), chunk=10)(x, lengths=[3, 30])
    with pytest.raises(ValueError, match=r"chunk=10: expected layers, .* got cells"):
        sp.Sequential(sp.LIFCell(), chunk=10)(x[0])
