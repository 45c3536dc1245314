"""A recurrent network learns spoken digits with a schedule; a killed run goes on to the same numbers."""

import torch
from job_data import run_and_kill, spoken_digits
from torch import nn

import snnparams as sp


def run(file):
    torch.manual_seed(0)
    train, test = spoken_digits()
    network = sp.Sequential(sp.LIFRecurrent(20, 100, sp.LIFParameters(v_th=0.5)), nn.Linear(100, 10), sp.LI())
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    return sp.fit(
        network,
        train,
        test,
        optimizer,
        epochs=16,
        loss=nn.functional.cross_entropy,
        decode=lambda out: out[0].mean(0),
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 16),
        checkpoint=file,
    )


run_and_kill(run, "killed.pt")
killed, whole = run("killed.pt"), run("whole.pt")
assert killed.test_losses == whole.test_losses
result = killed.accuracies[-1]
assert result > 0.5, result
