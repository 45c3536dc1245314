"""ONNX: a learned network computes sequences of any length and batch in ONNX Runtime, in a process without PyTorch."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import run
from test_export import BATCH, Step
from torch import nn

import snnparams as sp

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

# without this package and without PyTorch
USE = """
import sys
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
given = dict(numpy.load(sys.argv[2]))
numpy.savez(sys.argv[3], *session.run(None, given))
assert not {"torch", "snnparams"} & set(sys.modules)
"""


def over_time(step):
    """Return a model of whole sequences around one of a step: ONNX's Scan, over any number of steps.

    Args:
        step: a model whose inputs are an input and states, and whose outputs are an output and the new states.

    Returns:
        A model with inputs `x`, of which time is the first axis, and `state_0`, ...; with outputs `y` and `last_0`, ...
    """
    (x, *states), (y, *new) = step.graph.input, step.graph.output

    def like(name, value, *lead):
        shape = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        return onnx.helper.make_tensor_value_info(name, value.type.tensor_type.elem_type, [*lead, *shape])

    body = onnx.GraphProto()
    body.CopyFrom(step.graph)
    for field, values in (("input", [*states, x]), ("output", [*new, y])):  # Scan wants the states first
        del getattr(body, field)[:]
        getattr(body, field).extend(values)
    begin = [like(f"state_{k}", value) for k, value in enumerate(states)]
    last = [like(f"last_{k}", value) for k, value in enumerate(new)]
    names = [[value.name for value in values] for values in (begin, last)]
    scan = onnx.helper.make_node("Scan", [*names[0], "x"], [*names[1], "y"], body=body, num_scan_inputs=1)
    inputs, outputs = [like("x", x, "time"), *begin], [like("y", y, "time"), *last]
    graph = onnx.helper.make_graph([scan], "sequence", inputs, outputs)
    return onnx.helper.make_model(graph, opset_imports=step.opset_import, ir_version=step.ir_version)


def exported(model, states):
    """Return the model of a step, through `torch.export`, with any batch."""
    few = (torch.zeros(2, 5), *(state[:2] for state in states))
    shapes = {"x": {0: BATCH}, "states": ({0: BATCH},) * len(states)}
    program = torch.export.export(model, few, dynamic_shapes=shapes, strict=False)
    return torch.onnx.export(program, dynamo=True, verbose=False).model_proto


class DelayedStep(nn.Module):
    """One time step of a network with learned delays of all kinds, from tensors to tensors."""

    def __init__(self):
        super().__init__()
        self.axonal = sp.Delay(sp.Learned(7e-3 * torch.rand(5)), max_delay=8e-3)
        delay, p = sp.Learned(2e-3 + 6e-3 * torch.rand(6)), sp.LIFParameters(tau_mem=sp.Learned(20e-3), v_th=0.3)
        self.hidden = sp.DelayedRecurrentLayer(5, 6, p, delay=delay, max_delay=9e-3, kernel="reference")
        self.synaptic = sp.DelayedLinear(6, 3, sp.Learned(4e-3 * torch.rand(3, 6)), max_delay=5e-3)
        self.out = sp.LICell()

    def forward(self, x, *states):
        first, spikes, v, i, second, *last = states
        late, first_new = self.axonal(x.unsqueeze(0), sp.DelayState(first))
        z, state = self.hidden(late, sp.DelayedRecurrentState(spikes, self.hidden.neuron.State(v, i)))
        currents, second_new = self.synaptic(z, sp.DelayState(second))
        voltages, last_new = self.out(currents[0], sp.LIState(*last))
        return voltages, first_new.x, state.z, *state.neurons, second_new.x, *last_new


def delayed(batch=9):
    """Return the step of a network with delays, and its states."""
    model = DelayedStep()
    shapes = (model.axonal.remembered, 5), (model.hidden.remembered, 6), (6,), (6,), (model.synaptic.remembered, 6)
    return model, [torch.zeros(batch, *shape) for shape in (*shapes, (3,), (3,))]


def of_neurons(neuron, batch=9):
    """Return the step of a network with neurons of a kind, and its states."""
    p = neuron(tau_mem=sp.Learned(torch.linspace(5e-3, 20e-3, 6)), v_th=0.3)
    states = [torch.zeros(batch, 6)] * len(neuron.RecurrentState._fields) + [torch.zeros(batch, 3)] * 2
    return Step(sp.RecurrentCell(5, 6, p), nn.Linear(6, 3)), states


@pytest.mark.parametrize("kind", ["LIF", "adaptive LIF", "delays"])
def test_sequences_of_any_length_and_batch_run_without_pytorch(kind, tmp_path):
    neuron = {"LIF": sp.LIFParameters, "adaptive LIF": sp.neurons.AdaptiveLIF}.get(kind)
    model, states = delayed() if neuron is None else of_neurons(neuron)
    whole = over_time(exported(model, states))
    onnx.checker.check_model(whole)
    onnx.save(whole, tmp_path / "sequence.onnx")
    beside = os.pathsep.join(path for path in sys.path if not (Path(path) / "snnparams").exists())
    variables = {**os.environ, "PYTHONPATH": beside}
    for steps, batch in ((30, 7), (11, 2)):
        x, now, outputs = (torch.rand(steps, batch, 5) < 0.3).float(), [s[:batch] for s in states], []
        given = {"x": x.numpy(), **{f"state_{k}": state.numpy() for k, state in enumerate(now)}}
        np.savez(tmp_path / "input.npz", **given)
        files = [tmp_path / name for name in ("sequence.onnx", "input.npz", "output.npz")]
        run(sys.executable, "-c", USE, *files, cwd=tmp_path, env=variables)
        with torch.no_grad():
            for x_t in x:
                out, *now = model(x_t, *now)
                outputs.append(out)
        assert all(state.any() for state in now)
        found = np.load(files[-1])
        for got, expected in zip(found.values(), [torch.stack(outputs), *now], strict=True):
            np.testing.assert_allclose(got, expected.numpy(), rtol=1e-5, atol=1e-5)


def test_a_step_with_delays_is_a_step_of_the_layers():
    model, states = delayed(batch=4)
    whole = sp.Sequential(model.axonal, model.hidden, model.synaptic, sp.LI())
    x, outputs = (torch.rand(25, 4, 5) < 0.3).float(), []
    for x_t in x:
        out, *states = model(x_t, *states)
        outputs.append(out)
    torch.testing.assert_close(torch.stack(outputs), whole(x)[0], rtol=1e-5, atol=1e-6)
