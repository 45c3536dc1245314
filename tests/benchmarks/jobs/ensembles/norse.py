"""Six networks from different initial weights: how much does the accuracy depend on them?"""

import norse.torch as norse
import torch
from job_data import rows
from torch import nn

torch.manual_seed(0)
train, test = rows()
accuracies = torch.empty(6)
for member in range(6):
    network = norse.SequentialState(nn.Linear(64, 50), norse.LIF(), nn.Linear(50, 10), norse.LI())
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(4):
        for x, labels in train:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x)[0].mean(0), labels).backward()
            optimizer.step()
    x, labels = next(iter(test))
    accuracies[member] = (network(x)[0].mean(0).argmax(1) == labels).float().mean()
result = accuracies.mean().item()
assert result > 0.85, accuracies
assert accuracies.std() < 0.05, accuracies
