"""Truncated backpropagation through a stream, whose chunks give the numbers of the whole."""

import norse.torch as norse
import torch
from job_data import stream
from torch import nn
from torch.utils._pytree import tree_map

torch.manual_seed(0)
x, sides = stream(2000, seed=0)
network = norse.SequentialState(
    nn.Linear(20, 50), norse.LIF(), nn.Linear(50, 2), norse.LI(norse.LIParameters(tau_mem_inv=torch.tensor(50.0)))
)
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
for _ in range(4):
    state = None
    for chunk, wanted in zip(x.split(25), sides.split(25), strict=True):
        optimizer.zero_grad()
        out, state = network(chunk, tree_map(lambda part: part if part is None else part.detach(), state))
        nn.functional.cross_entropy(out.flatten(0, 1), wanted.flatten()).backward()
        optimizer.step()
x, sides = stream(500, seed=1)
whole, _ = network(x)
first, state = network(x[:123])
torch.testing.assert_close(torch.cat([first, network(x[123:], state)[0]]), whole)
result = (whole.argmax(2) == sides).float().mean().item()
assert result > 0.78, result
