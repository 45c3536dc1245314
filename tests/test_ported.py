"""The neurons of snnTorch and SpikingJelly that the guide writes out spike as the originals do."""

import re

import pytest
import torch
from notebooks import ROOT
from torch import nn

import snnparams as sp


@pytest.fixture(scope="module")
def ported():
    """Return the classes of the guide by name."""
    text = (ROOT / "book" / "using.md").read_text()
    (recipe,) = (code for code in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S) if "class Leaky" in code)
    classes, _, _ = recipe.partition("\n\n\nbeta = ")
    scope = {"sp": sp, "__name__": "ported"}
    exec(compile(classes, "using.md", "exec"), scope)
    return scope


def inputs():
    torch.manual_seed(0)
    return 0.7 * torch.rand(60, 5, 12), nn.Linear(12, 20)


def test_leaky_of_snntorch(ported):
    snntorch = pytest.importorskip("snntorch")
    x, linear = inputs()
    beta = 0.75 + 0.2 * torch.rand(20)
    theirs, mem, spikes, membranes = snntorch.Leaky(beta=beta, threshold=0.4), torch.zeros(5, 20), [], []
    for step in x:
        spike, mem = theirs(linear(step), mem)
        spikes.append(spike)
        membranes.append(mem)
    layer = sp.Layer(ported["Leaky"](tau_mem=1e-3 / (1 - beta), v_th=0.4), size=20)
    found, state = layer(linear(x))
    expected = torch.stack(spikes)
    assert 0.05 < expected.mean() < 0.9
    assert (found != expected).float().mean() < 1e-3  # rounding at the threshold
    rows = (found == expected).all(0)
    assert rows.float().mean() > 0.95
    torch.testing.assert_close(state.v[rows], membranes[-1][rows], rtol=1e-4, atol=1e-5)


def test_lif_node_of_spikingjelly(ported):
    activation_based = pytest.importorskip("spikingjelly.activation_based")
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    assert activation_based
    x, linear = inputs()
    theirs = neuron.LIFNode(tau=5.0, v_threshold=0.2, step_mode="m")
    expected = theirs(2 * linear(x))
    layer = sp.Layer(ported["LIFNode"](tau_mem=5e-3, v_th=0.2), size=20)
    found, state = layer(2 * linear(x))
    assert 0.05 < expected.mean() < 0.9
    assert (found != expected).float().mean() < 1e-3  # rounding at the threshold
    rows = (found == expected).all(0)
    assert rows.float().mean() > 0.95
    torch.testing.assert_close(state.v[rows], theirs.v[rows], rtol=1e-4, atol=1e-5)
