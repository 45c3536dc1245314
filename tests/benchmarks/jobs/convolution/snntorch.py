"""A convolutional network learns handwritten digits."""

import snntorch
import torch
from job_data import images
from snntorch import backprop, functional, utils
from torch import nn

torch.manual_seed(0)
train, test = images()
network = nn.Sequential(
    nn.Conv2d(1, 12, 3, padding=1),
    snntorch.Leaky(beta=0.9, init_hidden=True),
    nn.AvgPool2d(2),
    nn.Conv2d(12, 24, 3, padding=1),
    snntorch.Leaky(beta=0.9, init_hidden=True),
    nn.AvgPool2d(2),
    nn.Flatten(),
    nn.Linear(96, 10),
    snntorch.Leaky(beta=0.9, init_hidden=True, output=True),
)
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
for _ in range(5):
    backprop.BPTT(network, train, optimizer, functional.ce_rate_loss())
x, labels = next(iter(test))
utils.reset(network)
result = functional.accuracy_rate(torch.stack([network(step)[0] for step in x]), labels)
assert result > 0.8, result
