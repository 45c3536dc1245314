"""What the gradient of a delay is worth: exact with the adjoint method, and what can be learned by it."""

import dataclasses

import numpy as np
import pytest
import torch
from oracles.event_driven import PARAMETERS, Network
from torch import nn

import snnparams as sp

DT = 1e-3  # s


pytestmark = pytest.mark.usefixtures("double_in_one_thread")


# -------------------------------------------------------- exactness: networks with delays in continuous time, no grid


@dataclasses.dataclass
class Delays:
    """A recurrent network in continuous time whose inputs (I,) and spikes (H,) arrive after delays, in s."""

    network: Network  # without recurrent weights
    w_in: np.ndarray
    w_rec: np.ndarray
    of_inputs: np.ndarray
    of_spikes: np.ndarray

    def run(self):
        """Return times and neurons of all spikes.

        What is delayed is input: starting from none, spikes are right for one more shortest delay after each round.
        """
        inputs = self.network.arrivals + self.of_inputs[self.network.sources]
        weights, found = np.concatenate([self.w_in, self.w_rec], axis=1), (np.empty(0), np.empty(0, int))
        while True:
            times, neurons = found
            arrivals = np.concatenate([inputs, times + self.of_spikes[neurons]])
            sources = np.concatenate([self.network.sources, self.w_in.shape[1] + neurons])
            order = np.argsort(arrivals, kind="stable")
            order = order[arrivals[order] < self.network.duration]
            given = {"arrivals": arrivals[order], "sources": sources[order], "w_in": weights}
            times, neurons, _ = dataclasses.replace(self.network, **given).run()
            if len(times) == len(found[0]) and np.allclose(times, found[0], rtol=0, atol=1e-14):
                return times, neurons
            found = times, neurons


def random_network(seed, recurrent, neurons=6, inputs=5):
    rng = np.random.default_rng(seed)
    times, sources = np.sort(rng.integers(1, 30, 12)) * 1e-3, rng.integers(0, inputs, 12)
    w_in, w_rec = rng.normal(0.7, 0.7, (neurons, inputs)), rng.normal(0, 0.4 * recurrent, (neurons, neurons))
    rates = 50 * np.exp(rng.normal(0, 0.3, neurons)), 100 * np.exp(rng.normal(0, 0.3, neurons))
    rest = np.zeros(neurons), rng.uniform(0.7, 1.3, neurons), rng.normal(0, 0.1, neurons), np.zeros(neurons)
    network = Network(times, sources, w_in, np.zeros((neurons, neurons)), *rates, *rest, 0.06)
    return Delays(network, w_in, w_rec, rng.uniform(0.5e-3, 9e-3, inputs), rng.uniform(2e-3, 9e-3, neurons))


def weights_of_spikes(seed, counts):
    """Return by how much each spike's time counts in the loss, shape (most spikes, H)."""
    return np.random.default_rng(1000 + seed).normal(size=(counts.max(), len(counts)))


def exact_gradients(delays, c, names):
    """Return the gradients of the sum of c times spike times by central differences, or None where there is none."""
    counts, gradients = np.bincount(delays.run()[1], minlength=c.shape[1]), {}

    def loss():
        times, neurons = delays.run()
        if not np.array_equal(np.bincount(neurons, minlength=c.shape[1]), counts):
            return np.nan
        order = np.array([(neurons[:k] == n).sum() for k, n in enumerate(neurons)])
        return (c[order, neurons] * times).sum()

    for name in names:
        values = getattr(delays, name)
        gradients[name] = np.zeros_like(values)
        for index in np.ndindex(values.shape):
            kept, h, results = values[index], 1e-6 * (1e-2 if name.startswith("of_") else 1), []
            for sign in (1, -1):
                values[index] = kept + sign * h
                results.append(loss())
            values[index] = kept
            gradients[name][index] = (results[0] - results[1]) / (2 * h)
    if any(np.isnan(g).any() or not g.any() for g in gradients.values()):
        return None
    return gradients


def on_the_grid(delays, c, dt):
    """Return the gradients of the modules on the time grid."""
    network, (neurons, inputs) = delays.network, delays.w_in.shape
    x = torch.zeros(round(network.duration / dt), 1, inputs)
    for time, source in zip(network.arrivals, network.sources, strict=True):
        x[round(time / dt), 0, source] += 1
    p = sp.LIFParameters(**{name: torch.tensor(getattr(network, name)) for name in PARAMETERS})
    of_inputs, of_spikes = (nn.Parameter(torch.tensor(d)) for d in (delays.of_inputs, delays.of_spikes))
    w_in, w_rec = (nn.Parameter(torch.tensor(w)) for w in (delays.w_in, delays.w_rec))
    layer = sp.DelayedRecurrentLayer(
        inputs,
        neurons,
        p,
        delay=of_spikes,
        max_delay=10e-3,
        input_weights=w_in,
        recurrent_weights=w_rec,
        autapses=True,
        dt=dt,
        gradient=sp.Adjoint(),
    )
    late, _ = sp.Delay(of_inputs, max_delay=10e-3, dt=dt)(x)
    z, _ = layer(late)
    (torch.tensor(c)[:, None] * sp.spike_times(z, dt, len(c), missing=0.0)).sum().backward()
    found = {"of_inputs": of_inputs, "of_spikes": of_spikes, "w_in": w_in, "w_rec": w_rec}
    return {name: parameter.grad.numpy() for name, parameter in found.items()}


@pytest.mark.parametrize("recurrent", [False, True])
def test_adjoint_gradients_of_delays_converge_to_those_in_continuous_time(recurrent):
    names = ("of_inputs", "w_in", *(("of_spikes", "w_rec") if recurrent else ()))
    errors, seed = {name: [] for name in names}, 0
    while len(errors["w_in"]) < 15:
        seed += 1
        delays = random_network(seed, recurrent)
        counts = np.bincount(delays.run()[1], minlength=6)
        if counts.max() < 2:
            continue
        c = weights_of_spikes(seed, counts)
        exact = exact_gradients(delays, c, names)
        if exact is None:
            continue
        results = [on_the_grid(delays, c, dt) for dt in (1e-4, 1e-5)]
        for name, truth in exact.items():
            length = np.linalg.norm(truth)
            errors[name].append([np.linalg.norm(result[name] - truth) / length for result in results])
    for name, found in errors.items():
        coarse, fine = np.median(found, axis=0)
        assert fine < 0.02, (name, coarse, fine)
        assert fine < 0.3 * coarse, (name, coarse, fine)


def test_a_longer_delay_of_one_input_moves_a_spike_by_as_much():
    """One neuron, one input spike: the spike comes later by what the delay is longer, so the derivative is 1."""
    delay, dt = nn.Parameter(torch.tensor([3.2e-3])), 1e-6
    x = torch.zeros(20_000, 1, 1)
    x[1000] = 4.0
    p = sp.LIFParameters(tau_mem=1 / 60, tau_syn=1 / 140, v_th=0.7)
    z, _ = sp.LIF(p, dt=dt, gradient=sp.Adjoint())(sp.Delay(delay, max_delay=5e-3, dt=dt)(x)[0])
    sp.spike_times(z, dt).sum().backward()
    assert delay.grad.item() == pytest.approx(1.0, rel=1e-3)


# --------------------------------------------------------------------------------------- what can be learned by it


def recover(start, outputs, true, *, lr=0.03, rounds=400):
    """Learn delays from what those that are looked for make of random spikes; return the errors in steps."""
    delays = sp.Delay(sp.Learned(start), max_delay=25e-3, size=len(true))
    with torch.no_grad():
        target = outputs(sp.Delay(true))
    optimizer = torch.optim.Adam(delays.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, rounds)
    for _ in range(rounds):
        optimizer.zero_grad()
        (outputs(delays) - target).square().mean().backward()
        optimizer.step()
        schedule.step()
    return (delays.p.delay.detach() - true).abs() / DT


def problem(inputs=12):
    """Return random spikes (T, B, I) and delays (I,) of no whole number of steps, 3 to 15 ms."""
    return (torch.rand(120, 8, inputs) < 0.05).double(), DT * (3 + 12 * torch.rand(inputs))


def smoothed(tau):
    """Return a leaky integrator with these time constants in s, a filter of spikes."""
    return sp.LI(sp.LIParameters(tau_mem=tau, tau_syn=tau / 2))


@pytest.mark.parametrize(
    ("gradient", "worst"), [(sp.Surrogate("super", 20.0), 0.1), (sp.Adjoint(), 0.5)], ids=["surrogate", "adjoint"]
)
def test_delays_are_recovered_from_the_spikes_of_a_layer(gradient, worst):
    """The condition: they start within a few steps, less than what the membranes smooth over.

    The adjoint gradient is that without a grid, so that on a grid of 1 ms it does not vanish at the target: single
    delays, not most, end up further than a tenth of a step away.
    """
    x, true = problem()
    weights, smooth = 1.5 * torch.randn(40, len(true)), smoothed(10e-3)
    layer = sp.LIF(sp.LIFParameters(v_th=0.4), gradient=gradient)
    start = true + 3 * DT * (2 * torch.rand(len(true)) - 1)
    errors = recover(start, lambda delays: smooth(layer(delays(x)[0] @ weights.T)[0])[0], true)
    assert errors.median() < 0.1
    assert errors.max() < worst


def test_from_afar_spikes_alone_teach_a_delay_nothing():
    """Up to 17 steps away: spike by spike the loss is flat but for chance; filtered over 20 ms it leads there."""
    x, true = problem()
    start, smooth = torch.full((len(true),), 20e-3), smoothed(20e-3)
    unfiltered = recover(start, lambda delays: delays(x)[0], true)
    assert unfiltered.median() > 5
    assert recover(start, lambda delays: smooth(delays(x)[0])[0], true).max() < 0.1
    # spike by spike it works between the same two steps alone, where small steps do not leave them
    near = DT * ((true / DT).floor() + 0.5)
    assert recover(near, lambda delays: delays(x)[0], true, lr=0.003).max() < 0.1
