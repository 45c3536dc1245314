"""A network goes into a file of NIR, comes back, and spikes as before."""

import nir
import snntorch
import torch
from snntorch.export_nir import export_to_nir
from snntorch.import_nir import import_from_nir
from torch import nn

torch.manual_seed(0)
x = (torch.rand(50, 10, 20) < 0.3).float()
network = nn.Sequential(
    nn.Linear(20, 30),
    snntorch.Leaky(torch.full((30,), 0.9), torch.full((30,), 0.5), reset_mechanism="zero", init_hidden=True),
    nn.Linear(30, 5),
    snntorch.Leaky(torch.full((5,), 0.9), torch.full((5,), 0.5), reset_mechanism="zero", init_hidden=True),
)
nir.write("network.nir", export_to_nir(network, x[0, 0]))
again = import_from_nir(nir.read("network.nir"))
spikes = torch.stack([network(step) for step in x])
result = (torch.stack([again(step)[0] for step in x]) == spikes).float().mean().item()
assert result == 1, result
assert spikes.mean() > 0.01, spikes
