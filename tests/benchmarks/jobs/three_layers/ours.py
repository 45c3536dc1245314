"""A network of three layers learns handwritten digits."""

import torch
from job_data import rows
from torch import nn

import snnparams as sp

torch.manual_seed(0)
train, test = rows()
network = sp.Sequential(
    nn.Linear(64, 100),
    sp.LIF(),
    nn.Linear(100, 100),
    sp.LIF(),
    nn.Linear(100, 10),
    sp.LI(),
)
history = sp.fit(
    network,
    train,
    test,
    torch.optim.Adam(network.parameters(), lr=1e-2),
    epochs=5,
    loss=nn.functional.cross_entropy,
    decode=lambda out: out[0].mean(0),
)
result = history.accuracies[-1]
assert result > 0.85, result
