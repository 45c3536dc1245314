"""A convolutional network learns handwritten digits."""

import torch
from job_data import images
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

torch.manual_seed(0)
train, test = images()
network = nn.Sequential(
    layer.Conv2d(1, 12, 3, padding=1),
    neuron.LIFNode(),
    layer.AvgPool2d(2),
    layer.Conv2d(12, 24, 3, padding=1),
    neuron.LIFNode(),
    layer.AvgPool2d(2),
    layer.Flatten(),
    layer.Linear(96, 10),
    neuron.LIFNode(),
)
functional.set_step_mode(network, "m")
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
for _ in range(5):
    for x, labels in train:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x).mean(0), labels).backward()
        optimizer.step()
        functional.reset_net(network)
x, labels = next(iter(test))
result = (network(x).mean(0).argmax(1) == labels).float().mean().item()
assert result > 0.8, result
