"""Recordings of different lengths in one batch: a readout at the end of each, and nothing of the padding."""

import norse.torch as norse
import torch
from job_data import spoken_digits_of_any_length
from torch import nn


def mean(x, lengths):
    counts = torch.arange(len(x))[:, None, None] < lengths[:, None]
    return (network(x.nan_to_num())[0] * counts).sum(0) / lengths[:, None]


torch.manual_seed(0)
train, test = spoken_digits_of_any_length()
network = norse.SequentialState(
    norse.LIFRecurrent(20, 100, norse.LIFParameters(v_th=torch.tensor(0.5))), nn.Linear(100, 10), norse.LI()
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
