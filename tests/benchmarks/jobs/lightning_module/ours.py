"""A network learns handwritten digits under Lightning."""

import lightning
import torch
from job_data import rows
from torch import nn

import snnparams as sp


class Classifier(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = sp.Sequential(nn.Linear(64, 100), sp.LIF(), nn.Linear(100, 10), sp.LI())

    def forward(self, x):
        return self.network(x)[0].mean(0)

    def training_step(self, batch):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def test_step(self, batch):
        self.log("accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


torch.manual_seed(0)
train, test = rows()
model = Classifier()
quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
trainer = lightning.Trainer(accelerator="cpu", max_epochs=5, **quiet)
trainer.fit(model, train)
(found,) = trainer.test(model, test, verbose=False)
result = found["accuracy"]
assert result > 0.85, result
