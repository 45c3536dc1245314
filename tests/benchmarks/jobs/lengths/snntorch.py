"""Recordings of different lengths in one batch: a readout at the end of each, and nothing of the padding."""

import snntorch
import torch
from job_data import spoken_digits_of_any_length
from snntorch import utils
from torch import nn


def mean(x, lengths):
    utils.reset(network)
    counts = torch.arange(len(x))[:, None, None] < lengths[:, None]
    return (torch.stack([network(step)[1] for step in x.nan_to_num()]) * counts).sum(0) / lengths[:, None]


torch.manual_seed(0)
train, test = spoken_digits_of_any_length()
network = nn.Sequential(
    nn.Linear(20, 100),
    snntorch.RLeaky(beta=0.9, linear_features=100, init_hidden=True),
    nn.Linear(100, 10),
    snntorch.Leaky(beta=0.9, reset_mechanism="none", init_hidden=True, output=True),
)
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
for _ in range(8):
    for x, lengths, labels in train:
        optimizer.zero_grad()
        nn.functional.cross_entropy(mean(x, lengths), labels).backward()
        optimizer.step()
x, lengths, labels = next(iter(test))
voltages = mean(x, lengths)
torch.testing.assert_close(voltages[:1], mean(x[: lengths[0], :1], lengths[:1]))
result = (voltages.argmax(1) == labels).float().mean().item()
assert result > 0.4, result
