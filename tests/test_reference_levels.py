"""Levels that an accuracy is seen beside, on tasks where the right answer is known."""

import inspect
import json

import pytest
import torch

from snnparams.data import tasks
from snnparams.experiments import reference_levels
from snnparams.experiments.reference_levels import GRU, all_bins, counts, gru, gru_size, linear_filters, run_reference
from snnparams.experiments.trial import TASKS

SIZES = {"train": 600, "validation": 200, "test": 400}
EASY = {"low": 0.01, "high": 0.4, "length": 10, **SIZES}


def test_counts_know_one_window_and_of_several_only_the_sum():
    assert counts(tasks.windows(1, **EASY))["test"] > 0.97
    found = counts(tasks.windows(3, **EASY))
    assert found["test"] == pytest.approx(0.75, abs=0.05)  # the majority: right three times of four
    assert len(found["strength"]) == 3


def test_bins_know_every_window_and_no_exclusive_or():
    task = tasks.windows(3, **EASY)
    assert all_bins(task, 3)["test"] > 0.97
    assert all_bins(task, 1)["test"] == pytest.approx(counts(task)["test"], abs=1e-6)
    xor = tasks.multi_timescale_xor(2, low=0.0, high=0.4, **SIZES)
    assert 0.4 < all_bins(xor, 10)["test"] < 0.8  # a line can have three of four corners right
    with pytest.raises(ValueError, match="bins: expected 1 to 30, the time steps of the task, got 31"):
        all_bins(task, 31)


def test_one_filter_knows_the_last_window_best():
    task = tasks.windows(3, **EASY)
    fast = linear_filters(task, tau_mem=(1.5,), tau_syn=(2.0,))
    assert (fast["tau_mem"], fast["tau_syn"]) == (1.5, 2.0)
    both = linear_filters(task, tau_mem=(1.5,), tau_syn=(2.0, 20.0))
    assert both["validation"] >= fast["validation"]
    assert 0.65 < both["test"] < 0.95


def test_classes():
    task = tasks.smooth_random_manifolds(300, 100, 100, classes=3, dimensions=1, steps=20)
    assert counts(task)["test"] == pytest.approx(1 / 3, abs=0.12)  # every input spikes once
    assert all_bins(task, 20)["test"] > 0.6
    assert linear_filters(task, tau_mem=(2.0,), tau_syn=(3.0,))["test"] > 0.4


@pytest.mark.parametrize("parameters", [30, 700, 1348, 9000])
def test_a_gru_has_no_more_parameters_than_it_may(parameters):
    task = tasks.windows(4, **EASY)
    size = gru_size(task, parameters)
    learned = [sum(x.numel() for x in GRU(task, n).parameters()) for n in (size, size + 1)]

    assert size == 1 or learned[0] <= parameters
    assert learned[1] > parameters


def test_a_gru_reads_classes_from_the_mean_or_the_maximum_over_time():
    assert len(inspect.signature(gru).parameters["learning_rates"].default) == 3  # those of generated tasks
    task = tasks.smooth_random_manifolds(60, 20, 20, classes=3, steps=20)
    for readout in ("mean", "max"):
        network, spikes = GRU(task, 4, readout), task.encode(task.test.inputs)
        outputs = network.out(network.gru(spikes)[0])
        expected = outputs.mean(dim=0) if readout == "mean" else outputs.amax(dim=0)
        assert torch.equal(network(spikes)[0], expected)
    with pytest.raises(ValueError, match="readout: expected 'mean' or 'max', got 'last'"):
        GRU(task, 4, "last")


def test_a_gru_learns():
    found = gru(tasks.windows(2, **EASY | {"train": 1000}), 1500, seed=0, learning_rates=(1e-4, 1e-2), epochs=4)
    assert found["test"] > 0.75
    assert found["learning_rate"] == 1e-2
    assert len(found["curve"]) == 4
    task = tasks.smooth_random_manifolds(60, 20, 20, classes=3, steps=20)
    logits, spikes = GRU(task, 4)(task.encode(task.test.inputs))
    assert logits.shape == (20, 3)
    assert spikes == []


def test_levels_by_name(monkeypatch):
    monkeypatch.setitem(TASKS, "easy", lambda **options: tasks.windows(1, **EASY, **options))
    described = {"name": "easy", "seed": 3}
    task = tasks.windows(1, **EASY, seed=3)
    assert run_reference({"task": described, "level": "chance", "options": {}}) == {"test": task.chance}
    found = run_reference({"task": described, "level": "counts", "options": {}})
    assert found == reference_levels.counts(task)
    json.dumps(run_reference({"task": described, "level": "linear", "options": {"bins": 2}}))
    with pytest.raises(ValueError, match=r"level: expected chance, counts, .*, got 'best'"):
        run_reference({"task": described, "level": "best", "options": {}})
