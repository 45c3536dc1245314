"""A neuron whose threshold rises with its spikes, and a membrane time constant of its own for each, learned."""

from typing import NamedTuple

import norse.torch as norse
import torch
from job_data import rows
from norse.torch.functional.threshold import threshold
from norse.torch.module.snn import SNN
from torch import nn


class State(NamedTuple):
    v: torch.Tensor
    c: torch.Tensor


def step(x, state, p, dt):
    v = state.v + p.sigmoid() * (x - state.v)
    z = threshold(v - 0.5 - 0.1 * state.c, "super", 100.0)
    return z, State(v * (1 - z), state.c + 0.05 * (z - state.c))


torch.manual_seed(0)
train, test = rows()
raw = nn.Parameter(torch.full((100,), -2.2))
neurons = SNN(step, lambda x: State(torch.zeros_like(x[0]), torch.zeros_like(x[0])), raw)
network = norse.SequentialState(nn.Linear(64, 100), neurons, nn.Linear(100, 10), norse.LI())
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
for _ in range(5):
    for x, labels in train:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x)[0].mean(0), labels).backward()
        optimizer.step()
decay = raw.sigmoid()
assert decay.shape == (100,)
assert 0 < decay.min() < decay.max() < 1, decay
x, labels = next(iter(test))
result = (network(x)[0].mean(0).argmax(1) == labels).float().mean().item()
assert result > 0.85, result
