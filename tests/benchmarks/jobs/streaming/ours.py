"""Truncated backpropagation through a stream, whose chunks give the numbers of the whole."""

import torch
from job_data import stream
from torch import nn

import snnparams as sp

torch.manual_seed(0)
x, sides = stream(2000, seed=0)
network = sp.Sequential(nn.Linear(20, 50), sp.LIF(), nn.Linear(50, 2), sp.LI(sp.LIParameters(tau_mem=20e-3)))
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
for _ in range(4):
    state = None
    for chunk, wanted in zip(x.split(25), sides.split(25), strict=True):
        optimizer.zero_grad()
        out, state = network(chunk, sp.states.detach(state))
        nn.functional.cross_entropy(out.flatten(0, 1), wanted.flatten()).backward()
        optimizer.step()
x, sides = stream(500, seed=1)
whole, _ = network(x)
first, state = network(x[:123])
torch.testing.assert_close(torch.cat([first, network(x[123:], state)[0]]), whole)
result = (whole.argmax(2) == sides).float().mean().item()
assert result > 0.78, result
