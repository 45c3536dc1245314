"""Two classes that differ in nothing but when inputs spike: delays are learned that let one of them arrive at once."""

import torch
from job_data import offsets
from torch import nn

import snnparams as sp

torch.manual_seed(0)
train, test = offsets()
p = sp.LIFParameters(tau_mem=4e-3, tau_syn=2e-3, v_th=0.5)
delays = sp.Delay(sp.Learned(torch.distributions.Uniform(1e-3, 19e-3)), size=6, max_delay=20e-3)
network = sp.Sequential(delays, nn.Linear(6, 20), sp.LIF(p), nn.Linear(20, 2), sp.LI())
before = delays.p.delay.detach().clone()
history = sp.fit(
    network,
    train,
    test,
    torch.optim.Adam(sp.parameter_groups(network, lr=1e-2, neuron_lr=5e-2)),
    epochs=8,
    loss=nn.functional.cross_entropy,
    decode=lambda out: out[0].mean(0),
)
result = history.accuracies[-1]
assert result > 0.75, result
assert (delays.p.delay - before).abs().mean() > 1e-3  # s
