"""A neuron whose threshold rises with its spikes, and a membrane time constant of its own for each, learned."""

import torch
from job_data import rows
from spikingjelly.activation_based import functional, neuron
from torch import nn


class Adaptive(neuron.SimpleBaseNode):
    def __init__(self, size):
        super().__init__(v_threshold=0.5, step_mode="m")
        self.raw = nn.Parameter(torch.full((size,), -2.2))
        self.register_memory("c", 0.0)

    def single_step_forward(self, x):
        self.v = self.v + self.raw.sigmoid() * (x - self.v)
        z = self.surrogate_function(self.v - self.v_threshold - 0.1 * self.c)
        self.v, self.c = self.v * (1 - z), self.c + 0.05 * (z - self.c)
        return z


torch.manual_seed(0)
train, test = rows()
neurons = Adaptive(100)
network = nn.Sequential(nn.Linear(64, 100), neurons, nn.Linear(100, 10), neuron.LIFNode(step_mode="m"))
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
for _ in range(5):
    for x, labels in train:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x).mean(0), labels).backward()
        optimizer.step()
        functional.reset_net(network)
decay = neurons.raw.sigmoid()
assert decay.shape == (100,)
assert 0 < decay.min() < decay.max() < 1, decay
x, labels = next(iter(test))
result = (network(x).mean(0).argmax(1) == labels).float().mean().item()
assert result > 0.85, result
