"""What of a network other libraries take from NIR, refuse, or lose without a word: the table in "Using the package"."""

import pytest
import torch
from peers import norse
from torch import nn

import snnparams as sp

INPUTS, HIDDEN = 3, 4
TIME_STEP = {"norse": 1e-3, "snntorch": 1e-4, "spikingjelly": 1e-3}  # s; snnTorch knows no other

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of the libraries, on import
    pytest.mark.usefixtures("double_in_one_thread"),
]


def differing(low, high):
    return low + (high - low) * torch.rand(HIDDEN)


def lif(dt, **changes):
    return sp.LIF(sp.LIFParameters(**{"tau_mem": 12e-3, "v_th": 50 * dt} | changes), size=HIDDEN, dt=dt)


def weights():
    return nn.Linear(INPUTS, HIDDEN, bias=False)


def recurrent(dt):
    return sp.LIFRecurrent(INPUTS, HIDDEN, sp.LIFParameters(v_th=50 * dt), dt=dt)


NETWORKS = {
    "plain": lambda dt: [weights(), lif(dt)],
    "time constants of neurons": lambda dt: [weights(), lif(dt, tau_mem=differing(8e-3, 16e-3))],
    "thresholds of neurons": lambda dt: [weights(), lif(dt, v_th=dt * differing(40.0, 60.0))],
    "leak": lambda dt: [weights(), lif(dt, v_leak=20 * dt)],
    "reset": lambda dt: [weights(), lif(dt, v_reset=-50 * dt)],
    "recurrence": lambda dt: [recurrent(dt)],
    "readout": lambda dt: [weights(), sp.LI(size=HIDDEN, dt=dt)],
    "delay": lambda dt: [sp.Delay(torch.tensor([2e-3, 3e-3, 4e-3]), dt=dt), weights(), lif(dt)],
}
TAKEN, LOST = "the same spikes", "others, without a word"
EXPECTED = {
    "norse": {
        "plain": TAKEN,
        "time constants of neurons": TAKEN,
        "thresholds of neurons": TAKEN,
        "leak": LOST,
        "reset": LOST,
        "recurrence": TAKEN,
        "readout": LOST,
        "delay": LOST,
    },
    "snntorch": {
        "plain": TAKEN,
        "time constants of neurons": TAKEN,
        "thresholds of neurons": "v_thr must be same for all neurons",
        "leak": "v_leak not supported",
        "reset": LOST,
        "recurrence": LOST,
        "readout": "Unknown node type .*CubaLI'",
        "delay": "Unknown node type .*Delay'",
    },
    "spikingjelly": {
        "plain": TAKEN,
        "time constants of neurons": "tau_mem must be uniform",
        "thresholds of neurons": "v_threshold must be uniform",
        "leak": "v_leak must equal 0",
        "reset": LOST,
        "recurrence": TAKEN,
        "readout": "Unknown node type .*CubaLI'",
        "delay": "Unknown node type .*Delay'",
    },
}
CASES = [(library, name) for library, results in EXPECTED.items() for name in results]


def read(library, model):
    """Return what a library makes of a network."""
    if library == "norse":
        return norse.from_nir(sp.to_nir(model)).double()
    graph = sp.to_nir(model, resistance="tau_mem / dt")
    if library == "snntorch":
        from snntorch.import_nir import import_from_nir

        return import_from_nir(graph).double()
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    return import_from_nir(graph, dt=TIME_STEP[library]).double()


@pytest.mark.parametrize(("library", "name"), CASES)
def test_what_becomes_of_a_network(library, name):
    if library != "norse":
        pytest.importorskip(library)
    model, x = sp.Sequential(*NETWORKS[name](TIME_STEP[library])), (torch.rand(60, 30, INPUTS) < 0.3).double()
    with torch.no_grad():
        for module in model:
            if isinstance(module, nn.Linear):
                module.weight.copy_(module.weight.abs())
    outcome = EXPECTED[library][name]
    if outcome not in (TAKEN, LOST):
        with pytest.raises((AssertionError, ValueError), match=outcome):
            read(library, model)
        return
    theirs, state, outputs = read(library, model), None, []
    with torch.no_grad():
        for x_t in x:
            out, state = theirs(x_t, state)
            outputs.append(out)
        expected, _ = model(x)
    assert expected.any()
    same = (torch.stack(outputs) == expected).all(dim=(0, 2)).double().mean()
    assert same == 1 if outcome == TAKEN else same < 0.9
