"""A neuron whose threshold rises with its spikes, and a membrane time constant of its own for each, learned."""

import snntorch
import torch
from job_data import rows
from snntorch import functional, utils
from torch import nn


class Adaptive(snntorch.SpikingNeuron):
    def __init__(self, size):
        super().__init__(threshold=0.5)
        self.raw = nn.Parameter(torch.full((size,), -2.2))

    def reset_mem(self):
        self.v = self.c = torch.zeros(1)

    def forward(self, x):
        self.v = self.v + self.raw.sigmoid() * (x - self.v)
        z = self.fire(self.v - 0.1 * self.c)
        self.v, self.c = self.v * (1 - z), self.c + 0.05 * (z - self.c)
        return z


def spikes(x):
    utils.reset(network)
    neurons.reset_mem()
    return torch.stack([network(step)[0] for step in x])


torch.manual_seed(0)
train, test = rows()
neurons = Adaptive(100)
network = nn.Sequential(
    nn.Linear(64, 100),
    neurons,
    nn.Linear(100, 10),
    snntorch.Leaky(beta=0.9, init_hidden=True, output=True),
)
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
for _ in range(5):
    for x, labels in train:
        optimizer.zero_grad()
        functional.ce_rate_loss()(spikes(x), labels).backward()
        optimizer.step()
decay = neurons.raw.sigmoid()
assert decay.shape == (100,)
assert 0 < decay.min() < decay.max() < 1, decay
x, labels = next(iter(test))
result = functional.accuracy_rate(spikes(x), labels)
assert result > 0.85, result
