"""A network learns handwritten digits under Lightning."""

import lightning
import torch
from job_data import rows
from torch import nn

import snnparams as sp

torch.manual_seed(0)
train, test = rows()
network = sp.Sequential(nn.Linear(64, 100), sp.LIF(), nn.Linear(100, 10), sp.LI())
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
model = sp.to_lightning(network, optimizer, loss=nn.functional.cross_entropy, decode=lambda out: out[0].mean(0))
quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
trainer = lightning.Trainer(accelerator="cpu", max_epochs=5, **quiet)
trainer.fit(model, train)
(found,) = trainer.test(model, test, verbose=False)
result = found["test_accuracy"]
assert result > 0.85, result
