"""Six networks from different initial weights: how much does the accuracy depend on them?"""

import torch
from job_data import rows
from torch import nn

import snnparams as sp

torch.manual_seed(0)
train, test = rows()
members = [sp.Sequential(nn.Linear(64, 50), sp.LIF(), nn.Linear(50, 10), sp.LI()) for _ in range(6)]
ensemble = sp.Ensemble(members)
history = sp.fit(
    ensemble,
    train,
    test,
    torch.optim.Adam(ensemble.parameters(), lr=1e-2),
    epochs=4,
    loss=nn.functional.cross_entropy,
    decode=lambda out: out[0].mean(0),
)
accuracies = torch.tensor(history.accuracies[-1])
result = accuracies.mean().item()
assert result > 0.85, accuracies
assert accuracies.std() < 0.05, accuracies
