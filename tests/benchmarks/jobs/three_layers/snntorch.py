"""A network of three layers learns handwritten digits."""

import snntorch
import torch
from job_data import rows
from snntorch import backprop, functional, utils
from torch import nn

torch.manual_seed(0)
train, test = rows()
network = nn.Sequential(
    nn.Linear(64, 100),
    snntorch.Leaky(beta=0.9, init_hidden=True),
    nn.Linear(100, 100),
    snntorch.Leaky(beta=0.9, init_hidden=True),
    nn.Linear(100, 10),
    snntorch.Leaky(beta=0.9, init_hidden=True, output=True),
)
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
for _ in range(5):
    backprop.BPTT(network, train, optimizer, functional.ce_rate_loss())
x, labels = next(iter(test))
utils.reset(network)
result = functional.accuracy_rate(torch.stack([network(step)[0] for step in x]), labels)
assert result > 0.85, result
