"""Truncated backpropagation through a stream, whose chunks give the numbers of the whole."""

import torch
from job_data import stream
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

torch.manual_seed(0)
x, sides = stream(2000, seed=0)
network = nn.Sequential(
    nn.Linear(20, 50),
    neuron.LIFNode(step_mode="m"),
    nn.Linear(50, 2),
    layer.SynapseFilter(tau=20.0, step_mode="m"),
)
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
for _ in range(4):
    functional.reset_net(network)
    for chunk, wanted in zip(x.split(25), sides.split(25), strict=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(chunk).flatten(0, 1), wanted.flatten()).backward()
        optimizer.step()
        functional.detach_net(network)
x, sides = stream(500, seed=1)
functional.reset_net(network)
whole = network(x)
functional.reset_net(network)
torch.testing.assert_close(torch.cat([network(x[:123]), network(x[123:])]), whole)
result = (whole.argmax(2) == sides).float().mean().item()
assert result > 0.78, result
