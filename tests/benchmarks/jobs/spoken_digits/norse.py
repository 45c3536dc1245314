"""A recurrent network learns spoken digits with a schedule; a killed run goes on to the same numbers."""

from pathlib import Path

import norse.torch as norse
import torch
from job_data import run_and_kill, spoken_digits
from torch import nn


def run(file):
    torch.manual_seed(0)
    train, test = spoken_digits()
    network = norse.SequentialState(
        norse.LIFRecurrent(20, 100, norse.LIFParameters(v_th=torch.tensor(0.5))), nn.Linear(100, 10), norse.LI()
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
            nn.functional.cross_entropy(network(x)[0].mean(0), labels).backward()
            optimizer.step()
        scheduler.step()
        torch.save([train.generator.get_state(), *(part.state_dict() for part in parts)], file)
    x, labels = next(iter(test))
    return network(x)[0].mean(0), labels


run_and_kill(run, "killed.pt")
(killed, labels), (whole, _) = run("killed.pt"), run("whole.pt")
assert torch.equal(killed, whole)
result = (killed.argmax(1) == labels).float().mean().item()
assert result > 0.5, result
