"""A neuron whose threshold rises with its spikes, and a membrane time constant of its own for each, learned."""

import torch
from job_data import rows
from torch import nn

import snnparams as sp


class Adaptive(sp.Neuron):
    state = ("v", "c")
    tau_mem_inv = sp.rate(1 / 10e-3, time="tau_mem")
    v_th = sp.voltage(0.5)

    def constants(dt, tau_mem_inv):
        return {"a": dt * tau_mem_inv}

    def step(x, v, c, a, v_th, spike):
        v = v + a * (x - v)
        z = spike(v, v_th + 0.1 * c)
        return z, v * (1 - z), c + 0.05 * (z - c)


torch.manual_seed(0)
train, test = rows()
neurons = sp.Layer(Adaptive(tau_mem=sp.Learned(10e-3)), size=100)
network = sp.Sequential(nn.Linear(64, 100), neurons, nn.Linear(100, 10), sp.LI())
history = sp.fit(
    network,
    train,
    test,
    torch.optim.Adam(network.parameters(), lr=1e-2),
    epochs=5,
    loss=nn.functional.cross_entropy,
    decode=lambda out: out[0].mean(0),
)
decay = 1e-3 * neurons.p.tau_mem_inv
assert decay.shape == (100,)
assert 0 < decay.min() < decay.max() < 1, decay
result = history.accuracies[-1]
assert result > 0.85, result
