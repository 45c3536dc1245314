"""A network goes into a file of NIR, comes back, and spikes as before."""

import nir
import norse.torch as norse
import torch
from torch import nn

torch.manual_seed(0)
x = (torch.rand(50, 10, 20) < 0.3).float()
network = norse.SequentialState(
    nn.Linear(20, 30),
    norse.LIFBoxCell(
        norse.LIFBoxParameters(torch.full((30,), 100.0), v_leak=torch.zeros(30), v_th=torch.full((30,), 0.1))
    ),
    nn.Linear(30, 5),
    norse.LIFBoxCell(
        norse.LIFBoxParameters(torch.full((5,), 100.0), v_leak=torch.zeros(5), v_th=torch.full((5,), 0.1))
    ),
)
nir.write("network.nir", norse.to_nir(network, x[0, 0], dt=1.0))  # which multiplies time constants
again = norse.from_nir(nir.read("network.nir"))
spikes, _ = norse.Lift(network)(x)
result = (norse.Lift(again)(x)[0] == spikes).float().mean().item()
assert result == 1, result
assert spikes.mean() > 0.01, spikes
