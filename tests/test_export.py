"""`torch.export`: what is learned runs without this package, in a process of its own that never loads it."""

import os
import sys

import pytest
import torch
from commands import run
from torch import nn

import snnparams as sp

# loaded without snnparams: state and steps are tensors, the loop over time is the caller's
USE = """
import sys, torch
step = torch.export.load(sys.argv[1]).module()
x, *state = torch.load(sys.argv[2])
outputs = []
for x_t in x:
    out, *state = step(x_t, *state)
    outputs.append(out)
torch.save([torch.stack(outputs), *state], sys.argv[3])
assert not [name for name in sys.modules if name.startswith("snnparams")]
"""
BATCH = torch.export.Dim("batch", min=1, max=1024)


class Step(nn.Module):
    """One time step of a network, from tensors to tensors: a state as named tuple would need its class."""

    def __init__(self, hidden, readout):
        super().__init__()
        self.hidden, self.readout, self.out = hidden, readout, sp.LICell()

    def forward(self, x, *states):
        kind = self.hidden.neuron.RecurrentState
        z, state = self.hidden(x, kind(*states[: len(kind._fields)]))
        v, last = self.out(self.readout(z), sp.LIState(*states[len(kind._fields) :]))
        return v, *state, *last


@pytest.mark.parametrize("neuron", [sp.LIFParameters, sp.neurons.AdaptiveLIF])
def test_a_step_runs_in_a_process_without_the_package(neuron, tmp_path):
    p = neuron(tau_mem=sp.Learned(torch.linspace(5e-3, 20e-3, 6)), v_th=0.3)
    model = Step(sp.RecurrentCell(5, 6, p), nn.Linear(6, 3))
    x = (torch.rand(30, 7, 5) < 0.3).float()
    number = len(neuron.RecurrentState._fields)
    states = [torch.zeros(7, 6)] * number + [torch.zeros(7, 3)] * 2
    few = (x[0, :2], *(state[:2] for state in states))  # the batch is another one later
    program = torch.export.export(
        model, few, dynamic_shapes={"x": {0: BATCH}, "states": ({0: BATCH},) * len(states)}, strict=False
    )
    torch.export.save(program, tmp_path / "step.pt2")
    torch.save([x, *states], tmp_path / "input.pt")
    files = [tmp_path / name for name in ("step.pt2", "input.pt", "output.pt")]
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run(sys.executable, "-c", USE, *files, cwd=tmp_path, env=variables)
    found, outputs = torch.load(files[-1]), []
    with torch.no_grad():
        for x_t in x:
            out, *states = model(x_t, *states)
            outputs.append(out)
    assert 0 < states[0].mean() < 1
    for got, expected in zip(found, [torch.stack(outputs), *states], strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)


def test_layers_are_exported_through_the_reference_with_any_batch():
    p = sp.LIFParameters(tau_mem=sp.Learned(torch.linspace(5e-3, 20e-3, 6)), v_th=0.3)
    hidden = sp.LIFRecurrent(5, 6, p, kernel="reference")
    model = sp.Sequential(sp.Delay(2.5e-3), hidden, nn.Linear(6, 3), sp.LI(kernel="reference"))
    x = (torch.rand(12, 9, 5) < 0.3).float()
    program = torch.export.export(model, (x[:, :2].contiguous(),), dynamic_shapes=({1: BATCH},), strict=False)
    torch.testing.assert_close(program.module()(x)[0], model(x)[0], rtol=1e-6, atol=1e-6)


def test_delays_are_exported_with_any_number_of_steps():
    model, x = sp.Delay(sp.Learned(4e-3), max_delay=8e-3, size=5), torch.rand(30, 9, 5)
    shapes = ({0: torch.export.Dim("time", min=2, max=10_000), 1: BATCH},)
    program = torch.export.export(model, (x[:12, :2].contiguous(),), dynamic_shapes=shapes, strict=False)
    torch.testing.assert_close(program.module()(x)[0], model(x)[0], rtol=1e-6, atol=1e-6)
