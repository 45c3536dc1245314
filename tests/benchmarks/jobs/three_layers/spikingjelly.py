"""A network of three layers learns handwritten digits."""

import torch
from job_data import rows
from spikingjelly.activation_based import functional, neuron
from torch import nn

torch.manual_seed(0)
train, test = rows()
network = nn.Sequential(
    nn.Linear(64, 100),
    neuron.LIFNode(step_mode="m"),
    nn.Linear(100, 100),
    neuron.LIFNode(step_mode="m"),
    nn.Linear(100, 10),
    neuron.LIFNode(step_mode="m"),
)
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
for _ in range(5):
    for x, labels in train:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x).mean(0), labels).backward()
        optimizer.step()
        functional.reset_net(network)
x, labels = next(iter(test))
result = (network(x).mean(0).argmax(1) == labels).float().mean().item()
assert result > 0.85, result
