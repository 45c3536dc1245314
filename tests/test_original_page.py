"""Norse's page "Parameter learning in spiking neural networks", call by call, with only the imports changed.

Its names, signatures and module paths are used as its readers know them; the training code is ours, and short.
"""

import numpy as np
import torch

import snnparams
from snnparams import ConstantCurrentLIFEncoder, LICell, LIFParameters, LIFRecurrentCell


class ParametrizedLIFRecurrentCell(torch.nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.tau_mem_inv = torch.nn.Parameter(LIFParameters().tau_mem_inv + 20 * torch.randn(hidden_size))
        self.v_th = torch.nn.Parameter(0.5 + 0.1 * torch.randn(hidden_size))
        self.cell = LIFRecurrentCell(
            input_size=input_size,
            hidden_size=hidden_size,
            p=LIFParameters(tau_mem_inv=self.tau_mem_inv, v_th=self.v_th, alpha=100),
        )

    def forward(self, x, s=None):
        return self.cell(x, s)


class SNN(torch.nn.Module):
    def __init__(self, input_features, hidden_features, output_features, recurrent_cell):
        super().__init__()
        self.cell = recurrent_cell
        self.fc_out = torch.nn.Linear(hidden_features, output_features, bias=False)
        self.out = LICell()
        self.input_features = input_features

    def forward(self, x):
        s1 = so = None
        voltages = []
        for step in x:
            z, s1 = self.cell(step.view(-1, self.input_features), s1)
            vo, so = self.out(self.fc_out(z), so)
            voltages += [vo]
        return torch.stack(voltages)


def test_sampling_around_the_default():
    samples = LIFParameters().tau_mem_inv + 20 * torch.randn(100)
    assert samples.shape == (100,)
    counts, _ = np.histogram(samples)
    assert counts.sum() == 100


def test_a_plain_cell_lists_its_weights_only():
    m = LIFRecurrentCell(input_size=200, hidden_size=100)
    assert [tuple(p.shape) for p in m.parameters()] == [(100, 200), (100, 100)]


def test_printed_module():
    m = ParametrizedLIFRecurrentCell(200, 100)
    text = str(m)
    assert text.startswith("ParametrizedLIFRecurrentCell(\n  (cell): LIFRecurrentCell(")
    after = 0  # the names that Norse prints, in our order: p is a module here, so it comes last
    how = ("dt=0.001", "Surrogate('super', alpha=100)", "p", "LIFParameters(")
    for part in ("input_size=200", "hidden_size=100", "autapses=False", *how):
        after = text.index(part, after)
    for field in ("tau_syn_inv=200", "tau_mem_inv=", "v_leak=0", "v_th=", "v_reset=0"):
        after = text.index(field, after)


def test_the_wrapper_lists_time_constants_and_thresholds_first():
    m = ParametrizedLIFRecurrentCell(200, 100)
    assert [tuple(p.shape) for p in list(m.parameters())] == [(100,), (100,), (100, 200), (100, 100)]
    assert [name for name, _ in m.named_parameters()][:2] == ["tau_mem_inv", "v_th"]
    assert m.cell.p.tau_mem_inv is m.tau_mem_inv


def test_training_moves_what_the_page_wants_to_move():
    encoder = ConstantCurrentLIFEncoder(seq_length=32)
    snn = SNN(28 * 28, 100, 10, recurrent_cell=ParametrizedLIFRecurrentCell(input_size=28 * 28, hidden_size=100))
    model = torch.nn.Sequential(encoder, snn)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.002)
    before = snn.cell.cell.p.tau_mem_inv.cpu().detach().clone().numpy()
    aliased = snn.cell.cell.p.v_th.cpu().detach().numpy()  # what the page does: it changes with the training
    v_th = aliased.copy()
    data, target = torch.randn(16, 1, 28, 28) + 0.5, torch.arange(16) % 10
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        voltages = model(data)
        assert voltages.shape == (32, 16, 10)
        x, _ = torch.max(voltages, 0)
        loss = torch.nn.functional.nll_loss(torch.nn.functional.log_softmax(x, dim=1), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert (snn.cell.cell.p.tau_mem_inv.cpu().detach().numpy() != before).mean() > 0.9
    assert (aliased != v_th).mean() > 0.9


def test_the_names_of_norse_are_there():
    for name in ("LIFParameters", "LIParameters", "LIFCell", "LIFRecurrentCell", "LICell", "LIF", "LIFRecurrent", "LI"):
        assert name in snnparams.__all__
