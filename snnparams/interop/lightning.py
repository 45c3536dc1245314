"""A network in Lightning's own loop, with its loggers, devices and strategies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import nll_loss

from snnparams.training.loop import validate_neuron_parameters
from snnparams.training.measures import Loss, Measure, classes_found, rows_of


def to_lightning(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    loss: Loss = nll_loss,
    decode: Callable[[Any], Any] | None = None,
    scheduler: Any = None,
) -> Any:
    """Return a `LightningModule` that trains a model as `snnparams.fit` does, batch by batch.

    ::

        module = to_lightning(model, torch.optim.Adam(parameter_groups(model, lr=1e-2)))
        lightning.Trainer(max_epochs=5).fit(module, train_loader, test_loader)

    It logs "train_loss" and, validated or tested, "test_loss" and "test_accuracy", which is NaN where labels are no
    classes. It checks neuron parameters after each epoch.

    Args:
        model: as in `snnparams.fit`; it is `module.model`.
        optimizer: over the model's parameters.
        loss: as in `snnparams.fit`.
        decode: as in `snnparams.fit`.
        scheduler: of the learning rate, or None.

    Returns:
        The module. Its batches are pairs of inputs and labels.

    Raises:
        ModuleNotFoundError: if Lightning is not installed: `pip install 'lightning>=2.4,<3'`.
        TypeError: if model, optimiser or loss is none.
        ValueError: while it is trained, if the outputs are no log-probabilities where those are expected, or a neuron
            parameter has left its valid range.
    """
    try:
        import lightning
    except ModuleNotFoundError:
        raise ModuleNotFoundError("expected the package lightning: pip install 'lightning>=2.4,<3'") from None
    measure = Measure(model, loss, decode)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer: expected one of torch.optim, got {type(optimizer).__name__}")
    if measure.members is not None:
        raise TypeError("model: expected one network, got an Ensemble, which snnparams.fit trains")

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch, index):
            inputs, labels = batch
            value = measure.losses(measure.outputs(inputs, labels))[0]
            self.log("train_loss", value)
            return value

        def validation_step(self, batch, index):
            inputs, labels = batch
            pairs = measure.outputs(inputs, labels)
            rows = rows_of(labels)
            self.log("test_loss", measure.losses(pairs)[0], batch_size=rows)
            self.log("test_accuracy", classes_found(*pairs[0]) / rows, batch_size=rows)

        test_step = validation_step

        def on_train_epoch_end(self):
            validate_neuron_parameters(self.model)

        def configure_optimizers(self):
            return optimizer if scheduler is None else {"optimizer": optimizer, "lr_scheduler": scheduler}

    return Module()
