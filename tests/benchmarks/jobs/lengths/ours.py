"""Recordings of different lengths in one batch: a readout at the end of each, and nothing of the padding."""

import torch
from job_data import spoken_digits_of_any_length
from torch import nn

import snnparams as sp


def mean(x, lengths):
    return sp.sequences.mean(network(x, lengths=lengths)[0], lengths)


torch.manual_seed(0)
train, test = spoken_digits_of_any_length()
network = sp.Sequential(sp.LIFRecurrent(20, 100, sp.LIFParameters(v_th=0.5)), nn.Linear(100, 10), sp.LI())
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
