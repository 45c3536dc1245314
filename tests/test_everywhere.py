"""What research needs besides layers works in an ensemble, compiled, under autocast, or says by name that it does not.

One row for each public name: a network that uses it. A new name of these modules has to have its row, or a reason.
"""

import ast
import inspect

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

import snnparams as sp
from snnparams.data import spike_trains
from snnparams.layers import initialisation, sequences, sequential, states
from snnparams.neurons import slope_lif
from snnparams.training import recording

MODULES = (sequential, sequences, states, recording, spike_trains, initialisation, slope_lif)
LENGTHS = [7, 4, 1, 9, 9]
ENDED = torch.tensor([True, False, True, False, False])


class Network(nn.Module):
    """A linear map, and what is done with what it gives."""

    def __init__(self, use, populations=None):
        super().__init__()
        self.linear, self.use = nn.Linear(4, 4), use
        self.network = sp.Sequential(nn.Linear(4, 3), sp.LIF(sp.LIFParameters(v_th=0.2)), sp.LI())
        if populations is not None:
            self.network = populations()

    def forward(self, x):
        return self.use(self, self.linear(x))


def state_of(self, x):
    return self.network(x)[1]


def recorded(self, x):
    with sp.record(self.network) as found:
        self.network(x)
    return found["1"].trace.v, found["1"].output, found["1"].state


def slopes():
    p = sp.neurons.SlopeLIF(slope=sp.Learned(sp.distributions.log_uniform(low=0.5, high=2.0)), v_th=0.2)
    return sp.Sequential(nn.Linear(4, 3), sp.Layer(p, size=3), sp.LI())


ROWS = {
    "Sequential": lambda: Network(lambda self, x: self.network(x, lengths=LENGTHS)),
    "OverTime": lambda: Network(
        lambda self, x: self.network(x, LENGTHS),
        lambda: sp.OverTime(nn.Linear(4, 3), nn.BatchNorm1d(3, momentum=0.5)),
    ),
    "last": lambda: Network(lambda self, x: sequences.last(x, LENGTHS)),
    "mean": lambda: Network(lambda self, x: sequences.mean(x, LENGTHS)),
    "maximum": lambda: Network(lambda self, x: sequences.maximum(x, LENGTHS)),
    "without_padding": lambda: Network(lambda self, x: sequences.without_padding(x, LENGTHS)),
    "valid": lambda: Network(lambda self, x: sequences.valid(LENGTHS, len(x))[..., None] * x),
    "initial": lambda: Network(lambda self, x: self.network(x, states.initial(self.network, x))),
    "detach": lambda: Network(lambda self, x: self.network(x, states.detach(state_of(self, x)))),
    "tensors": lambda: Network(lambda self, x: states.tensors(state_of(self, x))),
    "of_tensors": lambda: Network(
        lambda self, x: states.of_tensors(states.initial(self.network, x), states.tensors(state_of(self, x))),
    ),
    "to": lambda: Network(lambda self, x: states.to(state_of(self, x), dtype=torch.float64)),
    "select": lambda: Network(lambda self, x: states.select(state_of(self, x), [3, 0])),
    "where": lambda: Network(
        lambda self, x: states.where(ENDED, states.initial(self.network, x), state_of(self, x)),
    ),
    "record": lambda: Network(recorded),
    "poisson_encode": lambda: Network(lambda self, x: sp.poisson_encode(x.sigmoid().round(), 3, f_max=1000.0)),
    "PoissonEncoder": lambda: Network(
        lambda self, x: self.network(x.sigmoid().round()), lambda: sp.PoissonEncoder(3, 1000.0)
    ),
    "spike_latency_lif_encode": lambda: Network(lambda self, x: sp.spike_latency_lif_encode(4 * x, 30)),
    "SpikeLatencyLIFEncoder": lambda: Network(
        lambda self, x: self.network(4 * x), lambda: sp.SpikeLatencyLIFEncoder(30)
    ),
    "SlopeLIF": lambda: Network(lambda self, x: self.network(x, lengths=LENGTHS), slopes),
}
ELSEWHERE = {
    "carries_state": "looks at a module, not at tensors",
    "check_lengths": "part of all that take lengths",
    "refuse_packed": "part of all that take lengths",
    "over_lengths": "what layers call",
    "Recorded": "what record gives",
    "voltage_variance": "arithmetic",
    "fluctuation_driven_": "draws weights, before there is an ensemble or a graph",
    "reach_rate_": "scales weights, before there is an ensemble or a graph",
    "RateError": "an error",
}
CHANCE = ("poisson_encode", "PoissonEncoder")  # of which an ensemble asks how it is to be drawn
BREAKS = ("record",)  # compiles in more than one graph, because of its hooks
rows = pytest.mark.parametrize("name", ROWS)


def model(name, seed=0):
    torch.manual_seed(seed)
    return ROWS[name]()


def spikes():
    return (torch.rand(9, 5, 4, generator=torch.Generator().manual_seed(3)) < 0.5).float()


def test_every_public_name_has_its_row_or_a_reason():
    nodes = [node for module in MODULES for node in ast.parse(inspect.getsource(module)).body]
    names = {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")}
    assert names == set(ROWS) | set(ELSEWHERE)
    assert not set(ROWS) & set(ELSEWHERE)


@rows
def test_in_an_ensemble(name):
    members, x = [model(name, seed) for seed in range(2)], spikes()
    ensemble = sp.Ensemble(members)
    if name in CHANCE:
        with pytest.raises(RuntimeError, match="expected a forward pass that draws no random numbers"):
            ensemble(x)
        drawn = sp.Ensemble(members, randomness="different")(x)
        assert not torch.equal(drawn[0], drawn[1])
        return
    out = ensemble(x)
    for k, member in enumerate(members):
        torch.testing.assert_close(tree_map(lambda s, k=k: s[k], out), member(x), rtol=1e-4, atol=1e-5)


@rows
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiled(name):
    module, again, x = model(name), model(name), spikes()
    torch._dynamo.reset()
    compiled = torch.compile(module, backend="eager", fullgraph=name not in BREAKS)
    torch.manual_seed(4)
    out = compiled(x)
    torch.manual_seed(4)
    torch.testing.assert_close(out, again(x), rtol=1e-5, atol=1e-6)


@rows
def test_under_autocast(name):
    module, again, x = model(name), model(name), (spikes() * 8).round() / 8
    for either in (module, again):  # numbers that both types hold, so that no spike differs
        with torch.no_grad():
            for parameter in either.parameters():
                if parameter.dim() == 2:
                    parameter.copy_((parameter * 8).round() / 8)
                elif parameter.dim() == 1 and parameter is either.linear.bias:
                    parameter.zero_()
    torch.manual_seed(4)
    with torch.autocast("cpu", torch.bfloat16):
        out = module(x)
    torch.manual_seed(4)
    expected = again(x)
    for found, wanted in zip(tree_leaves(out), tree_leaves(expected), strict=True):
        assert found.shape == wanted.shape
        assert found.isfinite().all()
        torch.testing.assert_close(found.to(wanted.dtype), wanted, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("use", [sequences.last, sequences.mean, sequences.maximum, sequences.without_padding])
def test_gradients_of_what_is_read_from_sequences_are_those_of_finite_differences(use):
    x = torch.rand(9, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: use(x, LENGTHS), x)


def test_gradients_over_time_are_those_of_finite_differences():
    torch.manual_seed(0)
    module = sp.OverTime(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Tanh()).double()
    x = torch.rand(9, 5, 3, dtype=torch.float64, requires_grad=True)
    for lengths in (None, LENGTHS):
        assert torch.autograd.gradcheck(lambda x, lengths=lengths: module(x, lengths), x)
