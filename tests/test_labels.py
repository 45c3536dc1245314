"""Labels that are no classes are refused by `fit`, `evaluate` and Lightning, with what was expected and what came."""

import copy
import math
import re

import pytest
import torch
from test_fit import Steps, adam, data, model
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import snnparams as sp

LABELS = [
    (torch.tensor([0, 1, 2] * 10), ValueError, "got 2"),
    (torch.tensor([0, -1, 1] * 10), ValueError, "got -1"),
    (torch.tensor([0, -100, 1] * 10), ValueError, "got -100"),
    (torch.tensor([0, 1, 7] * 10, dtype=torch.uint8), ValueError, "got 7"),
    (torch.tensor([0, 1] * 15, dtype=torch.int32), TypeError, "got torch.int32; call .long()"),
    (torch.tensor([False, True] * 15), TypeError, "got torch.bool; call .long()"),
    (torch.tensor([0.0, 1.0] * 15), TypeError, "got torch.float32; numbers need a loss of your own"),
    (torch.tensor([[0], [1]] * 15), ValueError, "got shape (30, 1)"),
    (nn.functional.one_hot(torch.arange(30) % 2), ValueError, "got shape (30, 2)"),
]
CLASSES = (nn.functional.nll_loss, nn.functional.cross_entropy, nn.CrossEntropyLoss(label_smoothing=0.1))


@pytest.mark.parametrize("loss", CLASSES)
@pytest.mark.parametrize(("labels", "error", "got"), LABELS, ids=[got for *_, got in LABELS])
def test_labels_that_are_no_classes(labels, error, got, loss):
    module, split = model(), data(30)
    message = "^" + re.escape(f"labels: expected classes from 0 to 1, int64 of shape (30,), {got}")
    before = copy.deepcopy(module.state_dict())
    for wrong in (sp.Split(split.inputs, labels), DataLoader(TensorDataset(split.inputs, labels), 30)):
        with pytest.raises(error, match=message):
            sp.evaluate(module, wrong, loss=loss)
        with pytest.raises(error, match=message):
            sp.fit(module, wrong, split, adam(module), 1, batch_size=30, progress=False, loss=loss)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    for member in sp.Ensemble([model(), model(1)]), Steps(model().network):
        with pytest.raises(error, match=message):
            sp.evaluate(member, sp.Split(split.inputs, labels), loss=loss)


def test_labels_that_are_words_and_axes_that_were_exchanged():
    module, split = model(), data(30)
    words = [(x, "yes") for x in split.inputs]
    with pytest.raises(TypeError, match=r"labels: expected classes from 0 to 1, int64 of shape \(30,\), got tuple"):
        sp.evaluate(module, DataLoader(words, 30))
    time_first = sp.Split(split.inputs.transpose(0, 1)[:12], split.labels[:12])
    with pytest.raises(ValueError, match=r"labels: expected classes from 0 to 1, int64 of shape \(30,\), got shape"):
        sp.evaluate(nn.Sequential(Transposed(), module), time_first)


class Transposed(nn.Module):
    def forward(self, x):
        return x.transpose(0, 1)


def test_classes_of_every_kind_that_pytorch_takes():
    module, split = model(dropout=0.0), data(30)
    expected = sp.evaluate(module, split)
    assert sp.evaluate(module, sp.Split(split.inputs, split.labels.to(torch.uint8))) == expected
    shares = nn.functional.one_hot(split.labels).double()
    found = sp.evaluate(module, sp.Split(split.inputs, shares), loss=nn.functional.cross_entropy)
    assert found.loss == pytest.approx(expected.loss)
    steps = sp.Split(split.inputs, split.labels[:, None].expand(30, 12))
    voltages = {"loss": nn.functional.cross_entropy, "decode": lambda out: out[0].permute(1, 2, 0)}
    first = nn.Sequential(Transposed(), module.network)
    assert math.isfinite(sp.evaluate(first, steps, **voltages).loss)
    with pytest.raises(ValueError, match=r"from 0 to 1, int64 of shape \(30, 12\), got 5"):
        sp.evaluate(first, sp.Split(split.inputs, steps.labels + 5 * steps.labels.roll(1, 0)), **voltages)


def test_labels_in_lightning():
    pytest.importorskip("lightning")
    network, split = model(), data(30)
    module = sp.to_lightning(network, adam(network))
    message = re.escape("labels: expected classes from 0 to 1, int64 of shape (30,), got 2")
    for step in (module.training_step, module.validation_step, module.test_step):
        with pytest.raises(ValueError, match=message):
            step((split.inputs, split.labels + 1), 0)
