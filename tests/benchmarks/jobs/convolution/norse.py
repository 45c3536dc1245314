"""A convolutional network learns handwritten digits."""

import norse.torch as norse
import torch
from job_data import images
from torch import nn

torch.manual_seed(0)
train, test = images()
network = norse.SequentialState(
    norse.Lift(nn.Conv2d(1, 12, 3, padding=1)),
    norse.LIF(norse.LIFParameters(v_th=torch.tensor(0.3))),
    norse.Lift(nn.AvgPool2d(2)),
    norse.Lift(nn.Conv2d(12, 24, 3, padding=1)),
    norse.LIF(norse.LIFParameters(v_th=torch.tensor(0.3))),
    norse.Lift(nn.AvgPool2d(2)),
    nn.Flatten(2),
    nn.Linear(96, 10),
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
assert result > 0.8, result
