"""The script behind chapter 5's comparison: conditions, choice of rates, statistics; and the results that it stored."""

import json
import sys

import numpy as np
import pytest
import torch
from notebooks import ROOT
from scipy import stats

sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
import conditioning

RESULTS = json.loads((ROOT / "book" / "results" / "conditioning.json").read_text())


def test_students_of_all_seeds_at_once_are_students_trained_alone(double):
    together = conditioning.recover("log", 1.0, 0.1, [0, 1], epochs=1)
    for k, seed in enumerate((0, 1)):
        alone = conditioning.recover("log", 1.0, 0.1, [seed], epochs=1)
        for name in ("loss", "tau_mem", "v_th", "true_tau_mem"):
            torch.testing.assert_close(together[name][k], alone[name][0], rtol=1e-9, atol=1e-12)


def test_training_brings_a_student_closer_to_its_teacher():
    length = conditioning.EXPERIMENTS["recovery"][2]
    start, later = (conditioning.recover("log", 1.0, 0.1, [3], epochs) for epochs in (1, length))
    errors = [(f["tau_mem"] / f["true_tau_mem"] - 1).abs().median().item() for f in (start, later)]
    assert errors[1] < 0.3 * errors[0]
    assert later["loss"] < start["loss"]


def test_the_clamp_freezes_what_leaves_its_range():
    theta = torch.tensor([-0.1, 0.5, 1.5], requires_grad=True)
    rate = conditioning.Clamp()(theta)
    rate.sum().backward()
    assert theta.grad.tolist() == pytest.approx([0, 1 / conditioning.DT, 0])
    assert conditioning.Clamp().right_inverse(rate)[1] == 0.5


def test_frozen_is_what_ends_at_a_bound_of_the_clamp_whatever_the_last_batch_says():
    found = conditioning.recover(conditioning.Clamp(), 1.0, 1.0, [0, 1], epochs=1)
    shares = conditioning.DT / found["tau_mem"]
    at_a_bound = (shares < 1e-3 * 1.0001) | (shares > 0.999 * 0.9999)
    assert found["frozen"].tolist() == at_a_bound.sum(-1).tolist()
    assert found["frozen"].sum() > 0
    for name in ("raw, own rate", "softplus", "decay", "log"):
        constraint, ratio = conditioning.CONDITIONS[name]
        assert conditioning.recover(constraint, ratio, 1.0, [0, 1], epochs=1)["frozen"].sum() == 0


def test_recall_depends_on_its_cue_alone():
    spikes, labels = conditioning.cues(400, torch.Generator().manual_seed(0))
    assert spikes.shape == (100, 400, 40)
    by_group = spikes.unflatten(2, (4, 10)).mean(3)
    assert (by_group[: conditioning.CUE].mean(0).argmax(1) == labels).float().mean() > 0.99
    late = by_group[conditioning.CUE :].mean(0).argmax(1)
    assert 0.15 < (late == labels).float().mean() < 0.35


def test_the_rate_with_the_smallest_loss_is_chosen_and_one_that_breaks_is_not():
    losses = dict(zip(conditioning.RATES, [3.0, 1.0, 2.0, float("nan"), float("inf"), 0.5 + 1], strict=True))

    def experiment(constraint, ratio, lr, seeds, length):
        assert list(seeds) == list(conditioning.TUNING_SEEDS)
        return {"loss": torch.tensor([losses[lr]])}

    chosen, kept = conditioning.choose_rate(experiment, None, 1.0, 1)
    assert chosen == conditioning.RATES[1]
    assert len(kept) == 4


def test_the_interval_is_that_of_scipy():
    values = torch.randn(10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mean, low, high = conditioning.interval(values)
    theirs = stats.bootstrap((values.numpy(),), np.mean, method="percentile", n_resamples=200_000)
    assert mean == pytest.approx(values.mean().item(), abs=1e-4)
    assert (low, high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.03)


def test_the_stored_results():
    assert {"command", "date", "machine", "versions", "seeds", "tuning_seeds"} <= set(RESULTS)
    assert not set(RESULTS["seeds"]) & set(RESULTS["tuning_seeds"])
    for name, (_, summary, _) in conditioning.EXPERIMENTS.items():
        assert list(RESULTS[name]) == list(conditioning.CONDITIONS)
        for condition, result in RESULTS[name].items():
            losses = {float(lr): loss for lr, loss in result["validation_losses"].items()}
            assert set(losses) == set(conditioning.RATES), condition  # the same budget
            assert result["learning_rate"] == min(losses, key=losses.get)
            assert result["ratio"] == conditioning.CONDITIONS[condition][1]
        assert summary.__name__.endswith(name)
    recovery = RESULTS["recovery"]
    at_a_bound = [sum(tau in (1.0, 0.001001) for tau in of_seed) for of_seed in recovery["clamp"]["tau_mem"]]
    assert recovery["clamp"]["frozen"] == at_a_bound  # rounded as the file has them
    assert all(sum(result["frozen"]) == 0 for name, result in recovery.items() if name != "clamp")
    for condition, result in recovery.items():
        found, true = torch.tensor(result["tau_mem"]), torch.tensor(result["true_tau_mem"])
        errors = (found / true - 1).abs().median(-1).values
        assert result["error_tau_mem"]["of seeds"] == pytest.approx(errors.tolist(), rel=0.05, abs=1e-3)
        assert len(errors) >= 10
        assert (errors <= 0.05).all() == (condition != "raw, shared rate"), condition
