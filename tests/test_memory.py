"""What populations remember, against closed forms."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from snnparams.experiments import memory
from snnparams.experiments.designs import Architecture, Neurons, spaced
from snnparams.experiments.memory import filter_count, memory_capacity, temporal_filters, visible_filters, white_noise
from snnparams.layers.layer import LI
from snnparams.neurons import LIParameters


def exact_rank(tau_mem, tau_syn, lags=24):
    """Return the rank of the filters in rational numbers, by Gaussian elimination."""
    rows = []
    for mem, syn in zip(tau_mem, tau_syn, strict=True):
        p, q = 1 - 1 / Fraction(mem), 1 - 1 / Fraction(syn)
        v, i, row = Fraction(0), Fraction(1), []
        for _ in range(lags):
            v = v + (i - v) * (1 - p)
            i = i * q
            row.append(v)
        rows.append(row)
    rank = 0
    for column in range(lags):
        pivot = next((r for r in range(rank, len(rows)) if rows[r][column]), None)
        if pivot is None:
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        for r in range(rank + 1, len(rows)):
            factor = rows[r][column] / rows[rank][column]
            rows[r] = [a - factor * b for a, b in zip(rows[r], rows[rank], strict=True)]
        rank += 1
    return rank


@pytest.mark.parametrize(
    ("pairs", "count"),
    [
        ([(4, 20)] * 5, 1),  # equal
        ([(4, s) for s in (5, 10, 20, 40)], 4),  # different synapses
        ([(m, 3) for m in (5, 10, 20, 40)], 4),  # different membranes
        ([(4, 20), (20, 4)], 1),  # trading places changes nothing
        ([(m, s) for m in (2, 3, 5) for s in (7, 11)], 4),  # 3 + 2 - 1, not 6
        ([(2, 3), (5, 7)], 2),  # two components
        ([(4, 4), (4, 4), (4, 8), (8, 8)], 3),  # equal pairs have filters of their own
        ([(2, 3), (3, 5), (2, 5)], 2),  # a cycle
        ([(1, 5), (2, 5), (2, 1)], 2),  # tau of one step: no memory of its own
    ],
)
def test_the_number_of_filters_is_the_rank_in_exact_numbers(pairs, count):
    tau_mem, tau_syn = zip(*pairs, strict=True)
    assert filter_count(tau_mem, tau_syn) == count == exact_rank(tau_mem, tau_syn)


def test_filters_are_what_a_leaky_integrator_does():
    taus = [(4.0, 20.0), (7.0, 7.0), (30.0, 2.0)]
    impulse = torch.zeros(60, 1, len(taus), dtype=torch.float64)
    impulse[0] = 1
    mem, syn = (1e-3 * torch.tensor(x, dtype=torch.float64) for x in zip(*taus, strict=True))
    p = LIParameters(tau_mem=mem, tau_syn=syn)
    voltages, _ = LI(p, dtype=torch.float64)(impulse)
    found = temporal_filters(*zip(*taus, strict=True), 60)
    np.testing.assert_allclose(found, voltages[:, 0].T, rtol=1e-9, atol=1e-12)


def test_exponentials_are_soon_alike():
    filters = temporal_filters(4.0, spaced(20, 7, 48).numpy(), 400)
    assert filter_count(4.0, spaced(20, 7, 48).numpy()) == 48
    assert visible_filters(filters, 1e-2) < 8
    assert visible_filters(temporal_filters(4.0, [20.0] * 5, 400), 1e-9) == 1
    with pytest.raises(ValueError, match="noise: expected more than 0"):
        visible_filters(filters, 0)


@pytest.mark.parametrize("taus", [(2, 3), (3, 3), (2, 6)])
def test_one_filter_has_a_capacity_of_one_whatever_its_shape(taus):
    inputs = white_noise(80, 400, 0)
    found = memory_capacity(memory.linear_states(Neurons(*taus), inputs, count=20), inputs, delays=60)
    assert found.total == pytest.approx(1, abs=0.1)
    shape = temporal_filters(*taus, 60)[0] ** 2
    np.testing.assert_allclose(found.by_delay, shape / shape.sum(), atol=0.03)


def test_each_filter_brings_one_and_no_more():
    inputs = white_noise(80, 400, 1)
    neurons = Neurons(2, 4, spread_syn=3, distinct=3)
    found = memory_capacity(memory.linear_states(neurons, inputs, count=30), inputs, delays=60)
    assert found.total == pytest.approx(3, abs=0.2)
    bound = memory_capacity(memory.linear_states(Neurons(2, 4, 1, 3), inputs, count=6), inputs, delays=60)
    assert 3 < bound.total < 6.6
    recurrent = memory.linear_states(Neurons(2, 2), inputs, count=6, recurrent=True)
    assert 3 < memory_capacity(recurrent, inputs, delays=60).total < 6.6


def test_a_delay_line_remembers_its_length_and_noise_nothing():
    inputs = white_noise(40, 300, 2)
    line = np.stack([np.roll(inputs, k, axis=1) for k in range(5)], axis=2)
    found = memory_capacity(line, inputs, delays=50)
    np.testing.assert_allclose(found.by_delay[:5], 1, atol=0.01)
    assert found.total == pytest.approx(5, abs=0.05)
    totals = [memory_capacity(np.random.default_rng(k).normal(size=line.shape), inputs, 50).total for k in range(20)]
    assert abs(np.mean(totals)) < 3 * np.std(totals) / 20**0.5 + 1e-3  # the bias by chance is gone
    assert abs(np.mean(totals)) < 0.02


def test_what_survives_a_spike_remembers():
    inputs = white_noise(24, 300, 3)

    def total(neurons, **architecture):
        states = memory.spiking_states(neurons, inputs, count=32, architecture=Architecture(**architecture))
        return memory_capacity(states, inputs, 60).total

    membranes, synapses = Neurons(5, 2, spread_mem=7), Neurons(2, 5, spread_syn=7)
    assert total(synapses) > total(membranes) + 0.2  # the reset erases the membrane
    assert total(membranes, reset="none") > total(membranes) + 0.2  # without it, it does not
    assert total(synapses, clear_synapse=True) < total(synapses) - 0.2  # and a synapse can be erased


def test_bad_input():
    with pytest.raises(ValueError, match=r"tau_mem: expected time constants of at least 1 time step, got \[0\.5\]"):
        filter_count(0.5, 2)
    with pytest.raises(ValueError, match="tau_syn: expected"):
        temporal_filters(2, float("nan"), 5)
    with pytest.raises(ValueError, match=r"expected \(S, T, N\) with inputs"):
        memory_capacity(np.zeros((5, 200)), np.zeros((5, 200)))
    with pytest.raises(ValueError, match="delays: expected 1 to washout = 150"):
        memory_capacity(np.zeros((5, 200, 2)), np.zeros((5, 200)), delays=151)
    with pytest.raises(ValueError, match="radius: expected more than"):
        memory.linear_states(Neurons(2, 200), white_noise(2, 10, 0), recurrent=True, count=3, radius=0.9)
