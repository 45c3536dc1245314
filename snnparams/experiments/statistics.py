"""Compare conditions over seeds: intervals, paired differences, exact tests, and their correction for being many.

The unit is the seed: one number per seed and condition. Explained in chapter 6.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

MOST_EXACT = 15  # seeds up to which all 2^n combinations of signs are counted
RESAMPLES = 100_000  # random combinations of signs beyond that
BATCH = 2**12  # combinations of signs at once
TIE = 1e-9  # sums of differences that are as near as this, in shares of all differences, are equal
BOOTSTRAP_SAMPLES = 10_000


class Interval(NamedTuple):
    """A mean and its bootstrap interval."""

    mean: float
    low: float
    high: float


class Difference(NamedTuple):
    """How one condition differs from another, seed by seed."""

    mean: float  # of the differences
    low: float  # bootstrap interval of that mean
    high: float
    effect: float  # mean over standard deviation of the differences (Cohen's d_z)
    p: float  # two-sided, of the exact paired permutation test
    n: int  # number of seeds


def _numbers(name: str, values: ArrayLike) -> np.ndarray:
    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or len(x) < 2 or not np.isfinite(x).all():
        raise ValueError(f"{name}: expected at least two finite numbers, got {x.tolist()}")
    return x


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name}: expected a number between 0 and 1, got {value}")


def _check_seeds(conditions: Mapping) -> None:
    """A list has no seeds, and one of another order would be compared in silence."""
    for name, numbers in conditions.items():
        if not isinstance(numbers, Mapping):
            got = type(numbers).__name__
            raise TypeError(f"{name}: expected numbers by seed, as dict(zip(seeds, numbers)), got {got}")


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Return the mean of some numbers with a bootstrap interval (bias-corrected and accelerated, BCa).

    With about ten numbers it is somewhat too short: of intervals at a level of 95 %, about 90 % hold the true mean.

    Args:
        values: at least two, one per seed.
        level: of confidence.

    Raises:
        ValueError: if there are fewer than two values, one is not finite, or the level is not between 0 and 1.
    """
    _check_share("level", level)
    x = _numbers("values", values)
    mean = float(x.mean())
    if np.ptp(x) <= 1e-12 * abs(mean):  # the bootstrap of equal numbers is no distribution
        return Interval(mean, mean, mean)
    found = stats.bootstrap(
        (x,), np.mean, confidence_level=level, n_resamples=BOOTSTRAP_SAMPLES, rng=np.random.default_rng(0)
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))


def permutation_test(differences: ArrayLike) -> float:
    """Return how likely a mean difference of at least that size is, were the sign of each difference random.

    Up to 15 differences all :math:`2^n` combinations of signs are counted, so that the result is exact and never below
    2 / 2^n; for more, 100,000 random ones.

    Args:
        differences: of two conditions, one per seed; at least two.

    Returns:
        The two-sided p-value.

    Raises:
        ValueError: if there are fewer than two, or one is not finite.
    """
    d = _numbers("differences", differences)
    exact = len(d) <= MOST_EXACT
    rng, count, total = np.random.default_rng(0), 0, 2 ** len(d) if exact else RESAMPLES
    # Accuracies are fractions, and many combinations have the same sum but for rounding: those count. SciPy's test lets
    # sums differ by 2e-14 of the observed one, which is less than what subtracting two accuracies rounds.
    least = abs(d.sum()) - TIE * np.abs(d).sum()
    for begin in range(0, total, BATCH):
        chosen = np.arange(begin, min(begin + BATCH, total))
        if exact:
            signs = 1 - 2 * (chosen[:, None] >> np.arange(len(d)) & 1)
        else:
            signs = 1 - 2 * rng.integers(0, 2, (len(chosen), len(d)))
        count += int((np.abs(signs @ d) >= least).sum())
    return count / total if exact else (count + 1) / (total + 1)  # what was observed is one of the random ones, too


def paired_difference(a: Mapping[int, float], b: Mapping[int, float], level: float = 0.95) -> Difference:
    """Compare two conditions by the seeds that they share: all seeds, or it is refused.

    A p-value never comes alone: with the mean difference come its interval and the size of the effect.

    Args:
        a: a number by seed.
        b: the numbers of the condition to compare with, by seed.
        level: of the interval.

    Returns:
        The difference a - b.

    Raises:
        TypeError: if numbers come without seeds.
        ValueError: if the seeds differ, there are fewer than two, a number is not finite, or the level is not between 0
            and 1.
    """
    _check_seeds({"a": a, "b": b})
    if set(a) != set(b):
        only = sorted(set(a) ^ set(b))
        raise ValueError(f"seeds: expected the same in both conditions, got {only} in one of them only")
    d = _numbers("differences", [a[seed] - b[seed] for seed in sorted(a)])
    mean, low, high = mean_interval(d, level)
    spread = d.std(ddof=1)
    if spread <= 1e-12 * abs(mean):
        effect = float(np.sign(mean) * np.inf) if mean else 0.0
    else:
        effect = float(mean / spread)
    return Difference(mean, low, high, effect, permutation_test(d), len(d))


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Return p-values corrected for the number of tests by Holm's method: the chance of any false positive is kept.

    Args:
        p: p-values by name.

    Raises:
        ValueError: if one is not between 0 and 1.
    """
    if bad := {name: value for name, value in p.items() if not 0 <= value <= 1}:
        raise ValueError(f"p: expected values from 0 to 1, got {bad}")
    corrected, largest = {}, 0.0
    for rank, name in enumerate(sorted(p, key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[name]))
        corrected[name] = largest
    return {name: corrected[name] for name in p}


def compare(conditions: Mapping[str, Mapping[int, float]], baseline: str, level: float = 0.95) -> dict[str, Difference]:
    """Compare all conditions with a baseline; p-values are corrected by Holm's method.

    Args:
        conditions: numbers by condition and seed.
        baseline: the condition to compare with.
        level: of the intervals, which are not corrected.

    Raises:
        TypeError: if numbers come without seeds.
        ValueError: if the baseline is none of the conditions, seeds differ, or the level is not between 0 and 1.
    """
    if baseline not in conditions:
        raise ValueError(f"baseline: expected one of {', '.join(conditions)}, got {baseline!r}")
    _check_seeds(conditions)
    found = {
        name: paired_difference(values, conditions[baseline], level)
        for name, values in conditions.items()
        if name != baseline
    }
    p = holm({name: difference.p for name, difference in found.items()})
    return {name: difference._replace(p=p[name]) for name, difference in found.items()}


class Contrast(NamedTuple):
    """A weighted sum of conditions, seed by seed."""

    mean: float  # over seeds
    low: float  # t interval of that mean
    high: float
    p: float  # two-sided, of the one-sample t test against 0
    deviation: float  # standard deviation between seeds
    n: int  # number of seeds
    detectable: float  # the smallest true mean that such a design sees with a power of 80 %


def t_power(effect: float, n: int, level: float = 0.95) -> float:
    """Return how likely a two-sided one-sample t test sees an effect.

    Args:
        effect: true mean over true standard deviation.
        n: number of seeds, at least 2.
        level: 1 minus the rate of false positives.

    Raises:
        ValueError: if n is below 2 or the level not between 0 and 1.
    """
    _check_share("level", level)
    if n < 2:
        raise ValueError(f"n: expected at least 2, got {n}")
    critical, shift = stats.t.ppf((1 + level) / 2, n - 1), effect * n**0.5
    # not cdf(-critical, ..., shift), which is the same but NaN for large shifts
    return float(stats.nct.sf(critical, n - 1, shift) + stats.nct.sf(critical, n - 1, -shift))


@functools.cache
def smallest_effect(n: int, power: float = 0.8, level: float = 0.95) -> float:
    """Return the smallest effect, in standard deviations, that a paired design of n seeds sees with that power.

    Args:
        n: number of seeds, at least 2.
        power: wanted, more than 1 minus the level.
        level: 1 minus the rate of false positives.

    Raises:
        ValueError: if n is below 2, or level or power are out of range.
    """
    _check_share("power", power)
    if t_power(0, n, level) >= power:
        raise ValueError(f"power: expected more than {1 - level:g}, got {power}")
    low, high = 0.0, 1.0
    while t_power(high, n, level) < power:
        low, high = high, 2 * high
    return float(optimize.brentq(lambda effect: t_power(effect, n, level) - power, low, high))


def contrast(
    conditions: Mapping[str, Mapping[int, float]], weights: Mapping[str, float], level: float = 0.95
) -> Contrast:
    """Return a weighted sum of conditions, taken within seeds: a main effect, an interaction, or a simple difference.

    All conditions of a seed share its data, weights and order, so a seed is a block, and the sum within it is
    free of what the block adds to all. With one number for each seed this is what a linear model with seeds as
    blocks gives for that contrast alone, without its assumption that all conditions scatter alike.

    Args:
        conditions: a number by condition and seed.
        weights: by condition; they must add up to 0.
        level: of the interval.

    Raises:
        TypeError: if numbers come without seeds.
        ValueError: if a condition is missing, the weights do not add up to 0 or are all 0, seeds differ or are fewer
            than two, a number is not finite, or the level is out of range.
    """
    if missing := [name for name in weights if name not in conditions]:
        raise ValueError(f"weights: expected names among {', '.join(conditions)}, got {missing[0]!r}")
    if abs(sum(weights.values())) > 1e-9 or not any(weights.values()):
        raise ValueError(f"weights: expected some that add up to 0, got {dict(weights)}")
    _check_seeds({name: conditions[name] for name in weights})
    seeds = [set(conditions[name]) for name in weights]
    if any(other != seeds[0] for other in seeds):
        raise ValueError("seeds: expected the same in all conditions of a contrast")
    sums = [sum(w * conditions[name][seed] for name, w in weights.items()) for seed in sorted(seeds[0])]
    return mean_contrast(sums, level)


def mean_contrast(differences: ArrayLike, level: float = 0.95) -> Contrast:
    """Return the mean of paired differences with its t interval, and the smallest mean that could be seen.

    Args:
        differences: one per seed, at least two.
        level: of the interval.

    Raises:
        ValueError: if there are fewer than two, one is not finite, or the level is out of range.
    """
    return _t_contrast(_numbers("differences", differences), level, 0.0)


def corrected_contrast(differences: ArrayLike, test_share: float, level: float = 0.95) -> Contrast:
    r"""Return the mean difference over overlapping splits, by Nadeau and Bengio's corrected resampled t test.

    Splits of one data set share training inputs, so their results are not independent, and a plain t test sees
    differences that are not there far too often. The variance of the mean is taken as :math:`s^2 (1 / J +
    n_\mathrm{test} / n_\mathrm{train})` instead of :math:`s^2 / J`.

    Args:
        differences: one for each split (a mean over the seeds of that split), J of them.
        test_share: :math:`n_\mathrm{test} / n_\mathrm{train}` of a split; 0.25 for five folds.
        level: of the interval.

    Raises:
        ValueError: if there are fewer than two, one is not finite, or share or level are out of range.

    References:
        C. Nadeau and Y. Bengio (2003), "Inference for the generalization error", Machine Learning 52.
    """
    if not test_share > 0:
        raise ValueError(f"test_share: expected a positive number, got {test_share}")
    return _t_contrast(_numbers("differences", differences), level, test_share)


def _t_contrast(d: np.ndarray, level: float, shared: float) -> Contrast:
    _check_share("level", level)
    n, mean, deviation = len(d), float(d.mean()), float(d.std(ddof=1))
    error = deviation * (1 / n + shared) ** 0.5
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, n - 1)) if error > 1e-12 * abs(mean) else float(mean == 0)
    detectable = smallest_effect(n, level=level) * error * n**0.5
    return Contrast(mean, mean - half, mean + half, p, deviation, n, detectable)


def equivalence(differences: ArrayLike, margin: float) -> float:
    """Return the p-value of two one-sided t tests (TOST): small if the mean lies within the margin on either side.

    "Not significant" says that a difference was not seen; this says that there is none as large as the margin.

    Args:
        differences: paired, at least two.
        margin: the largest difference that counts as none, positive, in the same unit.

    Raises:
        ValueError: if the margin is not positive, there are fewer than two differences, or one is not finite.
    """
    if not margin > 0:
        raise ValueError(f"margin: expected a positive number, got {margin}")
    d = _numbers("differences", differences)
    if np.ptp(d) == 0:  # no t statistic
        return float(not abs(d[0]) < margin)
    above = stats.ttest_1samp(d, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(d, margin, alternative="less").pvalue
    return float(max(above, below))
