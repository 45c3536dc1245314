"""A user's typed script passes a type checker: the package says its types (PEP 561), and they are those one writes."""

import os
import subprocess
import sys

import pytest
from notebooks import ROOT

SCRIPT = """
import dataclasses

import torch
from torch import nn

import snnparams as sp


class Network(nn.Module):
    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        tau: sp.Learned = sp.Learned(sp.distributions.log_normal(median=20e-3, variation=0.3), constraint="log")
        p = sp.LIFParameters(tau_mem=tau, v_th=sp.Learned(0.5), tau_syn=5e-3, v_leak=torch.zeros(hidden))
        self.hidden = sp.LIFRecurrent(inputs, hidden, p, dt=1e-3)
        self.readout = nn.Linear(hidden, outputs)
        self.out = sp.LI(sp.LIParameters(tau_mem=sp.Fixed(10e-3), v_leak=nn.Parameter(torch.zeros(outputs))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spikes, _ = self.hidden(x)
        voltages, _ = self.out(self.readout(spikes))
        return torch.log_softmax(voltages.amax(0), dim=1)


def last_voltage(layer: sp.LIF, x: torch.Tensor, state: sp.LIFFeedForwardState | None = None) -> torch.Tensor:
    _, state = layer.forward(x, state)
    return state.v


model = Network(4, 3, 2)
layer = model.hidden
layer.p.tau_mem = 0.01
layer.p.tau_syn = torch.full((3,), 5e-3)
layer.p.tau_mem_inv = nn.Parameter(torch.full((3,), 100.0))
layer.p.v_th = sp.Learned(0.4, sp.constraints.Interval(0.1, 1.0))
layer.p.v_reset = sp.distributions.uniform(mean=0.1, variation=0.2)
model.out.p.v_leak = 0.1
tau: torch.Tensor = layer.p.tau_mem
threshold: torch.Tensor = layer.p.v_th
largest: float = layer.p.v_reset.max().item()
stored: torch.Tensor = layer.p.raw("v_th")
first: sp.LIFParameters = dataclasses.replace(sp.LIFParameters(tau_mem=0.02), tau_mem=0.05, alpha=100.0)
given: object = first.tau_mem
step: float = layer.dt
optimizer = torch.optim.Adam(sp.parameter_groups(model, 1e-3, {"tau_mem_inv": 1e-2}), lr=1e-3)
data = sp.Split(torch.rand(6, 5, 4).transpose(0, 1), torch.tensor([0, 1, 0, 1, 0]))
values: dict[str, torch.Tensor] = sp.learned_values(model)
spikes: torch.Tensor = sp.ConstantCurrentLIFEncoder(8)(torch.rand(3))
members = sp.Ensemble([Network(4, 3, 2) for _ in range(2)])
one: nn.Module = members.member(0)
print(last_voltage(sp.LIF(), torch.rand(3, 2, 4)).shape, tau.shape, threshold.shape, largest, step, sorted(values))
"""

WRONG = {
    'layer.p.tau_mem = "0.01"': "Incompatible types in assignment",
    "sp.LIFParameters(tau_mem=[0.01])": 'Argument "tau_mem" to "LIFParameters" has incompatible type',
    "count: int = layer.p.v_th": 'expression has type "Tensor", variable has type "int"',
}


def check(folder, text):
    """Check a script as a user's checker would, away from the project and its settings."""
    script = folder / "script.py"
    script.write_text(text)
    mypy = [sys.executable, "-m", "mypy", "--config-file", "", "--cache-dir", folder / "cache"]
    environment = os.environ | {"MYPYPATH": str(ROOT)}
    # as for what is installed, nothing is said of the inside of what is imported
    command = [*mypy, "--strict", "--follow-imports=silent", script]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)


@pytest.mark.slow
def test_a_typed_script_passes_and_mistakes_do_not(tmp_path):
    assert (ROOT / "snnparams" / "py.typed").exists()
    done = check(tmp_path, SCRIPT)
    assert done.returncode == 0, done.stdout + done.stderr
    done = check(tmp_path, SCRIPT + "\n".join(WRONG) + "\n")
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert len(errors) == len(WRONG), done.stdout
    for error, message in zip(errors, WRONG.values(), strict=True):
        assert message in error


@pytest.mark.filterwarnings("ignore")
def test_the_typed_script_runs(capsys):
    exec(compile(SCRIPT, "script", "exec"), {"__name__": "script"})
    assert "torch.Size([2, 4])" in capsys.readouterr().out
