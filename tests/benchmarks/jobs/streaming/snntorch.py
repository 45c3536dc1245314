"""Truncated backpropagation through a stream, whose chunks give the numbers of the whole."""

import snntorch
import torch
from job_data import stream
from snntorch import utils
from torch import nn

torch.manual_seed(0)
x, sides = stream(2000, seed=0)
network = nn.Sequential(
    nn.Linear(20, 50),
    snntorch.Leaky(beta=0.9, init_hidden=True),
    nn.Linear(50, 2),
    snntorch.Leaky(beta=0.95, reset_mechanism="none", init_hidden=True, output=True),
)
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
for _ in range(4):
    utils.reset(network)
    for chunk, wanted in zip(x.split(25), sides.split(25), strict=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(torch.cat([network(step)[1] for step in chunk]), wanted.flatten()).backward()
        optimizer.step()
        snntorch.Leaky.detach_hidden()
x, sides = stream(500, seed=1)
utils.reset(network)
whole = torch.stack([network(step)[1] for step in x])
utils.reset(network)
parts = [torch.stack([network(step)[1] for step in part]) for part in x.split([123, 377])]
torch.testing.assert_close(torch.cat(parts), whole)
result = (whole.argmax(2) == sides).float().mean().item()
assert result > 0.78, result
