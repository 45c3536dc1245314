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
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 8)
    parts = {"network": network, "optimizer": optimizer, "scheduler": scheduler}
    if Path(file).exists():
        saved = torch.load(file)
        train.generator.set_state(saved.pop("generator"))
        for name, part in parts.items():
            part.load_state_dict(saved[name])
    while scheduler.last_epoch < 8:
        for x, labels in train:
            optimizer.zero_grad()
            voltages, _ = network(x)
            nn.functional.cross_entropy(voltages.mean(0), labels).backward()
            optimizer.step()
        scheduler.step()
        states = {name: part.state_dict() for name, part in parts.items()}
        torch.save({"generator": train.generator.get_state(), **states}, file)
    x, labels = next(iter(test))
    voltages, _ = network(x)
    return voltages.mean(0), labels


run_and_kill(run, "killed.pt")
(killed, labels), (whole, _) = run("killed.pt"), run("whole.pt")
assert torch.equal(killed, whole)
result = (killed.argmax(1) == labels).float().mean().item()
assert result > 0.5, result
