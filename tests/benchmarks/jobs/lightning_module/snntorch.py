"""A network learns handwritten digits under Lightning."""

import lightning
import snntorch
import torch
from job_data import rows
from snntorch import functional, utils
from torch import nn


class Classifier(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(64, 100),
            snntorch.Leaky(beta=0.9, init_hidden=True),
            nn.Linear(100, 10),
            snntorch.Leaky(beta=0.9, init_hidden=True, output=True),
        )

    def forward(self, x):
        utils.reset(self.network)
        return torch.stack([self.network(step)[0] for step in x])

    def training_step(self, batch):
        return functional.ce_rate_loss()(self(batch[0]), batch[1])

    def test_step(self, batch):
        self.log("accuracy", functional.accuracy_rate(self(batch[0]), batch[1]))

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
