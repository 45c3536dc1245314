"""What chapter 6 says in words, beyond its own asserts, is true of the stored results."""

import itertools
import json
import math

import pytest
from notebooks import ROOT

from snnparams.conditions import LEARNABLE
from snnparams.statistics import paired_difference

RESULTS = json.loads((ROOT / "book" / "results" / "benefit.json").read_text())
HOM, HET, HOM_LEARNED, HET_LEARNED = RESULTS["taus"]["MNIST"]
SEQUENTIAL, SPOKEN, MANIFOLDS = "sequential MNIST", "spoken digits", "random manifolds"


def runs(task, name):
    return {row["seed"]: row for row in RESULTS["main"] if row["task"] == task and row["name"] == name}


def gain(task, name, value, other=HOM):
    ours, theirs = ({s: value(row) for s, row in runs(task, n).items()} for n in (name, other))
    return paired_difference(ours, theirs)


def mean(task, name, value):
    found = [value(row) for row in runs(task, name).values()]
    return sum(found) / len(found)


def accuracy(row):
    return 100 * row["test"]["accuracy"]


def accuracy_on_validation(row):
    return 100 * row["validation"]["accuracy"][-1]


def test_the_command_and_the_seeds():
    assert RESULTS["command"] == "python tests/benchmarks/benefit.py --grid default"
    assert {row["seed"] for row in RESULTS["main"]} == set(range(1, 11))
    assert {row["seed"] for row in RESULTS["tuning"]} == {100, 101, 102}
    for task in RESULTS["tasks"]:
        assert all(len(runs(task, name)) == 10 for name in RESULTS["taus"][task])


def test_spoken_digits_gain_on_the_test_split_and_hardly_on_the_other():
    on_test, on_validation = (gain(SPOKEN, HOM_LEARNED, f) for f in (accuracy, accuracy_on_validation))
    assert on_test.mean == pytest.approx(2.5, abs=0.05)
    assert all(accuracy(runs(SPOKEN, HOM_LEARNED)[s]) > accuracy(row) for s, row in runs(SPOKEN, HOM).items())
    assert on_validation.mean == pytest.approx(0.4, abs=0.05)
    assert on_validation.low < 0 < on_validation.high
    assert gain(SPOKEN, HET_LEARNED, accuracy).mean == pytest.approx(3.5, abs=0.05)


def test_sequential_mnist_leaves_room_for_small_gains():
    found = [gain(SEQUENTIAL, name, accuracy) for name in (HET, HOM_LEARNED, HET_LEARNED)]
    assert min(d.low for d in found) == pytest.approx(-9, abs=0.5)
    assert all(d.low < 0 < d.high and d.high > 1.5 for d in found)
    assert max(d.high for d in found) == pytest.approx(3, abs=0.5)


def test_low_runs_on_mnist():
    low = [
        row["name"]
        for row in RESULTS["main"]
        if row["task"] == "MNIST" and accuracy(row) < mean("MNIST", HOM_LEARNED, accuracy) - 6
    ]
    assert sorted(low) == sorted([HET, HET, HET_LEARNED, HET_LEARNED, HOM])


def test_a_bad_start_is_out_of_reach():
    settings = RESULTS["tasks"][MANIFOLDS]
    updates = settings["epochs"] * math.ceil(settings["options"]["train"] / settings["batch_size"])
    assert updates == pytest.approx(500, abs=10)
    steps = (settings["neuron_learning_rate"] * (1 - k / updates) for k in range(updates))
    assert math.exp(sum(steps)) == pytest.approx(3.5, abs=0.1)


def drop(key):
    return lambda row: 100 * (row["robustness"][key] - row["test"]["accuracy"])


def test_robustness_is_better_in_one_case_and_worse_in_another():
    assert gain(MANIFOLDS, HOM_LEARNED, drop("warp 0.5")).mean == pytest.approx(8, abs=0.5)
    assert gain(MANIFOLDS, HET_LEARNED, drop("warp 0.5")).mean == pytest.approx(13, abs=0.5)
    lost = {name: -mean(SPOKEN, name, drop("warp 2")) for name in (HOM, HET, HOM_LEARNED, HET_LEARNED)}
    assert [round(x) for x in lost.values()] == [8, 24, 20, 28]


def test_networks_that_learn_spike_more():
    def rate(row):
        return row["test"]["rate"]

    spoken = {name: mean(SPOKEN, name, rate) for name in (HOM, HET, HOM_LEARNED, HET_LEARNED)}
    assert spoken[HOM_LEARNED] / spoken[HOM] == pytest.approx(1.6, abs=0.05)
    assert spoken[HET_LEARNED] / spoken[HET] == pytest.approx(2.3, abs=0.06)
    for name in LEARNABLE[:2]:
        assert mean(SPOKEN, f"homogeneous, {name} learned", rate) > 1.2 * spoken[HOM]


def test_the_three_tuning_seeds_are_a_rare_accident():
    tau = RESULTS["taus"][SEQUENTIAL][HOM]
    few = [
        100 * row["accuracy"]
        for row in RESULTS["tuning"]
        if row["task"] == SEQUENTIAL and row["condition"] == {"tau": tau, "spread": 0.0, "learned": []}
    ]
    everything = few + [accuracy_on_validation(row) for row in runs(SEQUENTIAL, HOM).values()]

    def apart(three):
        return abs(sum(three) / 3 - (sum(everything) - sum(three)) / 10)

    triples = list(itertools.combinations(everything, 3))
    assert len(triples) == 286
    assert sum(apart(three) >= apart(few) - 1e-9 for three in triples) == 2


def test_what_is_sensitive_to_the_time_constant():
    def spread(task, kind_spread, learned):
        found = {}
        for row in RESULTS["tuning"]:
            c = row["condition"]
            if row["task"] == task and c["spread"] == kind_spread and bool(c["learned"]) == learned:
                found.setdefault(c["tau"], []).append(100 * row["accuracy"])
        means = [sum(x) / len(x) for x in found.values()]
        return max(means) - min(means)

    assert spread(SEQUENTIAL, 1.0, False) < spread(SEQUENTIAL, 0.0, False) / 1.8
    assert spread("sequential MNIST, more recurrence", 1.0, False) > spread(
        "sequential MNIST, more recurrence", 0.0, False
    )
