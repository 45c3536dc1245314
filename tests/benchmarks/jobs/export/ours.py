"""A network goes into a file of NIR, comes back, and spikes as before."""

import nir
import torch
from torch import nn

import snnparams as sp

torch.manual_seed(0)
x = (torch.rand(50, 10, 20) < 0.3).float()
network = sp.Sequential(
    nn.Linear(20, 30),
    sp.LIF(sp.LIFParameters(v_th=0.2), size=30),
    nn.Linear(30, 5),
    sp.LIF(sp.LIFParameters(v_th=0.2), size=5),
)
nir.write("network.nir", sp.to_nir(network))
again = sp.from_nir("network.nir")
spikes, _ = network(x)
result = (again(x)[0] == spikes).float().mean().item()
assert result == 1, result
assert spikes.mean() > 0.01, spikes
