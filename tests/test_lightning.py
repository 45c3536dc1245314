"""A network in Lightning's loop; the extra that brings it is named where it is missing."""

import sys

import pytest
import torch
from test_fit import adam, data, model
from torch import nn

import snnparams as sp

lightning = pytest.importorskip("lightning")
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own


def loader(split, batch_size=20):
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*split), batch_size=batch_size)


def trained(module, tmp_path, epochs=3, **more):
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, **more,
    )  # fmt: skip
    trainer.fit(module, loader(data()), loader(data(30, 2)))
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


def test_its_numbers_are_those_of_fit(tmp_path):
    ours, theirs = model(dropout=0.0), model(dropout=0.0)
    history = sp.fit(ours, loader(data()), data(30, 2), adam(ours), 3, progress=False)
    measured = trained(sp.to_lightning(theirs, adam(theirs)), tmp_path)
    assert measured["train_loss"] == pytest.approx(history.train_losses[-1], rel=1e-5)
    assert measured["test_loss"] == pytest.approx(history.test_losses[-1], rel=1e-5)
    assert measured["test_accuracy"] == pytest.approx(history.accuracies[-1])
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, msg=name)


def test_it_is_tested_as_it_is_validated(tmp_path):
    module, quiet = sp.to_lightning(network := model(dropout=0.0), adam(network)), {"enable_model_summary": False}
    quiet |= {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    trainer = lightning.Trainer(accelerator="cpu", default_root_dir=tmp_path, **quiet)
    (found,) = trainer.test(module, loader(data(30, 2)), verbose=False)
    loss, accuracy = sp.evaluate(network, data(30, 2))
    assert found == {"test_loss": pytest.approx(loss), "test_accuracy": pytest.approx(accuracy)}


def test_a_loss_of_its_own_and_a_schedule(tmp_path):
    network = model(dropout=0.0)
    network.forward = lambda x: network.network(x.transpose(0, 1))
    optimizer = adam(network)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.1)
    decode = lambda out: out[0].amax(0)  # noqa: E731
    module = sp.to_lightning(network, optimizer, loss=nn.functional.cross_entropy, decode=decode, scheduler=schedule)
    assert trained(module, tmp_path, 2)["test_loss"] < 2
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-4)


def test_a_neuron_parameter_that_leaves_its_range_is_found(tmp_path):
    network = model(dropout=0.0)
    network.network[0].p.tau_mem_inv = sp.Learned(50.0, "none")
    groups = sp.parameter_groups(network, lr=0.01, neuron_lr=3000.0)
    with pytest.raises(ValueError, match=r"network\.0\.p\.tau_mem_inv: expected"):
        trained(sp.to_lightning(network, torch.optim.Adam(groups)), tmp_path)


def test_bad_input(monkeypatch):
    network = model()
    with pytest.raises(TypeError, match="model: expected a module, got int"):
        sp.to_lightning(3, adam(network))
    with pytest.raises(TypeError, match=r"optimizer: expected one of torch\.optim, got float"):
        sp.to_lightning(network, 0.1)
    with pytest.raises(TypeError, match="model: expected one network, got an Ensemble"):
        sp.to_lightning(sp.Ensemble([network, model(1)]), adam(network))
    with pytest.raises(TypeError, match="loss: expected a function of outputs and labels, got str"):
        sp.to_lightning(network, adam(network), loss="nll")
    monkeypatch.setitem(sys.modules, "lightning", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'lightning>=2\.4,<3'"):
        sp.to_lightning(network, adam(network))
