"""A network of three layers learns handwritten digits."""

import norse.torch as norse
import torch
from job_data import rows
from torch import nn

torch.manual_seed(0)
train, test = rows()
network = norse.SequentialState(
    nn.Linear(64, 100),
    norse.LIF(),
    nn.Linear(100, 100),
    norse.LIF(),
    nn.Linear(100, 10),
    norse.LI(),
)
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
for _ in range(5):
    for x, labels in train:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x)[0].mean(0), labels).backward()
        optimizer.step()
x, labels = next(iter(test))
result = (network(x)[0].mean(0).argmax(1) == labels).float().mean().item()
assert result > 0.85, result
