"""A recurrent network learns spoken digits with a schedule; a killed run goes on to the same numbers."""

from pathlib import Path

import torch
from job_data import run_and_kill, spoken_digits
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn


def run(file):
    torch.manual_seed(0)
    train, test = spoken_digits()
    network = nn.Sequential(
        nn.Linear(20, 100),
        layer.LinearRecurrentContainer(neuron.LIFNode(v_threshold=0.5), 100, 100, step_mode="m"),
        nn.Linear(100, 10),
        layer.SynapseFilter(tau=10.0, step_mode="m"),
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
            nn.functional.cross_entropy(network(x).mean(0), labels).backward()
            optimizer.step()
            functional.reset_net(network)
        scheduler.step()
        torch.save([train.generator.get_state(), *(part.state_dict() for part in parts)], file)
    x, labels = next(iter(test))
    return network(x).mean(0), labels


run_and_kill(run, "killed.pt")
(killed, labels), (whole, _) = run("killed.pt"), run("whole.pt")
assert torch.equal(killed, whole)
result = (killed.argmax(1) == labels).float().mean().item()
assert result > 0.5, result
