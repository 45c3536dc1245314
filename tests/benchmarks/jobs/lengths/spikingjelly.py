"""Recordings of different lengths in one batch: a readout at the end of each, and nothing of the padding."""

import torch
from job_data import spoken_digits_of_any_length
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn


def rates(x, lengths):
    functional.reset_net(network)
    counts = torch.arange(len(x))[:, None, None] < lengths[:, None]
    return (network(x.nan_to_num()) * counts).sum(0) / lengths[:, None]


torch.manual_seed(0)
train, test = spoken_digits_of_any_length()
network = nn.Sequential(
    nn.Linear(20, 100),
    layer.LinearRecurrentContainer(neuron.LIFNode(), 100, 100, step_mode="m"),
    nn.Linear(100, 10),
    neuron.LIFNode(step_mode="m"),
)
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
for _ in range(8):
    for x, lengths, labels in train:
        optimizer.zero_grad()
        nn.functional.cross_entropy(rates(x, lengths), labels).backward()
        optimizer.step()
x, lengths, labels = next(iter(test))
found = rates(x, lengths)
torch.testing.assert_close(found[:1], rates(x[: lengths[0], :1], lengths[:1]))
result = (found.argmax(1) == labels).float().mean().item()
assert result > 0.4, result
