"""Statistics against cases computed by hand, and on simulated data without any difference."""

import itertools

import numpy as np
import pytest
from scipy import stats

from snnparams.experiments.statistics import compare, contrast, holm, mean_interval, paired_difference, permutation_test


def by_seed(values):
    return dict(enumerate(values))


def test_permutation_test_counts_all_exchanges_of_signs():
    d = [0.3, -0.1, 0.5, 0.2, 0.4, 0.1]
    sums = [abs(sum(s * x for s, x in zip(signs, d, strict=True))) for signs in itertools.product([1, -1], repeat=6)]
    expected = sum(value >= sum(d) - 1e-12 for value in sums) / 64
    found = paired_difference(by_seed(d), by_seed([0.0] * 6))
    assert found.p == pytest.approx(expected)
    assert found.mean == pytest.approx(1.4 / 6)
    assert found.effect == pytest.approx(np.mean(d) / np.std(d, ddof=1))
    assert found.n == 6


def test_a_difference_that_all_seeds_share_has_the_smallest_p():
    a, b = by_seed(np.arange(10) + 1.0 + 0.1 * np.arange(10)), by_seed(np.arange(10) + 0.0)
    assert paired_difference(a, b).p == pytest.approx(2 / 2**10)
    assert paired_difference(b, a).p == pytest.approx(2 / 2**10)
    assert paired_difference(b, a).mean == -paired_difference(a, b).mean


def test_pairs_are_formed_by_seed_not_by_order():
    a, b = {0: 1.0, 1: 5.0, 2: 9.0}, {2: 8.0, 0: 0.5, 1: 4.0}
    assert paired_difference(a, b).mean == pytest.approx((0.5 + 1 + 1) / 3)


def test_equal_differences():
    a, b = by_seed([1.0, 2.0, 3.0]), by_seed([0.5, 1.5, 2.5])
    assert paired_difference(a, b)[:4] == (0.5, 0.5, 0.5, np.inf)
    assert paired_difference(a, a)[:5] == (0.0, 0.0, 0.0, 0.0, 1.0)


def test_more_seeds_than_can_be_counted():
    rng = np.random.default_rng(0)
    d = by_seed(rng.normal(0.5, 1, 40))
    found = paired_difference(d, by_seed([0.0] * 40))
    assert found.p == pytest.approx(stats.ttest_1samp(list(d.values()), 0).pvalue, rel=0.3)
    assert found == paired_difference(d, by_seed([0.0] * 40))  # the same each time


def test_interval_is_near_that_of_student_and_holds_the_true_mean_often_enough():
    rng = np.random.default_rng(1)
    x = rng.normal(3, 2, 50)
    mean, low, high = mean_interval(x)
    expected = stats.t.interval(0.95, 49, loc=x.mean(), scale=stats.sem(x))
    assert mean == pytest.approx(x.mean())
    assert (low, high) == pytest.approx(expected, abs=0.1)
    assert mean_interval([2.0, 2.0, 2.0]) == (2.0, 2.0, 2.0)
    intervals = [mean_interval(rng.normal(size=10)) for _ in range(300)]
    assert 0.85 < np.mean([low < 0 < high for _, low, high in intervals]) < 0.97  # the docstring says 90 %


def test_holm_by_hand():
    # 4 x 0.01, 3 x 0.02, 2 x 0.035, 1 x 0.04 and never less than the one before
    found = holm({"a": 0.02, "b": 0.04, "c": 0.01, "d": 0.035})
    assert found == pytest.approx({"a": 0.06, "b": 0.07, "c": 0.04, "d": 0.07})
    assert list(found) == ["a", "b", "c", "d"]
    assert holm({"a": 0.6, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


@pytest.mark.parametrize("skewed", [False, True])
def test_false_positives_on_data_without_a_difference(skewed):
    rng = np.random.default_rng(2)
    repeats, single, any_of_three = 500, 0, 0
    for _ in range(repeats):
        noise = rng.exponential(size=(4, 10)) if skewed else rng.normal(size=(4, 10))
        *conditions, baseline = noise + rng.normal(size=10)  # what a seed adds to all conditions
        p = [permutation_test(condition - baseline) for condition in conditions]
        single += p[0] <= 0.05
        any_of_three += min(holm(by_seed(p)).values()) <= 0.05
    limit = 0.05 + 3 * np.sqrt(0.05 * 0.95 / repeats)
    assert single / repeats <= limit
    assert any_of_three / repeats <= limit
    assert single > 0  # a test that never rejects would keep the rate as well


def test_a_real_difference_is_found():
    rng = np.random.default_rng(3)
    p = [permutation_test(rng.normal(1.5, 1, 10)) for _ in range(100)]
    found = sum(value <= 0.05 for value in p)
    assert found > 90


def test_compare_corrects_for_the_number_of_conditions():
    base = np.arange(10) / 10
    data = {"base": by_seed(base), "same": by_seed(base), "better": by_seed(base + 1 + base / 9)}
    found = compare(data, "base")
    assert set(found) == {"same", "better"}
    assert found["better"].p == pytest.approx(2 * 2 / 2**10)
    assert found["same"].p == 1.0


def test_bad_input():
    with pytest.raises(ValueError, match=r"expected the same in both conditions, got \[1, 3\] in one of them only"):
        paired_difference({0: 1.0, 1: 2.0}, {0: 1.0, 3: 2.0})
    for use in (
        lambda: compare({"a": [0.9, 0.8], "b": by_seed([1, 2])}, "b"),
        lambda: compare({"a": [0, 1]}, "a"),
        lambda: paired_difference([0.9, 0.8], by_seed([1, 2])),
        lambda: contrast({"a": [0, 1], "b": [0, 1]}, {"a": 1, "b": -1}),
    ):
        with pytest.raises(TypeError, match=r"a: expected numbers by seed, as dict\(zip\(seeds, numbers\)\), got list"):
            use()
    assert compare({5: by_seed([1, 2]), 20: by_seed([1, 2])}, 5)[20].mean == 0  # names may be numbers
    with pytest.raises(ValueError, match="at least two finite numbers"):
        mean_interval([1.0])
    with pytest.raises(ValueError, match="at least two finite numbers"):
        paired_difference(by_seed([1.0, np.nan]), by_seed([1.0, 2.0]))
    with pytest.raises(ValueError, match="expected one of a, b, got 'c'"):
        compare({"a": by_seed([1, 2]), "b": by_seed([1, 2])}, "c")
    with pytest.raises(ValueError, match="from 0 to 1"):
        holm({"a": 1.5})
    for level in (0, 1, 95, np.nan):
        with pytest.raises(ValueError, match=f"level: expected a number between 0 and 1, got {level}"):
            mean_interval([1.0, 2.0], level)


def by_whole_numbers(a, b):
    """Return the p-value of differences of whole numbers, whose sums are exact."""
    d = [x - y for x, y in zip(a, b, strict=True)]
    sums = [
        abs(sum(s * x for s, x in zip(signs, d, strict=True))) for signs in itertools.product([1, -1], repeat=len(d))
    ]
    return sum(value >= abs(sum(d)) for value in sums) / len(sums)


def test_accuracies_that_differ_by_the_same_counts_are_tied():
    """Accuracies are fractions of a test set: sums of their differences are equal but for rounding."""
    a = [9210, 9254, 9230, 9592, 9354, 9092, 9391, 9528]
    b = [9211, 9249, 9228, 9587, 9352, 9093, 9389, 9523]
    of_ten_thousand = [by_seed(np.array(x) / 10_000) for x in (a, b)]
    assert by_whole_numbers(a, b) == 14 / 256
    assert paired_difference(*of_ten_thousand).p == 14 / 256
    assert paired_difference(*of_ten_thousand[::-1]).p == 14 / 256
    rng = np.random.default_rng(4)
    for total in (100, 2000, 10_000):
        for _ in range(100):
            a, b = rng.integers(total // 2, total // 2 + 9, (2, 8))
            assert permutation_test(a / total - b / total) == by_whole_numbers(a.tolist(), b.tolist())


def test_ties_count_among_random_combinations_as_well():
    d = np.tile([0.1, 0.2, -0.3, 0.3], 5)  # 20 differences, in tenths
    found = permutation_test(d)
    assert found == permutation_test(-d) == permutation_test(np.tile([1.0, 2.0, -3.0, 3.0], 5))
    bits = np.arange(2**20)[:, None] >> np.arange(20) & 1
    exact = (np.abs((1 - 2 * bits) @ np.tile([1, 2, -3, 3], 5)) >= 15).mean()
    assert found == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 100_000) ** 0.5)
