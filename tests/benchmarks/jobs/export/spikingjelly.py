"""A network goes into a file of NIR, comes back, and spikes as before."""

import nir
import torch
from spikingjelly.activation_based import functional, neuron, nir_exchange
from torch import nn

torch.manual_seed(0)
x = (torch.rand(50, 10, 20) < 0.3).float()
network = nn.Sequential(
    nn.Linear(20, 30),
    neuron.LIFNode(v_threshold=0.2, step_mode="m"),
    nn.Linear(30, 5),
    neuron.LIFNode(v_threshold=0.2, step_mode="m"),
)
nir.write("network.nir", nir_exchange.export_to_nir(network, x))
again = nir_exchange.import_from_nir(nir.read("network.nir"))
functional.set_step_mode(again, "m")
spikes = network(x)
result = (again(x)[0] == spikes).float().mean().item()
assert result == 1, result
assert spikes.mean() > 0.01, spikes
