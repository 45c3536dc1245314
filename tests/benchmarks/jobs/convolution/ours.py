"""A convolutional network learns handwritten digits."""

import torch
from job_data import images
from torch import nn

import snnparams as sp

torch.manual_seed(0)
train, test = images()
network = sp.Sequential(
    nn.Conv2d(1, 12, 3, padding=1),
    sp.LIF(sp.LIFParameters(v_th=0.3)),
    nn.AvgPool2d(2),
    nn.Conv2d(12, 24, 3, padding=1),
    sp.LIF(sp.LIFParameters(v_th=0.3)),
    nn.AvgPool2d(2),
    nn.Flatten(),
    nn.Linear(96, 10),
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
assert result > 0.8, result
