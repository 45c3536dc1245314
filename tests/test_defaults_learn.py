"""A newcomer's network of default neurons learns as Norse's does."""

import pytest
import torch
from peers import norse
from sklearn.datasets import load_digits
from torch import nn

import snnparams as sp

STEPS, EPOCHS, TRAINING = 16, 4, 1400


class Network(nn.Module):
    """Two layers of spiking neurons and a leaky readout, for currents (B, 64)."""

    def __init__(self, lif, li):
        super().__init__()
        torch.manual_seed(0)
        self.encode = sp.ConstantCurrentLIFEncoder(STEPS)
        self.first, self.second, self.third = nn.Linear(64, 64), nn.Linear(64, 48), nn.Linear(48, 10)
        self.hidden, self.deep, self.out = lif(), lif(), li()

    def forward(self, currents):
        z, _ = self.hidden(self.first(self.encode(currents)))
        z, _ = self.deep(self.second(z))
        return torch.log_softmax(self.out(self.third(z))[0].amax(0), dim=1)


def digits():
    images, labels = load_digits(return_X_y=True)
    currents, labels = torch.tensor(images, dtype=torch.float32) / 2, torch.tensor(labels)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    first, last = order[:TRAINING], order[TRAINING:]
    return sp.Split(currents[first], labels[first]), sp.Split(currents[last], labels[last])


def accuracy(network, training, test):
    optimizer, generator = torch.optim.Adam(network.parameters(), lr=1e-2), torch.Generator().manual_seed(2)
    for _ in range(EPOCHS):
        sp.train(network, training, optimizer, generator, batch_size=64, progress=False)
    return sp.evaluate(network, test).accuracy


@pytest.fixture
def _one_thread():
    """Small products: threads would cost more than they save, above all where others compute as well."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_one_thread")
def test_default_neurons_learn_as_norses_do():
    training, test = digits()
    ours = accuracy(Network(sp.LIF, sp.LI), training, test)
    theirs = accuracy(Network(lambda: norse.LIF(), lambda: norse.LI()), training, test)
    steep = accuracy(Network(lambda: sp.LIF(sp.LIFParameters(alpha=100)), sp.LI), training, test)
    assert ours > 0.6  # chance is 0.1
    assert abs(ours - theirs) < 0.05
    assert steep < ours - 0.2  # an explicit alpha is obeyed
