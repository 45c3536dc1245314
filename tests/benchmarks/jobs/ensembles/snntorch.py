"""Six networks from different initial weights: how much does the accuracy depend on them?"""

import snntorch
import torch
from job_data import rows
from snntorch import backprop, functional, utils
from torch import nn

torch.manual_seed(0)
train, test = rows()
accuracies = torch.empty(6)
for member in range(6):
    network = nn.Sequential(
        nn.Linear(64, 50),
        snntorch.Leaky(beta=0.9, init_hidden=True),
        nn.Linear(50, 10),
        snntorch.Leaky(beta=0.9, init_hidden=True, output=True),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(4):
        backprop.BPTT(network, train, optimizer, functional.ce_rate_loss())
    x, labels = next(iter(test))
    utils.reset(network)
    accuracies[member] = functional.accuracy_rate(torch.stack([network(step)[0] for step in x]), labels)
result = accuracies.mean().item()
assert result > 0.85, accuracies
assert accuracies.std() < 0.05, accuracies
