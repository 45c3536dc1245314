"""Six networks from different initial weights: how much does the accuracy depend on them?"""

import torch
from job_data import rows
from spikingjelly.activation_based import functional, neuron
from torch import nn

torch.manual_seed(0)
train, test = rows()
accuracies = torch.empty(6)
for member in range(6):
    network = nn.Sequential(
        nn.Linear(64, 50),
        neuron.LIFNode(step_mode="m"),
        nn.Linear(50, 10),
        neuron.LIFNode(step_mode="m"),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(4):
        for x, labels in train:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x).mean(0), labels).backward()
            optimizer.step()
            functional.reset_net(network)
    x, labels = next(iter(test))
    accuracies[member] = (network(x).mean(0).argmax(1) == labels).float().mean()
result = accuracies.mean().item()
assert result > 0.85, accuracies
assert accuracies.std() < 0.05, accuracies
