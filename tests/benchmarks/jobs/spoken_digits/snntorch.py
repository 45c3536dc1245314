"""A recurrent network learns spoken digits with a schedule; a killed run goes on to the same numbers."""

from pathlib import Path

import snntorch
import torch
from job_data import run_and_kill, spoken_digits
from snntorch import utils
from torch import nn


def mean(network, x):
    utils.reset(network)
    return torch.stack([network(step)[1] for step in x]).mean(0)


def run(file):
    torch.manual_seed(0)
    train, test = spoken_digits()
    network = nn.Sequential(
        nn.Linear(20, 100),
        snntorch.RLeaky(beta=0.9, linear_features=100, threshold=0.5, init_hidden=True),
        nn.Linear(100, 10),
        snntorch.Leaky(beta=0.9, reset_mechanism="none", init_hidden=True, output=True),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 16)
    parts = network, optimizer, scheduler
    if Path(file).exists():
        order, *saved = torch.load(file)
        train.generator.set_state(order)
        for part, state in zip(parts, saved, strict=True):
            part.load_state_dict(state)
    while scheduler.last_epoch < 16:
        for x, labels in train:
            optimizer.zero_grad()
            nn.functional.cross_entropy(mean(network, x), labels).backward()
            optimizer.step()
        scheduler.step()
        torch.save([train.generator.get_state(), *(part.state_dict() for part in parts)], file)
    x, labels = next(iter(test))
    return mean(network, x).detach(), labels


run_and_kill(run, "killed.pt")
(killed, labels), (whole, _) = run("killed.pt"), run("whole.pt")
assert torch.equal(killed, whole)
result = (killed.argmax(1) == labels).float().mean().item()
assert result > 0.5, result
