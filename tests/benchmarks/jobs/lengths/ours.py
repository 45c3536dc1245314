"""Recordings of different lengths in one batch: a readout at the end of each, and nothing of the padding."""

import torch
from job_data import spoken_digits_of_any_length
from torch import nn

import snnparams as sp

torch.manual_seed(0)
train, test = spoken_digits_of_any_length()
network = sp.Sequential(sp.LIFRecurrent(20, 100, sp.LIFParameters(v_th=0.5)), nn.Linear(100, 10), sp.LI())
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
for _ in range(8):
    for x, lengths, labels in train:
        optimizer.zero_grad()
        voltages, _ = network(x, lengths=lengths)
        nn.functional.cross_entropy(sp.sequences.mean(voltages, lengths), labels).backward()
        optimizer.step()
x, lengths, labels = next(iter(test))
voltages = sp.sequences.mean(network(x, lengths=lengths)[0], lengths)
alone, _ = network(x[: lengths[0], :1])
torch.testing.assert_close(voltages[:1], alone.mean(0))
result = (voltages.argmax(1) == labels).float().mean().item()
assert result > 0.4, result
