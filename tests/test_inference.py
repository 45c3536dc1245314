"""Power, equivalence and contrasts: against closed forms and simulations; predictions."""

import math

import numpy as np
import pytest
from scipy import stats

from snnparams.experiments.predictions import decide
from snnparams.experiments.statistics import (
    contrast,
    corrected_contrast,
    equivalence,
    mean_contrast,
    smallest_effect,
    t_power,
)


def test_a_contrast_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 2, 9), rng.normal(0, 1, 9)
    found = contrast({"a": dict(enumerate(a)), "b": dict(enumerate(b))}, {"a": 1, "b": -1})
    test = stats.ttest_rel(a, b)
    interval = test.confidence_interval(0.95)
    assert (found.mean, found.p) == pytest.approx(((a - b).mean(), test.pvalue))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.deviation == pytest.approx((a - b).std(ddof=1))
    assert found.detectable == pytest.approx(smallest_effect(9) * found.deviation)


def test_an_interaction_is_free_of_main_effects_and_blocks():
    rng = np.random.default_rng(1)
    block = rng.normal(0, 50, 12)
    noise = rng.normal(0, 1e-3, (2, 2, 12))
    cells = {
        f"{d}{r}": dict(enumerate(block + 3 * d + 7 * r + 5 * d * r + noise[d, r])) for d in (0, 1) for r in (0, 1)
    }
    found = contrast(cells, {"11": 1, "10": -1, "01": -1, "00": 1})
    assert found.mean == pytest.approx(5, abs=0.01)
    main = contrast(cells, {"11": 0.5, "10": 0.5, "01": -0.5, "00": -0.5})
    assert main.mean == pytest.approx(3 + 2.5, abs=0.01)
    assert main.high - main.low < 0.01


def test_power_of_a_t_test():
    for effect, n in ((0.5, 10), (1.0, 10), (0.0, 7)):
        samples = np.random.default_rng(2).normal(effect, 1, (20_000, n))
        share = (stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean()
        assert t_power(effect, n) == pytest.approx(share, abs=0.015)
    assert t_power(0, 12) == pytest.approx(0.05, abs=1e-6)
    assert t_power(smallest_effect(2), 2) == pytest.approx(0.8, abs=1e-6)
    assert t_power(smallest_effect(20), 20) == pytest.approx(0.8, abs=1e-6)
    assert smallest_effect(20) == pytest.approx(0.66, abs=0.005)  # as in tables (Cohen 1988)


def test_equivalence_is_two_one_sided_tests():
    d = np.random.default_rng(3).normal(0.2, 1, 15)
    t = [(d.mean() + 1) / (d.std(ddof=1) / 15**0.5), (1 - d.mean()) / (d.std(ddof=1) / 15**0.5)]
    assert equivalence(d, 1) == pytest.approx(max(stats.t.sf(t, 14)))
    assert equivalence([0.1, 0.1, 0.1], 1) == 0
    assert equivalence([2, 2, 2], 1) == 1


def test_equivalence_is_claimed_falsely_as_often_as_it_says():
    samples = np.random.default_rng(4).normal(1.0, 0.5, (2000, 12))  # exactly at the margin
    share = np.mean([equivalence(row, 1.0) < 0.05 for row in samples])
    assert share == pytest.approx(0.05, abs=0.02)


def test_overlapping_splits():
    d = [1.0, 2.0, 4.0, 3.0, 2.5]
    found = corrected_contrast(d, 0.25)
    error = np.std(d, ddof=1) * math.sqrt(1 / 5 + 0.25)
    assert found.p == pytest.approx(2 * stats.t.sf(2.5 / error, 4))
    assert found.high - found.mean == pytest.approx(stats.t.ppf(0.975, 4) * error)


def test_the_correction_keeps_false_positives_down():
    rng = np.random.default_rng(5)
    plain, corrected = [], []
    for _ in range(2000):  # results of splits that share a part of their training data: correlation 0.2
        d = rng.normal(0, math.sqrt(0.2)) + rng.normal(0, math.sqrt(0.8), 5)
        plain.append(mean_contrast(d).p < 0.05)
        corrected.append(corrected_contrast(d, 0.25).p < 0.05)
    assert np.mean(plain) > 0.1
    assert np.mean(corrected) == pytest.approx(0.05, abs=0.02)  # rho = 0.2 is what the correction supposes


def test_bad_input():
    two = {"a": {1: 1.0, 2: 2.0}, "b": {1: 0.0, 2: 0.0}, "c": {1: 0.0, 3: 0.0}}
    with pytest.raises(ValueError, match=r"weights: expected names among a, b, c, got 'd'"):
        contrast(two, {"a": 1, "d": -1})
    for weights in ({"a": 1, "b": -2}, {"a": 0, "b": 0}):
        with pytest.raises(ValueError, match="weights: expected some that add up to 0"):
            contrast(two, weights)
    with pytest.raises(ValueError, match="seeds: expected the same"):
        contrast(two, {"a": 1, "c": -1})
    with pytest.raises(ValueError, match="level: expected a number between 0 and 1, got 1"):
        mean_contrast([1, 2], 1)
    with pytest.raises(ValueError, match="margin: expected a positive number, got 0"):
        equivalence([1, 2], 0)
    with pytest.raises(ValueError, match="test_share: expected a positive number, got 0"):
        corrected_contrast([1, 2], 0)
    with pytest.raises(ValueError, match="n: expected at least 2, got 1"):
        t_power(1, 1)
    with pytest.raises(ValueError, match=r"power: expected more than 0\.05, got 0\.04"):
        smallest_effect(5, 0.04)
    with pytest.raises(ValueError, match="differences: expected at least two finite numbers"):
        mean_contrast([1, math.nan])


# -------------------------------------------------------------------------------------------------------- predictions


def rows(condition, accuracies, seeds=range(1, 5), stage="core"):
    return [
        {"stage": stage, "task": "t", "condition": condition, "seed": seed, "accuracy": a}
        for seed, a in zip(seeds, accuracies, strict=False)
    ]


PREDICTION = {"id": "x", "measure": "accuracy", "contrast": [["core", "t", "a", 1], ["core", "t", "b", -1]]}


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (9, 11, "hit"),
        (9, None, "hit"),
        (None, 9, "miss"),
        (11, 12, "miss"),
        (10, None, "undecided"),
        (10, 10.01, "undecided"),
    ],
)
def test_hit_miss_undecided(low, high, verdict):
    found = decide(
        {**PREDICTION, "low": low, "high": high},
        rows("a", [20, 21, 22, 23.0]) + rows("b", [10, 11.1, 12, 12.9]) + rows("b", [0, 1, 2, 3], stage="causes"),
    )
    assert found.verdict == verdict
    assert found.contrast.mean == pytest.approx(10)


def test_only_seeds_in_common_count():
    prediction = {**PREDICTION, "low": 0, "high": None}
    found = decide(prediction, rows("a", [5, 6, 7, 50]) + rows("b", [1, 2.1, 2.9], range(1, 4)))
    assert found.contrast.n == 3
    assert decide(prediction, rows("a", [1, 2])).verdict == "not run"
    with pytest.raises(ValueError, match="rows: expected one for each seed, got two of"):
        decide(prediction, rows("a", [1, 2]) + rows("a", [1, 2]))
    with pytest.raises(ValueError, match="x: expected low < high, got 3 and 2"):
        decide({**PREDICTION, "low": 3, "high": 2}, [])
