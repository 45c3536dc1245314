"""What delays remember and keep for the backward pass: what their docstrings say, counted."""

import json
import sys

import pytest
import torch
from notebooks import ROOT

import snnparams as sp

sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
import delays
from kept import kept

BATCH, INPUTS, OUTPUTS, FLOAT = 6, 14, 20, 4  # and bytes of a number
MEASURED = json.loads((ROOT / "book" / "results" / "delays.json").read_text())


def inputs(steps):
    return torch.rand(steps, BATCH, INPUTS)


def axonal(longest):
    return sp.Delay(sp.Learned(9e-3 * torch.rand(INPUTS)), max_delay=longest)


def synaptic(longest):
    return sp.DelayedLinear(INPUTS, OUTPUTS, sp.Learned(5e-3), max_delay=longest)


def test_axonal_delays_keep_a_number_of_each_input_and_step_however_long_they_are():
    found = {longest: [kept(axonal(longest), inputs(steps)) for steps in (100, 300)] for longest in (10e-3, 40e-3)}
    short, long = found[10e-3]
    assert long - short == 200 * BATCH * INPUTS * FLOAT
    assert short < 1.01 * 100 * BATCH * INPUTS * FLOAT
    assert found[40e-3] == found[10e-3]


def test_synaptic_delays_keep_their_kernel():
    short, later, longer = (kept(synaptic(d), inputs(t)) for d, t in ((10e-3, 100), (10e-3, 300), (40e-3, 100)))
    assert later - short == 200 * BATCH * INPUTS * FLOAT
    assert longer - short == 30 * (OUTPUTS + BATCH) * INPUTS * FLOAT  # the kernel, and the steps that came before


def test_recurrent_delays_keep_what_is_remembered_for_every_part():
    def layer(longest):
        return sp.DelayedRecurrentLayer(INPUTS, OUTPUTS, sp.LIFParameters(), delay=sp.Learned(5e-3), max_delay=longest)

    short, longer = (kept(layer(longest), inputs(100)) for longest in (10e-3, 40e-3))
    parts = 100 // 5 - 1  # of five steps; before the first one is nothing
    assert longer - short == 30 * parts * BATCH * OUTPUTS * FLOAT


@pytest.mark.parametrize("longest", [1e-3, 7.5e-3, 40e-3])
def test_states_have_a_step_more_than_the_longest_delay(longest):
    remembered = {1e-3: 2, 7.5e-3: 9, 40e-3: 41}[longest]
    x = inputs(3)
    assert sp.Delay(longest)(x)[1].x.shape == (BATCH, remembered, INPUTS)
    assert sp.DelayedLinear(INPUTS, OUTPUTS, longest)(x)[1].x.shape == (BATCH, remembered, INPUTS)
    late = sp.DelayedRecurrentLayer(INPUTS, OUTPUTS, sp.LIFParameters(), delay=longest)
    assert late(x)[1].z.shape == (BATCH, remembered, OUTPUTS)


def test_sparse_spikes_become_at_most_twice_as_many():
    x = (inputs(100) < 0.05).float()
    late, _ = sp.Delay(9e-3 * torch.rand(INPUTS))(x.to_sparse())
    assert late._values().numel() <= 2 * x.sum()


@pytest.mark.parametrize("longest", [10, 40])
def test_a_kernel_of_gaussians_keeps_more(longest):
    modules = delays.contestants(INPUTS, OUTPUTS, longest)
    found = {name: kept(module, inputs(100)) for name, module in modules.items()}
    assert found["synaptic"] < found["Gaussian kernel"]


def test_the_stored_measurement_says_so_too():
    assert MEASURED["command"] == "python tests/benchmarks/delays.py"
    steps, batch, features, _ = MEASURED["sizes"]
    for longest, found in MEASURED["kept_mb"].items():
        assert found["synaptic"] < found["Gaussian kernel"], longest
        assert found["axonal"] == pytest.approx(2 * steps * batch * features * FLOAT / 1e6, rel=0.01)  # and the product
        times = {name: results["median_ms"] for name, results in MEASURED["longest delay (steps)"][longest].items()}
        assert min(times, key=times.get) == "axonal", longest
    assert min(found, key=found.get) == "axonal"  # at 100 steps
